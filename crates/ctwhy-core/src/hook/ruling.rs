//! What was decided about a packet.

use crate::confirm::ConfirmDrop;
use crate::conntrack::{Attached, Tracked};
use crate::defrag::{Datagram, Refused, Waiting};
use crate::direction::CtInfo;
use crate::helper::HelperDrop;
use crate::nat::NatDrop;
use crate::packet::{Fragment, PacketError};
use crate::reason::Reason;
use crate::refragment::Cut;
use crate::rules::TableName;
use crate::rules::target::Reject;
use crate::seqadj::SeqDrop;
use crate::table::{EntryId, TableFull};
use alloc::boxed::Box;

use super::Hook;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It went on.
    Accept,
    /// It ended here.
    Drop(DropCause),
}

/// Why a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// Its TTL or hop limit was used up: the host answers with time exceeded.
    TtlExceeded,
    /// No route leads to its destination.
    NoRoute,
    /// Its IPv6 source means something on its own link only, or nothing at all: nobody forwards it (RFC 4291 section
    /// 2.5.6).
    SourceScope,
    /// It is too long for the way out and must not be cut: the host answers with fragmentation needed or packet too big.
    TooBig {
        /// The MTU of the way out in bytes.
        mtu: u32,
    },
    /// It must leave in fragments, but no way was found to make them.
    Unfragmentable,
    /// A rule of raw, mangle or filter dropped it.
    Rule {
        /// The table.
        table: TableName,
        /// The hook whose chain the packet was in.
        hook: Hook,
        /// Line of the rule; `None` for the policy of the chain.
        line: Option<u32>,
        /// What the sender is told.
        reject: Option<Reject>,
    },
    /// NAT dropped it.
    Nat(NatDrop),
    /// The helper of its flow dropped it.
    Helper(HelperDrop),
    /// Its numbers could not follow the changed length of earlier segments.
    SeqAdjust(SeqDrop),
    /// Its entry could not be confirmed.
    Confirm(ConfirmDrop),
    /// Its flow could not begin.
    TableFull(TableFull),
}

impl DropCause {
    /// Line of the rule that dropped the packet, if it was one.
    #[must_use]
    pub const fn line(&self) -> Option<u32> {
        match self {
            DropCause::Rule { line, .. } | DropCause::Nat(NatDrop::Rule { line }) => *line,
            _ => None,
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            DropCause::TtlExceeded => "forward.ttl_exceeded",
            DropCause::NoRoute => "route.none",
            DropCause::SourceScope => "forward.source_scope",
            DropCause::TooBig { .. } => "forward.too_big",
            DropCause::Unfragmentable => "output.unfragmentable",
            DropCause::Rule { reject: Some(_), .. } => "filter.reject",
            DropCause::Rule { table: TableName::Raw, .. } => "raw.rule",
            DropCause::Rule { table: TableName::Mangle, .. } => "mangle.rule",
            DropCause::Rule { .. } => "filter.rule",
            DropCause::Nat(cause) => cause.code(),
            DropCause::Helper(cause) => cause.code(),
            DropCause::SeqAdjust(cause) => cause.code(),
            DropCause::Confirm(cause) => cause.code(),
            DropCause::TableFull(full) => full.code(),
        }
    }

    /// Of a packet that ended in the raw table or in conntrack, before it had a ctinfo.
    pub(crate) const fn unseen(&self) -> Unseen {
        match self {
            DropCause::TableFull(full) => Unseen::TableFull(*full),
            _ => Unseen::Raw { line: self.line() },
        }
    }
}

/// Why conntrack never had a say about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// The IP layer drops it, or the capture does not hold it.
    Packet(PacketError),
    /// A fragment: it waits for the rest of its datagram, which is tracked as one packet.
    Fragment(Waiting),
    /// A fragment that was dropped.
    Refused(Refused),
    /// A fragment of this host's own whose sender does not want it gathered (`IP_NODEFRAG`, CORE-HOOK-05).
    NotGathered(Fragment),
    /// The raw table dropped it in front of conntrack.
    Raw {
        /// Line of the rule; `None` for the policy of the chain.
        line: Option<u32>,
    },
    /// Conntrack saw it, but had no room for its flow, and dropped it (FULL-01).
    TableFull(TableFull),
}

