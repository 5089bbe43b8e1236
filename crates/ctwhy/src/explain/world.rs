//! The host that the packets of a capture meet: its routes, addresses, rules and sysctls, from the command line.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use ctwhy_core::hook::Engine;
use ctwhy_core::nat::rules::{Ruleset, Target};
use ctwhy_core::network::{Destination, Interface, InterfaceAddress, Network, Route};
use ctwhy_core::rules::iptables;
use ctwhy_core::rules::matches::address_bits;
use ctwhy_core::rules::{Condition, Matches, Network as Prefixed, Rules, Table, TableName};
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
    /// Rules as `iptables-save` prints them: raw, mangle, nat and filter
    #[arg(long, value_name = "FILE", conflicts_with = "nat_rules")]
    rules: Option<PathBuf>,
    /// Rules as `ip6tables-save` prints them
    #[arg(long, value_name = "FILE", conflicts_with = "nat_rules6")]
    rules6: Option<PathBuf>,
    /// Of rules as `iptables-save` prints them the nat table only
    #[arg(long, value_name = "FILE")]
    nat_rules: Option<PathBuf>,
    /// Of rules as `ip6tables-save` prints them the nat table only
    #[arg(long, value_name = "FILE")]
    nat_rules6: Option<PathBuf>,
    /// A sysctl of conntrack, such as nf_conntrack_tcp_loose=0
    #[arg(long = "sysctl", value_name = "KEY=VALUE", value_parser = key_value)]
    sysctls: Vec<(String, String)>,
    /// How many entries there may be, as nf_conntrack_max; beyond that others go early or packets are dropped
    #[arg(long, value_name = "N")]
    table_limit: Option<NonZeroU32>,
    /// Do not verify checksums, as nf_conntrack_checksum=0
    #[arg(long)]
    no_checksum: bool,
}

/// The longest length of a prefix of the family.
const fn bits(l3num: L3) -> u8 {
    address_bits(l3num)
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

/// A host, and what the user should know about it.
pub(super) struct Host {
    pub(super) engine: Engine,
    pub(super) notes: Vec<String>,
    /// The rule, in words, that cannot be asked without knowing where a packet came in.
    pub(super) asks_in_interface: Option<String>,
}

impl World {
    /// The interface of packets that the capture names none for.
    pub(super) fn interface(&self) -> Option<&str> {
        self.iface.as_deref()
    }

    /// The host: what is known of it from the case, and what the options add or set anew.
    ///
    /// # Errors
    /// A rule file that cannot be read or understood, or rules that need what was not said.
    pub(super) fn host(&self, engine: Engine) -> Result<Host, Failure> {
        let mut host = Host { engine, notes: Vec::new(), asks_in_interface: None };
        self.extend(&mut host.engine.network)?;
        let files = [
            (&self.rules, L3::V4, &TableName::ALL[..]),
            (&self.rules6, L3::V6, &TableName::ALL),
            (&self.nat_rules, L3::V4, &[TableName::Nat]),
            (&self.nat_rules6, L3::V6, &[TableName::Nat]),
        ];
        for (path, l3num, tables) in files {
            let Some(path) = path else { continue };
            let rules = read_rules(path, l3num, tables, &mut host.notes)?;
            let named = |line: u32| format!("{}: line {line}", path.display());
            check(&rules, l3num, &host.engine.network)
                .map_err(|(line, missing)| Failure::usage(format!("{}: {missing}", named(line))))?;
            if let Some((line, what)) = asks_in_interface(&rules) {
                host.asks_in_interface = Some(format!("{}: {what} needs to know where packets come in", named(line)));
            }
            *host.engine.rules_mut(l3num) = rules;
        }
        let sysctls = &mut host.engine.conntrack.sysctls;
        for (key, value) in &self.sysctls {
            let set = sysctls.set(key, value);
            set.map_err(|_| Failure::usage(format!("--sysctl {key}={value} is not understood")))?;
        }
        sysctls.checksum &= !self.no_checksum;
        sysctls.table_limit = self.table_limit;
        Ok(host)
    }

    fn extend(&self, network: &mut Network) -> Result<(), Failure> {
        for RouteArg { to, interface } in &self.routes {
            let (l3num, to) = prefixed(*to);
            let interface = network.interface_named(interface);
            network.routes.push(Route { l3num, to, interface, via: None });
        }
        // Those that name their interface first: their networks may cover the others.
        let (named, unnamed): (Vec<_>, Vec<_>) = self.locals.iter().partition(|local| local.interface.is_some());
        for LocalArg { address, interface } in named.into_iter().chain(unnamed) {
            let (l3num, own) = prefixed(*address);
            let index = match interface {
                Some(name) => network.interface_named(name),
                None if address.address().is_loopback() => network.interface_named("lo"),
                None => match network.route(l3num, own.address) {
                    Destination::Interface(index) => index,
                    Destination::Local | Destination::None => {
                        let address = address.address();
                        return Err(Failure::usage(format!(
                            "--local {address}: no --route leads there, so its interface is not known: add =IFACE"
                        )));
                    }
                },
            };
            if let Some(interface) = network.interfaces.get_mut(usize::from(index)) {
                interface.addresses.push(InterfaceAddress { l3num, network: own });
            }
        }
        Ok(())
    }
}

fn read_rules(path: &Path, l3num: L3, wanted: &[TableName], notes: &mut Vec<String>) -> Result<Rules, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
    let name = path.display();
    let parsed =
        iptables::parse_only(&text, l3num, wanted).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    let (besides, table) = match wanted {
        [TableName::Nat] => (" beside nat", "nat table (a line '*nat')"),
        _ => ("", "table (a line such as '*filter')"),
    };
    if !parsed.other_tables.is_empty() {
        let tables = Plural(parsed.other_tables.len() as u64, "table");
        notes.push(format!("{name}: {tables}{besides} not looked at: {}", parsed.other_tables.join(", ")));
    }
    if parsed.rules == Rules::default() {
        return Err(Failure::usage(format!("{name}: there is no {table} in it")));
    }
    Ok(parsed.rules)
}

