//! The engine beside the kernel: one packet from its arrival to what became of it. No socket is touched here.

use std::collections::HashMap;
use std::rc::Rc;

use ctwhy_core::conn::Confirmed;
use ctwhy_core::conntrack::{Attached, Tracked};
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::hook::{Egress, Engine, Hook, Ruling, Unseen};
use ctwhy_core::mirror::{Departure, Learnt};
use ctwhy_core::network::Destination;
use ctwhy_core::packet::Packet;
use ctwhy_core::status::Status;
use ctwhy_core::table::Table;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;
use ctwhy_core::tuple::{Tuple, extract, proto};
use ctwhy_core::zone::Zone;
use ctwhy_linux::ctnetlink::{Entry, EventKind};
use ctwhy_linux::interfaces;
use ctwhy_linux::nflog::Logged;
use ctwhy_linux::queue::Queued;
use ctwhy_linux::rules::{LOG_INPUT, LOG_OUTPUT, LOG_POSTROUTING, MarkBits};

use super::answers::Answers;
use super::compare::{Difference, differences};
use super::kernel;

/// A packet that conntrack has decided about and that still waits for its verdict.
pub(super) struct Arrived {
    pub(super) hook: Hook,
    pub(super) now: Time,
    pub(super) kernel: Option<CtInfo>,
    pub(super) outcome: Result<Tracked, Unseen>,
    pub(super) trace: Trace,
    /// The entry of a TCP packet before it.
    pub(super) before: Option<Confirmed>,
    /// It was decided about in another order than it was queued in.
    pub(super) reordered: bool,
}

impl Arrived {
    /// Is the engine's decision the kernel's, where both are known?
    pub(super) fn agrees(&self) -> bool {
        match (&self.outcome, self.kernel) {
            (Ok(tracked), Some(kernel)) => tracked.ctinfo == kernel,
            _ => true,
        }
    }
}

/// Everything that is known about one packet in the end.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Since the epoch.
    pub(crate) time: Time,
    /// The interface that it came in by, or leaves by if this host made it.
    pub(crate) interface: Option<Rc<str>>,
    /// As it arrived.
    pub(crate) bytes: &'a [u8],
    /// How long it was then; more than `bytes` when it was not handed over whole.
    pub(crate) len: usize,
    /// As it left, as the engine says; empty when the engine has no say about it.
    pub(crate) after: Vec<u8>,
    /// The engine's decision.
    pub(crate) ruling: Ruling,
    /// How the engine came to it.
    pub(crate) trace: Trace,
    /// The kernel's decision, where the mark told it.
    pub(crate) kernel: Option<CtInfo>,
    /// How it left, beside how the engine says it did.
    pub(crate) left: Left,
    /// Does the engine know what the kernel knows? Not after packets went past.
    pub(crate) comparable: bool,
    /// Did the kernel decide about it in another order than it was queued in?
    pub(crate) reordered: bool,
}

/// How a packet left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nobody saw.
    Unwatched,
    /// It did not: something on the way dropped it.
    Nowhere,
    /// As the engine says, all of so many bytes.
    AsExpected(usize),
    /// Otherwise.
    Differently(Vec<Difference>),
}

impl Seen<'_> {
    /// Is the kernel's decision known, and is it the engine's?
    pub(crate) fn ctinfo_agrees(&self) -> Option<bool> {
        if self.comparable { Some(self.ruling.ctinfo.ok()? == self.kernel?) } else { None }
    }

    /// Was the packet seen leaving, and as the engine says?
    pub(crate) fn bytes_agree(&self) -> Option<bool> {
        match &self.left {
            _ if !self.comparable => None,
            Left::Unwatched | Left::Nowhere => None,
            Left::AsExpected(_) => Some(true),
            Left::Differently(_) => Some(false),
        }
    }

    /// `Some(true)` when everything that could be compared agrees, `None` when nothing could.
    pub(crate) fn agrees(&self) -> Option<bool> {
        match (self.ctinfo_agrees(), self.bytes_agree()) {
            (None, None) => None,
            (ctinfo, bytes) => Some(ctinfo != Some(false) && bytes != Some(false)),
        }
    }
}

/// What the copies from behind NAT can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copies {
    /// There are none.
    None,
    /// Nobody has seen one yet, so a missing one means nothing.
    Unproven,
    /// Every packet that leaves has one.
    Complete,
}

