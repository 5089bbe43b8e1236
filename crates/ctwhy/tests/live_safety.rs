//! `ctwhy live` never hurts traffic and leaves nothing behind, however it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod live_common;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ctwhy_linux::signal::{self, SIGINT};
use ctwhy_linux::testing;
use live_common::{CTWHY, Live, SERVER, echo, lab_with, our_rules, round_trip, run, udp};

fn server(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), port)
}

/// Every way to end that a process can notice.
#[test]
fn rules_go_with_the_run() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    let near = udp(&lab, "client", "0.0.0.0:0");
    for number in [SIGINT, libc::SIGTERM, libc::SIGHUP] {
        assert_eq!(our_rules(&lab), "");
        let live = Live::start(&lab, &["--install-rules"]);
        assert_ne!(our_rules(&lab), "");
        round_trip(&near, server(7), b"seen");
        let ended = live.stop(number);
        ended.assert_agreement();
        assert_eq!(our_rules(&lab), "", "signal {number}");
        round_trip(&near, server(7), b"unseen");
    }
    // By itself, after so many packets, and after some time.
    let live = Live::start(&lab, &["--install-rules", "--packets", "3"]);
    for _ in 0..5 {
        round_trip(&near, server(7), b"counted");
    }
    let ended = live.ended();
    assert_eq!(ended.packets.len(), 3);
    assert_eq!(our_rules(&lab), "");
    Live::start(&lab, &["--install-rules", "--time", "0.2"]).ended();
    assert_eq!(our_rules(&lab), "");
}

/// Nobody reads the output any more.
#[test]
fn rules_go_when_the_reader_goes() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    let near = udp(&lab, "client", "0.0.0.0:0");
    let mut command = lab.command("nat", CTWHY).unwrap();
    command.args(["live", "--install-rules"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    messages.read_line(&mut String::new()).unwrap();
    drop(child.stdout.take());
    let mut rest = String::new();
    while child.try_wait().unwrap().is_none() {
        round_trip(&near, server(7), b"who reads this?");
    }
    messages.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    assert_eq!(rest, "");
    assert_eq!(our_rules(&lab), "");
}

/// kill -9 while datagrams come one after the other: they go on coming. The next run removes the rules that were left.
#[test]
fn killed_under_load() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    let near = udp(&lab, "client", "0.0.0.0:0");
    let mut live = Live::start(&lab, &["--install-rules"]);
    let stop = Arc::new(AtomicBool::new(false));
    let flood = {
        let (socket, stop) = (udp(&lab, "client", "0.0.0.0:0"), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut sent = 0u64;
            while !stop.load(Ordering::Relaxed) {
                sent += u64::from(socket.send_to(&[0; 64], server(9)).is_ok());
            }
            sent
        })
    };
    live.until_packets(2000, "the flood", |packet| packet["ct"]["orig_dport"] == 9);
    kill(inner_pid(&live), libc::SIGKILL);
    let ended = live.ended();
    assert!(!ended.status.success());
    // Nobody serves the queue: everything passes.
    for _ in 0..100 {
        round_trip(&near, server(7), b"still there");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(flood.join().unwrap() > 2000);
    assert_ne!(our_rules(&lab), "");
    let live = Live::start(&lab, &["--install-rules"]);
    round_trip(&near, server(7), b"seen");
    live.stop(SIGINT).assert_agreement();
    assert_eq!(our_rules(&lab), "");
}

/// A process that does not get to run: the queue fills up, and from then on packets pass unseen.
#[test]
fn stopped_under_load() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    let near = udp(&lab, "client", "0.0.0.0:0");
    let mut live = Live::start(&lab, &["--install-rules"]);
    round_trip(&near, server(7), b"before");
    live.sync();
    let inner = inner_pid(&live);
    kill(inner, libc::SIGSTOP);
    let flood = udp(&lab, "client", "0.0.0.0:0");
    near.set_nonblocking(true).unwrap();
    let mut passed = false;
    for _ in 0..200_000 {
        flood.send_to(&[0; 64], server(9)).unwrap();
        // The queue holds some ten thousand packets; behind them this one gets through.
        near.send_to(b"through", server(7)).unwrap();
        if near.recv(&mut [0; 16]).is_ok() {
            passed = true;
            break;
        }
    }
    assert!(passed, "the full queue is not fail-open");
    kill(inner, libc::SIGCONT);
    let ended = live.stop(SIGINT);
    assert!(ended.messages.iter().any(|line| line.starts_with("lost: ")), "{:#?}", ended.messages);
    assert_eq!(our_rules(&lab), "");
}

