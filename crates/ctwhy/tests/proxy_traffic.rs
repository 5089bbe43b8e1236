//! What goes through a NAT made of sockets, and what nothing of goes through: the guest's own headers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod proxy_common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use ctwhy_linux::lab::Lab;
use ctwhy_linux::testing;
use ctwhy_linux::wire::Way;
use proxy_common::{HOST, Proxy, SERVER, addr, any, say, udp, until};

fn connect(lab: &Lab, server: &str, port: u16) -> std::io::Result<TcpStream> {
    lab.in_node("client", || TcpStream::connect(addr(server, port))).unwrap()
}

/// Two headers of the same packet, as the guest and as the host sent it.
struct Seen {
    identification: u16,
    ttl: u8,
    source_port: u16,
    sequence: u32,
    options: Vec<u8>,
}

impl Seen {
    fn of(packet: &[u8]) -> Seen {
        let l4 = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        Seen {
            identification: if l4 == 20 { word(4) } else { 0 },
            ttl: packet[if l4 == 20 { 8 } else { 7 }],
            source_port: word(l4),
            sequence: packet.get(l4 + 4..l4 + 8).map_or(0, |bytes| u32::from_be_bytes(bytes.try_into().unwrap())),
            options: packet.get(l4 + 20..).unwrap_or_default().to_vec(),
        }
    }
}

/// Is it TCP or UDP with these flags, which for UDP are none?
fn is(packet: &[u8], protocol: u8, flags: Option<u8>) -> bool {
    let (field, l4) = if packet[0] >> 4 == 4 { (9, 20) } else { (6, 40) };
    packet[field] == protocol && flags.is_none_or(|flags| packet[l4 + 13] == flags)
}

/// The host owns the connection: its headers are its own, and `ss` shows it there.
#[test]
fn the_connection_is_the_hosts() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let proxy = Proxy::start(&[], true, 1500);
    let lab = proxy.lab();
    for family in 0..2 {
        let (inside, outside) = (lab.wire("client", "tun0").unwrap(), lab.wire("nat", "wan").unwrap());
        let listener = lab.in_node("server", || TcpListener::bind(addr(SERVER[family], 80))).unwrap().unwrap();
        let near = connect(lab, SERVER[family], 80).unwrap();
        let (there, from) = listener.accept().unwrap();
        assert_eq!(from.ip().to_string(), HOST[family]);
        let near_port = near.local_addr().unwrap().port();
        assert_ne!(from.port(), near_port, "a port of the host's own");
        let shown = say(lab, "nat", "ss -Htn state established");
        assert!(shown.lines().any(|line| line.contains(&format!(":{} ", from.port()))), "{shown}");
        // The SYN of each.
        let guest = Seen::of(until(&inside, Way::Out, |packet| is(packet, 6, Some(2))).last().unwrap());
        let host = Seen::of(until(&outside, Way::Out, |packet| is(packet, 6, Some(2))).last().unwrap());
        assert_eq!([guest.source_port, host.source_port], [near_port, from.port()]);
        assert_ne!(guest.sequence, host.sequence);
        assert_ne!(guest.options, host.options, "time stamps of two machines");
        assert!(family == 1 || guest.identification != host.identification);
        // The SYN-ACK of each.
        let server = Seen::of(until(&outside, Way::In, |packet| is(packet, 6, Some(0x12))).last().unwrap());
        let proxy = Seen::of(until(&inside, Way::In, |packet| is(packet, 6, Some(0x12))).last().unwrap());
        assert_ne!(server.sequence, proxy.sequence);
        assert_eq!([server.ttl, proxy.ttl], [62, 64], "two routers stand before one of them");
        drop(there);
        // UDP: the TTL is the guest's, and nothing else.
        let far = udp(lab, "server", addr(SERVER[family], 7));
        let datagram = udp(lab, "client", any(SERVER[family]));
        if family == 0 {
            datagram.set_ttl(57).unwrap();
        }
        datagram.send_to(b"fingerprint", addr(SERVER[family], 7)).unwrap();
        let guest = Seen::of(until(&inside, Way::Out, |packet| packet.ends_with(b"fingerprint")).last().unwrap());
        let host = Seen::of(until(&outside, Way::Out, |packet| packet.ends_with(b"fingerprint")).last().unwrap());
        assert_eq!([guest.ttl, host.ttl], if family == 0 { [57, 57] } else { [64, 64] });
        assert_ne!(guest.source_port, host.source_port);
        assert!(family == 1 || guest.identification != host.identification);
        let (_, from) = far.recv_from(&mut [0; 20]).unwrap();
        assert_eq!(from.port(), host.source_port);
    }
    proxy.stop();
}

