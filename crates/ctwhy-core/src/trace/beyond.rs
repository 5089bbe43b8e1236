//! What NAT did because an option asks for more than the kernel does ([`crate::nat::options`]).

use crate::nat::options::Filtering;
use crate::table::Endpoint;
use crate::tuple::Addr;

/// One thing that NAT did because it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeyondStep {
    /// The address inside has a block of ports.
    Block {
        /// The end inside.
        inside: Endpoint,
        /// The address outside.
        address: Addr,
        /// First and last port.
        ports: (u16, u16),
    },
    /// An end inside has an end outside from now on.
    Mapped {
        /// The end inside.
        inside: Endpoint,
        /// The end outside.
        outside: Endpoint,
    },
    /// It has one already, and keeps it.
    MappingKept {
        /// The end inside.
        inside: Endpoint,
        /// The end outside.
        outside: Endpoint,
    },
    /// Somebody sends to an end outside who was not talked to by it.
    Filtered {
        /// The end outside.
        outside: Endpoint,
        /// The end inside.
        inside: Endpoint,
        /// The address that it comes from, as it is seen from outside.
        from: Addr,
        /// Who may.
        filtering: Filtering,
        /// May this one?
        passes: bool,
    },
    /// No rule is for the source of a packet from inside to somebody inside by an address outside: the rules are asked as
    /// if it left by the interface of that.
    Hairpin {
        /// Index of the interface.
        interface: u16,
    },
}

impl BeyondStep {
    /// The stable name of the kind of step, as in `--json`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            BeyondStep::Block { .. } => "nat_block",
            BeyondStep::Mapped { .. } => "nat_mapped",
            BeyondStep::MappingKept { .. } => "nat_mapping_kept",
            BeyondStep::Filtered { .. } => "nat_filtered",
            BeyondStep::Hairpin { .. } => "nat_hairpin",
        }
    }
}
