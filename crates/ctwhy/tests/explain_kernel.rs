//! `ctwhy explain` on every recorded capture says what the kernel said: of every packet, and about what is still expected.
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

/// A line of `conntrack -L expect` or of ours, the seconds apart: a recording is read a moment after the last packet.
fn seconds_and_rest(line: &str) -> (u32, &str) {
    let (seconds, rest) = line.split_once(' ').unwrap();
    (seconds.parse().unwrap(), rest)
}

#[test]
fn what_is_still_expected_is_what_the_kernel_lists() {
    let (mut lists, mut compared) = (0, 0);
    for folder in Case::find(&fixture("")).unwrap() {
        let case = Case::read(&folder).unwrap();
        let recorded = case.recordings.values().find_map(|recording| recording.outcome.expectations.as_ref());
        let Some(recorded) = recorded.filter(|_| case.spec.holds.is_empty()) else { continue };
        let folder = folder.to_str().unwrap();
        let ran = explain(&["-q", "--expectations", folder]);
        // Behind the lines come an empty one and the summary.
        let shown: Vec<&str> = ran.out.lines().take_while(|line| !line.is_empty()).collect();
        let rest = |lines: &[&str]| lines.iter().map(|line| seconds_and_rest(line).1.to_owned()).collect::<Vec<_>>();
        let mut theirs: Vec<&str> = recorded.iter().map(String::as_str).collect();
        theirs.sort_by_key(|line| seconds_and_rest(line).1);
        let mut ours = shown.to_vec();
        ours.sort_by_key(|line| seconds_and_rest(line).1);
        assert_eq!(rest(&ours), rest(&theirs), "{folder}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!(seconds_and_rest(ours).0.abs_diff(seconds_and_rest(theirs).0) <= 1, "{ours}\n{theirs}");
        }
        objects_say_the_same(folder, &ours);
        lists += 1;
        compared += recorded.len();
    }
    assert!(lists >= 30 && compared >= 18, "{lists} lists of {compared} expectations");
}

/// The same with `--json`, behind the objects of the packets.
fn objects_say_the_same(folder: &str, lines: &[&str]) {
    let ran = explain(&["--json", "--expectations", folder]);
    let objects: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected: Vec<&Value> = objects.iter().skip_while(|object| object.get("packet").is_some()).collect();
    let numbers: Vec<u64> = expected.iter().map(|object| object["expectation"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=lines.len() as u64).collect::<Vec<_>>(), "{folder}");
    let mut told: Vec<String> = expected.iter().map(|object| line_of(object)).collect();
    told.sort_by_key(|line| seconds_and_rest(line).1.to_owned());
    assert_eq!(told, lines, "{folder}");
}

/// The line of `conntrack -L expect` that an object stands for.
fn line_of(object: &Value) -> String {
    let text = |key: &str| object[key].as_str().unwrap().to_owned();
    let number = |key: &str| object[key].as_u64().unwrap();
    let (proto, gre) = match object["proto"].as_str().unwrap() {
        "tcp" => (6, false),
        "udp" => (17, false),
        "gre" => (47, true),
        other => unreachable!("no helper expects {other}"),
    };
    let ends = |prefix: &str| match gre && prefix != "master_" {
        true => {
            let keys = ["srckey", "dstkey"].map(|key| number(&format!("{prefix}{key}")));
            format!("srckey={:#x} dstkey={:#x}", keys[0], keys[1])
        }
        false => {
            let ports = ["sport", "dport"].map(|port| number(&format!("{prefix}{port}")));
            format!("sport={} dport={}", ports[0], ports[1])
        }
    };
    let tuple = |prefix: &str| {
        let [src, dst] = ["src", "dst"].map(|end| text(&format!("{prefix}{end}")));
        let name = prefix.replace('_', "-");
        format!("{name}src={src} {name}dst={dst} {}", ends(prefix))
    };
    assert_eq!((object["schema"].as_u64(), object["zone"].as_u64()), (Some(1), Some(0)));
    assert!(object["master"].is_u64() && object["flags"].as_array().unwrap().is_empty());
    let tuples = ["", "mask_", "master_"].map(tuple).join(" ");
    format!("{} proto={proto} {tuples} class={} helper={}", number("timeout"), number("class"), text("helper"))
}
