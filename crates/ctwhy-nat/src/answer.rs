//! ICMP errors that a router sends itself (RFC 1812 section 4.3, RFC 4443; `icmp_send`, `icmp6_send`).

use std::net::IpAddr;

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER, Packet};
use ctwhy_core::track::icmp;
use ctwhy_core::track::icmpv6;
use ctwhy_core::tuple::{Addr, L3, proto};

/// An IPv4 error is at most this long, whatever the link takes (RFC 1812 section 4.3.2.3).
const IPV4_ERROR: usize = 576;
/// An IPv6 error fits the smallest link there is (RFC 4443 section 2.4c).
const IPV6_ERROR: usize = 1280;
/// TTL and hop limit of packets that Linux makes.
const TTL: u8 = 64;
/// Internetwork control, the precedence of routing and of errors (RFC 1812 section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
/// The bits of the TOS that an error takes over from the packet that it answers (`RT_TOS`).
const TOS_KEPT: u8 = 0x1e;

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// TTL or hop limit used up.
    TimeExceeded,
    /// Longer than the next link takes, and not to be cut: the MTU of that link in bytes.
    TooBig {
        /// Bytes.
        mtu: u32,
    },
    /// No route leads there.
    NoRoute,
    /// The host does not answer on its link.
    HostUnreachable,
    /// Nobody listens on the port.
    PortUnreachable,
    /// A filter forbids it.
    Prohibited,
}

impl Complaint {
    /// Type, code and the second word of the header.
    const fn header(self, l3num: L3) -> (u8, u8, u32) {
        match (self, l3num) {
            (Complaint::TimeExceeded, L3::V4) => (11, 0, 0),
            (Complaint::TimeExceeded, L3::V6) => (3, 0, 0),
            // RFC 1191: the MTU is the lower half of the word.
            (Complaint::TooBig { mtu }, L3::V4) => (3, 4, mtu & 0xffff),
            (Complaint::TooBig { mtu }, L3::V6) => (2, 0, mtu),
            (Complaint::NoRoute, L3::V4) => (3, 0, 0),
            (Complaint::NoRoute, L3::V6) => (1, 0, 0),
            (Complaint::HostUnreachable, L3::V4) => (3, 1, 0),
            (Complaint::HostUnreachable, L3::V6) => (1, 3, 0),
            (Complaint::PortUnreachable, L3::V4) => (3, 3, 0),
            (Complaint::PortUnreachable, L3::V6) => (1, 4, 0),
            (Complaint::Prohibited, L3::V4) => (3, 13, 0),
            (Complaint::Prohibited, L3::V6) => (1, 1, 0),
        }
    }
}

