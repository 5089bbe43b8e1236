//! The inputs that fuzzing has kept, and those that once broke something, on any toolchain.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use std::fs;
use std::path::{Path, PathBuf};

use ctwhy_fuzz::{Op, TARGETS, Target, engine, write_ops};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(name)
}

/// The inputs of a target, by file.
fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder(kind).join(target)) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

fn replay(kind: &str, least: usize) {
    for (name, target) in TARGETS {
        let inputs = inputs(kind, name);
        assert!(inputs.len() >= least, "{kind}/{name} has no inputs");
        for (file, input) in inputs {
            let broken = std::panic::catch_unwind(|| target(&input)).is_err();
            assert!(!broken, "{name} broke on {}", file.display());
        }
    }
}

#[test]
fn nothing_in_the_corpus_breaks_a_target() {
    replay("corpus", 1);
}

#[test]
fn what_once_broke_a_target_does_so_no_more() {
    replay("regressions", 0);
}

#[test]
fn every_target_is_one_of_cargo_fuzz_and_every_folder_one_of_a_target() {
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let file = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(file.contains(&format!("ctwhy_fuzz::{name}(data)")), "{name}");
    }
    for kind in ["corpus", "regressions"] {
        for entry in fs::read_dir(folder(kind)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(TARGETS.iter().any(|(target, _)| *target == name), "{kind}/{name} belongs to no target");
        }
    }
}

#[test]
fn the_corpus_is_small() {
    let bytes: usize = TARGETS.iter().flat_map(|(name, _)| inputs("corpus", name)).map(|(_, input)| input.len()).sum();
    assert!(bytes < 600_000, "{bytes} bytes; minimise it with `cargo +nightly fuzz cmin`");
}

/// Cut anywhere, with any byte changed: the nearest that a test without a fuzzer comes to one.
#[test]
fn inputs_that_are_cut_or_changed_break_nothing_either() {
    for (name, target) in TARGETS {
        let target: Target = target;
        let mut some = inputs("corpus", name);
        some.sort();
        for (file, input) in some.into_iter().filter(|(_, input)| input.len() < 600).step_by(7) {
            let spots = (0..input.len()).step_by(1 + input.len() / 16);
            for at in spots {
                let mut changed = input.clone();
                changed[at] ^= 0x41;
                for input in [&input[..at], &changed[..]] {
                    let broken = std::panic::catch_unwind(|| target(input)).is_err();
                    assert!(!broken, "{name} broke on {} with byte {at} changed or as the end", file.display());
                }
            }
        }
    }
}

#[test]
fn steps_are_read_as_they_were_written() {
    let packet = vec![0x45; 30];
    let ops = [
        Op::Sysctl("nf_conntrack_checksum=0".to_owned()),
        Op::Rules("*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n".to_owned()),
        Op::Rules6(String::new()),
        Op::Receive { interface: 1, wait_ms: 300, sealed: true, bytes: packet.clone() },
        Op::Send(packet.clone()),
        Op::Hold(packet),
        Op::Release,
        Op::Sweep,
    ];
    let bytes = write_ops(&ops);
    assert_eq!(bytes[..3], [11, 23, 0]);
    engine(&bytes);
    assert_eq!(ctwhy_fuzz::read_ops(&bytes), ops);
}
