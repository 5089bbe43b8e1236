//! `ctwhy nat tun` between kernels: what users see through it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod nat_common;

use ctwhy_linux::{signal, testing};
use nat_common::checks::{closed_ports, path_mtu, traceroutes};
use nat_common::errors::{own_errors, refusals, rejecting, rejections, too_long};
use nat_common::{CLIENT, CTWHY, RULES, Running, SERVER, WAN, total};
use serde_json::Value;

#[test]
fn traceroute_shows_every_hop_and_the_nat_among_them() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let running = Running::start(1500, RULES, &["--trace", "-v"]);
    traceroutes(&running);
    // Each probe left with another port or id than it came with, and each error found its way back.
    let said = running.end();
    let related = said.iter().filter(|line| line.contains(" RELATED_REPLY ") && line.contains("quoted ")).count();
    assert!(related >= 6 * 2 + 2, "{said:#?}");
    assert_eq!(total(&said, "time exceeded"), 6, "{said:#?}");
}

#[test]
fn path_mtu_discovery_ends_with_data_that_arrives() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let own = ["--mtu", "wan=1300"];
    for (family, link, mtu, arguments) in
        [(0, 1200, 1200, &[][..]), (1, 1280, 1280, &[]), (0, 1500, 1300, &own), (1, 1500, 1300, &own)]
    {
        let running = Running::start(link, RULES, arguments);
        path_mtu(&running, family, mtu);
        too_long(&running, family, mtu);
        running.end();
    }
}

#[test]
fn what_routers_refuse_is_told_to_the_client() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let running = Running::start(1500, RULES, &[]);
    refusals(&running);
    running.end();
}

#[test]
fn what_clients_complain_about_is_told_to_the_server() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let running = Running::start(1500, RULES, &[]);
    own_errors(&running);
    running.end();
}

#[test]
fn closed_ports_refuse() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let running = Running::start(1500, RULES, &[]);
    closed_ports(&running);
    running.end();
}

#[test]
fn rejected_packets_are_answered_as_the_rules_say() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let [v4, v6] = rejecting();
    let running = Running::start(1500, [&v4, &v6], &[]);
    rejections(&running);
    let said = running.end();
    assert_eq!(total(&said, "filter.reject"), 14, "{said:#?}");
    assert_eq!(total(&said, "reset"), 2, "{said:#?}");
}

#[test]
fn the_table_is_shown_to_its_owner() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let mut running = Running::start(1500, RULES, &["--name", "mine"]);
    let status = |arguments: &[&str]| running.run("nat", CTWHY, &[&["nat", "status"], arguments].concat());
    let table = status(&["--name", "mine"]);
    let expected = format!("ipv4     2 icmp     1 29 src={} dst={} type=8 code=0 id=", CLIENT[0], SERVER[0]);
    let alike =
        |line: &str| line.starts_with(expected.get(..24).unwrap()) && line.contains(expected.get(27..).unwrap());
    assert!(table.lines().any(alike), "{table}");
    assert_eq!(table.lines().count(), 2, "an echo of each family: {table}");
    for line in status(&["--name", "mine", "--json"]).lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert!(WAN.contains(&entry["reply_dst"].as_str().unwrap()), "{entry}");
        assert_ne!(entry["orig_icmp_id"], entry["reply_icmp_id"], "{entry}");
    }
    let missing = running.try_run("nat", CTWHY, &["nat", "status"]);
    assert!(missing.starts_with("ctwhy: no NAT named nat of this user runs in this network namespace"), "{missing}");
    let twice = running.try_run(
        "nat",
        CTWHY,
        &["nat", "tun", "--inside", "a", "--outside", "b", "--address", "a=10.0.0.1/8", "--name", "mine"],
    );
    assert!(twice.contains("a NAT named mine of this user runs"), "{twice}");
    running.signal(signal::SIGUSR1);
    running.until("ipv6     10 icmpv6");
    running.end();
}
