//! A capture of any length streams through `ctwhy explain`: memory does not grow with it, and who waits for packets sees
//! them when they come.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod explain_common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use ctwhy_fixture::linktype::LinkType;
use explain_common::*;

/// `VmRSS`, the resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Writes `bytes` of packets of a few flows into a run, and says what its memory was early and late.
fn grown(arguments: &[&str], bytes: usize) -> (u64, u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ctwhy"))
        .arg("explain")
        .args(arguments)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        // Read to the end, keeping nothing.
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap()
    });
    let packets: Vec<Timed> = (0..64)
        .map(|n| {
            let client = format!("10.0.0.2:{}", 1000 + n % 16);
            let (from, to) = if n < 32 { (client.as_str(), "10.0.0.1:53") } else { ("10.0.0.1:53", client.as_str()) };
            (n, udp(from, to, 1400))
        })
        .collect();
    let capture = pcap(LinkType::RAW, 65535, &packets);
    let (head, records) = capture.split_at(24);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(head).unwrap();
    let rounds = bytes / records.len();
    let mut early = 0;
    for round in 0..rounds {
        stdin.write_all(records).unwrap();
        if round == rounds / 8 {
            early = resident(child.id());
        }
    }
    let late = resident(child.id());
    drop(stdin);
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();
    (early, late)
}

#[test]
fn memory_stays_flat() {
    const MIB: usize = 1 << 20;
    for (arguments, bytes) in [(&["-q"][..], 400 * MIB), (&[], 100 * MIB), (&["-v"], 20 * MIB), (&["--json"], 20 * MIB)]
    {
        let (early, late) = grown(arguments, bytes);
        assert!(late < early + 1024, "{arguments:?}: {early} KiB early, {late} KiB late");
        assert!(late < 32 << 10, "{arguments:?}: {late} KiB");
    }
}

#[test]
fn packets_are_told_when_they_come() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ctwhy"))
        .args(["explain", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let capture =
        pcap(LinkType::RAW, 65535, &[(0, udp("10.0.0.2:1", "10.0.0.1:1", 1)), (1, udp("10.0.0.1:1", "10.0.0.2:1", 1))]);
    let (first, second) = capture.split_at(24 + (capture.len() - 24) / 2);
    let mut line = String::new();
    for (part, ctinfo) in [(first, "NEW"), (second, "ESTABLISHED_REPLY")] {
        stdin.write_all(part).unwrap();
        line.clear();
        // Were it held back until the next packet, this would wait for ever.
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains(ctinfo), "{line}");
    }
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("2 packets: 1 NEW, 1 ESTABLISHED_REPLY"), "{rest}");
    assert!(child.wait().unwrap().success());
}
