//! A program that is a NAT: started, waited for, and gone with the value.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use ctwhy_linux::{lab, signal};

/// What takes longer has gone wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// So many lines are kept.
const KEPT: usize = 20_000;

/// So many of the last lines stand in an error.
const SHOWN: usize = 8;

/// How a program says that it is ready.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    /// By a line that begins so.
    Line(&'static str),
    /// By something on its standard output, where nothing else is said.
    Output,
}

/// A running program of a lab, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
    said: VecDeque<String>,
    /// Kept open: a program may die of writing into a pipe that nobody reads.
    _output: Option<PipeReader>,
}

impl Process {
    /// Starts it and returns when it is ready.
    pub(crate) fn start(name: &'static str, mut command: Command, ready: Ready) -> io::Result<Process> {
        let (reader, writer) = io::pipe()?;
        let (output, stdout) = match ready {
            Ready::Line(_) => (None, writer.try_clone()?),
            Ready::Output => {
                let (reader, writer) = io::pipe()?;
                (Some(reader), writer)
            }
        };
        signal::ends(&mut command, signal::SIGINT);
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(writer).spawn()?;
        // The command has the other ends of the pipes.
        drop(command);
        let (sender, lines) = channel();
        // It ends with the program: until then the pipe is read, whoever listens.
        thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let mut process = Process { name, child, lines, said: VecDeque::new(), _output: None };
        match (ready, output) {
            (Ready::Line(start), _) => drop(process.until(start)?),
            (Ready::Output, Some(mut output)) => {
                let said = signal::wait_readable(&[output.as_fd()], Some(PATIENCE))?.contains(&true);
                if !said || output.read(&mut [0; 64])? == 0 {
                    return Err(process.complaint("was not ready"));
                }
                process._output = Some(output);
            }
            (Ready::Output, None) => {}
        }
        Ok(process)
    }

    /// All that it said until now.
    pub(crate) fn said(&mut self) -> &VecDeque<String> {
        while let Ok(line) = self.lines.try_recv() {
            self.keep(line);
        }
        &self.said
    }

    /// Waits for a line that begins so, among those that nobody has waited for.
    pub(crate) fn until(&mut self, start: &str) -> io::Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.keep(line.clone());
                    if line.starts_with(start) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err(self.complaint(&format!("never said {start:?}"))),
                Err(RecvTimeoutError::Disconnected) => return Err(self.complaint("ended")),
            }
        }
    }

    /// Its number; `None` when it has ended.
    pub(crate) fn pid(&self) -> Option<i32> {
        lab::pid(&self.child)
    }

    pub(crate) fn signal(&self, number: i32) -> io::Result<()> {
        signal::send(&self.child, number)
    }

    /// Ends it with a signal; how it ended, and all that it said.
    pub(crate) fn end(mut self, number: i32) -> io::Result<(ExitStatus, Vec<String>)> {
        self.signal(number)?;
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(self.complaint("does not end")),
            }
        }
        let status = self.child.wait()?;
        Ok((status, std::mem::take(&mut self.said).into()))
    }

    /// Kills it, which it cannot notice, and returns when it is gone.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        lab::kill(&mut self.child).map(drop)
    }

    fn keep(&mut self, line: String) {
        if self.said.len() == KEPT {
            self.said.pop_front();
        }
        self.said.push_back(line);
    }

    /// An error that ends in what the program said last.
    fn complaint(&mut self, what: &str) -> io::Error {
        let name = self.name;
        io::Error::other(format!("{name} {what}{}", self.last_words()))
    }

    /// What it said last, as the end of a sentence.
    pub(super) fn last_words(&mut self) -> String {
        let mut last: Vec<&str> =
            self.said().iter().rev().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
        last.truncate(SHOWN);
        last.reverse();
        match last.as_slice() {
            [] => "; it said nothing".to_owned(),
            last => format!("; it said last: {}", last.join(" / ")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and need not be.
        let _ = lab::kill(&mut self.child);
    }
}
