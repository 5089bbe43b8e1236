//! Every ICMP error, whether it came out at the other side and how.

mod compare;

use std::collections::{BTreeMap, HashMap, HashSet};

use ctwhy_core::direction::Direction;
use ctwhy_core::tuple::{Addr, L3, Tuple};

pub use compare::{Difference, Field};

use crate::Side;
use crate::clock::Clock;
use crate::evidence::{Both, matched};
use crate::flows::Flows;
use crate::linux::{self, Ruled};
pub use crate::observe::Error;
use crate::observe::{Detail, Facts, Protocol, flag};
use crate::pairing::Pair;
use compare::{compare, quote};

/// What became of an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// It came out as Linux would have sent it on: the message and the packet in it byte for byte.
    Relayed,
    /// It came out, and what became another in it misleads nobody.
    Altered,
    /// It came out, and says something wrong.
    Mistranslated,
    /// It did not come out, and Linux would have delivered it.
    Swallowed,
    /// It was not seen at the other side, where nearly all of its kind were: a packet that the capture lacks, most likely.
    Missing,
    /// It did not come out, and Linux would not have delivered it either.
    Refused,
    /// It came out, and Linux would have refused it.
    LetThrough,
    /// Nothing can be said.
    Unjudged(Why),
}

/// Why nothing can be said about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// It is about a flow that was not recognised at the other side.
    NotPaired,
    /// The other capture has no packet from before and after it, and may not have been running.
    NotCovered,
    /// The capture does not hold all of it.
    Cut,
    /// Its flow was recognised by what many others carry, and what happens to those says nothing either.
    Unsure,
}

impl Fate {
    /// Does it say that something is wrong with the NAT?
    #[must_use]
    pub const fn is_amiss(self) -> bool {
        matches!(self, Fate::Mistranslated | Fate::Swallowed | Fate::LetThrough)
    }

    /// Was the error seen at the other side?
    #[must_use]
    pub const fn came_out(self) -> bool {
        matches!(self, Fate::Relayed | Fate::Altered | Fate::Mistranslated | Fate::LetThrough)
    }

    /// The stable code, as in `--json`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Fate::Relayed => "relayed",
            Fate::Altered => "altered",
            Fate::Mistranslated => "mistranslated",
            Fate::Swallowed => "swallowed",
            Fate::Missing => "missing",
            Fate::Refused => "refused",
            Fate::LetThrough => "let_through",
            Fate::Unjudged(Why::NotPaired) => "unjudged.not_paired",
            Fate::Unjudged(Why::NotCovered) => "unjudged.not_covered",
            Fate::Unjudged(Why::Cut) => "unjudged.cut",
            Fate::Unjudged(Why::Unsure) => "unjudged.unsure",
        }
    }
}

/// An ICMP error on its way through the NAT.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The side where it was before the NAT.
    pub seen: Side,
    /// The error there.
    pub error: Error,
    /// What it is about.
    pub protocol: Option<Protocol>,
    /// The flow as the other side calls it, in the direction of the quoted packet; `None` when it was not recognised.
    pub flow: Option<Tuple>,
    /// What became of it.
    pub fate: Fate,
    /// The error as it came out.
    pub came_out: Option<Error>,
    /// How that differs from what Linux would have sent on.
    pub differences: Vec<Difference>,
    /// What the host got instead: a TCP reset.
    pub reset_instead: bool,
    /// What Linux would have done.
    pub linux: Option<Ruled>,
    /// Which pair it is about.
    pub(crate) pair: Option<Pair>,
}

/// An ICMP error that no error at the other side explains.
#[derive(Clone, Debug)]
pub struct Own {
    /// Where it was seen.
    pub seen: Side,
    /// The error.
    pub error: Error,
    /// Was the packet that it quotes seen at the other side? Then it was not the NAT that dropped it.
    pub quoted_went_on: bool,
}

/// All errors.
#[derive(Debug, Default)]
pub struct Errors {
    /// Those that met the NAT, in the order of the captures, those seen outside first.
    pub judged: Vec<Judged>,
    /// Those that the NAT made itself, or a router between the captures.
    pub own: Vec<Own>,
    /// Seen behind the NAT, but about flows that were not recognised.
    pub unexplained: u64,
}

