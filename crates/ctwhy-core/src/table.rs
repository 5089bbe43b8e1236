//! The table: zone and tuple -> entry, each entry under the tuples of both its directions (`nf_conntrack_hash`).

use alloc::vec::Vec;
use core::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::conn::{Confirmed, Flow, Unconfirmed};
use crate::direction::Direction;
use crate::event::{Causes, Event};
use crate::status::Status;
use crate::time::Time;
use crate::trace::Sink;
use crate::tuple::Tuple;
use crate::zone::Zone;

/// Which entry. An id that outlived its entry finds nothing; it never finds another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryId {
    slot: u32,
    generation: u32,
}

/// A tuple of an entry: its slot and the direction (`struct nf_conntrack_tuple_hash`).
#[derive(Clone, Copy, Debug)]
struct Handle {
    slot: u32,
    direction: Direction,
}

#[derive(Clone, Debug)]
struct Slot {
    generation: u32,
    entry: Option<Confirmed>,
}

/// All confirmed entries.
#[derive(Clone, Debug)]
pub struct Table {
    handles: HashTable<Handle>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    hasher: FixedState,
    last_id: u32,
    /// Where the sweep for dead entries goes on (GC-01).
    sweep: usize,
}

/// Why an entry could not be inserted (`__nf_conntrack_confirm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Direction of the new entry whose tuple is taken.
    pub direction: Direction,
    /// The entry that holds it.
    pub holder: EntryId,
}

impl Default for Table {
    fn default() -> Self {
        Table::new()
    }
}

impl Table {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Table {
        Table {
            handles: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            // The kernel's hash is keyed against attackers who choose tuples. What an entry is found under is not
            // observable (TUPLE-07), so a fixed seed keeps runs reproducible.
            hasher: FixedState::with_seed(0),
            last_id: 0,
            sweep: 0,
        }
    }

