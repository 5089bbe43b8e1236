//! A router on TUN devices: packets are read until there are no more, decided about, and written.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use ctwhy_core::time::Time;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::join::Joiner;
use crate::offload::{self, Gso};
use crate::router::{Arrival, Departure, Router, Watch};
use crate::statistics::{Causes, count};

/// The longest packet.
const LONGEST: usize = 65_535;
/// How many packets of a device are read before what they cause leaves, and the other one has its turn.
const BURST: usize = 64;

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
        self.write_by(|device| if self.offloads { device.send_vectored(&parts) } else { device.send(packet) })
    }

    /// Writes a packet with its header in front, to a device that offloads.
    fn write_with_header(&self, bytes: &[u8]) -> Result<(), &'static str> {
        self.write_by(|device| device.send(bytes))
    }

    fn write_by(&self, send: impl Fn(&SyncDevice) -> io::Result<usize>) -> Result<(), &'static str> {
        loop {
            return match send(&self.device) {
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
    /// What is about to leave by each of them.
    joiners: Vec<Joiner>,
    buffer: Vec<u8>,
    lost: Causes,
}

impl TunRouter {
    /// A router on these devices: the first is interface 0 of its network, and so on.
    #[must_use]
    pub fn new(router: Router, devices: Vec<Device>) -> TunRouter {
        let joiners = devices.iter().map(|device| Joiner::new(device.device.udp_gso())).collect();
        TunRouter { router, devices, joiners, buffer: vec![0; offload::HEADER + LONGEST], lost: Causes::new() }
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

    /// Forwards what is there now, some of each device, and does what was due; says whether there may be more.
    ///
    /// # Errors
    /// A device is gone.
    pub fn round<W: Watch>(&mut self, mut clock: impl FnMut() -> Time, watch: &mut W) -> io::Result<bool> {
        let TunRouter { router, devices, joiners, buffer, lost } = self;
        let mut more = false;
        if let Some(deadline) = router.deadline() {
            let now = clock();
            if deadline <= now {
                router.end_overdue(now, watch, &mut |departure| send(devices, joiners, departure, lost));
                flush(devices, joiners, lost);
            }
        }
        for (device, interface) in devices.iter().zip(0..) {
            let mut left = BURST;
            while let Some(bytes) = if left > 0 { device.read(buffer)? } else { None } {
                left -= 1;
                match arrival(device, bytes, interface) {
                    None => count(lost, "tun.header"),
                    Some(arrival) => {
                        router.receive(arrival, clock(), watch, &mut |out| send(devices, joiners, out, lost));
                    }
                }
            }
            flush(devices, joiners, lost);
            more |= left == 0;
        }
        Ok(more)
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

/// Has a packet leave; where that fails it is counted.
fn send(devices: &[Device], joiners: &mut [Joiner], departure: Departure<'_>, lost: &mut Causes) {
    let Departure { packet, interface, gso, may_join } = departure;
    let at = usize::from(interface);
    let Some((device, joiner)) = devices.get(at).zip(joiners.get_mut(at)) else {
        return count(lost, "tun.no_device");
    };
    match gso.filter(|_| !device.offloads) {
        Some(gso) => {
            for packet in gso.segments(packet) {
                device.write(&packet).unwrap_or_else(|code| count(lost, code));
            }
        }
        None if device.offloads && joiner.take(packet, may_join, &mut write(device, lost)) => {}
        None => device.write_segments(packet, gso).unwrap_or_else(|code| count(lost, code)),
    }
}

/// What was to leave together leaves.
fn flush(devices: &[Device], joiners: &mut [Joiner], lost: &mut Causes) {
    for (device, joiner) in devices.iter().zip(joiners) {
        joiner.flush(&mut write(device, lost));
    }
}

/// Writes packets with their headers; where that fails it is counted.
fn write<'a>(device: &'a Device, lost: &'a mut Causes) -> impl FnMut(&[u8]) + use<'a> {
    |bytes| device.write_with_header(bytes).unwrap_or_else(|code| count(lost, code))
}
