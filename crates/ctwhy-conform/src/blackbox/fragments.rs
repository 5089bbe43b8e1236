//! Datagrams, and errors, that come in fragments (RFC 4787 REQ-14).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ctwhy_core::packet::be16;

use super::bench::Bench;
use super::flow::{Flow, Proto, Shape, TIME_EXCEEDED, pattern};
use super::nat::Side;
use super::read::{ICMP_HEADER, Seen};
use super::requirement::{Group, Judged, Level, Requirement, Stop, fail, inconclusive};
use crate::compose::{self, Body, Ip};

/// Bytes of UDP data, and where the fragments of the datagram end.
const LENGTH: usize = 900;
const ENDS: [usize; 2] = [304, 608];

/// Which fragment comes when.
const ORDERS: [(&str, [usize; 3]); 2] = [("in-order", [0, 1, 2]), ("out-of-order", [2, 0, 1])];

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for (name, order) in ORDERS {
        let words = name.replace('-', " ");
        let cites = "RFC 4787 REQ-14; FRAG-01, FRAG-02, FRAG-05";
        let text = format!("a client's datagram in three fragments, {words}, comes out complete");
        let id = format!("RFC4787-REQ-14.out.{name}");
        all.push(Requirement::new(Group::Fragments, Level::Must, id, cites, text, move |bench| out(bench, order)));
        let text = format!("a server's datagram in three fragments, {words}, reaches the client complete");
        let id = format!("RFC4787-REQ-14.in.{name}");
        all.push(Requirement::new(Group::Fragments, Level::Must, id, cites, text, move |bench| inwards(bench, order)));
    }
    let text = "an error that arrives in two fragments reaches the client";
    let cites = "RFC 5508 REQ-4; ICMP-REL-12";
    all.push(Requirement::new(Group::Fragments, Level::Kernel, "KERNEL-ICMP-REL-12.udp", cites, text, error));
    all
}

fn in_order(packets: &[Vec<u8>], order: [usize; 3]) -> impl Iterator<Item = &Vec<u8>> {
    order.into_iter().filter_map(|at| packets.get(at))
}

fn out(bench: &mut Bench<'_>, order: [usize; 3]) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    let (ip, body) = flow.ends.parts(&Shape::long(LENGTH));
    let packets = compose::fragments(&ip, &body, 0x4321, &ENDS);
    for packet in in_order(&packets, order) {
        bench.send(Side::Inside, packet, "a fragment of the client's")?;
    }
    complete_outside(bench, &flow, LENGTH)
}

/// Waits for a datagram of the flow's with so much data, whole or in fragments.
pub(super) fn complete_outside(bench: &mut Bench<'_>, flow: &Flow, length: usize) -> Judged {
    let (server, dport) = (flow.ends.server, flow.ends.dport);
    let datagram = collect(bench, Side::Outside, server, flow.ends.proto.protonum(flow.ends.l3num()))?;
    match datagram {
        None => Err(fail("it did not come out complete")),
        Some(l4) if be16(&l4, 2) != Some(dport) || l4.get(8..) != Some(&pattern(length)) => {
            Err(fail("it came out with other bytes"))
        }
        Some(l4) if be16(&l4, 0) != Some(flow.outer) => {
            Err(fail(format!("it came out with port {} instead of {}", be16(&l4, 0).unwrap_or_default(), flow.outer)))
        }
        Some(_) => Ok(()),
    }
}

fn inwards(bench: &mut Bench<'_>, order: [usize; 3]) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    let (ip, body) = flow.answer_parts(&pattern(LENGTH));
    let packets = compose::fragments(&ip, &body, 0x4322, &ENDS);
    for packet in in_order(&packets, order) {
        bench.send(Side::Outside, packet, "a fragment of the server's")?;
    }
    let number = flow.ends.proto.protonum(flow.ends.l3num());
    match collect(bench, Side::Inside, flow.ends.client, number)? {
        None => Err(fail("it did not arrive complete")),
        Some(l4) if be16(&l4, 2) != Some(flow.ends.port) || l4.get(8..) != Some(&pattern(LENGTH)) => {
            Err(fail("it arrived with other bytes"))
        }
        Some(_) => Ok(()),
    }
}

fn error(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open_with(Proto::Udp, &Shape::long(300))?;
    let router = bench.hosts.router(9);
    let error = flow.error(&TIME_EXCEEDED, router).ok_or_else(|| inconclusive("no such error"))?;
    let seen = Seen::of(&error).ok_or_else(|| inconclusive("the error cannot be read"))?;
    let (ip, body) = (Ip::between(router, flow.external).ttl(62), Body::new(seen.protonum, seen.l4));
    for packet in compose::fragments(&ip, &body, 0x4323, &[104]) {
        bench.send(Side::Outside, &packet, "a fragment of a router's error")?;
    }
    let Some(l4) = collect(bench, Side::Inside, flow.ends.client, seen.protonum)? else {
        return Err(fail("it never reached the client"));
    };
    // A socket has lost the end of what it was told already.
    let (kind, code) = TIME_EXCEEDED.number(flow.ends.l3num()).unwrap_or_default();
    if l4.get(..2) != Some(&[kind, code]) || l4.len() <= ICMP_HEADER {
        return Err(fail("something else reached the client"));
    }
    Ok(())
}

/// The transport part of the next datagram to somebody, whose fragments are put together; `None` when it did not come, or
/// not all of it.
fn collect(bench: &mut Bench<'_>, side: Side, to: IpAddr, protonum: u8) -> Result<Option<Vec<u8>>, Stop> {
    let mut parts: BTreeMap<usize, (Vec<u8>, bool)> = BTreeMap::new();
    loop {
        let wanted = |seen: &Seen<'_>| seen.dst == to && seen.protonum == protonum;
        let Some(packet) = bench.wait(side, "what came of it", wanted)? else { return Ok(None) };
        let Some(seen) = Seen::of(&packet) else { continue };
        let Some(fragment) = seen.fragment else { return Ok(Some(seen.l4.to_vec())) };
        parts.insert(usize::from(fragment.offset), (seen.l4.to_vec(), fragment.more));
        let mut whole = Vec::new();
        let mut ended = false;
        for (offset, (bytes, more)) in &parts {
            if *offset != whole.len() {
                break;
            }
            whole.extend(bytes);
            ended = !more;
        }
        if ended {
            return Ok(Some(whole));
        }
    }
}
