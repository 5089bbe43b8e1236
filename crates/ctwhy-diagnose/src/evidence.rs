//! What became of the packets of each pair of flows.

use std::collections::{BTreeMap, HashMap};

use ctwhy_core::direction::Direction;
use ctwhy_core::tuple::{Addr, L3};

use crate::clock::Clock;
use crate::flows::{Flow, Flows, Lane};
use crate::observe::{Detail, Facts, Protocol, flag, option};
use crate::pairing::Pair;

/// How often something was the same at both sides, and how often not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// It was the same.
    pub kept: u64,
    /// It was not.
    pub changed: u64,
    /// The first pair of values that differed, in the order in which the packet met them.
    pub example: Option<(u32, u32)>,
}

impl Tally {
    fn count(&mut self, from: u32, to: u32) {
        if from == to {
            self.kept += 1;
        } else {
            self.changed += 1;
            self.example.get_or_insert((from, to));
        }
    }

    /// How often it was looked at.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.kept + self.changed
    }

    /// What it comes to, if four fifths agree.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match (self.total(), self.kept * 10 >= self.total() * 8, self.changed * 10 >= self.total() * 8) {
            (0, ..) => Outcome::Unseen,
            (_, true, _) => Outcome::Kept,
            (_, _, true) => Outcome::Changed,
            _ => Outcome::Both,
        }
    }
}

/// What a [`Tally`] comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was there to be looked at.
    Unseen,
    /// It stayed the same.
    Kept,
    /// It became another.
    Changed,
    /// Now the one, now the other.
    Both,
}

/// TTLs or hop limits at the side where packets come from, and at the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ttl {
    /// How many packets had which two.
    pub pairs: BTreeMap<(u8, u8), u64>,
}

/// What was done to a TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlOutcome {
    /// Nothing was there to be looked at.
    Unseen,
    /// It was decremented by so much.
    Decremented(u8),
    /// It is set anew to this, whatever it was.
    Set(u8),
    /// It arrives as it was sent, and what it was is nothing that hosts set by themselves.
    Copied,
    /// It is a usual first value on both sides: copied, or set anew.
    Same,
    /// Nothing of all that describes it.
    Mixed,
}

impl Ttl {
    /// Values that hosts send packets with by themselves.
    const FIRST_VALUES: [u8; 4] = [32, 64, 128, 255];
    /// More routers are hardly between two captures of one NAT.
    const HOPS: u8 = 3;
    /// No way is longer.
    const LONGEST: u8 = 40;

    fn count(&mut self, from: u8, to: u8) {
        *self.pairs.entry((from, to)).or_default() += 1;
    }

    /// What was done to it, as far as nine tenths of the packets agree.
    #[must_use]
    pub fn outcome(&self) -> TtlOutcome {
        let total: u64 = self.pairs.values().sum();
        if total == 0 {
            return TtlOutcome::Unseen;
        }
        let most = |holds: &dyn Fn(u8, u8) -> bool| {
            let counted: u64 = self.pairs.iter().filter(|((from, to), _)| holds(*from, *to)).map(|(_, n)| n).sum();
            counted * 10 >= total * 9
        };
        let usual = |ttl: u8| Ttl::FIRST_VALUES.contains(&ttl);
        if let Some(hops) = (1..=Ttl::HOPS).find(|hops| most(&|from, to| from.checked_sub(*hops) == Some(to))) {
            return TtlOutcome::Decremented(hops);
        }
        if most(&|from, to| from == to) {
            let odd = self.pairs.keys().any(|(from, to)| from == to && !usual(*from));
            return if odd { TtlOutcome::Copied } else { TtlOutcome::Same };
        }
        let set = self.pairs.iter().max_by_key(|(_, count)| **count).map(|((_, to), _)| *to);
        match set {
            // From one and the same TTL nobody can tell a long way from a new value, but few ways are so long.
            Some(to) if usual(to) && most(&|_, other| other == to) => TtlOutcome::Set(to),
            Some(to) if self.pairs.len() > 1 && most(&|_, other| other == to) => TtlOutcome::Set(to),
            _ => match (1..=Ttl::LONGEST).find(|hops| most(&|from, to| from.checked_sub(*hops) == Some(to))) {
                Some(hops) => TtlOutcome::Decremented(hops),
                None => TtlOutcome::Mixed,
            },
        }
    }
}

