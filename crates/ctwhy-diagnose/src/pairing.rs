//! Which flow outside is which flow inside, whatever addresses and ports say.
//!
//! Candidates are flows that share a mark: what they carry, or a TCP sequence number. Each gets points for what else is the
//! same, and the best are taken first. What has no mark in common, such as a connection through a proxy that never carried
//! a byte, is paired by where it goes and when, and such a pair counts as weak.

use std::collections::{BTreeMap, HashMap, HashSet};

use ctwhy_core::direction::Direction;
use ctwhy_core::tuple::{Addr, L3};

use crate::clock::Clock;
use crate::evidence::Both;
use crate::flows::{Flow, Flows};
use crate::index::{Index, Key, OPENING_MARK, Place, keys, marks};
use crate::observe::Protocol;

const MILLISECOND: i128 = 1_000_000;

/// A flow inside and the same flow outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) inside: usize,
    pub(crate) outside: usize,
    /// Were both captures begun in the same direction of it?
    pub(crate) aligned: bool,
    /// Paired by where it goes and when, not by what it is.
    pub(crate) weak: bool,
    /// Does what it carries, or its numbers, tell it from all others without asking where it goes?
    pub(crate) unique: bool,
    /// Which direction inside goes out, where nothing of it is translated and other pairs say whose host it is.
    pub(crate) out: Option<Direction>,
}

impl Pair {
    /// The direction outside of what is this direction inside.
    pub(crate) const fn outside(&self, inside: Direction) -> Direction {
        if self.aligned { inside } else { inside.opposite() }
    }
}

/// The pairs, and what kept flows from being paired.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) all: Vec<Pair>,
    /// Flows of the inside that are in the capture outside untranslated as well, beside their translated twin.
    pub(crate) twins: u64,
}

/// What a pair has to reach.
const ENOUGH: u32 = 40;
/// A mark that many flows have leads only to those that also share an end.
const RARE: usize = 16;
/// Candidates of a flow that are looked at.
const LOOKED_AT: usize = 64;
/// How long a packet takes at most from one side to the other, where nothing else tells two apart.
const NEAR: i128 = 50 * MILLISECOND;
/// How far flows of the same traffic may lie apart.
const APART: i128 = 5_000 * MILLISECOND;

/// Pairs the flows of two sides.
pub(crate) fn pair(inside: &Flows, outside: &Flows, indexes: (&Index, &Index), clock: Option<&Clock>) -> Pairs {
    let mut judge = Judge { inside, outside, own: indexes.0, other: indexes.1, clock };
    let mut candidates = Vec::new();
    let mut twins = 0;
    for number in 0..inside.all.len() {
        twins += u64::from(judge.candidates(number, &mut candidates));
    }
    candidates.sort_by_key(|candidate| (std::cmp::Reverse(candidate.points), candidate.gap));
    let (mut taken_in, mut taken_out) = (HashSet::new(), HashSet::new());
    let mut all = Vec::new();
    for Candidate { pair, .. } in candidates {
        if !taken_in.contains(&pair.inside) && !taken_out.contains(&pair.outside) {
            taken_in.insert(pair.inside);
            taken_out.insert(pair.outside);
            all.push(pair);
        }
    }
    all.extend(judge.weak(&taken_in, &taken_out));
    orient(&mut all, inside, outside);
    drop_strangers(&mut all, inside, outside);
    drop_misfits(&mut all, inside, outside);
    all.sort_by_key(|pair| pair.inside);
    Pairs { all, twins }
}

/// What two flows have in common.
#[derive(Clone, Copy, Default)]
struct Shared {
    /// Hundredths of points.
    points: u32,
    /// Is there a mark that no other flow has at that time?
    sure: bool,
}

struct Candidate {
    pair: Pair,
    points: u32,
    gap: i128,
    untranslated: bool,
}

struct Judge<'a> {
    inside: &'a Flows,
    outside: &'a Flows,
    own: &'a Index,
    other: &'a Index,
    clock: Option<&'a Clock>,
}

