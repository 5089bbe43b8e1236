//! Thousands of flows through our NAT, errors about them from both sides, either side going away and coming back, the NAT
//! killed and started again, and a flood: no byte wrong, no mapping lost, no memory without end.
//!
//! `make soak TIME=1800` takes that many seconds and 50,000 flows; otherwise it is over after some seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use ctwhy_conform::compose::{Ip, udp};
use ctwhy_conform::world::{Nat, Options, World};
use ctwhy_core::packet::{Packet, be16};
use ctwhy_core::random::Random;
use ctwhy_core::tuple::{Addr, L3, proto};
use ctwhy_linux::signal::{SIGINT, wait_readable};
use ctwhy_linux::socket::raw::RawSender;
use ctwhy_linux::wire::{Way, Wire};
use ctwhy_linux::{program, testing};
use ctwhy_nat::answer::{Complaint, complain};

/// What waits longer has gone wrong.
const PATIENCE: Duration = Duration::from_secs(10);
/// Datagrams of one way that are under way at a time.
const CHUNK: usize = 128;
/// Datagrams of a flood between two looks at whether the other flows still work, and those that are under way at a time.
const BLOCK: usize = 10_000;
const BURST: usize = 200;
/// After more than two seconds a flow that is answered is a stream (UDP-02), and no longer the first to go.
const STREAM: Duration = Duration::from_millis(2_500);
/// Ports of the server.
const PORTS: [u16; 4] = [7001, 7002, 7003, 7004];

/// How much of everything.
struct Plan {
    time: Duration,
    flows: usize,
    /// Datagrams of a flood, each of a flow of its own.
    flood: usize,
    /// Entries that the NAT may have.
    limit: usize,
}

impl Plan {
    fn of_environment() -> Plan {
        match std::env::var("CTWHY_SOAK").ok().map(|text| text.parse().expect("CTWHY_SOAK is a number of seconds")) {
            Some(seconds) => {
                Plan { time: Duration::from_secs(seconds), flows: 50_000, flood: 1_000_000, limit: 100_000 }
            }
            None => Plan { time: Duration::from_secs(3), flows: 600, flood: 30_000, limit: 4_000 },
        }
    }
}

/// A flow of a client that never gives up.
struct Flow {
    family: usize,
    /// Of the client and of the server.
    ports: (u16, u16),
    /// What the server knows the client's port as.
    outside: Option<u16>,
    /// Datagrams so far.
    sent: u32,
}

/// A datagram as it was taken off a wire.
struct Taken {
    family: usize,
    sport: u16,
    dport: u16,
    packet: Vec<u8>,
    payload: Vec<u8>,
}

/// What an interface has received.
struct Received {
    file: File,
    interface: String,
}

impl Received {
    /// Of this thread's network, wherever it is read.
    fn open(interface: &str) -> Received {
        Received { file: File::open("/proc/thread-self/net/dev").unwrap(), interface: format!("{interface}:") }
    }