/// Is everything known that the rules need? Else the line of the rule, and what to add.
fn check(rules: &Rules, l3num: L3, network: &Network) -> Result<(), (u32, String)> {
    for table in [&rules.raw, &rules.mangle, &rules.filter].into_iter().flatten() {
        // Without routes no packet is delivered, and none leaves by any interface.
        let routed = [&table.input, &table.forward].into_iter().flat_map(|chain| &chain.rules);
        let leaving = table.rules().filter(|rule| rule.matches.out_interface.is_some());
        if let Some(rule) = routed.chain(leaving).next()
            && network.is_unknown()
        {
            return Err((rule.line, "the rule needs to know where packets go: add --route PREFIX=IFACE".to_owned()));
        }
    }
    rules.nat.as_ref().map_or(Ok(()), |nat| check_nat(nat, l3num, network))
}

fn check_nat(rules: &Ruleset, l3num: L3, network: &Network) -> Result<(), (u32, String)> {
    let leads_out = |index: u16| {
        let routed = network.routes.iter().any(|route| route.l3num == l3num && route.interface == index);
        let on_link = |own: &InterfaceAddress| own.l3num == l3num && own.network.prefix < bits(l3num);
        routed || network.interface(index).is_some_and(|interface| interface.addresses.iter().any(on_link))
    };
    let exits: Vec<&Interface> =
        network.interfaces.iter().zip(0..).filter(|(_, index)| leads_out(*index)).map(|(known, _)| known).collect();
    let addressed = |interface: &Interface| interface.addresses.iter().any(|own| own.l3num == l3num);
    let address = |name: &str| format!("add --local ADDRESS/LEN={name}");
    for rule in rules.rules() {
        let out = rule.matches.out_interface.as_ref();
        let masquerades = matches!(rule.target, Target::Masquerade(_));
        if (out.is_some() || masquerades) && exits.is_empty() {
            let what = if masquerades { "MASQUERADE" } else { "-o" };
            return Err((rule.line, format!("{what} needs to know where packets leave: add --route PREFIX=IFACE")));
        }
        let mut chosen = exits.iter().filter(|exit| out.is_none_or(|condition| names(condition, &exit.name)));
        if masquerades && let Some(bare) = chosen.find(|exit| !addressed(exit)) {
            return Err((rule.line, format!("MASQUERADE needs an address of {}: {}", bare.name, address(&bare.name))));
        }
    }
    for rule in &rules.prerouting.rules {
        if matches!(rule.target, Target::Redirect(_)) {
            let condition = rule.matches.in_interface.as_ref();
            let mut known = network.interfaces.iter().filter(|known| addressed(known));
            if !known.any(|known| condition.is_none_or(|condition| names(condition, &known.name))) {
                let name = condition.filter(|condition| !condition.negated).map_or("IFACE", |c| c.value.as_str());
                let missing = address(name);
                return Err((rule.line, format!("REDIRECT needs an address where packets come in: {missing}")));
            }
        }
    }
    Ok(())
}

/// The line of the first rule that asks where a packet came in, and what in it asks.
fn asks_in_interface(rules: &Rules) -> Option<(u32, &'static str)> {
    let asks = |matches: &Matches| matches.in_interface.is_some();
    let filtering = || [&rules.raw, &rules.mangle, &rules.filter].into_iter().flatten().flat_map(Table::rules);
    let nat = || rules.nat.iter().flat_map(Table::rules);
    let by_name = filtering().find(|rule| asks(&rule.matches)).map(|rule| rule.line);
    let by_name = by_name.or_else(|| nat().find(|rule| asks(&rule.matches)).map(|rule| rule.line));
    let mut arriving = rules.nat.iter().flat_map(|nat| &nat.prerouting.rules);
    by_name.map(|line| (line, "-i")).or_else(|| {
        arriving.find(|rule| matches!(rule.target, Target::Redirect(_))).map(|rule| (rule.line, "REDIRECT"))
    })
}

/// Does `-i` or `-o` mean the interface?
fn names(condition: &Condition<String>, name: &str) -> bool {
    let meant = match condition.value.strip_suffix('+') {
        Some(start) => name.starts_with(start),
        None => name == condition.value,
    };
    meant != condition.negated
}
