//! The time of packets that are decided about as they come.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ctwhy_core::time::Time;

/// A clock that never goes back, read as time since the epoch.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    epoch: Duration,
}

impl Clock {
    /// From now on.
    pub(crate) fn start() -> Clock {
        Clock { started: Instant::now(), epoch: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    /// Nanoseconds since the epoch.
    pub(crate) fn now(&self) -> Time {
        let now = self.epoch + self.started.elapsed();
        Time(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }
}
