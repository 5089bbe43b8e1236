//! Packets by hand, and a small lab: `left -- middle -- right`.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.
#![allow(dead_code)] // Every test file uses some of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use ctwhy_linux::lab::{End, Lab, Node, Topology};
use ctwhy_linux::{program, signal};

/// `left` 10.0.1.2, `middle` 10.0.1.1 and 10.0.2.1, `right` 10.0.2.2; for IPv6 fd00:1::2 and so on.
pub(crate) fn small_lab(iptables: &str, ip6tables: &str) -> Lab {
    let end = |node, interface, addresses: &[&str]| End::new(node, interface, addresses).unwrap();
    let host = |name, v4: &str, v6: &str| Node::host(name).route(v4).route(v6);
    let topology = Topology::default()
        .node(host("left", "default via 10.0.1.1", "default via fd00:1::1"))
        .node(Node::router("middle").sysctl("net.netfilter.nf_conntrack_events", "1").rules(iptables, ip6tables))
        .node(host("right", "default via 10.0.2.1", "default via fd00:2::1"))
        .link(
            end("left", "eth0", &["10.0.1.2/24", "fd00:1::2/64"]),
            end("middle", "left", &["10.0.1.1/24", "fd00:1::1/64"]),
        )
        .link(
            end("middle", "right", &["10.0.2.1/24", "fd00:2::1/64"]),
            end("right", "eth0", &["10.0.2.2/24", "fd00:2::2/64"]),
        );
    Lab::create(topology).unwrap()
}

pub(crate) const LEFT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
pub(crate) const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(crate) const LEFT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2);
pub(crate) const RIGHT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2);

/// Neighbours are known before the test counts packets: a refused connection has found them in both directions.
pub(crate) fn resolve_neighbours(lab: &Lab) {
    for (node, address) in [("middle", LEFT), ("middle", RIGHT), ("left", RIGHT), ("right", LEFT)] {
        lab.in_node(node, || TcpStream::connect((address, 1))).unwrap().unwrap_err();
    }
}

/// Waits for one descriptor; a test that waits in vain fails.
pub(crate) fn wait(descriptor: BorrowedFd<'_>) {
    let ready = signal::wait_readable(&[descriptor], Some(Duration::from_secs(10))).unwrap();
    assert!(ready[0], "nothing came within 10 seconds");
}

pub(crate) fn run(lab: &Lab, node: &str, line: &str) -> String {
    let mut words = line.split(' ');
    program::run(lab.command(node, words.next().unwrap()).unwrap().args(words), "").unwrap()
}

pub(crate) fn sum(mut acc: u32, bytes: &[u8]) -> u32 {
    for pair in bytes.chunks(2) {
        acc += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    acc
}

pub(crate) fn fold(mut acc: u32) -> u16 {
    while acc >> 16 != 0 {
        acc = (acc & 0xffff) + (acc >> 16);
    }
    !(acc as u16)
}

/// An IP packet around a transport payload.
pub(crate) fn ip(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, proto: u8, payload: &[u8]) -> Vec<u8> {
    match (src.into(), dst.into()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let length = (20 + payload.len()) as u16;
            let mut packet = vec![0x45, 0, (length >> 8) as u8, length as u8, 0, 1, 0x40, 0, 64, proto, 0, 0];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            let checksum = fold(sum(0, &packet));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let length = payload.len() as u16;
            let mut packet = vec![0x60, 0, 0, 0, (length >> 8) as u8, length as u8, proto, 64];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("two families"),
    }
}

fn pseudo(src: IpAddr, dst: IpAddr, proto: u8, length: usize) -> u32 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    sum(sum(u32::from(proto) + length as u32, &octets(src)), &octets(dst))
}

/// A UDP datagram in its IP packet.
pub(crate) fn udp(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, sport: u16, dport: u16, data: &[u8]) -> Vec<u8> {
    let (src, dst) = (src.into(), dst.into());
    let length = (8 + data.len()) as u16;
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    bytes.extend(data);
    let checksum = fold(sum(pseudo(src, dst, 17, bytes.len()), &bytes));
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    ip(src, dst, 17, &bytes)
}

/// An echo request or whatever the type says, of ICMP or ICMPv6 by family.
pub(crate) fn icmp(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, icmp_type: u8, id: u16) -> Vec<u8> {
    let (src, dst) = (src.into(), dst.into());
    let mut bytes = vec![icmp_type, 0, 0, 0, (id >> 8) as u8, id as u8, 0, 1];
    let (proto, start) = if src.is_ipv4() { (1, 0) } else { (58, pseudo(src, dst, 58, 8)) };
    let checksum = fold(sum(start, &bytes));
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    ip(src, dst, proto, &bytes)
}
