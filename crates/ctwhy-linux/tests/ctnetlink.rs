//! ctnetlink against the kernel and against the tool `conntrack`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use common::*;
use ctwhy_linux::ctnetlink::{self, Event, EventKind, Events, L4, PerDirection, status};
use ctwhy_linux::lab::Lab;
use ctwhy_linux::program;
use ctwhy_linux::testing::{require_lab, skip};

const TRACKED: &str = "*filter\n-A FORWARD -m conntrack --ctstate NEW\nCOMMIT\n";

fn entries() -> Vec<String> {
    ctnetlink::dump().unwrap().iter().map(ctnetlink::format_extended).collect()
}

fn expectations() -> Vec<String> {
    ctnetlink::dump_expectations().unwrap().iter().map(ctnetlink::format_expectation).collect()
}

/// What the tool prints, between two dumps of ours that are the same: no timeout has counted down in the meantime.
fn compare_with_the_tool(lab: &Lab, dump: fn() -> Vec<String>, tool: &str) -> Vec<String> {
    let dump = || {
        let mut lines = lab.in_node("middle", dump).unwrap();
        lines.sort();
        lines
    };
    loop {
        let before = dump();
        let mut lines = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let text = run(lab, "middle", &format!("{tool} -f {family}"));
            lines.extend(text.lines().map(|line| line.trim_end().to_owned()));
        }
        lines.sort();
        if dump() == before {
            assert_eq!(before, lines);
            return before;
        }
    }
}

