//! A NAT between two interfaces: raw frames in and out, and as much ARP and neighbour discovery as it takes to be hosts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ctwhy_core::checksum::Sum;
use ctwhy_core::tuple::{Addr, L3, proto};
use ctwhy_linux::signal::wait_readable;
use ctwhy_linux::wire::{HardwareAddress, Way, Wire};
use nix::errno::Errno;

use super::nat::{Nat, Side};

/// What an interface says that is down or gone.
const GONE: [Errno; 3] = [Errno::ENETDOWN, Errno::ENXIO, Errno::ENODEV];
const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// How long a neighbour may take to say who it is, and how often it is asked.
const RESOLVE: Duration = Duration::from_millis(500);
const ASKED: usize = 4;

/// One end: an interface, and who speaks there.
#[derive(Debug)]
pub struct End {
    wire: Wire,
    /// A TUN device has no link-layer header.
    ethernet: bool,
    /// The addresses for which ARP and neighbour discovery are answered here.
    speaks_for: Vec<IpAddr>,
    /// The NAT's addresses here: it is asked for its hardware address by one of them.
    nat: Vec<IpAddr>,
    /// Its hardware address, when it is known.
    neighbour: Option<HardwareAddress>,
}

impl End {
    /// An interface of which the neighbour is the NAT. With none of the NAT's addresses given, whoever sends IP packets there
    /// is taken for it.
    #[must_use]
    pub fn new(wire: Wire, speaks_for: Vec<IpAddr>, nat: Vec<IpAddr>) -> End {
        let ethernet = wire.hardware_address() != [0; 6];
        End { wire, ethernet, speaks_for, nat, neighbour: None }
    }

