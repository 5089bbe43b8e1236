//! `ctwhy probe` from the client of a lab: what it says about honest networks, about such that are not, and behind each NAT.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use ctwhy_conform::world::{Nat, Options, World};
use ctwhy_linux::lab::{Lab, Node, Topology};
use ctwhy_linux::testing;
use serde_json::Value;

const CTWHY: &str = env!("CARGO_BIN_EXE_ctwhy");
const V4: &str = "192.0.2.80";
const V6: &str = "2001:db8:2::80";
/// What a host has learned about the way to one address it does not ask again, so this is for a second run.
const ANOTHER: &str = "192.0.2.81";

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
    report(probe_by(&mut lab.command("client", CTWHY).unwrap(), dest))
}

/// The server by both families at once.
fn both(lab: &Lab) -> [(Vec<String>, Value); 2] {
    std::thread::scope(|scope| {
        [V4, V6].map(|dest| scope.spawn(move || probe(lab, dest))).map(|running| running.join().unwrap())
    })
}

/// Adds the arguments to a command that is the program.
fn probe_by<'a>(command: &'a mut Command, dest: &str) -> &'a mut Command {
    // No router has a way to these: it says so at once.
    let nowhere = if dest.contains(':') { "fd00:ffff::1" } else { "10.255.255.1" };
    command.args(["probe", dest, "--json", "--rate", "200", "--wait", "0.7", "--nowhere", nowhere])
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
    for (codes, report) in both(&lab) {
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
    for (codes, report) in both(&lab) {
        assert_eq!(codes, ["errors.come_through", "routers.silent", "mtu.not_needed"], "{report:#}");
        assert!(report["findings"][1]["text"].as_str().unwrap().contains("hops 2 to 3"), "{report:#}");
    }
    for (router, tool) in [("r1", "iptables"), ("r1", "ip6tables"), ("r2", "iptables"), ("r2", "ip6tables")] {
        on(&lab, router, &format!("{tool} -F"));
    }
    on(&lab, "server", "iptables -A OUTPUT -p icmp -j DROP");
    // Neighbours still have to find each other.
    for message in ["destination-unreachable", "echo-reply"] {
        on(&lab, "server", &format!("ip6tables -A OUTPUT -p icmpv6 --icmpv6-type {message} -j DROP"));
    }
    for (codes, report) in both(&lab) {
        assert_eq!(codes, ["errors.come_through", "target.silent"], "{report:#}");
        let text = report["findings"][1]["text"].as_str().unwrap();
        assert!(text.starts_with("routers answer up to hop 3;"), "{report:#}");
    }
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
    for (codes, report) in both(&lab) {
        assert_eq!(codes[0], "errors.first_hop_only", "{report:#}");
        assert_eq!(report["findings"][0]["confidence"], "medium");
    }
    for tool in ["iptables", "ip6tables"] {
        on(&lab, "nat", &format!("{tool} -A OUTPUT -m conntrack --ctstate RELATED -j DROP"));
    }
    for (codes, report) in both(&lab) {
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
    for (codes, report) in both(&lab) {
        assert_eq!(codes, ["errors.come_through", "mtu.told"], "{report:#}");
        assert!(report["findings"][1]["text"].as_str().unwrap().contains("1300 bytes"), "{report:#}");
    }
    on(&lab, "r2", "iptables -A OUTPUT -p icmp --icmp-type 3/4 -j DROP");
    on(&lab, "r2", "ip6tables -A OUTPUT -p icmpv6 --icmpv6-type 2 -j DROP");
    for (codes, report) in both(&lab) {
        assert!(codes.contains(&"mtu.black_hole".to_owned()), "{report:#}");
    }
}

/// What has to be said behind a NAT, of IPv4 and of IPv6, and what may be said as well. Anything else must not be.
struct Told {
    nat: Nat,
    must: [&'static [&'static str]; 2],
    may: &'static [&'static str],
}

