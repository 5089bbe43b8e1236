//! What stands behind the IP header: headers stay, data goes.

use super::{Addresses, Sum, adjust, inner, map_v4, map_v6};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// Rewrites the transport part of a packet whose addresses were changed from the first sum of `pseudo` to the second.
pub(super) fn rewrite(l4: &mut [u8], protocol: u8, pseudo: (Sum, Sum), addresses: &Addresses, depth: usize) {
    let none = (Sum(0), Sum(0));
    match protocol {
        TCP => covered(l4, 16, pseudo, usize::MAX, tcp),
        UDP => udp(l4, pseudo),
        UDPLITE => udplite(l4, pseudo),
        ICMP => covered(l4, 2, none, usize::MAX, |l4| icmp(l4, addresses, depth)),
        ICMPV6 => covered(l4, 2, pseudo, usize::MAX, |l4| icmpv6(l4, addresses, depth)),
        SCTP => sctp(l4),
        // Version, flags, protocol, and the call id of version 1.
        GRE => l4.iter_mut().skip(8).for_each(|byte| *byte = 0),
        _ => l4.fill(0),
    }
}

/// Changes bytes and moves the checksum at `at`, which covers the first `coverage` of them and the addresses.
fn covered(l4: &mut [u8], at: usize, pseudo: (Sum, Sum), coverage: usize, change: impl FnOnce(&mut [u8])) {
    let without_checksum = |l4: &[u8]| {
        let mut copy = l4.get(..coverage).unwrap_or(l4).to_vec();
        copy.get_mut(at..at + 2).unwrap_or_default().fill(0);
        Sum::of(&copy)
    };
    let before = without_checksum(l4);
    change(l4);
    let after = without_checksum(l4);
    adjust(l4, at, before.plus(pseudo.0), after.plus(pseudo.1));
}

fn clear_from(l4: &mut [u8], at: usize) {
    l4.iter_mut().skip(at).for_each(|byte| *byte = 0);
}

fn tcp(l4: &mut [u8]) {
    let header = l4.get(12).map_or(20, |byte| usize::from(byte >> 4) * 4).max(20);
    clear_from(l4, header);
    let end = header.min(l4.len());
    let mut options = l4.get_mut(20..end).unwrap_or_default();
    while let Some(&kind) = options.first() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(options.get(1).copied().unwrap_or(0)),
        };
        if length < 1 || (kind > 1 && length < 2) || length > options.len() {
            break;
        }
        let (option, rest) = options.split_at_mut(length);
        // MSS, window scale, SACK and time stamps are looked at, and say nothing about anybody.
        if !matches!(kind, 1..=5 | 8) {
            clear_from(option, 2);
        }
        options = rest;
    }
}

/// Without a checksum there stays none; one that becomes 0 is written as 0xffff.
fn udp(l4: &mut [u8], pseudo: (Sum, Sum)) {
    let none = l4.get(6..8).is_none_or(|field| field == [0, 0]);
    covered(l4, 6, pseudo, usize::MAX, |l4| clear_from(l4, 8));
    if let Some(field) = l4.get_mut(6..8) {
        if none {
            field.fill(0);
        } else if field == [0, 0] {
            field.fill(0xff);
        }
    }
}

fn udplite(l4: &mut [u8], pseudo: (Sum, Sum)) {
    let coverage = match l4.get(4..6).map(|field| u16::from_be_bytes([field[0], field[1]])) {
        Some(0) | None => usize::MAX,
        Some(coverage) => usize::from(coverage),
    };
    let none = l4.get(6..8).is_none_or(|field| field == [0, 0]);
    covered(l4, 6, pseudo, coverage, |l4| clear_from(l4, 8));
    if let Some(field) = l4.get_mut(6..8) {
        if none {
            field.fill(0);
        } else if field == [0, 0] {
            field.fill(0xff);
        }
    }
}

fn icmp(l4: &mut [u8], addresses: &Addresses, depth: usize) {
    const REDIRECT: u8 = 5;
    match l4.first() {
        Some(&kind @ (3 | 4 | REDIRECT | 11 | 12)) => {
            if kind == REDIRECT {
                map_v4(l4, 4, addresses);
            }
            inner(l4.get_mut(8..).unwrap_or_default(), addresses, depth - 1);
        }
        _ => clear_from(l4, 8),
    }
}

fn icmpv6(l4: &mut [u8], addresses: &Addresses, depth: usize) {
    match l4.first() {
        Some(0..=127) => inner(l4.get_mut(8..).unwrap_or_default(), addresses, depth - 1),
        // Router solicitation and advertisement: options behind 8 and 16 bytes.
        Some(133) => neighbour_options(l4, 8, addresses, depth),
        Some(134) => neighbour_options(l4, 16, addresses, depth),
        // Neighbour solicitation and advertisement: the target.
        Some(135 | 136) => {
            map_v6(l4, 8, addresses);
            neighbour_options(l4, 24, addresses, depth);
        }
        // Redirect: target and destination.
        Some(137) => {
            map_v6(l4, 8, addresses);
            map_v6(l4, 24, addresses);
            neighbour_options(l4, 40, addresses, depth);
        }
        _ => clear_from(l4, 8),
    }
}

/// Options of neighbour discovery from `at` on: the packet in a redirected header stays one, all other values are cleared.
fn neighbour_options(l4: &mut [u8], at: usize, addresses: &Addresses, depth: usize) {
    const REDIRECTED_HEADER: u8 = 4;
    let mut options = l4.get_mut(at..).unwrap_or_default();
    while let [kind, words, ..] = *options {
        let length = usize::from(words) * 8;
        if length == 0 || length > options.len() {
            break;
        }
        let (option, rest) = options.split_at_mut(length);
        if kind == REDIRECTED_HEADER {
            inner(option.get_mut(8..).unwrap_or_default(), addresses, depth - 1);
        } else {
            clear_from(option, 2);
        }
        options = rest;
    }
    options.fill(0);
}

/// Chunks keep their types, flags and lengths, and what the tracker reads: the tag of INIT and INIT ACK.
fn sctp(l4: &mut [u8]) {
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    let wrong_by = crc(l4) ^ field(l4);
    let mut chunks = l4.get_mut(12..).unwrap_or_default();
    while let [kind, _, high, low, ..] = *chunks {
        let length = usize::from(u16::from_be_bytes([high, low])).max(4).next_multiple_of(4).min(chunks.len());
        let (chunk, rest) = chunks.split_at_mut(length);
        clear_from(chunk, if matches!(kind, INIT | INIT_ACK) { 20 } else { 4 });
        chunks = rest;
    }
    chunks.fill(0);
    let new = crc(l4) ^ wrong_by;
    if let Some(place) = l4.get_mut(8..12) {
        place.copy_from_slice(&new.to_le_bytes());
    }
}

fn field(l4: &[u8]) -> u32 {
    l4.get(8..12).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// CRC32c over the packet with the field for it taken as zeros (RFC 9260 appendix A).
fn crc(l4: &[u8]) -> u32 {
    let byte = |(at, byte): (usize, &u8)| if (8..12).contains(&at) { 0 } else { *byte };
    !l4.iter().enumerate().map(byte).fold(u32::MAX, |register, byte| {
        (0..8).fold(register ^ u32::from(byte), |r, _| if r & 1 == 1 { (r >> 1) ^ 0x82f6_3b78 } else { r >> 1 })
    })
}
