//! What NAT does to a packet at each of its four hooks (`nf_nat_inet_fn`; catalogue D.1).

use super::manip::{Place, rewrite};
use super::range::Range;
use super::rules::{Ruleset, Subject, Target};
use super::{Manip, NatDrop, quoted, setup};
use crate::conn::Flow;
use crate::conntrack::{Attached, Tracked};
use crate::direction::{CtInfo, Direction};
use crate::hook::Hook;
use crate::network::Network;
use crate::packet::Packet;
use crate::random::Random;
use crate::status::Status;
use crate::table::Table;
use crate::time::Time;
use crate::trace::{Part, Sink, Step};
use crate::tuple::{L3, Tuple, proto};

/// What NAT needs besides the packet.
pub(crate) struct Surroundings<'a> {
    pub(crate) rules: Option<&'a Ruleset>,
    pub(crate) network: &'a Network,
    pub(crate) in_interface: Option<u16>,
    pub(crate) out_interface: Option<u16>,
    pub(crate) table: &'a mut Table,
    pub(crate) random: &'a mut Random,
    pub(crate) now: Time,
}

/// `nf_nat_inet_fn`: decides where nothing was decided yet, then rewrites.
pub(crate) fn translate<S: Sink>(
    buffer: &mut [u8],
    len: usize,
    tracked: &mut Tracked,
    hook: Hook,
    around: &mut Surroundings<'_>,
    sink: &mut S,
) -> Result<(), NatDrop> {
    let Some(manip) = hook.manip() else { return Ok(()) };
    let Some(direction) = tracked.ctinfo.direction() else {
        sink.step(|| Step::NatBypassed);
        return Ok(());
    };
    let related = matches!(tracked.ctinfo, CtInfo::Related | CtInfo::RelatedReply);
    let packet = Packet::parse(buffer, len).ok();
    let transport = packet.and_then(|packet| packet.transport.ok());
    let icmp_error = match (packet.map(|p| p.l3num), transport) {
        (Some(L3::V4), Some(t)) if t.protonum == proto::ICMP => Some(t.offset),
        (Some(L3::V6), Some(t)) if t.protonum == proto::ICMPV6 => Some(t.offset),
        _ => None,
    };
    if related && let Some(at) = icmp_error {
        let Some(flow) = flow_of(tracked, around.table) else { return Ok(()) };
        return quoted::translate_error(buffer, len, at, (&flow, direction), (hook, manip), sink);
    }
    if related || tracked.ctinfo == CtInfo::New {
        decide(tracked, hook, manip, around, sink)?;
    }
    let Some(flow) = flow_of(tracked, around.table) else { return Ok(()) };
    if interface_changed(&flow, direction, hook, around.out_interface) {
        if let Attached::Entry(id) = tracked.attached {
            around.table.delete(id, around.now, sink);
        }
        return Err(NatDrop::InterfaceChanged);
    }
    if manip.applies(flow.status, direction)
        && let Some(target) = flow.tuple(direction.opposite()).invert()
    {
        rewrite(buffer, &Place { ip: 0, len, part: Part::Outer }, &target, manip, sink)?;
    }
    Ok(())
}

/// The flow of a packet, wherever it is.
fn flow_of(tracked: &Tracked, table: &Table) -> Option<Flow> {
    match &tracked.attached {
        Attached::Entry(id) => table.get(*id).map(|entry| entry.flow),
        Attached::Unconfirmed(own) => Some(own.flow),
        Attached::None | Attached::Untracked => None,
    }
}

/// `nf_nat_oif_changed`: a masqueraded flow must not leave by another interface (NAT-SET-09).
fn interface_changed(flow: &Flow, direction: Direction, hook: Hook, out: Option<u16>) -> bool {
    hook == Hook::PostRouting
        && direction == Direction::Original
        && flow.masquerade_interface.is_some_and(|remembered| out.is_some_and(|out| out != remembered))
}

/// Asks the rules about a flow whose binding on this side is open; without a matching rule the binding is null.
fn decide<S: Sink>(
    tracked: &mut Tracked,
    hook: Hook,
    manip: Manip,
    around: &mut Surroundings<'_>,
    sink: &mut S,
) -> Result<(), NatDrop> {
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
    let bound = matching_range(&current, hook, around, sink)?;
    let null = match manip {
        Manip::Src => Range::address(current.src),
        Manip::Dst => Range::address(current.dst),
    };
    let (range, masquerade) = bound.unwrap_or((null, false));
    setup::bind(flow, &range, manip, (&*around.table, around.now), around.random, sink);
    if masquerade {
        flow.masquerade_interface = around.out_interface;
    }
    Ok(())
}

/// Runs the chain of the hook: the range of the rule that matched, and whether it masquerades.
fn matching_range<S: Sink>(
    current: &Tuple,
    hook: Hook,
    around: &Surroundings<'_>,
    sink: &mut S,
) -> Result<Option<(Range, bool)>, NatDrop> {
    let Some(manip) = hook.manip() else { return Ok(None) };
    let Some(chain) = around.rules.and_then(|rules| rules.chain(hook)) else { return Ok(None) };
    let name = |index: Option<u16>| index.and_then(|i| around.network.interface(i)).map(|i| i.name.as_str());
    let subject =
        Subject { tuple: current, in_interface: name(around.in_interface), out_interface: name(around.out_interface) };
    let rule = chain.rules.iter().find(|rule| rule.matches.matches(&subject));
    sink.step(|| Step::NatAsked { hook, manip, line: rule.map(|rule| rule.line) });
    let Some(rule) = rule else {
        return if chain.drops { Err(NatDrop::Rule { line: None }) } else { Ok(None) };
    };
    let address_of = |interface: Option<u16>, near| {
        let address = interface.and_then(|i| around.network.address_on(i, current.l3num, near));
        address.ok_or(NatDrop::NoAddress).map(|address| (address, address))
    };
    match rule.target {
        Target::Accept => Ok(None),
        Target::Drop => Err(NatDrop::Rule { line: Some(rule.line) }),
        Target::Snat(range) | Target::Dnat(range) => Ok(Some((range, false))),
        Target::Masquerade(range) => {
            let addresses = Some(address_of(around.out_interface, Some(current.dst))?);
            Ok(Some((Range { addresses, ..range }, true)))
        }
        Target::Redirect(range) => {
            let addresses = match hook {
                Hook::LocalOut => Some((Network::loopback(current.l3num), Network::loopback(current.l3num))),
                _ => Some(address_of(around.in_interface, None)?),
            };
            Ok(Some((Range { addresses, ..range }, false)))
        }
    }
}
