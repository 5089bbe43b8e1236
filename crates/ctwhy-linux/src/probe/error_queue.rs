//! The error queue of a socket (`IP_RECVERR`, `IPV6_RECVERR`).

use std::os::fd::AsFd;

use super::{IcmpError, Quote};
use crate::socket::errors::{self, Origin};

/// The next entry, and what it holds of the packet behind its transport header. No error where it is this host's own, such
/// as a packet that was too long for the first link.
pub(super) fn read(socket: &impl AsFd) -> Option<(Option<IcmpError>, Vec<u8>)> {
    let entry = errors::next(socket).ok().flatten()?;
    let error = match entry.origin {
        Origin::Icmp { kind, code, offender } => {
            Some(IcmpError { from: Some(offender), icmp_type: kind, code, mtu: entry.info, quote: Quote::Short })
        }
        Origin::Local => None,
    };
    Some((error, entry.quoted))
}
