//! What a TUN device and the kernel behind it leave to each other, in a `struct virtio_net_hdr` in front of each packet: a
//! checksum that is not computed yet, and several segments of a flow as one packet (`CHECKSUM_PARTIAL`, GSO).
//!
//! A packet whose checksum is missing is given one; that costs no more than to verify it. Several segments stay together
//! while they are forwarded: the field of their checksum then holds the sum of the pseudo header and nothing else, which is
//! made anew for the addresses that they leave with. Wherever they cannot stay together they are cut here.

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER, Packet, be16, be32};
use ctwhy_core::tuple::{L3, proto};

/// How long a `struct virtio_net_hdr` is.
pub const HEADER: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`, `VIRTIO_NET_HDR_F_DATA_VALID`.
const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_TCPV4`, `VIRTIO_NET_HDR_GSO_TCPV6`, `VIRTIO_NET_HDR_GSO_UDP_L4`, `VIRTIO_NET_HDR_GSO_ECN`.
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
const ECN: u8 = 0x80;

/// Where the checksum is in the header of TCP and of UDP.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Flags of a TCP header that belong to the first segment, or to the last.
const CWR: u8 = 0x80;
const FIN_AND_PSH: u8 = 0x09;

/// Several segments in one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    kind: u8,
    /// Bytes of payload in each segment but the last.
    size: u16,
    /// Where the transport header is, and where the payload is.
    transport: usize,
    payload: usize,
}

/// What is in front of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Nobody has to verify its transport checksum.
    pub checksum_trusted: bool,
    /// It is several segments in one.
    pub gso: Option<Gso>,
}

/// Takes in what the header in front of a packet says, and computes the checksum that is missing; `None` when that says
/// what cannot be about this packet.
#[must_use]
pub fn take_in(header: [u8; HEADER], packet: &mut [u8]) -> Option<Arrived> {
    let [flags, kind, _, _, size0, size1, start0, start1, offset0, offset1] = header;
    let native = |low, high| u16::from_ne_bytes([low, high]);
    if kind & !ECN != 0 {
        return Some(Arrived { checksum_trusted: true, gso: Some(Gso::of(packet, kind, native(size0, size1))?) });
    }
    if flags & NEEDS_CHECKSUM != 0 {
        let (start, offset) = (usize::from(native(start0, start1)), usize::from(native(offset0, offset1)));
        let message = packet.get_mut(start..)?;
        // The field holds the sum of the pseudo header.
        let checksum = match Sum::default().bytes(message).checksum() {
            0 if offset == UDP_CHECKSUM => 0xffff,
            checksum => checksum,
        };
        message.get_mut(offset..offset + 2)?.copy_from_slice(&checksum.to_be_bytes());
    }
    Some(Arrived { checksum_trusted: flags & (NEEDS_CHECKSUM | CHECKSUM_VALID) != 0, gso: None })
}

/// The `gso_type` of segments of this protocol.
pub(crate) const fn kind(is_v4: bool, protonum: u8) -> u8 {
    match (protonum, is_v4) {
        (proto::UDP, _) => UDP,
        (_, true) => TCP_V4,
        (_, false) => TCP_V6,
    }
}

impl Gso {
    /// Segments of `size` bytes of payload, behind headers that end at `payload`.
    pub(crate) const fn new(kind: u8, size: u16, transport: usize, payload: usize) -> Gso {
        Gso { kind, size, transport, payload }
    }

    /// For `packet`, which is such a packet of this `gso_type` with segments of `size` bytes.
    fn of(packet: &[u8], kind: u8, size: u16) -> Option<Gso> {
        let view = Packet::parse(packet, packet.len()).ok()?;
        let transport = view.transport.ok().filter(|_| view.fragment.is_none() && size > 0)?;
        let l4 = view.bytes.get(transport.offset..)?;
        let header = match (kind & !ECN, view.l3num, transport.protonum) {
            (TCP_V4, L3::V4, proto::TCP) | (TCP_V6, L3::V6, proto::TCP) => usize::from(*l4.get(12)? >> 4) * 4,
            (UDP, _, proto::UDP) => UDP_HEADER,
            _ => return None,
        };
        let least = if kind == UDP { UDP_HEADER } else { TCP_HEADER };
        let fits = header >= least && l4.len() > header && view.bytes.len() == packet.len();
        fits.then_some(Gso { kind, size, transport: transport.offset, payload: transport.offset + header })
    }

    /// The length of the longest segment, from the IP header on.
    #[must_use]
    pub const fn segment(&self) -> usize {
        self.payload + self.size as usize
    }

    const fn checksum_at(&self) -> usize {
        match self.kind {
            UDP => UDP_CHECKSUM,
            _ => TCP_CHECKSUM,
        }
    }

    const fn protonum(&self) -> u8 {
        match self.kind {
            UDP => proto::UDP,
            _ => proto::TCP,
        }
    }

