//! `ctwhy explain`: a capture in, why conntrack would decide what about each packet out.

mod filter;
mod input;
mod output;
mod own;
mod run;
mod world;

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
use crate::report::style::When;
use crate::report::summary::Plural;
use filter::{Filter, Numbers};
use input::Input;
use run::Run;
use world::World;

/// `ctwhy explain`
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArgs {
    /// A pcap or pcapng file, - for standard input, or the folder of a case. Without it: a traceroute through a NAT that
    /// a kernel recorded
    file: Option<PathBuf>,
    /// Show the steps under every packet
    #[arg(short, long)]
    verbose: bool,
    /// Show the steps under this packet: N or N-M, may be repeated
    #[arg(long = "packet", value_name = "N", conflicts_with = "verbose")]
    packets: Vec<Numbers>,
    /// Leave out the lines of packets, except those of --packet
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Print JSON Lines, one object per packet; the summary goes to standard error
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Write the packets to this pcapng file, each with its explanation as a comment
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print the table after the last packet, as `conntrack -L -o extended` does
    #[arg(long, conflicts_with = "json")]
    table: bool,
    /// Print what is still expected after the last packet, as `conntrack -L expect` does for each family; with --json an
    /// object each, behind those of the packets
    #[arg(long)]
    expectations: bool,
    /// Print what the kernel would tell listeners of its table behind each packet, as `conntrack -E -o extended` does
    #[arg(long, conflicts_with = "json")]
    events: bool,
    #[command(flatten)]
    world: World,
    #[command(flatten)]
    filter: Filter,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

impl ExplainArgs {
    /// Are the steps of this packet shown?
    fn wants_steps(&self, number: u64) -> bool {
        self.verbose || self.json || self.chosen(number)
    }

    /// Is a line of this packet shown, if the filter lets it pass?
    fn wants_line(&self, number: u64) -> bool {
        !self.quiet || self.chosen(number)
    }

    fn chosen(&self, number: u64) -> bool {
        self.packets.iter().any(|numbers| numbers.contains(number))
    }
}

/// Explains a capture.
///
/// # Errors
/// [`Failure`] with one line, after everything that could be explained has been printed.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let input = Input::open(args.file.as_deref())?;
    let mut host = args.world.host(input.engine)?;
    if input.held > 0 {
        host.remarks.notes.push(format!(
            "{} held back in a queue when the case was recorded, and let go at once here; `ctwhy fixture show` holds them",
            Plural(input.held as u64, "packet")
        ));
    }
    if let Some(path) = &args.write {
        input.identity.refuse(path)?;
    }
    Run::new(args, host, input.made)?.all(input.bytes, &input.name, input.about.as_deref())
}
