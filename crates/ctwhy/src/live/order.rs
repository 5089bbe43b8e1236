//! The order of packets that several CPUs took through conntrack at once.
//!
//! Packets of the two directions of a connection come in by two devices; a virtual device even hands packets of one
//! direction to several CPUs. Each is queued a moment after conntrack has decided about it, and that may happen in another
//! order. For most packets this makes no difference; for a reset and the acknowledgments that decide whether it is one it
//! does. Where the engine and the kernel differ about a packet, other places for it among its neighbours are tried; one
//! counts only if with it all packets of the connection agree.

use ctwhy_core::direction::Direction;
use ctwhy_core::trace::Trace;
use ctwhy_core::tuple::Tuple;
use ctwhy_linux::queue::Queued;

use super::session::{Arrived, Session};

/// How many packets of its connection a packet may have overtaken, or been overtaken by.
const FARTHEST: usize = 8;

impl Session {
    /// Looks for packets of a batch about which the kernel differs because it saw them in another order.
    pub(super) fn reconsider(&mut self, queued: &[Queued], arrived: &mut [Option<Arrived>]) {
        for index in 0..arrived.len() {
            let Some(this) = arrived.get(index).and_then(Option::as_ref) else { continue };
            if this.agrees() {
                continue;
            }
            let Some(flow) = flow_of(this) else { continue };
            let same = |other: &usize| arrived.get(*other).and_then(Option::as_ref).and_then(flow_of) == Some(flow);
            let packets: Vec<usize> = (0..arrived.len()).filter(same).collect();
            let Some(from) = packets.iter().position(|other| *other == index) else { continue };
            let places = (1..=FARTHEST).flat_map(|distance| [from.checked_sub(distance), Some(from + distance)]);
            for to in places.flatten().filter(|to| *to < packets.len()) {
                let mut order = packets.clone();
                let moved = order.remove(from);
                order.insert(to, moved);
                if self.decide_again(queued, arrived, order.get(from.min(to)..).unwrap_or_default(), (moved, flow)) {
                    break;
                }
            }
        }
    }

    /// Decides once more about packets of a flow, in this order. Says whether all of them agree with the kernel then; if
    /// not, everything is as it was.
    fn decide_again(
        &mut self,
        queued: &[Queued],
        arrived: &mut [Option<Arrived>],
        order: &[usize],
        (moved, flow): (usize, Tuple),
    ) -> bool {
        let at = |index: usize| arrived.get(index).and_then(Option::as_ref);
        let first = order.iter().min().and_then(|first| at(*first));
        let (Some(before), Some(now)) =
            (first.and_then(|first| first.before), order.iter().max().and_then(|last| at(*last)))
        else {
            return false;
        };
        let (now, zone) = (now.now, before.flow.zone);
        let Some(after) = self.engine.find(&flow, zone, now).map(|(_, entry)| entry) else { return false };
        if !self.engine.restore(&before, now) {
            return false;
        }
        let mut decided = Vec::with_capacity(order.len());
        for &index in order {
            let (Some(packet), Some(old)) = (queued.get(index), at(index)) else { continue };
            let mut trace = Trace::default();
            let outcome = self.decide(packet, old.hook, old.now, &mut trace);
            let &Arrived { hook, now, kernel, before, reordered, .. } = old;
            let reordered = reordered || index == moved;
            let new = Arrived { hook, now, kernel, outcome, trace, before, reordered };
            if !new.agrees() {
                self.engine.restore(&after, now);
                return false;
            }
            decided.push((index, new));
        }
        for (index, new) in decided {
            if let Some(slot) = arrived.get_mut(index) {
                *slot = Some(new);
            }
        }
        true
    }
}

/// The original tuple of a packet's entry.
fn flow_of(arrived: &Arrived) -> Option<Tuple> {
    arrived.before.as_ref().map(|entry| *entry.flow.tuple(Direction::Original))
}

#[cfg(test)]
mod tests {
    use ctwhy_core::checksum::Sum;
    use ctwhy_core::hook::{Egress, Engine, Hook};
    use ctwhy_core::mirror::Departure;
    use ctwhy_core::time::Time;
    use ctwhy_core::tuple::{Addr, L3, proto};
    use ctwhy_core::zone::Zone;
    use ctwhy_linux::rules::{CtState, MarkBits};

