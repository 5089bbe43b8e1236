//! Steps and causes as sentences.

use core::fmt::{self, Display, Formatter};
use core::net::IpAddr;

use super::icmp::Named;
use super::{beyond, fragment, helper, sctp, tcp};
use crate::confirm::ConfirmDrop;
use crate::direction::CtInfo;
use crate::hook::{DropCause, Unseen};
use crate::nat::NatDrop;
use crate::network::Network;
use crate::table::TableFull;
use crate::template::Template;
use crate::trace::{BeyondStep, Part, Protected, Ruled, Step, TimeoutRule, Unchecked, Update};
use crate::zone::Zone;

/// A step in words that name the interfaces of a network.
#[derive(Clone, Copy, Debug)]
pub struct InNetwork<'a> {
    /// The step.
    pub step: &'a Step,
    /// Where its interfaces have their names from.
    pub network: &'a Network,
}

impl Display for InNetwork<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::RoutedTo { interface } => match self.network.interface(*interface) {
                Some(interface) => write!(f, "routing: forwarded out of {}", interface.name),
                None => self.step.fmt(f),
            },
            Step::Beyond(BeyondStep::Hairpin { interface }) => beyond::hairpin(self.network.name(Some(*interface)), f),
            _ => self.step.fmt(f),
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Step::Arrived { hook, bytes } => write!(f, "{bytes} bytes at {hook}, conntrack"),
            Step::ChecksumRight(protected) => write!(f, "{protected} checksum: right"),
            Step::ChecksumAbsent => f.write_str("UDP checksum: 0, the sender left it out"),
            Step::ChecksumUnchecked(why) => f.write_str(match why {
                Unchecked::Switched => "checksums: not verified, nf_conntrack_checksum is 0",
                Unchecked::Hook => "checksums: not verified, only PREROUTING does",
                Unchecked::Cut => "checksums: not verified, the capture does not hold the whole packet",
                Unchecked::Trusted => {
                    "checksums: not verified, the device or the sender on this machine vouches for them"
                }
            }),
            Step::AlreadyAttached => f.write_str(
                "this host answers another packet with it: it carries the entry of that packet and is not looked up",
            ),
            Step::IcmpError { l3num, icmp_type, code } => {
                let named = Named { l3num, icmp_type, code };
                write!(f, "an ICMP error, {named}: not tracked by itself, but by the packet that it quotes")
            }
            Step::Quoted { offset, bytes, tuple } => {
                write!(f, "quoted packet ({bytes} bytes from byte {offset}): {tuple}")
            }
            Step::QuotedInverted { inverted } => {
                write!(f, "turned round, because the error travels against it: {inverted}")
            }
            Step::QuotedHit { id, direction, died } => write!(
                f,
                "this is the {direction} tuple of entry #{id}: a packet in {died} direction died, its error goes in {direction} direction"
            ),
            Step::HostCheck { outer } => write!(f, "the error goes to {outer}, as packets of the flow do: it belongs"),
            Step::Related { id, ctinfo } => write!(
                f,
                "{ctinfo} to entry #{id}; the entry itself is neither refreshed nor counted nor changed by an error"
            ),
            Step::Exempt { icmp_type } => {
                let named = Named { l3num: crate::tuple::L3::V6, icmp_type, code: 0 };
                write!(f, "{named} belongs to the link and is exempt from tracking")
            }
            Step::TupleRead { tuple } => write!(f, "tuple: {tuple}"),
            Step::Hit { id, direction } => write!(f, "look-up: the {direction} tuple of entry #{id}"),
            Step::Created { reply } => {
                write!(f, "look-up: not in the table, a flow begins; its answer would be {reply}")
            }
            Step::TableFull(full) => {
                write!(f, "look-up: not in the table, and {full}: one that is not ASSURED has to go")
            }
            Step::EarlyDropped { id, original } => {
                write!(f, "entry #{id} ({original}) is deleted before its time, because the table is full")
            }
            Step::Expected { master, helper } => write!(
                f,
                "it was expected by helper {helper} of entry #{master}: it belongs to that flow, and has its mark"
            ),
            Step::Helper(step) => helper::step(&step, f),
            Step::ExpectationMade { tuple, mask, helper, seconds } => {
                helper::expectation(&tuple, mask, f)?;
                write!(f, " is expected for {seconds} s, by helper {helper}")
            }
            Step::ExpectationReplaced { tuple } => {
                write!(f, "expectation of {tuple}: it is there already, and is made anew")
            }
            Step::ExpectationEvicted { tuple, max } => {
                write!(f, "expectation of {tuple}: the oldest of {max}, which are all there may be; it goes")
            }
            Step::ExpectationRemoved { tuple } => write!(f, "expectation of {tuple}: no longer needed"),
            Step::SeqAdjusted { seq, ack, blocks } => {
                let (from, to) = seq;
                write!(f, "sequence number {from} => {to}")?;
                if let Some((from, to)) = ack {
                    write!(f, ", acknowledgment {from} => {to}")?;
                }
                match blocks {
                    0 => Ok(()),
                    1 => f.write_str(", and 1 SACK block"),
                    _ => write!(f, ", and {blocks} SACK blocks"),
                }
            }
            Step::Decided { ctinfo } => write!(f, "{ctinfo}: {}", meaning(ctinfo)),
            Step::Fragment(step) => fragment::step(&step, f),
            Step::Tcp(step) => tcp::step(&step, f),
            Step::Sctp(step) => sctp::step(&step, f),
            Step::Timeout { rule, seconds } => write!(f, "timeout {seconds} s: {rule}"),
            Step::NotRefreshed => f.write_str("accepted, but neither counted nor refreshing the timeout"),
            Step::SeenReply => f.write_str("the first packet in reply direction: the flow is no longer UNREPLIED"),
            Step::Assured => f.write_str("the flow is now ASSURED"),
            Step::Reopened { id } => {
                write!(f, "entry #{id} belongs to an older connection: deleted, the packet is looked up again")
            }
            Step::Killed { id } => write!(f, "entry #{id} ends with this packet"),
            Step::Ruled { table, hook, line: Some(line), did } => {
                write!(f, "{table} {hook}: the rule in line {line} {did}")
            }
            Step::Ruled { table, hook, line: None, did } => write!(f, "{table} {hook}: the policy {did}"),
            Step::NatAsked { hook, manip, line: Some(line) } => {
                write!(f, "nat {hook}: the rule in line {line} decides about the {manip}")
            }
            Step::NatAsked { hook, manip, line: None } => {
                write!(f, "nat {hook}: no rule matches, the {manip} is kept (null binding)")
            }
            Step::NatKept { manip } => write!(f, "nat: the {manip} of this flow was decided before"),
            Step::NatBound { manip, leaves_as, port_taken } => {
                write!(f, "nat: with its {manip} bound the flow leaves as {leaves_as}")?;
                if port_taken { f.write_str("; the port it had is taken by another flow") } else { Ok(()) }
            }
            Step::NatMappingReused { leaves_as } => {
                write!(
                    f,
                    "nat: another flow from this source was translated so, and this one follows: it leaves as {leaves_as}"
                )
            }
            Step::NatEvicted { id } => write!(
                f,
                "nat: the wanted tuple belongs to entry #{id}, a connection that is over and whose numbers this one has \
                 passed: deleted"
            ),
            Step::Beyond(step) => beyond::step(&step, f),
            Step::Learnt { id, reply } => {
                write!(f, "the kernel confirmed the flow as entry #{id}; its answers are {reply}")
            }
            Step::NatBypassed => f.write_str("nat: no entry, so nothing is translated"),
            Step::Rewritten { part, manip, from, to } => {
                write!(f, "nat: {part} {manip} {} => {}", Endpoint(from), Endpoint(to))
            }
            Step::ChecksumUpdated { part, protected, how, from, to } => {
                let how = match how {
                    Update::Incremental => "by the difference",
                    Update::Full => "computed anew over the whole message",
                };
                let width = if protected == Protected::Sctp { 10 } else { 6 };
                write!(f, "nat: {part} {protected} checksum {from:#0width$x} => {to:#0width$x}, {how}")
            }
            Step::ErrorUntranslated { hook } => {
                write!(f, "nat {hook}: nothing to translate on this side of the flow")
            }
            Step::RoutedLocal { to } => write!(f, "routing: {to} is this host"),
            Step::RoutedTo { interface } => write!(f, "routing: forwarded out of interface {interface}"),
            Step::TtlDecremented { to } => write!(f, "TTL or hop limit decremented to {to}"),
            Step::Confirmed { id } => write!(f, "confirmed: the flow is in the table as entry #{id}"),
            Step::ClashMerged { id } => write!(
                f,
                "clash: another packet of the flow was confirmed first; this one goes on with its entry #{id}"
            ),
            Step::ClashInserted { id } => write!(
                f,
                "clash: another packet of the flow was confirmed first, with another binding; entry #{id} takes the answers \
                 to this one for a second, and no dump shows it"
            ),
            Step::EntryVanished => f.write_str(
                "the packet ended before its flow was confirmed: no entry remains, and no event tells of it",
            ),
        }
    }
}

