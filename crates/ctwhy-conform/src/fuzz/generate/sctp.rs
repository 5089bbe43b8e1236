//! SCTP: associations that open, talk and close, by one path or two, with right tags and wrong ones.

use ctwhy_core::checksum::sctp_crc;
use ctwhy_core::conn::Protocol;
use ctwhy_core::packet::be16;
use ctwhy_core::tuple::proto;
use ctwhy_core::zone::Zone;

use super::{Hosts, Mood, Pair, dress, errors, on, tuple};
use crate::compose::Body;
use crate::fuzz::chance::Chance;
use crate::fuzz::episode::{Around, Generator};
use crate::fuzz::window::{Arrival, Port};

/// Associations that go on at the same time.
const AT_ONCE: usize = 24;
/// The tags that the sides chose, by [`Port::index`]: a packet carries that of its receiver.
const TAGS: [u32; 2] = [0x0102_0304, 0xa1a2_a3a4];

/// Chunk types.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const SACK: u8 = 3;
    pub(super) const HEARTBEAT: u8 = 4;
    pub(super) const HEARTBEAT_ACK: u8 = 5;
    pub(super) const ABORT: u8 = 6;
    pub(super) const SHUTDOWN: u8 = 7;
    pub(super) const SHUTDOWN_ACK: u8 = 8;
    pub(super) const ERROR: u8 = 9;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
    pub(super) const SHUTDOWN_COMPLETE: u8 = 14;
}
use kind::*;

const C: Port = Port::Lan;
const S: Port = Port::Wan;

/// How an association begins, before it does what it likes.
const SCRIPTS: [&[(Port, u8)]; 9] = [
    &[],
    &[(C, INIT)],
    &[(C, INIT), (S, INIT_ACK)],
    &[(C, INIT), (S, INIT_ACK), (C, COOKIE_ECHO)],
    &[(C, INIT), (S, INIT_ACK), (C, COOKIE_ECHO), (S, COOKIE_ACK), (C, DATA), (S, SACK)],
    &[
        (C, INIT),
        (S, INIT_ACK),
        (C, COOKIE_ECHO),
        (S, COOKIE_ACK),
        (C, SHUTDOWN),
        (S, SHUTDOWN_ACK),
        (C, SHUTDOWN_COMPLETE),
    ],
    &[(C, INIT), (S, INIT_ACK), (C, COOKIE_ECHO), (S, COOKIE_ACK), (S, SHUTDOWN)],
    &[(C, HEARTBEAT), (S, HEARTBEAT_ACK), (C, DATA)],
    &[(C, INIT), (S, INIT), (C, INIT_ACK), (S, INIT_ACK)],
];

struct Association {
    pair: Pair,
    ports: [u16; 2],
    script: &'static [(Port, u8)],
    left: usize,
}

/// SCTP between a few hosts.
pub(crate) struct Associations {
    hosts: Hosts,
    mood: Mood,
    open: Vec<Association>,
}

impl Associations {
    pub(crate) fn new(hosts: Hosts, mood: Mood) -> Associations {
        Associations { hosts, mood, open: Vec::new() }
    }
}

impl Generator for Associations {
    fn next(&mut self, around: &mut Around<'_>) -> Arrival {
        if around.chance.one_in(25)
            && let Some(error) = errors::packet(self.hosts, self.mood, around)
        {
            return error;
        }
        while self.open.len() < AT_ONCE {
            let chance = &mut *around.chance;
            let script = chance.pick(&SCRIPTS);
            self.open.push(Association {
                pair: Pair::any(self.hosts, chance),
                ports: [4000 + chance.below(24) as u16, chance.pick(&[5000, 36_412, 2905])],
                script,
                left: script.len() + 2 + chance.below(10),
            });
        }
        let at = around.chance.below(self.open.len());
        let Some(association) = self.open.get_mut(at) else { return on(C, Vec::new()) };
        let arrival = association.packet(self.mood, around);
        if association.left == 0 {
            self.open.swap_remove(at);
        }
        arrival
    }
}

