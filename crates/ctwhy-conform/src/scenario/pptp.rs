//! The helper of PPTP: a control connection tells which GRE belongs to a call (RFC 2637).

use super::{Builder, Family, Scenario};
use crate::compose::{Body, Ip, Tcp, flag};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "pptp-call",
        families: &[Family::V4],
        title: "The GRE of a call is RELATED to its control connection",
        shows: "Both sides' call ids are in the control connection, and a GRE packet carries one of them. With the other one \
                the two directions are one flow. What has another id is NEW. When the server ends the call its flow is \
                deleted.",
        ids: &["GRE-02", "TUPLE-04", "EXP-06"],
        compose: |b| {
            b.tables(&[("raw", &[PPTP])]);
            call(b, 7);
        },
    },
    Scenario {
        name: "pptp-call-masquerade",
        families: &[Family::V4],
        title: "A call through masquerade",
        shows: "The client's call id becomes the port of its control connection, in the control messages and in the GRE that \
                the server sends.",
        ids: &["GRE-02", "TUPLE-04", "NAT-PORT-01", "NAT-SET-07"],
        compose: |b| {
            b.masquerades = true;
            b.tables(&[("raw", &[PPTP]), ("nat", &[super::MASQUERADE])]);
            call(b, 40_000);
        },
    },
];

const PPTP: &str = "-A PREROUTING -p tcp -m tcp --dport 1723 -j CT --helper pptp";

/// Control messages, by number and length behind their header.
const START_REQUEST: (u16, usize) = (1, 144);
const START_REPLY: (u16, usize) = (2, 144);
const OUT_CALL_REQUEST: (u16, usize) = (7, 156);
const OUT_CALL_REPLY: (u16, usize) = (8, 20);
const DISCONNECT_NOTIFY: (u16, usize) = (13, 136);

/// The client, whose call id is 7 and `seen` for the server, calls the server, whose call id is 9.
fn call(b: &mut Builder, seen: u16) {
    let (client, server) = (b.inside(), Ip::between(b.server, b.seen_as()));
    let (mut said, mut answered) = (1000, 5000);
    let mut segment = |b: &mut Builder, from_client: bool, flags: u8, payload: Vec<u8>| {
        let length = payload.len() as u32 + u32::from(flags & flag::SYN != 0);
        let ack = if flags & flag::ACK == 0 { 0 } else { u32::MAX };
        let tcp = Tcp { flags, payload, ..Tcp::syn() };
        if from_client {
            let tcp = Tcp { sport: 40_000, dport: 1723, seq: said, ack: ack & answered, ..tcp };
            b.lan(client.packet(tcp.body(&client)));
            said += length;
        } else {
            let tcp = Tcp { sport: 1723, dport: 40_000, seq: answered, ack: ack & said, ..tcp };
            b.wan(server.packet(tcp.body(&server)));
            answered += length;
        }
    };
    segment(b, true, flag::SYN, Vec::new());
    segment(b, false, flag::SYN | flag::ACK, Vec::new());
    segment(b, true, flag::ACK, Vec::new());
    let data = flag::ACK | flag::PSH;
    segment(b, true, data, message(START_REQUEST, &[]));
    segment(b, false, data, message(START_REPLY, &[(2, 1 << 8)]));
    segment(b, true, data, message(OUT_CALL_REQUEST, &[(0, 7)]));
    segment(b, false, data, message(OUT_CALL_REPLY, &[(0, 9), (2, seen), (4, 1 << 8)]));
    for (lan, key) in [(true, 8), (true, 9), (false, seen), (true, 9)] {
        if lan {
            b.lan(client.packet(gre(key)));
        } else {
            b.wan(server.packet(gre(key)));
        }
    }
    segment(b, false, data, message(DISCONNECT_NOTIFY, &[(0, 9)]));
}

/// A control message with 16-bit numbers at places behind its header.
fn message((number, length): (u16, usize), fields: &[(usize, u16)]) -> Vec<u8> {
    let mut bytes = ((12 + length) as u16).to_be_bytes().to_vec();
    bytes.extend([0, 1, 0x1a, 0x2b, 0x3c, 0x4d]);
    bytes.extend(number.to_be_bytes());
    bytes.resize(12 + length, 0);
    for (at, value) in fields {
        if let Some(field) = bytes.get_mut(12 + at..14 + at) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }
    bytes
}

/// PPP in GRE version 1 for the call of that id.
fn gre(key: u16) -> Body {
    let [high, low] = key.to_be_bytes();
    Body::new(47, [0x30, 0x81, 0x88, 0x0b, 0, 4, high, low, 0, 0, 0, 1, 0xff, 3, 0xc0, 0x21])
}
