//! One packet at the conntrack hook: `nf_conntrack_in` (catalogue A.3).

use alloc::boxed::Box;

use crate::conn::{Flow, Protocol, Unconfirmed};
use crate::direction::{CtInfo, Direction};
use crate::event::Causes;
use crate::extension::Master;
use crate::helper::follow::follow;
use crate::helper::{Helper, HelperStep};
use crate::hook::Hook;
use crate::nat::options::Options;
use crate::packet::{Packet, Transport};
use crate::random::Random;
use crate::reason::Reason;
use crate::related::{IcmpKind, Search};
use crate::status::Status;
use crate::sysctl::Sysctls;
use crate::table::{EntryId, ProtocolMut, Table, TableFull};
use crate::template::Template;
use crate::time::Time;
use crate::trace::{Sink, Step, TimeoutRule, Unchecked};
use crate::track::gre::Gre;
use crate::track::sctp::{self, Sctp};
use crate::track::tcp::{self, Tcp};
use crate::track::{Context, Outcome, icmp, icmpv6, udp, udplite};
use crate::tuple::{Tuple, proto, told_apart_by};

/// What is attached to a packet on its way through the hooks (`skb->_nfct`).
#[derive(Clone, Debug)]
pub enum Attached {
    /// No entry: the packet is INVALID.
    None,
    /// The packet is exempt.
    Untracked,
    /// An entry in the table.
    Entry(EntryId),
    /// An entry of the packet's own. Boxed, so that the packets of known flows, which are most, carry little.
    Unconfirmed(Box<Unconfirmed>),
}

/// A packet behind conntrack.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// What conntrack calls it.
    pub ctinfo: CtInfo,
    /// Why, for INVALID.
    pub reason: Option<Reason>,
    /// Its entry.
    pub attached: Attached,
}

impl Tracked {
    /// A packet that conntrack has not seen yet looks INVALID.
    pub(crate) const fn not_yet() -> Tracked {
        Tracked { ctinfo: CtInfo::Invalid, reason: None, attached: Attached::None }
    }
}

/// What a packet is called and what is attached to it, where it is not INVALID. Less to carry than [`Tracked`].
type Accepted = (CtInfo, Attached);

/// Why a packet gets no entry.
enum Refusal {
    /// The handler of ICMP errors refused it.
    Error(Reason),
    Invalid(Reason),
    Full(TableFull),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal::Invalid(reason)
    }
}

/// Conntrack proper: the table and the knobs.
#[derive(Clone, Debug, Default)]
pub struct Conntrack {
    /// All confirmed entries.
    pub table: Table,
    /// The knobs.
    pub sysctls: Sysctls,
    /// Where NAT draws from.
    pub(crate) random: Random,
    /// Where NAT does otherwise than the kernel.
    pub(crate) nat: Options,
}

impl Conntrack {
    /// `nf_conntrack_in`: finds or creates the entry of a packet and asks the tracker.
    ///
    /// Fragments must have been reassembled. `template` is what the raw table said.
    ///
    /// # Errors
    /// [`TableFull`] when a flow would begin and there is no room for it: the packet is dropped.
    pub fn track<S: Sink>(
        &mut self,
        packet: &Packet<'_>,
        hook: Hook,
        template: Template,
        now: Time,
        sink: &mut S,
    ) -> Result<Tracked, TableFull> {
        let mut tracked = Tracked::not_yet();
        self.track_into(&mut tracked, packet, hook, &template, now, sink)?;
        Ok(tracked)
    }

    /// [`Conntrack::track`], in the place of the packet's that it stays in.
    pub(crate) fn track_into<S: Sink>(
        &mut self,
        tracked: &mut Tracked,
        packet: &Packet<'_>,
        hook: Hook,
        template: &Template,
        now: Time,
        sink: &mut S,
    ) -> Result<(), TableFull> {
        let (reason, counter) = match self.judge(packet, hook, template, now, sink) {
            Ok((ctinfo, attached)) => {
                sink.step(|| Step::Decided { ctinfo });
                (tracked.ctinfo, tracked.attached, tracked.reason) = (ctinfo, attached, None);
                return Ok(());
            }
            Err(Refusal::Full(full)) => return Err(full),
            Err(Refusal::Error(reason)) => (reason, &mut self.table.counters.icmp_error),
            Err(Refusal::Invalid(reason)) => (reason, &mut self.table.counters.invalid),
        };
        *counter += 1;
        *tracked = Tracked { reason: Some(reason), ..Tracked::not_yet() };
        Ok(())
    }

