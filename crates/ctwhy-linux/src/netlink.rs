//! Netlink, nfnetlink above all: a socket, messages out, messages and attributes in (RFC 3549; `include/uapi/linux/netlink.h`).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout};

/// `NETLINK_ALIGNTO`: messages and attributes start at multiples of this.
const ALIGN: usize = 4;
/// `struct nlmsghdr`: length, type, flags, sequence, port id.
pub(crate) const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version, resource id.
pub(crate) const NFGEN: usize = 4;
/// `struct nlattr`: length, type.
const ATTRIBUTE: usize = 4;
/// Nested and byte-order flags are not part of an attribute's type (`NLA_TYPE_MASK`).
pub(crate) const TYPE_MASK: u16 = 0x3fff;

/// Milliseconds that an answer may take. The kernel gives it within the call that asks, unless it is lost.
const ANSWER_WITHIN: u16 = 5000;

const fn aligned(length: usize) -> usize {
    (length + ALIGN - 1) & !(ALIGN - 1)
}

/// The subsystems of nfnetlink that are spoken here (`NFNL_SUBSYS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Subsystem {
    Conntrack = libc::NFNL_SUBSYS_CTNETLINK as u8,
    Expect = libc::NFNL_SUBSYS_CTNETLINK_EXP as u8,
    Queue = libc::NFNL_SUBSYS_QUEUE as u8,
    Log = libc::NFNL_SUBSYS_ULOG as u8,
}

/// Messages under construction, one behind the other in one buffer, so that one send carries them all.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// Where the message being built starts.
    start: usize,
}

impl Outgoing {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Begins a message: `nlmsghdr` and `nfgenmsg`. The length is kept up to date by every [`Outgoing::attribute`].
    pub(crate) fn begin(&mut self, subsystem: Subsystem, message: u8, flags: u16, sequence: u32, resource: u16) {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&(u16::from(subsystem as u8) << 8 | u16::from(message)).to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[libc::AF_UNSPEC as u8, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.store_length();
    }

    /// Appends an attribute and its padding. The value must fit into 16 bits of length with its header.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> io::Result<()> {
        let length = u16::try_from(ATTRIBUTE + value.len()).map_err(|_| {
            let most = usize::from(u16::MAX) - ATTRIBUTE;
            let text = format!("a netlink attribute holds {most} bytes, not {}", value.len());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(aligned(self.bytes.len()), 0);
        self.store_length();
        Ok(())
    }

    fn store_length(&mut self) {
        let length = (self.bytes.len() - self.start) as u32;
        if let Some(place) = self.bytes.get_mut(self.start..self.start + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// What follows `nlmsghdr`.
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind `nfgenmsg`.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.body.get(NFGEN..).unwrap_or_default(), offset: HEADER + NFGEN }
    }

    /// For `NLMSG_ERROR`: the error number, 0 for an acknowledgement. `None` for every other message.
    pub(crate) fn error(&self) -> Option<io::Result<()>> {
        if i32::from(self.kind) != libc::NLMSG_ERROR {
            return None;
        }
        let errno = self.body.first_chunk::<4>().map_or(-libc::EBADMSG, |b| i32::from_ne_bytes(*b));
        Some(if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno.wrapping_neg())) })
    }

    /// Is it the end of a dump?
    pub(crate) fn is_done(&self) -> bool {
        i32::from(self.kind) == libc::NLMSG_DONE
    }
}

/// The messages in one received datagram; the first that does not fit ends the iteration with an error.
#[derive(Clone, Debug)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Messages { rest: datagram }
    }

    /// How many bytes have not been looked at.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = io::Result<Message<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(message) = parse_header(self.rest) else {
            let text =
                format!("netlink message header cut short: {} bytes left, or a length beyond them", self.rest.len());
            self.rest = &[];
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        };
        self.rest = self.rest.get(aligned(HEADER + message.body.len())..).unwrap_or_default();
        Some(Ok(message))
    }
}

fn parse_header(bytes: &[u8]) -> Option<Message<'_>> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    Some(Message {
        kind: ne16(bytes.get(4..6)?)?,
        flags: ne16(bytes.get(6..8)?)?,
        sequence: u32::from_ne_bytes(*bytes.get(8..12)?.first_chunk()?),
        body: bytes.get(HEADER..length)?,
    })
}

