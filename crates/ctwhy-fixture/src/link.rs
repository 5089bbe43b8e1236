//! The link layer stripped: where in the captured bytes the IP packet starts.

use std::fmt;

use crate::linktype::LinkType;

/// Most VLAN tags that are followed; one more and the packet counts as not IP.
pub const MAX_VLAN_TAGS: usize = 4;

/// What is behind the link layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stripped {
    /// An IP packet.
    Ip(Link),
    /// Something else, which conntrack never sees.
    NotIp(NotIp),
}

/// Where the IP packet is and what the link layer said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Offset of the IP header in the captured bytes.
    pub ip_offset: usize,
    /// The IP version that the link layer names. With [`LinkType::RAW`], which names none, the header's own.
    pub l3: L3,
    /// The VLAN tags, outermost first.
    pub vlans: Vlans,
    /// Which way the packet went; only cooked captures say it.
    pub packet_type: Option<PacketType>,
    /// Index of the interface on the capturing host; only [`LinkType::LINUX_SLL2`] says it.
    pub ifindex: Option<u32>,
}

/// IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L3 {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The VLAN identifiers of a packet, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vlans {
    ids: [u16; MAX_VLAN_TAGS],
    count: usize,
}

impl Vlans {
    /// The identifiers, outermost first; empty when there is no tag.
    #[must_use]
    pub fn ids(&self) -> &[u16] {
        self.ids.get(..self.count).unwrap_or_default()
    }

    /// Adds a tag inside the others and says whether there was room for it.
    fn push(&mut self, id: u16) -> bool {
        let Some(slot) = self.ids.get_mut(self.count) else { return false };
        *slot = id;
        self.count += 1;
        true
    }
}

/// Which way a packet of a cooked capture went (`PACKET_HOST` and its like in packet(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketType {
    /// Received, addressed to this host's link-layer address.
    Host,
    /// Received as a link-layer broadcast.
    Broadcast,
    /// Received as a link-layer multicast.
    Multicast,
    /// Overheard: addressed to another host.
    OtherHost,
    /// Sent by this host.
    Outgoing,
    /// A number without a meaning here.
    Other(u16),
}

impl From<u16> for PacketType {
    fn from(number: u16) -> Self {
        match number {
            0 => PacketType::Host,
            1 => PacketType::Broadcast,
            2 => PacketType::Multicast,
            3 => PacketType::OtherHost,
            4 => PacketType::Outgoing,
            n => PacketType::Other(n),
        }
    }
}

/// What a packet that is not IP says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotIp {
    /// Another protocol, by its Ethernet type.
    EtherType(u16),
    /// An 802.3 frame with a length in place of a type (LLC: spanning tree and the like).
    Llc {
        /// The length that it claims.
        length: u16,
    },
    /// Another address family on a loopback.
    Family(u32),
    /// A raw packet whose version nibble is neither 4 nor 6.
    Version(u8),
    /// A cooked packet of a device whose protocol numbers are no Ethernet types, by its ARPHRD_ number.
    Device(u16),
}

impl fmt::Display for NotIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotIp::EtherType(number) => match ether_type_name(*number) {
                Some(name) => f.write_str(name),
                None => write!(f, "Ethernet type 0x{number:04x}"),
            },
            NotIp::Llc { length } => write!(f, "802.3 frame of length {length}"),
            NotIp::Family(family) => write!(f, "address family {family}"),
            NotIp::Version(version) => write!(f, "IP version {version}"),
            NotIp::Device(kind) => write!(f, "device of type {kind}"),
        }
    }
}

/// The name of an Ethernet type that people meet beside IP.
fn ether_type_name(number: u16) -> Option<&'static str> {
    Some(match number {
        0x0806 => "ARP",
        0x8035 => "RARP",
        VLAN | QINQ | 0x9100 | 0x9200 => "VLAN tags nested too deep",
        0x8847 => "MPLS",
        0x8848 => "MPLS multicast",
        0x8863 => "PPPoE discovery",
        0x8864 => "PPPoE session",
        0x888e => "802.1X",
        0x88cc => "LLDP",
        0x88e5 => "MACsec",
        0x88f7 => "PTP",
        0x9000 => "Ethernet loopback",
        _ => return None,
    })
}

