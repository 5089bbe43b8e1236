//! What a router that has no sockets says to packets for itself: it answers echo, and nobody listens on any port.

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV6_HEADER, Packet, be16, be32};
use ctwhy_core::tuple::{L3, proto};

use crate::answer::{Complaint, Own, is_one_host};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// A TCP header without options.
const TCP_HEADER: usize = 20;
/// An ICMP header, and a UDP header.
const SHORT_HEADER: usize = 8;
/// The two bits of the TOS that belong to congestion control (`INET_ECN_MASK`).
const ECN: u8 = 0x03;

/// Flags of a TCP header.
mod flag {
    pub(super) const FIN: u8 = 0x01;
    pub(super) const SYN: u8 = 0x02;
    pub(super) const RST: u8 = 0x04;
    pub(super) const ACK: u8 = 0x10;
}

/// What is said to a packet for this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An echo reply: the packet.
    Echo(Vec<u8>),
    /// A TCP reset: the packet.
    Reset(Vec<u8>),
    /// An ICMP error about it.
    Complaint(Complaint),
    /// Nothing, for the cause with this code.
    Nothing(&'static str),
}

/// What this host says to a packet that was delivered to it. `identification` is for the IPv4 header of an echo reply.
#[must_use]
pub fn reply(packet: &Packet<'_>, identification: u16) -> Reply {
    let Ok(transport) = packet.transport else { return Reply::Nothing("local.no_transport") };
    let l4 = packet.bytes.get(transport.offset..).unwrap_or(&[]);
    let group = !is_one_host(packet.l3num, packet.dst) || !is_one_host(packet.l3num, packet.src);
    let is_right = checksum_is_right(packet);
    match (packet.l3num, transport.protonum) {
        (L3::V4, proto::ICMP) | (L3::V6, proto::ICMPV6) if l4.len() < SHORT_HEADER => Reply::Nothing("local.short"),
        (L3::V4, proto::ICMP) | (L3::V6, proto::ICMPV6) if !is_right => Reply::Nothing("local.checksum"),
        (L3::V4, proto::ICMP) | (L3::V6, proto::ICMPV6) if group => Reply::Nothing("local.group"),
        (L3::V4, proto::ICMP) => match l4.first() {
            Some(&ECHO_REQUEST) => Reply::Echo(echo(packet, l4, ECHO_REPLY, identification)),
            _ => Reply::Nothing("local.icmp"),
        },
        (L3::V6, proto::ICMPV6) => match l4.first() {
            Some(&ECHO_REQUEST_V6) => Reply::Echo(echo(packet, l4, ECHO_REPLY_V6, identification)),
            _ => Reply::Nothing("local.icmp"),
        },
        (_, proto::UDP) if l4.len() < SHORT_HEADER => Reply::Nothing("local.short"),
        (_, proto::UDP) if !is_right => Reply::Nothing("local.checksum"),
        // Without a checksum IPv6 has no datagrams.
        (L3::V6, proto::UDP) if be16(l4, 6) == Some(0) => Reply::Nothing("local.checksum"),
        (_, proto::UDP) if group => Reply::Nothing("local.group"),
        (_, proto::UDP) => Reply::Complaint(Complaint::PortUnreachable),
        (_, proto::TCP) if group => Reply::Nothing("local.group"),
        (_, proto::TCP) => {
            let tos = traffic_class(packet) & !ECN;
            if l4.len() < TCP_HEADER {
                Reply::Nothing("local.short")
            } else if !is_right {
                Reply::Nothing("local.checksum")
            } else {
                reset(packet, tos).map_or(Reply::Nothing("local.reset"), Reply::Reset)
            }
        }
        _ if group => Reply::Nothing("local.group"),
        _ => Reply::Complaint(Complaint::UnknownProtocol { pointer: next_header_at(packet) }),
    }
}

/// `icmp_echo`, `icmpv6_echo_reply`: the same message from the other side.
fn echo(packet: &Packet<'_>, l4: &[u8], icmp_type: u8, identification: u16) -> Vec<u8> {
    let mut message = l4.to_vec();
    if let [kind, _, checksum @ ..] = &mut message[..] {
        *kind = icmp_type;
        checksum[..2].fill(0);
    }
    let protonum = if packet.l3num == L3::V4 { proto::ICMP } else { proto::ICMPV6 };
    let own = Own {
        l3num: packet.l3num,
        from: packet.dst,
        to: packet.src,
        protonum,
        tos: traffic_class(packet),
        identification,
        dont_fragment: false,
    };
    own.packet(message)
}

