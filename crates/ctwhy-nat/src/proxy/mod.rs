//! A NAT made of sockets, to experiment on: what VMware's `vmnat` is, and slirp, and many others.
//!
//! The guest's packets come from a TUN device and end here. TCP is answered by smoltcp and carried on in a connection of
//! the host; UDP and echo requests leave through sockets of the host, one for each flow. So TTL apart, which is passed on,
//! nothing of the guest's headers reaches the other side: identification, ports and sequence numbers are the host's.
//!
//! And ICMP errors? They are about packets of the host, so they reach the host, and there they end ([`Errors::Drop`]): the
//! guest's `traceroute` shows stars. With [`Errors::Relay`] this asks which datagram of which flow the error quotes, as
//! conntrack does, and tells the guest what a router would have said about its own datagram. What that takes is in
//! `recent` and `relay`.
//!
//! For teaching and for tests: nothing here is fast.

mod count;
mod device;
mod flows;
mod guest;
mod raw;
mod recent;
mod relay;
mod tcp;
mod write;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ctwhy_core::defrag::{Collected, Defrag};
use ctwhy_core::packet::Packet;
use ctwhy_core::sysctl::Sysctls;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Tuple, proto};
use ctwhy_linux::socket::errors::Origin;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use count::{Cause, Counts};
pub use device::GuestConfig;

use crate::answer::{self, Complaint};
use crate::statistics::count;
use crate::tun::Device;
use flows::{Flow, Flows};
use guest::Kind;
use raw::Raw;
use recent::Evidence;
use tcp::{Outcome, Tcp};
use write::Writer;

/// The longest packet that there can be, in bytes.
const LONGEST: usize = 65_575;
/// Packets taken from the guest before anything else gets its turn.
const BATCH: usize = 64;
/// How often old flows are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What becomes of ICMP errors about what the host sent for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// They reach the host and end there, as with `vmnat`.
    Drop,
    /// They are passed on to the guest, about the guest's own datagrams.
    Relay,
}

/// How the NAT behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What becomes of errors.
    pub errors: Errors,
    /// Answer the guest's echo requests here, to any address, as NATs do that cannot send them on.
    pub fake_echo: bool,
    /// Use no raw socket even where it is allowed: what is left are the error queues of sockets.
    pub unprivileged: bool,
    /// Bytes of each of the two buffers of a TCP connection.
    pub tcp_buffer: usize,
    /// The most flows and TCP connections at once.
    pub max_flows: usize,
    /// A flow of datagrams through which nothing went for so long is over.
    pub idle: Duration,
}

/// A running NAT.
pub struct Proxy {
    config: Config,
    guest: Guest,
    flows: Flows,
    tcp: Tcp,
    raw: Raw,
    /// Fragments of the guest, and how many may wait how long.
    defrag: Defrag,
    sysctls: Sysctls,
    buffer: Vec<u8>,
    started: Instant,
    swept: Instant,
}

/// What there is to do about a flow.
enum Ready {
    Flow(Tuple),
    Connection(Tuple),
}

impl Proxy {
    /// A NAT between the guest behind `device`, which takes packets of `mtu` bytes, and the calling thread's namespace.
    pub fn new(config: Config, device: Device, mtu: u16) -> Proxy {
        // Where ids and sequence numbers begin nobody can guess.
        let chance = RandomState::new().build_hasher().finish();
        let raw = if config.errors == Errors::Relay && !config.unprivileged { Raw::open() } else { Raw::default() };
        Proxy {
            config,
            guest: Guest { device, writer: Writer::new(mtu, chance as u16), counts: Counts::default() },
            flows: Flows::new(config.idle, (chance >> 16) as u16),
            tcp: Tcp::new(mtu, config.tcp_buffer, chance),
            raw,
            buffer: vec![0; LONGEST],
            defrag: Defrag::default(),
            sysctls: Sysctls::default(),
            started: Instant::now(),
            swept: Instant::now(),
        }
    }

