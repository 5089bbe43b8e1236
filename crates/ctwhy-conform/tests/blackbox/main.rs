//! The black-box suite and NATs that are broken on purpose: a router of ours in this process, and somebody who alters what
//! goes in or comes out. Every mistake that NATs are known for is found by the requirement that is about it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod bytes;
mod in_process;

use std::collections::BTreeSet;

use ctwhy_conform::blackbox::nat::Side;
use ctwhy_conform::blackbox::requirement::{Group, Level, Outcome};
use ctwhy_conform::blackbox::run::{Verdict, requirements};
use ctwhy_conform::blackbox::{Change, capture};
use ctwhy_core::packet::{Packet, be16, be32};
use ctwhy_core::tuple::proto;
use ctwhy_fixture::capture::Capture;

use bytes::{error_of, header, quote_of, seal_icmp, seal_ip, set_ttl, transport, ttl};
use in_process::{In, Out, Tamper, asked, complaints, failed, finds};

#[test]
fn ours_passes() {
    let (verdicts, changes) = asked(&mut (), 8000);
    assert_eq!(complaints(&verdicts), Vec::<String>::new());
    assert_eq!(changes, [Change::Collision; 2]);
    // Nothing passes because nothing was asked.
    let unasked = verdicts.iter().filter(|verdict| matches!(verdict.outcome, Outcome::NotApplicable(_)));
    assert_eq!(unasked.map(Verdict::name).collect::<Vec<_>>(), Vec::<String>::new());
    let asked: BTreeSet<&str> = verdicts.iter().map(|verdict| verdict.requirement.id.as_str()).collect();
    assert_eq!(asked.len(), requirements().len());
    // What RFCs ask for beyond the kernel is found missing, timeouts included.
    let beyond = verdicts.iter().filter(|verdict| verdict.fails(true)).map(|verdict| verdict.requirement.id.as_str());
    let beyond: BTreeSet<&str> = beyond.collect();
    let expected: BTreeSet<String> =
        requirements().into_iter().filter(|one| one.beyond.is_some()).map(|one| one.id).collect();
    assert_eq!(beyond, expected.iter().map(String::as_str).collect());
}

#[test]
fn ids_are_unique_and_speak() {
    let mut seen = BTreeSet::new();
    for requirement in requirements() {
        assert!(seen.insert(requirement.id.clone()), "{} is there twice", requirement.id);
        assert!(requirement.id.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)), "{}", requirement.id);
        assert!(!requirement.text.is_empty() && !requirement.text.ends_with('.'), "{}", requirement.id);
        let note = requirement.level == Level::Note;
        assert_eq!(requirement.id.starts_with("NOTE-"), note, "{}", requirement.id);
        assert!(note || !requirement.cites.is_empty(), "{} cites nothing", requirement.id);
    }
    for group in Group::ALL {
        assert!(requirements().iter().any(|one| one.group == group), "nothing is asked about {}", group.name());
    }
}

/// What was sent and what came can be looked at.
#[test]
fn a_failure_can_be_opened() {
    let mut tamper = Out(|side, packet: &mut Vec<u8>| {
        if let Some(quote) = quote_of(side, packet) {
            packet[quote + 4..quote + 6].fill(0);
            seal_icmp(packet);
        }
        true
    });
    let (verdicts, _) = asked(&mut tamper, 0);
    let verdict = verdicts.iter().find(|one| one.name() == "RFC5508-REQ-4a.udp.time-exceeded-v4").unwrap();
    assert_eq!(
        verdict.outcome,
        Outcome::Fail("in the quote: IPID 0x0000 instead of 0x4321; header checksum wrong".into())
    );
    let mut file = Vec::new();
    capture::write(verdict, &mut file).unwrap();
    let mut capture = Capture::new(&file[..], "failure").unwrap();
    let mut packets = 0;
    while let Some(packet) = capture.next() {
        packets += 1;
        assert!(packet.unwrap().interface < 2);
    }
    assert_eq!(packets, verdict.packets.len());
    assert!(packets >= 6, "{packets}");
    let said = String::from_utf8_lossy(&file);
    assert!(said.contains("IPID 0x0000 instead of 0x4321") && said.contains("the error as it arrived"), "{said}");
}

