//! The error queue of a socket (`IP_RECVERR`, `IPV6_RECVERR`).

use std::io::IoSliceMut;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

use super::{IcmpError, Quote};

/// The next entry, and what it holds of the packet behind its transport header. No error where it is this host's own, such as a packet that was
/// too long for the first link.
pub(super) fn read(socket: &impl AsFd) -> Option<(Option<IcmpError>, Vec<u8>)> {
    let mut buffer = vec![0; 2048];
    let mut control = nix::cmsg_space!([u8; 512]);
    let (length, error) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
        let error = message.cmsgs().ok().into_iter().flatten().find_map(|part| match part {
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let from = from.filter(|from| i32::from(from.sin_family) == libc::AF_INET);
                told(&error, from.map(|from| IpAddr::from(from.sin_addr.s_addr.to_ne_bytes())))
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                let from = from.filter(|from| i32::from(from.sin6_family) == libc::AF_INET6);
                told(&error, from.map(|from| IpAddr::from(from.sin6_addr.s6_addr)))
            }
            _ => None,
        });
        (message.bytes, error)
    };
    buffer.truncate(length);
    Some((error, buffer))
}

fn told(error: &libc::sock_extended_err, from: Option<IpAddr>) -> Option<IcmpError> {
    match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => Some(IcmpError {
            from,
            icmp_type: error.ee_type,
            code: error.ee_code,
            mtu: error.ee_info,
            quote: Quote::Short,
        }),
        _ => None,
    }
}
