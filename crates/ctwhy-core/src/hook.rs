//! The one place that knows the order of hooks (catalogue A.2).
//!
//! ```text
//! received  PREROUTING  conntrack, nat destination
//!           route       local: LOCAL_IN  nat source, confirm
//!                       else:  TTL, FORWARD, POSTROUTING  nat source, confirm
//! local     LOCAL_OUT   conntrack, nat destination; POSTROUTING  nat source, confirm
//! ```

use alloc::vec::Vec;
use core::fmt;

use crate::confirm::{self, ConfirmDrop};
use crate::conntrack::{Attached, Conntrack, Tracked};
use crate::direction::CtInfo;
use crate::helper::HelperDrop;
use crate::nat::hooks::{Surroundings, translate};
use crate::nat::manip::decrement_ttl;
use crate::nat::rules::Ruleset;
use crate::nat::{Manip, NatDrop};
use crate::network::{Destination, Network};
use crate::packet::{Fragment, Packet, PacketError, addresses};
use crate::random::Random;
use crate::reason::Reason;
use crate::seqadj::SeqDrop;
use crate::table::EntryId;
use crate::template::Template;
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::tuple::L3;

/// A hook (`enum nf_inet_hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A packet arrived.
    PreRouting,
    /// It is for this host.
    LocalIn,
    /// It is forwarded.
    Forward,
    /// This host made it.
    LocalOut,
    /// It is about to leave.
    PostRouting,
}

impl Hook {
    /// The name in reports and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Hook::PreRouting => "prerouting",
            Hook::LocalIn => "input",
            Hook::Forward => "forward",
            Hook::LocalOut => "output",
            Hook::PostRouting => "postrouting",
        }
    }

    /// `HOOK2MANIP`: what NAT changes at the hook.
    #[must_use]
    pub const fn manip(self) -> Option<Manip> {
        match self {
            Hook::PreRouting | Hook::LocalOut => Some(Manip::Dst),
            Hook::PostRouting | Hook::LocalIn => Some(Manip::Src),
            Hook::Forward => None,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It went on.
    Accept,
    /// It ended here.
    Drop(DropCause),
}

/// Why a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// Its TTL or hop limit was used up: the host answers with time exceeded.
    TtlExceeded,
    /// No route leads to its destination.
    NoRoute,
    /// NAT dropped it.
    Nat(NatDrop),
    /// The helper of its flow dropped it.
    Helper(HelperDrop),
    /// Its numbers could not follow the changed length of earlier segments.
    SeqAdjust(SeqDrop),
    /// Its entry could not be confirmed.
    Confirm(ConfirmDrop),
}

impl DropCause {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            DropCause::TtlExceeded => "forward.ttl_exceeded",
            DropCause::NoRoute => "route.none",
            DropCause::Nat(cause) => cause.code(),
            DropCause::Helper(cause) => cause.code(),
            DropCause::SeqAdjust(cause) => cause.code(),
            DropCause::Confirm(cause) => cause.code(),
        }
    }
}

/// Why conntrack never had a say about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// The IP layer drops it, or the capture does not hold it.
    Packet(PacketError),
    /// A fragment: it waits for the rest of its datagram, which is tracked as one packet.
    Fragment(Fragment),
}

impl Unseen {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Unseen::Packet(error) => error.code(),
            Unseen::Fragment(_) => "fragment.incomplete",
        }
    }
}

/// Where a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// Out by an interface; `None` when no routes are known.
    Forwarded(Option<u16>),
    /// To this host.
    Local,
    /// Nowhere.
    Nowhere,
}

/// Everything that was decided about one packet.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// Where conntrack saw it.
    pub hook: Hook,
    /// What conntrack calls it, or why conntrack did not see it.
    pub ctinfo: Result<CtInfo, Unseen>,
    /// Why it is INVALID.
    pub reason: Option<Reason>,
    /// What became of it.
    pub verdict: Verdict,
    /// Where it went.
    pub egress: Egress,
    /// Its entry, as it was attached when the packet ended or left.
    pub attached: Attached,
    /// Its length where a helper changed it; see [`Engine::departed`].
    pub resized: Option<Resized>,
}

/// The length of a packet that a helper made longer or shorter, in bytes from the IP header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// As it arrived.
    pub from: usize,
    /// As it left.
    pub to: usize,
}

