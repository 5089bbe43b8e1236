//! ICMP errors about flows: found and not found, in both directions.

use super::{Builder, Family, Kind, Scenario, probe};
use crate::compose::{self, Echo, Ip, Tcp, echo, flag, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "too-big-masquerade",
        families: &Family::BOTH,
        title: "A router on the way cannot take a packet so large",
        shows: "The second router answers a large datagram of a masqueraded flow with fragmentation needed (IPv4) or \
                packet too big (IPv6). The error is about the flow, so it is RELATED in reply direction, and both of its \
                headers are translated; the MTU that it announces is looked at by nobody on the way.",
        ids: &["ICMP-REL-01", "ICMP-REL-14", "NAT-ICMP-01"],
        compose: too_big,
    },
    Scenario {
        name: "error-kinds",
        families: &Family::BOTH,
        title: "Every kind of error, about one flow",
        shows: "IPv4: types 3, 4, 11 and 12 are errors whatever their code; IPv6: every type below 128 is one, known or \
                not. All are RELATED. They change nothing about the flow, which stays unreplied.",
        ids: &["ICMP-REL-10", "ICMP-REL-11", "ICMP6-E-01"],
        compose: kinds,
    },
    Scenario {
        name: "error-wrong-outer-destination",
        families: &Family::BOTH,
        title: "The error goes to somebody who did not send the packet",
        shows: "The quote belongs to a flow, but the error is addressed to another of the box's addresses, or the wrong way \
                along the flow. Who sends an error must have it delivered to the sender of what it quotes; everything else \
                is INVALID. The same error to the right address is RELATED.",
        ids: &["ICMP-REL-03", "ICMP-REL-04", "ICMP6-E-04"],
        compose: wrong_destination,
    },
    Scenario {
        name: "error-unknown-flow",
        families: &Family::BOTH,
        title: "The quote is of no known flow",
        shows: "Errors that quote a packet nobody sent, the packet as it was before the box translated it, or an echo with \
                another id or code than the one that was sent: the inverted tuple is not in the table, so they are INVALID.",
        ids: &["ICMP-REL-05", "ICMP-REL-06", "ICMP-REL-08"],
        compose: unknown_flow,
    },
    Scenario {
        name: "error-about-error",
        families: &Family::BOTH,
        title: "An error quotes an error",
        shows: "An error is about a flow, but it is no flow: its tuple cannot be inverted, and neither can that of a message \
                that nobody answers. An error that quotes one is INVALID.",
        ids: &["ICMP-REL-07"],
        compose: about_error,
    },
    Scenario {
        name: "error-about-expired-flow",
        families: &Family::BOTH,
        title: "The flow has expired when the error comes",
        shows: "With a UDP timeout of one second the error comes too late: an entry whose time is over is not found.",
        ids: &["ICMP-REL-08", "GC-01", "TUPLE-08"],
        compose: about_expired,
    },
    Scenario {
        name: "error-does-not-refresh",
        families: &Family::BOTH,
        title: "An error does not keep a flow alive",
        shows: "An error three seconds after the only packet of a flow is RELATED and leaves the timeout as it is, 27 \
                seconds, and the flow unreplied.",
        ids: &["ICMP-REL-10"],
        compose: no_refresh,
    },
    Scenario {
        name: "error-original-direction",
        families: &Family::BOTH,
        title: "The client complains about a reply",
        shows: "The quote is of a packet from the server to the client. Inverted it is the original tuple, so the error is \
                RELATED in original direction. It works also when no reply was ever seen.",
        ids: &["ICMP-REL-02"],
        compose: original_direction,
    },
    Scenario {
        name: "error-original-direction-masquerade",
        families: &Family::BOTH,
        title: "The client complains about a translated reply",
        shows: "As the client saw it the reply went to its own address; outside it went to the box's. At POSTROUTING the \
                quoted destination and the source of the error are translated, also when a router on the inside complains.",
        ids: &["ICMP-REL-02", "NAT-ICMP-02"],
        compose: original_direction_masquerade,
    },
    Scenario {
        name: "error-with-ttl-1",
        families: &Family::BOTH,
        title: "An error runs out of hops",
        shows: "The error arrives with a TTL of 1: it is RELATED, it is not forwarded, and nobody is told, because errors \
                about errors are not sent.",
        ids: &["ICMP-REL-13"],
        compose: ttl_1,
    },
    Scenario {
        name: "error-about-echo-masquerade",
        families: &Family::BOTH,
        title: "An error about an echo request",
        shows: "The quoted echo request is found by its id, type and code; quoted and outer header are translated, and the \
                checksum of the quoted message stays what it was where no address is part of it.",
        ids: &["ICMP-REL-06", "NAT-ICMP-07"],
        compose: about_echo,
    },
    Scenario {
        name: "error-about-tcp-masquerade",
        families: &Family::BOTH,
        title: "An error about a TCP connection",
        shows: "The window is not looked at: a quote with any sequence number is RELATED, and neither the state nor the \
                timeout of the connection changes.",
        ids: &["ICMP-IN-06", "ICMP-REL-10", "NAT-MAN-02"],
        compose: about_tcp,
    },
];

fn too_big(b: &mut Builder) {
    let large = |ip: &Ip| udp(ip, 40_000, 53, &[0x42; 1300]);
    let left = b.masquerade().sends(large);
    // A router quotes what keeps the error small enough for every link.
    let quote = &left[..if b.family == Family::V4 { 548 } else { 1232 }];
    let error = b.error(b.r2, b.wan, Kind::TooBig(1280), quote);
    b.wan(error);
}

