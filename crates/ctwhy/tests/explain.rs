//! What `ctwhy explain` prints: lines, steps, JSON, the table, filters, copies, colours, and its summary.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod explain_common;

use std::fs;
use std::process::{Command, Stdio};

use ctwhy_fixture::capture::Capture;
use ctwhy_fixture::linktype::LinkType;
use explain_common::*;
use serde_json::Value;

/// A flow, an error about it, an error about nothing, and ARP.
fn story() -> Vec<Timed> {
    let query = udp("10.0.0.2:1000", "192.0.2.1:53", 20);
    vec![
        (0, query.clone()),
        (1, udp("192.0.2.1:53", "10.0.0.2:1000", 60)),
        (7, time_exceeded("198.51.100.1", "10.0.0.2", &query)),
        (3001, query),
        (3002, time_exceeded("198.51.100.1", "10.0.0.3", &udp("10.0.0.3:7", "192.0.2.1:7", 0))),
        (3003, udp("192.0.2.1:53", "10.0.0.2:1000", 60)),
    ]
}

/// The host of the fixture traceroute-udp-v4-masquerade, in words.
const MASQUERADING: [&str; 6] =
    ["--route", "0.0.0.0/0=wan", "--local", "203.0.113.2/24=wan", "--local", "192.168.1.1/24=lan"];

#[test]
fn a_line_for_each_packet_and_a_summary() {
    let folder = folder("lines");
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &story()));
    assert_eq!(
        explain(&[&path]).well(),
        "   1   0.000000 lan    NEW               udp 10.0.0.2:1000 > 192.0.2.1:53 #1
   2   0.001000 lan    ESTABLISHED_REPLY udp 192.0.2.1:53 > 10.0.0.2:1000 #1
   3   0.007000 lan    RELATED_REPLY     icmp 198.51.100.1 > 10.0.0.2 time exceeded about udp 10.0.0.2:1000 > 192.0.2.1:53 #1
   4   3.001000 lan    ESTABLISHED       udp 10.0.0.2:1000 > 192.0.2.1:53 #1
   5   3.002000 lan    INVALID           icmp 198.51.100.1 > 10.0.0.3 time exceeded about udp 10.0.0.3:7 > 192.0.2.1:7: the \
error quotes udp 10.0.0.3:7 -> 192.0.2.1:7, and no flow in the table has that packet turned round, udp 192.0.2.1:7 -> \
10.0.0.3:7
   6   3.003000 lan    ESTABLISHED_REPLY udp 192.0.2.1:53 > 10.0.0.2:1000 #1

6 packets: 1 NEW, 1 ESTABLISHED, 2 ESTABLISHED_REPLY, 1 RELATED_REPLY, 1 INVALID
  INVALID       1  icmp.quoted_unknown_flow
"
    );
}

/// A datagram before any answer is worth no second event, and what expired is deleted by the packet that meets it.
#[test]
fn events_are_as_conntrack_prints_them() {
    let folder = folder("events");
    let mut packets = story();
    packets.push((200_000, udp("10.0.0.2:1000", "192.0.2.1:53", 20)));
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &packets));
    let only_events = explain(&[&path, "-q", "--events"]).well();
    let events: Vec<&str> = only_events.lines().take_while(|line| !line.is_empty()).collect();
    let tuples = "src=10.0.0.2 dst=192.0.2.1 sport=1000 dport=53";
    let reply = "src=192.0.2.1 dst=10.0.0.2 sport=53 dport=1000";
    assert_eq!(
        events,
        [
            format!("    [NEW] ipv4     2 udp      17 30 {tuples} [UNREPLIED] {reply} mark=0"),
            format!(" [UPDATE] ipv4     2 udp      17 30 {tuples} {reply} mark=0"),
            format!(" [UPDATE] ipv4     2 udp      17 120 {tuples} {reply} [ASSURED] mark=0"),
            format!("[DESTROY] ipv4     2 udp      17 {tuples} {reply} [ASSURED] mark=0"),
            format!("    [NEW] ipv4     2 udp      17 30 {tuples} [UNREPLIED] {reply} mark=0"),
        ]
    );
    let with_lines = explain(&[&path, "--events"]).well();
    assert_eq!(with_lines.lines().filter(|line| line.contains("mark=0")).count(), events.len());
    let filtered = explain(&[&path, "-q", "--events", "--proto", "icmp"]);
    assert!(!filtered.out.contains("mark=0"), "{}", filtered.out);
}

