//! A stretch of packets that goes through the box at once, with what the engine says about each.

use std::ops::Range;

use ctwhy_core::direction::CtInfo;
use ctwhy_linux::wire::HardwareAddress;

/// An interface of the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    /// Towards the clients.
    Lan,
    /// Towards the servers.
    Wan,
}

impl Port {
    pub(crate) const BOTH: [Port; 2] = [Port::Lan, Port::Wan];

    /// The name of the interface.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Port::Lan => "lan",
            Port::Wan => "wan",
        }
    }

    /// Its place among the interfaces of the box.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The one at this place.
    pub(crate) const fn at(index: usize) -> Port {
        match index {
            0 => Port::Lan,
            _ => Port::Wan,
        }
    }

    pub(crate) const fn other(self) -> Port {
        match self {
            Port::Lan => Port::Wan,
            Port::Wan => Port::Lan,
        }
    }
}

/// A packet that goes into the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The interface that it arrives on.
    pub(crate) port: Port,
    /// From the IP header on, with what the link layer padded it with.
    pub(crate) bytes: Vec<u8>,
}

/// What the engine says about a packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// `None` when conntrack does not see it.
    pub(crate) ctinfo: Option<CtInfo>,
    /// Why it is INVALID, or a fragment that conntrack does not see.
    pub(crate) reason: Option<&'static str>,
    /// What leaves because of it: nothing, the packet, its fragments, what the box says about it.
    pub(crate) left: Vec<Left>,
    /// For a fragment that completed its datagram the one that this begins with, whose mark the kernel gives it.
    pub(crate) first: Option<Name>,
}

/// A packet that leaves.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    /// Where.
    pub(crate) port: Port,
    /// Its bytes in the window.
    pub(crate) bytes: Range<usize>,
    /// Does the box itself say it?
    pub(crate) own: bool,
}

/// What a packet of an episode is called: the number of its window, and its place in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) window: u32,
    pub(crate) place: usize,
}

impl Name {
    /// As one number.
    pub(crate) const fn label(self) -> u64 {
        (self.window as u64) << 32 | self.place as u64
    }

    /// That of such a number.
    pub(crate) const fn of(label: u64) -> Name {
        Name { window: (label >> 32) as u32, place: label as u32 as usize }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) port: Port,
    /// The frame's bytes in the window.
    pub(crate) frame: Range<usize>,
    pub(crate) expected: Expected,
}

/// Length of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// Packets, and what the engine says about each. One stretch of memory holds them all.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Its place in its episode.
    pub(crate) number: u32,
    pub(crate) items: Vec<Item>,
    /// Must the kernel be asked how the last packet left, because it drew a port?
    pub(crate) asks: bool,
    /// Was that packet delivered, so that only the kernel's table can tell?
    pub(crate) delivered: bool,
    bytes: Vec<u8>,
}

impl Window {
    /// The most packets that one holds.
    pub(crate) const MOST: usize = 768;

    pub(crate) fn clear(&mut self, number: u32) {
        self.number = number;
        self.items.clear();
        self.asks = false;
        self.delivered = false;
        self.bytes.clear();
    }

    /// Appends a packet in a frame to `destination`.
    pub(crate) fn push(&mut self, port: Port, destination: HardwareAddress, packet: &[u8], expected: Expected) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&destination);
        self.bytes.extend_from_slice(&[0x02, 0, 0, 0, 0, 1]);
        let ethertype: [u8; 2] = if packet.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
        self.bytes.extend_from_slice(&ethertype);
        self.bytes.extend_from_slice(packet);
        self.items.push(Item { port, frame: start..self.bytes.len(), expected });
    }

    /// Keeps the bytes of a packet that the engine let out.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    pub(crate) fn get(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// The packet of an item, from its IP header on.
    pub(crate) fn packet(&self, item: &Item) -> &[u8] {
        self.get(&item.frame).get(ETHERNET..).unwrap_or_default()
    }
}