fn kinds(b: &mut Builder) {
    let left = b.probe();
    let ip = Ip::between(b.r1, b.client);
    let kinds: &[(u8, u8)] = match b.family {
        Family::V4 => &[(3, 0), (3, 13), (3, 200), (4, 0), (5, 1), (11, 1), (11, 200), (12, 2)],
        Family::V6 => &[(0, 0), (1, 0), (1, 200), (2, 0), (3, 1), (4, 2), (5, 0), (100, 0), (127, 3)],
    };
    for (icmp_type, code) in kinds {
        b.wan(ip.packet(compose::icmp(&ip, *icmp_type, *code, [0; 4], &left)));
    }
}

fn wrong_destination(b: &mut Builder) {
    let left = b.masquerade().probe();
    let to_lan_side = b.error(b.r1, b.lan, Kind::TimeExceeded, &left);
    let wrong_way = b.error(b.client, b.server, Kind::TimeExceeded, &left);
    b.wan(to_lan_side).lan(wrong_way).exceed(&left);
}

fn unknown_flow(b: &mut Builder) {
    let ping = |ip: &Ip| echo(ip, Echo::Request, 7, 1);
    b.masquerade().probe();
    b.sends(ping);
    let (inside, outside) = (b.inside(), b.outside());
    b.exceed(&outside.packet(udp(&outside, 40_001, 33_434, b"who answers?")));
    b.exceed(&outside.packet(udp(&outside, 40_000, 33_435, b"who answers?")));
    b.exceed(&inside.packet(probe(&inside)));
    // The quoted tuple itself is in the table; what counts is the inverted one.
    let own = b.error(b.client, b.server, Kind::TimeExceeded, &inside.packet(probe(&inside)));
    b.lan(own);
    b.exceed(&outside.packet(echo(&outside, Echo::Request, 8, 1)));
    b.exceed(&outside.packet(echo(&outside, Echo::Request, 7, 1).with(1, 1)));
    b.exceed(&outside.packet(echo(&outside, Echo::Reply, 7, 1)));
    // What is known is found.
    b.exceed(&outside.packet(ping(&outside)));
}

fn about_error(b: &mut Builder) {
    let left = b.masquerade().probe();
    let first = b.error(b.wan, b.server, Kind::TimeExceeded, &left);
    b.exceed(&first);
    let outside = b.outside();
    let unanswered: &[u8] = if b.family == Family::V4 { &[9, 10, 1, 19] } else { &[134, 137, 143, 200] };
    for icmp_type in unanswered {
        b.exceed(&outside.packet(compose::icmp(&outside, *icmp_type, 0, [0; 4], &left)));
    }
}

fn about_expired(b: &mut Builder) {
    let left = b.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1").probe();
    b.exceed(&left).wait_ms(1_500).exceed(&left);
}

fn no_refresh(b: &mut Builder) {
    let left = b.masquerade().probe();
    b.wait_ms(3_000).exceed(&left);
}

fn original_direction(b: &mut Builder) {
    b.probe();
    let back = b.inside().back();
    let reply = back.packet(udp(&back, 33_434, 40_000, b"nobody yet"));
    let before = b.error(b.client, b.server, Kind::PortUnreachable, &reply);
    b.lan(before);
    let reply = b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
    let after = b.error(b.client, b.server, Kind::PortUnreachable, &reply);
    b.lan(after);
}

fn original_direction_masquerade(b: &mut Builder) {
    b.masquerade().probe();
    let reply = b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
    let of_client = b.error(b.client, b.server, Kind::PortUnreachable, &reply);
    let router: std::net::IpAddr = match b.family {
        Family::V4 => [192, 168, 1, 9].into(),
        Family::V6 => [0xfd00, 1, 0, 0, 0, 0, 0, 9].into(),
    };
    let of_router = b.error(router, b.server, Kind::HostUnreachable, &reply);
    b.lan(of_client).lan(of_router);
    // As it is outside, the quote is of nobody that the inside knows.
    let untranslated = Ip::between(b.server, b.wan);
    let quote = untranslated.packet(udp(&untranslated, 33_434, 40_000, b"I do"));
    let error = b.error(b.client, b.server, Kind::PortUnreachable, &quote);
    b.lan(error);
}

fn ttl_1(b: &mut Builder) {
    let left = b.masquerade().probe();
    let ip = Ip::between(b.r1, b.wan).ttl(1);
    let error = b.error_body(&ip, Kind::TimeExceeded, &left);
    b.wan(ip.packet(error));
}

fn about_echo(b: &mut Builder) {
    let left = b.masquerade().sends(|ip| echo(ip, Echo::Request, 4711, 3));
    b.exceed(&left);
}

fn about_tcp(b: &mut Builder) {
    let segment = |seq, flags| Tcp { sport: 40_000, dport: 80, seq, flags, window: 64_240, ..Tcp::default() };
    let left = b.masquerade().sends(|ip| segment(1_000, flag::SYN).body(ip));
    b.exceed(&left);
    let outside = b.outside();
    let elsewhere = outside.packet(segment(3_000_000_000, flag::ACK | flag::PSH).body(&outside));
    b.complain(Kind::HostUnreachable, &elsewhere);
}
