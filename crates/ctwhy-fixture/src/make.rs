//! A case out of somebody's capture: which packets went into the box, on which interface, and what the box must be like.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::net::IpAddr;

use crate::anonymise::{self, Addresses};
use crate::capture::{Capture, CaptureError};
use crate::case::{BoxInterface, Case, CasePacket, Prefix, Route, Spec};
use crate::link::{PacketType, Stripped, strip};
use crate::linktype::LinkType;

/// What is known beside the capture.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Networks whose packets arrive on `lan`; those of everybody else arrive on `wan`. Without any the capture has to
    /// name its interfaces.
    pub inside: Vec<Prefix>,
    /// Own addresses of the box, by interface.
    pub local: Vec<(String, Prefix)>,
    /// How addresses are mapped, where the case is to be anonymous.
    pub anonymise: Option<Addresses>,
    /// The title of the case.
    pub title: String,
}

/// A case, and what became of the packets of the capture that are not in it.
#[derive(Clone, Debug)]
pub struct Made {
    /// The case, without any recording.
    pub case: Case,
    /// Packets left out, by the reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// What was inferred about the box, a sentence each.
    pub inferred: Vec<String>,
    /// A packet may have said addresses in its data, as FTP's do.
    pub data_had_addresses: bool,
}

/// Why no case can be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum MakeError {
    /// The capture cannot be read.
    Capture(CaptureError),
    /// Nothing says which interface a packet arrived on.
    NoInterface {
        /// Number of the packet, from 1.
        packet: u64,
    },
    /// No packet is left.
    Nothing(BTreeMap<&'static str, u64>),
    /// An interface that does not occur.
    UnknownInterface {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MakeError::Capture(error) => error.fmt(f),
            MakeError::NoInterface { packet } => write!(
                f,
                "packet {packet} does not say which interface it arrived on; name the networks behind the inside one with \
                 --inside NET, or capture with `dumpcap -i lan -i wan`"
            ),
            MakeError::Nothing(left_out) => {
                f.write_str("no packet is left for a case")?;
                left_out.iter().try_for_each(|(why, count)| write!(f, "; {count} {why}"))
            }
            MakeError::UnknownInterface { name, known } => {
                write!(f, "no packet arrived on an interface {name}; there are {}", known.join(", "))
            }
        }
    }
}

impl std::error::Error for MakeError {}

/// Packets that the capture did not keep whole.
const CUT: &str = "cut when they were captured (`tcpdump -s 0` keeps them whole)";
const NOT_IP: &str = "not IP";
const OWN: &str = "sent by the box itself";
const DAMAGED: &str = "damaged in the capture";

/// Makes a case of a capture.
///
/// # Errors
/// See [`MakeError`].
pub fn make<R: Read>(mut capture: Capture<R>, options: &Options) -> Result<Made, MakeError> {
    let mut left_out: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut packets = Vec::new();
    let mut sources: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut data_had_addresses = false;
    while let Some(next) = capture.next() {
        let packet = match next {
            Ok(packet) => packet,
            Err(error) if error.is_recoverable() => {
                *left_out.entry(DAMAGED).or_default() += 1;
                continue;
            }
            Err(error) => return Err(MakeError::Capture(error)),
        };
        let mut leave_out = |why| *left_out.entry(why).or_default() += 1;
        let Ok(Stripped::Ip(link)) = strip(packet.linktype, packet.bytes) else {
            leave_out(NOT_IP);
            continue;
        };
        let bytes = packet.bytes.get(link.ip_offset..).unwrap_or_default();
        let Some((source, _)) = ends(bytes) else {
            leave_out(NOT_IP);
            continue;
        };
        if packet.bytes.len() < packet.original_len as usize {
            leave_out(CUT);
            continue;
        }
        let is_local = options.local.iter().any(|(_, own)| own.address() == source);
        if link.packet_type == Some(PacketType::Outgoing) || is_local {
            leave_out(OWN);
            continue;
        }
        let iface = match (&options.inside[..], packet.iface()) {
            ([], Some(name)) => name.to_owned(),
            ([], None) => return Err(MakeError::NoInterface { packet: packet.number }),
            (inside, _) => if inside.iter().any(|net| net.contains(source)) { "lan" } else { "wan" }.to_owned(),
        };
        data_had_addresses |= speaks_of_addresses(bytes);
        let mut bytes = bytes.to_vec();
        if let Some(addresses) = &options.anonymise {
            anonymise::packet(&mut bytes, addresses);
        }
        let map = |address| options.anonymise.map_or(address, |addresses| addresses.map(address));
        sources.entry(iface.clone()).or_default().insert(map(source));
        packets.push(CasePacket { time_ns: packet.time_ns, iface, linktype: LinkType::RAW, bytes });
    }
    if packets.is_empty() {
        return Err(MakeError::Nothing(left_out));
    }
    // A capture of several interfaces need not be in order, and a case is.
    packets.sort_by_key(|packet| packet.time_ns);
    if !options.inside.is_empty() {
        for name in ["lan", "wan"] {
            sources.entry(name.to_owned()).or_default();
        }
    }
    let (interfaces, routes, inferred) = infer(&sources, options)?;
    let spec = Spec { title: options.title.clone(), interfaces, routes, ..Spec::default() };
    let case = Case { spec, packets, ..Case::default() };
    Ok(Made { case, left_out, inferred, data_had_addresses })
}

