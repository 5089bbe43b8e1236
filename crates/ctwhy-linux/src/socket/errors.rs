//! The error queue of a socket (`IP_RECVERR`, `IPV6_RECVERR`): who complained, about what, and how the quote went on.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

use super::set_option;

/// `IP_RECVERR_RFC4884`, of `<linux/in.h>`.
const IP_RECVERR_RFC4884: i32 = 26;
/// `IPV6_RECVERR_RFC4884`, of `<linux/in6.h>`.
const IPV6_RECVERR_RFC4884: i32 = 31;
/// As much of a quote as an IPv6 error can carry, in bytes.
const QUOTE: usize = 1280;

/// Where an error in the queue came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This host refused to send.
    Local,
    /// An ICMP or ICMPv6 error.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// Who sent it.
        offender: IpAddr,
    },
}

/// One error of the queue (`struct sock_extended_err`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedError {
    /// Where it came from.
    pub origin: Origin,
    /// The number that the socket would otherwise have returned.
    pub errno: i32,
    /// The MTU in bytes, or the pointer of a parameter problem; else 0.
    pub info: u32,
    /// What the error quotes: of a UDP datagram the data behind its header, of an echo the ICMP message.
    pub quoted: Vec<u8>,
    /// Where in `quoted` the extension of RFC 4884 starts, where there is one and it is whole.
    pub extension: Option<usize>,
}

/// Asks for errors to be kept.
///
/// # Errors
/// The socket's error.
pub fn enable(socket: impl AsFd, to: IpAddr) -> io::Result<()> {
    let (level, name, extensions) = match to {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR, IP_RECVERR_RFC4884),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, IPV6_RECVERR_RFC4884),
    };
    set_option(socket.as_fd(), level, name, 1)?;
    // Kernels before 5.9 do not know it: then an extension cannot be told from the quote.
    let _ = set_option(socket, level, extensions, 1);
    Ok(())
}

/// Takes the next error; `None` when there is none.
///
/// # Errors
/// The socket's error.
pub fn next(socket: impl AsFd) -> io::Result<Option<QueuedError>> {
    let mut buffer = [0; QUOTE];
    let mut control = nix::cmsg_space!([u8; 128]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let fd = socket.as_fd().as_raw_fd();
    let message = match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags) {
        Ok(message) => message,
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let length = message.bytes;
    let mut found = None;
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv4RecvErr(error, offender) => {
                let offender =
                    offender.map(|address| IpAddr::from(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr))));
                found = Some((error, offender));
            }
            ControlMessageOwned::Ipv6RecvErr(error, offender) => {
                let offender = offender.map(|address| IpAddr::from(Ipv6Addr::from(address.sin6_addr.s6_addr)));
                found = Some((error, offender));
            }
            _ => {}
        }
    }
    let Some((error, offender)) = found else { return Ok(None) };
    let origin = match (error.ee_origin, offender) {
        (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, Some(offender)) => {
            Origin::Icmp { kind: error.ee_type, code: error.ee_code, offender }
        }
        _ => Origin::Local,
    };
    // `struct sock_ee_data_rfc4884`: the length, flags of which the first says that the extension is invalid, a spare byte.
    let [l0, l1, invalid, _] = error.ee_data.to_ne_bytes();
    let extension = Some(usize::from(u16::from_ne_bytes([l0, l1]))).filter(|at| *at > 0 && invalid & 1 == 0);
    let extension = extension.filter(|at| *at < length);
    let quoted = buffer.get(..length).unwrap_or_default().to_vec();
    Ok(Some(QueuedError { origin, errno: error.ee_errno.cast_signed(), info: error.ee_info, quoted, extension }))
}
