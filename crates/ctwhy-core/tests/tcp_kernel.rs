//! The tracker against decisions recorded from a kernel: `tcp_kernel_6.18.44.txt`, chosen from 2.6 million random
//! packets so that every cell, special rule, refusal, timeout and edge of the window occurs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod tcp_support;

use std::collections::BTreeSet;

use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::status::Status;
use tcp_support::{Flow, Seg, step_words};

const RECORDED: &str = include_str!("tcp_kernel_6.18.44.txt");

fn unhex(text: &str) -> Vec<u8> {
    let digits = if text == "-" { "" } else { text };
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// The columns behind the second bar without the timeout, and the timeout.
fn shown(flow: &Flow) -> (String, Option<u32>) {
    let Some(entry) = &flow.entry else { return ("-".into(), None) };
    let [o, r] = Direction::BOTH;
    let shown = [Status::SEEN_REPLY, Status::ASSURED].into_iter().filter(|bit| entry.status.contains(*bit));
    let status = shown.fold(Status::CONFIRMED, |status, bit| status | bit).0;
    let tcp = &entry.tcp;
    let who = if entry.original_is_client { "c" } else { "s" };
    let (state, of, rf, os, rs) = (tcp.state(), tcp.flags(o), tcp.flags(r), tcp.scale(o), tcp.scale(r));
    (format!("{state} {of:02x} {rf:02x} {os} {rs} {status:x} {who}"), Some(entry.timeout))
}

#[test]
fn the_tracker_decides_as_the_kernel_did() {
    let mut flow = Flow::default();
    let mut steps = BTreeSet::new();
    let mut packets = 0;
    for (number, line) in (1..).zip(RECORDED.lines()) {
        if line.starts_with('#') {
            continue;
        }
        if let Some(sysctls) = line.strip_prefix("flow") {
            flow = Flow::default();
            for (name, value) in sysctls.split_whitespace().map(|pair| pair.split_once('=').unwrap()) {
                flow.sysctls.set(&format!("nf_conntrack_tcp_{name}"), value).unwrap();
            }
            continue;
        }
        let columns: Vec<&str> = line.split(" | ").collect();
        let [packet, ctinfo, entry] = columns[..] else { panic!("line {number}: {line}") };
        let fields: Vec<&str> = packet.split(' ').collect();
        let [who, flags, seq, ack, window, len, options] = fields[..] else { panic!("line {number}: {line}") };
        let seg = Seg {
            seq: seq.parse().unwrap(),
            ack: ack.parse().unwrap(),
            flags: u8::from_str_radix(flags, 16).unwrap(),
            window: window.parse().unwrap(),
            len: len.parse().unwrap(),
            options: unhex(options),
        };
        let said = if who == "c" { flow.client(seg) } else { flow.server(seg) };
        packets += 1;

        let words: Vec<String> = flow.steps.iter().map(step_words).collect();
        let why = format!("line {number}: {line}\nsaid {said:?}\n{}", words.join("\n"));
        assert_eq!(flow.ctinfo.unwrap_or(CtInfo::Invalid).name(), ctinfo, "{why}");
        let (shown, timeout) = shown(&flow);
        match (entry.rsplit_once(' '), timeout) {
            (Some((recorded, left)), Some(timeout)) => {
                assert_eq!(shown, recorded, "{why}");
                let left: u32 = left.parse().unwrap();
                assert!((left..=left + 1).contains(&timeout), "timeout {timeout}, recorded {left}; {why}");
            }
            _ => assert_eq!(shown, entry, "{why}"),
        }
        steps.extend(flow.steps.iter().map(kind));
    }
    assert!(packets > 600, "only {packets} packets");
    let missing: Vec<_> = KINDS.iter().filter(|kind| !steps.contains(**kind)).collect();
    assert!(missing.is_empty(), "the recording shows no {missing:?}");
}

/// The variant of a step, with that of its rule or cause.
fn kind(step: &ctwhy_core::track::tcp::TcpStep) -> String {
    use ctwhy_core::track::tcp::TcpStep;
    let name = |debug: String| debug.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    match step {
        TcpStep::Rst(rule) => name(format!("{rule:?}")),
        TcpStep::Timeout { cause, .. } => name(format!("{cause:?}")),
        TcpStep::Window { verdict, .. } => format!("{verdict:?}"),
        TcpStep::Liberal(liberal) => format!("{liberal:?}"),
        TcpStep::Reopen { cause, .. } => name(format!("{cause:?}")),
        other => name(format!("{other:?}")),
    }
}

const KINDS: [&str; 54] = [
    "Header",
    "NewSyn",
    "NewPickup",
    "Lookup",
    "Closed",
    "RstFromSameSide",
    "NotReopened",
    "Ignored",
    "ChallengeAckExpected",
    "Resync",
    "ChallengeAckIgnored",
    "SimultaneousOpen",
    "SimultaneousOpenCompleted",
    "ClosingUnchecked",
    "NothingAcknowledged",
    "AfterSyn",
    "SeqZero",
    "BelowAckTolerated",
    "NotEstablished",
    "Exact",
    "Train",
    "Inexact",
    "AnswersIgnored",
    "AnswersChallengeAck",
    "SenderStarted",
    "SenderRestarted",
    "ScalingOff",
    "SenderGuessed",
    "KeepaliveAnswered",
    "SynUnchecked",
    "AckAssumed",
    "RstSeqAssumed",
    "Inside",
    "Overshot",
    "SeqOver",
    "AckOver",
    "SeqUnder",
    "AckUnder",
    "Flag",
    "Sysctl",
    "WindowUpdated",
    "Retransmitted",
    "InvalidEndRemembered",
    "TimeoutLowered",
    "State",
    "CloseInitiated",
    "Retransmissions",
    "Rst",
    "Unacknowledged",
    "ZeroWindow",
    "PickupUnanswered",
    "UnrepliedRst",
    "SynNotRefreshing",
    "Assured",
];
