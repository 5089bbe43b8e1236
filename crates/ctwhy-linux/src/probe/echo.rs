//! Echo requests: by a ping socket where this user's group may have one, by a raw socket where that is allowed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};

use super::{HEADER, Quote, options, send_past_errors, tag_of};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// A socket for echo requests to one host.
#[derive(Debug)]
pub struct EchoSocket {
    socket: OwnedFd,
    family: AddressFamily,
    /// The identifier that we write; the kernel writes that of a ping socket.
    raw: Option<u16>,
}

impl EchoSocket {
    /// A socket for requests to `to`, the `number`th of this process.
    ///
    /// # Errors
    /// This user may have neither kind of socket: the setting that allows the first is named.
    pub(super) fn open(family: AddressFamily, to: IpAddr, number: usize) -> io::Result<EchoSocket> {
        let protocol = if family == AddressFamily::Inet6 { SockProtocol::IcmpV6 } else { SockProtocol::Icmp };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let ping = socket(family, SockType::Datagram, flags, protocol);
        let (socket, raw) = match ping {
            Ok(socket) => (socket, None),
            Err(Errno::EACCES | Errno::EPERM | Errno::EPROTONOSUPPORT) => {
                let raw = socket_or_why(family, flags, protocol)?;
                // The process and the flow, so that two of either do not meet.
                let id = (std::process::id() as u16).rotate_left(8) ^ number as u16;
                (raw, Some(id))
            }
            Err(errno) => return Err(errno.into()),
        };
        options::hear_errors(&socket, family)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to, 0)))?;
        Ok(EchoSocket { socket, family, raw })
    }

    /// Sends a request with the tag as its sequence number.
    pub(super) fn send(&self, tag: u32, payload: &[u8]) -> io::Result<()> {
        let echo_type = if self.family == AddressFamily::Inet6 { ECHO_REQUEST_V6 } else { ECHO_REQUEST };
        let mut message = vec![echo_type, 0, 0, 0];
        message.extend(self.raw.unwrap_or(0).to_be_bytes());
        message.extend((tag as u16).to_be_bytes());
        message.extend(payload);
        if self.raw.is_some() && self.family != AddressFamily::Inet6 {
            let checksum = checksum(&message);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        send_past_errors(&self.socket.as_fd(), &message)
    }

    /// Which of our requests an error quotes.
    pub(super) fn quote(&self, quoted: &[u8]) -> Quote {
        match quoted.get(HEADER..) {
            Some(payload) => tag_of(payload),
            None => Quote::Short,
        }
    }

    /// The tag of the request that a message answers; `None` for any other message.
    pub(super) fn reply(&self, family: AddressFamily, received: &[u8]) -> Option<u32> {
        let message = match (family, self.raw) {
            // An IPv4 raw socket hands over the IP header as well.
            (AddressFamily::Inet, Some(_)) => received.get(usize::from(*received.first()? & 0xf) * 4..)?,
            _ => received,
        };
        let expected = if family == AddressFamily::Inet6 { ECHO_REPLY_V6 } else { ECHO_REPLY };
        let (header, payload) = message.split_first_chunk::<HEADER>()?;
        let id = u16::from_be_bytes([header[4], header[5]]);
        if header[0] != expected || self.raw.is_some_and(|own| own != id) {
            return None;
        }
        match tag_of(payload) {
            Quote::Tag(tag) => Some(tag),
            _ => None,
        }
    }
}

impl AsFd for EchoSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket_or_why(family: AddressFamily, flags: SockFlag, protocol: SockProtocol) -> io::Result<OwnedFd> {
    socket(family, SockType::Raw, flags, protocol).map_err(|errno| match errno {
        Errno::EPERM | Errno::EACCES => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "this user may not send echo requests: the group is not in net.ipv4.ping_group_range, and CAP_NET_RAW is missing",
        ),
        errno => errno.into(),
    })
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), 0x00ff);
    }
}
