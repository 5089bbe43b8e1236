//! Views of a packet as it lies in memory. Nothing is copied.
//!
//! [`Packet`] is a packet that arrived: `ip_rcv` and `ip6_rcv` have looked at its IP header. [`Quoted`] is the packet
//! inside an ICMP error, a type of its own: of its IP header nothing was ever checked, and most of it may be missing.

use core::fmt;

use crate::checksum::Sum;
use crate::track::L4;
use crate::tuple::{Addr, L3};

/// Length of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header.
pub const IPV6_HEADER: usize = 40;

/// A big-endian 16-bit field at `offset`.
#[must_use]
pub fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..offset.checked_add(2)?)?;
    Some(u16::from_be_bytes(field.try_into().ok()?))
}

/// A big-endian 32-bit field at `offset`.
#[must_use]
pub fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_be_bytes(field.try_into().ok()?))
}

/// Why a packet never reaches conntrack: what `ip_rcv` and `ip6_rcv` drop, and what a capture does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// Fewer bytes than an IP header has.
    ShortHeader {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// The version nibble is neither 4 nor 6.
    Version(u8),
    /// IHL below 5.
    HeaderLength(u8),
    /// The IPv4 header checksum is wrong.
    HeaderChecksum {
        /// As in the packet.
        found: u16,
        /// As it should be.
        expected: u16,
    },
    /// The length in the IP header is smaller than the header or larger than the packet.
    TotalLength {
        /// As the header says.
        says: usize,
        /// As received.
        have: usize,
    },
    /// The capture was cut before a byte that decides.
    CutShort {
        /// Bytes needed.
        need: usize,
        /// Bytes captured.
        have: usize,
    },
}

impl PacketError {
    /// The stable code, as in `--json`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            PacketError::ShortHeader { .. } => "ip.short_header",
            PacketError::Version(_) => "ip.version",
            PacketError::HeaderLength(_) => "ip.header_length",
            PacketError::HeaderChecksum { .. } => "ip.header_checksum",
            PacketError::TotalLength { .. } => "ip.total_length",
            PacketError::CutShort { .. } => "capture.cut_short",
        }
    }
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PacketError::ShortHeader { need, have } => {
                write!(f, "the IP header needs {need} bytes, the packet has {have}")
            }
            PacketError::Version(v) => write!(f, "IP version {v} is neither 4 nor 6"),
            PacketError::HeaderLength(ihl) => write!(f, "IHL {ihl} is less than 5 words"),
            PacketError::HeaderChecksum { found, expected } => {
                write!(f, "IP header checksum {found:#06x} is wrong, {expected:#06x} would be right")
            }
            PacketError::TotalLength { says, have } => {
                write!(f, "the IP header says {says} bytes, the packet has {have}")
            }
            PacketError::CutShort { need, have } => write!(
                f,
                "the capture holds {have} bytes of the packet, {need} are needed to decide: capture with a larger snaplen"
            ),
        }
    }
}

/// A fragment's place in its datagram. One at offset 0 behind which no more follow is atomic: IPv6 alone has that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in bytes.
    pub offset: u16,
    /// Do more fragments follow?
    pub more: bool,
    /// Identification.
    pub id: u32,
}

/// Where the transport header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Protocol number.
    pub protonum: u8,
    /// Offset in bytes from the start of the slice that was searched.
    pub offset: usize,
}

/// Why no transport header was found (`get_l4proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTransport {
    /// The IP header itself is cut off.
    ShortIp {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// A fragment other than the first: the ports are in another packet.
    LaterFragment {
        /// Offset in bytes.
        offset: u16,
    },
    /// The IP header ends behind the packet.
    BeyondEnd {
        /// Where the transport header would start.
        offset: usize,
        /// Bytes there.
        have: usize,
    },
    /// IPv6 next header 59, no next header.
    NoNextHeader,
    /// An IPv6 extension header is cut off.
    ShortExtension {
        /// Number of the extension header.
        header: u8,
        /// Where it starts.
        offset: usize,
        /// Bytes there.
        have: usize,
    },
}

impl fmt::Display for NoTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoTransport::ShortIp { need, have } => write!(f, "its IP header needs {need} bytes and {have} are there"),
            NoTransport::LaterFragment { offset } => {
                write!(f, "it is a later fragment (offset {offset}), and only the first one carries the ports")
            }
            NoTransport::BeyondEnd { offset, have } => {
                write!(f, "its transport header would start at byte {offset}, and {have} are there")
            }
            NoTransport::NoNextHeader => f.write_str("its next header is 59, no next header"),
            NoTransport::ShortExtension { header, offset, have } => {
                write!(f, "its extension header {header} at byte {offset} is cut off, {have} bytes are there")
            }
        }
    }
}

