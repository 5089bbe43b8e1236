//! What live mode builds on: an accepted packet's whole way through the machine is over when the verdict is sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::io;
use std::net::IpAddr;

use common::*;
use ctwhy_linux::ctnetlink::{Event, EventKind, Events, L4, status};
use ctwhy_linux::lab::Lab;
use ctwhy_linux::nflog::{LogEvent, Logged, Nflog};
use ctwhy_linux::queue::{Hook, MnlQueue, NfqQueue, PacketQueue, QueueConfig, Queued, Verdict};
use ctwhy_linux::rules::{CtState, Installed, LOG_INPUT, LOG_POSTROUTING, MarkBits, RuleSet};
use ctwhy_linux::testing::require_lab;

const MASQUERADE: &str = "*nat\n-A POSTROUTING -o right -j MASQUERADE\nCOMMIT\n";

/// Fills a packet up to the MTU.
const DATA: [u8; 1472] = [0x5a; 1472];

struct Live {
    queue: Box<dyn PacketQueue + Send>,
    events: Events,
    log: Nflog,
    _installed: Installed,
}

type Opener = fn(&QueueConfig) -> io::Result<Box<dyn PacketQueue + Send>>;

fn live(lab: &Lab, open: Opener) -> Live {
    let rules = RuleSet { log_group: Some(3), ..RuleSet::new(7) };
    let opened = lab.in_node("middle", || {
        let log = Nflog::open(3, 1 << 20)?;
        let events = Events::open(1 << 20)?;
        let queue = open(&QueueConfig::new(7))?;
        Ok::<_, io::Error>(Live { queue, events, log, _installed: rules.install()? })
    });
    opened.unwrap().unwrap()
}

/// The next packet from `left` or `right`. Neighbour discovery, which conntrack leaves untracked, goes on at once.
fn next(live: &mut Live) -> Queued {
    loop {
        let packet = live.queue.recv().unwrap().unwrap();
        if MarkBits::default().decode(packet.mark) != Some(CtState::Untracked) {
            return packet;
        }
        live.queue.verdict(packet.id, Verdict::ACCEPT).unwrap();
        readable(live);
    }
}

/// Everything that is readable now, without waiting; neighbour discovery left out.
fn readable(live: &mut Live) -> (Vec<(EventKind, ctwhy_linux::ctnetlink::Entry)>, Vec<Logged>) {
    let (mut events, mut copies) = (Vec::new(), Vec::new());
    while let Some(event) = live.events.recv().unwrap() {
        let Event::Entry(kind, entry) = event else { panic!("events lost") };
        events.push((kind, *entry));
    }
    while let Some(event) = live.log.recv().unwrap() {
        let LogEvent::Packet(copy) = event else { panic!("copies lost") };
        let is_discovery = copy.hw_protocol == 0x86dd && !matches!(copy.payload[40], 128 | 129);
        if !is_discovery {
            copies.push(copy);
        }
    }
    (events, copies)
}

