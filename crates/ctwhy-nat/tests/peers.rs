//! What other NATs get wrong about ICMP errors, one by one (RFC 5508): no error is lost, none is let in that belongs to
//! nobody, and the quote in the client's view is the packet that the client sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::net::IpAddr;

use ctwhy_core::checksum::Sum;
use ctwhy_core::hook::Engine;
use ctwhy_core::nat::options::Options;
use ctwhy_core::network::{Interface, InterfaceAddress};
use ctwhy_core::packet::{Packet, be16};
use ctwhy_core::rules::{Network as Prefix, iptables};
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Addr, L3, proto};
use ctwhy_nat::answer::{Complaint, complain};
use ctwhy_nat::limit::Limits;
use ctwhy_nat::router::{Arrival, Departure, Router};

const INSIDE: u16 = 0;
const OUTSIDE: u16 = 1;
/// Ports and ids have to change, and only what belongs to a flow comes in.
const RULES: &str = "\
*nat
-A POSTROUTING -o wan -j MASQUERADE --random-fully
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -i lan -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// The addresses of a family.
struct Family {
    l3num: L3,
    client: Addr,
    lan: Addr,
    wan: Addr,
    /// A router on the way.
    hop: Addr,
    server: Addr,
}

fn families() -> [Family; 2] {
    let address = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    let family = |l3num, [client, lan, wan, hop, server]: [&str; 5]| Family {
        l3num,
        client: address(client),
        lan: address(lan),
        wan: address(wan),
        hop: address(hop),
        server: address(server),
    };
    [
        family(L3::V4, ["10.0.1.2", "10.0.1.1", "203.0.113.2", "198.51.100.9", "192.0.2.80"]),
        family(L3::V6, ["fd00:1::2", "fd00:1::1", "2001:db8:113::2", "2001:db8:100::9", "2001:db8:2::80"]),
    ]
}

struct Nat {
    router: Router,
    now: u64,
}

impl Nat {
    fn new(family: &Family) -> Nat {
        let mut engine = Engine::new(7);
        let prefix = if family.l3num == L3::V4 { 24 } else { 64 };
        for (name, address) in [("lan", family.lan), ("wan", family.wan)] {
            let network = Prefix { address, prefix };
            let addresses = vec![InterfaceAddress { l3num: family.l3num, network }];
            engine.network.interfaces.push(Interface { name: name.to_owned(), addresses, mtu: Some(1500) });
        }
        let default = Prefix { address: Addr([0; 16]), prefix: 0 };
        let route = ctwhy_core::network::Route { l3num: family.l3num, to: default, interface: OUTSIDE, via: None };
        engine.network.routes.push(route);
        *engine.rules_mut(family.l3num) = iptables::parse(RULES, family.l3num).unwrap().rules;
        let mut limits = Limits::default();
        limits.set("icmp_ratemask", "0").unwrap();
        limits.set("net.ipv6.icmp.ratemask", "").unwrap();
        Nat { router: Router::new(engine, limits, 1), now: 1_000_000_000_000 }
    }

    /// What leaves because of a packet, each with its interface.
    fn put(&mut self, interface: u16, packet: &[u8]) -> Vec<(u16, Vec<u8>)> {
        self.now += 1_000_000;
        let mut left = Vec::new();
        let mut leave = |out: Departure<'_>| left.push((out.interface, out.packet.to_vec()));
        let mut packet = packet.to_vec();
        self.router.receive(Arrival::new(&mut packet, interface), Time(self.now), &mut (), &mut leave);
        let statistics = &self.router.statistics;
        assert_eq!(statistics.accounted(), statistics.received.packets, "{statistics}");
        left
    }

    /// The one packet that leaves by an interface.
    fn one(&mut self, interface: u16, packet: &[u8], out: u16) -> Vec<u8> {
        let mut left = self.put(interface, packet);
        assert_eq!(left.len(), 1, "{left:02x?}\n{}", self.router.statistics);
        let (by, packet) = left.pop().unwrap();
        assert_eq!(by, out);
        assert!(Packet::parse(&packet, packet.len()).is_ok());
        packet
    }

    fn out(&mut self, packet: &[u8]) -> Vec<u8> {
        self.one(INSIDE, packet, OUTSIDE)
    }

