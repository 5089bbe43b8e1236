//! Addresses mapped so that those which shared a prefix share one of the same length, and no others do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A mapping of addresses, the same for the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    key: [u64; 2],
}

impl Addresses {
    /// The mapping of a key, which is any bytes.
    #[must_use]
    pub fn new(key: &[u8]) -> Addresses {
        Addresses { key: [siphash([0, 0], key), siphash([0, 1], key)] }
    }

    /// The address in its place.
    #[must_use]
    pub fn map(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => IpAddr::V4(self.map_v4(address)),
            IpAddr::V6(address) => IpAddr::V6(self.map_v6(address)),
        }
    }

    /// As [`Addresses::map`]. The range that an address is of, and its first eight bits, stay.
    #[must_use]
    pub fn map_v4(&self, address: Ipv4Addr) -> Ipv4Addr {
        let kept = match address.octets() {
            [0 | 127 | 224.., ..] => 32,
            [172, 16..32, ..] => 12,
            [169, 254, ..] | [192, 168, ..] => 16,
            _ => 8,
        };
        let special = |a: Ipv4Addr| a.is_private() || a.is_link_local();
        let mut mapped = address;
        // A public address is mapped on until it is one again: each still has a place of its own.
        loop {
            let bits = u128::from(mapped.to_bits()) << 96;
            mapped = Ipv4Addr::from_bits((self.scramble(bits, kept, 32, 4) >> 96) as u32);
            if special(mapped) == special(address) {
                return mapped;
            }
        }
    }

    /// As [`Addresses::map`]. The first sixteen bits stay, and multicast, loopback and unspecified addresses.
    #[must_use]
    pub fn map_v6(&self, address: Ipv6Addr) -> Ipv6Addr {
        if address.is_multicast() || address.is_loopback() || address.is_unspecified() {
            return address;
        }
        // All link-local addresses share 64 bits.
        let kept = if address.is_unicast_link_local() { 64 } else { 16 };
        Ipv6Addr::from_bits(self.scramble(address.to_bits(), kept, 128, 6))
    }

    /// Flips each of the leading `length` bits behind the first `kept` ones or not, as the bits before it have it.
    fn scramble(&self, bits: u128, kept: u32, length: u32, family: u8) -> u128 {
        let mut out = bits;
        for at in kept..length {
            let before = bits & !(u128::MAX >> at);
            let mut text = [0; 18];
            text[..16].copy_from_slice(&before.to_be_bytes());
            text[16..].copy_from_slice(&[at as u8, family]);
            if siphash(self.key, &text) & 1 == 1 {
                out ^= 1 << (127 - at);
            }
        }
        out
    }
}

/// SipHash-2-4: a keyed hash that nobody without the key foretells.
pub(super) fn siphash(key: [u64; 2], data: &[u8]) -> u64 {
    let [k0, k1] = key;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let round = |v: &mut [u64; 4]| {
        v[0] = v[0].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[2] = v[2].rotate_left(32);
    };
    let mut words = data.chunks_exact(8);
    let mut take = |word: u64| {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    };
    for word in &mut words {
        take(word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    let rest = words.remainder().iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    take(rest | (data.len() as u64) << 56);
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v.iter().fold(0, |hash, word| hash ^ word)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test fails by panicking.
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_siphash_2_4() {
        // The vectors of its authors: key 00 01 .. 0f, messages of 0, 1, 8 and 15 bytes.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(siphash(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash(key, &message[..1]), 0x74f8_39c5_93dc_67fd);
        assert_eq!(siphash(key, &message[..8]), 0x93f5_f579_9a93_2462);
        assert_eq!(siphash(key, &message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn prefixes_are_kept_and_no_longer_ones_are_made() {
        let map = Addresses::new(b"key");
        let shared = |a: IpAddr, b: IpAddr| match (a, b) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => 0,
        };
        let addresses: Vec<IpAddr> = [
            "8.8.8.8",
            "8.8.4.4",
            "8.8.8.9",
            "10.0.0.1",
            "10.0.0.2",
            "10.1.0.1",
            "192.168.1.1",
            "192.168.1.254",
            "172.16.0.1",
            "172.31.0.1",
            "203.0.113.9",
            "203.0.113.200",
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8:1::1",
            "fd00::1",
            "fd00::2",
            "fe80::1",
            "fe80::2",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        for a in &addresses {
            for b in &addresses {
                assert_eq!(shared(map.map(*a), map.map(*b)), shared(*a, *b), "{a} {b}");
            }
            assert_eq!(map.map(*a), Addresses::new(b"key").map(*a));
        }
        assert!(addresses.iter().any(|a| Addresses::new(b"other").map(*a) != map.map(*a)));
        assert!(addresses.iter().filter(|a| map.map(**a) != **a).count() > 15);
        let odd: std::collections::BTreeSet<_> = (0..=255u8).map(|n| map.map_v4([172, n, 0, 1].into())).collect();
        assert_eq!(odd.len(), 256);
        assert_eq!(odd.iter().filter(|address| address.is_private()).count(), 16);
        for same in ["224.0.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255", "ff02::1", "::", "::1"] {
            let same = same.parse().unwrap();
            assert_eq!(map.map(same), same);
        }
    }
}
