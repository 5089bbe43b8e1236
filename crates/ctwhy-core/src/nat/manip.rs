//! Rewriting a packet: ports and ids first, then the address, each with its checksums (catalogue D.5).

use core::net::IpAddr;

use super::{Manip, NatDrop};
use crate::checksum::{replaced, sctp_crc};
use crate::packet::{IPV4_HEADER, IPV6_HEADER, NoTransport, be16, be32, locate_transport};
use crate::trace::{Part, Protected, Sink, Step, Update};
use crate::tuple::{Addr, L3, Tuple, gre_version, has_ports, proto};

/// A packet, outer or quoted, that lies in a buffer and is to be rewritten.
pub(super) struct Place {
    /// Offset of its IP header.
    pub(super) ip: usize,
    /// Length of the buffer on the wire; the buffer is shorter when a capture was cut.
    pub(super) len: usize,
    /// What it is, for the trace.
    pub(super) part: Part,
}

/// `nf_nat_ipv4_manip_pkt`, `nf_nat_ipv6_manip_pkt`: gives the packet at `place` the source or destination of `target`.
/// Returns how many bytes of the buffer had to lie in one piece for that (`skb_ensure_writable`).
pub(super) fn rewrite<S: Sink>(
    buffer: &mut [u8],
    place: &Place,
    target: &Tuple,
    manip: Manip,
    sink: &mut S,
) -> Result<usize, NatDrop> {
    let l3num = target.l3num;
    let packet = buffer.get(place.ip..).unwrap_or(&[]);
    let remaining = place.len.saturating_sub(place.ip);
    let (field, width) = address_field(l3num, manip);
    let address = place.ip + field..place.ip + field + width;
    let Some(old) = buffer.get(address.clone()) else {
        return Err(NatDrop::TooShort { need: address.end, have: buffer.len() });
    };
    let mut old_address = Addr([0; 16]);
    old_address.0[..width].copy_from_slice(old);
    let new_address = match manip {
        Manip::Src => target.src,
        Manip::Dst => target.dst,
    };
    let change = AddressChange { old: old_address, new: new_address, width };

    let (writable, transport) = match locate_transport(packet, remaining, l3num) {
        Ok(transport) => {
            let at = place.ip + transport.offset;
            let writable = at + writable_transport(target.protonum, place.len.saturating_sub(at));
            (writable, rewrite_transport(buffer, place, at, target, manip, &change)?)
        }
        // A quoted IPv4 packet with options that end behind the quote is caught by the length checks of its protocol.
        Err(NoTransport::BeyondEnd { offset, have }) => return Err(NatDrop::TooShort { need: offset, have }),
        // The IP header lies in one piece anyway.
        Err(_) => (0, Rewritten::default()),
    };
    if let Some(field) = buffer.get_mut(address) {
        field.copy_from_slice(change.after());
    }
    sink.step(|| {
        let ip = |address: Addr| -> IpAddr { address.ip(l3num) };
        Step::Rewritten {
            part: place.part,
            manip,
            from: (ip(old_address), transport.port.map(|(from, _)| from)),
            to: (ip(new_address), transport.port.map(|(_, to)| to)),
        }
    });
    let mut updated = |protected, how, (from, to)| {
        sink.step(|| Step::ChecksumUpdated { part: place.part, protected, how, from, to });
    };
    if let Some((protected, how, checksum)) = transport.checksum {
        updated(protected, how, checksum);
    }
    if l3num == L3::V4
        && let Some(from) = be16(buffer, place.ip + 10)
    {
        let to = replaced(from, change.before(), change.after());
        put16(buffer, place.ip + 10, to);
        updated(Protected::Ipv4Header, Update::Incremental, (from.into(), to.into()));
    }
    Ok(writable)
}

