//! Two packets of one flow on their way at once: what happens when the second is confirmed (catalogue A.6 and A.9).

use std::net::IpAddr;

use super::nat::virtual_ip;
use super::{Builder, Family, Scenario};
use crate::compose::{Body, Echo, Ip, Tcp, echo, flag, udp};

const ACCT: (&str, &str) = ("net.netfilter.nf_conntrack_acct", "1");

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "clash-merged",
        families: &Family::BOTH,
        title: "Two first datagrams of one flow",
        shows: "Both datagrams wait in a queue: each is NEW with an entry of its own. The first to go on puts its entry into the \
                table; the second moves to that entry, which counts both, and nobody is told of another flow.",
        ids: &["NEW-01", "NEW-03", "CLASH-01", "CLASH-02", "NFQ-01"],
        compose: |b| {
            b.sysctl(ACCT.0, ACCT.1).hold(2).probe();
            b.hold(2).probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.probe();
        },
    },
    Scenario {
        name: "clash-merged-masquerade",
        families: &Family::BOTH,
        title: "Two first datagrams of one flow choose the same binding",
        shows: "Each of the two entries gets a binding of its own when its datagram leaves. The second finds its tuple taken by \
                an entry of the same original tuple, which does not count, and so chooses the same: the entries can be merged.",
        ids: &["NEW-03", "CLASH-02", "NAT-SET-01"],
        compose: |b| {
            b.masquerade().hold(2).probe();
            b.hold(2).probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
        },
    },
    Scenario {
        name: "clash-merged-generic",
        families: &Family::BOTH,
        title: "Two first packets of a protocol that nobody knows",
        shows: "They are merged like datagrams.",
        ids: &["CLASH-02", "GENERIC-01"],
        compose: |b| {
            b.hold(2).sends(|_| Body::new(99, *b"one"));
            b.hold(2).sends(|_| Body::new(99, *b"two"));
        },
    },
    Scenario {
        name: "clash-mirrored",
        families: &Family::BOTH,
        title: "The answer overtakes the question",
        shows: "While the question waits in a queue nobody finds its flow: an error about it is INVALID, and the answer is NEW, \
                a flow in the other direction. The question then moves to that flow, still NEW, and is counted in its \
                original direction; the next one is an answer.",
        ids: &["NFQ-06", "CLASH-02", "ICMP-REL-08"],
        compose: |b| {
            b.sysctl(ACCT.0, ACCT.1).hold(3);
            let left = b.probe();
            b.exceed(&left).answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.probe();
        },
    },
    Scenario {
        name: "clash-other-binding",
        families: &Family::BOTH,
        title: "Two first datagrams with different bindings",
        shows: "The same datagram arrives by two interfaces, and each rule sends it to another server. The second cannot have \
                the original tuple of the first, but the answers to it can be told apart: its entry takes them for a second, \
                whatever is sent, and no dump shows it. After that the other server's answer begins a flow.",
        ids: &["CLASH-02", "UDP-04", "VER-06", "OBS-05", "OBS-12"],
        compose: other_binding,
    },
    Scenario {
        name: "clash-reply-taken",
        families: &Family::BOTH,
        title: "Two clients that would look the same to the server",
        shows: "Source NAT to one port: the entry of the second client would have the reply tuple of the first. Its datagram is \
                dropped.",
        ids: &["CLASH-02", "NAT-PORT-04"],
        compose: |b| {
            let public = match virtual_ip(b) {
                IpAddr::V4(v) => v.to_string(),
                IpAddr::V6(v) => format!("[{v}]"),
            };
            b.nat(&[&format!("-A POSTROUTING -o wan -p udp -j SNAT --to-source {public}:5000")]).probe();
            let ip = Ip::between(second_client(b), b.server);
            b.lan(ip.packet(super::probe(&ip)));
            b.probe();
        },
    },
    Scenario {
        name: "clash-tcp",
        families: &Family::BOTH,
        title: "Two first segments of one connection",
        shows: "Where a lost packet is sent again nothing is merged: the second SYN is dropped when it is confirmed, and the next \
                one finds the entry of the first.",
        ids: &["CLASH-03", "NEW-03"],
        compose: |b| {
            b.masquerade().hold(2).sends(|ip| Tcp::syn().body(ip));
            b.hold(2).sends(|ip| Tcp::syn().body(ip));
            b.sends(|ip| Tcp::syn().body(ip));
            b.answers(|ip| {
                Tcp { sport: 80, dport: 40_000, ack: 1_001, flags: flag::SYN | flag::ACK, ..Tcp::syn() }.body(ip)
            });
        },
    },
    Scenario {
        name: "clash-echo",
        families: &Family::BOTH,
        title: "Two first echo requests with one identifier",
        shows: "The second is dropped when it is confirmed.",
        ids: &["CLASH-03"],
        compose: |b| {
            b.hold(2).sends(|ip| echo(ip, Echo::Request, 7, 1));
            b.hold(2).sends(|ip| echo(ip, Echo::Request, 7, 2));
            b.sends(|ip| echo(ip, Echo::Request, 7, 3));
        },
    },
];

fn second_client(b: &Builder) -> IpAddr {
    match b.family {
        Family::V4 => [192, 168, 1, 3].into(),
        Family::V6 => [0xfd00, 1, 0, 0, 0, 0, 0, 3].into(),
    }
}

fn other_binding(b: &mut Builder) {
    let v = virtual_ip(b);
    let to = |server: IpAddr| match server {
        IpAddr::V4(v4) => format!("{v4}:53"),
        IpAddr::V6(v6) => format!("[{v6}]:53"),
    };
    let rule = |iface: &str, server| {
        format!("-A PREROUTING -d {v} -i {iface} -p udp -m udp --dport 8053 -j DNAT --to-destination {}", to(server))
    };
    let rules = [rule("lan", b.server), rule("wan", b.r2)];
    b.sysctl(ACCT.0, ACCT.1).nat(&[&rules[0], &rules[1]]);
    let ask = Ip::between(b.client, v);
    let ask = ask.packet(udp(&ask, 40_000, 8_053, b"anyone?"));
    b.hold(2).lan(ask.clone()).hold(2).wan(ask.clone());
    let answer = |server| {
        let ip = Ip::between(server, b.client);
        ip.packet(udp(&ip, 53, 40_000, b"I am here"))
    };
    let (of_first, of_second) = (answer(b.server), answer(b.r2));
    b.wan(of_second.clone()).wan(of_first).wan(of_second.clone()).lan(ask);
    b.wait_ms(1_200).wan(of_second);
}
