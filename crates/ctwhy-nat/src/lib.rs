//! The reference NAT's own voice: what a router that runs the engine of [`ctwhy_core`] says by itself.
//!
//! The engine decides about packets that others send. A router also answers: time exceeded, fragmentation needed,
//! unreachable. [`answer`] makes those ICMP errors, pure like the engine; they then pass the engine's LOCAL_OUT with
//! the packet that they answer as trigger, which is where NAT gives them the addresses that the other side knows.
#![forbid(unsafe_code)]

pub mod answer;
