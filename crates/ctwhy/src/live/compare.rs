//! Two packets byte by byte: as the engine says it left, and as it left.

use std::fmt;
use std::ops::Range;

use ctwhy_core::packet::locate_transport;
use ctwhy_core::tuple::{L3, proto};

/// A field in which two packets differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The field's name, `quoted` in front inside the packet that an ICMP error quotes.
    pub(crate) field: String,
    /// Where it starts, from the first byte of the IP header.
    pub(crate) offset: usize,
    /// Its bytes as the engine says.
    pub(crate) engine: Vec<u8>,
    /// Its bytes as the kernel sent them.
    pub(crate) kernel: Vec<u8>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { field, offset, engine, kernel } = self;
        write!(f, "{field} at byte {offset}: engine {}, kernel {}", Hex(engine), Hex(kernel))
    }
}

/// Bytes as one hexadecimal number, long ones cut.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str("0x")?;
        for byte in self.0.iter().take(16) {
            write!(f, "{byte:02x}")?;
        }
        if self.0.len() > 16 { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// The fields in which the packets differ, in the order of the bytes. `unfinished`: the transport checksum of both is one
/// that the device completes, so it is not compared.
pub(crate) fn differences(engine: &[u8], kernel: &[u8], unfinished: bool) -> Vec<Difference> {
    if engine == kernel {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut compare = |field: String, range: Range<usize>| {
        let at = |bytes: &[u8]| bytes.get(range.start..range.end.min(bytes.len())).unwrap_or_default().to_vec();
        let (engine, kernel) = (at(engine), at(kernel));
        if engine != kernel {
            found.push(Difference { field, offset: range.start, engine, kernel });
        }
    };
    let mut fields = Fields::default();
    fields.packet(kernel, 0, "");
    let mut reached = 0;
    for (name, range) in fields.list {
        if range.start > reached {
            compare(format!("bytes {reached} to {}", range.start - 1), reached..range.start);
        }
        reached = reached.max(range.end);
        if !(unfinished && is_transport_checksum(&name)) {
            compare(name, range);
        }
    }
    let end = engine.len().max(kernel.len());
    if end > reached {
        compare("payload".to_owned(), reached..end);
    }
    found
}

fn is_transport_checksum(name: &str) -> bool {
    matches!(name, "TCP checksum" | "UDP checksum" | "ICMP checksum")
}

/// The fields of a packet, in order.
#[derive(Default)]
struct Fields {
    list: Vec<(String, Range<usize>)>,
}

const IPV4: [(&str, usize); 10] = [
    ("version and header length", 1),
    ("TOS", 1),
    ("total length", 2),
    ("identification", 2),
    ("flags and fragment offset", 2),
    ("TTL", 1),
    ("protocol", 1),
    ("IP header checksum", 2),
    ("source address", 4),
    ("destination address", 4),
];
const IPV6: [(&str, usize); 6] = [
    ("version, class and flow label", 4),
    ("payload length", 2),
    ("next header", 1),
    ("hop limit", 1),
    ("source address", 16),
    ("destination address", 16),
];
const TCP: [(&str, usize); 8] = [
    ("source port", 2),
    ("destination port", 2),
    ("sequence number", 4),
    ("acknowledgment number", 4),
    ("data offset and flags", 2),
    ("window", 2),
    ("TCP checksum", 2),
    ("urgent pointer", 2),
];
const UDP: [(&str, usize); 4] = [("source port", 2), ("destination port", 2), ("UDP length", 2), ("UDP checksum", 2)];
const ICMP: [(&str, usize); 5] =
    [("ICMP type", 1), ("ICMP code", 1), ("ICMP checksum", 2), ("ICMP id", 2), ("ICMP sequence", 2)];

impl Fields {
    fn add(&mut self, fields: &[(&str, usize)], mut at: usize, prefix: &str, len: usize) {
        for (name, size) in fields {
            if at + size > len {
                return;
            }
            self.list.push((format!("{prefix}{name}"), at..at + size));
            at += size;
        }
    }

    /// The packet whose IP header is at `at`.
    fn packet(&mut self, bytes: &[u8], at: usize, prefix: &str) {
        let packet = bytes.get(at..).unwrap_or_default();
        let l3num = match packet.first().map(|byte| byte >> 4) {
            Some(4) => L3::V4,
            Some(6) => L3::V6,
            _ => return,
        };
        let ip: &[(&str, usize)] = if l3num == L3::V4 { &IPV4 } else { &IPV6 };
        self.add(ip, at, prefix, bytes.len());
        let Ok(transport) = locate_transport(packet, packet.len(), l3num) else { return };
        let l4 = at + transport.offset;
        match (l3num, transport.protonum) {
            (_, proto::TCP) => self.add(&TCP, l4, prefix, bytes.len()),
            (_, proto::UDP) => self.add(&UDP, l4, prefix, bytes.len()),
            (L3::V4, proto::ICMP) | (L3::V6, proto::ICMPV6) => {
                self.add(&ICMP, l4, prefix, bytes.len());
                let error = bytes.get(l4).is_some_and(|icmp_type| match l3num {
                    L3::V4 => matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
                    L3::V6 => *icmp_type < 128,
                });
                if error && prefix.is_empty() {
                    self.packet(bytes, l4 + 8, "quoted ");
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ICMP time exceeded that quotes the first 8 bytes of a UDP datagram.
    fn error() -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 56, 0, 1, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend([11, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0x45, 0, 0, 40, 0, 2, 0, 0, 1, 17, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1]);
        bytes.extend([0x9c, 0x40, 0x82, 0x9a, 0, 20, 0xab, 0xcd]);
        bytes
    }

    fn changed(offset: usize) -> Vec<u8> {
        let mut bytes = error();
        bytes[offset] ^= 0xff;
        bytes
    }

    #[test]
    fn equal_packets_do_not_differ_and_every_byte_counts() {
        assert_eq!(differences(&error(), &error(), false), []);
        for offset in 0..error().len() {
            let found = differences(&error(), &changed(offset), false);
            assert!(!found.is_empty(), "byte {offset}");
            let covers = found.iter().any(|d| (d.offset..d.offset + d.engine.len()).contains(&offset));
            assert!(covers, "byte {offset}: {found:?}");
        }
    }

    #[test]
    fn fields_have_names_also_in_the_quote() {
        let name = |offset| differences(&error(), &changed(offset), false)[0].to_string();
        assert_eq!(name(10), "IP header checksum at byte 10: engine 0x0000, kernel 0xff00");
        assert_eq!(name(19), "destination address at byte 16: engine 0x0a000002, kernel 0x0a0000fd");
        assert_eq!(name(22), "ICMP checksum at byte 22: engine 0x0000, kernel 0xff00");
        assert_eq!(name(40), "quoted source address at byte 40: engine 0x0a000002, kernel 0xf5000002");
        assert_eq!(name(48), "quoted source port at byte 48: engine 0x9c40, kernel 0x6340");
        assert_eq!(name(55), "quoted UDP checksum at byte 54: engine 0xabcd, kernel 0xab32");
    }

    #[test]
    fn a_missing_tail_and_an_unfinished_checksum() {
        let mut longer = error();
        longer.extend([1, 2, 3]);
        let found = differences(&error(), &longer, false);
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["payload at byte 56: engine nothing, kernel 0x010203"]
        );
        assert_eq!(differences(&error(), &changed(22), true), []);
        assert_eq!(differences(&error(), &changed(54), true).len(), 1);
    }
}
