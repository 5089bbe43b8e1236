//! Marked frames in bursts: the mark goes with the packet, over the cable and through the hooks.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

mod common;

use std::os::fd::AsFd;

use common::wait;
use ctwhy_linux::burst::{Catcher, Marked, Sender, interface_index};
use ctwhy_linux::ctnetlink;
use ctwhy_linux::lab::{End, Lab, Node, Topology};
use ctwhy_linux::nflog::{MarkEvent, Marks};
use ctwhy_linux::program;
use ctwhy_linux::testing::require_lab;

const GROUP: u16 = 9;
/// Logs what comes in by `one`: port 7 at once with all that waits, the others together.
const RULES: &str = "table ip t { chain c { type filter hook prerouting priority -140;\n\
                     iifname != \"one\" accept\n\
                     ct state new meta mark set meta mark | 0x80000000\n\
                     udp dport 7 log group 9 queue-threshold 1 accept\n\
                     log group 9; }\n}\n";

/// A box with a cable whose ends are both plugged into it.
fn looped() -> Lab {
    let end = |interface, addresses: &[&str]| End::new("box", interface, addresses).unwrap();
    let topology = Topology::default().node(Node::router("box")).link(end("one", &["10.0.1.1/24"]), end("far", &[]));
    let lab = Lab::create(topology).unwrap();
    program::run(lab.command("box", "nft").unwrap().args(["-f", "-"]), RULES).unwrap();
    lab
}

/// A datagram without checksum to 10.0.1.1, in a frame.
fn frame(to: [u8; 6], dport: u16) -> Vec<u8> {
    let datagram = [&[0x10, 0][..], &dport.to_be_bytes(), &[0, 8, 0, 0]].concat();
    let packet = common::ip([10, 0, 1, 2], [10, 0, 1, 1], 17, &datagram);
    [&to[..], &[2, 0, 0, 0, 0, 1, 8, 0], &packet].concat()
}

#[test]
fn every_frame_arrives_with_its_mark_and_in_order() {
    if !require_lab() {
        return;
    }
    const COUNT: u32 = 300;
    let lab = looped();
    let to = lab.wire("box", "one").unwrap().hardware_address();
    lab.in_node("box", || {
        let mut marks = Marks::open(GROUP, 4 << 20).unwrap();
        let mut catcher = Catcher::open("one").unwrap();
        let sender = Sender::open().unwrap();
        let interface = interface_index("far").unwrap();
        let (mut logged, mut caught) = (Vec::new(), Vec::new());
        for part in 0..COUNT / 100 {
            let numbers = part * 100 + 1..=part * 100 + 100;
            let frames: Vec<(u32, Vec<u8>)> =
                numbers.map(|mark| (mark, frame(to, if mark % 100 == 0 { 7 } else { 1000 + mark as u16 }))).collect();
            let marked = frames.iter().map(|(mark, bytes)| Marked { mark: *mark, interface, bytes });
            sender.send(&marked.collect::<Vec<_>>()).unwrap();
            while logged.len() < (part as usize + 1) * 100 {
                wait(marks.as_fd());
                while let Some(event) = marks.recv().unwrap() {
                    let MarkEvent::Mark(mark) = event else { panic!("marks were lost") };
                    logged.push(mark);
                }
            }
            while caught.len() < (part as usize + 1) * 100 {
                wait(catcher.as_fd());
                let mut take = |mark: u32, bytes: &[u8]| {
                    // The box has things to say, too.
                    if mark != 0 {
                        assert_eq!(bytes, frames[((mark - 1) % 100) as usize].1);
                        caught.push(mark);
                    }
                };
                catcher.receive(&mut take).unwrap();
            }
        }
        assert_eq!(catcher.lost().unwrap(), 0);
        assert_eq!(caught, (1..=COUNT).collect::<Vec<_>>());
        assert_eq!(logged, (1..=COUNT).map(|mark| mark | 0x8000_0000).collect::<Vec<_>>());

        assert!(!ctnetlink::dump().unwrap().is_empty());
        ctnetlink::flush().unwrap();
        assert_eq!(ctnetlink::dump().unwrap(), []);
    })
    .unwrap();
}

#[test]
fn what_cannot_be_opened_is_named() {
    if !require_lab() {
        return;
    }
    let lab = looped();
    lab.in_node("box", || {
        let error = Catcher::open("nowhere").err().unwrap();
        assert!(error.to_string().starts_with("packet socket on nowhere: "), "{error}");
        assert!(interface_index("nowhere").is_err());
        let _taken = Marks::open(GROUP, 1 << 20).unwrap();
        let error = Marks::open(GROUP, 1 << 20).err().unwrap();
        assert!(error.to_string().contains("NFLOG group 9 is already in use by "), "{error}");
    })
    .unwrap();
}
