//! NFQUEUE against the kernel, for both consumers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use common::*;
use ctwhy_linux::lab::Lab;
use ctwhy_linux::queue::{Decision, Hook, MnlQueue, NfqQueue, PacketQueue, QueueConfig, Queued, Verdict};
use ctwhy_linux::testing::require_lab;
use ctwhy_linux::wire::Wire;

type Opener = fn(&QueueConfig) -> io::Result<Box<dyn PacketQueue + Send>>;

const CONSUMERS: [Opener; 2] =
    [|config| Ok(Box::new(NfqQueue::open(config)?)), |config| Ok(Box::new(MnlQueue::open(config)?))];

/// UDP from `left` to `right` is queued when it leaves `middle`.
const AT_POSTROUTING: &str =
    "*mangle\n-A POSTROUTING -p udp --dport 9 -j NFQUEUE --queue-num 5 --queue-bypass\nCOMMIT\n";

fn open(lab: &Lab, consumer: usize, config: &QueueConfig) -> Box<dyn PacketQueue + Send> {
    lab.in_node("middle", || CONSUMERS[consumer](config)).unwrap().unwrap()
}

fn next(queue: &mut dyn PacketQueue) -> Queued {
    queue.recv().unwrap().expect("a packet")
}

/// The next UDP packet to port 9 that `wire` sees coming in.
fn arrived(wire: &Wire) -> Vec<u8> {
    loop {
        wait(wire.as_fd());
        while let Some(frame) = wire.recv().unwrap() {
            let packet = frame.payload();
            if frame.hw_protocol == 0x800 && packet[9] == 17 && packet[22..24] == [0, 9] {
                return packet.to_vec();
            }
        }
    }
}

#[test]
fn a_packet_is_described_and_goes_on_unchanged() {
    if !require_lab() {
        return;
    }
    for consumer in 0..CONSUMERS.len() {
        let lab = small_lab(AT_POSTROUTING, "");
        resolve_neighbours(&lab);
        let mut queue = open(&lab, consumer, &QueueConfig::new(5));
        let wire = lab.wire("right", "eth0").unwrap();
        let index = |interface| Some(lab.wire("middle", interface).unwrap().index());
        let sent = udp(LEFT, RIGHT, 4000, 9, b"hello");
        lab.injector("middle", "left").unwrap().inject(&sent).unwrap();
        let packet = next(queue.as_mut());
        assert_eq!((packet.hook, packet.hw_protocol, packet.mark), (Hook::Postrouting, 0x800, 0));
        assert_eq!((packet.indev, packet.outdev), (index("left"), index("right")));
        assert_eq!((packet.payload.len(), packet.original_len), (33, 33));
        assert_eq!(packet.payload[12..], sent[12..]);
        assert!(!packet.offload.gso && !packet.offload.checksum_not_ready);
        let stats = queue.stats().unwrap();
        assert_eq!((stats.waiting, stats.id_sequence, stats.queue_dropped, stats.user_dropped), (1, packet.id, 0, 0));
        queue.verdict(packet.id, Verdict::ACCEPT).unwrap();
        assert_eq!(arrived(&wire), packet.payload);
        assert_eq!(queue.stats().unwrap().waiting, 0);
        queue.set_blocking(false);
        assert_eq!(queue.recv().unwrap(), None);
    }
}

#[test]
fn modified_packets_of_every_length_come_out_byte_for_byte() {
    if !require_lab() {
        return;
    }
    for consumer in 0..CONSUMERS.len() {
        let lab = small_lab(AT_POSTROUTING, "");
        resolve_neighbours(&lab);
        let mut queue = open(&lab, consumer, &QueueConfig { gso: false, ..QueueConfig::new(5) });
        let wire = lab.wire("right", "eth0").unwrap();
        let injector = lab.injector("middle", "left").unwrap();
        for length in (0..67).chain(1469..=1472) {
            // Longer, shorter and equal: what is sent has a length of its own.
            injector.inject(&udp(LEFT, RIGHT, 4000, 9, &vec![0x55; 1 + (length * 7) % 90])).unwrap();
            let packet = next(queue.as_mut());
            let data: Vec<u8> = (0..length).map(|i| 0x80 | (i % 127) as u8).collect();
            let changed = udp(LEFT, RIGHT, 4001, 9, &data);
            let verdict = Verdict { payload: Some(&changed), ..Verdict::ACCEPT };
            queue.verdict(packet.id, verdict).unwrap();
            assert_eq!(arrived(&wire), changed, "{length} bytes of data, consumer {consumer}");
        }
    }
}

