//! A packet -> the few facts that are kept of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{Packet, Quoted, be16, be32};
use ctwhy_core::track::{icmp, icmpv6};
use ctwhy_core::tuple::{L3, Tuple, extract, proto};

/// A packet of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Its number in the capture, counted from 1.
    pub number: u64,
    /// Nanoseconds since an epoch; that of the other side may be another.
    pub time_ns: u64,
    /// What was captured of it, from the first byte of the IP header on.
    pub bytes: &'a [u8],
    /// Its length on the wire, from there on.
    pub wire_len: usize,
}

/// The protocols whose flows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Echo requests and replies of ICMP and ICMPv6.
    Echo,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Echo];

    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Echo => "ICMP echo",
        }
    }

    fn of(tuple: &Tuple) -> Option<Protocol> {
        match (tuple.protonum, tuple.l3num, tuple.icmp_type()) {
            (proto::TCP, ..) => Some(Protocol::Tcp),
            (proto::UDP, ..) => Some(Protocol::Udp),
            (proto::ICMP, L3::V4, 0 | 8) | (proto::ICMPV6, L3::V6, 128 | 129) => Some(Protocol::Echo),
            _ => None,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// TCP flags that matter here.
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

/// What is kept of a packet of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) time: u64,
    /// Hash of the first bytes behind the transport header; `None` when there are none or they were not captured.
    pub(crate) content: Option<u64>,
    /// Bytes behind the transport header.
    pub(crate) len: u32,
    /// The total length in the IPv4 header, or the payload length in that of IPv6.
    pub(crate) total: u16,
    /// Identification (IPv4).
    pub(crate) id: u16,
    /// Flow label (IPv6).
    pub(crate) label: u32,
    pub(crate) ttl: u8,
    /// TOS or traffic class.
    pub(crate) tos: u8,
    /// Of the transport header. `None` where the device was to finish it (checksum offload): what was captured then is what
    /// the host began with, and not what it sent.
    pub(crate) checksum: Option<u16>,
    pub(crate) detail: Detail,
}

/// What only one protocol has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Detail {
    Tcp { seq: u32, ack: u32, flags: u8, window: u16, stamp: Option<u32> },
    Udp,
    Echo { seq: u16, request: bool },
}

impl Facts {
    pub(crate) const fn has(&self, flags: u8) -> bool {
        matches!(self.detail, Detail::Tcp { flags: own, .. } if own & flags == flags)
    }

    pub(crate) const fn is_syn(&self) -> bool {
        self.has(flag::SYN) && !self.has(flag::ACK)
    }

    pub(crate) const fn is_syn_ack(&self) -> bool {
        self.has(flag::SYN | flag::ACK)
    }

    pub(crate) const fn seq(&self) -> Option<u32> {
        match self.detail {
            Detail::Tcp { seq, .. } => Some(seq),
            _ => None,
        }
    }
}

/// What a packet turned out to be.
pub(crate) enum Seen<'a> {
    /// One of a flow: its tuple, the bytes of its transport header and what is behind it.
    Flow { tuple: Tuple, protocol: Protocol, facts: Facts, header: &'a [u8], payload: &'a [u8] },
    /// An ICMP error.
    Error(Error),
    /// Something else.
    Passed(Passed),
}

/// Why a packet is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Its IP header is broken or cut.
    Unreadable,
    /// A fragment other than the first.
    Fragment,
    /// Neither TCP, UDP nor an echo, nor an error that quotes one.
    Other,
}

/// An ICMP error, kept whole.
#[derive(Clone, Debug)]
pub struct Error {
    /// Its number in the capture.
    pub number: u64,
    /// When, by the clock of its capture.
    pub time_ns: u64,
    /// From the first byte of the IP header on, as far as it was captured.
    pub bytes: Vec<u8>,
    /// Its length on the wire.
    pub wire_len: usize,
    /// Family.
    pub l3num: L3,
    /// Type.
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
    /// The tuple of the packet that it quotes.
    pub quoted: Tuple,
}

impl Error {
    /// Where it goes.
    #[must_use]
    pub fn destination(&self) -> Option<IpAddr> {
        Some(self.packet()?.dst.ip(self.l3num))
    }

    /// Who says it.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        Some(self.packet()?.src.ip(self.l3num))
    }

    fn packet(&self) -> Option<Packet<'_>> {
        Packet::parse(&self.bytes, self.wire_len).ok()
    }
}

/// As much of what a packet carries as decides whether two carry the same: with it also short capture lengths do.
const COMPARED: usize = 64;
/// The longest error that is kept; Linux makes none of more than 1280 bytes.
const LONGEST_ERROR: usize = 2048;

/// Looks at a packet.
pub(crate) fn look<'a>(packet: &Observed<'a>) -> Seen<'a> {
    look_at(packet).unwrap_or_else(Seen::Passed)
}

