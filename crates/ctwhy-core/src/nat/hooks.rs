//! What NAT does to a packet at each of its four hooks (`nf_nat_inet_fn`; catalogue D.1).

use super::manip::{Place, rewrite};
use super::range::Range;
use super::rules::{Ruleset, Target};
use super::setup::Choice;
use super::{Manip, NatDrop, quoted};
use crate::conntrack::{Attached, Tracked};
use crate::direction::{CtInfo, Direction};
use crate::hook::Hook;
use crate::network::Network;
use crate::packet::Packet;
use crate::random::Random;
use crate::rules::Course;
use crate::rules::matches::Subject;
use crate::rules::run::seen;
use crate::status::Status;
use crate::table::Table;
use crate::time::Time;
use crate::trace::{Part, Sink, Step};
use crate::tuple::{Addr, L3, Tuple, proto};

/// What NAT needs besides the packet.
pub(crate) struct Surroundings<'a> {
    pub(crate) rules: Option<&'a Ruleset>,
    pub(crate) network: &'a Network,
    pub(crate) in_interface: Option<u16>,
    pub(crate) out_interface: Option<u16>,
    pub(crate) mark: u32,
    pub(crate) table: &'a mut Table,
    pub(crate) random: &'a mut Random,
    pub(crate) now: Time,
}

/// `nf_nat_inet_fn`: decides where nothing was decided yet, then rewrites. Returns how many bytes of the packet had to lie
/// in one piece for that.
pub(crate) fn translate<S: Sink>(
    buffer: &mut [u8],
    len: usize,
    tracked: &mut Tracked,
    hook: Hook,
    around: &mut Surroundings<'_>,
    sink: &mut S,
) -> Result<usize, NatDrop> {
    let Some(manip) = hook.manip() else { return Ok(0) };
    let Some(direction) = tracked.ctinfo.direction() else {
        sink.step(|| Step::NatBypassed);
        return Ok(0);
    };
    let related = matches!(tracked.ctinfo, CtInfo::Related | CtInfo::RelatedReply);
    if related && let Some(at) = icmp_message(buffer, len) {
        let Some(binding) = Binding::of(tracked, direction, around.table) else { return Ok(0) };
        return quoted::translate_error(buffer, len, at, (&binding, direction), (hook, manip), sink);
    }
    if related || tracked.ctinfo == CtInfo::New {
        decide(tracked, (buffer, len), (hook, manip), around, sink)?;
    }
    if interface_changed(tracked, hook, around) {
        if let Attached::Entry(id) = tracked.attached {
            around.table.delete(id, around.now, sink);
        }
        return Err(NatDrop::InterfaceChanged);
    }
    let Some(binding) = Binding::of(tracked, direction, around.table) else { return Ok(0) };
    if manip.applies(binding.status, direction)
        && let Some(target) = binding.other.invert()
    {
        return rewrite(buffer, &Place { ip: 0, len, part: Part::Outer }, &target, manip, sink);
    }
    Ok(0)
}

/// Where the ICMP message of a packet starts, or the ICMPv6 one.
fn icmp_message(buffer: &[u8], len: usize) -> Option<usize> {
    let packet = Packet::parse(buffer, len).ok()?;
    let transport = packet.transport.ok()?;
    let icmp = match packet.l3num {
        L3::V4 => proto::ICMP,
        L3::V6 => proto::ICMPV6,
    };
    (transport.protonum == icmp).then_some(transport.offset)
}

/// What translating a packet takes of its flow.
pub(super) struct Binding {
    pub(super) status: Status,
    /// The tuple of the direction that the packet does not travel in.
    pub(super) other: Tuple,
}

impl Binding {
    /// Of the flow of a packet that travels in `direction`; `None` where it has none.
    fn of(tracked: &Tracked, direction: Direction, table: &Table) -> Option<Binding> {
        match &tracked.attached {
            Attached::Entry(id) => {
                Some(Binding { status: table.status(*id)?, other: table.tuple(*id, direction.opposite())? })
            }
            Attached::Unconfirmed(own) => {
                Some(Binding { status: own.flow.status, other: *own.flow.tuple(direction.opposite()) })
            }
            Attached::None | Attached::Untracked => None,
        }
    }
}

