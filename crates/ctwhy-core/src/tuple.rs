//! The tuple: what conntrack looks flows up by (`struct nf_conntrack_tuple`; catalogue A.4).

use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol numbers that conntrack knows by name.
pub mod proto {
    #![allow(missing_docs)]
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const GRE: u8 = 47;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
    pub const UDPLITE: u8 = 136;

    /// The name that `conntrack -L` prints, `unknown` for the rest.
    #[must_use]
    pub const fn name(number: u8) -> &'static str {
        match number {
            ICMP => "icmp",
            TCP => "tcp",
            UDP => "udp",
            GRE => "gre",
            ICMPV6 => "icmpv6",
            SCTP => "sctp",
            UDPLITE => "udplite",
            _ => "unknown",
        }
    }
}

/// The network layer of a tuple (`l3num`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum L3 {
    V4,
    V6,
}

/// An address without its family: 16 bytes, an IPv4 one in the first four and zeros behind (`union nf_inet_addr`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// The address as the family says it is to be read.
    #[must_use]
    pub fn ip(self, l3: L3) -> IpAddr {
        match l3 {
            L3::V4 => IpAddr::V4(Ipv4Addr::new(self.0[0], self.0[1], self.0[2], self.0[3])),
            L3::V6 => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Ipv6Addr::from(self.0), f)
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Addr {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes = v6.octets(),
        }
        Addr(bytes)
    }
}

/// One direction of a flow: who sends what to whom.
///
/// `src_u` and `dst_u` are what the protocol is told apart by: ports in host order; for ICMP and ICMPv6 the id in
/// `src_u` and type and code in `dst_u` (type in the high byte); for GRE the key of each side; 0 for protocols that have
/// nothing of the kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, ICMP id, GRE key, or 0.
    pub src_u: u16,
    /// Destination port, ICMP type and code, GRE key, or 0.
    pub dst_u: u16,
    /// Network layer.
    pub l3num: L3,
    /// Transport protocol.
    pub protonum: u8,
}

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash_in(0, state);
    }
}

impl Tuple {
    /// The hash of the tuple in a zone. In as few words as there can be, and of an IPv4 address only what there is of it:
    /// the hash of a table is on every packet's way.
    #[inline]
    pub(crate) fn hash_in<H: Hasher>(&self, zone: u16, state: &mut H) {
        let kind = u32::from(zone) << 16 | u32::from(self.protonum) << 8 | self.l3num as u32;
        let rest = u64::from(self.src_u) << 48 | u64::from(self.dst_u) << 32 | u64::from(kind);
        match self.l3num {
            L3::V4 => {
                // What was just written in four bytes is read in four bytes.
                let word = |address: &Addr| {
                    let [a, b, c, d, ..] = address.0;
                    u64::from(u32::from_le_bytes([a, b, c, d]))
                };
                let addresses = word(&self.src) << 32 | word(&self.dst);
                state.write_u128(u128::from(addresses) << 64 | u128::from(rest));
            }
            L3::V6 => {
                state.write_u64(rest);
                state.write_u128(u128::from_le_bytes(self.src.0));
                state.write_u128(u128::from_le_bytes(self.dst.0));
            }
        }
    }

    /// The source address.
    #[must_use]
    pub fn src_ip(&self) -> IpAddr {
        self.src.ip(self.l3num)
    }

    /// The destination address.
    #[must_use]
    pub fn dst_ip(&self) -> IpAddr {
        self.dst.ip(self.l3num)
    }

    /// Is it ICMP in IPv4 or ICMPv6 in IPv6 or either in the other: does `dst_u` hold type and code?
    #[must_use]
    pub const fn is_icmp(&self) -> bool {
        matches!(self.protonum, proto::ICMP | proto::ICMPV6)
    }

    /// ICMP type, the high byte of `dst_u`.
    #[must_use]
    pub const fn icmp_type(&self) -> u8 {
        (self.dst_u >> 8) as u8
    }

    /// ICMP code, the low byte of `dst_u`.
    #[must_use]
    pub const fn icmp_code(&self) -> u8 {
        self.dst_u as u8
    }

    /// `nf_ct_invert_tuple`: the tuple of a packet that answers this one. `None` for ICMP types that nobody answers
    /// (TUPLE-06).
    #[must_use]
    pub const fn invert(&self) -> Option<Tuple> {
        let (src_u, dst_u) = match self.protonum {
            proto::ICMP => match inverted_icmp(self.icmp_type()) {
                Some(icmp_type) => (self.src_u, ((icmp_type as u16) << 8) | self.icmp_code() as u16),
                None => return None,
            },
            proto::ICMPV6 => match inverted_icmpv6(self.icmp_type()) {
                Some(icmp_type) => (self.src_u, ((icmp_type as u16) << 8) | self.icmp_code() as u16),
                None => return None,
            },
            _ => (self.dst_u, self.src_u),
        };
        Some(Tuple { src: self.dst, dst: self.src, src_u, dst_u, l3num: self.l3num, protonum: self.protonum })
    }
}

