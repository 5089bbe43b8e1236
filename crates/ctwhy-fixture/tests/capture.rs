//! Reading captures: every format and byte order, and every way in which they can be broken.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use std::io::{self, Read};

use common::{MICRO, MODIFIED, NANO, ORDERS, Order, lines};
use ctwhy_fixture::capture::{Capture, Cause, Looks};
use ctwhy_fixture::link;
use ctwhy_fixture::linktype::LinkType;
use proptest::prelude::*;

#[test]
fn pcap_of_both_orders_and_all_magics() {
    for order in ORDERS {
        for (magic, nanoseconds) in [(MICRO, 5000), (NANO, 5), (MODIFIED, 5000)] {
            let file = common::pcap(order, magic, 101, &[(1, 5, b"abc"), (u32::MAX, 5, b""), (3, 5, &[7; 2000])]);
            let (lines, errors) = lines(&file);
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(lines[0], format!("1 {} 0 - 101 abc 10 []", 1_000_000_000 + nanoseconds));
            assert_eq!(lines[1], format!("2 {} 0 - 101  7 []", 4_294_967_295_000_000_000u64 + nanoseconds));
            assert_eq!(lines.len(), 3);
        }
    }
}

#[test]
fn pcap_of_old_versions_swaps_the_lengths() {
    let file = common::pcap(Order::Little, MICRO, 1, &[(1, 0, b"abc")]);
    for (minor, swapped) in [(2u8, true), (3, false), (3, true), (4, false)] {
        let mut file = file.clone();
        file[6] = minor;
        if swapped {
            file[32] = 10;
            file[36] = 3;
        }
        let (lines, errors) = lines(&file);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(lines, ["1 1000000000 0 - 1 abc 10 []"]);
    }
}

#[test]
fn the_frame_check_length_is_no_part_of_the_link_type() {
    let file = common::pcap(Order::Little, MICRO, 0x5400_0001, &[]);
    let capture = Capture::new(&file[..], "fcs").unwrap();
    assert_eq!(capture.interfaces()[0].linktype, LinkType::ETHERNET);
    assert_eq!(capture.interfaces()[0].snaplen, Some(65_535));
}

#[test]
fn pcapng_with_everything() {
    for order in ORDERS {
        let file = common::pcapng(order);
        let (lines, errors) = lines(&file);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(
            lines,
            [
                "1 1000001000 0 - 1 abcde 12 [\"one\", \"zwölf\\n\"]",
                "2 2000000002 1 wan 101 Ebc 10 []",
                "3 2000000002 0 - 1 simpl 9 []",
                "4 3000000003 1 wan 101 Eb 9 []",
                "5 4000000000 2 any 276  7 []",
            ]
        );
    }
}

/// Gives out its bytes one at a time, with interruptions in between.
struct Drip<'a>(&'a [u8], bool);

impl Read for Drip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = buf.len().min(1);
        self.0.read(&mut buf[..n])
    }
}

#[test]
fn a_slow_pipe_gives_the_same_packets() {
    for order in ORDERS {
        let file = common::pcapng(order);
        let mut capture = Capture::new(Drip(&file, false), "drip").unwrap();
        let mut numbers = Vec::new();
        while let Some(packet) = capture.next() {
            numbers.push(packet.unwrap().number);
        }
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert_eq!(capture.interfaces().len(), 3);
    }
}

/// Fails once the first bytes are read, as a live capture's pipe would block.
struct Live<'a>(&'a [u8]);

impl Read for Live<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::Error::other("asked for more than was needed")) } else { self.0.read(buf) }
    }
}

#[test]
fn a_packet_of_a_live_capture_does_not_wait_for_the_next() {
    let pcap = common::pcap(Order::Little, MICRO, 1, &[(1, 0, b"abc")]);
    let mut capture = Capture::new(Live(&pcap), "live").unwrap();
    assert_eq!(capture.next().unwrap().unwrap().bytes, b"abc");
    let error = capture.next().unwrap().unwrap_err();
    assert!(matches!(error.cause(), Cause::Read(_)));
    assert_eq!(error.to_string(), "live: byte 43: cannot be read: asked for more than was needed");
    assert!(capture.next().is_none());
}

