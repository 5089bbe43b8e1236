//! `ctwhy fixture new`: from a capture to a case that a kernel records.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ctwhy_fixture::case::Case;
use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{Packet, PcapngWriter};
use ctwhy_linux::testing;

struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let folder = std::env::temp_dir().join(format!("ctwhy-new-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Scratch(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// A capture of these interfaces and packets: interface, bytes, bytes on the wire beyond them.
    fn capture(&self, interfaces: &[(Option<&str>, LinkType)], packets: &[(u32, Vec<u8>, u32)]) -> String {
        let mut writer = PcapngWriter::new(Vec::new(), "test").unwrap();
        for (name, linktype) in interfaces {
            writer.add_interface(*name, *linktype, None).unwrap();
        }
        for (at, (interface, bytes, missing)) in packets.iter().enumerate() {
            let time_ns = 1_700_000_000_000_000_000 + at as u64 * 1_000_000;
            let original_len = bytes.len() as u32 + missing;
            writer.packet(Packet { interface: *interface, time_ns, original_len, bytes }, []).unwrap();
        }
        let file = self.path("capture.pcapng");
        fs::write(&file, writer.finish().unwrap()).unwrap();
        file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Exit code, standard output, standard error.
fn ctwhy(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ctwhy")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The packets of a recorded case, by interface.
fn packets_of(name: &str) -> Vec<(u32, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
    let packets = Case::read(&folder).unwrap().packets;
    packets.into_iter().map(|packet| (u32::from(packet.iface == "wan"), packet.bytes)).collect()
}

fn framed(head: &[u8], bytes: &[u8]) -> Vec<u8> {
    [head, bytes].concat()
}

/// Ethernet, with VLAN tags; SLL, of a packet that arrived and of one that was sent; raw. What the case holds is the same.
#[test]
fn every_link_layer() {
    let scratch = Scratch::new("link");
    let ethernet = |six: bool| framed(&[2; 12], if six { &[0x86, 0xdd] } else { &[8, 0] });
    let vlan = |six: bool| framed(&[2; 12], if six { &[0x81, 0, 0, 7, 0x86, 0xdd] } else { &[0x81, 0, 0, 7, 8, 0] });
    let sll = |kind: u8, six: bool| {
        let mut head = vec![0, kind, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0];
        head.extend(if six { [0x86, 0xdd] } else { [8, 0] });
        head
    };
    let mut all = Vec::new();
    for (name, six) in [("udp-reply-v4", false), ("tcp-established-v6", true)] {
        for (at, (interface, bytes)) in packets_of(name).into_iter().enumerate() {
            let head = match (interface, at % 2) {
                (0, 0) => ethernet(six),
                (0, _) => vlan(six),
                _ => sll(0, six),
            };
            all.push((interface, framed(&head, &bytes), 0));
            if interface == 1 && at == 1 {
                all.push((1, framed(&sll(4, six), &bytes), 0));
            }
        }
    }
    all.push((0, framed(&[0xff; 12], &[8, 6, 0, 1]), 0));
    all.push((0, framed(&ethernet(false), &[0x45; 30]), 1000));
    let interfaces = [(Some("lan"), LinkType::ETHERNET), (Some("wan"), LinkType::LINUX_SLL)];
    let capture = scratch.capture(&interfaces, &all);
    let case = scratch.path("case");
    let (code, out, complaint) = ctwhy(&["fixture", "new", &capture, "--output", &case]);
    assert_eq!(code, 0, "{out}{complaint}");
    for line in [
        "left out: 1 packet, cut when they were captured",
        "left out: 1 packet, not IP\n",
        "left out: 2 packets, sent by the box itself\n",
        "inferred: route 0.0.0.0/0 by ",
        "next: say in ",
    ] {
        assert!(out.contains(line), "{line}\nis not in\n{out}");
    }
    let made: Vec<_> = Case::read(Path::new(&case)).unwrap().packets.into_iter().map(|packet| packet.bytes).collect();
    let expected: Vec<_> =
        ["udp-reply-v4", "tcp-established-v6"].into_iter().flat_map(packets_of).map(|(_, bytes)| bytes).collect();
    assert_eq!(made, expected);

    let (code, _, complaint) = ctwhy(&["fixture", "new", &capture, "--output", &case]);
    assert_eq!(code, 2);
    assert!(complaint.contains("there is a case already"), "{complaint}");
}

#[test]
fn what_cannot_be_a_case_says_why() {
    let scratch = Scratch::new("errors");
    let packets: Vec<_> = packets_of("udp-reply-v4").into_iter().map(|(_, bytes)| (0, bytes, 0)).collect();
    let capture = scratch.capture(&[(None, LinkType::RAW)], &packets);
    let case = scratch.path("case");
    let refused = |arguments: &[&str], expected: &str| {
        let (code, out, complaint) = ctwhy(&[&["fixture", "new", "--output", &case], arguments].concat());
        assert_eq!(code, 2, "{out}");
        assert!(complaint.contains(expected), "{expected}\nis not in\n{complaint}");
        assert!(!Path::new(&case).exists());
    };
    refused(&[&capture], "packet 1 does not say which interface it arrived on");
    refused(&[&capture, "--inside", "192.168.1.0/33"], "prefix length beyond the address");
    refused(&[&capture, "--inside", "192.168.1.0/24", "--local", "192.168.1.1/24"], "write it like lan=192.168.1.1/24");
    refused(&[&capture, "--inside", "192.168.1.0/24", "--local", "dmz=10.0.0.1/24"], "there are lan, wan");
    refused(&[&capture, "--key", "a"], "--anonymise");
    refused(&["/nowhere.pcap"], "/nowhere.pcap");
    let text = scratch.path("text");
    fs::write(&text, "this is no capture").unwrap();
    refused(&[&text], "text");
    let cut = scratch.capture(&[(Some("lan"), LinkType::RAW)], &[(0, packets[0].1[..20].to_vec(), 20)]);
    refused(&[&cut], "no packet is left for a case; 1 cut when they were captured");
}

/// Anonymous cases are decided about as the ones that they were made of.
#[test]
fn a_kernel_decides_about_an_anonymous_case_as_about_the_original() {
    if !testing::require_namespaces() {
        return;
    }
    let scratch = Scratch::new("record");
    for (name, local) in [
        ("quote-with-options", "lan=192.168.1.1/24"),
        ("error-about-tcp-masquerade-v4", "lan=192.168.1.1/24"),
        ("error-unknown-flow-v6", "lan=fd00:1::1/64"),
        ("udp-checks-v4", "lan=192.168.1.1/24"),
        ("sctp-tags-v6", "lan=fd00:1::1/64"),
    ] {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
        let original = Case::read(&fixture).unwrap();
        let capture = fixture.join("packets.pcapng");
        let capture = capture.to_str().unwrap();
        let [plain, anonymous] = ["plain", "anonymous"].map(|kind| scratch.path(&format!("{name}-{kind}")));
        for (case, more) in [(&plain, &[][..]), (&anonymous, &["--anonymise", "--key", "test"][..])] {
            let arguments = [&["fixture", "new", capture, "--output", case.as_str(), "--local", local], more].concat();
            let (code, out, complaint) = ctwhy(&arguments);
            assert_eq!(code, 0, "{out}{complaint}");
            assert_eq!(more.is_empty(), !out.contains("anonymous: addresses mapped"), "{out}");
            let (code, out, complaint) = ctwhy(&["fixture", "record", case]);
            assert_eq!(code, 0, "{out}{complaint}");
            let (code, out, _) = ctwhy(&["fixture", "check", case]);
            assert_eq!(code, 0, "{out}");
        }
        let decided = |case: &str| {
            let case = Case::read(Path::new(case)).unwrap();
            let recording = case.recordings.into_values().next().unwrap();
            let packets = recording.outcome.packets.into_iter();
            let decided: Vec<_> = packets.map(|p| (p.ctinfo, p.log.map(|log| log.len()))).collect();
            (decided, recording.outcome.table.map(|table| table.len()))
        };
        assert_eq!(decided(&plain), decided(&anonymous), "{name}");
        assert_eq!(Case::read(Path::new(&anonymous)).unwrap().packets.len(), original.packets.len());
    }
}
