//! Helpers: they read what a protocol says about flows to come (`nf_conntrack_helper.c`; catalogue part G).
//!
//! A packet meets the files in this order: a flow gets its helper when it begins; at the last hook the helper reads the
//! packet ([`ftp`], `tftp`, [`pptp`]) and makes expectations; where the flow is translated, `mangle` writes the
//! addresses that the other side sees into the payload. `follow` is what NAT makes of the flow that came.

mod assist;
pub(crate) mod follow;
pub mod ftp;
pub mod gre;
pub(crate) mod mangle;
pub mod pptp;
mod pton;
mod tftp;
mod trace;

use core::fmt;

pub use ftp::{Command, Ftp};
pub use mangle::Text;
pub use pptp::Pptp;
pub use trace::HelperStep;

use crate::conn::Flow;
use crate::direction::{CtInfo, Direction};
use crate::expect::Refused;
use crate::extension::ExtensionId;
use crate::random::Random;
use crate::table::Table;
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::tuple::{L3, proto};
use mangle::Mangle;

/// A helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Helper {
    /// FTP (RFC 959, RFC 2428).
    Ftp,
    /// TFTP (RFC 1350).
    Tftp,
    /// The control connection of PPTP (RFC 2637).
    Pptp,
}

/// How much a helper may expect (`struct nf_conntrack_expect_policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Expectations for one flow at a time.
    pub max_expected: usize,
    /// Seconds that one lives.
    pub timeout: u32,
}

impl Helper {
    /// Every helper.
    pub const ALL: [Helper; 3] = [Helper::Ftp, Helper::Tftp, Helper::Pptp];

    /// The name that rules and `conntrack -L` have for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Helper::Ftp => "ftp",
            Helper::Tftp => "tftp",
            Helper::Pptp => "pptp",
        }
    }

    /// `nf_conntrack_helper_try_module_get`: the helper of that name for flows of a family and a protocol.
    #[must_use]
    pub fn find(name: &str, l3num: L3, protonum: u8) -> Option<Helper> {
        let serves = |helper: &Helper| match helper {
            Helper::Ftp => protonum == proto::TCP,
            Helper::Tftp => protonum == proto::UDP,
            Helper::Pptp => (l3num, protonum) == (L3::V4, proto::TCP),
        };
        Helper::ALL.into_iter().find(|helper| helper.name() == name).filter(serves)
    }

    /// How much it may expect.
    #[must_use]
    pub const fn policy(self) -> Policy {
        match self {
            Helper::Ftp | Helper::Tftp => Policy { max_expected: 1, timeout: 300 },
            Helper::Pptp => Policy { max_expected: 2, timeout: 300 },
        }
    }
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A helper and what it remembers of a flow (`struct nf_conn_help`).
#[derive(Clone, Debug)]
pub enum Help {
    /// FTP.
    Ftp(Ftp),
    /// TFTP, which remembers nothing.
    Tftp,
    /// PPTP.
    Pptp(Pptp),
}

impl Help {
    /// A helper that has seen nothing.
    #[must_use]
    pub fn new(helper: Helper) -> Help {
        match helper {
            Helper::Ftp => Help::Ftp(Ftp::default()),
            Helper::Tftp => Help::Tftp,
            Helper::Pptp => Help::Pptp(Pptp::default()),
        }
    }
}

/// Why a helper dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperDrop {
    /// A command that FTP's helper began to read and could not read to its end.
    Partial(Command),
    /// What the packet tells of cannot be expected.
    Refused(Refused),
    /// No port is left for NAT to write into the payload.
    PortsUsed,
    /// The payload with the address of NAT in it is longer than a packet can be.
    TooLong,
}

impl HelperDrop {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            HelperDrop::Partial(_) => "helper.partial",
            HelperDrop::Refused(_) => "helper.refused",
            HelperDrop::PortsUsed => "helper.ports_used",
            HelperDrop::TooLong => "helper.too_long",
        }
    }
}

/// What a helper looks at.
pub(crate) struct Seen<'a> {
    /// From the transport header to the end of the packet.
    pub(crate) l4: &'a [u8],
    /// Bytes of IP header in front of it.
    pub(crate) offset: usize,
    pub(crate) ctinfo: CtInfo,
    pub(crate) direction: Direction,
    pub(crate) flow: &'a Flow,
    pub(crate) id: ExtensionId,
    pub(crate) now: Time,
}

/// `helper->help`: reads a packet. The result is what NAT changes in its payload.
pub(crate) fn help<S: Sink>(
    seen: &Seen<'_>,
    table: &mut Table,
    random: &mut Random,
    sink: &mut S,
) -> Result<Option<Mangle>, HelperDrop> {
    match seen.flow.helper {
        Some(Helper::Ftp) => ftp::help(seen, table, random, sink),
        Some(Helper::Tftp) => tftp::help(seen, table, sink).map(|()| None),
        Some(Helper::Pptp) => Ok(pptp::help(seen, table, sink)),
        None => Ok(None),
    }
}

/// Tells the sink a step of a helper.
fn tell<S: Sink>(sink: &mut S, step: impl FnOnce() -> HelperStep) {
    sink.step(|| Step::Helper(step()));
}
