//! What no case can show, because its packets come from outside: checksums at LOCAL_OUT.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use ctwhy_conform::compose::{Echo, Ip, echo, udp};
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::Engine;
use ctwhy_core::time::Time;

/// Catalogue B.2 step 2: a packet that the host makes is believed, the same packet from outside is not.
#[test]
fn the_checksum_of_an_own_packet_is_not_verified() {
    for ip in [Ip::new("192.0.2.1", "192.0.2.2"), Ip::new("2001:db8::1", "2001:db8::2")] {
        for body in [echo(&ip, Echo::Request, 7, 1), udp(&ip, 40_000, 53, b"question")] {
            let wrong = ip.packet(body.with(8, b'!'));
            let length = wrong.len();
            let mut engine = Engine::new(0);
            assert_eq!(engine.receive(&mut wrong.clone(), length, None, Time(0), &mut ()).ctinfo, Ok(CtInfo::Invalid));
            assert_eq!(engine.send(&mut wrong.clone(), None, Time(0), &mut ()).ctinfo, Ok(CtInfo::New));
        }
    }
}