impl Judge<'_> {
    /// Adds the candidates of a flow of the inside; says whether there was one that is the flow itself, untranslated, which
    /// is left out where there is another.
    fn candidates(&mut self, number: usize, found: &mut Vec<Candidate>) -> bool {
        let Some(flow) = self.inside.all.get(number) else { return false };
        let mut shared: BTreeMap<(usize, bool), Shared> = BTreeMap::new();
        for direction in Direction::BOTH {
            for (mark, time) in marks(flow, direction) {
                self.share(&keys(flow, direction, mark), (direction, time), &mut shared);
            }
        }
        let judged = shared.into_iter().filter_map(|((other, aligned), shared)| {
            let pair = Pair {
                inside: number,
                outside: other,
                aligned,
                weak: !shared.sure,
                unique: shared.points / 100 >= ENOUGH,
                out: None,
            };
            self.judge(flow, self.outside.all.get(other)?, pair, shared.points)
        });
        let judged: Vec<Candidate> = judged.collect();
        let twin = judged.iter().any(|candidate| candidate.untranslated);
        let translated = judged.iter().any(|candidate| !candidate.untranslated);
        found.extend(judged.into_iter().filter(|candidate| !(translated && candidate.untranslated)));
        twin && translated
    }

    /// Points for a mark to all flows outside that have it: fewer where many have it.
    fn share(
        &self,
        keys: &[Key; 3],
        (direction, time): (Direction, u64),
        shared: &mut BTreeMap<(usize, bool), Shared>,
    ) {
        /// For a mark that is nobody else's.
        const UNIQUE: u32 = 4000;
        /// No flow gets more for its marks.
        const MOST: u32 = 3 * UNIQUE;

        let [either, ends @ ..] = keys;
        let owners = self.own.places(either).len().max(self.other.places(either).len()).max(1);
        let each = UNIQUE / u32::try_from(owners).unwrap_or(u32::MAX);
        let everywhere: &[Key] = if owners <= RARE { std::slice::from_ref(either) } else { ends };
        let mut seen = HashSet::new();
        for place in everywhere.iter().flat_map(|key| self.nearest(self.other.places(key), time)) {
            let candidate = (place.flow, place.direction == direction);
            if seen.insert(candidate) {
                let found = shared.entry(candidate).or_default();
                found.points = (found.points + each.max(1)).min(MOST);
            }
        }
        for key in keys {
            if let Some(place) = self.only(key, time) {
                shared.entry((place.flow, place.direction == direction)).or_default().sure = true;
            }
        }
    }

    /// The place of a mark outside, if it has but one at each side at about this time inside.
    fn only(&self, key: &Key, time: u64) -> Option<&Place> {
        const ABOUT: i128 = 500 * MILLISECOND;

        let (own, other) = (self.own.places(key), self.other.places(key));
        let Some(clock) = self.clock else {
            return if own.len() == 1 && other.len() == 1 { other.first() } else { None };
        };
        let about = |at: i128| (at - i128::from(time)).abs() <= ABOUT;
        let first = other.partition_point(|place| clock.inside(place.time) < i128::from(time) - ABOUT);
        let mut there = other.get(first..)?.iter().take_while(|place| about(clock.inside(place.time)));
        let first = own.partition_point(|place| i128::from(place.time) < i128::from(time) - ABOUT);
        let here = own.get(first..)?.iter().take_while(|place| about(place.time.into())).take(2).count();
        let only = there.next()?;
        (there.next().is_none() && here == 1).then_some(only)
    }

    /// The places nearest to a time inside, where there are more than are looked at.
    fn nearest<'a>(&self, places: &'a [Place], time: u64) -> &'a [Place] {
        let Some(clock) = self.clock else { return places.get(..places.len().min(LOOKED_AT)).unwrap_or_default() };
        let at = places.partition_point(|place| clock.inside(place.time) < i128::from(time));
        let from = at.saturating_sub(LOOKED_AT / 2);
        places.get(from..places.len().min(from + LOOKED_AT)).unwrap_or_default()
    }

    /// A pair that shares `marked` hundredths of points; `None` when it cannot be one, or has too little in common.
    fn judge(&self, own: &Flow, other: &Flow, pair: Pair, marked: u32) -> Option<Candidate> {
        let gap = self.gap(own, other);
        if gap.is_some_and(|gap| gap > APART) {
            return None;
        }
        let mut points = marked / 100;
        for direction in Direction::BOTH {
            let (a, b) = (own.lane(direction), other.lane(pair.outside(direction)));
            let (a_opens, b_opens) = (a.opening(), b.opening());
            let common = a_opens.len().min(b_opens.len());
            if a_opens.get(..common) != b_opens.get(..common) {
                return None;
            }
            points += if common > 0 && common < OPENING_MARK { 10 } else { 0 };
        }
        let (a, b) = (own.tuple(Direction::Original), other.tuple(pair.outside(Direction::Original)));
        // That both ends are called something else is a proxy's doing alone, and takes more to be believed. Those who ping
        // carry what everybody carries.
        let strange = a.src != b.src && a.dst != b.dst;
        if strange && (points < 2 * ENOUGH || own.protocol == Protocol::Echo) {
            return None;
        }
        let port = |same: bool| u32::from(same && own.protocol != Protocol::Echo) * 10;
        points += u32::from(a.dst == b.dst) * 20 + port(a.dst_u == b.dst_u);
        points += u32::from(a.src == b.src) * 20 + port(a.src_u == b.src_u);
        // What many carry is told apart by its time.
        let common = marked / 100 < ENOUGH;
        if common
            && gap.is_some_and(|gap| gap > self.clock.map_or(0, |clock| 4 * i128::from(clock.uncertainty_ns)) + NEAR)
        {
            return None;
        }
        points += match gap {
            Some(gap) if gap <= NEAR => 10,
            Some(gap) if gap <= 1_000 * MILLISECOND => 5,
            _ => 0,
        };
        points += u32::from(pair.aligned);
        let untranslated = a == b && seen_unchanged(own, other);
        let gap = gap.unwrap_or(0);
        (points >= ENOUGH).then_some(Candidate { pair, points, gap, untranslated })
    }

    /// Nanoseconds between the times at which two flows were seen; 0 when they overlap and began together.
    fn gap(&self, own: &Flow, other: &Flow) -> Option<i128> {
        let clock = self.clock?;
        let own = (i128::from(own.first), i128::from(own.last));
        let other = (clock.inside(other.first), clock.inside(other.last));
        let apart = (own.0 - other.1).max(other.0 - own.1);
        let begins = (own.0 - other.0).abs();
        // Of a flow that is there at both times the beginning may be missing at one side.
        Some(if apart <= 0 { begins.min(1_000 * MILLISECOND) } else { apart.max(begins) })
    }

    /// TCP connections that share nothing but where they go, and when. They are taken where they are each other's nearest,
    /// or where there is only one at each side.
    fn weak(&self, taken_in: &HashSet<usize>, taken_out: &HashSet<usize>) -> Vec<Pair> {
        let own = by_destination(self.inside, taken_in);
        let other = by_destination(self.outside, taken_out);
        let mut found = Vec::new();
        for (destination, own) in &own {
            let Some(other) = other.get(destination) else { continue };
            let Some(clock) = self.clock else {
                if let ([(inside, _)], [(outside, _)]) = (own.as_slice(), other.as_slice()) {
                    found.push(Pair {
                        inside: *inside,
                        outside: *outside,
                        aligned: true,
                        weak: true,
                        unique: false,
                        out: None,
                    });
                }
                continue;
            };
            let own: Vec<(usize, i128)> = own.iter().map(|(number, time)| (*number, i128::from(*time))).collect();
            let other: Vec<(usize, i128)> = other.iter().map(|(number, time)| (*number, clock.inside(*time))).collect();
            for (inside, at) in &own {
                let Some((outside, there)) = nearest_in_time(&other, *at) else { continue };
                let mutual = nearest_in_time(&own, there).is_some_and(|(nearest, _)| nearest == *inside);
                let within = (at - there).abs() <= 4 * NEAR + i128::from(clock.uncertainty_ns);
                let fits =
                    self.inside.all.get(*inside).zip(self.outside.all.get(outside)).is_some_and(|(a, b)| agree(a, b));
                if mutual && within && fits {
                    found.push(Pair { inside: *inside, outside, aligned: true, weak: true, unique: false, out: None });
                }
            }
        }
        found
    }
}

