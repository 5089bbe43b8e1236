//! All kinds of traffic through a NAT under `ctwhy live`: the engine and the kernel agree about every packet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod live_common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use ctwhy_linux::signal::SIGINT;
use ctwhy_linux::testing;
use live_common::{Live, NAT, SERVER, SERVER6, WAN, echo, lab_with, round_trip, run, try_run, udp};

fn addr(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Both consumers, datagrams of odd and even lengths up to more than the MTU, IPv4 and IPv6.
#[test]
fn datagrams_of_every_length() {
    if !testing::require_lab() {
        return;
    }
    for consumer in ["mnl", "nfq"] {
        let lab = lab_with("");
        let live = Live::start(&lab, &["--install-rules", "--consumer", consumer]);
        for (server, any) in [(SERVER, "0.0.0.0:0"), (SERVER6, "[::]:0")] {
            let far = addr(server, 7);
            echo(&udp(&lab, "server", &far.to_string()));
            let near = udp(&lab, "client", any);
            for length in (0..40).chain([1000, 1001, 1472, 1473, 3000, 3001, 9999]) {
                round_trip(&near, far, &vec![0x5a; length]);
            }
        }
        let ended = live.stop(SIGINT);
        ended.assert_agreement();
        let echoed = ended.packets.iter().filter(|packet| packet["ct"]["proto"] == "udp").count();
        assert_eq!(echoed, 2 * 2 * 47, "{consumer}");
    }
}

/// A whole connection, its data in segments, closed from either side.
#[test]
fn connections() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    let live = Live::start(&lab, &["--install-rules"]);
    for (server, first) in [(SERVER, "client"), (SERVER6, "server")] {
        let far = addr(server, 80);
        let listener = lab.in_node("server", || TcpListener::bind(far)).unwrap().unwrap();
        let mut near = lab.in_node("client", || TcpStream::connect(far)).unwrap().unwrap();
        let (mut there, _) = listener.accept().unwrap();
        near.write_all(&[1; 20_001]).unwrap();
        let mut received = vec![0; 20_001];
        there.read_exact(&mut received).unwrap();
        there.write_all(&[2; 30_003]).unwrap();
        let mut received = vec![0; 30_003];
        near.read_exact(&mut received).unwrap();
        if first == "client" {
            drop(near);
            assert_eq!(there.read(&mut received).unwrap(), 0);
        } else {
            drop(there);
            assert_eq!(near.read(&mut received).unwrap(), 0);
        }
    }
    // Nobody listens: a reset ends the flow that was never answered.
    lab.in_node("client", || TcpStream::connect(addr(SERVER, 81))).unwrap().unwrap_err();
    lab.in_node("client", || TcpStream::connect(addr(SERVER, 81))).unwrap().unwrap_err();
    let ended = live.stop(SIGINT);
    ended.assert_agreement();
    assert!(ended.count("ESTABLISHED") >= 4, "{:#?}", ended.messages);
}

/// A flow from before the run is known from the dump; one that is deleted by hand meanwhile begins anew.
#[test]
fn flows_from_before_and_deleted_ones() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    let far = addr(SERVER, 7);
    echo(&udp(&lab, "server", &far.to_string()));
    let near = udp(&lab, "client", "0.0.0.0:0");
    let listener = lab.in_node("server", || TcpListener::bind(addr(SERVER, 80))).unwrap().unwrap();
    let mut stream = lab.in_node("client", || TcpStream::connect(addr(SERVER, 80))).unwrap().unwrap();
    let (mut there, _) = listener.accept().unwrap();
    round_trip(&near, far, b"before");
    let mut live = Live::start(&lab, &["--install-rules"]);
    round_trip(&near, far, b"known");
    stream.write_all(b"known").unwrap();
    there.read_exact(&mut [0; 5]).unwrap();
    live.sync();
    let established = |packet: &serde_json::Value| packet["ctinfo"] == "ESTABLISHED";
    assert!(live.packets.iter().filter(|packet| established(packet)).count() >= 2, "{:#?}", live.packets);
    if ctwhy_linux::program::find("conntrack").is_ok() {
        run(&lab, "nat", "conntrack -D -p udp");
        round_trip(&near, far, b"anew");
        live.sync();
        let last = live.packets.iter().rev().find(|packet| packet["iface"] == "lan" && packet["ct"]["proto"] == "udp");
        assert_eq!(last.unwrap()["ctinfo"], "NEW");
    }
    live.stop(SIGINT).assert_agreement();
}

