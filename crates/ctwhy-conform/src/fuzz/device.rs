//! The kernel under test: a router in a namespace that says of every packet what conntrack called it.
//!
//! Both ends of every cable are in the same namespace, so that the mark of a packet stays with it all the way. The
//! sender gives each packet its number as mark; a rule behind conntrack adds what conntrack decided and NFLOG hands the
//! marks over, many at a time; where bytes count, what leaves is taken off the far ends, again with its mark. One CPU
//! does all of that in order. Behind each window of packets goes a marker; when it is back, so is everything before it,
//! and what is still missing did not get there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ctwhy_core::direction::CtInfo;
use ctwhy_core::packet::Packet;
use ctwhy_core::tuple::{L3, Tuple};
use ctwhy_fixture::case::{BoxInterface, Spec};
use ctwhy_linux::burst::{Catcher, Marked, Sender, interface_index};
use ctwhy_linux::ctnetlink::{self, Entry, L4};
use ctwhy_linux::lab::{End, Lab, Topology};
use ctwhy_linux::nflog::{MarkEvent, Marks};
use ctwhy_linux::signal::wait_readable;
use ctwhy_linux::wire::HardwareAddress;
use ctwhy_linux::{program, sysctl};

use super::episode::UNLIMITED;
use super::window::{ETHERNET, Name, Port, Window};
use crate::compose::{Body, Ip, Piece};
use crate::record::{RecordError, box_node, stay_on_this_cpu, wait_for_addresses};
use crate::table;

/// The node under test.
const BOX: &str = "box";
/// The NFLOG group of the rules.
const GROUP: u16 = 5;
/// Receive buffer in bytes.
const BUFFER: usize = 8 << 20;
/// Packets that are sent before what came of them is read.
const BATCH: usize = 96;
/// How long a marker may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// The protocol and the addresses of markers, which no generator uses.
const MARKER: (&str, &str, u8) = ("198.18.255.250", "198.18.255.251", 253);

/// The bits of a mark that tell what conntrack decided; those above are the packet's number.
const CODE_BITS: u32 = 3;
/// Codes by their number, from 1.
const CODES: [(CtInfo, &str); 7] = [
    (CtInfo::New, "ct direction original ct state new"),
    (CtInfo::Established, "ct direction original ct state established"),
    (CtInfo::EstablishedReply, "ct direction reply ct state established"),
    (CtInfo::Invalid, "ct state invalid"),
    (CtInfo::Related, "ct direction original ct state related"),
    (CtInfo::RelatedReply, "ct direction reply ct state related"),
    (CtInfo::Untracked, "ct state untracked"),
];
/// Behind this many bits of a number comes that of the window, so that a straggler is not taken for another packet.
const PLACE_BITS: u32 = 12;
const _: () = assert!(Window::MOST < (1 << PLACE_BITS) - 1);

/// What costs time and is not looked at.
///
/// Nor does it believe errors about the MTU: one below `route.min_pmtu` is remembered for its destination, and then what
/// is forwarded there leaves in fragments.
const QUIET: [(&str, &str); 3] = [
    ("net.netfilter.nf_conntrack_events", "0"),
    ("net.netfilter.nf_conntrack_log_invalid", "0"),
    ("net.ipv4.ip_no_pmtu_disc", "3"),
];

