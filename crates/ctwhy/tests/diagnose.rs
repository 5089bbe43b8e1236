//! `ctwhy diagnose` as people call it: captures in one file and in two, what it says of bad ones, and its exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod diagnose_common;

use std::fs;
use std::path::Path;

use ctwhy_conform::compose::{Ip, Piece, icmp, udp};
use diagnose_common::{diagnose, folder, kind, two_files, write};
use serde_json::Value;

const MS: u64 = 1_000_000;
/// When everything begins.
const START: u64 = 1_700_000_000_000_000_000;

/// Packets of the two sides of a NAT that rewrites packets, and when they were seen.
struct Both {
    inside: Vec<(u64, Vec<u8>)>,
    outside: Vec<(u64, Vec<u8>)>,
}

/// Questions of a client and answers to them; about the last there is an error, which comes out inside if `relayed`.
fn traffic(relayed: bool) -> Both {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let ip = |src: &str, dst: &str, ttl: u8, id: u16| Ip { id, ..Ip::new(src, dst).ttl(ttl) };
    let (client, public, server) = ("192.168.1.2", "203.0.113.2", "192.0.2.80");
    for turn in 0..6u16 {
        let at = START + u64::from(turn) * 100 * MS;
        let (question, answer) = (format!("question {turn}"), format!("answer {turn}"));
        let [a, b] = [ip(client, server, 64, 700 + turn), ip(public, server, 63, 700 + turn)];
        inside.push((at, a.packet(udp(&a, 40_000, 53, question.as_bytes()))));
        outside.push((at + MS, b.packet(udp(&b, 50_000, 53, question.as_bytes()))));
        let [a, b] = [ip(server, public, 60, 900 + turn), ip(server, client, 59, 900 + turn)];
        outside.push((at + 20 * MS, a.packet(udp(&a, 53, 50_000, answer.as_bytes()))));
        inside.push((at + 21 * MS, b.packet(udp(&b, 53, 40_000, answer.as_bytes()))));
    }
    let at = START + 450 * MS;
    let [a, b] = [ip(client, server, 2, 1234), ip(public, server, 1, 1234)];
    let (sent, left) =
        (a.clone().ttl(1).packet(udp(&a, 40_001, 33_434, b"probe")), b.packet(udp(&b, 50_001, 33_434, b"probe")));
    inside.push((at, a.packet(udp(&a, 40_001, 33_434, b"probe"))));
    outside.push((at + MS, left.clone()));
    let error = |to: &str, ttl: u8, quote: &[u8]| {
        let ip = Ip::new("198.51.100.1", to).ttl(ttl);
        ip.packet(icmp(&ip, 11, 0, [0; 4], quote))
    };
    outside.push((at + 5 * MS, error(public, 62, &left)));
    if relayed {
        inside.push((at + 6 * MS, error(client, 61, &sent)));
    }
    inside.sort();
    outside.sort();
    Both { inside, outside }
}

fn files(folder: &Path, both: &Both) -> [String; 2] {
    two_files(folder, &both.inside, &both.outside)
}

#[test]
fn two_files_and_one_say_the_same() {
    let folder = folder("one-file");
    let both = traffic(true);
    let [inside, outside] = files(&folder, &both);
    let capture =
        write(&folder, "both.pcapng", &[(Some("lan"), &both.inside), (Some("wan"), &both.outside), (None, &[])]);
    let two = diagnose(&["--inside", &inside, "--outside", &outside]);
    let one = diagnose(&["--capture", &capture, "--inside-interface", "lan", "--outside-interface", "wan"]);
    let numbered = diagnose(&["--capture", &capture, "--inside-interface", "0", "--outside-interface", "1"]);
    let body = |text: &str| text.lines().skip(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((two.code, two.err.as_str()), (Some(0), ""), "{}", two.out);
    // The numbers of packets are those of the file, and only that differs.
    assert_eq!(body(&one.out).len(), body(&two.out).len());
    assert_eq!(body(&one.out), body(&numbered.out));
    assert!(one.out.contains("IPv4, hosts hidden behind 203.0.113.2: packet NAT, confidence high"), "{}", one.out);
    assert!(
        one.out.contains("1 x time exceeded (type 11 code 0) about UDP: relayed, as Linux would have sent it on"),
        "{}",
        one.out
    );
    assert_eq!((one.code, numbered.code), (Some(0), Some(0)));
}

#[test]
fn an_error_that_is_swallowed_is_explained() {
    let folder = folder("swallowed");
    let [inside, outside] = files(&folder, &traffic(false));
    let ran = diagnose(&["--inside", &inside, "--outside", &outside]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    for line in [
        "  1 x time exceeded (type 11 code 0) about UDP: swallowed",
        "      Linux: RELATED_REPLY, delivered to 192.168.1.2 => dst 192.168.1.2, quoted src 192.168.1.2:40001",
        "         this is the reply tuple of entry #1: a packet in original direction died, its error goes in reply direction",
        "not what a Linux NAT would have done",
    ] {
        assert!(ran.out.lines().any(|shown| shown == line), "{line}\n{}", ran.out);
    }
    let json = diagnose(&["--inside", &inside, "--outside", &outside, "--json"]);
    assert_eq!(json.out.lines().count(), 1);
    let report: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&report["schema"], &report["outcome"]), (&1.into(), &"difference".into()));
    assert_eq!(kind(&report, "ipv4"), ["packet_nat"]);
    let error = &report["errors"][0];
    assert_eq!(
        (&error["seen"], &error["fate"], &error["name"]),
        (&"outside".into(), &"swallowed".into(), &"time exceeded".into())
    );
    assert_eq!(error["linux"]["ctinfo"], "RELATED_REPLY");
    assert_eq!(error["linux"]["delivered_to"], "192.168.1.2");
    assert_eq!(error["about"]["sport"], 40_001);
}