/// The reset that answers a TCP segment (RFC 9293 section 3.10.7.1; `tcp_v4_send_reset`, `nf_send_reset`). `None` for what
/// is none, or itself a reset.
#[must_use]
pub fn reset(packet: &Packet<'_>, tos: u8) -> Option<Vec<u8>> {
    let transport = packet.transport.ok().filter(|transport| transport.protonum == proto::TCP)?;
    let segment = packet.bytes.get(transport.offset..)?;
    let (from, to) = (segment.get(..2)?, segment.get(2..4)?);
    let (seq, ack_seq, flags) = (be32(segment, 4)?, be32(segment, 8)?, *segment.get(13)?);
    if segment.len() < TCP_HEADER || flags & flag::RST != 0 {
        return None;
    }
    let header = usize::from(segment[12] >> 4) * 4;
    let data = packet.len.saturating_sub(transport.offset + header) as u32;
    let controls = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
    let (seq, ack_seq, flags) = match flags & flag::ACK != 0 {
        true => (ack_seq, 0, flag::RST),
        false => (0, seq.wrapping_add(controls).wrapping_add(data), flag::RST | flag::ACK),
    };
    let mut message = Vec::with_capacity(TCP_HEADER);
    message.extend(to);
    message.extend(from);
    message.extend(seq.to_be_bytes());
    message.extend(ack_seq.to_be_bytes());
    message.extend([(TCP_HEADER as u8 / 4) << 4, flags]);
    message.resize(TCP_HEADER, 0);
    let (from, to) = (packet.dst, packet.src);
    let own = Own { l3num: packet.l3num, from, to, protonum: proto::TCP, tos, identification: 0, dont_fragment: true };
    Some(own.packet(message))
}

/// `nf_ip_checksum`, `nf_ip6_checksum`: is the transport checksum right? It is where the protocol has none over everything.
pub(crate) fn checksum_is_right(packet: &Packet<'_>) -> bool {
    const AH: u8 = 51;
    const ESP: u8 = 50;
    const DCCP: u8 = 33;
    if packet.checksum_trusted {
        return true;
    }
    let Ok(transport) = packet.transport else { return false };
    let message = packet.bytes.get(transport.offset..).unwrap_or(&[]);
    let pseudo = || {
        let (l3num, src, dst) = (packet.l3num, packet.src, packet.dst);
        Sum::default().pseudo_header(l3num, src, dst, transport.protonum, message.len())
    };
    let sum = match (packet.l3num, transport.protonum) {
        (_, proto::SCTP | proto::UDPLITE | proto::GRE | AH | ESP | DCCP) => return true,
        (_, proto::UDP) if be16(message, 6) == Some(0) => return true,
        (_, proto::TCP | proto::UDP) | (L3::V6, proto::ICMPV6) => pseudo(),
        _ => Sum::default(),
    };
    sum.bytes(message).fold() == 0xffff
}

/// TOS or traffic class.
fn traffic_class(packet: &Packet<'_>) -> u8 {
    match packet.l3num {
        L3::V4 => packet.bytes.get(1).copied().unwrap_or(0),
        L3::V6 => be16(packet.bytes, 0).map_or(0, |word| (word >> 4) as u8),
    }
}

/// Where an IPv6 packet names its transport protocol, in bytes from its start.
fn next_header_at(packet: &Packet<'_>) -> u32 {
    const IN_IP_HEADER: usize = 6;
    const FRAGMENT: u8 = 44;
    const AH: u8 = 51;
    let Ok(transport) = packet.transport else { return 0 };
    let (mut named_at, mut at) = (IN_IP_HEADER, IPV6_HEADER);
    while at < transport.offset
        && let (Some(kind), Some(length)) = (packet.bytes.get(named_at), packet.bytes.get(at + 1))
    {
        let length = match *kind {
            FRAGMENT => 8,
            AH => (usize::from(*length) + 2) * 4,
            _ => (usize::from(*length) + 1) * 8,
        };
        (named_at, at) = (at, at + length);
    }
    named_at as u32
}
