//! The flows of one side and its ICMP errors, in bounded memory.

use std::collections::HashMap;

use ctwhy_core::direction::Direction;
use ctwhy_core::tuple::Tuple;

use crate::observe::{Detail, Error, Facts, Observed, Passed, Protocol, Seen, look, option, options};

/// How much is kept of each side. What is beyond is counted and not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows.
    pub flows: usize,
    /// Packets of all flows together; about 100 bytes each.
    pub packets: usize,
    /// The first packets of each direction of a flow.
    pub packets_of_direction: usize,
    /// ICMP errors, of at most 2048 bytes each.
    pub errors: usize,
}

impl Default for Limits {
    /// At most some 200 MB for both sides, and that only where they are full.
    fn default() -> Limits {
        Limits { flows: 32_768, packets: 262_144, packets_of_direction: 64, errors: 4096 }
    }
}

/// How many of the first bytes of a TCP direction are kept.
pub(crate) const OPENING: usize = 64;

/// What is kept of one direction of a flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    /// The first packets, in the order of the capture.
    pub(crate) packets: Vec<Facts>,
    /// All packets, kept or not.
    pub(crate) count: u64,
    /// The initial sequence number (TCP), from the SYN or from what acknowledged it.
    pub(crate) isn: Option<u32>,
    /// The SYN, or SYN/ACK.
    pub(crate) syn: Option<Syn>,
    /// The first bytes of a TCP direction, put where they belong.
    opening: Vec<u8>,
    /// Which of them are known.
    known: u64,
}

/// What a SYN says about its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Syn {
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    /// Kinds of the options in their order, padding included.
    pub(crate) kinds: Vec<u8>,
}

impl Lane {
    /// The first bytes of the direction up to the first that is not known.
    pub(crate) fn opening(&self) -> &[u8] {
        self.opening.get(..self.known.trailing_ones() as usize).unwrap_or_default()
    }

    /// How far behind the initial sequence number a number is.
    pub(crate) fn relative(&self, number: u32) -> Option<u32> {
        Some(number.wrapping_sub(self.isn?))
    }

    fn open(&mut self, seq: u32, payload: &[u8]) {
        let Some(at) = self.relative(seq.wrapping_sub(1)) else { return };
        for (byte, at) in payload.iter().zip(at as usize..OPENING) {
            if self.opening.len() <= at {
                self.opening.resize(at + 1, 0);
            }
            if let Some(place) = self.opening.get_mut(at)
                && self.known & 1 << at == 0
            {
                *place = *byte;
                self.known |= 1 << at;
            }
        }
    }
}

/// A flow as one side saw it. Its directions are named after its first packet, but that of TCP after the SYN.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// Of packets in original direction.
    pub(crate) tuple: Tuple,
    pub(crate) reply: Tuple,
    pub(crate) protocol: Protocol,
    pub(crate) first: u64,
    pub(crate) last: u64,
    lanes: [Lane; 2],
}

impl Flow {
    pub(crate) const fn lane(&self, direction: Direction) -> &Lane {
        let [original, reply] = &self.lanes;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }

    fn lane_mut(&mut self, direction: Direction) -> &mut Lane {
        let [original, reply] = &mut self.lanes;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }

    pub(crate) const fn tuple(&self, direction: Direction) -> &Tuple {
        match direction {
            Direction::Original => &self.tuple,
            Direction::Reply => &self.reply,
        }
    }

    /// Is this SYN that of another connection between the same ports?
    fn is_over(&self, facts: &Facts, direction: Direction) -> bool {
        let known = self.lane(direction).isn;
        facts.is_syn() && facts.seq().zip(known).is_some_and(|(seq, known)| seq != known)
    }
}

/// What was read and what was not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seized {
    /// Packets.
    pub packets: u64,
    /// Flows.
    pub flows: u64,
    /// ICMP errors that quote a packet.
    pub errors: u64,
    /// Packets whose IP header is broken, or was not captured.
    pub unreadable: u64,
    /// Fragments other than the first.
    pub fragments: u64,
    /// Packets that are neither TCP, UDP, echo nor an error.
    pub other: u64,
    /// Packets of flows beyond the limit.
    pub flows_beyond: u64,
    /// Packets of known flows that the limit on packets of all flows left out.
    pub packets_beyond: u64,
    /// Errors beyond the limit.
    pub errors_beyond: u64,
}

