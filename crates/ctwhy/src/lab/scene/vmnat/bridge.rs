//! Bridge mode: the guest is plugged into the network of the host.

use std::io;
use std::net::IpAddr;

use ctwhy_linux::lab::{Lab, Topology};
use ctwhy_linux::program;

use super::super::capture::Recorder;
use super::super::compare::{self, Both, Expected};
use super::super::ground::{FAMILIES, Ground};
use super::super::hops::{self, Method};
use super::super::stage::Stage;

/// The guest's addresses: of the network that the host is in.
const GUEST: [(IpAddr, u8); 2] = [
    (IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 3)), 24),
    (IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 3)), 64),
];

/// What the host has done to it: its two interfaces are ports of a bridge, which has the host's addresses.
const BRIDGE: &str = "\
link add br0 type bridge
link set lan master br0
link set wan master br0
link set br0 up
address add 203.0.113.2/24 dev br0
address add 2001:db8:113::2/64 dev br0 nodad
";

/// Act 8.
pub(super) fn tell(stage: &mut Stage) -> io::Result<()> {
    stage.act("Bridge mode, VMware's own advice")?;
    let lab = Lab::create(topology())?;
    let batch = program::run(lab.command("nat", "ip")?.args(["-batch", "-"]), BRIDGE);
    batch.map_err(|error| io::Error::other(format!("no bridge can be made here: {error}")))?;
    let ground = Ground {
        name: "bridge",
        named: true,
        lab: &lab,
        families: &FAMILIES,
        inside: ("client", "eth0"),
        outside: ("nat", "wan"),
    };
    ground.let_the_server_answer()?;
    for family in FAMILIES {
        ground.must("client", &format!("ping -n -c 1 -w 10 {}", ground.server(family)?))?;
    }
    stage.tell(
        "The guest has an address of the host's network, 203.0.113.3, and r1 is its gateway. No NAT is left that could\n\
         swallow anything: its packets pass the host as they are, TTL and all.",
    )?;
    let recorder = Recorder::start(&ground)?;
    hops::all(stage, &ground, &Method::ALL, true, |family, _| {
        let ([r1, r2], server) = (ground.routers(family)?, ground.server(family)?);
        Ok(("every router", vec![Some(r1), Some(r2), Some(server)]))
    })?;
    super::page(stage, &ground)?;
    ground.last_pings()?;
    let both = Both::of(&recorder.stop(stage.style().keep.as_deref())?);
    for family in FAMILIES {
        compare::observe(stage, &ground, &both, family, Expected::Untouched)?;
    }
    super::errors(stage, &ground, &both, true)?;
    stage.tell(
        "It helps, by going round the question: where the guest may not have an address of that network, the errors\n\
         are swallowed still.",
    )
}

/// The usual lab, but client and host in one network with r1.
fn topology() -> Topology {
    let mut topology = Topology::traceroute();
    for end in topology.links.iter_mut().flat_map(|link| [&mut link.a, &mut link.b]) {
        match end.node.as_str() {
            "client" => end.addresses = GUEST.to_vec(),
            "nat" => end.addresses.clear(),
            _ => {}
        }
    }
    for node in &mut topology.nodes {
        match node.name.as_str() {
            "client" => {
                node.routes = ["203.0.113.1", "2001:db8:113::1"].map(|r1| format!("default via {r1}")).to_vec();
            }
            "nat" => {
                *node = node.clone().rules("", "");
                node.routes.clear();
            }
            _ => {}
        }
    }
    topology
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_can_be_built() {
        assert_eq!(topology().check(), Ok(()));
    }
}
