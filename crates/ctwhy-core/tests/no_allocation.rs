//! A packet of a known flow costs no allocation, whatever becomes of it.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::*;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::nat::range::Range;
use ctwhy_core::time::Time;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(vec![1u8])), 1);
}

#[test]
fn packets_of_known_flows_allocate_nothing() {
    for (client, server, router, nat, time_exceeded, query) in
        [(CLIENT, SERVER, ROUTER, NAT, 11, 8), (CLIENT6, SERVER6, ROUTER6, NAT6, 3, 128)]
    {
        let mut engine = nat_box(|_| masquerade(Range::default()));
        let begins = [
            udp(client, 40000, server, 53, b"query"),
            tcp_syn(client, 40000, server, 80),
            echo(client, server, query, 7, 1),
            packet(client, server, 50, 64, b"esp"),
        ];
        for first in &begins {
            let mut buffer = first.clone();
            let ruling = engine.receive(&mut buffer, first.len(), Some(0), Time(0), &mut ());
            assert_eq!(ruling.ctinfo, Ok(CtInfo::New));
        }
        let about = |to: &str, quoted: Vec<u8>| error(router, to, time_exceeded, 0, 0, &quoted);
        let again = [
            (0, begins[0].clone(), CtInfo::New),
            (1, udp(server, 53, nat, 40000, b"answer"), CtInfo::EstablishedReply),
            (0, begins[0].clone(), CtInfo::Established),
            (0, begins[1].clone(), CtInfo::New),
            (1, echo(server, nat, if query == 8 { 0 } else { 129 }, 7, 1), CtInfo::EstablishedReply),
            (0, begins[3].clone(), CtInfo::New),
            (1, about(nat, udp(nat, 40000, server, 53, b"query")), CtInfo::RelatedReply),
            (1, about(nat, tcp_syn(nat, 40000, server, 80)), CtInfo::RelatedReply),
            (0, about(server, udp(server, 53, client, 40000, b"answer")), CtInfo::Related),
            (1, about(nat, udp(nat, 1, server, 2, b"unknown")), CtInfo::Invalid),
        ];
        for (interface, bytes, ctinfo) in again {
            let mut buffer = bytes.clone();
            let mut ruling = None;
            let count = allocations(|| {
                ruling = Some(engine.receive(&mut buffer, bytes.len(), Some(interface), Time(1), &mut ()));
            });
            assert_eq!(ruling.map(|r| r.ctinfo), Some(Ok(ctinfo)));
            assert_eq!(count, 0, "{ctinfo}");
        }
    }
}
