//! The one place that knows the order of hooks (catalogue A.2).
//!
//! ```text
//! received  PREROUTING   defrag, raw, conntrack, mangle, nat destination
//!           route        local: LOCAL_IN
//!                        else:  TTL, MTU, FORWARD, POSTROUTING
//! local     LOCAL_OUT    defrag, raw, conntrack, mangle, nat destination, filter
//!           route        POSTROUTING; local: PREROUTING and LOCAL_IN with what the packet carries
//!
//!           LOCAL_IN     mangle, filter, nat source, confirm
//!           FORWARD      mangle, filter
//!           POSTROUTING  mangle, nat source, confirm; fragments
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::mem;

use crate::confirm::{self, ConfirmDrop};
use crate::conn::{Confirmed, Flow};
use crate::conntrack::{Attached, Conntrack, Tracked};
use crate::defrag::{self, Datagram, Defrag, Gathered, Refused, Waiting};
use crate::direction::{CtInfo, Direction};
use crate::event::Causes;
use crate::helper::HelperDrop;
use crate::nat::hooks::{Surroundings, translate};
use crate::nat::manip::decrement_ttl;
use crate::nat::{Manip, NatDrop};
use crate::network::{Destination, Network};
use crate::packet::{Fragment, Packet, PacketError, addresses};
use crate::random::Random;
use crate::reason::Reason;
use crate::refragment::{Cut, Leaving, Outgoing};
use crate::rules::run::{Carried, Early, Scene, run};
use crate::rules::target::Reject;
use crate::rules::{Rules, TableName};
use crate::seqadj::SeqDrop;
use crate::status::Status;
use crate::table::{EntryId, ProtocolMut};
use crate::template::Template;
use crate::time::Time;
use crate::trace::{FragmentStep, Sink, Step};
use crate::tuple::{Addr, L3, Tuple, proto};

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
    /// It is too long for the way out and must not be cut: the host answers with fragmentation needed or packet too big.
    TooBig {
        /// The MTU of the way out in bytes.
        mtu: u32,
    },
    /// It must leave in fragments, but no way was found to make them.
    Unfragmentable,
    /// A rule of raw, mangle or filter dropped it.
    Rule {
        /// The table.
        table: TableName,
        /// The hook whose chain the packet was in.
        hook: Hook,
        /// Line of the rule; `None` for the policy of the chain.
        line: Option<u32>,
        /// What the sender is told.
        reject: Option<Reject>,
    },
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
    /// Line of the rule that dropped the packet, if it was one.
    #[must_use]
    pub const fn line(&self) -> Option<u32> {
        match self {
            DropCause::Rule { line, .. } | DropCause::Nat(NatDrop::Rule { line }) => *line,
            _ => None,
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            DropCause::TtlExceeded => "forward.ttl_exceeded",
            DropCause::NoRoute => "route.none",
            DropCause::TooBig { .. } => "forward.too_big",
            DropCause::Unfragmentable => "output.unfragmentable",
            DropCause::Rule { reject: Some(_), .. } => "filter.reject",
            DropCause::Rule { table: TableName::Raw, .. } => "raw.rule",
            DropCause::Rule { table: TableName::Mangle, .. } => "mangle.rule",
            DropCause::Rule { .. } => "filter.rule",
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
    Fragment(Waiting),
    /// A fragment that was dropped.
    Refused(Refused),
    /// A fragment of this host's own whose sender does not want it gathered (`IP_NODEFRAG`, CORE-HOOK-05).
    NotGathered(Fragment),
    /// The raw table dropped it in front of conntrack.
    Raw {
        /// Line of the rule; `None` for the policy of the chain.
        line: Option<u32>,
    },
}

impl Unseen {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Unseen::Packet(error) => error.code(),
            Unseen::Fragment(_) => "fragment.incomplete",
            Unseen::Refused(refused) => refused.cause.code(),
            Unseen::NotGathered(_) => "fragment.not_gathered",
            Unseen::Raw { .. } => "raw.rule",
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
    /// The datagram that it completed, when it is a fragment: everything else is about that.
    pub datagram: Option<Box<Datagram>>,
    /// The fragments that it leaves in; `None` when it leaves in one piece.
    pub cut: Option<Cut>,
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
    /// Of a packet that conntrack has no say about.
    #[must_use]
    pub fn unseen(hook: Hook, unseen: Unseen) -> Ruling {
        Ruling { ctinfo: Err(unseen), ..Ruling::invalid(hook) }
    }

    /// Of a packet without an entry that went nowhere.
    pub(crate) const fn invalid(hook: Hook) -> Ruling {
        Ruling {
            hook,
            ctinfo: Ok(CtInfo::Invalid),
            reason: None,
            verdict: Verdict::Accept,
            egress: Egress::Nowhere,
            attached: Attached::None,
            resized: None,
            datagram: None,
            cut: None,
        }
    }

    /// The packet that this is about as it arrived, where `packet` did: for a fragment the datagram that it completed.
    #[must_use]
    pub fn arrived<'a>(&'a self, packet: &'a [u8]) -> &'a [u8] {
        self.datagram.as_ref().map_or(packet, |datagram| datagram.arrived())
    }

    /// A packet that the raw table dropped.
    fn dropped_unseen(hook: Hook, cause: DropCause) -> Ruling {
        Ruling { verdict: Verdict::Drop(cause), ..Ruling::unseen(hook, Unseen::Raw { line: cause.line() }) }
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

/// A host: conntrack, its rules, and what they need to know of the network.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Conntrack proper.
    pub conntrack: Conntrack,
    /// The rules for IPv4.
    pub rules4: Rules,
    /// The rules for IPv6.
    pub rules6: Rules,
    /// Interfaces and routes.
    pub network: Network,
    /// Where fragments wait.
    pub defrag: Defrag,
    /// Where the identifications of IPv6 fragments come from. They decide nothing.
    pub(crate) ids: Random,
    /// The last packet that outgrew the buffer that it came in.
    pub(crate) spare: Vec<u8>,
}

impl Engine {
    /// A host with an empty table and no rules. `seed` is where NAT's draws come from.
    #[must_use]
    pub fn new(seed: u64) -> Engine {
        Engine {
            conntrack: Conntrack { random: Random::new(seed), ..Conntrack::default() },
            rules4: Rules::default(),
            rules6: Rules::default(),
            network: Network::default(),
            defrag: Defrag::default(),
            ids: Random::new(seed),
            spare: Vec::new(),
        }
    }

    /// The rules of a family.
    #[must_use]
    pub const fn rules(&self, l3num: L3) -> &Rules {
        match l3num {
            L3::V4 => &self.rules4,
            L3::V6 => &self.rules6,
        }
    }

    /// The rules of a family, to be changed.
    pub const fn rules_mut(&mut self, l3num: L3) -> &mut Rules {
        match l3num {
            L3::V4 => &mut self.rules4,
            L3::V6 => &mut self.rules6,
        }
    }

    /// Says what the next packet will leave as, where a kernel drew its port or id at random. The engine adopts the draw
    /// if the rule allows it, and only then; `None` leaves it to the seed.
    pub const fn foretell(&mut self, leaves_as: Option<Tuple>) {
        self.conntrack.random.foretell(leaves_as);
    }

    /// Has NAT left anything to chance so far? Then a kernel will decide otherwise the next time.
    #[must_use]
    pub const fn has_drawn(&self) -> bool {
        self.conntrack.random.drawn()
    }

    /// `masq_inet_event`: an address of an interface is gone, and with it the flows that were masqueraded with it
    /// (NAT-SET-10).
    pub fn address_lost<S: Sink>(&mut self, interface: u16, l3num: L3, address: Addr, now: Time, sink: &mut S) {
        let masqueraded = |flow: &Flow| {
            let reply = flow.tuple(Direction::Reply);
            flow.masquerade_interface == Some(interface) && reply.l3num == l3num && reply.dst == address
        };
        self.conntrack.table.delete_where(|entry| masqueraded(&entry.flow), now, sink);
    }

    /// `masq_device_event`: an interface is down or gone, and with it every flow that was masqueraded when it left by it
    /// (NAT-SET-10).
    pub fn interface_lost<S: Sink>(&mut self, interface: u16, now: Time, sink: &mut S) {
        let masqueraded = |entry: &Confirmed| entry.flow.masquerade_interface == Some(interface);
        self.conntrack.table.delete_where(masqueraded, now, sink);
    }

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
        let from = (in_interface, now);
        match self.gather((buffer, wire_len), Hook::PreRouting, from, sink) {
            Gathered::AsIs => self.enter_whole((buffer, wire_len), from, None, sink),
            Gathered::Unseen(unseen) => Entered::Ended(Ruling::unseen(Hook::PreRouting, unseen)),
            Gathered::Whole(mut datagram) => {
                let (mut bytes, len) = (mem::take(&mut datagram.bytes), datagram.len);
                let mut entered = self.enter_whole((&mut bytes, len), from, Some(datagram), sink);
                if let Some(datagram) = entered.datagram() {
                    datagram.bytes = bytes;
                }
                entered
            }
        }
    }

    /// The first hook of a packet: fragments wait there.
    fn gather<S: Sink>(
        &mut self,
        (bytes, wire_len): (&[u8], usize),
        hook: Hook,
        (in_interface, now): (Option<u16>, Time),
        sink: &mut S,
    ) -> Gathered {
        if !defrag::concerns(bytes) {
            return Gathered::AsIs;
        }
        match Packet::parse(bytes, wire_len) {
            Ok(packet) => self.defrag.gather(&packet, hook, in_interface, (now, &self.conntrack.sysctls), sink),
            Err(error) => Gathered::Unseen(Unseen::Packet(error)),
        }
    }

    fn enter_whole<S: Sink>(
        &mut self,
        (buffer, wire_len): (&mut [u8], usize),
        (in_interface, now): (Option<u16>, Time),
        datagram: Option<Box<Datagram>>,
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
        let linear = looked_at_early(&packet, self.conntrack.sysctls.checksum);
        let mut way = Way { linear, datagram, ..Way::new(&packet, in_interface, now) };
        let mut tracked = match self.track(&packet, hook, None, &mut way, sink) {
            Ok(tracked) => tracked,
            Err(cause) => return Entered::Ended(Ruling::dropped_unseen(hook, cause)),
        };
        let buffer = way.bytes(buffer);
        match self.arrives(buffer, &mut tracked, &mut way, sink) {
            Ok(egress) => Entered::OnItsWay(Passage { tracked, way, egress }),
            Err(cause) => Entered::Ended(self.ruling(hook, tracked, way, Err(cause), sink)),
        }
    }

    /// The second half of [`Engine::receive`]: the last hooks, for the packet that [`Engine::enter`] left in `buffer`.
    pub fn proceed<S: Sink>(&mut self, buffer: &mut [u8], passage: Passage, now: Time, sink: &mut S) -> Ruling {
        let Passage { mut tracked, mut way, egress } = passage;
        way.now = now;
        let mut datagram = way.datagram.as_mut().map(|datagram| mem::take(&mut datagram.bytes));
        let buffer = datagram.as_deref_mut().unwrap_or(way.bytes(buffer));
        let ended = match egress {
            Egress::Local => self.delivers(buffer, &mut tracked, &mut way, sink),
            _ => self.forwards(buffer, &mut tracked, &mut way, sink),
        };
        if let (Some(own), Some(bytes)) = (&mut way.datagram, datagram) {
            own.bytes = bytes;
        }
        self.ruling(Hook::PreRouting, tracked, way, ended.map(|()| egress), sink)
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
        let mut way = Way { datagram, ..Way::new(&packet, None, now) };
        // The packet was routed before it came here; what nat destination makes of it is routed again.
        way.out_interface = match self.network.route(way.l3num, packet.dst) {
            Destination::Interface(out) => Some(out),
            Destination::Local => {
                self.network.interfaces.iter().zip(0..).find(|(i, _)| i.name == "lo").map(|(_, at)| at)
            }
            Destination::None => None,
        };
        let attached = self.answer(&packet, trigger, now);
        let mut tracked = match self.track(&packet, hook, attached, &mut way, sink) {
            Ok(tracked) => tracked,
            Err(cause) => return Ruling::dropped_unseen(hook, cause),
        };
        let ended = self.leaves(buffer, &mut tracked, &mut way, sink);
        self.ruling(hook, tracked, way, ended, sink)
    }

    /// What a packet that answers another carries. One of TCP is a reset, and the connection that it ends is closing:
    /// `nf_ct_set_closing` (ICMP-LOC-02).
    pub(crate) fn answer(&mut self, packet: &Packet<'_>, trigger: Option<&Tracked>, now: Time) -> Option<Tracked> {
        let tracked = confirm::attach(trigger?)?;
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
        Some(tracked)
    }

    /// The raw table, then conntrack, which leaves a packet alone that carries an entry (CORE-HOOK-04).
    pub(crate) fn track<S: Sink>(
        &mut self,
        packet: &Packet<'_>,
        hook: Hook,
        attached: Option<Tracked>,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<Tracked, DropCause> {
        if let Some(mut tracked) = attached {
            self.ask(TableName::Raw, hook, packet, Carried::Tracked(&mut tracked), way, sink)?;
            sink.step(|| Step::Arrived { hook, bytes: packet.len });
            sink.step(|| Step::AlreadyAttached);
            sink.step(|| Step::Decided { ctinfo: tracked.ctinfo });
            return Ok(tracked);
        }
        let mut early = Early::Nothing;
        self.ask(TableName::Raw, hook, packet, Carried::Early(&mut early), way, sink)?;
        let template = match early {
            Early::Nothing => Template::default(),
            Early::Template(ct) => ct.template(way.mark),
            Early::Untracked => {
                let ctinfo = CtInfo::Untracked;
                sink.step(|| Step::Decided { ctinfo });
                return Ok(Tracked { ctinfo, reason: None, attached: Attached::Untracked });
            }
        };
        Ok(self.conntrack.track(packet, hook, template, way.now, sink))
    }

    /// PREROUTING behind conntrack, routing, and where that leads.
    fn arrives<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<Egress, DropCause> {
        self.consult(TableName::Mangle, Hook::PreRouting, buffer, tracked, way, sink)?;
        self.nat(buffer, tracked, Hook::PreRouting, way, sink)?;
        let destination = self.destination(buffer, way, sink);
        if self.network.is_unknown() {
            return Ok(Egress::Forwarded(None));
        }
        match destination {
            Destination::None => Err(DropCause::NoRoute),
            Destination::Local => Ok(Egress::Local),
            Destination::Interface(out) => {
                if Packet::parse(buffer, way.len).is_ok_and(|packet| packet.ttl <= 1) {
                    return Err(DropCause::TtlExceeded);
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
            self.consult(TableName::Mangle, Hook::Forward, buffer, tracked, way, sink)?;
            self.consult(TableName::Filter, Hook::Forward, buffer, tracked, way, sink)?;
        }
        self.departs(buffer, tracked, way, sink)?;
        self.cut(buffer, way, sink)
    }

    /// LOCAL_IN.
    fn delivers<S: Sink>(
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

    /// LOCAL_OUT behind conntrack, and on.
    fn leaves<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<Egress, DropCause> {
        self.consult(TableName::Mangle, Hook::LocalOut, buffer, tracked, way, sink)?;
        self.nat(buffer, tracked, Hook::LocalOut, way, sink)?;
        self.consult(TableName::Filter, Hook::LocalOut, buffer, tracked, way, sink)?;
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
            let carried = (!matches!(tracked.attached, Attached::None)).then(|| tracked.clone());
            *tracked = self.track(&packet, Hook::PreRouting, carried, way, sink)?;
        }
        self.consult(TableName::Mangle, Hook::PreRouting, buffer, tracked, way, sink)?;
        self.nat(buffer, tracked, Hook::PreRouting, way, sink)?;
        self.delivers(buffer, tracked, way, sink)
    }

    /// POSTROUTING.
    fn departs<S: Sink>(
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
    fn cut<S: Sink>(&mut self, buffer: &[u8], way: &mut Way, sink: &mut S) -> Result<(), DropCause> {
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
        let destination = self.network.route(way.l3num, to);
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

    /// A packet as it left: `buffer` is what [`Engine::receive`] or [`Engine::send`] rewrote when it gave `ruling`. A
    /// packet that a helper made longer is not in there, because it has no room for it, and neither is a datagram that came
    /// in fragments.
    #[must_use]
    pub fn departed<'a>(&'a self, ruling: &'a Ruling, buffer: &'a [u8]) -> &'a [u8] {
        left(&self.spare, ruling.resized, ruling.datagram.as_ref().map_or(buffer, |datagram| &datagram.bytes))
    }

    /// The packets that leave by an interface in the place of one: none, itself as [`Engine::departed`] has it, or its
    /// fragments.
    #[must_use]
    pub fn leaving<'a>(&'a self, ruling: &'a Ruling, buffer: &'a [u8]) -> Leaving<'a> {
        let packet = self.departed(ruling, buffer);
        let len = match (&ruling.datagram, ruling.resized) {
            (Some(datagram), None) => datagram.len,
            _ => packet.len(),
        };
        match (ruling.egress, Packet::parse(packet, len)) {
            (Egress::Forwarded(_), Ok(view)) => Leaving::new(view.bytes, view.len, ruling.cut.as_ref()),
            _ => Leaving::nothing(),
        }
    }

    fn confirm<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        let confirm = |engine: &mut Engine, tracked: &mut Tracked, sink: &mut S| {
            confirm::confirm(tracked, &mut engine.conntrack.table, way.now, sink)
        };
        way.resized = self.conclude(buffer, tracked, way, sink, confirm)?;
        Ok(())
    }

    /// A chain of mangle or filter, about a packet that is through conntrack.
    fn consult<S: Sink>(
        &mut self,
        table: TableName,
        hook: Hook,
        buffer: &[u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        if self.rules(way.l3num).table(table).is_none() {
            return Ok(());
        }
        let Ok(packet) = Packet::parse(buffer, way.len) else { return Ok(()) };
        self.ask(table, hook, &packet, Carried::Tracked(tracked), way, sink)
    }

    /// A chain of raw, mangle or filter.
    fn ask<S: Sink>(
        &mut self,
        table: TableName,
        hook: Hook,
        packet: &Packet<'_>,
        carried: Carried<'_>,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        let Engine { conntrack, rules4, rules6, network, .. } = self;
        let rules = match way.l3num {
            L3::V4 => rules4.table(table),
            L3::V6 => rules6.table(table),
        };
        let Some(rules) = rules else { return Ok(()) };
        let interfaces = (network.name(way.in_interface), network.name(way.out_interface));
        let entries = &mut conntrack.table;
        run(rules, packet, Scene { table, hook, interfaces, mark: &mut way.mark, carried, entries }, sink)
    }

    /// What became of a packet that conntrack has seen.
    fn ruling<S: Sink>(
        &mut self,
        hook: Hook,
        tracked: Tracked,
        way: Way,
        ended: Result<Egress, DropCause>,
        sink: &mut S,
    ) -> Ruling {
        let (verdict, egress) = match ended {
            Ok(egress) => (Verdict::Accept, egress),
            Err(cause) => {
                self.vanish(&tracked.attached, sink);
                (Verdict::Drop(cause), Egress::Nowhere)
            }
        };
        let Tracked { ctinfo, reason, attached } = tracked;
        let Way { resized, datagram, cut, .. } = way;
        let resized = if ended.is_ok() { resized } else { None };
        Ruling { hook, ctinfo: Ok(ctinfo), reason, verdict, egress, attached, resized, datagram, cut }
    }

    /// An entry that is not in the table goes with its packet (NEW-02).
    pub(crate) fn vanish<S: Sink>(&mut self, attached: &Attached, sink: &mut S) {
        let Attached::Unconfirmed(own) = attached else { return };
        sink.step(|| Step::EntryVanished);
        if let Some(master) = &own.master {
            self.conntrack.table.end_expected(&own.flow, master);
        }
    }

    fn nat<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        hook: Hook,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        let rules = match way.l3num {
            L3::V4 => &self.rules4.nat,
            L3::V6 => &self.rules6.nat,
        };
        if rules.is_none() {
            return Ok(());
        }
        let mut around = Surroundings {
            rules: rules.as_ref(),
            network: &self.network,
            in_interface: way.in_interface,
            out_interface: way.out_interface,
            mark: way.mark,
            table: &mut self.conntrack.table,
            random: &mut self.conntrack.random,
            now: way.now,
        };
        let linear = translate(buffer, way.len, tracked, hook, &mut around, sink).map_err(DropCause::Nat)?;
        way.linear = way.linear.max(linear);
        Ok(())
    }
}

/// A packet as it is behind its helper: in `buffer`, or in `spare` when it has outgrown that.
fn left<'a>(spare: &'a [u8], resized: Option<Resized>, buffer: &'a [u8]) -> &'a [u8] {
    match resized {
        None => buffer,
        Some(Resized { from, to }) if to > from => spare,
        Some(Resized { to, .. }) => buffer.get(..to).unwrap_or(buffer),
    }
}

/// How much of a received packet must lie in one piece before NAT: what routing looks at (`tcp_v4_early_demux`,
/// `tcp_v6_early_demux`), and the SCTP header where its checksum is verified (`sctp_error`).
fn looked_at_early(packet: &Packet<'_>, verify_checksum: bool) -> usize {
    const TCP_HEADER: usize = 20;
    const SCTP_HEADER: usize = 12;
    let Ok(transport) = packet.transport else { return 0 };
    // In IPv6 only just behind the IP header.
    let direct = packet.l3num == L3::V4 || transport.offset == crate::packet::IPV6_HEADER;
    match transport.protonum {
        proto::TCP if direct => transport.offset + TCP_HEADER,
        proto::SCTP if verify_checksum => transport.offset + SCTP_HEADER,
        _ => 0,
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

impl Entered {
    fn datagram(&mut self) -> Option<&mut Datagram> {
        match self {
            Entered::Ended(ruling) => ruling.datagram.as_deref_mut(),
            Entered::OnItsWay(passage) => passage.way.datagram.as_deref_mut(),
        }
    }
}

/// A packet behind routing and before its last hooks.
#[derive(Clone, Debug)]
pub struct Passage {
    tracked: Tracked,
    way: Way,
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

/// What a packet has on its way besides its bytes and its entry.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) in_interface: Option<u16>,
    pub(crate) out_interface: Option<u16>,
    pub(crate) now: Time,
    pub(crate) l3num: L3,
    pub(crate) len: usize,
    /// The mark that rules gave it (`skb->mark`).
    pub(crate) mark: u32,
    /// What a helper made of its length.
    pub(crate) resized: Option<Resized>,
    /// How many bytes of it had to lie in one piece so far.
    linear: usize,
    /// Where it came in fragments.
    datagram: Option<Box<Datagram>>,
    /// How it leaves in fragments.
    cut: Option<Cut>,
}

impl Way {
    pub(crate) const fn new(packet: &Packet<'_>, in_interface: Option<u16>, now: Time) -> Way {
        Way {
            in_interface,
            out_interface: None,
            now,
            l3num: packet.l3num,
            len: packet.len,
            mark: 0,
            resized: None,
            linear: 0,
            datagram: None,
            cut: None,
        }
    }

    fn outgoing<'a>(&'a self, network: &Network, packet: &'a [u8]) -> Outgoing<'a> {
        let interface = self.out_interface.and_then(|out| network.interface(out));
        Outgoing {
            bytes: packet,
            len: self.len,
            l3num: self.l3num,
            mtu: interface.and_then(|interface| interface.mtu),
            linear: self.linear,
            geometry: self.datagram.as_ref().map(|datagram| &datagram.geometry),
        }
    }

    /// The packet without what pads it.
    fn bytes<'a>(&self, buffer: &'a mut [u8]) -> &'a mut [u8] {
        let end = self.len.min(buffer.len());
        &mut buffer[..end]
    }
}

/// Packets that conntrack must not be asked about.
pub(crate) fn not_tracked(packet: &Packet<'_>) -> Option<Unseen> {
    // One that was to be gathered is not here, and those of IPv6 that are not to be are tracked as they are.
    if let Some(fragment) = packet.fragment
        && packet.l3num == L3::V4
    {
        return Some(Unseen::NotGathered(fragment));
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
    use crate::tuple::gre_version;
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
