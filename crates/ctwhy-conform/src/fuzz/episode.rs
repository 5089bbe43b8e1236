//! An episode: from an empty table to a table that is compared, with one set of sysctls. Generator and engine go packet
//! by packet, so that a generator can look at the state that its packets have led to.
//!
//! Time stands still in an episode, but for pauses: each window is one nanosecond later than the one before it, which no
//! timeout notices, and which tells for each entry in which window it was refreshed.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{Egress, Engine, Ruling, Unseen, Verdict};
use ctwhy_core::packet::be16;
use ctwhy_core::profile::Profile;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Sink;
use ctwhy_core::tuple::Tuple;
use ctwhy_core::zone::Zone;
use ctwhy_fixture::case::Spec;
use ctwhy_linux::wire::HardwareAddress;
use ctwhy_nat::limit::Limits;
use ctwhy_nat::router::{self, Departure, Router, Ruled, Watch};

use super::Answer;
use super::chance::Chance;
use super::compare::{self, Difference, Held};
use super::draw::{Bound, Drawn, tuple_of};
use super::window::{Arrival, Expected, Left, Name, Port, Window};
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
    /// As which release the engine decides: the running kernel's.
    pub(crate) kernel: &'static Profile,
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

/// What the engine said about a packet.
#[derive(Debug, Default)]
struct Heard {
    ctinfo: Option<CtInfo>,
    reason: Option<&'static str>,
    first: Option<Name>,
    drawn: Option<Drawn>,
    delivered: bool,
}

impl Heard {
    fn of(ruling: &Ruling, drawn: Option<Drawn>) -> Heard {
        let reason = match ruling.ctinfo {
            Ok(_) => ruling.reason.map(|reason| reason.code()),
            Err(unseen @ (Unseen::Fragment(_) | Unseen::Refused(_))) => Some(unseen.code()),
            Err(_) => None,
        };
        let first = ruling.datagram.as_ref().map(|datagram| Name::of(datagram.first));
        let delivered = ruling.verdict == Verdict::Accept && ruling.egress == Egress::Local;
        Heard { ctinfo: ruling.ctinfo.ok(), reason, first, drawn, delivered }
    }
}

/// A packet that left: where, its bytes, and whether the box says it itself.
type Out = (Port, Vec<u8>, bool);

/// Listens to the reference NAT.
struct Ears<'a> {
    arrival: &'a Arrival,
    bound: Bound,
    heard: Heard,
    /// Everything has been decided about the packet itself; what leaves from here on the box says itself.
    own: &'a RefCell<bool>,
}

impl Watch for Ears<'_> {
    type Sink = Bound;
    const WATCHES: bool = true;

    fn sink(&mut self) -> &mut Bound {
        &mut self.bound
    }

    fn ruled(&mut self, ruled: &Ruled<'_>) {
        if ruled.interface.is_some() {
            let drawn = if self.bound.0 { Drawn::of(ruled.engine, ruled.ruling, self.arrival) } else { None };
            self.heard = Heard::of(ruled.ruling, drawn);
            *self.own.borrow_mut() = true;
        }
    }
}

/// No limits: time stands still.
fn unlimited() -> Result<Limits, ReplayError> {
    let mut limits = Limits::default();
    for (name, value) in UNLIMITED {
        let unknown = |_| ReplayError::Sysctl { name: name.to_owned(), value: value.to_owned() };
        limits.set(name, value).map_err(unknown)?;
    }
    Ok(limits)
}

/// The limits of what a box says.
pub(crate) const UNLIMITED: [(&str, &str); 5] = [
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv4.icmp_msgs_per_sec", "1000000"),
    ("net.ipv4.icmp_msgs_burst", "1000000"),
    ("net.ipv6.icmp.ratelimit", "0"),
];

