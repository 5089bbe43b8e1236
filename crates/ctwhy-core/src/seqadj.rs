//! Sequence numbers behind a payload whose length changed (`nf_conntrack_seqadj.c`; SEQ-01).
//!
//! Once a helper has made a segment longer or shorter, everything that its sender says later has other numbers for the
//! receiver, and what the receiver acknowledges has other numbers for the sender.

use crate::checksum::replaced;
use crate::direction::Direction;
use crate::packet::{be16, be32};
use crate::trace::{Sink, Step};
use crate::track::tcp::segment::flag;

/// How the numbers of one direction are shifted (`struct nf_ct_seqadj`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqAdjust {
    /// Where the last segment began whose length changed.
    pub position: u32,
    /// The shift up to there, modulo 2³².
    pub before: u32,
    /// The shift of what comes behind.
    pub after: u32,
}

/// Why a packet could not be adjusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeqDrop {
    /// The TCP header is not all there.
    Short {
        /// Bytes needed from the first of the header on.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// An option whose length cannot be right.
    Option {
        /// Where it begins in the TCP header.
        offset: usize,
    },
}

impl SeqDrop {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            SeqDrop::Short { .. } => "seqadj.short",
            SeqDrop::Option { .. } => "seqadj.option",
        }
    }
}

/// Does sequence number `a` lie after `b`?
const fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

impl SeqAdjust {
    /// `nf_ct_seqadj_set`: the segment at `seq` grew by `by` bytes, modulo 2³². False for what was counted already: one
    /// change in a window is all that is kept, and a retransmission does not count again.
    pub(crate) fn shift(&mut self, seq: u32, by: u32) -> bool {
        let counts = self.before == self.after || after(seq, self.position);
        if counts {
            self.position = seq;
            self.before = self.after;
            self.after = self.after.wrapping_add(by);
        }
        counts
    }

    /// The shift of a segment that begins at `seq`.
    #[must_use]
    pub const fn offset_at(&self, seq: u32) -> u32 {
        if after(seq, self.position) { self.after } else { self.before }
    }

    /// The number that the sender knows for `seen`, a number that the receiver saw.
    const fn unshift(&self, seen: u32) -> u32 {
        seen.wrapping_sub(self.offset_at(seen.wrapping_sub(self.before)))
    }
}

/// `nf_ct_seq_adjust`: rewrites sequence and acknowledgment numbers and SACK blocks of the segment at `at`.
///
/// Whatever is at `at` is taken for a TCP header, also where it is an ICMP error about the connection.
pub(crate) fn adjust<S: Sink>(
    packet: &mut [u8],
    at: usize,
    direction: Direction,
    both: &[SeqAdjust; 2],
    sink: &mut S,
) -> Result<(), SeqDrop> {
    const HEADER: usize = 20;
    const ACK_AT: usize = 8;

    let own = &both[direction.index()];
    let other = &both[direction.opposite().index()];
    let have = packet.len().saturating_sub(at);
    let short = |need| SeqDrop::Short { need, have };
    let segment = packet.get_mut(at..).filter(|segment| segment.len() >= HEADER).ok_or(short(HEADER))?;
    let seq = rewrite(segment, 4, |seq| seq.wrapping_add(own.offset_at(seq))).ok_or(short(HEADER))?;
    let mut ack = None;
    let mut blocks = 0;
    if segment[13] & flag::ACK != 0 {
        ack = rewrite(segment, ACK_AT, |ack| other.unshift(ack));
        let end = usize::from(segment[12] >> 4) * 4;
        if segment.len() < end {
            return Err(short(end));
        }
        blocks = adjust_sack(segment, HEADER, end, other)?;
    }
    sink.step(|| Step::SeqAdjusted { seq, ack, blocks });
    Ok(())
}