    fn inwards(&mut self, packet: &[u8]) -> Vec<u8> {
        self.one(OUTSIDE, packet, INSIDE)
    }
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Where the transport header is.
fn l4(packet: &[u8]) -> usize {
    Packet::parse(packet, packet.len()).unwrap().transport.unwrap().offset
}

/// The checksum of the IP header, and unless `keep` that of the transport, made right.
fn seal(packet: &mut [u8], keep: bool) {
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        put16(packet, 10, 0);
        let checksum = Sum::default().bytes(&packet[..header]).checksum();
        put16(packet, 10, checksum);
    }
    if keep {
        return;
    }
    let at = l4(packet);
    let view = Packet::parse(packet, packet.len()).unwrap();
    let protonum = view.transport.unwrap().protonum;
    let pseudo = match protonum {
        proto::ICMP => Sum::default(),
        _ => Sum::default().pseudo_header(view.l3num, view.src, view.dst, protonum, packet.len() - at),
    };
    let field = at
        + match protonum {
            proto::TCP => 16,
            proto::UDP => 6,
            _ => 2,
        };
    put16(packet, field, 0);
    let checksum = pseudo.bytes(&packet[at..]).checksum();
    put16(packet, field, checksum);
}

/// A packet with a header that nobody would make up: IPID 0x4321, TOS 0x28, TTL 57; traffic class and flow label in IPv6.
fn packet(from: Addr, to: Addr, l3num: L3, protonum: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = match l3num {
        L3::V4 => {
            let mut header = vec![0x45, 0x28, 0, 0, 0x43, 0x21, 0x40, 0, 57, protonum, 0, 0];
            put16(&mut header, 2, (20 + message.len()) as u16);
            header.extend(&from.0[..4]);
            header.extend(&to.0[..4]);
            header
        }
        L3::V6 => {
            let mut header = vec![0x62, 0x81, 0x23, 0x45, 0, 0, protonum, 57];
            put16(&mut header, 4, message.len() as u16);
            header.extend(from.0);
            header.extend(to.0);
            header
        }
    };
    packet.extend(message);
    seal(&mut packet, false);
    packet
}

/// The packets of a client to the server: UDP, TCP with odd options, an echo request.
fn probes(family: &Family) -> Vec<Vec<u8>> {
    let make = |protonum, message: &[u8]| packet(family.client, family.server, family.l3num, protonum, message);
    let mut udp = vec![0x9c, 0x40, 0x82, 0x9a, 0, 20, 0, 0];
    udp.extend(b"who answers?");
    let mut tcp = vec![0x9c, 0x41, 0, 80, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0x80, 0x02, 0x10, 0x92, 0, 0, 0, 0];
    tcp.extend([2, 4, 5, 0xb4, 253, 4, 0xab, 0xcd, 1, 1, 1, 0]);
    let (kind, icmp) = if family.l3num == L3::V4 { (8, proto::ICMP) } else { (128, proto::ICMPV6) };
    vec![make(proto::UDP, &udp), make(proto::TCP, &tcp), make(icmp, &[kind, 0, 0, 0, 0x12, 0x34, 0, 7, 1, 2, 3])]
}

/// What a router on the way says about a packet.
fn error(family: &Family, about: &[u8], complaint: Complaint) -> Vec<u8> {
    let about = Packet::parse(about, about.len()).unwrap();
    complain(&about, complaint, family.hop, 0x99).unwrap()
}

/// The packet with the lower TTL that it has at the router that complains.
fn older(packet: &[u8], hops: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let ttl = if packet[0] >> 4 == 4 { 8 } else { 7 };
    packet[ttl] -= hops;
    seal(&mut packet, true);
    packet
}

/// The error is the client's, and quotes what it sent, as far as the hop changed nothing.
fn assert_about(family: &Family, error: &[u8], sent: &[u8], quoted: usize) {
    let view = Packet::parse(error, error.len()).unwrap();
    assert_eq!((view.src, view.dst), (family.hop, family.client));
    let at = l4(error);
    let sum = match family.l3num {
        L3::V4 => Sum::default(),
        L3::V6 => Sum::default().pseudo_header(L3::V6, view.src, view.dst, proto::ICMPV6, error.len() - at),
    };
    assert_eq!(sum.bytes(&error[at..]).fold(), 0xffff, "the checksum of the error");
    let quote = &error[at + 8..];
    let expected = older(sent, 2);
    assert_eq!(quote[..quoted], expected[..quoted], "the quote");
}

