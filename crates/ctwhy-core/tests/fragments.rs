//! What no recorded case can show of fragments: bounds, captures that were cut, what a caller gets.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::defrag::{FRAGMENT_COST, QUEUE_COST, Refusal, Refused};
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{Egress, Engine, Ruling, Unseen};
use ctwhy_core::nat::range::Range;
use ctwhy_core::packet::Packet;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;
use proptest::prelude::*;

/// Bytes `from..to` of the payload of a packet without options, as a fragment.
fn part(packet: &[u8], id: u16, from: usize, to: usize) -> Vec<u8> {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let whole = packet.len() - header;
    piece(packet, id, from, from..to.min(whole), to < whole)
}

/// Any bytes of the payload of a packet at any offset.
fn piece(packet: &[u8], id: u16, offset: usize, bytes: std::ops::Range<usize>, more: bool) -> Vec<u8> {
    let offset = offset as u16;
    let mut fragment;
    if packet[0] >> 4 == 4 {
        fragment = packet[..20].to_vec();
        fragment.extend(&packet[20..][bytes]);
        let len = fragment.len() as u16;
        set16(&mut fragment, 2, len);
        set16(&mut fragment, 4, id);
        set16(&mut fragment, 6, offset >> 3 & 0x1fff | u16::from(more) << 13);
        set16(&mut fragment, 10, 0);
        let checksum = internet_checksum(&fragment[..20]);
        set16(&mut fragment, 10, checksum);
    } else {
        fragment = packet[..40].to_vec();
        fragment.extend([packet[6], 0]);
        fragment.extend((offset & !7 | u16::from(more)).to_be_bytes());
        fragment.extend([0, 0]);
        fragment.extend(id.to_be_bytes());
        fragment.extend(&packet[40..][bytes]);
        fragment[6] = 44;
        let len = fragment.len() as u16 - 40;
        set16(&mut fragment, 4, len);
    }
    fragment
}

fn receive_at(engine: &mut Engine, packet: &[u8], now: Time) -> Ruling {
    let mut buffer = packet.to_vec();
    let ruling = engine.receive(&mut buffer, packet.len(), Some(0), now, &mut ());
    assert_eq!(buffer, packet, "a fragment stays as it is");
    ruling
}

fn both(payload: usize) -> [Vec<u8>; 2] {
    [(CLIENT, SERVER), (CLIENT6, SERVER6)].map(|(client, server)| udp(client, 40000, server, 53, &vec![7; payload]))
}

#[test]
fn the_completing_fragment_gets_the_ruling_about_the_datagram() {
    for whole in both(3000) {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        for (from, to) in [(0, 1400), (1400, 2800)] {
            let ruling = receive_at(&mut engine, &part(&whole, 7, from, to), Time(0));
            let Err(Unseen::Fragment(waiting)) = ruling.ctinfo else { panic!("{:?}", ruling.ctinfo) };
            assert_eq!((waiting.have, waiting.end, waiting.first), (to as u32, None, true));
            assert_eq!(engine.leaving(&ruling, &whole).count(), 0);
        }
        let last = part(&whole, 7, 2800, 3008);
        let ruling = receive_at(&mut engine, &last, Time(0));
        assert_eq!((ruling.ctinfo, ruling.egress), (Ok(CtInfo::New), Egress::Forwarded(Some(1))));
        assert_eq!(ruling.datagram.as_ref().unwrap().fragments, 3);
        // The identification is that of the fragments, which tests elsewhere do not have.
        let mut arrived = ruling.arrived(&last).to_vec();
        if arrived[0] >> 4 == 4 {
            set16(&mut arrived, 4, 0x4321);
            set16(&mut arrived, 10, 0);
            let checksum = internet_checksum(&arrived[..20]);
            set16(&mut arrived, 10, checksum);
        }
        assert_eq!(arrived, whole);
        assert!(checksums_are_right(engine.departed(&ruling, &last)));
        let lengths: Vec<usize> = engine.leaving(&ruling, &last).map(|packet| packet.len()).collect();
        let header = last.len() - 208;
        assert_eq!(lengths, [header + 1400, header + 1400, header + 208]);
        assert_eq!(engine.defrag.waiting(), 0);
        assert_eq!(engine.defrag.memory(), [0, 0]);
    }
}

