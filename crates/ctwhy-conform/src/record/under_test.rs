//! The box that a case describes, built in a lab, with the recorder at the far end of every cable.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ctwhy_fixture::case::{BoxInterface, Case, Spec};
use ctwhy_linux::ctnetlink::Events;
use ctwhy_linux::lab::{End, Lab, Node, Topology};
use ctwhy_linux::nflog::{LogEvent, Logged, Nflog};
use ctwhy_linux::program;
use ctwhy_linux::queue::{NfqQueue, PacketQueue as _, QueueConfig, Verdict};
use ctwhy_linux::signal::wait_readable;
use ctwhy_linux::wire::{Injector, Way, Wire};

use super::observe::{self, Log, Observed, Sent};
use super::{RecordError, event_line};

/// The node under test.
const BOX: &str = "box";
/// The node that has the far ends.
const FAR: &str = "far";
/// Where markers go in and come out.
pub(super) const BARRIER: &str = "ctwhy-barrier";
/// The box's address on it, in a network of RFC 2544 that no case uses.
const BARRIER_ADDRESS: &str = "198.18.255.249/29";
/// The queue that packets are held in.
const QUEUE: u16 = 1;
/// How long a marker may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Receive buffers, in bytes.
const BUFFER: usize = 8 << 20;

/// What every box is set to: it routes both families, answers each packet with each error that it deserves, says
/// nothing of its own accord, and logs why a packet is INVALID.
const SETTINGS: [(&str, &str); 12] = [
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv6.conf.default.forwarding", "1"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv6.auto_flowlabels", "0"),
    ("net.netfilter.nf_conntrack_events", "1"),
    ("net.netfilter.nf_conntrack_log_invalid", "255"),
    ("net.netfilter.nf_log.2", "nfnetlink_log"),
    ("net.netfilter.nf_log.10", "nfnetlink_log"),
];

/// The box and all that is plugged into it.
pub(super) struct UnderTest {
    lab: Lab,
    log: Nflog,
    invalid: Nflog,
    events: Events,
    injectors: BTreeMap<String, Injector>,
    wires: BTreeMap<String, Wire>,
    barrier: (Injector, Wire),
    /// Where packets wait, in a case that holds some.
    queue: Option<NfqQueue>,
    /// The packets of the case that wait, and their ids in the queue.
    held: BTreeMap<u64, u32>,
}

impl UnderTest {
    /// Builds the box.
    pub(super) fn build(case: &Case) -> Result<UnderTest, RecordError> {
        let lab = Lab::create(topology(case)).map_err(RecordError::kernel("building the box"))?;
        let spec = &case.spec;
        let interfaces: Vec<&str> = spec.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        // Nobody answers for the neighbours, so nobody is asked.
        let silent: String =
            interfaces.iter().chain([&BARRIER]).map(|name| format!("link set {name} arp off\n")).collect();
        let run = |program: &str, input: &str, arguments: &[&str]| -> io::Result<()> {
            program::run(lab.command(BOX, program)?.args(arguments), input).map(drop)
        };
        let mtus: String = spec
            .interfaces
            .iter()
            .filter_map(|interface| Some(format!("link set {} mtu {}\n", interface.name, interface.mtu?)))
            .collect();
        let silent = silent + &mtus;
        run("ip", &silent, &["-batch", "-"]).map_err(RecordError::kernel("silencing the interfaces of the box"))?;
        let listen = || -> io::Result<_> {
            let (log, invalid) = (Nflog::open(observe::GROUP, BUFFER)?, Nflog::open(observe::INVALID_GROUP, BUFFER)?);
            Ok((log, invalid, Events::open(BUFFER)?))
        };
        let (log, invalid, events) =
            lab.in_node(BOX, listen).and_then(|opened| opened).map_err(RecordError::kernel("listening to the box"))?;
        run("nft", &observe::ruleset(), &["-f", "-"]).map_err(RecordError::kernel("loading the observing rules"))?;

        let open = |name: &str| -> Result<(Injector, Wire), RecordError> {
            let both = lab.injector(BOX, name).and_then(|injector| Ok((injector, lab.wire(FAR, name)?)));
            both.map_err(RecordError::kernel(format!("opening the far end of {name}")))
        };
        let mut injectors = BTreeMap::new();
        let mut wires = BTreeMap::new();
        for name in interfaces {
            let (injector, wire) = open(name)?;
            injectors.insert(name.to_owned(), injector);
            wires.insert(name.to_owned(), wire);
        }
        let barrier = open(BARRIER)?;
        let queue = if spec.holds.is_empty() { None } else { Some(open_queue(&lab)?) };
        let under_test =
            UnderTest { lab, log, invalid, events, injectors, wires, barrier, queue, held: BTreeMap::new() };
        wait_for_addresses(&under_test.lab, BOX, spec)?;
        Ok(under_test)
    }

