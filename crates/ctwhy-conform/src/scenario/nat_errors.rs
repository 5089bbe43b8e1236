//! ICMP errors through NAT where ports and ids are others outside than inside, because a rule says so (catalogue D.6).
//!
//! Whoever forgets one of them in a quote does well as long as NAT keeps them, which it mostly does. `ip6tables` takes no
//! id for ICMPv6, so that an echo keeps its id in IPv6.

use std::net::IpAddr;

use super::nat::virtual_ip;
use super::{Builder, Family, Kind, Scenario, second_client};
use crate::compose::{self, Body, Echo, Ip, Tcp, flag};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "changed-ports-snat-errors",
        families: &Family::BOTH,
        title: "Source NAT to other ports and ids, and all errors about it",
        shows: "A datagram, a SYN and an echo request leave with another source and another port or id. Errors of a router, \
                of the server, and of a router that appends what it knows of the label switched path (RFC 4884) come back about \
                what the client sent; one that quotes what the client sent finds no flow and is left as it is. The client, and a \
                router before it, complain about the answer: that leaves from the outside address, whoever complains.",
        ids: &["NAT-ICMP-01", "NAT-ICMP-02", "NAT-ICMP-07", "NAT-ICMP-08", "NAT-ICMP-09", "ICMP-REL-02"],
        compose: snat,
    },
    Scenario {
        name: "changed-ports-dnat-errors",
        families: &Family::BOTH,
        title: "Destination NAT to other ports and ids, and all errors about it",
        shows: "A datagram, a SYN and an echo request to a virtual address go to the client with another port or id. What the \
                client and a router before it complain about leaves as if the virtual address had sent it, about what was sent \
                to that; what a router outside complains about, the client's answer, arrives about what the client sent.",
        ids: &["NAT-ICMP-03", "NAT-ICMP-04", "NAT-ICMP-07"],
        compose: dnat,
    },
    Scenario {
        name: "changed-ports-twice-errors",
        families: &Family::BOTH,
        title: "Both sides translated to other ports and ids, and all errors about it",
        shows: "As with destination NAT alone, but the client sees the box as its peer. Each error is translated when it comes \
                and when it leaves, and so is its quote.",
        ids: &["NAT-ICMP-05", "NAT-ICMP-07"],
        compose: twice,
    },
    Scenario {
        name: "changed-ports-hairpin-udp",
        families: &Family::BOTH,
        title: "Two clients talk by the outside address with other ports or ids, and all errors about it: UDP",
        shows: HAIRPIN,
        ids: &["NAT-PORT-12", "NAT-ICMP-05", "NAT-MAN-09"],
        compose: |b| hairpin(b, Flow::Udp),
    },
    Scenario {
        name: "changed-ports-hairpin-tcp",
        families: &Family::BOTH,
        title: "Two clients talk by the outside address with other ports or ids, and all errors about it: TCP",
        shows: HAIRPIN,
        ids: &["NAT-PORT-12", "NAT-ICMP-05", "NAT-MAN-09"],
        compose: |b| hairpin(b, Flow::Tcp),
    },
    Scenario {
        name: "changed-ports-hairpin-echo",
        families: &Family::BOTH,
        title: "Two clients talk by the outside address with other ports or ids, and all errors about it: echo",
        shows: HAIRPIN,
        ids: &["NAT-PORT-12", "NAT-ICMP-05", "NAT-MAN-09", "NAT-ICMP-07"],
        compose: |b| hairpin(b, Flow::Echo),
    },
    Scenario {
        name: "changed-ports-ttl-exceeded-at-box",
        families: &Family::BOTH,
        title: "The box complains about packets whose ports and ids it has translated",
        shows: "A datagram, a SYN and an echo request are translated and then have no hops left. The error about each quotes it \
                as it was sent, and comes from the virtual address.",
        ids: &["NAT-ICMP-06", "ICMP-LOC-01"],
        compose: |b| {
            dnat_rules(b, "-i wan", b.client);
            for flow in FLOWS {
                let ip = Ip::between(b.server, virtual_ip(b)).ttl(1);
                b.wan(ip.packet(flow.asks(&ip, 40_000, flow.virtual_port())));
            }
        },
    },
];

/// A case for each protocol, because a kernel does not tell everybody of a better way as often as it could.
const HAIRPIN: &str = "A packet comes in and leaves by the same interface, both of its ends translated. The one who got it complains, and a \
     router before it, and so does the one who got the answer: each hears of what it sent, from the address that it sent to.";

/// A protocol, and what is asked and answered in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Udp,
    Tcp,
    Echo,
}

const FLOWS: [Flow; 3] = [Flow::Udp, Flow::Tcp, Flow::Echo];

impl Flow {
    /// A first packet: from and to these ports, or with the first of them as id.
    fn asks(self, ip: &Ip, sport: u16, dport: u16) -> Body {
        match self {
            Flow::Udp => compose::udp(ip, sport, dport, b"anyone?"),
            Flow::Tcp => Tcp { sport, dport, ..Tcp::syn() }.body(ip),
            Flow::Echo => compose::echo(ip, Echo::Request, sport, 1),
        }
    }

