//! Why a fragment did not become part of a packet that conntrack sees.

use crate::packet::Fragment;

/// A fragment that waits for the rest of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The fragment.
    pub fragment: Fragment,
    /// How many bytes of the datagram are there with it.
    pub have: u32,
    /// How many there must be, once the last fragment is there.
    pub end: Option<u32>,
    /// Is the first fragment there?
    pub first: bool,
}

/// A fragment that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The fragment; `None` when its fragment header cannot be read.
    pub fragment: Option<Fragment>,
    /// Why.
    pub cause: Refusal,
    /// How many fragments that had waited were dropped with it; `None` when they go on waiting.
    pub lost: Option<usize>,
}

/// Why a fragment was dropped. Ends and offsets are bytes of the datagram behind its IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// All its bytes are there already; whether they are the same is not looked at.
    Duplicate,
    /// Some of its bytes are there already.
    Overlap {
        /// The first of them, or of those in the first run that it meets.
        from: u32,
        /// Behind the last one.
        to: u32,
    },
    /// It is the last fragment, but ends before others do or where another last one did not.
    LastDiffers {
        /// Where it ends.
        ends: u32,
        /// Where the datagram ended so far.
        end: u32,
    },
    /// It goes on behind the end of the last fragment.
    PastEnd {
        /// Where it ends.
        ends: u32,
        /// Where the datagram ends.
        end: u32,
    },
    /// It has no data, or less than eight bytes with more to follow.
    Empty,
    /// It ends where no datagram can (IPv6).
    TooLong {
        /// Where it ends.
        ends: u32,
    },
    /// All fragments are there, but together they are longer than a packet can be.
    Oversize {
        /// The length of the datagram.
        bytes: usize,
    },
    /// All fragments are there, but some are ECN-capable and some are not.
    Ecn {
        /// Which codepoints were seen, a bit each.
        seen: u8,
    },
    /// Too much is waiting already.
    Memory {
        /// What all that waits is charged, in bytes.
        have: usize,
        /// What it may be.
        most: u32,
    },
    /// Its fragment header is cut off (IPv6).
    ShortHeader {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Refusal::Duplicate => "fragment.duplicate",
            Refusal::Overlap { .. } => "fragment.overlap",
            Refusal::LastDiffers { .. } => "fragment.last_differs",
            Refusal::PastEnd { .. } => "fragment.past_end",
            Refusal::Empty => "fragment.empty",
            Refusal::TooLong { .. } => "fragment.too_long",
            Refusal::Oversize { .. } => "fragment.oversize",
            Refusal::Ecn { .. } => "fragment.ecn",
            Refusal::Memory { .. } => "fragment.memory",
            Refusal::ShortHeader { .. } => "fragment.short_header",
        }
    }
}

/// Why an IPv6 fragment is not gathered, but goes on to conntrack as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The first fragment has not all of the transport header.
    TransportHeader {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// More follow, but it does not end at a multiple of eight bytes. What waited for the datagram is dropped.
    OddLength {
        /// Where it ends.
        ends: u32,
    },
}
