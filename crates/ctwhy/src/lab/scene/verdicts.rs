//! What `ctwhy diagnose` says of both sides, and `ctwhy probe` from one.

use std::io;
use std::net::IpAddr;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use ctwhy_conform::probe::run::Plan;
use ctwhy_conform::probe::verdict::Verdict;
use ctwhy_core::tuple::L3;
use ctwhy_diagnose::errors::Fate;
use ctwhy_diagnose::verdict::Kind;
use ctwhy_diagnose::{Report, Side};

use super::capture::Captures;
use super::ground::Ground;
use super::stage::Stage;
use crate::{diagnose, probe};

/// What a diagnosis is to be.
pub(super) struct Diagnosis {
    pub(super) kind: Kind,
    /// Are errors swallowed?
    pub(super) swallows: bool,
}

/// `ctwhy diagnose` on captures, and whether it says what is expected.
pub(super) fn diagnosed(
    stage: &mut Stage,
    ground: &Ground<'_>,
    captures: &Captures,
    expected: &Diagnosis,
) -> io::Result<()> {
    let (inside, outside) = (&captures.inside, &captures.outside);
    let bytes = [inside.pcapng()?, outside.pcapng()?];
    let [own, other] = &bytes;
    let found = diagnose::of_captures([(&inside.name, own), (&outside.name, other)], stage.style().palette);
    let (report, text) = found.map_err(|failure| io::Error::other(failure.to_string()))?;
    let line = format!("ctwhy diagnose --inside {} --outside {}", inside.name, outside.name);
    stage.ran("nat", &line, &text, Excerpt::default().shown())?;
    for family in ground.families {
        kind(stage, ground, &report, *family, expected.kind);
        fates(stage, ground, &report, *family, expected.swallows);
    }
    let status = diagnose::status(report.outcome());
    let wanted = u8::from(expected.swallows || expected.kind == Kind::SocketProxy);
    let claim = format!("diagnose ends with status {wanted}");
    let observation =
        ground.observation("diagnose.status", claim, status == wanted).measured(format!("status {status}"));
    stage.observe(observation.fact("status", status));
    Ok(())
}

fn kind(stage: &mut Stage, ground: &Ground<'_>, report: &Report, family: L3, expected: Kind) {
    let kinds = report.nats.iter().filter(|nat| nat.l3num == family).map(|nat| nat.kind);
    let kinds: Vec<Kind> = kinds.collect();
    let observed = !kinds.is_empty() && kinds.iter().all(|kind| *kind == expected);
    let codes: Vec<&str> = kinds.iter().map(|kind| kind.code()).collect();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let claim = format!("diagnose calls it a {expected}");
    let observation = ground.observation("diagnose.kind", claim, observed).family(family).measured(names.join(", "));
    stage.observe(observation.fact("kinds", codes));
}

fn fates(stage: &mut Stage, ground: &Ground<'_>, report: &Report, family: L3, swallows: bool) {
    let errors = report.errors.judged.iter();
    let errors: Vec<Fate> = errors
        .filter(|error| error.seen == Side::Outside && error.error.l3num == family)
        .map(|error| error.fate)
        .collect();
    let count = |is: Fate| errors.iter().filter(|fate| **fate == is).count();
    let (swallowed, relayed) = (count(Fate::Swallowed), count(Fate::Relayed));
    let (what, observed) = match swallows {
        true => ("errors were swallowed that Linux would have delivered", swallowed > 0),
        false => ("no error was swallowed", swallowed == 0),
    };
    let claim = format!("diagnose says that {what}");
    let measured = format!("{swallowed} swallowed, {relayed} relayed, of {} seen outside", errors.len());
    let observation = ground.observation("diagnose.swallowed", claim, observed).family(family).measured(measured);
    let observation = observation.fact("errors", errors.len());
    stage.observe(observation.fact("swallowed", swallowed).fact("relayed", relayed));
}

/// Which lines of a diagnosis are shown: the verdicts, for IPv4 what they rest on, and how one error would have been ruled.
#[derive(Default)]
struct Excerpt {
    /// In the table of IPv6.
    ipv6: bool,
    /// Behind the tables.
    errors: bool,
    /// The steps about one error have begun, are over.
    steps: bool,
    over: bool,
}

/// Rows of the table that are shown.
const ROWS: [&str; 6] =
    ["IPID", "TTL, going out", "TTL, coming back", "port or echo id", "client's initial", "so it is"];

