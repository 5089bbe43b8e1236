//! Why a case could not be recorded.

use std::fmt;
use std::io;

/// Why a case could not be recorded.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecordError {
    /// Something the kernel or a tool was asked for failed.
    Kernel {
        /// What was being done.
        doing: String,
        /// What it said.
        cause: io::Error,
    },
    /// The kernel had more to say than the receive buffer holds.
    Lost(&'static str),
    /// The marker behind a packet did not come back.
    Stuck {
        /// Number of the packet, from 1; 0 for before the first.
        packet: u64,
    },
    /// The machine was too busy to keep the times of the case.
    Busy {
        /// How often it was tried.
        attempts: u32,
    },
    /// A packet that the case holds did not come by the queue in FORWARD.
    NotHeld {
        /// Number of the packet, from 1.
        packet: u64,
    },
    /// Behind the link layer is no IP packet.
    NoPacket {
        /// Number of the packet, from 1.
        packet: u64,
    },
    /// What the kernel logged about one packet makes no sense.
    Confused {
        /// What was seen.
        seen: String,
    },
}

impl RecordError {
    /// Says what was being done when a call failed.
    pub(crate) fn kernel(doing: impl Into<String>) -> impl FnOnce(io::Error) -> RecordError {
        let doing = doing.into();
        move |cause| RecordError::Kernel { doing, cause }
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Kernel { doing, cause } => write!(f, "{doing}: {cause}"),
            RecordError::Lost(what) => write!(f, "{what} were lost because the receive buffer was full; record again"),
            RecordError::Stuck { packet } => {
                write!(f, "packet {packet}: the marker behind it did not come back; record again on a calmer machine")
            }
            RecordError::Busy { attempts } => write!(
                f,
                "this machine was too busy to keep the times of the case, {attempts} times; try again when it is calmer"
            ),
            RecordError::NotHeld { packet } => {
                write!(
                    f,
                    "packet {packet} was not forwarded, so that it cannot be held; leave its [[hold]] out of the case"
                )
            }
            RecordError::NoPacket { packet } => {
                write!(f, "packet {packet} is no IP packet; only those can be put into the box")
            }
            RecordError::Confused { seen } => write!(f, "what the kernel logged makes no sense: {seen}"),
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecordError::Kernel { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
