//! Makes the cases under `fixtures/` and records what the running kernel decides about them:
//!
//! ```text
//! cargo run -p ctwhy-conform --example record_fixtures [NAME]...
//! ```
//!
//! Without names all of them. A recording that the kernel still agrees with stays as it is, to the byte.

use std::path::Path;
use std::process::ExitCode;

use ctwhy_conform::record::record_in_time;
use ctwhy_conform::replay::{is_left_to_chance, replay};
use ctwhy_conform::scenario::{self, Family};
use ctwhy_conform::traceroute::{self, Probe};
use ctwhy_fixture::case::{Case, Recording, Tolerance, compare};
use ctwhy_linux::netns;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("record_fixtures: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    netns::isolate()?;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let names: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    for (name, case) in scenario::all().into_iter().filter(|(name, _)| wanted(name)) {
        keep(&fixtures.join(&name), case).map_err(|error| format!("{name}: {error}"))?;
    }
    for probe in Probe::ALL {
        for family in Family::BOTH {
            let name = format!("traceroute-{}-{}-masquerade", probe.name(), family.name());
            if wanted(&name) {
                let folder = fixtures.join(&name);
                // What traceroute sends is different each time; what it has once sent is kept.
                let packets = match Case::read(&folder) {
                    Ok(case) => case.packets,
                    Err(_) => traceroute::capture(probe, scenario::traceroute_server(family))?,
                };
                let case = scenario::of_traceroute(probe, family, packets);
                keep(&folder, case).map_err(|error| format!("{name}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// Does the kernel decide as before? Where it leaves something to chance, the engine says whether both draws are right.
fn agrees(case: &Case, before: &Recording, now: &Recording) -> Result<bool, Box<dyn std::error::Error>> {
    let tolerance = Tolerance { timeout: Some(1) };
    if !is_left_to_chance(case, now)? {
        return Ok(compare(&before.outcome, &now.outcome, tolerance).is_empty());
    }
    let fits = |recording: &Recording| {
        replay(case, recording).map(|decided| compare(&recording.outcome, &decided, tolerance).is_empty())
    };
    Ok(fits(before)? && fits(now)?)
}

/// Records a case and writes it, unless all of it is there already.
fn keep(folder: &Path, mut case: Case) -> Result<(), Box<dyn std::error::Error>> {
    let recording = record_in_time(&case)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if let Ok(there) = Case::read(folder)
        && (&there.spec, &there.packets) == (&case.spec, &case.packets)
        && let Some(before) = there.recordings.get(&recording.release)
        && before.sysctls == recording.sysctls
        && agrees(&case, before, &recording)?
    {
        // A recording of a time when less was looked at keeps all that it says.
        let mut whole = before.clone();
        if whole.complete(&recording) {
            println!("{name}: completed");
            return Ok(Case::write_recording(folder, &whole)?);
        }
        println!("{name}: unchanged");
        return Ok(());
    }
    println!("{name}: recorded");
    case.recordings.insert(recording.release.clone(), recording);
    Ok(case.write(folder)?)
}
