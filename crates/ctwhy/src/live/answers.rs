//! Which packet this host answers: its errors and resets carry the entry of the packet that caused them (ICMP-LOC-01),
//! and in the queue they are seen behind it.

use std::collections::VecDeque;

use ctwhy_core::conntrack::{Attached, Tracked};
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::packet::{Packet, Quoted};
use ctwhy_core::status::Status;
use ctwhy_core::track::{icmp, icmpv6};
use ctwhy_core::tuple::{L3, Tuple, extract, proto};

/// How many packets are remembered. An answer is in the queue before the next verdict, so a few would do.
const REMEMBERED: usize = 256;

/// A packet that may be answered.
#[derive(Clone, Debug)]
struct Recent {
    bytes: Vec<u8>,
    tracked: Tracked,
    /// Something on the way dropped it, and may have said so to its sender. Else it was forwarded, and only a redirect
    /// answers it with its entry.
    vanished: bool,
}

/// The packets that were let go last.
#[derive(Debug, Default)]
pub(super) struct Answers {
    recent: VecDeque<Recent>,
}

impl Answers {
    /// A packet was let go; `bytes` as it arrived.
    pub(super) fn remember(&mut self, bytes: &[u8], tracked: Tracked, vanished: bool) {
        if matches!(tracked.attached, Attached::None | Attached::Untracked) {
            return;
        }
        let oldest = if self.recent.len() < REMEMBERED { None } else { self.recent.pop_front() };
        let mut kept = oldest.map_or_else(Vec::new, |recent| recent.bytes);
        kept.clear();
        // What tells packets apart is in the first headers.
        kept.extend_from_slice(bytes.get(..128).unwrap_or(bytes));
        self.recent.push_back(Recent { bytes: kept, tracked, vanished });
    }

    /// The packet that a packet of this host answers, as far as its entry goes with the answer.
    pub(super) fn trigger(&mut self, answer: &Packet<'_>) -> Option<Tracked> {
        let transport = answer.transport.ok()?;
        let l4 = answer.bytes.get(transport.offset..)?;
        let icmp_type = *l4.first()?;
        match (answer.l3num, transport.protonum) {
            (L3::V4, proto::ICMP) if icmp::is_error(icmp_type) => {
                self.quoted(answer, transport.offset + icmp::HEADER, icmp_type == icmp::REDIRECT)
            }
            (L3::V6, proto::ICMPV6) if icmp_type < icmpv6::FIRST_INFORMATIONAL_TYPE => {
                self.quoted(answer, transport.offset + icmp::HEADER, false)
            }
            (_, proto::TCP) if l4.get(13).is_some_and(|flags| flags & 0x04 != 0) => self.reset(answer, l4),
            _ => None,
        }
    }

    fn quoted(&mut self, error: &Packet<'_>, offset: usize, redirect: bool) -> Option<Tracked> {
        let quoted = Quoted::parse(error, offset).ok()?;
        let is_it =
            |recent: &Recent| recent.vanished != redirect && same_packet(&recent.bytes, quoted.bytes, error.l3num);
        let at = self.recent.iter().rposition(is_it)?;
        let mut tracked = self.recent.get(at)?.tracked.clone();
        // A redirect does not end its packet: others may answer it, too.
        if !redirect {
            self.recent.remove(at);
        }
        learn_destination(&mut tracked, &quoted, error.l3num);
        Some(tracked)
    }

    /// A reset by a firewall: the vanished segment turned round.
    fn reset(&mut self, answer: &Packet<'_>, l4: &[u8]) -> Option<Tracked> {
        let reset = extract(answer.l3num, answer.src, answer.dst, proto::TCP, l4).ok()?.invert()?;
        let at = self.recent.iter().rposition(|recent| {
            recent.vanished
                && tuple_of(&recent.bytes).is_some_and(|tuple| {
                    tuple.src == reset.src && tuple.src_u == reset.src_u && tuple.protonum == proto::TCP
                })
                && translated_destination(&recent.tracked).is_none_or(|to| to == (reset.dst, reset.dst_u))
        })?;
        self.recent.remove(at).map(|recent| recent.tracked)
    }
}

/// Where packets like this one go once their destination is translated, if that is known.
fn translated_destination(tracked: &Tracked) -> Option<(ctwhy_core::tuple::Addr, u16)> {
    let Attached::Unconfirmed(own) = &tracked.attached else { return None };
    let bound = own.flow.status.intersects(Status::NAT_DONE_MASK);
    let leaves = own.flow.tuple(tracked.ctinfo.direction()?.opposite()).invert()?;
    bound.then_some((leaves.dst, leaves.dst_u))
}

fn tuple_of(bytes: &[u8]) -> Option<Tuple> {
    let packet = Packet::parse(bytes, usize::from(u16::MAX)).ok()?;
    let transport = packet.transport.ok()?;
    extract(packet.l3num, packet.src, packet.dst, transport.protonum, bytes.get(transport.offset..)?).ok()
}

/// Is `quoted` the beginning of the packet that began with `arrived`? Its destination may have been translated in between
/// and its TTL decremented, with the checksums of both; what else tells packets of one sender apart is unchanged.
fn same_packet(arrived: &[u8], quoted: &[u8], l3num: L3) -> bool {
    let ranges: &[std::ops::Range<usize>] = match l3num {
        // Version to fragment offset; protocol; source.
        L3::V4 => &[0..1, 2..8, 9..10, 12..16],
        // Flow label, length, next header; source.
        L3::V6 => &[0..7, 8..24],
    };
    let same = |range: &std::ops::Range<usize>| {
        let (one, other) = (arrived.get(range.clone()), quoted.get(range.clone()));
        one.is_some() && one == other
    };
    if !ranges.iter().all(same) {
        return false;
    }
    let Ok(transport) = ctwhy_core::packet::locate_transport(arrived, arrived.len(), l3num) else { return true };
    let at = transport.offset;
    match transport.protonum {
        // Source port; UDP: the length; TCP: the sequence numbers.
        proto::UDP => same(&(at..at + 2)) && same(&(at + 4..at + 6)),
        proto::TCP => same(&(at..at + 2)) && same(&(at + 4..at + 8)),
        // Type and code, sequence.
        proto::ICMP | proto::ICMPV6 => same(&(at..at + 2)) && same(&(at + 6..at + 8)),
        _ => true,
    }
}

/// The quote shows the packet behind PREROUTING. For a flow that never got an entry this is all there is to see of how its
/// destination was translated.
fn learn_destination(tracked: &mut Tracked, quoted: &Quoted<'_>, l3num: L3) {
    let Attached::Unconfirmed(own) = &mut tracked.attached else { return };
    if tracked.ctinfo != CtInfo::New || own.flow.status.intersects(Status::NAT_DONE_MASK) {
        return;
    }
    let Quoted { bytes, src, dst, transport, .. } = *quoted;
    let l4 = bytes.get(transport.offset..).unwrap_or_default();
    let Ok(tuple) = extract(l3num, src, dst, transport.protonum, l4) else { return };
    if tuple == *own.flow.tuple(Direction::Original) {
        return;
    }
    if let Some(reply) = tuple.invert() {
        own.flow.tuples[Direction::Reply.index()] = reply;
        own.flow.status |= Status(Status::NAT_DONE_MASK.0 | Status::DST_NAT.0);
    }
}
