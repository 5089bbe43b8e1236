//! What the tracker says in English. `tcp_words.txt` beside this file is the whole of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod tcp_support;

use std::collections::BTreeSet;
use std::fmt::Write;

use ctwhy_core::direction::Direction;
use ctwhy_core::sysctl::Sysctls;
use ctwhy_core::track::tcp::{Index, TcpReason, TcpState, WindowCheck, check};
use ctwhy_core::track::{Context, L4};
use tcp_support::*;

const C1: u32 = CLIENT + 1;
const S1: u32 = SERVER + 1;

/// The steps of a few conversations, packet by packet.
fn conversations() -> String {
    let mut text = String::new();
    let mut tell = |title: &str, flow: &mut Flow, packets: Vec<(bool, Seg)>| {
        writeln!(text, "{title}").unwrap();
        for (client, seg) in packets {
            let said = if client { flow.client(seg) } else { flow.server(seg) };
            writeln!(text, "  {} {said:?}", if client { "client" } else { "server" }).unwrap();
            for step in &flow.steps {
                writeln!(text, "    {}", step_words(step)).unwrap();
            }
        }
        writeln!(text).unwrap();
    };
    let (c, s) = (true, false);
    tell(
        "open, data, close",
        &mut Flow::default(),
        vec![
            (c, syn(CLIENT).opt(&[4, 2, 3, 3, 7])),
            (c, syn(CLIENT).opt(&[4, 2, 3, 3, 7])),
            (s, synack(SERVER, C1).opt(&[4, 2])),
            (c, ack(C1, S1)),
            (c, ack(C1, S1).len(100)),
            (s, ack(S1, C1 + 100).win(0)),
            (s, ack(S1, C1 + 100).win(0)),
            (c, fin(C1 + 100, S1)),
            (s, ack(S1, C1 + 101)),
            (s, fin(S1, C1 + 101)),
            (c, ack(C1 + 101, S1 + 1)),
            (s, rst(S1 + 1)),
            (c, syn(9)),
        ],
    );
    tell(
        "outside the window",
        &mut Flow::established(),
        vec![
            (c, ack(C1 + 2500, S1)),
            (c, ack(C1 + 9999, S1)),
            (c, ack(C1, S1 + 7)),
            (c, ack(C1 - 5000, S1)),
            (c, ack(C1, S1 - 70_000)),
            (c, fin(C1 + 9999, S1)),
            (s, rst(S1 + 9999)),
        ],
    );
    tell(
        "resets",
        &mut Flow::established(),
        vec![(s, rst(S1 - 1)), (s, rst(S1 + 5)), (c, rst(C1)), (s, syn(5)), (c, syn(5))],
    );
    tell(
        "out of step",
        &mut Flow::established(),
        vec![(c, syn(7_000_000)), (s, synack(8_000_000, 7_000_001)), (s, rstack(8_000_001, 7_000_001))],
    );
    tell(
        "reset of a half-open connection",
        &mut Flow::default(),
        vec![(c, syn(CLIENT)), (s, ack(1, 777)), (c, rst(777)), (c, syn(CLIENT)), (s, rstack(0, C1))],
    );
    tell(
        "simultaneous open",
        &mut Flow::default(),
        vec![(c, syn(CLIENT)), (s, syn(SERVER)), (s, synack(SERVER, C1)), (s, ack(S1, C1))],
    );
    let mut flow = Flow::default();
    tell("pickup", &mut flow, vec![(c, ack(7, 9)), (c, ack(9_999_999, 9)), (s, rst(9))]);
    text.pop();
    text
}

#[test]
fn the_sentences_are_the_recorded_ones() {
    let recorded = include_str!("tcp_words.txt");
    let told = conversations();
    assert!(told == recorded, "the words changed; now they are:\n{told}");
}