    /// Puts an IP packet on the cable of an interface.
    pub(super) fn inject(&self, interface: &str, packet: &[u8]) -> Result<(), RecordError> {
        let doing = || format!("putting a packet on {interface}");
        let injector = self.injectors.get(interface).ok_or_else(|| {
            RecordError::kernel(doing())(io::Error::new(io::ErrorKind::NotFound, "the box has no such interface"))
        })?;
        injector.inject(packet).map_err(RecordError::kernel(doing()))
    }

    /// Leaves packet `number` in the queue, or lets it go on at once.
    pub(super) fn hold(&mut self, number: u64, held: bool) -> Result<(), RecordError> {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        let waiting = queue.recv().map_err(RecordError::kernel("reading the queue of the box"))?;
        match waiting {
            Some(packet) if held => drop(self.held.insert(number, packet.id)),
            Some(packet) => self.let_go(packet.id, number)?,
            None if held => return Err(RecordError::NotHeld { packet: number }),
            None => {}
        }
        Ok(())
    }

    /// Lets a packet go on that was held.
    pub(super) fn release(&mut self, number: u64) -> Result<(), RecordError> {
        let id = self.held.remove(&number).ok_or(RecordError::NotHeld { packet: number })?;
        self.let_go(id, number)
    }

    fn let_go(&mut self, id: u32, number: u64) -> Result<(), RecordError> {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        queue.verdict(id, Verdict::ACCEPT).map_err(RecordError::kernel("letting a packet go on"))?;
        self.settle(number)
    }

    /// Sends a marker behind a packet and waits until it is back.
    pub(super) fn settle(&self, number: u64) -> Result<(), RecordError> {
        let (injector, wire) = &self.barrier;
        injector.inject(&observe::marker(number)).map_err(RecordError::kernel("sending a marker"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(frame) = wire.recv().map_err(RecordError::kernel("waiting for a marker"))? {
                if frame.way == Way::In && observe::marked(frame.payload()) == Some(number) {
                    return Ok(());
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RecordError::Stuck { packet: number });
            }
            wait_readable(&[std::os::fd::AsFd::as_fd(wire)], Some(left))
                .map_err(RecordError::kernel("waiting for a marker"))?;
        }
    }

    /// All that was seen since the last call.
    pub(super) fn drain(&mut self) -> Result<Observed, RecordError> {
        let log = all(&mut self.log)?.iter().map(Log::read).collect::<Result<_, _>>()?;
        let invalid = all(&mut self.invalid)?;
        let mut sent = Vec::new();
        for (name, wire) in &self.wires {
            while let Some(frame) = wire.recv().map_err(RecordError::kernel("taking packets off the wire"))? {
                if frame.way == Way::In && matches!(frame.hw_protocol, 0x0800 | 0x86dd) {
                    sent.push(Sent { interface: name.clone(), time: frame.time, bytes: frame.payload().to_vec() });
                }
            }
        }
        sent.sort_by_key(|sent| sent.time);
        observe::sort_out(log, &invalid, sent)
    }

    /// The events since the box was built.
    pub(super) fn events(&mut self) -> Result<Vec<String>, RecordError> {
        let mut lines = Vec::new();
        while let Some(event) = self.events.recv().map_err(RecordError::kernel("reading the events of the box"))? {
            lines.push(event_line(event)?);
        }
        Ok(lines)
    }

    /// Asks the kernel something inside the box.
    pub(super) fn in_box<T: Send>(&self, ask: impl FnOnce() -> io::Result<T> + Send) -> Result<T, RecordError> {
        let answer = self.lab.in_node(BOX, ask).and_then(|answer| answer);
        answer.map_err(RecordError::kernel("asking the box"))
    }
}

/// The kernel makes an IPv6 address its own a moment after it was asked to, and forwards packets to it until then. An
/// interface with a smaller MTU than IPv6 wants has none.
pub(crate) fn wait_for_addresses(lab: &Lab, node: &str, spec: &Spec) -> Result<(), RecordError> {
    const IPV6_MIN_MTU: u32 = 1280;
    let speaks = |interface: &&BoxInterface| interface.mtu.is_none_or(|mtu| mtu >= IPV6_MIN_MTU);
    let addresses = spec.interfaces.iter().filter(speaks).flat_map(|interface| &interface.addresses);
    let own = addresses.filter_map(|own| match own.address() {
        IpAddr::V6(own) => Some(format!("{:032x} 80 ", own.to_bits())),
        IpAddr::V4(_) => None,
    });
    let own: Vec<String> = own.collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let routes = lab.in_node(node, || std::fs::read_to_string("/proc/thread-self/net/ipv6_route"));
        let routes = routes.and_then(|routes| routes).map_err(RecordError::kernel("asking the box"))?;
        if own.iter().all(|own| routes.lines().any(|route| route.starts_with(own))) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(RecordError::Stuck { packet: 0 });
        }
        std::thread::yield_now();
    }
}

