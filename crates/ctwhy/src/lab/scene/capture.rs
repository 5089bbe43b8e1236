//! Both sides of a NAT, captured while the story goes on.

use std::io::{self, PipeWriter};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::thread::JoinHandle;

use ctwhy_core::packet::{Packet, be16, be32};
use ctwhy_core::related::announced_mtu;
use ctwhy_core::tuple::{L3, Tuple, proto};
use ctwhy_fixture::link::{self, Stripped};
use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{self, PcapngWriter};
use ctwhy_linux::signal::wait_readable;
use ctwhy_linux::wire::{Frame, Wire};

use super::ground::Ground;
use crate::report::view::View;

/// Keeps what two interfaces see, in a thread of its own, until it is told to stop.
pub(super) struct Recorder {
    thread: JoinHandle<io::Result<Captures>>,
    stop: PipeWriter,
}

/// What was captured of both sides.
pub(super) struct Captures {
    pub(super) inside: Capture,
    pub(super) outside: Capture,
}

/// What was captured on an interface.
pub(super) struct Capture {
    /// Name of a file of it.
    pub(super) name: String,
    wire: Wire,
    linktype: LinkType,
    frames: Vec<Frame>,
}

impl Recorder {
    /// Captures both sides of the ground from here on.
    pub(super) fn start(ground: &Ground<'_>) -> io::Result<Recorder> {
        let capture = |side: &str, (node, interface)| -> io::Result<Capture> {
            let wire = ground.lab.wire(node, interface)?;
            // A TUN device has no Ethernet header.
            let linktype = if wire.hardware_address() == [0; 6] { LinkType::RAW } else { LinkType::ETHERNET };
            Ok(Capture { name: format!("{}-{side}.pcapng", ground.name), wire, linktype, frames: Vec::new() })
        };
        let mut both =
            Captures { inside: capture("inside", ground.inside)?, outside: capture("outside", ground.outside)? };
        let (stopped, stop) = io::pipe()?;
        let work = move || loop {
            let ready = wait_readable(&[both.inside.wire.as_fd(), both.outside.wire.as_fd(), stopped.as_fd()], None)?;
            both.inside.take()?;
            both.outside.take()?;
            if ready.last() == Some(&true) {
                return Ok(both);
            }
        };
        let thread = std::thread::Builder::new().name("captures".to_owned()).spawn(work)?;
        Ok(Recorder { thread, stop })
    }

    /// All that was captured. Where they are to be kept they are written.
    pub(super) fn stop(self, keep: Option<&std::path::Path>) -> io::Result<Captures> {
        // Its other end becomes readable.
        drop(self.stop);
        let both = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if let Some(folder) = keep {
            for capture in [&both.inside, &both.outside] {
                let path = folder.join(&capture.name);
                std::fs::write(&path, capture.pcapng()?)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            }
        }
        Ok(both)
    }
}

impl Capture {
    fn take(&mut self) -> io::Result<()> {
        while let Some(frame) = self.wire.recv()? {
            self.frames.push(frame);
        }
        Ok(())
    }

    /// As a file.
    pub(super) fn pcapng(&self) -> io::Result<Vec<u8>> {
        let mut writer = PcapngWriter::new(Vec::new(), "ctwhy lab").map_err(io::Error::other)?;
        writer.add_interface(None, self.linktype, None).map_err(io::Error::other)?;
        for Frame { time, bytes, .. } in &self.frames {
            let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let original_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let packet = write::Packet { interface: 0, time_ns, original_len, bytes };
            writer.packet(packet, []).map_err(io::Error::other)?;
        }
        writer.finish().map_err(io::Error::other)
    }

    /// The packets whose transport header can be read, in their order.
    pub(super) fn packets(&self) -> Vec<Seen> {
        let seen = self.frames.iter().filter_map(|frame| match link::strip(self.linktype, &frame.bytes) {
            Ok(Stripped::Ip(link)) => Seen::of(frame.bytes.get(link.ip_offset..)?),
            _ => None,
        });
        seen.collect()
    }
}

/// A packet, as far as the story is about it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    bytes: Vec<u8>,
    pub(super) tuple: Tuple,
    /// Of the packet that an error quotes.
    pub(super) quoted: Option<Tuple>,
    pub(super) ttl: u8,
    l4: usize,
}

/// TCP flags.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

impl Seen {
    fn of(bytes: &[u8]) -> Option<Seen> {
        let packet = Packet::parse(bytes, bytes.len()).ok()?;
        let view = View::new(bytes, bytes.len())?;
        let mut tuples = view.tuples();
        let (tuple, quoted) = (tuples.next()?, tuples.next());
        let l4 = packet.transport.ok()?.offset;
        Some(Seen { bytes: packet.bytes.to_vec(), tuple, quoted, ttl: packet.ttl, l4 })
    }

    pub(super) fn family(&self) -> L3 {
        self.tuple.l3num
    }

    /// Of the IP packet, in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What tells packets of one sender apart: the identification, and in IPv6, which has none, the flow label.
    pub(super) fn mark(&self) -> u32 {
        match self.family() {
            L3::V4 => be16(&self.bytes, 4).unwrap_or(0).into(),
            L3::V6 => be32(&self.bytes, 0).unwrap_or(0) & 0x000f_ffff,
        }
    }