    /// What went through so far, and what did not.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.guest.counts
    }

    /// Are errors read from raw sockets, with all that they quote?
    #[must_use]
    pub fn sees_errors_whole(&self) -> bool {
        self.raw.is_open()
    }

    /// Waits until there is something to do and does it. The answer says whether `other` is readable.
    ///
    /// # Errors
    /// The guest's interface is gone.
    pub fn turn(&mut self, other: BorrowedFd<'_>) -> io::Result<bool> {
        let (guest, raw, woken, ready) = self.wait(other)?;
        let now = Instant::now();
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.flows.expire(now);
        }
        for what in ready {
            match what {
                Ready::Flow(tuple) => self.serve_socket(&tuple, now),
                Ready::Connection(tuple) => self.serve_connection(&tuple),
            }
        }
        if raw {
            self.serve_raw(now);
        }
        if guest {
            self.serve_guest(now)?;
        }
        let guest = &mut self.guest;
        self.tcp.serve(|packet| guest.take(packet));
        Ok(woken)
    }

    /// The guest has sent; a raw socket has something; `other` has; and what else is to be done.
    fn wait(&mut self, other: BorrowedFd<'_>) -> io::Result<(bool, bool, bool, Vec<Ready>)> {
        let timeout = self.tcp.delay().map_or(SWEEP, |delay| delay.min(SWEEP));
        // Rounded up: a wait that ends early is one for nothing.
        let timeout = PollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        let mut polled =
            vec![PollFd::new(other, PollFlags::POLLIN), PollFd::new(self.guest.device.as_fd(), PollFlags::POLLIN)];
        let raw_from = polled.len();
        polled.extend(self.raw.sockets().map(|socket| PollFd::new(socket, PollFlags::POLLIN)));
        let flows_from = polled.len();
        let mut owners = Vec::new();
        for (tuple, socket) in self.flows.sockets() {
            polled.push(PollFd::new(socket, PollFlags::POLLIN));
            owners.push(Ready::Flow(tuple));
        }
        for (tuple, socket, data, room) in self.tcp.waits() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, data);
            flags.set(PollFlags::POLLOUT, room);
            polled.push(PollFd::new(socket, flags));
            owners.push(Ready::Connection(tuple));
        }
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |at: usize| polled.get(at).and_then(PollFd::any).unwrap_or(false);
        let raw = (raw_from..flows_from).any(ready);
        let owners = owners.into_iter().enumerate().filter(|(index, _)| ready(flows_from + index));
        let owners = owners.map(|(_, owner)| owner).collect();
        Ok((ready(1), raw, ready(0), owners))
    }

    /// Takes the guest's packets.
    fn serve_guest(&mut self, now: Instant) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        for _ in 0..BATCH {
            let packet = match self.guest.device.read(&mut buffer) {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            if let Err(cause) = self.arrived(packet, now) {
                self.guest.counts.drop(cause);
            }
        }
        self.buffer = buffer;
        result
    }

    /// One packet of the guest.
    fn arrived(&mut self, bytes: &[u8], now: Instant) -> Result<(), Cause> {
        let packet = Packet::parse(bytes, bytes.len()).map_err(|_| Cause::Malformed)?;
        if !guest::is_fragment(&packet) {
            return self.carry_on(&guest::read(packet, false)?, now);
        }
        let since = u64::try_from(now.duration_since(self.started).as_nanos()).unwrap_or(u64::MAX);
        match self.defrag.collect(&packet, Time(since), &self.sysctls) {
            Collected::Waits => Ok(()),
            Collected::Never => Err(Cause::Fragment),
            Collected::Whole(datagram) => {
                let bytes = datagram.arrived();
                let packet = Packet::parse(bytes, bytes.len()).map_err(|_| Cause::Malformed)?;
                self.carry_on(&guest::read(packet, true)?, now)
            }
        }
    }

    /// A datagram of the guest, or a segment.
    fn carry_on(&mut self, sent: &guest::Sent<'_>, now: Instant) -> Result<(), Cause> {
        match sent.kind {
            Kind::Tcp => self.carry_on_segment(sent),
            Kind::Echo if self.config.fake_echo => {
                let rest = sent.l4().get(6..).unwrap_or_default();
                self.guest.take_data(&sent.tuple, rest);
                self.guest.counts.made_up += 1;
                Ok(())
            }
            Kind::Udp | Kind::Echo => self.carry_on_datagram(sent, now),
        }
    }

    fn carry_on_segment(&mut self, sent: &guest::Sent<'_>) -> Result<(), Cause> {
        if !self.tcp.begins(sent) {
            self.tcp.segment(sent);
            return Ok(());
        }
        self.room_for_one_more()?;
        // With it the errors about a SYN find the guest as well, and TTL is what makes them.
        let ttl = (self.config.errors == Errors::Relay).then_some(sent.packet.ttl);
        self.tcp.begin(sent, ttl).map_err(|_| {
            self.guest.counts.tcp_failed += 1;
            self.tcp.refuse(sent.packet.bytes.to_vec());
            Cause::Refused
        })
    }

    fn room_for_one_more(&self) -> Result<(), Cause> {
        if self.flows.len() + self.tcp.len() < self.config.max_flows { Ok(()) } else { Err(Cause::Full) }
    }

    fn carry_on_datagram(&mut self, sent: &guest::Sent<'_>, now: Instant) -> Result<(), Cause> {
        let errors = self.config.errors;
        if self.flows.get_mut(&sent.tuple).is_none() {
            self.room_for_one_more()?;
            let raw = self.raw.socket(sent.packet.l3num).is_some();
            self.flows.open(sent, errors, raw, now).map_err(|error| match (sent.kind, error.kind()) {
                (Kind::Echo, io::ErrorKind::PermissionDenied) => Cause::EchoNotAllowed,
                _ => Cause::Refused,
            })?;
        }
        let flow = self.flows.get_mut(&sent.tuple).ok_or(Cause::Refused)?;
        flow.touch(now);
        match flow.send(sent, errors, self.raw.socket(sent.packet.l3num)) {
            Ok(()) => {
                let counts =
                    if sent.kind == Kind::Udp { &mut self.guest.counts.udp } else { &mut self.guest.counts.echo };
                counts[0] += 1;
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {
                if errors == Errors::Relay
                    && let Some(mtu) = flow.socket().and_then(|socket| socket.mtu().ok())
                {
                    // The host itself is the first router, and says so.
                    let (from, id) = (flow.host.src, self.guest.writer.next_identification());
                    if let Some(error) = answer::complain(&sent.packet, Complaint::TooBig { mtu }, from, id) {
                        self.guest.take(&error);
                        self.guest.counts.errors += 1;
                    }
                }
                Err(Cause::TooLong)
            }
            Err(_) => Err(Cause::Refused),
        }
    }

    /// A flow's socket has data or errors.
    fn serve_socket(&mut self, tuple: &Tuple, now: Instant) {
        let Some(flow) = self.flows.get_mut(tuple) else { return };
        let Some(socket) = flow.socket() else { return };
        // Errors first, as they came: a socket reports none of them twice.
        let mut queued = Vec::new();
        while let Ok(Some(error)) = socket.error() {
            queued.push(error);
        }
        let mut got = 0;
        for _ in 0..BATCH {
            let length = match socket.recv(&mut self.buffer) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(_) if self.config.errors == Errors::Drop => {
                    self.guest.counts.drop(Cause::ErrorStopped);
                    continue;
                }
                // The queue, or the raw socket, has it, too.
                Err(_) => continue,
            };
            let data = self.buffer.get(..length).unwrap_or_default();
            // Of an echo reply the part behind the id, which is the host's.
            let from = if tuple.protonum == proto::UDP { 0 } else { 6 };
            self.guest.take_data(tuple, data.get(from..).unwrap_or_default());
            got += 1;
        }
        match tuple.protonum {
            proto::UDP => self.guest.counts.udp[1] += got,
            _ => self.guest.counts.echo[1] += got,
        }
        if got > 0 {
            flow.touch(now);
        }
        for error in queued.iter().filter(|error| error.origin != Origin::Local) {
            // Of a UDP datagram the queue leaves the header out, of an echo request nothing.
            let (skipped, shared_from) = if tuple.protonum == proto::UDP { (8, 0) } else { (0, 6) };
            let Some(complaint) = relay::queued(tuple.l3num, error, skipped) else { continue };
            let end = error.extension.unwrap_or(error.quoted.len());
            let shared = error.quoted.get(shared_from..end).unwrap_or_default();
            let evidence = Evidence { shared, ..Evidence::default() };
            self.guest.take_error_of((tuple, &mut *flow), evidence, &complaint);
        }
    }

    /// The raw sockets have errors, or replies that no other socket takes.
    fn serve_raw(&mut self, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..BATCH {
            let Some(message) = self.raw.next(&mut buffer) else { break };
            match raw::read(message) {
                raw::Message::Reply { from, id, rest } => {
                    if let Some((tuple, flow)) = self.flows.find_raw(from, id) {
                        flow.touch(now);
                        self.guest.counts.echo[1] += 1;
                        self.guest.take_data(&tuple, rest);
                    }
                }
                raw::Message::Error { host, evidence, complaint } => match self.flows.find_by_host(&host) {
                    Some((tuple, flow)) => self.guest.take_error_of((&tuple, flow), evidence, &complaint),
                    None => self.guest.counts.drop(Cause::ErrorOfOthers),
                },
                raw::Message::Wrong => self.guest.counts.drop(Cause::ErrorChecksum),
                raw::Message::Other => {}
            }
        }
        self.buffer = buffer;
    }

    /// Something happened at the host's end of a TCP connection.
    fn serve_connection(&mut self, tuple: &Tuple) {
        match self.tcp.ready(tuple) {
            None => {}
            Some(Outcome::Connected) => self.guest.counts.tcp += 1,
            Some(Outcome::Refused) => self.guest.counts.tcp_failed += 1,
            Some(Outcome::Failed { error, tuple, syn, transport }) => {
                self.guest.counts.tcp_failed += 1;
                // The queue of a connection shows the quote from the TCP header on.
                match relay::queued(tuple.l3num, &error, 0) {
                    Some(complaint) => self.guest.take_error(&tuple, &complaint, &syn, transport),
                    None => self.tcp.refuse(syn),
                }
            }
        }
    }
}

