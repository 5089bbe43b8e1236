//! Datagram flows of the guest: each has a socket of its own on the host.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ctwhy_core::tuple::{Tuple, proto};
use ctwhy_linux::socket::datagram::{Datagram, Fragmentation};
use ctwhy_linux::socket::icmp::RawIcmp;

use super::Errors;
use super::guest::{self, Kind};
use super::recent::Recent;
use super::write::put;

/// How the datagrams of a flow leave the host.
#[derive(Debug)]
enum Way {
    /// Through a UDP or ping socket, connected to the peer.
    Socket(Datagram),
    /// Through the host's raw ICMP socket.
    Raw,
}

/// One flow.
#[derive(Debug)]
pub(super) struct Flow {
    way: Way,
    /// The tuple of what the host sends.
    pub(super) host: Tuple,
    used: Instant,
    pub(super) recent: Recent,
}

impl Flow {
    /// Its own socket.
    pub(super) fn socket(&self) -> Option<&Datagram> {
        match &self.way {
            Way::Socket(socket) => Some(socket),
            Way::Raw => None,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Flows {
    /// By the tuple of what the guest sends.
    flows: HashMap<Tuple, Flow>,
    /// The same tuples by those of what the host sends.
    by_host: HashMap<Tuple, Tuple>,
    idle: Duration,
    next_raw_id: u16,
}

impl Flows {
    pub(super) fn new(idle: Duration, first_raw_id: u16) -> Flows {
        Flows { flows: HashMap::new(), by_host: HashMap::new(), idle, next_raw_id: first_raw_id }
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn get_mut(&mut self, tuple: &Tuple) -> Option<&mut Flow> {
        self.flows.get_mut(tuple)
    }

    /// The flow of the guest that left the host with this tuple.
    pub(super) fn find_by_host(&mut self, host: &Tuple) -> Option<(Tuple, &mut Flow)> {
        let tuple = *self.by_host.get(host)?;
        Some((tuple, self.flows.get_mut(&tuple)?))
    }

    /// The flow without a socket of its own that an echo reply belongs to.
    pub(super) fn find_raw(&mut self, from: IpAddr, id: u16) -> Option<(Tuple, &mut Flow)> {
        let is = |flow: &Flow| matches!(flow.way, Way::Raw) && flow.host.src_u == id && flow.host.dst_ip() == from;
        self.flows.iter_mut().find(|(_, flow)| is(flow)).map(|(tuple, flow)| (*tuple, flow))
    }

    /// The sockets to wait for, with the flows that they belong to.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (Tuple, BorrowedFd<'_>)> {
        self.flows.iter().filter_map(|(tuple, flow)| Some((*tuple, flow.socket()?.as_fd())))
    }

    /// A new flow.
    ///
    /// # Errors
    /// The host's: `PermissionDenied` for an echo request where it allows neither ping sockets nor raw ones.
    pub(super) fn open(&mut self, sent: &guest::Sent<'_>, errors: Errors, raw: bool, now: Instant) -> io::Result<()> {
        let tuple = sent.tuple;
        let peer = tuple.dst_ip();
        // The raw socket sees errors better; both would tell of them twice.
        let queue = errors == Errors::Relay && !raw;
        let (way, local) = match sent.kind {
            Kind::Echo => match Datagram::ping(peer, queue) {
                Ok(socket) => with_address(socket),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && raw => {
                    // What the host would send from, a socket to the peer knows.
                    let ip = Datagram::udp(SocketAddr::new(peer, 9), false)?.local().ip();
                    self.next_raw_id = self.next_raw_id.wrapping_add(1);
                    (Way::Raw, SocketAddr::new(ip, self.next_raw_id))
                }
                Err(error) => return Err(error),
            },
            _ => with_address(Datagram::udp(SocketAddr::new(peer, tuple.dst_u), queue)?),
        };
        let host = Tuple { src: local.ip().into(), src_u: local.port(), ..tuple };
        self.by_host.insert(host, tuple);
        self.flows.insert(tuple, Flow { way, host, used: now, recent: Recent::default() });
        Ok(())
    }

    /// Ends the flows that nothing went through for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let (idle, by_host) = (self.idle, &mut self.by_host);
        self.flows.retain(|_, flow| {
            let alive = now.duration_since(flow.used) < idle;
            if !alive {
                by_host.remove(&flow.host);
            }
            alive
        });
    }
}

fn with_address(socket: Datagram) -> (Way, SocketAddr) {
    let local = socket.local();
    (Way::Socket(socket), local)
}

impl Flow {
    /// Something came or went.
    pub(super) fn touch(&mut self, now: Instant) {
        self.used = now;
    }

    /// Sends what the guest sent, and remembers it.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn send(&mut self, sent: &guest::Sent<'_>, errors: Errors, raw: Option<&RawIcmp>) -> io::Result<()> {
        let l4 = sent.l4();
        self.recent.add(sent, &self.host);
        let fragmentation = match errors {
            Errors::Drop => Fragmentation::Host,
            Errors::Relay if sent.may_be_cut() => Fragmentation::Allowed,
            Errors::Relay => Fragmentation::Refused,
        };
        let ttl = sent.packet.ttl;
        match &mut self.way {
            Way::Socket(socket) => {
                let data = if sent.kind == Kind::Udp { l4.get(8..).unwrap_or_default() } else { l4 };
                socket.send(data, ttl, fragmentation)
            }
            Way::Raw => {
                let mut message = l4.to_vec();
                put(&mut message, 2, 0);
                put(&mut message, 4, self.host.src_u);
                if self.host.protonum == proto::ICMP {
                    let checksum = ctwhy_core::checksum::Sum::default().bytes(&message).checksum();
                    put(&mut message, 2, checksum);
                }
                let raw = raw.ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))?;
                raw.send(self.host.dst_ip(), &message, ttl)
            }
        }
    }
}
