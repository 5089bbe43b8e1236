//! NAT: bindings, rewriting, and errors that are translated outside and inside. Catalogue D.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{Egress, Engine, Verdict};
use ctwhy_core::nat::range::Range;
use ctwhy_core::nat::rules::{Ruleset, Target};
use ctwhy_core::status::Status;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Addr, L3};

const LAN: Option<u16> = Some(0);
const WAN: Option<u16> = Some(1);

/// Sends a packet through the box and returns how it left, if it did.
fn pass(engine: &mut Engine, packet: &[u8], interface: Option<u16>) -> (Result<CtInfo, String>, Option<Vec<u8>>) {
    let mut buffer = packet.to_vec();
    let ruling = engine.receive(&mut buffer, packet.len(), interface, Time(0), &mut ());
    let left = matches!((ruling.verdict, ruling.egress), (Verdict::Accept, Egress::Forwarded(_)));
    if left && ruling.ctinfo != Ok(CtInfo::Invalid) {
        assert!(checksums_are_right(&buffer), "{buffer:02x?}");
    }
    let ctinfo = ruling.ctinfo.map_err(|unseen| unseen.code().to_string());
    (ctinfo, left.then_some(buffer))
}

struct Family {
    client: &'static str,
    nat: &'static str,
    server: &'static str,
    router: &'static str,
    time_exceeded: u8,
    too_big: (u8, u8),
    header: usize,
    echo: u8,
}

const FAMILIES: [Family; 2] = [
    Family {
        client: CLIENT,
        nat: NAT,
        server: SERVER,
        router: ROUTER,
        time_exceeded: 11,
        too_big: (3, 4),
        header: 20,
        echo: 8,
    },
    Family {
        client: CLIENT6,
        nat: NAT6,
        server: SERVER6,
        router: ROUTER6,
        time_exceeded: 3,
        too_big: (2, 0),
        header: 40,
        echo: 128,
    },
];

#[test]
fn a_masqueraded_flow_keeps_its_port_and_its_answers_come_back() {
    for family in FAMILIES {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        let (ctinfo, out) = pass(&mut engine, &udp(family.client, 40000, family.server, 53, b"query"), LAN);
        assert_eq!(ctinfo, Ok(CtInfo::New));
        assert_eq!(out.unwrap(), aged(udp(family.nat, 40000, family.server, 53, b"query")));
        let (ctinfo, back) = pass(&mut engine, &udp(family.server, 53, family.nat, 40000, b"answer"), WAN);
        assert_eq!(ctinfo, Ok(CtInfo::EstablishedReply));
        assert_eq!(back.unwrap(), aged(udp(family.server, 53, family.client, 40000, b"answer")));
        let (_, entry) = engine.conntrack.table.iter().next().unwrap();
        let bits = Status::SRC_NAT | Status::NAT_DONE_MASK | Status::CONFIRMED | Status::SEEN_REPLY;
        assert_eq!(entry.flow.status, bits);
    }
}

/// What this program exists for: for every probe, an error from a router in the middle comes back to the
/// client as if it had been about the client's own packet, byte for byte.
#[test]
fn nat_icmp_01_07_an_error_comes_back_about_the_packet_as_the_client_sent_it() {
    for family in FAMILIES {
        let probes = |from: &str| {
            [
                udp(from, 40000, family.server, 33434, b"probe"),
                tcp_syn(from, 40000, family.server, 80),
                echo(from, family.server, family.echo, 40000, 1),
            ]
        };
        for changed in [false, true] {
            // With a port that is taken already, ports and ids must change, and change back.
            let ports = changed.then_some((50000, 50000));
            for (index, probe) in probes(family.client).into_iter().enumerate() {
                let mut engine = nat_box(|_| masquerade(Range { ports, ..Range::default() }));
                let (_, out) = pass(&mut engine, &probe, LAN);
                let out = out.unwrap();
                if !changed {
                    assert_eq!(out, aged(probes(family.nat)[index].clone()));
                } else {
                    assert_ne!(out[family.header..], probe[family.header..]);
                }
                for (icmp_type, code) in [(family.time_exceeded, 0), family.too_big] {
                    let error_to = |to: &str, quoted: &[u8]| error(family.router, to, icmp_type, code, 1200, quoted);
                    let (ctinfo, back) = pass(&mut engine, &error_to(family.nat, &out), WAN);
                    assert_eq!(ctinfo, Ok(CtInfo::RelatedReply));
                    let expected = aged(error_to(family.client, &aged(probe.clone())));
                    assert_eq!(back.unwrap(), expected, "probe {index}, port changed: {changed}");
                }
            }
        }
    }
}

