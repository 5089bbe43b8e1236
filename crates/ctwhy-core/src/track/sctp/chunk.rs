//! The bytes of an SCTP packet: common header, checksum and the walk over its chunks (RFC 9260 section 3).

use core::fmt;

use super::trace::SctpReason;
use crate::checksum::sctp_crc;
use crate::packet::{be16, be32};
use crate::reason::Reason;
use crate::trace::{Protected, Sink, Step};
use crate::track::{Context, L4};

/// Length of the common header.
pub const HEADER: usize = 12;
/// Length of a chunk's header.
const CHUNK_HEADER: usize = 4;
/// What an INIT and an INIT ACK have behind their chunk header (`struct sctp_inithdr`).
const INIT_BODY: usize = 16;
/// The T bit: the sender had no association and reflects the tag of the packet that it answers.
const T_BIT: u8 = 0x01;

/// The type of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkType(pub u8);

#[allow(missing_docs)] // The names of RFC 9260 section 3.2.
impl ChunkType {
    pub const DATA: ChunkType = ChunkType(0);
    pub const INIT: ChunkType = ChunkType(1);
    pub const INIT_ACK: ChunkType = ChunkType(2);
    pub const SACK: ChunkType = ChunkType(3);
    pub const HEARTBEAT: ChunkType = ChunkType(4);
    pub const HEARTBEAT_ACK: ChunkType = ChunkType(5);
    pub const ABORT: ChunkType = ChunkType(6);
    pub const SHUTDOWN: ChunkType = ChunkType(7);
    pub const SHUTDOWN_ACK: ChunkType = ChunkType(8);
    pub const ERROR: ChunkType = ChunkType(9);
    pub const COOKIE_ECHO: ChunkType = ChunkType(10);
    pub const COOKIE_ACK: ChunkType = ChunkType(11);
    pub const SHUTDOWN_COMPLETE: ChunkType = ChunkType(14);
}

impl ChunkType {
    /// The name in RFC 9260, if it has one that conntrack cares for.
    const fn name(self) -> Option<&'static str> {
        Some(match self {
            ChunkType::DATA => "DATA",
            ChunkType::INIT => "INIT",
            ChunkType::INIT_ACK => "INIT ACK",
            ChunkType::SACK => "SACK",
            ChunkType::HEARTBEAT => "HEARTBEAT",
            ChunkType::HEARTBEAT_ACK => "HEARTBEAT ACK",
            ChunkType::ABORT => "ABORT",
            ChunkType::SHUTDOWN => "SHUTDOWN",
            ChunkType::SHUTDOWN_ACK => "SHUTDOWN ACK",
            ChunkType::ERROR => "ERROR",
            ChunkType::COOKIE_ECHO => "COOKIE ECHO",
            ChunkType::COOKIE_ACK => "COOKIE ACK",
            ChunkType::SHUTDOWN_COMPLETE => "SHUTDOWN COMPLETE",
            _ => return None,
        })
    }
}

impl fmt::Display for ChunkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "chunk of type {}", self.0),
        }
    }
}

/// A row of [`super::TRANSITIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each is the chunk of that name.
pub enum Row {
    Init,
    InitAck,
    Abort,
    Shutdown,
    ShutdownAck,
    Error,
    CookieEcho,
    CookieAck,
    ShutdownComplete,
    Heartbeat,
    HeartbeatAck,
}

impl Row {
    /// The chunk types of the rows, in their order.
    pub const TYPES: [ChunkType; 11] = [
        ChunkType::INIT,
        ChunkType::INIT_ACK,
        ChunkType::ABORT,
        ChunkType::SHUTDOWN,
        ChunkType::SHUTDOWN_ACK,
        ChunkType::ERROR,
        ChunkType::COOKIE_ECHO,
        ChunkType::COOKIE_ACK,
        ChunkType::SHUTDOWN_COMPLETE,
        ChunkType::HEARTBEAT,
        ChunkType::HEARTBEAT_ACK,
    ];

    /// The row of a chunk type; `None` for those that leave the state as it is.
    #[must_use]
    pub const fn of(kind: ChunkType) -> Option<Row> {
        Some(match kind {
            ChunkType::INIT => Row::Init,
            ChunkType::INIT_ACK => Row::InitAck,
            ChunkType::ABORT => Row::Abort,
            ChunkType::SHUTDOWN => Row::Shutdown,
            ChunkType::SHUTDOWN_ACK => Row::ShutdownAck,
            ChunkType::ERROR => Row::Error,
            ChunkType::COOKIE_ECHO => Row::CookieEcho,
            ChunkType::COOKIE_ACK => Row::CookieAck,
            ChunkType::SHUTDOWN_COMPLETE => Row::ShutdownComplete,
            ChunkType::HEARTBEAT => Row::Heartbeat,
            ChunkType::HEARTBEAT_ACK => Row::HeartbeatAck,
            _ => return None,
        })
    }
}

/// Which chunk types occur in a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen([u64; 4]);

impl Seen {
    fn insert(&mut self, ChunkType(number): ChunkType) {
        self.0[usize::from(number >> 6)] |= 1 << (number & 63);
    }

