//! Why a text of rules is refused: the line, the word and what would be right.

use alloc::string::String;
use core::fmt;

use crate::rules::TableName;

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
    NoChain { table: TableName },
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
    TargetInTable { table: TableName },
    TooDeep,
    SaysNothing,
    OtherFamily,
    States,
    StatusBits,
    CtDirection,
    Mark,
    TcpFlags,
    IcmpType,
    RejectWith,
    ResetNeedsTcp,
    Zone,
    ZoneTwice,
    Helper,
    Events,
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
            RuleErrorKind::OutsideTable => "is outside a table; begin the table with a line such as *nat",
            RuleErrorKind::TableTwice => "is there a second time; keep one of the two",
            RuleErrorKind::NotCommitted => {
                "expected COMMIT: the text ends, or another table begins, within a table; save the rules again"
            }
            RuleErrorKind::TrailingWord => "is one word too many in this line",
            RuleErrorKind::NoChain { table } => {
                return write!(
                    f,
                    "is no chain of the {table} table; declare a chain of your own with a line :NAME - before it is used"
                );
            }
            RuleErrorKind::TooDeep => "leads into a circle of chains, or into more than 15 chains within one another",
            RuleErrorKind::Policy => "is no policy of a chain; supported are ACCEPT and DROP",
            RuleErrorKind::ChainTwice => "is declared twice or behind its rules; declare each chain once, at the start",
            RuleErrorKind::UnclosedQuote => "opens a quotation that this line does not close",
            RuleErrorKind::UnknownOption => {
                "is not supported here; supported are -s, -d, -i, -o, -p, --sport, --dport, --tcp-flags, --syn, --icmp-type, \
                 --icmpv6-type, -m conntrack with --ctstate, --ctdir and --ctstatus, -m state --state, -m mark|connmark \
                 --mark, -m comment, -j, -g, and the options of targets"
            }
            RuleErrorKind::UnknownMatch => {
                "is a match that is not supported; supported are tcp, udp, icmp, icmp6, conntrack, state, mark, connmark and \
                 comment"
            },
            RuleErrorKind::MatchNeedsProtocol => "needs its protocol in the same rule: -p tcp, udp, icmp or ipv6-icmp",
            RuleErrorKind::UnknownTarget => {
                "is no chain of this table and no target that is supported; supported are ACCEPT, RETURN, LOG and NFLOG, in nat \
                 MASQUERADE, SNAT, DNAT and REDIRECT, elsewhere DROP, MARK and CONNMARK, in raw CT and NOTRACK, in filter \
                 REJECT"
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
            RuleErrorKind::TargetPortsNeedProtocol => "names ports: that needs -p tcp, udp, sctp, dccp or icmp in the same rule",
            RuleErrorKind::TargetInChain { chains } => {
                return write!(f, "is refused by iptables in this chain; it goes with {chains}");
            }
            RuleErrorKind::TargetInTable { table } => {
                return write!(f, "is refused by iptables in this table; it goes with {table}");
            }
            RuleErrorKind::SaysNothing => "says nothing; supported are --ctstate, --ctdir and --ctstatus, and --state of state",
            RuleErrorKind::OtherFamily => "belongs to the other family; IPv4 has --icmp-type, IPv6 --icmpv6-type",
            RuleErrorKind::States => {
                "is no list of states; supported are INVALID, NEW, RELATED, ESTABLISHED, UNTRACKED, SNAT and DNAT, with commas"
            }
            RuleErrorKind::StatusBits => {
                "is no list of status bits; supported are NONE, EXPECTED, SEEN_REPLY, ASSURED and CONFIRMED, with commas"
            }
            RuleErrorKind::CtDirection => "is no direction; supported are ORIGINAL and REPLY",
            RuleErrorKind::Mark => "is no mark; write VALUE or VALUE/MASK, decimal or with 0x in front",
            RuleErrorKind::TcpFlags => {
                "is no list of TCP flags; supported are SYN, ACK, FIN, RST, URG, PSH, ALL and NONE, with commas"
            }
            RuleErrorKind::IcmpType => {
                "is no type of ICMP; supported are TYPE, TYPE/CODE, any, and the names echo-request, echo-reply, \
                 destination-unreachable and time-exceeded"
            }
            RuleErrorKind::RejectWith => {
                "is nothing that a REJECT of this family tells a sender; see --reject-with in iptables-extensions(8)"
            }
            RuleErrorKind::ResetNeedsTcp => "needs -p tcp in the same rule",
            RuleErrorKind::Zone => "is no zone; supported are numbers up to 65535 and mark",
            RuleErrorKind::ZoneTwice => "is a second zone; a rule sets one, for both directions or for one of them",
            RuleErrorKind::Helper => "is no name of a helper; those have 1 to 15 characters",
            RuleErrorKind::Events => {
                "is no list of events; supported are new, related, destroy, reply, assured, protoinfo, helper, mark, \
                 natseqinfo and secmark, with commas"
            }
            RuleErrorKind::Range { form } => return write!(f, "is not of the form {form}"),
            RuleErrorKind::ShiftedPorts => "moves a range of ports onto another, which only DNAT does",
        })
    }
}
