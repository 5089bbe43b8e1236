//! Members that have a key in common, most recent first.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Small numbers, each in the chain of one key or in none.
#[derive(Clone, Debug)]
pub(super) struct Chains<K> {
    /// The newest member of each chain.
    newest: HashTable<u32>,
    /// By member; `None` for one that is in no chain.
    links: Vec<Option<Link<K>>>,
}

#[derive(Clone, Copy, Debug)]
struct Link<K> {
    key: K,
    newer: Option<u32>,
    older: Option<u32>,
}

impl<K> Chains<K> {
    pub(super) const fn new() -> Chains<K> {
        Chains { newest: HashTable::new(), links: Vec::new() }
    }
}

impl<K: Copy + Eq + Hash> Chains<K> {
    /// Puts a member, which is in no chain, in front of the one of `key`.
    pub(super) fn insert(&mut self, member: u32, key: K, hasher: &FixedState) {
        let links = &mut self.links;
        if links.len() <= member as usize {
            links.resize(member as usize + 1, None);
        }
        let is_of = |links: &[Option<Link<K>>], member: u32| link(links, member).is_some_and(|link| link.key == key);
        let hash = hasher.hash_one(key);
        let older = match self.newest.find_mut(hash, |member| is_of(links, *member)) {
            Some(head) => Some(core::mem::replace(head, member)),
            None => {
                let rehash = |member: &u32| link(links, *member).map_or(0, |link| hasher.hash_one(link.key));
                self.newest.insert_unique(hash, member, rehash);
                None
            }
        };
        self.set(member, Some(Link { key, newer: None, older }));
        self.change(older, |link| link.newer = Some(member));
    }

    /// Takes a member out of its chain, if it is in one.
    pub(super) fn remove(&mut self, member: u32, hasher: &FixedState) {
        let Some(Link { key, newer, older }) = link(&self.links, member) else { return };
        self.set(member, None);
        self.change(newer, |link| link.older = older);
        self.change(older, |link| link.newer = newer);
        if newer.is_none()
            && let Ok(mut head) = self.newest.find_entry(hasher.hash_one(key), |head| *head == member)
        {
            match older {
                Some(older) => *head.get_mut() = older,
                None => drop(head.remove()),
            }
        }
    }

    /// The members of a chain, most recent first.
    pub(super) fn members(&self, key: K, hasher: &FixedState) -> impl Iterator<Item = u32> {
        let is_of = |member: &u32| link(&self.links, *member).is_some_and(|link| link.key == key);
        let first = self.newest.find(hasher.hash_one(key), is_of).copied();
        core::iter::successors(first, |member| link(&self.links, *member)?.older)
    }

    fn set(&mut self, member: u32, link: Option<Link<K>>) {
        if let Some(place) = self.links.get_mut(member as usize) {
            *place = link;
        }
    }

    fn change(&mut self, member: Option<u32>, change: impl FnOnce(&mut Link<K>)) {
        if let Some(Some(link)) = member.and_then(|member| self.links.get_mut(member as usize)) {
            change(link);
        }
    }
}

fn link<K: Copy>(links: &[Option<Link<K>>], member: u32) -> Option<Link<K>> {
    links.get(member as usize).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_most_recent_first_wherever_members_leave_it() {
        let hasher = FixedState::with_seed(0);
        for gone in 0..4u32 {
            let mut chains = Chains::new();
            for member in [2, 0, 3, 1] {
                chains.insert(member, 7, &hasher);
                chains.insert(member + 10, 8, &hasher);
            }
            chains.remove(gone, &hasher);
            chains.remove(gone, &hasher);
            chains.insert(5, 7, &hasher);
            let expected: Vec<u32> = [5, 1, 3, 0, 2].into_iter().filter(|member| *member != gone).collect();
            assert_eq!(chains.members(7, &hasher).collect::<Vec<_>>(), expected);
            for member in expected {
                chains.remove(member, &hasher);
            }
            assert_eq!(chains.members(7, &hasher).count(), 0);
            assert_eq!(chains.members(8, &hasher).collect::<Vec<_>>(), [11, 13, 10, 12]);
        }
    }
}
