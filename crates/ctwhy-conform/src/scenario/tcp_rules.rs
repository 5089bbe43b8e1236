//! The special rules of the TCP tracker (catalogue part E): what is ignored, resets, opening again.

use super::tcp::{ACK, FIN, RST, SYN, SYNACK, segment};
use super::{Builder, Family, Scenario};
use crate::compose::Ip;

/// Initial sequence numbers, and the first byte of data behind them.
const CLIENT: u32 = 100_000;
const SERVER: u32 = 500_000;
const C1: u32 = CLIENT + 1;
const S1: u32 = SERVER + 1;
/// The window that both announce.
const WINDOW: u32 = 29_200;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "tcp-ignored",
        families: &Family::BOTH,
        title: "Segments that are ignored",
        shows: "A SYN in an open connection, a SYN/ACK that comes again, an ACK that answers a SYN: accepted, logged, and \
                nothing changes, but that the entry has seen a reply.",
        ids: &["TCP-IGN-01", "TCP-SYN-03", "ACCT-03"],
        compose: |b| {
            let open = Conn(50_000);
            open.established(b);
            open.client(b, CLIENT, 0, SYN);
            open.server(b, SERVER, C1, SYNACK);
            let half_open = Conn(50_001);
            half_open.client(b, CLIENT, 0, SYN);
            half_open.server(b, S1, C1, ACK);
            let answered = Conn(50_002);
            answered.client(b, CLIENT, 0, SYN);
            answered.server(b, SERVER, C1, SYNACK);
            answered.server(b, SERVER, C1, SYNACK);
            answered.server(b, SERVER + 9, C1, SYNACK);
        },
    },
    Scenario {
        name: "tcp-synack-not-refreshing",
        families: &Family::BOTH,
        title: "A SYN/ACK that comes again does not refresh",
        shows: "More than two seconds later it is ignored, and the timeout of SYN_RECV goes on.",
        ids: &["TCP-SYN-03", "TIMEOUT-03"],
        compose: |b| {
            let answered = Conn(50_000);
            answered.client(b, CLIENT, 0, SYN);
            answered.server(b, SERVER, C1, SYNACK);
            b.wait_ms(2_500);
            answered.server(b, SERVER, C1, SYNACK);
        },
    },
    Scenario {
        name: "tcp-resync",
        families: &Family::BOTH,
        title: "A connection begins anew, and conntrack missed the end of the old one",
        shows: "The SYN is ignored; the SYN/ACK that answers it brings the entry back in step: SYN_RECV, with the new \
                numbers. One that answers something else does not.",
        ids: &["TCP-IGN-02"],
        compose: |b| {
            let open = Conn(50_000);
            open.established(b);
            open.client(b, 7_000_000, 0, SYN);
            open.server(b, 8_000_000, 7_000_002, SYNACK);
            open.client(b, 7_000_000, 0, SYN);
            open.server(b, 8_000_000, 7_000_001, SYNACK);
            open.client(b, 7_000_001, 8_000_001, ACK);
            open.client(b, C1, S1, ACK);
            let left_open = Conn(50_001);
            left_open.established(b);
            left_open.client(b, 7_000_000, 0, SYN);
            left_open.server(b, 8_000_000, 7_000_001, SYNACK);
        },
    },
    Scenario {
        name: "tcp-resync-high-numbers",
        families: &Family::BOTH,
        title: "A connection begins anew with a number near the highest",
        shows: "What the client may send is counted from the SYN that was ignored: far beyond the server's window is INVALID.",
        ids: &["TCP-IGN-02"],
        compose: |b| {
            let open = Conn(50_000);
            open.established(b);
            open.client(b, 4_000_000_000, 0, SYN);
            open.server(b, 8_000_000, 4_000_000_001, SYNACK);
            open.client_data(b, 4_000_000_001 + 3 * WINDOW, 8_000_001, 1);
            open.client(b, 4_000_000_001, 8_000_001, ACK);
        },
    },
    Scenario {
        name: "tcp-resync-in-handshake",
        families: &Family::BOTH,
        title: "SYN and SYN/ACK are sent again while the handshake goes on",
        shows: "The SYN is ignored in SYN_RECV; the SYN/ACK behind it brings the entry in step though it was: the same \
                state is told a second time.",
        ids: &["TCP-IGN-02", "OBS-07"],
        compose: |b| {
            let open = Conn(50_000);
            open.client(b, CLIENT, 0, SYN);
            open.server(b, SERVER, C1, SYNACK);
            open.client(b, CLIENT, 0, SYN);
            open.server(b, SERVER, C1, SYNACK);
            open.client(b, C1, S1, ACK);
        },
    },
    Scenario {
        name: "tcp-challenge",
        families: &Family::BOTH,
        title: "A client that lost its connection begins again",
        shows: "The SYN is ignored and the server's challenge ACK an ordinary one; the reset it provokes has the number that \
                is expected and closes the entry, and the next SYN begins a new one.",
        ids: &["TCP-CHALL-01", "TCP-REOPEN-01"],
        compose: |b| {
            let open = Conn(50_000);
            open.established(b);
            open.client(b, 7_000_000, 0, SYN);
            open.server(b, S1, C1, ACK);
            open.client(b, C1, 0, RST);
            open.client(b, 7_000_000, 0, SYN);
        },
    },
    Scenario {
        name: "tcp-challenge-last-ack",
        families: &Family::BOTH,
        title: "A challenge while the last ACK is awaited",
        shows: "Behind an ignored SYN the ACK of the other side is a challenge and not the last ACK, once: the state stays \
                LAST_ACK. Without the SYN it is TIME_WAIT.",
        ids: &["TCP-CHALL-02"],
        compose: |b| {
            for (port, acks) in [(50_000, 1), (50_001, 2)] {
                let ending = Conn(port);
                ending.last_ack(b);
                ending.client(b, 7_000_000, 0, SYN);
                for _ in 0..acks {
                    ending.server(b, S1 + 1, C1 + 1, ACK);
                }
            }
            let ending = Conn(50_002);
            ending.last_ack(b);
            ending.client(b, C1 + 1, S1 + 1, ACK);
        },
    },
    Scenario {
        name: "tcp-challenge-syn-sent",
        families: &Family::BOTH,
        title: "The server answers a SYN out of an older connection",
        shows: "Its ACK is ignored and remembered. The reset that it provokes has that number and closes the entry without a \
                window; the next SYN begins a new one and the handshake completes.",
        ids: &["TCP-CHALL-03", "TCP-REOPEN-01"],
        compose: |b| {
            let stale = Conn(50_000);
            stale.client(b, CLIENT, 0, SYN);
            stale.server(b, 3, 777_777, ACK);
            stale.client(b, 777_778, 0, RST);
            stale.client(b, 777_777, 0, RST);
            stale.client(b, CLIENT, 0, SYN);
            stale.server(b, SERVER, C1, SYNACK);
            stale.client(b, C1, S1, ACK);
        },
    },
    Scenario {
        name: "tcp-reset-closing",
        families: &Family::BOTH,
        title: "A reset of what is closing",
        shows: "Once either side has sent a FIN any reset will do, whatever its number.",
        ids: &["TCP-RST-01"],
        compose: |b| {
            let far = 3_000_000_000;
            let fin_wait = Conn(50_000);
            fin_wait.established(b);
            fin_wait.client(b, C1, S1, FIN);
            fin_wait.server(b, far, 0, RST);
            let last_ack = Conn(50_001);
            last_ack.last_ack(b);
            last_ack.client(b, far, 0, RST);
            let time_wait = Conn(50_002);
            time_wait.time_wait(b);
            time_wait.server(b, far, 0, RST);
            time_wait.client(b, far, 0, RST);
        },
    },
    Scenario {
        name: "tcp-reset-exact",
        families: &Family::BOTH,
        title: "Which resets end an open connection",
        shows: "The number must be what the receiver expects next: below it INVALID, exactly it CLOSE. In the window above it \
                the connection stays ESTABLISHED, for ten seconds unless it goes on. A reset right behind data is believed.",
        ids: &["TCP-RST-02", "TCP-RST-04"],
        compose: |b| {
            for (port, seq) in [(50_000, S1 - 1), (50_001, S1), (50_002, S1 + 1), (50_003, S1 + 1)] {
                let open = Conn(port);
                open.established(b);
                open.server(b, seq, 0, RST);
                if port == 50_003 {
                    open.client(b, C1, S1, ACK);
                }
            }
            let train = Conn(50_004);
            train.established(b);
            train.server_data(b, S1, C1, 19);
            train.server(b, S1 + 19, 0, RST);
        },
    },
    Scenario {
        name: "tcp-reset-below-ack-tolerated",
        families: &Family::BOTH,
        title: "Old resets with nf_conntrack_tcp_ignore_invalid_rst",
        shows: "With the sysctl at 1 a reset below what was acknowledged is not INVALID, and closes nothing either.",
        ids: &["TCP-RST-02"],
        compose: |b| {
            b.sysctl("net.netfilter.nf_conntrack_tcp_ignore_invalid_rst", "1");
            let open = Conn(50_000);
            open.established(b);
            open.server(b, S1 - 1, 0, RST);
        },
    },
    Scenario {
        name: "tcp-reset-half-open",
        families: &Family::BOTH,
        title: "Resets before the handshake is over",
        shows: "Where nothing is ESTABLISHED any number in the window closes, below it INVALID; a number of 0 goes to the \
                window check.",
        ids: &["TCP-RST-02"],
        compose: |b| {
            for (port, of_client, seq) in
                [(50_000, true, C1 + 5), (50_001, true, C1 - 1), (50_002, true, 0), (50_003, false, S1)]
            {
                let answered = Conn(port);
                answered.client(b, CLIENT, 0, SYN);
                answered.server(b, SERVER, C1, SYNACK);
                if of_client {
                    answered.client(b, seq, 0, RST);
                } else {
                    answered.server(b, seq, 0, RST);
                }
            }
        },
    },
    Scenario {
        name: "tcp-reset-answers-ignored",
        families: &Family::BOTH,
        title: "A reset that answers an ignored segment",
        shows: "A reset that acknowledges the ignored SYN, or an ignored ACK, closes without a window check. One that \
                acknowledges something else is INVALID.",
        ids: &["TCP-RST-03"],
        compose: |b| {
            for (port, acked) in [(50_000, 9_000_002), (50_001, 9_000_001)] {
                let open = Conn(port);
                open.established(b);
                open.client(b, 9_000_000, 0, SYN);
                open.server(b, 0, acked, RST | ACK);
            }
            let half_open = Conn(50_002);
            half_open.client(b, CLIENT, 0, SYN);
            half_open.server(b, 444, 555, ACK);
            half_open.client(b, 0x7000_0000, 444, RST | ACK);
        },
    },
    Scenario {
        name: "tcp-reset-unanswered",
        families: &Family::BOTH,
        title: "Resets before any reply",
        shows: "A reset of either side ends the entry at once, that of a connection that was picked up, too. It must \
                acknowledge the SYN roughly: more is INVALID, far less is ignored.",
        ids: &["TCP-RST-05", "TCP-RST-06", "ACCT-04"],
        compose: |b| {
            for (port, acked) in [
                (50_000, C1),
                (50_001, C1 + 2),
                (50_002, C1 + 1),
                (50_003, C1 - 66_000),
                (50_004, C1 - 66_001),
                (50_005, 0),
            ] {
                let asked = Conn(port);
                asked.client(b, CLIENT, 0, SYN);
                asked.server(b, 0, acked, RST | ACK);
            }
            let taken_back = Conn(50_006);
            taken_back.client(b, CLIENT, 0, SYN);
            taken_back.client(b, C1, 0, RST);
            let without_ack = Conn(50_007);
            without_ack.client(b, CLIENT, 0, SYN);
            without_ack.server(b, 0x1234_5678, 0, RST);
            let picked_up = Conn(50_008);
            picked_up.client(b, 7, 9, ACK);
            picked_up.server(b, 9, 0, RST);
        },
    },
    Scenario {
        name: "tcp-reset-beyond-window",
        families: &Family::BOTH,
        title: "A reset beyond the window",
        shows: "A little beyond it is ignored, far beyond it INVALID.",
        ids: &["TCP-RST-07"],
        compose: |b| {
            let open = Conn(50_000);
            open.established(b);
            open.server(b, S1 + WINDOW + 1, 0, RST);
            open.server(b, S1 + 3 * WINDOW, 0, RST);
        },
    },
    Scenario {
        name: "tcp-reopen-who-may",
        families: &Family::BOTH,
        title: "Who may open a closed connection again",
        shows: "After FINs either side, and a server's SYN makes an entry the other way round. After a reset only the side \
                that sent it, and only at once; the other side's SYN is ignored.",
        ids: &["TCP-REOPEN-01"],
        compose: |b| {
            let by_server = Conn(50_000);
            by_server.time_wait(b);
            by_server.server(b, 9, 0, SYN);
            for (port, of_client) in [(50_001, true), (50_002, false)] {
                let reset = Conn(port);
                reset.established(b);
                if of_client {
                    reset.client(b, C1, 0, RST);
                } else {
                    reset.server(b, S1, 0, RST);
                }
                reset.client(b, 9_000_000, 0, SYN);
            }
            let too_late = Conn(50_003);
            too_late.established(b);
            too_late.client(b, C1, 0, RST);
            too_late.server(b, S1, C1, ACK);
            too_late.client(b, 9_000_000, 0, SYN);
        },
    },
    Scenario {
        name: "tcp-synack-acknowledges",
        families: &Family::BOTH,
        title: "What a SYN/ACK may acknowledge",
        shows: "One more than was sent is INVALID; up to 66000 less is taken for an answer; still less is ignored.",
        ids: &["TCP-SYN-02"],
        compose: |b| {
            for (port, acked) in [(50_000, C1 + 1), (50_001, C1), (50_002, C1 - 66_000), (50_003, C1 - 66_001)] {
                let asked = Conn(port);
                asked.client(b, CLIENT, 0, SYN);
                asked.server(b, SERVER, acked, SYNACK);
            }
        },
    },
    Scenario {
        name: "tcp-bad-checksum-unverified",
        families: &Family::BOTH,
        title: "A wrong TCP checksum that nobody verifies",
        shows: "With nf_conntrack_checksum=0 the SYN is NEW.",
        ids: &["TCP-NEW-01"],
        compose: |b| {
            b.sysctl("net.netfilter.nf_conntrack_checksum", "0");
            b.sends(|ip: &Ip| segment(50_000, 80, CLIENT, 0, SYN, 0).body(ip).with(16, 0xee));
        },
    },
    Scenario {
        name: "tcp-synack-refused",
        families: &Family::BOTH,
        title: "A SYN/ACK behind one that was refused",
        shows: "Its sender is looked at afresh, what it acknowledges is checked all the same. A SYN in its place needs no check.",
        ids: &["TCP-SYN-02", "TCP-SIM-01"],
        compose: |b| {
            for (port, flags, acked) in [(50_000, SYNACK, C1 + 2), (50_001, SYNACK, C1), (50_002, SYN, 0)] {
                let asked = Conn(port);
                asked.client(b, CLIENT, 0, SYN);
                asked.server(b, SERVER, C1 + 1, SYNACK);
                asked.server(b, SERVER + 10, acked, flags);
                asked.client(b, C1, SERVER + 11, ACK);
            }
        },
    },
    Scenario {
        name: "tcp-flags",
        families: &Family::BOTH,
        title: "Every combination of flags",
        shows: "All 64 combinations of FIN, SYN, RST, PSH, ACK and URG as first packets. SYN and ACK begin a connection, with \
                PSH and URG where they may have it; SYN/ACK, FIN/ACK and RST begin none; the others nobody sends.",
        ids: &["TCP-NEW-04", "CORE-STATE-01"],
        compose: |b| {
            for flags in 0..64 {
                let open = Conn(50_000 + u16::from(flags));
                open.client(b, C1, S1, flags);
            }
        },
    },
];

