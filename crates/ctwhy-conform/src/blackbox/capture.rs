//! The packets of a verdict as a file for Wireshark.

use std::io::Write;

use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{Packet, PcapngWriter, WriteError};

use super::nat::Side;
use super::run::Verdict;

/// Some moment, so that the same packets give the same file but for the time between them.
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

/// Writes what went by while something was asked: a pcapng with an interface for each side and a comment on each packet that
/// means something. The first comment says what was asked and what came of it.
///
/// # Errors
/// When writing fails.
pub fn write(verdict: &Verdict, out: impl Write) -> Result<(), WriteError> {
    let mut writer = PcapngWriter::new(out, "ctwhy conform nat")?;
    for side in Side::BOTH {
        writer.add_interface(Some(&side.to_string()), LinkType::RAW, None)?;
    }
    let asked = format!("asked ({}): {}", verdict.name(), verdict.requirement.text);
    let came = verdict.outcome.sentence().map(|sentence| format!("{}: {sentence}", verdict.outcome.name()));
    let start = verdict.packets.first().map(|logged| logged.at).unwrap_or_default();
    for (at, logged) in verdict.packets.iter().enumerate() {
        let since = logged.at.saturating_sub(start);
        let packet = Packet {
            interface: logged.side.index() as u32,
            time_ns: EPOCH_NS.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
            original_len: u32::try_from(logged.packet.len()).unwrap_or(u32::MAX),
            bytes: &logged.packet,
        };
        let about = [Some(asked.as_str()), came.as_deref()].into_iter().flatten().filter(|_| at == 0);
        let own = Some(logged.comment.as_str()).filter(|comment| !comment.is_empty());
        writer.packet(packet, about.chain(own))?;
    }
    writer.finish().map(drop)
}
