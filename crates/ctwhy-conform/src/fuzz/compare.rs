//! What the engine said beside what the kernel did: each packet, and the table at the end.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::time::Instant;

use ctwhy_core::direction::CtInfo;
use ctwhy_core::packet::find_fragment_header;
use ctwhy_core::tuple::proto;
use ctwhy_fixture::case::Bytes;
use ctwhy_linux::ctnetlink::{Entry, format_extended, status};

use super::cables::Seen;
use super::window::Window;

/// Where engine and kernel differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// They call a packet differently. `None` is a packet that conntrack did not see.
    CtInfo {
        /// What the kernel called it.
        kernel: Option<CtInfo>,
        /// What the engine called it.
        engine: Option<CtInfo>,
        /// The engine's reason where it says INVALID, or does not let conntrack see a fragment.
        reason: Option<&'static str>,
    },
    /// Something else left.
    Left {
        /// Interface and bytes.
        kernel: Vec<(&'static str, Vec<u8>)>,
        /// Interface and bytes.
        engine: Vec<(&'static str, Vec<u8>)>,
    },
    /// An entry of the table, as `conntrack -L -o extended` prints it; `None` where there is none.
    Entry {
        /// The kernel's.
        kernel: Option<String>,
        /// The engine's, its timeout as it was when the entry was refreshed.
        engine: Option<String>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |ctinfo: &Option<CtInfo>| ctinfo.map_or("not seen by conntrack", CtInfo::name);
        match self {
            Difference::CtInfo { kernel, engine, reason } => {
                write!(f, "the kernel says {}, the engine {}", named(kernel), named(engine))?;
                reason.map_or(Ok(()), |reason| write!(f, " ({reason})"))
            }
            Difference::Left { kernel, engine } => {
                let packet = |(port, bytes): &(&str, Vec<u8>)| format!("{port} {}", Bytes::from(&bytes[..]));
                let all = |left: &[(&str, Vec<u8>)]| match left {
                    [] => "nothing".to_owned(),
                    left => left.iter().map(packet).collect::<Vec<_>>().join(" and "),
                };
                write!(f, "the kernel let out {}, the engine {}", all(kernel), all(engine))
            }
            Difference::Entry { kernel, engine } => {
                let line = |line: &Option<String>| line.clone().unwrap_or_else(|| "no entry".to_owned());
                write!(f, "in the table the kernel has: {}; the engine: {}", line(kernel), line(engine))
            }
        }
    }
}

/// The first packet of a window about which they differ.
pub(crate) fn packets(window: &Window, seen: &Seen, bytes_count: bool) -> Option<(usize, Difference)> {
    // What left is in the order of the packets of each far end only.
    let mut of_packet: HashMap<usize, Vec<(&'static str, &[u8])>> = HashMap::new();
    if bytes_count {
        of_packet.reserve(seen.left.len());
        for (place, port, range) in &seen.left {
            of_packet.entry(*place).or_default().push((port.name(), seen.get(range)));
        }
    }
    for (place, (item, kernel)) in window.items.iter().zip(&seen.ctinfo).enumerate() {
        let expected = &item.expected;
        if expected.ctinfo != *kernel {
            let (kernel, engine, reason) = (*kernel, expected.ctinfo, expected.reason);
            // Which fragment completed for the kernel what is none for the engine is not known.
            let waits = item.expected.reason.is_some() && engine.is_none();
            let place = if waits { window.items.len() - 1 } else { place };
            return Some((place, Difference::CtInfo { kernel, engine, reason }));
        }
        let is_asked = window.asks && place + 1 == window.items.len();
        if !bytes_count || is_asked {
            continue;
        }
        let engine = expected.left.iter().map(|left| (left.port.name(), window.get(&left.bytes), left.own));
        let kernel = of_packet.get(&place).map(Vec::as_slice).unwrap_or_default();
        if !same_left(engine.clone(), kernel) {
            let owned = |(port, bytes): (&'static str, &[u8])| (port, bytes.to_vec());
            let engine = engine.map(|(port, bytes, _)| owned((port, bytes))).collect();
            let kernel = kernel.iter().copied().map(owned).collect();
            return Some((place, Difference::Left { kernel, engine }));
        }
    }
    // A datagram that only the kernel put together; which fragment completed it is not known.
    let stray = seen.strays.first().zip(window.items.len().checked_sub(1));
    stray.map(|(kernel, last)| (last, Difference::CtInfo { kernel: Some(*kernel), engine: None, reason: None }))
}

/// Is what left the same? The identification of the fragments that a box makes of an IPv6 packet is the kernel's to draw,
/// one for all of them; so is that of an IPv4 packet that the box says itself, and the checksum of its header with it.
pub(crate) fn same_left<'a>(
    engine: impl ExactSizeIterator<Item = (&'static str, &'a [u8], bool)>,
    kernel: &[(&'static str, &[u8])],
) -> bool {
    let mut drawn = None;
    engine.len() == kernel.len()
        && engine.zip(kernel).all(|((port, ours, own), (by, theirs))| {
            port == *by
                && match identification(theirs) {
                    _ if own && is_timestamp(theirs) => same_but(&[4..6, 10..12, 22..24, 32..40], ours, theirs),
                    _ if own && is_v4(theirs) => same_but(&[4..6, 10..12], ours, theirs),
                    None => ours == *theirs,
                    Some(place) => {
                        let id = theirs.get(place.clone());
                        id == *drawn.get_or_insert(id) && same_but(&[place], ours, theirs)
                    }
                }
        })
}

/// Are they the same but for these places?
fn same_but(places: &[Range<usize>], ours: &[u8], theirs: &[u8]) -> bool {
    let other = |at: &usize| !places.iter().any(|place| place.contains(at));
    ours.len() == theirs.len() && (0..ours.len()).filter(other).all(|at| ours.get(at) == theirs.get(at))
}

/// Does it tell the time (RFC 792)?
fn is_timestamp(packet: &[u8]) -> bool {
    is_v4(packet) && packet.get(9) == Some(&proto::ICMP) && packet.get(20) == Some(&14)
}

fn is_v4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|byte| byte >> 4 == 4)
}

/// Where the identification of an IPv6 fragment is.
fn identification(packet: &[u8]) -> Option<Range<usize>> {
    let at = if packet.first()? >> 4 == 6 { find_fragment_header(packet)?.1 } else { return None };
    Some(at + 4..at + 8)
}

/// An entry that the engine has.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// As ctnetlink would tell it, with the timeout that it got when it was refreshed last.
    pub(crate) entry: Entry,
    /// The window in which that was.
    pub(crate) refreshed: u32,
}

/// When things happened in an episode.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// Beginning and end of each window.
    pub(crate) windows: Vec<(Instant, Instant)>,
    /// Windows before which time was let pass.
    pub(crate) pauses: Vec<usize>,
}

