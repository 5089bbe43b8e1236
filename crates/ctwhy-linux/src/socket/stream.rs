//! A TCP connection that is being made without waiting for it.

use std::io;
use std::net::{SocketAddr, TcpStream};

use nix::sys::socket::sockopt::Linger;
use nix::sys::socket::{SockType, setsockopt};

use super::{connect, errors, open, set_ttl};

/// Begins to connect. The stream is writable when that is over, and [`finish`] says how it ended.
///
/// With a TTL the SYN goes out with it, and errors about it are kept: [`errors::next`] has them even when the connection
/// failed.
///
/// # Errors
/// No route leads there, or no descriptor or port is free.
pub fn begin(to: SocketAddr, ttl: Option<u8>) -> io::Result<TcpStream> {
    let socket = open(to.ip(), SockType::Stream, None)?;
    if ttl.is_some() {
        errors::enable(&socket, to.ip())?;
        set_ttl(&socket, to.ip(), ttl)?;
    }
    connect(&socket, to)?;
    let stream = TcpStream::from(socket);
    // What is passed on was cut by somebody else already.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Is the connection there? Its packets have the system's own TTL from here on.
///
/// # Errors
/// Why it failed.
pub fn finish(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(peer) => set_ttl(stream, peer.ip(), None).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends the connection with a reset.
pub fn reset(stream: TcpStream) {
    // Where the option is refused the connection ends in the usual way.
    let _ = setsockopt(&stream, Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}
