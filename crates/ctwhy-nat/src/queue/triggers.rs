//! Packets that the kernel may still complain about. What it says about one carries that packet's entry (ICMP-LOC-01);
//! here it is found by what the kernel quotes of it.
//!
//! What is quoted is between two hooks: its flow may be in no table yet, or in none under these addresses, or another flow is
//! there under them. What rules have this host say is remembered as well.

use ctwhy_core::conntrack::Tracked;

use super::identity;

/// How many are remembered. An error is handed over soon after its packet was let go.
const REMEMBERED: usize = 1024;

/// The number of a packet, counted from 0.
pub type Number = u64;

/// A packet that may be complained about.
#[derive(Debug)]
struct Trigger {
    number: Number,
    identity: Option<u64>,
    /// What tells the reset that would answer it and carry its entry.
    reset: Option<u64>,
    tracked: Tracked,
}

/// The packets that were let go last.
#[derive(Debug, Default)]
pub struct Triggers {
    recent: Vec<Option<Trigger>>,
    next: Number,
}

impl Triggers {
    /// Remembers a packet that was let go.
    pub fn note(&mut self, identity: u64, reset: Option<u64>, tracked: Tracked) -> Number {
        self.keep(Trigger { number: self.next, identity: Some(identity), reset, tracked })
    }

    /// Remembers what this host is about to say of a packet that a rule rejected: that carries its entry, also a reset
    /// (`nf_send_reset`, `nf_ct_attach`).
    pub fn rejected(&mut self, answer: &[u8], tracked: Tracked) {
        let (identity, reset) = (identity::quoted(answer), identity::reset(answer));
        self.keep(Trigger { number: self.next, identity, reset, tracked });
    }

    fn keep(&mut self, trigger: Trigger) -> Number {
        let number = trigger.number;
        self.next += 1;
        let trigger = Some(trigger);
        match self.recent.get_mut(place(number)) {
            Some(slot) => *slot = trigger,
            None => self.recent.push(trigger),
        }
        number
    }

    /// The packet came to its last hook: what is said about it from now on is found by what is in the table.
    pub fn forget(&mut self, number: Number) {
        if let Some(slot) = self.recent.get_mut(place(number)) {
            slot.take_if(|trigger| trigger.number == number);
        }
    }

    /// The packet that a packet of this host answers, as far as its entry goes with the answer. It is answered once. Of
    /// those that look alike it is the one that was let go last: answers come soon, and to most there is none.
    pub fn of(&mut self, answer: &[u8]) -> Option<Tracked> {
        let found = match identity::quoted(answer) {
            Some(quoted) => self.position(|trigger| trigger.identity == Some(quoted)),
            None => {
                let reset = identity::reset(answer)?;
                self.position(|trigger| trigger.reset == Some(reset))
            }
        };
        self.recent.get_mut(found?)?.take().map(|trigger| trigger.tracked)
    }

    fn position(&self, is_it: impl Fn(&Trigger) -> bool) -> Option<usize> {
        let alike = self.recent.iter().flatten().filter(|trigger| is_it(trigger));
        alike.map(|trigger| trigger.number).max().map(place)
    }
}

/// Where a packet is remembered.
const fn place(number: Number) -> usize {
    (number % REMEMBERED as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctwhy_core::conntrack::Attached;
    use ctwhy_core::direction::CtInfo;

    /// An IPv6 error with nothing but addresses and ports to tell by what it is about.
    fn error() -> Vec<u8> {
        let datagram = [&[0x60, 0, 0, 0, 0, 8, 17, 1][..], &[7; 32], &[0, 53, 0, 54, 0, 8, 1, 2]].concat();
        let mut error = [&[0x60, 0, 0, 0, 0, 56, 58, 64][..], &[9; 32], &[3, 0, 0, 0, 0, 0, 0, 0]].concat();
        error.extend(datagram);
        error
    }

    #[test]
    fn of_packets_that_look_alike_the_last_is_meant() {
        let tracked = |ctinfo| Tracked { ctinfo, reason: None, attached: Attached::None };
        let identity = identity::quoted(&error()).unwrap_or_default();
        let mut triggers = Triggers::default();
        for before in 0..REMEMBERED + 10 {
            triggers.note(identity, None, tracked(CtInfo::Established));
            triggers.note(identity, None, tracked(CtInfo::New));
            let found = triggers.of(&error()).map(|tracked| tracked.ctinfo);
            assert_eq!(found, Some(CtInfo::New), "after {before}");
        }
        assert_eq!(
            triggers.of(&error()).map(|tracked| tracked.ctinfo),
            Some(CtInfo::Established),
            "that one is answered"
        );
    }
}
