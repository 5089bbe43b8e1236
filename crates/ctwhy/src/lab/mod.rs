//! `ctwhy lab`: networks of namespaces to try things in, for root and for an ordinary user.

mod scene;
mod traceroute;

use std::io::{self, Write};
use std::process::{Command, ExitCode};

use clap::{Args, Subcommand};
use ctwhy_linux::lab::{self, LabInfo, Topology};

/// The exit code where no lab can be built.
const NO_LAB: u8 = 4;

/// `ctwhy lab`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum LabCommand {
    /// Build a lab, try something in it, explain every packet at the NAT, and take the lab down
    Run {
        #[command(subcommand)]
        scene: Scene,
    },
    /// Build a lab that stays until it is taken down
    Up {
        /// Its name
        #[arg(default_value = "lab")]
        name: String,
    },
    /// List the labs that are up
    List,
    /// A shell on a node of a lab
    Shell {
        /// The node
        node: String,
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        lab: String,
    },
    /// Run a command on a node of a lab
    Exec {
        /// The node
        node: String,
        /// Name of the lab
        #[arg(long, default_value = "lab")]
        lab: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Take a lab down, and everything in it
    Down {
        /// Its name
        #[arg(default_value = "lab")]
        name: String,
    },
}

#[derive(Subcommand, Clone, Debug)]
enum Scene {
    /// A real traceroute through a masquerading NAT: UDP, ICMP and TCP probes over IPv4 and IPv6
    Traceroute(traceroute::RunArgs),
    /// Stars because a NAT made of sockets swallows errors, as VMware's vmnat does; its cure, and how it is done right
    Vmnat(scene::SceneArgs),
    /// Stars because routers say nothing, behind a NAT that hides nothing
    SilentRouter(scene::SceneArgs),
    /// A black hole: a narrow link behind a NAT that keeps anybody from hearing of it, its cure, and MSS clamping
    Pmtu(scene::PmtuArgs),
}

/// Runs a command of the lab.
///
/// # Errors
/// What went wrong, in one line.
pub(crate) fn run(args: &LabArgs) -> io::Result<ExitCode> {
    match &args.command {
        LabCommand::Run { scene } => play(scene),
        LabCommand::Up { name } => match lab::probe() {
            Ok(()) => up(name),
            Err(reason) => Ok(impossible(&reason)),
        },
        LabCommand::List => list(),
        LabCommand::Shell { node, lab } => status(lab::attach(lab)?.shell(node)?),
        LabCommand::Exec { node, lab, command } => exec(lab, node, command),
        LabCommand::Down { name } => lab::down(name).map(|()| ExitCode::SUCCESS),
    }
}

fn play(scene: &Scene) -> io::Result<ExitCode> {
    match scene {
        Scene::Traceroute(args) => match lab::probe() {
            Ok(()) => traceroute::traceroute(args),
            Err(reason) => Ok(impossible(&reason)),
        },
        Scene::Vmnat(args) => scene::run(scene::Scene::Vmnat, args),
        Scene::SilentRouter(args) => scene::run(scene::Scene::SilentRouter, args),
        Scene::Pmtu(args) => scene::run(scene::Scene::Pmtu(args.mtu), &args.scene),
    }
}

fn impossible(reason: &lab::WhyNot) -> ExitCode {
    eprintln!("ctwhy lab: {reason}");
    ExitCode::from(NO_LAB)
}

fn up(name: &str) -> io::Result<ExitCode> {
    let lab = lab::up(name, Topology::traceroute())?;
    let other = if name == "lab" { String::new() } else { format!(" --lab {name}") };
    let mut out = io::stdout().lock();
    writeln!(out, "{}", describe(&lab))?;
    writeln!(out, "{}", traceroute::MAP)?;
    writeln!(out, "a shell       ctwhy lab shell client{other}")?;
    writeln!(out, "watch the NAT ctwhy lab exec nat{other} -- ctwhy live --install-rules")?;
    writeln!(out, "take it down  ctwhy lab down {name}")?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for lab in lab::list()? {
        writeln!(out, "{}", describe(&lab))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(lab: &LabInfo) -> String {
    format!("{}: {} (held by pid {})", lab.name, lab.nodes.join(", "), lab.pid)
}

fn exec(name: &str, node: &str, command: &[String]) -> io::Result<ExitCode> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command behind --"));
    };
    let lab = lab::attach(name)?;
    // Without an installed ctwhy its own name still means this one.
    let own = std::env::current_exe()?;
    let program = match program.as_str() {
        "ctwhy" => own.to_str().unwrap_or(program),
        other => other,
    };
    let mut command = lab.command(node, program)?;
    command.args(arguments);
    status(command)
}

/// Runs a command to its end; its status becomes ours.
fn status(mut command: Command) -> io::Result<ExitCode> {
    use std::os::unix::process::ExitStatusExt;
    let program = command.get_program().to_string_lossy().into_owned();
    let status =
        command.status().map_err(|error| io::Error::new(error.kind(), format!("starting {program}: {error}")))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
