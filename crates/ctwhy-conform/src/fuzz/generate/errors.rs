//! ICMP errors about packets that really passed, and about packets that nearly did.

use std::net::IpAddr;

use ctwhy_core::packet::be16;
use ctwhy_core::tuple::L3;

use super::{dress, on};
use crate::compose::{self, Ip};
use crate::fuzz::chance::Chance;
use crate::fuzz::episode::Around;
use crate::fuzz::generate::{Hosts, Mood};
use crate::fuzz::window::{Arrival, Port};

/// An error about a packet of late; `None` when there is none of this family.
pub(crate) fn packet(hosts: Hosts, mood: Mood, around: &mut Around<'_>) -> Option<Arrival> {
    let passed = around.recent.any(around.chance)?;
    let chance = &mut *around.chance;
    let stray = |chance: &mut Chance| chance.percent(if mood == Mood::Wild { 25 } else { 4 });
    // Whoever complains has the packet as it left, or, seldom, as it came.
    let (port, whole) = if passed.left.is_empty() || chance.one_in(6) {
        (if passed.left.is_empty() { passed.port.other() } else { passed.left_by }, &passed.arrived)
    } else {
        (passed.left_by, &passed.left)
    };
    let (src, dst) = addresses(whole, hosts.family)?;
    let port = if stray(chance) { port.other() } else { port };
    // Nobody but the box may send with the box's address: routing would not have it.
    let own = Port::BOTH.iter().any(|&port| dst == hosts.own(port));
    let from = match chance.below(3) {
        0 if !own => dst,
        0 | 1 => hosts.router(port),
        _ if port == Port::Lan => hosts.client(chance.below(12)),
        _ => hosts.server(chance.below(12)),
    };
    let to = match (stray(chance), chance.below(4)) {
        (false, _) => src,
        (_, 0) => dst,
        (_, 1) => hosts.client(chance.below(8)),
        (_, 2) => hosts.server(chance.below(4)),
        _ => hosts.router(port.other()),
    };
    let ip = Ip::between(from, to);
    let (icmp_type, code) = kind(chance, hosts.family);
    let mut quote = whole.clone();
    bend(chance, mood, hosts.family, &mut quote);
    // An MTU that the box would believe would change what it does with other packets; these are large enough.
    let word = match chance.below(4) {
        0 => [0, 0, 5, 0xdc],
        1 => [0x40, 0, 0, 0],
        2 => [0, 17, 5, 0xdc],
        _ => [0; 4],
    };
    let mut body = compose::icmp(&ip, icmp_type, code, word, &quote);
    if stray(chance) && chance.one_in(4) {
        super::flip(chance, &mut body);
    }
    if stray(chance) && chance.one_in(4) {
        let cut = chance.below(12);
        body = compose::sealed(&ip, body.cut(cut).bytes);
    }
    let packet = dress(chance, ip, body);
    Some(on(port, packet))
}

/// A redirect of IPv6 about a packet of late, or one that nobody may send (ICMP6-R-01).
pub(crate) fn redirect(hosts: Hosts, mood: Mood, around: &mut Around<'_>) -> Option<Arrival> {
    const REDIRECT: u8 = 137;
    /// Option types: the address of the target, and the packet that was redirected.
    const TARGET: u8 = 2;
    const REDIRECTED: u8 = 4;
    let passed = around.recent.any(around.chance)?;
    let chance = &mut *around.chance;
    let whole = if passed.left.is_empty() { &passed.arrived } else { &passed.left };
    let (src, dst) = addresses(whole, hosts.family)?;
    let stray = |chance: &mut Chance| chance.percent(if mood == Mood::Wild { 15 } else { 4 });
    let link_local = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]);
    let from = if stray(chance) { hosts.router(passed.left_by) } else { link_local };
    let to = if stray(chance) { hosts.client(chance.below(8)) } else { src };
    let ip = Ip::between(from, to).ttl(if stray(chance) { 64 } else { 255 });
    let address = |address: IpAddr| ctwhy_core::tuple::Addr::from(address).0;
    let mut rest = [address(hosts.router(passed.left_by)), address(dst)].concat();
    if stray(chance) {
        rest.extend([TARGET, 1, 2, 0, 0, 0, 0, 1]);
    }
    let mut quote = whole.clone();
    bend(chance, mood, hosts.family, &mut quote);
    quote.resize(quote.len().next_multiple_of(8), 0);
    let words = if stray(chance) { chance.pick(&[0, 1, 255]) } else { 1 + (quote.len() / 8) as u8 };
    let kind = if stray(chance) { chance.u8() } else { REDIRECTED };
    rest.extend([kind, words, 0, 0, 0, 0, 0, 0]);
    rest.extend(quote);
    if stray(chance) {
        let cut = chance.below(48);
        rest.truncate(cut);
    }
    let code = u8::from(stray(chance));
    let packet = ip.packet(compose::icmp(&ip, REDIRECT, code, [0; 4], &rest));
    Some(on(passed.left_by, packet))
}

