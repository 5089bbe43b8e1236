//! Two packets side by side: which fields are others.

use std::ops::Range;

use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER};
use ctwhy_core::tuple::proto;

/// A field of a header: where it is, and what it is called.
type Field = (Range<usize>, &'static str);

const IPV4: [Field; 10] = [
    (0..1, "version and header length"),
    (1..2, "TOS"),
    (2..4, "total length"),
    (4..6, "IPID"),
    (6..8, "flags and fragment offset"),
    (8..9, TTL),
    (9..10, "protocol"),
    (10..12, HEADER_CHECKSUM),
    (12..16, SOURCE),
    (16..20, DESTINATION),
];
const IPV6: [Field; 6] = [
    (0..4, "traffic class and flow label"),
    (4..6, "payload length"),
    (6..7, "next header"),
    (7..8, TTL),
    (8..24, SOURCE),
    (24..40, DESTINATION),
];
const UDP: [Field; 4] = [(0..2, SOURCE_PORT), (2..4, DESTINATION_PORT), (4..6, "UDP length"), (6..8, CHECKSUM)];
const TCP: [Field; 8] = [
    (0..2, SOURCE_PORT),
    (2..4, DESTINATION_PORT),
    (4..8, "sequence number"),
    (8..12, "acknowledgement number"),
    (12..14, "header length and flags"),
    (14..16, "window"),
    (16..18, CHECKSUM),
    (18..20, "urgent pointer"),
];
const ICMP: [Field; 5] =
    [(0..1, "ICMP type"), (1..2, "ICMP code"), (2..4, CHECKSUM), (4..6, ID), (6..8, "sequence number")];

pub(super) const TTL: &str = "TTL";
pub(super) const HEADER_CHECKSUM: &str = "header checksum";
pub(super) const SOURCE: &str = "source address";
pub(super) const DESTINATION: &str = "destination address";
pub(super) const SOURCE_PORT: &str = "source port";
pub(super) const DESTINATION_PORT: &str = "destination port";
pub(super) const CHECKSUM: &str = "transport checksum";
pub(super) const ID: &str = "id";

/// What a packet is, without the four that translation and forwarding are about.
pub(super) const FORWARDED: [&str; 4] = [TTL, HEADER_CHECKSUM, CHECKSUM, ID];

/// The fields in which a packet is another than it should be, with both values; `but` are the fields that may be others.
pub(super) fn differences(expected: &[u8], found: &[u8], but: &[&str]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |range: Range<usize>, name: &str| {
        let (ours, theirs) = (expected.get(range.clone()), found.get(range));
        if ours.is_some() && theirs.is_some() && ours != theirs && !but.contains(&name) {
            differences.push(format!("{name} {} instead of {}", hex(theirs), hex(ours)));
        }
    };
    let version = expected.first().map(|first| first >> 4);
    let (fields, protonum, header) = match version {
        Some(4) => (&IPV4[..], expected.get(9), usize::from(expected.first().map_or(5, |first| first & 15)) * 4),
        _ => (&IPV6[..], expected.get(6), IPV6_HEADER),
    };
    for (range, name) in fields {
        compare(range.clone(), name);
    }
    if header > IPV4_HEADER && version == Some(4) {
        compare(IPV4_HEADER..header, "IP options");
    }
    let transport: &[Field] = match protonum {
        Some(&proto::UDP) => &UDP,
        Some(&proto::TCP) => &TCP,
        Some(&proto::ICMP | &proto::ICMPV6) => &ICMP,
        _ => &[],
    };
    let shift = |range: &Range<usize>| header + range.start..header + range.end;
    for (range, name) in transport {
        compare(shift(range), name);
    }
    let behind = header + transport.last().map_or(0, |(range, _)| range.end);
    let (ours, theirs) = (expected.get(behind..).unwrap_or_default(), found.get(behind..).unwrap_or_default());
    let common = ours.len().min(theirs.len());
    if let Some(at) = (0..common).find(|at| ours.get(*at) != theirs.get(*at)) {
        let name = if protonum == Some(&proto::TCP) { "TCP options or data" } else { "data" };
        differences.push(format!("{name} from byte {} of the packet on", behind + at));
    }
    if expected.len() != found.len() {
        differences.push(format!("{} bytes instead of {}", found.len(), expected.len()));
    }
    differences
}

fn hex(bytes: Option<&[u8]>) -> String {
    let digits: String = bytes.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

/// Several differences in one sentence.
pub(super) fn listed(differences: &[String]) -> String {
    differences.join("; ")
}
