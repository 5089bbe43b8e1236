//! `ctwhy conform nat`: a suite for anybody's NAT, from both its sides.

mod ends;
mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ctwhy_conform::blackbox::Hosts;
use ctwhy_conform::blackbox::capture;
use ctwhy_conform::blackbox::nat::Nat;
use ctwhy_conform::blackbox::requirement::Group;
use ctwhy_conform::blackbox::run::{self, News, Plan, Verdict};
use ctwhy_conform::blackbox::subject::Subject;
use ctwhy_linux::{lab, netns};

use super::formats;
use crate::failure::{Failure, complain};
use crate::fixture::{DIFFERS, NO_LAB, not_hidden};
use crate::report::escape::Escaped;
use ends::EndArgs;
use report::{Report, Tally};

const NOTES: &str = "\
The suite speaks for everybody but the NAT, by raw packets: for two clients inside and for servers and routers outside \
(192.0.2.0/24 and 198.51.100.0/24; 2001:db8:2::/64 and 2001:db8:100::/64, to which the NAT has to have a route that leads \
outside). No kernel may speak for them, too. Requirements that say `beyond` are those that Linux' own NAT does not meet; only \
--strict counts them.

Exit code: 0 when every requirement that counts is met, 1 when one is not, 2 when it could not run to the end, 4 where no lab \
can be built or no NAT that was named is installed.";

/// `ctwhy conform nat`
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
pub(super) struct NatArgs {
    /// Build a lab with this NAT in it, or `all`; may be repeated
    #[arg(long, value_name = "NAT", value_parser = labs, conflicts_with_all = ["inside", "outside"])]
    lab: Vec<Labs>,
    #[command(flatten)]
    ends: EndArgs,
    /// Only this group of requirements; may be repeated
    #[arg(long, value_name = "GROUP", value_parser = group)]
    group: Vec<Group>,
    /// Only requirements whose id begins so; may be repeated
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// Ask what timeouts there are, too, as far as that takes no longer than this for each
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeouts: u64,
    /// Milliseconds after which a packet that did not come does not come
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..))]
    patience: u64,
    /// Count requirements that Linux' own NAT does not meet, too
    #[arg(long)]
    strict: bool,
    /// Print every requirement, and ask nothing
    #[arg(long)]
    list: bool,
    /// Print TAP version 14
    #[arg(long, conflicts_with_all = ["json", "markdown"])]
    tap: bool,
    /// Print JSON Lines, an object for each requirement and family
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print a table in Markdown, a column for each NAT
    #[arg(long)]
    markdown: bool,
    /// Write JUnit's XML to this file, beside what is printed
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the packets of each requirement that is not met to DIR/ID.pcapng
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Labs(Vec<Subject>);

fn labs(text: &str) -> Result<Labs, String> {
    if text == "all" {
        return Ok(Labs(Subject::ALL.to_vec()));
    }
    text.parse().map(|subject| Labs(vec![subject])).map_err(|error: String| format!("{error}, and all"))
}

fn group(text: &str) -> Result<Group, String> {
    let found = Group::ALL.into_iter().find(|group| group.name() == text);
    found.ok_or_else(|| format!("there are {}", Group::ALL.map(Group::name).join(", ")))
}