/// The link to the server takes 1280 bytes.
const TOLD: [Told; 8] = [
    Told { nat: Nat::Kernel, must: [TRANSPARENT; 2], may: &[] },
    Told { nat: Nat::KernelRandom, must: [TRANSPARENT; 2], may: &[] },
    Told { nat: Nat::NatTun, must: [TRANSPARENT; 2], may: &[] },
    Told { nat: Nat::NatQueue, must: [TRANSPARENT; 2], may: &[] },
    // That long packets arrive whole would be wrong: the proxy's host cuts them.
    Told { nat: Nat::ProxyDrop, must: [&["proxy", "errors.swallowed_by_socket_nat"]; 2], may: &[] },
    Told { nat: Nat::ProxyRelay, must: [&["errors.come_through", "replies.made_anew", "mtu.told"]; 2], may: &[] },
    // Errors about UDP come through, with a useless MTU, and sometimes in place of one another. Echo requests of IPv6 do not
    // get out of libslirp 4.7.
    Told {
        nat: Nat::Slirp4netns,
        must: [&["proxy", "errors.come_through", "mtu.useless"]; 2],
        may: &["quote.wrong_packet", "probes.unanswered"],
    },
    // That of Debian 12: a target next door that answers pings and filters everything else would look the same.
    Told { nat: Nat::Pasta, must: [&["proxy.or_next_host", "errors.none"]; 2], may: &[] },
];

const TRANSPARENT: &[&str] = &["errors.come_through", "mtu.told"];

/// Later versions of pasta let errors about UDP through.
const PASTA_THAT_RELAYS: Told = Told {
    nat: Nat::Pasta,
    must: [&["proxy", "errors.come_through"]; 2],
    may: &["quote.wrong_packet", "mtu.told", "mtu.useless", "mtu.black_hole", "probes.unanswered"],
};

impl Told {
    fn check(&self, family: usize, codes: &[String], report: &Value) {
        let heard = report["probes"].as_array().unwrap().iter().any(|probe| probe["outcome"] == "error");
        let told = if self.nat == Nat::Pasta && heard { &PASTA_THAT_RELAYS } else { self };
        let (must, nat) = (told.must[family], self.nat);
        for code in must {
            assert!(codes.iter().any(|found| found == code), "{nat}: {code} is not among {codes:?}: {report:#}");
        }
        for code in codes {
            let code = code.as_str();
            assert!(must.contains(&code) || told.may.contains(&code), "{nat}: {code} is among {codes:?}: {report:#}");
        }
    }
}

/// Each family, and IPv4 without CAP_NET_RAW, too, all at once.
fn behind(told: &Told) {
    let options = Options { mtu: 1280, ..Options::default() };
    let world = World::start(told.nat, Path::new(CTWHY), &options).unwrap();
    let lab = world.lab();
    on(lab, "server", &format!("ip address add {ANOTHER}/24 dev eth0"));
    // A port that is open and one that is closed are the same to what stands between.
    let _open = lab.in_node("server", || TcpListener::bind((V4, 80))).unwrap().unwrap();
    let run = |family: usize, dest: &str, raw: bool| {
        let mut command = lab.command("client", if raw { CTWHY } else { "setpriv" }).unwrap();
        if !raw {
            command.args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw", CTWHY]);
        }
        let (codes, report) = report(probe_by(&mut command, dest));
        assert_eq!(report["raw"], raw, "{}", told.nat);
        let unknown =
            report["open"].as_array().unwrap().iter().any(|open| open.as_str().unwrap().contains("CAP_NET_RAW"));
        assert_eq!(unknown, !raw, "{}: {report:#}", told.nat);
        told.check(family, &codes, &report);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(0, V4, true));
        scope.spawn(|| run(0, ANOTHER, false));
        scope.spawn(|| run(1, V6, true));
    });
}

#[test]
fn behind_each_nat() {
    if !testing::require_lab() {
        return;
    }
    let missing = |told: &Told| told.nat.unavailable().map(|why| format!("{}: {why}", told.nat));
    let why: Vec<String> = TOLD.iter().filter_map(missing).collect();
    if !why.is_empty() {
        testing::skip(&format_args!("not behind {}", why.join(", ")));
    }
    // They wait for most of the time.
    std::thread::scope(|scope| {
        for told in TOLD.iter().filter(|told| told.nat.unavailable().is_none()) {
            scope.spawn(move || behind(told));
        }
    });
}

/// The table in the book says the same.
#[test]
fn the_book_says_what_is_told() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../book/src/probe.md")).unwrap();
    for Told { nat, must, may } in TOLD {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| `{nat}` | ")));
        let (said, _) = row.and_then(|row| row.split_once(" | ")).unwrap_or_else(|| panic!("no row of {nat}"));
        let mut said: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
        let [mut expected, same] = must.map(|must| [must, may].concat());
        assert_eq!(expected, same, "{nat}: one row for both families");
        said.sort_unstable();
        expected.sort_unstable();
        assert_eq!(said, expected, "{nat}");
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
