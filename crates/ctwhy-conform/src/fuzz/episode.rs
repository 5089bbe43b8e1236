//! An episode: from an empty table to a table that is compared, with one set of sysctls. Generator and engine go packet
//! by packet, so that a generator can look at the state that its packets have led to.
//!
//! Time stands still in an episode, but for pauses: each window is one nanosecond later than the one before it, which no
//! timeout notices, and which tells for each entry in which window it was refreshed.

use std::collections::BTreeMap;

use ctwhy_core::hook::{Egress, Engine, Ruling, Unseen, Verdict};
use ctwhy_core::packet::be16;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Sink;
use ctwhy_core::zone::Zone;
use ctwhy_fixture::case::Spec;
use ctwhy_linux::wire::HardwareAddress;

use super::chance::Chance;
use super::compare::{Difference, Held};
use super::draw::{Bound, Drawn, leaves_as};
use super::window::{Arrival, Expected, Name, Port, Window};
use crate::replay::{self, ReplayError};
use crate::table::as_ctnetlink;

/// When an episode begins.
const START: u64 = 1_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// How long a pause is for the engine, in seconds. The kernel waits a little more than the two seconds that decide.
pub(crate) const PAUSE_SECS: u64 = 3;

/// The longest packet of a cable, where the box has it no shorter.
const MTU: u32 = 1500;

/// What an episode is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Sysctls of conntrack, all that matter, by their full names.
    pub(crate) sysctls: BTreeMap<String, String>,
    /// What the engine is told otherwise, to see whether that is found.
    pub(crate) engine_only: BTreeMap<String, String>,
}

/// A packet that went through the engine.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    /// Where it came in.
    pub(crate) port: Port,
    /// As it came in.
    pub(crate) arrived: Vec<u8>,
    /// Where and how it left; no bytes when it did not.
    pub(crate) left_by: Port,
    pub(crate) left: Vec<u8>,
}

/// The packets of late.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    packets: Vec<Passed>,
    next: usize,
}

impl Recent {
    const MOST: usize = 96;

    /// One of them.
    pub(crate) fn any(&self, chance: &mut Chance) -> Option<&Passed> {
        if self.packets.is_empty() { None } else { self.packets.get(chance.below(self.packets.len())) }
    }

    fn push(&mut self, arrival: &Arrival, left: Option<(Port, &[u8])>) {
        let (left_by, bytes) = left.unwrap_or((arrival.port, &[]));
        if self.packets.len() < Recent::MOST {
            let (arrived, left) = (arrival.bytes.clone(), bytes.to_vec());
            self.packets.push(Passed { port: arrival.port, arrived, left_by, left });
            return;
        }
        if let Some(slot) = self.packets.get_mut(self.next) {
            slot.port = arrival.port;
            slot.arrived.clone_from(&arrival.bytes);
            slot.left_by = left_by;
            slot.left.clear();
            slot.left.extend_from_slice(bytes);
        }
        self.next = (self.next + 1) % Recent::MOST;
    }
}

/// What a generator may look at.
pub(crate) struct Around<'a> {
    pub(crate) chance: &'a mut Chance,
    pub(crate) engine: &'a Engine,
    pub(crate) recent: &'a Recent,
    pub(crate) now: Time,
}

/// Makes packets.
pub(crate) trait Generator: Send {
    /// The next one.
    fn next(&mut self, around: &mut Around<'_>) -> Arrival;
}

/// The engine's side of an episode.
pub(crate) struct Episode {
    pub(crate) engine: Engine,
    recent: Recent,
    addresses: [HardwareAddress; 2],
    /// The longest packet that each interface takes.
    mtus: [usize; 2],
    buffer: Vec<u8>,
    now: Time,
    /// Windows before which there was a pause.
    pauses: Vec<u32>,
    /// The packet for which the kernel is to be asked.
    drawn: Option<Drawn>,
}

impl Episode {
    /// A box with an empty table.
    ///
    /// # Errors
    /// The engine does not understand the rules or the sysctls.
    pub(crate) fn begin(spec: &Spec, plan: &Plan, addresses: [HardwareAddress; 2]) -> Result<Episode, ReplayError> {
        let mut spec = spec.clone();
        spec.sysctls.extend(plan.sysctls.clone());
        spec.sysctls.extend(plan.engine_only.clone());
        let mtu = |port: Port| spec.interfaces.get(port.index()).and_then(|interface| interface.mtu).unwrap_or(MTU);
        let mtus = Port::BOTH.map(|port| mtu(port) as usize);
        Ok(Episode {
            engine: replay::engine(&spec)?,
            recent: Recent::default(),
            addresses,
            mtus,
            buffer: Vec::new(),
            now: Time(START),
            pauses: Vec::new(),
            drawn: None,
        })
    }

    /// Time passes before the next window, which is number `window`.
    pub(crate) fn pause(&mut self, window: u32) {
        self.now = self.now.plus_secs(PAUSE_SECS as u32);
        self.pauses.push(window);
    }