/// Why the link layer of a packet cannot be stripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// The captured bytes end within a header.
    Truncated {
        /// The header that is cut.
        layer: &'static str,
        /// Where it starts in the captured bytes.
        offset: usize,
        /// Bytes that it takes.
        need: usize,
        /// Bytes that are there from `offset` on.
        have: usize,
    },
    /// A link type that is not taken apart.
    UnknownLinkType(LinkType),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Truncated { layer, offset, need, have } => write!(
                f,
                "{layer} header at offset {offset} is cut: {have} of {need} bytes were captured; capture with a greater \
                 snap length"
            ),
            LinkError::UnknownLinkType(linktype) => write!(
                f,
                "link type {linktype} is not taken apart; capture Ethernet, raw IP or `-i any` (cooked) instead"
            ),
        }
    }
}

impl std::error::Error for LinkError {}

/// 802.1Q.
const VLAN: u16 = 0x8100;
/// 802.1ad.
const QINQ: u16 = 0x88a8;

/// Strips the link layer from the captured bytes of a packet.
///
/// # Errors
/// When the bytes end within a link-layer header or the link type is not known.
pub fn strip(linktype: LinkType, bytes: &[u8]) -> Result<Stripped, LinkError> {
    match linktype {
        LinkType::ETHERNET => ethernet(bytes),
        LinkType::RAW | LinkType::DLT_RAW_12 | LinkType::DLT_RAW_14 => raw(bytes),
        LinkType::IPV4 => Ok(Stripped::Ip(Link::new(0, L3::V4))),
        LinkType::IPV6 => Ok(Stripped::Ip(Link::new(0, L3::V6))),
        LinkType::LINUX_SLL => sll(bytes),
        LinkType::LINUX_SLL2 => sll2(bytes),
        LinkType::NULL => {
            let family = take::<4>(bytes, "loopback", 0)?;
            // No family is above 65535, so the order of the capturing host is the one that gives the smaller number.
            Ok(loopback(u32::from_le_bytes(family).min(u32::from_be_bytes(family))))
        }
        LinkType::LOOP => Ok(loopback(u32::from_be_bytes(take(bytes, "loopback", 0)?))),
        other => Err(LinkError::UnknownLinkType(other)),
    }
}

impl Link {
    fn new(ip_offset: usize, l3: L3) -> Self {
        Link { ip_offset, l3, vlans: Vlans::default(), packet_type: None, ifindex: None }
    }
}

/// The `N` bytes of a header that starts at `offset`.
fn take<const N: usize>(bytes: &[u8], layer: &'static str, offset: usize) -> Result<[u8; N], LinkError> {
    let rest = bytes.get(offset..).unwrap_or_default();
    rest.first_chunk().copied().ok_or(LinkError::Truncated { layer, offset, need: N, have: rest.len() })
}

fn ethernet(bytes: &[u8]) -> Result<Stripped, LinkError> {
    let [.., high, low] = take::<14>(bytes, "Ethernet", 0)?;
    behind_type(bytes, u16::from_be_bytes([high, low]), Link::new(14, L3::V4))
}

/// Follows VLAN tags from the Ethernet type before `link.ip_offset` to what they carry.
#[inline]
fn behind_type(bytes: &[u8], ether_type: u16, mut link: Link) -> Result<Stripped, LinkError> {
    /// Lengths of 802.3 frames end and Ethernet types begin here.
    const FIRST_TYPE: u16 = 0x0600;
    let mut ether_type = ether_type;
    loop {
        link.l3 = match ether_type {
            0x0800 => L3::V4,
            0x86dd => L3::V6,
            VLAN | QINQ | 0x9100 | 0x9200 => {
                let [a, b, c, d] = take::<4>(bytes, "VLAN", link.ip_offset)?;
                if !link.vlans.push(u16::from_be_bytes([a, b]) & 0x0fff) {
                    return Ok(Stripped::NotIp(NotIp::EtherType(ether_type)));
                }
                link.ip_offset += 4;
                ether_type = u16::from_be_bytes([c, d]);
                continue;
            }
            length if length < FIRST_TYPE => return Ok(Stripped::NotIp(NotIp::Llc { length })),
            other => return Ok(Stripped::NotIp(NotIp::EtherType(other))),
        };
        return Ok(Stripped::Ip(link));
    }
}

