//! Window tracking: is a segment one that its receiver could accept (catalogue E.6)?
//!
//! The tracker stands between the two ends and keeps for each what it has sent and what the other allows it to send.
//! `S` below is the sender of the packet at hand, `R` its receiver.

use super::adopt::catch_up;
use super::segment::{Index, Segment, flag};
use super::trace::{Liberal, TcpReason, TcpStep};
use super::{Side, Tcp, TcpState, options, side_flag, tell};
use crate::direction::Direction;
use crate::trace::Sink;
use crate::track::Context;

/// `MAXACKWINCONST`: how far below R's end an acknowledgment may lie when S's window is smaller than this.
pub const MAX_ACK_WINDOW: u32 = 66_000;

/// Does sequence number `a` lie before `b` (RFC 9293 section 3.4)?
pub(super) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Does sequence number `a` lie after `b`?
pub(super) const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

/// The comparison of a segment with the window: the segment's numbers and those of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowCheck {
    /// The direction of the segment.
    pub direction: Direction,
    /// Where the segment begins.
    pub seq: u32,
    /// Where it ends.
    pub end: u32,
    /// What it acknowledges.
    pub ack: u32,
    /// The highest right edge that it acknowledges selectively, `ack` without SACK.
    pub sack: u32,
    /// S: the highest end sent.
    pub sender_end: u32,
    /// S: the highest end that R allows.
    pub sender_maxend: u32,
    /// S: the largest window announced.
    pub sender_maxwin: u32,
    /// R: the highest end sent.
    pub receiver_end: u32,
    /// R: the largest window announced, 0 when nothing is known of R.
    pub receiver_maxwin: u32,
}

impl WindowCheck {
    /// Bound I: the segment begins where R's window allows.
    #[must_use]
    pub const fn seq_upper_ok(&self) -> bool {
        before(self.seq, self.sender_maxend.wrapping_add(1))
    }

    /// The limit of bound II: the lowest end that R could still want.
    #[must_use]
    pub const fn seq_lower_bound(&self) -> u32 {
        self.sender_end.wrapping_sub(self.receiver_maxwin)
    }

    /// Bound II: the segment ends where R could still want it. `None` when nothing is known of R's window.
    #[must_use]
    pub const fn seq_lower_ok(&self) -> Option<bool> {
        match self.receiver_maxwin {
            0 => None,
            _ => Some(after(self.end, self.seq_lower_bound().wrapping_sub(1))),
        }
    }

    /// Bound III: everything acknowledged was seen.
    #[must_use]
    pub const fn ack_upper_ok(&self) -> bool {
        before(self.sack, self.receiver_end.wrapping_add(1))
    }

    /// The width of bound IV: the larger of S's window and [`MAX_ACK_WINDOW`].
    #[must_use]
    pub fn ack_window(&self) -> u32 {
        self.sender_maxwin.max(MAX_ACK_WINDOW)
    }

    /// The limit of bound IV: the lowest acknowledgment that is not overly delayed.
    #[must_use]
    pub fn ack_lower_bound(&self) -> u32 {
        self.receiver_end.wrapping_sub(self.ack_window())
    }

    /// Bound IV: the acknowledgment is not overly delayed.
    #[must_use]
    pub fn ack_lower_ok(&self) -> bool {
        after(self.sack, self.ack_lower_bound().wrapping_sub(1))
    }

    /// How many bytes the segment reaches beyond the window, the way conntrack counts: one more than there are.
    #[must_use]
    pub const fn overshot(&self) -> u32 {
        self.end.wrapping_sub(self.sender_maxend).wrapping_add(1)
    }

    /// What follows from the four bounds.
    #[must_use]
    pub fn verdict(&self) -> WindowVerdict {
        if !self.seq_upper_ok() {
            let lower_ok = matches!(self.seq_lower_ok(), Some(true));
            if lower_ok && self.ack_lower_ok() && self.ack_upper_ok() && self.overshot() <= self.receiver_maxwin {
                WindowVerdict::Overshot
            } else {
                WindowVerdict::SeqOver
            }
        } else if !self.ack_upper_ok() {
            WindowVerdict::AckOver
        } else if matches!(self.seq_lower_ok(), Some(false)) {
            WindowVerdict::SeqUnder
        } else if !self.ack_lower_ok() {
            WindowVerdict::AckUnder
        } else {
            WindowVerdict::Inside
        }
    }
}

