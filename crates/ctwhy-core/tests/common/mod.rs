//! Packets for tests, built without the code under test: checksums are summed word by word.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on fails.

use std::net::IpAddr;

use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{Engine, Ruling};
use ctwhy_core::nat::range::Range;
use ctwhy_core::nat::rules::{Chain, Rule, Ruleset, Target};
use ctwhy_core::rules::Matches;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;
use ctwhy_core::tuple::L3;

pub const CLIENT: &str = "10.0.1.2";
pub const SERVER: &str = "192.0.2.80";
pub const ROUTER: &str = "198.51.100.7";
pub const NAT: &str = "203.0.113.1";
pub const CLIENT6: &str = "2001:db8:1::2";
pub const SERVER6: &str = "2001:db8:80::80";
pub const ROUTER6: &str = "2001:db8:7::7";
pub const NAT6: &str = "2001:db8:2::1";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// RFC 1071, as slowly as it is written there.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn with_pseudo_header(src: IpAddr, dst: IpAddr, protonum: u8, l4: &[u8]) -> Vec<u8> {
    let mut bytes = octets(src);
    bytes.extend(octets(dst));
    bytes.extend((l4.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protonum]);
    bytes.extend(l4);
    bytes
}

/// An IP packet around a transport part.
pub fn packet(src: &str, dst: &str, protonum: u8, ttl: u8, l4: &[u8]) -> Vec<u8> {
    let (src, dst) = (ip(src), ip(dst));
    let mut bytes;
    match src {
        IpAddr::V4(_) => {
            bytes = vec![0x45, 0x28];
            bytes.extend((20 + l4.len() as u16).to_be_bytes());
            bytes.extend([0x43, 0x21, 0, 0, ttl, protonum, 0, 0]);
            bytes.extend(octets(src));
            bytes.extend(octets(dst));
            let checksum = internet_checksum(&bytes);
            set16(&mut bytes, 10, checksum);
        }
        IpAddr::V6(_) => {
            bytes = vec![0x60, 0, 0, 0];
            bytes.extend((l4.len() as u16).to_be_bytes());
            bytes.extend([protonum, ttl]);
            bytes.extend(octets(src));
            bytes.extend(octets(dst));
        }
    }
    bytes.extend(l4);
    bytes
}

pub fn set16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn udp(src: &str, sport: u16, dst: &str, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut l4 = Vec::new();
    for field in [sport, dport, 8 + payload.len() as u16, 0] {
        l4.extend(field.to_be_bytes());
    }
    l4.extend(payload);
    let checksum = internet_checksum(&with_pseudo_header(ip(src), ip(dst), 17, &l4));
    set16(&mut l4, 6, if checksum == 0 { 0xffff } else { checksum });
    packet(src, dst, 17, 57, &l4)
}

/// UDP-Lite whose checksum is the kernel's (UDPLITE-01): protocol 17, in IPv4 8 bits of the length.
pub fn udplite(src: &str, sport: u16, dst: &str, dport: u16, coverage: u16, payload: &[u8]) -> Vec<u8> {
    udplite_summed(src, sport, dst, dport, coverage, payload, |len| {
        (17, if ip(src).is_ipv4() { len & 0xff } else { len })
    })
}

/// UDP-Lite with the protocol and length in its pseudo header that `pseudo` makes of the length.
pub fn udplite_summed(
    src: &str,
    sport: u16,
    dst: &str,
    dport: u16,
    coverage: u16,
    payload: &[u8],
    pseudo: impl Fn(usize) -> (u8, usize),
) -> Vec<u8> {
    let mut l4 = Vec::new();
    for field in [sport, dport, coverage, 0] {
        l4.extend(field.to_be_bytes());
    }
    l4.extend(payload);
    let covered = if coverage == 0 { l4.len() } else { usize::from(coverage).min(l4.len()) };
    let (protonum, length) = pseudo(l4.len());
    let mut bytes = octets(ip(src));
    bytes.extend(octets(ip(dst)));
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protonum]);
    bytes.extend(&l4[..covered]);
    let checksum = internet_checksum(&bytes);
    set16(&mut l4, 6, if checksum == 0 { 0xffff } else { checksum });
    packet(src, dst, 136, 57, &l4)
}

