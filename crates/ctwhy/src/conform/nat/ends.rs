//! Where the suite is plugged in when it builds no lab.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use ctwhy_conform::blackbox::Hosts;
use ctwhy_conform::blackbox::cables::{Cables, End};
use ctwhy_core::tuple::L3;
use ctwhy_linux::netns;
use ctwhy_linux::wire::Wire;

use crate::failure::Failure;

/// The two sides of a NAT that is there already.
#[derive(Args, Clone, Debug)]
pub(super) struct EndArgs {
    /// Where the NAT's clients are plugged in: an interface, or one of a network namespace of `ip netns`
    #[arg(long, value_name = "[NETNS:]INTERFACE", requires_all = ["outside", "client"], required_unless_present_any = ["lab", "list"])]
    inside: Option<String>,
    /// Where the NAT's packets come out, as --inside
    #[arg(long, value_name = "[NETNS:]INTERFACE", requires = "inside")]
    outside: Option<String>,
    /// Address of a client for which the suite speaks; two of each family that is to be tested
    #[arg(long, value_name = "ADDRESS", requires = "inside")]
    client: Vec<IpAddr>,
    /// The NAT's address inside, one for each family; not for a TUN device
    #[arg(long, value_name = "ADDRESS", requires = "inside")]
    gateway: Vec<IpAddr>,
    /// The NAT's address outside, of which its next hop asks who it is. Without it whoever sends something there is taken for
    /// the NAT
    #[arg(long, value_name = "ADDRESS", requires_all = ["inside", "next_hop"])]
    external: Vec<IpAddr>,
    /// The NAT's next hop outside, for which the suite answers where nobody else does
    #[arg(long, value_name = "ADDRESS", requires = "inside")]
    next_hop: Vec<IpAddr>,
    /// Another address of the NAT outside, to which errors are sent that must not arrive
    #[arg(long, value_name = "ADDRESS", requires = "inside")]
    second: Vec<IpAddr>,
}

impl EndArgs {
    /// What the NAT is called in a report.
    pub(super) fn name(&self) -> String {
        let side = |side: &Option<String>| side.clone().unwrap_or_default();
        format!("NAT between {} and {}", side(&self.inside), side(&self.outside))
    }

    /// Plugs both ends in.
    ///
    /// # Errors
    /// What is missing, or does not answer.
    pub(super) fn open(&self) -> Result<(Cables, Vec<Hosts>), Failure> {
        let families = self.families()?;
        let wire = |place: &Option<String>| {
            let place = place.as_deref().unwrap_or_default();
            open(place).map_err(|error| Failure::usage(format!("{place}: {error}")))
        };
        let clients = families.iter().flat_map(|hosts| hosts.clients).collect();
        let inside = End::new(wire(&self.inside)?, clients, self.gateway.clone());
        let outside = End::new(wire(&self.outside)?, self.next_hop.clone(), self.external.clone());
        Ok((Cables::new(inside, outside)?, families))
    }

    fn families(&self) -> Result<Vec<Hosts>, Failure> {
        let mut families = Vec::new();
        for l3num in [L3::V4, L3::V6] {
            let of = |all: &[IpAddr]| -> Vec<IpAddr> {
                all.iter().copied().filter(|address| address.is_ipv4() == (l3num == L3::V4)).collect()
            };
            let externals = of(&[&self.external[..], &self.second].concat());
            match of(&self.client)[..] {
                [] => {}
                [one, other] => families.push(Hosts { l3num, clients: [one, other], externals }),
                ref some => {
                    let (count, family) = (some.len(), if l3num == L3::V4 { "IPv4" } else { "IPv6" });
                    let text =
                        format!("--client: {count} of {family}, and two are needed: ports change when clients meet");
                    return Err(Failure::usage(text));
                }
            }
        }
        Ok(families)
    }
}

/// An interface, in a network namespace if one is named.
fn open(place: &str) -> io::Result<Wire> {
    match place.split_once(':') {
        None => Wire::open(place),
        Some((namespace, interface)) => {
            let file = File::open(Path::new("/run/netns").join(namespace))?;
            netns::in_namespace(file, || Wire::open(interface))?
        }
    }
}
