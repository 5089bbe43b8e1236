//! Which way a packet goes through a flow, and what conntrack calls it.

use core::fmt;

/// The direction of a packet relative to the first packet of its flow (`enum ip_conntrack_dir`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The way of the packet that created the entry.
    Original,
    /// The way back.
    Reply,
}

impl Direction {
    /// Both directions, in the order of their index.
    pub const BOTH: [Direction; 2] = [Direction::Original, Direction::Reply];

    /// The other direction.
    #[must_use]
    pub const fn opposite(self) -> Direction {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }

    /// 0 for original, 1 for reply: the index of per-direction arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Direction::Original => 0,
            Direction::Reply => 1,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Original => "original",
            Direction::Reply => "reply",
        })
    }
}

/// What conntrack says about a packet (`enum ip_conntrack_info`; catalogue A.1).
///
/// INVALID and UNTRACKED are not values of the kernel's enum. A packet is INVALID when no entry is attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtInfo {
    /// A packet in the original direction of a flow that has seen a reply.
    Established,
    /// An ICMP error about the flow travelling in original direction, or the first packets of an expected flow.
    Related,
    /// A packet in original direction of a flow without reply.
    New,
    /// A packet in reply direction.
    EstablishedReply,
    /// An ICMP error about the flow travelling in reply direction.
    RelatedReply,
    /// Conntrack attached no entry to the packet.
    Invalid,
    /// The packet is exempt from tracking.
    Untracked,
}

impl CtInfo {
    /// Every value, in the order in which a summary lists them.
    pub const ALL: [CtInfo; 7] = [
        CtInfo::New,
        CtInfo::Established,
        CtInfo::EstablishedReply,
        CtInfo::Related,
        CtInfo::RelatedReply,
        CtInfo::Invalid,
        CtInfo::Untracked,
    ];

    /// The direction that the value implies (`CTINFO2DIR`); `None` without an entry.
    #[must_use]
    pub const fn direction(self) -> Option<Direction> {
        match self {
            CtInfo::Established | CtInfo::Related | CtInfo::New => Some(Direction::Original),
            CtInfo::EstablishedReply | CtInfo::RelatedReply => Some(Direction::Reply),
            CtInfo::Invalid | CtInfo::Untracked => None,
        }
    }

    /// RELATED in the given direction.
    #[must_use]
    pub const fn related(direction: Direction) -> CtInfo {
        match direction {
            Direction::Original => CtInfo::Related,
            Direction::Reply => CtInfo::RelatedReply,
        }
    }

    /// The name in reports and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CtInfo::Established => "ESTABLISHED",
            CtInfo::Related => "RELATED",
            CtInfo::New => "NEW",
            CtInfo::EstablishedReply => "ESTABLISHED_REPLY",
            CtInfo::RelatedReply => "RELATED_REPLY",
            CtInfo::Invalid => "INVALID",
            CtInfo::Untracked => "UNTRACKED",
        }
    }

    /// The value that [`CtInfo::name`] writes.
    #[must_use]
    pub fn from_name(name: &str) -> Option<CtInfo> {
        CtInfo::ALL.into_iter().find(|c| c.name() == name)
    }
}

impl fmt::Display for CtInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
