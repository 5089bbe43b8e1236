//! The lab: hosts, routers and cables made of namespaces, for root and for an ordinary user alike. Nothing of it is
//! visible outside, and nothing survives it.

mod holder;
mod named;
mod settings;
mod topology;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;

pub use named::{LabInfo, attach, down, list, up};
pub use topology::{End, Link, Node, Topology};

use crate::netns::{self, Namespaces};
use crate::wire::{Injector, Wire};
use crate::{context, program};
use holder::{Holder, Lifetime};

/// Why there can be no lab here, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyNot(String);

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WhyNot {}

/// What building a lab calls.
const TOOLS: [&str; 5] = ["ip", "iptables", "ip6tables", "iptables-restore", "ip6tables-restore"];

/// Can this user build a lab here? Tries it with a namespace that is gone again when this returns.
///
/// # Errors
/// What is missing, and what to do about it.
pub fn probe() -> Result<(), WhyNot> {
    for tool in TOOLS {
        program::find(tool).map_err(|missing| WhyNot(missing.to_string()))?;
    }
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return Err(WhyNot("the kernel runs without IPv6, and labs use both families".to_owned()));
    }
    let lab = Lab::create(Topology::default()).map_err(|error| WhyNot(explain(&error)))?;
    for tool in ["iptables", "ip6tables"] {
        let mut command = lab.base_command(tool).map_err(|error| WhyNot(error.to_string()))?;
        let filter = program::run(command.args(["-t", "mangle", "-S"]), "");
        filter.map_err(|error| WhyNot(format!("{tool} does not work inside a namespace here: {error}")))?;
    }
    Ok(())
}

/// May this user open TUN devices?
///
/// # Errors
/// Why not.
pub fn probe_tun() -> Result<(), WhyNot> {
    const DEVICE: &str = "/dev/net/tun";
    let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.map(drop).map_err(|error| WhyNot(format!("{DEVICE}: {error}")))
}

/// The process of the program of a [`Lab::command`], as this process sees it; `None` when it has ended.
#[must_use]
pub fn pid(child: &Child) -> Option<i32> {
    // It is a child of the process that entered the lab, and alone.
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let children = std::fs::read_to_string(children).unwrap_or_default();
    children.split_ascii_whitespace().next()?.parse().ok()
}

/// Kills the program of a [`Lab::command`] with SIGKILL and returns when it is gone.
///
/// # Errors
/// It cannot be waited for.
pub fn kill(child: &mut Child) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    // What killed only the process that entered the lab would not wait for it.
    match pid(child) {
        // One that has ended in between is what was wanted.
        Some(pid) => drop(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)),
        // It takes the program along.
        None => child.kill()?,
    }
    child.wait()
}

/// Why namespaces could not be made, from the settings that forbid it.
fn explain(error: &io::Error) -> String {
    let setting = |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if !netns::is_privileged() {
        for (path, forbidden, name) in [
            ("/proc/sys/user/max_user_namespaces", 0, "user.max_user_namespaces"),
            ("/proc/sys/kernel/unprivileged_userns_clone", 0, "kernel.unprivileged_userns_clone"),
            (
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                1,
                "kernel.apparmor_restrict_unprivileged_userns",
            ),
        ] {
            if setting(path) == Some(forbidden) {
                return format!("ordinary users may not make namespaces here ({name}={forbidden}); root can ({error})");
            }
        }
    }
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "; a container must be started with --privileged for that",
        _ => "",
    };
    format!("namespaces cannot be made here: {error}{hint}")
}

/// A running lab. Dropping it ends every process in it.
#[derive(Debug)]
pub struct Lab {
    namespaces: Arc<Namespaces>,
    nodes: BTreeMap<String, Arc<OwnedFd>>,
    topology: Topology,
    holder: Holder,
}

impl Lab {
    /// Builds a lab that lives as long as the value and this process, however that ends.
    ///
    /// # Errors
    /// The topology cannot be built, a tool is missing, or namespaces are not allowed here; [`probe`] says why.
    pub fn create(topology: Topology) -> io::Result<Lab> {
        Lab::build(topology, Lifetime::WithThisProcess)
    }

    fn build(topology: Topology, lifetime: Lifetime) -> io::Result<Lab> {
        topology.check().map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
        let mut lab = Lab::from_holder(Holder::start(lifetime)?)?;
        lab.populate(topology)?;
        if lifetime == Lifetime::UntilKilled {
            lab.holder.keep();
        }
        Ok(lab)
    }

    /// The lab of a holder without looking at what is in it.
    fn from_holder(holder: Holder) -> io::Result<Lab> {
        let namespaces = Arc::new(Namespaces::of_process(holder.pid())?);
        Ok(Lab { namespaces, nodes: BTreeMap::new(), topology: Topology::default(), holder })
    }

    /// The names of the nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// What was built. Empty for a lab that was attached to.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A command that runs a program on a node, as root there. Signals sent to it reach the program. It and everything it
    /// started are killed with the lab.
    ///
    /// # Errors
    /// No such node, or the program is not installed.
    pub fn command(&self, node: &str, program: &str) -> io::Result<Command> {
        let network = Arc::clone(self.network(node)?);
        let mut command = program::command(program)?;
        command.env("CTWHY_NODE", node);
        self.namespaces.enter(&mut command, network);
        Ok(command)
    }

    /// The user's shell on a node.
    ///
    /// # Errors
    /// No such node, or there is no shell.
    pub fn shell(&self, node: &str) -> io::Result<Command> {
        let shell = std::env::var("SHELL").ok().filter(|shell| program::find(shell).is_ok());
        let mut command = self.command(node, shell.as_deref().unwrap_or("/bin/sh"))?;
        command.env("PS1", format!("{node}# "));
        Ok(command)
    }

