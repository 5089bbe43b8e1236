//! `--json`: the report as one object on one line.

use std::io::{self, Write};
use std::net::IpAddr;

use ctwhy_core::render::icmp::Named;
use ctwhy_core::tuple::{L3, Tuple, has_ports};
use ctwhy_diagnose::errors::{Error, Judged, Own};
use ctwhy_diagnose::evidence::{Evidence, Outcome, Promptness, Tally, Ttl, TtlOutcome};
use ctwhy_diagnose::report::{self, Finding, Nat};
use ctwhy_diagnose::{Counts, Report};
use serde::Serialize;

use super::errors::{linux_text, steps};
use super::read::{Reading, SideRead};

/// The version of the object. It changes when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct ReportObject<'a> {
    schema: u32,
    /// `nothing_amiss`, `difference` or `too_little`.
    outcome: &'static str,
    inside: SideObject<'a>,
    outside: SideObject<'a>,
    paired_flows: usize,
    clock: Option<ClockObject>,
    nats: Vec<NatObject>,
    errors: Vec<ErrorObject>,
    own_errors: Vec<OwnObject>,
    unexplained_errors: u64,
}

#[derive(Serialize)]
struct SideObject<'a> {
    capture: &'a str,
    packets: u64,
    flows: u64,
    errors: u64,
    fragments: u64,
    unreadable: u64,
    beyond_limits: u64,
}

#[derive(Serialize)]
struct ClockObject {
    offset_ns: i64,
    uncertainty_ns: u64,
    drift_ppb: f64,
    packets: usize,
    both_ways: bool,
}

#[derive(Serialize)]
struct NatObject {
    family: &'static str,
    address: Option<IpAddr>,
    kind: &'static str,
    confidence: &'static str,
    protocols: Vec<ProtocolObject>,
}

#[derive(Serialize)]
struct ProtocolObject {
    proto: &'static str,
    kind: &'static str,
    confidence: &'static str,
    flows: u64,
    weak: u64,
    packets: u64,
    lost_out: u64,
    lost_back: u64,
    evidence: EvidenceObject,
    reasons: Vec<ReasonObject>,
}

#[derive(Serialize)]
struct EvidenceObject {
    ipid: TallyObject,
    flow_label: TallyObject,
    ttl_out: TtlObject,
    ttl_back: TtlObject,
    tos: TallyObject,
    port: TallyObject,
    client_isn: TallyObject,
    server_isn: TallyObject,
    tcp_options: TallyObject,
    tcp_options_before: Option<Vec<u8>>,
    tcp_options_behind: Option<Vec<u8>>,
    window: TallyObject,
    mss: TallyObject,
    timestamps: TallyObject,
    segments: TallyObject,
    offload: bool,
    handshake: PromptObject,
    acknowledged: PromptObject,
    udp_checksum_zero: TallyObject,
}

#[derive(Serialize)]
struct TallyObject {
    /// `unseen`, `kept`, `changed` or `both`.
    outcome: &'static str,
    kept: u64,
    changed: u64,
    example: Option<(u32, u32)>,
}

impl From<Tally> for TallyObject {
    fn from(tally: Tally) -> TallyObject {
        let outcome = match tally.outcome() {
            Outcome::Unseen => "unseen",
            Outcome::Kept => "kept",
            Outcome::Changed => "changed",
            Outcome::Both => "both",
        };
        TallyObject { outcome, kept: tally.kept, changed: tally.changed, example: tally.example }
    }
}

#[derive(Serialize)]
struct TtlObject {
    /// `unseen`, `decremented`, `set`, `copied`, `same` or `mixed`.
    outcome: &'static str,
    value: Option<u8>,
    /// Before, behind, packets.
    pairs: Vec<(u8, u8, u64)>,
}

impl From<&Ttl> for TtlObject {
    fn from(ttl: &Ttl) -> TtlObject {
        let (outcome, value) = match ttl.outcome() {
            TtlOutcome::Unseen => ("unseen", None),
            TtlOutcome::Decremented(by) => ("decremented", Some(by)),
            TtlOutcome::Set(to) => ("set", Some(to)),
            TtlOutcome::Copied => ("copied", None),
            TtlOutcome::Same => ("same", None),
            TtlOutcome::Mixed => ("mixed", None),
        };
        TtlObject { outcome, value, pairs: ttl.pairs.iter().map(|((from, to), count)| (*from, *to, *count)).collect() }
    }
}

