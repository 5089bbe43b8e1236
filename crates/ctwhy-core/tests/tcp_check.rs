//! What is refused before any entry is looked at (catalogue E.1 steps 1 and 2, E.2).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod tcp_support;

use ctwhy_core::sysctl::Sysctls;
use ctwhy_core::track::tcp::segment::{flag, valid_flags};
use ctwhy_core::track::tcp::{Index, TcpReason, check};
use ctwhy_core::track::{Context, L4};
use tcp_support::*;

fn refusal(l4: &L4<'_>, verify_checksum: bool) -> Option<TcpReason> {
    let sysctls = Sysctls::default();
    match check(l4, &Context { sysctls: &sysctls, kernel: ctwhy_core::profile::DEFAULT, verify_checksum }) {
        Ok(_) => None,
        Err(ctwhy_core::reason::Reason::Tcp(reason)) => Some(reason),
        Err(other) => panic!("not a reason of the TCP tracker: {other:?}"),
    }
}

#[test]
fn a_sound_header_is_read_field_by_field() {
    let bytes = syn(1).win(7).len(3).opt(&[4, 2]).bytes(true);
    let sysctls = Sysctls::default();
    let l4 = l4(&bytes, true);
    let seg = check(&l4, &Context { sysctls: &sysctls, kernel: ctwhy_core::profile::DEFAULT, verify_checksum: true })
        .unwrap();
    assert_eq!((seg.seq, seg.ack, seg.flags, seg.window), (1, 0, flag::SYN, 7));
    assert_eq!((seg.payload, seg.header_len, seg.options), (3, 24, &[4, 2, 0, 0][..]));
    assert_eq!((seg.end(), seg.index()), (1 + 3 + 1, Index::Syn));
}

/// E.1 step 1.
#[test]
fn fewer_than_20_bytes_are_no_header() {
    let bytes = syn(1).bytes(true);
    for len in 0..20 {
        let short = l4(&bytes[..len], true);
        assert_eq!(refusal(&short, true), Some(TcpReason::ShortHeader { at_hand: len, len }));
    }
}

/// A capture can be cut where the packet was not.
#[test]
fn a_cut_capture_is_told_apart_from_a_short_packet() {
    let bytes = syn(1).len(100).opt(&[4, 2, 1, 1]).bytes(true);
    let cut = |at_hand: usize| L4 { bytes: &bytes[..at_hand], len: bytes.len(), ..l4(&[], true) };
    assert_eq!(refusal(&cut(19), true), Some(TcpReason::ShortHeader { at_hand: 19, len: 124 }));
    assert_eq!(refusal(&cut(20), true), None, "the header is there; the options and the checksum cannot be read");
    let sysctls = Sysctls::default();
    let l4 = cut(22);
    let seg = check(&l4, &Context { sysctls: &sysctls, kernel: ctwhy_core::profile::DEFAULT, verify_checksum: true })
        .unwrap();
    assert_eq!((seg.payload, seg.options), (100, &[4, 2][..]), "the payload counts as on the wire");
}

/// E.1 step 2: doff < 5.
#[test]
fn a_data_offset_below_5_is_refused() {
    for doff in 0..5u8 {
        let mut bytes = syn(1).bytes(true);
        bytes[12] = doff << 4;
        fix_checksum(&mut bytes, true);
        assert_eq!(refusal(&l4(&bytes, true), true), Some(TcpReason::BadDataOffset { header_len: doff * 4 }));
    }
}

/// E.1 step 2: doff * 4 > TCP length.
#[test]
fn a_data_offset_beyond_the_packet_is_refused() {
    let mut bytes = syn(1).len(3).bytes(true);
    bytes[12] = 6 << 4;
    fix_checksum(&mut bytes, true);
    assert_eq!(refusal(&l4(&bytes, true), true), Some(TcpReason::Truncated { header_len: 24, len: 23 }));
    bytes.push(b'A');
    fix_checksum(&mut bytes, true);
    assert_eq!(refusal(&l4(&bytes, true), true), None, "a header as long as the packet is sound");
}

/// E.1 step 2: every single bit that flips is noticed, and the right value is named.
#[test]
fn a_wrong_checksum_is_refused_where_it_is_verified() {
    let sound = ack(1, 2).len(5).bytes(true);
    let expected = u16::from_be_bytes([sound[16], sound[17]]);
    for bit in 0..16 {
        let mut bytes = sound.clone();
        bytes[16 + bit / 8] ^= 1 << (bit % 8);
        let found = u16::from_be_bytes([bytes[16], bytes[17]]);
        assert_eq!(refusal(&l4(&bytes, true), true), Some(TcpReason::BadChecksum { found, expected }));
        assert_eq!(refusal(&l4(&bytes, true), false), None);
    }
    let other_addresses = L4 { src: ends(true).1, ..l4(&sound, true) };
    assert!(matches!(refusal(&other_addresses, true), Some(TcpReason::BadChecksum { .. })), "addresses count too");
}

/// E.2: all 256 values of the flags byte.
#[test]
fn only_nine_combinations_of_flags_are_valid() {
    use flag::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
    let valid = [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];
    for flags in 0..=u8::MAX {
        let expected = valid.contains(&(flags & !(PSH | ECE | CWR)));
        assert_eq!(valid_flags(flags), expected, "{flags:#04x}");
        let refused = refusal(&l4(&seg(flags, 1, 2).bytes(true), true), true);
        assert_eq!(refused, (!expected).then_some(TcpReason::BadFlags { flags }));
    }
}

/// E.1 step 2: the order in which the checks are made.
#[test]
fn the_first_fault_is_the_one_that_is_named() {
    let mut bytes = seg(0, 1, 2).bytes(true);
    bytes[16] ^= 1;
    assert!(matches!(refusal(&l4(&bytes, true), true), Some(TcpReason::BadChecksum { .. })));
    assert!(matches!(refusal(&l4(&bytes, true), false), Some(TcpReason::BadFlags { .. })));
    bytes[12] = 0;
    assert!(matches!(refusal(&l4(&bytes, true), true), Some(TcpReason::BadDataOffset { .. })));
}

/// E.1 step 2: these checks also run for established connections.
#[test]
fn an_established_entry_does_not_excuse_a_broken_header() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(seg(0, CLIENT + 1, SERVER + 1)), Said::Invalid("tcp.bad_flags"));
    let mut bytes = ack(CLIENT + 1, SERVER + 1).bytes(true);
    bytes[17] ^= 0x10;
    assert_eq!(flow.receive(true, &bytes), Said::Invalid("tcp.bad_checksum"));
    assert_eq!(flow.timeout(), 432_000);
}

/// E.1 step 4: RST before SYN before FIN before ACK.
#[test]
fn the_row_of_the_table_follows_the_precedence_of_flags() {
    use flag::{ACK, FIN, RST, SYN, URG};
    let sysctls = Sysctls::default();
    let cx = Context { sysctls: &sysctls, kernel: ctwhy_core::profile::DEFAULT, verify_checksum: true };
    for (flags, index) in [
        (SYN, Index::Syn),
        (SYN | URG, Index::Syn),
        (SYN | ACK, Index::SynAck),
        (FIN | ACK, Index::Fin),
        (FIN | ACK | URG, Index::Fin),
        (ACK, Index::Ack),
        (ACK | URG, Index::Ack),
        (RST, Index::Rst),
        (RST | ACK, Index::Rst),
    ] {
        let bytes = seg(flags, 1, 2).bytes(true);
        assert_eq!(check(&l4(&bytes, true), &cx).unwrap().index(), index);
    }
}
