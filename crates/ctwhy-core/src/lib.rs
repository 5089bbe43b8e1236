//! Linux connection tracking and NAT as a pure library: packet -> tuple -> lookup -> state -> NAT -> confirm, and the
//! trace of it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod checksum;
pub mod direction;
pub mod reason;
pub mod render;
pub mod status;
pub mod sysctl;
pub mod time;
pub mod trace;
pub mod track;
pub mod tuple;
