//! Time as an argument. The engine never asks a clock.

/// A moment: nanoseconds since an epoch that the caller chose, the same for every call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// The moment `seconds` later.
    #[must_use]
    pub const fn plus_secs(self, seconds: u32) -> Time {
        Time(self.0.saturating_add(seconds as u64 * 1_000_000_000))
    }

    /// Nanoseconds from `earlier` to this moment, 0 when `earlier` lies after it.
    #[must_use]
    pub const fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds from `earlier` to this moment.
    #[must_use]
    pub const fn secs_since(self, earlier: Time) -> u32 {
        (self.since(earlier) / 1_000_000_000) as u32
    }
}
