//! NAT of packets that a kernel routes and that it hands over in queues: once when they begin their way, at PREROUTING or
//! OUTPUT, and once when they end it, at POSTROUTING or INPUT, if there is something left to do.
//!
//! The kernel forwards, decrements the TTL and makes ICMP errors; what conntrack and NAT decide, the engine decides. Only
//! what rules reject is answered here, and then the kernel hands that over like everything that this host sends. No socket is
//! touched here.
//!
//! - [`slots`] is where a packet is remembered between the two hooks; its mark says where.
//! - [`mod@identity`] tells packets apart, also in the quote of an error that the kernel made about one.
//! - [`triggers`] are the packets that the kernel may still complain about.
//! - [`checksum`] is what a card would have filled in.
//! - [`interfaces`] are the kernel's, in the engine's numbers.

pub mod checksum;
pub mod identity;
pub mod interfaces;
pub mod slots;
pub mod statistics;
pub mod triggers;

use ctwhy_core::conntrack::Attached;
use ctwhy_core::hook::{DropCause, Egress, Engine, Entered, Handed, Passage, Ruling, Unseen, Verdict};
use ctwhy_core::packet::Packet;
use ctwhy_core::random::Random;
use ctwhy_core::time::Time;
use ctwhy_linux::queue::{Decision, Hook, Offload, Queued};
use ctwhy_linux::rules::{NatBits, Slot};

use crate::limit::Limits;
use crate::router::{Ruled, Watch};
use crate::statistics::count;
use crate::voice::{Routes, Said, Voice};
use identity::identity;
use interfaces::Interfaces;
use slots::{Kept, Slots};
use statistics::Statistics;
use triggers::Triggers;

/// What is to become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Accept or drop.
    pub decision: Decision,
    /// The mark to set; `None` leaves it.
    pub mark: Option<u32>,
    /// Were the bytes changed, in the packet itself?
    pub rewritten: bool,
    /// Does the packet begin a flow? Then it must end its way before anything is decided about the next one.
    pub begins: bool,
}

impl Answer {
    const DROP: Answer = Answer { decision: Decision::Drop, mark: None, rewritten: false, begins: false };
    const PASS: Answer = Answer { decision: Decision::Accept, mark: None, rewritten: false, begins: false };
}

/// What this host has to say because a rule rejected a packet: it is to be sent as it is, but for an IPv4 source of 0.0.0.0,
/// which the kernel fills in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// From the IP header on.
    pub packet: Vec<u8>,
    /// The kernel's number of the interface that the rejected packet came in by, where a link-local address is told by it.
    pub interface: Option<u32>,
}

/// A NAT between the hooks of a kernel.
pub struct QueueNat {
    /// What decides.
    pub engine: Engine,
    /// The interfaces of the kernel.
    pub interfaces: Interfaces,
    /// What was done so far.
    pub statistics: Statistics,
    bits: NatBits,
    slots: Slots,
    triggers: Triggers,
    limits: Limits,
    identifications: Random,
    answers: Vec<Answered>,
    /// The packet as it was handed over, for whoever watches.
    arrived: Vec<u8>,
}

impl QueueNat {
    /// A NAT that decides by `engine`, remembers packets in these bits of their mark, and rejects within `limits`. `seed` is
    /// where it draws what nobody may guess.
    #[must_use]
    pub fn new(engine: Engine, bits: NatBits, limits: Limits, seed: u64) -> QueueNat {
        QueueNat {
            engine,
            limits: limits.seeded(seed),
            identifications: Random::new(!seed),
            answers: Vec::new(),
            interfaces: Interfaces::default(),
            statistics: Statistics::default(),
            bits,
            slots: Slots::new(bits.slots()),
            triggers: Triggers::default(),
            arrived: Vec::new(),
        }
    }

    /// Decides about a packet, and rewrites it where it is.
    pub fn decide<W: Watch>(&mut self, queued: &mut Queued, now: Time, watch: &mut W) -> Answer {
        match queued.hook {
            Hook::Prerouting | Hook::Output => self.begins(queued, now, watch),
            Hook::Postrouting | Hook::Input => self.ends(queued, now, watch),
            // Somebody else's rule sent it here.
            Hook::Forward | Hook::Other(_) => {
                self.statistics.elsewhere += 1;
                Answer::PASS
            }
        }
    }

    fn handed(&self, queued: &Queued, number: Option<u32>, now: Time) -> Handed {
        let offload = queued.offload;
        Handed {
            wire_len: queued.original_len,
            interface: number.and_then(|number| self.interfaces.index(number)),
            mark: self.bits.clear(queued.mark),
            checksum_trusted: offload.checksum_not_ready || offload.checksum_not_verified == Some(false),
            now,
        }
    }