#[test]
fn dropped_and_marked_as_the_verdict_says() {
    if !require_lab() {
        return;
    }
    // A mark that the verdict sets is seen by a rule at a later hook.
    let rules = "*mangle\n-A PREROUTING -p udp --dport 9 -j NFQUEUE --queue-num 5\n\
        -A POSTROUTING -p udp -m mark --mark 0x17/0xff -j TOS --set-tos 4\nCOMMIT\n";
    for consumer in 0..CONSUMERS.len() {
        let lab = small_lab(rules, "");
        resolve_neighbours(&lab);
        let mut queue = open(&lab, consumer, &QueueConfig::new(5));
        let wire = lab.wire("right", "eth0").unwrap();
        let injector = lab.injector("middle", "left").unwrap();
        for data in [b"1", b"2", b"3"] {
            injector.inject(&udp(LEFT, RIGHT, 4000, 9, data)).unwrap();
        }
        let packets: Vec<Queued> = (0..3).map(|_| next(queue.as_mut())).collect();
        assert_eq!(packets[0].hook, Hook::Prerouting);
        // Out of order on purpose.
        queue.verdict(packets[1].id, Verdict { mark: Some(0x17), ..Verdict::ACCEPT }).unwrap();
        queue.verdict(packets[0].id, Verdict::DROP).unwrap();
        queue.verdict(packets[2].id, Verdict { decision: Decision::Accept, mark: Some(0x100), payload: None }).unwrap();
        let got = [arrived(&wire), arrived(&wire)];
        assert_eq!(got.map(|packet| (packet[28], packet[1])), [(b'2', 4), (b'3', 0)]);
    }
}

#[test]
fn a_verdict_about_no_packet_is_an_error() {
    if !require_lab() {
        return;
    }
    let lab = small_lab("", "");
    let mut nfq = open(&lab, 0, &QueueConfig::new(5));
    assert!(nfq.verdict(77, Verdict::ACCEPT).unwrap_err().to_string().contains("no packet 77"));
    let mut mnl = open(&lab, 1, &QueueConfig::new(6));
    mnl.verdict(77, Verdict::ACCEPT).unwrap();
    let error = mnl.recv().unwrap_err().to_string();
    assert!(error.contains("queue 6: verdict for packet 77 refused"), "{error}");
}

#[test]
fn a_queue_in_use_and_a_missing_capability_are_told_apart() {
    if !require_lab() {
        return;
    }
    let lab = small_lab("", "");
    for (consumer, opener) in CONSUMERS.iter().enumerate() {
        let first = open(&lab, 1 - consumer, &QueueConfig::new(5));
        let error = lab.in_node("middle", || opener(&QueueConfig::new(5)).err().unwrap()).unwrap();
        let expected = format!("queue 5 is already in use by pid {} (", std::process::id());
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(first);
        let error = lab.in_node("middle", || {
            drop_capabilities();
            opener(&QueueConfig::new(5)).err().unwrap()
        });
        let error = error.unwrap();
        assert_eq!(error.to_string(), "binding to queue 5 needs CAP_NET_ADMIN in this network namespace");
    }
}

/// Takes all capabilities from the calling thread.
fn drop_capabilities() {
    #[repr(C)]
    struct Header(u32, i32);
    let none = [0u32; 6];
    // SAFETY: version 3 of the header, and the 24 bytes that belong to it.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_capset, &Header(0x2008_0522, 0), none.as_ptr()) };
    assert_eq!(result, 0);
}

#[test]
fn a_full_queue_and_a_dropped_consumer_let_packets_pass() {
    if !require_lab() {
        return;
    }
    // Without --queue-bypass: what passes does so because of the consumer.
    let rules = "*mangle\n-A POSTROUTING -p udp --dport 9 -j NFQUEUE --queue-num 5\nCOMMIT\n";
    for consumer in 0..CONSUMERS.len() {
        let lab = small_lab(rules, "");
        resolve_neighbours(&lab);
        let mut queue = open(&lab, consumer, &QueueConfig { max_len: 2, ..QueueConfig::new(5) });
        let wire = lab.wire("right", "eth0").unwrap();
        let injector = lab.injector("middle", "left").unwrap();
        for data in [b"1", b"2", b"3", b"4"] {
            injector.inject(&udp(LEFT, RIGHT, 4000, 9, data)).unwrap();
        }
        assert_eq!([arrived(&wire), arrived(&wire)].map(|packet| packet[28]), *b"34");
        let stats = queue.stats().unwrap();
        assert_eq!((stats.waiting, stats.queue_dropped, stats.user_dropped), (2, 0, 0));
        // One was received, the other not even that.
        assert_eq!(next(queue.as_mut()).payload[28], b'1');
        drop(queue);
        assert_eq!([arrived(&wire), arrived(&wire)].map(|packet| packet[28]), *b"12");
    }
}

