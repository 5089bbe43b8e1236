//! Where cases come from: code that composes their packets.
//!
//! Every scenario is a function of the family, so that most cases exist for IPv4 and for IPv6. The network is that of
//! the standard lab, seen from the NAT box: a client behind `lan`, two routers and a server behind `wan`.

mod bugs;
mod choice;
mod clash;
mod errors;
mod events;
mod fragments;
mod generic;
mod gre_udplite;
mod helper;
mod icmp;
mod icmpv6;
mod ip;
mod local;
mod nat;
mod nat_decision;
mod nat_errors;
mod pptp;
mod quotes;
mod rules;
mod sctp;
mod table;
mod tcp;
mod tcp_rules;
mod tcp_window;
mod udp;
mod wild;

use std::net::IpAddr;

use ctwhy_fixture::case::{BoxInterface, Case, CasePacket, DecisionId, Hold, Prefix, Route, Spec};
use ctwhy_fixture::linktype::LinkType;

use crate::compose::{self, Body, Ip};

/// IP families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The name in the name of a case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Family::V4 => "v4",
            Family::V6 => "v6",
        }
    }
}

/// A case to be: its name without family, what it is about, and its packets.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    name: &'static str,
    families: &'static [Family],
    title: &'static str,
    shows: &'static str,
    /// Decisions of the catalogue. Those that only IPv6 knows are left out of a case for IPv4.
    ids: &'static [&'static str],
    compose: fn(&mut Builder),
}

/// The name and content of every case that code composes.
#[must_use]
pub fn all() -> Vec<(String, Case)> {
    let scenarios = [
        ip::SCENARIOS,
        errors::SCENARIOS,
        quotes::SCENARIOS,
        rules::SCENARIOS,
        icmp::SCENARIOS,
        icmpv6::SCENARIOS,
        nat::SCENARIOS,
        nat_decision::SCENARIOS,
        nat_errors::SCENARIOS,
        local::SCENARIOS,
        udp::SCENARIOS,
        tcp::SCENARIOS,
        tcp_rules::SCENARIOS,
        tcp_window::SCENARIOS,
        sctp::SCENARIOS,
        gre_udplite::SCENARIOS,
        helper::SCENARIOS,
        pptp::SCENARIOS,
        generic::SCENARIOS,
        fragments::SCENARIOS,
        clash::SCENARIOS,
        choice::SCENARIOS,
        events::SCENARIOS,
        table::SCENARIOS,
        wild::SCENARIOS,
    ]
    .concat();
    let each = |scenario: Scenario| {
        let Scenario { name, families, title, shows, ids, compose } = scenario;
        families.iter().map(move |&family| {
            let shows = format!("{shows}{}", bugs::about(name));
            let mut builder = Builder::new(family, title, &shows, ids);
            compose(&mut builder);
            let name = if families.len() == 1 { name.to_owned() } else { format!("{name}-{}", family.name()) };
            (name, builder.case)
        })
    };
    scenarios.into_iter().flat_map(each).collect()
}

/// 2026-01-01T00:00:00Z.
const START_NS: u64 = 1_767_225_600_000_000_000;
const MS: u64 = 1_000_000;

/// A case that is being composed, and the addresses in it.
pub(crate) struct Builder {
    case: Case,
    time_ns: u64,
    family: Family,
    masquerades: bool,
    client: IpAddr,
    /// The box's addresses.
    lan: IpAddr,
    wan: IpAddr,
    /// The first router behind the box, and the second.
    r1: IpAddr,
    r2: IpAddr,
    server: IpAddr,
}