    fn packets(&mut self) -> u64 {
        let mut text = String::new();
        self.file.rewind().unwrap();
        self.file.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&self.interface)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// Sockets on both sides.
struct Ends {
    client: (RawSender, Wire),
    server: (RawSender, Wire),
}

struct Soak {
    world: World,
    ends: Ends,
    flows: Vec<Flow>,
    random: Random,
    stream: Option<TcpStream>,
    listener: TcpListener,
    counts: Counts,
}

/// What was done.
#[derive(Debug, Default)]
struct Counts {
    exchanged: u64,
    errors: u64,
    disturbances: u64,
    connections: u64,
    moved: u64,
}

fn open(world: &World) -> Ends {
    let lab = world.lab();
    let sender = |node: &str| lab.in_node(node, || RawSender::open().unwrap()).unwrap();
    let (node, interface) = world.inside();
    Ends {
        client: (sender("client"), lab.wire(node, interface).unwrap()),
        server: (sender("server"), lab.wire("server", "eth0").unwrap()),
    }
}

/// The next IP packet that arrived.
fn take(wire: &Wire) -> Option<Vec<u8>> {
    let start = if wire.hardware_address() == [0; 6] { 0 } else { 14 };
    let deadline = Instant::now() + PATIENCE;
    loop {
        while let Some(frame) = wire.recv().unwrap() {
            // Neighbours ask for each other now and then.
            let packet = frame.bytes.get(start..).unwrap_or_default();
            if frame.way == Way::In && packet.first().is_some_and(|byte| [4, 6].contains(&(byte >> 4))) {
                return Some(packet.to_vec());
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !wait_readable(&[wire.as_fd()], Some(left)).unwrap()[0] {
            return None;
        }
    }
}

fn datagram(packet: &[u8]) -> Option<Taken> {
    let view = Packet::parse(packet, packet.len()).ok()?;
    let transport = view.transport.ok().filter(|transport| transport.protonum == proto::UDP)?;
    let l4 = view.bytes.get(transport.offset..)?;
    let family = usize::from(view.l3num == L3::V6);
    let (payload, packet) = (l4.get(8..)?.to_vec(), view.bytes.to_vec());
    Some(Taken { family, sport: be16(l4, 0)?, dport: be16(l4, 2)?, packet, payload })
}

/// What a flow says: nobody else says that.
fn words(flow: usize, sent: u32, answer: bool) -> Vec<u8> {
    let seed = (flow as u64) << 33 | u64::from(sent) << 1 | u64::from(answer);
    let mut random = Random::new(seed);
    let length = 8 + usize::from(random.next_u16()) % 400;
    let mut bytes = seed.to_be_bytes().to_vec();
    bytes.extend((8..length).map(|_| random.next_u16() as u8));
    bytes
}

/// Which flow says so.
fn speaker(payload: &[u8]) -> usize {
    (u64::from_be_bytes(payload[..8].try_into().unwrap()) >> 33) as usize
}

impl Soak {
    fn start(nat: Nat, plan: &Plan) -> Soak {
        let arguments = ["--table-limit".to_owned(), plan.limit.to_string()].to_vec();
        let own = Path::new(env!("CARGO_BIN_EXE_ctwhy"));
        let world = World::start(nat, own, &Options { arguments, ..Options::default() }).unwrap();
        for node in ["client", "server"] {
            for tool in ["iptables", "ip6tables"] {
                // The sockets here see packets all the same, and nobody complains that no port is open.
                let rule = ["-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "DROP"];
                program::run(world.lab().command(node, tool).unwrap().args(rule), "").unwrap();
            }
        }
        let listener = world.lab().in_node("server", || TcpListener::bind("0.0.0.0:7000").unwrap()).unwrap();
        let flows = (0..plan.flows).map(|at| Flow {
            family: at % 2,
            ports: (10_000 + (at / 2) as u16, PORTS[at / 2 % PORTS.len()]),
            outside: None,
            sent: 0,
        });
        let (ends, flows) = (open(&world), flows.collect());
        Soak { world, ends, flows, random: Random::new(1), stream: None, listener, counts: Counts::default() }
    }

    fn hosts(&self, family: usize) -> (IpAddr, IpAddr) {
        (self.world.client()[family].unwrap(), self.world.server()[family].unwrap())
    }

    fn chance(&mut self, one_in: u16) -> bool {
        self.random.next_u16().is_multiple_of(one_in)
    }

    /// A datagram there and back in each of these flows.
    fn exchange(&mut self, chunk: &[usize]) {
        for &at in chunk {
            let (client, server) = self.hosts(self.flows[at].family);
            let flow = &mut self.flows[at];
            flow.sent += 1;
            let ip = Ip::between(client, server);
            let packet = ip.packet(udp(&ip, flow.ports.0, flow.ports.1, &words(at, flow.sent, false)));
            self.ends.client.0.send(&packet, None).unwrap();
        }
        let mut arrived: HashMap<usize, Taken> = HashMap::new();
        while arrived.len() < chunk.len() {
            let missing = || chunk.iter().filter(|at| !arrived.contains_key(at)).count();
            let packet = take(&self.ends.server.1).unwrap_or_else(|| panic!("{} never arrived", missing()));
            let Some(taken) = datagram(&packet).filter(|taken| PORTS.contains(&taken.dport)) else { continue };
            let at = speaker(&taken.payload);
            let flow = &mut self.flows[at];
            assert_eq!(taken.payload, words(at, flow.sent, false), "other bytes");
            assert_eq!((taken.family, taken.dport), (flow.family, flow.ports.1));
            let outside = *flow.outside.get_or_insert(taken.sport);
            assert_eq!(taken.sport, outside, "flow {at} has lost its mapping after {:?}", self.counts);
            arrived.insert(at, taken);
        }
        let mut answered: HashMap<usize, Taken> = HashMap::new();
        for &at in chunk {
            let taken = &arrived[&at];
            let (server, external) = (self.hosts(taken.family).1, self.world.external()[taken.family].unwrap());
            let ip = Ip::between(server, external);
            let payload = words(at, self.flows[at].sent, true);
            self.ends.server.0.send(&ip.packet(udp(&ip, taken.dport, taken.sport, &payload)), None).unwrap();
        }
        while answered.len() < chunk.len() {
            let packet = take(&self.ends.client.1).unwrap_or_else(|| panic!("an answer never arrived"));
            let Some(taken) = datagram(&packet).filter(|taken| PORTS.contains(&taken.sport)) else { continue };
            let at = speaker(&taken.payload);
            let flow = &self.flows[at];
            assert_eq!(taken.payload, words(at, flow.sent, true), "other bytes");
            assert_eq!((taken.dport, taken.sport), flow.ports, "it came to somebody else");
            answered.insert(at, taken);
        }
        self.counts.exchanged += chunk.len() as u64;
        for &at in chunk {
            if self.chance(64) {
                self.complain_from_outside(at, &arrived[&at]);
            }
            if self.chance(64) {
                self.complain_from_inside(at, &answered[&at]);
            }
        }
    }

    fn complaint(&mut self) -> Complaint {
        match self.random.next_u16() % 4 {
            0 => Complaint::TimeExceeded,
            1 => Complaint::HostUnreachable,
            2 => Complaint::TooBig { mtu: 1400 },
            _ => Complaint::Prohibited,
        }
    }

    /// The server complains about a datagram as it has it; the client gets that about the one that it sent.
    fn complain_from_outside(&mut self, at: usize, about: &Taken) {
        let complaint = self.complaint();
        let from = Addr::from(self.hosts(about.family).1);
        let view = Packet::parse(&about.packet, about.packet.len()).unwrap();
        let error = complain(&view, complaint, from, 7).unwrap();
        self.ends.server.0.send(&error, None).unwrap();
        let (client, server) = self.hosts(about.family);
        let quote = quote_of(&self.ends.client.1, complaint);
        assert_eq!((quote.0, quote.1), (client, server), "addresses in the quote");
        assert_eq!((quote.2, quote.3), self.flows[at].ports, "ports in the quote");
        assert!(about.payload.starts_with(&quote.4), "the quote has other bytes");
        self.counts.errors += 1;
    }

    /// The client complains about an answer.
    fn complain_from_inside(&mut self, at: usize, about: &Taken) {
        let complaint = self.complaint();
        let (client, server) = self.hosts(about.family);
        let view = Packet::parse(&about.packet, about.packet.len()).unwrap();
        let error = complain(&view, complaint, Addr::from(client), 7).unwrap();
        self.ends.client.0.send(&error, None).unwrap();
        let external = self.world.external()[about.family].unwrap();
        let quote = quote_of(&self.ends.server.1, complaint);
        assert_eq!((quote.0, quote.1), (server, external), "addresses in the quote");
        assert_eq!((quote.2, Some(quote.3)), (self.flows[at].ports.1, self.flows[at].outside), "ports in the quote");
        assert!(about.payload.starts_with(&quote.4), "the quote has other bytes");
        self.counts.errors += 1;
    }

    /// Bytes over a connection and back. One that broke is made anew.
    fn stream(&mut self) {
        let to = SocketAddr::new(self.world.server()[0].unwrap(), 7000);
        for _ in 0..3 {
            if self.stream.is_none() {
                let connect = || TcpStream::connect_timeout(&to, PATIENCE);
                let Ok(stream) = self.world.lab().in_node("client", connect).unwrap() else { continue };
                let (mut far, _) = self.listener.accept().unwrap();
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(length @ 1..) = far.read(&mut bytes) {
                        if far.write_all(&bytes[..length]).is_err() {
                            break;
                        }
                    }
                });
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                self.stream = Some(stream);
                self.counts.connections += 1;
            }
            let sent: Vec<u8> = (0..3000).map(|_| self.random.next_u16() as u8).collect();
            let mut back = vec![0; sent.len()];
            let stream = self.stream.as_mut().unwrap();
            match stream.write_all(&sent).and_then(|()| stream.read_exact(&mut back)) {
                Ok(()) => {
                    assert!(back == sent, "other bytes came back");
                    return;
                }
                Err(_) => self.stream = None,
            }
        }
        panic!("no connection");
    }

    /// A link goes down and comes up again; or the NAT ends, or is killed, and is started again.
    fn disturb(&mut self, which: u16) {
        self.counts.disturbances += 1;
        match which % 4 {
            0 => {
                let gateways = self.world.gateway();
                let client = self.world.client();
                let (node, interface) = self.world.inside();
                self.bounce(node, interface, client, gateways);
            }
            1 => {
                let gateways = ["192.0.2.1", "2001:db8:2::1"].map(|gateway| gateway.parse().ok());
                self.bounce("server", "eth0", self.world.server(), gateways);
            }
            other => {
                if other == 2 {
                    self.world.kill().unwrap();
                }
                self.world.restart().unwrap();
                // What it had is gone. Nobody tells the clients.
                self.flows.iter_mut().for_each(|flow| flow.outside = None);
            }
        }
        self.ends = open(&self.world);
    }

    fn bounce(&self, node: &str, interface: &str, addresses: [Option<IpAddr>; 2], gateways: [Option<IpAddr>; 2]) {
        let mut lines = format!("link set {interface} down\nlink set {interface} up\n");
        for (address, gateway) in addresses.into_iter().zip(gateways) {
            let (address, gateway) = (address.unwrap(), gateway.map_or(String::new(), |ip| format!("via {ip} ")));
            let (length, any) = if address.is_ipv4() { (24, "0.0.0.0/0") } else { (64, "::/0") };
            lines += &format!("address replace {address}/{length} dev {interface} nodad\n");
            lines += &format!("route replace {any} {gateway}dev {interface}\n");
        }
        program::run(self.world.lab().command(node, "ip").unwrap().args(["-batch", "-"]), &lines).unwrap();
        for server in self.world.server().into_iter().flatten() {
            let mut ping = self.world.lab().command("client", "ping").unwrap();
            program::run(ping.args(["-c1", "-w20", &server.to_string()]), "").unwrap();
        }
    }

    /// A client begins anew with another port.
    fn move_on(&mut self, at: usize) {
        // Both families use half of the flows, so that the ports of the others are above.
        let spare = 10_000 + (self.flows.len() / 2) as u16 + (self.random.next_u16() % 20_000);
        let taken = self.flows.iter().any(|flow| flow.ports.0 == spare);
        if !taken {
            let flow = &mut self.flows[at];
            (flow.ports.0, flow.outside) = (spare, None);
            self.counts.moved += 1;
        }
    }

    /// Bytes that the NAT holds.
    fn memory(&self) -> usize {
        let pid = self.world.pid().unwrap();
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    /// The NAT's table has every flow, as it was used.
    fn check_table(&self) {
        let mut status = self.world.lab().command("nat", env!("CARGO_BIN_EXE_ctwhy")).unwrap();
        let table = program::run(status.args(["nat", "status"]), "").unwrap();
        let mut bindings: HashMap<(usize, u16, u16), u16> = HashMap::new();
        for line in table.lines().filter(|line| line.contains(" udp ")) {
            let port = |name: &str, nth: usize| {
                let found = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name)).nth(nth);
                found.unwrap().parse::<u16>().unwrap()
            };
            let family = usize::from(line.starts_with("ipv6"));
            bindings.insert((family, port("sport=", 0), port("dport=", 0)), port("dport=", 1));
        }
        for (at, flow) in self.flows.iter().enumerate() {
            let found = bindings.get(&(flow.family, flow.ports.0, flow.ports.1)).copied();
            assert_eq!(found, flow.outside, "flow {at}");
        }
    }

    /// Datagrams of flows that never were, from the network of the client.
    fn flood(&mut self, count: usize, limit: usize) {
        let server = self.hosts(0).1;
        let before = self.memory();
        let sample: Vec<usize> = (0..self.flows.len()).step_by(self.flows.len().div_ceil(CHUNK)).collect();
        let mut received = self.world.lab().in_node("server", || Received::open("eth0")).unwrap();
        let mut lost = 0;
        for block in 0..count / BLOCK {
            let (before, lost_before) = (received.packets(), lost);
            for number in 0..BLOCK {
                let all = block * BLOCK + number;
                let ip = Ip::between(IpAddr::from([192, 168, 1, 3 + (all / 60_000 % 250) as u8]), server);
                // Neither queues without end nor a pause: no more than a burst is under way.
                let _ = self.ends.client.0.send(&ip.packet(udp(&ip, (all % 60_000) as u16 + 1024, 9, b"flood")), None);
                if number % BURST == BURST - 1 {
                    let wanted = (number + 1 - BURST) as u64 + before + lost_before;
                    let deadline = Instant::now() + Duration::from_millis(100);
                    while received.packets() + lost < wanted && Instant::now() < deadline {
                        std::thread::yield_now();
                    }
                    lost += wanted.saturating_sub(received.packets() + lost);
                }
            }
            self.drain();
            self.exchange(&sample);
        }
        assert!(lost * 50 < count as u64, "{lost} of {count} datagrams of the flood never arrived");
        let more = self.memory().saturating_sub(before);
        assert!(
            more < (limit << 10) + (32 << 20),
            "{more} bytes more because of a flood, with {limit} entries at most"
        );
        if self.world.nat() == Nat::NatQueue {
            let count = || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
            assert_eq!(self.world.lab().in_node("nat", count).unwrap().trim(), "0", "the kernel tracks none of it");
        }
    }

    /// Waits until what was sent has gone through: an echo goes behind it. One may find the queue full.
    fn drain(&mut self) {
        let server = self.world.server()[0].unwrap().to_string();
        let mut ping = self.world.lab().command("client", "ping").unwrap();
        program::run(ping.args(["-c1", "-i0.2", "-w30", &server]), "").unwrap();
        // Those here are full of it.
        self.ends = open(&self.world);
    }
}

/// Addresses, ports and the beginning of the data of the datagram in the next error.
fn quote_of(wire: &Wire, complaint: Complaint) -> (IpAddr, IpAddr, u16, u16, Vec<u8>) {
    loop {
        let packet = take(wire).expect("an error that never arrived");
        let view = Packet::parse(&packet, packet.len()).unwrap();
        let Some(transport) = view.transport.ok().filter(|of| [proto::ICMP, proto::ICMPV6].contains(&of.protonum))
        else {
            continue;
        };
        let message = &view.bytes[transport.offset..];
        let (kind, code) = complaint.kind(view.l3num);
        if (message[0], message[1]) != (kind, code) {
            continue;
        }
        let quote = &message[8..];
        let (src, dst, l4) = match view.l3num {
            L3::V4 => {
                let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&quote[at..at + 4]).unwrap());
                (ip(12), ip(16), &quote[20..])
            }
            L3::V6 => {
                let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&quote[at..at + 16]).unwrap());
                (ip(8), ip(24), &quote[40..])
            }
        };
        return (src, dst, be16(l4, 0).unwrap(), be16(l4, 2).unwrap(), l4[8..].to_vec());
    }
}

