//! Which entries have an end in common. NAT asks when a flow begins.
//!
//! Always kept is what the kernel keeps (`nf_nat_bysource`): the entries of a source, so that a client keeps its public
//! port towards every server. The kernel notes flows from the moment that they are bound, and here they are noted when they
//! are confirmed; but nothing happens between a source's binding and confirm, unless the flow was expected and waits in a
//! queue meanwhile.
//!
//! Where mappings are to be independent of the other end ([`crate::nat::options`]) it is also kept which end inside each
//! end outside stands for, because two ends inside must not share one.

use alloc::boxed::Box;
use alloc::vec::Vec;

use foldhash::fast::FixedState;

use super::chains::Chains;
use super::endpoint::Endpoint;
use super::stored::Stored;
use super::{EntryId, Table};
use crate::conn::Flow;
use crate::direction::Direction;
use crate::nat::Manip;
use crate::status::Status;
use crate::time::Time;
use crate::tuple::{Addr, Tuple, has_ports};
use crate::zone::Zone;

/// Slots of the table by ends of their entries.
#[derive(Clone, Debug)]
pub(super) struct BySource {
    sources: Chains<Endpoint>,
    mappings: Option<Box<Mappings>>,
}

/// Members are a slot and, in the lowest bit, the side of its entry that is mapped.
#[derive(Clone, Debug)]
struct Mappings {
    inside: Chains<Endpoint>,
    outside: Chains<Endpoint>,
}

const SIDES: [Manip; 2] = [Manip::Src, Manip::Dst];

const fn member(slot: u32, side: Manip) -> u32 {
    slot << 1 | matches!(side, Manip::Dst) as u32
}

const fn side(member: u32) -> Manip {
    if member & 1 == 0 { Manip::Src } else { Manip::Dst }
}

/// The end inside and the end outside that one side of a flow is translated between, alike where nothing is changed.
/// `None` where NAT has not decided about the side, and for protocols whose ends are not told apart. An ICMP query is
/// mapped by its sender only: its id would say nothing about the other end.
fn mapped([original, reply]: &[Tuple; 2], zone: Zone, status: Status, side: Manip) -> Option<(Endpoint, Endpoint)> {
    let (there, back) = (zone.of(Direction::Original), zone.of(Direction::Reply));
    let (varies, ends) = match side {
        Manip::Src => (
            has_ports(original.protonum) || original.is_icmp(),
            (Endpoint::source(original, there), Endpoint::destination(reply, back)),
        ),
        Manip::Dst => {
            (has_ports(original.protonum), (Endpoint::source(reply, back), Endpoint::destination(original, there)))
        }
    };
    (varies && status.contains(side.done())).then_some(ends)
}

/// Who an entry talks to by its mapping of one side, as it is seen from outside.
const fn remote([original, reply]: &[Tuple; 2], side: Manip) -> Addr {
    match side {
        Manip::Src => original.dst,
        Manip::Dst => reply.dst,
    }
}

impl BySource {
    pub(super) const fn new() -> BySource {
        BySource { sources: Chains::new(), mappings: None }
    }

    /// Takes note of the flow of a slot, if NAT has decided about it.
    pub(super) fn insert(&mut self, slot: u32, flow: &Flow, hasher: &FixedState) {
        if flow.status.contains(Status::SRC_NAT_DONE) {
            self.sources.insert(slot, source(flow), hasher);
        }
        if let Some(mappings) = &mut self.mappings {
            mappings.insert(slot, (&flow.tuples, flow.zone, flow.status), hasher);
        }
    }

    /// Forgets a slot.
    pub(super) fn remove(&mut self, slot: u32, hasher: &FixedState) {
        self.sources.remove(slot, hasher);
        if let Some(mappings) = &mut self.mappings {
            for side in SIDES {
                mappings.inside.remove(member(slot, side), hasher);
                mappings.outside.remove(member(slot, side), hasher);
            }
        }
    }

    /// The slots of the source of a flow, most recent first.
    pub(super) fn slots(&self, flow: &Flow, hasher: &FixedState) -> impl Iterator<Item = u32> {
        self.sources.members(source(flow), hasher)
    }
}

