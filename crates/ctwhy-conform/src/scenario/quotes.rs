//! What an ICMP error quotes: whole, cut off, and strange (catalogue B.3).

use super::{Builder, Family, Kind, Scenario, probe};
use crate::compose::{Body, Echo, Ip, Tcp, echo, proto, udp};

const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "quote-cut-udp",
        families: &Family::BOTH,
        title: "How much of a UDP datagram must be quoted",
        shows: "Three bytes behind the IP header are one too few for the ports: INVALID. With four the flow is found.",
        ids: &["ICMP-IN-04", "ICMP6-E-05"],
        compose: |b| {
            cut(b, probe, &[0, 3, 4, 7, 8]);
            // The missing byte of this destination port is a zero.
            cut(b, |ip| udp(ip, 40_000, 0x8200, b"round"), &[3, 4]);
        },
    },
    Scenario {
        name: "quote-cut-udp-masquerade",
        families: &Family::BOTH,
        title: "How much of a UDP datagram must be quoted for its translation",
        shows: "With four bytes behind the IP header the flow is found and the error is RELATED, but translating the quote \
                takes a whole UDP header: with seven bytes NAT drops the error, with eight it goes on.",
        ids: &["ICMP-IN-04", "NAT-MAN-03", "NAT-MAN-10"],
        compose: |b| cut(b.masquerade(), probe, &[3, 4, 7, 8]),
    },
    Scenario {
        name: "quote-cut-tcp",
        families: &Family::BOTH,
        title: "How much of a TCP segment must be quoted",
        shows: "Three bytes behind the IP header are one too few for the ports: INVALID. With four the flow is found.",
        ids: &["ICMP-IN-04"],
        compose: |b| {
            cut(b, syn, &[3, 4, 8]);
            cut(b, |ip| Tcp { dport: 0x8200, ..Tcp::syn() }.body(ip), &[3, 4]);
        },
    },
    Scenario {
        name: "quote-cut-tcp-masquerade",
        families: &Family::BOTH,
        title: "How much of a TCP segment must be quoted for its translation",
        shows: "Below eight bytes of TCP NAT drops the error. From eight on the ports are translated; the checksum follows \
                only where the whole header of 20 bytes is there.",
        ids: &["ICMP-IN-04", "NAT-MAN-02", "NAT-MAN-10"],
        compose: |b| cut(b.masquerade(), syn, &[3, 7, 8, 19, 20]),
    },
    Scenario {
        name: "quote-padded-tcp-masquerade",
        families: &Family::BOTH,
        title: "A short quote of a TCP segment, filled up with zeros",
        shows: "Eight bytes of TCP and zeros behind them (RFC 4884): where the checksum would be, two bytes of the filling \
                are changed.",
        ids: &["NAT-ICMP-08"],
        compose: padded,
    },
    Scenario {
        name: "quote-cut-echo",
        families: &Family::BOTH,
        title: "How much of an echo request must be quoted",
        shows: "All eight bytes of the ICMP header, although the id ends at the sixth.",
        ids: &["ICMP-IN-04", "ICMP6-E-05"],
        compose: |b| cut(b, |ip| echo(ip, Echo::Request, 7, 1), &[6, 7, 8]),
    },
    Scenario {
        name: "quote-cut-echo-masquerade",
        families: &Family::BOTH,
        title: "How much of an echo request must be quoted for its translation",
        shows: "All eight bytes of the ICMP header.",
        ids: &["ICMP-IN-04", "NAT-ICMP-07"],
        compose: |b| cut(b.masquerade(), |ip| echo(ip, Echo::Request, 7, 1), &[7, 8]),
    },
    Scenario {
        name: "quote-cut-ip",
        families: &Family::BOTH,
        title: "How much of the IP header must be quoted",
        shows: "All of it, 20 bytes or 40, also where what is missing of the destination address is zeros. A protocol \
                without ports needs nothing more: its bare IP header is RELATED.",
        ids: &["ICMP-IN-01", "ICMP-IN-04"],
        compose: |b| {
            bare_header(b);
            let round: std::net::IpAddr = match b.family {
                Family::V4 => [192, 0, 2, 0].into(),
                Family::V6 => [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0].into(),
            };
            let ip = Ip::between(b.client, round);
            let packet = ip.packet(Body::new(99, *b"no ports"));
            let header = b.header();
            b.lan(packet.clone()).exceed(&packet[..header - 1]).exceed(&packet[..header - 4]).exceed(&packet[..header]);
        },
    },
    Scenario {
        name: "quote-cut-ip-masquerade",
        families: &Family::BOTH,
        title: "A bare IP header is quoted and translated",
        shows: "A protocol without ports: the error is RELATED with the bare IP header, and the address in it is translated.",
        ids: &["ICMP-IN-04", "NAT-ICMP-01"],
        compose: |b| bare_header(b.masquerade()),
    },
    Scenario {
        name: "quote-nothing-masquerade",
        families: &Family::BOTH,
        title: "An error quotes nothing",
        shows: "Eight bytes of ICMP and no quote: INVALID, and forwarded to the box untouched.",
        ids: &["ICMP-IN-01", "NAT-ICMP-09"],
        compose: |b| cut_at(b.masquerade(), &[0, 1]),
    },
    Scenario {
        name: "quote-fragment",
        families: V4,
        title: "Fragments are quoted",
        shows: "The first fragment has the ports and is found. A later one has none: INVALID, also where its payload looks \
                like the ports.",
        ids: &["ICMP-IN-02", "FRAG-08"],
        compose: fragments,
    },
    Scenario {
        name: "quote-with-options",
        families: V4,
        title: "The quoted header has options, or says so",
        shows: "Options are skipped. A header that claims options it has not moves the ports elsewhere; one that ends behind \
                the error is INVALID, and one that ends with it has no ports.",
        ids: &["ICMP-IN-05", "ICMP-IN-03"],
        compose: |b| options(b),
    },
    Scenario {
        name: "quote-with-options-masquerade",
        families: V4,
        title: "The quoted header has options and is translated",
        shows: "Options are skipped when the quote is translated, too.",
        ids: &["ICMP-IN-05", "NAT-ICMP-01"],
        compose: |b| options(b.masquerade()),
    },
    Scenario {
        name: "quote-ihl-4-miss",
        families: V4,
        title: "The quoted header claims to be four words long",
        shows: "Nobody checks that a header has five words. The ports are read one word early, from the destination \
                address: no flow has them, so the error is INVALID.",
        ids: &["ICMP-IN-03"],
        compose: |b| {
            let left = b.probe();
            b.exceed(&with_ihl(&left, 4)).exceed(&with_ihl(&left, 3)).exceed(&with_ihl(&left, 0));
        },
    },
    Scenario {
        name: "quote-ihl-4-hit",
        families: V4,
        title: "A quoted header of four words finds a flow",
        shows: "The ports are read from the destination address, 192.0.2.80: 49152 and 592. A flow that happens to have \
                those ports is found, and the error is RELATED, even with 20 quoted bytes.",
        ids: &["ICMP-IN-03"],
        compose: |b| {
            let left = b.sends(|ip| udp(ip, 49_152, 592, b"strange"));
            b.exceed(&with_ihl(&left, 4)).exceed(&with_ihl(&left, 4)[..20]);
        },
    },
    Scenario {
        name: "quote-ihl-3-hit",
        families: V4,
        title: "A quoted header of three words finds a flow",
        shows: "The ports are read from the source address, 192.168.1.2: 49320 and 258.",
        ids: &["ICMP-IN-03"],
        compose: |b| {
            let left = b.sends(|ip| udp(ip, 49_320, 258, b"stranger"));
            b.exceed(&with_ihl(&left, 3));
        },
    },
    Scenario {
        name: "quote-ihl-0-hit",
        families: V4,
        title: "A quoted header of no words finds a flow",
        shows: "The ports are read from the first word of the header: version, IHL and TOS make the source port 16384, the \
                total length the destination port 29.",
        ids: &["ICMP-IN-03"],
        compose: |b| {
            let left = b.sends(|ip| udp(ip, 16_384, 29, b"x"));
            b.exceed(&with_ihl(&left, 0));
        },
    },
    Scenario {
        name: "quote-ihl-4-masquerade",
        families: V4,
        title: "A quoted header of four words is translated",
        shows: "As without NAT the ports are read from the destination address. When the quote is translated, what lies \
                where the checksum would be is adjusted: the real destination port. With 20 quoted bytes there is no whole \
                UDP header, and NAT drops the error.",
        ids: &["ICMP-IN-03", "NAT-MAN-01"],
        compose: |b| {
            let left = b.masquerade().sends(|ip| udp(ip, 49_152, 592, b"strange"));
            b.exceed(&with_ihl(&left, 4)).exceed(&with_ihl(&left, 4)[..20]);
        },
    },
    Scenario {
        name: "quote-ihl-0-masquerade",
        families: V4,
        title: "A quoted header of no words is translated",
        shows: "As without NAT the ports are read from the first word of the header. Where the UDP checksum would be are \
                the fragment flags; they are 0, which means that there is no checksum.",
        ids: &["ICMP-IN-03", "NAT-MAN-01"],
        compose: |b| {
            let left = b.masquerade().sends(|ip| udp(ip, 16_384, 29, b"x"));
            b.exceed(&with_ihl(&left, 0));
        },
    },
    Scenario {
        name: "quote-nonsense-header",
        families: &Family::BOTH,
        title: "Nothing else in the quoted header is checked",
        shows: "Another version, a wrong header checksum, a TTL of 0 and an absurd length: the flow is found all the same. \
                A wrong header checksum stays wrong by the same amount when the quote is translated.",
        ids: &["ICMP-IN-01", "NAT-MAN-01"],
        compose: nonsense,
    },
    Scenario {
        name: "quote-other-icmp",
        families: &Family::BOTH,
        title: "ICMPv6 quoted in IPv4, ICMP quoted in IPv6",
        shows: "There is no flow of the other family's ICMP, so there is nothing to find.",
        ids: &["ICMP-IN-07", "ICMP6-X-01"],
        compose: other_icmp,
    },
    Scenario {
        name: "quote-other-protocol",
        families: &Family::BOTH,
        title: "The quoted protocol decides how it is read",
        shows: "The same ports in TCP are another flow than in UDP; a protocol without ports is found by its addresses.",
        ids: &["TUPLE-01", "TUPLE-05"],
        compose: other_protocol,
    },
    Scenario {
        name: "quote-udp-checksum-masquerade",
        families: &Family::BOTH,
        title: "The quoted UDP checksum",
        shows: "It is adjusted although the payload is cut off; none stays none.",
        ids: &["NAT-MAN-03", "NAT-ICMP-01"],
        compose: udp_checksum,
    },
    Scenario {
        name: "quote-extension-headers",
        families: V6,
        title: "Extension headers in the quote",
        shows: "Hop-by-hop, routing, destination options, authentication and fragment headers are skipped, as long as the \
                fragment is the first or the only one. A later fragment, no next header, and a header that is cut off \
                are INVALID.",
        ids: &["ICMP6-E-05"],
        compose: extensions,
    },
    Scenario {
        name: "quote-extension-headers-masquerade",
        families: V6,
        title: "Extension headers in a quote that is translated",
        shows: "The ports behind skipped headers are translated.",
        ids: &["ICMP6-E-05", "NAT-ICMP-10"],
        compose: |b| extensions(b.masquerade()),
    },
];