/// `nf_ct_sack_adjust`: the SACK blocks among the options; gives their number.
fn adjust_sack(segment: &mut [u8], mut at: usize, end: usize, other: &SeqAdjust) -> Result<u8, SeqDrop> {
    const EOL: u8 = 0;
    const NOP: u8 = 1;
    const SACK: u8 = 5;
    const BLOCK: usize = 8;

    let mut blocks = 0;
    while at < end {
        let refused = SeqDrop::Option { offset: at };
        match *segment.get(at..end).unwrap_or_default() {
            [] | [EOL, ..] => break,
            [NOP, ..] => at += 1,
            [_] => return Err(refused),
            [kind, length, ..] => {
                let next = at + usize::from(length);
                if length < 2 || next > end {
                    return Err(refused);
                }
                let data = usize::from(length) - 2;
                if kind == SACK && data >= BLOCK && data.is_multiple_of(BLOCK) {
                    for edge in (at + 2..next).step_by(4) {
                        rewrite(segment, edge, |edge| other.unshift(edge));
                    }
                    blocks += (data / BLOCK) as u8;
                }
                at = next;
            }
        }
    }
    Ok(blocks)
}

/// Changes a number in the header and the checksum with it; gives the number before and after.
fn rewrite(segment: &mut [u8], at: usize, change: impl Fn(u32) -> u32) -> Option<(u32, u32)> {
    const CHECKSUM: usize = 16;

    let from = be32(segment, at)?;
    let to = change(from);
    let checksum = replaced(be16(segment, CHECKSUM)?, &from.to_be_bytes(), &to.to_be_bytes());
    segment.get_mut(at..at + 4)?.copy_from_slice(&to.to_be_bytes());
    segment.get_mut(CHECKSUM..CHECKSUM + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;

    /// SEQ-01, SEQ-02: what comes before the last change has the old shift, a retransmission of the changed segment
    /// does not count again, and the way back undoes it.
    #[test]
    fn a_shift_holds_from_behind_the_segment_that_changed() {
        let mut way = SeqAdjust::default();
        assert!(way.shift(1000, 2));
        assert!(!way.shift(1000, 2));
        assert_eq!([way.offset_at(1000), way.offset_at(1001)], [0, 2]);
        assert_eq!([way.unshift(1000), way.unshift(1025)], [1000, 1023]);
        assert!(way.shift(2000, 5_u32.wrapping_neg()));
        assert_eq!([way.offset_at(2000), way.offset_at(2001)], [2, 3_u32.wrapping_neg()]);
        assert_eq!(way.unshift(2010), 2013);
        assert!(!way.shift(1500, 1));
    }

    fn segment(options: &[u8]) -> [u8; 40] {
        let mut segment = [0; 40];
        segment[4..8].copy_from_slice(&5000_u32.to_be_bytes());
        segment[8..12].copy_from_slice(&1025_u32.to_be_bytes());
        (segment[12], segment[13]) = (10 << 4, flag::ACK);
        segment[20..20 + options.len()].copy_from_slice(options);
        let checksum = Sum::default().bytes(&segment).checksum();
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        segment
    }

    #[test]
    fn numbers_blocks_and_checksum_follow() {
        let both = [SeqAdjust { position: 1000, before: 0, after: 2 }, SeqAdjust::default()];
        let mut packet = segment(&[1, 1, 5, 10, 0, 0, 3, 232, 0, 0, 4, 1]);
        assert_eq!(adjust(&mut packet, 0, Direction::Reply, &both, &mut ()), Ok(()));
        assert_eq!([be32(&packet, 4), be32(&packet, 8)], [Some(5000), Some(1023)]);
        assert_eq!([be32(&packet, 24), be32(&packet, 28)], [Some(1000), Some(1023)]);
        assert_eq!(Sum::default().bytes(&packet).fold(), 0xffff);
    }

    #[test]
    fn an_impossible_option_drops_the_segment() {
        let both = [SeqAdjust::default(); 2];
        for (options, offset) in [(&[5, 1][..], 20), (&[1, 1, 5, 19], 22)] {
            let refused = adjust(&mut segment(options), 0, Direction::Original, &both, &mut ());
            assert_eq!(refused, Err(SeqDrop::Option { offset }));
        }
        let short = adjust(&mut segment(&[])[..19], 0, Direction::Original, &both, &mut ());
        assert_eq!(short, Err(SeqDrop::Short { need: 20, have: 19 }));
        let cut = adjust(&mut segment(&[])[..30], 0, Direction::Original, &both, &mut ());
        assert_eq!(cut, Err(SeqDrop::Short { need: 40, have: 30 }));
    }
}
