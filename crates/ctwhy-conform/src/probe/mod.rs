//! What can be told about the way to a host, and about the NAT before it, from one end only.
//!
//! [`run`] sends probes and keeps [`Evidence`](evidence::Evidence); [`verdict`] reasons about it
//! and touches no network, first (`nearer`) about who answers at all; [`claim`] has the words.

pub mod claim;
pub mod evidence;
mod nearer;
pub mod run;
pub mod verdict;
