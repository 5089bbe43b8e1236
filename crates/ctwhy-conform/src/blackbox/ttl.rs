//! A NAT is a hop: it counts, it is seen, and it counts nothing twice.

use super::bench::Bench;
use super::flow::{FAR_TTL, Proto, Shape, TIME_EXCEEDED, TTL};
use super::nat::Side;
use super::quotes::judge_quote;
use super::read::Seen;
use super::requirement::{Group, Judged, Level, Requirement, fail, inconclusive};

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for proto in Proto::ALL {
        let name = proto.name();
        let id = format!("RFC1812-5.3.1.{name}.out");
        let text = format!("{} leaves with a TTL less by one, of 57 and of 2", proto.first());
        let cites = "RFC 1812 section 5.3.1; RFC 8200 section 3";
        all.push(Requirement::new(Group::Ttl, Level::Must, id, cites, text, move |bench| out(bench, proto)));
        let id = format!("RFC1812-5.3.1.{name}.in");
        let text = format!("an answer to {} arrives with a TTL less by one", proto.first());
        all.push(Requirement::new(Group::Ttl, Level::Must, id, cites, text, move |bench| inwards(bench, proto)));
        let id = format!("RFC5508-REQ-10.{name}.ttl-1");
        let text = format!(
            "{} with a TTL of 1 goes no further, and the client is told so by the NAT, with its packet quoted",
            proto.first()
        );
        let cites = "RFC 5508 REQ-10a; RFC 1812 section 5.3.1; RFC 4443 section 3.3; ICMP-LOC-01";
        all.push(Requirement::new(Group::Ttl, Level::Must, id, cites, text, move |bench| last_hop(bench, proto)));
    }
    let text = "an error of a router's arrives with its TTL less by one";
    let cites = "RFC 1812 section 5.3.1";
    all.push(Requirement::new(Group::Ttl, Level::Must, "RFC1812-5.3.1.error", cites, text, error));
    all
}

fn ttl(packet: &[u8]) -> Option<u8> {
    Seen::of(packet).map(|seen| seen.ttl)
}

fn expect(found: Option<u8>, expected: u8, sent: u8) -> Judged {
    match found {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(fail(format!("{sent} becomes {found}"))),
        None => Err(inconclusive("what came cannot be read")),
    }
}

fn out(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let flow = bench.open(proto)?;
    expect(ttl(&flow.seen), TTL - 1, TTL)?;
    let flow = bench.open_with(proto, &Shape::ttl(2))?;
    expect(ttl(&flow.seen), 1, 2)
}

fn inwards(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let flow = bench.open(proto)?;
    match bench.answer(&flow, b"ctwhy conform nat: answer")? {
        Some(arrived) => expect(ttl(&arrived), FAR_TTL - 1, FAR_TTL),
        None => Err(fail("the answer never arrived")),
    }
}

fn last_hop(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    bench.require(proto)?;
    let ends = bench.ends(proto);
    let sent = ends.packet(&Shape::ttl(1));
    bench.send(Side::Inside, &sent, format!("{} with a TTL of 1", proto.first()))?;
    let client = ends.client;
    let told = bench.wait(Side::Inside, "what the client is told", |seen| seen.is_error() && seen.dst == client)?;
    bench.settle()?;
    if let Some(went) = bench.find(Side::Outside, "it came out", |seen| ends.is_outward(seen))? {
        return Err(fail(format!("it went on, with a TTL of {}", ttl(&went).unwrap_or_default())));
    }
    let Some(told) = told else { return Err(fail("it went no further, and the client was not told")) };
    let seen = Seen::of(&told).ok_or_else(|| inconclusive("what arrived cannot be read"))?;
    if seen.kind() != TIME_EXCEEDED.number(seen.l3num) {
        return Err(fail(format!(
            "the client was told otherwise: type and code {:?}",
            seen.kind().unwrap_or_default()
        )));
    }
    if !seen.checksum_is_right() {
        return Err(fail("the error of the NAT has a wrong ICMP checksum"));
    }
    let quote = sent.get(..seen.quote().len()).unwrap_or(&sent).to_vec();
    judge_quote(&sent, &quote, seen.quote())
}

fn error(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    let error = flow.error(&TIME_EXCEEDED, bench.hosts.router(1)).ok_or_else(|| inconclusive("no such error"))?;
    let arrived = bench.deliver(&flow, &error, "time exceeded")?;
    expect(ttl(&arrived), FAR_TTL - 1, FAR_TTL)
}
