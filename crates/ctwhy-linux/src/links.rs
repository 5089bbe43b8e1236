//! Links, addresses and routes as the kernel has them, and that they changed (RFC 3549; `rtnetlink(7)`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use crate::context;
use crate::netlink::{Attribute, Attributes, HEADER, Message, Messages, Socket};

/// Room for one datagram of a dump; the kernel sends 32 KiB at most.
const DATAGRAM: usize = 64 << 10;
/// Receive buffer of the changes in bytes.
const BUFFER: usize = 1 << 20;
/// `struct ifinfomsg`, `struct ifaddrmsg`, `struct rtmsg`: their lengths in bytes.
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// The longest packet that leaves by it, in bytes.
    pub mtu: u32,
    /// Is it up (`IFF_UP`)?
    pub up: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub number: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of the prefix of its network.
    pub prefix: u8,
    /// May packets get it as their source: neither tentative nor deprecated?
    pub usable: bool,
}

/// A route by a next router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations: the address and the length of the prefix.
    pub to: (IpAddr, u8),
    /// The number of the interface that it leaves by.
    pub number: u32,
    /// The next router.
    pub via: IpAddr,
}

/// What changed, as far as more than the present state matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An address is gone from the interface with this number.
    AddressLost(Address),
    /// The interface with this number is down or gone.
    LinkLost(u32),
    /// Something else, which the present state shows.
    Other,
}

/// All links, in the order of the kernel.
///
/// # Errors
/// The system's error.
pub fn links() -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    dump(libc::RTM_GETLINK, &[0; LINK], |message| links.extend(link(message)))
        .map_err(context("asking for the interfaces"))?;
    Ok(links)
}

/// All addresses, in the order of the kernel.
///
/// # Errors
/// The system's error.
pub fn addresses() -> io::Result<Vec<Address>> {
    let mut addresses = Vec::new();
    dump(libc::RTM_GETADDR, &[0; ADDRESS], |message| addresses.extend(address(message)))
        .map_err(context("asking for the interfaces' addresses"))?;
    Ok(addresses)
}

/// The IPv4 routes of the main table that lead to a next router.
///
/// # Errors
/// The system's error.
pub fn routes() -> io::Result<Vec<Route>> {
    let mut request = [0; ROUTE];
    request[0] = libc::AF_INET as u8;
    let mut routes = Vec::new();
    dump(libc::RTM_GETROUTE, &request, |message| routes.extend(route(message)))
        .map_err(context("asking for the routes"))?;
    Ok(routes)
}

