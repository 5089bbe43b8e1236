//! The host's raw ICMP sockets: every error that it receives, with all that is quoted. Most are not about the guest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER, be16, locate_transport};
use ctwhy_core::tuple::{Addr, L3, Tuple, extract, proto};
use ctwhy_linux::socket::icmp::RawIcmp;

use super::guest::echo_types;
use super::recent::{Evidence, own_part};
use super::relay::{self, Complaint};

/// One for each family, where they are allowed.
#[derive(Debug, Default)]
pub(super) struct Raw {
    v4: Option<RawIcmp>,
    v6: Option<RawIcmp>,
}

impl Raw {
    /// Opens what is allowed.
    pub(super) fn open() -> Raw {
        let open = |any: IpAddr| RawIcmp::open(any).ok();
        Raw { v4: open(Ipv4Addr::UNSPECIFIED.into()), v6: open(Ipv6Addr::UNSPECIFIED.into()) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.v4.is_some() && self.v6.is_some()
    }

    pub(super) fn socket(&self, l3num: L3) -> Option<&RawIcmp> {
        match l3num {
            L3::V4 => self.v4.as_ref(),
            L3::V6 => self.v6.as_ref(),
        }
    }

    /// What to wait for.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.v4.iter().chain(&self.v6).map(AsFd::as_fd)
    }

    /// The next message: its family, its sender, and it from the ICMP header on.
    pub(super) fn next<'a>(&self, buffer: &'a mut [u8]) -> Option<(L3, IpAddr, &'a [u8])> {
        for (l3num, socket) in [(L3::V4, &self.v4), (L3::V6, &self.v6)] {
            if let Some(Ok(Some(received))) = socket.as_ref().map(|socket| socket.recv(buffer)) {
                let (start, end) = received.message;
                return Some((l3num, received.from, buffer.get(start..end)?));
            }
        }
        None
    }
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// An echo reply: the id, and what follows it.
    Reply { from: IpAddr, id: u16, rest: &'a [u8] },
    /// An error: the tuple of the packet that it quotes, and what it shows of it.
    Error { host: Tuple, evidence: Evidence<'a>, complaint: Complaint<'a> },
    /// Its checksum is wrong.
    Wrong,
    /// Nothing that is passed on.
    Other,
}

/// Reads a message.
pub(super) fn read((l3num, from, message): (L3, IpAddr, &[u8])) -> Message<'_> {
    // The kernel hands a message out before it looks at the checksum, but that of ICMPv6.
    if l3num == L3::V4 && Sum::default().bytes(message).fold() != 0xffff {
        return Message::Wrong;
    }
    let &[icmp_type, code, _, _, w0, w1, w2, w3, ref content @ ..] = message else { return Message::Other };
    if icmp_type == echo_types(l3num).1 {
        return Message::Reply { from, id: u16::from_be_bytes([w0, w1]), rest: message.get(6..).unwrap_or_default() };
    }
    if !relay::is_relayed(l3num, icmp_type) {
        return Message::Other;
    }
    // Where the quote ends and an extension begins, in words of 32 bits or of 64 (RFC 4884 section 4).
    let end = match (l3num, icmp_type) {
        (L3::V4, _) => usize::from(w1) * 4,
        (L3::V6, 1 | 3) => usize::from(w0) * 8,
        _ => 0,
    };
    let quote = content.get(..end).filter(|_| end > 0).unwrap_or(content);
    let Some((host, l4, ttl)) = quoted(l3num, quote) else { return Message::Other };
    let own = own_part(host.protonum);
    let at = quote.len() - l4.padding;
    let complaint = Complaint {
        from,
        icmp_type,
        code,
        word: [w0, w1, w2, w3],
        quoted: l4.quoted.len(),
        ttl: Some(ttl),
        rest: content.get(at..).unwrap_or_default(),
    };
    let checksum = if host.protonum == proto::UDP { 6 } else { 2 };
    let evidence = Evidence {
        l4_len: l4.len,
        checksum: be16(l4.quoted, checksum),
        shared: l4.quoted.get(own..).unwrap_or_default(),
    };
    Message::Error { host, evidence, complaint }
}

/// The transport part of a quoted packet.
struct QuotedL4<'a> {
    /// As far as it is quoted.
    quoted: &'a [u8],
    /// As long as it was; of a first fragment nobody knows.
    len: Option<usize>,
    /// Bytes of the quote behind the packet.
    padding: usize,
}

/// The tuple of a quoted datagram, its transport part, its TTL.
fn quoted(l3num: L3, quote: &[u8]) -> Option<(Tuple, QuotedL4<'_>, u8)> {
    let (total, ttl, addresses, width) = match l3num {
        L3::V4 => (usize::from(be16(quote, 2)?), *quote.get(8)?, quote.get(12..IPV4_HEADER)?, 4),
        L3::V6 => (IPV6_HEADER + usize::from(be16(quote, 4)?), *quote.get(7)?, quote.get(8..IPV6_HEADER)?, 16),
    };
    let transport = locate_transport(quote, quote.len(), l3num).ok()?;
    let wanted = matches!(transport.protonum, proto::UDP | proto::ICMP | proto::ICMPV6);
    let packet = quote.get(..total).unwrap_or(quote);
    let l4 = packet.get(transport.offset..)?;
    let (src, dst) = addresses.split_at_checked(width)?;
    let address = |bytes: &[u8]| {
        let mut address = Addr([0; 16]);
        address.0.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        address
    };
    let tuple = extract(l3num, address(src), address(dst), transport.protonum, l4).ok().filter(|_| wanted)?;
    let cut = match l3num {
        L3::V4 => be16(quote, 6)? & 0x3fff != 0,
        L3::V6 => *quote.get(6)? != transport.protonum,
    };
    let len = (!cut).then(|| total.saturating_sub(transport.offset));
    Some((tuple, QuotedL4 { quoted: l4, len, padding: quote.len() - packet.len() }, ttl))
}
