//! TCP: connections that open, talk and close, and segments just inside and just outside of every bound.

use ctwhy_core::conn::Protocol;
use ctwhy_core::track::tcp::Numbers;
use ctwhy_core::zone::Zone;

use super::{Hosts, Mood, Pair, dress, errors, flip, on, tuple};
use crate::compose::{Tcp, flag, proto};
use crate::fuzz::chance::Chance;
use crate::fuzz::episode::{Around, Generator};
use crate::fuzz::window::{Arrival, Port};

/// Connections that go on at the same time.
const AT_ONCE: usize = 24;

const SYN: u8 = flag::SYN;
const SYN_ACK: u8 = flag::SYN | flag::ACK;
const ACK: u8 = flag::ACK;
const FIN: u8 = flag::FIN | flag::ACK;
const RST: u8 = flag::RST;
const RST_ACK: u8 = flag::RST | flag::ACK;

/// Who sends: the side behind `lan` or the one behind `wan`.
const C: Port = Port::Lan;
const S: Port = Port::Wan;

/// How a connection begins, before it does what it likes.
const SCRIPTS: [&[(Port, u8)]; 14] = [
    &[],
    &[(C, SYN)],
    &[(C, SYN), (S, SYN_ACK)],
    &[(C, SYN), (S, SYN)],
    &[(C, SYN), (S, SYN), (C, SYN_ACK), (S, SYN_ACK)],
    &[(C, ACK)],
    &[(C, ACK), (S, ACK), (C, ACK)],
    &[(C, SYN), (S, SYN_ACK), (C, ACK)],
    &[(C, SYN), (S, SYN_ACK), (C, ACK), (S, ACK), (C, ACK)],
    &[(C, SYN), (S, SYN_ACK), (C, ACK), (C, FIN)],
    &[(C, SYN), (S, SYN_ACK), (C, ACK), (C, FIN), (S, FIN), (C, ACK)],
    &[(C, SYN), (S, SYN_ACK), (C, ACK), (S, FIN), (C, ACK), (C, FIN), (S, ACK), (C, SYN)],
    &[(C, SYN), (S, SYN_ACK), (C, ACK), (C, RST_ACK), (C, SYN)],
    &[(S, SYN), (C, SYN_ACK), (S, ACK), (S, ACK)],
];

/// A connection.
struct Connection {
    pair: Pair,
    ports: [u16; 2],
    /// What each side sends next, by [`Port::index`].
    next: [u32; 2],
    script: &'static [(Port, u8)],
    /// Segments that it still has to send.
    left: usize,
    /// How often, of a hundred times, it does what a host would do.
    good: usize,
}

/// TCP between a few hosts.
pub(crate) struct Connections {
    hosts: Hosts,
    mood: Mood,
    open: Vec<Connection>,
}

impl Connections {
    pub(crate) fn new(hosts: Hosts, mood: Mood) -> Connections {
        Connections { hosts, mood, open: Vec::new() }
    }
}

impl Generator for Connections {
    fn next(&mut self, around: &mut Around<'_>) -> Arrival {
        if around.chance.one_in(25)
            && let Some(error) = errors::packet(self.hosts, self.mood, around)
        {
            return error;
        }
        while self.open.len() < AT_ONCE {
            self.open.push(Connection::new(self.hosts, self.mood, around.chance));
        }
        let at = around.chance.below(self.open.len());
        let Some(connection) = self.open.get_mut(at) else { return on(C, Vec::new()) };
        let arrival = connection.segment(self.mood, around);
        if connection.left == 0 {
            self.open.swap_remove(at);
        }
        arrival
    }
}

