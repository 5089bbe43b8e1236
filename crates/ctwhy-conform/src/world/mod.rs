//! A client behind a NAT, two routers and a server: the lab that every NAT is tried in.
//!
//! ```text
//! client -- nat -- r1 -- r2 -- server
//! ```
//!
//! The nodes, and what is outside of the NAT, are those of [`Topology::traceroute`] whichever NAT it is. What is told apart
//! here is how each is started and where it is plugged in: `packet` has those that rewrite packets, `sockets` those that end
//! connections.

mod packet;
pub(crate) mod process;
mod sockets;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::str::FromStr;

use ctwhy_linux::lab::{self, Lab, Topology};
use ctwhy_linux::{program, signal};
use process::Process;

/// Which NAT stands between the client and the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Nat {
    /// The kernel's MASQUERADE, which keeps ports where it can.
    Kernel,
    /// The kernel's with ports and echo ids that change, and a filter that lets in what belongs to something only.
    KernelRandom,
    /// `ctwhy nat tun`.
    NatTun,
    /// `ctwhy nat queue`.
    NatQueue,
    /// `ctwhy proxy --errors drop`.
    ProxyDrop,
    /// `ctwhy proxy --errors relay`.
    ProxyRelay,
    /// slirp4netns, which is libslirp.
    Slirp4netns,
    /// pasta.
    Pasta,
}

impl Nat {
    /// Every one, those that rewrite packets first.
    pub const ALL: [Nat; 8] = [
        Nat::Kernel,
        Nat::KernelRandom,
        Nat::NatTun,
        Nat::NatQueue,
        Nat::ProxyDrop,
        Nat::ProxyRelay,
        Nat::Slirp4netns,
        Nat::Pasta,
    ];

    /// What it is called on command lines and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Nat::Kernel => "kernel",
            Nat::KernelRandom => "kernel-random",
            Nat::NatTun => "nat-tun",
            Nat::NatQueue => "nat-queue",
            Nat::ProxyDrop => "proxy-drop",
            Nat::ProxyRelay => "proxy-relay",
            Nat::Slirp4netns => "slirp4netns",
            Nat::Pasta => "pasta",
        }
    }

    /// Does it rewrite packets, or end connections and make others?
    #[must_use]
    pub fn rewrites_packets(self) -> bool {
        matches!(self, Nat::Kernel | Nat::KernelRandom | Nat::NatTun | Nat::NatQueue)
    }

    /// Why it cannot be started here although labs can be built ([`lab::probe`]); `None` where it can.
    #[must_use]
    pub fn unavailable(self) -> Option<String> {
        let driver = self.driver();
        let missing = driver.program().and_then(|name| program::find(name).err().map(|missing| missing.to_string()));
        let device = || lab::probe_tun().err().filter(|_| driver.needs_tun()).map(|why| why.to_string());
        missing.or_else(device)
    }

    fn driver(self) -> &'static dyn Driver {
        match self {
            Nat::Kernel => &packet::Kernel { random: false },
            Nat::KernelRandom => &packet::Kernel { random: true },
            Nat::NatTun => &packet::Tun,
            Nat::NatQueue => &packet::Queue,
            Nat::ProxyDrop => &sockets::Proxy { errors: "drop" },
            Nat::ProxyRelay => &sockets::Proxy { errors: "relay" },
            Nat::Slirp4netns => &sockets::Slirp4netns,
            Nat::Pasta => &sockets::Pasta,
        }
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Nat {
    type Err = String;

    fn from_str(text: &str) -> Result<Nat, String> {
        Nat::ALL.into_iter().find(|nat| nat.name() == text).ok_or_else(|| {
            let known = Nat::ALL.map(Nat::name).join(", ");
            format!("no NAT is called {text:?}; there are {known}")
        })
    }
}

/// What may be different from one world to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// MTU in bytes of the link between `r2` and the server. Below 1280 it has no IPv6.
    pub mtu: u32,
    /// Rules of the NAT for IPv4 and for IPv6 as `iptables-restore` takes them, in place of its own. Only for those that
    /// rewrite packets.
    pub rules: Option<[String; 2]>,
    /// More arguments for the program that is the NAT. The kernel takes none.
    pub arguments: Vec<String>,
    /// May the NAT's node and the client open ping sockets? Without them, and without a raw socket, a proxy has no way to
    /// send an echo request.
    pub ping_sockets: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { mtu: 1500, rules: None, arguments: Vec::new(), ping_sockets: true }
    }
}