    pub(super) const fn has(&self, ChunkType(number): ChunkType) -> bool {
        self.0[(number >> 6) as usize] & 1 << (number & 63) != 0
    }
}

/// A chunk, as far as conntrack looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) kind: ChunkType,
    flags: u8,
    /// Length as its header says, without padding.
    length: u16,
    /// What follows its header, to the end of the packet.
    rest: &'a [u8],
}

impl Chunk<'_> {
    pub(super) const fn reflects_tag(&self) -> bool {
        self.flags & T_BIT != 0
    }

    /// The initiate tag of an INIT or INIT ACK, whose whole fixed part must be there.
    pub(super) fn init_tag(&self) -> Result<u32, SctpReason> {
        let short = SctpReason::InitShort { kind: self.kind, have: self.rest.len() };
        self.rest.get(..INIT_BODY).and_then(|body| be32(body, 0)).ok_or(short)
    }
}

/// The walk over the chunks (`for_each_sctp_chunk`): it ends where no chunk header fits any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let (header, rest) = self.bytes.split_first_chunk::<CHUNK_HEADER>()?;
        let [kind, flags, high, low] = *header;
        let length = u16::from_be_bytes([high, low]);
        self.bytes = self.bytes.get(padded(length)..).unwrap_or(&[]);
        Some(Chunk { kind: ChunkType(kind), flags, length, rest })
    }
}

/// A chunk's length with the bytes that fill its last word.
const fn padded(length: u16) -> usize {
    (length as usize + 3) & !3
}

/// A packet that passed [`check`].
#[derive(Clone, Copy, Debug)]
pub struct SctpPacket<'a> {
    /// The verification tag.
    pub vtag: u32,
    /// How many chunks.
    pub count: u32,
    pub(super) seen: Seen,
    bytes: &'a [u8],
}

impl<'a> SctpPacket<'a> {
    pub(super) fn chunks(&self) -> Chunks<'a> {
        Chunks { bytes: self.bytes }
    }
}

/// `sctp_error` and `do_basic_checks`: header there, checksum right, chunks in a permitted order (SCTP-01, SCTP-02).
///
/// # Errors
/// [`Reason::Sctp`] for which the packet is INVALID.
pub fn check<'a, S: Sink>(l4: &L4<'a>, cx: &Context<'_>, sink: &mut S) -> Result<SctpPacket<'a>, Reason> {
    let (Some(vtag), Some(found), Some(bytes)) = (be32(l4.bytes, 4), be32(l4.bytes, 8), l4.bytes.get(HEADER..)) else {
        return Err(Reason::Sctp(SctpReason::Short { have: l4.len }));
    };
    if cx.verify_checksum {
        let expected = sctp_crc(l4.bytes);
        if found != expected {
            return Err(Reason::Sctp(SctpReason::Checksum { found, expected }));
        }
        sink.step(|| Step::ChecksumRight(Protected::Sctp));
    }
    let mut packet = SctpPacket { vtag, count: 0, seen: Seen::default(), bytes };
    // The first chunk of the packet that may not have company.
    let mut lonely = None;
    for (number, chunk) in (0u32..).zip(packet.chunks()) {
        let Chunk { kind, length, .. } = chunk;
        if matches!(kind, ChunkType::INIT | ChunkType::INIT_ACK | ChunkType::SHUTDOWN_COMPLETE) {
            lonely = lonely.or(Some(kind));
        }
        let refusal = match lonely {
            _ if length == 0 => Some(SctpReason::ChunkEmpty { kind, number, lonely }),
            Some(lonely) if number > 0 => Some(SctpReason::ChunkNotAlone { kind, number, length, lonely }),
            _ if number > 0 && matches!(kind, ChunkType::COOKIE_ACK | ChunkType::COOKIE_ECHO) => {
                Some(SctpReason::ChunkNotFirst { kind, number, length })
            }
            _ => None,
        };
        if let Some(reason) = refusal {
            return Err(Reason::Sctp(reason));
        }
        packet.seen.insert(kind);
        packet.count = number + 1;
    }
    if packet.count == 0 {
        return Err(Reason::Sctp(SctpReason::NoChunk));
    }
    Ok(packet)
}

/// How many bytes from the common header on must be at hand so that the walk sees every chunk of a packet of `len`
/// bytes: up to the end of the last chunk header, and of the tag behind it.
pub(crate) fn decisive_bytes(bytes: &[u8], len: usize) -> usize {
    let mut at = HEADER;
    // A chunk header at the very end that is cut off in the packet itself is not looked at.
    while at + CHUNK_HEADER <= len {
        let Some((kind, length)) = bytes.get(at).copied().zip(be16(bytes, at + 2)) else { return at + CHUNK_HEADER };
        if matches!(ChunkType(kind), ChunkType::INIT | ChunkType::INIT_ACK) {
            return (at + CHUNK_HEADER + INIT_BODY).min(len);
        }
        match padded(length) {
            0 => return at + CHUNK_HEADER,
            advance => at += advance,
        }
    }
    HEADER
}
