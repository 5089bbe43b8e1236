//! From inside to inside by the address outside (RFC 4787 REQ-9).

use super::bench::Bench;
use super::flow::{Ends, Flow, PORT_UNREACHABLE, Proto, Shape};
use super::nat::Side;
use super::quotes::judge_quote;
use super::read::{Seen, set_ttl};
use super::requirement::{Group, Judged, Level, Requirement, Stop, fail, inconclusive};

const WHY: &str = "Linux does it only by rules for it";

pub(super) fn requirements() -> Vec<Requirement> {
    let of = |id: &str, cites, text: &str, probe: fn(&mut Bench<'_>) -> Judged| {
        Requirement::new(Group::Hairpin, Level::Must, id, cites, text, probe).beyond(WHY)
    };
    vec![
        of(
            "RFC4787-REQ-9.udp",
            "RFC 4787 REQ-9, REQ-9a; NAT-PORT-12",
            "a datagram of a client's to the address outside of another reaches it, from the first one's address outside",
            |bench| turned(bench, Proto::Udp).map(drop),
        ),
        of(
            "RFC5382-REQ-8.tcp",
            "RFC 5382 REQ-8, REQ-8a; NAT-PORT-12",
            "a SYN of a client's to the address outside of another reaches it, from the first one's address outside",
            |bench| turned(bench, Proto::Tcp).map(drop),
        ),
        of(
            "RFC5508-REQ-7a.udp",
            "RFC 5508 REQ-7a; RFC 7857 section 12",
            "an error about a datagram between clients, by the address outside, reaches the one who sent it, and quotes what that one sent",
            error,
        ),
    ]
}

/// A packet from one client to the other's address outside: as it was sent, and as the other got it.
fn turned(bench: &mut Bench<'_>, proto: Proto) -> Result<(Flow, Vec<u8>, Vec<u8>), Stop> {
    let flow = bench.open(proto)?;
    let [other, _] = bench.hosts.clients;
    let fresh = bench.ends(proto);
    let ends = Ends { client: other, server: flow.external, dport: flow.outer, port: fresh.port, proto };
    let sent = ends.packet(&Shape::text("ctwhy conform nat: over there"));
    bench.send(Side::Inside, &sent, "from one client to the other's address outside")?;
    let (client, port) = (flow.ends.client, flow.ends.port);
    let protonum = proto.protonum(flow.ends.l3num());
    let name = "as the other client got it";
    let arrived = bench.wait(Side::Inside, name, |seen| {
        seen.dst == client && seen.is(protonum) && seen.dport() == Some(port) && seen.src != flow.ends.server
    })?;
    let Some(arrived) = arrived else { return Err(fail("it did not reach the other client")) };
    let source = Seen::of(&arrived).map(|seen| seen.src);
    if source != Some(flow.external) {
        let source = source.map_or("nobody".to_owned(), |source| source.to_string());
        return Err(fail(format!(
            "it arrived from {source} instead of {}, and the answer would go past the NAT",
            flow.external
        )));
    }
    Ok((flow, sent, arrived))
}

fn error(bench: &mut Bench<'_>) -> Judged {
    let (flow, sent, mut quote) = turned(bench, Proto::Udp)?;
    set_ttl(&mut quote, 1);
    let error = PORT_UNREACHABLE.error(flow.ends.client, flow.external, &quote);
    let error = error.ok_or_else(|| inconclusive("no such error"))?;
    bench.send(Side::Inside, &error, "the error of the one who got it")?;
    let [other, _] = bench.hosts.clients;
    let Some(arrived) =
        bench.wait(Side::Inside, "the error as it arrived", |seen| seen.is_error() && seen.dst == other)?
    else {
        return Err(fail("the error did not reach the one who sent it"));
    };
    let seen = Seen::of(&arrived).ok_or_else(|| inconclusive("what arrived cannot be read"))?;
    if !seen.checksum_is_right() {
        return Err(fail("the error arrived with a wrong ICMP checksum"));
    }
    judge_quote(&sent, &quote, seen.quote())
}
