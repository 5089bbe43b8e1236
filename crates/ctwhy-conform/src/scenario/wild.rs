//! What goes wrong in the field and no other scenario shows; see `bugs`.

use std::net::IpAddr;

use super::tcp::{ACK, SYN, SYNACK, segment};
use super::{Builder, Family, Kind, Scenario, probe, second_client};
use crate::compose::{self, Echo, Ip, Tcp, echo, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "errors-of-each-router-masquerade",
        families: &Family::BOTH,
        title: "Each router on the way complains in its own name",
        shows: "Two routers and the server send an error about the same flow. Each arrives with the address of its sender; only \
                the destination is translated.",
        ids: &["ICMP-REL-01", "NAT-ICMP-01"],
        compose: |b| {
            let left = b.masquerade().probe();
            for (from, kind) in
                [(b.r1, Kind::TimeExceeded), (b.r2, Kind::TimeExceeded), (b.server, Kind::PortUnreachable)]
            {
                let error = b.error(from, b.wan, kind, &left);
                b.wan(error);
            }
        },
    },
    Scenario {
        name: "error-kinds-masquerade",
        families: &Family::BOTH,
        title: "Every kind of error about a translated flow",
        shows: "Unreachable with every code, too big, time exceeded and parameter problem: all of them are RELATED, and all are \
                translated the same way.",
        ids: &["NAT-ICMP-01", "ICMP-REL-01", "ICMP6-E-01"],
        compose: |b| {
            let left = b.masquerade().probe();
            let ip = Ip::between(b.r1, b.wan);
            let kinds: Vec<(u8, u8)> = match b.family {
                Family::V4 => (0..16).map(|code| (3, code)).chain([(4, 0), (11, 0), (11, 1), (12, 0)]).collect(),
                Family::V6 => {
                    (0..8).map(|code| (1, code)).chain([(2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]).collect()
                }
            };
            for (icmp_type, code) in kinds {
                b.wan(ip.packet(compose::icmp(&ip, icmp_type, code, [0; 4], &left)));
            }
        },
    },
    Scenario {
        name: "ping-and-errors-masquerade",
        families: &Family::BOTH,
        title: "Echo requests, and errors in place of answers",
        shows: "As traceroute -I and ping do it: two requests die on the way and their errors come back translated, the third \
                is answered by the server itself. Where nobody answers nothing comes back, and the entry stays unreplied.",
        ids: &["ICMP-REL-06", "NAT-ICMP-07", "ICMP-Q-06"],
        compose: |b| {
            b.masquerade();
            for (seq, router) in [(1, b.r1), (2, b.r2)] {
                let left = b.sends(|ip| echo(ip, Echo::Request, 4_711, seq));
                let error = b.error(router, b.wan, Kind::TimeExceeded, &left);
                b.wan(error);
            }
            b.sends(|ip| echo(ip, Echo::Request, 4_711, 3));
            b.answers(|ip| echo(ip, Echo::Reply, 4_711, 3));
            let dead = Ip::between(b.client, b.r2);
            b.lan(dead.packet(echo(&dead, Echo::Request, 4_712, 1)));
            b.lan(dead.packet(echo(&dead, Echo::Request, 4_712, 2)));
        },
    },
    Scenario {
        name: "hairpin",
        families: &Family::BOTH,
        title: "A client reaches another one by the outside address",
        shows: "The packet comes in and leaves by the same interface, and both of its ends are translated. So are the answer and \
                the error about it, which arrives at the client as if the outside address had sent it.",
        ids: &["NAT-PORT-12", "NAT-ICMP-05", "NAT-MAN-09"],
        compose: |b| {
            let other = second_client(b.family);
            let wan = b.wan;
            b.nat(&[
                &format!(
                    "-A PREROUTING -d {wan} -p udp -m udp --dport 8053 -j DNAT --to-destination {}:53",
                    Builder::bracketed(other)
                ),
                "-A POSTROUTING -o lan -j MASQUERADE",
            ]);
            let ask = Ip::between(b.client, wan);
            b.lan(ask.packet(udp(&ask, 40_000, 8_053, b"anyone?")));
            let asked = Ip::between(b.lan, other).ttl(63);
            let asked = asked.packet(udp(&asked, 40_000, 53, b"anyone?"));
            let error = b.error(other, b.lan, Kind::PortUnreachable, &asked);
            b.lan(error);
            let answer = Ip::between(other, b.lan);
            b.lan(answer.packet(udp(&answer, 53, 40_000, b"I am here")));
        },
    },
    Scenario {
        name: "tcp-through-unchanged-masquerade",
        families: &Family::BOTH,
        title: "What NAT leaves alone",
        shows: "Address and port, the checksums that cover them, and the TTL, less one: nothing else of a packet changes. \
                Identification, sequence numbers, window, options and data are the client's own.",
        ids: &["NAT-MAN-01", "NAT-MAN-02", "NAT-PORT-06"],
        compose: |b| {
            b.masquerade();
            let options = vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
            for ttl in [64, 2] {
                let ip = Ip { id: 0x1234, fragment: 0x4000, ..b.inside().ttl(ttl) };
                let syn = Tcp { options: options.clone(), ..segment(40_000, 80, 0xdead_beef, 0, SYN, 0) };
                b.lan(ip.packet(syn.body(&ip)));
            }
            b.answers(|ip| segment(80, 40_000, 7, 0xdead_bef0, SYNACK, 0).body(ip));
        },
    },
    Scenario {
        name: "tcp-one-sided",
        families: &Family::BOTH,
        title: "Only one side of a handshake passes here",
        shows: "The answers take another way. The client's ACK comes while its own SYN is all that was seen: INVALID, and \
                its data as well; the entry stays SYN_SENT and unreplied. Seen from the other side a SYN/ACK begins nothing.",
        ids: &["TCP-NEW-04", "TCP-SYN-01"],
        compose: |b| {
            b.sends(|ip| segment(40_000, 80, 1_000, 0, SYN, 0).body(ip));
            b.sends(|ip| segment(40_000, 80, 1_001, 5_001, ACK, 0).body(ip));
            b.sends(|ip| segment(40_000, 80, 1_001, 5_001, ACK, 100).body(ip));
            b.answers(|ip| segment(80, 40_001, 5_000, 1_001, SYNACK, 0).body(ip));
            b.answers(|ip| segment(80, 40_001, 5_001, 1_001, ACK, 0).body(ip));
        },
    },
    Scenario {
        name: "stale-dnat-kept-alive",
        families: &Family::BOTH,
        title: "Datagrams that nobody answers keep their translation",
        shows: "Each datagram of the flow is NEW again and refreshes the entry, so that it never expires, and with it the \
                destination that it was given. Another port gets the same destination by the same rule.",
        ids: &["TIMEOUT-02", "NAT-SET-03"],
        compose: |b| {
            let rule = format!(
                "-A PREROUTING -i wan -p udp -m udp --dport 8053 -j DNAT --to-destination {}:53",
                Builder::bracketed(b.client)
            );
            b.sysctl("net.netfilter.nf_conntrack_udp_timeout", "2").nat(&[&rule]);
            let ip = Ip::between(b.server, b.wan);
            for _ in 0..3 {
                b.wan(ip.packet(udp(&ip, 40_000, 8_053, b"anyone?"))).wait_ms(1_200);
            }
            b.wan(ip.packet(udp(&ip, 40_001, 8_053, b"anyone?")));
        },
    },
    Scenario {
        name: "quote-wrong-checksum-masquerade",
        families: &Family::BOTH,
        title: "The quoted checksum is wrong",
        shows: "RFC 5508 (REQ-3) has a NAT drop such an error. Linux does not verify quoted checksums: the error is RELATED, \
                and what is wrong in the quote stays wrong by as much.",
        ids: &["ICMP-IN-06", "NAT-MAN-03"],
        compose: |b| {
            let mut left = b.masquerade().sends(probe);
            let checksum = b.header() + 6;
            left[checksum] ^= 0x55;
            b.exceed(&left);
            let syn = |ip: &Ip| Tcp::syn().body(ip);
            let mut left = b.sends(syn);
            let checksum = b.header() + 16;
            left[checksum] ^= 0x55;
            b.exceed(&left);
            if b.family == Family::V4 {
                // Also that of the quoted IP header.
                let mut left = b.outside().packet(probe(&b.outside()));
                left[10] ^= 0x55;
                b.exceed(&left);
            }
        },
    },
    Scenario {
        name: "error-about-flow-of-router",
        families: &Family::BOTH,
        title: "An error about a flow that a router between has seen",
        shows: "The complaint of a router on the client's side about an answer, and of one that is nowhere near: who sends an \
                error does not matter, only what it quotes and where it goes.",
        ids: &["ICMP-REL-01", "ICMP-REL-02"],
        compose: |b| {
            let left = b.probe();
            let back = b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            let nowhere: IpAddr = match b.family {
                Family::V4 => [240, 1, 2, 3].into(),
                Family::V6 => [0x3fff, 1, 2, 0, 0, 0, 0, 3].into(),
            };
            let stranger: IpAddr = match b.family {
                Family::V4 => [100, 64, 0, 1].into(),
                Family::V6 => [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1].into(),
            };
            for from in [nowhere, stranger, b.server, b.client] {
                let error = b.error(from, b.client, Kind::HostUnreachable, &left);
                b.wan(error);
            }
            let error = b.error(stranger, b.server, Kind::HostUnreachable, &back);
            b.lan(error);
        },
    },
];
