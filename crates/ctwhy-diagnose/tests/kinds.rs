//! What kind of NAT it is, in captures as they come: with clocks apart, packets missing and other traffic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use common::{Captures, Dice, Does, MS, SECOND, World, finding};
use ctwhy_diagnose::Limits;
use ctwhy_diagnose::errors::Judged;
use ctwhy_diagnose::evidence::{Outcome, TtlOutcome};
use ctwhy_diagnose::observe::Protocol;
use ctwhy_diagnose::report::Outcome as Said;
use ctwhy_diagnose::verdict::{Confidence, Kind};

/// Captures of a busy world, spoilt.
fn spoilt(seed: u64, ipv6: bool, does: Does) -> Captures {
    let mut world = World::new(seed, ipv6, does);
    world.busy();
    world.end();
    world.noise();
    let skew = if seed.is_multiple_of(2) { 50 } else { -50 } * MS as i64;
    world.captures.clone().spoilt(skew, 0.0, 2, &mut world.dice)
}

#[test]
fn the_kind_is_named_whatever_the_captures_lack() {
    for seed in 0..60 {
        for ipv6 in [false, true] {
            for (does, kind) in [(Does::Rewrite, Kind::PacketNat), (Does::Proxy, Kind::SocketProxy)] {
                let report = spoilt(seed, ipv6, does).diagnose();
                let public = World::new(seed, ipv6, does).public.into();
                let (known, others): (Vec<_>, Vec<_>) = report.nats.iter().partition(|nat| nat.address == Some(public));
                let [nat] = known.as_slice() else { panic!("seed {seed}: {:#?}", report.nats) };
                // Two hosts that do the same at the same time may be taken for one, but nothing is claimed of it.
                assert!(others.iter().all(|nat| nat.kind == Kind::Undetermined), "seed {seed}: {others:#?}");
                assert_eq!((nat.kind, nat.confidence), (kind, Confidence::High), "seed {seed}: {nat:#?}");
                assert_eq!(nat.protocols.len(), 3, "seed {seed}");
                for finding in &nat.protocols {
                    assert_eq!(finding.verdict.kind, kind, "seed {seed}: {finding:#?}");
                }
                let clock = report.clock.unwrap();
                let skew = if seed % 2 == 0 { 50 } else { -50 } * MS as i64;
                assert!((clock.offset_ns - skew).abs() < MS as i64, "seed {seed}: {clock:?}");
                let told = |error: &Judged| {
                    let came_out = error.came_out.as_ref().map(|error| error.quoted);
                    error.fate.is_amiss().then(|| {
                        format!(
                            "{} {:?} {:?} {came_out:?} {:?}",
                            error.error.quoted, error.flow, error.fate, error.differences
                        )
                    })
                };
                let amiss: Vec<String> = report.errors.judged.iter().filter_map(told).collect();
                match does {
                    Does::Rewrite => assert_eq!((report.outcome(), amiss), (Said::NothingAmiss, vec![]), "seed {seed}"),
                    _ => assert_eq!((report.outcome(), amiss.is_empty()), (Said::Difference, false), "seed {seed}"),
                }
            }
        }
    }
}

#[test]
fn nothing_unrelated_is_paired() {
    for seed in 0..20 {
        let mut one = World::new(seed, false, Does::Rewrite);
        let mut other = World::new(seed + 1000, false, Does::Proxy);
        other.client = "192.168.9.9".parse().unwrap();
        other.public = "203.0.113.99".parse().unwrap();
        one.busy();
        other.now += SECOND / 3;
        other.busy();
        let captures = Captures { inside: one.captures.inside, outside: other.captures.outside };
        let report = captures.diagnose();
        // Probes of two traceroutes to one server carry the same and go to the same ports; nothing else is alike.
        let nats = report.nats.iter().flat_map(|nat| &nat.protocols);
        for finding in nats {
            assert_eq!(finding.protocol, Protocol::Udp, "seed {seed}: {finding:#?}");
        }
    }
}

/// A proxy whose guest has the address of its host, and that keeps the ports of UDP: nothing says which end of such a flow
/// is the hidden one, and the captures begin with an answer. The host's connections do.
#[test]
fn a_flow_in_which_nothing_is_translated_belongs_to_its_host() {
    for ipv6 in [false, true] {
        let mut world = World::new(8, ipv6, Does::Proxy);
        world.public = world.client;
        world.keeps_ports = true;
        world.udp_talk(4);
        world.captures.inside.remove(0);
        world.captures.outside.remove(0);
        world.connection(true);
        let report = world.captures.diagnose();
        let [nat] = report.nats.as_slice() else { panic!("{:#?}", report.nats) };
        assert_eq!((nat.kind, nat.address), (Kind::SocketProxy, Some(world.public.into())));
        let udp = finding(&report, Protocol::Udp);
        let ttls = [udp.evidence.ttl_out.outcome(), udp.evidence.ttl_back.outcome()];
        assert_eq!(ttls, [TtlOutcome::Set(64); 2], "{udp:#?}");
        assert_eq!(udp.evidence.ttl_out.pairs.keys().next(), Some(&(57, 64)));
    }
}

