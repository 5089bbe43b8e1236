//! What Linux would have done with an ICMP error: the pair of flows is learnt as a NAT binding, and the engine rules.

use std::net::IpAddr;

use ctwhy_core::conn::{Flow, Protocol as State};
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::event::Causes;
use ctwhy_core::hook::{DropCause, Egress, Engine, Hook, Unseen, Verdict};
use ctwhy_core::mirror::{Departure, KernelEntry};
use ctwhy_core::packet::{Packet, PacketError};
use ctwhy_core::reason::Reason;
use ctwhy_core::status::Status;
use ctwhy_core::time::Time;
use ctwhy_core::trace::{Step, Trace};
use ctwhy_core::track::tcp::{Tcp, TcpState};
use ctwhy_core::track::udp;
use ctwhy_core::tuple::{Tuple, proto};
use ctwhy_core::zone::Zone;

use crate::evidence::Both;
use crate::observe::Error;

/// What the engine decided about an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruled {
    /// What conntrack calls it, or why it does not see it.
    pub ctinfo: Result<CtInfo, Unseen>,
    /// Why it is INVALID.
    pub reason: Option<Reason>,
    /// Why it ends there; `None` when it is delivered.
    pub dropped: Option<DropCause>,
    /// The error as it is delivered.
    pub bytes: Vec<u8>,
    /// How that was decided.
    pub steps: Vec<Step>,
}

impl Ruled {
    /// Is the error delivered to the other side? An INVALID one is not: no NAT is done for it.
    #[must_use]
    pub const fn is_delivered(&self) -> bool {
        self.dropped.is_none() && matches!(self.ctinfo, Ok(CtInfo::Related | CtInfo::RelatedReply))
    }

    /// Whom it is delivered to.
    #[must_use]
    pub fn delivered_to(&self) -> Option<IpAddr> {
        let packet = self.is_delivered().then(|| Packet::parse(&self.bytes, self.bytes.len()).ok())??;
        Some(packet.dst.ip(packet.l3num))
    }

    /// Did the capture hold too little of the error to tell?
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        matches!(self.ctinfo, Err(Unseen::Packet(PacketError::CutShort { .. })))
    }
}

/// The binding that Linux would have for a pair of flows: the original tuple as the first packet arrives, the reply tuple as
/// the answer does.
fn binding(both: &Both<'_>) -> Option<[Tuple; 2]> {
    let begins = Direction::Original;
    let (own, other) = (both.inside.tuple(begins), both.outside.tuple(both.pair.outside(begins)));
    let (arrives, leaves) = if both.out == begins { (own, other) } else { (other, own) };
    Some([*arrives, leaves.invert()?])
}

/// Puts an error to a Linux that has the flow it is about in its table.
pub(crate) fn rule(error: &Error, both: &Both<'_>) -> Option<Ruled> {
    /// Nothing expires meanwhile.
    const TIMEOUT: u32 = 600;

    let now = Time(1);
    let [original, reply] = binding(both)?;
    let mut status = Status::CONFIRMED | Status::SEEN_REPLY | Status::NAT_DONE_MASK;
    let kept = original.invert()?;
    // The id of an echo is its sender's, whichever way it is read.
    let ids = original.is_icmp() && reply.src_u != kept.src_u;
    if ids || (reply.dst, reply.dst_u) != (kept.dst, kept.dst_u) {
        status |= Status::SRC_NAT;
    }
    if reply.src != kept.src || (!original.is_icmp() && reply.src_u != kept.src_u) {
        status |= Status::DST_NAT;
    }
    let protocol = match original.protonum {
        proto::TCP => State::Tcp(Tcp::from_ctnetlink(TcpState::Established, [0; 2], [0; 2])),
        proto::UDP => State::Udp { stream_from: now.plus_secs(udp::STREAM_AFTER_SECS) },
        _ => State::Stateless,
    };
    let flow = Flow {
        tuples: [original, reply],
        zone: Zone::default(),
        status,
        mark: 0,
        counters: None,
        protocol,
        masquerade_interface: None,
        events: None,
        pending: Causes::default(),
        helper: None,
        extension: None,
    };
    let mut engine = Engine::new(0);
    engine.learn(&KernelEntry { flow, id: 1, timeout: TIMEOUT }, now);
    let mut bytes = error.bytes.clone();
    let cut = |need, have| Err(Unseen::Packet(PacketError::CutShort { need, have }));
    let mut ruled = Ruled {
        ctinfo: cut(error.wire_len, bytes.len()),
        reason: None,
        dropped: None,
        bytes: Vec::new(),
        steps: Vec::new(),
    };
    // NAT sums up the whole message.
    if error.bytes.len() < error.wire_len {
        return Some(ruled);
    }
    let mut trace = Trace::default();
    let packet = Packet::parse(&error.bytes, error.wire_len).ok()?;
    let tracked = match engine.arrive(&packet, Hook::PreRouting, None, now, &mut trace) {
        Ok(tracked) => tracked,
        Err(unseen) => {
            ruled.ctinfo = Err(unseen);
            return Some(ruled);
        }
    };
    let departure = Departure { hook: Hook::PreRouting, egress: Egress::Forwarded(None), learnt: None };
    let ruling = engine.depart(&mut bytes, tracked, &departure, now, &mut trace);
    let dropped = match ruling.verdict {
        Verdict::Drop(cause) => Some(cause),
        Verdict::Accept => None,
    };
    Some(Ruled { ctinfo: ruling.ctinfo, reason: ruling.reason, dropped, bytes, steps: trace.steps })
}