/// `get_l4proto`: skips the IP header at the start of `bytes`, for a packet of `len` bytes of which `bytes` are at hand.
///
/// The version nibble is not looked at, and an IPv4 header length below 5 words is taken as it stands (ICMP-IN-01,
/// ICMP-IN-03).
///
/// # Errors
/// [`NoTransport`] says where the walk ended.
#[inline]
pub fn locate_transport(bytes: &[u8], len: usize, l3num: L3) -> Result<Transport, NoTransport> {
    match (l3num, bytes.first_chunk::<IPV4_HEADER>()) {
        (L3::V4, None) => Err(NoTransport::ShortIp { need: IPV4_HEADER, have: bytes.len() }),
        (L3::V4, Some(header)) => {
            let fragment = u16::from_be_bytes([header[6], header[7]]);
            if fragment & 0x1fff != 0 {
                return Err(NoTransport::LaterFragment { offset: (fragment & 0x1fff) << 3 });
            }
            let offset = usize::from(header[0] & 0x0f) * 4;
            if offset > len {
                return Err(NoTransport::BeyondEnd { offset, have: len });
            }
            Ok(Transport { protonum: header[9], offset })
        }
        (L3::V6, _) => skip_extension_headers(bytes, len),
    }
}

/// `ipv6_skip_exthdr`, with the fragment check of `get_l4proto`.
fn skip_extension_headers(bytes: &[u8], len: usize) -> Result<Transport, NoTransport> {
    if bytes.len() < IPV6_HEADER {
        return Err(NoTransport::ShortIp { need: IPV6_HEADER, have: bytes.len() });
    }
    let mut header = bytes[6];
    let mut offset = IPV6_HEADER;
    loop {
        let short = NoTransport::ShortExtension { header, offset, have: len };
        let field = |at: usize| bytes.get(offset + at).copied().ok_or(short);
        let length = match header {
            ext::NONE => return Err(NoTransport::NoNextHeader),
            ext::FRAGMENT => {
                field(1)?;
                let place = be16(bytes, offset + 2).ok_or(short)?;
                if place & !7 != 0 {
                    return Err(NoTransport::LaterFragment { offset: place & !7 });
                }
                8
            }
            ext::AUTH | ext::HOP_BY_HOP | ext::ROUTING | ext::DESTINATION => {
                ext::length(header, Some(field(1)?)).ok_or(short)?
            }
            _ => return Ok(Transport { protonum: header, offset }),
        };
        header = field(0)?;
        offset += length;
    }
}

/// The AH among the extension headers of an IPv6 packet that end at `end`.
fn auth_before(bytes: &[u8], end: usize) -> Option<Transport> {
    let mut header = *bytes.get(6)?;
    let mut offset = IPV6_HEADER;
    while offset < end {
        let length = match header {
            ext::AUTH => return Some(Transport { protonum: ext::AUTH, offset }),
            ext::FRAGMENT => 8,
            _ => (usize::from(*bytes.get(offset + 1)?) + 1) * 8,
        };
        header = *bytes.get(offset)?;
        offset += length;
    }
    None
}

/// IPv6 extension headers that are skipped. ESP is not among them.
mod ext {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTH: u8 = 51;
    pub(super) const NONE: u8 = 59;
    pub(super) const DESTINATION: u8 = 60;

    /// How long an extension header other than the fragment header is, by its length field; `None` for what is none or
    /// ends the chain.
    pub(super) fn length(header: u8, field: Option<u8>) -> Option<usize> {
        match header {
            AUTH => Some((usize::from(field?) + 2) * 4),
            HOP_BY_HOP | ROUTING | DESTINATION => Some((usize::from(field?) + 1) * 8),
            _ => None,
        }
    }
}

/// Source and destination of the IP header at the start of `bytes`; `None` when it is cut off.
#[inline]
pub(crate) fn addresses(bytes: &[u8], l3num: L3) -> Option<(Addr, Addr)> {
    match l3num {
        L3::V4 => {
            let header = bytes.first_chunk::<IPV4_HEADER>()?;
            let address = |at: usize| {
                let mut address = [0; 16];
                address[..4].copy_from_slice(&header[at..at + 4]);
                Addr(address)
            };
            Some((address(12), address(16)))
        }
        L3::V6 => {
            let (src, rest) = bytes.get(8..)?.split_first_chunk()?;
            Some((Addr(*src), Addr(*rest.first_chunk()?)))
        }
    }
}

