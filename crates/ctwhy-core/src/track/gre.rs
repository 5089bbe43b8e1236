//! GRE: the two timeouts (`nf_conntrack_proto_gre.c`; GRE-01). What tells its flows apart is read in
//! [`crate::tuple::extract`].

use super::{Outcome, until_replied};
use crate::status::Status;
use crate::sysctl::Sysctls;
use crate::trace::Sink;

/// The GRE part of an entry (`struct nf_ct_gre`): timeouts in seconds, fixed when the flow begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gre {
    /// While no reply was seen.
    pub timeout: u32,
    /// Afterwards.
    pub stream_timeout: u32,
}

impl Gre {
    /// What a flow that begins now keeps: a sysctl that changes later does not touch it.
    #[must_use]
    pub const fn new(sysctls: &Sysctls) -> Gre {
        Gre { timeout: sysctls.gre_timeout, stream_timeout: sysctls.gre_timeout_stream }
    }

    /// `nf_conntrack_gre_packet`: which timeout, with the status as it was before this packet. Nothing else is checked.
    pub fn packet<S: Sink>(&self, status: Status, sink: &mut S) -> Outcome {
        until_replied(status, (self.timeout, self.stream_timeout), sink)
    }
}
