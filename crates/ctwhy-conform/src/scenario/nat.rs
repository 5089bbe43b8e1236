//! NAT of flows and of the errors about them (catalogue part D).

use std::net::IpAddr;

use super::{Builder, Family, Kind, Scenario};
use crate::compose::{self, Ip, Tcp, flag, proto, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "dnat-errors",
        families: &Family::BOTH,
        title: "Errors about a flow whose destination is translated",
        shows: "The server speaks to a virtual address that stands for the client. When the client complains, or a router \
                before it, the error leaves as if the virtual address had sent it, and quotes the packet as the server \
                sent it. An error about the client's answer is translated when it arrives.",
        ids: &["NAT-ICMP-03", "NAT-ICMP-04", "NAT-MAN-09"],
        compose: dnat,
    },
    Scenario {
        name: "dnat-and-masquerade-errors",
        families: &Family::BOTH,
        title: "Errors about a flow that is translated on both sides",
        shows: "Destination and source are translated, and errors in either direction are translated twice: once when they \
                arrive and once when they leave.",
        ids: &["NAT-ICMP-05"],
        compose: dnat_and_masquerade,
    },
    Scenario {
        name: "dnat-ttl-exceeded-at-box",
        families: &Family::BOTH,
        title: "The box itself complains about a translated packet",
        shows: "The packet is translated and then has no hops left. Its entry is not in the table and never will be, but the \
                error carries it: it is RELATED, quotes the virtual address, and comes from it.",
        ids: &["NAT-ICMP-06", "ICMP-LOC-01", "NEW-04"],
        compose: |b| {
            virtual_address(b);
            let ip = Ip::between(b.server, virtual_ip(b)).ttl(1);
            b.wan(ip.packet(udp(&ip, 40_000, 8_053, b"anyone?")));
        },
    },
    Scenario {
        name: "snat-errors",
        families: &Family::BOTH,
        title: "Source NAT to an address that the box does not have",
        shows: "The flow leaves from an address that is nobody's; the error to it is translated before it is routed.",
        ids: &["NAT-ICMP-01", "NAT-PORT-13"],
        compose: |b| {
            let public = virtual_ip(b);
            b.nat(&[&format!("-A POSTROUTING -o wan -j SNAT --to-source {public}")]);
            b.probe();
            let outside = Ip::between(public, b.server).ttl(63);
            let error = b.error(b.r1, public, Kind::TimeExceeded, &outside.packet(super::probe(&outside)));
            let to_box = b.error(b.r1, b.wan, Kind::TimeExceeded, &outside.packet(super::probe(&outside)));
            b.wan(error).wan(to_box);
        },
    },
    Scenario {
        name: "snat-to-port-errors",
        families: &Family::BOTH,
        title: "Ports are translated, and so are the ports that errors quote",
        shows: "Source NAT to one port for UDP and one for TCP. Each error quotes the translated port and arrives with the \
                client's own; the checksum of a quoted TCP header follows where it is there.",
        ids: &["NAT-ICMP-01", "NAT-MAN-02", "NAT-MAN-03"],
        compose: to_port,
    },
    Scenario {
        name: "rule-behind-authentication-header",
        families: &[Family::V6],
        title: "A rule does not see what conntrack sees behind an authentication header",
        shows: "Conntrack steps over the header and tracks UDP. A rule of nftables stops at it: the packet is not UDP for a \
                rule that asks, and leaves untranslated, while the same datagram behind another extension header is \
                translated.",
        ids: &["NAT-SET-02", "NAT-MAN-08"],
        compose: |b| {
            const AH: &[u8] = &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
            const PADDING: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
            b.nat(&["-A POSTROUTING -o wan -p udp -j MASQUERADE"]);
            let ip = b.inside();
            let datagram = |port: u16| udp(&ip, port, 53, b"who sees me?");
            b.lan(ip.packet(datagram(40_000).behind(proto::AUTH, AH)));
            b.lan(ip.packet(datagram(40_001).behind(proto::DESTINATION, PADDING)));
            b.lan(ip.packet(datagram(40_002).behind(proto::AUTH, AH).behind(proto::HOP_BY_HOP, PADDING)));
        },
    },
    Scenario {
        name: "udp-checksum-zero-masquerade",
        families: &Family::BOTH,
        title: "A checksum that becomes zero",
        shows: "Translated, the checksum of the datagram would be 0, which means that there is none. It is written as 0xffff.",
        ids: &["NAT-MAN-03"],
        compose: |b| {
            b.masquerade();
            let outside = b.outside();
            let checksum = udp(&outside, 40_000, 33_434, &[0; 2]).bytes;
            let payload = [checksum[6], checksum[7]];
            let left = b.sends(|ip| udp(ip, 40_000, 33_434, &payload));
            b.exceed(&left);
        },
    },
    Scenario {
        name: "shared-port-masquerade",
        families: &Family::BOTH,
        title: "Two flows of one client through masquerade",
        shows: "Flows from the same port to different servers keep the port and share the public one.",
        ids: &["NAT-PORT-06"],
        compose: |b| {
            b.masquerade().probe();
            let ip = Ip::between(b.client, b.r2);
            b.lan(ip.packet(super::probe(&ip)));
            let back = Ip::between(b.r2, b.wan);
            b.wan(back.packet(udp(&back, 33_434, 40_000, b"one")));
            b.answers(|ip| udp(ip, 33_434, 40_000, b"two"));
        },
    },
    Scenario {
        name: "redirect-about-masqueraded-flow",
        families: &[Family::V4],
        title: "A redirect about a translated flow is dropped",
        shows: "Conntrack finds the flow and calls the redirect RELATED. NAT drops it: the route it tells of is of no use to \
                the client.",
        ids: &["ICMP-REL-11", "NAT-ICMP-11"],
        compose: |b| {
            b.masquerade();
            redirect(b);
        },
    },
    Scenario {
        name: "redirect-about-null-bound-flow",
        families: &[Family::V4],
        title: "A redirect about a flow that NAT left alone",
        shows: "There is a nat table, but no rule of it was for this flow: its bindings change nothing, and the redirect \
                goes on.",
        ids: &["ICMP-REL-11", "NAT-SET-02"],
        compose: |b| {
            b.nat(&["-A POSTROUTING -o elsewhere -j MASQUERADE"]);
            redirect(b);
        },
    },
    Scenario {
        name: "redirect-without-nat",
        families: &[Family::V4],
        title: "A redirect where there is no nat table",
        shows: "RELATED and forwarded like any error.",
        ids: &["ICMP-REL-11"],
        compose: redirect,
    },
    Scenario {
        name: "null-binding-errors",
        families: &Family::BOTH,
        title: "Errors where NAT has a table but nothing to do",
        shows: "The flow has bindings that change nothing. The error goes on as it came; one that quotes too little for a \
                translation, too, because none is needed.",
        ids: &["NAT-SET-02", "NEW-06", "CORE-HOOK-02"],
        compose: |b| {
            b.nat(&["-A POSTROUTING -o elsewhere -j MASQUERADE"]);
            let left = b.probe();
            let header = b.header();
            b.exceed(&left).exceed(&left[..header + 4]);
        },
    },
    Scenario {
        name: "invalid-bypasses-nat",
        families: &Family::BOTH,
        title: "What is INVALID is not translated",
        shows: "A reply with an acknowledgement out of window is INVALID: it is not translated back and ends at the box, \
                whose own TCP resets the server. A segment of the client that is INVALID leaves with its private address.",
        ids: &["NAT-SET-06", "NAT-TCP-01", "CORE-STATE-01"],
        compose: |b| {
            let segment =
                |sport, dport, seq, ack, flags| Tcp { sport, dport, seq, ack, flags, window: 1_000, ..Tcp::default() };
            b.masquerade().sends(|ip| segment(40_000, 80, 1_000, 0, flag::SYN).body(ip));
            b.answers(|ip| segment(80, 40_000, 5_000, 1_001, flag::SYN | flag::ACK).body(ip));
            b.sends(|ip| segment(40_000, 80, 1_001, 5_001, flag::ACK).body(ip));
            b.answers(|ip| segment(80, 40_000, 5_001, 900_000, flag::ACK).body(ip));
            let inside = b.inside();
            b.lan(inside.packet(segment(40_000, 80, 900_000, 5_001, flag::ACK).body(&inside)));
        },
    },
];

