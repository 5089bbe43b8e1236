//! The kernel under test: a router in a namespace that says of every packet what conntrack called it.
//!
//! Both ends of every cable are in the same namespace, so that the mark of a packet stays with it all the way. The
//! sender gives each packet its number as mark; a rule behind conntrack adds what conntrack decided and NFLOG hands the
//! marks over, many at a time; where bytes count, what leaves is taken off the far ends, again with its mark. One CPU
//! does all of that in order. Behind each window of packets goes a marker; when it is back, so is everything before it,
//! and what is still missing did not get there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ctwhy_core::direction::CtInfo;
use ctwhy_fixture::case::Spec;
use ctwhy_linux::burst::{Catcher, Marked, Sender, interface_index};
use ctwhy_linux::ctnetlink::{self, Entry};
use ctwhy_linux::lab::{End, Lab, Topology};
use ctwhy_linux::nflog::{MarkEvent, Marks};
use ctwhy_linux::signal::wait_readable;
use ctwhy_linux::wire::HardwareAddress;
use ctwhy_linux::{program, sysctl};

use super::window::{ETHERNET, Port, Window};
use crate::compose::{Body, Ip};
use crate::record::{RecordError, box_node, stay_on_this_cpu};

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
const QUIET: [(&str, &str); 2] =
    [("net.netfilter.nf_conntrack_events", "0"), ("net.netfilter.nf_conntrack_log_invalid", "0")];

/// What the box is told besides what the recorder tells it: nothing of its own leaves, not even an error.
fn ruleset() -> String {
    let (marker, ..) = MARKER;
    let mut text = format!(
        "table inet ctwhy {{\n\
         chain markers {{ type filter hook prerouting priority -300; ip saddr {marker} notrack; }}\n\
         chain silence {{ type filter hook output priority -450; drop; }}\n\
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
    pub(crate) fn build(spec: &Spec) -> Result<Device, RecordError> {
        let node = QUIET.iter().fold(box_node(BOX, spec), |node, (name, value)| node.sysctl(name, value));
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
        let silent: String = Port::BOTH.iter().map(|port| format!("link set {} arp off\n", port.name())).collect();
        run("ip", &silent, &["-batch", "-"]).map_err(RecordError::kernel("silencing the interfaces of the box"))?;
        run("nft", &ruleset(), &["-f", "-"]).map_err(RecordError::kernel("loading the observing rules"))?;
        let address = |port: Port| lab.wire(BOX, port.name()).map(|wire| wire.hardware_address());
        let addresses = Port::BOTH.map(address);
        let [Ok(lan), Ok(wan)] = addresses else {
            let error = addresses.into_iter().find_map(Result::err);
            let error = error.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound));
            return Err(RecordError::kernel("opening the interfaces of the box")(error));
        };
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
            })
        };
        open().map_err(RecordError::kernel("listening to the box"))
    }

    /// Empties the table and sets the settings of conntrack.
    pub(crate) fn begin(&mut self, sysctls: &BTreeMap<String, String>) -> Result<(), RecordError> {
        ctnetlink::flush().map_err(RecordError::kernel("emptying the table"))?;
        for (name, value) in sysctls {
            if self.sysctls.get(name) != Some(value) {
                sysctl::write(name, value).map_err(RecordError::kernel("setting up conntrack"))?;
                self.sysctls.insert(name.clone(), value.clone());
            }
        }
        Ok(())
    }

    /// The whole table.
    pub(crate) fn table(&self) -> Result<Vec<Entry>, RecordError> {
        ctnetlink::dump().map_err(RecordError::kernel("reading the table"))
    }

    /// Sends the packets of a window and waits for what becomes of them.
    pub(crate) fn run(&mut self, window: &Window, seen: &mut Seen) -> Result<(), RecordError> {
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn << (PLACE_BITS + CODE_BITS);
        let mark = |place: usize| turn | (place as u32 + 1) << CODE_BITS;
        seen.ctinfo.clear();
        seen.ctinfo.resize(window.items.len(), None);
        seen.left.clear();
        seen.bytes.clear();
        let mut back = [false, self.catchers.is_empty()];
        let mut frames = Vec::with_capacity(BATCH);
        for (batch, first) in window.items.chunks(BATCH).zip((0..).step_by(BATCH)) {
            frames.clear();
            frames.extend(batch.iter().zip(first..).map(|(item, place)| Marked {
                mark: mark(place),
                interface: self.far[item.port.index()],
                bytes: window.get(&item.frame),
            }));
            self.sender.send(&frames).map_err(RecordError::kernel("sending packets into the box"))?;
            self.read(turn, window.items.len(), seen, &mut back)?;
        }
        let place = window.items.len();
        let marker = Marked { mark: mark(place), interface: self.far[Port::Lan.index()], bytes: &self.marker };
        self.sender.send(&[marker]).map_err(RecordError::kernel("sending a marker"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read(turn, place, seen, &mut back)?;
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
    fn read(&mut self, turn: u32, marker: usize, seen: &mut Seen, back: &mut [bool; 2]) -> Result<(), RecordError> {
        let place = |mark: u32| {
            let of_this_turn = mark >> (PLACE_BITS + CODE_BITS) == turn >> (PLACE_BITS + CODE_BITS);
            let place = (mark >> CODE_BITS & ((1 << PLACE_BITS) - 1)) as usize;
            if of_this_turn { place.checked_sub(1) } else { None }
        };
        while let Some(event) = self.marks.recv().map_err(RecordError::kernel("reading the log of the box"))? {
            let MarkEvent::Mark(mark) = event else { return Err(RecordError::Lost("logged marks")) };
            let code = (mark & ((1 << CODE_BITS) - 1)) as usize;
            match (place(mark), code.checked_sub(1).and_then(|code| CODES.get(code))) {
                (Some(place), None) if place == marker => back[0] = true,
                (Some(place), Some((ctinfo, _))) => match seen.ctinfo.get_mut(place) {
                    Some(slot @ None) => *slot = Some(*ctinfo),
                    _ => return Err(RecordError::Confused { seen: format!("mark {mark:#x} twice or out of place") }),
                },
                _ => return Err(RecordError::Confused { seen: format!("mark {mark:#x}") }),
            }
        }
        for (port, catcher) in &mut self.catchers {
            let Seen { left, bytes, .. } = &mut *seen;
            let mut take = |mark: u32, frame: &[u8]| match place(mark) {
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
