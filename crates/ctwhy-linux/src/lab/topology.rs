//! What a lab looks like: nodes, links, addresses, routes, rules. Data only.

use std::net::IpAddr;

/// A host or router: a network namespace with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Routes as `ip route add` takes them, such as `default via 192.0.2.1`; the family is told from the text.
    pub routes: Vec<String>,
    /// Settings by name and value; see [`crate::sysctl::path`].
    pub sysctls: Vec<(String, String)>,
    /// Rules for IPv4 as `iptables-restore` takes them, empty for none.
    pub iptables: String,
    /// Rules for IPv6 as `ip6tables-restore` takes them, empty for none.
    pub ip6tables: String,
}

impl Node {
    /// A host.
    #[must_use]
    pub fn host(name: &str) -> Node {
        Node { name: name.to_owned(), ..Node::default() }
    }

    /// A router for both families. It answers every packet with an error where it should: without limits of rate a
    /// burst of probes gets a burst of answers.
    #[must_use]
    pub fn router(name: &str) -> Node {
        Node::host(name)
            .sysctl("net.ipv4.ip_forward", "1")
            .sysctl("net.ipv6.conf.all.forwarding", "1")
            .sysctl("net.ipv4.icmp_ratelimit", "0")
            .sysctl("net.ipv6.icmp.ratelimit", "0")
    }

    /// Adds a setting.
    #[must_use]
    pub fn sysctl(mut self, name: &str, value: &str) -> Node {
        self.sysctls.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a route.
    #[must_use]
    pub fn route(mut self, route: &str) -> Node {
        self.routes.push(route.to_owned());
        self
    }

    /// Sets the rules for both families.
    #[must_use]
    pub fn rules(mut self, iptables: &str, ip6tables: &str) -> Node {
        iptables.clone_into(&mut self.iptables);
        ip6tables.clone_into(&mut self.ip6tables);
        self
    }
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The node it is plugged into.
    pub node: String,
    /// The name of the interface there.
    pub interface: String,
    /// Addresses with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl End {
    /// An end with addresses such as `192.0.2.1/24`.
    ///
    /// # Errors
    /// The text that is no address with a prefix length.
    pub fn new(node: &str, interface: &str, addresses: &[&str]) -> Result<End, String> {
        let addresses = addresses.iter().map(|text| address(text).ok_or_else(|| (*text).to_owned()));
        let addresses = addresses.collect::<Result<_, _>>()?;
        Ok(End { node: node.to_owned(), interface: interface.to_owned(), addresses })
    }
}

fn address(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = text.split_once('/')?;
    let (ip, length): (IpAddr, u8) = (ip.parse().ok()?, length.parse().ok()?);
    (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, length))
}

/// A cable: two virtual Ethernet interfaces, without checksum or segmentation offload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// One end.
    pub a: End,
    /// The other.
    pub b: End,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// Nodes and links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The nodes, in the order in which they are made.
    pub nodes: Vec<Node>,
    /// The links between them.
    pub links: Vec<Link>,
}

impl Topology {
    /// Adds a node.
    #[must_use]
    pub fn node(mut self, node: Node) -> Topology {
        self.nodes.push(node);
        self
    }

    /// Adds a link with an MTU of 1500.
    #[must_use]
    pub fn link(mut self, a: End, b: End) -> Topology {
        self.links.push(Link { a, b, mtu: 1500 });
        self
    }

    /// Sets the MTU of the link between two nodes.
    #[must_use]
    pub fn mtu(mut self, one: &str, other: &str, mtu: u32) -> Topology {
        for link in &mut self.links {
            let (a, b) = (&link.a.node, &link.b.node);
            if (a == one && b == other) || (a == other && b == one) {
                link.mtu = mtu;
            }
        }
        self
    }

    /// The end at the other side of an interface.
    #[must_use]
    pub fn peer(&self, node: &str, interface: &str) -> Option<&End> {
        let is = |end: &End| end.node == node && end.interface == interface;
        self.links.iter().find_map(|link| {
            if is(&link.a) {
                Some(&link.b)
            } else if is(&link.b) {
                Some(&link.a)
            } else {
                None
            }
        })
    }

