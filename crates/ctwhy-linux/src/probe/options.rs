//! What a probing socket is set to.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{AddressFamily, setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// `IP_MTU_DISCOVER`
    MtuDiscover4,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    /// `IPV6_MTU_DISCOVER`
    MtuDiscover6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);

/// Errors with everything known about them, and the TTL of what arrives.
pub(super) fn hear_errors(socket: &impl AsFd, family: AddressFamily) -> io::Result<()> {
    if family == AddressFamily::Inet6 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
        setsockopt(socket, sockopt::Ipv6RecvHopLimit, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
        setsockopt(socket, sockopt::Ipv4RecvTtl, &true)?;
    }
    Ok(())
}

/// TTL or hop limit of what is sent from now on.
pub(super) fn set_ttl(socket: &impl AsFd, family: AddressFamily, ttl: u8) -> io::Result<()> {
    if family == AddressFamily::Inet6 {
        setsockopt(socket, sockopt::Ipv6Ttl, &i32::from(ttl))?;
    } else {
        setsockopt(socket, sockopt::Ipv4Ttl, &i32::from(ttl))?;
    }
    Ok(())
}

/// With `dont_fragment` a packet leaves as it is, whatever path MTU is known; otherwise this host cuts it to that.
pub(super) fn set_dont_fragment(socket: &impl AsFd, family: AddressFamily, dont_fragment: bool) -> io::Result<()> {
    if family == AddressFamily::Inet6 {
        let discover = if dont_fragment { libc::IPV6_PMTUDISC_PROBE } else { libc::IPV6_PMTUDISC_WANT };
        setsockopt(socket, MtuDiscover6, &discover)?;
        setsockopt(socket, sockopt::Ipv6DontFrag, &dont_fragment)?;
    } else {
        let discover = if dont_fragment { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_WANT };
        setsockopt(socket, MtuDiscover4, &discover)?;
    }
    Ok(())
}

/// Closing the connection sends RST.
pub(super) fn end_with_reset(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?)
}
