//! The host that the packets of a capture meet: its routes, addresses, rules and sysctls, from the command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use ctwhy_core::hook::Engine;
use ctwhy_core::nat::iptables;
use ctwhy_core::nat::rules::{Network as Prefixed, Ruleset, Target};
use ctwhy_core::network::{InterfaceAddress, Network, Route};
use ctwhy_core::sysctl::{SysctlError, Sysctls};
use ctwhy_core::tuple::{Addr, L3};
use ctwhy_fixture::case::Prefix;

use crate::failure::Failure;
use crate::report::summary::Plural;

/// Where packets go, and what is done to them. Without routes and addresses every packet is taken as received,
/// accepted and confirmed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The host that tracks")]
pub(crate) struct World {
    /// Packets to these addresses leave by this interface
    #[arg(long = "route", value_name = "PREFIX=IFACE")]
    routes: Vec<RouteArg>,
    /// An address of the host itself, with the length of its network; the interface is the one that its route names
    #[arg(long = "local", value_name = "ADDRESS[/LEN][=IFACE]")]
    locals: Vec<LocalArg>,
    /// The interface of packets that the capture names none for
    #[arg(long, value_name = "NAME")]
    iface: Option<String>,
    /// Rules as `iptables-save` prints them; the nat table is used
    #[arg(long, value_name = "FILE")]
    nat_rules: Option<PathBuf>,
    /// Rules as `ip6tables-save` prints them
    #[arg(long, value_name = "FILE")]
    nat_rules6: Option<PathBuf>,
    /// A sysctl of conntrack, such as nf_conntrack_tcp_loose=0
    #[arg(long = "sysctl", value_name = "KEY=VALUE", value_parser = key_value)]
    sysctls: Vec<(String, String)>,
    /// Do not verify checksums, as nf_conntrack_checksum=0
    #[arg(long)]
    no_checksum: bool,
}

/// The longest length of a prefix of the family.
const fn bits(l3num: L3) -> u8 {
    ctwhy_core::nat::rules::address_bits(l3num)
}

fn prefixed(prefix: Prefix) -> (L3, Prefixed) {
    let address = prefix.address();
    let l3num = if address.is_ipv4() { L3::V4 } else { L3::V6 };
    (l3num, Prefixed { address: Addr::from(address), prefix: prefix.length() })
}

fn parse_prefix(text: &str) -> Result<Prefix, String> {
    match text {
        "default" => return Err("write 0.0.0.0/0 or ::/0 for the default route".to_owned()),
        _ if text.contains('/') => text.to_owned(),
        _ => {
            let address: std::net::IpAddr = text.parse().map_err(|_| format!("'{text}' is no address"))?;
            format!("{text}/{}", if address.is_ipv4() { bits(L3::V4) } else { bits(L3::V6) })
        }
    }
    .parse()
    .map_err(|_| format!("'{text}' is neither an address nor a prefix such as 10.0.0.0/8"))
}

#[derive(Clone, Debug)]
struct RouteArg {
    to: Prefix,
    interface: String,
}

impl FromStr for RouteArg {
    type Err = String;

    fn from_str(text: &str) -> Result<RouteArg, String> {
        let named = text.split_once('=').filter(|(_, interface)| !interface.is_empty());
        let (to, interface) = named.ok_or("write PREFIX=IFACE, such as 0.0.0.0/0=wan")?;
        Ok(RouteArg { to: parse_prefix(to)?, interface: interface.to_owned() })
    }
}

#[derive(Clone, Debug)]
struct LocalArg {
    address: Prefix,
    interface: Option<String>,
}

impl FromStr for LocalArg {
    type Err = String;

    fn from_str(text: &str) -> Result<LocalArg, String> {
        let (address, interface) = match text.split_once('=') {
            Some((_, "")) => return Err("the interface behind '=' is missing".to_owned()),
            Some((address, interface)) => (address, Some(interface.to_owned())),
            None => (text, None),
        };
        Ok(LocalArg { address: parse_prefix(address)?, interface })
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as nf_conntrack_udp_timeout=30")?;
    match Sysctls::default().set(key, value) {
        Ok(()) => Ok((key.to_owned(), value.to_owned())),
        Err(SysctlError::Value) => Err(format!("'{value}' is no value for {key}")),
        Err(SysctlError::Unknown) => {
            Err(format!("'{key}' decides about no packet here; known are {}", Sysctls::NAMES.join(", ")))
        }
    }
}

impl World {
    /// Was anything said about the host?
    pub(super) fn is_given(&self) -> bool {
        !self.routes.is_empty()
            || !self.locals.is_empty()
            || self.iface.is_some()
            || self.nat_rules.is_some()
            || self.nat_rules6.is_some()
            || !self.sysctls.is_empty()
    }