/// What a ctinfo says about a packet.
fn meaning(ctinfo: CtInfo) -> &'static str {
    match ctinfo {
        CtInfo::New => "original direction, and no reply has been seen",
        CtInfo::Established => "original direction of a flow that has seen a reply",
        CtInfo::EstablishedReply => "reply direction",
        CtInfo::Related => "about a flow, in its original direction",
        CtInfo::RelatedReply => "about a flow, in its reply direction",
        CtInfo::Invalid => "no entry is attached",
        CtInfo::Untracked => "exempt",
    }
}

/// An address, with the port or id where there is one.
struct Endpoint((IpAddr, Option<u16>));

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            (IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
            (address, Some(port)) => write!(f, "{address}:{port}"),
            (address, None) => write!(f, "{address}"),
        }
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Outer => "outer",
            Part::Quoted => "quoted",
        })
    }
}

impl Display for Protected {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protected::Ipv4Header => "IP header",
            Protected::Udp => "UDP",
            Protected::Tcp => "TCP",
            Protected::Icmp => "ICMP",
            Protected::Udplite => "UDP-Lite",
            Protected::Sctp => "SCTP",
        })
    }
}

impl Display for TimeoutRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeoutRule::Unreplied => "no reply was seen before this packet",
            TimeoutRule::Young => "replied, but not yet a stream: it began less than two seconds ago",
            TimeoutRule::Stream => "a stream: replied, and older than two seconds",
            TimeoutRule::Replied => "a reply was seen before this packet",
            TimeoutRule::Icmp => "an ICMP query",
            TimeoutRule::Generic => "a protocol without a tracker of its own",
        })
    }
}

