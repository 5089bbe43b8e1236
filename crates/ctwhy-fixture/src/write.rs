//! A pcapng writer: packets as they were captured, with comments that Wireshark shows.

use std::fmt;
use std::io::{self, Write};

use crate::capture::{CapturedPacket, Interface};
use crate::linktype::LinkType;

/// Longest value of an option, in bytes: its length field has 16 bits.
const MAX_OPTION: usize = 65_535;
/// What ends a comment that was too long.
const CUT: &str = " [cut]";

const COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_TIME_RESOLUTION: u16 = 9;
const SHB_USER_APPLICATION: u16 = 4;

/// Writes one little-endian section with nanosecond time stamps to `out`; wrap a file in a `BufWriter`.
///
/// The same calls give the same bytes: neither the time nor the host is written.
#[derive(Debug)]
pub struct PcapngWriter<W> {
    out: W,
    interfaces: usize,
    /// The block being put together, kept for its capacity.
    block: Vec<u8>,
}

/// A packet to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Index of its interface, in the order of [`PcapngWriter::add_interface`].
    pub interface: u32,
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// Length on the wire.
    pub original_len: u32,
    /// The bytes from the link layer on.
    pub bytes: &'a [u8],
}

impl<'a> From<CapturedPacket<'a>> for Packet<'a> {
    fn from(p: CapturedPacket<'a>) -> Self {
        Packet { interface: p.interface, time_ns: p.time_ns, original_len: p.original_len, bytes: p.bytes }
    }
}

/// Why a packet or interface cannot be written.
#[derive(Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// Writing failed.
    Io(io::Error),
    /// The packet is of an interface that was not added.
    UnknownInterface {
        /// Its index.
        interface: u32,
        /// How many were added.
        added: usize,
    },
    /// The link type does not fit into an interface description; only a classic pcap can carry it.
    LinkType(LinkType),
    /// The packet and its comments do not fit into one block.
    TooLong {
        /// Their length in bytes.
        length: usize,
    },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Io(e) => write!(f, "cannot be written: {e}"),
            WriteError::UnknownInterface { interface, added } => {
                write!(f, "packet of interface {interface}, but only {added} were added; add the interface first")
            }
            WriteError::LinkType(linktype) => {
                write!(f, "link type {linktype} does not fit into a pcapng; write packets of other link types only")
            }
            WriteError::TooLong { length } => {
                write!(f, "packet and comments take {length} bytes, more than a block holds; give it fewer comments")
            }
        }
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WriteError::Io(e) => Some(e),
            _ => None,
        }
    }
}

impl From<io::Error> for WriteError {
    fn from(e: io::Error) -> Self {
        WriteError::Io(e)
    }
}

impl<W: Write> PcapngWriter<W> {
    /// Starts the section, naming `application` as its writer (`shb_userappl`).
    ///
    /// # Errors
    /// When writing fails.
    pub fn new(out: W, application: &str) -> Result<Self, WriteError> {
        const SECTION: u32 = 0x0a0d_0d0a;
        const BYTE_ORDER: u32 = 0x1a2b_3c4d;
        const LENGTH_UNKNOWN: i64 = -1;
        let mut writer = PcapngWriter { out, interfaces: 0, block: Vec::new() };
        writer.begin(SECTION);
        writer.block.extend(BYTE_ORDER.to_le_bytes());
        writer.block.extend([1, 0, 0, 0]); // Version 1.0.
        writer.block.extend(LENGTH_UNKNOWN.to_le_bytes());
        writer.text(SHB_USER_APPLICATION, application);
        writer.option(0, &[]);
        writer.end()?;
        Ok(writer)
    }

