//! Packets by hand, whole and broken: headers are parts that can be changed before they are put together.

mod transport;

use std::net::IpAddr;

use ctwhy_core::checksum::Sum;
use ctwhy_core::tuple::{Addr, L3};

pub use transport::{Chunk, Pseudo, chunk_type, gre, pptp, sctp, sealed_sctp, udplite};

/// IP protocol numbers.
#[allow(missing_docs)] // The names say it.
pub mod proto {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const GRE: u8 = 47;
    pub const AUTH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const NONE: u8 = 59;
    pub const DESTINATION: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const UDPLITE: u8 = 136;
}

/// What stands behind an IP header: its protocol number and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Protocol number, or that of the first IPv6 extension header.
    pub protocol: u8,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Body {
    /// Any bytes.
    #[must_use]
    pub fn new(protocol: u8, bytes: impl Into<Vec<u8>>) -> Body {
        Body { protocol, bytes: bytes.into() }
    }

    /// The same, cut to at most `length` bytes.
    #[must_use]
    pub fn cut(mut self, length: usize) -> Body {
        self.bytes.truncate(length);
        self
    }

    /// The same with `byte` at `offset`, where there is one.
    #[must_use]
    pub fn with(mut self, offset: usize, byte: u8) -> Body {
        if let Some(place) = self.bytes.get_mut(offset) {
            *place = byte;
        }
        self
    }

    /// The same behind an IPv6 extension header, whose first byte is overwritten with what follows.
    #[must_use]
    pub fn behind(self, header: u8, extension: &[u8]) -> Body {
        let mut bytes = extension.to_vec();
        if let Some(next) = bytes.first_mut() {
            *next = self.protocol;
        }
        bytes.extend(self.bytes);
        Body { protocol: header, bytes }
    }
}

/// An IP header, of either family by its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source.
    pub src: IpAddr,
    /// Destination, of the same family.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// Flow label, 20 bits (IPv6).
    pub flow_label: u32,
    /// Identification (IPv4).
    pub id: u16,
    /// Flags and fragment offset as they stand in the header (IPv4).
    pub fragment: u16,
    /// Options, filled up to whole words by the caller (IPv4).
    pub options: Vec<u8>,
}

impl Ip {
    /// A header with a TTL of 64, no options and no flags.
    ///
    /// # Panics
    /// One of the texts is no address. They are constants of the callers.
    #[must_use]
    #[allow(clippy::panic)]
    pub fn new(src: &str, dst: &str) -> Ip {
        let address = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no address"));
        Ip::between(address(src), address(dst))
    }

    /// A header with a TTL of 64, no options and no flags.
    #[must_use]
    pub fn between(src: IpAddr, dst: IpAddr) -> Ip {
        Ip { src, dst, ttl: 64, tos: 0, flow_label: 0, id: 0, fragment: 0, options: Vec::new() }
    }

    /// The same with another TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Ip {
        self.ttl = ttl;
        self
    }

    /// The header of an answer.
    #[must_use]
    pub fn back(&self) -> Ip {
        Ip::between(self.dst, self.src)
    }

    /// The family.
    #[must_use]
    pub fn l3(&self) -> L3 {
        if self.src.is_ipv4() { L3::V4 } else { L3::V6 }
    }

    /// Header and body.
    #[must_use]
    pub fn packet(&self, body: Body) -> Vec<u8> {
        let mut packet = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ipv4(src.octets(), dst.octets(), &body),
            (src, dst) => self.ipv6(Addr::from(src), Addr::from(dst), &body),
        };
        packet.extend(body.bytes);
        packet
    }

    fn ipv4(&self, src: [u8; 4], dst: [u8; 4], body: &Body) -> Vec<u8> {
        let words = 5 + self.options.len() / 4;
        let total = words * 4 + body.bytes.len();
        let mut header = vec![0x40 | words as u8, self.tos];
        header.extend((total as u16).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, body.protocol, 0, 0]);
        header.extend(src);
        header.extend(dst);
        header.extend(&self.options);
        put_checksum(&mut header, 10, Sum::default());
        header
    }

    fn ipv6(&self, src: Addr, dst: Addr, body: &Body) -> Vec<u8> {
        let first = 0x6000_0000 | u32::from(self.tos) << 20 | self.flow_label & 0x000f_ffff;
        let mut header = first.to_be_bytes().to_vec();
        header.extend((body.bytes.len() as u16).to_be_bytes());
        header.extend([body.protocol, self.ttl]);
        header.extend(src.0);
        header.extend(dst.0);
        header
    }

    pub(crate) fn pseudo_header(&self, protocol: u8, length: usize) -> Sum {
        Sum::default().pseudo_header(self.l3(), self.src.into(), self.dst.into(), protocol, length)
    }
}

