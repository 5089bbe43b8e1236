//! The packet that an error quotes, in the client's view: it has to be the one that the client sent (RFC 5508 REQ-4a).

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER, Packet, Quoted, be16, be32};
use ctwhy_core::tuple::{L3, extract};

use super::bench::Bench;
use super::compare::{HEADER_CHECKSUM, TTL, differences, listed};
use super::flow::{ErrorKind, Flow, PORT_UNREACHABLE, Proto, Shape, TIME_EXCEEDED, TOO_BIG};
use super::nat::Side;
use super::read::{ICMP_HEADER, Seen, put16, seal_header, set_ttl};
use super::requirement::{Group, Judged, Level, Requirement, Stop, fail, inconclusive};
use crate::compose::proto;

fn requirement(
    level: Level,
    id: impl Into<String>,
    cites: &'static str,
    text: impl Into<String>,
    probe: impl Fn(&mut Bench<'_>) -> Judged + 'static,
) -> Requirement {
    Requirement::new(Group::Quotes, level, id, cites, text, probe)
}

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for proto in Proto::ALL {
        let name = proto.name();
        for kind in [TIME_EXCEEDED, TOO_BIG] {
            let id = format!("RFC5508-REQ-4a.{name}.{}", kind.name);
            let text = format!(
                "what {} quotes is byte for byte {} as the client sent it, but for the TTL",
                kind.name.replace('-', " "),
                proto.first()
            );
            let cites = "RFC 5508 REQ-4a; NAT-ICMP-01, NAT-ICMP-07, NAT-MAN-01 to -05";
            all.push(requirement(Level::Must, id, cites, text, move |bench| exact(bench, proto, &kind)));
        }
        let id = format!("KERNEL-NAT-ICMP.{name}.rest-of-header");
        let text = format!("what stands behind the checksum of an error about {} stays, used or not", proto.first());
        let cites = "RFC 5508 section 4.2; ICMP-REL-14";
        all.push(requirement(Level::Kernel, id, cites, text, move |bench| rest_of_header(bench, proto)));
    }
    for proto in [Proto::Udp, Proto::Tcp] {
        let name = proto.name();
        let id = format!("RFC5508-REQ-4a.{name}.eight-bytes");
        let text = format!(
            "an error that quotes no more than 8 bytes behind the IP header of {} arrives, ports put back",
            proto.first()
        );
        let cites = "RFC 5508 REQ-4a; RFC 792; ICMP-IN-04, NAT-MAN-02";
        all.push(requirement(Level::Must, id, cites, text, move |bench| eight_bytes(bench, proto)));
        let id = format!("RFC5508-REQ-3c.{name}");
        let text = format!(
            "an error that quotes {} with a wrong transport checksum arrives: that is not the NAT's to judge",
            proto.first()
        );
        let cites = "RFC 5508 REQ-3c; ICMP-IN-06";
        all.push(requirement(Level::Should, id, cites, text, move |bench| wrong_checksum(bench, proto)));
        let id = format!("RFC5508-REQ-3d.{name}");
        let text = format!(
            "what RFC 4884 puts behind the quote of {}, here the labels of MPLS, arrives as it was",
            proto.first()
        );
        let cites = "RFC 5508 REQ-3d; RFC 4884, RFC 4950; NAT-ICMP-08";
        all.push(requirement(Level::Must, id, cites, text, move |bench| extension(bench, proto)));
    }
    let text = "an error that quotes a header with IP options arrives, ports put back";
    let cites = "RFC 5508 REQ-3b; ICMP-IN-05";
    all.push(requirement(Level::Must, "RFC5508-REQ-3b.udp", cites, text, options).only(L3::V4));
    let text = "an error that quotes a header with an extension header arrives, ports put back";
    all.push(
        requirement(Level::Kernel, "KERNEL-ICMP6-E-05.udp", "ICMP6-E-05, NAT-ICMP-10", text, extension_header)
            .only(L3::V6),
    );
    let text = "an error that quotes the first fragment of a datagram arrives, ports put back";
    all.push(requirement(
        Level::Kernel,
        "KERNEL-FRAG-08.first-fragment",
        "FRAG-08, ICMP-IN-02, ICMP6-E-05",
        text,
        first_fragment,
    ));
    let text = "a datagram without a UDP checksum comes out without one";
    all.push(
        requirement(Level::Kernel, "KERNEL-NAT-MAN-03.udp.no-checksum", "RFC 768; NAT-MAN-03", text, no_checksum)
            .only(L3::V4),
    );
    let text = "a quoted datagram without a UDP checksum has none in the client's view";
    let id = "KERNEL-NAT-MAN-03.udp.no-checksum-quoted";
    all.push(requirement(Level::Kernel, id, "RFC 768; NAT-MAN-03", text, no_checksum_quoted).only(L3::V4));
    let text = "of three datagrams of one flow in flight, each error quotes its own";
    all.push(requirement(Level::Must, "RFC5508-REQ-4a.udp.in-flight", "RFC 5508 REQ-4a", text, in_flight));
    all
}