#[test]
fn quotes_are_what_the_client_sent() {
    for family in families() {
        let mut nat = Nat::new(&family);
        for sent in probes(&family) {
            let left = nat.out(&sent);
            let at = l4(&sent);
            let id = if sent[if family.l3num == L3::V4 { 9 } else { 6 }] > 17 || sent[at] == 8 { at + 4 } else { at };
            assert_ne!(be16(&left, id), be16(&sent, id), "port or id has changed");
            let hop = older(&left, 1);
            for complaint in [
                Complaint::TimeExceeded,
                Complaint::TooBig { mtu: 1290 },
                Complaint::PortUnreachable,
                Complaint::Prohibited,
                Complaint::HostUnreachable,
                Complaint::NoRoute,
            ] {
                let came = error(&family, &hop, complaint);
                let seen = nat.inwards(&came);
                assert_about(&family, &seen, &sent, sent.len());
                assert_eq!(seen[l4(&seen)..l4(&seen) + 2], came[l4(&came)..l4(&came) + 2], "type and code");
                assert_eq!(seen[l4(&seen) + 4..l4(&seen) + 8], came[l4(&came) + 4..l4(&came) + 8], "the MTU");
            }
            // The mapping has survived all that.
            assert_eq!(be16(&nat.out(&sent), id), be16(&left, id));
        }
    }
}

#[test]
fn three_in_flight_are_three() {
    for family in families() {
        let mut nat = Nat::new(&family);
        let sent: Vec<Vec<u8>> = [b"aaaa", b"bbbb", b"cccc"]
            .into_iter()
            .map(|text| {
                let mut probe = probes(&family).remove(0);
                let end = probe.len();
                probe[end - 4..].copy_from_slice(text);
                seal(&mut probe, false);
                probe
            })
            .collect();
        let left: Vec<Vec<u8>> = sent.iter().map(|sent| nat.out(sent)).collect();
        for (sent, left) in sent.iter().zip(&left).rev() {
            let seen = nat.inwards(&error(&family, &older(left, 1), Complaint::TimeExceeded));
            assert_about(&family, &seen, sent, sent.len());
        }
    }
}

#[test]
fn short_quotes_options_and_no_checksum() {
    let [family, _] = families();
    // A quote of eight bytes behind the header, which is all that RFC 792 asks for, with an MTU in front of it.
    for sent in probes(&family) {
        let mut nat = Nat::new(&family);
        let left = nat.out(&sent);
        let mut came = error(&family, &older(&left, 1), Complaint::TooBig { mtu: 1200 });
        came.truncate(28 + 28);
        put16(&mut came, 2, 56);
        seal(&mut came, false);
        assert_about(&family, &nat.inwards(&came), &sent, 28);
    }
    // IP options in the quoted packet.
    let mut nat = Nat::new(&family);
    let mut sent = probes(&family).remove(0);
    sent.splice(20..20, [1, 1, 1, 0]);
    sent[0] = 0x46;
    let length = sent.len() as u16;
    put16(&mut sent, 2, length);
    seal(&mut sent, true);
    let left = nat.out(&sent);
    assert_about(&family, &nat.inwards(&error(&family, &older(&left, 1), Complaint::TimeExceeded)), &sent, sent.len());
    // A datagram without a checksum has none afterwards.
    let mut sent = probes(&family).remove(0);
    put16(&mut sent, 26, 0);
    put16(&mut sent, 20, 0x9c50);
    let left = nat.out(&sent);
    assert_eq!(be16(&left, 26), Some(0));
    assert_about(&family, &nat.inwards(&error(&family, &older(&left, 1), Complaint::TimeExceeded)), &sent, sent.len());
}

#[test]
fn extensions_survive() {
    let [family, _] = families();
    let mut nat = Nat::new(&family);
    let sent = probes(&family).remove(0);
    let left = nat.out(&sent);
    let mut came = error(&family, &older(&left, 1), Complaint::TimeExceeded);
    // RFC 4884: the quote is padded to 128 bytes, and its length is said in words.
    came.resize(28 + 128, 0);
    came[20 + 5] = 32;
    let extension = [0x20, 0, 0, 0, 0, 8, 1, 1, 0x12, 0x34, 0x51, 0x40];
    came.extend(extension);
    let length = came.len() as u16;
    put16(&mut came, 2, length);
    seal(&mut came, false);
    let seen = nat.inwards(&came);
    assert_about(&family, &seen, &sent, sent.len());
    assert_eq!((seen[25], &seen[28 + 128..]), (32, &extension[..]));
}