/// Says of flows in which nothing is translated which end is the hidden one, where that is known of its host from others: a
/// NAT that keeps ports may hide a host behind the address that it has itself.
fn orient(pairs: &mut [Pair], inside: &Flows, outside: &Flows) {
    let both = |pair: &Pair| Both::new(*pair, inside, outside);
    let translated = pairs.iter().filter_map(both).filter(Both::is_translated);
    let hidden: HashSet<(L3, Addr)> = translated.map(|both| both.inside_address()).collect();
    for pair in pairs.iter_mut() {
        let Some(flow) = inside.all.get(pair.inside) else { continue };
        let is_hidden = |way| hidden.contains(&(flow.tuple(way).l3num, flow.tuple(way).src));
        pair.out = Direction::BOTH.into_iter().find(|way| is_hidden(*way) && !is_hidden(way.opposite()));
    }
}

/// Leaves out the pairs that are not sure and contradict those that are: a host that is known to be hidden behind an address
/// is not taken for another one that does the same things at the same time.
fn drop_strangers(pairs: &mut Vec<Pair>, inside: &Flows, outside: &Flows) {
    let ends = |pair: &Pair| {
        let both = Both::new(*pair, inside, outside)?;
        Some((both.inside_address(), both.outside_address()))
    };
    let sure: HashSet<_> = pairs.iter().filter(|pair| !pair.weak).filter_map(ends).collect();
    let hosts: HashSet<_> = sure.iter().map(|(host, _)| *host).collect();
    let addresses: HashSet<_> = sure.iter().map(|(_, address)| *address).collect();
    let families: HashSet<L3> = addresses.iter().map(|(l3num, _)| *l3num).collect();
    pairs.retain(|pair| {
        let Some((host, address)) = ends(pair) else { return false };
        let known = if hosts.contains(&host) { sure.contains(&(host, address)) } else { addresses.contains(&address) };
        !pair.weak || known || !families.contains(&address.0)
    });
}

