//! Who may send in (RFC 4787 section 5).

use std::net::IpAddr;

use ctwhy_core::tuple::L3;

use super::bench::Bench;
use super::connection::Connection;
use super::flow::{FAR_TTL, Flow, Proto, is_reset};
use super::nat::Side;
use super::requirement::{Group, Judged, Level, Requirement, Stop, fail, inconclusive, not_applicable, noted};
use crate::compose::{self, Ip, Tcp};

pub(super) fn requirements() -> Vec<Requirement> {
    let of = |level, id: &str, cites, text: &str, probe: fn(&mut Bench<'_>) -> Judged| {
        Requirement::new(Group::Filtering, level, id, cites, text, probe)
    };
    vec![
        of(
            Level::Note,
            "NOTE-FILTERING.udp",
            "RFC 4787 REQ-8; RFC 5382 REQ-3; RFC 6888 REQ-7",
            "who may send to a port that stands for a client?",
            behaviour,
        ),
        of(
            Level::Kernel,
            "RFC4787-5.udp.unmapped",
            "RFC 4787 section 5; GC-03",
            "a datagram to a port of the NAT's that stands for nobody reaches no client",
            unmapped,
        ),
        of(
            Level::Kernel,
            "RFC4787-5.udp.inside-address",
            "RFC 4787 section 5",
            "a datagram from outside to a client's own address does not reach it",
            inside_address,
        ),
        of(
            Level::Must,
            "RFC5382-REQ-2.tcp.simultaneous-open",
            "RFC 5382 REQ-2a",
            "where the SYNs of client and server cross, a connection comes about that carries data in both directions",
            simultaneous_open,
        ),
        of(
            Level::Must,
            "RFC5382-REQ-4.tcp",
            "RFC 5382 REQ-4",
            "a SYN that nobody asked for is not answered, at least not at once",
            unsolicited,
        )
        .beyond("Linux answers for the ports of its own that stand for nobody else, with a RST"),
    ]
}

/// A datagram from somewhere to somewhere.
fn datagram(from: (IpAddr, u16), to: (IpAddr, u16), text: &[u8]) -> Vec<u8> {
    let ip = Ip::between(from.0, to.0).ttl(FAR_TTL);
    ip.packet(compose::udp(&ip, from.1, to.1, text))
}

/// Sends a datagram in, and then an answer that may come in: did the first one arrive?
fn arrives(bench: &mut Bench<'_>, flow: &Flow, packet: &[u8], text: &[u8]) -> Result<bool, Stop> {
    bench.send(Side::Outside, packet, "a datagram that nobody asked for")?;
    let behind = bench.answer(flow, b"ctwhy conform nat: behind it")?;
    if behind.is_none() {
        return Err(inconclusive("the answer behind it did not arrive either"));
    }
    bench.settle()?;
    Ok(bench.find(Side::Inside, "the datagram as it arrived", |seen| seen.payload() == text)?.is_some())
}

fn behaviour(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    let ends = flow.ends.clone();
    let text = b"ctwhy conform nat: another port";
    let packet = datagram((ends.server, ends.dport ^ 0x0101), (flow.external, flow.outer), text);
    let port = arrives(bench, &flow, &packet, text)?;
    let text = b"ctwhy conform nat: another server";
    let stranger = bench.ends(Proto::Udp).server;
    let packet = datagram((stranger, ends.dport), (flow.external, flow.outer), text);
    let address = arrives(bench, &flow, &packet, text)?;
    Err(noted(match (address, port) {
        (true, _) => "anybody (endpoint-independent filtering)",
        (false, true) => "any port of a server that the client has sent to (address-dependent filtering)",
        (false, false) => "the port that the client has sent to (address- and port-dependent filtering)",
    }))
}

fn unmapped(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    let text = b"ctwhy conform nat: to nobody";
    // A port that is neither the client's nor in anybody's way.
    let port = 50_000 | (flow.outer ^ 0x0155) & 0x03ff;
    let packet = datagram((flow.ends.server, flow.ends.dport), (flow.external, port), text);
    if arrives(bench, &flow, &packet, text)? { Err(fail("it reached a client")) } else { Ok(()) }
}

fn inside_address(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    if flow.ends.client == flow.external {
        return Err(not_applicable("the client has the address that the NAT has outside"));
    }
    let text = b"ctwhy conform nat: straight to the client";
    let packet = datagram((flow.ends.server, flow.ends.dport ^ 0x0202), (flow.ends.client, flow.ends.port), text);
    if arrives(bench, &flow, &packet, text)? { Err(fail("it reached the client")) } else { Ok(()) }
}

fn simultaneous_open(bench: &mut Bench<'_>) -> Judged {
    let mut connection = Connection::open_from_both_ends(bench)?;
    connection.say(bench, b"ctwhy conform nat: both of us began")?;
    connection.hear(bench, b"ctwhy conform nat: so we did")
}

fn unsolicited(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open(Proto::Tcp)?;
    let stranger = bench.ends(Proto::Tcp);
    let ip = Ip::between(stranger.server, flow.external).ttl(FAR_TTL);
    let port = 50_000 | (flow.outer ^ 0x02aa) & 0x03ff;
    let syn = Tcp { sport: stranger.dport, dport: port, ..Tcp::syn() };
    bench.send(Side::Outside, &ip.packet(syn.body(&ip)), "a SYN that nobody asked for")?;
    let server = stranger.server;
    let Some(packet) = bench.wait(Side::Outside, "what it is answered", |seen| seen.dst == server)? else {
        return Ok(());
    };
    let seen = super::read::Seen::of(&packet).ok_or_else(|| inconclusive("what came out cannot be read"))?;
    let what = match (seen.is_error(), seen.l3num) {
        (true, L3::V4 | L3::V6) => "an ICMP error",
        (false, _) if is_reset(&seen, &flow) || seen.l4.get(13).is_some_and(|flags| flags & 4 != 0) => "a RST",
        (false, _) => "something else",
    };
    Err(fail(format!("it is answered at once, with {what}")))
}
