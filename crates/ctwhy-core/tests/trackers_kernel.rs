//! SCTP, GRE and UDP-Lite against decisions recorded from a kernel: `trackers_kernel_6.18.44.txt`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod common;

use std::collections::BTreeSet;

use common::packet;
use ctwhy_core::conn::Protocol;
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::hook::Engine;
use ctwhy_core::time::Time;
use ctwhy_core::trace::{Step, Trace};
use ctwhy_core::track::sctp::{Row, SctpState, SctpStep};
use ctwhy_core::tuple::{L3, extract};
use ctwhy_core::zone::Zone;

const RECORDED: &str = include_str!("trackers_kernel_6.18.44.txt");

fn unhex(text: &str) -> Vec<u8> {
    let digits = if text == "-" { "" } else { text };
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// A flow of the recording.
struct Flow {
    engine: Engine,
    protonum: u8,
    client: String,
    server: String,
}

impl Flow {
    fn new(line: &str) -> Flow {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap().to_owned();
        let (protonum, client, server) = (next().parse().unwrap(), next(), next());
        let mut flow = Flow { engine: Engine::new(0), protonum, client, server };
        flow.set(words);
        flow
    }

    fn set<'a>(&mut self, sysctls: impl Iterator<Item = &'a str>) {
        for (name, value) in sysctls.map(|pair| pair.split_once('=').unwrap()) {
            self.engine.conntrack.sysctls.set(&format!("nf_conntrack_{name}"), value).unwrap();
        }
    }

    fn addresses(&self, who: &str) -> (&str, &str) {
        if who == "c" { (&self.client, &self.server) } else { (&self.server, &self.client) }
    }

    fn receive(&mut self, who: &str, l4: &[u8]) -> (CtInfo, Trace, String) {
        let (src, dst) = self.addresses(who);
        let mut buffer = packet(src, dst, self.protonum, 64, l4);
        let mut trace = Trace::default();
        let len = buffer.len();
        let ruling = self.engine.receive(&mut buffer, len, None, Time(0), &mut trace);
        let ctinfo = ruling.ctinfo.unwrap();
        let why = ruling.reason.map_or(String::new(), |reason| format!("{}: {reason}", reason.code()));
        assert_eq!(ctinfo == CtInfo::Invalid, !why.is_empty());
        (ctinfo, trace, why)
    }

    /// The columns behind the second bar without the timeout, and the timeout.
    fn shown(&self, who: &str, l4: &[u8]) -> (String, Option<u32>) {
        let (src, dst) = self.addresses(who);
        let (src, dst) = (common::ip(src), common::ip(dst));
        let l3num = if src.is_ipv4() { L3::V4 } else { L3::V6 };
        let tuple = extract(l3num, src.into(), dst.into(), self.protonum, l4);
        let found = tuple.ok().and_then(|tuple| self.engine.find(&tuple, Zone::default(), Time(0)));
        let Some((direction, entry)) = found else { return ("-".into(), None) };
        let state = match &entry.flow.protocol {
            Protocol::Sctp(sctp) => {
                let [original, reply] = Direction::BOTH.map(|direction| sctp.tag(direction));
                format!("{} {original} {reply}", sctp.state())
            }
            Protocol::Gre(_) | Protocol::Udplite => "- - -".into(),
            other => panic!("{other:?}"),
        };
        let client_began = (direction == Direction::Original) == (who == "c");
        let status = entry.flow.status.0 & 0xe;
        (format!("{state} {status:x} {}", u8::from(client_began)), Some(entry.remaining_secs(Time(0))))
    }
}

#[test]
fn the_trackers_decide_as_the_kernel_did() {
    let mut flow = None;
    let mut cells = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut packets = 0;
    for (number, line) in (1..).zip(RECORDED.lines()) {
        if line.starts_with('#') {
            continue;
        }
        if let Some(begins) = line.strip_prefix("flow ") {
            flow = Some(Flow::new(begins));
            continue;
        }
        let flow = flow.as_mut().unwrap();
        if let Some(sysctls) = line.strip_prefix("sysctl ") {
            flow.set(sysctls.split(' '));
            seen.insert("sysctl changed".to_owned());
            continue;
        }
        let columns: Vec<&str> = line.split(" | ").collect();
        let [sent, ctinfo, entry] = columns[..] else { panic!("line {number}: {line}") };
        let (who, l4) = sent.split_once(' ').unwrap();
        let l4 = unhex(l4);
        let (decided, trace, why) = flow.receive(who, &l4);
        packets += 1;

        let words: Vec<String> = trace.steps.iter().map(ToString::to_string).collect();
        let told = format!("line {number}: {line}\n{}\n{why}", words.join("\n"));
        assert_eq!(decided.name(), ctinfo, "{told}");
        let (shown, timeout) = flow.shown(who, &l4);
        match (entry.rsplit_once(' '), timeout) {
            (Some((recorded, left)), Some(timeout)) => {
                assert_eq!(shown, recorded, "{told}");
                let left: u32 = left.parse().unwrap();
                assert!((left..=left + 1).contains(&timeout), "timeout {timeout}, recorded {left}; {told}");
            }
            _ => assert_eq!(shown, entry, "{told}"),
        }
        seen.extend(why.split_once(':').map(|(code, _)| code.to_owned()));
        for step in &trace.steps {
            match step {
                Step::Sctp(SctpStep::Lookup { direction, kind, state, .. }) => {
                    cells.insert((*direction, *kind, *state));
                }
                Step::Sctp(step) => {
                    seen.insert(format!("{step:?}").split([' ', '{']).next().unwrap().to_owned());
                }
                Step::Timeout { rule, .. } => {
                    seen.insert(format!("{rule:?} {}", flow.protonum));
                }
                _ => {}
            }
        }
    }
    assert!(packets > 800, "only {packets} packets");
    for direction in Direction::BOTH {
        for kind in Row::TYPES {
            for state in &SctpState::ALL[1..] {
                assert!(cells.contains(&(direction, kind, *state)), "no {kind} in {direction} direction in {state}");
            }
        }
    }
    let missing: Vec<_> = SEEN.iter().filter(|kind| !seen.contains(**kind)).collect();
    assert!(missing.is_empty(), "the recording shows no {missing:?}");
}

const SEEN: [&str; 33] = [
    "Header",
    "TagLearnt",
    "HeartbeatUnknownTag",
    "HeartbeatResync",
    "InitCollision",
    "InitAgain",
    "State",
    "Timeout",
    "Unreplied 47",
    "Replied 47",
    "Unreplied 136",
    "Replied 136",
    "sysctl changed",
    "sctp.short",
    "sctp.checksum",
    "sctp.chunk_empty",
    "sctp.chunk_not_alone",
    "sctp.chunk_not_first",
    "sctp.no_chunk",
    "sctp.begins_nothing",
    "sctp.init_tag",
    "sctp.init_short",
    "sctp.tag",
    "sctp.chunk_tag",
    "sctp.heartbeat_tag",
    "sctp.init_ack_tag",
    "sctp.invalid_state",
    "tuple.gre_payload",
    "tuple.short_transport",
    "udplite.short",
    "udplite.coverage",
    "udplite.no_checksum",
    "udplite.checksum",
];
