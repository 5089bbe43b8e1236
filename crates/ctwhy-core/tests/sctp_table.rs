//! SCTP's state table as a whole (SCTP-05), readable beside this file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

use std::fmt::Write;

use ctwhy_core::direction::Direction;
use ctwhy_core::sysctl::Sysctls;
use ctwhy_core::track::sctp::table::transition;
use ctwhy_core::track::sctp::{Cell, ChunkType, Row, SctpState};

/// Every cell, as in `sctp_table.txt`. To see a change of the table, write this to that file and look at the diff.
fn rendered() -> String {
    let mut text = String::new();
    for direction in Direction::BOTH {
        write!(text, "{:<17}", direction.to_string()).unwrap();
        for state in SctpState::ALL {
            write!(text, " {state:<17}").unwrap();
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        for kind in Row::TYPES {
            write!(text, "{kind:<17}").unwrap();
            for state in SctpState::ALL {
                write!(text, " {:<17}", transition(direction, kind, state)).unwrap();
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text.push('\n');
    }
    text.pop();
    text
}

#[test]
fn the_table_is_the_recorded_one() {
    let recorded = include_str!("sctp_table.txt");
    let rendered = rendered();
    assert!(rendered == recorded, "the state table changed; now it is:\n{rendered}");
}

/// The catalogue lists only the cells that do not keep the state; here they are in its short words.
#[test]
fn the_table_is_that_of_the_catalogue() {
    const ORIGINAL: [(ChunkType, &str); 11] = [
        (ChunkType::INIT, "NO>CL SS>CL SR>CL HS>CW"),
        (ChunkType::ABORT, "NO>CL CW>CL CE>CL ES>CL SS>CL SR>CL SA>CL HS>CL"),
        (ChunkType::SHUTDOWN, "NO>CL ES>SS HS>CL"),
        (ChunkType::SHUTDOWN_ACK, "NO>SA SS>SA SR>SA HS>SA"),
        (ChunkType::COOKIE_ECHO, "NO>CL CW>CE HS>CL"),
        (ChunkType::COOKIE_ACK, "NO>CL CE>ES HS>CL"),
        (ChunkType::SHUTDOWN_COMPLETE, "NO>CL SA>CL HS>CL"),
        (ChunkType::HEARTBEAT, "NO>HS"),
        (ChunkType::HEARTBEAT_ACK, "NO>CL"),
        (ChunkType::INIT_ACK, "NO>CL HS>CL"),
        (ChunkType::ERROR, "NO>CL HS>CL"),
    ];
    const REPLY: [(ChunkType, &str); 11] = [
        (ChunkType::INIT, "NO>IV HS>IV"),
        (ChunkType::INIT_ACK, "NO>IV CL>CW HS>IV"),
        (ChunkType::ABORT, "NO>IV CW>CL CE>CL ES>CL SS>CL SR>CL SA>CL HS>IV"),
        (ChunkType::SHUTDOWN, "NO>IV ES>SR HS>IV"),
        (ChunkType::SHUTDOWN_ACK, "NO>IV SS>SA SR>SA HS>IV"),
        (ChunkType::ERROR, "NO>IV CE>CL HS>IV"),
        (ChunkType::COOKIE_ECHO, "NO>IV CW>CE HS>IV"),
        (ChunkType::COOKIE_ACK, "NO>IV CE>ES HS>IV"),
        (ChunkType::SHUTDOWN_COMPLETE, "NO>IV SA>CL HS>IV"),
        (ChunkType::HEARTBEAT, "NO>IV"),
        (ChunkType::HEARTBEAT_ACK, "NO>IV HS>ES"),
    ];
    let short = |state| match state {
        SctpState::None => "NO",
        SctpState::Closed => "CL",
        SctpState::CookieWait => "CW",
        SctpState::CookieEchoed => "CE",
        SctpState::Established => "ES",
        SctpState::ShutdownSent => "SS",
        SctpState::ShutdownRecd => "SR",
        SctpState::ShutdownAckSent => "SA",
        SctpState::HeartbeatSent => "HS",
    };
    for (direction, rows) in [(Direction::Original, ORIGINAL), (Direction::Reply, REPLY)] {
        for (kind, listed) in rows {
            let moves = SctpState::ALL.into_iter().filter_map(|state| match transition(direction, kind, state) {
                Cell::To(new) if new == state => None,
                Cell::To(new) => Some(format!("{}>{}", short(state), short(new))),
                Cell::Invalid => Some(format!("{}>IV", short(state))),
            });
            assert_eq!(moves.collect::<Vec<_>>().join(" "), listed, "{kind} in {direction} direction");
        }
    }
}

#[test]
fn chunks_without_a_row_keep_the_state() {
    for number in 0..=255u8 {
        let kind = ChunkType(number);
        let row = Row::TYPES.iter().position(|listed| *listed == kind);
        assert_eq!(Row::of(kind).map(|row| row as usize), row, "{kind}");
        if row.is_none() {
            for (direction, state) in Direction::BOTH.into_iter().flat_map(|d| SctpState::ALL.map(|s| (d, s))) {
                assert_eq!(transition(direction, kind, state), Cell::To(state));
            }
        }
    }
}

#[test]
fn numbers_names_and_timeouts_are_the_kernels() {
    let states = [
        ("NONE", 10),
        ("CLOSED", 10),
        ("COOKIE_WAIT", 3),
        ("COOKIE_ECHOED", 3),
        ("ESTABLISHED", 210),
        ("SHUTDOWN_SENT", 3),
        ("SHUTDOWN_RECD", 3),
        ("SHUTDOWN_ACK_SENT", 3),
        ("HEARTBEAT_SENT", 30),
    ];
    for (number, (name, timeout)) in (0..).zip(states) {
        let state = SctpState::from_number(number).unwrap();
        assert_eq!((state.number(), state.name()), (number, name));
        assert_eq!(state.timeout(&Sysctls::default()), timeout, "{name}");
    }
    assert_eq!(SctpState::from_number(9), None);
}
