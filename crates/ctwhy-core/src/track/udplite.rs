//! UDP-Lite: header checks and the two timeouts (`nf_conntrack_proto_udp.c`; UDPLITE-01, UDPLITE-02).
//!
//! The kernel does not compute the checksum of RFC 3828. It takes the pseudo header of UDP, protocol 17 instead of 136,
//! and in IPv4 also lets only the low 8 bits of the length into it. A sender that follows the RFC is therefore INVALID
//! wherever the kernel looks: at PREROUTING, unless a device vouches for the packet.

use super::{Context, L4, Outcome, until_replied};
use crate::checksum::Sum;
use crate::packet::be16;
use crate::reason::Reason;
use crate::status::Status;
use crate::trace::{Protected, Sink, Step};
use crate::tuple::{L3, proto};

/// Length of a UDP-Lite header.
const HEADER: usize = 8;

/// `udplite_error`: header there, coverage plausible, checksum there and what the kernel takes for right.
///
/// # Errors
/// The [`Reason`] for which the packet is INVALID.
pub fn check<S: Sink>(l4: &L4<'_>, cx: &Context<'_>, sink: &mut S) -> Result<(), Reason> {
    let header = l4.bytes.get(..HEADER).ok_or(Reason::UdpliteShort { have: l4.len })?;
    let coverage = match usize::from(be16(header, 4).unwrap_or(0)) {
        0 => l4.len,
        says if says < HEADER || says > l4.len => return Err(Reason::UdpliteCoverage { says, have: l4.len }),
        says => says,
    };
    let found = be16(header, 6).unwrap_or(0);
    if found == 0 {
        return Err(Reason::UdpliteNoChecksum);
    }
    if cx.verify_checksum {
        let covered = l4.bytes.get(..coverage).unwrap_or(l4.bytes);
        let kernel = kernel_pseudo_header(l4);
        if kernel.bytes(covered).fold() != 0xffff {
            let whole = |pseudo_header: Sum| {
                let rest = covered.get(HEADER..).unwrap_or(&[]);
                pseudo_header.bytes(&header[..6]).bytes(rest).checksum()
            };
            let rfc = Sum::default().pseudo_header(l4.l3num, l4.src, l4.dst, proto::UDPLITE, l4.len);
            return Err(Reason::UdpliteChecksum { found, expected: whole(kernel), rfc: whole(rfc) });
        }
        sink.step(|| Step::ChecksumRight(Protected::Udplite));
    }
    Ok(())
}

/// `nf_checksum_partial`, the pseudo header that it begins with: in IPv4 protocol and length are handed over in each
/// other's place, and the place of the protocol has 8 bits.
fn kernel_pseudo_header(l4: &L4<'_>) -> Sum {
    let length = match l4.l3num {
        L3::V4 => l4.len & 0xff,
        L3::V6 => l4.len,
    };
    Sum::default().pseudo_header(l4.l3num, l4.src, l4.dst, proto::UDP, length)
}

/// `nf_conntrack_udplite_packet`: which timeout, with the status as it was before this packet. They are UDP's, but the
/// age of the flow does not count.
pub fn packet<S: Sink>(status: Status, cx: &Context<'_>, sink: &mut S) -> Outcome {
    until_replied(status, (cx.sysctls.udp_timeout, cx.sysctls.udp_timeout_stream), sink)
}