/// Puts the checksum of `bytes` and of what is summed already at `offset`.
fn put_checksum(bytes: &mut [u8], offset: usize, sum: Sum) {
    let checksum = sum.bytes(bytes).checksum();
    if let Some(field) = bytes.get_mut(offset..offset + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// A UDP datagram.
#[must_use]
pub fn udp(ip: &Ip, sport: u16, dport: u16, payload: &[u8]) -> Body {
    let length = 8 + payload.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend((length as u16).to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(payload);
    sealed_udp(ip, bytes)
}

/// UDP bytes with a checksum of all of them, whatever length the header names.
#[must_use]
pub fn sealed_udp(ip: &Ip, mut bytes: Vec<u8>) -> Body {
    if let Some(field) = bytes.get_mut(6..8) {
        field.fill(0);
    }
    let length = bytes.len();
    put_checksum(&mut bytes, 6, ip.pseudo_header(proto::UDP, length));
    Body::new(proto::UDP, bytes)
}

/// A part of the body of a packet as a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Identification.
    pub id: u32,
    /// Which bytes of the body.
    pub bytes: std::ops::Range<usize>,
    /// Where they belong in the datagram, in bytes.
    pub offset: usize,
    /// Do more follow?
    pub more: bool,
}

impl Piece {
    /// Bytes of the body where they belong; more follow.
    #[must_use]
    pub fn new(id: u32, bytes: std::ops::Range<usize>) -> Piece {
        Piece { id, offset: bytes.start, more: true, bytes }
    }

    /// The last fragment.
    #[must_use]
    pub fn last(id: u32, bytes: std::ops::Range<usize>) -> Piece {
        Piece { more: false, ..Piece::new(id, bytes) }
    }

    /// The fragment, behind the header of `ip` and, for IPv6, a fragment header.
    #[must_use]
    pub fn packet(&self, ip: &Ip, body: &Body) -> Vec<u8> {
        self.packet_behind(ip, body, |fragment| fragment)
    }

    /// The same with what `behind` puts between the IP header and the fragment header (IPv6).
    #[must_use]
    pub fn packet_behind(&self, ip: &Ip, body: &Body, behind: impl Fn(Body) -> Body) -> Vec<u8> {
        let bytes = body.bytes.get(self.bytes.clone()).unwrap_or_default();
        let part = Body::new(body.protocol, bytes);
        let offset = self.offset as u16;
        match ip.l3() {
            L3::V4 => {
                let fragment = ip.fragment | offset >> 3 | if self.more { 0x2000 } else { 0 };
                Ip { id: self.id as u16, fragment, ..ip.clone() }.packet(part)
            }
            L3::V6 => {
                let mut header = vec![0, 0];
                header.extend((offset & !7 | u16::from(self.more)).to_be_bytes());
                header.extend(self.id.to_be_bytes());
                ip.packet(behind(part.behind(proto::FRAGMENT, &header)))
            }
        }
    }
}

/// A packet in fragments that end at these bytes of its body.
#[must_use]
pub fn fragments(ip: &Ip, body: &Body, id: u32, ends: &[usize]) -> Vec<Vec<u8>> {
    let length = body.bytes.len();
    let mut start = 0;
    let ends = ends.iter().copied().filter(|end| *end < length).chain([length]);
    let pieces = ends.map(|end| {
        let bytes = std::mem::replace(&mut start, end)..end;
        if end == length { Piece::last(id, bytes) } else { Piece::new(id, bytes) }
    });
    pieces.map(|piece| piece.packet(ip, body)).collect()
}

/// TCP flags, by their bit.
#[allow(missing_docs)] // The names say it.
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
}

/// A TCP segment to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// [`flag`] bits.
    pub flags: u8,
    /// Window as it stands in the header.
    pub window: u16,
    /// Options, filled up to whole words by the caller.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
}

