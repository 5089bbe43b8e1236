//! The rules of a NAT on a queue: packets exempt from the kernel's own tracking, handed over at the two hooks where NAT
//! has something to do.
//!
//! raw exempts, the end of mangle PREROUTING and OUTPUT queues every packet, and mangle POSTROUTING and INPUT queue those
//! that the consumer wants to see again. What it wants is in the mark: one bit says that the packet was seen, the others
//! are a slot in which the consumer remembers it, and none of both is left behind the last hook.
//!
//! Where nobody serves the queue packets of this host itself pass, but nothing is forwarded: what was not seen ends in
//! mangle FORWARD. So a NAT that is gone neither shows private addresses nor lets anybody in, and its machine can still be
//! reached.

use std::io;
use std::num::NonZeroU32;

use super::Chain;
use super::install::{Namespace, complain, find_tools};

/// Bits of the packet mark: the highest says that the NAT has seen the packet, the others are a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatBits {
    mask: u32,
}

/// The place where a packet is remembered between the two hooks, from 1.
pub type Slot = NonZeroU32;

/// So many bits at least: with fewer slots packets would wait for each other.
const FEWEST_BITS: u32 = 6;

impl NatBits {
    /// Bits that lie side by side, at least six of them; `None` for others.
    #[must_use]
    pub const fn new(mask: u32) -> Option<NatBits> {
        let together = mask.count_ones() + mask.leading_zeros() + mask.trailing_zeros() == u32::BITS;
        if together && mask.count_ones() >= FEWEST_BITS { Some(NatBits { mask }) } else { None }
    }

    /// All of them.
    #[must_use]
    pub const fn mask(self) -> u32 {
        self.mask
    }

    /// The bit that says that the packet was seen.
    #[must_use]
    pub const fn seen(self) -> u32 {
        1 << (31 - self.mask.leading_zeros())
    }

    /// How many slots there are.
    #[must_use]
    pub const fn slots(self) -> u32 {
        (self.seen() >> self.mask.trailing_zeros()) - 1
    }

    /// The mark of a packet that was seen; with a slot when it is to be handed over again.
    #[must_use]
    pub const fn mark(self, users: u32, slot: Option<Slot>) -> u32 {
        let slot = match slot {
            Some(slot) => slot.get() << self.mask.trailing_zeros(),
            None => 0,
        };
        self.clear(users) | self.seen() | (slot & self.mask)
    }

    /// The slot in a mark.
    #[must_use]
    pub const fn slot(self, mark: u32) -> Option<Slot> {
        Slot::new((mark & self.mask & !self.seen()) >> self.mask.trailing_zeros())
    }

    /// The mark without these bits: the user's.
    #[must_use]
    pub const fn clear(self, mark: u32) -> u32 {
        mark & !self.mask
    }
}

impl Default for NatBits {
    /// The top eight bits.
    fn default() -> NatBits {
        NatBits { mask: 0xff00_0000 }
    }
}

const PREROUTING: Chain = Chain::of("mangle", "CTWHY_NAT_PREROUTING", "PREROUTING");
const INPUT: Chain = Chain::of("mangle", "CTWHY_NAT_INPUT", "INPUT");
const FORWARD: Chain = Chain::of("mangle", "CTWHY_NAT_FORWARD", "FORWARD");
const OUTPUT: Chain = Chain::of("mangle", "CTWHY_NAT_OUTPUT", "OUTPUT");
const POSTROUTING: Chain = Chain::of("mangle", "CTWHY_NAT_POSTROUTING", "POSTROUTING");
/// Nobody jumps there. That the rule in it exists makes the kernel put fragments together in front of the raw table.
const DEFRAG: Chain = Chain::of("mangle", "CTWHY_NAT_DEFRAG", "");
const RAW_PREROUTING: Chain = Chain::of("raw", "CTWHY_NAT_PREROUTING", "PREROUTING");
const RAW_OUTPUT: Chain = Chain::of("raw", "CTWHY_NAT_OUTPUT", "OUTPUT");

const QUEUEING: [Chain; 7] = [RAW_PREROUTING, RAW_OUTPUT, PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING];
const CHAINS: [Chain; 8] = [RAW_PREROUTING, RAW_OUTPUT, PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING, DEFRAG];

/// ICMPv6 that never leaves its link and that conntrack does not track (ICMP6-02): neighbours are found also while the
/// queue is slow. It has a hop limit of 255 (RFC 4861); that is asked first because the match of the type drops what is too
/// short to have one.
const NEIGHBOURS: [u8; 5] = [133, 134, 135, 136, 137];

