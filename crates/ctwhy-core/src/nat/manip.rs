//! Rewriting a packet: ports and ids first, then the address, each with its checksums (catalogue D.5).

use core::net::IpAddr;

use super::{Manip, NatDrop};
use crate::checksum::replaced;
use crate::packet::{IPV4_HEADER, NoTransport, be16, locate_transport};
use crate::trace::{Part, Protected, Sink, Step, Update};
use crate::tuple::{Addr, L3, Tuple, proto};

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
pub(super) fn rewrite<S: Sink>(
    buffer: &mut [u8],
    place: &Place,
    target: &Tuple,
    manip: Manip,
    sink: &mut S,
) -> Result<(), NatDrop> {
    let l3num = target.l3num;
    let packet = buffer.get(place.ip..).unwrap_or(&[]);
    let remaining = place.len.saturating_sub(place.ip);
    let (field, width) = address_field(l3num, manip);
    let address_at = place.ip + field;
    let Some(old) = buffer.get(address_at..address_at + width) else {
        return Err(NatDrop::TooShort { need: address_at + width, have: buffer.len() });
    };
    let mut old_address = Addr([0; 16]);
    old_address.0[..width].copy_from_slice(old);
    let new_address = match manip {
        Manip::Src => target.src,
        Manip::Dst => target.dst,
    };
    let change = AddressChange { old: old_address, new: new_address, width };

    let ports = match locate_transport(packet, remaining, l3num) {
        Ok(transport) => rewrite_transport(buffer, place, place.ip + transport.offset, target, manip, &change, sink)?,
        // A quoted IPv4 packet with options that end behind the quote is caught by the length checks of its protocol.
        Err(NoTransport::BeyondEnd { offset, have }) => return Err(NatDrop::TooShort { need: offset, have }),
        Err(_) => None,
    };
    if l3num == L3::V4
        && let Some(from) = be16(buffer, place.ip + 10)
    {
        let to = replaced(from, change.before(), change.after());
        put16(buffer, place.ip + 10, to);
        sink.step(|| Step::ChecksumUpdated {
            part: place.part,
            protected: Protected::Ipv4Header,
            how: Update::Incremental,
            from,
            to,
        });
    }
    if let Some(field) = buffer.get_mut(address_at..address_at + width) {
        field.copy_from_slice(change.after());
    }
    sink.step(|| {
        let ip = |address: Addr| -> IpAddr { address.ip(l3num) };
        Step::Rewritten {
            part: place.part,
            manip,
            from: (ip(old_address), ports.map(|(from, _)| from)),
            to: (ip(new_address), ports.map(|(_, to)| to)),
        }
    });
    Ok(())
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

/// `l4proto_manip_pkt`: returns the port or id before and after, where there is one.
fn rewrite_transport<S: Sink>(
    buffer: &mut [u8],
    place: &Place,
    at: usize,
    target: &Tuple,
    manip: Manip,
    change: &AddressChange,
    sink: &mut S,
) -> Result<Option<(u16, u16)>, NatDrop> {
    /// Bytes that a transport header must have to be rewritten.
    const NEEDED: usize = 8;
    /// A TCP header without options; shorter quotes have no checksum field.
    const TCP_HEADER: usize = 20;

    let there = place.len.saturating_sub(at);
    let need = |need: usize| if there < need { Err(NatDrop::TooShort { need, have: there }) } else { Ok(()) };
    let port_at = match manip {
        Manip::Src => at,
        Manip::Dst => at + 2,
    };
    let port = match manip {
        Manip::Src => target.src_u,
        Manip::Dst => target.dst_u,
    };
    let part = place.part;
    match target.protonum {
        proto::TCP => {
            need(NEEDED)?;
            let from = replace16(buffer, port_at, port);
            if there >= TCP_HEADER
                && let (Some(from), Some(old)) = (from, be16(buffer, at + 16))
            {
                let new = adjusted(old, Some(change), from, port);
                put16(buffer, at + 16, new);
                sink.step(|| updated(part, Protected::Tcp, old, new));
            }
            Ok(from.map(|from| (from, port)))
        }
        proto::UDP => {
            need(NEEDED)?;
            let from = replace16(buffer, port_at, port);
            // Checksum 0 means that there is none; a computed 0 is written as 0xffff (RFC 768).
            if let (Some(from), Some(old)) = (from, be16(buffer, at + 6))
                && old != 0
            {
                let new = match adjusted(old, Some(change), from, port) {
                    0 => 0xffff,
                    sum => sum,
                };
                put16(buffer, at + 6, new);
                sink.step(|| updated(part, Protected::Udp, old, new));
            }
            Ok(from.map(|from| (from, port)))
        }
        proto::ICMP => {
            need(NEEDED)?;
            // Only queries have an id; in an error these bytes are an MTU, a pointer, or unused.
            match buffer.get(at) {
                Some(0 | 8 | 13..=18) => {}
                _ => return Ok(None),
            }
            let id = target.src_u;
            let from = replace16(buffer, at + 4, id);
            if let (Some(from), Some(old)) = (from, be16(buffer, at + 2)) {
                let new = adjusted(old, None, from, id);
                put16(buffer, at + 2, new);
                sink.step(|| updated(part, Protected::Icmp, old, new));
            }
            Ok(from.map(|from| (from, id)))
        }
        proto::ICMPV6 => {
            need(NEEDED)?;
            let id = target.src_u;
            let echo = matches!(buffer.get(at), Some(128 | 129));
            let from = if echo { replace16(buffer, at + 4, id) } else { None };
            if let Some(old) = be16(buffer, at + 2) {
                let unchanged = from.unwrap_or(id);
                let new = adjusted(old, Some(change), unchanged, id);
                put16(buffer, at + 2, new);
                sink.step(|| updated(part, Protected::Icmp, old, new));
            }
            Ok(from.map(|from| (from, id)))
        }
        _ => Ok(None),
    }
}

/// A transport checksum after its port or id, and the address in its pseudo header if it has one, changed.
fn adjusted(checksum: u16, change: Option<&AddressChange>, from: u16, to: u16) -> u16 {
    let checksum = match change {
        Some(change) => replaced(checksum, change.before(), change.after()),
        None => checksum,
    };
    replaced(checksum, &from.to_be_bytes(), &to.to_be_bytes())
}

const fn updated(part: Part, protected: Protected, from: u16, to: u16) -> Step {
    Step::ChecksumUpdated { part, protected, how: Update::Incremental, from, to }
}

/// Writes a 16-bit field; nothing happens where a cut capture does not hold it.
pub(super) fn put16(buffer: &mut [u8], at: usize, value: u16) {
    if let Some(field) = buffer.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Writes a 16-bit field and returns what was there.
fn replace16(buffer: &mut [u8], at: usize, value: u16) -> Option<u16> {
    let old = be16(buffer, at)?;
    put16(buffer, at, value);
    Some(old)
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

/// Is a whole IPv4 header at `ip`?
pub(super) fn holds_header(len: usize, ip: usize, l3num: L3) -> Result<(), NatDrop> {
    let need = ip
        + match l3num {
            L3::V4 => IPV4_HEADER,
            L3::V6 => crate::packet::IPV6_HEADER,
        };
    if len < need { Err(NatDrop::TooShort { need, have: len }) } else { Ok(()) }
}