    /// Source port, or echo id.
    pub(super) fn port(&self) -> u16 {
        self.tuple.src_u
    }

    fn l4(&self) -> &[u8] {
        self.bytes.get(self.l4..).unwrap_or_default()
    }

    fn icmp(&self, v4: u8, v6: u8) -> bool {
        let icmp_type = match self.family() {
            L3::V4 => (proto::ICMP, v4),
            L3::V6 => (proto::ICMPV6, v6),
        };
        self.tuple.is_icmp() && (self.tuple.protonum, self.tuple.icmp_type()) == icmp_type
    }

    pub(super) fn is_udp_to(&self, host: IpAddr) -> bool {
        self.tuple.protonum == proto::UDP && self.tuple.dst_ip() == host
    }

    pub(super) fn is_echo_to(&self, host: IpAddr) -> bool {
        self.icmp(8, 128) && self.tuple.dst_ip() == host
    }

    pub(super) fn is_syn_to(&self, host: IpAddr) -> bool {
        self.flags() & (SYN | ACK) == SYN && self.tuple.dst_ip() == host
    }

    pub(super) fn is_syn_ack_from(&self, host: IpAddr) -> bool {
        self.flags() & (SYN | ACK) == SYN | ACK && self.tuple.src_ip() == host
    }

    fn flags(&self) -> u8 {
        let flags = if self.tuple.protonum == proto::TCP { self.l4().get(13) } else { None };
        flags.copied().unwrap_or(0)
    }

    pub(super) fn is_time_exceeded(&self) -> bool {
        self.icmp(11, 3)
    }

    /// An error of any kind.
    pub(super) fn is_error(&self) -> bool {
        self.quoted.is_some()
    }

    /// The MTU of a fragmentation needed or packet too big.
    pub(super) fn announced_mtu(&self) -> Option<u32> {
        announced_mtu(&Packet::parse(&self.bytes, self.bytes.len()).ok()?)
    }

    /// The MSS of a SYN.
    pub(super) fn mss(&self) -> Option<u16> {
        let mut options = self.l4().get(20..usize::from(self.l4().get(12)? >> 4) * 4)?;
        loop {
            match options {
                [1, rest @ ..] => options = rest,
                [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
                [_, length, ..] if *length > 1 => options = options.get(usize::from(*length)..)?,
                _ => return None,
            }
        }
    }

    /// Sequence number of a segment that carries something to a host.
    pub(super) fn segment_to(&self, host: IpAddr) -> Option<u32> {
        let l4 = self.l4();
        let header = usize::from(l4.get(12).filter(|_| self.tuple.protonum == proto::TCP)? >> 4) * 4;
        be32(l4, 4).filter(|_| self.tuple.dst_ip() == host && l4.len() > header)
    }

    /// What both sides have in common where addresses, ports and ids may be others: protocol, destination and its port, or
    /// the sequence number of an echo, and what it carries. A SYN carries nothing.
    pub(super) fn key(&self) -> (u8, IpAddr, u16, &[u8]) {
        let l4 = self.l4();
        let (which, header) = match self.tuple.protonum {
            proto::TCP => (self.tuple.dst_u, l4.len()),
            proto::UDP => (self.tuple.dst_u, 8),
            _ => (be16(l4, 6).unwrap_or(0), 8),
        };
        (self.tuple.protonum, self.tuple.dst_ip(), which, l4.get(header..).unwrap_or_default())
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match View::new(&self.bytes, self.bytes.len()) {
            Some(view) => view.fmt(f),
            None => f.write_str("unreadable"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN from 10.0.0.2:5000 to 192.0.2.1:80 with an identification of 7 and these options.
    fn syn(options: &[u8]) -> Seen {
        let length = u8::try_from(40 + options.len()).unwrap();
        let mut bytes = vec![0x45, 0, 0, length, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1];
        let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        bytes[10..12].copy_from_slice(&(!sum).to_be_bytes());
        let words = u8::try_from(5 + options.len() / 4).unwrap();
        bytes.extend([0x13, 0x88, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, words << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(options);
        Seen::of(&bytes).unwrap()
    }

    #[test]
    fn a_syn_is_read() {
        let server = IpAddr::from([192, 0, 2, 1]);
        let seen = syn(&[1, 1, 1, 1]);
        assert!(seen.is_syn_to(server) && !seen.is_syn_ack_from(server) && !seen.is_error());
        assert_eq!((seen.mark(), seen.port(), seen.ttl, seen.len()), (7, 5000, 64, 44));
        assert_eq!((seen.mss(), seen.segment_to(server), seen.announced_mtu()), (None, None, None));
        assert_eq!(seen.key(), (6, server, 80, &[][..]));
        assert_eq!(seen.to_string(), "tcp 10.0.0.2:5000 > 192.0.2.1:80 SYN seq 9");
    }

    #[test]
    fn an_mss_is_found_among_options_and_none_in_broken_ones() {
        assert_eq!(syn(&[2, 4, 5, 0xb4]).mss(), Some(1460));
        assert_eq!(syn(&[1, 3, 3, 7, 2, 4, 4, 0xd8]).mss(), Some(1240));
        for broken in [[2, 0, 0, 0], [8, 200, 0, 0], [1, 1, 1, 2], [2, 1, 2, 4]] {
            assert_eq!(syn(&broken).mss(), None, "{broken:?}");
        }
    }
}