    /// A command in the lab but on no node.
    fn base_command(&self, program: &str) -> io::Result<Command> {
        let mut command = program::command(program)?;
        let base = Arc::new(self.namespaces.base.try_clone()?);
        self.namespaces.enter(&mut command, base);
        Ok(command)
    }

    /// Runs `work` in a thread that has moved to a node; sockets that it opens stay there.
    ///
    /// # Errors
    /// No such node; or this process is not root in the lab, as it is when it was root before or has called
    /// [`netns::isolate`].
    pub fn in_node<T: Send>(&self, node: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let network = self.network(node)?;
        if self.namespaces.user.is_some() {
            let text = format!("an ordinary user's process cannot move to {node} itself; start one there");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        netns::in_namespace(network.as_ref(), work)
    }

    /// A socket for raw frames on an interface of a node; as [`Lab::in_node`].
    ///
    /// # Errors
    /// As [`Lab::in_node`], and no such interface.
    pub fn wire(&self, node: &str, interface: &str) -> io::Result<Wire> {
        self.in_node(node, || Wire::open(interface))?
    }

    /// What puts IP packets onto the cable so that they arrive at an interface of a node as if a neighbour had sent them.
    ///
    /// # Errors
    /// As [`Lab::wire`], and no cable ends there.
    pub fn injector(&self, node: &str, interface: &str) -> io::Result<Injector> {
        let peer = self.topology.peer(node, interface).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no cable ends at interface {interface} of {node}"))
        })?;
        let destination = self.wire(node, interface)?.hardware_address();
        Ok(Injector::new(self.wire(&peer.node, &peer.interface)?, destination))
    }

    /// Turns checksum and segmentation offload of every cable on, as the kernel makes them, or off again, as labs have them.
    /// A lab that was attached to knows none of its cables.
    ///
    /// # Errors
    /// An interface is gone.
    pub fn offload(&self, on: bool) -> io::Result<()> {
        self.topology.links.iter().flat_map(|link| [&link.a, &link.b]).try_for_each(|end| self.offload_at(end, on))
    }

    fn offload_at(&self, end: &End, on: bool) -> io::Result<()> {
        let what = format!("{} of {}", end.interface, end.node);
        settings::offload(&self.namespaces, self.network(&end.node)?, &end.interface, on).map_err(context(what))
    }

    fn network(&self, node: &str) -> io::Result<&Arc<OwnedFd>> {
        self.nodes.get(node).ok_or_else(|| {
            let known: Vec<&str> = self.nodes().collect();
            let text = format!("no node {node} in this lab; it has {}", known.join(", "));
            io::Error::new(io::ErrorKind::NotFound, text)
        })
    }

    /// Opens the network namespaces that `ip netns` has made in the lab.
    fn open_nodes(&mut self) -> io::Result<()> {
        let directory = format!("/proc/{}/root/run/netns", self.holder.pid());
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            // The lab has no nodes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(context(directory)(error)),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let namespace = File::open(entry.path()).map_err(context(&name))?;
            self.nodes.insert(name, Arc::new(namespace.into()));
        }
        Ok(())
    }

    fn populate(&mut self, topology: Topology) -> io::Result<()> {
        for node in &topology.nodes {
            program::run(self.base_command("ip")?.args(["netns", "add", &node.name]), "")?;
        }
        self.open_nodes()?;
        for node in &topology.nodes {
            settings::apply_defaults(&self.namespaces, self.network(&node.name)?, &node.sysctls)
                .map_err(context(&node.name))?;
        }
        let links: String = (1u16..).zip(&topology.links).map(|(number, link)| link_line(number, link)).collect();
        program::run(self.base_command("ip")?.args(["-batch", "-"]), &links)?;
        for node in &topology.nodes {
            let ends = topology.links.iter().flat_map(|link| [&link.a, &link.b]).filter(|end| end.node == node.name);
            let ends: Vec<&End> = ends.collect();
            for end in &ends {
                self.offload_at(end, false)?;
            }
            let lines = node_lines(node, &ends);
            program::run(self.command(&node.name, "ip")?.args(["-batch", "-"]), &lines).map_err(context(&node.name))?;
            for (tool, rules) in [("iptables-restore", &node.iptables), ("ip6tables-restore", &node.ip6tables)] {
                if !rules.is_empty() {
                    program::run(&mut self.command(&node.name, tool)?, rules).map_err(context(&node.name))?;
                }
            }
        }
        self.topology = topology;
        Ok(())
    }
}

/// `ip` makes a cable. Its ends have the same hardware addresses whenever the lab is built, and so the same link-local ones.
fn link_line(number: u16, link: &Link) -> String {
    let (a, b, mtu) = (&link.a, &link.b, link.mtu);
    let [high, low] = number.to_be_bytes();
    format!(
        "link add {} address 02:00:00:{high:02x}:{low:02x}:01 mtu {mtu} netns {} type veth \
         peer name {} address 02:00:00:{high:02x}:{low:02x}:02 mtu {mtu} netns {}\n",
        a.interface, a.node, b.interface, b.node
    )
}

/// `ip` on a node: everything up, addressed and routed. IPv6 addresses are usable at once.
fn node_lines(node: &Node, ends: &[&End]) -> String {
    let mut lines = String::from("link set lo up\n");
    for end in ends {
        let interface = &end.interface;
        lines += &format!("link set {interface} up\n");
        for (ip, length) in &end.addresses {
            let now = if ip.is_ipv6() { " nodad" } else { "" };
            lines += &format!("address add {ip}/{length} dev {interface}{now}\n");
        }
    }
    for route in &node.routes {
        lines += &format!("route add {route}\n");
    }
    lines
}