    /// PREROUTING or LOCAL_OUT.
    fn begins<W: Watch>(&mut self, queued: &mut Queued, now: Time, watch: &mut W) -> Answer {
        self.statistics.begun.count(queued.original_len);
        if let Some((slot, kept)) = self.slots.make_room() {
            self.missing(kept, slot, now, watch);
        }
        if W::WATCHES {
            self.arrived.clear();
            self.arrived.extend_from_slice(&queued.payload);
        }
        let received = queued.hook == Hook::Prerouting;
        let handed = self.handed(queued, if received { queued.indev } else { queued.outdev }, now);
        let entered = if received {
            self.engine.at_prerouting(&mut queued.payload, &handed, watch.sink())
        } else {
            let trigger = self.triggers.of(&queued.payload);
            self.engine.at_local_out(&mut queued.payload, trigger.as_ref(), &handed, watch.sink())
        };
        let interface = handed.interface.filter(|_| received);
        match entered {
            Entered::Ended(ruling) => {
                self.answer(&ruling, queued, interface, now);
                let answer = self.ended(&ruling, handed.mark);
                self.tell(interface, &ruling, &queued.payload, now, watch);
                answer
            }
            Entered::OnItsWay(passage) => self.goes_on(queued, passage, (interface, now), watch),
        }
    }

    /// The packet passed its first hook.
    fn goes_on<W: Watch>(
        &mut self,
        queued: &mut Queued,
        mut passage: Passage,
        (interface, now): (Option<u16>, Time),
        watch: &mut W,
    ) -> Answer {
        let mut rewritten = passage.rewritten();
        if let Some((bytes, len)) = passage.take_datagram() {
            (queued.payload, queued.original_len) = (bytes, len);
            // The kernel does not know that the sender's fragments were small enough.
            identity::clear_dont_fragment(&mut queued.payload);
            rewritten = true;
        }
        if rewritten && !self.settle(queued) {
            self.engine.lost(&passage, watch.sink());
            return Answer::DROP;
        }
        self.statistics.rewritten += u64::from(rewritten);
        let identity = identity(&queued.payload);
        let tracked = passage.tracked();
        let trigger = match &tracked.attached {
            Attached::None | Attached::Untracked => None,
            Attached::Unconfirmed(_) => {
                Some(self.triggers.note(identity, identity::reset_of(&queued.payload), tracked.clone()))
            }
            // A connection that is in the table is found there, and the kernel's reset ends it.
            Attached::Entry(_) => Some(self.triggers.note(identity, None, tracked.clone())),
        };
        let users = passage.mark();
        let (slot, begins) = if self.engine.has_more_to_do(&passage) {
            let begins = matches!(passage.tracked().attached, Attached::Unconfirmed(_));
            let arrived = if W::WATCHES { std::mem::take(&mut self.arrived) } else { Vec::new() };
            let kept = Kept { passage, identity, trigger, interface, arrived, told: false };
            let slot = self.slots.put(kept);
            watch.set_aside(slot.get());
            (Some(slot), begins)
        } else {
            self.statistics.done_at_once += 1;
            if W::WATCHES {
                let ruling = passage.into_ruling(Egress::Forwarded(None));
                self.tell(interface, &ruling, &queued.payload, now, watch);
            }
            (None, false)
        };
        Answer { decision: Decision::Accept, mark: Some(self.bits.mark(users, slot)), rewritten, begins }
    }

    /// POSTROUTING or LOCAL_IN.
    fn ends<W: Watch>(&mut self, queued: &mut Queued, now: Time, watch: &mut W) -> Answer {
        let Some(slot) = self.bits.slot(queued.mark) else {
            self.statistics.elsewhere += 1;
            return Answer::PASS;
        };
        let Some(kept) = self.slots.take(slot, identity(&queued.payload)) else {
            count(&mut self.statistics.ended, "queue.slot_lost");
            return Answer::DROP;
        };
        let Kept { passage, trigger, interface, arrived, .. } = kept;
        if let Some(trigger) = trigger {
            self.triggers.forget(trigger);
        }
        watch.take_up(slot.get());
        self.arrived = arrived;
        let to_this_host = queued.hook == Hook::Input;
        let handed = self.handed(queued, if to_this_host { queued.indev } else { queued.outdev }, now);
        let bytes = &mut queued.payload;
        let ruling = match to_this_host {
            true => self.engine.at_local_in(bytes, passage, &handed, watch.sink()),
            false => self.engine.at_postrouting(bytes, passage, &handed, watch.sink()),
        };
        if ruling.resized.is_some() {
            let departed = self.engine.departed(&ruling, &queued.payload).to_vec();
            (queued.original_len, queued.payload) = (departed.len(), departed);
        }
        let answer = match ruling.verdict {
            Verdict::Drop(_) => {
                self.answer(&ruling, queued, interface, now);
                self.ended(&ruling, handed.mark)
            }
            Verdict::Accept if ruling.rewritten && !self.settle(queued) => Answer::DROP,
            Verdict::Accept => {
                self.statistics.done += 1;
                self.statistics.rewritten += u64::from(ruling.rewritten);
                let mark = Some(self.bits.clear(ruling.mark));
                Answer { mark, rewritten: ruling.rewritten, ..Answer::PASS }
            }
        };
        self.tell(interface, &ruling, &queued.payload, now, watch);
        answer
    }

