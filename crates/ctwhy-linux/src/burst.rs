//! Many frames at once onto the interfaces of one namespace, each with a mark, and off them (`sendmmsg`, `recvmmsg`).
//!
//! The mark is the packet's name: set by the sender, it goes with the packet over a cable whose ends are in the same
//! namespace, through every hook and out again, and the receiver is told it (`SO_MARK`, `SO_RCVMARK`).

use std::ffi::CString;
use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::context;

/// Messages of one system call.
const AT_ONCE: usize = 128;
/// No frame on a cable is longer.
const LONGEST: usize = 2048;

/// A frame to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Marked<'a> {
    /// The mark that it gets.
    pub mark: u32,
    /// Index of the interface that sends it.
    pub interface: u32,
    /// From the Ethernet header on.
    pub bytes: &'a [u8],
}

/// Room for one control message with a 32-bit value, aligned as `cmsghdr` wants it.
type Control = [u64; 4];

/// A packet socket that sends on every interface of the calling thread's namespace and receives nothing.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Opens one.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing.
    pub fn open() -> io::Result<Sender> {
        packet_socket().map(|socket| Sender { socket }).map_err(context("packet socket"))
    }

    /// Sends frames in their order.
    ///
    /// # Errors
    /// The socket's error. The frames before the one that was refused are sent.
    pub fn send(&self, frames: &[Marked<'_>]) -> io::Result<()> {
        frames.chunks(AT_ONCE).try_for_each(|chunk| self.send_chunk(chunk))
    }

    fn send_chunk(&self, frames: &[Marked<'_>]) -> io::Result<()> {
        // SAFETY: all-zero is a valid value of each of these.
        let (mut names, mut vectors, mut headers): (
            [libc::sockaddr_ll; AT_ONCE],
            [libc::iovec; AT_ONCE],
            [libc::mmsghdr; AT_ONCE],
        ) = unsafe { std::mem::zeroed() };
        let mut controls: [Control; AT_ONCE] = [[0; 4]; AT_ONCE];
        let parts = names.iter_mut().zip(&mut vectors).zip(&mut headers).zip(&mut controls);
        for (frame, (((name, vector), header), control)) in frames.iter().zip(parts) {
            name.sll_family = libc::AF_PACKET as u16;
            name.sll_ifindex = frame.interface.cast_signed();
            vector.iov_base = frame.bytes.as_ptr().cast_mut().cast();
            vector.iov_len = frame.bytes.len();
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut *name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            header.msg_iov = &raw mut *vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            // SAFETY: `control` has room for one control message with four bytes, and is aligned for its header.
            unsafe {
                header.msg_controllen = libc::CMSG_SPACE(size_of::<u32>() as u32) as _;
                let part = libc::CMSG_FIRSTHDR(header);
                (*part).cmsg_level = libc::SOL_SOCKET;
                (*part).cmsg_type = libc::SO_MARK;
                (*part).cmsg_len = libc::CMSG_LEN(size_of::<u32>() as u32) as _;
                libc::CMSG_DATA(part).cast::<u32>().write_unaligned(frame.mark);
            }
        }
        let mut done = 0;
        while done < frames.len() {
            let rest = headers.get_mut(done..frames.len()).unwrap_or_default();
            // SAFETY: the headers and everything that they point at are alive and as long as they say.
            let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
            match usize::try_from(sent) {
                Ok(sent) => done += sent,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        // The queue of the socket is full until the kernel has handled what is in it.
                        io::ErrorKind::WouldBlock => std::thread::yield_now(),
                        _ if error.raw_os_error() == Some(libc::ENOBUFS) => std::thread::yield_now(),
                        _ => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }
}

/// A packet socket that receives what arrives at one interface, with its mark.
pub struct Catcher {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Catcher {
    /// Opens an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// No such interface, CAP_NET_RAW is missing, or a kernel before 5.19 that does not tell marks.
    pub fn open(interface: &str) -> io::Result<Catcher> {
        let open = || -> io::Result<Catcher> {
            let index = interface_index(interface)?;
            let socket = packet_socket()?;
            set(&socket, libc::SOL_SOCKET, libc::SO_RCVMARK, 1)?;
            set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20)?;
            set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
            // SAFETY: all-zero is a valid `sockaddr_ll`.
            let mut bound: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            bound.sll_family = libc::AF_PACKET as u16;
            bound.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            bound.sll_ifindex = index.cast_signed();
            let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: the pointer is to a live local of `length` bytes.
            let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const bound).cast(), length) };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Catcher { socket, buffer: vec![0; AT_ONCE * LONGEST] })
        };
        open().map_err(context(format_args!("packet socket on {interface}")))
    }

    /// Hands over the mark and the bytes, from the Ethernet header on, of every frame that is there. Never waits.
    ///
    /// # Errors
    /// The socket's error.
    pub fn receive(&mut self, mut take: impl FnMut(u32, &[u8])) -> io::Result<()> {
        loop {
            // SAFETY: all-zero is a valid value of both.
            let (mut vectors, mut headers): ([libc::iovec; AT_ONCE], [libc::mmsghdr; AT_ONCE]) =
                unsafe { std::mem::zeroed() };
            let mut controls: [Control; AT_ONCE] = [[0; 4]; AT_ONCE];
            let rooms = self.buffer.chunks_exact_mut(LONGEST);
            for (((room, vector), header), control) in rooms.zip(&mut vectors).zip(&mut headers).zip(&mut controls) {
                vector.iov_base = room.as_mut_ptr().cast();
                vector.iov_len = room.len();
                header.msg_hdr.msg_iov = &raw mut *vector;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = size_of_val(control) as _;
            }
            // SAFETY: the headers and everything that they point at are alive and as long as they say.
            let got = unsafe {
                let (flags, none) = (libc::MSG_DONTWAIT, std::ptr::null_mut());
                libc::recvmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), AT_ONCE as u32, flags as _, none)
            };
            let Ok(got) = usize::try_from(got) else {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(()),
                    io::ErrorKind::Interrupted => continue,
                    _ => Err(error),
                };
            };
            for (header, room) in headers.iter().take(got).zip(self.buffer.chunks_exact(LONGEST)) {
                let bytes = room.get(..header.msg_len as usize).unwrap_or(room);
                take(mark(&header.msg_hdr), bytes);
            }
            if got < AT_ONCE {
                return Ok(());
            }
        }
    }

    /// How many frames found no room since this was asked last (`PACKET_STATISTICS`).
    ///
    /// # Errors
    /// The socket's error.
    pub fn lost(&self) -> io::Result<u32> {
        // SAFETY: all-zero is a valid `tpacket_stats`.
        let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: both pointers are to live locals, and `length` says how large the first is.
        let result = unsafe {
            let value = (&raw mut stats).cast();
            let socket = self.socket.as_raw_fd();
            libc::getsockopt(socket, libc::SOL_PACKET, libc::PACKET_STATISTICS, value, &raw mut length)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(stats.tp_drops) }
    }
}

impl AsFd for Catcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Index of an interface of the calling thread's namespace.
///
/// # Errors
/// No such interface.
pub fn interface_index(interface: &str) -> io::Result<u32> {
    let name = CString::new(interface)?;
    // SAFETY: the name ends in a zero byte.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(context(interface)(io::Error::last_os_error())),
        index => Ok(index),
    }
}

/// `SO_MARK` of a received frame; zero when it has none.
fn mark(header: &libc::msghdr) -> u32 {
    // SAFETY: the kernel filled the control buffer that the header still points at; the macros stay within it.
    unsafe {
        let mut part = libc::CMSG_FIRSTHDR(header);
        while let Some(found) = part.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SO_MARK {
                return libc::CMSG_DATA(part).cast::<u32>().read_unaligned();
            }
            part = libc::CMSG_NXTHDR(header, part);
        }
    }
    0
}

/// A raw packet socket that is bound to nothing and receives nothing.
fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: a system call on numbers; the descriptor is nobody else's.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn set(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live local of `length` bytes.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
