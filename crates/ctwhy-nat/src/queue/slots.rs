//! Where packets are remembered while the kernel takes them from their first hook to their last.
//!
//! What conntrack would attach to a packet must be found again by a few bits of its mark. The slots are used in turn, so
//! that the one which is needed next is the one that was left alone longest: a packet that did not come back by then was
//! dropped on its way, as far as anybody can tell.

use ctwhy_core::hook::Passage;
use ctwhy_linux::rules::Slot;

use super::triggers::Number;

/// A packet on its way.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it carries.
    pub passage: Passage,
    /// What tells it from others, so that a slot that was used again is noticed.
    pub identity: u64,
    /// Where the kernel's complaints about it are looked for.
    pub trigger: Option<Number>,
    /// The interface that it came in by.
    pub interface: Option<u16>,
    /// As it was handed over, for whoever watches.
    pub arrived: Vec<u8>,
    /// Was it told that it did not come back?
    pub told: bool,
}

/// The slots.
#[derive(Debug)]
pub struct Slots {
    slots: Vec<Option<Kept>>,
    next: usize,
}

impl Slots {
    /// So many slots.
    #[must_use]
    pub fn new(count: u32) -> Slots {
        // A mask of all bits of the mark has more than anybody needs.
        const MOST: u32 = 1 << 16;
        Slots { slots: (0..count.clamp(1, MOST)).map(|_| None).collect(), next: 0 }
    }

    /// Empties the slot that is next, and gives the packet that was in it.
    pub fn make_room(&mut self) -> Option<(Slot, Kept)> {
        let kept = self.slots.get_mut(self.next)?.take()?;
        Some((Slot::MIN.saturating_add(self.next as u32), kept))
    }

    /// Remembers a packet in the slot that is next.
    pub fn put(&mut self, kept: Kept) -> Slot {
        let at = self.next;
        self.next = (at + 1) % self.slots.len();
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some(kept);
        }
        Slot::MIN.saturating_add(at as u32)
    }

    /// The packet in a slot, if it is the one with this identity.
    pub fn take(&mut self, slot: Slot, identity: u64) -> Option<Kept> {
        self.slots.get_mut(slot.get() as usize - 1)?.take_if(|kept| kept.identity == identity)
    }

    /// The packet in a slot.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Kept> {
        self.slots.get_mut(slot.get() as usize - 1)?.as_mut()
    }

    /// All packets that are out of hand, with their slots.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Kept)> {
        let slots = (1..).filter_map(Slot::new);
        slots.zip(&mut self.slots).filter_map(|(slot, kept)| Some((slot, kept.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctwhy_core::checksum::Sum;
    use ctwhy_core::hook::{Engine, Entered, Handed};
    use ctwhy_core::time::Time;

    fn kept(identity: u64) -> Kept {
        let mut packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 9, 250, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1];
        let checksum = Sum::default().bytes(&packet).checksum();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        let handed = Handed { wire_len: 20, interface: None, mark: 0, checksum_trusted: false, now: Time(0) };
        match Engine::new(0).at_prerouting(&mut packet, &handed, &mut ()) {
            Entered::OnItsWay(passage) => {
                Kept { passage, identity, trigger: None, interface: None, arrived: Vec::new(), told: false }
            }
            Entered::Ended(ruling) => unreachable!("{ruling:?}"),
        }
    }

    #[test]
    fn a_slot_gives_back_its_own_packet_once() {
        let mut slots = Slots::new(3);
        let first = slots.put(kept(7));
        assert!(slots.take(first, 8).is_none(), "that is another packet");
        assert_eq!(slots.take(first, 7).unwrap().identity, 7);
        assert!(slots.take(first, 7).is_none());
        assert!(slots.take(Slot::MAX, 7).is_none());
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut slots = Slots::new(3);
        let given: Vec<Slot> = (0..3).map(|identity| slots.put(kept(identity))).collect();
        let (room, before) = slots.make_room().unwrap();
        assert_eq!((room, before.identity), (given[0], 0));
        assert_eq!(slots.put(kept(9)), room);
        assert_eq!(slots.iter_mut().map(|(_, kept)| kept.identity).collect::<Vec<_>>(), [9, 1, 2]);
    }
}
