//! Packets of all other kinds in fragments, which come in any order, between those of other datagrams, twice, never, or
//! somewhere else than where they belong.

use std::ops::Range;

use ctwhy_core::packet::be16;

use super::rest::{Rest, seal};
use super::sctp::Associations;
use super::tcp::Connections;
use super::zoo::Zoo;
use super::{Hosts, Mood, Pair, errors, on};
use crate::compose::{self, Body, Echo};
use crate::fuzz::chance::Chance;
use crate::fuzz::episode::{Around, Generator};
use crate::fuzz::window::{Arrival, Port};

/// Datagrams whose fragments are on their way at the same time.
const AT_ONCE: usize = 6;
/// The most fragments of a datagram, or about that.
const PIECES: usize = 60;
/// The longest fragment that every interface takes.
const ROOM: usize = 1400;
/// Length of an IPv6 header.
const V6: usize = 40;

/// Makes whole packets and sends them in fragments.
pub(crate) struct Fragments {
    hosts: Hosts,
    mood: Mood,
    whole: [Box<dyn Generator>; 4],
    /// Fragments that are still to come, the next one last.
    coming: Vec<Vec<Arrival>>,
}

impl Fragments {
    pub(crate) fn new(hosts: Hosts, mood: Mood) -> Fragments {
        let whole: [Box<dyn Generator>; 4] = [
            Box::new(Zoo { hosts, mood }),
            Box::new(Rest { hosts, mood }),
            Box::new(Connections::new(hosts, mood)),
            Box::new(Associations::new(hosts, mood)),
        ];
        Fragments { hosts, mood, whole, coming: Vec::new() }
    }

    fn whole(&mut self, around: &mut Around<'_>) -> Arrival {
        let kind = around.chance.below(self.whole.len() + 2);
        let made = self.whole.get_mut(kind).map(|generator| generator.next(around));
        made.unwrap_or_else(|| long(self.hosts, around.chance))
    }
}

impl Generator for Fragments {
    fn next(&mut self, around: &mut Around<'_>) -> Arrival {
        if around.chance.one_in(12) {
            let error = errors::packet(self.hosts, self.mood, around);
            return error.unwrap_or_else(|| self.whole(around));
        }
        if around.chance.one_in(10) {
            return self.whole(around);
        }
        loop {
            if self.coming.len() < AT_ONCE {
                let packet = self.whole(around);
                let Some(mut fragments) = cut(&packet, self.mood, around.chance) else { return packet };
                disorder(&mut fragments, around.chance);
                self.coming.push(fragments);
            }
            let which = around.chance.below(self.coming.len());
            match self.coming.get_mut(which).and_then(Vec::pop) {
                Some(fragment) => return fragment,
                None => drop(self.coming.swap_remove(which)),
            }
        }
    }
}

/// A packet that is longer than what a cable takes.
fn long(hosts: Hosts, chance: &mut Chance) -> Arrival {
    let port = if chance.percent(60) { Port::Lan } else { Port::Wan };
    let mut ip = Pair::any(hosts, chance).ip(port);
    ip.id = chance.u16();
    let length = match chance.below(48) {
        0 => 60_000 + chance.below(5_400),
        1..=12 => chance.below(9_000),
        13..=30 => chance.below(4_000),
        _ => chance.below(300),
    };
    let payload = vec![0x55; length];
    let (client, server) = (chance.pick(&[1024, 40_000, 65_535]), chance.pick(&[53, 123]));
    let (sport, dport) = if port == Port::Lan { (client, server) } else { (server, client) };
    let body = match chance.below(8) {
        0..=4 => compose::udp(&ip, sport, dport, &payload),
        5 => compose::udp(&ip, sport, dport, &payload).with(6, 0).with(7, 0),
        6 => {
            let kind = if port == Port::Lan { Echo::Request } else { Echo::Reply };
            let mut bytes = compose::echo(&ip, kind, chance.below(4) as u16, 1).bytes;
            bytes.extend(&payload);
            compose::sealed(&ip, bytes)
        }
        _ => Body::new(200, payload),
    };
    on(port, ip.packet(body))
}

/// Any order, now and then all of it twice.
fn disorder(fragments: &mut Vec<Arrival>, chance: &mut Chance) {
    match chance.below(4) {
        0 => fragments.reverse(),
        1 => {
            for at in (1..fragments.len()).rev() {
                fragments.swap(at, chance.below(at + 1));
            }
        }
        2 if fragments.len() > 2 => {
            let last = fragments.len() - 1;
            fragments.swap(0, last);
        }
        _ => {}
    }
    if chance.one_in(16) {
        fragments.extend(fragments.clone());
    }
}

/// Where a body of `length` bytes is cut, so that no part is longer than `room`.
fn parts(length: usize, room: usize, chance: &mut Chance) -> Vec<Range<usize>> {
    let least = ((length / PIECES) & !7).max(8);
    let size = match chance.below(6) {
        0 => 8,
        1 => 16 + 8 * chance.below(8),
        2 => 24,
        3 => 8 * (1 + chance.below(150)),
        _ => room & !7,
    };
    let even = !chance.one_in(3);
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < length || parts.is_empty() {
        let size = if even { size } else { 8 * (1 + chance.below(size / 8 + 4)) };
        let end = (at + size.max(least).min(room & !7)).min(length);
        parts.push(at..end);
        at = end;
    }
    parts
}

