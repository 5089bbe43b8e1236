//! ICMP errors about flows: found and not found, in both directions.

use super::{Builder, Family, Kind, Scenario};
use crate::compose::udp;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "too-big-masquerade",
    families: &Family::BOTH,
    title: "A router on the way cannot take a packet so large",
    shows: "The second router answers a large datagram of a masqueraded flow with fragmentation needed (IPv4) or \
                packet too big (IPv6). The error is about the flow, so it is RELATED in reply direction, and both of its \
                headers are translated; the MTU that it announces is looked at by nobody on the way.",
    ids: &["ICMP-REL-01", "ICMP-REL-14", "NAT-ICMP-01"],
    compose: too_big,
}];

fn too_big(b: &mut Builder) {
    let payload = vec![0x42; 1300];
    let (inside, outside) = (b.inside(), b.outside());
    b.masquerade().lan(inside.packet(udp(&inside, 40_000, 53, &payload)));
    let left = outside.packet(udp(&outside, 40_000, 53, &payload));
    // A router quotes what keeps the error small enough for every link.
    let quote = &left[..if b.family == Family::V4 { 548 } else { 1232 }];
    let error = b.error(b.r2, b.wan, Kind::TooBig(1280), quote);
    b.wan(error);
}
