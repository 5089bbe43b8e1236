//! Traffic of hosts behind a NAT that is made up, as two captures would show it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Each test file uses a part.

use std::net::IpAddr;

use ctwhy_conform::compose::{Body, Ip, Tcp, flag, icmp, udp};
use ctwhy_core::checksum::Sum;
use ctwhy_diagnose::observe::Protocol;
use ctwhy_diagnose::report::{Finding, Report};
use ctwhy_diagnose::{Diagnosis, Limits, Observed, Side};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MS: u64 = 1_000_000;
/// When everything begins, by the clock inside.
pub(crate) const START: u64 = 1_700_000_000 * SECOND;

/// Numbers that look like chance and are the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// What the NAT of a world does with a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Rewrites packets.
    Rewrite,
    /// Has sockets of its own.
    Proxy,
    /// Has sockets of its own and answers a SYN before it has asked anybody.
    AnswerAtOnce,
    /// Rewrites packets, and hides initial sequence numbers behind others.
    HideNumbers,
}

/// The header of a packet beyond what composing knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    pub(crate) tos: u8,
}

/// A packet with a header of our own; for IPv6 the id is the flow label.
pub(crate) fn packet(src: IpAddr, dst: IpAddr, head: Head, body: impl Fn(&Ip) -> Body) -> Vec<u8> {
    let ip = Ip { id: head.id, ..Ip::between(src, dst).ttl(head.ttl) };
    let mut bytes = ip.packet(body(&ip));
    if src.is_ipv4() {
        bytes[1] = head.tos;
        bytes[10..12].fill(0);
        let sum = Sum::default().bytes(&bytes[..20]).checksum();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let word = 6u32 << 28 | u32::from(head.tos) << 20 | u32::from(head.id);
        bytes[..4].copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// Two captures being made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captures {
    pub(crate) inside: Vec<(u64, Vec<u8>)>,
    pub(crate) outside: Vec<(u64, Vec<u8>)>,
}

impl Captures {
    /// What is wrong with the captures: the clock outside is ahead by `skew` and faster by `ppm`, and of a hundred packets
    /// `loss` are missing at either side.
    pub(crate) fn spoilt(mut self, skew: i64, ppm: f64, loss: u64, dice: &mut Dice) -> Captures {
        let start = self.inside.iter().map(|(time, _)| *time).min().unwrap_or(START);
        for (time, _) in &mut self.outside {
            let drift = (*time as i64 - start as i64) as f64 * ppm / 1e6;
            *time = time.checked_add_signed(skew + drift as i64).unwrap();
        }
        for side in [&mut self.inside, &mut self.outside] {
            side.retain(|_| dice.below(100) >= loss);
        }
        self
    }

    pub(crate) fn diagnose(&self) -> Report {
        self.diagnose_within(Limits::default())
    }

    pub(crate) fn diagnose_within(&self, limits: Limits) -> Report {
        let mut diagnosis = Diagnosis::new(limits);
        for (side, packets) in [(Side::Inside, &self.inside), (Side::Outside, &self.outside)] {
            let mut packets = packets.clone();
            packets.sort_by_key(|(time, _)| *time);
            for ((time_ns, bytes), number) in packets.iter().zip(1..) {
                let wire_len = bytes.len();
                diagnosis.observe(side, &Observed { number, time_ns: *time_ns, bytes, wire_len });
            }
        }
        diagnosis.finish()
    }
}

/// What is said of a protocol by the NAT that is found, if it is one.
pub(crate) fn finding(report: &Report, protocol: Protocol) -> &Finding {
    let [nat] = report.nats.as_slice() else { panic!("{:#?}", report.nats) };
    nat.protocols.iter().find(|finding| finding.protocol == protocol).unwrap()
}

/// A client, a NAT, routers and a server.
pub(crate) struct World {
    pub(crate) client: IpAddr,
    pub(crate) public: IpAddr,
    pub(crate) server: IpAddr,
    pub(crate) router: IpAddr,
    pub(crate) tcp: Does,
    pub(crate) udp: Does,
    pub(crate) echo: Does,
    pub(crate) relays_errors: bool,
    /// Do UDP's ports stay as they are?
    pub(crate) keeps_ports: bool,
    pub(crate) dice: Dice,
    pub(crate) now: u64,
    pub(crate) captures: Captures,
    /// The identification that a host of its own would send next, and the next port that is free.
    id: u16,
    port: u16,
}

/// From one side of the NAT to the other, and from there to the server and back.
const THROUGH: u64 = 200_000;
const FAR: u64 = 20 * MS;

impl World {
    pub(crate) fn new(seed: u64, ipv6: bool, does: Does) -> World {
        let [client, public, server, router] = match ipv6 {
            false => ["192.168.1.2", "203.0.113.2", "192.0.2.80", "198.51.100.1"],
            true => ["fd00:1::2", "2001:db8:113::2", "2001:db8:2::80", "2001:db8:100::1"],
        }
        .map(|text| text.parse().unwrap());
        World {
            client,
            public,
            server,
            router,
            tcp: does,
            udp: does,
            echo: does,
            relays_errors: does == Does::Rewrite,
            keeps_ports: false,
            dice: Dice::new(seed),
            now: START,
            captures: Captures::default(),
            id: 40_000,
            port: 20_000,
        }
    }

    /// A packet of the client: inside, and what leaves outside.
    fn out(&mut self, does: Does, head: Head, body: &dyn Fn(&Ip, Side) -> Body) -> u64 {
        self.now += self.dice.below(MS);
        let inside = packet(self.client, self.server, head, |ip| body(ip, Side::Inside));
        self.captures.inside.push((self.now, inside));
        let at = self.now + THROUGH + self.dice.below(100_000);
        let left = match does {
            Does::Rewrite | Does::HideNumbers => Head { ttl: head.ttl.saturating_sub(1), ..head },
            Does::Proxy | Does::AnswerAtOnce => self.own_head(),
        };
        if left.ttl > 0 {
            let outside = packet(self.public, self.server, left, |ip| body(ip, Side::Outside));
            self.captures.outside.push((at, outside));
        }
        at
    }

    /// A packet of the server, seen outside at a time, and what arrives inside.
    fn back(&mut self, does: Does, outside_at: u64, head: Head, body: &dyn Fn(&Ip, Side) -> Body) -> u64 {
        let outside = packet(self.server, self.public, head, |ip| body(ip, Side::Outside));
        self.captures.outside.push((outside_at, outside));
        let at = outside_at + THROUGH + self.dice.below(100_000);
        let arrives = match does {
            Does::Rewrite | Does::HideNumbers => Head { ttl: head.ttl - 1, ..head },
            Does::Proxy | Does::AnswerAtOnce => self.own_head(),
        };
        self.captures.inside.push((at, packet(self.server, self.client, arrives, |ip| body(ip, Side::Inside))));
        self.now = self.now.max(at);
        at
    }

    fn own_head(&mut self) -> Head {
        self.id = self.id.wrapping_add(7);
        Head { ttl: 64, id: self.id, tos: 0 }
    }

    fn head(&mut self, ttl: u8) -> Head {
        Head { ttl, id: (self.dice.next() as u16).max(1), tos: 0x28 }
    }

    fn port(&mut self) -> u16 {
        self.port += 1;
        self.port
    }

    /// Questions and answers from one port.
    pub(crate) fn udp_talk(&mut self, rounds: usize) {
        let sport = 40_000 + self.dice.below(20_000) as u16;
        let mapped = if self.keeps_ports { sport } else { self.port() };
        for _ in 0..rounds {
            let (question, answer) = (self.dice.bytes(40), self.dice.bytes(90));
            let port = move |side| if side == Side::Inside { sport } else { mapped };
            let head = self.head(57);
            let at = self.out(self.udp, head, &|ip, side| udp(ip, port(side), 53, &question));
            let head = self.head(52);
            self.back(self.udp, at + FAR, head, &|ip, side| udp(ip, 53, port(side), &answer));
        }
    }

    /// `traceroute` with UDP: every probe from a port of its own, to a port of its own, and all carry the same.
    pub(crate) fn udp_trace(&mut self) {
        for ttl in 1..8 {
            self.probe(ttl, 33_433 + u16::from(ttl));
        }
    }

    /// A probe, and the error about it where it leaves with too small a TTL.
    pub(crate) fn probe(&mut self, ttl: u8, dport: u16) {
        let payload: Vec<u8> = (0x40..0x60).collect();
        let (sport, mapped) = (50_000 + self.dice.below(10_000) as u16, self.port());
        let port = move |side| if side == Side::Inside { sport } else { mapped };
        let head = self.head(ttl);
        let before = self.captures.outside.len();
        let at = self.out(self.udp, head, &|ip, side| udp(ip, port(side), dport, &payload));
        if let (Some((_, sent)), Some((_, original))) = (self.captures.outside.get(before), self.captures.inside.last())
        {
            let (sent, original) = (sent.clone(), original.clone());
            if ttl < 6 {
                self.error(at + u64::from(ttl) * MS, &sent, &original);
            }
        }
    }

    /// Time exceeded about a packet that left, and, where errors are relayed, about the one that came.
    pub(crate) fn error(&mut self, at: u64, sent: &[u8], original: &[u8]) {
        let outside = time_exceeded(self.router, self.public, 62, sent, |bytes| bytes);
        self.captures.outside.push((at, outside.clone()));
        if self.relays_errors {
            let original = original.to_vec();
            let inside = time_exceeded(self.router, self.client, 61, &quoted_ttl(sent, &original), |bytes| bytes);
            self.captures.inside.push((at + THROUGH, inside));
        }
        self.now = self.now.max(at + THROUGH);
    }

    /// Echo requests and replies.
    pub(crate) fn ping(&mut self, count: u16) {
        let (id, mapped) = (self.dice.next() as u16, self.port());
        let port = move |side| if side == Side::Inside { id } else { mapped };
        for seq in 1..=count {
            let data = self.dice.bytes(56);
            let message = move |ip: &Ip, request: bool, id: u16| {
                let icmp_type = match (ip.src.is_ipv4(), request) {
                    (true, true) => 8,
                    (true, false) => 0,
                    (false, true) => 128,
                    (false, false) => 129,
                };
                let [i0, i1] = id.to_be_bytes();
                let [s0, s1] = seq.to_be_bytes();
                icmp(ip, icmp_type, 0, [i0, i1, s0, s1], &data)
            };
            let head = self.head(64);
            let at = self.out(self.echo, head, &|ip, side| message(ip, true, port(side)));
            let head = self.head(53);
            self.back(self.echo, at + FAR, head, &|ip, side| message(ip, false, port(side)));
            self.now += 100 * MS;
        }
    }

    /// A connection with data in both directions.
    pub(crate) fn connection(&mut self, answered: bool) {
        let does = self.tcp;
        let (sport, mapped) = (30_000 + self.dice.below(9_000) as u16, self.port());
        let proxy = matches!(does, Does::Proxy | Does::AnswerAtOnce);
        let [mine, yours] = [self.dice.next() as u32, self.dice.next() as u32];
        let hidden = does != Does::Rewrite;
        let others = if hidden { [self.dice.next() as u32, self.dice.next() as u32] } else { [mine, yours] };
        let numbers = move |side| if side == Side::Inside { [mine, yours] } else { others };
        let mss = |mss: u16| [&[2u8, 4][..], &mss.to_be_bytes()].concat();
        let syn_options = move |side| match (side, proxy) {
            (Side::Outside, true) => [mss(1460), vec![4, 2, 1, 1]].concat(),
            _ => [mss(1400), vec![1, 3, 3, 9, 4, 2, 1, 1]].concat(),
        };
        let segment = move |out: bool, side, seq: u32, ack: u32, flags: u8, data: &[u8]| {
            let port = if side == Side::Inside { sport } else { mapped };
            let [client, server] = numbers(side);
            let (sport, dport) = if out { (port, 80) } else { (80, port) };
            let (seq, acked) =
                if out { (client.wrapping_add(seq), server) } else { (server.wrapping_add(seq), client) };
            let ack = if flags & flag::ACK == 0 { 0 } else { acked.wrapping_add(ack) };
            let options = if flags & flag::SYN == 0 { Vec::new() } else { syn_options(side) };
            let window = if side == Side::Outside && proxy { 65_000 } else { 4242 };
            Tcp { sport, dport, seq, ack, flags, window, options, payload: data.to_vec() }
        };
        let syn = self.head(57);
        let at = self.out(does, syn, &|ip, side| segment(true, side, 0, 0, flag::SYN, &[]).body(ip));
        if does == Does::AnswerAtOnce {
            let early = self.own_head();
            let bytes = packet(self.server, self.client, early, |ip| {
                segment(false, Side::Inside, 0, 1, flag::SYN | flag::ACK, &[]).body(ip)
            });
            self.captures.inside.push((at, bytes));
        }
        if !answered {
            return;
        }
        let head = self.head(52);
        if does == Does::AnswerAtOnce {
            let bytes = packet(self.server, self.public, head, |ip| {
                segment(false, Side::Outside, 0, 1, flag::SYN | flag::ACK, &[]).body(ip)
            });
            self.captures.outside.push((at + FAR, bytes));
            self.now = at + FAR;
        } else {
            self.back(does, at + FAR, head, &|ip, side| {
                segment(false, side, 0, 1, flag::SYN | flag::ACK, &[]).body(ip)
            });
        }
        let head = self.head(57);
        self.out(does, head, &|ip, side| segment(true, side, 1, 1, flag::ACK, &[]).body(ip));
        let (mut sent, mut got) = (1, 1);
        for _ in 0..3 {
            let (question, answer) = (self.dice.bytes(300), self.dice.bytes(700));
            let head = self.head(57);
            let at = self
                .out(does, head, &|ip, side| segment(true, side, sent, got, flag::ACK | flag::PSH, &question).body(ip));
            sent += 300;
            let head = self.head(52);
            self.back(does, at + FAR, head, &|ip, side| {
                segment(false, side, got, sent, flag::ACK | flag::PSH, &answer).body(ip)
            });
            got += 700;
        }
        let head = self.head(57);
        self.out(does, head, &|ip, side| segment(true, side, sent, got, flag::ACK | flag::FIN, &[]).body(ip));
    }

    /// Some of everything.
    pub(crate) fn busy(&mut self) {
        for _ in 0..4 {
            self.udp_talk(3);
            self.connection(true);
            self.udp_trace();
        }
        self.ping(8);
        self.ping(2);
    }

    /// What has nothing to do with the NAT: at each side another host talks to the same server, and asks the same things.
    pub(crate) fn noise(&mut self) {
        let (captures, now) = (self.captures.clone(), self.now);
        let hosts = match self.client.is_ipv6() {
            false => ["192.168.1.77", "203.0.113.77"],
            true => ["fd00:1::77", "2001:db8:113::77"],
        };
        for (side, host) in [Side::Inside, Side::Outside].into_iter().zip(hosts) {
            let mut other = World::new(self.dice.next(), self.client.is_ipv6(), Does::Rewrite);
            other.client = host.parse().unwrap();
            other.public = other.client;
            other.now += 100 * MS + self.dice.below(SECOND);
            other.busy();
            match side {
                Side::Inside => self.captures.inside.extend(other.captures.inside),
                Side::Outside => {
                    let own = other.captures.outside;
                    self.captures.outside.extend(own);
                }
            }
        }
        assert!(self.captures.inside.len() > captures.inside.len());
        self.now = now;
    }

    /// Something behind all that is looked at.
    pub(crate) fn end(&mut self) {
        self.now += SECOND;
        self.ping(3);
    }
}

/// A packet with the TTL (and header checksum) that another has.
fn quoted_ttl(like: &[u8], original: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    if bytes[0] >> 4 == 4 {
        bytes[8] = like[8];
        bytes[10..12].fill(0);
        let sum = Sum::default().bytes(&bytes[..20]).checksum();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        bytes[7] = like[7];
    }
    bytes
}

/// Time exceeded about a packet, changed by `change` before its checksum is made.
pub(crate) fn time_exceeded(
    from: IpAddr,
    to: IpAddr,
    ttl: u8,
    quoted: &[u8],
    change: impl Fn(Vec<u8>) -> Vec<u8>,
) -> Vec<u8> {
    let ip = Ip::between(from, to).ttl(ttl);
    let icmp_type = if from.is_ipv4() { 11 } else { 3 };
    ip.packet(icmp(&ip, icmp_type, 0, [0; 4], &change(quoted.to_vec())))
}
