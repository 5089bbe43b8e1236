//! What kernels of other releases decide otherwise in the recorded cases: the effect of each profile, and nothing besides.
//!
//! The cases were recorded from 6.18.44. Each is replayed as if another release had recorded it, and what differs then stands
//! in `releases.txt`, the newest release first and each beside the one that follows it. `UPDATE=1` writes it anew.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use ctwhy_conform::replay::replay;
use ctwhy_core::profile::{PROFILES, Profile, Release};
use ctwhy_fixture::case::{Case, Difference, Recording, Tolerance, compare};

/// Cases about what differs, and some about what does not.
const CASES: [&str; 11] = [
    "clash-merged-generic-v4",
    "clash-merged-v4",
    "clash-mirrored-null-bound-v4",
    "icmpv6-untracked",
    "sctp-tags-v4",
    "tcp-first-packets-v4",
    "tcp-reset-answers-ignored-v4",
    "tcp-reset-below-ack-tolerated-v4",
    "tcp-reset-exact-v4",
    "tcp-window-lowered-v4",
    "time-wait-evicted-v4",
];

fn cases() -> Vec<(&'static str, Case)> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    CASES.into_iter().map(|name| (name, Case::read(&fixtures.join(name)).unwrap())).collect()
}

fn exactly(profile: &Profile) -> String {
    let Release { major, minor, patch } = profile.release;
    format!("{major}.{minor}.{patch}")
}

/// What differs where the profile decides, a line each.
fn otherwise(cases: &[(&str, Case)], profile: &Profile) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (name, case) in cases {
        let Some(recording) = case.recordings.values().next_back() else { continue };
        let as_recorded = replay(case, recording).unwrap();
        let decided = replay(case, &Recording { release: exactly(profile), ..recording.clone() }).unwrap();
        for difference in compare(&as_recorded, &decided, Tolerance::default()) {
            lines.insert(match &difference {
                // One line for all packets of a case.
                Difference::Log { recorded, decided, .. } => {
                    let last = |lines: &[String]| lines.last().cloned().unwrap_or_default();
                    let (recorded, decided) = (last(recorded), decided.as_deref().map(last).unwrap_or_default());
                    let protocol = recorded.split(':').next().unwrap_or_default();
                    format!("{name}: log of {protocol}: {}", if decided.is_empty() { "nothing" } else { &decided })
                }
                difference => format!("{name}: {difference}"),
            });
        }
    }
    lines
}

/// VER-02, VER-03, VER-05 and VER-08 to VER-11.
#[test]
fn ver_cases_differ_as_the_releases_do() {
    let cases = cases();
    let mut text = String::new();
    let mut before = BTreeSet::new();
    for profile in PROFILES.into_iter().rev() {
        let now = otherwise(&cases, profile);
        writeln!(text, "{}", exactly(profile)).unwrap();
        before.difference(&now).for_each(|line| writeln!(text, "- {line}").unwrap());
        now.difference(&before).for_each(|line| writeln!(text, "+ {line}").unwrap());
        before = now;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/releases.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, expected, "UPDATE=1 writes {}", file.display());
}
