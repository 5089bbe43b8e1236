//! What the rules of raw, mangle and filter do.

use super::matches::Masked;
use super::{ChainId, Course};
use crate::direction::Direction;
use crate::event::Causes;
use crate::template::{HelperName, Template};
use crate::tuple::L3;
use crate::zone::Zone;

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The table is done with it.
    Accept,
    /// It ends here.
    Drop,
    /// It ends here, and its sender is told.
    Reject(Reject),
    /// Back to where the chain was jumped to from.
    Return,
    /// Into another chain and back.
    Jump(ChainId),
    /// Into another chain.
    Goto(ChainId),
    /// Conntrack leaves the packet alone (NOTRACK-01). Only in raw.
    NoTrack,
    /// Conntrack treats the packet in this way. Only in raw.
    Ct(Ct),
    /// The mark of the packet changes.
    Mark(Masked),
    /// The mark of the flow changes.
    SetConnMark(Masked),
    /// The mark of the packet goes to the flow.
    SaveMark(Masks),
    /// The mark of the flow goes to the packet.
    RestoreMark(Masks),
    /// Somebody is told, the packet goes on: LOG and NFLOG.
    Log,
}

impl Target {
    /// Which way the packet takes.
    #[must_use]
    pub const fn course(&self) -> Course {
        match *self {
            Target::Accept | Target::Drop | Target::Reject(_) => Course::End,
            Target::Return => Course::Return,
            Target::Jump(to) => Course::Jump(to),
            Target::Goto(to) => Course::Goto(to),
            Target::NoTrack
            | Target::Ct(_)
            | Target::Mark(_)
            | Target::SetConnMark(_)
            | Target::SaveMark(_)
            | Target::RestoreMark(_)
            | Target::Log => Course::Next,
        }
    }
}

/// The bits that `--save-mark` and `--restore-mark` take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masks {
    /// Of the packet's mark.
    pub packet: u32,
    /// Of the flow's mark.
    pub flow: u32,
}

/// `-j CT` without `--notrack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ct {
    /// Where the number of the zone comes from; unset is zone 0.
    pub zone: Option<ZoneFrom>,
    /// The only direction that is in the zone.
    pub only: Option<Direction>,
    /// `--helper`
    pub helper: Option<HelperName>,
    /// `--ctevents`
    pub events: Option<Causes>,
}

/// Where the number of a zone comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneFrom {
    /// The rule.
    Number(u16),
    /// The low bits of the packet's mark when it comes to conntrack (ZONE-04).
    Mark,
}

impl Ct {
    /// `nf_ct_zone_tmpl`: the template of a packet that comes to conntrack with this mark.
    #[must_use]
    pub const fn template(&self, mark: u32) -> Template {
        let id = match self.zone {
            Some(ZoneFrom::Number(id)) => id,
            Some(ZoneFrom::Mark) => mark as u16,
            None => 0,
        };
        Template { zone: Zone { id, only: self.only }, helper: self.helper, events: self.events }
    }
}

/// What a rejected packet's sender is told, by the name that `iptables-save` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject(&'static str);

impl Reject {
    /// A TCP reset.
    pub const RESET: Reject = Reject("tcp-reset");
    /// What IPv4 senders are told when the rule does not say.
    pub const DEFAULT_V4: Reject = Reject("icmp-port-unreachable");
    /// The same for IPv6.
    pub const DEFAULT_V6: Reject = Reject("icmp6-port-unreachable");
    /// For IPv4, each with its shorter name.
    const V4: [(Reject, &'static str); 8] = [
        (Reject("icmp-net-unreachable"), "net-unreach"),
        (Reject("icmp-host-unreachable"), "host-unreach"),
        (Reject("icmp-proto-unreachable"), "proto-unreach"),
        (Reject::DEFAULT_V4, "port-unreach"),
        (Reject("icmp-net-prohibited"), "net-prohib"),
        (Reject("icmp-host-prohibited"), "host-prohib"),
        (Reject("icmp-admin-prohibited"), "admin-prohib"),
        (Reject::RESET, "tcp-rst"),
    ];
    /// For IPv6.
    const V6: [(Reject, &'static str); 7] = [
        (Reject("icmp6-no-route"), "no-route"),
        (Reject("icmp6-adm-prohibited"), "adm-prohibited"),
        (Reject("icmp6-addr-unreachable"), "addr-unreach"),
        (Reject::DEFAULT_V6, "port-unreach"),
        (Reject("icmp6-policy-fail"), "policy-fail"),
        (Reject("icmp6-reject-route"), "reject-route"),
        (Reject::RESET, "tcp-reset"),
    ];

    /// The kind with this name; `None` when the family has none.
    #[must_use]
    pub fn named(name: &str, l3num: L3) -> Option<Reject> {
        let known: &[(Reject, &str)] = match l3num {
            L3::V4 => &Reject::V4,
            L3::V6 => &Reject::V6,
        };
        known.iter().find(|(kind, short)| kind.0 == name || *short == name).map(|(kind, _)| *kind)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }
}
