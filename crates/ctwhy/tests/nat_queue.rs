//! `ctwhy nat queue` on a router of the kernel's: what users see through it, and what is left of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod nat_common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use ctwhy_linux::lab::Lab;
use ctwhy_linux::socket::errors::Origin;
use ctwhy_linux::{program, signal, testing};
use nat_common::checks::{address, closed_ports, path_mtu, traceroutes, udp};
use nat_common::errors::{own_errors, refusals, refused_in_the_end, rejecting, rejections, too_long};
use nat_common::{CLIENT, NAT, PATIENCE, R1, RULES, Running, SERVER, WAN, total};

#[test]
fn traceroute_shows_every_hop_and_the_nat_among_them() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::queue(1500, RULES, &["--trace", "-v"]);
    traceroutes(&running);
    // Each probe left with another port or id than it came with, and each error found its way back.
    let said = running.end();
    let related = said.iter().filter(|line| line.contains(" RELATED_REPLY ") && line.contains("quoted ")).count();
    assert!(related >= 6 * 2 + 2, "{said:#?}");
    // What the kernel said about a packet that it did not forward carries that packet's entry.
    let own = said.iter().filter(|line| line.contains(" -      RELATED_REPLY ") && line.contains("time exceeded"));
    assert_eq!(own.count(), 6, "{said:#?}");
    assert!(said.iter().any(|line| line.trim().starts_with("this host answers another packet with it")), "{said:#?}");
}

#[test]
fn path_mtu_discovery_ends_with_data_that_arrives() {
    if !testing::require_lab() {
        return;
    }
    for (family, mtu) in [(0, 1200), (1, 1280)] {
        let running = Running::queue(mtu, RULES, &[]);
        path_mtu(&running, family, mtu);
        too_long(&running, family, mtu);
        running.end();
    }
}

#[test]
fn what_routers_refuse_is_told_to_the_client() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::queue(1500, RULES, &[]);
    refusals(&running);
    running.end();
}

#[test]
fn rejected_packets_are_answered_as_the_rules_say() {
    if !testing::require_lab() {
        return;
    }
    let [v4, v6] = rejecting();
    let running = Running::queue(1500, [&v4, &v6], &[]);
    rejections(&running);
    let said = running.end();
    assert_eq!(total(&said, "filter.reject"), 14, "{said:#?}");
    assert_eq!(total(&said, "reset"), 2, "{said:#?}");
}

/// What is for the box, what the box itself sends, and what was forwarded by address: its sender is told about what it sent.
#[test]
fn rejected_packets_are_answered_in_every_chain() {
    if !testing::require_lab() {
        return;
    }
    let rules = |family: usize| {
        let (wan, client) = (WAN[family], CLIENT[family]);
        let to = if family == 0 { format!("{client}:7000") } else { format!("[{client}]:7000") };
        format!(
            "*filter\n-A INPUT -p udp -m udp --dport 7 -j REJECT\n-A OUTPUT -p udp -m udp --dport 9 -j REJECT\n\
             -A FORWARD -o lan -p udp -m udp --dport 7000 -j REJECT\nCOMMIT\n\
             *nat\n-A PREROUTING -d {wan} -p udp --dport 53 -j DNAT --to-destination {to}\n\
             -A POSTROUTING -o wan -j MASQUERADE --random-fully\nCOMMIT\n"
        )
    };
    let running = Running::queue(1500, [&rules(0), &rules(1)], &[]);
    for family in 0..2 {
        let (client, nat, wan, server) = (CLIENT[family], NAT[family], WAN[family], SERVER[family]);
        let asked =
            [("client", nat, 7, nat), ("server", wan, 53, wan), ("nat", server, 9, wan), ("nat", client, 9, nat)];
        for (node, to, port, by) in asked {
            let socket = running.lab.in_node(node, || udp(address(to, port))).unwrap();
            let told = refused_in_the_end(&socket, b"anyone?");
            assert_eq!((told.errno, &told.quoted[..]), (libc::ECONNREFUSED, &b"anyone?"[..]), "{node} to {to}");
            let by: std::net::IpAddr = by.parse().unwrap();
            assert!(matches!(told.origin, Origin::Icmp { offender, .. } if offender == by), "{node} to {to}: {told:?}");
        }
    }
    let said = running.end();
    assert!(total(&said, "port unreachable") >= 8, "{said:#?}");
}

#[test]
fn what_clients_complain_about_is_told_to_the_server() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::queue(1500, RULES, &[]);
    own_errors(&running);
    running.end();
}