    /// Number of entries, dead ones that nobody has met yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Is there no entry?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry, if it still exists.
    #[must_use]
    pub fn get(&self, id: EntryId) -> Option<&Confirmed> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation == id.generation { slot.entry.as_ref() } else { None }
    }

    /// The entry, to be changed. Its tuples must stay as they are.
    pub(crate) fn get_mut(&mut self, id: EntryId) -> Option<&mut Confirmed> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.entry.as_mut() } else { None }
    }

    /// All entries in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (EntryId, &Confirmed)> {
        self.slots.iter().zip(0u32..).filter_map(|(slot, index)| {
            let id = EntryId { slot: index, generation: slot.generation };
            slot.entry.as_ref().map(|entry| (id, entry))
        })
    }

    /// `nf_ct_key_equal`: the entry under `tuple` where the tuple of `place` would be in `zone`. The zones have to agree
    /// about the direction in which it is found, too.
    fn find(&self, tuple: &Tuple, zone: Zone, place: Direction) -> Option<(EntryId, Direction)> {
        let id = zone.of(place);
        let hash = self.hasher.hash_one((tuple, id));
        // Of two equal tuples of one entry the reply one is met first (CORE-HOOK-07).
        let mut found: Option<Handle> = None;
        for handle in self.handles.iter_hash(hash) {
            if zone.of(handle.direction) == id && self.key_of(*handle) == Some((tuple, id)) {
                found = Some(*handle);
                if handle.direction == Direction::Reply {
                    break;
                }
            }
        }
        let handle = found?;
        let generation = self.slots.get(handle.slot as usize)?.generation;
        Some((EntryId { slot: handle.slot, generation }, handle.direction))
    }

    fn key_of(&self, handle: Handle) -> Option<(&Tuple, u16)> {
        let entry = self.slots.get(handle.slot as usize)?.entry.as_ref()?;
        Some(key(&entry.flow, handle.direction))
    }

    /// `nf_conntrack_find_get`: the entry that has `tuple` in either direction, looked for where an original tuple of
    /// `zone` would be and then where a reply tuple would (ZONE-01). A dead one that is met on the way is deleted
    /// (TUPLE-08).
    pub(crate) fn lookup<S: Sink>(
        &mut self,
        tuple: &Tuple,
        zone: Zone,
        now: Time,
        sink: &mut S,
    ) -> Option<(EntryId, Direction)> {
        match self.lookup_at(tuple, zone, Direction::Original, now, sink) {
            None if zone.only.is_some() => self.lookup_at(tuple, zone, Direction::Reply, now, sink),
            found => found,
        }
    }

    /// As a look-up, but in one of the two places only.
    pub(crate) fn lookup_at<S: Sink>(
        &mut self,
        tuple: &Tuple,
        zone: Zone,
        place: Direction,
        now: Time,
        sink: &mut S,
    ) -> Option<(EntryId, Direction)> {
        let (id, direction) = self.find(tuple, zone, place)?;
        if self.get(id)?.is_expired(now) {
            self.delete(id, now, sink);
            return None;
        }
        Some((id, direction))
    }

    /// As a look-up in one place, but nothing is deleted.
    pub(crate) fn peek(
        &self,
        tuple: &Tuple,
        zone: Zone,
        place: Direction,
        now: Time,
    ) -> Option<(Direction, &Confirmed)> {
        let (id, direction) = self.find(tuple, zone, place)?;
        let entry = self.get(id)?;
        if entry.is_expired(now) { None } else { Some((direction, entry)) }
    }

    /// `__nf_conntrack_confirm`: puts an entry under both its tuples.
    ///
    /// # Errors
    /// [`Clash`] when another entry holds one of them.
    pub(crate) fn confirm<S: Sink>(
        &mut self,
        unconfirmed: &Unconfirmed,
        now: Time,
        sink: &mut S,
    ) -> Result<EntryId, Clash> {
        self.sweep_some(now, sink);
        for direction in Direction::BOTH {
            if let Some((holder, _)) =
                self.lookup_at(unconfirmed.flow.tuple(direction), unconfirmed.flow.zone, direction, now, sink)
            {
                return Err(Clash { direction, holder });
            }
        }
        self.last_id = self.last_id.wrapping_add(1);
        let mut flow = unconfirmed.flow;
        flow.status |= Status::CONFIRMED;
        Ok(self.insert(Confirmed { flow, expires: now.plus_secs(unconfirmed.timeout), id: self.last_id }))
    }

    /// `nf_ct_resolve_clash_harder`: puts an entry under its reply tuple only, for a second. Its number comes back, too.
    pub(crate) fn insert_for_replies(&mut self, unconfirmed: &Unconfirmed, now: Time) -> (EntryId, u32) {
        /// Seconds that such an entry lives, whatever is sent.
        const LIFE: u32 = 1;
        self.last_id = self.last_id.wrapping_add(1);
        let mut flow = unconfirmed.flow;
        flow.status |= Status::CONFIRMED | Status::FIXED_TIMEOUT | Status::NAT_CLASH;
        (self.insert(Confirmed { flow, expires: now.plus_secs(LIFE), id: self.last_id }), self.last_id)
    }

    /// Inserts an entry under both tuples, whatever else holds them; one of a clash under its reply tuple only.
    pub(crate) fn insert(&mut self, entry: Confirmed) -> EntryId {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, entry: None });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.entry = Some(entry);
        let id = EntryId { slot: index, generation: slot.generation };
        for direction in Direction::BOTH {
            if direction == Direction::Original && entry.is_hidden() {
                continue;
            }
            let hash = self.hasher.hash_one(key(&entry.flow, direction));
            let (slots, hasher) = (&self.slots, &self.hasher);
            self.handles.insert_unique(hash, Handle { slot: index, direction }, |handle| {
                let entry = slots.get(handle.slot as usize).and_then(|slot| slot.entry.as_ref());
                entry.map_or(0, |entry| hasher.hash_one(key(&entry.flow, handle.direction)))
            });
        }
        id
    }

    /// Deletes an entry and tells of it (`nf_ct_delete`).
    pub(crate) fn delete<S: Sink>(&mut self, id: EntryId, now: Time, sink: &mut S) -> Option<Confirmed> {
        let entry = self.remove(id)?;
        sink.event(|| Event { causes: Causes::DESTROY, entry, at: now });
        Some(entry)
    }

    /// Takes an entry out of the table.
    fn remove(&mut self, id: EntryId) -> Option<Confirmed> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        for direction in Direction::BOTH {
            let hash = self.hasher.hash_one(key(&entry.flow, direction));
            let of_entry = |handle: &Handle| handle.slot == id.slot && handle.direction == direction;
            if let Ok(occupied) = self.handles.find_entry(hash, of_entry) {
                occupied.remove();
            }
        }
        self.free.push(id.slot);
        Some(entry)
    }

    /// Looks at a few slots and deletes the dead entries in them, so that a table never holds many more dead entries
    /// than were alive at one time (GC-01).
    fn sweep_some<S: Sink>(&mut self, now: Time, sink: &mut S) {
        for _ in 0..2 {
            let index = if self.sweep < self.slots.len() { self.sweep } else { 0 };
            self.sweep = index + 1;
            let Some(slot) = self.slots.get(index) else { return };
            if slot.entry.as_ref().is_some_and(|entry| entry.is_expired(now)) {
                let id = EntryId { slot: index as u32, generation: slot.generation };
                self.delete(id, now, sink);
            }
        }
    }

    /// Deletes all dead entries, as a dump of the kernel's table does (GC-01).
    pub fn sweep<S: Sink>(&mut self, now: Time, sink: &mut S) {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index) else { return };
            if slot.entry.as_ref().is_some_and(|entry| entry.is_expired(now)) {
                let id = EntryId { slot: index as u32, generation: slot.generation };
                self.delete(id, now, sink);
            }
        }
    }
}

/// What a flow is found under in a direction.
const fn key(flow: &Flow, direction: Direction) -> (&Tuple, u16) {
    (flow.tuple(direction), flow.zone.of(direction))
}
