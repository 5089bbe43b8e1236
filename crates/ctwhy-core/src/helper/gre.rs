//! The keymap: which key the sender of a GRE packet has (`nf_ct_gre_keymap_*`; TUPLE-04).
//!
//! A packet of PPTP carries the call id of its receiver only. The control connection told both.

use alloc::vec::Vec;

use crate::direction::Direction;
use crate::extension::ExtensionId;
use crate::tuple::{Tuple, gre_version, proto};

/// The keys that control connections told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keymap(Vec<Key>);

#[derive(Clone, Copy, Debug)]
struct Key {
    tuple: Tuple,
    master: ExtensionId,
    direction: Direction,
}

impl Keymap {
    /// No keys.
    pub(crate) const fn new() -> Keymap {
        Keymap(Vec::new())
    }

    /// `nf_ct_gre_keymap_add`: the tuple of one direction. False when the control connection has told another one.
    pub(crate) fn add(&mut self, master: ExtensionId, direction: Direction, tuple: &Tuple) -> bool {
        let own = self.0.iter().find(|key| key.master == master && key.direction == direction);
        match own {
            Some(own) => same(&own.tuple, tuple),
            None => {
                self.0.push(Key { tuple: *tuple, master, direction });
                true
            }
        }
    }

    /// `nf_ct_gre_keymap_destroy`.
    pub(crate) fn remove_all(&mut self, master: ExtensionId) {
        self.0.retain(|key| key.master != master);
    }

    /// `gre_keymap_lookup`: gives `tuple`, read from the packet whose GRE header is `l4`, the key of its sender.
    #[inline]
    pub(crate) fn complete(&self, tuple: &mut Tuple, l4: &[u8]) {
        if tuple.protonum == proto::GRE && !self.0.is_empty() && gre_version(l4) == Some(1) && l4.len() >= 8 {
            tuple.src_u = self.0.iter().find(|key| same(&key.tuple, tuple)).map_or(0, |key| key.tuple.src_u);
        }
    }
}

fn same(a: &Tuple, b: &Tuple) -> bool {
    (a.src, a.dst, a.dst_u, a.l3num, a.protonum) == (b.src, b.dst, b.dst_u, b.l3num, b.protonum)
}