/// Whether somebody answered before the answer could have come from behind the NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promptness {
    /// Answers that came sooner than they could have.
    pub early: u64,
    /// Answers that took as long as they must.
    pub late: u64,
    /// The first early one: nanoseconds until the answer at the side that asked, and at the other.
    pub example: Option<(u64, u64)>,
}

/// What became of the packets of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Pairs of flows.
    pub flows: u64,
    /// Those of them that were paired by nothing but time and destination. They count where there are no others.
    pub weak: u64,
    /// Packets that were found at both sides.
    pub packets: u64,
    /// Packets of the pairs that were seen inside on their way out, and not outside.
    pub lost_out: u64,
    /// Packets of the pairs that were seen outside on their way in, and not inside.
    pub lost_back: u64,
    /// Identification of IPv4 packets, where it is not zero at both sides.
    pub id: Tally,
    /// Flow label of IPv6 packets, where it is not zero at both sides.
    pub label: Tally,
    /// TTL or hop limit of packets that go out.
    pub ttl_out: Ttl,
    /// TTL or hop limit of packets that come back.
    pub ttl_back: Ttl,
    /// TOS or traffic class, where it is not zero at the side where the packet comes from.
    pub tos: Tally,
    /// The port of the hidden host, or the id of its echo requests.
    pub port: Tally,
    /// Initial sequence numbers of the connections' hidden ends.
    pub isn_out: Tally,
    /// Initial sequence numbers of their far ends.
    pub isn_back: Tally,
    /// Kinds of TCP options and their order, in SYNs and SYN/ACKs.
    pub options: Tally,
    /// The first options that differed, kinds in their order, as the packet met them.
    pub options_example: Option<(Vec<u8>, Vec<u8>)>,
    /// The window in SYNs and SYN/ACKs.
    pub window: Tally,
    /// TCP timestamps of packets that carry the same bytes.
    pub timestamps: Tally,
    /// The MSS in SYNs and SYN/ACKs.
    pub mss: Tally,
    /// Where the same bytes are cut into segments.
    pub segments: Tally,
    /// Are there segments longer than the MSS? Then a device or the kernel cuts them later, and where is not in the capture.
    pub offload: bool,
    /// Who answers a SYN first.
    pub handshake: Promptness,
    /// Who acknowledges data first.
    pub acknowledged: Promptness,
    /// UDP datagrams sent without a checksum: do they arrive without?
    pub no_checksum: Tally,
}

/// A pair of flows, and what it is at either side.
#[derive(Clone, Copy)]
pub(crate) struct Both<'a> {
    pub(crate) pair: Pair,
    pub(crate) inside: &'a Flow,
    pub(crate) outside: &'a Flow,
    /// The direction of the flow inside in which packets go out.
    pub(crate) out: Direction,
}

impl<'a> Both<'a> {
    pub(crate) fn new(pair: Pair, inside: &'a Flows, outside: &'a Flows) -> Option<Both<'a>> {
        let (inside, outside) = (inside.all.get(pair.inside)?, outside.all.get(pair.outside)?);
        let (own, other) = (inside.tuple(Direction::Original), outside.tuple(pair.outside(Direction::Original)));
        let ends = ((own.src, own.src_u) == (other.src, other.src_u), (own.dst, own.dst_u) == (other.dst, other.dst_u));
        let out = match ends {
            // The hidden end is the one that is called something else outside.
            (false, _) => Direction::Original,
            (true, false) => Direction::Reply,
            (true, true) => pair.out.unwrap_or_else(|| untranslated_out(pair, inside, outside)),
        };
        Some(Both { pair, inside, outside, out })
    }

    /// A direction of the flow at both sides, named after that inside.
    pub(crate) fn lanes(&self, inside: Direction) -> (&'a Lane, &'a Lane) {
        (self.inside.lane(inside), self.outside.lane(self.pair.outside(inside)))
    }

    /// The hidden host.
    pub(crate) fn inside_address(&self) -> (L3, Addr) {
        let tuple = self.inside.tuple(self.out);
        (tuple.l3num, tuple.src)
    }

    /// What the hidden host is called outside.
    pub(crate) fn outside_address(&self) -> (L3, Addr) {
        let tuple = self.outside.tuple(self.pair.outside(self.out));
        (tuple.l3num, tuple.src)
    }

    /// Is the flow called something else outside?
    pub(crate) fn is_translated(&self) -> bool {
        self.inside.tuple(self.out) != self.outside.tuple(self.pair.outside(self.out))
    }

    /// Are the numbers of its directions the same at both sides?
    fn same_numbers(&self) -> bool {
        Direction::BOTH.into_iter().all(|direction| {
            let (own, other) = self.lanes(direction);
            own.isn.zip(other.isn).is_none_or(|(own, other)| own == other)
        })
    }
}

