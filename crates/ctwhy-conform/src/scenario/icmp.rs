//! The ICMP header itself, and queries with their replies (catalogue B.1 and the first steps of B.2).

use std::net::IpAddr;

use ctwhy_core::checksum::Sum;

use super::{Builder, Family, Kind, Scenario};
use crate::compose::{self, Body, Echo, Ip, echo, proto, sealed, sealed_with};

const V4: &[Family] = &[Family::V4];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "icmp-short",
        families: &Family::BOTH,
        title: "Fewer than eight bytes of ICMP",
        shows: "The ICMP header has eight bytes. Seven are INVALID, of an error as of an echo request.",
        ids: &["ICMP6-E-03", "TUPLE-03"],
        compose: short,
    },
    Scenario {
        name: "icmp-bad-checksum",
        families: &Family::BOTH,
        title: "The ICMP checksum is wrong",
        shows: "An error and an echo request with a wrong checksum are INVALID. The checksum covers all of the message, also \
                what the quote has too much.",
        ids: &["ICMP-Q-08", "ICMP6-E-03"],
        compose: bad_checksum,
    },
    Scenario {
        name: "icmp-bad-checksum-unverified",
        families: &Family::BOTH,
        title: "The ICMP checksum is wrong and nobody verifies it",
        shows: "With nf_conntrack_checksum=0 the error is RELATED and the echo request NEW.",
        ids: &["ICMP-Q-08"],
        compose: |b| bad_checksum(b.sysctl("net.netfilter.nf_conntrack_checksum", "0")),
    },
    Scenario {
        name: "icmp-bad-checksum-unverified-masquerade",
        families: &Family::BOTH,
        title: "NAT verifies the checksum of an error whatever the sysctl says",
        shows: "With nf_conntrack_checksum=0 the error is RELATED, and then dropped by NAT, which would have to make a new \
                checksum. The echo request, of which it only adjusts the checksum, passes with an error in it.",
        ids: &["NAT-MAN-05"],
        compose: |b| bad_checksum(b.sysctl("net.netfilter.nf_conntrack_checksum", "0").masquerade()),
    },
    Scenario {
        name: "icmp-unknown-type",
        families: V4,
        title: "ICMP types that conntrack does not know",
        shows: "Types above 18 are INVALID, whatever they quote.",
        ids: &["ICMP-Q-03"],
        compose: |b| {
            let left = b.probe();
            let ip = Ip::between(b.r1, b.client);
            for icmp_type in [18, 19, 20, 40, 42, 43, 253, 255] {
                b.wan(ip.packet(compose::icmp(&ip, icmp_type, 0, [0; 4], &left)));
            }
        },
    },
    Scenario {
        name: "icmp-queries",
        families: V4,
        title: "Which ICMP types begin a flow",
        shows: "Echo, timestamp, information and address mask requests (8, 13, 15, 17) are NEW, with any code. Replies that \
                nobody asked for and all other types are INVALID.",
        ids: &["ICMP-Q-01", "ICMP-Q-02", "ICMP-Q-03", "ICMP-Q-07"],
        compose: |b| {
            for icmp_type in 0..=18 {
                b.sends(|ip| compose::icmp(ip, icmp_type, 0, [0, icmp_type, 0, 1], b"asks"));
            }
            b.sends(|ip| compose::icmp(ip, 8, 200, [0, 77, 0, 1], b"asks with a code"));
        },
    },
    Scenario {
        name: "icmp-query-replies",
        families: V4,
        title: "Which ICMP type answers which",
        shows: "0 answers 8, 14 answers 13, 16 answers 15 and 18 answers 17; no other combination is a reply.",
        ids: &["ICMP-Q-04", "TUPLE-06"],
        compose: |b| {
            for (request, reply, other) in [(8, 0, 14), (13, 14, 16), (15, 16, 18), (17, 18, 0)] {
                b.sends(|ip| compose::icmp(ip, request, 0, [0, request, 0, 1], b"asks"));
                b.answers(|ip| compose::icmp(ip, other, 0, [0, request, 0, 1], b"answers something else"));
                b.answers(|ip| compose::icmp(ip, reply, 0, [0, request, 0, 1], b"answers"));
                b.sends(|ip| compose::icmp(ip, request, 0, [0, request, 0, 2], b"asks again"));
            }
        },
    },
    Scenario {
        name: "echo-masquerade",
        families: &Family::BOTH,
        title: "Echo through masquerade",
        shows: "Requests are NEW until the first reply and ESTABLISHED from then on. Id and sequence stay as they are; the \
                flow never becomes ASSURED and is not removed by its reply.",
        ids: &["ICMP-Q-06", "ICMP6-Q-01", "NAT-MAN-05"],
        compose: |b| {
            b.masquerade();
            b.sends(|ip| echo(ip, Echo::Request, 7, 1));
            b.sends(|ip| echo(ip, Echo::Request, 7, 2));
            b.answers(|ip| echo(ip, Echo::Reply, 7, 2));
            b.answers(|ip| echo(ip, Echo::Reply, 7, 2));
            b.sends(|ip| echo(ip, Echo::Request, 7, 3));
            b.sends(|ip| echo(ip, Echo::Request, 8, 1));
        },
    },
    Scenario {
        name: "echo-reply-mismatch",
        families: &Family::BOTH,
        title: "An echo reply that is not one",
        shows: "A reply with another id, another code, from another address, or when nobody asked: INVALID. A request from \
                the other side with the same id is a flow of its own.",
        ids: &["ICMP-Q-04", "ICMP-Q-05", "TUPLE-03"],
        compose: mismatch,
    },
    Scenario {
        name: "icmp-other-family",
        families: &Family::BOTH,
        title: "ICMPv6 in IPv4, ICMP in IPv6",
        shows: "The message of the other family is handed to no error handler, and its query begins no flow: INVALID.",
        ids: &["ICMP6-X-01"],
        compose: other_family,
    },
    Scenario {
        name: "icmp-with-options",
        families: V4,
        title: "An error with IP options",
        shows: "Options of the outer header are skipped; the error is RELATED and translated.",
        ids: &["ICMP-REL-12"],
        compose: |b| {
            let left = b.masquerade().probe();
            let ip = Ip { options: vec![1, 1, 1, 1, 1, 1, 1, 0], ..Ip::between(b.r1, b.wan) };
            let error = b.error_body(&ip, Kind::TimeExceeded, &left);
            b.wan(ip.packet(error));
        },
    },
];