/// The shortest MTU of a link that has IPv6.
const IPV6_MIN_MTU: u32 = 1280;

/// Addresses of the server.
const SERVER: [IpAddr; 2] = [v4(192, 0, 2, 80), v6([0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80])];

/// A lab with a NAT in it, forwarding. Dropping it ends everything in it.
#[derive(Debug)]
pub struct World {
    nat: Nat,
    options: Options,
    own: PathBuf,
    /// `None` for the kernel, and for one that was killed or ended.
    process: Option<Process>,
    // Behind the process: that ends first.
    lab: Lab,
}

impl World {
    /// Builds a lab with this NAT in it. It forwards when this returns: a ping to the server and back has made neighbours
    /// known to one another, from the client where the NAT rewrites packets and from the NAT's node where it does not.
    ///
    /// `own` is the program ctwhy, for the NATs that are ours.
    ///
    /// # Errors
    /// There can be no lab here ([`lab::probe`] says why), something is not installed or not permitted
    /// ([`Nat::unavailable`]), the options are not for this NAT, or it did not get ready: what it said last is in the error.
    pub fn start(nat: Nat, own: &Path, options: &Options) -> io::Result<World> {
        let driver = nat.driver();
        let unfit = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{nat} takes no {what}")));
        if options.rules.is_some() && !nat.rewrites_packets() {
            return unfit("rules");
        }
        if !options.arguments.is_empty() && !driver.is_program() {
            return unfit("arguments");
        }
        if let Some(reason) = nat.unavailable() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{nat}: {reason}")));
        }
        let lab = Lab::create(topology(driver, options))?;
        let mut world = World { nat, options: options.clone(), own: own.to_owned(), process: None, lab };
        world.launch()?;
        Ok(world)
    }

    fn launch(&mut self) -> io::Result<()> {
        let driver = self.nat.driver();
        self.process = driver.launch(&self.lab, &self.own, &self.options)?;
        let from = if self.nat.rewrites_packets() { "client" } else { "nat" };
        for server in self.server().into_iter().flatten() {
            let mut ping = self.lab.command(from, "ping")?;
            let came = program::run(ping.args(["-c", "1", "-w", "10", &server.to_string()]), "");
            came.map_err(|error| {
                let last = self.process.as_mut().map(Process::last_words).unwrap_or_default();
                io::Error::other(format!("{} forwards no ping of {from} to {server}: {error}{last}", self.nat))
            })?;
        }
        Ok(())
    }

    /// Which NAT it is.
    #[must_use]
    pub fn nat(&self) -> Nat {
        self.nat
    }

    /// The lab, with the nodes `client`, `nat`, `r1`, `r2` and `server`.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Node and interface where the client is plugged in.
    #[must_use]
    pub fn inside(&self) -> (&'static str, &'static str) {
        self.nat.driver().place().inside
    }

    /// Node and interface where the NAT's outer packets are seen.
    #[must_use]
    pub fn outside(&self) -> (&'static str, &'static str) {
        self.nat.driver().place().outside
    }

    /// The client's addresses, of IPv4 and of IPv6.
    #[must_use]
    pub fn client(&self) -> [Option<IpAddr>; 2] {
        self.nat.driver().place().client
    }

    /// What the client's default routes lead to. `None` where they lead to an interface.
    #[must_use]
    pub fn gateway(&self) -> [Option<IpAddr>; 2] {
        self.nat.driver().place().gateway
    }

    /// The NAT's addresses towards the world.
    #[must_use]
    pub fn external(&self) -> [Option<IpAddr>; 2] {
        EXTERNAL.map(Some)
    }

    /// The server's addresses. `None` for IPv6 behind a link that is too short for it.
    #[must_use]
    pub fn server(&self) -> [Option<IpAddr>; 2] {
        let [first, second] = SERVER;
        [Some(first), Some(second).filter(|_| self.options.mtu >= IPV6_MIN_MTU)]
    }

    /// Lines that the program said, those of the beginning left out where there are very many.
    pub fn said(&mut self) -> Vec<String> {
        self.process.as_mut().map(|process| process.said().iter().cloned().collect()).unwrap_or_default()
    }

    /// Waits for a line of the program's that begins so, among those that nobody has waited for.
    ///
    /// # Errors
    /// No such line for 20 seconds, or it ended; what it said last is in the error. The kernel says nothing.
    pub fn until(&mut self, start: &str) -> io::Result<String> {
        self.process.as_mut().ok_or_else(|| no_program(self.nat))?.until(start)
    }

    /// The process of the program, as this process sees it; `None` when it has ended, and for the kernel.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref()?.pid()
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// It does not run, or is the kernel.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        self.process.as_ref().ok_or_else(|| no_program(self.nat))?.signal(number)
    }

    /// Ends the program with a signal; how it ended, and all that it said. The lab stays.
    ///
    /// # Errors
    /// It does not run or is the kernel, or does not end within 20 seconds.
    pub fn end(&mut self, number: i32) -> io::Result<(ExitStatus, Vec<String>)> {
        self.process.take().ok_or_else(|| no_program(self.nat))?.end(number)
    }

    /// Kills the program with SIGKILL, and returns when it is gone. The lab stays.
    ///
    /// # Errors
    /// It does not run, or is the kernel.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.take().ok_or_else(|| no_program(self.nat))?.kill()
    }

    /// Starts the program again in the same lab, after it was ended by SIGINT if it still runs. It forwards when this
    /// returns.
    ///
    /// # Errors
    /// As [`World::end`] and [`World::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        if !self.nat.driver().is_program() {
            return Err(no_program(self.nat));
        }
        if self.process.is_some() {
            self.end(signal::SIGINT)?;
        }
        self.launch()
    }
}

