//! Packets of this host from their IP header on (`IPPROTO_RAW`): they are routed, and pass LOCAL_OUT.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};

use nix::sys::socket::{SockProtocol, SockType};

use super::open;
use crate::context;

/// A raw socket of each family. It never waits.
#[derive(Debug)]
pub struct RawSender {
    v4: UdpSocket,
    v6: UdpSocket,
}

impl RawSender {
    /// Opens both.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW.
    pub fn open() -> io::Result<RawSender> {
        let open = |any: IpAddr| open(any, SockType::Raw, Some(SockProtocol::Raw)).map_err(context("a raw socket"));
        let (v4, v6) = (open(Ipv4Addr::UNSPECIFIED.into())?, open(Ipv6Addr::UNSPECIFIED.into())?);
        Ok(RawSender { v4: v4.into(), v6: v6.into() })
    }

    /// Sends a packet to the destination in its header. Where its IPv4 source is 0.0.0.0 the kernel fills in one of its own,
    /// and it always makes the checksum of that header. `interface` is where a link-local destination is, by number.
    ///
    /// # Errors
    /// The socket's error; `InvalidInput` for what has no IP header.
    pub fn send(&self, packet: &[u8], interface: Option<u32>) -> io::Result<()> {
        let no_header = || io::Error::new(io::ErrorKind::InvalidInput, "what is to be sent has no IP header");
        let bytes = |at: usize, len: usize| packet.get(at..at + len).ok_or_else(no_header);
        let (socket, to) = match packet.first().map(|first| first >> 4) {
            Some(4) => {
                let to: [u8; 4] = bytes(16, 4)?.try_into().map_err(|_| no_header())?;
                (&self.v4, SocketAddr::V4(SocketAddrV4::new(to.into(), 0)))
            }
            Some(6) => {
                let to: [u8; 16] = bytes(24, 16)?.try_into().map_err(|_| no_header())?;
                let to = Ipv6Addr::from(to);
                let scope = interface.filter(|_| to.is_unicast_link_local()).unwrap_or(0);
                (&self.v6, SocketAddr::V6(SocketAddrV6::new(to, 0, 0, scope)))
            }
            _ => return Err(no_header()),
        };
        socket.send_to(packet, to).map(drop)
    }
}
