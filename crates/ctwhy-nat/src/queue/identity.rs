//! What tells packets apart, whatever a kernel and its rules do to them on the way: not their TTL, TOS or checksums.

use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER, Packet, be16};
use ctwhy_core::track::{icmp, icmpv6};
use ctwhy_core::tuple::{L3, proto};

/// How much of a transport header counts: ports or ids, in front of the checksum of UDP; of TCP both sequence numbers.
const TRANSPORT: usize = 6;
const TCP: usize = 12;
/// `TH_RST`
const RST: u8 = 0x04;

/// A number that another packet hardly has: of identification, protocol, addresses and the beginning of the transport
/// header. Packets that are none have the same.
#[must_use]
pub fn identity(packet: &[u8]) -> u64 {
    parts(packet).map_or(0, |((word, addresses), l4)| {
        let counts = if protocol(packet) == Some(proto::TCP) { TCP } else { TRANSPORT };
        mixed(&[word, addresses, l4.get(..counts).unwrap_or(l4)])
    })
}

/// The identity of the packet that an ICMP error quotes; `None` for what is no error.
#[must_use]
pub fn quoted(error: &[u8]) -> Option<u64> {
    let packet = Packet::parse(error, error.len()).ok()?;
    let transport = packet.transport.ok()?;
    let icmp_type = *error.get(transport.offset)?;
    let is_error = match (packet.l3num, transport.protonum) {
        (L3::V4, proto::ICMP) => icmp::is_error(icmp_type),
        (L3::V6, proto::ICMPV6) => icmp_type < icmpv6::FIRST_INFORMATIONAL_TYPE,
        _ => false,
    };
    is_error.then(|| packet.bytes.get(transport.offset + icmp::HEADER..).map(identity)).flatten()
}

/// What tells the reset that would answer a TCP segment: where it goes, and from where. `None` for what is no segment.
#[must_use]
pub fn reset_of(segment: &[u8]) -> Option<u64> {
    let (packet, ports) = tcp(segment)?;
    Some(mixed(&[&packet.dst.0, &packet.src.0, ports.get(2..4)?, ports.get(..2)?]))
}

/// What tells a reset; `None` for what is none.
#[must_use]
pub fn reset(segment: &[u8]) -> Option<u64> {
    let (packet, l4) = tcp(segment)?;
    let is_reset = l4.get(13)? & RST != 0;
    is_reset.then(|| Some(mixed(&[&packet.src.0, &packet.dst.0, l4.get(..2)?, l4.get(2..4)?]))).flatten()
}

fn tcp(segment: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let packet = Packet::parse(segment, segment.len()).ok()?;
    let transport = packet.transport.ok().filter(|transport| transport.protonum == proto::TCP)?;
    Some((packet, segment.get(transport.offset..)?))
}

/// What the IP header says is behind it.
fn protocol(packet: &[u8]) -> Option<u8> {
    packet.get(if packet.first()? >> 4 == 4 { 9 } else { 6 }).copied()
}

/// The parts of an IP header that stay, and what is behind it.
type Parts<'a> = ((&'a [u8], &'a [u8]), &'a [u8]);

fn parts(packet: &[u8]) -> Option<Parts<'_>> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            // Identification to fragment offset; the protocol is told by what its header says, addresses.
            Some(((packet.get(4..8)?, packet.get(12..20)?), packet.get(header.max(IPV4_HEADER)..)?))
        }
        6 => Some(((packet.get(6..7)?, packet.get(8..40)?), packet.get(IPV6_HEADER..)?)),
        _ => None,
    }
}

/// Not for those who want two packets to have the same: for them there are easier ways.
fn mixed(parts: &[&[u8]]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = FACTOR;
    for part in parts {
        for word in part.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            state = (state ^ u64::from_le_bytes(bytes)).wrapping_mul(FACTOR).rotate_left(29);
        }
    }
    state
}

/// Lets the kernel cut a packet: one that was put together from fragments which their sender had forbidden to cut again.
pub fn clear_dont_fragment(packet: &mut [u8]) {
    use ctwhy_core::checksum::replaced;
    const DONT_FRAGMENT: u8 = 0x40;
    let Some(word) = be16(packet, 6).filter(|_| packet.first().is_some_and(|first| first >> 4 == 4)) else { return };
    let [high, low] = word.to_be_bytes();
    let Some(checksum) = be16(packet, 10).filter(|_| high & DONT_FRAGMENT != 0) else { return };
    let after = [high & !DONT_FRAGMENT, low];
    packet[6..8].copy_from_slice(&after);
    packet[10..12].copy_from_slice(&replaced(checksum, &[high, low], &after).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctwhy_core::checksum::Sum;

    fn datagram(id: u16, ttl: u8, src_port: u16) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 32];
        bytes.extend(id.to_be_bytes());
        bytes.extend([0x40, 0, ttl, 17, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1]);
        let checksum = Sum::default().bytes(&bytes).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(src_port.to_be_bytes());
        bytes.extend([0, 53, 0, 12, 0, 0, 1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn the_way_does_not_change_it_and_other_packets_have_another() {
        let own = identity(&datagram(1, 64, 9));
        assert_eq!(own, identity(&datagram(1, 63, 9)));
        assert_ne!(own, identity(&datagram(2, 64, 9)));
        assert_ne!(own, identity(&datagram(1, 64, 10)));
        for end in 0..32 {
            assert_ne!(identity(&datagram(1, 64, 9)[..end.min(25)]), own, "a packet cut short is another one");
        }
    }

    #[test]
    fn segments_are_told_by_their_numbers_and_not_by_their_window() {
        let mut segment = [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &[7; 32], &[0, 53, 0, 54], &[1; 16]].concat();
        let own = identity(&segment);
        for (at, same) in [(46, false), (51, false), (54, true), (56, true)] {
            segment[at] ^= 4;
            assert_eq!(identity(&segment) == own, same, "byte {at}");
            segment[at] ^= 4;
        }
    }

    #[test]
    fn an_error_tells_the_packet_that_it_is_about() {
        let probe = datagram(1, 1, 9);
        let mut error = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 254, 10, 0, 0, 1];
        let checksum = Sum::default().bytes(&error).checksum();
        error[10..12].copy_from_slice(&checksum.to_be_bytes());
        error.extend([11, 0, 0, 0, 0, 0, 0, 0]);
        error.extend(&probe);
        assert_eq!(quoted(&error), Some(identity(&probe)));
        error[20] = 8;
        assert_eq!(quoted(&error), None, "an echo request is no error");
        assert_eq!(quoted(&probe), None);
    }

    #[test]
    fn the_bit_goes_and_the_checksum_stays_right() {
        let mut packet = datagram(1, 64, 9);
        clear_dont_fragment(&mut packet);
        assert_eq!(packet[6], 0);
        assert!(Packet::parse(&packet, packet.len()).is_ok(), "its header checksum is right");
        let before = packet.clone();
        clear_dont_fragment(&mut packet);
        assert_eq!(packet, before);
    }
}
