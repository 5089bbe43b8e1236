//! NAT beyond the kernel: each option does what its RFC asks, and without any everything is as ever.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use common::*;
use ctwhy_core::hook::{DropCause, Egress, Engine, Ruling, Verdict};
use ctwhy_core::nat::NatDrop;
use ctwhy_core::nat::blocks::PortBlocks;
use ctwhy_core::nat::options::{Filtering, Options};
use ctwhy_core::nat::range::Range;
use ctwhy_core::nat::rules::{Ruleset, Target};
use ctwhy_core::rules::{Condition, Matches, Network as Prefix};
use ctwhy_core::time::Time;
use ctwhy_core::trace::{BeyondStep, Step, Trace};
use ctwhy_core::tuple::{Addr, L3};
use proptest::prelude::*;

const LAN: Option<u16> = Some(0);
const WAN: Option<u16> = Some(1);
const OTHER: &str = "10.0.1.3";
const OTHER6: &str = "2001:db8:1::3";

/// Client, another client, NAT, server, another server.
const FAMILIES: [[&str; 5]; 2] = [[CLIENT, OTHER, NAT, SERVER, ROUTER], [CLIENT6, OTHER6, NAT6, SERVER6, ROUTER6]];

fn mapping(filtering: Filtering) -> Options {
    Options { mapping: Some(filtering), ..Options::KERNEL }
}

fn with(options: Options, rules: impl Fn(L3) -> Ruleset) -> Engine {
    let mut engine = nat_box(rules);
    engine.set_nat_options(options);
    engine
}

/// MASQUERADE of what leaves by `wan`.
fn out_by_wan(range: Range) -> Ruleset {
    let mut rules = masquerade(range);
    let wan = Condition { negated: false, value: "wan".to_string() };
    rules.postrouting.rules[0].matches = Matches { out_interface: Some(wan), ..Matches::default() };
    rules
}

/// A packet through the box: what was decided, and how it left.
fn pass(engine: &mut Engine, packet: &[u8], interface: Option<u16>) -> (Ruling, Vec<u8>) {
    pass_traced(engine, packet, interface, &mut Trace::default())
}

fn pass_traced(engine: &mut Engine, packet: &[u8], interface: Option<u16>, trace: &mut Trace) -> (Ruling, Vec<u8>) {
    let mut buffer = packet.to_vec();
    let ruling = engine.receive(&mut buffer, packet.len(), interface, Time(0), trace);
    if matches!((ruling.verdict, ruling.egress), (Verdict::Accept, Egress::Forwarded(_))) {
        assert!(checksums_are_right(&buffer), "{buffer:02x?}");
    }
    for step in &trace.steps {
        assert!(!step.to_string().is_empty() && !step.name().is_empty());
    }
    engine.conntrack.table.audit().unwrap();
    (ruling, buffer)
}

fn dropped(ruling: &Ruling) -> Option<NatDrop> {
    match ruling.verdict {
        Verdict::Drop(DropCause::Nat(cause)) => {
            assert!(!cause.to_string().is_empty() && cause.code().starts_with("nat."));
            Some(cause)
        }
        Verdict::Drop(cause) => panic!("{cause}"),
        Verdict::Accept => None,
    }
}

