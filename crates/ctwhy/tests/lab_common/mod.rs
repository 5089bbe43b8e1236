//! Commands whose processes can be told from all others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.
#![allow(dead_code)] // Every test file uses some of it.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ctwhy_linux::signal;

pub(crate) const CTWHY: &str = env!("CARGO_BIN_EXE_ctwhy");

/// A mark in the environment of a command, which everything that it starts inherits, and a directory of its own for the
/// files of named labs.
pub(crate) struct Marked {
    mark: String,
    pub(crate) directory: PathBuf,
}

impl Marked {
    pub(crate) fn new(name: &str) -> Marked {
        let mark = format!("CTWHY_TEST_MARK={name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(format!("ctwhy-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        Marked { mark, directory }
    }

    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let (name, value) = self.mark.split_once('=').unwrap();
        command.env(name, value).env("XDG_RUNTIME_DIR", &self.directory)
    }

    /// The processes with the mark.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let pids = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        let marked = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == self.mark.as_bytes())
        };
        pids.filter(marked).collect()
    }

    /// No process with the mark is left, or it is just ending; and with the last process of a namespace the namespace
    /// goes. No file is left either.
    pub(crate) fn assert_all_gone(&self) {
        for pid in self.processes() {
            // SAFETY: a system call on numbers, and a descriptor that nobody else has.
            let handle = unsafe {
                let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
                if fd < 0 {
                    continue;
                }
                OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
            };
            let ended = signal::wait_readable(&[handle.as_fd()], Some(Duration::from_secs(10))).unwrap();
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            assert!(ended[0], "process {pid} is still there: {command}");
        }
        let files: Vec<_> = std::fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.is_empty(), "{files:?}");
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
