//! What the TCP tracker says it did: steps and refusals with the values involved. The words are in
//! [`crate::render::tcp`].

use super::segment::Index;
use super::table::{Cell, TcpState};
use super::window::{WindowCheck, WindowVerdict};
use crate::direction::Direction;

/// What the TCP tracker did. All sequence numbers are the absolute ones of the wire, windows in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Fields are named as in the kernel, RFC 9293 and the sentence in the variant's comment.
pub enum TcpStep {
    /// The header passed the checks of [`super::check`].
    Header { seq: u32, end: u32, ack: u32, flags: u8, window: u16, payload: u32 },
    /// `tcp_new`: a SYN begins an entry (TCP-NEW-01). `scale` is `None` without a window scale option.
    NewSyn { td_end: u32, td_maxwin: u32, scale: Option<u8>, sack_permitted: bool },
    /// `tcp_new`: an ACK begins an entry in the middle of a connection; its window checks are liberal (TCP-NEW-02).
    NewPickup { td_end: u32, td_maxend: u32, td_maxwin: u32 },
    /// The state table was asked.
    Lookup { direction: Direction, index: Index, state: TcpState, cell: Cell },

    /// A SYN of a new connection on a finished entry: the entry goes (TCP-REOPEN-01).
    Reopen { state: TcpState, cause: ReopenCause },
    /// The same, but nothing shows that this side thinks the connection is over: the SYN is ignored.
    NotReopened { state: TcpState },
    /// The packet passes and the entry stays as it is; the packet is remembered (TCP-IGN-01).
    Ignored { direction: Direction, index: Index, state: TcpState, end: u32 },
    /// After this ignored SYN in LAST_ACK an ACK from the other side may be a challenge ACK (TCP-IGN-01).
    ChallengeAckExpected,
    /// A SYN/ACK acknowledges the SYN that was ignored before: the entry follows the two ends (TCP-IGN-02).
    Resync { syn_direction: Direction, end: u32, window: u32, scale: u8 },
    /// An ACK in LAST_ACK is the challenge ACK to an ignored SYN and does not count as the last ACK (TCP-CHALL-02).
    ChallengeAckIgnored,
    /// SYNs in both directions (TCP-SIM-01).
    SimultaneousOpen,
    /// With simultaneous open an ACK in reply direction completes the handshake (TCP-SIM-01).
    SimultaneousOpenCompleted,
    /// What the rules for RST said.
    Rst(RstRule),

    /// The first packet of its sender is a SYN or SYN/ACK: its window is taken from there (W1).
    SenderStarted { direction: Direction, td_end: u32, td_maxwin: u32, scale: u8, flags: u8 },
    /// A later SYN with higher numbers during the handshake starts the sender's window again (W2).
    SenderRestarted { direction: Direction, td_end: u32, td_maxwin: u32, scale: u8, flags: u8 },
    /// Not both SYNs offered window scaling, so neither side scales (RFC 7323 section 1.3).
    ScalingOff,
    /// The first packet of its sender is no SYN: its window is guessed from there (W1).
    SenderGuessed { direction: Direction, td_end: u32, td_maxend: u32, td_maxwin: u32 },
    /// The receiver was never heard: what it sent is taken to end where this packet acknowledges (W1).
    ReceiverGuessed { td_end: u32 },
    /// The packet acknowledges one byte more than was seen: the answer to a keepalive (W1).
    KeepaliveAnswered { td_end: u32 },
    /// A SYN without ACK is not checked further.
    SynUnchecked,
    /// No acknowledgment to check, so the receiver's own end is put in its place (W3). `zero` is an RST/ACK that
    /// acknowledges 0.
    AckAssumed { ack: u32, zero: bool },
    /// A helper made segments of the other side longer or shorter by this much: it acknowledges other numbers.
    AckShifted { ack: u32, by: u32 },
    /// An RST with sequence number 0 that answers a SYN is taken to be in place (W3).
    RstSeqAssumed { seq: u32 },
    /// The four bounds with everything they were computed from.
    Window { check: WindowCheck, verdict: WindowVerdict },
    /// The window check failed but is liberal for this sender: the packet passes, the window is not updated.
    Liberal(Liberal),
    /// The packet was valid and the window of both sides was updated.
    WindowUpdated { direction: Direction, td_end: u32, td_maxwin: u32, peer_td_maxend: u32, peer_td_maxwin: u32 },
    /// The same pure ACK again.
    Retransmitted { times: u8 },
    /// An invalid FIN or RST is remembered: if the other side sends one too, the timeout goes down (TCP-WIN-LOWER).
    InvalidEndRemembered { index: Index, direction: Direction },
    /// Both sides sent an invalid FIN or RST: the timeout goes down (TCP-WIN-LOWER).
    TimeoutLowered { index: Index, previous: Index, from: u32, to: u32 },

    /// The state that the entry has now.
    State { old: TcpState, new: TcpState },
    /// The sender was first to close: a later SYN may reopen (CLOSE_INIT).
    CloseInitiated { direction: Direction },
    /// The timeout chosen, in seconds.
    Timeout { seconds: u32, cause: TimeoutCause },
    /// An RST before any reply: the entry is deleted (TCP-RST-05).
    UnrepliedRst,
    /// A SYN in SYN_SENT without an earlier reply neither counts nor refreshes (TCP-SYN-01, TCP-SIM-02).
    SynNotRefreshing,
    /// The entry became ASSURED (TCP-ASSURED).
    Assured,
}

