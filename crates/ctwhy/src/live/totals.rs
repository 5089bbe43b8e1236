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
    /// Packets that the kernel decided about in another order than it queued them in.
    pub(crate) reordered: u64,
    /// Packets that came from another hook than those right behind conntrack.
    pub(crate) elsewhere: u64,
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
    /// The kernel's counter of packets that it dropped because the queue was full. It lets them pass instead.
    pub(crate) queue_dropped: u64,
    /// The kernel's counter of packets that it dropped because the socket's buffer was full. It lets them pass instead.
    pub(crate) user_dropped: u64,
    /// Packets that passed unseen because the socket's buffer was full: those that have a number but never came.
    pub(crate) unreceived: u64,
    /// Packets that passed unseen because the queue was full: those that a rule counted but that never got a number.
    pub(crate) unqueued: u64,
    /// How often events of ctnetlink were lost.
    pub(crate) events: u64,
    /// How often copies from behind NAT were lost.
    pub(crate) copies: u64,
}

impl Lost {
    /// `received` packets came, and the rules sent `sent` to the queue, 0 where nobody knows.
    pub(super) fn count(&mut self, stats: &QueueStats, received: u64, sent: u64) {
        let numbered = u64::from(stats.id_sequence);
        (self.queue_dropped, self.user_dropped) = (stats.queue_dropped, stats.user_dropped);
        self.unreceived = numbered.saturating_sub(received + u64::from(stats.waiting));
        self.unqueued = sent.saturating_sub(numbered);
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
        self.reordered += u64::from(seen.reordered);
        self.incomparable += u64::from(!seen.comparable);
        self.vanished += u64::from(seen.left == Left::Nowhere);
        self.summary.count(&Decided::Ruling(&seen.ruling));
    }
}