    /// Fills a window with packets of a generator.
    pub(crate) fn fill(
        &mut self,
        window: &mut Window,
        generator: &mut dyn Generator,
        chance: &mut Chance,
        packets: usize,
    ) {
        while window.items.len() < packets.min(Window::MOST) && !window.asks {
            let around = &mut Around { chance, engine: &self.engine, recent: &self.recent, now: self.now };
            // Now and then the network delivers a packet twice.
            let again = if around.chance.one_in(24) { around.recent.any(around.chance) } else { None };
            let mut arrival = match again {
                Some(passed) => Arrival { port: passed.port, bytes: passed.arrived.clone() },
                None => generator.next(around),
            };
            // A cable takes no more.
            arrival.bytes.truncate(self.mtus[arrival.port.index()]);
            self.decide(window, &arrival);
        }
    }

    /// The window is full; the next one is later.
    pub(crate) fn close(&mut self) {
        self.now.0 += 1;
    }

    /// Puts a packet through the engine and, with what that says, into the window.
    pub(crate) fn decide(&mut self, window: &mut Window, arrival: &Arrival) {
        let mut bound = Bound(false);
        self.engine.defrag.label = Name { window: window.number, place: window.items.len() }.label();
        let translates = self.engine.rules4.nat.is_some() || self.engine.rules6.nat.is_some();
        let (ruling, left) = if translates { self.pass(arrival, &mut bound) } else { self.pass(arrival, &mut ()) };
        let drawn = if bound.0 { Drawn::of(&self.engine, &ruling, arrival) } else { None };
        let leaving = |port| self.engine.leaving(&ruling, &self.buffer).map(move |piece| (port, piece));
        let pieces: Vec<_> = left.into_iter().flat_map(leaving).collect();
        match drawn {
            Some(_) => window.asks = true,
            None => self.recent.push(arrival, pieces.first().map(|(port, piece)| (*port, &piece[..]))),
        }
        self.drawn = drawn;
        let left = pieces.iter().map(|(port, piece)| (*port, window.keep(piece))).collect();
        let reason = match ruling.ctinfo {
            Ok(_) => ruling.reason.map(|reason| reason.code()),
            Err(unseen @ (Unseen::Fragment(_) | Unseen::Refused(_))) => Some(unseen.code()),
            Err(_) => None,
        };
        let first = ruling.datagram.as_ref().map(|datagram| Name::of(datagram.first));
        let expected = Expected { ctinfo: ruling.ctinfo.ok(), reason, left, first };
        window.push(arrival.port, self.addresses[arrival.port.index()], &arrival.bytes, expected);
    }

    /// Puts a packet through the engine. Where it left it is in the buffer, as it left.
    fn pass<S: Sink>(&mut self, arrival: &Arrival, sink: &mut S) -> (Ruling, Option<Port>) {
        let Arrival { port, bytes } = arrival;
        self.buffer.clone_from(bytes);
        let length = self.buffer.len();
        let ruling = self.engine.receive(&mut self.buffer, length, Some(port.index() as u16), self.now, sink);
        let left = match (ruling.verdict, ruling.egress) {
            (Verdict::Accept, Egress::Forwarded(Some(interface))) => Some(Port::at(usize::from(interface))),
            _ => None,
        };
        let length = ip_length(&self.buffer).unwrap_or(length);
        self.buffer.truncate(length);
        (ruling, left)
    }

    /// Tells the engine what the kernel drew for the last packet of a window that asked, and what is wrong about it: a
    /// draw that the rules do not allow, another change than that, or no packet at all.
    pub(crate) fn adopt(&mut self, left: &[(Port, Vec<u8>)]) -> Option<Difference> {
        let Drawn { arrival, flow } = self.drawn.take()?;
        if let Some((original, id)) = flow {
            self.engine.forget(&original, Zone::default(), Some(id), self.now);
        }
        self.engine.foretell(left.first().and_then(|(_, bytes)| leaves_as(bytes)));
        let (_, left_by) = self.pass(&arrival, &mut ());
        self.engine.foretell(None);
        let engine = left_by.map(|port| (port, &self.buffer[..]));
        self.recent.push(&arrival, engine);
        let kernel: Vec<(Port, &[u8])> = left.iter().map(|(port, bytes)| (*port, &bytes[..])).collect();
        (engine.as_slice() != kernel).then(|| Difference::Left {
            kernel: left.iter().map(|(port, bytes)| (port.name(), bytes.clone())).collect(),
            engine: engine.map(|(port, bytes)| (port.name(), bytes.to_vec())).into_iter().collect(),
        })
    }

    /// The engine's table, with what is known of the times of its entries.
    pub(crate) fn table(&self) -> Vec<Held> {
        let entries =
            self.engine.conntrack.table.iter().filter(|(_, entry)| !entry.is_expired(self.now) && !entry.is_hidden());
        let held = entries.map(|(_, confirmed)| {
            let since_start = confirmed.expires.0.saturating_sub(START);
            let refreshed = (since_start % SECOND) as u32;
            let pauses = self.pauses.iter().filter(|&&window| window <= refreshed).count() as u64;
            let timeout = (since_start / SECOND).saturating_sub(pauses * PAUSE_SECS);
            let mut entry = as_ctnetlink(&confirmed, self.now);
            entry.timeout = u32::try_from(timeout).ok();
            Held { entry, refreshed }
        });
        held.collect()
    }
}

/// The length that the IP header names.
fn ip_length(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 => be16(packet, 2).map(usize::from),
        _ => be16(packet, 4).map(|length| 40 + usize::from(length)),
    }
}
