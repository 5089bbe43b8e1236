//! Single packets, and packets that errors quote.

use ctwhy_core::checksum::Sum;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{Engine, Ruling};
use ctwhy_core::packet::{Packet, Quoted};
use ctwhy_core::rules::iptables;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;
use ctwhy_core::tuple::{Addr, L3, extract, proto};

/// Bytes as a packet: parsed, its tuple taken and turned round, decided about with and without a trace.
///
/// The first two bytes are how many bytes the packet had on the wire beyond those that are there.
pub fn packet(data: &[u8]) {
    let Some((missing, bytes)) = data.split_first_chunk::<2>() else { return };
    let wire_len = bytes.len() + usize::from(u16::from_le_bytes(*missing));
    if let Ok(packet) = Packet::parse(bytes, wire_len) {
        assert!(packet.len <= wire_len, "a packet is no longer than its frame");
        if let Ok(transport) = packet.transport {
            let l4 = packet.l4(transport.offset);
            if let Ok(tuple) = extract(packet.l3num, packet.src, packet.dst, transport.protonum, l4.bytes)
                && let Some(inverted) = tuple.invert()
            {
                assert_eq!(inverted.invert(), Some(tuple), "inverting twice is nothing");
            }
        }
        for offset in 0..bytes.len().min(64) {
            let _ = Quoted::parse(&packet, offset);
        }
    }
    decide(&mut masquerading(), bytes, wire_len);
}

/// Bytes as the packet that an error quotes. The error is well made and comes to the address that packets of a known flow
/// leave with; the first byte says how.
pub fn quoted(data: &[u8]) {
    let Some((&[kind, code], quote)) = data.split_first_chunk::<2>() else { return };
    let six = kind & 1 != 0;
    let types: [u8; 4] = if six { [1, 2, 3, 137] } else { [3, 11, 12, 5] };
    let icmp_type = types[usize::from(kind >> 1) % types.len()];
    let mut engine = masquerading();
    for protocol in [proto::UDP, proto::TCP, if six { proto::ICMPV6 } else { proto::ICMP }] {
        let known = wrap(six, false, protocol, &transport(six, protocol));
        decide(&mut engine, &known, known.len());
    }
    let before = engine.conntrack.table.len();
    let mut message = vec![icmp_type, code, 0, 0, 0, 0, 0, 0];
    message.extend(quote.get(..quote.len().min(1_400)).unwrap_or(quote));
    let error = wrap(six, true, if six { proto::ICMPV6 } else { proto::ICMP }, &message);
    let (ruling, out) = decide(&mut engine, &error, error.len());
    assert_eq!(engine.conntrack.table.len(), before, "an error begins no flow");
    assert_eq!(out.len(), error.len(), "and keeps its length");
    if ruling.ctinfo == Ok(CtInfo::Invalid) {
        assert!(ruling.reason.is_some(), "INVALID has a reason");
        // Untranslated, but for one hop less.
        let ttl = if six { 7..8 } else { 8..12 };
        let same = out.iter().zip(&error).enumerate().all(|(at, (out, was))| out == was || ttl.contains(&at));
        assert!(same, "an INVALID error goes on as it came");
    }
}

/// Decides about a packet twice, once explaining, and compares.
pub(crate) fn decide(engine: &mut Engine, bytes: &[u8], wire_len: usize) -> (Ruling, Vec<u8>) {
    let mut other = engine.clone();
    let (mut explained_bytes, mut fast_bytes) = (bytes.to_vec(), bytes.to_vec());
    let mut trace = Trace::default();
    let explained = other.receive(&mut explained_bytes, wire_len, Some(0), Time(0), &mut trace);
    let fast = engine.receive(&mut fast_bytes, wire_len, Some(0), Time(0), &mut ());
    assert_eq!(format!("{explained:?}"), format!("{fast:?}"), "explaining changes no decision");
    assert_eq!(explained_bytes, fast_bytes, "explaining changes no byte");
    for step in &trace.steps {
        assert!(!step.to_string().is_empty());
    }
    engine.conntrack.table.audit().unwrap();
    (fast, fast_bytes)
}

