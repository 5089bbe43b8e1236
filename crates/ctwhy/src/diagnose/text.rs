//! The report as text, to be read and pasted.

use std::fmt::Display;
use std::io::{self, Write};

use ctwhy_core::tuple::L3;
use ctwhy_diagnose::evidence::{Evidence, Outcome, Promptness, Tally, Ttl, TtlOutcome, identity, option_name};
use ctwhy_diagnose::report::{Finding, Nat};
use ctwhy_diagnose::verdict::{Kind, Reason, Verdict};
use ctwhy_diagnose::{Report, report};

use super::errors;
use super::read::Reading;
use super::shown;
use crate::report::style::{Palette, Styled};
use crate::report::summary::Plural;

/// Columns of the first column, and of each protocol's.
const LABEL: usize = 28;
const COLUMN: usize = 29;

/// Writes the report.
pub(super) fn write(
    report: &Report,
    reading: &Reading,
    verbose: bool,
    palette: Palette,
    out: &mut impl Write,
) -> io::Result<()> {
    for (side, read, counts) in
        [("inside", &reading.inside, &report.inside), ("outside", &reading.outside, &report.outside)]
    {
        let (packets, flows) = (Plural(counts.packets, "packet"), Plural(counts.flows, "flow"));
        let errors = Plural(counts.errors, "ICMP error");
        writeln!(out, "{side:<8} {}: {packets}, {flows}, {errors}", shown(&read.name))?;
    }
    write!(out, "{:<8} {} recognised at both sides", "paired", Plural(report.paired as u64, "flow"))?;
    match &report.clock {
        Some(clock) => {
            let [ahead, uncertain] = [clock.offset_ns as f64 / 1e6, clock.uncertainty_ns as f64 / 1e6];
            let (ahead, word) = (ahead.abs(), if ahead < 0.0 { "behind" } else { "ahead" });
            write!(out, "; the clock outside is {ahead:.1} ms {word}, give or take {uncertain:.1} ms")?;
            if clock.drift != 0.0 {
                write!(
                    out,
                    ", and {:.1} ppm {}",
                    clock.drift.abs() / 1e3,
                    if clock.drift < 0.0 { "slower" } else { "faster" }
                )?;
            }
            if !clock.both_ways {
                write!(out, " and the way through the NAT")?;
            }
            writeln!(out)?;
        }
        None => writeln!(out, "; no packet tells how far the clocks are apart")?,
    }
    for nat in &report.nats {
        writeln!(out)?;
        write_nat(nat, verbose, palette, out)?;
    }
    writeln!(out)?;
    errors::write(report, verbose, palette, out)?;
    writeln!(out)?;
    conclusion(report, palette, out)
}

fn family(l3num: L3) -> &'static str {
    match l3num {
        L3::V4 => "IPv4",
        L3::V6 => "IPv6",
    }
}

/// A kind in its colour.
fn styled<T: Display>(kind: Kind, palette: Palette, text: T) -> impl Display {
    let style = match kind {
        Kind::PacketNat | Kind::Router => palette.good(),
        Kind::SocketProxy | Kind::Mixed => palette.bad(),
        Kind::Undetermined => palette.faint(),
    };
    Styled(style, text)
}

fn write_nat(nat: &Nat, verbose: bool, palette: Palette, out: &mut impl Write) -> io::Result<()> {
    let family = family(nat.l3num);
    match nat.address {
        Some(address) => write!(out, "{family}, hosts hidden behind {}: ", address.ip(nat.l3num))?,
        None => write!(out, "{family}, addresses and ports as they are: ")?,
    }
    write!(out, "{}", styled(nat.kind, palette, nat.kind))?;
    match nat.kind {
        Kind::Undetermined => writeln!(out, ": too little was seen, or it contradicts itself")?,
        Kind::Mixed => {
            let each = nat.protocols.iter().filter(|finding| finding.verdict.kind != Kind::Undetermined);
            let each: Vec<String> =
                each.map(|finding| format!("{} {}", finding.protocol, finding.verdict.kind)).collect();
            writeln!(out, ": {}", each.join(", "))?;
        }
        _ => writeln!(out, ", confidence {}", nat.confidence)?,
    }
    let names: String = nat.protocols.iter().map(|finding| format!("{:<COLUMN$}", finding.protocol)).collect();
    writeln!(out, "  {:<LABEL$}{}", "", Styled(palette.heading(), names.trim_end()))?;
    for Row { label, cell } in ROWS {
        let cells: Vec<Option<String>> = nat.protocols.iter().map(|finding| cell(finding, nat.l3num)).collect();
        if cells.iter().any(Option::is_some) {
            let line: String =
                cells.iter().map(|cell| format!("{:<COLUMN$}", cell.as_deref().unwrap_or("-"))).collect();
            let label = label.replace("IPID", if nat.l3num == L3::V4 { "IPID" } else { "flow label" });
            let label = label.replace("TTL", if nat.l3num == L3::V4 { "TTL" } else { "hop limit" });
            writeln!(out, "  {label:<LABEL$}{}", line.trim_end())?;
        }
    }
    write!(out, "  {:<LABEL$}", "so it is")?;
    let verdicts: Vec<String> = nat.protocols.iter().map(|finding| said(&finding.verdict)).collect();
    let last = verdicts.len().saturating_sub(1);
    for (at, (finding, said)) in nat.protocols.iter().zip(&verdicts).enumerate() {
        let padded = if at == last { said.clone() } else { format!("{said:<COLUMN$}") };
        write!(out, "{}", styled(finding.verdict.kind, palette, padded))?;
    }
    writeln!(out)?;
    for finding in &nat.protocols {
        write_reasons(finding, verbose, out)?;
    }
    Ok(())
}

