//! The classic pcap format (draft-ietf-opsawg-pcap): one file header, then one record after the other.

use std::io::Read;

use super::bytes::{Endian, Window};
use super::error::{Cause, Fault};
use super::{Clock, Interface, MAX_PACKET, Record};
use crate::linktype::LinkType;

/// Length of the file header.
pub(super) const HEADER: usize = 24;

/// What the file header said about the records.
pub(super) struct Pcap {
    endian: Endian,
    /// Nanoseconds in one unit of the second time field.
    fraction: u64,
    /// Length of a record's header: 16, or 24 in the "modified" format of old Linux distributions.
    header: usize,
    lengths: Lengths,
}

/// The order of a record's two lengths, which changed with version 2.3.
enum Lengths {
    CapturedFirst,
    OriginalFirst,
    /// Version 2.3 itself: writers disagree, and the captured length is never the greater one.
    Either,
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;

/// Whether a file's first bytes, fewer than four, may be the beginning of a pcap.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let magics = [MICROSECONDS, NANOSECONDS, MODIFIED];
    magics.iter().any(|m| m.to_le_bytes().starts_with(bytes) || m.to_be_bytes().starts_with(bytes))
}

/// The byte order, time unit and record header length that a file's first four bytes stand for.
pub(super) fn recognise(magic: [u8; 4]) -> Option<(Endian, u64, usize)> {
    [(Endian::Little, u32::from_le_bytes(magic)), (Endian::Big, u32::from_be_bytes(magic))].into_iter().find_map(
        |(endian, magic)| match magic {
            MICROSECONDS => Some((endian, 1000, 16)),
            NANOSECONDS => Some((endian, 1, 16)),
            MODIFIED => Some((endian, 1000, 24)),
            _ => None,
        },
    )
}

impl Pcap {
    /// Reads the file header, whose magic has been recognised, and describes the one interface.
    pub(super) fn start<R: Read>(
        (endian, fraction, header): (Endian, u64, usize),
        window: &mut Window<R>,
        interfaces: &mut Vec<Interface>,
    ) -> Result<Pcap, Fault> {
        let have = window.fill(HEADER).map_err(|e| Fault::new(0, Cause::Read(e)))?;
        let cut = || Fault::new(0, Cause::HeaderCut { need: HEADER as u64, have: have as u64 });
        let data = window.data();
        let major = endian.u16(data, 4).ok_or_else(cut)?;
        let minor = endian.u16(data, 6).ok_or_else(cut)?;
        let snaplen = endian.u32(data, 16).ok_or_else(cut)?;
        let linktype = endian.u32(data, 20).ok_or_else(cut)?;
        let lengths = match (major, minor) {
            (2, 0..=2) => Lengths::OriginalFirst,
            (2, 3) => Lengths::Either,
            (2, _) => Lengths::CapturedFirst,
            _ => return Err(Fault::new(4, Cause::Version { what: "pcap", major, minor })),
        };
        interfaces.push(Interface {
            name: None,
            // The upper six bits say how long the frame check sequence is.
            linktype: LinkType(linktype & 0x03ff_ffff),
            snaplen: Some(snaplen).filter(|&n| n != 0),
            clock: Clock::default(),
        });
        window.consume(HEADER);
        Ok(Pcap { endian, fraction, header, lengths })
    }

    /// The next record, consumed; `None` at the end. `packet` is the number it gets.
    pub(super) fn next<R: Read>(
        &self,
        window: &mut Window<R>,
        interfaces: &[Interface],
        packet: u64,
    ) -> Result<Option<Record>, Fault> {
        let offset = window.offset();
        let fault = |cause| Fault::new(offset, cause);
        let have = window.fill(self.header).map_err(|e| fault(Cause::Read(e)))?;
        if have == 0 {
            return Ok(None);
        }
        let cut = |need: usize, have: usize| fault(Cause::PacketCut { packet, need: need as u64, have: have as u64 });
        if have < self.header {
            return Err(cut(self.header, have));
        }
        let field = |at| self.endian.u32(window.data(), at).ok_or_else(|| cut(self.header, have));
        let (seconds, units, first, second) = (field(0)?, field(4)?, field(8)?, field(12)?);
        let (captured, original_len) = match self.lengths {
            Lengths::CapturedFirst => (first, second),
            Lengths::OriginalFirst => (second, first),
            Lengths::Either => (first.min(second), first.max(second)),
        };
        if captured > MAX_PACKET {
            return Err(fault(Cause::PacketTooLong { packet, length: captured.into(), limit: MAX_PACKET.into() }));
        }
        let need = self.header + captured as usize;
        let have = window.fill(need).map_err(|e| fault(Cause::Read(e)))?;
        if have < need {
            return Err(cut(need, have));
        }
        let at = window.position();
        window.consume(need);
        Ok(Some(Record {
            time_ns: u64::from(seconds) * 1_000_000_000 + u64::from(units) * self.fraction,
            interface: 0,
            linktype: interfaces.first().map_or(LinkType::NULL, |i| i.linktype),
            original_len,
            data: at + self.header..at + need,
            options: 0..0,
            endian: self.endian,
        }))
    }
}