/// Bytes that show where they belong.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

/// Much data, both ways at once, through small buffers; each side ends when it likes, the other goes on.
#[test]
fn streams_are_carried_and_close_by_halves() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let proxy = Proxy::start(&["--tcp-buffer", "4096"], true, 1500);
    let lab = proxy.lab();
    let data = pattern(1_000_003);
    for (server, guest_first) in SERVER.into_iter().zip([true, false]) {
        let listener = lab.in_node("server", || TcpListener::bind(addr(server, 80))).unwrap().unwrap();
        let near = connect(lab, server, 80).unwrap();
        let (there, _) = listener.accept().unwrap();
        let (mut first, mut second) = if guest_first { (near, there) } else { (there, near) };
        // Nobody reads yet: what does not fit anywhere stays with who writes it, and nothing is lost.
        let mut writer = first.try_clone().unwrap();
        let (to_write, to_answer) = (data.clone(), data.clone());
        let writing = std::thread::spawn(move || {
            writer.write_all(&to_write).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        second.read_to_end(&mut got).unwrap();
        assert!(got == data, "{server}: {} of {} bytes", got.len(), data.len());
        writing.join().unwrap();
        // The other half is still open.
        let answering = std::thread::spawn(move || {
            second.write_all(&to_answer).unwrap();
        });
        let mut got = Vec::new();
        first.read_to_end(&mut got).unwrap();
        assert!(got == data, "{server}: {} of {} bytes back", got.len(), data.len());
        answering.join().unwrap();
    }
    let end = proxy.stop();
    assert!(end.contains("TCP 2 connected, 0 failed"), "{end}");
    assert!(!end.contains("dropped"), "{end}");
}

/// A reset is told to the other side, and so is that nobody listens.
#[test]
fn resets_and_refusals_are_told() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let proxy = Proxy::start(&[], true, 1500);
    let lab = proxy.lab();
    for server in SERVER {
        assert_eq!(connect(lab, server, 81).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        for resets_in_guest in [true, false] {
            let listener = lab.in_node("server", || TcpListener::bind(addr(server, 80))).unwrap().unwrap();
            let near = connect(lab, server, 80).unwrap();
            let (there, _) = listener.accept().unwrap();
            let (mut resets, mut told) = if resets_in_guest { (near, there) } else { (there, near) };
            // Data that was not read when a socket is closed makes it a reset.
            told.write_all(b"unread").unwrap();
            resets.read_exact(&mut [0]).unwrap();
            drop(resets);
            assert_eq!(told.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset, "{resets_in_guest}");
        }
    }
    let end = proxy.stop();
    assert!(end.contains("TCP 4 connected, 2 failed"), "{end}");
}

/// Datagrams of every length that fits, and more that come back than fit; pings through both kinds of socket.
#[test]
fn datagrams_and_pings() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    for (ping, arguments) in [(true, vec![]), (true, vec!["--errors", "relay"]), (false, vec!["--errors", "relay"])] {
        let proxy = Proxy::start(&arguments, ping, 1500);
        let lab = proxy.lab();
        for server in SERVER {
            let far = udp(lab, "server", addr(server, 7));
            let near = udp(lab, "client", any(server));
            let mut buffer = [0; 9999];
            for length in [0, 1, 2, 1000, 1452] {
                near.send_to(&pattern(length), addr(server, 7)).unwrap();
                let (got, from) = far.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[..got], pattern(length));
                // Three times as much comes back, in fragments where need be.
                far.send_to(&pattern(3 * length), from).unwrap();
                let (got, _) = near.recv_from(&mut buffer).unwrap();
                assert!(buffer[..got] == pattern(3 * length), "{server} {length}: {got}");
            }
            let text = say(lab, "client", &format!("ping -n -c 3 -i 0.01 -W 5 -s 1000 {server}"));
            assert!(text.contains("3 received"), "{text}");
        }
        let end = proxy.stop();
        assert!(end.starts_with("ctwhy proxy: ended: UDP 10 out, 10 in; echo 6 out, 6 in;"), "{end}");
        assert!(!end.contains("dropped"), "{end}");
    }
}

