//! What goes through a NAT: many small datagrams one way, one at a time there and back, a TCP connection.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ctwhy_linux::lab::Lab;
use ctwhy_linux::program;

/// 64 bytes from the IP header on.
const PAYLOAD: usize = 36;
/// Flows side by side.
const FLOWS: usize = 8;
/// No system call sends or receives more.
const AT_ONCE: usize = 64;
/// So many datagrams are under way at most, unless as many are sent as can be: any queue has room for them.
const WINDOW: u64 = 256;
/// What has not arrived when nothing has for so long is lost.
const LOST_AFTER: Duration = Duration::from_millis(50);

const SERVER: [u8; 4] = [192, 0, 2, 80];
const UDP_PORT: u16 = 5300;
const ECHO_PORT: u16 = 7;

/// How datagrams are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    /// Datagrams of one flow behind each other, 64 at most.
    pub(crate) burst: usize,
    /// Are no more sent than arrive?
    pub(crate) windowed: bool,
}

/// What became of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
    /// Datagrams that arrived each second while they were sent.
    pub(crate) rate: f64,
}

fn server(port: u16) -> SocketAddr {
    SocketAddr::from((SERVER, port))
}

fn client_socket(lab: &Lab, port: u16) -> io::Result<UdpSocket> {
    let socket = lab.in_node("client", || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.connect(server(port))?;
    Ok(socket)
}

fn server_socket(lab: &Lab, port: u16) -> io::Result<UdpSocket> {
    let socket = lab.in_node("server", || UdpSocket::bind(server(port)))??;
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    let size: libc::c_int = 32 << 20;
    let set = |option| {
        // SAFETY: the pointer and length are those of a live local.
        unsafe {
            let length = size_of_val(&size) as libc::socklen_t;
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const size).cast(), length)
        }
    };
    // An ordinary user gets as much as the system gives (net.core.rmem_max).
    if set(libc::SO_RCVBUFFORCE) < 0 && set(libc::SO_RCVBUF) < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Sends small datagrams from client to server for so long.
pub(crate) fn datagrams(lab: &Lab, offered: Offered, duration: Duration) -> io::Result<Arrived> {
    let receiver = server_socket(lab, UDP_PORT)?;
    let senders = (0..FLOWS).map(|_| client_socket(lab, UDP_PORT)).collect::<io::Result<Vec<_>>>()?;
    introduce(&senders, &receiver)?;
    let (arrived, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let counting = scope.spawn(|| count(&receiver, &arrived, &over));
        let sent = send(&senders, offered, duration, &arrived);
        over.store(true, Ordering::Relaxed);
        counting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let (sent, rate) = sent?;
        Ok(Arrived { sent, arrived: arrived.load(Ordering::Relaxed), rate })
    })
}

/// Has the server answer a first datagram of each flow, so that all are known and answered before the clock runs.
fn introduce(senders: &[UdpSocket], receiver: &UdpSocket) -> io::Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    for sender in senders {
        sender.set_nonblocking(true)?;
        let mut answered = false;
        // What was lost, or came late, is sent again.
        while !answered {
            sender.send(&[0; PAYLOAD])?;
            while let Ok((_, from)) = receiver.recv_from(&mut [0; PAYLOAD]) {
                receiver.send_to(&[0; PAYLOAD], from)?;
            }
            answered = sender.recv(&mut [0; PAYLOAD]).is_ok();
            if Instant::now() > end {
                return Err(io::Error::new(ErrorKind::TimedOut, "no datagram came through and back"));
            }
        }
        sender.set_nonblocking(false)?;
    }
    Ok(())
}

/// Counts what arrives until nothing does any more.
fn count(socket: &UdpSocket, arrived: &AtomicU64, over: &AtomicBool) -> io::Result<()> {
    let mut buffers = [[0u8; PAYLOAD]; AT_ONCE];
    let (mut vectors, mut headers) = messages(&mut buffers);
    for (header, vector) in headers.iter_mut().zip(&mut vectors) {
        header.msg_hdr.msg_iov = vector;
    }
    let mut last = Instant::now();
    loop {
        // SAFETY: every header points at a vector of its own, and that at a buffer; all live here.
        let got = unsafe {
            let no_timeout = std::ptr::null_mut();
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), AT_ONCE as u32, libc::MSG_WAITFORONE, no_timeout)
        };
        match u64::try_from(got) {
            Ok(got) => {
                arrived.fetch_add(got, Ordering::Relaxed);
                last = Instant::now();
            }
            Err(_) => match io::Error::last_os_error() {
                error if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if over.load(Ordering::Relaxed) && last.elapsed() > LOST_AFTER {
                        return Ok(());
                    }
                }
                error => return Err(error),
            },
        }
    }
}