/// Runs the suite.
///
/// # Errors
/// What went wrong, in one line.
pub(super) fn run(args: &NatArgs) -> Result<ExitCode, Failure> {
    if args.list {
        report::list(&mut io::stdout().lock(), args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    [&args.junit, &args.output].into_iter().flatten().try_for_each(|path| not_hidden(path))?;
    something_is_asked(args)?;
    let mut session = Session { args, reports: Vec::new() };
    if args.lab.is_empty() {
        let (mut nat, families) = args.ends.open()?;
        session.ask(args.ends.name(), &mut nat, families)?;
    } else if !session.ask_in_labs()? {
        return Ok(ExitCode::from(NO_LAB));
    }
    session.close()
}

fn plan(args: &NatArgs, families: Vec<Hosts>) -> Plan {
    Plan {
        families,
        patience: Duration::from_millis(args.patience),
        seconds: args.timeouts,
        groups: args.group.clone(),
        only: args.only.clone(),
    }
}

/// Nothing asked is nothing found wrong, and that would look like praise.
fn something_is_asked(args: &NatArgs) -> Result<(), Failure> {
    let all = run::requirements();
    if let Some(start) = args.only.iter().find(|start| !all.iter().any(|one| one.id.starts_with(start.as_str()))) {
        let start = Escaped(start);
        return Err(Failure::usage(format!("--only {start}: no requirement's id begins so; --list prints them")));
    }
    if plan(args, Vec::new()).requirements().is_empty() {
        return Err(Failure::usage(
            "no requirement is left to ask: --only may name none of the --group, and those of timeouts need --timeouts",
        ));
    }
    Ok(())
}

/// A run, of one NAT or of several.
struct Session<'a> {
    args: &'a NatArgs,
    reports: Vec<Report>,
}

impl Session<'_> {
    /// `false` when there was no NAT to ask.
    fn ask_in_labs(&mut self) -> Result<bool, Failure> {
        let entered = lab::probe().map_err(|reason| reason.to_string());
        let entered = entered.and_then(|()| netns::isolate().map_err(|error| format!("no namespaces: {error}")));
        if let Err(reason) = entered {
            complain(format_args!("ctwhy: skipped, no lab can be built here: {}", Escaped(&reason)));
            return Ok(false);
        }
        let own = std::env::current_exe()?;
        for subject in self.args.lab.iter().flat_map(|labs| &labs.0) {
            if let Some(reason) = subject.nat.unavailable() {
                complain(format_args!("ctwhy: skipped, {subject}: {}", Escaped(&reason)));
                continue;
            }
            let mut tested = subject.start(&own).map_err(|error| Failure::usage(format!("{subject}: {error}")))?;
            let families = tested.families.clone();
            self.ask(subject.to_string(), &mut tested, families)?;
        }
        Ok(!self.reports.is_empty())
    }

    fn ask(&mut self, name: String, nat: &mut dyn Nat, families: Vec<Hosts>) -> Result<(), Failure> {
        let args = self.args;
        let plan = plan(args, families);
        let aloud = !(args.tap || args.json || args.markdown);
        let mut out = io::stdout().lock();
        if aloud {
            writeln!(out, "{}", Escaped(&name))?;
        }
        let mut report = Report::new(name);
        let mut problem: Result<(), Failure> = Ok(());
        run::run(nat, &plan, |news| match news {
            News::Surveyed(l3num, survey) => report.surveyed(l3num, &survey),
            News::Verdict(verdict) => {
                if problem.is_ok() {
                    problem = self.keep(&report, &verdict).and_then(|()| {
                        if aloud { report::row(&mut out, &verdict, args.strict).map_err(Failure::from) } else { Ok(()) }
                    });
                }
                report.verdicts.push(*verdict);
            }
        })
        .map_err(|error| Failure::usage(format!("{}: {error}", report.name)))?;
        problem?;
        if aloud {
            report::summary(&mut out, &report, args.strict)?;
        }
        self.reports.push(report);
        Ok(())
    }

    /// The packets of what is not met.
    fn keep(&self, report: &Report, verdict: &Verdict) -> Result<(), Failure> {
        let Some(folder) = self.args.output.as_ref().filter(|_| verdict.fails(true)) else { return Ok(()) };
        // Several NATs have a folder each.
        let several = self.args.lab.iter().map(|labs| labs.0.len()).sum::<usize>() > 1;
        let folder = if several { folder.join(&report.name) } else { folder.clone() };
        std::fs::create_dir_all(&folder).map_err(|error| Failure::io(&folder, &error))?;
        let path = folder.join(format!("{}.pcapng", verdict.name()));
        let file = std::fs::File::create(&path).map_err(|error| Failure::io(&path, &error))?;
        Ok(capture::write(verdict, io::BufWriter::new(file))?)
    }

    fn close(self) -> Result<ExitCode, Failure> {
        let (args, mut out) = (self.args, io::stdout().lock());
        let tests = report::tests(&self.reports, args.strict);
        if args.tap {
            formats::tap_plan(&mut out, tests.len())?;
            for (test, number) in tests.iter().zip(1..) {
                formats::tap_line(&mut out, number, test, "reasons")?;
            }
        } else if args.json {
            report::json(&mut out, &self.reports, args.strict)?;
        } else if args.markdown {
            report::markdown(&mut out, &self.reports)?;
        }
        if let Some(path) = &args.junit {
            let names: Vec<&str> = self.reports.iter().map(|report| report.name.as_str()).collect();
            let xml = formats::junit("ctwhy conform nat", "ctwhy.nat", &[("nat", &names.join(" "))], &tests);
            std::fs::write(path, xml).map_err(|error| Failure::io(path, &error))?;
        }
        let failed = self.reports.iter().any(|report| Tally::of(report, args.strict).failed > 0);
        Ok(if failed { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS })
    }
}
