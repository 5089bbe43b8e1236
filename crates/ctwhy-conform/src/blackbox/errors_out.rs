//! Errors that clients send about what servers said, on their way out (RFC 5508 REQ-5).

use super::bench::Bench;
use super::flow::{ErrorKind, Flow, PORT_UNREACHABLE, PROHIBITED, Proto, TIME_EXCEEDED, TOO_BIG};
use super::nat::Side;
use super::quotes::judge_quote;
use super::read::{Seen, set_ttl};
use super::requirement::{Group, Judged, Level, Requirement, Stop, fail, inconclusive, not_applicable};

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for proto in Proto::ALL {
        for kind in [PORT_UNREACHABLE, TOO_BIG] {
            let (id, name) = (format!("RFC5508-REQ-5.{}.{}", proto.name(), kind.name), kind.name.replace('-', " "));
            let text = format!(
                "the client's own {name} about an answer to {} reaches the server, from the NAT's address, and quotes what the server sent",
                proto.first()
            );
            let cites = "RFC 5508 REQ-5; ICMP-REL-02, NAT-ICMP-02";
            all.push(Requirement::new(Group::ErrorsOut, Level::Must, id, cites, text, move |bench| {
                own(bench, proto, &kind)
            }));
        }
    }
    let text = "an error of a router inside about a server's packet leaves with the NAT's address for its source";
    let cites = "RFC 5508 REQ-5c; NAT-ICMP-02";
    all.push(Requirement::new(Group::ErrorsOut, Level::Must, "RFC5508-REQ-5c.udp", cites, text, inner_router));
    let text = "a client's error about a packet that never came does not leave";
    let cites = "RFC 5508 REQ-5; NAT-SET-06";
    all.push(Requirement::new(
        Group::ErrorsOut,
        Level::Should,
        "RFC5508-REQ-5.udp.unknown-flow",
        cites,
        text,
        unknown_flow,
    ));
    all
}

const TEXT: &[u8] = b"ctwhy conform nat: an answer that nobody waits for";

/// A flow, an answer of the server's as it was sent, and as the client got it.
fn answered(bench: &mut Bench<'_>, proto: Proto) -> Result<(Flow, Vec<u8>, Vec<u8>), Stop> {
    let flow = bench.open(proto)?;
    let sent = flow.answer(TEXT);
    match bench.answer(&flow, TEXT)? {
        Some(mut arrived) => {
            set_ttl(&mut arrived, 1);
            Ok((flow, sent, arrived))
        }
        None => Err(inconclusive("the server's answer did not arrive")),
    }
}

fn own(bench: &mut Bench<'_>, proto: Proto, kind: &ErrorKind) -> Judged {
    let (flow, sent, quote) = answered(bench, proto)?;
    let error = kind.error(flow.ends.client, flow.ends.server, &quote).ok_or_else(|| inconclusive("no such error"))?;
    let out = leave(bench, &flow, &error)?;
    let seen = Seen::of(&out).ok_or_else(|| inconclusive("what came out cannot be read"))?;
    if seen.kind() != kind.number(seen.l3num) {
        return Err(fail("it came out with another type or code"));
    }
    if !seen.checksum_is_right() {
        return Err(fail("it came out with a wrong ICMP checksum"));
    }
    let (word, expected) = (seen.word(), u32::from_be_bytes(kind.word(seen.l3num)));
    if word != Some(expected) {
        return Err(fail(format!(
            "the word behind its checksum is {:#010x} instead of {expected:#010x}",
            word.unwrap_or_default()
        )));
    }
    judge_quote(&sent, &quote, seen.quote())
}

/// Sends an error out; it as it came out, from the NAT.
fn leave(bench: &mut Bench<'_>, flow: &Flow, error: &[u8]) -> Result<Vec<u8>, Stop> {
    bench.send(Side::Inside, error, "an error from inside")?;
    let server = flow.ends.server;
    let name = "the error as it came out";
    let Some(out) = bench.wait(Side::Outside, name, |seen| seen.is_error() && seen.dst == server)? else {
        return Err(fail("it did not come out"));
    };
    let from = Seen::of(&out).map(|seen| seen.src);
    if from != Some(flow.external) {
        let from = from.map_or("nobody".to_owned(), |from| from.to_string());
        return Err(fail(format!("it came out from {from} instead of {}", flow.external)));
    }
    Ok(out)
}

fn inner_router(bench: &mut Bench<'_>) -> Judged {
    let (flow, _, quote) = answered(bench, Proto::Udp)?;
    let [router, _] = bench.hosts.clients;
    let error = TIME_EXCEEDED.error(router, flow.ends.server, &quote).ok_or_else(|| inconclusive("no such error"))?;
    leave(bench, &flow, &error).map(drop)
}

/// Behind the error about nothing a genuine one is sent: a NAT that lets none out is not praised for stopping this one.
fn unknown_flow(bench: &mut Bench<'_>) -> Judged {
    let (flow, _, genuine) = answered(bench, Proto::Udp)?;
    let (client, server) = (flow.ends.client, flow.ends.server);
    let mut quote = genuine.clone();
    // From another port of the server's.
    let at = if client.is_ipv4() { 20 } else { 40 };
    if let Some(byte) = quote.get_mut(at) {
        *byte ^= 0x2a;
    }
    let error = |kind: ErrorKind, quote: &[u8]| {
        kind.error(client, server, quote).ok_or_else(|| inconclusive("the family has no such error"))
    };
    bench.send(Side::Inside, &error(PORT_UNREACHABLE, &quote)?, "an error about nothing")?;
    bench.send(Side::Inside, &error(PROHIBITED, &genuine)?, "genuine, behind the one about nothing")?;
    let is = |kind: ErrorKind| move |seen: &Seen<'_>| seen.dst == server && seen.kind() == kind.number(seen.l3num);
    let came = bench.wait(Side::Outside, "the genuine error as it came out", is(PROHIBITED))?;
    bench.settle()?;
    if let Some(packet) = bench.find(Side::Outside, "the error about nothing as it came out", is(PORT_UNREACHABLE))? {
        let from = Seen::of(&packet).map_or("nobody".to_owned(), |seen| seen.src.to_string());
        return Err(fail(format!("it came out, from {from}")));
    }
    match came {
        Some(_) => Ok(()),
        None => Err(not_applicable("vacuous: the NAT lets no error about UDP out, genuine or not")),
    }
}