/// Which way is out when no address and no other flow says it: where the TTL is a little smaller outside, and not the way back. It is the way
/// that the flow began in, unless both directions contradict that.
fn untranslated_out(pair: Pair, inside: &Flow, outside: &Flow) -> Direction {
    let ttl = |lane: &Lane| lane.packets.first().map(|facts| facts.ttl);
    let ttls = |direction: Direction| ttl(inside.lane(direction)).zip(ttl(outside.lane(pair.outside(direction))));
    let goes_out =
        |direction| ttls(direction).map(|(own, other)| (1..=Ttl::HOPS).any(|by| own.checked_sub(by) == Some(other)));
    let comes_in =
        |direction| ttls(direction).map(|(own, other)| (1..=Ttl::HOPS).any(|by| other.checked_sub(by) == Some(own)));
    match (comes_in(Direction::Original), goes_out(Direction::Reply)) {
        (Some(true), Some(true) | None) => Direction::Reply,
        _ => Direction::Original,
    }
}

/// What is the same of a packet at both sides.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Same {
    Datagram(Option<u64>, u32),
    Echo(u16),
    Segment { seq: u32, ack: u32, flags: u8, len: u32 },
    Bytes { at: u32, flags: u8, len: u32 },
}

fn same(facts: &Facts, lane: &Lane, same_numbers: bool) -> Option<Same> {
    Some(match facts.detail {
        Detail::Udp => Same::Datagram(facts.content, facts.len),
        Detail::Echo { seq, .. } => Same::Echo(seq),
        Detail::Tcp { seq, ack, flags, .. } if same_numbers => Same::Segment { seq, ack, flags, len: facts.len },
        // An acknowledgement alone is the business of whoever sends it.
        Detail::Tcp { seq, flags, .. } => {
            let flags = flags & (flag::SYN | flag::FIN | flag::RST);
            if facts.len == 0 && flags & flag::SYN == 0 {
                return None;
            }
            Same::Bytes { at: lane.relative(seq)?, flags, len: facts.len }
        }
    })
}

/// The packets of a direction that are at both sides: each with the one nearest in time that carries the same.
pub(crate) fn matched(both: &Both<'_>, inside: Direction, clock: Option<&Clock>) -> Vec<(usize, usize)> {
    /// Nothing takes longer from one side to the other.
    const LONGEST: i128 = 2_000_000_000;

    let (own, other) = both.lanes(inside);
    let same_numbers = both.same_numbers();
    let mut there: HashMap<Same, Vec<usize>> = HashMap::new();
    for (number, facts) in other.packets.iter().enumerate() {
        if let Some(key) = same(facts, other, same_numbers) {
            there.entry(key).or_default().push(number);
        }
    }
    let mut found = Vec::new();
    for (number, facts) in own.packets.iter().enumerate() {
        let Some(candidates) = same(facts, own, same_numbers).and_then(|key| there.get_mut(&key)) else { continue };
        let gap = |at: &usize| match (clock, other.packets.get(*at)) {
            (Some(clock), Some(facts_there)) => (i128::from(facts.time) - clock.inside(facts_there.time)).abs(),
            _ => 0,
        };
        let Some((at, nearest)) = candidates.iter().enumerate().min_by_key(|(_, at)| gap(at)) else { continue };
        if gap(nearest) <= LONGEST {
            found.push((number, candidates.remove(at)));
        }
    }
    found
}

