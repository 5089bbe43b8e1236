//! The rules against the kernel: every decision arrives in the mark, and nothing stays behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use common::*;
use ctwhy_linux::ctnetlink::{Events, dump};
use ctwhy_linux::lab::Lab;
use ctwhy_linux::nflog::Nflog;
use ctwhy_linux::queue::{MnlQueue, PacketQueue, QueueConfig, Queued, Verdict};
use ctwhy_linux::rules::{CtState, MarkBits, RuleSet, remove_leftovers};
use ctwhy_linux::signal::{self, Signals};
use ctwhy_linux::testing::{require_lab, require_namespaces};
use ctwhy_linux::wire::{Injector, Wire};

/// The rules and chains of both families on a node, and the nft tables for both. Built-in chains that iptables made on
/// the way and left empty are not listed.
fn rules_of(lab: &Lab, node: &str) -> String {
    let text = ["iptables-save", "ip6tables-save", "nft list tables inet"].map(|line| run(lab, node, line)).concat();
    let is_rule = |line: &&str| line.starts_with("-A") || line.starts_with(":CTWHY") || line.starts_with("table inet");
    text.lines().filter(is_rule).map(|line| line.split(" [").next().unwrap().to_owned() + "\n").collect()
}

fn decision(queue: &mut MnlQueue, injector: &Injector, bits: MarkBits, packet: &[u8]) -> (Option<CtState>, u32) {
    injector.inject(packet).unwrap();
    loop {
        let Queued { id, mark, payload, .. } = queue.recv().unwrap().unwrap();
        queue.verdict(id, Verdict { mark: Some(bits.clear(mark)), ..Verdict::ACCEPT }).unwrap();
        // Neighbour discovery comes this way, too.
        if payload == packet {
            return (bits.decode(mark), mark);
        }
    }
}

/// An ICMP port unreachable from `src` to `dst` about a packet.
fn unreachable(src: std::net::Ipv4Addr, dst: std::net::Ipv4Addr, about: &[u8]) -> Vec<u8> {
    let mut bytes = [&[3, 3, 0, 0, 0, 0, 0, 0], &about[..28]].concat();
    let checksum = fold(sum(0, &bytes));
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    ip(src, dst, 1, &bytes)
}

#[test]
fn each_decision_arrives_in_the_mark_and_the_users_bits_survive() {
    if !require_lab() {
        return;
    }
    // A user's rules: a mark, and an exemption from tracking.
    let users = "*mangle\n-A PREROUTING -j MARK --set-mark 0xabcd0012\nCOMMIT\n\
        *raw\n-A PREROUTING -p udp --dport 99 -j CT --notrack\nCOMMIT\n";
    let lab = small_lab(users, "");
    for node in ["left", "right"] {
        run(&lab, node, "iptables -A INPUT -j DROP");
    }
    for shift in [0, 8, 28] {
        let bits = MarkBits::new(shift).unwrap();
        let rules = RuleSet { bits, ..RuleSet::new(7) };
        let (mut queue, installed) = lab
            .in_node("middle", || (MnlQueue::open(&QueueConfig::new(7)).unwrap(), rules.install().unwrap()))
            .unwrap();
        let from_left = lab.injector("middle", "left").unwrap();
        let from_right = lab.injector("middle", "right").unwrap();
        let port = 4000 + u16::from(shift);
        let out = udp(LEFT, RIGHT, port, 9, b"");
        let back = udp(RIGHT, LEFT, 9, port, b"");
        let untracked = udp(LEFT, RIGHT, port, 99, b"");
        let invalid = unreachable(RIGHT, LEFT, &udp(LEFT, RIGHT, 1, 1, b""));
        let steps = [
            (&from_left, out.clone(), CtState::New),
            (&from_left, unreachable(LEFT, RIGHT, &back), CtState::Related),
            (&from_right, unreachable(RIGHT, LEFT, &out), CtState::RelatedReply),
            (&from_right, back, CtState::EstablishedReply),
            (&from_left, out, CtState::Established),
            (&from_left, untracked, CtState::Untracked),
            (&from_right, invalid, CtState::Invalid),
        ];
        for (injector, packet, state) in &steps {
            let (decided, mark) = decision(&mut queue, injector, bits, packet);
            assert_eq!(decided, Some(*state));
            assert_eq!(bits.clear(mark), bits.clear(0xabcd_0012));
        }
        loop {
            let before = queue.stats().unwrap().id_sequence;
            let counted = installed.queued().unwrap();
            // Neighbour discovery may come at any time.
            if queue.stats().unwrap().id_sequence == before {
                assert_eq!(counted, u64::from(before));
                break;
            }
        }
        assert!(!installed.has_log());
    }
}

