//! What a flow costs in memory: its entry, what is kept aside of it, and its places in the index, all included.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::*;
use ctwhy_core::hook::Engine;
use ctwhy_core::time::Time;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

struct Weighing;

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Weighing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.with(|held| held.set(held.get().wrapping_add(layout.size())));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get().wrapping_sub(layout.size())));
        // SAFETY: `at` came from `alloc` above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Weighing = Weighing;

/// Bytes a flow in a table of `count` of them.
fn bytes_a_flow(count: u32, begin: impl Fn(u32) -> Vec<u8>) -> f64 {
    let before = HELD.with(Cell::get);
    let mut engine = Engine::new(0);
    for number in 0..count {
        let mut packet = begin(number);
        let len = packet.len();
        assert!(engine.receive(&mut packet, len, None, Time(0), &mut ()).entry().is_some(), "flow {number}");
    }
    assert_eq!(engine.conntrack.table.len(), count as usize);
    HELD.with(Cell::get).wrapping_sub(before) as f64 / f64::from(count)
}

/// The index is fullest and emptiest on the two sides of the number of flows at which it grows.
const COUNTS: [u32; 2] = [57_344, 57_345];

fn port(number: u32) -> u16 {
    1024 + (number & 0x7fff) as u16
}

#[test]
fn an_ipv4_udp_flow_takes_128_bytes_at_most() {
    for count in COUNTS {
        let bytes = bytes_a_flow(count, |n| udp(&format!("10.0.{}.2", n >> 15), port(n), SERVER, 53, &[]));
        println!("UDP over IPv4, {count} flows: {bytes:.1} bytes a flow");
        assert!(bytes <= 128.0, "{bytes}");
    }
}

#[test]
fn an_ipv4_tcp_flow_takes_192_bytes_at_most() {
    for count in COUNTS {
        let bytes = bytes_a_flow(count, |n| tcp_syn(&format!("10.0.{}.2", n >> 15), port(n), SERVER, 80));
        println!("TCP over IPv4, {count} flows: {bytes:.1} bytes a flow");
        assert!(bytes <= 192.0, "{bytes}");
    }
}

#[test]
fn an_ipv6_udp_flow_takes_192_bytes_at_most() {
    for count in COUNTS {
        let bytes = bytes_a_flow(count, |n| udp(&format!("2001:db8::{:x}", 2 + (n >> 15)), port(n), SERVER6, 53, &[]));
        println!("UDP over IPv6, {count} flows: {bytes:.1} bytes a flow");
        assert!(bytes <= 192.0, "{bytes}");
    }
}