impl Builder {
    fn new(family: Family, title: &str, shows: &str, ids: &[&str]) -> Builder {
        let address = |v4: [u8; 4], v6: [u16; 8]| match family {
            Family::V4 => IpAddr::from(v4),
            Family::V6 => IpAddr::from(v6),
        };
        let ids = ids.iter().filter(|id| family == Family::V6 || !id.starts_with("ICMP6-"));
        let ids = ids.filter_map(|id| DecisionId::try_from((*id).to_owned()).ok()).collect();
        let mut builder = Builder {
            case: Case::default(),
            time_ns: START_NS,
            family,
            masquerades: false,
            client: address([192, 168, 1, 2], [0xfd00, 1, 0, 0, 0, 0, 0, 2]),
            lan: address([192, 168, 1, 1], [0xfd00, 1, 0, 0, 0, 0, 0, 1]),
            wan: address([203, 0, 113, 2], [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2]),
            r1: address([203, 0, 113, 1], [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1]),
            r2: address([198, 51, 100, 2], [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 2]),
            server: address([192, 0, 2, 80], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80]),
        };
        let spec = Spec { title: title.to_owned(), shows: shows.to_owned(), ids, ..Spec::default() };
        builder.case.spec = standard_box(spec, &[family]);
        builder
    }

    /// Rules of the nat table, a line each.
    fn nat(&mut self, lines: &[&str]) -> &mut Builder {
        self.rules(&nat_table(lines))
    }

    /// Rules, as `iptables-restore` takes them.
    fn rules(&mut self, text: &str) -> &mut Builder {
        match self.family {
            Family::V4 => self.case.spec.rules = Some(text.to_owned()),
            Family::V6 => self.case.spec.rules6 = Some(text.to_owned()),
        }
        self
    }

    /// Rules of several tables, a line each.
    fn tables(&mut self, tables: &[(&str, &[&str])]) -> &mut Builder {
        let table = |(name, lines): &(&str, &[&str])| format!("*{name}\n{}\nCOMMIT\n", lines.join("\n"));
        let text = tables.iter().map(table).collect();
        match self.family {
            Family::V4 => self.case.spec.rules = Some(text),
            Family::V6 => self.case.spec.rules6 = Some(text),
        }
        self
    }

    /// The box masquerades what leaves by `wan`.
    fn masquerade(&mut self) -> &mut Builder {
        self.masquerades = true;
        self.nat(&[MASQUERADE])
    }

    fn sysctl(&mut self, name: &str, value: &str) -> &mut Builder {
        self.case.spec.sysctls.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The next packet waits in a queue until packet `until` has gone by.
    fn hold(&mut self, until: u64) -> &mut Builder {
        self.case.spec.holds.push(Hold { packet: self.case.packets.len() as u64 + 1, until });
        self
    }

    /// A packet arrives.
    fn on(&mut self, iface: &str, packet: Vec<u8>) -> &mut Builder {
        self.case.packets.push(CasePacket {
            time_ns: self.time_ns,
            iface: iface.to_owned(),
            linktype: LinkType::RAW,
            bytes: packet,
        });
        self.wait_ms(1)
    }

    /// A packet arrives from the client's side.
    fn lan(&mut self, packet: Vec<u8>) -> &mut Builder {
        self.on("lan", packet)
    }

    /// A packet arrives from the server's side.
    fn wan(&mut self, packet: Vec<u8>) -> &mut Builder {
        self.on("wan", packet)
    }

    /// Time passes.
    fn wait_ms(&mut self, ms: u64) -> &mut Builder {
        self.time_ns += ms * MS;
        self
    }

    /// Headers from the client to the server, as the client sends them.
    fn inside(&self) -> Ip {
        Ip::between(self.client, self.server)
    }

    /// The same as they leave the box by `wan`.
    fn outside(&self) -> Ip {
        Ip::between(self.seen_as(), self.server).ttl(63)
    }

    /// The address that the client has for the outside, where errors about its packets go.
    fn seen_as(&self) -> IpAddr {
        if self.masquerades { self.wan } else { self.client }
    }

    /// The client sends something to the server. The result is the packet as it left the box.
    fn sends(&mut self, body: impl Fn(&Ip) -> Body) -> Vec<u8> {
        let (inside, outside) = (self.inside(), self.outside());
        self.lan(inside.packet(body(&inside)));
        outside.packet(body(&outside))
    }

    /// The server sends something to the client. The result is the packet as the client got it.
    fn answers(&mut self, body: impl Fn(&Ip) -> Body) -> Vec<u8> {
        let (outside, inside) = (Ip::between(self.server, self.seen_as()), self.inside().back().ttl(63));
        self.wan(outside.packet(body(&outside)));
        inside.packet(body(&inside))
    }

    /// The client sends the datagram that errors are about. The result is the packet as it left the box.
    fn probe(&mut self) -> Vec<u8> {
        self.sends(probe)
    }

    /// The first router behind the box complains about what left it, of which it quotes `quote`.
    fn complain(&mut self, kind: Kind, quote: &[u8]) -> &mut Builder {
        let error = self.error(self.r1, self.seen_as(), kind, quote);
        self.wan(error)
    }

    /// A time exceeded of the first router with this quote.
    fn exceed(&mut self, quote: &[u8]) -> &mut Builder {
        self.complain(Kind::TimeExceeded, quote)
    }

    /// An ICMP error of the family.
    fn error(&self, from: IpAddr, to: IpAddr, kind: Kind, quote: &[u8]) -> Vec<u8> {
        let ip = Ip::between(from, to);
        ip.packet(self.error_body(&ip, kind, quote))
    }

    fn error_body(&self, ip: &Ip, kind: Kind, quote: &[u8]) -> Body {
        let (icmp_type, code) = kind.type_and_code(self.family);
        compose::icmp(ip, icmp_type, code, kind.word(self.family), quote)
    }

    /// An address as rules have it in front of a port.
    fn bracketed(address: IpAddr) -> String {
        match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }

    /// Length of the IP header without options.
    fn header(&self) -> usize {
        match self.family {
            Family::V4 => 20,
            Family::V6 => 40,
        }
    }
}

