//! Expectations: flows that are still to come and belong to one that is there (`nf_conntrack_expect.c`; EXP-*).

use alloc::vec::Vec;
use core::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::counters::Counters;
use crate::direction::Direction;
use crate::extension::ExtensionId;
use crate::helper::{Helper, Policy};
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::tuple::{Addr, L3, Tuple};

/// How many expectations there may be (`nf_conntrack_expect_max`), as the kernel sets it on a machine with more than
/// 4 GB of memory.
pub const EXPECT_MAX: usize = 4096;

/// What an expectation compares of a source (`struct nf_conntrack_tuple_mask`); a destination is compared whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Is the address of the source compared?
    pub address: bool,
    /// Is its port, or its key?
    pub port: bool,
}

/// What NAT makes of the flow that comes (`exp->expectfn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing: rules decide.
    None,
    /// `nf_nat_follow_master`: it is translated as its master is.
    Master {
        /// The direction of the master that the flow goes in (`exp->dir`).
        direction: Direction,
        /// The port that the one who asked for the flow listens at (`exp->saved_proto`).
        port: u16,
    },
    /// `pptp_expectfn`: the expectation of the other direction is no longer needed.
    Pptp {
        /// The direction of the master that the flow goes in, and the key that it really has; `None` without NAT.
        nat: Option<(Direction, u16)>,
    },
}

/// `NF_CT_EXPECT_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It stays when a flow has come.
    pub permanent: bool,
    /// No flow matches it.
    pub inactive: bool,
    /// Made by a helper in user space.
    pub userspace: bool,
}

impl Flags {
    /// The names of those that are set, as `conntrack -L expect` has them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let Flags { permanent, inactive, userspace } = self;
        let named = [(permanent, "PERMANENT"), (inactive, "INACTIVE"), (userspace, "USERSPACE")];
        named.into_iter().filter(|(set, _)| *set).map(|(_, name)| name)
    }
}

/// A flow to come (`struct nf_conntrack_expect`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its first packet.
    pub tuple: Tuple,
    /// What counts of the source.
    pub mask: Mask,
    /// The flow that it belongs to.
    pub master: ExtensionId,
    /// Number of the zone that it is looked for in.
    pub zone: u16,
    /// Who expects it.
    pub helper: Helper,
    /// Which of the helper's policies; none of those here has more than one.
    pub class: u8,
    /// Flags.
    pub flags: Flags,
    /// What NAT does.
    pub follow: Follow,
    /// When it is dead. A kernel's timer of five minutes strikes some seconds later, and until then the flow may come.
    pub expires: Time,
    /// Order of making.
    serial: u64,
}

impl Expectation {
    /// `nf_ct_expect_init`: a flow from `src` to `dst`, compared as far as it is given.
    #[must_use]
    pub(crate) fn new(
        (master, helper, zone): (ExtensionId, Helper, u16),
        (l3num, protonum): (L3, u8),
        src: (Addr, Option<u16>),
        dst: (Addr, u16),
    ) -> Expectation {
        let (src, src_u) = src;
        let (dst, dst_u) = dst;
        Expectation {
            tuple: Tuple { src, dst, src_u: src_u.unwrap_or(0), dst_u, l3num, protonum },
            mask: Mask { address: true, port: src_u.is_some() },
            master,
            zone,
            helper,
            class: 0,
            flags: Flags::default(),
            follow: Follow::None,
            expires: Time(0),
            serial: 0,
        }
    }

    /// `nf_ct_tuple_mask_cmp`: is this a packet of the flow?
    fn matches(&self, tuple: &Tuple) -> bool {
        same_destination(&self.tuple, tuple) && same_source(&self.tuple, tuple, self.mask)
    }

    /// `expect_clash`: could a packet belong to both?
    fn clashes(&self, other: &Expectation) -> bool {
        let mask = Mask { address: self.mask.address && other.mask.address, port: self.mask.port && other.mask.port };
        self.zone == other.zone
            && same_destination(&self.tuple, &other.tuple)
            && same_source(&self.tuple, &other.tuple, mask)
    }
}

fn same_destination(a: &Tuple, b: &Tuple) -> bool {
    (a.dst, a.dst_u, a.l3num, a.protonum) == (b.dst, b.dst_u, b.l3num, b.protonum)
}

fn same_source(a: &Tuple, b: &Tuple, mask: Mask) -> bool {
    (!mask.address || a.src == b.src) && (!mask.port || a.src_u == b.src_u)
}

/// Why an expectation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another one could be meant by the same packet (`-EBUSY`).
    Clash,
    /// There are too many (`-EMFILE`).
    Full,
}

