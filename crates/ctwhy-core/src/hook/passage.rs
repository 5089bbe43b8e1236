//! A packet on its way, and what it carries.

use crate::conntrack::Tracked;
use crate::defrag::Datagram;
use crate::nat::hooks::Binding;
use crate::network::Network;
use crate::packet::Packet;
use crate::refragment::{Cut, Outgoing};
use crate::time::Time;
use crate::tuple::L3;
use alloc::boxed::Box;

use super::{Egress, Hook, Resized, Ruling};

/// What became of a packet in [`Engine::enter`](super::Engine::enter).
#[derive(Clone, Debug)]
pub enum Entered {
    /// It ended there.
    Ended(Ruling),
    /// It goes on, now or later.
    OnItsWay(Passage),
}

/// Who takes a packet from PREROUTING to the next hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// The engine, by the network that it knows.
    Engine,
    /// A kernel.
    Kernel,
}

/// A packet behind routing and before its last hooks.
#[derive(Clone, Debug)]
pub struct Passage {
    pub(super) tracked: Tracked,
    pub(super) way: Way,
    pub(super) egress: Egress,
    /// Where it began.
    pub(super) hook: Hook,
}

impl Default for Passage {
    fn default() -> Passage {
        Passage::new(None, Time(0))
    }
}

impl Passage {
    /// Of a packet that nobody has looked at yet.
    pub(super) const fn new(in_interface: Option<u16>, now: Time) -> Passage {
        Passage {
            tracked: Tracked::not_yet(),
            way: Way::new(in_interface, now),
            egress: Egress::Nowhere,
            hook: Hook::PreRouting,
        }
    }

    /// What conntrack calls the packet.
    #[must_use]
    pub const fn tracked(&self) -> &Tracked {
        &self.tracked
    }

    /// Where it will go if nothing stops it.
    #[must_use]
    pub const fn egress(&self) -> Egress {
        self.egress
    }
}

/// What devices have done about a packet, and what is left to them (`ip_summed` and `gso_size` of `struct sk_buff`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Somebody vouches for its transport checksum.
    pub checksum_trusted: bool,
    /// It leaves in segments of at most so many bytes, from the IP header on, that somebody else makes; `None` for a packet
    /// that leaves as it is.
    pub segment: Option<u32>,
}

/// What a packet has on its way besides its bytes and its entry.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) in_interface: Option<u16>,
    pub(crate) out_interface: Option<u16>,
    pub(crate) now: Time,
    pub(crate) l3num: L3,
    pub(crate) len: usize,
    /// The mark that rules gave it (`skb->mark`).
    pub(crate) mark: u32,
    /// Did NAT rewrite it, or a helper look for something to rewrite?
    pub(super) rewritten: bool,
    /// What a helper made of its length.
    pub(crate) resized: Option<Resized>,
    /// Does somebody vouch for its checksum, or is it still to be filled in?
    pub(super) checksum_trusted: bool,
    /// How long the segments are at most that somebody else makes of it; see [`Offload::segment`].
    pub(super) segment: Option<u32>,
    /// How many bytes of it had to lie in one piece so far.
    pub(super) linear: usize,
    /// Where it came in fragments.
    pub(super) datagram: Option<Box<Datagram>>,
    /// How it leaves in fragments.
    pub(super) cut: Option<Cut>,
    /// What its entry was bound to when somebody else took over.
    pub(super) remembered: Option<Binding>,
}

impl Way {
    pub(crate) const fn new(in_interface: Option<u16>, now: Time) -> Way {
        Way {
            in_interface,
            out_interface: None,
            now,
            l3num: L3::V4,
            len: 0,
            mark: 0,
            rewritten: false,
            resized: None,
            checksum_trusted: false,
            segment: None,
            linear: 0,
            datagram: None,
            cut: None,
            remembered: None,
        }
    }

    /// Is that of this packet from now on.
    pub(crate) const fn of(&mut self, packet: &Packet<'_>) {
        self.l3num = packet.l3num;
        self.len = packet.len;
    }

    pub(super) fn outgoing<'a>(&'a self, network: &Network, packet: &'a [u8]) -> Outgoing<'a> {
        let interface = self.out_interface.and_then(|out| network.interface(out));
        Outgoing {
            bytes: packet,
            len: self.segment.map_or(self.len, |segment| self.len.min(segment as usize)),
            l3num: self.l3num,
            mtu: interface.and_then(|interface| interface.mtu),
            linear: self.linear,
            geometry: self.datagram.as_ref().map(|datagram| &datagram.geometry),
        }
    }

    /// The packet without what pads it.
    pub(super) fn bytes<'a>(&self, buffer: &'a mut [u8]) -> &'a mut [u8] {
        let end = self.len.min(buffer.len());
        &mut buffer[..end]
    }
}
