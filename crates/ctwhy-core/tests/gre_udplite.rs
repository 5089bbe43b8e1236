//! GRE and UDP-Lite rule by rule. Catalogue A.4 (TUPLE-04) and F.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod common;

use common::*;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::Engine;
use ctwhy_core::reason::Reason;
use ctwhy_core::status::Status;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::proto;

const NEW: Result<CtInfo, &str> = Ok(CtInfo::New);
const ESTABLISHED: Result<CtInfo, &str> = Ok(CtInfo::Established);
const REPLY: Result<CtInfo, &str> = Ok(CtInfo::EstablishedReply);

fn decide(engine: &mut Engine, packet: &[u8]) -> Result<CtInfo, &'static str> {
    let ruling = receive(engine, packet);
    match invalid(&ruling) {
        Some(code) => Err(code),
        None => Ok(ruling.ctinfo.unwrap()),
    }
}

/// Timeout and ASSURED of the only entry.
fn entry(engine: &Engine) -> (u32, bool) {
    assert_eq!(engine.conntrack.table.len(), 1);
    let (_, entry) = engine.conntrack.table.iter().next().unwrap();
    (entry.remaining_secs(Time(0)), entry.flow.status.contains(Status::ASSURED))
}

fn gre(src: &str, dst: &str, l4: &[u8]) -> Vec<u8> {
    packet(src, dst, proto::GRE, 57, l4)
}

/// GRE version 1 as PPTP has it.
fn pptp(src: &str, dst: &str, call_id: u16) -> Vec<u8> {
    let [high, low] = call_id.to_be_bytes();
    gre(src, dst, &[0x30, 0x01, 0x88, 0x0b, 0, 0, high, low, 0, 0, 0, 1])
}

#[test]
fn gre_01_two_timeouts_and_assured_with_the_second() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut engine = Engine::new(0);
        let (there, back) = (gre(client, server, &[0, 0, 8, 0]), gre(server, client, &[0, 0, 8, 0]));
        for (packet, said, left, assured) in [
            (&there, NEW, 30, false),
            (&there, NEW, 30, false),
            (&back, REPLY, 30, false),
            (&back, REPLY, 180, true),
            (&there, ESTABLISHED, 180, true),
        ] {
            assert_eq!(decide(&mut engine, packet), said);
            assert_eq!(entry(&engine), (left, assured));
        }
    }
}

#[test]
fn gre_timeouts_are_those_of_the_time_when_the_flow_began() {
    let mut engine = Engine::new(0);
    let set = |engine: &mut Engine, unreplied: &str, replied: &str| {
        engine.conntrack.sysctls.set("nf_conntrack_gre_timeout", unreplied).unwrap();
        engine.conntrack.sysctls.set("nf_conntrack_gre_timeout_stream", replied).unwrap();
    };
    set(&mut engine, "40", "50");
    let (there, back) = (gre(CLIENT, SERVER, &[]), gre(SERVER, CLIENT, &[]));
    assert_eq!(decide(&mut engine, &there), NEW);
    set(&mut engine, "41", "51");
    assert_eq!(decide(&mut engine, &there), NEW);
    assert_eq!(entry(&engine), (40, false));
    assert_eq!(decide(&mut engine, &back), REPLY);
    assert_eq!(decide(&mut engine, &back), REPLY);
    assert_eq!(entry(&engine), (50, true));
}

#[test]
fn tuple_04_only_version_1_has_keys() {
    // Key and checksum fields of version 0, versions that nobody has defined, and next to nothing: one flow.
    let keyless: [&[u8]; 7] = [
        &[0x20, 0, 8, 0, 0, 0, 0, 7],
        &[0x20, 0, 8, 0, 0, 0, 0, 8],
        &[0, 2, 0x88, 0x0b, 0, 0, 0, 9],
        &[0, 7, 8, 0, 0, 0, 0, 9],
        &[],
        &[1],
        // Version 1 without its call id.
        &[0x30, 1, 8, 0, 0, 0, 0],
    ];
    let mut engine = Engine::new(0);
    for l4 in keyless {
        assert_eq!(decide(&mut engine, &gre(CLIENT, SERVER, l4)), NEW);
        assert_eq!(engine.conntrack.table.len(), 1);
    }
    // The other flag bits beside the version do not matter.
    assert_eq!(decide(&mut engine, &gre(CLIENT, SERVER, &[0, 0xf9, 0x88, 0x0b, 0, 0, 0, 7])), NEW);
    assert_eq!(engine.conntrack.table.len(), 2);
    assert_eq!(decide(&mut engine, &pptp(CLIENT, SERVER, 7)), NEW);
    assert_eq!(engine.conntrack.table.len(), 2);
    assert_eq!(decide(&mut engine, &pptp(CLIENT, SERVER, 8)), NEW);
    assert_eq!(engine.conntrack.table.len(), 3);
    // Each side has a call id of its own, and no control connection says which belong together.
    assert_eq!(decide(&mut engine, &pptp(SERVER, CLIENT, 7)), NEW);
    assert_eq!(engine.conntrack.table.len(), 4);
    // A call id of 0 is no key.
    assert_eq!(decide(&mut engine, &pptp(SERVER, CLIENT, 0)), REPLY);
}