fn to_port(b: &mut Builder) {
    let v = virtual_ip(b);
    let public = Builder::bracketed(v);
    b.nat(&[
        &format!("-A POSTROUTING -o wan -p udp -j SNAT --to-source {public}:5000"),
        &format!("-A POSTROUTING -o wan -p tcp -j SNAT --to-source {public}:5001"),
    ]);
    b.probe();
    b.sends(|ip| Tcp::syn().body(ip));
    let outside = Ip::between(v, b.server).ttl(63);
    let datagram = outside.packet(udp(&outside, 5_000, 33_434, b"who answers?"));
    let syn = outside.packet(Tcp { sport: 5_001, ..Tcp::syn() }.body(&outside));
    let header = b.header();
    for quote in [&datagram[..], &datagram[..header + 8], &syn[..], &syn[..header + 8], &syn[..header + 19]] {
        let error = b.error(b.r1, v, Kind::TimeExceeded, quote);
        b.wan(error);
    }
    let back = Ip::between(b.server, v);
    b.wan(back.packet(udp(&back, 33_434, 5_000, b"I do")));
}

/// An address outside that is not the box's.
pub(super) fn virtual_ip(b: &Builder) -> IpAddr {
    match b.family {
        Family::V4 => [203, 0, 113, 7].into(),
        Family::V6 => [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 7].into(),
    }
}

