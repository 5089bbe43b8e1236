//! TCP: the guest's connection ends here, and another one of the host's goes on.
//!
//! smoltcp is the guest's peer, under whatever address the guest asked for. A SYN waits until the host has connected; only
//! then is it shown to a socket that listens for exactly that destination, so that a connection that the guest sees is one
//! that there is. Everything else of TCP (sequence numbers, windows, retransmission) is two separate affairs.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ctwhy_core::tuple::Tuple;
use ctwhy_linux::socket::errors::{self, QueuedError};
use ctwhy_linux::socket::stream;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Moment;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address};

use super::guest;

/// An address of smoltcp's own, which packets are routed to; nobody ever sees it (RFC 7600, RFC 6666).
const OWN_V4: Ipv4Address = Ipv4Address::new(192, 0, 0, 8);
const OWN_V6: Ipv6Address = Ipv6Address::new(0x100, 0, 0, 0, 0, 0, 0, 1);
/// A guest that says nothing is asked this often, and given up after this long.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(180));

/// Bits of the flags of a TCP header.
const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;

/// A connection of the guest.
#[derive(Debug)]
enum Connection {
    /// The host connects. The guest's SYN waits, and is told of errors if `relay`.
    Connecting { host: TcpStream, syn: Vec<u8>, transport: usize, relay: bool },
    /// Both sides are connected.
    Open(Pair),
}

/// The two connections that are one for the guest.
#[derive(Debug)]
struct Pair {
    guest: SocketHandle,
    /// `None` once nothing more goes either way.
    host: Option<TcpStream>,
    /// The host's peer has sent everything.
    host_ended: bool,
    /// The host's peer was told that the guest has sent everything.
    guest_ended: bool,
}

/// Something that the rest has to know.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The host has connected.
    Connected,
    /// The host could not connect; the guest was told with a reset.
    Refused,
    /// The host could not connect because of an error, which the guest is to be told: the error, the guest's SYN and where
    /// its TCP header is.
    Failed { error: QueuedError, tuple: Tuple, syn: Vec<u8>, transport: usize },
}

/// All connections of the guest.
pub(super) struct Tcp {
    interface: Interface,
    sockets: SocketSet<'static>,
    link: Link,
    connections: HashMap<Tuple, Connection>,
    started: Instant,
    buffer: usize,
}