#[test]
fn spoiled_quotes_are_found() {
    // Of fields of the quoted IP header, and behind it.
    for (field, at_v4, at_v6) in [("IPID or flow label", 5, 3), ("TOS or traffic class", 1, 1), ("length", 3, 5)] {
        let mut tamper = Out(|side, packet: &mut Vec<u8>| {
            if let Some(quote) = quote_of(side, packet) {
                let at = quote + if packet[0] >> 4 == 4 { at_v4 } else { at_v6 };
                packet[at] ^= 0x10;
                seal_icmp(packet);
            }
            true
        });
        let exact = ["udp", "tcp", "echo"].map(|proto| format!("RFC5508-REQ-4a.{proto}.time-exceeded"));
        let exact: Vec<&str> = exact.iter().map(String::as_str).collect();
        finds(field, &mut tamper, &exact, &["RFC5508-REQ-4a", "RFC5508-REQ-10", "RFC5508-REQ-3"]);
    }
    for (field, at, expected) in [
        (
            "source port",
            1,
            &[
                "RFC5508-REQ-4a.udp.eight-bytes",
                "RFC5508-REQ-3c.tcp",
                "RFC5508-REQ-3b.udp",
                "KERNEL-FRAG-08.first-fragment",
            ][..],
        ),
        (
            "UDP checksum or sequence number",
            6,
            &[
                "RFC5508-REQ-4a.udp.in-flight",
                "RFC5508-REQ-4a.tcp.eight-bytes",
                "KERNEL-NAT-MAN-03.udp.no-checksum-quoted",
            ],
        ),
        (
            "data or TCP checksum",
            17,
            &["RFC5508-REQ-4a.udp.too-big", "RFC5508-REQ-4a.tcp.too-big", "RFC5508-REQ-4a.echo.too-big"],
        ),
    ] {
        let mut tamper = Out(|side, packet: &mut Vec<u8>| {
            if let Some(quote) = quote_of(side, packet) {
                // Behind whatever is in front of the quoted transport header.
                let inner = if packet[0] >> 4 == 4 {
                    usize::from(packet[quote] & 15) * 4
                } else {
                    40 + if matches!(packet[quote + 6], 44 | 60) { 8 } else { 0 }
                };
                if let Some(byte) = packet.get_mut(quote + inner + at) {
                    *byte ^= 0x40;
                    seal_icmp(packet);
                }
            }
            true
        });
        finds(
            field,
            &mut tamper,
            expected,
            &[
                "RFC5508-REQ-4a",
                "RFC5508-REQ-10",
                "RFC5508-REQ-3",
                "KERNEL-FRAG-08",
                "KERNEL-ICMP6-E-05",
                "KERNEL-NAT-MAN-03",
            ],
        );
    }
}

