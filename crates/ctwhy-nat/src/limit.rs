//! How many errors a router sends (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4f): the kernel's two buckets, one for all
//! receivers together (`icmp_global_allow`) and one for each (`inet_peer_xrlim_allow`), with its sysctls and defaults.

use std::collections::HashMap;

use ctwhy_core::random::Random;
use ctwhy_core::sysctl::SysctlError;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Addr, L3};

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// How many errors in a row one receiver gets (`XRLIM_BURST_FACTOR`).
const BURST: u64 = 6;
/// The bucket for all is filled again after this time at the earliest.
const REFILL: u64 = SECOND / 50;
/// How many receivers are remembered at most, twice: those of late and those before them.
const PEERS: usize = 4096;

/// An error that may be too many: what decides about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Family.
    pub l3num: L3,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub code: u8,
    /// Who gets it.
    pub to: Addr,
    /// Is it about a packet that no route was found for? Those have a limit of their own before the others (`ip_error`).
    pub no_route: bool,
}

/// The limits, and what is left of them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `net.ipv4.icmp_ratelimit` in milliseconds.
    ratelimit: u32,
    /// `net.ipv4.icmp_ratemask`: a bit for each limited type.
    ratemask: u32,
    /// `net.ipv4.icmp_msgs_per_sec`.
    msgs_per_sec: u32,
    /// `net.ipv4.icmp_msgs_burst`.
    msgs_burst: u32,
    /// `net.ipv6.icmp.ratelimit` in milliseconds.
    ratelimit6: u32,
    /// `net.ipv6.icmp.ratemask`: each limited type.
    ratemask6: Mask,
    /// `net.ipv4.route.error_cost` and `error_burst`, in milliseconds.
    error_cost: u32,
    error_burst: u32,
    /// Errors that may be sent to all together. The kernel lets it fall below zero.
    credit: i64,
    filled: Time,
    peers: Peers,
    /// How much an error costs of the common credit is drawn, so that nobody can count what others got.
    draws: Random,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ratelimit: 1000,
            ratemask: 0x1818,
            msgs_per_sec: 1000,
            msgs_burst: 50,
            ratelimit6: 100,
            ratemask6: Mask::DEFAULT,
            error_cost: 1000,
            error_burst: 5000,
            credit: 0,
            filled: Time(0),
            peers: Peers::default(),
            draws: Random::new(0),
        }
    }
}