/// Both captures and what is known of them.
pub(crate) struct Scene<'a> {
    pub(crate) inside: &'a Flows,
    pub(crate) outside: &'a Flows,
    pub(crate) pairs: &'a [Pair],
    pub(crate) clock: Option<&'a Clock>,
    /// What the hidden hosts are called at either side.
    pub(crate) hidden: [HashSet<Addr>; 2],
    /// The addresses outside behind which it is not known what happens to a protocol.
    pub(crate) undetermined: HashSet<(L3, Addr, Protocol)>,
}

/// Where an error is on its way.
#[derive(Clone, Copy)]
enum Stage {
    /// Before the NAT; `None` for a flow that was not paired.
    Before(Option<usize>),
    /// Behind it.
    Behind(usize),
    /// Behind it, about a flow that was not paired.
    BehindUnpaired,
    /// It quotes nothing that was seen.
    Unknown,
}

/// An error behind the NAT that none before it has been found for yet.
struct Waiting<'a> {
    error: &'a Error,
    seen: Side,
    pair: Option<usize>,
    /// Does it quote a packet that was seen at its side?
    known: bool,
    taken: bool,
}

impl<'a> Waiting<'a> {
    fn new(error: &'a Error, seen: Side, pair: Option<usize>, known: bool) -> Waiting<'a> {
        Waiting { error, seen, pair, known, taken: false }
    }
}

impl<'a> Scene<'a> {
    fn flows(&self, side: Side) -> &'a Flows {
        match side {
            Side::Inside => self.inside,
            Side::Outside => self.outside,
        }
    }

    /// Is this what a hidden host is called at a side?
    fn is_hidden(&self, side: Side, address: Addr) -> bool {
        let [inside, outside] = &self.hidden;
        match side {
            Side::Inside => inside.contains(&address),
            Side::Outside => outside.contains(&address),
        }
    }

    fn is_undetermined(&self, both: &Both<'_>) -> bool {
        let (l3num, address) = both.outside_address();
        self.undetermined.contains(&(l3num, address, both.inside.protocol))
    }

