//! Why a text of rules is refused: the line, the word and what would be right.

use alloc::string::String;
use core::fmt;

/// Characters of a word that an error repeats.
const LONGEST: usize = 60;

/// A fault in a text of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// The word that is wrong; empty at the end of a line or text.
    pub word: String,
    /// What is wrong with it.
    pub kind: RuleErrorKind,
}

/// What can be wrong with a word of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The sentence of each is its documentation.
pub enum RuleErrorKind {
    UnknownLine,
    OutsideTable,
    TableTwice,
    NotCommitted,
    TrailingWord,
    UserChain,
    Policy,
    ChainTwice,
    UnclosedQuote,
    UnknownOption,
    UnknownMatch,
    MatchNeedsProtocol,
    UnknownTarget,
    DropTarget,
    NoTargetOf,
    NotNegatable,
    NegatesAll,
    Missing { what: &'static str },
    Twice,
    Family,
    Address,
    Mask,
    Interface,
    InterfaceInChain,
    Protocol,
    Ports,
    PortsNeedProtocol,
    TargetPortsNeedProtocol,
    TargetInChain { chains: &'static str },
    Range { form: &'static str },
    ShiftedPorts,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.word.is_empty() {
            let end = self.word.char_indices().nth(LONGEST).map(|(end, _)| end);
            let shown = end.and_then(|end| self.word.get(..end)).unwrap_or(&self.word);
            let more = if end.is_some() { "…" } else { "" };
            write!(f, "'{shown}{more}' ")?;
        }
        self.kind.fmt(f)
    }
}

impl core::error::Error for RuleError {}

impl fmt::Display for RuleErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RuleErrorKind::UnknownLine => {
                "begins no line of iptables-save; these are #comment, *table, :CHAIN POLICY, -A CHAIN …, and COMMIT"
            }
            RuleErrorKind::OutsideTable => "is outside a table; begin the table with a line *nat",
            RuleErrorKind::TableTwice => "is there a second time; keep one of the two",
            RuleErrorKind::NotCommitted => {
                "expected COMMIT: the text ends, or another table begins, within a table; save the rules again"
            }
            RuleErrorKind::TrailingWord => "is one word too many in this line",
            RuleErrorKind::UserChain => {
                "is no chain of the nat table that packets meet first; supported are PREROUTING, INPUT, OUTPUT and \
                 POSTROUTING, and no chains of one's own"
            }
            RuleErrorKind::Policy => "is no policy of a chain; supported are ACCEPT and DROP",
            RuleErrorKind::ChainTwice => "is declared twice or behind its rules; declare each chain once, at the start",
            RuleErrorKind::UnclosedQuote => "opens a quotation that this line does not close",
            RuleErrorKind::UnknownOption => {
                "is not supported; supported are -s, -d, -i, -o, -p, -m tcp|udp|comment, --sport, --dport, --comment, -j, \
                 and the options of MASQUERADE, SNAT, DNAT and REDIRECT"
            }
            RuleErrorKind::UnknownMatch => "is a match that is not supported; supported are tcp, udp and comment",
            RuleErrorKind::MatchNeedsProtocol => "needs its protocol in the same rule: -p tcp -m tcp, -p udp -m udp",
            RuleErrorKind::UnknownTarget => {
                "is a target that is not supported; supported are MASQUERADE, SNAT, DNAT, REDIRECT, ACCEPT and RETURN"
            }
            RuleErrorKind::DropTarget => "is refused by iptables in the nat table; the filter table drops packets",
            RuleErrorKind::NoTargetOf => "is no option of the target of this rule",
            RuleErrorKind::NotNegatable => "cannot be turned round with !",
            RuleErrorKind::NegatesAll => "with ! in front never matches",
            RuleErrorKind::Missing { what } => return write!(f, "expected {what}"),
            RuleErrorKind::Twice => "is there a second time in this rule",
            RuleErrorKind::Family => "is an address of the other family; IPv4 and IPv6 rules are in files of their own",
            RuleErrorKind::Address => "is no address; host names are not looked up",
            RuleErrorKind::Mask => "has no good mask; supported are prefix lengths and leading ones, like 255.255.255.0",
            RuleErrorKind::Interface => "is no interface name; those have 1 to 15 characters, + at the end for any rest",
            RuleErrorKind::InterfaceInChain => {
                "is refused by iptables in this chain; -i goes with PREROUTING and INPUT, -o with OUTPUT and POSTROUTING"
            }
            RuleErrorKind::Protocol => {
                "is no protocol; supported are numbers up to 255 and tcp, udp, icmp, ipv6-icmp, sctp, gre, esp, ah, \
                 udplite, dccp, igmp, ospf and all"
            }
            RuleErrorKind::Ports => "is no port or range of ports FIRST:LAST; services are not looked up by name",
            RuleErrorKind::PortsNeedProtocol => "needs -p tcp or -p udp in the same rule",
            RuleErrorKind::TargetPortsNeedProtocol => "names ports: that needs -p tcp, udp, sctp or dccp in the same rule",
            RuleErrorKind::TargetInChain { chains } => {
                return write!(f, "is refused by iptables in this chain; it goes with {chains}");
            }
            RuleErrorKind::Range { form } => return write!(f, "is not of the form {form}"),
            RuleErrorKind::ShiftedPorts => "moves a range of ports onto another; that is not supported",
        })
    }
}
