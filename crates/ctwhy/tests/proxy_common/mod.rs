//! `ctwhy proxy` between a guest and a lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.
#![allow(dead_code)] // Every test file uses some of it.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ctwhy_conform::world::{Nat, Options, World};
use ctwhy_linux::lab::Lab;
use ctwhy_linux::signal;
pub(crate) use ctwhy_linux::testing::packets_until as until;

pub(crate) const CTWHY: &str = env!("CARGO_BIN_EXE_ctwhy");
pub(crate) const GUEST: [&str; 2] = ["10.0.2.15", "fd00:2::15"];
pub(crate) const HOST: [&str; 2] = ["203.0.113.2", "2001:db8:113::2"];
pub(crate) const SERVER: [&str; 2] = ["192.0.2.80", "2001:db8:2::80"];
pub(crate) const ROUTERS: [[&str; 2]; 2] = [["203.0.113.1", "198.51.100.2"], ["2001:db8:113::1", "2001:db8:100::2"]];

/// A test that waits longer fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `ctwhy proxy` on the node `nat` of a lab, and the guest behind it, which is the node `client`.
pub(crate) struct Proxy(World);

impl Proxy {
    /// Starts it with these arguments. Pings need no privilege on the host if `ping`; `mtu` is that of the link to the
    /// server.
    pub(crate) fn start(arguments: &[&str], ping: bool, mtu: u32) -> Proxy {
        let mut arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        // What becomes of errors is part of which NAT it is.
        let errors = arguments.iter().position(|word| word == "--errors").map(|at| arguments.drain(at..at + 2).nth(1));
        let nat = errors.flatten().map_or(Nat::ProxyDrop, |errors| format!("proxy-{errors}").parse().unwrap());
        let options = Options { mtu, arguments, ping_sockets: ping, ..Options::default() };
        Proxy(World::start(nat, Path::new(CTWHY), &options).unwrap())
    }

    pub(crate) fn lab(&self) -> &Lab {
        self.0.lab()
    }

    /// Ends it; its last words, but for what the guest's kernel said to its link.
    pub(crate) fn stop(mut self) -> String {
        let (status, text) = self.0.end(signal::SIGINT).unwrap();
        assert!(status.success(), "{text:?}");
        // The first says that it is ready.
        let text: Vec<String> = text.into_iter().skip(1).filter(|line| !line.ends_with("guest.group")).collect();
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