#[test]
fn colour_only_where_it_is_wanted() {
    let folder = folder("colour");
    let [inside, outside] = files(&folder, &traffic(true));
    let arguments = ["--inside", &inside, "--outside", &outside];
    assert!(!diagnose(&arguments).out.contains('\x1b'));
    assert!(diagnose(&[&arguments[..], &["--color", "always"]].concat()).out.contains("\x1b["));
}

#[test]
fn too_little_has_an_exit_code_of_its_own() {
    let folder = folder("too-little");
    let both = traffic(true);
    let [inside, _] = files(&folder, &both);
    let nothing = write(&folder, "nothing.pcapng", &[(None, &[])]);
    let ran = diagnose(&["--inside", &inside, "--outside", &nothing]);
    assert_eq!(ran.code, Some(3), "{}", ran.out);
    assert!(ran.out.ends_with("too little was seen to say what it is\n"), "{}", ran.out);
    // Captures of other hosts have nothing to do with each other, and that is said.
    let ip = Ip::new("10.9.9.9", "10.8.8.8");
    let strange = write(&folder, "strange.pcapng", &[(None, &[(0, ip.packet(udp(&ip, 1, 2, b"hello")))])]);
    let ran = diagnose(&["--inside", &inside, "--outside", &strange]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(
        ran.err,
        "note: no flow was recognised at both sides: are the captures of the same time and the same hosts?\n"
    );
}

#[test]
fn what_is_wrong_with_the_arguments_and_files_is_said_in_one_line() {
    let folder = folder("bad");
    let both = traffic(true);
    let [inside, outside] = files(&folder, &both);
    let capture = write(&folder, "both.pcapng", &[(Some("l\x1b[2Jan"), &both.inside), (Some("wan"), &both.outside)]);
    let text = folder.join("notes.txt");
    fs::write(&text, "no capture\n").unwrap();
    let text = text.to_str().unwrap();
    let gone = folder.join("gone.pcapng");
    let gone = gone.to_str().unwrap();
    let fails = |arguments: &[&str], part: &str| {
        let ran = diagnose(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{ran:?}");
        assert!(ran.err.contains(part), "{}", ran.err);
        assert!(!ran.err.contains('\x1b'), "{}", ran.err);
    };
    fails(&["--inside", gone, "--outside", &outside], "gone.pcapng: cannot be opened");
    fails(&["--inside", &inside, "--outside", text], "notes.txt");
    fails(&["--inside", "-", "--outside", "-"], "standard input can be one of the captures only");
    fails(&[], "required");
    fails(&["--inside", &inside], "--outside");
    fails(&["--capture", &capture], "--inside-interface");
    fails(
        &["--capture", &capture, "--inside-interface", "eth7", "--outside-interface", "wan"],
        "there is no interface eth7; it has 0 l\\u{1b}[2Jan, 1 wan",
    );
    fails(
        &["--capture", &capture, "--inside-interface", "wan", "--outside-interface", "wan"],
        "inside and outside are the same interface",
    );
    fails(&["--inside", &inside, "--outside", &outside, "--capture", &capture], "cannot be used with");
}

#[test]
fn a_capture_that_is_cut_off_is_diagnosed_as_far_as_it_goes() {
    let folder = folder("cut");
    let [inside, outside] = files(&folder, &traffic(true));
    let mut bytes = fs::read(&outside).unwrap();
    bytes.truncate(bytes.len() - 7);
    fs::write(&outside, bytes).unwrap();
    let ran = diagnose(&["--inside", &inside, "--outside", &outside]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.out.contains("packet NAT"), "{}", ran.out);
    assert!(ran.err.starts_with("ctwhy: ") && ran.err.contains("outside.pcapng"), "{}", ran.err);
}

#[test]
fn what_is_not_looked_at_is_counted_aloud() {
    let folder = folder("counted");
    let mut both = traffic(true);
    let ip = Ip { id: 77, ..Ip::new("192.168.1.2", "192.0.2.80") };
    let body = udp(&ip, 1000, 2000, &[1; 64]);
    both.inside.push((0, Piece::last(77, 32..72).packet(&ip, &body)));
    let mut broken = ip.packet(body);
    broken[10] ^= 1;
    both.inside.push((1, broken));
    let [inside, outside] = files(&folder, &both);
    let ran = diagnose(&["--inside", &inside, "--outside", &outside]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.err,
        "note: inside: 1 packet with an IP header that is broken or cut\nnote: inside: 1 fragment behind the first of a datagram: not \
         looked at\n"
    );
}