#[test]
fn closed_ports_refuse() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::queue(1500, RULES, &[]);
    closed_ports(&running);
    running.end();
}

/// A datagram there and back between two sockets that are not connected to each other.
fn round_trip(near: &UdpSocket, far: &UdpSocket) {
    let mut buffer = [0; 64];
    near.send(b"question").unwrap();
    let (_, from) = far.recv_from(&mut buffer).unwrap();
    far.send_to(b"answer", from).unwrap();
    assert_eq!(near.recv(&mut buffer).unwrap(), 6);
}

/// Forwarded from outside; and from inside by the address outside, where both addresses of a packet change.
#[test]
fn ports_are_forwarded_also_back_inside() {
    if !testing::require_lab() {
        return;
    }
    let rules = |family: usize| {
        let (wan, client) = (WAN[family], CLIENT[family]);
        let to = if family == 0 { format!("{client}:7000") } else { format!("[{client}]:7000") };
        format!(
            "*nat\n-A PREROUTING -d {wan} -p udp --dport 53 -j DNAT --to-destination {to}\n\
             -A PREROUTING -d {wan} -p tcp --dport 81 -j REDIRECT --to-ports 82\n\
             -A POSTROUTING -o lan -j MASQUERADE --random-fully\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n"
        )
    };
    let running = Running::queue(1500, [&rules(0), &rules(1)], &[]);
    for family in 0..2 {
        let (client, wan) = (CLIENT[family], WAN[family]);
        let far = running.lab.in_node("client", || UdpSocket::bind(address(client, 7000)).unwrap()).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        for node in ["server", "client"] {
            let near = running.lab.in_node(node, || udp(address(wan, 53))).unwrap();
            round_trip(&near, &far);
            round_trip(&near, &far);
        }
        // Nobody listens any more: the error about a packet that was forwarded says so to both.
        drop(far);
        for node in ["server", "client"] {
            let near = running.lab.in_node(node, || udp(address(wan, 53))).unwrap();
            let refused = refused_in_the_end(&near, b"anyone?");
            assert_eq!(refused.errno, libc::ECONNREFUSED, "{node}, family {family}");
        }
        // To the NAT itself, at another port: an open one, and a closed one.
        let connect = || TcpStream::connect_timeout(&address(wan, 81), PATIENCE);
        let refused = running.lab.in_node("server", connect).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
        let listener = running.lab.in_node("nat", || TcpListener::bind(address(wan, 82)).unwrap()).unwrap();
        let mut stream = running.lab.in_node("server", connect).unwrap().unwrap();
        listener.accept().unwrap().0.write_all(b"redirected").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "redirected");
    }
    running.end();
}

/// The first packet of a flow dies here, its destination translated already, also when it goes back inside: the error quotes
/// it as it was sent.
#[test]
fn time_exceeded_here_is_about_the_packet_as_it_was_sent() {
    if !testing::require_lab() {
        return;
    }
    let rules = |family: usize| {
        let to = [CLIENT, SERVER].map(|ip| ip[family]);
        format!(
            "*nat\n-A PREROUTING -d {} -p udp --dport 53 -j DNAT --to-destination {}\n\
             -A PREROUTING -d {} -p udp --dport 54 -j DNAT --to-destination {}\n\
             -A POSTROUTING -j MASQUERADE --random-fully\nCOMMIT\n",
            WAN[family], to[0], WAN[family], to[1]
        )
    };
    let running = Running::queue(1500, [&rules(0), &rules(1)], &[]);
    for family in 0..2 {
        for port in ["53", "54"] {
            // traceroute takes for its own what quotes its probe.
            let arguments = ["-n", "-U", "-p", port, "-q1", "-N1", "-w5", "-f1", "-m1", WAN[family]];
            let text = running.run("client", "traceroute", &arguments);
            let hop = nat_common::checks::hops(&text);
            assert!(hop == [WAN[family]] || hop == [NAT[family]], "port {port}: {text}");
        }
    }
    running.end();
}

/// The kernel finds out late that a neighbour does not answer, and tells the source of the packet: by then the NAT.
#[test]
fn a_neighbour_that_does_not_answer_is_told_to_the_client() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::queue(1500, RULES, &[]);
    for (prefix, router, to) in
        [("198.18.0.0/24", "203.0.113.77", "198.18.0.1"), ("2001:db8:18::/64", "2001:db8:113::77", "2001:db8:18::1")]
    {
        running.run("nat", "ip", &["route", "add", prefix, "via", router]);
        let connect = || TcpStream::connect_timeout(&address(to, 80), PATIENCE);
        let error = running.lab.in_node("client", connect).unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH), "{to}");
    }
    running.end();
}

