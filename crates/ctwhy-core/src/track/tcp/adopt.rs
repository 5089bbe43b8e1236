//! An entry that the kernel made, taken over in the middle of its connection: by whoever begins to watch.
//!
//! The kernel knows numbers that it does not tell. They are learnt again from what each side sends.

use super::options::MAX_WINDOW_SCALE;
use super::table::TcpState;
use super::trace::TcpStep;
use super::window::after;
use super::{Side, Tcp, side_flag, tell};
use crate::trace::Sink;

impl Tcp {
    /// What can be known of an entry that the kernel made: state, flags and scales as ctnetlink shows them by
    /// [`Direction::index`](crate::direction::Direction::index). The numbers of each side are learnt from its next packet, like those of an entry that came
    /// back from a flow table (`nf_conntrack_tcp_fixup`).
    #[must_use]
    pub fn from_ctnetlink(state: TcpState, flags: [u8; 2], scale: [u8; 2]) -> Tcp {
        let side = |flags: u8, scale: u8| Side {
            flags: flags & !side_flag::MAXACK_SET,
            td_scale: scale.min(MAX_WINDOW_SCALE),
            unheard: true,
            ..Side::default()
        };
        let [original, reply] = flags;
        let [original_scale, reply_scale] = scale;
        // Nothing is known of the last packet; in particular not that it closed its window.
        let last_win = u16::MAX;
        Tcp { sides: [side(original, original_scale), side(reply, reply_scale)], state, last_win, ..Tcp::NOTHING }
    }
}

/// An entry that was adopted from ctnetlink: its receiver sent nothing since, so whatever the kernel knows of its end,
/// it is at least what is acknowledged here.
pub(super) fn catch_up<S: Sink>(receiver: &mut Side, sack: u32, sink: &mut S) {
    if receiver.td_end != sack && (receiver.td_end == 0 || after(sack, receiver.td_end)) {
        receiver.td_end = sack;
        receiver.td_maxend = sack;
        tell(sink, || TcpStep::ReceiverGuessed { td_end: sack });
    }
}