#[test]
fn protocols_that_are_treated_otherwise_make_it_mixed() {
    let mut world = World::new(7, false, Does::Rewrite);
    world.tcp = Does::Proxy;
    world.busy();
    let report = world.captures.diagnose();
    let [nat] = report.nats.as_slice() else { panic!("{:#?}", report.nats) };
    assert_eq!(nat.kind, Kind::Mixed);
    assert_eq!(finding(&report, Protocol::Tcp).verdict.kind, Kind::SocketProxy);
    assert_eq!(finding(&report, Protocol::Udp).verdict.kind, Kind::PacketNat);
    assert_eq!(report.outcome(), Said::Difference);
}

#[test]
fn each_piece_of_evidence_is_seen() {
    let mut world = World::new(3, false, Does::Rewrite);
    world.busy();
    let report = world.captures.diagnose();
    let tcp = &finding(&report, Protocol::Tcp).evidence;
    for tally in [tcp.id, tcp.tos, tcp.isn_out, tcp.isn_back, tcp.options, tcp.window, tcp.mss, tcp.segments] {
        assert_eq!((tally.outcome(), tally.changed), (Outcome::Kept, 0), "{tcp:#?}");
    }
    assert_eq!(tcp.port.outcome(), Outcome::Changed);
    assert_eq!(
        (tcp.ttl_out.outcome(), tcp.ttl_back.outcome()),
        (TtlOutcome::Decremented(1), TtlOutcome::Decremented(1))
    );
    assert_eq!((tcp.handshake.early, tcp.acknowledged.early), (0, 0));
    assert!(tcp.handshake.late > 0 && tcp.acknowledged.late > 0);

    let mut world = World::new(3, false, Does::Proxy);
    world.busy();
    let report = world.captures.diagnose();
    let tcp = &finding(&report, Protocol::Tcp).evidence;
    for tally in [tcp.id, tcp.tos, tcp.isn_out, tcp.isn_back] {
        assert_eq!((tally.outcome(), tally.kept), (Outcome::Changed, 0), "{tcp:#?}");
    }
    assert_eq!(tcp.options_example, Some((vec![2, 1, 3, 4, 1, 1], vec![2, 4, 1, 1])));
    assert_eq!((tcp.ttl_out.outcome(), tcp.ttl_back.outcome()), (TtlOutcome::Set(64), TtlOutcome::Set(64)));
}

#[test]
fn who_answers_before_the_answer_could_have_come_is_a_proxy() {
    let mut world = World::new(5, true, Does::AnswerAtOnce);
    for _ in 0..3 {
        world.connection(true);
    }
    let report = world.captures.diagnose();
    let tcp = finding(&report, Protocol::Tcp);
    assert_eq!((tcp.evidence.handshake.early, tcp.evidence.handshake.late), (3, 0));
    assert_eq!(tcp.verdict.kind, Kind::SocketProxy);
}

#[test]
fn a_firewall_that_hides_sequence_numbers_is_no_proxy() {
    let mut world = World::new(11, false, Does::HideNumbers);
    for _ in 0..3 {
        world.connection(true);
    }
    let report = world.captures.diagnose();
    let tcp = finding(&report, Protocol::Tcp);
    assert_eq!(tcp.evidence.isn_out.outcome(), Outcome::Changed);
    assert_ne!(tcp.verdict.kind, Kind::SocketProxy, "{:#?}", tcp.verdict);
}

#[test]
fn connections_that_carried_nothing_are_paired_by_time_and_say_so() {
    let mut world = World::new(12, false, Does::Proxy);
    world.udp_talk(6);
    for _ in 0..4 {
        world.now += SECOND;
        world.connection(false);
    }
    let report = world.captures.diagnose();
    let tcp = finding(&report, Protocol::Tcp);
    assert_eq!((tcp.evidence.flows, tcp.evidence.weak), (4, 4));
    assert_eq!((tcp.verdict.kind, tcp.verdict.confidence), (Kind::SocketProxy, Confidence::Low));
}

