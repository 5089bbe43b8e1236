//! UDP and ICMP of one family together: datagrams, queries, and errors about all of them.

use ctwhy_core::tuple::L3;

use super::{Hosts, Mood, errors, icmp, udp};
use crate::fuzz::episode::{Around, Generator};
use crate::fuzz::window::Arrival;

/// Everything that is not a connection.
pub(crate) struct Zoo {
    pub(crate) hosts: Hosts,
    pub(crate) mood: Mood,
}

impl Generator for Zoo {
    fn next(&mut self, around: &mut Around<'_>) -> Arrival {
        let Zoo { hosts, mood } = *self;
        match around.chance.below(10) {
            0..=3 => udp::packet(hosts, mood, around),
            4..=5 if hosts.family == L3::V6 && around.chance.one_in(8) => {
                errors::redirect(hosts, mood, around).unwrap_or_else(|| udp::packet(hosts, mood, around))
            }
            4..=5 => icmp::packet(hosts, mood, around),
            _ => errors::packet(hosts, mood, around).unwrap_or_else(|| udp::packet(hosts, mood, around)),
        }
    }
}
