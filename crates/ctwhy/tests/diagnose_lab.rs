//! `ctwhy diagnose` on NATs that really run: the kernel's, and two that are made of sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod diagnose_common;

use ctwhy_linux::{program, testing};
use diagnose_common::world::{Traffic, World};
use diagnose_common::{diagnose, folder, kind, proto};
use serde_json::Value;

/// How many errors had this fate.
fn fates(report: &Value, seen: &str, fate: &str) -> usize {
    let errors = report["errors"].as_array().unwrap();
    errors.iter().filter(|error| error["seen"] == seen && error["fate"] == fate).count()
}

/// The report about traffic through a world, and the text of it.
fn report(name: &str, world: &World, traffic: &Traffic) -> (Option<i32>, Value, String) {
    let [inside, outside] = world.run(traffic, &folder(name));
    let arguments = ["--inside", &inside, "--outside", &outside];
    let ran = diagnose(&[&arguments[..], &["--json"]].concat());
    let text = diagnose(&arguments);
    assert_eq!(ran.code, text.code);
    (ran.code, serde_json::from_str(&ran.out).expect(&ran.err), format!("{}{}", text.out, text.err))
}

#[test]
fn the_kernel_is_a_packet_nat_and_relays_errors() {
    if !testing::require_lab() {
        return;
    }
    for options in ["", "--random-fully"] {
        let world = World::kernel(options).unwrap();
        let (code, report, text) = report(&format!("kernel{options}"), &world, &Traffic::all());
        assert_eq!(code, Some(0), "{text}");
        for (family, protocols) in [("ipv4", ["tcp", "udp", "icmp_echo"]), ("ipv6", ["tcp", "udp", "icmp_echo"])] {
            assert_eq!(kind(&report, family), ["packet_nat"], "{text}");
            for protocol in protocols {
                let found = proto(&report, family, protocol);
                assert_eq!(
                    (found["kind"].as_str(), found["confidence"].as_str()),
                    (Some("packet_nat"), Some("high")),
                    "{text}"
                );
            }
        }
        let relayed = fates(&report, "outside", "relayed");
        assert!(relayed >= 8, "{text}");
        assert_eq!(report["errors"].as_array().unwrap().len(), relayed, "{text}");
        let ports = &proto(&report, "ipv4", "udp")["evidence"]["port"]["outcome"];
        assert_eq!(*ports, if options.is_empty() { "kept" } else { "changed" }, "{text}");
    }
}

#[test]
fn our_own_proxy_is_one_whatever_it_does_to_errors() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    for errors in ["drop", "relay"] {
        let world = World::proxy(errors).unwrap();
        let (code, report, text) = report(&format!("proxy-{errors}"), &world, &Traffic::all());
        assert_eq!(code, Some(1), "{text}");
        for family in ["ipv4", "ipv6"] {
            assert_eq!(kind(&report, family), ["socket_proxy"], "{text}");
        }
        let (swallowed, all) = (fates(&report, "outside", "swallowed"), report["errors"].as_array().unwrap().len());
        assert!(all >= 8, "{text}");
        match errors {
            "drop" => assert_eq!(swallowed, all, "{text}"),
            // Its probes to one port are alike, and where the machine is busy some of them are not told apart.
            _ => assert!(fates(&report, "outside", "relayed") * 2 > all, "{text}"),
        }
    }
}

#[test]
fn slirp_is_a_socket_proxy() {
    if !testing::require_tun() || !testing::require_lab() || !diagnose_common::have("slirp4netns") {
        return;
    }
    let world = World::slirp().unwrap();
    let (code, report, text) = report("slirp", &world, &Traffic::all().only_ipv4());
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(kind(&report, "ipv4"), ["socket_proxy"], "{text}");
    for protocol in ["tcp", "udp"] {
        assert_eq!(proto(&report, "ipv4", protocol)["kind"], "socket_proxy", "{text}");
    }
}

#[test]
fn pasta_is_a_socket_proxy() {
    if !testing::require_tun() || !testing::require_lab() || !diagnose_common::have("pasta") {
        return;
    }
    let world = World::pasta().unwrap();
    let (code, report, text) = report("pasta", &world, &Traffic::all());
    assert_eq!(code, Some(1), "{text}");
    for family in ["ipv4", "ipv6"] {
        assert_eq!(kind(&report, family), ["socket_proxy"], "{text}");
    }
}

#[test]
fn tools_are_named() {
    for (tool, package) in [("slirp4netns", "slirp4netns"), ("pasta", "passt")] {
        assert_eq!(program::package(tool), Some(package));
    }
}
