//! ICMP errors through NAT: the error and the packet that it quotes are translated back, each on its own side
//! (`nf_nat_icmp_reply_translation` and its IPv6 twin; catalogue D.6).

use super::hooks::{Binding, Translated};
use super::manip::{Place, header, put16, rewrite};
use super::options::Options;
use super::{Manip, NatDrop};
use crate::checksum::Sum;
use crate::direction::Direction;
use crate::hook::Hook;
use crate::packet::{IPV4_HEADER, Packet, be16};
use crate::status::Status;
use crate::trace::{Part, Protected, Sink, Step, Update};
use crate::track::{icmp, icmpv6};
use crate::tuple::{L3, proto};

/// Where its checksum is in an IPv4 header.
const CHECKSUM: usize = 10;

/// Translates an error that travels in `direction` of the flow of `binding` at one nat hook.
///
/// # Errors
/// [`NatDrop`] when the error must not go on.
pub(super) fn translate_error<S: Sink>(
    buffer: &mut [u8],
    len: usize,
    at: usize,
    (binding, direction): (&Binding, Direction),
    (hook, manip): (Hook, Manip),
    options: &Options,
    sink: &mut S,
) -> Result<Translated, NatDrop> {
    let l3num = binding.other.l3num;
    let quote = at + icmp::HEADER;
    let mut writable = quote + header(l3num);
    if len <= buffer.len() && !checksum_is_right(buffer, len, at, l3num) {
        return Err(NatDrop::ErrorChecksum);
    }
    verify_quoted_header(buffer.get(quote..).unwrap_or(&[]), l3num, options)?;
    let redirect = match l3num {
        L3::V4 => icmp::REDIRECT,
        L3::V6 => icmpv6::REDIRECT,
    };
    if buffer.get(at) == Some(&redirect)
        && (!binding.status.contains(Status::NAT_DONE_MASK) || binding.status.intersects(Status::NAT_MASK))
    {
        return Err(NatDrop::Redirect);
    }
    if !manip.applies(binding.status, direction) {
        sink.step(|| Step::ErrorUntranslated { hook });
        return Ok(Translated { linear: writable, rewritten: false });
    }
    // The quoted packet went the other way: what is the source outside is the destination in the quote, and it takes
    // the tuple of the other direction as it stands.
    let other = &binding.other;
    writable =
        writable.max(rewrite(buffer, &Place { ip: quote, len, part: Part::Quoted }, other, manip.opposite(), sink)?);
    recompute_checksum(buffer, len, at, l3num, sink);
    if let Some(mut target) = other.invert() {
        target.protonum = match l3num {
            L3::V4 => proto::ICMP,
            L3::V6 => proto::ICMPV6,
        };
        writable = writable.max(rewrite(buffer, &Place { ip: 0, len, part: Part::Outer }, &target, manip, sink)?);
    }
    Ok(Translated { linear: writable, rewritten: true })
}

/// The sum that a message starts with: of the pseudo header as it is now in IPv6, nothing in IPv4.
fn initial_sum(buffer: &[u8], len: usize, at: usize, l3num: L3) -> Sum {
    match (l3num, Packet::parse(buffer, len)) {
        (L3::V6, Ok(packet)) => {
            Sum::default().pseudo_header(l3num, packet.src, packet.dst, proto::ICMPV6, len.saturating_sub(at))
        }
        _ => Sum::default(),
    }
}

fn checksum_is_right(buffer: &[u8], len: usize, at: usize, l3num: L3) -> bool {
    let message = buffer.get(at..len).unwrap_or(&[]);
    initial_sum(buffer, len, at, l3num).bytes(message).fold() == 0xffff
}

/// RFC 5508 REQ-3a, where it is asked for: is the checksum of a quoted IPv4 header right? A header that says it is shorter
/// than any can be is taken to have no options. Options that a capture does not hold are not missed.
fn verify_quoted_header(quoted: &[u8], l3num: L3, options: &Options) -> Result<(), NatDrop> {
    if !options.verify_quoted_header || l3num != L3::V4 {
        return Ok(());
    }
    let length = usize::from(quoted.first().map_or(0, |first| first & 0x0f)) * 4;
    let (Some(header), Some(found)) = (quoted.get(..length.max(IPV4_HEADER)), be16(quoted, CHECKSUM)) else {
        return Ok(());
    };
    let (before, behind) = (header.get(..CHECKSUM), header.get(CHECKSUM + 2..));
    let expected = Sum::default().bytes(before.unwrap_or(&[])).bytes(behind.unwrap_or(&[])).checksum();
    if found == expected { Ok(()) } else { Err(NatDrop::QuotedChecksum { found, expected }) }
}

/// The checksum of the error over all of it, RFC 4884 extensions and trailing bytes included (NAT-ICMP-08).
fn recompute_checksum<S: Sink>(buffer: &mut [u8], len: usize, at: usize, l3num: L3, sink: &mut S) {
    let initial = initial_sum(buffer, len, at, l3num);
    // Nothing can be said of a capture that was cut.
    let Some(message) = buffer.get_mut(at..len) else { return };
    let Some(from) = be16(message, 2) else { return };
    put16(message, 2, 0);
    let to = initial.bytes(message).checksum();
    put16(message, 2, to);
    sink.step(|| Step::ChecksumUpdated {
        part: Part::Outer,
        protected: Protected::Icmp,
        how: Update::Full,
        from: from.into(),
        to: to.into(),
    });
}