/// Leaves out the pairs that no mark of their own holds together and that do not fit the others: behind an address where
/// identifications are kept nearly always, a packet with another one is another packet.
fn drop_misfits(pairs: &mut Vec<Pair>, inside: &Flows, outside: &Flows) {
    const SEVERAL: usize = 5;

    let keeps = |pair: &Pair| {
        let both = Both::new(*pair, inside, outside)?;
        let (own, other) = both.lanes(Direction::Original);
        let (own, other) = (own.packets.first()?, other.packets.first()?);
        let stamped = own.content == other.content && (own.id, own.label) != (0, 0);
        stamped.then_some((both.outside_address(), (own.id, own.label) == (other.id, other.label)))
    };
    let mut counts: HashMap<(L3, Addr), (usize, usize)> = HashMap::new();
    for (address, kept) in pairs.iter().filter_map(keeps) {
        let (all, kept_all) = counts.entry(address).or_default();
        *all += 1;
        *kept_all += usize::from(kept);
    }
    pairs.retain(|pair| {
        let Some((address, kept)) = keeps(pair) else { return true };
        let (all, kept_all) = counts.get(&address).copied().unwrap_or_default();
        kept || pair.unique || all < SEVERAL || kept_all * 10 < all * 8
    });
}

/// Do two flows begin with the very same packet, TTL and all? Then nothing is between the places where it was seen.
fn seen_unchanged(own: &Flow, other: &Flow) -> bool {
    let first = |flow: &Flow| {
        let facts = flow.lane(Direction::Original).packets.first()?;
        Some((facts.ttl, facts.id, facts.label, facts.content))
    };
    first(own) == first(other)
}

/// Do the bytes that two connections carried not contradict each other?
fn agree(own: &Flow, other: &Flow) -> bool {
    Direction::BOTH.into_iter().all(|direction| {
        let (a, b) = (own.lane(direction).opening(), other.lane(direction).opening());
        let common = a.len().min(b.len());
        a.get(..common) == b.get(..common)
    })
}

/// Where a connection goes.
type Destination = (L3, Addr, u16);

/// Which of these, in the order of their times, is nearest to a time.
fn nearest_in_time(flows: &[(usize, i128)], time: i128) -> Option<(usize, i128)> {
    let at = flows.partition_point(|(_, own)| *own < time);
    let around = flows.get(at.saturating_sub(1)..flows.len().min(at + 1))?;
    around.iter().copied().min_by_key(|(_, own)| (own - time).abs())
}

/// The TCP connections whose SYN was seen, by where they go and in the order of time.
fn by_destination(flows: &Flows, taken: &HashSet<usize>) -> HashMap<Destination, Vec<(usize, u64)>> {
    let mut found: HashMap<Destination, Vec<(usize, u64)>> = HashMap::new();
    for (number, flow) in flows.all.iter().enumerate().filter(|(number, _)| !taken.contains(number)) {
        if flow.protocol == Protocol::Tcp && flow.lane(Direction::Original).syn.is_some() {
            let tuple = flow.tuple(Direction::Original);
            found.entry((tuple.l3num, tuple.dst, tuple.dst_u)).or_default().push((number, flow.first));
        }
    }
    for connections in found.values_mut() {
        connections.sort_by_key(|(_, time)| *time);
    }
    found
}
