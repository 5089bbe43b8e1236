//! What holds for all inputs.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::checksum::{Sum, replaced};
use ctwhy_core::hook::Egress;
use ctwhy_core::mirror::KernelEntry;
use ctwhy_core::nat::range::Range;
use ctwhy_core::status::Status;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Addr, L3, Tuple};
use proptest::prelude::*;

/// Bytes that look enough like packets to get past the first checks.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let protocols = prop::sample::select(vec![1u8, 6, 17, 58, 50, 47, 132, 136, 0, 43, 44, 51, 59, 60]);
    let l4 = prop::collection::vec(any::<u8>(), 0..120);
    let addresses =
        prop::sample::select(vec![(CLIENT, SERVER), (SERVER, NAT), (ROUTER, NAT), (CLIENT6, SERVER6), (ROUTER6, NAT6)]);
    let formed = (addresses, protocols, any::<u8>(), l4)
        .prop_map(|((src, dst), protonum, ttl, l4)| packet(src, dst, protonum, ttl, &l4));
    let quoting = (any::<u8>(), any::<u8>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..60), any::<bool>())
        .prop_map(|(icmp_type, code, rest, tail, six)| {
            let (router, nat, server) = if six { (ROUTER6, NAT6, SERVER6) } else { (ROUTER, NAT, SERVER) };
            let mut quote = udp(nat, 40000, server, 53, b"q");
            let keep = quote.len().min(usize::from(icmp_type) / 2);
            quote.truncate(keep);
            quote.extend(tail);
            error(router, nat, icmp_type % 20, code, rest, &quote)
        });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), formed, quoting]
}

