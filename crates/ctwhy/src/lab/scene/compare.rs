//! The same packets at both sides of a NAT, and what became of them.

use std::net::IpAddr;

use ctwhy_core::tuple::L3;

use super::capture::{Captures, Seen};
use super::ground::Ground;
use super::hops::Method;
use super::stage::Stage;

/// A packet inside, and the same one outside.
pub(super) type Pair<'a> = (&'a Seen, &'a Seen);

/// What was sent with fewer is a traceroute's.
const WHOLE_WAY: u8 = 32;

/// Both captures, taken apart.
pub(super) struct Both {
    pub(super) inside: Vec<Seen>,
    pub(super) outside: Vec<Seen>,
}

impl Both {
    pub(super) fn of(captures: &Captures) -> Both {
        Both { inside: captures.inside.packets(), outside: captures.outside.packets() }
    }

    /// What the client sent to the server by this method, as it was at both sides. Of TCP only what connects.
    pub(super) fn sent(&self, method: Method, server: IpAddr) -> Vec<Pair<'_>> {
        self.pairs(|packet| match method {
            Method::Udp => packet.is_udp_to(server),
            Method::Echo => packet.is_echo_to(server),
            Method::Tcp => packet.is_syn_to(server) && packet.ttl >= WHOLE_WAY,
        })
    }

    /// Pairs packets that have the same key; where several have, the first inside with the first outside.
    fn pairs(&self, is: impl Fn(&Seen) -> bool) -> Vec<Pair<'_>> {
        let mut others: Vec<&Seen> = self.outside.iter().filter(|packet| is(packet)).collect();
        let pair = |own| {
            let at = others.iter().position(|other: &&Seen| other.key() == Seen::key(own))?;
            Some((own, others.remove(at)))
        };
        self.inside.iter().filter(|packet| is(packet)).filter_map(pair).collect()
    }

    /// What the server answered connections with, in order. Empty where one side has more of them than the other.
    pub(super) fn answered(&self, server: IpAddr) -> Vec<Pair<'_>> {
        let of = |side: &'_ [Seen]| side.iter().filter(|packet| packet.is_syn_ack_from(server)).count();
        if of(&self.inside) != of(&self.outside) {
            return Vec::new();
        }
        let is = |packet: &&Seen| packet.is_syn_ack_from(server);
        self.inside.iter().filter(is).zip(self.outside.iter().filter(is)).collect()
    }

    /// How many packets of a family are so, inside and outside.
    pub(super) fn count(&self, family: L3, is: impl Fn(&Seen) -> bool) -> [usize; 2] {
        [&self.inside, &self.outside]
            .map(|side| side.iter().filter(|packet| packet.family() == family && is(packet)).count())
    }
}

/// What became of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) changed: usize,
    pub(super) of: usize,
    /// Inside and outside.
    example: Option<(u32, u32)>,
}

impl Change {
    fn of<'a>(pairs: &[Pair<'a>], field: impl Fn(&'a Seen) -> u32) -> Change {
        let mut change = Change { of: pairs.len(), ..Change::default() };
        for (own, other) in pairs {
            let (own, other) = (field(own), field(other));
            if own != other {
                change.changed += 1;
                change.example.get_or_insert((own, other));
            }
        }
        change
    }

    /// What is drawn anew may come out the same now and then, but not most of the time.
    fn is_new(self) -> bool {
        self.changed * 2 > self.of
    }

    fn is_kept(self) -> bool {
        self.of > 0 && self.changed == 0
    }

    fn words(self, hex: bool) -> String {
        let example = match self.example {
            Some((own, other)) if hex => format!(", such as {own:#06x} => {other:#06x}"),
            Some((own, other)) => format!(", such as {own} => {other}"),
            None => String::new(),
        };
        format!("changed in {} of {} packets{example}", self.changed, self.of)
    }
}

/// The fields that say whose packet it is, and whether they are to be kept or new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// As a router that translates leaves them: the same, and TTL one less.
    Kept,
    /// As on a bridge: the same.
    Untouched,
    /// As another host makes them.
    New,
}

/// Observes what became of identification, port and TTL of all that the client sent.
pub(super) fn observe(
    stage: &mut Stage,
    ground: &Ground<'_>,
    both: &Both,
    family: L3,
    expected: Expected,
) -> std::io::Result<()> {
    let server = ground.server(family)?;
    let all: Vec<Pair<'_>> = Method::ALL.into_iter().flat_map(|method| both.sent(method, server)).collect();
    let mark = match family {
        L3::V4 => ("ipid", "IPID"),
        L3::V6 => ("flow_label", "flow label"),
    };
    let fields = [
        (mark, Change::of(&all, Seen::mark), true),
        (("port", "source port or echo id"), Change::of(&all, |packet| packet.port().into()), false),
    ];
    for ((code, what), change, hex) in fields {
        let (claim, observed) = match expected {
            Expected::New => ("is another outside", change.is_new()),
            Expected::Kept | Expected::Untouched => ("is the same outside", change.is_kept()),
        };
        let observation = ground.observation(code, format!("{what} {claim}"), observed).family(family);
        let observation = observation.measured(change.words(hex));
        stage.observe(observation.fact("changed", change.changed).fact("packets", change.of));
    }
    let whole = both.sent(Method::Tcp, server);
    ttl(stage, ground, family, expected, ("ttl_out", "going out", &whole));
    // What comes back is paired the same way round: inside, outside.
    ttl(stage, ground, family, expected, ("ttl_back", "coming back", &both.answered(server)));
    Ok(())
}

fn ttl(
    stage: &mut Stage,
    ground: &Ground<'_>,
    family: L3,
    expected: Expected,
    (code, way, pairs): (&'static str, &str, &[Pair<'_>]),
) {
    let ttls: Vec<(u8, u8)> = pairs.iter().map(|(own, other)| (own.ttl, other.ttl)).collect();
    // From where the packet came to where it went.
    let steps = ttls.iter().map(|(own, other)| if code == "ttl_out" { (*own, *other) } else { (*other, *own) });
    let steps: Vec<(u8, u8)> = steps.collect();
    let one_less = |(before, behind): &(u8, u8)| before.checked_sub(1) == Some(*behind);
    let (claim, observed) = match expected {
        Expected::Kept => ("one less", steps.iter().all(one_less)),
        Expected::Untouched => ("the same", steps.iter().all(|(before, behind)| before == behind)),
        Expected::New => ("not one less but new", !steps.iter().any(|(before, behind)| behind <= before)),
    };
    let observed = observed && !steps.is_empty();
    let measured = steps.first().map_or("nothing".to_owned(), |(before, behind)| format!("{before} => {behind}"));
    let claim = format!("TTL (hop limit) of a connection, {way}, is {claim}");
    let observation = ground.observation(code, claim, observed).family(family).measured(measured);
    stage.observe(observation.fact("before_and_behind", ttls_of(&steps)));
}

fn ttls_of(steps: &[(u8, u8)]) -> Vec<Vec<u8>> {
    steps.iter().map(|(before, behind)| vec![*before, *behind]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_anew_may_be_the_same_by_chance() {
        let change = |changed, of| Change { changed, of, example: None };
        assert!(change(3, 4).is_new() && !change(2, 4).is_new() && !change(0, 0).is_new());
        assert!(change(0, 4).is_kept() && !change(1, 4).is_kept() && !change(0, 0).is_kept());
    }
}
