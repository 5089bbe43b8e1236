//! What the guest sent: which of the three things that sockets can carry on.

use std::net::{IpAddr, Ipv4Addr};

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::Packet;
use ctwhy_core::track::icmp;
use ctwhy_core::tuple::{L3, Tuple, extract, proto};

use super::count::Cause;

/// Echo request and reply of a family.
pub(super) const fn echo_types(l3num: L3) -> (u8, u8) {
    match l3num {
        L3::V4 => (8, 0),
        L3::V6 => (128, 129),
    }
}

/// A packet that can be carried on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent<'a> {
    /// From its IP header on.
    pub(super) packet: Packet<'a>,
    pub(super) tuple: Tuple,
    /// Where the transport header is.
    pub(super) transport: usize,
    pub(super) kind: Kind,
    /// Did it come in fragments?
    cut: bool,
}

/// How it is carried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Udp,
    Echo,
    Tcp,
}

impl<'a> Sent<'a> {
    /// From the transport header on.
    pub(super) fn l4(&self) -> &'a [u8] {
        self.packet.bytes.get(self.transport..).unwrap_or_default()
    }

    /// May the host cut it? What the guest cut itself; else an IPv6 packet may not be.
    pub(super) fn may_be_cut(&self) -> bool {
        self.cut || self.packet.l3num == L3::V4 && self.packet.bytes.get(6).is_some_and(|byte| byte & 0x40 == 0)
    }
}

/// Is it a piece of a datagram?
pub(super) fn is_fragment(packet: &Packet<'_>) -> bool {
    packet.fragment.is_some_and(|fragment| fragment.offset != 0 || fragment.more)
}

/// Reads a packet of the guest, one that came whole or, if `cut`, in fragments.
///
/// # Errors
/// Why it goes no further.
pub(super) fn read(packet: Packet<'_>, cut: bool) -> Result<Sent<'_>, Cause> {
    let (src, dst) = (packet.src.ip(packet.l3num), packet.dst.ip(packet.l3num));
    if dst.is_multicast() || dst == Ipv4Addr::BROADCAST {
        return Err(Cause::Group);
    }
    if !is_host(dst) || !is_host(src) {
        return Err(Cause::Address);
    }
    let transport = packet.transport.map_err(|_| Cause::Malformed)?;
    let l4 = packet.bytes.get(transport.offset..).unwrap_or_default();
    let kind = match (packet.l3num, transport.protonum, l4.first(), l4.get(1)) {
        (_, proto::UDP, ..) => Kind::Udp,
        (_, proto::TCP, ..) => Kind::Tcp,
        (L3::V4, proto::ICMP, Some(&kind), Some(&code)) | (L3::V6, proto::ICMPV6, Some(&kind), Some(&code)) => {
            let error = match packet.l3num {
                L3::V4 => icmp::is_error(kind),
                L3::V6 => kind < 128,
            };
            match (kind, code) {
                _ if error => return Err(Cause::GuestError),
                (kind, 0) if kind == echo_types(packet.l3num).0 => Kind::Echo,
                _ => return Err(Cause::Protocol),
            }
        }
        _ => return Err(Cause::Protocol),
    };
    if packet.ttl == 0 {
        return Err(Cause::Ttl);
    }
    let header = match kind {
        Kind::Udp | Kind::Echo => 8,
        Kind::Tcp => 20,
    };
    // The length of a UDP header may leave bytes of the packet out, but nothing sends that.
    let said = u16::from_be_bytes([l4.get(4).copied().unwrap_or(0), l4.get(5).copied().unwrap_or(0)]);
    if l4.len() < header || (kind == Kind::Udp && usize::from(said) != l4.len()) {
        return Err(Cause::Malformed);
    }
    let unchecked = packet.l3num == L3::V4 && kind == Kind::Udp && l4.get(6..8) == Some(&[0, 0]);
    if !unchecked && pseudo_header(&packet, transport.protonum).bytes(l4).fold() != 0xffff {
        return Err(Cause::Checksum);
    }
    let tuple = extract(packet.l3num, packet.src, packet.dst, transport.protonum, l4).map_err(|_| Cause::Malformed)?;
    Ok(Sent { packet, tuple, transport: transport.offset, kind, cut })
}

/// What the transport checksum of a packet begins with.
fn pseudo_header(packet: &Packet<'_>, protonum: u8) -> Sum {
    let len = packet.transport.map_or(0, |transport| packet.len.saturating_sub(transport.offset));
    match protonum {
        proto::ICMP => Sum::default(),
        _ => Sum::default().pseudo_header(packet.l3num, packet.src, packet.dst, protonum, len),
    }
}

/// Is it the address of one host, and of the same for the guest as for this one?
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            first != 0 && first < 224 && !v4.is_loopback() && !v4.is_link_local()
        }
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().is_some();
            !v6.is_multicast() && !v6.is_unspecified() && !v6.is_loopback() && !v6.is_unicast_link_local() && !mapped
        }
    }
}