#[test]
fn an_error_in_two_fragments() {
    let [family, _] = families();
    let mut nat = Nat::new(&family);
    let mut sent = probes(&family).remove(0);
    sent.resize(400, 0x55);
    put16(&mut sent, 2, 400);
    put16(&mut sent, 24, 380);
    seal(&mut sent, false);
    let left = nat.out(&sent);
    let whole = error(&family, &older(&left, 1), Complaint::TimeExceeded);
    let cut = 20 + 200;
    let fragment = |data: &[u8], place: u16| {
        let mut fragment = [&whole[..20], data].concat();
        put16(&mut fragment, 2, 20 + data.len() as u16);
        put16(&mut fragment, 6, place);
        seal(&mut fragment, true);
        fragment
    };
    assert!(nat.put(OUTSIDE, &fragment(&whole[20..cut], 0x2000)).is_empty());
    let pieces = nat.put(OUTSIDE, &fragment(&whole[cut..], 200 / 8));
    assert_eq!(pieces.len(), 2, "they leave as they came");
    let mut seen = pieces[0].1.clone();
    seen.extend(&pieces[1].1[20..]);
    put16(&mut seen, 6, 0);
    let length = seen.len() as u16;
    put16(&mut seen, 2, length);
    seal(&mut seen, true);
    assert_about(&family, &seen, &sent, 400);
}

#[test]
fn what_belongs_to_nobody_stays_out() {
    for family in families() {
        let mut nat = Nat::new(&family);
        let sent = probes(&family).remove(0);
        let left = nat.out(&sent);
        let about = older(&left, 1);
        let at = l4(&about);
        let (header, dst) = if family.l3num == L3::V4 { (20, 16) } else { (40, 24) };
        let width = if family.l3num == L3::V4 { 4 } else { 16 };
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut about = about.clone();
            change(&mut about);
            seal(&mut about, true);
            error(&family, &about, Complaint::PortUnreachable)
        };
        let mut forged = vec![
            ("another destination port", changed(&|about| put16(about, at + 2, 9))),
            ("another source port", changed(&|about| put16(about, at, 9))),
            ("another destination", changed(&|about| about[dst + width - 1] ^= 1)),
            ("another protocol", changed(&|about| about[if family.l3num == L3::V4 { 9 } else { 6 }] = proto::TCP)),
        ];
        let right = error(&family, &about, Complaint::PortUnreachable);
        let mut to_another = right.clone();
        to_another[dst + width - 1] ^= 1;
        seal(&mut to_another, false);
        let mut to_the_client = right.clone();
        to_the_client[dst..dst + width].copy_from_slice(&family.client.0[..width]);
        seal(&mut to_the_client, false);
        let mut damaged = right.clone();
        *damaged.last_mut().unwrap() ^= 1;
        forged.extend([
            ("outer destination is not the mapping's", to_another),
            ("straight to the client", to_the_client),
            ("a wrong checksum", damaged),
        ]);
        if family.l3num == L3::V4 {
            let mut fragment = right.clone();
            put16(&mut fragment, header + 8 + 6, 0x0010);
            seal(&mut fragment, false);
            forged.push(("about a later fragment", fragment));
            let mut redirect = right.clone();
            redirect[20] = 5;
            seal(&mut redirect, false);
            forged.push(("a redirect", redirect));
        }
        for (what, packet) in forged {
            let left = nat.put(OUTSIDE, &packet);
            assert!(left.iter().all(|(out, _)| *out != INSIDE), "{what}: {left:02x?}");
        }
        assert_about(&family, &nat.inwards(&right), &sent, sent.len());
    }
}

#[test]
fn what_the_kernel_lets_pass_is_stopped_only_on_request() {
    let [family, _] = families();
    let mut nat = Nat::new(&family);
    let left = nat.out(&probes(&family)[0]);
    let right = error(&family, &older(&left, 1), Complaint::TimeExceeded);
    let mut quench = right.clone();
    quench[20] = 4;
    seal(&mut quench, false);
    let mut wrong = right.clone();
    wrong[28 + 10] ^= 1;
    seal(&mut wrong, false);
    for strict in [false, true] {
        let (verify_quoted_header, drop_source_quench) = (strict, strict);
        nat.router.engine.set_nat_options(Options { verify_quoted_header, drop_source_quench, ..Options::KERNEL });
        for (packet, passes) in [(&right, true), (&quench, !strict), (&wrong, !strict)] {
            assert_eq!(nat.put(OUTSIDE, packet).len(), usize::from(passes), "{}", nat.router.statistics);
        }
    }
}

