//! Probes with a TTL of one's choice, and what came of them, by sockets of an ordinary user.
//!
//! Each flow is a socket of its own, so that an answer belongs to it whatever a NAT did to its port. Errors come by the
//! error queue (`IP_RECVERR`), with the address of the router that sent them and the part of the packet that they quote.

mod echo;
mod error_queue;
mod options;
mod stray;

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect,
    getsockname, getsockopt, recvmsg, send, socket, sockopt,
};

use crate::context;

pub use echo::EchoSocket;
pub use stray::{Stray, Strays};

/// What kind of packet a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// UDP datagrams.
    Udp,
    /// Echo requests.
    Echo,
    /// The SYN of a TCP connection.
    Tcp,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 3] = [Method::Udp, Method::Echo, Method::Tcp];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Method::Udp => "udp",
            Method::Echo => "echo",
            Method::Tcp => "tcp",
        }
    }
}

/// The part of its packet that an error brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quote {
    /// Too little of it to tell which packet of the flow it was.
    Short,
    /// The packet with this tag.
    Tag(u32),
    /// Something that no probe said.
    Foreign,
}

/// An ICMP error that the kernel gave to the socket of the packet that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Who sent it, if the kernel said.
    pub from: Option<IpAddr>,
    /// ICMP or ICMPv6 type, by the family of the probe.
    pub icmp_type: u8,
    /// Its code.
    pub code: u8,
    /// The MTU in bytes that it announces, 0 for none.
    pub mtu: u32,
    /// What it quotes.
    pub quote: Quote,
}

/// What came back to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An error.
    Error(IcmpError),
    /// An echo reply or a datagram.
    Reply {
        /// The packet it answers, if it can be told.
        tag: Option<u32>,
        /// TTL or hop limit that it came with.
        ttl: Option<u8>,
    },
    /// The TCP connection was accepted.
    Connected,
    /// The TCP connection was refused with RST.
    Refused,
}

/// An answer, and when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// To which flow, by the number that [`Prober::open`] gave.
    pub flow: usize,
    /// What.
    pub answer: Answer,
    /// When.
    pub at: Instant,
}

/// How a packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length of the IP packet in bytes; more than the headers and the tag take. Nothing for TCP.
    pub length: usize,
    /// May no router cut it? Then the path MTU that the kernel knows is not heeded either.
    pub dont_fragment: bool,
    /// Told again by whoever quotes or answers it; 16 bits of it are enough for an echo.
    pub tag: u32,
}

/// UDP header, ICMP header.
const HEADER: usize = 8;
/// What is in front of the tag in a payload, so that nobody else's bytes are taken for ours.
const MAGIC: [u8; 4] = *b"ctwy";
/// MAGIC and tag.
const TAGGED: usize = 8;
/// As many errors about earlier packets may keep one from being sent.
const MOST_PENDING: usize = 4;
/// As many flows have a socket at a time.
const MOST_FLOWS: usize = 512;

const fn ip_header(family: AddressFamily) -> usize {
    match family {
        AddressFamily::Inet6 => 40,
        _ => 20,
    }
}

fn payload(length: usize, tag: u32) -> Vec<u8> {
    let mut payload = vec![0; length.max(TAGGED)];
    payload[..4].copy_from_slice(&MAGIC);
    payload[4..TAGGED].copy_from_slice(&tag.to_be_bytes());
    payload
}

/// The tag in what came back of a payload.
fn tag_of(payload: &[u8]) -> Quote {
    match payload.first_chunk::<TAGGED>() {
        Some([a, b, c, d, tag @ ..]) if [*a, *b, *c, *d] == MAGIC => Quote::Tag(u32::from_be_bytes(*tag)),
        Some(_) => Quote::Foreign,
        None => Quote::Short,
    }
}

/// The socket of a flow.
#[derive(Debug)]
enum Flow {
    Udp(OwnedFd),
    Echo(EchoSocket),
    Tcp { socket: OwnedFd, decided: bool },
}

impl Flow {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Flow::Udp(socket) | Flow::Tcp { socket, .. } => socket.as_fd(),
            Flow::Echo(echo) => echo.as_fd(),
        }
    }
}

