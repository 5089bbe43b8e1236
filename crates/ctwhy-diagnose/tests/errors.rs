//! What becomes of ICMP errors, one defect at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::net::IpAddr;

use common::{Captures, Does, Head, MS, World, packet};
use ctwhy_conform::compose::{Ip, icmp, udp};
use ctwhy_core::checksum::Sum;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::packet::Packet;
use ctwhy_core::tuple::proto;
use ctwhy_diagnose::Side;
use ctwhy_diagnose::errors::{Fate, Field, Judged, Why};
use ctwhy_diagnose::report::Report;

/// One flow through a NAT that rewrites packets, of which one packet did not get far.
struct Scene {
    world: World,
    /// The packet that died, as the client sent it and as it left.
    sent: Vec<u8>,
    left: Vec<u8>,
}

const CLIENT_PORT: u16 = 40_000;
const MAPPED: u16 = 50_000;

impl Scene {
    fn new(ipv6: bool) -> Scene {
        let mut world = World::new(1, ipv6, Does::Rewrite);
        world.udp_talk(3);
        let payload = [0xa5; 64];
        let head = Head { ttl: 9, id: 0x4321, tos: 0 };
        let sent = packet(world.client, world.server, head, |ip| udp(ip, CLIENT_PORT, 33_434, &payload));
        let left = packet(world.public, world.server, Head { ttl: 8, ..head }, |ip| udp(ip, MAPPED, 33_434, &payload));
        world.captures.inside.push((world.now, sent.clone()));
        world.captures.outside.push((world.now + MS, left.clone()));
        Scene { world, sent, left }
    }

    /// A packet as it is quoted by who had no TTL left for it.
    fn spent(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if bytes[0] >> 4 == 4 {
            bytes[8] = 1;
            fix_header(&mut bytes);
        } else {
            bytes[7] = 1;
        }
        bytes
    }

    /// An error outside, and perhaps one inside: type and code, the four bytes behind the checksum, what is quoted.
    fn errors(mut self, outside: Message<'_>, inside: Option<Message<'_>>) -> Report {
        let at = self.world.now + 5 * MS;
        self.world.captures.outside.push((at, outside.packet(self.world.router, self.world.public, 62)));
        if let Some(inside) = inside {
            let from = inside.from.unwrap_or(self.world.router);
            self.world.captures.inside.push((at + MS, inside.packet(from, self.world.client, 61)));
        }
        self.world.now = at;
        self.world.end();
        self.world.captures.diagnose()
    }
}

/// An ICMP message.
#[derive(Clone)]
struct Message<'a> {
    kind: (u8, u8),
    word: [u8; 4],
    quote: &'a [u8],
    from: Option<IpAddr>,
    spoil_checksum: bool,
}

