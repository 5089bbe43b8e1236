//! Whatever is wrong with the input of `ctwhy explain`: one clear line, and exit code 2.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod explain_common;

use std::fs;

use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{Packet, PcapngWriter};
use explain_common::*;

fn flow() -> Vec<Timed> {
    vec![
        (0, udp("10.0.0.2:1000", "10.0.0.1:53", 20)),
        (1, udp("10.0.0.1:53", "10.0.0.2:1000", 60)),
        (2, udp("10.0.0.2:1000", "10.0.0.1:53", 20)),
    ]
}

#[test]
fn files_that_are_no_capture() {
    let folder = folder("no_capture");
    let empty = file(&folder, "empty.pcap", "");
    explain(&[&empty])
        .fails(&format!("ctwhy: {empty}: is empty, not even a file header: record it again, with packets this time"));
    let text = file(&folder, "text.pcap", "10:00:01 IP 10.0.0.1 > 10.0.0.2\n");
    explain(&[&text]).fails(&format!(
        "ctwhy: {text}: is no capture: it looks like text; a capture is what `tcpdump -w FILE` or Wireshark saves, not \
         what they print"
    ));
    let magic = file(&folder, "magic.pcap", [0, 1, 2, 3, 4, 5, 6, 7]);
    let ran = explain(&[&magic]);
    assert!(ran.err.starts_with(&format!("ctwhy: {magic}: is no capture: ")), "{}", ran.err);
    assert_eq!((ran.code, ran.err.lines().count(), ran.out.as_str()), (Some(2), 1, ""));
    explain_with(&["-"], &[])
        .fails("ctwhy: standard input: is empty, not even a file header: record it again, with packets this time");
}

#[test]
fn paths_that_lead_to_no_file() {
    let folder = folder("no_file");
    let missing = folder.join("missing.pcap");
    let missing = missing.to_str().unwrap();
    explain(&[missing]).fails(&format!("ctwhy: {missing}: cannot be opened: No such file or directory (os error 2)"));
    let here = folder.to_str().unwrap();
    explain(&[here]).fails(&format!("ctwhy: {here}: is a folder without case.toml, so no case; name a capture file"));
    let strange = folder.join("a\x1b[2Jb");
    let ran = explain(&[strange.to_str().unwrap()]);
    assert!(ran.err.contains("a\\u{1b}[2Jb") && !ran.err.contains('\x1b'), "{}", ran.err);
}

