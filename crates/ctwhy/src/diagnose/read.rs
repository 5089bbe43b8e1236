//! The captures, as far as packets of the two sides.

use std::io::Read;
use std::path::Path;

use ctwhy_diagnose::{Diagnosis, Observed, Side};
use ctwhy_fixture::capture::{Capture, CapturedPacket, Interface};
use ctwhy_fixture::link::{self, LinkError, Stripped};

use crate::failure::Failure;

/// What to read.
pub(super) enum Source<'a> {
    /// All of a file is one side.
    Whole { file: &'a Path, side: Side },
    /// Interfaces of a file are the sides.
    Interfaces { file: &'a Path, sides: Vec<(Side, &'a str)> },
}

/// What was read of a side.
#[derive(Debug, Default)]
pub(super) struct SideRead {
    /// What its packets come from, for people.
    pub(super) name: String,
    pub(super) packets: u64,
    pub(super) not_ip: u64,
    pub(super) damaged: u64,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) inside: SideRead,
    pub(super) outside: SideRead,
    /// Why a capture was not read to its end.
    pub(super) failure: Option<Failure>,
}

impl Source<'_> {
    const fn file(&self) -> &Path {
        match self {
            Source::Whole { file, .. } | Source::Interfaces { file, .. } => file,
        }
    }

    /// The side that a packet is of.
    fn side(&self, packet: &CapturedPacket<'_>) -> Option<Side> {
        match self {
            Source::Whole { side, .. } => Some(*side),
            Source::Interfaces { sides, .. } => {
                let is = |(_, wanted): &&(Side, &str)| names(wanted, packet.interface as usize, packet.interfaces());
                sides.iter().find(is).map(|(side, _)| *side)
            }
        }
    }
}

/// Is this the interface that the user named? A name comes before a number.
fn names(wanted: &str, index: usize, interfaces: &[Interface]) -> bool {
    let named = |interface: &Interface| interface.name.as_deref() == Some(wanted);
    match interfaces.iter().any(named) {
        true => interfaces.get(index).is_some_and(named),
        false => wanted.parse() == Ok(index),
    }
}

impl Reading {
    pub(super) fn side(&mut self, side: Side) -> &mut SideRead {
        match side {
            Side::Inside => &mut self.inside,
            Side::Outside => &mut self.outside,
        }
    }

    /// Reads a source to its end, or to where it is damaged.
    pub(super) fn read(&mut self, source: &Source<'_>, diagnosis: &mut Diagnosis) -> Result<(), Failure> {
        let mut capture = Capture::open(source.file())?;
        let Source::Interfaces { sides, file } = source else { return self.packets(&mut capture, source, diagnosis) };
        for (side, interface) in sides {
            self.side(*side).name = format!("{}, interface {interface}", file.display());
        }
        self.packets(&mut capture, source, diagnosis)?;
        sides.iter().try_for_each(|(_, wanted)| known(wanted, capture.interfaces(), file))
    }

    /// Reads an opened capture of a source.
    pub(super) fn packets<R: Read>(
        &mut self,
        capture: &mut Capture<R>,
        source: &Source<'_>,
        diagnosis: &mut Diagnosis,
    ) -> Result<(), Failure> {
        if let Source::Whole { file, side } = source {
            self.side(*side).name = file.display().to_string();
        }
        while let Some(next) = capture.next() {
            match next {
                Ok(packet) => {
                    if let Some(side) = source.side(&packet) {
                        self.packet(side, &packet, diagnosis)?;
                    }
                }
                Err(error) if error.is_recoverable() => {
                    if let Source::Whole { side, .. } = source {
                        self.side(*side).damaged += 1;
                    }
                }
                Err(error) => self.failure = Some(error.into()),
            }
        }
        Ok(())
    }

    fn packet(&mut self, side: Side, packet: &CapturedPacket<'_>, diagnosis: &mut Diagnosis) -> Result<(), Failure> {
        let read = self.side(side);
        read.packets += 1;
        match link::strip(packet.linktype, packet.bytes) {
            Ok(Stripped::Ip(link)) => {
                let bytes = packet.bytes.get(link.ip_offset..).unwrap_or(&[]);
                let wire_len = (packet.original_len as usize).saturating_sub(link.ip_offset);
                diagnosis.observe(side, &Observed { number: packet.number, time_ns: packet.time_ns, bytes, wire_len });
            }
            // Neighbours that look for each other are in every capture.
            Ok(Stripped::NotIp(_)) => {}
            Err(error @ LinkError::UnknownLinkType(_)) => {
                return Err(Failure::usage(format!("{}: {error}", read.name)));
            }
            Err(_) => read.not_ip += 1,
        }
        Ok(())
    }
}

/// # Errors
/// The file has no interface of this name or number.
fn known(wanted: &str, interfaces: &[Interface], file: &Path) -> Result<(), Failure> {
    if (0..interfaces.len()).any(|index| names(wanted, index, interfaces)) {
        return Ok(());
    }
    let all = interfaces.iter().zip(0..).map(|(interface, number)| match &interface.name {
        Some(name) => format!("{number} {name}"),
        None => format!("{number} (without a name)"),
    });
    let all: Vec<String> = all.collect();
    let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    Err(Failure::usage(format!("{}: there is no interface {wanted}; it has {all}", file.display())))
}
