//! `ctwhy nat tun` as a box: packets are put into its TUN devices and taken off them by the kernel that has the other ends.
//!
//! No mark comes through a program. Packets are known by their order: those that follow each other on one device go in
//! together, and what comes out before the markers behind them is theirs, in that order. Where the devices offload, packets that
//! are there at once may leave as one, so that in every other episode they go in one by one.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ctwhy_core::packet::be16;
use ctwhy_core::tuple::Tuple;
use ctwhy_fixture::case::Spec;
use ctwhy_linux::burst::{Catcher, Marked, Sender, interface_index};
use ctwhy_linux::lab::{Lab, Node, Topology};
use ctwhy_linux::program;
use ctwhy_linux::signal::wait_readable;

use super::cables::{BATCH, MARKER, PATIENCE, Seen};
use super::compare::{Difference, Held, Times};
use super::counterpart::Counterpart;
use super::device::BOX;
use super::episode::UNLIMITED;
use super::ours::Program;
use super::window::{Port, Window};
use crate::compose::{Body, Ip};
use crate::record::{RecordError, stay_on_this_cpu};

/// The box.
pub(crate) struct TunBox {
    lab: Lab,
    own: PathBuf,
    spec: Spec,
}

/// Where the parts of an IPv4 header are that tell a marker.
const ID: usize = 4;
const PROTOCOL: Range<usize> = 9..10;
const ADDRESSES: Range<usize> = 12..20;

/// Where markers go in behind packets. The program takes some of one device, then some of the other, and keeps what it may put
/// together until that turn is over. The last marker is read in a turn behind that of the packets.
const MARKERS: [Port; 3] = [Port::Lan, Port::Wan, Port::Lan];
/// How long a marker takes at most where it gets through.
const MOMENT: Duration = Duration::from_millis(100);

impl TunBox {
    /// Builds the box of a suite: two devices that nobody has opened yet.
    pub(crate) fn build(spec: &Spec, own: &Path) -> Result<TunBox, RecordError> {
        let silent = ["all", "default"].map(|of| format!("net.ipv6.conf.{of}.disable_ipv6"));
        let node = silent.iter().fold(Node::host(BOX), |node, name| node.sysctl(name, "1"));
        let lab = Lab::create(Topology::default().node(node)).map_err(RecordError::kernel("building the box"))?;
        let devices = || -> io::Result<()> {
            for port in Port::BOTH {
                let ip = |arguments: &[&str]| program::run(lab.command(BOX, "ip")?.args(arguments), "").map(drop);
                ip(&["tuntap", "add", "mode", "tun", "name", port.name()])?;
                ip(&["link", "set", port.name(), "up"])?;
            }
            Ok(())
        };
        devices().map_err(RecordError::kernel("making the devices of the box"))?;
        Ok(TunBox { lab, own: own.to_owned(), spec: spec.clone() })
    }

    /// As [`super::counterpart::Place::enter`].
    pub(super) fn enter<T: Send, E: From<RecordError> + Send>(
        &self,
        work: impl FnOnce(&mut dyn Counterpart) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let run = || {
            stay_on_this_cpu()?;
            work(&mut self.open()?)
        };
        self.lab.in_node(BOX, run).map_err(RecordError::kernel("entering the box"))?
    }

    fn open(&self) -> Result<Tun<'_>, RecordError> {
        let mut arguments = ["tun", "--inside", "lan", "--outside", "wan"].map(str::to_owned).to_vec();
        for interface in &self.spec.interfaces {
            let own = interface.addresses.iter();
            arguments.extend(own.flat_map(|own| ["--address".to_owned(), format!("{}={own}", interface.name)]));
        }
        let routes = self.spec.routes.iter();
        arguments.extend(routes.flat_map(|route| ["--route".to_owned(), format!("{}={}", route.to, route.dev)]));
        let limits = UNLIMITED.iter();
        arguments.extend(limits.flat_map(|(name, value)| ["--sysctl".to_owned(), format!("{name}={value}")]));
        let listen = || -> io::Result<_> {
            let index = |port: Port| interface_index(port.name());
            let catch = |port: Port| Catcher::open(port.name());
            let (lan, wan) = (catch(Port::Lan)?, catch(Port::Wan)?);
            Ok((Sender::open()?, [index(Port::Lan)?, index(Port::Wan)?], [(Port::Lan, lan), (Port::Wan, wan)]))
        };
        let (sender, devices, catchers) = listen().map_err(RecordError::kernel("listening to the box"))?;
        let program = Program::new(&self.lab, &self.own, &self.spec, arguments)?;
        Ok(Tun { program, sender, devices, catchers, offloads: false, marker: Vec::new() })
    }
}

/// The box, seen from inside.
struct Tun<'a> {
    program: Program<'a>,
    sender: Sender,
    devices: [u32; 2],
    catchers: [(Port, Catcher); 2],
    /// Do the devices offload in this episode?
    offloads: bool,
    /// The marker that was sent last. Its identification tells it from those before.
    marker: Vec<u8>,
}

