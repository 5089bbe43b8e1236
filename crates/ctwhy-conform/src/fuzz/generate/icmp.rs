//! ICMP and ICMPv6 messages that are no errors: queries, answers, everything else that has a number.

use ctwhy_core::tuple::L3;

use super::{Pair, dress, flip, on};
use crate::compose::{self, Body};
use crate::fuzz::episode::Around;
use crate::fuzz::generate::{Hosts, Mood};
use crate::fuzz::window::{Arrival, Port};

/// A message between two hosts.
pub(crate) fn packet(hosts: Hosts, mood: Mood, around: &mut Around<'_>) -> Arrival {
    let chance = &mut *around.chance;
    let pair = Pair::any(hosts, chance);
    let port = if chance.percent(50) { Port::Lan } else { Port::Wan };
    let ip = pair.ip(port);
    let any = if mood == Mood::Wild { 25 } else { 5 };
    let icmp_type = match hosts.family {
        _ if chance.percent(any) => chance.u8(),
        L3::V4 => chance.pick(&[8, 8, 8, 0, 0, 13, 14, 15, 16, 17, 18]),
        L3::V6 => chance.pick(&[128, 128, 128, 129, 129, 139, 140, 130, 133, 134, 135, 136, 143, 151, 137]),
    };
    let code = if chance.percent(90) { 0 } else { chance.pick(&[1, 2, 200]) };
    let id = chance.pick(&[0u16, 1, 2, 0x4000, 0xffff]);
    let [i0, i1] = id.to_be_bytes();
    let length = chance.pick(&[0, 0, 4, 12, 56]);
    let mut body = compose::icmp(&ip, icmp_type, code, [i0, i1, 0, chance.u8()], &vec![0x61; length]);
    if chance.percent(if mood == Mood::Wild { 12 } else { 2 }) {
        match chance.below(4) {
            0 => flip(chance, &mut body),
            1 => {
                // Cut, with the checksum of what is left.
                body = compose::sealed(&ip, body.cut(chance.below(12)).bytes);
            }
            2 => body = body.cut(chance.below(12)),
            // The protocol of the other family.
            _ => body = Body::new(if hosts.family == L3::V4 { 58 } else { 1 }, body.bytes),
        }
    }
    let packet = dress(chance, ip, body);
    on(port, packet)
}
