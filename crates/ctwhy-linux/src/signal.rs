//! Termination signals as something to poll, so that a loop ends and its guards are dropped.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};
use signal_hook::{SigId, flag};

/// SIGINT, SIGTERM and SIGHUP no longer end the process but make this readable. Dropping it ends that: the signals are
/// ignored from then on.
#[derive(Debug)]
pub struct Signals {
    read: UnixStream,
    last: Arc<AtomicUsize>,
    handlers: Vec<SigId>,
}

impl Signals {
    /// Takes the three signals for this process.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn take() -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        let last = Arc::new(AtomicUsize::new(0));
        let mut signals = Signals { read, last: Arc::clone(&last), handlers: Vec::new() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The number first, the wake-up second: who wakes finds the number.
            let number = usize::try_from(signal).unwrap_or(0);
            signals.handlers.push(flag::register_usize(signal, Arc::clone(&last), number)?);
            signals.handlers.push(pipe::register(signal, write.try_clone()?)?);
        }
        Ok(signals)
    }

    /// The number of a signal that came since the last call; `None` when none did.
    pub fn received(&mut self) -> Option<i32> {
        let mut wakeups = [0; 64];
        while self.read.read(&mut wakeups).is_ok_and(|n| n == wakeups.len()) {}
        i32::try_from(self.last.swap(0, Ordering::SeqCst)).ok().filter(|signal| *signal != 0)
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