#[test]
fn event_and_copy_are_there_when_the_verdict_returns() {
    if !require_lab() {
        return;
    }
    let consumers: [Opener; 2] =
        [|config| Ok(Box::new(NfqQueue::open(config)?)), |config| Ok(Box::new(MnlQueue::open(config)?))];
    for open in consumers {
        let lab = small_lab(MASQUERADE, MASQUERADE);
        resolve_neighbours(&lab);
        // Nobody answers but the test.
        run(&lab, "right", "iptables -A INPUT -p udp -j DROP");
        run(&lab, "left", "iptables -A INPUT -p udp -j DROP");
        let mut live = live(&lab, open);
        let bits = MarkBits::default();
        let from_left = lab.injector("middle", "left").unwrap();
        let from_right = lab.injector("middle", "right").unwrap();

        // The first packet of a flow: nothing before the verdict, everything after it.
        for port in 4000..4200 {
            from_left.inject(&udp(LEFT, RIGHT, port, 9, &DATA)).unwrap();
            let packet = next(&mut live);
            assert_eq!((packet.hook, bits.decode(packet.mark)), (Hook::Prerouting, Some(CtState::New)));
            assert_eq!(readable(&mut live), (vec![], vec![]));
            live.queue.verdict(packet.id, Verdict { mark: Some(0), ..Verdict::ACCEPT }).unwrap();
            let (events, copies) = readable(&mut live);
            let [(EventKind::New, entry)] = &events[..] else { panic!("{events:?}") };
            assert_eq!(entry.orig.l4, L4::Ports { sport: port, dport: 9 });
            assert_eq!(entry.reply.dst, IpAddr::from([10, 0, 2, 1]));
            assert_eq!(entry.status & (status::CONFIRMED | status::SRC_NAT), status::CONFIRMED | status::SRC_NAT);
            let [copy] = &copies[..] else { panic!("{copies:?}") };
            assert_eq!((copy.hook, copy.prefix.as_str(), copy.mark), (Hook::Postrouting, LOG_POSTROUTING, 0));
            // Behind source NAT: the copy has the new source.
            assert_eq!(copy.payload[12..16], [10, 0, 2, 1]);
            assert_eq!(copy.payload[28..], DATA);

            // The reply: an UPDATE.
            let reply = udp(RIGHT, [10, 0, 2, 1], 9, port, b"back");
            from_right.inject(&reply).unwrap();
            let packet = next(&mut live);
            assert_eq!(bits.decode(packet.mark), Some(CtState::EstablishedReply));
            live.queue.verdict(packet.id, Verdict::ACCEPT).unwrap();
            let (events, copies) = readable(&mut live);
            let [(EventKind::Update, entry)] = &events[..] else { panic!("{events:?}") };
            assert_ne!(entry.status & status::SEEN_REPLY, 0);
            assert_eq!(copies.len(), 1);
            assert_eq!(copies[0].payload[16..20], [10, 0, 1, 2]);

            // Nothing changes any more: a copy, no event.
            from_left.inject(&udp(LEFT, RIGHT, port, 9, b"more")).unwrap();
            let packet = next(&mut live);
            assert_eq!(bits.decode(packet.mark), Some(CtState::Established));
            live.queue.verdict(packet.id, Verdict::ACCEPT).unwrap();
            let (events, copies) = readable(&mut live);
            assert_eq!((events.len(), copies.len()), (0, 1));
        }

        // To the machine itself: the copy comes from INPUT.
        from_left.inject(&udp(LEFT, [10, 0, 1, 1], 5000, 9, b"")).unwrap();
        let packet = next(&mut live);
        live.queue.verdict(packet.id, Verdict::ACCEPT).unwrap();
        let (events, copies) = readable(&mut live);
        assert_eq!(events.len(), 1);
        assert_eq!((copies[0].hook, copies[0].prefix.as_str()), (Hook::Input, LOG_INPUT));

        // Dropped: no trace.
        let packet = {
            // The machine's own answer, port unreachable, was queued at OUTPUT.
            let error = next(&mut live);
            assert_eq!((error.hook, bits.decode(error.mark)), (Hook::Output, Some(CtState::RelatedReply)));
            live.queue.verdict(error.id, Verdict::ACCEPT).unwrap();
            readable(&mut live);
            from_left.inject(&udp(LEFT, RIGHT, 5001, 9, b"")).unwrap();
            next(&mut live)
        };
        live.queue.verdict(packet.id, Verdict::DROP).unwrap();
        assert_eq!(readable(&mut live), (vec![], vec![]));
    }
}

#[test]
fn the_same_for_ipv6() {
    if !require_lab() {
        return;
    }
    let lab = small_lab(MASQUERADE, MASQUERADE);
    let mut live = live(&lab, |config| Ok(Box::new(MnlQueue::open(config)?)));
    let from_left = lab.injector("middle", "left").unwrap();
    from_left.inject(&icmp(LEFT6, RIGHT6, 128, 77)).unwrap();
    let packet = next(&mut live);
    assert_eq!((packet.payload[40], MarkBits::default().decode(packet.mark)), (128, Some(CtState::New)));
    readable(&mut live);
    live.queue.verdict(packet.id, Verdict::ACCEPT).unwrap();
    let (events, copies) = readable(&mut live);
    let [(EventKind::New, entry)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(entry.orig.l4, L4::Icmp { id: 77, icmp_type: 128, code: 0 });
    assert_eq!(entry.reply.dst, IpAddr::from([0xfd00, 2, 0, 0, 0, 0, 0, 1]));
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].payload[8..24], std::net::Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1).octets());
}
