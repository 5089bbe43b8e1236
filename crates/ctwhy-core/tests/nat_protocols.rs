//! NAT of SCTP, GRE and UDP-Lite, outside and in quotes. NAT-PORT-01, NAT-MAN-04, NAT-MAN-06.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod common;

use common::*;
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::hook::{DropCause, Egress, Engine, Ruling, Verdict};
use ctwhy_core::nat::range::Range;
use ctwhy_core::nat::rules::{Ruleset, Target};
use ctwhy_core::time::Time;
use ctwhy_core::trace::{Protected, Step, Trace, Update};
use ctwhy_core::tuple::L3;

const LAN: Option<u16> = Some(0);
const WAN: Option<u16> = Some(1);
/// Client, address of the NAT, server, router, and the type of time exceeded.
const FAMILIES: [(&str, &str, &str, &str, u8); 2] =
    [(CLIENT, NAT, SERVER, ROUTER, 11), (CLIENT6, NAT6, SERVER6, ROUTER6, 3)];

/// Sends a packet through the box; the ruling, and the packet as it left.
fn through(engine: &mut Engine, packet: &[u8], interface: Option<u16>) -> (Ruling, Vec<u8>) {
    let mut buffer = packet.to_vec();
    let ruling = engine.receive(&mut buffer, packet.len(), interface, Time(0), &mut ());
    (ruling, buffer)
}

