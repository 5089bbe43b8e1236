//! What may stand between client and server, each in a lab of its own.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use ctwhy_conform::world::{Nat, Options, World};
use ctwhy_linux::lab::{self, Lab, Topology};
use ctwhy_linux::program;
use ctwhy_linux::rules::NatRules;

/// The program that is measured.
const CTWHY: &str = env!("CARGO_BIN_EXE_ctwhy");
/// Where the peer in C is, and the queue that it serves.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/nat/accept_all.c");
const QUEUE: u16 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// A router, nothing else: what client, routers and server cost by themselves.
    Routing,
    Kernel,
    AcceptAll,
    NatQueue,
    NatTun,
    /// Each packet by itself.
    NatTunPlain,
    Slirp4netns,
    Pasta,
}

impl Way {
    pub(crate) const ALL: [Way; 8] = [
        Way::Routing,
        Way::Kernel,
        Way::AcceptAll,
        Way::NatQueue,
        Way::NatTun,
        Way::NatTunPlain,
        Way::Slirp4netns,
        Way::Pasta,
    ];

    /// On the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Routing => "routing",
            Way::Kernel => "kernel",
            Way::AcceptAll => "accept-all",
            Way::NatQueue => "nat-queue",
            Way::NatTun => "nat-tun",
            Way::NatTunPlain => "nat-tun-plain",
            Way::Slirp4netns => "slirp4netns",
            Way::Pasta => "pasta",
        }
    }

    fn nat(self) -> Option<Nat> {
        match self {
            Way::Routing | Way::AcceptAll => None,
            Way::Kernel => Some(Nat::Kernel),
            Way::NatQueue => Some(Nat::NatQueue),
            Way::NatTun | Way::NatTunPlain => Some(Nat::NatTun),
            Way::Slirp4netns => Some(Nat::Slirp4netns),
            Way::Pasta => Some(Nat::Pasta),
        }
    }

    /// Why it cannot be measured here.
    pub(crate) fn unavailable(self) -> Option<String> {
        match self {
            Way::AcceptAll => compile().err().map(|error| error.to_string()),
            other => other.nat().and_then(Nat::unavailable),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::Routing => "no NAT: routing alone",
            Way::Kernel => "the kernel's MASQUERADE",
            Way::AcceptAll => "accept-all queue in C",
            Way::NatQueue => "`ctwhy nat queue`",
            Way::NatTun => "`ctwhy nat tun`",
            Way::NatTunPlain => "`ctwhy nat tun --no-offload`",
            Way::Slirp4netns => "slirp4netns",
            Way::Pasta => "pasta",
        })
    }
}

/// Compiles the peer in C; where it is.
fn compile() -> io::Result<PathBuf> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("accept_all");
    let mut cc = program::command("cc")?;
    program::run(cc.args(["-O2", "-Wall", "-o"]).arg(&program).arg(SOURCE), "")?;
    Ok(program)
}

/// A lab that forwards.
pub(crate) struct Stage {
    pub(crate) way: Way,
    place: Place,
    /// `None` where iperf3 is not installed.
    pub(crate) iperf3: Option<Child>,
}

enum Place {
    World(Box<World>),
    Lab { lab: Lab, consumer: Option<Child> },
}

impl Stage {
    /// Builds it.
    pub(crate) fn build(way: Way) -> io::Result<Stage> {
        let place = match way.nat() {
            Some(nat) => {
                let mut options = Options::default();
                let argument = match way {
                    // The longest packets, as containers are run with it, and as is usual with pasta.
                    Way::Slirp4netns => Some("--mtu=65520"),
                    Way::NatTunPlain => Some("--no-offload"),
                    _ => None,
                };
                options.arguments.extend(argument.map(str::to_owned));
                Place::World(Box::new(World::start(nat, Path::new(CTWHY), &options)?))
            }
            None => {
                let lab = Lab::create(routers())?;
                let consumer = if way == Way::AcceptAll { Some(consume(&lab)?) } else { None };
                Place::Lab { lab, consumer }
            }
        };
        let mut stage = Stage { way, place, iperf3: None };
        if program::find("iperf3").is_ok() {
            let mut iperf3 = stage.lab().command("server", "iperf3")?;
            iperf3.args(["--server", "--forceflush"]);
            stage.iperf3 = Some(started(iperf3, "Server listening")?);
        }
        Ok(stage)
    }

    pub(crate) fn lab(&self) -> &Lab {
        match &self.place {
            Place::World(world) => world.lab(),
            Place::Lab { lab, .. } => lab,
        }
    }

    /// The program in the middle; `None` for the kernel.
    pub(crate) fn pid(&self) -> Option<i32> {
        match &self.place {
            Place::World(world) => world.pid(),
            Place::Lab { consumer, .. } => consumer.as_ref().and_then(lab::pid),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let consumer = match &mut self.place {
            Place::Lab { consumer, .. } => consumer.take(),
            Place::World(_) => None,
        };
        for mut child in [self.iperf3.take(), consumer].into_iter().flatten() {
            // One that has ended already cannot be killed, and need not be.
            let _ = lab::kill(&mut child);
        }
    }
}

/// The lab without NAT: who is behind the routers knows the way to the client.
fn routers() -> Topology {
    let mut topology = Topology::traceroute();
    for node in &mut topology.nodes {
        *node = match node.name.as_str() {
            "nat" => node.clone().rules("", ""),
            "r1" => node.clone().route("192.168.1.0/24 via 203.0.113.2"),
            "r2" => node.clone().route("192.168.1.0/24 via 198.51.100.1"),
            _ => continue,
        };
    }
    topology
}

/// The peer in C, and the rules of `ctwhy nat queue`.
fn consume(lab: &Lab) -> io::Result<Child> {
    let rules = NatRules::new(QUEUE);
    // Any slot will do: what matters is that there is one.
    let mark = rules.bits.mark(0, Some(ctwhy_linux::rules::Slot::MIN));
    let mut consumer = lab.command("nat", &compile()?.to_string_lossy())?;
    consumer.args([QUEUE.to_string(), mark.to_string()]);
    let consumer = started(consumer, "ready")?;
    program::run(lab.command("nat", "sh")?.args(["-e"]), &rules.install_commands())?;
    Ok(consumer)
}

/// Starts a program and waits for a line that begins so. What else it says is read and forgotten.
fn started(mut command: Command, ready: &str) -> io::Result<Child> {
    // Its standard input stays open: it is the end of a pipe that the child holds.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?);
    let mut line = String::new();
    while !line.starts_with(ready) {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            let name = command.get_program().to_string_lossy().into_owned();
            return Err(io::Error::other(format!("{name} ended before it said {ready:?}")));
        }
    }
    thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
    Ok(child)
}
