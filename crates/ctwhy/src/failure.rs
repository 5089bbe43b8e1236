//! Why the program ends early: one line on standard error, and the exit code.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::Path;

use ctwhy_fixture::capture::CaptureError;
use ctwhy_fixture::write::WriteError;

use crate::report::escape::Escaped;

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// As expected.
    Ok = 0,
    /// A difference was found.
    Differs = 1,
    /// Usage, input or output.
    Failed = 2,
    /// It cannot be done on this machine.
    Skipped = 4,
}

/// One line that says what is wrong and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    /// Nobody reads the output any more: not worth a word.
    silent: bool,
}

impl Failure {
    /// Something about the arguments.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), silent: false }
    }

    /// Something about a file.
    pub(crate) fn io(path: &Path, error: &io::Error) -> Failure {
        Failure::usage(format!("{}: {error}", path.display()))
    }

    /// Says it.
    pub(crate) fn report(&self) {
        if !self.silent {
            eprintln!("ctwhy: {self}");
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.message))
    }
}

impl From<CaptureError> for Failure {
    fn from(error: CaptureError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure { message: error.to_string(), silent: error.kind() == io::ErrorKind::BrokenPipe }
    }
}
