//! `ctwhy nat` in a lab: client - the NAT - r1 - r2 - server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.
#![allow(dead_code)] // Every test file uses some of it.

pub(crate) mod checks;
pub(crate) mod errors;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use ctwhy_linux::lab::{End, Lab, Node, Topology};
use ctwhy_linux::{program, signal};

pub(crate) const CTWHY: &str = env!("CARGO_BIN_EXE_ctwhy");
pub(crate) const CLIENT: [&str; 2] = ["192.168.1.2", "fd00:1::2"];
pub(crate) const NAT: [&str; 2] = ["192.168.1.1", "fd00:1::1"];
pub(crate) const WAN: [&str; 2] = ["203.0.113.2", "2001:db8:113::2"];
pub(crate) const R1: [&str; 2] = ["203.0.113.1", "2001:db8:113::1"];
pub(crate) const R2: [&str; 2] = ["198.51.100.2", "2001:db8:100::2"];
pub(crate) const SERVER: [&str; 2] = ["192.0.2.80", "2001:db8:2::80"];

/// What waits longer fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Ports and echo ids have to change: a kept port hides bugs in the quote.
pub(crate) const RULES: [&str; 2] = [MASQUERADE; 2];
pub(crate) const MASQUERADE: &str = "*nat\n-A POSTROUTING -o wan -j MASQUERADE --random-fully\nCOMMIT\n";

/// The shortest MTU of a link that has IPv6.
const IPV6_MIN_MTU: u32 = 1280;

/// Everything but the NAT on its devices. `mtu` is that of the link to the server.
fn surroundings(mtu: u32) -> Topology {
    let end = |node, interface, addresses: &[&str]| End::new(node, interface, addresses).unwrap();
    // A link as short as that has no IPv6.
    let families = if mtu < IPV6_MIN_MTU { 1 } else { 2 };
    let server = ["default via 192.0.2.1", "default via 2001:db8:2::1"];
    let server = server.into_iter().take(families).fold(Node::host("server"), Node::route);
    Topology::default()
        .node(Node::host("client"))
        .node(Node::host("nat"))
        .node(Node::router("r1").route("192.0.2.0/24 via 198.51.100.2").route("2001:db8:2::/64 via 2001:db8:100::2"))
        .node(Node::router("r2").route("default via 198.51.100.1").route("default via 2001:db8:100::1"))
        .node(server)
        .link(
            end("r1", "r2", &["198.51.100.1/24", "2001:db8:100::1/64"]),
            end("r2", "r1", &["198.51.100.2/24", "2001:db8:100::2/64"]),
        )
        .link(
            end("r2", "server", &["192.0.2.1/24", "2001:db8:2::1/64"][..families]),
            end("server", "eth0", &["192.0.2.80/24", "2001:db8:2::80/64"][..families]),
        )
        .mtu("r2", "server", mtu)
}

/// A running NAT and the lab around it.
pub(crate) struct Running {
    pub(crate) lab: Lab,
    /// Where the client is plugged in.
    pub(crate) inside: (&'static str, &'static str),
    child: Child,
    lines: Receiver<String>,
    /// Every line so far.
    pub(crate) said: Vec<String>,
}

impl Running {
    /// `ctwhy nat tun` with these rules for IPv4 and IPv6 and arguments beside the usual ones. It forwards when this
    /// returns.
    pub(crate) fn start(mtu: u32, rules: [&str; 2], arguments: &[&str]) -> Running {
        let lab = Lab::create(surroundings(mtu)).unwrap();
        let mut command = lab.command("nat", CTWHY).unwrap();
        command.args(["nat", "tun", "--inside", "lan", "--outside", "wan", "--route", "0.0.0.0/0=wan"]);
        command.args(["--route", "::/0=wan", "--sysctl", "icmp_ratelimit=0", "--sysctl", "net.ipv6.icmp.ratelimit=0"]);
        for (interface, address, length) in
            [("lan", NAT[0], 24), ("lan", NAT[1], 64), ("wan", WAN[0], 24), ("wan", WAN[1], 64)]
        {
            command.args(["--address", &format!("{interface}={address}/{length}")]);
        }
        let running = Running::spawn(lab, ("client", "lan"), command, rules, arguments);
        running.connect(if mtu < IPV6_MIN_MTU { &SERVER[..1] } else { &SERVER });
        running
    }

    /// `ctwhy nat queue` on a router of the kernel's, with rules installed. `mtu` is that of the link to the server.
    pub(crate) fn queue(mtu: u32, rules: [&str; 2], arguments: &[&str]) -> Running {
        let mut topology = Topology::traceroute();
        for node in topology.nodes.iter_mut().filter(|node| node.name == "nat") {
            (node.iptables, node.ip6tables) = (String::new(), String::new());
        }
        let lab = Lab::create(topology).unwrap();
        for (node, interface) in [("r2", "server"), ("server", "eth0")] {
            // A link as short as that has no IPv6, so it becomes so when its addresses are there.
            let link = ["link", "set", interface, "mtu", &mtu.to_string()];
            program::run(lab.command(node, "ip").unwrap().args(link), "").unwrap();
        }
        Running::queue_in(lab, rules, &[&["--install-rules"], arguments].concat())
    }