/// The source of a flow before any translation.
fn source(flow: &Flow) -> Endpoint {
    Endpoint::source(flow.tuple(Direction::Original), flow.zone.of(Direction::Original))
}

impl Mappings {
    fn insert(&mut self, slot: u32, (tuples, zone, status): (&[Tuple; 2], Zone, Status), hasher: &FixedState) {
        for side in SIDES {
            if let Some((inside, outside)) = mapped(tuples, zone, status, side) {
                self.inside.insert(member(slot, side), inside, hasher);
                self.outside.insert(member(slot, side), outside, hasher);
            }
        }
    }
}

impl Table {
    /// From now on, or no longer, takes note of which end inside each end outside stands for.
    pub(crate) fn keep_mappings(&mut self, keep: bool) {
        if keep == self.by_source.mappings.is_some() {
            return;
        }
        self.by_source.mappings = keep.then(|| {
            let mut mappings = Box::new(Mappings { inside: Chains::new(), outside: Chains::new() });
            let mut known: Vec<_> = self.iter().collect();
            known.sort_by_key(|(_, entry)| entry.id);
            for (EntryId { slot, .. }, entry) in known {
                let flow = &entry.flow;
                mappings.insert(slot, (&flow.tuples, flow.zone, flow.status), &self.hasher);
            }
            mappings
        });
    }

    /// The ends outside that stand for an end inside, that of the latest flow first. One may come several times.
    pub(crate) fn mapped_from(&self, inside: Endpoint, now: Time) -> impl Iterator<Item = Endpoint> {
        let members = self.by_source.mappings.iter().flat_map(move |own| own.inside.members(inside, &self.hasher));
        members.filter_map(move |member| Some(self.mapping_of(member, now)?.1))
    }

    /// The end inside that an end outside stands for.
    pub(crate) fn mapped_to(&self, outside: Endpoint, now: Time) -> Option<Endpoint> {
        self.talks_by(outside, now).next().map(|(inside, _)| inside)
    }

    /// Does anybody at this address take part in a flow by an end outside?
    pub(crate) fn is_talked_to(&self, outside: Endpoint, address: Addr, now: Time) -> bool {
        self.talks_by(outside, now).any(|(_, remote)| remote == address)
    }

    /// For each flow by an end outside the end inside, and who it talks to.
    fn talks_by(&self, outside: Endpoint, now: Time) -> impl Iterator<Item = (Endpoint, Addr)> {
        let members = self.by_source.mappings.iter().flat_map(move |own| own.outside.members(outside, &self.hasher));
        members.filter_map(move |member| {
            let (inside, _) = self.mapping_of(member, now)?;
            Some((inside, remote(&self.tuples_at(member >> 1)?.1, side(member))))
        })
    }

    fn mapping_of(&self, member: u32, now: Time) -> Option<(Endpoint, Endpoint)> {
        let (stored, tuples) = self.tuples_at(member >> 1)?;
        if stored.is_expired(now) { None } else { mapped(&tuples, stored.zone, stored.status, side(member)) }
    }

    fn tuples_at(&self, slot: u32) -> Option<(&Stored, [Tuple; 2])> {
        let stored = self.slots.get(slot as usize).filter(|stored| stored.live)?;
        Some((stored, Direction::BOTH.map(|direction| stored.tuple(direction, &self.aside))))
    }

    /// Is the note that is taken of an entry right?
    pub(super) fn notes_are_right(&self, slot: u32, entry: &Flow) -> bool {
        let noted = self.by_source.slots(entry, &self.hasher).any(|noted| noted == slot);
        noted == entry.status.contains(Status::SRC_NAT_DONE)
            && self.by_source.mappings.iter().all(|mappings| {
                SIDES.iter().all(|side| {
                    let own = member(slot, *side);
                    let stands = |chains: &Chains<Endpoint>, end| chains.members(end, &self.hasher).any(|m| m == own);
                    mapped(&entry.tuples, entry.zone, entry.status, *side).is_none_or(|(inside, outside)| {
                        stands(&mappings.inside, inside) && stands(&mappings.outside, outside)
                    })
                })
            })
    }
}
