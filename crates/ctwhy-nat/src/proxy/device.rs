//! The guest's interface: a TUN device, whose packets come here.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ctwhy_linux::{netns, program};

use crate::tun::Device;

/// What the guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// The name of its interface.
    pub interface: String,
    /// Its addresses, with the length of the prefix of their network.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The network namespace that the guest is: a name as in `ip netns`, a path, or the number of a process. `None` is the
    /// one of the calling thread. A guest with a namespace of its own also gets routes for everything into the interface.
    pub netns: Option<String>,
    /// Bytes that its interface takes.
    pub mtu: u16,
}

impl GuestConfig {
    /// Makes the interface. It is there as long as the device is open.
    ///
    /// # Errors
    /// No such namespace, no right to it (CAP_NET_ADMIN), no `/dev/net/tun`, or an address is refused.
    pub fn open(&self) -> io::Result<Device> {
        let Some(netns) = &self.netns else { return self.open_here() };
        let path = namespace(netns);
        let namespace = File::open(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("network namespace {}: {error}", path.display())))?;
        netns::in_namespace(namespace, || self.open_here())?
    }

    fn open_here(&self) -> io::Result<Device> {
        let device = Device::open(&self.interface)?;
        program::run(program::command("ip")?.args(["-batch", "-"]), &self.lines())?;
        Ok(device)
    }

    /// `ip` for the rest.
    fn lines(&self) -> String {
        let interface = &self.interface;
        let mut lines = format!("link set {interface} mtu {} up\n", self.mtu);
        for (ip, length) in &self.addresses {
            let now = if ip.is_ipv6() { " nodad" } else { "" };
            lines += &format!("address add {ip}/{length} dev {interface}{now}\n");
        }
        if self.netns.is_some() {
            // Halves, so that they win over a default route that is there already, and leave it alone.
            for (ip, _) in &self.addresses {
                let halves = if ip.is_ipv4() { ["0.0.0.0/1", "128.0.0.0/1"] } else { ["::/1", "8000::/1"] };
                for half in halves {
                    lines += &format!("route replace {half} dev {interface}\n");
                }
            }
        }
        lines
    }
}

/// Where a namespace is.
fn namespace(name: &str) -> PathBuf {
    if name.contains('/') {
        PathBuf::from(name)
    } else if name.parse::<u32>().is_ok() {
        Path::new("/proc").join(name).join("ns/net")
    } else {
        Path::new("/run/netns").join(name)
    }
}