#[test]
fn steps_are_shown_where_they_are_asked_for() {
    let folder = folder("steps");
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &story()));
    let all = explain(&[&path, "-v"]).well();
    let some = explain(&[&path, "--packet", "2-3", "--packet", "5"]).well();
    let plain = explain(&[&path]).well();
    let steps = |text: &str| text.lines().filter(|line| line.starts_with("         ")).count();
    assert!(steps(&all) > steps(&some) && steps(&some) > 0);
    assert_eq!(steps(&plain), 0);
    // Whatever is shown, the lines and the decisions are the same: one path decides.
    for text in [&all, &some] {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("         ")).collect();
        assert_eq!(lines, plain.lines().collect::<Vec<_>>());
    }
    let only = explain(&[&path, "-q", "--packet", "3"]);
    assert_eq!(only.lines().len(), 1);
    assert!(only.out.contains("this is the reply tuple of entry #1"), "{}", only.out);
    let quiet = explain(&[&path, "-q"]);
    assert!(quiet.lines().is_empty() && quiet.out.starts_with("6 packets: "), "{}", quiet.out);
}

#[test]
fn without_a_file_the_capture_inside_is_explained() {
    let ran = explain(&[]);
    assert!(ran.out.starts_with("The capture inside ctwhy, recorded from a kernel. traceroute with UDP probes"));
    let case = explain(&[fixture("traceroute-udp-v4-masquerade").to_str().unwrap()]);
    let packets = fixture("traceroute-udp-v4-masquerade/packets.pcapng");
    let rules = file(&folder("inside"), "rules.v4", "*nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n");
    let options = [&[packets.to_str().unwrap(), "--nat-rules", &rules][..], &MASQUERADING].concat();
    let by_hand = explain(&options);
    assert!(case.lines().len() == 7 && case.out.contains("RELATED_REPLY"));
    assert_eq!(ran.lines(), case.lines());
    assert_eq!(case.out, by_hand.out);
    let json = explain(&["--json"]);
    assert_eq!(json.out.lines().filter(|line| line.starts_with("{\"schema\":1,")).count(), json.out.lines().count());
}

