//! ICMP errors as sockets see them, behind whichever front end: who complained, about what, and how that ends.

use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use ctwhy_core::packet::Packet;
use ctwhy_core::tuple::{Addr, L3};
use ctwhy_linux::socket::datagram::{Datagram, Fragmentation};
use ctwhy_linux::socket::errors::{self, Origin, QueuedError};
use ctwhy_linux::socket::icmp::RawIcmp;
use ctwhy_linux::testing::packets_until;
use ctwhy_linux::wire::Way;
use ctwhy_linux::{program, signal};
use ctwhy_nat::answer::{Complaint, complain};

use super::checks::{address, may_be_cut, udp};
use super::{CLIENT, MASQUERADE, NAT, PATIENCE, R2, Running, SERVER, WAN};

const TTL: u8 = 64;

/// The next error of a socket.
fn next_error(socket: impl AsFd) -> QueuedError {
    loop {
        if let Some(error) = errors::next(&socket).unwrap() {
            return error;
        }
        assert!(signal::wait_readable(&[socket.as_fd()], Some(PATIENCE)).unwrap()[0], "nobody complains");
    }
}

/// Sends until it is told that nobody listens: a process that another test is just starting may hold the other socket open
/// for a moment more.
pub(crate) fn refused_in_the_end(socket: &UdpSocket, data: &[u8]) -> QueuedError {
    errors::enable(socket, socket.peer_addr().unwrap().ip()).unwrap();
    for _ in 0..100 {
        socket.send(data).unwrap();
        signal::wait_readable(&[socket.as_fd()], Some(PATIENCE / 100)).unwrap();
        if let Some(error) = errors::next(socket).unwrap() {
            return error;
        }
    }
    panic!("nobody complains");
}

/// What must have been told to the server about something that it sent.
fn told_by_wan(told: &QueuedError, family: usize, errno: i32) {
    let offender: IpAddr = WAN[family].parse().unwrap();
    assert!(matches!(told.origin, Origin::Icmp { offender: by, .. } if by == offender), "{told:?}");
    assert_eq!(told.errno, errno, "{told:?}");
}

/// What a router may have a client told.
#[derive(Clone, Copy)]
struct Refusal {
    port: u16,
    /// As rules call it.
    name: &'static str,
    /// Type and code.
    kind: (u8, u8),
    /// What becomes of a connection.
    errno: i32,
}

const fn refusal(port: u16, name: &'static str, kind: (u8, u8), errno: i32) -> Refusal {
    Refusal { port, name, kind, errno }
}

const REFUSALS: [[Refusal; 3]; 2] = [
    [
        refusal(7777, "icmp-admin-prohibited", (3, 13), libc::EHOSTUNREACH),
        refusal(7778, "icmp-host-unreachable", (3, 1), libc::EHOSTUNREACH),
        refusal(7779, "icmp-net-unreachable", (3, 0), libc::ENETUNREACH),
    ],
    [
        refusal(7777, "icmp6-adm-prohibited", (1, 1), libc::EACCES),
        refusal(7778, "icmp6-addr-unreachable", (1, 3), libc::EHOSTUNREACH),
        refusal(7779, "icmp6-no-route", (1, 0), libc::ENETUNREACH),
    ],
];

/// The rules of a router that refuses.
pub(crate) fn refusing(family: usize) -> String {
    let rule = |protocol: &str, port, name: &str| {
        format!("-A FORWARD -p {protocol} -m {protocol} --dport {port} -j REJECT --reject-with {name}\n")
    };
    let rules = REFUSALS[family].iter().flat_map(|of| ["udp", "tcp"].map(|protocol| rule(protocol, of.port, of.name)));
    format!("*filter\n{}{}COMMIT\n", rules.collect::<String>(), rule("tcp", 7780, "tcp-reset"))
}

/// A router on the way refuses, and the client is told by whom and why.
pub(crate) fn refusals(running: &Running) {
    for (family, tool) in ["iptables-restore", "ip6tables-restore"].into_iter().enumerate() {
        program::run(&mut running.lab.command("r2", tool).unwrap(), &refusing(family)).unwrap();
    }
    refused(running, R2);
}

/// The NAT itself refuses what it would forward.
pub(crate) fn rejections(running: &Running) {
    refused(running, NAT);
}

/// Rules for [`rejections`].
pub(crate) fn rejecting() -> [String; 2] {
    [0, 1].map(|family| refusing(family) + MASQUERADE)
}

