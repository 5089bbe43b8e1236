//! Errors of routers and servers, on their way to the client (RFC 5508 REQ-4).

use ctwhy_core::packet::be32;

use super::bench::Bench;
use super::flow::{ErrorKind, Flow, KINDS, Proto, is_reset};
use super::nat::Side;
use super::read::Seen;
use super::requirement::{Group, Judged, Level, Requirement, fail, inconclusive};
use crate::compose::flag;

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for proto in Proto::ALL {
        for kind in KINDS {
            let id = format!("RFC5508-REQ-4.{}.{}", proto.name(), kind.name);
            let text = format!(
                "{} about {} reaches the client, with its type and code, from whom it is, its checksums right",
                kind.name.replace('-', " "),
                proto.first()
            );
            let cites = "RFC 5508 REQ-4b, REQ-4c; RFC 4787 REQ-12b; RFC 5382 REQ-9; ICMP-REL-01, NAT-ICMP-01";
            all.push(Requirement::new(Group::ErrorsIn, Level::Must, id, cites, text, move |bench| {
                arrives(bench, proto, &kind)
            }));
        }
    }
    let text =
        "a RST, the answer of a closed port, reaches the client, and the client can take it for an answer to its SYN";
    let cites = "RFC 5382 REQ-2; RFC 9293 section 3.10.7.3";
    all.push(Requirement::new(Group::ErrorsIn, Level::Must, "RFC5382-REQ-2.closed-port", cites, text, closed_port));
    all
}

/// The first two things to ask of every error: is it there, and is it the one that was sent?
fn arrives(bench: &mut Bench<'_>, proto: Proto, kind: &ErrorKind) -> Judged {
    let flow = bench.open(proto)?;
    let number = bench.fresh();
    let router = bench.hosts.router(number);
    let error = flow.error(kind, router).ok_or_else(|| inconclusive("the family has no such error"))?;
    let name = kind.name.replace('-', " ");
    let arrived = bench.deliver(&flow, &error, &name)?;
    let seen = Seen::of(&arrived).ok_or_else(|| inconclusive("what arrived cannot be read"))?;
    let expected = kind.number(seen.l3num);
    if seen.kind() != expected {
        let show = |kind: Option<(u8, u8)>| kind.map_or("none".to_owned(), |(kind, code)| format!("{kind}/{code}"));
        return Err(fail(format!("it arrived with type and code {} instead of {}", show(seen.kind()), show(expected))));
    }
    if seen.src != router {
        return Err(fail(format!("it arrived from {} instead of the router, {router}", seen.src)));
    }
    if !seen.checksum_is_right() {
        return Err(fail("it arrived with a wrong ICMP checksum"));
    }
    Ok(())
}

fn closed_port(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open(Proto::Tcp)?;
    bench.send(Side::Outside, &flow.reset(), "the RST of a closed port")?;
    let name = "the RST as it arrived";
    let Some(arrived) = bench.wait(Side::Inside, name, |seen| is_reset(seen, &flow) || is_error_for(seen, &flow))?
    else {
        return Err(fail("the client never heard of it"));
    };
    let seen = Seen::of(&arrived).ok_or_else(|| inconclusive("what arrived cannot be read"))?;
    if seen.is_error() {
        return Err(fail("an ICMP error reached the client in place of the RST"));
    }
    if !seen.checksum_is_right() {
        return Err(fail("the RST arrived with a wrong checksum"));
    }
    // In SYN-SENT a RST counts when it acknowledges the SYN.
    let (flags, acknowledged) = (seen.l4.get(13), be32(seen.l4, 8));
    let syn = Seen::of(&flow.sent).and_then(|sent| be32(sent.l4, 4));
    let expected = syn.map(|syn| syn.wrapping_add(1));
    if flags.is_none_or(|flags| flags & flag::ACK == 0) {
        return Err(fail("the RST acknowledges nothing (its ACK flag is off): the client ignores it and waits"));
    }
    if acknowledged != expected {
        let number = acknowledged.unwrap_or_default();
        let expected = expected.unwrap_or_default();
        return Err(fail(format!(
            "the RST does not acknowledge the SYN (it says {number:#x}, {expected:#x} would do): the client ignores it and waits"
        )));
    }
    Ok(())
}

fn is_error_for(seen: &Seen<'_>, flow: &Flow) -> bool {
    seen.is_error() && seen.dst == flow.ends.client
}
