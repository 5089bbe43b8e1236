//! A host that speaks: to packets for itself, and about those that it did not let pass.

use ctwhy_core::conntrack::Tracked;
use ctwhy_core::hook::{DropCause, Engine};
use ctwhy_core::network::Destination;
use ctwhy_core::packet::Packet;
use ctwhy_core::random::Random;
use ctwhy_core::rules::target::Reject;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Addr, L3};

use crate::answer::{self, Complaint};
use crate::limit::{Asked, Limits};
use crate::local::{self, Reply};
use crate::statistics::{Words, count};

/// What this host says because of a packet.
pub(crate) struct Said {
    pub(crate) bytes: Vec<u8>,
    /// For the statistics.
    pub(crate) what: &'static str,
    /// What it carries to LOCAL_OUT.
    pub(crate) trigger: Option<Tracked>,
    /// Is it the stack's own reset, whose checksum is made where it leaves?
    pub(crate) is_summed_by_device: bool,
}

impl Said {
    /// By itself, without a trigger.
    const fn of(bytes: Vec<u8>, what: &'static str) -> Said {
        Said { bytes, what, trigger: None, is_summed_by_device: false }
    }
}

/// Who knows the way to whom something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routes {
    /// The engine's network, as for all that is forwarded.
    Own,
    /// A kernel, of whose routes the engine knows few.
    Kernel,
}

/// What the words of a host depend on.
pub(crate) struct Voice<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) routes: Routes,
    pub(crate) limits: &'a mut Limits,
    pub(crate) words: &'a mut Words,
    pub(crate) identifications: &'a mut Random,
    /// Where the packet came in that there is something to say about.
    pub(crate) interface: Option<u16>,
    pub(crate) now: Time,
}

impl Voice<'_> {
    /// To a packet that was delivered.
    pub(crate) fn reply(&mut self, packet: &Packet<'_>) -> Option<Said> {
        match local::reply(packet, self.identifications.next_u16(), self.now) {
            Reply::Echo(bytes) => Some(Said::of(bytes, "echo reply")),
            Reply::Reset(bytes) => Some(Said { is_summed_by_device: true, ..Said::of(bytes, "reset") }),
            Reply::Complaint(complaint) => self.complain(packet, complaint, false),
            Reply::Nothing(code) => {
                count(&mut self.words.unanswered, code);
                None
            }
        }
    }

    /// About a packet that was dropped.
    pub(crate) fn object(&mut self, packet: &Packet<'_>, cause: DropCause) -> Option<Said> {
        let (complaint, no_route) = match cause {
            DropCause::TtlExceeded => (Complaint::TimeExceeded, false),
            DropCause::NoRoute => (Complaint::NoRoute, true),
            DropCause::SourceScope => (Complaint::BeyondScope, false),
            DropCause::TooBig { mtu } => (Complaint::TooBig { mtu }, false),
            DropCause::Rule { reject: Some(reject), .. } => return self.reject(packet, reject),
            _ => return None,
        };
        self.complain(packet, complaint, no_route)
    }

    /// `nf_send_unreach`, `nf_send_reset` and their IPv6 twins: what a REJECT rule has this host say.
    pub(crate) fn reject(&mut self, packet: &Packet<'_>, reject: Reject) -> Option<Said> {
        if !local::checksum_is_right(packet) {
            count(&mut self.words.unanswered, "reject.checksum");
            return None;
        }
        match Complaint::rejected(reject) {
            Some(complaint) => self.complain(packet, complaint, false),
            None => Some(Said::of(local::reset(packet, 0)?, "reset")),
        }
    }

    /// `icmp_send`, `icmp6_send`.
    pub(crate) fn complain(&mut self, packet: &Packet<'_>, complaint: Complaint, no_route: bool) -> Option<Said> {
        if !answer::may_be_answered(packet) {
            count(&mut self.words.unanswered, "icmp.not_answered");
            return None;
        }
        let (l3num, to) = (packet.l3num, packet.src);
        let Some(from) = self.source(l3num, packet.dst, to) else {
            count(&mut self.words.unsaid, "icmp.no_route_back");
            return None;
        };
        let (icmp_type, code) = complaint.kind(l3num);
        if !self.limits.allow(&Asked { l3num, icmp_type, code, to, no_route }, self.now) {
            self.words.limited += 1;
            return None;
        }
        let bytes = answer::complain(packet, complaint, from, self.identifications.next_u16())?;
        Some(Said::of(bytes, complaint.name()))
    }

    /// The source of what this host says to `to` about a packet to `about`: that one if it is its own, else an address where
    /// the way to `to` begins. In IPv6 it is one of the interface that the packet came in by. A kernel that finds the way
    /// also fills in the address of IPv4 where it begins.
    fn source(&self, l3num: L3, about: Addr, to: Addr) -> Option<Addr> {
        let network = &self.engine.network;
        if network.route(l3num, about) == Destination::Local {
            return Some(about);
        }
        match (network.route(l3num, to), self.routes, l3num) {
            (Destination::Local, ..) => Some(to),
            (_, Routes::Kernel, L3::V4) => Some(Addr([0; 16])),
            (Destination::None, Routes::Kernel, L3::V6) => network.source_on(self.interface?, l3num, to),
            (Destination::Interface(out), ..) => {
                let from = if l3num == L3::V6 { self.interface.unwrap_or(out) } else { out };
                network.source_on(from, l3num, to)
            }
            (Destination::None, ..) => None,
        }
    }
}
