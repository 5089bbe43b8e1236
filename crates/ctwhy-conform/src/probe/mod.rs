//! What can be told about the way to a host, and about the NAT before it, from one end only.
//!
//! [`run`] sends probes and keeps [`Evidence`](evidence::Evidence); [`verdict`] reasons about it
//! and touches no network; [`claim`] has the words.

pub mod claim;
pub mod evidence;
pub mod run;
pub mod verdict;
