//! Anonymous packets: what was right stays right, what was wrong stays wrong, and what belonged together still does.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use std::path::Path;

use ctwhy_fixture::anonymise::{Addresses, packet};
use ctwhy_fixture::case::Case;
use ctwhy_fixture::link::{Stripped, strip};
use proptest::prelude::*;

fn sum(bytes: &[u8], seed: u64) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = seed + words.sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether each checksum of a packet without extension headers is right: IP, TCP or UDP or ICMP or ICMPv6.
fn checksums(bytes: &[u8]) -> Vec<bool> {
    let mut right = Vec::new();
    let (header, protocol, addresses) = match bytes[0] >> 4 {
        4 => {
            let header = usize::from(bytes[0] & 15) * 4;
            if header < 20 || header > bytes.len() || u16::from_be_bytes([bytes[6], bytes[7]]) & 0x1fff != 0 {
                return right;
            }
            right.push(sum(&bytes[..header], 0) == 0xffff);
            (header, bytes[9], &bytes[12..20])
        }
        _ => (40, bytes[6], &bytes[8..40]),
    };
    let length = match bytes[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        _ => 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]])),
    };
    let Some(l4) = bytes.get(header..length) else { return right };
    let pseudo = u64::from(sum(addresses, 0)) + l4.len() as u64 + u64::from(protocol);
    match protocol {
        1 => right.push(sum(l4, 0) == 0xffff),
        6 | 58 => right.push(sum(l4, pseudo) == 0xffff),
        17 if l4.get(6..8).is_some_and(|field| field != [0, 0]) => right.push(sum(l4, pseudo) == 0xffff),
        _ => {}
    }
    right
}

/// Every packet of every case: the lengths and the checksums are what they were, a second time gives the same, and no
/// address of the capture is left.
#[test]
fn every_recorded_packet() {
    let addresses = Addresses::new(b"a test");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut seen = [0; 3];
    for folder in Case::find(&fixtures).unwrap() {
        for case_packet in Case::read(&folder).unwrap().packets {
            let Ok(Stripped::Ip(link)) = strip(case_packet.linktype, &case_packet.bytes) else { continue };
            let before = &case_packet.bytes[link.ip_offset..];
            if before.len() < 40 {
                continue;
            }
            let mut after = before.to_vec();
            packet(&mut after, &addresses);
            assert_eq!(after.len(), before.len());
            let (was, is) = (checksums(before), checksums(&after));
            assert_eq!(was, is, "{}\n{before:02x?}\n{after:02x?}", folder.display());
            seen[0] += 1;
            seen[1] += was.iter().filter(|right| **right).count();
            seen[2] += was.iter().filter(|right| !**right).count();
            // There the ports of a flow are bytes of an address.
            if folder.to_string_lossy().contains("/quote-ihl-") {
                continue;
            }
            // Not even in what is quoted: the client's address, but for the octet that stays.
            for own in [&[192, 168, 1, 2][..], &[0xfd, 0, 0, 1, 0, 0, 0, 0], &[0x20, 1, 0x0d, 0xb8]] {
                assert!(!after.windows(own.len()).any(|window| window == own), "{}\n{after:02x?}", folder.display());
            }
        }
    }
    assert!(seen[0] > 1_500 && seen[1] > 2_500 && seen[2] > 20, "{seen:?}");
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200), first in any::<u8>(), protocol in 0usize..8) {
        let mut bytes = bytes;
        let length = bytes.len();
        if length > 9 {
            bytes[0] = if first & 1 == 0 { 0x45 + (first >> 5) } else { 0x60 };
            let protocols = [1, 6, 17, 58, 132, 136, 47, 43];
            bytes[if first & 1 == 0 { 9 } else { 6 }] = protocols[protocol];
        }
        let mut again = bytes.clone();
        let addresses = Addresses::new(&[first]);
        packet(&mut bytes, &addresses);
        packet(&mut again, &addresses);
        prop_assert_eq!(bytes.len(), length);
        prop_assert_eq!(bytes, again);
    }
}
