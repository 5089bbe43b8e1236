//! The pcapng format (draft-ietf-opsawg-pcapng): sections of blocks, each section in a byte order of its own.

use std::io::Read;

use super::bytes::{Endian, Window};
use super::error::{Cause, Fault};
use super::{Clock, Interface, MAX_PACKET, Record};
use crate::linktype::LinkType;

/// Type of a section header block; it reads the same in both byte orders.
pub(super) const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Length of a section header without options.
pub(super) const SECTION_MIN: u32 = 28;
/// Longest block that is read as a whole: a packet with room for its options.
const MAX_BLOCK: u32 = MAX_PACKET + (1 << 20);
/// Most interfaces over all sections, so that a damaged file cannot fill the memory with them.
const MAX_INTERFACES: usize = 1 << 16;

/// The state of reading a pcapng.
pub(super) struct PcapNg {
    endian: Endian,
    /// Index of the section's first interface among those of all sections.
    first: usize,
    /// Time of the packet before, which a simple packet block without a time of its own inherits.
    last_ns: u64,
}

/// A block header: its place, type and length.
#[derive(Clone, Copy)]
struct Head {
    offset: u64,
    block_type: u32,
    length: u32,
}

impl Head {
    fn fault(self, cause: Cause) -> Fault {
        Fault::new(self.offset, cause)
    }

    fn bad_length(self, problem: &'static str) -> Fault {
        self.fault(Cause::BlockLength { block_type: self.block_type, length: self.length.into(), problem })
    }

    /// The input ended within the block; `packet` is the number of the next packet.
    fn cut(self, packet: u64, have: u64) -> Fault {
        let need = self.length.into();
        self.fault(match self.block_type {
            PACKET | SIMPLE_PACKET | ENHANCED_PACKET => Cause::PacketCut { packet, need, have },
            t => Cause::BlockCut { block_type: Some(t), packets: packet.saturating_sub(1), need, have },
        })
    }

    fn check_trailer(self, trailer: u32) -> Result<(), Fault> {
        let (block_type, length) = (self.block_type, self.length);
        if trailer == length { Ok(()) } else { Err(self.fault(Cause::BlockTrailer { block_type, length, trailer })) }
    }
}

impl PcapNg {
    /// Reads the first section header, whose block type has been recognised.
    pub(super) fn start<R: Read>(window: &mut Window<R>) -> Result<PcapNg, Fault> {
        let mut reader = PcapNg { endian: Endian::Little, first: 0, last_ns: 0 };
        reader.section(window, 0, 1)?;
        Ok(reader)
    }

    /// The next packet, consumed; `None` at the end. `packet` is the number it gets.
    pub(super) fn next<R: Read>(
        &mut self,
        window: &mut Window<R>,
        interfaces: &mut Vec<Interface>,
        packet: u64,
    ) -> Result<Option<Record>, Fault> {
        loop {
            let offset = window.offset();
            let have = window.fill(8).map_err(|e| Fault::new(offset, Cause::Read(e)))?;
            if have == 0 {
                return Ok(None);
            }
            let endian = self.endian;
            let (Some(block_type), Some(length)) = (endian.u32(window.data(), 0), endian.u32(window.data(), 4)) else {
                let packets = packet.saturating_sub(1);
                let cause = Cause::BlockCut { block_type: None, packets, need: 8, have: have as u64 };
                return Err(Fault::new(offset, cause));
            };
            if block_type == SECTION {
                self.section(window, interfaces.len(), packet)?;
                continue;
            }
            let head = Head { offset, block_type, length };
            let least = match block_type {
                ENHANCED_PACKET | PACKET => 32,
                INTERFACE => 20,
                SIMPLE_PACKET => 16,
                _ => 12,
            };
            if length < least {
                return Err(head.bad_length("fewer than its fixed fields take"));
            }
            if length % 4 != 0 {
                return Err(head.bad_length("not a multiple of four"));
            }
            if !matches!(block_type, ENHANCED_PACKET | PACKET | SIMPLE_PACKET | INTERFACE) {
                self.pass(window, head, packet)?;
                continue;
            }
            if length > MAX_BLOCK {
                return Err(match block_type {
                    INTERFACE => head.bad_length("far more than an interface can say"),
                    _ => head.fault(Cause::PacketTooLong { packet, length: length.into(), limit: MAX_PACKET.into() }),
                });
            }
            let need = length as usize;
            let have = window.fill(need).map_err(|e| head.fault(Cause::Read(e)))?;
            let Some(block) = window.data().get(..need) else {
                return Err(head.cut(packet, have as u64));
            };
            head.check_trailer(endian.u32(block, need - 4).unwrap_or_default())?;
            let at = window.position();
            if block_type == INTERFACE {
                let interface = describe(endian, block, head)?;
                if interfaces.len() >= MAX_INTERFACES {
                    return Err(head.fault(Cause::TooManyInterfaces { limit: MAX_INTERFACES }));
                }
                interfaces.push(interface);
                window.consume(need);
                continue;
            }
            let record = self.packet(block, at, head, interfaces, packet);
            window.consume(need);
            let record = record?;
            self.last_ns = record.time_ns;
            return Ok(Some(record));
        }
    }

