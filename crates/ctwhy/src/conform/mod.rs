//! `ctwhy conform`: the engine beside something that tracks connections, and NATs beside what is asked of them.

mod formats;
mod fuzz;
mod kernel;
mod nat;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ctwhy_conform::fuzz::{Beside, Suite};

use crate::failure::Failure;

/// `ctwhy conform`
#[derive(Args, Clone, Debug)]
pub(crate) struct ConformArgs {
    #[command(subcommand)]
    command: ConformCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum ConformCommand {
    /// Put cases through the running kernel, in a lab, and through the engine, and compare
    Kernel(kernel::KernelArgs),
    /// Make up packets by the million, put them through the running kernel, in a lab, and through the engine, and compare
    Fuzz(fuzz::FuzzArgs),
    /// Make up packets, put them through the kernel's NAT, in a lab, and through ours, and compare every byte that leaves on
    /// either side, what the box says itself included, and the tables
    NatCompare(fuzz::CompareArgs),
    /// Ask anybody's NAT, as a black box between two interfaces, for what RFCs and the kernel's behaviour say
    Nat(Box<nat::NatArgs>),
}

/// Runs the comparison.
///
/// # Errors
/// What went wrong, in one line.
pub(crate) fn run(args: &ConformArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        ConformCommand::Kernel(args) => kernel::run(args),
        ConformCommand::Fuzz(args) => fuzz::run(args, &Suite::ALL, Beside::Kernel),
        ConformCommand::NatCompare(args) => fuzz::compare(args),
        ConformCommand::Nat(args) => nat::run(args),
    }
}