impl Ruling {
    fn unseen(hook: Hook, unseen: Unseen) -> Ruling {
        let egress = Egress::Nowhere;
        Ruling {
            hook,
            ctinfo: Err(unseen),
            reason: None,
            verdict: Verdict::Accept,
            egress,
            attached: Attached::None,
            resized: None,
        }
    }

    /// The packet as conntrack left it; `None` when conntrack did not see it. What this host sends in answer carries
    /// the same entry.
    #[must_use]
    pub fn tracked(&self) -> Option<Tracked> {
        let ctinfo = self.ctinfo.ok()?;
        Some(Tracked { ctinfo, reason: self.reason, attached: self.attached.clone() })
    }

    /// The entry of the packet, if it is in the table.
    #[must_use]
    pub const fn entry(&self) -> Option<EntryId> {
        match self.attached {
            Attached::Entry(id) => Some(id),
            _ => None,
        }
    }
}

/// A host: conntrack, NAT and what they need to know of the network.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Conntrack proper.
    pub conntrack: Conntrack,
    /// The nat table for IPv4; `None` when no nat chain exists.
    pub nat4: Option<Ruleset>,
    /// The nat table for IPv6.
    pub nat6: Option<Ruleset>,
    /// Interfaces and routes.
    pub network: Network,
    /// The last packet that outgrew the buffer that it came in.
    pub(crate) spare: Vec<u8>,
}

impl Engine {
    /// A host with an empty table. `seed` is where NAT's draws come from.
    #[must_use]
    pub fn new(seed: u64) -> Engine {
        Engine {
            conntrack: Conntrack { random: Random::new(seed), ..Conntrack::default() },
            nat4: None,
            nat6: None,
            network: Network::default(),
            spare: Vec::new(),
        }
    }