/// The objects of a run with `--json`.
fn objects(args: &[&str]) -> Vec<Value> {
    let ran = explain(&[args, &["--json"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_is_one_flat_object_per_packet() {
    let folder = folder("json");
    let mut packets = story();
    packets.push((3004, with_ttl(udp("10.0.0.2:1001", "192.0.2.1:53", 0), 1)));
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &packets));
    let rules = file(&folder, "rules.v4", "*nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n");
    let host = ["--route", "0.0.0.0/0=wan", "--local", "203.0.113.2/24=wan", "--local", "10.0.0.1/24=lan"];
    let found = objects(&[&[path.as_str(), "--nat-rules", &rules][..], &host].concat());
    let keys = [
        "schema",
        "packet",
        "time",
        "iface",
        "hook",
        "ctinfo",
        "verdict",
        "reason",
        "explanation",
        "drop",
        "ct",
        "steps",
    ];
    for (object, number) in found.iter().zip(1..) {
        let object = object.as_object().unwrap();
        let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
        let mut wanted = keys;
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        assert_eq!((object["schema"].as_u64(), object["packet"].as_u64()), (Some(1), Some(number)));
        assert_eq!((object["iface"].as_str(), object["hook"].as_str()), (Some("lan"), Some("prerouting")));
        assert_eq!(object["ctinfo"] == "INVALID", !object["reason"].is_null());
        assert_eq!(object["reason"].is_null(), object["explanation"].is_null());
        assert_eq!(object["verdict"] == "drop", !object["drop"].is_null());
        let steps = object["steps"].as_array().unwrap();
        assert!(!steps.is_empty());
        for step in steps {
            assert!(step["step"].is_string() && step["text"].is_string() && step.as_object().unwrap().len() == 2);
        }
    }
    assert_eq!(found.len(), packets.len());
    let text = explain(&[path.as_str(), "--json"]).out;
    assert!(text.starts_with("{\"schema\":1,\"packet\":1,\"time\":1700000000.000000000,\"iface\":\"lan\","), "{text}");
    let first: Value = serde_json::json!({
        "id": 1, "proto": "udp", "status": ["CONFIRMED", "SRC_NAT", "SRC_NAT_DONE", "DST_NAT_DONE"], "tcp_state": null,
        "timeout": 30, "zone": 0, "mark": 0, "orig_src": "10.0.0.2", "orig_dst": "192.0.2.1", "orig_sport": 1000,
        "orig_dport": 53, "reply_src": "192.0.2.1", "reply_dst": "203.0.113.2", "reply_sport": 53, "reply_dport": 1000,
    });
    assert_eq!(found[0]["ct"], first);
    assert_eq!(found[4]["reason"], "icmp.quoted_unknown_flow");
    assert!(found[4]["ct"].is_null());
    assert_eq!((found[6]["drop"].as_str(), found[6]["ct"]["id"].as_u64()), (Some("forward.ttl_exceeded"), None));
}

#[test]
fn what_conntrack_never_sees_has_its_object_too() {
    let folder = folder("unseen");
    let ethernet = |ether_type: [u8; 2], behind: &[u8]| [&[2; 12][..], &ether_type, behind].concat();
    let mut fragment = udp("10.0.0.2:1", "10.0.0.1:1", 8);
    fragment[6] = 0x20;
    let fragment = with_ttl(fragment, 64);
    let mut broken = udp("10.0.0.2:1", "10.0.0.1:1", 8);
    broken[8] = 63;
    let frames = vec![
        (0, ethernet([8, 6], &[0; 28])),
        (1, ethernet([0x88, 0xcc], &[0; 28])),
        (2, ethernet([8, 0], &fragment)),
        (3, ethernet([8, 0], &broken)),
        (4, vec![2; 9]),
        (5, ethernet([8, 0], &udp("10.0.0.2:1", "10.0.0.1:1", 8))),
    ];
    let path = file(&folder, "frames.pcap", pcap(LinkType::ETHERNET, 65535, &frames));
    let found = objects(&[&path]);
    let reasons: Vec<_> = found.iter().map(|object| object["reason"].as_str()).collect();
    let codes = ["link.not_ip", "link.not_ip", "fragment.incomplete", "ip.header_checksum", "link.truncated"];
    assert_eq!(reasons, [&codes.map(Some)[..], &[None]].concat());
    for object in &found[..5] {
        assert!(object["ctinfo"].is_null() && object["ct"].is_null() && object["explanation"].is_string());
        assert_eq!(object["verdict"], "none");
    }
    let ran = explain(&[&path]);
    assert!(ran.out.contains("6 packets: 1 NEW, 5 not seen by conntrack"), "{}", ran.out);
    assert!(ran.lines()[0].ends_with("-                 ARP"), "{}", ran.out);
}

#[test]
fn sctp_has_a_state_and_gre_has_keys() {
    let folder = folder("protocols");
    // A HEARTBEAT with tag 7; its CRC is not verified. A PPTP packet of call 9, and UDP-Lite without a checksum.
    let heartbeat = [&[0x0f, 0xa0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 0][..], &[4, 0, 0, 4]].concat();
    let pptp = vec![0x30, 1, 0x88, 0x0b, 0, 0, 0, 9];
    let packets = vec![
        (0, ipv4("10.0.0.2", "10.0.0.1", 132, heartbeat, None)),
        (1, ipv4("10.0.0.2", "10.0.0.1", 47, pptp, None)),
        (2, ipv4("10.0.0.2", "10.0.0.1", 136, vec![0, 1, 0, 2, 0, 0, 0, 0], None)),
    ];
    let path = file(&folder, "protocols.pcapng", pcapng(None, &packets));
    let found = objects(&[&path, "--no-checksum"]);
    assert_eq!(found[0]["ct"]["sctp_state"], "HEARTBEAT_SENT");
    assert!(found[0]["ct"]["tcp_state"].is_null());
    let keys = ["orig_srckey", "orig_dstkey", "reply_srckey", "reply_dstkey"].map(|key| found[1]["ct"][key].as_u64());
    assert_eq!(keys, [Some(0), Some(9), Some(9), Some(0)]);
    assert_eq!(found[1]["ct"].get("sctp_state"), None);
    assert_eq!(found[2]["reason"], "udplite.no_checksum");
    let ran = explain(&[&path, "--no-checksum", "--table"]);
    assert!(ran.lines()[0].contains("HEARTBEAT_SENT"), "{}", ran.out);
    assert!(
        ran.out.contains("sctp     132 29 HEARTBEAT_SENT src=10.0.0.2 dst=10.0.0.1 sport=4000 dport=9"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("src=10.0.0.2 dst=10.0.0.1 srckey=0x0 dstkey=0x9"), "{}", ran.out);
}

#[test]
fn the_table_is_that_of_conntrack() {
    let folder = folder("table");
    let mut packets = story();
    packets.push((3004, ipv4("10.0.0.2", "10.0.0.9", 253, vec![1; 4], None)));
    packets.push((3005, udp("10.0.0.2:1000", "10.0.0.9:53", 4)));
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &packets));
    let table = "\
ipv4     2 udp      17 119 src=10.0.0.2 dst=192.0.2.1 sport=1000 dport=53 packets=2 bytes=96 src=192.0.2.1 dst=10.0.0.2 \
sport=53 dport=1000 packets=2 bytes=176 [ASSURED] mark=0 use=1
ipv4     2 udp      17 30 src=10.0.0.2 dst=10.0.0.9 sport=1000 dport=53 packets=1 bytes=32 [UNREPLIED] src=10.0.0.9 \
dst=10.0.0.2 sport=53 dport=1000 packets=0 bytes=0 mark=0 use=1
ipv4     2 unknown  253 599 src=10.0.0.2 dst=10.0.0.9 packets=1 bytes=24 [UNREPLIED] src=10.0.0.9 dst=10.0.0.2 packets=0 \
bytes=0 mark=0 use=1
";
    let ran = explain(&["--table", "-q", "--sysctl", "net.netfilter.nf_conntrack_acct=1", &path]).well();
    let shown: Vec<&str> = ran.lines().take_while(|line| !line.is_empty()).collect();
    let mut wanted: Vec<&str> = table.lines().collect();
    wanted.sort_unstable();
    let mut sorted = shown.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, wanted);
}

