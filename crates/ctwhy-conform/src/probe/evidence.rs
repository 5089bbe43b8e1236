//! What was sent and what came back: all that a verdict may rest on.

use std::net::IpAddr;

use ctwhy_linux::probe::{Answer, IcmpError, Method, Quote, Stray};

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing came, this often.
    Silent {
        /// Packets sent.
        tries: u32,
    },
    /// An ICMP error.
    Error(IcmpError),
    /// An answer of the same protocol.
    Reply {
        /// TTL or hop limit that it arrived with.
        ttl: Option<u8>,
    },
    /// A TCP connection was accepted.
    Connected,
    /// A TCP connection was refused.
    Refused,
    /// This host did not send it, and why.
    NotSent(String),
}

impl Outcome {
    /// Did anything come back?
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        !matches!(self, Outcome::Silent { .. } | Outcome::NotSent(_))
    }

    /// The error.
    #[must_use]
    pub const fn error(&self) -> Option<&IcmpError> {
        match self {
            Outcome::Error(error) => Some(error),
            _ => None,
        }
    }

    /// Does it say that the probe came to the host that it was sent to?
    #[must_use]
    pub fn arrived(&self, at: IpAddr) -> bool {
        match self {
            Outcome::Reply { .. } | Outcome::Connected | Outcome::Refused => true,
            Outcome::Error(error) => error.from == Some(at),
            Outcome::Silent { .. } | Outcome::NotSent(_) => false,
        }
    }
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Outcome {
        match answer {
            Answer::Error(error) => Outcome::Error(error),
            Answer::Reply { ttl, .. } => Outcome::Reply { ttl },
            Answer::Connected => Outcome::Connected,
            Answer::Refused => Outcome::Refused,
        }
    }
}

/// The probes with one TTL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The TTL that they left with.
    pub ttl: u8,
    /// By [`Method::ALL`]; `None` where none was sent.
    pub outcomes: [Option<Outcome>; 3],
}

impl Hop {
    /// What became of the probe by a method.
    #[must_use]
    pub fn by(&self, method: Method) -> Option<&Outcome> {
        self.outcomes[method as usize].as_ref()
    }

    /// Routers that said that the TTL was used up here.
    pub fn routers(&self) -> impl Iterator<Item = IpAddr> {
        self.outcomes.iter().flatten().filter_map(|outcome| outcome.error().filter(|e| is_time_exceeded(e))?.from)
    }
}

/// A probe that may not be cut, and its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sized {
    /// UDP or echo.
    pub method: Method,
    /// Bytes of the IP packet.
    pub length: usize,
    /// What became of it.
    pub outcome: Outcome,
}

/// Datagrams of one flow, sent without waiting, and what the errors about them quoted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crossing {
    /// The tags that were sent.
    pub sent: Vec<u32>,
    /// What each error quoted.
    pub quoted: Vec<Quote>,
}

/// Everything that a run found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Where the probes were sent to.
    pub dest: IpAddr,
    /// Is that address in the network of one of this host's interfaces, or this host's own?
    pub on_link: bool,
    /// Methods that this user may not use, and why.
    pub unavailable: Vec<(Method, String)>,
    /// Could all errors be seen that arrived here (CAP_NET_RAW)?
    pub raw: bool,
    /// TTL 1 and on.
    pub hops: Vec<Hop>,
    /// Probes with a full TTL to ports on which nobody should listen.
    pub closed: Vec<(Method, Outcome)>,
    /// An address at which there can be nobody.
    pub nowhere: IpAddr,
    /// Probes with a full TTL to that.
    pub to_nowhere: Vec<(Method, Outcome)>,
    /// Long packets with DF.
    pub sizes: Vec<Sized>,
    /// Two flows at once.
    pub crossing: Vec<Crossing>,
    /// Errors about packets to `dest` or `nowhere` that name a source which is not one of our sockets.
    pub strays: Vec<Stray>,
}

impl Evidence {
    /// Everything that became of anything, with the method.
    pub fn outcomes(&self) -> impl Iterator<Item = (Method, &Outcome)> {
        let traced = self
            .hops
            .iter()
            .flat_map(|hop| Method::ALL.into_iter().filter_map(|method| Some((method, hop.by(method)?))));
        let controls = self.closed.iter().chain(&self.to_nowhere).map(|(method, outcome)| (*method, outcome));
        let sizes = self.sizes.iter().map(|sized| (sized.method, &sized.outcome));
        traced.chain(controls).chain(sizes)
    }

    /// The smallest TTL with which a probe by this method came to the target.
    #[must_use]
    pub fn reached(&self, method: Method) -> Option<u8> {
        let hop = self.hops.iter().find(|hop| hop.by(method).is_some_and(|outcome| outcome.arrived(self.dest)))?;
        Some(hop.ttl)
    }

    /// Was anything sent by this method?
    #[must_use]
    pub fn used(&self, method: Method) -> bool {
        self.outcomes().any(|(by, outcome)| by == method && !matches!(outcome, Outcome::NotSent(_)))
    }
}

/// TTL or hop limit used up.
#[must_use]
pub const fn is_time_exceeded(error: &IcmpError) -> bool {
    // An IPv6 error of type 11 does not exist, an IPv4 one of type 3 has the codes of unreachable: the address tells.
    match error.from {
        Some(IpAddr::V6(_)) => error.icmp_type == 3,
        _ => error.icmp_type == 11,
    }
}

/// Longer than the next link takes.
#[must_use]
pub const fn is_too_big(error: &IcmpError) -> bool {
    match error.from {
        Some(IpAddr::V6(_)) => error.icmp_type == 2,
        _ => error.icmp_type == 3 && error.code == 4,
    }
}
