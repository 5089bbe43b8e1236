//! Packets to the box and packets of the box: what its own stack answers, and what its forwarding complains about.

use super::{Builder, Family, Scenario, probe};
use crate::compose::{Echo, Ip, Tcp, echo, flag, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "box-ttl-exceeded",
        families: &Family::BOTH,
        title: "The box complains about a packet without hops",
        shows: "The first packet of a flow has a TTL of 1. Its entry is never confirmed, but the error that the box sends \
                carries it: RELATED in reply direction. The same about a reply is RELATED in original direction.",
        ids: &["ICMP-LOC-01", "ICMP6-L-01", "NEW-04"],
        compose: ttl_exceeded,
    },
    Scenario {
        name: "link-local-destination",
        families: &[Family::V6],
        title: "A packet to a link-local address",
        shows: "It leaves by the interface that it came in by, whatever the default route says.",
        ids: &["NEW-05"],
        compose: |b| {
            let near = Ip { dst: std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99).into(), ..b.inside() };
            b.lan(near.packet(probe(&near)));
        },
    },
    Scenario {
        name: "source-unspecified",
        families: &[Family::V6],
        title: "A packet from nobody to another network",
        shows: "It is NEW and not forwarded, as one from a link-local address; nothing is confirmed.",
        ids: &["NEW-02"],
        compose: |b| {
            let nobody = Ip { src: std::net::Ipv6Addr::UNSPECIFIED.into(), ..b.inside() };
            b.lan(nobody.packet(probe(&nobody)));
        },
    },
    Scenario {
        name: "box-no-route",
        families: &Family::BOTH,
        title: "The box knows no route",
        shows: "The packet is NEW, and the error about it RELATED in reply direction; nothing is confirmed.",
        ids: &["ICMP-LOC-01", "NEW-02"],
        compose: |b| {
            b.case.spec.routes.clear();
            let inside = b.inside();
            b.lan(inside.packet(probe(&inside)));
        },
    },
    Scenario {
        name: "box-port-unreachable",
        families: &Family::BOTH,
        title: "Nobody listens at the box",
        shows: "The datagram is delivered and its entry confirmed. The port unreachable carries no entry; it is looked up by \
                its quote like an error from afar, found, and RELATED in reply direction.",
        ids: &["ICMP-LOC-04"],
        compose: |b| {
            let ip = Ip::between(b.client, b.lan);
            b.lan(ip.packet(probe(&ip)));
        },
    },
    Scenario {
        name: "box-echo",
        families: &Family::BOTH,
        title: "The box is asked for an echo",
        shows: "Request and reply are tracked like those of others: NEW and delivered, ESTABLISHED in reply direction and sent.",
        ids: &["ICMP-LOC-06"],
        compose: |b| {
            let ip = Ip::between(b.client, b.lan);
            b.lan(ip.packet(echo(&ip, Echo::Request, 7, 1))).lan(ip.packet(echo(&ip, Echo::Request, 7, 2)));
        },
    },
    Scenario {
        name: "box-echo-masquerade",
        families: &Family::BOTH,
        title: "The masquerading box is asked for an echo from outside",
        shows: "A nat table changes nothing about flows to the box itself, whose bindings are empty.",
        ids: &["ICMP-LOC-06", "NAT-SET-04"],
        compose: |b| {
            b.masquerade();
            let ip = Ip::between(b.server, b.wan);
            b.wan(ip.packet(echo(&ip, Echo::Request, 7, 1)));
        },
    },
    Scenario {
        name: "box-redirected-port-unreachable",
        families: &Family::BOTH,
        title: "A datagram is redirected to the box, where nobody listens",
        shows: "REDIRECT makes the box the destination. The port unreachable is found by its quote, and leaves from the \
                address and about the port that the client meant.",
        ids: &["NAT-ICMP-12", "NAT-PORT-10"],
        compose: |b| {
            b.nat(&["-A PREROUTING -i lan -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353"]);
            let inside = b.inside();
            b.lan(inside.packet(udp(&inside, 40_000, 53, b"who is it?")));
        },
    },
    Scenario {
        name: "box-tcp-reset",
        families: &Family::BOTH,
        title: "Nobody listens on TCP at the box",
        shows: "The SYN is delivered and confirmed; the reset of the box's own TCP is found in the table and ends the entry.",
        ids: &["ICMP-LOC-06", "TCP-RST-05"],
        compose: |b| {
            let ip = Ip::between(b.client, b.lan);
            let syn = Tcp { sport: 40_000, dport: 81, seq: 1_000, flags: flag::SYN, window: 64_240, ..Tcp::default() };
            b.lan(ip.packet(syn.body(&ip)));
        },
    },
];

fn ttl_exceeded(b: &mut Builder) {
    let out = b.inside().ttl(1);
    b.lan(out.packet(probe(&out)));
    b.probe();
    let back = b.inside().back().ttl(1);
    b.wan(back.packet(udp(&back, 33_434, 40_000, b"I do")));
}
