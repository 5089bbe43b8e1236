//! NAT: a binding is decided once per flow and lives in its reply tuple; every packet is then rewritten by it.

mod beyond;
pub mod blocks;
pub(crate) mod hooks;
pub mod manip;
pub mod options;
pub mod quoted;
pub mod range;
pub mod rules;
pub mod setup;

use core::fmt;
use core::net::IpAddr;

use crate::direction::Direction;
use crate::status::Status;

/// Which side of a packet is rewritten (`enum nf_nat_manip_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Manip {
    /// The source: at POSTROUTING and LOCAL_IN.
    Src,
    /// The destination: at PREROUTING and LOCAL_OUT.
    Dst,
}

impl Manip {
    /// The other side.
    #[must_use]
    pub const fn opposite(self) -> Manip {
        match self {
            Manip::Src => Manip::Dst,
            Manip::Dst => Manip::Src,
        }
    }

    /// The bit that says that flows of this kind are translated.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Manip::Src => Status::SRC_NAT,
            Manip::Dst => Status::DST_NAT,
        }
    }

    /// The bit that says that the decision was taken.
    #[must_use]
    pub const fn done(self) -> Status {
        match self {
            Manip::Src => Status::SRC_NAT_DONE,
            Manip::Dst => Status::DST_NAT_DONE,
        }
    }

    /// Must a packet in `direction` of a flow with `status` be rewritten on this side?
    ///
    /// In reply direction the translation runs backwards: the destination is rewritten because the source was (D.2).
    #[must_use]
    pub const fn applies(self, status: Status, direction: Direction) -> bool {
        let bit = match direction {
            Direction::Original => self.status(),
            Direction::Reply => self.opposite().status(),
        };
        status.contains(bit)
    }
}

impl fmt::Display for Manip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Manip::Src => "source",
            Manip::Dst => "destination",
        })
    }
}

/// Why NAT dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatDrop {
    /// A rule, or the policy of the chain, says DROP.
    Rule {
        /// Line of the rule; `None` for the policy.
        line: Option<u32>,
    },
    /// MASQUERADE or REDIRECT found no address on the interface.
    NoAddress,
    /// A masqueraded flow left by another interface than before; its entry is deleted (NAT-SET-09).
    InterfaceChanged,
    /// The ICMP checksum of an error is wrong; NAT looks even where conntrack was told not to.
    ErrorChecksum,
    /// A redirect about a translated flow would send packets past the NAT.
    Redirect,
    /// A GRE version that NAT does not know, 2 or above.
    GreVersion(u8),
    /// Too little of a packet is there to rewrite it.
    TooShort {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// Source quench, which was asked to be dropped ([`options::Options::drop_source_quench`]).
    SourceQuench,
    /// An error that quotes a header with a wrong checksum ([`options::Options::verify_quoted_header`]).
    QuotedChecksum {
        /// As it is quoted.
        found: u16,
        /// As it should be.
        expected: u16,
    },
    /// Somebody sent to an end outside who may not ([`options::Filtering`]).
    Filtered {
        /// Its address.
        address: IpAddr,
        /// Its port.
        port: u16,
    },
    /// The end outside that a source has is not free towards this destination, and it must not get another
    /// ([`options::Options::mapping`]).
    MappingTaken {
        /// Its address.
        address: IpAddr,
        /// Its port or id.
        port: u16,
    },
    /// All ports or ids that the source may have are taken, as far as they were looked at ([`options::Options::blocks`],
    /// [`options::Options::mapping`]).
    NoPort {
        /// The address outside.
        address: IpAddr,
        /// The first port or id.
        first: u16,
        /// The last one.
        last: u16,
    },
    /// The blocks of ports do not last to this address inside ([`options::Options::blocks`]).
    NoBlock {
        /// The address.
        inside: IpAddr,
    },
}

// It is part of what every packet is returned.
const _: () = assert!(size_of::<NatDrop>() <= 24);

impl NatDrop {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            NatDrop::Rule { .. } => "nat.rule",
            NatDrop::NoAddress => "nat.no_address",
            NatDrop::InterfaceChanged => "nat.interface_changed",
            NatDrop::ErrorChecksum => "nat.error_checksum",
            NatDrop::Redirect => "nat.redirect",
            NatDrop::GreVersion(_) => "nat.gre_version",
            NatDrop::TooShort { .. } => "nat.too_short",
            NatDrop::SourceQuench => "nat.source_quench",
            NatDrop::QuotedChecksum { .. } => "nat.quoted_checksum",
            NatDrop::Filtered { .. } => "nat.filtered",
            NatDrop::MappingTaken { .. } => "nat.mapping_taken",
            NatDrop::NoPort { .. } => "nat.no_port",
            NatDrop::NoBlock { .. } => "nat.no_block",
        }
    }
}
