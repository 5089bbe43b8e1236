//! Addresses, prefixes and routes as they are written on a command line.

use std::str::FromStr;

#[cfg(target_os = "linux")]
use ctwhy_core::network::InterfaceAddress;
use ctwhy_core::network::{Network, Route};
use ctwhy_core::rules::Network as Prefixed;
use ctwhy_core::rules::matches::address_bits;
use ctwhy_core::tuple::{Addr, L3};
use ctwhy_fixture::case::Prefix;

/// A prefix with its family.
pub(crate) fn prefixed(prefix: Prefix) -> (L3, Prefixed) {
    let address = prefix.address();
    let l3num = if address.is_ipv4() { L3::V4 } else { L3::V6 };
    (l3num, Prefixed { address: Addr::from(address), prefix: prefix.length() })
}

/// An address, with or without the length of its network.
pub(crate) fn parse_prefix(text: &str) -> Result<Prefix, String> {
    match text {
        "default" => return Err("write 0.0.0.0/0 or ::/0 for the default route".to_owned()),
        _ if text.contains('/') => text.to_owned(),
        _ => {
            let address: std::net::IpAddr = text.parse().map_err(|_| format!("'{text}' is no address"))?;
            format!("{text}/{}", if address.is_ipv4() { address_bits(L3::V4) } else { address_bits(L3::V6) })
        }
    }
    .parse()
    .map_err(|_| format!("'{text}' is neither an address nor a prefix such as 10.0.0.0/8"))
}

/// `--route`: packets to a prefix leave by an interface.
#[derive(Clone, Debug)]
pub(crate) struct RouteArg {
    to: Prefix,
    interface: String,
}

impl RouteArg {
    /// Adds the route, and the interface if it is new.
    pub(crate) fn add_to(&self, network: &mut Network) {
        let (l3num, to) = prefixed(self.to);
        let interface = network.interface_named(&self.interface);
        network.routes.push(Route { l3num, to, interface, via: None });
    }

    /// The interface that it leads to.
    #[cfg(target_os = "linux")]
    pub(crate) fn interface(&self) -> &str {
        &self.interface
    }
}

/// `--address`: an address of an interface.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug)]
pub(crate) struct AddressArg {
    interface: String,
    address: Prefix,
}

#[cfg(target_os = "linux")]
impl AddressArg {
    /// Adds the address, and the interface if it is new.
    pub(crate) fn add_to(&self, network: &mut Network) {
        let (l3num, own) = prefixed(self.address);
        let index = network.interface_named(&self.interface);
        if let Some(interface) = network.interfaces.get_mut(usize::from(index)) {
            interface.addresses.push(InterfaceAddress { l3num, network: own });
        }
    }

    /// The interface that has it.
    pub(crate) fn interface(&self) -> &str {
        &self.interface
    }
}

#[cfg(target_os = "linux")]
impl FromStr for AddressArg {
    type Err = String;

    fn from_str(text: &str) -> Result<AddressArg, String> {
        let named = text.split_once('=').filter(|(interface, _)| !interface.is_empty());
        let (interface, address) = named.ok_or("write IFACE=ADDRESS/LEN, such as wan=203.0.113.2/24")?;
        Ok(AddressArg { interface: interface.to_owned(), address: parse_prefix(address)? })
    }
}

/// `--mtu`: the longest packet that leaves by an interface.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug)]
pub(crate) struct MtuArg {
    /// The interface.
    pub(crate) interface: String,
    /// Bytes.
    pub(crate) mtu: u32,
}

#[cfg(target_os = "linux")]
impl FromStr for MtuArg {
    type Err = String;

    fn from_str(text: &str) -> Result<MtuArg, String> {
        const SMALLEST: u32 = 68;
        const LARGEST: u32 = 65_535;
        let named = text.split_once('=').filter(|(interface, _)| !interface.is_empty());
        let (interface, mtu) = named.ok_or("write IFACE=BYTES, such as wan=1400")?;
        let mtu = mtu.parse().ok().filter(|mtu| (SMALLEST..=LARGEST).contains(mtu));
        let mtu = mtu.ok_or_else(|| format!("an MTU is from {SMALLEST} to {LARGEST} bytes"))?;
        Ok(MtuArg { interface: interface.to_owned(), mtu })
    }
}

impl FromStr for RouteArg {
    type Err = String;

    fn from_str(text: &str) -> Result<RouteArg, String> {
        let named = text.split_once('=').filter(|(_, interface)| !interface.is_empty());
        let (to, interface) = named.ok_or("write PREFIX=IFACE, such as 0.0.0.0/0=wan")?;
        Ok(RouteArg { to: parse_prefix(to)?, interface: interface.to_owned() })
    }
}
