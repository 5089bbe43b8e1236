//! What kernels of other releases do that no recorded case shows. Catalogue part J.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::confirm::ConfirmDrop;
use ctwhy_core::hook::{DropCause, Engine, Entered, Ruling, Verdict};
use ctwhy_core::nat::range::Range;
use ctwhy_core::nat::rules::{Ruleset, Target};
use ctwhy_core::profile::Profile;
use ctwhy_core::time::Time;
use ctwhy_core::track::icmpv6;
use ctwhy_core::tuple::{Addr, L3, proto};

fn like(mut engine: Engine, release: &str) -> Engine {
    engine.conntrack.table.kernel = Profile::for_release(release).unwrap();
    engine
}

/// What becomes of the second of two packets that are behind conntrack before either of them is confirmed.
fn second_of_two(mut engine: Engine, packet: &[u8]) -> Ruling {
    let enter = |engine: &mut Engine| {
        let mut buffer = packet.to_vec();
        match engine.enter(&mut buffer, packet.len(), None, Time(0), &mut ()) {
            Entered::OnItsWay(passage) => (buffer, passage),
            Entered::Ended(ruling) => panic!("ended: {ruling:?}"),
        }
    };
    let [(mut first, one), (mut second, other)] = [enter(&mut engine), enter(&mut engine)];
    assert_eq!(engine.proceed(&mut first, one, Time(0), &mut ()).verdict, Verdict::Accept);
    engine.proceed(&mut second, other, Time(0), &mut ())
}

/// VER-05, VER-09, CLASH-02: in which protocols two packets of one new flow may both pass.
#[test]
fn ver_09_a_clash_of_gre_or_of_an_unknown_protocol_cost_a_packet_in_older_releases() {
    let header = [0x30, 0x01, 0x88, 0x0b, 0, 0, 0, 9, 0, 0, 0, 1];
    for (release, gre, generic) in [
        ("6.1.80", false, false),
        ("6.1.165", false, true),
        ("6.12.74", true, false),
        ("6.12.75", true, true),
        ("6.13.2", true, false),
        ("6.18.44", true, true),
    ] {
        for (protonum, passes) in [(proto::GRE, gre), (99, generic), (proto::UDP, true), (proto::TCP, false)] {
            let packet = match protonum {
                proto::UDP => udp(CLIENT, 4000, SERVER, 53, b"query"),
                proto::TCP => tcp_syn(CLIENT, 4000, SERVER, 80),
                _ => packet(CLIENT, SERVER, protonum, 57, &header),
            };
            let dropped = match second_of_two(like(Engine::new(0), release), &packet).verdict {
                Verdict::Drop(DropCause::Confirm(ConfirmDrop::Clash { .. })) => true,
                Verdict::Accept => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(dropped, !passes, "{release}, protocol {protonum}");
        }
    }
}

/// VER-10, NAT-PORT-03: where the search for a port of a DNAT range begins.
#[test]
fn ver_10_a_range_of_destination_ports_was_drawn_from_in_6_1() {
    let server = Addr::from(SERVER.parse::<std::net::IpAddr>().unwrap());
    let range = Range { ports: Some((1, 60_000)), ..Range::address(server) };
    let dnat = |_: L3| Ruleset { prerouting: rule(Target::Dnat(range)), ..Ruleset::default() };
    for (release, in_order) in [("6.1.192", false), ("6.12.0", true), ("6.18.44", true)] {
        let mut engine = like(nat_box(dnat), release);
        let packet = udp(ROUTER, 4000, NAT, 61_000, b"query");
        let mut buffer = packet.clone();
        let ruling = engine.receive(&mut buffer, packet.len(), Some(1), Time(0), &mut ());
        assert_eq!(ruling.verdict, Verdict::Accept);
        assert_eq!(get16(&buffer, 22) == 1, in_order, "{release}: {}", get16(&buffer, 22));
        assert_eq!(engine.has_drawn(), !in_order, "{release}");
    }
}

/// VER-11, ICMP6-U-01.
#[test]
fn ver_11_multicast_router_discovery_was_tracked_in_6_1() {
    for (release, untracked) in [("6.1.192", false), ("6.12.0", true), ("6.18.44", true)] {
        let kernel = Profile::for_release(release).unwrap();
        assert_eq!([151, 152].map(|kind| icmpv6::is_untracked(kind, kernel)), [untracked; 2], "{release}");
        assert!(icmpv6::is_untracked(135, kernel) && !icmpv6::is_untracked(128, kernel));
    }
}
