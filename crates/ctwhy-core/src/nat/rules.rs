//! The rules of a nat table, as data. Their text form, `iptables-save`, is read in [`super::iptables`].

use alloc::string::String;
use alloc::vec::Vec;

use super::range::Range;
use crate::hook::Hook;
use crate::tuple::{Addr, L3, Tuple, has_ports};

/// The nat table of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// PREROUTING: destinations of packets that arrive.
    pub prerouting: Chain,
    /// INPUT: sources of packets to this host.
    pub input: Chain,
    /// OUTPUT: destinations of packets from this host.
    pub output: Chain,
    /// POSTROUTING: sources of packets that leave.
    pub postrouting: Chain,
}

impl Ruleset {
    /// The chain that is asked at a hook. FORWARD has none.
    #[must_use]
    pub const fn chain(&self, hook: Hook) -> Option<&Chain> {
        match hook {
            Hook::PreRouting => Some(&self.prerouting),
            Hook::LocalIn => Some(&self.input),
            Hook::LocalOut => Some(&self.output),
            Hook::PostRouting => Some(&self.postrouting),
            Hook::Forward => None,
        }
    }

    /// All rules, chain by chain.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        [&self.prerouting, &self.input, &self.output, &self.postrouting].into_iter().flat_map(|chain| &chain.rules)
    }
}

/// A base chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Is the policy DROP instead of ACCEPT?
    pub drops: bool,
    /// The rules in order; the first that matches decides.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Line in the text that it was read from, counted from 1.
    pub line: u32,
    /// What a packet must be like.
    pub matches: Matches,
    /// What happens to its flow.
    pub target: Target,
}

/// A condition, possibly turned round by `!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<T> {
    /// What is compared with.
    pub value: T,
    /// Must it be different?
    pub negated: bool,
}

impl<T> Condition<T> {
    fn is_met(&self, met: impl FnOnce(&T) -> bool) -> bool {
        met(&self.value) != self.negated
    }
}

/// The conditions of a rule; one that is not set always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// `-s`
    pub src: Option<Condition<Network>>,
    /// `-d`
    pub dst: Option<Condition<Network>>,
    /// `-i`
    pub in_interface: Option<Condition<String>>,
    /// `-o`
    pub out_interface: Option<Condition<String>>,
    /// `-p`
    pub protocol: Option<Condition<u8>>,
    /// `--sport`: first and last.
    pub sport: Option<Condition<(u16, u16)>>,
    /// `--dport`: first and last.
    pub dport: Option<Condition<(u16, u16)>>,
}

/// An address and the number of its bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: Addr,
    /// Bits that count, from the left.
    pub prefix: u8,
}

impl Network {
    /// Is `address` in it?
    #[must_use]
    pub fn contains(&self, address: Addr) -> bool {
        let (own, other) = (u128::from_be_bytes(self.address.0), u128::from_be_bytes(address.0));
        let differing = own ^ other;
        self.prefix == 0 || differing >> (128 - u32::from(self.prefix.min(128))) == 0
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Leave the flow as it is; no further rule is asked.
    Accept,
    /// Drop the packet.
    Drop,
    /// The source becomes an address of the outgoing interface.
    Masquerade(Range),
    /// The source becomes one of the range.
    Snat(Range),
    /// The destination becomes one of the range.
    Dnat(Range),
    /// The destination becomes this host.
    Redirect(Range),
}

/// What a rule may look at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The packet as it is at this hook.
    pub tuple: &'a Tuple,
    /// Name of the interface that it came in by.
    pub in_interface: Option<&'a str>,
    /// Name of the interface that it leaves by.
    pub out_interface: Option<&'a str>,
}

impl Matches {
    /// Does the rule apply to the packet?
    #[must_use]
    pub fn matches(&self, packet: &Subject<'_>) -> bool {
        let tuple = packet.tuple;
        let port_in = |port: u16| move |&(first, last): &(u16, u16)| first <= port && port <= last;
        let ports = has_ports(tuple.protonum);
        self.src.as_ref().is_none_or(|c| c.is_met(|network| network.contains(tuple.src)))
            && self.dst.as_ref().is_none_or(|c| c.is_met(|network| network.contains(tuple.dst)))
            && self.protocol.as_ref().is_none_or(|c| c.is_met(|number| *number == tuple.protonum))
            && self.sport.as_ref().is_none_or(|c| ports && c.is_met(port_in(tuple.src_u)))
            && self.dport.as_ref().is_none_or(|c| ports && c.is_met(port_in(tuple.dst_u)))
            && self.in_interface.as_ref().is_none_or(|c| c.is_met(|p| interface_matches(p, packet.in_interface)))
            && self.out_interface.as_ref().is_none_or(|c| c.is_met(|p| interface_matches(p, packet.out_interface)))
    }
}

/// An interface name, or a pattern that ends in `+`.
fn interface_matches(pattern: &str, name: Option<&str>) -> bool {
    let name = name.unwrap_or("");
    match pattern.strip_suffix('+') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// Bits of an address of the family.
#[must_use]
pub const fn address_bits(l3num: L3) -> u8 {
    match l3num {
        L3::V4 => 32,
        L3::V6 => 128,
    }
}
