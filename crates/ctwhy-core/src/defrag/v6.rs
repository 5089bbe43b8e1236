//! IPv6 (`nf_conntrack_reasm`): an overlap ends the datagram (RFC 5722), a fragment with a wrong end only itself.

use alloc::vec::Vec;

use super::queue::{Piece, Place, Queue};
use super::{Incoming, Judged, Refusal, Store, Unfit};
use crate::packet::{IPV6_HEADER, Packet, be16, find_fragment_header};
use crate::refragment::Geometry;
use crate::tuple::{Addr, L3, proto};

/// A fragment header.
pub(crate) const FRAGMENT_HEADER: usize = 8;
/// The longest payload, and the last byte of a datagram that a fragment may have.
const LONGEST: usize = 65_535;

/// Does the address mean another host on each interface: multicast and link-local?
pub(super) fn is_per_interface(address: Addr) -> bool {
    let [first, second, ..] = address.0;
    first == 0xff || (first == 0xfe && second & 0xc0 == 0x80)
}

/// What `nf_ct_frag6_gather` looks at before any datagram: a fragment that is not gathered, or an error.
///
/// The first fragment must have the whole transport header (RFC 8200, section 4.5); one that has not goes on as it is.
pub(super) fn unfit(packet: &Packet<'_>) -> Result<Option<Unfit>, Refusal> {
    if packet.l3num == L3::V4 {
        return Ok(None);
    }
    if let Ok(transport) = packet.transport {
        let need = match transport.protonum {
            proto::TCP => 20,
            proto::UDP | proto::ICMPV6 => 8,
            _ => 1,
        };
        let have = packet.len.saturating_sub(transport.offset);
        if have < need {
            return Ok(Some(Unfit::TransportHeader { need, have }));
        }
    }
    let need = header_end(packet);
    if need > packet.len { Err(Refusal::ShortHeader { need, have: packet.len }) } else { Ok(None) }
}

/// Where the fragment header ends.
pub(super) fn header_end(packet: &Packet<'_>) -> usize {
    find_fragment_header(packet.bytes).map_or(0, |(_, at)| at) + FRAGMENT_HEADER
}

/// `nf_ct_frag6_queue`.
pub(super) fn queue(store: &mut Store, incoming: &Incoming<'_>) -> Judged {
    let Incoming { packet, fragment, label, key, now, sysctls } = *incoming;
    let queue = store.queue(key, now.plus_secs(sysctls.frag6_timeout));
    let data_at = header_end(packet);
    let offset = u32::from(fragment.offset);
    let end = offset + packet.len.saturating_sub(data_at) as u32;
    let refuse = |cause| Judged::Refused { cause, with_datagram: false };
    if end as usize > LONGEST {
        return refuse(Refusal::TooLong { ends: end });
    }
    if fragment.more && end & 7 != 0 {
        return Judged::Unfit(Unfit::OddLength { ends: end });
    }
    if let Err(cause) = queue.reaches(offset, end, fragment.more) {
        return refuse(cause);
    }
    match queue.place(offset, end) {
        Place::Duplicate => return refuse(Refusal::Duplicate),
        Place::Overlap(from, to) => {
            return Judged::Refused { cause: Refusal::Overlap { from, to }, with_datagram: true };
        }
        Place::Free => {}
    }
    queue.insert(Piece::new(packet, data_at, (offset, end), label));
    queue.ecn |= 1 << (be16(packet.bytes, 0).unwrap_or(0) >> 4 & 3);
    queue.longest = queue.longest.max((packet.len - IPV6_HEADER.min(packet.len)) as u32);
    if offset == 0 {
        queue.header = packet.bytes.get(..data_at).map(<[u8]>::to_vec);
    }
    let complete = queue.is_complete();
    store.charge(&key, (end - offset) as usize);
    if complete { Judged::Complete } else { Judged::Waits }
}

/// `nf_ct_frag6_reasm`: the datagram with the headers of its first fragment, but the fragment header. Returns its bytes as far as
/// they are at hand, its length, and the pieces that it came in.
pub(super) fn reassemble(queue: &Queue, ecn: u8) -> Result<(Vec<u8>, usize, Geometry), Refusal> {
    let first = queue.header.as_deref().unwrap_or_default();
    let (previous, at) = find_fragment_header(first).unwrap_or((6, IPV6_HEADER));
    let header = first.get(..at).unwrap_or(first);
    let len = header.len() + queue.end as usize;
    let payload = len.saturating_sub(IPV6_HEADER);
    if payload > LONGEST {
        return Err(Refusal::Oversize { bytes: len });
    }
    let mut into = Vec::with_capacity(len);
    into.extend_from_slice(header);
    if let (Some(next), Some(upper)) = (into.get_mut(previous), first.get(at)) {
        *next = *upper;
    }
    if let Some([_, class, _, _, length0, length1]) = into.first_chunk_mut::<6>() {
        *class |= ecn << 4;
        [*length0, *length1] = (payload as u16).to_be_bytes();
    }
    queue.gather(&mut into);
    let geometry = Geometry::new(header.len(), queue.lengths(), IPV6_HEADER + queue.longest as usize, false);
    Ok((into, len, geometry))
}