/// What lets a box speak so that it can be understood: what it says has the mark of the packet that it is about, and
/// nothing is left to chance that need not be. Redirects tell hosts of one cable that there is a shorter way.
const SPEAKING: [(&str, &str); 5] = [
    ("net.ipv4.fwmark_reflect", "1"),
    ("net.ipv6.fwmark_reflect", "1"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv6.auto_flowlabels", "0"),
];

/// What the box is told besides what the recorder tells it. Unless it `speaks` nothing of its own leaves, not even an error.
fn ruleset(speaks: bool) -> String {
    let (marker, ..) = MARKER;
    let silence = if speaks { "" } else { "chain silence { type filter hook output priority -450; drop; }\n" };
    let mut text = format!(
        "table inet ctwhy {{\n\
         chain markers {{ type filter hook prerouting priority -300; ip saddr {marker} notrack; }}\n\
         {silence}\
         chain tell {{ log group {GROUP}; }}\n\
         chain prerouting {{ type filter hook prerouting priority -140;\n\
         iifname != {{ \"{}\", \"{}\" }} accept\n\
         ip saddr {marker} log group {GROUP} queue-threshold 1 accept\n",
        Port::Lan.name(),
        Port::Wan.name()
    );
    for ((_, matches), code) in CODES.iter().zip(1..) {
        // Writing into a string does not fail.
        let _ = writeln!(text, "{matches} meta mark set meta mark | {code} goto tell");
    }
    text + "}\n}\n"
}

/// The far end of the cable of an interface.
fn far(port: Port) -> String {
    format!("{}-far", port.name())
}

/// A box in a lab.
pub(crate) struct Device {
    lab: Lab,
    addresses: [HardwareAddress; 2],
}

impl Device {
    /// Builds the box of a case.
    pub(crate) fn build(spec: &Spec, speaks: bool) -> Result<Device, RecordError> {
        let speaking = SPEAKING.iter().chain(&UNLIMITED).filter(|_| speaks);
        let settings = QUIET.iter().chain(speaking);
        let node = settings.fold(box_node(BOX, spec), |node, (name, value)| node.sysctl(name, value));
        let mut topology = Topology::default().node(node);
        for (interface, port) in spec.interfaces.iter().zip(Port::BOTH) {
            let end =
                |interface: &str, addresses| End { node: BOX.to_owned(), interface: interface.to_owned(), addresses };
            let addresses = interface.addresses.iter().map(|own| (own.address(), own.length())).collect();
            topology = topology.link(end(&interface.name, addresses), end(&far(port), Vec::new()));
        }
        let lab = Lab::create(topology).map_err(RecordError::kernel("building the box"))?;
        let run = |program: &str, input: &str, arguments: &[&str]| -> io::Result<()> {
            program::run(lab.command(BOX, program)?.args(arguments), input).map(drop)
        };
        // Nobody answers for the neighbours, so nobody is asked.
        let mut silent: String = Port::BOTH.iter().map(|port| format!("link set {} arp off\n", port.name())).collect();
        for BoxInterface { name, mtu, .. } in &spec.interfaces {
            silent.extend(mtu.map(|mtu| format!("link set {name} mtu {mtu}\n")));
        }
        run("ip", &silent, &["-batch", "-"]).map_err(RecordError::kernel("silencing the interfaces of the box"))?;
        run("nft", &ruleset(speaks), &["-f", "-"]).map_err(RecordError::kernel("loading the observing rules"))?;
        let address = |port: Port| lab.wire(BOX, port.name()).map(|wire| wire.hardware_address());
        let addresses = Port::BOTH.map(address);
        let [Ok(lan), Ok(wan)] = addresses else {
            let error = addresses.into_iter().find_map(Result::err);
            let error = error.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound));
            return Err(RecordError::kernel("opening the interfaces of the box")(error));
        };
        wait_for_addresses(&lab, BOX, spec)?;
        Ok(Device { lab, addresses: [lan, wan] })
    }

    /// Ethernet addresses of the interfaces, where packets are sent.
    pub(crate) fn addresses(&self) -> [HardwareAddress; 2] {
        self.addresses
    }

    /// Runs `work` in a thread inside the box that stays on one CPU.
    pub(crate) fn enter<T: Send, E: From<RecordError> + Send>(
        &self,
        bytes_count: bool,
        work: impl FnOnce(&mut Kernel) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let run = || {
            stay_on_this_cpu()?;
            work(&mut Kernel::open(self.addresses, bytes_count)?)
        };
        self.lab.in_node(BOX, run).map_err(RecordError::kernel("entering the box"))?
    }
}

/// What the kernel made of the packets of a window.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What conntrack called each packet; `None` when it did not see it.
    pub(crate) ctinfo: Vec<Option<CtInfo>>,
    /// What conntrack called datagrams which the engine did not put together.
    pub(crate) strays: Vec<CtInfo>,
    /// What left, in order: the packet's place, where, and its bytes in `bytes`.
    pub(crate) left: Vec<(usize, Port, std::ops::Range<usize>)>,
    bytes: Vec<u8>,
}

impl Seen {
    pub(crate) fn get(&self, range: &std::ops::Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// Where and how the packet at a place left.
    pub(crate) fn left(&self, place: usize) -> Vec<(Port, Vec<u8>)> {
        let of_packet = self.left.iter().filter(|(of, ..)| *of == place);
        of_packet.map(|(_, port, range)| (*port, self.get(range).to_vec())).collect()
    }
}

/// The kernel of the box, seen from inside.
pub(crate) struct Kernel {
    marks: Marks,
    sender: Sender,
    /// None where only the decision counts.
    catchers: Vec<(Port, Catcher)>,
    far: [u32; 2],
    marker: Vec<u8>,
    /// The settings that were written last.
    sysctls: BTreeMap<String, String>,
    turn: u32,
    /// The first turn of the episode.
    first: u32,
    /// Frames that end the datagrams of which fragments were sent, with the far ends that they go in by.
    enders: BTreeSet<(u32, Vec<u8>)>,
}

/// The bits of a number that tell the turn.
const TURNS: u32 = u32::MAX >> (PLACE_BITS + CODE_BITS);

/// What each packet of a window is known by.
struct Known<'a> {
    window: u32,
    /// The turn of window 0.
    first: u32,
    packets: usize,
    /// Where a datagram was completed, by the fragment that it begins with.
    whole: &'a HashMap<Name, usize>,
}

