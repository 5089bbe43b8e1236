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

    /// The packet that a packet of this host answers, as far as its entry goes with the answer. It is answered once.
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

    fn position(&self, mut is_it: impl FnMut(&Trigger) -> bool) -> Option<usize> {
        self.recent.iter().position(|slot| slot.as_ref().is_some_and(&mut is_it))
    }
}

/// Where a packet is remembered.
const fn place(number: Number) -> usize {
    (number % REMEMBERED as u64) as usize
}
