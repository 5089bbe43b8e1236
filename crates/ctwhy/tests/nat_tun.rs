//! `ctwhy nat tun` between kernels: what users see through it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod nat_common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use ctwhy_linux::{signal, testing};
use nat_common::{CLIENT, CTWHY, MASQUERADE, NAT, PATIENCE, R1, R2, RULES, Running, SERVER, WAN, total};
use serde_json::Value;

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A UDP socket of the calling thread's node.
fn udp(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// May the sender's kernel cut the socket's datagrams? Otherwise they are no longer than the path is known to take.
fn may_be_cut(socket: &UdpSocket, may: bool) {
    let (level, option) = match socket.local_addr().unwrap() {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    let value: libc::c_int = if may { libc::IP_PMTUDISC_WANT } else { libc::IP_PMTUDISC_DO };
    // SAFETY: the pointer is to a live local of that size.
    let result = unsafe {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// The routers that a traceroute shows.
fn hops(text: &str) -> Vec<&str> {
    text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(1)).collect()
}

#[test]
fn traceroute_shows_every_hop_and_the_nat_among_them() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::start(1500, RULES, &["--trace", "-v"]);
    for (family, server) in SERVER.into_iter().enumerate() {
        let expected = [NAT[family], R1[family], R2[family], server];
        for method in ["-U", "-I", "-T"] {
            let text = running.run("client", "traceroute", &["-n", method, "-q1", "-N1", "-w5", "-m8", server]);
            assert_eq!(hops(&text), expected, "traceroute {method} {server}");
        }
    }
    // Each probe left with another port or id than it came with, and each error found its way back.
    let said = running.end();
    let related = said.iter().filter(|line| line.contains(" RELATED_REPLY ") && line.contains("quoted ")).count();
    assert!(related >= 6 * 2 + 2, "{said:#?}");
    assert_eq!(total(&said, "time exceeded"), 6, "{said:#?}");
}

#[test]
fn path_mtu_discovery_ends_with_data_that_arrives() {
    if !testing::require_lab() {
        return;
    }
    for (family, mtu) in [(0, 1200), (1, 1280)] {
        let running = Running::start(mtu, RULES, &[]);
        let server = SERVER[family];
        let lab = &running.lab;
        // UDP: too long, told so, and what is sent then arrives in fragments.
        let receiver = lab.in_node("server", || UdpSocket::bind(address(server, 4000)).unwrap()).unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let socket = lab.in_node("client", || udp(address(server, 4000))).unwrap();
        may_be_cut(&socket, false);
        socket.send(&[1; 1350]).unwrap();
        let told = loop {
            // The error comes on its own time. A socket that has one says so once.
            match socket.send(&[2; 1350]) {
                Ok(_) => std::thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert_eq!(told.raw_os_error(), Some(libc::EMSGSIZE), "{told}");
        may_be_cut(&socket, true);
        // Errors about the others may still come, and each is told once.
        assert!((0..10_000).any(|_| socket.send(&[3; 1350]).is_ok()));
        let mut buffer = [0; 2000];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 1350);
        assert_eq!(buffer[0], 3, "nothing longer than the link got there in one piece");

        // TCP: more than one window of it.
        let listener = lab.in_node("server", || TcpListener::bind(address(server, 4001)).unwrap()).unwrap();
        let upload = vec![7; 300_000];
        let sent = upload.clone();
        let mut client = lab.in_node("client", || TcpStream::connect(address(server, 4001)).unwrap()).unwrap();
        let (mut accepted, from) = listener.accept().unwrap();
        assert_eq!(from.ip().to_string(), WAN[family]);
        accepted.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        let thread = std::thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            client
        });
        let mut received = Vec::new();
        accepted.read_to_end(&mut received).unwrap();
        assert!(received == upload, "{} bytes arrived", received.len());
        drop(thread.join().unwrap());

        // Ping: told the MTU, and then answered.
        running.run("client", "ip", &["route", "flush", "cache"]);
        running.run("client", "ip", &["-6", "route", "flush", "cache"]);
        let ping =
            |options: &[&str]| running.try_run("client", "ping", &[&["-n", "-w20"], options, &[server]].concat());
        let told = ping(&["-M", "do", "-s", "1300", "-c1"]);
        assert!(told.contains(&format!("mtu={mtu}")) || told.contains(&format!("mtu = {mtu}")), "{told}");
        assert!(ping(&["-s", "1300", "-c1"]).contains("1308 bytes from"), "{family}");
        // The NAT's own answers, too, where they are longer than its link.
        let big = running.try_run("client", "ping", &["-n", "-w20", "-s", "3000", "-c1", NAT[family]]);
        assert!(big.contains("3008 bytes from"), "{big}");
        running.end();
    }
}

#[test]
fn closed_ports_refuse() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::start(1500, RULES, &[]);
    for to in SERVER.into_iter().chain(NAT).chain(WAN) {
        let (datagrams, stream) = running
            .lab
            .in_node("client", || {
                let socket = udp(address(to, 4999));
                socket.send(b"anyone?").unwrap();
                (socket.recv(&mut [0; 8]), TcpStream::connect_timeout(&address(to, 4999), PATIENCE))
            })
            .unwrap();
        assert_eq!(datagrams.unwrap_err().kind(), ErrorKind::ConnectionRefused, "UDP to {to}");
        assert_eq!(stream.unwrap_err().kind(), ErrorKind::ConnectionRefused, "TCP to {to}");
    }
    running.end();
}

