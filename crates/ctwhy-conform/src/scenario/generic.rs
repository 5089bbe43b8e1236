//! Protocols that conntrack has no tracker for.

use super::{Family, Scenario, second_client};
use crate::compose::{Body, Ip};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "generic-protocols",
        families: &Family::BOTH,
        title: "Protocols that nobody knows",
        shows: "One flow for each pair of addresses and protocol, whatever is in the packets, which may be empty: NEW, and \
                ESTABLISHED once there was a reply, never ASSURED.",
        ids: &["GENERIC-01", "TUPLE-05"],
        compose: |b| {
            for protocol in [99, 33, 4, 89, 50, 255] {
                b.sends(|_| Body::new(protocol, *b"some"));
            }
            b.sends(|_| Body::new(99, *b"other"));
            b.answers(|_| Body::new(99, []));
            b.sends(|_| Body::new(99, *b"third"));
        },
    },
    Scenario {
        name: "generic-masquerade",
        families: &Family::BOTH,
        title: "A protocol that nobody knows through masquerade",
        shows: "The address is translated and nothing else. A second client with the same server would need a port to be told \
                apart by, and there is none: its packet is dropped when it is confirmed.",
        ids: &["GENERIC-01", "NAT-PORT-01", "NAT-MAN-07", "CLASH-02"],
        compose: |b| {
            b.masquerade().sends(|_| Body::new(99, *b"first"));
            b.answers(|_| Body::new(99, *b"answer"));
            let ip = Ip::between(second_client(b.family), b.server);
            b.lan(ip.packet(Body::new(99, *b"second")));
        },
    },
];