impl<'a> Message<'a> {
    fn exceeded(quote: &'a [u8]) -> Message<'a> {
        let kind = if quote[0] >> 4 == 4 { (11, 0) } else { (3, 0) };
        Message { kind, word: [0; 4], quote, from: None, spoil_checksum: false }
    }

    fn packet(&self, from: IpAddr, to: IpAddr, ttl: u8) -> Vec<u8> {
        let ip = Ip::between(from, to).ttl(ttl);
        let mut body = icmp(&ip, self.kind.0, self.kind.1, self.word, self.quote);
        if self.spoil_checksum {
            body.bytes[2] ^= 0x55;
        }
        ip.packet(body)
    }
}

fn fix_header(bytes: &mut [u8]) {
    bytes[10..12].fill(0);
    let sum = Sum::default().bytes(&bytes[..20]).checksum();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The one error that was judged.
fn only(report: &Report) -> &Judged {
    let [error] = report.errors.judged.as_slice() else { panic!("{:#?}", report.errors) };
    error
}

fn fields(error: &Judged) -> Vec<Field> {
    error.differences.iter().map(|difference| difference.field).collect()
}

/// A UDP datagram as a host captures what it sends itself where its device finishes checksums.
fn begun(bytes: &mut [u8]) {
    let packet = Packet::parse(bytes, bytes.len()).unwrap();
    let (offset, length) = (packet.transport.unwrap().offset, bytes.len() - packet.transport.unwrap().offset);
    let sum = Sum::default().pseudo_header(packet.l3num, packet.src, packet.dst, proto::UDP, length).fold();
    bytes[offset + 6..offset + 8].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_checksum_that_a_device_finishes_is_not_held_against_the_nat() {
    for ipv6 in [false, true] {
        for side in [Side::Inside, Side::Outside] {
            let scene = |wrong| {
                let mut scene = Scene::new(ipv6);
                let (left, mut sent) = (Scene::spent(&scene.left), Scene::spent(&scene.sent));
                let captures = &mut scene.world.captures;
                let packets = if side == Side::Inside { &mut captures.inside } else { &mut captures.outside };
                begun(&mut packets.last_mut().unwrap().1);
                let checksum = if ipv6 { 46 } else { 26 };
                sent[checksum] ^= wrong;
                scene.errors(Message::exceeded(&left), Some(Message::exceeded(&sent)))
            };
            assert_eq!(only(&scene(0)).fate, Fate::Relayed, "{side}");
            let wrong = scene(0x55);
            assert_eq!((only(&wrong).fate, fields(only(&wrong))), (Fate::Mistranslated, vec![Field::QuotedChecksum]));
        }
    }
}

#[test]
fn what_is_translated_rightly_is_relayed() {
    for ipv6 in [false, true] {
        let scene = Scene::new(ipv6);
        let (left, sent) = (Scene::spent(&scene.left), Scene::spent(&scene.sent));
        let report = scene.errors(Message::exceeded(&left), Some(Message::exceeded(&sent)));
        let error = only(&report);
        assert_eq!((error.fate, error.seen, fields(error)), (Fate::Relayed, Side::Outside, vec![]), "{error:#?}");
        let linux = error.linux.as_ref().unwrap();
        assert_eq!(linux.ctinfo, Ok(CtInfo::RelatedReply));
        assert!(linux.is_delivered());
        // Byte for byte what came out, the TTL aside.
        assert_eq!(linux.bytes, error.came_out.as_ref().unwrap().bytes);
    }
}

#[test]
fn what_does_not_come_out_is_swallowed_and_linux_would_have_delivered_it() {
    let scene = Scene::new(false);
    let client = scene.world.client;
    let left = Scene::spent(&scene.left);
    let report = scene.errors(Message::exceeded(&left), None);
    let error = only(&report);
    assert_eq!(error.fate, Fate::Swallowed);
    let flow = error.flow.unwrap();
    assert_eq!((flow.src_ip(), flow.src_u), (client, CLIENT_PORT));
    let linux = error.linux.as_ref().unwrap();
    let delivered = ctwhy_core::packet::Packet::parse(&linux.bytes, linux.bytes.len()).unwrap();
    assert_eq!(delivered.dst.ip(delivered.l3num), client);
    let words: Vec<String> = linux.steps.iter().map(ToString::to_string).collect();
    assert!(
        words.iter().any(|step| step.contains("nat: quoted source 203.0.113.2:50000 => 192.168.1.2:40000")),
        "{words:#?}"
    );
}

#[test]
fn each_mistake_in_a_translation_is_named() {
    let whole = Scene::new(false);
    let (left, sent) = (Scene::spent(&whole.left), Scene::spent(&whole.sent));
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sent.clone();
        change(&mut bytes);
        fix_header(&mut bytes);
        bytes
    };
    let zero_id = changed(&|bytes| bytes[4..6].fill(0));
    let address_only = changed(&|bytes| bytes[20..22].copy_from_slice(&MAPPED.to_be_bytes()));
    let wrong_payload = changed(&|bytes| bytes[40] ^= 1);
    let checksum = changed(&|bytes| bytes[26] ^= 0x40);
    let length = changed(&|bytes| bytes[3] -= 8);
    let mut header = sent.clone();
    header[10] ^= 1;
    let cases: [(&[u8], Field); 7] = [
        (&zero_id, Field::QuotedId),
        (&address_only, Field::QuotedSource),
        (&left, Field::QuotedSource),
        (&wrong_payload, Field::QuotedBytes),
        (&checksum, Field::QuotedChecksum),
        (&length, Field::QuotedLength),
        (&header, Field::QuotedHeaderChecksum),
    ];
    for (quote, field) in cases {
        let report = Scene::new(false).errors(Message::exceeded(&left), Some(Message::exceeded(quote)));
        let error = only(&report);
        assert_eq!(error.fate, Fate::Mistranslated, "{field:?} {error:#?}");
        assert!(fields(error).contains(&field), "{field:?} {:#?}", error.differences);
    }
    let spoilt = Message { spoil_checksum: true, ..Message::exceeded(&sent) };
    let error_of = |inside| {
        let report = Scene::new(false).errors(Message::exceeded(&left), Some(inside));
        let error = only(&report);
        (error.fate, fields(error))
    };
    assert_eq!(error_of(spoilt), (Fate::Mistranslated, vec![Field::Checksum]));
    let other_source = Message { from: Some("192.168.1.1".parse().unwrap()), ..Message::exceeded(&sent) };
    assert_eq!(error_of(other_source), (Fate::Mistranslated, vec![Field::Source]));
    let other_code = Message { kind: (11, 1), ..Message::exceeded(&sent) };
    assert_eq!(error_of(other_code), (Fate::Mistranslated, vec![Field::Code]));
    // What a sender does not look at.
    let ttl = changed(&|bytes| bytes[8] = 3);
    assert_eq!(error_of(Message::exceeded(&ttl)), (Fate::Altered, vec![Field::QuotedTtl]));
    assert_eq!(error_of(Message::exceeded(&sent[..36])), (Fate::Altered, vec![Field::QuoteLength]));
}

#[test]
fn an_mtu_that_becomes_another_is_named() {
    for (ipv6, mtu) in [(false, 1200u32), (true, 1280)] {
        let scene = Scene::new(ipv6);
        let (left, sent) = (scene.left.clone(), scene.sent.clone());
        let told = |mtu: u32| if ipv6 { mtu.to_be_bytes() } else { (mtu & 0xffff).to_be_bytes() };
        let kind = if ipv6 { (2, 0) } else { (3, 4) };
        let message = |mtu, quote| Message { kind, word: told(mtu), ..Message::exceeded(quote) };
        // One hop later the packet had the TTL that is in the quote.
        let mut sent = sent;
        let at = if ipv6 { 7 } else { 8 };
        sent[at] = left[at];
        if !ipv6 {
            fix_header(&mut sent);
        }
        let report = scene.errors(message(mtu, &left), Some(message(13_752, &sent)));
        let error = only(&report);
        assert_eq!((error.fate, fields(error)), (Fate::Mistranslated, vec![Field::Mtu]));
        assert_eq!(
            (error.differences[0].expected.as_str(), error.differences[0].found.as_str()),
            (mtu.to_string().as_str(), "13752")
        );
    }
}

#[test]
fn an_rfc_4884_extension_that_is_lost_is_named() {
    let scene = Scene::new(false);
    let padded = |bytes: &[u8]| {
        let mut bytes = Scene::spent(bytes);
        bytes.resize(128, 0);
        bytes.extend([0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0, 1, 2, 3]);
        bytes
    };
    let (left, sent) = (padded(&scene.left), padded(&scene.sent));
    let word = [0, 32, 0, 0];
    let with = |quote| Message { word, ..Message::exceeded(quote) };
    let same = Scene::new(false).errors(with(&left), Some(with(&sent)));
    assert_eq!(only(&same).fate, Fate::Relayed, "{:#?}", only(&same).differences);
    let lost = scene.errors(with(&left), Some(Message::exceeded(&sent[..92])));
    let error = only(&lost);
    assert_eq!(error.fate, Fate::Mistranslated);
    assert!(fields(error).contains(&Field::Extension), "{:#?}", error.differences);
}

#[test]
fn what_linux_refuses_may_stay_away_but_not_come_out() {
    let scene = Scene::new(false);
    let (left, sent) = (Scene::spent(&scene.left), Scene::spent(&scene.sent));
    let spoilt = Message { spoil_checksum: true, ..Message::exceeded(&left) };
    let report = Scene::new(false).errors(spoilt.clone(), None);
    assert_eq!(only(&report).fate, Fate::Refused);
    let report = scene.errors(spoilt, Some(Message::exceeded(&sent)));
    assert_eq!(only(&report).fate, Fate::LetThrough);
}

#[test]
fn what_the_captures_do_not_show_is_not_judged() {
    // About a flow that nobody saw.
    let scene = Scene::new(false);
    let stranger =
        packet(scene.world.public, scene.world.server, Head { ttl: 1, id: 7, tos: 0 }, |ip| udp(ip, 1, 2, b"x"));
    let report = scene.errors(Message::exceeded(&stranger), None);
    // Neither judged nor held against anybody.
    assert!(report.errors.judged.is_empty());
    assert_eq!(report.errors.unexplained, 1);
    // The capture inside ended before it could have come.
    let scene = Scene::new(false);
    let left = Scene::spent(&scene.left);
    let mut world = scene.world;
    let at = world.now + 5 * MS;
    let (router, public) = (world.router, world.public);
    world.captures.outside.push((at, Message::exceeded(&left).packet(router, public, 62)));
    let report = world.captures.diagnose();
    assert_eq!(only(&report).fate, Fate::Unjudged(Why::NotCovered));
}

#[test]
fn errors_of_the_hidden_host_are_followed_out() {
    for relayed in [true, false] {
        let mut world = World::new(9, false, Does::Rewrite);
        world.udp_talk(2);
        // The last answer found no socket any more.
        let (_, inside) = world.captures.inside.last().cloned().unwrap();
        let (_, outside) = world.captures.outside.last().cloned().unwrap();
        let error =
            |from, to, ttl, quote: &[u8]| Message { kind: (3, 3), ..Message::exceeded(quote) }.packet(from, to, ttl);
        let (client, server, public) = (world.client, world.server, world.public);
        let at = world.now + MS;
        // The quote has the TTL that the packet arrived with.
        let mut quote = outside;
        quote[8] = inside[8];
        fix_header(&mut quote);
        world.captures.inside.push((at, error(client, server, 64, &inside)));
        if relayed {
            world.captures.outside.push((at + MS, error(public, server, 63, &quote)));
        }
        world.now = at;
        world.end();
        let report = world.captures.diagnose();
        let error = only(&report);
        assert_eq!(error.seen, Side::Inside);
        assert_eq!(error.linux.as_ref().unwrap().ctinfo, Ok(CtInfo::Related));
        assert_eq!(error.fate, if relayed { Fate::Relayed } else { Fate::Swallowed }, "{:#?}", error.differences);
    }
}

#[test]
fn the_nats_own_errors_are_told_apart() {
    let mut world = World::new(17, false, Does::Rewrite);
    world.udp_talk(2);
    world.probe(1, 33_434);
    let (_, probe) = world.captures.inside.last().cloned().unwrap();
    let nat: IpAddr = "192.168.1.1".parse().unwrap();
    let bytes = Message::exceeded(&probe).packet(nat, world.client, 64);
    world.captures.inside.push((world.now + MS, bytes));
    world.end();
    let report = world.captures.diagnose();
    let [own] = report.errors.own.as_slice() else { panic!("{:#?}", report.errors) };
    assert_eq!((own.seen, own.quoted_went_on, own.error.source()), (Side::Inside, false, Some(nat)));
    assert!(report.errors.judged.is_empty());
}

#[test]
fn a_single_error_that_is_missing_among_many_is_not_held_against_the_nat() {
    let mut world = World::new(19, false, Does::Rewrite);
    world.udp_talk(2);
    world.udp_trace();
    world.end();
    let mut captures: Captures = world.captures.clone();
    let at = captures.inside.iter().position(|(_, bytes)| bytes[9] == 1 && bytes[20] == 11).unwrap();
    captures.inside.remove(at);
    let report = captures.diagnose();
    assert_eq!(report.fated(|fate| fate == Fate::Missing), 1);
    assert_eq!(report.fated(Fate::is_amiss), 0);
}