#[test]
fn entries_read_as_the_tool_prints_them() {
    if !require_lab() {
        return;
    }
    if let Err(missing) = program::find("conntrack") {
        skip(&missing);
        return;
    }
    let zones = "*raw\n-A PREROUTING -p udp --dport 71 -j CT --zone 7\n-A PREROUTING -p udp --dport 72 -j CT --zone-orig 8\n\
        -A PREROUTING -p tcp --dport 21 -j CT --helper ftp\nCOMMIT\n";
    let marks = "*mangle\n-A PREROUTING -p udp --dport 71 -j CONNMARK --set-mark 99\nCOMMIT\n";
    let lab = small_lab(&format!("{TRACKED}{zones}{marks}"), TRACKED);
    // Counters are there for entries that begin while this is on.
    for accounting in ["0", "1"] {
        lab.in_node("middle", || ctwhy_linux::sysctl::write("net.netfilter.nf_conntrack_acct", accounting))
            .unwrap()
            .unwrap();
        let base = if accounting == "0" { 1000 } else { 2000 };
        let from_left = lab.injector("middle", "left").unwrap();
        let from_right = lab.injector("middle", "right").unwrap();
        for packet in [
            udp(LEFT, RIGHT, base, 9, b"unreplied"),
            udp(LEFT, RIGHT, base + 1, 9, b"replied"),
            udp(LEFT, RIGHT, base + 2, 71, b"zone of both directions"),
            udp(LEFT, RIGHT, base + 3, 72, b"zone of one direction"),
            udp(LEFT6, RIGHT6, base, 9, b"unreplied"),
            icmp(LEFT, RIGHT, 8, base),
            icmp(LEFT, RIGHT, 13, base + 1),
            icmp(LEFT6, RIGHT6, 128, base),
            ip(LEFT, RIGHT, 253, b"generic"),
            ip(LEFT, RIGHT, 2, b"igmp"),
            ip(LEFT6, RIGHT6, 254, b"generic"),
            gre(),
            sctp_init(base),
            udplite(base),
        ] {
            from_left.inject(&packet).unwrap();
        }
        from_right.inject(&udp(RIGHT, LEFT, 9, base + 1, b"reply")).unwrap();
        from_right.inject(&ip(RIGHT, LEFT, 253, b"reply")).unwrap();

        // Assured: an open TCP connection; and one that was closed.
        let server = lab.in_node("right", || TcpListener::bind("10.0.2.2:80")).unwrap().unwrap();
        let open = lab.in_node("left", || TcpStream::connect("10.0.2.2:80")).unwrap().unwrap();
        let mut closed = lab.in_node("left", || TcpStream::connect("10.0.2.2:80")).unwrap().unwrap();
        let accepted = [server.accept().unwrap().0, server.accept().unwrap().0];
        closed.shutdown(std::net::Shutdown::Write).unwrap();
        for mut stream in &accepted {
            if stream.peer_addr().unwrap() == closed.local_addr().unwrap() {
                assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
        }
        assert_eq!(closed.read(&mut [0; 4]).unwrap(), 0);
        // Refused.
        lab.in_node("left", || TcpStream::connect("10.0.2.2:81")).unwrap().unwrap_err();

        let lines = compare_with_the_tool(&lab, entries, "conntrack -L -o extended");
        let has = |parts: &[&str]| lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        for parts in [
            &["udp      17", "dport=9 [UNREPLIED]"][..],
            &["udp      17", "mark=99 zone=7"],
            &["udp      17", "zone-orig=8"],
            &["tcp      6", "[ASSURED]"],
            &["icmp     1", "type=8 code=0 id="],
            &["ipv6     10 icmpv6   58", "type=128"],
            &["unknown  253 599 src="],
            &["gre      47", "srckey=0x"],
            &["sctp     132", "CLOSED"],
            &["udplite  136"],
        ] {
            assert!(has(parts), "{parts:?} is in none of\n{}", lines.join("\n"));
        }
        assert_eq!(has(&["packets=1 bytes="]), accounting == "1");
        drop((open, accepted));
    }
}

/// A connection from `left` to `right`, and what is said in it, line by line: who says it, and the bytes.
fn talk(lab: &Lab, to: IpAddr, port: u16, said: &[(&str, &[u8])]) -> [TcpStream; 2] {
    let server = lab.in_node("right", || TcpListener::bind((to, port))).unwrap().unwrap();
    let mut client = lab.in_node("left", || TcpStream::connect((to, port))).unwrap().unwrap();
    let mut accepted = server.accept().unwrap().0;
    for (who, bytes) in said {
        let (from, to) = if *who == "client" { (&mut client, &mut accepted) } else { (&mut accepted, &mut client) };
        from.write_all(bytes).unwrap();
        to.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }
    [client, accepted]
}

/// A control message of PPTP with 16-bit numbers at places behind its header.
fn pptp(number: u16, length: usize, fields: &[(usize, u16)]) -> Vec<u8> {
    let mut bytes = [&((12 + length) as u16).to_be_bytes()[..], &[0, 1, 0x1a, 0x2b, 0x3c, 0x4d]].concat();
    bytes.extend(number.to_be_bytes());
    bytes.resize(12 + length, 0);
    for (at, value) in fields {
        bytes[12 + at..14 + at].copy_from_slice(&value.to_be_bytes());
    }
    bytes
}

#[test]
fn expectations_read_as_the_tool_prints_them() {
    if !require_lab() {
        return;
    }
    if let Err(missing) = program::find("conntrack") {
        skip(&missing);
        return;
    }
    let helpers = "*raw\n-A PREROUTING -p tcp --dport 21 -j CT --helper ftp\n\
        -A PREROUTING -p udp --dport 69 -j CT --helper tftp\n";
    let also = "-A PREROUTING -p tcp --dport 1723 -j CT --helper pptp\n";
    let lab = small_lab(&format!("{TRACKED}{helpers}{also}COMMIT\n"), &format!("{TRACKED}{helpers}COMMIT\n"));
    resolve_neighbours(&lab);
    assert_eq!(compare_with_the_tool(&lab, expectations, "conntrack -L expect"), [""; 0]);
    let ftp =
        |command: &'static [u8]| [("server", &b"220 hi\r\n"[..]), ("client", b"USER me\r\n"), ("client", command)];
    let (reply, request) = (pptp(2, 144, &[(2, 1 << 8)]), pptp(7, 156, &[(0, 7)]));
    let (start, called) = (pptp(1, 144, &[]), pptp(8, 20, &[(0, 9), (2, 7), (4, 1 << 8)]));
    let call = [("client", &start[..]), ("server", &reply), ("client", &request), ("server", &called)];
    let open = [
        talk(&lab, RIGHT.into(), 21, &ftp(b"PORT 10,0,1,2,4,1\r\n")),
        talk(&lab, RIGHT6.into(), 21, &ftp(b"EPRT |2|fd00:1::2|1025|\r\n")),
        talk(&lab, RIGHT.into(), 1723, &call),
    ];
    let injector = lab.injector("middle", "left").unwrap();
    injector.inject(&udp(LEFT, RIGHT, 4000, 69, b"\0\x01file\0octet\0")).unwrap();
    injector.inject(&udp(LEFT6, RIGHT6, 4000, 69, b"\0\x01file\0octet\0")).unwrap();

    let lines = compare_with_the_tool(&lab, expectations, "conntrack -L expect");
    let has = |parts: &[&str]| lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    for (count, parts) in [
        (1, &["proto=6 src=10.0.2.2 dst=10.0.1.2 sport=0 dport=1025 mask-src=255.255.255.255", "helper=ftp"][..]),
        (1, &["proto=6 src=fd00:2::2 dst=fd00:1::2 sport=0 dport=1025 mask-src=ffff:", "helper=ftp"]),
        (2, &["proto=47", "srckey=0x", "dstkey=0xffff master-src=10.0.1.2", "dport=1723 class=0 helper=pptp"]),
        (1, &["proto=17 src=10.0.2.2", "dport=4000", "dport=69 class=0 helper=tftp"]),
        (1, &["proto=17 src=fd00:2::2", "master-src=fd00:1::2 master-dst=fd00:2::2 sport=4000 dport=69"]),
    ] {
        assert_eq!(has(parts), count, "{parts:?} in\n{}", lines.join("\n"));
    }
    assert_eq!(lines.len(), 6);
    drop(open);
}

fn gre() -> Vec<u8> {
    // Version 1 with a key (RFC 2637): call id 0x1234.
    ip(LEFT, RIGHT, 47, &[0x20, 0x01, 0x88, 0x0b, 0, 0, 0x12, 0x34])
}

fn udplite(sport: u16) -> Vec<u8> {
    // The kernel verifies the checksum with UDP's protocol number in the pseudo header (UDPLITE-01).
    let mut packet = udp(LEFT, RIGHT, sport, 9, b"lite");
    packet[9] = 136;
    packet[10..12].fill(0);
    let checksum = fold(sum(0, &packet[..20]));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn sctp_init(sport: u16) -> Vec<u8> {
    let mut bytes = [&sport.to_be_bytes()[..], &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 20, 0, 0, 0, 5]].concat();
    bytes.extend([0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 9]);
    let checksum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    ip(LEFT, RIGHT, 132, &bytes)
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn events_tell_the_life_of_an_entry() {
    if !require_lab() {
        return;
    }
    let lab = small_lab(TRACKED, "");
    resolve_neighbours(&lab);
    let mut events = lab.in_node("middle", || Events::open(1 << 20)).unwrap().unwrap();
    let from_left = lab.injector("middle", "left").unwrap();
    let from_right = lab.injector("middle", "right").unwrap();
    let mut next = || {
        wait(events.as_fd());
        match events.recv().unwrap() {
            Some(Event::Entry(kind, entry)) => (kind, *entry),
            other => panic!("{other:?}"),
        }
    };
    from_left.inject(&udp(LEFT, RIGHT, 4000, 9, b"")).unwrap();
    let (kind, entry) = next();
    assert_eq!((kind, entry.status, entry.timeout), (EventKind::New, status::CONFIRMED, Some(30)));
    assert_eq!((entry.orig.src, entry.orig.dst, entry.orig.proto), (LEFT.into(), RIGHT.into(), 17));
    assert_eq!(entry.orig.l4, L4::Ports { sport: 4000, dport: 9 });
    assert_eq!(entry.reply.l4, L4::Ports { sport: 9, dport: 4000 });
    assert_eq!((entry.tcp, entry.zone, entry.mark, entry.counters), (None, 0, 0, PerDirection::default()));
    assert!(entry.id.is_some());
    from_right.inject(&udp(RIGHT, LEFT, 9, 4000, b"")).unwrap();
    let (kind, updated) = next();
    assert_eq!((kind, updated.status), (EventKind::Update, status::CONFIRMED | status::SEEN_REPLY));
    assert_eq!(updated.id, entry.id);
    lab.in_node("middle", || {
        let flush = program::run(program::command("conntrack").unwrap().arg("-F"), "");
        flush.unwrap();
    })
    .unwrap();
    // Those of the connections that found the neighbours may go, too.
    let destroyed = std::iter::repeat_with(next).find(|(_, destroyed)| destroyed.orig == entry.orig).unwrap();
    assert_eq!(destroyed.0, EventKind::Destroy);
}

#[test]
fn lost_events_are_reported() {
    if !require_lab() {
        return;
    }
    let lab = small_lab(TRACKED, "");
    resolve_neighbours(&lab);
    let mut events = lab.in_node("middle", || Events::open(4096)).unwrap().unwrap();
    let from_left = lab.injector("middle", "left").unwrap();
    for port in 0..200 {
        from_left.inject(&udp(LEFT, RIGHT, 4000 + port, 9, b"")).unwrap();
    }
    let mut all = Vec::new();
    while let Some(event) = events.recv().unwrap() {
        all.push(event);
    }
    assert!(all.contains(&Event::Lost), "{} events", all.len());
    assert!(all.len() < 200);
    let entries = lab.in_node("middle", ctnetlink::dump).unwrap().unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.orig.proto == 17).count(), 200);
}