#[test]
fn filters_choose_what_is_shown_and_never_what_is_tracked() {
    let folder = folder("filters");
    let mut packets = story();
    packets.push((3004, udp("10.0.0.7:5353", "224.0.0.251:5353", 9)));
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &packets));
    let all = explain(&[&path]);
    for (filter, shown) in [
        (&["--host", "192.0.2.1"][..], &[1, 2, 3, 4, 5, 6][..]),
        (&["--host", "10.0.0.7"], &[7]),
        (&["--port", "53"], &[1, 2, 3, 4, 6]),
        (&["--proto", "icmp"], &[3, 5]),
        (&["--proto", "17"], &[1, 2, 3, 4, 5, 6, 7]),
        (&["--proto", "icmp", "--port", "7"], &[5]),
        (&["--host", "8.8.8.8"], &[]),
    ] {
        let ran = explain(&[&[path.as_str()], filter].concat());
        let wanted: Vec<&str> = shown.iter().map(|number| all.lines()[number - 1]).collect();
        assert_eq!(ran.lines(), wanted, "{filter:?}");
        let summary = |text: &str| text.lines().find(|line| line.starts_with("7 packets: ")).map(str::to_owned);
        assert_eq!(summary(&ran.out), summary(&all.out), "{filter:?}");
        let hidden = packets.len() - shown.len();
        let note = match hidden {
            0 => String::new(),
            1 => "note: 1 packet not shown because of the filter, but tracked\n".to_owned(),
            _ => format!("note: {hidden} packets not shown because of the filter, but tracked\n"),
        };
        assert_eq!(ran.err, note, "{filter:?}");
        let numbers = |object: &Value| object["packet"].as_u64().and_then(|n| usize::try_from(n).ok());
        let found: Vec<_> = objects(&[&[path.as_str()], filter].concat()).iter().filter_map(numbers).collect();
        assert_eq!(found, shown, "{filter:?}");
    }
}

