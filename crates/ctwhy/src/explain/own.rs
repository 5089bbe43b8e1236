//! Packets that the capturing host sent itself. They come to conntrack at LOCAL_OUT, and an ICMP error carries the entry
//! of the packet that it complains about (ICMP-LOC-01).

use std::collections::VecDeque;

use ctwhy_core::conntrack::Tracked;
use ctwhy_core::hook::{DropCause, Engine, Hook, Ruling, Unseen, Verdict};
use ctwhy_core::network::Destination;
use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER, Packet, PacketError};
use ctwhy_core::time::Time;
use ctwhy_core::trace::Sink;
use ctwhy_core::track::{icmp, icmpv6};
use ctwhy_core::tuple::{Addr, L3, proto};

/// Packets that were dropped with a complaint that may still come.
const REMEMBERED: usize = 16;
/// The longest TCP header.
const LONGEST_HEADER: usize = 60;
/// The UDP header.
const UDP_HEADER: usize = 8;
/// The most bytes of a dropped packet that are compared with a quote: what RFC 792 makes every error quote.
const COMPARED: usize = 8;

/// What is remembered of packets that this host will complain about.
#[derive(Default)]
pub(super) struct Complaints {
    dropped: VecDeque<(Vec<u8>, Tracked)>,
}

impl Complaints {
    /// Takes note of a packet, as it arrived, that was dropped for its TTL, its length, for want of a route, or by a REJECT.
    pub(super) fn note(&mut self, bytes: &[u8], ruling: &Ruling) {
        let (Some(tracked), Verdict::Drop(cause)) = (ruling.tracked(), ruling.verdict) else { return };
        let told = match cause {
            DropCause::TtlExceeded | DropCause::NoRoute | DropCause::SourceScope | DropCause::TooBig { .. } => true,
            DropCause::Rule { reject, .. } => reject.is_some(),
            _ => false,
        };
        if !told {
            return;
        }
        let kept = bytes.get(..bytes.len().min(IPV6_HEADER + LONGEST_HEADER)).unwrap_or_default();
        let mut slot = if self.dropped.len() == REMEMBERED { self.dropped.pop_front() } else { None };
        let mut bytes = slot.take().map_or_else(Vec::new, |(bytes, _)| bytes);
        bytes.clear();
        bytes.extend_from_slice(kept);
        self.dropped.push_back((bytes, tracked));
    }

    /// The packet that an error of this host complains about. It is taken, because it is complained about once.
    fn trigger(&mut self, error: &Packet<'_>) -> Option<Tracked> {
        let transport = error.transport.ok()?;
        let icmp_type = *error.bytes.get(transport.offset)?;
        let (is_error, quoted_header) = match (error.l3num, transport.protonum) {
            (L3::V4, proto::ICMP) => (icmp::is_error(icmp_type), IPV4_HEADER),
            (L3::V6, proto::ICMPV6) => (icmp_type < icmpv6::FIRST_INFORMATIONAL_TYPE, IPV6_HEADER),
            _ => (false, 0),
        };
        if !is_error {
            return None;
        }
        let quote = error.bytes.get(transport.offset + icmp::HEADER..)?;
        let at = self.dropped.iter().position(|(bytes, _)| quotes(quote, bytes, quoted_header))?;
        self.dropped.remove(at).map(|(_, tracked)| tracked)
    }
}

/// Is `quote` the beginning of the packet? NAT may have changed its destination and TTL since it arrived, and with them
/// the checksum of its header.
fn quotes(quote: &[u8], packet: &[u8], header: usize) -> bool {
    let part = |from: usize, to: usize| quote.get(from..to).is_some_and(|quoted| packet.get(from..to) == Some(quoted));
    let (fixed, source) = match header {
        IPV4_HEADER => (0..8, 12..16),
        _ => (0..7, 8..24),
    };
    part(fixed.start, fixed.end) && part(source.start, source.end) && part(header, header + COMPARED)
}

/// Does this host have the source address of the packet?
pub(super) fn is_from_here(engine: &Engine, packet: &Packet<'_>) -> bool {
    let network = &engine.network;
    !network.is_unknown()
        && !is_multicast(packet.l3num, packet.src)
        && network.route(packet.l3num, packet.src) == Destination::Local
}

fn is_multicast(l3num: L3, address: Addr) -> bool {
    let ip = address.ip(l3num);
    ip.is_multicast() || ip == std::net::IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}

/// LOCAL_OUT for a packet of which `buffer` holds what was captured.
pub(super) fn send<S: Sink>(
    engine: &mut Engine,
    complaints: &mut Complaints,
    buffer: &mut Vec<u8>,
    wire_len: usize,
    now: Time,
    sink: &mut S,
) -> Ruling {
    let have = buffer.len();
    let (trigger, len, need) = match Packet::parse(buffer, wire_len) {
        Ok(packet) => {
            let need = match packet.transport {
                // NAT sums up the whole message.
                Ok(transport) if matches!(transport.protonum, proto::ICMP | proto::ICMPV6) => packet.len,
                Ok(transport) => (transport.offset + header(transport.protonum)).min(packet.len),
                Err(_) => 0,
            };
            (complaints.trigger(&packet), packet.len, need)
        }
        Err(error) => return Ruling::unseen(Hook::LocalOut, Unseen::Packet(error)),
    };
    if have < need {
        return Ruling::unseen(Hook::LocalOut, Unseen::Packet(PacketError::CutShort { need, have }));
    }
    // No checksum is verified at LOCAL_OUT, and nobody looks at what was cut off.
    buffer.resize(len, 0);
    engine.send(buffer, trigger.as_ref(), now, sink)
}

/// How many bytes of a transport header may decide.
const fn header(protonum: u8) -> usize {
    match protonum {
        proto::TCP => LONGEST_HEADER,
        proto::UDP => UDP_HEADER,
        _ => 0,
    }
}