fn syn(ip: &Ip) -> Body {
    Tcp::syn().body(ip)
}

/// Errors about one packet, each with another number of bytes behind the quoted IP header.
fn cut(b: &mut Builder, body: fn(&Ip) -> Body, lengths: &[usize]) {
    let left = b.sends(body);
    for length in lengths {
        b.exceed(&left[..b.header() + length]);
    }
}

/// Errors about the probe, each with another number of quoted bytes.
fn cut_at(b: &mut Builder, lengths: &[usize]) {
    let left = b.probe();
    for length in lengths {
        b.exceed(&left[..*length]);
    }
}

fn padded(b: &mut Builder) {
    let left = b.masquerade().sends(syn);
    let mut quote = left[..b.header() + 8].to_vec();
    quote.resize(128, 0);
    b.exceed(&quote);
}

fn bare_header(b: &mut Builder) {
    let left = b.sends(|ip| {
        let _ = ip;
        Body::new(99, *b"no ports")
    });
    let header = b.header();
    b.exceed(&left[..header - 1]).exceed(&left[..header]).exceed(&left);
}

fn fragments(b: &mut Builder) {
    let left = b.probe();
    let outside = b.outside();
    for fragment in [0x2000, 0x2001, 0x0001, 0x1fff, 0x4000, 0x8000] {
        let fragment = Ip { fragment, ..outside.clone() };
        b.exceed(&fragment.packet(probe(&outside)));
    }
    // The payload of a later fragment may look like anything.
    let later = Ip { fragment: 0x0010, ..outside.clone() };
    b.exceed(&later.packet(probe(&outside))).exceed(&left);
}

