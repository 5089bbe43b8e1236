//! What the suite found, for readers and for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ctwhy_conform::blackbox::requirement::{Group, Level, Outcome, Requirement};
use ctwhy_conform::blackbox::run::{Verdict, requirements};
use ctwhy_conform::blackbox::{Change, Survey};
use ctwhy_core::tuple::L3;
use serde_json::json;

use crate::conform::formats::{Test, TestResult};
use crate::report::escape::Escaped;

/// What came of one NAT.
pub(super) struct Report {
    pub(super) name: String,
    pub(super) verdicts: Vec<Verdict>,
    /// What was found out before, a line for each family.
    surveys: Vec<String>,
}

impl Report {
    pub(super) fn new(name: String) -> Report {
        Report { name, verdicts: Vec::new(), surveys: Vec::new() }
    }

    pub(super) fn surveyed(&mut self, l3num: L3, survey: &Survey) {
        let protocols = survey.protocols().map(|(name, known)| match (known.passes, known.change) {
            (false, _) => format!("{name} does not come out"),
            (true, Change::Always) => format!("{name} gets other ports"),
            (true, Change::Collision) => format!("{name} gets another port when two clients have the same"),
            (true, Change::Never) => format!("{name} keeps its port whatever happens"),
        });
        let external = survey.external.map_or("nobody".to_owned(), |address| address.to_string());
        self.surveys.push(format!("{}: clients are {external} outside; {}", family(l3num), protocols.join(", ")));
    }
}

const fn family(l3num: L3) -> &'static str {
    match l3num {
        L3::V4 => "IPv4",
        L3::V6 => "IPv6",
    }
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    passed: usize,
    pub(super) failed: usize,
    beyond: usize,
    skipped: usize,
    noted: usize,
}

impl Tally {
    pub(super) fn of(report: &Report, strict: bool) -> Tally {
        let mut tally = Tally::default();
        for verdict in &report.verdicts {
            let place = match &verdict.outcome {
                _ if verdict.fails(strict) => &mut tally.failed,
                Outcome::Pass => &mut tally.passed,
                Outcome::Noted(_) => &mut tally.noted,
                Outcome::NotApplicable(_) => &mut tally.skipped,
                Outcome::Fail(_) | Outcome::Inconclusive(_) => &mut tally.beyond,
            };
            *place += 1;
        }
        tally
    }
}

/// One line, and one more for the sentence.
pub(super) fn row(out: &mut impl Write, verdict: &Verdict, strict: bool) -> io::Result<()> {
    let word = match &verdict.outcome {
        Outcome::Fail(_) if verdict.fails(strict) => "FAIL",
        Outcome::Fail(_) => "beyond",
        outcome => outcome.name(),
    };
    writeln!(out, "  {word:<8} {:<48} {}", verdict.name(), verdict.requirement.text)?;
    match verdict.outcome.sentence() {
        Some(sentence) => writeln!(out, "           {}", Escaped(sentence)),
        None => Ok(()),
    }
}

pub(super) fn summary(out: &mut impl Write, report: &Report, strict: bool) -> io::Result<()> {
    for line in &report.surveys {
        writeln!(out, "  {}", Escaped(line))?;
    }
    let Tally { passed, failed, beyond, skipped, noted } = Tally::of(report, strict);
    let beyond = if strict { String::new() } else { format!(", {beyond} beyond the kernel not met") };
    let name = Escaped(&report.name);
    writeln!(out, "{name}: {passed} passed, {failed} failed{beyond}, {skipped} not applicable, {noted} noted")
}

/// As TAP and JUnit have it.
pub(super) fn tests(reports: &[Report], strict: bool) -> Vec<Test> {
    let several = reports.len() > 1;
    let verdicts = reports.iter().flat_map(|report| report.verdicts.iter().map(move |verdict| (report, verdict)));
    verdicts
        .map(|(report, verdict)| {
            let name = if several { format!("{}: {}", report.name, verdict.name()) } else { verdict.name() };
            let result = match &verdict.outcome {
                Outcome::Inconclusive(_) if verdict.fails(strict) => TestResult::Broken,
                _ if verdict.fails(strict) => TestResult::Failed,
                Outcome::Pass | Outcome::Noted(_) => TestResult::Passed,
                _ => TestResult::Skipped,
            };
            let beyond = verdict.requirement.beyond.filter(|_| matches!(verdict.outcome, Outcome::Fail(_)));
            let sentence = verdict.outcome.sentence().map(|sentence| match beyond {
                Some(why) if result == TestResult::Skipped => format!("beyond the kernel ({why}): {sentence}"),
                _ => sentence.to_owned(),
            });
            Test { name, result, lines: sentence.into_iter().collect() }
        })
        .collect()
}

/// JSON Lines.
pub(super) fn json(out: &mut impl Write, reports: &[Report], strict: bool) -> io::Result<()> {
    for report in reports {
        for verdict in &report.verdicts {
            let requirement = &verdict.requirement;
            let object = json!({
                "schema": 1,
                "nat": report.name,
                "id": requirement.id,
                "family": match verdict.l3num { L3::V4 => "ipv4", L3::V6 => "ipv6" },
                "group": requirement.group.name(),
                "level": requirement.level.name().to_ascii_lowercase(),
                "beyond": requirement.beyond,
                "outcome": verdict.outcome.name(),
                "fails": verdict.fails(strict),
                "sentence": verdict.outcome.sentence(),
                "text": requirement.text,
                "cites": requirement.cites,
                "packets": verdict.packets.len(),
                "milliseconds": u64::try_from(verdict.took.as_millis()).unwrap_or(u64::MAX),
            });
            writeln!(out, "{object}")?;
        }
    }
    Ok(())
}

