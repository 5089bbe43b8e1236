//! Why the program ends early: one line on standard error, and the exit code.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use ctwhy_fixture::capture::CaptureError;
use ctwhy_fixture::write::WriteError;

use crate::report::escape::Escaped;

/// The exit code for usage, input and output.
const FAILED: u8 = 2;

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

    /// Nobody reads the output any more.
    pub(crate) fn unheard() -> Failure {
        Failure { message: String::new(), silent: true }
    }

    /// Says it, and gives the exit code that belongs to it.
    pub(crate) fn report(&self) -> ExitCode {
        if self.silent {
            return ExitCode::SUCCESS;
        }
        complain(format_args!("ctwhy: {self}"));
        ExitCode::from(FAILED)
    }
}

/// Writes a line to standard error. Where nobody reads that there is nobody to be told.
pub(crate) fn complain(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
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