impl Unseen {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Unseen::Packet(error) => error.code(),
            Unseen::Fragment(_) => "fragment.incomplete",
            Unseen::Refused(refused) => refused.cause.code(),
            Unseen::NotGathered(_) => "fragment.not_gathered",
            Unseen::Raw { .. } => "raw.rule",
            Unseen::TableFull(full) => full.code(),
        }
    }
}

/// Where a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// Out by an interface; `None` when no routes are known.
    Forwarded(Option<u16>),
    /// To this host.
    Local,
    /// Nowhere.
    Nowhere,
}

/// Everything that was decided about one packet.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// Where conntrack saw it.
    pub hook: Hook,
    /// What conntrack calls it, or why conntrack did not see it.
    pub ctinfo: Result<CtInfo, Unseen>,
    /// Why it is INVALID.
    pub reason: Option<Reason>,
    /// What became of it.
    pub verdict: Verdict,
    /// Where it went.
    pub egress: Egress,
    /// Its entry, as it was attached when the packet ended or left.
    pub attached: Attached,
    /// Did NAT rewrite it, or a helper look for something to rewrite? The TTL does not count.
    pub rewritten: bool,
    /// The mark that rules left it with (`skb->mark`).
    pub mark: u32,
    /// Its length where a helper changed it; see [`Engine::departed`](super::Engine::departed).
    pub resized: Option<Resized>,
    /// The datagram that it completed, when it is a fragment: everything else is about that.
    pub datagram: Option<Box<Datagram>>,
    /// The fragments that it leaves in; `None` when it leaves in one piece.
    pub cut: Option<Cut>,
}

/// The length of a packet that a helper made longer or shorter, in bytes from the IP header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// As it arrived.
    pub from: usize,
    /// As it left.
    pub to: usize,
}

impl Ruling {
    /// Of a packet that conntrack has no say about.
    #[must_use]
    pub fn unseen(hook: Hook, unseen: Unseen) -> Ruling {
        Ruling { ctinfo: Err(unseen), ..Ruling::invalid(hook) }
    }

    /// Of a packet without an entry that went nowhere.
    pub(crate) const fn invalid(hook: Hook) -> Ruling {
        Ruling {
            hook,
            ctinfo: Ok(CtInfo::Invalid),
            reason: None,
            verdict: Verdict::Accept,
            egress: Egress::Nowhere,
            attached: Attached::None,
            rewritten: false,
            mark: 0,
            resized: None,
            datagram: None,
            cut: None,
        }
    }

    /// The packet that this is about as it arrived, where `packet` did: for a fragment the datagram that it completed.
    #[must_use]
    pub fn arrived<'a>(&'a self, packet: &'a [u8]) -> &'a [u8] {
        self.datagram.as_ref().map_or(packet, |datagram| datagram.arrived())
    }

    /// A packet that the raw table dropped, or conntrack itself.
    pub(super) fn dropped_unseen(hook: Hook, cause: DropCause) -> Ruling {
        Ruling { verdict: Verdict::Drop(cause), ..Ruling::unseen(hook, cause.unseen()) }
    }

    /// The packet as conntrack left it; `None` when conntrack did not see it. What this host sends in answer carries
    /// the same entry.
    #[must_use]
    pub fn tracked(&self) -> Option<Tracked> {
        let ctinfo = self.ctinfo.ok()?;
        Some(Tracked { ctinfo, reason: self.reason, attached: self.attached.clone() })
    }

    /// The entry of the packet, if it is in the table.
    #[must_use]
    pub const fn entry(&self) -> Option<EntryId> {
        match self.attached {
            Attached::Entry(id) => Some(id),
            _ => None,
        }
    }
}