impl Limits {
    /// The same limits, drawing from the sequence of a seed.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Limits {
        Limits { draws: Random::new(seed), ..self }
    }

    /// Every name that [`Limits::set`] takes, in its short form.
    pub const NAMES: [&'static str; 8] = [
        "icmp_ratelimit",
        "icmp_ratemask",
        "icmp_msgs_per_sec",
        "icmp_msgs_burst",
        "route.error_cost",
        "route.error_burst",
        "net.ipv6.icmp.ratelimit",
        "net.ipv6.icmp.ratemask",
    ];

    /// Sets one by name; those of IPv4 with or without `net.ipv4.`.
    ///
    /// # Errors
    /// [`SysctlError`] when the name or the value is not one of these.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SysctlError> {
        let knob = match name.strip_prefix("net.ipv4.").unwrap_or(name) {
            "icmp_ratelimit" => &mut self.ratelimit,
            "icmp_ratemask" => &mut self.ratemask,
            "icmp_msgs_per_sec" => &mut self.msgs_per_sec,
            "icmp_msgs_burst" => &mut self.msgs_burst,
            "route.error_cost" => &mut self.error_cost,
            "route.error_burst" => &mut self.error_burst,
            "net.ipv6.icmp.ratelimit" => &mut self.ratelimit6,
            "net.ipv6.icmp.ratemask" => {
                self.ratemask6 = Mask::parse(value).ok_or(SysctlError::Value)?;
                return Ok(());
            }
            _ => return Err(SysctlError::Unknown),
        };
        *knob = value.parse().map_err(|_| SysctlError::Value)?;
        Ok(())
    }

    /// May the error be sent? It is counted as sent if so.
    pub fn allow(&mut self, asked: &Asked, now: Time) -> bool {
        if asked.no_route && asked.l3num == L3::V4 {
            let (cost, burst) = (u64::from(self.error_cost) * MILLISECOND, u64::from(self.error_burst) * MILLISECOND);
            if !self.peers.bucket(asked.to, now).take(cost, burst, now) {
                return false;
            }
        }
        if !self.is_limited(asked) {
            return true;
        }
        if !self.global_allow(now) {
            return false;
        }
        let cost = match asked.l3num {
            L3::V4 => self.ratelimit,
            L3::V6 => self.ratelimit6,
        };
        let cost = u64::from(cost) * MILLISECOND;
        let allowed = self.peers.bucket(asked.to, now).take(cost, cost * BURST, now);
        if allowed {
            self.credit -= i64::from(self.draws.next_u16() % 3);
        }
        allowed
    }

    /// `icmpv4_mask_allow`, `icmpv6_mask_allow`: what ends path MTU discovery is never limited.
    fn is_limited(&self, asked: &Asked) -> bool {
        match (asked.l3num, asked.icmp_type, asked.code) {
            (L3::V4, 3, 4) => false,
            (L3::V4, kind, _) => kind < 32 && self.ratemask & (1 << kind) != 0,
            (L3::V6, kind, _) => self.ratemask6.holds(kind),
        }
    }

    /// `icmp_global_allow`.
    fn global_allow(&mut self, now: Time) -> bool {
        if self.credit > 0 {
            return true;
        }
        let passed = now.since(self.filled).min(SECOND);
        if passed < REFILL {
            return false;
        }
        let more = u64::from(self.msgs_per_sec) * passed / SECOND;
        if more == 0 {
            return false;
        }
        self.filled = now;
        self.credit = (self.credit + more as i64).min(i64::from(self.msgs_burst));
        true
    }
}

/// A set of ICMPv6 types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mask([u128; 2]);

impl Mask {
    /// `0-1,3-127`: all errors but packet too big.
    const DEFAULT: Mask = Mask([!(1 << 2), 0]);

    fn holds(self, kind: u8) -> bool {
        let [low, high] = self.0;
        let word = if kind < 128 { low } else { high };
        word >> (kind % 128) & 1 == 1
    }

    /// As the kernel reads and prints such sets: `0-1,3-127`.
    fn parse(text: &str) -> Option<Mask> {
        let mut mask = Mask([0, 0]);
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u8, u8) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last {
                return None;
            }
            for kind in first..=last {
                let [low, high] = &mut mask.0;
                *(if kind < 128 { low } else { high }) |= 1 << (kind % 128);
            }
        }
        Some(mask)
    }
}

/// What one receiver may still get.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Nanoseconds.
    tokens: u64,
    last: Time,
}

impl Bucket {
    /// `inet_peer_xrlim_allow`: takes `cost` out of a bucket that holds `most` at best.
    fn take(&mut self, cost: u64, most: u64, now: Time) -> bool {
        self.tokens = self.tokens.saturating_add(now.since(self.last)).min(most);
        self.last = now;
        let enough = self.tokens >= cost;
        if enough {
            self.tokens -= cost;
        }
        enough
    }
}

/// The buckets of receivers, no more than a fixed number: when those of late are many, those before them are forgotten.
#[derive(Clone, Debug, Default)]
struct Peers {
    late: HashMap<Addr, Bucket>,
    before: HashMap<Addr, Bucket>,
}

