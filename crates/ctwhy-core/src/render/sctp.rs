//! Steps and refusals of the SCTP tracker in words.

use core::fmt::{self, Display, Formatter};

use crate::track::sctp::{Cell, ChunkType, HeartbeatCause, SctpReason, SctpStep};

/// `an INIT`, `a HEARTBEAT`, `DATA`, `a chunk of type 64`.
struct A(ChunkType);

impl Display for A {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            ChunkType::INIT | ChunkType::INIT_ACK | ChunkType::ABORT | ChunkType::ERROR => write!(f, "an {}", self.0),
            ChunkType::DATA => f.write_str("DATA"),
            kind => write!(f, "a {kind}"),
        }
    }
}

/// One sentence for a step.
///
/// # Errors
/// Those of the formatter.
pub fn step(step: &SctpStep, f: &mut Formatter<'_>) -> fmt::Result {
    match *step {
        SctpStep::Header { vtag, chunks } => {
            let plural = if chunks == 1 { "" } else { "s" };
            write!(f, "SCTP header is sound: verification tag {vtag:#010x}, {chunks} chunk{plural}")
        }
        SctpStep::Lookup { direction, kind, state, cell } => {
            write!(f, "state table: {} in {direction} direction in state {state}: ", A(kind))?;
            match cell {
                Cell::To(new) if new == state => write!(f, "stay in {new}"),
                Cell::To(new) => write!(f, "go to {new}"),
                Cell::Invalid => f.write_str("invalid"),
            }
        }
        SctpStep::TagLearnt { direction, vtag, kind } => {
            write!(f, "{} says that packets in {direction} direction carry the tag {vtag:#010x}", A(kind))
        }
        SctpStep::HeartbeatUnknownTag { direction, found, expected } => write!(
            f,
            "a HEARTBEAT in {direction} direction with the tag {found:#010x} instead of {expected:#010x}: the two ends \
             may have new tags; it passes, and the answer decides"
        ),
        SctpStep::HeartbeatResync { direction, vtag } => write!(
            f,
            "the HEARTBEAT with another tag was answered with another tag: packets in {direction} direction carry \
             {vtag:#010x} now, and the tag of the other direction is learnt from its next heartbeat"
        ),
        SctpStep::InitCollision => f.write_str("both sides have sent an INIT: they collide (RFC 9260 section 5.2.1)"),
        SctpStep::InitAgain => f.write_str("another INIT in CLOSED: it passes, but does not keep the entry alive"),
        SctpStep::State { old, new } => write!(f, "the state goes from {old} to {new}"),
        SctpStep::Timeout { state, seconds } => write!(f, "timeout {seconds} s: that of {state}"),
    }
}

/// One sentence for a refusal.
///
/// # Errors
/// Those of the formatter.
pub fn reason(reason: &SctpReason, f: &mut Formatter<'_>) -> fmt::Result {
    match *reason {
        SctpReason::Short { have } => write!(f, "an SCTP header has 12 bytes and {have} are there"),
        SctpReason::Checksum { found, expected } => {
            write!(f, "the SCTP checksum (CRC32c) is {found:#010x} and {expected:#010x} would be right")
        }
        SctpReason::ChunkEmpty { kind, number, .. } => {
            write!(f, "chunk {}, {}, says that it is 0 bytes long", number + 1, A(kind))
        }
        SctpReason::ChunkNotAlone { kind, number, lonely, .. } => {
            write!(f, "{} must be the only chunk of its packet, and chunk {} is {}", A(lonely), number + 1, A(kind))
        }
        SctpReason::ChunkNotFirst { kind, number, .. } => {
            write!(f, "{} must be the first chunk of its packet, and it is chunk {}", A(kind), number + 1)
        }
        SctpReason::NoChunk => f.write_str("the SCTP packet has not one chunk"),
        SctpReason::BeginsNothing { kind } => {
            write!(f, "{} belongs to an association that is running, and none is in the table", A(kind))
        }
        SctpReason::InitTag { vtag } => {
            write!(f, "an INIT travels with the verification tag 0, not {vtag:#010x} (RFC 9260 section 8.5.1)")
        }
        SctpReason::InitShort { kind, have } => {
            write!(f, "{} has 16 bytes behind its chunk header and {have} are there", A(kind))
        }
        SctpReason::Tag { direction, found, expected: 0 } => write!(
            f,
            "the verification tag is {found:#010x}, and no tag is known yet for packets in {direction} direction"
        ),
        SctpReason::Tag { direction, found, expected } => write!(
            f,
            "the verification tag is {found:#010x}; packets of this association in {direction} direction carry \
             {expected:#010x}"
        ),
        SctpReason::ChunkTag { kind, reflected, found, expected } => {
            let which = if reflected { "with the T bit the tag of the other direction" } else { "its own tag" };
            write!(f, "{} must carry {which}, {expected:#010x}, and not {found:#010x}", A(kind))
        }
        SctpReason::HeartbeatTag { kind, found, expected, cause } => {
            write!(f, "{} with the tag {found:#010x} instead of {expected:#010x}", A(kind))?;
            f.write_str(match cause {
                HeartbeatCause::WithData => ", and DATA with it: that is no probe of a path",
                HeartbeatCause::NotFirst => ", behind another one in the same packet",
                HeartbeatCause::NotAsked => ", and the other side sent no HEARTBEAT with another tag before",
            })
        }
        SctpReason::InitAckTag { found, expected } => write!(
            f,
            "an INIT ACK announces the tag {found:#010x}, but that of its sender is known as {expected:#010x}: it belongs \
             to another INIT"
        ),
        SctpReason::InvalidState { direction, kind, state } => {
            write!(f, "{} in {direction} direction makes no sense in state {state}", A(kind))
        }
    }
}