const INSIDE: [[u8; 16]; 2] = [v4([10, 0, 1, 2]), v6(0x12)];
const OUTSIDE: [[u8; 16]; 2] = [v4([203, 0, 113, 2]), v6(0x22)];
const SERVER: [[u8; 16]; 2] = [v4([192, 0, 2, 80]), v6(0x80)];

const fn v4([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

const fn v6(last: u8) -> [u8; 16] {
    [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// A box that translates everything it sends on.
fn masquerading() -> Engine {
    let mut engine = Engine::new(0);
    let rules = |to: &str| format!("*nat\n-A POSTROUTING -j SNAT --to-source {to}\nCOMMIT\n");
    engine.rules4 = iptables::parse(&rules("203.0.113.2"), L3::V4).unwrap().rules;
    engine.rules6 = iptables::parse(&rules("2001:db8::22"), L3::V6).unwrap().rules;
    engine
}

/// The transport part of a flow's first packet, without its checksum.
fn transport(six: bool, protocol: u8) -> Vec<u8> {
    match protocol {
        proto::UDP => [&[0x9c, 0x40, 0, 53, 0, 12, 0, 0][..], b"ask."].concat(),
        proto::TCP => [&[0x9c, 0x40, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 4, 0][..], &[0; 4]].concat(),
        _ => vec![if six { 128 } else { 8 }, 0, 0, 0, 0, 7, 0, 1],
    }
}

/// An IP packet from the client to the server, or from the server to the box, with right checksums.
fn wrap(six: bool, back: bool, protocol: u8, l4: &[u8]) -> Vec<u8> {
    let at = usize::from(six);
    let (src, dst) = if back { (SERVER[at], OUTSIDE[at]) } else { (INSIDE[at], SERVER[at]) };
    let mut packet = if six {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        header.extend([src, dst].concat());
        header
    } else {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        header.extend([&src[..4], &dst[..4]].concat());
        header
    };
    packet.extend(l4);
    seal(&mut packet);
    packet
}

/// Puts the lengths and checksums of a packet right as far as it has any: IP header, TCP, UDP, ICMP, ICMPv6.
pub(crate) fn seal(packet: &mut [u8]) {
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    let put = |packet: &mut [u8], at: usize, value: u16| {
        if let Some(field) = packet.get_mut(at..at + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    };
    let start = match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            put(packet, 2, length);
            put(packet, 10, 0);
            let header = usize::from(packet[0] & 0x0f) * 4;
            let checksum = Sum::default().bytes(packet.get(..header).unwrap_or_default()).checksum();
            put(packet, 10, checksum);
            header
        }
        Some(6) => {
            put(packet, 4, length.saturating_sub(40));
            40
        }
        _ => return,
    };
    let Ok(parsed) = Packet::parse(packet, packet.len()) else { return };
    let Ok(found) = parsed.transport else { return };
    let (l3num, src, dst): (L3, Addr, Addr) = (parsed.l3num, parsed.src, parsed.dst);
    let (protocol, at) = (found.protonum, found.offset.max(start));
    let length = packet.len().saturating_sub(at);
    let pseudo = Sum::default().pseudo_header(l3num, src, dst, protocol, length);
    let (field, sum) = match protocol {
        proto::TCP => (16, pseudo),
        proto::UDP => (6, pseudo),
        proto::ICMPV6 => (2, pseudo),
        proto::ICMP => (2, Sum::default()),
        _ => return,
    };
    put(packet, at + field, 0);
    if packet.len() >= at + field + 2 {
        let checksum = sum.bytes(packet.get(at..).unwrap_or_default()).checksum();
        put(packet, at + field, checksum);
    }
}
