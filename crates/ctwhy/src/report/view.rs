//! A packet in a few words, and what NAT changed about it.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use ctwhy_core::conn;
use ctwhy_core::packet::{Packet, Quoted, be16, be32};
use ctwhy_core::related::announced_mtu;
use ctwhy_core::render::icmp::Named;
use ctwhy_core::track::{icmp, icmpv6};
use ctwhy_core::tuple::{L3, Tuple, extract, has_ports, proto};

/// A packet as people name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    packet: Packet<'a>,
    tuple: Option<Tuple>,
    quoted: Option<Tuple>,
}

impl<'a> View<'a> {
    /// What can be named of `bytes`, of which `len` were on the wire. `None` when it is no IP packet.
    pub(crate) fn new(bytes: &'a [u8], len: usize) -> Option<View<'a>> {
        let packet = Packet::parse(bytes, len).ok()?;
        let transport = packet.transport.ok();
        let tuple = transport.and_then(|transport| {
            let l4 = packet.bytes.get(transport.offset..)?;
            extract(packet.l3num, packet.src, packet.dst, transport.protonum, l4).ok()
        });
        let quoted = match (tuple, transport) {
            (Some(tuple), Some(transport)) if is_error(&tuple) => {
                let start = transport.offset + icmp::HEADER;
                let start =
                    if tuple.icmp_type() == icmpv6::REDIRECT && packet.l3num == L3::V6 { start + 40 } else { start };
                Quoted::parse(&packet, start).ok().and_then(|quoted| {
                    let l4 = quoted.bytes.get(quoted.transport.offset..)?;
                    extract(packet.l3num, quoted.src, quoted.dst, quoted.transport.protonum, l4).ok()
                })
            }
            _ => None,
        };
        Some(View { packet, tuple, quoted })
    }

    /// The tuple, and the one of the quoted packet.
    pub(crate) fn tuples(&self) -> impl Iterator<Item = Tuple> {
        [self.tuple, self.quoted].into_iter().flatten()
    }

    /// Protocol number, where a transport header was found.
    pub(crate) fn protonum(&self) -> Option<u8> {
        self.packet.transport.ok().map(|transport| transport.protonum)
    }

    /// Source and destination address.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [self.packet.src.ip(self.packet.l3num), self.packet.dst.ip(self.packet.l3num)]
    }

    fn l4(&self) -> &'a [u8] {
        let offset = self.packet.transport.map_or(self.packet.bytes.len(), |transport| transport.offset);
        self.packet.bytes.get(offset..).unwrap_or(&[])
    }
}

/// Does the message quote a packet?
fn is_error(tuple: &Tuple) -> bool {
    match (tuple.l3num, tuple.protonum) {
        (L3::V4, proto::ICMP) => icmp::is_error(tuple.icmp_type()),
        (L3::V6, proto::ICMPV6) => {
            tuple.icmp_type() < icmpv6::FIRST_INFORMATIONAL_TYPE || tuple.icmp_type() == icmpv6::REDIRECT
        }
        _ => false,
    }
}

impl Display for View<'_> {
    /// `udp 10.0.1.2:40000 > 192.0.2.80:33434 ttl 1`, `icmp 198.51.100.1 > 203.0.113.1 time exceeded about udp …`
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [src, dst] = self.addresses();
        let Some(tuple) = self.tuple else {
            return match self.protonum() {
                Some(protonum) => write!(f, "{} {src} > {dst}", Protocol(protonum)),
                None => write!(f, "ip {src} > {dst}"),
            };
        };
        write!(f, "{}", Brief(&tuple))?;
        if tuple.is_icmp() {
            let named = Named { l3num: self.packet.l3num, icmp_type: tuple.icmp_type(), code: tuple.icmp_code() };
            match named.name() {
                Some(name) => write!(f, " {name}")?,
                None => write!(f, " type {} code {}", named.icmp_type, named.code)?,
            }
            if let Some(mtu) = announced_mtu(&self.packet) {
                write!(f, " mtu {mtu}")?;
            }
            if let Some(quoted) = self.quoted {
                write!(f, " about {}", Brief(&quoted))?;
                if quoted.is_icmp() {
                    write!(f, " id {}", quoted.src_u)?;
                }
            } else if !is_error(&tuple) && tuple.invert().is_some() {
                write!(f, " id {} seq {}", tuple.src_u, be16(self.l4(), 6).unwrap_or(0))?;
            }
        } else if tuple.protonum == proto::TCP {
            let l4 = self.l4();
            if let (Some(flags), Some(seq)) = (l4.get(13), be32(l4, 4)) {
                write!(f, " {} seq {seq}", TcpFlags(*flags))?;
            }
        }
        if self.packet.ttl <= 1 && !tuple.is_icmp() | (tuple.invert().is_some()) {
            write!(f, " ttl {}", self.packet.ttl)?;
        }
        Ok(())
    }
}