fn said(verdict: &Verdict) -> String {
    match verdict.kind {
        Kind::Undetermined => "undetermined".to_owned(),
        kind => format!("{kind} ({})", verdict.confidence),
    }
}

/// What speaks for the verdict, and what against it.
fn write_reasons(finding: &Finding, verbose: bool, out: &mut impl Write) -> io::Result<()> {
    let Verdict { kind, reasons, .. } = &finding.verdict;
    let protocol = finding.protocol;
    if *kind == Kind::Undetermined {
        return match reasons.as_slice() {
            [] => writeln!(out, "  {protocol}: nothing that tells one kind from another was seen"),
            reasons => {
                let said: Vec<String> =
                    reasons.iter().map(|reason| format!("{} ({})", reason.what, reason.kind)).collect();
                writeln!(out, "  {protocol}: too little or contradictory: {}", said.join("; "))
            }
        };
    }
    let (holds, against): (Vec<&Reason>, Vec<&Reason>) = reasons.iter().partition(|reason| reason.kind == *kind);
    writeln!(out, "  {protocol}: {kind}, because {}", listed(&holds, verbose))?;
    if !against.is_empty() {
        writeln!(out, "    though {}", listed(&against, verbose))?;
    }
    Ok(())
}

/// The weightiest reasons, or all.
fn listed(reasons: &[&Reason], all: bool) -> String {
    const FIRST: usize = 3;

    let shown = if all { reasons.len() } else { FIRST };
    let said: Vec<String> = reasons.iter().take(shown).map(|reason| reason.what.to_string()).collect();
    match reasons.len().saturating_sub(shown) {
        0 => said.join("; "),
        more => format!("{}; and {more} more", said.join("; ")),
    }
}

/// A row of the table of evidence; a cell is `None` where there was nothing to see.
struct Row {
    label: &'static str,
    cell: fn(&Finding, L3) -> Option<String>,
}

const ROWS: [Row; 19] = [
    Row { label: "flows (packets) compared", cell: |finding, _| Some(flows(&finding.evidence)) },
    Row { label: "IPID", cell: |finding, l3num| tally(&identity(&finding.evidence, l3num), "new", "") },
    Row { label: "TTL, going out", cell: |finding, _| ttl(&finding.evidence.ttl_out) },
    Row { label: "TTL, coming back", cell: |finding, _| ttl(&finding.evidence.ttl_back) },
    Row { label: "TOS", cell: |finding, _| tally(&finding.evidence.tos, "lost", "#") },
    Row { label: "port or echo id", cell: |finding, _| tally(&finding.evidence.port, "new", "") },
    Row { label: "client's initial seq", cell: |finding, _| tally(&finding.evidence.isn_out, "new", "") },
    Row { label: "server's initial seq", cell: |finding, _| tally(&finding.evidence.isn_back, "new", "") },
    Row { label: "TCP options, in order", cell: |finding, _| options(&finding.evidence) },
    Row { label: "  before", cell: |finding, _| example(&finding.evidence, false) },
    Row { label: "  behind", cell: |finding, _| example(&finding.evidence, true) },
    Row { label: "window of the SYN", cell: |finding, _| tally(&finding.evidence.window, "new", "=") },
    Row { label: "MSS", cell: |finding, _| tally(&finding.evidence.mss, "new", "=") },
    Row { label: "TCP timestamps", cell: |finding, _| tally(&finding.evidence.timestamps, "new", "") },
    Row { label: "segments of the same bytes", cell: |finding, _| segments(&finding.evidence) },
    Row { label: "SYN answered by", cell: |finding, _| prompt(&finding.evidence.handshake) },
    Row { label: "data acknowledged by", cell: |finding, _| prompt(&finding.evidence.acknowledged) },
    Row { label: "UDP checksum 0", cell: |finding, _| tally(&finding.evidence.no_checksum, "made", "#") },
    Row { label: "seen at one side only", cell: |finding, _| lost(&finding.evidence) },
];

