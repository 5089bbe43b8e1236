//! `ctwhy proxy` between a guest and a lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.
#![allow(dead_code)] // Every test file uses some of it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ctwhy_linux::lab::{Lab, Node, Topology};
use ctwhy_linux::signal;
pub(crate) use ctwhy_linux::testing::packets_until as until;

pub(crate) const CTWHY: &str = env!("CARGO_BIN_EXE_ctwhy");
pub(crate) const GUEST: [&str; 2] = ["10.0.2.15", "fd00:2::15"];
pub(crate) const HOST: [&str; 2] = ["203.0.113.2", "2001:db8:113::2"];
pub(crate) const SERVER: [&str; 2] = ["192.0.2.80", "2001:db8:2::80"];
pub(crate) const ROUTERS: [[&str; 2]; 2] = [["203.0.113.1", "198.51.100.2"], ["2001:db8:113::1", "2001:db8:100::2"]];

/// A test that waits longer fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// `guest`, which has nothing yet, and `host -- r1 -- r2 -- server`. Pings need no privilege on the host if `ping`.
pub(crate) fn topology(ping: bool) -> Topology {
    let mut topology = Topology::traceroute();
    topology.links.remove(0);
    for node in &mut topology.nodes {
        let plain = match node.name.as_str() {
            "client" => Node::host("guest"),
            "nat" => Node::host("host").route("default via 203.0.113.1").route("default via 2001:db8:113::1"),
            _ => continue,
        };
        *node = if ping { plain.sysctl("net.ipv4.ping_group_range", "0 0") } else { plain };
    }
    for end in topology.links.iter_mut().flat_map(|link| [&mut link.a, &mut link.b]) {
        if end.node == "nat" {
            end.node = "host".to_owned();
        }
    }
    topology
}

/// A running `ctwhy proxy` on the host of a lab, the guest behind it.
pub(crate) struct Proxy {
    child: Child,
    lines: Receiver<String>,
}

impl Proxy {
    /// Starts it with these arguments and waits until the guest has its interface.
    pub(crate) fn start(lab: &Lab, arguments: &[&str]) -> Proxy {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = lab.command("host", CTWHY).unwrap();
        command.args(["proxy", "--guest", "tun0", "--netns", "guest"]);
        command.args(["--address", &format!("{}/24", GUEST[0]), &format!("{}/64", GUEST[1])]).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        drop(command);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let proxy = Proxy { child, lines };
        let ready = proxy.line();
        assert!(ready.starts_with("ctwhy proxy: ready"), "{ready}");
        proxy
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line of the proxy")
    }

    /// Ends it; its last words, but for what the guest's kernel said to its link.
    pub(crate) fn stop(mut self) -> String {
        signal::send(&self.child, signal::SIGINT).unwrap();
        let text: Vec<String> = std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok()).collect();
        assert!(self.child.wait().unwrap().success(), "{text:?}");
        let text: Vec<String> = text.into_iter().filter(|line| !line.ends_with("guest.group")).collect();
        text.join("\n")
    }
}

/// A program on a node, whatever its end: all that it said.
pub(crate) fn say(lab: &Lab, node: &str, line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let mut command = lab.command(node, words.next().unwrap()).unwrap();
    let output = command.args(words).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A UDP socket on a node that gives up waiting after some seconds.
pub(crate) fn udp(lab: &Lab, node: &str, address: SocketAddr) -> UdpSocket {
    let socket = lab.in_node(node, || UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A port of an address.
pub(crate) fn addr(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Any port of any address of the family of `ip`.
pub(crate) fn any(ip: &str) -> SocketAddr {
    addr(if ip.contains(':') { "::" } else { "0.0.0.0" }, 0)
}
