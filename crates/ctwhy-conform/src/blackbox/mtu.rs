//! How a client learns what a path takes (RFC 1191, RFC 8201), and that it may go on knowing it.

use ctwhy_core::tuple::L3;

use super::bench::Bench;
use super::connection::Connection;
use super::flow::{Flow, Proto, Shape, TOO_BIG, pattern};
use super::fragments::complete_outside;
use super::nat::Side;
use super::read::Seen;
use super::requirement::{Group, Judged, Level, Requirement, fail, inconclusive};
use crate::compose;

/// Data of a packet that is too long for a link of 1200 bytes, or of 1280.
const LONG: usize = 1350;

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for proto in Proto::ALL {
        let id = format!("RFC5508-REQ-4b.{}.mtu", proto.name());
        let text = format!("the MTU that a router names about {} is the one that the client hears", proto.first());
        let cites = "RFC 5508 REQ-4b; RFC 1191 section 4, RFC 8201; ICMP-REL-14";
        all.push(Requirement::new(Group::Mtu, Level::Must, id, cites, text, move |bench| value(bench, proto)));
    }
    let text = "once a link further on has refused a datagram, the next that must not be cut is not cut either";
    let cites = "RFC 4787 REQ-13; RFC 1191 section 6";
    all.push(Requirement::new(Group::Mtu, Level::Must, "RFC4787-REQ-13.udp.not-cut", cites, text, not_cut));
    let text = "a client that knows what the path takes gets its datagram through, in fragments that fit";
    let cites = "RFC 4787 REQ-14; FRAG-02";
    all.push(Requirement::new(Group::Mtu, Level::Must, "RFC4787-REQ-14.udp.after-too-big", cites, text, after_too_big));
    let text = "a TCP segment that is too long for a link further on is no black hole: the client is told, or shorter ones follow";
    let cites = "RFC 2923 section 2.1; RFC 5508 REQ-4; ICMP-REL-14";
    all.push(Requirement::new(Group::Mtu, Level::Kernel, "KERNEL-ICMP-REL-14.tcp.no-black-hole", cites, text, tcp));
    all
}

fn value(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let flow = bench.open(proto)?;
    let error = flow.error(&TOO_BIG, bench.hosts.router(2)).ok_or_else(|| inconclusive("no such error"))?;
    let arrived = bench.deliver(&flow, &error, "too big")?;
    let seen = Seen::of(&arrived).ok_or_else(|| inconclusive("what arrived cannot be read"))?;
    let sent = u32::from_be_bytes(TOO_BIG.word(seen.l3num));
    match seen.word() {
        Some(word) if word == sent => Ok(()),
        word => Err(fail(format!("{sent} becomes {}", word.unwrap_or_default()))),
    }
}

/// A flow whose first datagram was refused further on.
fn refused(bench: &mut Bench<'_>) -> Result<Flow, super::requirement::Stop> {
    let flow = bench.open_with(Proto::Udp, &Shape { dont_fragment: true, ..Shape::long(LONG) })?;
    let error = flow.error(&TOO_BIG, bench.hosts.router(2)).ok_or_else(|| inconclusive("no such error"))?;
    if bench.survey.of(Proto::Udp).errors {
        bench.tell(&flow, &error, "too big")?;
    } else {
        bench.send(Side::Outside, &error, "too big")?;
        bench.settle()?;
    }
    Ok(flow)
}

fn not_cut(bench: &mut Bench<'_>) -> Judged {
    let flow = refused(bench)?;
    let shape = Shape { dont_fragment: true, ..Shape::long(LONG) };
    bench.send(Side::Inside, &flow.ends.packet(&shape), "another datagram that must not be cut")?;
    let (server, client) = (flow.ends.server, flow.ends.client);
    let Some(packet) = bench.wait(Side::Outside, "what came out", |seen| seen.dst == server)? else {
        let told =
            bench.find(Side::Inside, "what the client was told", |seen| seen.is_error() && seen.dst == client)?;
        return if told.is_some() { Ok(()) } else { Err(fail("it did not come out, and the client was not told")) };
    };
    let seen = Seen::of(&packet).ok_or_else(|| inconclusive("what came out cannot be read"))?;
    if seen.fragment.is_some() {
        return Err(fail("it came out in fragments: the client never learns that the path takes less"));
    }
    let kept = seen.l3num == L3::V6 || ctwhy_core::packet::be16(seen.bytes, 6).is_some_and(|flags| flags & 0x4000 != 0);
    if kept { Ok(()) } else { Err(fail("it came out without DF: a router will cut it")) }
}

fn after_too_big(bench: &mut Bench<'_>) -> Judged {
    let flow = refused(bench)?;
    let (ip, body) = flow.ends.parts(&Shape::long(LONG));
    for packet in compose::fragments(&ip, &body, 0x4324, &[1176]) {
        bench.send(Side::Inside, &packet, "a fragment that fits")?;
    }
    complete_outside(bench, &flow, LONG)
}

fn tcp(bench: &mut Bench<'_>) -> Judged {
    let connection = Connection::open(bench)?;
    let payload = pattern(LONG);
    let segment = connection.try_to_say(bench, &payload)?;
    let error = segment.error(&TOO_BIG, bench.hosts.router(2)).ok_or_else(|| inconclusive("no such error"))?;
    bench.send(Side::Outside, &error, "too big")?;
    let (ends, client) = (segment.ends.clone(), segment.ends.client);
    let shorter = |seen: &Seen<'_>| {
        let data = seen.payload();
        ends.is_outward(seen) && !data.is_empty() && data.len() < LONG && payload.starts_with(data)
    };
    // What a socket does about it is done while it is waited for what it does not say.
    if bench.wait(Side::Inside, "what the client is told", |seen| seen.is_error() && seen.dst == client)?.is_some()
        || bench.find(Side::Outside, "a shorter segment in its place", shorter)?.is_some()
    {
        return Ok(());
    }
    Err(fail("the client was not told, and no shorter segment followed"))
}