/// What comes in fragments is translated as a whole, and leaves in fragments of the same size.
#[test]
fn fragments_go_through_also_longer_than_any_link() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::queue(1500, RULES, &[]);
    for server in SERVER {
        for size in ["1600", "20000"] {
            let text = running.run("client", "ping", &["-n", "-w20", "-c2", "-i0.2", "-s", size, server]);
            assert!(text.contains(" 0% packet loss"), "{text}");
        }
    }
    let said = running.end();
    assert_eq!(total(&said, "fragments that waited"), 0, "the kernel puts them together: {said:#?}");
}

/// Puts links in the place of those beside the NAT whose cards offload what they can, which those of a lab do not.
fn renew_links(running: &Running) {
    let ip = |node: &str, lines: String| {
        program::run(running.lab.command(node, "ip").unwrap().args(["-batch", "-"]), &lines).unwrap();
    };
    ip(
        "nat",
        "link del lan\nlink del wan\nlink add lan type veth peer name eth0\nlink add wan type veth peer name nat\n"
            .to_owned(),
    );
    ip("nat", "link set eth0 netns client\nlink set nat netns r1\n".to_owned());
    let up = |interface: &str, [v4, v6]: [&str; 2]| {
        format!(
            "link set {interface} up\naddress add {v4}/24 dev {interface}\naddress add {v6}/64 dev {interface} nodad\n"
        )
    };
    let default = |[v4, v6]: [&str; 2]| format!("route add default via {v4}\nroute add ::/0 via {v6}\n");
    ip("nat", up("lan", NAT) + &up("wan", WAN) + &default(R1));
    ip("client", up("eth0", CLIENT) + &default(NAT));
    ip("r1", up("nat", R1));
}

/// Cards that cut packets: what is handed over stands for many segments and has no checksum yet.
#[test]
fn packets_that_stand_for_several_arrive_whole() {
    if !testing::require_lab() {
        return;
    }
    for arguments in [&[][..], &["--no-gso"]] {
        let running = Running::queue(1500, RULES, arguments);
        renew_links(&running);
        for server in SERVER {
            let listener = running.lab.in_node("server", || TcpListener::bind(address(server, 4001)).unwrap()).unwrap();
            let mut near =
                running.lab.in_node("client", || TcpStream::connect(address(server, 4001)).unwrap()).unwrap();
            let sent: Vec<u8> = (0..4_000_000u32).map(|at| (at / 7) as u8).collect();
            let (mut far, _) = listener.accept().unwrap();
            far.set_read_timeout(Some(PATIENCE)).unwrap();
            near.set_read_timeout(Some(PATIENCE)).unwrap();
            let echo = std::thread::spawn(move || {
                let mut received = vec![0; 4_000_000];
                far.read_exact(&mut received).unwrap();
                far.write_all(&received).unwrap();
            });
            near.write_all(&sent).unwrap();
            let mut received = vec![0; sent.len()];
            near.read_exact(&mut received).unwrap();
            assert!(received == sent, "other bytes came back");
            echo.join().unwrap();
        }
        running.end();
    }
}

/// The rules of ours that are in place on the NAT: none, when all is well.
fn our_rules(lab: &Lab) -> String {
    let run = |tool: &str| program::run(lab.command("nat", tool).unwrap().args(["-c"]), "").unwrap();
    let all = ["iptables-save", "ip6tables-save"].map(run).concat();
    all.lines().filter(|line| line.contains("CTWHY")).map(|line| format!("{line}\n")).collect()
}

fn ping(lab: &Lab, node: &str, to: &str) -> bool {
    lab.command(node, "ping").unwrap().args(["-n", "-c1", "-W1", to]).output().unwrap().status.success()
}

#[test]
fn rules_go_with_the_run() {
    if !testing::require_lab() {
        return;
    }
    let mut running = Running::queue(1500, RULES, &[]);
    for number in [signal::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        assert_ne!(our_rules(&running.lab), "");
        assert!(ping(&running.lab, "client", SERVER[0]));
        let (_, lab) = running.end_by(number);
        assert_eq!(our_rules(&lab), "", "signal {number}");
        running = Running::queue_in(lab, RULES, &["--install-rules"]);
    }
    let (_, lab) = running.end_by(signal::SIGINT);
    // Without the NAT packets are forwarded as they are: r1 has no way back to the client.
    assert!(!ping(&lab, "client", SERVER[0]));
}

