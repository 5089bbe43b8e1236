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
            Control::begin(b, 7).call();
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
            Control::begin(b, 40_000).call();
        },
    },
    Scenario {
        name: "pptp-call-waiting",
        families: &[Family::V4],
        title: "A call without packets is expected in both directions",
        shows: "Two expectations stand beside the table, one for each side's call id.",
        ids: &["GRE-02", "EXP-04"],
        compose: |b| {
            b.tables(&[("raw", &[PPTP])]);
            Control::begin(b, 7);
        },
    },
    Scenario {
        name: "pptp-call-waiting-masquerade",
        families: &[Family::V4],
        title: "What a call through masquerade expects",
        shows: "The server's GRE is expected at the box and with the id that the server knows, the client's as the client sends \
                it.",
        ids: &["GRE-02", "EXP-04", "EXP-08"],
        compose: |b| {
            b.masquerades = true;
            b.tables(&[("raw", &[PPTP]), ("nat", &[super::MASQUERADE])]);
            Control::begin(b, 40_000);
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

/// A control connection from port 40000.
struct Control<'a> {
    b: &'a mut Builder,
    /// What each side says next.
    client: u32,
    server: u32,
    /// The client's call id for the server.
    seen: u16,
}

impl<'a> Control<'a> {
    /// The client, whose call id is 7 and `seen` for the server, calls the server, whose call id is 9.
    fn begin(b: &'a mut Builder, seen: u16) -> Control<'a> {
        let mut control = Control { b, client: 1000, server: 5000, seen };
        control.client(flag::SYN, Vec::new());
        control.server(flag::SYN | flag::ACK, Vec::new());
        control.client(flag::ACK, Vec::new());
        control.client(DATA, message(START_REQUEST, &[]));
        control.server(DATA, message(START_REPLY, &[(2, 1 << 8)]));
        control.client(DATA, message(OUT_CALL_REQUEST, &[(0, 7)]));
        control.server(DATA, message(OUT_CALL_REPLY, &[(0, 9), (2, seen), (4, 1 << 8)]));
        control
    }

    /// GRE comes both ways, and the server ends the call.
    fn call(&mut self) {
        for (lan, key) in [(true, 8), (true, 9), (false, self.seen), (true, 9)] {
            if lan {
                self.b.lan(self.b.inside().packet(gre(key)));
            } else {
                self.b.wan(Ip::between(self.b.server, self.b.seen_as()).packet(gre(key)));
            }
        }
        self.server(DATA, message(DISCONNECT_NOTIFY, &[(0, 9)]));
    }

    fn client(&mut self, flags: u8, payload: Vec<u8>) {
        let (ip, length) = (self.b.inside(), room(flags, &payload));
        let (seq, ack) = (self.client, if flags & flag::ACK == 0 { 0 } else { self.server });
        let segment = Tcp { sport: 40_000, dport: 1723, seq, ack, flags, payload, ..Tcp::syn() };
        self.b.lan(ip.packet(segment.body(&ip)));
        self.client += length;
    }

    fn server(&mut self, flags: u8, payload: Vec<u8>) {
        let (ip, length) = (Ip::between(self.b.server, self.b.seen_as()), room(flags, &payload));
        let segment =
            Tcp { sport: 1723, dport: 40_000, seq: self.server, ack: self.client, flags, payload, ..Tcp::syn() };
        self.b.wan(ip.packet(segment.body(&ip)));
        self.server += length;
    }
}

const DATA: u8 = flag::ACK | flag::PSH;

/// How many numbers a segment takes.
fn room(flags: u8, payload: &[u8]) -> u32 {
    payload.len() as u32 + u32::from(flags & flag::SYN != 0)
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