impl Excerpt {
    fn shown(mut self) -> impl FnMut(&str) -> bool {
        move |line| {
            let text = line.trim_start();
            let indent = line.len() - text.len();
            self.errors |= indent == 0 && line.contains("ICMP error") && !line.starts_with("inside ");
            self.errors &= !line.starts_with("outside ");
            self.ipv6 |= line.starts_with("IPv6, ");
            if self.errors {
                self.over |= self.steps && indent < STEP;
                self.steps |= indent >= STEP;
            }
            match indent {
                0 => true,
                _ if !self.errors => !self.ipv6 && (indent > 4 || ROWS.iter().any(|row| text.starts_with(row))),
                1..4 => true,
                _ => !self.over,
            }
        }
    }
}

/// By how much the steps of an error are indented.
const STEP: usize = 9;

/// Packets a second: labs have no limits of rate.
const RATE: u32 = 200;
/// How long an answer may take.
const WAIT: Duration = Duration::from_millis(500);
/// The server is nearer.
const MAX_TTL: u8 = 6;

/// What a probe is to find.
pub(super) struct Probed {
    /// Codes that are among those of the findings.
    pub(super) found: &'static [&'static str],
    /// Codes that are not.
    pub(super) not_found: &'static [&'static str],
    pub(super) amiss: bool,
}

/// `ctwhy probe` from the client to the server, for both families at once, and whether it says what is expected.
pub(super) fn probed(stage: &mut Stage, ground: &Ground<'_>, expected: &Probed) -> io::Result<()> {
    let palette = stage.style().palette;
    let look = |family: L3| -> io::Result<(L3, IpAddr, Verdict, String)> {
        let dest = ground.server(family)?;
        let plan = Plan { rate: RATE, wait: WAIT, max_ttl: MAX_TTL, ..Plan::to(dest) };
        let (verdict, text) = ground.lab.in_node("client", || probe::told(&plan, palette))??;
        Ok((family, dest, verdict, text))
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = ground.families.iter().map(|family| scope.spawn(|| look(*family))).collect();
        let join =
            |thread: ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        threads.into_iter().map(join).collect()
    });
    let found = found.into_iter().collect::<io::Result<Vec<_>>>()?;
    let first = ground.families.first();
    for (family, dest, _, text) in &found {
        let line = format!("ctwhy probe --rate {RATE} --wait {} --max-ttl {MAX_TTL} {dest}", WAIT.as_secs_f32());
        // Behind the second empty line are the controls.
        let mut paragraphs = 0;
        stage.ran("client", &line, text, |line| {
            paragraphs += usize::from(line.is_empty());
            Some(family) == first && paragraphs < 2
        })?;
    }
    for (family, _, verdict, _) in &found {
        let codes: Vec<&str> = verdict.findings.iter().map(|finding| finding.claim.code()).collect();
        let observed = expected.found.iter().all(|code| codes.contains(code))
            && !expected.not_found.iter().any(|code| codes.contains(code))
            && verdict.is_amiss() == expected.amiss;
        let amiss = if expected.amiss { "something is amiss" } else { "nothing is amiss" };
        let claim = format!("probe finds {}, and that {amiss}", expected.found.join(" and "));
        let observation = ground.observation("probe", claim, observed).family(*family).measured(codes.join(", "));
        stage.observe(observation.fact("findings", codes).fact("amiss", verdict.is_amiss()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_diagnosis_the_verdicts_are_shown_and_one_error_in_full() {
        let text = "\
inside   a: 1 packet, 1 flow, 0 ICMP errors
outside  b: 1 packet, 1 flow, 2 ICMP errors

IPv4, hosts hidden behind 203.0.113.2: packet NAT, confidence high
                              TCP
  IPID                        kept (1)
- window of the SYN           kept (1)
IPv6, hosts hidden behind ::2: packet NAT, confidence high
-                             TCP
- flow label                  kept (1)

2 ICMP errors seen outside, on the way in
  1 x time exceeded (type 11 code 0) about UDP: swallowed
    packet 1 outside: icmp
      Linux: RELATED_REPLY
         88 bytes at prerouting, conntrack
  1 x time exceeded (type 11 code 0) about ICMP echo: swallowed
-   packet 2 outside: icmp
-     Linux: RELATED_REPLY

not what a Linux NAT would have done";
        let mut shown = Excerpt::default().shown();
        for line in text.lines() {
            let hidden = line.strip_prefix('-').map(|rest| format!(" {rest}"));
            assert_eq!(shown(hidden.as_deref().unwrap_or(line)), hidden.is_none(), "{line}");
        }
    }
}