    /// A packet arrives: PREROUTING to the end of its way. `buffer` holds what is at hand of its `wire_len` bytes from
    /// the IP header on, and is rewritten in place.
    pub fn receive<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        wire_len: usize,
        in_interface: Option<u16>,
        now: Time,
        sink: &mut S,
    ) -> Ruling {
        match self.enter(buffer, wire_len, in_interface, now, sink) {
            Entered::Ended(ruling) => ruling,
            Entered::OnItsWay(passage) => self.proceed(buffer, passage, now, sink),
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
        let hook = Hook::PreRouting;
        let packet = match Packet::parse(buffer, wire_len) {
            Ok(packet) => packet,
            Err(error) => return Entered::Ended(Ruling::unseen(hook, Unseen::Packet(error))),
        };
        if let Some(unseen) = not_tracked(&packet) {
            return Entered::Ended(Ruling::unseen(hook, unseen));
        }
        let (len, l3num, ttl) = (packet.len, packet.l3num, packet.ttl);
        let mut tracked = self.conntrack.track(&packet, hook, Template::default(), now, sink);
        let buffer = match buffer.get_mut(..len) {
            Some(exact) => exact,
            None => buffer,
        };
        let mut way = Way { in_interface, out_interface: None, now, l3num, len };

        if let Err(cause) = self.nat(buffer, &mut tracked, hook, &way, sink) {
            return Entered::Ended(self.dropped(hook, tracked, DropCause::Nat(cause), sink));
        }
        let (last, egress) = match self.destination(buffer, &way, sink) {
            Destination::Local => (Hook::LocalIn, Egress::Local),
            Destination::None => return Entered::Ended(self.dropped(hook, tracked, DropCause::NoRoute, sink)),
            Destination::Interface(out) => {
                if ttl <= 1 {
                    return Entered::Ended(self.dropped(hook, tracked, DropCause::TtlExceeded, sink));
                }
                if let Some(to) = decrement_ttl(buffer, l3num) {
                    sink.step(|| Step::TtlDecremented { to });
                }
                way.out_interface = Some(out);
                (Hook::PostRouting, Egress::Forwarded(Some(out)))
            }
        };
        let egress = if self.network.is_unknown() { Egress::Forwarded(None) } else { egress };
        let last = if self.network.is_unknown() { Hook::PostRouting } else { last };
        Entered::OnItsWay(Passage { tracked, way, last, egress })
    }

    /// The second half of [`Engine::receive`]: the last hooks, for the packet that [`Engine::enter`] left in `buffer`.
    pub fn proceed<S: Sink>(&mut self, buffer: &mut [u8], passage: Passage, now: Time, sink: &mut S) -> Ruling {
        let Passage { tracked, mut way, last, egress } = passage;
        way.now = now;
        let buffer = match buffer.get_mut(..way.len) {
            Some(exact) => exact,
            None => buffer,
        };
        self.leave(buffer, tracked, (Hook::PreRouting, last), egress, &way, sink)
    }

    /// A packet of this host: LOCAL_OUT to the end of its way. `trigger` is the packet that it answers when it is an
    /// ICMP error or a reset of a firewall: it then carries that packet's entry and is not looked up (ICMP-LOC-01).
    pub fn send<S: Sink>(&mut self, buffer: &mut [u8], trigger: Option<&Tracked>, now: Time, sink: &mut S) -> Ruling {
        let hook = Hook::LocalOut;
        let packet = match Packet::parse(buffer, buffer.len()) {
            Ok(packet) => packet,
            Err(error) => return Ruling::unseen(hook, Unseen::Packet(error)),
        };
        if let Some(unseen) = not_tracked(&packet) {
            return Ruling::unseen(hook, unseen);
        }
        let mut way = Way { in_interface: None, out_interface: None, now, l3num: packet.l3num, len: packet.len };
        let mut tracked = match trigger.and_then(confirm::attach) {
            Some(tracked) => {
                sink.step(|| Step::AlreadyAttached);
                tracked
            }
            None => self.conntrack.track(&packet, hook, Template::default(), now, sink),
        };
        if let Err(cause) = self.nat(buffer, &mut tracked, hook, &way, sink) {
            return self.dropped(hook, tracked, DropCause::Nat(cause), sink);
        }
        let egress = match self.destination(buffer, &way, sink) {
            Destination::Interface(out) => {
                way.out_interface = Some(out);
                Egress::Forwarded(Some(out))
            }
            Destination::Local => Egress::Local,
            Destination::None => return self.dropped(hook, tracked, DropCause::NoRoute, sink),
        };
        self.leave(buffer, tracked, (hook, Hook::PostRouting), egress, &way, sink)
    }

    /// Where a packet goes, its destination translated. Without any routes it just goes on.
    fn destination<S: Sink>(&self, buffer: &[u8], way: &Way, sink: &mut S) -> Destination {
        if self.network.is_unknown() {
            return Destination::Local;
        }
        let Some((_, to)) = addresses(buffer, way.l3num) else { return Destination::None };
        let destination = self.network.route(way.l3num, to);
        match destination {
            Destination::Local => sink.step(|| Step::RoutedLocal { to: to.ip(way.l3num) }),
            Destination::Interface(interface) => sink.step(|| Step::RoutedTo { interface }),
            Destination::None => {}
        }
        destination
    }

    /// The last hook: nat source, then confirm.
    fn leave<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        mut tracked: Tracked,
        (hook, last): (Hook, Hook),
        egress: Egress,
        way: &Way,
        sink: &mut S,
    ) -> Ruling {
        if let Err(cause) = self.nat(buffer, &mut tracked, last, way, sink) {
            return self.dropped(hook, tracked, DropCause::Nat(cause), sink);
        }
        let confirm = |engine: &mut Engine, tracked: &mut Tracked, sink: &mut S| {
            confirm::confirm(tracked, &mut engine.conntrack.table, way.now, sink)
        };
        let resized = match self.conclude(buffer, &mut tracked, way, sink, confirm) {
            Ok(resized) => resized,
            Err(cause) => return self.dropped(hook, tracked, cause, sink),
        };
        let Tracked { ctinfo, reason, attached } = tracked;
        Ruling { hook, ctinfo: Ok(ctinfo), reason, verdict: Verdict::Accept, egress, attached, resized }
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

    /// A packet as it left: `buffer` is what [`Engine::receive`] or [`Engine::send`] rewrote when it gave `ruling`. A
    /// packet that a helper made longer is not in there, because it has no room for it.
    #[must_use]
    pub fn departed<'a>(&'a self, ruling: &Ruling, buffer: &'a [u8]) -> &'a [u8] {
        match ruling.resized {
            None => buffer,
            Some(Resized { from, to }) if to > from => &self.spare,
            Some(Resized { to, .. }) => buffer.get(..to).unwrap_or(buffer),
        }
    }

    fn dropped<S: Sink>(&self, hook: Hook, tracked: Tracked, cause: DropCause, sink: &mut S) -> Ruling {
        if matches!(tracked.attached, Attached::Unconfirmed(_)) {
            sink.step(|| Step::EntryVanished);
        }
        let Tracked { ctinfo, reason, attached } = tracked;
        let verdict = Verdict::Drop(cause);
        Ruling { hook, ctinfo: Ok(ctinfo), reason, verdict, egress: Egress::Nowhere, attached, resized: None }
    }

    fn nat<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        hook: Hook,
        way: &Way,
        sink: &mut S,
    ) -> Result<(), NatDrop> {
        let rules = match way.l3num {
            L3::V4 => &self.nat4,
            L3::V6 => &self.nat6,
        };
        if rules.is_none() {
            return Ok(());
        }
        let mut around = Surroundings {
            rules: rules.as_ref(),
            network: &self.network,
            in_interface: way.in_interface,
            out_interface: way.out_interface,
            table: &mut self.conntrack.table,
            random: &mut self.conntrack.random,
            now: way.now,
        };
        translate(buffer, way.len, tracked, hook, &mut around, sink)
    }
}

