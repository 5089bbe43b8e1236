//! What happened to fragments.

use crate::defrag::Unfit;
use crate::tuple::L3;

/// One thing that happened to fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentStep {
    /// The earlier fragments of the same datagram waited too long.
    Expired {
        /// Family.
        l3num: L3,
        /// How many there were.
        fragments: usize,
        /// Was the first one among them? Then this host says time exceeded.
        first: bool,
    },
    /// The source has sent so many other fragments that the earlier ones may be of another datagram: they are dropped
    /// (`ipfrag_max_dist`).
    TooFar {
        /// How many there were.
        fragments: usize,
        /// How many fragments the source sent since.
        distance: u32,
        /// How many it may send.
        most: u32,
    },
    /// A fragment that is not gathered goes on as it is.
    AsIs {
        /// Why.
        unfit: Unfit,
        /// How many fragments that had waited were dropped because of it.
        lost: usize,
    },
    /// A part of the datagram that is complete now.
    Part {
        /// What the caller calls the packet that brought it ([`crate::defrag::Defrag::label`]).
        label: u64,
        /// Where it belongs, in bytes behind the IP header.
        offset: u32,
        /// How many bytes it brought.
        bytes: u32,
    },
    /// The datagram is complete and goes on as one packet.
    Reassembled {
        /// How many fragments it came in.
        fragments: usize,
        /// Its length in bytes with its IP header.
        bytes: usize,
    },
    /// The packet leaves in fragments.
    Cut {
        /// How many.
        fragments: usize,
        /// Are they those that it came in?
        as_received: bool,
    },
}
