//! What a router did so far. Every packet that arrived is in exactly one of the counts: it left, it was for this host, it
//! waits as a fragment, or it ended for a cause.

use std::collections::BTreeMap;
use std::fmt;

/// Packets and their bytes from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    /// Counts a packet.
    pub const fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets, {} bytes", self.packets, self.bytes)
    }
}

/// How often something happened, by a stable code.
pub type Causes = BTreeMap<&'static str, u64>;

/// What a router did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// What arrived.
    pub received: Traffic,
    /// What was forwarded. A packet that left in fragments is one, and so is a datagram that came in several.
    pub forwarded: u64,
    /// What was for this host.
    pub local: u64,
    /// Fragments that waited for the rest of their datagram, and became part of it if it came.
    pub waited: u64,
    /// Datagrams of which not all fragments came in time.
    pub overdue: u64,
    /// What ended, by cause.
    pub ended: Causes,
    /// What left by an interface, own packets and fragments included.
    pub sent: Traffic,
    /// What this host said.
    pub words: Words,
}

/// What a host said itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// By what it was.
    pub said: Causes,
    /// What it would have said, but for a rate limit.
    pub limited: u64,
    /// Why packets got no answer.
    pub unanswered: Causes,
    /// Own packets that did not leave, by cause.
    pub unsaid: Causes,
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_causes(f, "said", &self.said)?;
        write_causes(f, "unanswered", &self.unanswered)?;
        write_causes(f, "not sent", &self.unsaid)?;
        if self.limited > 0 {
            writeln!(f, "  {:<10} {:>6}  icmp.rate_limit", "not sent", self.limited)?;
        }
        Ok(())
    }
}

/// A line for each cause.
pub(crate) fn write_causes(f: &mut fmt::Formatter<'_>, what: &str, causes: &Causes) -> fmt::Result {
    causes.iter().try_for_each(|(code, count)| writeln!(f, "  {what:<10} {count:>6}  {code}"))
}

/// Counts one more.
pub fn count(causes: &mut Causes, code: &'static str) {
    *causes.entry(code).or_default() += 1;
}

impl Statistics {
    /// How many packets are accounted for. It is the number of those that arrived.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.forwarded + self.local + self.waited + self.ended.values().sum::<u64>()
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "in: {}; out: {}", self.received, self.sent)?;
        let Statistics { forwarded, local, waited, .. } = self;
        writeln!(f, "{forwarded} forwarded, {local} for this host, {waited} fragments that waited")?;
        if self.overdue > 0 {
            writeln!(f, "{} datagrams of which not all fragments came in time", self.overdue)?;
        }
        write_causes(f, "ended", &self.ended)?;
        self.words.fmt(f)
    }
}