impl Times {
    /// Is it known which UDP flows were old enough to be streams?
    pub(crate) fn sure_of_streams(&self) -> bool {
        self.brisk(STREAM_AGE)
    }

    /// Were all windows between two pauses within `seconds`?
    fn brisk(&self, seconds: f64) -> bool {
        let mut bounds = vec![0];
        bounds.extend(&self.pauses);
        bounds.push(self.windows.len());
        bounds.windows(2).all(|pair| {
            let part = self.windows.get(pair[0]..pair[1]).unwrap_or_default();
            match (part.first(), part.last()) {
                (Some((from, _)), Some((_, to))) => to.duration_since(*from).as_secs_f64() < seconds,
                _ => true,
            }
        })
    }
}

/// A UDP flow of this age in seconds becomes a stream (UDP-02). The engine's clock knows windows, not milliseconds.
const STREAM_AGE: f64 = 1.9;
/// What a jiffy and two readings of a clock may differ by, in seconds.
const JITTER: f64 = 0.05;

/// The entries about which they differ. `dumped` is when the kernel's table was begun and done to be read.
pub(crate) fn table(held: &[Held], kernel: &[Entry], times: &Times, dumped: (Instant, Instant)) -> Vec<Difference> {
    let sure_of_streams = times.sure_of_streams();
    let mut kernel: HashMap<_, &Entry> = kernel.iter().map(|entry| ((entry.orig, entry.zone), entry)).collect();
    let mut differences = Vec::new();
    for Held { entry, refreshed } in held {
        let shown = |entry: &Entry| Some(format_extended(entry));
        match kernel.remove(&(entry.orig, entry.zone)) {
            None => differences.push(Difference::Entry { kernel: None, engine: shown(entry) }),
            Some(theirs) => {
                let unsure = entry.orig.proto == proto::UDP && !sure_of_streams;
                let timed = unsure || in_time(entry, theirs, times.windows.get(*refreshed as usize), dumped);
                if !timed || !same(entry, theirs, unsure) {
                    differences.push(Difference::Entry { kernel: shown(theirs), engine: shown(entry) });
                }
            }
        }
    }
    differences.extend(
        kernel.into_values().map(|entry| Difference::Entry { kernel: Some(format_extended(entry)), engine: None }),
    );
    differences
}

/// Is what the kernel has left of the timeout what it must be, to the moment?
fn in_time(ours: &Entry, theirs: &Entry, refreshed: Option<&(Instant, Instant)>, dumped: (Instant, Instant)) -> bool {
    let (Some(given), Some(left), Some((from, to))) = (ours.timeout, theirs.timeout, refreshed) else { return false };
    let passed = |from: &Instant, to: Instant| to.saturating_duration_since(*from).as_secs_f64();
    let least = (f64::from(given) - passed(from, dumped.1) - JITTER).floor();
    let most = (f64::from(given) - passed(to, dumped.0) + JITTER).floor();
    (least..=most).contains(&f64::from(left))
}

/// Everything but the timeout and what only the kernel numbers.
fn same(ours: &Entry, theirs: &Entry, unsure: bool) -> bool {
    let bits = if unsure { !status::ASSURED } else { !0 };
    ours.reply == theirs.reply
        && (ours.status ^ theirs.status) & bits == 0
        && ours.mark == theirs.mark
        && ours.tcp == theirs.tcp
        && ours.sctp == theirs.sctp
        && ours.counters == theirs.counters
        && ours.master == theirs.master
        && ours.helper == theirs.helper
}
