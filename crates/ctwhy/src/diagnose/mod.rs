//! `ctwhy diagnose`: two captures in, what kind of NAT lies between them and what it does to ICMP errors out.

mod errors;
mod json;
mod read;
mod text;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ctwhy_diagnose::report::Outcome;
use ctwhy_diagnose::{Counts, Diagnosis, Limits, Report, Side};
use ctwhy_fixture::capture::Capture;

use crate::failure::{Failure, complain};
use crate::report::escape::Escaped;
use crate::report::style::{Palette, When};
use crate::report::summary::Plural;
use read::{Reading, Source};

/// A difference was found.
const DIFFERENCE: u8 = 1;
/// Too little was seen to say anything.
const TOO_LITTLE: u8 = 3;

/// `ctwhy diagnose`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 nothing amiss, 1 a proxy, or errors that were swallowed or came out wrong, 2 usage, \
                        input or output, 3 too little in the captures to say."
)]
pub(crate) struct DiagnoseArgs {
    /// What was captured at the side of the hidden hosts: a pcap or pcapng file, - for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "capture", requires = "outside")]
    inside: Option<PathBuf>,
    /// What was captured at the other side
    #[arg(long, value_name = "FILE", requires = "inside")]
    outside: Option<PathBuf>,
    /// One pcapng file in which both sides are interfaces
    #[arg(long, value_name = "FILE", conflicts_with_all = ["inside", "outside"],
          requires_all = ["inside_interface", "outside_interface"])]
    capture: Option<PathBuf>,
    /// The interface inside: its name in the file, or its number there counted from 0
    #[arg(long, value_name = "NAME", requires = "capture")]
    inside_interface: Option<String>,
    /// The interface outside
    #[arg(long, value_name = "NAME", requires = "capture")]
    outside_interface: Option<String>,
    /// Show every error, and the steps of what Linux would have done with it
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object instead
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

impl DiagnoseArgs {
    /// What to read, and which side each is.
    fn sources(&self) -> Result<Vec<Source<'_>>, Failure> {
        match (&self.capture, &self.inside, &self.outside) {
            (Some(file), ..) => {
                if self.inside_interface == self.outside_interface {
                    return Err(Failure::usage("inside and outside are the same interface; name two"));
                }
                let sides = [(Side::Inside, &self.inside_interface), (Side::Outside, &self.outside_interface)];
                let named = sides.into_iter().filter_map(|(side, name)| Some((side, name.as_deref()?)));
                Ok(vec![Source::Interfaces { file, sides: named.collect() }])
            }
            (None, Some(inside), Some(outside)) => {
                if inside.as_os_str() == "-" && outside.as_os_str() == "-" {
                    return Err(Failure::usage("standard input can be one of the captures only"));
                }
                Ok(vec![
                    Source::Whole { file: inside, side: Side::Inside },
                    Source::Whole { file: outside, side: Side::Outside },
                ])
            }
            _ => Err(Failure::usage("name two captures with --inside and --outside, or one with --capture")),
        }
    }
}

/// Diagnoses a NAT.
///
/// # Errors
/// [`Failure`] with one line. A capture that is damaged behind its first packets is reported after what those show.
pub(crate) fn run(args: &DiagnoseArgs) -> Result<ExitCode, Failure> {
    let mut diagnosis = Diagnosis::new(Limits::default());
    let mut reading = Reading::default();
    for source in args.sources()? {
        reading.read(&source, &mut diagnosis)?;
    }
    let report = diagnosis.finish();
    let mut out = BufWriter::new(io::stdout());
    let written = if args.json {
        json::write(&report, &reading, &mut out)
    } else {
        text::write(&report, &reading, args.verbose, Palette::stdout(args.color), &mut out)
    };
    written.and_then(|()| out.flush())?;
    for note in notes(&report, &reading) {
        complain(format_args!("note: {note}"));
    }
    match reading.failure {
        Some(failure) => Err(failure),
        None => Ok(ExitCode::from(status(report.outcome()))),
    }
}

/// The exit code of an outcome.
pub(crate) const fn status(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::NothingAmiss => 0,
        Outcome::Difference => DIFFERENCE,
        Outcome::TooLittle => TOO_LITTLE,
    }
}

/// What `ctwhy diagnose` finds and prints about two captures, inside and outside, each with its name and its bytes.
///
/// # Errors
/// One of them is no capture.
#[cfg(target_os = "linux")]
pub(crate) fn of_captures(captures: [(&str, &[u8]); 2], palette: Palette) -> Result<(Report, String), Failure> {
    let mut diagnosis = Diagnosis::new(Limits::default());
    let mut reading = Reading::default();
    for ((name, bytes), side) in captures.into_iter().zip([Side::Inside, Side::Outside]) {
        let source = Source::Whole { file: Path::new(name), side };
        reading.packets(&mut Capture::new(bytes, name)?, &source, &mut diagnosis)?;
    }
    if let Some(failure) = reading.failure {
        return Err(failure);
    }
    let report = diagnosis.finish();
    let mut text = Vec::new();
    text::write(&report, &reading, false, palette, &mut text)?;
    Ok((report, String::from_utf8_lossy(&text).into_owned()))
}

/// What the user should know about the captures.
fn notes(report: &Report, reading: &Reading) -> Vec<String> {
    let mut notes = Vec::new();
    for (side, counts, read) in
        [(Side::Inside, &report.inside, &reading.inside), (Side::Outside, &report.outside, &reading.outside)]
    {
        let Counts { flows_beyond, packets_beyond, errors_beyond, unreadable, fragments, .. } = *counts;
        let limits = Limits::default();
        let mut note = |count: u64, what: &'static str, text: String| {
            if count > 0 {
                notes.push(format!("{side}: {}{text}", Plural(count, what)));
            }
        };
        note(flows_beyond, "packet", format!(" of more than {} flows: not looked at", limits.flows));
        note(packets_beyond, "packet", format!(" beyond the {} that are kept: not compared", limits.packets));
        note(errors_beyond, "ICMP error", format!(" beyond the {} that are kept: not judged", limits.errors));
        note(unreadable, "packet", " with an IP header that is broken or cut".to_owned());
        note(fragments, "fragment", " behind the first of a datagram: not looked at".to_owned());
        note(read.not_ip, "packet", " that cannot be IP or could not be read".to_owned());
        note(read.damaged, "packet", " damaged in the capture".to_owned());
    }
    if report.twins > 0 {
        notes.push(format!(
            "{} of the inside in the capture outside as well, untranslated: it looks like one of all interfaces; capture \
             on the outer one alone",
            Plural(report.twins, "flow")
        ));
    }
    let offload = report.nats.iter().flat_map(|nat| &nat.protocols).any(|finding| finding.evidence.offload);
    if offload {
        notes.push(
            "segments longer than the MSS: they are cut behind where they were captured (offload), so segmentation \
                    says nothing"
                .to_owned(),
        );
    }
    if reading.inside.packets > 0 && reading.outside.packets > 0 && report.paired == 0 {
        notes.push(
            "no flow was recognised at both sides: are the captures of the same time and the same hosts?".to_owned(),
        );
    }
    notes
}

/// A name from a file, for a terminal.
fn shown(name: &str) -> String {
    Escaped(name).to_string()
}
