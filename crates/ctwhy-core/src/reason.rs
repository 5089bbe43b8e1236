//! Why a packet is INVALID: one cause for each place that refuses, with the values that were compared.

use core::net::IpAddr;

use crate::packet::NoTransport;
use crate::track::sctp::SctpReason;
use crate::track::tcp::TcpReason;
use crate::tuple::{NoTuple, ShortTransport, Tuple};

/// The cause of an INVALID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The packet has no transport header to track it by.
    NoTransport(NoTransport),
    /// The transport header is cut off before the tuple is complete.
    ShortTransport(ShortTransport),
    /// GRE version 1 that does not carry PPP.
    GrePayload {
        /// The EtherType of what it carries.
        protocol: u16,
    },
    /// The tuple cannot be turned round: nobody answers this ICMP type, so no flow can begin with it.
    NotInvertible {
        /// The tuple.
        tuple: Tuple,
    },
    /// The ICMP header is cut off.
    IcmpShort {
        /// Bytes there, of 8.
        have: usize,
    },
    /// The ICMP checksum is wrong.
    IcmpChecksum {
        /// As in the packet.
        found: u16,
        /// As it should be.
        expected: u16,
    },
    /// An ICMP type above 18.
    IcmpUnknownType {
        /// The type.
        icmp_type: u8,
    },
    /// An ICMP answer without the query.
    IcmpUnsolicited {
        /// The tuple of the packet.
        tuple: Tuple,
    },
    /// The quoted packet leads to no transport header.
    QuotedNoTransport(NoTransport),
    /// The quoted transport header is cut off before the tuple is complete.
    QuotedShortTransport(ShortTransport),
    /// The quoted packet is GRE version 1 that does not carry PPP.
    QuotedGrePayload {
        /// The EtherType of what it carries.
        protocol: u16,
    },
    /// The quoted packet is itself one that nobody answers, such as an ICMP error: it belongs to no flow.
    QuotedNotInvertible {
        /// The quoted tuple.
        tuple: Tuple,
    },
    /// No flow has the inverted tuple of the quoted packet.
    QuotedUnknownFlow {
        /// The quoted tuple.
        quoted: Tuple,
        /// The tuple that was looked for.
        inverted: Tuple,
    },
    /// The error goes to another address than the flow that it quotes would.
    OuterDaddrMismatch {
        /// Destination of the error.
        outer: IpAddr,
        /// Destination of the flow in that direction.
        expected: IpAddr,
    },
    /// An ICMPv6 redirect that did not come from the link: hop limit not 255 or source not link-local.
    RedirectOffLink {
        /// Hop limit.
        hop_limit: u8,
        /// Source address.
        source: IpAddr,
    },
    /// An ICMPv6 redirect shorter than 40 bytes.
    RedirectShort {
        /// Bytes there.
        have: usize,
    },
    /// An ICMPv6 redirect without a usable option.
    RedirectNoOptions,
    /// The UDP header is cut off.
    UdpShort {
        /// Bytes there, of 8.
        have: usize,
    },
    /// The length in the UDP header does not fit the packet.
    UdpLength {
        /// As the header says.
        says: usize,
        /// As the packet has.
        have: usize,
    },
    /// The UDP checksum is wrong.
    UdpChecksum {
        /// As in the packet.
        found: u16,
        /// As it should be.
        expected: u16,
    },
    /// The UDP-Lite header is cut off.
    UdpliteShort {
        /// Bytes there, of 8.
        have: usize,
    },
    /// The checksum coverage in the UDP-Lite header does not fit the packet.
    UdpliteCoverage {
        /// As the header says.
        says: usize,
        /// Length of the datagram.
        have: usize,
    },
    /// UDP-Lite without a checksum.
    UdpliteNoChecksum,
    /// The UDP-Lite checksum is wrong, as the kernel computes it.
    UdpliteChecksum {
        /// As in the packet.
        found: u16,
        /// As the kernel would have it.
        expected: u16,
        /// As RFC 3828 would have it.
        rfc: u16,
    },
    /// The TCP tracker refused.
    Tcp(TcpReason),
    /// The SCTP tracker refused.
    Sctp(SctpReason),
}

impl Reason {
    /// Why a packet has no tuple.
    pub(crate) const fn no_tuple(cause: NoTuple) -> Reason {
        match cause {
            NoTuple::Short(short) => Reason::ShortTransport(short),
            NoTuple::GrePayload { protocol } => Reason::GrePayload { protocol },
        }
    }

    /// Why a quoted packet has none.
    pub(crate) const fn quoted_no_tuple(cause: NoTuple) -> Reason {
        match cause {
            NoTuple::Short(short) => Reason::QuotedShortTransport(short),
            NoTuple::GrePayload { protocol } => Reason::QuotedGrePayload { protocol },
        }
    }

    /// Is it a transport checksum that is wrong? Behind a capture that often means checksum offload.
    #[must_use]
    pub const fn is_checksum(&self) -> bool {
        matches!(
            self,
            Reason::IcmpChecksum { .. }
                | Reason::UdpChecksum { .. }
                | Reason::UdpliteChecksum { .. }
                | Reason::Tcp(TcpReason::BadChecksum { .. })
                | Reason::Sctp(SctpReason::Checksum { .. })
        )
    }
}

impl Reason {
    /// The stable code, as in `--json`: `icmp.outer_daddr_mismatch`, `tcp.seq_over_upper_bound`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Reason::NoTransport(_) => "ip.no_transport",
            Reason::ShortTransport(_) => "tuple.short_transport",
            Reason::GrePayload { .. } => "tuple.gre_payload",
            Reason::NotInvertible { .. } => "tuple.not_invertible",
            Reason::IcmpShort { .. } => "icmp.short",
            Reason::IcmpChecksum { .. } => "icmp.checksum",
            Reason::IcmpUnknownType { .. } => "icmp.unknown_type",
            Reason::IcmpUnsolicited { .. } => "icmp.unsolicited",
            Reason::QuotedNoTransport(_) => "icmp.quoted_no_transport",
            Reason::QuotedShortTransport(_) => "icmp.quoted_short_transport",
            Reason::QuotedGrePayload { .. } => "icmp.quoted_gre_payload",
            Reason::QuotedNotInvertible { .. } => "icmp.quoted_not_invertible",
            Reason::QuotedUnknownFlow { .. } => "icmp.quoted_unknown_flow",
            Reason::OuterDaddrMismatch { .. } => "icmp.outer_daddr_mismatch",
            Reason::RedirectOffLink { .. } => "icmp.redirect_off_link",
            Reason::RedirectShort { .. } => "icmp.redirect_short",
            Reason::RedirectNoOptions => "icmp.redirect_no_options",
            Reason::UdpShort { .. } => "udp.short",
            Reason::UdpLength { .. } => "udp.length",
            Reason::UdpChecksum { .. } => "udp.checksum",
            Reason::UdpliteShort { .. } => "udplite.short",
            Reason::UdpliteCoverage { .. } => "udplite.coverage",
            Reason::UdpliteNoChecksum => "udplite.no_checksum",
            Reason::UdpliteChecksum { .. } => "udplite.checksum",
            Reason::Tcp(reason) => reason.code(),
            Reason::Sctp(reason) => reason.code(),
        }
    }
}