/// The flows of a run, of one address family.
#[derive(Debug)]
pub struct Prober {
    family: AddressFamily,
    flows: Vec<Option<Flow>>,
}

impl Prober {
    /// For probes to addresses of the family of `to`.
    #[must_use]
    pub fn new(to: IpAddr) -> Prober {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        Prober { family, flows: Vec::new() }
    }

    /// A new flow: its number.
    ///
    /// # Errors
    /// No such socket is allowed here, no route leads there, or there are too many flows.
    pub fn open(&mut self, method: Method, to: SocketAddr) -> io::Result<usize> {
        if self.flows.iter().flatten().count() >= MOST_FLOWS {
            return Err(io::Error::other(format!("more than {MOST_FLOWS} probes at a time")));
        }
        let flow = match method {
            Method::Udp => Flow::Udp(self.connected(to).map_err(context(format_args!("a UDP socket to {to}")))?),
            Method::Echo => Flow::Echo(EchoSocket::open(self.family, to.ip(), self.flows.len())?),
            Method::Tcp => {
                let socket = self.socket(SockType::Stream, None);
                Flow::Tcp { socket: socket.map_err(context("a TCP socket"))?, decided: false }
            }
        };
        self.flows.push(Some(flow));
        Ok(self.flows.len() - 1)
    }

    fn socket(&self, kind: SockType, protocol: Option<SockProtocol>) -> io::Result<OwnedFd> {
        let socket = socket(self.family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
        options::hear_errors(&socket, self.family)?;
        Ok(socket)
    }

    fn connected(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        let socket = self.socket(SockType::Datagram, None)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
        Ok(socket)
    }

    /// Sends a packet of a flow; for TCP the SYN to `to`, once.
    ///
    /// # Errors
    /// It cannot be sent: too long for the first link (EMSGSIZE), no route, or an address that this host refuses to send to.
    pub fn send(&mut self, flow: usize, to: SocketAddr, packet: &Packet) -> io::Result<()> {
        let Some(Some(flow)) = self.flows.get_mut(flow) else { return Ok(()) };
        options::set_ttl(&flow.fd(), self.family, packet.ttl)?;
        options::set_dont_fragment(&flow.fd(), self.family, packet.dont_fragment)?;
        let payload = payload(packet.length.saturating_sub(ip_header(self.family) + HEADER), packet.tag);
        match flow {
            Flow::Udp(socket) => send_past_errors(&socket.as_fd(), &payload),
            Flow::Echo(echo) => echo.send(packet.tag, &payload),
            Flow::Tcp { socket, .. } => match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
                Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
                Err(errno) => Err(errno.into()),
            },
        }
    }

    /// The source port of a flow; `None` for echo.
    #[must_use]
    pub fn port(&self, flow: usize) -> Option<u16> {
        let (Flow::Udp(socket) | Flow::Tcp { socket, .. }) = self.flows.get(flow)?.as_ref()? else { return None };
        let own: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
        let v4 = own.as_sockaddr_in().map(|v4| v4.port());
        v4.or_else(|| own.as_sockaddr_in6().map(|v6| v6.port()))
    }