    /// The interface of packets that the capture names none for.
    pub(super) fn interface(&self) -> Option<&str> {
        self.iface.as_deref()
    }

    /// Does the user say that checksums are not to be verified?
    pub(super) fn no_checksum(&self) -> bool {
        self.no_checksum
    }

    /// The host, and what the user should know about the rules.
    ///
    /// # Errors
    /// A rule file that cannot be read or understood, or rules that need what was not said.
    pub(super) fn engine(&self) -> Result<(Engine, Vec<String>), Failure> {
        // Without a kernel beside it any draw is as good as another; a fixed one makes runs repeat.
        let mut engine = Engine::new(0);
        let mut notes = Vec::new();
        engine.network = self.network();
        if let Some(path) = &self.nat_rules {
            engine.nat4 = Some(read_rules(path, L3::V4, &engine.network, &mut notes)?);
        }
        if let Some(path) = &self.nat_rules6 {
            engine.nat6 = Some(read_rules(path, L3::V6, &engine.network, &mut notes)?);
        }
        for (key, value) in &self.sysctls {
            let set = engine.conntrack.sysctls.set(key, value);
            set.map_err(|_| Failure::usage(format!("--sysctl {key}={value} is not understood")))?;
        }
        Ok((engine, notes))
    }

    fn network(&self) -> Network {
        let mut network = Network::default();
        for RouteArg { to, interface } in &self.routes {
            let (l3num, to) = prefixed(*to);
            let interface = network.interface_named(interface);
            network.routes.push(Route { l3num, to, interface });
        }
        for LocalArg { address, interface } in &self.locals {
            let (l3num, own) = prefixed(*address);
            let routed = network
                .routes
                .iter()
                .filter(|route| route.l3num == l3num && route.to.contains(own.address))
                .max_by_key(|route| route.to.prefix)
                .map(|route| route.interface);
            let index = match (interface, routed) {
                (Some(name), _) => network.interface_named(name),
                (None, Some(index)) => index,
                (None, None) => network.interface_named("lo"),
            };
            if let Some(interface) = network.interfaces.get_mut(usize::from(index)) {
                interface.addresses.push(InterfaceAddress { l3num, network: own });
            }
        }
        network
    }
}

fn read_rules(path: &Path, l3num: L3, network: &Network, notes: &mut Vec<String>) -> Result<Ruleset, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
    let name = path.display();
    let parsed = iptables::parse(&text, l3num).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    if !parsed.other_tables.is_empty() {
        let tables = Plural(parsed.other_tables.len() as u64, "table");
        notes.push(format!("{name}: {tables} beside nat ignored: {}", parsed.other_tables.join(", ")));
    }
    let Some(ruleset) = parsed.nat else {
        return Err(Failure::usage(format!("{name}: there is no nat table (a line '*nat') in it")));
    };
    for rule in ruleset.rules() {
        let missing = |what: &str| Failure::usage(format!("{name}: line {}: {what}", rule.line));
        let addressed = network.interfaces.iter().flat_map(|known| &known.addresses).any(|own| own.l3num == l3num);
        let routed = network.routes.iter().any(|route| route.l3num == l3num);
        if rule.matches.out_interface.is_some() && !routed {
            return Err(missing("-o needs to know where packets leave: add --route PREFIX=IFACE"));
        }
        match rule.target {
            Target::Masquerade(_) if !routed => {
                return Err(missing("MASQUERADE needs to know where packets leave: add --route PREFIX=IFACE"));
            }
            Target::Masquerade(_) | Target::Redirect(_) if !addressed => {
                return Err(missing("this target needs an address of the interface: add --local ADDRESS/LEN=IFACE"));
            }
            _ => {}
        }
    }
    Ok(ruleset)
}