/// Which bytes a fragment brings, and whether it says that more follow: mostly those that it should.
fn stray(part: &Range<usize>, length: usize, chance: &mut Chance) -> (Range<usize>, bool) {
    let Range { start, end } = *part;
    let more = end < length;
    let range = match chance.below(8) {
        0 => start.saturating_sub(8)..end,
        1 => start..(end + 8).min(length),
        2 => start..end.saturating_sub(chance.below(9)).max(start),
        3 => return (start..end, !more),
        4 => (start + 8).min(end) & !7..end,
        5 => start..(end + chance.below(8)).min(length),
        6 => start..start,
        _ => {
            let start = chance.below(length + 1) & !7;
            start..(start + chance.below(40)).min(length)
        }
    };
    (range, more)
}

/// The ECN bits of the fragments of a datagram: alike, such as go together, or such as do not.
fn ecn(kind: usize, mood: Mood, chance: &mut Chance) -> u8 {
    match kind {
        0 => 2,
        1 => 1,
        2 => 3,
        3 => 2 + chance.below(2) as u8,
        4 => 1 + chance.below(3) as u8,
        5 if mood == Mood::Wild || chance.one_in(8) => chance.below(4) as u8,
        _ => 0,
    }
}

/// The fragments of a packet, the last one first; `None` when it cannot be cut.
fn cut(packet: &Arrival, mood: Mood, chance: &mut Chance) -> Option<Vec<Arrival>> {
    let bytes = &packet.bytes;
    let is_v4 = bytes.first()? >> 4 == 4;
    let (header, length) = if is_v4 {
        (usize::from(bytes.first()? & 0x0f) * 4, usize::from(be16(bytes, 2)?))
    } else {
        (V6, V6 + usize::from(be16(bytes, 4)?))
    };
    let body = bytes.get(header..length.min(bytes.len()))?;
    if header < 20 || body.is_empty() {
        return None;
    }
    let header = bytes.get(..header)?;
    // Few, so that they come again.
    let id = chance.below(6) as u16 + chance.pick(&[0, 100]);
    let (ecn_kind, df) = (chance.below(8), chance.below(8));
    let ahead = if is_v4 { Vec::new() } else { ahead(chance) };
    let odd = if mood == Mood::Wild { 10 } else { 60 };
    let mut fragments = Vec::new();
    for part in
        parts(body.len(), ROOM - header.len() - 8 - ahead.iter().map(|(_, one)| one.len()).sum::<usize>(), chance)
    {
        let (range, more) = match part {
            // Some never come.
            _ if chance.one_in(odd * 8) => continue,
            part if chance.one_in(odd) => stray(&part, body.len(), chance),
            part => {
                let more = part.end < body.len();
                (part, more)
            }
        };
        let offset = if chance.one_in(odd * 30) { 0xfff8 - 8 * chance.below(4) } else { range.start } as u16 & !7;
        let data = body.get(range.clone()).unwrap_or_default();
        let mut fragment = header.to_vec();
        if chance.one_in(odd * 3) {
            let ttl = 1 + chance.below(64) as u8;
            put(&mut fragment, if is_v4 { 8 } else { 7 }, &[ttl]);
        }
        let ecn = ecn(ecn_kind, mood, chance);
        let first = fragment.get(1).copied().unwrap_or_default();
        if is_v4 {
            let alone = match df {
                0 => true,
                1 => chance.percent(50),
                _ => false,
            };
            let place = offset >> 3 | u16::from(more) << 13 | u16::from(alone) << 14;
            put(&mut fragment, 1, &[first & !3 | ecn]);
            put(&mut fragment, 2, &((header.len() + data.len()) as u16).to_be_bytes());
            put(&mut fragment, 4, &id.to_be_bytes());
            put(&mut fragment, 6, &place.to_be_bytes());
            fragment.extend(data);
            seal(&mut fragment);
        } else {
            put(&mut fragment, 1, &[first & !0x30 | ecn << 4]);
            let reserved = if chance.one_in(odd * 5) { 6 } else { 0 };
            let [id0, id1] = id.to_be_bytes();
            let [place0, place1] = (offset | reserved | u16::from(more)).to_be_bytes();
            let next = header.get(6).copied().unwrap_or_default();
            let next = if range.start > 0 && chance.one_in(odd * 2) { 99 } else { next };
            let mut rest = Body::new(next, data).behind(44, &[0, 0, place0, place1, 0, 0, id0, id1]);
            if chance.one_in(odd * 20) {
                rest = rest.cut(chance.below(9));
            }
            for (number, header) in ahead.iter().rev() {
                rest = rest.behind(*number, header);
            }
            put(&mut fragment, 4, &(rest.bytes.len() as u16).to_be_bytes());
            put(&mut fragment, 6, &[rest.protocol]);
            fragment.extend(rest.bytes);
        }
        if chance.one_in(odd * 6) {
            fragment.extend([0xee; 5]);
        }
        let copies = if chance.one_in(odd * 8) { 2 } else { 1 };
        fragments.extend(vec![on(packet.port, fragment); copies]);
    }
    fragments.reverse();
    Some(fragments)
}

/// The extension headers in front of a fragment header, with their numbers.
fn ahead(chance: &mut Chance) -> Vec<(u8, &'static [u8])> {
    const OPTIONS: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    const ROUTING: &[u8] = &[0, 0, 253, 0, 0, 0, 0, 0];
    match chance.below(12) {
        0 => vec![(0, OPTIONS)],
        1 => vec![(60, OPTIONS)],
        2 => vec![(0, OPTIONS), (60, OPTIONS), (43, ROUTING)],
        3 => vec![(51, &[0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1])],
        4 => vec![(43, ROUTING), (60, OPTIONS)],
        _ => Vec::new(),
    }
}

fn put(packet: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = packet.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}