/// Kinds of ICMP errors that both families have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    TimeExceeded,
    PortUnreachable,
    HostUnreachable,
    /// Fragmentation needed, packet too big; with the next MTU.
    TooBig(u16),
}

impl Kind {
    fn type_and_code(self, family: Family) -> (u8, u8) {
        match (family, self) {
            (Family::V4, Kind::TimeExceeded) => (11, 0),
            (Family::V4, Kind::PortUnreachable) => (3, 3),
            (Family::V4, Kind::HostUnreachable) => (3, 1),
            (Family::V4, Kind::TooBig(_)) => (3, 4),
            (Family::V6, Kind::TimeExceeded) => (3, 0),
            (Family::V6, Kind::PortUnreachable) => (1, 4),
            (Family::V6, Kind::HostUnreachable) => (1, 3),
            (Family::V6, Kind::TooBig(_)) => (2, 0),
        }
    }

    /// The four bytes behind the checksum; both families have the MTU in the last two.
    fn word(self, family: Family) -> [u8; 4] {
        match (family, self) {
            (_, Kind::TooBig(mtu)) => u32::from(mtu).to_be_bytes(),
            _ => [0; 4],
        }
    }
}

/// Another client beside the first.
fn second_client(family: Family) -> IpAddr {
    match family {
        Family::V4 => [192, 168, 1, 3].into(),
        Family::V6 => [0xfd00, 1, 0, 0, 0, 0, 0, 3].into(),
    }
}

/// The datagram that errors are about: from port 40000 to 33434.
fn probe(ip: &Ip) -> Body {
    compose::udp(ip, 40_000, 33_434, b"who answers?")
}

const MASQUERADE: &str = "-A POSTROUTING -o wan -j MASQUERADE";

/// Text of a nat table for `iptables-restore`.
fn nat_table(lines: &[&str]) -> String {
    format!("*nat\n{}\nCOMMIT\n", lines.join("\n"))
}

/// The NAT box of the standard lab.
pub(crate) fn standard_box(mut spec: Spec, families: &[Family]) -> Spec {
    let prefix = |text: &str| text.parse::<Prefix>().ok();
    let addresses = |v4: &str, v6: &str| {
        let of = families.iter().filter_map(|family| match family {
            Family::V4 => prefix(v4),
            Family::V6 => prefix(v6),
        });
        of.collect()
    };
    spec.interfaces = vec![
        BoxInterface { name: "lan".to_owned(), addresses: addresses("192.168.1.1/24", "fd00:1::1/64"), mtu: None },
        BoxInterface {
            name: "wan".to_owned(),
            addresses: addresses("203.0.113.2/24", "2001:db8:113::2/64"),
            mtu: None,
        },
    ];
    let default = |family: &Family| {
        let (to, via) = match family {
            Family::V4 => ("0.0.0.0/0", "203.0.113.1"),
            Family::V6 => ("::/0", "2001:db8:113::1"),
        };
        Some(Route { to: prefix(to)?, dev: "wan".to_owned(), via: via.parse().ok() })
    };
    spec.routes = families.iter().filter_map(default).collect();
    spec
}

/// The case of a real traceroute through the masquerading box: `packets` arrived there.
#[must_use]
pub fn of_traceroute(probe: crate::traceroute::Probe, family: Family, packets: Vec<CasePacket>) -> Case {
    let (what, ids): (_, &[&str]) = match probe {
        crate::traceroute::Probe::Udp => ("UDP", &["ICMP-REL-01", "NAT-ICMP-01", "ICMP-LOC-01"]),
        crate::traceroute::Probe::Icmp => ("ICMP echo", &["ICMP-REL-06", "NAT-ICMP-07", "ICMP-LOC-01"]),
        crate::traceroute::Probe::Tcp => ("TCP SYN", &["ICMP-REL-01", "NAT-ICMP-01", "TCP-RST-05"]),
    };
    let spec = Spec {
        title: format!("traceroute with {what} probes through masquerade"),
        shows: format!(
            "A real traceroute with {what} probes from a client behind a masquerading box: the box itself answers the \
             probe with a TTL of 1, two routers behind it the next ones, and the server the last. Each time-exceeded \
             error quotes a probe as it left the box; the box finds the flow by the quote and translates the error, the \
             outer header and the quoted one, back to the client."
        ),
        ids: ids.iter().filter_map(|id| DecisionId::try_from((*id).to_owned()).ok()).collect(),
        ..Spec::default()
    };
    let mut spec = standard_box(spec, &[family]);
    let rules = Some(nat_table(&[MASQUERADE]));
    match family {
        Family::V4 => spec.rules = rules,
        Family::V6 => spec.rules6 = rules,
    }
    Case { spec, packets, ..Case::default() }
}

/// Where the traceroute of a family goes.
#[must_use]
pub fn traceroute_server(family: Family) -> IpAddr {
    Builder::new(family, "", "", &[]).server
}
