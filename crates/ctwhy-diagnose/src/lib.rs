//! Two captures of the same traffic, one from each side of a NAT: what kind of NAT it is, and what it does to ICMP errors.
//!
//! A NAT that rewrites packets and one that is made of sockets do the same for whoever downloads a page. They differ in
//! what nobody asks for: the identification of packets, their TTL, the numbers of a TCP connection, and the ICMP errors
//! that routers on the way send back. Whoever has packets of both sides can tell, and this crate does, in this order:
//!
//! 1. [`observe`]: a packet -> the few facts that are kept of it.
//! 2. [`flows`]: the flows of one side and its ICMP errors, in bounded memory.
//! 3. [`clock`]: how far the clocks of the two captures are apart.
//! 4. [`pairing`]: which flow outside is which flow inside, whatever addresses and ports say.
//! 5. [`evidence`]: what became of the packets of each pair.
//! 6. [`verdict`]: what kind of NAT does that, and how sure that is.
//! 7. [`errors`]: every ICMP error, whether it came out at the other side and how; [`linux`] is what Linux would have done
//!    with it, ruled by the engine of [`ctwhy_core`].
//!
//! Nothing here reads a file or a clock: packets and their times are arguments.
//!
//! ```
//! use ctwhy_diagnose::{Diagnosis, Limits, Observed, Side};
//!
//! let mut diagnosis = Diagnosis::new(Limits::default());
//! // 10.0.0.2:5000 -> 192.0.2.1:53, an empty UDP datagram without checksum.
//! let packet = [
//!     0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0xae, 0xce, 10, 0, 0, 2, 192, 0, 2, 1, //
//!     0x13, 0x88, 0, 53, 0, 8, 0, 0,
//! ];
//! diagnosis.observe(Side::Inside, &Observed { number: 1, time_ns: 0, bytes: &packet, wire_len: packet.len() });
//! let report = diagnosis.finish();
//! // One packet of one side says nothing.
//! assert!(report.nats.is_empty());
//! assert_eq!(report.inside.flows, 1);
//! ```
#![forbid(unsafe_code)]

pub mod clock;
pub mod errors;
pub mod evidence;
pub mod flows;
mod index;
pub mod linux;
pub mod observe;
pub mod pairing;
pub mod report;
pub mod verdict;

pub use flows::Limits;
pub use observe::Observed;
pub use report::{Counts, Finding, Nat, Report};

use flows::Flows;

/// Where a capture was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Where the hosts are that the NAT hides.
    Inside,
    /// Where the rest of the world is.
    Outside,
}

impl Side {
    /// `inside`, `outside`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Side::Inside => "inside",
            Side::Outside => "outside",
        }
    }

    /// The other side.
    #[must_use]
    pub const fn opposite(self) -> Side {
        match self {
            Side::Inside => Side::Outside,
            Side::Outside => Side::Inside,
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Two captures being read.
#[derive(Debug)]
pub struct Diagnosis {
    inside: Flows,
    outside: Flows,
}

impl Diagnosis {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new(limits: Limits) -> Diagnosis {
        Diagnosis { inside: Flows::new(limits), outside: Flows::new(limits) }
    }

    /// Takes note of a packet. Those of one side come in the order of their capture; which side comes first does not matter.
    pub fn observe(&mut self, side: Side, packet: &Observed<'_>) {
        match side {
            Side::Inside => self.inside.observe(packet),
            Side::Outside => self.outside.observe(packet),
        }
    }

    /// What all of it amounts to.
    #[must_use]
    pub fn finish(self) -> Report {
        report::report(&self.inside, &self.outside)
    }
}