/// Replies from hosts that are not there.
#[test]
fn made_up_replies() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let proxy = Proxy::start(&["--fake-echo"], false, 1500);
    let lab = proxy.lab();
    for nobody in ["198.18.0.1", "2001:db8:dead::1"] {
        let text = say(lab, "client", &format!("ping -n -c 2 -i 0.01 -W 5 {nobody}"));
        assert!(text.contains("2 received") && text.contains(&format!("from {nobody}")), "{text}");
    }
    let text = say(lab, "client", &format!("traceroute -I -n -q 1 -w 5 {}", SERVER[0]));
    assert!(text.contains(&format!(" 1  {} ", SERVER[0])), "the server, one hop away: {text}");
    let end = proxy.stop();
    assert!(end.contains("echo 0 out, 0 in") && !end.contains("dropped"), "{end}");
}

/// What cannot be carried on is counted, each for its cause, and what is bounded stays so.
#[test]
fn what_is_not_carried_on_is_counted() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let proxy = Proxy::start(&["--max-flows", "3"], false, 1500);
    let lab = proxy.lab();
    let inside = lab.wire("client", "tun0").unwrap();
    // The host allows no pings.
    say(lab, "client", &format!("ping -n -c 1 -W 1 {}", SERVER[0]));
    let near: Vec<_> = (0..5).map(|_| udp(lab, "client", any(SERVER[0]))).collect();
    let far = udp(lab, "server", addr(SERVER[0], 7));
    for socket in &near {
        socket.send_to(b"room?", addr(SERVER[0], 7)).unwrap();
    }
    for _ in 0..3 {
        far.recv_from(&mut [0; 9]).unwrap();
    }
    let raw = |protocol: u8, ttl: u8, destination: [u8; 4], payload: &[u8]| {
        let mut packet = vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 1, 0, 0, ttl, protocol, 0, 0, 10, 0, 2, 15];
        packet.extend(destination);
        let sum: u32 = packet.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend(payload);
        inside.send(&packet).unwrap();
    };
    let server = [192, 0, 2, 80];
    let datagram = [0x9c, 0x40, 0, 7, 0, 8, 0, 0];
    raw(47, 64, server, &[0; 8]);
    raw(1, 64, server, &[3, 3, 0xfc, 0xfc, 0, 0, 0, 0]);
    raw(17, 0, server, &datagram);
    raw(17, 64, [127, 0, 0, 1], &datagram);
    raw(17, 64, server, &[0x9c, 0x40, 0, 7, 0, 8, 0xde, 0xad]);
    raw(17, 64, server, &[0x9c, 0x40, 0, 7]);
    // Whatever came before this answer was looked at.
    near[0].send_to(b"last", addr(SERVER[0], 7)).unwrap();
    while far.recv_from(&mut [0; 9]).unwrap().0 != 4 {}
    let end = proxy.stop();
    for cause in ["protocol", "icmp_error", "ttl", "address", "checksum", "malformed"] {
        assert!(end.contains(&format!("guest.{cause}")), "{cause}: {end}");
    }
    assert!(end.contains("dropped      2  flows.full"), "{end}");
    assert!(end.contains("dropped      1  host.echo_not_allowed"), "{end}");
}

/// A flow that nothing goes through ends, and another one gets its room.
#[test]
fn idle_flows_end() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let proxy = Proxy::start(&["--max-flows", "1", "--idle", "1"], true, 1500);
    let lab = proxy.lab();
    let far = udp(lab, "server", addr(SERVER[0], 7));
    let (first, second) = (udp(lab, "client", any(SERVER[0])), udp(lab, "client", any(SERVER[0])));
    first.send_to(b"first", addr(SERVER[0], 7)).unwrap();
    let mut buffer = [0; 9];
    let (_, from) = far.recv_from(&mut buffer).unwrap();
    far.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let tries = (0..200).find_map(|tries| {
        second.send_to(b"second", addr(SERVER[0], 7)).unwrap();
        far.recv_from(&mut buffer).ok().map(|(_, other)| (tries, other))
    });
    let (tries, other) = tries.expect("room in the end");
    assert!(tries > 0, "there was room for two");
    assert_ne!(from, other);
    assert!(proxy.stop().contains("flows.full"));
}
