//! ICMP errors as they arrive, whether a socket got them or not. Needs CAP_NET_RAW.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{Quote, tag_of};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, socket};

/// As many are kept.
const MOST: usize = 1024;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// An ICMP error, and the addresses that it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Who sent it, if the kernel said.
    pub from: Option<IpAddr>,
    /// Type.
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
    /// Source of the quoted packet.
    pub quoted_src: IpAddr,
    /// Its destination.
    pub quoted_dst: IpAddr,
    /// Its protocol.
    pub quoted_protocol: u8,
    /// Its source port, where it is TCP or UDP and as much of it is quoted.
    pub quoted_sport: Option<u16>,
    /// Which probe it is, as far as its payload says; that of UDP only.
    pub quote: Quote,
}

/// A raw socket that sees every ICMP message for this host.
#[derive(Debug)]
pub struct Strays {
    socket: OwnedFd,
    family: AddressFamily,
    seen: Vec<Stray>,
}

impl Strays {
    /// Listens from now on, for the family of `of`.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing.
    pub fn open(of: IpAddr) -> io::Result<Strays> {
        let (family, protocol) = match of {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
        Ok(Strays { socket, family, seen: Vec::new() })
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> &[Stray] {
        &self.seen
    }

    pub(super) fn read(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut buffer) {
            let bytes = buffer.get(..length).unwrap_or_default();
            let parsed = if self.family == AddressFamily::Inet6 {
                error_v6(bytes, from.as_ref().and_then(address))
            } else {
                error_v4(bytes)
            };
            if let Some(stray) = parsed
                && self.seen.len() < MOST
            {
                self.seen.push(stray);
            }
        }
    }
}

impl AsFd for Strays {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(from: &SockaddrStorage) -> Option<IpAddr> {
    from.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

fn v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets)))
}

fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets)))
}

fn sport(protocol: u8, transport: &[u8]) -> Option<u16> {
    let port = transport.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
    port.filter(|_| matches!(protocol, TCP | UDP))
}

fn quote_of(protocol: u8, transport: &[u8]) -> Quote {
    let payload = transport.get(UDP_HEADER..).filter(|_| protocol == UDP);
    payload.map_or(Quote::Short, tag_of)
}

/// A raw IPv4 socket hands over the IP header, too.
fn error_v4(packet: &[u8]) -> Option<Stray> {
    let header = |bytes: &[u8]| Some(usize::from(*bytes.first()? & 0xf) * 4).filter(|length| *length >= IPV4_HEADER);
    let icmp = packet.get(header(packet)?..)?;
    let [icmp_type @ (3 | 4 | 5 | 11 | 12), code, ..] = *icmp else { return None };
    let quote = icmp.get(ICMP_HEADER..)?;
    let quoted_protocol = *quote.get(9)?;
    let transport = header(quote).and_then(|header| quote.get(header..)).unwrap_or_default();
    Some(Stray {
        from: v4(packet, 12),
        icmp_type,
        code,
        quoted_src: v4(quote, 12)?,
        quoted_dst: v4(quote, 16)?,
        quoted_protocol,
        quoted_sport: sport(quoted_protocol, transport),
        quote: quote_of(quoted_protocol, transport),
    })
}

fn error_v6(icmp: &[u8], from: Option<IpAddr>) -> Option<Stray> {
    let [icmp_type @ 1..128, code, ..] = *icmp else { return None };
    let quote = icmp.get(ICMP_HEADER..)?;
    let quoted_protocol = *quote.get(6)?;
    let transport = quote.get(IPV6_HEADER..).unwrap_or_default();
    Some(Stray {
        from,
        icmp_type,
        code,
        quoted_src: v6(quote, 8)?,
        quoted_dst: v6(quote, 24)?,
        quoted_protocol,
        quoted_sport: sport(quoted_protocol, transport),
        quote: quote_of(quoted_protocol, transport),
    })
}