#[test]
fn the_clients_own_errors_reach_the_server() {
    for family in families() {
        let mut nat = Nat::new(&family);
        let sent = probes(&family).remove(0);
        let left = nat.out(&sent);
        let at = l4(&left);
        let mut reply = vec![left[at + 2], left[at + 3], left[at], left[at + 1], 0, 12, 0, 0];
        reply.extend(b"here");
        let reply = packet(family.server, family.wan, family.l3num, proto::UDP, &reply);
        let seen = nat.inwards(&reply);
        for complaint in [Complaint::PortUnreachable, Complaint::TooBig { mtu: 1290 }] {
            let view = Packet::parse(&seen, seen.len()).unwrap();
            let says = complain(&view, complaint, family.client, 3).unwrap();
            let heard = nat.out(&says);
            let view = Packet::parse(&heard, heard.len()).unwrap();
            assert_eq!((view.src, view.dst), (family.wan, family.server));
            let quote = &heard[l4(&heard) + 8..];
            assert_eq!(quote, older(&reply, 1), "the server's own packet, one hop later");
        }
    }
}

#[test]
fn a_hop_is_seen() {
    for family in families() {
        for sent in probes(&family) {
            let mut nat = Nat::new(&family);
            let ttl = |packet: &[u8]| packet[if family.l3num == L3::V4 { 8 } else { 7 }];
            assert_eq!(ttl(&nat.out(&sent)), 56);
            let last = older(&sent, 56);
            let says = nat.one(INSIDE, &last, INSIDE);
            let view = Packet::parse(&says, says.len()).unwrap();
            assert_eq!((view.src, view.dst, view.ttl), (family.lan, family.client, 64));
            assert_eq!(says[l4(&says) + 8..], last);
        }
    }
}

#[test]
fn a_flood_keeps_within_the_limit_and_ends_no_connection() {
    const LIMIT: u32 = 500;
    let [family, _] = families();
    let mut nat = Nat::new(&family);
    nat.router.engine.conntrack.sysctls.table_limit = std::num::NonZeroU32::new(LIMIT);
    // A connection that both sides have used twice is ASSURED.
    let sent = probes(&family).remove(0);
    let left = nat.out(&sent);
    let at = l4(&left);
    let mut reply = vec![left[at + 2], left[at + 3], left[at], left[at + 1], 0, 8, 0, 0];
    let reply = packet(family.server, family.wan, family.l3num, proto::UDP, &std::mem::take(&mut reply));
    for _ in 0..3 {
        nat.now += 3_000_000_000;
        nat.inwards(&reply);
        nat.out(&sent);
    }
    let mut syn = probes(&family).remove(1);
    for number in 0..20_000u16 {
        put16(&mut syn, 20, number | 1);
        put16(&mut syn, 22, number / 7);
        seal(&mut syn, false);
        nat.put(INSIDE, &syn);
        assert!(nat.router.engine.conntrack.table.len() <= LIMIT as usize);
    }
    let table = &nat.router.engine.conntrack.table;
    assert!(table.counters.early_drop > 10_000, "{}", table.counters.early_drop);
    let dropped = nat.router.statistics.ended.get("conntrack.table_full").copied().unwrap_or(0);
    assert_eq!(dropped, table.counters.drop, "what found no room was counted");
    assert_eq!(nat.inwards(&reply)[8], 56, "the connection is there");
}

/// The stack leaves the checksum of its reset to a device, which comes behind NAT and writes 0 as 0xffff over IPv6 alone.
#[test]
fn a_reset_of_ipv6_never_has_checksum_0() {
    for family in families() {
        let plain = Nat::new(&family);
        let mut translated = Nat::new(&family);
        let rules = "*nat\n-A PREROUTING -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n";
        *translated.router.engine.rules_mut(family.l3num) = iptables::parse(rules, family.l3num).unwrap().rules;
        for mut nat in [plain, translated] {
            let mut checksums = [false; 0x1_0000];
            for number in 0..=u16::MAX {
                let mut tcp = vec![0x9c, 0x41, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0x10, 0x92, 0, 0, 0, 0];
                put16(&mut tcp, 6, number);
                let syn = packet(family.client, family.lan, family.l3num, proto::TCP, &tcp);
                let reset = nat.one(INSIDE, &syn, INSIDE);
                checksums[usize::from(be16(&reset, l4(&reset) + 16).unwrap())] = true;
            }
            let [first, .., last] = checksums;
            match family.l3num {
                L3::V4 => assert!(first, "a checksum of 0 was not met"),
                L3::V6 => assert!(!first && last, "0 is written as 0xffff"),
            }
        }
    }
}
