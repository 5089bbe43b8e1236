//! What a rule asks of a packet.

use alloc::string::String;
use alloc::vec::Vec;

use crate::direction::{CtInfo, Direction};
use crate::packet::{Packet, be16};
use crate::status::Status;
use crate::tuple::{Addr, L3};

/// A condition, possibly turned round by `!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<T> {
    /// What is compared with.
    pub value: T,
    /// Must it be different?
    pub negated: bool,
}

impl<T> Condition<T> {
    fn is_met(&self, met: impl FnOnce(&T) -> bool) -> bool {
        met(&self.value) != self.negated
    }

    /// As [`Condition::is_met`], never for what the packet does not have.
    fn is_met_by<V>(&self, value: Option<V>, met: impl FnOnce(V, &T) -> bool) -> bool {
        value.is_some_and(|value| self.is_met(|condition| met(value, condition)))
    }
}

/// The conditions of a rule; one that is not set always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// `-s`
    pub src: Option<Condition<Network>>,
    /// `-d`
    pub dst: Option<Condition<Network>>,
    /// `-i`
    pub in_interface: Option<Condition<String>>,
    /// `-o`
    pub out_interface: Option<Condition<String>>,
    /// `-p`
    pub protocol: Option<Condition<u8>>,
    /// `--sport`: first and last.
    pub sport: Option<Condition<(u16, u16)>>,
    /// `--dport`: first and last.
    pub dport: Option<Condition<(u16, u16)>>,
    /// `--tcp-flags`: those that are looked at, and those of them that are set.
    pub tcp_flags: Option<Condition<(u8, u8)>>,
    /// `--icmp-type`, `--icmpv6-type`: type and code.
    pub icmp_type: Option<Condition<(u8, Option<u8>)>>,
    /// `-m mark --mark`
    pub mark: Option<Condition<Masked>>,
    /// `-m connmark --mark`
    pub connmark: Option<Condition<Masked>>,
    /// `-m conntrack` and `-m state`, each by itself: what several say together is not what one says (OBS-01).
    pub conntrack: Vec<ConntrackMatch>,
}

/// An address and the number of its bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: Addr,
    /// Bits that count, from the left.
    pub prefix: u8,
}

impl Network {
    /// Is `address` in it?
    #[must_use]
    pub fn contains(&self, address: Addr) -> bool {
        let (own, other) = (u128::from_be_bytes(self.address.0), u128::from_be_bytes(address.0));
        let differing = own ^ other;
        self.prefix == 0 || differing >> (128 - u32::from(self.prefix.min(128))) == 0
    }
}

/// Bits of a mark, and which of them count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The bits.
    pub value: u32,
    /// Those that count.
    pub mask: u32,
}

impl Masked {
    /// Does `mark` have the bits?
    #[must_use]
    pub const fn holds(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }

    /// `--set-xmark`: clears the bits of the mask, then toggles those of the value.
    #[must_use]
    pub const fn set(self, mark: u32) -> u32 {
        (mark & !self.mask) ^ self.value
    }
}

/// `-m conntrack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackMatch {
    /// `--ctstate`
    pub states: Option<Condition<States>>,
    /// `--ctdir`
    pub direction: Option<Direction>,
    /// `--ctstatus`
    pub status: Option<Condition<Status>>,
}

/// A set of states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States(u8);