fn options(b: &mut Builder) {
    let left = b.probe();
    let outside = b.outside();
    let with = |options: &[u8]| Ip { options: options.to_vec(), ..outside.clone() };
    b.exceed(&with(&[1, 1, 1, 0]).packet(probe(&outside)));
    b.exceed(&with(&[1; 40]).packet(probe(&outside)));
    // Six words that are five, fifteen that are not there, and a header that ends where the error ends.
    b.exceed(&with_ihl(&left, 6)).exceed(&with_ihl(&left, 15)).exceed(&with_ihl(&left[..24], 6));
    // Without ports nothing is read behind the header; it must end before the error does all the same.
    let bare = b.sends(|_| Body::new(99, *b"no ports"));
    b.exceed(&with_ihl(&bare, 8)).exceed(&with_ihl(&bare, 7)).exceed(&with_ihl(&bare[..20], 6));
}

/// The packet with another IHL; nothing else changes, the header checksum neither.
fn with_ihl(packet: &[u8], ihl: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[0] = 0x40 | ihl;
    packet
}

fn nonsense(b: &mut Builder) {
    let left = b.masquerade().probe();
    let changes: &[(usize, u8)] = match b.family {
        // Version, TOS, total length, TTL, header checksum.
        Family::V4 => &[(0, 0x65), (1, 0xff), (2, 0xff), (8, 0), (10, 0xaa)],
        // Version, flow label, length, hop limit.
        Family::V6 => &[(0, 0x40), (2, 0xff), (4, 0xff), (7, 0)],
    };
    for &(offset, byte) in changes {
        let mut quote = left.clone();
        quote[offset] = byte;
        b.exceed(&quote);
    }
}

