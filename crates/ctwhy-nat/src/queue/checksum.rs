//! Checksums that a network card would fill in.
//!
//! Packets of local processes, of neighbours on a virtual link, and those that a card put together come without: the
//! field has the sum of the pseudo header, and the kernel's notes say that the rest is to be done. Once a consumer gives
//! bytes back, the kernel takes their checksum as it is (`nfqnl_mangle` sets CHECKSUM_NONE); only what stands for several
//! segments it cuts itself, and sums up each from the pseudo header on (`tcp_gso_segment`, `__udp_gso_segment`).

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{Packet, be16};
use ctwhy_core::tuple::proto;
use ctwhy_linux::queue::Offload;

/// Where the checksum is in a TCP header, and in a UDP header.
const TCP: usize = 16;
const UDP: usize = 6;

/// Makes the transport checksum of a rewritten packet what the kernel expects of it.
pub fn settle(bytes: &mut [u8], offload: Offload) {
    if !offload.checksum_not_ready && !offload.gso {
        return;
    }
    let Ok(packet) = Packet::parse(bytes, bytes.len()) else { return };
    let Ok(transport) = packet.transport else { return };
    let (protonum, at) = match transport.protonum {
        proto::TCP => (proto::TCP, transport.offset + TCP),
        proto::UDP => (proto::UDP, transport.offset + UDP),
        // The engine sums up a whole SCTP packet, and nobody leaves ICMP to a card.
        _ => return,
    };
    let Some(found) = be16(packet.bytes, at) else { return };
    if !offload.checksum_not_ready && found == 0 {
        return;
    }
    let len = packet.len - transport.offset;
    let pseudo = Sum::default().pseudo_header(packet.l3num, packet.src, packet.dst, protonum, len);
    let checksum = if offload.gso {
        pseudo.fold()
    } else {
        let before = packet.bytes.get(transport.offset..at).unwrap_or_default();
        let behind = packet.bytes.get(at + 2..).unwrap_or_default();
        match (protonum, pseudo.bytes(before).bytes(behind).checksum()) {
            // RFC 768: a computed 0 is written as 0xffff.
            (proto::UDP, 0) => 0xffff,
            (_, checksum) => checksum,
        }
    };
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}
