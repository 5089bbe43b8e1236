//! The vocabulary of a trace: one variant for each thing that can happen to a packet, with the values involved.

use crate::track::tcp::TcpStep;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The TCP tracker did something.
    Tcp(TcpStep),
}
