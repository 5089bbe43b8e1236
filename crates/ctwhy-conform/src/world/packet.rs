//! NATs that rewrite packets: the kernel's and ours.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use ctwhy_linux::lab::{Lab, Topology};
use ctwhy_linux::program;

use super::process::{Process, Ready};
use super::{Driver, EXTERNAL, Options, Place, R1, v4, v6};

const CLIENT: [IpAddr; 2] = [v4(192, 168, 1, 2), v6([0xfd00, 1, 0, 0, 0, 0, 0, 2])];
const GATEWAY: [IpAddr; 2] = [v4(192, 168, 1, 1), v6([0xfd00, 1, 0, 0, 0, 0, 0, 1])];

const MASQUERADE: &str = "*nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n";
const MASQUERADE_RANDOM: &str = "*nat\n-A POSTROUTING -o wan -j MASQUERADE --random-fully\nCOMMIT\n";
/// Nothing comes in that does not belong to something that went out.
const FILTER: &str = "*filter\n-A FORWARD -i wan -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A FORWARD -i wan -j DROP\nCOMMIT\n";

/// The rules of the options, or for both families this.
fn rules(options: &Options, otherwise: &str) -> [String; 2] {
    options.rules.clone().unwrap_or_else(|| [otherwise.to_owned(), otherwise.to_owned()])
}

/// Sets the rules of the NAT's node.
fn set_rules(topology: &mut Topology, [ipv4, ipv6]: &[String; 2]) {
    for node in topology.nodes.iter_mut().filter(|node| node.name == "nat") {
        *node = node.clone().rules(ipv4, ipv6);
    }
}

/// The kernel's.
pub(super) struct Kernel {
    /// Do ports and ids change, and does it filter?
    pub(super) random: bool,
}

impl Driver for Kernel {
    fn is_program(&self) -> bool {
        false
    }

    fn needs_tun(&self) -> bool {
        false
    }

    fn place(&self) -> Place {
        Place {
            inside: ("client", "eth0"),
            outside: ("nat", "wan"),
            client: CLIENT.map(Some),
            gateway: GATEWAY.map(Some),
        }
    }

    fn adapt(&self, topology: &mut Topology, options: &Options) {
        let own = if self.random { [MASQUERADE_RANDOM, FILTER].concat() } else { MASQUERADE.to_owned() };
        set_rules(topology, &rules(options, &own));
    }

    fn launch(&self, _: &Lab, _: &Path, _: &Options) -> io::Result<Option<Process>> {
        Ok(None)
    }
}

/// Ours on TUN devices, which are moved to its neighbours.
pub(super) struct Tun;

impl Driver for Tun {
    fn place(&self) -> Place {
        Place { inside: ("client", "lan"), outside: ("r1", "wan"), gateway: [None; 2], client: CLIENT.map(Some) }
    }

    fn adapt(&self, topology: &mut Topology, _: &Options) {
        topology.links.retain(|link| link.a.node != "nat" && link.b.node != "nat");
        for node in topology.nodes.iter_mut().filter(|node| ["client", "nat"].contains(&node.name.as_str())) {
            node.routes.clear();
        }
        set_rules(topology, &Default::default());
    }

    fn launch(&self, lab: &Lab, own: &Path, options: &Options) -> io::Result<Option<Process>> {
        let mut command = nat(lab, own, "tun", options)?;
        command.args(["--inside", "lan", "--outside", "wan", "--route", "0.0.0.0/0=wan", "--route", "::/0=wan"]);
        command.args(["--sysctl", "icmp_ratelimit=0", "--sysctl", "net.ipv6.icmp.ratelimit=0"]);
        for (interface, addresses) in [("lan", GATEWAY), ("wan", EXTERNAL)] {
            for (address, length) in addresses.into_iter().zip([24, 64]) {
                command.args(["--address", &format!("{interface}={address}/{length}")]);
            }
        }
        let process = Process::start("ctwhy nat tun", command, READY)?;
        // The NAT is between its neighbours once they have the devices.
        for (device, node, [ipv4, ipv6]) in [("lan", "client", CLIENT), ("wan", "r1", R1)] {
            program::run(lab.command("nat", "ip")?.args(["link", "set", device, "netns", node]), "")?;
            let mut lines = format!("link set {device} up\naddress add {ipv4}/24 dev {device}\n");
            lines += &format!("address add {ipv6}/64 dev {device} nodad\n");
            if node == "client" {
                lines += &format!("route add default dev {device}\nroute add ::/0 dev {device}\n");
            }
            program::run(lab.command(node, "ip")?.args(["-batch", "-"]), &lines)?;
        }
        Ok(Some(process))
    }
}

/// Ours on a router of the kernel's.
pub(super) struct Queue;

impl Driver for Queue {
    fn needs_tun(&self) -> bool {
        false
    }

    fn place(&self) -> Place {
        Kernel { random: true }.place()
    }

    fn adapt(&self, topology: &mut Topology, _: &Options) {
        set_rules(topology, &Default::default());
    }

    fn launch(&self, lab: &Lab, own: &Path, options: &Options) -> io::Result<Option<Process>> {
        let mut command = nat(lab, own, "queue", options)?;
        command.arg("--install-rules");
        Ok(Some(Process::start("ctwhy nat queue", command, READY)?))
    }
}

const READY: Ready = Ready::Line("ctwhy nat: ready");

/// `ctwhy nat FRONT` with rules and the arguments of the options.
fn nat(lab: &Lab, own: &Path, front: &str, options: &Options) -> io::Result<Command> {
    let mut command = lab.command("nat", &own.to_string_lossy())?;
    command.args(["nat", front]);
    for (family, text) in ["rules", "rules6"].into_iter().zip(rules(options, MASQUERADE_RANDOM)) {
        // Into the lab's own /run, which goes with it.
        let path = format!("/run/{family}");
        program::run(lab.command("nat", "tee")?.arg(&path), &text)?;
        command.args([format!("--{family}"), path]);
    }
    command.args(&options.arguments);
    Ok(command)
}
