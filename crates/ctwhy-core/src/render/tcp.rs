//! Steps and refusals of the TCP tracker in words.

use core::fmt::{self, Display, Formatter};

use crate::track::tcp::segment::flag;
use crate::track::tcp::side_flag;
use crate::track::tcp::trace::{Liberal, ReopenCause, RstRule, TimeoutCause};
use crate::track::tcp::window::{MAX_ACK_WINDOW, WindowCheck, WindowVerdict};
use crate::track::tcp::{Cell, Index, TcpReason, TcpState, TcpStep};

/// Flags of a header: `SYN|ACK`, `none`.
struct Flags(u8);

impl Display for Flags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        list(f, self.0, &flag::NAMES)
    }
}

/// Flags of a side of an entry: `WINDOW_SCALE|SACK_PERM`, `none`.
struct SideFlags(u8);

impl Display for SideFlags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        list(
            f,
            self.0,
            &[
                (side_flag::WINDOW_SCALE, "WINDOW_SCALE"),
                (side_flag::SACK_PERM, "SACK_PERM"),
                (side_flag::CLOSE_INIT, "CLOSE_INIT"),
                (side_flag::BE_LIBERAL, "BE_LIBERAL"),
                (side_flag::DATA_UNACKNOWLEDGED, "DATA_UNACKNOWLEDGED"),
                (side_flag::MAXACK_SET, "MAXACK_SET"),
            ],
        )
    }
}

/// `a SYN`, `an ACK`.
struct A(Index);

impl Display for A {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Index::Ack | Index::Rst => write!(f, "an {}", self.0),
            Index::Syn | Index::SynAck | Index::Fin => write!(f, "a {}", self.0),
            Index::None => f.write_str("a packet without SYN, FIN, ACK and RST"),
        }
    }
}

/// `at most 7`, `nothing yet`.
struct AtMost(u32);

impl Display for AtMost {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("nothing yet"),
            window => write!(f, "at most {window}"),
        }
    }
}

/// `1 byte`, `2 bytes`.
struct Bytes(u32);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

fn list(f: &mut Formatter<'_>, set: u8, names: &[(u8, &str)]) -> fmt::Result {
    let mut separator = "";
    for (bit, name) in names {
        if set & bit != 0 {
            write!(f, "{separator}{name}")?;
            separator = "|";
        }
    }
    if separator.is_empty() { f.write_str("none") } else { Ok(()) }
}

