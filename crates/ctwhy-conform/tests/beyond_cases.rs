//! What no case can show: packets that the box is made to send, rules and settings that come later, and chance.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use ctwhy_conform::compose::{Echo, Ip, echo, icmp, udp};
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{DropCause, Engine, Ruling, Verdict};
use ctwhy_core::nat::NatDrop;
use ctwhy_core::nat::rules::Ruleset;
use ctwhy_core::network::{InterfaceAddress, Route};
use ctwhy_core::rules::Network as Prefix;
use ctwhy_core::rules::iptables;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Addr, L3};

fn receive(engine: &mut Engine, packet: &[u8]) -> Ruling {
    engine.receive(&mut packet.to_vec(), packet.len(), None, Time(0), &mut ())
}

/// Catalogue B.2 step 2: a packet that the host makes is believed, the same packet from outside is not.
#[test]
fn the_checksum_of_an_own_packet_is_not_verified() {
    for ip in [Ip::new("192.0.2.1", "192.0.2.2"), Ip::new("2001:db8::1", "2001:db8::2")] {
        for body in [echo(&ip, Echo::Request, 7, 1), udp(&ip, 40_000, 53, b"question")] {
            let wrong = ip.packet(body.with(8, b'!'));
            let mut engine = Engine::new(0);
            assert_eq!(receive(&mut engine, &wrong).ctinfo, Ok(CtInfo::Invalid));
            assert_eq!(engine.send(&mut wrong.clone(), None, Time(0), &mut ()).ctinfo, Ok(CtInfo::New));
        }
    }
}

/// Catalogue D.6 step 3: a redirect about a flow that is older than the nat table, and so has no bindings at all, is
/// dropped, although one about a flow with empty bindings goes on.
#[test]
fn a_redirect_about_a_flow_without_bindings_is_dropped() {
    for (before, expected) in
        [(None, Verdict::Drop(DropCause::Nat(NatDrop::Redirect))), (Some(Ruleset::default()), Verdict::Accept)]
    {
        let mut engine = Engine::new(0);
        engine.rules4.nat = before;
        let ip = Ip::new("192.0.2.1", "192.0.2.2");
        let packet = ip.packet(udp(&ip, 40_000, 53, b"question"));
        assert_eq!(receive(&mut engine, &packet).ctinfo, Ok(CtInfo::New));
        engine.rules4.nat = Some(Ruleset::default());
        let router = Ip::new("192.0.2.254", "192.0.2.1");
        let ruling = receive(&mut engine, &router.packet(icmp(&router, 5, 1, [192, 0, 2, 253], &packet)));
        assert_eq!((ruling.ctinfo, ruling.verdict), (Ok(CtInfo::RelatedReply), expected));
    }
}

/// A box that masquerades with these options what leaves by `wan`, which everything does.
fn masquerading(options: &str) -> Engine {
    let mut engine = Engine::new(0);
    let address = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap());
    let wan = engine.network.interface_named("wan");
    let network = Prefix { address: address("203.0.113.2"), prefix: 24 };
    engine.network.interfaces[usize::from(wan)].addresses.push(InterfaceAddress { l3num: L3::V4, network });
    let everywhere = Prefix { address: address("0.0.0.0"), prefix: 0 };
    engine.network.routes.push(Route { l3num: L3::V4, to: everywhere, interface: wan, via: None });
    let rules = format!("*nat\n-A POSTROUTING -o wan -j MASQUERADE {options}\nCOMMIT\n");
    engine.rules4 = iptables::parse(&rules, L3::V4).unwrap().rules;
    engine
}

/// The packet as it left.
fn forwarded(engine: &mut Engine, packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let ruling = engine.receive(&mut bytes, packet.len(), None, Time(0), &mut ());
    assert_eq!((ruling.ctinfo, ruling.verdict), (Ok(CtInfo::New), Verdict::Accept));
    bytes
}

/// NAT-PORT-07: in the class of the old port (NAT-PORT-02).
#[test]
fn a_random_port_is_drawn_though_the_old_one_is_free() {
    for (old, class) in [(40_000_u16, 1_024..=65_535_u16), (700, 600..=1_023), (80, 1..=511)] {
        let mut engine = masquerading("--random");
        let mut ports = Vec::new();
        for host in 1..=16 {
            let ip = Ip::new("192.168.1.2", &format!("192.0.2.{host}"));
            let left = forwarded(&mut engine, &ip.packet(udp(&ip, old, 53, b"question")));
            ports.push(u16::from_be_bytes([left[20], left[21]]));
        }
        assert!(ports.iter().all(|port| class.contains(port)), "{ports:?}");
        assert!(ports.iter().any(|port| *port != old), "{ports:?}");
    }
}

/// NAT-PORT-08: of two clients that ask one server for an echo with one identifier the second gets another one. A
/// timestamp request is no echo and keeps its own.
#[test]
fn an_identifier_that_is_taken_is_replaced() {
    let mut engine = masquerading("");
    let mut id = |client: &str, request: fn(&Ip) -> ctwhy_conform::compose::Body| {
        let ip = Ip::new(client, "192.0.2.80");
        let left = forwarded(&mut engine, &ip.packet(request(&ip)));
        u16::from_be_bytes([left[24], left[25]])
    };
    assert_eq!(id("192.168.1.2", |ip| echo(ip, Echo::Request, 7, 1)), 7);
    assert_ne!(id("192.168.1.3", |ip| echo(ip, Echo::Request, 7, 1)), 7);
    assert_eq!(id("192.168.1.4", |ip| icmp(ip, 13, 0, [0, 7, 0, 1], &[0; 12])), 7);
}

/// NAT-SET-09: the entry is deleted and the packet dropped; the next one begins a new flow.
#[test]
fn a_masqueraded_flow_that_leaves_elsewhere_ends() {
    let mut engine = masquerading("");
    let ip = Ip::new("192.168.1.2", "192.0.2.80");
    let packet = ip.packet(udp(&ip, 40_000, 53, b"question"));
    assert_ne!(forwarded(&mut engine, &packet), packet);
    let other = engine.network.interface_named("other");
    engine.network.routes[0].interface = other;
    let ruling = receive(&mut engine, &packet);
    assert_eq!(ruling.verdict, Verdict::Drop(DropCause::Nat(NatDrop::InterfaceChanged)));
    assert!(engine.conntrack.table.is_empty());
    let left = forwarded(&mut engine, &packet);
    assert_eq!(left[12..16], [192, 168, 1, 2], "there is no rule for the other interface");
}

/// TIMEOUT-01: an entry keeps its time until it is refreshed. ACCT-01: one that was not counted never is.
#[test]
fn settings_are_for_what_comes_later() {
    let mut engine = Engine::new(0);
    let ip = Ip::new("192.0.2.1", "192.0.2.2");
    let flow = |engine: &mut Engine, port| {
        receive(engine, &ip.packet(udp(&ip, port, 53, b"question")));
    };
    let known = |engine: &Engine| {
        let entries = engine.conntrack.table.iter();
        entries.map(|(_, e)| (e.remaining_secs(Time(0)), e.flow.counters.is_some())).collect::<Vec<_>>()
    };
    flow(&mut engine, 1);
    engine.conntrack.sysctls.set("nf_conntrack_udp_timeout", "77").unwrap();
    engine.conntrack.sysctls.set("nf_conntrack_acct", "1").unwrap();
    flow(&mut engine, 2);
    assert_eq!(known(&engine), [(30, false), (77, true)]);
    flow(&mut engine, 1);
    assert_eq!(known(&engine), [(77, false), (77, true)]);
}