/// The rules as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatRules {
    /// The queue of packets that begin their way; those that end it are in the next one.
    pub queue: u16,
    /// Where the consumer remembers packets.
    pub bits: NatBits,
    /// Only packets that come in or leave by these interfaces; all but loopback where there are none.
    pub interfaces: Vec<String>,
    /// Forward packets untranslated while nobody serves the queue?
    pub bypass: bool,
}

impl NatRules {
    /// Rules for queues `queue` and `queue + 1`.
    #[must_use]
    pub fn new(queue: u16) -> NatRules {
        NatRules { queue, bits: NatBits::default(), interfaces: Vec::new(), bypass: false }
    }

    /// The queue of packets that end their way.
    #[must_use]
    pub const fn last_queue(&self) -> u16 {
        self.queue.saturating_add(1)
    }

    /// A rule for each interface, as `option` says, or one for all.
    fn each(&self, option: &str, rule: &str) -> Vec<String> {
        if self.interfaces.is_empty() {
            return vec![rule.to_owned()];
        }
        self.interfaces.iter().map(|interface| format!("{option} {interface} {rule}")).collect()
    }

    fn rules(&self, chain: Chain, tool: &str) -> Vec<String> {
        let (queue, last) = (self.queue, self.last_queue());
        let (mask, seen) = (self.bits.mask(), self.bits.seen());
        let first = format!("-j NFQUEUE --queue-num {queue} --queue-bypass");
        let is_v6 = tool == "ip6tables";
        let neighbours = || {
            let types = if is_v6 { &NEIGHBOURS[..] } else { &[] };
            types.iter().map(|kind| format!("-p icmpv6 -m hl --hl-eq 255 -m icmp6 --icmpv6-type {kind} -j RETURN"))
        };
        let one = |rule: &str| vec![rule.to_owned()];
        match chain {
            RAW_PREROUTING => [one("-i lo -j RETURN"), self.each("-i", "-j CT --notrack")].concat(),
            RAW_OUTPUT => [one("-o lo -j RETURN"), self.each("-o", "-j CT --notrack")].concat(),
            PREROUTING => {
                let mut rules = one("-i lo -j RETURN");
                rules.extend(neighbours());
                rules.extend(self.each("-i", &first));
                rules
            }
            OUTPUT => {
                let unreachable = if is_v6 {
                    "-p icmpv6 -m icmp6 --icmpv6-type destination-unreachable"
                } else {
                    "-p icmp -m icmp --icmp-type destination-unreachable"
                };
                // That a neighbour does not answer the kernel tells the source of the packet, which is this host once the
                // packet was translated: NAT turns the error round to whom it is about.
                let mut rules = vec![format!("-o lo {unreachable} {first}"), "-o lo -j RETURN".to_owned()];
                rules.extend(neighbours());
                rules.extend(self.each("-o", &first));
                rules
            }
            FORWARD if self.bypass => Vec::new(),
            FORWARD => self.each("-i", &format!("-m mark ! --mark {seen:#x}/{seen:#x} -j DROP")),
            INPUT | POSTROUTING => vec![
                format!("-m mark --mark {seen:#x}/{mask:#x} -j MARK --set-xmark 0x0/{mask:#x}"),
                format!("-m mark --mark {seen:#x}/{seen:#x} -j NFQUEUE --queue-num {last}"),
            ],
            DEFRAG => one("-m socket -j RETURN"),
            _ => Vec::new(),
        }
    }

    /// What `iptables-restore --noflush` or `ip6tables-restore --noflush` takes; `tool` is `iptables` or `ip6tables`.
    #[must_use]
    pub fn restore_text(&self, tool: &str) -> String {
        let mut text = String::new();
        for table in ["mangle", "raw"] {
            text += &format!("*{table}\n");
            let chains = || CHAINS.into_iter().filter(|chain| chain.table == table);
            for chain in chains() {
                text += &format!(":{} - [0:0]\n", chain.own);
            }
            for chain in chains() {
                for rule in self.rules(chain, tool) {
                    text += &format!("-A {} {rule}\n", chain.own);
                }
                text += &jump(chain);
            }
            text += "COMMIT\n";
        }
        text
    }

    /// The commands that install the rules, to paste into a root shell.
    #[must_use]
    pub fn install_commands(&self) -> String {
        let mut text = String::new();
        for tool in ["iptables", "ip6tables"] {
            text += &format!("{tool}-restore --noflush <<'END'\n{}END\n", self.restore_text(tool));
        }
        text
    }

