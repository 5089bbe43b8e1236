//! The `ctwhy` command: arguments in, text out.

#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod conform;
mod diagnose;
mod explain;
mod failure;
#[cfg(target_os = "linux")]
mod fixture;
mod host;
#[cfg(target_os = "linux")]
mod lab;
#[cfg(target_os = "linux")]
mod live;
#[cfg(target_os = "linux")]
mod nat;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod proxy;
mod release;
mod report;
#[cfg(target_os = "linux")]
mod rules;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use failure::Failure;

/// Why did conntrack decide that about this packet?
#[derive(Parser)]
#[command(name = "ctwhy", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Explain the packets of a capture
    Explain(Box<explain::ExplainArgs>),
    /// Say what kind of NAT lies between two captures, and what it does to ICMP errors
    Diagnose(diagnose::DiagnoseArgs),
    /// Explain the packets of an NFQUEUE beside the kernel that decides about them
    #[cfg(target_os = "linux")]
    Live(live::LiveArgs),
    /// Print the rules that `live` needs, and how to remove them
    #[cfg(target_os = "linux")]
    Rules(rules::RulesArgs),
    /// Ask from here alone whether errors come back, and what stands in front
    #[cfg(target_os = "linux")]
    Probe(probe::ProbeArgs),
    /// Networks of namespaces to try things in
    #[cfg(target_os = "linux")]
    Lab(lab::LabArgs),
    /// Recorded cases: check the engine against them, show them, record them afresh
    #[cfg(target_os = "linux")]
    Fixture(fixture::FixtureArgs),
    /// The reference NAT: a NAT that decides as Linux does, on real traffic
    #[cfg(target_os = "linux")]
    Nat(nat::NatArgs),
    /// The engine beside something that tracks connections, and NATs beside what is asked of them
    #[cfg(target_os = "linux")]
    Conform(conform::ConformArgs),
    /// A NAT made of sockets, to see what becomes of ICMP errors behind one
    #[cfg(target_os = "linux")]
    Proxy(proxy::ProxyArgs),
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Explain(args) => explain::run(args).map(|()| ExitCode::SUCCESS),
        Command::Diagnose(args) => diagnose::run(args),
        #[cfg(target_os = "linux")]
        Command::Live(args) => Ok(live::run(args)?),
        #[cfg(target_os = "linux")]
        Command::Rules(args) => rules::run(args).map(|()| ExitCode::SUCCESS).map_err(Failure::from),
        #[cfg(target_os = "linux")]
        Command::Probe(args) => probe::run(args),
        #[cfg(target_os = "linux")]
        Command::Lab(args) => Ok(lab::run(args)?),
        #[cfg(target_os = "linux")]
        Command::Fixture(args) => fixture::run(args),
        #[cfg(target_os = "linux")]
        Command::Nat(args) => nat::run(args),
        #[cfg(target_os = "linux")]
        Command::Conform(args) => conform::run(args),
        #[cfg(target_os = "linux")]
        Command::Proxy(args) => Ok(proxy::run(args)?),
    }
}