fn tuple() -> impl Strategy<Value = Tuple> {
    (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>(), any::<u16>(), any::<bool>(), any::<u8>()).prop_map(
        |(src, dst, src_u, dst_u, six, protonum)| Tuple {
            src: Addr(src),
            dst: Addr(dst),
            src_u,
            dst_u,
            l3num: if six { L3::V6 } else { L3::V4 },
            protonum,
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_make_the_engine_panic_and_tracing_changes_nothing(
        packets in prop::collection::vec((wire(), 0usize..400, any::<bool>()), 1..40)
    ) {
        let mut explaining = nat_box(|_| masquerade(Range::default()));
        let mut fast = explaining.clone();
        for (index, (bytes, missing, outside)) in packets.into_iter().enumerate() {
            let now = Time(0).plus_secs(index as u32 * 7);
            let wire_len = bytes.len() + missing.saturating_sub(200);
            let (mut one, mut other) = (bytes.clone(), bytes);
            let mut trace = ctwhy_core::trace::Trace::default();
            let interface = Some(u16::from(outside));
            let explained = explaining.receive(&mut one, wire_len, interface, now, &mut trace);
            let decided = fast.receive(&mut other, wire_len, interface, now, &mut ());
            prop_assert_eq!(format!("{explained:?}"), format!("{decided:?}"));
            prop_assert_eq!(one, other);
            prop_assert!(explained.ctinfo != Ok(ctwhy_core::direction::CtInfo::Invalid) || explained.reason.is_some());
            for step in &trace.steps {
                prop_assert!(!step.to_string().is_empty());
            }
        }
        prop_assert_eq!(explaining.conntrack.table.audit(), Ok(()));
    }

    #[test]
    fn inverting_twice_is_nothing(tuple in tuple()) {
        if let Some(inverted) = tuple.invert() {
            prop_assert_eq!(inverted.invert(), Some(tuple));
        }
    }

    #[test]
    fn an_adjusted_checksum_is_the_one_computed_anew(
        mut data in prop::collection::vec(any::<u8>(), 8..80), at in 0usize..3, new in any::<[u8; 2]>()
    ) {
        data[0] |= 1; // All-zero data has two right checksums.
        let before = Sum::default().bytes(&data).checksum();
        let old = [data[2 + 2 * at], data[3 + 2 * at]];
        data[2 + 2 * at..4 + 2 * at].copy_from_slice(&new);
        prop_assert_eq!(replaced(before, &old, &new), Sum::default().bytes(&data).checksum());
        prop_assert_eq!(Sum::default().bytes(&data).checksum(), internet_checksum(&data));
    }

    /// NAT out and in again restores every byte but TTL and IP header checksum.
    #[test]
    fn what_nat_does_to_a_packet_it_undoes_to_the_quote(
        port in 1u16.., payload in prop::collection::vec(any::<u8>(), 0..64), six in any::<bool>(),
        kept in any::<bool>(), kind in 0..5
    ) {
        let (client, nat, server, router, time_exceeded, request) = if six {
            (CLIENT6, NAT6, SERVER6, ROUTER6, 3, 128)
        } else {
            (CLIENT, NAT, SERVER, ROUTER, 11, 8)
        };
        let ports = (!kept).then_some((1024, 65535));
        let mut engine = nat_box(|_| masquerade(Range { ports, random: !kept, ..Range::default() }));
        let probe = match kind {
            0 => udp(client, port, server, 53, &payload),
            1 => tcp_syn(client, port, server, 80),
            2 => sctp(client, port, server, 9, 0, &[init(7)]),
            3 => udplite(client, port, server, 9, 0, &payload),
            _ => echo(client, server, request, port, 3),
        };
        let mut out = probe.clone();
        let ruling = engine.receive(&mut out, probe.len(), Some(0), Time(0), &mut ());
        prop_assert_eq!(ruling.egress, Egress::Forwarded(Some(1)));
        prop_assert!(checksums_are_right(&out));
        let mut back = error(router, nat, time_exceeded, 0, 0, &out);
        let len = back.len();
        let ruling = engine.receive(&mut back, len, Some(1), Time(0), &mut ());
        prop_assert_eq!(ruling.egress, Egress::Forwarded(Some(0)));
        prop_assert!(checksums_are_right(&back));
        let header = if six { 40 } else { 20 };
        let mut quote = back[header + 8..].to_vec();
        let mut expected = probe;
        for bytes in [&mut quote, &mut expected] {
            if six { bytes[7] = 0 } else { bytes[8] = 0; set16(bytes, 10, 0) }
        }
        prop_assert_eq!(quote, expected);
    }

    /// What a mirror does to its table leaves it in order as well, whatever the order.
    #[test]
    fn a_table_is_in_order_after_anything_done_to_it(
        steps in prop::collection::vec((0..7, 1u16..6, 0u16..4, 0u32..40), 1..60)
    ) {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        engine.conntrack.sysctls.acct = true;
        let mut now = Time(0);
        for (kind, port, other, wait) in steps {
            now = now.plus_secs(wait);
            let known = engine.conntrack.table.iter().map(|(_, entry)| entry).nth(usize::from(port));
            let (client, server) = if other % 2 == 0 { (CLIENT, SERVER) } else { (CLIENT6, SERVER6) };
            match (kind, known) {
                (0, _) => {
                    receive_at(&mut engine, &udp(client, port, server, 53, b"question"), now);
                }
                (1, _) => {
                    receive_at(&mut engine, &tcp_syn(client, port, server, 80), now);
                }
                (2, Some(mut entry)) => {
                    // The kernel has chosen another port.
                    entry.flow.tuples[1].dst_u = 1_024 + other;
                    entry.flow.status |= Status::SRC_NAT | Status::SRC_NAT_DONE;
                    engine.learn(&KernelEntry { flow: entry.flow, id: u32::from(port), timeout: wait }, now);
                }
                (3, Some(entry)) => {
                    let number = (other == 0).then_some(entry.id);
                    engine.forget(&entry.flow.tuples[0], entry.flow.zone, number, now);
                }
                (4, Some(entry)) => engine.mark(&entry.flow.tuples[0], entry.flow.zone, wait, now),
                (5, Some(entry)) => {
                    engine.restore(&entry, now);
                }
                _ => engine.conntrack.table.sweep(now, &mut ()),
            }
            prop_assert_eq!(engine.conntrack.table.audit(), Ok(()));
        }
    }
}