#[derive(Serialize)]
struct PromptObject {
    early: u64,
    late: u64,
    example_ns: Option<(u64, u64)>,
}

impl From<Promptness> for PromptObject {
    fn from(prompt: Promptness) -> PromptObject {
        PromptObject { early: prompt.early, late: prompt.late, example_ns: prompt.example }
    }
}

#[derive(Serialize)]
struct ReasonObject {
    speaks_for: &'static str,
    weight: u32,
    text: String,
}

#[derive(Serialize)]
struct ErrorObject {
    seen: &'static str,
    #[serde(flatten)]
    error: SeenObject,
    about: Option<FlowObject>,
    fate: &'static str,
    came_out: Option<SeenObject>,
    differences: Vec<DifferenceObject>,
    reset_instead: bool,
    linux: Option<LinuxObject>,
}

/// An error as it was seen.
#[derive(Serialize)]
struct SeenObject {
    packet: u64,
    time_ns: u64,
    from: Option<IpAddr>,
    to: Option<IpAddr>,
    icmp_type: u8,
    icmp_code: u8,
    name: Option<&'static str>,
    quoted: FlowObject,
}

/// A tuple.
#[derive(Serialize)]
struct FlowObject {
    proto: &'static str,
    src: IpAddr,
    dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_id: Option<u16>,
}

impl From<&Tuple> for FlowObject {
    fn from(tuple: &Tuple) -> FlowObject {
        let ports = has_ports(tuple.protonum);
        FlowObject {
            proto: ctwhy_core::tuple::proto::name(tuple.protonum),
            src: tuple.src_ip(),
            dst: tuple.dst_ip(),
            sport: ports.then_some(tuple.src_u),
            dport: ports.then_some(tuple.dst_u),
            icmp_id: tuple.is_icmp().then_some(tuple.src_u),
        }
    }
}

impl From<&Error> for SeenObject {
    fn from(error: &Error) -> SeenObject {
        let named = Named { l3num: error.l3num, icmp_type: error.icmp_type, code: error.code };
        SeenObject {
            packet: error.number,
            time_ns: error.time_ns,
            from: error.source(),
            to: error.destination(),
            icmp_type: error.icmp_type,
            icmp_code: error.code,
            name: named.name(),
            quoted: FlowObject::from(&error.quoted),
        }
    }
}

#[derive(Serialize)]
struct DifferenceObject {
    field: &'static str,
    expected: String,
    found: String,
    grave: bool,
}

/// What Linux would have done.
#[derive(Serialize)]
struct LinuxObject {
    ctinfo: Option<&'static str>,
    delivered_to: Option<IpAddr>,
    reason: Option<&'static str>,
    drop: Option<&'static str>,
    text: String,
    steps: Vec<String>,
}

#[derive(Serialize)]
struct OwnObject {
    seen: &'static str,
    #[serde(flatten)]
    error: SeenObject,
    quoted_went_on: bool,
}

/// Writes the report.
pub(super) fn write(report: &Report, reading: &Reading, out: &mut impl Write) -> io::Result<()> {
    let object = ReportObject {
        schema: SCHEMA,
        outcome: match report.outcome() {
            report::Outcome::NothingAmiss => "nothing_amiss",
            report::Outcome::Difference => "difference",
            report::Outcome::TooLittle => "too_little",
        },
        inside: side(&reading.inside, &report.inside),
        outside: side(&reading.outside, &report.outside),
        paired_flows: report.paired,
        clock: report.clock.map(|clock| ClockObject {
            offset_ns: clock.offset_ns,
            uncertainty_ns: clock.uncertainty_ns,
            drift_ppb: clock.drift,
            packets: clock.packets,
            both_ways: clock.both_ways,
        }),
        nats: report.nats.iter().map(nat).collect(),
        errors: report.errors.judged.iter().map(judged).collect(),
        own_errors: report.errors.own.iter().map(own).collect(),
        unexplained_errors: report.errors.unexplained,
    };
    serde_json::to_writer(&mut *out, &object)?;
    out.write_all(b"\n")
}

