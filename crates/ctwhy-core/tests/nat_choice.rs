//! What NAT chooses, where a kernel's draw is known and where addresses go away. Catalogue D.3, D.4, NAT-SET-08, NAT-SET-10.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::direction::Direction;
use ctwhy_core::event::{Event, EventKind};
use ctwhy_core::hook::{Engine, Verdict};
use ctwhy_core::nat::range::Range;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Addr, L3, Tuple, proto};

const LAN: Option<u16> = Some(0);

/// The port that a datagram of a new flow leaves with.
fn leaves_from(engine: &mut Engine, sport: u16, to: &str) -> u16 {
    let packet = udp(CLIENT, sport, to, 53, b"query");
    let mut buffer = packet.clone();
    let ruling = engine.receive(&mut buffer, packet.len(), LAN, Time(0), &mut ());
    assert_eq!(ruling.verdict, Verdict::Accept);
    u16::from_be_bytes([buffer[20], buffer[21]])
}

fn drawn(port: u16) -> Option<Tuple> {
    let address = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap());
    let (src, dst) = (address(NAT), address(SERVER));
    Some(Tuple { l3num: L3::V4, src, dst, protonum: proto::UDP, src_u: port, dst_u: 53 })
}

/// NAT-PORT-14: what a kernel drew is adopted where its rule allows it, and nowhere else.
#[test]
fn a_draw_is_adopted_only_where_the_rule_allows_it() {
    let random = Range { random: true, ..Range::default() };
    for (range, sport, foretold, adopted) in [
        (random, 40_000, 55_555, true),
        (random, 40_000, 1_024, true),
        (random, 40_000, 1_023, false),
        (random, 700, 600, true),
        (random, 700, 599, false),
        (random, 100, 511, true),
        (random, 100, 512, false),
        (Range { ports: Some((5_000, 5_003)), ..Range::default() }, 40_000, 5_002, true),
        (Range { ports: Some((5_000, 5_003)), ..Range::default() }, 40_000, 5_004, false),
        // Nothing is drawn for a port that can be kept.
        (Range::default(), 40_000, 55_555, false),
    ] {
        let mut engine = nat_box(|_| masquerade(range));
        engine.foretell(drawn(foretold));
        let left = leaves_from(&mut engine, sport, SERVER);
        assert_eq!(left == foretold, adopted, "{range:?} {sport}: {foretold} was foretold, {left} came");
        assert_eq!(engine.has_drawn(), range != Range::default());
    }
    // One that is taken is not adopted either.
    let mut engine = nat_box(|_| masquerade(random));
    engine.foretell(drawn(55_555));
    assert_eq!(leaves_from(&mut engine, 40_000, SERVER), 55_555);
    assert_ne!(leaves_from(&mut engine, 40_001, SERVER), 55_555);
}

/// D.3, step 1b: a client keeps its public port towards other servers, that of its latest flow.
#[test]
fn the_latest_mapping_of_a_source_is_used_again() {
    let ports = Range { ports: Some((5_000, 5_009)), ..Range::default() };
    let mut engine = nat_box(|_| masquerade(ports));
    engine.foretell(drawn(5_003));
    assert_eq!(leaves_from(&mut engine, 40_000, SERVER), 5_003);
    engine.foretell(drawn(5_007));
    assert_eq!(leaves_from(&mut engine, 40_000, ROUTER), 5_003);
    assert_eq!(leaves_from(&mut engine, 40_001, SERVER), 5_007);
}

/// NAT-SET-10: flows that were masqueraded with an address go with it, others stay.
#[test]
fn masqueraded_flows_go_with_their_address() {
    let mut engine = nat_box(|_| masquerade(Range::default()));
    leaves_from(&mut engine, 40_000, SERVER);
    let (_, entry) = engine.conntrack.table.iter().next().unwrap();
    let (own, interface) = (entry.flow.tuple(Direction::Reply).dst, entry.flow.masquerade_interface.unwrap());
    let mut events: Vec<Event> = Vec::new();
    let other = Addr::from("203.0.113.77".parse::<std::net::IpAddr>().unwrap());
    engine.address_lost(interface, L3::V4, other, Time(1), &mut events);
    engine.address_lost(interface + 1, L3::V4, own, Time(1), &mut events);
    engine.interface_lost(interface + 1, Time(1), &mut events);
    assert_eq!((engine.conntrack.table.len(), events.len()), (1, 0));
    engine.address_lost(interface, L3::V4, own, Time(1), &mut events);
    assert!(engine.conntrack.table.is_empty());
    assert_eq!(events.iter().map(Event::kind).collect::<Vec<_>>(), [EventKind::Destroy]);
    leaves_from(&mut engine, 40_000, SERVER);
    engine.interface_lost(interface, Time(1), &mut ());
    assert!(engine.conntrack.table.is_empty());
}

/// NAT-SET-08: who asks for an address has none that could be translated.
#[test]
fn a_packet_without_source_address_is_not_masqueraded() {
    let mut engine = nat_box(|_| masquerade(Range::default()));
    let packet = udp("0.0.0.0", 68, SERVER, 67, b"discover");
    let mut buffer = packet.clone();
    engine.receive(&mut buffer, packet.len(), LAN, Time(0), &mut ());
    assert_eq!(buffer[12..16], [0; 4]);
    let (_, entry) = engine.conntrack.table.iter().next().unwrap();
    assert_eq!(entry.flow.status.0, 0x188);
}
