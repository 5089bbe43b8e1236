//! All of it through NAT: hosts that begin flows, and hosts that answer what reached them.
//!
//! An answer is made from the packet as it left the box, the way a host makes it, so nobody here has to know what NAT
//! chose.

use std::net::IpAddr;

use ctwhy_core::packet::{Packet, be16, be32};
use ctwhy_core::tuple::{L3, proto};

use super::{Hosts, Mood, dress, errors, on, rest, sctp};
use crate::compose::{self, Body, Echo, Ip, Tcp, flag};
use crate::fuzz::chance::Chance;
use crate::fuzz::episode::{Around, Generator};
use crate::fuzz::window::{Arrival, Port};

/// Both sides of a NAT.
pub(crate) struct Translated {
    pub(crate) hosts: Hosts,
    pub(crate) mood: Mood,
    /// How many packets of a hundred are errors.
    pub(crate) errors: usize,
    /// How many flows of a hundred from behind `lan` go to an address that the box translates.
    pub(crate) inward: usize,
}

impl Translated {
    /// A bit of everything.
    pub(crate) const fn new(family: L3, mood: Mood) -> Translated {
        Translated { hosts: Hosts { family }, mood, errors: 20, inward: 5 }
    }
}

/// Addresses behind which the rules have somebody.
pub(crate) const VIRTUALS: usize = 3;

impl Hosts {
    /// An address that the box translates.
    pub(crate) fn virtual_address(self, number: usize) -> IpAddr {
        let number = 1 + number as u8;
        self.address([198, 51, 100, number], [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, u16::from(number)])
    }
}

impl Generator for Translated {
    fn next(&mut self, around: &mut Around<'_>) -> Arrival {
        let Translated { hosts, mood, errors, .. } = *self;
        let made = if around.chance.percent(errors) {
            errors::packet(hosts, mood, around)
        } else if around.chance.percent(75) {
            answer(hosts, mood, around)
        } else {
            None
        };
        made.unwrap_or_else(|| self.begin(around.chance))
    }
}

impl Translated {
    /// The first packet of a flow.
    fn begin(&self, chance: &mut Chance) -> Arrival {
        let Translated { hosts, mood, inward, .. } = *self;
        let port = if chance.percent(65) { Port::Lan } else { Port::Wan };
        let (client, server) = (hosts.client(chance.below(8)), hosts.server(chance.below(4)));
        let ip = match (port, chance.below(20)) {
            (Port::Lan, _) if chance.percent(inward) => {
                Ip::between(client, hosts.virtual_address(chance.below(VIRTUALS)))
            }
            (Port::Lan, 0) => Ip::between(client, hosts.own(Port::Lan)),
            (Port::Lan, _) => Ip::between(client, server),
            (Port::Wan, 0..=9) => Ip::between(server, hosts.virtual_address(chance.below(VIRTUALS))),
            (Port::Wan, 10..=15) => Ip::between(server, hosts.own(Port::Wan)),
            (Port::Wan, _) => Ip::between(server, client),
        };
        // Many ports, so that most flows keep theirs, and a few that everybody wants.
        let sport = match chance.below(4) {
            0 => chance.pick(&[0, 1, 511, 512, 1023, 1024, 5353, 65_535]),
            _ => 32_768 + chance.below(4096) as u16,
        };
        let dport = chance.pick(&[53, 80, 443, 8080]);
        let body = match chance.below(14) {
            0..=4 => {
                let flags = if chance.one_in(10) { flag::ACK } else { flag::SYN };
                let (seq, ack) = (chance.u32(), if flags == flag::ACK { chance.u32() } else { 0 });
                let options = if chance.percent(50) { vec![2, 4, 5, 0xb4, 4, 2, 1, 1, 1, 3, 3, 7] } else { Vec::new() };
                Tcp { sport, dport, seq, ack, flags, window: 64_240, options, payload: Vec::new() }.body(&ip)
            }
            5..=8 => {
                let datagram = compose::udp(&ip, sport, dport, &vec![0x55; chance.pick(&[0, 1, 4, 100])]);
                if chance.one_in(10) { datagram.with(6, 0).with(7, 0) } else { datagram }
            }
            9..=10 => {
                let other = chance.u16();
                let id = chance.pick(&[0, 1, 2, 0xffff, other]);
                compose::echo(&ip, Echo::Request, id, 1)
            }
            11 => sctp::init(sport, dport, port),
            12 => rest::udplite(chance, mood, &ip, port),
            _ if chance.percent(50) => rest::gre(chance),
            _ => rest::unknown(chance),
        };
        let packet = dress(chance, ip, body);
        on(port, packet)
    }
}

