//! What the rules of the nat table do. Their tables and matches are those of all rules, in [`crate::rules`].

use super::range::Range;
use crate::rules::{self, ChainId, Course};

/// The nat table of one family.
pub type Ruleset = rules::Table<Target>;
/// A chain of it.
pub type Chain = rules::Chain<Target>;
/// A rule of it.
pub type Rule = rules::Rule<Target>;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Leave the flow as it is; no further rule is asked.
    Accept,
    /// Drop the packet.
    Drop,
    /// Back to where the chain was jumped to from.
    Return,
    /// Into another chain and back.
    Jump(ChainId),
    /// Into another chain.
    Goto(ChainId),
    /// Somebody is told, the packet goes on: LOG and NFLOG.
    Log,
    /// The source becomes an address of the outgoing interface.
    Masquerade(Range),
    /// The source becomes one of the range.
    Snat(Range),
    /// The destination becomes one of the range.
    Dnat(Range),
    /// The destination becomes this host.
    Redirect(Range),
    /// The network of the address becomes that of the range: of the source where a packet leaves, else of the destination.
    Netmap(Range),
}

impl Target {
    /// Which way the packet takes.
    #[must_use]
    pub const fn course(&self) -> Course {
        match *self {
            Target::Return => Course::Return,
            Target::Jump(to) => Course::Jump(to),
            Target::Goto(to) => Course::Goto(to),
            Target::Log => Course::Next,
            Target::Accept
            | Target::Drop
            | Target::Masquerade(_)
            | Target::Snat(_)
            | Target::Dnat(_)
            | Target::Redirect(_)
            | Target::Netmap(_) => Course::End,
        }
    }
}
