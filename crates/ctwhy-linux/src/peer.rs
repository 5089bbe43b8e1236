//! Programs of one user that talk to each other: abstract Unix sockets, which need no file and end with their network
//! namespace, and who is at the other end of one.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt};

use crate::context;

/// Listens under a name, which is this user's in this network namespace.
///
/// # Errors
/// Somebody listens there already.
pub fn listen(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&address(name, user())?)
}

/// Connects to who listens under a name: this user, or else root.
///
/// # Errors
/// Nobody listens there, or somebody else does.
pub fn connect(name: &str) -> io::Result<UnixStream> {
    let stream = match UnixStream::connect_addr(&address(name, user())?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => UnixStream::connect_addr(&address(name, 0)?)?,
        stream => stream?,
    };
    if !is_trusted(&stream)? {
        let text = "another user listens under that name";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(stream)
}

/// `SO_PEERCRED`: is this user or root at the other end?
///
/// # Errors
/// The system's error.
pub fn is_trusted(stream: &UnixStream) -> io::Result<bool> {
    let peer = getsockopt(stream, sockopt::PeerCredentials);
    let peer = peer.map_err(|errno| context("asking who is at the other end")(errno.into()))?;
    Ok(peer.uid() == 0 || peer.uid() == user())
}

fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn address(name: &str, user: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("ctwhy/{user}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once_and_found() {
        let name = format!("test-{}", std::process::id());
        assert_eq!(connect(&name).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let listener = listen(&name).unwrap();
        assert_eq!(listen(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let here = connect(&name).unwrap();
        let (there, _) = listener.accept().unwrap();
        assert!(is_trusted(&here).unwrap() && is_trusted(&there).unwrap());
    }
}
