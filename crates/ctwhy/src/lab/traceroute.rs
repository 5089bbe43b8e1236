//! `ctwhy lab run traceroute`: what a user sees, and why.

use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use clap::Args;
use ctwhy_linux::lab::{Lab, Topology};
use ctwhy_linux::{program, signal};

use crate::live;
use crate::report::style::{Palette, When};

/// The lab, drawn.
pub(super) const MAP: &str = "\
client ─────────── nat ───────────────── r1 ─────────────── r2 ─────────────── server
192.168.1.2        lan: 192.168.1.1      203.0.113.1        198.51.100.2       192.0.2.80
fd00:1::2               fd00:1::1        2001:db8:113::1    2001:db8:100::2    2001:db8:2::80
                   wan: 203.0.113.2
                        2001:db8:113::2
                   masquerades what leaves by wan
";

/// `ctwhy lab run traceroute`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Show the steps of each packet, not only of the first error
    #[arg(short, long)]
    verbose: bool,
    /// One JSON object per packet on standard output, the rest on standard error
    #[arg(long)]
    json: bool,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

/// A traceroute to run.
struct Probe {
    title: &'static str,
    arguments: &'static [&'static str],
}

/// One probe per hop, one at a time, so that the packets are in the order of the story.
const PROBES: [Probe; 6] = [
    Probe { title: "UDP probes, IPv4", arguments: &["-n", "-q", "1", "-N", "1", "-w", "2", "192.0.2.80"] },
    Probe { title: "ICMP probes, IPv4", arguments: &["-I", "-n", "-q", "1", "-N", "1", "-w", "2", "192.0.2.80"] },
    Probe { title: "TCP probes, IPv4", arguments: &["-T", "-n", "-q", "1", "-N", "1", "-w", "2", "192.0.2.80"] },
    Probe { title: "UDP probes, IPv6", arguments: &["-6", "-n", "-q", "1", "-N", "1", "-w", "2", "2001:db8:2::80"] },
    Probe {
        title: "ICMP probes, IPv6",
        arguments: &["-6", "-I", "-n", "-q", "1", "-N", "1", "-w", "2", "2001:db8:2::80"],
    },
    Probe {
        title: "TCP probes, IPv6",
        arguments: &["-6", "-T", "-n", "-q", "1", "-N", "1", "-w", "2", "2001:db8:2::80"],
    },
];
/// How long the watcher may take to say anything, under the worst load.
const PATIENCE: Duration = Duration::from_secs(30);

/// Builds the lab, runs every traceroute with a watcher on the NAT, and shows both sides.
///
/// # Errors
/// A tool is missing, the lab cannot be built, or the watcher ends early.
pub(super) fn traceroute(args: &RunArgs) -> io::Result<ExitCode> {
    program::find("traceroute")?;
    let lab = Lab::create(Topology::traceroute())?;
    let mut stage = Stage { args, shown: Shown::default() };
    let mut watcher = Watcher::start(&lab, args)?;
    stage.tell(&format!("{MAP}\n"))?;
    watcher.lines_until(live::READY, |_| Ok(()))?;
    for probe in &PROBES {
        let mut command = lab.command("client", "traceroute")?;
        command.args(probe.arguments);
        let output = command.stdin(Stdio::null()).output()?;
        stage.tell(&format!("━━ {}: what the user sees\n", probe.title))?;
        stage.tell(&format!("client$ traceroute {}\n", probe.arguments.join(" ")))?;
        stage.tell(&String::from_utf8_lossy(&output.stdout))?;
        stage.tell(&String::from_utf8_lossy(&output.stderr))?;
        stage.tell(&format!("━━ {}: why, at the NAT\n", probe.title))?;
        stage.shown.begin(probe.title);
        // The watcher answers behind every packet that it has let go, so behind all that traceroute got answers to.
        watcher.signal(signal::SIGUSR1)?;
        watcher.lines_until(live::SO_FAR, |line| stage.packet_line(line))?;
        stage.tell("\n")?;
    }
    watcher.signal(signal::SIGINT)?;
    watcher.lines_until_end(|line| stage.tell(&format!("{line}\n")))?;
    let status = watcher.child.wait()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2)))
}

/// Where the story is told.
struct Stage<'a> {
    args: &'a RunArgs,
    shown: Shown,
}

impl Stage<'_> {
    /// What is not about one packet.
    fn tell(&self, text: &str) -> io::Result<()> {
        if self.args.json { io::stderr().write_all(text.as_bytes()) } else { io::stdout().write_all(text.as_bytes()) }
    }

    /// A line of the watcher's.
    fn packet_line(&mut self, line: &str) -> io::Result<()> {
        let is_object = line.starts_with('{');
        if self.args.json {
            return if is_object { writeln!(io::stdout(), "{line}") } else { writeln!(io::stderr(), "{line}") };
        }
        if self.args.verbose || self.shown.is_wanted(line) {
            writeln!(io::stdout(), "{line}")?;
        }
        Ok(())
    }
}

/// Which steps are shown without -v: those of the first error from a router, for each family.
#[derive(Default)]
struct Shown {
    family: &'static str,
    families_done: Vec<&'static str>,
    in_error: bool,
}

impl Shown {
    fn begin(&mut self, title: &'static str) {
        self.family = title.rsplit(' ').next().unwrap_or(title);
        self.in_error = false;
    }

    fn is_wanted(&mut self, line: &str) -> bool {
        if line.starts_with(live::STEP_INDENT) {
            return self.in_error;
        }
        // An error of the NAT's own carries the entry of its packet; for one from elsewhere the flow has to be found.
        self.in_error = line.contains("RELATED_REPLY")
            && !line.contains(live::FROM_THIS_HOST)
            && !self.families_done.contains(&self.family);
        if self.in_error {
            self.families_done.push(self.family);
        }
        true
    }
}

/// `ctwhy live` on the NAT.
struct Watcher {
    child: Child,
    lines: Receiver<io::Result<String>>,
}

impl Watcher {
    fn start(lab: &Lab, args: &RunArgs) -> io::Result<Watcher> {
        let own = std::env::current_exe()?;
        let own = own.to_str().ok_or_else(|| io::Error::other("the path of this program is not text"))?;
        let mut command: Command = lab.command("nat", own)?;
        // It writes into a pipe, but what it writes ends up on our output.
        let color = if Palette::stdout(args.color).is_on() { "always" } else { "never" };
        command.args(["live", "--install-rules", "--verbose", "--color", color]);
        if args.json {
            command.arg("--json");
        }
        // Both outputs into one pipe keeps their order.
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn()?;
        drop(command);
        let lines = read_lines(reader)?;
        Ok(Watcher { child, lines })
    }

    fn signal(&self, signal: i32) -> io::Result<()> {
        signal::send(&self.child, signal)
    }

    /// Hands over every line before the one that begins with `end`.
    fn lines_until(&mut self, end: &str, mut take: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        let mut last = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let line = line?;
                    if line.starts_with(end) {
                        return Ok(());
                    }
                    take(&line)?;
                    last = line;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other(format!("the watcher on the NAT ended early: {last}")));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::Error::other(format!("the watcher on the NAT says nothing for {PATIENCE:?}")));
                }
            }
        }
    }

    fn lines_until_end(&mut self, mut take: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            take(&line?)?;
        }
        Ok(())
    }
}

/// Reads lines in a thread of its own, so that waiting for one can end.
fn read_lines(reader: PipeReader) -> io::Result<Receiver<io::Result<String>>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("watcher".to_owned()).spawn(move || {
        for line in BufReader::new(reader).lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}