/// What became of a packet in [`Engine::enter`].
#[derive(Clone, Debug)]
pub enum Entered {
    /// It ended there.
    Ended(Ruling),
    /// It goes on, now or later.
    OnItsWay(Passage),
}

/// A packet behind routing and before its last hooks.
#[derive(Clone, Debug)]
pub struct Passage {
    tracked: Tracked,
    way: Way,
    last: Hook,
    egress: Egress,
}

impl Passage {
    /// What conntrack calls the packet.
    #[must_use]
    pub const fn tracked(&self) -> &Tracked {
        &self.tracked
    }

    /// Where it will go if nothing stops it.
    #[must_use]
    pub const fn egress(&self) -> Egress {
        self.egress
    }
}

/// What stays the same while a packet is on its way.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) in_interface: Option<u16>,
    pub(crate) out_interface: Option<u16>,
    pub(crate) now: Time,
    pub(crate) l3num: L3,
    pub(crate) len: usize,
}

/// Packets that conntrack must not be asked about yet.
pub(crate) fn not_tracked(packet: &Packet<'_>) -> Option<Unseen> {
    if let Some(fragment) = packet.fragment {
        return Some(Unseen::Fragment(fragment));
    }
    let transport = packet.transport.ok()?;
    // A capture that was cut inside the header that decides says nothing.
    let have = packet.bytes.len();
    let need = transport.offset + decisive_bytes(packet, transport.protonum, transport.offset);
    (have < need && have < packet.len).then_some(Unseen::Packet(PacketError::CutShort { need, have }))
}

/// How many bytes of a transport header its tracker reads.
fn decisive_bytes(packet: &Packet<'_>, protonum: u8, offset: usize) -> usize {
    use crate::track::{icmp, icmpv6, sctp};
    use crate::tuple::{gre_version, proto};
    match (packet.l3num, protonum) {
        (_, proto::UDP | proto::UDPLITE) => 8,
        (_, proto::SCTP) => {
            let bytes = packet.bytes.get(offset..).unwrap_or(&[]);
            sctp::chunk::decisive_bytes(bytes, packet.len.saturating_sub(offset))
        }
        // Version 1 has keys, up to its eighth byte; a header without either is tracked all the same.
        (_, proto::GRE) => {
            let bytes = packet.bytes.get(offset..).unwrap_or(&[]);
            let need = if gre_version(bytes) == Some(1) { 8 } else { 4 };
            need.min(packet.len.saturating_sub(offset))
        }
        (_, proto::TCP) => {
            let data_offset = packet.bytes.get(offset + 12).map_or(5, |byte| byte >> 4);
            usize::from(data_offset.max(5)) * 4
        }
        // An error is decided by the headers that it quotes: with 48 and 68 bytes of quote nothing is missing.
        (L3::V4, proto::ICMP) if packet.bytes.get(offset).is_some_and(|t| icmp::is_error(*t)) => {
            (icmp::HEADER + 28).min(packet.len.saturating_sub(offset))
        }
        (L3::V6, proto::ICMPV6) if packet.bytes.get(offset).is_some_and(|t| *t < icmpv6::FIRST_INFORMATIONAL_TYPE) => {
            (icmp::HEADER + 48).min(packet.len.saturating_sub(offset))
        }
        (_, proto::ICMP | proto::ICMPV6) => icmp::HEADER,
        _ => 0,
    }
}