/// Every requirement.
pub(super) fn list(out: &mut impl Write, as_json: bool) -> io::Result<()> {
    let mut group = None;
    for requirement in requirements() {
        let families = requirement.only.map_or("IPv4, IPv6", family);
        if as_json {
            let object = json!({
                "schema": 1,
                "id": requirement.id,
                "group": requirement.group.name(),
                "level": requirement.level.name().to_ascii_lowercase(),
                "families": families,
                "beyond": requirement.beyond,
                "text": requirement.text,
                "cites": requirement.cites,
                "seconds": requirement.seconds,
            });
            writeln!(out, "{object}")?;
            continue;
        }
        if group != Some(requirement.group) {
            group = Some(requirement.group);
            writeln!(out, "{} ({})", requirement.group.title(), requirement.group.name())?;
        }
        let Requirement { id, level, text, cites, beyond, .. } = &requirement;
        writeln!(out, "  {id:<44} {:<7} {families:<10} {text}", level.name())?;
        let beyond = beyond.map(|why| format!("beyond the kernel: {why}"));
        for line in [Some((*cites).to_owned()).filter(|cites| !cites.is_empty()), beyond].into_iter().flatten() {
            writeln!(out, "  {:<44} {line}", "")?;
        }
    }
    Ok(())
}

/// A table for each group: a row for each requirement, a column for each NAT, IPv4 before IPv6.
pub(super) fn markdown(out: &mut impl Write, reports: &[Report]) -> io::Result<()> {
    for group in Group::ALL {
        let asked: Vec<Requirement> = requirements().into_iter().filter(|one| one.group == group).collect();
        let by_id: Vec<BTreeMap<&str, Vec<&Verdict>>> = reports.iter().map(|report| by_id(report, group)).collect();
        if by_id.iter().all(BTreeMap::is_empty) {
            continue;
        }
        writeln!(out, "### {}\n", group.title())?;
        let names: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
        writeln!(out, "| requirement | | {} |", names.join(" | "))?;
        writeln!(out, "|---|---|{}", "---|".repeat(names.len()))?;
        for requirement in asked.iter().filter(|one| one.level != Level::Note) {
            let cells: Vec<String> =
                by_id.iter().map(|all| cell(all.get(requirement.id.as_str()).map_or(&[], Vec::as_slice))).collect();
            let level = match requirement.beyond {
                Some(_) => format!("{} †", requirement.level.name()),
                None => requirement.level.name().to_owned(),
            };
            writeln!(out, "| `{}`<br>{} | {level} | {} |", requirement.id, requirement.text, cells.join(" | "))?;
        }
        writeln!(out)?;
        notes(out, &asked, &names, &by_id)?;
    }
    Ok(())
}

fn by_id(report: &Report, group: Group) -> BTreeMap<&str, Vec<&Verdict>> {
    let mut all: BTreeMap<&str, Vec<&Verdict>> = BTreeMap::new();
    for verdict in report.verdicts.iter().filter(|verdict| verdict.requirement.group == group) {
        all.entry(verdict.requirement.id.as_str()).or_default().push(verdict);
    }
    all
}

/// What is only written down: sentences do not fit into a table with many columns.
fn notes(
    out: &mut impl Write,
    asked: &[Requirement],
    names: &[&str],
    by_id: &[BTreeMap<&str, Vec<&Verdict>>],
) -> io::Result<()> {
    for requirement in asked.iter().filter(|one| one.level == Level::Note) {
        writeln!(out, "`{}`: {}\n", requirement.id, requirement.text)?;
        // Who does the same stands in one line.
        let mut lines: Vec<(String, Vec<String>)> = Vec::new();
        let mut add = |sentence: &str, who: String| match lines.iter_mut().find(|(known, _)| known == sentence) {
            Some((_, all)) => all.push(who),
            None => lines.push((sentence.to_owned(), vec![who])),
        };
        for (name, all) in names.iter().zip(by_id) {
            let verdicts = all.get(requirement.id.as_str()).map_or(&[][..], Vec::as_slice);
            let sentence = |verdict: &Verdict| verdict.outcome.sentence().unwrap_or("yes").to_owned();
            match verdicts {
                [one, other] if sentence(one) == sentence(other) => add(&sentence(one), (*name).to_owned()),
                some => some.iter().for_each(|verdict| {
                    add(&sentence(verdict), format!("{name} ({})", family(verdict.l3num)));
                }),
            }
        }
        for (sentence, who) in lines {
            writeln!(out, "- {}: {}", Escaped(&sentence), who.join(", "))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// `✓`, `✗` or `–`: once where both families agree.
fn cell(verdicts: &[&Verdict]) -> String {
    let sign = |verdict: &Verdict| match verdict.outcome {
        Outcome::Pass | Outcome::Noted(_) => "✓",
        Outcome::Fail(_) => "✗",
        Outcome::NotApplicable(_) => "–",
        Outcome::Inconclusive(_) => "?",
    };
    let mut signs: Vec<&str> = verdicts.iter().map(|verdict| sign(verdict)).collect();
    signs.dedup();
    signs.join(" ")
}