fn short(b: &mut Builder) {
    let left = b.probe();
    let error = Ip::between(b.r1, b.client);
    let (time_exceeded, request) = if b.family == Family::V4 { (11, 8) } else { (3, 128) };
    let whole = compose::icmp(&error, time_exceeded, 0, [0; 4], &left);
    for length in [0, 1, 4, 7] {
        b.wan(error.packet(sealed(&error, whole.bytes[..length].to_vec())));
    }
    let inside = b.inside();
    for length in [7, 8] {
        b.lan(inside.packet(sealed(&inside, vec![request, 0, 0, 0, 0, 7, 0, 1][..length].to_vec())));
    }
}

fn bad_checksum(b: &mut Builder) {
    let left = b.probe();
    let ip = Ip::between(b.r1, b.seen_as());
    let error = b.error_body(&ip, Kind::TimeExceeded, &left);
    let last = error.bytes.len() - 1;
    let wrong = error.bytes[last] ^ 0xff;
    let field = error.bytes[3] ^ 1;
    b.wan(ip.packet(error.clone().with(last, wrong))).wan(ip.packet(error.with(3, field)));
    b.sends(|ip| echo(ip, Echo::Request, 7, 1).with(9, b'!'));
}

fn mismatch(b: &mut Builder) {
    b.answers(|ip| echo(ip, Echo::Reply, 7, 1));
    b.sends(|ip| echo(ip, Echo::Request, 7, 1));
    b.answers(|ip| echo(ip, Echo::Reply, 8, 1));
    b.answers(|ip| {
        let mut bytes = echo(ip, Echo::Reply, 7, 1).bytes;
        bytes[1] = 1;
        sealed(ip, bytes)
    });
    let elsewhere = Ip::between(b.r2, b.client);
    b.wan(elsewhere.packet(echo(&elsewhere, Echo::Reply, 7, 1)));
    b.answers(|ip| echo(ip, Echo::Request, 7, 1));
    b.answers(|ip| echo(ip, Echo::Reply, 7, 1));
}

fn other_family(b: &mut Builder) {
    let left = b.probe();
    let (types, [time_exceeded, unreachable]) = match b.family {
        Family::V4 => ([128, 129, 3, 1, 135], [3, 1]),
        Family::V6 => ([8, 0, 11, 3, 13], [11, 3]),
    };
    for icmp_type in types {
        b.sends(|ip| foreign(ip, icmp_type, &left));
    }
    // As errors of the family's own they would be about the probe.
    let ip = Ip::between(b.r1, b.client);
    b.wan(ip.packet(foreign(&ip, time_exceeded, &left))).wan(ip.packet(foreign(&ip, unreachable, &left)));
}

/// A message of the other family's ICMP, with the checksum that it has there.
fn foreign(ip: &Ip, icmp_type: u8, quote: &[u8]) -> Body {
    let bytes = [&[icmp_type, 0, 0, 0, 0, 7, 0, 1], quote].concat();
    match ip.src {
        IpAddr::V4(_) => sealed_with(ip.pseudo_header(proto::ICMPV6, bytes.len()), proto::ICMPV6, bytes),
        IpAddr::V6(_) => sealed_with(Sum::default(), proto::ICMP, bytes),
    }
}