/// The way to the guest, and what is counted on it.
struct Guest {
    device: Device,
    writer: Writer,
    counts: Counts,
}

impl Guest {
    /// A packet; one that the interface does not take is counted.
    fn take(&mut self, packet: &[u8]) {
        if let Err(code) = self.device.write(packet) {
            count(&mut self.counts.dropped, code);
        }
    }

    /// What a peer sent through the socket of a flow.
    fn take_data(&mut self, tuple: &Tuple, data: &[u8]) {
        let packets = match tuple.protonum {
            proto::UDP => self.writer.udp(tuple, data),
            _ => self.writer.echo_reply(tuple, data),
        };
        packets.iter().for_each(|packet| self.take(packet));
    }

    /// An error about a datagram of which so much is known.
    fn take_error(&mut self, tuple: &Tuple, complaint: &relay::Complaint<'_>, sent: &[u8], transport: usize) {
        let message = relay::message(tuple.l3num, complaint, sent, transport);
        let packets = self.writer.icmp(complaint.from, tuple.src_ip(), message);
        packets.iter().for_each(|packet| self.take(packet));
        self.counts.errors += 1;
    }

    /// An error about one of the last datagrams of a flow.
    fn take_error_of(
        &mut self,
        (tuple, flow): (&Tuple, &mut Flow),
        evidence: Evidence<'_>,
        complaint: &relay::Complaint<'_>,
    ) {
        match flow.recent.find(evidence) {
            Some(sent) => self.take_error(tuple, complaint, sent.bytes(), sent.transport),
            None => self.counts.drop(Cause::ErrorUnmatched),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctwhy_core::tuple::L3;
    use std::net::IpAddr;

    /// Every cut of a packet, and every byte of it changed, through all that reads what others sent: nothing panics, and a
    /// packet that was cut or whose transport part was changed is not carried on.
    #[test]
    fn what_others_send_is_read_with_care() {
        for (src, dst) in [("10.0.0.2", "192.0.2.80"), ("fd00::2", "2001:db8::80")] {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let l3num = if src.is_ipv4() { L3::V4 } else { L3::V6 };
            let reply = |protonum| Tuple { src: dst.into(), dst: src.into(), src_u: 7, dst_u: 9, l3num, protonum };
            let mut writer = Writer::new(1500, 0);
            let udp = writer.udp(&reply(proto::UDP), b"data").remove(0);
            let (request, word) = (guest::echo_types(l3num).0, [0, 7, 0, 1]);
            let echo = writer.icmp(src, dst, [&[request, 0, 0, 0], word.as_slice(), b"data"].concat()).remove(0);
            for packet in [udp, echo] {
                let carried = |bytes: &[u8]| {
                    let packet = Packet::parse(bytes, bytes.len()).map_err(|_| Cause::Malformed)?;
                    guest::read(packet, false).map(|sent| {
                        let host = Tuple { src_u: 50000, protonum: sent.tuple.protonum, ..sent.tuple };
                        let mut flow = recent::Recent::default();
                        flow.add(&sent, &host);
                        (host, flow)
                    })
                };
                let (host, mut flow) = carried(&packet).unwrap();
                let transport = packet.len() - 12;
                for cut in 0..packet.len() {
                    assert!(carried(&packet[..cut]).is_err());
                    let mut changed = packet.clone();
                    changed[cut] ^= 0x5a;
                    let result = carried(&changed);
                    assert!(cut < transport || result.is_err(), "byte {cut} of {packet:02x?}");
                }
                // The same in an error, read by the raw socket.
                let mut quoted = packet.clone();
                let at = if host.protonum == proto::UDP { transport } else { transport + 4 };
                write::put(&mut quoted, at, host.src_u);
                let kind = if l3num == L3::V4 { 11 } else { 3 };
                let error = writer.icmp(dst, src, [&[kind, 0, 0, 0, 0, 0, 0, 0], quoted.as_slice()].concat()).remove(0);
                let message = &error[error.len() - 8 - quoted.len()..];
                for at in 0..=message.len() {
                    for flip in [0, 0x01, 0x40, 0xff] {
                        let mut changed = message.to_vec();
                        if let Some(byte) = changed.get_mut(at) {
                            *byte ^= flip;
                        }
                        // What is changed has a checksum that is right.
                        write::put(&mut changed, 2, 0);
                        let sum = ctwhy_core::checksum::Sum::default().bytes(&changed).checksum();
                        write::put(&mut changed, 2, sum);
                        let read = raw::read((l3num, dst, &changed));
                        let raw::Message::Error { host: told, evidence, complaint } = read else { continue };
                        let Some(sent) = flow.find(evidence) else { continue };
                        let message = relay::message(l3num, &complaint, sent.bytes(), sent.transport);
                        assert!(message.len() <= 8 + 4 * 255 + sent.bytes().len());
                        if flip == 0 {
                            assert_eq!(told, host);
                            assert_eq!(message.len(), 8 + packet.len());
                        }
                    }
                    assert!(!matches!(raw::read((l3num, dst, &message[..at.min(7)])), raw::Message::Error { .. }));
                }
            }
        }
    }
}
