//! What a helper tells.

use core::net::IpAddr;

use super::mangle::Text;
use super::{Command, Helper};
use crate::direction::{CtInfo, Direction};
use crate::template::HelperName;

/// One thing that a helper did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperStep {
    /// A rule gave the flow a helper.
    Attached(Helper),
    /// A rule asks for a helper that is not here, or not for such flows.
    Unknown(HelperName),
    /// It looks only into packets of flows that have seen a reply.
    TooEarly(Helper, CtInfo),
    /// A byte of the packet is missing from the capture.
    Cut(Helper),
    /// FTP: the segment does not begin where a line ended that the helper saw.
    OutOfStep {
        /// Where it begins.
        seq: u32,
    },
    /// FTP: a line that opens no connection.
    NoCommand,
    /// FTP: a command or an answer that opens a connection.
    Parsed {
        /// Which.
        command: Command,
        /// Address in it, or the sender's where there is none.
        address: IpAddr,
        /// Port in it.
        port: u16,
        /// Where the numbers begin in the payload, and how many bytes they have.
        at: (usize, usize),
    },
    /// FTP: it names somebody else; the helper would open a hole for a third party and does not.
    OtherAddress {
        /// The address in the command.
        named: IpAddr,
        /// The sender's.
        sender: IpAddr,
    },
    /// FTP: a line ended here.
    LineEnd {
        /// The next one begins here.
        seq: u32,
    },
    /// TFTP: a request.
    TftpRequest {
        /// Is a file written, or read?
        writes: bool,
    },
    /// PPTP: a control message.
    Pptp {
        /// Its number.
        message: u16,
        /// The call id of the client's side, as far as it is known.
        pns: u16,
        /// That of the server's side.
        pac: u16,
    },
    /// PPTP: a message that does not fit the state of the call; it goes on and changes nothing.
    PptpUnfit {
        /// Its number.
        message: u16,
    },
    /// PPTP: the flows and expectations of the call end.
    CallEnds,
    /// Where the flow is translated, its payload is.
    Mangled {
        /// First byte in the payload.
        at: usize,
        /// Bytes that were there.
        was: usize,
        /// Bytes that are there.
        is: Text,
    },
    /// The sequence numbers of a direction are shifted from here on.
    Shifted {
        /// Direction.
        direction: Direction,
        /// Where the segment that grew or shrank begins.
        position: u32,
        /// The shift up to there, in bytes.
        before: i32,
        /// The shift behind.
        after: i32,
    },
}
