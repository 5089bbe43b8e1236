//! UDP: header checks and the two timeouts (`nf_conntrack_proto_udp.c`; UDP-01, UDP-02).

use super::{Context, L4, Outcome};
use crate::checksum::Sum;
use crate::packet::be16;
use crate::reason::Reason;
use crate::status::Status;
use crate::time::Time;
use crate::trace::{Protected, Sink, Step, TimeoutRule};
use crate::tuple::proto;

/// Length of a UDP header.
pub(crate) const HEADER: usize = 8;
/// A flow is a stream when it still has traffic this many seconds after it began.
pub const STREAM_AFTER_SECS: u32 = 2;

/// `udp_error`: header there, length plausible, checksum right or absent.
///
/// # Errors
/// The [`Reason`] for which the packet is INVALID.
#[inline]
pub fn check<S: Sink>(l4: &L4<'_>, cx: &Context<'_>, sink: &mut S) -> Result<(), Reason> {
    let header = l4.bytes.get(..HEADER).ok_or(Reason::UdpShort { have: l4.len })?;
    let says = usize::from(be16(header, 4).unwrap_or(0));
    if says > l4.len || says < HEADER {
        return Err(Reason::UdpLength { says, have: l4.len });
    }
    let found = be16(header, 6).unwrap_or(0);
    if found == 0 {
        sink.step(|| Step::ChecksumAbsent);
        return Ok(());
    }
    if cx.verify_checksum {
        // The kernel sums to the end of the packet, also where the datagram is shorter (`nf_checksum`).
        let pseudo_header = Sum::default().pseudo_header(l4.l3num, l4.src, l4.dst, proto::UDP, l4.len);
        if pseudo_header.bytes(l4.bytes).fold() != 0xffff {
            let rest = l4.bytes.get(HEADER..).unwrap_or(&[]);
            let expected = pseudo_header.bytes(&header[..6]).bytes(rest).checksum();
            return Err(Reason::UdpChecksum { found, expected });
        }
        sink.step(|| Step::ChecksumRight(Protected::Udp));
    }
    Ok(())
}

/// `nf_conntrack_udp_packet`: which timeout, with the status as it was before this packet.
pub fn packet<S: Sink>(status: Status, stream_from: Time, now: Time, cx: &Context<'_>, sink: &mut S) -> Outcome {
    let (rule, timeout, assured) = if !status.contains(Status::SEEN_REPLY) {
        (TimeoutRule::Unreplied, cx.sysctls.udp_timeout, false)
    } else if now <= stream_from {
        (TimeoutRule::Young, cx.sysctls.udp_timeout, false)
    } else {
        (TimeoutRule::Stream, cx.sysctls.udp_timeout_stream, !status.contains(Status::ASSURED))
    };
    sink.step(|| Step::Timeout { rule, seconds: timeout });
    Outcome::Accept { timeout, assured, resync: false }
}