fn look_at<'a>(observed: &Observed<'a>) -> Result<Seen<'a>, Passed> {
    let packet = Packet::parse(observed.bytes, observed.wire_len).map_err(|_| Passed::Unreadable)?;
    if packet.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return Err(Passed::Fragment);
    }
    let transport = packet.transport.map_err(|_| Passed::Other)?;
    let l4 = packet.l4(transport.offset);
    let tuple =
        extract(packet.l3num, packet.src, packet.dst, transport.protonum, l4.bytes).map_err(|_| Passed::Other)?;
    if let Some(error) = error(observed, &packet, &tuple, transport.offset) {
        return Ok(Seen::Error(error));
    }
    let protocol = Protocol::of(&tuple).ok_or(Passed::Other)?;
    let shape = shape(protocol, l4.bytes, l4.len).ok_or(Passed::Unreadable)?;
    let payload = l4.bytes.get(shape.header..).unwrap_or_default();
    let len = shape.len.saturating_sub(shape.header);
    let begun =
        Sum::default().pseudo_header(packet.l3num, packet.src, packet.dst, transport.protonum, shape.len).fold();
    let facts = Facts {
        time: observed.time_ns,
        content: content(protocol, payload, len),
        len: u32::try_from(len).unwrap_or(u32::MAX),
        checksum: Some(shape.checksum).filter(|sum| protocol == Protocol::Echo || *sum != begun),
        detail: shape.detail,
        ttl: packet.ttl,
        ..network_facts(&packet)
    };
    Ok(Seen::Flow { tuple, protocol, facts, header: l4.bytes.get(..shape.header).unwrap_or_default(), payload })
}

/// What the transport header says.
struct Shape {
    /// Its length.
    header: usize,
    /// Its length and that of what is behind it, in the whole datagram.
    len: usize,
    checksum: u16,
    detail: Detail,
}

fn shape(protocol: Protocol, l4: &[u8], len: usize) -> Option<Shape> {
    match protocol {
        Protocol::Tcp => {
            let header = usize::from(*l4.get(12)? >> 4) * 4;
            let detail = Detail::Tcp {
                seq: be32(l4, 4)?,
                ack: be32(l4, 8)?,
                flags: *l4.get(13)?,
                window: be16(l4, 14)?,
                stamp: options(l4).find(|(kind, _)| *kind == option::TIMESTAMPS).and_then(|(_, value)| be32(value, 0)),
            };
            Some(Shape { header, len, checksum: be16(l4, 16)?, detail })
        }
        // What its header says is also there where the datagram comes in fragments.
        Protocol::Udp => {
            Some(Shape { header: 8, len: be16(l4, 4)?.into(), checksum: be16(l4, 6)?, detail: Detail::Udp })
        }
        Protocol::Echo => {
            let request = matches!(l4.first()?, 8 | 128);
            Some(Shape { header: 8, len, checksum: be16(l4, 2)?, detail: Detail::Echo { seq: be16(l4, 6)?, request } })
        }
    }
}

/// What the IP header says. The rest is filled in by the caller.
fn network_facts(packet: &Packet<'_>) -> Facts {
    let bytes = packet.bytes;
    let word = be32(bytes, 0).unwrap_or(0);
    let (id, label, tos, total) = match packet.l3num {
        L3::V4 => (be16(bytes, 4).unwrap_or(0), 0, (word >> 16) as u8, word as u16),
        L3::V6 => (0, word & 0x000f_ffff, (word >> 20) as u8, be16(bytes, 4).unwrap_or(0)),
    };
    let (time, content, len, checksum, ttl) = (0, None, 0, None, 0);
    Facts { time, content, len, total, id, label, ttl, tos, checksum, detail: Detail::Udp }
}

/// A hash of the first bytes of `len` that a packet carries; `None` when they were not captured, or there are none where
/// that says nothing.
fn content(protocol: Protocol, payload: &[u8], len: usize) -> Option<u64> {
    let compared = payload.get(..len.min(COMPARED))?;
    if compared.is_empty() && protocol == Protocol::Tcp {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    compared.hash(&mut hasher);
    Some(hasher.finish())
}

/// An ICMP error that quotes a packet of a flow.
fn error(observed: &Observed<'_>, packet: &Packet<'_>, tuple: &Tuple, offset: usize) -> Option<Error> {
    let (icmp_type, code) = (tuple.icmp_type(), tuple.icmp_code());
    let is_error = match (packet.l3num, tuple.protonum) {
        (L3::V4, proto::ICMP) => icmp::is_error(icmp_type),
        (L3::V6, proto::ICMPV6) => icmp_type < icmpv6::FIRST_INFORMATIONAL_TYPE,
        _ => false,
    };
    if !is_error {
        return None;
    }
    let quote = Quoted::parse(packet, offset + icmp::HEADER).ok()?;
    let l4 = quote.bytes.get(quote.transport.offset..)?;
    let quoted = extract(packet.l3num, quote.src, quote.dst, quote.transport.protonum, l4).ok()?;
    let kept = packet.bytes.get(..packet.bytes.len().min(LONGEST_ERROR))?;
    Some(Error {
        number: observed.number,
        time_ns: observed.time_ns,
        bytes: kept.to_vec(),
        wire_len: packet.len,
        l3num: packet.l3num,
        icmp_type,
        code,
        quoted,
    })
}

/// TCP options by their kind.
pub(crate) mod option {
    pub(crate) const END: u8 = 0;
    pub(crate) const NOP: u8 = 1;
    pub(crate) const MSS: u8 = 2;
    pub(crate) const TIMESTAMPS: u8 = 8;
}

/// The options of a TCP header, kind and value, in their order and with their padding.
pub(crate) fn options(header: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    /// A TCP header without options.
    const HEADER: usize = 20;

    let end = header.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4).min(header.len());
    let mut rest = header.get(HEADER.min(end)..end).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&kind, behind) = rest.split_first()?;
        if kind == option::END || kind == option::NOP {
            rest = if kind == option::END { &[] } else { behind };
            return Some((kind, &[][..]));
        }
        let (value, after) = match behind.split_first() {
            Some((&length, _)) if length >= 2 => rest.split_at_checked(usize::from(length))?,
            _ => return None,
        };
        rest = after;
        Some((kind, value.get(2..).unwrap_or_default()))
    })
}