/// The NAT box itself: it answers, refuses, and asks.
#[test]
fn traffic_of_the_box_itself() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    let live = Live::start(&lab, &["--install-rules"]);
    // No route at all: unreachable, said by the box. (A second after any other error the kernel would not say it.)
    run(&lab, "nat", "ip route add unreachable 198.18.0.0/15");
    let (_, output) = try_run(&lab, "client", "traceroute -n -q 1 -f 2 -m 2 -w 5 198.18.0.1");
    assert!(output.contains("192.168.1.1") && output.contains("!H"), "{output}");
    // A closed port of the box: its reset belongs to the flow, its port unreachable is looked up.
    lab.in_node("client", || TcpStream::connect(addr(NAT, 81))).unwrap().unwrap_err();
    lab.in_node("client", || TcpStream::connect(addr("fd00:1::1", 81))).unwrap().unwrap_err();
    let near = udp(&lab, "client", "0.0.0.0:0");
    near.connect(addr(NAT, 9)).unwrap();
    near.send(b"nobody").unwrap();
    assert_eq!(near.recv(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    // An open one.
    echo(&udp(&lab, "nat", "0.0.0.0:7"));
    let near = udp(&lab, "client", "0.0.0.0:0");
    round_trip(&near, addr(NAT, 7), b"served");
    // Connections of its own, by cable and over loopback.
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    let own = udp(&lab, "nat", "0.0.0.0:0");
    round_trip(&own, addr(SERVER, 7), b"asked");
    round_trip(&own, addr("127.0.0.1", 7), b"loop");
    lab.in_node("nat", || TcpStream::connect(addr("127.0.0.1", 81))).unwrap().unwrap_err();
    let ended = live.stop(SIGINT);
    ended.assert_agreement();
    let errors = ended.packets.iter().filter(|p| p["hook"] == "output" && p["ctinfo"] == "RELATED_REPLY").count();
    assert_eq!(errors, 2, "port unreachable and host unreachable: {:#?}", ended.packets);
}

/// Firewall rules that refuse, with an error and with a reset, for new flows and for established ones.
#[test]
fn refusals() {
    if !testing::require_lab() {
        return;
    }
    let filter = "*filter\n-A FORWARD -p udp --dport 9 -j REJECT\n\
                  -A FORWARD -p tcp --dport 81 -j REJECT --reject-with tcp-reset\n\
                  -A FORWARD -p udp --dport 11 -j DROP\n\
                  -A INPUT -p udp --dport 9 -j REJECT\nCOMMIT\n";
    let lab = lab_with(filter);
    let live = Live::start(&lab, &["--install-rules"]);
    for target in [SERVER, NAT] {
        let near = udp(&lab, "client", "0.0.0.0:0");
        near.connect(addr(target, 9)).unwrap();
        near.send(b"refused").unwrap();
        assert_eq!(near.recv(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "{target}");
    }
    lab.in_node("client", || TcpStream::connect(addr(SERVER, 81))).unwrap().unwrap_err();
    udp(&lab, "client", "0.0.0.0:0").send_to(b"dropped", addr(SERVER, 11)).unwrap();
    // A flow that was allowed at first.
    let listener = lab.in_node("server", || TcpListener::bind(addr(SERVER, 80))).unwrap().unwrap();
    let mut stream = lab.in_node("client", || TcpStream::connect(addr(SERVER, 80))).unwrap().unwrap();
    let _there = listener.accept().unwrap();
    run(&lab, "nat", "iptables -I FORWARD -p tcp --dport 80 -j REJECT --reject-with tcp-reset");
    stream.write_all(b"refused").unwrap();
    assert!(stream.read(&mut [0; 9]).is_err());
    let ended = live.stop(SIGINT);
    ended.assert_agreement();
    let resets = ended.packets.iter().filter(|p| p["hook"] == "output" && p["ctinfo"] == "RELATED_REPLY").count();
    assert_eq!(resets, 4, "{:#?}", ended.packets);
    let closed = ended.packets.iter().any(|p| p["hook"] == "output" && p["ct"]["tcp_state"] == "CLOSE");
    assert!(closed, "the firewall's reset closes the entry: {:#?}", ended.packets);
}

/// Destination NAT: errors hide the real server, also those that the box makes about a packet without an entry.
#[test]
fn destination_nat() {
    if !testing::require_lab() {
        return;
    }
    let nat = "*nat\n-A POSTROUTING -o wan -j MASQUERADE\n-A PREROUTING -d 198.18.0.80 -j DNAT --to-destination 192.0.2.80\n\
               -A PREROUTING -i wan -p udp --dport 53 -j DNAT --to-destination 192.168.1.2:5353\n\
               -A PREROUTING -i lan -p udp --dport 54 -j REDIRECT --to-ports 7\nCOMMIT\n";
    let lab = lab_with(nat);
    let live = Live::start(&lab, &["--install-rules"]);
    for kind in ["", "-I", "-T"] {
        let (_, output) = try_run(&lab, "client", &format!("traceroute {kind} -n -q 1 -N 1 -w 2 198.18.0.80"));
        assert!(!output.contains('*') && output.contains("198.18.0.80"), "{output}");
    }
    echo(&udp(&lab, "client", "0.0.0.0:5353"));
    let outside = udp(&lab, "server", "0.0.0.0:0");
    round_trip(&outside, addr(WAN, 53), b"inside");
    echo(&udp(&lab, "nat", "0.0.0.0:7"));
    let near = udp(&lab, "client", "0.0.0.0:0");
    round_trip(&near, addr("198.18.0.54", 54), b"redirected");
    live.stop(SIGINT).assert_agreement();
}

/// Two clients of the same port to the same server: the second one gets another, which is learnt from the kernel.
#[test]
fn a_port_that_is_taken() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    run(&lab, "client", "ip address add 192.168.1.3/24 dev eth0");
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    let live = Live::start(&lab, &["--install-rules"]);
    for address in ["192.168.1.2:5000", "192.168.1.3:5000"] {
        round_trip(&udp(&lab, "client", address), addr(SERVER, 7), b"mine");
    }
    let ended = live.stop(SIGINT);
    ended.assert_agreement();
    let ports: Vec<u64> = ended
        .packets
        .iter()
        .filter(|packet| packet["ctinfo"] == "NEW")
        .map(|packet| packet["ct"]["reply_dport"].as_u64().unwrap())
        .collect();
    assert_eq!(ports.len(), 2);
    assert_eq!(ports[0], 5000);
    assert_ne!(ports[1], 5000);
}

/// Something else than NAT changes packets: that is found, named, and told by the exit code.
#[test]
fn a_difference_is_named() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("*mangle\n-A POSTROUTING -p udp --dport 7 -j TOS --set-tos 0x10/0xff\nCOMMIT\n");
    echo(&udp(&lab, "server", "0.0.0.0:7"));
    let live = Live::start(&lab, &["--install-rules"]);
    round_trip(&udp(&lab, "client", "0.0.0.0:0"), addr(SERVER, 7), b"tos");
    let ended = live.stop(SIGINT);
    assert_eq!(ended.status.code(), Some(1), "{:#?}", ended.messages);
    let differing: Vec<_> = ended.packets.iter().filter(|packet| packet["agree"] == false).collect();
    assert_eq!(differing.len(), 1);
    let said: Vec<&str> =
        differing[0]["differences"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(said[0].contains("TOS at byte 1: engine 0x00, kernel 0x10"), "{said:?}");
    assert!(said[1].contains("IP header checksum at byte 10"), "{said:?}");
    assert!(ended.messages.iter().any(|line| line.contains("1 differ")), "{:#?}", ended.messages);
}
