//! What all of it amounts to.

use std::collections::{BTreeMap, HashSet};

use ctwhy_core::tuple::{Addr, L3};

use crate::clock::Clock;
use crate::errors::{Errors, Fate, Scene};
use crate::evidence::{Both, Evidence};
use crate::flows::Flows;
pub use crate::flows::Seized as Counts;
use crate::index::Index;
use crate::observe::Protocol;
use crate::pairing::{Pairs, pair};
use crate::verdict::{Confidence, Kind, Verdict, overall, weigh};

/// What was found out from two captures.
#[derive(Debug)]
pub struct Report {
    /// What was read of the capture inside.
    pub inside: Counts,
    /// What was read of the capture outside.
    pub outside: Counts,
    /// How far the clocks are apart; `None` when no packet says it.
    pub clock: Option<Clock>,
    /// Flows that were recognised at both sides.
    pub paired: usize,
    /// Flows inside that are in the capture outside untranslated as well, beside what became of them.
    pub twins: u64,
    /// What lies between the captures: one for each family and each address that hides others.
    pub nats: Vec<Nat>,
    /// The ICMP errors.
    pub errors: Errors,
}

/// What lies between the captures for the flows of one family behind one address.
#[derive(Clone, Debug)]
pub struct Nat {
    /// Family.
    pub l3num: L3,
    /// What the hidden hosts are called outside; `None` where nothing is translated.
    pub address: Option<Addr>,
    /// What it is.
    pub kind: Kind,
    /// How sure that is: as sure as the least sure of the protocols that were decided.
    pub confidence: Confidence,
    /// The protocols that were seen to cross it.
    pub protocols: Vec<Finding>,
}

/// What was found out about a protocol.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub protocol: Protocol,
    /// What was seen.
    pub evidence: Evidence,
    /// What it means.
    pub verdict: Verdict,
}

/// What a report says in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Packets are rewritten, or only passed on, and no error was swallowed or came out wrong.
    NothingAmiss,
    /// A proxy, or an error that was swallowed, came out wrong, or should not have come out.
    Difference,
    /// Too little was seen to say either.
    TooLittle,
}

impl Report {
    /// What it says in one word.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let kinds = || self.nats.iter().map(|nat| nat.kind);
        let amiss = self.errors.judged.iter().any(|error| error.fate.is_amiss());
        if amiss || kinds().any(|kind| matches!(kind, Kind::SocketProxy | Kind::Mixed)) {
            Outcome::Difference
        } else if kinds().any(|kind| matches!(kind, Kind::PacketNat | Kind::Router)) {
            Outcome::NothingAmiss
        } else {
            Outcome::TooLittle
        }
    }

    /// How many errors had a fate.
    #[must_use]
    pub fn fated(&self, is: impl Fn(Fate) -> bool) -> usize {
        self.errors.judged.iter().filter(|error| is(error.fate)).count()
    }
}

/// Looks at what was seen of both sides.
pub(crate) fn report(inside: &Flows, outside: &Flows) -> Report {
    let (own, other) = (Index::new(inside), Index::new(outside));
    let clock = Clock::estimate(&own, &other);
    let Pairs { all: pairs, twins } = pair(inside, outside, (&own, &other), clock.as_ref());
    drop((own, other));
    let both: Vec<Both<'_>> = pairs.iter().filter_map(|pair| Both::new(*pair, inside, outside)).collect();
    let nats = nats(&both, clock.as_ref());
    let mut hidden: [HashSet<Addr>; 2] = Default::default();
    for both in &both {
        let [inside, outside] = &mut hidden;
        inside.insert(both.inside.tuple(both.out).src);
        outside.insert(both.outside_address().1);
    }
    let undetermined = nats.iter().flat_map(|nat| {
        let findings = nat.protocols.iter().filter(|finding| finding.verdict.kind == Kind::Undetermined);
        findings.filter_map(|finding| Some((nat.l3num, nat.address?, finding.protocol)))
    });
    let undetermined = undetermined.collect();
    let scene = Scene { inside, outside, pairs: &pairs, clock: clock.as_ref(), hidden, undetermined };
    let errors = scene.errors();
    Report { inside: inside.seized, outside: outside.seized, clock, paired: pairs.len(), twins, nats, errors }
}

/// The pairs of one NAT.
type Group<'b, 'f> = BTreeMap<Protocol, Vec<&'b Both<'f>>>;

/// The pairs by family and address outside, and what each group shows.
fn nats(all: &[Both<'_>], clock: Option<&Clock>) -> Vec<Nat> {
    let mut groups: BTreeMap<(L3, Option<Addr>), Group<'_, '_>> = BTreeMap::new();
    // Of a flow that kept its port by chance nothing is translated where host and NAT have the same address.
    let translated: HashSet<(L3, Addr)> =
        all.iter().filter(|both| both.is_translated()).map(Both::outside_address).collect();
    for both in all {
        let (l3num, address) = both.outside_address();
        let address = translated.contains(&(l3num, address)).then_some(address);
        groups.entry((l3num, address)).or_default().entry(both.inside.protocol).or_default().push(both);
    }
    let found = groups.into_iter().map(|((l3num, address), protocols)| {
        let findings = protocols.into_iter().map(|(protocol, group)| {
            let mut evidence = Evidence::default();
            // Where some pairs are sure the others say nothing that those do not.
            let sure = group.iter().any(|both| !both.pair.weak);
            for both in group.iter().filter(|both| !sure || !both.pair.weak) {
                evidence.add(both, clock);
            }
            let verdict = weigh(&evidence, protocol, l3num, address.is_some());
            Finding { protocol, evidence, verdict }
        });
        let protocols: Vec<Finding> = findings.collect();
        let verdicts: Vec<Verdict> = protocols.iter().map(|finding| finding.verdict.clone()).collect();
        let (kind, confidence) = overall(&verdicts);
        Nat { l3num, address, kind, confidence, protocols }
    });
    found.collect()
}