    /// The answer to it, from and to these ports, or with the second of them as id.
    fn answers(self, ip: &Ip, sport: u16, dport: u16) -> Body {
        match self {
            Flow::Udp => compose::udp(ip, sport, dport, b"I do"),
            Flow::Tcp => {
                let ack = Tcp::syn().seq.wrapping_add(1);
                Tcp { sport, dport, seq: 5_000, ack, flags: flag::SYN | flag::ACK, ..Tcp::syn() }.body(ip)
            }
            Flow::Echo => compose::echo(ip, Echo::Reply, dport, 1),
        }
    }

    /// The port of a service behind a virtual address.
    const fn virtual_port(self) -> u16 {
        match self {
            Flow::Udp => 8_053,
            Flow::Tcp => 8_080,
            Flow::Echo => 0,
        }
    }

    /// Where the service really is.
    const fn real_port(self) -> u16 {
        match self {
            Flow::Udp => 53,
            Flow::Tcp => 80,
            Flow::Echo => 0,
        }
    }

    /// The port or id that source NAT gives.
    const fn public_port(self, family: Family) -> u16 {
        match (self, family) {
            (Flow::Udp, _) => 5_000,
            (Flow::Tcp, _) => 5_001,
            (Flow::Echo, Family::V4) => 5_002,
            (Flow::Echo, Family::V6) => CLIENT_PORT,
        }
    }

    /// The id that destination NAT gives an echo that was sent with `id`; ports stay.
    const fn arrives_with(self, family: Family, port: u16) -> u16 {
        match (self, family) {
            (Flow::Echo, Family::V4) => 7,
            _ => port,
        }
    }

    /// The match of the protocol, and of the port of a service if it is asked for.
    fn matches(self, family: Family, service: bool) -> String {
        let name = match (self, family) {
            (Flow::Udp, _) => "udp",
            (Flow::Tcp, _) => "tcp",
            (Flow::Echo, Family::V4) => "icmp",
            (Flow::Echo, Family::V6) => "ipv6-icmp",
        };
        match self {
            Flow::Udp | Flow::Tcp if service => format!("-p {name} -m {name} --dport {}", self.virtual_port()),
            _ => format!("-p {name}"),
        }
    }
}

/// The port or id that whoever asks has.
const CLIENT_PORT: u16 = 40_000;

/// An address with a port or id, where the tool takes one.
fn translated_to(b: &Builder, flow: Flow, address: IpAddr, port: u16) -> String {
    match (flow, b.family) {
        (Flow::Echo, Family::V6) => address.to_string(),
        _ => format!("{}:{port}", Builder::bracketed(address)),
    }
}

fn snat_rule(b: &Builder, flow: Flow, out: &str, address: IpAddr) -> String {
    let to = translated_to(b, flow, address, flow.public_port(b.family));
    format!("-A POSTROUTING -o {out} {} -j SNAT --to-source {to}", flow.matches(b.family, false))
}

fn dnat_rule(b: &Builder, flow: Flow, from: &str, address: IpAddr, to: IpAddr) -> String {
    let real = match flow {
        Flow::Echo => flow.arrives_with(b.family, CLIENT_PORT),
        _ => flow.real_port(),
    };
    let to = translated_to(b, flow, to, real);
    format!("-A PREROUTING {from} -d {address} {} -j DNAT --to-destination {to}", flow.matches(b.family, true))
}

fn dnat_rules(b: &mut Builder, from: &str, to: IpAddr) {
    let rules = FLOWS.map(|flow| dnat_rule(b, flow, from, virtual_ip(b), to));
    b.nat(&rules.each_ref().map(String::as_str));
}

/// A router of the client's network.
fn inner_router(b: &Builder) -> IpAddr {
    match b.family {
        Family::V4 => [192, 168, 1, 9].into(),
        Family::V6 => [0xfd00, 1, 0, 0, 0, 0, 0, 9].into(),
    }
}

/// A time exceeded with what RFC 4950 appends: the quote filled up to 128 bytes, a header, and one label.
fn labelled(b: &Builder, from: IpAddr, to: IpAddr, quote: &[u8]) -> Vec<u8> {
    const QUOTE: usize = 128;
    let mut rest = quote.to_vec();
    rest.resize(QUOTE, 0);
    let mut extension = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0x06, 0x40, 0x01, 0x01];
    let checksum = ctwhy_core::checksum::Sum::default().bytes(&extension).checksum();
    extension[2..4].copy_from_slice(&checksum.to_be_bytes());
    rest.extend(extension);
    let (icmp_type, code) = Kind::TimeExceeded.type_and_code(b.family);
    let word = match b.family {
        Family::V4 => [0, (QUOTE / 4) as u8, 0, 0],
        Family::V6 => [(QUOTE / 8) as u8, 0, 0, 0],
    };
    let ip = Ip::between(from, to);
    ip.packet(compose::icmp(&ip, icmp_type, code, word, &rest))
}

