//! Packets onto the cables of a box and off them, each known by its mark.
//!
//! Both ends of every cable are in the same namespace, so that the mark of a packet stays with it all the way. The sender
//! gives each packet its number as mark; what leaves is taken off the far ends, again with its mark. Behind each window of
//! packets goes a marker; when it is back, so is everything before it, and what is still missing did not get there.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ctwhy_core::direction::CtInfo;
use ctwhy_core::packet::Packet;
use ctwhy_core::tuple::L3;
use ctwhy_linux::burst::{Catcher, Marked, Sender, interface_index};
use ctwhy_linux::nflog::{MarkEvent, Marks};
use ctwhy_linux::queue::StatsReader;
use ctwhy_linux::signal::wait_readable;
use ctwhy_linux::sysctl;
use ctwhy_linux::wire::HardwareAddress;

use super::device::CODES;
use super::window::{ETHERNET, Expected, Item, Name, Port, Window};
use crate::compose::{Body, Ip, Piece};
use crate::record::RecordError;

/// Packets that are sent before what came of them is read.
pub(super) const BATCH: usize = 96;
/// How long a marker may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The protocol and the addresses of markers, which no generator uses.
pub(super) const MARKER: (&str, &str, u8) = ("198.18.255.250", "198.18.255.251", 253);

/// How a mark is divided: below are bits of a code, then the place of the packet in its window, then the number of the
/// window, so that a straggler is not taken for another packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    code_bits: u32,
    turn_bits: u32,
}

impl Layout {
    /// With a code of what conntrack decided.
    pub(crate) const DECIDED: Layout = Layout { code_bits: 3, turn_bits: 17 };
    /// Without, and with the highest bits left to others.
    pub(crate) const SHARED: Layout = Layout { code_bits: 0, turn_bits: 14 };

    const fn turns(self) -> u32 {
        (1 << self.turn_bits) - 1
    }

    const fn mark(self, turn: u32, place: usize) -> u32 {
        (turn << PLACE_BITS | (place as u32 + 1)) << self.code_bits
    }

    const fn code(self, mark: u32) -> usize {
        (mark & ((1 << self.code_bits) - 1)) as usize
    }

    const fn number(self, mark: u32) -> u32 {
        mark >> self.code_bits & ((1 << (PLACE_BITS + self.turn_bits)) - 1)
    }
}

/// Bits for the place of a packet in its window.
const PLACE_BITS: u32 = 12;
const _: () = assert!(Window::MOST < (1 << PLACE_BITS) - 1);

/// The far end of the cable of an interface.
pub(super) fn far(port: Port) -> String {
    format!("{}-far", port.name())
}

/// What the box made of the packets of a window.
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
    /// Nothing yet of so many packets.
    pub(super) fn clear(&mut self, packets: usize) {
        self.ctinfo.clear();
        self.ctinfo.resize(packets, None);
        self.strays.clear();
        self.left.clear();
        self.bytes.clear();
    }

    /// Where nobody says what conntrack decided, it is what was expected.
    pub(super) fn assume(&mut self, window: &Window) {
        self.ctinfo = window.items.iter().map(|item| item.expected.ctinfo).collect();
    }

    /// The packet at this place left, as these bytes.
    pub(super) fn leave(&mut self, place: usize, port: Port, packet: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet);
        self.left.push((place, port, start..self.bytes.len()));
    }

    pub(crate) fn get(&self, range: &std::ops::Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// Where and how the packet at a place left.
    pub(crate) fn left(&self, place: usize) -> Vec<(Port, Vec<u8>)> {
        let of_packet = self.left.iter().filter(|(of, ..)| *of == place);
        of_packet.map(|(_, port, range)| (*port, self.get(range).to_vec())).collect()
    }
}

/// What each packet of a window is known by.
struct Known<'a> {
    layout: Layout,
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
        let number = self.layout.number(mark);
        let place = (number & ((1 << PLACE_BITS) - 1)).checked_sub(1)? as usize;
        let window = (number >> PLACE_BITS).wrapping_sub(self.first) & self.layout.turns();
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

/// The frame of a marker.
pub(super) fn marker(address: HardwareAddress) -> Vec<u8> {
    let (from, to, protocol) = MARKER;
    let mut window = Window::default();
    window.push(Port::Lan, address, &Ip::new(from, to).packet(Body::new(protocol, [])), Expected::default());
    window.items.first().map(|item| window.get(&item.frame).to_vec()).unwrap_or_default()
}

