//! What a kernel decided beside what was decided again: each difference typed, and a sentence.

use std::collections::BTreeMap;
use std::fmt;

use super::bytes::Bytes;
use super::events;
use super::expectations;
use super::outcome::{CtInfo, Hook, Outcome, PacketOutcome};
use super::table;

/// How far the two sides may lie apart without a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Seconds between the timeouts of an entry; `None` when timeouts are not compared at all.
    pub timeout: Option<u64>,
}

impl Default for Tolerance {
    /// Five seconds: a kernel's table is read a moment after the last packet, and the timeouts that matter lie farther
    /// apart than that.
    fn default() -> Self {
        Tolerance { timeout: Some(5) }
    }
}

impl Tolerance {
    pub(super) fn allows(self, recorded: Option<u64>, decided: Option<u64>) -> bool {
        match (self.timeout, recorded, decided) {
            (None, _, _) | (_, None, None) => true,
            (Some(most), Some(a), Some(b)) => a.abs_diff(b) <= most,
            _ => false,
        }
    }
}

/// Which of the packets that leave the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// Those that went through it.
    Forwarded,
    /// Those of its own.
    Generated,
}

impl fmt::Display for Emission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Emission::Forwarded => "forwarded",
            Emission::Generated => "generated",
        })
    }
}

/// One thing that the kernel decided and the other side did not, or otherwise. `packet` counts the case's packets from
/// 1, `index` those that left in its consequence from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // `recorded` is the kernel's side and `decided` the other, unset when it did not say.
pub enum Difference {
    /// Nothing was decided about a recorded packet.
    PacketMissing { packet: u64 },
    /// Something was decided about a packet that is not recorded.
    PacketUnexpected { packet: u64 },
    /// Another ctinfo.
    CtInfo { packet: u64, recorded: CtInfo, decided: Option<CtInfo> },
    /// Another hook.
    Hook { packet: u64, recorded: Hook, decided: Option<Hook> },
    /// Another reason for INVALID, in the words of the kernel's log.
    Log { packet: u64, recorded: Vec<String>, decided: Option<Vec<String>> },
    /// Delivered to the box by one side only.
    Local { packet: u64, recorded: bool, decided: Option<bool> },
    /// More or fewer packets left the box.
    Count { packet: u64, emission: Emission, recorded: usize, decided: Option<usize> },
    /// One left by another interface.
    Iface { packet: u64, emission: Emission, index: usize, recorded: String, decided: String },
    /// Another ctinfo of a generated one.
    GeneratedCtInfo { packet: u64, index: usize, recorded: CtInfo, decided: Option<CtInfo> },
    /// One has another length.
    Length { packet: u64, emission: Emission, index: usize, recorded: usize, decided: usize },
    /// One has other bytes: the offset of the first from the IP header on, and how many.
    Bytes {
        packet: u64,
        emission: Emission,
        index: usize,
        offset: usize,
        count: usize,
        recorded: Bytes,
        decided: Bytes,
    },
    /// No table was given beside the recorded one.
    TableMissing,
    /// An entry that only the kernel has.
    EntryMissing { entry: String },
    /// An entry that the kernel does not have.
    EntryUnexpected { entry: String },
    /// An entry of the same original tuple that differs in more than its timeout.
    Entry { recorded: String, decided: String },
    /// An entry whose timeout lies too far off; in seconds.
    Timeout { entry: String, recorded: Option<u64>, decided: Option<u64> },
    /// Something happened more or less often.
    Counter { name: String, recorded: u64, decided: u64 },
    /// No list of what is expected was given beside the recorded one.
    ExpectationsMissing,
    /// An expectation that only the kernel has.
    ExpectationMissing { expectation: String },
    /// An expectation that the kernel does not have.
    ExpectationUnexpected { expectation: String },
    /// No events were given beside the recorded ones.
    EventsMissing,
    /// An event that only the kernel told of, in this place.
    EventMissing { event: String },
    /// An event that the kernel did not tell of, in this place.
    EventUnexpected { event: String },
    /// Another event in the place of the kernel's.
    Event { recorded: String, decided: String },
}

