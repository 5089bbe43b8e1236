//! Some of the cases under `fixtures/` once more through the running kernel: it decides as it did when they were recorded,
//! and as the engine does.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use std::path::{Path, PathBuf};

use ctwhy_conform::record::record;
use ctwhy_conform::replay::replay;
use ctwhy_fixture::case::{Case, Tolerance, compare};
use ctwhy_linux::testing::require_lab;

/// One for each thing that the recorder has to get right: both families, packets that go through, end at the box, vanish,
/// or are answered by it, with and without NAT; and what is expected.
const CASES: [&str; 14] = [
    "box-echo-masquerade-v4",
    "box-redirected-port-unreachable-v6",
    "box-tcp-reset-v6",
    "box-ttl-exceeded-v4",
    "dnat-errors-v6",
    "error-wrong-outer-destination-v4",
    "expectations-waiting-masquerade-v6",
    "icmpv6-redirect",
    "invalid-bypasses-nat-v4",
    "pptp-call-waiting-masquerade",
    "quote-cut-udp-masquerade-v4",
    "redirect-about-masqueraded-flow",
    "traceroute-udp-v4-masquerade",
    "traceroute-tcp-v6-masquerade",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

#[test]
fn the_kernel_decides_as_recorded_and_as_the_engine() {
    if !require_lab() {
        return;
    }
    let mut failed = Vec::new();
    for name in CASES {
        let case = Case::read(&fixtures().join(name)).unwrap();
        let mut fresh = record(&case).unwrap().recording;
        if !case.recordings.contains_key(&fresh.release) {
            // What is logged is worded for readers and changes between releases.
            fresh.outcome.packets.iter_mut().for_each(|packet| packet.log = None);
        }
        let decided = replay(&case, &fresh).unwrap();
        let tolerance = Tolerance::default();
        let mut differences: Vec<String> = compare(&fresh.outcome, &decided, tolerance)
            .iter()
            .map(|difference| format!("{name}: the engine: {difference}"))
            .collect();
        // Another kernel may have decided otherwise; what the engine does is said above.
        if let Some(recorded) = case.recordings.get(&fresh.release) {
            let changed = compare(&recorded.outcome, &fresh.outcome, tolerance);
            differences.extend(changed.iter().map(|difference| format!("{name}: recorded: {difference}")));
        }
        // What is written is what is read.
        let folder = std::env::temp_dir().join(format!("ctwhy-kernel-{}-{name}", std::process::id()));
        let written = Case { recordings: [(fresh.release.clone(), fresh)].into(), ..case };
        written.write(&folder).unwrap();
        assert_eq!(Case::read(&folder).unwrap(), written);
        std::fs::remove_dir_all(&folder).unwrap();
        failed.extend(differences);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_wrong_decision_is_noticed() {
    if !require_lab() {
        return;
    }
    // The engine masquerades, the kernel does not.
    let case = Case::read(&fixtures().join("traceroute-udp-v4-masquerade")).unwrap();
    let mut without = case.clone();
    without.spec.rules = None;
    let fresh = record(&without).unwrap().recording;
    let differences = compare(&fresh.outcome, &replay(&case, &fresh).unwrap(), Tolerance::default());
    assert!(!differences.is_empty());
}