/// The client is refused by a router with these addresses.
pub(crate) fn refused(running: &Running, router: [&str; 2]) {
    for (family, server) in SERVER.into_iter().enumerate() {
        let offender: IpAddr = router[family].parse().unwrap();
        for Refusal { port, name, kind: (kind, code), errno } in REFUSALS[family] {
            let to = address(server, port);
            let mut socket = running.lab.in_node("client", || Datagram::udp(to, true).unwrap()).unwrap();
            socket.send(b"anyone?", TTL, Fragmentation::Host).unwrap();
            let told = next_error(&socket);
            assert_eq!(told.origin, Origin::Icmp { kind, code, offender }, "UDP, {name}");
            assert_eq!((told.errno, &told.quoted[..]), (errno, &b"anyone?"[..]), "UDP, {name}");
            let connect = || TcpStream::connect_timeout(&to, PATIENCE).unwrap_err().raw_os_error();
            assert_eq!(running.lab.in_node("client", connect).unwrap(), Some(errno), "TCP, {name}");
        }
        let connect = || TcpStream::connect_timeout(&address(server, 7780), PATIENCE).unwrap_err().raw_os_error();
        assert_eq!(running.lab.in_node("client", connect).unwrap(), Some(libc::ECONNREFUSED), "TCP, tcp-reset");
    }
}

/// A datagram of 1350 bytes over a link that takes `mtu`, from a socket that asks for nothing, and from one whose packets
/// must not be cut.
pub(crate) fn too_long(running: &Running, family: usize, mtu: u32) {
    let server = SERVER[family];
    let receiver = running.lab.in_node("server", || UdpSocket::bind(address(server, 4002)).unwrap()).unwrap();
    let mut probe = running.lab.in_node("client", || Datagram::udp(address(server, 4002), true).unwrap()).unwrap();
    probe.send(&[1; 1350], TTL, Fragmentation::Refused).unwrap();
    let told = next_error(&probe);
    let (kind, code) = Complaint::TooBig { mtu }.kind([L3::V4, L3::V6][family]);
    let is_right = matches!(told.origin, Origin::Icmp { kind: k, code: c, .. } if (k, c) == (kind, code));
    assert!(is_right && told.errno == libc::EMSGSIZE && told.info == mtu, "{told:?}");
    assert!(!told.quoted.is_empty() && told.quoted.iter().all(|byte| *byte == 1), "{told:?}");

    running.run("client", "ip", &["route", "flush", "cache"]);
    running.run("client", "ip", &["-6", "route", "flush", "cache"]);
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = running.lab.in_node("client", || udp(address(server, 4002))).unwrap();
    socket.send(&[2; 1350]).unwrap();
    // The socket is told of its datagram, and what it sends from then on arrives.
    let known = || Datagram::udp(address(server, 4002), true).unwrap().mtu().unwrap();
    running.lab.in_node("client", || while known() != mtu {}).unwrap();
    let sent = (0..3).filter(|_| socket.send(&[3; 1350]).is_ok()).count();
    assert!(sent >= 2, "one error is told at most");
    let mut buffer = [0; 2000];
    for _ in 0..sent {
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 1350);
        assert_eq!(buffer[0], 3);
    }
}

/// What clients say about packets of others reaches those: that nobody listens, and that a packet was too long.
pub(crate) fn own_errors(running: &Running) {
    for (family, server) in SERVER.into_iter().enumerate() {
        let far = running.lab.in_node("server", || UdpSocket::bind(address(server, 4003)).unwrap()).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let near = running.lab.in_node("client", || udp(address(server, 4003))).unwrap();
        near.send(b"question").unwrap();
        let (_, from) = far.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from.ip().to_string(), WAN[family]);
        assert_ne!(from.port(), near.local_addr().unwrap().port(), "a kept port hides bugs in the quote");
        far.connect(from).unwrap();
        errors::enable(&far, from.ip()).unwrap();
        may_be_cut(&far, false);

        // The client says of a packet that it cannot forward it over a shorter link.
        let (node, interface) = running.inside;
        let wire = running.lab.wire(node, interface).unwrap();
        far.send(&[5; 1380]).unwrap();
        let packet = packets_until(&wire, Way::In, |packet| packet.ends_with(&[5; 1000])).pop().unwrap();
        let arrived = Packet::parse(&packet, packet.len()).unwrap();
        let client: IpAddr = CLIENT[family].parse().unwrap();
        let error = complain(&arrived, Complaint::TooBig { mtu: 1300 }, Addr::from(client), 1).unwrap();
        let raw = running.lab.in_node("client", || RawIcmp::open(client).unwrap()).unwrap();
        raw.send(server.parse().unwrap(), &error[[20, 40][family]..], TTL).unwrap();
        let told = next_error(&far);
        told_by_wan(&told, family, libc::EMSGSIZE);
        assert_eq!((told.info, told.quoted.first()), (1300, Some(&5)), "{told:?}");

        drop(near);
        let told = refused_in_the_end(&far, b"answer");
        told_by_wan(&told, family, libc::ECONNREFUSED);
        assert_eq!(told.quoted, b"answer");
    }
}
