//! A case goes into the engine.
//!
//! The engine gets what a box under test gets: interfaces, addresses, routes, rules and sysctls of the case, and its
//! packets at their times. Packets that the box makes itself are input, too, because the engine makes none: those of the
//! recording go into LOCAL_OUT as the kernel made them, each behind the packet that caused it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use ctwhy_core::checksum::Sum;
use ctwhy_core::event::Event;
use ctwhy_core::hook::{Egress, Engine, Entered, Ruling};
use ctwhy_core::network::{Interface, InterfaceAddress, Network, Route};
use ctwhy_core::packet::Packet;
use ctwhy_core::profile::Profile;
use ctwhy_core::rules::iptables::{self, Parsed};
use ctwhy_core::rules::{Network as Prefixed, Rules};
use ctwhy_core::sysctl::SysctlError;
use ctwhy_core::time::Time;
use ctwhy_core::trace::{Sink, Trace};
use ctwhy_core::tuple::{Addr, L3, Tuple, extract, proto};
use ctwhy_fixture::case::{
    BoxInterface, Bytes, Case, Emitted, Fact, Generated, Hook, Outcome, PacketOutcome, Prefix, Recording, Spec,
};
use ctwhy_fixture::link::{Stripped, strip};

use crate::{log, table};

/// Why a case cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// The rules are not understood.
    Rules {
        /// `rules` or `rules6`.
        field: &'static str,
        /// What is wrong, with its line.
        problem: String,
    },
    /// A sysctl of conntrack that the engine does not know, or a value that it does not take.
    Sysctl {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Behind the link layer is no IP packet.
    NoPacket {
        /// Number of the packet, from 1.
        packet: u64,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Rules { field, problem } => write!(f, "`{field}` of the case: {problem}"),
            ReplayError::Sysctl { name, value } => {
                write!(f, "the engine does not know {name}={value}; leave it out of the case or teach the engine")
            }
            ReplayError::NoPacket { packet } => write!(f, "packet {packet} is no IP packet"),
        }
    }
}

impl std::error::Error for ReplayError {}

/// What the engine made of one packet of a case, for whoever watches a replay.
#[derive(Debug)]
pub struct Replayed<'a> {
    /// Number of the packet, from 1.
    pub number: u64,
    /// From the IP header on, as it arrived; for the fragment that completes a datagram the datagram.
    pub before: &'a [u8],
    /// As it left, or as it was when it ended.
    pub after: &'a [u8],
    /// What was decided.
    pub ruling: &'a Ruling,
    /// The box behind the packet.
    pub engine: &'a Engine,
}

/// Replays a case beside one of its recordings, as the release decides that it was recorded from.
///
/// # Errors
/// The case asks for what the engine has not; see [`ReplayError`].
pub fn replay(case: &Case, recording: &Recording) -> Result<Outcome, ReplayError> {
    replay_watched(case, recording, |_| ())
}

