//! What `ctwhy nat tun` puts together when several packets of a flow are there at once, and what arrives of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use ctwhy_conform::world::{Nat, Options, World};
use ctwhy_core::packet::{Packet, be16};
use ctwhy_core::tuple::{L3, proto};
use ctwhy_linux::signal::wait_readable;
use ctwhy_linux::testing;
use ctwhy_linux::wire::Wire;

const PORT: u16 = 5300;
const COUNT: u8 = 40;
/// No host sends many more errors at once.
const REFUSED: u8 = 4;
/// In front of a packet at the server; at a TUN device nothing is.
const ETHERNET: usize = 14;

/// The datagrams to the server on a wire.
fn datagrams(wire: &Wire, link_header: usize) -> Vec<Vec<u8>> {
    let frames = std::iter::from_fn(|| wire.recv().unwrap());
    let packets = frames.filter_map(|frame| frame.bytes.get(link_header..).map(<[u8]>::to_vec));
    let to_server = |packet: &Vec<u8>| {
        let view = Packet::parse(packet, packet.len()).ok();
        let transport = view.and_then(|view| view.transport.ok()).filter(|transport| transport.protonum == proto::UDP);
        transport.is_some_and(|transport| be16(packet, transport.offset + 2) == Some(PORT))
    };
    packets.filter(to_server).collect()
}

/// What tells a datagram, whether on its way or quoted: length and IPID where there is one, and its payload.
fn told(packet: &[u8], server: IpAddr) -> (Vec<u8>, Vec<u8>) {
    if server.is_ipv4() {
        (packet[2..6].to_vec(), packet[28..].to_vec())
    } else {
        (packet[4..6].to_vec(), packet[48..].to_vec())
    }
}

fn payload(number: u8) -> Vec<u8> {
    // All of one length, but for some in between.
    let len = if number % 16 == 9 { 100 } else { 120 };
    (0..len).map(|at| number ^ at).collect()
}

#[test]
fn datagrams_that_leave_as_one_arrive_as_they_were_sent() {
    if !testing::require_lab() || !testing::require_tun() {
        return;
    }
    let world = World::start(Nat::NatTun, Path::new(env!("CARGO_BIN_EXE_ctwhy")), &Options::default()).unwrap();
    let lab = world.lab();
    let signal = |number| {
        let pid = world.pid().expect("it runs");
        // SAFETY: a system call on numbers.
        assert_eq!(unsafe { libc::kill(pid, number) }, 0);
    };
    for server in world.server().into_iter().flatten() {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let far = lab.in_node("server", || UdpSocket::bind(SocketAddr::new(server, PORT))).unwrap().unwrap();
        let near = lab.in_node("client", || UdpSocket::bind(SocketAddr::new(any, 0))).unwrap().unwrap();
        near.connect((server, PORT)).unwrap();
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        // Only of a flow that was answered.
        near.send(b"?").unwrap();
        let (_, from) = far.recv_from(&mut [0; 8]).unwrap();
        far.send_to(b"!", from).unwrap();
        near.recv(&mut [0; 8]).unwrap();

        let wires = [("client", "lan"), ("r1", "wan"), ("server", "eth0")];
        let [sent, between, arrived] = wires.map(|(node, interface)| lab.wire(node, interface).unwrap());
        signal(libc::SIGSTOP);
        for number in 0..COUNT {
            near.send(&payload(number)).unwrap();
        }
        signal(libc::SIGCONT);
        let mut buffer = [0; 256];
        for number in 0..COUNT {
            // One with a wrong checksum would not come: on cables of a lab they are verified.
            let len = far.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], payload(number), "datagram {number} to {server}");
        }
        let [sent, between, arrived] = [datagrams(&sent, 0), datagrams(&between, 0), datagrams(&arrived, ETHERNET)];
        assert_eq!((sent.len(), arrived.len()), (COUNT.into(), COUNT.into()));
        assert!(between.len() < COUNT.into(), "{} packets left the NAT", between.len());
        for (before, after) in sent.iter().zip(&arrived) {
            let [was, is] = [before, after].map(|packet| Packet::parse(packet, packet.len()).unwrap());
            assert_eq!((is.bytes.len(), is.ttl), (was.bytes.len(), was.ttl - 3));
            if is.l3num == L3::V4 {
                // TOS, IPID, the bits beside the offset.
                assert_eq!((&after[..2], &after[4..8]), (&before[..2], &before[4..8]));
            } else {
                assert_eq!(after[..4], before[..4]);
            }
        }

        // Where the port is closed by now, each is answered with an error about itself.
        drop(far);
        let wire = lab.wire("client", "lan").unwrap();
        signal(libc::SIGSTOP);
        for number in 0..REFUSED {
            // Of an error that has come already the socket tells instead of sending.
            while near.send(&payload(number)).is_err() {}
        }
        signal(libc::SIGCONT);
        let (mut sent, mut quoted) = (Vec::new(), Vec::new());
        while quoted.len() < REFUSED.into() {
            assert_eq!(wait_readable(&[wire.as_fd()], Some(Duration::from_secs(10))).unwrap(), [true], "{quoted:?}");
            while let Some(frame) = wire.recv().unwrap() {
                let packet = Packet::parse(&frame.bytes, frame.bytes.len()).unwrap();
                let transport = packet.transport.unwrap();
                match transport.protonum {
                    proto::UDP => sent.push(told(&frame.bytes, server)),
                    proto::ICMP | proto::ICMPV6 if matches!(frame.bytes[transport.offset], 1 | 3) => {
                        quoted.push(told(&frame.bytes[transport.offset + 8..], server));
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(quoted, sent);
    }
}