/// CRC32c bit by bit, as the four bytes on the wire (RFC 9260 appendix A).
pub fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut register = u32::MAX;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            register = if register & 1 == 1 { (register >> 1) ^ 0x82f6_3b78 } else { register >> 1 };
        }
    }
    (!register).to_le_bytes()
}

/// An SCTP chunk.
pub fn chunk(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, flags];
    bytes.extend((4 + body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An INIT chunk.
pub fn init(tag: u32) -> Vec<u8> {
    chunk(1, 0, &init_body(tag))
}

pub fn init_body(tag: u32) -> Vec<u8> {
    let mut body = tag.to_be_bytes().to_vec();
    body.extend([0, 0, 0x80, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
    body
}

pub fn sctp(src: &str, sport: u16, dst: &str, dport: u16, vtag: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(sport.to_be_bytes());
    l4.extend(dport.to_be_bytes());
    l4.extend(vtag.to_be_bytes());
    l4.extend([0; 4]);
    l4.extend(chunks.concat());
    let crc = crc32c(&l4);
    l4[8..12].copy_from_slice(&crc);
    packet(src, dst, 132, 57, &l4)
}

pub fn tcp_syn(src: &str, sport: u16, dst: &str, dport: u16) -> Vec<u8> {
    tcp((src, sport), (dst, dport), (0x1122_3344, 0), 0x02, &[])
}

/// A segment with these numbers (SEQ, ACK) and flags.
pub fn tcp(from: (&str, u16), to: (&str, u16), numbers: (u32, u32), flags: u8, payload: &[u8]) -> Vec<u8> {
    let ((src, sport), (dst, dport)) = (from, to);
    let mut l4 = Vec::new();
    l4.extend(sport.to_be_bytes());
    l4.extend(dport.to_be_bytes());
    l4.extend(numbers.0.to_be_bytes());
    l4.extend(numbers.1.to_be_bytes());
    l4.extend([0x50, flags, 0x10, 0x92, 0, 0, 0, 0]);
    l4.extend(payload);
    let checksum = internet_checksum(&with_pseudo_header(ip(src), ip(dst), 6, &l4));
    set16(&mut l4, 16, checksum);
    packet(src, dst, 6, 57, &l4)
}

/// An ICMP message of either family; `rest` is what follows the checksum.
pub fn icmp(src: &str, dst: &str, icmp_type: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut l4 = vec![icmp_type, code, 0, 0];
    l4.extend(rest);
    let (protonum, checksum) = match ip(src) {
        IpAddr::V4(_) => (1, internet_checksum(&l4)),
        IpAddr::V6(_) => (58, internet_checksum(&with_pseudo_header(ip(src), ip(dst), 58, &l4))),
    };
    if l4.len() >= 4 {
        set16(&mut l4, 2, checksum);
    }
    packet(src, dst, protonum, 64, &l4)
}

pub fn echo(src: &str, dst: &str, icmp_type: u8, id: u16, sequence: u16) -> Vec<u8> {
    let mut rest = id.to_be_bytes().to_vec();
    rest.extend(sequence.to_be_bytes());
    rest.extend(b"abcdefgh");
    icmp(src, dst, icmp_type, 0, &rest)
}

/// An error from `src` to `dst` about `quoted`, with `rest` between checksum and quote.
pub fn error(src: &str, dst: &str, icmp_type: u8, code: u8, rest: u32, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = rest.to_be_bytes().to_vec();
    bytes.extend(quoted);
    icmp(src, dst, icmp_type, code, &bytes)
}

/// Are all checksums of an outer packet right?
pub fn checksums_are_right(bytes: &[u8]) -> bool {
    let (src, dst, protonum, l4): (IpAddr, IpAddr, u8, &[u8]) = if bytes[0] >> 4 == 4 {
        let header = usize::from(bytes[0] & 15) * 4;
        if internet_checksum(&bytes[..header]) != 0 {
            return false;
        }
        let four = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
        (four(12), four(16), bytes[9], &bytes[header..])
    } else {
        let sixteen = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
        (sixteen(8), sixteen(24), bytes[6], &bytes[40..])
    };
    match protonum {
        1 => internet_checksum(l4) == 0,
        17 if get16(l4, 6) == 0 => true,
        132 => {
            let mut zeroed = l4.to_vec();
            zeroed[8..12].fill(0);
            crc32c(&zeroed) == l4[8..12]
        }
        6 | 17 | 58 => internet_checksum(&with_pseudo_header(src, dst, protonum, l4)) == 0,
        _ => true,
    }
}

/// Gives a copy of the packet to an engine without NAT.
pub fn receive(engine: &mut Engine, packet: &[u8]) -> Ruling {
    receive_at(engine, packet, Time(0)).0
}

/// The ruling, and the packet as it left.
pub fn receive_at(engine: &mut Engine, packet: &[u8], now: Time) -> (Ruling, Vec<u8>) {
    let mut buffer = packet.to_vec();
    let mut trace = Trace::default();
    let mut twin = engine.clone();
    let ruling = engine.receive(&mut buffer, packet.len(), None, now, &mut trace);
    // The explaining run and the fast run are one: same decision, same bytes.
    let mut fast = packet.to_vec();
    let fast_ruling = twin.receive(&mut fast, packet.len(), None, now, &mut ());
    assert_eq!(fast, buffer);
    assert_eq!(format!("{fast_ruling:?}"), format!("{ruling:?}"));
    for step in &trace.steps {
        assert!(!step.to_string().is_empty());
    }
    if ruling.ctinfo == Ok(CtInfo::Invalid) {
        assert!(ruling.reason.is_some(), "INVALID without a cause");
    }
    (ruling, buffer)
}

/// The code of the cause for which a packet is INVALID; `None` when it is something else.
pub fn invalid(ruling: &Ruling) -> Option<&'static str> {
    match (ruling.ctinfo, ruling.reason) {
        (Ok(CtInfo::Invalid), Some(reason)) => Some(reason.code()),
        _ => None,
    }
}

/// A NAT box: `lan` 10.0.1.1/24 and 2001:db8:1::1/64, `wan` with [`NAT`] and [`NAT6`], everything else behind `wan`.
pub fn nat_box(target: impl Fn(L3) -> Ruleset) -> Engine {
    use ctwhy_core::network::{Interface, InterfaceAddress, Network, Route};
    use ctwhy_core::rules::Network as Prefix;
    let interface = |name: &str, own: [(&str, u8); 2]| Interface {
        name: name.into(),
        addresses: own
            .map(|(address, prefix)| InterfaceAddress {
                l3num: family(address),
                network: Prefix { address: ip(address).into(), prefix },
            })
            .to_vec(),
        mtu: Some(1500),
    };
    let mut engine = Engine::new(1);
    engine.network = Network {
        interfaces: vec![
            interface("lan", [("10.0.1.1", 24), ("2001:db8:1::1", 64)]),
            interface("wan", [(NAT, 24), (NAT6, 64)]),
        ],
        routes: ["0.0.0.0", "::"]
            .map(|any| Route {
                l3num: family(any),
                to: Prefix { address: ip(any).into(), prefix: 0 },
                interface: 1,
                via: None,
            })
            .to_vec(),
    };
    engine.rules4.nat = Some(target(L3::V4));
    engine.rules6.nat = Some(target(L3::V6));
    engine
}

fn family(address: &str) -> L3 {
    if ip(address).is_ipv4() { L3::V4 } else { L3::V6 }
}

/// One rule without conditions.
pub fn rule(target: Target) -> Chain {
    Chain { drops: false, rules: vec![Rule { line: 1, matches: Matches::default(), target }] }
}

/// MASQUERADE of everything that leaves.
pub fn masquerade(range: Range) -> Ruleset {
    Ruleset { postrouting: rule(Target::Masquerade(range)), ..Ruleset::default() }
}

/// The packet with a smaller TTL, as every router hands it on.
pub fn aged(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[8] -= 1;
        set16(&mut packet, 10, 0);
        let checksum = internet_checksum(&packet[..20]);
        set16(&mut packet, 10, checksum);
    } else {
        packet[7] -= 1;
    }
    packet
}
