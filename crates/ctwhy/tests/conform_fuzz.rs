//! `ctwhy conform fuzz` as a command: what it prints, what it writes, how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::path::PathBuf;
use std::process::{Command, Output};

use ctwhy_linux::testing::require_namespaces;

fn fuzz(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctwhy"));
    command.args(["conform", "fuzz"]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn directory(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ctwhy-fuzz-{name}-{}", std::process::id()))
}

#[test]
fn agreement_is_a_row_for_each_suite_and_seed() {
    if !require_namespaces() {
        return;
    }
    let output = fuzz(&["--suite", "udp-icmp", "--seed", "3..4", "--packets", "2000"]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}{}", text(&output.stderr));
    let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..3], ["udp-icmp", "3", "2000"], "{printed}");
    assert_eq!(rows[2][..3], ["udp-icmp", "4", "2000"], "{printed}");
    assert_eq!(printed.lines().last(), Some("4000 packets: 0 disagreements"));
    // Nobody looks, so nothing moves.
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_disagreement_becomes_a_case_and_ends_with_1() {
    if !require_namespaces() {
        return;
    }
    let folder = directory("found");
    let told = "net.netfilter.nf_conntrack_icmp_timeout=999";
    let output = folder.to_str().unwrap();
    let output =
        fuzz(&["--suite", "udp-icmp", "--packets", "3000", "--json", "--output", output, "--engine-sysctl", told]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}{}", text(&output.stderr));
    let run: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(run["suite"], "udp-icmp");
    assert!(run["decisions"]["NEW"].as_u64().unwrap() > 0);
    let found = &run["disagreements"][0];
    assert_eq!(found["packets"], 1, "{found}");
    assert!(found["difference"].as_str().unwrap().contains(" 999 "), "{found}");
    // The engine itself is not wrong, so what the kernel did about the case is what the engine says.
    let case = found["case"].as_str().unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_ctwhy")).args(["fixture", "check", case]).output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stdout));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_not_understood_is_said() {
    for (arguments, problem) in [
        (["--suite", "sctp-wild"], "--suite sctp-wild: there are udp-icmp, "),
        (["--seed", "5..1"], "a number, or a range such as 1..5"),
        (["--packets", "0"], "0 is not in 1.."),
    ] {
        let output = fuzz(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(problem), "{}", text(&output.stderr));
    }
}
