//! GRE, UDP-Lite, protocols without a tracker, and IP headers that are not what they should be.

use ctwhy_core::checksum::Sum;
use ctwhy_core::tuple::{L3, proto};

use super::{Hosts, Mood, Pair, dress, errors, on};
use crate::compose::{Body, Ip, udp};
use crate::fuzz::chance::Chance;
use crate::fuzz::episode::{Around, Generator};
use crate::fuzz::window::{Arrival, Port};

/// Everything that has no suite of its own.
pub(crate) struct Rest {
    pub(crate) hosts: Hosts,
    pub(crate) mood: Mood,
}

impl Generator for Rest {
    fn next(&mut self, around: &mut Around<'_>) -> Arrival {
        let Rest { hosts, mood } = *self;
        if around.chance.one_in(5)
            && let Some(error) = errors::packet(hosts, mood, around)
        {
            return error;
        }
        let chance = &mut *around.chance;
        let port = if chance.percent(55) { Port::Lan } else { Port::Wan };
        let ip = Pair::any(hosts, chance).ip(port);
        let body = match chance.below(10) {
            0..=3 => gre(chance),
            4..=6 => udplite(chance, mood, &ip, port),
            _ => unknown(chance),
        };
        if chance.percent(if mood == Mood::Wild { 12 } else { 3 }) {
            let packet = odd(chance, &ip, body);
            return on(port, packet);
        }
        let packet = dress(chance, ip, body);
        on(port, packet)
    }
}

/// GRE of every version, with and without the keys of PPTP.
pub(super) fn gre(chance: &mut Chance) -> Body {
    let flags = chance.pick(&[0, 0x20, 0x30, 0xb0, 0x80]);
    let version = chance.pick(&[0, 0, 0, 0, 1, 1, 1, 1, 0x81, 2, 3, 7, 0x08, 0x80]);
    let payload = chance.pick(&[0x880b_u16, 0x880b, 0x880b, 0x880b, 0x0800, 0x880c, 0x6558]).to_be_bytes();
    let key = chance.pick(&[0_u16, 0, 7, 7, 8, 0xffff]).to_be_bytes();
    let mut bytes = [&[flags, version][..], &payload, &[0, 4], &key].concat();
    bytes.resize(8 + chance.below(20), 0);
    let body = Body::new(proto::GRE, bytes);
    if chance.one_in(5) { body.cut(chance.below(12)) } else { body }
}

/// UDP-Lite with every coverage, and checksums as the kernel takes them and as RFC 3828 has them (UDPLITE-01).
pub(super) fn udplite(chance: &mut Chance, mood: Mood, ip: &Ip, port: Port) -> Body {
    let (client, server) = (4000 + chance.below(6) as u16, 5000 + chance.below(2) as u16);
    let (sport, dport) = if port == Port::Lan { (client, server) } else { (server, client) };
    let length = 8 + chance.pick(&[0, 1, 2, 3, 10, 100, 200, 246, 247, 248, 249, 256, 300, 503, 504, 505, 1000, 1300]);
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes(), [0; 2], [0; 2]].concat();
    bytes.extend(chance.bytes(length - 8));
    let coverage = match (mood, chance.below(9)) {
        (_, 0..=3) => 0,
        (_, 4) => length,
        (_, 5) => 8,
        (_, 6) | (Mood::Tame, _) => 8 + chance.below(length - 7),
        (_, 7) => chance.below(9),
        _ => length + chance.below(3),
    };
    bytes.splice(4..6, (coverage as u16).to_be_bytes());
    let covered = if coverage == 0 { length } else { coverage.clamp(8, length) };
    let usual = if ip.l3() == L3::V6 { length } else { length & 255 };
    let how = chance.below(if mood == Mood::Wild { 12 } else { 6 });
    let (number, counted) = match how {
        6 => (proto::UDP, length),
        7 => (proto::UDPLITE, length),
        8 => (proto::UDP, length & 255),
        9 => (proto::UDP, covered),
        _ => (proto::UDP, usual),
    };
    let sum = Sum::default().pseudo_header(ip.l3(), ip.src.into(), ip.dst.into(), number, counted);
    let checksum = match sum.bytes(bytes.get(..covered).unwrap_or(&bytes)).checksum() {
        0 => u16::MAX,
        checksum => checksum,
    };
    bytes.splice(6..8, if how == 10 { [0; 2] } else { checksum.to_be_bytes() });
    let body = Body::new(proto::UDPLITE, bytes);
    if how == 11 && chance.percent(50) { body.cut(chance.below(length + 1)) } else { body }
}