fn raw(bytes: &[u8]) -> Result<Stripped, LinkError> {
    let [first] = take::<1>(bytes, "IP", 0)?;
    Ok(match first >> 4 {
        4 => Stripped::Ip(Link::new(0, L3::V4)),
        6 => Stripped::Ip(Link::new(0, L3::V6)),
        version => Stripped::NotIp(NotIp::Version(version)),
    })
}

fn loopback(family: u32) -> Stripped {
    match family {
        2 => Stripped::Ip(Link::new(4, L3::V4)),
        // AF_INET6 of Linux, of NetBSD and OpenBSD, of FreeBSD, and of macOS.
        10 | 24 | 28 | 30 => Stripped::Ip(Link::new(4, L3::V6)),
        other => Stripped::NotIp(NotIp::Family(other)),
    }
}

fn sll(bytes: &[u8]) -> Result<Stripped, LinkError> {
    let [t0, t1, d0, d1, .., p0, p1] = take::<16>(bytes, "Linux cooked (SLL)", 0)?;
    let mut link = Link::new(16, L3::V4);
    link.packet_type = Some(u16::from_be_bytes([t0, t1]).into());
    cooked(bytes, u16::from_be_bytes([d0, d1]), u16::from_be_bytes([p0, p1]), link)
}

fn sll2(bytes: &[u8]) -> Result<Stripped, LinkError> {
    let [p0, p1, _, _, i0, i1, i2, i3, d0, d1, packet_type, ..] = take::<20>(bytes, "Linux cooked (SLL2)", 0)?;
    let mut link = Link::new(20, L3::V4);
    link.packet_type = Some(u16::from(packet_type).into());
    link.ifindex = Some(u32::from_be_bytes([i0, i1, i2, i3]));
    cooked(bytes, u16::from_be_bytes([d0, d1]), u16::from_be_bytes([p0, p1]), link)
}

