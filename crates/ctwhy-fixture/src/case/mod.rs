//! A case: a folder with what goes into a box (`packets.pcapng`), what the box is (`case.toml`), and what each kernel
//! made of it (`kernel-<release>.jsonl`). It opens in Wireshark, and anyone can use it without this code.

mod bytes;
mod compare;
mod error;
mod events;
mod expectations;
mod outcome;
mod prefix;
mod recording;
mod spec;
mod table;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

pub use bytes::{Bytes, BytesError};
pub use compare::{Difference, Emission, Tolerance, compare};
pub use error::{CaseError, Problem};
pub use outcome::{CtInfo, Emitted, Generated, Hook, Outcome, PacketOutcome, UnknownCtInfo};
pub use prefix::{Prefix, PrefixError};
pub use recording::{Fact, Recording};
pub use spec::{BoxInterface, DecisionId, Hold, Route, Spec};

use crate::capture::Capture;
use crate::linktype::LinkType;
use crate::write::{Packet, PcapngWriter, WriteError};

const SPEC: &str = "case.toml";
const PACKETS: &str = "packets.pcapng";

/// A case, read from its folder or to be written into one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// What `case.toml` says.
    pub spec: Spec,
    /// The packets that go into the box, in order.
    pub packets: Vec<CasePacket>,
    /// What kernels decided, by release.
    pub recordings: BTreeMap<String, Recording>,
}

/// A packet that goes into the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CasePacket {
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// The interface that it arrives on.
    pub iface: String,
    /// [`LinkType::RAW`] or [`LinkType::ETHERNET`].
    pub linktype: LinkType,
    /// The bytes from the link layer on.
    pub bytes: Vec<u8>,
}

