//! No bytes and no sequence of packets make the tracker or its words panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod tcp_support;

use ctwhy_core::direction::Direction;
use ctwhy_core::status::Status;
use ctwhy_core::sysctl::Sysctls;
use ctwhy_core::trace::{Step, Trace};
use ctwhy_core::track::tcp::{Tcp, TcpState, check};
use ctwhy_core::track::{Context, L4, Outcome};
use proptest::prelude::*;
use tcp_support::*;

/// Numbers that lie close together, so that windows are met, and some that do not.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => (0u32..3000).prop_map(|n| n.wrapping_sub(1500)),
        1 => (0u32..3000).prop_map(|n| n.wrapping_add(0x7fff_fa00)),
        1 => any::<u32>(),
    ]
}

fn segment() -> impl Strategy<Value = Seg> {
    let valid = prop::sample::select(vec![0x02u8, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x31, 0x22]);
    let flags = prop_oneof![9 => valid, 1 => any::<u8>()];
    let window = prop_oneof![Just(0u16), 1u16..2000, any::<u16>()];
    let option = prop_oneof![
        Just(vec![4u8, 2]),
        any::<u8>().prop_map(|shift| vec![3, 3, shift]),
        (number(), number()).prop_map(|(l, r)| [&[5, 10][..], &l.to_be_bytes(), &r.to_be_bytes()].concat()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    let options = prop::collection::vec(option, 0..3).prop_map(|options| {
        let mut bytes = options.concat();
        bytes.truncate(40);
        bytes
    });
    (flags, number(), number(), window, 0usize..1500, options).prop_map(|(flags, seq, ack, window, len, options)| Seg {
        seq,
        ack,
        flags,
        window,
        len,
        options,
    })
}

fn sysctls() -> impl Strategy<Value = Sysctls> {
    (any::<[bool; 3]>(), any::<u8>(), any::<[u32; 3]>()).prop_map(|(switches, retrans, seconds)| {
        let [tcp_loose, tcp_be_liberal, tcp_ignore_invalid_rst] = switches;
        let [tcp_timeout_unacknowledged, tcp_timeout_max_retrans, tcp_timeout_established] = seconds;
        Sysctls {
            tcp_loose,
            tcp_be_liberal,
            tcp_ignore_invalid_rst,
            tcp_max_retrans: retrans,
            tcp_timeout_unacknowledged,
            tcp_timeout_max_retrans,
            tcp_timeout_established,
            ..Sysctls::default()
        }
    })
}

fn say_everything(flow: &Flow) {
    for step in &flow.steps {
        let words = step_words(step);
        assert!(!words.is_empty() && !words.contains('\n'), "{step:?}: {words}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..90),
        longer in 0usize..70_000,
        verify_checksum: bool,
    ) {
        let sysctls = Sysctls::default();
        let whole = L4 { len: bytes.len() + longer, ..l4(&bytes, true) };
        for l4 in [l4(&bytes, true), whole, L4 { len: 0, ..whole }] {
            match check(&l4, &Context { sysctls: &sysctls, kernel: ctwhy_core::profile::DEFAULT, verify_checksum }) {
                Ok(seg) => prop_assert!(seg.payload as usize + seg.header_len as usize == l4.len),
                Err(reason) => prop_assert!(reason.code().starts_with("tcp.")),
            }
        }
    }

    #[test]
    fn any_conversation_is_tracked(
        sysctls in sysctls(),
        packets in prop::collection::vec((any::<bool>(), segment(), 1usize..4), 1..40),
    ) {
        let mut flow = Flow { sysctls, ..Flow::default() };
        for (client, seg, times) in packets {
            for _ in 0..times {
                let said = if client { flow.client(seg.clone()) } else { flow.server(seg.clone()) };
                say_everything(&flow);
                prop_assert_eq!(flow.ctinfo.is_none(), matches!(said, Said::Invalid(_)));
                prop_assert!(flow.entry.is_none_or(|entry| entry.tcp.state() != TcpState::None));
            }
        }
    }

    /// The run without a trace decides as the run with one.
    #[test]
    fn any_adopted_entry_is_tracked(
        sysctls in sysctls(),
        state in 0u8..10,
        flags: [u8; 2],
        scale: [u8; 2],
        status: u32,
        remaining: u32,
        packets in prop::collection::vec((any::<bool>(), segment()), 1..20),
    ) {
        let mut tcp = Tcp::from_ctnetlink(TcpState::from_number(state).unwrap(), flags, scale);
        let mut silent = tcp;
        let cx = Context { sysctls: &sysctls, kernel: ctwhy_core::profile::DEFAULT, verify_checksum: true };
        for (client, seg) in packets {
            let bytes = seg.bytes(client);
            let l4 = l4(&bytes, client);
            let Ok(seg) = check(&l4, &cx) else { continue };
            let direction = if client { Direction::Original } else { Direction::Reply };
            let mut trace = Trace::default();
            let outcome = tcp.packet(&seg, direction, Status(status), remaining, &cx, &mut trace);
            prop_assert_eq!(silent.packet(&seg, direction, Status(status), remaining, &cx, &mut ()), outcome);
            prop_assert_eq!(tcp, silent);
            for step in &trace.steps {
                if let Step::Tcp(step) = step {
                    prop_assert!(!step_words(step).is_empty());
                }
            }
            if let Outcome::Invalid { reason: ctwhy_core::reason::Reason::Tcp(reason), .. } = outcome {
                prop_assert!(!reason_words(&reason).is_empty());
            }
            prop_assert!(Direction::BOTH.into_iter().all(|d| tcp.scale(d) <= 14));
        }
    }
}
