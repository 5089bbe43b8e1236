//! The table: zone and tuple -> entry, each entry under the tuples of both its directions (`nf_conntrack_hash`).

mod audit;
mod by_source;
mod chains;
mod endpoint;
mod full;
mod slab;
mod stored;

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::conn::{Confirmed, Flow, Unconfirmed};
use crate::counters::Counters;
use crate::direction::Direction;
use crate::event::{Causes, Event};
use crate::expect::{Expectation, Expectations, Refused};
use crate::extension::{ExtensionId, Extensions, Master};
use crate::helper::{Help, pptp};
use crate::profile::{self, Profile};
use crate::status::Status;
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::tuple::{Tuple, proto};
use crate::zone::Zone;

pub use audit::Unsound;
use by_source::BySource;
pub use endpoint::Endpoint;
use full::Pressure;
pub use full::TableFull;
use slab::Blocks;
use stored::{Aside, Stored};
pub(crate) use stored::{EntryMut, ProtocolMut};

/// How many look-ups [`Table::touch`] prepares.
pub(crate) const BATCH: usize = 32;

/// Which entry. An id that outlived its entry finds nothing; it never finds another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryId {
    slot: u32,
    generation: u32,
}

/// A tuple of an entry: its slot, and in the lowest bit the direction (`struct nf_conntrack_tuple_hash`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handle(u32);

impl Handle {
    const fn new(slot: u32, direction: Direction) -> Handle {
        Handle(slot << 1 | direction.index() as u32)
    }

    const fn slot(self) -> usize {
        (self.0 >> 1) as usize
    }

    const fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::Original } else { Direction::Reply }
    }
}

/// What is under a tuple, and the direction of its own that the tuple is.
struct Found<'a> {
    id: EntryId,
    direction: Direction,
    stored: &'a Stored,
}

