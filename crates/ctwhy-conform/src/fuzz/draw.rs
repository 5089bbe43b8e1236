//! What only the kernel can know: the port or id that it drew for a flow whose own was taken.

use ctwhy_core::direction::Direction;
use ctwhy_core::hook::{DropCause, Engine, Ruling, Verdict};
use ctwhy_core::packet::Packet;
use ctwhy_core::trace::{Sink, Step};
use ctwhy_core::tuple::{Tuple, extract};

use super::window::Arrival;

/// Hears whether a packet was the first of a flow, for which NAT chose a binding.
pub(crate) struct Bound(pub(crate) bool);

impl Sink for Bound {
    fn step(&mut self, step: impl FnOnce() -> Step) {
        self.0 |= matches!(step(), Step::NatBound { .. });
    }
}

/// A packet for which the engine may have drawn otherwise than the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) arrival: Arrival,
    /// The flow that it began: original tuple and number; `None` when it could not be confirmed.
    pub(crate) flow: Option<(Tuple, u32)>,
}

impl Drawn {
    /// A packet that began a flow whose source port or id was changed or drawn, or for which nothing free was found.
    pub(crate) fn of(engine: &Engine, ruling: &Ruling, arrival: &Arrival) -> Option<Drawn> {
        let flow = match (ruling.verdict, ruling.entry().and_then(|id| engine.conntrack.table.get(id))) {
            (Verdict::Drop(DropCause::Confirm(_)), _) => None,
            (_, Some(entry)) => {
                let (original, reply) = (entry.flow.tuple(Direction::Original), entry.flow.tuple(Direction::Reply));
                let port = if reply.is_icmp() { reply.src_u } else { reply.dst_u };
                if port == original.src_u && !engine.has_drawn() {
                    return None;
                }
                Some((*original, entry.id))
            }
            (_, None) => return None,
        };
        Some(Drawn { arrival: arrival.clone(), flow })
    }
}

/// The tuple of a packet.
pub(crate) fn tuple_of(packet: &[u8]) -> Option<Tuple> {
    let packet = Packet::parse(packet, packet.len()).ok()?;
    let transport = packet.transport.ok()?;
    let l4 = packet.bytes.get(transport.offset..)?;
    extract(packet.l3num, packet.src, packet.dst, transport.protonum, l4).ok()
}