impl Connection {
    fn new(hosts: Hosts, mood: Mood, chance: &mut Chance) -> Connection {
        // Near the ends of the number space more often than chance would have it.
        let start = |chance: &mut Chance| match chance.below(6) {
            0 => 0xffff_ff00 + chance.below(256) as u32,
            1 => 0x7fff_ff80 + chance.below(256) as u32,
            2 => chance.below(3000) as u32,
            _ => chance.u32(),
        };
        let script = match mood {
            Mood::Tame if chance.percent(70) => SCRIPTS[7 + chance.below(7)],
            _ => chance.pick(&SCRIPTS),
        };
        let good = match mood {
            Mood::Tame => 95,
            Mood::Wild => chance.pick(&[0, 30, 60]),
        };
        // Where a new connection finds the entry of an old one, little of what follows is in its window.
        let ports = if mood == Mood::Tame { 256 } else { 24 };
        Connection {
            pair: Pair::any(hosts, chance),
            ports: [40_000 + chance.below(ports) as u16, chance.pick(&[80, 443, 22])],
            next: [start(chance), start(chance)],
            script,
            left: script.len() + 2 + chance.below(14),
            good,
        }
    }

    /// The numbers of both sides as conntrack has them, by [`Port::index`], where it has an entry.
    fn numbers(&self, around: &Around<'_>) -> [Numbers; 2] {
        let ip = self.pair.ip(C);
        let [sport, dport] = self.ports.map(u16::to_be_bytes);
        let l4 = [sport, dport].concat();
        let found =
            tuple(&ip, proto::TCP, &l4).and_then(|tuple| around.engine.find(&tuple, Zone::default(), around.now));
        match found.map(|(direction, entry)| (direction, entry.flow.protocol)) {
            Some((client, Protocol::Tcp(state))) => [state.numbers(client), state.numbers(client.opposite())],
            _ => [Numbers::default(); 2],
        }
    }

    fn segment(&mut self, mood: Mood, around: &mut Around<'_>) -> Arrival {
        let numbers = self.numbers(around);
        let chance = &mut *around.chance;
        self.left -= 1;
        let planned = self.script.split_first();
        let (port, mut flags, good) = match planned {
            Some((&(port, flags), rest)) => {
                self.script = rest;
                (port, flags, true)
            }
            None => {
                let flags = match mood {
                    Mood::Tame => match chance.below(40) {
                        0 => chance.pick(&[SYN, SYN_ACK, RST, RST_ACK]),
                        1 | 2 => FIN,
                        3..=8 => ACK | flag::PSH,
                        _ => ACK,
                    },
                    Mood::Wild => chance.pick(&[
                        SYN, SYN, SYN_ACK, SYN_ACK, ACK, ACK, ACK, 0x18, FIN, FIN, RST, RST, RST_ACK, RST_ACK, RST_ACK,
                        0x31, 0x30, 0x22, 0, 1, 6, 8,
                    ]),
                };
                (if chance.percent(50) { C } else { S }, flags, chance.percent(self.good))
            }
        };
        if chance.one_in(12) {
            flags |= chance.pick(&[0x40, 0x80, 0xc0, 0x08]);
        }
        let (me, you) = (port.index(), port.other().index());
        let (mine, theirs) = (numbers[me], numbers[you]);
        let near = chance.pick(&[0u32, 0, 0, 1, u32::MAX, 2, u32::MAX - 1]);
        let seq = if good {
            self.next[me]
        } else {
            let base = match chance.below(12) {
                0..=2 => return self.finish(around, port, (flags, self.next[me], self.next[you]), good),
                3 => mine.end,
                4 => mine.maxend,
                5 => mine.end.wrapping_sub(theirs.maxwin),
                6 => mine.maxend.wrapping_add(theirs.maxwin),
                7 => theirs.maxack,
                8 => 0,
                9 => self.next[me].wrapping_add(chance.below(2000) as u32).wrapping_sub(1000),
                10 => mine.end.wrapping_sub(chance.below(3000) as u32),
                _ => chance.u32(),
            };
            base.wrapping_add(near)
        };
        let mut ack = if good {
            self.next[you]
        } else {
            match chance.below(12) {
                0..=3 => self.next[you],
                4 => theirs.end.wrapping_add(near),
                5 => theirs.end.wrapping_sub(66_000).wrapping_add(near),
                6 => theirs.end.wrapping_sub(mine.maxwin.max(66_000)).wrapping_add(near),
                7 => 0,
                8 => mine.maxack.wrapping_add(near),
                9 => self.next[you].wrapping_sub(chance.below(3000) as u32),
                10 => self.next[you].wrapping_add(chance.below(3) as u32),
                _ => chance.u32(),
            }
        };
        if flags & ACK == 0 && chance.percent(50) {
            ack = 0;
        }
        self.finish(around, port, (flags, seq, ack), good)
    }