impl Case {
    /// The folders at or below `root` that hold a case, sorted by name.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn find(root: &Path) -> Result<Vec<PathBuf>, CaseError> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let fail = |e| CaseError::new(&folder, Problem::Read(e));
            for entry in fs::read_dir(&folder).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                // The type is that of a symbolic link itself, so links make no circles.
                if entry.file_type().map_err(fail)?.is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name() == SPEC {
                    found.push(folder.clone());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Reads the case in a folder.
    ///
    /// # Errors
    /// When a file is missing or wrong, or the files do not fit each other.
    pub fn read(folder: &Path) -> Result<Case, CaseError> {
        let file = folder.join(SPEC);
        let text = fs::read_to_string(&file).map_err(|e| CaseError::new(&file, Problem::Read(e)))?;
        let spec = Spec::parse(&text, &file)?;
        let packets = read_packets(&folder.join(PACKETS), &spec)?;
        if let Some(hold) = spec.holds.iter().find(|hold| hold.until > packets.len() as u64) {
            return Err(CaseError::new(&file, Problem::HeldTooLong { until: hold.until, packets: packets.len() }));
        }
        let mut recordings = BTreeMap::new();
        for (release, file) in recording_files(folder)? {
            let input = File::open(&file).map_err(|e| CaseError::new(&file, Problem::Read(e)))?;
            let recording = Recording::read(BufReader::new(input), &file)?;
            if recording.release != release {
                return Err(CaseError::at_line(&file, 1, Problem::Release { header: recording.release }));
            }
            let recorded = recording.outcome.packets.len();
            if recorded != packets.len() {
                let problem = Problem::PacketCount { recorded, packets: packets.len() };
                return Err(CaseError::new(&file, problem));
            }
            recordings.insert(release, recording);
        }
        Ok(Case { spec, packets, recordings })
    }

    /// Writes the case into a folder, which is made when it is not there. Equal cases give the same bytes; files of
    /// other recordings that are there already stay.
    ///
    /// # Errors
    /// When a file cannot be written, or a packet is none that [`Case::read`] would take.
    pub fn write(&self, folder: &Path) -> Result<(), CaseError> {
        fs::create_dir_all(folder).map_err(|e| CaseError::new(folder, Problem::Write(e)))?;
        let file = folder.join(SPEC);
        let text = self.spec.to_toml().map_err(|message| CaseError::new(&file, Problem::Syntax(message)))?;
        fs::write(&file, text).map_err(|e| CaseError::new(&file, Problem::Write(e)))?;
        self.write_packets(&folder.join(PACKETS))?;
        for recording in self.recordings.values() {
            Case::write_recording(folder, recording)?;
        }
        Ok(())
    }

    /// Writes one recording into the folder of its case.
    ///
    /// # Errors
    /// When it cannot be written or its release makes no file name.
    pub fn write_recording(folder: &Path, recording: &Recording) -> Result<(), CaseError> {
        let release = &recording.release;
        if release.is_empty() || release.contains(['/', '\0']) {
            return Err(CaseError::new(folder, Problem::ReleaseName(release.clone())));
        }
        let file = folder.join(format!("kernel-{release}.jsonl"));
        let fail = |e| CaseError::new(&file, Problem::Write(e));
        let mut out = BufWriter::new(File::create(&file).map_err(fail)?);
        recording.write(&mut out).and_then(|()| out.flush()).map_err(fail)
    }

    fn write_packets(&self, file: &Path) -> Result<(), CaseError> {
        let fail = |e| CaseError::new(file, Problem::Packets(e));
        let out = File::create(file).map_err(|e| CaseError::new(file, Problem::Write(e)))?;
        let mut writer = PcapngWriter::new(BufWriter::new(out), "ctwhy").map_err(fail)?;
        let mut interfaces: Vec<(&str, LinkType, u32)> = Vec::new();
        for (number, packet) in (1..).zip(&self.packets) {
            check(&self.spec, number, &packet.iface, packet.linktype).map_err(|p| CaseError::new(file, p))?;
            let (iface, linktype) = (packet.iface.as_str(), packet.linktype);
            let known = interfaces.iter().find(|known| known.0 == iface && known.1 == linktype);
            let interface = match known {
                Some(known) => known.2,
                None => {
                    let index = writer.add_interface(Some(iface), linktype, None).map_err(fail)?;
                    interfaces.push((iface, linktype, index));
                    index
                }
            };
            let length = packet.bytes.len();
            let original_len = u32::try_from(length).map_err(|_| fail(WriteError::TooLong { length }))?;
            let packet = Packet { interface, time_ns: packet.time_ns, original_len, bytes: &packet.bytes };
            writer.packet(packet, []).map_err(fail)?;
        }
        writer.finish().map(drop).map_err(fail)
    }
}

/// Whether a case takes such a packet.
fn check(spec: &Spec, packet: u64, iface: &str, linktype: LinkType) -> Result<(), Problem> {
    if !matches!(linktype, LinkType::RAW | LinkType::ETHERNET) {
        return Err(Problem::LinkType { packet, linktype });
    }
    if !spec.has_interface(iface) {
        return Err(Problem::UnknownInterface(iface.to_owned()));
    }
    Ok(())
}

fn read_packets(file: &Path, spec: &Spec) -> Result<Vec<CasePacket>, CaseError> {
    let capture_error = |e| CaseError::new(file, Problem::Capture(e));
    let mut capture = Capture::open(file).map_err(capture_error)?;
    let mut packets = Vec::new();
    while let Some(packet) = capture.next() {
        let packet = packet.map_err(capture_error)?;
        let fail = |problem| CaseError::new(file, problem);
        if packet.bytes.len() < packet.original_len as usize {
            return Err(fail(Problem::PacketCut { packet: packet.number }));
        }
        let iface = packet.iface().ok_or_else(|| fail(Problem::UnnamedInterface { packet: packet.number }))?;
        check(spec, packet.number, iface, packet.linktype).map_err(fail)?;
        packets.push(CasePacket {
            time_ns: packet.time_ns,
            iface: iface.to_owned(),
            linktype: packet.linktype,
            bytes: packet.bytes.to_vec(),
        });
    }
    Ok(packets)
}

/// The recordings of a folder: release and file.
fn recording_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, CaseError> {
    let fail = |e| CaseError::new(folder, Problem::Read(e));
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let release = name.strip_prefix("kernel-").and_then(|n| n.strip_suffix(".jsonl"));
        if let Some(release) = release.map(str::to_owned) {
            files.insert(release, path);
        }
    }
    Ok(files)
}