    /// Describes an interface and returns its index. `snaplen` in bytes; `None` for no limit.
    ///
    /// # Errors
    /// When writing fails or the link type has more than 16 bits.
    pub fn add_interface(
        &mut self,
        name: Option<&str>,
        linktype: LinkType,
        snaplen: Option<u32>,
    ) -> Result<u32, WriteError> {
        const INTERFACE: u32 = 1;
        const NANOSECONDS: u8 = 9;
        let number = u16::try_from(linktype.0).map_err(|_| WriteError::LinkType(linktype))?;
        self.begin(INTERFACE);
        self.block.extend(number.to_le_bytes());
        self.block.extend([0; 2]);
        self.block.extend(snaplen.unwrap_or(0).to_le_bytes());
        if let Some(name) = name {
            self.text(IF_NAME, name);
        }
        self.option(IF_TIME_RESOLUTION, &[NANOSECONDS]);
        self.option(0, &[]);
        self.end()?;
        let index = u32::try_from(self.interfaces).unwrap_or(u32::MAX);
        self.interfaces += 1;
        Ok(index)
    }

    /// Describes those of a capture's interfaces that are new since the last call, so that the indices stay equal.
    ///
    /// # Errors
    /// As [`PcapngWriter::add_interface`].
    pub fn follow_interfaces(&mut self, interfaces: &[Interface]) -> Result<(), WriteError> {
        for interface in interfaces.get(self.interfaces..).unwrap_or_default() {
            self.add_interface(interface.name.as_deref(), interface.linktype, interface.snaplen)?;
        }
        Ok(())
    }

    /// Writes a packet with its comments (`opt_comment`), each of them shown by Wireshark and cut at 65,535 bytes.
    ///
    /// # Errors
    /// When writing fails, the interface is not described, or packet and comments are too long for a block.
    pub fn packet<'c>(
        &mut self,
        packet: Packet<'_>,
        comments: impl IntoIterator<Item = &'c str>,
    ) -> Result<(), WriteError> {
        const ENHANCED_PACKET: u32 = 6;
        if packet.interface as usize >= self.interfaces {
            return Err(WriteError::UnknownInterface { interface: packet.interface, added: self.interfaces });
        }
        let too_long = |_| WriteError::TooLong { length: packet.bytes.len() };
        let captured = u32::try_from(packet.bytes.len()).map_err(too_long)?;
        self.begin(ENHANCED_PACKET);
        self.block.extend(packet.interface.to_le_bytes());
        let [low, high] = [packet.time_ns as u32, (packet.time_ns >> 32) as u32];
        self.block.extend(high.to_le_bytes());
        self.block.extend(low.to_le_bytes());
        self.block.extend(captured.to_le_bytes());
        self.block.extend(packet.original_len.to_le_bytes());
        self.block.extend_from_slice(packet.bytes);
        self.pad();
        let without_options = self.block.len();
        for comment in comments {
            self.text(COMMENT, comment);
        }
        if self.block.len() > without_options {
            self.option(0, &[]);
        }
        self.end()
    }

    /// Flushes and gives the output back.
    ///
    /// # Errors
    /// When flushing fails.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn begin(&mut self, block_type: u32) {
        self.block.clear();
        self.block.extend(block_type.to_le_bytes());
        self.block.extend([0; 4]); // The length, known at the end.
    }

    fn end(&mut self) -> Result<(), WriteError> {
        let length = self.block.len() + 4;
        let bytes = u32::try_from(length).map_err(|_| WriteError::TooLong { length })?.to_le_bytes();
        if let Some(field) = self.block.get_mut(4..8) {
            field.copy_from_slice(&bytes);
        }
        self.block.extend(bytes);
        Ok(self.out.write_all(&self.block)?)
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    /// Appends an option of text, cut at a character with a mark when it is too long.
    fn text(&mut self, code: u16, text: &str) {
        if text.len() <= MAX_OPTION {
            return self.option(code, text.as_bytes());
        }
        let room = MAX_OPTION - CUT.len();
        // A character is at most four bytes, so one of these cuts is at a boundary.
        let kept = (room - 3..=room).rev().find_map(|end| text.get(..end)).unwrap_or_default();
        self.option(code, [kept, CUT].concat().as_bytes());
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = value.get(..MAX_OPTION).unwrap_or(value);
        self.block.extend(code.to_le_bytes());
        self.block.extend((value.len() as u16).to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad();
    }
}
