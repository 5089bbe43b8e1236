//! The rules of a live run: the kernel's decision into mark bits, the packet into a queue, a copy from behind NAT. Those
//! of a NAT on a queue are [`NatRules`].
//!
//! At mangle PREROUTING and OUTPUT conntrack has just decided. `--ctstate` and `--ctdir` tell the decision apart
//! (OBS-01), `--set-xmark` writes it into four bits of the mark and leaves the others alone, and NFQUEUE hands packet and
//! mark over. The rules stand behind the user's own in the same chains, because a packet that comes back from a queue
//! skips whatever is left of its chain (NFQ-02).

mod install;
mod nat;

use std::fmt;

pub use install::{Installed, LogTable, QueueRules, remove_leftovers};
pub use nat::{NatBits, NatChains, NatRules, Slot};

/// What the kernel decided about a packet, as the mark bits say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtState {
    /// Original direction, an entry with replies.
    Established,
    /// An error about a flow or the first packets of an expected one, original direction.
    Related,
    /// Original direction, an entry without replies.
    New,
    /// Reply direction.
    EstablishedReply,
    /// As RELATED, reply direction.
    RelatedReply,
    /// Exempt from tracking.
    Untracked,
    /// No entry attached.
    Invalid,
}

impl CtState {
    /// In the order of the rules.
    pub const ALL: [CtState; 7] = [
        CtState::Invalid,
        CtState::Untracked,
        CtState::New,
        CtState::Established,
        CtState::EstablishedReply,
        CtState::Related,
        CtState::RelatedReply,
    ];

    /// The value of the four bits: one more than the kernel's ctinfo, so that 0 says that no rule was met; 9 for
    /// INVALID, which has no ctinfo.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            CtState::Established => 1,
            CtState::Related => 2,
            CtState::New => 3,
            CtState::EstablishedReply => 4,
            CtState::RelatedReply => 5,
            CtState::Untracked => 8,
            CtState::Invalid => 9,
        }
    }

    /// The state's name in reports: the kernel's own, `_REPLY` behind it for the reply direction.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CtState::Established => "ESTABLISHED",
            CtState::Related => "RELATED",
            CtState::New => "NEW",
            CtState::EstablishedReply => "ESTABLISHED_REPLY",
            CtState::RelatedReply => "RELATED_REPLY",
            CtState::Untracked => "UNTRACKED",
            CtState::Invalid => "INVALID",
        }
    }

    /// The match of iptables that only packets with this decision fulfil.
    const fn condition(self) -> &'static str {
        match self {
            CtState::Established => "-m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL",
            CtState::Related => "-m conntrack --ctstate RELATED --ctdir ORIGINAL",
            CtState::New => "-m conntrack --ctstate NEW",
            CtState::EstablishedReply => "-m conntrack --ctstate ESTABLISHED --ctdir REPLY",
            CtState::RelatedReply => "-m conntrack --ctstate RELATED --ctdir REPLY",
            CtState::Untracked => "-m conntrack --ctstate UNTRACKED",
            CtState::Invalid => "-m conntrack --ctstate INVALID",
        }
    }
}

impl fmt::Display for CtState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Four bits of the packet mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MarkBits {
    shift: u8,
}

impl MarkBits {
    /// The four bits from `shift` on; `None` when they do not fit into the 32 of a mark.
    #[must_use]
    pub const fn new(shift: u8) -> Option<MarkBits> {
        if shift <= 28 { Some(MarkBits { shift }) } else { None }
    }

    /// The bits as a mask.
    #[must_use]
    pub const fn mask(self) -> u32 {
        0xf << self.shift
    }

    /// The bits that stand for a decision.
    #[must_use]
    pub const fn encode(self, state: CtState) -> u32 {
        state.code() << self.shift
    }

    /// The decision in a mark; `None` when no rule wrote one.
    #[must_use]
    pub fn decode(self, mark: u32) -> Option<CtState> {
        let code = (mark & self.mask()) >> self.shift;
        CtState::ALL.into_iter().find(|state| state.code() == code)
    }

    /// The mark as it was before the rules, if these bits were 0 then.
    #[must_use]
    pub const fn clear(self, mark: u32) -> u32 {
        mark & !self.mask()
    }
}