    /// Reads a section header, which decides the byte order and forgets the interfaces of the section before.
    fn section<R: Read>(&mut self, window: &mut Window<R>, interfaces: usize, packet: u64) -> Result<(), Fault> {
        const FIXED: usize = 24;
        let offset = window.offset();
        let have = window.fill(FIXED).map_err(|e| Fault::new(offset, Cause::Read(e)))?;
        let cut = || {
            let (need, have) = (u64::from(SECTION_MIN), have as u64);
            let packets = packet.saturating_sub(1);
            let cause = match offset {
                0 => Cause::HeaderCut { need, have },
                _ => Cause::BlockCut { block_type: Some(SECTION), packets, need, have },
            };
            Fault::new(offset, cause)
        };
        let data = window.data();
        self.endian = match data.get(8..12).ok_or_else(cut)? {
            [0x4d, 0x3c, 0x2b, 0x1a] => Endian::Little,
            [0x1a, 0x2b, 0x3c, 0x4d] => Endian::Big,
            other => {
                let magic = Endian::Big.u32(other, 0).unwrap_or_default();
                return Err(Fault::new(offset + 8, Cause::ByteOrder(magic)));
            }
        };
        let length = self.endian.u32(data, 4).ok_or_else(cut)?;
        let major = self.endian.u16(data, 12).ok_or_else(cut)?;
        let minor = self.endian.u16(data, 14).ok_or_else(cut)?;
        let head = Head { offset, block_type: SECTION, length };
        if length < SECTION_MIN {
            return Err(head.bad_length("fewer than its fixed fields take"));
        }
        if length % 4 != 0 {
            return Err(head.bad_length("not a multiple of four"));
        }
        if major != 1 {
            return Err(Fault::new(offset + 12, Cause::Version { what: "pcapng section", major, minor }));
        }
        self.first = interfaces;
        self.pass(window, head, packet)
    }

    /// Consumes a block without keeping it, however long, and checks the length behind it.
    fn pass<R: Read>(&self, window: &mut Window<R>, head: Head, packet: u64) -> Result<(), Fault> {
        let body = u64::from(head.length) - 4;
        let passed = window.skip(body).map_err(|e| head.fault(Cause::Read(e)))?;
        let have = window.fill(4).map_err(|e| head.fault(Cause::Read(e)))?;
        let Some(trailer) = self.endian.u32(window.data(), 0) else {
            return Err(head.cut(packet, passed + have as u64));
        };
        head.check_trailer(trailer)?;
        window.consume(4);
        Ok(())
    }

