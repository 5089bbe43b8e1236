//! TCP windows and timeouts (catalogue part E), bound by bound.

use super::tcp::{ACK, FIN, SYN, SYNACK, segment};
use super::tcp_rules::Conn;
use super::{Family, Scenario};
use crate::compose::{Ip, Tcp};

const C1: u32 = 100_001;
const S1: u32 = 500_001;
const WINDOW: u32 = 29_200;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "tcp-window-bounds",
        families: &Family::BOTH,
        title: "The four bounds of the window",
        shows: "A segment may begin at the upper edge; one byte beyond is ignored, and beyond the receiver's window INVALID. \
                What was never sent cannot be acknowledged. Data below the lower edge, and an acknowledgement more than \
                66000 below, are ignored.",
        ids: &["TCP-IGN-01", "CORE-STATE-01"],
        compose: |b| {
            for (port, seq) in [(50_000, C1 + WINDOW), (50_001, C1 + WINDOW + 1), (50_002, C1 + 3 * WINDOW)] {
                let open = Conn(port);
                open.established(b);
                open.client_data(b, seq, S1, 1);
            }
            for (port, acked) in [(50_003, S1), (50_004, S1 + 1), (50_005, S1 - 66_000), (50_006, S1 - 66_001)] {
                let open = Conn(port);
                open.established(b);
                open.client(b, C1, acked, ACK);
            }
            for (port, seq) in [(50_007, C1 - WINDOW), (50_008, C1 - WINDOW - 1)] {
                let open = Conn(port);
                open.established(b);
                open.client(b, seq, S1, ACK);
            }
        },
    },
    Scenario {
        name: "tcp-window-lowered",
        families: &Family::BOTH,
        title: "Both sides end out of window",
        shows: "The FINs of both sides are INVALID, and neither will come through; so the five days are lowered to five \
                minutes.",
        ids: &["TCP-WIN-LOWER"],
        compose: |b| {
            let open = Conn(50_000);
            open.established(b);
            open.client(b, C1 + 900_000, S1, FIN);
            open.server(b, S1 + 900_000, C1, FIN);
            let one_side = Conn(50_001);
            one_side.established(b);
            one_side.client(b, C1 + 900_000, S1, FIN);
        },
    },
    Scenario {
        name: "tcp-window-not-lowered",
        families: &Family::BOTH,
        title: "What does not lower the timeout",
        shows: "Behind a FIN out of window an ACK of the other side that is out of window, too, lowers nothing. Two FINs lower \
                neither what has less than two minutes left, nor what has less left than it would get.",
        ids: &["TCP-WIN-LOWER"],
        compose: |b| {
            for (state, seconds) in
                [("established", "200"), ("unacknowledged", "150"), ("fin_wait", "130"), ("close_wait", "110")]
            {
                b.sysctl(&format!("net.netfilter.nf_conntrack_tcp_timeout_{state}"), seconds);
            }
            let other_acknowledges = Conn(50_000);
            other_acknowledges.established(b);
            other_acknowledges.client(b, C1 + 900_000, S1, FIN);
            other_acknowledges.server(b, S1 + 900_000, C1, ACK);
            let little_left = Conn(50_001);
            little_left.established(b);
            little_left.client(b, C1, S1, FIN);
            little_left.server(b, S1 + 900_000, C1 + 1, FIN);
            let less_left = Conn(50_002);
            less_left.established(b);
            less_left.client(b, C1, S1, FIN);
            less_left.server(b, S1, C1 + 1, ACK);
            less_left.server(b, S1 + 900_000, C1 + 1, FIN);
            less_left.client(b, C1 + 900_000, S1, FIN);
        },
    },
    Scenario {
        name: "tcp-window-scaled",
        families: &Family::BOTH,
        title: "Window scaling",
        shows: "Where both SYNs offer scaling a window is shifted, and a segment that would be far beyond it is in. Where one \
                does not, neither is scaled.",
        ids: &["TCP-NEW-01"],
        compose: |b| {
            for (port, server_offers) in [(50_000, true), (50_001, false)] {
                let options = |offered: bool| if offered { vec![1, 3, 3, 7] } else { Vec::new() };
                b.sends(|ip: &Ip| Tcp { options: options(true), ..segment(port, 80, C1 - 1, 0, SYN, 0) }.body(ip));
                b.answers(|ip: &Ip| {
                    Tcp { options: options(server_offers), ..segment(80, port, S1 - 1, C1, SYNACK, 0) }.body(ip)
                });
                let open = Conn(port);
                open.client(b, C1, S1, ACK);
                open.server(b, S1, C1, ACK);
                open.client_data(b, C1 + 2 * WINDOW + 10, S1, 10);
            }
        },
    },
    Scenario {
        name: "tcp-sack",
        families: &Family::BOTH,
        title: "Selective acknowledgements",
        shows: "Where it was negotiated the highest edge counts as an acknowledgement: beyond what was sent it is INVALID. \
                Where it was not, it is not looked at.",
        ids: &["TCP-NEW-01"],
        compose: |b| {
            for (port, permitted) in [(50_000, true), (50_001, false)] {
                let options = if permitted { vec![1, 1, 4, 2] } else { Vec::new() };
                b.sends(|ip: &Ip| Tcp { options: options.clone(), ..segment(port, 80, C1 - 1, 0, SYN, 0) }.body(ip));
                b.answers(|ip: &Ip| {
                    Tcp { options: options.clone(), ..segment(80, port, S1 - 1, C1, SYNACK, 0) }.body(ip)
                });
                let open = Conn(port);
                open.client(b, C1, S1, ACK);
                open.client_data(b, C1, S1, 100);
                for (left, right) in [(C1 + 50, C1 + 100), (C1 + 200, C1 + 300)] {
                    let mut sack = vec![1, 1, 5, 10];
                    sack.extend(left.to_be_bytes());
                    sack.extend(right.to_be_bytes());
                    b.answers(|ip: &Ip| Tcp { options: sack.clone(), ..segment(80, port, S1, C1, ACK, 0) }.body(ip));
                }
            }
        },
    },
    Scenario {
        name: "tcp-timeouts-alike",
        families: &Family::BOTH,
        title: "A timeout that is no shorter than the state's",
        shows: "Then the next rule has its say: behind the same ACK three times it is that of data that is not acknowledged, \
                and behind such data that of a window of 0.",
        ids: &["TIMEOUT-02"],
        compose: |b| {
            // Of the five minutes of ESTABLISHED.
            let alike = if b.family == Family::V4 {
                ("max_retrans", "unacknowledged")
            } else {
                ("unacknowledged", "max_retrans")
            };
            for (name, seconds) in [("established", "300"), (alike.0, "300"), (alike.1, "100")] {
                b.sysctl(&format!("net.netfilter.nf_conntrack_tcp_timeout_{name}"), seconds);
            }
            let repeated = Conn(50_000);
            repeated.established(b);
            for _ in 0..4 {
                repeated.client_data(b, C1, S1, 10);
            }
            let closed = Conn(50_001);
            closed.established(b);
            closed.client_data(b, C1, S1, 10);
            b.sends(|ip: &Ip| Tcp { window: 0, ..segment(50_001, 80, C1 + 10, S1, ACK, 10) }.body(ip));
        },
    },
    Scenario {
        name: "tcp-timeouts",
        families: &Family::BOTH,
        title: "What an open connection's timeout depends on",
        shows: "Five days; five minutes with data that is not acknowledged, with the same ACK three times again, and with a \
                window of 0.",
        ids: &["TIMEOUT-02"],
        compose: |b| {
            let idle = Conn(50_000);
            idle.established(b);
            let unacknowledged = Conn(50_001);
            unacknowledged.established(b);
            unacknowledged.client_data(b, C1, S1, 10);
            let acknowledged = Conn(50_002);
            acknowledged.established(b);
            acknowledged.client_data(b, C1, S1, 10);
            acknowledged.server(b, S1, C1 + 10, ACK);
            for (port, repetitions) in [(50_003, 3), (50_004, 4)] {
                let repeated = Conn(port);
                repeated.established(b);
                for _ in 0..repetitions {
                    repeated.server(b, S1, C1, ACK);
                }
            }
            let closed_window = Conn(50_005);
            closed_window.established(b);
            b.answers(|ip: &Ip| Tcp { window: 0, ..segment(80, 50_005, S1, C1, ACK, 0) }.body(ip));
        },
    },
    Scenario {
        name: "tcp-closing",
        families: &Family::BOTH,
        title: "The states of closing connections",
        shows: "Any ACK moves a closing connection on, even one that does not acknowledge the FIN, and a FIN that comes again \
                counts as the other side's.",
        ids: &["TIMEOUT-02"],
        compose: |b| {
            let fin_wait = Conn(50_000);
            fin_wait.established(b);
            fin_wait.client(b, C1, S1, FIN);
            let close_wait = Conn(50_001);
            close_wait.established(b);
            close_wait.client(b, C1, S1, FIN);
            close_wait.server_data(b, S1, C1, 9);
            let last_ack = Conn(50_002);
            last_ack.established(b);
            last_ack.client(b, C1, S1, FIN);
            last_ack.client(b, C1, S1, FIN);
            let time_wait = Conn(50_003);
            time_wait.established(b);
            time_wait.server(b, S1, C1, FIN);
            time_wait.client(b, C1, S1 + 1, FIN);
            time_wait.server(b, S1 + 1, C1, ACK);
        },
    },
];
