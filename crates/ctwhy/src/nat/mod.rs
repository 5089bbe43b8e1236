//! `ctwhy nat`: the reference NAT on real traffic.

mod control;
mod queue;
mod reporter;
mod status;
mod tun;

use std::fmt::{self, Display, Formatter};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroU32;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ctwhy_core::hook::Engine;
use ctwhy_core::table::Table;
use ctwhy_nat::limit::Limits;

use crate::failure::Failure;
use crate::host::{Network, Remarks, Settings};
use crate::report::style::When;

/// How many entries there may be where nobody says: what a kernel with enough memory allows.
const TABLE_LIMIT: NonZeroU32 = NonZeroU32::new(262_144).unwrap();

/// `ctwhy nat`
#[derive(Args)]
pub(crate) struct NatArgs {
    #[command(subcommand)]
    front_end: FrontEnd,
}

#[derive(Subcommand)]
enum FrontEnd {
    /// A router of its own on two TUN devices
    Tun(Box<tun::TunArgs>),
    /// NAT of what this machine forwards, as a consumer of NFQUEUE
    Queue(Box<queue::QueueArgs>),
    /// Print the table of a NAT that runs, as `conntrack -L -o extended` does
    Status(status::StatusArgs),
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] with one line.
pub(crate) fn run(args: &NatArgs) -> Result<ExitCode, Failure> {
    match &args.front_end {
        FrontEnd::Tun(args) => tun::run(args),
        FrontEnd::Queue(args) => queue::run(args),
        FrontEnd::Status(args) => status::run(args),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// What every front end is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    #[command(flatten)]
    settings: Settings,
    /// Where ports and ids are drawn from, so that a run can be repeated; otherwise every run draws others
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// What `ctwhy nat status` calls this NAT
    #[arg(long, value_name = "NAME", default_value = status::NAME)]
    name: String,
    #[command(flatten)]
    trace: reporter::TraceArgs,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

impl Common {
    /// Where this run draws from.
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish())
    }

    /// Sets up a host whose network is known already.
    ///
    /// # Errors
    /// As [`Settings::apply`].
    fn apply(&self, engine: &mut Engine, network: Network, limits: Option<&mut Limits>) -> Result<Remarks, Failure> {
        let remarks = self.settings.apply(engine, network, limits)?;
        engine.conntrack.sysctls.table_limit.get_or_insert(TABLE_LIMIT);
        Ok(remarks)
    }
}

/// What a table holds in the end, and what was counted on the way there.
struct TableTotals<'a>(&'a Table);

impl Display for TableTotals<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "table: {} entries", self.0.len())?;
        for (name, count) in self.0.counters.named().into_iter().filter(|(_, count)| *count > 0) {
            write!(f, ", {name} {count}")?;
        }
        writeln!(f)
    }
}
