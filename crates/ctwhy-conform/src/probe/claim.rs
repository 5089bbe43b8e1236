//! What can be told from one end of a way, and how surely, in words.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use ctwhy_linux::probe::Method;

use super::evidence::{Outcome, is_time_exceeded, is_too_big};

/// How far a claim can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// It fits, and so do other explanations.
    Low,
    /// Other explanations need several things to be wrong at once.
    Medium,
    /// The evidence leaves nothing else.
    High,
}

impl Confidence {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        }
    }
}

/// Something that can be told from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Errors from beyond the first hop arrive.
    ErrorsComeThrough,
    /// No error arrives, and what stands in front is a NAT of sockets.
    SocketNatSwallowsErrors,
    /// No error arrives, not even from the first hop.
    NoErrors,
    /// Only the first hop's own errors arrive.
    OnlyTheFirstHop,
    /// Errors about packets of one kind arrive, about this kind they do not.
    NotAbout(Method),
    /// Packets of this kind are answered by nobody, not even by routers that answer others.
    NoAnswerTo(Method),
    /// These TTLs are answered by nobody, though errors do come through.
    SilentRouters(Vec<u8>),
    /// Routers answer up to this TTL; the target does not.
    SilentEnd {
        /// The last TTL with an answer.
        after: u8,
        /// What it does not answer.
        methods: Vec<Method>,
    },
    /// Something nearer answers in the target's place.
    Proxy(Vec<Method>),
    /// Every TTL reaches the target by every method.
    NextHostOrProxy,
    /// Replies are made anew on their way, and errors come through all the same.
    RepliesMadeAnew,
    /// Echo replies come from an address at which there is nobody.
    EchoMadeUp,
    /// TCP connections to an address at which there is nobody are accepted.
    ConnectionsMadeUp,
    /// Long packets vanish without a word.
    BlackHole {
        /// The longest that is answered, in bytes.
        passes: usize,
        /// The shortest that is not.
        vanishes: usize,
    },
    /// An error says which MTU would do.
    MtuTold(u32),
    /// An error says that a packet is too long, but no MTU that helps.
    MtuUseless(u32),
    /// The longest packets arrive.
    NoNarrowLink(usize),
    /// Errors quote another packet than the one that they are about.
    WrongQuote,
    /// Errors arrive that quote addresses or ports which are not ours.
    QuoteNotTranslated {
        /// How many.
        count: usize,
        /// An address and a port that one of them names.
        names: (IpAddr, Option<u16>),
    },
    /// Nothing at all comes back.
    NothingAnswers,
}

impl Claim {
    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Claim::ErrorsComeThrough => "errors.come_through",
            Claim::SocketNatSwallowsErrors => "errors.swallowed_by_socket_nat",
            Claim::NoErrors => "errors.none",
            Claim::OnlyTheFirstHop => "errors.first_hop_only",
            Claim::NotAbout(_) => "errors.not_about",
            Claim::NoAnswerTo(_) => "probes.unanswered",
            Claim::SilentRouters(_) => "routers.silent",
            Claim::SilentEnd { .. } => "target.silent",
            Claim::Proxy(_) => "proxy",
            Claim::NextHostOrProxy => "proxy.or_next_host",
            Claim::RepliesMadeAnew => "replies.made_anew",
            Claim::EchoMadeUp => "echo.made_up",
            Claim::ConnectionsMadeUp => "tcp.made_up",
            Claim::BlackHole { .. } => "mtu.black_hole",
            Claim::MtuTold(_) => "mtu.told",
            Claim::MtuUseless(_) => "mtu.useless",
            Claim::NoNarrowLink(_) => "mtu.not_needed",
            Claim::WrongQuote => "quote.wrong_packet",
            Claim::QuoteNotTranslated { .. } => "quote.not_translated",
            Claim::NothingAnswers => "nothing.answers",
        }
    }

    /// Is that something that is wrong with a NAT on the way?
    #[must_use]
    pub const fn is_amiss(&self) -> bool {
        match self {
            Claim::ErrorsComeThrough
            | Claim::SilentRouters(_)
            | Claim::SilentEnd { .. }
            | Claim::NextHostOrProxy
            | Claim::RepliesMadeAnew
            | Claim::MtuTold(_)
            | Claim::NoNarrowLink(_)
            | Claim::NothingAnswers => false,
            Claim::SocketNatSwallowsErrors
            | Claim::NoErrors
            | Claim::OnlyTheFirstHop
            | Claim::NotAbout(_)
            | Claim::NoAnswerTo(_)
            | Claim::Proxy(_)
            | Claim::EchoMadeUp
            | Claim::ConnectionsMadeUp
            | Claim::BlackHole { .. }
            | Claim::MtuUseless(_)
            | Claim::WrongQuote
            | Claim::QuoteNotTranslated { .. } => true,
        }
    }
}

