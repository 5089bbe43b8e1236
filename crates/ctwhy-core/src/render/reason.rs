//! Causes of INVALID as sentences, each with the values that were compared.

use core::fmt::{self, Display, Formatter};

use super::icmp::Named;
use super::{sctp, tcp};
use crate::reason::Reason;
use crate::tuple::{L3, Tuple, proto};

/// The message that an ICMP tuple stands for.
fn named(tuple: &Tuple) -> Named {
    let l3num = if tuple.protonum == proto::ICMPV6 { L3::V6 } else { L3::V4 };
    Named { l3num, icmp_type: tuple.icmp_type(), code: tuple.icmp_code() }
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoTransport(cause) => write!(f, "the packet has no transport header to be tracked by: {cause}"),
            Reason::ShortTransport(short) => write!(
                f,
                "the {} header is cut off: {} bytes are needed to tell the flow and {} are there",
                proto::name(short.protonum),
                short.need,
                short.have
            ),
            Reason::GrePayload { protocol } => {
                write!(f, "GRE version 1 is tracked only with PPP in it (0x880b), and this carries {protocol:#06x}")
            }
            Reason::QuotedGrePayload { protocol } => write!(
                f,
                "the error quotes GRE version 1 that carries {protocol:#06x}; only with PPP in it (0x880b) it is tracked"
            ),
            Reason::NotInvertible { tuple } => {
                write!(f, "{} is neither a query nor an answer nor an error: no flow can begin with it", named(tuple))
            }
            Reason::IcmpShort { have } => write!(f, "an ICMP header has 8 bytes and {have} are there"),
            Reason::IcmpChecksum { found, expected } => {
                write!(f, "the ICMP checksum is {found:#06x} and {expected:#06x} would be right")
            }
            Reason::IcmpUnknownType { icmp_type } => {
                write!(f, "ICMP type {icmp_type} is above 18, the highest that conntrack knows")
            }
            Reason::IcmpUnsolicited { tuple } => write!(
                f,
                "{} from {} to {} (id {}) and no query waits for it: a flow can only begin with a query",
                named(tuple),
                tuple.src_ip(),
                tuple.dst_ip(),
                tuple.src_u
            ),
            Reason::QuotedNoTransport(cause) => {
                write!(f, "the packet that the error quotes cannot be told a flow from: {cause}")
            }
            Reason::QuotedShortTransport(short) => write!(
                f,
                "the error quotes too little: {} bytes of the {} header are needed to tell the flow and {} are there",
                short.need,
                proto::name(short.protonum),
                short.have
            ),
            Reason::QuotedNotInvertible { tuple } => write!(
                f,
                "the error quotes a packet that nobody answers, {} from {} to {}: it belongs to no flow",
                named(tuple),
                tuple.src_ip(),
                tuple.dst_ip()
            ),
            Reason::QuotedUnknownFlow { quoted, inverted } => write!(
                f,
                "the error quotes {quoted}, and no flow in the table has that packet turned round, {inverted}"
            ),
            Reason::OuterDaddrMismatch { outer, expected } => write!(
                f,
                "the error goes to {outer}, but packets of the flow that it quotes go to {expected} in that direction"
            ),
            Reason::RedirectOffLink { hop_limit, source } => write!(
                f,
                "a redirect must come from the link: hop limit 255 and a link-local source, not {hop_limit} and {source}"
            ),
            Reason::RedirectShort { have } => {
                write!(f, "a redirect has 40 bytes before its options and {have} are there")
            }
            Reason::RedirectNoOptions => f.write_str("the redirect carries no option, so it quotes no packet"),
            Reason::UdpShort { have } => write!(f, "a UDP header has 8 bytes and {have} are there"),
            Reason::UdpLength { says, have } => {
                write!(f, "the UDP header says {says} bytes; at least 8 and at most the {have} there can be right")
            }
            Reason::UdpChecksum { found, expected } => {
                write!(f, "the UDP checksum is {found:#06x} and {expected:#06x} would be right")
            }
            Reason::UdpliteShort { have } => write!(f, "a UDP-Lite header has 8 bytes and {have} are there"),
            Reason::UdpliteCoverage { says, have } => write!(
                f,
                "the UDP-Lite checksum covers {says} bytes, says the header; 0, or at least 8 and at most the {have} \
                 there can be right"
            ),
            Reason::UdpliteNoChecksum => f.write_str("UDP-Lite must have a checksum, and the field is 0"),
            Reason::UdpliteChecksum { found, expected, rfc } if found == rfc => write!(
                f,
                "the UDP-Lite checksum is {found:#06x}, as RFC 3828 has it, but the kernel computes {expected:#06x}: it \
                 takes the pseudo header of UDP"
            ),
            Reason::UdpliteChecksum { found, expected, rfc } => write!(
                f,
                "the UDP-Lite checksum is {found:#06x}; the kernel, which takes the pseudo header of UDP, computes \
                 {expected:#06x}, RFC 3828 {rfc:#06x}"
            ),
            Reason::Tcp(reason) => tcp::reason(reason, f),
            Reason::Sctp(reason) => sctp::reason(reason, f),
        }
    }
}