impl Known<'_> {
    /// The packet with this mark; `None` where there is none.
    fn name(&self, mark: u32) -> Option<Name> {
        let place = (mark >> CODE_BITS & ((1 << PLACE_BITS) - 1)).checked_sub(1)? as usize;
        let window = (mark >> (PLACE_BITS + CODE_BITS)).wrapping_sub(self.first) & TURNS;
        (window <= self.window).then_some(Name { window, place })
    }

    /// The place of what has this mark: in this window a packet, or one that completed a datagram.
    fn place(&self, name: Name) -> Option<usize> {
        let here = || (name.window == self.window && name.place <= self.packets).then_some(name.place);
        self.whole.get(&name).copied().or_else(here)
    }
}

/// For a fragment a frame that ends its datagram, whatever is there of it: for IPv4 an empty one, for IPv6 one that has
/// more to follow but not a multiple of eight bytes.
fn ender(frame: &[u8]) -> Option<Vec<u8>> {
    let (link, bytes) = frame.split_at_checked(ETHERNET)?;
    let packet = Packet::parse(bytes, bytes.len()).ok()?;
    let fragment = packet.fragment?;
    let (src, dst) = (packet.src.ip(packet.l3num), packet.dst.ip(packet.l3num));
    let ip = Ip::between(src, dst);
    let packet = match packet.l3num {
        L3::V4 => Ip { id: fragment.id as u16, fragment: 0x1fff, ..ip }.packet(Body::new(*bytes.get(9)?, [])),
        L3::V6 => Piece { more: true, ..Piece::last(fragment.id, 0..1) }.packet(&ip, &Body::new(253, [0])),
    };
    Some([link, &packet].concat())
}

impl Kernel {
    fn open(addresses: [HardwareAddress; 2], bytes_count: bool) -> Result<Kernel, RecordError> {
        let open = || -> io::Result<Kernel> {
            for port in Port::BOTH {
                sysctl::write(&format!("net/ipv6/conf/{}/disable_ipv6", far(port)), "1")?;
            }
            let catch = |port: Port| Catcher::open(&far(port)).map(|catcher| (port, catcher));
            let ports: &[Port] = if bytes_count { &Port::BOTH } else { &[] };
            let catchers = ports.iter().map(|port| catch(*port)).collect::<io::Result<_>>()?;
            let (from, to, protocol) = MARKER;
            let mut marker = Window::default();
            let packet = Ip::new(from, to).packet(Body::new(protocol, []));
            marker.push(Port::Lan, addresses[Port::Lan.index()], &packet, super::window::Expected::default());
            let marker = marker.items.first().map(|item| marker.get(&item.frame).to_vec()).unwrap_or_default();
            Ok(Kernel {
                marks: Marks::open(GROUP, BUFFER)?,
                sender: Sender::open()?,
                catchers,
                far: [interface_index(&far(Port::Lan))?, interface_index(&far(Port::Wan))?],
                marker,
                sysctls: BTreeMap::new(),
                turn: 0,
                first: 0,
                enders: BTreeSet::new(),
            })
        };
        open().map_err(RecordError::kernel("listening to the box"))
    }

    /// Empties the table and sets the settings of conntrack.
    pub(crate) fn begin(&mut self, sysctls: &BTreeMap<String, String>) -> Result<(), RecordError> {
        self.forget_fragments()?;
        ctnetlink::flush().map_err(RecordError::kernel("emptying the table"))?;
        for (name, value) in sysctls {
            if self.sysctls.get(name) != Some(value) {
                sysctl::write(name, value).map_err(RecordError::kernel("setting up conntrack"))?;
                self.sysctls.insert(name.clone(), value.clone());
            }
        }
        self.first = self.turn.wrapping_add(1);
        Ok(())
    }

    /// Ends all datagrams that are not complete. They outlive the table.
    fn forget_fragments(&mut self) -> Result<(), RecordError> {
        let enders = std::mem::take(&mut self.enders);
        if enders.is_empty() {
            return Ok(());
        }
        for batch in Vec::from_iter(&enders).chunks(BATCH) {
            // Nobody asks what conntrack says about what has no number.
            let frames: Vec<Marked<'_>> =
                batch.iter().map(|(interface, bytes)| Marked { mark: 0, interface: *interface, bytes }).collect();
            self.sender.send(&frames).map_err(RecordError::kernel("ending datagrams of the box"))?;
        }
        self.run(&Window::default(), &mut Seen::default())
    }

