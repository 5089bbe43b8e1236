//! The suites: what they are made of, which rules and settings the box has in each.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ctwhy_core::tuple::L3;
use ctwhy_fixture::case::{BoxInterface, Prefix, Route, Spec};

use super::chance::Chance;
use super::episode::Generator;
use super::generate::fragments::Fragments;
use super::generate::nat::Translated;
use super::generate::rest::Rest;
use super::generate::sctp::Associations;
use super::generate::tcp::Connections;
use super::generate::zoo::Zoo;
use super::generate::{Hosts, Mood};
use super::translations;
use super::window::Port;

/// The longest packet of the interface that does not take every packet of the other one.
const SHORT: u32 = 1400;

/// A kind of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// UDP, ICMP queries and errors over IPv4.
    UdpIcmp,
    /// The same over IPv6.
    Icmpv6,
    /// TCP that mostly follows the rules, over both families.
    TcpTame,
    /// TCP that does not.
    TcpWild,
    /// SCTP.
    Sctp,
    /// GRE, UDP-Lite, protocols without a tracker, odd IP headers.
    GreRest,
    /// Everything over IPv4, translated.
    NatV4,
    /// Everything over IPv6, translated.
    NatV6,
    /// Everything in fragments.
    Fragments,
    /// MASQUERADE.
    Masquerade,
    /// SNAT to ranges of addresses and ports.
    SnatRange,
    /// DNAT.
    Dnat,
    /// Both in one flow.
    DnatSnat,
    /// Between hosts of one side, by addresses of the other.
    Hairpin,
    /// NETMAP.
    Netmap,
    /// REDIRECT, so that the box itself answers.
    Redirect,
    /// All of it over IPv6.
    TranslatedV6,
    /// Errors above all, of every type, in every direction, over both families.
    Errors,
}

impl Suite {
    /// Those in which nothing but decisions of the engine is compared: the box itself says nothing.
    pub const ALL: [Suite; 9] = [
        Suite::UdpIcmp,
        Suite::Icmpv6,
        Suite::TcpTame,
        Suite::TcpWild,
        Suite::Sctp,
        Suite::GreRest,
        Suite::NatV4,
        Suite::NatV6,
        Suite::Fragments,
    ];

    /// Those in which the kernel's NAT is compared with the reference NAT as a whole, what it says itself included.
    pub const TRANSLATIONS: [Suite; 9] = [
        Suite::Masquerade,
        Suite::SnatRange,
        Suite::Dnat,
        Suite::DnatSnat,
        Suite::Hairpin,
        Suite::Netmap,
        Suite::Redirect,
        Suite::TranslatedV6,
        Suite::Errors,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Suite::UdpIcmp => "udp-icmp",
            Suite::Icmpv6 => "icmpv6",
            Suite::TcpTame => "tcp-tame",
            Suite::TcpWild => "tcp-wild",
            Suite::Sctp => "sctp",
            Suite::GreRest => "gre-rest",
            Suite::NatV4 => "nat-v4",
            Suite::NatV6 => "nat-v6",
            Suite::Fragments => "fragments",
            Suite::Masquerade => "masquerade",
            Suite::SnatRange => "snat-range",
            Suite::Dnat => "dnat",
            Suite::DnatSnat => "dnat-snat",
            Suite::Hairpin => "hairpin",
            Suite::Netmap => "netmap",
            Suite::Redirect => "redirect",
            Suite::TranslatedV6 => "ipv6",
            Suite::Errors => "errors",
        }
    }

    /// Is everything that leaves compared, or only what conntrack says?
    pub(crate) fn bytes_count(self) -> bool {
        matches!(self, Suite::NatV4 | Suite::NatV6 | Suite::Fragments) || self.speaks()
    }

    /// Is what the box says itself compared, too?
    pub(crate) fn speaks(self) -> bool {
        Suite::TRANSLATIONS.contains(&self)
    }

    /// A seed of its own for each suite.
    pub(crate) fn salt(self) -> u64 {
        self.name().bytes().fold(0, |salt, byte| salt.wrapping_mul(257).wrapping_add(u64::from(byte)))
    }

    /// The box.
    pub(crate) fn spec(self) -> Spec {
        let prefix = |text: &str| text.parse::<Prefix>().ok();
        let interface = |port: Port, addresses: [&str; 2]| BoxInterface {
            name: port.name().to_owned(),
            addresses: addresses.iter().filter_map(|text| prefix(text)).collect(),
            // What fits in by one interface is too long for the other.
            mtu: (self == Suite::Fragments && port == Port::Wan).then_some(SHORT),
        };
        let route = |(to, port, via): (&str, Port, &str)| {
            Some(Route { to: prefix(to)?, dev: port.name().to_owned(), via: via.parse().ok() })
        };
        let routes = [
            ("10.16.0.0/16", Port::Lan, "192.168.1.2"),
            ("0.0.0.0/0", Port::Wan, "203.0.113.1"),
            ("2001:db8:16::/64", Port::Lan, "fd00:1::2"),
            ("::/0", Port::Wan, "2001:db8:113::1"),
        ];
        let [rules, rules6] = translations::rules(self).map(|rules| rules.map(str::to_owned));
        Spec {
            interfaces: vec![
                interface(Port::Lan, ["192.168.1.1/24", "fd00:1::1/64"]),
                interface(Port::Wan, ["203.0.113.2/24", "2001:db8:113::2/64"]),
            ],
            routes: routes.into_iter().filter_map(route).collect(),
            rules,
            rules6,
            ..Spec::default()
        }
    }

    /// Where the packets of an episode come from.
    pub(crate) fn generator(self, chance: &mut Chance) -> Box<dyn Generator> {
        let mood = if chance.percent(40) { Mood::Tame } else { Mood::Wild };
        let family = if chance.percent(60) { L3::V4 } else { L3::V6 };
        match self {
            Suite::UdpIcmp => Box::new(Zoo { hosts: Hosts { family: L3::V4 }, mood }),
            Suite::Icmpv6 => Box::new(Zoo { hosts: Hosts { family: L3::V6 }, mood }),
            Suite::TcpTame => Box::new(Connections::new(Hosts { family }, Mood::Tame)),
            Suite::TcpWild => Box::new(Connections::new(Hosts { family }, Mood::Wild)),
            Suite::Sctp => Box::new(Associations::new(Hosts { family }, mood)),
            Suite::GreRest => Box::new(Rest { hosts: Hosts { family }, mood }),
            Suite::NatV4 => Box::new(Translated::new(L3::V4, mood)),
            Suite::NatV6 | Suite::TranslatedV6 => Box::new(Translated::new(L3::V6, mood)),
            Suite::Errors => Box::new(Translated { errors: 60, ..Translated::new(family, mood) }),
            Suite::Hairpin => Box::new(Translated { inward: 60, ..Translated::new(L3::V4, mood) }),
            Suite::Redirect => Box::new(Translated { inward: 20, ..Translated::new(L3::V4, mood) }),
            Suite::Masquerade | Suite::SnatRange | Suite::Dnat | Suite::DnatSnat | Suite::Netmap => {
                Box::new(Translated::new(L3::V4, mood))
            }
            Suite::Fragments => Box::new(Fragments::new(Hosts { family }, mood)),
        }
    }

    /// Does an episode wait once, so that flows become old enough to be streams?
    pub(crate) fn pauses(self, chance: &mut Chance) -> bool {
        matches!(self, Suite::UdpIcmp | Suite::Icmpv6) && chance.one_in(24)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Suite, String> {
        let mut all = Suite::ALL.into_iter().chain(Suite::TRANSLATIONS);
        all.find(|suite| suite.name() == text).ok_or_else(|| format!("no suite {text}"))
    }
}