struct Protocol(u8);

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match proto::name(self.0) {
            "unknown" => write!(f, "proto {}", self.0),
            name => f.write_str(name),
        }
    }
}

/// Protocol and endpoints.
struct Brief<'a>(&'a Tuple);

impl Display for Brief<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tuple = self.0;
        let port = |port: u16| has_ports(tuple.protonum).then_some(port);
        write!(
            f,
            "{} {} > {}",
            Protocol(tuple.protonum),
            Endpoint(tuple.src_ip(), port(tuple.src_u)),
            Endpoint(tuple.dst_ip(), port(tuple.dst_u))
        )
    }
}

/// Address and port.
#[derive(PartialEq, Eq)]
struct Endpoint(IpAddr, Option<u16>);

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
            (address, Some(port)) => write!(f, "{address}:{port}"),
            (address, None) => write!(f, "{address}"),
        }
    }
}

/// The flags of a TCP header that conntrack looks at: `SYN`, `SYN,ACK`.
struct TcpFlags(u8);

impl Display for TcpFlags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (bit, name) in [(0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"), (0x20, "URG")] {
            if self.0 & bit != 0 {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        if separator.is_empty() { f.write_str("no flags") } else { Ok(()) }
    }
}

/// What differs between a packet as it arrived and as it left: `src 203.0.113.1:40000`, for an error also
/// `quoted src 10.0.1.2:40000`. `None` when nothing that a tuple holds does.
pub(crate) fn translation(before: &View<'_>, after: &View<'_>) -> Option<String> {
    let mut changes = Vec::new();
    for (part, before, after) in [("", before.tuple, after.tuple), ("quoted ", before.quoted, after.quoted)] {
        let (Some(before), Some(after)) = (before, after) else { continue };
        let ports = has_ports(before.protonum);
        let port = |port: u16| ports.then_some(port);
        let sides = [
            ("src", Endpoint(before.src_ip(), port(before.src_u)), Endpoint(after.src_ip(), port(after.src_u))),
            ("dst", Endpoint(before.dst_ip(), port(before.dst_u)), Endpoint(after.dst_ip(), port(after.dst_u))),
        ];
        for (side, old, new) in sides {
            if old != new {
                changes.push(format!("{part}{side} {new}"));
            }
        }
        // In an error these bytes are no id.
        if before.is_icmp() && before.invert().is_some() && before.src_u != after.src_u {
            changes.push(format!("{part}id {}", after.src_u));
        }
    }
    (!changes.is_empty()).then(|| changes.join(", "))
}

/// The state of a TCP entry.
pub(crate) fn tcp_state(protocol: &conn::Protocol) -> Option<&'static str> {
    match protocol {
        conn::Protocol::Tcp(tcp) => Some(tcp.state().name()),
        _ => None,
    }
}

/// The state of an SCTP entry.
pub(crate) fn sctp_state(protocol: &conn::Protocol) -> Option<&'static str> {
    match protocol {
        conn::Protocol::Sctp(sctp) => Some(sctp.state().name()),
        _ => None,
    }
}
