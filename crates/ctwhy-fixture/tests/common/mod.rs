//! Captures put together byte by byte, apart from the crate's own writer, and what tests share.
#![allow(dead_code, unreachable_pub)] // Each test binary takes its part.

use std::io::Write;

use ctwhy_fixture::capture::{Capture, CaptureError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

pub const ORDERS: [Order; 2] = [Order::Little, Order::Big];

impl Order {
    pub fn u16(self, n: u16) -> [u8; 2] {
        if self == Order::Little { n.to_le_bytes() } else { n.to_be_bytes() }
    }

    pub fn u32(self, n: u32) -> [u8; 4] {
        if self == Order::Little { n.to_le_bytes() } else { n.to_be_bytes() }
    }

    pub fn i64(self, n: i64) -> [u8; 8] {
        if self == Order::Little { n.to_le_bytes() } else { n.to_be_bytes() }
    }
}

pub const MICRO: u32 = 0xa1b2_c3d4;
pub const NANO: u32 = 0xa1b2_3c4d;
pub const MODIFIED: u32 = 0xa1b2_cd34;

/// A classic pcap of packets given as seconds, units and bytes.
pub fn pcap(order: Order, magic: u32, linktype: u32, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut file = order.u32(magic).to_vec();
    file.extend(order.u16(2));
    file.extend(order.u16(4));
    file.extend([0; 8]);
    file.extend(order.u32(65_535));
    file.extend(order.u32(linktype));
    for (seconds, units, bytes) in packets {
        let length = bytes.len() as u32;
        for field in [*seconds, *units, length, length + 7] {
            file.extend(order.u32(field));
        }
        if magic == MODIFIED {
            file.extend([9; 8]);
        }
        file.extend_from_slice(bytes);
    }
    file
}

/// A pcapng block around a body, padded and with both lengths.
pub fn block(order: Order, block_type: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = order.u32(padded as u32 + 12);
    let mut block = order.u32(block_type).to_vec();
    block.extend(length);
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

pub fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let mut option = order.u16(code).to_vec();
    option.extend(order.u16(value.len() as u16));
    option.extend(value);
    option.resize(option.len().next_multiple_of(4), 0);
    option
}

pub fn section(order: Order) -> Vec<u8> {
    let body = [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &order.i64(-1), &option(order, 4, b"test")];
    block(order, 0x0a0d_0d0a, &body.concat())
}

pub fn interface(order: Order, linktype: u16, snaplen: u32, options: &[Vec<u8>]) -> Vec<u8> {
    let body = [&order.u16(linktype)[..], &[0; 2], &order.u32(snaplen), &options.concat()];
    block(order, 1, &body.concat())
}

pub fn enhanced(order: Order, interface: u32, units: u64, bytes: &[u8], options: &[Vec<u8>]) -> Vec<u8> {
    let padding = vec![0; bytes.len().next_multiple_of(4) - bytes.len()];
    let length = bytes.len() as u32;
    let body = [
        &order.u32(interface)[..],
        &order.u32((units >> 32) as u32),
        &order.u32(units as u32),
        &order.u32(length),
        &order.u32(length + 7),
        bytes,
        &padding,
        &options.concat(),
    ];
    block(order, 6, &body.concat())
}

pub fn obsolete(order: Order, interface: u16, units: u64, bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u32;
    let body = [
        &order.u16(interface)[..],
        &order.u16(0xffff),
        &order.u32((units >> 32) as u32),
        &order.u32(units as u32),
        &order.u32(length),
        &order.u32(length + 7),
        bytes,
    ];
    block(order, 2, &body.concat())
}

pub fn simple(order: Order, original: u32, bytes: &[u8]) -> Vec<u8> {
    block(order, 3, &[&order.u32(original)[..], bytes].concat())
}

/// Two sections, of this order and of the other, with every kind of block that holds a packet and some that do not.
pub fn pcapng(order: Order) -> Vec<u8> {
    let other = if order == Order::Little { Order::Big } else { Order::Little };
    let named =
        |order, name: &str, resolution| vec![option(order, 2, name.as_bytes()), option(order, 9, &[resolution])];
    let comments = [option(order, 1, b"one"), option(order, 2, &[0; 4]), option(order, 1, "zw\u{f6}lf\n".as_bytes())];
    [
        section(order),
        interface(order, 1, 5, &[]),
        interface(order, 101, 0, &[named(order, "wan", 9), vec![option(order, 0, &[])]].concat()),
        block(order, 5, &[0; 12]),
        enhanced(order, 0, 1_000_001, b"abcde", &comments),
        enhanced(order, 1, 2_000_000_002, b"\x45bc", &[]),
        block(order, 0x8000_1234, b"what nobody knows"),
        simple(order, 9, b"simpl"),
        obsolete(order, 1, 3_000_000_003, b"\x45b"),
        section(other),
        interface(other, 276, 0, &[named(other, "any", 0x80 | 10), vec![option(other, 14, &other.i64(-1))]].concat()),
        enhanced(other, 0, 5 << 10, b"", &[]),
    ]
    .concat()
}

/// A packet as one line: number, time, interface, its name, link type, bytes, original length, comments.
pub fn lines(file: &[u8]) -> (Vec<String>, Vec<CaptureError>) {
    let mut capture = match Capture::new(file, "test") {
        Ok(capture) => capture,
        Err(e) => return (Vec::new(), vec![e]),
    };
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    while let Some(packet) = capture.next() {
        match packet {
            Ok(p) => lines.push(format!(
                "{} {} {} {} {} {} {} {:?}",
                p.number,
                p.time_ns,
                p.interface,
                p.iface().unwrap_or("-"),
                p.linktype.0,
                p.bytes.escape_ascii(),
                p.original_len,
                p.comments().collect::<Vec<_>>()
            )),
            Err(e) => errors.push(e),
        }
    }
    assert!(capture.next().is_none(), "the end is the end");
    (lines, errors)
}

/// Skips a test aloud: it is counted as skipped by `make test`, and fails where CI is set.
pub fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} was skipped in CI: {reason}");
    eprintln!("skipped: {test}: {reason}");
    if let Some(file) = std::env::var_os("CTWHY_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
}

/// A folder of its own below the build's temporary one, empty.
pub fn scratch(name: &str) -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
