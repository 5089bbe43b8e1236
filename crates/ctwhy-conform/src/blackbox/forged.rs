//! Errors that must not come in: about nothing that went out, to somebody else, spoiled, or of a kind that a NAT stops.
//!
//! Behind each a genuine error about the same flow is sent. When that has arrived, the forged one would have arrived before;
//! and a NAT that lets no error in at all is not praised for stopping this one.

use std::net::IpAddr;

use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER};
use ctwhy_core::tuple::L3;

use super::bench::Bench;
use super::flow::{ErrorKind, Flow, Proto, SOURCE_QUENCH, TIME_EXCEEDED};
use super::nat::Side;
use super::read::{Seen, put16, seal_header, spoil_icmp_checksum};
use super::requirement::{Group, Judged, Level, Requirement, Stop, fail, inconclusive, not_applicable};
use crate::compose::{self, Ip, Piece};

/// Who forges, and who does not.
const FORGER: u16 = 65;
const GENUINE: u16 = 8;

/// Makes the forged error of a flow.
type Forge = fn(&mut Bench<'_>, &Flow, IpAddr) -> Result<Vec<u8>, Stop>;

pub(super) fn requirements() -> Vec<Requirement> {
    let one = |proto: Proto, level, id: &str, cites, text: &str, forge: Forge| {
        Requirement::new(Group::Forged, level, id, cites, text, move |bench| dropped(bench, proto, forge))
    };
    use Level::{Kernel, Should};
    let mut all = Vec::new();
    for proto in Proto::ALL {
        let id = format!("RFC5508-REQ-4.{}.unknown-flow", proto.name());
        let text = format!("an error about {} that nobody sent does not come in", proto.first());
        all.push(one(proto, Should, &id, "RFC 5508 REQ-4; ICMP-REL-08", &text, unknown_flow));
        let id = format!("RFC5508-REQ-3.{}.checksum", proto.name());
        let text = format!("an error about {} with a wrong ICMP checksum does not come in", proto.first());
        all.push(one(proto, Should, &id, "RFC 5508 REQ-3; ICMP section B.2", &text, spoiled));
    }
    let udp = Proto::Udp;
    all.extend([
        one(udp, Should, "RFC5508-REQ-4.udp.other-server", "RFC 5508 REQ-4; ICMP-REL-08",
            "an error that quotes the client's port, but a server that it never spoke to, does not come in", other_server),
        one(udp, Should, "RFC5508-REQ-4.udp.other-port", "RFC 5508 REQ-4; ICMP-REL-08",
            "an error that quotes the client's port, but a port of the server's that it never spoke to, does not come in", other_port),
        one(udp, Kernel, "KERNEL-ICMP-REL-04.outer-destination", "ICMP-REL-03, ICMP-REL-04, B.2 step 7",
            "an error to another address of the NAT than the one that the packet was sent from does not come in", outer_destination),
        one(udp, Kernel, "KERNEL-ICMP-REL-05.inside-address", "ICMP-REL-05",
            "an error to the client's own address, which quotes the packet as the client sent it, does not come in", inside_address),
        one(udp, Kernel, "KERNEL-ICMP-REL-05.untranslated-quote", "ICMP-REL-05",
            "an error that quotes the packet as the client sent it does not come in", untranslated_quote),
        one(udp, Kernel, "KERNEL-ICMP-IN-02.later-fragment", "ICMP-IN-02, ICMP6-E-05, FRAG-08",
            "an error that quotes a fragment other than the first, which has no ports, does not come in", later_fragment),
        one(udp, Kernel, "KERNEL-ICMP-IN-04.cut-short", "ICMP-IN-04",
            "an error that quotes three bytes behind the IP header does not come in", cut_short),
        one(udp, Kernel, "KERNEL-ICMP-REL-07.about-an-error", "ICMP-REL-07; RFC 1122 section 3.2.2",
            "an error about an error does not come in", about_an_error),
        one(udp, Kernel, "KERNEL-NAT-ICMP-11.redirect", "D.6, NAT-ICMP-11, ICMP-REL-11; RFC 5508 REQ-10b",
            "a redirect about a translated flow does not come in: the address that it names means nothing there", redirect),
        one(udp, Should, "RFC5508-REQ-3a.udp", "RFC 5508 REQ-3a; ICMP-IN-01",
            "an error that quotes an IP header with a wrong checksum does not come in", header_checksum)
            .only(L3::V4)
            .beyond("Linux does not look at the checksum of the quoted header"),
        one(udp, Should, "RFC6633.source-quench", "RFC 6633; ICMP-REL-11",
            "source quench, which nobody may send any more, does not come in", source_quench)
            .only(L3::V4)
            .beyond("Linux takes it for an error like any other"),
    ]);
    all
}

fn dropped(bench: &mut Bench<'_>, proto: Proto, forge: Forge) -> Judged {
    bench.require(proto)?;
    if !bench.survey.of(proto).errors {
        return Err(not_applicable(format!("vacuous: the NAT lets no error about {proto} in, genuine or not")));
    }
    let flow = bench.open(proto)?;
    let forger = bench.hosts.router(FORGER);
    let forged = forge(bench, &flow, forger)?;
    let genuine = bench.hosts.router(GENUINE);
    let error = flow.error(&TIME_EXCEEDED, genuine).ok_or_else(|| inconclusive("the family has no such error"))?;
    bench.send(Side::Outside, &forged, "forged")?;
    bench.send(Side::Outside, &error, "genuine, behind the forged one")?;
    let is_genuine = |seen: &Seen<'_>| seen.is_error() && seen.src == genuine;
    let came = bench.wait(Side::Inside, "the genuine error as it arrived", is_genuine)?;
    bench.settle()?;
    // What another router said belongs to another flow and is late.
    let hosts = bench.hosts.clone();
    let wrong = |seen: &Seen<'_>| seen.is_error() && (seen.src == forger || !hosts.is_router(seen.src));
    if let Some(packet) = bench.find(Side::Inside, "the forged error as it arrived", wrong)? {
        let from = Seen::of(&packet).map_or("nobody".to_owned(), |seen| seen.src.to_string());
        return Err(fail(format!("it reached the client, from {from}")));
    }
    match came {
        Some(_) => Ok(()),
        None => Err(inconclusive("neither did the genuine error behind it")),
    }
}

fn made(error: Option<Vec<u8>>) -> Result<Vec<u8>, Stop> {
    error.ok_or_else(|| inconclusive("the family has no such error"))
}

/// A quote of the flow's first packet with something changed at a place of its transport header.
fn with(flow: &Flow, at: usize, change: u16) -> Vec<u8> {
    let mut quote = flow.quote();
    let header = if flow.ends.client.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    let before = ctwhy_core::packet::be16(&quote, header + at).unwrap_or_default();
    put16(&mut quote, header + at, before ^ change);
    quote
}

fn unknown_flow(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    // Another source port, or another id.
    let at = if flow.ends.proto == Proto::Echo { 4 } else { 0 };
    made(flow.error_quoting(&TIME_EXCEEDED, forger, &with(flow, at, 0x2a3c)))
}

fn other_port(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    made(flow.error_quoting(&TIME_EXCEEDED, forger, &with(flow, 2, 0x0155)))
}

fn other_server(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    let mut quote = flow.quote();
    // The last byte of the destination.
    let at = if flow.ends.client.is_ipv4() { 19 } else { 39 };
    if let Some(byte) = quote.get_mut(at) {
        *byte ^= 0x05;
    }
    seal_header(&mut quote);
    made(flow.error_quoting(&TIME_EXCEEDED, forger, &quote))
}

fn spoiled(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    let mut error = made(flow.error(&TIME_EXCEEDED, forger))?;
    spoil_icmp_checksum(&mut error);
    Ok(error)
}

fn outer_destination(bench: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    let other = bench.hosts.externals.iter().copied().find(|address| *address != flow.external);
    let other = other.ok_or_else(|| not_applicable("no second address of the NAT is known (--second)"))?;
    made(TIME_EXCEEDED.error(forger, other, &flow.quote()))
}

fn inside_address(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    if flow.ends.client == flow.external {
        return Err(not_applicable("the client has the address that the NAT has outside"));
    }
    made(TIME_EXCEEDED.error(forger, flow.ends.client, &flow.sent))
}

fn untranslated_quote(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    if (flow.ends.client, flow.ends.port) == (flow.external, flow.outer) {
        return Err(not_applicable("nothing is translated"));
    }
    made(flow.error_quoting(&TIME_EXCEEDED, forger, &flow.sent))
}

/// The bytes are those of the header, so that who takes them for one finds the flow.
fn later_fragment(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    let mut quote = flow.quote();
    if flow.ends.client.is_ipv4() {
        put16(&mut quote, 6, 0x0010);
        seal_header(&mut quote);
    } else {
        let ip = Ip::between(flow.external, flow.ends.server).ttl(1);
        let l4 = flow.seen.get(IPV6_HEADER..).unwrap_or_default();
        let body = compose::Body::new(flow.ends.proto.protonum(L3::V6), l4);
        quote = Piece { offset: 128, ..Piece::last(0x4321, 0..l4.len()) }.packet(&ip, &body);
    }
    made(flow.error_quoting(&TIME_EXCEEDED, forger, &quote))
}

fn cut_short(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    let mut quote = flow.quote();
    quote.truncate(if flow.ends.client.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER } + 3);
    made(flow.error_quoting(&TIME_EXCEEDED, forger, &quote))
}

