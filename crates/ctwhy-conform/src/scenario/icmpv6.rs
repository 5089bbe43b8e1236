//! What only ICMPv6 has (catalogue part C): exempt messages, redirects with options, extension headers.

use std::net::IpAddr;

use super::{Builder, Family, Kind, Scenario};
use crate::compose::{self, Body, Echo, Ip, echo, proto, sealed, udp};

const V6: &[Family] = &[Family::V6];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "icmpv6-untracked",
        families: V6,
        title: "Messages that are not tracked",
        shows: "Multicast listener and neighbour discovery (130 to 136, 143) and multicast router discovery (151 and 152) are \
                UNTRACKED; their neighbours in number are not. A wrong checksum or a cut header comes first and is INVALID.",
        ids: &["ICMP6-U-01"],
        compose: untracked,
    },
    Scenario {
        name: "icmpv6-queries",
        families: V6,
        title: "Which ICMPv6 types begin a flow",
        shows: "Echo request (128) and node information query (139). Everything else from 128 on that is not exempt is \
                INVALID when nobody asked.",
        ids: &["ICMP6-Q-01", "ICMP6-E-02"],
        compose: queries,
    },
    Scenario {
        name: "icmpv6-query-replies",
        families: V6,
        title: "Which ICMPv6 type answers which",
        shows: "129 answers 128, 140 answers 139; no other combination is a reply.",
        ids: &["ICMP6-Q-01", "TUPLE-06"],
        compose: |b| {
            for (request, reply, other) in [(128, 129, 140), (139, 140, 129)] {
                b.sends(|ip| compose::icmp(ip, request, 0, [0, request, 0, 1], b"asks"));
                b.answers(|ip| compose::icmp(ip, other, 0, [0, request, 0, 1], b"answers something else"));
                b.answers(|ip| compose::icmp(ip, reply, 0, [0, request, 0, 1], b"answers"));
                b.sends(|ip| compose::icmp(ip, request, 0, [0, request, 0, 2], b"asks again"));
            }
        },
    },
    Scenario {
        name: "icmpv6-redirect",
        families: V6,
        title: "A redirect quotes in an option",
        shows: "A redirect with a hop limit of 255 from a link-local address, whose first option is the redirected header: \
                the packet in it is looked up like that of any error. Another hop limit, another source, no option, an \
                option of no length, or another option first: INVALID.",
        ids: &["ICMP6-R-01"],
        compose: redirects,
    },
    Scenario {
        name: "icmpv6-outer-extension-headers",
        families: V6,
        title: "Extension headers before the error",
        shows: "They are skipped; the error is RELATED and translated. Behind no next header (59) nothing is looked at.",
        ids: &["ICMP6-E-06", "NAT-MAN-08"],
        compose: outer_extensions,
    },
    Scenario {
        name: "ipv6-extension-headers",
        families: V6,
        title: "Extension headers before UDP",
        shows: "Hop-by-hop, routing, destination options, authentication and an atomic fragment header are skipped, so that \
                all are the same flow. ESP is a protocol of its own, and no next header is INVALID.",
        ids: &["FRAG-07", "TUPLE-05"],
        compose: tracked_extensions,
    },
];

fn untracked(b: &mut Builder) {
    for icmp_type in (130..=136).chain([138, 143, 144, 150, 151, 152, 153]) {
        b.sends(|ip| compose::icmp(ip, icmp_type, 0, [0; 4], &[0; 24]));
    }
    for icmp_type in [135, 143] {
        b.sends(|ip| compose::icmp(ip, icmp_type, 0, [0; 4], &[0; 24]).with(3, 0xaa));
        b.sends(|ip| sealed(ip, vec![icmp_type, 0, 0, 0, 0, 0, 0]));
    }
}

fn queries(b: &mut Builder) {
    for icmp_type in [128, 129, 137, 138, 139, 140, 141, 142, 144, 150, 153, 154, 200, 254, 255] {
        b.sends(|ip| compose::icmp(ip, icmp_type, 0, [0, icmp_type, 0, 1], b"asks for something"));
    }
    b.sends(|ip| compose::icmp(ip, 128, 200, [0, 77, 0, 1], b"asks with a code"));
}

