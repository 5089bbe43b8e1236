//! Which entries have a source in common, most recent first (`nf_nat_bysource`). NAT asks when a flow begins, so that a
//! client keeps its public port towards every server.

use alloc::vec::Vec;
use core::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::conn::Flow;
use crate::direction::Direction;
use crate::tuple::{Addr, L3};

/// A source before any translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source {
    l3num: L3,
    protonum: u8,
    address: Addr,
    port: u16,
    zone: u16,
}

impl Source {
    /// The source of a flow.
    pub(super) fn of(flow: &Flow) -> Source {
        let tuple = flow.tuple(Direction::Original);
        let zone = flow.zone.of(Direction::Original);
        Source { l3num: tuple.l3num, protonum: tuple.protonum, address: tuple.src, port: tuple.src_u, zone }
    }
}

/// Slots of the table, chained by source.
#[derive(Clone, Debug)]
pub(super) struct BySource {
    /// The newest slot of each source.
    newest: HashTable<u32>,
    /// By slot; `None` for one that is in no chain.
    links: Vec<Option<Link>>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    source: Source,
    newer: Option<u32>,
    older: Option<u32>,
}

impl BySource {
    pub(super) const fn new() -> BySource {
        BySource { newest: HashTable::new(), links: Vec::new() }
    }

    /// Puts a slot in front of its chain.
    pub(super) fn insert(&mut self, slot: u32, source: Source, hasher: &FixedState) {
        let links = &mut self.links;
        if links.len() <= slot as usize {
            links.resize(slot as usize + 1, None);
        }
        let is_of = |links: &[Option<Link>], slot: u32| link(links, slot).is_some_and(|link| link.source == source);
        let hash = hasher.hash_one(source);
        let older = match self.newest.find_mut(hash, |slot| is_of(links, *slot)) {
            Some(head) => Some(core::mem::replace(head, slot)),
            None => {
                let rehash = |slot: &u32| link(links, *slot).map_or(0, |link| hasher.hash_one(link.source));
                self.newest.insert_unique(hash, slot, rehash);
                None
            }
        };
        self.set(slot, Some(Link { source, newer: None, older }));
        self.change(older, |link| link.newer = Some(slot));
    }

    /// Takes a slot out of its chain, if it is in one.
    pub(super) fn remove(&mut self, slot: u32, hasher: &FixedState) {
        let Some(Link { source, newer, older }) = link(&self.links, slot) else { return };
        self.set(slot, None);
        self.change(newer, |link| link.older = older);
        self.change(older, |link| link.newer = newer);
        if newer.is_none()
            && let Ok(mut head) = self.newest.find_entry(hasher.hash_one(source), |head| *head == slot)
        {
            match older {
                Some(older) => *head.get_mut() = older,
                None => drop(head.remove()),
            }
        }
    }

    /// The slots of a source, most recent first.
    pub(super) fn slots(&self, source: Source, hasher: &FixedState) -> impl Iterator<Item = u32> {
        let is_of = |slot: &u32| link(&self.links, *slot).is_some_and(|link| link.source == source);
        let first = self.newest.find(hasher.hash_one(source), is_of).copied();
        core::iter::successors(first, |slot| link(&self.links, *slot)?.older)
    }

    fn set(&mut self, slot: u32, link: Option<Link>) {
        if let Some(place) = self.links.get_mut(slot as usize) {
            *place = link;
        }
    }

    fn change(&mut self, slot: Option<u32>, change: impl FnOnce(&mut Link)) {
        if let Some(Some(link)) = slot.and_then(|slot| self.links.get_mut(slot as usize)) {
            change(link);
        }
    }
}

fn link(links: &[Option<Link>], slot: u32) -> Option<Link> {
    links.get(slot as usize).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(port: u16) -> Source {
        Source { l3num: L3::V4, protonum: 17, address: Addr([0; 16]), port, zone: 0 }
    }

    #[test]
    fn a_chain_is_most_recent_first_wherever_slots_leave_it() {
        let hasher = FixedState::with_seed(0);
        for gone in 0..4u32 {
            let mut index = BySource::new();
            for slot in [2, 0, 3, 1] {
                index.insert(slot, source(7), &hasher);
                index.insert(slot + 10, source(8), &hasher);
            }
            index.remove(gone, &hasher);
            index.remove(gone, &hasher);
            index.insert(5, source(7), &hasher);
            let expected: Vec<u32> = [5, 1, 3, 0, 2].into_iter().filter(|slot| *slot != gone).collect();
            assert_eq!(index.slots(source(7), &hasher).collect::<Vec<_>>(), expected);
            for slot in expected {
                index.remove(slot, &hasher);
            }
            assert_eq!(index.slots(source(7), &hasher).count(), 0);
            assert_eq!(index.slots(source(8), &hasher).collect::<Vec<_>>(), [11, 13, 10, 12]);
        }
    }
}
