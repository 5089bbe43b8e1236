//! GRE and UDP-Lite (catalogue part F).

use super::{Builder, Family, Scenario, second_client};
use crate::compose::{Body, Ip, Pseudo, gre, pptp, proto, udplite};

const PORTS: (u16, u16) = (40_000, 33_434);
const BACK: (u16, u16) = (33_434, 40_000);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "gre-stream",
        families: &Family::BOTH,
        title: "A GRE tunnel",
        shows: "Unreplied for 30 seconds; with the first packet behind a reply ASSURED and 180.",
        ids: &["GRE-01", "TUPLE-04"],
        compose: |b| {
            b.sends(|_| gre(1));
            b.answers(|_| gre(1));
            b.sends(|_| gre(1));
        },
    },
    Scenario {
        name: "gre-keys",
        families: &Family::BOTH,
        title: "Which GRE packets are one flow",
        shows: "The key of version 0 is not looked at, so one tunnel is all of them, even a packet of one byte. Version 1 has \
                call ids: each direction has its own and is a flow of its own. Version 1 around anything but PPP is INVALID.",
        ids: &["TUPLE-04", "GRE-01"],
        compose: |b| {
            b.sends(|_| gre(1));
            b.sends(|_| gre(2));
            b.answers(|_| gre(3));
            b.sends(|_| gre(1).cut(1));
            b.sends(|_| pptp(7));
            b.answers(|_| pptp(8));
            b.answers(|_| pptp(7));
            b.sends(|_| pptp(9).cut(7));
            b.sends(|_| pptp(9).with(2, 8).with(3, 0));
        },
    },
    Scenario {
        name: "gre-masquerade",
        families: &Family::BOTH,
        title: "GRE through masquerade",
        shows: "The address is translated, and errors about the tunnel, whose quote needs no GRE at all. A second client with \
                the same server and call id has nothing to be told apart by and is dropped.",
        ids: &["NAT-MAN-06", "NAT-PORT-01", "ICMP-IN-04", "CLASH-02"],
        compose: |b| {
            let left = b.masquerade().sends(|_| gre(1));
            b.answers(|_| gre(1));
            let header = b.header();
            b.exceed(&left).exceed(&left[..header]);
            b.sends(|_| pptp(7));
            let ip = Ip::between(second_client(b.family), b.server);
            b.lan(ip.packet(gre(5))).lan(ip.packet(pptp(7))).lan(ip.packet(pptp(8)));
        },
    },
    Scenario {
        name: "gre-dnat",
        families: &Family::BOTH,
        title: "GRE to a virtual address",
        shows: "Version 0 is translated by its address. A version that GRE has not is dropped where the destination is \
                translated, and nowhere else.",
        ids: &["NAT-MAN-06"],
        compose: |b| {
            let rule = format!("-A PREROUTING -i wan -p 47 -j DNAT --to-destination {}", b.client);
            b.nat(&[&rule]);
            let ip = Ip::between(b.server, b.wan);
            b.wan(ip.packet(gre(1)));
            let version_3 = |body: Body| body.with(1, 3);
            let other = Ip::between(b.r1, b.wan);
            b.wan(other.packet(version_3(gre(1))));
            b.lan(Ip::between(b.client, b.r2).packet(version_3(gre(1))));
        },
    },
    Scenario {
        name: "udplite-stream",
        families: &Family::BOTH,
        title: "A UDP-Lite flow",
        shows: "As UDP, but with the first datagram behind a reply it is ASSURED at once, for 120 seconds.",
        ids: &["UDPLITE-02"],
        compose: |b| {
            b.sends(|ip| udplite(ip, PORTS, 0, b"who answers?", Pseudo::Linux));
            b.answers(|ip| udplite(ip, BACK, 0, b"I do", Pseudo::Linux));
            b.sends(|ip| udplite(ip, PORTS, 8, b"thanks", Pseudo::Linux));
        },
    },
    Scenario {
        name: "udplite-checks",
        families: &Family::BOTH,
        title: "What UDP-Lite must be like",
        shows: "A coverage below eight or beyond the datagram, no checksum, a short header: INVALID. The checksum is verified \
                with the pseudo header of UDP, so that one that is right by RFC 3828 is INVALID, too.",
        ids: &["UDPLITE-01", "TUPLE-02"],
        compose: udplite_checks,
    },
    Scenario {
        name: "udplite-standard-checksum-unverified",
        families: &Family::BOTH,
        title: "UDP-Lite as the RFC has it, with nf_conntrack_checksum=0",
        shows: "Where checksums are not verified, a datagram as RFC 3828 wants it is NEW.",
        ids: &["UDPLITE-01"],
        compose: |b| {
            b.sysctl("net.netfilter.nf_conntrack_checksum", "0");
            b.sends(|ip| udplite(ip, PORTS, 0, b"who answers?", Pseudo::Standard));
            b.answers(|ip| udplite(ip, BACK, 0, b"I do", Pseudo::Standard));
        },
    },
    Scenario {
        name: "udplite-masquerade",
        families: &Family::BOTH,
        title: "UDP-Lite through masquerade",
        shows: "The address is translated, and the checksum is adjusted whatever it covers. An error about it is found by the \
                quoted ports; to be translated it must quote all of the header.",
        ids: &["NAT-MAN-04", "NAT-ICMP-01"],
        compose: |b| {
            let left = b.masquerade().sends(|ip| udplite(ip, PORTS, 0, b"all of it", Pseudo::Linux));
            b.sends(|ip| udplite(ip, PORTS, 8, b"header only", Pseudo::Linux));
            b.answers(|ip| udplite(ip, BACK, 12, b"I do", Pseudo::Linux));
            let header = b.header();
            for length in [left.len(), header + 8, header + 7, header + 4] {
                b.exceed(&left[..length]);
            }
        },
    },
];

fn udplite_checks(b: &mut Builder) {
    let datagram = |ip: &Ip, sport, coverage| udplite(ip, (sport, 53), coverage, b"text", Pseudo::Linux);
    for (sport, length) in [(41_000, 3), (41_001, 4), (41_002, 7)] {
        b.sends(|ip| datagram(ip, sport, 0).cut(length));
    }
    for (sport, coverage) in [(41_010, 1), (41_011, 7), (41_012, 8), (41_013, 12), (41_014, 13), (41_015, 0xffff)] {
        b.sends(|ip| datagram(ip, sport, coverage));
    }
    b.sends(|ip| datagram(ip, 41_020, 0).with(6, 0).with(7, 0));
    b.sends(|ip| datagram(ip, 41_021, 0).with(9, b'!'));
    // What is not covered may be anything.
    b.sends(|ip| datagram(ip, 41_022, 8).with(9, b'!'));
    b.sends(|ip| udplite(ip, (41_023, 53), 0, b"text", Pseudo::Standard));
    b.sends(|ip| Body::new(proto::UDPLITE, datagram(ip, 0, 0).bytes));
}