/// kill -9: nothing is forwarded, translated or not, but the machine itself can be reached; the next run goes on.
#[test]
fn a_nat_that_is_gone_forwards_nothing() {
    if !testing::require_lab() {
        return;
    }
    let lab = Running::queue(1500, RULES, &[]).kill();
    assert_ne!(our_rules(&lab), "");
    // Somebody outside knows the way to the client, and would see its address.
    program::run(lab.command("r1", "ip").unwrap().args(["route", "add", "192.168.1.0/24", "via", WAN[0]]), "").unwrap();
    assert!(!ping(&lab, "client", R1[0]), "it left untranslated");
    assert!(!ping(&lab, "r1", CLIENT[0]), "it was let in");
    for (node, to) in [("client", NAT[0]), ("r1", WAN[0]), ("nat", SERVER[0]), ("nat", CLIENT[0])] {
        assert!(ping(&lab, node, to), "{node} to {to}");
    }
    let running = Running::queue_in(lab, RULES, &["--install-rules"]);
    assert!(ping(&running.lab, "client", SERVER[0]), "rules that were left are replaced");
    // The other way, for those who want it.
    let (_, lab) = running.end_by(signal::SIGINT);
    let lab = Running::queue_in(lab, RULES, &["--install-rules", "--queue-bypass"]).kill();
    assert!(ping(&lab, "client", R1[0]), "it is forwarded untranslated");
    let running = Running::queue_in(lab, RULES, &["--install-rules"]);
    let (_, lab) = running.end_by(signal::SIGINT);
    assert_eq!(our_rules(&lab), "");
}

/// The rest of the mark is the user's, on both sides of the NAT, and ours is gone when the packet leaves.
#[test]
fn marks_of_others_survive() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::queue(1500, RULES, &["--mark-mask", "0xff00"]);
    let rule = |arguments: &str| {
        running.run("nat", "iptables", &arguments.split_ascii_whitespace().collect::<Vec<_>>());
    };
    rule("-t raw -I PREROUTING -i lan -j MARK --set-mark 0x50003");
    // Behind our own chain in POSTROUTING there is only the nat table, which asks about untracked packets as well.
    rule("-t filter -A FORWARD -i lan -m mark --mark 0x50003/0xffff00ff");
    assert!(ping(&running.lab, "client", SERVER[0]));
    let counted = running.run("nat", "iptables", &["-nvxL", "FORWARD"]);
    let packets = counted.lines().find(|line| line.contains("0x50003")).unwrap();
    assert_eq!(packets.split_ascii_whitespace().next(), Some("1"), "{counted}");
    running.end();
}

/// An address goes, and with it the flows that were masqueraded with it; another comes and is taken.
#[test]
fn addresses_that_change_are_noticed() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::queue(1500, RULES, &[]);
    let far = running.lab.in_node("server", || UdpSocket::bind(address(SERVER[0], 7)).unwrap()).unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let near = running.lab.in_node("client", || udp(address(SERVER[0], 7))).unwrap();
    let seen_from = || {
        near.send(b"x").unwrap();
        far.recv_from(&mut [0; 8]).unwrap().1.ip().to_string()
    };
    assert_eq!(seen_from(), WAN[0]);
    running.run("nat", "ip", &["address", "add", "203.0.113.3/24", "dev", "wan"]);
    assert_eq!(seen_from(), WAN[0], "the flow keeps what it has");
    running.run("nat", "sh", &["-c", "echo 1 > /proc/sys/net/ipv4/conf/wan/promote_secondaries"]);
    running.run("nat", "ip", &["address", "del", "203.0.113.2/24", "dev", "wan"]);
    running.run("nat", "ip", &["route", "replace", "default", "via", R1[0]]);
    // What the kernel tells about its addresses comes on its own way.
    let noticed = (0..1000).any(|_| seen_from() == "203.0.113.3");
    assert!(noticed, "the flow went with its address");
    running.end();
}