impl Evidence {
    /// Adds what a pair shows.
    pub(crate) fn add(&mut self, both: &Both<'_>, clock: Option<&Clock>) {
        self.flows += 1;
        self.weak += u64::from(both.pair.weak);
        for direction in Direction::BOTH {
            let outward = direction == both.out;
            let (own, other) = both.lanes(direction);
            let pairs = matched(both, direction, clock);
            let packets = pairs.iter().filter_map(|(a, b)| Some((own.packets.get(*a)?, other.packets.get(*b)?)));
            let mut count = 0;
            for (own, other) in packets {
                count += 1;
                if outward { self.packet(own, other, true) } else { self.packet(other, own, false) }
            }
            self.packets += count;
            let (from, lost) = if outward { (own, &mut self.lost_out) } else { (other, &mut self.lost_back) };
            // Those with a TTL of 1 end there.
            let expected = from.packets.iter().filter(|facts| facts.ttl > 1).count() as u64;
            *lost += expected.saturating_sub(count);
            if both.inside.protocol == Protocol::Tcp {
                let lanes = if outward { (own, other) } else { (other, own) };
                self.opened(lanes, outward);
                self.segments(lanes);
            }
        }
        let hidden = (both.inside.tuple(both.out), both.outside.tuple(both.pair.outside(both.out)));
        self.port.count(hidden.0.src_u.into(), hidden.1.src_u.into());
        if both.inside.protocol == Protocol::Tcp {
            self.prompt(both);
        }
    }

    /// A packet where it comes from and at the other side.
    fn packet(&mut self, from: &Facts, to: &Facts, outward: bool) {
        if from.id != 0 || to.id != 0 {
            self.id.count(from.id.into(), to.id.into());
        }
        if from.label != 0 || to.label != 0 {
            self.label.count(from.label, to.label);
        }
        if from.tos != 0 {
            self.tos.count(from.tos.into(), to.tos.into());
        }
        let ttl = if outward { &mut self.ttl_out } else { &mut self.ttl_back };
        ttl.count(from.ttl, to.ttl);
        match (from.detail, to.detail) {
            (Detail::Tcp { stamp: Some(from), .. }, Detail::Tcp { stamp: Some(to), .. }) => {
                self.timestamps.count(from, to);
            }
            (Detail::Udp, Detail::Udp) if from.checksum == Some(0) => {
                self.no_checksum.count(0, u32::from(to.checksum != Some(0)));
            }
            _ => {}
        }
    }

    /// How a direction of a connection was opened.
    fn opened(&mut self, (from, to): (&Lane, &Lane), outward: bool) {
        if let (Some(from), Some(to)) = (from.isn, to.isn) {
            let tally = if outward { &mut self.isn_out } else { &mut self.isn_back };
            tally.count(from, to);
        }
        let (Some(from), Some(to)) = (&from.syn, &to.syn) else { return };
        self.window.count(from.window.into(), to.window.into());
        if let (Some(from), Some(to)) = (from.mss, to.mss) {
            self.mss.count(from.into(), to.into());
        }
        if from.kinds == to.kinds {
            self.options.kept += 1;
        } else {
            self.options.changed += 1;
            self.options_example.get_or_insert_with(|| (from.kinds.clone(), to.kinds.clone()));
        }
    }

    /// Where the bytes that are at both sides are cut.
    fn segments(&mut self, (from, to): (&Lane, &Lane)) {
        let most = |lane: &Lane| lane.syn.as_ref().and_then(|syn| syn.mss);
        let cuts = |lane: &Lane| -> BTreeMap<u32, u32> {
            let data = lane.packets.iter().filter(|facts| facts.len > 0);
            data.filter_map(|facts| Some((lane.relative(facts.seq()?)?, facts.len))).collect()
        };
        let (own, other) = (cuts(from), cuts(to));
        // A path that carries more than its MSS is none: what is longer was not yet cut when it was captured.
        let longest = own.values().chain(other.values()).max().copied().unwrap_or(0);
        let mss = most(from).into_iter().chain(most(to)).max().unwrap_or(1460);
        self.offload |= longest > u32::from(mss);
        let known_until = |cuts: &BTreeMap<u32, u32>| cuts.iter().map(|(at, len)| at.wrapping_add(*len)).max();
        let Some(end) = known_until(&own).min(known_until(&other)) else { return };
        for (at, len) in own.iter().filter(|(at, len)| at.wrapping_add(**len) <= end) {
            match other.get(at) {
                Some(there) if there == len => self.segments.kept += 1,
                Some(_) => self.segments.changed += 1,
                // A segment that begins where another does not: unless the whole of it is missing at the other side.
                None if other.range(..at).next_back().is_some_and(|(start, there)| start + there > *at) => {
                    self.segments.changed += 1;
                }
                None => {}
            }
        }
    }