/// What a host says to a packet that reached it.
fn answer(hosts: Hosts, mood: Mood, around: &mut Around<'_>) -> Option<Arrival> {
    let passed = around.recent.any(around.chance)?;
    let chance = &mut *around.chance;
    let packet = Packet::parse(&passed.left, passed.left.len()).ok()?;
    if packet.l3num != hosts.family {
        return None;
    }
    let transport = packet.transport.ok()?;
    let l4 = packet.bytes.get(transport.offset..)?;
    let ip = Ip::between(packet.dst.ip(packet.l3num), packet.src.ip(packet.l3num));
    let stray = chance.percent(if mood == Mood::Wild { 25 } else { 4 });
    let body = match transport.protonum {
        proto::TCP => tcp(chance, stray, &ip, l4)?,
        proto::UDP => {
            let payload = vec![0x56; chance.pick(&[0, 1, 4, 100])];
            compose::udp(&ip, be16(l4, 2)?, be16(l4, 0)?, &payload)
        }
        proto::ICMP | proto::ICMPV6 => {
            let reply = match (packet.l3num, *l4.first()?) {
                (L3::V4, 8) => 0,
                (L3::V6, 128) => 129,
                (_, other) => other,
            };
            let word = <[u8; 4]>::try_from(l4.get(4..8)?).ok()?;
            compose::icmp(&ip, reply, *l4.get(1)?, word, l4.get(8..)?)
        }
        proto::SCTP => sctp::answer(l4, passed.left_by)?,
        proto::UDPLITE => {
            // Swapping addresses and ports leaves the sum as it is.
            let mut bytes = l4.to_vec();
            bytes.get_mut(..4)?.rotate_left(2);
            Body::new(proto::UDPLITE, bytes)
        }
        other => Body::new(other, l4),
    };
    let mut body = body;
    if stray && chance.one_in(6) {
        super::flip(chance, &mut body);
    }
    let port = if stray && chance.one_in(12) { passed.left_by.other() } else { passed.left_by };
    let packet = dress(chance, ip, body);
    Some(on(port, packet))
}

/// The segment that answers a segment.
fn tcp(chance: &mut Chance, stray: bool, ip: &Ip, theirs: &[u8]) -> Option<Body> {
    const SYN_ACK: u8 = flag::SYN | flag::ACK;
    const FIN_ACK: u8 = flag::FIN | flag::ACK;
    const RST_ACK: u8 = flag::RST | flag::ACK;
    let (seq, ack) = (be32(theirs, 4)?, be32(theirs, 8)?);
    let said = *theirs.get(13)?;
    let data = theirs.len().saturating_sub(usize::from(theirs.get(12)? >> 4) * 4) as u32;
    let end = seq.wrapping_add(data + u32::from(said & flag::SYN != 0) + u32::from(said & flag::FIN != 0));
    let flags = match said & (flag::SYN | flag::ACK | flag::FIN | flag::RST) {
        flag::SYN => chance.pick(&[SYN_ACK, SYN_ACK, SYN_ACK, SYN_ACK, SYN_ACK, SYN_ACK, RST_ACK, flag::SYN]),
        SYN_ACK => chance.pick(&[flag::ACK, flag::ACK, flag::ACK, flag::ACK, flag::ACK, flag::RST]),
        FIN_ACK => chance.pick(&[flag::ACK, FIN_ACK, FIN_ACK, RST_ACK]),
        said if said & flag::RST != 0 => chance.pick(&[flag::ACK, flag::SYN, flag::RST]),
        _ => {
            chance.pick(&[flag::ACK, flag::ACK, flag::ACK, flag::ACK, flag::ACK, FIN_ACK, FIN_ACK, RST_ACK, flag::SYN])
        }
    };
    let fresh = chance.u32();
    let near = |chance: &mut Chance| {
        if stray { chance.pick(&[0, 0, 1, u32::MAX, 1000, 70_000, 0x8000_0000]) } else { 0 }
    };
    let mine = if said & flag::ACK != 0 { ack } else { fresh };
    let payload = match flags {
        flag::ACK => vec![0x42; chance.pick(&[0, 0, 1, 10, 100])],
        _ => Vec::new(),
    };
    let segment = Tcp {
        sport: be16(theirs, 2)?,
        dport: be16(theirs, 0)?,
        seq: mine.wrapping_add(near(chance)),
        ack: if flags & flag::ACK != 0 { end.wrapping_add(near(chance)) } else { 0 },
        flags,
        window: chance.pick(&[64_240, 64_240, 1000, 0]),
        options: Vec::new(),
        payload,
    };
    Some(segment.body(ip))
}
