//! TCP.

/// What the TCP tracker did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpStep {}

/// Why the TCP tracker refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpReason {}

impl TcpReason {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match *self {}
    }
}
