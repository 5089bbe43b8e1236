//! Packets for the guest, made from what sockets gave.

use std::net::IpAddr;

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER};
use ctwhy_core::tuple::{Addr, L3, Tuple, proto};

/// TTL and hop limit of packets that Linux makes.
const TTL: u8 = 64;
/// Bytes of the fragment header of IPv6.
const FRAGMENT_HEADER: usize = 8;

/// Makes packets that fit the guest's link.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    mtu: usize,
    /// Of the next packet; the host's own is in another packet.
    identification: u16,
}

impl Writer {
    /// For a link that takes packets of this many bytes.
    pub(super) fn new(mtu: u16, identification: u16) -> Writer {
        Writer { mtu: usize::from(mtu), identification }
    }

    /// The UDP datagram that a peer sent: `tuple` is the one of the guest's flow.
    pub(super) fn udp(&mut self, tuple: &Tuple, data: &[u8]) -> Vec<Vec<u8>> {
        let length = 8 + data.len();
        let mut l4 = Vec::with_capacity(length);
        l4.extend(tuple.dst_u.to_be_bytes());
        l4.extend(tuple.src_u.to_be_bytes());
        l4.extend((length as u16).to_be_bytes());
        l4.extend([0, 0]);
        l4.extend(data);
        let checksum =
            Sum::default().pseudo_header(tuple.l3num, tuple.dst, tuple.src, proto::UDP, length).bytes(&l4).checksum();
        // A checksum of 0 would say that there is none.
        put(&mut l4, 6, if checksum == 0 { 0xffff } else { checksum });
        self.packets(tuple.dst_ip(), tuple.src_ip(), proto::UDP, &l4)
    }

    /// An echo reply: `rest` is what follows the id, `tuple` the one of the guest's flow.
    pub(super) fn echo_reply(&mut self, tuple: &Tuple, rest: &[u8]) -> Vec<Vec<u8>> {
        let mut message = vec![super::guest::echo_types(tuple.l3num).1, 0, 0, 0];
        message.extend(tuple.src_u.to_be_bytes());
        message.extend(rest);
        self.icmp(tuple.dst_ip(), tuple.src_ip(), message)
    }

    /// An ICMP message whose checksum is still 0.
    pub(super) fn icmp(&mut self, from: IpAddr, to: IpAddr, mut message: Vec<u8>) -> Vec<Vec<u8>> {
        let protonum = if from.is_ipv4() { proto::ICMP } else { proto::ICMPV6 };
        let initial = match from {
            IpAddr::V4(_) => Sum::default(),
            IpAddr::V6(_) => Sum::default().pseudo_header(L3::V6, from.into(), to.into(), protonum, message.len()),
        };
        let checksum = initial.bytes(&message).checksum();
        put(&mut message, 2, checksum);
        self.packets(from, to, protonum, &message)
    }

    /// The next value of the identification field.
    pub(super) fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }

    /// A datagram in as many packets as it needs.
    fn packets(&mut self, from: IpAddr, to: IpAddr, protonum: u8, payload: &[u8]) -> Vec<Vec<u8>> {
        let identification = self.next_identification();
        let (header, extra) = match from {
            IpAddr::V4(_) => (IPV4_HEADER, 0),
            IpAddr::V6(_) => (IPV6_HEADER, FRAGMENT_HEADER),
        };
        if header + payload.len() <= self.mtu {
            return vec![packet(from, to, protonum, payload, Place { identification, offset: 0, more: false })];
        }
        // All but the last piece are a multiple of 8 bytes long.
        let room = self.mtu.saturating_sub(header + extra).max(8) & !7;
        let last = payload.len().div_ceil(room).saturating_sub(1);
        let piece = |(index, piece): (usize, &[u8])| {
            let place = Place { identification, offset: index * room, more: index != last };
            packet(from, to, protonum, piece, place)
        };
        payload.chunks(room).enumerate().map(piece).collect()
    }
}

/// A packet's place in its datagram.
#[derive(Clone, Copy)]
struct Place {
    identification: u16,
    /// In bytes, a multiple of 8.
    offset: usize,
    more: bool,
}

fn packet(from: IpAddr, to: IpAddr, protonum: u8, payload: &[u8], place: Place) -> Vec<u8> {
    let (from_addr, to_addr) = (Addr::from(from), Addr::from(to));
    let whole = place.offset == 0 && !place.more;
    let mut bytes = Vec::with_capacity(IPV6_HEADER + FRAGMENT_HEADER + payload.len());
    if from.is_ipv4() {
        bytes.extend([0x45, 0]);
        bytes.extend(((IPV4_HEADER + payload.len()) as u16).to_be_bytes());
        bytes.extend(place.identification.to_be_bytes());
        bytes.extend(((place.offset / 8) as u16 | if place.more { 0x2000 } else { 0 }).to_be_bytes());
        bytes.extend([TTL, protonum, 0, 0]);
        bytes.extend(&from_addr.0[..4]);
        bytes.extend(&to_addr.0[..4]);
        let checksum = Sum::default().bytes(&bytes).checksum();
        put(&mut bytes, 10, checksum);
    } else {
        let extra = if whole { 0 } else { FRAGMENT_HEADER };
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend(((extra + payload.len()) as u16).to_be_bytes());
        bytes.extend([if whole { protonum } else { 44 }, TTL]);
        bytes.extend(from_addr.0);
        bytes.extend(to_addr.0);
        if !whole {
            bytes.extend([protonum, 0]);
            bytes.extend((place.offset as u16 | u16::from(place.more)).to_be_bytes());
            bytes.extend(u32::from(place.identification).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// Overwrites two bytes that are there.
pub(super) fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctwhy_core::hook::Engine;
    use ctwhy_core::packet::Packet;
    use ctwhy_core::time::Time;

    fn tuple(src: &str, dst: &str) -> Tuple {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let l3num = if src.is_ipv4() { L3::V4 } else { L3::V6 };
        Tuple { src: src.into(), dst: dst.into(), src_u: 40000, dst_u: 53, l3num, protonum: proto::UDP }
    }

    /// The engine takes them as the kernel would: checksums are right, and pieces become what they were.
    #[test]
    fn a_long_datagram_goes_in_pieces_that_fit_and_become_whole() {
        for (src, dst) in [("10.0.0.2", "192.0.2.80"), ("fd00::2", "2001:db8::80")] {
            for length in [0, 1, 1451, 1452, 1453, 1472, 1473, 4000, 9999] {
                let data: Vec<u8> = (0..length).map(|index| index as u8).collect();
                let mut writer = Writer::new(1500, 7);
                let packets = writer.udp(&tuple(src, dst), &data);
                let mut engine = Engine::new(0);
                let mut whole = Vec::new();
                for mut bytes in packets {
                    assert!(bytes.len() <= 1500 && Packet::parse(&bytes, bytes.len()).is_ok());
                    let len = bytes.len();
                    let ruling = engine.receive(&mut bytes, len, None, Time(0), &mut ());
                    if ruling.ctinfo.is_ok() {
                        whole = ruling.arrived(&bytes).to_vec();
                    }
                }
                assert!(whole.ends_with(&data), "{src} {length}");
                let header = if src.contains(':') { 48 } else { 28 };
                assert_eq!(whole.len(), header + length, "{src}");
            }
        }
    }
}
