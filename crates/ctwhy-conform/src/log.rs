//! What Linux 6.18 logs about a packet that is INVALID (`nf_conntrack_log_invalid`), from the engine's reason. Together
//! with the recorded log it shows that the engine refuses a packet not only when the kernel does, but for the same cause.

use std::fmt::Write as _;
use std::net::IpAddr;

use ctwhy_core::reason::Reason;
use ctwhy_core::track::tcp::TcpReason;
use ctwhy_core::tuple::{L3, proto};

/// The kernel's line about a packet of the family; `None` where it says nothing.
#[must_use]
pub fn kernel_line(reason: &Reason, l3num: L3) -> Option<String> {
    let icmp = match l3num {
        L3::V4 => proto::ICMP,
        L3::V6 => proto::ICMPV6,
    };
    let (protonum, text) = match reason {
        Reason::IcmpShort { .. } => (icmp, "short packet".to_owned()),
        Reason::IcmpChecksum { .. } => {
            let text = if l3num == L3::V4 { "bad hw icmp checksum" } else { "ICMPv6 checksum failed" };
            (icmp, text.to_owned())
        }
        Reason::IcmpUnknownType { .. } => (icmp, "invalid icmp type".to_owned()),
        Reason::OuterDaddrMismatch { outer, expected } => {
            (icmp, format!("outer daddr {} != inner {}", in_full(*outer), in_full(*expected)))
        }
        Reason::RedirectOffLink { .. } => (icmp, "invalid saddr or hoplimit for redirect".to_owned()),
        Reason::RedirectShort { .. } => (icmp, "short redirect".to_owned()),
        Reason::RedirectNoOptions => (icmp, "redirect without options".to_owned()),
        Reason::UdpShort { .. } => (proto::UDP, "short packet".to_owned()),
        Reason::UdpLength { .. } => (proto::UDP, "truncated/malformed packet".to_owned()),
        Reason::UdpChecksum { .. } => (proto::UDP, "bad checksum".to_owned()),
        Reason::Tcp(reason) => (proto::TCP, tcp_text(reason)?),
        Reason::NoTransport(_)
        | Reason::ShortTransport(_)
        | Reason::NotInvertible { .. }
        | Reason::IcmpUnsolicited { .. }
        | Reason::QuotedNoTransport(_)
        | Reason::QuotedShortTransport(_)
        | Reason::QuotedNotInvertible { .. }
        | Reason::QuotedUnknownFlow { .. } => return None,
    };
    Some(format!("nf_ct_proto_{protonum}: {text}"))
}

fn tcp_text(reason: &TcpReason) -> Option<String> {
    Some(match reason {
        TcpReason::ShortHeader { .. } | TcpReason::LooseOff { .. } => return None,
        TcpReason::BadDataOffset { .. } | TcpReason::Truncated { .. } => "truncated packet".to_owned(),
        TcpReason::BadChecksum { .. } => "bad checksum".to_owned(),
        TcpReason::BadFlags { .. } => "invalid tcp flag combination".to_owned(),
        TcpReason::InvalidNew { .. } => "invalid new".to_owned(),
        TcpReason::InvalidState { direction, index, state } => {
            let (index, direction) = (*index as u8, direction.index());
            format!("packet (index {index}) in dir {direction} invalid, state {}", state.name())
        }
        TcpReason::InvalidRst { .. } => "invalid rst".to_owned(),
        TcpReason::SeqOverUpperBound { check } => {
            let bound = check.sender_maxend.wrapping_add(1);
            format!("SEQ is over upper bound {bound} (over the window of the receiver)")
        }
        TcpReason::AckOverUpperBound { check } => {
            let bound = check.receiver_end.wrapping_add(1);
            format!("ACK is over upper bound {bound} (ACKed data not seen yet)")
        }
    })
}

/// An address as the kernel prints it: all groups of an IPv6 address, with their zeros (`%pI6`).
fn in_full(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().iter().enumerate().fold(String::new(), |mut text, (at, group)| {
            let colon = if at == 0 { "" } else { ":" };
            // Writing into a string does not fail.
            let _ = write!(text, "{colon}{group:04x}");
            text
        }),
    }
}
