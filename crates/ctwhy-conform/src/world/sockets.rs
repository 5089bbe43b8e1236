//! NATs that are made of sockets of the NAT's node. Each gives the client an interface of its own.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use ctwhy_linux::lab::{Lab, Topology};
use ctwhy_linux::program;

use super::process::{Process, Ready};
use super::{Driver, EXTERNAL, Options, Place, R1, v4, v6};

/// Their node is a host like others, and no cable leads from it to the client.
fn unplug(topology: &mut Topology) {
    topology.links.retain(|link| link.a.node != "client" && link.b.node != "client");
    for node in &mut topology.nodes {
        match node.name.as_str() {
            "nat" => {
                *node = node.clone().rules("", "");
                node.sysctls.retain(|(name, _)| !name.ends_with("forward") && !name.ends_with("forwarding"));
            }
            "client" => node.routes.clear(),
            _ => {}
        }
    }
}

const OUTSIDE: (&str, &str) = ("nat", "wan");

/// Ours.
pub(super) struct Proxy {
    /// `drop` or `relay`.
    pub(super) errors: &'static str,
}

const GUEST: [IpAddr; 2] = [v4(10, 0, 2, 15), v6([0xfd00, 2, 0, 0, 0, 0, 0, 0x15])];

impl Driver for Proxy {
    fn place(&self) -> Place {
        Place { inside: ("client", "tun0"), outside: OUTSIDE, client: GUEST.map(Some), gateway: [None; 2] }
    }

    fn adapt(&self, topology: &mut Topology, _: &Options) {
        unplug(topology);
    }

    fn launch(&self, lab: &Lab, own: &Path, options: &Options) -> io::Result<Option<Process>> {
        let [ipv4, ipv6] = GUEST;
        let mut command = lab.command("nat", &own.to_string_lossy())?;
        command.args(["proxy", "--guest", "tun0", "--netns", "client", "--errors", self.errors]);
        command.args(["--address", &format!("{ipv4}/24"), &format!("{ipv6}/64")]).args(&options.arguments);
        Ok(Some(Process::start("ctwhy proxy", command, Ready::Line("ctwhy proxy: ready"))?))
    }
}

/// slirp4netns.
pub(super) struct Slirp4netns;

/// The addresses that libslirp has by default.
const SLIRP: [IpAddr; 2] = [v4(10, 0, 2, 100), v6([0xfd00, 0, 0, 0, 0, 0, 0, 0x64])];
const SLIRP_GATEWAY: [IpAddr; 2] = [v4(10, 0, 2, 2), v6([0xfd00, 0, 0, 0, 0, 0, 0, 2])];

impl Driver for Slirp4netns {
    fn program(&self) -> Option<&'static str> {
        Some("slirp4netns")
    }

    fn place(&self) -> Place {
        Place {
            inside: ("client", "tap0"),
            outside: OUTSIDE,
            client: SLIRP.map(Some),
            gateway: SLIRP_GATEWAY.map(Some),
        }
    }

    fn adapt(&self, topology: &mut Topology, _: &Options) {
        unplug(topology);
        for node in topology.nodes.iter_mut().filter(|node| node.name == "client") {
            // It advertises itself as a router whenever it likes; the address here is known instead.
            *node = node.clone().sysctl("net.ipv6.conf.default.accept_ra", "0");
        }
    }

    fn launch(&self, lab: &Lab, _: &Path, options: &Options) -> io::Result<Option<Process>> {
        let mut command = lab.command("nat", "sh")?;
        // It says that it is ready on a descriptor of its own, which becomes its standard output.
        command.args(["-c", "exec slirp4netns --ready-fd=3 \"$@\" 3>&1 >&2", "slirp4netns"]);
        command.args(["--configure", "--enable-ipv6", "--mtu=1500", "--netns-type=path"]);
        command.args(&options.arguments).args(["/run/netns/client", "tap0"]);
        let process = Process::start("slirp4netns", command, Ready::Output)?;
        let [(_, address), (_, gateway)] = [SLIRP, SLIRP_GATEWAY].map(<(IpAddr, IpAddr)>::from);
        let lines = format!("address add {address}/64 dev tap0 nodad\nroute add ::/0 via {gateway}\n");
        program::run(lab.command("client", "ip")?.args(["-batch", "-"]), &lines)?;
        Ok(Some(process))
    }
}

/// pasta, which gives the client the addresses of its own node.
pub(super) struct Pasta;

impl Driver for Pasta {
    fn program(&self) -> Option<&'static str> {
        Some("pasta")
    }

    fn place(&self) -> Place {
        Place { inside: ("client", "tap0"), outside: OUTSIDE, client: EXTERNAL.map(Some), gateway: R1.map(Some) }
    }

    fn adapt(&self, topology: &mut Topology, _: &Options) {
        unplug(topology);
    }

    fn launch(&self, lab: &Lab, _: &Path, options: &Options) -> io::Result<Option<Process>> {
        let mut command = lab.command("nat", "pasta")?;
        // Its number is what it writes when it is ready. It would rather be nobody, who may not enter the lab's namespaces.
        command.args(["--foreground", "--pid", "/dev/stdout", "--runas", "0:0", "--quiet", "--config-net"]);
        command.args(["--ns-ifname", "tap0"]).args(&options.arguments).args(["--netns", "/run/netns/client"]);
        Ok(Some(Process::start("pasta", command, Ready::Output)?))
    }
}
