//! SCTP, UDP-Lite and GRE.

use ctwhy_core::checksum::{Sum, sctp_crc};
use ctwhy_core::tuple::L3;

use super::{Body, Ip, proto};

/// Types of SCTP chunks (RFC 9260).
#[allow(missing_docs)] // The names say it.
pub mod chunk_type {
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const SACK: u8 = 3;
    pub const HEARTBEAT: u8 = 4;
    pub const HEARTBEAT_ACK: u8 = 5;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const ERROR: u8 = 9;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// An SCTP chunk to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// One of [`chunk_type`].
    pub kind: u8,
    /// Flags; 1 is the T bit.
    pub flags: u8,
    /// The tag that INIT and INIT ACK announce.
    pub tag: u32,
}

impl Chunk {
    /// A chunk without flags that announces no tag.
    #[must_use]
    pub fn of(kind: u8) -> Chunk {
        Chunk { kind, ..Chunk::default() }
    }

    fn bytes(self) -> Vec<u8> {
        let body: Vec<u8> = match self.kind {
            chunk_type::INIT | chunk_type::INIT_ACK => {
                // Window, streams there and back, first TSN.
                [&self.tag.to_be_bytes()[..], &[0, 0, 0x80, 0, 0, 10, 0, 10, 0, 0, 0, 1]].concat()
            }
            chunk_type::DATA => vec![0; 16],
            chunk_type::SACK => vec![0; 12],
            chunk_type::HEARTBEAT | chunk_type::HEARTBEAT_ACK => vec![0, 1, 0, 8, 1, 2, 3, 4],
            chunk_type::SHUTDOWN => vec![0; 4],
            chunk_type::COOKIE_ECHO => b"cookie..".to_vec(),
            _ => Vec::new(),
        };
        let mut bytes = vec![self.kind, self.flags];
        bytes.extend((4 + body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }
}

/// An SCTP packet with its checksum.
#[must_use]
pub fn sctp(sport: u16, dport: u16, vtag: u32, chunks: &[Chunk]) -> Body {
    let mut bytes = Vec::new();
    bytes.extend(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend(vtag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(chunks.iter().flat_map(|chunk| chunk.bytes()));
    sealed_sctp(bytes)
}

/// SCTP bytes with the checksum put right, where there is room for one.
#[must_use]
pub fn sealed_sctp(mut bytes: Vec<u8>) -> Body {
    let crc = sctp_crc(&bytes);
    if let Some(field) = bytes.get_mut(8..12) {
        field.copy_from_slice(&crc.to_be_bytes());
    }
    Body::new(proto::SCTP, bytes)
}

/// Whose pseudo header a UDP-Lite checksum has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pseudo {
    /// RFC 3828: protocol 136.
    Standard,
    /// What Linux verifies at PREROUTING: UDP's protocol number, and in IPv4 the low 8 bits of the length.
    Linux,
}

/// A UDP-Lite datagram whose checksum covers `coverage` bytes; 0 is all of them.
#[must_use]
pub fn udplite(ip: &Ip, (sport, dport): (u16, u16), coverage: u16, payload: &[u8], pseudo: Pseudo) -> Body {
    let mut bytes = Vec::new();
    for field in [sport, dport, coverage, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(payload);
    let (protocol, length) = match (pseudo, ip.l3()) {
        (Pseudo::Standard, _) => (proto::UDPLITE, bytes.len()),
        (Pseudo::Linux, L3::V4) => (proto::UDP, bytes.len() & 0xff),
        (Pseudo::Linux, L3::V6) => (proto::UDP, bytes.len()),
    };
    let covered = if coverage == 0 { bytes.len() } else { usize::from(coverage).min(bytes.len()) };
    let sum: Sum = ip.pseudo_header(protocol, length).bytes(bytes.get(..covered).unwrap_or(&bytes));
    let checksum = match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    };
    if let Some(field) = bytes.get_mut(6..8) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    Body::new(proto::UDPLITE, bytes)
}

/// GRE version 0 with a key (RFC 2890) around nothing in particular.
#[must_use]
pub fn gre(key: u32) -> Body {
    Body::new(proto::GRE, [&[0x20, 0, 0x08, 0][..], &key.to_be_bytes(), b"inside"].concat())
}

/// GRE version 1 as PPTP has it (RFC 2637), with the call id of its receiver.
#[must_use]
pub fn pptp(call_id: u16) -> Body {
    let [c0, c1] = call_id.to_be_bytes();
    Body::new(proto::GRE, [0x30, 1, 0x88, 0x0b, 0, 4, c0, c1, 0, 0, 0, 1, 0xff, 0x03, 0xc0, 0x21])
}
