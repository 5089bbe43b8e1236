//! A router on TUN devices: packets are read until there are no more, decided about, and written.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

use ctwhy_core::time::Time;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::router::{Router, Watch};
use crate::statistics::{Causes, count};

/// The longest packet.
const LONGEST: usize = 65_535;
/// How many packets of a device are read before the other one has its turn.
const BURST: usize = 256;

/// A TUN device.
pub struct Device {
    device: SyncDevice,
    name: String,
}

impl Device {
    /// Attaches to the TUN device with this name, and makes it when there is none. It is then one of this network
    /// namespace, but stays open when it is moved to another one.
    ///
    /// # Errors
    /// It belongs to somebody else or is in use, or this user may make none.
    pub fn open(name: &str) -> io::Result<Device> {
        // Whether it is up is not ours to say: an ordinary user may not, and who moves it says so there.
        let device = DeviceBuilder::new().name(name).inherit_enable_state().build_sync();
        let device = device.map_err(|error| explained(name, &error))?;
        device.set_nonblocking(true)?;
        Ok(Device { device, name: name.to_owned() })
    }

    /// Its name when it was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next packet; `None` when there is none now.
    ///
    /// # Errors
    /// The device is gone.
    pub(crate) fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a mut [u8]>> {
        loop {
            match self.device.recv(buffer) {
                Ok(len) => return Ok(buffer.get_mut(..len)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // It is down; it may come up again.
                Err(error) if error.raw_os_error() == Some(EIO) => return Ok(None),
                Err(error) => return Err(io::Error::new(error.kind(), format!("reading from {}: {error}", self.name))),
            }
        }
    }

    /// Writes a packet. What the device did not take is lost, as on any link.
    ///
    /// # Errors
    /// The cause, as a stable code.
    pub(crate) fn write(&self, packet: &[u8]) -> Result<(), &'static str> {
        loop {
            return match self.device.send(packet) {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Err("tun.full"),
                Err(error) if error.raw_os_error() == Some(EIO) => Err("tun.down"),
                Err(_) => Err("tun.error"),
            };
        }
    }
}

const EIO: i32 = 5;

/// What cannot be done with a device, and what to do about it.
fn explained(name: &str, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => {
            "; root may make one, and `ip tuntap add mode tun user USER NAME` makes one that belongs to a user"
        }
        ErrorKind::ResourceBusy => "; another program has it",
        ErrorKind::NotFound => "; the kernel has no TUN devices here (modprobe tun)",
        ErrorKind::InvalidInput => "; it is no TUN device of a single queue, or no name for one",
        _ => "",
    };
    io::Error::new(error.kind(), format!("TUN device {name}: {error}{hint}"))
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// A router and the devices that are its interfaces, in the order of those of its network.
pub struct TunRouter {
    /// The router.
    pub router: Router,
    devices: Vec<Device>,
    buffer: Vec<u8>,
    lost: Causes,
}

impl TunRouter {
    /// A router on these devices: the first is interface 0 of its network, and so on.
    #[must_use]
    pub fn new(router: Router, devices: Vec<Device>) -> TunRouter {
        TunRouter { router, devices, buffer: vec![0; LONGEST], lost: Causes::new() }
    }

    /// What becomes readable when a packet arrives.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.devices.iter().map(AsFd::as_fd)
    }

    /// Packets that a device did not take, by cause.
    #[must_use]
    pub const fn lost(&self) -> &Causes {
        &self.lost
    }

    /// Forwards what is there now, some of each device, and does what was due; says how many packets that were.
    ///
    /// # Errors
    /// A device is gone.
    pub fn round<W: Watch>(&mut self, mut clock: impl FnMut() -> Time, watch: &mut W) -> io::Result<usize> {
        let TunRouter { router, devices, buffer, lost } = self;
        let mut packets = 0;
        if let Some(deadline) = router.deadline() {
            let now = clock();
            if deadline <= now {
                router.end_overdue(now, watch, &mut |out, packet| send(devices, out, packet, lost));
            }
        }
        for (device, interface) in devices.iter().zip(0..) {
            for _ in 0..BURST {
                let Some(packet) = device.read(buffer)? else { break };
                packets += 1;
                router
                    .receive((packet, interface), clock(), watch, &mut |out, packet| send(devices, out, packet, lost));
            }
        }
        Ok(packets)
    }
}

/// Writes a packet; where that fails it is counted.
fn send(devices: &[Device], interface: u16, packet: &[u8], lost: &mut Causes) {
    let device = devices.get(usize::from(interface)).ok_or("tun.no_device");
    if let Err(code) = device.and_then(|device| device.write(packet)) {
        count(lost, code);
    }
}
