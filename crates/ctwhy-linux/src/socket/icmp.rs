//! A raw ICMP or ICMPv6 socket: the errors themselves, with all that they quote, and echo without ping sockets.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, SockProtocol, SockType, SockaddrStorage, recvmsg};

use super::{open, set_option, set_ttl, unless_empty};
use crate::context;

/// `IPV6_CHECKSUM` is the kernel's for ICMPv6; for IPv4 the sender makes the checksum.
#[derive(Debug)]
pub struct RawIcmp {
    socket: UdpSocket,
    /// The unspecified address of the family.
    any: IpAddr,
}

/// A message that this host received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub from: IpAddr,
    /// Where in the buffer the message is: its start and its end. For IPv4 the IP header is in front of it.
    pub message: (usize, usize),
}

impl RawIcmp {
    /// Opens one for the family of `any`.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW.
    pub fn open(any: IpAddr) -> io::Result<RawIcmp> {
        let protocol = if any.is_ipv4() { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
        let socket = open(any, SockType::Raw, Some(protocol)).map_err(context("a raw ICMP socket"))?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 1 << 20)?;
        Ok(RawIcmp { socket: UdpSocket::from(socket), any })
    }

    /// Sends a message, from its ICMP header on. The checksum of an ICMPv6 message is the kernel's work.
    ///
    /// # Errors
    /// The socket's error.
    pub fn send(&self, to: IpAddr, message: &[u8], ttl: u8) -> io::Result<()> {
        set_ttl(&self.socket, self.any, Some(ttl))?;
        self.socket.send_to(message, SocketAddr::new(to, 0)).map(drop)
    }

    /// The next message; `None` when there is none.
    ///
    /// # Errors
    /// The socket's error.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = self.socket.as_raw_fd();
        let got = recvmsg::<SockaddrStorage>(fd, &mut parts, None, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from);
        let Some((length, from)) = unless_empty(got.map(|message| (message.bytes, message.address)))? else {
            return Ok(None);
        };
        let from = from.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        });
        let start = match self.any {
            IpAddr::V4(_) => buffer.first().map_or(0, |first| usize::from(first & 0x0f) * 4),
            IpAddr::V6(_) => 0,
        };
        let from = from.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an ICMP message from nowhere"))?;
        Ok(Some(Received { from, message: (start.min(length), length) }))
    }
}

impl AsFd for RawIcmp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