impl Tcp {
    /// For packets of at most `mtu` bytes, with buffers of `buffer` bytes in each direction.
    pub(super) fn new(mtu: u16, buffer: usize, seed: u64) -> Tcp {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut link = Link { mtu: usize::from(mtu), from_guest: VecDeque::new(), to_guest: VecDeque::new() };
        let mut interface = Interface::new(config, &mut link, Moment::ZERO);
        // Any destination is taken for an own one when the route to it leads to an own address. Neither list is full.
        interface.update_ip_addrs(|list| {
            let _ = list.push(IpCidr::new(IpAddress::Ipv4(OWN_V4), 32));
            let _ = list.push(IpCidr::new(IpAddress::Ipv6(OWN_V6), 128));
        });
        interface.set_any_ip(true);
        let _ = interface.routes_mut().add_default_ipv4_route(OWN_V4);
        let _ = interface.routes_mut().add_default_ipv6_route(OWN_V6);
        let (sockets, connections) = (SocketSet::new(Vec::new()), HashMap::new());
        Tcp { interface, sockets, link, connections, started: Instant::now(), buffer }
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Is it a SYN that begins a connection?
    pub(super) fn begins(&self, sent: &guest::Sent<'_>) -> bool {
        sent.l4().get(13).is_some_and(|flags| flags & FIN_SYN_RST_ACK == SYN) && !self.is_alive(&sent.tuple)
    }

    /// Is there a connection that is more than a memory?
    fn is_alive(&self, tuple: &Tuple) -> bool {
        match self.connections.get(tuple) {
            Some(Connection::Open(pair)) => self.sockets.get::<Socket<'_>>(pair.guest).state() != State::TimeWait,
            found => found.is_some(),
        }
    }

    /// Begins a connection; the SYN of the host has this TTL, and the guest is told of errors about it, or the system's.
    ///
    /// # Errors
    /// The host's, at once.
    pub(super) fn begin(&mut self, sent: &guest::Sent<'_>, ttl: Option<u8>) -> io::Result<()> {
        self.forget(&sent.tuple);
        let host = stream::begin(SocketAddr::new(sent.tuple.dst_ip(), sent.tuple.dst_u), ttl)?;
        let syn = sent.packet.bytes.to_vec();
        let (transport, relay) = (sent.transport, ttl.is_some());
        self.connections.insert(sent.tuple, Connection::Connecting { host, syn, transport, relay });
        Ok(())
    }

    /// A segment of a connection that is there. Where none is, the guest gets a reset.
    pub(super) fn segment(&mut self, sent: &guest::Sent<'_>) {
        const RST: u8 = 0x04;
        match self.connections.get(&sent.tuple) {
            // The guest repeats itself, or has thought better of it.
            Some(Connection::Connecting { .. }) => {
                if sent.l4().get(13).is_some_and(|flags| flags & RST != 0) {
                    self.forget(&sent.tuple);
                }
            }
            _ => self.link.from_guest.push_back(sent.packet.bytes.to_vec()),
        }
    }

    /// What to wait for: the descriptor, data from the host, room at the host.
    pub(super) fn waits(&self) -> impl Iterator<Item = (Tuple, BorrowedFd<'_>, bool, bool)> {
        self.connections.iter().filter_map(|(tuple, connection)| match connection {
            Connection::Connecting { host, .. } => Some((*tuple, host.as_fd(), false, true)),
            Connection::Open(pair) => {
                let socket = self.sockets.get::<Socket<'_>>(pair.guest);
                let host = pair.host.as_ref()?.as_fd();
                Some((*tuple, host, !pair.host_ended && socket.can_send(), socket.can_recv()))
            }
        })
    }

    /// When smoltcp wants to be asked again, whatever comes.
    pub(super) fn delay(&mut self) -> Option<Duration> {
        let delay = self.interface.poll_delay(self.now(), &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }

    /// Something happened at the host's end of a connection.
    pub(super) fn ready(&mut self, tuple: &Tuple) -> Option<Outcome> {
        let Some(Connection::Connecting { host, relay, .. }) = self.connections.get(tuple) else { return None };
        // The queue keeps errors even unasked, and some of them do not end the attempt: the host would try again. What to
        // make of it is the guest's affair, once it is told.
        let mut complaint = None;
        while let Ok(Some(error)) = errors::next(host) {
            complaint = complaint.or(Some(error)).filter(|_| *relay);
        }
        let finished = stream::finish(host);
        if complaint.is_none() && matches!(finished, Ok(false)) {
            return None;
        }
        let Some(Connection::Connecting { host, syn, transport, .. }) = self.connections.remove(tuple) else {
            return None;
        };
        Some(match (finished, complaint) {
            (Ok(true), _) => {
                self.open(tuple, host, syn);
                Outcome::Connected
            }
            (_, Some(error)) => Outcome::Failed { error, tuple: *tuple, syn, transport },
            (_, None) => {
                self.refuse(syn);
                Outcome::Refused
            }
        })
    }

    /// Answers a SYN with a reset: nobody listens for it.
    pub(super) fn refuse(&mut self, syn: Vec<u8>) {
        self.link.from_guest.push_back(syn);
    }

    /// The guest may connect: the SYN that waited meets a socket that listens for it.
    fn open(&mut self, tuple: &Tuple, host: TcpStream, syn: Vec<u8>) {
        let buffer = || SocketBuffer::new(vec![0; self.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE.0.into()));
        socket.set_timeout(Some(KEEP_ALIVE.1.into()));
        if socket.listen((IpAddress::from(tuple.dst_ip()), tuple.dst_u)).is_err() {
            // Port 0: nobody can have connected to that.
            return self.refuse(syn);
        }
        let guest = self.sockets.add(socket);
        let pair = Pair { guest, host: Some(host), host_ended: false, guest_ended: false };
        self.connections.insert(*tuple, Connection::Open(pair));
        // Before any other packet: a socket that listens takes the first SYN that fits.
        self.link.from_guest.push_front(syn);
        self.poll();
    }

    fn forget(&mut self, tuple: &Tuple) {
        match self.connections.remove(tuple) {
            Some(Connection::Open(pair)) => drop(self.sockets.remove(pair.guest)),
            Some(Connection::Connecting { host, .. }) => stream::reset(host),
            None => {}
        }
    }

    fn now(&self) -> Moment {
        Moment::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    fn poll(&mut self) {
        let now = self.now();
        self.interface.poll(now, &mut self.link, &mut self.sockets);
    }

    /// Carries data both ways, and gives what is for the guest to `send`.
    pub(super) fn serve(&mut self, mut send: impl FnMut(&[u8])) {
        self.poll();
        let mut over = Vec::new();
        for (tuple, connection) in &mut self.connections {
            let Connection::Open(pair) = connection else { continue };
            let socket = self.sockets.get_mut::<Socket<'_>>(pair.guest);
            pair.carry(socket);
            if socket.state() == State::Closed {
                over.push(*tuple);
            }
        }
        // What was just written goes out, and a reset before its socket is gone.
        self.poll();
        for tuple in over {
            self.forget(&tuple);
        }
        for packet in self.link.to_guest.drain(..) {
            send(&packet);
        }
    }
}

impl Pair {
    /// Moves what there is and what there is room for.
    fn carry(&mut self, guest: &mut Socket<'_>) {
        let Some(host) = &mut self.host else { return };
        match to_host(guest, host, &mut self.guest_ended).and_then(|()| to_guest(guest, host, &mut self.host_ended)) {
            Ok(()) if self.host_ended && self.guest_ended => self.host = None,
            Ok(()) if guest.state() != State::Closed => {}
            // One side was reset: so is the other.
            result => {
                if let Some(host) = self.host.take()
                    && result.is_ok()
                {
                    stream::reset(host);
                }
                guest.abort();
            }
        }
    }
}

/// What the guest sent goes to the host's peer, and its end after all of it.
fn to_host(guest: &mut Socket<'_>, host: &mut TcpStream, ended: &mut bool) -> io::Result<()> {
    while guest.can_recv() {
        let written = guest.recv(|data| match host.write(data) {
            Ok(length) => (length, Ok(length)),
            Err(error) => (0, Err(error)),
        });
        match written {
            Ok(Ok(length)) if length > 0 => {}
            Ok(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => return Ok(()),
        }
    }
    let all = matches!(guest.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
    if all && !*ended {
        *ended = true;
        return host.shutdown(Shutdown::Write);
    }
    Ok(())
}

/// What the host's peer sent goes to the guest, and its end after all of it.
fn to_guest(guest: &mut Socket<'_>, host: &mut TcpStream, ended: &mut bool) -> io::Result<()> {
    while !*ended && guest.can_send() {
        let read = guest.send(|room| match host.read(room) {
            Ok(length) => (length, Ok(length)),
            Err(error) => (0, Err(error)),
        });
        match read {
            Ok(Ok(0)) => {
                *ended = true;
                guest.close();
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// smoltcp's link to the guest: two queues of packets. What waits in them is bounded by the windows of TCP.
#[derive(Debug)]
struct Link {
    mtu: usize,
    from_guest: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
}

impl phy::Device for Link {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Moment) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.from_guest.pop_front()?;
        Some((Arrived(packet), Leaving(&mut self.to_guest)))
    }

    fn transmit(&mut self, _: Moment) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.to_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// A packet of the guest.
struct Arrived(Vec<u8>);

impl phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a packet to the guest.
struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}