fn soak(nat: Nat) {
    let plan = Plan::of_environment();
    let mut soak = Soak::start(nat, &plan);
    let started = Instant::now();
    let order: Vec<usize> = (0..plan.flows).collect();
    let chunks: Vec<&[usize]> = order.chunks(CHUNK).collect();
    // Each kind of disturbance comes once in a fifth of the time, and not at all in the last one.
    let (mut pass, mut disturbed, mut warm, mut last) = (0u32, 0, None, started);
    loop {
        let before = disturbed;
        for chunk in &chunks {
            soak.exchange(chunk);
            let at = chunk[usize::from(soak.random.next_u16()) % chunk.len()];
            if disturbed < 16 {
                soak.move_on(at);
            }
            let due = (started.elapsed().as_secs_f64() / plan.time.as_secs_f64() * 5.0 * 4.0) as u16;
            if disturbed < due.min(16) {
                soak.disturb(disturbed);
                disturbed += 1;
                last = Instant::now();
            }
        }
        soak.stream();
        pass += 1;
        if disturbed != before {
            continue;
        }
        if warm.is_some() && started.elapsed() >= plan.time && disturbed == 16 && last.elapsed() > STREAM {
            break;
        }
        // It has every flow now. What it takes from here on is too much.
        warm.get_or_insert_with(|| soak.memory());
    }
    // Once more, so that every flow has its mapping, and is a stream that no flood ends.
    chunks.iter().for_each(|chunk| soak.exchange(chunk));
    soak.check_table();
    let (warm, end) = (warm.unwrap(), soak.memory());
    assert!(end < warm + warm / 4 + (16 << 20), "{warm} bytes at first, {end} in the end");
    soak.flood(plan.flood, plan.limit);
    chunks.iter().for_each(|chunk| soak.exchange(chunk));
    soak.stream();
    let (status, said) = soak.world.end(SIGINT).unwrap();
    assert!(status.success(), "{said:#?}");
    println!("{nat}: {pass} passes, {:?}, {warm} bytes at first and {end} in the end", soak.counts);
    println!("{}", said.join("\n"));
}

#[test]
fn nat_tun_keeps_what_it_was_given() {
    if testing::require_tun() && testing::require_lab() {
        soak(Nat::NatTun);
    }
}

#[test]
fn nat_queue_keeps_what_it_was_given() {
    if testing::require_lab() {
        soak(Nat::NatQueue);
    }
}
