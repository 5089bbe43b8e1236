//! The hooks one at a time: what a kernel carries from one to the next leaves as it does where the engine routes.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::hook::{DropCause, Egress, Engine, Entered, Handed, Hook, Passage, Ruling, Verdict};
use ctwhy_core::network::Destination;
use ctwhy_core::packet::Packet;
use ctwhy_core::rules::iptables;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::L3;

const LAN: u16 = 0;
const WAN: u16 = 1;

fn handed(len: usize, interface: u16) -> Handed {
    Handed { wire_len: len, interface: Some(interface), mark: 0, checksum_trusted: false, now: Time(0) }
}

/// How a packet came through: its bytes, when they left.
#[derive(Debug, PartialEq)]
struct Through {
    ctinfo: Result<CtInfo, &'static str>,
    left: Option<Vec<u8>>,
    drop: Option<DropCause>,
}

fn through(ruling: &Ruling, bytes: &[u8]) -> Through {
    let left = ruling.verdict == Verdict::Accept && ruling.egress != Egress::Nowhere;
    let drop = match ruling.verdict {
        Verdict::Drop(cause) => Some(cause),
        Verdict::Accept => None,
    };
    Through { ctinfo: ruling.ctinfo.map_err(|unseen| unseen.code()), left: left.then(|| bytes.to_vec()), drop }
}

fn at_once(engine: &mut Engine, packet: &[u8], from: u16) -> Through {
    let mut buffer = packet.to_vec();
    let ruling = engine.receive(&mut buffer, packet.len(), Some(from), Time(0), &mut ());
    through(&ruling, &buffer)
}

/// The way of a packet as a kernel goes it: `engine` is asked at the hooks only, and not at the last one when it has
/// nothing to do there.
fn by_stages(engine: &mut Engine, packet: &[u8], from: u16) -> Through {
    let mut buffer = packet.to_vec();
    let passage = match engine.at_prerouting(&mut buffer, &handed(packet.len(), from), &mut ()) {
        Entered::Ended(ruling) => return through(&ruling, &buffer),
        Entered::OnItsWay(passage) => passage,
    };
    assert_eq!(passage.rewritten(), buffer != packet);
    let view = Packet::parse(&buffer, buffer.len()).unwrap();
    let (l3num, ttl) = (view.l3num, view.ttl);
    let ctinfo = Ok(passage.tracked().ctinfo);
    match engine.network.route(l3num, view.dst) {
        Destination::None => Through { ctinfo, left: None, drop: Some(DropCause::NoRoute) },
        Destination::Interface(_) if ttl <= 1 => Through { ctinfo, left: None, drop: Some(DropCause::TtlExceeded) },
        Destination::Interface(out) => {
            buffer = aged(buffer);
            last(engine, buffer, passage, out, Engine::at_postrouting)
        }
        Destination::Local => last(engine, buffer, passage, from, Engine::at_local_in),
    }
}

type Last = fn(&mut Engine, &mut [u8], Passage, &Handed, &mut ()) -> Ruling;

fn last(engine: &mut Engine, mut buffer: Vec<u8>, passage: Passage, interface: u16, hook: Last) -> Through {
    let ctinfo = Ok(passage.tracked().ctinfo);
    let (more, before) = (engine.has_more_to_do(&passage), buffer.clone());
    let len = buffer.len();
    let entries = engine.conntrack.table.len();
    let ruling = hook(engine, &mut buffer, passage, &handed(len, interface), &mut ());
    if !more {
        assert_eq!((&buffer, engine.conntrack.table.len()), (&before, entries), "there was something to do");
        assert_eq!(ruling.verdict, Verdict::Accept);
        return Through { ctinfo, left: Some(buffer), drop: None };
    }
    assert_eq!(ruling.rewritten, buffer != before);
    through(&ruling, &buffer)
}

fn boxes(rules: &str, l3num: L3) -> [Engine; 2] {
    let mut engine = nat_box(|_| ctwhy_core::nat::rules::Ruleset::default());
    *engine.rules_mut(l3num) = iptables::parse_only(rules, l3num, &ctwhy_core::rules::TableName::ALL).unwrap().rules;
    [engine.clone(), engine]
}

const NAT_RULES: &str = "*nat\n-A PREROUTING -i wan -p udp --dport 53 -j DNAT --to-destination @CLIENT@\n\
    -A PREROUTING -i lan -d @NAT@ -p udp --dport 53 -j DNAT --to-destination @CLIENT@\n\
    -A POSTROUTING -o wan -j MASQUERADE\n-A POSTROUTING -o lan -j MASQUERADE\nCOMMIT\n";

