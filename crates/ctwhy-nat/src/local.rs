//! What a router that has no sockets says to packets for itself: it answers echo, and nobody listens on any port.

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV6_HEADER, Packet, be16, be32};
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{L3, proto};

use crate::answer::{Complaint, Own, TCP_CHECKSUM, is_one_host};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const TIMESTAMP_REQUEST: u8 = 13;
const TIMESTAMP_REPLY: u8 = 14;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// A TCP header without options.
const TCP_HEADER: usize = 20;
/// An ICMP header, and a UDP header.
const SHORT_HEADER: usize = 8;
/// The authentication header.
const AH: u8 = 51;
/// What multicast routing speaks.
const IGMP: u8 = 2;
const PIM: u8 = 103;
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

/// What this host says to a packet that was delivered to it. `identification` is for the IPv4 header of an echo reply;
/// `now`, since the epoch, for a timestamp reply.
#[must_use]
pub fn reply(packet: &Packet<'_>, identification: u16, now: Time) -> Reply {
    // Conntrack looks behind headers that only who they are for may read, and there may be nothing.
    if let Some(reply) = extension_headers(packet) {
        return reply;
    }
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
            Some(&TIMESTAMP_REQUEST) => match timestamp(l4, now) {
                Some(message) => Reply::Echo(echo(packet, &message, TIMESTAMP_REPLY, identification)),
                None => Reply::Nothing("local.short"),
            },
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
        (_, proto::UDPLITE) if !udplite_is_right(packet, l4) => Reply::Nothing("local.checksum"),
        (_, proto::UDPLITE) if group => Reply::Nothing("local.group"),
        (_, proto::UDPLITE) => Reply::Complaint(Complaint::PortUnreachable),
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
        // Multicast routing takes them, whether there is any or not.
        (L3::V4, IGMP) | (_, PIM) => Reply::Nothing("local.routing"),
        (_, protonum) => {
            let pointer = next_header_at(packet, protonum).unwrap_or(0);
            Reply::Complaint(Complaint::UnknownProtocol { pointer })
        }
    }
}

/// `skb_checksum_help`: in IPv6 the stack leaves the checksum of a reset to the device, which never writes 0, and NAT comes
/// before. What REJECT sends has another sum, and what the stack sends over IPv4, too.
pub(crate) fn sum_by_device(reset: &mut [u8]) {
    const VERSION_6: u8 = 0x60;
    let at = IPV6_HEADER + TCP_CHECKSUM;
    if reset.first().is_some_and(|first| first & 0xf0 == VERSION_6)
        && let Some(checksum) = reset.get_mut(at..at + 2)
        && checksum == [0, 0]
    {
        checksum.fill(0xff);
    }
}

