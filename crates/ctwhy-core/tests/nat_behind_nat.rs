//! A NAT behind a NAT: errors are translated by both, each with ports and ids of its own. Catalogue D.6.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{Egress, Engine, Verdict};
use ctwhy_core::nat::range::Range;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::Addr;

const LAN: Option<u16> = Some(0);
const WAN: Option<u16> = Some(1);
/// The inner box as the outer one knows it: a client like any other.
const MIDDLE: &str = "10.0.1.77";
const MIDDLE6: &str = "2001:db8:1::77";

/// The inner box: its outside address is in the network of the outer one's clients, its clients are elsewhere.
fn boxes(ports: [u16; 2]) -> [Engine; 2] {
    let ranges = ports.map(|port| Range { ports: Some((port, port)), ..Range::default() });
    let [mut inner, outer] = ranges.map(|range| nat_box(|_| masquerade(range)));
    for (index, addresses) in [["10.0.9.1", "2001:db8:9::1"], [MIDDLE, MIDDLE6]].into_iter().enumerate() {
        for (own, address) in inner.network.interfaces[index].addresses.iter_mut().zip(addresses) {
            own.network.address = Addr::from(ip(address));
        }
    }
    [inner, outer]
}

fn pass(engine: &mut Engine, packet: &[u8], interface: Option<u16>, expected: CtInfo) -> Vec<u8> {
    let mut buffer = packet.to_vec();
    let ruling = engine.receive(&mut buffer, packet.len(), interface, Time(0), &mut ());
    assert!(matches!((ruling.verdict, ruling.egress), (Verdict::Accept, Egress::Forwarded(_))), "{ruling:?}");
    assert_eq!(ruling.ctinfo, Ok(expected));
    assert!(checksums_are_right(&buffer));
    buffer
}

/// NAT-ICMP-01, NAT-ICMP-02, NAT-ICMP-07 twice over, for each protocol, with ports and ids that change at each box.
#[test]
fn errors_come_back_through_two_nats_about_what_was_sent() {
    for six in [false, true] {
        let [client, nat, server, router] =
            if six { ["2001:db8:9::2", NAT6, SERVER6, ROUTER6] } else { ["10.0.9.2", NAT, SERVER, ROUTER] };
        let (exceeded, unreachable) = if six { ((3, 0), (1, 4)) } else { ((11, 0), (3, 3)) };
        let (request, reply) = if six { (128, 129) } else { (8, 0) };
        let asks = |kind: usize, from: &str, number: u16| match kind {
            0 => udp(from, number, server, 33_434, b"probe"),
            1 => tcp_syn(from, number, server, 33_434),
            _ => echo(from, server, request, number, 1),
        };
        let answers = |kind: usize, to: &str, number: u16| match kind {
            0 => udp(server, 33_434, to, number, b"here"),
            _ => echo(server, to, reply, number, 1),
        };
        for kind in 0..3 {
            let [mut inner, mut outer] = boxes([5_000, 6_000]);
            let probe = asks(kind, client, 40_000);
            let between = pass(&mut inner, &probe, LAN, CtInfo::New);
            let left = pass(&mut outer, &between, LAN, CtInfo::New);
            assert_eq!(left, aged(aged(asks(kind, nat, 6_000))));
            for (icmp_type, code) in [exceeded, unreachable] {
                let error_to = |to: &str, quoted: &[u8]| error(router, to, icmp_type, code, 0, quoted);
                let back = pass(&mut outer, &error_to(nat, &left), WAN, CtInfo::RelatedReply);
                let back = pass(&mut inner, &back, WAN, CtInfo::RelatedReply);
                assert_eq!(back, aged(aged(error_to(client, &aged(aged(probe.clone()))))), "{kind}");
            }
            if kind == 1 {
                continue;
            }
            // And the other way: the client complains about the answer.
            let answer = answers(kind, nat, 6_000);
            let got = pass(&mut outer, &answer, WAN, CtInfo::EstablishedReply);
            let got = pass(&mut inner, &got, WAN, CtInfo::EstablishedReply);
            assert_eq!(got, aged(aged(answers(kind, client, 40_000))));
            let complaint = error(client, server, unreachable.0, unreachable.1, 0, &got);
            let complaint = pass(&mut inner, &complaint, LAN, CtInfo::Related);
            let complaint = pass(&mut outer, &complaint, LAN, CtInfo::Related);
            let as_sent = aged(aged(answer));
            assert_eq!(complaint, aged(aged(error(nat, server, unreachable.0, unreachable.1, 0, &as_sent))), "{kind}");
        }
    }
}
