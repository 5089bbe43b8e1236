//! `ctwhy nat status`: asks a running NAT for its table.
//!
//! The NAT listens on an abstract Unix socket of its user and network namespace. Who asks says `table` or `json` and gets
//! lines until the end. The answer is made at once, but written by a thread of its own: the packets do not wait for a slow
//! reader, and one who does not read at all is left after [`PATIENCE`].

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use ctwhy_core::hook::Engine;
use ctwhy_core::time::Time;
use ctwhy_linux::peer;

use crate::failure::Failure;
use crate::report::json;

/// What a NAT is called where nobody says.
pub(super) const NAME: &str = "nat";
/// How long somebody who asked may do nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many may ask at a time, and how many may be answered.
const MOST: usize = 4;
/// What is asked for.
const TABLE: &[u8] = b"table\n";
const JSON: &[u8] = b"json\n";

/// `ctwhy nat status`
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// The NAT to ask, as its option --name calls it
    #[arg(long, value_name = "NAME", default_value = NAME)]
    name: String,
    /// Print JSON Lines, one object per entry
    #[arg(long)]
    json: bool,
}

/// Asks, and prints the answer.
///
/// # Errors
/// [`Failure`] when no NAT of that name runs here.
pub(crate) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let name = &args.name;
    let mut stream = peer::connect(name).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::usage(format!(
            "no NAT named {name} of this user runs in this network namespace; start one with `ctwhy nat tun` or `ctwhy nat queue`"
        )),
        _ => Failure::usage(format!("the NAT named {name}: {error}")),
    })?;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    stream.write_all(if args.json { JSON } else { TABLE })?;
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::stdout().lock())?;
    Ok(())
}

/// Where others ask for the table.
#[derive(Debug)]
pub(super) struct Server {
    listener: UnixListener,
    /// Who has not said yet what they want.
    asking: Vec<UnixStream>,
    /// A copy for each answer that is being written.
    writing: Arc<()>,
}

impl Server {
    /// Listens under a name.
    ///
    /// # Errors
    /// Another NAT has that name.
    pub(super) fn listen(name: &str) -> io::Result<Server> {
        let listener = peer::listen(name).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                let text = format!("a NAT named {name} of this user runs in this network namespace; add --name NAME");
                io::Error::new(error.kind(), text)
            }
            _ => error,
        })?;
        listener.set_nonblocking(true)?;
        Ok(Server { listener, asking: Vec::new(), writing: Arc::default() })
    }

    /// What becomes readable when somebody asks.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.listener.as_fd()].into_iter().chain(self.asking.iter().map(AsFd::as_fd))
    }

    /// Answers whoever asks. Who cannot be answered is none of the NAT's concern.
    pub(super) fn attend(&mut self, engine: &Engine, now: Time) {
        while let Ok((stream, _)) = self.listener.accept() {
            let trusted = peer::is_trusted(&stream).unwrap_or(false) && stream.set_nonblocking(true).is_ok();
            if trusted && self.asking.len() == MOST {
                self.asking.remove(0);
            }
            if trusted {
                self.asking.push(stream);
            }
        }
        let mut asked = Vec::new();
        self.asking.retain_mut(|stream| {
            let mut request = [0; 16];
            match stream.read(&mut request) {
                Ok(len) => asked.extend(stream.try_clone().map(|stream| (stream, request.get(..len) == Some(JSON)))),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            false
        });
        for (stream, json) in asked {
            if Arc::strong_count(&self.writing) > MOST {
                continue;
            }
            let lines = match json {
                true => json::entries(engine, now).unwrap_or_default(),
                false => ctwhy_conform::table::lines(&engine.conntrack.table, now),
            };
            let writing = Arc::clone(&self.writing);
            // Without a thread there is no answer, which who asked can see.
            let _ = thread::Builder::new().name("status".to_owned()).spawn(move || {
                let _ = answer(stream, lines);
                drop(writing);
            });
        }
    }
}

fn answer(mut stream: UnixStream, lines: Vec<String>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut out = io::BufWriter::with_capacity(64 << 10, &mut stream);
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}
