//! ICMP errors that a router sends itself (RFC 1812 section 4.3, RFC 4443; `icmp_send`, `icmp6_send`).

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER, Packet};
use ctwhy_core::rules::target::Reject;
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
/// Where the checksum is in a TCP header.
pub(crate) const TCP_CHECKSUM: usize = 16;
/// Where the checksum is in an ICMP header.
const ICMP_CHECKSUM: usize = 2;

/// Types of ICMP that are no errors but are not answered with one either: those without a meaning, and what routers tell
/// their neighbours (`icmp_pointers`).
const UNANSWERED: [u8; 6] = [1, 2, 6, 7, 9, 10];

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// TTL or hop limit used up.
    TimeExceeded,
    /// Not all fragments came in time.
    ReassemblyTimeExceeded,
    /// Longer than the next link takes, and not to be cut: the MTU of that link in bytes.
    TooBig {
        /// Bytes.
        mtu: u32,
    },
    /// No route leads there.
    NoRoute,
    /// The host does not answer on its link.
    HostUnreachable,
    /// Nobody knows what stands behind the IP header; in IPv6 at which byte that is said.
    UnknownProtocol {
        /// Where the next header is named, from the start of the packet.
        pointer: u32,
    },
    /// An option of IPv6 that says that who does not know it has to complain (RFC 8200 section 4.2): at which byte. IPv4 says
    /// [`Complaint::UnknownProtocol`].
    UnknownOption {
        /// Where the option is, from the start of the packet.
        pointer: u32,
    },
    /// Nobody listens on the port.
    PortUnreachable,
    /// The network is forbidden. Only IPv4 has that; IPv6 says [`Complaint::Prohibited`].
    NetProhibited,
    /// The host is forbidden. As [`Complaint::NetProhibited`].
    HostProhibited,
    /// A filter forbids it.
    Prohibited,
    /// The source means nothing behind its own link. Only IPv6 has that; IPv4 says [`Complaint::HostUnreachable`].
    BeyondScope,
    /// A rule for sources forbids it. Only IPv6 has that; IPv4 says [`Complaint::Prohibited`].
    PolicyFailed,
    /// The route there rejects. As [`Complaint::PolicyFailed`].
    RouteRejected,
}

impl Complaint {
    /// What a REJECT rule has its sender told; `None` for a reset, which is no complaint.
    #[must_use]
    pub fn rejected(reject: Reject) -> Option<Complaint> {
        Some(match reject.name() {
            "icmp-net-unreachable" | "icmp6-no-route" => Complaint::NoRoute,
            "icmp-host-unreachable" | "icmp6-addr-unreachable" => Complaint::HostUnreachable,
            "icmp-proto-unreachable" => Complaint::UnknownProtocol { pointer: 0 },
            "icmp-port-unreachable" | "icmp6-port-unreachable" => Complaint::PortUnreachable,
            "icmp-net-prohibited" => Complaint::NetProhibited,
            "icmp-host-prohibited" => Complaint::HostProhibited,
            "icmp-admin-prohibited" | "icmp6-adm-prohibited" => Complaint::Prohibited,
            "icmp6-policy-fail" => Complaint::PolicyFailed,
            "icmp6-reject-route" => Complaint::RouteRejected,
            _ => return None,
        })
    }

    /// What the error is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Complaint::TimeExceeded => "time exceeded",
            Complaint::ReassemblyTimeExceeded => "reassembly time exceeded",
            Complaint::TooBig { .. } => "too big",
            Complaint::NoRoute => "no route",
            Complaint::HostUnreachable => "host unreachable",
            Complaint::UnknownProtocol { .. } => "unknown protocol",
            Complaint::UnknownOption { .. } => "unknown option",
            Complaint::PortUnreachable => "port unreachable",
            Complaint::NetProhibited => "net prohibited",
            Complaint::HostProhibited => "host prohibited",
            Complaint::Prohibited => "prohibited",
            Complaint::BeyondScope => "beyond scope",
            Complaint::PolicyFailed => "policy failed",
            Complaint::RouteRejected => "route rejected",
        }
    }

    /// Type and code.
    #[must_use]
    pub const fn kind(self, l3num: L3) -> (u8, u8) {
        match (self, l3num) {
            (Complaint::TimeExceeded, L3::V4) => (11, 0),
            (Complaint::TimeExceeded, L3::V6) => (3, 0),
            (Complaint::ReassemblyTimeExceeded, L3::V4) => (11, 1),
            (Complaint::ReassemblyTimeExceeded, L3::V6) => (3, 1),
            (Complaint::TooBig { .. }, L3::V4) => (3, 4),
            (Complaint::TooBig { .. }, L3::V6) => (2, 0),
            (Complaint::NoRoute, L3::V4) => (3, 0),
            (Complaint::NoRoute, L3::V6) => (1, 0),
            (Complaint::HostUnreachable | Complaint::BeyondScope, L3::V4) => (3, 1),
            (Complaint::HostUnreachable, L3::V6) => (1, 3),
            (Complaint::BeyondScope, L3::V6) => (1, 2),
            (Complaint::UnknownProtocol { .. } | Complaint::UnknownOption { .. }, L3::V4) => (3, 2),
            (Complaint::UnknownOption { .. }, L3::V6) => (4, 2),
            (Complaint::UnknownProtocol { .. }, L3::V6) => (4, 1),
            (Complaint::PortUnreachable, L3::V4) => (3, 3),
            (Complaint::PortUnreachable, L3::V6) => (1, 4),
            (Complaint::NetProhibited, L3::V4) => (3, 9),
            (Complaint::HostProhibited, L3::V4) => (3, 10),
            (Complaint::Prohibited | Complaint::PolicyFailed | Complaint::RouteRejected, L3::V4) => (3, 13),
            (Complaint::NetProhibited | Complaint::HostProhibited | Complaint::Prohibited, L3::V6) => (1, 1),
            (Complaint::PolicyFailed, L3::V6) => (1, 5),
            (Complaint::RouteRejected, L3::V6) => (1, 6),
        }
    }

    /// The second word of the header.
    const fn word(self, l3num: L3) -> u32 {
        match (self, l3num) {
            // RFC 1191: the MTU is the lower half of the word.
            (Complaint::TooBig { mtu }, L3::V4) => mtu & 0xffff,
            (Complaint::TooBig { mtu }, L3::V6) => mtu,
            (Complaint::UnknownProtocol { pointer } | Complaint::UnknownOption { pointer }, L3::V6) => pointer,
            _ => 0,
        }
    }
}

