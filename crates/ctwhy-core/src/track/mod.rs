//! Trackers: what a protocol says about a packet of a flow (`struct nf_conntrack_l4proto`).

pub mod gre;
pub mod icmp;
pub mod icmpv6;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod udplite;

use crate::profile::Profile;
use crate::reason::Reason;
use crate::status::Status;
use crate::sysctl::Sysctls;
use crate::trace::{Sink, Step, TimeoutRule};
use crate::tuple::{Addr, L3};

/// The transport part of a packet.
#[derive(Clone, Copy, Debug)]
pub struct L4<'a> {
    /// The bytes that are at hand, from the first byte of the transport header.
    pub bytes: &'a [u8],
    /// The length on the wire (`skb->len - dataoff`); more than `bytes.len()` when a capture was cut short.
    pub len: usize,
    /// Family of the two addresses.
    pub l3num: L3,
    /// Source address of the packet, for pseudo headers.
    pub src: Addr,
    /// Destination address of the packet, for pseudo headers.
    pub dst: Addr,
}

/// What a tracker may look at besides the packet and the entry.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The knobs.
    pub sysctls: &'a Sysctls,
    /// The release that is imitated.
    pub kernel: &'static Profile,
    /// Whether transport checksums are verified for this packet: the hook is PREROUTING, `nf_conntrack_checksum` is 1,
    /// and every byte is at hand.
    pub verify_checksum: bool,
}

/// What a tracker decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted. The core counts the packet and sets the timeout to this many seconds from now.
    Accept {
        /// Seconds.
        timeout: u32,
        /// Set ASSURED.
        assured: bool,
        /// There is news of the state even where it is the one from before: the packet brought an entry back in step
        /// (TCP-IGN-02).
        resync: bool,
    },
    /// Accepted, but neither counted nor refreshing the timeout.
    Ignore,
    /// Accepted and counted, then the entry is deleted (`nf_ct_kill_acct`).
    Kill,
    /// The entry belongs to an older connection: delete it and look the packet up again (`-NF_REPEAT`).
    Reopen,
    /// INVALID: the packet goes on without an entry.
    Invalid {
        /// Why.
        reason: Reason,
        /// Seconds to which the entry's timeout is lowered all the same.
        lower_timeout: Option<u32>,
    },
}

impl From<Reason> for Outcome {
    fn from(reason: Reason) -> Outcome {
        Outcome::Invalid { reason, lower_timeout: None }
    }
}

/// The rule of GRE and UDP-Lite: one timeout until a reply was seen, then the other, and ASSURED with it (GRE-01,
/// UDPLITE-02). `status` is as it was before this packet.
fn until_replied<S: Sink>(status: Status, (unreplied, replied): (u32, u32), sink: &mut S) -> Outcome {
    let (rule, timeout, assured) = if status.contains(Status::SEEN_REPLY) {
        (TimeoutRule::Replied, replied, !status.contains(Status::ASSURED))
    } else {
        (TimeoutRule::Unreplied, unreplied, false)
    };
    sink.step(|| Step::Timeout { rule, seconds: timeout });
    Outcome::Accept { timeout, assured, resync: false }
}
