//! Zones of templates: who finds whom (ZONE-01, ZONE-02, ZONE-03).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod common;

use common::*;
use ctwhy_core::conntrack::{Attached, Conntrack, Tracked};
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::hook::Hook;
use ctwhy_core::mirror::KernelEntry;
use ctwhy_core::packet::Packet;
use ctwhy_core::template::Template;
use ctwhy_core::time::Time;
use ctwhy_core::zone::Zone;

const BOTH: Zone = Zone { id: 5, only: None };
const ORIGINAL: Zone = Zone { id: 5, only: Some(Direction::Original) };
const REPLY: Zone = Zone { id: 5, only: Some(Direction::Reply) };
const NONE: Zone = Zone { id: 0, only: None };

fn track(conntrack: &mut Conntrack, bytes: &[u8], zone: Zone) -> Tracked {
    let packet = Packet::parse(bytes, bytes.len()).unwrap();
    let template = Template { zone, ..Template::default() };
    conntrack.track(&packet, Hook::PreRouting, template, Time(0), &mut ()).unwrap()
}

/// What a second packet is when the first one began a flow in `zone`.
fn second(first: &[u8], zone: Zone, packet: &[u8], looks_in: Zone) -> CtInfo {
    let mut engine = ctwhy_core::hook::Engine::new(0);
    let Attached::Unconfirmed(own) = track(&mut engine.conntrack, first, zone).attached else { panic!() };
    assert_eq!(own.flow.zone, zone);
    engine.learn(&KernelEntry { flow: own.flow, id: 1, timeout: own.timeout }, Time(0));
    track(&mut engine.conntrack, packet, looks_in).ctinfo
}

#[test]
fn a_zone_is_part_of_the_key_of_each_direction() {
    let ask = udp(CLIENT, 40_000, SERVER, 53, b"?");
    let answer = udp(SERVER, 53, CLIENT, 40_000, b"!");
    // (zone of the flow, zone that a packet brings, is the second question known, is the answer known)
    for (flow, brings, question, known) in [
        (NONE, NONE, true, true),
        (BOTH, BOTH, true, true),
        (BOTH, NONE, false, false),
        (NONE, BOTH, false, false),
        (ORIGINAL, NONE, false, true),
        (ORIGINAL, ORIGINAL, true, true),
        (ORIGINAL, BOTH, true, false),
        (ORIGINAL, REPLY, false, false),
        (REPLY, NONE, true, false),
        (REPLY, REPLY, true, true),
        (REPLY, BOTH, false, true),
        (BOTH, ORIGINAL, true, false),
        (BOTH, REPLY, false, true),
    ] {
        // An answer that is not known begins a flow and is NEW; a known one is not.
        let replied = second(&ask, flow, &answer, brings) == CtInfo::EstablishedReply;
        assert_eq!(replied, known, "{flow:?} {brings:?}");
        let mut engine = ctwhy_core::hook::Engine::new(0);
        let Attached::Unconfirmed(own) = track(&mut engine.conntrack, &ask, flow).attached else { panic!() };
        engine.learn(&KernelEntry { flow: own.flow, id: 1, timeout: own.timeout }, Time(0));
        let again = matches!(track(&mut engine.conntrack, &ask, brings).attached, Attached::Entry(_));
        assert_eq!(again, question, "{flow:?} {brings:?}");
    }
}

#[test]
fn an_error_looks_in_the_zone_of_its_own_template() {
    let ask = udp(CLIENT, 40_000, SERVER, 53, b"?");
    let answer = udp(SERVER, 53, CLIENT, 40_000, b"!");
    let about_question = error(ROUTER, CLIENT, 11, 0, 0, &ask);
    let about_answer = error(ROUTER, SERVER, 11, 0, 0, &answer);
    assert_eq!(second(&ask, ORIGINAL, &about_question, NONE), CtInfo::RelatedReply);
    assert_eq!(second(&ask, ORIGINAL, &about_answer, NONE), CtInfo::Invalid);
    assert_eq!(second(&ask, ORIGINAL, &about_answer, ORIGINAL), CtInfo::Related);
    assert_eq!(second(&ask, BOTH, &about_question, NONE), CtInfo::Invalid);
    assert_eq!(second(&ask, BOTH, &about_question, BOTH), CtInfo::RelatedReply);
}