impl Default for MarkBits {
    /// The top four bits, which users of marks reach last.
    fn default() -> MarkBits {
        MarkBits { shift: 28 }
    }
}

/// A chain of ours, and the chain of its table that jumps to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chain {
    table: &'static str,
    own: &'static str,
    hook: &'static str,
}

impl Chain {
    const fn of(table: &'static str, own: &'static str, hook: &'static str) -> Chain {
        Chain { table, own, hook }
    }
}

const CHAINS: [Chain; 2] =
    [Chain::of("mangle", "CTWHY_PREROUTING", "PREROUTING"), Chain::of("mangle", "CTWHY_OUTPUT", "OUTPUT")];

/// Prefix of the copies made at POSTROUTING, behind source NAT.
pub const LOG_POSTROUTING: &str = "ctwhy-postrouting";
/// Prefix of the copies made at INPUT, behind source NAT.
pub const LOG_INPUT: &str = "ctwhy-input";
/// Prefix of the copies made at OUTPUT of packets that must not be queued: answers to packets whose entry is not confirmed.
pub const LOG_OUTPUT: &str = "ctwhy-output";

/// Matches an answer of this host that carries the entry of a packet which is not confirmed.
const ANSWERS: &str = "-m conntrack --ctstate RELATED ! --ctstatus CONFIRMED";

/// The rules of a live run as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// Number of the queue.
    pub queue: u16,
    /// Where the decision goes.
    pub bits: MarkBits,
    /// NFLOG group for copies from behind NAT; `None` for no nft table.
    pub log_group: Option<u16>,
    /// Queue packets that came over loopback at PREROUTING, too. They were queued at OUTPUT and carry the entry that they
    /// got there; conntrack does not look at them again (CORE-HOOK-04).
    pub loopback_twice: bool,
}

impl RuleSet {
    /// Rules for queue `queue`, with the default bits, without copies.
    #[must_use]
    pub fn new(queue: u16) -> RuleSet {
        RuleSet { queue, bits: MarkBits::default(), log_group: None, loopback_twice: false }
    }

    /// Name of the nft table.
    #[must_use]
    pub fn nft_table(&self) -> String {
        nft_table(self.queue)
    }

    /// The rules of one chain of ours, without the chain.
    fn rules(&self, chain: Chain) -> Vec<String> {
        let mut rules = Vec::new();
        if chain.hook == "PREROUTING" && !self.loopback_twice {
            rules.push("-i lo -j RETURN".to_owned());
        }
        let mask = self.bits.mask();
        for state in CtState::ALL {
            let value = self.bits.encode(state);
            rules.push(format!("{} -j MARK --set-xmark {value:#x}/{mask:#x}", state.condition()));
        }
        if chain.hook == "OUTPUT" {
            // An error carries the entry of the packet that it answers, and the kernel drops what shares an unconfirmed
            // entry instead of queueing it (NFQ-05): the first hop of a traceroute would be gone.
            if self.log_group.is_none() {
                rules.push(format!("{ANSWERS} -j MARK --set-xmark 0x0/{mask:#x}"));
            }
            rules.push(format!("{ANSWERS} -j RETURN"));
        }
        rules.push(format!("-j NFQUEUE --queue-num {} --queue-bypass", self.queue));
        rules
    }

    /// What `iptables-restore --noflush` and `ip6tables-restore --noflush` take; the same for both families.
    #[must_use]
    pub fn restore_text(&self) -> String {
        let mut text = String::from("*mangle\n");
        for chain in CHAINS {
            text += &format!(":{} - [0:0]\n", chain.own);
        }
        for chain in CHAINS {
            for rule in self.rules(chain) {
                text += &format!("-A {} {rule}\n", chain.own);
            }
            text += &format!("-A {} -j {}\n", chain.hook, chain.own);
        }
        text + "COMMIT\n"
    }

