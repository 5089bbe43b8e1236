//! Writing pcapng: what is written is read back the same, by this crate and by tshark.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{MICRO, MODIFIED, NANO, ORDERS, Order, lines};
use ctwhy_fixture::capture::Capture;
use ctwhy_fixture::link::{L3, Stripped, strip};
use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{Packet, PcapngWriter, WriteError};
use proptest::prelude::*;

/// Copies a capture, adding a comment to each packet.
fn copy(file: &[u8], comment: &str) -> Vec<u8> {
    let mut capture = Capture::new(file, "original").unwrap();
    let mut writer = PcapngWriter::new(Vec::new(), "ctwhy").unwrap();
    while let Some(packet) = capture.next() {
        let packet = packet.unwrap();
        writer.follow_interfaces(packet.interfaces()).unwrap();
        writer.packet(packet.into(), packet.comments().chain([comment])).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_copy_differs_in_its_comments_only() {
    for order in ORDERS {
        let original = common::pcapng(order);
        let (before, _) = lines(&original);
        let (after, errors) = lines(&copy(&original, "why"));
        assert!(errors.is_empty(), "{errors:?}");
        let commented = |line: &String| line.replace("]", if line.ends_with("[]") { "\"why\"]" } else { ", \"why\"]" });
        assert_eq!(after, before.iter().map(commented).collect::<Vec<_>>());
    }
}

#[test]
fn the_same_packets_give_the_same_bytes() {
    let original = common::pcapng(Order::Little);
    assert_eq!(copy(&original, "why"), copy(&original, "why"));
}

#[test]
fn long_comments_are_cut_at_a_character_with_a_mark() {
    let mut writer = PcapngWriter::new(Vec::new(), "ctwhy").unwrap();
    writer.add_interface(None, LinkType::RAW, None).unwrap();
    let packet = Packet { interface: 0, time_ns: 1, original_len: 3, bytes: b"abc" };
    let fits = "x".repeat(65_535);
    let comments: Vec<String> =
        [&fits[..], "", "\u{e4}", "\u{20ac}", "\u{1f980}"].iter().map(|c| format!("{fits}{c}")).collect();
    let wide: Vec<String> = (0..4).map(|n| "x".repeat(n) + &"\u{1f980}".repeat(20_000)).collect();
    writer.packet(packet, comments.iter().chain(&wide).map(String::as_str)).unwrap();
    let file = writer.finish().unwrap();
    let mut capture = Capture::new(&file[..], "comments").unwrap();
    let packet = capture.next().unwrap().unwrap();
    let found: Vec<&str> = packet.comments().collect();
    assert_eq!(found.len(), 9, "none was dropped for broken UTF-8");
    assert_eq!(found[1], fits);
    for (found, comment) in found.iter().zip(comments.iter().chain(&wide)) {
        let Some(kept) = found.strip_suffix(" [cut]") else {
            assert_eq!(found, comment);
            continue;
        };
        assert!(comment.starts_with(kept) && comment.len() > 65_535);
        assert!((65_532..=65_535).contains(&found.len()), "{}", found.len());
    }
}

#[test]
fn what_cannot_be_written_says_why() {
    let mut writer = PcapngWriter::new(Vec::new(), "ctwhy").unwrap();
    let packet = Packet { interface: 0, time_ns: 1, original_len: 3, bytes: b"abc" };
    let error = writer.packet(packet, []).unwrap_err();
    assert!(matches!(error, WriteError::UnknownInterface { interface: 0, added: 0 }));
    let error = writer.add_interface(None, LinkType(65_536), None).unwrap_err();
    assert_eq!(error.to_string(), "link type 65536 does not fit into a pcapng; write packets of other link types only");
    let error = PcapngWriter::new(&mut [0; 10][..], "ctwhy").unwrap_err();
    assert!(matches!(error, WriteError::Io(_)));
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back(
        packets in proptest::collection::vec(
            (0u32..3, any::<u64>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..50), proptest::collection::vec(".{0,20}", 0..3)),
            0..20,
        ),
        names in proptest::collection::vec(proptest::option::of("[a-z0-9-]{1,15}"), 3),
    ) {
        let mut writer = PcapngWriter::new(Vec::new(), "ctwhy").unwrap();
        for (number, name) in (0..).zip(&names) {
            writer.add_interface(name.as_deref(), LinkType(number), Some(number + 60)).unwrap();
        }
        for (interface, time_ns, original_len, bytes, comments) in &packets {
            let packet = Packet { interface: *interface, time_ns: *time_ns, original_len: *original_len, bytes };
            writer.packet(packet, comments.iter().map(String::as_str)).unwrap();
        }
        let file = writer.finish().unwrap();
        let mut capture = Capture::new(&file[..], "written").unwrap();
        for (interface, time_ns, original_len, bytes, comments) in &packets {
            let p = capture.next().unwrap().unwrap();
            prop_assert_eq!((p.interface, p.time_ns, p.original_len, p.bytes), (*interface, *time_ns, *original_len, &bytes[..]));
            prop_assert_eq!(p.iface(), names[*interface as usize].as_deref());
            prop_assert_eq!((p.linktype.0, p.interfaces()[0].snaplen), (*interface, Some(60)));
            prop_assert_eq!(&p.comments().collect::<Vec<_>>(), comments);
        }
        prop_assert!(capture.next().is_none());
    }
}

/// What tshark says about a file, a line per packet; `None` when there is no tshark.
fn tshark(file: &Path, fields: &[&str]) -> Option<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-E", "separator=|", "-r"]).arg(file);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => panic!("tshark: {e}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn tshark_shows_the_comments() {
    let folder = common::scratch("comments");
    let file = folder.join("comments.pcapng");
    let mut writer = PcapngWriter::new(Vec::new(), "ctwhy").unwrap();
    writer.add_interface(Some("wan"), LinkType::RAW, None).unwrap();
    let bytes = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let packet = Packet { interface: 0, time_ns: 1_700_000_000_000_000_001, original_len: 20, bytes: &bytes };
    let long = "\u{20ac}".repeat(30_000);
    for comments in [&["RELATED_REPLY\n  the quote \u{2192} flow 7\n"][..], &[], &["one", "two"], &[&long]] {
        writer.packet(packet, comments.iter().copied()).unwrap();
    }
    fs::write(&file, writer.finish().unwrap()).unwrap();
    let Some(shown) = tshark(&file, &["frame.time_epoch", "frame.interface_name", "ip.dst", "frame.comment"]) else {
        return common::skip("tshark_shows_the_comments", "there is no tshark");
    };
    let start = "1700000000.000000001|wan|10.0.0.2|";
    assert_eq!(shown[0], format!("{start}RELATED_REPLY\\n  the quote \u{2192} flow 7\\n"));
    assert_eq!(shown[1], start);
    assert_eq!(shown[2], format!("{start}one,two"));
    let comment = shown[3].strip_prefix(start).unwrap();
    assert!(comment.starts_with(&"\u{20ac}".repeat(1000)), "{comment:.60}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn tshark_finds_the_ip_packet_where_we_do() {
    const V4: &[u8] = &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    const V6: &[u8] = &{
        let mut ip = [0; 40];
        (ip[0], ip[6], ip[7], ip[23], ip[39]) = (0x60, 59, 64, 1, 2);
        ip
    };
    const SLL2: [u8; 16] = [0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1];
    let ethernet = |rest: &[u8]| [&[2; 12][..], rest].concat();
    let sll = |way: u8, rest: &[u8]| [&[0, way, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], rest].concat();
    let sll2 = |ether_type: &[u8]| [ether_type, &SLL2, &[0, 0]].concat();
    let packets: [(LinkType, Vec<u8>, &[u8]); 16] = [
        (LinkType::ETHERNET, ethernet(&[8, 0]), V4),
        (LinkType::ETHERNET, ethernet(&[0x81, 0, 0, 7, 8, 0]), V4),
        (LinkType::ETHERNET, ethernet(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 0x86, 0xdd]), V6),
        (LinkType::ETHERNET, ethernet(&[0x91, 0, 0, 7, 0x81, 0, 0, 8, 8, 0]), V4),
        (LinkType::RAW, vec![], V4),
        (LinkType::RAW, vec![], V6),
        (LinkType::IPV4, vec![], V4),
        (LinkType::IPV6, vec![], V6),
        (LinkType::LINUX_SLL, sll(0, &[8, 0]), V4),
        (LinkType::LINUX_SLL, sll(4, &[0x81, 0, 0, 9, 0x86, 0xdd]), V6),
        (LinkType::LINUX_SLL2, sll2(&[8, 0]), V4),
        (LinkType::LINUX_SLL2, sll2(&[0x86, 0xdd]), V6),
        (LinkType::NULL, vec![2, 0, 0, 0], V4),
        (LinkType::NULL, vec![0, 0, 0, 30], V6),
        (LinkType::LOOP, vec![0, 0, 0, 2], V4),
        (LinkType::LOOP, vec![0, 0, 0, 24], V6),
    ];
    let mut writer = PcapngWriter::new(Vec::new(), "ctwhy").unwrap();
    let mut ours = Vec::new();
    for (linktype, link_layer, ip) in &packets {
        let bytes = [link_layer, *ip].concat();
        let interface = writer.add_interface(None, *linktype, None).unwrap();
        let packet = Packet { interface, time_ns: 0, original_len: bytes.len() as u32, bytes: &bytes };
        writer.packet(packet, []).unwrap();
        let Ok(Stripped::Ip(link)) = strip(*linktype, &bytes) else { panic!("{linktype} is stripped") };
        assert_eq!(link.ip_offset, link_layer.len(), "{linktype}");
        ours.push(if link.l3 == L3::V4 { "10.0.0.2|" } else { "|::2" });
    }
    let folder = common::scratch("links");
    let file = folder.join("links.pcapng");
    fs::write(&file, writer.finish().unwrap()).unwrap();
    let Some(theirs) = tshark(&file, &["ip.dst", "ipv6.dst"]) else {
        return common::skip("tshark_finds_the_ip_packet_where_we_do", "there is no tshark");
    };
    assert_eq!(ours, theirs);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn tshark_reads_every_format_as_we_do() {
    let folder = common::scratch("formats");
    let packets: [(u32, u32, &[u8]); 3] =
        [(1_700_000_000, 5, &[7; 60]), (1_700_000_001, 6, &[8; 61]), (3, 0, &[9; 14])];
    let mut files = Vec::new();
    for order in ORDERS {
        files.push(common::pcapng(order));
        for magic in [MICRO, NANO, MODIFIED] {
            files.push(common::pcap(order, magic, 1, &packets));
        }
    }
    for (number, original) in files.iter().enumerate() {
        for (kind, bytes) in [("original", original), ("copy", &copy(original, "why"))] {
            let file = folder.join(format!("{number}-{kind}"));
            fs::write(&file, bytes).unwrap();
            let mut capture = Capture::open(&file).unwrap();
            let mut ours = Vec::new();
            while let Some(packet) = capture.next() {
                let p = packet.unwrap();
                let (seconds, rest) = (p.time_ns / 1_000_000_000, p.time_ns % 1_000_000_000);
                ours.push(format!("{}|{seconds}.{rest:09}|{}|{}", p.number, p.bytes.len(), p.original_len));
            }
            let fields = ["frame.number", "frame.time_epoch", "frame.cap_len", "frame.len"];
            let Some(theirs) = tshark(&file, &fields) else {
                return common::skip("tshark_reads_every_format_as_we_do", "there is no tshark");
            };
            // A simple packet block has no time: tshark shows none, we repeat the one before.
            let timeless = |line: &String| line.split('|').nth(1) == Some("");
            for (ours, theirs) in ours.iter_mut().zip(&theirs).filter(|(_, t)| timeless(t)) {
                let mut parts: Vec<&str> = ours.split('|').collect();
                parts[1] = "";
                assert_eq!(parts.join("|"), *theirs);
                *ours = theirs.clone();
            }
            assert_eq!(ours, theirs, "{} {kind}", number);
        }
    }
    fs::remove_dir_all(folder).unwrap();
}
