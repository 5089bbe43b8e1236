//! The capture that is part of the program: a traceroute through a masquerading kernel.

use std::path::Path;

use ctwhy_core::hook::Engine;
use ctwhy_fixture::capture::Capture;
use ctwhy_fixture::case::Spec;

use crate::failure::Failure;

const PACKETS: &[u8] = include_bytes!("../../../../fixtures/traceroute-udp-v4-masquerade/packets.pcapng");
const SPEC: &str = include_str!("../../../../fixtures/traceroute-udp-v4-masquerade/case.toml");

/// The host of the case, its packets, and a sentence about them.
pub(super) fn open() -> Result<(Engine, Capture<&'static [u8]>, String), Failure> {
    let spec = Spec::parse(SPEC, Path::new("case.toml")).map_err(|error| Failure::usage(error.to_string()))?;
    let engine = ctwhy_conform::replay::engine(&spec).map_err(|error| Failure::usage(error.to_string()))?;
    let capture = Capture::new(PACKETS, "the embedded capture")?;
    let about = format!("The capture inside ctwhy, recorded from a kernel. {}: {}", spec.title, spec.shows.trim());
    Ok((engine, capture, about))
}