#[test]
fn too_little_is_said_to_be_too_little() {
    let report = Captures::default().diagnose();
    assert_eq!((report.outcome(), report.paired, report.clock), (Said::TooLittle, 0, None));

    // One datagram whose header is what anybody would have sent.
    let head = |ttl| common::Head { ttl, id: 0, tos: 0 };
    let datagram = |src: &str, port, head| {
        let dst = "192.0.2.80".parse().unwrap();
        common::packet(src.parse().unwrap(), dst, head, |ip| ctwhy_conform::compose::udp(ip, port, 53, b"a question"))
    };
    let captures = Captures {
        inside: vec![(common::START, datagram("192.168.1.2", 40_000, head(64)))],
        outside: vec![(common::START + 1000, datagram("203.0.113.2", 50_000, head(64)))],
    };
    let report = captures.diagnose();
    let udp = finding(&report, Protocol::Udp);
    assert_eq!((udp.verdict.kind, udp.verdict.confidence), (Kind::Undetermined, Confidence::None));
    assert_eq!((report.paired, report.outcome()), (1, Said::TooLittle));
}

#[test]
fn a_router_is_no_nat() {
    let mut world = World::new(21, false, Does::Rewrite);
    world.public = world.client;
    // Ports stay, too: the pair is compared with itself one hop on.
    world.ping(4);
    let inside = world.captures.inside.clone();
    let hop = |(time, bytes): &(u64, Vec<u8>)| {
        let mut bytes = bytes.clone();
        let out = bytes[12..16] == [192, 168, 1, 2];
        bytes[8] = if out { bytes[8] - 1 } else { bytes[8] + 1 };
        bytes[10..12].fill(0);
        let sum = ctwhy_core::checksum::Sum::default().bytes(&bytes[..20]).checksum();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let time = if out { time + 1000 } else { time - 1000 };
        (time, bytes)
    };
    let captures = Captures { outside: inside.iter().map(hop).collect(), inside };
    let report = captures.diagnose();
    let [nat] = report.nats.as_slice() else { panic!("{:#?}", report.nats) };
    assert_eq!((nat.kind, nat.address), (Kind::Router, None));
    assert_eq!(report.outcome(), Said::NothingAmiss);
}

#[test]
fn clocks_that_are_hours_apart_and_drift_are_understood() {
    for (skew, ppm) in [(3 * 3600, 0.0), (-86_400, 120.0), (1, -200.0)] {
        let mut world = World::new(31, false, Does::Rewrite);
        for _ in 0..60 {
            world.udp_talk(2);
            world.now += SECOND;
        }
        let ns = skew * SECOND as i64;
        let captures = world.captures.clone().spoilt(ns, ppm, 2, &mut Dice::new(1));
        let report = captures.diagnose();
        let clock = report.clock.unwrap();
        assert!((clock.offset_ns - ns).abs() < 2 * MS as i64, "{clock:?}");
        assert!(clock.both_ways);
        assert!((clock.drift / 1e3 - ppm).abs() < 20.0, "{clock:?}");
        assert_eq!(finding(&report, Protocol::Udp).verdict.kind, Kind::PacketNat);
    }
}

#[test]
fn what_is_beyond_the_limits_is_counted() {
    let mut world = World::new(41, false, Does::Rewrite);
    world.busy();
    let limits = Limits { flows: 5, packets: 8, packets_of_direction: 4, errors: 3 };
    let report = world.captures.diagnose_within(limits);
    for counts in [report.inside, report.outside] {
        assert_eq!(counts.flows, 5);
        assert!(counts.flows_beyond > 0 && counts.errors_beyond > 0, "{counts:?}");
    }
    assert!(report.inside.packets_beyond > 0, "{:?}", report.inside);
}

#[test]
fn no_bytes_make_it_fall_over() {
    let mut dice = Dice::new(51);
    let mut world = World::new(52, false, Does::Rewrite);
    world.busy();
    let whole = world.captures.clone();
    for _ in 0..40 {
        let mut captures = whole.clone();
        for side in [&mut captures.inside, &mut captures.outside] {
            for (_, bytes) in side.iter_mut() {
                for _ in 0..dice.below(4) {
                    let at = dice.below(bytes.len() as u64) as usize;
                    bytes[at] = dice.next() as u8;
                }
                if dice.below(4) == 0 {
                    bytes.truncate(dice.below(80) as usize);
                }
                // Most of the changes are to reach behind the check of the header.
                if bytes.len() >= 20 && bytes[0] == 0x45 {
                    bytes[10..12].fill(0);
                    let length = (bytes.len() as u16).to_be_bytes();
                    bytes[2..4].copy_from_slice(&length);
                    let sum = ctwhy_core::checksum::Sum::default().bytes(&bytes[..20]).checksum();
                    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                }
            }
        }
        let report = captures.diagnose();
        assert!(report.inside.packets > 0);
    }
}
