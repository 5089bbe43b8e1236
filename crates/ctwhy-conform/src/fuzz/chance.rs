//! Where generators draw from: the same seed gives the same packets.

/// A sequence of numbers that looks random and is the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The sequence of a seed.
    #[cfg(test)]
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// A sequence of its own for part `number` of what this seed makes.
    pub(crate) fn part(seed: u64, number: u64) -> Chance {
        let mut chance = Chance(seed);
        let start = chance.next();
        Chance(start ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// True `percent` times of a hundred.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, of: &[T; N]) -> T {
        of[self.below(N)]
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.next() as u8
    }

    pub(crate) fn u16(&mut self) -> u16 {
        self.next() as u16
    }

    pub(crate) fn u32(&mut self) -> u32 {
        self.next() as u32
    }

    /// So many bytes, none of which means anything.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.u8()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_parts_differ() {
        let draw = |mut chance: Chance| (0..8).map(|_| chance.below(1000)).collect::<Vec<_>>();
        assert_eq!(draw(Chance::part(7, 3)), draw(Chance::part(7, 3)));
        assert_ne!(draw(Chance::part(7, 3)), draw(Chance::part(7, 4)));
        assert_ne!(draw(Chance::part(7, 3)), draw(Chance::part(8, 3)));
        assert!(draw(Chance::new(1)).iter().all(|&number| number < 1000));
    }
}