#[test]
fn packets_that_pass_a_full_receive_buffer_are_counted() {
    if !require_lab() {
        return;
    }
    let lab = small_lab(AT_POSTROUTING, "");
    resolve_neighbours(&lab);
    let mut queue = open(&lab, 1, &QueueConfig { receive_buffer: 4096, ..QueueConfig::new(5) });
    let wire = lab.wire("right", "eth0").unwrap();
    let injector = lab.injector("middle", "left").unwrap();
    let mut received = 0;
    for _ in 0..2 {
        for _ in 0..50 {
            injector.inject(&udp(LEFT, RIGHT, 4000, 9, &[0; 1000])).unwrap();
        }
        let waiting = queue.stats().unwrap().waiting;
        for _ in 0..waiting {
            let packet = next(queue.as_mut());
            queue.verdict(packet.id, Verdict::ACCEPT).unwrap();
        }
        received += u64::from(waiting);
    }
    assert!(received < 50, "{received}");
    for _ in 0..100 {
        arrived(&wire);
    }
    // The last ones are known to be missing when the next has come.
    injector.inject(&udp(LEFT, RIGHT, 4000, 9, &[0; 1000])).unwrap();
    next(queue.as_mut());
    assert_eq!(queue.missed(), 100 - received);
    // The kernel does not count them.
    let stats = queue.stats().unwrap();
    assert_eq!((stats.user_dropped, stats.queue_dropped, stats.id_sequence), (0, 0, 101));
}

#[test]
fn verdicts_are_collected_and_sent_together() {
    if !require_lab() {
        return;
    }
    let lab = small_lab(AT_POSTROUTING, "");
    resolve_neighbours(&lab);
    let mut queue = lab.in_node("middle", || MnlQueue::open(&QueueConfig::new(5))).unwrap().unwrap();
    queue.collect_verdicts(1000);
    let receiver = lab.in_node("right", || UdpSocket::bind("10.0.2.2:9")).unwrap().unwrap();
    let sender = lab.in_node("left", || UdpSocket::bind("10.0.1.2:4000")).unwrap().unwrap();
    for number in 0..100u8 {
        sender.send_to(&[number], "10.0.2.2:9").unwrap();
    }
    let mut packet = Queued::default();
    for number in 0..100u8 {
        assert!(queue.recv_into(&mut packet).unwrap());
        assert_eq!(packet.payload[28], number);
        queue.verdict(packet.id, Verdict::ACCEPT).unwrap();
    }
    queue.flush().unwrap();
    let mut buffer = [0; 9];
    for number in 0..100u8 {
        wait(receiver.as_fd());
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], number);
    }
}

#[test]
fn offloaded_packets_come_whole_or_finished_as_configured() {
    if !require_lab() {
        return;
    }
    // Sent by the machine itself, at OUTPUT the checksum is not there yet, whatever the interface can do.
    let rules = "*mangle\n-A OUTPUT -p tcp --dport 9 -j NFQUEUE --queue-num 5\nCOMMIT\n";
    let lab = small_lab(rules, "");
    for consumer in 0..CONSUMERS.len() {
        for gso in [true, false] {
            let mut queue = open(&lab, consumer, &QueueConfig { gso, ..QueueConfig::new(5) });
            let sender = lab.in_node("middle", || {
                let socket = nix::sys::socket::socket(
                    nix::sys::socket::AddressFamily::Inet,
                    nix::sys::socket::SockType::Stream,
                    nix::sys::socket::SockFlag::SOCK_NONBLOCK,
                    None,
                )
                .unwrap();
                let server = nix::sys::socket::SockaddrIn::new(10, 0, 2, 2, 9);
                // In progress: the answer to the SYN is not waited for.
                nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &server).unwrap_err();
                socket
            });
            let packet = next(queue.as_mut());
            assert_eq!(packet.hook, Hook::Output);
            assert_eq!(packet.offload.checksum_not_ready, gso);
            drop(sender);
        }
    }
}
