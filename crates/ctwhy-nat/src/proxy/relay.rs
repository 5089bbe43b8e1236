//! An error for the guest: as the router would have sent it, had it seen the guest's own datagram.
//!
//! The quote is what the guest sent, byte for byte, for as long as the router's quote was. Two fields of its IP header are
//! not as the guest sent them, because routers have changed them: TTL or hop limit, which is the one that the router quoted,
//! and the IPv4 header checksum, which fits it. An error queue does not show what the router quoted: then the TTL is 1 in a
//! time exceeded, since that is what a datagram is thrown away for, and in all other errors the one that it set out with.

use std::net::IpAddr;

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER};
use ctwhy_core::tuple::L3;
use ctwhy_linux::socket::errors::{Origin, QueuedError};

use super::write::put;

/// What somebody said about a datagram of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Complaint<'a> {
    pub(super) from: IpAddr,
    pub(super) icmp_type: u8,
    pub(super) code: u8,
    /// The second word of the header: MTU, pointer, or length of the quote.
    pub(super) word: [u8; 4],
    /// Bytes of the quote from the transport header on, without `rest`.
    pub(super) quoted: usize,
    /// The TTL or hop limit in the quote.
    pub(super) ttl: Option<u8>,
    /// What follows the datagram: the extension of RFC 4884, and padding in front of it.
    pub(super) rest: &'a [u8],
}

/// Is it an error that is passed on? Not a redirect, which is about this host's routes, nor source quench (RFC 6633).
pub(super) const fn is_relayed(l3num: L3, icmp_type: u8) -> bool {
    match l3num {
        L3::V4 => matches!(icmp_type, 3 | 11 | 12),
        L3::V6 => matches!(icmp_type, 1..=4),
    }
}

/// Is it about a TTL or hop limit that was used up?
const fn is_time_exceeded(l3num: L3, icmp_type: u8) -> bool {
    matches!((l3num, icmp_type), (L3::V4, 11) | (L3::V6, 3))
}

/// What an error queue says somebody said; `None` when nobody did, or nothing that is passed on. The queue leaves out the
/// first `skipped` bytes of the transport header.
pub(super) fn queued(l3num: L3, error: &QueuedError, skipped: usize) -> Option<Complaint<'_>> {
    let Origin::Icmp { kind: icmp_type, code, offender } = error.origin else { return None };
    if !is_relayed(l3num, icmp_type) {
        return None;
    }
    let quoted = skipped + error.extension.unwrap_or(error.quoted.len());
    let mut word = match (l3num, icmp_type, code) {
        (L3::V4, 3, 4) => (error.info & 0xffff).to_be_bytes(),
        (L3::V4, 12, _) => (error.info << 24).to_be_bytes(),
        (L3::V6, 2 | 4, _) => error.info.to_be_bytes(),
        _ => [0; 4],
    };
    let rest = error.extension.and_then(|at| error.quoted.get(at..)).unwrap_or_default();
    if !rest.is_empty() {
        // How long the quote is, in words of 32 bits or of 64 (RFC 4884 section 4).
        match l3num {
            L3::V4 => word[1] = ((IPV4_HEADER + quoted) / 4) as u8,
            L3::V6 => word[0] = ((IPV6_HEADER + quoted) / 8) as u8,
        }
    }
    Some(Complaint { from: offender, icmp_type, code, word, quoted, ttl: None, rest })
}

/// The message for the guest, from its ICMP header on with a checksum of 0; `sent` is the datagram that the guest sent, as
/// far as it is known, and `transport` where its transport header is.
pub(super) fn message(l3num: L3, complaint: &Complaint<'_>, sent: &[u8], transport: usize) -> Vec<u8> {
    let mut quote = sent.get(..transport + complaint.quoted).unwrap_or(sent).to_vec();
    let ttl = complaint.ttl.or(is_time_exceeded(l3num, complaint.icmp_type).then_some(1));
    if let Some(ttl) = ttl {
        set_ttl(&mut quote, l3num, transport, ttl);
    }
    if !complaint.rest.is_empty() {
        // What follows has its place: a short datagram is filled up with zeros.
        quote.resize(transport + complaint.quoted, 0);
    }
    let mut message = vec![complaint.icmp_type, complaint.code, 0, 0];
    message.extend(complaint.word);
    message.extend(&quote);
    message.extend(complaint.rest);
    message
}

/// TTL or hop limit, and the header checksum that goes with it.
fn set_ttl(packet: &mut [u8], l3num: L3, header: usize, ttl: u8) {
    match l3num {
        L3::V4 => {
            if let Some(field) = packet.get_mut(8) {
                *field = ttl;
            }
            put(packet, 10, 0);
            let checksum = Sum::default().bytes(packet.get(..header).unwrap_or_default()).checksum();
            put(packet, 10, checksum);
        }
        L3::V6 => {
            if let Some(field) = packet.get_mut(7) {
                *field = ttl;
            }
        }
    }
}
