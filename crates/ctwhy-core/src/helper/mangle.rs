//! The payload as the other side of a NAT must see it (`__nf_nat_mangle_tcp_packet`).

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{HelperStep, tell};
use crate::checksum::Sum;
use crate::packet::{IPV6_HEADER, Packet, be16};
use crate::trace::{Part, Protected, Sink, Step, Update};
use crate::tuple::{L3, proto};

/// A few bytes that are put into a payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text {
    bytes: [u8; Text::LONGEST],
    len: u8,
}

impl Text {
    /// The most there can be: an `EPRT` with an IPv6 address and a port has 48.
    const LONGEST: usize = 60;

    pub(super) const EMPTY: Text = Text { bytes: [0; Text::LONGEST], len: 0 };

    /// Two bytes of a binary protocol.
    pub(super) fn number(value: u16) -> Text {
        let mut text = Text::EMPTY;
        text.bytes[..2].copy_from_slice(&value.to_be_bytes());
        text.len = 2;
        text
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let start = usize::from(self.len);
        let end = start + s.len();
        self.bytes.get_mut(start..end).ok_or(fmt::Error)?.copy_from_slice(s.as_bytes());
        self.len = end as u8;
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// What becomes of a payload.
pub(crate) struct Mangle {
    /// Where the transport header begins in the packet.
    pub(super) l4: usize,
    /// Where the payload begins in the packet.
    pub(super) payload: usize,
    /// First byte to be replaced, in the payload.
    pub(super) at: usize,
    /// Bytes to be replaced.
    pub(super) was: usize,
    /// What comes there.
    pub(super) is: Text,
}

impl Mangle {
    /// By how many bytes the packet grows, modulo 2³².
    pub(super) fn growth(&self) -> u32 {
        (self.is.as_bytes().len() as u32).wrapping_sub(self.was as u32)
    }

    /// Rewrites the packet, whose length is that of `packet`, and gives its length after. Where it outgrows `packet` it
    /// is written into `spare`.
    pub(crate) fn apply<'a, S: Sink>(
        &self,
        packet: &'a mut [u8],
        len: usize,
        spare: &'a mut Vec<u8>,
        sink: &mut S,
    ) -> (&'a mut [u8], usize) {
        let start = (self.payload + self.at).min(len);
        let end = (start + self.was).min(len);
        let is = self.is.as_bytes();
        let new_len = len - (end - start) + is.len();
        let packet = if new_len <= packet.len() {
            packet
        } else {
            spare.clear();
            spare.extend_from_slice(packet);
            spare.resize(new_len, 0);
            spare.as_mut_slice()
        };
        packet.copy_within(end..len, start + is.len());
        if let Some(place) = packet.get_mut(start..start + is.len()) {
            place.copy_from_slice(is);
        }
        tell(sink, || HelperStep::Mangled { at: self.at, was: self.was, is: self.is });
        (packet, new_len)
    }

    /// `nf_nat_csum_recalc`, and the length in the IP header: what was wrong is right afterwards.
    pub(crate) fn seal<S: Sink>(&self, packet: &mut [u8], l3num: L3, sink: &mut S) {
        const CHECKSUM: usize = 16;

        let len = packet.len();
        let mut put = |at: usize, value: usize| {
            if let Some(field) = packet.get_mut(at..at + 2) {
                field.copy_from_slice(&(value as u16).to_be_bytes());
            }
        };
        match l3num {
            L3::V4 => {
                put(2, len);
                put(10, 0);
                let header = usize::from(packet.first().map_or(0, |byte| byte & 15)) * 4;
                let checksum = Sum::default().bytes(packet.get(..header).unwrap_or_default()).checksum();
                if let Some(field) = packet.get_mut(10..12) {
                    field.copy_from_slice(&checksum.to_be_bytes());
                }
            }
            L3::V6 => put(4, len.saturating_sub(IPV6_HEADER)),
        }
        let at = self.l4 + CHECKSUM;
        let Some(from) = be16(packet, at) else { return };
        if let Some(field) = packet.get_mut(at..at + 2) {
            field.copy_from_slice(&[0; 2]);
        }
        let Ok(parsed) = Packet::parse(packet, len) else { return };
        let segment = packet.get(self.l4..).unwrap_or_default();
        let sum = Sum::default().pseudo_header(l3num, parsed.src, parsed.dst, proto::TCP, segment.len());
        let to = sum.bytes(segment).checksum();
        if let Some(field) = packet.get_mut(at..at + 2) {
            field.copy_from_slice(&to.to_be_bytes());
        }
        sink.step(|| Step::ChecksumUpdated {
            part: Part::Outer,
            protected: Protected::Tcp,
            how: Update::Full,
            from: from.into(),
            to: to.into(),
        });
    }
}
