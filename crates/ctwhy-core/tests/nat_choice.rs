//! What NAT chooses, where a kernel's draw is known and where addresses go away. Catalogue D.3, D.4, NAT-SET-08, NAT-SET-10.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::direction::Direction;
use ctwhy_core::event::{Event, EventKind};
use ctwhy_core::hook::{Engine, Verdict};
use ctwhy_core::nat::range::Range;
use ctwhy_core::nat::rules::{Ruleset, Target};
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

/// A protocol whose ports or ids are drawn: a first packet, and where the drawn number stands in it.
struct Drawn {
    name: &'static str,
    first: fn(from: &str, number: u16, to: &str) -> Vec<u8>,
    protonum: u8,
    at: usize,
    /// What may be drawn for 40000 where a rule names no ports, and what may not.
    fits: &'static [u16],
    refused: &'static [u16],
}

const CLASS: (&[u16], &[u16]) = (&[1_024, 55_555, 65_535], &[0, 1, 600, 1_023]);
const ANY: (&[u16], &[u16]) = (&[0, 1, 600, 1_023, 55_555, 65_535], &[]);

fn drawn_protocols(six: bool) -> Vec<Drawn> {
    let header: usize = if six { 40 } else { 20 };
    let of =
        |name, first, protonum, at, (fits, refused)| Drawn { name, first, protonum, at: header + at, fits, refused };
    vec![
        of("udp", |from, port, to| udp(from, port, to, 53, b"query"), proto::UDP, 0, CLASS),
        of("tcp", |from, port, to| tcp_syn(from, port, to, 80), proto::TCP, 0, CLASS),
        of("udplite", |from, port, to| udplite(from, port, to, 53, 8, b"query"), proto::UDPLITE, 0, CLASS),
        of("sctp", |from, port, to| sctp(from, port, to, 9, 0, &[init(7)]), proto::SCTP, 0, CLASS),
        of(
            "echo",
            |from, id, to| echo(from, to, if from.contains(':') { 128 } else { 8 }, id, 1),
            if six { proto::ICMPV6 } else { proto::ICMP },
            4,
            ANY,
        ),
    ]
}

/// NAT-PORT-07, NAT-PORT-08, NAT-PORT-14: of every protocol, a draw that the rule allows is adopted, and one that it does not
/// allow is refused, so that it shows as a difference.
#[test]
fn draws_of_every_protocol_are_adopted_where_the_rule_allows_them() {
    for six in [false, true] {
        let (client, nat, server) = if six { (CLIENT6, NAT6, SERVER6) } else { (CLIENT, NAT, SERVER) };
        let address = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap());
        let random = Range { random: true, ..Range::default() };
        let ports = Range { ports: Some((5_000, 5_299)), ..random };
        for protocol in drawn_protocols(six) {
            let cases =
                [(random, protocol.fits, protocol.refused), (ports, &[5_000, 5_150, 5_299], &[4_999, 5_300, 40_000])];
            for (range, fits, refused) in cases {
                for (number, fits) in
                    fits.iter().map(|fits| (*fits, true)).chain(refused.iter().map(|not| (*not, false)))
                {
                    let mut engine = nat_box(|_| masquerade(range));
                    let l3num = if six { L3::V6 } else { L3::V4 };
                    let (src, dst) = (address(nat), address(server));
                    engine.foretell(Some(Tuple {
                        l3num,
                        src,
                        dst,
                        protonum: protocol.protonum,
                        src_u: number,
                        dst_u: 0,
                    }));
                    let mut packet = (protocol.first)(client, 40_000, server);
                    let len = packet.len();
                    let ruling = engine.receive(&mut packet, len, LAN, Time(0), &mut ());
                    assert_eq!(ruling.verdict, Verdict::Accept);
                    let left = get16(&packet, protocol.at);
                    assert_eq!(
                        left == number,
                        fits,
                        "{}: {number} was foretold for {range:?}, {left} came",
                        protocol.name
                    );
                    assert!(engine.has_drawn());
                    // Somebody else draws the same, which is taken then.
                    let mut packet = (protocol.first)(if six { "2001:db8:1::3" } else { "10.0.1.3" }, 40_000, server);
                    engine.receive(&mut packet, len, LAN, Time(0), &mut ());
                    assert_ne!(get16(&packet, protocol.at), left);
                }
            }
        }
    }
}

/// The address of a range is not drawn, but computed: what is foretold has no say, and another one shows as a difference.
#[test]
fn the_address_of_a_range_is_not_left_to_chance() {
    let address = |last: u8| Addr::from(std::net::IpAddr::from([203, 0, 113, last]));
    let snat = Target::Snat(Range { addresses: Some((address(16), address(90))), ..Range::default() });
    let left = |foretold: Option<u8>| {
        let mut engine = nat_box(|_| Ruleset { postrouting: rule(snat), ..Ruleset::default() });
        engine.foretell(foretold.and_then(|last| Some(Tuple { src: address(last), ..drawn(40_000)? })));
        let mut packet = udp(CLIENT, 40_000, SERVER, 53, b"query");
        let len = packet.len();
        engine.receive(&mut packet, len, LAN, Time(0), &mut ());
        assert!(!engine.has_drawn());
        packet[15]
    };
    let computed = left(None);
    assert!((16..=90).contains(&computed));
    assert!((16..=90).all(|foretold| left(Some(foretold)) == computed));
}

/// NAT-PORT-03: with `--random` ports of a destination are drawn, too, from those of the rule.
#[test]
fn a_destination_port_is_drawn_from_the_range_of_its_rule() {
    let inside = Addr::from(ip(CLIENT));
    for (foretold, adopted) in
        [(2_000, true), (2_150, true), (2_299, true), (1_999, false), (2_300, false), (80, false)]
    {
        let range =
            Range { addresses: Some((inside, inside)), ports: Some((2_000, 2_299)), random: true, ..Range::default() };
        let mut engine = nat_box(|l3num| match l3num {
            L3::V4 => Ruleset { prerouting: rule(Target::Dnat(range)), ..Ruleset::default() },
            L3::V6 => Ruleset::default(),
        });
        let (src, dst) = (Addr::from(ip(SERVER)), inside);
        let leaves_as = Tuple { l3num: L3::V4, src, dst, protonum: proto::UDP, src_u: 5_000, dst_u: foretold };
        engine.foretell(Some(leaves_as));
        let mut packet = udp(SERVER, 5_000, NAT, 80, b"request");
        let len = packet.len();
        engine.receive(&mut packet, len, Some(1), Time(0), &mut ());
        assert_eq!(get16(&packet, 22) == foretold, adopted, "{foretold}");
        assert!((2_000..2_300).contains(&get16(&packet, 22)));
    }
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