fn side<'a>(read: &'a SideRead, counts: &Counts) -> SideObject<'a> {
    let Counts { packets, flows, errors, fragments, unreadable, .. } = *counts;
    let beyond_limits = counts.flows_beyond + counts.packets_beyond + counts.errors_beyond;
    SideObject { capture: &read.name, packets, flows, errors, fragments, unreadable, beyond_limits }
}

fn nat(nat: &Nat) -> NatObject {
    NatObject {
        family: match nat.l3num {
            L3::V4 => "ipv4",
            L3::V6 => "ipv6",
        },
        address: nat.address.map(|address| address.ip(nat.l3num)),
        kind: nat.kind.code(),
        confidence: nat.confidence.name(),
        protocols: nat.protocols.iter().map(protocol).collect(),
    }
}

fn protocol(finding: &Finding) -> ProtocolObject {
    let Finding { protocol, evidence, verdict } = finding;
    let reasons = verdict.reasons.iter().map(|reason| ReasonObject {
        speaks_for: reason.kind.code(),
        weight: reason.weight,
        text: reason.what.to_string(),
    });
    ProtocolObject {
        proto: match protocol {
            ctwhy_diagnose::observe::Protocol::Tcp => "tcp",
            ctwhy_diagnose::observe::Protocol::Udp => "udp",
            ctwhy_diagnose::observe::Protocol::Echo => "icmp_echo",
        },
        kind: verdict.kind.code(),
        confidence: verdict.confidence.name(),
        flows: evidence.flows,
        weak: evidence.weak,
        packets: evidence.packets,
        lost_out: evidence.lost_out,
        lost_back: evidence.lost_back,
        evidence: evidence_object(evidence),
        reasons: reasons.collect(),
    }
}

fn evidence_object(evidence: &Evidence) -> EvidenceObject {
    EvidenceObject {
        ipid: evidence.id.into(),
        flow_label: evidence.label.into(),
        ttl_out: (&evidence.ttl_out).into(),
        ttl_back: (&evidence.ttl_back).into(),
        tos: evidence.tos.into(),
        port: evidence.port.into(),
        client_isn: evidence.isn_out.into(),
        server_isn: evidence.isn_back.into(),
        tcp_options: evidence.options.into(),
        tcp_options_before: evidence.options_example.as_ref().map(|(before, _)| before.clone()),
        tcp_options_behind: evidence.options_example.as_ref().map(|(_, behind)| behind.clone()),
        window: evidence.window.into(),
        mss: evidence.mss.into(),
        timestamps: evidence.timestamps.into(),
        segments: evidence.segments.into(),
        offload: evidence.offload,
        handshake: evidence.handshake.into(),
        acknowledged: evidence.acknowledged.into(),
        udp_checksum_zero: evidence.no_checksum.into(),
    }
}

fn judged(error: &Judged) -> ErrorObject {
    let differences = error.differences.iter().map(|difference| DifferenceObject {
        field: difference.field.name(),
        expected: difference.expected.clone(),
        found: difference.found.clone(),
        grave: difference.grave,
    });
    ErrorObject {
        seen: error.seen.name(),
        error: SeenObject::from(&error.error),
        about: error.flow.as_ref().map(FlowObject::from),
        fate: error.fate.code(),
        came_out: error.came_out.as_ref().map(SeenObject::from),
        differences: differences.collect(),
        reset_instead: error.reset_instead,
        linux: error.linux.as_ref().map(|linux| LinuxObject {
            ctinfo: linux.ctinfo.ok().map(|ctinfo| ctinfo.name()),
            delivered_to: linux.delivered_to(),
            reason: linux.reason.as_ref().map(|reason| reason.code()),
            drop: linux.dropped.as_ref().map(|cause| cause.code()),
            text: linux_text(error, linux),
            steps: steps(linux).collect(),
        }),
    }
}

fn own(own: &Own) -> OwnObject {
    OwnObject { seen: own.seen.name(), error: SeenObject::from(&own.error), quoted_went_on: own.quoted_went_on }
}