fn about_an_error(bench: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    let error = made(flow.error(&TIME_EXCEEDED, bench.hosts.router(FORGER + 1)))?;
    // As if the client had sent that error.
    let mut quote = error;
    let (at, length) = if flow.ends.client.is_ipv4() { (12, 4) } else { (8, 16) };
    let source = flow.seen.get(at..at + length).unwrap_or_default().to_vec();
    if let Some(field) = quote.get_mut(at..at + length) {
        field.copy_from_slice(&source);
    }
    seal_header(&mut quote);
    made(flow.error_quoting(&TIME_EXCEEDED, forger, &quote))
}

fn header_checksum(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    let mut quote = flow.quote();
    if let Some(byte) = quote.get_mut(10) {
        *byte ^= 0x5a;
    }
    made(flow.error_quoting(&TIME_EXCEEDED, forger, &quote))
}

fn source_quench(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    made(flow.error(&SOURCE_QUENCH, forger))
}

/// To another gateway, which stands in the word behind the checksum; in IPv6 in front of the quote, which is an option.
fn redirect(_: &mut Bench<'_>, flow: &Flow, forger: IpAddr) -> Result<Vec<u8>, Stop> {
    if flow.ends.client.is_ipv4() {
        return made(ErrorKind::redirect().error(forger, flow.external, &flow.quote()));
    }
    let mut quote = flow.quote();
    quote.resize(quote.len().next_multiple_of(8), 0);
    let option = [4, (1 + quote.len() / 8) as u8, 0, 0, 0, 0, 0, 0];
    let (target, about) = (ctwhy_core::tuple::Addr::from(forger), ctwhy_core::tuple::Addr::from(flow.ends.server));
    let rest = [&target.0[..], &about.0, &option, &quote].concat();
    // Only a neighbour may redirect (RFC 4861 section 8.1).
    let router = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0x66_u16]);
    let ip = Ip::between(router, flow.external).ttl(255);
    Ok(ip.packet(compose::icmp(&ip, 137, 0, [0; 4], &rest)))
}