#[test]
fn spoiled_errors_are_found() {
    let mut zero = Out(|side, packet: &mut Vec<u8>| {
        if let Some(quote) = quote_of(side, packet) {
            packet[quote - 4..quote].fill(0);
            seal_icmp(packet);
        }
        true
    });
    let expected = [
        "KERNEL-NAT-ICMP.udp.rest-of-header",
        "KERNEL-NAT-ICMP.tcp.rest-of-header",
        "KERNEL-NAT-ICMP.echo.rest-of-header",
        "RFC5508-REQ-4b.udp.mtu",
        "RFC5508-REQ-4b.tcp.mtu",
        "RFC5508-REQ-4b.echo.mtu",
        "RFC5508-REQ-3d.udp",
        "RFC5508-REQ-3d.tcp",
    ];
    finds("rest of header", &mut zero, &expected, &[]);

    // A checksum put right where that of UDP would be: zero is left alone, so only what is not zero shows it.
    let mut as_udp = Out(|side, packet: &mut Vec<u8>| {
        if let Some(quote) = quote_of(side, packet)
            && packet[quote - 2..quote] != [0, 0]
        {
            packet[quote - 2] ^= 0x33;
            seal_icmp(packet);
        }
        true
    });
    finds("MTU for a UDP checksum", &mut as_udp, &expected[..6], &[]);

    let mut labels = Out(|side, packet: &mut Vec<u8>| {
        if let Some(quote) = quote_of(side, packet)
            && packet.len() > quote + 128
            && packet[quote - 4..quote - 2] != [0, 0]
        {
            *packet.last_mut().unwrap() ^= 1;
            seal_icmp(packet);
        }
        true
    });
    finds("labels of MPLS", &mut labels, &["RFC5508-REQ-3d.udp", "RFC5508-REQ-3d.tcp"], &[]);

    let mut checksum = Out(|side, packet: &mut Vec<u8>| {
        if let Some(quote) = quote_of(side, packet) {
            packet[quote - 6] ^= 0x40;
        }
        true
    });
    finds(
        "ICMP checksum",
        &mut checksum,
        &["RFC5508-REQ-4.udp.time-exceeded", "RFC5508-REQ-4.tcp.too-big", "RFC5508-REQ-4.echo.parameter-problem"],
        &["RFC5508-REQ-4.", "RFC5508-REQ-10."],
    );

    let mut class = Out(|side, packet: &mut Vec<u8>| {
        if let Some(quote) = quote_of(side, packet) {
            packet[quote - 7] ^= 0x02;
            seal_icmp(packet);
        }
        true
    });
    finds(
        "code",
        &mut class,
        &["RFC5508-REQ-4.udp.prohibited", "RFC5508-REQ-4.tcp.net-unreachable"],
        &["RFC5508-REQ-4.", "RFC5508-REQ-10.", "KERNEL-ICMP-REL-12"],
    );

    let mut sender = Out(|side, packet: &mut Vec<u8>| {
        if quote_of(side, packet).is_some() {
            let at = if packet[0] >> 4 == 4 { 13 } else { 12 };
            packet[at] ^= 0x80;
            seal_ip(packet);
            seal_icmp(packet);
        }
        true
    });
    finds(
        "who says it",
        &mut sender,
        &["RFC5508-REQ-4.udp.time-exceeded", "RFC5508-REQ-4.echo.host-unreachable"],
        &["RFC5508-REQ-4", "RFC5508-REQ-3.", "KERNEL-ICMP", "KERNEL-NAT-ICMP-11"],
    );
}

#[test]
fn lost_errors_are_found() {
    let protocol_quoted = |packet: &[u8]| {
        let quote = error_of(packet)? + 8;
        packet.get(quote + if packet[0] >> 4 == 4 { 9 } else { 6 }).copied()
    };
    let mut no_echo = In(|side, packet: &mut Vec<u8>| {
        !(side == Side::Outside && matches!(protocol_quoted(packet), Some(proto::ICMP | proto::ICMPV6)))
    });
    finds(
        "errors about echo",
        &mut no_echo,
        &["RFC5508-REQ-4.echo.time-exceeded", "RFC5508-REQ-4b.echo.mtu", "RFC5508-REQ-4a.echo.too-big"],
        &["RFC5508-REQ-4.echo", "RFC5508-REQ-4a.echo", "KERNEL-NAT-ICMP.echo"],
    );

    let mut no_short = In(|side, packet: &mut Vec<u8>| {
        let short = error_of(packet).is_some_and(|at| packet.len() < at + 8 + header(packet) + 20);
        !(side == Side::Outside && short && protocol_quoted(packet) == Some(proto::TCP))
    });
    finds("short quotes of TCP", &mut no_short, &["RFC5508-REQ-4a.tcp.eight-bytes"], &[]);

    let mut no_options = In(|side, packet: &mut Vec<u8>| {
        let behind = error_of(packet).is_some_and(|at| packet[at + 8] > 0x45 && packet[at + 8] >> 4 == 4);
        !(side == Side::Outside && (behind || matches!(protocol_quoted(packet), Some(60))))
    });
    finds("quoted options", &mut no_options, &["RFC5508-REQ-3b.udp", "KERNEL-ICMP6-E-05.udp"], &[]);

    let mut no_fragments =
        In(|_, packet: &mut Vec<u8>| Packet::parse(packet, packet.len()).unwrap().fragment.is_none());
    finds(
        "fragments",
        &mut no_fragments,
        &[
            "RFC4787-REQ-14.out.in-order",
            "RFC4787-REQ-14.out.out-of-order",
            "RFC4787-REQ-14.in.in-order",
            "RFC4787-REQ-14.in.out-of-order",
            "RFC4787-REQ-14.udp.after-too-big",
            "KERNEL-ICMP-REL-12.udp",
        ],
        &[],
    );

    let mut no_own = In(|side, packet: &mut Vec<u8>| !(side == Side::Inside && error_of(packet).is_some()));
    finds(
        "errors of clients",
        &mut no_own,
        &[
            "RFC5508-REQ-5.udp.port-unreachable",
            "RFC5508-REQ-5.tcp.too-big",
            "RFC5508-REQ-5.echo.port-unreachable",
            "RFC5508-REQ-5c.udp",
        ],
        &["RFC5508-REQ-5."],
    );

    let mut unread = Out(|side, packet: &mut Vec<u8>| {
        let resets = transport(packet).0 == proto::TCP && packet[transport(packet).1 + 13] & 4 != 0;
        if side == Side::Inside && resets {
            let at = transport(packet).1;
            packet[at + 13] &= !0x10;
            let sum = u32::from(be16(packet, at + 16).unwrap()) + 0x10;
            packet[at + 16..at + 18].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
        }
        true
    });
    finds("a RST that does not count", &mut unread, &["RFC5382-REQ-2.closed-port"], &[]);
}