    /// The sum of the pseudo header of `packet`.
    fn pseudo_header(&self, packet: &[u8]) -> Sum {
        let (l3num, src, dst) = match packet.first().map(|byte| byte >> 4) {
            Some(4) => (L3::V4, 12..16, 16..20),
            _ => (L3::V6, 8..24, 24..40),
        };
        let address = |at| {
            let mut address = ctwhy_core::tuple::Addr([0; 16]);
            let bytes: &[u8] = packet.get(at).unwrap_or(&[]);
            address.0[..bytes.len()].copy_from_slice(bytes);
            address
        };
        let length = packet.len().saturating_sub(self.transport);
        Sum::default().pseudo_header(l3num, address(src), address(dst), self.protonum(), length)
    }

    /// Leaves the checksum of a packet to whoever is next (`CHECKSUM_PARTIAL`).
    pub fn leave_checksum(&self, packet: &mut [u8]) {
        let sum = self.pseudo_header(packet).fold();
        put16(packet, self.transport + self.checksum_at(), sum);
    }

    /// What goes in front of a packet that leaves.
    #[must_use]
    pub fn header(&self) -> [u8; HEADER] {
        let [length0, length1] = (self.payload as u16).to_ne_bytes();
        let [size0, size1] = self.size.to_ne_bytes();
        let [start0, start1] = (self.transport as u16).to_ne_bytes();
        let [offset0, offset1] = (self.checksum_at() as u16).to_ne_bytes();
        [NEEDS_CHECKSUM, self.kind, length0, length1, size0, size1, start0, start1, offset0, offset1]
    }

    /// The segments, each a packet with all of its checksums (`tcp_gso_segment`, `__udp_gso_segment`).
    pub fn segments<'a>(&self, packet: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + use<'a> {
        let gso = *self;
        let (header, payload) = packet.split_at(packet.len().min(self.payload));
        let last = payload.len().div_ceil(usize::from(self.size)).saturating_sub(1);
        payload.chunks(usize::from(self.size)).enumerate().map(move |(index, data)| {
            let mut segment = Vec::with_capacity(header.len() + data.len());
            segment.extend_from_slice(header);
            segment.extend_from_slice(data);
            gso.finish(&mut segment, index, index == last);
            segment
        })
    }

    /// Makes a segment of what has the headers of the whole.
    fn finish(&self, segment: &mut [u8], index: usize, is_last: bool) {
        let l4 = self.transport;
        let length = segment.len();
        if segment.first().is_some_and(|byte| byte >> 4 == 4) {
            let id = be16(segment, 4).unwrap_or(0).wrapping_add(index as u16);
            put16(segment, 2, length as u16);
            put16(segment, 4, id);
            put16(segment, 10, 0);
            let header = segment.get(..l4.max(IPV4_HEADER)).unwrap_or(segment);
            let checksum = Sum::default().bytes(header).checksum();
            put16(segment, 10, checksum);
        } else {
            put16(segment, 4, length.saturating_sub(IPV6_HEADER) as u16);
        }
        if self.kind == UDP {
            put16(segment, l4 + 4, length.saturating_sub(l4) as u16);
        } else {
            let seq = be32(segment, l4 + 4).unwrap_or(0).wrapping_add((index * usize::from(self.size)) as u32);
            if let Some(field) = segment.get_mut(l4 + 4..l4 + 8) {
                field.copy_from_slice(&seq.to_be_bytes());
            }
            if let Some(flags) = segment.get_mut(l4 + 13) {
                *flags &= if is_last { !0 } else { !FIN_AND_PSH };
                *flags &= if index == 0 { !0 } else { !CWR };
            }
        }
        let at = l4 + self.checksum_at();
        put16(segment, at, 0);
        let pseudo = self.pseudo_header(segment);
        let checksum = match pseudo.bytes(segment.get(l4..).unwrap_or(&[])).checksum() {
            0 if self.kind == UDP => 0xffff,
            checksum => checksum,
        };
        put16(segment, at, checksum);
    }
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::checksum_is_right;

    const SIZE: u16 = 1000;

