//! Datagrams to one peer: UDP, and echo requests through a ping socket.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{SockProtocol, SockType};

use super::{connect, errors, open, option, set_option, set_ttl, unless_empty};

/// As many errors about earlier datagrams may keep one from being sent.
const MOST_PENDING: usize = 3;

/// May what is sent be cut into fragments?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// As the host does it with sockets that ask for nothing: it finds out what fits, and cuts what does not.
    Host,
    /// Cut where it is too long, by this host or by a router.
    Allowed,
    /// Never cut, and sent whatever this host believes about the path: DF is set, and whoever cannot pass it on says so.
    Refused,
}

/// A connected datagram socket that never waits.
#[derive(Debug)]
pub struct Datagram {
    socket: UdpSocket,
    peer: IpAddr,
    local: SocketAddr,
    ttl: Option<u8>,
    fragmentation: Fragmentation,
}

impl Datagram {
    /// A UDP socket. With `errors` they are kept for [`Datagram::error`], else the socket does not look for them.
    ///
    /// # Errors
    /// No route leads to the peer, or no descriptor or port is free.
    pub fn udp(peer: SocketAddr, errors: bool) -> io::Result<Datagram> {
        Datagram::connect(SockType::Datagram, None, peer, errors)
    }

    /// A ping socket: what is sent are echo requests from their ICMP header on, what is received are the replies, and the
    /// host puts its own id into them, which is the port of [`Datagram::local`].
    ///
    /// # Errors
    /// As [`Datagram::udp`]; `PermissionDenied` where `net.ipv4.ping_group_range` does not include this process.
    pub fn ping(peer: IpAddr, errors: bool) -> io::Result<Datagram> {
        let protocol = if peer.is_ipv4() { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
        Datagram::connect(SockType::Datagram, Some(protocol), SocketAddr::new(peer, 0), errors)
    }

    fn connect(kind: SockType, protocol: Option<SockProtocol>, to: SocketAddr, errors: bool) -> io::Result<Datagram> {
        let peer = to.ip();
        let socket = open(peer, kind, protocol)?;
        if errors {
            errors::enable(&socket, peer)?;
        }
        connect(&socket, to)?;
        let socket = UdpSocket::from(socket);
        let local = socket.local_addr()?;
        Ok(Datagram { socket, peer, local, ttl: None, fragmentation: Fragmentation::Host })
    }

    /// Address and port, or id, that the peer sees.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends one datagram with this TTL or hop limit.
    ///
    /// # Errors
    /// The socket's error. One that an earlier datagram caused is not among them; `EMSGSIZE` says that this one is longer
    /// than the interface takes, and [`Datagram::mtu`] how much that is.
    pub fn send(&mut self, data: &[u8], ttl: u8, fragmentation: Fragmentation) -> io::Result<()> {
        if self.ttl != Some(ttl) {
            set_ttl(&self.socket, self.peer, Some(ttl))?;
            self.ttl = Some(ttl);
        }
        if self.fragmentation != fragmentation {
            self.set_fragmentation(fragmentation)?;
        }
        // What others said about earlier datagrams waits on the socket and is told instead of sending, once each; what is
        // wrong with this one is told every time.
        let mut sent = self.socket.send(data);
        for _ in 0..MOST_PENDING {
            match sent {
                Ok(_) => break,
                Err(_) => sent = self.socket.send(data),
            }
        }
        sent.map(drop)
    }

    fn set_fragmentation(&mut self, fragmentation: Fragmentation) -> io::Result<()> {
        let (level, name) = match self.peer {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
        };
        // The numbers are the same for both families.
        let value = match fragmentation {
            Fragmentation::Host => libc::IP_PMTUDISC_WANT,
            Fragmentation::Allowed => libc::IP_PMTUDISC_DONT,
            Fragmentation::Refused => libc::IP_PMTUDISC_PROBE,
        };
        set_option(&self.socket, level, name, value)?;
        self.fragmentation = fragmentation;
        Ok(())
    }

    /// The longest packet in bytes that this host would send to the peer without cutting it.
    ///
    /// # Errors
    /// The socket's error.
    pub fn mtu(&self) -> io::Result<u32> {
        let (level, name) = match self.peer {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        option(&self.socket, level, name).map(|mtu| u32::try_from(mtu).unwrap_or(0))
    }

    /// The next datagram from the peer, its length; `None` when there is none.
    ///
    /// # Errors
    /// The socket's error: with an error queue only what went wrong here, without one also what others complained about.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        unless_empty(self.socket.recv(buffer))
    }

    /// The next error about something that was sent; `None` when there is none.
    ///
    /// # Errors
    /// The socket's error.
    pub fn error(&self) -> io::Result<Option<errors::QueuedError>> {
        errors::next(&self.socket)
    }
}

impl AsFd for Datagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
