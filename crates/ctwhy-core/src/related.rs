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
use crate::track::{Context, icmp, icmpv6};
use crate::tuple::{L3, extract, proto};

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

/// `nf_conntrack_handle_icmp`: is it an ICMP error, and about which flow?
pub(crate) fn classify<S: Sink>(
    packet: &Packet<'_>,
    transport: Transport,
    table: &mut Table,
    now: Time,
    cx: &Context<'_>,
    sink: &mut S,
) -> Result<IcmpKind, Reason> {
    match (packet.l3num, transport.protonum) {
        (L3::V4, proto::ICMP) => icmpv4_error(packet, transport.offset, table, now, cx, sink),
        (L3::V6, proto::ICMPV6) => icmpv6_error(packet, transport.offset, table, now, cx, sink),
        _ => Ok(IcmpKind::Query),
    }
}

/// `nf_conntrack_icmpv4_error` (catalogue B.2).
fn icmpv4_error<S: Sink>(
    packet: &Packet<'_>,
    offset: usize,
    table: &mut Table,
    now: Time,
    cx: &Context<'_>,
    sink: &mut S,
) -> Result<IcmpKind, Reason> {
    let l4 = packet.l4(offset);
    let header = icmp::check(&l4, cx, sink)?;
    if header.icmp_type > icmp::LAST_KNOWN_TYPE {
        return Err(Reason::IcmpUnknownType { icmp_type: header.icmp_type });
    }
    if !icmp::is_error(header.icmp_type) {
        return Ok(IcmpKind::Query);
    }
    sink.step(|| Step::IcmpError { l3num: L3::V4, icmp_type: header.icmp_type, code: header.code });
    inet_error(packet, offset + icmp::HEADER, table, now, sink)
}

/// `nf_conntrack_icmpv6_error` (catalogue C).
fn icmpv6_error<S: Sink>(
    packet: &Packet<'_>,
    offset: usize,
    table: &mut Table,
    now: Time,
    cx: &Context<'_>,
    sink: &mut S,
) -> Result<IcmpKind, Reason> {
    let l4 = packet.l4(offset);
    let header = icmpv6::check(&l4, cx, sink)?;
    if icmpv6::is_untracked(header.icmp_type) {
        return Ok(IcmpKind::Untracked);
    }
    if header.icmp_type == icmpv6::REDIRECT && header.code == 0 {
        return redirect(packet, offset, table, now, sink);
    }
    if header.icmp_type >= icmpv6::FIRST_INFORMATIONAL_TYPE {
        return Ok(IcmpKind::Query);
    }
    sink.step(|| Step::IcmpError { l3num: L3::V6, icmp_type: header.icmp_type, code: header.code });
    inet_error(packet, offset + icmp::HEADER, table, now, sink)
}

/// `nf_conntrack_icmpv6_redirect`: the quoted packet is in an option (ICMP6-R-01).
fn redirect<S: Sink>(
    packet: &Packet<'_>,
    offset: usize,
    table: &mut Table,
    now: Time,
    sink: &mut S,
) -> Result<IcmpKind, Reason> {
    /// Type, code, checksum, reserved, target and destination.
    const REDIRECT_HEADER: usize = 40;
    /// Type and length of a neighbour discovery option, and the reserved bytes of the redirected header option.
    const OPTION_HEADER: usize = 8;
    const REDIRECTED_HEADER: u8 = 4;

    let source = packet.src.ip(packet.l3num);
    let link_local = packet.src.0[0] == 0xfe && packet.src.0[1] & 0xc0 == 0x80;
    if packet.ttl != 255 || !link_local {
        return Err(Reason::RedirectOffLink { hop_limit: packet.ttl, source });
    }
    let have = packet.len.saturating_sub(offset);
    if have < REDIRECT_HEADER {
        return Err(Reason::RedirectShort { have });
    }
    let option = offset + REDIRECT_HEADER;
    let Some([kind, length]) = packet.bytes.get(option..option + 2).and_then(|b| <[u8; 2]>::try_from(b).ok()) else {
        return Err(Reason::RedirectNoOptions);
    };
    if length == 0 {
        return Err(Reason::RedirectNoOptions);
    }
    if kind != REDIRECTED_HEADER {
        return Ok(IcmpKind::Query);
    }
    sink.step(|| Step::IcmpError { l3num: L3::V6, icmp_type: icmpv6::REDIRECT, code: 0 });
    inet_error(packet, option + OPTION_HEADER, table, now, sink)
}

/// `nf_conntrack_inet_error`: the quoted packet that starts at byte `quote` -> the flow (catalogue B.2 steps 5 to 8).
fn inet_error<S: Sink>(
    packet: &Packet<'_>,
    quote: usize,
    table: &mut Table,
    now: Time,
    sink: &mut S,
) -> Result<IcmpKind, Reason> {
    let quoted = Quoted::parse(packet, quote).map_err(Reason::QuotedNoTransport)?;
    let l4 = quoted.bytes.get(quoted.transport.offset..).unwrap_or(&[]);
    let tuple = extract(packet.l3num, quoted.src, quoted.dst, quoted.transport.protonum, l4)
        .map_err(Reason::QuotedShortTransport)?;
    sink.step(|| Step::Quoted { offset: quote, bytes: quoted.len, tuple });

    let inverted = tuple.invert().ok_or(Reason::QuotedNotInvertible { tuple })?;
    sink.step(|| Step::QuotedInverted { inverted });

    let unknown = Reason::QuotedUnknownFlow { quoted: tuple, inverted };
    let (id, direction) = table.lookup(&inverted, now).ok_or(unknown)?;
    let entry = table.get(id).ok_or(unknown)?;
    let expected = entry.flow.tuple(direction).dst;
    let number = entry.id;
    sink.step(|| Step::QuotedHit { id: number, direction, died: direction.opposite() });

    if packet.dst != expected {
        let (outer, expected) = (packet.dst.ip(packet.l3num), expected.ip(packet.l3num));
        return Err(Reason::OuterDaddrMismatch { outer, expected });
    }
    sink.step(|| Step::HostCheck { outer: packet.dst.ip(packet.l3num) });
    sink.step(|| Step::Related { id: number, ctinfo: CtInfo::related(direction) });
    Ok(IcmpKind::Related { id, direction })
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
