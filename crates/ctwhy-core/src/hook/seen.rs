//! What conntrack can say something about, and what has to be there of a packet.

use crate::packet::{Packet, PacketError};
use crate::tuple::{L3, proto};

use super::Unseen;

/// Packets that conntrack must not be asked about.
pub(crate) fn not_tracked(packet: &Packet<'_>) -> Option<Unseen> {
    // One that was to be gathered is not here, and those of IPv6 that are not to be are tracked as they are.
    if let Some(fragment) = packet.fragment
        && packet.l3num == L3::V4
    {
        return Some(Unseen::NotGathered(fragment));
    }
    if packet.is_cut() { cut_short(packet) } else { None }
}

#[cold]
fn cut_short(packet: &Packet<'_>) -> Option<Unseen> {
    let transport = packet.transport.ok()?;
    // A capture that was cut inside the header that decides says nothing.
    let have = packet.bytes.len();
    let need = transport.offset + decisive_bytes(packet, transport.protonum, transport.offset);
    (have < need).then_some(Unseen::Packet(PacketError::CutShort { need, have }))
}

/// How many bytes of a transport header its tracker reads.
fn decisive_bytes(packet: &Packet<'_>, protonum: u8, offset: usize) -> usize {
    use crate::track::{icmp, icmpv6, sctp};
    use crate::tuple::gre_version;
    match (packet.l3num, protonum) {
        (_, proto::UDP | proto::UDPLITE) => 8,
        (_, proto::SCTP) => {
            let bytes = packet.bytes.get(offset..).unwrap_or(&[]);
            sctp::chunk::decisive_bytes(bytes, packet.len.saturating_sub(offset))
        }
        // Version 1 has keys, up to its eighth byte; a header without either is tracked all the same.
        (_, proto::GRE) => {
            let bytes = packet.bytes.get(offset..).unwrap_or(&[]);
            let need = if gre_version(bytes) == Some(1) { 8 } else { 4 };
            need.min(packet.len.saturating_sub(offset))
        }
        (_, proto::TCP) => {
            let data_offset = packet.bytes.get(offset + 12).map_or(5, |byte| byte >> 4);
            usize::from(data_offset.max(5)) * 4
        }
        // An error is decided by the headers that it quotes: with 48 and 68 bytes of quote nothing is missing.
        (L3::V4, proto::ICMP) if packet.bytes.get(offset).is_some_and(|t| icmp::is_error(*t)) => {
            (icmp::HEADER + 28).min(packet.len.saturating_sub(offset))
        }
        (L3::V6, proto::ICMPV6) if packet.bytes.get(offset).is_some_and(|t| *t < icmpv6::FIRST_INFORMATIONAL_TYPE) => {
            (icmp::HEADER + 48).min(packet.len.saturating_sub(offset))
        }
        (_, proto::ICMP | proto::ICMPV6) => icmp::HEADER,
        _ => 0,
    }
}

/// How much of a received packet must lie in one piece before NAT: what routing looks at (`tcp_v4_early_demux`,
/// `tcp_v6_early_demux`), and the SCTP header of one that is tracked where its checksum is verified (`sctp_error`). For a
/// header that is not all there nothing is moved.
pub(super) fn looked_at_early(packet: &Packet<'_>, verifies_checksum: bool) -> usize {
    const TCP_HEADER: usize = 20;
    const SCTP_HEADER: usize = 12;
    let Ok(transport) = packet.transport else { return 0 };
    // In IPv6 only just behind the IP header.
    let direct = packet.l3num == L3::V4 || transport.offset == crate::packet::IPV6_HEADER;
    let end = match transport.protonum {
        proto::TCP if direct => transport.offset + TCP_HEADER,
        proto::SCTP if verifies_checksum => transport.offset + SCTP_HEADER,
        _ => 0,
    };
    if end <= packet.len { end } else { 0 }
}
