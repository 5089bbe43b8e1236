//! `ctwhy diagnose` on NATs that really run: the kernel's, ours, and others that are made of sockets. From captures as they
//! come, and from the same captures with clocks apart, packets missing and other traffic in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod diagnose_common;
#[path = "../../ctwhy-diagnose/tests/common/mod.rs"]
mod made_up;
#[path = "diagnose_common/traffic.rs"]
mod traffic;

use std::path::Path;

use ctwhy_conform::world::{Nat, Options, World};
use ctwhy_core::tuple::{Addr, L3};
use ctwhy_diagnose::verdict::Kind;
use ctwhy_linux::testing;
use diagnose_common::{diagnose, folder, kind, proto, two_files};
use made_up::{Captures, Dice, Does, MS};
use serde_json::Value;

/// What is to be said of a NAT.
struct Said {
    report: Value,
    text: String,
}

impl Said {
    /// How many errors had this fate.
    fn fates(&self, fate: &str) -> usize {
        self.errors().filter(|error| error["fate"] == fate).count()
    }

    /// Those that came from outside.
    fn errors(&self) -> impl Iterator<Item = &Value> {
        self.report["errors"].as_array().unwrap().iter().filter(|error| error["seen"] == "outside")
    }
}

/// Runs the traffic through a NAT and has it named, from its captures as they are and spoilt; `None` where it cannot run.
fn said(nat: Nat) -> Option<Said> {
    if !testing::require_lab() {
        return None;
    }
    if let Some(reason) = nat.unavailable() {
        testing::skip(&reason);
        return None;
    }
    let world = World::start(nat, Path::new(env!("CARGO_BIN_EXE_ctwhy")), &Options::default()).unwrap();
    let captures = traffic::captures(&world);
    let folder = folder(nat.name());
    let [inside, outside] = two_files(&folder, &captures.inside, &captures.outside);
    let arguments = ["--inside", &inside, "--outside", &outside];
    let ran = diagnose(&[&arguments[..], &["--json"]].concat());
    let text = diagnose(&arguments);
    let said = Said {
        report: serde_json::from_str(&ran.out).expect(&ran.err),
        text: format!("{nat}\n{}{}", text.out, text.err),
    };
    let expected = if nat.rewrites_packets() { ("packet_nat", 0) } else { ("socket_proxy", 1) };
    for family in ["ipv4", "ipv6"] {
        assert_eq!(kind(&said.report, family), [expected.0], "{}", said.text);
    }
    assert_eq!((ran.code, text.code), (Some(expected.1), Some(expected.1)), "{}", said.text);
    for seed in 1..=50 {
        spoilt(&world, &captures, seed);
    }
    Some(said)
}

/// Clocks that are 50 ms apart and drift, 2 % of the packets missing at each side, and other hosts that ask the same server
/// the same things: the kind is still the same, or there is too little to say of a protocol.
fn spoilt(world: &World, captures: &Captures, seed: u64) {
    let nat = world.nat();
    let mut captures = captures.clone();
    for ipv6 in [false, true] {
        let mut others = made_up::World::new(seed, ipv6, Does::Rewrite);
        others.now = captures.inside.first().unwrap().0;
        others.noise();
        captures.inside.append(&mut others.captures.inside);
        captures.outside.append(&mut others.captures.outside);
    }
    let (skew, ppm) = if seed.is_multiple_of(2) { (50, 40.0) } else { (-50, -40.0) };
    let report = captures.spoilt(skew * MS as i64, ppm, 2, &mut Dice::new(seed)).diagnose();
    let right = if nat.rewrites_packets() { Kind::PacketNat } else { Kind::SocketProxy };
    for (l3num, external) in [L3::V4, L3::V6].into_iter().zip(world.external()) {
        let external = external.map(Addr::from);
        let kinds = report.nats.iter().filter(|found| found.l3num == l3num);
        let (own, others): (Vec<_>, Vec<_>) = kinds.partition(|found| found.address == external);
        assert!(others.iter().all(|found| found.kind == Kind::Undetermined), "{nat}, seed {seed}: {others:#?}");
        let [own] = own.as_slice() else { panic!("{nat}, seed {seed}: {:#?}", report.nats) };
        assert_eq!(own.kind, right, "{nat}, seed {seed}: {own:#?}");
        for finding in &own.protocols {
            let kind = finding.verdict.kind;
            assert!([right, Kind::Undetermined].contains(&kind), "{nat}, seed {seed}: {finding:#?}");
        }
    }
}

/// Everything is packet NAT for sure, and errors come through as they should.
fn rewrites_and_relays(nat: Nat) -> Option<Said> {
    let said = said(nat)?;
    let Said { report, text } = &said;
    for family in ["ipv4", "ipv6"] {
        for protocol in ["tcp", "udp", "icmp_echo"] {
            let found = proto(report, family, protocol);
            let verdict = (found["kind"].as_str(), found["confidence"].as_str());
            assert_eq!(verdict, (Some("packet_nat"), Some("high")), "{text}");
        }
    }
    let relayed = said.fates("relayed");
    assert!(relayed >= 8, "{text}");
    assert_eq!(said.errors().count(), relayed, "{text}");
    let port = if nat == Nat::Kernel { "kept" } else { "changed" };
    assert_eq!(proto(report, "ipv4", "udp")["evidence"]["port"]["outcome"], port, "{text}");
    Some(said)
}

#[test]
fn kernel() {
    rewrites_and_relays(Nat::Kernel);
}

#[test]
fn kernel_random() {
    rewrites_and_relays(Nat::KernelRandom);
}

#[test]
fn nat_tun() {
    rewrites_and_relays(Nat::NatTun);
}

#[test]
fn nat_queue() {
    rewrites_and_relays(Nat::NatQueue);
}

#[test]
fn proxy_drop() {
    let Some(said) = said(Nat::ProxyDrop) else { return };
    let all = said.errors().count();
    assert!(all >= 8, "{}", said.text);
    assert_eq!(said.fates("swallowed"), all, "{}", said.text);
}

#[test]
fn proxy_relay() {
    let Some(said) = said(Nat::ProxyRelay) else { return };
    // Its probes to one port are alike, and where the machine is busy some of them are not told apart.
    assert!(said.errors().count() >= 8 && said.fates("relayed") * 2 > said.errors().count(), "{}", said.text);
}

#[test]
fn slirp4netns() {
    let Some(said) = said(Nat::Slirp4netns) else { return };
    for protocol in ["tcp", "udp"] {
        assert_eq!(proto(&said.report, "ipv4", protocol)["kind"], "socket_proxy", "{}", said.text);
    }
}

#[test]
fn pasta() {
    let Some(said) = said(Nat::Pasta) else { return };
    // That of Debian 12 lets no error in; later ones let in those about UDP.
    let relayed = |error: &&Value| error["fate"] == "relayed" && error["about"]["proto"] != "udp";
    assert_eq!(said.errors().filter(relayed).count(), 0, "{}", said.text);
}
