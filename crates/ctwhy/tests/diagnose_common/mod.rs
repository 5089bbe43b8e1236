//! The real binary on captures of both sides.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Each test file uses a part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{Packet, PcapngWriter};
use serde_json::Value;

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// `ctwhy diagnose ARGS`.
pub(crate) fn diagnose(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctwhy"));
    let output = command.arg("diagnose").args(args).env_remove("NO_COLOR").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A folder of a test's own, empty at its start.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("diagnose").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Packets from their IP header on, and when they were seen, in nanoseconds since the epoch.
pub(crate) type Packets = [(u64, Vec<u8>)];

/// Writes a pcapng whose interfaces are these, each with its name and its packets; the name of the file.
pub(crate) fn write(folder: &Path, name: &str, interfaces: &[(Option<&str>, &Packets)]) -> String {
    let path = folder.join(name);
    let mut writer = PcapngWriter::new(Vec::new(), "test").unwrap();
    for (name, _) in interfaces {
        writer.add_interface(*name, LinkType::RAW, None).unwrap();
    }
    let mut packets: Vec<(u64, u32, &[u8])> = Vec::new();
    for ((_, own), interface) in interfaces.iter().zip(0..) {
        packets.extend(own.iter().map(|(time, bytes)| (*time, interface, bytes.as_slice())));
    }
    packets.sort();
    for (time_ns, interface, bytes) in packets {
        let original_len = u32::try_from(bytes.len()).unwrap();
        writer.packet(Packet { interface, time_ns, original_len, bytes }, []).unwrap();
    }
    fs::write(&path, writer.finish().unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A file for each side.
pub(crate) fn two_files(folder: &Path, inside: &Packets, outside: &Packets) -> [String; 2] {
    [("inside.pcapng", inside), ("outside.pcapng", outside)].map(|(name, all)| write(folder, name, &[(None, all)]))
}

/// The kinds of the NATs of a family.
pub(crate) fn kind<'a>(report: &'a Value, family: &str) -> Vec<&'a str> {
    let nats = report["nats"].as_array().unwrap();
    nats.iter().filter(|nat| nat["family"] == family).map(|nat| nat["kind"].as_str().unwrap()).collect()
}

/// What is said of a protocol by the first NAT of a family.
pub(crate) fn proto<'a>(report: &'a Value, family: &str, protocol: &str) -> &'a Value {
    let nats = report["nats"].as_array().unwrap();
    let nat = nats.iter().find(|nat| nat["family"] == family).unwrap_or(&Value::Null);
    let found = nat["protocols"].as_array().and_then(|all| all.iter().find(|found| found["proto"] == protocol));
    found.unwrap_or(&Value::Null)
}
