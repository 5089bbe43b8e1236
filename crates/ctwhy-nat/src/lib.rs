//! The reference NAT: a router whose every decision about packets is [`ctwhy_core`]'s.
//!
//! The engine decides about packets that others send. A router also speaks itself: time exceeded, fragmentation needed,
//! unreachable, echo replies, resets. In the order in which a packet meets them:
//!
//! - [`router`] takes a packet that arrives and gives those that leave, also its own, which pass the engine's LOCAL_OUT
//!   with the packet that they answer as trigger; that is where NAT gives them the addresses that the other side knows.
//! - [`local`] answers what is for the router itself; [`answer`] makes the bytes of ICMP errors; `voice` knows when.
//! - [`offload`] is what a device and the router leave to each other: checksums, and several segments in one packet.
//! - `join` has packets of a flow that leave behind each other leave as one.
//! - [`limit`] keeps errors to what the kernel would send.
//! - [`tun`] is the router on TUN devices. The above is pure: time is an argument, and there is no I/O.
//!
//! [`queue`] needs little of that: there a kernel is the router, only what conntrack and NAT decide is decided here, and only
//! rules that reject make it speak. And
//! [`proxy`] is what both are contrasted with: a NAT made of sockets.
#![forbid(unsafe_code)]

pub mod answer;
#[cfg(target_os = "linux")]
mod join;
pub mod limit;
pub mod local;
pub mod offload;
#[cfg(target_os = "linux")]
pub mod proxy;
#[cfg(target_os = "linux")]
pub mod queue;
pub mod router;
pub mod statistics;
#[cfg(target_os = "linux")]
pub mod tun;
mod voice;