#[test]
fn a_copy_has_the_explanation_in_its_comments() {
    let folder = folder("copy");
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &story()));
    let copy = folder.join("copy.pcapng");
    let copy = copy.to_str().unwrap();
    let text = explain(&[&path, "-v"]).well();
    assert_eq!(explain(&[&path, "-w", copy, "--port", "7"]).code, Some(0));
    let [mut from, mut to] = [&path, copy].map(|path| Capture::open(path).unwrap());
    let mut comments = Vec::new();
    while let Some(before) = from.next() {
        let (before, after) = (before.unwrap(), to.next().unwrap().unwrap());
        assert_eq!((before.time_ns, before.bytes, before.iface()), (after.time_ns, after.bytes, after.iface()));
        comments.extend(after.comments().map(str::to_owned));
    }
    assert!(to.next().is_none());
    assert_eq!(comments.len(), 6);
    let joined = comments.join("\n");
    assert_eq!(joined.trim_end(), text.split("\n\n").next().unwrap());
    // Written once more, the first comment stays.
    let again = folder.join("again.pcapng");
    explain(&[copy, "-w", again.to_str().unwrap()]);
    let mut again = Capture::open(&again).unwrap();
    assert_eq!(again.next().unwrap().unwrap().comments().count(), 2);

    let tshark = Command::new("tshark").args(["-r", copy, "-T", "fields", "-e", "frame.comment"]).output();
    match tshark {
        Ok(seen) => {
            let seen = String::from_utf8(seen.stdout).unwrap();
            let shown: Vec<&str> = seen.lines().collect();
            let wanted: Vec<String> = comments.iter().map(|comment| comment.replace('\n', "\\n")).collect();
            assert_eq!(shown, wanted);
        }
        Err(error) => ctwhy_linux::testing::skip(&format!("tshark: {error}")),
    }
}

#[test]
fn colour_only_where_it_is_wanted() {
    let folder = folder("colour");
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &story()));
    let plain = explain(&[&path]).well();
    assert!(!plain.contains('\x1b'));
    let coloured = explain(&[&path, "--color=always"]).well();
    let mut stripped = String::new();
    for part in coloured.split('\x1b').enumerate() {
        stripped.push_str(if part.0 == 0 { part.1 } else { part.1.split_once('m').unwrap().1 });
    }
    assert_eq!(stripped, plain);
    assert!(coloured.contains("\x1b[31mINVALID"), "{coloured:?}");
    assert!(!explain(&[&path, "--color=always", "--json"]).out.contains('\x1b'));
    assert_eq!(explain(&[&path, "--color=never"]).well(), plain);
}