/// One sentence for a step.
///
/// # Errors
/// Those of the formatter.
pub fn step(step: &TcpStep, f: &mut Formatter<'_>) -> fmt::Result {
    match *step {
        TcpStep::Header { seq, end, ack, flags, window, payload } => write!(
            f,
            "TCP header is sound: {}, seq {seq} to {end} ({} of payload), ack {ack}, window {window}",
            Flags(flags),
            Bytes(payload)
        ),
        TcpStep::NewSyn { td_end, td_maxwin, scale, sack_permitted } => {
            write!(f, "a SYN begins the entry: it ends at {td_end} and announces a window of {td_maxwin}, ")?;
            match scale {
                Some(scale) => write!(f, "offers window scale {scale}")?,
                None => f.write_str("offers no window scaling")?,
            }
            f.write_str(if sack_permitted { " and permits SACK" } else { " and does not permit SACK" })
        }
        TcpStep::NewPickup { td_end, td_maxend, td_maxwin } => write!(
            f,
            "an ACK without entry picks up a running connection (nf_conntrack_tcp_loose is 1): end {td_end}, may send \
             up to {td_maxend}, window {td_maxwin}; window checks of both sides are liberal from here on"
        ),
        TcpStep::Lookup { direction, index, state, cell } => {
            write!(f, "state table: {} in {direction} direction in state {state}: ", A(index))?;
            match cell {
                Cell::To(new) if new == state => write!(f, "stay in {new}"),
                Cell::To(new) => write!(f, "go to {new}"),
                Cell::Ignore => f.write_str("ignore"),
                Cell::Invalid => f.write_str("invalid"),
            }
        }
        TcpStep::Reopen { state, cause } => {
            write!(f, "a SYN on an entry in {state} ")?;
            match cause {
                ReopenCause::Closed(direction) => {
                    write!(f, "whose {direction} side has closed it with a FIN")?;
                }
                ReopenCause::RstFromSameSide => f.write_str("whose last packet was an RST from the same side")?,
            }
            f.write_str(": a new connection, so the old entry is deleted and the packet looked up again")
        }
        TcpStep::NotReopened { state } => write!(
            f,
            "a SYN on an entry in {state} that was not closed with a FIN, and whose last packet was no RST from the \
             same side: it may not replace the entry"
        ),
        TcpStep::Ignored { direction, index, state, end } => write!(
            f,
            "{} in {direction} direction in {state} may be a sign that the entry is out of step with the two ends: it \
             passes, is remembered (end {end}), and changes nothing; the answer will tell",
            A(index)
        ),
        TcpStep::ChallengeAckExpected => f.write_str(
            "the SYN came in LAST_ACK: the next ACK from the other side may be a challenge ACK (RFC 5961) and not the \
             last ACK",
        ),
        TcpStep::Resync { syn_direction, end, window, scale } => write!(
            f,
            "the SYN/ACK acknowledges the SYN that was ignored before (ack {end}): both ends agree, so the entry \
             follows them; the {syn_direction} side starts again with end {end}, window {window}, scale {scale}"
        ),
        TcpStep::ChallengeAckIgnored => f.write_str(
            "this ACK is taken for the challenge ACK (RFC 5961) to the SYN that was ignored before: it passes and the \
             state stays LAST_ACK",
        ),
        TcpStep::SimultaneousOpen => f.write_str("SYNs from both sides: simultaneous open"),
        TcpStep::SimultaneousOpenCompleted => {
            f.write_str("with simultaneous open an ACK in reply direction completes the handshake: go to ESTABLISHED")
        }
        TcpStep::Rst(ref rule) => rst(rule, f),
        TcpStep::SenderStarted { direction, td_end, td_maxwin, scale, flags } => write!(
            f,
            "first packet of the {direction} side: it starts with end {td_end}, window {td_maxwin}, scale {scale}, \
             flags {}",
            SideFlags(flags)
        ),
        TcpStep::SenderRestarted { direction, td_end, td_maxwin, scale, flags } => write!(
            f,
            "a SYN of the {direction} side with higher numbers: it starts again with end {td_end}, window \
             {td_maxwin}, scale {scale}, flags {}",
            SideFlags(flags)
        ),
        TcpStep::ScalingOff => {
            f.write_str("not both sides offered window scaling, so neither side's windows are scaled (RFC 7323)")
        }
        TcpStep::SenderGuessed { direction, td_end, td_maxend, td_maxwin } => write!(
            f,
            "first packet of the {direction} side and no SYN: its numbers are taken from here: end {td_end}, may send \
             up to {td_maxend}, window {td_maxwin}"
        ),
        TcpStep::ReceiverGuessed { td_end } => {
            write!(f, "nothing is known of the receiver: it is taken to have sent up to {td_end}, as acknowledged here")
        }
        TcpStep::KeepaliveAnswered { td_end } => write!(
            f,
            "it acknowledges one byte more than the entry began with, as the answer to a keepalive does: the receiver's \
             end is {td_end}"
        ),
        TcpStep::SynUnchecked => f.write_str("a SYN without ACK has nothing more that could be checked"),
        TcpStep::AckShifted { ack, by } => {
            let by = by as i32;
            write!(f, "TCP: acknowledges {ack}, of which {by:+} is what the helper changed: {} to the sender", ack.wrapping_sub(by as u32))
        }
        TcpStep::AckAssumed { ack, zero: true } => {
            write!(f, "an RST that acknowledges 0: taken to acknowledge the receiver's end {ack}")
        }
        TcpStep::AckAssumed { ack, zero: false } => {
            write!(f, "no ACK flag: taken to acknowledge the receiver's end {ack}")
        }
        TcpStep::RstSeqAssumed { seq } => {
            write!(f, "an RST with seq 0 that answers a SYN: taken to lie at the sender's end {seq}")
        }
        TcpStep::Window { ref check, verdict } => window(check, verdict, f),
        TcpStep::Liberal(Liberal::Flag) => f.write_str(
            "window checks of this sender are liberal (flag BE_LIBERAL, as after a pickup): it passes all the same, but \
             the window learns nothing from it",
        ),
        TcpStep::Liberal(Liberal::Sysctl) => f.write_str(
            "nf_conntrack_tcp_be_liberal is 1: it passes all the same, but the window learns nothing from it",
        ),
        TcpStep::WindowUpdated { direction, td_end, td_maxwin, peer_td_maxend, peer_td_maxwin } => write!(
            f,
            "window updated: the {direction} side has sent up to {td_end} and announced at most {td_maxwin}; the {} side \
             may send up to {peer_td_maxend} and announced {}",
            direction.opposite(),
            AtMost(peer_td_maxwin)
        ),
        TcpStep::Retransmitted { times } => write!(f, "the same ACK again, repetition {times}"),
        TcpStep::InvalidEndRemembered { index, direction } => write!(
            f,
            "the invalid {index} in {direction} direction is remembered: if the other side tries to end the connection \
             as well, the entry's timeout will be lowered"
        ),
        TcpStep::TimeoutLowered { index, previous, from, to } => write!(
            f,
            "an invalid {index} after the invalid {previous} of the other side: both want to end the connection, so the timeout \
             is lowered from {from} s to {to} s (nf_conntrack_tcp_timeout_unacknowledged)"
        ),
        TcpStep::State { old, new } if old == new => write!(f, "the state stays {new}"),
        TcpStep::State { old, new } => write!(f, "the state changes from {old} to {new}"),
        TcpStep::CloseInitiated { direction } => {
            write!(f, "the {direction} side is first to close (CLOSE_INIT): a SYN may reopen the connection later")
        }
        TcpStep::Timeout { seconds, cause } => timeout(seconds, cause, f),
        TcpStep::UnrepliedRst => f.write_str("an RST before any reply: there is no connection, the entry is deleted"),
        TcpStep::SynNotRefreshing => {
            f.write_str("a SYN in SYN_SENT without an earlier reply is not counted and does not prolong the entry")
        }
        TcpStep::Assured => {
            f.write_str("both sides have spoken and the state is ESTABLISHED: the entry becomes ASSURED")
        }
    }
}