impl Tcp {
    /// The first segment of a connection from port 40000 to 80.
    #[must_use]
    pub fn syn() -> Tcp {
        Tcp { sport: 40_000, dport: 80, seq: 1_000, flags: flag::SYN, window: 64_240, ..Tcp::default() }
    }

    /// The segment with its checksum.
    #[must_use]
    pub fn body(&self, ip: &Ip) -> Body {
        let words = 5 + self.options.len() / 4;
        let mut bytes = Vec::new();
        bytes.extend(self.sport.to_be_bytes());
        bytes.extend(self.dport.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([(words as u8) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        let length = bytes.len();
        put_checksum(&mut bytes, 16, ip.pseudo_header(proto::TCP, length));
        Body::new(proto::TCP, bytes)
    }
}

/// A packet with its TCP checksum put right; one that is not TCP just behind an IP header stays as it is.
#[must_use]
pub fn finish_tcp(mut packet: Vec<u8>) -> Vec<u8> {
    const CHECKSUM_AT: usize = 16;
    let header = match packet.first().map(|byte| (byte >> 4, usize::from(byte & 0x0f) * 4)) {
        Some((4, length)) if packet.get(9) == Some(&proto::TCP) => Some((length, packet.get(12..20))),
        Some((6, _)) if packet.get(6) == Some(&proto::TCP) => Some((40, packet.get(8..40))),
        _ => None,
    };
    let Some((header, Some(addresses))) = header else { return packet };
    let length = packet.len().saturating_sub(header);
    let sum = Sum::default().bytes(addresses).bytes(&[0, proto::TCP]).bytes(&(length as u16).to_be_bytes());
    if let Some(segment) = packet.get_mut(header..) {
        if let Some(field) = segment.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2) {
            field.fill(0);
        }
        put_checksum(segment, CHECKSUM_AT, sum);
    }
    packet
}

/// An ICMP or ICMPv6 message, as the family of `ip` has it, with its checksum: type, code, the four bytes behind the
/// checksum, and the rest.
#[must_use]
pub fn icmp(ip: &Ip, icmp_type: u8, code: u8, word: [u8; 4], rest: &[u8]) -> Body {
    let mut bytes = vec![icmp_type, code, 0, 0];
    bytes.extend(word);
    bytes.extend(rest);
    sealed(ip, bytes)
}

/// ICMP bytes with the checksum put right, however short they are.
#[must_use]
pub fn sealed(ip: &Ip, mut bytes: Vec<u8>) -> Body {
    if let Some(field) = bytes.get_mut(2..4) {
        field.fill(0);
    }
    let (protocol, sum) = match ip.l3() {
        L3::V4 => (proto::ICMP, Sum::default()),
        L3::V6 => (proto::ICMPV6, ip.pseudo_header(proto::ICMPV6, bytes.len())),
    };
    sealed_with(sum, protocol, bytes)
}

/// The same with any sum to start from, for bytes whose checksum field is zero.
pub(crate) fn sealed_with(sum: Sum, protocol: u8, mut bytes: Vec<u8>) -> Body {
    put_checksum(&mut bytes, 2, sum);
    Body::new(protocol, bytes)
}

/// An echo request, or a reply.
#[must_use]
pub fn echo(ip: &Ip, kind: Echo, id: u16, seq: u16) -> Body {
    let icmp_type = match (ip.l3(), kind) {
        (L3::V4, Echo::Request) => 8,
        (L3::V4, Echo::Reply) => 0,
        (L3::V6, Echo::Request) => 128,
        (L3::V6, Echo::Reply) => 129,
    };
    let [i0, i1] = id.to_be_bytes();
    let [s0, s1] = seq.to_be_bytes();
    icmp(ip, icmp_type, 0, [i0, i1, s0, s1], b"ctwhy echo")
}

/// Which echo message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Asks.
    Request,
    /// Answers.
    Reply,
}