/// The error that `from` sends about `packet`, with `identification` in its IPv4 header.
///
/// `None` where an error must not be sent; see [`may_be_answered`].
#[must_use]
pub fn complain(packet: &Packet<'_>, complaint: Complaint, from: Addr, identification: u16) -> Option<Vec<u8>> {
    if !may_be_answered(packet) {
        return None;
    }
    let l3num = packet.l3num;
    let (icmp_type, code) = complaint.kind(l3num);
    let (header, limit) = match l3num {
        L3::V4 => (IPV4_HEADER, IPV4_ERROR),
        L3::V6 => (IPV6_HEADER, IPV6_ERROR),
    };
    let quote = &packet.bytes[..packet.bytes.len().min(limit - header - icmp::HEADER)];
    let mut message = vec![icmp_type, code, 0, 0];
    message.extend(complaint.word(l3num).to_be_bytes());
    message.extend(quote);
    let protonum = match l3num {
        L3::V4 => proto::ICMP,
        L3::V6 => proto::ICMPV6,
    };
    // The traffic class of an IPv6 error is 0.
    let tos = if l3num == L3::V4 { packet.bytes[1] & TOS_KEPT | INTERNETWORK_CONTROL } else { 0 };
    Some(Own { l3num, from, to: packet.src, protonum, tos, identification, dont_fragment: false }.packet(message))
}

/// May somebody be told what is wrong with the packet? Not about an error, a later fragment, or a packet from or to an
/// address that is not one host's (RFC 1122 section 3.2.2, RFC 4443 section 2.4e).
#[must_use]
pub fn may_be_answered(packet: &Packet<'_>) -> bool {
    let whole = packet.fragment.is_none_or(|fragment| fragment.offset == 0);
    if !is_one_host(packet.l3num, packet.src) || !is_one_host(packet.l3num, packet.dst) || !whole {
        return false;
    }
    let Ok(transport) = packet.transport else { return packet.l3num == L3::V6 };
    let icmp_type = packet.bytes.get(transport.offset).copied();
    match (packet.l3num, transport.protonum, icmp_type) {
        (L3::V4, proto::ICMP, Some(kind)) => {
            !icmp::is_error(kind) && !UNANSWERED.contains(&kind) && kind <= icmp::LAST_KNOWN_TYPE
        }
        (L3::V6, proto::ICMPV6, Some(kind)) => kind >= icmpv6::FIRST_INFORMATIONAL_TYPE && kind != icmpv6::REDIRECT,
        (_, proto::ICMP | proto::ICMPV6, None) => false,
        _ => true,
    }
}

/// Is it the address of one host, and not of a group, of nobody or of whoever reads it?
pub(crate) fn is_one_host(l3num: L3, address: Addr) -> bool {
    match l3num {
        L3::V4 => address.0[0] != 0 && address.0[0] != 127 && address.0[0] < 224,
        L3::V6 => address.0[0] != 0xff && address != Addr([0; 16]),
    }
}

/// The IP header of a packet that this host makes.
pub(crate) struct Own {
    pub(crate) l3num: L3,
    pub(crate) from: Addr,
    pub(crate) to: Addr,
    pub(crate) protonum: u8,
    /// TOS or traffic class.
    pub(crate) tos: u8,
    /// Of the IPv4 header.
    pub(crate) identification: u16,
    /// Of the IPv4 header.
    pub(crate) dont_fragment: bool,
}