#[test]
fn tuple_04_version_1_must_carry_ppp() {
    let mut engine = Engine::new(0);
    let ip_in_1 = gre(CLIENT, SERVER, &[0x30, 1, 8, 0, 0, 0, 0, 7]);
    assert_eq!(decide(&mut engine, &ip_in_1), Err("tuple.gre_payload"));
    let quoted = error(ROUTER, CLIENT, 11, 0, 0, &ip_in_1);
    assert_eq!(decide(&mut engine, &quoted), Err("icmp.quoted_gre_payload"));
}

#[test]
fn an_error_that_quotes_gre_finds_its_flow() {
    let mut engine = Engine::new(0);
    for probe in [pptp(CLIENT, SERVER, 7), gre(CLIENT, SERVER, &[0, 0, 8, 0, 1, 2, 3, 4])] {
        assert_eq!(decide(&mut engine, &probe), NEW);
        assert_eq!(decide(&mut engine, &error(ROUTER, CLIENT, 11, 0, 0, &probe)), Ok(CtInfo::RelatedReply));
    }
    let other_call = error(ROUTER, CLIENT, 11, 0, 0, &pptp(CLIENT, SERVER, 8));
    assert_eq!(decide(&mut engine, &other_call), Err("icmp.quoted_unknown_flow"));
}

#[test]
fn udplite_02_two_timeouts_and_assured_with_the_second() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut engine = Engine::new(0);
        let there = udplite(client, 4000, server, 5000, 0, b"to");
        let back = udplite(server, 5000, client, 4000, 8, b"fro");
        for (packet, said, left, assured) in [
            (&there, NEW, 30, false),
            (&there, NEW, 30, false),
            (&back, REPLY, 30, false),
            (&back, REPLY, 120, true),
            (&there, ESTABLISHED, 120, true),
        ] {
            assert_eq!(decide(&mut engine, packet), said);
            assert_eq!(entry(&engine), (left, assured));
        }
        engine.conntrack.sysctls.udp_timeout_stream = 77;
        assert_eq!(decide(&mut engine, &there), ESTABLISHED);
        assert_eq!(entry(&engine), (77, true));
    }
}

#[test]
fn udplite_01_header_and_coverage() {
    let said = |packet: &[u8]| decide(&mut Engine::new(0), packet);
    let whole = udplite(CLIENT, 1, SERVER, 2, 0, &[7; 20]);
    for cut in 4..8 {
        assert_eq!(said(&packet(CLIENT, SERVER, 136, 57, &whole[20..20 + cut])), Err("udplite.short"));
    }
    assert_eq!(said(&packet(CLIENT, SERVER, 136, 57, &whole[20..23])), Err("tuple.short_transport"));
    for coverage in [0, 8, 9, 27, 28] {
        assert_eq!(said(&udplite(CLIENT, 1, SERVER, 2, coverage, &[7; 20])), NEW, "{coverage}");
    }
    for coverage in [1, 7, 29, 0xffff] {
        assert_eq!(said(&udplite(CLIENT, 1, SERVER, 2, coverage, &[7; 20])), Err("udplite.coverage"), "{coverage}");
    }
    let mut without = whole.clone();
    set16(&mut without, 26, 0);
    assert_eq!(said(&without), Err("udplite.no_checksum"));
}

