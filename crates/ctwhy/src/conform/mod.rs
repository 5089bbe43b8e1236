//! `ctwhy conform`: the engine beside something that tracks connections.

mod fuzz;
mod kernel;

use std::process::ExitCode;

use clap::{Args, Subcommand};

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
}

/// Runs the comparison.
///
/// # Errors
/// What went wrong, in one line.
pub(crate) fn run(args: &ConformArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        ConformCommand::Kernel(args) => kernel::run(args),
        ConformCommand::Fuzz(args) => fuzz::run(args),
    }
}