/// Two packets of a new flow in the queue at once: for UDP the kernel makes one flow of them, for ICMP it drops the second.
#[test]
fn a_flow_that_begins_twice() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    let near = udp(&lab, "client", "0.0.0.0:0");
    // Neighbours are known before.
    round_trip(&udp(&lab, "client", "0.0.0.0:0"), server(7), b"before");
    let mut live = Live::start(&lab, &["--install-rules"]);
    let inner = inner_pid(&live);
    kill(inner, libc::SIGSTOP);
    near.send_to(b"one", server(7)).unwrap();
    near.send_to(b"two", server(7)).unwrap();
    let wire = lab.injector("nat", "lan").unwrap();
    for number in [1, 2] {
        let mut packet = vec![0x45, 0, 0, 28, 0, number, 0, 0, 9, 1, 0, 0, 192, 168, 1, 2, 192, 0, 2, 80];
        let checksum = !sum(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        let mut echo = vec![8, 0, 0, 0, 0x12, 0x34, 0, number];
        let checksum = !sum(&echo);
        echo[2..4].copy_from_slice(&checksum.to_be_bytes());
        packet.extend(echo);
        wire.inject(&packet).unwrap();
    }
    kill(inner, libc::SIGCONT);
    for expected in [b"one", b"two"] {
        let mut buffer = [0; 3];
        near.recv(&mut buffer).unwrap();
        assert_eq!(&buffer, expected);
    }
    let icmp = |packet: &serde_json::Value, ctinfo| packet["ct"]["proto"] == "icmp" && packet["ctinfo"] == ctinfo;
    live.until_packets(1, "echo reply", |packet| icmp(packet, "ESTABLISHED_REPLY"));
    let ended = live.stop(SIGINT);
    ended.assert_agreement();
    assert_eq!(ended.packets.iter().filter(|packet| icmp(packet, "ESTABLISHED_REPLY")).count(), 1);
    let drops: Vec<_> =
        ended.packets.iter().filter(|packet| icmp(packet, "NEW")).map(|packet| packet["drop"].as_str()).collect();
    assert_eq!(drops, [None, Some("confirm.clash")]);
    let datagrams = ended.packets.iter().filter(|p| p["ct"]["proto"] == "udp" && p["ctinfo"] == "NEW").count();
    assert_eq!(datagrams, 2);
}

/// The process in the lab's PID namespace; what was started only stands for it.
fn inner_pid(live: &Live) -> i32 {
    let outer = live.child.id();
    let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    children.trim().parse().unwrap()
}

fn kill(pid: i32, number: i32) {
    // SAFETY: a system call on numbers.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

/// Marks of the user's own keep all their bits but ours, which are zero again behind us.
#[test]
fn marks_survive() {
    if !testing::require_lab() {
        return;
    }
    for (shift, mark) in [("28", "0x0abcdef1"), ("4", "0xabcdef01")] {
        let rules = format!(
            "*mangle\n-A PREROUTING -i lan -j MARK --set-mark {mark}\n-A OUTPUT -j MARK --set-mark {mark}\n\
             -A POSTROUTING -p udp -m mark --mark {mark}\n-A POSTROUTING -p udp -m mark ! --mark {mark} -m mark ! --mark 0\n\
             COMMIT\n"
        );
        let lab = lab_with(&rules);
        echo(&udp(&lab, "server", "0.0.0.0:7"));
        let live = Live::start(&lab, &["--install-rules", "--mark-shift", shift]);
        round_trip(&udp(&lab, "client", "0.0.0.0:0"), server(7), b"marked");
        round_trip(&udp(&lab, "nat", "0.0.0.0:0"), server(7), b"marked");
        live.stop(SIGINT).assert_agreement();
        let counters = run(&lab, "nat", "iptables -t mangle -nvxL POSTROUTING");
        let packets: Vec<u64> = counters
            .lines()
            .filter(|line| line.contains("mark match"))
            .map(|line| line.split_ascii_whitespace().next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(packets, [2, 0], "shift {shift}:\n{counters}");
    }
}

/// Packets that are no good, and protocols without a tracker: all of them pass, and nothing ends.
#[test]
fn odd_packets_pass() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    let live = Live::start(&lab, &["--install-rules"]);
    let wire = lab.injector("nat", "lan").unwrap();
    let mut sent = 0;
    for protocol in [0u8, 1, 2, 6, 17, 33, 41, 47, 50, 58, 132, 136, 255] {
        for length in [0usize, 1, 3, 4, 7, 8, 9, 20, 31, 64] {
            for fill in [0u8, 0xff, 0x45] {
                let mut packet = vec![0x45, 0, 0, (20 + length) as u8, 0, 1, 0, 0, 9, protocol, 0, 0];
                packet.extend([192, 168, 1, 2]);
                packet.extend([192, 0, 2, 80]);
                let checksum = !sum(&packet);
                packet[10..12].copy_from_slice(&checksum.to_be_bytes());
                packet.resize(20 + length, fill);
                wire.inject(&packet).unwrap();
                sent += 1;
            }
        }
    }
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    round_trip(&udp(&lab, "client", "0.0.0.0:0"), server(7), b"last");
    let ended = live.stop(SIGINT);
    let injected = ended.packets.iter().filter(|packet| packet["iface"] == "lan" && packet["hook"] == "prerouting");
    assert!(injected.count() > sent, "{:#?}", ended.messages);
    ended.assert_agreement();
    assert!(ended.count("INVALID") > 100, "{:#?}", ended.messages);
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Totals so far, on SIGUSR1, without ending anything.
#[test]
fn totals_on_request() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    let mut live = Live::start(&lab, &["--install-rules"]);
    for _ in 0..3 {
        round_trip(&udp(&lab, "client", "0.0.0.0:0"), server(7), b"counted");
        signal::send(&live.child, signal::SIGUSR1).unwrap();
        let line = live.until("ctwhy live: so far");
        assert!(line.ends_with(", 0 differ"), "{line}");
    }
    assert!(live.packets.len() >= 6);
    live.stop(SIGINT).assert_agreement();
}