impl Display for Claim {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Claim::ErrorsComeThrough => f.write_str("errors from routers beyond the first hop come through"),
            Claim::SocketNatSwallowsErrors => {
                f.write_str("the NAT in front of you is made of sockets and does not relay errors")
            }
            Claim::NoErrors => f.write_str("no error arrives here: the NAT in front of you does not relay errors"),
            Claim::OnlyTheFirstHop => f.write_str(
                "the first hop speaks for itself; no error from beyond it arrives: it does not relay errors",
            ),
            Claim::NotAbout(method) => {
                write!(f, "errors about {} do not come through, others do", noun(*method))
            }
            Claim::NoAnswerTo(method) => {
                let noun = noun(*method);
                write!(f, "{noun} is answered by nobody, others are: it is not let out, or nothing about it is let in")
            }
            Claim::SilentRouters(ttls) => {
                write!(f, "routers stay silent at {}; errors do come through", hops(ttls))
            }
            Claim::SilentEnd { after, methods } => {
                if *after > 0 {
                    write!(f, "routers answer up to hop {after}; ")?;
                }
                write!(f, "the target, or a filter before it, does not answer {}", list(methods, "or"))
            }
            Claim::Proxy(methods) => {
                write!(f, "a proxy answers for the target ({})", list(methods, "and"))
            }
            Claim::NextHostOrProxy => {
                f.write_str("every TTL reaches the target: it is the next host, or a proxy answers for it")
            }
            Claim::RepliesMadeAnew => {
                f.write_str("replies are made anew on their way: the NAT in front of you is made of sockets")
            }
            Claim::EchoMadeUp => f.write_str("echo replies are made up: an address at which there is nobody answers"),
            Claim::ConnectionsMadeUp => {
                f.write_str("TCP connections are accepted for an address at which there is nobody")
            }
            Claim::BlackHole { passes, vanishes } => {
                write!(f, "path MTU errors do not arrive: {passes} bytes pass, {vanishes} vanish, and nothing says so")
            }
            Claim::MtuTold(mtu) => write!(f, "path MTU errors arrive: {mtu} bytes"),
            Claim::MtuUseless(mtu) => write!(f, "path MTU errors arrive without an MTU that helps ({mtu} bytes)"),
            Claim::NoNarrowLink(length) => write!(f, "packets of {length} bytes arrive whole"),
            Claim::WrongQuote => {
                f.write_str("errors quote another packet of the flow than the one that they are about")
            }
            Claim::QuoteNotTranslated { count, names: (address, port) } => {
                write!(f, "{count} errors arrived that no socket got: they quote a packet from {address}")?;
                port.map_or(Ok(()), |port| write!(f, " port {port}"))?;
                f.write_str(", which is not ours: the quote was not translated back")
            }
            Claim::NothingAnswers => f.write_str("nothing answers, neither the target nor a router"),
        }
    }
}

/// A method in a sentence.
pub(super) const fn noun(method: Method) -> &'static str {
    match method {
        Method::Udp => "UDP",
        Method::Echo => "echo",
        Method::Tcp => "TCP",
    }
}

/// Methods in a sentence, `word` before the last.
pub(super) fn list(methods: &[Method], word: &str) -> String {
    let names: Vec<&str> = methods.iter().map(|method| noun(*method)).collect();
    match names.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, first)) => format!("{} {word} {last}", first.join(", ")),
    }
}

/// `hop 3`, `hops 3 to 5 and 7`.
pub(super) fn hops(ttls: &[u8]) -> String {
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    for ttl in ttls {
        match ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(*ttl) => *end = *ttl,
            _ => ranges.push((*ttl, *ttl)),
        }
    }
    let words: Vec<String> = ranges
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first} to {last}") })
        .collect();
    let plural = if ttls.len() > 1 { "hops" } else { "hop" };
    match words.split_last() {
        Some((last, first @ [_, ..])) => format!("{plural} {} and {last}", first.join(", ")),
        _ => format!("{plural} {}", words.join("")),
    }
}

/// Words for an outcome in a table.
#[must_use]
pub fn words(outcome: &Outcome, dest: IpAddr) -> String {
    match outcome {
        Outcome::Silent { .. } => "*".to_owned(),
        Outcome::Reply { ttl: Some(ttl) } => format!("reply, TTL {ttl}"),
        Outcome::Reply { ttl: None } => "reply".to_owned(),
        Outcome::Connected => "connected".to_owned(),
        Outcome::Refused => "refused".to_owned(),
        Outcome::NotSent(why) => format!("not sent: {why}"),
        Outcome::Error(error) => {
            let what = if is_time_exceeded(error) {
                String::new()
            } else if is_too_big(error) {
                format!(" too big, MTU {}", error.mtu)
            } else if error.from == Some(dest) {
                " port unreachable".to_owned()
            } else {
                format!(" type {} code {}", error.icmp_type, error.code)
            };
            let from = error.from.map_or_else(|| "?".to_owned(), |from| from.to_string());
            format!("{from}{what}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_in_words() {
        assert_eq!(hops(&[3]), "hop 3");
        assert_eq!(hops(&[2, 3, 4]), "hops 2 to 4");
        assert_eq!(hops(&[1, 3, 4, 7]), "hops 1, 3 to 4 and 7");
    }
}
