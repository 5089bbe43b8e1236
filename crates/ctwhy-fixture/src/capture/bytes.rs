//! Integers in the byte order of the file, and the window over the input that refills itself.

use std::io::{self, ErrorKind, Read};

/// The byte order of a pcap file or of a pcapng section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endian {
    Little,
    Big,
}

impl Endian {
    /// The 16-bit integer at `at`; `None` when the bytes end before it does.
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Endian::Little => u16::from_le_bytes(raw),
            Endian::Big => u16::from_be_bytes(raw),
        })
    }

    /// The 32-bit integer at `at`; `None` when the bytes end before it does.
    pub(super) fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Endian::Little => u32::from_le_bytes(raw),
            Endian::Big => u32::from_be_bytes(raw),
        })
    }

    /// The signed 64-bit integer at `at`; `None` when the bytes end before it does.
    pub(super) fn i64(self, bytes: &[u8], at: usize) -> Option<i64> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Endian::Little => i64::from_le_bytes(raw),
            Endian::Big => i64::from_be_bytes(raw),
        })
    }
}

/// How much is asked of the input at once. Records longer than this make the window grow, up to the reader's limits.
const WINDOW: usize = 256 * 1024;

/// A window over the input: the bytes from `start` to `end` of `buf` are read and not yet consumed.
///
/// Positions in `buf` stay valid until the next [`Window::fill`] or [`Window::skip`], also behind `start`: that is what
/// lets a record be consumed and lent out at once.
pub(super) struct Window<R> {
    input: R,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// Where `start` is in the input, in bytes.
    offset: u64,
    exhausted: bool,
}

impl<R: Read> Window<R> {
    pub(super) fn new(input: R) -> Self {
        Window { input, buf: vec![0; WINDOW], start: 0, end: 0, offset: 0, exhausted: false }
    }

    /// The byte offset in the input of the first byte that is not consumed.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the first byte that is not consumed stands in the buffer; see [`Window::slice`].
    pub(super) fn position(&self) -> usize {
        self.start
    }

    /// The bytes that are read and not consumed.
    pub(super) fn data(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// The bytes at these positions in the buffer.
    pub(super) fn slice(&self, range: std::ops::Range<usize>) -> &[u8] {
        self.buf.get(range).unwrap_or_default()
    }

    /// Reads until `need` bytes are there or the input ends, and says how many are there.
    ///
    /// The buffer grows only as bytes really arrive, so a length field that lies costs no memory.
    pub(super) fn fill(&mut self, need: usize) -> io::Result<usize> {
        let have = self.end - self.start;
        if have >= need {
            return Ok(have);
        }
        self.buf.copy_within(self.start..self.end, 0);
        self.start = 0;
        self.end = have;
        while self.end < need && !self.exhausted {
            if self.end == self.buf.len() {
                self.buf.resize(self.buf.len() * 2, 0);
            }
            let space = self.buf.get_mut(self.end..).unwrap_or_default();
            match self.input.read(space) {
                Ok(0) => self.exhausted = true,
                Ok(n) => self.end += n.min(space.len()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.end)
    }

    /// Consumes `n` bytes of those that are there.
    pub(super) fn consume(&mut self, n: usize) {
        let n = n.min(self.end - self.start);
        self.start += n;
        self.offset += n as u64;
    }

    /// Consumes `n` bytes, read or not, without keeping them, and says how many there were.
    pub(super) fn skip(&mut self, n: u64) -> io::Result<u64> {
        let mut left = n;
        while left > 0 {
            let have = self.fill(1)?;
            if have == 0 {
                break;
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(have);
            self.consume(step);
            left -= step as u64;
        }
        Ok(n - left)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buf.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_end_with_the_bytes() {
        let bytes = [1, 2, 3, 4, 5];
        assert_eq!(Endian::Little.u32(&bytes, 1), Some(0x0504_0302));
        assert_eq!(Endian::Big.u16(&bytes, 3), Some(0x0405));
        assert_eq!(Endian::Big.u32(&bytes, 2), None);
        assert_eq!(Endian::Little.u16(&bytes, usize::MAX), None);
        assert_eq!(Endian::Little.i64(&bytes, 0), None);
    }

    #[test]
    fn a_long_record_grows_the_window_only_as_bytes_arrive() {
        let mut window = Window::new(io::repeat(7).take(1000));
        assert_eq!(window.fill(usize::MAX).unwrap(), 1000);
        assert_eq!(window.capacity(), WINDOW);
        assert_eq!(window.skip(1500).unwrap(), 1000);
        assert_eq!(window.offset(), 1000);
    }
}
