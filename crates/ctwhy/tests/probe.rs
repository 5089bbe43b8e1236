//! `ctwhy probe` from the client of a lab: what it says about honest networks, and about such that are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::process::Command;

use ctwhy_linux::lab::{Lab, Node, Topology};
use ctwhy_linux::testing;
use serde_json::Value;

const CTWHY: &str = env!("CARGO_BIN_EXE_ctwhy");
const V4: &str = "192.0.2.80";
const V6: &str = "2001:db8:2::80";

/// The usual lab. The server answers every probe, and the client may have ping sockets.
fn lab() -> Lab {
    let mut topology = Topology::traceroute();
    let group = |node: Node| node.sysctl("net.ipv4.ping_group_range", "0 0");
    let host = |node: Node| node.sysctl("net.ipv4.icmp_ratelimit", "0").sysctl("net.ipv6.icmp.ratelimit", "0");
    topology.nodes = topology
        .nodes
        .into_iter()
        .map(|node| match node.name.as_str() {
            "client" => group(node),
            "server" => host(node),
            _ => node,
        })
        .collect();
    Lab::create(topology).unwrap()
}

fn on(lab: &Lab, node: &str, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let output = lab.command(node, words[0]).unwrap().args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The codes of the findings, and everything else.
fn probe(lab: &Lab, dest: &str) -> (Vec<String>, Value) {
    // No router has a way to these: it says so at once.
    let nowhere = if dest.contains(':') { "fd00:ffff::1" } else { "10.255.255.1" };
    let mut command = lab.command("client", CTWHY).unwrap();
    command.args(["probe", dest, "--json", "--rate", "200", "--wait", "0.7", "--nowhere", nowhere]);
    report(&mut command)
}

fn report(command: &mut Command) -> (Vec<String>, Value) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| {
        panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
    });
    let codes = report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap().to_owned());
    assert_eq!(output.status.code(), Some(i32::from(report["amiss"].as_bool().unwrap())));
    (codes.collect(), report)
}

#[test]
fn three_honest_networks() {
    if !testing::require_namespaces() {
        return;
    }
    let lab = lab();
    for dest in [V4, V6] {
        let (codes, report) = probe(&lab, dest);
        assert_eq!(codes, ["errors.come_through", "mtu.not_needed"], "{report:#}");
        for flow in report["crossing"].as_array().unwrap() {
            assert_eq!(flow["quoted"], flow["sent"], "each error quotes its own datagram: {report:#}");
        }
    }
    for (tool, message) in [("iptables", "-p icmp --icmp-type 11"), ("ip6tables", "-p icmpv6 --icmpv6-type 3")] {
        for router in ["r1", "r2"] {
            on(&lab, router, &format!("{tool} -A OUTPUT {message} -j DROP"));
        }
    }
    for dest in [V4, V6] {
        let (codes, report) = probe(&lab, dest);
        assert_eq!(codes, ["errors.come_through", "routers.silent", "mtu.not_needed"], "{report:#}");
        assert!(report["findings"][1]["text"].as_str().unwrap().contains("hops 2 to 3"), "{report:#}");
    }
    for router in ["r1", "r2"] {
        on(&lab, router, "iptables -F");
    }
    on(&lab, "server", "iptables -A OUTPUT -p icmp -j DROP");
    let (codes, report) = probe(&lab, V4);
    assert_eq!(codes, ["errors.come_through", "target.silent"], "{report:#}");
    assert!(report["findings"][1]["text"].as_str().unwrap().starts_with("routers answer up to hop 3;"), "{report:#}");
}

