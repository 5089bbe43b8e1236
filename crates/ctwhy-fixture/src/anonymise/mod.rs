//! Packets made anonymous: other addresses, no data, and everything else that conntrack looks at as it was.
//!
//! A checksum that was right is right afterwards, and one that was wrong is wrong by as much: each is moved by what the
//! bytes that it covers were changed by, as NAT does it. So also one whose packet is not there as a whole, such as the
//! checksums in what an ICMP error quotes.

mod address;
mod transport;

pub use address::Addresses;

/// How deep packets in packets are followed.
const DEEPEST: usize = 4;

/// Makes an IP packet anonymous, and what it quotes. Its length stays; what is no IP packet is zeroed.
pub fn packet(bytes: &mut [u8], addresses: &Addresses) {
    inner(bytes, addresses, DEEPEST);
}

fn inner(bytes: &mut [u8], addresses: &Addresses, depth: usize) {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) if depth > 0 && bytes.len() >= 20 => ipv4(bytes, addresses, depth),
        Some(6) if depth > 0 && bytes.len() >= 40 => ipv6(bytes, addresses, depth),
        _ => bytes.fill(0),
    }
}

/// A run of 16-bit words summed as checksums do it, modulo 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum(u64);

impl Sum {
    fn of(bytes: &[u8]) -> Sum {
        let word = |pair: &[u8]| {
            u64::from(pair.first().copied().unwrap_or(0)) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))
        };
        Sum(bytes.chunks(2).map(word).sum::<u64>() % 0xffff)
    }

    fn plus(self, other: Sum) -> Sum {
        Sum((self.0 + other.0) % 0xffff)
    }
}

/// Moves a checksum at `at` by the difference of what it covers. What was 0xffff or 0 for the same sum stays so where the
/// sum is the same.
fn adjust(bytes: &mut [u8], at: usize, before: Sum, after: Sum) {
    let Some(field) = bytes.get_mut(at..at + 2) else { return };
    if before == after {
        return;
    }
    let old = u64::from(u16::from_be_bytes([field[0], field[1]]));
    let new = (old % 0xffff + before.0 + 0xffff - after.0) % 0xffff;
    field.copy_from_slice(&(new as u16).to_be_bytes());
}

fn ipv4(bytes: &mut [u8], addresses: &Addresses, depth: usize) {
    let header = (usize::from(bytes[0] & 0x0f) * 4).clamp(20, bytes.len());
    let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]])).clamp(header, bytes.len());
    let (protocol, fragment) = (bytes[9], u16::from_be_bytes([bytes[6], bytes[7]]) & 0x1fff);
    let before = Sum::of(&bytes[..header]);
    let pseudo_before = Sum::of(&bytes[12..20]);
    for at in [12, 16] {
        map_v4(bytes, at, addresses);
    }
    options_v4(&mut bytes[20..header]);
    let pseudo = (pseudo_before, Sum::of(&bytes[12..20]));
    let after = Sum::of(&bytes[..header]);
    adjust(bytes, 10, before, after);
    let (packet, padding) = bytes.split_at_mut(total);
    padding.fill(0);
    let l4 = &mut packet[header..];
    if fragment == 0 {
        transport::rewrite(l4, protocol, pseudo, addresses, depth);
    } else {
        l4.fill(0);
    }
}

/// Routes and times that routers wrote down are cleared; lengths stay.
fn options_v4(mut options: &mut [u8]) {
    const RECORD_ROUTE: u8 = 7;
    const TIMESTAMP: u8 = 68;
    const ROUTER_ALERT: u8 = 148;
    while let Some(&kind) = options.first() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(options.get(1).copied().unwrap_or(0)).clamp(2, options.len().max(2)),
        };
        if length > options.len() {
            break;
        }
        let (option, rest) = options.split_at_mut(length);
        if !matches!(kind, 1 | ROUTER_ALERT) {
            // Behind type and length the first three kinds have a pointer.
            let kept = if matches!(kind, RECORD_ROUTE | TIMESTAMP | 131 | 137) { 3 } else { 2 };
            option.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        }
        options = rest;
    }
}

fn ipv6(bytes: &mut [u8], addresses: &Addresses, depth: usize) {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTH: u8 = 51;
    const DESTINATION: u8 = 60;
    let end = (40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]))).clamp(40, bytes.len());
    let before = Sum::of(&bytes[8..40]);
    for at in [8, 24] {
        map_v6(bytes, at, addresses);
    }
    let pseudo = (before, Sum::of(&bytes[8..40]));
    let (packet, padding) = bytes.split_at_mut(end);
    padding.fill(0);
    let (mut next, mut rest) = (packet[6], &mut packet[40..]);
    let mut later_fragment = false;
    while matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTH | DESTINATION) && rest.len() >= 8 {
        let length = match next {
            FRAGMENT => 8,
            AUTH => (usize::from(rest[1]) + 2) * 4,
            _ => (usize::from(rest[1]) + 1) * 8,
        };
        let (extension, behind) = rest.split_at_mut(length.min(rest.len()));
        match next {
            FRAGMENT => later_fragment = u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0,
            ROUTING => {
                (8..extension.len().saturating_sub(15)).step_by(16).for_each(|at| map_v6(extension, at, addresses))
            }
            AUTH => extension.iter_mut().skip(12).for_each(|byte| *byte = 0),
            _ => options_v6(extension.get_mut(2..).unwrap_or_default()),
        }
        next = extension[0];
        rest = behind;
    }
    if later_fragment {
        rest.fill(0);
    } else {
        transport::rewrite(rest, next, pseudo, addresses, depth);
    }
}

/// Values of options are cleared but for a router alert's; types and lengths stay.
fn options_v6(mut options: &mut [u8]) {
    const PAD: u8 = 0;
    const ROUTER_ALERT: u8 = 5;
    while let Some(&kind) = options.first() {
        let length = if kind == PAD { 1 } else { 2 + usize::from(options.get(1).copied().unwrap_or(0)) };
        if length > options.len() {
            break;
        }
        let (option, rest) = options.split_at_mut(length);
        if !matches!(kind, PAD | ROUTER_ALERT) {
            option.iter_mut().skip(2).for_each(|byte| *byte = 0);
        }
        options = rest;
    }
}

fn map_v4(bytes: &mut [u8], at: usize, addresses: &Addresses) {
    if let Some(field) = bytes.get_mut(at..at + 4)
        && let Ok(old) = <[u8; 4]>::try_from(&*field)
    {
        field.copy_from_slice(&addresses.map_v4(old.into()).octets());
    }
}

fn map_v6(bytes: &mut [u8], at: usize, addresses: &Addresses) {
    if let Some(field) = bytes.get_mut(at..at + 16)
        && let Ok(old) = <[u8; 16]>::try_from(&*field)
    {
        field.copy_from_slice(&addresses.map_v6(old.into()).octets());
    }
}