    /// Takes apart an enhanced, simple or (obsolete) packet block, which stands at `at` in the window.
    fn packet(
        &self,
        block: &[u8],
        at: usize,
        head: Head,
        interfaces: &[Interface],
        packet: u64,
    ) -> Result<Record, Fault> {
        let endian = self.endian;
        // The block is as long as its fixed fields: checked before, so zero never stands in for a missing field.
        let field = |at| endian.u32(block, at).unwrap_or_default();
        let described = interfaces.get(self.first..).unwrap_or_default();
        let id = match head.block_type {
            ENHANCED_PACKET => field(8),
            PACKET => endian.u16(block, 8).unwrap_or_default().into(),
            _ => 0,
        };
        let interface = described.get(id as usize).ok_or_else(|| {
            let described = u32::try_from(described.len()).unwrap_or(u32::MAX);
            head.fault(Cause::UnknownInterface { packet, interface: id, described })
        })?;
        let (fixed, captured, original_len, time_ns) = if head.block_type == SIMPLE_PACKET {
            let original = field(8);
            let room = head.length - 16;
            let captured = original.min(interface.snaplen.unwrap_or(u32::MAX)).min(room);
            (12, captured, original, self.last_ns)
        } else {
            let units = u64::from(field(12)) << 32 | u64::from(field(16));
            (28, field(20), field(24), interface.clock.nanoseconds(units))
        };
        let end = block.len() - 4;
        let room = end - fixed;
        if captured as usize > room {
            return Err(head.fault(Cause::PacketOverrun { packet, captured, room }));
        }
        let stop = fixed + captured as usize;
        let options = match head.block_type {
            SIMPLE_PACKET => end..end,
            _ => stop.next_multiple_of(4)..end,
        };
        Ok(Record {
            time_ns,
            interface: u32::try_from(self.first + id as usize).unwrap_or(u32::MAX),
            linktype: interface.linktype,
            original_len,
            data: at + fixed..at + stop,
            options: at + options.start..at + options.end,
            endian,
        })
    }
}

/// Reads an interface description block.
fn describe(endian: Endian, block: &[u8], head: Head) -> Result<Interface, Fault> {
    const NAME: u16 = 2;
    const TIME_RESOLUTION: u16 = 9;
    const TIME_OFFSET: u16 = 14;
    let linktype = endian.u16(block, 8).unwrap_or_default();
    let snaplen = endian.u32(block, 12).unwrap_or_default();
    let (mut name, mut resolution, mut offset) = (None, 6, 0);
    let options = Options { bytes: block.get(16..block.len() - 4).unwrap_or_default(), endian };
    for option in options {
        let bad = |code, problem| head.fault(Cause::BadOption { code, problem });
        let (code, value) = option.map_err(|code| bad(code, "is longer than its block"))?;
        match code {
            NAME => name = Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()),
            TIME_RESOLUTION => match value {
                [n] => resolution = *n,
                _ => return Err(bad(code, "(if_tsresol) is not one byte")),
            },
            TIME_OFFSET if value.len() == 8 => offset = endian.i64(value, 0).unwrap_or_default(),
            TIME_OFFSET => return Err(bad(code, "(if_tsoffset) is not eight bytes")),
            _ => {}
        }
    }
    Ok(Interface {
        name: name.filter(|n| !n.is_empty()),
        linktype: LinkType(linktype.into()),
        snaplen: Some(snaplen).filter(|&n| n != 0),
        clock: Clock::new(resolution, offset),
    })
}

/// The options of a block: code and value, or the code of the one that does not fit, which is the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) endian: Endian,
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), u16>;

    fn next(&mut self) -> Option<Self::Item> {
        let code = self.endian.u16(self.bytes, 0)?;
        if code == 0 {
            self.bytes = &[];
            return None;
        }
        let value = self.endian.u16(self.bytes, 2).and_then(|length| {
            let length = usize::from(length);
            let value = self.bytes.get(4..4 + length)?;
            self.bytes = self.bytes.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
            Some(value)
        });
        if value.is_none() {
            self.bytes = &[];
        }
        Some(value.map(|v| (code, v)).ok_or(code))
    }
}