/// Everything that is kept of one side.
#[derive(Debug)]
pub(crate) struct Flows {
    limits: Limits,
    pub(crate) all: Vec<Flow>,
    by_tuple: HashMap<Tuple, (usize, Direction)>,
    kept: usize,
    pub(crate) errors: Vec<Error>,
    pub(crate) seized: Seized,
    /// Times of the first and the last packet.
    pub(crate) span: Option<(u64, u64)>,
}

impl Flows {
    pub(crate) fn new(limits: Limits) -> Flows {
        Flows {
            limits,
            all: Vec::new(),
            by_tuple: HashMap::new(),
            kept: 0,
            errors: Vec::new(),
            seized: Seized::default(),
            span: None,
        }
    }

    pub(crate) fn observe(&mut self, packet: &Observed<'_>) {
        self.seized.packets += 1;
        let (first, last) = self.span.unwrap_or((packet.time_ns, packet.time_ns));
        self.span = Some((first.min(packet.time_ns), last.max(packet.time_ns)));
        match look(packet) {
            Seen::Flow { tuple, protocol, facts, header, payload } => {
                if let Some((index, direction)) = self.find_or_begin(tuple, protocol, &facts) {
                    self.take(index, direction, facts, (header, payload));
                }
            }
            Seen::Error(error) => {
                self.seized.errors += 1;
                if self.errors.len() < self.limits.errors {
                    self.errors.push(error);
                } else {
                    self.seized.errors_beyond += 1;
                }
            }
            Seen::Passed(Passed::Unreadable) => self.seized.unreadable += 1,
            Seen::Passed(Passed::Fragment) => self.seized.fragments += 1,
            Seen::Passed(Passed::Other) => self.seized.other += 1,
        }
    }

    /// The flow that packets with this tuple belong to, and in which direction.
    pub(crate) fn find(&self, tuple: &Tuple) -> Option<(usize, Direction)> {
        self.by_tuple.get(tuple).copied()
    }

    fn find_or_begin(&mut self, tuple: Tuple, protocol: Protocol, facts: &Facts) -> Option<(usize, Direction)> {
        if let Some((index, direction)) = self.find(&tuple)
            && !self.all.get(index)?.is_over(facts, direction)
        {
            return Some((index, direction));
        }
        if self.all.len() >= self.limits.flows {
            self.seized.flows_beyond += 1;
            return None;
        }
        let inverted = tuple.invert()?;
        let answers = facts.is_syn_ack() || (protocol == Protocol::Echo && matches!(tuple.icmp_type(), 0 | 129));
        let (direction, original, reply) = match answers {
            true => (Direction::Reply, inverted, tuple),
            false => (Direction::Original, tuple, inverted),
        };
        let index = self.all.len();
        let (first, last) = (facts.time, facts.time);
        self.all.push(Flow { tuple: original, reply, protocol, first, last, lanes: Default::default() });
        self.by_tuple.insert(original, (index, Direction::Original));
        self.by_tuple.insert(reply, (index, Direction::Reply));
        self.seized.flows += 1;
        Some((index, direction))
    }

    fn take(&mut self, index: usize, direction: Direction, facts: Facts, (header, payload): (&[u8], &[u8])) {
        let Some(flow) = self.all.get_mut(index) else { return };
        flow.last = flow.last.max(facts.time);
        if let Detail::Tcp { seq, ack, window, .. } = facts.detail {
            if facts.is_syn_ack() {
                flow.lane_mut(direction.opposite()).isn.get_or_insert(ack.wrapping_sub(1));
            }
            let lane = flow.lane_mut(direction);
            if facts.is_syn() || facts.is_syn_ack() {
                lane.isn.get_or_insert(seq);
                lane.syn.get_or_insert_with(|| syn(window, header));
            }
            lane.open(seq, payload);
        }
        let lane = flow.lane_mut(direction);
        lane.count += 1;
        if lane.packets.len() >= self.limits.packets_of_direction {
            return;
        }
        if self.kept >= self.limits.packets {
            self.seized.packets_beyond += 1;
            return;
        }
        self.kept += 1;
        lane.packets.push(facts);
    }
}

fn syn(window: u16, header: &[u8]) -> Syn {
    let mss = options(header).find(|(kind, _)| *kind == option::MSS).map(|(_, value)| value);
    let mss = mss.and_then(|value| Some(u16::from_be_bytes(value.try_into().ok()?)));
    Syn { window, mss, kinds: options(header).map(|(kind, _)| kind).collect() }
}