/// As [`replay`], and shows each packet to `watch` before the box answers it.
///
/// # Errors
/// As [`replay`].
pub fn replay_watched(
    case: &Case,
    recording: &Recording,
    mut watch: impl FnMut(&Replayed<'_>),
) -> Result<Outcome, ReplayError> {
    let kernel = Profile::nearest(&recording.release);
    let mut engine = engine(&case.spec)?;
    engine.conntrack.table.kernel = kernel;
    let mut outcomes: BTreeMap<u64, PacketOutcome> = BTreeMap::new();
    let mut held: BTreeMap<u64, OnItsWay<'_>> = BTreeMap::new();
    let mut events: Vec<Event> = Vec::new();
    let mut now = Time(0);
    let hz = match recording.config.get("CONFIG_HZ") {
        Some(Fact::Number(hz)) => *hz,
        _ => 0,
    };
    for ((packet, recorded), number) in case.packets.iter().zip(&recording.outcome.packets).zip(1..) {
        let Ok(Stripped::Ip(link)) = strip(packet.linktype, &packet.bytes) else {
            return Err(ReplayError::NoPacket { packet: number });
        };
        let before = packet.bytes.get(link.ip_offset..).unwrap_or_default();
        let mut bytes = before.to_vec();
        now = Time(packet.time_ns);
        let in_interface = interface_index(&engine, &packet.iface);
        let length = bytes.len();
        let mut conclude = |engine: &mut Engine, on_way: OnItsWay<'_>, events: &mut Vec<Event>| {
            let OnItsWay { number, recorded, before, mut bytes, at, lowered } = on_way;
            let ruling = match at {
                Entered::Ended(ruling) => ruling,
                Entered::OnItsWay(passage) => {
                    foretell(engine, recorded);
                    engine.proceed(&mut bytes, passage, now, events)
                }
            };
            let after = engine.departed(&ruling, &bytes).to_vec();
            watch(&Replayed { number, before: ruling.arrived(before), after: &after, ruling: &ruling, engine });
            let forwarded = emitted(engine, &ruling, &bytes);
            let generated = recorded.generated.iter().flatten();
            let generated = generated.map(|made| generate(engine, made, &ruling, now, events)).collect();
            let family = if before.first().is_some_and(|byte| byte >> 4 == 6) { L3::V6 } else { L3::V4 };
            let mut outcome = packet_outcome((number, &ruling), forwarded, (family, kernel), generated);
            outcome.log.iter_mut().for_each(|log| log.extend(lowered.clone()));
            outcomes.insert(number, outcome);
        };
        foretell(&mut engine, recorded);
        let mut trace = Trace::default();
        let at = engine.enter(&mut bytes, length, in_interface, now, &mut trace);
        events.append(&mut trace.events);
        let lowered = log::lowered_line(&trace.steps, hz, kernel);
        let on_way = OnItsWay { number, recorded, before, bytes, at, lowered };
        if case.spec.held_until(number).is_some() && on_way.is_forwarded() {
            held.insert(number, on_way);
        } else {
            conclude(&mut engine, on_way, &mut events);
        }
        for hold in case.spec.holds.iter().filter(|hold| hold.until == number) {
            if let Some(on_way) = held.remove(&hold.packet) {
                conclude(&mut engine, on_way, &mut events);
            }
        }
    }
    let table = Some(table::lines(&engine.conntrack.table, now));
    // Who reads the kernel's table makes it delete what is over.
    engine.conntrack.table.sweep(now, &mut events);
    let expectations = Some(table::expectation_lines(&engine.conntrack.table, now));
    let events = Some(events.iter().map(table::event_line).collect());
    // Where ports are drawn, how many were tried before is chance, too.
    let counters = engine.conntrack.table.counters.named().into_iter();
    let counters = counters.filter(|(name, _)| *name != "found" || !engine.has_drawn());
    let counters = Some(counters.map(|(name, count)| (name.to_owned(), count)).collect());
    Ok(Outcome { packets: outcomes.into_values().collect(), table, events, expectations, counters })
}

/// A packet of the case behind the first half of its way.
struct OnItsWay<'a> {
    number: u64,
    recorded: &'a PacketOutcome,
    before: &'a [u8],
    bytes: Vec<u8>,
    at: Entered,
    /// What the kernel logs beside the reason.
    lowered: Option<String>,
}

impl OnItsWay<'_> {
    /// Does it come by the queue in FORWARD?
    fn is_forwarded(&self) -> bool {
        matches!(&self.at, Entered::OnItsWay(passage) if matches!(passage.egress(), Egress::Forwarded(_)))
    }
}

fn packet_outcome(
    (packet, ruling): (u64, &Ruling),
    forwarded: Vec<Emitted>,
    (family, kernel): (L3, &Profile),
    generated: Vec<Generated>,
) -> PacketOutcome {
    PacketOutcome {
        packet,
        ctinfo: ctinfo(ruling),
        hook: ruling.ctinfo.is_ok().then_some(Hook::Prerouting),
        log: ruling.reason.map(|reason| log::kernel_line(&reason, family, kernel).into_iter().collect()),
        forwarded: Some(forwarded),
        local: Some(ruling.egress == Egress::Local),
        generated: Some(generated),
    }
}

