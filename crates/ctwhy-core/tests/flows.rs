//! Flows that are not TCP: how they begin, what the second packet is called, when they end. Catalogue A, B.1, C, F.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::conn::Confirmed;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{Engine, Unseen};
use ctwhy_core::status::Status;
use ctwhy_core::time::Time;

fn at(secs: u32) -> Time {
    Time(0).plus_secs(secs)
}

fn only_entry(engine: &Engine) -> Confirmed {
    let mut entries = engine.conntrack.table.iter();
    let (_, entry) = entries.next().unwrap();
    assert!(entries.next().is_none());
    entry
}

fn decide(engine: &mut Engine, packet: &[u8], secs: u32) -> CtInfo {
    receive_at(engine, packet, at(secs)).0.ctinfo.unwrap()
}

const PAIRS: [(&str, &str); 2] = [(CLIENT, SERVER), (CLIENT6, SERVER6)];

#[test]
fn a3_6_a_second_packet_before_any_reply_is_new_again() {
    for (client, server) in PAIRS {
        let mut engine = Engine::new(0);
        let (query, answer) = (udp(client, 5000, server, 53, b"q"), udp(server, 53, client, 5000, b"a"));
        assert_eq!(decide(&mut engine, &query, 0), CtInfo::New);
        assert_eq!(decide(&mut engine, &query, 0), CtInfo::New);
        assert_eq!(decide(&mut engine, &answer, 0), CtInfo::EstablishedReply);
        assert_eq!(decide(&mut engine, &query, 0), CtInfo::Established);
    }
}

#[test]
fn udp_02_thirty_seconds_then_a_stream_of_two_minutes_and_assured() {
    for (client, server) in PAIRS {
        let mut engine = Engine::new(0);
        let (query, answer) = (udp(client, 5000, server, 53, b"q"), udp(server, 53, client, 5000, b"a"));
        decide(&mut engine, &query, 0);
        assert_eq!(only_entry(&engine).remaining_secs(at(0)), 30);
        // The first answer is judged by the status before it: 30 s even when it comes late.
        decide(&mut engine, &answer, 5);
        assert_eq!(only_entry(&engine).remaining_secs(at(5)), 30);
        assert!(!only_entry(&engine).flow.status.contains(Status::ASSURED));
        decide(&mut engine, &answer, 6);
        assert_eq!(only_entry(&engine).remaining_secs(at(6)), 120);
        assert!(only_entry(&engine).flow.status.contains(Status::ASSURED));
    }
    // Within two seconds it is no stream yet, however many packets there are.
    let mut engine = Engine::new(0);
    let (query, answer) = (udp(CLIENT, 5000, SERVER, 53, b"q"), udp(SERVER, 53, CLIENT, 5000, b"a"));
    for packet in [&query, &answer, &query, &answer] {
        decide(&mut engine, packet, 2);
    }
    assert_eq!(only_entry(&engine).remaining_secs(at(2)), 30);
}

#[test]
fn gc_03_an_answer_after_the_end_begins_a_flow_of_its_own() {
    let mut engine = Engine::new(0);
    decide(&mut engine, &udp(CLIENT, 5000, SERVER, 53, b"q"), 0);
    assert_eq!(decide(&mut engine, &udp(SERVER, 53, CLIENT, 5000, b"a"), 30), CtInfo::New);
    let original = only_entry(&engine).flow.tuples[0];
    assert_eq!(original.src_ip(), ip(SERVER));
}