impl Tun<'_> {
    /// Sends packets into a device, and markers behind them; what came out before those were back.
    fn pass(&mut self, port: Port, packets: &[&[u8]]) -> Result<Vec<(Port, Vec<u8>)>, RecordError> {
        let interface = self.devices[port.index()];
        let frames: Vec<Marked<'_>> = packets.iter().map(|bytes| Marked { mark: 0, interface, bytes }).collect();
        self.sender.send(&frames).map_err(RecordError::kernel("sending packets into the box"))?;
        let mut left = Vec::new();
        for port in MARKERS {
            if !self.marker_is_back(port, PATIENCE, &mut left)? {
                return Err(RecordError::Stuck { packet: 0 });
            }
        }
        Ok(left)
    }

    /// Sends a marker into a device, and takes what comes out until it is among that; `false` when it does not come.
    fn marker_is_back(
        &mut self,
        port: Port,
        patience: Duration,
        left: &mut Vec<(Port, Vec<u8>)>,
    ) -> Result<bool, RecordError> {
        let id = be16(&self.marker, ID).unwrap_or(0).wrapping_add(1);
        let (from, to, protocol) = MARKER;
        self.marker = Ip { id, ..Ip::new(from, to) }.packet(Body::new(protocol, []));
        let marker = Marked { mark: 0, interface: self.devices[port.index()], bytes: &self.marker };
        self.sender.send(&[marker]).map_err(RecordError::kernel("sending a marker"))?;
        let deadline = Instant::now() + patience;
        let mut back = false;
        loop {
            for (port, catcher) in &mut self.catchers {
                let take = |_: u32, packet: &[u8]| {
                    let same = |part: Range<usize>| packet.get(part.clone()) == self.marker.get(part);
                    match same(PROTOCOL) && same(ADDRESSES) {
                        true => back |= same(ID..ID + 2),
                        false => left.push((*port, packet.to_vec())),
                    }
                };
                catcher.receive(take).map_err(RecordError::kernel("taking packets off the devices"))?;
                if catcher.lost().map_err(RecordError::kernel("taking packets off the devices"))? > 0 {
                    return Err(RecordError::Lost("packets that left the box"));
                }
            }
            if back {
                return Ok(true);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(false);
            }
            let waiting = self.catchers.each_ref().map(|(_, catcher)| catcher.as_fd());
            wait_readable(&waiting, Some(rest)).map_err(RecordError::kernel("waiting for a marker"))?;
        }
    }
}

impl Counterpart for Tun<'_> {
    fn begin(&mut self, sysctls: &BTreeMap<String, String>) -> Result<(), RecordError> {
        self.offloads = !self.offloads;
        self.program.restart(sysctls, if self.offloads { &[] } else { &["--no-offload"] })?;
        // A device lets nothing in until the kernel has noticed that somebody opened it, which takes a moment.
        let tries = (PATIENCE.as_millis() / MOMENT.as_millis()) as usize;
        for port in Port::BOTH {
            let mut noticed = false;
            for _ in 0..tries {
                noticed = self.marker_is_back(port, MOMENT, &mut Vec::new())?;
                if noticed {
                    break;
                }
            }
            if !noticed {
                return Err(RecordError::Stuck { packet: 0 });
            }
        }
        Ok(())
    }

    fn run(&mut self, window: &Window, seen: &mut Seen) -> Result<(), RecordError> {
        seen.clear(window.items.len());
        seen.assume(window);
        let mut start = 0;
        while let Some(rest) = window.items.get(start..).filter(|rest| !rest.is_empty()) {
            let port = rest.first().map_or(Port::Lan, |item| item.port);
            let most = if self.offloads { 1 } else { BATCH };
            let together = rest.iter().take(most).take_while(|item| item.port == port).count();
            // What is said of the packet that is asked about must not be taken for that of another one.
            let is_last = start + together == window.items.len();
            let together = if window.asks && is_last && together > 1 { together - 1 } else { together };
            let items = rest.get(..together).unwrap_or_default();
            let packets: Vec<&[u8]> = items.iter().map(|item| window.packet(item)).collect();
            let mut left = Port::BOTH.map(|_| VecDeque::new());
            for (port, packet) in self.pass(port, &packets)? {
                left[port.index()].push_back(packet);
            }
            for (item, place) in items.iter().zip(start..) {
                for expected in &item.expected.left {
                    if let Some(packet) = left[expected.port.index()].pop_front() {
                        seen.leave(place, expected.port, &packet);
                    }
                }
            }
            // Nobody knows whose they are.
            for port in Port::BOTH {
                for packet in &left[port.index()] {
                    seen.leave(start + together - 1, port, packet);
                }
            }
            start += together;
        }
        Ok(())
    }

    fn delivered_as(&self, original: &Tuple) -> Result<Option<u16>, RecordError> {
        self.program.delivered_as(original)
    }

    fn table_differences(&self, held: &[Held], times: &Times) -> Result<(usize, Vec<Difference>), RecordError> {
        self.program.table_differences(held, times)
    }
}
