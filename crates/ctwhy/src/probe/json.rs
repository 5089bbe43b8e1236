//! `ctwhy probe --json`: one object.

use std::io::{self, Write};
use std::net::IpAddr;

use ctwhy_conform::probe::evidence::{Evidence, Outcome};
use ctwhy_conform::probe::verdict::Verdict;
use ctwhy_linux::probe::{Method, Quote};
use serde::Serialize;

/// The version of the object. It changes when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    dest: IpAddr,
    on_link: bool,
    /// Were errors seen that no socket gets?
    raw: bool,
    amiss: bool,
    findings: Vec<Finding<'a>>,
    /// What cannot be told from here.
    open: &'a [String],
    probes: Vec<Probe<'a>>,
    crossing: Vec<Crossing>,
}

#[derive(Serialize)]
struct Finding<'a> {
    code: &'static str,
    text: String,
    amiss: bool,
    confidence: &'static str,
    because: &'a [String],
}

/// A probe and what became of it. `kind` is hop, closed_port, nowhere or size.
#[derive(Serialize)]
struct Probe<'a> {
    kind: &'static str,
    method: &'static str,
    ttl: Option<u8>,
    length: Option<usize>,
    /// silent, error, reply, connected, refused or not_sent.
    outcome: &'static str,
    from: Option<IpAddr>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    mtu: Option<u32>,
    /// TTL of the reply.
    reply_ttl: Option<u8>,
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct Crossing {
    sent: Vec<u32>,
    /// The tag that each error quoted; `null` where it quoted too little.
    quoted: Vec<Option<u32>>,
}

/// Writes the object and the end of its line.
pub(super) fn write(out: &mut impl Write, evidence: &Evidence, verdict: &Verdict) -> io::Result<()> {
    let findings = verdict.findings.iter().map(|finding| Finding {
        code: finding.claim.code(),
        text: finding.claim.to_string(),
        amiss: finding.claim.is_amiss(),
        confidence: finding.confidence.name(),
        because: &finding.because,
    });
    let tag = |quote: &Quote| if let Quote::Tag(tag) = quote { Some(*tag) } else { None };
    let crossing = evidence
        .crossing
        .iter()
        .map(|crossing| Crossing { sent: crossing.sent.clone(), quoted: crossing.quoted.iter().map(tag).collect() });
    let report = Report {
        schema: SCHEMA,
        dest: evidence.dest,
        on_link: evidence.on_link,
        raw: evidence.raw,
        amiss: verdict.is_amiss(),
        findings: findings.collect(),
        open: &verdict.open,
        probes: probes(evidence),
        crossing: crossing.collect(),
    };
    serde_json::to_writer(&mut *out, &report)?;
    writeln!(out)
}

fn probes(evidence: &Evidence) -> Vec<Probe<'_>> {
    let mut probes = Vec::new();
    for hop in &evidence.hops {
        for method in Method::ALL {
            probes.extend(hop.by(method).map(|outcome| Probe { ttl: Some(hop.ttl), ..probe("hop", method, outcome) }));
        }
    }
    probes.extend(evidence.closed.iter().map(|(method, outcome)| probe("closed_port", *method, outcome)));
    probes.extend(evidence.to_nowhere.iter().map(|(method, outcome)| probe("nowhere", *method, outcome)));
    let sized = evidence.sizes.iter();
    probes
        .extend(sized.map(|sized| Probe { length: Some(sized.length), ..probe("size", sized.method, &sized.outcome) }));
    probes
}

fn probe<'a>(kind: &'static str, method: Method, outcome: &'a Outcome) -> Probe<'a> {
    let error = outcome.error();
    Probe {
        kind,
        method: method.name(),
        ttl: None,
        length: None,
        outcome: match outcome {
            Outcome::Silent { .. } => "silent",
            Outcome::Error(_) => "error",
            Outcome::Reply { .. } => "reply",
            Outcome::Connected => "connected",
            Outcome::Refused => "refused",
            Outcome::NotSent(_) => "not_sent",
        },
        from: error.and_then(|error| error.from),
        icmp_type: error.map(|error| error.icmp_type),
        icmp_code: error.map(|error| error.code),
        mtu: error.map(|error| error.mtu).filter(|mtu| *mtu != 0),
        reply_ttl: if let Outcome::Reply { ttl } = outcome { *ttl } else { None },
        why: if let Outcome::NotSent(why) = outcome { Some(why) } else { None },
    }
}
