//! What `ctwhy proxy --errors relay` quotes: the guest's own datagram, byte for byte, and the right one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod proxy_common;

use std::net::IpAddr;

use ctwhy_core::checksum::Sum;
use ctwhy_core::tuple::{L3, proto};
use ctwhy_linux::testing;
use ctwhy_linux::wire::Way;
use proxy_common::{GUEST, HOST, Proxy, ROUTERS, SERVER, addr, any, say, udp, until};

/// With raw sockets, and with error queues alone.
const MODES: [(bool, &[&str]); 2] = [(false, &["--errors", "relay"]), (true, &["--errors", "relay", "--unprivileged"])];

/// Where the transport header of a packet without options is.
fn l4(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

/// An IP packet; for IPv4 with an identification, TOS 0x28 and without DF.
fn packet(from: &str, to: &str, ttl: u8, protonum: u8, identification: u16, payload: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut bytes;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes = vec![0x45, 0x28];
            bytes.extend((20 + payload.len() as u16).to_be_bytes());
            bytes.extend(identification.to_be_bytes());
            bytes.extend([0, 0, ttl, protonum, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            let checksum = Sum::default().bytes(&bytes).checksum();
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes = vec![0x62, 0x8a, 0xbc, 0xde];
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([protonum, ttl]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        _ => panic!("two families"),
    }
    bytes.extend(payload);
    bytes
}

/// The transport checksum of `message`, whose own field is 0.
fn checksum(from: &str, to: &str, protonum: u8, message: &[u8]) -> [u8; 2] {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let l3 = if from.is_ipv4() { L3::V4 } else { L3::V6 };
    let sum = match protonum {
        proto::ICMP => Sum::default(),
        _ => Sum::default().pseudo_header(l3, from.into(), to.into(), protonum, message.len()),
    };
    sum.bytes(message).checksum().to_be_bytes()
}

/// A UDP datagram of the guest from port 40000 to port 9 of the server.
fn probe(family: usize, ttl: u8, identification: u16, data: &[u8]) -> Vec<u8> {
    let mut message = vec![0x9c, 0x40, 0, 9];
    message.extend((8 + data.len() as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(data);
    let sum = checksum(GUEST[family], SERVER[family], proto::UDP, &message);
    message[6..8].copy_from_slice(&sum);
    packet(GUEST[family], SERVER[family], ttl, proto::UDP, identification, &message)
}

/// An echo request of the guest.
fn ping(family: usize, ttl: u8, identification: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let (protonum, kind) = [(proto::ICMP, 8), (proto::ICMPV6, 128)][family];
    let mut message = vec![kind, 0, 0, 0, 0x12, 0x34];
    message.extend(sequence.to_be_bytes());
    message.extend(data);
    let sum = checksum(GUEST[family], SERVER[family], protonum, &message);
    message[2..4].copy_from_slice(&sum);
    packet(GUEST[family], SERVER[family], ttl, protonum, identification, &message)
}

/// An ICMP error from `from` to `to`: type and code, second word, and what follows.
fn error(from: &str, to: &str, kind: [u8; 2], word: [u8; 4], quote: &[u8]) -> Vec<u8> {
    let protonum = if from.contains(':') { proto::ICMPV6 } else { proto::ICMP };
    let mut message = vec![kind[0], kind[1], 0, 0];
    message.extend(word);
    message.extend(quote);
    let sum = checksum(from, to, protonum, &message);
    message[2..4].copy_from_slice(&sum);
    packet(from, to, 60, protonum, 77, &message)
}

fn is_error(packet: &[u8]) -> bool {
    let protonum = if l4(packet) == 20 { packet[9] } else { packet[6] };
    let kind = packet[l4(packet)];
    match protonum {
        proto::ICMP => matches!(kind, 3 | 11 | 12),
        proto::ICMPV6 => kind < 128,
        _ => false,
    }
}

/// Are the checksums of an error right, and is it from there to the guest?
fn assert_sound(packet: &[u8], family: usize, from: &str) {
    let at = l4(packet);
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), GUEST[family].parse().unwrap());
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    assert_eq!(packet[at - 2 * address(from).len()..at], [address(from), address(to)].concat());
    let initial = match family {
        0 => Sum::default(),
        _ => Sum::default().pseudo_header(L3::V6, from.into(), to.into(), proto::ICMPV6, packet.len() - at),
    };
    assert_eq!(initial.bytes(&packet[at..]).fold(), 0xffff, "ICMP checksum");
    assert!(family == 1 || Sum::default().bytes(&packet[..20]).fold() == 0xffff, "header checksum");
}

/// `sent` as a router sees it where this is left of its TTL.
fn with_ttl(sent: &[u8], ttl: u8) -> Vec<u8> {
    let mut seen = sent.to_vec();
    if l4(sent) == 20 {
        seen[8] = ttl;
        seen[10..12].copy_from_slice(&[0, 0]);
        let checksum = Sum::default().bytes(&seen[..20]).checksum();
        seen[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        seen[7] = ttl;
    }
    seen
}

/// Three datagrams of one flow at once, to two routers: each error quotes its own, and all of it that the guest made up.
#[test]
fn each_error_quotes_its_own_datagram_byte_for_byte() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    for (allowed, arguments) in MODES {
        let proxy = Proxy::start(arguments, allowed, 1500);
        let lab = proxy.lab();
        let inside = lab.wire("client", "tun0").unwrap();
        for family in [0, 1] {
            let udp = |ttl, id, data: &[u8]| probe(family, ttl, id, data);
            let echo = |ttl, id, sequence| ping(family, ttl, id, sequence, b"echo data");
            let probes: [(u8, Vec<u8>); 7] = [
                (1, udp(1, 0x4321, b"the first")),
                (2, udp(2, 0x4322, b"the second, which is longer")),
                (1, udp(1, 0x4323, b"the third")),
                (1, echo(1, 0x4324, 7)),
                (2, echo(2, 0x4325, 8)),
                (1, echo(1, 0x4326, 9)),
                // No checksum, where that is allowed.
                (
                    2,
                    if family == 0 {
                        packet(GUEST[0], SERVER[0], 2, 17, 9, &[9, 9, 0, 9, 0, 9, 0, 0, 1])
                    } else {
                        udp(2, 0, b"")
                    },
                ),
            ];
            for (_, probe) in &probes {
                inside.send(probe).unwrap();
            }
            let count = std::cell::Cell::new(0);
            let all = |packet: &[u8]| {
                count.set(count.get() + usize::from(is_error(packet)));
                count.get() == probes.len()
            };
            let errors: Vec<Vec<u8>> = until(&inside, Way::In, all).into_iter().filter(|p| is_error(p)).collect();
            for (hop, probe) in &probes {
                // What died at a router had one left when it came there.
                let quote = with_ttl(probe, 1);
                let found: Vec<_> = errors.iter().filter(|error| error.ends_with(&quote)).collect();
                assert_eq!(found.len(), 1, "{arguments:?} {probe:02x?}\n{errors:02x?}");
                let error = found[0];
                assert_eq!(error.len(), l4(error) + 8 + probe.len());
                assert_sound(error, family, ROUTERS[family][usize::from(*hop) - 1]);
            }
        }
        proxy.stop();
    }
}

/// An error that a router made up about what the host sent, and what the guest gets of it.
#[test]
fn forged_errors_and_odd_ones() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    for (allowed, arguments) in MODES {
        let raw = !allowed;
        let proxy = Proxy::start(arguments, allowed, 1500);
        let lab = proxy.lab();
        let (inside, outside) = (lab.wire("client", "tun0").unwrap(), lab.wire("nat", "wan").unwrap());
        let router = lab.injector("nat", "wan").unwrap();
        for family in [0, 1] {
            let r1 = ROUTERS[family][0];
            let exceeded = [[11, 0], [3, 0]][family];
            // Nobody answers: the server has a socket for it.
            let _server = udp(lab, "server", addr(SERVER[family], 9));
            let long = vec![0x5a; 300];
            let sent = probe(family, 50, 0x1111, &long);
            inside.send(&sent).unwrap();
            let host = until(&outside, Way::Out, |packet| packet.ends_with(&long)).pop().unwrap();
            let at = l4(&host);

            // Errors that are not believed: the checksum, the port, and data that nobody sent.
            let mut wrong = error(r1, HOST[family], exceeded, [0; 4], &host);
            wrong[at + 2] ^= 1;
            router.inject(&wrong).unwrap();
            let mut strange = host.clone();
            strange[at + 3] ^= 1;
            router.inject(&error(r1, HOST[family], exceeded, [0; 4], &strange)).unwrap();
            let mut strange = host.clone();
            strange[at + 8] ^= 1;
            router.inject(&error(r1, HOST[family], exceeded, [0; 4], &strange)).unwrap();

            // The shortest quote that there is.
            router.inject(&error(r1, HOST[family], exceeded, [0; 4], &with_ttl(&host[..at + 8], 1))).unwrap();
            let got = until(&inside, Way::In, is_error).pop().unwrap();
            assert_eq!(got[at + 8..], with_ttl(&sent, 1)[..at + 8], "{arguments:?}");
            assert_sound(&got, family, r1);

            // 128 bytes and an extension: version 2, and an object of MPLS labels.
            let mut extension = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0x12, 0x34, 0x51, 0x01];
            let sum = Sum::default().bytes(&extension).checksum();
            extension[2..4].copy_from_slice(&sum.to_be_bytes());
            let length = [[0, 128 / 4, 0, 0], [128 / 8, 0, 0, 0]][family];
            let quote = [&with_ttl(&host, 1)[..128], &extension].concat();
            router.inject(&error(r1, HOST[family], exceeded, length, &quote)).unwrap();
            let got = until(&inside, Way::In, is_error).pop().unwrap();
            assert_eq!(got[at + 4..at + 8], length, "{arguments:?}");
            assert_eq!(got[at + 8..], [&with_ttl(&sent, 1)[..128], &extension].concat(), "{arguments:?}");
            assert_sound(&got, family, r1);

            // Of a short datagram: padding in front of the extension.
            let short = probe(family, 50, 0x2222, b"short");
            inside.send(&short).unwrap();
            let host = until(&outside, Way::Out, |packet| packet.ends_with(b"short")).pop().unwrap();
            let mut quote = with_ttl(&host, 1);
            quote.resize(128, 0);
            quote.extend(&extension);
            router.inject(&error(r1, HOST[family], exceeded, length, &quote)).unwrap();
            let got = until(&inside, Way::In, is_error).pop().unwrap();
            let mut quote = with_ttl(&short, 1);
            quote.resize(128, 0);
            quote.extend(&extension);
            assert_eq!(got[at + 8..], quote, "{arguments:?}");
            assert_eq!(got[at + 4..at + 8], length, "{arguments:?}");
            assert_sound(&got, family, r1);

            // A TTL that was not used up: raw sockets show what is left of it, queues do not.
            let unreachable = [[3, 13], [1, 1]][family];
            router.inject(&error(r1, HOST[family], unreachable, [0; 4], &with_ttl(&host, 49))).unwrap();
            let got = until(&inside, Way::In, is_error).pop().unwrap();
            assert_eq!(got[at..at + 2], unreachable);
            assert_eq!(got[at + 8..], with_ttl(&short, if raw { 49 } else { 50 }), "{arguments:?}");
        }
        let end = proxy.stop();
        assert!(end.contains("8 errors passed on"), "{end}");
        assert!(end.contains("dropped      2  error.no_datagram"), "{end}");
        if raw {
            // The kernel itself drops an ICMPv6 message with a wrong checksum.
            assert!(end.contains("dropped      1  error.checksum"), "{end}");
            assert!(end.contains("dropped      2  error.no_flow"), "{end}");
        }
    }
}

/// A link that is too narrow for what may not be cut: the guest learns its MTU from the router, and acts on it.
#[test]
fn the_mtu_of_a_narrow_link_is_told() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    const NARROW: u32 = 1280;
    for (allowed, arguments) in MODES {
        let proxy = Proxy::start(arguments, allowed, NARROW);
        let lab = proxy.lab();
        for family in [0, 1] {
            let inside = lab.wire("client", "tun0").unwrap();
            let far = udp(lab, "server", addr(SERVER[family], 7));
            let near = udp(lab, "client", any(SERVER[family]));
            near.connect(addr(SERVER[family], 7)).unwrap();
            let data: Vec<u8> = (0..1400).map(|index| index as u8).collect();
            near.send(&data).unwrap();
            let got = until(&inside, Way::In, is_error).pop().unwrap();
            let at = l4(&got);
            assert_eq!(got[at..at + 2], [[3, 4], [2, 0]][family], "{arguments:?}");
            let word = u32::from_be_bytes(got[at + 4..at + 8].try_into().unwrap());
            assert_eq!(word, NARROW, "{arguments:?}");
            assert_sound(&got, family, ROUTERS[family][1]);
            // The error waits on the guest's socket; from now on its kernel cuts, and the pieces arrive as one.
            let mut refused = 0;
            while let Err(error) = near.send(&data) {
                assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
                refused += 1;
                assert!(refused < 3);
            }
            let mut buffer = [0; 2000];
            let (length, _) = far.recv_from(&mut buffer).unwrap();
            assert!(buffer[..length] == data, "{arguments:?}");
            let text = say(lab, "client", &format!("ping -n -c 1 -W 5 -M do -s 1300 {}", SERVER[family]));
            let told = text.contains("mtu = 1280") || text.contains("mtu=1280") || text.contains("mtu: 1280");
            assert!(told, "{text}");
        }
        let end = proxy.stop();
        assert!(!end.contains("dropped"), "{end}");
    }
}
