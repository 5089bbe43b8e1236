//! The real binary, and captures made for it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // Each test file uses a part; a test that cannot go on fails.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ctwhy_core::checksum::Sum;
use ctwhy_core::tuple::{Addr, L3};
use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{Packet, PcapngWriter};

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// `ctwhy explain ARGS` with `stdin` as its input.
pub(crate) fn explain_with(args: &[&str], stdin: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ctwhy"))
        .arg("explain")
        .args(args)
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A run that ends on a usage error reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `ctwhy explain ARGS` without input.
pub(crate) fn explain(args: &[&str]) -> Ran {
    explain_with(args, &[])
}

impl Ran {
    /// Standard output of a run that went well and had nothing to say beside.
    pub(crate) fn well(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// The lines of packets in standard output.
    pub(crate) fn lines(&self) -> Vec<&str> {
        let of_packet = |line: &&str| {
            let mut words = line.split_whitespace();
            let number = words.next().is_some_and(|word| word.parse::<u64>().is_ok());
            number && words.next().is_some_and(|word| word.contains('.') && word.parse::<f64>().is_ok())
        };
        self.out.lines().filter(of_packet).collect()
    }

    /// A run that ends with code 2 and one line on standard error.
    pub(crate) fn fails(&self, line: &str) {
        assert_eq!((self.code, self.err.trim_end_matches('\n')), (Some(2), line), "{}", self.out);
    }
}

/// The folder of a recorded case.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// A folder of a test's own, empty at its start.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("explain").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a file and gives its path as text.
pub(crate) fn file(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// An IPv4 packet around a transport part, of which `checksum_at` is the offset of the checksum.
pub(crate) fn ipv4(src: &str, dst: &str, protonum: u8, mut l4: Vec<u8>, checksum_at: Option<usize>) -> Vec<u8> {
    let [src, dst] = [src, dst].map(|text| text.parse::<Ipv4Addr>().unwrap());
    if let Some(at) = checksum_at {
        let [from, to] = [src, dst].map(|address| Addr::from(std::net::IpAddr::V4(address)));
        let sum = Sum::default().pseudo_header(L3::V4, from, to, protonum, l4.len()).bytes(&l4).checksum();
        l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let length = u16::try_from(20 + l4.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protonum, 0, 0];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let sum = Sum::default().bytes(&packet).checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(l4);
    packet
}

/// `10.0.0.1:40000`.
fn endpoint(text: &str) -> (&str, u16) {
    let (address, port) = text.split_once(':').unwrap();
    (address, port.parse().unwrap())
}

/// A UDP packet with `bytes` bytes of payload.
pub(crate) fn udp(from: &str, to: &str, bytes: usize) -> Vec<u8> {
    let ((src, sport), (dst, dport)) = (endpoint(from), endpoint(to));
    let length = u16::try_from(8 + bytes).unwrap();
    let mut l4: Vec<u8> = [sport, dport, length, 0].iter().flat_map(|field| field.to_be_bytes()).collect();
    l4.resize(8 + bytes, 0x61);
    ipv4(src, dst, UDP, l4, Some(6))
}

/// A UDP packet with a wrong checksum.
pub(crate) fn wrong_udp(from: &str, to: &str) -> Vec<u8> {
    let mut packet = udp(from, to, 4);
    packet[26] ^= 0xff;
    packet
}

/// The packet with another TTL.
pub(crate) fn with_ttl(mut packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    packet[8] = ttl;
    packet[10..12].fill(0);
    let sum = Sum::default().bytes(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Time exceeded from `src` to `dst`, quoting a packet.
pub(crate) fn time_exceeded(src: &str, dst: &str, quoted: &[u8]) -> Vec<u8> {
    let mut l4 = vec![11, 0, 0, 0, 0, 0, 0, 0];
    l4.extend(quoted);
    let sum = Sum::default().bytes(&l4).checksum();
    l4[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(src, dst, 1, l4, None)
}

/// Packets and when they arrive, in milliseconds.
pub(crate) type Timed = (u64, Vec<u8>);

/// A pcapng of raw IP packets on one interface.
pub(crate) fn pcapng(interface: Option<&str>, packets: &[Timed]) -> Vec<u8> {
    let mut writer = PcapngWriter::new(Vec::new(), "test").unwrap();
    writer.add_interface(interface, LinkType::RAW, None).unwrap();
    for (milliseconds, bytes) in packets {
        let original_len = u32::try_from(bytes.len()).unwrap();
        let time_ns = 1_700_000_000_000_000_000 + milliseconds * 1_000_000;
        writer.packet(Packet { interface: 0, time_ns, original_len, bytes }, []).unwrap();
    }
    writer.finish().unwrap()
}

/// A pcap with microseconds; packets are cut at `snaplen`.
pub(crate) fn pcap(linktype: LinkType, snaplen: usize, packets: &[Timed]) -> Vec<u8> {
    let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(u32::try_from(snaplen).unwrap().to_le_bytes());
    bytes.extend(linktype.0.to_le_bytes());
    for (milliseconds, packet) in packets {
        let kept = &packet[..packet.len().min(snaplen)];
        let [secs, micros] = [1_700_000_000 + milliseconds / 1000, milliseconds % 1000 * 1000];
        for field in [secs, micros, kept.len() as u64, packet.len() as u64] {
            bytes.extend(u32::try_from(field).unwrap().to_le_bytes());
        }
        bytes.extend(kept);
    }
    bytes
}