impl Display for DropCause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DropCause::TtlExceeded => f.write_str("its TTL is used up here; this host answers with time exceeded"),
            DropCause::NoRoute => f.write_str("no route leads to its destination"),
            DropCause::SourceScope => {
                f.write_str("its source is an address of its own link only, which is not forwarded")
            }
            DropCause::TooBig { mtu } => {
                write!(f, "it is longer than the {mtu} bytes of the way out; this host answers with that MTU")
            }
            DropCause::Unfragmentable => f.write_str("it must leave in fragments, and its headers do not allow that"),
            DropCause::Rule { table, hook, line, reject } => {
                match line {
                    Some(line) => write!(f, "the {table} rule in line {line}, in {hook}, ")?,
                    None => write!(f, "the policy of {table} {hook} ")?,
                }
                match reject {
                    Some(kind) => write!(f, "rejects it with {}", kind.name()),
                    None => f.write_str("drops it"),
                }
            }
            DropCause::Nat(cause) => cause.fmt(f),
            DropCause::Helper(cause) => cause.fmt(f),
            DropCause::SeqAdjust(cause) => cause.fmt(f),
            DropCause::Confirm(cause) => cause.fmt(f),
            DropCause::TableFull(full) => {
                write!(f, "{full}, and none near the new one may go: nf_conntrack: table full … dropping packet")
            }
        }
    }
}

impl Display for NatDrop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            NatDrop::Rule { line: Some(line) } => write!(f, "the nat rule in line {line} drops it"),
            NatDrop::Rule { line: None } => f.write_str("the policy of the nat chain drops it"),
            NatDrop::NoAddress => f.write_str("nat: the interface has no address to translate to"),
            NatDrop::InterfaceChanged => {
                f.write_str("nat: a masqueraded flow now leaves by another interface; its entry is deleted")
            }
            NatDrop::ErrorChecksum => {
                f.write_str("nat: the ICMP checksum of the error is wrong, and nat looks even when conntrack does not")
            }
            NatDrop::Redirect => {
                f.write_str("nat: a redirect about a translated flow would lead its packets past the NAT")
            }
            NatDrop::GreVersion(version) => write!(f, "nat: GRE version {version} cannot be translated"),
            NatDrop::TooShort { need, have } => {
                write!(f, "nat: {need} bytes are needed to translate it and {have} are there")
            }
            asked_for => beyond::drop(asked_for, f),
        }
    }
}

impl Display for Ruled {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Ruled::Accepted => f.write_str("accepts the packet"),
            Ruled::Dropped => f.write_str("drops the packet"),
            Ruled::Rejected(kind) => write!(f, "rejects the packet, its sender gets a {}", kind.name()),
            Ruled::Returned => f.write_str("leads back"),
            Ruled::Jumped => f.write_str("leads into another chain"),
            Ruled::Logged => f.write_str("logs the packet"),
            Ruled::Untracked => f.write_str("exempts the packet from tracking"),
            Ruled::Template(template) => write!(f, "gives conntrack a template: {template}"),
            Ruled::Marked { to } => write!(f, "makes the mark of the packet {to:#x}"),
            Ruled::FlowMarked { to } => write!(f, "makes the mark of the flow {to:#x}"),
            Ruled::Ignored => f.write_str("matches, but changes nothing"),
        }
    }
}

impl Display for Template {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.zone {
            Zone { id, only: None } => write!(f, "zone {id}")?,
            Zone { id, only: Some(direction) } => write!(f, "zone {id} for the {direction} direction")?,
        }
        match self.helper {
            Some(helper) => write!(f, ", helper {helper}"),
            None => Ok(()),
        }
    }
}

impl Display for ConfirmDrop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ConfirmDrop::Clash { direction } => {
                write!(f, "another flow holds its {direction} tuple, so its entry cannot be confirmed")
            }
        }
    }
}

impl Display for TableFull {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "the table is full, with {} entries where {} may be", self.count, self.limit)
    }
}

impl Display for Unseen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Unseen::Packet(error) => error.fmt(f),
            Unseen::Raw { .. } => f.write_str("the raw table is in front of conntrack, which did not see it"),
            Unseen::TableFull(full) => write!(f, "{full}: conntrack gives the packet no entry and drops it"),
            Unseen::Fragment(waiting) => waiting.fmt(f),
            Unseen::Refused(refused) => refused.fmt(f),
            Unseen::NotGathered(fragment) => {
                write!(f, "{fragment} that its sender did not want gathered: conntrack does not look at it")
            }
        }
    }
}