/// One that takes every error for one about what a client sent last.
#[derive(Default)]
struct Credulous {
    last: Vec<u8>,
}

impl Tamper for Credulous {
    fn enter(&mut self, side: Side, packet: &mut Vec<u8>) -> bool {
        if side == Side::Inside && error_of(packet).is_none() {
            self.last.clone_from(packet);
        }
        true
    }

    fn instead(&mut self, dropped: &[u8]) -> Option<Vec<u8>> {
        let at = error_of(dropped)?;
        let (source, target) = if dropped[0] >> 4 == 4 { (12..16, 16..20) } else { (8..24, 24..40) };
        let mut error = dropped[..at + 8].to_vec();
        error[target].copy_from_slice(self.last.get(source)?);
        error.extend(&self.last);
        let total = error.len();
        let length = if error[0] >> 4 == 4 { total } else { total - 40 } as u16;
        let field = if error[0] >> 4 == 4 { 2..4 } else { 4..6 };
        error[field].copy_from_slice(&length.to_be_bytes());
        seal_ip(&mut error);
        seal_icmp(&mut error);
        Some(error)
    }
}

#[test]
fn forged_errors_are_found() {
    let expected: Vec<String> = requirements()
        .into_iter()
        .filter(|one| one.group == Group::Forged && one.beyond.is_none())
        .map(|one| one.id)
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert!(expected.len() >= 15, "{expected:?}");
    finds("credulous", &mut Credulous::default(), &expected, &[]);

    let mut launders = In(|side, packet: &mut Vec<u8>| {
        let whole = Packet::parse(packet, packet.len()).unwrap().fragment.is_none();
        if side == Side::Outside && whole && error_of(packet).is_some() {
            seal_icmp(packet);
        }
        true
    });
    let expected = ["RFC5508-REQ-3.udp.checksum", "RFC5508-REQ-3.tcp.checksum", "RFC5508-REQ-3.echo.checksum"];
    finds("launders checksums", &mut launders, &expected, &[]);
}

/// One that lets no error in is not praised for stopping forged ones.
#[test]
fn who_is_deaf_gets_no_credit() {
    let mut deaf = In(|side, packet: &mut Vec<u8>| !(side == Side::Outside && error_of(packet).is_some()));
    let (verdicts, _) = asked(&mut deaf, 0);
    for verdict in verdicts.iter().filter(|verdict| verdict.requirement.group == Group::Forged) {
        let vacuous = matches!(&verdict.outcome, Outcome::NotApplicable(why) if why.starts_with("vacuous"));
        assert!(vacuous, "{}: {:?}", verdict.name(), verdict.outcome);
    }
    let failed = failed(&verdicts);
    assert!(failed.contains("RFC5508-REQ-4.udp.time-exceeded") && failed.contains("RFC5508-REQ-4a.udp.in-flight"));
}

