//! `ctwhy explain --json` on every recorded capture says what the kernel said, of every packet.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod explain_common;

use ctwhy_fixture::case::Case;
use explain_common::*;
use serde_json::Value;

#[test]
fn every_packet_of_every_recorded_capture_gets_the_ctinfo_of_the_kernel() {
    let folders = Case::find(&fixture("")).unwrap();
    let mut differing = Vec::new();
    let mut compared = 0;
    for folder in &folders {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let case = Case::read(folder).unwrap();
        // Whoever explains a capture sees no queue; the replay of a case has it.
        if !case.spec.holds.is_empty() {
            continue;
        }
        let ran = explain(&["--json", folder.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.err);
        let objects: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!case.recordings.is_empty(), "{name}");
        for recording in case.recordings.values() {
            assert_eq!(objects.len(), recording.outcome.packets.len(), "{name}");
            for (object, recorded) in objects.iter().zip(&recording.outcome.packets) {
                compared += 1;
                let kernel = recorded.ctinfo.map(|ctinfo| ctinfo.to_string());
                if object["ctinfo"].as_str() != kernel.as_deref() {
                    differing.push((name.clone(), usize::try_from(recorded.packet).unwrap()));
                }
            }
        }
    }
    assert_eq!(differing, [], "of {compared} packets");
    assert!(folders.len() >= 10 && compared >= 100, "{} cases, {compared} packets", folders.len());
}