/// All confirmed entries.
#[derive(Clone, Debug)]
pub struct Table {
    handles: HashTable<Handle>,
    slots: Blocks<Stored>,
    aside: Aside,
    free: Vec<u32>,
    hasher: FixedState,
    last_id: u32,
    by_source: BySource,
    /// Where the sweep for dead entries goes on (GC-01).
    sweep: usize,
    /// What it does besides.
    pressure: Option<Pressure>,
    /// What few of the entries have besides.
    pub extensions: Extensions,
    /// Entries to come.
    pub expectations: Expectations,
    /// What happened so far.
    pub counters: Counters,
    /// The release that is imitated.
    pub kernel: &'static Profile,
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
        Table::like(profile::DEFAULT)
    }

    /// An empty table of a kernel of another release.
    #[must_use]
    pub const fn like(kernel: &'static Profile) -> Table {
        Table {
            handles: HashTable::new(),
            slots: Blocks::new(),
            aside: Aside::new(),
            free: Vec::new(),
            // The kernel's hash is keyed against attackers who choose tuples. What an entry is found under is not
            // observable (TUPLE-07), so a fixed seed keeps runs reproducible.
            hasher: FixedState::with_seed(0),
            last_id: 0,
            by_source: BySource::new(),
            sweep: 0,
            pressure: None,
            extensions: Extensions::new(),
            expectations: Expectations::new(),
            counters: Counters::new(),
            kernel,
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

    #[inline]
    fn stored(&self, id: EntryId) -> Option<&Stored> {
        self.slots.get(id.slot as usize).filter(|stored| stored.live && stored.generation == id.generation)
    }

    /// The entry, if it still exists.
    #[must_use]
    pub fn get(&self, id: EntryId) -> Option<Confirmed> {
        Some(self.stored(id)?.read(&self.aside))
    }

    /// The tuple of a direction of an entry.
    #[must_use]
    pub fn tuple(&self, id: EntryId, direction: Direction) -> Option<Tuple> {
        Some(self.stored(id)?.tuple(direction, &self.aside))
    }

    /// The entry that expects a flow. `None` while that is not confirmed.
    #[must_use]
    pub fn master_of(&self, expectation: &Expectation) -> Option<EntryId> {
        self.extensions.get(expectation.master)?.entry
    }

    /// The status of an entry.
    #[must_use]
    pub fn status(&self, id: EntryId) -> Option<Status> {
        Some(self.stored(id)?.status)
    }

    /// The mark of an entry.
    pub(crate) fn mark(&self, id: EntryId) -> Option<u32> {
        Some(self.stored(id)?.mark)
    }

    /// The number of an entry, [`Confirmed::id`].
    #[must_use]
    pub fn number(&self, id: EntryId) -> Option<u32> {
        Some(self.stored(id)?.id)
    }

    /// Is there nothing to do about an entry at the last hook: nothing to tell of, and nothing besides that most have not?
    #[inline]
    pub(crate) fn is_at_rest(&self, id: EntryId) -> bool {
        self.stored(id).is_none_or(Stored::is_at_rest)
    }

    /// The interface that a masqueraded entry leaves by.
    pub(crate) fn masquerade_interface(&self, id: EntryId) -> Option<u16> {
        self.stored(id)?.masquerade_interface(&self.aside)
    }

    /// The entry, to be changed.
    pub(crate) fn get_mut(&mut self, id: EntryId) -> Option<EntryMut<'_>> {
        let stored = self.slots.get_mut(id.slot as usize)?;
        if stored.live && stored.generation == id.generation { Some(stored.edit(&mut self.aside)) } else { None }
    }

    /// The entry, to be changed, and the extensions beside it.
    #[inline]
    pub(crate) fn get_mut_extended(&mut self, id: EntryId) -> Option<(EntryMut<'_>, &Extensions)> {
        let stored = self.slots.get_mut(id.slot as usize)?;
        if !stored.live || stored.generation != id.generation {
            return None;
        }
        Some((stored.edit(&mut self.aside), &self.extensions))
    }

    /// The extension of an entry.
    #[must_use]
    pub fn extension(&self, id: EntryId) -> Option<ExtensionId> {
        self.stored(id)?.extension(&self.aside)
    }

    /// All entries in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (EntryId, Confirmed)> {
        self.slots.iter().zip(0u32..).filter(|(stored, _)| stored.live).map(|(stored, slot)| {
            let id = EntryId { slot, generation: stored.generation };
            (id, stored.read(&self.aside))
        })
    }

    /// `nf_ct_key_equal`: the entry under `tuple` where the tuple of `place` would be in `zone`. The zones have to agree
    /// about the direction in which it is found, too.
    #[inline(always)]
    fn find(&self, tuple: &Tuple, zone: Zone, place: Direction) -> Option<Found<'_>> {
        let id = zone.of(place);
        let hash = hash_of(&self.hasher, tuple, id);
        let is_it = |handle: &Handle| {
            let direction = handle.direction();
            self.slots.get(handle.slot()).is_some_and(|stored| {
                stored.has(tuple, direction, &self.aside) && zone.meets(stored.zone, direction, id)
            })
        };
        let handle = *self.handles.find(hash, is_it)?;
        let stored = self.slots.get(handle.slot())?;
        // Of two equal tuples of one entry the reply one is met first (CORE-HOOK-07).
        let both = stored.tuples_are_equal(&self.aside)
            && Direction::BOTH.into_iter().all(|direction| zone.meets(stored.zone, direction, id));
        let direction = if both { Direction::Reply } else { handle.direction() };
        let id = EntryId { slot: handle.slot() as u32, generation: stored.generation };
        Some(Found { id, direction, stored })
    }

    /// What [`Table::touch`] takes.
    pub(crate) fn hash(&self, tuple: &Tuple, zone: Zone) -> u64 {
        hash_of(&self.hasher, tuple, zone.of(Direction::Original))
    }

    /// Reads the memory that look-ups of these hashes will read, all of one kind before the next, so that the processor
    /// waits for many at once. The result means nothing.
    pub(crate) fn touch(&self, hashes: &[u64; BATCH]) -> u64 {
        let slots = hashes.map(|hash| self.handles.find(hash, |_| true).map_or(0, |handle| handle.slot()));
        let first = slots.map(|slot| self.slots.get(slot).map_or(0, Stored::touch_ends));
        slots.iter().zip(first).map(|(slot, sum)| sum ^ self.slots.get(*slot).map_or(0, |s| s.touch(&self.aside))).sum()
    }

    /// `nf_conntrack_find_get`: the entry that has `tuple` in either direction, looked for where an original tuple of
    /// `zone` would be and then where a reply tuple would (ZONE-01). A dead one that is met on the way is deleted
    /// (TUPLE-08).
    #[inline]
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
        let Found { id, direction, stored } = self.find(tuple, zone, place)?;
        if stored.is_expired(now) {
            self.delete(id, now, sink);
            return None;
        }
        Some((id, direction))
    }

    /// The reply tuples of the flows with the source of this one, before any translation, whose source was decided about:
    /// most recent first.
    pub(crate) fn of_same_source(&self, flow: &Flow) -> impl Iterator<Item = Tuple> {
        let slots = self.by_source.slots(flow, &self.hasher);
        slots.filter_map(|slot| Some(self.slots.get(slot as usize)?.tuple(Direction::Reply, &self.aside)))
    }

    /// As a look-up in one place, but nothing is deleted.
    pub(crate) fn peek(&self, tuple: &Tuple, zone: Zone, place: Direction, now: Time) -> Option<(EntryId, Direction)> {
        let found = self.find(tuple, zone, place).filter(|found| !found.stored.is_expired(now))?;
        Some((found.id, found.direction))
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
        let reused = self.free.pop().and_then(|slot| Some((slot, self.slots.get_mut(slot as usize)?)));
        let id = match reused {
            Some((slot, place)) => {
                *place = self.aside.store(&entry, place.generation);
                EntryId { slot, generation: place.generation }
            }
            None => {
                let slot = self.slots.push(self.aside.store(&entry, 0)) as u32;
                EntryId { slot, generation: 0 }
            }
        };
        if let Some(extension) = entry.flow.extension.and_then(|extension| self.extensions.get_mut(extension)) {
            extension.entry = Some(id);
        }
        self.by_source.insert(id.slot, &entry.flow, &self.hasher);
        for direction in Direction::BOTH {
            if direction == Direction::Original && entry.is_hidden() {
                continue;
            }
            let hash = hash_of(&self.hasher, entry.flow.tuple(direction), entry.flow.zone.of(direction));
            let (slots, aside, hasher) = (&self.slots, &self.aside, &self.hasher);
            self.handles.insert_unique(hash, Handle::new(id.slot, direction), |handle| {
                let direction = handle.direction();
                slots
                    .get(handle.slot())
                    .map_or(0, |stored| hash_of(hasher, &stored.tuple(direction, aside), stored.zone.of(direction)))
            });
        }
        id
    }

    /// Sets an entry to what `entry` says. Nothing happens where that has other tuples.
    pub(crate) fn replace(&mut self, id: EntryId, entry: &Confirmed) -> bool {
        let same =
            |present: Confirmed| present.flow.tuples == entry.flow.tuples && present.flow.zone == entry.flow.zone;
        if !self.get(id).is_some_and(same) {
            return false;
        }
        if let Some(stored) = self.slots.get_mut(id.slot as usize) {
            self.aside.release(stored);
            *stored = self.aside.store(entry, id.generation);
        }
        true
    }

    /// Deletes an entry and tells of it (`nf_ct_delete`).
    pub(crate) fn delete<S: Sink>(&mut self, id: EntryId, now: Time, sink: &mut S) -> Option<Confirmed> {
        let mut entry = self.remove(id)?;
        if entry.flow.tells(Causes::DESTROY) {
            sink.event(|| Event { causes: Causes::DESTROY, entry, at: now });
        }
        if let Some(extension) = entry.flow.extension.take() {
            self.bury(extension, &entry, now, sink);
        }
        Some(entry)
    }

    /// Takes an entry out of the table.
    fn remove(&mut self, id: EntryId) -> Option<Confirmed> {
        let entry = self.get(id)?;
        for direction in Direction::BOTH {
            let hash = hash_of(&self.hasher, entry.flow.tuple(direction), entry.flow.zone.of(direction));
            let handle = Handle::new(id.slot, direction);
            if let Ok(occupied) = self.handles.find_entry(hash, |other| *other == handle) {
                occupied.remove();
            }
        }
        let stored = self.slots.get_mut(id.slot as usize)?;
        self.aside.release(stored);
        stored.live = false;
        stored.generation = stored.generation.wrapping_add(1);
        self.by_source.remove(id.slot, &self.hasher);
        self.free.push(id.slot);
        Some(entry)
    }

    /// What goes with an entry: its expectations, its calls, and the keys that they had (EXP-09, GRE-02).
    #[cold]
    fn bury<S: Sink>(&mut self, id: ExtensionId, entry: &Confirmed, now: Time, sink: &mut S) {
        self.expectations.remove_all(id, &mut self.counters);
        let Some(extension) = self.extensions.remove(id) else { return };
        if let Some(Help::Pptp(state)) = extension.help {
            pptp::end_call(&entry.flow, (id, &state), self, now, sink);
        }
        if let Some(master) = extension.master {
            self.end_expected(&entry.flow, &master);
        }
    }

    /// `destroy_gre_conntrack`: a GRE flow that ends, or never comes to be, takes the keys of all calls of its control
    /// connection with it.
    pub(crate) fn end_expected(&mut self, flow: &Flow, master: &Master) {
        if flow.tuple(Direction::Original).protonum == proto::GRE
            && let Some(of_master) = self.extension(master.id)
        {
            self.extensions.keymap.remove_all(of_master);
        }
    }

    /// `nf_ct_expect_related`: a flow is expected.
    ///
    /// # Errors
    /// [`Refused`] when another expectation stands in its way.
    pub(crate) fn expect<S: Sink>(&mut self, new: Expectation, now: Time, sink: &mut S) -> Result<(), Refused> {
        self.expectations.add(new, &mut self.counters, now, sink)
    }

    /// `nf_ct_unlink_expect`: a flow is expected no longer.
    pub(crate) fn unexpect(&mut self, one: &Expectation) -> bool {
        self.expectations.remove(one, &mut self.counters)
    }

    /// After confirm: an extension whose entry did not come to be goes, and what was expected with it.
    pub(crate) fn settle(&mut self, id: ExtensionId) {
        if self.extensions.get(id).is_some_and(|extension| extension.entry.is_none()) {
            self.expectations.remove_all(id, &mut self.counters);
            self.extensions.remove(id);
        }
    }

    /// `nf_ct_kill`: deletes the entry that has the tuple in either direction.
    pub(crate) fn kill<S: Sink>(&mut self, tuple: &Tuple, zone: Zone, now: Time, sink: &mut S) -> bool {
        let places = [Direction::Original, Direction::Reply];
        let Some(id) = places.into_iter().find_map(|place| Some(self.find(tuple, zone, place)?.id)) else {
            return false;
        };
        let killed = self.delete(id, now, sink);
        if let Some(killed) = &killed {
            let id = killed.id;
            sink.step(|| Step::Killed { id });
        }
        killed.is_some()
    }

    /// Looks at a few slots and deletes the dead entries in them, so that a table never holds many more dead entries
    /// than were alive at one time (GC-01).
    fn sweep_some<S: Sink>(&mut self, now: Time, sink: &mut S) {
        for _ in 0..2 {
            let index = if self.sweep < self.slots.len() { self.sweep } else { 0 };
            self.sweep = index + 1;
            self.delete_if_dead(index, now, sink);
            self.relieve(index, now, sink);
        }
    }

    /// Deletes all dead entries, as a dump of the kernel's table does (GC-01), and the expectations that are too old.
    pub fn sweep<S: Sink>(&mut self, now: Time, sink: &mut S) {
        self.expectations.expire(now, &mut self.counters);
        for index in 0..self.slots.len() {
            self.delete_if_dead(index, now, sink);
        }
    }

    /// `nf_ct_iterate_cleanup_net`: deletes the entries of which `over` is true.
    pub(crate) fn delete_where<S: Sink>(&mut self, over: impl Fn(&Confirmed) -> bool, now: Time, sink: &mut S) {
        for index in 0..self.slots.len() {
            let Some(stored) = self.slots.get(index).filter(|stored| stored.live) else { continue };
            let id = EntryId { slot: index as u32, generation: stored.generation };
            if over(&stored.read(&self.aside)) {
                self.delete(id, now, sink);
            }
        }
    }

    fn delete_if_dead<S: Sink>(&mut self, index: usize, now: Time, sink: &mut S) {
        if let Some(stored) = self.slots.get(index).filter(|stored| stored.live && stored.is_expired(now)) {
            let id = EntryId { slot: index as u32, generation: stored.generation };
            self.delete(id, now, sink);
        }
    }
}

/// What an entry is found by.
#[inline]
fn hash_of(hasher: &FixedState, tuple: &Tuple, zone: u16) -> u64 {
    let mut state = hasher.build_hasher();
    tuple.hash_in(zone, &mut state);
    state.finish()
}