/// Has an error arrive that quotes this, and whatever is behind it.
fn deliver(bench: &mut Bench<'_>, flow: &Flow, kind: &ErrorKind, rest: &[u8], name: &str) -> Result<Vec<u8>, Stop> {
    let number = bench.fresh();
    let router = bench.hosts.router(number);
    let error = flow.error_quoting(kind, router, rest).ok_or_else(|| inconclusive("the family has no such error"))?;
    bench.deliver(flow, &error, name)
}

/// The packet that was sent, as a router quotes it: with its TTL, and as much of it as the router quoted, or more where more
/// was found.
fn expected(sent: &[u8], quote: &[u8], found: &[u8]) -> Vec<u8> {
    let length = quote.len().max(found.len());
    let mut expected = sent.get(..length).unwrap_or(sent).to_vec();
    let ttl = match quote.first().map(|first| first >> 4) {
        Some(4) => quote.get(8),
        _ => quote.get(7),
    };
    set_ttl(&mut expected, ttl.copied().unwrap_or_default());
    expected
}

/// How a quote differs from what was sent.
fn quote_differences(sent: &[u8], quote: &[u8], found: &[u8]) -> Vec<String> {
    let mut differences = differences(&expected(sent, quote, found), found, &[TTL, HEADER_CHECKSUM]);
    let header = |packet: &[u8]| packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let sound = |packet: &[u8]| Sum::default().bytes(packet.get(..header(packet)).unwrap_or_default()).fold() == 0xffff;
    if quote.first().is_some_and(|first| first >> 4 == 4) && !sound(found) {
        differences.push("header checksum wrong".to_owned());
    }
    differences
}

fn read(packet: &[u8]) -> Result<Seen<'_>, Stop> {
    Seen::of(packet).ok_or_else(|| inconclusive("what arrived cannot be read"))
}

/// Is a quote as it was found the packet that was sent, as far as a router quoted it?
pub(super) fn judge_quote(sent: &[u8], quote: &[u8], found: &[u8]) -> Judged {
    let differences = quote_differences(sent, quote, found);
    if differences.is_empty() { Ok(()) } else { Err(fail(format!("in the quote: {}", listed(&differences)))) }
}

fn exact(bench: &mut Bench<'_>, proto: Proto, kind: &ErrorKind) -> Judged {
    let flow = bench.open(proto)?;
    let quote = flow.quote();
    let arrived = deliver(bench, &flow, kind, &quote, kind.name)?;
    judge_quote(&flow.sent, &quote, read(&arrived)?.quote())
}

fn rest_of_header(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    for kind in [PORT_UNREACHABLE, TIME_EXCEEDED] {
        let flow = bench.open(proto)?;
        let quote = flow.quote();
        let arrived = deliver(bench, &flow, &kind, &quote, kind.name)?;
        let seen = read(&arrived)?;
        let sent = u32::from_be_bytes(kind.word(seen.l3num));
        if seen.word() != Some(sent) {
            let found = seen.word().unwrap_or_default();
            return Err(fail(format!("of {} it is {found:#010x} instead of {sent:#010x}", kind.name)));
        }
    }
    Ok(())
}

/// Who talks to whom in the packet that an error quotes.
fn restored(arrived: &[u8], flow: &Flow) -> Judged {
    let packet = Packet::parse(arrived, arrived.len()).map_err(|error| inconclusive(error.to_string()))?;
    let unreadable = |why: String| fail(format!("what it quotes cannot be read: {why}"));
    let at = packet.transport.map_err(|error| unreadable(error.to_string()))?.offset + ICMP_HEADER;
    let quoted = Quoted::parse(&packet, at).map_err(|error| unreadable(error.to_string()))?;
    let l4 = quoted.bytes.get(quoted.transport.offset..).unwrap_or_default();
    let tuple = extract(packet.l3num, quoted.src, quoted.dst, quoted.transport.protonum, l4);
    let tuple = tuple.map_err(|_| unreadable("its transport header is cut off".to_owned()))?;
    let ends = &flow.ends;
    let (found, expected) = ((tuple.src_ip(), tuple.src_u), (ends.client, ends.port));
    if found != expected {
        let text = format!(
            "it quotes a packet of {} port {} instead of the client's, {} port {}",
            found.0, found.1, expected.0, expected.1
        );
        return Err(fail(text));
    }
    if (tuple.dst_ip(), tuple.dst_u) != (ends.server, ends.dport) {
        return Err(fail(format!("it quotes a packet to {} port {}", tuple.dst_ip(), tuple.dst_u)));
    }
    Ok(())
}

