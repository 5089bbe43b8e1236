//! ICMPv6: header checks, what is exempt, what may begin a flow (`nf_conntrack_proto_icmpv6.c`; catalogue C).

use super::icmp::{self, IcmpHeader};
use super::{Context, L4};
use crate::checksum::Sum;
use crate::profile::Profile;
use crate::reason::Reason;
use crate::trace::Sink;
use crate::tuple::{Tuple, proto};

/// Redirect, the one error whose number is that of an informational message.
pub const REDIRECT: u8 = 137;
/// Types below this one are errors (RFC 4443 section 2.1).
pub const FIRST_INFORMATIONAL_TYPE: u8 = 128;

/// Multicast listener discovery, router and neighbour discovery, and in newer releases multicast router discovery
/// (ICMP6-U-01, VER-11).
#[must_use]
pub const fn is_untracked(icmp_type: u8, kernel: &Profile) -> bool {
    match icmp_type {
        130..=136 | 143 => true,
        151 | 152 => kernel.router_discovery_untracked,
        _ => false,
    }
}

/// Header there, checksum right (ICMP6-E-03).
///
/// # Errors
/// The [`Reason`] for which the message is INVALID.
pub fn check<S: Sink>(l4: &L4<'_>, cx: &Context<'_>, sink: &mut S) -> Result<IcmpHeader, Reason> {
    let pseudo_header = Sum::default().pseudo_header(l4.l3num, l4.src, l4.dst, proto::ICMPV6, l4.len);
    icmp::check_with(l4, pseudo_header, cx, sink)
}

/// `nf_conntrack_icmpv6_packet`: a flow begins with an echo request or a node information query (ICMP6-Q-01).
///
/// # Errors
/// [`Reason::IcmpUnsolicited`] for anything else.
pub fn may_begin(original: &Tuple) -> Result<(), Reason> {
    match original.icmp_type() {
        128 | 139 => Ok(()),
        _ => Err(Reason::IcmpUnsolicited { tuple: *original }),
    }
}