#[test]
fn every_refusal_has_its_code_and_its_sentence() {
    let window = |seq, ack, receiver_maxwin| WindowCheck {
        direction: Direction::Reply,
        seq,
        end: seq,
        ack,
        sack: ack,
        sender_end: 1000,
        sender_maxend: 3000,
        sender_maxwin: 500,
        receiver_end: 70_000,
        receiver_maxwin,
    };
    let sack = WindowCheck { sack: 70_009, ..window(1000, 69_000, 2000) };
    let behind = WindowCheck { sender_end: 9000, ..window(3001, 70_000, 2000) };
    let refusals = [
        (
            TcpReason::ShortHeader { at_hand: 8, len: 8 },
            "tcp.short_header",
            "8 bytes are too few for a TCP header of at least 20",
        ),
        (
            TcpReason::ShortHeader { at_hand: 8, len: 99 },
            "tcp.short_header",
            "only 8 of 99 bytes of TCP are at hand, 20 are needed for a TCP header: the capture was cut short",
        ),
        (
            TcpReason::BadDataOffset { header_len: 16 },
            "tcp.bad_data_offset",
            "the TCP header claims a length of 16 bytes, less than the least possible 20",
        ),
        (
            TcpReason::Truncated { header_len: 24, len: 23 },
            "tcp.truncated",
            "the TCP header claims a length of 24 bytes, but there are only 23",
        ),
        (
            TcpReason::BadChecksum { found: 0x12, expected: 0xabcd },
            "tcp.bad_checksum",
            "the TCP checksum is 0x0012 and should be 0xabcd",
        ),
        (TcpReason::BadFlags { flags: 0x03 }, "tcp.bad_flags", "no TCP sends the flags SYN|FIN together"),
        (TcpReason::BadFlags { flags: 0 }, "tcp.bad_flags", "no TCP sends a packet without any flag"),
        (TcpReason::BadFlags { flags: 0x08 }, "tcp.bad_flags", "no TCP sends PSH without SYN, RST or ACK"),
        (
            TcpReason::InvalidNew { index: Index::Rst },
            "tcp.invalid_new",
            "there is no entry for this connection, and an RST does not begin one",
        ),
        (
            TcpReason::LooseOff { index: Index::Ack },
            "tcp.loose_off",
            "there is no entry for this connection, and an ACK does not begin one because nf_conntrack_tcp_loose is 0",
        ),
        (
            TcpReason::InvalidState { direction: Direction::Reply, index: Index::Fin, state: TcpState::SynSent },
            "tcp.invalid_state",
            "a FIN in reply direction makes no sense in state SYN_SENT",
        ),
        (
            TcpReason::InvalidRst { seq: 90, maxack: 100 },
            "tcp.invalid_rst",
            "RST seq 90 lies 10 bytes below 100, which its receiver has already acknowledged",
        ),
        (
            TcpReason::SeqOverUpperBound { check: window(6000, 70_000, 2000) },
            "tcp.seq_over_upper_bound",
            "seq 6000 is over the upper bound 3000 by 3000 bytes: the original side has not opened its window that far, \
             and 3001 bytes beyond is more than its largest window of 2000",
        ),
        (
            TcpReason::SeqOverUpperBound { check: window(3001, 70_000, 0) },
            "tcp.seq_over_upper_bound",
            "seq 3001 is over the upper bound 3000 by 1 byte: the original side has not opened its window that far, \
             and its window is unknown",
        ),
        (
            TcpReason::SeqOverUpperBound { check: behind },
            "tcp.seq_over_upper_bound",
            "seq 3001 is over the upper bound 3000 by 1 byte: the original side has not opened its window that far, \
             and end 3001 is under the lower bound 7000 (9000 - 2000)",
        ),
        (
            TcpReason::SeqOverUpperBound { check: window(3001, 70_001, 2000) },
            "tcp.seq_over_upper_bound",
            "seq 3001 is over the upper bound 3000 by 1 byte: the original side has not opened its window that far, \
             and ack 70001 is over the upper bound 70000",
        ),
        (
            TcpReason::SeqOverUpperBound { check: window(3001, 3999, 2000) },
            "tcp.seq_over_upper_bound",
            "seq 3001 is over the upper bound 3000 by 1 byte: the original side has not opened its window that far, \
             and ack 3999 is under the lower bound 4000",
        ),
        (
            TcpReason::AckOverUpperBound { check: window(1000, 70_001, 2000) },
            "tcp.ack_over_upper_bound",
            "ack 70001 is over the upper bound 70000 by 1 byte: it acknowledges data that the original side was never \
             seen to send",
        ),
        (
            TcpReason::AckOverUpperBound { check: sack },
            "tcp.ack_over_upper_bound",
            "SACK edge 70009 (ack 69000) is over the upper bound 70000 by 9 bytes: it acknowledges data that the \
             original side was never seen to send",
        ),
    ];
    for (reason, code, words) in &refusals {
        assert_eq!((reason.code(), reason_words(reason).as_str()), (*code, *words));
    }
    let codes: BTreeSet<_> = refusals.iter().map(|(_, code, _)| code).collect();
    assert_eq!(codes.len(), 11);
}

/// A capture that is cut within the header must not be said to be a broken packet.
#[test]
fn a_cut_capture_is_called_so() {
    let bytes = syn(1).bytes(true);
    let sysctls = Sysctls::default();
    let cut = L4 { bytes: &bytes[..10], len: 20, ..l4(&[], true) };
    let reason =
        check(&cut, &Context { sysctls: &sysctls, kernel: ctwhy_core::profile::DEFAULT, verify_checksum: false })
            .unwrap_err();
    assert_eq!(reason.code(), "tcp.short_header");
}