fn other_icmp(b: &mut Builder) {
    let (other, [request, reply]) = match b.family {
        Family::V4 => (proto::ICMPV6, [128, 129]),
        Family::V6 => (proto::ICMP, [8, 0]),
    };
    b.probe();
    for icmp_type in [request, reply] {
        let left = b.sends(|_| Body::new(other, [icmp_type, 0, 0, 0, 0, 7, 0, 1]));
        b.exceed(&left);
    }
    // The family's own request in the other's number, and the other way round.
    let own = b.sends(|ip| echo(ip, Echo::Request, 7, 1));
    let at = if b.family == Family::V4 { 9 } else { 6 };
    let mut quote = own.clone();
    quote[at] = other;
    b.exceed(&quote).exceed(&own);
}

fn other_protocol(b: &mut Builder) {
    let left = b.probe();
    let at = if b.family == Family::V4 { 9 } else { 6 };
    for protocol in [proto::TCP, 33, 99] {
        let mut quote = left.clone();
        quote[at] = protocol;
        b.exceed(&quote);
    }
    b.sends(|_| Body::new(99, *b"no ports"));
    let mut quote = left.clone();
    quote[at] = 99;
    b.exceed(&quote).exceed(&left);
}

fn udp_checksum(b: &mut Builder) {
    let left = b.masquerade().sends(|ip| udp(ip, 40_000, 33_434, &[7; 64]));
    let header = b.header();
    b.exceed(&left[..header + 8]).exceed(&left);
    let mut without = left.clone();
    without[header + 6..header + 8].fill(0);
    b.exceed(&without);
}