    /// What `nft -f -` takes: chains behind source NAT and before confirm, at the two hooks where packets end or leave, and
    /// one behind the mark bits for what is not queued at OUTPUT. `None` without a log group.
    #[must_use]
    pub fn nft_text(&self) -> Option<String> {
        let group = self.log_group?;
        let mut text = format!("table inet {} {{\n", self.nft_table());
        for (hook, prefix) in [("postrouting", LOG_POSTROUTING), ("input", LOG_INPUT)] {
            text += &format!(
                "\tchain {hook} {{\n\t\ttype filter hook {hook} priority 300; policy accept;\n\
                 \t\tlog prefix \"{prefix}\" group {group} queue-threshold 1\n\t}}\n"
            );
        }
        text += &format!(
            "\tchain output {{\n\t\ttype filter hook output priority -149; policy accept;\n\
             \t\tct state related ct status & confirmed == 0 log prefix \"{LOG_OUTPUT}\" group {group} queue-threshold 1 \
             meta mark set meta mark & {:#x}\n\t}}\n",
            !self.bits.mask()
        );
        Some(text + "}\n")
    }

    /// The commands that install the rules, to paste into a root shell.
    #[must_use]
    pub fn install_commands(&self) -> String {
        let mut text = String::new();
        for tool in ["iptables", "ip6tables"] {
            for chain in CHAINS {
                text += &format!("{tool} -t mangle -N {}\n", chain.own);
                for rule in self.rules(chain) {
                    text += &format!("{tool} -t mangle -A {} {rule}\n", chain.own);
                }
                text += &format!("{tool} -t mangle -A {} -j {}\n", chain.hook, chain.own);
            }
        }
        if let Some(table) = self.nft_text() {
            text += &format!("nft -f - <<'END'\n{table}END\n");
        }
        text
    }

    /// The commands that remove them again.
    #[must_use]
    pub fn remove_commands(&self) -> String {
        let mut text = String::new();
        for tool in ["iptables", "ip6tables"] {
            for chain in CHAINS {
                text += &format!("{tool} -t mangle -D {} -j {}\n", chain.hook, chain.own);
                text += &format!("{tool} -t mangle -F {0}\n{tool} -t mangle -X {0}\n", chain.own);
            }
        }
        if self.log_group.is_some() {
            text += &format!("nft delete table inet {}\n", self.nft_table());
        }
        text
    }

    /// Both, with a line of explanation each: what a user is shown.
    #[must_use]
    pub fn print(&self) -> String {
        format!(
            "# Packets go to queue {} with conntrack's decision in mark bits {:#x}.\n{}\n# To remove them:\n{}",
            self.queue,
            self.bits.mask(),
            self.install_commands(),
            self.remove_commands()
        )
    }
}

fn nft_table(queue: u16) -> String {
    format!("ctwhy_{queue}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decision_survives_the_mark_with_the_users_bits_beside_it() {
        for shift in 0..=28 {
            let bits = MarkBits::new(shift).unwrap();
            for state in CtState::ALL {
                let user = 0xdead_beef & !bits.mask();
                let mark = user | bits.encode(state);
                assert_eq!(bits.decode(mark), Some(state));
                assert_eq!(bits.clear(mark), user);
            }
            assert_eq!(bits.decode(!bits.mask()), None);
        }
        assert_eq!(MarkBits::new(29), None);
    }

    #[test]
    fn the_rules_of_a_chain() {
        let rules = RuleSet { bits: MarkBits::new(4).unwrap(), ..RuleSet::new(7) }.rules(CHAINS[0]);
        let expected = [
            "-i lo -j RETURN",
            "-m conntrack --ctstate INVALID -j MARK --set-xmark 0x90/0xf0",
            "-m conntrack --ctstate UNTRACKED -j MARK --set-xmark 0x80/0xf0",
            "-m conntrack --ctstate NEW -j MARK --set-xmark 0x30/0xf0",
            "-m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -j MARK --set-xmark 0x10/0xf0",
            "-m conntrack --ctstate ESTABLISHED --ctdir REPLY -j MARK --set-xmark 0x40/0xf0",
            "-m conntrack --ctstate RELATED --ctdir ORIGINAL -j MARK --set-xmark 0x20/0xf0",
            "-m conntrack --ctstate RELATED --ctdir REPLY -j MARK --set-xmark 0x50/0xf0",
            "-j NFQUEUE --queue-num 7 --queue-bypass",
        ];
        assert_eq!(rules, expected);
    }
}
