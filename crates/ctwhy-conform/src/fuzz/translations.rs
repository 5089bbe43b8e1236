//! What a box that translates is told: all of it at once, and each kind of translation by itself.

use super::suite::Suite;

/// A server behind an address, one behind a port, one behind a port of the box; addresses drawn from a range, ports
/// drawn from a range, and the box's own for the others.
const ALL: [&str; 2] = [
    "\
*nat
-A PREROUTING -d 198.51.100.1/32 -j DNAT --to-destination 10.16.0.1
-A PREROUTING -d 198.51.100.2/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.16.0.2:80
-A PREROUTING -d 203.0.113.2/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.16.0.3
-A POSTROUTING -s 10.16.0.8/32 -o wan -j SNAT --to-source 198.51.100.8-198.51.100.11
-A POSTROUTING -s 10.16.0.7/32 -o wan -p udp -j SNAT --to-source 198.51.100.7:30000-30063
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
",
    "\
*nat
-A PREROUTING -d 2001:db8:100::1/128 -j DNAT --to-destination 2001:db8:16::1
-A PREROUTING -d 2001:db8:100::2/128 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [2001:db8:16::2]:80
-A PREROUTING -d 2001:db8:113::2/128 -p udp -m udp --dport 53 -j DNAT --to-destination 2001:db8:16::3
-A POSTROUTING -s 2001:db8:16::8/128 -o wan -j SNAT --to-source 2001:db8:100::8-2001:db8:100::b
-A POSTROUTING -s 2001:db8:16::7/128 -o wan -p udp -j SNAT --to-source [2001:db8:100::7]:30000-30063
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
",
];

/// Ports of TCP and ids of echo are always drawn anew, so that a kept port hides nothing.
const MASQUERADE: &str = "\
*nat
-A POSTROUTING -o wan -p tcp -j MASQUERADE --random-fully
-A POSTROUTING -o wan -p icmp -j MASQUERADE --random-fully
-A POSTROUTING -o wan -p udp -m udp --dport 53 -j MASQUERADE --to-ports 20000-20127
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
";

const SNAT_RANGE: &str = "\
*nat
-A POSTROUTING -s 10.16.0.1/32 -o wan -j SNAT --to-source 198.51.100.16-198.51.100.23 --persistent
-A POSTROUTING -s 10.16.0.2/32 -o wan -p udp -j SNAT --to-source 198.51.100.24:30000-30063
-A POSTROUTING -s 10.16.0.3/32 -o wan -p tcp -j SNAT --to-source 198.51.100.24-198.51.100.25:30000-30063 --random
-A POSTROUTING -o wan -j SNAT --to-source 198.51.100.8-198.51.100.11
COMMIT
";

const DNAT: &str = "\
*nat
-A PREROUTING -d 198.51.100.1/32 -j DNAT --to-destination 10.16.0.1
-A PREROUTING -d 198.51.100.2/32 -p tcp -j DNAT --to-destination 10.16.0.2:80
-A PREROUTING -d 198.51.100.2/32 -p udp -j DNAT --to-destination 10.16.0.2-10.16.0.5:53
-A PREROUTING -d 198.51.100.3/32 -j DNAT --to-destination 10.16.0.6-10.16.0.9 --persistent
-A PREROUTING -d 203.0.113.2/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.16.0.3
COMMIT
";

const DNAT_SNAT: &str = "\
*nat
-A PREROUTING -d 198.51.100.1/32 -j DNAT --to-destination 10.16.0.1
-A PREROUTING -d 198.51.100.2/32 -p tcp -j DNAT --to-destination 10.16.0.2:80
-A PREROUTING -d 198.51.100.3/32 -p udp -j DNAT --to-destination 10.16.0.2:53
-A POSTROUTING -o lan -p tcp -j SNAT --to-source 192.168.1.1:40000-40255
-A POSTROUTING -o lan -j MASQUERADE
-A POSTROUTING -o wan -j SNAT --to-source 198.51.100.9
COMMIT
";

/// Clients behind `lan` that ask for each other by the addresses of outside.
const HAIRPIN: &str = "\
*nat
-A PREROUTING -d 198.51.100.1/32 -j DNAT --to-destination 10.16.0.1
-A PREROUTING -d 198.51.100.2/32 -p tcp -j DNAT --to-destination 10.16.0.2:80
-A PREROUTING -d 198.51.100.2/32 -p udp -j DNAT --to-destination 10.16.0.2
-A PREROUTING -d 198.51.100.3/32 -j DNAT --to-destination 10.16.0.3
-A PREROUTING -d 203.0.113.2/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.16.0.3
-A POSTROUTING -s 10.16.0.0/24 -d 10.16.0.0/24 -j MASQUERADE
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
";

const NETMAP: &str = "\
*nat
-A PREROUTING -d 198.51.100.0/24 -j NETMAP --to 10.16.0.0/24
-A POSTROUTING -s 10.16.0.0/24 -o wan -j NETMAP --to 198.51.100.0/24
COMMIT
";

const REDIRECT: &str = "\
*nat
-A PREROUTING -d 192.0.2.1/32 -i lan -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353
-A PREROUTING -d 192.0.2.2/32 -i lan -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3128-3131
-A PREROUTING -d 192.0.2.3/32 -i lan -p tcp -m tcp --dport 443 -j REDIRECT
-A PREROUTING -d 198.51.100.1/32 -j REDIRECT
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
";

const IPV6: &str = "\
*nat
-A PREROUTING -d 2001:db8:100::1/128 -j DNAT --to-destination 2001:db8:16::1
-A PREROUTING -d 2001:db8:100::2/128 -p tcp -j DNAT --to-destination [2001:db8:16::2]:80
-A PREROUTING -d 2001:db8:100::3/128 -j DNAT --to-destination 2001:db8:16::3
-A PREROUTING -d 2001:db8:113::2/128 -p udp -m udp --dport 53 -j DNAT --to-destination 2001:db8:16::3
-A PREROUTING -d 2001:db8:2::3/128 -i lan -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 8443
-A POSTROUTING -s 2001:db8:16::/64 -d 2001:db8:16::/64 -j MASQUERADE
-A POSTROUTING -s 2001:db8:16::8/128 -o wan -j SNAT --to-source 2001:db8:100::8-2001:db8:100::b
-A POSTROUTING -s 2001:db8:16::7/128 -o wan -p udp -j SNAT --to-source [2001:db8:100::7]:30000-30063
-A POSTROUTING -s 2001:db8:16::6/128 -o wan -p tcp -j MASQUERADE --random-fully
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
";

/// The rules of a suite, for IPv4 and for IPv6.
pub(super) const fn rules(suite: Suite) -> [Option<&'static str>; 2] {
    match suite {
        Suite::NatV4 => [Some(ALL[0]), None],
        Suite::NatV6 => [None, Some(ALL[1])],
        Suite::Masquerade => [Some(MASQUERADE), None],
        Suite::SnatRange => [Some(SNAT_RANGE), None],
        Suite::Dnat => [Some(DNAT), None],
        Suite::DnatSnat => [Some(DNAT_SNAT), None],
        Suite::Hairpin => [Some(HAIRPIN), None],
        Suite::Netmap => [Some(NETMAP), None],
        Suite::Redirect => [Some(REDIRECT), None],
        Suite::TranslatedV6 => [None, Some(IPV6)],
        Suite::Errors => [Some(HAIRPIN), Some(IPV6)],
        _ => [None, None],
    }
}
