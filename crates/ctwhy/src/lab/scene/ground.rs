//! Where a story plays: a lab, the two interfaces that are watched, and what the client does there.

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::process::Stdio;

use ctwhy_conform::world::World;
use ctwhy_core::tuple::L3;
use ctwhy_linux::lab::{Lab, Topology};
use ctwhy_linux::sysctl;

use super::stage::{Observation, Stage};

/// Both families.
pub(super) const FAMILIES: [L3; 2] = [L3::V4, L3::V6];

/// A lab and what is watched in it.
pub(super) struct Ground<'a> {
    /// What the captures are called after.
    pub(super) name: &'static str,
    /// Is it one of several of its scene, so that what is said of it has to name it?
    pub(super) named: bool,
    pub(super) lab: &'a Lab,
    /// What its links carry.
    pub(super) families: &'static [L3],
    /// Node and interface.
    pub(super) inside: (&'static str, &'static str),
    pub(super) outside: (&'static str, &'static str),
}

impl<'a> Ground<'a> {
    /// That of a world, the only one of its scene.
    pub(super) fn of(name: &'static str, world: &'a World) -> Ground<'a> {
        let (lab, inside, outside) = (world.lab(), world.inside(), world.outside());
        Ground { name, named: false, lab, families: &FAMILIES, inside, outside }
    }

    /// Something to be observed here.
    pub(super) fn observation(&self, code: &'static str, claim: impl Display, observed: bool) -> Observation {
        let claim = if self.named { format!("{}: {claim}", self.name) } else { claim.to_string() };
        Observation::new(code, claim, observed).fact("world", self.name)
    }

    /// The address of a node's interface in the usual lab, whichever NAT is in it.
    pub(super) fn address(&self, node: &str, interface: &str, family: L3) -> io::Result<IpAddr> {
        let topology = Topology::traceroute();
        let mut ends = topology.links.iter().flat_map(|link| [&link.a, &link.b]);
        let end = ends.find(|end| end.node == node && end.interface == interface);
        let mut addresses = end.into_iter().flat_map(|end| &end.addresses).map(|(address, _)| *address);
        let found = addresses.find(|address| address.is_ipv4() == (family == L3::V4));
        found.ok_or_else(|| io::Error::other(format!("{interface} of {node} has no address of that family")))
    }

    /// The server.
    pub(super) fn server(&self, family: L3) -> io::Result<IpAddr> {
        self.address("server", "eth0", family)
    }

    /// The routers behind the NAT, each by the address that it answers the client's side with.
    pub(super) fn routers(&self, family: L3) -> io::Result<[IpAddr; 2]> {
        Ok([self.address("r1", "nat", family)?, self.address("r2", "r1", family)?])
    }

    /// Runs a command on a node, and shows what it printed as far as it is to be shown.
    pub(super) fn run(
        &self,
        stage: &mut Stage,
        node: &str,
        line: &str,
        shown: impl FnMut(&str) -> bool,
    ) -> io::Result<(bool, String)> {
        let (success, output) = self.quiet(node, line)?;
        stage.ran(node, line, &output, shown)?;
        Ok((success, output))
    }

    /// Runs a command on a node and gives all that it printed.
    pub(super) fn quiet(&self, node: &str, line: &str) -> io::Result<(bool, String)> {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let mut command = self.lab.command(node, words.next().unwrap_or_default())?;
        let output = command.args(words).stdin(Stdio::null()).env("LC_ALL", "C").output()?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), text))
    }

    /// Sets a sysctl of a node.
    pub(super) fn sysctl(&self, node: &str, name: &str, value: &str) -> io::Result<()> {
        self.lab.in_node(node, || sysctl::write(name, value))?
    }

    /// The server answers every probe, however many there are of them.
    pub(super) fn let_the_server_answer(&self) -> io::Result<()> {
        self.sysctl("server", "net.ipv4.icmp_ratelimit", "0")?;
        self.sysctl("server", "net.ipv6.icmp.ratelimit", "0")
    }

    /// As [`Ground::quiet`], for a command that has to work.
    pub(super) fn must(&self, node: &str, line: &str) -> io::Result<String> {
        match self.quiet(node, line)? {
            (true, output) => Ok(output),
            (false, output) => Err(io::Error::other(format!("{node}: `{line}` failed: {}", output.trim_end()))),
        }
    }

    /// A ping that ends the captures: what was there before it was there for both.
    pub(super) fn last_pings(&self) -> io::Result<()> {
        for family in self.families {
            self.quiet("client", &format!("ping -n -c 1 -W 1 {}", self.server(*family)?))?;
        }
        Ok(())
    }
}