    use super::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 2];
    const SERVER: [u8; 4] = [192, 0, 2, 80];

    /// A segment, and what the kernel is to have decided about it.
    fn segment(from_client: bool, flags: u8, seq: u32, ack: u32, data: usize, kernel: CtState) -> Queued {
        let (src, dst, sport, dport) =
            if from_client { (CLIENT, SERVER, 1000u16, 80u16) } else { (SERVER, CLIENT, 80, 1000) };
        let mut tcp = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        tcp.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
        tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.resize(20 + data, 0);
        let addr = |ip: [u8; 4]| Addr::from(std::net::IpAddr::from(ip));
        let start = Sum::default().pseudo_header(L3::V4, addr(src), addr(dst), proto::TCP, tcp.len());
        let checksum = start.bytes(&tcp).checksum();
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        let length = u16::try_from(20 + tcp.len()).unwrap();
        let mut payload = vec![0x45, 0, (length >> 8) as u8, length as u8, 0, 0, 0, 0, 64, 6, 0, 0];
        payload.extend([src, dst].concat());
        let checksum = Sum::default().bytes(&payload).checksum();
        payload[10..12].copy_from_slice(&checksum.to_be_bytes());
        payload.extend(tcp);
        let original_len = payload.len();
        let indev = Some(if from_client { 1 } else { 2 });
        Queued { payload, original_len, indev, mark: MarkBits::default().encode(kernel), ..Queued::default() }
    }

    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// An established connection whose client has sent 2000 bytes, of which 1000 are acknowledged.
    fn established() -> Session {
        use CtState::{Established, EstablishedReply, New};
        let mut session = Session::new(Engine::new(0), MarkBits::default());
        for packet in [
            segment(true, SYN, 0, 0, 0, New),
            segment(false, SYN | ACK, 5000, 1, 0, EstablishedReply),
            segment(true, ACK, 1, 5001, 1000, Established),
            segment(false, ACK, 5001, 1001, 0, EstablishedReply),
            segment(true, ACK, 1001, 5001, 1000, Established),
        ] {
            let arrived = session.arrive(&packet, Hook::PreRouting, Time(0));
            assert!(arrived.agrees(), "{:?}", arrived.outcome);
            let departure = Departure { hook: Hook::PreRouting, egress: Egress::Forwarded(None), learnt: None };
            let mut bytes = packet.payload.clone();
            session.engine.depart(&mut bytes, arrived.outcome.unwrap(), &departure, Time(0), &mut ());
        }
        session
    }

    fn decisions(session: &mut Session, packets: &[Queued]) -> Vec<(bool, bool)> {
        let mut arrived: Vec<_> =
            packets.iter().map(|packet| Some(session.arrive(packet, Hook::PreRouting, Time(1)))).collect();
        session.reconsider(packets, &mut arrived);
        arrived.iter().flatten().map(|arrived| (arrived.agrees(), arrived.reordered)).collect()
    }

    #[test]
    fn a_reset_that_the_kernel_saw_before_the_acknowledgment() {
        let mut session = established();
        let packets = [
            segment(false, ACK, 5001, 2001, 0, CtState::EstablishedReply),
            segment(true, RST, 1500, 0, 0, CtState::Established),
        ];
        assert_eq!(decisions(&mut session, &packets), [(true, false), (true, true)]);
    }

    #[test]
    fn a_reset_that_the_kernel_saw_behind_the_acknowledgment() {
        let mut session = established();
        let packets = [
            segment(true, RST, 1500, 0, 0, CtState::Invalid),
            segment(false, ACK, 5001, 2001, 0, CtState::EstablishedReply),
        ];
        assert_eq!(decisions(&mut session, &packets), [(true, true), (true, false)]);
    }

    #[test]
    fn what_no_order_explains_stays_a_difference() {
        let mut session = established();
        let tuple = session.arrive(&segment(true, ACK, 2001, 5001, 0, CtState::Established), Hook::PreRouting, Time(0));
        let flow = flow_of(&tuple).unwrap();
        let packets = [
            segment(false, ACK, 5001, 2001, 0, CtState::EstablishedReply),
            segment(true, RST, 1500, 0, 0, CtState::New),
        ];
        assert_eq!(decisions(&mut session, &packets), [(true, false), (false, false)]);
        let (_, entry) = session.engine.find(&flow, Zone::default(), Time(1)).unwrap();
        // The entry is as the queue's order left it.
        let mut other = established();
        other.arrive(&segment(true, ACK, 2001, 5001, 0, CtState::Established), Hook::PreRouting, Time(0));
        for packet in &packets {
            other.arrive(packet, Hook::PreRouting, Time(1));
        }
        let (_, expected) = other.engine.find(&flow, Zone::default(), Time(1)).unwrap();
        assert_eq!(format!("{entry:?}"), format!("{expected:?}"));
    }
}