/// What the four bounds say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowVerdict {
    /// All bounds hold.
    Inside,
    /// Only bound I fails, by no more than R's window: passes, and S's end moves so that an answer fits.
    Overshot,
    /// Bound I fails by more, or not alone: INVALID.
    SeqOver,
    /// Bound III fails: INVALID.
    AckOver,
    /// Bound II fails: old data again; passes, changes nothing.
    SeqUnder,
    /// Bound IV fails: an old acknowledgment; passes, changes nothing.
    AckUnder,
}

/// What `tcp_in_window` says (`enum nf_ct_tcp_action`).
pub(super) enum Window {
    Accept,
    Ignore,
    Invalid(TcpReason),
}

impl Tcp {
    /// `tcp_in_window`: checks a segment against the window and learns from it.
    pub(super) fn in_window<S: Sink>(
        &mut self,
        seg: &Segment<'_>,
        direction: Direction,
        cx: &Context<'_>,
        sink: &mut S,
    ) -> Window {
        let [original, reply] = &mut self.sides;
        let (sender, receiver) = match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        };
        let (mut seq, mut end) = (seg.seq, seg.end());
        let mut ack = seg.ack;
        let mut sack = if receiver.has(side_flag::SACK_PERM) { options::highest_sack(seg, ack) } else { ack };
        // Where a helper changed the length of payloads, what is acknowledged is not what was sent (SEQ-01).
        if seg.ack_offset != 0 {
            tell(sink, || TcpStep::AckShifted { ack, by: seg.ack_offset });
            ack = ack.wrapping_sub(seg.ack_offset);
            sack = sack.wrapping_sub(seg.ack_offset);
        }
        let syn = seg.has(flag::SYN);

        if sender.td_maxwin == 0 {
            if syn {
                start_sender(sender, receiver, seg, direction, sink);
                tell(sink, || started(sender, direction, false));
                if !seg.has(flag::ACK) {
                    tell(sink, || TcpStep::SynUnchecked);
                    return Window::Accept;
                }
            } else {
                guess_window(sender, receiver, seg, sack, direction, sink);
            }
        } else if syn && after(end, sender.td_end) && matches!(self.state, TcpState::SynSent | TcpState::SynRecv) {
            start_sender(sender, receiver, seg, direction, sink);
            tell(sink, || started(sender, direction, true));
            if direction == Direction::Reply && !seg.has(flag::ACK) {
                tell(sink, || TcpStep::SynUnchecked);
                return Window::Accept;
            }
        }
        if receiver.unheard && seg.has(flag::ACK) {
            catch_up(receiver, sack, sink);
        }

        let zero = seg.has(flag::RST | flag::ACK) && ack == 0;
        if !seg.has(flag::ACK) || zero {
            ack = receiver.td_end;
            sack = ack;
            tell(sink, || TcpStep::AckAssumed { ack, zero });
        }
        if seg.has(flag::RST) && seq == 0 && self.state == TcpState::SynSent {
            seq = sender.td_end;
            end = seq;
            tell(sink, || TcpStep::RstSeqAssumed { seq });
        }

        let check = WindowCheck {
            direction,
            seq,
            end,
            ack,
            sack,
            sender_end: sender.td_end,
            sender_maxend: sender.td_maxend,
            sender_maxwin: sender.td_maxwin,
            receiver_end: receiver.td_end,
            receiver_maxwin: receiver.td_maxwin,
        };
        let verdict = check.verdict();
        tell(sink, || TcpStep::Window { check, verdict });
        if verdict == WindowVerdict::Overshot {
            // If the peer acknowledges this data, bound III must not fail for the rest of the connection.
            sender.td_end = end;
            sender.flags |= side_flag::DATA_UNACKNOWLEDGED;
        }
        if verdict != WindowVerdict::Inside
            && let Some(liberal) = liberal(sender, cx)
        {
            tell(sink, || TcpStep::Liberal(liberal));
            return Window::Accept;
        }
        match verdict {
            WindowVerdict::Inside => {}
            WindowVerdict::Overshot | WindowVerdict::SeqUnder | WindowVerdict::AckUnder => return Window::Ignore,
            WindowVerdict::SeqOver => return Window::Invalid(TcpReason::SeqOverUpperBound { check }),
            WindowVerdict::AckOver => return Window::Invalid(TcpReason::AckOverUpperBound { check }),
        }