const fn header(l3num: L3) -> usize {
    match l3num {
        L3::V4 => IPV4_HEADER,
        L3::V6 => IPV6_HEADER,
    }
}

fn eight_bytes(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let flow = bench.open(proto)?;
    let mut quote = flow.quote();
    quote.truncate(header(flow.ends.l3num()) + 8);
    let arrived = deliver(bench, &flow, &TIME_EXCEEDED, &quote, "an error that quotes 8 bytes")?;
    restored(&arrived, &flow)?;
    judge_quote(&flow.sent, &quote, read(&arrived)?.quote())
}

fn wrong_checksum(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let flow = bench.open(proto)?;
    let mut quote = flow.quote();
    let at = header(flow.ends.l3num()) + if proto == Proto::Tcp { 16 } else { 6 };
    let wrong = be16(&quote, at).unwrap_or_default() ^ 0x5555;
    put16(&mut quote, at, wrong);
    let arrived = deliver(bench, &flow, &TIME_EXCEEDED, &quote, "an error that quotes a wrong checksum")?;
    restored(&arrived, &flow)
}

/// RFC 4884: the quote filled up to 128 bytes, and an object behind it: here a stack of two labels.
fn extension(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    const ORIGINAL: usize = 128;
    const LABELS: [u8; 12] = [0, 12, 1, 1, 0x06, 0x40, 0x30, 0x40, 0x0a, 0xbc, 0xd1, 0x3f];
    let flow = bench.open(proto)?;
    let l3num = flow.ends.l3num();
    let mut rest = flow.quote();
    rest.resize(ORIGINAL, 0);
    let mut structure = vec![0x20, 0, 0, 0];
    structure.extend(LABELS);
    let checksum = Sum::default().bytes(&structure).checksum();
    put16(&mut structure, 2, checksum);
    rest.extend(&structure);
    // The length of the quote: in words of 32 bits in IPv4, of 64 bits in IPv6.
    let kind = match l3num {
        L3::V4 => TIME_EXCEEDED.with_word([0, (ORIGINAL / 4) as u8, 0, 0]),
        L3::V6 => TIME_EXCEEDED.with_word([(ORIGINAL / 8) as u8, 0, 0, 0]),
    };
    let arrived = deliver(bench, &flow, &kind, &rest, "time exceeded with the labels of MPLS")?;
    let seen = read(&arrived)?;
    let word = u32::from_be_bytes(kind.word(l3num));
    if seen.word() != Some(word) {
        let found = seen.word().unwrap_or_default();
        return Err(fail(format!("the word with the length of the quote is {found:#010x} instead of {word:#010x}")));
    }
    match seen.quote().get(ORIGINAL..) {
        None | Some([]) => Err(fail("the labels are gone")),
        Some(found) if found != structure => Err(fail("the labels have become others")),
        Some(_) => Ok(()),
    }
}

/// Nothing, four times: what a router may have put in.
fn options(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    let seen = flow.quote();
    let (header, body) = (seen.get(..IPV4_HEADER).unwrap_or_default(), seen.get(IPV4_HEADER..).unwrap_or_default());
    let mut quote = [header, &[1, 1, 1, 1], body].concat();
    if let Some(first) = quote.first_mut() {
        *first = 0x46;
    }
    let length = quote.len() as u16;
    put16(&mut quote, 2, length);
    seal_header(&mut quote);
    let arrived = deliver(bench, &flow, &TIME_EXCEEDED, &quote, "an error that quotes IP options")?;
    restored(&arrived, &flow)
}