    /// The commands that remove them again.
    #[must_use]
    pub fn remove_commands(&self) -> String {
        let mut text = String::new();
        for tool in ["iptables", "ip6tables"] {
            for Chain { table, own, hook } in CHAINS {
                if !hook.is_empty() {
                    text += &format!("{tool} -t {table} -D {hook} -j {own}\n");
                }
                text += &format!("{tool} -t {table} -F {own}\n{tool} -t {table} -X {own}\n");
            }
        }
        text
    }

    /// Removes what a killed run left and installs the rules.
    ///
    /// # Errors
    /// iptables is missing, its kernel side is, CAP_NET_ADMIN is missing, or a NAT that lives has rules in place.
    pub fn install(&self) -> io::Result<NatChains> {
        find_tools()?;
        let namespace = Namespace::of_this_thread()?;
        namespace.refuse_when_in_use(&CHAINS)?;
        namespace.remove_chains(&CHAINS)?;
        // From here on whatever is in place goes when this is dropped.
        let chains = NatChains { namespace, removed: false };
        chains.namespace.restore(|tool| self.restore_text(tool))?;
        Ok(chains)
    }
}

/// The line that leads packets into a chain: behind the user's rules, because a packet that comes back from a queue skips
/// the rest of its table, but in front of them where it is about packets that were not seen.
fn jump(chain: Chain) -> String {
    match chain {
        DEFRAG => String::new(),
        FORWARD => format!("-I {} 1 -j {}\n", chain.hook, chain.own),
        _ => format!("-A {} -j {}\n", chain.hook, chain.own),
    }
}

/// Rules of a NAT that are in place; dropping it removes them from the network namespace that they are in, also while a
/// panic unwinds.
#[derive(Debug)]
pub struct NatChains {
    namespace: Namespace,
    removed: bool,
}

impl NatChains {
    /// Removes the rules that queue packets. What still waits in the queues stays there: the kernel drops it when it stops
    /// putting fragments together, which it does with the last rule.
    ///
    /// # Errors
    /// A tool's error.
    pub fn end_queueing(&self) -> io::Result<()> {
        self.namespace.remove_chains(&QUEUEING)
    }

    /// Removes the rules and says whether that worked, which dropping cannot.
    ///
    /// # Errors
    /// A tool's error.
    pub fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        self.namespace.remove_chains(&CHAINS)
    }
}

impl Drop for NatChains {
    fn drop(&mut self) {
        if !self.removed {
            complain(self.namespace.remove_chains(&CHAINS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_survives_the_mark_with_the_users_bits_beside_it() {
        for mask in [0xff00_0000, 0x3f, 0x000f_ff00, u32::MAX] {
            let bits = NatBits::new(mask).unwrap();
            assert_eq!(u64::from(bits.slots()), (1 << (mask.count_ones() - 1)) - 1);
            let user = 0xdead_beef & !mask;
            for slot in [None, Slot::new(1), Slot::new(bits.slots())] {
                let mark = bits.mark(0xdead_beef, slot);
                assert_eq!((bits.slot(mark), bits.clear(mark)), (slot, user));
                assert_ne!(mark & bits.seen(), 0);
            }
            assert_eq!(bits.slot(user), None);
        }
        for mask in [0, 0x1f, 0x8000_0001, 0xf0f0_0000] {
            assert_eq!(NatBits::new(mask), None, "{mask:#x}");
        }
    }

    #[test]
    fn what_was_not_seen_is_not_forwarded() {
        let rules = NatRules { bits: NatBits::new(0xff00).unwrap(), ..NatRules::new(7) };
        assert_eq!(rules.rules(FORWARD, "iptables"), ["-m mark ! --mark 0x8000/0x8000 -j DROP"]);
        assert!(NatRules { bypass: true, ..rules.clone() }.rules(FORWARD, "iptables").is_empty());
        let expected = [
            "-m mark --mark 0x8000/0xff00 -j MARK --set-xmark 0x0/0xff00",
            "-m mark --mark 0x8000/0x8000 -j NFQUEUE --queue-num 8",
        ];
        assert_eq!(rules.rules(POSTROUTING, "iptables"), expected);
        let some = NatRules { interfaces: vec!["lan".to_owned(), "wan".to_owned()], ..rules };
        let queued =
            ["-i lan -j NFQUEUE --queue-num 7 --queue-bypass", "-i wan -j NFQUEUE --queue-num 7 --queue-bypass"];
        assert_eq!(some.rules(PREROUTING, "iptables")[1..], queued);
    }
}
