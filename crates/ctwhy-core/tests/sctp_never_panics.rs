//! No bytes and no sequence of packets make the SCTP tracker or its words panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod common;

use common::*;
use ctwhy_core::checksum::sctp_crc;
use ctwhy_core::conn::Protocol;
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::hook::Engine;
use ctwhy_core::reason::Reason;
use ctwhy_core::status::Status;
use ctwhy_core::sysctl::Sysctls;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;
use ctwhy_core::track::sctp::{Sctp, SctpState, check};
use ctwhy_core::track::{Context, L4, Outcome};
use ctwhy_core::tuple::L3;
use proptest::prelude::*;

fn tag() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0u32), 4 => 1u32..4, 1 => any::<u32>()]
}

/// A chunk that mostly is one, with a length that mostly is right.
fn any_chunk() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![0u8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14]);
    let kind = prop_oneof![9 => known, 1 => any::<u8>()];
    let flags = prop_oneof![3 => Just(0u8), 2 => Just(1u8), 1 => any::<u8>()];
    let wrong = prop_oneof![9 => Just(None), 1 => any::<u16>().prop_map(Some)];
    (kind, flags, tag(), prop::collection::vec(any::<u8>(), 0..24), wrong).prop_map(
        |(kind, flags, tag, tail, wrong)| {
            let body = if matches!(kind, 1 | 2) && tail.len() > 2 { init_body(tag) } else { tail };
            let mut bytes = chunk(kind, flags, &body);
            if let Some(length) = wrong {
                set16(&mut bytes, 2, length);
            }
            bytes
        },
    )
}

fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop_oneof![3 => prop::collection::vec(any_chunk(), 1..2), 1 => prop::collection::vec(any_chunk(), 0..5)]
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..90), longer in 0usize..70_000, verify_checksum: bool
    ) {
        let sysctls = Sysctls::default();
        let (src, dst) = (ip(CLIENT).into(), ip(SERVER).into());
        let l4 = L4 { bytes: &bytes, len: bytes.len() + longer, l3num: L3::V4, src, dst };
        match check(&l4, &Context { sysctls: &sysctls, kernel: ctwhy_core::profile::DEFAULT, verify_checksum }, &mut ()) {
            Ok(packet) => prop_assert!(packet.count > 0 && packet.count as usize <= bytes.len() / 4),
            Err(reason) => prop_assert!(reason.code().starts_with("sctp.")),
        }
        let mut zeroed = bytes.clone();
        if let Some(field) = zeroed.get_mut(8..12) {
            field.fill(0);
            prop_assert_eq!(sctp_crc(&bytes).to_be_bytes(), crc32c(&zeroed));
        }
    }

    /// Both runs of the engine decide alike, every step and refusal has words, and an entry that was ESTABLISHED is and
    /// stays ASSURED. (One that is ASSURED may have been ESTABLISHED between two chunks of one packet only.)
    #[test]
    fn any_conversation_is_tracked(packets in prop::collection::vec((any::<bool>(), tag(), chunks()), 1..40)) {
        let mut engine = Engine::new(0);
        let mut was_established = false;
        for (client, vtag, chunks) in packets {
            let (from, to) = if client { ((CLIENT, 1), (SERVER, 2)) } else { ((SERVER, 2), (CLIENT, 1)) };
            let (ruling, _) = receive_at(&mut engine, &sctp(from.0, from.1, to.0, to.1, vtag, &chunks), Time(0));
            if let Some(reason) = ruling.reason {
                prop_assert!(!reason.to_string().is_empty());
            }
            prop_assert_eq!(ruling.ctinfo == Ok(CtInfo::Invalid), ruling.reason.is_some());
            if let Some((_, entry)) = engine.conntrack.table.iter().next() {
                let Protocol::Sctp(state) = entry.flow.protocol else { panic!("{:?}", entry.flow) };
                prop_assert!(state.state() != SctpState::None);
                was_established |= state.state() == SctpState::Established;
                prop_assert!(entry.flow.status.contains(Status::ASSURED) || !was_established);
                was_established |= entry.flow.status.contains(Status::ASSURED);
            }
        }
        prop_assert!(engine.conntrack.table.len() <= 1);
    }

    /// An entry that the kernel made is tracked, whatever is said of it; the run without a trace decides as the one
    /// with it.
    #[test]
    fn any_adopted_entry_is_tracked(
        state in 0u8..9, vtag in [tag(), tag()], status: u32,
        packets in prop::collection::vec((any::<bool>(), tag(), chunks()), 1..20),
    ) {
        let mut told = Sctp::from_ctnetlink(SctpState::from_number(state).unwrap(), vtag);
        let mut silent = told;
        let sysctls = Sysctls::default();
        let cx = Context { sysctls: &sysctls, kernel: ctwhy_core::profile::DEFAULT, verify_checksum: true };
        let (mut one, mut other) = (Status(status), Status(status));
        for (original, vtag, chunks) in packets {
            let bytes = sctp(CLIENT, 1, SERVER, 2, vtag, &chunks);
            let l4 = L4 {
                bytes: &bytes[20..], len: bytes.len() - 20, l3num: L3::V4, src: ip(CLIENT).into(), dst: ip(SERVER).into(),
            };
            let Ok(packet) = check(&l4, &cx, &mut ()) else { continue };
            let direction = if original { Direction::Original } else { Direction::Reply };
            let mut trace = Trace::default();
            let outcome = told.packet(&packet, direction, &mut one, &cx, &mut trace);
            prop_assert_eq!(silent.packet(&packet, direction, &mut other, &cx, &mut ()), outcome);
            prop_assert_eq!((told, one), (silent, other));
            for step in &trace.steps {
                prop_assert!(!step.to_string().contains('\n'));
            }
            if let Outcome::Invalid { reason, lower_timeout } = outcome {
                prop_assert!(matches!(reason, Reason::Sctp(_)) && lower_timeout.is_none());
            }
        }
    }
}
