//! What a NAT on queues did so far. Every packet that began its way was done with at its first hook or at its last, waits as
//! a fragment, or ended for a cause; the rest is on its way, or something in the kernel dropped it.

use std::fmt;

use crate::statistics::{Causes, Traffic, Words, write_causes};

/// What was done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// What was handed over at its first hook.
    pub begun: Traffic,
    /// What had nothing to do at its last hook and was not handed over again.
    pub done_at_once: u64,
    /// What passed its last hook.
    pub done: u64,
    /// How often bytes were given back changed, at either hook.
    pub rewritten: u64,
    /// Fragments that waited for the rest of their datagram, and became part of it if it came.
    pub waited: u64,
    /// What ended, by cause.
    pub ended: Causes,
    /// What somebody else's rules sent to the queues, and passed.
    pub elsewhere: u64,
    /// What this host said because of rules that reject.
    pub words: Words,
}

impl Statistics {
    /// What did not come back: on its way, or dropped by the kernel in between.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let accounted = self.done_at_once + self.done + self.waited + self.ended.values().sum::<u64>();
        self.begun.packets.saturating_sub(accounted)
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statistics { begun, done_at_once, done, rewritten, waited, ended, elsewhere, words } = self;
        writeln!(f, "in: {begun}; rewritten {rewritten} times")?;
        writeln!(f, "{done} passed both hooks, {done_at_once} the first alone, {waited} fragments that waited")?;
        write_causes(f, "ended", ended)?;
        if self.missing() > 0 {
            writeln!(f, "  {:<10} {:>6}  did not come back: the kernel dropped them", "ended", self.missing())?;
        }
        if *elsewhere > 0 {
            writeln!(f, "  {:<10} {elsewhere:>6}  by somebody else's rules", "queued")?;
        }
        words.fmt(f)
    }
}