/// Behind the IPv6 header that a router quotes, an extension header with these bytes.
fn behind_extension(seen: &[u8], kind: u8, extension: [u8; 8]) -> Vec<u8> {
    let (header, body) = (seen.get(..IPV6_HEADER).unwrap_or_default(), seen.get(IPV6_HEADER..).unwrap_or_default());
    let mut quote = [header, &extension, body].concat();
    let next = seen.get(6).copied().unwrap_or_default();
    for (at, value) in [(6, kind), (IPV6_HEADER, next)] {
        if let Some(byte) = quote.get_mut(at) {
            *byte = value;
        }
    }
    let length = quote.len().saturating_sub(IPV6_HEADER) as u16;
    put16(&mut quote, 4, length);
    quote
}

fn extension_header(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    // Destination options: padding of six bytes.
    let quote = behind_extension(&flow.quote(), proto::DESTINATION, [0, 0, 1, 4, 0, 0, 0, 0]);
    let arrived = deliver(bench, &flow, &TIME_EXCEEDED, &quote, "an error that quotes an extension header")?;
    restored(&arrived, &flow)
}

fn first_fragment(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    let mut quote = flow.quote();
    match flow.ends.l3num() {
        L3::V4 => {
            put16(&mut quote, 6, 0x2000);
            seal_header(&mut quote);
        }
        L3::V6 => quote = behind_extension(&quote, proto::FRAGMENT, [0, 0, 0, 1, 0, 0, 0x43, 0x21]),
    }
    let arrived = deliver(bench, &flow, &TIME_EXCEEDED, &quote, "an error that quotes a first fragment")?;
    restored(&arrived, &flow)
}

fn without_checksum() -> Shape {
    Shape { no_checksum: true, ..Shape::default() }
}

fn no_checksum(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open_with(Proto::Udp, &without_checksum())?;
    let seen = read(&flow.seen)?;
    match be16(seen.l4, 6) {
        Some(0) => Ok(()),
        found => {
            let right = if seen.checksum_is_right() { "a right one" } else { "a wrong one" };
            Err(fail(format!("it comes out with {right}, {:#06x}", found.unwrap_or_default())))
        }
    }
}

fn no_checksum_quoted(bench: &mut Bench<'_>) -> Judged {
    let flow = bench.open_with(Proto::Udp, &without_checksum())?;
    let quote = flow.quote();
    let arrived = deliver(bench, &flow, &TIME_EXCEEDED, &quote, "time exceeded")?;
    let seen = read(&arrived)?;
    match be32(seen.quote(), IPV4_HEADER + 4).map(|word| word & 0xffff) {
        Some(0) => Ok(()),
        found => Err(fail(format!("the quote has {:#06x} for a checksum", found.unwrap_or_default()))),
    }
}

fn in_flight(bench: &mut Bench<'_>) -> Judged {
    let texts = ["ctwhy conform nat: A", "ctwhy conform nat: second, B", "ctwhy conform nat: the third of three, C"];
    let mut shapes = texts.map(Shape::text).into_iter().zip(1..);
    let (Some((first, _)), flow_shapes) = (shapes.next(), shapes) else { return Ok(()) };
    let flow = bench.open_with(Proto::Udp, &first)?;
    let mut flights = vec![flow.clone()];
    for (shape, number) in flow_shapes {
        let shape = Shape { id: 0x4321 + number, ..shape };
        match bench.again(&flow, &shape)? {
            Some(next) => flights.push(next),
            None => return Err(fail("one of three datagrams of a flow did not come out")),
        }
    }
    let routers: Vec<_> = [201, 202, 203].map(|number| bench.hosts.router(number)).into();
    for (flight, router) in flights.iter().zip(&routers) {
        let error = flight.error(&TIME_EXCEEDED, *router).ok_or_else(|| inconclusive("no such error"))?;
        bench.send(Side::Outside, &error, "time exceeded about one of three")?;
    }
    for ((flight, router), name) in flights.iter().zip(&routers).zip(["A", "B", "C"]) {
        let arrived =
            bench.wait(Side::Inside, "the error as it arrived", |seen| seen.is_error() && seen.src == *router)?;
        let Some(arrived) = arrived else {
            return Err(fail(format!("the error about datagram {name} never reached the client")));
        };
        let found = quote_differences(&flight.sent, &flight.quote(), read(&arrived)?.quote());
        if !found.is_empty() {
            return Err(fail(format!("the error about datagram {name} quotes another: {}", listed(&found))));
        }
    }
    bench.settle()?;
    match bench.find(Side::Inside, "an error that nobody sent", |seen| seen.is_error())? {
        None => Ok(()),
        Some(packet) => {
            Err(fail(format!("an error that no router sent reached the client, from {}", read(&packet)?.src)))
        }
    }
}
