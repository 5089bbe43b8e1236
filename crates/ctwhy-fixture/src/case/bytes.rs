//! Bytes of a packet as lower-case hex, where `..` stands for a byte that is free to be anything.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes of a packet, some of them perhaps free: what a kernel chooses at random is no part of its decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(Vec<Option<u8>>);

/// Why a text is no [`Bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BytesError {
    /// A pair that is neither two lower-case hex digits nor `..`, at this offset of the text.
    Digit(usize),
    /// An odd number of characters.
    Odd(usize),
}

impl fmt::Display for BytesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BytesError::Digit(at) => {
                write!(f, "character {at} of the bytes begins neither two lower-case hex digits nor `..`")
            }
            BytesError::Odd(length) => write!(f, "the bytes have {length} characters, and each takes two"),
        }
    }
}

impl std::error::Error for BytesError {}

impl Bytes {
    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes in order; `None` where they are free.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<u8>> + '_ {
        self.0.iter().copied()
    }

    /// Makes the bytes of `range` free; those beyond the end there never were.
    pub fn free(&mut self, range: Range<usize>) {
        let end = range.end.min(self.0.len());
        self.0.get_mut(range.start..end).unwrap_or_default().fill(None);
    }

    /// The plain bytes; `None` when some are free.
    #[must_use]
    pub fn to_vec(&self) -> Option<Vec<u8>> {
        self.iter().collect()
    }

    /// At most `count` of the bytes from `offset` on.
    pub(super) fn window(&self, offset: usize, count: usize) -> Bytes {
        Bytes(self.iter().skip(offset).take(count).collect())
    }

    /// Offset of the first byte that both sides fix and that differs, and how many do. Lengths are not compared.
    pub(super) fn first_difference(&self, other: &Bytes) -> Option<(usize, usize)> {
        let mut differing = self.iter().zip(other.iter()).enumerate().filter_map(|(at, pair)| match pair {
            (Some(a), Some(b)) if a != b => Some(at),
            _ => None,
        });
        let first = differing.next()?;
        Some((first, differing.count() + 1))
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Bytes(bytes.iter().copied().map(Some).collect())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|byte| match byte {
            Some(byte) => write!(f, "{byte:02x}"),
            None => f.write_str(".."),
        })
    }
}

impl FromStr for Bytes {
    type Err = BytesError;

    fn from_str(text: &str) -> Result<Self, BytesError> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err(BytesError::Odd(text.len()));
        }
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let byte = |(at, pair): (usize, &[u8; 2])| match pair {
            b".." => Ok(None),
            [high, low] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => Ok(Some(high << 4 | low)),
                _ => Err(BytesError::Digit(2 * at)),
            },
        };
        pairs.iter().enumerate().map(byte).collect::<Result<_, _>>().map(Bytes)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_with_free_bytes_round_trips() {
        let bytes: Bytes = "45c0..00ff".parse().unwrap();
        assert_eq!((bytes.len(), bytes.to_string().as_str()), (5, "45c0..00ff"));
        assert_eq!(bytes.to_vec(), None);
        let mut plain = Bytes::from(&[0x45, 0xc0, 7, 0, 0xfe][..]);
        assert_eq!(bytes.first_difference(&plain), Some((4, 1)));
        plain.free(2..99);
        assert_eq!(plain.to_string(), "45c0......");
        assert_eq!(bytes.first_difference(&plain), None);
    }

    #[test]
    fn what_is_no_hex_says_where() {
        assert_eq!("4".parse::<Bytes>(), Err(BytesError::Odd(1)));
        assert_eq!("45C0".parse::<Bytes>(), Err(BytesError::Digit(2)));
        assert_eq!("45.0".parse::<Bytes>(), Err(BytesError::Digit(2)));
        assert_eq!("ü".parse::<Bytes>(), Err(BytesError::Digit(0)));
    }
}
