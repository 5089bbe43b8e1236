//! Every case under `fixtures/` through the engine: it decides and emits what each recorded kernel did.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use std::path::{Path, PathBuf};

use ctwhy_conform::replay::replay;
use ctwhy_conform::scenario;
use ctwhy_fixture::case::{Case, DecisionId, Tolerance, compare};
use ctwhy_fixture::coverage::Coverage;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// What the engine does otherwise than the kernels, a line each.
fn differences(folder: &Path) -> Result<Vec<String>, String> {
    let case = Case::read(folder).map_err(|error| error.to_string())?;
    if case.recordings.is_empty() {
        return Err("no kernel has decided about it".to_owned());
    }
    let mut lines = Vec::new();
    for (release, recording) in &case.recordings {
        let decided = replay(&case, recording).map_err(|error| error.to_string())?;
        let differences = compare(&recording.outcome, &decided, Tolerance { timeout: Some(1) });
        lines.extend(differences.iter().map(|difference| format!("{release}: {difference}")));
        // The recorder sees every packet that conntrack sees.
        for (recorded, decided) in recording.outcome.packets.iter().zip(&decided.packets) {
            if let (None, Some(ctinfo)) = (recorded.ctinfo, decided.ctinfo) {
                let packet = recorded.packet;
                lines.push(format!("{release}: packet {packet}: conntrack never saw it, decided was {ctinfo}"));
            }
        }
    }
    Ok(lines)
}

#[test]
fn the_engine_decides_as_the_kernels_did() {
    let mut failed = Vec::new();
    let mut folders: Vec<PathBuf> = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(!folders.is_empty(), "no cases under {}", fixtures().display());
    let coverage = Coverage::read(&fixtures()).unwrap().unwrap();
    for folder in &folders {
        let name = folder.file_name().unwrap().to_string_lossy();
        let mut lines = differences(folder).unwrap_or_else(|error| vec![error]);
        match coverage.stale(&name) {
            Some(stale) if lines.is_empty() => lines.push(stale.to_string()),
            Some(_) => lines.clear(),
            None => {}
        }
        println!("{} {name}", if lines.is_empty() { "agrees" } else { "DIFFERS" });
        if !lines.is_empty() {
            failed.push(format!("{name}:\n    {}", lines.join("\n    ")));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), folders.len(), failed.join("\n"));
}

#[test]
fn every_decision_is_shown_or_known_to_be_missing() {
    let folders = Case::find(&fixtures()).unwrap();
    let name = |folder: &Path| folder.file_name().unwrap().to_string_lossy().into_owned();
    let cases: Vec<_> = folders.iter().map(|folder| (name(folder), Case::read(folder).unwrap().spec.ids)).collect();
    let cases: Vec<(&str, &[DecisionId])> = cases.iter().map(|(name, ids)| (name.as_str(), &ids[..])).collect();
    let coverage = Coverage::read(&fixtures()).unwrap().unwrap();
    let (totals, findings) = coverage.check(&cases, Some(&fixtures().join("..")));
    let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    println!("{totals:?}");
}

#[test]
fn the_cases_that_code_composes_are_the_ones_in_the_folders() {
    for (name, composed) in scenario::all() {
        let case = Case::read(&fixtures().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(case.spec, composed.spec, "{name}: run the example record_fixtures");
        assert!(case.packets == composed.packets, "{name}: other packets; run the example record_fixtures");
    }
}
