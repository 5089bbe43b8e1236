//! Whether a table is in order: what holds between any two packets, for tests and fuzzers.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::stored::Stored;
use super::{EntryId, Handle, Table, hash_of};
use crate::conn::{Confirmed, Protocol};
use crate::direction::Direction;
use crate::status::Status;

/// Something in a table that is not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsound {
    /// What should be so and is not.
    pub rule: &'static str,
    /// Number of the entry, [`Confirmed::id`], where it is about one.
    pub entry: Option<u32>,
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            Some(entry) => write!(f, "entry {entry}: {}", self.rule),
            None => f.write_str(self.rule),
        }
    }
}

impl core::error::Error for Unsound {}

impl Table {
    /// Checks all that holds of a table between two packets: each entry is found under its tuples and nothing else is,
    /// every slot is used or free, and what an entry says of itself makes sense. Takes time in the number of slots.
    ///
    /// # Errors
    /// The first thing that is not in order.
    pub fn audit(&self) -> Result<(), Unsound> {
        let holds = |held: bool, rule: &'static str| if held { Ok(()) } else { Err(Unsound { rule, entry: None }) };
        self.audit_slots()?;
        let (mut handles, mut kept) = (0, [Vec::new(), Vec::new(), Vec::new()]);
        for (stored, slot) in self.slots.iter().zip(0u32..).filter(|(stored, _)| stored.live) {
            handles += self.audit_handles(stored, slot)?;
            for (of_kind, number) in kept.iter_mut().zip(stored.kept_aside()) {
                of_kind.extend(number);
            }
            let entry = stored.read(&self.aside);
            check(&entry)?;
            if !self.notes_are_right(slot, &entry.flow) {
                return Err(Unsound { rule: "an entry is noted by its ends", entry: Some(entry.id) });
            }
        }
        holds(self.handles.len() == handles, "no tuple leads to an entry that is not there")?;
        for (mut numbers, in_use) in kept.into_iter().zip(self.aside.in_use()) {
            holds(numbers.len() == in_use, "what is kept aside belongs to an entry")?;
            numbers.sort_unstable();
            let apart = numbers.windows(2).all(|pair| pair.first() != pair.get(1));
            holds(apart, "what is kept aside belongs to one entry")?;
        }
        Ok(())
    }

    /// Each slot has an entry or is on the list of free ones, once.
    fn audit_slots(&self) -> Result<(), Unsound> {
        let mut free = vec![false; self.slots.len()];
        for slot in &self.free {
            match free.get_mut(*slot as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(Unsound { rule: "a slot is on the list of free ones once", entry: None }),
            }
        }
        let agrees = self.slots.iter().zip(free).all(|(stored, free)| stored.live != free);
        if agrees { Ok(()) } else { Err(Unsound { rule: "a slot has an entry or is free", entry: None }) }
    }

    /// The entry in a slot is found under its tuples; how many handles it has.
    fn audit_handles(&self, stored: &Stored, slot: u32) -> Result<usize, Unsound> {
        let hidden = stored.status.contains(Status::NAT_CLASH);
        let mut handles = 0;
        for direction in Direction::BOTH {
            let tuple = stored.tuple(direction, &self.aside);
            let hash = hash_of(&self.hasher, &tuple, stored.zone.of(direction));
            let own = Handle::new(slot, direction);
            let wanted = usize::from(!(hidden && direction == Direction::Original));
            let fail = |rule| Err(Unsound { rule, entry: Some(stored.id) });
            if self.handles.iter_hash(hash).filter(|handle| **handle == own).count() != wanted {
                return fail("an entry stands under each of its tuples, once");
            }
            let found = self.find(&tuple, stored.zone, direction);
            if wanted == 1 && found.map(|found| found.id) != Some(EntryId { slot, generation: stored.generation }) {
                return fail("an entry is the one that its tuples find");
            }
            handles += wanted;
        }
        Ok(handles)
    }
}

/// What an entry says of itself.
fn check(entry: &Confirmed) -> Result<(), Unsound> {
    let flow = &entry.flow;
    let [original, reply] = &flow.tuples;
    let has = |bits| flow.status.contains(bits);
    let translated = original.invert().as_ref() != Some(reply);
    let rules = [
        (has(Status::CONFIRMED), "what is in the table is CONFIRMED"),
        (!has(Status::DYING), "what is in the table is not DYING"),
        (original.invert().is_some() && reply.invert().is_some(), "both tuples can be inverted"),
        (original.l3num == reply.l3num && original.protonum == reply.protonum, "both tuples are of one protocol"),
        (translated == (has(Status::SRC_NAT) || has(Status::DST_NAT)), "SRC_NAT or DST_NAT where a tuple was changed"),
        (!has(Status::SRC_NAT) || has(Status::SRC_NAT_DONE), "SRC_NAT only where NAT has decided"),
        (!has(Status::DST_NAT) || has(Status::DST_NAT_DONE), "DST_NAT only where NAT has decided"),
        (!has(Status::NAT_CLASH) || has(Status::FIXED_TIMEOUT), "what serves answers only has a fixed timeout"),
        (!has(Status::NAT_CLASH) || !has(Status::ASSURED), "what serves answers only is not ASSURED"),
        (
            !has(Status::ASSURED) || has(Status::SEEN_REPLY) || matches!(flow.protocol, Protocol::Sctp(_)),
            "ASSURED only behind a reply",
        ),
        (
            !has(Status::ASSURED) || !matches!(flow.protocol, Protocol::Stateless),
            "ASSURED only where there is a tracker",
        ),
    ];
    match rules.into_iter().find(|(held, _)| !held) {
        Some((_, rule)) => Err(Unsound { rule, entry: Some(entry.id) }),
        None => Ok(()),
    }
}
