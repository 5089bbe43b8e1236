//! `ctwhy nat tun` between kernels: what users see through it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod nat_common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use ctwhy_linux::lab::{Lab, Node, Topology};
use ctwhy_linux::{program, signal, testing};
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

/// Root made the devices for somebody; the NAT runs as that user, without any privilege, and without them it says what is
/// missing.
#[test]
fn devices_of_an_ordinary_user_are_enough() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let lab = Lab::create(Topology::default().node(Node::host("nat")).node(Node::host("client"))).unwrap();
    let run = |node: &str, line: &str| {
        let mut words = line.split_ascii_whitespace();
        let mut command = lab.command(node, words.next().unwrap()).unwrap();
        program::run(command.args(words), "").unwrap()
    };
    // The user has the number of root here, but nothing of what root may do.
    let nat = "--bounding-set=-all --inh-caps=-all";
    let command = || {
        let mut command = lab.command("nat", "setpriv").unwrap();
        command.args(nat.split(' ')).args([CTWHY, "nat", "tun", "--inside", "lan", "--outside", "wan"]);
        command.args(["--address", "lan=192.168.1.1/24", "--address", "wan=203.0.113.2/24"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let output = command().output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("`ip tuntap add mode tun user USER NAME` makes one that belongs to a user"), "{said}");
    for device in ["lan", "wan"] {
        run("nat", &format!("ip tuntap add mode tun user root name {device}"));
    }
    let mut child = command().spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines.next().expect("it says something").unwrap();
    assert!(ready.starts_with("ctwhy nat: ready"), "{ready}");
    run("nat", "ip link set lan netns client");
    run("client", "ip address add 192.168.1.2/24 dev lan");
    run("client", "ip link set lan up");
    run("client", "ping -c1 -w10 192.168.1.1");
    signal::send(&child, signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    // They were there before, and are there afterwards.
    run("client", "ip link show lan");
    run("nat", "ip link show wan");
}
