//! The entry: one flow as conntrack knows it (`struct nf_conn`).
//!
//! [`Unconfirmed`] belongs to one packet that is on its way through the hooks; nobody else can find it. [`Confirmed`]
//! is in the table. They are different types because almost nothing that may be done to one may be done to the other.

use crate::direction::Direction;
use crate::event::Causes;
use crate::extension::{ExtensionId, Master};
use crate::helper::Helper;
use crate::status::Status;
use crate::time::Time;
use crate::track::gre::Gre;
use crate::track::sctp::Sctp;
use crate::track::tcp::Tcp;
use crate::tuple::Tuple;
use crate::zone::Zone;

/// Packets and bytes of one direction (`nf_conn_counter`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets, headers included.
    pub bytes: u64,
}

impl Counter {
    /// Counts one packet of `bytes` bytes.
    pub(crate) const fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// What the tracker of the protocol remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// UDP.
    Udp {
        /// When the flow is old enough to be a stream (UDP-02).
        stream_from: Time,
    },
    /// UDP-Lite, of which nothing is remembered.
    Udplite,
    /// TCP.
    Tcp(Tcp),
    /// SCTP.
    Sctp(Sctp),
    /// GRE.
    Gre(Gre),
    /// ICMP and ICMPv6 queries, and every protocol that conntrack does not know: nothing is remembered.
    Stateless,
}

impl Protocol {
    /// The number of the state that ctnetlink tells (`CTA_PROTOINFO`), for the protocols that have one.
    #[must_use]
    pub fn state(&self) -> Option<u8> {
        match self {
            Protocol::Tcp(tcp) => Some(tcp.state() as u8),
            Protocol::Sctp(sctp) => Some(sctp.state().number()),
            Protocol::Udp { .. } | Protocol::Udplite | Protocol::Gre(_) | Protocol::Stateless => None,
        }
    }
}

/// What an unconfirmed and a confirmed entry have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The tuple of each direction. The original one never changes; NAT rewrites the reply one before confirm.
    pub tuples: [Tuple; 2],
    /// The zone of the tuples.
    pub zone: Zone,
    /// Status bits.
    pub status: Status,
    /// The mark of the flow.
    pub mark: u32,
    /// Packets and bytes by direction, where `nf_conntrack_acct` was on when the flow began.
    pub counters: Option<[Counter; 2]>,
    /// State of the tracker.
    pub protocol: Protocol,
    /// The interface that a masqueraded flow leaves by (`nat->masq_index`).
    pub masquerade_interface: Option<u16>,
    /// What is told about the entry; `None` for everything (`CT --ctevents`).
    pub events: Option<Causes>,
    /// What happened to the entry since the last event about it.
    pub pending: Causes,
    /// The helper that reads its packets.
    pub helper: Option<Helper>,
    /// What only few flows have: master, helper, shifted sequence numbers.
    pub extension: Option<ExtensionId>,
}

impl Flow {
    /// The tuple of packets in `direction`.
    #[must_use]
    pub const fn tuple(&self, direction: Direction) -> &Tuple {
        match direction {
            Direction::Original => &self.tuples[0],
            Direction::Reply => &self.tuples[1],
        }
    }

    /// `nf_conntrack_eventmask_report`: does anybody want to hear of this?
    pub(crate) fn tells(&self, causes: Causes) -> bool {
        !causes.is_empty() && self.events.is_none_or(|wanted| wanted.intersects(causes))
    }

    /// Counts one packet of `bytes` bytes (`nf_ct_acct_add`).
    pub(crate) fn count(&mut self, direction: Direction, bytes: usize) {
        if let Some(counters) = &mut self.counters {
            counters[direction.index()].count(bytes);
        }
    }
}

/// An entry that is reachable only through the packet that created it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// The flow.
    pub flow: Flow,
    /// Seconds that the entry will live from the moment it is confirmed.
    pub timeout: u32,
    /// The flow that expected this one.
    pub master: Option<Master>,
}

/// An entry in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The flow.
    pub flow: Flow,
    /// When it is dead.
    pub expires: Time,
    /// Number of the entry, counted from 1 in the order of confirming. The kernel's CTA_ID where it was learnt.
    pub id: u32,
}

impl Confirmed {
    /// Is it left out of dumps, because it was inserted for replies only (CLASH-02b)?
    #[must_use]
    pub const fn is_hidden(&self) -> bool {
        self.flow.status.contains(Status::NAT_CLASH)
    }

    /// Whole seconds left at `now`, rounded as `conntrack -L` does (TIMEOUT-03).
    #[must_use]
    pub const fn remaining_secs(&self, now: Time) -> u32 {
        self.expires.secs_since(now)
    }

    /// Is its time over? (`nf_ct_is_expired`)
    #[must_use]
    pub const fn is_expired(&self, now: Time) -> bool {
        self.expires.0 <= now.0
    }
}
