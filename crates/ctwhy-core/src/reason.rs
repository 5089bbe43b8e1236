//! Why a packet is INVALID: one cause for each place that refuses, with the values that were compared.

use crate::track::tcp::TcpReason;

/// The cause of an INVALID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The TCP tracker refused.
    Tcp(TcpReason),
}

impl Reason {
    /// The stable code, as in `--json`: `icmp.outer_daddr_mismatch`, `tcp.seq_over_upper_bound`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Reason::Tcp(reason) => reason.code(),
        }
    }
}