impl Peers {
    /// The bucket of a receiver; one that is not known has waited long.
    fn bucket(&mut self, of: Addr, now: Time) -> &mut Bucket {
        if !self.late.contains_key(&of) && self.late.len() >= PEERS {
            self.before = std::mem::take(&mut self.late);
        }
        let known = self.before.remove(&of);
        let long = Bucket { tokens: 60 * SECOND, last: now };
        self.late.entry(of).or_insert_with(|| known.unwrap_or(long))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(l3num: L3, icmp_type: u8, code: u8) -> Asked {
        Asked { l3num, icmp_type, code, to: Addr([1; 16]), no_route: false }
    }

    fn at(ms: u64) -> Time {
        Time(1_000 * SECOND + ms * MILLISECOND)
    }

    #[test]
    fn one_receiver_gets_six_in_a_row_and_then_one_a_second() {
        let mut limits = Limits::default();
        let time_exceeded = asked(L3::V4, 11, 0);
        let allowed = (0..10).filter(|i| limits.allow(&time_exceeded, at(*i))).count();
        assert_eq!(allowed, 6);
        assert!(!limits.allow(&time_exceeded, at(900)));
        assert!(limits.allow(&time_exceeded, at(1_010)));
        assert!(!limits.allow(&time_exceeded, at(1_020)));
        // Another one has a bucket of its own.
        assert!(limits.allow(&Asked { to: Addr([2; 16]), ..time_exceeded }, at(1_020)));
    }

    #[test]
    fn what_ends_path_mtu_discovery_is_never_limited() {
        let mut limits = Limits::default();
        for too_big in [asked(L3::V4, 3, 4), asked(L3::V6, 2, 0), asked(L3::V4, 0, 0), asked(L3::V6, 129, 0)] {
            assert!((0..10_000).all(|_| limits.allow(&too_big, at(0))));
        }
    }

    #[test]
    fn all_receivers_together_get_a_burst_and_so_many_a_second() {
        let mut limits = Limits::default();
        let mut next = 0u32;
        let mut many = |limits: &mut Limits, now| {
            let allowed = |_: &i32| {
                next += 1;
                let mut to = [0; 16];
                to[..4].copy_from_slice(&next.to_be_bytes());
                limits.allow(&Asked { to: Addr(to), ..asked(L3::V4, 3, 1) }, now)
            };
            (0..20_000).filter(allowed).count()
        };
        // Each takes nothing, one or two of the credit, one on average.
        let burst = many(&mut limits, at(0));
        assert!((30..=100).contains(&burst), "{burst}");
        assert_eq!(many(&mut limits, at(10)), 0);
        assert!((10..=50).contains(&many(&mut limits, at(30))));
        assert!(limits.peers.late.len() <= PEERS && limits.peers.before.len() <= PEERS);
    }

    /// What a kernel was seen to send to one receiver, 100 probes in a second: 6 and 10 (6.18, whatever the route).
    #[test]
    fn ipv6_gives_one_receiver_ten_a_second() {
        let mut limits = Limits::default();
        let allowed = (0..100).filter(|i| limits.allow(&asked(L3::V6, 3, 0), at(10 * i))).count();
        assert_eq!(allowed, 6 + 9);
    }

    #[test]
    fn packets_without_a_route_are_answered_less() {
        let mut limits = Limits::default();
        let no_route = Asked { no_route: true, ..asked(L3::V4, 3, 0) };
        assert_eq!(
            (0..10).filter(|_| limits.allow(&no_route, at(0))).count(),
            2,
            "each pays twice out of five seconds"
        );
        limits.set("net.ipv4.icmp_ratemask", "0").unwrap();
        assert_eq!((0..10).filter(|_| limits.allow(&Asked { to: Addr([3; 16]), ..no_route }, at(0))).count(), 5);
    }

    #[test]
    fn every_name_sets_something() {
        for name in Limits::NAMES {
            let mut limits = Limits::default();
            assert_eq!(limits.set(name, "7"), Ok(()), "{name}");
            assert_ne!(format!("{limits:?}"), format!("{:?}", Limits::default()), "{name}");
            assert_eq!(limits.set(name, "x"), Err(SysctlError::Value), "{name}");
        }
        assert_eq!(Limits::default().set("icmp_echo_ignore_all", "1"), Err(SysctlError::Unknown));
        assert_eq!(Mask::parse("0-1,3-127"), Some(Mask::DEFAULT));
        assert_eq!(Mask::parse("3-1"), None);
        assert!(Mask::parse("").is_some_and(|none| (0..=255).all(|kind| !none.holds(kind))));
    }
}