#[test]
fn nat_icmp_02_an_error_of_the_client_leaves_with_the_address_of_the_nat() {
    for family in FAMILIES {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        pass(&mut engine, &udp(family.client, 40000, family.server, 53, b""), LAN).1.unwrap();
        let answer = aged(udp(family.server, 53, family.client, 40000, b"late"));
        let unreachable = error(family.client, family.server, family.time_exceeded, 1, 0, &answer);
        let (ctinfo, out) = pass(&mut engine, &unreachable, LAN);
        assert_eq!(ctinfo, Ok(CtInfo::Related));
        let quoted = aged(udp(family.server, 53, family.nat, 40000, b"late"));
        assert_eq!(out.unwrap(), aged(error(family.nat, family.server, family.time_exceeded, 1, 0, &quoted)));
    }
}

#[test]
fn nat_icmp_03_04_errors_about_a_port_forwarding_name_the_virtual_address() {
    for family in FAMILIES {
        // From outside to the NAT's address, forwarded to the client's port 8080.
        let inside: Addr = ip(family.client).into();
        let dnat =
            Target::Dnat(Range { addresses: Some((inside, inside)), ports: Some((8080, 8080)), ..Range::default() });
        let mut engine = nat_box(|l3num| match (l3num, family.header) {
            (L3::V4, 20) | (L3::V6, 40) => Ruleset { prerouting: rule(dnat), ..Ruleset::default() },
            _ => Ruleset::default(),
        });
        let (_, forwarded) = pass(&mut engine, &udp(family.server, 5000, family.nat, 80, b"request"), WAN);
        let forwarded = forwarded.unwrap();
        assert_eq!(forwarded, aged(udp(family.server, 5000, family.client, 8080, b"request")));
        // The inside answers with an error: outside it must come from the NAT's address.
        let refused = error(family.client, family.server, family.time_exceeded, 0, 0, &forwarded);
        let (ctinfo, out) = pass(&mut engine, &refused, LAN);
        assert_eq!(ctinfo, Ok(CtInfo::RelatedReply));
        let as_sent = aged(udp(family.server, 5000, family.nat, 80, b"request"));
        assert_eq!(out.unwrap(), aged(error(family.nat, family.server, family.time_exceeded, 0, 0, &as_sent)));
        // A router outside complains about the answer.
        let answer = udp(family.client, 8080, family.server, 5000, b"answer");
        let left = pass(&mut engine, &answer, LAN).1.unwrap();
        let complaint = error(family.router, family.nat, family.time_exceeded, 0, 0, &left);
        let (ctinfo, back) = pass(&mut engine, &complaint, WAN);
        assert_eq!(ctinfo, Ok(CtInfo::Related));
        let expected = aged(error(family.router, family.client, family.time_exceeded, 0, 0, &aged(answer)));
        assert_eq!(back.unwrap(), expected);
    }
}

#[test]
fn d6_2_nat_drops_an_error_with_a_bad_checksum_even_where_conntrack_does_not_look() {
    for family in FAMILIES {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        engine.conntrack.sysctls.checksum = false;
        let out = pass(&mut engine, &udp(family.client, 40000, family.server, 53, b"query"), LAN).1.unwrap();
        let mut corrupt = error(family.router, family.nat, family.time_exceeded, 0, 0, &out);
        *corrupt.last_mut().unwrap() ^= 1;
        assert_eq!(pass(&mut engine, &corrupt, WAN), (Ok(CtInfo::RelatedReply), None));
    }
}