#[test]
fn rejected_packets_are_answered_as_the_rules_say() {
    if !testing::require_lab() {
        return;
    }
    let reject = |port, with: &str| format!("-A FORWARD -p tcp -m tcp --dport {port} -j REJECT --reject-with {with}\n");
    let rules = |[first, second, third]: [&str; 3]| {
        let rules = [reject(81, first), reject(82, second), reject(83, third)].concat();
        format!("*filter\n{rules}COMMIT\n{MASQUERADE}")
    };
    let v4 = rules(["icmp-host-unreachable", "icmp-net-unreachable", "tcp-reset"]);
    let v6 = rules(["icmp6-addr-unreachable", "icmp6-adm-prohibited", "tcp-reset"]);
    let running = Running::start(1500, [&v4, &v6], &[]);
    let refused = |to, port| {
        let connect = || TcpStream::connect_timeout(&address(to, port), PATIENCE);
        running.lab.in_node("client", connect).unwrap().unwrap_err().raw_os_error()
    };
    let expected = [
        [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ECONNREFUSED],
        [libc::EHOSTUNREACH, libc::EACCES, libc::ECONNREFUSED],
    ];
    for (to, errors) in SERVER.into_iter().zip(expected) {
        for (port, error) in (81..).zip(errors) {
            assert_eq!(refused(to, port), Some(error), "{to} port {port}");
        }
    }
    let said = running.end();
    assert_eq!(total(&said, "filter.reject"), 6, "{said:#?}");
    assert_eq!(total(&said, "reset"), 2, "{said:#?}");
}

#[test]
fn the_table_is_shown_to_its_owner() {
    if !testing::require_lab() {
        return;
    }
    let mut running = Running::start(1500, RULES, &["--name", "mine"]);
    let status = |arguments: &[&str]| running.run("nat", CTWHY, &[&["nat", "status"], arguments].concat());
    let table = status(&["--name", "mine"]);
    let expected = format!("ipv4     2 icmp     1 29 src={} dst={} type=8 code=0 id=", CLIENT[0], SERVER[0]);
    let alike =
        |line: &str| line.starts_with(expected.get(..24).unwrap()) && line.contains(expected.get(27..).unwrap());
    assert!(table.lines().any(alike), "{table}");
    assert_eq!(table.lines().count(), 2, "an echo of each family: {table}");
    for line in status(&["--name", "mine", "--json"]).lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert!(WAN.contains(&entry["reply_dst"].as_str().unwrap()), "{entry}");
        assert_ne!(entry["orig_icmp_id"], entry["reply_icmp_id"], "{entry}");
    }
    let missing = running.try_run("nat", CTWHY, &["nat", "status"]);
    assert!(missing.starts_with("ctwhy: no NAT named nat of this user runs in this network namespace"), "{missing}");
    let twice = running.try_run(
        "nat",
        CTWHY,
        &["nat", "tun", "--inside", "a", "--outside", "b", "--address", "a=10.0.0.1/8", "--name", "mine"],
    );
    assert!(twice.contains("a NAT named mine of this user runs"), "{twice}");
    running.signal(signal::SIGUSR1);
    running.until("ipv6     10 icmpv6");
    running.end();
}