    fn judge<S: Sink>(
        &mut self,
        packet: &Packet<'_>,
        hook: Hook,
        template: &Template,
        now: Time,
        sink: &mut S,
    ) -> Result<Accepted, Refusal> {
        sink.step(|| Step::Arrived { hook, bytes: packet.len });
        let transport = packet.transport.map_err(Reason::NoTransport)?;
        let unchecked = match hook {
            _ if !self.sysctls.checksum => Some(Unchecked::Switched),
            Hook::PreRouting if packet.checksum_trusted => Some(Unchecked::Trusted),
            Hook::PreRouting if packet.is_cut() => Some(Unchecked::Cut),
            Hook::PreRouting => None,
            _ => Some(Unchecked::Hook),
        };
        if let Some(why) = unchecked {
            sink.step(|| Step::ChecksumUnchecked(why));
        }
        let verify_checksum = unchecked.is_none();
        let kind = match transport.protonum {
            proto::ICMP | proto::ICMPV6 => {
                let cx = Context { sysctls: &self.sysctls, kernel: self.table.kernel, verify_checksum };
                let search = Search { packet, table: &mut self.table, zone: template.zone, now, cx: &cx, sink };
                search.classify(transport).map_err(Refusal::Error)?
            }
            _ => IcmpKind::Query,
        };
        self.decide(kind, (packet, template), transport, verify_checksum, now, sink)
    }

