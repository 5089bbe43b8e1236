//! The IP header of packets that arrive: what never reaches conntrack, and what routing makes of the rest.

use super::{Builder, Family, Scenario, probe};
use crate::compose::{Body, Ip, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ip-header-checks",
        families: &Family::BOTH,
        title: "Packets that IP drops",
        shows: "A wrong header checksum, a header of less than five words, a length that is shorter than the header or longer \
                than the packet: conntrack never sees them.",
        ids: &["ICMP-IN-01"],
        compose: dropped,
    },
    Scenario {
        name: "ip-padding",
        families: &Family::BOTH,
        title: "Bytes behind the packet",
        shows: "What follows the packet in its frame is cut off before conntrack sees it: it is part of no checksum, and it is \
                not forwarded. A quote ends where the packet ends.",
        ids: &["ICMP-Q-08"],
        compose: |b| {
            let padded = |packet: &[u8], padding: &[u8]| [packet, padding].concat();
            let inside = b.inside();
            b.lan(padded(&inside.packet(probe(&inside)), &[0xff; 18]));
            let left = b.outside().packet(probe(&b.outside()));
            let header = b.header();
            let error = b.error(b.r1, b.client, super::Kind::TimeExceeded, &left[..header + 2]);
            b.wan(padded(&error, &left[header + 2..])).exceed(&left);
        },
    },
    Scenario {
        name: "ip-hops",
        families: &Family::BOTH,
        title: "How many hops are needed",
        shows: "With a TTL of 2 a packet is forwarded, with 1 or 0 it is not. To the box itself any will do.",
        ids: &["ICMP-LOC-01"],
        compose: |b| {
            for (port, ttl) in [(40_000, 2), (40_001, 1), (40_002, 0)] {
                let ip = b.inside().ttl(ttl);
                b.lan(ip.packet(udp(&ip, port, 33_434, b"how far?")));
            }
            let ip = Ip::between(b.client, b.lan).ttl(1);
            b.lan(ip.packet(udp(&ip, 40_003, 33_434, b"how far?")));
        },
    },
];

fn dropped(b: &mut Builder) {
    let inside = b.inside();
    let whole = inside.packet(probe(&inside));
    let changes: &[(usize, u8)] = match b.family {
        // Header checksum, IHL, total length.
        Family::V4 => &[(10, 0xaa), (0, 0x44), (3, 19), (3, 255)],
        // Length.
        Family::V6 => &[(5, 255), (4, 1)],
    };
    for &(offset, byte) in changes {
        let mut packet = whole.clone();
        packet[offset] = byte;
        if b.family == Family::V4 && offset != 10 {
            refresh_header_checksum(&mut packet);
        }
        b.lan(packet);
    }
    b.lan(whole[..b.header() - 1].to_vec());
    b.lan(inside.packet(Body::new(17, [])));
}

/// Of the first 20 bytes, or of as many words as the header claims.
fn refresh_header_checksum(packet: &mut [u8]) {
    let length = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let checksum = ctwhy_core::checksum::Sum::default().bytes(&packet[..length]).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}
