//! An engine beside a kernel: it tracks by itself and learns what only the kernel can know.
//!
//! The caller sees packets behind the kernel's conntrack, fragments put together, and again when they left. In between it asks the engine:
//! [`Engine::arrive`] decides about a packet; when the kernel let it go on, [`Engine::depart`] takes over the binding
//! that the kernel chose, translates the packet in the same way and confirms its entry. [`Engine::learn`] and
//! [`Engine::forget`] keep the table in step where packets were not seen.

use crate::confirm;
use crate::conn::{Confirmed, Flow, Unconfirmed};
use crate::conntrack::{Attached, Tracked};
use crate::direction::{CtInfo, Direction};
use crate::hook::{DropCause, Egress, Engine, Hook, Ruling, Unseen, Verdict, Way, not_tracked};
use crate::nat::NatDrop;
use crate::nat::hooks::{Surroundings, translate};
use crate::nat::manip::decrement_ttl;
use crate::nat::options::Options;
use crate::nat::rules::Ruleset;
use crate::network::Destination;
use crate::packet::Packet;
use crate::status::Status;
use crate::table::EntryId;
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::tuple::Tuple;
use crate::zone::Zone;

/// What the kernel said about a flow that it confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// The kernel's number of the entry, CTA_ID.
    pub id: u32,
    /// The reply tuple, translations included.
    pub reply: Tuple,
    /// The status bits.
    pub status: Status,
    /// The mark of the flow.
    pub mark: u32,
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
        let mut way = Way::new(None, now);
        way.of(packet);
        let mut tracked = self.answer(packet, trigger, now);
        match self.track(packet, hook, &mut tracked, &mut way, sink) {
            Ok(()) => Ok(tracked),
            Err(cause) => Err(cause.unseen()),
        }
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
        let ruling = |tracked: Tracked, verdict| Ruling {
            ctinfo: Ok(tracked.ctinfo),
            reason: tracked.reason,
            verdict,
            egress,
            attached: tracked.attached,
            ..Ruling::invalid(hook)
        };
        let Ok(packet) = Packet::parse(buffer, buffer.len()) else {
            return ruling(tracked, Verdict::Accept);
        };
        let (l3num, len, ttl) = (packet.l3num, packet.len, packet.ttl);
        self.adopt_binding(&mut tracked, learnt, now, sink);
        let mut way = Way::new(None, now);
        way.of(&packet);
        if let Err(cause) = self.follow(buffer, &mut tracked, hook, &way, sink) {
            return ruling(tracked, Verdict::Drop(DropCause::Nat(cause)));
        }
        let forwarded = match egress {
            Egress::Nowhere => {
                self.vanish(&tracked.attached, sink);
                let spent = hook == Hook::PreRouting && ttl <= 1 && !self.is_local(buffer, len);
                return ruling(tracked, if spent { Verdict::Drop(DropCause::TtlExceeded) } else { Verdict::Accept });
            }
            Egress::Local => {
                if let Ok(packet) = Packet::parse(buffer, len) {
                    sink.step(|| Step::RoutedLocal { to: packet.dst.ip(l3num) });
                }
                false
            }
            Egress::Forwarded(interface) => {
                if let Some(interface) = interface {
                    sink.step(|| Step::RoutedTo { interface });
                }
                true
            }
        };
        if forwarded
            && hook == Hook::PreRouting
            && let Some(to) = decrement_ttl(buffer, l3num)
        {
            sink.step(|| Step::TtlDecremented { to });
        }
        let last = if forwarded || hook == Hook::LocalOut { Hook::PostRouting } else { Hook::LocalIn };
        if let Err(cause) = self.follow(buffer, &mut tracked, last, &way, sink) {
            return ruling(tracked, Verdict::Drop(DropCause::Nat(cause)));
        }
        let confirm = |engine: &mut Engine, tracked: &mut Tracked, sink: &mut S| match (learnt, &tracked.attached) {
            (Some(learnt), Attached::Unconfirmed(own)) => {
                let Unconfirmed { flow, timeout, .. } = **own;
                let id = engine.learn(&KernelEntry { flow, id: learnt.id, timeout }, now);
                sink.step(|| Step::Confirmed { id: learnt.id });
                tracked.attached = Attached::Entry(id);
                Ok(())
            }
            _ => confirm::confirm(tracked, &mut engine.conntrack.table, now, sink),
        };
        match self.conclude(buffer, &mut tracked, &way, sink, confirm) {
            Ok(resized) => Ruling { resized, ..ruling(tracked, Verdict::Accept) },
            Err(cause) => ruling(tracked, Verdict::Drop(cause)),
        }
    }

    /// The binding of a flow that begins is the kernel's. When the kernel did not confirm it because another packet of
    /// the same flow was first, it chose as it did for that one (NEW-03, CLASH-02a).
    fn adopt_binding<S: Sink>(&self, tracked: &mut Tracked, learnt: Option<Learnt>, now: Time, sink: &mut S) {
        let begins = matches!(tracked.ctinfo, CtInfo::New | CtInfo::Related);
        let Attached::Unconfirmed(own) = &mut tracked.attached else { return };
        if !begins || own.flow.status.contains(Status::CONFIRMED) {
            return;
        }
        let (reply, status, mark) = match learnt {
            Some(learnt) => {
                sink.step(|| Step::Learnt { id: learnt.id, reply: learnt.reply });
                (learnt.reply, learnt.status, learnt.mark)
            }
            None => match self.find(own.flow.tuple(Direction::Original), own.flow.zone, now) {
                Some((Direction::Original, Confirmed { flow, .. })) => {
                    (*flow.tuple(Direction::Reply), flow.status, flow.mark)
                }
                _ => return,
            },
        };
        let nat = Status(Status::NAT_MASK.0 | Status::NAT_DONE_MASK.0);
        own.flow.tuples[Direction::Reply.index()] = reply;
        own.flow.status = Status((own.flow.status.0 & !nat.0) | (status.0 & nat.0));
        own.flow.mark = mark;
    }

    fn is_local(&self, buffer: &[u8], len: usize) -> bool {
        Packet::parse(buffer, len)
            .is_ok_and(|packet| self.network.route(packet.l3num, packet.dst) == Destination::Local)
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
            Attached::Entry(id) => self.conntrack.table.status(*id),
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
            mark: way.mark,
            table: &mut self.conntrack.table,
            random: &mut self.conntrack.random,
            options: &Options::KERNEL,
            remembered: None,
            now: way.now,
        };
        translate(buffer, way.len, tracked, hook, &mut around, sink).map(drop)
    }

    /// Puts an entry of the kernel's into the table, in the place of whatever holds its tuples.
    pub fn learn(&mut self, entry: &KernelEntry, now: Time) -> EntryId {
        let table = &mut self.conntrack.table;
        for direction in Direction::BOTH {
            let (tuple, zone) = (entry.flow.tuple(direction), entry.flow.zone);
            while let Some((holder, _)) = table.lookup_at(tuple, zone, direction, now, &mut ()) {
                table.delete(holder, now, &mut ());
            }
        }
        let mut flow = entry.flow;
        flow.status |= Status::CONFIRMED;
        table.insert(Confirmed { flow, expires: now.plus_secs(entry.timeout), id: entry.id })
    }

    /// Deletes the entry with this original tuple and the kernel's number, because the kernel did. Another entry that
    /// has taken its place stays.
    pub fn forget(&mut self, original: &Tuple, zone: Zone, number: Option<u32>, now: Time) -> bool {
        let table = &mut self.conntrack.table;
        let Some((id, _)) = table.lookup(original, zone, now, &mut ()) else { return false };
        let same = table.get(id).is_some_and(|entry| {
            entry.flow.tuple(Direction::Original) == original && number.is_none_or(|number| entry.id == number)
        });
        same && table.delete(id, now, &mut ()).is_some()
    }

    /// Sets the mark of a flow, because a rule or a person did.
    pub fn mark(&mut self, original: &Tuple, zone: Zone, mark: u32, now: Time) {
        let table = &mut self.conntrack.table;
        if let Some((id, _)) = table.lookup(original, zone, now, &mut ())
            && let Some(entry) = table.get_mut(id)
        {
            *entry.mark = mark;
        }
    }

    /// Sets an entry back to what it was, if it is still there.
    pub fn restore(&mut self, entry: &Confirmed, now: Time) -> bool {
        let table = &mut self.conntrack.table;
        let Some((id, _)) = table.lookup(entry.flow.tuple(Direction::Original), entry.flow.zone, now, &mut ()) else {
            return false;
        };
        table.replace(id, entry)
    }

    /// The entry that a packet with this tuple and zone would find, and in which direction.
    #[must_use]
    pub fn find(&self, tuple: &Tuple, zone: Zone, now: Time) -> Option<(Direction, Confirmed)> {
        let table = &self.conntrack.table;
        let (id, direction) = Direction::BOTH.into_iter().find_map(|place| table.peek(tuple, zone, place, now))?;
        Some((direction, table.get(id)?))
    }
}
