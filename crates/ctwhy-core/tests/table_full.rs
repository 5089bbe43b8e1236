//! A table that holds as many entries as it may: who goes early, who is dropped. Catalogue A.6, FULL-01 and FULL-02. No
//! recording can show it, because the limit belongs to the whole machine.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::event::EventKind;
use ctwhy_core::hook::{DropCause, Engine, Ruling, Unseen, Verdict};
use ctwhy_core::status::Status;
use ctwhy_core::time::Time;
use ctwhy_core::trace::{Step, Trace};

fn at(secs: u32) -> Time {
    Time(0).plus_secs(secs)
}

fn limited(entries: u32) -> Engine {
    let mut engine = Engine::new(0);
    engine.conntrack.sysctls.table_limit = entries.try_into().ok();
    engine
}

/// A query of UDP, and a flow of its own for each port.
fn query(port: u16) -> Vec<u8> {
    udp(CLIENT, port, SERVER, 53, b"q")
}

/// A flow that is ASSURED from the third second on.
fn assured(engine: &mut Engine, port: u16) {
    let answer = udp(SERVER, 53, CLIENT, port, b"a");
    for (packet, secs) in [(&query(port), 0), (&answer, 0), (&answer, 3)] {
        receive_at(engine, packet, at(secs)).0.ctinfo.unwrap();
    }
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const SYN_ACK: u8 = 0x12;

fn tcp(src: &str, sport: u16, dst: &str, dport: u16, (flags, seq, ack): (u8, u32, u32)) -> Vec<u8> {
    let mut bytes = tcp_syn(src, sport, dst, dport);
    bytes[24..28].copy_from_slice(&seq.to_be_bytes());
    bytes[28..32].copy_from_slice(&ack.to_be_bytes());
    bytes[33] = flags;
    bytes
}

/// A connection, and whether its client has closed it.
fn connection(engine: &mut Engine, port: u16, closing: bool) {
    engine.conntrack.sysctls.checksum = false;
    let (there, back) = ((CLIENT, port, SERVER, 80), (SERVER, 80, CLIENT, port));
    let mut segments = vec![(there, (SYN, 100, 0)), (back, (SYN_ACK, 300, 101)), (there, (ACK, 101, 301))];
    if closing {
        segments.push((there, (FIN_ACK, 101, 301)));
    }
    for ((src, sport, dst, dport), segment) in segments {
        let ruling = receive_at(engine, &tcp(src, sport, dst, dport, segment), at(3)).0;
        assert!(matches!(ruling.ctinfo, Ok(CtInfo::New | CtInfo::EstablishedReply | CtInfo::Established)));
    }
}

/// An association, and what its client sends last.
fn association(engine: &mut Engine, port: u16, last: &[u8]) {
    engine.conntrack.sysctls.checksum = false;
    let there = |tag, chunk: Vec<u8>| sctp(CLIENT, port, SERVER, 80, tag, &[chunk]);
    let back = |tag, chunk: Vec<u8>| sctp(SERVER, 80, CLIENT, port, tag, &[chunk]);
    let packets = [
        there(0, init(7)),
        back(7, chunk(2, 0, &init_body(9))),
        there(9, chunk(10, 0, b"cake")),
        back(7, chunk(11, 0, b"")),
        there(9, last.to_vec()),
    ];
    for packet in packets {
        receive_at(engine, &packet, at(3)).0.ctinfo.unwrap();
    }
}

/// The ruling, the steps, and the entries that were deleted meanwhile.
fn try_it(engine: &mut Engine, packet: &[u8], secs: u32) -> (Ruling, Trace) {
    let mut trace = Trace::default();
    let mut buffer = packet.to_vec();
    let ruling = engine.receive(&mut buffer, packet.len(), None, at(secs), &mut trace);
    trace.events.retain(|event| event.kind() == EventKind::Destroy);
    (ruling, trace)
}

fn is_dropped(ruling: &Ruling) -> bool {
    matches!(ruling.verdict, Verdict::Drop(DropCause::TableFull(_)))
}

fn early_steps(told: &Trace) -> usize {
    told.steps.iter().filter(|step| matches!(step, Step::EarlyDropped { .. })).count()
}

#[test]
fn full_01_flows_that_are_not_assured_go_for_one_that_begins() {
    let mut engine = limited(4);
    for port in [1, 2] {
        assured(&mut engine, port);
    }
    for port in [3, 4] {
        receive_at(&mut engine, &query(port), at(3));
    }
    let mut gone = [0; 3];
    for port in 5..205 {
        let mut engine = engine.clone();
        let (ruling, told) = try_it(&mut engine, &query(port), 3);
        assert_eq!((ruling.ctinfo, ruling.verdict), (Ok(CtInfo::New), Verdict::Accept));
        // Early, and not as if their time were over.
        assert!(told.events.iter().all(|event| event.entry.remaining_secs(event.at) == 30));
        assert!(told.events.iter().all(|event| !event.entry.flow.status.contains(Status::ASSURED)));
        let early = told.events.len();
        assert_eq!(early_steps(&told), early);
        let counters = engine.conntrack.table.counters;
        assert_eq!((engine.conntrack.table.len(), counters.early_drop, counters.drop), (5 - early, early as u64, 0));
        gone[early] += 1;
    }
    // Of one bucket that has any, all go: here one, there both.
    assert!(gone[0] == 0 && gone[1] > 0 && gone[2] > 0, "{gone:?}");
}

#[test]
fn full_01_what_began_together_has_other_neighbours() {
    let mut engine = limited(400);
    for port in 1..=200 {
        assured(&mut engine, port);
    }
    for port in 201..=400 {
        receive_at(&mut engine, &query(port), at(3));
    }
    for port in 1000..2000 {
        assert!(!is_dropped(&try_it(&mut engine.clone(), &query(port), 3).0), "{port}");
    }
}

#[test]
fn full_01_where_none_may_go_the_packet_is_dropped() {
    let mut engine = limited(4);
    for port in [1, 2, 3, 4] {
        assured(&mut engine, port);
    }
    let (ruling, told) = try_it(&mut engine, &query(5), 3);
    let Verdict::Drop(cause @ DropCause::TableFull(full)) = ruling.verdict else { panic!("{ruling:?}") };
    assert_eq!((full.count, full.limit.get(), cause.code()), (4, 4, "conntrack.table_full"));
    assert_eq!(ruling.ctinfo.map_err(|unseen| unseen.code()), Err("conntrack.table_full"));
    assert_eq!(ruling.ctinfo, Err(Unseen::TableFull(full)));
    assert!(cause.to_string().contains("4 entries where 4 may be"), "{cause}");
    assert!(told.events.is_empty());
    assert!(told.steps.contains(&Step::TableFull(full)));
    // The tracker is not asked: a SYN/ACK, with which no connection begins, ends in the same way.
    assert!(is_dropped(&try_it(&mut engine, &tcp(SERVER, 80, CLIENT, 9, (SYN_ACK, 1, 1)), 3).0));
    // What belongs to a flow, or to none, does not notice.
    assert_eq!(try_it(&mut engine, &query(1), 3).0.ctinfo, Ok(CtInfo::Established));
    let about = |port| error(ROUTER, CLIENT, 3, 3, 0, &query(port));
    assert_eq!(try_it(&mut engine, &about(1), 3).0.ctinfo, Ok(CtInfo::RelatedReply));
    assert_eq!(try_it(&mut engine, &about(9), 3).0.ctinfo, Ok(CtInfo::Invalid));
    let counters = engine.conntrack.table.counters;
    assert_eq!((engine.conntrack.table.len(), counters.early_drop, counters.drop), (4, 0, 2));
}

#[test]
fn full_01_only_what_is_near_is_looked_at() {
    let mut engine = limited(400);
    for port in 1..=399 {
        assured(&mut engine, port);
    }
    receive_at(&mut engine, &query(400), at(3));
    let (mut dropped, mut accepted) = (0, 0);
    for port in 1000..1100 {
        let (ruling, told) = try_it(&mut engine.clone(), &query(port), 3);
        match is_dropped(&ruling) {
            true => dropped += 1,
            false => accepted += told.events.len(),
        }
    }
    // Eight buckets of 200: of a hundred flows a few find the one that may go.
    assert_eq!(dropped + accepted, 100);
    assert!((1..20).contains(&accepted), "{accepted}");
}

#[test]
fn gc_01_what_is_dead_makes_room_for_the_next_one_only() {
    let mut engine = limited(2);
    assured(&mut engine, 1);
    receive_at(&mut engine, &query(2), at(3));
    // The second has been over for a second, the first lives.
    let (ruling, told) = try_it(&mut engine, &query(3), 34);
    assert!(is_dropped(&ruling));
    assert_eq!(told.events.len(), 1);
    assert_eq!(engine.conntrack.table.counters.early_drop, 0);
    assert_eq!(try_it(&mut engine, &query(3), 34).0.ctinfo, Ok(CtInfo::New));
}

#[test]
fn full_02_a_sweep_takes_what_is_closing_down_to_95_percent() {
    let mut engine = limited(200);
    for port in 0..160 {
        connection(&mut engine, port, false);
    }
    for port in 160..180 {
        connection(&mut engine, port, true);
    }
    for port in 180..200 {
        association(&mut engine, port, &chunk(7, 0, &[0; 4]));
    }
    let mut gone = Vec::new();
    let mut tries = 0;
    // As long as there is no room the sweep comes by two slots with each flow that would begin.
    while is_dropped(&{
        let (ruling, told) = try_it(&mut engine, &query(1000), 3);
        gone.extend(told.events);
        ruling
    }) {
        tries += 1;
        assert!(tries < 200);
    }
    assert!(tries > 0);
    // And goes on with those that can begin.
    for port in 1001..1100 {
        gone.extend(try_it(&mut engine, &query(port), 3).1.events);
        assert!(engine.conntrack.table.len() <= 200);
    }
    let states = gone.iter().filter(|event| event.entry.flow.status.contains(Status::ASSURED));
    let states: Vec<_> = states.filter_map(|event| event.entry.flow.protocol.state()).collect();
    assert!(!states.is_empty());
    // FIN_WAIT, and SHUTDOWN_SENT.
    assert!(states.iter().all(|state| [4, 5].contains(state)), "{states:?}");
    let left = engine.conntrack.table.iter();
    assert_eq!(left.filter(|(_, entry)| entry.flow.protocol.state() == Some(3)).count(), 160);
}

#[test]
fn full_02_only_above_95_percent_in_hundreds() {
    let tcp = |engine: &mut Engine, port| connection(engine, port, true);
    let sctp = |engine: &mut Engine, port| association(engine, port, &chunk(7, 0, &[0; 4]));
    let alive = |engine: &mut Engine, port| association(engine, port, &chunk(0, 3, &[0; 16]));
    type Begin<'a> = &'a dyn Fn(&mut Engine, u16);
    let kinds: [(Begin<'_>, u32, bool); 5] =
        [(&tcp, 100, true), (&tcp, 99, false), (&sctp, 100, true), (&sctp, 99, false), (&alive, 100, false)];
    for (begin, limit, closing_go) in kinds {
        let mut engine = limited(limit);
        for port in 0..limit as u16 {
            begin(&mut engine, port);
        }
        for _ in 0..limit {
            try_it(&mut engine, &query(1000), 3);
        }
        assert_eq!(engine.conntrack.table.len() < limit as usize, closing_go, "{limit}");
        // What went in the sweep is not counted as what went for a flow.
        let counters = engine.conntrack.table.counters;
        assert_eq!(counters.drop, if closing_go { 1 } else { u64::from(limit) });
    }
}

#[test]
fn without_a_limit_nothing_is_dropped() {
    let mut engine = Engine::new(0);
    for port in 0..3000 {
        assert_eq!(try_it(&mut engine, &query(port), 0).0.ctinfo, Ok(CtInfo::New));
    }
    assert_eq!(engine.conntrack.table.len(), 3000);
}
