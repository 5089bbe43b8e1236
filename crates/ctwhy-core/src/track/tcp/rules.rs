//! The special rules between the state table and the window check (catalogue E.5).

use super::segment::{Index, Segment};
use super::table::{Cell, TcpState};
use super::trace::{ReopenCause, RstRule, TcpReason, TcpStep};
use super::window::before;
use super::{Side, Tcp, options, side_flag, tell};
use crate::direction::Direction;
use crate::profile::Profile;
use crate::reason::Reason;
use crate::status::Status;
use crate::sysctl::Sysctls;
use crate::trace::Sink;
use crate::track::Outcome;

/// How a packet goes on behind the rules.
pub(super) enum Next {
    /// To the window check, and then to `new`. `old` is the state that the packet is taken to have met.
    Window { old: TcpState, new: TcpState },
    /// To `new` without a window check.
    Unchecked { new: TcpState },
    /// Nowhere: this is the outcome.
    Done(Outcome),
}

/// A packet with what the rules ask about it.
#[derive(Clone, Copy)]
pub(super) struct Case<'a, 'b> {
    pub(super) seg: &'a Segment<'b>,
    pub(super) direction: Direction,
    pub(super) index: Index,
    /// The bits of the entry before this packet.
    pub(super) status: Status,
    pub(super) sysctls: &'a Sysctls,
    pub(super) kernel: &'static Profile,
}

impl Tcp {
    /// `nf_conntrack_tcp_packet`, its switch over the new state: what the cell of the state table leads to.
    pub(super) fn apply<S: Sink>(&mut self, cell: Cell, case: &Case<'_, '_>, sink: &mut S) -> Next {
        let Case { direction, index, .. } = *case;
        let old = self.state;
        let new = match cell {
            Cell::Invalid => {
                return Next::Done(Reason::Tcp(TcpReason::InvalidState { direction, index, state: old }).into());
            }
            Cell::Ignore => return self.ignore(case, sink),
            Cell::To(new) => new,
        };
        match new {
            TcpState::SynSent if matches!(old, TcpState::TimeWait | TcpState::Close) => {
                if let Some(cause) = self.may_reopen(direction) {
                    tell(sink, || TcpStep::Reopen { state: old, cause });
                    return Next::Done(Outcome::Reopen);
                }
                tell(sink, || TcpStep::NotReopened { state: old });
                return self.ignore(case, sink);
            }
            TcpState::TimeWait if old == TcpState::LastAck && self.is_challenge_ack(direction, index) => {
                self.last_flags &= !side_flag::EXP_CHALLENGE_ACK;
                tell(sink, || TcpStep::ChallengeAckIgnored);
                return Next::Done(Outcome::Ignore);
            }
            TcpState::SynSent2 => {
                self.last_flags |= side_flag::SIMULTANEOUS_OPEN;
                tell(sink, || TcpStep::SimultaneousOpen);
            }
            TcpState::SynRecv
                if direction == Direction::Reply
                    && index == Index::Ack
                    && self.last_flags & side_flag::SIMULTANEOUS_OPEN != 0 =>
            {
                tell(sink, || TcpStep::SimultaneousOpenCompleted);
                return Next::Window { old, new: TcpState::Established };
            }
            TcpState::Close if index == Index::Rst => return self.rst(case, sink),
            _ => {}
        }
        Next::Window { old, new }
    }

    /// May a SYN in `direction` delete this finished entry (TCP-REOPEN-01)?
    fn may_reopen(&self, direction: Direction) -> Option<ReopenCause> {
        let closer = Direction::BOTH.into_iter().find(|d| self.flags(*d) & side_flag::CLOSE_INIT != 0);
        match closer {
            Some(closer) => Some(ReopenCause::Closed(closer)),
            None if self.last_dir == direction && self.last_index == Index::Rst => Some(ReopenCause::RstFromSameSide),
            None => None,
        }
    }

    /// Is this ACK in LAST_ACK the answer to an ignored SYN (RFC 5961 section 4), not to the FIN (TCP-CHALL-02)?
    fn is_challenge_ack(&self, direction: Direction, index: Index) -> bool {
        index == Index::Ack
            && self.last_dir != direction
            && self.last_index == Index::Syn
            && self.last_flags & side_flag::EXP_CHALLENGE_ACK != 0
    }