fn kind(chance: &mut Chance, family: L3) -> (u8, u8) {
    let code = chance.pick(&[0, 0, 1, 3, 3, 4, 9, 200]);
    match family {
        L3::V4 => (chance.pick(&[3, 3, 3, 11, 11, 11, 4, 5, 12]), code),
        L3::V6 => (chance.pick(&[1, 1, 1, 2, 3, 3, 3, 4, 0, 5, 100, 127]), code),
    }
}

/// The quote as a router cuts it, or as nobody would send it.
fn bend(chance: &mut Chance, mood: Mood, family: L3, quote: &mut Vec<u8>) {
    let header = match family {
        L3::V4 => usize::from(quote.first().map_or(5, |byte| byte & 0x0f)) * 4,
        L3::V6 => 40,
    };
    match chance.below(10) {
        0..=3 => quote.truncate(548),
        4..=6 => quote.truncate(header + 8),
        7 => quote.truncate(header + chance.below(24)),
        _ => {
            let cut = chance.below(quote.len().max(1) + 1);
            quote.truncate(cut);
        }
    }
    if chance.one_in(8) {
        let zeros = chance.below(132);
        quote.resize(quote.len() + zeros, 0);
    }
    if !chance.percent(if mood == Mood::Wild { 20 } else { 3 }) {
        return;
    }
    let mut put = |at: usize, change: &mut dyn FnMut(u8) -> u8| {
        if let Some(byte) = quote.get_mut(at) {
            *byte = change(*byte);
        }
    };
    let any = chance.u8();
    match (chance.below(7), family) {
        // Header length in words, with the version or without.
        (0, L3::V4) => put(0, &mut |byte| byte & 0xf0 | any & 0x0f),
        (0 | 1, _) => put(0, &mut |byte| byte ^ any & 0xf0),
        // Fragments.
        (2, L3::V4) => {
            put(6, &mut |_| any & 0x3f);
            put(7, &mut |_| any >> 6);
        }
        // Another protocol, or an extension header that is none.
        (2, L3::V6) => put(6, &mut |_| any),
        (3, L3::V4) => put(9, &mut |_| any),
        (3, L3::V6) => put(6, &mut |_| [0, 43, 44, 51, 59, 60, 58, 1][usize::from(any & 7)]),
        (4, _) => {
            let at = chance.below(header + 8);
            put(at, &mut |byte| byte ^ 1 << (any & 7));
        }
        // Ports or addresses the other way round.
        (5, _) => {
            if let Some(ports) = quote.get_mut(header..header + 4) {
                ports.rotate_left(2);
            }
        }
        _ => {
            let width = if family == L3::V4 { 4 } else { 16 };
            if let Some(both) = quote.get_mut(header.min(40) - 2 * width.min(header / 2)..header) {
                both.rotate_left(width.min(both.len()));
            }
        }
    }
}

/// Source and destination in the IP header of a packet of the family.
fn addresses(packet: &[u8], family: L3) -> Option<(IpAddr, IpAddr)> {
    let is = if packet.first()? >> 4 == 4 { L3::V4 } else { L3::V6 };
    if is != family {
        return None;
    }
    // A packet too short to have addresses has no length either.
    be16(packet, 2)?;
    Some(match family {
        L3::V4 => (
            IpAddr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?),
            IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?),
        ),
        L3::V6 => (
            IpAddr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?),
            IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?),
        ),
    })
}
