//! Bindings that the kernel would not make, where [`Options`](super::options::Options) ask for them: one end outside for
//! each end inside, who may send to it, hairpins, ports in blocks.

use super::blocks::{Block, PortBlocks};
use super::hooks::{Asked, Surroundings, ask};
use super::options::Filtering;
use super::range::Range;
use super::setup::{Choice, window};
use super::{Manip, NatDrop};
use crate::conn::Flow;
use crate::direction::Direction;
use crate::hook::Hook;
use crate::network::{Destination, Network};
use crate::rules::matches::Subject;
use crate::status::Status;
use crate::table::Endpoint;
use crate::trace::{BeyondStep, Sink, Step};
use crate::tuple::{Tuple, has_ports, proto};

/// What a flow is bound to that no rule is for.
pub(super) fn unruled<S: Sink>(
    subject: &Subject<'_>,
    flow: &Flow,
    current: &Tuple,
    (hook, manip): (Hook, Manip),
    around: &Surroundings<'_>,
    sink: &mut S,
) -> Result<Asked, NatDrop> {
    match (hook, around.options.mapping) {
        (Hook::PreRouting, Some(filtering)) => let_in(flow, current, filtering, around, sink),
        (Hook::PostRouting, _) if around.options.hairpin => {
            let Some(interface) = hairpin(flow, around) else { return Ok(Asked::Silent) };
            sink.step(|| Step::Beyond(BeyondStep::Hairpin { interface }));
            let interfaces = (subject.interfaces.0, around.network.name(Some(interface)));
            let subject = Subject { interfaces, ..*subject };
            let sent_to = Tuple { dst: flow.tuple(Direction::Original).dst, ..*current };
            ask(&subject, &sent_to, (hook, manip), Some(interface), around, sink)
        }
        _ => Ok(Asked::Silent),
    }
}

/// RFC 4787 REQ-8: a flow begins with a packet to an end outside that stands for somebody inside.
fn let_in<S: Sink>(
    flow: &Flow,
    current: &Tuple,
    filtering: Filtering,
    around: &Surroundings<'_>,
    sink: &mut S,
) -> Result<Asked, NatDrop> {
    let (table, now, zone) = (&around.table, around.now, flow.zone.of(Direction::Original));
    if !has_ports(current.protonum) {
        return Ok(Asked::Silent);
    }
    let outside = Endpoint::destination(current, zone);
    let Some(inside) = table.mapped_to(outside, now) else { return Ok(Asked::Silent) };
    // What this host sent itself is answered to itself.
    if (inside.address, inside.port) == (outside.address, outside.port) {
        return Ok(Asked::Silent);
    }
    // Somebody else inside is known by the address outside.
    let sender = table.mapped_from(Endpoint::source(current, zone), now).next();
    let from = sender.map_or(current.src, |sender| sender.address);
    let passes = match filtering {
        Filtering::EndpointIndependent => true,
        Filtering::AddressDependent => table.is_talked_to(outside, from, now),
        Filtering::AddressAndPortDependent => false,
    };
    sink.step(|| Step::Beyond(BeyondStep::Filtered { outside, inside, from, filtering, passes }));
    if passes {
        let ports = Some((inside.port, inside.port));
        Ok(Asked::Bind { range: Range { ports, ..Range::address(inside.address) }, masquerade: false })
    } else {
        Err(NatDrop::Filtered { address: outside.address.ip(outside.l3num), port: outside.port })
    }
}

/// RFC 4787 REQ-9: the interface of the address that a packet was sent to, where that was translated, and the packet neither
/// came by that interface nor leaves by it.
fn hairpin(flow: &Flow, around: &Surroundings<'_>) -> Option<u16> {
    let sent_to = flow.tuple(Direction::Original);
    let interface = outer_interface(around.network, sent_to)?;
    let passes_by = [around.in_interface?, around.out_interface?].contains(&interface);
    (flow.status.contains(Status::DST_NAT) && !passes_by).then_some(interface)
}

fn outer_interface(network: &Network, sent_to: &Tuple) -> Option<u16> {
    match network.route(sent_to.l3num, sent_to.dst) {
        Destination::Local => network.interface_of(sent_to.l3num, sent_to.dst),
        Destination::Interface(interface) => Some(interface),
        Destination::None => None,
    }
}