/// `nf_nat_oif_changed`: a masqueraded flow must not leave by another interface (NAT-SET-09).
fn interface_changed(tracked: &Tracked, hook: Hook, around: &Surroundings<'_>) -> bool {
    if hook != Hook::PostRouting || tracked.ctinfo.direction() != Some(Direction::Original) {
        return false;
    }
    let remembered = match &tracked.attached {
        Attached::Entry(id) => around.table.masquerade_interface(*id),
        Attached::Unconfirmed(own) => own.flow.masquerade_interface,
        Attached::None | Attached::Untracked => None,
    };
    remembered.is_some_and(|remembered| around.out_interface.is_some_and(|out| out != remembered))
}

/// Asks the rules about a flow whose binding on this side is open; without a matching rule the binding is null.
fn decide<S: Sink>(
    tracked: &mut Tracked,
    (buffer, len): (&[u8], usize),
    (hook, manip): (Hook, Manip),
    around: &mut Surroundings<'_>,
    sink: &mut S,
) -> Result<(), NatDrop> {
    let seen = seen(tracked, around.table);
    let Attached::Unconfirmed(own) = &mut tracked.attached else {
        // Once confirmed nothing changes, and a flow older than the nat chains is never bound (NAT-SET-03).
        sink.step(|| Step::NatKept { manip });
        return Ok(());
    };
    let flow = &mut own.flow;
    if flow.status.contains(manip.done()) || flow.status.contains(Status::CONFIRMED) {
        sink.step(|| Step::NatKept { manip });
        return Ok(());
    }
    let Some(current) = flow.tuple(Direction::Reply).invert() else { return Ok(()) };
    let Ok(packet) = Packet::parse(buffer, len) else { return Ok(()) };
    let interfaces = (around.network.name(around.in_interface), around.network.name(around.out_interface));
    let subject = Subject { packet: &packet, interfaces, mark: around.mark, seen };
    let bound = matching_range(&subject, &current, (hook, manip), around, sink)?;
    let null = match manip {
        Manip::Src => Range::address(current.src),
        Manip::Dst => Range::address(current.dst),
    };
    let (range, masquerade) = bound.unwrap_or((null, false));
    let mut choice = Choice { table: &mut *around.table, random: &mut *around.random, now: around.now, sink };
    choice.bind(flow, &range, manip);
    if masquerade {
        flow.masquerade_interface = around.out_interface;
    }
    Ok(())
}

/// Runs the chain of the hook: the range of the rule that matched, and whether it masquerades.
fn matching_range<S: Sink>(
    subject: &Subject<'_>,
    current: &Tuple,
    (hook, manip): (Hook, Manip),
    around: &Surroundings<'_>,
    sink: &mut S,
) -> Result<Option<(Range, bool)>, NatDrop> {
    let Some(rules) = around.rules else { return Ok(None) };
    let mut decided = None;
    rules.walk(hook, |rule| {
        if !rule.matches.matches(subject) {
            return Course::Next;
        }
        let course = rule.target.course();
        if course == Course::End {
            decided = Some((rule.line, rule.target));
        }
        course
    });
    sink.step(|| Step::NatAsked { hook, manip, line: decided.map(|(line, _)| line) });
    let Some((line, target)) = decided else {
        return if rules.chain(hook).drops { Err(NatDrop::Rule { line: None }) } else { Ok(None) };
    };
    let only = |address: Option<Addr>| address.ok_or(NatDrop::NoAddress).map(|address| Some((address, address)));
    match target {
        Target::Drop => Err(NatDrop::Rule { line: Some(line) }),
        Target::Snat(range) | Target::Dnat(range) => Ok(Some((range, false))),
        Target::Netmap(range) => {
            let side = if manip == Manip::Src { current.src } else { current.dst };
            Ok(Some((range.netmap(side), false)))
        }
        // A client that does not know its address yet asks for one (NAT-SET-08).
        Target::Masquerade(_) if (current.l3num, current.src) == (L3::V4, Addr([0; 16])) => Ok(None),
        Target::Masquerade(range) => {
            let out = around.out_interface;
            let source = out.and_then(|out| around.network.source_on(out, current.l3num, current.dst));
            Ok(Some((Range { addresses: only(source)?, ..range }, true)))
        }
        Target::Redirect(range) => {
            let own = match hook {
                Hook::LocalOut => Some(Network::loopback(current.l3num)),
                _ => around.in_interface.and_then(|i| around.network.redirected_to(i, current.l3num)),
            };
            Ok(Some((Range { addresses: only(own)?, ..range }, false)))
        }
        Target::Accept | Target::Return | Target::Jump(_) | Target::Goto(_) | Target::Log => Ok(None),
    }
}
