//! The hooks one at a time, for packets that somebody else carries from one to the next: a kernel that routes them,
//! decrements their TTL, and says what there is to say about those that it cannot forward.
//!
//! A packet stands at PREROUTING or LOCAL_OUT first and, unless it ends on the way, at POSTROUTING or LOCAL_IN last. In
//! between its [`Passage`] is what the kernel would have attached to it. One that does not come back was dropped, and
//! [`Engine::lost`] is told.

use crate::conntrack::{Attached, Tracked};
use crate::direction::Direction;
use crate::nat::Manip;
use crate::nat::hooks::Binding;
use crate::packet::Packet;
use crate::rules::Table;
use crate::status::Status;
use crate::time::Time;
use crate::trace::Sink;
use alloc::vec::Vec;

use super::passage::Carrier;
use super::{Egress, Engine, Entered, Hook, Passage, Ruling, Unseen, not_tracked};
use crate::defrag::Gathered;

/// A packet as it is handed over at a hook, besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Handed {
    /// How long it is in bytes, where not all of it was handed over.
    pub wire_len: usize,
    /// The interface that it came in by, for PREROUTING; the one that it leaves by, for LOCAL_OUT and POSTROUTING.
    pub interface: Option<u16>,
    /// Its mark (`skb->mark`).
    pub mark: u32,
    /// Does somebody vouch for its checksum, or is it still to be filled in?
    pub checksum_trusted: bool,
    /// When.
    pub now: Time,
}

impl Engine {
    /// PREROUTING: the packet was received.
    pub fn at_prerouting<S: Sink>(&mut self, buffer: &mut [u8], handed: &Handed, sink: &mut S) -> Entered {
        let mut passage = Passage::new(handed.interface, handed.now);
        (passage.way.mark, passage.way.checksum_trusted) = (handed.mark, handed.checksum_trusted);
        match self.begin((buffer, handed.wire_len), Carrier::Kernel, &mut passage, sink) {
            None => Entered::OnItsWay(self.handed_on(passage)),
            Some(ended) => Entered::Ended(ended),
        }
    }

    /// Somebody else carries the packet on. In a kernel it would hold on to its entry, which may be gone when it is back.
    pub(super) fn handed_on(&self, mut passage: Passage) -> Passage {
        passage.way.remembered = Binding::remember(&passage.tracked, &self.conntrack.table);
        passage
    }