fn extensions(b: &mut Builder) {
    b.probe();
    let ip = b.outside();
    let options: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let quotes = [
        probe(&ip).behind(proto::HOP_BY_HOP, options),
        probe(&ip).behind(proto::DESTINATION, options),
        probe(&ip).behind(proto::DESTINATION, &[0, 1, 1, 4, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0]),
        probe(&ip).behind(proto::ROUTING, &[0, 0, 253, 0, 0, 0, 0, 0]),
        // The length of an authentication header counts words, less two.
        probe(&ip).behind(proto::AUTH, &[0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]),
        probe(&ip).behind(proto::AUTH, &[0, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        // Atomic, first, later.
        probe(&ip).behind(proto::FRAGMENT, &[0, 0, 0, 0, 0, 0, 0, 7]),
        probe(&ip).behind(proto::FRAGMENT, &[0, 0, 0, 1, 0, 0, 0, 7]),
        probe(&ip).behind(proto::FRAGMENT, &[0, 0, 0, 9, 0, 0, 0, 7]),
        probe(&ip).behind(proto::FRAGMENT, &[0, 0, 0x10, 0, 0, 0, 0, 7]),
        // Bits of the fragment field that are reserved.
        probe(&ip).behind(proto::FRAGMENT, &[0, 0, 0, 6, 0, 0, 0, 7]),
        Body::new(proto::NONE, probe(&ip).bytes),
        probe(&ip).behind(proto::HOP_BY_HOP, options).behind(proto::DESTINATION, options),
        Body::new(proto::NONE, probe(&ip).bytes).behind(proto::DESTINATION, options),
        // Cut off: inside the first two bytes, before the end, and at the end.
        probe(&ip).behind(proto::HOP_BY_HOP, options).cut(1),
        probe(&ip).behind(proto::HOP_BY_HOP, options).cut(7),
        probe(&ip).behind(proto::HOP_BY_HOP, options).cut(8),
        probe(&ip).behind(proto::HOP_BY_HOP, options).cut(11),
        probe(&ip).behind(proto::HOP_BY_HOP, options).cut(12),
        probe(&ip).behind(proto::FRAGMENT, &[0; 8]).cut(3),
        probe(&ip).behind(proto::FRAGMENT, &[0; 8]).cut(7),
        // A header that claims to be longer than the error.
        probe(&ip).behind(proto::DESTINATION, &[0, 255, 1, 4, 0, 0, 0, 0]),
        // ESP hides what is behind it.
        probe(&ip).behind(50, options),
    ];
    for quote in quotes {
        b.exceed(&ip.packet(quote));
    }
    // Without ports nothing is read behind the headers, not even whether they are all there.
    let bare = b.sends(|_| Body::new(99, *b"no ports"));
    b.exceed(&bare);
    let long = Body::new(99, []).behind(proto::DESTINATION, &[0, 255, 1, 4, 0, 0, 0, 0]);
    b.exceed(&ip.packet(long.clone())).exceed(&ip.packet(long.clone().cut(2))).exceed(&ip.packet(long.cut(1)));
    let ping = b.sends(|ip| echo(ip, Echo::Request, 7, 1));
    b.complain(Kind::HostUnreachable, &ping);
    let behind = echo(&ip, Echo::Request, 7, 1).behind(proto::DESTINATION, options);
    b.complain(Kind::HostUnreachable, &ip.packet(behind.clone().cut(15)))
        .complain(Kind::HostUnreachable, &ip.packet(behind));
}
