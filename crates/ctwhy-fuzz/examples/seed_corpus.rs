//! Writes inputs made of the cases under `fixtures/` into a folder per target, for a fuzzer to begin with:
//!
//! ```text
//! cargo run -p ctwhy-fuzz --example seed_corpus -- DIR
//! ```
//!
//! `cargo +nightly fuzz cmin TARGET` then keeps those that add something.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A tool of the developers; what goes wrong is to be seen.

use std::fs;
use std::path::{Path, PathBuf};

use ctwhy_fixture::case::Case;
use ctwhy_fixture::link::{Stripped, strip};
use ctwhy_fuzz::{Op, write_ops};

fn main() {
    let out = PathBuf::from(std::env::args().nth(1).expect("a folder to write to"));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    for folder in Case::find(&fixtures).unwrap() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let case = Case::read(&folder).unwrap();
        let keep = |target: &str, name: &str, bytes: &[u8]| {
            fs::create_dir_all(out.join(target)).unwrap();
            fs::write(out.join(target).join(name), bytes).unwrap();
        };
        let packets: Vec<&[u8]> = case
            .packets
            .iter()
            .filter_map(|packet| match strip(packet.linktype, &packet.bytes) {
                Ok(Stripped::Ip(link)) => packet.bytes.get(link.ip_offset..),
                _ => None,
            })
            .collect();
        for (at, packet) in packets.iter().enumerate() {
            keep("packet", &format!("{name}-{at}"), &[&[0, 0], *packet].concat());
            if let Some(quote) = quote(packet) {
                let kind = u8::from(packet[0] >> 4 == 6);
                keep("quoted", &format!("{name}-{at}"), &[&[kind, 0], quote].concat());
            }
        }
        keep("engine", &name, &write_ops(&ops(&case, &packets)));
        for rules in case.spec.rules.iter().chain(&case.spec.rules6) {
            keep("rules", &name, rules.as_bytes());
        }
        keep("capture", &name, &fs::read(folder.join("packets.pcapng")).unwrap());
        let spec = fs::read(folder.join("case.toml")).unwrap();
        let recording = case.recordings.keys().next().map(|release| folder.join(format!("kernel-{release}.jsonl")));
        let recording = recording.map(|file| fs::read(file).unwrap()).unwrap_or_default();
        keep("case", &name, &[&spec[..], &[0], &recording[..]].concat());
    }
}

/// What an ICMP error behind a header without options quotes.
fn quote(packet: &[u8]) -> Option<&[u8]> {
    match (packet.first()? >> 4, packet.get(9), packet.get(6)) {
        (4, Some(1), _) if matches!(packet.get(20)?, 3 | 4 | 5 | 11 | 12) => packet.get(28..),
        (6, _, Some(58)) if *packet.get(40)? < 128 => packet.get(48..),
        _ => None,
    }
}

fn ops(case: &Case, packets: &[&[u8]]) -> Vec<Op> {
    let mut ops = Vec::new();
    for (name, value) in &case.spec.sysctls {
        ops.push(Op::Sysctl(format!("{}={value}", name.trim_start_matches("net.netfilter."))));
    }
    ops.extend(case.spec.rules.clone().map(Op::Rules));
    ops.extend(case.spec.rules6.clone().map(Op::Rules6));
    let mut last = case.packets.first().map_or(0, |packet| packet.time_ns);
    for ((packet, bytes), number) in case.packets.iter().zip(packets).zip(1..) {
        let wait_ms = u16::try_from((packet.time_ns - last) / 1_000_000).unwrap_or(u16::MAX);
        last = packet.time_ns;
        ops.push(match case.spec.held_until(number) {
            Some(_) => Op::Hold(bytes.to_vec()),
            None => Op::Receive {
                interface: u8::from(packet.iface == "wan"),
                wait_ms,
                sealed: false,
                bytes: bytes.to_vec(),
            },
        });
        for _ in case.spec.holds.iter().filter(|hold| hold.until == number) {
            ops.push(Op::Release);
        }
    }
    ops
}