    /// The source port or id that a flow has behind NAT, by its original tuple.
    pub(crate) fn delivered_as(&self, original: &Tuple) -> Result<Option<u16>, RecordError> {
        let original = table::side(original, None);
        let found = self.table()?.into_iter().find(|entry| entry.orig == original);
        Ok(found.map(|entry| match entry.reply.l4 {
            L4::Ports { dport, .. } => dport,
            L4::Icmp { id, .. } => id,
            L4::Generic => 0,
        }))
    }

    /// The whole table.
    pub(crate) fn table(&self) -> Result<Vec<Entry>, RecordError> {
        ctnetlink::dump().map_err(RecordError::kernel("reading the table"))
    }

    /// Sends the packets of a window and waits for what becomes of them.
    pub(crate) fn run(&mut self, window: &Window, seen: &mut Seen) -> Result<(), RecordError> {
        self.turn = self.turn.wrapping_add(1) & TURNS;
        let turn = self.turn << (PLACE_BITS + CODE_BITS);
        let mark = |place: usize| turn | (place as u32 + 1) << CODE_BITS;
        seen.ctinfo.clear();
        seen.ctinfo.resize(window.items.len(), None);
        seen.strays.clear();
        seen.left.clear();
        seen.bytes.clear();
        let place = window.items.len();
        let whole =
            window.items.iter().zip(0..).filter_map(|(item, place)| Some((item.expected.first?, place))).collect();
        let first = self.turn.wrapping_sub(window.number);
        let known = Known { window: window.number, first, packets: place, whole: &whole };
        let mut back = [false, self.catchers.is_empty()];
        let mut frames = Vec::with_capacity(BATCH);
        for (batch, first) in window.items.chunks(BATCH).zip((0..).step_by(BATCH)) {
            frames.clear();
            frames.extend(batch.iter().zip(first..).map(|(item, place)| Marked {
                mark: mark(place),
                interface: self.far[item.port.index()],
                bytes: window.get(&item.frame),
            }));
            self.enders.extend(frames.iter().filter_map(|frame| Some((frame.interface, ender(frame.bytes)?))));
            self.sender.send(&frames).map_err(RecordError::kernel("sending packets into the box"))?;
            self.read(&known, seen, &mut back)?;
        }
        let marker = Marked { mark: mark(place), interface: self.far[Port::Lan.index()], bytes: &self.marker };
        self.sender.send(&[marker]).map_err(RecordError::kernel("sending a marker"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read(&known, seen, &mut back)?;
            if back == [true; 2] {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RecordError::Stuck { packet: place as u64 });
            }
            let mut waiting = vec![self.marks.as_fd()];
            waiting.extend(self.catchers.iter().map(|(_, catcher)| catcher.as_fd()));
            wait_readable(&waiting, Some(left)).map_err(RecordError::kernel("waiting for a marker"))?;
        }
    }

    /// Reads what there is. `back` tells where the marker was seen: in the log, at the far end.
    fn read(&mut self, known: &Known<'_>, seen: &mut Seen, back: &mut [bool; 2]) -> Result<(), RecordError> {
        let marker = known.packets;
        while let Some(event) = self.marks.recv().map_err(RecordError::kernel("reading the log of the box"))? {
            let MarkEvent::Mark(mark) = event else { return Err(RecordError::Lost("logged marks")) };
            let confused = |why: &str| RecordError::Confused { seen: format!("mark {mark:#x}{why}") };
            let code = (mark & ((1 << CODE_BITS) - 1)) as usize;
            let code = code.checked_sub(1).and_then(|code| CODES.get(code));
            if mark >> CODE_BITS == 0 {
                continue;
            }
            let name = known.name(mark).ok_or_else(|| confused(""))?;
            match (known.place(name), code) {
                (Some(place), None) if place == marker => back[0] = true,
                (Some(place), Some((ctinfo, _))) => match seen.ctinfo.get_mut(place) {
                    Some(slot @ None) => *slot = Some(*ctinfo),
                    _ => return Err(confused(" twice or out of place")),
                },
                (None, Some((ctinfo, _))) => seen.strays.push(*ctinfo),
                (_, None) => return Err(confused("")),
            }
        }
        for (port, catcher) in &mut self.catchers {
            let Seen { left, bytes, .. } = &mut *seen;
            let mut take = |mark: u32, frame: &[u8]| match known.name(mark).and_then(|name| known.place(name)) {
                Some(place) if place == marker => back[1] = true,
                Some(place) => {
                    let start = bytes.len();
                    bytes.extend_from_slice(frame.get(ETHERNET..).unwrap_or_default());
                    left.push((place, *port, start..bytes.len()));
                }
                // What the box says of its own accord, and other protocols.
                None => {}
            };
            catcher.receive(&mut take).map_err(RecordError::kernel("taking packets off the wire"))?;
            if catcher.lost().map_err(RecordError::kernel("taking packets off the wire"))? > 0 {
                return Err(RecordError::Lost("packets that left the box"));
            }
        }
        Ok(())
    }
}
