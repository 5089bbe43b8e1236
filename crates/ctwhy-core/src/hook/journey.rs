//! The ways of a packet: received, forwarded, delivered, sent by this host.

use crate::confirm::{self, ConfirmDrop};
use crate::conntrack::{Attached, Tracked};
use crate::defrag::{self, Datagram, Gathered};
use crate::direction::CtInfo;
use crate::event::Causes;
use crate::nat::manip::decrement_ttl;
use crate::network::{Destination, is_link_local};
use crate::packet::{Packet, addresses, hop_limit};
use crate::rules::TableName;
use crate::rules::run::{Carried, Early};
use crate::status::Status;
use crate::table::ProtocolMut;
use crate::template::Template;
use crate::time::Time;
use crate::trace::{FragmentStep, Sink, Step};
use crate::tuple::{L3, proto};
use alloc::boxed::Box;
use core::mem;

use super::passage::Carrier;
use super::seen::looked_at_early;
use super::steps::left;
use super::{DropCause, Egress, Engine, Entered, Hook, Offload, Passage, Resized, Ruling, Unseen, Way, not_tracked};

impl Engine {
    /// A packet arrives: PREROUTING to the end of its way. `buffer` holds what is at hand of its `wire_len` bytes from
    /// the IP header on, and is rewritten in place.
    ///
    /// A fragment waits until its datagram is complete. The one that completes it gets the ruling about the datagram, which
    /// holds its bytes, and the buffer stays as it is: see [`Ruling::arrived`], [`Engine::departed`] and
    /// [`Engine::leaving`].
    pub fn receive<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        wire_len: usize,
        in_interface: Option<u16>,
        now: Time,
        sink: &mut S,
    ) -> Ruling {
        self.receive_offloaded((buffer, wire_len), Offload::default(), (in_interface, now), sink)
    }

    /// As [`Engine::receive`], for a packet of a device that verifies checksums or leaves them to whoever is next, and that
    /// takes several segments for one.
    pub fn receive_offloaded<S: Sink>(
        &mut self,
        (buffer, wire_len): (&mut [u8], usize),
        offload: Offload,
        (in_interface, now): (Option<u16>, Time),
        sink: &mut S,
    ) -> Ruling {
        let mut passage = Passage::new(in_interface, now);
        // Of a fragment there is nothing to vouch for.
        passage.way.checksum_trusted = offload.checksum_trusted && !defrag::concerns(buffer);
        passage.way.segment = offload.segment;
        match self.begin((&mut *buffer, wire_len), Carrier::Engine, &mut passage, sink) {
            None => self.finish(buffer, &mut passage, sink),
            Some(ended) => ended,
        }
    }

    /// The first half of [`Engine::receive`]: PREROUTING and routing. A packet that did not end there stands at
    /// LOCAL_IN or FORWARD, where a queue may hold it; what happens to the table meanwhile it does not notice (NFQ-01).
    pub fn enter<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        wire_len: usize,
        in_interface: Option<u16>,
        now: Time,
        sink: &mut S,
    ) -> Entered {
        let mut passage = Passage::new(in_interface, now);
        match self.begin((buffer, wire_len), Carrier::Engine, &mut passage, sink) {
            None => Entered::OnItsWay(self.handed_on(passage)),
            Some(ended) => Entered::Ended(ended),
        }
    }

    /// PREROUTING and routing; the ruling about a packet that ended there. What a packet carries is filled in where it
    /// stays, because to move it about costs more than most decisions.
    pub(super) fn begin<S: Sink>(
        &mut self,
        (buffer, wire_len): (&mut [u8], usize),
        carrier: Carrier,
        passage: &mut Passage,
        sink: &mut S,
    ) -> Option<Ruling> {
        let from = (passage.way.in_interface, passage.way.now);
        match self.gather((buffer, wire_len), Hook::PreRouting, from, sink) {
            Gathered::AsIs => self.begin_whole((buffer, wire_len), carrier, passage, sink),
            Gathered::Unseen(unseen) => Some(Ruling::unseen(Hook::PreRouting, unseen)),
            Gathered::Whole(datagram) => self.begin_gathered(datagram, carrier, passage, sink),
        }
    }

    /// [`Engine::begin`] for a datagram that came in fragments.
    #[cold]
    fn begin_gathered<S: Sink>(
        &mut self,
        mut datagram: Box<Datagram>,
        carrier: Carrier,
        passage: &mut Passage,
        sink: &mut S,
    ) -> Option<Ruling> {
        let (mut bytes, len) = (mem::take(&mut datagram.bytes), datagram.len);
        passage.way.datagram = Some(datagram);
        let mut begun = self.begin_whole((&mut bytes, len), carrier, passage, sink);
        let datagram = match &mut begun {
            None => &mut passage.way.datagram,
            Some(ended) => &mut ended.datagram,
        };
        if let Some(datagram) = datagram {
            datagram.bytes = bytes;
        }
        begun
    }

    /// The first hook of a packet: fragments wait there.
    #[inline]
    pub(super) fn gather<S: Sink>(
        &mut self,
        (bytes, wire_len): (&[u8], usize),
        hook: Hook,
        (in_interface, now): (Option<u16>, Time),
        sink: &mut S,
    ) -> Gathered {
        if defrag::concerns(bytes) {
            self.gather_fragment((bytes, wire_len), hook, (in_interface, now), sink)
        } else {
            Gathered::AsIs
        }
    }

    #[cold]
    fn gather_fragment<S: Sink>(
        &mut self,
        (bytes, wire_len): (&[u8], usize),
        hook: Hook,
        (in_interface, now): (Option<u16>, Time),
        sink: &mut S,
    ) -> Gathered {
        match Packet::parse(bytes, wire_len) {
            Ok(packet) => self.defrag.gather(&packet, hook, in_interface, (now, &self.conntrack.sysctls), sink),
            Err(error) => Gathered::Unseen(Unseen::Packet(error)),
        }
    }

    fn begin_whole<S: Sink>(
        &mut self,
        (buffer, wire_len): (&mut [u8], usize),
        carrier: Carrier,
        passage: &mut Passage,
        sink: &mut S,
    ) -> Option<Ruling> {
        let hook = Hook::PreRouting;
        let mut parsed = Packet::parse(buffer, wire_len);
        let packet = match &mut parsed {
            Ok(packet) => packet,
            Err(error) => return Some(Ruling::unseen(hook, Unseen::Packet(*error))),
        };
        packet.checksum_trusted = passage.way.checksum_trusted;
        if let Some(unseen) = not_tracked(packet) {
            return Some(Ruling::unseen(hook, unseen));
        }
        let Passage { tracked, way, egress, .. } = passage;
        way.of(packet);
        if let Err(cause) = self.track(packet, hook, tracked, way, sink) {
            return Some(Ruling::dropped_unseen(hook, cause));
        }
        if way.datagram.is_some() {
            let is_tracked = !matches!(tracked.attached, Attached::Untracked);
            way.linear = looked_at_early(packet, is_tracked && self.conntrack.sysctls.checksum);
        }
        let buffer = way.bytes(buffer);
        let arrived = self.arrives(buffer, tracked, way, sink);
        let arrived = match carrier {
            Carrier::Engine => arrived.and_then(|()| self.routes(buffer, way, sink)),
            Carrier::Kernel => arrived.map(|()| Egress::Nowhere),
        };
        match arrived {
            Ok(to) => {
                *egress = to;
                None
            }
            Err(cause) => Some(self.ruling(hook, passage, Err(cause), sink)),
        }
    }

    /// The second half of [`Engine::receive`]: the last hooks, for the packet that [`Engine::enter`] left in `buffer`.
    pub fn proceed<S: Sink>(&mut self, buffer: &mut [u8], mut passage: Passage, now: Time, sink: &mut S) -> Ruling {
        passage.way.now = now;
        self.finish(buffer, &mut passage, sink)
    }

    fn finish<S: Sink>(&mut self, buffer: &mut [u8], passage: &mut Passage, sink: &mut S) -> Ruling {
        let ended = match &mut passage.way.datagram {
            None => self.ends(passage.way.bytes(buffer), passage, sink),
            Some(datagram) => {
                let mut bytes = mem::take(&mut datagram.bytes);
                let ended = self.ends(&mut bytes, passage, sink);
                if let Some(datagram) = &mut passage.way.datagram {
                    datagram.bytes = bytes;
                }
                ended
            }
        };
        self.ruling(Hook::PreRouting, passage, ended, sink)
    }

    /// The last hooks of a packet that was received.
    fn ends<S: Sink>(&mut self, buffer: &mut [u8], passage: &mut Passage, sink: &mut S) -> Result<Egress, DropCause> {
        let Passage { tracked, way, egress, .. } = passage;
        match egress {
            Egress::Local => self.delivers(buffer, tracked, way, sink)?,
            _ => self.forwards(buffer, tracked, way, sink)?,
        }
        Ok(*egress)
    }

    /// A packet of this host: LOCAL_OUT to the end of its way. `trigger` is the packet that it answers when it is an
    /// ICMP error or a reset of a firewall: it then carries that packet's entry and is not looked up (ICMP-LOC-01).
    ///
    /// Fragments are gathered as in [`Engine::receive`], apart from received ones.
    pub fn send<S: Sink>(&mut self, buffer: &mut [u8], trigger: Option<&Tracked>, now: Time, sink: &mut S) -> Ruling {
        let hook = Hook::LocalOut;
        let len = buffer.len();
        match self.gather((buffer, len), hook, (None, now), sink) {
            Gathered::AsIs => self.send_whole((buffer, len), trigger, None, now, sink),
            Gathered::Unseen(unseen) => Ruling::unseen(hook, unseen),
            Gathered::Whole(mut datagram) => {
                let (mut bytes, len) = (mem::take(&mut datagram.bytes), datagram.len);
                let mut ruling = self.send_whole((&mut bytes, len), trigger, Some(datagram), now, sink);
                if let Some(datagram) = &mut ruling.datagram {
                    datagram.bytes = bytes;
                }
                ruling
            }
        }
    }

    fn send_whole<S: Sink>(
        &mut self,
        (buffer, wire_len): (&mut [u8], usize),
        trigger: Option<&Tracked>,
        datagram: Option<Box<Datagram>>,
        now: Time,
        sink: &mut S,
    ) -> Ruling {
        let hook = Hook::LocalOut;
        let packet = match Packet::parse(buffer, wire_len) {
            Ok(packet) => packet,
            Err(error) => return Ruling::unseen(hook, Unseen::Packet(error)),
        };
        if let Some(unseen) = not_tracked(&packet) {
            return Ruling::unseen(hook, unseen);
        }
        let mut passage = Passage::new(None, now);
        let Passage { tracked, way, .. } = &mut passage;
        way.of(&packet);
        way.datagram = datagram;
        // The packet was routed before it came here; what nat destination makes of it is routed again.
        way.out_interface = match self.network.route(way.l3num, packet.dst) {
            Destination::Interface(out) => Some(out),
            Destination::Local => {
                self.network.interfaces.iter().zip(0..).find(|(i, _)| i.name == "lo").map(|(_, at)| at)
            }
            Destination::None => None,
        };
        *tracked = self.answer(&packet, trigger, now);
        if let Err(cause) = self.track(&packet, hook, tracked, way, sink) {
            return Ruling::dropped_unseen(hook, cause);
        }
        let ended = self.leaves(buffer, tracked, way, sink);
        self.ruling(hook, &mut passage, ended, sink)
    }

    /// What a packet that answers another carries. One of TCP is a reset, and the connection that it ends is closing:
    /// `nf_ct_set_closing` (ICMP-LOC-02).
    pub(crate) fn answer(&mut self, packet: &Packet<'_>, trigger: Option<&Tracked>, now: Time) -> Tracked {
        let Some(tracked) = trigger.and_then(confirm::attach) else { return Tracked::not_yet() };
        let seconds = self.conntrack.sysctls.tcp_timeout_close;
        if packet.transport.is_ok_and(|transport| transport.protonum == proto::TCP)
            && let Attached::Entry(id) = tracked.attached
            && let Some(entry) = self.conntrack.table.get_mut(id)
            && let ProtocolMut::Tcp(state) = entry.protocol
            && state.set_closing()
        {
            *entry.pending |= Causes::PROTOINFO;
            if !entry.status.contains(Status::FIXED_TIMEOUT) {
                *entry.expires = now.plus_secs(seconds);
            }
        }
        tracked
    }

    /// The raw table, then conntrack, which leaves a packet alone that carries an entry (CORE-HOOK-04).
    pub(crate) fn track<S: Sink>(
        &mut self,
        packet: &Packet<'_>,
        hook: Hook,
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        if !matches!(tracked.attached, Attached::None) {
            self.ask(TableName::Raw, hook, packet, Carried::Tracked(tracked), way, sink)?;
            sink.step(|| Step::Arrived { hook, bytes: packet.len });
            sink.step(|| Step::AlreadyAttached);
            sink.step(|| Step::Decided { ctinfo: tracked.ctinfo });
            return Ok(());
        }
        let mut early = Early::Nothing;
        self.ask(TableName::Raw, hook, packet, Carried::Early(&mut early), way, sink)?;
        let asked;
        let template = match early {
            Early::Nothing => &Template::NONE,
            Early::Template(ct) => {
                asked = ct.template(way.mark);
                &asked
            }
            Early::Untracked => {
                let ctinfo = CtInfo::Untracked;
                sink.step(|| Step::Decided { ctinfo });
                *tracked = Tracked { ctinfo, reason: None, attached: Attached::Untracked };
                return Ok(());
            }
        };
        self.conntrack.track_into(tracked, packet, hook, template, way.now, sink).map_err(DropCause::TableFull)
    }

    /// PREROUTING behind conntrack.
    fn arrives<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        self.consult(TableName::Mangle, Hook::PreRouting, buffer, tracked, way, sink)?;
        self.nat(buffer, tracked, Hook::PreRouting, way, sink)
    }

    /// Routing, and where that leads.
    fn routes<S: Sink>(&mut self, buffer: &mut [u8], way: &mut Way, sink: &mut S) -> Result<Egress, DropCause> {
        if self.network.is_unknown() {
            return Ok(Egress::Forwarded(None));
        }
        match self.destination(buffer, way, sink) {
            Destination::None => Err(DropCause::NoRoute),
            Destination::Local => Ok(Egress::Local),
            Destination::Interface(out) => {
                if hop_limit(buffer, way.l3num).is_some_and(|left| left <= 1) {
                    return Err(DropCause::TtlExceeded);
                }
                if way.l3num == L3::V6 && way.in_interface != Some(out) && stays_on_its_link(buffer) {
                    return Err(DropCause::SourceScope);
                }
                way.out_interface = Some(out);
                way.outgoing(&self.network, buffer).may_be_forwarded()?;
                if let Some(to) = decrement_ttl(buffer, way.l3num) {
                    sink.step(|| Step::TtlDecremented { to });
                }
                Ok(Egress::Forwarded(Some(out)))
            }
        }
    }

    /// FORWARD, and on. Where no network is known packets just leave.
    fn forwards<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        if !self.network.is_unknown() {
            self.passes(buffer, tracked, way, sink)?;
        }
        self.departs(buffer, tracked, way, sink)?;
        self.cut(buffer, way, sink)
    }

    /// FORWARD.
    pub(super) fn passes<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        self.consult(TableName::Mangle, Hook::Forward, buffer, tracked, way, sink)?;
        self.consult(TableName::Filter, Hook::Forward, buffer, tracked, way, sink)
    }

    /// LOCAL_IN.
    pub(super) fn delivers<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        self.consult(TableName::Mangle, Hook::LocalIn, buffer, tracked, way, sink)?;
        self.consult(TableName::Filter, Hook::LocalIn, buffer, tracked, way, sink)?;
        self.nat(buffer, tracked, Hook::LocalIn, way, sink)?;
        self.confirm(buffer, tracked, way, sink)
    }

    /// LOCAL_OUT behind conntrack.
    pub(super) fn originates<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        self.consult(TableName::Mangle, Hook::LocalOut, buffer, tracked, way, sink)?;
        self.nat(buffer, tracked, Hook::LocalOut, way, sink)?;
        self.consult(TableName::Filter, Hook::LocalOut, buffer, tracked, way, sink)
    }

    /// LOCAL_OUT behind conntrack, and on.
    fn leaves<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<Egress, DropCause> {
        self.originates(buffer, tracked, way, sink)?;
        match self.destination(buffer, way, sink) {
            Destination::None => Err(DropCause::NoRoute),
            Destination::Interface(out) => {
                way.out_interface = Some(out);
                self.departs(buffer, tracked, way, sink)?;
                self.cut(buffer, way, sink)?;
                Ok(Egress::Forwarded(Some(out)))
            }
            Destination::Local => {
                self.departs(buffer, tracked, way, sink)?;
                if !self.network.is_unknown() {
                    self.loops_back(buffer, tracked, way, sink)?;
                }
                Ok(Egress::Local)
            }
        }
    }

    /// A packet of this host to itself arrives with what it carries (CORE-HOOK-04, ICMP-LOC-05). One that carries nothing
    /// is tracked again.
    fn loops_back<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        (way.in_interface, way.out_interface) = (way.out_interface, None);
        if let Ok(packet) = Packet::parse(buffer, way.len) {
            self.track(&packet, Hook::PreRouting, tracked, way, sink)?;
        }
        self.arrives(buffer, tracked, way, sink)?;
        self.delivers(buffer, tracked, way, sink)
    }

    /// POSTROUTING.
    pub(super) fn departs<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        self.consult(TableName::Mangle, Hook::PostRouting, buffer, tracked, way, sink)?;
        self.nat(buffer, tracked, Hook::PostRouting, way, sink)?;
        self.confirm(buffer, tracked, way, sink)
    }

    /// Behind the last hook: the packet leaves in one piece or in fragments.
    #[inline]
    fn cut<S: Sink>(&mut self, buffer: &[u8], way: &mut Way, sink: &mut S) -> Result<(), DropCause> {
        if way.resized.is_none() && way.outgoing(&self.network, buffer).leaves_whole() {
            return Ok(());
        }
        self.cut_anew(buffer, way, sink)
    }

    #[cold]
    fn cut_anew<S: Sink>(&mut self, buffer: &[u8], way: &mut Way, sink: &mut S) -> Result<(), DropCause> {
        if let Some(Resized { from, to }) = way.resized {
            // Whoever changes its length wants it in one piece.
            (way.linear, way.len) = (from, to);
        }
        let packet = left(&self.spare, way.resized, buffer);
        let cut = way.outgoing(&self.network, packet).cut(&mut self.ids)?;
        if let Some(cut) = &cut {
            let (fragments, as_received) = (cut.count(way.len), cut.is_as_received());
            sink.step(|| Step::Fragment(FragmentStep::Cut { fragments, as_received }));
        }
        way.cut = cut;
        Ok(())
    }

    /// Where a packet goes, its destination translated. Without any routes it just goes on.
    fn destination<S: Sink>(&self, buffer: &[u8], way: &Way, sink: &mut S) -> Destination {
        if self.network.is_unknown() {
            return Destination::Local;
        }
        let Some((_, to)) = addresses(buffer, way.l3num) else { return Destination::None };
        let destination = self.network.route_from(way.in_interface, way.l3num, to);
        match destination {
            Destination::Local => sink.step(|| Step::RoutedLocal { to: to.ip(way.l3num) }),
            Destination::Interface(interface) => sink.step(|| Step::RoutedTo { interface }),
            Destination::None => {}
        }
        destination
    }

    /// `nf_confirm`: the helper, then `confirm`. What the helper began for a flow that is not confirmed is taken back.
    pub(crate) fn conclude<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &Way,
        sink: &mut S,
        confirm: impl FnOnce(&mut Engine, &mut Tracked, &mut S) -> Result<(), ConfirmDrop>,
    ) -> Result<Option<Resized>, DropCause> {
        let assisted = self.assist(buffer, tracked, way, sink);
        let begun = match &tracked.attached {
            Attached::Unconfirmed(own) => own.flow.extension,
            _ => None,
        };
        let concluded =
            assisted.and_then(|resized| confirm(self, tracked, sink).map_err(DropCause::Confirm).map(|()| resized));
        if let Some(begun) = begun {
            self.conntrack.table.settle(begun);
        }
        concluded
    }
}

/// The sources that `ip6_forward` refuses: link-local ones and none at all.
fn stays_on_its_link(packet: &[u8]) -> bool {
    addresses(packet, L3::V6).is_some_and(|(src, _)| src.0 == [0; 16] || is_link_local(src))
}