#[test]
fn names_from_a_capture_cannot_move_the_terminal() {
    let folder = folder("names");
    let path = file(&folder, "story.pcapng", pcapng(Some("l\x1b[2J\nan"), &story()[..1]));
    let ran = explain(&[&path, "-v"]);
    assert!(!ran.out.contains('\x1b') && ran.out.contains("l\\u{1b}[2J\\u{a}an"), "{}", ran.out);
    assert_eq!(objects(&[&path])[0]["iface"], "l\x1b[2J\nan");
}

#[test]
fn time_never_runs_backwards() {
    let folder = folder("backwards");
    let packets = [
        (100_000, udp("10.0.0.2:1", "10.0.0.1:1", 1)),
        (0, udp("10.0.0.2:2", "10.0.0.1:2", 1)),
        (129_999, udp("10.0.0.1:2", "10.0.0.2:2", 1)),
        (130_000, udp("10.0.0.1:1", "10.0.0.2:1", 1)),
    ];
    let path = file(&folder, "backwards.pcapng", pcapng(Some("lan"), &packets));
    let ran = explain(&[&path]);
    assert_eq!(ran.err, "note: 1 packet with a time before that of an earlier one: taken as simultaneous\n");
    // The second flow began at 100 s for the engine, and so did the first: one lives at 129.999 s, none at 130 s.
    assert!(ran.out.contains("4 packets: 3 NEW, 1 ESTABLISHED_REPLY"), "{}", ran.out);
    assert_eq!(objects(&[&path])[1]["ct"]["timeout"], 30);
}

#[test]
fn checksum_offload_is_recognised() {
    let folder = folder("offload");
    let mut packets: Vec<Timed> = (0..4).map(|n| (n, wrong_udp("10.0.0.2:1", "10.0.0.1:1"))).collect();
    packets.push((4, udp("10.0.0.1:1", "10.0.0.2:1", 4)));
    let path = file(&folder, "offload.pcapng", pcapng(Some("lan"), &packets));
    let ran = explain(&[&path]);
    assert!(ran.out.contains("INVALID       4  udp.checksum"), "{}", ran.out);
    assert!(ran.err.contains("look like checksum offload") && ran.err.contains("--no-checksum"), "{}", ran.err);
    let without = explain(&[&path, "--no-checksum"]).well();
    assert!(without.contains("5 packets: 4 NEW, 1 ESTABLISHED_REPLY"), "{without}");
    let one = file(&folder, "one.pcapng", pcapng(Some("lan"), &[&packets[..1], &story()[..]].concat()));
    explain(&[&one]).well();
}

/// A capture on the lan side of a masquerading box, with what the box itself says to the client.
#[test]
fn packets_of_the_host_itself_come_to_conntrack_at_output() {
    let folder = folder("own");
    let probe = with_ttl(udp("10.0.0.2:1000", "192.0.2.1:33434", 20), 1);
    let mut quote = probe.clone();
    quote.truncate(28);
    let packets = [
        (0, probe),
        (1, time_exceeded("10.0.0.1", "10.0.0.2", &quote)),
        // Said again without a cause, it is about no flow: the first one vanished with its packet.
        (2, time_exceeded("10.0.0.1", "10.0.0.2", &quote)),
        (3, udp("10.0.0.1:5000", "10.0.0.2:53", 9)),
        (4, udp("10.0.0.2:53", "10.0.0.1:5000", 9)),
    ];
    let path = file(&folder, "own.pcapng", pcapng(Some("lan"), &packets));
    let found = objects(&[&path, "--route", "0.0.0.0/0=wan", "--local", "10.0.0.1/24=lan"]);
    let told: Vec<_> = found.iter().map(|o| (o["hook"].as_str().unwrap(), o["ctinfo"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            ("prerouting", "NEW"),
            ("output", "RELATED_REPLY"),
            ("output", "INVALID"),
            ("output", "NEW"),
            ("prerouting", "ESTABLISHED_REPLY"),
        ]
    );
    assert_eq!(found[0]["drop"], "forward.ttl_exceeded");
    let cut = file(&folder, "own.pcap", pcap(LinkType::RAW, 36, &packets[3..]));
    let ran = explain(&[&cut, "--route", "0.0.0.0/0=wan", "--local", "10.0.0.1/24=lan"]);
    assert!(ran.out.contains("2 packets: 1 NEW, 1 ESTABLISHED_REPLY"), "{}", ran.out);
}

#[test]
fn a_missing_route_is_told() {
    let folder = folder("no_route");
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &story()));
    let ran = explain(&[&path, "--local", "203.0.113.2=wan"]);
    assert!(ran.out.contains("dropped       6  route.none"), "{}", ran.out);
    assert!(ran.err.contains("6 packets without a route: add --route PREFIX=IFACE"), "{}", ran.err);
}