    fn both(&self, pair: usize) -> Option<Both<'a>> {
        Both::new(*self.pairs.get(pair)?, self.inside, self.outside)
    }

    /// A time at a side by the clock inside.
    fn time(&self, side: Side, time: u64) -> i128 {
        match (side, self.clock) {
            (Side::Outside, Some(clock)) => clock.inside(time),
            _ => time.into(),
        }
    }

    /// Judges all errors.
    pub(crate) fn errors(&self) -> Errors {
        let mut by_flow: [HashMap<usize, usize>; 2] = Default::default();
        for (number, pair) in self.pairs.iter().enumerate() {
            by_flow[0].insert(pair.inside, number);
            by_flow[1].insert(pair.outside, number);
        }
        let mut judged = Vec::new();
        let mut waiting = Vec::new();
        for side in [Side::Outside, Side::Inside] {
            for error in &self.flows(side).errors {
                match self.stage(side, error, &by_flow) {
                    Stage::Before(pair) => judged.push(self.begin(side, error, pair)),
                    Stage::Behind(pair) => waiting.push(Waiting::new(error, side, Some(pair), true)),
                    Stage::BehindUnpaired => waiting.push(Waiting::new(error, side, None, true)),
                    Stage::Unknown => waiting.push(Waiting::new(error, side, None, false)),
                }
            }
        }
        self.find_results(&mut judged, &mut waiting);
        forgive(&mut judged);
        let mut errors = Errors { judged, ..Errors::default() };
        for waiting in waiting.into_iter().filter(|waiting| !waiting.taken) {
            self.left_over(&waiting, &mut errors);
        }
        errors
    }

    /// Is an error before the NAT or behind it, and about which pair?
    fn stage(&self, side: Side, error: &Error, by_flow: &[HashMap<usize, usize>; 2]) -> Stage {
        let [inside, outside] = by_flow;
        let (own, other) = match side {
            Side::Inside => (inside, outside),
            Side::Outside => (outside, inside),
        };
        if let Some((flow, direction)) = self.flows(side).find(&error.quoted) {
            // The flow of a packet that died at the NAT was never seen behind it.
            let Some(pair) = own.get(&flow) else {
                let end = if side == Side::Inside { error.quoted.src } else { error.quoted.dst };
                return if self.is_hidden(side, end) { Stage::BehindUnpaired } else { Stage::Before(None) };
            };
            let Some(both) = self.both(*pair) else { return Stage::Before(None) };
            // A quoted packet that went out has its error come in, and the other way round.
            let out = match side {
                Side::Inside => both.out,
                Side::Outside => both.pair.outside(both.out),
            };
            let comes_in = direction == out;
            return if comes_in == (side == Side::Outside) { Stage::Before(Some(*pair)) } else { Stage::Behind(*pair) };
        }
        // What was not translated is still called what the other side calls it.
        let untranslated = self.flows(side.opposite()).find(&error.quoted);
        match untranslated.and_then(|(flow, _)| other.get(&flow)) {
            Some(pair) => Stage::Behind(*pair),
            None => Stage::Unknown,
        }
    }

    /// An error before the NAT, and what Linux would do with it.
    fn begin(&self, seen: Side, error: &Error, pair: Option<usize>) -> Judged {
        let both = pair.and_then(|pair| self.both(pair));
        let linux = both.as_ref().and_then(|both| linux::rule(error, both));
        let own = self
            .flows(seen)
            .find(&error.quoted)
            .and_then(|(flow, direction)| Some((self.flows(seen).all.get(flow)?.protocol, direction)));
        let flow = both.as_ref().zip(own).map(|(both, (_, direction))| match seen {
            Side::Inside => *both.outside.tuple(both.pair.outside(direction)),
            Side::Outside => *both.inside.tuple(both.pair.outside(direction)),
        });
        Judged {
            seen,
            error: error.clone(),
            protocol: own.map(|(protocol, _)| protocol),
            flow,
            fate: Fate::Unjudged(Why::NotPaired),
            came_out: None,
            differences: Vec::new(),
            reset_instead: false,
            linux,
            pair: both.map(|both| both.pair),
        }
    }

    /// Finds each error behind the NAT: first those that are what Linux would have sent, then what is alike, at last what is
    /// about nothing that is known but goes where it should.
    fn find_results(&self, judged: &mut [Judged], waiting: &mut [Waiting<'_>]) {
        let numbers: HashMap<(usize, usize), usize> =
            self.pairs.iter().enumerate().map(|(number, pair)| ((pair.inside, pair.outside), number)).collect();
        let mut by_pair: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut homeless = Vec::new();
        for (number, waiting) in waiting.iter().enumerate() {
            match waiting.pair {
                Some(pair) => by_pair.entry(pair).or_default().push(number),
                None => homeless.push(number),
            }
        }
        for likeness in [Likeness::Exact, Likeness::Alike, Likeness::Stray] {
            for error in judged.iter_mut().filter(|error| error.came_out.is_none()) {
                let Some(pair) = error.pair.and_then(|pair| numbers.get(&(pair.inside, pair.outside))) else {
                    continue;
                };
                let pool = match likeness {
                    Likeness::Stray => homeless.as_slice(),
                    Likeness::Exact | Likeness::Alike => by_pair.get(pair).map_or(&[][..], Vec::as_slice),
                };
                let fits = |number: &&usize| {
                    waiting.get(**number).is_some_and(|waiting| !waiting.taken && self.fits(error, waiting, likeness))
                };
                let distance = |number: &&usize| waiting.get(**number).map(|waiting| self.delay(error, waiting).abs());
                let Some(number) = pool.iter().filter(fits).min_by_key(distance) else { continue };
                if let Some(found) = waiting.get_mut(*number) {
                    found.taken = true;
                    error.came_out = Some(found.error.clone());
                }
            }
        }
        for error in judged {
            self.judge(error);
            // Where flows are alike the error may be there, and about what was taken for another flow.
            let weak = error.pair.is_some_and(|pair| pair.weak);
            let ends = |found: &Error| (found.source(), found.destination());
            let expected = (error.error.source(), error.linux.as_ref().and_then(Ruled::delivered_to));
            let fits = |waiting: &Waiting<'_>| {
                let left_over = !waiting.taken && waiting.known && ends(waiting.error) == expected;
                left_over && self.fits(error, waiting, Likeness::Alike)
            };
            if error.fate == Fate::Swallowed && weak && waiting.iter().any(fits) {
                error.fate = Fate::Unjudged(Why::Unsure);
            }
        }
    }

    /// From an error before the NAT to one behind it, in nanoseconds.
    fn delay(&self, error: &Judged, waiting: &Waiting<'_>) -> i128 {
        self.time(waiting.seen, waiting.error.time_ns) - self.time(error.seen, error.error.time_ns)
    }

    fn fits(&self, before: &Judged, behind: &Waiting<'_>, likeness: Likeness) -> bool {
        const EARLIEST: i128 = -20_000_000;
        const LATEST: i128 = 3_000_000_000;

        let (error, result) = (&before.error, behind.error);
        let uncertain = self.clock.map_or(0, |clock| i128::from(clock.uncertainty_ns));
        let delay = self.delay(before, behind);
        let in_time = self.clock.is_none() || (EARLIEST - uncertain..=LATEST + uncertain).contains(&delay);
        let same_kind = (error.l3num, error.icmp_type) == (result.l3num, result.icmp_type);
        if before.seen == behind.seen || !in_time || !same_kind {
            return false;
        }
        match likeness {
            Likeness::Exact => {
                let expected = before.linux.as_ref().and_then(|linux| compare::message(&linux.bytes));
                expected.is_some() && expected == compare::message(&result.bytes)
            }
            Likeness::Alike => true,
            // It goes to the host of the flow, and the far end is called the same at both sides, as a rule. What is about the
            // hidden end of another flow is not for this one, though the capture may lack that.
            Likeness::Stray => {
                let ends = |tuple: &Tuple| match before.seen {
                    Side::Outside => ((tuple.src, tuple.src_u), (tuple.dst, tuple.dst_u)),
                    Side::Inside => ((tuple.dst, tuple.dst_u), (tuple.src, tuple.src_u)),
                };
                let Some(flow) = before.flow else { return false };
                let ((address, port), far) = ends(&result.quoted);
                let half_translated = port == ends(&error.quoted).0.1;
                let goes_to = |address: Addr| result.destination().is_some_and(|to| to == address.ip(result.l3num));
                goes_to(flow.src) && far == ends(&flow).1 && (half_translated || !self.is_hidden(behind.seen, address))
            }
        }
    }

    /// What became of an error, now that it is known what came out.
    fn judge(&self, judged: &mut Judged) {
        let Some(both) = judged.pair.and_then(|pair| Both::new(pair, self.inside, self.outside)) else { return };
        let Some(linux) = &judged.linux else { return };
        if linux.is_cut() {
            judged.fate = Fate::Unjudged(Why::Cut);
            return;
        }
        judged.fate = match &judged.came_out {
            Some(_) if !linux.is_delivered() => Fate::LetThrough,
            Some(result) => {
                let sent = sent(&both, judged.seen, &judged.error, self.clock);
                judged.differences = compare(&linux.bytes, &result.bytes, sent);
                match judged.differences.as_slice() {
                    [] => Fate::Relayed,
                    differences if differences.iter().any(|difference| difference.grave) => Fate::Mistranslated,
                    _ => Fate::Altered,
                }
            }
            None if !both.pair.unique && self.is_undetermined(&both) => Fate::Unjudged(Why::Unsure),
            None if !self.covers(judged) => Fate::Unjudged(Why::NotCovered),
            None if linux.is_delivered() => Fate::Swallowed,
            None => Fate::Refused,
        };
        if judged.fate == Fate::Swallowed {
            judged.reset_instead = self.reset_instead(judged, &both);
        }
    }

    /// Was the other capture running when the error was seen? That is sure only between its first and its last packet.
    fn covers(&self, judged: &Judged) -> bool {
        let other = judged.seen.opposite();
        let Some((first, last)) = self.flows(other).span else { return false };
        let uncertain = self.clock.map_or(0, |clock| i128::from(clock.uncertainty_ns));
        let at = self.time(judged.seen, judged.error.time_ns);
        self.clock.is_some() && (self.time(other, first) - uncertain..=self.time(other, last)).contains(&at)
    }

    /// Did the connection end in a reset at the other side, within a moment?
    fn reset_instead(&self, judged: &Judged, both: &Both<'_>) -> bool {
        const SOON: i128 = 1_000_000_000;

        let at = self.time(judged.seen, judged.error.time_ns);
        let (lane, side) = match judged.seen {
            Side::Outside => (both.inside.lane(both.out.opposite()), Side::Inside),
            Side::Inside => (both.outside.lane(both.pair.outside(both.out)), Side::Outside),
        };
        let soon = |facts: &&Facts| (-SOON / 10..SOON).contains(&(self.time(side, facts.time) - at));
        lane.packets.iter().filter(soon).any(|facts| facts.has(flag::RST))
    }

    /// An error behind the NAT that none before it explains.
    fn left_over(&self, waiting: &Waiting<'_>, errors: &mut Errors) {
        if !waiting.known {
            errors.unexplained += 1;
            return;
        }
        let both = waiting.pair.and_then(|pair| self.both(pair));
        let quoted_went_on =
            both.is_some_and(|both| sent(&both, waiting.seen.opposite(), waiting.error, self.clock).is_some());
        errors.own.push(Own { seen: waiting.seen, error: waiting.error.clone(), quoted_went_on });
    }
}

