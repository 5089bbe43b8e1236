//! Rules: tables of chains as `iptables` has them, one set for each family. Their text is read in [`iptables`].
//!
//! [`mod@matches`] is what a rule asks of a packet, [`target`] what the rules of raw, mangle and filter do; the targets of the
//! nat table are in [`crate::nat::rules`].

pub mod iptables;
pub mod matches;
pub(crate) mod run;
pub mod target;

use alloc::vec::Vec;
use core::fmt;

pub use matches::{Condition, Matches, Network};
pub use target::Target;

use crate::hook::Hook;
use crate::nat;

/// The tables of one family. A table that does not exist is `None`, and nothing is asked there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// In front of conntrack.
    pub raw: Option<Table<Target>>,
    /// Behind conntrack, in front of nat.
    pub mangle: Option<Table<Target>>,
    /// Where flows are bound. Without one there is no NAT, not even null bindings (CORE-HOOK-02).
    pub nat: Option<Table<nat::rules::Target>>,
    /// Behind nat destination, in front of nat source.
    pub filter: Option<Table<Target>>,
}

impl Rules {
    /// A table of raw, mangle and filter.
    #[must_use]
    pub const fn table(&self, name: TableName) -> Option<&Table<Target>> {
        match name {
            TableName::Raw => self.raw.as_ref(),
            TableName::Mangle => self.mangle.as_ref(),
            TableName::Filter => self.filter.as_ref(),
            TableName::Nat => None,
        }
    }
}

/// The name of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the field's own.
pub enum TableName {
    Raw,
    Mangle,
    Nat,
    Filter,
}

impl TableName {
    /// All, in the order in which a packet meets them.
    pub const ALL: [TableName; 4] = [TableName::Raw, TableName::Mangle, TableName::Nat, TableName::Filter];

    /// As in `iptables -t`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TableName::Raw => "raw",
            TableName::Mangle => "mangle",
            TableName::Nat => "nat",
            TableName::Filter => "filter",
        }
    }

    /// Does the table have a chain at the hook?
    #[must_use]
    pub const fn has(self, hook: Hook) -> bool {
        match self {
            TableName::Raw => matches!(hook, Hook::PreRouting | Hook::LocalOut),
            TableName::Mangle => true,
            TableName::Nat => !matches!(hook, Hook::Forward),
            TableName::Filter => matches!(hook, Hook::LocalIn | Hook::Forward | Hook::LocalOut),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A table: a chain for each hook, and chains that rules jump to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<T> {
    /// PREROUTING: packets that arrive.
    pub prerouting: Chain<T>,
    /// INPUT: packets to this host.
    pub input: Chain<T>,
    /// FORWARD: packets to others.
    pub forward: Chain<T>,
    /// OUTPUT: packets from this host.
    pub output: Chain<T>,
    /// POSTROUTING: packets that leave.
    pub postrouting: Chain<T>,
    /// The chains that the text has besides, in the order in which they are declared.
    pub own: Vec<Chain<T>>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<T> {
    /// Is the policy DROP instead of ACCEPT? Only a chain of a hook has one.
    pub drops: bool,
    /// The rules in order.
    pub rules: Vec<Rule<T>>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<T> {
    /// Line in the text that it was read from, counted from 1.
    pub line: u32,
    /// What a packet must be like.
    pub matches: Matches,
    /// What happens then.
    pub target: T,
}

/// A chain that the text declares itself. Only what reads the text makes these, and it makes no circles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainId(u16);

/// What a target means for the way of a packet through the chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// On to the next rule.
    Next,
    /// Back to the chain that the packet came from, and from a chain of a hook to its policy.
    Return,
    /// Into a chain, and back behind it.
    Jump(ChainId),
    /// Into a chain, and not back.
    Goto(ChainId),
    /// The table is done with the packet.
    End,
}

/// How a packet came through a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// A rule decided.
    Ended,
    /// No rule decided, the policy of the chain does.
    Policy,
}

/// Chains within chains within the chain of a hook.
pub(crate) const DEEPEST: usize = 16;

impl<T> Default for Chain<T> {
    fn default() -> Self {
        Chain { drops: false, rules: Vec::new() }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let [prerouting, input, forward, output, postrouting] = core::array::from_fn(|_| Chain::default());
        Table { prerouting, input, forward, output, postrouting, own: Vec::new() }
    }
}

impl<T> Table<T> {
    /// The chain that is asked at a hook.
    #[must_use]
    pub const fn chain(&self, hook: Hook) -> &Chain<T> {
        match hook {
            Hook::PreRouting => &self.prerouting,
            Hook::LocalIn => &self.input,
            Hook::Forward => &self.forward,
            Hook::LocalOut => &self.output,
            Hook::PostRouting => &self.postrouting,
        }
    }

    const fn chain_mut(&mut self, hook: Hook) -> &mut Chain<T> {
        match hook {
            Hook::PreRouting => &mut self.prerouting,
            Hook::LocalIn => &mut self.input,
            Hook::Forward => &mut self.forward,
            Hook::LocalOut => &mut self.output,
            Hook::PostRouting => &mut self.postrouting,
        }
    }

    /// All rules, chain by chain.
    pub fn rules(&self) -> impl Iterator<Item = &Rule<T>> {
        let chains = [&self.prerouting, &self.input, &self.forward, &self.output, &self.postrouting];
        chains.into_iter().chain(&self.own).flat_map(|chain| &chain.rules)
    }

    /// `ipt_do_table`: shows `visit` the rules in the order in which the packet meets them.
    pub(crate) fn walk(&self, hook: Hook, mut visit: impl FnMut(&Rule<T>) -> Course) -> Walked {
        // For each chain that the packet is in: which, `None` for the hook's, and its next rule.
        let mut stack = [(None, 0); DEEPEST];
        let mut depth = 0;
        loop {
            let Some((chain, next)) = stack.get_mut(depth) else { return Walked::Policy };
            let rules = match *chain {
                None => Some(self.chain(hook)),
                Some(ChainId(own)) => self.own.get(usize::from(own)),
            };
            let course = match rules.and_then(|chain| chain.rules.get(*next)) {
                Some(rule) => {
                    *next += 1;
                    visit(rule)
                }
                None => Course::Return,
            };
            match course {
                Course::Next => {}
                Course::End => return Walked::Ended,
                Course::Return if depth == 0 => return Walked::Policy,
                Course::Return => depth -= 1,
                Course::Goto(to) => (*chain, *next) = (Some(to), 0),
                Course::Jump(to) => {
                    depth += 1;
                    if let Some(inner) = stack.get_mut(depth) {
                        *inner = (Some(to), 0);
                    }
                }
            }
        }
    }
}