/// A box as the case describes it, with the kernel that decides where nothing is said.
///
/// # Errors
/// The case asks for what the engine has not; see [`ReplayError`].
pub fn engine(spec: &Spec) -> Result<Engine, ReplayError> {
    // What the kernel drew is foretold to the engine, so that the seed decides nothing.
    let mut engine = Engine::new(0);
    engine.network = network(spec);
    engine.rules4 = rules("rules", spec.rules.as_deref(), L3::V4)?;
    engine.rules6 = rules("rules6", spec.rules6.as_deref(), L3::V6)?;
    for (name, value) in &spec.sysctls {
        if !name.starts_with("net.netfilter.nf_conntrack_") && !name.starts_with("net.ipv4.ipfrag_") {
            continue;
        }
        engine
            .conntrack
            .sysctls
            .set(name, value)
            .map_err(|_: SysctlError| ReplayError::Sysctl { name: name.clone(), value: value.clone() })?;
    }
    Ok(engine)
}

/// The rules of a family. A table that the engine has not might drop or mark packets.
fn rules(field: &'static str, text: Option<&str>, l3num: L3) -> Result<Rules, ReplayError> {
    let fail = |problem| ReplayError::Rules { field, problem };
    let Some(text) = text else { return Ok(Rules::default()) };
    let Parsed { rules, other_tables } = iptables::parse(text, l3num).map_err(|error| fail(error.to_string()))?;
    match other_tables.first() {
        Some(table) => Err(fail(format!("the engine has no table {table}, only raw, mangle, nat and filter"))),
        None => Ok(rules),
    }
}

fn network(spec: &Spec) -> Network {
    let mut network = Network::default();
    for interface in &spec.interfaces {
        let addresses = interface.addresses.iter().map(|own| {
            let (l3num, network) = prefix(*own);
            InterfaceAddress { l3num, network }
        });
        network.interfaces.push(Interface {
            name: interface.name.clone(),
            addresses: addresses.collect(),
            mtu: Some(interface.mtu.unwrap_or(BoxInterface::MTU)),
        });
    }
    for route in &spec.routes {
        let (l3num, to) = prefix(route.to);
        let interface = network.interface_named(&route.dev);
        network.routes.push(Route { l3num, to, interface, via: route.via.map(Addr::from) });
    }
    network
}

fn prefix(prefix: Prefix) -> (L3, Prefixed) {
    let address = prefix.address();
    let l3num = if address.is_ipv4() { L3::V4 } else { L3::V6 };
    (l3num, Prefixed { address: Addr::from(address), prefix: prefix.length() })
}

fn interface_index(engine: &Engine, name: &str) -> Option<u16> {
    let at = engine.network.interfaces.iter().position(|interface| interface.name == name);
    at.and_then(|at| u16::try_from(at).ok())
}

fn ctinfo(ruling: &Ruling) -> Option<ctwhy_fixture::case::CtInfo> {
    ruling.ctinfo.ok().and_then(|ctinfo| ctinfo.name().parse().ok())
}

/// The packet as it left, where it did, or its fragments; `bytes` are what the engine had.
fn emitted(engine: &Engine, ruling: &Ruling, bytes: &[u8]) -> Vec<Emitted> {
    let Egress::Forwarded(Some(out)) = ruling.egress else { return Vec::new() };
    let Some(interface) = engine.network.interface(out) else { return Vec::new() };
    let emitted = |packet: Cow<'_, [u8]>| Emitted { iface: interface.name.clone(), bytes: Bytes::from(&*packet) };
    engine.leaving(ruling, bytes).map(emitted).collect()
}

