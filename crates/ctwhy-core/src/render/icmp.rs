//! Names of ICMP and ICMPv6 messages.

use core::fmt::{self, Display, Formatter};

use crate::tuple::L3;

/// Type and code of a message, to be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// ICMP for V4, ICMPv6 for V6.
    pub l3num: L3,
    /// Type.
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
}

impl Named {
    /// The name of the type and code in RFC 792, RFC 1122, RFC 1812, RFC 4443 or RFC 4861.
    #[must_use]
    pub const fn name(&self) -> Option<&'static str> {
        match self.l3num {
            L3::V4 => icmpv4(self.icmp_type, self.code),
            L3::V6 => icmpv6(self.icmp_type, self.code),
        }
    }
}

const fn icmpv4(icmp_type: u8, code: u8) -> Option<&'static str> {
    Some(match (icmp_type, code) {
        (0, _) => "echo reply",
        (3, 0) => "network unreachable",
        (3, 1) => "host unreachable",
        (3, 2) => "protocol unreachable",
        (3, 3) => "port unreachable",
        (3, 4) => "fragmentation needed",
        (3, 5) => "source route failed",
        (3, 9) => "network administratively prohibited",
        (3, 10) => "host administratively prohibited",
        (3, 13) => "communication administratively prohibited",
        (3, _) => "destination unreachable",
        (4, _) => "source quench",
        (5, _) => "redirect",
        (8, _) => "echo request",
        (9, _) => "router advertisement",
        (10, _) => "router solicitation",
        (11, 1) => "fragment reassembly time exceeded",
        (11, _) => "time exceeded",
        (12, _) => "parameter problem",
        (13, _) => "timestamp request",
        (14, _) => "timestamp reply",
        (15, _) => "information request",
        (16, _) => "information reply",
        (17, _) => "address mask request",
        (18, _) => "address mask reply",
        _ => return None,
    })
}

const fn icmpv6(icmp_type: u8, code: u8) -> Option<&'static str> {
    Some(match (icmp_type, code) {
        (1, 0) => "no route to destination",
        (1, 1) => "administratively prohibited",
        (1, 3) => "address unreachable",
        (1, 4) => "port unreachable",
        (1, _) => "destination unreachable",
        (2, _) => "packet too big",
        (3, 1) => "fragment reassembly time exceeded",
        (3, _) => "time exceeded",
        (4, _) => "parameter problem",
        (128, _) => "echo request",
        (129, _) => "echo reply",
        (130, _) => "multicast listener query",
        (131, _) => "multicast listener report",
        (132, _) => "multicast listener done",
        (133, _) => "router solicitation",
        (134, _) => "router advertisement",
        (135, _) => "neighbour solicitation",
        (136, _) => "neighbour advertisement",
        (137, _) => "redirect",
        (139, _) => "node information query",
        (140, _) => "node information reply",
        (143, _) => "multicast listener report",
        (151, _) => "multicast router advertisement",
        (152, _) => "multicast router solicitation",
        _ => return None,
    })
}

impl Display for Named {
    /// `time exceeded (type 11 code 0)`, `type 42 code 0`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (icmp_type, code) = (self.icmp_type, self.code);
        match self.name() {
            Some(name) => write!(f, "{name} (type {icmp_type} code {code})"),
            None => write!(f, "type {icmp_type} code {code}"),
        }
    }
}
