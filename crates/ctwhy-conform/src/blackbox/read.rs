//! Packets that came out, read as far as a probe wants to know.

use std::net::IpAddr;

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{Fragment, IPV6_HEADER, Packet, be16, be32};
use ctwhy_core::tuple::{Addr, L3, proto};

/// Where the checksum is in an ICMP header, and how long that is.
const ICMP_CHECKSUM: usize = 2;
pub(super) const ICMP_HEADER: usize = 8;

/// A packet that came out, its IP header sound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) l3num: L3,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) ttl: u8,
    pub(super) fragment: Option<Fragment>,
    /// Number of the transport protocol; that of what a later fragment is of where it has no header.
    pub(super) protonum: u8,
    /// From the IP header on.
    pub(super) bytes: &'a [u8],
    /// From the transport header on; of a later fragment its data.
    pub(super) l4: &'a [u8],
    /// Is the transport header there?
    pub(super) has_header: bool,
}

impl<'a> Seen<'a> {
    /// `None` for what is no IP packet that a host would take.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Seen<'a>> {
        let packet = Packet::parse(bytes, bytes.len()).ok()?;
        let (protonum, at, has_header) = match packet.transport {
            Ok(transport) => (transport.protonum, transport.offset, true),
            Err(_) if packet.l3num == L3::V4 => (*bytes.get(9)?, usize::from(bytes.first()? & 15) * 4, false),
            Err(_) => (*bytes.get(IPV6_HEADER)?, IPV6_HEADER + 8, false),
        };
        Some(Seen {
            l3num: packet.l3num,
            src: packet.src.ip(packet.l3num),
            dst: packet.dst.ip(packet.l3num),
            ttl: packet.ttl,
            fragment: packet.fragment,
            protonum,
            bytes: packet.bytes,
            l4: packet.bytes.get(at..)?,
            has_header,
        })
    }

    pub(super) fn is(&self, protonum: u8) -> bool {
        self.has_header && self.protonum == protonum
    }

    pub(super) fn is_icmp(&self) -> bool {
        self.is(icmp_of(self.l3num))
    }

    pub(super) fn sport(&self) -> Option<u16> {
        be16(self.l4, 0)
    }

    pub(super) fn dport(&self) -> Option<u16> {
        be16(self.l4, 2)
    }

    /// Type and code of ICMP.
    pub(super) fn kind(&self) -> Option<(u8, u8)> {
        if self.is_icmp() { Some((*self.l4.first()?, *self.l4.get(1)?)) } else { None }
    }

    /// Is it an ICMP error?
    pub(super) fn is_error(&self) -> bool {
        match (self.l3num, self.kind()) {
            (L3::V4, Some((3 | 4 | 5 | 11 | 12, _))) => true,
            (L3::V6, Some((kind, _))) => kind < 128 || kind == 137,
            _ => false,
        }
    }

    /// The echo message: is it a request, its id.
    pub(super) fn echo(&self) -> Option<(bool, u16)> {
        let id = be16(self.l4, 4)?;
        match (self.l3num, self.kind()?) {
            (L3::V4, (8, 0)) | (L3::V6, (128, 0)) => Some((true, id)),
            (L3::V4, (0, 0)) | (L3::V6, (129, 0)) => Some((false, id)),
            _ => None,
        }
    }

    /// What is behind the transport header.
    pub(super) fn payload(&self) -> &'a [u8] {
        let header = match self.protonum {
            proto::TCP => self.l4.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4),
            _ => ICMP_HEADER,
        };
        self.l4.get(header..).unwrap_or_default()
    }

    /// The four bytes behind the checksum of ICMP.
    pub(super) fn word(&self) -> Option<u32> {
        be32(self.l4, 4)
    }

    /// What an error quotes, from its IP header on, and whatever is behind it.
    pub(super) fn quote(&self) -> &'a [u8] {
        self.l4.get(ICMP_HEADER..).unwrap_or_default()
    }

    /// Is the checksum of the transport right? That of UDP may be absent in IPv4.
    pub(super) fn checksum_is_right(&self) -> bool {
        if self.is(proto::UDP) && self.l3num == L3::V4 && be16(self.l4, 6) == Some(0) {
            return true;
        }
        let sum = match self.protonum {
            proto::ICMP => Sum::default(),
            number => {
                let (src, dst) = (Addr::from(self.src), Addr::from(self.dst));
                Sum::default().pseudo_header(self.l3num, src, dst, number, self.l4.len())
            }
        };
        sum.bytes(self.l4).fold() == 0xffff
    }
}

/// The number of ICMP in a family.
pub(super) const fn icmp_of(l3num: L3) -> u8 {
    match l3num {
        L3::V4 => proto::ICMP,
        L3::V6 => proto::ICMPV6,
    }
}

/// Writes a big-endian number of two bytes where there is room for it.
pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Sets the TTL or hop limit, and puts the checksum of the header right by the difference, so that a wrong one stays wrong.
pub(super) fn set_ttl(packet: &mut [u8], ttl: u8) {
    let (at, checksum) = match packet.first().map(|first| first >> 4) {
        Some(4) => (8, Some(10)),
        _ => (7, None),
    };
    let Some(place) = packet.get_mut(at) else { return };
    let before = std::mem::replace(place, ttl);
    if let Some(field) = checksum
        && let Some(found) = be16(packet, field)
    {
        // RFC 1624, equation 3; the TTL is the first byte of its word.
        let sum = u32::from(!found) + u32::from(!(u16::from(before) << 8)) + (u32::from(ttl) << 8);
        let folded = (sum & 0xffff) + (sum >> 16);
        put16(packet, field, !((folded & 0xffff) + (folded >> 16)) as u16);
    }
}

/// Puts the checksum of an IPv4 header right; IPv6 has none.
pub(super) fn seal_header(packet: &mut [u8]) {
    if packet.first().map(|first| first >> 4) != Some(4) {
        return;
    }
    let length = usize::from(packet.first().copied().unwrap_or_default() & 15) * 4;
    put16(packet, 10, 0);
    let checksum = Sum::default().bytes(packet.get(..length).unwrap_or_default()).checksum();
    put16(packet, 10, checksum);
}

/// Spoils the checksum of an ICMP message in a packet.
pub(super) fn spoil_icmp_checksum(packet: &mut [u8]) {
    let at = match packet.first().map(|first| first >> 4) {
        Some(4) => packet.first().map_or(0, |first| usize::from(first & 15) * 4),
        _ => IPV6_HEADER,
    } + ICMP_CHECKSUM;
    if let Some(byte) = packet.get_mut(at) {
        *byte ^= 0x5a;
    }
}