/// Sends; how many datagrams, and how many of them arrived each second.
fn send(sockets: &[UdpSocket], offered: Offered, duration: Duration, arrived: &AtomicU64) -> io::Result<(u64, f64)> {
    let mut buffers = [[0u8; PAYLOAD]; AT_ONCE];
    let (mut vectors, mut headers) = messages(&mut buffers);
    for (header, vector) in headers.iter_mut().zip(&mut vectors) {
        header.msg_hdr.msg_iov = vector;
    }
    let (mut sent, mut lost) = (0u64, 0u64);
    let mut flows = sockets.iter().cycle();
    let begin = Instant::now();
    while begin.elapsed() < duration {
        let under_way = |lost| sent.saturating_sub(lost + arrived.load(Ordering::Relaxed));
        if offered.windowed && under_way(lost) + offered.burst as u64 > WINDOW {
            let (mut before, mut since) = (under_way(lost), Instant::now());
            // Not for one datagram: who waits for each is woken for each.
            while under_way(lost) > WINDOW / 2 {
                thread::sleep(Duration::from_micros(20));
                let now = under_way(lost);
                if now < before {
                    (before, since) = (now, Instant::now());
                } else if since.elapsed() > LOST_AFTER {
                    lost += now;
                }
            }
        }
        let Some(socket) = flows.next() else { break };
        // SAFETY: every header points at a vector of its own, and that at a buffer; all live here.
        let got =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), offered.burst.min(AT_ONCE) as u32, 0) };
        match u64::try_from(got) {
            Ok(got) => sent += got,
            Err(_) => match io::Error::last_os_error() {
                // Somebody's queue is full.
                error if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                error if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                error => return Err(error),
            },
        }
    }
    Ok((sent, arrived.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()))
}

/// One buffer, one vector and one header each; the vectors are yet to be put into the headers.
fn messages(buffers: &mut [[u8; PAYLOAD]; AT_ONCE]) -> ([libc::iovec; AT_ONCE], [libc::mmsghdr; AT_ONCE]) {
    // SAFETY: all-zero is a valid value of both.
    let (mut vectors, mut headers): ([libc::iovec; AT_ONCE], [libc::mmsghdr; AT_ONCE]) = unsafe { std::mem::zeroed() };
    for ((vector, header), buffer) in vectors.iter_mut().zip(&mut headers).zip(buffers) {
        *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        header.msg_hdr.msg_iovlen = 1;
    }
    (vectors, headers)
}

/// Sends a datagram and waits for it to come back, again and again for so long: how long each took.
pub(crate) fn there_and_back(lab: &Lab, duration: Duration) -> io::Result<Vec<Duration>> {
    let (near, far) = (client_socket(lab, ECHO_PORT)?, server_socket(lab, ECHO_PORT)?);
    near.set_read_timeout(Some(Duration::from_millis(100)))?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; PAYLOAD];
            while !over.load(Ordering::Relaxed) {
                // Who does not get an answer notices.
                let _ = far.recv_from(&mut buffer).and_then(|(_, from)| far.send_to(&buffer, from));
            }
        });
        let mut times = Vec::new();
        let begin = Instant::now();
        let mut number = 0u64;
        while begin.elapsed() < duration {
            number += 1;
            let mut payload = [0; PAYLOAD];
            payload[..8].copy_from_slice(&number.to_ne_bytes());
            let start = Instant::now();
            let answered = near.send(&payload).and_then(|_| {
                let mut answer = [0; PAYLOAD];
                // One that was given up may come late.
                while answer != payload {
                    near.recv(&mut answer)?;
                }
                Ok(())
            });
            // The first makes the flow known.
            if number > 1 && answered.is_ok() {
                times.push(start.elapsed());
            }
        }
        over.store(true, Ordering::Relaxed);
        let nothing = || io::Error::new(ErrorKind::TimedOut, "no datagram came back");
        if times.is_empty() { Err(nothing()) } else { Ok(times) }
    })
}

/// What a TCP connection carried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    pub(crate) bytes: f64,
    pub(crate) seconds: f64,
}

/// Which way bytes go on a connection that the client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Towards {
    Server,
    Client,
}

/// One TCP connection for so long. The server runs already.
pub(crate) fn tcp(lab: &Lab, towards: Towards, duration: Duration) -> io::Result<Carried> {
    let mut iperf3 = lab.command("client", "iperf3")?;
    let seconds = duration.as_secs_f64().ceil().to_string();
    iperf3.args(["--json", "--time", &seconds, "--client", &Ipv4Addr::from(SERVER).to_string()]);
    if towards == Towards::Client {
        iperf3.arg("--reverse");
    }
    let said: serde_json::Value = serde_json::from_str(&program::run(&mut iperf3, "")?)?;
    let received = &said["end"]["sum_received"];
    let number = |name: &str| {
        received[name].as_f64().ok_or_else(|| io::Error::other(format!("iperf3 did not say {name}: {said}")))
    };
    Ok(Carried { bytes: number("bytes")?, seconds: number("seconds")? })
}
