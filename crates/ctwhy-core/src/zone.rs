//! Zones: flows of equal tuples that are kept apart (`struct nf_conntrack_zone`; catalogue A.5).

use crate::direction::Direction;

/// The zone of a flow, or of a packet that looks for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Zone {
    /// Its number; 0 is where everything is that no rule puts elsewhere.
    pub id: u16,
    /// The only direction whose tuple is in it, the other one's being in zone 0; `None` for both.
    pub only: Option<Direction>,
}

impl Zone {
    /// `nf_ct_zone_id`: the zone that the tuple of a direction is in.
    #[must_use]
    #[inline]
    pub const fn of(self, direction: Direction) -> u16 {
        match (self.only, direction) {
            (None, _)
            | (Some(Direction::Original), Direction::Original)
            | (Some(Direction::Reply), Direction::Reply) => self.id,
            _ => 0,
        }
    }

    /// Are tuples of a direction in zone `id` for both? Of zones that are for both directions only the numbers count, and
    /// most zones are.
    #[inline]
    pub(crate) fn meets(self, other: Zone, direction: Direction, id: u16) -> bool {
        match (self.only, other.only) {
            (None, None) => self.id == id && other.id == id,
            _ => self.of(direction) == id && other.of(direction) == id,
        }
    }
}