/// One attribute, flags of its type removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    pub(crate) fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }

    pub(crate) fn u16(&self) -> io::Result<u16> {
        be16(self.value).ok_or_else(|| self.wrong_length(2))
    }

    pub(crate) fn u32(&self) -> io::Result<u32> {
        self.value.first_chunk().map(|b| u32::from_be_bytes(*b)).ok_or_else(|| self.wrong_length(4))
    }

    pub(crate) fn u64(&self) -> io::Result<u64> {
        self.value.first_chunk().map(|b| u64::from_be_bytes(*b)).ok_or_else(|| self.wrong_length(8))
    }

    fn wrong_length(&self, wanted: usize) -> io::Error {
        let text = format!("netlink attribute {}: {} bytes where {wanted} are needed", self.kind, self.value.len());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// The attributes in a stretch of bytes; the first that does not fit ends the iteration with an error.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Attributes { rest: bytes, offset: 0 }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = io::Result<Attribute<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = self.rest.get(..2).and_then(ne16).and_then(|length| {
            let kind = self.rest.get(2..4).and_then(ne16)? & TYPE_MASK;
            Some(Attribute { kind, value: self.rest.get(ATTRIBUTE..usize::from(length))? })
        });
        let Some(attribute) = parsed else {
            let (offset, left) = (self.offset, self.rest.len());
            self.rest = &[];
            let text = format!("netlink attribute at offset {offset} does not fit into the {left} bytes left");
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        };
        let step = aligned(ATTRIBUTE + attribute.value.len());
        self.rest = self.rest.get(step..).unwrap_or_default();
        self.offset += step;
        Some(Ok(attribute))
    }
}

fn ne16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// A netlink socket of libmnl with the options that the crate mnl does not offer.
pub(crate) struct Socket {
    mnl: mnl::Socket,
    sequence: u32,
}

// SAFETY: `mnl_socket` is a descriptor and an address, touched only by calls that take `&self` or `&mut self` here;
// libmnl keeps no thread-local state for it.
unsafe impl Send for Socket {}

impl Socket {
    /// For nfnetlink. `groups` has bit `n - 1` set for each multicast group `n` to join.
    pub(crate) fn open(groups: u32) -> io::Result<Socket> {
        Socket::open_on(mnl::Bus::Netfilter, groups)
    }

    /// For rtnetlink.
    pub(crate) fn open_route(groups: u32) -> io::Result<Socket> {
        Socket::open_on(mnl::Bus::Route, groups)
    }

    fn open_on(bus: mnl::Bus, groups: u32) -> io::Result<Socket> {
        let mnl = mnl::Socket::open(bus)?;
        mnl.bind(groups, 0)?;
        Ok(Socket { mnl, sequence: 0 })
    }