    /// LOCAL_OUT: this host made the packet. `trigger` is as in [`Engine::send`].
    pub fn at_local_out<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        trigger: Option<&Tracked>,
        handed: &Handed,
        sink: &mut S,
    ) -> Entered {
        let hook = Hook::LocalOut;
        match self.gather((buffer, handed.wire_len), hook, (None, handed.now), sink) {
            Gathered::AsIs => {}
            Gathered::Unseen(unseen) => return Entered::Ended(Ruling::unseen(hook, unseen)),
            Gathered::Whole(mut datagram) => {
                let mut bytes = core::mem::take(&mut datagram.bytes);
                let handed = Handed { wire_len: datagram.len, ..*handed };
                let mut entered = self.at_local_out_whole(&mut bytes, trigger, &handed, sink);
                datagram.bytes = bytes;
                match &mut entered {
                    Entered::OnItsWay(passage) => passage.way.datagram = Some(datagram),
                    Entered::Ended(ruling) => ruling.datagram = Some(datagram),
                }
                return entered;
            }
        }
        self.at_local_out_whole(buffer, trigger, handed, sink)
    }

    fn at_local_out_whole<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        trigger: Option<&Tracked>,
        handed: &Handed,
        sink: &mut S,
    ) -> Entered {
        let hook = Hook::LocalOut;
        let packet = match Packet::parse(buffer, handed.wire_len) {
            Ok(packet) => packet,
            Err(error) => return Entered::Ended(Ruling::unseen(hook, Unseen::Packet(error))),
        };
        if let Some(unseen) = not_tracked(&packet) {
            return Entered::Ended(Ruling::unseen(hook, unseen));
        }
        let mut passage = Passage { hook, ..Passage::new(None, handed.now) };
        let Passage { tracked, way, .. } = &mut passage;
        way.of(&packet);
        (way.mark, way.out_interface) = (handed.mark, handed.interface);
        *tracked = self.answer(&packet, trigger, handed.now);
        if let Err(cause) = self.track(&packet, hook, tracked, way, sink) {
            return Entered::Ended(Ruling::dropped_unseen(hook, cause));
        }
        let buffer = way.bytes(buffer);
        match self.originates(buffer, tracked, way, sink) {
            Ok(()) => Entered::OnItsWay(self.handed_on(passage)),
            Err(cause) => Entered::Ended(self.ruling(hook, &mut passage, Err(cause), sink)),
        }
    }

    /// Would the hooks that are still ahead of the packet look at it? When not, nobody needs to hand it over again.
    #[must_use]
    pub fn has_more_to_do(&self, passage: &Passage) -> bool {
        let Passage { tracked, way, hook, .. } = passage;
        let rules = self.rules(way.l3num);
        let asks = |table: &Table<_>| {
            let ahead = match hook {
                Hook::LocalOut => &[Hook::PostRouting][..],
                _ => &[Hook::Forward, Hook::PostRouting, Hook::LocalIn],
            };
            ahead.iter().any(|hook| !table.chain(*hook).rules.is_empty() || table.chain(*hook).drops)
        };
        if [&rules.mangle, &rules.filter].into_iter().flatten().any(asks) {
            return true;
        }
        match &tracked.attached {
            Attached::None | Attached::Untracked => false,
            Attached::Unconfirmed(own) => {
                // The answer to a packet that is not confirmed is translated, but it confirms nothing.
                let begins = tracked.ctinfo.direction() == Some(Direction::Original);
                begins || self.translates(own.flow.status, passage)
            }
            Attached::Entry(id) => {
                let table = &self.conntrack.table;
                let translated = table.status(*id).is_some_and(|status| self.translates(status, passage));
                translated || table.extension(*id).is_some()
            }
        }
    }

    /// Is the source of the packet to be rewritten?
    fn translates(&self, status: Status, passage: &Passage) -> bool {
        let applies = |direction| Manip::Src.applies(status, direction);
        self.rules(passage.way.l3num).nat.is_some() && passage.tracked.ctinfo.direction().is_some_and(applies)
    }

    /// POSTROUTING: the packet is about to leave; FORWARD before that, if it was received.
    pub fn at_postrouting<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        passage: Passage,
        handed: &Handed,
        sink: &mut S,
    ) -> Ruling {
        self.at_last(buffer, passage, (Hook::PostRouting, handed), sink)
    }

    /// LOCAL_IN: the packet is for this host.
    pub fn at_local_in<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        passage: Passage,
        handed: &Handed,
        sink: &mut S,
    ) -> Ruling {
        self.at_last(buffer, passage, (Hook::LocalIn, handed), sink)
    }

    fn at_last<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        mut passage: Passage,
        (last, handed): (Hook, &Handed),
        sink: &mut S,
    ) -> Ruling {
        let Passage { tracked, way, hook, .. } = &mut passage;
        let hook = *hook;
        (way.now, way.mark, way.rewritten) = (handed.now, handed.mark, false);
        if let Ok(packet) = Packet::parse(buffer, handed.wire_len) {
            // It was put together long ago, and rules of the kernel's may have changed its length.
            way.of(&packet);
        }
        let buffer = way.bytes(buffer);
        let ended = if last == Hook::LocalIn {
            self.delivers(buffer, tracked, way, sink).map(|()| Egress::Local)
        } else {
            way.out_interface = handed.interface;
            let passed = if hook == Hook::PreRouting { self.passes(buffer, tracked, way, sink) } else { Ok(()) };
            let departed = passed.and_then(|()| self.departs(buffer, tracked, way, sink));
            departed.map(|()| Egress::Forwarded(handed.interface))
        };
        if let Attached::Entry(id) = tracked.attached {
            way.rewritten |= self.conntrack.table.extension(id).is_some();
        }
        self.ruling(hook, &mut passage, ended, sink)
    }

    /// The packet was dropped between two hooks, or somebody took it.
    pub fn lost<S: Sink>(&mut self, passage: &Passage, sink: &mut S) {
        self.vanish(&passage.tracked.attached, sink);
    }
}

impl Passage {
    /// Was the packet rewritten so far?
    #[must_use]
    pub const fn rewritten(&self) -> bool {
        self.way.rewritten
    }

    /// The mark that rules left it with.
    #[must_use]
    pub const fn mark(&self) -> u32 {
        self.way.mark
    }

    /// What was decided about a packet that nobody hands over again, or that did not come back.
    #[must_use]
    pub fn into_ruling(self, egress: Egress) -> Ruling {
        let Passage { tracked, way, hook, .. } = self;
        let Tracked { ctinfo, reason, attached } = tracked;
        let (rewritten, mark, datagram) = (way.rewritten, way.mark, way.datagram);
        Ruling { ctinfo: Ok(ctinfo), reason, egress, attached, rewritten, mark, datagram, ..Ruling::invalid(hook) }
    }

    /// The datagram that the packet, a fragment, completed: it goes on in its place, with so many bytes on the wire.
    pub fn take_datagram(&mut self) -> Option<(Vec<u8>, usize)> {
        self.way.datagram.take().map(|datagram| (datagram.bytes, datagram.len))
    }
}