        update(sender, receiver, seg, &check);
        tell(sink, || TcpStep::WindowUpdated {
            direction,
            td_end: sender.td_end,
            td_maxwin: sender.td_maxwin,
            peer_td_maxend: receiver.td_maxend,
            peer_td_maxwin: receiver.td_maxwin,
        });
        if seg.index() == Index::Ack {
            self.count_retransmission(seg.window, &check, sink);
        }
        Window::Accept
    }

    /// Is this the same pure ACK again? PSH and data count as well, FIN, SYN and RST do not.
    fn count_retransmission<S: Sink>(&mut self, window: u16, check: &WindowCheck, sink: &mut S) {
        let &WindowCheck { direction, seq, end, ack, .. } = check;
        let seen = (self.last_dir, self.last_seq, self.last_ack, self.last_end, self.last_win);
        if seen == (direction, seq, ack, end, window) {
            self.retrans = self.retrans.wrapping_add(1);
            tell(sink, || TcpStep::Retransmitted { times: self.retrans });
        } else {
            (self.last_dir, self.last_seq, self.last_ack, self.last_end, self.last_win) =
                (direction, seq, ack, end, window);
            self.retrans = 0;
        }
    }
}

/// `tcp_init_sender`: what a SYN or SYN/ACK says about its sender.
fn start_sender<S: Sink>(
    sender: &mut Side,
    receiver: &mut Side,
    seg: &Segment<'_>,
    direction: Direction,
    sink: &mut S,
) {
    sender.unheard = false;
    sender.start(seg);
    let both = sender.has(side_flag::WINDOW_SCALE) && receiver.has(side_flag::WINDOW_SCALE);
    if direction == Direction::Reply && !both {
        sender.td_scale = 0;
        receiver.td_scale = 0;
        tell(sink, || TcpStep::ScalingOff);
    }
}

fn started(sender: &Side, direction: Direction, again: bool) -> TcpStep {
    let &Side { td_end, td_maxwin, td_scale: scale, flags, .. } = sender;
    if again {
        TcpStep::SenderRestarted { direction, td_end, td_maxwin, scale, flags }
    } else {
        TcpStep::SenderStarted { direction, td_end, td_maxwin, scale, flags }
    }
}

/// The sender's first packet is in the middle of a connection: its numbers are taken from there.
fn guess_window<S: Sink>(
    sender: &mut Side,
    receiver: &mut Side,
    seg: &Segment<'_>,
    sack: u32,
    direction: Direction,
    sink: &mut S,
) {
    sender.unheard = false;
    sender.td_end = seg.end();
    sender.td_maxwin = (u32::from(seg.window) << sender.td_scale).max(1);
    sender.td_maxend = sender.td_end.wrapping_add(sender.td_maxwin);
    let &mut Side { td_end, td_maxend, td_maxwin, .. } = sender;
    tell(sink, || TcpStep::SenderGuessed { direction, td_end, td_maxend, td_maxwin });
    if receiver.td_maxwin == 0 {
        receiver.td_end = sack;
        receiver.td_maxend = sack;
        tell(sink, || TcpStep::ReceiverGuessed { td_end: sack });
    } else if sack == receiver.td_end.wrapping_add(1) {
        receiver.td_end = sack;
        tell(sink, || TcpStep::KeepaliveAnswered { td_end: sack });
    }
}

/// Whether a failed check is forgiven.
fn liberal(sender: &Side, cx: &Context<'_>) -> Option<Liberal> {
    if sender.has(side_flag::BE_LIBERAL) {
        Some(Liberal::Flag)
    } else if cx.sysctls.tcp_be_liberal {
        Some(Liberal::Sysctl)
    } else {
        None
    }
}

/// Learns from a segment that is inside the window.
fn update(sender: &mut Side, receiver: &mut Side, seg: &Segment<'_>, check: &WindowCheck) {
    let &WindowCheck { end, ack, sack, .. } = check;
    // A SYN's own window is never scaled (RFC 7323 section 2.2).
    let win = u32::from(seg.window) << if seg.has(flag::SYN) { 0 } else { sender.td_scale };

    sender.td_maxwin = sender.td_maxwin.max(win.wrapping_add(sack.wrapping_sub(ack)));
    if after(end, sender.td_end) {
        sender.td_end = end;
        sender.flags |= side_flag::DATA_UNACKNOWLEDGED;
    }
    if seg.has(flag::ACK) && (!sender.has(side_flag::MAXACK_SET) || after(ack, sender.td_maxack)) {
        sender.td_maxack = ack;
        sender.flags |= side_flag::MAXACK_SET;
    }

    if receiver.td_maxwin != 0 && after(end, sender.td_maxend) {
        receiver.td_maxwin = receiver.td_maxwin.wrapping_add(end.wrapping_sub(sender.td_maxend));
    }
    let right_edge = sack.wrapping_add(win);
    if after(right_edge, receiver.td_maxend.wrapping_sub(1)) {
        receiver.td_maxend = right_edge.wrapping_add(u32::from(win == 0));
    }
    if ack == receiver.td_end {
        receiver.flags &= !side_flag::DATA_UNACKNOWLEDGED;
    }
}