#[test]
fn spoiled_packets_are_found() {
    let mut tos = Out(|side, packet: &mut Vec<u8>| {
        if side == Side::Outside && error_of(packet).is_none() {
            packet[1] = if packet[0] >> 4 == 4 { 0 } else { packet[1] & 0x0f };
            packet[0] &= if packet[0] >> 4 == 4 { 0xff } else { 0xf0 };
            seal_ip(packet);
        }
        true
    });
    let out = ["KERNEL-NAT-MAN.udp.packet", "KERNEL-NAT-MAN.tcp.packet", "KERNEL-NAT-MAN.echo.packet"];
    finds("TOS", &mut tos, &out, &["RFC5508-REQ-4a"]);

    let mut invisible = Out(|_, packet: &mut Vec<u8>| {
        let ttl = ttl(packet);
        if ttl < 64 {
            set_ttl(packet, ttl + 1);
        }
        true
    });
    finds(
        "does not count",
        &mut invisible,
        &["RFC1812-5.3.1.udp.out", "RFC1812-5.3.1.tcp.in", "RFC1812-5.3.1.error"],
        &["RFC1812-5.3.1"],
    );

    struct Zero(bool);
    impl Tamper for Zero {
        fn enter(&mut self, side: Side, packet: &mut Vec<u8>) -> bool {
            self.0 = side == Side::Inside && ttl(packet) == 1;
            if self.0 {
                set_ttl(packet, 2);
            }
            true
        }

        fn leave(&mut self, _: Side, packet: &mut Vec<u8>) -> bool {
            if self.0 {
                set_ttl(packet, 0);
            }
            true
        }
    }
    finds(
        "TTL 1 goes on as 0",
        &mut Zero(false),
        &["RFC5508-REQ-10.udp.ttl-1", "RFC5508-REQ-10.tcp.ttl-1", "RFC5508-REQ-10.echo.ttl-1"],
        &[],
    );

    let mut checksum = Out(|side, packet: &mut Vec<u8>| {
        let (protonum, at) = transport(packet);
        if side == Side::Outside && protonum == proto::UDP && packet[at + 6..at + 8] == [0, 0] {
            packet[at + 6] = 0xde;
        }
        true
    });
    finds("no checksum", &mut checksum, &["KERNEL-NAT-MAN-03.udp.no-checksum"], &["KERNEL-NAT-MAN-03"]);

    let mut cuts = Out(|side, packet: &mut Vec<u8>| {
        if side == Side::Outside && packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
            packet[6] &= !0x40;
            seal_ip(packet);
        }
        true
    });
    finds("DF", &mut cuts, &["RFC4787-REQ-13.udp.not-cut"], &["RFC4787-REQ-13"]);
}

/// One for which the mapping of a flow has ended when an error about it came.
#[derive(Default)]
struct Forgets {
    ended: BTreeSet<(u8, u16)>,
}

impl Tamper for Forgets {
    fn enter(&mut self, side: Side, packet: &mut Vec<u8>) -> bool {
        let Some(at) = error_of(packet) else { return true };
        let quote = at + 8;
        let inner = quote + header(packet);
        let protonum = packet.get(quote + if packet[0] >> 4 == 4 { 9 } else { 6 }).copied().unwrap_or_default();
        if side == Side::Outside && matches!(protonum, proto::UDP | proto::TCP) {
            self.ended.extend(be16(packet, inner).map(|port| (protonum, port)));
        }
        true
    }

    fn leave(&mut self, side: Side, packet: &mut Vec<u8>) -> bool {
        let (protonum, at) = transport(packet);
        let port = be16(packet, at + if side == Side::Outside { 0 } else { 2 }).unwrap_or_default();
        if side == Side::Outside && self.ended.contains(&(protonum, port)) {
            packet[at..at + 2].copy_from_slice(&(port ^ 2).to_be_bytes());
        }
        // To the client it is all one: nothing arrives any more.
        let seq = if protonum == proto::TCP { be32(packet, at + 4) } else { None };
        !(side == Side::Inside && seq.is_some() && !self.ended.is_empty())
    }
}

#[test]
fn mappings_that_end_are_found() {
    let expected = [
        "RFC4787-REQ-12.udp.time-exceeded",
        "RFC4787-REQ-12.udp.port-unreachable",
        "RFC4787-REQ-12.udp.prohibited",
        "RFC4787-REQ-12.udp.too-big",
        "RFC5382-REQ-10.tcp.time-exceeded",
        "RFC5382-REQ-10.established.too-big",
    ];
    let (verdicts, _) = asked(&mut Forgets::default(), 0);
    let failed = failed(&verdicts);
    for id in expected {
        assert!(failed.contains(id), "{id}: {:#?}", complaints(&verdicts));
    }
}