    /// The rest of a segment: window, options, data, and what damages it.
    fn finish(
        &mut self,
        around: &mut Around<'_>,
        port: Port,
        (flags, seq, ack): (u8, u32, u32),
        good: bool,
    ) -> Arrival {
        let chance = &mut *around.chance;
        let opens = flags & flag::SYN != 0;
        let window = match good && chance.below(3) > 0 {
            true => 1000,
            false => chance.pick(&[0u16, 0, 1, 100, 1000, 1000, 29_200, 65_535, 65_535]),
        };
        let length = match flags & (flag::SYN | flag::RST) != 0 {
            true => chance.pick(&[0, 0, 0, 0, 0, 10]),
            false => chance.pick(&[0, 0, 0, 1, 100, 500, 1200]),
        };
        let mut options = if opens { syn_options(chance) } else { sack(chance, ack) };
        options.resize(options.len().next_multiple_of(4), 0);
        options.truncate(40);
        let (me, you) = (port.index(), port.other().index());
        let payload = vec![0x41; length];
        let segment = Tcp { sport: self.ports[me], dport: self.ports[you], seq, ack, flags, window, options, payload };
        let ip = self.pair.ip(port);
        let mut body = segment.body(&ip);
        if chance.one_in(if good { 400 } else { 60 }) {
            match chance.below(3) {
                0 => flip(chance, &mut body),
                1 => body = body.cut(chance.below(24)),
                // A data offset that is none, checksum and all.
                _ => {
                    let offset = chance.u8();
                    body = body.with(12, offset);
                }
            }
        }
        if good {
            let counted = length as u32 + u32::from(opens) + u32::from(flags & flag::FIN != 0);
            self.next[me] = seq.wrapping_add(counted);
        } else if chance.one_in(8) {
            self.next[me] = seq.wrapping_add(length as u32);
        }
        let packet = dress(chance, ip, body);
        on(port, packet)
    }
}

fn syn_options(chance: &mut Chance) -> Vec<u8> {
    let mut options: Vec<u8> = Vec::new();
    if chance.below(3) > 0 {
        options.extend([2, 4, 5, 0xb4]);
    }
    if chance.percent(50) {
        options.extend([4, 2]);
    }
    if chance.one_in(6) {
        options.extend([8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
    }
    if chance.percent(50) {
        options.extend([1, 3, 3, chance.pick(&[0, 1, 2, 7, 14, 15, 255])]);
    }
    // Too long, too short, twice, behind the end.
    if chance.one_in(12) {
        options.extend_from_slice(chance.pick::<&[u8], 6>(&[
            &[3, 2],
            &[3, 1],
            &[3, 40],
            &[0, 4, 2],
            &[4, 2],
            &[3, 3, 5],
        ]));
    }
    if chance.one_in(8) {
        options.clear();
    }
    options
}

fn sack(chance: &mut Chance, ack: u32) -> Vec<u8> {
    let block = |chance: &mut Chance| {
        let left = ack.wrapping_add(chance.below(2000) as u32);
        let right = left.wrapping_add(chance.pick(&[0, 1, 100, 500, 1200, 66_000]));
        [left.to_be_bytes(), right.to_be_bytes()].concat()
    };
    match chance.below(12) {
        0 | 1 => vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
        2 | 3 => [vec![1, 1, 5, 10], block(chance)].concat(),
        4 => [vec![1, 1, 5, 18], block(chance), block(chance)].concat(),
        5 => [vec![5, 10], block(chance), vec![5, 10], block(chance)].concat(),
        6 => [vec![5, chance.u8()], block(chance)].concat(),
        7 => [vec![chance.pick(&[0, 8, 5, 254]), chance.pick(&[0, 1, 2, 10, 12, 34, 255])], block(chance)].concat(),
        8 => [vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 5, 10], block(chance)].concat(),
        _ => Vec::new(),
    }
}
