//! The interfaces of a network namespace: names by index, and addresses.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_indextoname;
use nix::sys::socket::SockaddrStorage;

use crate::context;

/// An address of an interface of the calling thread's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// Length of the prefix of its network.
    pub prefix: u8,
}

/// `getifaddrs`: all addresses, in the order of the kernel.
///
/// # Errors
/// The system's error.
pub fn addresses() -> io::Result<Vec<Address>> {
    let all = getifaddrs().map_err(|errno| context("asking for the interfaces' addresses")(errno.into()))?;
    Ok(all
        .filter_map(|found| {
            let ip = ip(&found.address?)?;
            let prefix = match ip_bits(&found.netmask?) {
                Some(bits) => bits,
                None if ip.is_ipv4() => 32,
                None => 128,
            };
            Some(Address { interface: found.interface_name, ip, prefix })
        })
        .collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn ip_bits(mask: &SockaddrStorage) -> Option<u8> {
    let ones = match ip(mask)? {
        IpAddr::V4(v4) => v4.to_bits().count_ones(),
        IpAddr::V6(v6) => v6.to_bits().count_ones(),
    };
    u8::try_from(ones).ok()
}

/// The name of the interface with this index; `None` when there is none any more.
#[must_use]
pub fn name(index: u32) -> Option<String> {
    // Where there is none the wrapper gives an empty name.
    if_indextoname(index).ok().map(|name| name.to_string_lossy().into_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_by_number_and_name() {
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        assert_eq!(name(lo).as_deref(), Some("lo"));
        assert_eq!(name(u32::MAX), None);
        let loopback = addresses().unwrap().into_iter().find(|address| address.ip == IpAddr::from([127, 0, 0, 1]));
        // A namespace just made has it without an address.
        if let Some(loopback) = loopback {
            assert_eq!((loopback.interface.as_str(), loopback.prefix), ("lo", 8));
        }
    }
}
