//! `ctwhy conform fuzz` and `ctwhy conform nat-compare`: made-up packets through the running kernel and the engine, or its
//! NAT and ours, side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use clap::Args;
use ctwhy_conform::fuzz::{self, Beside, Disagreement, Limits, Progress, Report, Suite};
use ctwhy_conform::record::record_in_time;
use ctwhy_fixture::case::Case;
use serde::Serialize;

use crate::failure::{Failure, complain};
use crate::fixture::{DIFFERS, NO_LAB, enter, not_hidden};
use crate::release;
use crate::report::escape::Escaped;
use crate::report::summary::Plural;

/// Packets of a suite and seed where nothing else is said.
const PACKETS: u64 = 100_000;
/// Where the number of disagreements has become beside the point.
const ENOUGH: usize = 5;

const NOTES: &str = "\
Each suite runs once with each seed; the same seed makes the same packets. A disagreement is shrunk to the fewest packets \
and written as a case that `ctwhy fixture show` and `ctwhy conform kernel` read.

Exit code: 0 when everything agreed, 1 when something differed, 2 when it could not run to the end, 4 where no lab can be \
built.";

/// `ctwhy conform nat-compare`
#[derive(Args, Clone, Debug)]
pub(super) struct CompareArgs {
    /// Not the kernel's NAT beside ours, but `ctwhy nat tun` or `ctwhy nat queue` with real devices around it beside the same
    /// NAT in this process, to see that nothing gets lost or changed there
    #[arg(long, value_enum, value_name = "FRONT")]
    on: Option<On>,
    #[command(flatten)]
    fuzz: FuzzArgs,
}

/// A front end of our NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum On {
    /// `ctwhy nat tun`
    Tun,
    /// `ctwhy nat queue`
    Queue,
}

/// Runs `ctwhy conform nat-compare`.
///
/// # Errors
/// As [`run`].
pub(super) fn compare(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let own = std::env::current_exe()?;
    let beside = match args.on {
        None => Beside::Kernel,
        Some(On::Tun) => Beside::Tun(&own),
        Some(On::Queue) => Beside::Queue(&own),
    };
    run(&args.fuzz, &Suite::TRANSLATIONS, beside)
}

/// `ctwhy conform fuzz`, `ctwhy conform nat-compare`
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
pub(super) struct FuzzArgs {
    /// Only this suite; may be given several times
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<String>,
    /// A number, or a range such as 1..5 with both its ends
    #[arg(long, value_name = "SEED", default_value = "1", value_parser = seeds)]
    seed: Seeds,
    /// Packets of each suite with each seed [default: 100000, without --time]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    packets: Option<u64>,
    /// Seconds after which a suite with a seed begins nothing new
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
    /// Where disagreements are written, a folder each
    #[arg(long, value_name = "DIR", default_value = "disagreements")]
    output: PathBuf,
    /// Print a JSON object for each suite and seed
    #[arg(long)]
    json: bool,
    /// Tell the engine, but not the kernel, to see that the difference is found
    #[arg(long, hide = true, value_name = "SYSCTL=VALUE", value_parser = assignment)]
    engine_sysctl: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug)]
struct Seeds {
    first: u64,
    last: u64,
}