#[test]
fn what_goes_over_loopback_is_queued_once() {
    if !require_lab() {
        return;
    }
    for (twice, expected) in [(false, 1), (true, 2)] {
        let lab = small_lab("", "");
        let rules = RuleSet { loopback_twice: twice, ..RuleSet::new(7) };
        let (mut queue, _installed) = lab
            .in_node("middle", || (MnlQueue::open(&QueueConfig::new(7)).unwrap(), rules.install().unwrap()))
            .unwrap();
        let socket = lab.in_node("middle", || std::net::UdpSocket::bind("127.0.0.1:9")).unwrap().unwrap();
        socket.send_to(b"x", "127.0.0.1:9").unwrap();
        let mut seen = 0;
        queue.set_blocking(false);
        while socket.set_nonblocking(true).is_ok() && socket.recv(&mut [0; 4]).is_err() {
            let Some(packet) = queue.recv().unwrap() else {
                wait(queue.as_fd());
                continue;
            };
            if packet.hw_protocol == 0x800 {
                assert_eq!(MarkBits::default().decode(packet.mark), Some(CtState::New));
                seen += 1;
            }
            queue.verdict(packet.id, Verdict::ACCEPT).unwrap();
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn nothing_stays_behind_whoever_left_it() {
    if !require_lab() {
        return;
    }
    let users =
        "*mangle\n:CTWHY_MINE -\n-A PREROUTING -j CTWHY_MINE\n-A CTWHY_MINE -p udp -j NFQUEUE --queue-num 7\nCOMMIT\n";
    let lab = small_lab(users, users);
    let rules = RuleSet { log_group: Some(3), ..RuleSet::new(7) };
    lab.in_node("middle", remove_leftovers).unwrap().unwrap();
    let before = rules_of(&lab, "middle");
    assert!(before.contains("CTWHY_MINE"));

    let installed = lab.in_node("middle", || rules.install()).unwrap().unwrap();
    assert!(installed.has_log());
    let during = rules_of(&lab, "middle");
    for text in ["CTWHY_PREROUTING", "CTWHY_OUTPUT", "table inet ctwhy_7"] {
        assert!(during.contains(text), "{text} is not in\n{during}");
    }
    // Dropped by a thread that is not in the namespace.
    drop(installed);
    assert_eq!(rules_of(&lab, "middle"), before);

    // A panic.
    lab.in_node("middle", || {
        let unwound = std::panic::catch_unwind(|| {
            let _installed = rules.install().unwrap();
            panic!("on purpose");
        });
        assert!(unwound.is_err());
    })
    .unwrap();
    assert_eq!(rules_of(&lab, "middle"), before);

    // A run that was killed, then another with other numbers.
    lab.in_node("middle", || std::mem::forget(rules.install().unwrap())).unwrap();
    let other = RuleSet { bits: MarkBits::new(3).unwrap(), ..RuleSet::new(8) };
    let installed = lab.in_node("middle", || other.install()).unwrap().unwrap();
    let during = rules_of(&lab, "middle");
    assert!(!during.contains("ctwhy_7") && during.contains("--queue-num 8"), "{during}");
    installed.remove().unwrap();
    assert_eq!(rules_of(&lab, "middle"), before);
    lab.in_node("middle", remove_leftovers).unwrap().unwrap();
}

#[test]
fn the_printed_commands_install_and_remove_the_same() {
    if !require_lab() {
        return;
    }
    let lab = small_lab("", "");
    let rules = RuleSet { log_group: Some(3), ..RuleSet::new(7) };
    let shell = |text: &str| {
        let mut shell = lab.command("middle", "sh").unwrap();
        ctwhy_linux::program::run(shell.args(["-e", "-c", text]), "").unwrap();
    };
    let before = rules_of(&lab, "middle");
    let installed = lab.in_node("middle", || rules.install()).unwrap().unwrap();
    let by_install = rules_of(&lab, "middle");
    installed.remove().unwrap();
    shell(&rules.install_commands());
    assert_eq!(rules_of(&lab, "middle"), by_install);
    shell(&rules.remove_commands());
    assert_eq!(rules_of(&lab, "middle"), before);
    let printed = rules.print();
    assert!(printed.contains(&rules.install_commands()) && printed.contains(&rules.remove_commands()));
    shell(&printed);
    assert_eq!(rules_of(&lab, "middle"), before);
}

/// Set in the process that serves a queue for another test.
const SERVE: &str = "CTWHY_TEST_SERVE";

/// Not a test of its own: the process that [`signals_end_a_run_and_its_rules`] starts and ends.
#[test]
#[ignore = "started by another test"]
fn serve() {
    if std::env::var_os(SERVE).is_none() {
        return;
    }
    let mut signals = Signals::take().unwrap();
    let queue = MnlQueue::open(&QueueConfig::new(7)).unwrap();
    let _installed = RuleSet::new(7).install().unwrap();
    let mut out = std::io::stdout().lock();
    out.write_all(b"@").unwrap();
    out.flush().unwrap();
    loop {
        signal::wait_readable(&[signals.as_fd(), queue.as_fd()], None).unwrap();
        if let Some(signal) = signals.received() {
            write!(out, "signal {signal}.").unwrap();
            return;
        }
    }
}

fn start_server(lab: &Lab) -> std::process::Child {
    let mut command: Command = lab.command("middle", std::env::current_exe().unwrap().to_str().unwrap()).unwrap();
    command.args(["serve", "--exact", "--ignored", "--nocapture"]).env(SERVE, "1").stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut byte = [0];
    while byte != *b"@" {
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    }
    child
}

#[test]
fn signals_end_a_run_and_its_rules() {
    if !require_namespaces() {
        return;
    }
    let lab = small_lab("", "");
    let before = rules_of(&lab, "middle");
    use nix::sys::signal::Signal;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut child = start_server(&lab);
        assert!(rules_of(&lab, "middle").contains("CTWHY_OUTPUT"));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains(&format!("signal {}.", signal as i32)), "{said}");
        assert!(child.wait().unwrap().success());
        assert_eq!(rules_of(&lab, "middle"), before);
    }
}

/// Set in the process that has no privilege.
const POWERLESS: &str = "CTWHY_TEST_POWERLESS";

/// Not a test of its own: the process that [`a_missing_privilege_is_named`] starts.
#[test]
#[ignore = "started by another test"]
fn powerless() {
    if std::env::var_os(POWERLESS).is_none() {
        return;
    }
    let errors = [
        RuleSet::new(7).install().unwrap_err().to_string(),
        Nflog::open(3, 4096).err().unwrap().to_string(),
        Events::open(4096).err().unwrap().to_string(),
        dump().unwrap_err().to_string(),
    ];
    for error in errors {
        assert!(error.contains("CAP_NET_ADMIN in this network namespace"), "{error}");
    }
    assert!(Wire::open("lo").unwrap_err().to_string().contains("CAP_NET_RAW"));
}

#[test]
fn a_missing_privilege_is_named() {
    if !require_namespaces() {
        return;
    }
    let lab = small_lab("", "");
    let mut command = lab.command("middle", "setpriv").unwrap();
    command.args(["--bounding-set", "-all", "--inh-caps", "-all"]).arg(std::env::current_exe().unwrap());
    command.args(["powerless", "--exact", "--ignored", "--nocapture"]).env(POWERLESS, "1");
    let text = ctwhy_linux::program::run(&mut command, "").unwrap();
    assert!(text.contains("1 passed"), "{text}");
}

/// Says which tools are hidden from the process: `nft`, or `all` of the administrator's.
const HIDDEN: &str = "CTWHY_TEST_HIDDEN";

/// Not a test of its own: the process that [`a_missing_tool_is_named_or_done_without`] starts.
#[test]
#[ignore = "started by another test"]
fn without_tools() {
    let rules = RuleSet { log_group: Some(3), ..RuleSet::new(7) };
    match std::env::var(HIDDEN).as_deref() {
        Ok("nft") => {
            let installed = rules.install().unwrap();
            assert!(!installed.has_log());
            installed.remove().unwrap();
        }
        Ok("all") => {
            let error = rules.install().unwrap_err().to_string();
            assert_eq!(error, "`iptables` is not installed; on Debian: apt-get install iptables");
            let reason = ctwhy_linux::lab::probe().unwrap_err().to_string();
            assert!(reason.contains("is not installed; on Debian: apt-get install "), "{reason}");
        }
        _ => {}
    }
}

#[test]
fn a_missing_tool_is_named_or_done_without() {
    if !require_namespaces() {
        return;
    }
    for (hidden, hide) in [
        (
            "nft",
            "for d in $(echo \"$PATH\" | tr : ' '); do if [ -e $d/nft ]; then mount --bind /dev/null $d/nft; fi; done",
        ),
        ("all", "mount -t tmpfs none /usr/sbin; mount -t tmpfs none /usr/local/sbin; PATH=/usr/bin:/bin"),
    ] {
        // The mounts are the lab's own. Tools may also have been unpacked in places of their own.
        let lab = small_lab("", "");
        let mut command = lab.command("middle", "sh").unwrap();
        let shell = format!("{hide}; exec \"$0\" without_tools --exact --ignored --nocapture");
        command.args(["-e", "-c", &shell]).arg(std::env::current_exe().unwrap()).env(HIDDEN, hidden);
        let text = ctwhy_linux::program::run(&mut command, "").unwrap();
        assert!(text.contains("1 passed"), "{text}");
    }
}

#[test]
fn an_nflog_group_in_use_is_named() {
    if !require_lab() {
        return;
    }
    let lab = small_lab("", "");
    let _first = lab.in_node("middle", || Nflog::open(3, 4096)).unwrap().unwrap();
    let error = lab.in_node("middle", || Nflog::open(3, 4096).err().unwrap().to_string()).unwrap();
    let expected = format!("NFLOG group 3 is already in use by pid {} (", std::process::id());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn a_killed_run_stops_nothing_and_a_living_one_is_left_alone() {
    if !require_lab() {
        return;
    }
    let lab = small_lab("", "");
    resolve_neighbours(&lab);
    let mut child = start_server(&lab);
    let error = lab.in_node("middle", || RuleSet::new(8).install().unwrap_err()).unwrap().to_string();
    assert!(error.contains("in place already") && error.contains("serves their queue 7"), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    // Its rules are still there; traffic passes, because nobody serves the queue.
    assert!(rules_of(&lab, "middle").contains("CTWHY_OUTPUT"));
    let wire = lab.wire("right", "eth0").unwrap();
    lab.injector("middle", "left").unwrap().inject(&udp(LEFT, RIGHT, 4000, 9, b"")).unwrap();
    loop {
        wait(wire.as_fd());
        let Some(frame) = wire.recv().unwrap() else { continue };
        if frame.hw_protocol == 0x800 && frame.payload()[9] == 17 {
            break;
        }
    }
    let installed = lab.in_node("middle", || RuleSet::new(8).install()).unwrap().unwrap();
    installed.remove().unwrap();
    assert!(!rules_of(&lab, "middle").contains("CTWHY"));
}
