//! ICMP for IPv4: header checks, and which packets may begin a flow (`nf_conntrack_proto_icmp.c`; catalogue B).

use super::{Context, L4};
use crate::checksum::Sum;
use crate::packet::be16;
use crate::reason::Reason;
use crate::trace::{Protected, Sink, Step};
use crate::tuple::Tuple;

/// Length of the header that every ICMP and ICMPv6 message has.
pub const HEADER: usize = 8;
/// The highest type that conntrack knows, address mask reply (`NR_ICMP_TYPES`).
pub const LAST_KNOWN_TYPE: u8 = 18;
/// Redirect.
pub const REDIRECT: u8 = 5;

/// Type and code of a message whose header was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpHeader {
    /// Type.
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
}

/// Does a message of this type quote a packet: destination unreachable, source quench, redirect, time exceeded,
/// parameter problem (`icmp_is_err`)?
#[must_use]
pub const fn is_error(icmp_type: u8) -> bool {
    matches!(icmp_type, 3 | 4 | REDIRECT | 11 | 12)
}

/// Header there, checksum right (catalogue B.2 steps 1 and 2).
///
/// # Errors
/// The [`Reason`] for which the message is INVALID.
pub fn check<S: Sink>(l4: &L4<'_>, cx: &Context<'_>, sink: &mut S) -> Result<IcmpHeader, Reason> {
    check_with(l4, Sum::default(), cx, sink)
}

/// The checks that ICMP and ICMPv6 share; `initial` is the sum of the pseudo header, which ICMP does not have.
pub(super) fn check_with<S: Sink>(
    l4: &L4<'_>,
    initial: Sum,
    cx: &Context<'_>,
    sink: &mut S,
) -> Result<IcmpHeader, Reason> {
    let Some(&[icmp_type, code, ..]) = l4.bytes.first_chunk::<HEADER>() else {
        return Err(Reason::IcmpShort { have: l4.len });
    };
    if cx.verify_checksum {
        verify(l4.bytes, initial)?;
        sink.step(|| Step::ChecksumRight(Protected::Icmp));
    }
    Ok(IcmpHeader { icmp_type, code })
}

/// Is the checksum of a whole ICMP or ICMPv6 message right?
pub(crate) fn verify(message: &[u8], initial: Sum) -> Result<(), Reason> {
    if initial.bytes(message).fold() == 0xffff {
        return Ok(());
    }
    let found = be16(message, 2).unwrap_or(0);
    let expected = initial.bytes(message.get(..2).unwrap_or(&[])).bytes(message.get(4..).unwrap_or(&[])).checksum();
    Err(Reason::IcmpChecksum { found, expected })
}

/// `nf_conntrack_icmp_packet`: a flow begins with a query (ICMP-Q-01, ICMP-Q-02).
///
/// # Errors
/// [`Reason::IcmpUnsolicited`] for an answer that nobody asked for.
pub fn may_begin(original: &Tuple) -> Result<(), Reason> {
    match original.icmp_type() {
        8 | 13 | 15 | 17 => Ok(()),
        _ => Err(Reason::IcmpUnsolicited { tuple: *original }),
    }
}