/// How much of a transport header its `manip_pkt` makes writable, of `there` bytes.
fn writable_transport(protonum: u8, there: usize) -> usize {
    match protonum {
        proto::TCP if there >= 20 => 20,
        proto::SCTP if there >= 12 => 12,
        proto::TCP | proto::SCTP | proto::UDP | proto::UDPLITE | proto::GRE | proto::ICMP | proto::ICMPV6 => 8,
        _ => 0,
    }
}

/// Where the address is in the IP header, and how long it is.
const fn address_field(l3num: L3, manip: Manip) -> (usize, usize) {
    match (l3num, manip) {
        (L3::V4, Manip::Src) => (12, 4),
        (L3::V4, Manip::Dst) => (16, 4),
        (L3::V6, Manip::Src) => (8, 16),
        (L3::V6, Manip::Dst) => (24, 16),
    }
}

/// The change of address that pseudo headers see.
struct AddressChange {
    old: Addr,
    new: Addr,
    width: usize,
}

impl AddressChange {
    fn before(&self) -> &[u8] {
        &self.old.0[..self.width]
    }

    fn after(&self) -> &[u8] {
        &self.new.0[..self.width]
    }
}

/// What became of a transport header: each value before and after.
#[derive(Default)]
struct Rewritten {
    /// Port or id, where there is one.
    port: Option<(u16, u16)>,
    /// Checksum, where there is one.
    checksum: Option<(Protected, Update, (u32, u32))>,
}

/// `l4proto_manip_pkt`.
fn rewrite_transport(
    buffer: &mut [u8],
    place: &Place,
    at: usize,
    target: &Tuple,
    manip: Manip,
    change: &AddressChange,
) -> Result<Rewritten, NatDrop> {
    /// Bytes that a transport header must have to be rewritten.
    const NEEDED: usize = 8;
    /// A TCP header without options; shorter quotes have no checksum field.
    const TCP_HEADER: usize = 20;

    let there = place.len.saturating_sub(at);
    let known = has_ports(target.protonum) || target.is_icmp() || target.protonum == proto::GRE;
    if known && there < NEEDED {
        return Err(NatDrop::TooShort { need: NEEDED, have: there });
    }
    let (port_at, port) = match manip {
        Manip::Src => (at, target.src_u),
        Manip::Dst => (at + 2, target.dst_u),
    };
    let id = target.src_u;
    // Where the checksum is, what it protects, whether a pseudo header is part of it, the port or id before and after.
    let (checksum_at, protected, pseudo, ports) = match target.protonum {
        proto::TCP => {
            let checksum_at = (there >= TCP_HEADER).then_some(at + 16);
            (checksum_at, Protected::Tcp, Some(change), replace16(buffer, port_at, port))
        }
        proto::UDP => {
            // Checksum 0 means that there is none.
            let checksum_at = be16(buffer, at + 6).filter(|checksum| *checksum != 0).map(|_| at + 6);
            (checksum_at, Protected::Udp, Some(change), replace16(buffer, port_at, port))
        }
        // There is always one.
        proto::UDPLITE => (Some(at + 6), Protected::Udplite, Some(change), replace16(buffer, port_at, port)),
        proto::SCTP => {
            let ports = replace16(buffer, port_at, port);
            return Ok(Rewritten { port: ports, checksum: renew_crc(buffer, place.len, at) });
        }
        proto::GRE => return rewrite_gre(buffer, at, target, manip),
        // Only queries have an id; in an error these bytes are an MTU, a pointer, or unused.
        proto::ICMP => match buffer.get(at) {
            Some(0 | 8 | 13..=18) => (Some(at + 2), Protected::Icmp, None, replace16(buffer, at + 4, id)),
            _ => return Ok(Rewritten::default()),
        },
        proto::ICMPV6 => {
            let echo = matches!(buffer.get(at), Some(128 | 129));
            let ids = if echo { replace16(buffer, at + 4, id) } else { None };
            (Some(at + 2), Protected::Icmp, Some(change), ids)
        }
        _ => return Ok(Rewritten::default()),
    };
    let mut rewritten = Rewritten { port: ports, checksum: None };
    if let Some(checksum_at) = checksum_at
        && let Some(old) = be16(buffer, checksum_at)
    {
        let new = match (protected, adjusted(old, pseudo, ports)) {
            // RFC 768: a computed 0 is written as 0xffff.
            (Protected::Udp | Protected::Udplite, 0) => 0xffff,
            (_, new) => new,
        };
        put16(buffer, checksum_at, new);
        rewritten.checksum = Some((protected, Update::Incremental, (old.into(), new.into())));
    }
    Ok(rewritten)
}

