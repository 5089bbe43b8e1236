//! Files, rules and messages of the kernel.

use std::path::Path;

use ctwhy_core::rules::{Table, iptables};
use ctwhy_core::tuple::L3;
use ctwhy_fixture::capture::Capture;
use ctwhy_fixture::case::{Bytes, Recording, Spec, Tolerance, compare};
use ctwhy_fixture::link::{Stripped, strip};
use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{Packet, PcapngWriter, WriteError};
use ctwhy_linux::ctnetlink::{self, Event};
use ctwhy_linux::nflog;

/// Bytes as a capture: read to the end, and what was read written and read again.
pub fn capture(data: &[u8]) {
    let Ok(mut input) = Capture::new(data, "input") else { return };
    let mut writer = PcapngWriter::new(Vec::new(), "fuzz").expect("a vector takes everything");
    let mut packets = Vec::new();
    let mut last = 0;
    while let Some(next) = input.next() {
        let packet = match next {
            Ok(packet) => packet,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        // Packets that are damaged have numbers, too.
        assert!(packet.number > last, "packets are numbered in order");
        last = packet.number;
        if let Ok(Stripped::Ip(link)) = strip(packet.linktype, packet.bytes) {
            assert!(link.ip_offset <= packet.bytes.len(), "the IP header is in the packet");
        }
        match writer.follow_interfaces(packet.interfaces()) {
            Ok(()) => {}
            // A pcap has room for more of them than a pcapng.
            Err(WriteError::LinkType(LinkType(number))) if number > u16::MAX.into() => return,
            Err(error) => panic!("what was read can be written: {error}"),
        }
        let copy = Packet {
            interface: packet.interface,
            time_ns: packet.time_ns,
            original_len: packet.original_len,
            bytes: packet.bytes,
        };
        if packet.original_len as usize >= packet.bytes.len() && writer.packet(copy, packet.comments()).is_ok() {
            packets.push((packet.time_ns, packet.original_len, packet.linktype, packet.bytes.to_vec()));
        } else {
            return;
        }
    }
    let written = writer.finish().expect("a vector takes everything");
    let mut again = Capture::new(&written[..], "copy").expect("what was written is a capture");
    for (time_ns, original_len, linktype, bytes) in packets {
        let packet = again.next().expect("no packet is missing").expect("each can be read");
        assert_eq!((packet.time_ns, packet.original_len, packet.linktype), (time_ns, original_len, linktype));
        assert_eq!(packet.bytes, bytes);
    }
    assert!(again.next().is_none(), "no packet was added");
}

/// Bytes as rules for `iptables-restore`, of either family.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.lines().count();
    for l3num in [L3::V4, L3::V6] {
        match iptables::parse(text, l3num) {
            Ok(parsed) => {
                let in_text = |line: u32| {
                    assert!((1..=lines).contains(&(line as usize)), "a rule stands in a line of the text");
                };
                let rules = &parsed.rules;
                lines_of(rules.nat.as_ref(), in_text);
                for table in [&rules.raw, &rules.mangle, &rules.filter] {
                    lines_of(table.as_ref(), in_text);
                }
            }
            Err(error) => {
                assert!(
                    (1..=lines.max(1) + 1).contains(&(error.line as usize)),
                    "an error stands in a line of the text"
                );
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

/// Shows the line of each rule.
fn lines_of<T>(table: Option<&Table<T>>, show: impl Fn(u32)) {
    if let Some(table) = table {
        let built_in = [&table.prerouting, &table.input, &table.forward, &table.output, &table.postrouting];
        for rule in built_in.into_iter().chain(&table.own).flat_map(|chain| &chain.rules) {
            show(rule.line);
        }
    }
}

/// Bytes as a datagram of the kernel's about connections, and about logged packets.
pub fn netlink(data: &[u8]) {
    if let Ok(events) = ctnetlink::read_events(data) {
        for event in events {
            if let Event::Entry(_, entry) = event {
                assert!(!ctnetlink::format_extended(&entry).is_empty());
            }
        }
    }
    if let Ok(logged) = nflog::read_packets(data) {
        assert!(logged.iter().all(|logged| logged.payload.len() <= data.len()));
    }
}

/// Bytes as a case: the text of `case.toml`, a NUL, and the text of a recording. What can be read is what is written.
pub fn case(data: &[u8]) {
    let (spec, recording) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &data[..0]),
    };
    if let Ok(text) = std::str::from_utf8(spec)
        && let Ok(spec) = Spec::parse(text, Path::new("case.toml"))
    {
        let written = spec.to_toml().expect("what was read can be written");
        let again = Spec::parse(&written, Path::new("case.toml")).expect("and read again");
        assert_eq!(again, spec);
    }
    let file = Path::new("kernel.jsonl");
    if let Ok(recording) = Recording::read(recording, file) {
        let mut written = Vec::new();
        recording.write(&mut written).expect("a vector takes everything");
        assert_eq!(Recording::read(&written[..], file).expect("what was written can be read"), recording);
        let difference = compare(&recording.outcome, &recording.outcome, Tolerance::default());
        assert!(difference.is_empty(), "what a kernel decided is what it decided: {}", difference[0]);
    }
    if let Some(bytes) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Bytes>().ok()) {
        assert_eq!(bytes.to_string().parse::<Bytes>().as_ref(), Ok(&bytes));
    }
}