/// The suites that were asked for, of those that there are.
fn chosen(names: &[String], of: &[Suite]) -> Result<Vec<Suite>, Failure> {
    if names.is_empty() {
        return Ok(of.to_vec());
    }
    let known = || of.iter().map(|suite| suite.name()).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        let found = of.iter().find(|suite| suite.name() == name).copied();
        found.ok_or_else(|| Failure::usage(format!("--suite {name}: there are {}", known())))
    };
    names.iter().map(find).collect()
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let wrong = || "a number, or a range such as 1..5".to_owned();
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (first, last) = match text.split_once("..") {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first <= last { Ok(Seeds { first, last }) } else { Err(wrong()) }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the comparison.
///
/// # Errors
/// What went wrong, in one line.
pub(super) fn run(args: &FuzzArgs, suites: &[Suite], beside: Beside<'_>) -> Result<ExitCode, Failure> {
    let suites = chosen(&args.suites, suites)?;
    let packets = match (args.packets, args.time) {
        (None, None) => Some(PACKETS),
        (packets, _) => packets,
    };
    let limits = Limits {
        packets,
        time: args.time.map(Duration::from_secs),
        disagreements: ENOUGH,
        engine_only: args.engine_sysctl.iter().cloned().collect::<BTreeMap<_, _>>(),
    };
    not_hidden(&args.output)?;
    if !enter() {
        return Ok(ExitCode::from(NO_LAB));
    }
    let mut out = io::stdout().lock();
    for remark in release::remarks(release::running()?) {
        complain(format_args!("note: {remark}"));
    }
    if !args.json {
        writeln!(out, "suite        seed     packets packets/s    entries  disagreements")?;
    }
    let mut totals = (0, 0);
    for suite in suites {
        for seed in args.seed.first..=args.seed.last {
            let report = watched(beside, suite, seed, &limits)
                .map_err(|error| Failure::usage(format!("{suite}, seed {seed}: {error}")))?;
            let found = report.disagreements.iter().map(|one| Found::keep(&report, one, &args.output));
            let found = found.collect::<Result<Vec<_>, _>>()?;
            totals.0 += report.packets;
            totals.1 += found.len() as u64;
            if args.json {
                json(&mut out, &report, &found)?;
            } else {
                row(&mut out, &report, &found)?;
            }
            out.flush()?;
        }
    }
    if !args.json {
        writeln!(out, "{}: {}", Plural(totals.0, "packet"), Plural(totals.1, "disagreement"))?;
    }
    Ok(if totals.1 == 0 { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
}

/// Runs a suite with a seed, and says how far it is where somebody looks.
fn watched(beside: Beside<'_>, suite: Suite, seed: u64, limits: &Limits) -> Result<Report, fuzz::FuzzError> {
    /// How often the line changes.
    const STEP: Duration = Duration::from_millis(200);
    let progress = Progress::default();
    let shown = io::stderr().is_terminal();
    std::thread::scope(|scope| {
        let (done, wait) = channel::<()>();
        let progress = &progress;
        if shown {
            scope.spawn(move || {
                let started = Instant::now();
                while wait.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                    let line = bar(suite, seed, limits, progress, started.elapsed());
                    // Nobody is told when nobody can be told.
                    let _ = write!(io::stderr(), "\r{line}\x1b[K");
                }
                let _ = write!(io::stderr(), "\r\x1b[K");
            });
        }
        let report = fuzz::run_beside(beside, suite, seed, limits, progress);
        drop(done);
        report
    })
}

/// How far a run is, of its packets or of its time.
fn bar(suite: Suite, seed: u64, limits: &Limits, progress: &Progress, elapsed: Duration) -> String {
    const WIDTH: usize = 24;
    let packets = progress.packets.load(Ordering::Relaxed);
    let disagreements = progress.disagreements.load(Ordering::Relaxed);
    let seconds = elapsed.as_secs_f64();
    let of_packets = limits.packets.map(|all| packets as f64 / all.max(1) as f64);
    let of_time = limits.time.map(|all| seconds / all.as_secs_f64().max(1.0));
    let part = of_packets.unwrap_or(0.0).max(of_time.unwrap_or(0.0)).min(1.0);
    let full = (part * WIDTH as f64) as usize;
    let agreement = 100.0 * (1.0 - disagreements as f64 / packets.max(1) as f64);
    format!(
        "{suite} seed {seed} [{}{}] {packets} packets, {:.0}/s, {agreement:.4} % agree, {}",
        "#".repeat(full),
        " ".repeat(WIDTH - full),
        packets as f64 / seconds.max(1e-9),
        Plural(disagreements, "disagreement"),
    )
}

/// A disagreement, and where it was written.
#[derive(Serialize)]
struct Found {
    episode: u64,
    /// How they differ about the packets of the case, or did at first.
    difference: String,
    /// Packets of the case; `None` when kernel and engine agreed when they were asked again.
    packets: Option<usize>,
    case: Option<PathBuf>,
}

impl Found {
    /// Records the case and writes it.
    fn keep(report: &Report, disagreement: &Disagreement, output: &Path) -> Result<Found, Failure> {
        let Disagreement { episode, first, case } = disagreement;
        let Some((case, difference)) = case else {
            return Ok(Found { episode: *episode, difference: first.to_string(), packets: None, case: None });
        };
        let name = format!("{}-seed{}-episode{episode}", report.suite, report.seed);
        let folder = output.join(name);
        let mut case: Case = case.clone();
        match record_in_time(&case) {
            Ok(recording) => {
                case.recordings.insert(recording.release.clone(), recording);
            }
            Err(error) => {
                complain(format_args!("ctwhy: {}: not recorded: {error}", Escaped(&folder.display().to_string())))
            }
        }
        case.write(&folder).map_err(|error| Failure::usage(error.to_string()))?;
        let (difference, packets) = (difference.to_string(), Some(case.packets.len()));
        Ok(Found { episode: *episode, difference, packets, case: Some(folder) })
    }
}

fn row(out: &mut impl Write, report: &Report, found: &[Found]) -> io::Result<()> {
    let Report { suite, seed, packets, entries, .. } = report;
    writeln!(
        out,
        "{:<10} {seed:>6} {packets:>11} {:>9.0} {entries:>10}  {}",
        suite.name(),
        report.rate(),
        found.len()
    )?;
    for Found { episode, difference, packets, case } in found {
        let mut line = format!("    episode {episode}: {difference}");
        // Writing into a string does not fail.
        let _ = match (packets, case) {
            (Some(packets), Some(case)) => {
                write!(line, "\n        {} in {}", Plural(*packets as u64, "packet"), case.display())
            }
            _ => write!(line, "\n        the same packets agreed when they were sent again"),
        };
        for line in line.lines() {
            writeln!(out, "{}", Escaped(line))?;
        }
    }
    Ok(())
}

fn json(out: &mut impl Write, report: &Report, found: &[Found]) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Run<'a> {
        suite: &'static str,
        seed: u64,
        packets: u64,
        entries: u64,
        seconds: f64,
        rate: f64,
        decisions: &'a BTreeMap<&'static str, u64>,
        disagreements: &'a [Found],
    }
    let run = Run {
        suite: report.suite.name(),
        seed: report.seed,
        packets: report.packets,
        entries: report.entries,
        seconds: report.elapsed.as_secs_f64(),
        rate: report.rate(),
        decisions: &report.decisions,
        disagreements: found,
    };
    let line = serde_json::to_string(&run).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(writeln!(out, "{line}")?)
}
