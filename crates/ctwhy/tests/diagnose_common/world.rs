//! A client behind a NAT, two routers and a server, and the traffic that a diagnosis lives on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{Packet, PcapngWriter};
use ctwhy_linux::lab::{Lab, Topology};
use ctwhy_linux::program;
use ctwhy_linux::wire::Wire;

const SERVER4: &str = "192.0.2.80";
const SERVER6: &str = "2001:db8:2::80";
const OPEN: u16 = 5300;
const CLOSED: u16 = 5399;

/// A lab with a NAT in it.
pub(crate) struct World {
    lab: Lab,
    /// The interface of the client.
    inner: &'static str,
    /// What has to be ended with the lab.
    nat: Option<Child>,
}

/// What the client does.
#[derive(Clone, Copy)]
pub(crate) struct Traffic {
    ipv6: bool,
}

impl Traffic {
    pub(crate) fn all() -> Traffic {
        Traffic { ipv6: true }
    }

    pub(crate) fn only_ipv4(self) -> Traffic {
        Traffic { ipv6: false }
    }
}

impl World {
    /// The kernel's MASQUERADE with these options.
    pub(crate) fn kernel(options: &str) -> io::Result<World> {
        let mut topology = Topology::traceroute();
        let rules = format!("*nat\n-A POSTROUTING -o wan -j MASQUERADE {options}\nCOMMIT\n");
        for node in &mut topology.nodes {
            if node.name == "nat" {
                *node = node.clone().rules(&rules, &rules);
            }
        }
        Ok(World { lab: Lab::create(topology)?, inner: "eth0", nat: None })
    }

    /// The lab without a cable between client and NAT, and without the kernel's NAT.
    fn without_nat() -> io::Result<Lab> {
        let mut topology = Topology::traceroute();
        topology.links.retain(|link| link.a.node != "client" && link.b.node != "client");
        for node in &mut topology.nodes {
            match node.name.as_str() {
                "nat" => *node = node.clone().rules("", "").sysctl("net.ipv4.ping_group_range", "0 0"),
                "client" => node.routes.clear(),
                _ => {}
            }
        }
        Lab::create(topology)
    }

    /// Our own NAT that is made of sockets.
    pub(crate) fn proxy(errors: &str) -> io::Result<World> {
        let lab = World::without_nat()?;
        let mut proxy = lab.command("nat", env!("CARGO_BIN_EXE_ctwhy"))?;
        proxy.args(["proxy", "--guest", "tun0", "--netns", "client", "--errors", errors]);
        proxy.args(["--address", "10.0.2.15/24", "fd00:2::15/64"]);
        proxy.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut nat = proxy.spawn()?;
        let mut said = BufReader::new(nat.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line)?;
        assert!(line.contains("ready"), "{line}");
        // What else it says must not fill a pipe.
        thread::spawn(move || io::copy(&mut said, &mut io::sink()));
        Ok(World { lab, inner: "tun0", nat: Some(nat) })
    }

    pub(crate) fn slirp() -> io::Result<World> {
        let lab = World::without_nat()?;
        let mut slirp = lab.command("nat", "sh")?;
        let line =
            "exec slirp4netns --configure --mtu=1500 --netns-type=path --ready-fd=3 /run/netns/client tap0 3>&1 >&2";
        slirp.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut nat = slirp.spawn()?;
        let mut ready = [0];
        nat.stdout.as_mut().unwrap().read_exact(&mut ready)?;
        Ok(World { lab, inner: "tap0", nat: Some(nat) })
    }

    /// It goes into the background when it is ready.
    pub(crate) fn pasta() -> io::Result<World> {
        let lab = World::without_nat()?;
        let mut pasta = lab.command("nat", "pasta")?;
        pasta.args([
            "--config-net",
            "--quiet",
            "--runas",
            "0:0",
            "--ns-ifname",
            "tap0",
            "--netns",
            "/run/netns/client",
        ]);
        program::run(&mut pasta, "")?;
        Ok(World { lab, inner: "tap0", nat: None })
    }

    /// Has the client do something, and gives the captures of both sides.
    pub(crate) fn run(&self, traffic: &Traffic, folder: &Path) -> [String; 2] {
        let inside = self.lab.wire("client", self.inner).unwrap();
        let outside = self.lab.wire("nat", "wan").unwrap();
        self.traffic(SERVER4.parse().unwrap());
        if traffic.ipv6 {
            self.traffic(SERVER6.parse().unwrap());
        }
        // Something behind all that is looked at, so that both captures are known to have run so long.
        self.command("client", "ping", &["-c", "1", "-W", "1", SERVER4]);
        [save(&inside, &folder.join("inside.pcapng")), save(&outside, &folder.join("outside.pcapng"))]
    }

    fn traffic(&self, server: IpAddr) {
        let lab = &self.lab;
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
        let family = if server.is_ipv4() { "-4" } else { "-6" };
        let server = server.to_string();
        self.command("client", "ping", &[family, "-c", "3", "-i", "0.2", "-W", "1", &server]);
        for kind in ["-U", "-I", "-T"] {
            self.command(
                "client",
                "traceroute",
                &[family, "-n", "-q", "1", "-N", "1", "-w", "1", "-m", "5", kind, &server],
            );
        }
    }

    /// What a proxy does not let through ends with an error.
    fn command(&self, node: &str, tool: &str, arguments: &[&str]) {
        let _ = program::run(self.lab.command(node, tool).unwrap().args(arguments), "");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(nat) = &mut self.nat {
            let _ = nat.kill();
            let _ = nat.wait();
        }
    }
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

/// Writes what a wire has captured.
fn save(wire: &Wire, path: &Path) -> String {
    let mut writer = PcapngWriter::new(File::create(path).unwrap(), "test").unwrap();
    // A TUN device has no Ethernet header.
    let linktype = if wire.hardware_address() == [0; 6] { LinkType::RAW } else { LinkType::ETHERNET };
    writer.add_interface(None, linktype, None).unwrap();
    while let Some(frame) = wire.recv().unwrap() {
        let time_ns = u64::try_from(frame.time.as_nanos()).unwrap();
        let original_len = u32::try_from(frame.bytes.len()).unwrap();
        writer.packet(Packet { interface: 0, time_ns, original_len, bytes: &frame.bytes }, []).unwrap();
    }
    writer.finish().unwrap();
    path.to_str().unwrap().to_owned()
}