#[test]
fn cut_at_every_byte_all_packets_before_are_delivered_and_one_error_follows() {
    let packets: [(u32, u32, &[u8]); 3] = [(1, 2, b"abc"), (3, 4, b""), (5, 6, b"hello")];
    let files = [
        common::pcap(Order::Little, MICRO, 1, &packets),
        common::pcap(Order::Big, NANO, 1, &packets),
        common::pcap(Order::Big, MODIFIED, 1, &packets),
        common::pcapng(Order::Little),
        common::pcapng(Order::Big),
    ];
    for file in &files {
        let (whole, _) = lines(file);
        let mut delivered = 0;
        let mut clean = 0;
        for cut in 0..file.len() {
            let (lines, errors) = lines(&file[..cut]);
            assert_eq!(lines, whole[..lines.len()], "cut at {cut}");
            assert!(lines.len() >= delivered && lines.len() <= delivered + 1, "cut at {cut}");
            delivered = lines.len();
            match &errors[..] {
                [] => clean += 1,
                [error] => {
                    assert!(error.offset() <= cut as u64, "cut at {cut}: {error}");
                    match error.cause() {
                        Cause::Empty => assert_eq!(cut, 0),
                        Cause::HeaderCut { have, .. } => assert_eq!(*have, cut as u64),
                        Cause::PacketCut { packet, need, have } => {
                            assert_eq!(*packet, delivered as u64 + 1);
                            assert_eq!(*have, cut as u64 - error.offset());
                            assert!(have < need);
                        }
                        Cause::BlockCut { packets, need, have, .. } => {
                            assert_eq!(*packets, delivered as u64);
                            assert_eq!(*have, cut as u64 - error.offset());
                            assert!(have < need);
                        }
                        other => panic!("cut at {cut}: {other:?}"),
                    }
                }
                more => panic!("cut at {cut}: {more:?}"),
            }
        }
        // Cuts between two records are no fault that anyone could see.
        let records = if file[0] == 0x0a { 12 } else { 3 };
        assert_eq!(clean, records - usize::from(file[0] == 0x0a), "in a file of {} bytes", file.len());
    }
}

#[test]
fn what_is_no_capture_says_what_it_looks_like() {
    let says = |bytes: &[u8], file: &str| Capture::new(bytes, file).unwrap_err().to_string();
    assert_eq!(says(b"", "a"), "a: is empty, not even a file header: record it again, with packets this time");
    assert!(says(b"\x1f\x8b\x08\x00\x00", "a.gz").contains("compressed with gzip; unpack it with `gzip -dc a.gz`"));
    assert!(
        says(b"\x28\xb5\x2f\xfd\x04", "-").starts_with("standard input: is no capture: it is compressed with zstd")
    );
    assert!(says(b"1 0.000 10.0.0.1 UDP\n", "a").contains("looks like text"));
    assert!(says(b"hi", "a").contains("looks like text"));
    assert!(says(b"\x00\x01\x02\x03\x04", "a").contains("bytes 00 01 02 03"));
    assert!(says(b"\x0a\x0d", "a").contains("ends within its header, 2 of"));
    let error = Capture::new(&b"snoop\0\0\0\0\0\0\x02"[..], "a").unwrap_err();
    assert!(matches!(error.cause(), Cause::NotACapture(Looks::Snoop)));
    let error = Capture::open("/no/such/file").unwrap_err();
    assert!(error.to_string().starts_with("/no/such/file: cannot be opened: No such file"), "{error}");
    let error = Capture::open("/").unwrap_err();
    assert!(error.to_string().starts_with("/: byte 0: cannot be read: Is a directory"), "{error}");
    let mut old = common::pcap(Order::Big, MICRO, 1, &[]);
    old[4..6].copy_from_slice(&[5, 0]);
    assert!(says(&old, "a").contains("a: byte 4: pcap version 1280.4 is not known"));
}

#[test]
fn one_bad_packet_does_not_hide_the_others() {
    for order in ORDERS {
        let mut overrun = common::enhanced(order, 0, 0, b"abcd", &[]);
        overrun[20..24].copy_from_slice(&order.u32(5));
        let file = [
            common::section(order),
            common::interface(order, 1, 0, &[]),
            common::enhanced(order, 7, 0, b"of no interface", &[]),
            overrun,
            common::enhanced(order, 0, 0, b"good", &[]),
        ]
        .concat();
        let (lines, errors) = lines(&file);
        assert_eq!(lines, ["3 0 0 - 1 good 11 []"]);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "test: byte 56: packet 1 is of interface 7, but its section describes 1; it is left out",
                "test: byte 104: packet 2 claims 5 bytes in a block with room for 4; it is left out",
            ]
        );
        assert!(errors.iter().all(|e| e.is_recoverable()));
    }
}

#[test]
fn a_simple_packet_without_interface_is_an_error() {
    let file = [common::section(Order::Little), common::simple(Order::Little, 1, b"a")].concat();
    let (lines, errors) = lines(&file);
    assert!(lines.is_empty());
    assert!(matches!(errors[0].cause(), Cause::UnknownInterface { packet: 1, interface: 0, described: 0 }));
}

