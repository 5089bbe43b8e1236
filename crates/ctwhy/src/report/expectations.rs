//! `--json --expectations`: one flat object per expectation, JSON Lines.

use std::io;
use std::net::IpAddr;

use ctwhy_conform::table::{expectation_as_ctnetlink, expected};
use ctwhy_core::hook::Engine;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::proto;
use ctwhy_linux::ctnetlink::{L4, Tuple};
use serde::Serialize;

use super::json::SCHEMA;

/// A flow that is still to come, as `conntrack -L expect` shows it, with its zone and the number of the entry that expects
/// it. What does not count of its source is 0.
#[derive(Serialize)]
struct ExpectationObject {
    schema: u32,
    /// Counted from 1, the oldest first.
    expectation: usize,
    timeout: u32,
    proto: &'static str,
    src: IpAddr,
    dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    srckey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dstkey: Option<u16>,
    mask_src: IpAddr,
    mask_dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_srckey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_dstkey: Option<u16>,
    master: u32,
    master_src: IpAddr,
    master_dst: IpAddr,
    master_sport: Option<u16>,
    master_dport: Option<u16>,
    zone: u16,
    flags: Vec<&'static str>,
    class: u32,
    helper: &'static str,
}

/// What a table expects at `now`, an object each.
///
/// # Errors
/// None that can happen: what is written is numbers and words.
pub(crate) fn expectations(engine: &Engine, now: Time) -> io::Result<Vec<String>> {
    let found = expected(&engine.conntrack.table, now);
    let objects = found.iter().zip(1..).map(|((one, master), expectation)| {
        let told = expectation_as_ctnetlink(one, master, now);
        let keys = |tuple: &Tuple| numbers(tuple).filter(|_| told.tuple.proto == proto::GRE);
        let ports = |tuple: &Tuple| numbers(tuple).filter(|_| told.tuple.proto != proto::GRE);
        let (sport, dport) = ports(&told.tuple).unzip();
        let (srckey, dstkey) = keys(&told.tuple).unzip();
        let (mask_sport, mask_dport) = ports(&told.mask).unzip();
        let (mask_srckey, mask_dstkey) = keys(&told.mask).unzip();
        let (master_sport, master_dport) = numbers(&told.master).unzip();
        ExpectationObject {
            schema: SCHEMA,
            expectation,
            timeout: told.timeout,
            proto: proto::name(told.tuple.proto),
            src: told.tuple.src,
            dst: told.tuple.dst,
            sport,
            dport,
            srckey,
            dstkey,
            mask_src: told.mask.src,
            mask_dst: told.mask.dst,
            mask_sport,
            mask_dport,
            mask_srckey,
            mask_dstkey,
            master: master.id,
            master_src: told.master.src,
            master_dst: told.master.dst,
            master_sport,
            master_dport,
            zone: one.zone,
            flags: one.flags.names().collect(),
            class: told.class,
            helper: one.helper.name(),
        }
    });
    objects.map(|object| serde_json::to_string(&object).map_err(io::Error::other)).collect()
}

/// Both ports, or both keys.
const fn numbers(tuple: &Tuple) -> Option<(u16, u16)> {
    match tuple.l4 {
        L4::Ports { sport, dport } => Some((sport, dport)),
        L4::Icmp { .. } | L4::Generic => None,
    }
}
