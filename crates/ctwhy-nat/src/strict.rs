//! What the kernel lets pass and RFCs do not want: two kinds of ICMP errors. Off, unless somebody asks for it.

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV4_HEADER, Packet};
use ctwhy_core::track::icmp;
use ctwhy_core::tuple::{L3, proto};

const SOURCE_QUENCH: u8 = 4;

/// Why an ICMP error should go no further: it is a source quench (RFC 6633 section 3), or the IP header that it quotes has
/// a wrong checksum (RFC 5508 REQ-3a). NAT does not mend a wrong one, so that it does not matter when it is looked at.
#[must_use]
pub fn unwanted(packet: &Packet<'_>) -> Option<&'static str> {
    let transport = packet.transport.ok().filter(|_| packet.l3num == L3::V4)?;
    let message = packet.bytes.get(transport.offset..).filter(|_| transport.protonum == proto::ICMP)?;
    let kind = *message.first().filter(|kind| icmp::is_error(**kind))?;
    if kind == SOURCE_QUENCH {
        return Some("strict.source_quench");
    }
    let quote = message.get(icmp::HEADER..)?;
    let length = usize::from(quote.first()? & 0x0f) * 4;
    let header = quote.get(..length.max(IPV4_HEADER))?;
    (Sum::default().bytes(header).fold() != 0xffff).then_some("strict.quoted_checksum")
}