/// Only interfaces that were named: those of the NAT are enough for all of it, and others are none of its business.
#[test]
fn interfaces_that_were_not_named_are_left_alone() {
    if !testing::require_lab() {
        return;
    }
    let running = Running::queue(1500, RULES, &["--interface", "lan", "--interface", "wan"]);
    running.run("nat", "ip", &["link", "add", "aside", "type", "veth", "peer", "name", "far"]);
    running.run("nat", "ip", &["link", "set", "far", "up"]);
    running.run("nat", "ip", &["address", "add", "198.18.0.1/24", "dev", "aside"]);
    running.run("nat", "ip", &["link", "set", "aside", "up"]);
    traceroutes(&running);
    refusals(&running);
    own_errors(&running);
    // What leaves by another interface is not handed over, and the kernel tracks it.
    running.run("nat", "iptables", &["-A", "OUTPUT", "-o", "aside", "-m", "conntrack", "--ctstate", "NEW"]);
    let socket = running.lab.in_node("nat", || udp(address("198.18.0.2", 9))).unwrap();
    socket.send(b"x").unwrap();
    let counted = running.run("nat", "iptables", &["-nvxL", "OUTPUT"]);
    let packets = counted.lines().find(|line| line.contains("aside")).unwrap();
    assert_eq!(packets.split_ascii_whitespace().next(), Some("1"), "{counted}");
    let said = running.end();
    assert_eq!(total(&said, "by somebody else's rules"), 0, "{said:#?}");
}

/// The helper finds the address of the client in what it says, and writes another one in its place, which is longer in IPv6:
/// the numbers of all that follows are adjusted, and the server can connect to what it was told.
#[test]
fn ftp_in_active_mode_goes_through() {
    if !testing::require_lab() {
        return;
    }
    let rules = format!("*raw\n-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp\nCOMMIT\n{}", RULES[0]);
    for gso in [&[][..], &["--no-gso"]] {
        let running = Running::queue(1500, [&rules; 2], gso);
        for family in 0..2 {
            let (client, server, wan) = (CLIENT[family], SERVER[family], WAN[family]);
            let bind = |to| TcpListener::bind(to).unwrap();
            let control = running.lab.in_node("server", || bind(address(server, 21))).unwrap();
            let data = running.lab.in_node("client", || bind(address(client, 0))).unwrap();
            let mut near = running.lab.in_node("client", || TcpStream::connect(address(server, 21)).unwrap()).unwrap();
            let (mut far, from) = control.accept().unwrap();
            assert_eq!(from.ip().to_string(), wan);
            for stream in [&near, &far] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            far.write_all(b"220 ready\r\n").unwrap();
            assert_eq!(line(&mut near), "220 ready");
            // The helper reads what stands behind a line that it has seen the end of.
            near.write_all(b"USER anonymous\r\n").unwrap();
            assert_eq!(line(&mut far), "USER anonymous");
            let port = data.local_addr().unwrap().port();
            for _ in 0..3 {
                // More than once: each changes the numbers again.
                let command = match family {
                    0 => format!("PORT {},{},{}\r\n", client.replace('.', ","), port >> 8, port & 0xff),
                    _ => format!("EPRT |2|{client}|{port}|\r\n"),
                };
                near.write_all(command.as_bytes()).unwrap();
                let told = told_address(&line(&mut far));
                assert_eq!(told.ip().to_string(), wan);
                far.write_all(b"200 fine\r\n").unwrap();
                assert_eq!(line(&mut near), "200 fine");
                let mut back = running.lab.in_node("server", || TcpStream::connect(told).unwrap()).unwrap();
                let (mut taken, _) = data.accept().unwrap();
                back.write_all(b"the file").unwrap();
                drop(back);
                let mut text = String::new();
                taken.read_to_string(&mut text).unwrap();
                assert_eq!(text, "the file");
            }
            near.write_all(b"QUIT\r\n").unwrap();
            assert_eq!(line(&mut far), "QUIT");
        }
        running.end();
    }
}

/// The next line of a control connection.
fn line(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    text.trim_end().to_owned()
}

/// What a PORT or EPRT command says (RFC 959, RFC 2428).
fn told_address(command: &str) -> std::net::SocketAddr {
    if let Some(numbers) = command.strip_prefix("PORT ") {
        let numbers: Vec<u8> = numbers.split(',').map(|number| number.parse().unwrap()).collect();
        let ip: [u8; 4] = numbers[..4].try_into().unwrap();
        return std::net::SocketAddr::new(ip.into(), u16::from_be_bytes([numbers[4], numbers[5]]));
    }
    let parts: Vec<&str> = command.strip_prefix("EPRT |2|").unwrap().split('|').collect();
    address(parts[0], parts[1].parse().unwrap())
}