    /// Reads answers until `deadline`, or until `enough` says so of those read so far.
    ///
    /// # Errors
    /// The system's error of poll.
    pub fn listen(
        &mut self,
        deadline: Instant,
        mut enough: impl FnMut(&[Event]) -> bool,
        mut strays: Option<&mut Strays>,
    ) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        while !enough(&events) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let ready = self.poll(left, strays.as_deref())?;
            for flow in ready {
                self.read(flow, &mut events);
            }
            if let Some(strays) = strays.as_deref_mut() {
                strays.read();
            }
        }
        Ok(events)
    }

    /// The flows that have something to say; waits for at most `left`.
    fn poll(&self, left: Duration, strays: Option<&Strays>) -> io::Result<Vec<usize>> {
        let open = self.flows.iter().enumerate().filter_map(|(number, flow)| Some((number, flow.as_ref()?)));
        let mut numbers = Vec::new();
        let mut fds = Vec::new();
        for (number, flow) in open {
            let events = match flow {
                Flow::Tcp { decided: false, .. } => PollFlags::POLLOUT,
                Flow::Tcp { decided: true, .. } => continue,
                _ => PollFlags::POLLIN,
            };
            numbers.push(number);
            fds.push(PollFd::new(flow.fd(), events));
        }
        if let Some(strays) = strays {
            fds.push(PollFd::new(strays.as_fd(), PollFlags::POLLIN));
        }
        let timeout = PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(context("waiting for answers")(errno.into())),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(numbers.into_iter().zip(&fds).filter(|(_, fd)| is_ready(fd)).map(|(number, _)| number).collect())
    }

    /// Everything that a flow has to say.
    fn read(&mut self, number: usize, events: &mut Vec<Event>) {
        let family = self.family;
        let Some(Some(flow)) = self.flows.get_mut(number) else { return };
        let at = Instant::now();
        let mut tell = |answer| events.push(Event { flow: number, answer, at });
        let mut heard = false;
        while let Some((error, payload)) = error_queue::read(&flow.fd()) {
            heard = true;
            let quote = match flow {
                Flow::Udp(_) => tag_of(&payload),
                Flow::Echo(echo) => echo.quote(&payload),
                Flow::Tcp { .. } => Quote::Short,
            };
            if let Some(error) = error {
                tell(Answer::Error(IcmpError { quote, ..error }));
            }
        }
        match flow {
            Flow::Udp(socket) => {
                clear_error(socket);
                while let Some((payload, ttl)) = receive(&socket.as_fd()) {
                    let tag = if let Quote::Tag(tag) = tag_of(&payload) { Some(tag) } else { None };
                    tell(Answer::Reply { tag, ttl });
                }
            }
            Flow::Echo(echo) => {
                while let Some((message, ttl)) = receive(&echo.as_fd()) {
                    if let Some(tag) = echo.reply(family, &message) {
                        tell(Answer::Reply { tag: Some(tag), ttl });
                    }
                }
                clear_error(echo);
            }
            Flow::Tcp { socket, decided } => {
                *decided = true;
                match getsockopt(socket, sockopt::SocketError) {
                    Ok(0) if heard => {}
                    Ok(0) => tell(Answer::Connected),
                    Ok(code) if Errno::from_raw(code) == Errno::ECONNREFUSED && !heard => tell(Answer::Refused),
                    // The error queue has said why.
                    _ => {}
                }
                // A connection that is not wanted any more ends at once, as far away as it was made.
                let _ = options::set_ttl(socket, family, 64);
                let _ = options::end_with_reset(socket);
            }
        }
    }

    /// Ends all flows. Numbers go on counting.
    pub fn close_all(&mut self) {
        for flow in &mut self.flows {
            if let Some(Flow::Tcp { socket, .. }) = flow {
                let _ = options::end_with_reset(socket);
            }
            *flow = None;
        }
    }
}

/// Sends; where what is wrong with an earlier packet is told instead, once more. The error queue has that as well.
fn send_past_errors(socket: &BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    const ABOUT_ANOTHER: [Errno; 6] =
        [Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ENETUNREACH, Errno::EACCES, Errno::EPROTO, Errno::EMSGSIZE];
    let mut sent = send(socket.as_raw_fd(), bytes, MsgFlags::empty());
    for _ in 0..MOST_PENDING {
        match sent {
            Err(errno) if ABOUT_ANOTHER.contains(&errno) => sent = send(socket.as_raw_fd(), bytes, MsgFlags::empty()),
            _ => break,
        }
    }
    sent?;
    Ok(())
}

/// Takes the pending error of a socket, so that poll is silent about it.
fn clear_error(socket: &impl AsFd) {
    let _ = getsockopt(socket, sockopt::SocketError);
}

/// A datagram and its TTL.
fn receive(socket: &BorrowedFd<'_>) -> Option<(Vec<u8>, Option<u8>)> {
    let mut buffer = vec![0; 65536];
    let mut control = nix::cmsg_space!([libc::c_int; 8]);
    let (length, ttl) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)
                .ok()?;
        let ttl = message.cmsgs().ok().into_iter().flatten().find_map(|part| match part {
            ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => u8::try_from(ttl).ok(),
            _ => None,
        });
        (message.bytes, ttl)
    };
    buffer.truncate(length);
    Some((buffer, ttl))
}
