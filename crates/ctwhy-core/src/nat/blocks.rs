//! Ports in blocks that can be computed (RFC 7422): who had a port outside is known without a log.

use core::num::NonZeroU16;

use crate::rules::Network;
use crate::tuple::{Addr, L3};

/// Which address inside has which ports outside. The addresses of a network inside, counted from its first, get one block
/// after the other: all of the first address outside, then all of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBlocks {
    /// Family of the network.
    pub l3num: L3,
    /// The network inside. Sources that are not in it get ports as ever.
    pub inside: Network,
    /// How many ports a block has.
    pub size: NonZeroU16,
    /// The first port of the first block of each address outside.
    pub first: u16,
}

/// The ports of one address inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The address outside.
    pub address: Addr,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl PortBlocks {
    /// Is the address one of those inside?
    #[must_use]
    pub fn serves(&self, l3num: L3, inside: Addr) -> bool {
        l3num == self.l3num && self.inside.contains(inside)
    }

    /// How many blocks an address outside has. Ports that are too few for a block are left over.
    #[must_use]
    pub fn per_address(&self) -> u32 {
        (u32::from(u16::MAX) + 1 - u32::from(self.first)) / u32::from(self.size.get())
    }

    /// The block of an address inside, where `outside` are the first and the last address to choose from; `None` where the
    /// blocks do not last so far.
    #[must_use]
    pub fn of(&self, inside: Addr, outside: (Addr, Addr)) -> Option<Block> {
        let index = self.number(inside) & self.hosts();
        let per_address = u128::from(self.per_address());
        let (address, block) = (index.checked_div(per_address)?, index.checked_rem(per_address)?);
        let (lowest, highest) = (self.number(outside.0), self.number(outside.1));
        let address = lowest.checked_add(address).filter(|address| *address <= highest)?;
        let first = u128::from(self.first) + block * u128::from(self.size.get());
        let first = u16::try_from(first).ok()?;
        Some(Block { address: self.address(address), first, last: first.checked_add(self.size.get() - 1)? })
    }

    /// The address inside whose block a port outside is in, where `lowest` is the first address outside. `None` for a port
    /// that is in no block.
    #[must_use]
    pub fn owner(&self, outside: Addr, port: u16, lowest: Addr) -> Option<Addr> {
        let per_address = u128::from(self.per_address());
        let block = u128::from(port.checked_sub(self.first)? / self.size.get());
        let address = self.number(outside).checked_sub(self.number(lowest))?;
        let index = address.checked_mul(per_address)?.checked_add(block)?;
        let network = self.number(self.inside.address) & !self.hosts();
        (block < per_address && index <= self.hosts()).then(|| self.address(network | index))
    }

    /// The bits of an address that the network leaves open.
    fn hosts(&self) -> u128 {
        let bits = match self.l3num {
            L3::V4 => 32,
            L3::V6 => 128,
        };
        u128::MAX.checked_shl(bits - u32::from(self.inside.prefix).min(bits)).map_or(u128::MAX, |network| !network)
    }

    fn number(&self, address: Addr) -> u128 {
        u128::from_be_bytes(address.0) >> self.unused()
    }

    fn address(&self, number: u128) -> Addr {
        Addr((number << self.unused()).to_be_bytes())
    }

    /// Bits behind an IPv4 address in its 16 bytes.
    const fn unused(&self) -> u32 {
        match self.l3num {
            L3::V4 => 96,
            L3::V6 => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test that cannot go on fails.

    use super::*;
    use core::net::IpAddr;

    fn ip(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn blocks(inside: &str, prefix: u8, size: u16, first: u16) -> PortBlocks {
        let l3num = if inside.contains(':') { L3::V6 } else { L3::V4 };
        let inside = Network { address: ip(inside), prefix };
        PortBlocks { l3num, inside, size: NonZeroU16::new(size).unwrap(), first }
    }

    #[test]
    fn blocks_follow_each_other_over_the_addresses_outside() {
        let of = |blocks: PortBlocks, inside: &str, (lowest, highest): (&str, &str)| {
            blocks.of(ip(inside), (ip(lowest), ip(highest))).map(|block| (block.address, block.first, block.last))
        };
        let wide = blocks("10.0.0.0", 8, 1_000, 1_024);
        assert_eq!(wide.per_address(), 64);
        let two = ("203.0.113.1", "203.0.113.2");
        for (inside, expected) in [
            ("10.0.0.0", Some(("203.0.113.1", 1_024, 2_023))),
            ("10.0.0.63", Some(("203.0.113.1", 64_024, 65_023))),
            ("10.0.0.64", Some(("203.0.113.2", 1_024, 2_023))),
            ("10.0.0.127", Some(("203.0.113.2", 64_024, 65_023))),
            ("10.0.0.128", None),
            ("10.255.255.255", None),
        ] {
            let expected = expected.map(|(address, first, last)| (ip(address), first, last));
            assert_eq!(of(wide, inside, two), expected, "{inside}");
        }
        let one = ("203.0.113.1", "203.0.113.1");
        // A block of all ports, one that is too large for what is left, and the last port of all.
        assert_eq!(of(blocks("10.0.1.2", 32, u16::MAX, 1), "10.0.1.2", one), Some((ip("203.0.113.1"), 1, u16::MAX)));
        assert_eq!(of(blocks("10.0.1.0", 24, u16::MAX, 2), "10.0.1.0", one), None);
        assert_eq!(of(blocks("10.0.1.0", 24, 1, u16::MAX), "10.0.1.0", one), Some((ip("203.0.113.1"), 65_535, 65_535)));
        // All of IPv6 is a network, too.
        let all = blocks("::", 0, 512, 1_024);
        assert_eq!(of(all, "::1", ("2001:db8::1", "2001:db8::2")), Some((ip("2001:db8::1"), 1_536, 2_047)));
        assert_eq!(of(all, "ffff::", ("2001:db8::1", "2001:db8::2")), None);
        assert!(wide.serves(L3::V4, ip("10.9.9.9")) && !wide.serves(L3::V4, ip("11.0.0.1")));
        assert!(!wide.serves(L3::V6, ip("a00::")));
    }

    #[test]
    fn the_owner_of_a_port_is_computed_back() {
        for (blocks, lowest) in [
            (blocks("10.0.0.0", 20, 1_000, 1_024), "203.0.113.1"),
            (blocks("10.0.0.0", 24, 7, 60_000), "203.0.113.250"),
            (blocks("2001:db8:1::", 112, 4_096, 1_024), "2001:db8:113::1"),
        ] {
            let highest = blocks.address(blocks.number(ip(lowest)) + 5);
            let mut served = 0;
            for host in 0..=blocks.hosts() {
                let inside = blocks.address(blocks.number(blocks.inside.address) + host);
                let Some(block) = blocks.of(inside, (ip(lowest), highest)) else { break };
                for port in [block.first, block.last] {
                    assert_eq!(blocks.owner(block.address, port, ip(lowest)), Some(inside));
                }
                served += 1;
            }
            assert_eq!(served, (u128::from(blocks.per_address()) * 6).min(blocks.hosts() + 1));
            assert_eq!(blocks.owner(ip(lowest), blocks.first - 1, ip(lowest)), None);
        }
        // Behind the last block, and behind the last address inside.
        let few = blocks("10.0.0.0", 30, 1_000, 1_024);
        assert_eq!(few.owner(ip("203.0.113.1"), 65_024, ip("203.0.113.1")), None);
        assert_eq!(few.owner(ip("203.0.113.1"), 5_024, ip("203.0.113.1")), None);
        assert_eq!(few.owner(ip("203.0.113.0"), 1_024, ip("203.0.113.1")), None);
    }
}