fn snat(b: &mut Builder) {
    let v = virtual_ip(b);
    let rules = FLOWS.map(|flow| snat_rule(b, flow, "wan", v));
    b.nat(&rules.each_ref().map(String::as_str));
    for flow in FLOWS {
        let public = flow.public_port(b.family);
        let (inside, outside) = (b.inside(), Ip::between(v, b.server).ttl(63));
        let sent = inside.packet(flow.asks(&inside, CLIENT_PORT, 33_434));
        b.lan(sent.clone());
        let left = outside.packet(flow.asks(&outside, public, 33_434));
        for error in [
            b.error(b.r1, v, Kind::TimeExceeded, &left),
            b.error(b.server, v, Kind::PortUnreachable, &left),
            labelled(b, b.r2, v, &left),
            b.error(b.r1, v, Kind::TimeExceeded, &sent),
        ] {
            b.wan(error);
        }
        let (back, inward) = (Ip::between(b.server, v), Ip::between(b.server, b.client).ttl(63));
        b.wan(back.packet(flow.answers(&back, 33_434, public)));
        let got = inward.packet(flow.answers(&inward, 33_434, CLIENT_PORT));
        let of_client = b.error(b.client, b.server, Kind::PortUnreachable, &got);
        let of_router = b.error(inner_router(b), b.server, Kind::TimeExceeded, &got);
        b.lan(of_client).lan(of_router);
    }
}

fn dnat(b: &mut Builder) {
    dnat_rules(b, "-i wan", b.client);
    for flow in FLOWS {
        let arrives_with = flow.arrives_with(b.family, CLIENT_PORT);
        let (v, server) = (virtual_ip(b), b.server);
        talks(b, flow, Ends { asker: server, sent_to: v, seen_as: server, port: arrives_with, answerer: b.client });
    }
}

fn twice(b: &mut Builder) {
    let mut rules: Vec<_> = FLOWS.map(|flow| dnat_rule(b, flow, "-i wan", virtual_ip(b), b.client)).to_vec();
    rules.extend(FLOWS.map(|flow| snat_rule(b, flow, "lan", b.lan)));
    b.nat(&rules.iter().map(String::as_str).collect::<Vec<_>>());
    for flow in FLOWS {
        let port = flow.public_port(b.family);
        let (v, server) = (virtual_ip(b), b.server);
        talks(b, flow, Ends { asker: server, sent_to: v, seen_as: b.lan, port, answerer: b.client });
    }
}

fn hairpin(b: &mut Builder, flow: Flow) {
    let other = second_client(b.family);
    let rules = [dnat_rule(b, flow, "-i lan", virtual_ip(b), other), snat_rule(b, flow, "lan", b.lan)];
    b.nat(&rules.each_ref().map(String::as_str));
    let port = flow.public_port(b.family);
    let (v, client) = (virtual_ip(b), b.client);
    talks(b, flow, Ends { asker: client, sent_to: v, seen_as: b.lan, port, answerer: other });
}

/// Who talks to whom by a virtual address, and what the one who answers sees of the one who asks.
#[derive(Clone, Copy)]
struct Ends {
    asker: IpAddr,
    sent_to: IpAddr,
    seen_as: IpAddr,
    /// Port or id of that.
    port: u16,
    answerer: IpAddr,
}

/// Both sides and the routers beside them complain about what they get.
fn talks(b: &mut Builder, flow: Flow, ends: Ends) {
    let Ends { asker, sent_to, seen_as, port, answerer } = ends;
    let outside = if asker == b.server { "wan" } else { "lan" };
    let ask = Ip::between(asker, sent_to);
    b.on(outside, ask.packet(flow.asks(&ask, CLIENT_PORT, flow.virtual_port())));
    let asked = Ip::between(seen_as, answerer).ttl(63);
    let asked = asked.packet(flow.asks(&asked, port, flow.real_port()));
    for error in [
        b.error(answerer, seen_as, Kind::PortUnreachable, &asked),
        b.error(inner_router(b), seen_as, Kind::HostUnreachable, &asked),
        labelled(b, inner_router(b), seen_as, &asked),
    ] {
        b.lan(error);
    }
    let answer = Ip::between(answerer, seen_as);
    b.lan(answer.packet(flow.answers(&answer, flow.real_port(), port)));
    let answered = Ip::between(sent_to, asker).ttl(63);
    let answered = answered.packet(flow.answers(&answered, flow.virtual_port(), CLIENT_PORT));
    let router = if outside == "wan" { b.r1 } else { inner_router(b) };
    for error in [
        b.error(router, sent_to, Kind::TimeExceeded, &answered),
        b.error(asker, sent_to, Kind::PortUnreachable, &answered),
        labelled(b, router, sent_to, &answered),
    ] {
        b.on(outside, error);
    }
}