impl Association {
    /// The tags that conntrack knows packets of each side by, by [`Port::index`].
    fn known(&self, around: &Around<'_>) -> [u32; 2] {
        let [sport, dport] = self.ports.map(u16::to_be_bytes);
        let l4 = [sport, dport].concat();
        let found = tuple(&self.pair.ip(C), proto::SCTP, &l4)
            .and_then(|tuple| around.engine.find(&tuple, Zone::default(), around.now));
        match found.map(|(direction, entry)| (direction, entry.flow.protocol)) {
            Some((client, Protocol::Sctp(state))) => [state.tag(client), state.tag(client.opposite())],
            _ => [0; 2],
        }
    }

    fn packet(&mut self, mood: Mood, around: &mut Around<'_>) -> Arrival {
        let known = self.known(around);
        let chance = &mut *around.chance;
        self.left -= 1;
        let ports = self.ports;
        let (port, mut body) = match self.script.split_first() {
            Some((&(port, kind), rest)) => {
                self.script = rest;
                let tag = if kind == INIT { 0 } else { TAGS[port.other().index()] };
                (port, packet(port, ports, tag, &[chunk(kind, 0, &content(kind, TAGS[port.index()]))]))
            }
            None => {
                let port = if chance.percent(50) { C } else { S };
                (port, any(chance, mood, port, ports, known))
            }
        };
        if chance.one_in(if mood == Mood::Wild { 30 } else { 200 }) {
            body = damage(chance, body);
        }
        let packet = dress(chance, self.pair.ip(port), body);
        on(port, packet)
    }
}

/// Any chunks.
fn any(chance: &mut Chance, mood: Mood, port: Port, ports: [u16; 2], known: [u32; 2]) -> Body {
    let own = TAGS[port.index()];
    let count = match mood {
        Mood::Tame => 1 + usize::from(chance.one_in(4)),
        Mood::Wild => chance.pick(&[1, 1, 1, 1, 1, 2, 2, 3, 0, 4]),
    };
    let mut first = None;
    let mut chunks = Vec::new();
    for at in 0..count {
        let kind = match (at, mood) {
            (0, Mood::Tame) => chance.pick(&[
                DATA,
                DATA,
                DATA,
                SACK,
                SACK,
                HEARTBEAT,
                HEARTBEAT_ACK,
                SHUTDOWN,
                SHUTDOWN_ACK,
                SHUTDOWN_COMPLETE,
                ABORT,
                INIT,
                COOKIE_ECHO,
                COOKIE_ACK,
                ERROR,
            ]),
            (0, Mood::Wild) => chance.pick(&[
                DATA,
                INIT,
                INIT,
                INIT,
                INIT_ACK,
                INIT_ACK,
                INIT_ACK,
                SACK,
                HEARTBEAT,
                HEARTBEAT,
                HEARTBEAT,
                HEARTBEAT_ACK,
                HEARTBEAT_ACK,
                HEARTBEAT_ACK,
                ABORT,
                SHUTDOWN,
                SHUTDOWN,
                SHUTDOWN_ACK,
                SHUTDOWN_ACK,
                ERROR,
                COOKIE_ECHO,
                COOKIE_ECHO,
                COOKIE_ECHO,
                COOKIE_ACK,
                COOKIE_ACK,
                SHUTDOWN_COMPLETE,
                SHUTDOWN_COMPLETE,
                200,
            ]),
            (_, Mood::Tame) => DATA,
            _ => chance.pick(&[
                DATA,
                DATA,
                SACK,
                HEARTBEAT,
                HEARTBEAT_ACK,
                ABORT,
                SHUTDOWN,
                SHUTDOWN_ACK,
                ERROR,
                INIT,
                INIT_ACK,
                COOKIE_ECHO,
                COOKIE_ACK,
                SHUTDOWN_COMPLETE,
                64,
                130,
                255,
            ]),
        };
        first = first.or(Some(kind));
        let tag = if chance.percent(60) { own } else { chance.pick(&[TAGS[0], TAGS[1], 0, 5, u32::MAX]) };
        let mut content = content(kind, tag);
        if mood == Mood::Wild {
            match chance.below(30) {
                0 | 1 => content.resize(content.len() + chance.below(12), 7),
                2 => content.truncate(chance.below(18)),
                _ => {}
            }
        }
        let flags = if mood == Mood::Wild { chance.pick(&[0, 0, 0, 1, 1, 2, 255]) } else { 0 };
        let mut chunk = chunk(kind, flags, &content);
        if mood == Mood::Wild && chance.one_in(40) {
            let says = chance.pick(&[0u16, 0, 1, 2, 3, 4, 5, 8, 20, 100, u16::MAX]);
            chunk.splice(2..4, says.to_be_bytes());
        }
        chunks.push(chunk);
    }
    let stray = if mood == Mood::Wild { 40 } else { 3 };
    let tag = match (first, chance.percent(stray)) {
        (Some(INIT), false) => 0,
        (_, false) => known[port.index()],
        _ => chance.pick(&[known[port.other().index()], 0, TAGS[0], TAGS[1], 5, 0xdead_beef]),
    };
    packet(port, ports, tag, &chunks)
}

