//! What the engine alone costs, with the empty sink: `make bench`.
//!
//! Budgets, less what making the packet takes: a packet of a known flow 60 ns in a small table and, of 32 packets that are
//! known ahead, 150 ns in one of a million flows; a new flow 300 ns. On a core of an AMD EPYC in 2026 that had little else to
//! do it was 55, 108 and 154 ns. `valgrind --tool=callgrind` counts instructions, and unlike the clock it always says the
//! same.
#![allow(missing_docs)] // What criterion's macros write has none.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::*;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ctwhy_core::checksum::Sum;
use ctwhy_core::hook::Engine;
use ctwhy_core::nat::range::Range;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;

/// Packets that are known ahead.
const BATCH: usize = 32;

/// Makes `packet` that of flow `n`: UDP without a checksum, for it is tracking that is measured.
///
/// A device hands over packets that are in the cache, so these are made in place, not fetched from a million places.
fn of_flow(packet: &mut [u8], n: u32) {
    packet[13..15].copy_from_slice(&((n >> 6) as u16).to_be_bytes());
    set16(packet, 20, 1024 + (n & 63) as u16);
    set16(packet, 10, 0);
    let checksum = Sum::default().bytes(&packet[..20]).checksum();
    set16(packet, 10, checksum);
}

fn template() -> Vec<u8> {
    let mut packet = udp("10.0.0.2", 1024, SERVER, 53, &[0; 32]);
    set16(&mut packet, 26, 0);
    packet
}

fn track(engine: &mut Engine, packet: &mut [u8]) -> bool {
    let len = packet.len();
    black_box(engine.receive(packet, len, None, Time(0), &mut ()).ctinfo).is_ok()
}

fn engine_with(count: u32) -> Engine {
    let (mut engine, mut packet) = (Engine::new(0), template());
    for n in 0..count {
        of_flow(&mut packet, n);
        assert!(track(&mut engine, &mut packet));
    }
    engine
}

fn known_flows(c: &mut Criterion) {
    let mut group = c.benchmark_group("known flow");
    group.throughput(Throughput::Elements(1));
    let mut packet = template();
    group.bench_function("making the packet, in each of the others", |b| {
        let mut n = 0;
        b.iter(|| {
            n = (n + 7919) % 1000;
            of_flow(&mut packet, n);
            black_box(&packet).len()
        });
    });
    for count in [1_000, 100_000, 1_000_000] {
        let mut engine = engine_with(count);
        let mut n = 0;
        group.bench_function(format!("{count} flows"), |b| {
            b.iter(|| {
                n = (n + 7919) % count;
                of_flow(&mut packet, n);
                track(&mut engine, &mut packet)
            });
        });
    }
    let count = 1_000_000;
    let mut engine = engine_with(count);
    let mut n = 0;
    let mut batch = vec![packet; BATCH];
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("1000000 flows, 32 packets ahead", |b| {
        b.iter(|| {
            for packet in &mut batch {
                n = (n + 7919) % count;
                of_flow(packet, n);
            }
            engine.prefetch(batch.iter().map(Vec::as_slice));
            for packet in &mut batch {
                track(&mut engine, packet);
            }
        });
    });
    group.finish();
}

/// One flow, so what differs is what is done to its packet: checksum, tracker, translation. Each includes a copy of the
/// packet, because NAT writes into it.
fn kinds_of_flow(c: &mut Criterion) {
    let mut group = c.benchmark_group("known flow, of one");
    group.throughput(Throughput::Elements(1));
    let (client, server) = ((CLIENT, 40000), (SERVER, 80));
    let (syn, ack) = (0x02, 0x10);
    let connection = [
        tcp(client, server, (1, 0), syn, &[]),
        tcp(server, client, (1, 2), syn | ack, &[]),
        tcp(client, server, (2, 2), ack, &[0; 32]),
    ];
    let plain = udp(CLIENT, 40000, SERVER, 53, &[0; 32]);
    let mut unsummed = plain.clone();
    set16(&mut unsummed, 26, 0);
    let kinds: [(&str, Engine, &[Vec<u8>]); 5] = [
        ("UDP without a checksum", Engine::new(0), &[unsummed]),
        ("UDP", Engine::new(0), std::slice::from_ref(&plain)),
        ("UDP over IPv6", Engine::new(0), &[udp(CLIENT6, 40000, SERVER6, 53, &[0; 32])]),
        ("TCP", Engine::new(0), &connection),
        ("UDP, masqueraded", nat_box(|_| masquerade(Range::default())), std::slice::from_ref(&plain)),
    ];
    for (name, mut engine, packets) in kinds {
        for packet in packets {
            assert!(track(&mut engine, &mut packet.clone()), "{name}");
        }
        let known = packets.last().cloned().unwrap_or_default();
        let mut buffer = known.clone();
        group.bench_function(name, |b| {
            b.iter(|| {
                buffer.copy_from_slice(&known);
                track(&mut engine, &mut buffer)
            });
        });
    }
    group.finish();
}

fn one_packet(c: &mut Criterion) {
    let mut group = c.benchmark_group("one packet");
    group.throughput(Throughput::Elements(1));
    let probe = udp(CLIENT, 40000, SERVER, 33434, &[0; 32]);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("new flow", |b| {
        b.iter_batched(
            || (Engine::new(0), template()),
            |(mut engine, mut packet)| {
                for n in 0..1000 {
                    of_flow(&mut packet, n);
                    track(&mut engine, &mut packet);
                }
                engine
            },
            BatchSize::LargeInput,
        );
    });
    group.throughput(Throughput::Elements(1));
    for (name, explained) in [("time exceeded", false), ("time exceeded, explained", true)] {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        let mut out = probe.clone();
        let _ = engine.receive(&mut out, probe.len(), Some(0), Time(0), &mut ()).ctinfo;
        let about = error(ROUTER, NAT, 11, 0, 0, &out);
        let mut buffer = about.clone();
        group.bench_function(name, |b| {
            b.iter(|| {
                buffer.copy_from_slice(&about);
                let mut trace = Trace::default();
                let ruling = if explained {
                    engine.receive(&mut buffer, about.len(), Some(1), Time(0), &mut trace)
                } else {
                    engine.receive(&mut buffer, about.len(), Some(1), Time(0), &mut ())
                };
                (black_box(ruling.ctinfo).is_ok(), trace)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, known_flows, kinds_of_flow, one_packet);
criterion_main!(benches);
