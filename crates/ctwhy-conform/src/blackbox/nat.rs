//! A NAT as a black box: packets in and packets out, on two sides.

use std::fmt;
use std::io;
use std::time::Duration;

/// Where a packet is put in or comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the NAT's clients are.
    Inside,
    /// Where the world is.
    Outside,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::Inside, Side::Outside];

    /// 0 inside, 1 outside.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Side::Inside => 0,
            Side::Outside => 1,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Inside => "inside",
            Side::Outside => "outside",
        })
    }
}

/// A NAT between two cables. Whoever implements it carries IP packets, without link-layer headers.
pub trait Nat {
    /// Has a packet arrive at a side of the NAT.
    ///
    /// # Errors
    /// It cannot be put there.
    fn put(&mut self, side: Side, packet: &[u8]) -> io::Result<()>;

    /// The next packet that the NAT lets out; `None` when none came for so long.
    ///
    /// # Errors
    /// Nothing can be received.
    fn take(&mut self, wait: Duration) -> io::Result<Option<(Side, Vec<u8>)>>;

    /// Starts the NAT again after it died, which [`io::ErrorKind::NetworkDown`] says; `false` where nobody can.
    ///
    /// # Errors
    /// It does not start.
    fn revive(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    /// The time since some moment in the past. A NAT that is no real one may have a clock that only waiting moves.
    fn now(&self) -> Duration;
}