impl<S: Sink> Choice<'_, S> {
    /// As [`Choice::unique_tuple`] for the source of a flow that a rule translates.
    pub(super) fn source_beyond(&mut self, flow: &Flow, current: &Tuple, range: &Range) -> Result<Tuple, NatDrop> {
        let inside = Endpoint::source(flow.tuple(Direction::Original), flow.zone.of(Direction::Original));
        let serving = self.options.blocks.filter(|blocks| blocks.serves(inside.l3num, inside.address));
        let mut range = match serving {
            Some(blocks) => self.block(&blocks, inside, range)?,
            None => *range,
        };
        let independent = self.options.mapping.is_some();
        let ports = window(flow, current, &range, Manip::Src);
        let (Some(ports), true) = (ports, varies(inside) && (independent || serving.is_some())) else {
            return Ok(self.unique_tuple(flow, current, &range, Manip::Src));
        };
        let known = if independent {
            range.persistent = true;
            self.kept(inside, flow, current, &range)?
        } else {
            self.reused(flow, current, &range)
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let mut tuple = *current;
        if let Some(address) = range.pick_address(current, flow.zone.id, Manip::Src) {
            tuple.src = address;
        }
        tuple.src_u = self.free_port(&tuple, flow, inside, (ports, range.random))?;
        if independent {
            let outside = Endpoint { address: tuple.src, port: tuple.src_u, ..inside };
            self.sink.step(|| Step::Beyond(BeyondStep::Mapped { inside, outside }));
        }
        Ok(tuple)
    }

    /// RFC 7422: a range narrowed to the block of an address inside.
    fn block(&mut self, blocks: &PortBlocks, inside: Endpoint, range: &Range) -> Result<Range, NatDrop> {
        let none = NatDrop::NoBlock { inside: inside.address.ip(inside.l3num) };
        let outside = range.addresses.unwrap_or((inside.address, inside.address));
        let Block { address, first, last } = blocks.of(inside.address, outside).ok_or(none)?;
        let (lowest, highest) = range.ports.unwrap_or((0, u16::MAX));
        let ports = (first.max(lowest), last.min(highest));
        if ports.0 > ports.1 {
            return Err(none);
        }
        self.sink.step(|| Step::Beyond(BeyondStep::Block { inside, address, ports }));
        let ports = varies(inside).then_some(ports);
        Ok(Range { addresses: Some((address, address)), ports, ..*range })
    }

    /// RFC 4787 REQ-1: the end outside that an end inside has already, where the rule allows that.
    fn kept(
        &mut self,
        inside: Endpoint,
        flow: &Flow,
        current: &Tuple,
        range: &Range,
    ) -> Result<Option<Tuple>, NatDrop> {
        let leaves_as = |outside: &Endpoint| Tuple { src: outside.address, src_u: outside.port, ..*current };
        let mut known = self.table.mapped_from(inside, self.now);
        let Some(outside) = known.find(|outside| range.holds(&leaves_as(outside), Manip::Src)) else { return Ok(None) };
        drop(known);
        self.sink.step(|| Step::Beyond(BeyondStep::MappingKept { inside, outside }));
        let mapped = leaves_as(&outside);
        if self.is_taken(&mapped, flow) {
            return Err(NatDrop::MappingTaken { address: mapped.src_ip(), port: mapped.src_u });
        }
        Ok(Some(mapped))
    }

    /// A port or id of the window that is free, if possible the one that `wanted` has, or an even one for an even one
    /// (RFC 4787 REQ-4).
    fn free_port(
        &mut self,
        wanted: &Tuple,
        flow: &Flow,
        inside: Endpoint,
        ((first, last), random): ((u16, u16), bool),
    ) -> Result<u16, NatDrop> {
        /// More are not looked at for one flow.
        const MOST: u32 = 8192;
        let port = wanted.src_u;
        if !random && (first..=last).contains(&port) && self.is_free(wanted, flow, inside) {
            return Ok(port);
        }
        let size = u32::from(last.saturating_sub(first)) + 1;
        let start = u32::from(self.random.next_u16());
        for parity in [port % 2, 1 - port % 2] {
            for step in 0..size.min(MOST) {
                let candidate = first.wrapping_add(((start + step) % size) as u16);
                if candidate % 2 == parity && self.is_free(&Tuple { src_u: candidate, ..*wanted }, flow, inside) {
                    return Ok(candidate);
                }
            }
        }
        Err(NatDrop::NoPort { address: wanted.src_ip(), first, last })
    }

    /// Is a source free towards its destination, and with endpoint-independent mapping towards everybody?
    fn is_free(&mut self, candidate: &Tuple, flow: &Flow, inside: Endpoint) -> bool {
        if self.options.mapping.is_none() {
            return self.evict(candidate, flow).unwrap_or_else(|| !self.is_taken(candidate, flow));
        }
        let outside = Endpoint { zone: flow.zone.of(Direction::Reply), ..Endpoint::source(candidate, 0) };
        let holder = self.table.mapped_to(outside, self.now);
        holder.is_none_or(|holder| holder == inside) && !self.is_taken(candidate, flow)
    }
}

/// Is there a port or an id that may be another outside?
const fn varies(end: Endpoint) -> bool {
    has_ports(end.protonum) || matches!(end.protonum, proto::ICMP | proto::ICMPV6)
}