#[test]
fn udplite_01_what_the_checksum_covers() {
    let mut engine = Engine::new(0);
    let whole = udplite(CLIENT, 1, SERVER, 2, 12, &[7; 20]);
    let mut behind = whole.clone();
    behind[20 + 12] ^= 1;
    assert_eq!(decide(&mut engine, &behind), NEW);
    let mut inside = whole.clone();
    inside[20 + 11] ^= 1;
    assert_eq!(decide(&mut engine, &inside), Err("udplite.checksum"));
    engine.conntrack.sysctls.checksum = false;
    assert_eq!(decide(&mut engine, &inside), NEW);
}

/// The kernel takes UDP's protocol number, and in IPv4 only 8 bits of the length: what RFC 3828 asks for is INVALID.
#[test]
fn udplite_01_the_kernel_has_a_pseudo_header_of_its_own() {
    for (client, server, length_bits) in [(CLIENT, SERVER, 0xff), (CLIENT6, SERVER6, 0xffff)] {
        for payload in [0usize, 3, 247, 248, 249, 600] {
            let summed = |protonum: u8, mask: usize| {
                let bytes = vec![0x5a; payload];
                udplite_summed(client, 1, server, 2, 0, &bytes, |len| (protonum, len & mask))
            };
            let said = |packet: &[u8]| decide(&mut Engine::new(0), packet);
            assert_eq!(said(&summed(17, length_bits)), NEW);
            assert_eq!(said(&summed(136, 0xffff)), Err("udplite.checksum"));
            let fits = (payload + 8) & 0xffff == (payload + 8) & length_bits;
            assert_eq!(said(&summed(17, 0xffff)) == NEW, fits, "{payload}");

            let rfc_packet = summed(136, 0xffff);
            let Some(Reason::UdpliteChecksum { found, expected, rfc }) =
                receive(&mut Engine::new(0), &rfc_packet).reason
            else {
                panic!("no checksum")
            };
            let l4 = rfc_packet.len() - payload - 8;
            assert_eq!((found, rfc), (get16(&rfc_packet, l4 + 6), found));
            assert_eq!(expected, get16(&summed(17, length_bits), l4 + 6));
        }
    }
}

#[test]
fn a_capture_cut_inside_the_header_that_decides_says_nothing() {
    let said = |packet: &[u8], keep: usize| {
        let mut buffer = packet[..keep].to_vec();
        let ruling = Engine::new(0).receive(&mut buffer, packet.len(), None, Time(0), &mut ());
        ruling.ctinfo.map_err(|unseen| unseen.code())
    };
    let cut_short = Err("capture.cut_short");
    let keyless = gre(CLIENT, SERVER, &[0; 12]);
    assert_eq!((said(&keyless, 23), said(&keyless, 24)), (cut_short, NEW));
    let call = pptp(CLIENT, SERVER, 7);
    assert_eq!((said(&call, 27), said(&call, 28)), (cut_short, NEW));
    // A packet that never had more is whole.
    assert_eq!(said(&gre(CLIENT, SERVER, &[0x30, 1, 8]), 23), NEW);
    let datagram = udplite(CLIENT, 1, SERVER, 2, 0, b"text");
    assert_eq!((said(&datagram, 27), said(&datagram, 28)), (cut_short, NEW));
}

/// Protocols that answer for each other's duplicates: GRE and UDP-Lite merge, as UDP does (CLASH-02a).
#[test]
fn clash_02_two_first_packets_of_one_flow_merge() {
    use ctwhy_core::hook::{Egress, Hook, Verdict};
    use ctwhy_core::mirror::Departure;
    use ctwhy_core::packet::Packet;
    for bytes in [udplite(CLIENT, 1, SERVER, 2, 0, b"x"), pptp(CLIENT, SERVER, 7), gre(CLIENT, SERVER, &[0; 4])] {
        let mut engine = Engine::new(0);
        let arrived = [0, 1].map(|_| {
            let packet = Packet::parse(&bytes, bytes.len()).unwrap();
            engine.arrive(&packet, Hook::PreRouting, None, Time(0), &mut ()).unwrap()
        });
        for tracked in arrived {
            assert_eq!(tracked.ctinfo, CtInfo::New);
            let departure = Departure { hook: Hook::PreRouting, egress: Egress::Forwarded(None), learnt: None };
            let ruling = engine.depart(&mut bytes.clone(), tracked, &departure, Time(0), &mut ());
            assert_eq!((ruling.verdict, ruling.entry().is_some()), (Verdict::Accept, true));
        }
        assert_eq!(engine.conntrack.table.len(), 1);
    }
}