#[test]
fn a_kernel_that_nothing_is_known_of() {
    for (release, why) in [("5.15.0-91-generic", "is older than what is known"), ("bookworm", "is no kernel release")] {
        let ran = explain(&["--kernel", release]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
        let said = ran.err.lines().next().unwrap();
        assert!(said.contains(&format!("'{release}'")) && said.contains(why), "{said}");
        assert!(said.ends_with("6.12.117, 6.18 on"), "the profiles are named: {said}");
    }
    let ran = explain(&["--kernel", "6.12.48", "-q"]);
    assert_eq!((ran.code, ran.err.lines().next()), (Some(0), Some("note: decided as Linux 6.12 decides")));
}

#[test]
fn a_truncated_capture_is_explained_as_far_as_it_goes() {
    let folder = folder("truncated");
    for (name, whole) in [("a.pcap", pcap(LinkType::RAW, 65535, &flow())), ("b.pcapng", pcapng(Some("lan"), &flow()))] {
        let path = file(&folder, name, &whole[..whole.len() - 5]);
        let ran = explain(&[&path]);
        assert_eq!((ran.code, ran.lines().len()), (Some(2), 2), "{}", ran.out);
        assert!(ran.out.contains("2 packets: 1 NEW, 1 ESTABLISHED_REPLY"), "{}", ran.out);
        assert!(ran.err.contains("ends within packet 3") && ran.err.lines().count() == 1, "{}", ran.err);
        let json = explain(&["--json", &path]);
        assert_eq!((json.code, json.out.lines().count()), (Some(2), 2));
        let copy = folder.join("copy.pcapng");
        assert_eq!(explain(&[&path, "-w", copy.to_str().unwrap()]).code, Some(2));
        assert_eq!(explain(&[copy.to_str().unwrap()]).lines().len(), 2);
    }
}

#[test]
fn a_link_type_that_is_not_taken_apart() {
    let folder = folder("link_type");
    let path = file(&folder, "radio.pcap", pcap(LinkType(127), 65535, &flow()));
    let line = format!(
        "ctwhy: {path}: link type 127 (IEEE802_11_RADIOTAP) is not taken apart; capture Ethernet, raw IP or `-i any` \
         (cooked) instead"
    );
    let ran = explain(&[&path]);
    ran.fails(&line);
    assert_eq!(ran.out, "");

    let mut writer = PcapngWriter::new(Vec::new(), "test").unwrap();
    writer.add_interface(Some("lan"), LinkType::RAW, None).unwrap();
    writer.add_interface(Some("radio"), LinkType(127), None).unwrap();
    for ((_, bytes), interface) in flow().iter().zip([1, 0, 0]) {
        writer.packet(Packet { interface, time_ns: 0, original_len: bytes.len() as u32, bytes }, []).unwrap();
    }
    let both = file(&folder, "both.pcapng", writer.finish().unwrap());
    let ran = explain(&[&both]);
    ran.fails(&line.replace("radio.pcap", "both.pcapng"));
    assert_eq!(ran.lines().len(), 3);
    assert!(ran.out.contains("link.unknown_type"), "{}", ran.out);
}

#[test]
fn packets_cut_by_the_snap_length() {
    let folder = folder("snaplen");
    let path = file(&folder, "cut.pcap", pcap(LinkType::RAW, 40, &flow()));
    let ran = explain(&[&path, "-v"]);
    assert_eq!((ran.code, ran.lines().len()), (Some(0), 3));
    assert!(ran.out.contains("checksums: not verified, the capture does not hold the whole packet"), "{}", ran.out);
    assert_eq!(ran.err, "note: 3 packets cut by the snap length: what is missing cannot be verified\n");
    let path = file(&folder, "short.pcap", pcap(LinkType::RAW, 24, &flow()));
    let ran = explain(&[&path]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.contains("not seen      3  capture.cut_short"), "{}", ran.out);
    assert!(ran.err.contains("note: 3 packets cut before the bytes that decide: capture with a larger snap length"));
}

/// A block of a pcapng, little-endian.
fn block(block_type: u32, body: &[u8]) -> Vec<u8> {
    let length = (12 + body.len() as u32).to_le_bytes();
    [&block_type.to_le_bytes()[..], &length, body, &length].concat()
}

#[test]
fn a_damaged_packet_keeps_its_number() {
    let folder = folder("damaged");
    let mut bytes = pcapng(Some("lan"), &flow()[..1]);
    // A packet of interface 9, which nobody described.
    let fields = [9, 0, 0, 4, 4, 0];
    bytes.extend(block(6, &fields.map(u32::to_le_bytes).concat()));
    let whole = pcapng(Some("lan"), &flow()[1..2]);
    // Of the second file the packet alone: behind its section and interface.
    let length = |at: usize| u32::from_le_bytes(whole[at + 4..at + 8].try_into().unwrap()) as usize;
    let behind = length(0) + length(length(0));
    bytes.extend(&whole[behind..]);
    let path = file(&folder, "damaged.pcapng", bytes);

    let ran = explain(&["--json", &path]);
    let objects: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.iter().map(|o| o["packet"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(objects[1]["reason"], "capture.damaged");
    assert!(objects[1]["time"].is_null() && objects[1]["ctinfo"].is_null() && objects[1]["ct"].is_null());
    assert_eq!(objects[2]["ctinfo"], "ESTABLISHED_REPLY");
    assert_eq!(ran.code, Some(2));
    let ran = explain(&[&path]);
    assert_eq!((ran.code, ran.lines().len()), (Some(2), 3));
    assert!(ran.err.contains("note: 1 packet damaged in the capture"), "{}", ran.err);
    assert!(ran.err.contains("packet 2 is of interface 9"), "{}", ran.err);
}

#[test]
fn rules_that_are_not_understood() {
    let folder = folder("rules");
    let capture = file(&folder, "flow.pcapng", pcapng(Some("lan"), &flow()));
    let rules =
        file(&folder, "rules.v4", "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m addrtype -j DOCKER\nCOMMIT\n");
    explain(&[&capture, "--nat-rules", &rules]).fails(&format!(
        "ctwhy: {rules}: line 3, column 18: 'addrtype' is a match that is not supported; supported are tcp, udp, icmp, icmp6, conntrack, \
         state, mark, connmark and comment"
    ));
    let filter = file(&folder, "filter.v4", "*filter\nCOMMIT\n");
    explain(&[&capture, "--nat-rules", &filter])
        .fails(&format!("ctwhy: {filter}: there is no nat table (a line '*nat') in it"));
    let missing = folder.join("no.v4");
    explain(&[&capture, "--nat-rules6", missing.to_str().unwrap()])
        .fails(&format!("ctwhy: {}: No such file or directory (os error 2)", missing.display()));
    let binary = file(&folder, "binary.v4", [0xff, 0xfe]);
    assert_eq!(explain(&[&capture, "--nat-rules", &binary]).code, Some(2));
}

#[test]
fn rules_that_need_what_was_not_said() {
    let folder = folder("rules_need");
    let capture = file(&folder, "flow.pcapng", pcapng(Some("lan"), &flow()));
    let unnamed = file(&folder, "unnamed.pcapng", pcapng(None, &flow()));
    let default = "0.0.0.0/0=wan";
    for (rule, options, missing) in [
        (
            "POSTROUTING -o wan -j MASQUERADE",
            &[][..],
            "MASQUERADE needs to know where packets leave: add --route PREFIX=IFACE",
        ),
        ("POSTROUTING -o wan -j ACCEPT", &[], "-o needs to know where packets leave: add --route PREFIX=IFACE"),
        (
            "POSTROUTING -o wan -j MASQUERADE",
            &["--route", default],
            "MASQUERADE needs an address of wan: add --local ADDRESS/LEN=wan",
        ),
        (
            "POSTROUTING -o wan -j MASQUERADE",
            &["--route", default, "--local", "10.0.0.254/24=lan"],
            "MASQUERADE needs an address of wan: add --local ADDRESS/LEN=wan",
        ),
        (
            "PREROUTING -i lan -p udp -j REDIRECT --to-ports 53",
            &[],
            "REDIRECT needs an address where packets come in: add --local ADDRESS/LEN=lan",
        ),
    ] {
        let rules = file(&folder, "rules.v4", format!("*nat\n-A {rule}\nCOMMIT\n"));
        let ran = explain(&[&[capture.as_str(), "--nat-rules", &rules], options].concat());
        ran.fails(&format!("ctwhy: {rules}: line 2: {missing}"));
        assert_eq!(ran.out, "");
    }
    let rules = file(&folder, "rules.v4", "*nat\n-A PREROUTING -i lan -j DNAT --to-destination 10.9.9.9\nCOMMIT\n");
    explain(&[&unnamed, "--nat-rules", &rules]).fails(&format!(
        "ctwhy: {rules}: line 2: -i needs to know where packets come in, and {unnamed} names no interface: add --iface NAME"
    ));
    for options in [&[capture.as_str()][..], &[&unnamed, "--iface", "lan"]] {
        let ran = explain(&[options, &["--nat-rules", &rules]].concat());
        assert!(ran.out.contains("=> dst 10.9.9.9:53"), "{}{}", ran.out, ran.err);
    }
}

#[test]
fn arguments_that_make_no_sense() {
    let folder = folder("arguments");
    let capture = file(&folder, "flow.pcapng", pcapng(Some("lan"), &flow()));
    explain(&[&capture, "--local", "10.0.0.1"])
        .fails("ctwhy: --local 10.0.0.1: no --route leads there, so its interface is not known: add =IFACE");
    for (arguments, says) in [
        (["--sysctl", "nf_conntrack_buckets=1"], "decides about no packet here; known are nf_conntrack_checksum"),
        (["--sysctl", "nf_conntrack_udp_timeout=soon"], "'soon' is no value for nf_conntrack_udp_timeout"),
        (["--sysctl", "nf_conntrack_acct"], "write KEY=VALUE"),
        (["--route", "10.0.0.0/8"], "write PREFIX=IFACE"),
        (["--route", "10.0.0.0/33=wan"], "is neither an address nor a prefix"),
        (["--local", "host=lan"], "is no address"),
        (["--packet", "0"], "they count from 1"),
        (["--packet", "7-3"], "ends before it begins"),
        (["--proto", "tpc"], "is no protocol"),
        (["--host", "example.org"], "invalid IP address syntax"),
    ] {
        let ran = explain(&[&[capture.as_str()], &arguments[..]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ran.err.contains(says), "{}", ran.err);
    }
    // How many there are is known in the end.
    let ran = explain(&[&capture, "--packet", "99"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("ctwhy: --packet 99: the last packet of "), "{}", ran.err);
}

#[test]
fn the_input_is_never_overwritten() {
    let folder = folder("overwrite");
    let bytes = pcapng(Some("lan"), &flow());
    let path = file(&folder, "in.pcapng", &bytes);
    let link = folder.join("hard.pcapng");
    fs::hard_link(&path, &link).unwrap();
    let symbolic = folder.join("soft.pcapng");
    std::os::unix::fs::symlink(&path, &symbolic).unwrap();
    for output in [path.as_str(), link.to_str().unwrap(), symbolic.to_str().unwrap()] {
        let line = format!("ctwhy: {output}: this is the input; write to another file");
        explain(&[&path, "-w", output]).fails(&line);
        let redirected = std::process::Command::new(env!("CARGO_BIN_EXE_ctwhy"))
            .args(["explain", "-", "-w", output])
            .stdin(fs::File::open(&path).unwrap())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(redirected.stderr).unwrap().trim_end(), line);
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let nowhere = folder.join("no/such/folder.pcapng");
    assert_eq!(explain(&[&path, "-w", nowhere.to_str().unwrap()]).code, Some(2));
}

#[test]
fn output_that_cannot_be_written() {
    let folder = folder("full");
    let path = file(&folder, "in.pcapng", pcapng(Some("lan"), &flow()));
    for arguments in [&["explain", path.as_str()][..], &["explain", "--json", &path]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ctwhy"));
        let output = command.args(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text, "ctwhy: No space left on device (os error 28)\n");
    }
}
