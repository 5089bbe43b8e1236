//! Whole runs of the engine: packets one behind the other, with settings and rules of the input's own.

use arbitrary::Unstructured;
use ctwhy_core::hook::{Engine, Entered, Passage};
use ctwhy_core::network::{Interface, InterfaceAddress, Network, Route};
use ctwhy_core::rules::Network as Prefix;
use ctwhy_core::rules::iptables;
use ctwhy_core::sysctl::Sysctls;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;
use ctwhy_core::tuple::{Addr, L3};

use crate::packets::seal;

/// Something that is done to an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A packet arrives, some time after what was before.
    Receive {
        /// Index of the interface.
        interface: u8,
        /// Milliseconds that pass first.
        wait_ms: u16,
        /// Are lengths and checksums put right first?
        sealed: bool,
        /// From the IP header on.
        bytes: Vec<u8>,
    },
    /// The host itself sends a packet.
    Send(Vec<u8>),
    /// A packet arrives and waits in FORWARD or LOCAL_IN.
    Hold(Vec<u8>),
    /// The packet that has waited longest goes on.
    Release,
    /// A line `name=value`.
    Sysctl(String),
    /// Text for `iptables-restore`.
    Rules(String),
    /// Text for `ip6tables-restore`.
    Rules6(String),
    /// Everything that is over is deleted, as by a listing.
    Sweep,
}

/// Longest packet or text, in bytes.
const LONGEST: usize = 2_000;

/// Bytes as a run; see [`write_ops`] for their format. After each step the table is in order.
pub fn engine(data: &[u8]) {
    let mut run = Run::new();
    for op in read_ops(data) {
        run.step(op);
        run.explained.conntrack.table.audit().unwrap();
    }
}

/// The steps in these bytes; see [`write_ops`].
#[must_use]
pub fn read_ops(data: &[u8]) -> Vec<Op> {
    let mut input = Unstructured::new(data);
    std::iter::from_fn(|| if input.is_empty() { None } else { read_op(&mut input).ok() }).collect()
}

fn read_op(input: &mut Unstructured<'_>) -> arbitrary::Result<Op> {
    let kind: u8 = input.arbitrary()?;
    Ok(match kind % 16 {
        0..=7 => Op::Receive {
            interface: kind & 1,
            sealed: kind & 2 != 0,
            wait_ms: input.arbitrary()?,
            bytes: read_bytes(input)?,
        },
        8 => Op::Send(read_bytes(input)?),
        9 => Op::Hold(read_bytes(input)?),
        10 => Op::Release,
        11 => Op::Sysctl(read_text(input)?),
        12 => Op::Rules(read_text(input)?),
        13 => Op::Rules6(read_text(input)?),
        _ => Op::Sweep,
    })
}

/// Bytes behind their number; what is missing at the end is left out.
fn read_bytes(input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let length = usize::from(input.arbitrary::<u16>()?).min(LONGEST).min(input.len());
    Ok(input.bytes(length)?.to_vec())
}

fn read_text(input: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    Ok(String::from_utf8_lossy(&read_bytes(input)?).into_owned())
}

/// The bytes that [`engine`] reads these steps from; packets and texts of more than 2000 bytes are cut.
#[must_use]
pub fn write_ops(ops: &[Op]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |kind: u8, wait_ms: Option<u16>, bytes: Option<&[u8]>| {
        out.push(kind);
        out.extend(wait_ms.into_iter().flat_map(u16::to_le_bytes));
        if let Some(bytes) = bytes {
            let bytes = bytes.get(..LONGEST).unwrap_or(bytes);
            out.extend((bytes.len() as u16).to_le_bytes());
            out.extend(bytes);
        }
    };
    for op in ops {
        match op {
            Op::Receive { interface, wait_ms, sealed, bytes } => {
                put((interface & 1) | u8::from(*sealed) << 1, Some(*wait_ms), Some(bytes));
            }
            Op::Send(bytes) => put(8, None, Some(bytes)),
            Op::Hold(bytes) => put(9, None, Some(bytes)),
            Op::Release => put(10, None, None),
            Op::Sysctl(text) => put(11, None, Some(text.as_bytes())),
            Op::Rules(text) => put(12, None, Some(text.as_bytes())),
            Op::Rules6(text) => put(13, None, Some(text.as_bytes())),
            Op::Sweep => put(14, None, None),
        }
    }
    out
}

/// Two engines that get the same, one of them explaining.
struct Run {
    explained: Engine,
    fast: Engine,
    now: Time,
    held: Vec<[(Vec<u8>, Passage); 2]>,
}

