//! TCP connections (catalogue part E), as far as a case of a few packets can show them.

use super::{Builder, Family, Scenario};
use crate::compose::{Ip, Tcp, flag};

pub(super) const SYN: u8 = flag::SYN;
pub(super) const SYNACK: u8 = flag::SYN | flag::ACK;
pub(super) const ACK: u8 = flag::ACK;
pub(super) const FIN: u8 = flag::FIN | flag::ACK;
pub(super) const RST: u8 = flag::RST;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "tcp-connection-masquerade",
        families: &Family::BOTH,
        title: "A connection from SYN to TIME_WAIT",
        shows: "Handshake, data both ways and both FINs, through masquerade. ASSURED from the third packet on; TIME_WAIT at \
                the end.",
        ids: &["NAT-TCP-01"],
        compose: |b| {
            handshake(b.masquerade());
            data(b);
            b.sends(client(1_101, 5_201, FIN, 0));
            b.answers(server(5_201, 1_102, ACK, 0));
            b.answers(server(5_201, 1_102, FIN, 0));
            b.sends(client(1_102, 5_202, ACK, 0));
        },
    },
    Scenario {
        name: "tcp-established",
        families: &Family::BOTH,
        title: "An open connection",
        shows: "With data that is acknowledged the timeout is five days; with data that is not, five minutes.",
        ids: &["TIMEOUT-02"],
        compose: |b| {
            handshake(b);
            data(b);
            let other =
                |port, seq, ack, flags, payload| move |ip: &Ip| segment(port, 80, seq, ack, flags, payload).body(ip);
            let back = |port, seq, ack, flags| move |ip: &Ip| segment(80, port, seq, ack, flags, 0).body(ip);
            b.sends(other(40_001, 1_000, 0, SYN, 0));
            b.answers(back(40_001, 5_000, 1_001, SYNACK));
            b.sends(other(40_001, 1_001, 5_001, ACK, 0));
            b.sends(other(40_001, 1_001, 5_001, ACK, 500));
        },
    },
    Scenario {
        name: "tcp-reset",
        families: &Family::BOTH,
        title: "Connections are reset",
        shows: "A reset answers a SYN and ends the entry; an exact reset closes an open connection; one below what is \
                acknowledged is INVALID.",
        ids: &["TCP-RST-02", "TCP-RST-05"],
        compose: |b| {
            b.sends(client(1_000, 0, SYN, 0));
            b.answers(server(0, 1_001, RST | ACK, 0));
            handshake(b);
            data(b);
            b.answers(server(4_000, 0, RST, 0));
            b.answers(server(5_201, 0, RST, 0));
        },
    },
    Scenario {
        name: "tcp-out-of-window",
        families: &Family::BOTH,
        title: "Segments that are out of window",
        shows: "Beyond what the receiver allows, and acknowledging what was never sent: INVALID. Old data again: accepted.",
        ids: &["NAT-TCP-01"],
        compose: |b| {
            handshake(b);
            data(b);
            b.sends(client(900_000, 5_201, ACK, 10));
            b.sends(client(1_101, 900_000, ACK, 10));
            b.sends(client(1_001, 5_201, ACK, 100));
            b.answers(server(5_201, 2_000, ACK, 0));
            // Not even the right kind of segment.
            b.sends(client(1_101, 5_201, SYNACK, 0));
            b.answers(server(5_201, 0, SYN, 0));
        },
    },
    Scenario {
        name: "tcp-liberal",
        families: &Family::BOTH,
        title: "Segments that are out of window, with tcp_be_liberal",
        shows: "With nf_conntrack_tcp_be_liberal=1 they are accepted.",
        ids: &["NAT-TCP-01"],
        compose: |b| {
            handshake(b.sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", "1"));
            data(b);
            b.sends(client(900_000, 5_201, ACK, 10));
            b.sends(client(1_101, 900_000, ACK, 10));
        },
    },
    Scenario {
        name: "tcp-first-packets",
        families: &Family::BOTH,
        title: "Which segments begin a connection",
        shows: "A SYN, or an ACK in the middle of a connection that conntrack has not seen. SYN/ACK, FIN and RST do not.",
        ids: &["TCP-NEW-01", "TCP-NEW-02", "TCP-NEW-04"],
        compose: first_packets,
    },
    Scenario {
        name: "tcp-first-packets-strict",
        families: &Family::BOTH,
        title: "Which segments begin a connection, without tcp_loose",
        shows: "With nf_conntrack_tcp_loose=0 a SYN, and nothing else.",
        ids: &["TCP-NEW-03"],
        compose: |b| first_packets(b.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")),
    },
    Scenario {
        name: "tcp-pickup",
        families: &Family::BOTH,
        title: "A connection is picked up in the middle",
        shows: "An ACK without a handshake is NEW and the entry ESTABLISHED. It becomes ASSURED after a reply and one more \
                segment; windows are not enforced.",
        ids: &["TCP-NEW-02", "TCP-NEW-05"],
        compose: |b| {
            b.sends(client(1_001, 5_001, ACK, 100));
            b.answers(server(5_001, 1_101, ACK, 200));
            b.sends(client(900_000, 5_201, ACK, 0));
        },
    },
    Scenario {
        name: "tcp-checks",
        families: &Family::BOTH,
        title: "What a TCP header must be like",
        shows: "Less than four bytes have no ports and less than 20 no header; a data offset below five or beyond the segment, \
                a wrong checksum, and flags that nobody sends together are INVALID.",
        ids: &["TUPLE-02"],
        compose: checks,
    },
    Scenario {
        name: "tcp-retransmissions",
        families: &Family::BOTH,
        title: "A SYN again and again",
        shows: "Retransmitted SYNs are NEW and do not refresh the timeout. A SYN/ACK that acknowledges what was never sent is \
                INVALID.",
        ids: &["TCP-SYN-01", "TCP-SYN-02", "NAT-TCP-03"],
        compose: |b| {
            b.sends(client(1_000, 0, SYN, 0));
            b.wait_ms(2_500).sends(client(1_000, 0, SYN, 0));
            b.answers(server(5_000, 2_000, SYNACK, 0));
        },
    },
    Scenario {
        name: "tcp-reopened",
        families: &Family::BOTH,
        title: "A closed connection is opened again",
        shows: "In TIME_WAIT a SYN of the client deletes the old entry and begins a new one.",
        ids: &["TCP-REOPEN-01"],
        compose: |b| {
            handshake(b);
            b.sends(client(1_001, 5_001, FIN, 0));
            b.answers(server(5_001, 1_002, FIN, 0));
            b.sends(client(1_002, 5_002, ACK, 0));
            b.sends(client(70_000, 0, SYN, 0));
        },
    },
    Scenario {
        name: "tcp-simultaneous-open",
        families: &Family::BOTH,
        title: "Both sides open at the same time",
        shows: "SYNs cross: SYN_SENT2, then SYN_RECV, then ESTABLISHED.",
        ids: &["TCP-SIM-01", "TCP-SIM-02"],
        compose: |b| {
            b.sends(client(1_000, 0, SYN, 0));
            b.answers(server(5_000, 0, SYN, 0));
            b.sends(client(1_000, 5_001, SYNACK, 0));
            b.answers(server(5_000, 1_001, SYNACK, 0));
            b.answers(server(5_001, 1_001, ACK, 0));
        },
    },
];

pub(super) fn segment(sport: u16, dport: u16, seq: u32, ack: u32, flags: u8, payload: usize) -> Tcp {
    Tcp { sport, dport, seq, ack, flags, window: 29_200, options: Vec::new(), payload: vec![b'.'; payload] }
}

/// A segment of the client, from port 40000 to 80.
fn client(seq: u32, ack: u32, flags: u8, payload: usize) -> impl Fn(&Ip) -> crate::compose::Body {
    move |ip| segment(40_000, 80, seq, ack, flags, payload).body(ip)
}

/// A segment of the server.
fn server(seq: u32, ack: u32, flags: u8, payload: usize) -> impl Fn(&Ip) -> crate::compose::Body {
    move |ip| segment(80, 40_000, seq, ack, flags, payload).body(ip)
}

fn handshake(b: &mut Builder) {
    b.sends(client(1_000, 0, SYN, 0));
    b.answers(server(5_000, 1_001, SYNACK, 0));
    b.sends(client(1_001, 5_001, ACK, 0));
}

/// 100 bytes there and 200 back, all acknowledged.
fn data(b: &mut Builder) {
    b.sends(client(1_001, 5_001, ACK | flag::PSH, 100));
    b.answers(server(5_001, 1_101, ACK | flag::PSH, 200));
    b.sends(client(1_101, 5_201, ACK, 0));
}

fn first_packets(b: &mut Builder) {
    for (port, flags) in (50_000..).zip([SYN, SYNACK, FIN, RST, RST | ACK, ACK, ACK | flag::PSH, ACK | flag::URG]) {
        b.sends(|ip| segment(port, 80, 1_000, 5_000, flags, 0).body(ip));
    }
}

fn checks(b: &mut Builder) {
    let syn = |port| move |ip: &Ip| segment(port, 80, 1_000, 0, SYN, 4).body(ip);
    for (port, length) in [(50_000, 3), (50_001, 4), (50_002, 19)] {
        b.sends(|ip| syn(port)(ip).cut(length));
    }
    b.sends(|ip| syn(50_003)(ip).with(12, 0x40));
    b.sends(|ip| syn(50_004)(ip).with(12, 0x70));
    b.sends(|ip| syn(50_005)(ip).with(21, b'!'));
    for (port, flags) in (50_010..).zip([0, flag::FIN, SYN | flag::FIN, SYN | RST, flag::URG, RST | FIN]) {
        b.sends(|ip| segment(port, 80, 1_000, 0, flags, 0).body(ip));
    }
    b.sends(syn(50_020));
}