#[test]
fn udp_01_header_length_and_checksum() {
    for ((client, server), header) in PAIRS.into_iter().zip([20, 40]) {
        let good = udp(client, 5000, server, 53, b"query");
        let verdict = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            receive(&mut Engine::new(0), &bytes)
        };
        let length = |value: u16| move |bytes: &mut Vec<u8>| set16(bytes, header + 4, value);
        assert_eq!(invalid(&verdict(&length(7))), Some("udp.length"));
        assert_eq!(invalid(&verdict(&length(14))), Some("udp.length"));
        assert_eq!(invalid(&verdict(&|b| b[header + 9] ^= 1)), Some("udp.checksum"));
        // No checksum, and bytes behind the datagram: both are fine (ICMP6-X-02 for IPv6).
        assert_eq!(verdict(&|b| set16(b, header + 6, 0)).ctinfo, Ok(CtInfo::New));
        let shorter = |b: &mut Vec<u8>| {
            set16(b, header + 4, 10);
            set16(b, header + 6, 0);
        };
        assert_eq!(verdict(&shorter).ctinfo, Ok(CtInfo::New));
        // TUPLE-02: four bytes tell the flow, eight make a header.
        for (bytes, code) in [(3, "tuple.short_transport"), (7, "udp.short")] {
            let short = packet(client, server, 17, 64, &good[header..header + bytes]);
            assert_eq!(invalid(&receive(&mut Engine::new(0), &short)), Some(code));
        }
        let mut engine = Engine::new(0);
        engine.conntrack.sysctls.checksum = false;
        let mut wrong = good.clone();
        wrong[header + 9] ^= 1;
        assert_eq!(receive(&mut engine, &wrong).ctinfo, Ok(CtInfo::New));
    }
}

#[test]
fn icmp_q_an_answer_needs_its_query_with_the_same_id_and_code() {
    for (client, server, request, reply) in [(CLIENT, SERVER, 8, 0), (CLIENT6, SERVER6, 128, 129)] {
        let answer = echo(server, client, reply, 7, 1);
        assert_eq!(invalid(&receive(&mut Engine::new(0), &answer)), Some("icmp.unsolicited"));

        let mut engine = Engine::new(0);
        assert_eq!(decide(&mut engine, &echo(client, server, request, 7, 1), 0), CtInfo::New);
        assert_eq!(decide(&mut engine, &answer, 1), CtInfo::EstablishedReply);
        assert_eq!(only_entry(&engine).remaining_secs(at(1)), 30);
        assert!(!only_entry(&engine).flow.status.contains(Status::ASSURED));
        assert_eq!(decide(&mut engine, &echo(server, client, reply, 8, 1), 1), CtInfo::Invalid);
        // TUPLE-03: the code is part of the key.
        let other_code = icmp(server, client, reply, 1, &[0, 7, 0, 1]);
        assert_eq!(decide(&mut engine, &other_code, 1), CtInfo::Invalid);
        // ICMP-Q-05: a request the other way is a flow of its own.
        assert_eq!(decide(&mut engine, &echo(server, client, request, 7, 1), 1), CtInfo::New);
    }
}

#[test]
fn icmp6_x_01_icmp_in_ipv6_and_icmpv6_in_ipv4_begin_nothing() {
    let icmp_part = echo(CLIENT, SERVER, 8, 7, 1)[20..].to_vec();
    let six = packet(CLIENT6, SERVER6, 1, 64, &icmp_part);
    assert_eq!(invalid(&receive(&mut Engine::new(0), &six)), Some("icmp.unsolicited"));
    let icmpv6_part = echo(CLIENT6, SERVER6, 128, 7, 1)[40..].to_vec();
    let four = packet(CLIENT, SERVER, 58, 64, &icmpv6_part);
    assert_eq!(invalid(&receive(&mut Engine::new(0), &four)), Some("icmp.unsolicited"));
}

#[test]
fn generic_01_any_other_protocol_is_one_flow_per_pair_of_hosts() {
    for (client, server) in PAIRS {
        for protonum in [33, 50, 99, 255] {
            let mut engine = Engine::new(0);
            assert_eq!(decide(&mut engine, &packet(client, server, protonum, 64, b""), 0), CtInfo::New);
            let reply = packet(server, client, protonum, 64, b"anything");
            assert_eq!(decide(&mut engine, &reply, 0), CtInfo::EstablishedReply);
            assert_eq!(decide(&mut engine, &reply, 9), CtInfo::EstablishedReply);
            assert_eq!(only_entry(&engine).remaining_secs(at(9)), 600);
            assert!(!only_entry(&engine).flow.status.contains(Status::ASSURED));
        }
    }
}