/// Sends what the box made in answer to a packet, and gives what became of it.
///
/// What the forwarding path complains about still carries its entry, and the answer gets it. What was delivered lost its
/// entry on the way to the socket, so that the answer is looked up (ICMP-LOC-01, ICMP-LOC-04, ICMP-LOC-06). An IPv6
/// redirect, which neighbour discovery sends, never carries one.
pub fn generate<S: Sink>(
    engine: &mut Engine,
    recorded: &Generated,
    cause: &Ruling,
    now: Time,
    sink: &mut S,
) -> Generated {
    let mut bytes = filled(recorded.made.as_ref().unwrap_or(&recorded.bytes));
    let alone = cause.egress == Egress::Local || is_ipv6_redirect(&bytes) || is_about_fragments(&bytes);
    let trigger = if alone { None } else { cause.tracked() };
    engine.foretell(leaves_as(&recorded.bytes));
    let ruling = engine.send(&mut bytes, trigger.as_ref(), now, sink);
    let Emitted { iface, bytes } = emitted(engine, &ruling, &bytes)
        .pop()
        .unwrap_or_else(|| Emitted { iface: "none".to_owned(), bytes: Bytes::default() });
    Generated { iface, ctinfo: ctinfo(&ruling), made: recorded.made.clone(), bytes }
}

/// Is it an ICMP error about fragments that waited too long?
fn is_about_fragments(bytes: &[u8]) -> bool {
    let kind = |at: usize| bytes.get(at..at + 2);
    match bytes.first().map(|byte| (byte >> 4, usize::from(byte & 0x0f) * 4)) {
        Some((4, header)) => bytes.get(9) == Some(&proto::ICMP) && kind(header) == Some(&[11, 1]),
        Some((6, _)) => bytes.get(6) == Some(&proto::ICMPV6) && kind(40) == Some(&[3, 1]),
        _ => false,
    }
}

fn is_ipv6_redirect(bytes: &[u8]) -> bool {
    const TYPE_AT: usize = 40;
    const REDIRECT: u8 = 137;
    let (version, next_header) = (bytes.first().map(|byte| byte >> 4), bytes.get(6));
    version == Some(6) && next_header == Some(&proto::ICMPV6) && bytes.get(TYPE_AT) == Some(&REDIRECT)
}

/// Does a kernel decide at random about something in this case, so that it may decide otherwise the next time?
///
/// # Errors
/// As [`replay`].
pub fn is_left_to_chance(case: &Case, recording: &Recording) -> Result<bool, ReplayError> {
    let mut drawn = false;
    replay_watched(case, recording, |replayed| drawn |= replayed.engine.has_drawn())?;
    Ok(drawn)
}

/// Tells the engine what a packet left the kernel as, so that it draws the same where it may.
pub fn foretell(engine: &mut Engine, recorded: &PacketOutcome) {
    let left = recorded.forwarded.iter().flatten().find_map(|emitted| leaves_as(&emitted.bytes));
    engine.foretell(left);
}

/// The tuple of a packet that left the kernel, with the ports and ids that were drawn there.
fn leaves_as(left: &Bytes) -> Option<Tuple> {
    let bytes = filled(left);
    let packet = Packet::parse(&bytes, bytes.len()).ok()?;
    let transport = packet.transport.ok()?;
    extract(packet.l3num, packet.src, packet.dst, transport.protonum, bytes.get(transport.offset..)?).ok()
}

/// A packet with zeros where it is free, and with a header checksum that fits them.
fn filled(bytes: &Bytes) -> Vec<u8> {
    const CHECKSUM_AT: usize = 10;
    let header_checksum_is_free = bytes.iter().nth(CHECKSUM_AT) == Some(None);
    let mut bytes: Vec<u8> = bytes.iter().map(|byte| byte.unwrap_or(0)).collect();
    let header = bytes.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    if header_checksum_is_free && let Some(header) = bytes.get_mut(..header) {
        let checksum = Sum::default().bytes(header).checksum();
        if let Some(field) = header.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2) {
            field.copy_from_slice(&checksum.to_be_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_free_bytes_becomes_a_right_one() {
        let free: Bytes = "4500001c....00004001....0a000001c0000201".parse().unwrap();
        let header = filled(&free);
        assert_eq!(header[4..6], [0, 0]);
        assert_eq!(Sum::default().bytes(&header).fold(), 0xffff);
        let whole: Bytes = "4500001c123400004001ffff0a000001c0000201".parse().unwrap();
        assert_eq!(Some(filled(&whole)), whole.to_vec());
    }
}