/// How much alike two errors have to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Likeness {
    Exact,
    Alike,
    Stray,
}

/// The packet that an error quotes, as the host sent it that the error goes to: the error was seen at `seen`, and the packet
/// is looked for on the other side among those that were recognised on both.
fn sent<'a>(both: &Both<'a>, seen: Side, error: &Error, clock: Option<&Clock>) -> Option<&'a Facts> {
    let direction = match seen {
        Side::Outside => both.out,
        Side::Inside => both.out.opposite(),
    };
    let (own, other) = both.lanes(direction);
    let (there, here) = match seen {
        Side::Outside => (other, own),
        Side::Inside => (own, other),
    };
    let quote = quote(&error.bytes)?;
    let is_quoted = |facts: &Facts| {
        let same_id = error.l3num == L3::V6 || facts.id == quote.id;
        match facts.detail {
            Detail::Tcp { seq, .. } => quote.seq == Some(seq) && same_id,
            Detail::Udp if facts.checksum.is_some() => same_id && quote.checksum == facts.checksum,
            // Then only the identification tells datagrams apart.
            Detail::Udp => same_id && facts.id != 0,
            Detail::Echo { seq, .. } => quote.echo_seq == Some(seq),
        }
    };
    let at = there.packets.iter().position(is_quoted)?;
    let pairs = matched(both, direction, clock);
    let found = pairs.into_iter().find_map(|(inside, outside)| match seen {
        Side::Outside => (outside == at).then_some(inside),
        Side::Inside => (inside == at).then_some(outside),
    })?;
    here.packets.get(found)
}

/// Errors that are missing where nearly all of their kind came out are not held against the NAT.
fn forgive(judged: &mut [Judged]) {
    let kind = |error: &Judged| (error.seen, error.error.l3num, error.error.icmp_type, error.protocol);
    let mut counts: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for error in judged.iter() {
        let (came_out, swallowed) = counts.entry(kind(error)).or_default();
        *came_out += u64::from(error.fate.came_out());
        *swallowed += u64::from(error.fate == Fate::Swallowed);
    }
    for error in judged.iter_mut().filter(|error| error.fate == Fate::Swallowed) {
        let Some((came_out, swallowed)) = counts.get(&kind(error)) else { continue };
        if swallowed * 5 <= came_out + swallowed || (*swallowed == 1 && *came_out >= 3) {
            error.fate = Fate::Missing;
        }
    }
}

impl Judged {
    /// The direction of the error's way through the NAT in words: `in` or `out`.
    #[must_use]
    pub const fn way(&self) -> &'static str {
        match self.seen {
            Side::Outside => "in",
            Side::Inside => "out",
        }
    }

    /// Which direction of Linux' binding the error goes in, if conntrack said so.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        self.linux.as_ref()?.ctinfo.ok()?.direction()
    }
}
