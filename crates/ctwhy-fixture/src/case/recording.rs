//! `kernel-<release>.jsonl`: what one kernel decided, one JSON object a line.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{CaseError, Problem};
use super::outcome::{CtInfo, Emitted, Generated, Hook, Outcome, PacketOutcome};

/// The version of the format.
const SCHEMA: u32 = 1;

const KERNEL: &str = "kernel";
const PACKET: &str = "packet";
const TABLE: &str = "table";
const EVENTS: &str = "events";
const EXPECTATIONS: &str = "expectations";
const COUNTERS: &str = "counters";

/// What a kernel decided about the packets of a case. It comes from a kernel only, never from something compared to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The release, as `uname -r` says it.
    pub release: String,
    /// Facts of its configuration that its decisions depend on.
    pub config: BTreeMap<String, Fact>,
    /// All conntrack sysctls while it decided, by their full dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// What it decided.
    pub outcome: Outcome,
}

/// A fact about a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a fact is true, false, a whole number or a text")]
pub enum Fact {
    /// Present or absent.
    Flag(bool),
    /// A number, such as HZ.
    Number(i64),
    /// Anything else.
    Text(String),
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine {
    schema: u32,
    kind: String,
    release: String,
    config: BTreeMap<String, Fact>,
    sysctls: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PacketLine {
    kind: String,
    packet: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ctinfo: Option<CtInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hook: Option<Hook>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forwarded: Option<Vec<Emitted>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    local: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generated: Option<Vec<Generated>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntriesLine {
    kind: String,
    entries: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountersLine {
    kind: String,
    counters: BTreeMap<String, u64>,
}

impl Recording {
    /// Reads a recording line by line; `file` is what errors call it.
    ///
    /// # Errors
    /// When it cannot be read, a line is no JSON of a known kind, a field is unknown or wrong, or packets are missing.
    pub fn read(input: impl BufRead, file: &Path) -> Result<Recording, CaseError> {
        let mut recording: Option<Recording> = None;
        for (at, line) in input.lines().enumerate() {
            let at = at + 1;
            let line = line.map_err(|e| CaseError::at_line(file, at, Problem::Read(e)))?;
            let fail = |problem| CaseError::at_line(file, at, problem);
            let Kind { kind } = parse(&line).map_err(fail)?;
            let Some(recording) = recording.as_mut() else {
                if kind != KERNEL {
                    return Err(fail(Problem::NoHeader));
                }
                recording = Some(Recording::start(parse(&line).map_err(fail)?).map_err(fail)?);
                continue;
            };
            recording.add(&kind, &line).map_err(fail)?;
        }
        recording.ok_or_else(|| CaseError::new(file, Problem::NoHeader))
    }

    fn start(header: HeaderLine) -> Result<Recording, Problem> {
        let HeaderLine { schema, release, config, sysctls, .. } = header;
        if schema != SCHEMA {
            return Err(Problem::Schema(schema));
        }
        Ok(Recording { release, config, sysctls, outcome: Outcome::default() })
    }

    fn add(&mut self, kind: &str, line: &str) -> Result<(), Problem> {
        let outcome = &mut self.outcome;
        match kind {
            PACKET => {
                let PacketLine { packet, ctinfo, hook, log, forwarded, local, generated, .. } = parse(line)?;
                let expected = outcome.packets.len() as u64 + 1;
                if packet != expected {
                    return Err(Problem::PacketOrder { expected, found: packet });
                }
                outcome.packets.push(PacketOutcome { packet, ctinfo, hook, log, forwarded, local, generated });
                Ok(())
            }
            TABLE => once(&mut outcome.table, TABLE, line),
            EVENTS => once(&mut outcome.events, EVENTS, line),
            EXPECTATIONS => once(&mut outcome.expectations, EXPECTATIONS, line),
            COUNTERS => {
                let CountersLine { counters, .. } = parse(line)?;
                outcome.counters.replace(counters).map_or(Ok(()), |_| Err(Problem::Twice(COUNTERS)))
            }
            KERNEL => Err(Problem::Twice(KERNEL)),
            other => Err(Problem::Syntax(format!(
                "kind `{other}` is not known; it is one of {KERNEL}, {PACKET}, {TABLE}, {EVENTS}, {EXPECTATIONS}, {COUNTERS}"
            ))),
        }
    }

    /// Takes over what `other` tells besides: a later recording of the same case, of a kernel that decided alike. Says
    /// whether there was anything.
    pub fn complete(&mut self, other: &Recording) -> bool {
        let Outcome { events, expectations, counters, .. } = &mut self.outcome;
        let news = [
            add(events, &other.outcome.events),
            add(expectations, &other.outcome.expectations),
            add(counters, &other.outcome.counters),
        ];
        news.contains(&true)
    }

    /// Writes the recording; equal recordings give the same bytes.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let header = HeaderLine {
            schema: SCHEMA,
            kind: KERNEL.to_owned(),
            release: self.release.clone(),
            config: self.config.clone(),
            sysctls: self.sysctls.clone(),
        };
        line(&mut out, &header)?;
        for p in &self.outcome.packets {
            let packet = PacketLine {
                kind: PACKET.to_owned(),
                packet: p.packet,
                ctinfo: p.ctinfo,
                hook: p.hook,
                log: p.log.clone(),
                forwarded: p.forwarded.clone(),
                local: p.local,
                generated: p.generated.clone(),
            };
            line(&mut out, &packet)?;
        }
        let Outcome { table, events, expectations, .. } = &self.outcome;
        for (kind, entries) in [(TABLE, table), (EVENTS, events), (EXPECTATIONS, expectations)] {
            if let Some(entries) = entries {
                line(&mut out, &EntriesLine { kind: kind.to_owned(), entries: entries.clone() })?;
            }
        }
        if let Some(counters) = &self.outcome.counters {
            line(&mut out, &CountersLine { kind: COUNTERS.to_owned(), counters: counters.clone() })?;
        }
        Ok(())
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    out.write_all(&text)
}

/// Reads a line. Its number is known better outside, so only the column is kept of what the parser says.
fn parse<T: DeserializeOwned>(line: &str) -> Result<T, Problem> {
    serde_json::from_str(line).map_err(|e| {
        let text = e.to_string();
        let message = text.split(" at line ").next().unwrap_or_default();
        Problem::Syntax(format!("{message} (column {})", e.column()))
    })
}

/// Fills what is unset.
fn add<T: Clone>(slot: &mut Option<T>, other: &Option<T>) -> bool {
    let news = slot.is_none() && other.is_some();
    if news {
        slot.clone_from(other);
    }
    news
}

fn once(slot: &mut Option<Vec<String>>, kind: &'static str, line: &str) -> Result<(), Problem> {
    let EntriesLine { entries, .. } = parse(line)?;
    match slot.replace(entries) {
        None => Ok(()),
        Some(_) => Err(Problem::Twice(kind)),
    }
}
