//! What few flows have besides: a master, a helper, shifted sequence numbers (`struct nf_ct_ext`).
//!
//! An entry holds a number or none; what it stands for is here. So a flow without a helper pays for one comparison.

use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::direction::Direction;
use crate::helper::Help;
use crate::helper::gre::Keymap;
use crate::seqadj::SeqAdjust;
use crate::table::EntryId;
use crate::tuple::Tuple;

/// Which extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExtensionId(NonZeroU32);

/// The flow that another one was expected by (`ct->master`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its entry, which may be gone since.
    pub id: EntryId,
    /// Its number.
    pub number: u32,
    /// Its original tuple, as `CTA_TUPLE_MASTER` shows it.
    pub tuple: Tuple,
}

/// What a flow has besides.
#[derive(Clone, Debug, Default)]
pub struct Extension {
    /// The entry; `None` until it is confirmed.
    pub(crate) entry: Option<EntryId>,
    /// The flow that expected this one.
    pub master: Option<Master>,
    /// The helper and what it remembers.
    pub help: Option<Help>,
    /// By how much the sequence numbers of each direction are shifted, by [`Direction::index`].
    pub seqadj: [SeqAdjust; 2],
}

/// All extensions, and the calls that PPTP told of.
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    slots: Vec<Option<Extension>>,
    free: Vec<ExtensionId>,
    /// The keys of GRE packets.
    pub(crate) keymap: Keymap,
}

impl ExtensionId {
    const fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Extensions {
    /// None.
    #[must_use]
    pub const fn new() -> Extensions {
        Extensions { slots: Vec::new(), free: Vec::new(), keymap: Keymap::new() }
    }

    /// A new extension.
    pub(crate) fn add(&mut self, extension: Extension) -> ExtensionId {
        if let Some(id) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(id.slot())
        {
            *slot = Some(extension);
            return id;
        }
        self.slots.push(Some(extension));
        let number = u32::try_from(self.slots.len()).ok().and_then(NonZeroU32::new);
        ExtensionId(number.unwrap_or(NonZeroU32::MAX))
    }

    /// What the number stands for.
    #[must_use]
    pub fn get(&self, id: ExtensionId) -> Option<&Extension> {
        self.slots.get(id.slot())?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: ExtensionId) -> Option<&mut Extension> {
        self.slots.get_mut(id.slot())?.as_mut()
    }

    /// The flow is gone.
    pub(crate) fn remove(&mut self, id: ExtensionId) -> Option<Extension> {
        let extension = self.slots.get_mut(id.slot())?.take()?;
        self.free.push(id);
        self.keymap.remove_all(id);
        Some(extension)
    }

    /// `nf_ct_seq_offset`: by how much the numbers that packets of `direction` carry lie below those that their receiver
    /// sees, at sequence number `seq`.
    pub(crate) fn seq_offset(&self, id: ExtensionId, direction: Direction, seq: u32) -> u32 {
        self.get(id).map_or(0, |extension| extension.seqadj[direction.index()].offset_at(seq))
    }
}
