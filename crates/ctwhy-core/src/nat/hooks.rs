//! What NAT does to a packet at each of its four hooks (`nf_nat_inet_fn`; catalogue D.1).

use super::manip::{Place, rewrite};
use super::options::Options;
use super::range::Range;
use super::rules::{Ruleset, Target};
use super::setup::Choice;
use super::{Manip, NatDrop, beyond, quoted};
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
    /// Where to do otherwise than the kernel.
    pub(crate) options: &'a Options,
    /// What the flow of the packet was bound to when it was seen last.
    pub(crate) remembered: Option<&'a Binding>,
    pub(crate) now: Time,
}

/// What NAT did to a packet at one hook.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Translated {
    /// How many bytes of it had to lie in one piece for that.
    pub(crate) linear: usize,
    /// Was it rewritten?
    pub(crate) rewritten: bool,
}

/// `nf_nat_inet_fn`: decides where nothing was decided yet, then rewrites.
pub(crate) fn translate<S: Sink>(
    buffer: &mut [u8],
    len: usize,
    tracked: &mut Tracked,
    hook: Hook,
    around: &mut Surroundings<'_>,
    sink: &mut S,
) -> Result<Translated, NatDrop> {
    let untouched = Translated::default();
    let Some(manip) = hook.manip() else { return Ok(untouched) };
    let Some(direction) = tracked.ctinfo.direction() else {
        if around.options.drop_source_quench && is_source_quench(buffer, len) {
            return Err(NatDrop::SourceQuench);
        }
        sink.step(|| Step::NatBypassed);
        return Ok(untouched);
    };
    let related = matches!(tracked.ctinfo, CtInfo::Related | CtInfo::RelatedReply);
    if related && let Some(at) = icmp_message(buffer, len) {
        if around.options.drop_source_quench && is_source_quench(buffer, len) {
            return Err(NatDrop::SourceQuench);
        }
        let Some(binding) = Binding::of(tracked, direction, around.table, around.remembered) else {
            return Ok(untouched);
        };
        return quoted::translate_error(buffer, len, at, (&binding, direction), (hook, manip), around.options, sink);
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
    let Some(binding) = Binding::of(tracked, direction, around.table, around.remembered) else { return Ok(untouched) };
    if manip.applies(binding.status, direction)
        && let Some(target) = binding.other.invert()
    {
        let linear = rewrite(buffer, &Place { ip: 0, len, part: Part::Outer }, &target, manip, sink)?;
        return Ok(Translated { linear, rewritten: true });
    }
    Ok(untouched)
}

/// Is it the error that RFC 6633 deprecates?
fn is_source_quench(buffer: &[u8], len: usize) -> bool {
    const SOURCE_QUENCH: u8 = 4;
    buffer.first().is_some_and(|first| first >> 4 == 4)
        && icmp_message(buffer, len).is_some_and(|at| buffer.get(at) == Some(&SOURCE_QUENCH))
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(super) status: Status,
    /// The tuple of the direction that the packet does not travel in.
    pub(super) other: Tuple,
}

impl Binding {
    /// Of the entry of a packet, for a packet that somebody else carries on: the entry may be gone when it is back.
    pub(crate) fn remember(tracked: &Tracked, table: &Table) -> Option<Binding> {
        match tracked.attached {
            Attached::Entry(_) => Binding::of(tracked, tracked.ctinfo.direction()?, table, None),
            _ => None,
        }
    }

    /// Of the flow of a packet that travels in `direction`; `None` where it has none. That of an entry that is gone is
    /// `remembered`.
    fn of(tracked: &Tracked, direction: Direction, table: &Table, remembered: Option<&Binding>) -> Option<Binding> {
        match &tracked.attached {
            Attached::Entry(id) => match (table.status(*id), table.tuple(*id, direction.opposite())) {
                (Some(status), Some(other)) => Some(Binding { status, other }),
                _ => remembered.copied(),
            },
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
    let mut asked = ask(&subject, &current, (hook, manip), around.out_interface, around, sink)?;
    if asked == Asked::Silent && (around.options.mapping.is_some() || around.options.hairpin) {
        asked = beyond::unruled(&subject, flow, &current, (hook, manip), around, sink)?;
    }
    let null = match manip {
        Manip::Src => Range::address(current.src),
        Manip::Dst => Range::address(current.dst),
    };
    let (range, masquerade, options) = match asked {
        Asked::Bind { range, masquerade } => (range, masquerade, around.options),
        Asked::Silent | Asked::Leave => (null, false, &Options::KERNEL),
    };
    let Surroundings { table, random, now, .. } = around;
    Choice { table, random, options, now: *now, sink }.bind(flow, &range, manip)?;
    if masquerade {
        flow.masquerade_interface = around.out_interface;
    }
    Ok(())
}

/// What a chain says about one side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// No rule of it matched.
    Silent,
    /// A rule says that nothing is to be changed.
    Leave,
    /// A rule says what it may become.
    Bind { range: Range, masquerade: bool },
}

/// Runs the chain of the hook about a packet that leaves by `out`.
pub(super) fn ask<S: Sink>(
    subject: &Subject<'_>,
    current: &Tuple,
    (hook, manip): (Hook, Manip),
    out: Option<u16>,
    around: &Surroundings<'_>,
    sink: &mut S,
) -> Result<Asked, NatDrop> {
    let Some(rules) = around.rules else { return Ok(Asked::Silent) };
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
        return if rules.chain(hook).drops { Err(NatDrop::Rule { line: None }) } else { Ok(Asked::Silent) };
    };
    let only = |address: Option<Addr>| address.ok_or(NatDrop::NoAddress).map(|address| Some((address, address)));
    let bind = |range| Asked::Bind { range, masquerade: false };
    match target {
        Target::Drop => Err(NatDrop::Rule { line: Some(line) }),
        Target::Snat(range) | Target::Dnat(range) => Ok(bind(range)),
        Target::Netmap(range) => {
            let side = if manip == Manip::Src { current.src } else { current.dst };
            Ok(bind(range.netmap(side)))
        }
        // A client that does not know its address yet asks for one (NAT-SET-08).
        Target::Masquerade(_) if (current.l3num, current.src) == (L3::V4, Addr([0; 16])) => Ok(Asked::Leave),
        Target::Masquerade(range) => {
            let source = out.and_then(|out| around.network.source_on(out, current.l3num, current.dst));
            Ok(Asked::Bind { range: Range { addresses: only(source)?, ..range }, masquerade: true })
        }
        Target::Redirect(range) => {
            let own = match hook {
                Hook::LocalOut => Some(Network::loopback(current.l3num)),
                _ => around.in_interface.and_then(|i| around.network.redirected_to(i, current.l3num)),
            };
            Ok(bind(Range { addresses: only(own)?, ..range }))
        }
        Target::Accept | Target::Return | Target::Jump(_) | Target::Goto(_) | Target::Log => Ok(Asked::Leave),
    }
}
