//! What RFCs ask of a NAT beyond what Linux does, each for itself and none of it unless it is asked for.
//!
//! With [`Options::KERNEL`], which is how an engine begins, every decision is the kernel's.

use crate::hook::Engine;

use super::blocks::PortBlocks;

/// Where NAT is to do otherwise than the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// One end outside for each end inside, whoever it talks to (endpoint-independent mapping: RFC 4787 REQ-1, RFC 5382
    /// REQ-1, for ids RFC 5508 section 3.1), and who may send to it unasked. No other end inside shares it (RFC 4787
    /// REQ-3), and all of an address inside have one address outside (REQ-2). An even port stays even and an odd one odd
    /// while there are such (REQ-4). For what a rule translates the source of, where the protocol has ports or is ICMP.
    ///
    /// The kernel keeps a port where it is free towards that one server, so that many clients share it, and draws another
    /// where it is not.
    pub mapping: Option<Filtering>,
    /// Packets from inside to an end outside that stands for somebody inside leave with the outside address of their
    /// sender, so that answers come back by the NAT (RFC 4787 REQ-9, RFC 5382 REQ-8): where no rule is for their source,
    /// the rules are asked as if they left by the interface of the address that they were sent to.
    ///
    /// The kernel leaves the source as it is unless a rule says otherwise, and the answer goes past it.
    pub hairpin: bool,
    /// Ports and ids of each address inside come from a block of its own, which can be computed (RFC 7422), so that nobody
    /// has to log who had which (RFC 6888 section 4).
    ///
    /// The kernel lets every client have any port.
    pub blocks: Option<PortBlocks>,
    /// An ICMP error that quotes an IPv4 header with a wrong checksum is dropped (RFC 5508 REQ-3a).
    ///
    /// The kernel does not look, and translates it.
    pub verify_quoted_header: bool,
    /// Source quench is dropped, whatever it is about (RFC 6633).
    ///
    /// The kernel treats it as any error.
    pub drop_source_quench: bool,
}

/// Who may send to an end outside that stands for one inside, when that did not talk to them by it before. Who may not is
/// dropped: the host itself has nothing to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody (RFC 4787 REQ-8, where transparency matters most).
    EndpointIndependent,
    /// Everybody at an address that it talks to (RFC 4787 REQ-8, the stricter way).
    AddressDependent,
    /// Nobody.
    AddressAndPortDependent,
}

impl Options {
    /// As the kernel does.
    pub const KERNEL: Options =
        Options { mapping: None, hairpin: false, blocks: None, verify_quoted_header: false, drop_source_quench: false };
}

impl Filtering {
    /// The name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Filtering::EndpointIndependent => "endpoint-independent",
            Filtering::AddressDependent => "address-dependent",
            Filtering::AddressAndPortDependent => "address-and-port-dependent",
        }
    }
}

impl Engine {
    /// Where NAT does otherwise than the kernel.
    #[must_use]
    pub const fn nat_options(&self) -> &Options {
        &self.conntrack.nat
    }

    /// Says where NAT is to do otherwise than the kernel, from now on. Flows that are bound already stay as they are.
    pub fn set_nat_options(&mut self, options: Options) {
        self.conntrack.table.keep_mappings(options.mapping.is_some());
        self.conntrack.nat = options;
    }
}