#[test]
fn steps_name_the_packets_that_brought_the_parts() {
    let [whole, _] = both(100);
    let mut engine = Engine::new(0);
    let mut trace = Trace::default();
    for (label, (from, to)) in [(4, (48, 108)), (9, (0, 48))] {
        engine.defrag.label = label;
        let mut fragment = part(&whole, 7, from, to);
        let len = fragment.len();
        engine.receive(&mut fragment, len, None, Time(0), &mut trace);
    }
    let text: Vec<String> = trace.steps.iter().take(3).map(|step| step.to_string()).collect();
    assert_eq!(
        text,
        [
            "bytes 0 to 47 of the datagram: packet 9",
            "bytes 48 to 107 of the datagram: packet 4",
            "its datagram is complete: 2 fragments go on as one packet of 128 bytes"
        ]
    );
}

#[test]
fn frag_06_what_is_received_and_what_this_host_sends_are_gathered_apart() {
    for whole in both(100) {
        let mut engine = Engine::new(0);
        receive_at(&mut engine, &part(&whole, 7, 0, 48), Time(0));
        let ruling = engine.send(&mut part(&whole, 7, 48, 108), None, Time(0), &mut ());
        assert!(matches!(ruling.ctinfo, Err(Unseen::Fragment(waiting)) if !waiting.first));
        let ruling = engine.send(&mut part(&whole, 7, 0, 48), None, Time(0), &mut ());
        assert_eq!(ruling.ctinfo, Ok(CtInfo::New));
        assert_eq!(engine.defrag.waiting(), 1);
    }
}

#[test]
fn a_datagram_ends_with_its_timeout_and_not_before() {
    for (whole, seconds) in both(100).into_iter().zip([30, 60]) {
        for (waited, complete) in [(seconds - 1, true), (seconds, false)] {
            let mut engine = Engine::new(0);
            receive_at(&mut engine, &part(&whole, 7, 0, 48), Time(0));
            let ruling = receive_at(&mut engine, &part(&whole, 7, 48, 108), Time(0).plus_secs(waited));
            assert_eq!(ruling.ctinfo.is_ok(), complete, "after {waited} s");
        }
    }
}

#[test]
fn too_much_that_waits_is_refused_until_its_time_is_up() {
    let most = 3 * (QUEUE_COST + FRAGMENT_COST + 48) as u32;
    for (family, whole) in both(100).into_iter().enumerate() {
        let mut engine = Engine::new(0);
        engine.conntrack.sysctls.ipfrag_high_thresh = most;
        engine.conntrack.sysctls.frag6_high_thresh = most;
        let begin = |engine: &mut Engine, id, now| receive_at(engine, &part(&whole, id, 0, 48), now);
        // The last one that is taken may go beyond it.
        for id in 0..4 {
            assert!(matches!(begin(&mut engine, id, Time(0)).ctinfo, Err(Unseen::Fragment(_))), "{id}");
        }
        let refused = begin(&mut engine, 4, Time(0)).ctinfo;
        assert!(matches!(refused, Err(Unseen::Refused(Refused { cause: Refusal::Memory { .. }, lost: None, .. }))));
        assert_eq!(refused.unwrap_err().code(), "fragment.memory");
        // Not even what would complete a datagram.
        assert!(receive_at(&mut engine, &part(&whole, 0, 48, 108), Time(0)).ctinfo.is_err());
        let later = Time(0).plus_secs([30, 60][family]);
        assert!(matches!(begin(&mut engine, 4, later).ctinfo, Err(Unseen::Fragment(_))));
        assert_eq!(engine.defrag.waiting(), 1);
        engine.conntrack.sysctls.ipfrag_high_thresh = 0;
        engine.conntrack.sysctls.frag6_high_thresh = 0;
        assert!(matches!(begin(&mut engine, 5, later).ctinfo, Err(Unseen::Refused(_))));
    }
}

#[test]
fn a_capture_that_was_cut_still_tells_the_flow() {
    for whole in both(3000) {
        let mut engine = Engine::new(0);
        for (from, to) in [(0, 1400), (1400, 3008)] {
            let fragment = part(&whole, 7, from, to);
            let mut kept = fragment[..96].to_vec();
            let ruling = engine.receive(&mut kept, fragment.len(), None, Time(0), &mut ());
            if to == 3008 {
                assert_eq!(ruling.ctinfo, Ok(CtInfo::New));
                let datagram = ruling.datagram.unwrap();
                let header = whole.len() - 3008;
                assert_eq!(datagram.len, whole.len());
                assert!(datagram.arrived().len() < header + 96, "no byte stands where it was not");
            }
        }
    }
}

