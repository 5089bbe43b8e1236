//! Settings of nodes and interfaces, made by a clone of this process that has entered the node.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use crate::netns::{Namespaces, write_file};
use crate::{context, sysctl};

/// What every node gets before its interfaces are made: IPv6 addresses that are usable at once and no filter of source
/// addresses. A kernel without one of them has no need of it.
const DEFAULTS: [(&str, &str); 6] = [
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];

/// Writes the defaults and then the node's own settings.
pub(super) fn apply_defaults(namespaces: &Namespaces, network: &OwnedFd, own: &[(String, String)]) -> io::Result<()> {
    for (name, value) in DEFAULTS {
        match write(namespaces, network, name, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    own.iter().try_for_each(|(name, value)| write(namespaces, network, name, value))
}

fn write(namespaces: &Namespaces, network: &OwnedFd, name: &str, value: &str) -> io::Result<()> {
    let path = CString::new(sysctl::writable_path(name)?.as_os_str().as_bytes())?;
    // SAFETY: the closure makes only system calls.
    unsafe { namespaces.in_clone(network, || write_file(&path, value.as_bytes())) }
        .map_err(context(format_args!("{name}={value}")))
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

const ETHTOOL_STXCSUM: u32 = 0x17;
/// What may be absent or fixed: scatter-gather and segmentation offloads.
const SEGMENTATION: [u32; 3] = [0x19, 0x1f, 0x24];
/// Putting together what was received, which is off where nobody turned it on.
const ETHTOOL_SGRO: u32 = 0x2c;

/// `ethtool -K IF tx off sg off tso off gso off gro off`: every packet has a finished checksum and is one packet. Or back
/// on, but for the last, as the kernel makes the interface.
pub(super) fn offload(namespaces: &Namespaces, network: &OwnedFd, interface: &str, on: bool) -> io::Result<()> {
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *place = byte as libc::c_char;
    }
    // SAFETY: the closure makes only system calls.
    unsafe { namespaces.in_clone(network, || ethtool(&mut request, on)) }
}

/// Only system calls.
fn ethtool(request: &mut libc::ifreq, on: bool) -> io::Result<()> {
    // SAFETY: `request` and the value that it points at live throughout each call, which is what SIOCETHTOOL wants.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut set = |command: u32, on: bool| {
            let mut value = EthtoolValue { command, data: u32::from(on) };
            request.ifr_ifru.ifru_data = (&raw mut value).cast();
            libc::ioctl(socket, libc::SIOCETHTOOL as libc::Ioctl, &raw mut *request)
        };
        set(ETHTOOL_SGRO, false);
        // Segments need checksums: those are the last to go and the first to come.
        if !on {
            for command in SEGMENTATION {
                set(command, on);
            }
        }
        let result = set(ETHTOOL_STXCSUM, on);
        let error = io::Error::last_os_error();
        if on {
            for command in SEGMENTATION {
                set(command, on);
            }
        }
        libc::close(socket);
        if result < 0 { Err(error) } else { Ok(()) }
    }
}