/// All expectations, found by their destination.
#[derive(Clone, Debug)]
pub struct Expectations {
    found: HashTable<Expectation>,
    hasher: FixedState,
    serial: u64,
    /// How many there may be.
    pub max: usize,
}

impl Default for Expectations {
    fn default() -> Self {
        Expectations::new()
    }
}

impl Expectations {
    /// None.
    #[must_use]
    pub const fn new() -> Expectations {
        Expectations { found: HashTable::new(), hasher: FixedState::with_seed(0), serial: 0, max: EXPECT_MAX }
    }

    /// Is nothing expected?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Those that are alive at `now`, the oldest first.
    #[must_use]
    pub fn alive(&self, now: Time) -> Vec<Expectation> {
        let mut all: Vec<_> = self.found.iter().filter(|one| one.expires > now).copied().collect();
        all.sort_by_key(|one| one.serial);
        all
    }

    fn hash(&self, tuple: &Tuple) -> u64 {
        self.hasher.hash_one((tuple.dst, tuple.dst_u, tuple.l3num, tuple.protonum))
    }

    /// `nf_ct_expect_find_get`, `nf_ct_find_expectation`: what `tuple` is the first packet of.
    #[must_use]
    pub(crate) fn find(&self, tuple: &Tuple, zone: u16, now: Time) -> Option<&Expectation> {
        if self.is_empty() {
            return None;
        }
        self.found.find(self.hash(tuple), |one| one.expires > now && one.zone == zone && one.matches(tuple))
    }

    /// Takes one out (`nf_ct_unlink_expect`).
    pub(crate) fn remove(&mut self, one: &Expectation, counters: &mut Counters) -> bool {
        let hash = self.hash(&one.tuple);
        let Ok(entry) = self.found.find_entry(hash, |other| other.serial == one.serial) else { return false };
        entry.remove();
        counters.expect_delete += 1;
        true
    }

    /// `nf_ct_remove_expectations`: the master is gone (EXP-09).
    pub(crate) fn remove_all(&mut self, master: ExtensionId, counters: &mut Counters) {
        self.retain(|one| one.master != master, counters);
    }

    /// `nf_ct_expectation_timed_out`: those of which the time is over go.
    pub(crate) fn expire(&mut self, now: Time, counters: &mut Counters) {
        self.retain(|one| one.expires > now, counters);
    }

    fn retain(&mut self, stays: impl Fn(&Expectation) -> bool, counters: &mut Counters) {
        let before = self.found.len();
        self.found.retain(|one| stays(one));
        counters.expect_delete += (before - self.found.len()) as u64;
    }

    /// `nf_ct_expect_related`: takes an expectation in the place of an equal one, and of the oldest one where its
    /// helper may have no more.
    ///
    /// # Errors
    /// [`Refused`] when another one stands in its way.
    pub(crate) fn add<S: Sink>(
        &mut self,
        mut new: Expectation,
        counters: &mut Counters,
        now: Time,
        sink: &mut S,
    ) -> Result<(), Refused> {
        let Policy { max_expected, timeout } = new.helper.policy();
        let hash = self.hash(&new.tuple);
        let equal = |one: &Expectation| {
            one.master == new.master && one.class == new.class && one.tuple == new.tuple && one.mask == new.mask
        };
        let alive = |one: &Expectation| one.expires > now;
        let same = self.found.find(hash, |one| alive(one) && equal(one)).copied();
        match same {
            Some(same) => {
                self.remove(&same, counters);
                sink.step(|| Step::ExpectationReplaced { tuple: same.tuple });
            }
            None if self.found.find(hash, |one| alive(one) && one.clashes(&new)).is_some() => {
                return Err(Refused::Clash);
            }
            None => {}
        }
        self.expire(now, counters);
        let of_class = |one: &&Expectation| one.master == new.master && one.class == new.class;
        if self.found.iter().filter(of_class).count() >= max_expected
            && let Some(oldest) = self.found.iter().filter(of_class).min_by_key(|one| one.serial).copied()
        {
            self.remove(&oldest, counters);
            sink.step(|| Step::ExpectationEvicted { tuple: oldest.tuple, max: max_expected });
        }
        if self.found.len() >= self.max {
            return Err(Refused::Full);
        }
        counters.expect_create += 1;
        self.serial += 1;
        (new.serial, new.expires) = (self.serial, now.plus_secs(timeout));
        let Expectations { found, hasher, .. } = self;
        found.insert_unique(hash, new, |one| {
            hasher.hash_one((one.tuple.dst, one.tuple.dst_u, one.tuple.l3num, one.tuple.protonum))
        });
        sink.step(|| Step::ExpectationMade { tuple: new.tuple, mask: new.mask, helper: new.helper, seconds: timeout });
        Ok(())
    }
}