/// `--to-destination` of the client's port 53.
fn dnat_rule(b: &Builder) -> String {
    let client = Builder::bracketed(b.client);
    let v = virtual_ip(b);
    format!("-A PREROUTING -d {v} -i wan -p udp -m udp --dport 8053 -j DNAT --to-destination {client}:53")
}

fn virtual_address(b: &mut Builder) {
    let rule = dnat_rule(b);
    b.nat(&[&rule]);
}

fn dnat(b: &mut Builder) {
    virtual_address(b);
    let v = virtual_ip(b);
    let ask = Ip::between(b.server, v);
    b.wan(ask.packet(udp(&ask, 40_000, 8_053, b"anyone?")));
    let asked = Ip::between(b.server, b.client).ttl(63);
    let asked = asked.packet(udp(&asked, 40_000, 53, b"anyone?"));
    let router: IpAddr = match b.family {
        Family::V4 => [192, 168, 1, 9].into(),
        Family::V6 => [0xfd00, 1, 0, 0, 0, 0, 0, 9].into(),
    };
    let of_client = b.error(b.client, b.server, Kind::PortUnreachable, &asked);
    let of_router = b.error(router, b.server, Kind::HostUnreachable, &asked);
    b.lan(of_client).lan(of_router);
    // The client answers after all, and the answer does not arrive.
    let answer = Ip::between(b.client, b.server);
    b.lan(answer.packet(udp(&answer, 53, 40_000, b"I am here")));
    let answered = Ip::between(v, b.server).ttl(63);
    let answered = answered.packet(udp(&answered, 8_053, 40_000, b"I am here"));
    let lost = b.error(b.r1, v, Kind::TimeExceeded, &answered);
    b.wan(lost);
}

fn dnat_and_masquerade(b: &mut Builder) {
    let rule = dnat_rule(b);
    b.nat(&[&rule, "-A POSTROUTING -o lan -j MASQUERADE"]);
    let v = virtual_ip(b);
    let ask = Ip::between(b.server, v);
    b.wan(ask.packet(udp(&ask, 40_000, 8_053, b"anyone?")));
    let asked = Ip::between(b.lan, b.client).ttl(63);
    let error = b.error(b.client, b.lan, Kind::PortUnreachable, &asked.packet(udp(&asked, 40_000, 53, b"anyone?")));
    b.lan(error);
    let answer = Ip::between(b.client, b.lan);
    b.lan(answer.packet(udp(&answer, 53, 40_000, b"I am here")));
    let answered = Ip::between(v, b.server).ttl(63);
    let answered = answered.packet(udp(&answered, 8_053, 40_000, b"I am here"));
    let lost = b.error(b.r1, v, Kind::TimeExceeded, &answered);
    b.wan(lost);
}

pub(super) fn redirect(b: &mut Builder) {
    let left = b.probe();
    let ip = Ip::between(b.r1, b.seen_as());
    b.wan(ip.packet(compose::icmp(&ip, 5, 1, [203, 0, 113, 9], &left)));
}