/// TTL or hop limit in the IP header at the start of `bytes`.
pub(crate) fn hop_limit(bytes: &[u8], l3num: L3) -> Option<u8> {
    let at = match l3num {
        L3::V4 => 8,
        L3::V6 => 7,
    };
    bytes.get(at).copied()
}

/// A packet that arrived at a hook.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// From the first byte of the IP header; link-layer padding behind the packet is not part of it.
    pub bytes: &'a [u8],
    /// Length on the wire (`skb->len`); more than `bytes.len()` when a capture was cut short.
    pub len: usize,
    /// Family.
    pub l3num: L3,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Its place in a datagram that was cut into fragments.
    pub fragment: Option<Fragment>,
    /// Where the transport header is.
    pub transport: Result<Transport, NoTransport>,
    /// Does somebody vouch for the transport checksum, a device or the sender on this machine
    /// (`skb_csum_unnecessary`)? Never so for bytes of a capture.
    pub checksum_trusted: bool,
}

impl<'a> Packet<'a> {
    /// `ip_rcv`, `ip6_rcv`: checks the IP header of a packet of `wire_len` bytes, of which `bytes` are at hand.
    ///
    /// # Errors
    /// [`PacketError`] for a packet that is dropped before any hook sees it, or that the capture does not hold.
    pub fn parse(bytes: &'a [u8], wire_len: usize) -> Result<Packet<'a>, PacketError> {
        match (bytes.first().map(|first| first >> 4), bytes.first_chunk(), bytes.first_chunk()) {
            (Some(4), Some(header), _) => Packet::parse_v4(header, bytes, wire_len),
            (Some(6), _, Some(header)) => Packet::parse_v6(header, bytes, wire_len),
            (Some(4), ..) => Err(missing(IPV4_HEADER, bytes, wire_len)),
            (Some(6), ..) => Err(missing(IPV6_HEADER, bytes, wire_len)),
            (Some(version), ..) => Err(PacketError::Version(version)),
            (None, ..) => Err(PacketError::ShortHeader { need: IPV4_HEADER, have: 0 }),
        }
    }

    /// `ip_rcv_core`.
    #[inline]
    fn parse_v4(header: &'a [u8; IPV4_HEADER], bytes: &'a [u8], wire_len: usize) -> Result<Packet<'a>, PacketError> {
        let ihl = header[0] & 0x0f;
        if ihl < 5 {
            return Err(PacketError::HeaderLength(ihl));
        }
        let header_len = usize::from(ihl) * 4;
        let options = bytes.get(IPV4_HEADER..header_len).ok_or_else(|| missing(header_len, bytes, wire_len))?;
        let sum = Sum::default().bytes(header);
        let sum = if options.is_empty() { sum } else { sum.bytes(options) };
        if sum.fold() != 0xffff {
            let found = u16::from_be_bytes([header[10], header[11]]);
            let expected = Sum::default().bytes(&header[..10]).bytes(&header[12..]).bytes(options).checksum();
            return Err(PacketError::HeaderChecksum { found, expected });
        }
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if len < header_len || len > wire_len {
            return Err(PacketError::TotalLength { says: len, have: wire_len });
        }
        let place = u16::from_be_bytes([header[6], header[7]]);
        let fragment = (place & 0x3fff != 0).then(|| Fragment {
            offset: (place & 0x1fff) << 3,
            more: place & 0x2000 != 0,
            id: u32::from(u16::from_be_bytes([header[4], header[5]])),
        });
        Packet::new(bytes, len, L3::V4, header[8], fragment).ok_or_else(|| missing(IPV4_HEADER, bytes, wire_len))
    }

    /// `ip6_rcv_core`.
    #[inline]
    fn parse_v6(header: &'a [u8; IPV6_HEADER], bytes: &'a [u8], wire_len: usize) -> Result<Packet<'a>, PacketError> {
        let len = IPV6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if len > wire_len {
            return Err(PacketError::TotalLength { says: len, have: wire_len });
        }
        let fragment = ipv6_fragment(bytes);
        Packet::new(bytes, len, L3::V6, header[7], fragment).ok_or_else(|| missing(IPV6_HEADER, bytes, wire_len))
    }

    /// A packet whose IP header was checked: the first `len` of the bytes. `None` without an IP header.
    #[inline]
    fn new(bytes: &'a [u8], len: usize, l3num: L3, ttl: u8, fragment: Option<Fragment>) -> Option<Packet<'a>> {
        let (src, dst) = addresses(bytes, l3num)?;
        let bytes = bytes.get(..len).unwrap_or(bytes);
        let transport = locate_transport(bytes, len, l3num);
        Some(Packet { bytes, len, l3num, src, dst, ttl, fragment, transport, checksum_trusted: false })
    }

    /// The transport part that starts at `offset`.
    #[must_use]
    pub fn l4(&self, offset: usize) -> L4<'a> {
        L4 {
            bytes: self.bytes.get(offset..).unwrap_or(&[]),
            len: self.len.saturating_sub(offset),
            l3num: self.l3num,
            src: self.src,
            dst: self.dst,
        }
    }

    /// Where rules look for the transport header: where conntrack does, but an AH of IPv6 stands for itself and hides what
    /// is behind it (`nft_set_pktinfo_ipv6` has `ipv6_find_hdr` stop there).
    #[must_use]
    pub fn transport_for_rules(&self) -> Option<Transport> {
        let transport = self.transport.ok()?;
        let auth = if self.l3num == L3::V6 { auth_before(self.bytes, transport.offset) } else { None };
        Some(auth.unwrap_or(transport))
    }

    /// Are bytes missing that were on the wire?
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.bytes.len() < self.len
    }
}

