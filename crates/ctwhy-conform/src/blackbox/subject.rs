//! NATs in the lab, with the suite on both sides.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use ctwhy_core::tuple::L3;
use ctwhy_linux::program;

use super::bench::Hosts;
use super::cables::{Cables, End};
use super::nat::{Nat, Side};
use crate::world::{self, Options, World};

/// A NAT as it is set up to be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub nat: world::Nat,
    /// Arguments of ours, beside those that every lab has.
    arguments: &'static [&'static str],
}

/// What RFCs ask for beyond the kernel.
const BEYOND: [&str; 16] = [
    "--nat-option",
    "filtering=endpoint-independent",
    "--nat-option",
    "endpoint-independent-mapping",
    "--nat-option",
    "hairpin",
    "--nat-option",
    "verify-quoted-header",
    "--nat-option",
    "drop-source-quench",
    "--sysctl",
    "nf_conntrack_udp_timeout=120",
    "--sysctl",
    "nf_conntrack_icmp_timeout=60",
    "--sysctl",
    "nf_conntrack_tcp_timeout_syn_sent=240",
];

impl Subject {
    /// Every NAT of the lab, and ours once more with all that it can do beyond the kernel.
    pub const ALL: [Subject; 9] = [
        Subject::plain("kernel", world::Nat::Kernel),
        Subject::plain("kernel-random", world::Nat::KernelRandom),
        Subject::plain("nat-tun", world::Nat::NatTun),
        Subject::plain("nat-queue", world::Nat::NatQueue),
        Subject { name: "nat-tun-beyond", nat: world::Nat::NatTun, arguments: &BEYOND },
        Subject::plain("proxy-drop", world::Nat::ProxyDrop),
        Subject::plain("proxy-relay", world::Nat::ProxyRelay),
        Subject::plain("slirp4netns", world::Nat::Slirp4netns),
        Subject::plain("pasta", world::Nat::Pasta),
    ];

    const fn plain(name: &'static str, nat: world::Nat) -> Subject {
        Subject { name, nat, arguments: &[] }
    }

    /// Builds the lab, and puts the suite in the place of everybody on both sides.
    ///
    /// `own` is the program ctwhy.
    ///
    /// # Errors
    /// As [`World::start`], and what can go wrong with raw sockets.
    pub fn start(&self, own: &Path) -> io::Result<Tested> {
        let mut options = Options::default();
        if self.nat.rewrites_packets() {
            options.rules = Some([rules(self.nat), rules(self.nat)]);
        }
        options.arguments = self.arguments.iter().map(|text| (*text).to_owned()).collect();
        if self.nat == world::Nat::NatTun {
            for (address, length) in SECOND.iter().zip(PREFIXES) {
                options.arguments.extend(["--address".to_owned(), format!("wan={address}/{length}")]);
            }
        }
        let world = World::start(self.nat, own, &options)?;
        quiet(&world)?;
        let families = families(&world);
        let (inside, outside) = ends(&world, &families)?;
        let cables = Cables::new(inside, outside)?;
        Ok(Tested { cables, families, world })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Subject, String> {
        Subject::ALL.into_iter().find(|subject| subject.name == text).ok_or_else(|| {
            let known = Subject::ALL.map(|subject| subject.name).join(", ");
            format!("no NAT of the lab is called {text:?}; there are {known}")
        })
    }
}

/// A NAT that waits to be tested. Dropping it ends its lab.
#[derive(Debug)]
pub struct Tested {
    cables: Cables,
    /// The addresses of both families.
    pub families: Vec<Hosts>,
    // Behind the cables: it ends last.
    world: World,
}

impl Nat for Tested {
    fn put(&mut self, side: Side, packet: &[u8]) -> io::Result<()> {
        self.cables.put(side, packet)
    }

    fn take(&mut self, wait: Duration) -> io::Result<Option<(Side, Vec<u8>)>> {
        self.cables.take(wait)
    }