/// `icmp_timestamp`: the milliseconds since midnight at which the question came and the answer left, behind those of the
/// question. Whatever its code was, that of the answer is 0.
fn timestamp(l4: &[u8], now: Time) -> Option<Vec<u8>> {
    const MILLISECOND: u64 = 1_000_000;
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let now = ((now.0 / MILLISECOND % DAY) as u32).to_be_bytes();
    let mut message = [l4.get(..SHORT_HEADER + 4)?, &now, &now].concat();
    message[1] = 0;
    Some(message)
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

/// `udplite_checksum_init`: is the sum right over as much as the datagram says (RFC 3828 section 3.1)?
fn udplite_is_right(packet: &Packet<'_>, datagram: &[u8]) -> bool {
    let (Some(coverage), Some(checksum)) = (be16(datagram, 4), be16(datagram, 6)) else { return false };
    let coverage = if coverage == 0 { datagram.len() } else { usize::from(coverage) };
    let Some(covered) = datagram.get(..coverage).filter(|covered| covered.len() >= SHORT_HEADER) else { return false };
    let (l3num, src, dst) = (packet.l3num, packet.src, packet.dst);
    let pseudo = Sum::default().pseudo_header(l3num, src, dst, proto::UDPLITE, datagram.len());
    checksum != 0 && (packet.checksum_trusted || pseudo.bytes(covered).fold() == 0xffff)
}

/// An extension header of IPv6: what it is, where that is named, where it is, and its length, in bytes.
struct Extension {
    kind: u8,
    named_at: usize,
    at: usize,
    length: usize,
}

/// The extension headers of a packet, and behind them what names the transport protocol, if there is one, with length 0.
fn extensions<'a>(packet: &'a Packet<'_>) -> impl Iterator<Item = Extension> + 'a {
    const IN_IP_HEADER: usize = 6;
    const FRAGMENT: u8 = 44;
    /// `ipv6_ext_hdr`, but for the one that says that nothing follows.
    const HEADERS: [u8; 5] = [0, 43, FRAGMENT, AH, 60];
    let end = match packet.transport {
        _ if packet.l3num == L3::V4 => 0,
        Ok(transport) => transport.offset,
        Err(_) => packet.bytes.len(),
    };
    let mut next = Some((IN_IP_HEADER, IPV6_HEADER)).filter(|(_, at)| *at <= end);
    std::iter::from_fn(move || {
        let (named_at, at) = next.take()?;
        let kind = *packet.bytes.get(named_at)?;
        if at >= end || !HEADERS.contains(&kind) {
            return Some(Extension { kind, named_at, at, length: 0 });
        }
        let length = usize::from(*packet.bytes.get(at + 1)?);
        let length = match kind {
            FRAGMENT => 8,
            AH => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = Some((at, at + length));
        Some(Extension { kind, named_at, at, length })
    })
}

/// What a host says to extension headers before it comes to the transport protocol.
fn extension_headers(packet: &Packet<'_>) -> Option<Reply> {
    const DESTINATION: u8 = 60;
    extensions(packet).filter(|header| header.length > 0).find_map(|header| match header.kind {
        // A host without a key goes no further.
        AH => Some(Reply::Complaint(Complaint::UnknownProtocol { pointer: header.named_at as u32 })),
        DESTINATION => options(packet.bytes.get(header.at..header.at + header.length)?, header.at),
        _ => None,
    })
}

/// `ip6_parse_tlv` for destination options, of which this host knows none: what is said to them if they are not for
/// passing by.
fn options(header: &[u8], starts_at: usize) -> Option<Reply> {
    const PAD1: u8 = 0;
    const PADN: u8 = 1;
    /// Padding aligns to eight bytes, so there is never more of it.
    const MOST_PADDING: usize = 7;
    const REFUSED: Reply = Reply::Nothing("local.options");
    let (mut at, mut padding) = (2, 0);
    while let Some(&kind) = header.get(at) {
        let length =
            if kind == PAD1 { 1 } else { header.get(at + 1).map_or(usize::MAX, |byte| usize::from(*byte) + 2) };
        let Some(option) = header.get(at..at.saturating_add(length)) else { return Some(REFUSED) };
        match kind {
            PAD1 | PADN => {
                padding += length;
                if padding > MOST_PADDING || option.iter().skip(2).any(|byte| *byte != 0) {
                    return Some(REFUSED);
                }
            }
            _ => {
                padding = 0;
                match kind >> 6 {
                    0 => {}
                    1 => return Some(REFUSED),
                    _ => {
                        let pointer = (starts_at + at) as u32;
                        return Some(Reply::Complaint(Complaint::UnknownOption { pointer }));
                    }
                }
            }
        }
        at += length;
    }
    None
}

/// Where an IPv6 packet names a protocol, in bytes from its start; `None` where it does not.
fn next_header_at(packet: &Packet<'_>, protocol: u8) -> Option<u32> {
    extensions(packet).find(|header| header.kind == protocol).map(|header| header.named_at as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reply_has_code_0_whatever_was_asked() {
        let request = [&[TIMESTAMP_REQUEST, 4, 0, 0, 0x12, 0x34, 0, 1][..], &[7; 12]].concat();
        let message = timestamp(&request, Time(1_000_000)).unwrap_or_default();
        assert_eq!(message[1..4], [0; 3]);
        assert_eq!(message[4..12], request[4..12]);
        assert_eq!(message[12..], [0, 0, 0, 1, 0, 0, 0, 1]);
    }
}