/// A protocol that conntrack knows nothing of.
pub(super) fn unknown(chance: &mut Chance) -> Body {
    let number = chance.pick(&[2, 3, 4, 33, 41, 46, 50, 59, 89, 99, 103, 115, 252, 253, 254, 255]);
    let length = chance.pick(&[0, 1, 3, 4, 8, 20, 60]);
    Body::new(number, chance.bytes(length))
}

/// A packet whose IP header lies or that is not all there.
fn odd(chance: &mut Chance, ip: &Ip, body: Body) -> Vec<u8> {
    let body = if chance.percent(50) { udp(ip, 4000, 53, b"ctwhy") } else { body };
    let mut packet = ip.packet(body);
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = packet.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    let length = chance.pick(&[0_u16, 1, 19, 20, 21, 27, 28, 39, 40, 48, 1400, u16::MAX]).to_be_bytes();
    match (chance.below(7), ip.l3()) {
        // What nobody minds: type of service, identification, flow label, the bits next to the fragment's place.
        (0, L3::V4) => {
            put(1, &[chance.u8()]);
            put(6, &[chance.pick(&[0x40, 0x80, 0xc0])]);
            seal(&mut packet);
        }
        (0, L3::V6) => put(1, &[chance.u8(), chance.u8(), chance.u8()]),
        (1, L3::V4) => put(10, &[chance.u8(), chance.u8()]),
        (2, L3::V4) => {
            put(2, &length);
            seal(&mut packet);
        }
        (1 | 2, L3::V6) => put(4, &length),
        (3, _) => {
            let keep = chance.below(packet.len() + 1);
            packet.truncate(keep);
        }
        (4, L3::V4) => {
            put(0, &[chance.pick(&[0x05, 0x15, 0x55, 0x75, 0xf5, 0x44, 0x40, 0x43])]);
            seal(&mut packet);
        }
        (4, L3::V6) => put(0, &[chance.pick(&[0x61, 0x6f, 0x50, 0x70])]),
        (5, L3::V4) => {
            put(8, &[chance.pick(&[0, 1, 2, 255])]);
            seal(&mut packet);
        }
        (5, L3::V6) => put(7, &[chance.pick(&[0, 1, 2, 255])]),
        (_, L3::V4) => {
            // Another place of a fragment would make it wait, other addresses would lead elsewhere.
            let at = chance.pick(&[1, 2, 3, 4, 5, 8, 9, 10, 11]);
            if let Some(byte) = packet.get_mut(at) {
                *byte ^= 1 << chance.below(8);
            }
        }
        (_, L3::V6) => {
            let keep = 30 + chance.below(30);
            packet.truncate(keep);
        }
    }
    packet
}

/// Puts the checksum of the header right, as far as there is one.
pub(super) fn seal(packet: &mut [u8]) {
    let words = usize::from(packet.first().map_or(5, |byte| byte & 0x0f));
    let length = (words * 4).min(packet.len());
    if let Some(field) = packet.get_mut(10..12) {
        field.fill(0);
    }
    let checksum = Sum::default().bytes(packet.get(..length).unwrap_or_default()).checksum();
    if let Some(field) = packet.get_mut(10..12) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
