//! A packet in a few words.

use std::fmt;

use ctwhy_core::hook::Verdict;
use ctwhy_core::packet::{Packet, Quoted, be16, be32, locate_transport};
use ctwhy_core::render::icmp::Named;
use ctwhy_core::track::tcp::segment::flag;
use ctwhy_core::track::{icmp, icmpv6};
use ctwhy_core::tuple::{L3, extract, proto};

use super::session::{Left, Seen};

/// What the packet is: protocol, who to whom, and what tells it apart.
pub(super) struct What<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) len: usize,
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packet = match Packet::parse(self.bytes, self.len) {
            Ok(packet) => packet,
            Err(error) => return write!(f, "{} bytes: {error}", self.len),
        };
        let (src, dst) = (packet.src.ip(packet.l3num), packet.dst.ip(packet.l3num));
        let Ok(transport) = packet.transport else { return write!(f, "{src} -> {dst}") };
        let l4 = packet.bytes.get(transport.offset..).unwrap_or_default();
        match (packet.l3num, transport.protonum, l4) {
            (L3::V4, proto::ICMP, &[icmp_type, code, ..]) | (L3::V6, proto::ICMPV6, &[icmp_type, code, ..]) => {
                write!(f, "{} {src} -> {dst} ", proto::name(transport.protonum))?;
                let named = Named { l3num: packet.l3num, icmp_type, code };
                match named.name() {
                    Some(name) => f.write_str(name)?,
                    None => named.fmt(f)?,
                }
                about(&packet, transport.offset, icmp_type, f)
            }
            _ => match extract(packet.l3num, packet.src, packet.dst, transport.protonum, l4) {
                Ok(tuple) => {
                    tuple.fmt(f)?;
                    if transport.protonum == proto::TCP { segment(l4, f) } else { Ok(()) }
                }
                Err(_) => write!(f, "{} {src} -> {dst}", proto::name(transport.protonum)),
            },
        }
    }
}

/// What an ICMP message is about: the packet that an error quotes, the id and number of a query.
fn about(packet: &Packet<'_>, offset: usize, icmp_type: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let error = match packet.l3num {
        L3::V4 => icmp::is_error(icmp_type),
        L3::V6 => icmp_type < icmpv6::FIRST_INFORMATIONAL_TYPE,
    };
    if error {
        let Ok(quoted) = Quoted::parse(packet, offset + icmp::HEADER) else { return Ok(()) };
        let Ok(transport) = locate_transport(quoted.bytes, quoted.len, packet.l3num) else { return Ok(()) };
        let l4 = quoted.bytes.get(transport.offset..).unwrap_or_default();
        return match extract(packet.l3num, quoted.src, quoted.dst, transport.protonum, l4) {
            Ok(tuple) => write!(f, " about {tuple}"),
            Err(_) => Ok(()),
        };
    }
    let query = match packet.l3num {
        L3::V4 => matches!(icmp_type, 0 | 8 | 13..=18),
        L3::V6 => matches!(icmp_type, 128 | 129),
    };
    match (be16(packet.bytes, offset + 4), be16(packet.bytes, offset + 6)) {
        (Some(id), Some(number)) if query => write!(f, " id {id} seq {number}"),
        _ => Ok(()),
    }
}

/// Flags, numbers and payload of a segment.
fn segment(l4: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (Some(seq), Some(ack), Some(&[offset, flags])) = (be32(l4, 4), be32(l4, 8), l4.get(12..14)) else {
        return Ok(());
    };
    f.write_str(" [")?;
    let names = flag::NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name);
    for (index, name) in names.enumerate() {
        write!(f, "{}{name}", if index == 0 { "" } else { " " })?;
    }
    write!(f, "] seq {seq}")?;
    if flags & flag::ACK != 0 {
        write!(f, " ack {ack}")?;
    }
    match l4.len().saturating_sub(usize::from(offset >> 4) * 4) {
        0 => Ok(()),
        payload => write!(f, " len {payload}"),
    }
}

/// The line of a packet.
pub(super) struct Line<'a>(pub(super) &'a Seen<'a>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.0;
        let interface = seen.interface.as_deref().unwrap_or("-");
        write!(f, "{:>5} {:<10} {interface:<5} ", seen.number, seen.ruling.hook.name())?;
        write!(f, "{}  ", What { bytes: seen.bytes, len: seen.len })?;
        match seen.ruling.ctinfo {
            Ok(ctinfo) => write!(f, "{ctinfo}")?,
            Err(unseen) => write!(f, "({unseen})")?,
        }
        if let Some(reason) = &seen.ruling.reason {
            write!(f, " {}", reason.code())?;
        }
        match seen.ruling.verdict {
            Verdict::Drop(cause) => write!(f, " dropped: {}", cause.code())?,
            Verdict::Accept if seen.left == Left::Nowhere => f.write_str(" dropped on the way")?,
            Verdict::Accept => {}
        }
        f.write_str(match seen.agrees() {
            Some(true) => "  agree",
            Some(false) => "  DIFFER",
            None => "  (nothing to compare with)",
        })
    }
}