    /// `ctwhy nat queue` on the NAT of a lab.
    pub(crate) fn queue_in(lab: Lab, rules: [&str; 2], arguments: &[&str]) -> Running {
        let mut command = lab.command("nat", CTWHY).unwrap();
        command.args(["nat", "queue"]);
        Running::spawn(lab, ("client", "eth0"), command, rules, arguments)
    }

    /// Starts it and waits until it is ready.
    fn spawn(
        lab: Lab,
        inside: (&'static str, &'static str),
        mut command: Command,
        rules: [&str; 2],
        arguments: &[&str],
    ) -> Running {
        let (reader, writer) = std::io::pipe().unwrap();
        static DIRECTORIES: AtomicU32 = AtomicU32::new(0);
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("ctwhy-nat-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        for (family, rules) in ["rules", "rules6"].into_iter().zip(rules) {
            let path = directory.join(family);
            std::fs::write(&path, rules).unwrap();
            command.arg(format!("--{family}")).arg(path);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = command.spawn().unwrap();
        drop(command);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut running = Running { lab, inside, child, lines, said: Vec::new() };
        running.until("ctwhy nat: ready");
        std::fs::remove_dir_all(directory).unwrap();
        running
    }

    /// The devices go to their neighbours, which is how the NAT comes between them.
    fn connect(&self, servers: &[&str]) {
        for (device, node) in [("lan", "client"), ("wan", "r1")] {
            self.run("nat", "ip", &["link", "set", device, "netns", node]);
        }
        let setup = |node, lines: String| {
            program::run(self.lab.command(node, "ip").unwrap().args(["-batch", "-"]), &lines).unwrap();
        };
        let addresses = |device, [v4, v6]: [&str; 2]| {
            format!("link set {device} up\naddress add {v4}/24 dev {device}\naddress add {v6}/64 dev {device} nodad\n")
        };
        setup("client", addresses("lan", CLIENT) + "route add default dev lan\nroute add ::/0 dev lan\n");
        setup("r1", addresses("wan", R1));
        // Neighbours behind r1 know one another from here on, so that no probe is lost.
        for server in servers {
            self.run("client", "ping", &["-c", "1", "-w", "10", server]);
        }
    }

    /// Runs a program to its end, which has to be a good one; what it printed.
    pub(crate) fn run(&self, node: &str, program: &str, arguments: &[&str]) -> String {
        program::run(self.lab.command(node, program).unwrap().args(arguments), "").unwrap()
    }

    /// Runs a program to its end, whatever that is; what it printed.
    pub(crate) fn try_run(&self, node: &str, program: &str, arguments: &[&str]) -> String {
        let output = self.lab.command(node, program).unwrap().args(arguments).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// Takes lines until one begins like this.
    pub(crate) fn until(&mut self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("no line begins with {start:?} ({error}); so far {:#?}", self.said);
            });
            self.said.push(line.clone());
            if line.starts_with(start) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, number: i32) {
        signal::send(&self.child, number).unwrap();
    }

    /// Ends it, which has to be a good end; all that it said.
    pub(crate) fn end(self) -> Vec<String> {
        self.end_by(signal::SIGINT).0
    }

    /// Ends it with a signal, which has to be a good end; all that it said, and the lab.
    pub(crate) fn end_by(mut self, signal: i32) -> (Vec<String>, Lab) {
        self.signal(signal);
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("the NAT does not end: {error}; so far {:#?}", self.said),
            }
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{:#?}", self.said);
        (self.said, self.lab)
    }

    /// Kills it, which it cannot notice; the lab.
    pub(crate) fn kill(mut self) -> Lab {
        // The process of the NAT is a child of the one that entered the lab.
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        match children.split_ascii_whitespace().next().map(|pid| pid.parse().unwrap()) {
            // SAFETY: a system call on numbers.
            Some(inner) => assert_eq!(unsafe { libc::kill(inner, libc::SIGKILL) }, 0),
            None => self.child.kill().unwrap(),
        }
        self.child.wait().unwrap();
        self.lab
    }
}

/// The number in front of a word in the lines of totals, 0 when it is not there.
pub(crate) fn total(said: &[String], word: &str) -> u64 {
    let number = |line: &String| {
        let start = line.trim().strip_suffix(word)?;
        start.split_ascii_whitespace().last()?.parse().ok()
    };
    said.iter().find_map(number).unwrap_or(0)
}
