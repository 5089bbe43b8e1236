//! What helpers do, as sentences.

use core::fmt::{self, Display, Formatter};

use crate::expect::{Mask, Refused};
use crate::helper::{HelperDrop, HelperStep, pptp::message};
use crate::seqadj::SeqDrop;
use crate::tuple::Tuple;

/// One step of a helper.
pub(super) fn step(step: &HelperStep, f: &mut Formatter<'_>) -> fmt::Result {
    match *step {
        HelperStep::Attached(helper) => write!(f, "helper {helper}: the flow gets it, as a raw rule says"),
        HelperStep::Unknown(name) => {
            write!(f, "helper {name}: a raw rule says so, but it is not one of ftp, tftp and pptp; nothing is read")
        }
        HelperStep::TooEarly(helper, ctinfo) => {
            write!(f, "helper {helper}: it reads ESTABLISHED packets only, and this is {ctinfo}")
        }
        HelperStep::Cut(helper) => write!(f, "helper {helper}: the capture does not hold the whole packet; not read"),
        HelperStep::OutOfStep { seq } => {
            write!(f, "helper ftp: not read, because no line that was seen ended just before sequence number {seq}")
        }
        HelperStep::NoCommand => f.write_str("helper ftp: read; the line opens no data connection"),
        HelperStep::Parsed { command, address, port, at: (at, length) } => {
            write!(
                f,
                "helper ftp: {command} in bytes {at} to {} of the payload: address {address}, port {port}",
                at + length
            )
        }
        HelperStep::OtherAddress { named, sender } => write!(
            f,
            "helper ftp: {named} is not {sender}, who says it; no hole is opened for a third party, nothing is expected"
        ),
        HelperStep::LineEnd { seq } => {
            write!(f, "helper ftp: a line ends here; what comes at sequence number {seq} will be read")
        }
        HelperStep::TftpRequest { writes } => {
            write!(
                f,
                "helper tftp: a {} request; the answer comes from a port of its own",
                if writes { "write" } else { "read" }
            )
        }
        HelperStep::Pptp { message, pns, pac } => {
            write!(f, "helper pptp: {}; call id of the client {pns}, of the server {pac}", message::name(message))
        }
        HelperStep::PptpUnfit { message } => {
            write!(
                f,
                "helper pptp: {} ({message}) does not fit what came before; it changes nothing",
                message::name(message)
            )
        }
        HelperStep::CallEnds => f.write_str("helper pptp: the call ends, and what belongs to it"),
        HelperStep::Mangled { at, was, is } => {
            let grows = is.as_bytes().len() as i64 - was as i64;
            write!(f, "nat: {was} bytes of payload from byte {at} on become {is:?}")?;
            match grows {
                0 => Ok(()),
                _ => write!(
                    f,
                    ": the packet is {} {} {}",
                    grows.abs(),
                    bytes(grows),
                    if grows > 0 { "longer" } else { "shorter" }
                ),
            }
        }
        HelperStep::Shifted { direction, position, before, after } => write!(
            f,
            "sequence numbers in {direction} direction are shifted by {after:+} behind {position}, by {before:+} up to there"
        ),
    }
}

fn bytes(count: i64) -> &'static str {
    if count.abs() == 1 { "byte" } else { "bytes" }
}

/// A flow to come: what does not count of its source is left open.
pub(super) fn expectation(tuple: &Tuple, mask: Mask, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "a flow {tuple}")?;
    match mask {
        Mask { address: true, port: true } => Ok(()),
        Mask { address: true, port: false } => f.write_str(" from whatever port"),
        Mask { address: false, .. } => f.write_str(" from whoever"),
    }
}

impl Display for HelperDrop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            HelperDrop::Partial(command) => write!(
                f,
                "helper ftp: the line begins with {command} but cannot be read to its end; it has to come again in one segment"
            ),
            HelperDrop::Refused(Refused::Clash) => {
                f.write_str("helper: another flow expects the same, so this one cannot")
            }
            HelperDrop::Refused(Refused::Full) => f.write_str("helper: there are as many expectations as there may be"),
            HelperDrop::PortsUsed => f.write_str("helper: nat finds no port that could be expected"),
            HelperDrop::TooLong => f.write_str("helper: with the address of nat in it the packet would be too long"),
        }
    }
}

impl Display for SeqDrop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            SeqDrop::Short { need, have } => {
                write!(
                    f,
                    "sequence numbers cannot be adjusted: {need} bytes of TCP header are needed and {have} are there"
                )
            }
            SeqDrop::Option { offset } => {
                write!(f, "sequence numbers cannot be adjusted: the TCP option at byte {offset} has no possible length")
            }
        }
    }
}
