//! How far the clocks of the two captures are apart.
//!
//! A packet that was recognised at both sides without asking for the time says by how much the clocks differ, and by how
//! long it was on its way. Packets that go out make the difference look greater by that, packets that come back smaller:
//! the truth lies between them.

use crate::index::{End, Index, Mark};

/// What is known of the clock outside, by that inside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// How much the clock outside is ahead, in nanoseconds, at the beginning of the capture inside.
    pub offset_ns: i64,
    /// How wrong that may be.
    pub uncertainty_ns: u64,
    /// How much faster the clock outside runs, in nanoseconds per second.
    pub drift: f64,
    /// Packets that it was estimated from.
    pub packets: usize,
    /// Did packets of both directions say it? With one of them alone the way through the NAT is part of the offset.
    pub both_ways: bool,
    start: i128,
}

/// A packet that was recognised at both sides.
#[derive(Clone, Copy)]
struct Anchor {
    /// Since the first one, by the clock inside.
    time: i128,
    /// What the clock outside is ahead.
    ahead: i128,
}

impl Clock {
    /// Compares the times of packets that are unmistakable; `None` where there is no such packet.
    pub(crate) fn estimate(inside: &Index, outside: &Index) -> Option<Clock> {
        let (mut out, mut back, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for (key, places) in inside.iter() {
            let ([own], [other]) = (places, outside.places(key)) else { continue };
            if matches!(key.mark, Mark::Opening(_)) {
                continue;
            }
            let anchor = Anchor { time: own.time.into(), ahead: i128::from(other.time) - i128::from(own.time) };
            match key.end {
                End::To(..) => out.push(anchor),
                End::From(..) => back.push(anchor),
                End::Either => unknown.push(anchor),
            }
        }
        if out.is_empty() && back.is_empty() {
            out = unknown;
        }
        let start = out.iter().chain(&back).map(|anchor| anchor.time).min()?;
        let packets = out.len() + back.len();
        let both_ways = !out.is_empty() && !back.is_empty();
        let drifts: Vec<f64> = [&mut out, &mut back].into_iter().filter_map(|anchors| drift(anchors)).collect();
        let drift = drifts.iter().sum::<f64>() / drifts.len().max(1) as f64;
        for anchor in out.iter_mut().chain(&mut back) {
            anchor.ahead -= drifted(drift, anchor.time - start);
        }
        let (out, back) = (middle(&out), middle(&back));
        let (offset, way, noise) = match (out, back) {
            (Some((out, noise)), Some((back, other))) => ((out + back) / 2, (out - back).abs() / 2, noise.max(other)),
            (Some((only, noise)), None) | (None, Some((only, noise))) => (only, 0, noise),
            (None, None) => return None,
        };
        Some(Clock {
            offset_ns: i64::try_from(offset).unwrap_or(if offset < 0 { i64::MIN } else { i64::MAX }),
            uncertainty_ns: u64::try_from(way + noise).unwrap_or(u64::MAX),
            drift,
            packets,
            both_ways,
            start,
        })
    }

    /// A time outside as the clock inside would have said it, in nanoseconds.
    #[must_use]
    pub fn inside(&self, outside: u64) -> i128 {
        let time = i128::from(outside) - i128::from(self.offset_ns);
        time - drifted(self.drift, time - self.start)
    }
}

fn drifted(drift: f64, time: i128) -> i128 {
    (drift * (time as f64 / 1e9)) as i128
}

/// The median, and how far half of the values are at most from it.
fn middle(anchors: &[Anchor]) -> Option<(i128, i128)> {
    let middle = median(anchors.iter().map(|anchor| anchor.ahead).collect())?;
    Some((middle, median(anchors.iter().map(|anchor| (anchor.ahead - middle).abs()).collect())?))
}

fn median(mut values: Vec<i128>) -> Option<i128> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// How much faster the clock outside runs in nanoseconds per second, where the packets are enough to tell: the difference
/// between the first and the last third of them, against what the thirds differ in themselves.
fn drift(anchors: &mut [Anchor]) -> Option<f64> {
    const ENOUGH: usize = 4;
    const SECOND: f64 = 1e9;

    anchors.sort_unstable_by_key(|anchor| anchor.time);
    let third = anchors.len() / 3;
    let (early, late) = (anchors.get(..third)?, anchors.get(anchors.len() - third..)?);
    if third < ENOUGH {
        return None;
    }
    let time = |third: &[Anchor]| median(third.iter().map(|anchor| anchor.time).collect());
    let between = (time(late)? - time(early)?) as f64 / SECOND;
    let ((early, noise), (late, other)) = (middle(early)?, middle(late)?);
    let gained = (late - early) as f64;
    let told = between >= 1.0 && gained.abs() > 4.0 * noise.max(other) as f64 && gained.abs() > 1e6;
    told.then(|| gained / between)
}
