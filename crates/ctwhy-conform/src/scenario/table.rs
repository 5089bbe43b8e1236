//! Entries as such (catalogue part A): how they are found, how long they live, what is counted.

use super::{Family, Scenario, probe};
use crate::compose::{Body, Echo, Ip, Tcp, echo, flag, gre, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "late-reply",
        families: &Family::BOTH,
        title: "A reply that comes too late",
        shows: "The entry has expired when the answer comes. The answer is NEW, and its entry the other way round.",
        ids: &["GC-03", "TUPLE-08", "GC-01"],
        compose: |b| {
            b.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1").probe();
            b.wait_ms(1_500);
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
        },
    },
    Scenario {
        name: "self-inverse",
        families: &Family::BOTH,
        title: "A packet from an address to itself",
        shows: "Where both tuples of an entry are equal the second packet is found in reply direction: ESTABLISHED, although \
                nobody answered. An echo is not so, its types differ.",
        ids: &["CORE-HOOK-07"],
        compose: |b| {
            let own = Ip::between(b.server, b.server);
            for _ in 0..2 {
                b.lan(own.packet(udp(&own, 5_000, 5_000, b"me?")));
                b.lan(own.packet(Body::new(99, *b"me?")));
                b.lan(own.packet(gre(1)));
                b.lan(own.packet(echo(&own, Echo::Request, 7, 1)));
                let syn =
                    Tcp { sport: 5_000, dport: 5_000, seq: 1_000, flags: flag::SYN, window: 100, ..Tcp::default() };
                b.lan(own.packet(syn.body(&own)));
            }
            let error =
                b.error(b.r1, b.server, super::Kind::TimeExceeded, &own.packet(udp(&own, 5_000, 5_000, b"me?")));
            b.wan(error);
        },
    },
    Scenario {
        name: "timeouts-by-sysctl",
        families: &Family::BOTH,
        title: "Timeouts as the sysctls have them",
        shows: "One flow of each protocol with timeouts of its own.",
        ids: &["TIMEOUT-02", "TIMEOUT-03"],
        compose: |b| {
            for (name, value) in [
                ("udp", "41"),
                ("icmp", "42"),
                ("icmpv6", "43"),
                ("generic", "44"),
                ("gre", "45"),
                ("tcp_timeout_syn_sent", "46"),
            ] {
                let suffix = if name.starts_with("tcp") { "" } else { "_timeout" };
                b.sysctl(&format!("net.netfilter.nf_conntrack_{name}{suffix}"), value);
            }
            b.probe();
            b.sends(|ip| echo(ip, Echo::Request, 7, 1));
            b.sends(|_| Body::new(99, *b"some"));
            b.sends(|_| gre(1));
            b.sends(|ip| Tcp::syn().body(ip));
        },
    },
    Scenario {
        name: "both-directions-quoted",
        families: &Family::BOTH,
        title: "The same two ends, quoted either way round",
        shows: "An error that quotes what the client sent is RELATED in reply direction, one that quotes what the server sent in \
                original direction: the inverted tuple is looked up, and whichever tuple of whichever entry it is decides.",
        ids: &["ICMP-REL-15", "TUPLE-08"],
        compose: |b| {
            // An echo each way is two flows with the same ends.
            let ask = b.sends(|ip| echo(ip, Echo::Request, 7, 1));
            let asked = b.answers(|ip| echo(ip, Echo::Request, 7, 1));
            b.exceed(&ask);
            let about_server = b.error(b.client, b.server, super::Kind::HostUnreachable, &asked);
            b.lan(about_server);
            let left = b.sends(probe);
            let back = b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.exceed(&left);
            let about_answer = b.error(b.client, b.server, super::Kind::PortUnreachable, &back);
            b.lan(about_answer);
        },
    },
    Scenario {
        name: "box-ttl-exceeded-about-invalid",
        families: &Family::BOTH,
        title: "The box complains about an INVALID packet",
        shows: "There is no entry that the error could carry, so it is looked up by what it quotes, which nobody knows: it is \
                INVALID as well.",
        ids: &["ICMP-LOC-03"],
        compose: |b| {
            let ip = b.inside().ttl(1);
            let synack = Tcp { flags: flag::SYN | flag::ACK, ..Tcp::syn() };
            b.lan(ip.packet(synack.body(&ip)));
        },
    },
    Scenario {
        name: "accounting-refused",
        families: &Family::BOTH,
        title: "What is counted, and what is not",
        shows: "With nf_conntrack_acct=1 entries count packets and bytes of IP by direction. Errors and INVALID packets are not \
                counted; a packet that ends at the box for want of hops is.",
        ids: &["ACCT-02", "ACCT-03"],
        compose: |b| {
            let left = b.sysctl("net.netfilter.nf_conntrack_acct", "1").probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.exceed(&left);
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do").with(9, b'!'));
            let last_hop = b.inside().ttl(1);
            b.lan(last_hop.packet(probe(&last_hop)));
            let syn = |ip: &Ip| Tcp::syn().body(ip);
            b.sends(syn);
            b.sends(syn);
        },
    },
];
