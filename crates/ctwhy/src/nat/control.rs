//! What a running NAT is told: to end, and to show its table.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use ctwhy_core::hook::Engine;
use ctwhy_core::time::Time;
use ctwhy_linux::signal::{SIGUSR1, Signals};

use super::reporter::Reporter;
use super::status::Server;

/// Signals, and whoever asks for the table.
#[derive(Debug)]
pub(super) struct Control {
    signals: Signals,
    server: Server,
}

impl Control {
    /// From here on a signal ends the loop, and what stands behind it runs.
    ///
    /// # Errors
    /// Another NAT has that name.
    pub(super) fn open(name: &str) -> io::Result<Control> {
        Ok(Control { signals: Signals::take()?, server: Server::listen(name)? })
    }

    /// What becomes readable when there is something to attend to.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut descriptors = vec![self.signals.as_fd()];
        descriptors.extend(self.server.descriptors());
        descriptors
    }

    /// Does what was asked for; `false` when that was to end.
    pub(super) fn attend(&mut self, engine: &Engine, now: Time, report: &mut Reporter) -> bool {
        while let Some(signal) = self.signals.received() {
            if signal != SIGUSR1 {
                return false;
            }
            report.message(&ctwhy_conform::table::lines(&engine.conntrack.table, now).join("\n"));
        }
        self.server.attend(engine, now);
        !report.is_closed()
    }
}
