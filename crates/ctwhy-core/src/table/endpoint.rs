//! One end of a flow, on one side of NAT.

use core::fmt;

use crate::tuple::{Addr, L3, Tuple, proto};

/// Who sends or receives packets of a protocol: an address and a port, or for ICMP and ICMPv6 an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Family.
    pub l3num: L3,
    /// Transport protocol.
    pub protonum: u8,
    /// Zone of the tuple that it is an end of.
    pub zone: u16,
    /// The address.
    pub address: Addr,
    /// Port, ICMP id, GRE key, or 0.
    pub port: u16,
}

impl Endpoint {
    /// Where packets of a tuple come from.
    #[must_use]
    pub const fn source(tuple: &Tuple, zone: u16) -> Endpoint {
        let Tuple { l3num, protonum, src, src_u, .. } = *tuple;
        Endpoint { l3num, protonum, zone, address: src, port: src_u }
    }

    /// Where they go. An ICMP id belongs to both ends.
    #[must_use]
    pub const fn destination(tuple: &Tuple, zone: u16) -> Endpoint {
        let Tuple { l3num, protonum, dst, .. } = *tuple;
        let port = if tuple.is_icmp() { tuple.src_u } else { tuple.dst_u };
        Endpoint { l3num, protonum, zone, address: dst, port }
    }
}

impl fmt::Display for Endpoint {
    /// `udp 10.0.0.2:40000`, `tcp [2001:db8::2]:80`, `icmp 10.0.0.2 id 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, address, port) = (proto::name(self.protonum), self.address.ip(self.l3num), self.port);
        match (self.protonum, self.l3num) {
            (proto::ICMP | proto::ICMPV6, _) => write!(f, "{name} {address} id {port}"),
            (_, L3::V4) => write!(f, "{name} {address}:{port}"),
            (_, L3::V6) => write!(f, "{name} [{address}]:{port}"),
        }
    }
}