fn flows(evidence: &Evidence) -> String {
    let Evidence { flows, packets, weak, .. } = *evidence;
    let weak = if weak > 0 { ", by time" } else { "" };
    format!("{flows} ({packets}{weak})")
}

/// `kept`, `new (3 of 4)`; the values of the first that differed with `#` in hexadecimal, with `=` in decimal.
fn tally(tally: &Tally, changed: &str, values: &str) -> Option<String> {
    let total = tally.total();
    let values = match (tally.example, values) {
        (Some((from, to)), "#") => format!(" {from:#04x} => {to:#04x}"),
        (Some((from, to)), "=") => format!(" {from} => {to}"),
        _ => String::new(),
    };
    Some(match tally.outcome() {
        Outcome::Unseen => return None,
        Outcome::Kept if tally.changed == 0 => format!("kept ({total})"),
        Outcome::Kept => format!("kept ({} of {total})", tally.kept),
        Outcome::Changed => format!("{changed} ({} of {total}){values}", tally.changed),
        Outcome::Both => format!("{changed} {} of {total}{values}", tally.changed),
    })
}

fn ttl(ttl: &Ttl) -> Option<String> {
    // What became another says more than what happens to be the same.
    let telling = |((from, to), count): &(&(u8, u8), &u64)| (from != to, **count);
    let first = ttl.pairs.iter().max_by_key(telling).map(|((from, to), _)| format!("{from} => {to}"))?;
    Some(match ttl.outcome() {
        TtlOutcome::Unseen => return None,
        TtlOutcome::Decremented(by) => format!("minus {by}: {first}"),
        TtlOutcome::Set(to) => format!("set to {to}: {first}"),
        TtlOutcome::Copied => format!("copied: {first}"),
        TtlOutcome::Same => format!("the same: {first}"),
        TtlOutcome::Mixed => format!("mixed, mostly {first}"),
    })
}

fn options(evidence: &Evidence) -> Option<String> {
    tally(&evidence.options, "others", "")
}

fn example(evidence: &Evidence, behind: bool) -> Option<String> {
    let (before, after) = evidence.options_example.as_ref()?;
    let kinds = if behind { after } else { before };
    Some(if kinds.is_empty() {
        "none".to_owned()
    } else {
        kinds.iter().map(|kind| option_name(*kind)).collect::<Vec<_>>().join(",")
    })
}

fn segments(evidence: &Evidence) -> Option<String> {
    if evidence.offload {
        return Some("offloaded".to_owned());
    }
    tally(&evidence.segments, "others", "").map(|said| said.replace("kept", "the same"))
}

/// Who answers, by how long it takes at the side that asks and at the other.
fn prompt(prompt: &Promptness) -> Option<String> {
    let total = prompt.early + prompt.late;
    let (early, late) = (prompt.early, prompt.late);
    Some(match (early, late) {
        (0, 0) => return None,
        (0, _) => format!("the far end ({total})"),
        (_, 0) => format!("the NAT ({total})"),
        _ => format!("the NAT ({early} of {total})"),
    })
}

fn lost(evidence: &Evidence) -> Option<String> {
    let lost = evidence.lost_out + evidence.lost_back;
    (lost > 0).then(|| Plural(lost, "packet").to_string())
}

/// The last line: what it comes to.
fn conclusion(report: &Report, palette: Palette, out: &mut impl Write) -> io::Result<()> {
    let (style, text) = match report.outcome() {
        report::Outcome::NothingAmiss => (palette.good(), "nothing amiss in what was seen"),
        report::Outcome::Difference => (palette.bad(), "not what a Linux NAT would have done"),
        report::Outcome::TooLittle => (palette.faint(), "too little was seen to say what it is"),
    };
    writeln!(out, "{}", Styled(style, text))
}
