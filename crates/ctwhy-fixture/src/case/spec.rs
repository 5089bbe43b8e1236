//! `case.toml`: what a case shows, and the box that its packets meet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::error::{CaseError, Problem};
use super::prefix::Prefix;
use crate::coverage::line_of;

/// What `case.toml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The case in a few words.
    pub title: String,
    /// What it shows, in one paragraph.
    pub shows: String,
    /// The catalogued kernel decisions that it is about.
    pub ids: Vec<DecisionId>,
    /// IPv4 rules as `iptables-save` writes them; `None` when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// IPv6 rules as `ip6tables-save` writes them; `None` when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules6: Option<String>,
    /// Sysctls that differ from the kernel's defaults, by their full dotted names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// The box's interfaces.
    #[serde(rename = "interface")]
    pub interfaces: Vec<BoxInterface>,
    /// The box's routes beside those of its own addresses.
    #[serde(rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// The packets that a queue holds back for a while.
    #[serde(rename = "hold", skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Hold>,
}

/// A packet that waits in an NFQUEUE in FORWARD, behind conntrack and before confirm, while others go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Number of the packet, from 1.
    pub packet: u64,
    /// Number of the packet behind which it is let go: when all that one causes has happened.
    pub until: u64,
}

/// An interface of the box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxInterface {
    /// Its name, as packets and routes call it.
    pub name: String,
    /// The box's own addresses on it, with the network that is directly behind.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
    /// The longest packet that leaves by it, in bytes, where that is not [`BoxInterface::MTU`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl BoxInterface {
    /// The MTU of an Ethernet.
    pub const MTU: u32 = 1500;
}

/// A route of the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Where it leads.
    pub to: Prefix,
    /// The interface that packets leave by.
    pub dev: String,
    /// The next router; `None` when the network is directly behind the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
}

/// The name of a catalogued kernel decision, such as `ICMP-REL-01`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DecisionId(String);

impl DecisionId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DecisionId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let part = |p: &str| !p.is_empty() && p.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        if text.contains('-') && text.split('-').all(part) {
            Ok(DecisionId(text))
        } else {
            Err(format!("`{text}` is no decision of the catalogue; they look like ICMP-REL-01"))
        }
    }
}

impl From<DecisionId> for String {
    fn from(id: DecisionId) -> Self {
        id.0
    }
}

/// `case.toml` as it stands in the file, with the places of what is checked against the rest of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    title: String,
    shows: String,
    #[serde(default)]
    ids: Vec<DecisionId>,
    rules: Option<String>,
    rules6: Option<String>,
    #[serde(default)]
    sysctls: BTreeMap<String, SysctlValue>,
    #[serde(default)]
    interface: Vec<Spanned<BoxInterface>>,
    #[serde(default)]
    route: Vec<RawRoute>,
    #[serde(default)]
    hold: Vec<Spanned<Hold>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    to: Spanned<Prefix>,
    dev: Spanned<String>,
    via: Option<IpAddr>,
}

/// A sysctl's value, which people write with and without quotes.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a sysctl's value is a text or a whole number")]
enum SysctlValue {
    Number(i64),
    Text(String),
}

impl Spec {
    /// Reads the text of a `case.toml`; `file` is what errors call it.
    ///
    /// # Errors
    /// When it is no TOML, a field is unknown, missing or wrong, a route leads out of an interface that is not there, or a
    /// packet is held twice or until one before it.
    pub fn parse(text: &str, file: &Path) -> Result<Spec, CaseError> {
        let line = |at: usize| line_of(text, at);
        let raw: RawSpec = toml::from_str(text).map_err(|e| {
            let problem = Problem::Syntax(e.message().to_owned());
            match e.span() {
                Some(span) => CaseError::at_line(file, line(span.start), problem),
                None => CaseError::new(file, problem),
            }
        })?;
        let mut names = BTreeSet::new();
        for interface in &raw.interface {
            let name = &interface.get_ref().name;
            if !names.insert(name) {
                let problem = Problem::InterfaceTwice(name.clone());
                return Err(CaseError::at_line(file, line(interface.span().start), problem));
            }
        }
        for route in &raw.route {
            let (to, dev) = (route.to.get_ref(), route.dev.get_ref());
            if to.address() != to.network() {
                let problem = format!("route to {to} has host bits set; write {}/{}", to.network(), to.length());
                return Err(CaseError::at_line(file, line(route.to.span().start), Problem::Syntax(problem)));
            }
            if !names.contains(dev) {
                let problem = Problem::UnknownInterface(dev.clone());
                return Err(CaseError::at_line(file, line(route.dev.span().start), problem));
            }
        }
        let mut held = BTreeSet::new();
        for hold in &raw.hold {
            let Hold { packet, until } = *hold.get_ref();
            let problem = if packet == 0 || until < packet {
                format!(
                    "packet {packet} cannot be held until packet {until}; the first number is 1, and `until` is no smaller"
                )
            } else if !held.insert(packet) {
                format!("packet {packet} is held twice; leave one [[hold]] out")
            } else {
                continue;
            };
            return Err(CaseError::at_line(file, line(hold.span().start), Problem::Syntax(problem)));
        }
        let value = |value| match value {
            SysctlValue::Number(n) => n.to_string(),
            SysctlValue::Text(text) => text,
        };
        let route = |r: RawRoute| Route { to: r.to.into_inner(), dev: r.dev.into_inner(), via: r.via };
        Ok(Spec {
            title: raw.title,
            shows: raw.shows,
            ids: raw.ids,
            rules: raw.rules,
            rules6: raw.rules6,
            sysctls: raw.sysctls.into_iter().map(|(name, v)| (name, value(v))).collect(),
            interfaces: raw.interface.into_iter().map(Spanned::into_inner).collect(),
            routes: raw.route.into_iter().map(route).collect(),
            holds: raw.hold.into_iter().map(Spanned::into_inner).collect(),
        })
    }

    /// The text of `case.toml`; the same for equal values.
    ///
    /// # Errors
    /// When a value cannot be written as TOML, in the words of its writer.
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string_pretty(self).map_err(|e| e.to_string())
    }

    /// Until when a packet is held, if it is.
    #[must_use]
    pub fn held_until(&self, packet: u64) -> Option<u64> {
        self.holds.iter().find(|hold| hold.packet == packet).map(|hold| hold.until)
    }

    /// Whether the box has an interface of that name.
    #[must_use]
    pub fn has_interface(&self, name: &str) -> bool {
        self.interfaces.iter().any(|i| i.name == name)
    }
}
