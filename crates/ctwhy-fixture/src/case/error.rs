//! What can be wrong with a case: the file, the line, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::capture::CaptureError;
use crate::linktype::LinkType;
use crate::write::WriteError;

/// A fault of a case: the file, the line where there is one, and the problem.
#[derive(Debug)]
pub struct CaseError {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    line: Option<usize>,
    problem: Problem,
}

/// What is wrong with a case.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// A file or folder cannot be read.
    Read(io::Error),
    /// A file or folder cannot be written.
    Write(io::Error),
    /// The text is not what the format asks for, in the words of its parser.
    Syntax(String),
    /// `packets.pcapng` cannot be read.
    Capture(CaptureError),
    /// `packets.pcapng` cannot be written.
    Packets(WriteError),
    /// Two interfaces of the same name.
    InterfaceTwice(String),
    /// A route or packet of an interface that `case.toml` does not have.
    UnknownInterface(String),
    /// A packet of an interface without a name.
    UnnamedInterface {
        /// The packet's number, counted from 1.
        packet: u64,
    },
    /// A packet whose link type a case does not take.
    LinkType {
        /// The packet's number, counted from 1.
        packet: u64,
        /// Its link type.
        linktype: LinkType,
    },
    /// A packet that was cut by the snap length.
    PacketCut {
        /// The packet's number, counted from 1.
        packet: u64,
    },
    /// A packet is held until one that the case does not have.
    HeldTooLong {
        /// The packet that is waited for, counted from 1.
        until: u64,
        /// Packets in `packets.pcapng`.
        packets: usize,
    },
    /// A recording without its first line.
    NoHeader,
    /// A line that may be there only once.
    Twice(&'static str),
    /// A format version that is not known.
    Schema(u32),
    /// A recording whose header names another release than its file name.
    Release {
        /// The release that the header names.
        header: String,
    },
    /// A release that makes no file name.
    ReleaseName(String),
    /// Recorded packets that are not numbered 1, 2, 3.
    PacketOrder {
        /// Number that should come.
        expected: u64,
        /// Number that came.
        found: u64,
    },
    /// A recording of more or fewer packets than the case has.
    PacketCount {
        /// Packets in the recording.
        recorded: usize,
        /// Packets in `packets.pcapng`.
        packets: usize,
    },
}

impl CaseError {
    pub(crate) fn new(file: &Path, problem: Problem) -> Self {
        CaseError { inner: Box::new(Inner { file: file.to_owned(), line: None, problem }) }
    }

    pub(crate) fn at_line(file: &Path, line: usize, problem: Problem) -> Self {
        CaseError { inner: Box::new(Inner { file: file.to_owned(), line: Some(line), problem }) }
    }

    /// The file or folder.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.inner.file
    }

    /// The line, counted from 1; `None` when the problem is of the whole file.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.inner.line
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.inner.problem
    }
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A capture error names its file itself.
        if let Problem::Capture(e) = self.problem() {
            return e.fmt(f);
        }
        write!(f, "{}:", self.file().display())?;
        if let Some(line) = self.line() {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.problem())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Read(e) => write!(f, "cannot be read: {e}"),
            Problem::Write(e) => write!(f, "cannot be written: {e}"),
            Problem::Syntax(message) => f.write_str(message),
            Problem::Capture(e) => e.fmt(f),
            Problem::Packets(e) => e.fmt(f),
            Problem::InterfaceTwice(name) => write!(f, "interface `{name}` is there twice; rename one of them"),
            Problem::UnknownInterface(name) => {
                write!(f, "there is no interface `{name}` in case.toml; add it as an [[interface]] or correct the name")
            }
            Problem::UnnamedInterface { packet } => {
                write!(f, "packet {packet} is of an interface without a name; give it an if_name of case.toml")
            }
            Problem::LinkType { packet, linktype } => {
                write!(f, "packet {packet} has link type {linktype}; a case takes 101 (RAW) and 1 (ETHERNET)")
            }
            Problem::PacketCut { packet } => {
                write!(f, "packet {packet} was cut when it was captured; a case needs whole packets (`tcpdump -s 0`)")
            }
            Problem::HeldTooLong { until, packets } => {
                write!(f, "holds a packet until packet {until}, but packets.pcapng has {packets}; correct the [[hold]]")
            }
            Problem::NoHeader => f.write_str("its first line is not of kind `kernel`; record it again"),
            Problem::Twice(kind) => write!(f, "a second line of kind `{kind}`; leave one of them out"),
            Problem::Schema(schema) => {
                write!(
                    f,
                    "schema {schema} is not known; a newer version wrote it, read it with that or record it again"
                )
            }
            Problem::Release { header } => {
                write!(f, "its header names release {header}; rename the file kernel-{header}.jsonl")
            }
            Problem::ReleaseName(release) => write!(f, "release `{release}` makes no file name; name it as `uname -r`"),
            Problem::PacketOrder { expected, found } => {
                write!(
                    f,
                    "packet {found} where packet {expected} should come; every packet has one line, in file order"
                )
            }
            Problem::PacketCount { recorded, packets } => {
                write!(f, "has {recorded} packets, but packets.pcapng has {packets}; record it again")
            }
        }
    }
}

impl std::error::Error for CaseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.problem() {
            Problem::Read(e) | Problem::Write(e) => Some(e),
            Problem::Capture(e) => Some(e),
            Problem::Packets(e) => Some(e),
            _ => None,
        }
    }
}
