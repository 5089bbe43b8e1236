//! The decision: which binding a flow gets (`nf_nat_setup_info`, `get_unique_tuple`; catalogue D.2 to D.4).

use super::Manip;
use super::range::Range;
use crate::conn::Flow;
use crate::direction::Direction;
use crate::random::Random;
use crate::status::Status;
use crate::table::Table;
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::tuple::{Tuple, has_ports, proto};

/// `nf_nat_setup_info`: binds one side of a flow that is not in the table yet.
pub(crate) fn bind<S: Sink>(
    flow: &mut Flow,
    range: &Range,
    manip: Manip,
    (table, now): (&Table, Time),
    random: &mut Random,
    sink: &mut S,
) {
    flow.status |= manip.done();
    // What packets of the original direction look like with the bindings made so far.
    let Some(current) = flow.tuple(Direction::Reply).invert() else { return };
    let new = unique_tuple(flow, &current, range, manip, (table, now), random);
    if new != current
        && let Some(reply) = new.invert()
    {
        flow.tuples[Direction::Reply.index()] = reply;
        flow.status |= manip.status();
    }
    let port_taken = range.ports.is_none() && port(&new, manip) != port(&current, manip);
    sink.step(|| Step::NatBound { manip, leaves_as: new, port_taken });
}

/// `nf_nat_used_tuple`: does another flow hold the reply tuple that `candidate` would have?
///
/// An entry of the same original tuple does not count; the two meet again when they are confirmed.
fn is_taken(candidate: &Tuple, flow: &Flow, table: &Table, now: Time) -> bool {
    let Some(reply) = candidate.invert() else { return false };
    table
        .peek(&reply, flow.zone, Direction::Reply, now)
        .is_some_and(|(id, _)| table.tuple(id, Direction::Original).as_ref() != Some(flow.tuple(Direction::Original)))
}

/// `get_unique_tuple`: `current` with the side of `manip` moved into the range, and the port changed if it must be.
fn unique_tuple(
    flow: &Flow,
    current: &Tuple,
    range: &Range,
    manip: Manip,
    (table, now): (&Table, Time),
    random: &mut Random,
) -> Tuple {
    let taken = |candidate: &Tuple| is_taken(candidate, flow, table, now);
    if manip == Manip::Src && !range.random && range.holds(current, manip) && !taken(current) {
        return *current;
    }
    let mut tuple = *current;
    if let Some(address) = range.pick_address(current, flow.zone.id, manip) {
        match manip {
            Manip::Src => tuple.src = address,
            Manip::Dst => tuple.dst = address,
        }
    }
    if !range.random {
        match range.ports {
            Some((first, last)) => {
                let in_range = (first..=last).contains(&port(&tuple, manip));
                // A range of one port is taken even when it is not free; the clash shows at confirm.
                if in_range && (first == last || !taken(&tuple)) {
                    return tuple;
                }
            }
            None if !taken(&tuple) => return tuple,
            None => {}
        }
    }
    let Some(ports) = window(flow, &tuple, range, manip) else { return tuple };
    search_port(tuple, ports, manip, range.random, random, taken)
}

/// The part of a tuple that a port search varies: the port of the side, or the ICMP id (NAT-PORT-01).
fn port(tuple: &Tuple, manip: Manip) -> u16 {
    match manip {
        _ if tuple.is_icmp() => tuple.src_u,
        Manip::Src => tuple.src_u,
        Manip::Dst => tuple.dst_u,
    }
}

fn set_port(tuple: &mut Tuple, manip: Manip, port: u16) {
    match manip {
        _ if tuple.is_icmp() => tuple.src_u = port,
        Manip::Src => tuple.src_u = port,
        Manip::Dst => tuple.dst_u = port,
    }
}

/// The ports that may be tried, first and last (NAT-PORT-02); `None` when the protocol or the side has nothing to vary.
fn window(flow: &Flow, tuple: &Tuple, range: &Range, manip: Manip) -> Option<(u16, u16)> {
    match tuple.protonum {
        proto::ICMP | proto::ICMPV6 => Some(range.ports.unwrap_or((0, u16::MAX))),
        // A key without a control connection that tells of it means nothing.
        proto::GRE if flow.status.contains(Status::EXPECTED) => Some(range.ports.unwrap_or((1, u16::MAX))),
        number if has_ports(number) => match (range.ports, manip) {
            (Some(ports), _) => Some(ports),
            (None, Manip::Dst) => None,
            (None, Manip::Src) => Some(match tuple.src_u {
                0..512 => (1, 511),
                512..1024 => (600, 1023),
                1024.. => (1024, u16::MAX),
            }),
        },
        _ => None,
    }
}

/// `nf_nat_l4proto_unique_tuple`: tries ports of the window (NAT-PORT-03, NAT-PORT-04). The last one tried is kept
/// even when it is taken; confirm finds out.
fn search_port(
    mut tuple: Tuple,
    (first, last): (u16, u16),
    manip: Manip,
    at_random: bool,
    random: &mut Random,
    taken: impl Fn(&Tuple) -> bool,
) -> Tuple {
    /// More attempts than this are never made in one round, fewer than [`FEWEST`] end the search.
    const MOST: u32 = 128;
    const FEWEST: u32 = 16;

    let size = u32::from(last.wrapping_sub(first)) + 1;
    let mut offset = if manip == Manip::Src || at_random { u32::from(random.next_u16()) } else { 0 };
    let mut attempts = size.min(MOST);
    loop {
        for attempt in 0..attempts {
            let candidate = first.wrapping_add((offset.wrapping_add(attempt) % size) as u16);
            set_port(&mut tuple, manip, candidate);
            if !taken(&tuple) {
                return tuple;
            }
        }
        if attempts >= size || attempts < FEWEST {
            return tuple;
        }
        attempts /= 2;
        offset = u32::from(random.next_u16());
    }
}