    /// The entry may be out of step with the two ends, so the packet passes and is remembered (TCP-IGN-01), unless it
    /// shows that the ends agree about a SYN that was ignored before (TCP-IGN-02).
    fn ignore<S: Sink>(&mut self, case: &Case<'_, '_>, sink: &mut S) -> Next {
        let Case { seg, direction, index, .. } = *case;
        let answers_ignored_syn = index == Index::SynAck
            && self.last_index == Index::Syn
            && self.last_dir != direction
            && seg.ack == self.last_end;
        if answers_ignored_syn {
            self.resync(direction, sink);
            return Next::Window { old: TcpState::SynSent, new: TcpState::SynRecv };
        }

        let old = self.state;
        let end = seg.end();
        tell(sink, || TcpStep::Ignored { direction, index, state: old, end });
        self.last_index = index;
        self.last_dir = direction;
        self.last_seq = seg.seq;
        self.last_end = end;
        self.last_win = seg.window;
        // From the other side in TIME_WAIT alone, where none can answer it.
        if index == Index::Syn {
            let offered = options::of_syn(seg).unwrap_or_default();
            self.last_wscale = offered.window_scale.unwrap_or(0);
            self.last_flags = offered.flags();
            if old == TcpState::LastAck {
                self.last_flags |= side_flag::EXP_CHALLENGE_ACK;
                tell(sink, || TcpStep::ChallengeAckExpected);
            }
        }
        // There nothing is ignored but ACKs of the other side.
        if old == TcpState::SynSent {
            self.last_ack = seg.ack;
        }
        Next::Done(Outcome::Ignore)
    }

    /// The ignored SYN was real: its sender's side is loaded from what was remembered, the answerer's starts afresh.
    fn resync<S: Sink>(&mut self, direction: Direction, sink: &mut S) {
        self.last_flags &= !side_flag::EXP_CHALLENGE_ACK;
        let (end, window, scale) = (self.last_end, u32::from(self.last_win).max(1), self.last_wscale);
        let flags = self.last_flags;
        let syn_direction = direction.opposite();
        *self.side_mut(syn_direction) =
            Side { td_end: end, td_maxend: end, td_maxwin: window, td_scale: scale, flags, ..Side::default() };
        let answerer = self.side_mut(direction);
        *answerer = Side { flags: answerer.flags & side_flag::BE_LIBERAL, ..Side::default() };
        tell(sink, || TcpStep::Resync { syn_direction, end, window, scale });
    }

    /// An RST that the table sends to CLOSE: is it one that its receiver would believe (TCP-RST-01 to 03, TCP-CHALL-03)?
    fn rst<S: Sink>(&self, case: &Case<'_, '_>, sink: &mut S) -> Next {
        let Case { seg, direction, status, sysctls, kernel, .. } = *case;
        let old = self.state;
        let mut new = TcpState::Close;
        let mut note = |rule| tell(sink, || TcpStep::Rst(rule));
        if old.is_closing() {
            note(RstRule::ClosingUnchecked { state: old });
            return Next::Unchecked { new };
        }

        let receiver = self.side(direction.opposite());
        let (seq, maxack) = (seg.seq, receiver.td_maxack);
        if !receiver.has(side_flag::MAXACK_SET) {
            note(RstRule::NothingAcknowledged);
        } else if self.last_index == Index::Syn {
            note(RstRule::AfterSyn);
        } else {
            let established = old == TcpState::Established && status.contains(Status::ASSURED);
            if seq == 0 && !established {
                note(RstRule::SeqZero);
                return Next::Window { old, new };
            }
            if before(seq, maxack) {
                if !sysctls.tcp_ignore_invalid_rst {
                    return Next::Done(Reason::Tcp(TcpReason::InvalidRst { seq, maxack }).into());
                }
                note(RstRule::BelowAckTolerated { seq, maxack });
            }
            let exact = seq == maxack;
            let train = self.last_index == Index::Ack && self.last_dir == direction && seq == self.last_end;
            if !established {
                note(RstRule::NotEstablished { seq, maxack });
                return Next::Window { old, new };
            }
            if exact || train {
                note(if exact { RstRule::Exact { seq } } else { RstRule::Train { seq } });
                return Next::Window { old, new };
            }
            note(RstRule::Inexact { seq, maxack });
            new = old;
        }

        let to_syn = status.contains(Status::SEEN_REPLY)
            && self.last_index == Index::Syn
            && (self.last_dir != direction || kernel.rst_answers_own_syn);
        let to_ack = !status.contains(Status::ASSURED) && self.last_index == Index::Ack;
        if (to_syn || to_ack) && seg.ack == self.last_end {
            note(RstRule::AnswersIgnored { ack: seg.ack });
            return Next::Unchecked { new };
        }
        let to_challenge_ack = old == TcpState::SynSent
            && self.last_index == Index::Ack
            && self.last_dir == Direction::Reply
            && seq == self.last_ack;
        if to_challenge_ack {
            note(RstRule::AnswersChallengeAck { seq });
            return Next::Unchecked { new };
        }
        Next::Window { old, new }
    }
}