    /// 2500 bytes of TCP or UDP in one packet from 10.0.1.2:40000 to 192.0.2.80:80, or the same in IPv6.
    fn super_packet(l3num: L3, protonum: u8) -> Vec<u8> {
        let mut l4 = vec![0x9c, 0x40, 0, 80];
        if protonum == proto::TCP {
            l4.extend([0xff, 0xff, 0xff, 0x00, 0, 0, 0, 9, 0x50, 0x99, 1, 0, 0, 0, 0, 0]);
        } else {
            l4.extend([0x09, 0xcc, 0, 0]);
        }
        l4.extend((0..2500).map(|at| at as u8));
        let mut packet = match l3num {
            L3::V4 => vec![0x45, 0x28, 0, 0, 0xff, 0xff, 0x40, 0, 9, protonum, 0, 0, 10, 0, 1, 2, 192, 0, 2, 80],
            L3::V6 => {
                let mut header = vec![0x60, 0, 0, 0, 0, 0, protonum, 9];
                header.extend([0xfd; 16]);
                header.extend([0x20; 16]);
                header
            }
        };
        packet.extend(l4);
        let length = packet.len();
        match l3num {
            L3::V4 => {
                put16(&mut packet, 2, length as u16);
                let checksum = Sum::default().bytes(&packet[..20]).checksum();
                put16(&mut packet, 10, checksum);
            }
            L3::V6 => put16(&mut packet, 4, (length - 40) as u16),
        }
        packet
    }

    fn kinds() -> [(L3, u8, u8); 4] {
        [
            (L3::V4, proto::TCP, TCP_V4),
            (L3::V6, proto::TCP, TCP_V6),
            (L3::V4, proto::UDP, UDP),
            (L3::V6, proto::UDP, UDP),
        ]
    }

    fn header(kind: u8) -> [u8; HEADER] {
        let [size0, size1] = SIZE.to_ne_bytes();
        [NEEDS_CHECKSUM, kind, 0, 0, size0, size1, 0, 0, 0, 0]
    }

    #[test]
    fn segments_are_what_one_packet_stands_for() {
        for (l3num, protonum, kind) in kinds() {
            let mut packet = super_packet(l3num, protonum);
            let gso = take_in(header(kind), &mut packet).unwrap().gso.unwrap();
            let segments: Vec<Vec<u8>> = gso.segments(&packet).collect();
            assert_eq!(segments.len(), 3);
            let mut payload = Vec::new();
            for (segment, index) in segments.iter().zip(0u16..) {
                let view = Packet::parse(segment, segment.len()).unwrap();
                assert_eq!(view.bytes.len(), segment.len(), "the length is right");
                assert!(checksum_is_right(&view), "{protonum} {index}");
                assert!(segment.len() <= gso.segment());
                payload.extend_from_slice(&segment[gso.payload..]);
                if l3num == L3::V4 {
                    assert_eq!(be16(segment, 4), Some(0xffff_u16.wrapping_add(index)));
                }
                if protonum == proto::TCP {
                    assert_eq!(
                        be32(segment, gso.transport + 4),
                        Some(0xffff_ff00_u32.wrapping_add(1000 * u32::from(index)))
                    );
                    assert_eq!(
                        segment[gso.transport + 13],
                        [0x90, 0x10, 0x19][usize::from(index)],
                        "CWR first, FIN last"
                    );
                }
            }
            assert_eq!(payload, packet[gso.payload..]);
        }
    }

    #[test]
    fn what_is_left_to_the_next_one_is_the_sum_of_the_pseudo_header() {
        for (l3num, protonum, kind) in kinds() {
            let mut packet = super_packet(l3num, protonum);
            let arrived = take_in(header(kind), &mut packet).unwrap();
            let gso = arrived.gso.unwrap();
            gso.leave_checksum(&mut packet);
            // Whoever sums up everything behind the IP header and writes the complement has a right packet.
            let [flags, .., start0, start1, offset0, offset1] = gso.header();
            assert_eq!((flags, arrived.checksum_trusted), (NEEDS_CHECKSUM, true));
            let next = [NEEDS_CHECKSUM, 0, 0, 0, 0, 0, start0, start1, offset0, offset1];
            assert_eq!(take_in(next, &mut packet), Some(Arrived { checksum_trusted: true, gso: None }));
            assert!(checksum_is_right(&Packet::parse(&packet, packet.len()).unwrap()));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let tcp = super_packet(L3::V4, proto::TCP);
        let refused = |header: [u8; HEADER], packet: &[u8]| take_in(header, &mut packet.to_vec()).is_none();
        for kind in [TCP_V6, UDP, 3, 7] {
            assert!(refused(header(kind), &tcp), "type {kind}");
        }
        assert!(!refused(header(TCP_V4 | ECN), &tcp));
        let mut without_size = header(TCP_V4);
        without_size[4..6].fill(0);
        assert!(refused(without_size, &tcp));
        assert!(refused(header(TCP_V4), &tcp[..39]));
        for (start, offset) in [(u16::MAX, 0), (20, u16::MAX), (0, 2539)] {
            let ([start0, start1], [offset0, offset1]) = (start.to_ne_bytes(), offset.to_ne_bytes());
            assert!(refused([NEEDS_CHECKSUM, 0, 0, 0, 0, 0, start0, start1, offset0, offset1], &tcp));
        }
        assert_eq!(
            take_in([0; HEADER], &mut tcp.clone()),
            Some(Arrived { checksum_trusted: false, gso: None }),
            "nothing is left to anybody"
        );
    }
}
