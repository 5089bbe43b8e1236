//! Traces as text and JSON. Everything that happened is a value elsewhere; here are its words.

mod beyond;
mod fragment;
mod helper;
pub mod icmp;
pub mod reason;
pub mod sctp;
pub mod tcp;
pub mod text;