/// Tells when links and addresses change, and IPv4 routes. Pollable.
pub struct Changes {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Changes {
    /// Those of the calling thread's network namespace, from now on.
    ///
    /// # Errors
    /// The system's error.
    pub fn open() -> io::Result<Changes> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_IPV4_ROUTE;
        let socket = Socket::open_route(groups as u32).map_err(context("opening a socket for changes of routing"))?;
        socket.set_receive_buffer(BUFFER)?;
        Ok(Changes { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Takes all changes that are there, in order.
    ///
    /// # Errors
    /// The system's error, or bytes that are no rtnetlink.
    pub fn take(&mut self, changes: &mut Vec<Change>) -> io::Result<()> {
        loop {
            match self.socket.receive(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(None) => return Ok(()),
                Ok(Some(datagram)) => {
                    for message in Messages::new(datagram) {
                        changes.push(change(&message?));
                    }
                }
                // More changed than there was room for: what is now shows it.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changes.push(Change::Other),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `NLM_F_DUMP`: asks, and shows every answer.
fn dump(kind: u16, request: &[u8], mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
    let mut socket = Socket::open_route(0)?;
    let sequence = socket.next_sequence();
    let mut bytes = Vec::with_capacity(HEADER + request.len());
    bytes.extend(((HEADER + request.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(request);
    socket.send(&bytes)?;
    let mut buffer = vec![0; DATAGRAM];
    while let Some(datagram) = socket.receive(&mut buffer, 0)? {
        for message in Messages::new(datagram) {
            let message = message?;
            if message.sequence != sequence {
                continue;
            }
            if let Some(answer) = message.error() {
                return answer;
            }
            if message.is_done() {
                return Ok(());
            }
            each(&message);
        }
    }
    Ok(())
}

fn change(message: &Message<'_>) -> Change {
    match message.kind {
        libc::RTM_DELADDR => address(message).map_or(Change::Other, Change::AddressLost),
        libc::RTM_DELLINK => link(message).map_or(Change::Other, |link| Change::LinkLost(link.number)),
        libc::RTM_NEWLINK => match link(message) {
            Some(link) if !link.up => Change::LinkLost(link.number),
            _ => Change::Other,
        },
        _ => Change::Other,
    }
}

/// The attributes behind a fixed part of `length` bytes; one that is cut short ends them.
fn attributes<'a>(message: &Message<'a>, length: usize) -> impl Iterator<Item = Attribute<'a>> {
    Attributes::new(message.body.get(length..).unwrap_or_default()).map_while(Result::ok)
}

fn ne32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An address of 4 or 16 bytes.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// `struct ifinfomsg` and its attributes.
fn link(message: &Message<'_>) -> Option<Link> {
    let number = ne32(message.body, 4)?;
    let up = ne32(message.body, 8)? & libc::IFF_UP as u32 != 0;
    let (mut name, mut mtu) = (None, 0);
    for attribute in attributes(message, LINK) {
        match attribute.kind {
            libc::IFLA_IFNAME => {
                let text = attribute.value.split(|byte| *byte == 0).next().unwrap_or_default();
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            libc::IFLA_MTU => mtu = ne32(attribute.value, 0)?,
            _ => {}
        }
    }
    Some(Link { number, name: name?, mtu, up })
}

/// `struct ifaddrmsg` and its attributes.
fn address(message: &Message<'_>) -> Option<Address> {
    let &[_, prefix, flags, ..] = message.body else { return None };
    let number = ne32(message.body, 4)?;
    let mut flags = u32::from(flags);
    let (mut local, mut remote) = (None, None);
    for attribute in attributes(message, ADDRESS) {
        match attribute.kind {
            // On a point-to-point link IFA_ADDRESS is the other side's.
            libc::IFA_LOCAL => local = ip(attribute.value),
            libc::IFA_ADDRESS => remote = ip(attribute.value),
            libc::IFA_FLAGS => flags = ne32(attribute.value, 0)?,
            _ => {}
        }
    }
    let usable = flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DEPRECATED) == 0;
    Some(Address { number, ip: local.or(remote)?, prefix, usable })
}

/// `struct rtmsg` and its attributes, of a unicast route of the main table.
fn route(message: &Message<'_>) -> Option<Route> {
    let &[family, prefix, _, _, table, _, _, kind, ..] = message.body else { return None };
    let of_main = table == libc::RT_TABLE_MAIN && kind == libc::RTN_UNICAST;
    let (mut to, mut via, mut number) = (None, None, None);
    for attribute in attributes(message, ROUTE) {
        match attribute.kind {
            libc::RTA_DST => to = ip(attribute.value),
            libc::RTA_GATEWAY => via = ip(attribute.value),
            libc::RTA_OIF => number = ne32(attribute.value, 0),
            _ => {}
        }
    }
    let any =
        if i32::from(family) == libc::AF_INET6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    of_main.then_some(Route { to: (to.unwrap_or(any), prefix), number: number?, via: via? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_there_with_its_address() {
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(lo.mtu >= 1500, "{lo:?}");
        let addresses = addresses().unwrap();
        let own = addresses.iter().find(|address| address.ip == IpAddr::from([127, 0, 0, 1]));
        // A namespace just made has it without an address.
        if let Some(own) = own {
            assert_eq!((own.number, own.prefix, own.usable), (lo.number, 8, true));
        }
        assert!(routes().is_ok());
    }

    fn message(kind: u16, body: &[u8]) -> Message<'_> {
        Message { kind, flags: 0, sequence: 0, body }
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(((value.len() + 4) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn what_is_lost_is_told() {
        let mut body = vec![0; LINK];
        body[4] = 7;
        body.extend(attribute(libc::IFLA_IFNAME, b"wan\0"));
        assert_eq!(change(&message(libc::RTM_NEWLINK, &body)), Change::LinkLost(7), "it is down");
        body[8] = libc::IFF_UP as u8;
        assert_eq!(change(&message(libc::RTM_NEWLINK, &body)), Change::Other);
        assert_eq!(change(&message(libc::RTM_DELLINK, &body)), Change::LinkLost(7));

        let mut body = vec![libc::AF_INET as u8, 24, 0, 0, 7, 0, 0, 0];
        body.extend(attribute(libc::IFA_LOCAL, &[192, 0, 2, 1]));
        let own = Address { number: 7, ip: [192, 0, 2, 1].into(), prefix: 24, usable: true };
        assert_eq!(change(&message(libc::RTM_DELADDR, &body)), Change::AddressLost(own));
        assert_eq!(change(&message(libc::RTM_NEWADDR, &body)), Change::Other);
    }

    #[test]
    fn a_message_cut_anywhere_is_no_harm() {
        let mut body = vec![libc::AF_INET as u8, 0, 0, 0, libc::RT_TABLE_MAIN, 0, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
        body.extend(attribute(libc::RTA_GATEWAY, &[192, 0, 2, 1]));
        body.extend(attribute(libc::RTA_OIF, &7u32.to_ne_bytes()));
        let whole = route(&message(libc::RTM_NEWROUTE, &body)).unwrap();
        let any = IpAddr::from([0, 0, 0, 0]);
        assert_eq!(whole, Route { to: (any, 0), number: 7, via: [192, 0, 2, 1].into() });
        for end in 0..body.len() {
            let cut = message(libc::RTM_NEWROUTE, &body[..end]);
            assert_eq!(route(&cut), None);
            let _ = (link(&cut), address(&cut), change(&cut));
        }
    }
}
