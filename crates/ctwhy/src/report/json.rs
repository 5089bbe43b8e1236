//! `--json`: one flat object per packet, JSON Lines.

use std::io::{self, Write};
use std::net::IpAddr;

use ctwhy_core::conn::{Confirmed, Flow};
use ctwhy_core::conntrack::Attached;
use ctwhy_core::direction::Direction;
use ctwhy_core::extension::Master;
use ctwhy_core::helper::Helper;
use ctwhy_core::hook::{Engine, Hook, Ruling, Verdict};
use ctwhy_core::render::text::InNetwork;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Step;
use ctwhy_core::tuple::{Tuple, has_ports, proto};
use serde::Serialize;
use serde_json::value::RawValue;

use super::line::{Told, flow_of};
use super::view::{sctp_state, tcp_state};

/// The version of the objects below. It changes when a field changes its meaning or goes away.
pub(super) const SCHEMA: u32 = 1;

/// One packet.
#[derive(Serialize)]
pub(crate) struct PacketObject<'a> {
    schema: u32,
    packet: u64,
    /// Seconds since the epoch, all digits of the capture; `null` for a packet that could not be read.
    time: Option<Box<RawValue>>,
    iface: Option<&'a str>,
    hook: &'static str,
    ctinfo: Option<&'static str>,
    verdict: &'static str,
    /// Why it is INVALID, or why conntrack did not see it.
    reason: Option<&'static str>,
    /// The same in words.
    explanation: Option<String>,
    /// Why it was dropped.
    drop: Option<&'static str>,
    ct: Option<ConntrackObject>,
    steps: Vec<StepObject>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<KernelObject>,
}

/// What a live run adds.
#[derive(Serialize)]
pub(crate) struct KernelObject {
    /// The kernel's ctinfo.
    pub(crate) kernel_ctinfo: Option<&'static str>,
    /// Did everything that was compared agree? `null` when nothing could be compared.
    pub(crate) agree: Option<bool>,
    /// What differed, a sentence each.
    pub(crate) differences: Vec<String>,
}

#[derive(Serialize)]
struct StepObject {
    step: &'static str,
    text: String,
}

/// An entry, its tuples as fields.
#[derive(Serialize)]
struct ConntrackObject {
    id: Option<u32>,
    orig_src: IpAddr,
    orig_dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    orig_sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orig_dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orig_srckey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orig_dstkey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orig_icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orig_icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orig_icmp_id: Option<u16>,
    reply_src: IpAddr,
    reply_dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_srckey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_dstkey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_icmp_id: Option<u16>,
    proto: Protocol,
    status: Vec<&'static str>,
    tcp_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sctp_state: Option<&'static str>,
    timeout: Option<u32>,
    zone: u16,
    /// The zone of the original direction, where the other one is in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    zone_orig: Option<u16>,
    /// The same of the reply direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    zone_reply: Option<u16>,
    mark: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    master: Option<MasterFields>,
}

/// The flow that expected an entry.
#[derive(Serialize)]
struct MasterFields {
    master: u32,
    master_src: IpAddr,
    master_dst: IpAddr,
    master_sport: u16,
    master_dport: u16,
}

impl From<&Master> for MasterFields {
    fn from(master: &Master) -> MasterFields {
        let Master { number, tuple, .. } = master;
        MasterFields {
            master: *number,
            master_src: tuple.src_ip(),
            master_dst: tuple.dst_ip(),
            master_sport: tuple.src_u,
            master_dport: tuple.dst_u,
        }
    }
}

/// The flow that expected the one of a packet.
fn master_of(ruling: &Ruling, engine: &Engine) -> Option<MasterFields> {
    match &ruling.attached {
        Attached::Unconfirmed(own) => own.master.as_ref().map(MasterFields::from),
        Attached::Entry(id) => master_of_entry(engine, &engine.conntrack.table.get(*id)?),
        Attached::None | Attached::Untracked => None,
    }
}

fn master_of_entry(engine: &Engine, entry: &Confirmed) -> Option<MasterFields> {
    let extension = engine.conntrack.table.extensions.get(entry.flow.extension?)?;
    extension.master.as_ref().map(MasterFields::from)
}

/// The entries of a table that are alive at `now`, an object each: the `ct` of packets.
///
/// # Errors
/// None that can happen: what is written is numbers and words.
pub(crate) fn entries(engine: &Engine, now: Time) -> io::Result<Vec<String>> {
    let alive = engine.conntrack.table.iter().filter(|(_, entry)| !entry.is_expired(now) && !entry.is_hidden());
    let object = |entry: Confirmed| ConntrackObject {
        master: master_of_entry(engine, &entry),
        ..ConntrackObject::new(Some(entry.id), &entry.flow, Some(entry.remaining_secs(now)))
    };
    alive.map(|(_, entry)| serde_json::to_string(&object(entry)).map_err(io::Error::other)).collect()
}