fn header(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

fn masquerading() -> Engine {
    nat_box(|_| masquerade(Range::default()))
}

/// Everything from outside goes to the client.
fn forwarding() -> Engine {
    nat_box(|l3| {
        let client = ip(if l3 == L3::V4 { CLIENT } else { CLIENT6 }).into();
        let range = Range { addresses: Some((client, client)), ..Range::default() };
        Ruleset { prerouting: rule(Target::Dnat(range)), ..Ruleset::default() }
    })
}

fn gre(src: &str, dst: &str, version: u8, call_id: u16) -> Vec<u8> {
    let [high, low] = call_id.to_be_bytes();
    packet(src, dst, 47, 57, &[0x30, version, 0x88, 0x0b, 0, 0, high, low, 0, 0, 0, 1])
}

#[test]
fn nat_man_04_sctp_has_its_crc_computed_anew() {
    for (client, nat, server, ..) in FAMILIES {
        let mut engine = masquerading();
        let open = [chunk(1, 0, &init_body(7))];
        let (ruling, out) = through(&mut engine, &sctp(client, 4000, server, 9, 0, &open), LAN);
        assert_eq!(ruling.ctinfo, Ok(CtInfo::New));
        assert_eq!(out, aged(sctp(nat, 4000, server, 9, 0, &open)));
        let answer = [chunk(2, 0, &init_body(8))];
        let (ruling, back) = through(&mut engine, &sctp(server, 9, nat, 4000, 7, &answer), WAN);
        assert_eq!(ruling.ctinfo, Ok(CtInfo::EstablishedReply));
        assert_eq!(back, aged(sctp(server, 9, client, 4000, 7, &answer)));
    }
}

#[test]
fn nat_port_01_a_second_association_from_the_same_port_gets_another() {
    let mut engine = masquerading();
    let (_, first) = through(&mut engine, &sctp(CLIENT, 4000, SERVER, 9, 0, &[init(7)]), LAN);
    let (ruling, second) = through(&mut engine, &sctp("10.0.1.3", 4000, SERVER, 9, 0, &[init(7)]), LAN);
    assert_eq!(ruling.verdict, Verdict::Accept);
    assert_eq!(get16(&first, 20), 4000);
    let port = get16(&second, 20);
    assert!(port >= 1024 && port != 4000, "{port}");
    assert_eq!(second, aged(sctp(NAT, port, SERVER, 9, 0, &[init(7)])));
    // And UDP-Lite; its ports have nothing to do with SCTP's.
    let mut ports = ["10.0.1.2", "10.0.1.3"].map(|client| {
        let (_, out) = through(&mut engine, &udplite(client, 4000, SERVER, 9, 0, b"x"), LAN);
        assert_eq!(out, aged(udplite(NAT, get16(&out, 20), SERVER, 9, 0, b"x")));
        get16(&out, 20)
    });
    ports.sort_unstable();
    assert!(ports.contains(&4000) && ports[0] != ports[1], "{ports:?}");
}

#[test]
fn nat_man_04_a_wrong_crc_comes_out_right() {
    let mut engine = masquerading();
    engine.conntrack.sysctls.checksum = false;
    let mut broken = sctp(CLIENT, 4000, SERVER, 9, 0, &[init(7)]);
    broken[20 + 8] ^= 0x40;
    let mut trace = Trace::default();
    let len = broken.len();
    let mut buffer = broken.clone();
    engine.receive(&mut buffer, len, LAN, Time(0), &mut trace);
    assert!(checksums_are_right(&buffer));
    let four = |bytes: &[u8]| u32::from_be_bytes(bytes[28..32].try_into().unwrap());
    let told = trace.steps.iter().find_map(|step| match *step {
        Step::ChecksumUpdated { protected: Protected::Sctp, how, from, to, .. } => Some((how, from, to)),
        _ => None,
    });
    assert_eq!(told, Some((Update::Full, four(&broken), four(&buffer))));
}

#[test]
fn a_capture_that_lacks_bytes_keeps_its_crc() {
    let mut engine = masquerading();
    let whole = sctp(CLIENT, 4000, SERVER, 9, 9, &[chunk(4, 0, &[1; 60])]);
    let mut cut = whole[..60].to_vec();
    let ruling = engine.receive(&mut cut, whole.len(), LAN, Time(0), &mut ());
    assert_eq!(ruling.ctinfo, Ok(CtInfo::New));
    assert_eq!(cut[28..32], whole[28..32]);
    assert_eq!(cut[12..16], [203, 0, 113, 1]);
}

#[test]
fn nat_man_04_in_a_quote_the_crc_covers_what_the_error_holds() {
    for (client, nat, server, router, time_exceeded) in FAMILIES {
        let mut engine = masquerading();
        let (_, out) = through(&mut engine, &sctp(client, 4000, server, 9, 0, &[init(7)]), LAN);
        let at = header(&out);
        // The whole packet, padding behind it, the bare header with and without checksum.
        for (keep, padding) in [(out.len(), 0), (out.len(), 5), (at + 12, 0), (at + 11, 0), (at + 8, 0)] {
            let mut quote = out[..keep].to_vec();
            quote.extend(vec![0; padding]);
            let (ruling, back) = through(&mut engine, &error(router, nat, time_exceeded, 0, 0, &quote), WAN);
            assert_eq!((ruling.ctinfo, ruling.egress), (Ok(CtInfo::RelatedReply), Egress::Forwarded(LAN)));
            assert!(checksums_are_right(&back));
            let quoted = &back[at + 8 + at..];
            assert_eq!(quoted[..4], [0x0f, 0xa0, 0, 9]);
            if keep >= at + 12 {
                let mut zeroed = quoted.to_vec();
                zeroed[8..12].fill(0);
                assert_eq!(quoted[8..12], crc32c(&zeroed), "{keep} {padding}");
            } else {
                assert_eq!(quoted[8..], out[at + 8..keep]);
            }
        }
        let short = error(router, nat, time_exceeded, 0, 0, &out[..at + 7]);
        let (ruling, _) = through(&mut engine, &short, WAN);
        assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply));
        assert!(matches!(ruling.verdict, Verdict::Drop(DropCause::Nat(cause)) if cause.code() == "nat.too_short"));
    }
}