/// The engine and what it needs to follow a kernel.
pub(super) struct Session {
    pub(super) engine: Engine,
    pub(super) bits: MarkBits,
    answers: Answers,
    names: HashMap<u32, Option<Rc<str>>>,
    /// Entries that a packet still on its way to us has ended.
    ending: Vec<(Tuple, Zone, Option<u32>)>,
    number: u64,
}

impl Session {
    pub(super) fn new(engine: Engine, bits: MarkBits) -> Session {
        Session { engine, bits, answers: Answers::default(), names: HashMap::new(), ending: Vec::new(), number: 0 }
    }

    /// Forgets every flow: what the kernel's table holds is about to be learnt.
    pub(super) fn forget_all(&mut self) {
        self.engine.conntrack.table = Table::like(self.engine.conntrack.table.kernel);
        // They refer to entries of the table that was.
        self.answers = Answers::default();
        self.ending.clear();
    }

    /// The engine's decision, before any verdict that could change what it rests on.
    pub(super) fn arrive(&mut self, queued: &Queued, hook: Hook, now: Time) -> Arrived {
        let kernel = self.bits.decode(queued.mark).map(kernel::ctinfo);
        let mut trace = Trace::default();
        let before = self.tcp_entry(queued, now);
        let outcome = self.decide(queued, hook, now, &mut trace);
        Arrived { hook, now, kernel, outcome, trace, before, reordered: false }
    }

    /// The entry of a TCP packet.
    fn tcp_entry(&self, queued: &Queued, now: Time) -> Option<Confirmed> {
        let packet = Packet::parse(&queued.payload, queued.original_len).ok()?;
        let transport = packet.transport.ok().filter(|transport| transport.protonum == proto::TCP)?;
        let l4 = packet.bytes.get(transport.offset..)?;
        let tuple = extract(packet.l3num, packet.src, packet.dst, proto::TCP, l4).ok()?;
        self.engine.find(&tuple, Zone::default(), now).map(|(_, entry)| entry)
    }

    pub(super) fn decide(
        &mut self,
        queued: &Queued,
        hook: Hook,
        now: Time,
        trace: &mut Trace,
    ) -> Result<Tracked, Unseen> {
        let mut packet = Packet::parse(&queued.payload, queued.original_len).map_err(Unseen::Packet)?;
        packet.checksum_trusted = queued.offload.checksum_not_ready;
        let trigger = if hook == Hook::LocalOut { self.answers.trigger(&packet) } else { None };
        let tracked = self.engine.arrive(&packet, hook, trigger.as_ref(), now, trace)?;
        let vouched_for = queued.offload.checksum_not_verified == Some(false);
        if vouched_for && tracked.reason.is_some_and(|reason| reason.is_checksum()) {
            packet.checksum_trusted = true;
            trace.steps.clear();
            return self.engine.arrive(&packet, hook, None, now, trace);
        }
        Ok(tracked)
    }

    /// An answer of this host that was logged at OUTPUT instead of being queued. `None` when it answers a packet that we
    /// did not see.
    pub(super) fn arrive_logged(&mut self, copy: Logged, now: Time) -> Option<(Queued, Arrived)> {
        let original_len = copy.payload.len();
        let queued = Queued {
            hook: copy.hook,
            mark: copy.mark,
            outdev: copy.outdev,
            hw_protocol: copy.hw_protocol,
            payload: copy.payload,
            original_len,
            ..Queued::default()
        };
        let packet = Packet::parse(&queued.payload, original_len).ok()?;
        let trigger = self.answers.trigger(&packet)?;
        let mut trace = Trace::default();
        let outcome = self.engine.arrive(&packet, Hook::LocalOut, Some(&trigger), now, &mut trace);
        let kernel = self.bits.decode(queued.mark).map(kernel::ctinfo);
        Some((queued, Arrived { hook: Hook::LocalOut, now, kernel, outcome, trace, before: None, reordered: false }))
    }