    /// `client -- nat -- r1 -- r2 -- server` for IPv4 and IPv6; `nat` masquerades what leaves by `wan` and makes a
    /// ctnetlink event of every change. Interfaces are named after the node at the other side, but `lan` and `wan` on
    /// `nat` and `eth0` on the two hosts.
    ///
    /// | node | interface | addresses |
    /// |---|---|---|
    /// | client | eth0 | 192.168.1.2, fd00:1::2 |
    /// | nat | lan | 192.168.1.1, fd00:1::1 |
    /// | nat | wan | 203.0.113.2, 2001:db8:113::2 |
    /// | r1 | nat | 203.0.113.1, 2001:db8:113::1 |
    /// | r1 | r2 | 198.51.100.1, 2001:db8:100::1 |
    /// | r2 | r1 | 198.51.100.2, 2001:db8:100::2 |
    /// | r2 | server | 192.0.2.1, 2001:db8:2::1 |
    /// | server | eth0 | 192.0.2.80, 2001:db8:2::80 |
    #[must_use]
    pub fn traceroute() -> Topology {
        let masquerade = "*nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n";
        let end = |node: &str, interface: &str, v4: [u8; 4], v6: [u16; 8]| End {
            node: node.to_owned(),
            interface: interface.to_owned(),
            addresses: vec![(IpAddr::from(v4), 24), (IpAddr::from(v6), 64)],
        };
        Topology::default()
            .node(Node::host("client").route("default via 192.168.1.1").route("default via fd00:1::1"))
            .node(
                Node::router("nat")
                    .sysctl("net.netfilter.nf_conntrack_events", "1")
                    .route("default via 203.0.113.1")
                    .route("default via 2001:db8:113::1")
                    .rules(masquerade, masquerade),
            )
            .node(
                Node::router("r1").route("192.0.2.0/24 via 198.51.100.2").route("2001:db8:2::/64 via 2001:db8:100::2"),
            )
            .node(
                Node::router("r2")
                    .route("203.0.113.0/24 via 198.51.100.1")
                    .route("2001:db8:113::/64 via 2001:db8:100::1"),
            )
            .node(Node::host("server").route("default via 192.0.2.1").route("default via 2001:db8:2::1"))
            .link(
                end("client", "eth0", [192, 168, 1, 2], [0xfd00, 1, 0, 0, 0, 0, 0, 2]),
                end("nat", "lan", [192, 168, 1, 1], [0xfd00, 1, 0, 0, 0, 0, 0, 1]),
            )
            .link(
                end("nat", "wan", [203, 0, 113, 2], [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2]),
                end("r1", "nat", [203, 0, 113, 1], [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1]),
            )
            .link(
                end("r1", "r2", [198, 51, 100, 1], [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1]),
                end("r2", "r1", [198, 51, 100, 2], [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 2]),
            )
            .link(
                end("r2", "server", [192, 0, 2, 1], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]),
                end("server", "eth0", [192, 0, 2, 80], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80]),
            )
    }

    /// What cannot be built, in a sentence.
    ///
    /// # Errors
    /// A name twice, a name that is no name, or a link to a node that is not there.
    pub fn check(&self) -> Result<(), String> {
        let mut names: Vec<&str> = Vec::new();
        for node in &self.nodes {
            if !is_name(&node.name) {
                return Err(format!("{:?} cannot name a node: letters, digits, `-` and `_`, at most 32", node.name));
            }
            if names.contains(&node.name.as_str()) {
                return Err(format!("two nodes are named {}", node.name));
            }
            names.push(&node.name);
        }
        let mut interfaces: Vec<(&str, &str)> = Vec::new();
        for end in self.links.iter().flat_map(|link| [&link.a, &link.b]) {
            if !names.contains(&end.node.as_str()) {
                return Err(format!("a link ends at {}, which is no node", end.node));
            }
            if !is_name(&end.interface) || end.interface.len() > 15 {
                return Err(format!("{:?} cannot name an interface: at most 15 letters and digits", end.interface));
            }
            let interface = (end.node.as_str(), end.interface.as_str());
            if interfaces.contains(&interface) {
                return Err(format!("{} has two interfaces named {}", end.node, end.interface));
            }
            interfaces.push(interface);
        }
        Ok(())
    }
}

/// May a node, an interface or a lab be called so?
pub(super) fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=32).contains(&text.len()) && text.chars().all(good) && !text.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_topology_can_be_built() {
        let topology = Topology::traceroute().mtu("server", "r2", 1400);
        assert_eq!(topology.check(), Ok(()));
        assert_eq!(topology.peer("nat", "wan").unwrap().node, "r1");
        assert_eq!(topology.links.iter().map(|link| link.mtu).collect::<Vec<_>>(), [1500, 1500, 1500, 1400]);
    }

    #[test]
    fn what_cannot_be_built_is_named() {
        let twice = Topology::default().node(Node::host("a")).node(Node::host("a"));
        assert_eq!(twice.check().unwrap_err(), "two nodes are named a");
        let end = |node| End::new(node, "eth0", &["192.0.2.1/24"]).unwrap();
        let nowhere = Topology::default().node(Node::host("a")).link(end("a"), end("b"));
        assert_eq!(nowhere.check().unwrap_err(), "a link ends at b, which is no node");
        assert!(Topology::default().node(Node::host("../x")).check().is_err());
        for bad in ["192.0.2.1", "192.0.2.1/33", "x/1", "::/129"] {
            assert_eq!(End::new("a", "eth0", &[bad]).unwrap_err(), bad);
        }
    }
}
