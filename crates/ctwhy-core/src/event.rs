//! What the kernel tells those who listen about an entry: the events of ctnetlink (`nf_conntrack_ecache`; catalogue
//! OBS-06 to OBS-08).
//!
//! What happens to an entry is collected in [`Flow::pending`](crate::conn::Flow::pending) and told at the last hook, all
//! of it in one event. A packet that is dropped on its way leaves its causes for the next one of the flow (NEW-07). A
//! deletion is told at once. Entries are told about as with `nf_conntrack_events=1`: those that were there before
//! anybody listened, too.

use core::ops::{BitOr, BitOrAssign};

use crate::conn::Confirmed;
use crate::time::Time;

/// Why there is an event: a set, with the kernel's own bit numbers (`enum ip_conntrack_events`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Causes(pub u16);

impl Causes {
    /// The entry went into the table.
    pub const NEW: Causes = Causes(1 << 0);
    /// As `NEW`, of an entry that another flow expected.
    pub const RELATED: Causes = Causes(1 << 1);
    /// The entry was deleted.
    pub const DESTROY: Causes = Causes(1 << 2);
    /// The first packet in reply direction.
    pub const REPLY: Causes = Causes(1 << 3);
    /// The entry became ASSURED.
    pub const ASSURED: Causes = Causes(1 << 4);
    /// The state of the protocol changed.
    pub const PROTOINFO: Causes = Causes(1 << 5);
    /// A helper was attached.
    pub const HELPER: Causes = Causes(1 << 6);
    /// The mark changed.
    pub const MARK: Causes = Causes(1 << 7);
    /// Sequence numbers are adjusted from now on.
    pub const SEQADJ: Causes = Causes(1 << 8);
    /// The security mark changed.
    pub const SECMARK: Causes = Causes(1 << 9);
    /// Labels changed.
    pub const LABEL: Causes = Causes(1 << 10);
    /// What SYNPROXY remembers changed.
    pub const SYNPROXY: Causes = Causes(1 << 11);

    /// Names in bit order.
    pub const NAMES: [(Causes, &'static str); 12] = [
        (Causes::NEW, "NEW"),
        (Causes::RELATED, "RELATED"),
        (Causes::DESTROY, "DESTROY"),
        (Causes::REPLY, "REPLY"),
        (Causes::ASSURED, "ASSURED"),
        (Causes::PROTOINFO, "PROTOINFO"),
        (Causes::HELPER, "HELPER"),
        (Causes::MARK, "MARK"),
        (Causes::SEQADJ, "SEQADJ"),
        (Causes::SECMARK, "SECMARK"),
        (Causes::LABEL, "LABEL"),
        (Causes::SYNPROXY, "SYNPROXY"),
    ];

    /// Is there none?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Is any cause of `other` in the set?
    #[must_use]
    pub const fn intersects(self, other: Causes) -> bool {
        self.0 & other.0 != 0
    }

    /// The names of the causes in the set, in bit order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Causes::NAMES.into_iter().filter(move |(bit, _)| self.intersects(*bit)).map(|(_, name)| name)
    }
}

impl BitOr for Causes {
    type Output = Causes;
    fn bitor(self, other: Causes) -> Causes {
        Causes(self.0 | other.0)
    }
}

impl BitOrAssign for Causes {
    fn bitor_assign(&mut self, other: Causes) {
        self.0 |= other.0;
    }
}

/// The kinds of messages that ctnetlink has for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The entry is new.
    New,
    /// Something about it changed.
    Update,
    /// It is gone.
    Destroy,
}

/// An event about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened since the last event about it.
    pub causes: Causes,
    /// The entry at that moment.
    pub entry: Confirmed,
    /// The moment.
    pub at: Time,
}

impl Event {
    /// `ctnetlink_conntrack_event`: which message the causes make.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        if self.causes.intersects(Causes::DESTROY) {
            EventKind::Destroy
        } else if self.causes.intersects(Causes(Causes::NEW.0 | Causes::RELATED.0)) {
            EventKind::New
        } else {
            EventKind::Update
        }
    }

    /// Is the state of the protocol told? A deletion always tells it.
    #[must_use]
    pub const fn tells_state(&self) -> bool {
        self.causes.intersects(Causes(Causes::PROTOINFO.0 | Causes::DESTROY.0))
    }
}