const fn header(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

fn sport(packet: &[u8]) -> u16 {
    get16(packet, header(packet))
}

fn id(packet: &[u8]) -> u16 {
    get16(packet, header(packet) + 4)
}

#[test]
fn an_engine_begins_as_the_kernel() {
    assert_eq!(Options::default(), Options::KERNEL);
    assert_eq!(*Engine::new(1).nat_options(), Options::KERNEL);
}

/// RFC 4787 REQ-1 and REQ-3: two clients with one port, each towards two servers. The kernel lets both keep it.
#[test]
fn req_1_an_end_inside_has_one_end_outside_and_shares_it_with_nobody() {
    for [client, other, nat, server, router] in FAMILIES {
        let more = if nat == NAT { ["192.0.2.9", "192.0.2.10"] } else { ["2001:db8:9::9", "2001:db8:9::10"] };
        for (options, ports) in
            [(Options::KERNEL, [40_000; 4]), (mapping(Filtering::EndpointIndependent), [40_000, 0, 0, 40_000])]
        {
            let mut engine = with(options, |_| masquerade(Range::default()));
            let mut leaves = |from: &str, to: &str| {
                let (ruling, left) = pass(&mut engine, &udp(from, 40_000, to, 53, b"query"), LAN);
                assert_eq!(dropped(&ruling), None);
                sport(&left)
            };
            let left = [leaves(client, server), leaves(other, router), leaves(other, more[0]), leaves(client, more[1])];
            for (left, expected) in left.into_iter().zip(ports) {
                assert!(if expected == 0 { left != 40_000 } else { left == expected }, "{left}, not {expected}");
            }
            if options.mapping.is_some() {
                assert_eq!(left[1], left[2]);
            }
        }
    }
}

/// The same for TCP (RFC 5382 REQ-1) and for ids (RFC 5508), where ports are drawn although they are free.
#[test]
fn req_1_holds_for_tcp_and_for_ids_and_whatever_is_drawn() {
    for [client, other, _, server, router] in FAMILIES {
        let request = if client.contains(':') { 128 } else { 8 };
        let random = Range { random: true, ..Range::default() };
        for range in [Range::default(), random] {
            let mut engine = with(mapping(Filtering::EndpointIndependent), |_| masquerade(range));
            for (from, number) in [(client, 7), (other, 7)] {
                let ports = [server, router].map(|to| sport(&pass(&mut engine, &tcp_syn(from, number, to, 80), LAN).1));
                let ids = [server, router].map(|to| id(&pass(&mut engine, &echo(from, to, request, number, 1), LAN).1));
                assert_eq!((ports[0], ids[0]), (ports[1], ids[1]), "{range:?}");
                assert!(ports[0] < 512, "{}", ports[0]);
            }
            let mut outside = BTreeMap::new();
            for (_, entry) in engine.conntrack.table.iter() {
                let [original, reply] = entry.flow.tuples;
                let end = (reply.protonum, reply.dst, if reply.is_icmp() { reply.src_u } else { reply.dst_u });
                assert_eq!(*outside.entry(end).or_insert(original.src), original.src);
            }
            assert_eq!(outside.len(), 4);
        }
    }
}

/// RFC 4787 REQ-2: of several addresses outside a client has one. The kernel takes another for each server.
#[test]
fn req_2_an_address_inside_has_one_address_outside() {
    let (first, last) = (Addr::from(ip("203.0.113.16")), Addr::from(ip("203.0.113.90")));
    let snat = Target::Snat(Range { addresses: Some((first, last)), ..Range::default() });
    for (options, several) in [(Options::KERNEL, true), (mapping(Filtering::EndpointIndependent), false)] {
        let mut engine = with(options, |_| Ruleset { postrouting: rule(snat), ..Ruleset::default() });
        let mut leaves =
            |port: u16, to: &str| pass(&mut engine, &udp(CLIENT, port, to, 53, b""), LAN).1[12..16].to_vec();
        let mut left = vec![leaves(1, SERVER), leaves(2, ROUTER), leaves(3, "192.0.2.9"), leaves(4, "192.0.2.77")];
        left.dedup();
        assert_eq!(left.len() > 1, several);
    }
}

/// RFC 4787 REQ-4: who cannot have its own port gets an even one for an even one.
#[test]
fn req_4_ports_stay_even_or_odd() {
    let mut engine = with(mapping(Filtering::EndpointIndependent), |_| masquerade(Range::default()));
    for port in 5_000..5_040 {
        assert_eq!(sport(&pass(&mut engine, &udp(CLIENT, port, SERVER, 53, b""), LAN).1), port);
        let moved = sport(&pass(&mut engine, &udp(OTHER, port, SERVER, 53, b""), LAN).1);
        assert_ne!(moved, port);
        assert_eq!(moved % 2, port % 2);
    }
}

/// RFC 4787 REQ-8: a packet that nobody asked for, by who may send one.
#[test]
fn req_8_who_may_send_unasked() {
    use Filtering::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    for [client, _, nat, server, router] in FAMILIES {
        for (options, from, port, delivered) in [
            (mapping(EndpointIndependent), router, 9, Some(true)),
            (mapping(EndpointIndependent), server, 9, Some(true)),
            (mapping(AddressDependent), server, 9, Some(true)),
            (mapping(AddressDependent), router, 9, Some(false)),
            (mapping(AddressAndPortDependent), server, 9, Some(false)),
            (mapping(AddressAndPortDependent), router, 53, Some(false)),
            (mapping(AddressAndPortDependent), server, 53, Some(true)),
            (Options::KERNEL, server, 9, None),
        ] {
            for tcp in [false, true] {
                let mut engine =
                    with(options, |_| out_by_wan(Range { ports: Some((6_000, 6_000)), ..Range::default() }));
                let sends = |from: &str, port: u16, to: &str, dport: u16| match tcp {
                    true => tcp_syn(from, port, to, dport),
                    false => udp(from, port, to, dport, b"hello"),
                };
                pass(&mut engine, &sends(client, 40_000, server, 53), LAN);
                let (ruling, left) = pass(&mut engine, &sends(from, port, nat, 6_000), WAN);
                match delivered {
                    None => assert_eq!((dropped(&ruling), ruling.egress), (None, Egress::Local)),
                    Some(false) => {
                        assert_eq!(dropped(&ruling), Some(NatDrop::Filtered { address: ip(nat), port: 6_000 }));
                        assert_eq!(engine.conntrack.table.len(), 1);
                    }
                    Some(true) => {
                        assert_eq!((dropped(&ruling), ruling.egress), (None, Egress::Forwarded(LAN)));
                        assert_eq!(left, aged(sends(from, port, client, 40_000)));
                        // The answer leaves as the end outside, and so does what the client sends to anybody else.
                        let (_, answer) = pass(&mut engine, &udp(client, 40_000, from, port, b"yes"), LAN);
                        if !tcp {
                            assert_eq!(answer, aged(udp(nat, 6_000, from, port, b"yes")));
                        }
                    }
                }
                // A port that stands for nobody is the host's own.
                let (ruling, _) = pass(&mut engine, &sends(from, port, nat, 6_001), WAN);
                assert_eq!((dropped(&ruling), ruling.egress), (None, Egress::Local));
            }
        }
    }
}

/// An error about a packet that came unasked goes the same way back.
#[test]
fn errors_follow_flows_that_came_unasked() {
    for [client, _, nat, server, router] in FAMILIES {
        let unreachable = if client.contains(':') { (1, 4) } else { (3, 3) };
        let range = Range { ports: Some((6_000, 6_000)), ..Range::default() };
        let mut engine = with(mapping(Filtering::EndpointIndependent), |_| out_by_wan(range));
        pass(&mut engine, &udp(client, 40_000, server, 53, b"query"), LAN);
        let (_, came) = pass(&mut engine, &udp(router, 9, nat, 6_000, b"hello"), WAN);
        let (_, left) = pass(&mut engine, &error(client, router, unreachable.0, unreachable.1, 0, &came), LAN);
        let as_sent = aged(udp(router, 9, nat, 6_000, b"hello"));
        assert_eq!(left, aged(error(nat, router, unreachable.0, unreachable.1, 0, &as_sent)));
    }
}

/// A mapping lives as long as any flow by it, also where that came from outside; then the end outside is free.
#[test]
fn a_mapping_goes_with_the_last_of_its_flows() {
    let mut engine = with(mapping(Filtering::EndpointIndependent), |_| out_by_wan(Range::default()));
    let mut at = |packet: &[u8], interface, seconds| {
        let mut buffer = packet.to_vec();
        let now = Time(0).plus_secs(seconds);
        let ruling = engine.receive(&mut buffer, packet.len(), interface, now, &mut ());
        (ruling.egress, buffer)
    };
    at(&udp(CLIENT, 40_000, SERVER, 53, b""), LAN, 0);
    assert_eq!(at(&udp(ROUTER, 9, NAT, 40_000, b""), WAN, 20).0, Egress::Forwarded(LAN));
    // The flow that made it is over after 30 seconds; the other one keeps the port from somebody else.
    assert_ne!(sport(&at(&udp(OTHER, 40_000, SERVER, 53, b""), LAN, 40).1), 40_000);
    assert_eq!(sport(&at(&udp(CLIENT, 40_000, "192.0.2.9", 53, b""), LAN, 41).1), 40_000);
    // After all are over it is anybody's.
    assert_eq!(at(&udp(ROUTER, 9, NAT, 40_000, b""), WAN, 100).0, Egress::Local);
    assert_eq!(sport(&at(&udp("10.0.1.4", 40_000, SERVER, 53, b""), LAN, 200).1), 40_000);
}

/// What was there before the option is known to it; and a flow that would need another port is dropped instead.
#[test]
fn a_mapping_is_kept_or_the_packet_dropped() {
    let mut engine = nat_box(|_| out_by_wan(Range::default()));
    pass(&mut engine, &udp(CLIENT, 40_000, SERVER, 53, b""), LAN);
    // Somebody talks to the host itself, by the port that the client has towards others.
    pass(&mut engine, &udp(ROUTER, 53, NAT, 40_000, b""), WAN);
    engine.set_nat_options(mapping(Filtering::EndpointIndependent));
    let mut trace = Trace::default();
    let (ruling, _) = pass_traced(&mut engine, &udp(CLIENT, 40_000, ROUTER, 53, b""), LAN, &mut trace);
    assert_eq!(dropped(&ruling), Some(NatDrop::MappingTaken { address: ip(NAT), port: 40_000 }));
    assert!(trace.steps.iter().any(|step| matches!(step, Step::Beyond(BeyondStep::MappingKept { .. }))));
    engine.set_nat_options(Options::KERNEL);
    let (ruling, left) = pass(&mut engine, &udp(CLIENT, 40_000, ROUTER, 53, b""), LAN);
    assert_eq!(dropped(&ruling), None);
    assert_ne!(sport(&left), 40_000);
}

/// RFC 4787 REQ-9: two clients talk by their ends outside, and an error finds its way back.
#[test]
fn req_9_a_hairpin_has_both_ends_outside() {
    for [client, other, nat, server, _] in FAMILIES {
        let unreachable = if client.contains(':') { (1, 4) } else { (3, 3) };
        let options = Options { hairpin: true, ..mapping(Filtering::EndpointIndependent) };
        let mut engine = with(options, |_| out_by_wan(Range { random: true, ..Range::default() }));
        let mut outside = |from: &str| sport(&pass(&mut engine, &udp(from, 40_000, server, 53, b""), LAN).1);
        let (one, two) = (outside(client), outside(other));
        assert_ne!(one, two);
        let mut trace = Trace::default();
        let (ruling, left) = pass_traced(&mut engine, &udp(client, 40_000, nat, two, b"you?"), LAN, &mut trace);
        assert_eq!((dropped(&ruling), ruling.egress), (None, Egress::Forwarded(LAN)));
        assert_eq!(left, aged(udp(nat, one, other, 40_000, b"you?")));
        assert!(trace.steps.contains(&Step::Beyond(BeyondStep::Hairpin { interface: 1 })));
        let (_, refused) = pass(&mut engine, &error(other, nat, unreachable.0, unreachable.1, 0, &left), LAN);
        let as_sent = aged(udp(client, 40_000, nat, two, b"you?"));
        assert_eq!(refused, aged(error(nat, client, unreachable.0, unreachable.1, 0, &as_sent)));
        let (_, answer) = pass(&mut engine, &udp(other, 40_000, nat, one, b"me"), LAN);
        assert_eq!(answer, aged(udp(nat, two, client, 40_000, b"me")));
    }
}

/// Without mappings, too: a forwarded port that somebody inside asks for by the address outside.
#[test]
fn a_hairpin_by_a_rule_is_translated_unless_a_rule_says_otherwise() {
    let dnat = |to: &str, port| {
        let to = Addr::from(ip(to));
        Target::Dnat(Range { addresses: Some((to, to)), ports: Some((port, port)), ..Range::default() })
    };
    for [client, other, nat, server, _] in FAMILIES {
        let family = if client.contains(':') { L3::V6 } else { L3::V4 };
        let rules = |first: Option<Target>| {
            move |l3num| {
                let mut rules = out_by_wan(Range::default());
                rules.postrouting.rules.extend(first.map(|first| rule(first).rules.remove(0)));
                let prerouting = if l3num == family { rule(dnat(other, 8_080)) } else { rule(Target::Accept) };
                Ruleset { prerouting, ..rules }
            }
        };
        let asked = udp(client, 40_000, nat, 80, b"page?");
        for (hairpin, first, source) in [(true, None, nat), (false, None, client), (true, Some(Target::Accept), client)]
        {
            let mut engine = with(Options { hairpin, ..Options::KERNEL }, rules(first));
            let (_, left) = pass(&mut engine, &asked, LAN);
            assert_eq!(left, aged(udp(source, 40_000, other, 8_080, b"page?")), "{hairpin} {first:?}");
        }
        // Who comes from outside keeps its address.
        let mut engine = with(Options { hairpin: true, ..Options::KERNEL }, rules(None));
        let (_, left) = pass(&mut engine, &udp(server, 9, nat, 80, b"page?"), WAN);
        assert_eq!(left, aged(udp(server, 9, other, 8_080, b"page?")));
    }
}

fn blocks(size: u16, first: u16) -> PortBlocks {
    let inside = Prefix { address: Addr::from(ip("10.0.1.0")), prefix: 24 };
    PortBlocks { l3num: L3::V4, inside, size: NonZeroU16::new(size).unwrap(), first }
}

/// RFC 7422: a block that is exhausted, by what is still free in it: ports towards another server, unless mappings are
/// endpoint-independent.
#[test]
fn a_block_that_is_exhausted_drops_with_a_cause() {
    for (filtering, free_elsewhere) in [(None, true), (Some(Filtering::EndpointIndependent), false)] {
        let options = Options { mapping: filtering, blocks: Some(blocks(16, 2_000)), ..Options::KERNEL };
        let mut engine = with(options, |_| masquerade(Range::default()));
        // 10.0.1.2 is the third address.
        let mut seen = Vec::new();
        for port in 40_000..40_016 {
            let (ruling, left) = pass(&mut engine, &udp(CLIENT, port, SERVER, 53, b""), LAN);
            assert_eq!(dropped(&ruling), None);
            seen.push(sport(&left));
        }
        seen.sort_unstable();
        assert_eq!(seen, (2_032..=2_047).collect::<Vec<u16>>());
        let (ruling, _) = pass(&mut engine, &udp(CLIENT, 40_016, SERVER, 53, b""), LAN);
        assert_eq!(dropped(&ruling), Some(NatDrop::NoPort { address: ip(NAT), first: 2_032, last: 2_047 }));
        let (ruling, _) = pass(&mut engine, &udp(CLIENT, 40_016, ROUTER, 53, b""), LAN);
        assert_eq!(dropped(&ruling).is_none(), free_elsewhere);
        // The block of somebody else is not touched, and TCP has ports of its own.
        assert_eq!(dropped(&pass(&mut engine, &udp(OTHER, 40_000, SERVER, 53, b""), LAN).0), None);
        assert_eq!(dropped(&pass(&mut engine, &tcp_syn(CLIENT, 40_000, SERVER, 80), LAN).0), None);
    }
}

#[test]
fn an_address_without_a_block_is_told_so() {
    // There are two blocks, 5000 to 34999 and 35000 to 64999, and what the rule allows has to be in them as well.
    for (inside, ports, range) in [
        ("10.0.1.0", None, Some(5_000..=34_999)),
        ("10.0.1.1", None, Some(35_000..=64_999)),
        ("10.0.1.2", None, None),
        ("10.0.1.0", Some((30_000, 40_000)), Some(30_000..=34_999)),
        ("10.0.1.1", Some((30_000, 40_000)), Some(35_000..=40_000)),
        ("10.0.1.0", Some((40_000, 60_000)), None),
        // Not one of those inside: as ever.
        ("10.0.2.1", None, Some(9..=9)),
    ] {
        let options = Options { blocks: Some(blocks(30_000, 5_000)), ..Options::KERNEL };
        let mut engine = with(options, |_| masquerade(Range { ports, ..Range::default() }));
        let (ruling, left) = pass(&mut engine, &udp(inside, 9, SERVER, 53, b""), LAN);
        match range {
            Some(range) => assert!(range.contains(&sport(&left)) && dropped(&ruling).is_none(), "{inside} {ports:?}"),
            None => assert_eq!(dropped(&ruling), Some(NatDrop::NoBlock { inside: ip(inside) })),
        }
    }
}

proptest! {
    /// RFC 4787 REQ-1 and RFC 7422 for whatever is sent, in any order, with or without blocks.
    #[test]
    fn each_end_inside_has_one_end_outside_in_its_block(
        packets in prop::collection::vec((2u8..6, 0u16..12, 0u8..5, 0u8..3), 1..120),
        random: bool,
        blocked: bool,
        independent: bool,
    ) {
        let own = blocks(10, 3_000);
        let options = Options {
            mapping: independent.then_some(Filtering::AddressDependent),
            blocks: blocked.then_some(own),
            ..Options::KERNEL
        };
        let mut engine = with(options, |_| masquerade(Range { random, ..Range::default() }));
        let mut outside = BTreeMap::new();
        let mut inside = BTreeMap::new();
        for (host, port, to, protocol) in packets {
            let from = format!("10.0.1.{host}");
            let to = format!("192.0.2.{to}");
            let number = 30_000 + port;
            let packet = match protocol {
                0 => udp(&from, number, &to, 53, b"query"),
                1 => tcp_syn(&from, number, &to, 80),
                _ => echo(&from, &to, 8, number, 1),
            };
            let (ruling, left) = pass(&mut engine, &packet, LAN);
            if let Some(cause) = dropped(&ruling) {
                prop_assert!(blocked && matches!(cause, NatDrop::NoPort { .. }), "{}", cause);
                continue;
            }
            let leaves = if protocol == 2 { id(&left) } else { sport(&left) };
            if blocked {
                let first = 3_000 + u16::from(host) * 10;
                prop_assert!((first..first + 10).contains(&leaves), "{host}: {leaves}");
                let owner = own.owner(Addr::from(ip(NAT)), leaves, Addr::from(ip(NAT)));
                prop_assert_eq!(owner, Some(Addr::from(ip(&from))));
            }
            if independent {
                prop_assert_eq!(*outside.entry((host, port, protocol)).or_insert(leaves), leaves);
                prop_assert_eq!(*inside.entry((leaves, protocol)).or_insert((host, port)), (host, port));
            }
        }
    }

    /// Options that are off do nothing, and those that are on change nothing about flows that NAT leaves alone.
    #[test]
    fn without_translation_options_change_nothing(
        packets in prop::collection::vec((0u8..4, 0u8..4, 0u16..6, 0u16..6, any::<bool>()), 1..60)
    ) {
        let all = Options {
            hairpin: true,
            blocks: Some(blocks(10, 3_000)),
            verify_quoted_header: true,
            drop_source_quench: true,
            ..mapping(Filtering::EndpointIndependent)
        };
        let hosts = ["10.0.1.2", "10.0.1.3", SERVER, ROUTER];
        let mut plain = nat_box(|_| Ruleset::default());
        let mut optional = with(all, |_| Ruleset::default());
        for (from, to, sport, dport, tcp) in packets {
            let (src, dst) = (hosts[usize::from(from)], hosts[usize::from(to)]);
            let packet = if tcp { tcp_syn(src, sport, dst, dport) } else { udp(src, sport, dst, dport, b"x") };
            let interface = if from < 2 { LAN } else { WAN };
            let (one, left) = pass(&mut plain, &packet, interface);
            let (other, also_left) = pass(&mut optional, &packet, interface);
            prop_assert_eq!(left, also_left);
            prop_assert_eq!((one.verdict, one.egress, one.ctinfo), (other.verdict, other.egress, other.ctinfo));
        }
    }
}

/// RFC 5508 REQ-3a: the checksum of the quoted IPv4 header, byte for byte.
#[test]
fn req_3a_an_error_that_quotes_a_wrong_header_checksum_is_dropped() {
    for verify in [true, false] {
        let options = Options { verify_quoted_header: verify, ..Options::KERNEL };
        let mut engine = with(options, |_| masquerade(Range::default()));
        let (_, left) = pass(&mut engine, &udp(CLIENT, 40_000, SERVER, 53, b"query"), LAN);
        for at in 0..20 {
            let mut quote = left.clone();
            // The first byte and the addresses find the flow.
            if at == 0 || at == 6 || at == 7 || at == 9 || at >= 12 {
                continue;
            }
            quote[at] ^= 0x10;
            let (ruling, _) = pass(&mut engine, &error(ROUTER, NAT, 11, 0, 0, &quote), WAN);
            let expected = {
                let mut header = quote[..20].to_vec();
                set16(&mut header, 10, 0);
                NatDrop::QuotedChecksum { found: get16(&quote, 10), expected: internet_checksum(&header) }
            };
            assert_eq!(dropped(&ruling), verify.then_some(expected), "byte {at}");
        }
        // The right one passes, with options in the quote, too; a header that cannot be one is not.
        let (ruling, _) = pass(&mut engine, &error(ROUTER, NAT, 11, 0, 0, &left), WAN);
        assert_eq!(dropped(&ruling), None);
        let mut with_options = left[..20].to_vec();
        with_options[0] = 0x46;
        with_options.extend([1, 1, 1, 0]);
        set16(&mut with_options, 10, 0);
        let checksum = internet_checksum(&with_options);
        set16(&mut with_options, 10, checksum);
        with_options.extend(&left[20..]);
        for (at, fine) in [(None, true), (Some(21), false)] {
            let mut quote = with_options.clone();
            if let Some(at) = at {
                quote[at] ^= 0x40;
            }
            let (ruling, _) = pass(&mut engine, &error(ROUTER, NAT, 11, 0, 0, &quote), WAN);
            assert_eq!(dropped(&ruling).is_none(), fine || !verify);
        }
        // An IPv6 header has no checksum.
        let (_, left) = pass(&mut engine, &udp(CLIENT6, 40_000, SERVER6, 53, b"query"), LAN);
        let (ruling, _) = pass(&mut engine, &error(ROUTER6, NAT6, 3, 0, 0, &left), WAN);
        assert_eq!(dropped(&ruling), None);
    }
}

/// RFC 6633: known flow or not, source quench ends; nothing else does, and type 4 of ICMPv6 is something else.
#[test]
fn source_quench_is_dropped_where_that_is_asked_for() {
    for drop in [true, false] {
        let options = Options { drop_source_quench: drop, ..Options::KERNEL };
        let mut engine = with(options, |_| masquerade(Range::default()));
        let (_, left) = pass(&mut engine, &udp(CLIENT, 40_000, SERVER, 53, b"query"), LAN);
        let stray = udp(NAT, 1, SERVER, 2, b"");
        for (icmp_type, quote, ends) in
            [(4, &left, true), (4, &stray, true), (11, &left, false), (11, &stray, false), (3, &left, false)]
        {
            let (ruling, _) = pass(&mut engine, &error(ROUTER, NAT, icmp_type, 0, 0, quote), WAN);
            assert_eq!(dropped(&ruling), (drop && ends).then_some(NatDrop::SourceQuench), "{icmp_type}");
        }
        let (_, left) = pass(&mut engine, &udp(CLIENT6, 40_000, SERVER6, 53, b"query"), LAN);
        let (ruling, _) = pass(&mut engine, &error(ROUTER6, NAT6, 4, 0, 0, &left), WAN);
        assert_eq!(dropped(&ruling), None);
    }
}