/// No fragment of these is longer.
const LONGEST: usize = 300;

/// Fragments of a few datagrams that are likely to meet.
fn any_fragment() -> impl Strategy<Value = Vec<u8>> {
    let place = (0usize..200, 0usize..80, any::<bool>(), 0u16..3, any::<bool>());
    let odd = (0usize..30, any::<u8>(), 0usize..60);
    (place, odd).prop_map(|((at, len, more, id, six), (which, byte, cut))| {
        let whole = &both(200)[usize::from(six)];
        let to = (at + len).min(208);
        let offset = if which == 0 { 65_000 + at } else { at & !7 };
        let mut fragment = piece(whole, id, offset, at..to.max(at), more);
        match which {
            1 => fragment.truncate(cut + 20),
            2..=5 => {
                let at = cut % fragment.len();
                fragment[at] = byte;
            }
            _ => {}
        }
        if fragment[0] >> 4 == 4 && fragment.len() >= 20 && which != 2 {
            set16(&mut fragment, 10, 0);
            let checksum = internet_checksum(&fragment[..20]);
            set16(&mut fragment, 10, checksum);
        }
        fragment
    })
}

proptest! {
    /// Nothing panics, what waits is bounded and paid for, tracing changes nothing, and what leaves can be put together again.
    #[test]
    fn any_fragments_are_safe(
        fragments in prop::collection::vec((any_fragment(), 0u32..20, any::<bool>()), 1..120),
        most in 0u32..8000, distance in 0u32..6, mtu in 0u32..600
    ) {
        let mut explaining = nat_box(|_| masquerade(Range::default()));
        explaining.conntrack.sysctls.ipfrag_high_thresh = most;
        explaining.conntrack.sysctls.frag6_high_thresh = most;
        explaining.conntrack.sysctls.ipfrag_max_dist = distance;
        explaining.network.interfaces[1].mtu = (mtu > 0).then_some(mtu);
        let mut fast = explaining.clone();
        let mut behind = Engine::new(0);
        let mut now = Time(0);
        for (bytes, seconds, own) in fragments {
            now = now.plus_secs(seconds);
            let (mut one, mut other) = (bytes.clone(), bytes.clone());
            let mut trace = Trace::default();
            let (explained, decided) = if own {
                (explaining.send(&mut one, None, now, &mut trace), fast.send(&mut other, None, now, &mut ()))
            } else {
                let len = bytes.len();
                (
                    explaining.receive(&mut one, len, Some(0), now, &mut trace),
                    fast.receive(&mut other, len, Some(0), now, &mut ()),
                )
            };
            prop_assert_eq!(format!("{explained:?}"), format!("{decided:?}"));
            for step in &trace.steps {
                prop_assert!(!step.to_string().is_empty());
            }
            if let Err(unseen) = explained.ctinfo {
                prop_assert!(!unseen.to_string().is_empty());
            }
            let room = most as usize + QUEUE_COST + FRAGMENT_COST + LONGEST;
            prop_assert!(explaining.defrag.memory().iter().all(|memory| *memory <= room));
            prop_assert!(explaining.defrag.waiting() <= 2 * room / QUEUE_COST);

            let leaving: Vec<Vec<u8>> = explaining.leaving(&explained, &one).map(|packet| packet.into_owned()).collect();
            if leaving.len() > 1 {
                let departed = explaining.departed(&explained, &one);
                // Without what pads it.
                let len = Packet::parse(departed, departed.len()).unwrap().len;
                prop_assert_eq!(leaving.len(), explained.cut.as_ref().unwrap().count(len));
            }
            if let Some(datagram) = explained.datagram.as_ref().filter(|_| leaving.len() > 1) {
                let mut last = None;
                for mut packet in leaving {
                    let len = packet.len();
                    last = Some(behind.receive(&mut packet, len, None, now, &mut ()));
                }
                let again = last.and_then(|ruling| ruling.datagram).map(|datagram| datagram.len);
                prop_assert_eq!(again, Some(datagram.len));
            }
        }
    }
}
