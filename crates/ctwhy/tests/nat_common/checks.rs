//! What users see through a NAT, whichever front end it has.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::{NAT, PATIENCE, R1, R2, Running, SERVER, WAN};

pub(crate) fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A UDP socket of the calling thread's node.
pub(crate) fn udp(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// May the sender's kernel cut the socket's datagrams? Otherwise they are no longer than the path is known to take.
pub(crate) fn may_be_cut(socket: &UdpSocket, may: bool) {
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
pub(crate) fn hops(text: &str) -> Vec<&str> {
    text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().nth(1)).collect()
}

/// Every hop is there, and the NAT is one of them.
pub(crate) fn traceroutes(running: &Running) {
    for (family, server) in SERVER.into_iter().enumerate() {
        let expected = [NAT[family], R1[family], R2[family], server];
        for method in ["-U", "-I", "-T"] {
            let text = running.run("client", "traceroute", &["-n", method, "-q1", "-N1", "-w5", "-m8", server]);
            assert_eq!(hops(&text), expected, "traceroute {method} {server}");
        }
    }
}

/// Path MTU discovery ends with data that arrives, behind a link of `mtu` on the way to the server.
pub(crate) fn path_mtu(running: &Running, family: usize, mtu: u32) {
    let server = SERVER[family];
    let lab = &running.lab;
    // UDP: too long, told so, and what is sent then arrives in fragments.
    let receiver = lab.in_node("server", || UdpSocket::bind(address(server, 4000)).unwrap()).unwrap();
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
    // Errors about the others may still come, and each is told once. A socket that is busy when one comes may send one more
    // that is too long.
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 2000];
    let arrived = (0..40).find_map(|_| socket.send(&[3; 1350]).and_then(|_| receiver.recv(&mut buffer)).ok());
    assert_eq!(arrived, Some(1350));
    assert_eq!(buffer[0], 3, "nothing longer than the link got there in one piece");

    // TCP: more than one window of it, to a server that does not say how short its link is.
    let (router, longest) = [("192.0.2.1", "1460"), ("2001:db8:2::1", "1440")][family];
    let any = ["0.0.0.0/0", "::/0"][family];
    running.run("server", "ip", &["route", "replace", any, "via", router, "advmss", longest]);
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
    let ping = |options: &[&str]| running.try_run("client", "ping", &[&["-n", "-w20"], options, &[server]].concat());
    let told = ping(&["-M", "do", "-s", "1300", "-c1"]);
    assert!(told.contains(&format!("mtu={mtu}")) || told.contains(&format!("mtu = {mtu}")), "{told}");
    assert!(ping(&["-s", "1300", "-c1"]).contains("1308 bytes from"), "{family}");
    // The NAT's own answers, too, where they are longer than its link.
    let big = running.try_run("client", "ping", &["-n", "-w20", "-s", "3000", "-c1", NAT[family]]);
    assert!(big.contains("3008 bytes from"), "{big}");
}

/// Closed ports of the server and of the NAT say so.
pub(crate) fn closed_ports(running: &Running) {
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
}
