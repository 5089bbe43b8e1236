//! Output that nobody has to wait for: packets wait for us while we write, and a terminal that was stopped must not stop
//! the network.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// How many pieces may wait to be written.
const WAITING: usize = 16 << 10;

/// A piece of output.
enum Piece {
    Stdout(String),
    Stderr(String),
}

/// Writes to both outputs in order, in a thread of its own.
pub(crate) struct Writer {
    sender: Option<SyncSender<Piece>>,
    thread: Option<JoinHandle<()>>,
    closed: Arc<AtomicBool>,
    left_out: u64,
}

impl Writer {
    pub(crate) fn start() -> io::Result<Writer> {
        let (sender, receiver) = sync_channel(WAITING);
        let closed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&closed);
        let write = move || {
            if write_all(&receiver).is_err() {
                flag.store(true, Ordering::Relaxed);
            }
        };
        let thread = std::thread::Builder::new().name("output".to_owned()).spawn(write)?;
        Ok(Writer { sender: Some(sender), thread: Some(thread), closed, left_out: 0 })
    }

    /// Text about a packet; left out and counted when the reader is far behind.
    pub(crate) fn packet(&mut self, text: String) {
        let Some(sender) = &self.sender else { return };
        if let Err(TrySendError::Full(_)) = sender.try_send(Piece::Stdout(text)) {
            self.left_out += 1;
        }
    }

    /// A message, behind everything before it.
    pub(crate) fn message(&mut self, text: String) {
        let Some(sender) = &self.sender else { return };
        if let Err(TrySendError::Full(_)) = sender.try_send(Piece::Stderr(text)) {
            self.left_out += 1;
        }
    }

    /// The last message, however long that takes: nobody waits for us any more.
    pub(crate) fn last_message(&mut self, text: String, to_stderr: bool) {
        if let Some(sender) = &self.sender {
            // The thread is gone when nobody reads.
            let _ = sender.send(if to_stderr { Piece::Stderr(text) } else { Piece::Stdout(text) });
        }
    }

    /// Packets that were left out.
    pub(crate) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Is there nobody to read any more?
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Writes until the sender is gone; what is there is written before anything is waited for.
fn write_all(pieces: &Receiver<Piece>) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    while let Ok(piece) = pieces.recv() {
        let mut next = Some(piece);
        while let Some(piece) = next {
            match piece {
                Piece::Stdout(text) => out.write_all(text.as_bytes())?,
                Piece::Stderr(text) => {
                    out.flush()?;
                    io::stderr().write_all(text.as_bytes())?;
                }
            }
            next = pieces.try_recv().ok();
        }
        out.flush()?;
    }
    Ok(())
}
