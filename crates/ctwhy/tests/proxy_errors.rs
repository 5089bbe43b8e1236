//! What becomes of ICMP errors behind a NAT made of sockets: with `--errors drop` as behind `vmnat`, with `--errors relay`
//! as they should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod proxy_common;

use std::io::ErrorKind;
use std::net::TcpStream;

use ctwhy_linux::lab::Lab;
use ctwhy_linux::testing;
use ctwhy_linux::wire::Way;
use proxy_common::{Proxy, ROUTERS, SERVER, addr, any, say, udp, until};

/// The hops that traceroute shows, `*` for none.
fn hops(lab: &Lab, kind: &str, server: &str, most: usize, wait: f32) -> Vec<String> {
    let text = say(lab, "client", &format!("traceroute {kind} -n -q 1 -N 1 -w {wait} -m {most} {server}"));
    let hops = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next()?.parse::<u32>().ok()?;
        Some(words.next()?.to_owned())
    });
    let hops: Vec<String> = hops.collect();
    assert!(!hops.is_empty(), "{text}");
    hops
}

/// The experiment: the guest sees stars, and the errors do reach the host.
#[test]
fn dropped_errors_are_stars_although_they_reach_the_host() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    let proxy = Proxy::start(&["--errors", "drop"], true, 1500);
    let lab = proxy.lab();
    for family in 0..2 {
        let (icmp, time_exceeded, unreachable) = [(20, 11, 3), (40, 3, 1)][family];
        let wire = lab.wire("nat", "wan").unwrap();
        assert_eq!(hops(lab, "-U", SERVER[family], 4, 0.3), ["*", "*", "*", "*"]);
        // All of them came: two routers, and the server, which two probes reached.
        let kind = |packet: &[u8]| packet.get(icmp).copied();
        let seen = until(&wire, Way::In, |packet| kind(packet) == Some(unreachable));
        let errors = seen.iter().filter(|packet| kind(packet) == Some(time_exceeded)).count();
        assert_eq!(errors, 2, "{seen:02x?}");
        // An echo reply is no error. What the routers say still is.
        assert_eq!(hops(lab, "-I", SERVER[family], 4, 1.0), ["*", "*", SERVER[family]]);
        // Nobody tells a client that nobody listens.
        let near = udp(lab, "client", any(SERVER[family]));
        near.connect(addr(SERVER[family], 9)).unwrap();
        near.send(b"anybody?").unwrap();
        until(&wire, Way::In, |packet| kind(packet) == Some(unreachable) && packet.ends_with(b"anybody?"));
        assert!(near.take_error().unwrap().is_none());
    }
    let end = proxy.stop();
    assert!(end.contains("0 errors passed on"), "{end}");
}

/// The cure, from raw sockets and from error queues alone.
#[test]
fn relayed_errors_show_every_hop() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    // On the first host pings leave through the raw socket, since ping sockets are not allowed.
    for (ping, arguments) in [(false, vec!["--errors", "relay"]), (true, vec!["--errors", "relay", "--unprivileged"])] {
        let proxy = Proxy::start(&arguments, ping, 1500);
        let lab = proxy.lab();
        for family in 0..2 {
            let [r1, r2] = ROUTERS[family];
            for kind in ["-U", "-I", "-T"] {
                let seen = hops(lab, kind, SERVER[family], 6, 5.0);
                assert_eq!(seen, [r1, r2, SERVER[family]], "{arguments:?} {kind}");
            }
            let near = udp(lab, "client", any(SERVER[family]));
            near.connect(addr(SERVER[family], 9)).unwrap();
            near.send(b"anybody?").unwrap();
            assert_eq!(near.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
        let end = proxy.stop();
        // Of each family: 2 routers for each kind, the server for UDP, and for the client.
        assert!(end.contains("16 errors passed on") && !end.contains("dropped"), "{end}");
    }
}

/// Why a connection could not be made: with errors passed on the guest knows, without it was refused.
#[test]
fn why_a_connection_failed_is_told() {
    if !testing::require_tun() || !testing::require_lab() {
        return;
    }
    for (errors, wanted) in [("drop", ErrorKind::ConnectionRefused), ("relay", ErrorKind::NetworkUnreachable)] {
        let proxy = Proxy::start(&["--errors", errors], true, 1500);
        let lab = proxy.lab();
        // The first router has no route to either.
        for nowhere in ["198.18.0.1", "2001:db8:dead::1"] {
            let connected = lab.in_node("client", || TcpStream::connect(addr(nowhere, 80))).unwrap();
            assert_eq!(connected.unwrap_err().kind(), wanted, "{errors} {nowhere}");
        }
        let end = proxy.stop();
        assert!(end.contains("TCP 0 connected"), "{end}");
    }
}
