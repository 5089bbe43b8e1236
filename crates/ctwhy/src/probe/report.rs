//! The verdict and its evidence, as text for a ticket.

use std::io::{self, Write};

use ctwhy_conform::probe::claim::words;
use ctwhy_conform::probe::evidence::{Evidence, Hop, Outcome};
use ctwhy_conform::probe::verdict::Verdict;
use ctwhy_linux::probe::{Method, Quote};

use crate::report::escape::Escaped;
use crate::report::style::{Palette, Styled};

const COLUMN: usize = 34;

/// Findings first, then what was seen.
pub(super) fn write(out: &mut impl Write, evidence: &Evidence, verdict: &Verdict, palette: Palette) -> io::Result<()> {
    writeln!(out, "{}", Styled(palette.heading(), format_args!("ctwhy probe {}", evidence.dest)))?;
    for finding in &verdict.findings {
        let (sign, style) = if finding.claim.is_amiss() { ("✗", palette.bad()) } else { ("✓", palette.good()) };
        writeln!(out, "{} {} ({} confidence)", Styled(style, sign), finding.claim, finding.confidence.name())?;
        for because in &finding.because {
            writeln!(out, "    {}", Escaped(because))?;
        }
    }
    for open in &verdict.open {
        writeln!(out, "{} cannot be told from here: {}", Styled(palette.faint(), "?"), Escaped(open))?;
    }
    writeln!(out)?;
    hops(out, evidence, palette)?;
    controls(out, evidence)
}

fn hops(out: &mut impl Write, evidence: &Evidence, palette: Palette) -> io::Result<()> {
    let line = |ttl: &str, cells: [String; 3]| {
        let [udp, echo, tcp] = cells;
        format!("{ttl:>3}  {udp:<COLUMN$}  {echo:<COLUMN$}  {tcp}").trim_end().to_owned()
    };
    let titles = Method::ALL.map(|method| method.name().to_owned());
    writeln!(out, "{}", Styled(palette.heading(), line("TTL", titles)))?;
    for hop in shown(&evidence.hops) {
        let cell = |method| hop.by(method).map_or_else(String::new, |outcome| told(outcome, evidence));
        writeln!(out, "{}", line(&hop.ttl.to_string(), Method::ALL.map(cell)))?;
    }
    Ok(())
}

/// Without the silence behind the last answer, but for the first line of it.
fn shown(hops: &[Hop]) -> &[Hop] {
    let answered = |hop: &Hop| hop.outcomes.iter().flatten().any(Outcome::is_answer);
    let last = hops.iter().rposition(answered).map_or(0, |at| at + 1);
    &hops[..(last + 1).min(hops.len())]
}

fn controls(out: &mut impl Write, evidence: &Evidence) -> io::Result<()> {
    writeln!(out)?;
    for (method, outcome) in &evidence.closed {
        writeln!(out, "{:<5} to a closed port: {}", method.name(), told(outcome, evidence))?;
    }
    for (method, outcome) in &evidence.to_nowhere {
        writeln!(out, "{:<5} to {}: {}", method.name(), evidence.nowhere, told(outcome, evidence))?;
    }
    for sized in &evidence.sizes {
        writeln!(out, "{:<5} {:>4} bytes, DF: {}", sized.method.name(), sized.length, told(&sized.outcome, evidence))?;
    }
    for (number, crossing) in evidence.crossing.iter().enumerate() {
        let own = |quote: &&Quote| matches!(quote, Quote::Tag(tag) if crossing.sent.contains(tag));
        let (sent, errors) = (crossing.sent.len(), crossing.quoted.len());
        let own = crossing.quoted.iter().filter(own).count();
        writeln!(out, "flow {}: {sent} datagrams in flight, {errors} errors, {own} quote one of them", number + 1)?;
    }
    Ok(())
}

fn told(outcome: &Outcome, evidence: &Evidence) -> String {
    Escaped(&words(outcome, evidence.dest)).to_string()
}
