//! `ctwhy conform nat`: the kernel and our own NATs do what is asked; what is known to be wrong with others is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::BTreeMap;
use std::process::Command;

use ctwhy_linux::testing;
use serde_json::Value;

/// Exit code, standard output, standard error.
fn ctwhy(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctwhy"));
    let output = command.args(["conform", "nat"]).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Every requirement with its family, and what came of it.
type Verdicts = BTreeMap<String, Value>;

fn read(json: &str) -> Verdicts {
    let name = |verdict: &Value| {
        let family = if verdict["family"] == "ipv4" { "v4" } else { "v6" };
        format!("{}-{family}", verdict["id"].as_str().unwrap())
    };
    let verdicts = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    verdicts.map(|verdict| (name(&verdict), verdict)).collect()
}

/// Asks a NAT of the lab; `None` where it cannot be had, which is said.
fn ask(nat: &str) -> Option<(Option<i32>, Verdicts)> {
    if !testing::require_namespaces() {
        return None;
    }
    // What counts comes at once; the patience is for machines that are busy.
    let (code, out, complaint) = ctwhy(&["--lab", nat, "--json", "--patience", "1000"]);
    if code == Some(4) {
        testing::skip(&complaint.trim());
        return None;
    }
    assert!(matches!(code, Some(0 | 1)), "{nat}: {complaint}");
    Some((code, read(&out)))
}

fn passes(nat: &str) -> Option<Verdicts> {
    let (code, verdicts) = ask(nat)?;
    let failed: Vec<&Value> = verdicts.values().filter(|verdict| verdict["fails"] == true).collect();
    assert!(failed.is_empty(), "{nat}: {failed:#?}");
    assert_eq!(code, Some(0));
    assert!(verdicts.len() > 250, "{nat}: only {} were asked", verdicts.len());
    // Nothing passes for want of an answer.
    let unasked = verdicts.values().filter(|verdict| verdict["outcome"] == "n/a" || verdict["outcome"] == "unclear");
    assert_eq!(unasked.collect::<Vec<_>>(), Vec::<&Value>::new(), "{nat}");
    Some(verdicts)
}

#[test]
fn the_kernel_passes() {
    let Some(verdicts) = passes("kernel") else { return };
    // What RFCs ask for beyond it is told.
    for id in ["RFC4787-REQ-1.udp-v4", "RFC5508-REQ-3a.udp-v4", "RFC6633.source-quench-v4", "RFC4787-REQ-9.udp-v6"] {
        assert_eq!(verdicts[id]["outcome"], "fail", "{id}");
        assert!(verdicts[id]["beyond"].is_string(), "{id}");
    }
    let kind = verdicts["NOTE-KIND.tcp-v4"]["sentence"].as_str().unwrap();
    assert_eq!(kind, "packets pass: another port; TTL 57 out as 56, 62 in as 61");
}

#[test]
fn the_kernel_with_random_ports_passes() {
    let Some(verdicts) = passes("kernel-random") else { return };
    assert_eq!(verdicts["NOTE-PRESERVATION.echo-v6"]["sentence"], "no");
}

#[test]
fn ours_on_tun_devices_passes() {
    if testing::require_tun() {
        passes("nat-tun");
    }
}

#[test]
fn ours_on_a_queue_passes() {
    passes("nat-queue");
}

/// With its options on it does nearly all that RFCs ask for.
#[test]
fn ours_passes_beyond_the_kernel() {
    if !testing::require_tun() {
        return;
    }
    let Some(verdicts) = passes("nat-tun-beyond") else { return };
    let missing = verdicts.iter().filter(|(_, verdict)| verdict["outcome"] == "fail").map(|(name, _)| name.as_str());
    assert_eq!(missing.collect::<Vec<_>>(), ["RFC5382-REQ-4.tcp-v4", "RFC5382-REQ-4.tcp-v6"]);
}
