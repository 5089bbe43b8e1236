//! What a rule allows a binding to be (`struct nf_nat_range2`), and the draw of an address from a range.

use crate::tuple::{Addr, L3, Tuple, has_ports, proto};

use super::Manip;

/// Addresses and ports that a binding may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First and last address; `None` leaves the address alone.
    pub addresses: Option<(Addr, Addr)>,
    /// First and last port or ICMP id; `None` keeps it where it is free.
    pub ports: Option<(u16, u16)>,
    /// Shift ports by what the range lies away from this one (`--to-destination ADDRESS:FIRST-LAST/BASE`).
    pub shifted_from: Option<u16>,
    /// Draw the port even where the old one is free (`--random`, `--random-fully`).
    pub random: bool,
    /// The same client gets the same address whatever the destination (`--persistent`).
    pub persistent: bool,
}

impl Range {
    /// The range that holds one address and any port.
    #[must_use]
    pub fn address(address: Addr) -> Range {
        Range { addresses: Some((address, address)), ..Range::default() }
    }

    /// `xt_NETMAP`: the range that holds `address` with its network replaced by the one from the first to the last address
    /// of this one.
    #[must_use]
    pub(super) fn netmap(&self, address: Addr) -> Range {
        let Some((first, last)) = self.addresses else { return *self };
        let number = |address: Addr| u128::from_be_bytes(address.0);
        let host = number(first) ^ number(last);
        let mapped = Addr(((number(first) & !host) | (number(address) & host)).to_be_bytes());
        Range { addresses: Some((mapped, mapped)), ..*self }
    }

    /// `nf_in_range`: does the side of `tuple` that `manip` changes lie in the range already? Protocols without ports lie
    /// in every range of ports.
    #[must_use]
    pub(super) fn holds(&self, tuple: &Tuple, manip: Manip) -> bool {
        let (address, port) = match manip {
            Manip::Src => (tuple.src, tuple.src_u),
            Manip::Dst => (tuple.dst, if tuple.is_icmp() { tuple.src_u } else { tuple.dst_u }),
        };
        let varies = tuple.is_icmp() || has_ports(tuple.protonum) || tuple.protonum == proto::GRE;
        self.addresses.is_none_or(|(first, last)| first <= address && address <= last)
            && self.ports.is_none_or(|(first, last)| !varies || (first <= port && port <= last))
    }

    /// `find_best_ips_proto`: the address of the range that a flow gets. A fixed hash of the flow's addresses and
    /// zone, the same on every machine and after every boot (D.3 step 2).
    #[must_use]
    pub(super) fn pick_address(&self, tuple: &Tuple, zone: u16, manip: Manip) -> Option<Addr> {
        let (first, last) = self.addresses?;
        if first == last {
            return Some(first);
        }
        let last_word = match tuple.l3num {
            L3::V4 => 0,
            L3::V6 => 3,
        };
        let destination = native_words(tuple.dst);
        let salt = if self.persistent { 0 } else { destination[last_word] ^ u32::from(zone) };
        let mut hash = jhash2(native_words(tuple.src), salt);
        let mut picked = match manip {
            Manip::Src => tuple.src,
            Manip::Dst => tuple.dst,
        };
        let mut below_last = false;
        for (word, salt) in destination.into_iter().enumerate().take(last_word + 1) {
            let at = word * 4;
            let read = |address: &Addr| {
                u32::from_be_bytes([address.0[at], address.0[at + 1], address.0[at + 2], address.0[at + 3]])
            };
            let (low, span) = if below_last {
                (0, u32::MAX)
            } else {
                (read(&first), read(&last).wrapping_sub(read(&first)).wrapping_add(1))
            };
            let value = low.wrapping_add(((u64::from(hash) * u64::from(span)) >> 32) as u32);
            picked.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
            below_last |= value != read(&last);
            if !self.persistent {
                hash ^= salt;
            }
        }
        Some(picked)
    }
}

/// The four words of an address as a little-endian machine loads them.
fn native_words(address: Addr) -> [u32; 4] {
    core::array::from_fn(|word| {
        let at = word * 4;
        u32::from_le_bytes([address.0[at], address.0[at + 1], address.0[at + 2], address.0[at + 3]])
    })
}

/// Bob Jenkins' lookup3 over four words (`jhash2`).
fn jhash2(words: [u32; 4], seed: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(16).wrapping_add(seed);
    let (mut a, mut b, mut c) =
        (start.wrapping_add(words[0]), start.wrapping_add(words[1]), start.wrapping_add(words[2]));
    let mix = |x: u32, y: u32, bits: u32| x.wrapping_sub(y) ^ y.rotate_left(bits);
    a = mix(a, c, 4);
    c = c.wrapping_add(b);
    b = mix(b, a, 6);
    a = a.wrapping_add(c);
    c = mix(c, b, 8);
    b = b.wrapping_add(a);
    a = mix(a, c, 16);
    c = c.wrapping_add(b);
    b = mix(b, a, 19);
    a = a.wrapping_add(c);
    c = mix(c, b, 4);
    b = b.wrapping_add(a);
    a = a.wrapping_add(words[3]);
    let last = |x: u32, y: u32, bits: u32| (x ^ y).wrapping_sub(y.rotate_left(bits));
    c = last(c, b, 14);
    a = last(a, c, 11);
    b = last(b, a, 25);
    c = last(c, b, 16);
    a = last(a, c, 4);
    b = last(b, a, 14);
    last(c, b, 24)
}