/// `nf_conntrack_invert_icmp_tuple`: the type that answers an ICMP type.
const fn inverted_icmp(icmp_type: u8) -> Option<u8> {
    Some(match icmp_type {
        8 => 0,
        0 => 8,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// `nf_conntrack_invert_icmpv6_tuple`: the type that answers an ICMPv6 type.
const fn inverted_icmpv6(icmp_type: u8) -> Option<u8> {
    Some(match icmp_type {
        128 => 129,
        129 => 128,
        139 => 140,
        140 => 139,
        _ => return None,
    })
}

impl fmt::Display for Tuple {
    /// `udp 10.0.0.2:40000 -> 192.0.2.1:53`, `icmp 10.0.0.2 -> 192.0.2.1 type 8 code 0 id 7`,
    /// `gre 10.0.0.2 key 0 -> 192.0.2.1 key 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match proto::name(self.protonum) {
            "unknown" => write!(f, "proto {}", self.protonum)?,
            name => f.write_str(name)?,
        }
        f.write_str(" ")?;
        if self.is_icmp() {
            let (icmp_type, code) = (self.icmp_type(), self.icmp_code());
            write!(f, "{} -> {} type {icmp_type} code {code} id {}", self.src_ip(), self.dst_ip(), self.src_u)
        } else if has_ports(self.protonum) {
            write!(f, "{} -> {}", Endpoint(self.src_ip(), self.src_u), Endpoint(self.dst_ip(), self.dst_u))
        } else if self.src_u != 0 || self.dst_u != 0 {
            write!(f, "{} key {} -> {} key {}", self.src_ip(), self.src_u, self.dst_ip(), self.dst_u)
        } else {
            write!(f, "{} -> {}", self.src_ip(), self.dst_ip())
        }
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Is the protocol told apart by ports (TUPLE-02)?
#[must_use]
pub const fn has_ports(protonum: u8) -> bool {
    matches!(protonum, proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP)
}

/// Address and port, an IPv6 address in brackets.
struct Endpoint(IpAddr, u16);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => write!(f, "{v4}:{}", self.1),
            IpAddr::V6(v6) => write!(f, "[{v6}]:{}", self.1),
        }
    }
}

/// Why no tuple could be read (`nf_ct_get_tuple`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTuple {
    /// The transport header is cut off.
    Short(ShortTransport),
    /// GRE version 1 belongs to PPTP, and it carries something else than PPP (TUPLE-04).
    GrePayload {
        /// The EtherType of what it carries.
        protocol: u16,
    },
}

/// A transport header that is cut off before the tuple is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortTransport {
    /// Protocol whose header is cut off.
    pub protonum: u8,
    /// Bytes of the transport header that the tuple is read from.
    pub need: usize,
    /// Bytes there.
    pub have: usize,
}

/// `nf_ct_get_tuple`: the tuple of a packet whose transport header is `l4` (TUPLE-02 to TUPLE-05).
///
/// # Errors
/// [`NoTuple`] when the bytes that the tuple is read from are cut off, or cannot be those of a flow.
pub fn extract(l3num: L3, src: Addr, dst: Addr, protonum: u8, l4: &[u8]) -> Result<Tuple, NoTuple> {
    let (src_u, dst_u) = told_apart_by(protonum, l4)?;
    Ok(Tuple { src, dst, src_u, dst_u, l3num, protonum })
}

/// What a tuple has of the transport header: `src_u` and `dst_u`.
#[inline]
pub(crate) fn told_apart_by(protonum: u8, l4: &[u8]) -> Result<(u16, u16), NoTuple> {
    let short = |need| NoTuple::Short(ShortTransport { protonum, need, have: l4.len() });
    match protonum {
        number if has_ports(number) => {
            let [s0, s1, d0, d1] = *l4.first_chunk().ok_or_else(|| short(4))?;
            Ok((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
        }
        proto::ICMP | proto::ICMPV6 => {
            let [icmp_type, code, _, _, id0, id1, _, _] = *l4.first_chunk().ok_or_else(|| short(8))?;
            Ok((u16::from_be_bytes([id0, id1]), u16::from_be_bytes([icmp_type, code])))
        }
        proto::GRE => gre_keys(l4),
        _ => Ok((0, 0)),
    }
}

/// `gre_pkt_to_tuple`: the keys of a GRE packet, source and destination (TUPLE-04).
///
/// Only version 1 has keys, the call id of the receiver (RFC 2637 section 4.1). The sender's stands in no packet: it
/// would be known from the control connection of PPTP, and without one it is 0.
fn gre_keys(l4: &[u8]) -> Result<(u16, u16), NoTuple> {
    /// EtherType of PPP in GRE.
    const PPP: u16 = 0x880b;

    match (gre_version(l4), l4) {
        (Some(1), &[_, _, p0, p1, _, _, c0, c1, ..]) => match u16::from_be_bytes([p0, p1]) {
            PPP => Ok((0, u16::from_be_bytes([c0, c1]))),
            protocol => Err(NoTuple::GrePayload { protocol }),
        },
        _ => Ok((0, 0)),
    }
}

/// The version in a GRE header; `None` when not even its first four bytes are there.
#[must_use]
pub const fn gre_version(l4: &[u8]) -> Option<u8> {
    match l4 {
        [_, flags, _, _, ..] => Some(*flags & 7),
        _ => None,
    }
}
