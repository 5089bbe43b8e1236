//! The state table as a whole (catalogue E.4), readable beside this file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

use std::fmt::Write;

use ctwhy_core::direction::Direction;
use ctwhy_core::track::tcp::{Cell, Index, TRANSITIONS, TcpState, table::transition};

/// Every cell, as in `tcp_table.txt`. To see a change of the table, write this to that file and look at the diff.
fn rendered() -> String {
    let mut text = String::new();
    for direction in Direction::BOTH {
        write!(text, "{:<8}", direction.to_string()).unwrap();
        for state in TcpState::ALL {
            write!(text, " {state:<11}").unwrap();
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        for index in Index::ALL {
            write!(text, "{index:<8}").unwrap();
            for state in TcpState::ALL {
                write!(text, " {:<11}", transition(direction, index, state)).unwrap();
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
    let recorded = include_str!("tcp_table.txt");
    let rendered = rendered();
    assert!(rendered == recorded, "the state table changed; now it is:\n{rendered}");
}

/// The table of the catalogue in its own short words; `*` there marks what the special rules may turn to ignore.
#[test]
fn the_table_is_that_of_the_catalogue() {
    const CATALOGUE: [[(Index, &str); 5]; 2] = [
        [
            (Index::Syn, "SS SS IG IG IG IG IG SS SS S2"),
            (Index::SynAck, "IV IV SR IV IV IV IV IV IV SR"),
            (Index::Fin, "IV IV FW FW LA LA LA TW CL IV"),
            (Index::Ack, "ES IV ES ES CW CW TW TW CL IV"),
            (Index::Rst, "IV CL CL CL CL CL CL CL CL CL"),
        ],
        [
            (Index::Syn, "IV S2 IV IV IV IV IV SS IV S2"),
            (Index::SynAck, "IV SR IG IG IG IG IG IG IG SR"),
            (Index::Fin, "IV IV FW FW LA LA LA TW CL IV"),
            (Index::Ack, "IV IG SR ES CW CW TW TW CL IG"),
            (Index::Rst, "IV CL CL CL CL CL CL CL CL CL"),
        ],
    ];
    let short = |cell| match cell {
        Cell::Ignore => "IG",
        Cell::Invalid => "IV",
        Cell::To(TcpState::None) => "NO",
        Cell::To(TcpState::SynSent) => "SS",
        Cell::To(TcpState::SynRecv) => "SR",
        Cell::To(TcpState::Established) => "ES",
        Cell::To(TcpState::FinWait) => "FW",
        Cell::To(TcpState::CloseWait) => "CW",
        Cell::To(TcpState::LastAck) => "LA",
        Cell::To(TcpState::TimeWait) => "TW",
        Cell::To(TcpState::Close) => "CL",
        Cell::To(TcpState::SynSent2) => "S2",
    };
    for (direction, rows) in Direction::BOTH.into_iter().zip(CATALOGUE) {
        for (index, row) in rows {
            let cells: Vec<&str> = TcpState::ALL.into_iter().map(|s| short(transition(direction, index, s))).collect();
            assert_eq!(cells.join(" "), row, "{index} in {direction} direction");
        }
        assert_eq!(TRANSITIONS[direction.index()][Index::None as usize], [Cell::Invalid; 10]);
    }
}

#[test]
fn numbers_and_names_are_the_kernels() {
    let names = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
        "SYN_SENT2",
    ];
    for (number, name) in (0..).zip(names) {
        let state = TcpState::from_number(number).unwrap();
        assert_eq!((state.number(), state.name()), (number, name));
    }
    assert_eq!(TcpState::from_number(10), None);
}