#[test]
fn packets_leave_as_they_do_where_the_engine_routes() {
    for (l3num, client, nat, server, router, exceeded) in
        [(L3::V4, CLIENT, NAT, SERVER, ROUTER, 11), (L3::V6, CLIENT6, NAT6, SERVER6, ROUTER6, 3)]
    {
        let rules = NAT_RULES.replace("@CLIENT@", client).replace("@NAT@", nat);
        let [mut whole, mut staged] = boxes(&rules, l3num);
        let request = if l3num == L3::V4 { 8 } else { 128 };
        let out = udp(client, 4000, server, 7, b"out");
        let translated = udp(nat, 4000, server, 7, b"out");
        let packets = [
            (out.clone(), LAN),
            (out, LAN),
            (error(router, nat, exceeded, 0, 0, &translated), WAN),
            (udp(server, 7, nat, 4000, b"back"), WAN),
            (tcp_syn(client, 4001, server, 80), LAN),
            (tcp_syn(client, 4001, server, 80), LAN),
            (echo(client, server, request, 77, 1), LAN),
            // Forwarded inside, hairpin, for this host, and nobody's.
            (udp(server, 9, nat, 53, b"in"), WAN),
            (udp(client, 53, server, 9, b"answer"), LAN),
            (udp(client, 4002, nat, 53, b"hairpin"), LAN),
            (udp(client, 4003, nat, 999, b"box"), LAN),
            (error(router, nat, exceeded, 0, 0, &udp(nat, 1, server, 2, b"unknown")), WAN),
            (packet(client, server, 17, 1, &[0x0f, 0xa0, 0, 7, 0, 8, 0, 0]), LAN),
            (packet(client, server, 250, 9, b"no ports"), LAN),
        ];
        for (index, (packet, from)) in packets.into_iter().enumerate() {
            let expected = at_once(&mut whole, &packet, from);
            assert_eq!(by_stages(&mut staged, &packet, from), expected, "{l3num:?}, packet {index}");
        }
        let entries = |engine: &Engine| {
            let mut flows: Vec<_> =
                engine.conntrack.table.iter().map(|(_, entry)| (entry.flow.tuples, entry.flow.status)).collect();
            flows.sort_by_key(|(tuples, _)| format!("{tuples:?}"));
            flows
        };
        assert_eq!(entries(&staged), entries(&whole));
    }
}

#[test]
fn rules_ahead_and_flows_that_begin_are_something_to_do() {
    let more = |rules: &str, packets: &[Vec<u8>]| {
        let [mut engine, _] = boxes(rules, L3::V4);
        let (final_packet, earlier) = packets.split_last().unwrap();
        for packet in earlier {
            by_stages(&mut engine, packet, LAN);
        }
        let mut buffer = final_packet.clone();
        let len = buffer.len();
        match engine.at_prerouting(&mut buffer, &handed(len, LAN), &mut ()) {
            Entered::OnItsWay(passage) => engine.has_more_to_do(&passage),
            Entered::Ended(ruling) => panic!("{ruling:?}"),
        }
    };
    let first = udp(CLIENT, 1, SERVER, 2, b"x");
    let none = "*nat\nCOMMIT\n";
    let empty =
        "*nat\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n*mangle\n-A PREROUTING -j MARK --set-mark 1\nCOMMIT\n";
    assert!(more(none, std::slice::from_ref(&first)), "it is not confirmed");
    assert!(!more(none, &[first.clone(), first.clone()]));
    assert!(!more(empty, &[first.clone(), first.clone()]), "PREROUTING is behind it");
    assert!(more("*nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n", &[first.clone(), first.clone()]));
    assert!(more("*filter\n-A FORWARD -p tcp -j DROP\nCOMMIT\n", &[first.clone(), first.clone()]));
    assert!(more("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n", &[first.clone(), first]));
}

/// The kernel made an error about a packet whose destination was translated, and whose flow never began.
#[test]
fn an_error_about_a_packet_that_went_no_further_is_translated_back() {
    let rules = NAT_RULES.replace("@CLIENT@", CLIENT).replace("@NAT@", NAT);
    let [mut engine, _] = boxes(&rules, L3::V4);
    let probe = udp(SERVER, 9, NAT, 53, b"probe");
    let mut buffer = probe.clone();
    let Entered::OnItsWay(passage) = engine.at_prerouting(&mut buffer, &handed(probe.len(), WAN), &mut ()) else {
        panic!("it is accepted")
    };
    assert_eq!(buffer, udp(SERVER, 9, CLIENT, 53, b"probe"));
    engine.lost(&passage, &mut ());
    let mut answer = error(NAT, SERVER, 11, 0, 0, &buffer);
    let len = answer.len();
    let entered = engine.at_local_out(&mut answer, Some(passage.tracked()), &handed(len, WAN), &mut ());
    let Entered::OnItsWay(passage) = entered else { panic!("it is accepted") };
    assert_eq!(passage.tracked().ctinfo, CtInfo::RelatedReply);
    assert!(engine.has_more_to_do(&passage), "its source is the host behind the NAT");
    let ruling = engine.at_postrouting(&mut answer, passage, &handed(len, WAN), &mut ());
    assert_eq!((ruling.verdict, ruling.hook), (Verdict::Accept, Hook::LocalOut));
    assert_eq!(answer[28..], probe, "the quote is as it was sent");
    assert!(checksums_are_right(&answer));
    assert!(engine.conntrack.table.is_empty());
}

/// A reset ended the connection while one of its packets was between its hooks. A kernel's packet holds on to its entry.
#[test]
fn a_packet_whose_entry_is_gone_does_not_leave_untranslated() {
    for (l3num, client, server, nat) in [(L3::V4, CLIENT, SERVER, NAT), (L3::V6, CLIENT6, SERVER6, NAT6)] {
        let rules = format!("*nat\n-A POSTROUTING -s {client} -j SNAT --to-source {nat}\nCOMMIT\n");
        let [mut engine, _] = boxes(&rules, l3num);
        by_stages(&mut engine, &udp(client, 4000, server, 7, b"out"), LAN);
        let mut packet = udp(client, 4000, server, 7, b"held");
        let len = packet.len();
        let Entered::OnItsWay(passage) = engine.at_prerouting(&mut packet, &handed(len, LAN), &mut ()) else {
            panic!("it is accepted")
        };
        assert!(engine.has_more_to_do(&passage));
        let flow = engine.conntrack.table.iter().next().map(|(_, entry)| (entry.flow, entry.id)).unwrap();
        assert!(engine.forget(flow.0.tuple(Direction::Original), flow.0.zone, Some(flow.1), Time(0)));
        let ruling = engine.at_postrouting(&mut packet, passage, &handed(len, WAN), &mut ());
        assert_eq!(ruling.verdict, Verdict::Accept);
        assert_eq!(packet, udp(nat, 4000, server, 7, b"held"));
    }
}
