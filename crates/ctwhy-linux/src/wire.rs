//! Raw frames onto an interface and off it (`AF_PACKET`).
//!
//! The kernel verifies the checksums of packets that are put on a cable here, unlike those of its own sockets (OBS-15).

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::context;

/// An Ethernet address.
pub type HardwareAddress = [u8; 6];

/// Ethernet header: destination, source, type.
const ETHERNET: usize = 14;

/// Which way a captured frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Received by the interface.
    In,
    /// Sent by it.
    Out,
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Received or sent.
    pub way: Way,
    /// When, since the epoch.
    pub time: Duration,
    /// EtherType.
    pub hw_protocol: u16,
    /// The frame from its Ethernet header on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// What is behind the Ethernet header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(ETHERNET..).unwrap_or_default()
    }
}

/// A packet socket on one interface. Receiving never waits: poll the descriptor.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    index: u32,
    address: HardwareAddress,
}

impl Wire {
    /// Opens an interface of the calling thread's network namespace. Frames are captured from here on.
    ///
    /// # Errors
    /// No such interface, or CAP_NET_RAW is missing.
    pub fn open(interface: &str) -> io::Result<Wire> {
        Wire::open_in_this_namespace(interface).map_err(context(format_args!("packet socket on {interface}")))
    }

    fn open_in_this_namespace(interface: &str) -> io::Result<Wire> {
        let name = CString::new(interface)?;
        // SAFETY: the name ends in a zero byte.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // Protocol 0: nothing is received before the socket is bound to the interface.
        // SAFETY: a system call on numbers; the descriptor is nobody else's.
        let socket = unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let fd = libc::socket(libc::AF_PACKET, kind, 0);
            if fd < 0 {
                let error = io::Error::last_os_error();
                return Err(if error.raw_os_error() == Some(libc::EPERM) {
                    io::Error::new(error.kind(), "needs CAP_NET_RAW in this network namespace")
                } else {
                    error
                });
            }
            OwnedFd::from_raw_fd(fd)
        };
        for (option, value) in [(libc::SO_TIMESTAMPNS, 1), (libc::SO_RCVBUF, 4 << 20)] {
            let value: libc::c_int = value;
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            // SAFETY: the pointer is to a live local of `length` bytes.
            let result = unsafe {
                let value = (&raw const value).cast();
                libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, length)
            };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: all-zero is a valid `sockaddr_ll`.
        let mut bound: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        bound.sll_family = libc::AF_PACKET as u16;
        bound.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        bound.sll_ifindex = index.cast_signed();
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer is to a live local of `length` bytes; the second call writes at most that many.
        unsafe {
            if libc::bind(socket.as_raw_fd(), (&raw const bound).cast(), length) < 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getsockname(socket.as_raw_fd(), (&raw mut bound).cast(), &raw mut length) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let [a0, a1, a2, a3, a4, a5, ..] = bound.sll_addr;
        Ok(Wire { socket, index, address: [a0, a1, a2, a3, a4, a5] })
    }

    /// Index of the interface.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Ethernet address of the interface.
    #[must_use]
    pub fn hardware_address(&self) -> HardwareAddress {
        self.address
    }

    /// Sends a frame, Ethernet header included.
    ///
    /// # Errors
    /// The socket's error; a frame longer than the MTU allows is one.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length are those of a live slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next captured frame; `None` when none is there.
    ///
    /// # Errors
    /// The socket's error.
    pub fn recv(&self) -> io::Result<Option<Frame>> {
        let mut bytes = vec![0u8; 64 << 10];
        let mut control = [0u64; 16];
        // SAFETY: all-zero is a valid `sockaddr_ll` and a valid `msghdr`.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        header.msg_name = (&raw mut from).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = std::mem::size_of_val(&control);
        // SAFETY: everything that the header points at is alive and as long as it says.
        let got = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, 0) };
        let Ok(got) = usize::try_from(got) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        };
        bytes.truncate(got);
        let way = if from.sll_pkttype == libc::PACKET_OUTGOING { Way::Out } else { Way::In };
        Ok(Some(Frame { way, time: time_stamp(&header), hw_protocol: u16::from_be(from.sll_protocol), bytes }))
    }
}

/// `SCM_TIMESTAMPNS`; zero when the kernel gave none.
fn time_stamp(header: &libc::msghdr) -> Duration {
    // SAFETY: the kernel filled the control buffer that the header still points at; the macros stay within it.
    unsafe {
        let mut part = libc::CMSG_FIRSTHDR(header);
        while let Some(found) = part.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_TIMESTAMPNS {
                let time: libc::timespec = libc::CMSG_DATA(part).cast::<libc::timespec>().read_unaligned();
                let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
                return Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0));
            }
            part = libc::CMSG_NXTHDR(header, part);
        }
    }
    Duration::ZERO
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Puts IP packets onto a cable, addressed to the interface at its other end.
#[derive(Debug)]
pub struct Injector {
    wire: Wire,
    destination: HardwareAddress,
}

impl Injector {
    pub(crate) fn new(wire: Wire, destination: HardwareAddress) -> Injector {
        Injector { wire, destination }
    }

    /// Sends one packet, from its IP header on.
    ///
    /// # Errors
    /// It is neither IPv4 nor IPv6, or the socket's error.
    pub fn inject(&self, packet: &[u8]) -> io::Result<()> {
        let ethertype: u16 = match packet.first().map(|byte| byte >> 4) {
            Some(4) => 0x0800,
            Some(6) => 0x86dd,
            _ => {
                let text = "neither an IPv4 nor an IPv6 packet: the first four bits tell";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        let mut frame = Vec::with_capacity(ETHERNET + packet.len());
        frame.extend_from_slice(&self.destination);
        frame.extend_from_slice(&self.wire.address);
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame.extend_from_slice(packet);
        self.wire.send(&frame)
    }
}
