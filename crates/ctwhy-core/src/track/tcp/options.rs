//! The options that conntrack reads: window scale, SACK permitted, SACK.

use super::segment::Segment;

const EOL: u8 = 0;
const NOP: u8 = 1;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;

/// The largest shift that counts; a larger one is taken for this (RFC 7323 section 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// Walks options, kind and data, up to the end-of-options mark or the first one whose length cannot be right.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                [NOP, ref rest @ ..] => self.0 = rest,
                [] | [_] | [EOL, ..] => return None,
                [kind, length, ref rest @ ..] => {
                    let (data, rest) = rest.split_at_checked(usize::from(length).checked_sub(2)?)?;
                    self.0 = rest;
                    return Some((kind, data));
                }
            }
        }
    }
}

/// What the options of a SYN say about its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SynOptions {
    /// The shift, when window scaling is offered.
    pub(super) window_scale: Option<u8>,
    /// Whether SACK is permitted.
    pub(super) sack_permitted: bool,
}

/// `tcp_options`: what the options say; `None` when the header has no room for any, which leaves what was known as it
/// is.
pub(super) fn of_syn(seg: &Segment<'_>) -> Option<SynOptions> {
    if seg.header_len <= 20 {
        return None;
    }
    let mut found = SynOptions::default();
    for option in Options(seg.options) {
        match option {
            (SACK_PERMITTED, []) => found.sack_permitted = true,
            (WINDOW_SCALE, &[shift]) => found.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
            _ => {}
        }
    }
    Some(found)
}

/// `tcp_sack`: the highest right edge in the first SACK option, or `ack` when none lies beyond it.
pub(super) fn highest_sack(seg: &Segment<'_>, ack: u32) -> u32 {
    let blocks = Options(seg.options)
        .find(|(kind, data)| *kind == SACK && !data.is_empty() && data.len() % 8 == 0)
        .map_or(&[][..], |(_, data)| data);
    let mut highest = ack;
    for block in blocks.chunks_exact(8) {
        if let [_, _, _, _, r0, r1, r2, r3] = *block {
            let right = u32::from_be_bytes([r0, r1, r2, r3]);
            if super::window::after(right, highest) {
                highest = right;
            }
        }
    }
    highest
}
