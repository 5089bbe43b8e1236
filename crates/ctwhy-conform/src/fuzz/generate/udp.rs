//! UDP: queries, answers, and datagrams that say something else about themselves than what they are.

use super::{Pair, dress, flip, on};
use crate::compose::{self, Body, proto};
use crate::fuzz::chance::Chance;
use crate::fuzz::episode::Around;
use crate::fuzz::generate::{Hosts, Mood};
use crate::fuzz::window::{Arrival, Port};

/// Of a client.
const CLIENT_PORTS: [u16; 8] = [0, 1, 53, 512, 1023, 1024, 40_000, 65_535];
/// Of a server.
const SERVER_PORTS: [u16; 4] = [53, 123, 33_434, 0];

/// A datagram between two hosts.
pub(crate) fn packet(hosts: Hosts, mood: Mood, around: &mut Around<'_>) -> Arrival {
    let chance = &mut *around.chance;
    let pair = Pair::any(hosts, chance);
    let port = if chance.percent(60) { Port::Lan } else { Port::Wan };
    let (client, server) = (chance.pick(&CLIENT_PORTS), chance.pick(&SERVER_PORTS));
    let (sport, dport) = if port == Port::Lan { (client, server) } else { (server, client) };
    let ip = pair.ip(port);
    let length = chance.pick(&[0, 0, 1, 4, 18, 100, 400]);
    let payload = vec![0x55; length];
    let mut body = compose::udp(&ip, sport, dport, &payload);
    let odd = if mood == Mood::Wild { 30 } else { 6 };
    if chance.percent(odd) {
        body = bend(chance, &ip, body);
    }
    let packet = dress(chance, ip, body);
    on(port, packet)
}

fn bend(chance: &mut Chance, ip: &compose::Ip, mut body: Body) -> Body {
    let length = body.bytes.len();
    match chance.below(6) {
        0 => {
            flip(chance, &mut body);
            body
        }
        // No checksum.
        1 => body.with(6, 0).with(7, 0),
        2 => {
            let cut = chance.below(13);
            body.cut(cut)
        }
        3 => {
            let says = (length + 4).saturating_sub(chance.below(9)) as u16;
            put_length(&mut body, says);
            compose::sealed_udp(ip, body.bytes)
        }
        4 => {
            let says = chance.pick(&[0u16, 1, 7, 8, 9, 0xffff]);
            put_length(&mut body, says);
            compose::sealed_udp(ip, body.bytes)
        }
        _ => {
            // The sum that counts the bytes behind the length, or the right one of fewer bytes.
            let says = 8 + chance.below(length.max(9) - 8) as u16;
            put_length(&mut body, says);
            let mut bytes = body.bytes;
            let behind = bytes.split_off(usize::from(says).min(bytes.len()));
            let mut sealed = compose::sealed_udp(ip, bytes);
            sealed.bytes.extend(behind);
            Body::new(proto::UDP, sealed.bytes)
        }
    }
}

fn put_length(body: &mut Body, says: u16) {
    if let Some(field) = body.bytes.get_mut(4..6) {
        field.copy_from_slice(&says.to_be_bytes());
    }
}
