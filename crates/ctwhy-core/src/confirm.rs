//! The last hook: an unconfirmed entry goes into the table (`nf_confirm`, `__nf_conntrack_confirm`; catalogue A.6).

use crate::conn::{Flow, Unconfirmed};
use crate::conntrack::{Attached, Tracked};
use crate::direction::{CtInfo, Direction};
use crate::event::{Causes, Event};
use crate::status::Status;
use crate::table::{Clash, EntryId, Table};
use crate::time::Time;
use crate::trace::{Sink, Step};

/// Why a packet was dropped at confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmDrop {
    /// Another flow holds the tuple of this direction (CLASH-02c, CLASH-03).
    Clash {
        /// The direction of the new flow.
        direction: Direction,
    },
}

impl ConfirmDrop {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            ConfirmDrop::Clash { .. } => "confirm.clash",
        }
    }
}

/// `nf_confirm`: confirms the packet's entry if it is new and the packet travels in original direction, and tells what
/// happened to it.
pub(crate) fn confirm<S: Sink>(
    tracked: &mut Tracked,
    table: &mut Table,
    now: Time,
    sink: &mut S,
) -> Result<(), ConfirmDrop> {
    insert(tracked, table, now, sink)?;
    if let Attached::Entry(id) = tracked.attached {
        tell(id, table, now, sink);
    }
    Ok(())
}

/// `nf_ct_deliver_cached_events`: one event for everything since the last one.
fn tell<S: Sink>(id: EntryId, table: &mut Table, now: Time, sink: &mut S) {
    let Some(causes) = table.get_mut(id).map(|entry| core::mem::take(entry.pending)) else { return };
    if !causes.is_empty()
        && let Some(entry) = table.get(id).filter(|entry| entry.flow.tells(causes))
    {
        sink.event(|| Event { causes, entry, at: now });
    }
}

/// `__nf_conntrack_confirm`: puts an unconfirmed entry into the table.
fn insert<S: Sink>(tracked: &mut Tracked, table: &mut Table, now: Time, sink: &mut S) -> Result<(), ConfirmDrop> {
    let Attached::Unconfirmed(own) = &tracked.attached else { return Ok(()) };
    // An entry attached in reply direction belongs to the packet that is being answered (NEW-04); one that carries
    // CONFIRMED was in the table and has been deleted.
    if tracked.ctinfo.direction() != Some(Direction::Original) || own.flow.status.contains(Status::CONFIRMED) {
        return Ok(());
    }
    match table.confirm(own, now, sink) {
        Ok(id) => {
            let number = table.get_mut(id).map_or(0, |entry| {
                let expected = entry.status.contains(Status::EXPECTED);
                *entry.pending |= if expected { Causes::RELATED } else { Causes::NEW };
                if own.flow.helper.is_some() {
                    *entry.pending |= Causes::HELPER;
                }
                entry.id
            });
            sink.step(|| Step::Confirmed { id: number });
            tracked.attached = Attached::Entry(id);
            Ok(())
        }
        Err(clash) => match resolve(own, &clash, table, now, sink) {
            Some(id) => {
                tracked.attached = Attached::Entry(id);
                Ok(())
            }
            None => {
                table.counters.insert_failed += 1;
                table.counters.drop += 1;
                Err(ConfirmDrop::Clash { direction: clash.direction })
            }
        },
    }
}

/// `nf_ct_resolve_clash`: what can be done for a packet whose flow is in the table already (CLASH-02). Protocols in which
/// a lost packet is sent again have to do so (CLASH-03).
fn resolve<S: Sink>(own: &Unconfirmed, clash: &Clash, table: &mut Table, now: Time, sink: &mut S) -> Option<EntryId> {
    let flow = &own.flow;
    if !table.kernel.allows_clash(flow.tuple(Direction::Original).protonum) {
        return None;
    }
    if merge(own, clash.holder, table, sink) {
        return Some(clash.holder);
    }
    // Another binding was chosen for the same packets. The answers to this one can still be told from others, unless they
    // would be those of a third flow.
    match table.lookup_at(flow.tuple(Direction::Reply), flow.zone, Direction::Reply, now, sink) {
        Some((holder, _)) => merge(own, holder, table, sink).then_some(holder),
        None => {
            let (id, number) = table.insert_for_replies(own, now);
            table.counters.clash_resolve += 1;
            sink.step(|| Step::ClashInserted { id: number });
            Some(id)
        }
    }
}

/// `__nf_ct_resolve_clash`: the packet moves to the entry that was first where both mean the same flow, seen from either
/// side (CLASH-02a). Older releases look at one side, and where that entry has no bindings at nothing at all. True when
/// it did.
fn merge<S: Sink>(own: &Unconfirmed, holder: EntryId, table: &mut Table, sink: &mut S) -> bool {
    let Some(winner) = table.get(holder) else { return false };
    let key = |flow: &Flow, direction| (*flow.tuple(direction), flow.zone.of(direction));
    let equals = |direction: Direction, other: Direction| key(&own.flow, direction) == key(&winner.flow, other);
    let same = Direction::BOTH.into_iter().all(|direction| equals(direction, direction));
    let mirrored = Direction::BOTH.into_iter().all(|direction| equals(direction, direction.opposite()));
    let unbound = !winner.flow.status.intersects(Status::NAT_DONE_MASK);
    if !(same || if table.kernel.mirrored_clash { mirrored } else { unbound }) {
        return false;
    }
    // The packet keeps the direction that it had, and so does its count.
    if let Some([counted, _]) = own.flow.counters
        && let Some(mut winner) = table.get_mut(holder)
    {
        winner.count(Direction::Original, usize::try_from(counted.bytes).unwrap_or(usize::MAX));
    }
    let number = winner.id;
    table.counters.clash_resolve += 1;
    sink.step(|| Step::ClashMerged { id: number });
    true
}

/// `nf_conntrack_attach`: a packet that this host sends in answer to another carries that packet's entry, in the
/// other direction, as RELATED. `None` when the answered packet has no entry (ICMP-LOC-03).
pub(crate) fn attach(trigger: &Tracked) -> Option<Tracked> {
    let direction = trigger.ctinfo.direction()?;
    let ctinfo = CtInfo::related(direction.opposite());
    Some(Tracked { ctinfo, reason: None, attached: trigger.attached.clone() })
}
