//! What can be wrong with a capture: where, what, and what to do about it.

use std::fmt;
use std::io;

use super::sniff::Looks;

/// A fault of a capture file: the file, the byte offset and the cause.
#[derive(Debug)]
pub struct CaptureError {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: String,
    fault: Fault,
}

/// A fault before the file's name is known to it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: u64,
    pub(super) cause: Cause,
}

/// Why a capture, or one packet of it, cannot be read. Lengths are in bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The file cannot be opened.
    Open(io::Error),
    /// Reading failed.
    Read(io::Error),
    /// There is not one byte in it.
    Empty,
    /// It starts like neither pcap nor pcapng.
    NotACapture(Looks),
    /// The input ends within the file header or the section header.
    HeaderCut {
        /// Length that the header needs.
        need: u64,
        /// Length that is there.
        have: u64,
    },
    /// A pcap file or a pcapng section of a version that nobody has described.
    Version {
        /// `pcap` or `pcapng section`.
        what: &'static str,
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
    },
    /// A section header block whose byte-order magic is none.
    ByteOrder(u32),
    /// The input ends within this packet.
    PacketCut {
        /// Its number, counted from 1.
        packet: u64,
        /// Length of the record that holds it, headers included.
        need: u64,
        /// Length that is there.
        have: u64,
    },
    /// The input ends within a block that holds no packet, or within a block header.
    BlockCut {
        /// The block's type, when that much is there.
        block_type: Option<u32>,
        /// Packets read before it.
        packets: u64,
        /// Length that the block needs.
        need: u64,
        /// Length that is there.
        have: u64,
    },
    /// A packet longer than any that is ever captured.
    PacketTooLong {
        /// Its number, counted from 1.
        packet: u64,
        /// Length that its record claims.
        length: u64,
        /// Longest that is read.
        limit: u64,
    },
    /// A block length that no block of that type can have.
    BlockLength {
        /// The block's type.
        block_type: u32,
        /// Length that it claims.
        length: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The length behind a block is not the length in front of it.
    BlockTrailer {
        /// The block's type.
        block_type: u32,
        /// Length in front.
        length: u32,
        /// Length behind.
        trailer: u32,
    },
    /// A packet block that claims more bytes of packet than it has room for. Reading goes on behind it.
    PacketOverrun {
        /// Its number, counted from 1.
        packet: u64,
        /// Captured length that it claims.
        captured: u32,
        /// Room in the block.
        room: usize,
    },
    /// A packet block that names an interface nobody described. Reading goes on behind it.
    UnknownInterface {
        /// The packet's number, counted from 1.
        packet: u64,
        /// Interface number within the section.
        interface: u32,
        /// How many interfaces the section describes.
        described: u32,
    },
    /// An interface description whose options do not fit into it.
    BadOption {
        /// The option's code.
        code: u16,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More interfaces than any machine has.
    TooManyInterfaces {
        /// Most that are read.
        limit: usize,
    },
}

impl Fault {
    pub(super) fn new(offset: u64, cause: Cause) -> Self {
        Fault { offset, cause }
    }
}

impl CaptureError {
    pub(super) fn new(file: &str, fault: Fault) -> Self {
        CaptureError { inner: Box::new(Inner { file: file.to_owned(), fault }) }
    }

    /// The file as it was named to [`Capture`](super::Capture).
    #[must_use]
    pub fn file(&self) -> &str {
        &self.inner.file
    }

    /// Where in the file the fault is, in bytes from its start.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.inner.fault.offset
    }

    /// What is wrong.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.inner.fault.cause
    }

    /// Whether only one packet is lost and reading goes on behind it.
    #[must_use]
    pub fn is_recoverable(&self) -> bool {
        self.cause().is_recoverable()
    }
}

impl Cause {
    pub(super) fn is_recoverable(&self) -> bool {
        matches!(self, Cause::PacketOverrun { .. } | Cause::UnknownInterface { .. })
    }
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = if self.file() == "-" { "standard input" } else { self.file() };
        match self.cause() {
            Cause::Open(_) | Cause::Empty | Cause::NotACapture(_) => write!(f, "{file}: ")?,
            _ => write!(f, "{file}: byte {}: ", self.offset())?,
        }
        match self.cause() {
            Cause::NotACapture(looks) => looks.explain(self.file(), f),
            cause => cause.fmt(f),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REFETCH: &str = "the file was copied or written only in part: fetch or record it again";
        const DAMAGED: &str = "the file is damaged here and cannot be read further";
        match self {
            Cause::Open(e) => write!(f, "cannot be opened: {e}"),
            Cause::Read(e) => write!(f, "cannot be read: {e}"),
            Cause::Empty => f.write_str("is empty, not even a file header: record it again, with packets this time"),
            Cause::NotACapture(looks) => looks.explain("FILE", f),
            Cause::HeaderCut { need, have } => {
                write!(f, "ends within its header, {have} of {need} bytes are there; {REFETCH}")
            }
            Cause::Version { what, major, minor } => {
                write!(f, "{what} version {major}.{minor} is not known; open and save it with Wireshark to convert it")
            }
            Cause::ByteOrder(magic) => write!(f, "byte-order magic 0x{magic:08x} of the section is none; {DAMAGED}"),
            Cause::PacketCut { packet, need, have } => {
                write!(f, "ends within packet {packet}, {have} of {need} bytes are there; ")?;
                match packet.saturating_sub(1) {
                    0 => write!(f, "no packet is before it; {REFETCH}"),
                    1 => write!(f, "the one before it was read; {REFETCH}"),
                    n => write!(f, "the {n} before it were read; {REFETCH}"),
                }
            }
            Cause::BlockCut { block_type, packets, need, have } => {
                match block_type {
                    Some(t) => write!(f, "ends within a block of type 0x{t:08x}")?,
                    None => f.write_str("ends within a block header")?,
                }
                write!(f, ", {have} of {need} bytes are there, after packet {packets}; {REFETCH}")
            }
            Cause::PacketTooLong { packet, length, limit } => {
                write!(f, "packet {packet} claims {length} bytes, more than the {limit} of any real packet; {DAMAGED}")
            }
            Cause::BlockLength { block_type, length, problem } => {
                write!(f, "block of type 0x{block_type:08x} claims {length} bytes, {problem}; {DAMAGED}")
            }
            Cause::BlockTrailer { block_type, length, trailer } => write!(
                f,
                "block of type 0x{block_type:08x} says {length} bytes in front and {trailer} behind; {DAMAGED}"
            ),
            Cause::PacketOverrun { packet, captured, room } => {
                write!(f, "packet {packet} claims {captured} bytes in a block with room for {room}; it is left out")
            }
            Cause::UnknownInterface { packet, interface, described } => write!(
                f,
                "packet {packet} is of interface {interface}, but its section describes {described}; it is left out"
            ),
            Cause::BadOption { code, problem } => write!(f, "option {code} of an interface {problem}; {DAMAGED}"),
            Cause::TooManyInterfaces { limit } => write!(f, "describes more than {limit} interfaces; {DAMAGED}"),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.cause() {
            Cause::Open(e) | Cause::Read(e) => Some(e),
            _ => None,
        }
    }
}
