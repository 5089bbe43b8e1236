//! The vocabulary of a trace: one variant for each thing that can happen to a packet, with the values involved.

use core::net::IpAddr;

use super::{BeyondStep, FragmentStep};
use crate::direction::{CtInfo, Direction};
use crate::expect::Mask;
use crate::helper::{Helper, HelperStep};
use crate::hook::Hook;
use crate::nat::Manip;
use crate::rules::TableName;
use crate::rules::target::Reject;
use crate::table::TableFull;
use crate::template::Template;
use crate::track::sctp::SctpStep;
use crate::track::tcp::TcpStep;
use crate::tuple::{L3, Tuple};

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fragments were gathered, or a packet leaves in fragments.
    Fragment(FragmentStep),
    /// A packet came to conntrack.
    Arrived {
        /// Where.
        hook: Hook,
        /// Length of the IP packet in bytes.
        bytes: usize,
    },
    /// A transport checksum was verified.
    ChecksumRight(Protected),
    /// The sender left the UDP checksum out.
    ChecksumAbsent,
    /// A transport checksum was not looked at.
    ChecksumUnchecked(Unchecked),
    /// The packet already carries an entry: it is not tracked again (CORE-HOOK-04, ICMP-LOC-01).
    AlreadyAttached,

    /// The packet is an ICMP error: it belongs to the flow of the packet that it quotes.
    IcmpError {
        /// ICMP or ICMPv6.
        l3num: L3,
        /// Type.
        icmp_type: u8,
        /// Code.
        code: u8,
    },
    /// The quoted packet, as far as its tuple.
    Quoted {
        /// Where its IP header starts in the error.
        offset: usize,
        /// How many bytes of it are quoted.
        bytes: usize,
        /// Its tuple.
        tuple: Tuple,
    },
    /// The quoted tuple turned round.
    QuotedInverted {
        /// The tuple to look for.
        inverted: Tuple,
    },
    /// The flow that the quoted packet belonged to.
    QuotedHit {
        /// Number of the entry.
        id: u32,
        /// Direction whose tuple is the inverted one: the direction of the error.
        direction: Direction,
        /// Direction of the packet that died.
        died: Direction,
    },
    /// The error goes where the flow goes.
    HostCheck {
        /// Destination of the error.
        outer: IpAddr,
    },
    /// The error belongs to the flow.
    Related {
        /// Number of the entry.
        id: u32,
        /// RELATED or RELATED_REPLY.
        ctinfo: CtInfo,
    },
    /// The kind of message is exempt from tracking.
    Exempt {
        /// ICMPv6 type.
        icmp_type: u8,
    },

    /// The tuple of the packet.
    TupleRead {
        /// The tuple.
        tuple: Tuple,
    },
    /// The tuple is in the table.
    Hit {
        /// Number of the entry.
        id: u32,
        /// Direction whose tuple it is.
        direction: Direction,
    },
    /// The tuple is not in the table, a flow begins.
    Created {
        /// The tuple of the answer.
        reply: Tuple,
    },
    /// The tuple is not in the table either, but no more entries may be added: others have to go.
    TableFull(TableFull),
    /// An entry went early, because the table is full or nearly so.
    EarlyDropped {
        /// Its number.
        id: u32,
        /// Its original tuple.
        original: Tuple,
    },
    /// The flow was expected.
    Expected {
        /// Number of the entry that it belongs to.
        master: u32,
        /// Who expected it.
        helper: Helper,
    },
    /// A helper did something.
    Helper(HelperStep),
    /// A flow is expected.
    ExpectationMade {
        /// Its first packet.
        tuple: Tuple,
        /// What counts of its source.
        mask: Mask,
        /// Who expects it.
        helper: Helper,
        /// How long.
        seconds: u32,
    },
    /// The same was expected already; the new expectation takes its place.
    ExpectationReplaced {
        /// What was expected.
        tuple: Tuple,
    },
    /// The oldest expectation goes, because its helper may have no more.
    ExpectationEvicted {
        /// What was expected.
        tuple: Tuple,
        /// How many there may be.
        max: usize,
    },
    /// It is expected no longer.
    ExpectationRemoved {
        /// What was expected.
        tuple: Tuple,
    },
    /// Numbers in the TCP header follow the changed length of earlier segments.
    SeqAdjusted {
        /// Sequence number before and after.
        seq: (u32, u32),
        /// Acknowledgment number before and after, where there is one.
        ack: Option<(u32, u32)>,
        /// SACK blocks that were looked through.
        blocks: u8,
    },
    /// What conntrack calls the packet, and why.
    Decided {
        /// The word.
        ctinfo: CtInfo,
    },
    /// The TCP tracker did something.
    Tcp(TcpStep),
    /// The SCTP tracker did something.
    Sctp(SctpStep),
    /// A tracker chose a timeout.
    Timeout {
        /// Why this one.
        rule: TimeoutRule,
        /// Seconds.
        seconds: u32,
    },
    /// The tracker accepted the packet, but the entry was neither refreshed nor counted.
    NotRefreshed,
    /// The first packet in reply direction.
    SeenReply,
    /// The flow is now ASSURED.
    Assured,
    /// An older connection had this tuple; its entry is deleted and the packet begins a new flow.
    Reopened {
        /// Number of the old entry.
        id: u32,
    },
    /// The packet ended the entry.
    Killed {
        /// Number of the entry.
        id: u32,
    },

    /// A rule of raw, mangle or filter matched, or the policy of the chain dropped the packet.
    Ruled {
        /// The table.
        table: TableName,
        /// The hook whose chain the packet is in.
        hook: Hook,
        /// Line of the rule; `None` for the policy.
        line: Option<u32>,
        /// What came of it.
        did: Ruled,
    },

    /// The nat chain of a hook was asked.
    NatAsked {
        /// The hook.
        hook: Hook,
        /// What it may change.
        manip: Manip,
        /// Line of the rule that matched, `None` when none did: a null binding follows.
        line: Option<u32>,
    },
    /// The decision was taken with an earlier packet of the flow.
    NatKept {
        /// What it is about.
        manip: Manip,
    },
    /// The reply tuple after a decision.
    NatBound {
        /// What was changed.
        manip: Manip,
        /// The tuple that packets of the original direction leave with.
        leaves_as: Tuple,
        /// Was it the port or id that had to change because the wanted one was taken?
        port_taken: bool,
    },
    /// Another flow from the same source had its source translated so, and the range allows that here, too.
    NatMappingReused {
        /// The tuple that packets of the original direction leave with.
        leaves_as: Tuple,
    },
    /// A connection that is over had the wanted tuple; its entry is deleted (NAT-PORT-05).
    NatEvicted {
        /// Number of the entry.
        id: u32,
    },
    /// NAT did more than the kernel, because it was asked to.
    Beyond(BeyondStep),
    /// The kernel said which binding it chose.
    Learnt {
        /// The kernel's number of the entry.
        id: u32,
        /// The reply tuple that follows from it.
        reply: Tuple,
    },
    /// A packet without an entry passes NAT unchanged.
    NatBypassed,
    /// An address, and a port or id where there is one, was rewritten.
    Rewritten {
        /// In the packet itself, or in the one that it quotes.
        part: Part,
        /// Source or destination.
        manip: Manip,
        /// Before: address and port.
        from: (IpAddr, Option<u16>),
        /// After.
        to: (IpAddr, Option<u16>),
    },
    /// A checksum was brought up to date.
    ChecksumUpdated {
        /// In the packet itself, or in the one that it quotes.
        part: Part,
        /// Which.
        protected: Protected,
        /// How.
        how: Update,
        /// Before; 32 bits for SCTP, 16 for the others.
        from: u32,
        /// After.
        to: u32,
    },
    /// An error about a flow that needs no translation at this hook.
    ErrorUntranslated {
        /// The hook.
        hook: Hook,
    },

    /// The packet is for an address of this host.
    RoutedLocal {
        /// The address.
        to: IpAddr,
    },
    /// The packet is forwarded.
    RoutedTo {
        /// Index of the outgoing interface.
        interface: u16,
    },
    /// The TTL was decremented.
    TtlDecremented {
        /// The new value.
        to: u8,
    },
    /// The entry went into the table.
    Confirmed {
        /// Its number.
        id: u32,
    },
    /// Another packet of the same flow was confirmed first: the packet goes on with that entry (CLASH-02a).
    ClashMerged {
        /// Its number.
        id: u32,
    },
    /// Another packet of the same flow was confirmed first, with another binding: this one's entry serves answers only,
    /// for a second (CLASH-02b).
    ClashInserted {
        /// Its number.
        id: u32,
    },
    /// The packet was dropped before its entry was confirmed: the entry vanished with it (NEW-02).
    EntryVanished,
}

