//! The kernel's side of ctwhy: what Linux can be asked, and how. It knows no engine.
//!
//! In the order in which a live run needs them:
//!
//! - [`lab`] builds networks of namespaces without touching the machine's own; [`netns`] enters them.
//! - [`sysctl`] reads and writes the network settings of a namespace.
//! - [`rules`] puts the kernel's decision into mark bits and the packet into a queue, and takes the rules away again.
//! - [`queue`] receives the packets from NFQUEUE and hands the verdicts back.
//! - [`ctnetlink`] reads the connection table and follows its changes.
//! - [`nflog`] receives copies of packets from behind source NAT.
//! - [`interfaces`] has names for interface numbers, and addresses.
//! - [`links`] tells of interfaces, addresses and routes, and when they change.
//! - [`wire`] puts raw packets on a wire and takes them off; [`burst`] does so with many at once, each marked.
//! - [`peer`] is how programs of one user find each other.
//! - [`socket`] has sockets that tell who complained about what they sent.
//! - [`signal`] makes termination signals readable, so that a loop ends and its guards run.
//! - [`probe`] sends packets with a TTL of one's choice and hears what comes of them.
//! - [`program`] finds the tools that are called and names the package of a missing one.
//! - [`testing`] decides whether a test may use namespaces here, and says so where not.
#![cfg(target_os = "linux")]

pub mod burst;
pub mod ctnetlink;
pub mod interfaces;
pub mod lab;
pub mod links;
mod netlink;
pub mod netns;
pub mod nflog;
pub mod peer;
pub mod probe;
pub mod program;
pub mod queue;
pub mod rules;
pub mod signal;
pub mod socket;
pub mod sysctl;
pub mod testing;
pub mod wire;

use std::io;

/// An error that says what was being done: `doing` and then the cause, with the cause's kind.
pub(crate) fn context(doing: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |cause| io::Error::new(cause.kind(), format!("{doing}: {cause}"))
}
