//! What reading costs: nothing per packet, and memory that does not grow with the capture.
//!
//! The counts are of the thread that asks, since the test harness allocates in others.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, Read};

use common::{MICRO, Order};
use ctwhy_fixture::capture::Capture;

/// Counts allocations, and the most bytes that were held at once.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// What another thread frees makes it go below zero.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counters are beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD.set(HELD.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(HELD.get()));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A capture that is made while it is read: a head once, then the same record over and over.
struct Endless {
    head: Vec<u8>,
    record: Vec<u8>,
    at: usize,
    left: usize,
}

impl Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let from = if self.head.is_empty() { &self.record } else { &self.head };
        let n = (&from[self.at..]).read(buf)?.min(self.left);
        self.at += n;
        self.left -= n;
        if self.at == from.len() {
            self.at = 0;
            self.head.clear();
        }
        Ok(n)
    }
}

/// The peak above what was held before.
fn since(before: isize) -> usize {
    usize::try_from(PEAK.get() - before).unwrap_or(0)
}

/// Reads the capture to its end: packets, allocations behind the first packet, and the peak above the start.
fn measure(head: Vec<u8>, record: Vec<u8>, records: usize) -> (u64, usize, usize) {
    let left = head.len() + record.len() * records;
    let input = Endless { head, record, at: 0, left };
    let before = HELD.get();
    PEAK.set(before);
    let mut capture = Capture::new(input, "endless").unwrap();
    let mut packets = u64::from(capture.next().unwrap().is_ok());
    let allocations = ALLOCATIONS.get();
    while let Some(packet) = capture.next() {
        assert!(!packet.unwrap().bytes.is_empty());
        packets += 1;
    }
    (packets, ALLOCATIONS.get() - allocations, since(before))
}

#[test]
fn memory_stays_flat_and_packets_cost_no_allocation() {
    const MEGABYTE: usize = 1 << 20;
    let big = 300 * MEGABYTE;

    let head = common::pcap(Order::Little, MICRO, 1, &[]);
    let record = common::pcap(Order::Little, MICRO, 1, &[(1, 2, &[7; 984])])[24..].to_vec();
    let (packets, allocations, peak) = measure(head, record, big / 1000);
    assert_eq!((packets, allocations), ((big / 1000) as u64, 0));
    assert!(peak < MEGABYTE, "{peak} bytes");

    let head = [common::section(Order::Big), common::interface(Order::Big, 1, 0, &[])].concat();
    let comment = [common::option(Order::Big, 1, b"a comment"), common::option(Order::Big, 2, &[0; 4])];
    let record =
        [common::enhanced(Order::Big, 0, 1, &[7; 1400], &comment), common::block(Order::Big, 0x0bad, &[0; 100])]
            .concat();
    let records = big / record.len();
    let (packets, allocations, peak) = measure(head.clone(), record, records);
    assert_eq!((packets, allocations), (records as u64, 0));
    assert!(peak < MEGABYTE, "{peak} bytes");

    // A block of no interest is longer than any buffer.
    let record =
        [common::enhanced(Order::Big, 0, 1, b"x", &[]), common::block(Order::Big, 10, &vec![0; 100 * MEGABYTE])];
    let (packets, allocations, peak) = measure(head.clone(), record.concat(), 3);
    assert_eq!((packets, allocations), (3, 0));
    assert!(peak < MEGABYTE, "{peak} bytes");

    // A packet longer than the window makes it grow, once and no more than it must.
    let record = common::enhanced(Order::Big, 0, 1, &vec![7; 3 * MEGABYTE], &[]);
    let (packets, allocations, peak) = measure(head.clone(), record, 20);
    assert_eq!((packets, allocations), (20, 0));
    assert!(peak < 7 * MEGABYTE, "{peak} bytes, of which the old buffer of 2 MiB while it is copied");

    // Lengths that lie cost no more than the bytes that are there.
    for (block_type, there) in [(1, 100), (6, 100), (77, 100), (6, 300 << 10)] {
        let lie = [&Order::Big.u32(block_type)[..], &Order::Big.u32(16 * MEGABYTE as u32), &vec![0; there]].concat();
        let file = [head.clone(), lie].concat();
        let before = HELD.get();
        PEAK.set(before);
        let mut capture = Capture::new(&file[..], "lie").unwrap();
        assert!(capture.next().unwrap().is_err());
        let peak = since(before);
        assert!(peak < MEGABYTE, "{peak} bytes for a block of type {block_type} with {there} bytes");
    }
}