/// The IP header ends behind the bytes that are at hand: was it sent like that, or did the capture cut it?
#[cold]
fn missing(need: usize, bytes: &[u8], wire_len: usize) -> PacketError {
    let have = bytes.len();
    if wire_len > have { PacketError::CutShort { need, have } } else { PacketError::ShortHeader { need, have } }
}

/// What the fragment header of an IPv6 packet says.
fn ipv6_fragment(bytes: &[u8]) -> Option<Fragment> {
    let (_, at) = find_fragment_header(bytes)?;
    let place = be16(bytes, at + 2)?;
    Some(Fragment { offset: place & !7, more: place & 1 != 0, id: be32(bytes, at + 4)? })
}

/// `find_prev_fhdr`: where the fragment header of an IPv6 packet is: the offset of the next-header field that names it,
/// and its own. It may lie behind the end of the packet.
#[must_use]
pub fn find_fragment_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let payload = usize::from(be16(bytes, 4)?);
    let end = IPV6_HEADER + payload;
    let (mut next_at, mut at) = (6, IPV6_HEADER);
    // A jumbogram is not fragmented.
    if payload == 0 {
        return None;
    }
    loop {
        let header = *bytes.get(next_at)?;
        if header == ext::FRAGMENT {
            return (at <= end).then_some((next_at, at));
        }
        if at + 2 > end {
            return None;
        }
        next_at = at;
        at += ext::length(header, bytes.get(at + 1).copied())?;
    }
}

/// `ip6_find_1stfragopt`: the headers of an IPv6 packet that every fragment has: the offset of the next-header field that
/// will name the fragment header, and where that goes. `None` when they do not end within the first `linear` bytes.
pub(crate) fn find_first_fragmentable(bytes: &[u8], linear: usize) -> Option<(usize, usize)> {
    let (mut next_at, mut at) = (6, IPV6_HEADER);
    let mut routed = false;
    while at <= linear {
        let header = *bytes.get(next_at)?;
        match header {
            ext::HOP_BY_HOP => {}
            ext::ROUTING => routed = true,
            ext::DESTINATION if !routed => {}
            _ => return Some((next_at, at)),
        }
        if at + 2 > linear {
            return None;
        }
        next_at = at;
        at += ext::length(header, bytes.get(at + 1).copied())?;
    }
    None
}

/// The packet that an ICMP error quotes: all that is left of it.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a> {
    /// From the first byte of the quoted IP header to the end of the error.
    pub bytes: &'a [u8],
    /// Length on the wire from there; more than `bytes.len()` when a capture was cut short.
    pub len: usize,
    /// Offset of the quoted IP header in the error.
    pub offset: usize,
    /// Source address in the quoted header.
    pub src: Addr,
    /// Destination address in the quoted header.
    pub dst: Addr,
    /// Where the quoted transport header is, from the start of `bytes`.
    pub transport: Transport,
}

impl<'a> Quoted<'a> {
    /// Reads the quoted IP header that starts at byte `offset` of an error.
    ///
    /// # Errors
    /// [`NoTransport`] says why it leads to no transport header.
    pub fn parse(error: &Packet<'a>, offset: usize) -> Result<Quoted<'a>, NoTransport> {
        let bytes = error.bytes.get(offset..).unwrap_or(&[]);
        let len = error.len.saturating_sub(offset);
        let transport = locate_transport(bytes, len, error.l3num)?;
        let need = match error.l3num {
            L3::V4 => IPV4_HEADER,
            L3::V6 => IPV6_HEADER,
        };
        let (src, dst) = addresses(bytes, error.l3num).ok_or(NoTransport::ShortIp { need, have: bytes.len() })?;
        Ok(Quoted { bytes, len, offset, src, dst, transport })
    }
}
