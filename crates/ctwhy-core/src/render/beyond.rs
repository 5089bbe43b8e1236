//! What options of NAT ask for, in words.

use core::fmt::{self, Formatter};
use core::net::IpAddr;

use crate::nat::NatDrop;
use crate::trace::BeyondStep;

pub(super) fn step(step: &BeyondStep, f: &mut Formatter<'_>) -> fmt::Result {
    match *step {
        BeyondStep::Block { inside, address, ports: (first, last) } => {
            let (inside, address) = (inside.address.ip(inside.l3num), address.ip(inside.l3num));
            write!(f, "nat: the block of {inside} is {first} to {last} of {address}")
        }
        BeyondStep::Mapped { inside, outside } => {
            write!(f, "nat: from now on {inside} is {outside} for everybody (endpoint-independent mapping)")
        }
        BeyondStep::MappingKept { inside, outside } => {
            write!(f, "nat: {inside} is {outside} already, and so it is for everybody (endpoint-independent mapping)")
        }
        BeyondStep::Filtered { outside, inside, from, filtering, passes } => {
            let (from, filtering) = (from.ip(outside.l3num), filtering.name());
            let may = if passes { "may" } else { "may not" };
            write!(f, "nat: {outside} stands for {inside}, and {from} {may} send to it unasked ({filtering} filtering)")
        }
        BeyondStep::Hairpin { .. } => hairpin(None, f),
    }
}

/// With the name of the interface where it is known.
pub(super) fn hairpin(interface: Option<&str>, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("nat: sent from inside to inside by an address outside: the rules are asked again as if it left by ")?;
    f.write_str(interface.unwrap_or("the interface of that"))?;
    f.write_str(" (hairpin)")
}

/// The causes that only options have.
pub(super) fn drop(cause: &NatDrop, f: &mut Formatter<'_>) -> fmt::Result {
    let end = |f: &mut Formatter<'_>, address: &IpAddr, port: u16| match address {
        IpAddr::V4(address) => write!(f, "{address}:{port}"),
        IpAddr::V6(address) => write!(f, "[{address}]:{port}"),
    };
    match cause {
        NatDrop::SourceQuench => f.write_str("nat: source quench is deprecated, and is to be dropped (RFC 6633)"),
        NatDrop::QuotedChecksum { found, expected } => write!(
            f,
            "nat: the checksum of the quoted IP header is {found:#06x} and should be {expected:#06x} (RFC 5508 REQ-3a)"
        ),
        NatDrop::Filtered { address, port } => {
            f.write_str("nat: ")?;
            end(f, address, *port)?;
            f.write_str(" stands for somebody inside who does not talk to this sender (RFC 4787 REQ-8)")
        }
        NatDrop::MappingTaken { address, port } => {
            f.write_str("nat: its source is ")?;
            end(f, address, *port)?;
            f.write_str(" for everybody, but another flow has that towards this destination (RFC 4787 REQ-1)")
        }
        NatDrop::NoPort { address, first, last } => {
            write!(f, "nat: of the ports {first} to {last} of {address} none was found that is free")
        }
        NatDrop::NoBlock { inside } => write!(f, "nat: there is no block of ports for {inside} (RFC 7422)"),
        // The others are rendered where the kernel's are.
        _ => f.write_str(cause.code()),
    }
}
