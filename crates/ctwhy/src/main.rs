//! The `ctwhy` command: arguments in, text out.

#[cfg(target_os = "linux")]
mod lab;
#[cfg(target_os = "linux")]
mod live;
#[cfg(target_os = "linux")]
mod rules;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Why did conntrack decide that about this packet?
#[derive(Parser)]
#[command(name = "ctwhy", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Explain the packets of an NFQUEUE beside the kernel that decides about them
    #[cfg(target_os = "linux")]
    Live(live::LiveArgs),
    /// Print the rules that `live` needs, and how to remove them
    #[cfg(target_os = "linux")]
    Rules(rules::RulesArgs),
    /// Networks of namespaces to try things in
    #[cfg(target_os = "linux")]
    Lab(lab::LabArgs),
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ctwhy: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command) -> io::Result<ExitCode> {
    match command {
        #[cfg(target_os = "linux")]
        Command::Live(args) => live::run(args),
        #[cfg(target_os = "linux")]
        Command::Rules(args) => rules::run(args).map(|()| ExitCode::SUCCESS),
        #[cfg(target_os = "linux")]
        Command::Lab(args) => lab::run(args),
    }
}