#[test]
fn nat_man_04_udplite_has_its_checksum_adjusted_always() {
    for (client, nat, server, router, time_exceeded) in FAMILIES {
        let mut engine = masquerading();
        for coverage in [0, 8, 11] {
            let (_, out) = through(&mut engine, &udplite(client, 4000, server, 9, coverage, b"covered?"), LAN);
            assert_eq!(out, aged(udplite(nat, 4000, server, 9, coverage, b"covered?")));
        }
        // In a quote nobody looks whether there is one: 0 is adjusted like any other, and never stays 0.
        let mut quote = udplite(nat, 4000, server, 9, 0, b"");
        let at = header(&quote);
        set16(&mut quote, at + 6, 0);
        let (_, back) = through(&mut engine, &error(router, nat, time_exceeded, 0, 0, &quote), WAN);
        assert_ne!(get16(&back, at + 8 + at + 6), 0);
    }
}

#[test]
fn nat_man_06_gre_has_nothing_to_vary() {
    for (client, nat, server, ..) in FAMILIES {
        for version in [0, 1] {
            let mut engine = masquerading();
            let (ruling, out) = through(&mut engine, &gre(client, server, version, 7), LAN);
            assert_eq!((ruling.ctinfo, ruling.verdict), (Ok(CtInfo::New), Verdict::Accept));
            assert_eq!(out, aged(gre(nat, server, version, 7)));
            let second = if client == CLIENT { "10.0.1.3" } else { "2001:db8:1::3" };
            let (ruling, _) = through(&mut engine, &gre(second, server, version, 7), LAN);
            let Verdict::Drop(DropCause::Confirm(cause)) = ruling.verdict else { panic!("{ruling:?}") };
            assert_eq!(cause, ctwhy_core::confirm::ConfirmDrop::Clash { direction: Direction::Reply });
        }
        // Another call is another flow.
        let mut engine = masquerading();
        for call in [7, 8] {
            let (ruling, _) = through(&mut engine, &gre(client, server, 1, call), LAN);
            assert_eq!(ruling.verdict, Verdict::Accept);
        }
    }
}

#[test]
fn nat_man_06_only_the_destination_manip_looks_at_the_version() {
    for (client, nat, server, ..) in FAMILIES {
        for version in [2, 7] {
            let (ruling, out) = through(&mut masquerading(), &gre(client, server, version, 7), LAN);
            assert_eq!(ruling.verdict, Verdict::Accept);
            assert_eq!(out, aged(gre(nat, server, version, 7)));
            let (ruling, _) = through(&mut forwarding(), &gre(server, nat, version, 7), WAN);
            let Verdict::Drop(DropCause::Nat(cause)) = ruling.verdict else { panic!("{ruling:?}") };
            assert_eq!(cause.code(), "nat.gre_version");
        }
        for version in [0, 1] {
            let (ruling, out) = through(&mut forwarding(), &gre(server, nat, version, 7), WAN);
            assert_eq!(ruling.verdict, Verdict::Accept);
            assert_eq!(out, aged(gre(server, client, version, 7)));
        }
    }
}

#[test]
fn nat_man_10_gre_of_less_than_8_bytes_cannot_be_translated() {
    for (client, _, server, ..) in FAMILIES {
        for (bytes, passes) in [(0, false), (4, false), (7, false), (8, true)] {
            let short = packet(client, server, 47, 57, &[0; 8][..bytes]);
            let (ruling, _) = through(&mut masquerading(), &short, LAN);
            assert_eq!(ruling.ctinfo, Ok(CtInfo::New));
            assert_eq!(ruling.verdict == Verdict::Accept, passes, "{bytes}");
        }
    }
}

#[test]
fn a_gre_quote_is_translated_and_keeps_its_call_id() {
    for (client, nat, server, router, time_exceeded) in FAMILIES {
        for version in [0, 1] {
            let mut engine = masquerading();
            let (_, out) = through(&mut engine, &gre(client, server, version, 7), LAN);
            let (ruling, back) = through(&mut engine, &error(router, nat, time_exceeded, 0, 0, &out), WAN);
            assert_eq!((ruling.ctinfo, ruling.egress), (Ok(CtInfo::RelatedReply), Egress::Forwarded(LAN)));
            let at = header(&out);
            let (quoted, sent) = (&back[at + 8..], gre(client, server, version, 7));
            assert_eq!(quoted[at..], sent[at..]);
            assert_eq!(quoted[12..16], sent[12..16]);
        }
    }
}
