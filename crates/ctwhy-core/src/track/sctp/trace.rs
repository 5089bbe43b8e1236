//! What the SCTP tracker says it did: steps and refusals with the values involved. The words are in
//! [`crate::render::sctp`].

use super::chunk::ChunkType;
use super::table::{Cell, SctpState};
use crate::direction::Direction;

/// What the SCTP tracker did. Verification tags are as on the wire, read as big-endian numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Fields are named as in RFC 9260 and the sentence in the variant's comment.
pub enum SctpStep {
    /// The header and the order of the chunks passed the checks of [`super::check`].
    Header { vtag: u32, chunks: u32 },
    /// The state table was asked.
    Lookup { direction: Direction, kind: ChunkType, state: SctpState, cell: Cell },
    /// From now on packets in `direction` are expected to carry this tag; the chunk said so.
    TagLearnt { direction: Direction, vtag: u32, kind: ChunkType },
    /// A heartbeat with another tag: it passes and is remembered, nothing else happens (SCTP-08).
    HeartbeatUnknownTag { direction: Direction, found: u32, expected: u32 },
    /// Both sides sent heartbeats with other tags: their new tags are taken over (SCTP-08). That of the side that
    /// answers is `vtag`, the other one is learnt from its next heartbeat.
    HeartbeatResync { direction: Direction, vtag: u32 },
    /// Both sides sent an INIT (SCTP-07).
    InitCollision,
    /// The same INIT in CLOSED, or another: it must not keep the entry alive (SCTP-06).
    InitAgain,
    /// A chunk changed the state.
    State { old: SctpState, new: SctpState },
    /// The timeout of the state that the last chunk led to.
    Timeout { state: SctpState, seconds: u32 },
}

/// Why the SCTP tracker refused a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Fields are named as in RFC 9260 and the sentence in the variant's comment.
pub enum SctpReason {
    /// The common header is cut off.
    Short { have: usize },
    /// The CRC32c is wrong; both as the bytes on the wire.
    Checksum { found: u32, expected: u32 },
    /// A chunk that says it is 0 bytes long. Chunks count from 0. `lonely` is as in the next.
    ChunkEmpty { kind: ChunkType, number: u32, lonely: Option<ChunkType> },
    /// The chunk is not the first, and it or one before it is one that must be alone, `lonely`: INIT, INIT ACK or
    /// SHUTDOWN COMPLETE. `length` is as its header says.
    ChunkNotAlone { kind: ChunkType, number: u32, length: u16, lonely: ChunkType },
    /// COOKIE ECHO or COOKIE ACK behind another chunk.
    ChunkNotFirst { kind: ChunkType, number: u32, length: u16 },
    /// Not one chunk.
    NoChunk,
    /// No association can begin with this chunk (SCTP-03).
    BeginsNothing { kind: ChunkType },
    /// An INIT whose verification tag is not 0.
    InitTag { vtag: u32 },
    /// An INIT or INIT ACK whose fixed part is cut off.
    InitShort { kind: ChunkType, have: usize },
    /// The packet does not carry the tag of its direction (SCTP-04).
    Tag { direction: Direction, found: u32, expected: u32 },
    /// A chunk with a rule of its own about tags does not carry the right one. `reflected` is the T bit: then the tag
    /// is that of the other direction.
    ChunkTag { kind: ChunkType, reflected: bool, found: u32, expected: u32 },
    /// A heartbeat or its answer with another tag that cannot be the beginning of new ones (SCTP-08).
    HeartbeatTag { kind: ChunkType, found: u32, expected: u32, cause: HeartbeatCause },
    /// An INIT ACK with another tag than the one that is known of its sender (SCTP-07).
    InitAckTag { found: u32, expected: u32 },
    /// The state table says so.
    InvalidState { direction: Direction, kind: ChunkType, state: SctpState },
}

/// Why a heartbeat with another tag was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatCause {
    /// It travels with DATA.
    WithData,
    /// It follows another one in the same packet.
    NotFirst,
    /// It answers, but the other side sent no heartbeat with another tag before.
    NotAsked,
}

impl SctpReason {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            SctpReason::Short { .. } => "sctp.short",
            SctpReason::Checksum { .. } => "sctp.checksum",
            SctpReason::ChunkEmpty { .. } => "sctp.chunk_empty",
            SctpReason::ChunkNotAlone { .. } => "sctp.chunk_not_alone",
            SctpReason::ChunkNotFirst { .. } => "sctp.chunk_not_first",
            SctpReason::NoChunk => "sctp.no_chunk",
            SctpReason::BeginsNothing { .. } => "sctp.begins_nothing",
            SctpReason::InitTag { .. } => "sctp.init_tag",
            SctpReason::InitShort { .. } => "sctp.init_short",
            SctpReason::Tag { .. } => "sctp.tag",
            SctpReason::ChunkTag { .. } => "sctp.chunk_tag",
            SctpReason::HeartbeatTag { .. } => "sctp.heartbeat_tag",
            SctpReason::InitAckTag { .. } => "sctp.init_ack_tag",
            SctpReason::InvalidState { .. } => "sctp.invalid_state",
        }
    }
}
