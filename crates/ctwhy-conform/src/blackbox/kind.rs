//! Is what leaves the packet that came, translated, or one of the NAT's own?

use ctwhy_core::packet::be32;

use super::bench::Bench;
use super::compare::{DESTINATION, DESTINATION_PORT, FORWARDED, SOURCE, SOURCE_PORT, differences, listed};
use super::flow::{Proto, SERVER_ISN, Shape};
use super::read::Seen;
use super::requirement::{Group, Judged, Level, Requirement, fail, inconclusive, noted};

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for proto in Proto::ALL {
        let (level, id, cites) = match proto {
            Proto::Echo => (Level::Must, "RFC5508-REQ-1.echo.out".to_owned(), "RFC 5508 section 3.2; ICMP-Q-01"),
            _ => (Level::Kernel, format!("KERNEL-NEW-01.{}.out", proto.name()), "catalogue D.1; NAT-SET-01"),
        };
        let text = format!("{} of a client's comes out", proto.first());
        all.push(Requirement::new(Group::Kind, level, id, cites, text, move |bench| comes_out(bench, proto)));
        let id = format!("KERNEL-NAT-MAN.{}.packet", proto.name());
        let text = format!("{} leaves as it came: IPID, TOS and all else but source, TTL and checksums", proto.first());
        let cites = "NAT-MAN-01 to -05";
        all.push(Requirement::new(Group::Kind, Level::Kernel, id, cites, text, move |bench| {
            leaves_as_it_came(bench, proto)
        }));
        let (level, id, cites) = match proto {
            Proto::Echo => (Level::Must, "RFC5508-REQ-1.echo.back".to_owned(), "RFC 5508 section 3.2; ICMP-Q-04"),
            _ => (Level::Kernel, format!("KERNEL-NAT-MAN.{}.back", proto.name()), "NAT-MAN-01 to -05"),
        };
        let text = match proto {
            Proto::Tcp => "the server's SYN ACK reaches the client",
            _ => "the server's answer reaches the client",
        };
        all.push(Requirement::new(Group::Kind, level, id, cites, text, move |bench| comes_back(bench, proto)));
        let id = format!("KERNEL-NAT-MAN.{}.answer", proto.name());
        let text =
            format!("an answer to {} arrives as it was sent, but for destination, TTL and checksums", proto.first());
        all.push(Requirement::new(Group::Kind, Level::Kernel, id, "NAT-MAN-01 to -05", text, move |bench| {
            arrives_as_it_was_sent(bench, proto)
        }));
        let id = format!("NOTE-KIND.{}", proto.name());
        let text = format!("does the NAT pass {proto} on, or end it in sockets of its own?");
        all.push(Requirement::new(Group::Kind, Level::Note, id, "", text, move |bench| kind(bench, proto)));
    }
    all
}

fn comes_out(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    if bench.survey.of(proto).passes {
        return Ok(());
    }
    let ends = bench.ends(proto);
    match bench.start(&ends, &Shape::default())? {
        Some(_) => Ok(()),
        None => Err(fail(format!("{} did not come out", proto.first()))),
    }
}

/// What translation may change on the way out.
const OUTWARDS: [&str; 2] = [SOURCE, SOURCE_PORT];
/// And on the way in.
const INWARDS: [&str; 2] = [DESTINATION, DESTINATION_PORT];

fn leaves_as_it_came(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let flow = bench.open(proto)?;
    let found = differences(&flow.sent, &flow.seen, &[&FORWARDED[..], &OUTWARDS].concat());
    let seen = Seen::of(&flow.seen).ok_or_else(|| inconclusive("what came out cannot be read"))?;
    if !seen.checksum_is_right() {
        return Err(fail("its transport checksum is wrong when it comes out"));
    }
    if found.is_empty() { Ok(()) } else { Err(fail(format!("it comes out with other fields: {}", listed(&found)))) }
}

fn comes_back(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let flow = bench.open(proto)?;
    let Some(arrived) = bench.answer(&flow, ANSWER)? else {
        return Err(fail("it never arrived"));
    };
    let seen = Seen::of(&arrived).ok_or_else(|| inconclusive("what arrived cannot be read"))?;
    if seen.checksum_is_right() { Ok(()) } else { Err(fail("it arrived with a wrong transport checksum")) }
}

const ANSWER: &[u8] = b"ctwhy conform nat: answer";

fn arrives_as_it_was_sent(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let flow = bench.open(proto)?;
    let sent = flow.answer(ANSWER);
    let Some(arrived) = bench.answer(&flow, ANSWER)? else {
        return Err(inconclusive("it never arrived"));
    };
    let found = differences(&sent, &arrived, &[&FORWARDED[..], &INWARDS].concat());
    if found.is_empty() { Ok(()) } else { Err(fail(format!("it arrives with other fields: {}", listed(&found)))) }
}

/// A NAT that passes packets on keeps what tells them apart; a socket draws it anew.
fn kind(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let flow = bench.open(proto)?;
    let but = [&FORWARDED[..], &OUTWARDS].concat();
    let out = differences(&flow.sent, &flow.seen, &but);
    let mut evidence: Vec<&str> = Vec::new();
    if out.iter().any(|field| field.starts_with("IPID") || field.starts_with("traffic class")) {
        evidence.push(if flow.ends.client.is_ipv4() { "a new IPID" } else { "a new flow label" });
    }
    if out.iter().any(|field| field.starts_with("TOS")) {
        evidence.push("no TOS");
    }
    if proto == Proto::Tcp && flow.syn() != Seen::of(&flow.sent).and_then(|sent| be32(sent.l4, 4)).unwrap_or_default() {
        evidence.push("a new initial sequence number");
    }
    let answer = bench.answer(&flow, ANSWER)?;
    let answered = answer.as_deref().and_then(Seen::of);
    if let Some(answered) = answered
        && proto == Proto::Tcp
        && be32(answered.l4, 4) != Some(SERVER_ISN)
    {
        evidence.push("a new one of the server's, too");
    }
    let seen = Seen::of(&flow.seen).ok_or_else(|| inconclusive("what came out cannot be read"))?;
    let ttl = |seen: Option<Seen<'_>>| seen.map_or("none".to_owned(), |seen| seen.ttl.to_string());
    let ports = match flow.changed() {
        true => format!("another {}", proto.number()),
        false => format!("the same {}", proto.number()),
    };
    let facts = format!("{ports}; TTL 57 out as {}, 62 in as {}", ttl(Some(seen)), ttl(answered));
    Err(noted(match evidence.as_slice() {
        [] => format!("packets pass: {facts}"),
        _ => format!("sockets: {}; {facts}", evidence.join(", ")),
    }))
}