    /// A rule that rejects has something to say to whom the packet came from.
    fn answer(&mut self, ruling: &Ruling, queued: &mut Queued, interface: Option<u16>, now: Time) {
        let Verdict::Drop(DropCause::Rule { reject: Some(reject), .. }) = ruling.verdict else { return };
        // Whoever reads the quote, or verifies the checksum, has the packet as a card would have sent it.
        checksum::settle(&mut queued.payload, Offload { gso: false, ..queued.offload });
        let Ok(packet) = Packet::parse(&queued.payload, queued.original_len) else { return };
        let QueueNat { engine, limits, statistics, identifications, .. } = self;
        let words = &mut statistics.words;
        let mut voice = Voice { engine, routes: Routes::Kernel, limits, words, identifications, interface, now };
        let Some(Said { bytes, what, .. }) = voice.reject(&packet, reject) else { return };
        count(&mut self.statistics.words.said, what);
        if let Some(tracked) = ruling.tracked() {
            self.triggers.rejected(&bytes, tracked);
        }
        self.answers.push(Answered { packet: bytes, interface: queued.indev });
    }

    /// Takes what this host has to say by now.
    pub fn take_answers(&mut self) -> Vec<Answered> {
        std::mem::take(&mut self.answers)
    }

    /// What becomes of a packet that needs no other hook.
    fn ended(&mut self, ruling: &Ruling, mark: u32) -> Answer {
        match (ruling.verdict, ruling.ctinfo) {
            (Verdict::Drop(cause), _) => count(&mut self.statistics.ended, cause.code()),
            // It is kept, and goes on as a part of its datagram.
            (Verdict::Accept, Err(Unseen::Fragment(_))) => self.statistics.waited += 1,
            (Verdict::Accept, Err(unseen @ Unseen::Refused(_))) => count(&mut self.statistics.ended, unseen.code()),
            // What conntrack has no say about, NAT lets pass.
            (Verdict::Accept, _) => {
                self.statistics.done_at_once += 1;
                return Answer { mark: Some(self.bits.mark(mark, None)), ..Answer::PASS };
            }
        }
        Answer::DROP
    }

    /// Makes the checksum right that a card would have filled in. `false` for a packet of which not all was handed over.
    fn settle(&mut self, queued: &mut Queued) -> bool {
        if queued.payload.len() < queued.original_len {
            count(&mut self.statistics.ended, "queue.cut_short");
            return false;
        }
        checksum::settle(&mut queued.payload, queued.offload);
        true
    }

    /// A packet did not come back before its slot was needed: something dropped it.
    fn missing<W: Watch>(&mut self, kept: Kept, slot: Slot, now: Time, watch: &mut W) {
        watch.take_up(slot.get());
        self.engine.lost(&kept.passage, watch.sink());
        if !kept.told {
            self.tell_of_missing(kept, now, watch);
        }
    }

    fn tell_of_missing<W: Watch>(&mut self, kept: Kept, now: Time, watch: &mut W) {
        if W::WATCHES {
            let Kept { passage, interface, arrived, .. } = kept;
            let ruling = passage.into_ruling(Egress::Nowhere);
            let (engine, now) = (&self.engine, (&arrived, now));
            watch.ruled(&Ruled { interface, arrived: now.0, now: now.0, ruling: &ruling, engine, time: now.1 });
        }
    }

    /// Everything that was handed over has been decided about: whoever watches is told of packets that did not come back.
    /// One that comes all the same is told of again.
    pub fn tell_missing<W: Watch>(&mut self, now: Time, watch: &mut W) {
        if !W::WATCHES {
            return;
        }
        let untold: Vec<Slot> = self.slots.iter_mut().filter(|(_, kept)| !kept.told).map(|(slot, _)| slot).collect();
        for slot in untold {
            let Some(kept) = self.slots.get_mut(slot) else { continue };
            kept.told = true;
            let kept = kept.clone();
            watch.take_up(slot.get());
            self.tell_of_missing(kept, now, watch);
        }
    }

    fn tell<W: Watch>(&self, interface: Option<u16>, ruling: &Ruling, bytes: &[u8], time: Time, watch: &mut W) {
        if W::WATCHES {
            let arrived = ruling.arrived(&self.arrived);
            let now = if ruling.datagram.is_some() { arrived } else { bytes };
            watch.ruled(&Ruled { interface, arrived, now, ruling, engine: &self.engine, time });
        }
    }
}