/// The error that `from` sends about `packet`, with `identification` in its IPv4 header.
///
/// `None` where an error must not be sent: about another error, a later fragment, a packet from or to an address that
/// is not one host's (RFC 1122 section 3.2.2, RFC 4443 section 2.4e).
#[must_use]
pub fn complain(packet: &[u8], complaint: Complaint, from: IpAddr, identification: u16) -> Option<Vec<u8>> {
    let view = Packet::parse(packet, packet.len()).ok()?;
    if !may_be_answered(&view) {
        return None;
    }
    let (icmp_type, code, word) = complaint.header(view.l3num);
    let (header, limit) = match view.l3num {
        L3::V4 => (IPV4_HEADER, IPV4_ERROR),
        L3::V6 => (IPV6_HEADER, IPV6_ERROR),
    };
    let quote = &view.bytes[..view.bytes.len().min(limit - header - icmp::HEADER)];
    let mut message = vec![icmp_type, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(quote);
    let own = Addr::from(from);
    let initial = match view.l3num {
        L3::V4 => Sum::default(),
        L3::V6 => Sum::default().pseudo_header(L3::V6, own, view.src, proto::ICMPV6, message.len()),
    };
    let checksum = initial.bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut error = ip_header(&view, own, message.len(), identification);
    error.extend(message);
    Some(error)
}

/// Is it a packet that may be complained about?
fn may_be_answered(packet: &Packet<'_>) -> bool {
    let one_host = |address: Addr| match packet.l3num {
        L3::V4 => address.0[0] != 0 && address.0[0] != 127 && address.0[0] < 224,
        L3::V6 => address.0[0] != 0xff && address != Addr([0; 16]),
    };
    if !one_host(packet.src) || !one_host(packet.dst) || packet.fragment.is_some_and(|f| f.offset != 0) {
        return false;
    }
    let Ok(transport) = packet.transport else { return false };
    let icmp_type = packet.bytes.get(transport.offset).copied();
    match (packet.l3num, transport.protonum, icmp_type) {
        (L3::V4, proto::ICMP, Some(kind)) => !icmp::is_error(kind) && kind <= icmp::LAST_KNOWN_TYPE,
        (L3::V6, proto::ICMPV6, Some(kind)) => kind >= icmpv6::FIRST_INFORMATIONAL_TYPE && kind != icmpv6::REDIRECT,
        (_, proto::ICMP | proto::ICMPV6, None) => false,
        _ => true,
    }
}

/// The IP header of an error to the source of `packet`, `payload` bytes long without it.
fn ip_header(packet: &Packet<'_>, from: Addr, payload: usize, identification: u16) -> Vec<u8> {
    let mut header = Vec::with_capacity(IPV6_ERROR);
    match packet.l3num {
        L3::V4 => {
            header.extend([0x45, packet.bytes[1] & TOS_KEPT | INTERNETWORK_CONTROL]);
            header.extend(((IPV4_HEADER + payload) as u16).to_be_bytes());
            header.extend(identification.to_be_bytes());
            header.extend([0, 0, TTL, proto::ICMP, 0, 0]);
            header.extend(&from.0[..4]);
            header.extend(&packet.src.0[..4]);
            let checksum = Sum::default().bytes(&header).checksum();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        L3::V6 => {
            header.extend([0x60, 0, 0, 0]);
            header.extend((payload as u16).to_be_bytes());
            header.extend([proto::ICMPV6, TTL]);
            header.extend(from.0);
            header.extend(packet.src.0);
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctwhy_core::direction::CtInfo;
    use ctwhy_core::hook::Engine;
    use ctwhy_core::time::Time;

    /// 10.0.1.2:40000 -> 192.0.2.80:53 with `payload` zeros, checksum 0, TTL 1, TOS 0x28.
    fn probe(payload: u16) -> Vec<u8> {
        let mut bytes = vec![0x45, 0x28];
        bytes.extend((28 + payload).to_be_bytes());
        bytes.extend([0x43, 0x21, 0x40, 0, 1, 17, 0, 0, 10, 0, 1, 2, 192, 0, 2, 80]);
        let checksum = Sum::default().bytes(&bytes).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend([0x9c, 0x40, 0, 53]);
        bytes.extend((8 + payload).to_be_bytes());
        bytes.resize(28 + usize::from(payload), 0);
        bytes
    }

    fn from() -> IpAddr {
        IpAddr::from([10, 0, 1, 1])
    }

    #[test]
    fn the_error_quotes_the_packet_and_conntrack_finds_its_flow() {
        for (complaint, icmp_type, mtu) in [
            (Complaint::TimeExceeded, 11, None),
            (Complaint::TooBig { mtu: 1200 }, 3, Some(1200)),
            (Complaint::PortUnreachable, 3, None),
        ] {
            let packet = probe(4);
            let error = complain(&packet, complaint, from(), 7).unwrap();
            assert_eq!(error[28..], packet);
            assert_eq!(error[20], icmp_type);
            assert_eq!(error[1], 0xc8, "TOS 0x28 with the precedence of an error");
            let view = Packet::parse(&error, error.len()).unwrap();
            assert_eq!(ctwhy_core::related::announced_mtu(&view), mtu);

            let mut engine = Engine::new(0);
            let mut first = packet.clone();
            let len = first.len();
            assert_eq!(engine.receive(&mut first, len, None, Time(0), &mut ()).ctinfo, Ok(CtInfo::New));
            let mut buffer = error.clone();
            let ruling = engine.receive(&mut buffer, error.len(), None, Time(0), &mut ());
            assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply));
        }
    }

    #[test]
    fn it_is_never_longer_than_the_rfc_allows() {
        assert_eq!(complain(&probe(1400), Complaint::TimeExceeded, from(), 0).unwrap().len(), 576);
    }

    #[test]
    fn errors_fragments_and_group_addresses_are_not_answered() {
        let error = complain(&probe(4), Complaint::TimeExceeded, from(), 0).unwrap();
        assert_eq!(complain(&error, Complaint::TimeExceeded, from(), 0), None);

        let changed = |at: usize, value: u8| {
            let mut bytes = probe(4);
            bytes[at] = value;
            bytes[10..12].copy_from_slice(&[0, 0]);
            let checksum = Sum::default().bytes(&bytes[..20]).checksum();
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            complain(&bytes, Complaint::TimeExceeded, from(), 0)
        };
        assert_eq!(changed(7, 1), None, "a later fragment");
        assert_eq!(changed(16, 224), None, "to a group");
        assert_eq!(changed(12, 0), None, "from nobody");
        assert!(changed(6, 0x20).is_some(), "a first fragment");
    }
}