/// All that was logged since the last call.
fn all(log: &mut Nflog) -> Result<Vec<Logged>, RecordError> {
    let mut packets = Vec::new();
    while let Some(event) = log.recv().map_err(RecordError::kernel("reading the log of the box"))? {
        let LogEvent::Packet(logged) = event else { return Err(RecordError::Lost("logged packets")) };
        packets.push(logged);
    }
    Ok(packets)
}

/// The queue in FORWARD, and the rules that lead every packet there. Those that nothing holds are let go at once.
fn open_queue(lab: &Lab) -> Result<NfqQueue, RecordError> {
    let opened = lab.in_node(BOX, || NfqQueue::open(&QueueConfig::new(QUEUE))).and_then(|opened| opened);
    let mut queue = opened.map_err(RecordError::kernel("opening the queue of the box"))?;
    queue.set_blocking(false);
    let number = QUEUE.to_string();
    for program in ["iptables", "ip6tables"] {
        let rule = ["-t", "mangle", "-A", "FORWARD", "!", "-i", BARRIER, "-j", "NFQUEUE", "--queue-num", &number];
        lab.command(BOX, program)
            .and_then(|mut command| program::run(command.args(rule), ""))
            .map_err(RecordError::kernel("leading packets into the queue of the box"))?;
    }
    Ok(queue)
}

/// The node that a case describes, without its interfaces.
pub(crate) fn box_node(name: &str, spec: &Spec) -> Node {
    let mut under_test =
        Node::host(name).rules(spec.rules.as_deref().unwrap_or_default(), spec.rules6.as_deref().unwrap_or_default());
    for (name, value) in SETTINGS {
        under_test = under_test.sysctl(name, value);
    }
    for (name, value) in &spec.sysctls {
        under_test = under_test.sysctl(name, value);
    }
    for route in &spec.routes {
        let mut text = route.to.to_string();
        if let Some(via) = route.via {
            let _ = write!(text, " via {via}");
        }
        let _ = write!(text, " dev {}", route.dev);
        under_test = under_test.route(&text);
    }
    under_test
}

fn topology(case: &Case) -> Topology {
    let spec = &case.spec;
    let under_test = box_node(BOX, spec);
    let far =
        Node::host(FAR).sysctl("net.ipv6.conf.all.disable_ipv6", "1").sysctl("net.ipv6.conf.default.disable_ipv6", "1");
    let end = |node: &str, interface: &str, addresses| End {
        node: node.to_owned(),
        interface: interface.to_owned(),
        addresses,
    };
    let mut topology = Topology::default().node(under_test).node(far);
    for interface in &spec.interfaces {
        let addresses = interface.addresses.iter().map(|own| (own.address(), own.length())).collect();
        topology = topology.link(end(BOX, &interface.name, addresses), end(FAR, &interface.name, Vec::new()));
    }
    let address = End::new(BOX, BARRIER, &[BARRIER_ADDRESS]).unwrap_or_else(|_| end(BOX, BARRIER, Vec::new()));
    topology.link(address, end(FAR, BARRIER, Vec::new()))
}
