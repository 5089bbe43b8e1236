//! `ctwhy explain`: a capture in, why conntrack would decide what about each packet out.

mod embedded;
mod filter;
mod run;
mod world;

use std::path::{Path, PathBuf};

use clap::Args;
use ctwhy_fixture::capture::Capture;

use crate::failure::Failure;
use crate::report::style::When;
use filter::{Filter, Numbers};
use run::Run;
use world::World;

/// `ctwhy explain`
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArgs {
    /// A pcap or pcapng file, or - for standard input. Without it: a traceroute through a NAT that a kernel recorded
    file: Option<PathBuf>,
    /// Show the steps under every packet
    #[arg(short, long)]
    verbose: bool,
    /// Show the steps under this packet: N or N-M, may be repeated
    #[arg(long = "packet", value_name = "N", conflicts_with = "verbose")]
    packets: Vec<Numbers>,
    /// Print JSON Lines, one object per packet; the summary goes to standard error
    #[arg(long)]
    json: bool,
    /// Write the packets to this pcapng file, each with its explanation as a comment
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print the table after the last packet, as `conntrack -L -o extended` does
    #[arg(long, conflicts_with = "json")]
    table: bool,
    #[command(flatten)]
    world: World,
    #[command(flatten)]
    filter: Filter,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

impl ExplainArgs {
    /// Are the steps of this packet wanted?
    fn wants_steps(&self, number: u64) -> bool {
        self.verbose || self.packets.iter().any(|numbers| numbers.contains(number))
    }
}

/// Explains a capture.
///
/// # Errors
/// [`Failure`] with one line, after everything that could be explained has been printed.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    match &args.file {
        Some(file) => {
            let (mut engine, notes) = args.world.engine()?;
            engine.conntrack.sysctls.checksum &= !args.world.no_checksum();
            if let Some(out) = &args.write {
                refuse_same_file(file, out)?;
            }
            let capture = Capture::open(file)?;
            Run::new(args, engine, notes)?.all(capture)
        }
        None => {
            if args.world.is_given() {
                return Err(Failure::usage("routes, addresses, rules and sysctls belong to a capture: name its file"));
            }
            let (mut engine, capture, about) = embedded::open()?;
            engine.conntrack.sysctls.checksum &= !args.world.no_checksum();
            if !args.json {
                println!("{about}\n");
            }
            Run::new(args, engine, Vec::new())?.all(capture)
        }
    }
}

/// Writing into the file that is being read would destroy it.
fn refuse_same_file(input: &Path, output: &Path) -> Result<(), Failure> {
    match (std::fs::canonicalize(input), std::fs::canonicalize(output)) {
        (Ok(input), Ok(output)) if input == output => {
            Err(Failure::usage(format!("{}: this is the input; write to another file", output.display())))
        }
        _ => Ok(()),
    }
}