type Inferred = (Vec<BoxInterface>, Vec<Route>, Vec<String>);

/// Interfaces and routes of a box into which these sources sent by these interfaces.
fn infer(sources: &BTreeMap<String, BTreeSet<IpAddr>>, options: &Options) -> Result<Inferred, MakeError> {
    let map = |prefix: Prefix| match &options.anonymise {
        Some(addresses) => Prefix::new(addresses.map(prefix.address()), prefix.length()).unwrap_or(prefix),
        None => prefix,
    };
    let mut interfaces: Vec<BoxInterface> =
        sources.keys().map(|name| BoxInterface { name: name.clone(), ..BoxInterface::default() }).collect();
    let mut inferred = Vec::new();
    for (name, own) in &options.local {
        let Some(interface) = interfaces.iter_mut().find(|interface| interface.name == *name) else {
            let known = sources.keys().cloned().collect();
            return Err(MakeError::UnknownInterface { name: name.clone(), known });
        };
        interface.addresses.push(map(*own));
    }
    for interface in interfaces.iter().filter(|interface| interface.addresses.is_empty()) {
        let name = &interface.name;
        inferred.push(format!("{name} has no address of the box; --local {name}=ADDRESS/LENGTH gives it one"));
    }
    let mut routes = Vec::new();
    let mut add = |to: Prefix, dev: &str, inferred: &mut Vec<String>, why: &str| {
        let Some(to) = Prefix::new(to.network(), to.length()) else { return };
        let connected =
            interfaces.iter().any(|i| i.name == dev && i.addresses.iter().any(|own| own.contains(to.network())));
        if !connected {
            inferred.push(format!("route {to} by {dev}: {why}"));
            routes.push(Route { to, dev: dev.to_owned(), via: None });
        }
    };
    // Most of the world is behind the interface with the most sources.
    let outside = if options.inside.is_empty() {
        sources.iter().max_by_key(|(_, sources)| sources.len()).map_or("wan", |(name, _)| name.as_str())
    } else {
        "wan"
    };
    for net in &options.inside {
        add(map(*net), "lan", &mut inferred, "--inside");
    }
    if options.inside.is_empty() {
        for (name, sources) in sources.iter().filter(|(name, _)| *name != outside) {
            for source in sources {
                let length = if source.is_ipv4() { 32 } else { 128 };
                if let Some(host) = Prefix::new(*source, length) {
                    add(host, name, &mut inferred, "it sent packets from there");
                }
            }
        }
    }
    for all in ["0.0.0.0/0", "::/0"] {
        let family = sources.values().flatten().any(|source| source.is_ipv4() == (all == "0.0.0.0/0"));
        if let (true, Ok(all)) = (family, all.parse()) {
            add(all, outside, &mut inferred, "everything else");
        }
    }
    Ok((interfaces, routes, inferred))
}

/// Source and destination of an IP packet.
fn ends(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match bytes.first()? >> 4 {
        4 => {
            let address = |at: usize| <[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok().map(IpAddr::from);
            Some((address(12)?, address(16)?))
        }
        6 => {
            let address = |at: usize| <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok().map(IpAddr::from);
            Some((address(8)?, address(24)?))
        }
        _ => None,
    }
}

/// Is it of a protocol that says addresses and ports in its data: FTP's control connection, SIP, PPTP, IRC, H.323?
fn speaks_of_addresses(bytes: &[u8]) -> bool {
    const PORTS: [u16; 6] = [21, 69, 1720, 1723, 5060, 6667];
    let (protocol, at) = match bytes.first().map(|byte| (byte >> 4, usize::from(byte & 0x0f) * 4)) {
        Some((4, header)) => (bytes.get(9), header),
        Some((6, _)) => (bytes.get(6), 40),
        _ => return false,
    };
    let port = |at: usize| bytes.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    matches!(protocol, Some(6 | 17)) && [port(at), port(at + 2)].into_iter().flatten().any(|port| PORTS.contains(&port))
}
