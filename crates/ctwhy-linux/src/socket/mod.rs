//! Sockets of this host that say where an error came from: what a NAT made of sockets stands on.
//!
//! [`datagram`] and [`stream`] are sockets to one peer, [`errors`] is their error queue, and [`icmp`] is a raw socket that
//! sees the errors themselves. [`raw`] sends whole packets.

pub mod datagram;
pub mod errors;
pub mod icmp;
pub mod raw;
pub mod stream;

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage};

/// `setsockopt` of a whole number.
pub(crate) fn set_option(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live local of `length` bytes.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast::<libc::c_void>(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `getsockopt` of a whole number.
fn option(socket: impl AsFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers are to live locals, and at most `length` bytes are written.
    let result = unsafe {
        let value = (&raw mut value).cast::<libc::c_void>();
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value, &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A socket for packets to `to` that never waits.
fn open(to: IpAddr, kind: SockType, protocol: Option<SockProtocol>) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(nix::sys::socket::socket(family, kind, flags, protocol)?)
}

/// `connect`, which may still be under way when this returns.
fn connect(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    match nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// TTL or hop limit of what a socket sends; `None` is the system's own.
fn set_ttl(socket: impl AsFd, to: IpAddr, ttl: Option<u8>) -> io::Result<()> {
    let (level, name) = match to {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    };
    set_option(socket, level, name, ttl.map_or(-1, i32::from))
}

/// What a socket without data to read says is no error.
fn unless_empty<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
