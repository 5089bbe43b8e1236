//! Cases from a real `traceroute`: what arrives at the NAT box of the standard lab while one runs.

use std::io;
use std::net::IpAddr;

use ctwhy_fixture::case::CasePacket;
use ctwhy_fixture::linktype::LinkType;
use ctwhy_linux::lab::{Lab, Topology};
use ctwhy_linux::program;
use ctwhy_linux::wire::{Way, Wire};

/// What traceroute sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// UDP to ports from 33434 on.
    Udp,
    /// ICMP echo.
    Icmp,
    /// TCP SYN to port 80.
    Tcp,
}

impl Probe {
    /// All kinds.
    pub const ALL: [Probe; 3] = [Probe::Udp, Probe::Icmp, Probe::Tcp];

    /// The name in the name of a case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Probe::Udp => "udp",
            Probe::Icmp => "icmp",
            Probe::Tcp => "tcp",
        }
    }

    /// What to give `traceroute`; UDP is what it does anyway.
    const fn option(self) -> Option<&'static str> {
        match self {
            Probe::Udp => None,
            Probe::Icmp => Some("-I"),
            Probe::Tcp => Some("-T"),
        }
    }
}

/// Runs `traceroute` from the client of the standard lab to `server` and gives the IP packets that arrive at the NAT box
/// on `lan` and `wan`, in order, without neighbour discovery.
///
/// This process must be able to enter the lab's nodes, as for [`crate::record::record`].
///
/// # Errors
/// The lab cannot be built, or `traceroute` is missing or fails.
pub fn capture(probe: Probe, server: IpAddr) -> io::Result<Vec<CasePacket>> {
    let lab = Lab::create(Topology::traceroute())?;
    let wires: Vec<(&str, Wire)> =
        ["lan", "wan"].into_iter().map(|name| Ok((name, lab.wire("nat", name)?))).collect::<io::Result<_>>()?;
    let family = if server.is_ipv4() { "-4" } else { "-6" };
    // One probe for each hop, one after the other.
    let mut traceroute = lab.command("client", "traceroute")?;
    traceroute.args([family, "-n", "-q", "1", "-N", "1", "-w", "2", "-m", "6"]).args(probe.option());
    program::run(traceroute.arg(server.to_string()), "")?;

    let mut packets = Vec::new();
    for (name, wire) in &wires {
        while let Some(frame) = wire.recv()? {
            if frame.way == Way::In && is_part_of_it(frame.hw_protocol, frame.payload()) {
                packets.push(CasePacket {
                    time_ns: u64::try_from(frame.time.as_nanos()).unwrap_or(u64::MAX),
                    iface: (*name).to_owned(),
                    linktype: LinkType::RAW,
                    bytes: frame.payload().to_vec(),
                });
            }
        }
    }
    packets.sort_by_key(|packet| packet.time_ns);
    Ok(packets)
}

/// Leaves out ARP, multicast and neighbour discovery, which only the lab's own cables are in need of.
fn is_part_of_it(hw_protocol: u16, packet: &[u8]) -> bool {
    const ICMPV6: u8 = 58;
    match hw_protocol {
        0x0800 => true,
        0x86dd => {
            let discovery = packet.get(6) == Some(&ICMPV6) && packet.get(40).is_some_and(|t| (133..=137).contains(t));
            !discovery && packet.get(24) != Some(&0xff)
        }
        _ => false,
    }
}