/// Settings of conntrack for an episode: every one that the engine knows, most as the kernel has them, some not.
///
/// No timeout is so short that an entry dies in an episode, and none is so near another that a millisecond decides
/// which of them an entry has.
pub(crate) fn sysctls(suite: Suite, chance: &mut Chance) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    if suite == Suite::Fragments {
        // Neither time nor memory ends a datagram. The kernel counts what its drivers allocate, which nobody can foretell.
        for family in ["net.ipv4.ipfrag_", "net.netfilter.nf_conntrack_frag6_"] {
            sysctls.insert(format!("{family}high_thresh"), (1 << 28).to_string());
        }
        sysctls.insert("net.ipv4.ipfrag_time".to_owned(), "600".to_owned());
        sysctls.insert("net.netfilter.nf_conntrack_frag6_timeout".to_owned(), "600".to_owned());
        sysctls.insert("net.ipv4.ipfrag_max_dist".to_owned(), chance.pick(&[64, 64, 0, 1, 4, 12]).to_string());
    }
    let usual = chance.percent(40);
    let mut set =
        |name: &str, value: u32| sysctls.insert(format!("net.netfilter.nf_conntrack_{name}"), value.to_string());
    let mut switch = |chance: &mut Chance, name: &str, default: u32, percent: usize| {
        let other = !usual && chance.percent(percent);
        set(name, if other { 1 - default } else { default });
    };
    switch(chance, "checksum", 1, 25);
    switch(chance, "acct", 0, 50);
    switch(chance, "tcp_loose", 1, 25);
    switch(chance, "tcp_be_liberal", 0, 25);
    switch(chance, "tcp_ignore_invalid_rst", 0, 30);
    let retransmissions = if usual { 3 } else { chance.pick(&[0, 1, 2, 3, 3, 5]) };
    set("tcp_max_retrans", retransmissions);
    for (name, default) in TIMEOUTS {
        let value =
            if usual { default } else { chance.pick(&[default, default, default + 37, default + 91, default + 217]) };
        set(name, value);
    }
    sysctls
}

/// Timeouts in seconds. Those that are only seconds by default are longer here: an episode takes longer on a busy
/// machine.
const TIMEOUTS: [(&str, u32); 25] = [
    ("generic_timeout", 600),
    ("icmp_timeout", 30),
    ("icmpv6_timeout", 30),
    ("udp_timeout", 30),
    ("udp_timeout_stream", 120),
    ("gre_timeout", 30),
    ("gre_timeout_stream", 180),
    ("tcp_timeout_syn_sent", 120),
    ("tcp_timeout_syn_recv", 60),
    ("tcp_timeout_established", 432_000),
    ("tcp_timeout_fin_wait", 120),
    ("tcp_timeout_close_wait", 60),
    ("tcp_timeout_last_ack", 30),
    ("tcp_timeout_time_wait", 120),
    ("tcp_timeout_close", 31),
    ("tcp_timeout_max_retrans", 300),
    ("tcp_timeout_unacknowledged", 300),
    ("sctp_timeout_closed", 32),
    ("sctp_timeout_cookie_wait", 33),
    ("sctp_timeout_cookie_echoed", 34),
    ("sctp_timeout_established", 210),
    ("sctp_timeout_shutdown_sent", 35),
    ("sctp_timeout_shutdown_recd", 36),
    ("sctp_timeout_shutdown_ack_sent", 37),
    ("sctp_timeout_heartbeat_sent", 38),
];