/// The part of a packet that was rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The packet itself.
    Outer,
    /// The packet that an ICMP error quotes.
    Quoted,
}

/// What a rule of raw, mangle or filter did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruled {
    /// The table is done with the packet.
    Accepted,
    /// It ends here.
    Dropped,
    /// It ends here, and its sender is told.
    Rejected(Reject),
    /// Back to where the chain was jumped to from.
    Returned,
    /// Into another chain.
    Jumped,
    /// Somebody was told.
    Logged,
    /// Conntrack will leave the packet alone.
    Untracked,
    /// Conntrack will treat the packet in this way. A zone that comes from the mark is the one of this moment.
    Template(Template),
    /// The mark of the packet.
    Marked {
        /// As it is now.
        to: u32,
    },
    /// The mark of the flow.
    FlowMarked {
        /// As it is now.
        to: u32,
    },
    /// Nothing: the packet has no entry to act on, or already carries what the rule would attach.
    Ignored,
}

/// What a checksum protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protected {
    /// The IPv4 header.
    Ipv4Header,
    /// A UDP datagram.
    Udp,
    /// A TCP segment.
    Tcp,
    /// What the coverage of a UDP-Lite datagram says.
    Udplite,
    /// An SCTP packet, by its CRC32c.
    Sctp,
    /// An ICMP or ICMPv6 message.
    Icmp,
}