#[test]
fn absurd_lengths_are_named() {
    let order = Order::Little;
    let mut long = common::pcap(order, MICRO, 1, &[(0, 0, b"abc")]);
    long[32..36].copy_from_slice(&[0xff; 4]);
    let (_, errors) = lines(&long);
    assert!(
        errors[0].to_string().starts_with("test: byte 24: packet 1 claims 4294967295 bytes, more than"),
        "{errors:?}"
    );

    let head = [common::section(order), common::interface(order, 1, 0, &[])].concat();
    let with = |block_type: u32, length: u32| {
        let file = [&head[..], &block_type.to_le_bytes(), &length.to_le_bytes(), &[0; 40]].concat();
        let (_, mut errors) = lines(&file);
        assert_eq!(errors.len(), 1);
        errors.remove(0)
    };
    assert!(matches!(with(6, 0xffff_fffc).cause(), Cause::PacketTooLong { packet: 1, .. }));
    assert!(matches!(with(6, 28).cause(), Cause::BlockLength { length: 28, .. }));
    assert!(matches!(with(6, 37).cause(), Cause::BlockLength { length: 37, .. }));
    assert!(matches!(with(1, 0x7000_0000).cause(), Cause::BlockLength { .. }));
    assert!(matches!(with(77, 0).cause(), Cause::BlockLength { length: 0, .. }));
    assert!(matches!(with(77, 0xffff_fffc).cause(), Cause::BlockCut { have: 48, .. }));
    assert!(matches!(with(77, 48).cause(), Cause::BlockTrailer { length: 48, trailer: 0, .. }));
    assert!(matches!(with(6, 48).cause(), Cause::BlockTrailer { length: 48, trailer: 0, .. }));
    assert!(matches!(with(0x0a0d_0d0a, 48).cause(), Cause::ByteOrder(0)));
}

#[test]
fn interface_options_that_do_not_fit_are_named() {
    for (option, says) in [
        (vec![2, 0, 99, 0, b'w', b'a', b'n', 0], "option 2 of an interface is longer than its block"),
        (vec![9, 0, 2, 0, 6, 6, 0, 0], "option 9 of an interface (if_tsresol) is not one byte"),
        (vec![14, 0, 4, 0, 0, 0, 0, 0], "option 14 of an interface (if_tsoffset) is not eight bytes"),
    ] {
        let file = [common::section(Order::Little), common::interface(Order::Little, 1, 0, &[option])].concat();
        let (_, errors) = lines(&file);
        assert!(errors[0].to_string().contains(says), "{errors:?}");
    }
}

#[test]
fn interfaces_do_not_fill_the_memory() {
    let one = common::interface(Order::Little, 1, 0, &[]);
    let file = [common::section(Order::Little), one.repeat(65_537)].concat();
    let (_, errors) = lines(&file);
    assert!(matches!(errors[0].cause(), Cause::TooManyInterfaces { limit: 65_536 }));
}

#[test]
fn an_unknown_link_type_is_an_error_of_its_packets_only() {
    let order = Order::Big;
    let file = [
        common::section(order),
        common::interface(order, 195, 0, &[]),
        common::interface(order, 101, 0, &[]),
        common::enhanced(order, 0, 0, b"?", &[]),
        common::enhanced(order, 1, 0, b"\x45", &[]),
    ]
    .concat();
    let mut capture = Capture::new(&file[..], "mixed").unwrap();
    let first = capture.next().unwrap().unwrap();
    let error = link::strip(first.linktype, first.bytes).unwrap_err();
    assert!(error.to_string().starts_with("link type 195 (IEEE802_15_4_WITHFCS) is not taken apart"), "{error}");
    let second = capture.next().unwrap().unwrap();
    assert!(matches!(link::strip(second.linktype, second.bytes), Ok(link::Stripped::Ip(_))));
}

/// Reads to the end, strips every packet, and checks what must hold of any input.
fn survive(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(mut capture) = Capture::new(bytes, "any") else { return Ok(()) };
    let (mut number, mut failed) = (0, false);
    while let Some(packet) = capture.next() {
        prop_assert!(!failed, "nothing follows an error that ends the reading");
        match packet {
            Ok(p) => {
                prop_assert!(p.number > number);
                number = p.number;
                prop_assert!(p.bytes.len() <= bytes.len());
                prop_assert!((p.interface as usize) < p.interfaces().len());
                let _ = p.comments().count();
                if let Ok(link::Stripped::Ip(ip)) = link::strip(p.linktype, p.bytes) {
                    prop_assert!(ip.ip_offset <= p.bytes.len());
                }
            }
            Err(e) => {
                prop_assert!(e.offset() <= bytes.len() as u64);
                prop_assert!(!e.to_string().is_empty());
                failed = !e.is_recoverable();
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400), start in 0usize..8) {
        let starts = [
            common::pcap(Order::Little, MICRO, 1, &[]),
            common::pcap(Order::Big, NANO, 113, &[]),
            common::pcap(Order::Big, MODIFIED, 276, &[]),
            common::section(Order::Little),
            [common::section(Order::Big), common::interface(Order::Big, 1, 0, &[])].concat(),
            [common::section(Order::Little), common::interface(Order::Little, 101, 6, &[])].concat(),
            common::section(Order::Big)[..8].to_vec(),
            Vec::new(),
        ];
        survive(&[&starts[start][..], &bytes].concat())?;
    }

    #[test]
    fn a_damaged_file_is_survived(
        order in prop_oneof![Just(Order::Little), Just(Order::Big)],
        damage in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 1..5),
    ) {
        let mut file = common::pcapng(order);
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        survive(&file)?;
    }

    #[test]
    fn any_link_layer_is_survived(linktype in 0u32..300, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(link::Stripped::Ip(ip)) = link::strip(LinkType(linktype), &bytes) {
            prop_assert!(ip.ip_offset <= bytes.len());
        }
    }
}