/// The engine's side of an episode.
pub(crate) struct Episode {
    router: Router,
    /// Is it the reference NAT as a whole, or only what it decides?
    speaks: bool,
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
    pub(crate) fn begin(
        spec: &Spec,
        plan: &Plan,
        addresses: [HardwareAddress; 2],
        speaks: bool,
    ) -> Result<Episode, ReplayError> {
        let mut spec = spec.clone();
        spec.sysctls.extend(plan.sysctls.clone());
        spec.sysctls.extend(plan.engine_only.clone());
        let mtu = |port: Port| spec.interfaces.get(port.index()).and_then(|interface| interface.mtu).unwrap_or(MTU);
        let mtus = Port::BOTH.map(|port| mtu(port) as usize);
        let mut engine = replay::engine(&spec)?;
        engine.conntrack.table.kernel = plan.kernel;
        Ok(Episode {
            router: Router::new(engine, unlimited()?, 0),
            speaks,
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
            let around = &mut Around { chance, engine: &self.router.engine, recent: &self.recent, now: self.now };
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
        self.router.engine.defrag.label = Name { window: window.number, place: window.items.len() }.label();
        let (heard, left) = self.pass(arrival);
        match heard.drawn {
            Some(_) => (window.asks, window.delivered) = (true, heard.delivered),
            None => self.recent.push(arrival, left.first().map(|(port, piece, _)| (*port, &piece[..]))),
        }
        self.drawn = heard.drawn;
        let left = left.iter().map(|(port, bytes, own)| Left { port: *port, bytes: window.keep(bytes), own: *own });
        let left = left.collect();
        let expected = Expected { ctinfo: heard.ctinfo, reason: heard.reason, left, first: heard.first };
        window.push(arrival.port, self.addresses[arrival.port.index()], &arrival.bytes, expected);
    }

    /// Puts a packet through the reference NAT, or only through its engine.
    fn pass(&mut self, arrival: &Arrival) -> (Heard, Vec<Out>) {
        let Router { engine, .. } = &mut self.router;
        engine.forget_draws();
        self.buffer.clone_from(&arrival.bytes);
        let translates = engine.rules4.nat.is_some() || engine.rules6.nat.is_some();
        if self.speaks {
            self.pass_whole(arrival)
        } else if translates {
            let mut bound = Bound(false);
            let (ruling, left) = self.pass_engine(arrival, &mut bound);
            let drawn = if bound.0 { Drawn::of(&self.router.engine, &ruling, arrival) } else { None };
            (Heard::of(&ruling, drawn), left)
        } else {
            let (ruling, left) = self.pass_engine(arrival, &mut ());
            (Heard::of(&ruling, None), left)
        }
    }

    /// Puts a packet that is in the buffer through the engine.
    fn pass_engine<S: Sink>(&mut self, arrival: &Arrival, sink: &mut S) -> (Ruling, Vec<Out>) {
        let Episode { router: Router { engine, .. }, buffer, now, .. } = self;
        let length = buffer.len();
        let ruling = engine.receive(buffer, length, Some(arrival.port.index() as u16), *now, sink);
        buffer.truncate(ip_length(buffer).unwrap_or(length));
        let left = match (ruling.verdict, ruling.egress) {
            (Verdict::Accept, Egress::Forwarded(Some(interface))) => {
                let port = Port::at(usize::from(interface));
                engine.leaving(&ruling, buffer).map(|piece| (port, piece.into_owned(), false)).collect()
            }
            _ => Vec::new(),
        };
        (ruling, left)
    }

    /// Puts a packet that is in the buffer through the reference NAT.
    fn pass_whole(&mut self, arrival: &Arrival) -> (Heard, Vec<Out>) {
        let own = RefCell::new(false);
        let mut ears = Ears { arrival, bound: Bound(false), heard: Heard::default(), own: &own };
        let mut left = Vec::new();
        let mut leave = |out: Departure<'_>| {
            left.push((Port::at(usize::from(out.interface)), out.packet.to_vec(), *own.borrow()));
        };
        let interface = arrival.port.index() as u16;
        let arriving = router::Arrival::new(&mut self.buffer, interface);
        self.router.receive(arriving, self.now, &mut ears, &mut leave);
        (ears.heard, left)
    }

    /// Tells the engine what the kernel drew for the last packet of a window that asked, and what is wrong about it: a
    /// draw that the rules do not allow, another change than that, or no packet at all.
    pub(crate) fn adopt(&mut self, Answer { left, delivered_as }: &Answer) -> Option<Difference> {
        let Drawn { arrival, flow } = self.drawn.take()?;
        if let Some((original, id)) = flow {
            self.router.engine.forget(&original, Zone::default(), Some(id), self.now);
        }
        let delivered = delivered_as.and_then(|port| Some(Tuple { src_u: port, ..tuple_of(&arrival.bytes)? }));
        self.router.engine.foretell(delivered.or_else(|| left.first().and_then(|(_, bytes)| tuple_of(bytes))));
        let (_, ours) = self.pass(&arrival);
        self.router.engine.foretell(None);
        self.recent.push(&arrival, ours.first().map(|(port, bytes, _)| (*port, &bytes[..])));
        let kernel: Vec<(&'static str, &[u8])> = left.iter().map(|(port, bytes)| (port.name(), &bytes[..])).collect();
        let engine = || ours.iter().map(|(port, bytes, own)| (port.name(), &bytes[..], *own));
        (!compare::same_left(engine(), &kernel)).then(|| Difference::Left {
            kernel: left.iter().map(|(port, bytes)| (port.name(), bytes.clone())).collect(),
            engine: engine().map(|(port, bytes, _)| (port, bytes.to_vec())).collect(),
        })
    }

    /// The engine's table, with what is known of the times of its entries.
    pub(crate) fn table(&self) -> Vec<Held> {
        let entries = self
            .router
            .engine
            .conntrack
            .table
            .iter()
            .filter(|(_, entry)| !entry.is_expired(self.now) && !entry.is_hidden());
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
