//! `ctwhy live` on a node of a lab, and traffic through it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.
#![allow(dead_code)] // Every test file uses some of it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ctwhy_linux::lab::{Lab, Topology};
use ctwhy_linux::{program, signal};
use serde_json::Value;

pub(crate) const CTWHY: &str = env!("CARGO_BIN_EXE_ctwhy");
pub(crate) const CLIENT: &str = "192.168.1.2";
pub(crate) const SERVER: &str = "192.0.2.80";
pub(crate) const SERVER6: &str = "2001:db8:2::80";
pub(crate) const NAT: &str = "192.168.1.1";
pub(crate) const WAN: &str = "203.0.113.2";

/// A test that waits longer for a line fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The standard lab with more rules on the NAT, as `iptables-restore` takes them.
pub(crate) fn lab_with(rules: &str) -> Lab {
    let mut topology = Topology::traceroute();
    let nat = topology.nodes.iter_mut().find(|node| node.name == "nat").unwrap();
    nat.iptables.push_str(rules);
    Lab::create(topology).unwrap()
}

/// A running `ctwhy live`.
pub(crate) struct Live {
    pub(crate) child: Child,
    lines: Receiver<String>,
    /// Every packet so far.
    pub(crate) packets: Vec<Value>,
    /// Every other line so far.
    pub(crate) messages: Vec<String>,
}

/// One that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) packets: Vec<Value>,
    pub(crate) messages: Vec<String>,
}

impl Live {
    /// Starts it with these arguments and waits until it sees packets.
    pub(crate) fn start(lab: &Lab, arguments: &[&str]) -> Live {
        let mut live = Live::spawn(lab, "nat", arguments);
        live.until("ctwhy live: ready");
        live
    }

    /// Starts it with these arguments.
    pub(crate) fn spawn(lab: &Lab, node: &str, arguments: &[&str]) -> Live {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = lab.command(node, CTWHY).unwrap();
        command.args(["live", "--json"]).args(arguments);
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = command.spawn().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Live { child, lines, packets: Vec::new(), messages: Vec::new() }
    }

    fn take(&mut self, line: String) {
        match line.starts_with('{') {
            true => self.packets.push(serde_json::from_str(&line).expect(&line)),
            false => self.messages.push(line),
        }
    }

    /// Takes lines until one begins like this.
    pub(crate) fn until(&mut self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("no line begins with {start:?} ({error}); so far {:#?}", self.messages);
            });
            if line.starts_with(start) {
                return line;
            }
            self.take(line);
        }
    }

    /// Takes lines until so many packets fulfil a condition.
    pub(crate) fn until_packets(&mut self, count: usize, what: &str, wanted: impl Fn(&Value) -> bool) {
        while self.packets.iter().filter(|packet| wanted(packet)).count() < count {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("not {count} packets of {what} ({error}); so far {:#?} {:#?}", self.packets, self.messages);
            });
            self.take(line);
        }
    }

    /// Everything about the packets that were let go so far.
    pub(crate) fn sync(&mut self) -> String {
        signal::send(&self.child, signal::SIGUSR1).unwrap();
        self.until("ctwhy live: so far")
    }

    /// Ends it with a signal.
    pub(crate) fn stop(self, number: i32) -> Ended {
        signal::send(&self.child, number).unwrap();
        self.ended()
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.take(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("live does not end: {error}; so far {:#?}", self.messages),
            }
        }
        Ended { status: self.child.wait().unwrap(), packets: self.packets, messages: self.messages }
    }
}

impl Ended {
    /// All packets agreed, and something was compared.
    pub(crate) fn assert_agreement(&self) {
        let differing: Vec<&Value> = self.packets.iter().filter(|packet| packet["agree"] == false).collect();
        assert!(differing.is_empty(), "{differing:#?}");
        assert!(self.packets.iter().any(|packet| packet["agree"] == true), "{self:#?}");
        assert_eq!(self.status.code(), Some(0), "{:#?}", self.messages);
    }

    /// Packets that were called so.
    pub(crate) fn count(&self, ctinfo: &str) -> usize {
        self.packets.iter().filter(|packet| packet["ctinfo"] == ctinfo).count()
    }
}

/// A program on a node, which has to succeed; what it printed.
pub(crate) fn run(lab: &Lab, node: &str, line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    program::run(lab.command(node, words.next().unwrap()).unwrap().args(words), "").unwrap()
}

/// A program on a node, whatever its end.
pub(crate) fn try_run(lab: &Lab, node: &str, line: &str) -> (Option<i32>, String) {
    let mut words = line.split_ascii_whitespace();
    let mut command: Command = lab.command(node, words.next().unwrap()).unwrap();
    let output = command.args(words).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A UDP socket on a node that gives up waiting after some seconds.
pub(crate) fn udp(lab: &Lab, node: &str, address: &str) -> UdpSocket {
    let socket = lab.in_node(node, || UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// Sends every datagram back, in a thread that ends with the test.
pub(crate) fn echo(socket: &UdpSocket) {
    let socket = socket.try_clone().unwrap();
    socket.set_read_timeout(None).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 65535];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if socket.send_to(&buffer[..length], from).is_err() {
                return;
            }
        }
    });
}

/// One datagram there and back.
pub(crate) fn round_trip(socket: &UdpSocket, to: SocketAddr, data: &[u8]) {
    socket.send_to(data, to).unwrap();
    let mut buffer = [0; 65535];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], data);
}

/// The rules of ours that are in place on the NAT: none, when all is well.
pub(crate) fn our_rules(lab: &Lab) -> String {
    let mut found = String::new();
    for tool in ["iptables", "ip6tables"] {
        let rules = run(lab, "nat", &format!("{tool} -t mangle -S"));
        found.extend(rules.lines().filter(|line| line.contains("CTWHY")).map(|line| format!("{tool} {line}\n")));
    }
    if program::find("nft").is_ok() {
        let tables = run(lab, "nat", "nft list tables");
        found.extend(tables.lines().filter(|line| line.contains("ctwhy")).map(|line| format!("nft {line}\n")));
    }
    found
}
