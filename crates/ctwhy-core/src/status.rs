//! The status bits of an entry (`enum ip_conntrack_status`; catalogue A.8).

use core::ops::{BitOr, BitOrAssign};

/// A set of status bits with the kernel's own bit numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl Status {
    /// Created from an expectation.
    pub const EXPECTED: Status = Status(1 << 0);
    /// A packet in reply direction was accepted.
    pub const SEEN_REPLY: Status = Status(1 << 1);
    /// Not a candidate for early drop.
    pub const ASSURED: Status = Status(1 << 2);
    /// In the table.
    pub const CONFIRMED: Status = Status(1 << 3);
    /// The source is translated.
    pub const SRC_NAT: Status = Status(1 << 4);
    /// The destination is translated.
    pub const DST_NAT: Status = Status(1 << 5);
    /// Sequence numbers are adjusted.
    pub const SEQ_ADJUST: Status = Status(1 << 6);
    /// The decision about the source was taken.
    pub const SRC_NAT_DONE: Status = Status(1 << 7);
    /// The decision about the destination was taken.
    pub const DST_NAT_DONE: Status = Status(1 << 8);
    /// Deletion has begun.
    pub const DYING: Status = Status(1 << 9);
    /// The timeout is never refreshed.
    pub const FIXED_TIMEOUT: Status = Status(1 << 10);
    /// Inserted for replies only, because another flow holds its original tuple.
    pub const NAT_CLASH: Status = Status(1 << 12);
    /// A helper was attached explicitly.
    pub const HELPER: Status = Status(1 << 13);

    /// `SRC_NAT | DST_NAT` (`IPS_NAT_MASK`).
    pub const NAT_MASK: Status = Status(Status::SRC_NAT.0 | Status::DST_NAT.0);
    /// `SRC_NAT_DONE | DST_NAT_DONE` (`IPS_NAT_DONE_MASK`).
    pub const NAT_DONE_MASK: Status = Status(Status::SRC_NAT_DONE.0 | Status::DST_NAT_DONE.0);

    /// Names in bit order.
    pub const NAMES: [(Status, &'static str); 13] = [
        (Status::EXPECTED, "EXPECTED"),
        (Status::SEEN_REPLY, "SEEN_REPLY"),
        (Status::ASSURED, "ASSURED"),
        (Status::CONFIRMED, "CONFIRMED"),
        (Status::SRC_NAT, "SRC_NAT"),
        (Status::DST_NAT, "DST_NAT"),
        (Status::SEQ_ADJUST, "SEQ_ADJUST"),
        (Status::SRC_NAT_DONE, "SRC_NAT_DONE"),
        (Status::DST_NAT_DONE, "DST_NAT_DONE"),
        (Status::DYING, "DYING"),
        (Status::FIXED_TIMEOUT, "FIXED_TIMEOUT"),
        (Status::NAT_CLASH, "NAT_CLASH"),
        (Status::HELPER, "HELPER"),
    ];

    /// Are all bits of `other` set?
    #[must_use]
    pub const fn contains(self, other: Status) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is any bit of `other` set?
    #[must_use]
    pub const fn intersects(self, other: Status) -> bool {
        self.0 & other.0 != 0
    }

    /// The names of the bits that are set, in bit order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Status::NAMES.into_iter().filter(move |(bit, _)| self.contains(*bit)).map(|(_, name)| name)
    }
}

impl BitOr for Status {
    type Output = Status;
    fn bitor(self, other: Status) -> Status {
        Status(self.0 | other.0)
    }
}

impl BitOrAssign for Status {
    fn bitor_assign(&mut self, other: Status) {
        self.0 |= other.0;
    }
}