fn no_program(nat: Nat) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{nat}: no program of it runs"))
}

/// Where a NAT is plugged in.
struct Place {
    inside: (&'static str, &'static str),
    outside: (&'static str, &'static str),
    client: [Option<IpAddr>; 2],
    gateway: [Option<IpAddr>; 2],
}

/// How one kind of NAT is made to stand in the lab.
trait Driver {
    /// What has to be installed beside ctwhy.
    fn program(&self) -> Option<&'static str> {
        None
    }

    /// Is it a program, or the kernel?
    fn is_program(&self) -> bool {
        true
    }

    fn needs_tun(&self) -> bool {
        true
    }

    fn place(&self) -> Place;

    /// What it needs to be different in the usual lab.
    fn adapt(&self, topology: &mut Topology, options: &Options);

    /// Starts the program, and plugs it in; `None` where there is none.
    fn launch(&self, lab: &Lab, own: &Path, options: &Options) -> io::Result<Option<Process>>;
}

/// Addresses of the NAT towards the world.
const EXTERNAL: [IpAddr; 2] = [v4(203, 0, 113, 2), v6([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2])];

/// Of `r1` towards the NAT.
const R1: [IpAddr; 2] = [v4(203, 0, 113, 1), v6([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1])];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// The lab of a NAT.
fn topology(driver: &dyn Driver, options: &Options) -> Topology {
    let mut topology = Topology::traceroute().mtu("r2", "server", options.mtu);
    if options.mtu < IPV6_MIN_MTU {
        for link in topology.links.iter_mut().filter(|link| link.b.node == "server") {
            for end in [&mut link.a, &mut link.b] {
                end.addresses.retain(|(address, _)| address.is_ipv4());
            }
        }
        for node in topology.nodes.iter_mut().filter(|node| node.name == "server") {
            node.routes.retain(|route| !route.contains("::"));
        }
    }
    if options.ping_sockets {
        for node in topology.nodes.iter_mut().filter(|node| ["client", "nat"].contains(&node.name.as_str())) {
            *node = node.clone().sysctl("net.ipv4.ping_group_range", "0 0");
        }
    }
    driver.adapt(&mut topology, options);
    topology
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for nat in Nat::ALL {
            assert_eq!(nat.to_string().parse(), Ok(nat));
        }
        let error = "vmnat".parse::<Nat>().unwrap_err();
        assert!(error.contains("slirp4netns, pasta"), "{error}");
    }

    #[test]
    fn every_lab_can_be_built() {
        for nat in Nat::ALL {
            for mtu in [1200, 1280, 1500] {
                let options = Options { mtu, ..Options::default() };
                assert_eq!(topology(nat.driver(), &options).check(), Ok(()), "{nat}");
            }
        }
    }
}
