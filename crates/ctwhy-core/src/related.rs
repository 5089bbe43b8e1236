//! The heart: an ICMP error quotes the packet that died; here the quote becomes the flow that it belongs to.
//!
//! The quoted packet travelled one way and the error travels the other. So the quoted tuple is inverted, and the flow
//! that has the inverted tuple is the one the error is about: found by its reply tuple when an original packet died.

use crate::direction::{CtInfo, Direction};
use crate::packet::{Packet, Quoted, Transport, be16};
use crate::reason::Reason;
use crate::table::{EntryId, Table};
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::track::icmp::IcmpHeader;
use crate::track::{Context, icmp, icmpv6};
use crate::tuple::{L3, extract, proto};
use crate::zone::Zone;

/// What an error handler found out about an ICMP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpKind {
    /// Not an error: tracked like any packet.
    Query,
    /// Neighbour discovery and the like: exempt from tracking.
    Untracked,
    /// An error about a flow.
    Related {
        /// The flow.
        id: EntryId,
        /// The direction that the error travels in.
        direction: Direction,
    },
}

/// A packet that may be an ICMP error, and the table in which its flow would be.
pub(crate) struct Search<'a, S> {
    pub(crate) packet: &'a Packet<'a>,
    pub(crate) table: &'a mut Table,
    /// Of the error's own template (ZONE-03).
    pub(crate) zone: Zone,
    pub(crate) now: Time,
    pub(crate) cx: &'a Context<'a>,
    pub(crate) sink: &'a mut S,
}

impl<S: Sink> Search<'_, S> {
    /// `nf_conntrack_handle_icmp`: is it an ICMP error, and about which flow?
    pub(crate) fn classify(self, transport: Transport) -> Result<IcmpKind, Reason> {
        match (self.packet.l3num, transport.protonum) {
            (L3::V4, proto::ICMP) => self.icmpv4_error(transport.offset),
            (L3::V6, proto::ICMPV6) => self.icmpv6_error(transport.offset),
            _ => Ok(IcmpKind::Query),
        }
    }

    /// `nf_conntrack_icmpv4_error` (catalogue B.2).
    fn icmpv4_error(self, offset: usize) -> Result<IcmpKind, Reason> {
        let header = icmp::check(&self.packet.l4(offset), self.cx, self.sink)?;
        if header.icmp_type > icmp::LAST_KNOWN_TYPE {
            return Err(Reason::IcmpUnknownType { icmp_type: header.icmp_type });
        }
        if !icmp::is_error(header.icmp_type) {
            return Ok(IcmpKind::Query);
        }
        self.inet_error(header, offset + icmp::HEADER)
    }

    /// `nf_conntrack_icmpv6_error` (catalogue C).
    fn icmpv6_error(self, offset: usize) -> Result<IcmpKind, Reason> {
        let header = icmpv6::check(&self.packet.l4(offset), self.cx, self.sink)?;
        if icmpv6::is_untracked(header.icmp_type, self.cx.kernel) {
            return Ok(IcmpKind::Untracked);
        }
        if header.icmp_type == icmpv6::REDIRECT {
            return self.redirect(header, offset);
        }
        if header.icmp_type >= icmpv6::FIRST_INFORMATIONAL_TYPE {
            return Ok(IcmpKind::Query);
        }
        self.inet_error(header, offset + icmp::HEADER)
    }

    /// `nf_conntrack_icmpv6_redirect`: the quoted packet is in an option (ICMP6-R-01). With a code it is no redirect, but
    /// the length comes first.
    fn redirect(self, header: IcmpHeader, offset: usize) -> Result<IcmpKind, Reason> {
        /// Type, code, checksum, reserved, target and destination.
        const REDIRECT_HEADER: usize = 40;
        /// Type and length of a neighbour discovery option, and the reserved bytes of the redirected header option.
        const OPTION_HEADER: usize = 8;
        const REDIRECTED_HEADER: u8 = 4;

        let packet = self.packet;
        let have = packet.len.saturating_sub(offset);
        if have < REDIRECT_HEADER {
            return Err(Reason::RedirectShort { have });
        }
        if header.code != 0 {
            return Ok(IcmpKind::Query);
        }
        let source = packet.src.ip(packet.l3num);
        let link_local = packet.src.0[0] == 0xfe && packet.src.0[1] & 0xc0 == 0x80;
        if packet.ttl != 255 || !link_local {
            return Err(Reason::RedirectOffLink { hop_limit: packet.ttl, source });
        }
        let option = offset + REDIRECT_HEADER;
        let head = packet.bytes.get(option..).and_then(|bytes| bytes.first_chunk::<2>());
        match head {
            None | Some([_, 0]) => Err(Reason::RedirectNoOptions),
            Some([REDIRECTED_HEADER, _]) => self.inet_error(header, option + OPTION_HEADER),
            Some(_) => Ok(IcmpKind::Query),
        }
    }

    /// `nf_conntrack_inet_error`: the quoted packet that starts at byte `quote` -> the flow (B.2 steps 5 to 8).
    fn inet_error(self, header: IcmpHeader, quote: usize) -> Result<IcmpKind, Reason> {
        let Search { packet, table, zone, now, sink, .. } = self;
        let l3num = packet.l3num;
        sink.step(|| Step::IcmpError { l3num, icmp_type: header.icmp_type, code: header.code });

        let quoted = Quoted::parse(packet, quote).map_err(Reason::QuotedNoTransport)?;
        let l4 = quoted.bytes.get(quoted.transport.offset..).unwrap_or(&[]);
        let mut tuple =
            extract(l3num, quoted.src, quoted.dst, quoted.transport.protonum, l4).map_err(Reason::quoted_no_tuple)?;
        table.extensions.keymap.complete(&mut tuple, l4);
        sink.step(|| Step::Quoted { offset: quote, bytes: quoted.len, tuple });

        let inverted = tuple.invert().ok_or(Reason::QuotedNotInvertible { tuple })?;
        sink.step(|| Step::QuotedInverted { inverted });

        let unknown = Reason::QuotedUnknownFlow { quoted: tuple, inverted };
        let (id, direction) = table.lookup(&inverted, zone, now, sink).ok_or(unknown)?;
        let entry = table.get(id).ok_or(unknown)?;
        let number = entry.id;
        sink.step(|| Step::QuotedHit { id: number, direction, died: direction.opposite() });

        let (outer, expected) = (packet.dst, entry.flow.tuple(direction).dst);
        if outer != expected {
            return Err(Reason::OuterDaddrMismatch { outer: outer.ip(l3num), expected: expected.ip(l3num) });
        }
        sink.step(|| Step::HostCheck { outer: outer.ip(l3num) });
        sink.step(|| Step::Related { id: number, ctinfo: CtInfo::related(direction) });
        Ok(IcmpKind::Related { id, direction })
    }
}

/// The MTU that a fragmentation-needed (RFC 1191) or a packet-too-big (RFC 4443) carries. Conntrack does not look at
/// it (ICMP-REL-14); people do.
#[must_use]
pub fn announced_mtu(packet: &Packet<'_>) -> Option<u32> {
    let transport = packet.transport.ok()?;
    let header = packet.bytes.get(transport.offset..transport.offset + icmp::HEADER)?;
    match (transport.protonum, header[0], header[1]) {
        (proto::ICMP, 3, 4) => be16(header, 6).map(u32::from),
        (proto::ICMPV6, 2, _) => crate::packet::be32(header, 4),
        _ => None,
    }
}