#[test]
fn a_nat_that_lets_no_error_in() {
    if !testing::require_namespaces() {
        return;
    }
    let lab = lab();
    for tool in ["iptables", "ip6tables"] {
        on(&lab, "nat", &format!("{tool} -A FORWARD -i wan -m conntrack --ctstate RELATED -j DROP"));
    }
    for dest in [V4, V6] {
        let (codes, report) = probe(&lab, dest);
        assert_eq!(codes[0], "errors.first_hop_only", "{report:#}");
        assert_eq!(report["findings"][0]["confidence"], "medium");
    }
    for tool in ["iptables", "ip6tables"] {
        on(&lab, "nat", &format!("{tool} -A OUTPUT -m conntrack --ctstate RELATED -j DROP"));
    }
    for dest in [V4, V6] {
        let (codes, report) = probe(&lab, dest);
        assert_eq!(codes[0], "errors.none", "{report:#}");
    }
}

#[test]
fn a_narrow_link_that_tells_and_one_that_does_not() {
    if !testing::require_namespaces() {
        return;
    }
    let lab = lab();
    on(&lab, "r2", "ip link set server mtu 1300");
    on(&lab, "server", "ip link set eth0 mtu 1300");
    for dest in [V4, V6] {
        let (codes, report) = probe(&lab, dest);
        assert_eq!(codes, ["errors.come_through", "mtu.told"], "{report:#}");
        assert!(report["findings"][1]["text"].as_str().unwrap().contains("1300 bytes"), "{report:#}");
    }
    on(&lab, "r2", "iptables -A OUTPUT -p icmp --icmp-type 3/4 -j DROP");
    on(&lab, "r2", "ip6tables -A OUTPUT -p icmpv6 --icmpv6-type 2 -j DROP");
    for dest in [V4, V6] {
        let (codes, report) = probe(&lab, dest);
        assert!(codes.contains(&"mtu.black_hole".to_owned()), "{report:#}");
    }
}

/// The NAT takes packets with its own address as source, because it made them so before it looks at them.
const SETTINGS: &str =
    "cd /proc/sys/net/ipv4/conf && echo 0 > all/rp_filter && echo 0 > lan/rp_filter && echo 1 > lan/accept_local";

#[test]
fn a_quote_that_was_not_translated_back() {
    if !testing::require_namespaces() {
        return;
    }
    let lab = lab();
    // NAT without conntrack, each way by itself: an error comes in, and what it quotes stays as it was.
    on(&lab, "nat", "iptables -t nat -F");
    on(&lab, "nat", "nft add table netdev stateless");
    let hook = |interface: &str| format!("{{ type filter hook ingress device {interface} priority 0 ; }}");
    on(&lab, "nat", &format!("nft add chain netdev stateless in {}", hook("lan")));
    on(&lab, "nat", &format!("nft add chain netdev stateless back {}", hook("wan")));
    on(&lab, "nat", "nft add rule netdev stateless in ip saddr 192.168.1.2 ip saddr set 203.0.113.2");
    on(&lab, "nat", "nft add rule netdev stateless back ip daddr 203.0.113.2 ip daddr set 192.168.1.2");
    let output = lab.command("nat", "sh").unwrap().args(["-c", SETTINGS]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (codes, report) = probe(&lab, V4);
    assert!(codes.contains(&"quote.not_translated".to_owned()), "{report:#}");
}

#[test]
fn what_cannot_be_probed() {
    if !testing::require_namespaces() {
        return;
    }
    let lab = lab();
    let run = |arguments: &[&str]| {
        let output = lab.command("r1", CTWHY).unwrap().arg("probe").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        run(&["10.0.0.1", "--wait", "0.1"]),
        "ctwhy: nothing can be sent to 10.0.0.1: Network is unreachable (os error 101)\n"
    );
    assert_eq!(run(&["-6", "192.0.2.80"]), "ctwhy: 192.0.2.80: no IPv6 address\n");
    assert_eq!(run(&["192.0.2.80", "--nowhere", "::1"]), "ctwhy: --nowhere ::1: not of the family of 192.0.2.80\n");
    assert_eq!(run(&["192.0.2.80", "--wait", "0"]), "ctwhy: --wait 0: between 0.01 and 60 seconds\n");
}