    /// Who answered first: what crosses the NAT cannot be answered sooner at the side that it comes from than at the other.
    fn prompt(&mut self, both: &Both<'_>) {
        let (own, other) = both.lanes(both.out);
        let (own_back, other_back) = both.lanes(both.out.opposite());
        self.handshake.count(handshake(own, own_back), handshake(other, other_back));
        let data = acknowledged((own, own_back), (other, other_back));
        let answer = acknowledged((other_back, other), (own_back, own));
        for (near, far) in [data, answer].into_iter().flatten() {
            self.acknowledged.count(Some(near), Some(far));
        }
    }
}

impl Promptness {
    /// The times that an answer took, at the side where the question comes from and at the other.
    fn count(&mut self, near: Option<u64>, far: Option<u64>) {
        /// Less than this is what two captures differ in.
        const SLACK: u64 = 300_000;

        let (Some(near), Some(far)) = (near, far) else { return };
        if near.saturating_add(SLACK) < far {
            self.early += 1;
            self.example.get_or_insert((near, far));
        } else {
            self.late += 1;
        }
    }
}

/// How long a SYN waited for its SYN/ACK, where there is one of each.
fn handshake(asks: &Lane, answers: &Lane) -> Option<u64> {
    let mut syns = asks.packets.iter().filter(|facts| facts.is_syn());
    let mut answers = answers.packets.iter().filter(|facts| facts.is_syn_ack());
    match (syns.next(), syns.next(), answers.next(), answers.next()) {
        (Some(syn), None, Some(answer), None) => answer.time.checked_sub(syn.time),
        _ => None,
    }
}

/// How long the first data of a direction waited for an acknowledgement: at the side where it comes from, and where the
/// same bytes were seen at the other. Each side is the lane that sends and the lane that answers.
fn acknowledged(near: (&Lane, &Lane), far: (&Lane, &Lane)) -> Option<(u64, u64)> {
    let end = |lane: &Lane, facts: &Facts| Some(lane.relative(facts.seq()?)?.wrapping_add(facts.len));
    let first = near.0.packets.iter().find(|facts| facts.len > 0 && !facts.is_syn())?;
    let bytes = end(near.0, first)?;
    let there =
        far.0.packets.iter().find(|facts| facts.len > 0 && end(far.0, facts).is_some_and(|end| end >= bytes))?;
    let waited = |(sends, answers): (&Lane, &Lane), data: &Facts| {
        let acknowledges = |facts: &&Facts| match facts.detail {
            Detail::Tcp { ack, flags, .. } if flags & (flag::ACK | flag::SYN | flag::RST) == flag::ACK => {
                facts.time >= data.time && sends.relative(ack).is_some_and(|ack| ack >= bytes)
            }
            _ => false,
        };
        answers.packets.iter().find(acknowledges)?.time.checked_sub(data.time)
    };
    Some((waited(near, first)?, waited(far, there)?))
}

/// The name of a TCP option.
#[must_use]
pub fn option_name(kind: u8) -> String {
    match kind {
        option::END => "end".to_owned(),
        option::NOP => "nop".to_owned(),
        option::MSS => "mss".to_owned(),
        3 => "wscale".to_owned(),
        4 => "sackOK".to_owned(),
        option::TIMESTAMPS => "ts".to_owned(),
        34 => "tfo".to_owned(),
        other => other.to_string(),
    }
}

/// Which of [`Evidence::id`] and [`Evidence::label`] the family has.
#[must_use]
pub const fn identity(evidence: &Evidence, l3num: L3) -> Tally {
    match l3num {
        L3::V4 => evidence.id,
        L3::V6 => evidence.label,
    }
}