/// `sctp_manip_pkt`, its checksum: over all that follows, to the end of the buffer, also where that is only what an
/// error quotes. A quote without the field keeps what it has, and nothing can be said of a capture that was cut.
fn renew_crc(buffer: &mut [u8], len: usize, at: usize) -> Option<(Protected, Update, (u32, u32))> {
    let packet = buffer.get_mut(at..len)?;
    let from = be32(packet, 8)?;
    let to = sctp_crc(packet);
    packet.get_mut(8..12)?.copy_from_slice(&to.to_be_bytes());
    Some((Protected::Sctp, Update::Full, (from, to)))
}

/// `gre_manip_pkt`: the key of the source stands in no packet, that of the destination in version 1 (NAT-MAN-06).
fn rewrite_gre(buffer: &mut [u8], at: usize, target: &Tuple, manip: Manip) -> Result<Rewritten, NatDrop> {
    let version = gre_version(buffer.get(at..).unwrap_or(&[])).unwrap_or(0);
    let key = match (manip, version) {
        (Manip::Src, _) | (Manip::Dst, 0) => None,
        (Manip::Dst, 1) => replace16(buffer, at + 6, target.dst_u),
        (Manip::Dst, version) => return Err(NatDrop::GreVersion(version)),
    };
    Ok(Rewritten { port: key, checksum: None })
}

/// A transport checksum after its port or id, and the address in its pseudo header if it has one, changed.
fn adjusted(checksum: u16, change: Option<&AddressChange>, ports: Option<(u16, u16)>) -> u16 {
    let checksum = match change {
        Some(change) => replaced(checksum, change.before(), change.after()),
        None => checksum,
    };
    match ports {
        Some((from, to)) => replaced(checksum, &from.to_be_bytes(), &to.to_be_bytes()),
        None => checksum,
    }
}

/// Writes a 16-bit field; nothing happens where a cut capture does not hold it.
pub(super) fn put16(buffer: &mut [u8], at: usize, value: u16) {
    if let Some(field) = buffer.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Writes a 16-bit field and returns what was there and what is.
fn replace16(buffer: &mut [u8], at: usize, value: u16) -> Option<(u16, u16)> {
    let old = be16(buffer, at)?;
    put16(buffer, at, value);
    Some((old, value))
}

/// `ip_decrease_ttl`, or the hop limit: decrements and keeps the header checksum right. Returns the new value.
pub(crate) fn decrement_ttl(packet: &mut [u8], l3num: L3) -> Option<u8> {
    match l3num {
        L3::V4 => {
            let word = *packet.get(8..10)?.first_chunk::<2>()?;
            let ttl = word[0].checked_sub(1)?;
            let checksum = be16(packet, 10)?;
            put16(packet, 10, replaced(checksum, &word, &[ttl, word[1]]));
            *packet.get_mut(8)? = ttl;
            Some(ttl)
        }
        L3::V6 => {
            let hop_limit = packet.get_mut(7)?;
            *hop_limit = hop_limit.checked_sub(1)?;
            Some(*hop_limit)
        }
    }
}

/// The length of an IP header without options.
pub(super) const fn header(l3num: L3) -> usize {
    match l3num {
        L3::V4 => IPV4_HEADER,
        L3::V6 => IPV6_HEADER,
    }
}