fn cooked(bytes: &[u8], device: u16, protocol: u16, link: Link) -> Result<Stripped, LinkError> {
    /// nlmon: the protocol is a netlink family.
    const NETLINK: u16 = 824;
    /// Radiotap: what follows is a wireless header.
    const RADIOTAP: u16 = 803;
    match device {
        NETLINK | RADIOTAP => Ok(Stripped::NotIp(NotIp::Device(device))),
        _ => behind_type(bytes, protocol, link),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(ip_offset: usize, l3: L3) -> Stripped {
        Stripped::Ip(Link::new(ip_offset, l3))
    }

    #[test]
    fn ethernet_with_and_without_tags() {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45]);
        assert_eq!(strip(LinkType::ETHERNET, &frame), Ok(ip(14, L3::V4)));
        frame.splice(12..14, [0x88, 0xa8, 0x20, 0x05, 0x81, 0x00, 0x00, 0x07, 0x86, 0xdd]);
        let Ok(Stripped::Ip(link)) = strip(LinkType::ETHERNET, &frame) else { panic!() };
        assert_eq!((link.ip_offset, link.l3, link.vlans.ids()), (22, L3::V6, &[5, 7][..]));
    }

    #[test]
    fn tags_nested_too_deep_are_not_ip() {
        let mut frame = vec![0; 12];
        for _ in 0..MAX_VLAN_TAGS {
            frame.extend([0x81, 0, 0, 1]);
        }
        let mut deeper = frame.clone();
        frame.extend([0x08, 0]);
        let Ok(Stripped::Ip(link)) = strip(LinkType::ETHERNET, &frame) else { panic!() };
        assert_eq!(link.vlans.ids(), [1; MAX_VLAN_TAGS]);
        deeper.extend([0x81, 0, 0, 1, 0x08, 0]);
        assert_eq!(strip(LinkType::ETHERNET, &deeper), Ok(Stripped::NotIp(NotIp::EtherType(VLAN))));
    }

    #[test]
    fn what_is_not_ip_says_what_it_is() {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x06]);
        assert_eq!(strip(LinkType::ETHERNET, &frame).unwrap(), Stripped::NotIp(NotIp::EtherType(0x0806)));
        assert_eq!(NotIp::EtherType(0x0806).to_string(), "ARP");
        frame[12..].copy_from_slice(&[0x00, 0x26]);
        assert_eq!(strip(LinkType::ETHERNET, &frame).unwrap(), Stripped::NotIp(NotIp::Llc { length: 38 }));
        assert_eq!(strip(LinkType::RAW, &[0x50]), Ok(Stripped::NotIp(NotIp::Version(5))));
        assert_eq!(strip(LinkType::LOOP, &[0, 0, 0, 7]), Ok(Stripped::NotIp(NotIp::Family(7))));
    }

    #[test]
    fn raw_and_loopback() {
        for linktype in [LinkType::RAW, LinkType::DLT_RAW_12, LinkType::DLT_RAW_14] {
            assert_eq!(strip(linktype, &[0x45]), Ok(ip(0, L3::V4)));
            assert_eq!(strip(linktype, &[0x60]), Ok(ip(0, L3::V6)));
        }
        assert_eq!(strip(LinkType::IPV4, &[]), Ok(ip(0, L3::V4)));
        assert_eq!(strip(LinkType::IPV6, &[]), Ok(ip(0, L3::V6)));
        assert_eq!(strip(LinkType::NULL, &[2, 0, 0, 0]), Ok(ip(4, L3::V4)));
        assert_eq!(strip(LinkType::NULL, &[0, 0, 0, 2]), Ok(ip(4, L3::V4)));
        for family in [10, 24, 28, 30] {
            assert_eq!(strip(LinkType::NULL, &[family, 0, 0, 0]), Ok(ip(4, L3::V6)));
            assert_eq!(strip(LinkType::LOOP, &[0, 0, 0, family]), Ok(ip(4, L3::V6)));
        }
        assert_eq!(strip(LinkType::LOOP, &[2, 0, 0, 0]), Ok(Stripped::NotIp(NotIp::Family(0x0200_0000))));
    }

    #[test]
    fn cooked_captures_say_which_way() {
        let mut sll = vec![0, 4, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0x08, 0x00];
        let Ok(Stripped::Ip(link)) = strip(LinkType::LINUX_SLL, &sll) else { panic!() };
        assert_eq!((link.ip_offset, link.packet_type, link.ifindex), (16, Some(PacketType::Outgoing), None));
        sll[2..4].copy_from_slice(&824u16.to_be_bytes());
        assert_eq!(strip(LinkType::LINUX_SLL, &sll), Ok(Stripped::NotIp(NotIp::Device(824))));

        let mut sll2 = vec![0x81, 0x00, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0];
        sll2.extend([0, 9, 0x86, 0xdd]);
        let Ok(Stripped::Ip(link)) = strip(LinkType::LINUX_SLL2, &sll2) else { panic!() };
        assert_eq!((link.ip_offset, link.packet_type, link.ifindex), (24, Some(PacketType::Host), Some(3)));
        assert_eq!(link.vlans.ids(), [9]);
        assert_eq!(PacketType::from(9), PacketType::Other(9));
    }

    #[test]
    fn cut_headers_name_layer_offset_and_length() {
        let frame = [[0; 12].as_slice(), &[0x81, 0, 0, 1, 0x81, 0, 0]].concat();
        for n in 0..14 {
            let error = strip(LinkType::ETHERNET, &frame[..n]).unwrap_err();
            assert_eq!(error, LinkError::Truncated { layer: "Ethernet", offset: 0, need: 14, have: n });
        }
        let error = strip(LinkType::ETHERNET, &frame[..17]).unwrap_err();
        assert_eq!(error, LinkError::Truncated { layer: "VLAN", offset: 14, need: 4, have: 3 });
        assert!(strip(LinkType::ETHERNET, &frame).is_err());
        assert!(strip(LinkType::RAW, &[]).is_err());
        assert!(strip(LinkType::NULL, &[2, 0, 0]).is_err());
        assert_eq!(strip(LinkType(147), &[0; 40]).unwrap_err(), LinkError::UnknownLinkType(LinkType(147)));
    }
}