#[test]
fn core_hook_07_a_flow_that_is_its_own_answer_is_found_by_its_reply_tuple() {
    let mut engine = Engine::new(0);
    let own = udp(CLIENT, 5000, CLIENT, 5000, b"");
    assert_eq!(decide(&mut engine, &own, 0), CtInfo::New);
    assert_eq!(decide(&mut engine, &own, 0), CtInfo::EstablishedReply);
    let about = error(ROUTER, CLIENT, 11, 0, 0, &own);
    assert_eq!(decide(&mut engine, &about, 0), CtInfo::RelatedReply);
}

#[test]
fn acct_counters_count_what_refreshes() {
    let mut engine = Engine::new(0);
    engine.conntrack.sysctls.acct = true;
    let (query, answer) = (udp(CLIENT, 5000, SERVER, 53, b"q"), udp(SERVER, 53, CLIENT, 5000, b"abc"));
    for packet in [&query, &query, &answer, &error(ROUTER, CLIENT, 11, 0, 0, &query)] {
        receive(&mut engine, packet);
    }
    let counters = only_entry(&engine).flow.counters.unwrap();
    assert_eq!((counters[0].packets, counters[0].bytes), (2, 58));
    assert_eq!((counters[1].packets, counters[1].bytes), (1, 31));
}

#[test]
fn dead_entries_are_swept_while_new_flows_begin() {
    let mut engine = Engine::new(0);
    for round in 0..20u32 {
        for port in 0..500u16 {
            let unique = udp(CLIENT, 1000 + port, SERVER, round as u16 + 1, b"");
            receive_fast(&mut engine, &unique, at(round * 31));
        }
    }
    assert!(engine.conntrack.table.len() <= 1001, "{} entries", engine.conntrack.table.len());
}

fn receive_fast(engine: &mut Engine, packet: &[u8], now: Time) {
    let mut buffer = packet.to_vec();
    let ruling = engine.receive(&mut buffer, packet.len(), None, now, &mut ());
    assert_eq!(ruling.ctinfo, Ok(CtInfo::New));
}

#[test]
fn what_conntrack_never_sees_is_not_called_invalid() {
    let good = udp(CLIENT, 5000, SERVER, 53, b"query");
    let unseen = |bytes: &[u8], wire_len: usize| {
        let mut buffer = bytes.to_vec();
        Engine::new(0).receive(&mut buffer, wire_len, None, Time(0), &mut ()).ctinfo.map_err(|unseen| unseen.code())
    };
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    assert_eq!(unseen(&[], 0), Err("ip.short_header"));
    assert_eq!(unseen(&good[..19], 19), Err("ip.short_header"));
    assert_eq!(unseen(&good[..19], good.len()), Err("capture.cut_short"));
    assert_eq!(unseen(&changed(0, 0x55), good.len()), Err("ip.version"));
    assert_eq!(unseen(&changed(0, 0x44), good.len()), Err("ip.header_length"));
    assert_eq!(unseen(&changed(8, 9), good.len()), Err("ip.header_checksum"));
    assert_eq!(unseen(&good[..good.len() - 1], good.len() - 1), Err("ip.total_length"));
    // Cut behind the header that decides: nothing is missing but the checksum.
    assert_eq!(unseen(&good[..28], good.len()), Ok(CtInfo::New));
    assert_eq!(unseen(&good[..27], good.len()), Err("capture.cut_short"));
    let mut fragment = good.clone();
    fragment[6] = 0x20;
    set16(&mut fragment, 10, 0);
    let checksum = internet_checksum(&fragment[..20]);
    set16(&mut fragment, 10, checksum);
    let mut buffer = fragment.clone();
    let ruling = Engine::new(0).receive(&mut buffer, fragment.len(), None, Time(0), &mut ());
    assert!(matches!(ruling.ctinfo, Err(Unseen::Fragment(w)) if w.fragment.more && w.fragment.id == 0x4321));
}