/// A bit, the end, or a few bytes more.
fn damage(chance: &mut Chance, mut body: Body) -> Body {
    match chance.below(3) {
        0 => super::flip(chance, &mut body),
        1 => {
            let length = chance.below(body.bytes.len() + 1);
            body.bytes.truncate(length);
            seal(&mut body.bytes);
        }
        _ => {
            let more = 1 + chance.below(5);
            body.bytes.resize(body.bytes.len() + more, 1);
            seal(&mut body.bytes);
        }
    }
    body
}

/// A packet of some chunks, with its CRC.
fn packet(port: Port, [client, server]: [u16; 2], tag: u32, chunks: &[Vec<u8>]) -> Body {
    let (sport, dport) = if port == C { (client, server) } else { (server, client) };
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    chunks.iter().for_each(|chunk| bytes.extend(chunk));
    seal(&mut bytes);
    Body::new(proto::SCTP, bytes)
}

/// The packet that opens an association; `from` is the side that sends it.
pub(super) fn init(sport: u16, dport: u16, from: Port) -> Body {
    packet(C, [sport, dport], 0, &[chunk(INIT, 0, &content(INIT, TAGS[from.index()]))])
}

/// What the side behind `from` says to a packet.
pub(super) fn answer(theirs: &[u8], from: Port) -> Option<Body> {
    let kind = match *theirs.get(12)? {
        INIT => INIT_ACK,
        INIT_ACK => COOKIE_ECHO,
        COOKIE_ECHO => COOKIE_ACK,
        DATA => SACK,
        SHUTDOWN => SHUTDOWN_ACK,
        SHUTDOWN_ACK => SHUTDOWN_COMPLETE,
        HEARTBEAT => HEARTBEAT_ACK,
        SACK => SHUTDOWN,
        ABORT | SHUTDOWN_COMPLETE => INIT,
        _ => DATA,
    };
    let tag = if kind == INIT { 0 } else { TAGS[from.other().index()] };
    let ports = [be16(theirs, 2)?, be16(theirs, 0)?];
    Some(packet(C, ports, tag, &[chunk(kind, 0, &content(kind, TAGS[from.index()]))]))
}

/// Puts the CRC in, where there is room for it.
fn seal(bytes: &mut [u8]) {
    let crc = sctp_crc(bytes);
    if let Some(field) = bytes.get_mut(8..12) {
        field.copy_from_slice(&crc.to_be_bytes());
    }
}

fn chunk(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, flags];
    chunk.extend((4 + content.len() as u16).to_be_bytes());
    chunk.extend(content);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

/// What a chunk of this type carries; `tag` is the tag that an INIT or INIT ACK announces.
fn content(kind: u8, tag: u32) -> Vec<u8> {
    match kind {
        INIT | INIT_ACK => [&tag.to_be_bytes()[..], &[0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1]].concat(),
        DATA => vec![0; 14],
        HEARTBEAT | HEARTBEAT_ACK => vec![0, 1, 0, 8, 1, 2, 3, 4],
        COOKIE_ECHO => vec![9; 5],
        _ => Vec::new(),
    }
}
