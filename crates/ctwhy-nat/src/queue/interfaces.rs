//! The kernel's interfaces, addresses and routes in the engine's numbers.

use std::io;
use std::net::IpAddr;

use ctwhy_core::hook::Engine;
use ctwhy_core::network::{InterfaceAddress, Network, Route};
use ctwhy_core::rules::Network as Prefix;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Addr, L3};
use ctwhy_linux::links::{self, Address, Change, Link};

/// What the kernel has, as far as it decides about packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The interfaces.
    pub links: Vec<Link>,
    /// Their addresses in the order of the kernel.
    pub addresses: Vec<Address>,
    /// Routes by a next router, where an address is chosen by them.
    pub routes: Vec<links::Route>,
}

impl Present {
    /// Asks the kernel.
    ///
    /// # Errors
    /// The system's error.
    pub fn read() -> io::Result<Present> {
        let (links, addresses) = (links::links()?, links::addresses()?);
        // Where every interface has one address at most there is nothing to choose, and tables of routes are long.
        let several = |link: &Link| {
            let own = addresses.iter().filter(|address| address.number == link.number && address.ip.is_ipv4());
            own.count() > 1
        };
        let routes = if links.iter().any(several) { links::routes()? } else { Vec::new() };
        Ok(Present { links, addresses, routes })
    }
}

/// Which of the engine's interfaces is which of the kernel's. A number of the engine's is used again when its interface is
/// gone.
#[derive(Clone, Debug, Default)]
pub struct Interfaces {
    /// The kernel's number of the engine's interface at this place.
    numbers: Vec<Option<u32>>,
}

impl Interfaces {
    /// The engine's number of an interface.
    #[must_use]
    pub fn index(&self, number: u32) -> Option<u16> {
        let at = self.numbers.iter().position(|known| *known == Some(number))?;
        u16::try_from(at).ok()
    }

    /// Ends the flows that were masqueraded with what is lost (NAT-SET-10).
    pub fn lose(&self, changes: &[Change], engine: &mut Engine, now: Time) {
        for change in changes {
            match change {
                Change::AddressLost(address) => {
                    if let Some(index) = self.index(address.number) {
                        engine.address_lost(index, family(address.ip), Addr::from(address.ip), now, &mut ());
                    }
                }
                Change::LinkLost(number) => {
                    if let Some(index) = self.index(*number) {
                        engine.interface_lost(index, now, &mut ());
                    }
                }
                Change::Other => {}
            }
        }
    }

    /// Takes over what the kernel has now.
    pub fn refresh(&mut self, present: &Present, network: &mut Network) {
        let is_there = |number: u32| present.links.iter().any(|link| link.number == number);
        for known in &mut self.numbers {
            known.take_if(|number| !is_there(*number));
        }
        for link in &present.links {
            if self.index(link.number).is_none() {
                match self.numbers.iter_mut().find(|known| known.is_none()) {
                    Some(free) => *free = Some(link.number),
                    None => self.numbers.push(Some(link.number)),
                }
            }
        }
        network.interfaces.resize_with(self.numbers.len(), Default::default);
        for (interface, number) in network.interfaces.iter_mut().zip(&self.numbers) {
            let link = present.links.iter().find(|link| Some(link.number) == *number);
            interface.name = link.map_or_else(String::new, |link| link.name.clone());
            interface.mtu = link.map(|link| link.mtu);
            interface.addresses.clear();
        }
        // Of the addresses of IPv6 the kernel lists the one first that was added last, the engine wants it the other way.
        let of_v4 = present.addresses.iter().filter(|address| address.ip.is_ipv4());
        let of_v6 = present.addresses.iter().rev().filter(|address| address.ip.is_ipv6());
        for address in of_v4.chain(of_v6).filter(|address| address.usable) {
            let interface = self.index(address.number).and_then(|index| network.interfaces.get_mut(usize::from(index)));
            if let Some(interface) = interface {
                let prefix = Prefix { address: Addr::from(address.ip), prefix: address.prefix };
                interface.addresses.push(InterfaceAddress { l3num: family(address.ip), network: prefix });
            }
        }
        let route = |route: &links::Route| {
            let (to, prefix) = route.to;
            Some(Route {
                l3num: family(to),
                to: Prefix { address: Addr::from(to), prefix },
                interface: self.index(route.number)?,
                via: Some(Addr::from(route.via)),
            })
        };
        network.routes = present.routes.iter().filter_map(route).collect();
    }
}

const fn family(ip: IpAddr) -> L3 {
    match ip {
        IpAddr::V4(_) => L3::V4,
        IpAddr::V6(_) => L3::V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u32, name: &str) -> Link {
        Link { number, name: name.to_owned(), mtu: 1500, up: true }
    }

    fn address(number: u32, ip: &str) -> Address {
        Address { number, ip: ip.parse().unwrap(), prefix: 24, usable: true }
    }

    #[test]
    fn an_interface_keeps_its_number_and_one_that_is_gone_gives_its_own() {
        let (mut interfaces, mut network) = (Interfaces::default(), Network::default());
        let mut present = Present {
            links: vec![link(1, "lo"), link(7, "lan"), link(9, "wan")],
            addresses: vec![address(7, "10.0.1.1"), address(9, "2001:db8::2"), address(9, "2001:db8::1")],
            routes: vec![links::Route { to: ([0, 0, 0, 0].into(), 0), number: 9, via: [203, 0, 113, 254].into() }],
        };
        interfaces.refresh(&present, &mut network);
        assert_eq!([1, 7, 9, 8].map(|number| interfaces.index(number)), [Some(0), Some(1), Some(2), None]);
        let of_wan: Vec<_> = network.interfaces[2].addresses.iter().map(|own| own.network.address).collect();
        assert_eq!(of_wan, ["2001:db8::1", "2001:db8::2"].map(|ip| Addr::from(ip.parse::<IpAddr>().unwrap())));
        assert_eq!(network.routes[0].interface, 2);

        present.links = vec![link(1, "lo"), link(9, "ppp0"), link(12, "new")];
        present.addresses[0].usable = false;
        interfaces.refresh(&present, &mut network);
        assert_eq!([1, 12, 9].map(|number| interfaces.index(number)), [Some(0), Some(1), Some(2)]);
        let names: Vec<_> = network.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        assert_eq!(names, ["lo", "new", "ppp0"]);
        assert!(network.interfaces[1].addresses.is_empty(), "what the old one had is gone");
    }
}
