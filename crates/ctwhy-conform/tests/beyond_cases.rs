//! What no case can show: packets that the box is made to send, and rules that come later.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use ctwhy_conform::compose::{Echo, Ip, echo, icmp, udp};
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{DropCause, Engine, Ruling, Verdict};
use ctwhy_core::nat::NatDrop;
use ctwhy_core::nat::rules::Ruleset;
use ctwhy_core::time::Time;

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
        engine.nat4 = before;
        let ip = Ip::new("192.0.2.1", "192.0.2.2");
        let packet = ip.packet(udp(&ip, 40_000, 53, b"question"));
        assert_eq!(receive(&mut engine, &packet).ctinfo, Ok(CtInfo::New));
        engine.nat4 = Some(Ruleset::default());
        let router = Ip::new("192.0.2.254", "192.0.2.1");
        let ruling = receive(&mut engine, &router.packet(icmp(&router, 5, 1, [192, 0, 2, 253], &packet)));
        assert_eq!((ruling.ctinfo, ruling.verdict), (Ok(CtInfo::RelatedReply), expected));
    }
}
