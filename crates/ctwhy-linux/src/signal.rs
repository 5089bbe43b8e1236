//! Signals as something to poll, so that a loop ends and its guards run.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::low_level::{pipe, unregister};
use signal_hook::{SigId, flag};

pub use signal_hook::consts::{SIGINT, SIGUSR1};

/// SIGINT, SIGTERM, SIGHUP and SIGUSR1 no longer end the process but make this readable. Dropping it ends that: the
/// signals are ignored from then on.
#[derive(Debug)]
pub struct Signals {
    read: UnixStream,
    pending: [(i32, Arc<AtomicBool>); 4],
    handlers: Vec<SigId>,
}

impl Signals {
    /// Takes the four signals for this process.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn take() -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        let pending = [SIGINT, SIGTERM, SIGHUP, SIGUSR1].map(|signal| (signal, Arc::default()));
        let mut signals = Signals { read, pending, handlers: Vec::new() };
        for (signal, came) in &signals.pending {
            // The flag first, the wake-up second: who wakes finds the flag.
            signals.handlers.push(flag::register(*signal, Arc::clone(came))?);
            signals.handlers.push(pipe::register(*signal, write.try_clone()?)?);
        }
        Ok(signals)
    }

    /// The number of a signal that came, each once, those that end a process first; `None` when none did.
    pub fn received(&mut self) -> Option<i32> {
        let mut wakeups = [0; 64];
        while self.read.read(&mut wakeups).is_ok_and(|n| n == wakeups.len()) {}
        self.pending.iter().find(|(_, came)| came.swap(false, Ordering::SeqCst)).map(|(signal, _)| *signal)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            unregister(handler);
        }
    }
}

/// Sends a signal to a child that nobody has waited for yet.
///
/// # Errors
/// The child is gone, or not ours to signal.
pub fn send(child: &std::process::Child, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let signal = nix::sys::signal::Signal::try_from(signal)?;
    Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)?)
}

/// Makes `command` end by a signal, unless it handles that: what a shell starts in the background ignores SIGINT, and so
/// does everything that is started from there.
pub fn ends(command: &mut std::process::Command, signal: i32) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure makes one system call.
    unsafe {
        command.pre_exec(move || match libc::signal(signal, libc::SIG_DFL) {
            libc::SIG_ERR => Err(io::Error::last_os_error()),
            _ => Ok(()),
        })
    }
}

/// Waits until one of the descriptors is readable; the answer has one entry for each, in order.
///
/// # Errors
/// The system's error. A signal is none: nothing is readable then.
pub fn wait_readable(descriptors: &[BorrowedFd<'_>], timeout: Option<std::time::Duration>) -> io::Result<Vec<bool>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut polled: Vec<PollFd<'_>> = descriptors.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let timeout = match timeout {
        Some(duration) => PollTimeout::try_from(duration).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    match poll(&mut polled, timeout) {
        // An error or a hang-up is found by reading.
        Ok(_) => Ok(polled.iter().map(|fd| fd.revents().is_some_and(|r| !r.is_empty())).collect()),
        Err(nix::errno::Errno::EINTR) => Ok(vec![false; descriptors.len()]),
        Err(error) => Err(error.into()),
    }
}