    fn frame(&self, to: HardwareAddress, ethertype: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ETHERNET + packet.len());
        frame.extend(to);
        frame.extend(self.wire.hardware_address());
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        frame
    }

    fn put(&self, packet: &[u8]) -> io::Result<()> {
        if !self.ethernet {
            return self.wire.send(packet);
        }
        let to = self.neighbour.ok_or_else(|| {
            let text = "the NAT's hardware address is not known there: it did not answer, nor send anything so far";
            io::Error::new(io::ErrorKind::HostUnreachable, text)
        })?;
        let ethertype = if packet.first().is_some_and(|first| first >> 4 == 6) { IPV6 } else { IPV4 };
        self.wire.send(&self.frame(to, ethertype, packet))
    }

    /// The next IP packet that has arrived and is no affair of neighbours.
    fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(frame) = self.wire.recv()? {
            if frame.way != Way::In {
                continue;
            }
            if !self.ethernet {
                return Ok(Some(frame.bytes));
            }
            let Some((to, from, ethertype, packet)) = split(&frame.bytes) else { continue };
            // What is broadcast on the link is for neighbours, but for what they ask.
            let for_us = to == self.wire.hardware_address();
            match ethertype {
                ARP => self.arp(packet)?,
                IPV6 if is_neighbour_discovery(packet) => self.discovery(from, packet)?,
                IPV4 | IPV6 if for_us => {
                    if self.nat.is_empty() && self.neighbour.is_none() {
                        self.neighbour = Some(from);
                    }
                    return Ok(Some(packet.to_vec()));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Answers who asks for us, and hears who the NAT is.
    fn arp(&mut self, packet: &[u8]) -> io::Result<()> {
        const REQUEST: u8 = 1;
        // Ethernet and IPv4, then the operation, then hardware and protocol address of sender and target.
        let &[0, 1, 8, 0, 6, 4, 0, operation, s0, s1, s2, s3, s4, s5, a, b, c, d, _, _, _, _, _, _, e, f, g, h, ..] =
            packet
        else {
            return Ok(());
        };
        let (from, sender, target) = ([s0, s1, s2, s3, s4, s5], [a, b, c, d], Ipv4Addr::from([e, f, g, h]));
        if self.nat.contains(&IpAddr::from(sender)) {
            self.neighbour = Some(from);
        }
        if operation == REQUEST && self.speaks_for.contains(&IpAddr::V4(target)) {
            let answer = self.arp_packet(2, target, from, sender.into());
            self.wire.send(&self.frame(from, ARP, &answer))?;
        }
        Ok(())
    }

    fn arp_packet(&self, operation: u8, us: Ipv4Addr, to: HardwareAddress, target: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
        packet.extend(self.wire.hardware_address());
        packet.extend(us.octets());
        packet.extend(to);
        packet.extend(target.octets());
        packet
    }

    /// As [`End::arp`], for IPv6 (RFC 4861).
    fn discovery(&mut self, from: HardwareAddress, packet: &[u8]) -> io::Result<()> {
        let address = |at: usize| -> Option<Ipv6Addr> { Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)) };
        let (Some(sender), Some(target), Some(kind)) = (address(8), address(48), packet.get(40)) else { return Ok(()) };
        if *kind == NEIGHBOUR_ADVERTISEMENT {
            if self.nat.contains(&IpAddr::V6(target)) {
                self.neighbour = Some(from);
            }
        } else if self.speaks_for.contains(&IpAddr::V6(target)) && !sender.is_unspecified() {
            let answer = self.discovery_packet(NEIGHBOUR_ADVERTISEMENT, target, sender, target);
            self.wire.send(&self.frame(from, IPV6, &answer))?;
        }
        Ok(())
    }

    fn discovery_packet(&self, kind: u8, us: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        // An advertisement is solicited and overrides; the option is that of its target, a solicitation's of its source.
        let (flags, option) = if kind == NEIGHBOUR_ADVERTISEMENT { (0x60, 2) } else { (0, 1) };
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(target.octets());
        message.extend([option, 1]);
        message.extend(self.wire.hardware_address());
        let (src, dst) = (Addr::from(IpAddr::V6(us)), Addr::from(IpAddr::V6(to)));
        let sum = Sum::default().pseudo_header(L3::V6, src, dst, proto::ICMPV6, message.len()).bytes(&message);
        if let Some(field) = message.get_mut(2..4) {
            field.copy_from_slice(&sum.checksum().to_be_bytes());
        }
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((message.len() as u16).to_be_bytes());
        packet.extend([proto::ICMPV6, 255]);
        packet.extend(us.octets());
        packet.extend(to.octets());
        packet.extend(message);
        packet
    }

    /// Asks the NAT who it is, by one of its addresses of which we have a neighbour.
    fn ask(&self) -> io::Result<()> {
        for nat in &self.nat {
            let us = self.speaks_for.iter().find(|us| us.is_ipv4() == nat.is_ipv4());
            match (us, nat) {
                (Some(IpAddr::V4(us)), IpAddr::V4(nat)) => {
                    let question = self.arp_packet(1, *us, [0; 6], *nat);
                    self.wire.send(&self.frame([0xff; 6], ARP, &question))?;
                }
                (Some(IpAddr::V6(us)), IpAddr::V6(nat)) => {
                    let [.., a, b, c] = nat.octets();
                    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
                    let question = self.discovery_packet(NEIGHBOUR_SOLICITATION, *us, group, *nat);
                    self.wire.send(&self.frame([0x33, 0x33, 0xff, a, b, c], IPV6, &question))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn knows(&self) -> bool {
        !self.ethernet || self.nat.is_empty() || self.neighbour.is_some()
    }
}

/// Destination, source, type and payload of a frame.
fn split(frame: &[u8]) -> Option<(HardwareAddress, HardwareAddress, u16, &[u8])> {
    let (to, rest) = frame.split_first_chunk()?;
    let (from, rest) = rest.split_first_chunk()?;
    let (ethertype, packet) = rest.split_first_chunk()?;
    Some((*to, *from, u16::from_be_bytes(*ethertype), packet))
}

fn is_neighbour_discovery(packet: &[u8]) -> bool {
    // Not behind extension headers (RFC 6980).
    packet.get(6) == Some(&proto::ICMPV6)
        && packet.get(40).is_some_and(|kind| (130..=137).contains(kind))
        && packet.get(7) != Some(&0)
        && (packet.get(7) == Some(&255) || packet.get(40).is_some_and(|kind| *kind < 133))
}

/// Two interfaces with a NAT between them.
#[derive(Debug)]
pub struct Cables {
    ends: [End; 2],
    started: Instant,
    /// Whose turn it is to be read first.
    turn: usize,
}

impl Cables {
    /// Plugs both ends in, and asks the NAT for its hardware addresses where it has any.
    ///
    /// # Errors
    /// It does not answer, or the sockets' errors.
    pub fn new(inside: End, outside: End) -> io::Result<Cables> {
        let mut cables = Cables { ends: [inside, outside], started: Instant::now(), turn: 0 };
        cables.resolve()?;
        Ok(cables)
    }

    /// Plugs in other ends in place of these.
    ///
    /// # Errors
    /// As [`Cables::new`].
    pub fn plug(&mut self, inside: End, outside: End) -> io::Result<()> {
        self.ends = [inside, outside];
        self.resolve()
    }

    fn resolve(&mut self) -> io::Result<()> {
        for _ in 0..ASKED {
            for end in self.ends.iter().filter(|end| !end.knows()) {
                end.ask()?;
            }
            let until = self.now() + RESOLVE;
            while self.ends.iter().any(|end| !end.knows()) {
                let left = until.saturating_sub(self.now());
                if left.is_zero() {
                    break;
                }
                self.take(left)?;
            }
        }
        for (end, side) in self.ends.iter().zip(Side::BOTH) {
            if !end.knows() {
                let addresses: Vec<String> = end.nat.iter().map(ToString::to_string).collect();
                let text = format!("{side}: nobody answers for {}: is that the NAT's address?", addresses.join(", "));
                return Err(io::Error::new(io::ErrorKind::HostUnreachable, text));
            }
        }
        Ok(())
    }
}

/// An error of one side. An interface that is down or gone means that whoever made it is gone.
fn at(side: Side) -> impl FnOnce(io::Error) -> io::Error {
    move |error| match error.raw_os_error() {
        Some(number) if GONE.contains(&Errno::from_raw(number)) => {
            let text = format!("its interface {side} went down ({error})");
            io::Error::new(io::ErrorKind::NetworkDown, text)
        }
        _ => io::Error::new(error.kind(), format!("{side}: {error}")),
    }
}

impl Nat for Cables {
    fn put(&mut self, side: Side, packet: &[u8]) -> io::Result<()> {
        let [inside, outside] = &self.ends;
        let end = if side == Side::Inside { inside } else { outside };
        end.put(packet).map_err(at(side))
    }

    fn take(&mut self, wait: Duration) -> io::Result<Option<(Side, Vec<u8>)>> {
        let until = self.now() + wait;
        loop {
            for step in 0..2 {
                let index = (self.turn + step) % 2;
                if let (Some(end), Some(side)) = (self.ends.get_mut(index), Side::BOTH.get(index))
                    && let Some(packet) = end.take().map_err(at(*side))?
                {
                    self.turn = (index + 1) % 2;
                    return Ok(Some((*side, packet)));
                }
            }
            let left = until.saturating_sub(self.now());
            if left.is_zero() {
                return Ok(None);
            }
            let [inside, outside] = &self.ends;
            wait_readable(&[inside.wire.as_fd(), outside.wire.as_fd()], Some(left.max(Duration::from_millis(1))))?;
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}