    /// The receive buffer in bytes, past the system's limit where CAP_NET_ADMIN of the machine allows it
    /// (`SO_RCVBUFFORCE`), else up to `net.core.rmem_max`. Gives the size that the kernel granted (it counts double).
    pub(crate) fn set_receive_buffer(&self, bytes: usize) -> io::Result<usize> {
        let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        if self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted).is_err() {
            self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUF, wanted)?;
        }
        let mut granted: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: both pointers are to live locals, and `length` says how large the first is.
        let result = unsafe {
            libc::getsockopt(
                self.mnl.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                (&raw mut granted).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(usize::try_from(granted).unwrap_or(0))
    }

    /// `NETLINK_NO_ENOBUFS`: a full receive buffer loses messages silently instead of failing the next receive.
    pub(crate) fn set_no_enobufs(&self) -> io::Result<()> {
        self.set_option(libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS, 1)
    }

    fn set_option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the pointer is to a live local of `length` bytes.
        let result = unsafe { libc::setsockopt(self.mnl.as_raw_fd(), level, name, (&raw const value).cast(), length) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A sequence number for the next request.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.mnl.send(bytes)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    /// One datagram, `None` when none is there. A datagram larger than the buffer is an error.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8], flags: libc::c_int) -> io::Result<Option<&'a [u8]>> {
        loop {
            // SAFETY: the pointer and length are those of a live, exclusively borrowed slice.
            let got = unsafe {
                let flags = flags | libc::MSG_TRUNC;
                libc::recv(self.mnl.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags)
            };
            let Ok(got) = usize::try_from(got) else {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock => return Ok(None),
                    _ => return Err(error),
                }
            };
            let room = buffer.len();
            return buffer.get(..got).map(Some).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("netlink datagram of {got} bytes, room for {room}"))
            });
        }
    }

    /// Sends one request that has `NLM_F_ACK` set and waits for its answer. Other messages that arrive before it are
    /// handed to `other`. An answer that found no room in the receive buffer never comes, so the wait has an end.
    pub(crate) fn request(&self, bytes: &[u8], sequence: u32, mut other: impl FnMut(Message<'_>)) -> io::Result<()> {
        self.send(bytes)?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            match nix::poll::poll(&mut fds, PollTimeout::from(ANSWER_WITHIN)) {
                Err(nix::errno::Errno::EINTR) => continue,
                Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer")),
                ready => ready?,
            };
            let Some(datagram) = self.receive(&mut buffer, libc::MSG_DONTWAIT)? else { continue };
            for message in Messages::new(datagram) {
                let message = message?;
                match message.error() {
                    Some(answer) if message.sequence == sequence => return answer,
                    _ => other(message),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.mnl`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.mnl.as_raw_fd()) }
    }
}

/// Messages were lost because the receive buffer was full (`ENOBUFS`).
pub(crate) struct Lost;

/// A socket on which the kernel sends whatever happens, and what has been received from it but not been looked at.
pub(crate) struct Subscription {
    socket: Socket,
    buffer: Vec<u8>,
    pending: std::ops::Range<usize>,
}

impl Subscription {
    pub(crate) fn new(socket: Socket) -> Subscription {
        Subscription { socket, buffer: vec![0; 256 << 10], pending: 0..0 }
    }

    /// The next message that `read` makes something of; `None` when none is there. Never waits.
    pub(crate) fn next<T>(
        &mut self,
        mut read: impl FnMut(&Message<'_>) -> io::Result<Option<T>>,
    ) -> io::Result<Option<Result<T, Lost>>> {
        loop {
            let mut messages = Messages::new(self.buffer.get(self.pending.clone()).unwrap_or_default());
            while let Some(message) = messages.next() {
                self.pending.start = self.pending.end - messages.left();
                if let Some(value) = read(&message?)? {
                    return Ok(Some(Ok(value)));
                }
            }
            match self.socket.receive(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(Some(datagram)) => self.pending = 0..datagram.len(),
                Ok(None) => return Ok(None),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Some(Err(Lost))),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What a test builds messages from and how it damages them.
#[cfg(test)]
pub(crate) mod damage {
    use super::*;

    /// A message with these attributes.
    pub(crate) fn message(subsystem: Subsystem, kind: u8, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut out = Outgoing::default();
        out.begin(subsystem, kind, 0, 0, 0);
        for (kind, value) in attributes {
            out.attribute(*kind, value).unwrap();
        }
        out.bytes().to_vec()
    }

    /// The bytes of attributes, to be an attribute's value.
    pub(crate) fn nest(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        message(Subsystem::Conntrack, 0, attributes).split_off(HEADER + NFGEN)
    }

    /// Every cut of a message and every byte of it changed in four ways: `read` must not panic.
    pub(crate) fn every_way(bytes: &[u8], mut read: impl FnMut(&Message<'_>)) {
        let mut try_one = |bytes: &[u8]| Messages::new(bytes).map_while(Result::ok).for_each(|m| read(&m));
        for at in 0..bytes.len() {
            let mut cut = bytes[..at].to_vec();
            if let Some(length) = cut.first_chunk_mut::<4>() {
                *length = (at as u32).to_ne_bytes();
            }
            try_one(&cut);
            for change in [0x01, 0x80, 0xff, bytes[at]] {
                let mut changed = bytes.to_vec();
                changed[at] ^= change;
                try_one(&changed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_parsed_and_padded() {
        let mut out = Outgoing::default();
        for sequence in [7, 8] {
            out.begin(Subsystem::Queue, 1, 5, sequence, 513);
            out.attribute(10, &[1, 2, 3, 4, 5]).unwrap();
            out.attribute(3, &9u32.to_be_bytes()).unwrap();
        }
        assert_eq!(out.bytes().len() % 4, 0);
        let messages: Vec<_> = Messages::new(out.bytes()).map(Result::unwrap).collect();
        assert_eq!(messages.iter().map(|m| m.sequence).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(messages[1].body[2..4], [2, 1]);
        let attributes: Vec<_> = messages[1].attributes().map(Result::unwrap).collect();
        assert_eq!(attributes[0].value, [1, 2, 3, 4, 5]);
        assert_eq!(attributes[1].u32().unwrap(), 9);
    }

    #[test]
    fn every_cut_ends_in_an_error_or_in_nothing() {
        let mut out = Outgoing::default();
        out.begin(Subsystem::Queue, 1, 5, 1, 1);
        out.attribute(10, &[1, 2, 3, 4, 5]).unwrap();
        for cut in 1..out.bytes().len() {
            assert!(Messages::new(&out.bytes()[..cut]).next().unwrap().is_err(), "{cut}");
        }
        for length in 0..=u8::MAX {
            let bytes = [length, 0, 1, 0, 9, 9];
            let first = Attributes::new(&bytes).next().unwrap();
            assert_eq!(first.is_ok(), (4..=6).contains(&length), "{length}");
        }
    }

    #[test]
    fn a_value_too_long_for_its_attribute_is_refused() {
        let mut out = Outgoing::default();
        out.begin(Subsystem::Queue, 1, 5, 1, 1);
        let error = out.attribute(10, &vec![0; 65532]).unwrap_err();
        assert_eq!(error.to_string(), "a netlink attribute holds 65531 bytes, not 65532");
    }
}