/// Why a SYN may delete a finished entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReopenCause {
    /// The connection was closed with a FIN of this side.
    Closed(Direction),
    /// The last packet was an RST from the same direction.
    RstFromSameSide,
}

/// What was decided about an RST before the window check (TCP-RST-01 to 03, TCP-CHALL-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // As above.
pub enum RstRule {
    /// The connection is closing anyway: no check at all (TCP-RST-01).
    ClosingUnchecked { state: TcpState },
    /// The receiver has acknowledged nothing yet that the RST could be compared with.
    NothingAcknowledged,
    /// A SYN passed before, so what the receiver acknowledged may be outdated and is not compared.
    AfterSyn,
    /// Sequence number 0 outside an assured ESTABLISHED: probably the answer to a SYN.
    SeqZero,
    /// The sequence number lies below what the receiver acknowledged, tolerated by `nf_conntrack_tcp_ignore_invalid_rst`.
    BelowAckTolerated { seq: u32, maxack: u32 },
    /// Not an assured ESTABLISHED, so an exact match is not asked for.
    NotEstablished { seq: u32, maxack: u32 },
    /// Exactly the next byte that the receiver expects (RFC 5961 section 3.2).
    Exact { seq: u32 },
    /// Right behind the data that the same side sent last.
    Train { seq: u32 },
    /// Not exact: the receiver may answer with a challenge ACK, so the state stays.
    Inexact { seq: u32, maxack: u32 },
    /// Answers a packet that was ignored before: no window check (TCP-RST-03).
    AnswersIgnored { ack: u32 },
    /// Answers a challenge ACK that was ignored before: no window check (TCP-CHALL-03).
    AnswersChallengeAck { seq: u32 },
}

/// Why a failed window check lets the packet pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liberal {
    /// The sender's side of the entry is flagged BE_LIBERAL, as after a pickup.
    Flag,
    /// `nf_conntrack_tcp_be_liberal` is 1.
    Sysctl,
}

/// Why the timeout is what it is (catalogue E.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // As above.
pub enum TimeoutCause {
    /// The timeout of the state.
    State(TcpState),
    /// The same pure ACK came `times` times again: `nf_conntrack_tcp_timeout_max_retrans`.
    Retransmissions { times: u8 },
    /// An RST, whatever the state: `nf_conntrack_tcp_timeout_close`.
    Rst,
    /// An RST that left the connection ESTABLISHED: `nf_conntrack_tcp_timeout_unacknowledged`, in some releases (VER-02).
    OpenRst,
    /// A side has data that was not acknowledged: `nf_conntrack_tcp_timeout_unacknowledged`.
    Unacknowledged,
    /// The last ACK inside the window announced 0, or there was none yet: `nf_conntrack_tcp_timeout_max_retrans`.
    ZeroWindow,
    /// Picked up and not answered yet: `nf_conntrack_tcp_timeout_unacknowledged`.
    PickupUnanswered,
}

/// Why the TCP tracker refused a packet. One variant for each place that refuses (catalogue E.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // As above.
pub enum TcpReason {
    /// Fewer than 20 bytes, on the wire (`len`) or at hand.
    ShortHeader { at_hand: usize, len: usize },
    /// The header says that it is shorter than 20 bytes.
    BadDataOffset { header_len: u8 },
    /// The header says that it is longer than the packet.
    Truncated { header_len: u8, len: usize },
    /// The checksum does not fit.
    BadChecksum { found: u16, expected: u16 },
    /// No TCP sends these flags together.
    BadFlags { flags: u8 },
    /// No entry, and a packet of this kind does not begin one (TCP-NEW-04).
    InvalidNew { index: Index },
    /// No entry, and `nf_conntrack_tcp_loose` is 0 (TCP-NEW-03).
    LooseOff { index: Index },
    /// The state table says invalid.
    InvalidState { direction: Direction, index: Index, state: TcpState },
    /// An RST below what its receiver has acknowledged (TCP-RST-02).
    InvalidRst { seq: u32, maxack: u32 },
    /// Bound I: the segment begins beyond what the receiver's window allows, and too far to be tolerated.
    SeqOverUpperBound { check: WindowCheck },
    /// Bound III: the packet acknowledges, or selectively acknowledges, what was not seen.
    AckOverUpperBound { check: WindowCheck },
}

impl TcpReason {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            TcpReason::ShortHeader { .. } => "tcp.short_header",
            TcpReason::BadDataOffset { .. } => "tcp.bad_data_offset",
            TcpReason::Truncated { .. } => "tcp.truncated",
            TcpReason::BadChecksum { .. } => "tcp.bad_checksum",
            TcpReason::BadFlags { .. } => "tcp.bad_flags",
            TcpReason::InvalidNew { .. } => "tcp.invalid_new",
            TcpReason::LooseOff { .. } => "tcp.loose_off",
            TcpReason::InvalidState { .. } => "tcp.invalid_state",
            TcpReason::InvalidRst { .. } => "tcp.invalid_rst",
            TcpReason::SeqOverUpperBound { .. } => "tcp.seq_over_upper_bound",
            TcpReason::AckOverUpperBound { .. } => "tcp.ack_over_upper_bound",
        }
    }
}
