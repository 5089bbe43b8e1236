//! What the engine alone costs, with the empty sink: `make bench`.
#![allow(missing_docs)] // What criterion's macros write has none.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::*;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ctwhy_core::hook::Engine;
use ctwhy_core::nat::range::Range;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;

/// Packets that are known ahead.
const BATCH: usize = 32;

/// UDP packets of `count` flows.
fn flows(count: u32) -> Vec<Vec<u8>> {
    let flow = |n: u32| {
        let client = format!("10.{}.{}.2", n >> 14 & 255, n >> 6 & 255);
        let mut bytes = udp(&client, 1024 + (n & 63) as u16, SERVER, 53, &[0; 32]);
        // Without checksums it is tracking that is measured.
        set16(&mut bytes, 26, 0);
        bytes
    };
    (0..count).map(flow).collect()
}

fn known_flows(c: &mut Criterion) {
    let mut group = c.benchmark_group("known flow");
    group.throughput(Throughput::Elements(1));
    for count in [1_000, 100_000, 1_000_000] {
        let mut packets = flows(count);
        let mut engine = Engine::new(0);
        let mut next = 0;
        group.bench_function(format!("{count} flows"), |b| {
            b.iter(|| {
                next = (next + 7919) % packets.len();
                let packet = &mut packets[next];
                let len = packet.len();
                black_box(engine.receive(packet, len, None, Time(0), &mut ()).ctinfo).is_ok()
            });
        });
    }
    let mut packets = flows(1_000_000);
    let mut engine = Engine::new(0);
    for packet in &mut packets {
        let len = packet.len();
        let _ = engine.receive(packet, len, None, Time(0), &mut ()).ctinfo;
    }
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut next = 0;
    group.bench_function("1000000 flows, 32 packets ahead", |b| {
        b.iter(|| {
            let mut batch = [0; BATCH];
            for place in &mut batch {
                next = (next + 7919) % packets.len();
                *place = next;
            }
            engine.prefetch(batch.iter().map(|place| packets[*place].as_slice()));
            for place in batch {
                let packet = &mut packets[place];
                let len = packet.len();
                let _ = black_box(engine.receive(packet, len, None, Time(0), &mut ()).ctinfo);
            }
        });
    });
    group.finish();
}

fn one_packet(c: &mut Criterion) {
    let mut group = c.benchmark_group("one packet");
    group.throughput(Throughput::Elements(1));
    let probe = udp(CLIENT, 40000, SERVER, 33434, &[0; 32]);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("new flow", |b| {
        let packets = flows(100_000);
        b.iter_batched(
            || (Engine::new(0), packets[..1000].to_vec()),
            |(mut engine, mut packets)| {
                for packet in &mut packets {
                    let len = packet.len();
                    let _ = black_box(engine.receive(packet, len, None, Time(0), &mut ()).ctinfo);
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

criterion_group!(benches, known_flows, one_packet);
criterion_main!(benches);
