//! What is asked of a NAT, and how an answer is judged.

use std::fmt;
use std::io;
use std::rc::Rc;

use ctwhy_core::tuple::L3;

use super::bench::Bench;

/// How strongly something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// An RFC says MUST.
    Must,
    /// An RFC says SHOULD or RECOMMENDED.
    Should,
    /// No RFC says it, and Linux does it: what leaves is the packet that came, translated.
    Kernel,
    /// Nothing is asked: what the NAT does is written down.
    Note,
}

impl Level {
    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::Kernel => "kernel",
            Level::Note => "note",
        }
    }
}

/// What requirements are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // `title` says it.
pub enum Group {
    Kind,
    Mapping,
    Ports,
    Filtering,
    Hairpin,
    ErrorsIn,
    Quotes,
    Forged,
    ErrorsOut,
    Fragments,
    Mtu,
    Ttl,
    Survival,
    Timeouts,
}

impl Group {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Group; 14] = [
        Group::Kind,
        Group::Mapping,
        Group::Ports,
        Group::Filtering,
        Group::Hairpin,
        Group::ErrorsIn,
        Group::Quotes,
        Group::Forged,
        Group::ErrorsOut,
        Group::Fragments,
        Group::Mtu,
        Group::Ttl,
        Group::Survival,
        Group::Timeouts,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Group::Kind => "kind",
            Group::Mapping => "mapping",
            Group::Ports => "ports",
            Group::Filtering => "filtering",
            Group::Hairpin => "hairpin",
            Group::ErrorsIn => "errors-in",
            Group::Quotes => "quotes",
            Group::Forged => "forged",
            Group::ErrorsOut => "errors-out",
            Group::Fragments => "fragments",
            Group::Mtu => "mtu",
            Group::Ttl => "ttl",
            Group::Survival => "survival",
            Group::Timeouts => "timeouts",
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Group::Kind => "Is it the same packet that leaves?",
            Group::Mapping => "Mappings",
            Group::Ports => "Ports",
            Group::Filtering => "Filtering",
            Group::Hairpin => "From inside to inside by the address outside",
            Group::ErrorsIn => "Errors that come in",
            Group::Quotes => "The packet that an error quotes",
            Group::Forged => "Errors that must not come in",
            Group::ErrorsOut => "Errors that clients send",
            Group::Fragments => "Fragments",
            Group::Mtu => "Path MTU",
            Group::Ttl => "TTL and hop limit",
            Group::Survival => "What an error must not end",
            Group::Timeouts => "Timeouts",
        }
    }
}

/// What became of a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The NAT does so.
    Pass,
    /// What it does; nothing is asked.
    Noted(String),
    /// It does not: a sentence.
    Fail(String),
    /// Nothing can be asked, or the answer would mean nothing: why.
    NotApplicable(String),
    /// The question could not be put: why.
    Inconclusive(String),
}

impl Outcome {
    /// One word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Noted(_) => "note",
            Outcome::Fail(_) => "fail",
            Outcome::NotApplicable(_) => "n/a",
            Outcome::Inconclusive(_) => "unclear",
        }
    }

    /// The sentence that goes with it.
    #[must_use]
    pub fn sentence(&self) -> Option<&str> {
        match self {
            Outcome::Pass => None,
            Outcome::Noted(text) | Outcome::Fail(text) | Outcome::NotApplicable(text) | Outcome::Inconclusive(text) => {
                Some(text)
            }
        }
    }
}

/// Why a probe ended before it could say that all is well.
#[derive(Debug)]
pub enum Stop {
    /// It knows.
    Judged(Outcome),
    /// The cables are gone.
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Io(error)
    }
}

/// What a probe says: all is well, or why it stopped.
pub type Judged = Result<(), Stop>;

pub(super) fn fail(sentence: impl Into<String>) -> Stop {
    Stop::Judged(Outcome::Fail(sentence.into()))
}

pub(super) fn noted(sentence: impl Into<String>) -> Stop {
    Stop::Judged(Outcome::Noted(sentence.into()))
}

pub(super) fn not_applicable(why: impl Into<String>) -> Stop {
    Stop::Judged(Outcome::NotApplicable(why.into()))
}

pub(super) fn inconclusive(why: impl Into<String>) -> Stop {
    Stop::Judged(Outcome::Inconclusive(why.into()))
}

type Probe = Rc<dyn Fn(&mut Bench<'_>) -> Judged>;

/// One thing that is asked.
#[derive(Clone)]
pub struct Requirement {
    /// Where it comes from and what it is about, such as `RFC5508-REQ-4.udp.time-exceeded`. It stays as it is.
    pub id: String,
    /// What it is about.
    pub group: Group,
    /// How strongly it is asked.
    pub level: Level,
    /// `None` for both families.
    pub only: Option<L3>,
    /// One sentence.
    pub text: String,
    /// Sections, and decisions of the catalogue of the kernel's.
    pub cites: &'static str,
    /// Why a NAT that does as the kernel does need not: it is told, and only a strict run fails by it.
    pub beyond: Option<&'static str>,
    /// Needs this long to be found out, in seconds.
    pub seconds: u64,
    pub(super) probe: Probe,
}

impl fmt::Debug for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requirement").field("id", &self.id).field("level", &self.level).finish_non_exhaustive()
    }
}

impl Requirement {
    pub(super) fn new(
        group: Group,
        level: Level,
        id: impl Into<String>,
        cites: &'static str,
        text: impl Into<String>,
        probe: impl Fn(&mut Bench<'_>) -> Judged + 'static,
    ) -> Requirement {
        let (id, text, probe) = (id.into(), text.into(), Rc::new(probe));
        Requirement { id, group, level, only: None, text, cites, beyond: None, seconds: 0, probe }
    }

    pub(super) fn only(self, l3num: L3) -> Requirement {
        Requirement { only: Some(l3num), ..self }
    }

    /// The kernel does otherwise, and why that is no fault.
    pub(super) fn beyond(self, why: &'static str) -> Requirement {
        Requirement { beyond: Some(why), ..self }
    }

    pub(super) fn takes(self, seconds: u64) -> Requirement {
        Requirement { seconds, ..self }
    }

    /// Is it asked of this family?
    #[must_use]
    pub fn concerns(&self, l3num: L3) -> bool {
        self.only.is_none_or(|only| only == l3num)
    }
}
