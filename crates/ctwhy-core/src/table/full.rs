//! A table that holds as many entries as it may: what has to go for a flow that begins (`__nf_conntrack_alloc`,
//! `early_drop`, `gc_worker`; catalogue FULL-01, FULL-02).
//!
//! The kernel counts the entries of packets on their way, too. The table knows of one such packet only, the one that asks;
//! those that a caller holds between two hooks are not in its count. Entries that are dead but were not met since, and
//! those that serve answers only, are (OBS-12).
//!
//! The kernel looks for what may go in eight buckets of its hash table, from the one of the new flow on. As it comes, it has
//! as many buckets as it may have entries, and finds an entry in two of them: where it is full, two in each. So here slots
//! of the table in pairs stand for buckets. They are drawn from all over the table, because flows that began together lie
//! together in it, as they do not in a hash table. A kernel with few entries and many buckets finds less.

use core::num::NonZeroU32;

use super::{EntryId, Table};
use crate::conn::{Confirmed, Protocol};
use crate::direction::Direction;
use crate::status::Status;
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::track::sctp::SctpState as Sctp;
use crate::track::tcp::TcpState as Tcp;
use crate::tuple::Tuple;
use crate::zone::Zone;

/// Buckets that are looked into (`NF_CT_EVICTION_RANGE`).
const RANGE: usize = 8;
/// Slots that stand for a bucket.
const BUCKET: usize = 2;
/// From one of these slots to the next, in parts of the table of 2^64: the golden section, which spreads any number of them
/// evenly.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// A flow could not begin, because no entry may be added to the table and none may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull {
    /// How many entries there are.
    pub count: usize,
    /// How many there may be.
    pub limit: NonZeroU32,
}

impl TableFull {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "conntrack.table_full"
    }
}

/// What the sweep has to do besides, once a flow could not begin (FULL-02).
#[derive(Clone, Copy, Debug)]
pub(super) struct Pressure {
    /// Slots that the sweep has still to come by.
    left: usize,
    /// With fewer entries nothing has to go.
    floor: usize,
}

impl Pressure {
    /// `None` for a limit of which the kernel's 95 % is nothing: it divides by 100 first.
    fn new(slots: usize, limit: NonZeroU32) -> Option<Pressure> {
        let floor = limit.get() as usize / 100 * 95;
        (floor > 0).then_some(Pressure { left: slots, floor })
    }
}

impl Table {
    /// Makes room for the entry of a flow that begins with a packet of `tuple`, if there is none.
    ///
    /// # Errors
    /// [`TableFull`] when nothing near may go. The packet is dropped.
    pub(crate) fn make_room<S: Sink>(
        &mut self,
        limit: Option<NonZeroU32>,
        (tuple, zone): (&Tuple, Zone),
        now: Time,
        sink: &mut S,
    ) -> Result<(), TableFull> {
        match limit {
            Some(limit) if self.len() >= limit.get() as usize => self.evict(limit, self.hash(tuple, zone), now, sink),
            _ => Ok(()),
        }
    }

    /// `early_drop`: of the first bucket that has any, all entries go that are not ASSURED.
    #[cold]
    fn evict<S: Sink>(&mut self, limit: NonZeroU32, hash: u64, now: Time, sink: &mut S) -> Result<(), TableFull> {
        let full = TableFull { count: self.len(), limit };
        sink.step(|| Step::TableFull(full));
        let slots = self.slots.len() as u128;
        let mut at = hash;
        for _ in 0..RANGE {
            let mut gone = 0;
            for _ in 0..BUCKET {
                at = at.wrapping_add(STRIDE);
                let index = ((u128::from(at) * slots) >> 64) as usize;
                // One that is dead goes, too, but it is not what was looked for.
                self.delete_if_dead(index, now, sink);
                if let Some((id, _)) = self.entry_at(index).filter(|(_, entry)| !is_assured(entry)) {
                    gone += u64::from(self.drop_early(id, now, sink));
                }
            }
            if gone > 0 {
                self.counters.early_drop += gone;
                return Ok(());
            }
        }
        self.counters.drop += 1;
        if self.pressure.is_none() {
            self.pressure = Pressure::new(self.slots.len(), limit);
        }
        // Nothing is confirmed any more, which is what moves the sweep on otherwise.
        self.sweep_some(now, sink);
        Err(full)
    }

    /// `gc_worker` behind a failed `early_drop`, about one slot: while the table is nearly full, what is not ASSURED goes,
    /// and what is about to end. One pass over the table.
    pub(super) fn relieve<S: Sink>(&mut self, index: usize, now: Time, sink: &mut S) {
        let Some(Pressure { left, floor }) = self.pressure else { return };
        self.pressure = left.checked_sub(1).filter(|left| *left > 0).map(|left| Pressure { left, floor });
        if self.len() < floor {
            return;
        }
        if let Some((id, _)) = self.entry_at(index).filter(|(_, entry)| may_go(entry)) {
            self.drop_early(id, now, sink);
        }
    }

    fn entry_at(&self, index: usize) -> Option<(EntryId, Confirmed)> {
        let stored = self.slots.get(index).filter(|stored| stored.live)?;
        Some((EntryId { slot: index as u32, generation: stored.generation }, stored.read(&self.aside)))
    }

    fn drop_early<S: Sink>(&mut self, id: EntryId, now: Time, sink: &mut S) -> bool {
        let Some(entry) = self.delete(id, now, sink) else { return false };
        let original = *entry.flow.tuple(Direction::Original);
        sink.step(|| Step::EarlyDropped { id: entry.id, original });
        true
    }
}

const fn is_assured(entry: &Confirmed) -> bool {
    entry.flow.status.contains(Status::ASSURED)
}

/// `gc_worker_can_early_drop`, `tcp_can_early_drop`, `sctp_can_early_drop`.
const fn may_go(entry: &Confirmed) -> bool {
    !is_assured(entry)
        || match &entry.flow.protocol {
            Protocol::Tcp(tcp) => {
                matches!(tcp.state(), Tcp::FinWait | Tcp::CloseWait | Tcp::LastAck | Tcp::TimeWait | Tcp::Close)
            }
            Protocol::Sctp(sctp) => {
                matches!(sctp.state(), Sctp::ShutdownSent | Sctp::ShutdownRecd | Sctp::ShutdownAckSent)
            }
            _ => false,
        }
}