fn rst(rule: &RstRule, f: &mut Formatter<'_>) -> fmt::Result {
    match *rule {
        RstRule::ClosingUnchecked { state } => {
            write!(f, "an RST in {state}: the connection is ending anyway, so its numbers are not checked")
        }
        RstRule::NothingAcknowledged => {
            f.write_str("the receiver of the RST has acknowledged nothing yet that seq could be compared with")
        }
        RstRule::AfterSyn => f.write_str(
            "a SYN passed just before the RST, so what the receiver acknowledged may be outdated and seq is not \
             compared with it",
        ),
        RstRule::SeqZero => f.write_str("an RST with seq 0 on a connection not assured yet: probably answers a SYN"),
        RstRule::BelowAckTolerated { seq, maxack } => write!(
            f,
            "RST seq {seq} lies below {maxack}, which its receiver has acknowledged, tolerated because \
             nf_conntrack_tcp_ignore_invalid_rst is 1"
        ),
        RstRule::NotEstablished { seq, maxack } => write!(
            f,
            "RST seq {seq} is not below {maxack}, which its receiver has acknowledged; not an assured ESTABLISHED, so \
             that is enough"
        ),
        RstRule::Exact { seq } => write!(f, "RST seq {seq} is exactly what its receiver expects next (RFC 5961)"),
        RstRule::Train { seq } => {
            write!(f, "RST seq {seq} lies right behind the data that the same side sent just before")
        }
        RstRule::Inexact { seq, maxack } => write!(
            f,
            "RST seq {seq} is not exactly {maxack}, which its receiver expects next: the receiver may answer with a \
             challenge ACK (RFC 5961), so the state stays"
        ),
        RstRule::AnswersIgnored { ack } => write!(
            f,
            "the RST acknowledges {ack}, the end of the packet that passed just before: it answers that packet, and the \
             window is not asked"
        ),
        RstRule::AnswersChallengeAck { seq } => write!(
            f,
            "RST seq {seq} is what the ACK ignored before acknowledged: it answers that ACK, and the window is not asked"
        ),
    }
}

