//! Chance as an argument: where the kernel draws at random, the engine draws from a sequence that the caller seeded.

use crate::tuple::Tuple;

/// A sequence of numbers that looks random and is the same for the same seed (SplitMix64).
#[derive(Clone, Debug, Default)]
pub struct Random {
    state: u64,
    /// The tuple that the next packet is known to leave with, because a kernel drew it.
    foretold: Option<Tuple>,
    drawn: bool,
}

impl Random {
    /// The sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Random {
        Random { state: seed, foretold: None, drawn: false }
    }

    /// The next number that is not 0.
    pub fn next_nonzero_u32(&mut self) -> u32 {
        match u32::from(self.next_u16()) << 16 | u32::from(self.next_u16()) {
            0 => 1,
            drawn => drawn,
        }
    }

    /// The next 16 bits.
    pub fn next_u16(&mut self) -> u16 {
        self.drawn = true;
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 48) as u16
    }

    /// Says what the packet that comes next will leave as, or that nothing is known.
    pub(crate) const fn foretell(&mut self, leaves_as: Option<Tuple>) {
        self.foretold = leaves_as;
    }

    /// The tuple that was foretold for a packet of this protocol.
    pub(crate) fn foretold(&mut self, protonum: u8) -> Option<Tuple> {
        let foretold = self.foretold.filter(|tuple| tuple.protonum == protonum);
        self.drawn |= foretold.is_some();
        foretold
    }

    /// Forgets that anything was left to chance.
    pub(crate) const fn forget_draws(&mut self) {
        self.drawn = false;
    }

    /// Was anything left to chance?
    pub(crate) const fn drawn(&self) -> bool {
        self.drawn
    }
}