    fn decide<S: Sink>(
        &mut self,
        kind: IcmpKind,
        (packet, template): (&Packet<'_>, &Template),
        transport: Transport,
        verify_checksum: bool,
        now: Time,
        sink: &mut S,
    ) -> Result<Accepted, Refusal> {
        match kind {
            IcmpKind::Query => {}
            IcmpKind::Untracked => {
                let icmp_type = packet.bytes.get(transport.offset).copied().unwrap_or(0);
                sink.step(|| Step::Exempt { icmp_type });
                return Ok((CtInfo::Untracked, Attached::Untracked));
            }
            IcmpKind::Related { id, direction } => {
                return Ok((CtInfo::related(direction), Attached::Entry(id)));
            }
        }
        let l4 = packet.bytes.get(transport.offset..).unwrap_or(&[]);
        let (src_u, dst_u) = told_apart_by(transport.protonum, l4).map_err(Reason::no_tuple)?;
        let Packet { src, dst, l3num, .. } = *packet;
        let mut tuple = Tuple { src, dst, src_u, dst_u, l3num, protonum: transport.protonum };
        self.table.extensions.keymap.complete(&mut tuple, l4);
        sink.step(|| Step::TupleRead { tuple });
        // A reopened TCP connection is looked up once more; the second time its old entry is gone.
        loop {
            match self.table.lookup(&tuple, template.zone, now, sink) {
                None => return self.begin((packet, template), transport, tuple, verify_checksum, now, sink),
                Some((id, direction)) => {
                    match self.continue_flow(packet, transport, (id, direction), verify_checksum, now, sink)? {
                        Some(accepted) => return Ok(accepted),
                        None => {
                            let old = self.table.delete(id, now, sink).map_or(0, |entry| entry.id);
                            sink.step(|| Step::Reopened { id: old });
                        }
                    }
                }
            }
        }
    }

    /// `init_conntrack` and the tracker's say on the first packet of a flow.
    #[inline(never)]
    fn begin<S: Sink>(
        &mut self,
        (packet, template): (&Packet<'_>, &Template),
        transport: Transport,
        tuple: Tuple,
        verify_checksum: bool,
        now: Time,
        sink: &mut S,
    ) -> Result<Accepted, Refusal> {
        let reply = tuple.invert().ok_or(Reason::NotInvertible { tuple })?;
        let limit = self.sysctls.table_limit;
        self.table.make_room(limit, (&tuple, template.zone), now, sink).map_err(Refusal::Full)?;
        sink.step(|| Step::Created { reply });
        let mut flow = Flow {
            tuples: [tuple, reply],
            zone: template.zone,
            status: Status::default(),
            mark: 0,
            counters: self.sysctls.acct.then(Default::default),
            protocol: Protocol::Stateless,
            masquerade_interface: None,
            events: template.events,
            pending: Causes::default(),
            helper: None,
            extension: None,
        };
        let master = self.expected(&mut flow, now, sink);
        if master.is_none() {
            flow.helper = helper_of(template, &tuple, sink);
            if flow.helper.is_some() {
                flow.status |= Status::HELPER;
            }
        }
        let cx = Context { sysctls: &self.sysctls, kernel: self.table.kernel, verify_checksum };
        let l4 = packet.l4(transport.offset);
        let status = &mut flow.status;
        let (protocol, outcome) = match transport.protonum {
            proto::TCP => {
                let segment = tcp::check(&l4, &cx)?;
                let mut state = Tcp::new(&segment, &cx, sink)?;
                let outcome = state.packet(&segment, Direction::Original, *status, 0, &cx, sink);
                (Protocol::Tcp(state), outcome)
            }
            proto::UDP => {
                udp::check(&l4, &cx, sink)?;
                let stream_from = now.plus_secs(udp::STREAM_AFTER_SECS);
                (Protocol::Udp { stream_from }, udp::packet(*status, stream_from, now, &cx, sink))
            }
            proto::UDPLITE => {
                udplite::check(&l4, &cx, sink)?;
                (Protocol::Udplite, udplite::packet(*status, &cx, sink))
            }
            proto::SCTP => {
                let sctp_packet = sctp::check(&l4, &cx, sink)?;
                let mut state = Sctp::new(&sctp_packet, sink)?;
                let outcome = state.packet(&sctp_packet, Direction::Original, status, &cx, sink);
                (Protocol::Sctp(state), outcome)
            }
            proto::GRE => {
                let state = Gre::new(cx.sysctls);
                (Protocol::Gre(state), state.packet(*status, sink))
            }
            proto::ICMP | proto::ICMPV6 => (Protocol::Stateless, icmp_packet(packet, &tuple, &cx, sink)?),
            _ => (Protocol::Stateless, generic_packet(&cx, sink)),
        };
        flow.protocol = protocol;
        if flow.protocol.state().is_some() {
            flow.pending |= Causes::PROTOINFO;
        }
        let timeout = match outcome {
            Outcome::Accept { timeout, .. } => {
                flow.count(Direction::Original, packet.len);
                timeout
            }
            Outcome::Invalid { reason, .. } => return Err(reason.into()),
            Outcome::Ignore | Outcome::Kill | Outcome::Reopen => 0,
        };
        let ctinfo = if master.is_some() { CtInfo::Related } else { CtInfo::New };
        let attached = Attached::Unconfirmed(Box::new(Unconfirmed { flow, timeout, master }));
        Ok((ctinfo, attached))
    }

    /// `nf_ct_find_expectation`, and what becomes of the flow that was expected (EXP-04, EXP-05).
    fn expected<S: Sink>(&mut self, flow: &mut Flow, now: Time, sink: &mut S) -> Option<Master> {
        let table = &mut self.table;
        let found = table.expectations.find(flow.tuple(Direction::Original), flow.zone.id, now).copied()?;
        // The other end cannot know of what a master that is not in the table yet expects.
        let id = table.extensions.get(found.master)?.entry?;
        let of_master = table.get(id)?;
        if found.flags.inactive {
            return None;
        }
        let tuple = *of_master.flow.tuple(Direction::Original);
        let master = Master { id, number: of_master.id, tuple };
        flow.status |= Status::EXPECTED;
        flow.mark = of_master.flow.mark;
        if !found.flags.permanent {
            table.unexpect(&found);
        }
        table.counters.expect_new += 1;
        sink.step(|| Step::Expected { master: master.number, helper: found.helper });
        follow(flow, &found, &master, (table, now), &mut self.random, sink);
        Some(master)
    }

    /// `resolve_normal_ct` for a hit, and the tracker's say. `None` asks for another look-up (`-NF_REPEAT`).
    fn continue_flow<S: Sink>(
        &mut self,
        packet: &Packet<'_>,
        transport: Transport,
        (id, direction): (EntryId, Direction),
        verify_checksum: bool,
        now: Time,
        sink: &mut S,
    ) -> Result<Option<Accepted>, Reason> {
        let cx = Context { sysctls: &self.sysctls, kernel: self.table.kernel, verify_checksum };
        let query = match transport.protonum {
            proto::ICMP | proto::ICMPV6 => self.table.tuple(id, Direction::Original),
            _ => None,
        };
        let Some((mut entry, extensions)) = self.table.get_mut_extended(id) else { return Ok(None) };
        let number = entry.id;
        sink.step(|| Step::Hit { id: number, direction });
        let status = *entry.status;
        let ctinfo = match direction {
            Direction::Reply => CtInfo::EstablishedReply,
            Direction::Original if status.contains(Status::SEEN_REPLY) => CtInfo::Established,
            Direction::Original if status.contains(Status::EXPECTED) => CtInfo::Related,
            Direction::Original => CtInfo::New,
        };
        let l4 = packet.l4(transport.offset);
        let state = entry.protocol.state();
        let expires = *entry.expires;
        let outcome = match &mut entry.protocol {
            ProtocolMut::Tcp(state) => {
                let mut segment = tcp::check(&l4, &cx)?;
                if let Some(extension) = entry.extension {
                    let last = segment.ack.wrapping_sub(1);
                    segment.ack_offset = extensions.seq_offset(extension, direction.opposite(), last);
                }
                state.packet(&segment, direction, status, expires.secs_since(now), &cx, sink)
            }
            ProtocolMut::Udp { stream_from } => {
                udp::check(&l4, &cx, sink)?;
                udp::packet(status, *stream_from, now, &cx, sink)
            }
            ProtocolMut::Udplite => {
                udplite::check(&l4, &cx, sink)?;
                udplite::packet(status, &cx, sink)
            }
            ProtocolMut::Sctp(state) => {
                let sctp_packet = sctp::check(&l4, &cx, sink)?;
                state.packet(&sctp_packet, direction, entry.status, &cx, sink)
            }
            ProtocolMut::Gre(state) => state.packet(status, sink),
            ProtocolMut::Stateless => match &query {
                Some(original) => icmp_packet(packet, original, &cx, sink)?,
                None => generic_packet(&cx, sink),
            },
        };
        if entry.protocol.state() != state {
            *entry.pending |= Causes::PROTOINFO;
        }
        match outcome {
            Outcome::Accept { timeout, assured, resync } => {
                if resync {
                    *entry.pending |= Causes::PROTOINFO;
                }
                if !status.contains(Status::FIXED_TIMEOUT) {
                    *entry.expires = now.plus_secs(timeout);
                }
                entry.count(direction, packet.len);
                // An entry of a clash is soon over, and may always be dropped early.
                if assured && !status.contains(Status::NAT_CLASH) {
                    *entry.status |= Status::ASSURED;
                    sink.step(|| Step::Assured);
                }
            }
            Outcome::Ignore => sink.step(|| Step::NotRefreshed),
            Outcome::Kill => {
                entry.count(direction, packet.len);
                sink.step(|| Step::Killed { id: number });
                return Ok(self.kill(id, direction, now, sink).map(|attached| (ctinfo, attached)));
            }
            Outcome::Reopen => return Ok(None),
            Outcome::Invalid { reason, lower_timeout } => {
                if let Some(seconds) = lower_timeout {
                    *entry.expires = now.plus_secs(seconds);
                }
                return Err(reason);
            }
        }
        if !status.contains(Status::ASSURED) && entry.status.contains(Status::ASSURED) {
            *entry.pending |= Causes::ASSURED;
        }
        if direction == Direction::Reply && !status.contains(Status::SEEN_REPLY) {
            *entry.status |= Status::SEEN_REPLY;
            *entry.pending |= Causes::REPLY;
            sink.step(|| Step::SeenReply);
        }
        Ok(Some((ctinfo, Attached::Entry(id))))
    }

    /// `nf_ct_kill_acct`: the packet keeps the entry that it ended, and nobody else finds it any more.
    fn kill<S: Sink>(&mut self, id: EntryId, direction: Direction, now: Time, sink: &mut S) -> Option<Attached> {
        let mut flow = self.table.delete(id, now, sink)?.flow;
        flow.status |= Status::DYING;
        if direction == Direction::Reply {
            flow.status |= Status::SEEN_REPLY;
            sink.step(|| Step::SeenReply);
        }
        Some(Attached::Unconfirmed(Box::new(Unconfirmed { flow, timeout: 0, master: None })))
    }
}

/// `__nf_ct_try_assign_helper`: the helper that the template asks for (EXP-02).
fn helper_of<S: Sink>(template: &Template, tuple: &Tuple, sink: &mut S) -> Option<Helper> {
    let name = template.helper?;
    let helper = Helper::find(name.as_str(), tuple.l3num, tuple.protonum);
    sink.step(|| Step::Helper(helper.map_or(HelperStep::Unknown(name), HelperStep::Attached)));
    helper
}

/// `nf_conntrack_icmp_packet`, `nf_conntrack_icmpv6_packet`.
fn icmp_packet<S: Sink>(
    packet: &Packet<'_>,
    original: &Tuple,
    cx: &Context<'_>,
    sink: &mut S,
) -> Result<Outcome, Reason> {
    use crate::tuple::L3;
    let timeout = match (packet.l3num, original.protonum) {
        (L3::V4, proto::ICMP) => {
            icmp::may_begin(original)?;
            cx.sysctls.icmp_timeout
        }
        (L3::V6, proto::ICMPV6) => {
            icmpv6::may_begin(original)?;
            cx.sysctls.icmpv6_timeout
        }
        // ICMP in IPv6 and ICMPv6 in IPv4 (ICMP6-X-01).
        _ => return Err(Reason::IcmpUnsolicited { tuple: *original }),
    };
    sink.step(|| Step::Timeout { rule: TimeoutRule::Icmp, seconds: timeout });
    Ok(Outcome::Accept { timeout, assured: false, resync: false })
}

/// A protocol without a tracker of its own (GENERIC-01).
fn generic_packet<S: Sink>(cx: &Context<'_>, sink: &mut S) -> Outcome {
    let timeout = cx.sysctls.generic_timeout;
    sink.step(|| Step::Timeout { rule: TimeoutRule::Generic, seconds: timeout });
    Outcome::Accept { timeout, assured: false, resync: false }
}