/// The verdict, and the four bounds in the order of their numbers.
fn window(check: &WindowCheck, verdict: WindowVerdict, f: &mut Formatter<'_>) -> fmt::Result {
    let &WindowCheck { seq, end, sack, sender_end, sender_maxend, receiver_end, receiver_maxwin, .. } = check;
    match verdict {
        WindowVerdict::Inside => f.write_str("inside the window")?,
        WindowVerdict::Overshot => write!(
            f,
            "{} more than expected, but not more than the receiver's window of {receiver_maxwin}, so ignored",
            Bytes(check.overshot())
        )?,
        WindowVerdict::SeqOver => f.write_str("SEQ is over the upper bound")?,
        WindowVerdict::AckOver => f.write_str("ACK is over the upper bound")?,
        WindowVerdict::SeqUnder => f.write_str("SEQ is under the lower bound, old data, so ignored")?,
        WindowVerdict::AckUnder => f.write_str("ACK is under the lower bound, overly delayed, so ignored")?,
    }
    write!(f, ": I seq {seq} <= {sender_maxend} {}; II ", Holds(check.seq_upper_ok(), seq <= sender_maxend))?;
    let limit = check.seq_lower_bound();
    match check.seq_lower_ok() {
        Some(ok) => {
            write!(f, "end {end} >= {limit} ({sender_end} - window {receiver_maxwin}) {}", Holds(ok, end >= limit))?;
        }
        None => f.write_str("not asked, the receiver's window is unknown")?,
    }
    write!(f, "; III {} <= {receiver_end} {}; ", Ack(check), Holds(check.ack_upper_ok(), sack <= receiver_end))?;
    let (limit, width) = (check.ack_lower_bound(), check.ack_window());
    let whose = if width == MAX_ACK_WINDOW { "" } else { "window " };
    let holds = Holds(check.ack_lower_ok(), sack >= limit);
    write!(f, "IV {sack} >= {limit} ({receiver_end} - {whose}{width}) {holds}")
}

/// Whether a bound holds, and whether that is so only because sequence numbers wrap.
struct Holds(bool, bool);

impl Display for Holds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let &Holds(holds, plainly) = self;
        f.write_str(if holds { "holds" } else { "fails" })?;
        f.write_str(if holds == plainly { "" } else { " modulo 2^32" })
    }
}

/// The acknowledgment that is compared, and that it is a selective one.
struct Ack<'a>(&'a WindowCheck);

impl Display for Ack<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let WindowCheck { ack, sack, .. } = self.0;
        if ack == sack { write!(f, "ack {ack}") } else { write!(f, "SACK edge {sack} (ack {ack})") }
    }
}

fn timeout(seconds: u32, cause: TimeoutCause, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "the timeout is {seconds} s: ")?;
    match cause {
        TimeoutCause::State(TcpState::SynSent2) => f.write_str("that of SYN_SENT2, which has no sysctl"),
        TimeoutCause::State(state) => write!(f, "that of {state}"),
        TimeoutCause::Retransmissions { times } => write!(
            f,
            "the same ACK came {times} times again, nf_conntrack_tcp_max_retrans or more \
             (nf_conntrack_tcp_timeout_max_retrans)"
        ),
        TimeoutCause::Rst => f.write_str("an RST, whatever the state (nf_conntrack_tcp_timeout_close)"),
        TimeoutCause::OpenRst => {
            f.write_str("an RST that leaves it ESTABLISHED (nf_conntrack_tcp_timeout_unacknowledged)")
        }
        TimeoutCause::Unacknowledged => {
            f.write_str("there is data not acknowledged yet (nf_conntrack_tcp_timeout_unacknowledged)")
        }
        TimeoutCause::ZeroWindow => f.write_str(
            "the last ACK inside the window announced 0, or there was none yet (nf_conntrack_tcp_timeout_max_retrans)",
        ),
        TimeoutCause::PickupUnanswered => {
            f.write_str("picked up and not answered yet (nf_conntrack_tcp_timeout_unacknowledged)")
        }
    }
}