    /// Something happened to an entry. Gives the NEW of an entry back.
    pub(super) fn event(&mut self, kind: EventKind, entry: Entry, now: Time) -> Option<Entry> {
        match kind {
            EventKind::New => return Some(entry),
            EventKind::Update => self.engine.mark(&kernel::tuple(&entry.orig), kernel::zone(&entry), entry.mark, now),
            EventKind::Destroy => {
                let (original, zone) = (kernel::tuple(&entry.orig), kernel::zone(&entry));
                let unreplied = self
                    .engine
                    .find(&original, zone, now)
                    .is_some_and(|(_, own)| !own.flow.status.contains(Status::SEEN_REPLY));
                if unreplied && kernel::killed_by_reset(&entry) {
                    self.ending.push((original, zone, entry.id));
                } else {
                    self.engine.forget(&original, zone, entry.id, now);
                }
            }
        }
        None
    }

    /// The packets that were on their way when their entries ended have arrived.
    pub(super) fn end_entries(&mut self, now: Time) {
        for (original, zone, number) in self.ending.drain(..) {
            self.engine.forget(&original, zone, number, now);
        }
    }

    /// An entry that begins, or is as it is, without a packet of ours.
    pub(super) fn learn(&mut self, entry: &Entry, now: Time) {
        self.engine.learn(&kernel::entry(entry, now), now);
    }

    /// The verdict was given and the packet's way is over: what became of it. `born` are the entries that were confirmed
    /// meanwhile, `copies` the packets that left meanwhile.
    pub(super) fn depart<'a>(
        &mut self,
        queued: &'a Queued,
        arrived: Arrived,
        born: &[Entry],
        copies: &[Logged],
        watch: Copies,
    ) -> Seen<'a> {
        let Arrived { hook, now, kernel, outcome, mut trace, reordered, .. } = arrived;
        let learnt = self.take_births(outcome.as_ref().ok(), born, now);
        let copies: Vec<&Logged> = copies.iter().filter(|copy| may_be_copy(copy, queued, hook)).collect();
        let (ruling, left, after) = match outcome {
            Ok(tracked) => {
                let egress = self.egress((queued, hook, now), &tracked, learnt, &copies, watch);
                let mut buffer = queued.payload.clone();
                let ruling =
                    self.engine.depart(&mut buffer, tracked, &Departure { hook, egress, learnt }, now, &mut trace);
                let vanished = egress == Egress::Nowhere;
                if let Some(tracked) = ruling.tracked() {
                    self.answers.remember(&queued.payload, tracked, vanished);
                }
                let buffer = self.engine.departed(&ruling, &buffer).to_vec();
                let left = left(&buffer, &copies, watch, vanished, queued);
                (ruling, left, buffer)
            }
            Err(unseen) => {
                let egress = if copies.is_empty() { Egress::Nowhere } else { Egress::Forwarded(None) };
                (Ruling { egress, ..Ruling::unseen(hook, unseen) }, Left::Unwatched, Vec::new())
            }
        };
        self.number += 1;
        let index = if hook == Hook::LocalOut { queued.outdev } else { queued.indev };
        let number = self.number;
        let interface = index.and_then(|index| self.name(index));
        let (bytes, len) = (queued.payload.as_slice(), queued.original_len);
        Seen {
            number,
            time: now,
            interface,
            bytes,
            len,
            after,
            ruling,
            trace,
            kernel,
            left,
            comparable: true,
            reordered,
        }
    }

    /// Finds the birth of the packet's own flow among the births of a moment; the others are entries like those of a dump.
    fn take_births(&mut self, tracked: Option<&Tracked>, born: &[Entry], now: Time) -> Option<Learnt> {
        let own = tracked.and_then(|tracked| match &tracked.attached {
            Attached::Unconfirmed(own) => Some(*own.flow.tuple(Direction::Original)),
            _ => None,
        });
        let mut learnt = None;
        for entry in born {
            if own == Some(kernel::tuple(&entry.orig)) && entry.zone == 0 {
                learnt = Some(kernel::learnt(entry));
            } else {
                self.learn(entry, now);
            }
        }
        learnt
    }

    /// Where the packet went: as its copy says, else as far as it can be told without.
    fn egress(
        &mut self,
        (queued, hook, now): (&Queued, Hook, Time),
        tracked: &Tracked,
        learnt: Option<Learnt>,
        copies: &[&Logged],
        watch: Copies,
    ) -> Egress {
        let same_length = copies.iter().find(|copy| copy.payload.len() == queued.payload.len());
        match same_length.or(copies.first()) {
            Some(copy) if copy.prefix == LOG_INPUT => return Egress::Local,
            Some(copy) => {
                let name = copy.outdev.and_then(|index| self.name(index));
                return Egress::Forwarded(name.map(|name| self.engine.network.interface_named(&name)));
            }
            None if watch == Copies::Complete => return Egress::Nowhere,
            None => {}
        }
        let begins = tracked.ctinfo == CtInfo::New && matches!(tracked.attached, Attached::Unconfirmed(_));
        let sibling = match &tracked.attached {
            Attached::Unconfirmed(own) => {
                self.engine.find(own.flow.tuple(Direction::Original), own.flow.zone, now).is_some()
            }
            _ => false,
        };
        if begins && learnt.is_none() && !sibling {
            return Egress::Nowhere;
        }
        if hook == Hook::LocalOut {
            return Egress::Forwarded(None);
        }
        match self.destination(queued, tracked, learnt) {
            Destination::Local => Egress::Local,
            _ if Packet::parse(&queued.payload, queued.original_len).is_ok_and(|packet| packet.ttl <= 1) => {
                Egress::Nowhere
            }
            _ => Egress::Forwarded(None),
        }
    }

    /// Routing, behind the translation of the destination.
    fn destination(&self, queued: &Queued, tracked: &Tracked, learnt: Option<Learnt>) -> Destination {
        let flow = match &tracked.attached {
            Attached::Entry(id) => self.engine.conntrack.table.get(*id).map(|entry| entry.flow.tuples),
            Attached::Unconfirmed(own) => Some(own.flow.tuples),
            Attached::None | Attached::Untracked => None,
        };
        let translated = match (tracked.ctinfo.direction(), flow, learnt) {
            (Some(Direction::Original), _, Some(learnt)) => Some(learnt.reply.src),
            (Some(Direction::Original), Some([_, reply]), None) => Some(reply.src),
            (Some(Direction::Reply), Some([original, _]), _) => Some(original.src),
            _ => None,
        };
        match Packet::parse(&queued.payload, queued.original_len) {
            Ok(packet) => self.engine.network.route(packet.l3num, translated.unwrap_or(packet.dst)),
            Err(_) => Destination::None,
        }
    }

    fn name(&mut self, index: u32) -> Option<Rc<str>> {
        self.names.entry(index).or_insert_with(|| interfaces::name(index).map(Rc::from)).clone()
    }
}