#[test]
fn d6_3_a_redirect_about_a_translated_flow_is_dropped_and_about_another_is_not() {
    for (rules, passes) in [(masquerade(Range::default()), false), (Ruleset::default(), true)] {
        let mut engine = nat_box(|_| rules.clone());
        let source = if passes { CLIENT } else { NAT };
        let out = pass(&mut engine, &udp(CLIENT, 40000, SERVER, 53, b"query"), LAN).1.unwrap();
        let (ctinfo, left) = pass(&mut engine, &error(ROUTER, source, 5, 1, 0xc633_6401, &out), WAN);
        assert_eq!((ctinfo, left.is_some()), (Ok(CtInfo::RelatedReply), passes));
    }
}

#[test]
fn d6_5_a_quote_of_four_bytes_is_related_but_cannot_be_translated() {
    for family in FAMILIES {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        let out = pass(&mut engine, &udp(family.client, 40000, family.server, 53, b"query"), LAN).1.unwrap();
        for (bytes, passes) in [(4, false), (7, false), (8, true)] {
            let quote = &out[..family.header + bytes];
            let (ctinfo, left) =
                pass(&mut engine, &error(family.router, family.nat, family.time_exceeded, 0, 0, quote), WAN);
            assert_eq!((ctinfo, left.is_some()), (Ok(CtInfo::RelatedReply), passes), "{bytes} bytes");
        }
    }
}

#[test]
fn nat_man_02_a_quoted_tcp_header_of_less_than_twenty_bytes_keeps_what_would_be_its_checksum() {
    for family in FAMILIES {
        for (bytes, updated) in [(8, false), (19, false), (20, true)] {
            let mut engine = nat_box(|_| masquerade(Range { ports: Some((50000, 50000)), ..Range::default() }));
            let syn = tcp_syn(family.client, 40000, family.server, 80);
            let out = pass(&mut engine, &syn, LAN).1.unwrap();
            let quote = &out[..family.header + bytes];
            let back =
                pass(&mut engine, &error(family.router, family.nat, family.time_exceeded, 0, 0, quote), WAN).1.unwrap();
            let inner = &back[family.header + 8 + family.header..];
            assert_eq!(get16(inner, 0), 40000);
            if bytes > 17 {
                assert_eq!(get16(inner, 16) == get16(&syn, family.header + 16), updated);
            }
        }
    }
}

#[test]
fn nat_man_03_a_udp_checksum_of_zero_stays_zero() {
    for family in FAMILIES {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        let mut query = udp(family.client, 40000, family.server, 53, b"query");
        set16(&mut query, family.header + 6, 0);
        let out = pass(&mut engine, &query, LAN).1.unwrap();
        assert_eq!(get16(&out, family.header + 6), 0);
        let back =
            pass(&mut engine, &error(family.router, family.nat, family.time_exceeded, 0, 0, &out), WAN).1.unwrap();
        assert_eq!(get16(&back, 2 * family.header + 8 + 6), 0);
    }
}

#[test]
fn nat_set_06_invalid_packets_are_not_translated() {
    let mut engine = nat_box(|_| masquerade(Range::default()));
    let stray = error(CLIENT, SERVER, 3, 3, 0, &udp(SERVER, 1, CLIENT, 2, b""));
    let (ctinfo, out) = pass(&mut engine, &stray, LAN);
    assert_eq!(ctinfo, Ok(CtInfo::Invalid));
    assert_eq!(out.unwrap(), aged(stray), "the private address leaks, as it does from the kernel");
}

