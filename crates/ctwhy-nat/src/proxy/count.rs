//! What was passed on, and what was not and why.

use std::fmt;

use crate::statistics::{Causes, count};

/// Why something went no further. Each has a count of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No IP packet, or one whose headers are cut off.
    Malformed,
    /// A fragment: what it belongs to never became whole.
    Fragment,
    /// Its checksum is wrong.
    Checksum,
    /// TTL 0 came from the guest; a socket cannot send that.
    Ttl,
    /// To a group or to everybody: what a guest says to its link.
    Group,
    /// To nobody, or to an address that means this host or one link only; or from one.
    Address,
    /// Neither TCP nor UDP nor an echo request.
    Protocol,
    /// An ICMP error that the guest sent: no socket sends those.
    GuestError,
    /// There are as many flows as there may be.
    Full,
    /// The host has no way to send echo requests: see `net.ipv4.ping_group_range`.
    EchoNotAllowed,
    /// The host refused: no route, no port, no descriptor.
    Refused,
    /// Longer than the host's interface takes, and not to be cut.
    TooLong,
    /// An error reached the host's socket and ended there.
    ErrorStopped,
    /// An error about something else that this host sent.
    ErrorOfOthers,
    /// An error that quotes none of the datagrams that are remembered of its flow.
    ErrorUnmatched,
    /// An error whose own checksum is wrong.
    ErrorChecksum,
}

impl Cause {
    /// A stable name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Cause::Malformed => "guest.malformed",
            Cause::Fragment => "guest.fragment",
            Cause::Checksum => "guest.checksum",
            Cause::Ttl => "guest.ttl",
            Cause::Group => "guest.group",
            Cause::Address => "guest.address",
            Cause::Protocol => "guest.protocol",
            Cause::GuestError => "guest.icmp_error",
            Cause::Full => "flows.full",
            Cause::EchoNotAllowed => "host.echo_not_allowed",
            Cause::Refused => "host.refused",
            Cause::TooLong => "host.too_long",
            Cause::ErrorStopped => "error.stopped",
            Cause::ErrorOfOthers => "error.no_flow",
            Cause::ErrorUnmatched => "error.no_datagram",
            Cause::ErrorChecksum => "error.checksum",
        }
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// UDP datagrams of the guest that the host sent, and of the peers that the guest got.
    pub udp: [u64; 2],
    /// Echo requests that the host sent, and replies that the guest got.
    pub echo: [u64; 2],
    /// Echo replies that were made up.
    pub made_up: u64,
    /// TCP connections that the host made for the guest.
    pub tcp: u64,
    /// TCP connections that the host could not make.
    pub tcp_failed: u64,
    /// Errors that were passed on to the guest.
    pub errors: u64,
    /// What went no further, by [`Cause::code`]; and packets that the guest's interface did not take.
    pub dropped: Causes,
}

impl Counts {
    /// Counts something that goes no further.
    pub(super) fn drop(&mut self, cause: Cause) {
        count(&mut self.dropped, cause.code());
    }
}

impl fmt::Display for Counts {
    /// One line for what was passed on, and one for each cause that there was.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([udp_out, udp_in], [echo_out, echo_in]) = (self.udp, self.echo);
        write!(f, "UDP {udp_out} out, {udp_in} in; echo {echo_out} out, {echo_in} in")?;
        if self.made_up != 0 {
            write!(f, ", {} made up", self.made_up)?;
        }
        write!(f, "; TCP {} connected, {} failed; {} errors passed on", self.tcp, self.tcp_failed, self.errors)?;
        self.dropped.iter().try_for_each(|(code, count)| write!(f, "\n  dropped {count:>6}  {code}"))
    }
}
