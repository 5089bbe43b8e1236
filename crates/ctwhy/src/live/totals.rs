//! What a run amounts to.

use ctwhy_linux::queue::QueueStats;

use crate::report::line::Decided;
use crate::report::summary::Summary;

use super::session::{Left, Seen};

/// Counts over all packets of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// Packets.
    pub(crate) packets: u64,
    /// Packets whose ctinfo was compared with the kernel's.
    pub(crate) compared_ctinfo: u64,
    /// Packets that were seen leaving, and all bytes of them compared.
    pub(crate) compared_bytes: u64,
    /// Packets that agreed in all that was compared.
    pub(crate) agreed: u64,
    /// Packets that differed in something.
    pub(crate) differed: u64,
    /// Packets that could not be compared because others had gone past.
    pub(crate) incomparable: u64,
    /// Packets that were seen not to leave.
    pub(crate) vanished: u64,
    /// The engine's decisions.
    pub(crate) summary: Summary,
    /// What went past.
    pub(crate) lost: Lost,
}

/// What a run did not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Packets that met a full queue, by the kernel's counter.
    pub(crate) queue_dropped: u64,
    /// Packets that did not fit into the socket's buffer, by the kernel's counter.
    pub(crate) user_dropped: u64,
    /// Packets that passed unseen, by the gaps in their numbers.
    pub(crate) missed: u64,
    /// Packets that passed a full queue, by the counters of the rules.
    pub(crate) unqueued: u64,
    /// How often events of ctnetlink were lost.
    pub(crate) events: u64,
    /// How often copies from behind NAT were lost.
    pub(crate) copies: u64,
}

impl Lost {
    /// `sent` is how many packets the rules sent to the queue, 0 where nobody knows.
    pub(super) fn count(&mut self, stats: &QueueStats, missed: u64, sent: u64) {
        (self.queue_dropped, self.user_dropped, self.missed) = (stats.queue_dropped, stats.user_dropped, missed);
        self.unqueued = sent.saturating_sub(u64::from(stats.id_sequence));
    }
}

impl Totals {
    pub(super) fn count(&mut self, seen: &Seen<'_>) {
        self.packets += 1;
        self.compared_ctinfo += u64::from(seen.ctinfo_agrees().is_some());
        self.compared_bytes += u64::from(seen.bytes_agree().is_some());
        match seen.agrees() {
            Some(true) => self.agreed += 1,
            Some(false) => self.differed += 1,
            None => {}
        }
        self.incomparable += u64::from(!seen.comparable);
        self.vanished += u64::from(seen.left == Left::Nowhere);
        self.summary.count(&Decided::Ruling(&seen.ruling));
    }
}
