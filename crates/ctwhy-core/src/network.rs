//! The host that tracks: its interfaces, addresses and routes, as far as they decide about packets.

use alloc::string::String;
use alloc::vec::Vec;

use crate::rules::Network as Prefix;
use crate::tuple::{Addr, L3};

/// Interfaces and routes. Empty when only the capture is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The interfaces; their place is their index everywhere else.
    pub interfaces: Vec<Interface>,
    /// The routes in any order.
    pub routes: Vec<Route>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses, the primary one first.
    pub addresses: Vec<InterfaceAddress>,
    /// The longest packet that leaves by it, in bytes; `None` when that is not known and no packet is too long.
    pub mtu: Option<u32>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Family.
    pub l3num: L3,
    /// The address and the prefix of its network.
    pub network: Prefix,
}

/// Where packets to a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Family.
    pub l3num: L3,
    /// Destinations.
    pub to: Prefix,
    /// Index of the outgoing interface.
    pub interface: u16,
    /// The next router; `None` when the destination is directly behind the interface.
    pub via: Option<Addr>,
}

/// What routing says about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// This host.
    Local,
    /// Out by this interface.
    Interface(u16),
    /// Nowhere: no route.
    None,
}

impl Network {
    /// Is nothing known, so that routing has nothing to say?
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.routes.is_empty() && self.interfaces.iter().all(|interface| interface.addresses.is_empty())
    }

    /// The interface with this index.
    #[must_use]
    pub fn interface(&self, index: u16) -> Option<&Interface> {
        self.interfaces.get(usize::from(index))
    }

    /// The index of the interface that has an address.
    #[must_use]
    pub fn interface_of(&self, l3num: L3, address: Addr) -> Option<u16> {
        let has = |interface: &Interface| {
            interface.addresses.iter().any(|own| (own.l3num, own.network.address) == (l3num, address))
        };
        self.interfaces.iter().zip(0..).find(|(interface, _)| has(interface)).map(|(_, index)| index)
    }

    /// The name of an interface.
    pub(crate) fn name(&self, index: Option<u16>) -> Option<&str> {
        index.and_then(|index| self.interface(index)).map(|interface| interface.name.as_str())
    }

    /// The index of the interface with this name; a new one is added when there is none.
    pub fn interface_named(&mut self, name: &str) -> u16 {
        match self.interfaces.iter().position(|interface| interface.name == name) {
            Some(index) => index as u16,
            None => {
                self.interfaces.push(Interface { name: name.into(), ..Interface::default() });
                (self.interfaces.len() - 1) as u16
            }
        }
    }

    /// The loopback address.
    #[must_use]
    pub const fn loopback(l3num: L3) -> Addr {
        let mut bytes = [0; 16];
        match l3num {
            L3::V4 => {
                bytes[0] = 127;
                bytes[3] = 1;
            }
            L3::V6 => bytes[15] = 1,
        }
        Addr(bytes)
    }

    /// As [`Network::route`], for a packet that came in by the interface `from`: what is link-local is on the same link
    /// (`rt6_need_strict`).
    #[must_use]
    pub fn route_from(&self, from: Option<u16>, l3num: L3, to: Addr) -> Destination {
        match (self.route(l3num, to), from) {
            (Destination::Interface(_) | Destination::None, Some(from)) if l3num == L3::V6 && is_link_local(to) => {
                Destination::Interface(from)
            }
            (destination, _) => destination,
        }
    }

    /// `ip_route_input`: own addresses, loopback and multicast are local, the longest prefix wins for the rest.
    #[must_use]
    pub fn route(&self, l3num: L3, to: Addr) -> Destination {
        let addresses = || self.interfaces.iter().flat_map(|interface| &interface.addresses);
        let loopback = match l3num {
            L3::V4 => to.0[0] == 127,
            L3::V6 => to == Network::loopback(l3num),
        };
        let own = addresses().any(|own| own.l3num == l3num && own.network.address == to);
        if loopback || own || is_multicast(l3num, to) {
            return Destination::Local;
        }
        self.best_route(l3num, to).map_or(Destination::None, |route| Destination::Interface(route.interface))
    }

    /// The route to a destination that is not this host.
    fn best_route(&self, l3num: L3, to: Addr) -> Option<Route> {
        let connected = self.interfaces.iter().zip(0u16..).flat_map(|(interface, index)| {
            interface.addresses.iter().map(move |address| Route {
                l3num: address.l3num,
                to: address.network,
                interface: index,
                via: None,
            })
        });
        self.routes
            .iter()
            .copied()
            .chain(connected)
            .filter(|route| route.l3num == l3num && route.to.contains(to))
            .reduce(|best, route| if route.to.prefix > best.to.prefix { route } else { best })
    }

    /// The source that a packet to `to` gets which leaves by an interface: an address of its own, else one of another
    /// interface (NAT-SET-08). For IPv4 the one in the network of the next router, or else the first
    /// (`inet_select_addr`); for IPv6 the one that RFC 6724 prefers for the destination: equal scope, then the longest
    /// prefix in common (`ipv6_dev_get_saddr`).
    #[must_use]
    pub fn source_on(&self, interface: u16, l3num: L3, to: Addr) -> Option<Addr> {
        let of_family = || self.addresses_on(interface, l3num);
        let anywhere = || {
            let addresses = self.interfaces.iter().flat_map(|interface| &interface.addresses);
            addresses.copied().filter(|own| own.l3num == l3num)
        };
        let chosen = match l3num {
            L3::V4 => {
                let next = self.best_route(l3num, to).and_then(|route| route.via).unwrap_or(to);
                let near = of_family().find(|own| own.network.contains(next));
                near.or_else(|| of_family().next()).or_else(|| anywhere().next())
            }
            L3::V6 => {
                let rank = |own: &InterfaceAddress| {
                    let Prefix { address, prefix } = own.network;
                    let differing = u128::from_be_bytes(address.0) ^ u128::from_be_bytes(to.0);
                    (is_link_local(address) == is_link_local(to), differing.leading_zeros().min(u32::from(prefix)))
                };
                // Of equal ones the kernel meets the one first that was added last.
                of_family().max_by_key(rank).or_else(|| anywhere().max_by_key(rank))
            }
        };
        chosen.map(|own| own.network.address)
    }

    /// The address that packets get which are redirected to this host when they come in by an interface: the first one for
    /// IPv4 (`nf_nat_redirect_ipv4`), for IPv6 the one that was added last, and rather none of the link
    /// (`nf_nat_redirect_ipv6`).
    #[must_use]
    pub fn redirected_to(&self, interface: u16, l3num: L3) -> Option<Addr> {
        let mut addresses = self.addresses_on(interface, l3num);
        let own = match l3num {
            L3::V4 => addresses.next(),
            L3::V6 => addresses.max_by_key(|own| !is_link_local(own.network.address)),
        };
        own.map(|own| own.network.address)
    }

    fn addresses_on(&self, interface: u16, l3num: L3) -> impl Iterator<Item = InterfaceAddress> {
        let addresses = self.interface(interface).map_or(&[][..], |interface| &interface.addresses);
        addresses.iter().copied().filter(move |own| own.l3num == l3num)
    }
}

/// fe80::/10.
pub(crate) const fn is_link_local(address: Addr) -> bool {
    address.0[0] == 0xfe && address.0[1] & 0xc0 == 0x80
}

/// 224.0.0.0/4 and the limited broadcast address, ff00::/8.
fn is_multicast(l3num: L3, address: Addr) -> bool {
    match l3num {
        L3::V4 => address.0[0] & 0xf0 == 0xe0 || address.0[..4] == [255; 4],
        L3::V6 => address.0[0] == 0xff,
    }
}
