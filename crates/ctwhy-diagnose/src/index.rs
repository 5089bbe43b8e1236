//! What packets are recognised by at the other side of a NAT, and where each such mark was seen.

use std::collections::HashMap;

use ctwhy_core::direction::Direction;
use ctwhy_core::tuple::{Addr, L3, Tuple};

use crate::flows::{Flow, Flows};
use crate::observe::{Detail, Facts, Protocol};

/// Packets of each direction of a flow that are marked.
const MARKED: usize = 16;
/// Bytes of a TCP direction that are a mark.
pub(crate) const OPENING_MARK: usize = 8;

/// Something that a NAT leaves as it is, or that even a proxy passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    /// What a packet carries; with it its length, or for an echo its sequence number.
    Content { hash: u64, more: u32 },
    /// The same, and what a NAT leaves as it is: the identification, or in IPv6 the flow label.
    Stamped { hash: u64, stamp: u32 },
    /// The initial sequence number of a TCP direction.
    Isn(u32),
    /// The first bytes of a TCP direction, however they are cut into segments.
    Opening([u8; OPENING_MARK]),
}

/// The end of the flow that has to be the same as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Either,
    /// Where the packet goes. It stays when the sender is translated: such a packet goes out.
    To(Addr, u16),
    /// Where the packet comes from. It stays when the receiver is translated: such a packet comes back.
    From(Addr, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    l3num: L3,
    protocol: Protocol,
    pub(crate) mark: Mark,
    pub(crate) end: End,
}

/// Where a mark was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) flow: usize,
    pub(crate) direction: Direction,
    pub(crate) time: u64,
}

/// The marks of one side.
#[derive(Debug, Default)]
pub(crate) struct Index {
    places: HashMap<Key, Vec<Place>>,
}

impl Index {
    pub(crate) fn new(flows: &Flows) -> Index {
        let mut index = Index::default();
        for (number, flow) in flows.all.iter().enumerate() {
            for direction in Direction::BOTH {
                for (mark, time) in marks(flow, direction) {
                    let place = Place { flow: number, direction, time };
                    for key in keys(flow, direction, mark) {
                        index.places.entry(key).or_default().push(place);
                    }
                }
            }
        }
        for places in index.places.values_mut() {
            places.sort_by_key(|place| place.time);
        }
        index
    }

    /// Where a mark was seen, in the order of time.
    pub(crate) fn places(&self, key: &Key) -> &[Place] {
        self.places.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &[Place])> {
        self.places.iter().map(|(key, places)| (key, places.as_slice()))
    }
}

/// The marks of a direction and when each was seen.
pub(crate) fn marks(flow: &Flow, direction: Direction) -> impl Iterator<Item = (Mark, u64)> {
    let lane = flow.lane(direction);
    let contents = lane.packets.iter().filter_map(|facts| Some((content(facts)?, facts.time))).take(MARKED);
    let numbers = lane.packets.iter().filter(|facts| facts.is_syn() || facts.is_syn_ack());
    let number = numbers.filter_map(|facts| Some((Mark::Isn(facts.seq()?), facts.time))).take(1);
    let opening = lane.opening().first_chunk().map(|bytes| (Mark::Opening(*bytes), flow.first));
    let stamped = lane.packets.iter().filter_map(|facts| Some((stamped(facts)?, facts.time))).take(MARKED);
    contents.chain(stamped).chain(number).chain(opening)
}

/// What a packet carries and is called, as a mark.
fn stamped(facts: &Facts) -> Option<Mark> {
    let stamp = u32::from(facts.id) | facts.label;
    Some(Mark::Stamped { hash: facts.content.filter(|_| stamp != 0)?, stamp })
}

/// What a packet carries, as a mark.
fn content(facts: &Facts) -> Option<Mark> {
    /// Beside the sequence number of an echo: who answers repeats what was asked.
    const REQUEST: u32 = 1 << 16;

    let more = match facts.detail {
        // The same bytes may be cut into segments elsewhere.
        Detail::Tcp { .. } => 0,
        Detail::Udp => facts.len,
        Detail::Echo { seq, request } => u32::from(seq) | if request { REQUEST } else { 0 },
    };
    Some(Mark::Content { hash: facts.content?, more })
}

/// The keys under which a mark of a flow is found.
pub(crate) fn keys(flow: &Flow, direction: Direction, mark: Mark) -> [Key; 3] {
    let Tuple { src, dst, src_u, dst_u, l3num, .. } = *flow.tuple(direction);
    // The id of an echo is the sender's, whichever direction it is read in, and there is no port.
    let (from, to) = if flow.protocol == Protocol::Echo { (0, 0) } else { (src_u, dst_u) };
    [End::Either, End::To(dst, to), End::From(src, from)].map(|end| Key { l3num, protocol: flow.protocol, mark, end })
}