#[test]
fn nat_set_12_a_null_binding_sets_only_the_done_bits() {
    let mut engine = nat_box(|_| Ruleset::default());
    pass(&mut engine, &udp(CLIENT, 40000, SERVER, 53, b""), LAN).1.unwrap();
    assert_eq!(engine.conntrack.table.iter().next().unwrap().1.flow.status.0, 0x188);
}

#[test]
fn nat_port_a_taken_port_moves_within_its_class() {
    for (port, class) in [(40000, 1024..=65535), (700, 600..=1023), (53, 1..=511)] {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        pass(&mut engine, &udp("10.0.1.2", port, SERVER, 53, b""), LAN).1.unwrap();
        let second = pass(&mut engine, &udp("10.0.1.3", port, SERVER, 53, b""), LAN).1.unwrap();
        let moved = get16(&second, 20);
        assert_ne!(moved, port);
        assert!(class.contains(&moved), "{port} -> {moved}");
        // The client keeps that port towards another destination, where its own would be free.
        let third = pass(&mut engine, &udp("10.0.1.3", port, ROUTER, 53, b""), LAN).1.unwrap();
        assert_eq!(get16(&third, 20), moved);
        let other = pass(&mut engine, &udp("10.0.1.4", port, ROUTER, 53, b""), LAN).1.unwrap();
        assert_eq!(get16(&other, 20), port);
    }
}

#[test]
fn ttl_1_ends_at_the_box_and_leaves_no_entry() {
    for family in FAMILIES {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        let mut probe = udp(family.client, 40000, family.server, 53, b"");
        for _ in 0..56 {
            probe = aged(probe);
        }
        assert_eq!(pass(&mut engine, &probe, LAN), (Ok(CtInfo::New), None));
        assert!(engine.conntrack.table.is_empty());
    }
}

#[test]
fn the_box_itself_answers_and_its_error_carries_the_entry_of_the_packet() {
    // ICMP-LOC-01, NAT-ICMP-06: a forwarded port, TTL 1; the error must name the virtual address.
    let inside: Addr = ip(CLIENT).into();
    let dnat = Target::Dnat(Range { addresses: Some((inside, inside)), ports: Some((8080, 8080)), ..Range::default() });
    let mut engine = nat_box(|l3num| match l3num {
        L3::V4 => Ruleset { prerouting: rule(dnat), ..Ruleset::default() },
        L3::V6 => Ruleset::default(),
    });
    let mut probe = udp(SERVER, 5000, NAT, 80, b"request");
    for _ in 0..56 {
        probe = aged(probe);
    }
    let mut buffer = probe.clone();
    let ruling = engine.receive(&mut buffer, probe.len(), WAN, Time(0), &mut ());
    let trigger = ctwhy_core::conntrack::Tracked {
        ctinfo: ruling.ctinfo.unwrap(),
        reason: ruling.reason,
        attached: ruling.attached,
    };
    assert_eq!(get16(&buffer, 22), 8080, "translated before it was found out that its TTL is used up");
    let mut own = error(NAT, SERVER, 11, 0, 0, &buffer);
    let ruling = engine.send(&mut own, Some(&trigger), Time(0), &mut ());
    assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply));
    assert!(engine.conntrack.table.is_empty());
    assert_eq!(own, error(NAT, SERVER, 11, 0, 0, &probe));
}

#[test]
fn redirect_goes_to_the_address_of_the_interface_it_came_in_by() {
    for family in FAMILIES {
        let redirect = Target::Redirect(Range { ports: Some((3128, 3128)), ..Range::default() });
        let mut engine = nat_box(|_| Ruleset { prerouting: rule(redirect), ..Ruleset::default() });
        let mut buffer = udp(family.client, 40000, family.server, 80, b"");
        let len = buffer.len();
        let ruling = engine.receive(&mut buffer, len, LAN, Time(0), &mut ());
        assert_eq!(ruling.egress, Egress::Local);
        assert_eq!(get16(&buffer, family.header + 2), 3128);
        assert!(checksums_are_right(&buffer));
    }
}
