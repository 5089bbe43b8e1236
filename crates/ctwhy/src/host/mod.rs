//! What is said on a command line about a host that tracks: its rules, its sysctls, the size of its table, where NAT is
//! to do otherwise than the kernel.

mod check;
mod nat_options;
mod network;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use ctwhy_core::hook::Engine;
use ctwhy_core::nat::options::Options;
use ctwhy_core::rules::{Rules, TableName, iptables};
use ctwhy_core::sysctl::{SysctlError, Sysctls};
use ctwhy_core::tuple::L3;
use ctwhy_nat::limit::Limits;

#[cfg(target_os = "linux")]
pub(crate) use network::{AddressArg, MtuArg};
pub(crate) use network::{RouteArg, parse_prefix, prefixed};

use crate::failure::Failure;
use crate::release::{self, KernelArg};
use crate::report::summary::Plural;
use check::{asks_in_interface, check};
use nat_options::NatOptions;

/// Rules, sysctls and limits of a host.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The host that tracks")]
pub(crate) struct Settings {
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
    #[arg(long = "sysctl", value_name = "KEY=VALUE")]
    sysctls: Vec<Assignment>,
    /// Decide as this kernel does, such as 6.12 or 6.12.48 [default: 6.18, or the one that recorded a case]
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<KernelArg>,
    /// How many entries there may be, as --sysctl nf_conntrack_max=N; beyond that others go early or packets are dropped
    #[arg(long, value_name = "N")]
    table_limit: Option<NonZeroU32>,
    /// Do not verify checksums, as nf_conntrack_checksum=0
    #[arg(long)]
    no_checksum: bool,
    #[command(flatten)]
    nat: NatOptions,
}

/// What the settings of a host mean beside what is in its engine.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    /// What the user should know.
    pub(crate) notes: Vec<String>,
    /// The rule, in words, that cannot be asked without knowing where a packet came in.
    pub(crate) asks_in_interface: Option<String>,
}

/// Whose word the network of a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// The user's: what rules need and nobody said is asked for.
    Told,
    /// The kernel's: what rules need may come later.
    #[cfg(target_os = "linux")]
    Present,
}

impl Settings {
    /// Sets up a host whose network is known already; `limits` are those of a host that sends errors itself.
    ///
    /// # Errors
    /// A rule file that cannot be read or understood, rules that need what was not said, a sysctl that decides about
    /// nothing, or options of NAT that do not go together.
    pub(crate) fn apply(
        &self,
        engine: &mut Engine,
        network: Network,
        mut limits: Option<&mut Limits>,
    ) -> Result<Remarks, Failure> {
        let mut remarks = Remarks::default();
        let files = [
            (&self.rules, L3::V4, &TableName::ALL[..]),
            (&self.rules6, L3::V6, &TableName::ALL),
            (&self.nat_rules, L3::V4, &[TableName::Nat]),
            (&self.nat_rules6, L3::V6, &[TableName::Nat]),
        ];
        for (path, l3num, tables) in files {
            let Some(path) = path else { continue };
            let rules = read_rules(path, l3num, tables, &mut remarks.notes)?;
            let named = |line: u32| format!("{}: line {line}", path.display());
            if network == Network::Told {
                check(&rules, l3num, &engine.network)
                    .map_err(|(line, missing)| Failure::usage(format!("{}: {missing}", named(line))))?;
            }
            if let Some((line, what)) = asks_in_interface(&rules) {
                let line = named(line);
                remarks.asks_in_interface = Some(format!("{line}: {what} needs to know where packets come in"));
            }
            *engine.rules_mut(l3num) = rules;
        }
        let sysctls = &mut engine.conntrack.sysctls;
        for assignment in &self.sysctls {
            assignment.apply(sysctls, limits.as_deref_mut())?;
        }
        sysctls.checksum &= !self.no_checksum;
        sysctls.table_limit = self.table_limit.or(sysctls.table_limit);
        let options = self.nat.options()?;
        if options != Options::KERNEL && [L3::V4, L3::V6].iter().all(|l3num| engine.rules(*l3num).nat.is_none()) {
            remarks.notes.push("--nat-option changes nothing without a nat table; --rules reads one".to_owned());
        }
        engine.set_nat_options(options);
        let table = &mut engine.conntrack.table;
        if let Some(KernelArg(kernel)) = self.kernel {
            table.kernel = kernel;
        }
        remarks.notes.extend(release::remarks(table.kernel));
        Ok(remarks)
    }
}

/// `--sysctl KEY=VALUE`
#[derive(Clone, Debug)]
struct Assignment {
    key: String,
    value: String,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Assignment, String> {
        let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as nf_conntrack_udp_timeout=30")?;
        Ok(Assignment { key: key.to_owned(), value: value.to_owned() })
    }
}

impl Assignment {
    /// The name of the limit that the table of a machine has. The engine does not know it by name, so that no case sets it.
    const TABLE_LIMIT: &str = "nf_conntrack_max";

    /// The limit of the table, if it is the one that is set; 0 is none.
    fn table_limit(&self) -> Option<Result<NonZeroU32, SysctlError>> {
        let name = ["net.netfilter.", "net."].iter().find_map(|prefix| self.key.strip_prefix(prefix));
        let limit = |value: u32| NonZeroU32::new(value).unwrap_or(NonZeroU32::MAX);
        (name.unwrap_or(&self.key) == Self::TABLE_LIMIT)
            .then(|| self.value.parse().map(limit).map_err(|_| SysctlError::Value))
    }

    fn apply(&self, sysctls: &mut Sysctls, limits: Option<&mut Limits>) -> Result<(), Failure> {
        let Assignment { key, value } = self;
        let known = if limits.is_some() { &Limits::NAMES[..] } else { &[] };
        let set = limits.map_or(Err(SysctlError::Unknown), |limits| limits.set(key, value));
        let set = match (set, self.table_limit()) {
            (Err(SysctlError::Unknown), Some(limit)) => limit.map(|limit| sysctls.table_limit = Some(limit)),
            (Err(SysctlError::Unknown), None) => sysctls.set(key, value),
            (set, _) => set,
        };
        set.map_err(|error| match error {
            SysctlError::Value => Failure::usage(format!("--sysctl: '{value}' is no value for {key}")),
            SysctlError::Unknown => {
                let known = [&Sysctls::NAMES, known, &[Self::TABLE_LIMIT]].concat().join(", ");
                Failure::usage(format!("--sysctl: '{key}' decides about no packet here; known are {known}"))
            }
        })
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