/// A value that may not have been said.
struct Said<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Said<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::PacketMissing { packet } => write!(f, "packet {packet}: the kernel decided, nothing else did"),
            Difference::PacketUnexpected { packet } => {
                write!(f, "packet {packet}: decided, but the kernel recorded no such packet")
            }
            Difference::CtInfo { packet, recorded, decided } => {
                write!(f, "packet {packet}: the kernel said {recorded}, decided was {}", Said(*decided))
            }
            Difference::Hook { packet, recorded, decided } => {
                write!(f, "packet {packet}: the kernel decided at {recorded}, decided was at {}", Said(*decided))
            }
            Difference::Log { packet, recorded, decided } => {
                let words = |texts: &[String]| match texts {
                    [] => "no words".to_owned(),
                    texts => format!("\"{}\"", texts.join("\", \"")),
                };
                let (kernel, other) = (words(recorded), Said(decided.as_deref().map(words)));
                write!(f, "packet {packet}: the kernel logged {kernel} about it, decided would be {other}")
            }
            Difference::Local { packet, recorded, decided } => {
                let side = |local: bool| if local { "delivered to the box" } else { "not delivered to the box" };
                let (kernel, other) = (side(*recorded), Said(decided.map(side)));
                write!(f, "packet {packet}: it was {kernel} by the kernel, decided was: {other}")
            }
            Difference::Count { packet, emission, recorded, decided } => {
                write!(f, "packet {packet}: the kernel {emission} {recorded} packets, decided were {}", Said(*decided))
            }
            Difference::Iface { packet, emission, index, recorded, decided } => write!(
                f,
                "packet {packet}: {emission} packet {} left by {recorded} of the kernel, decided was {decided}",
                index + 1
            ),
            Difference::GeneratedCtInfo { packet, index, recorded, decided } => write!(
                f,
                "packet {packet}: the kernel said {recorded} about generated packet {}, decided was {}",
                index + 1,
                Said(*decided)
            ),
            Difference::Length { packet, emission, index, recorded, decided } => write!(
                f,
                "packet {packet}: {emission} packet {} had {recorded} bytes of the kernel, decided were {decided}",
                index + 1
            ),
            Difference::Bytes { packet, emission, index, offset, count, recorded, decided } => {
                let from = |bytes: &Bytes| Bytes::window(bytes, *offset, 8);
                write!(
                    f,
                    "packet {packet}: {emission} packet {} differs in {count} bytes; from offset {offset} on the kernel \
                     sent {}, decided was {}",
                    index + 1,
                    from(recorded),
                    from(decided)
                )
            }
            Difference::TableMissing => f.write_str("table: the kernel's was recorded, nothing is there beside it"),
            Difference::EntryMissing { entry } => write!(f, "table: the kernel alone has: {entry}"),
            Difference::EntryUnexpected { entry } => write!(f, "table: the kernel does not have: {entry}"),
            Difference::Entry { recorded, decided } => {
                write!(f, "table: the kernel has: {recorded}; decided was: {decided}")
            }
            Difference::Counter { name, recorded, decided } => {
                write!(f, "counters: {name} is {recorded} in the kernel, decided was {decided}")
            }
            Difference::ExpectationsMissing => {
                f.write_str("expectations: the kernel's were recorded, nothing is there beside them")
            }
            Difference::ExpectationMissing { expectation } => {
                write!(f, "expectations: the kernel alone has: {expectation}")
            }
            Difference::ExpectationUnexpected { expectation } => {
                write!(f, "expectations: the kernel does not have: {expectation}")
            }
            Difference::EventsMissing => {
                f.write_str("events: the kernel's were recorded, nothing is there beside them")
            }
            Difference::EventMissing { event } => write!(f, "events: the kernel alone told: {}", event.trim_start()),
            Difference::EventUnexpected { event } => {
                write!(f, "events: the kernel did not tell: {}", event.trim_start())
            }
            Difference::Event { recorded, decided } => {
                write!(f, "events: the kernel told: {}; decided was: {}", recorded.trim_start(), decided.trim_start())
            }
            Difference::Timeout { entry, recorded, decided } => {
                let (recorded, decided) = (Said(*recorded), Said(*decided));
                write!(f, "table: {recorded} seconds are left in the kernel, decided were {decided}, of: {entry}")
            }
        }
    }
}