/// The flow that the redirects are about ends at the box, because what comes from a link-local address is not forwarded.
fn redirects(b: &mut Builder) {
    let to_box = Ip::between(b.client, b.lan);
    b.lan(to_box.packet(echo(&to_box, Echo::Request, 7, 1)));
    let from_box = to_box.back();
    let reply = from_box.packet(echo(&from_box, Echo::Reply, 7, 1));
    let link_local = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0x99]);
    let good = Ip::between(link_local, b.lan).ttl(255);
    let targets = [[0xfd; 16], [0xfd; 16]].concat();
    let option = |kind: u8, length: u8, inner: &[u8]| [&[kind, length, 0, 0, 0, 0, 0, 0][..], inner].concat();
    let quoted = option(4, (8 + reply.len()).div_ceil(8) as u8, &reply);
    let redirect = |ip: &Ip, code: u8, options: &[u8]| {
        ip.packet(compose::icmp(ip, 137, code, [0; 4], &[&targets[..], options].concat()))
    };
    let mut other = reply.clone();
    other[4 + 40] ^= 1;
    let cases = [
        redirect(&good, 0, &quoted),
        // A code, a hop limit less, an address of another scope, another destination.
        redirect(&good, 1, &quoted),
        redirect(&Ip::between(link_local, b.lan).ttl(254), 0, &quoted),
        redirect(&Ip::between(b.client, b.lan).ttl(255), 0, &quoted),
        redirect(&Ip::between(IpAddr::from([0xfec0, 0, 0, 0, 0, 0, 0, 9]), b.lan).ttl(255), 0, &quoted),
        redirect(&Ip::between(IpAddr::from([0xfebf, 0, 0, 0, 0, 0, 0, 9]), b.lan).ttl(255), 0, &quoted),
        redirect(&Ip::between(link_local, b.wan).ttl(255), 0, &quoted),
        // Options: none, half of one, one of no length, the target's address first, of any length.
        redirect(&good, 0, &[]),
        redirect(&good, 0, &[4]),
        redirect(&good, 0, &option(4, 0, &reply)),
        redirect(&good, 0, &[option(2, 1, &[]), quoted.clone()].concat()),
        redirect(&good, 0, &option(2, 7, &reply)),
        redirect(&good, 0, &option(4, 1, &reply)),
        // What is quoted: another id, too little.
        redirect(&good, 0, &option(4, 7, &other)),
        redirect(&good, 0, &option(4, 7, &reply[..47])),
        redirect(&good, 0, &option(4, 7, &reply[..48])),
        redirect(&good, 0, &option(4, 7, &[])),
        // The fixed part is cut off.
        good.packet(compose::icmp(&good, 137, 0, [0; 4], &targets[..31])),
        good.packet(compose::icmp(&good, 137, 0, [0; 4], &[])),
        // Of several faults the length is named.
        good.packet(compose::icmp(&good, 137, 1, [0; 4], &targets[..31])),
        to_box.packet(compose::icmp(&to_box, 137, 0, [0; 4], &targets[..31])),
        to_box.packet(compose::icmp(&to_box, 137, 1, [0; 4], &targets)),
    ];
    for packet in cases {
        b.lan(packet);
    }
}

fn outer_extensions(b: &mut Builder) {
    let left = b.masquerade().probe();
    let ip = Ip::between(b.r1, b.wan);
    let error = b.error_body(&ip, Kind::TimeExceeded, &left);
    let options: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let packets = [
        error.clone().behind(proto::HOP_BY_HOP, options),
        error.clone().behind(proto::DESTINATION, options),
        error.clone().behind(proto::DESTINATION, options).behind(proto::HOP_BY_HOP, options),
        error.clone().behind(proto::AUTH, &[0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]),
        Body::new(proto::NONE, error.bytes),
    ];
    for body in packets {
        b.wan(ip.packet(body));
    }
}

fn tracked_extensions(b: &mut Builder) {
    let options: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let datagram = |ip: &Ip| udp(ip, 40_000, 53, b"behind headers");
    b.sends(|ip| datagram(ip).behind(proto::HOP_BY_HOP, options));
    b.sends(|ip| datagram(ip).behind(proto::DESTINATION, options));
    b.sends(|ip| datagram(ip).behind(proto::ROUTING, &[0, 0, 253, 0, 0, 0, 0, 0]));
    b.sends(|ip| datagram(ip).behind(proto::AUTH, &[0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]));
    b.answers(|ip| udp(ip, 53, 40_000, b"answer").behind(proto::DESTINATION, options));
    b.sends(|ip| datagram(ip).behind(50, options));
    b.sends(|ip| Body::new(proto::NONE, datagram(ip).bytes));
    b.sends(|ip| Body::new(proto::NONE, datagram(ip).bytes).behind(proto::DESTINATION, options));
    b.sends(|_| Body::new(proto::DESTINATION, [17, 255, 1, 4, 0, 0, 0, 0]));
}
