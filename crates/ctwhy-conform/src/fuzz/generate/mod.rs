//! Where the packets come from: a file each for what speaks alike.
//!
//! Few hosts and few ports, so that packets meet each other's entries.

pub(crate) mod errors;
pub(crate) mod fragments;
pub(crate) mod icmp;
pub(crate) mod nat;
pub(crate) mod rest;
pub(crate) mod sctp;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod zoo;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ctwhy_core::tuple::{L3, Tuple, extract};

use super::chance::Chance;
use super::window::{Arrival, Port};
use crate::compose::{Body, Ip, proto};

/// Who talks in which family: clients behind `lan`, servers behind `wan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hosts {
    pub(crate) family: L3,
}

impl Hosts {
    fn address(self, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
        match self.family {
            L3::V4 => IpAddr::V4(Ipv4Addr::from(v4)),
            L3::V6 => IpAddr::V6(Ipv6Addr::from(v6)),
        }
    }

    pub(crate) fn client(self, number: usize) -> IpAddr {
        let number = 1 + number as u8;
        self.address([10, 16, 0, number], [0x2001, 0xdb8, 0x16, 0, 0, 0, 0, u16::from(number)])
    }

    pub(crate) fn server(self, number: usize) -> IpAddr {
        let number = 1 + number as u8;
        self.address([192, 0, 2, number], [0x2001, 0xdb8, 2, 0, 0, 0, 0, u16::from(number)])
    }

    /// The router at the other end of the cable of an interface.
    pub(crate) fn router(self, port: Port) -> IpAddr {
        match port {
            Port::Lan => self.address([192, 168, 1, 2], [0xfd00, 1, 0, 0, 0, 0, 0, 2]),
            Port::Wan => self.address([203, 0, 113, 1], [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1]),
        }
    }

    /// The box itself.
    pub(crate) fn own(self, port: Port) -> IpAddr {
        match port {
            Port::Lan => self.address([192, 168, 1, 1], [0xfd00, 1, 0, 0, 0, 0, 0, 1]),
            Port::Wan => self.address([203, 0, 113, 2], [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2]),
        }
    }
}

/// Two hosts, as the one behind `lan` sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) client: IpAddr,
    pub(crate) server: IpAddr,
}

impl Pair {
    /// Any client and any server of a few.
    pub(crate) fn any(hosts: Hosts, chance: &mut Chance) -> Pair {
        Pair { client: hosts.client(chance.below(8)), server: hosts.server(chance.below(4)) }
    }

    /// The header of a packet that comes in by `port`.
    pub(crate) fn ip(&self, port: Port) -> Ip {
        match port {
            Port::Lan => Ip::between(self.client, self.server),
            Port::Wan => Ip::between(self.server, self.client),
        }
    }
}

/// How far packets stray from what hosts send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Nine of ten follow the rules.
    Tame,
    /// They do what they like.
    Wild,
}

/// The packet of a body, now and then with what an IP layer may add: options, extension headers, padding of the link
/// layer, a TTL that ends here.
pub(crate) fn dress(chance: &mut Chance, mut ip: Ip, body: Body) -> Vec<u8> {
    if chance.one_in(128) {
        ip.ttl = 1;
    }
    ip.id = chance.u16();
    let body = match (chance.below(64), ip.l3()) {
        (0, L3::V4) => {
            ip.options = chance.pick::<&[u8], 3>(&[&[1; 4], &[1, 0, 0, 0], &[0; 8]]).to_vec();
            body
        }
        (0, L3::V6) => body.behind(proto::DESTINATION, &[0, 0, 1, 4, 0, 0, 0, 0]),
        (1, L3::V6) => body.behind(proto::HOP_BY_HOP, &[0, 0, 1, 4, 0, 0, 0, 0]),
        (2, L3::V6) => body.behind(proto::AUTH, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
        (3, L3::V6) => body
            .behind(proto::DESTINATION, &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .behind(proto::HOP_BY_HOP, &[0, 0, 1, 4, 0, 0, 0, 0]),
        _ => body,
    };
    let mut packet = ip.packet(body);
    if chance.one_in(100) {
        let length = 1 + chance.below(20);
        packet.extend(chance.bytes(length));
    }
    packet
}

/// A random bit of the packet behind its IP header flips.
pub(crate) fn flip(chance: &mut Chance, body: &mut Body) {
    if !body.bytes.is_empty() {
        let at = chance.below(body.bytes.len());
        if let Some(byte) = body.bytes.get_mut(at) {
            *byte ^= 1 << chance.below(8);
        }
    }
}

/// The tuple of a packet with this header and transport part.
pub(crate) fn tuple(ip: &Ip, protonum: u8, l4: &[u8]) -> Option<Tuple> {
    extract(ip.l3(), ip.src.into(), ip.dst.into(), protonum, l4).ok()
}

/// An arrival.
pub(crate) fn on(port: Port, bytes: Vec<u8>) -> Arrival {
    Arrival { port, bytes }
}