impl States {
    /// The states that rules know, by their names. The last two are about what NAT did to the flow.
    pub const NAMES: [(States, &'static str); 7] = [
        (States::INVALID, "INVALID"),
        (States::NEW, "NEW"),
        (States::RELATED, "RELATED"),
        (States::ESTABLISHED, "ESTABLISHED"),
        (States::UNTRACKED, "UNTRACKED"),
        (States::SNAT, "SNAT"),
        (States::DNAT, "DNAT"),
    ];
    const INVALID: States = States(1 << 0);
    const NEW: States = States(1 << 1);
    const RELATED: States = States(1 << 2);
    const ESTABLISHED: States = States(1 << 3);
    const UNTRACKED: States = States(1 << 4);
    const SNAT: States = States(1 << 5);
    const DNAT: States = States(1 << 6);

    /// The set with the states of another one, too.
    #[must_use]
    pub const fn with(self, other: States) -> States {
        States(self.0 | other.0)
    }

    /// `XT_CONNTRACK_STATE_BIT`: the states that a packet is in.
    const fn of(seen: &Seen) -> States {
        let state = match seen.ctinfo {
            CtInfo::New => States::NEW,
            CtInfo::Related | CtInfo::RelatedReply => States::RELATED,
            CtInfo::Established | CtInfo::EstablishedReply => States::ESTABLISHED,
            CtInfo::Untracked => States::UNTRACKED,
            CtInfo::Invalid => States::INVALID,
        };
        let snat = if seen.status.contains(Status::SRC_NAT) { States::SNAT } else { States(0) };
        let dnat = if seen.status.contains(Status::DST_NAT) { States::DNAT } else { States(0) };
        state.with(snat).with(dnat)
    }
}

impl ConntrackMatch {
    /// `conntrack_mt`. Of a packet without an entry only the state is asked, and a rule that does not ask for it does not
    /// match (OBS-01).
    fn matches(&self, seen: &Seen) -> bool {
        let state = |states: &States| states.0 & States::of(seen).0 != 0;
        if self.states.is_some_and(|states| !states.is_met(state)) {
            return false;
        }
        let Some(direction) = seen.ctinfo.direction() else { return self.states.is_some() };
        self.direction.is_none_or(|wanted| wanted == direction)
            && self.status.is_none_or(|status| status.is_met(|bits| seen.status.intersects(*bits)))
    }
}

/// What conntrack says about a packet at a hook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The word; INVALID and UNTRACKED where no entry is attached.
    pub(crate) ctinfo: CtInfo,
    /// Status bits of its entry.
    pub(crate) status: Status,
    /// Mark of its entry.
    pub(crate) mark: u32,
}

/// What a rule may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// The packet as it is at this hook.
    pub(crate) packet: &'a Packet<'a>,
    /// Names of the interfaces that it came in by and leaves by.
    pub(crate) interfaces: (Option<&'a str>, Option<&'a str>),
    /// Its mark.
    pub(crate) mark: u32,
    /// What conntrack says about it.
    pub(crate) seen: Seen,
}

impl Matches {
    /// Does the rule apply to the packet?
    #[must_use]
    pub(crate) fn matches(&self, subject: &Subject<'_>) -> bool {
        let Subject { packet, interfaces: (in_interface, out_interface), mark, seen } = subject;
        let transport = packet.transport_for_rules();
        let protonum = transport.map(|transport| transport.protonum);
        let l4 = transport.and_then(|transport| packet.bytes.get(transport.offset..)).unwrap_or(&[]);
        let within = |port: u16, &(first, last): &(u16, u16)| first <= port && port <= last;
        let icmp = || Some((*l4.first()?, *l4.get(1)?));
        let entry = seen.ctinfo.direction().is_some();
        self.src.as_ref().is_none_or(|c| c.is_met(|network| network.contains(packet.src)))
            && self.dst.as_ref().is_none_or(|c| c.is_met(|network| network.contains(packet.dst)))
            && self.in_interface.as_ref().is_none_or(|c| c.is_met(|p| interface_matches(p, *in_interface)))
            && self.out_interface.as_ref().is_none_or(|c| c.is_met(|p| interface_matches(p, *out_interface)))
            && self.protocol.as_ref().is_none_or(|c| c.is_met_by(protonum, |number, wanted| number == *wanted))
            && self.sport.as_ref().is_none_or(|c| c.is_met_by(be16(l4, 0), within))
            && self.dport.as_ref().is_none_or(|c| c.is_met_by(be16(l4, 2), within))
            && self
                .tcp_flags
                .as_ref()
                .is_none_or(|c| c.is_met_by(l4.get(13), |flags, (mask, set)| flags & mask == *set))
            && self.icmp_type.as_ref().is_none_or(|c| {
                c.is_met_by(icmp(), |(icmp_type, code), (wanted, only)| {
                    icmp_type == *wanted && only.is_none_or(|only| code == only)
                })
            })
            && self.mark.as_ref().is_none_or(|c| c.is_met(|masked| masked.holds(*mark)))
            && self.connmark.as_ref().is_none_or(|c| entry && c.is_met(|masked| masked.holds(seen.mark)))
            && self.conntrack.iter().all(|conntrack| conntrack.matches(seen))
    }
}

/// An interface name, or a pattern that ends in `+`.
fn interface_matches(pattern: &str, name: Option<&str>) -> bool {
    let name = name.unwrap_or("");
    match pattern.strip_suffix('+') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// Bits of an address of the family.
#[must_use]
pub const fn address_bits(l3num: L3) -> u8 {
    match l3num {
        L3::V4 => 32,
        L3::V6 => 128,
    }
}