/// A name, or the number of a protocol that has none here.
#[derive(Serialize)]
#[serde(untagged)]
enum Protocol {
    Name(&'static str),
    Number(u8),
}

impl ConntrackObject {
    fn new(id: Option<u32>, flow: &Flow, timeout: Option<u32>) -> ConntrackObject {
        let original = flow.tuple(Direction::Original);
        let reply = flow.tuple(Direction::Reply);
        let port = |tuple: &Tuple, port: u16| has_ports(tuple.protonum).then_some(port);
        let key = |tuple: &Tuple, key: u16| (tuple.protonum == proto::GRE).then_some(key);
        let icmp = |tuple: &Tuple| tuple.is_icmp();
        ConntrackObject {
            id,
            orig_src: original.src_ip(),
            orig_dst: original.dst_ip(),
            orig_sport: port(original, original.src_u),
            orig_dport: port(original, original.dst_u),
            orig_srckey: key(original, original.src_u),
            orig_dstkey: key(original, original.dst_u),
            orig_icmp_type: icmp(original).then(|| original.icmp_type()),
            orig_icmp_code: icmp(original).then(|| original.icmp_code()),
            orig_icmp_id: icmp(original).then_some(original.src_u),
            reply_src: reply.src_ip(),
            reply_dst: reply.dst_ip(),
            reply_sport: port(reply, reply.src_u),
            reply_dport: port(reply, reply.dst_u),
            reply_srckey: key(reply, reply.src_u),
            reply_dstkey: key(reply, reply.dst_u),
            reply_icmp_type: icmp(reply).then(|| reply.icmp_type()),
            reply_icmp_code: icmp(reply).then(|| reply.icmp_code()),
            reply_icmp_id: icmp(reply).then_some(reply.src_u),
            proto: match proto::name(original.protonum) {
                "unknown" => Protocol::Number(original.protonum),
                name => Protocol::Name(name),
            },
            status: flow.status.names().collect(),
            tcp_state: tcp_state(&flow.protocol),
            sctp_state: sctp_state(&flow.protocol),
            timeout,
            zone: if flow.zone.only.is_none() { flow.zone.id } else { 0 },
            zone_orig: (flow.zone.only == Some(Direction::Original)).then_some(flow.zone.id),
            zone_reply: (flow.zone.only == Some(Direction::Reply)).then_some(flow.zone.id),
            mark: flow.mark,
            helper: flow.helper.map(Helper::name),
            master: None,
        }
    }
}

impl<'a> PacketObject<'a> {
    /// The object of a packet that arrived at `time_ns` since the epoch.
    ///
    /// # Errors
    /// None that can happen: the time is digits.
    pub(crate) fn new(told: &'a Told<'a>, time_ns: u64, steps: &[Step]) -> io::Result<PacketObject<'a>> {
        PacketObject::at(told, Some(time_ns), Time(time_ns), steps)
    }

    /// As [`PacketObject::new`], for a packet whose own time is not the one that it was decided at, or unknown.
    ///
    /// # Errors
    /// As [`PacketObject::new`].
    pub(crate) fn at(
        told: &'a Told<'a>,
        time_ns: Option<u64>,
        now: Time,
        steps: &[Step],
    ) -> io::Result<PacketObject<'a>> {
        let digits = |ns: u64| format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
        let time = time_ns.map(|ns| RawValue::from_string(digits(ns))).transpose().map_err(io::Error::other)?;
        let ruling = told.decided.ruling();
        let ct = ruling.and_then(|ruling| {
            let (id, flow) = flow_of(ruling, told.engine)?;
            let remaining = |entry: Confirmed| entry.remaining_secs(now);
            let timeout = ruling.entry().and_then(|id| told.engine.conntrack.table.get(id)).map(remaining);
            Some(ConntrackObject { master: master_of(ruling, told.engine), ..ConntrackObject::new(id, &flow, timeout) })
        });
        let explanation = match told.decided {
            super::line::Decided::NotIp { text, .. } => Some(text.to_owned()),
            super::line::Decided::Ruling(ruling) => match (&ruling.ctinfo, &ruling.reason) {
                (Err(unseen), _) => Some(unseen.to_string()),
                (Ok(_), reason) => reason.as_ref().map(ToString::to_string),
            },
        };
        let drop = ruling.and_then(|ruling| match ruling.verdict {
            Verdict::Drop(cause) => Some(cause.code()),
            Verdict::Accept => None,
        });
        Ok(PacketObject {
            schema: SCHEMA,
            packet: told.number,
            time,
            iface: told.interface,
            hook: ruling.map_or(Hook::PreRouting, |ruling| ruling.hook).name(),
            ctinfo: told.decided.ctinfo().map(|ctinfo| ctinfo.name()),
            verdict: verdict(told),
            reason: told.decided.code(),
            explanation,
            drop,
            ct,
            steps: steps.iter().map(|step| step_object(step, told.engine)).collect(),
            kernel: None,
        })
    }

    /// Writes the line.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

fn step_object(step: &Step, engine: &Engine) -> StepObject {
    StepObject { step: step.name(), text: InNetwork { step, network: &engine.network }.to_string() }
}

/// `accept`, `drop`, or `none` for a packet that never came to a hook.
fn verdict(told: &Told<'_>) -> &'static str {
    match told.decided.ruling() {
        Some(ruling) if matches!(ruling.verdict, Verdict::Drop(_)) => "drop",
        Some(ruling) if ruling.ctinfo.is_ok() => "accept",
        _ => "none",
    }
}
