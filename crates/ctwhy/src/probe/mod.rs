//! `ctwhy probe`: what stands between here and there, told from here alone.

mod json;
mod report;

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use ctwhy_conform::probe::run::{self, Plan};
use ctwhy_conform::probe::verdict::{self, Verdict};

use crate::failure::Failure;
use crate::report::style::{Palette, When};

/// Something is amiss.
const AMISS: u8 = 1;

const NOTES: &str = "\
Probes are UDP datagrams, echo requests and TCP connections with growing TTL, and controls: closed ports, long packets with \
DF, an address at which there is nobody, two flows at once. At most a few hundred packets, at a limited rate. An ordinary \
user's sockets are enough; with CAP_NET_RAW errors are seen that no socket gets, and echo needs it where the user's group is \
not in net.ipv4.ping_group_range.

Exit code: 0 when nothing is amiss, 1 when something is (errors swallowed, a proxy, a black hole), 2 when it could not run.";

/// `ctwhy probe`.
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
pub(crate) struct ProbeArgs {
    /// A host some hops away: an address or a name
    #[arg(value_name = "DEST", value_parser = NonEmptyStringValueParser::new())]
    dest: String,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only
    #[arg(short = '6')]
    ipv6: bool,
    /// A TCP port of the host that answers
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    port: u16,
    /// A TCP port of the host on which nobody listens
    #[arg(long, value_name = "PORT", default_value_t = 1)]
    closed_port: u16,
    /// An address at which there is nobody [default: one for documentation (RFC 5737), or for discarding (RFC 6666)]
    #[arg(long, value_name = "ADDR")]
    nowhere: Option<IpAddr>,
    /// The highest TTL
    #[arg(long, value_name = "TTL", default_value_t = 30, value_parser = clap::value_parser!(u8).range(1..=64))]
    max_ttl: u8,
    /// Packets a second, at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Seconds that an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    wait: f64,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

/// Probes, judges and reports.
///
/// # Errors
/// The name has no address, or nothing can be sent.
pub(crate) fn run(args: &ProbeArgs) -> Result<ExitCode, Failure> {
    let plan = plan(args)?;
    let mut progress = Progress { on: io::stderr().is_terminal(), dest: plan.dest };
    let evidence = run::run(&plan, &mut |what| progress.tell(what));
    progress.clear();
    let evidence = evidence?;
    let verdict = verdict::judge(&evidence);
    let mut out = io::stdout().lock();
    if args.json {
        json::write(&mut out, &evidence, &verdict)?;
    } else {
        report::write(&mut out, &evidence, &verdict, Palette::stdout(args.color))?;
    }
    Ok(if verdict.is_amiss() { ExitCode::from(AMISS) } else { ExitCode::SUCCESS })
}

/// What `ctwhy probe` finds and prints.
///
/// # Errors
/// Nothing can be sent.
pub(crate) fn told(plan: &Plan, palette: Palette) -> io::Result<(Verdict, String)> {
    let evidence = run::run(plan, &mut |_| {})?;
    let verdict = verdict::judge(&evidence);
    let mut text = Vec::new();
    report::write(&mut text, &evidence, &verdict, palette)?;
    Ok((verdict, String::from_utf8_lossy(&text).into_owned()))
}

fn plan(args: &ProbeArgs) -> Result<Plan, Failure> {
    let dest = resolve(args)?;
    if let Some(nowhere) = args.nowhere
        && nowhere.is_ipv4() != dest.is_ipv4()
    {
        return Err(Failure::usage(format!("--nowhere {nowhere}: not of the family of {dest}")));
    }
    let wait = Duration::try_from_secs_f64(args.wait).ok().filter(|wait| (0.01..=60.0).contains(&wait.as_secs_f64()));
    let wait = wait.ok_or_else(|| Failure::usage(format!("--wait {}: between 0.01 and 60 seconds", args.wait)))?;
    let usual = Plan::to(dest);
    Ok(Plan {
        port: args.port,
        closed_port: args.closed_port,
        nowhere: args.nowhere.unwrap_or(usual.nowhere),
        max_ttl: args.max_ttl,
        rate: args.rate,
        wait,
        ..usual
    })
}

fn resolve(args: &ProbeArgs) -> Result<IpAddr, Failure> {
    let fits = |ip: &IpAddr| !(args.ipv4 && ip.is_ipv6() || args.ipv6 && ip.is_ipv4());
    let found = (args.dest.as_str(), 0u16).to_socket_addrs();
    let found = found.map_err(|error| Failure::usage(format!("{}: {error}", args.dest)))?;
    let family = if args.ipv6 { "IPv6 " } else { "IPv4 " };
    let family = if args.ipv4 || args.ipv6 { family } else { "" };
    let none = || Failure::usage(format!("{}: no {family}address", args.dest));
    found.map(|address| address.ip()).find(fits).ok_or_else(none)
}

/// One line on a terminal that says what is being done.
struct Progress {
    on: bool,
    dest: IpAddr,
}

impl Progress {
    fn tell(&mut self, what: &str) {
        if self.on {
            let _ = write!(io::stderr(), "\r\x1b[Kprobing {}: {what}", self.dest);
        }
    }

    fn clear(&mut self) {
        if self.on {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
