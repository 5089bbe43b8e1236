//! Packets as those who meddle with them see them.

use ctwhy_conform::blackbox::nat::Side;
use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::Packet;
use ctwhy_core::tuple::{L3, proto};

pub(crate) fn transport(packet: &[u8]) -> (u8, usize) {
    let packet = Packet::parse(packet, packet.len()).unwrap();
    packet.transport.map_or((0, 0), |transport| (transport.protonum, transport.offset))
}

/// Where the ICMP message of an error is.
pub(crate) fn error_of(packet: &[u8]) -> Option<usize> {
    let (protonum, at) = transport(packet);
    let kind = *packet.get(at)?;
    match protonum {
        proto::ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        proto::ICMPV6 => kind < 128 || kind == 137,
        _ => false,
    }
    .then_some(at)
}

/// Where the quote of an error is that comes in.
pub(crate) fn quote_of(side: Side, packet: &[u8]) -> Option<usize> {
    if side == Side::Inside { error_of(packet).map(|at| at + 8) } else { None }
}

/// Length of the header of the family of a packet, without options.
pub(crate) fn header(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

pub(crate) fn seal_icmp(packet: &mut [u8]) {
    let (protonum, at) = transport(packet);
    packet[at + 2..at + 4].fill(0);
    let view = Packet::parse(packet, packet.len()).unwrap();
    let l4 = &packet[at..];
    let sum = match view.l3num {
        L3::V4 => Sum::default(),
        L3::V6 => Sum::default().pseudo_header(L3::V6, view.src, view.dst, protonum, l4.len()),
    };
    let checksum = sum.bytes(l4).checksum();
    packet[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
}

pub(crate) fn seal_ip(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        let length = usize::from(packet[0] & 15) * 4;
        packet[10..12].fill(0);
        let checksum = Sum::default().bytes(&packet[..length]).checksum();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

pub(crate) fn set_ttl(packet: &mut [u8], ttl: u8) {
    let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
    packet[at] = ttl;
    seal_ip(packet);
}

pub(crate) fn ttl(packet: &[u8]) -> u8 {
    packet[if packet[0] >> 4 == 4 { 8 } else { 7 }]
}
