//! The TCP header of a packet and what is checked before any entry is looked at (catalogue E.1 and E.2).

use core::fmt;

use super::trace::TcpReason;
use crate::checksum::Sum;
use crate::reason::Reason;
use crate::track::{Context, L4};
use crate::tuple::proto;

/// Bits of the flags byte of the header (RFC 9293 section 3.1, RFC 3168).
pub mod flag {
    #![allow(missing_docs)]
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;

    /// Names in the order in which they are written.
    pub const NAMES: [(u8, &str); 8] = [
        (SYN, "SYN"),
        (FIN, "FIN"),
        (RST, "RST"),
        (PSH, "PSH"),
        (ACK, "ACK"),
        (URG, "URG"),
        (ECE, "ECE"),
        (CWR, "CWR"),
    ];
}

/// The length of a header without options.
const MIN_HEADER: usize = 20;

/// The header of a packet that passed [`check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Acknowledgment number, meaningful only with ACK.
    pub ack: u32,
    /// The flags byte: see [`flag`].
    pub flags: u8,
    /// The window as it stands in the header, not scaled.
    pub window: u16,
    /// Bytes of payload on the wire.
    pub payload: u32,
    /// Header length in bytes as the header says (data offset times four), 20 to 60.
    pub header_len: u8,
    /// The bytes of the options that are at hand: fewer than `header_len - 20` when a capture was cut short.
    pub options: &'a [u8],
    /// By how much `ack` lies above what its receiver sent, because a helper made segments longer; modulo 2³².
    pub ack_offset: u32,
}

impl Segment<'_> {
    /// Are all bits of `flags` set?
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// `get_conntrack_index`: the row of the state table.
    #[must_use]
    pub const fn index(&self) -> Index {
        if self.has(flag::RST) {
            Index::Rst
        } else if self.has(flag::SYN | flag::ACK) {
            Index::SynAck
        } else if self.has(flag::SYN) {
            Index::Syn
        } else if self.has(flag::FIN) {
            Index::Fin
        } else if self.has(flag::ACK) {
            Index::Ack
        } else {
            Index::None
        }
    }

    /// `segment_seq_plus_len`: the sequence number behind the segment; SYN and FIN count one each.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.payload)
            .wrapping_add(self.has(flag::SYN) as u32)
            .wrapping_add(self.has(flag::FIN) as u32)
    }
}

/// What a packet is to the state table (`enum tcp_bit_set`): the first of RST, SYN, FIN, ACK that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Index {
    /// SYN without ACK.
    Syn = 0,
    /// SYN with ACK.
    SynAck = 1,
    /// FIN without SYN.
    Fin = 2,
    /// ACK alone: pure acknowledgments and data.
    Ack = 3,
    /// RST with whatever else.
    Rst = 4,
    /// None of these.
    None = 5,
}

impl Index {
    /// Every index in the order of its number, which is the order of the rows of the state table.
    pub const ALL: [Index; 6] = [Index::Syn, Index::SynAck, Index::Fin, Index::Ack, Index::Rst, Index::None];

    /// The name in tables and sentences.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Index::Syn => "SYN",
            Index::SynAck => "SYN/ACK",
            Index::Fin => "FIN",
            Index::Ack => "ACK",
            Index::Rst => "RST",
            Index::None => "none",
        }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `tcp_error`: reads the header and refuses what no TCP would send. Applies to every packet, also of an entry that
/// is long established.
///
/// # Errors
/// A [`Reason::Tcp`] for a header that is not all there, a wrong checksum (only with [`Context::verify_checksum`]), or
/// a combination of flags that is not in the list of the valid ones.
pub fn check<'a>(l4: &L4<'a>, cx: &Context<'_>) -> Result<Segment<'a>, Reason> {
    let at_hand = &l4.bytes[..l4.bytes.len().min(l4.len)];
    let Some((header, rest)) = at_hand.split_first_chunk::<MIN_HEADER>() else {
        return refuse(TcpReason::ShortHeader { at_hand: at_hand.len(), len: l4.len });
    };
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, c0, c1, _, _] = *header;

    let header_len = (offset >> 4) * 4;
    let options_len = match usize::from(header_len).checked_sub(MIN_HEADER) {
        Some(options_len) => options_len,
        None => return refuse(TcpReason::BadDataOffset { header_len }),
    };
    let Some(payload) = l4.len.checked_sub(usize::from(header_len)) else {
        return refuse(TcpReason::Truncated { header_len, len: l4.len });
    };
    if cx.verify_checksum && at_hand.len() == l4.len {
        let found = u16::from_be_bytes([c0, c1]);
        let sum = Sum::default().pseudo_header(l4.l3num, l4.src, l4.dst, proto::TCP, l4.len).bytes(at_hand);
        if sum.fold() != 0xffff {
            let expected = sum.bytes(&(!found).to_be_bytes()).checksum();
            return refuse(TcpReason::BadChecksum { found, expected });
        }
    }
    if !valid_flags(flags) {
        return refuse(TcpReason::BadFlags { flags });
    }
    Ok(Segment {
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        window: u16::from_be_bytes([w0, w1]),
        payload: payload as u32,
        header_len,
        options: &rest[..options_len.min(rest.len())],
        ack_offset: 0,
    })
}

const fn refuse<T>(reason: TcpReason) -> Result<T, Reason> {
    Err(Reason::Tcp(reason))
}

/// `tcp_valid_flags`: PSH, ECE and CWR go with everything, the rest only in these nine combinations.
#[must_use]
pub const fn valid_flags(flags: u8) -> bool {
    use flag::{ACK, FIN, RST, SYN, URG};
    const SU: u8 = SYN | URG;
    const SA: u8 = SYN | ACK;
    const RA: u8 = RST | ACK;
    const FA: u8 = FIN | ACK;
    const FAU: u8 = FIN | ACK | URG;
    const AU: u8 = ACK | URG;
    matches!(flags & (SYN | FIN | RST | ACK | URG), SYN | SU | SA | RST | RA | FA | FAU | ACK | AU)
}
