//! The traffic that a diagnosis lives on, through a NAT that really runs.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use ctwhy_conform::world::World;
use ctwhy_linux::lab::Lab;
use ctwhy_linux::program;
use ctwhy_linux::wire::Wire;

use super::made_up::Captures;

const OPEN: u16 = 5300;
const CLOSED: u16 = 5399;

/// Has the client do something; the captures of both sides.
pub(crate) fn captures(world: &World) -> Captures {
    let lab = world.lab();
    let [inside, outside] =
        [world.inside(), world.outside()].map(|(node, interface)| lab.wire(node, interface).unwrap());
    for server in world.server().into_iter().flatten() {
        traffic(lab, server);
    }
    // Something behind all that is looked at, so that both captures are known to have run so long.
    command(lab, "ping", &["-c", "1", "-W", "1", &world.server()[0].unwrap().to_string()]);
    Captures { inside: taken(&inside), outside: taken(&outside) }
}

fn traffic(lab: &Lab, server: IpAddr) {
    let to = |port| SocketAddr::new(server, port);
    let udp = lab.in_node("server", || UdpSocket::bind(to(OPEN))).unwrap().unwrap();
    let tcp = lab.in_node("server", || TcpListener::bind(to(OPEN))).unwrap().unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| answer_udp(&udp));
        scope.spawn(|| answer_tcp(&tcp));
        lab.in_node("client", || {
            ask_udp(to(OPEN));
            ask_closed_udp(to(CLOSED));
            ask_tcp(to(OPEN));
        })
        .unwrap();
    });
    let server = server.to_string();
    command(lab, "ping", &["-c", "3", "-i", "0.2", "-W", "1", &server]);
    for kind in ["-U", "-I", "-T"] {
        command(lab, "traceroute", &["-n", "-q", "1", "-N", "1", "-w", "0.5", "-m", "4", kind, &server]);
    }
}

/// Of the client. What a proxy does not let through ends with an error.
fn command(lab: &Lab, tool: &str, arguments: &[&str]) {
    let _ = program::run(lab.command("client", tool).unwrap().args(arguments), "");
}

/// How many datagrams are asked and answered.
const DATAGRAMS: u8 = 6;

fn answer_udp(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    for _ in 0..DATAGRAMS {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
        buffer[..length].reverse();
        let _ = socket.send_to(&buffer[..length], from);
    }
}

/// From two sockets, one datagram at a time.
fn ask_udp(server: SocketAddr) {
    for round in 0..DATAGRAMS / 3 {
        let socket = UdpSocket::bind(any(server)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.connect(server).unwrap();
        for turn in 0..3u8 {
            let text = format!("question {turn} of round {round} to {server}");
            let _ = socket.send(text.as_bytes());
            let _ = socket.recv(&mut [0; 2048]);
        }
    }
}

/// Sends until the error has come, but not for long.
fn ask_closed_udp(server: SocketAddr) {
    let socket = UdpSocket::bind(any(server)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.connect(server).unwrap();
    let _ = socket.send(b"is anybody there?");
    let _ = socket.recv(&mut [0; 16]);
}

fn any(server: SocketAddr) -> SocketAddr {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    SocketAddr::new(any, 0)
}

fn answer_tcp(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = [0; 3000];
    stream.read_exact(&mut request).unwrap();
    stream.write_all(&[b'a'; 5000]).unwrap();
}

fn ask_tcp(server: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5)).unwrap();
    stream.set_nodelay(true).unwrap();
    let request: Vec<u8> = (0..3000u32).map(|at| (at * 7 % 251) as u8).collect();
    for part in request.chunks(1000) {
        stream.write_all(part).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), 5000);
}

/// What a wire has captured, from the IP header on.
fn taken(wire: &Wire) -> Vec<(u64, Vec<u8>)> {
    // A TUN device has no Ethernet header.
    let link = if wire.hardware_address() == [0; 6] { 0 } else { 14 };
    std::iter::from_fn(|| wire.recv().unwrap())
        .filter(|frame| [libc::ETH_P_IP, libc::ETH_P_IPV6].contains(&i32::from(frame.hw_protocol)))
        .map(|frame| (u64::try_from(frame.time.as_nanos()).unwrap(), frame.bytes[link..].to_vec()))
        .collect()
}