/// Two queues: from the first packets go to the second one, and what the box says because of that to the first.
pub(super) struct Queues {
    stats: StatsReader,
    numbers: [u16; 2],
}

impl Queues {
    /// The queues with these numbers of this namespace.
    pub(super) fn open(numbers: [u16; 2]) -> io::Result<Queues> {
        Ok(Queues { stats: StatsReader::open()?, numbers })
    }

    /// Waits until both are empty. The first is looked at again because of what the second let go.
    fn wait(&mut self) -> Result<(), RecordError> {
        let deadline = Instant::now() + PATIENCE;
        let mut empty = 0;
        while empty < 2 * self.numbers.len() {
            for number in self.numbers {
                let stats = self.stats.read(number).map_err(RecordError::kernel("looking at the queues of the box"))?;
                empty = if stats.is_none_or(|stats| stats.waiting == 0) { empty + 1 } else { 0 };
            }
            if Instant::now() > deadline {
                return Err(RecordError::Stuck { packet: 0 });
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// The cables of a box, seen from inside.
pub(crate) struct Cables {
    layout: Layout,
    sender: Sender,
    /// None where only the decision counts.
    catchers: Vec<(Port, Catcher)>,
    far: [u32; 2],
    marker: Vec<u8>,
    /// Queues that packets of the box wait in, where it has some. Then what the box says of a packet is waited for before the
    /// next one is sent, because that is behind it in the queue.
    queues: Option<Queues>,
    turn: u32,
    /// The first turn of the episode.
    first: u32,
    /// Frames that end the datagrams of which fragments were sent, with the far ends that they go in by.
    enders: BTreeSet<(u32, Vec<u8>)>,
}

impl Cables {
    /// Takes the far ends of a box with these addresses.
    pub(super) fn open(
        addresses: [HardwareAddress; 2],
        layout: Layout,
        bytes_count: bool,
        queues: Option<Queues>,
    ) -> io::Result<Cables> {
        for port in Port::BOTH {
            sysctl::write(&format!("net/ipv6/conf/{}/disable_ipv6", far(port)), "1")?;
        }
        let catch = |port: Port| Catcher::open(&far(port)).map(|catcher| (port, catcher));
        let ports: &[Port] = if bytes_count { &Port::BOTH } else { &[] };
        Ok(Cables {
            layout,
            sender: Sender::open()?,
            catchers: ports.iter().map(|port| catch(*port)).collect::<io::Result<_>>()?,
            far: [interface_index(&far(Port::Lan))?, interface_index(&far(Port::Wan))?],
            marker: marker(addresses[Port::Lan.index()]),
            queues,
            turn: 0,
            first: 0,
            enders: BTreeSet::new(),
        })
    }

    /// The next window is the first of an episode.
    pub(super) fn begin(&mut self) {
        self.first = self.turn.wrapping_add(1);
    }

    /// Ends all datagrams that are not complete. They outlive the table.
    pub(super) fn forget_fragments(&mut self, log: Option<&mut Marks>) -> Result<(), RecordError> {
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
        self.run(&Window::default(), &mut Seen::default(), log)
    }

    /// Sends the packets of a window and waits for what becomes of them. `log` says what conntrack decided.
    pub(super) fn run(
        &mut self,
        window: &Window,
        seen: &mut Seen,
        mut log: Option<&mut Marks>,
    ) -> Result<(), RecordError> {
        let layout = self.layout;
        self.turn = self.turn.wrapping_add(1) & layout.turns();
        let turn = self.turn;
        seen.clear(window.items.len());
        let place = window.items.len();
        let whole =
            window.items.iter().zip(0..).filter_map(|(item, place)| Some((item.expected.first?, place))).collect();
        let first = turn.wrapping_sub(window.number);
        let known = Known { layout, window: window.number, first, packets: place, whole: &whole };
        let mut frames = Vec::with_capacity(BATCH);
        let mut start = 0;
        while let Some(rest) = window.items.get(start..).filter(|rest| !rest.is_empty()) {
            let speaks = |item: &Item| self.queues.is_some() && item.expected.left.iter().any(|left| left.own);
            let quiet = rest.iter().take(BATCH).position(speaks);
            let batch = rest.iter().take(quiet.map_or(BATCH, |last| last + 1));
            frames.clear();
            frames.extend(batch.zip(start..).map(|(item, place)| Marked {
                mark: layout.mark(turn, place),
                interface: self.far[item.port.index()],
                bytes: window.get(&item.frame),
            }));
            start += frames.len();
            self.enders.extend(frames.iter().filter_map(|frame| Some((frame.interface, ender(frame.bytes)?))));
            self.sender.send(&frames).map_err(RecordError::kernel("sending packets into the box"))?;
            match quiet {
                None => drop(self.read(&known, seen, log.as_deref_mut())?),
                Some(_) => self.settle(&known, seen, log.as_deref_mut())?,
            }
        }
        self.settle(&known, seen, log)
    }

    /// Sends a marker, and waits until it is back and nothing is on its way any more.
    fn settle(&mut self, known: &Known<'_>, seen: &mut Seen, mut log: Option<&mut Marks>) -> Result<(), RecordError> {
        let (mark, interface) = (self.layout.mark(self.turn, known.packets), self.far[Port::Lan.index()]);
        let marker = Marked { mark, interface, bytes: &self.marker };
        self.sender.send(&[marker]).map_err(RecordError::kernel("sending a marker"))?;
        self.wait(known, seen, log.as_deref_mut())?;
        if let Some(queues) = &mut self.queues {
            queues.wait()?;
            self.read(known, seen, log)?;
        }
        Ok(())
    }

    /// Waits for a marker.
    fn wait(&mut self, known: &Known<'_>, seen: &mut Seen, mut log: Option<&mut Marks>) -> Result<(), RecordError> {
        let deadline = Instant::now() + PATIENCE;
        let mut back = [log.is_none(), self.catchers.is_empty()];
        loop {
            let seen_now = self.read(known, seen, log.as_deref_mut())?;
            back = [back[0] || seen_now[0], back[1] || seen_now[1]];
            if back == [true; 2] {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RecordError::Stuck { packet: known.packets as u64 });
            }
            let mut waiting: Vec<_> = log.iter().map(|log| log.as_fd()).collect();
            waiting.extend(self.catchers.iter().map(|(_, catcher)| catcher.as_fd()));
            wait_readable(&waiting, Some(left)).map_err(RecordError::kernel("waiting for a marker"))?;
        }
    }

    /// Reads what there is; where was a marker among it: in the log, at the far end?
    fn read(&mut self, known: &Known<'_>, seen: &mut Seen, log: Option<&mut Marks>) -> Result<[bool; 2], RecordError> {
        let mut back = [false; 2];
        if let Some(log) = log {
            back[0] = self.decisions(known, seen, log)?;
        }
        for (port, catcher) in &mut self.catchers {
            let mut take = |mark: u32, frame: &[u8]| match known.name(mark).and_then(|name| known.place(name)) {
                Some(place) if place == known.packets => back[1] = true,
                Some(place) => seen.leave(place, *port, frame.get(ETHERNET..).unwrap_or_default()),
                // What the box says of its own accord, and other protocols.
                None => {}
            };
            catcher.receive(&mut take).map_err(RecordError::kernel("taking packets off the wire"))?;
            if catcher.lost().map_err(RecordError::kernel("taking packets off the wire"))? > 0 {
                return Err(RecordError::Lost("packets that left the box"));
            }
        }
        Ok(back)
    }

    /// Reads what conntrack decided; was the marker among it?
    fn decisions(&self, known: &Known<'_>, seen: &mut Seen, log: &mut Marks) -> Result<bool, RecordError> {
        let mut back = false;
        while let Some(event) = log.recv().map_err(RecordError::kernel("reading the log of the box"))? {
            let MarkEvent::Mark(mark) = event else { return Err(RecordError::Lost("logged marks")) };
            let confused = |why: &str| RecordError::Confused { seen: format!("mark {mark:#x}{why}") };
            let code = self.layout.code(mark).checked_sub(1).and_then(|code| CODES.get(code));
            if self.layout.number(mark) == 0 {
                continue;
            }
            let name = known.name(mark).ok_or_else(|| confused(""))?;
            match (known.place(name), code) {
                (Some(place), None) if place == known.packets => back = true,
                (Some(place), Some((ctinfo, _))) => match seen.ctinfo.get_mut(place) {
                    Some(slot @ None) => *slot = Some(*ctinfo),
                    _ => return Err(confused(" twice or out of place")),
                },
                (None, Some((ctinfo, _))) => seen.strays.push(*ctinfo),
                (_, None) => return Err(confused("")),
            }
        }
        Ok(back)
    }
}