/// One sentence for a refusal: why the packet is INVALID.
///
/// # Errors
/// Those of the formatter.
pub fn reason(reason: &TcpReason, f: &mut Formatter<'_>) -> fmt::Result {
    match *reason {
        TcpReason::ShortHeader { at_hand, len } if at_hand < len => write!(
            f,
            "only {at_hand} of {len} bytes of TCP are at hand, 20 are needed for a TCP header: the capture was cut short"
        ),
        TcpReason::ShortHeader { len, .. } => write!(f, "{len} bytes are too few for a TCP header of at least 20"),
        TcpReason::BadDataOffset { header_len } => {
            write!(f, "the TCP header claims a length of {header_len} bytes, less than the least possible 20")
        }
        TcpReason::Truncated { header_len, len } => {
            write!(f, "the TCP header claims a length of {header_len} bytes, but there are only {len}")
        }
        TcpReason::BadChecksum { found, expected } => {
            write!(f, "the TCP checksum is {found:#06x} and should be {expected:#06x}")
        }
        TcpReason::BadFlags { flags: 0 } => f.write_str("no TCP sends a packet without any flag"),
        TcpReason::BadFlags { flags } if flags & (flag::SYN | flag::RST | flag::ACK) == 0 => {
            write!(f, "no TCP sends {} without SYN, RST or ACK", Flags(flags))
        }
        TcpReason::BadFlags { flags } => write!(f, "no TCP sends the flags {} together", Flags(flags)),
        TcpReason::InvalidNew { index } => {
            write!(f, "there is no entry for this connection, and {} does not begin one", A(index))
        }
        TcpReason::LooseOff { index } => write!(
            f,
            "there is no entry for this connection, and {} does not begin one because nf_conntrack_tcp_loose is 0",
            A(index)
        ),
        TcpReason::InvalidState { direction, index, state } => {
            write!(f, "{} in {direction} direction makes no sense in state {state}", A(index))
        }
        TcpReason::InvalidRst { seq, maxack } => write!(
            f,
            "RST seq {seq} lies {} below {maxack}, which its receiver has already acknowledged",
            Bytes(maxack.wrapping_sub(seq))
        ),
        TcpReason::SeqOverUpperBound { ref check } => seq_over(check, f),
        TcpReason::AckOverUpperBound { ref check } => write!(
            f,
            "{} is over the upper bound {} by {}: it acknowledges data that the {} side was never seen to send",
            Ack(check),
            check.receiver_end,
            Bytes(check.sack.wrapping_sub(check.receiver_end)),
            check.direction.opposite()
        ),
    }
}

/// Bound I failed; if by no more than the receiver's window, then another bound is why that was not tolerated.
fn seq_over(check: &WindowCheck, f: &mut Formatter<'_>) -> fmt::Result {
    let &WindowCheck { direction, seq, end, sender_end, sender_maxend, receiver_end, receiver_maxwin, .. } = check;
    write!(
        f,
        "seq {seq} is over the upper bound {sender_maxend} by {}: the {} side has not opened its window that far",
        Bytes(seq.wrapping_sub(sender_maxend)),
        direction.opposite()
    )?;
    if receiver_maxwin == 0 {
        f.write_str(", and its window is unknown")
    } else if check.overshot() > receiver_maxwin {
        write!(f, ", and {} beyond is more than its largest window of {receiver_maxwin}", Bytes(check.overshot()))
    } else if check.seq_lower_ok() == Some(false) {
        write!(
            f,
            ", and end {end} is under the lower bound {} ({sender_end} - {receiver_maxwin})",
            check.seq_lower_bound()
        )
    } else if !check.ack_upper_ok() {
        write!(f, ", and {} is over the upper bound {receiver_end}", Ack(check))
    } else {
        write!(f, ", and {} is under the lower bound {}", Ack(check), check.ack_lower_bound())
    }
}
