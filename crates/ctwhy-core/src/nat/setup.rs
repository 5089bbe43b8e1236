//! The decision: which binding a flow gets (`nf_nat_setup_info`, `get_unique_tuple`; catalogue D.2 to D.4).

use super::options::Options;
use super::range::Range;
use super::{Manip, NatDrop};
use crate::conn::{Flow, Protocol};
use crate::direction::Direction;
use crate::random::Random;
use crate::status::Status;
use crate::table::{EntryId, Table};
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::track::tcp::TcpState;
use crate::tuple::{Tuple, has_ports, proto};

/// What a decision rests on besides the flow.
pub(crate) struct Choice<'a, S> {
    pub(crate) table: &'a mut Table,
    pub(crate) random: &'a mut Random,
    pub(crate) options: &'a Options,
    pub(crate) now: Time,
    pub(crate) sink: &'a mut S,
}

impl<S: Sink> Choice<'_, S> {
    /// `nf_nat_setup_info`: binds one side of a flow that is not in the table yet.
    ///
    /// # Errors
    /// Where an option asks for a binding that there is none of. The kernel always finds one.
    pub(crate) fn bind(&mut self, flow: &mut Flow, range: &Range, manip: Manip) -> Result<(), NatDrop> {
        flow.status |= manip.done();
        // What packets of the original direction look like with the bindings made so far.
        let Some(current) = flow.tuple(Direction::Reply).invert() else { return Ok(()) };
        let new = match (manip, self.options.mapping, self.options.blocks) {
            (Manip::Dst, ..) | (Manip::Src, None, None) => self.unique_tuple(flow, &current, range, manip),
            (Manip::Src, ..) => self.source_beyond(flow, &current, range)?,
        };
        if new != current
            && let Some(reply) = new.invert()
        {
            flow.tuples[Direction::Reply.index()] = reply;
            flow.status |= manip.status();
        }
        let port_taken = range.ports.is_none() && port(&new, manip) != port(&current, manip);
        self.sink.step(|| Step::NatBound { manip, leaves_as: new, port_taken });
        Ok(())
    }

    /// `nf_nat_used_tuple`: does another flow hold the reply tuple that `candidate` would have?
    ///
    /// An entry of the same original tuple does not count; the two meet again when they are confirmed.
    pub(super) fn is_taken(&mut self, candidate: &Tuple, flow: &Flow) -> bool {
        let original = |holder| self.table.tuple(holder, Direction::Original);
        let taken = self
            .holder(candidate, flow)
            .is_some_and(|holder| original(holder).as_ref() != Some(flow.tuple(Direction::Original)));
        self.table.counters.found += u64::from(taken);
        taken
    }

    /// The entry that holds the reply tuple of `candidate`.
    fn holder(&self, candidate: &Tuple, flow: &Flow) -> Option<EntryId> {
        let reply = candidate.invert()?;
        self.table.peek(&reply, flow.zone, Direction::Reply, self.now).map(|(id, _)| id)
    }

    /// `nf_nat_used_tuple_new`: as [`Choice::is_taken`], but an untranslated flow that is this one seen from the other
    /// side does not count either: question and answer were on their way at once, and are merged when they are
    /// confirmed.
    fn is_taken_by_stranger(&mut self, candidate: &Tuple, flow: &Flow) -> bool {
        if !self.is_taken(candidate, flow) {
            return false;
        }
        let mirrored = |holder: Flow| {
            let [original, reply] = flow.tuples;
            !holder.status.intersects(Status::NAT_MASK | Status::SEQ_ADJUST) && holder.tuples == [reply, original]
        };
        let holder = self.holder(candidate, flow).and_then(|id| self.table.get(id));
        let kernel = self.table.kernel;
        let merges = kernel.mirrored_clash && kernel.allows_clash(candidate.protonum);
        !(merges && holder.is_some_and(|entry| mirrored(entry.flow)))
    }

    /// `get_unique_tuple`: `current` with the side of `manip` moved into the range, and the port changed if it must be.
    pub(super) fn unique_tuple(&mut self, flow: &Flow, current: &Tuple, range: &Range, manip: Manip) -> Tuple {
        if manip == Manip::Src && !range.random {
            if range.holds(current, manip) {
                if !self.is_taken_by_stranger(current, flow) {
                    return *current;
                }
            } else if let Some(mapped) = self.reused(flow, current, range) {
                return mapped;
            }
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
                    let in_range = range.shifted_from.is_none() && (first..=last).contains(&port(&tuple, manip));
                    // A range of one port is taken even when it is not free; the clash shows at confirm.
                    if in_range && (first == last || !self.is_taken(&tuple, flow)) {
                        return tuple;
                    }
                }
                None if !self.is_taken(&tuple, flow) => return tuple,
                None => {}
            }
        }
        self.search_port(tuple, flow, range, manip)
    }

    /// The latest translation of the same source, where it is free towards this destination.
    pub(super) fn reused(&mut self, flow: &Flow, current: &Tuple, range: &Range) -> Option<Tuple> {
        let mapped = self.mapping(flow, current, range)?;
        if self.is_taken(&mapped, flow) {
            return None;
        }
        self.sink.step(|| Step::NatMappingReused { leaves_as: mapped });
        Some(mapped)
    }

    /// `find_appropriate_src`: how another flow of the same source was translated, if the range allows that, too.
    fn mapping(&self, flow: &Flow, current: &Tuple, range: &Range) -> Option<Tuple> {
        self.table.of_same_source(flow).find_map(|reply| {
            let mapped = reply.invert()?;
            let mapped = Tuple { dst: current.dst, dst_u: current.dst_u, ..mapped };
            range.holds(&mapped, Manip::Src).then_some(mapped)
        })
    }

    /// `nf_nat_l4proto_unique_tuple`: tries ports of the window (NAT-PORT-03, NAT-PORT-04). The last one tried is kept
    /// even when it is taken; confirm finds out.
    fn search_port(&mut self, mut tuple: Tuple, flow: &Flow, range: &Range, manip: Manip) -> Tuple {
        /// More attempts than this are never made in one round, fewer than [`FEWEST`] end the search.
        const MOST: u32 = 128;
        const FEWEST: u32 = 16;
        /// So many attempts before the end of a round a connection that is over may be evicted.
        const LAST: u32 = 32;

        let Some((first, last)) = window(flow, &tuple, range, manip) else { return tuple };
        let size = u32::from(last.wrapping_sub(first)) + 1;
        let mut foretold = None;
        let mut offset = match range.shifted_from {
            Some(base) => u32::from(port(&tuple, manip).wrapping_sub(base)),
            None if manip == Manip::Src || range.random || !self.table.kernel.destination_ports_in_order => {
                foretold = self.random.foretold(tuple.protonum).map(|tuple| port(&tuple, manip));
                u32::from(foretold.map_or_else(|| self.random.next_u16(), |port| port.wrapping_sub(first)))
            }
            None => 0,
        };
        let mut attempts = size.min(MOST);
        loop {
            for attempt in 0..attempts {
                let candidate = first.wrapping_add((offset.wrapping_add(attempt) % size) as u16);
                set_port(&mut tuple, manip, candidate);
                let may_evict =
                    self.table.kernel.evicts_finished && (attempts - attempt <= LAST || foretold == Some(candidate));
                let free = if may_evict { self.evict(&tuple, flow) } else { None };
                if free.unwrap_or_else(|| !self.is_taken(&tuple, flow)) {
                    return tuple;
                }
            }
            if attempts >= size || attempts < FEWEST {
                return tuple;
            }
            attempts /= 2;
            offset = u32::from(self.random.next_u16());
        }
    }

    /// `nf_nat_used_tuple_harder`: for a TCP connection that begins, deletes one that is over and whose numbers the new
    /// one has passed (NAT-PORT-05). True when the tuple is free now, `None` when this rule has no say.
    pub(super) fn evict(&mut self, candidate: &Tuple, flow: &Flow) -> Option<bool> {
        let Protocol::Tcp(new) = &flow.protocol else { return None };
        if new.state() != TcpState::SynSent {
            return None;
        }
        let reply = candidate.invert()?;
        let Some((id, found_as)) = self.table.lookup_at(&reply, flow.zone, Direction::Reply, self.now, self.sink)
        else {
            return Some(true);
        };
        let holder = self.table.get(id)?;
        let Protocol::Tcp(old) = &holder.flow.protocol else { return Some(false) };
        let over = matches!(old.state(), TcpState::TimeWait | TcpState::Close | TcpState::SynSent2);
        let passed = new.end(Direction::Original).wrapping_sub(old.end(Direction::Original)) as i32 > 0;
        let status = holder.flow.status;
        let evictable = found_as == Direction::Reply
            && over
            && passed
            && status.contains(Status::SRC_NAT)
            && !status.intersects(Status::FIXED_TIMEOUT | Status::DYING);
        if evictable && let Some(gone) = self.table.delete(id, self.now, self.sink) {
            self.sink.step(|| Step::NatEvicted { id: gone.id });
        }
        Some(evictable)
    }
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
pub(super) fn window(flow: &Flow, tuple: &Tuple, range: &Range, manip: Manip) -> Option<(u16, u16)> {
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
