//! Fragments in words.

use core::fmt::{self, Display, Formatter};

use crate::defrag::{Refusal, Refused, Unfit, Waiting};
use crate::packet::Fragment;
use crate::trace::FragmentStep;
use crate::tuple::L3;

/// `a fragment (id 7, offset 1480, more follow)`
impl Display for Fragment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let more = if self.more { "more follow" } else { "the last one" };
        write!(f, "a fragment (id {}, offset {}, {more})", self.id, self.offset)
    }
}

impl Display for Waiting {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Waiting { fragment, have, end, first } = self;
        write!(f, "{fragment} that waits for the rest of its datagram, of which {have} ")?;
        match end {
            Some(end) => write!(f, "of {end} bytes are there")?,
            None => f.write_str("bytes are there")?,
        }
        if *first { Ok(()) } else { f.write_str(", but not the first ones") }
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.fragment {
            Some(fragment) => fragment.fmt(f)?,
            None => f.write_str("a fragment")?,
        }
        write!(f, ": {}; ", self.cause)?;
        match self.lost {
            None => f.write_str("it alone is dropped"),
            Some(0) => f.write_str("it is dropped"),
            Some(1) => f.write_str("it is dropped with the one fragment that waited"),
            Some(lost) => write!(f, "it is dropped with the {lost} fragments that waited"),
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Duplicate => f.write_str("all its bytes are there already"),
            Refusal::Overlap { from, to } => write!(f, "bytes {from} to {} are there already", to.saturating_sub(1)),
            Refusal::LastDiffers { ends, end } => {
                write!(f, "it says that the datagram ends at byte {ends}, and earlier fragments say {end}")
            }
            Refusal::PastEnd { ends, end } => write!(f, "it ends at byte {ends}, and the datagram at byte {end}"),
            Refusal::Empty => f.write_str("it brings no data"),
            Refusal::TooLong { ends } => write!(f, "it ends at byte {ends}, where no datagram can"),
            Refusal::Oversize { bytes } => {
                write!(f, "the datagram is complete, but with {bytes} bytes longer than a packet can be")
            }
            Refusal::Ecn { .. } => f.write_str(
                "the datagram is complete, but some of its fragments are ECN-capable and some are not (RFC 3168)",
            ),
            Refusal::Memory { have, most } => {
                write!(f, "{have} bytes of fragments wait already, and {most} may")
            }
            Refusal::ShortHeader { need, have } => {
                write!(f, "its fragment header would end at byte {need}, and {have} are there")
            }
        }
    }
}

impl Display for Unfit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::TransportHeader { need, have } => write!(
                f,
                "the first fragment must bring the whole transport header (RFC 8200): {need} bytes, and {have} are there"
            ),
            Unfit::OddLength { ends } => {
                write!(f, "more follow, but it ends at byte {ends}, which is no multiple of eight")
            }
        }
    }
}

pub(super) fn step(step: &FragmentStep, f: &mut Formatter<'_>) -> fmt::Result {
    match *step {
        FragmentStep::Expired { l3num, fragments, first } => {
            write!(f, "{} dropped after waiting too long for this datagram", Plural(fragments))?;
            match (first, l3num) {
                (false, _) => Ok(()),
                (true, L3::V4) => f.write_str("; where this host was the destination it answered with time exceeded"),
                (true, L3::V6) => f.write_str("; this host answered the first with time exceeded"),
            }
        }
        FragmentStep::TooFar { fragments, distance, most } => write!(
            f,
            "{} dropped: the source has sent {distance} fragments since, more than {most}, and the \
             identification may have come round",
            Plural(fragments)
        ),
        FragmentStep::AsIs { unfit, lost } => {
            write!(f, "a fragment that is not gathered and goes on as it is: {unfit}")?;
            if lost > 0 { write!(f, "; {} dropped", Plural(lost)) } else { Ok(()) }
        }
        FragmentStep::Part { label, offset, bytes } => {
            write!(f, "bytes {offset} to {} of the datagram: packet {label}", offset + bytes.saturating_sub(1))
        }
        FragmentStep::Reassembled { fragments, bytes } => {
            write!(f, "its datagram is complete: {fragments} fragments go on as one packet of {bytes} bytes")
        }
        FragmentStep::Cut { fragments, as_received: true } => {
            write!(f, "it leaves in {fragments} fragments, cut as they came")
        }
        FragmentStep::Cut { fragments: 1, as_received: false } => f.write_str("it leaves as one fragment"),
        FragmentStep::Cut { fragments, as_received: false } => write!(f, "it leaves in {fragments} new fragments"),
    }
}

/// `1 fragment was`, `2 fragments were`.
struct Plural(usize);

impl Display for Plural {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("the earlier fragment was"),
            count => write!(f, "the {count} earlier fragments were"),
        }
    }
}
