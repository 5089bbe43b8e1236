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

    /// The name of an interface.
    pub(crate) fn name(&self, index: Option<u16>) -> Option<&str> {
        index.and_then(|index| self.interface(index)).map(|interface| interface.name.as_str())
    }

    /// The index of the interface with this name; a new one is added when there is none.
    pub fn interface_named(&mut self, name: &str) -> u16 {
        match self.interfaces.iter().position(|interface| interface.name == name) {
            Some(index) => index as u16,
            None => {
                self.interfaces.push(Interface { name: name.into(), addresses: Vec::new() });
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
        let connected = self.interfaces.iter().zip(0u16..).flat_map(|(interface, index)| {
            interface.addresses.iter().map(move |address| Route {
                l3num: address.l3num,
                to: address.network,
                interface: index,
            })
        });
        let best = self
            .routes
            .iter()
            .copied()
            .chain(connected)
            .filter(|route| route.l3num == l3num && route.to.contains(to))
            .reduce(|best, route| if route.to.prefix > best.to.prefix { route } else { best });
        best.map_or(Destination::None, |route| Destination::Interface(route.interface))
    }

    /// `inet_select_addr`: the address of an interface that packets get which leave by it; one of the network of
    /// `near` is preferred.
    #[must_use]
    pub fn address_on(&self, interface: u16, l3num: L3, near: Option<Addr>) -> Option<Addr> {
        let interface = self.interface(interface)?;
        let of_family = || interface.addresses.iter().filter(|own| own.l3num == l3num);
        let same_network = near.and_then(|near| of_family().find(|own| own.network.contains(near)));
        same_network.or_else(|| of_family().next()).map(|own| own.network.address)
    }

    /// `inet_select_addr`, `ipv6_dev_get_saddr`: the address that packets get which leave by an interface: one of its own,
    /// else one of another interface (NAT-SET-08). Of several others IPv6 takes the one most like `to`.
    #[must_use]
    pub fn source_address(&self, out: u16, l3num: L3, to: Addr) -> Option<Addr> {
        self.address_on(out, l3num, Some(to)).or_else(|| {
            let addresses = self.interfaces.iter().flat_map(|interface| &interface.addresses);
            let others = addresses.filter(|own| own.l3num == l3num).map(|own| own.network.address);
            let alike = |address: &Addr| u128::from_be_bytes(address.0) ^ u128::from_be_bytes(to.0);
            others.reduce(|best, address| match l3num {
                L3::V6 if alike(&address).leading_zeros() > alike(&best).leading_zeros() => address,
                _ => best,
            })
        })
    }
}

/// 224.0.0.0/4 and the limited broadcast address, ff00::/8.
fn is_multicast(l3num: L3, address: Addr) -> bool {
    match l3num {
        L3::V4 => address.0[0] & 0xf0 == 0xe0 || address.0[..4] == [255; 4],
        L3::V6 => address.0[0] == 0xff,
    }
}