/// How a checksum was brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// By the difference: what was wrong stays wrong.
    Incremental,
    /// Computed over all bytes.
    Full,
}

/// Why a checksum was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchecked {
    /// `nf_conntrack_checksum` is 0.
    Switched,
    /// Only PREROUTING looks.
    Hook,
    /// Bytes are missing from the capture.
    Cut,
    /// A device, or the sender on this machine, vouches for it.
    Trusted,
}

/// Why a timeout was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutRule {
    /// No packet was seen in reply direction yet.
    Unreplied,
    /// Replied, but younger than two seconds.
    Young,
    /// Replied and older than two seconds.
    Stream,
    /// Replied, for protocols that make no difference between young and old.
    Replied,
    /// ICMP and ICMPv6 queries.
    Icmp,
    /// A protocol that conntrack does not know.
    Generic,
}

impl Step {
    /// The stable name of the kind of step, as in `--json`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Step::Fragment(_) => "fragment",
            Step::Arrived { .. } => "arrived",
            Step::ChecksumRight(_) => "checksum_right",
            Step::ChecksumAbsent => "checksum_absent",
            Step::ChecksumUnchecked(_) => "checksum_unchecked",
            Step::AlreadyAttached => "already_attached",
            Step::IcmpError { .. } => "icmp_error",
            Step::Quoted { .. } => "quoted",
            Step::QuotedInverted { .. } => "quoted_inverted",
            Step::QuotedHit { .. } => "quoted_hit",
            Step::HostCheck { .. } => "host_check",
            Step::Related { .. } => "related",
            Step::Exempt { .. } => "exempt",
            Step::TupleRead { .. } => "tuple_read",
            Step::Hit { .. } => "hit",
            Step::TableFull(_) => "table_full",
            Step::EarlyDropped { .. } => "early_dropped",
            Step::Created { .. } => "created",
            Step::Expected { .. } => "expected",
            Step::Helper(_) => "helper",
            Step::ExpectationMade { .. } => "expectation_made",
            Step::ExpectationReplaced { .. } => "expectation_replaced",
            Step::ExpectationEvicted { .. } => "expectation_evicted",
            Step::ExpectationRemoved { .. } => "expectation_removed",
            Step::SeqAdjusted { .. } => "seq_adjusted",
            Step::Decided { .. } => "decided",
            Step::Tcp(_) => "tcp",
            Step::Sctp(_) => "sctp",
            Step::Timeout { .. } => "timeout",
            Step::NotRefreshed => "not_refreshed",
            Step::SeenReply => "seen_reply",
            Step::Assured => "assured",
            Step::Reopened { .. } => "reopened",
            Step::Killed { .. } => "killed",
            Step::Ruled { .. } => "ruled",
            Step::NatAsked { .. } => "nat_asked",
            Step::NatKept { .. } => "nat_kept",
            Step::NatBound { .. } => "nat_bound",
            Step::NatMappingReused { .. } => "nat_mapping_reused",
            Step::NatEvicted { .. } => "nat_evicted",
            Step::Beyond(step) => step.name(),
            Step::Learnt { .. } => "learnt",
            Step::NatBypassed => "nat_bypassed",
            Step::Rewritten { .. } => "rewritten",
            Step::ChecksumUpdated { .. } => "checksum_updated",
            Step::ErrorUntranslated { .. } => "error_untranslated",
            Step::RoutedLocal { .. } => "routed_local",
            Step::RoutedTo { .. } => "routed_to",
            Step::TtlDecremented { .. } => "ttl_decremented",
            Step::Confirmed { .. } => "confirmed",
            Step::ClashMerged { .. } => "clash_merged",
            Step::ClashInserted { .. } => "clash_inserted",
            Step::EntryVanished => "entry_vanished",
        }
    }
}
