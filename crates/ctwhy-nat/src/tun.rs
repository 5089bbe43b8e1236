//! A router on TUN devices: packets are read until there are no more, decided about, and written.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use ctwhy_core::time::Time;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::offload::{self, Gso};
use crate::router::{Arrival, Departure, Router, Watch};
use crate::statistics::{Causes, count};

/// The longest packet.
const LONGEST: usize = 65_535;
/// How many packets of a device are read before the other one has its turn.
const BURST: usize = 256;

/// A TUN device.
pub struct Device {
    device: SyncDevice,
    name: String,
    /// Is there a header of [`offload`] in front of each packet?
    offloads: bool,
}

impl Device {
    /// Attaches to the TUN device with this name, and makes it when there is none. It is then one of this network
    /// namespace, but stays open when it is moved to another one.
    ///
    /// # Errors
    /// It belongs to somebody else or is in use, or this user may make none.
    pub fn open(name: &str) -> io::Result<Device> {
        Device::open_with(name, false)
    }

    /// As [`Device::open`]; it takes and gives packets whose checksums are left to whoever is next, and several segments in
    /// one, see [`offload`].
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_offloading(name: &str) -> io::Result<Device> {
        Device::open_with(name, true)
    }

    fn open_with(name: &str, offloads: bool) -> io::Result<Device> {
        // Whether it is up is not ours to say: an ordinary user may not, and who moves it says so there.
        let builder = DeviceBuilder::new().name(name).inherit_enable_state().with(|linux| {
            linux.offload(offloads);
        });
        let device = builder.build_sync().map_err(|error| explained(name, &error))?;
        device.set_nonblocking(true)?;
        Ok(Device { device, name: name.to_owned(), offloads })
    }

    /// Its name when it was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes are in front of each packet.
    const fn headroom(&self) -> usize {
        if self.offloads { offload::HEADER } else { 0 }
    }

    /// Reads the next packet, and what is in front of it; how many bytes that were, `None` when there is none now.
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
        self.write_segments(packet, None)
    }

    /// As [`Device::write`], for a packet that may be several segments in one, which only a device takes that offloads.
    fn write_segments(&self, packet: &[u8], gso: Option<Gso>) -> Result<(), &'static str> {
        let header = gso.map_or([0; offload::HEADER], |gso| gso.header());
        let parts = [IoSlice::new(&header), IoSlice::new(packet)];
        loop {
            let sent = if self.offloads { self.device.send_vectored(&parts) } else { self.device.send(packet) };
            return match sent {
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
        TunRouter { router, devices, buffer: vec![0; offload::HEADER + LONGEST], lost: Causes::new() }
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
                router.end_overdue(now, watch, &mut |departure| send(devices, departure, lost));
            }
        }
        for (device, interface) in devices.iter().zip(0..) {
            for _ in 0..BURST {
                let Some(bytes) = device.read(buffer)? else { break };
                packets += 1;
                match arrival(device, bytes, interface) {
                    None => count(lost, "tun.header"),
                    Some(arrival) => router.receive(arrival, clock(), watch, &mut |out| send(devices, out, lost)),
                }
            }
        }
        Ok(packets)
    }
}

/// What was read; `None` when the header in front of it cannot be about it.
fn arrival<'a>(device: &Device, bytes: &'a mut [u8], interface: u16) -> Option<Arrival<'a>> {
    let (header, packet) = bytes.split_at_mut_checked(device.headroom())?;
    match <[u8; offload::HEADER]>::try_from(&*header) {
        Err(_) => Some(Arrival::new(packet, interface)),
        Ok(header) => {
            let offload::Arrived { checksum_trusted, gso } = offload::take_in(header, packet)?;
            Some(Arrival { packet, interface, checksum_trusted, gso })
        }
    }
}

/// Writes a packet; where that fails it is counted.
fn send(devices: &[Device], departure: Departure<'_>, lost: &mut Causes) {
    let Departure { packet, interface, gso } = departure;
    let device = devices.get(usize::from(interface)).ok_or("tun.no_device");
    match (device, gso) {
        (Ok(device), Some(gso)) if !device.offloads => {
            for packet in gso.segments(packet) {
                send(devices, Departure { packet: &packet, interface, gso: None }, lost);
            }
        }
        (device, gso) => {
            if let Err(code) = device.and_then(|device| device.write_segments(packet, gso)) {
                count(lost, code);
            }
        }
    }
}
