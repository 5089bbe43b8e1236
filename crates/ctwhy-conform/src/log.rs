//! What Linux logs about a packet that is INVALID (`nf_conntrack_log_invalid`), from the engine's reason. Together
//! with the recorded log it shows that the engine refuses a packet not only when the kernel does, but for the same cause.

use std::fmt::Write as _;
use std::net::IpAddr;

use ctwhy_core::profile::Profile;
use ctwhy_core::reason::Reason;
use ctwhy_core::trace::Step;
use ctwhy_core::track::sctp::SctpReason;
use ctwhy_core::track::tcp::{TcpReason, TcpStep};
use ctwhy_core::tuple::{L3, proto};

/// The kernel's line about a packet of the family; `None` where it says nothing.
#[must_use]
pub fn kernel_line(reason: &Reason, l3num: L3, kernel: &Profile) -> Option<String> {
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
        Reason::UdpliteShort { .. } => (proto::UDPLITE, "short packet".to_owned()),
        Reason::UdpliteCoverage { .. } => (proto::UDPLITE, "invalid checksum coverage".to_owned()),
        Reason::UdpliteNoChecksum => (proto::UDPLITE, "checksum missing".to_owned()),
        Reason::UdpliteChecksum { .. } => (proto::UDPLITE, "bad checksum".to_owned()),
        Reason::Tcp(TcpReason::InvalidNew { .. }) if !kernel.logs_invalid_new => return None,
        Reason::Sctp(_) if !kernel.logs_sctp => return None,
        Reason::Tcp(reason) => (proto::TCP, tcp_text(reason)?),
        Reason::Sctp(reason) => (proto::SCTP, sctp_text(reason)?),
        Reason::NoTransport(_)
        | Reason::ShortTransport(_)
        | Reason::GrePayload { .. }
        | Reason::NotInvertible { .. }
        | Reason::IcmpUnsolicited { .. }
        | Reason::QuotedNoTransport(_)
        | Reason::QuotedShortTransport(_)
        | Reason::QuotedGrePayload { .. }
        | Reason::QuotedNotInvertible { .. }
        | Reason::QuotedUnknownFlow { .. } => return None,
    };
    Some(format!("nf_ct_proto_{protonum}: {text}"))
}

/// What the kernel adds where the INVALID ends of both sides lower the timeout (TCP-WIN-LOWER); `hz` are its ticks a second.
#[must_use]
pub fn lowered_line(steps: &[Step], hz: i64, kernel: &Profile) -> Option<String> {
    let direction = steps.iter().find_map(|step| match step {
        Step::Hit { direction, .. } => Some(direction.index()),
        _ => None,
    })?;
    steps.iter().find_map(|step| match step {
        Step::Tcp(TcpStep::TimeoutLowered { index, previous, to, .. }) => {
            let (number, index, previous) = (proto::TCP, *index as u8, *previous as u8);
            if kernel.logs_lowered_briefly {
                return Some(format!("nf_ct_proto_{number}: lowered timeout to UNACK"));
            }
            let ticks = i64::from(*to) * hz;
            let packet = format!("packet (index {index}, dir {direction}) response for index {previous}");
            Some(format!("nf_ct_proto_{number}: {packet} lower timeout to {ticks}"))
        }
        _ => None,
    })
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

fn sctp_text(reason: &SctpReason) -> Option<String> {
    // Lengths and tags are printed as the bytes on the wire are read by a little-endian machine.
    let chunks = |number: u32, kind: u8, length: u16, lonely: bool| {
        let (length, flag) = (length.swap_bytes(), u8::from(lonely));
        format!("do_basic_checks failed. chunk num {number}, type {kind}, len {length} flag {flag}")
    };
    Some(match *reason {
        SctpReason::Short { .. } => "nf_ct_sctp: short packet".to_owned(),
        SctpReason::Checksum { .. } => "nf_ct_sctp: bad CRC".to_owned(),
        SctpReason::ChunkEmpty { kind, number, lonely } => chunks(number, kind.0, 0, lonely.is_some()),
        SctpReason::ChunkNotAlone { kind, number, length, .. } => chunks(number, kind.0, length, true),
        SctpReason::ChunkNotFirst { kind, number, length } => chunks(number, kind.0, length, false),
        SctpReason::Tag { direction, found, expected } => {
            let (found, expected, direction) = (found.swap_bytes(), expected.swap_bytes(), direction.index());
            format!("verification tag check failed {found:x} vs {expected:x} for dir {direction}")
        }
        SctpReason::InvalidState { direction, kind, state } => {
            format!("Invalid, old_state {}, dir {}, type {}", state.number(), direction.index(), kind.0)
        }
        SctpReason::NoChunk
        | SctpReason::BeginsNothing { .. }
        | SctpReason::InitTag { .. }
        | SctpReason::InitShort { .. }
        | SctpReason::ChunkTag { .. }
        | SctpReason::HeartbeatTag { .. }
        | SctpReason::InitAckTag { .. } => return None,
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