impl Run {
    fn new() -> Run {
        let mut engine = Engine::new(0);
        engine.network = network();
        Run { explained: engine.clone(), fast: engine, now: Time(0), held: Vec::new() }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Receive { interface, wait_ms, sealed, mut bytes } => {
                self.now = Time(self.now.0 + u64::from(wait_ms) * 1_000_000);
                if sealed {
                    seal(&mut bytes);
                }
                self.both(bytes, |engine, bytes, now, sink| {
                    let length = bytes.len();
                    let interface = Some(u16::from(interface));
                    match sink {
                        Some(trace) => engine.receive(bytes, length, interface, now, trace),
                        None => engine.receive(bytes, length, interface, now, &mut ()),
                    }
                });
            }
            Op::Send(bytes) => self.both(bytes, |engine, bytes, now, sink| match sink {
                Some(trace) => engine.send(bytes, None, now, trace),
                None => engine.send(bytes, None, now, &mut ()),
            }),
            Op::Hold(bytes) => self.hold(bytes),
            Op::Release => self.release(),
            Op::Sysctl(line) => {
                let Some((name, value)) = line.split_once('=') else { return };
                let set = |sysctls: &mut Sysctls| sysctls.set(name, value).is_ok();
                assert_eq!(set(&mut self.explained.conntrack.sysctls), set(&mut self.fast.conntrack.sysctls));
            }
            Op::Rules(text) => {
                if let Ok(parsed) = iptables::parse(&text, L3::V4) {
                    self.explained.rules4.clone_from(&parsed.rules);
                    self.fast.rules4 = parsed.rules;
                }
            }
            Op::Rules6(text) => {
                if let Ok(parsed) = iptables::parse(&text, L3::V6) {
                    self.explained.rules6.clone_from(&parsed.rules);
                    self.fast.rules6 = parsed.rules;
                }
            }
            Op::Sweep => {
                let now = self.now;
                self.explained.conntrack.table.sweep(now, &mut Trace::default());
                self.fast.conntrack.table.sweep(now, &mut ());
            }
        }
        assert_eq!(self.explained.conntrack.table.len(), self.fast.conntrack.table.len());
    }

    fn both(
        &mut self,
        bytes: Vec<u8>,
        put: impl Fn(&mut Engine, &mut [u8], Time, Option<&mut Trace>) -> ctwhy_core::hook::Ruling,
    ) {
        let (mut one, mut other) = (bytes.clone(), bytes);
        let mut trace = Trace::default();
        let explained = put(&mut self.explained, &mut one, self.now, Some(&mut trace));
        let fast = put(&mut self.fast, &mut other, self.now, None);
        assert_eq!(format!("{explained:?}"), format!("{fast:?}"), "explaining changes no decision");
        assert_eq!(one, other, "explaining changes no byte");
        let invalid = explained.ctinfo == Ok(ctwhy_core::direction::CtInfo::Invalid);
        assert!(!invalid || explained.reason.is_some(), "INVALID has a reason");
        for step in &trace.steps {
            assert!(!step.to_string().is_empty());
        }
    }

    fn hold(&mut self, bytes: Vec<u8>) {
        let (mut one, mut other, now) = (bytes.clone(), bytes, self.now);
        let length = one.len();
        let explained = self.explained.enter(&mut one, length, Some(0), now, &mut Trace::default());
        let fast = self.fast.enter(&mut other, length, Some(0), now, &mut ());
        match (explained, fast) {
            (Entered::OnItsWay(first), Entered::OnItsWay(second)) => self.held.push([(one, first), (other, second)]),
            (Entered::Ended(_), Entered::Ended(_)) => {}
            _ => panic!("explaining changes no decision"),
        }
    }

    fn release(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let [(mut one, first), (mut other, second)] = self.held.remove(0);
        let explained = self.explained.proceed(&mut one, first, self.now, &mut Trace::default());
        let fast = self.fast.proceed(&mut other, second, self.now, &mut ());
        assert_eq!(format!("{explained:?}"), format!("{fast:?}"), "explaining changes no decision");
        assert_eq!(one, other, "explaining changes no byte");
    }
}

/// The box of the cases: a network behind `lan`, everything else behind `wan`.
fn network() -> Network {
    let of =
        |address: &str, prefix| Prefix { address: Addr::from(address.parse::<std::net::IpAddr>().unwrap()), prefix };
    let v4 = |network| InterfaceAddress { l3num: L3::V4, network };
    let v6 = |network| InterfaceAddress { l3num: L3::V6, network };
    let interface =
        |name: &str, four, six| Interface { name: name.into(), addresses: vec![v4(four), v6(six)], mtu: Some(1_280) };
    Network {
        interfaces: vec![
            interface("lan", of("192.168.1.1", 24), of("fd00:1::1", 64)),
            interface("wan", of("203.0.113.2", 24), of("2001:db8:113::2", 64)),
        ],
        routes: vec![
            Route { l3num: L3::V4, to: of("0.0.0.0", 0), interface: 1, via: None },
            Route { l3num: L3::V6, to: of("::", 0), interface: 1, via: None },
        ],
    }
}