/// Compares what was decided with what a kernel recorded. What the recording leaves unset is not compared; what it sets
/// and the other side leaves unset is a difference.
#[must_use]
pub fn compare(recorded: &Outcome, decided: &Outcome, tolerance: Tolerance) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut left: BTreeMap<u64, &PacketOutcome> = decided.packets.iter().map(|d| (d.packet, d)).collect();
    for r in &recorded.packets {
        match left.remove(&r.packet) {
            Some(d) => packet(r, d, &mut out),
            None => out.push(Difference::PacketMissing { packet: r.packet }),
        }
    }
    out.extend(left.into_keys().map(|packet| Difference::PacketUnexpected { packet }));
    match (&recorded.table, &decided.table) {
        (Some(recorded), Some(decided)) => table::compare(recorded, decided, tolerance, &mut out),
        (Some(_), None) => out.push(Difference::TableMissing),
        (None, _) => {}
    }
    match (&recorded.events, &decided.events) {
        (Some(recorded), Some(decided)) => events::compare(recorded, decided, tolerance, &mut out),
        (Some(_), None) => out.push(Difference::EventsMissing),
        (None, _) => {}
    }
    match (&recorded.expectations, &decided.expectations) {
        (Some(recorded), Some(decided)) => expectations::compare(recorded, decided, tolerance, &mut out),
        (Some(_), None) => out.push(Difference::ExpectationsMissing),
        (None, _) => {}
    }
    for (name, &recorded) in recorded.counters.iter().flatten() {
        let decided = decided.counters.as_ref().and_then(|counters| counters.get(name));
        if let Some(&decided) = decided.filter(|decided| **decided != recorded) {
            out.push(Difference::Counter { name: name.clone(), recorded, decided });
        }
    }
    out
}

/// The recorded value when it is set and differs.
fn differing<T: Copy + PartialEq>(recorded: Option<T>, decided: Option<T>) -> Option<T> {
    recorded.filter(|_| recorded != decided)
}

fn packet(r: &PacketOutcome, d: &PacketOutcome, out: &mut Vec<Difference>) {
    let packet = r.packet;
    out.extend(differing(r.ctinfo, d.ctinfo).map(|recorded| Difference::CtInfo {
        packet,
        recorded,
        decided: d.ctinfo,
    }));
    out.extend(differing(r.hook, d.hook).map(|recorded| Difference::Hook { packet, recorded, decided: d.hook }));
    if let Some(recorded) = r.log.as_ref().filter(|_| r.log != d.log) {
        out.push(Difference::Log { packet, recorded: recorded.clone(), decided: d.log.clone() });
    }
    out.extend(differing(r.local, d.local).map(|recorded| Difference::Local { packet, recorded, decided: d.local }));

    let emission = Emission::Forwarded;
    let counts = (r.forwarded.as_ref().map(Vec::len), d.forwarded.as_ref().map(Vec::len));
    out.extend(differing(counts.0, counts.1).map(|recorded| Difference::Count {
        packet,
        emission,
        recorded,
        decided: counts.1,
    }));
    let pairs = r.forwarded.iter().flatten().zip(d.forwarded.iter().flatten());
    for (index, (r, d)) in pairs.enumerate() {
        emitted(packet, emission, index, (&r.iface, &r.bytes), (&d.iface, &d.bytes), out);
    }

    let emission = Emission::Generated;
    let counts = (r.generated.as_ref().map(Vec::len), d.generated.as_ref().map(Vec::len));
    out.extend(differing(counts.0, counts.1).map(|recorded| Difference::Count {
        packet,
        emission,
        recorded,
        decided: counts.1,
    }));
    let pairs = r.generated.iter().flatten().zip(d.generated.iter().flatten());
    for (index, (r, d)) in pairs.enumerate() {
        emitted(packet, emission, index, (&r.iface, &r.bytes), (&d.iface, &d.bytes), out);
        let decided = d.ctinfo;
        out.extend(differing(r.ctinfo, decided).map(|recorded| Difference::GeneratedCtInfo {
            packet,
            index,
            recorded,
            decided,
        }));
    }
}

fn emitted(
    packet: u64,
    emission: Emission,
    index: usize,
    (r_iface, r_bytes): (&String, &Bytes),
    (d_iface, d_bytes): (&String, &Bytes),
    out: &mut Vec<Difference>,
) {
    if r_iface != d_iface {
        let (recorded, decided) = (r_iface.clone(), d_iface.clone());
        out.push(Difference::Iface { packet, emission, index, recorded, decided });
    }
    if r_bytes.len() != d_bytes.len() {
        let (recorded, decided) = (r_bytes.len(), d_bytes.len());
        out.push(Difference::Length { packet, emission, index, recorded, decided });
    }
    if let Some((offset, count)) = r_bytes.first_difference(d_bytes) {
        let (recorded, decided) = (r_bytes.clone(), d_bytes.clone());
        out.push(Difference::Bytes { packet, emission, index, offset, count, recorded, decided });
    }
}
