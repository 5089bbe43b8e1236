//! UDP (catalogue part F): its checks, and when a flow is a stream.

use super::{Builder, Family, Scenario};
use crate::compose::{Body, Ip, sealed_udp, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "udp-checks",
        families: &Family::BOTH,
        title: "What UDP must be like",
        shows: "Less than four bytes have no ports, less than eight no header; a length below eight or beyond the packet and \
                a wrong checksum are INVALID. Port 0 is fine. A length that leaves some of the packet out is fine where \
                there is no checksum; one must cover all of the packet, not the datagram alone as RFC 768 has it.",
        ids: &["UDP-01", "FRAG-11", "TUPLE-02"],
        compose: checks,
    },
    Scenario {
        name: "udp-checks-of-known-flow",
        families: &Family::BOTH,
        title: "The checks are for every datagram",
        shows: "A datagram of a known flow with a wrong checksum or length is INVALID and does not refresh the flow.",
        ids: &["UDP-01"],
        compose: |b| {
            b.probe();
            checks_of(b, 40_000, 33_434);
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do").with(9, b'!'));
        },
    },
    Scenario {
        name: "udp-without-checksum",
        families: &Family::BOTH,
        title: "UDP without a checksum",
        shows: "A checksum of 0 means that there is none, and is accepted for IPv6, too. NAT leaves it so.",
        ids: &["UDP-01", "ICMP6-X-02", "NAT-MAN-03"],
        compose: |b| {
            b.masquerade().sends(|ip| udp(ip, 40_000, 33_434, b"who answers?").with(6, 0).with(7, 0));
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do").with(6, 0).with(7, 0));
        },
    },
    Scenario {
        name: "udp-bad-checksum-unverified-masquerade",
        families: &Family::BOTH,
        title: "A wrong UDP checksum that nobody verifies",
        shows: "With nf_conntrack_checksum=0 the datagram is NEW; its checksum is adjusted and stays wrong by the same amount.",
        ids: &["UDP-01", "NAT-MAN-03"],
        compose: |b| {
            b.sysctl("net.netfilter.nf_conntrack_checksum", "0").masquerade();
            b.sends(|ip| udp(ip, 40_000, 33_434, b"who answers?").with(9, b'!'));
        },
    },
    Scenario {
        name: "udp-reply",
        families: &Family::BOTH,
        title: "A young flow with replies",
        shows: "Less than two seconds after its first datagram a flow keeps the short timeout, replies or not.",
        ids: &["UDP-02"],
        compose: |b| {
            b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
        },
    },
    Scenario {
        name: "udp-stream",
        families: &Family::BOTH,
        title: "A flow becomes a stream",
        shows: "Two seconds after its first datagram the first reply still gives the short timeout. The next datagram, of \
                either direction, makes the flow ASSURED and its timeout 120 seconds.",
        ids: &["UDP-02", "UDP-03"],
        compose: |b| {
            b.probe();
            b.sends(|ip| udp(ip, 40_001, 33_434, b"and here?"));
            b.wait_ms(2_100);
            for port in [40_000, 40_001] {
                b.answers(|ip| udp(ip, 33_434, port, b"I do"));
            }
            b.answers(|ip| udp(ip, 33_434, 40_000, b"still"));
        },
    },
];

fn checks(b: &mut Builder) {
    for length in [0, 3, 4, 7] {
        b.sends(|ip| udp(ip, 40_000 + length as u16, 53, b"").cut(length));
    }
    checks_of(b, 40_010, 53);
    b.sends(|ip| shorter(ip, 40_020));
    b.sends(|ip| shorter(ip, 40_021).with(6, 0).with(7, 0));
    b.sends(|ip| sealed_udp(ip, shorter(ip, 40_022).bytes));
    b.sends(|ip| udp(ip, 0, 53, b"from nowhere"));
    b.sends(|ip| udp(ip, 40_030, 0, b"to nowhere"));
    b.sends(|ip| udp(ip, 40_031, 53, b""));
}

/// Datagrams of a flow that fail one check each.
fn checks_of(b: &mut Builder, sport: u16, dport: u16) {
    b.sends(|ip| udp(ip, sport, dport, b"text").with(5, 7));
    b.sends(|ip| udp(ip, sport, dport, b"text").with(5, 13));
    b.sends(|ip| udp(ip, sport, dport, b"text").with(9, b'!'));
    b.sends(|ip| udp(ip, sport, dport, b"text").with(4, 1).with(6, 0).with(7, 0));
}

/// A datagram that is shorter than its packet.
fn shorter(ip: &Ip, sport: u16) -> Body {
    let mut body = udp(ip, sport, 53, b"text");
    body.bytes.extend(b"behind it");
    body
}
