//! The fragments of one datagram that is not complete (`struct inet_frag_queue`).

use alloc::vec::Vec;

use super::refusal::Refusal;
use crate::packet::Packet;
use crate::time::Time;

/// A fragment that waits.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Where its data is in that of the datagram, in bytes.
    pub(super) offset: u32,
    /// How long its data is; `bytes` has less of it when a capture was cut.
    pub(super) len: u32,
    pub(super) bytes: Vec<u8>,
    /// How many bytes of headers it had.
    headers: usize,
    /// What the caller calls the packet that brought it.
    pub(super) label: u64,
}

/// How a fragment lies to those that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where nothing was.
    Free,
    /// All of it is there.
    Duplicate,
    /// Parts of it are there: in these bytes of the datagram.
    Overlap(u32, u32),
}

/// A datagram that is not complete.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// In the order of their offsets.
    pub(super) pieces: Vec<Piece>,
    /// Bytes that came as a run: from, to. Only a fragment that continues the last one joins its run.
    pub(super) runs: Vec<(u32, u32)>,
    /// The end of the datagram, as far as is known.
    pub(super) end: u32,
    /// How many bytes of it are there.
    pub(super) have: u32,
    /// Was the last fragment seen, so that `end` is its end?
    pub(super) last_seen: bool,
    /// Which of the four ECN codepoints were seen, a bit each.
    pub(super) ecn: u8,
    /// The longest fragment, as the family counts.
    pub(super) longest: u32,
    /// The longest one with DF (IPv4).
    pub(super) longest_df: u32,
    /// How many fragments of the source had been counted with the last one of this datagram.
    pub(super) counted: u32,
    /// The headers of the fragment at offset 0, as it came.
    pub(super) header: Option<Vec<u8>>,
    pub(super) deadline: Time,
    /// What is charged for it.
    pub(super) memory: usize,
}

impl Piece {
    /// The data from `data_at` on in a packet, which belongs from `offset` to `end` in the datagram.
    pub(super) fn new(packet: &Packet<'_>, data_at: usize, (offset, end): (u32, u32), label: u64) -> Piece {
        let len = end.saturating_sub(offset);
        let data = packet.bytes.get(data_at..).unwrap_or(&[]);
        Piece { offset, len, bytes: data.get(..len as usize).unwrap_or(data).to_vec(), headers: data_at, label }
    }
}

impl Queue {
    /// Takes note of where the datagram ends or goes on to, as a fragment from `offset` to `end` says it
    /// (`ip_frag_queue`, `nf_ct_frag6_queue`).
    pub(super) fn reaches(&mut self, offset: u32, end: u32, more: bool) -> Result<(), Refusal> {
        if more {
            if end > self.end {
                if self.last_seen {
                    return Err(Refusal::PastEnd { ends: end, end: self.end });
                }
                self.end = end;
            }
        } else {
            if end < self.end || (self.last_seen && end != self.end) {
                return Err(Refusal::LastDiffers { ends: end, end: self.end });
            }
            self.last_seen = true;
            self.end = end;
        }
        if end == offset { Err(Refusal::Empty) } else { Ok(()) }
    }

    /// `inet_frag_queue_insert`, the search: where the bytes from `offset` to `end` belong.
    pub(super) fn place(&self, offset: u32, end: u32) -> Place {
        let Some(&(_, tail)) = self.runs.last() else { return Place::Free };
        if tail < end {
            return if offset < tail { Place::Overlap(offset, tail) } else { Place::Free };
        }
        match self.runs.get(self.runs.partition_point(|run| run.1 <= offset)) {
            Some(&(from, to)) if from < end => {
                if from <= offset && end <= to {
                    Place::Duplicate
                } else {
                    Place::Overlap(offset.max(from), end.min(to))
                }
            }
            _ => Place::Free,
        }
    }

    /// `inet_frag_queue_insert`, for a fragment whose place is free.
    pub(super) fn insert(&mut self, piece: Piece) {
        let (offset, end) = (piece.offset, piece.offset + piece.len);
        match self.runs.last_mut() {
            Some(run) if run.1 == offset => run.1 = end,
            _ => self.runs.insert(self.runs.partition_point(|run| run.0 < offset), (offset, end)),
        }
        self.have += piece.len;
        let at = self.pieces.partition_point(|present| present.offset < offset);
        self.pieces.insert(at, piece);
    }

    /// Forgets all fragments. What was the longest stays known, as in `ip_frag_reinit`.
    pub(super) fn start_again(&mut self) {
        let Queue { longest, longest_df, counted, .. } = *self;
        *self = Queue { longest, longest_df, counted, ..Queue::default() };
    }

    /// Are the first and the last fragment there, and all between them?
    pub(super) fn is_complete(&self) -> bool {
        self.header.is_some() && self.last_seen && self.have == self.end
    }

    /// The end of the datagram, where the last fragment told it.
    pub(super) fn known_end(&self) -> Option<u32> {
        self.last_seen.then_some(self.end)
    }

    /// How many bytes of data and of headers each fragment has, in order.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.pieces.iter().map(|piece| (piece.len as usize, piece.headers))
    }

    /// The fragment at offset 0, as it came.
    pub(super) fn first(&self) -> Option<Vec<u8>> {
        let data = self.pieces.first().filter(|piece| piece.offset == 0)?;
        Some([self.header.as_deref()?, &data.bytes].concat())
    }

    /// Puts the data behind one another, as far as there is no gap that a cut capture left.
    pub(super) fn gather(&self, into: &mut Vec<u8>) {
        for piece in &self.pieces {
            into.extend_from_slice(&piece.bytes);
            if piece.bytes.len() < piece.len as usize {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(pieces: &[(u32, u32)]) -> Queue {
        let mut queue = Queue::default();
        for &(offset, end) in pieces {
            assert_eq!(queue.place(offset, end), Place::Free);
            queue.insert(Piece { offset, len: end - offset, bytes: Vec::new(), headers: 20, label: 0 });
        }
        queue
    }

    #[test]
    fn what_lies_in_one_run_is_a_duplicate_and_all_else_overlaps() {
        let in_order = queue(&[(0, 8), (8, 16), (16, 24)]);
        for (offset, end) in [(0, 8), (8, 24), (0, 24), (16, 24)] {
            assert_eq!(in_order.place(offset, end), Place::Duplicate, "{offset}..{end}");
        }
        assert_eq!(in_order.place(16, 32), Place::Overlap(16, 24));
        assert_eq!(in_order.place(24, 32), Place::Free);
    }

    #[test]
    fn fragments_that_came_in_another_order_make_no_run() {
        let backwards = queue(&[(16, 24), (8, 16), (0, 8)]);
        assert_eq!(backwards.place(8, 16), Place::Duplicate);
        assert_eq!(backwards.place(0, 16), Place::Overlap(0, 8));
        let gap = queue(&[(0, 8), (32, 40)]);
        assert_eq!(gap.place(8, 32), Place::Free);
        assert_eq!(gap.place(8, 40), Place::Overlap(32, 40));
        assert_eq!(gap.place(40, 48), Place::Free);
    }
}
