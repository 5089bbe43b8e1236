//! IPv4 (`ip_defrag`): an overlap, a wrong end or an empty fragment ends the whole datagram.

use alloc::vec::Vec;

use super::queue::{Piece, Place, Queue};
use super::{Incoming, Judged, Refusal, Store};
use crate::checksum::Sum;
use crate::packet::{IPV4_HEADER, be16};
use crate::refragment::Geometry;
use crate::trace::{FragmentStep, Sink, Step};

const DONT_FRAGMENT: u16 = 0x4000;
/// The longest IPv4 packet.
const LONGEST: usize = 65_535;

/// `ip_frag_queue`.
pub(super) fn queue<S: Sink>(store: &mut Store, incoming: &Incoming<'_>, sink: &mut S) -> Judged {
    let Incoming { packet, fragment, label, key, now, sysctls } = *incoming;
    let deadline = now.plus_secs(sysctls.ipfrag_time);
    store.queue(key, deadline);
    if is_too_far(store, incoming, sink) {
        start_again(store, incoming);
    }
    let queue = store.queue(key, deadline);
    let data_at = packet.bytes.first().map_or(IPV4_HEADER, |byte| usize::from(byte & 0x0f) * 4);
    let offset = u32::from(fragment.offset);
    let mut end = offset + packet.len.saturating_sub(data_at) as u32;
    let refuse = |cause| Judged::Refused { cause, with_datagram: true };
    if fragment.more {
        // What does not fill the last eight bytes is cut off.
        end &= !7;
    }
    if let Err(cause) = queue.reaches(offset, end, fragment.more) {
        return refuse(cause);
    }
    match queue.place(offset, end) {
        Place::Duplicate => return Judged::Refused { cause: Refusal::Duplicate, with_datagram: false },
        Place::Overlap(from, to) => return refuse(Refusal::Overlap { from, to }),
        Place::Free => {}
    }
    queue.insert(Piece::new(packet, data_at, (offset, end), label));
    queue.ecn |= 1 << (packet.bytes.get(1).copied().unwrap_or(0) & 3);
    let size = end - offset + data_at as u32;
    queue.longest = queue.longest.max(size);
    if be16(packet.bytes, 6).is_some_and(|place| place & DONT_FRAGMENT != 0) {
        queue.longest_df = queue.longest_df.max(size);
    }
    if offset == 0 {
        queue.header = packet.bytes.get(..data_at).map(<[u8]>::to_vec);
    }
    let complete = queue.is_complete();
    store.charge(&key, (end - offset) as usize);
    if complete { Judged::Complete } else { Judged::Waits }
}

/// `ip_frag_too_far`: has the source sent so many other fragments since that its identification may have come round?
fn is_too_far<S: Sink>(store: &mut Store, incoming: &Incoming<'_>, sink: &mut S) -> bool {
    let most = incoming.sysctls.ipfrag_max_dist;
    if most == 0 {
        return false;
    }
    let Some(source) = store.sources.get_mut(&incoming.key.src) else { return false };
    source.0 = source.0.wrapping_add(1);
    let counted = source.0;
    let Some(queue) = store.queues.get_mut(&incoming.key) else { return false };
    let distance = counted.wrapping_sub(queue.counted);
    queue.counted = counted;
    let fragments = queue.pieces.len();
    if fragments == 0 || distance <= most {
        return false;
    }
    sink.step(|| Step::Fragment(FragmentStep::TooFar { fragments, distance, most }));
    true
}

/// `ip_frag_reinit`: what waited is thrown away, and the datagram begins with this fragment.
fn start_again(store: &mut Store, incoming: &Incoming<'_>) {
    let Some(queue) = store.queues.get_mut(&incoming.key) else { return };
    let (before, charged) = (queue.deadline, queue.memory);
    queue.start_again();
    queue.memory = super::QUEUE_COST;
    queue.deadline = incoming.now.plus_secs(incoming.sysctls.ipfrag_time);
    store.memory = store.memory.saturating_sub(charged) + super::QUEUE_COST;
    store.deadlines.remove(&(before, incoming.key));
    store.deadlines.insert((queue.deadline, incoming.key));
}

/// `ip_frag_reasm`: the datagram with the header of its first fragment. Returns its bytes as far as
/// they are at hand, its length, and the pieces that it came in.
pub(super) fn reassemble(queue: &Queue, ecn: u8) -> Result<(Vec<u8>, usize, Geometry), Refusal> {
    let header = queue.header.as_deref().unwrap_or_default();
    let len = header.len() + queue.end as usize;
    if len > LONGEST {
        return Err(Refusal::Oversize { bytes: len });
    }
    let mut into = Vec::with_capacity(len);
    into.extend_from_slice(header);
    // DF stays only if no fragment without it was longer than those with it.
    let keeps_df = queue.longest_df == queue.longest;
    let [length_high, length_low] = (len as u16).to_be_bytes();
    let place = if keeps_df { DONT_FRAGMENT } else { 0 };
    let [place_high, place_low] = place.to_be_bytes();
    if let Some([_, tos, length0, length1, _, _, place0, place1, _, _, sum0, sum1, ..]) = into.first_chunk_mut::<20>() {
        *tos |= ecn;
        (*length0, *length1) = (length_high, length_low);
        (*place0, *place1) = (place_high, place_low);
        (*sum0, *sum1) = (0, 0);
    }
    let checksum = Sum::default().bytes(&into).checksum();
    if let Some(field) = into.get_mut(10..12) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    queue.gather(&mut into);
    let geometry = Geometry::new(header.len(), queue.lengths(), queue.longest as usize, keeps_df);
    Ok((into, len, geometry))
}