/// A connection of the client from a port to the server's port 80.
pub(super) struct Conn(pub(super) u16);

impl Conn {
    pub(super) fn client(&self, b: &mut Builder, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
        let port = self.0;
        b.sends(|ip: &Ip| segment(port, 80, seq, ack, flags, 0).body(ip))
    }

    pub(super) fn server(&self, b: &mut Builder, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
        let port = self.0;
        b.answers(|ip: &Ip| segment(80, port, seq, ack, flags, 0).body(ip))
    }

    pub(super) fn client_data(&self, b: &mut Builder, seq: u32, ack: u32, length: usize) -> Vec<u8> {
        let port = self.0;
        b.sends(|ip: &Ip| segment(port, 80, seq, ack, ACK, length).body(ip))
    }

    pub(super) fn server_data(&self, b: &mut Builder, seq: u32, ack: u32, length: usize) -> Vec<u8> {
        let port = self.0;
        b.answers(|ip: &Ip| segment(80, port, seq, ack, ACK, length).body(ip))
    }

    pub(super) fn established(&self, b: &mut Builder) {
        self.client(b, CLIENT, 0, SYN);
        self.server(b, SERVER, C1, SYNACK);
        self.client(b, C1, S1, ACK);
    }

    fn last_ack(&self, b: &mut Builder) {
        self.established(b);
        self.client(b, C1, S1, FIN);
        self.server(b, S1, C1 + 1, FIN);
    }

    fn time_wait(&self, b: &mut Builder) {
        self.last_ack(b);
        self.client(b, C1 + 1, S1 + 1, ACK);
    }
}
