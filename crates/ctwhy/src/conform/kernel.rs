//! `ctwhy conform kernel`: each case through the running kernel and the engine, side by side.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ctwhy_conform::record::record_in_time;
use ctwhy_conform::replay::{is_left_to_chance, replay};
use ctwhy_core::profile::Profile;
use ctwhy_fixture::case::{Case, Recording, Tolerance, compare};

use super::formats::{self, Test, TestResult};
use crate::failure::Failure;
use crate::fixture::{DIFFERS, NO_LAB, UNREADABLE, differences, enter, fact, find, name, not_hidden, under};
use crate::release;
use crate::report::escape::Escaped;
use crate::report::summary::Plural;

/// `ctwhy conform kernel`
#[derive(Args, Clone, Debug)]
pub(super) struct KernelArgs {
    /// Cases, and folders with cases anywhere below
    #[arg(default_value = "fixtures")]
    cases: Vec<PathBuf>,
    /// Print TAP version 14
    #[arg(long, conflicts_with = "junit")]
    tap: bool,
    /// Write JUnit's XML to this file, beside what is printed
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// What came of one case.
struct Verdict {
    name: String,
    result: Result<Compared, String>,
}

struct Compared {
    packets: u64,
    /// Has this release decided about the case before?
    recorded: bool,
    /// Differences, a sentence each.
    differences: Vec<String>,
}

/// Runs the comparison.
///
/// # Errors
/// What went wrong, in one line.
pub(super) fn run(args: &KernelArgs) -> Result<ExitCode, Failure> {
    let folders = find(&args.cases)?;
    let cases: Vec<(String, Result<Case, String>)> =
        folders.iter().map(|folder| (name(folder), Case::read(folder).map_err(|error| error.to_string()))).collect();
    args.junit.iter().try_for_each(|file| not_hidden(file))?;
    if !enter() {
        return Ok(ExitCode::from(NO_LAB));
    }
    let mut out = io::stdout().lock();
    if args.tap {
        formats::tap_plan(&mut out, cases.len())?;
    }
    let mut kernel = None;
    let mut verdicts = Vec::new();
    for ((name, case), number) in cases.into_iter().zip(1..) {
        let result = case.and_then(|case| {
            let fresh = record_in_time(&case).map_err(|error| error.to_string())?;
            let compared = side_by_side(&case, &fresh)?;
            Ok((compared, fresh))
        });
        if let Ok((_, fresh)) = &result
            && kernel.is_none()
        {
            let described = describe(fresh);
            let mark = if args.tap { "# " } else { "" };
            writeln!(out, "{mark}{}", Escaped(&described))?;
            for remark in release::remarks(Profile::nearest(&fresh.release)) {
                writeln!(out, "{mark}{remark}")?;
            }
            kernel = Some(described);
        }
        let verdict = Verdict { name, result: result.map(|(compared, _)| compared) };
        if args.tap {
            formats::tap_line(&mut out, number, &verdict.test(), "differences")?
        } else {
            verdict.row(&mut out)?
        }
        verdicts.push(verdict);
    }
    let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| wanted(verdict)).count();
    let failed = count(|verdict| verdict.result.is_err());
    let differ = count(|verdict| verdict.result.as_ref().is_ok_and(|compared| !compared.differences.is_empty()));
    let total = verdicts.len();
    let mark = if args.tap { "# " } else { "" };
    let agree = total - failed - differ;
    writeln!(out, "{mark}{}: {agree} agree, {differ} differ, {failed} failed", Plural(total as u64, "case"))?;
    if let Some(path) = &args.junit {
        let tests: Vec<Test> = verdicts.iter().map(Verdict::test).collect();
        let properties = [("kernel", kernel.as_deref().unwrap_or_default())];
        let xml = formats::junit("ctwhy conform kernel", "ctwhy.kernel", &properties, &tests);
        std::fs::write(path, xml).map_err(|error| Failure::io(path, &error))?;
    }
    Ok(match (failed, differ) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(DIFFERS),
        _ => ExitCode::from(UNREADABLE),
    })
}

/// The engine beside the kernel, and the kernel beside what it decided before.
fn side_by_side(case: &Case, fresh: &Recording) -> Result<Compared, String> {
    let recorded = case.recordings.get(&fresh.release);
    let mut kernel = fresh.clone();
    if recorded.is_none() {
        // What is logged is worded for readers and changes between releases.
        kernel.outcome.packets.iter_mut().for_each(|packet| packet.log = None);
    }
    let engine = replay(case, &kernel).map_err(|error| error.to_string())?;
    let tolerance = Tolerance::default();
    let mut lines = differences(&kernel.outcome, &engine, tolerance);
    lines.iter_mut().for_each(|line| line.insert_str(0, "engine: "));
    let chance = is_left_to_chance(case, &kernel).map_err(|error| error.to_string())?;
    if let Some(recorded) = recorded.filter(|_| !chance) {
        let changed = compare(&recorded.outcome, &fresh.outcome, tolerance);
        lines.extend(changed.iter().map(|difference| format!("recording beside the kernel now: {difference}")));
    }
    Ok(Compared { packets: case.packets.len() as u64, recorded: recorded.is_some() && !chance, differences: lines })
}

/// Which kernel decided, and the facts of its configuration.
fn describe(recording: &Recording) -> String {
    let facts = recording.config.iter().map(|(name, value)| format!(" {name}={}", fact(value)));
    format!("kernel {}{}", recording.release, facts.collect::<String>())
}

impl Verdict {
    fn row(&self, out: &mut impl Write) -> io::Result<()> {
        let name = Escaped(&self.name).to_string();
        match &self.result {
            Ok(Compared { packets, recorded, differences }) => {
                let word = if differences.is_empty() { "agree" } else { "DIFFERS" };
                let beside = if *recorded { "engine, kernel, recording" } else { "engine, kernel" };
                writeln!(out, "{word:<8} {name:<48} {packets:>4}  {beside}")?;
                under(out, differences)
            }
            Err(problem) => {
                writeln!(out, "{:<8} {name}", "FAILED")?;
                under(out, &[problem])
            }
        }
    }

    /// As TAP and JUnit have it.
    fn test(&self) -> Test {
        let result = match &self.result {
            Ok(compared) if compared.differences.is_empty() => TestResult::Passed,
            Ok(_) => TestResult::Failed,
            Err(_) => TestResult::Broken,
        };
        Test { name: self.name.clone(), result, lines: self.problems().to_vec() }
    }

    fn problems(&self) -> &[String] {
        match &self.result {
            Ok(compared) => &compared.differences,
            Err(problem) => std::slice::from_ref(problem),
        }
    }
}
