//! An engine beside a kernel: it tracks by itself and learns what only the kernel can know.
//!
//! The caller sees packets behind the kernel's conntrack and again when they left. In between it asks the engine:
//! [`Engine::arrive`] decides about a packet; when the kernel let it go on, [`Engine::depart`] takes over the binding
//! that the kernel chose, translates the packet in the same way and confirms its entry. [`Engine::learn`] and
//! [`Engine::forget`] keep the table in step where packets were not seen.

use crate::confirm;
use crate::conn::{Confirmed, Flow, Unconfirmed};
use crate::conntrack::{Attached, Tracked};
use crate::direction::Direction;
use crate::hook::{DropCause, Egress, Engine, Hook, Ruling, Unseen, Verdict, Way, not_tracked};
use crate::nat::NatDrop;
use crate::nat::hooks::{Surroundings, translate};
use crate::nat::manip::decrement_ttl;
use crate::nat::rules::Ruleset;
use crate::packet::Packet;
use crate::status::Status;
use crate::table::EntryId;
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::tuple::Tuple;

/// What the kernel said about a flow that it confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// The kernel's number of the entry, CTA_ID.
    pub id: u32,
    /// The reply tuple, translations included.
    pub reply: Tuple,
    /// The status bits.
    pub status: Status,
}

/// How a packet left.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// Where it came from: PREROUTING or LOCAL_OUT.
    pub hook: Hook,
    /// Where it went; [`Egress::Nowhere`] when something dropped it.
    pub egress: Egress,
    /// The kernel's word about the flow that the packet began.
    pub learnt: Option<Learnt>,
}

/// An entry of the kernel's table, from a dump or an event.
#[derive(Clone, Copy, Debug)]
pub struct KernelEntry {
    /// The flow, its state as far as ctnetlink shows it.
    pub flow: Flow,
    /// The kernel's number of the entry, CTA_ID.
    pub id: u32,
    /// Seconds that it has to live.
    pub timeout: u32,
}

impl Engine {
    /// A packet at the conntrack hook of `hook`. `trigger` is as in [`Engine::send`].
    ///
    /// # Errors
    /// [`Unseen`] for a packet that conntrack has no say about.
    pub fn arrive<S: Sink>(
        &mut self,
        packet: &Packet<'_>,
        hook: Hook,
        trigger: Option<&Tracked>,
        now: Time,
        sink: &mut S,
    ) -> Result<Tracked, Unseen> {
        if let Some(unseen) = not_tracked(packet) {
            return Err(unseen);
        }
        if let Some(tracked) = trigger.and_then(confirm::attach) {
            sink.step(|| Step::AlreadyAttached);
            sink.step(|| Step::Decided { ctinfo: tracked.ctinfo });
            return Ok(tracked);
        }
        Ok(self.conntrack.track(packet, hook, now, sink))
    }

    /// The rest of a packet's way, as the kernel took it: `buffer` holds the packet as it arrived and is rewritten to
    /// what it must have looked like when it left.
    pub fn depart<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        mut tracked: Tracked,
        departure: &Departure,
        now: Time,
        sink: &mut S,
    ) -> Ruling {
        let Departure { hook, egress, learnt } = *departure;
        let ruling = |tracked: Tracked, verdict, egress| Ruling {
            hook,
            ctinfo: Ok(tracked.ctinfo),
            reason: tracked.reason,
            verdict,
            egress,
            attached: tracked.attached,
        };
        let Ok(packet) = Packet::parse(buffer, buffer.len()) else {
            return ruling(tracked, Verdict::Accept, egress);
        };
        let (l3num, len) = (packet.l3num, packet.len);
        if egress == Egress::Nowhere {
            if matches!(tracked.attached, Attached::Unconfirmed(_)) {
                sink.step(|| Step::EntryVanished);
            }
            return ruling(tracked, Verdict::Accept, egress);
        }
        if let (Some(learnt), Attached::Unconfirmed(own)) = (learnt, &mut tracked.attached) {
            own.flow.tuples[Direction::Reply.index()] = learnt.reply;
            let nat = Status(Status::NAT_MASK.0 | Status::NAT_DONE_MASK.0);
            own.flow.status = Status((own.flow.status.0 & !nat.0) | (learnt.status.0 & nat.0));
            sink.step(|| Step::Learnt { id: learnt.id, reply: learnt.reply });
        }
        let forwarded = matches!(egress, Egress::Forwarded(_));
        let last = if forwarded || hook == Hook::LocalOut { Hook::PostRouting } else { Hook::LocalIn };
        let way = Way { in_interface: None, out_interface: None, now, l3num, len };
        let mut translated = self.follow(buffer, &mut tracked, hook, &way, sink);
        if translated.is_ok()
            && forwarded
            && hook == Hook::PreRouting
            && let Some(to) = decrement_ttl(buffer, l3num)
        {
            sink.step(|| Step::TtlDecremented { to });
        }
        if translated.is_ok() {
            translated = self.follow(buffer, &mut tracked, last, &way, sink);
        }
        if let Err(cause) = translated {
            return ruling(tracked, Verdict::Drop(DropCause::Nat(cause)), egress);
        }
        match (learnt, tracked.attached) {
            (Some(learnt), Attached::Unconfirmed(Unconfirmed { flow, timeout })) => {
                let id = self.learn(&KernelEntry { flow, id: learnt.id, timeout }, now);
                sink.step(|| Step::Confirmed { id: learnt.id });
                tracked.attached = Attached::Entry(id);
            }
            _ => {
                if let Err(cause) = confirm::confirm(&mut tracked, &mut self.conntrack.table, now, sink) {
                    return ruling(tracked, Verdict::Drop(DropCause::Confirm(cause)), egress);
                }
            }
        }
        ruling(tracked, Verdict::Accept, egress)
    }

    /// NAT as the bindings of the flow say, without rules of its own.
    fn follow<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        hook: Hook,
        way: &Way,
        sink: &mut S,
    ) -> Result<(), NatDrop> {
        let none = Ruleset::default();
        let bound = match &tracked.attached {
            Attached::Entry(id) => self.conntrack.table.get(*id).map(|entry| entry.flow.status),
            Attached::Unconfirmed(own) => Some(own.flow.status),
            Attached::None | Attached::Untracked => None,
        };
        // A flow without the bits was begun where no nat chain exists.
        if bound.is_some_and(|status| !status.intersects(Status::NAT_DONE_MASK)) {
            return Ok(());
        }
        let mut around = Surroundings {
            rules: Some(&none),
            network: &self.network,
            in_interface: way.in_interface,
            out_interface: way.out_interface,
            table: &mut self.conntrack.table,
            random: &mut self.random,
            now: way.now,
        };
        translate(buffer, way.len, tracked, hook, &mut around, sink)
    }

    /// Puts an entry of the kernel's into the table, in the place of whatever holds its tuples.
    pub fn learn(&mut self, entry: &KernelEntry, now: Time) -> EntryId {
        let table = &mut self.conntrack.table;
        for tuple in &entry.flow.tuples {
            while let Some((holder, _)) = table.lookup(tuple, now) {
                table.remove(holder);
            }
        }
        let mut flow = entry.flow;
        flow.status |= Status::CONFIRMED;
        table.insert(Confirmed { flow, expires: now.plus_secs(entry.timeout), id: entry.id })
    }

    /// Deletes the entry with this original tuple, because the kernel did.
    pub fn forget(&mut self, original: &Tuple, now: Time) -> bool {
        let table = &mut self.conntrack.table;
        match table.lookup(original, now) {
            Some((id, _)) => table.remove(id).is_some(),
            None => false,
        }
    }
}
