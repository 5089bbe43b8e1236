//! What became of a case's packets: decided by a kernel, and decided again by whatever is compared with it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;

/// What became of the packets of a case, and what was left in the table. Unset is "not known" and, in a recording,
/// "of no interest to the case".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One for each packet, numbered from 1 in file order.
    pub packets: Vec<PacketOutcome>,
    /// The table after the last packet, in lines of `conntrack -L -o extended`.
    pub table: Option<Vec<String>>,
    /// The table's events, in lines of `conntrack -E -o extended`.
    pub events: Option<Vec<String>>,
    /// What was expected after the last packet, in lines of `conntrack -L expect` of both families.
    pub expectations: Option<Vec<String>>,
    /// What happened how often, by the names of `conntrack -S` (`/proc/net/stat/nf_conntrack`), `clash_resolve` for
    /// `clashres`. One that the other side does not tell is not compared.
    pub counters: Option<BTreeMap<String, u64>>,
}

/// What became of one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketOutcome {
    /// Its number, counted from 1.
    pub packet: u64,
    /// What conntrack decided.
    pub ctinfo: Option<CtInfo>,
    /// Where conntrack decided it.
    pub hook: Option<Hook>,
    /// What the kernel logged (`nf_conntrack_log_invalid`) about why the packet is INVALID, a text each. Empty when it
    /// said nothing, as it often does; unset for packets that are not INVALID.
    pub log: Option<Vec<String>>,
    /// What left the box in its place: nothing, itself, or its fragments.
    pub forwarded: Option<Vec<Emitted>>,
    /// Whether it was delivered to the box itself.
    pub local: Option<bool>,
    /// What the box sent of its own in consequence, such as a time-exceeded error.
    pub generated: Option<Vec<Generated>>,
}

/// A packet that left the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emitted {
    /// The interface that it left by.
    pub iface: String,
    /// The packet from its IP header on.
    pub bytes: Bytes,
}

/// A packet that the box sent of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generated {
    /// The interface that it left by.
    pub iface: String,
    /// What conntrack decided about it on its way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctinfo: Option<CtInfo>,
    /// The packet as the box made it, before NAT: what went into LOCAL_OUT. It is input, like the packets of the case,
    /// and not compared; `None` when it was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Bytes>,
    /// The packet as it left, from its IP header on.
    pub bytes: Bytes,
}

/// What conntrack decides about a packet, by the names of the JSON interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)] // The names are the kernel's own.
pub enum CtInfo {
    New,
    Established,
    EstablishedReply,
    Related,
    RelatedReply,
    Invalid,
    Untracked,
}

impl CtInfo {
    const NAMES: [(CtInfo, &'static str); 7] = [
        (CtInfo::New, "NEW"),
        (CtInfo::Established, "ESTABLISHED"),
        (CtInfo::EstablishedReply, "ESTABLISHED_REPLY"),
        (CtInfo::Related, "RELATED"),
        (CtInfo::RelatedReply, "RELATED_REPLY"),
        (CtInfo::Invalid, "INVALID"),
        (CtInfo::Untracked, "UNTRACKED"),
    ];
}

impl fmt::Display for CtInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = CtInfo::NAMES.iter().find(|(value, _)| value == self).map(|(_, name)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

/// The text is none of the seven names of a ctinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCtInfo(pub String);

impl fmt::Display for UnknownCtInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no ctinfo; it is one of", self.0)?;
        CtInfo::NAMES.iter().try_for_each(|(_, name)| write!(f, " {name}"))
    }
}

impl std::error::Error for UnknownCtInfo {}

impl FromStr for CtInfo {
    type Err = UnknownCtInfo;

    fn from_str(text: &str) -> Result<Self, UnknownCtInfo> {
        let found = CtInfo::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(value, _)| *value).ok_or_else(|| UnknownCtInfo(text.to_owned()))
    }
}

/// A hook of the IP stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // The names are the kernel's own.
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        })
    }
}
