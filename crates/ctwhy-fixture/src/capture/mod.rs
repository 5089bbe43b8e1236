//! Captures read as a stream: pcap and pcapng from a file or standard input, in memory that does not grow with them.
//!
//! The containers are read by hand. Of the two crates that do it, pcap-parser 0.17 allocates for each packet block with
//! options, takes a packet block that overruns its own length for a truncated file, and reads neither binary nor
//! big-endian time resolutions and offsets; pcap-file 2.0 refuses packets cut by the snap length, ignores time
//! resolutions, and tells a record above its fixed buffer from the end of the file by nothing. Neither says where.

mod bytes;
mod error;
mod pcap;
mod pcapng;
mod sniff;

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use bytes::{Endian, Window};
use error::Fault;
pub use error::{CaptureError, Cause};
use pcap::Pcap;
use pcapng::{Options, PcapNg};
pub use sniff::Looks;

use crate::linktype::LinkType;

/// Longest packet that is read, in bytes. The longest that Linux hands to a capture is 512 KiB (BIG TCP); more means
/// that the length field is garbage.
const MAX_PACKET: u32 = 16 << 20;

/// A capture being read.
///
/// `next` lends each packet out of the reader's buffer, so there is no copy and no allocation per packet.
///
/// ```no_run
/// # use ctwhy_fixture::{capture::Capture, link};
/// let mut capture = Capture::open("trace.pcapng")?;
/// while let Some(packet) = capture.next() {
///     let packet = packet?;
///     if let link::Stripped::Ip(found) = link::strip(packet.linktype, packet.bytes)? {
///         println!("{}: {:?} from byte {} on", packet.number, found.l3, found.ip_offset);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Capture<R = Box<dyn Read>> {
    file: String,
    window: Window<R>,
    format: Format,
    interfaces: Vec<Interface>,
    packets: u64,
    ended: bool,
}

enum Format {
    Pcap(Pcap),
    PcapNg(PcapNg),
}

/// An interface that packets were captured on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name (`if_name`); `None` when the file does not say it, as a pcap never does.
    pub name: Option<String>,
    /// What its packets start with.
    pub linktype: LinkType,
    /// Most bytes captured of a packet; `None` when there is no limit.
    pub snaplen: Option<u32>,
    clock: Clock,
}

/// A packet as captured, lent out of the reader's buffer.
#[derive(Clone, Copy, Debug)]
pub struct CapturedPacket<'a> {
    /// Its place in the file, counted from 1 over all interfaces, as Wireshark does.
    pub number: u64,
    /// Nanoseconds since the epoch. A simple packet block, which has no time, repeats that of the packet before it.
    pub time_ns: u64,
    /// Index into [`Capture::interfaces`], counted over all sections of the file.
    pub interface: u32,
    /// What the bytes start with.
    pub linktype: LinkType,
    /// The bytes that were captured, from the link layer on.
    pub bytes: &'a [u8],
    /// Length on the wire; greater than `bytes` when the packet was cut by the snap length.
    pub original_len: u32,
    interfaces: &'a [Interface],
    options: Options<'a>,
}

impl<'a> CapturedPacket<'a> {
    /// The name of its interface; `None` when the file does not say it.
    #[must_use]
    pub fn iface(&self) -> Option<&'a str> {
        self.interfaces.get(self.interface as usize)?.name.as_deref()
    }

    /// As [`Capture::interfaces`], which cannot be asked while the packet is lent.
    #[must_use]
    pub fn interfaces(&self) -> &'a [Interface] {
        self.interfaces
    }

    /// The packet's comments (`opt_comment`), which only pcapng has; those that are not UTF-8 are left out.
    pub fn comments(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        const COMMENT: u16 = 1;
        self.options.filter_map(|option| match option {
            Ok((COMMENT, value)) => std::str::from_utf8(value).ok(),
            _ => None,
        })
    }
}

/// A packet found in the window: everything but the borrow.
struct Record {
    time_ns: u64,
    interface: u32,
    linktype: LinkType,
    original_len: u32,
    data: Range<usize>,
    options: Range<usize>,
    endian: Endian,
}

/// How an interface's time stamps become nanoseconds since the epoch (`if_tsresol`, `if_tsoffset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    unit: Unit,
    /// Seconds to add.
    offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Nanoseconds in one unit.
    Nanoseconds(u128),
    /// Units in one nanosecond.
    PerNanosecond(u128),
    /// A second is two to this power units.
    Binary(u32),
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new(6, 0)
    }
}

impl Clock {
    /// A clock of resolution `if_tsresol`: a negative power of ten, or of two with the highest bit set.
    fn new(resolution: u8, offset: i64) -> Self {
        let exponent = u32::from(resolution & 0x7f);
        let unit = if resolution & 0x80 != 0 {
            Unit::Binary(exponent)
        } else if exponent <= 9 {
            Unit::Nanoseconds(10u128.pow(9 - exponent))
        } else {
            Unit::PerNanosecond(10u128.checked_pow(exponent - 9).unwrap_or(u128::MAX))
        };
        Clock { unit, offset }
    }