impl Own {
    /// The packet with this message of TCP or ICMP, whose checksum field is zero.
    pub(crate) fn packet(&self, mut message: Vec<u8>) -> Vec<u8> {
        let pseudo = match (self.l3num, self.protonum) {
            (L3::V4, proto::ICMP) => Sum::default(),
            _ => Sum::default().pseudo_header(self.l3num, self.from, self.to, self.protonum, message.len()),
        };
        let checksum = pseudo.bytes(&message).checksum();
        let at = if self.protonum == proto::TCP { TCP_CHECKSUM } else { ICMP_CHECKSUM };
        if let Some(field) = message.get_mut(at..at + 2) {
            field.copy_from_slice(&checksum.to_be_bytes());
        }
        let mut packet = self.ip_header(message.len());
        packet.extend(message);
        packet
    }

    /// For `payload` bytes behind it.
    fn ip_header(&self, payload: usize) -> Vec<u8> {
        let mut header = Vec::with_capacity(IPV6_HEADER + payload);
        match self.l3num {
            L3::V4 => {
                let place: u16 = if self.dont_fragment { 0x4000 } else { 0 };
                header.extend([0x45, self.tos]);
                header.extend(((IPV4_HEADER + payload) as u16).to_be_bytes());
                header.extend(self.identification.to_be_bytes());
                header.extend(place.to_be_bytes());
                header.extend([TTL, self.protonum, 0, 0]);
                header.extend(&self.from.0[..4]);
                header.extend(&self.to.0[..4]);
                let checksum = Sum::default().bytes(&header).checksum();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            L3::V6 => {
                header.extend((0x6000_0000 | u32::from(self.tos) << 20).to_be_bytes());
                header.extend((payload as u16).to_be_bytes());
                header.extend([self.protonum, TTL]);
                header.extend(self.from.0);
                header.extend(self.to.0);
            }
        }
        header
    }
}

/// An IPv6 packet without extension headers in fragments that are no longer than `mtu` bytes (RFC 8200 section 4.5).
pub(crate) fn fragments(packet: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    const FRAGMENT_HEADER: usize = 8;
    const NEXT_FRAGMENT: u8 = 44;
    let (header, payload) = packet.split_at(packet.len().min(IPV6_HEADER));
    let most = mtu.saturating_sub(IPV6_HEADER + FRAGMENT_HEADER).max(8) & !7;
    let last = payload.len().div_ceil(most).saturating_sub(1);
    let cut = |(index, data): (usize, &[u8])| {
        let mut fragment = Vec::with_capacity(IPV6_HEADER + FRAGMENT_HEADER + data.len());
        fragment.extend_from_slice(header);
        let next = fragment.get_mut(6).map_or(0, |next| std::mem::replace(next, NEXT_FRAGMENT));
        if let Some(length) = fragment.get_mut(4..6) {
            length.copy_from_slice(&((FRAGMENT_HEADER + data.len()) as u16).to_be_bytes());
        }
        let place = (index * most) as u16 | u16::from(index < last);
        fragment.extend([next, 0]);
        fragment.extend(place.to_be_bytes());
        fragment.extend(id.to_be_bytes());
        fragment.extend_from_slice(data);
        fragment
    };
    payload.chunks(most).enumerate().map(cut).collect()
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

    /// What 10.0.1.1 says about it.
    fn complain(packet: &[u8], complaint: Complaint) -> Option<Vec<u8>> {
        let packet = Packet::parse(packet, packet.len()).unwrap();
        super::complain(&packet, complaint, std::net::IpAddr::from([10, 0, 1, 1]).into(), 7)
    }

    #[test]
    fn the_error_quotes_the_packet_and_conntrack_finds_its_flow() {
        for (complaint, icmp_type, mtu) in [
            (Complaint::TimeExceeded, 11, None),
            (Complaint::TooBig { mtu: 1200 }, 3, Some(1200)),
            (Complaint::PortUnreachable, 3, None),
        ] {
            let packet = probe(4);
            let error = complain(&packet, complaint).unwrap();
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
        assert_eq!(complain(&probe(1400), Complaint::TimeExceeded).unwrap().len(), 576);
    }

    #[test]
    fn errors_fragments_and_group_addresses_are_not_answered() {
        let error = complain(&probe(4), Complaint::TimeExceeded).unwrap();
        assert_eq!(complain(&error, Complaint::TimeExceeded), None);

        let changed = |at: usize, value: u8| {
            let mut bytes = probe(4);
            bytes[at] = value;
            bytes[10..12].copy_from_slice(&[0, 0]);
            let checksum = Sum::default().bytes(&bytes[..20]).checksum();
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            complain(&bytes, Complaint::TimeExceeded)
        };
        assert_eq!(changed(7, 1), None, "a later fragment");
        assert_eq!(changed(16, 224), None, "to a group");
        assert_eq!(changed(12, 0), None, "from nobody");
        assert!(changed(6, 0x20).is_some(), "a first fragment");
    }
}
