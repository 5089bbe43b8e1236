//! ctnetlink: the connection table of a network namespace, as a dump and as events, and what is expected
//! (`nf_conntrack_netlink.c`).

mod expect;
mod format;
mod parse;
mod socket;

use std::net::IpAddr;

pub use expect::{Expectation, expect_flags, format_expectation};
pub use format::{format_event, format_extended};
pub use socket::{Event, EventKind, Events, dump, dump_expectations, flush, read_events};

/// Bits of [`Entry::status`] that are looked at here (`enum ip_conntrack_status`).
pub mod status {
    /// A packet in reply direction was accepted.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// Not a candidate for early drop.
    pub const ASSURED: u32 = 1 << 2;
    /// In the table.
    pub const CONFIRMED: u32 = 1 << 3;
    /// The source is translated.
    pub const SRC_NAT: u32 = 1 << 4;
    /// The destination is translated.
    pub const DST_NAT: u32 = 1 << 5;
    /// Handled by a flow table in software.
    pub const OFFLOAD: u32 = 1 << 14;
    /// Handled by a flow table in hardware.
    pub const HW_OFFLOAD: u32 = 1 << 15;
}

/// A value for each direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PerDirection<T> {
    /// The way of the packet that created the entry.
    pub original: T,
    /// The way back.
    pub reply: T,
}

/// What tells flows of one protocol between two hosts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L4 {
    /// TCP, UDP, UDP-Lite, SCTP; for GRE the keys.
    Ports {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// Identifier.
        id: u16,
        /// Type.
        icmp_type: u8,
        /// Code.
        code: u8,
    },
    /// Every other protocol: one flow per pair of addresses.
    Generic,
}

/// One direction of a flow (`CTA_TUPLE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address; of the same family.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Ports or ICMP fields.
    pub l4: L4,
    /// Zone of this direction, where the entry's zone is for one direction only.
    pub zone: Option<u16>,
}

/// Packets and bytes of one direction (`CTA_COUNTERS_*`); kept with `nf_conntrack_acct=1` only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}

/// The state of a TCP flow (`CTA_PROTOINFO_TCP`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// `enum tcp_conntrack`: 0 NONE, 1 SYN_SENT, 2 SYN_RECV, 3 ESTABLISHED, 4 FIN_WAIT, 5 CLOSE_WAIT, 6 LAST_ACK,
    /// 7 TIME_WAIT, 8 CLOSE, 9 SYN_SENT2.
    pub state: u8,
    /// Window scale; `None` in a DESTROY.
    pub wscale: PerDirection<Option<u8>>,
    /// `IP_CT_TCP_FLAG_*`; `None` in a DESTROY.
    pub flags: PerDirection<Option<u8>>,
}

/// The state of an SCTP flow (`CTA_PROTOINFO_SCTP`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SctpInfo {
    /// `enum sctp_conntrack`.
    pub state: u8,
    /// Verification tags; `None` in a DESTROY.
    pub vtag: PerDirection<Option<u32>>,
}

/// An entry of the connection table as ctnetlink tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who sent what to whom when the flow began.
    pub orig: Tuple,
    /// What a reply looks like, translation included.
    pub reply: Tuple,
    /// `enum ip_conntrack_status`, see [`status`].
    pub status: u32,
    /// Seconds until the entry expires; `None` in the DESTROY of an expired one.
    pub timeout: Option<u32>,
    /// Connection mark.
    pub mark: u32,
    /// Identifier; used again for the same tuple at the same place in memory (GC-02), so it is no key.
    pub id: Option<u32>,
    /// Zone of both directions; 0 is the default zone.
    pub zone: u16,
    /// References held; `None` in events.
    pub use_count: Option<u32>,
    /// TCP's state.
    pub tcp: Option<TcpInfo>,
    /// SCTP's state.
    pub sctp: Option<SctpInfo>,
    /// Traffic so far.
    pub counters: PerDirection<Option<Counters>>,
    /// The flow that expected this one.
    pub master: Option<Tuple>,
    /// Name of the helper.
    pub helper: Option<String>,
}