/// Answers of this host that were not queued, each with its copy from POSTROUTING if it got there, taken out of the copies
/// of a moment. An answer is made while the packet that it answers is on its way, and goes all its own way at once.
pub(super) fn take_answers(copies: &mut Vec<Logged>) -> Vec<(Logged, Vec<Logged>)> {
    let mut answers: Vec<(Logged, Vec<Logged>)> = Vec::new();
    let mut others = Vec::new();
    let mut follows = false;
    for copy in copies.drain(..) {
        if copy.prefix == LOG_OUTPUT {
            answers.push((copy, Vec::new()));
            follows = true;
            continue;
        }
        match answers.last_mut() {
            Some((answer, left)) if follows && copy.indev.is_none() && copy.payload.len() == answer.payload.len() => {
                left.push(copy);
            }
            _ => others.push(copy),
        }
        follows = false;
    }
    *copies = others;
    answers
}

/// Could this be the packet, seen leaving? A packet of this host that comes back over loopback is logged at INPUT, too.
fn may_be_copy(copy: &Logged, queued: &Queued, hook: Hook) -> bool {
    copy.hw_protocol == queued.hw_protocol
        && match copy.prefix.as_str() {
            LOG_POSTROUTING => true,
            LOG_INPUT => hook == Hook::PreRouting && copy.indev == queued.indev,
            _ => false,
        }
}

fn left(engine: &[u8], copies: &[&Logged], watch: Copies, vanished: bool, queued: &Queued) -> Left {
    let whole = queued.payload.len() >= queued.original_len;
    let unfinished = queued.offload.checksum_not_ready;
    let compared = copies.iter().map(|copy| differences(engine, &copy.payload, unfinished));
    match compared.min_by_key(Vec::len) {
        Some(_) if !whole => Left::Unwatched,
        Some(found) if found.is_empty() => Left::AsExpected(engine.len()),
        Some(found) => Left::Differently(found),
        None if vanished && watch == Copies::Complete => Left::Nowhere,
        None => Left::Unwatched,
    }
}