#[test]
fn tables_that_are_not_looked_at_are_told() {
    let folder = folder("tables");
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &story()));
    let rules = file(&folder, "rules.v4", "*filter\n-A FORWARD -j DROP\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n");
    let ran = explain(&[&path, "--nat-rules", &rules]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.err, format!("note: {rules}: 2 tables beside nat not looked at: filter, mangle\n"));
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let folder = folder("broken_pipe");
    let packets: Vec<Timed> = (0..20_000).map(|n| (n, udp("10.0.0.2:1", "10.0.0.1:1", 1))).collect();
    let path = file(&folder, "many.pcapng", pcapng(Some("lan"), &packets));
    let copy = folder.join("copy.pcapng");
    for arguments in
        [&["explain", &path][..], &["explain", "--json", &path], &["explain", &path, "-w", copy.to_str().unwrap()]]
    {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ctwhy"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
    }
    // The copy is whole all the same.
    let length = fs::metadata(&copy).unwrap().len();
    assert!(length > fs::metadata(&path).unwrap().len());
    assert_eq!(explain(&[copy.to_str().unwrap(), "-q"]).code, Some(0));
    // Nobody reads standard error either.
    let mut child = Command::new(env!("CARGO_BIN_EXE_ctwhy"))
        .args(["explain", "missing.pcap"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

/// FULL-01: one that is not ASSURED goes, and one that is stays.
#[test]
fn a_limited_table_drops_flows_early_or_packets() {
    let folder = folder("table-limit");
    let mut packets = story();
    packets.insert(0, (0, udp("10.0.0.9:9", "192.0.2.1:53", 20)));
    packets.push((3004, udp("10.0.0.2:2000", "192.0.2.1:53", 20)));
    let path = file(&folder, "story.pcapng", pcapng(Some("lan"), &packets));
    let text = explain(&[&path, "-v", "--table-limit", "1"]).well();
    assert!(text.contains("entry #1 (udp 10.0.0.9:9 -> 192.0.2.1:53) is deleted before its time"), "{text}");
    assert!(text.contains("  NEW               udp 10.0.0.2:1000 > 192.0.2.1:53 #2"), "{text}");
    let full = "the table is full, with 1 entries where 1 may be";
    assert!(text.contains(full), "{text}");
    assert!(text.contains("conntrack.table_full"), "{text}");
    for name in ["nf_conntrack_max", "net.netfilter.nf_conntrack_max", "net.nf_conntrack_max"] {
        assert_eq!(explain(&[&path, "-v", "--sysctl", &format!("{name}=1")]).well(), text, "{name}");
        assert!(!explain(&[&path, "-v", "--sysctl", &format!("{name}=0")]).well().contains("is full"), "{name}");
    }
    let wrong = explain(&[&path, "--sysctl", "nf_conntrack_max=many"]);
    assert_eq!((wrong.code, wrong.err.contains("'many' is no value for nf_conntrack_max")), (Some(2), true));
    let unlimited = explain(&[&path, "-v"]).well();
    assert!(!unlimited.contains("is full"), "{unlimited}");
}
