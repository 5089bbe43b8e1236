//! The reference NAT's router beside the recorded kernels: what leaves because of each packet, and what the box says
//! itself, byte for byte.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use std::path::{Path, PathBuf};

use ctwhy_conform::replay;
use ctwhy_core::time::Time;
use ctwhy_fixture::case::{Bytes, Case, Recording};
use ctwhy_fixture::link::{Stripped, strip};
use ctwhy_nat::limit::Limits;
use ctwhy_nat::router::{Arrival, Departure, Router};

/// The sysctls that end all limits, which is how cases are recorded.
const UNLIMITED: [(&str, &str); 4] = [
    ("icmp_ratemask", "0"),
    ("net.ipv6.icmp.ratemask", ""),
    ("route.error_cost", "0"),
    ("icmp_msgs_per_sec", "1000000"),
];

/// Does the packet have these bytes, where they are not free?
fn matches(recorded: &Bytes, packet: &[u8]) -> bool {
    recorded.len() == packet.len() && recorded.iter().zip(packet).all(|(r, p)| r.is_none_or(|r| r == *p))
}

/// Is it a redirect? Neighbour discovery sends those, which a router on TUN devices has not.
fn is_redirect(bytes: &Bytes) -> bool {
    bytes.iter().nth(6) == Some(Some(58)) && bytes.iter().nth(40) == Some(Some(137))
}

/// What the router did otherwise than the kernel.
fn differences(case: &Case, recording: &Recording) -> Vec<String> {
    let mut limits = Limits::default();
    UNLIMITED.into_iter().for_each(|(name, value)| limits.set(name, value).unwrap());
    let mut router = Router::new(replay::engine(&case.spec).unwrap(), limits, 0);
    let mut lines = Vec::new();
    for (packet, recorded) in case.packets.iter().zip(&recording.outcome.packets) {
        let Ok(Stripped::Ip(link)) = strip(packet.linktype, &packet.bytes) else { panic!("no IP packet") };
        let mut bytes = packet.bytes.get(link.ip_offset..).unwrap().to_vec();
        let at = router.engine.network.interfaces.iter().position(|known| known.name == packet.iface).unwrap();
        replay::foretell(&mut router.engine, recorded);
        let mut left: Vec<(u16, Vec<u8>)> = Vec::new();
        let mut leave = |departure: Departure<'_>| left.push((departure.interface, departure.packet.to_vec()));
        router.receive(Arrival::new(&mut bytes, at as u16), Time(packet.time_ns), &mut (), &mut leave);
        let forwarded = recorded.forwarded.iter().flatten().map(|emitted| (&emitted.iface, &emitted.bytes));
        let said = recorded.generated.iter().flatten().map(|made| (&made.iface, &made.bytes));
        let expected: Vec<_> =
            forwarded.chain(said.filter(|(iface, bytes)| *iface != "none" && !is_redirect(bytes))).collect();
        let name = |index: &u16| &router.engine.network.interface(*index).unwrap().name;
        let agrees = expected.len() == left.len()
            && expected.iter().zip(&left).all(|((iface, r), (out, p))| *iface == name(out) && matches(r, p));
        if !agrees {
            let list = |text: &mut String, iface: &str, bytes: &Bytes| *text += &format!("\n        {iface} {bytes}");
            let (mut theirs, mut ours) = (String::new(), String::new());
            expected.iter().for_each(|(iface, bytes)| list(&mut theirs, iface, bytes));
            left.iter().for_each(|(out, bytes)| list(&mut ours, name(out), &Bytes::from(&bytes[..])));
            lines.push(format!("packet {}: the kernel sent{theirs}\n      the router{ours}", recorded.packet));
        }
    }
    let statistics = &router.statistics;
    if statistics.accounted() != statistics.received.packets {
        lines.push(format!("{} of {} packets are accounted for", statistics.accounted(), statistics.received.packets));
    }
    lines
}

#[test]
fn the_router_sends_what_the_kernels_did() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    let (mut compared, mut failed) = (0, Vec::new());
    for folder in &folders {
        let case = Case::read(folder).unwrap();
        // A packet that is held in a queue is no router's doing.
        if !case.spec.holds.is_empty() {
            continue;
        }
        for (release, recording) in &case.recordings {
            compared += 1;
            let lines = differences(&case, recording);
            if !lines.is_empty() {
                let name = folder.file_name().unwrap().to_string_lossy();
                failed.push(format!("{name} ({release}):\n    {}", lines.join("\n    ")));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {compared}:\n{}", failed.len(), failed.join("\n"));
}