    fn revive(&mut self) -> io::Result<bool> {
        // What is dead cannot be killed, which is no reason not to start it again.
        let _ = self.world.kill();
        forward(&self.world, true)?;
        self.world.restart()?;
        forward(&self.world, false)?;
        let (inside, outside) = ends(&self.world, &self.families)?;
        self.cables.plug(inside, outside)?;
        Ok(true)
    }

    fn now(&self) -> Duration {
        self.cables.now()
    }
}

/// The suite's ends of the cables of a lab.
fn ends(world: &World, families: &[Hosts]) -> io::Result<(End, End)> {
    let (node, interface) = world.inside();
    let clients = families.iter().flat_map(|hosts| hosts.clients).collect();
    let gateways = world.gateway().into_iter().flatten().collect();
    let inside = End::new(world.lab().wire(node, interface)?, clients, gateways);
    let (node, interface) = world.outside();
    let (wire, speaks_for) = match world.lab().topology().peer(node, interface) {
        Some(end) => {
            (world.lab().wire(&end.node, &end.interface)?, end.addresses.iter().map(|(address, _)| *address).collect())
        }
        None => (world.lab().wire(node, interface)?, Vec::new()),
    };
    let external = world.external().into_iter().flatten().collect();
    Ok((inside, End::new(wire, speaks_for, external)))
}

/// What belongs to nothing that went out does not come in, and what conntrack cannot make sense of goes nowhere: it would
/// leave untranslated.
fn rules(nat: world::Nat) -> String {
    let random = if nat == world::Nat::KernelRandom { " --random-fully" } else { "" };
    format!(
        "*nat\n-A POSTROUTING -o wan -j MASQUERADE{random}\nCOMMIT\n*filter\n\
         -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A FORWARD -i wan -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A FORWARD -i wan -j DROP\nCOMMIT\n"
    )
}

/// A second address of the NAT outside.
const SECOND: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 3)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 3)),
];
const PREFIXES: [u8; 2] = [24, 64];

/// Does the first router forward? While it does not, only the suite answers for what is behind it.
fn forward(world: &World, does: bool) -> io::Result<()> {
    let value = u8::from(does);
    let script =
        format!("for file in ipv4/ip_forward ipv6/conf/all/forwarding; do echo {value} >/proc/sys/net/$file; done");
    program::run(world.lab().command("r1", "sh")?.args(["-c", &script]), "").map(drop)
}

/// Nobody answers but the suite, and the NAT gets its second address, which is nobody's first choice for what leaves.
fn quiet(world: &World) -> io::Result<()> {
    forward(world, false)?;
    if world.nat() != world::Nat::NatTun {
        let [ipv4, ipv6] = SECOND;
        let lines = format!("address add {ipv4}/24 dev wan\naddress add {ipv6}/64 dev wan nodad preferred_lft 0\n");
        program::run(world.lab().command("nat", "ip")?.args(["-batch", "-"]), &lines)?;
    }
    Ok(())
}

/// Two clients that no kernel speaks for, beside the one that a kernel does.
fn families(world: &World) -> Vec<Hosts> {
    let beside = |address: IpAddr, host: u8| match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, host])
        }
        IpAddr::V6(address) => {
            let [net @ .., _] = address.octets();
            let mut octets = [0; 16];
            for (to, from) in octets.iter_mut().zip(net) {
                *to = from;
            }
            if let Some(last) = octets.last_mut() {
                *last = host;
            }
            IpAddr::from(octets)
        }
    };
    let clients = world.client().into_iter().flatten();
    clients
        .zip([L3::V4, L3::V6])
        .zip(world.external().into_iter().flatten())
        .zip(SECOND)
        .map(|(((client, l3num), first), second)| Hosts {
            l3num,
            clients: [77, 78].map(|host| beside(client, host)),
            externals: vec![first, second],
        })
        .collect()
}