    /// Nanoseconds since the epoch; times that do not fit are the nearest that do.
    fn nanoseconds(self, units: u64) -> u64 {
        const SECOND: u128 = 1_000_000_000;
        let units = u128::from(units);
        let since = match self.unit {
            Unit::Nanoseconds(n) => units * n,
            Unit::PerNanosecond(n) => units / n,
            Unit::Binary(exponent) => (units * SECOND).checked_shr(exponent).unwrap_or(0),
        };
        let shift = u128::from(self.offset.unsigned_abs()) * SECOND;
        let time = if self.offset < 0 { since.saturating_sub(shift) } else { since + shift };
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

impl Capture {
    /// Opens the capture at `path`; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be opened or does not start like a capture.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        if name == "-" {
            return Capture::new(Box::new(io::stdin().lock()), name);
        }
        match File::open(path) {
            Ok(file) => Capture::new(Box::new(file), name),
            Err(e) => Err(CaptureError::new(&name, Fault::new(0, Cause::Open(e)))),
        }
    }
}

impl<R: Read> Capture<R> {
    /// Reads a capture from anything; `file` is what errors call it.
    ///
    /// # Errors
    /// When it cannot be read or does not start like a capture.
    pub fn new(input: R, file: impl Into<String>) -> Result<Self, CaptureError> {
        let file = file.into();
        let mut window = Window::new(input);
        let mut interfaces = Vec::new();
        match start(&mut window, &mut interfaces) {
            Ok(format) => Ok(Capture { file, window, format, interfaces, packets: 0, ended: false }),
            Err(fault) => Err(CaptureError::new(&file, fault)),
        }
    }

    /// The next packet; `None` at the end of the input and behind an error that is not
    /// [recoverable](CaptureError::is_recoverable).
    ///
    /// # Errors
    /// When the input ends within a packet, is damaged, or cannot be read. Each fault is reported once, and all packets
    /// before it have been delivered.
    #[allow(clippy::should_implement_trait)] // An Iterator cannot lend out of itself.
    pub fn next(&mut self) -> Option<Result<CapturedPacket<'_>, CaptureError>> {
        if self.ended {
            return None;
        }
        let number = self.packets + 1;
        let found = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.window, &self.interfaces, number),
            Format::PcapNg(pcapng) => pcapng.next(&mut self.window, &mut self.interfaces, number),
        };
        match found {
            Ok(Some(record)) => {
                self.packets = number;
                Some(Ok(CapturedPacket {
                    number,
                    time_ns: record.time_ns,
                    interface: record.interface,
                    linktype: record.linktype,
                    bytes: self.window.slice(record.data),
                    original_len: record.original_len,
                    interfaces: &self.interfaces,
                    options: Options { bytes: self.window.slice(record.options), endian: record.endian },
                }))
            }
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(fault) => {
                if fault.cause.is_recoverable() {
                    self.packets = number;
                } else {
                    self.ended = true;
                }
                Some(Err(CaptureError::new(&self.file, fault)))
            }
        }
    }

    /// The interfaces described so far, of all sections. A pcapng may describe more of them between packets.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The name under which errors speak of the input.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }
}

/// Recognises the format by the first four bytes and reads its header.
fn start<R: Read>(window: &mut Window<R>, interfaces: &mut Vec<Interface>) -> Result<Format, Fault> {
    // No more than is needed: the first packet of a live capture must not wait for the second.
    let have = window.fill(4).map_err(|e| Fault::new(0, Cause::Read(e)))?;
    let data = window.data();
    let Some(&magic) = data.first_chunk::<4>() else {
        let need = match data {
            [] => return Err(Fault::new(0, Cause::Empty)),
            _ if pcap::begins(data) => pcap::HEADER as u64,
            _ if pcapng::SECTION.to_be_bytes().starts_with(data) => pcapng::SECTION_MIN.into(),
            _ => return Err(Fault::new(0, Cause::NotACapture(Looks::of(data)))),
        };
        return Err(Fault::new(0, Cause::HeaderCut { need, have: have as u64 }));
    };
    if let Some(kind) = pcap::recognise(magic) {
        return Pcap::start(kind, window, interfaces).map(Format::Pcap);
    }
    if u32::from_be_bytes(magic) == pcapng::SECTION {
        return PcapNg::start(window).map(Format::PcapNg);
    }
    Err(Fault::new(0, Cause::NotACapture(Looks::of(data))))
}

impl<R> std::fmt::Debug for Capture<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("file", &self.file).field("packets", &self.packets).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn time_stamps_of_every_resolution() {
        assert_eq!(Clock::default().nanoseconds(1_700_000_000_000_001), 1_700_000_000_000_001_000);
        assert_eq!(Clock::new(9, 0).nanoseconds(7), 7);
        assert_eq!(Clock::new(0, 1).nanoseconds(7), 8_000_000_000);
        assert_eq!(Clock::new(12, 0).nanoseconds(7999), 7);
        assert_eq!(Clock::new(0x80 | 1, 0).nanoseconds(3), 1_500_000_000);
        assert_eq!(Clock::new(0x80 | 32, -1).nanoseconds(3 << 31), 500_000_000);
    }

    #[test]
    fn absurd_time_stamps_are_clamped() {
        for resolution in 0..=255 {
            for offset in [0, 1, -1, i64::MIN, i64::MAX] {
                let clock = Clock::new(resolution, offset);
                assert!(clock.nanoseconds(0) <= clock.nanoseconds(u64::MAX));
            }
        }
        assert_eq!(Clock::new(0, i64::MAX).nanoseconds(1), u64::MAX);
        assert_eq!(Clock::new(0, i64::MIN).nanoseconds(1), 0);
        assert_eq!(Clock::new(0xff, 0).nanoseconds(u64::MAX), 0);
    }
}
