//! Our NAT with real devices around it, beside itself in one process, which `conform_fuzz` and the tests of ctwhy-conform hold
//! against the kernel's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::process::Command;

use ctwhy_linux::testing;

fn agrees(front: &str) {
    let folder = std::env::temp_dir().join(format!("ctwhy-compare-{front}-{}", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctwhy"));
    command.args(["conform", "nat-compare", "--on", front, "--packets", "4500", "--output"]).arg(folder);
    let output = command.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.ends_with("40500 packets: 0 disagreements\n"), "{said}");
}

#[test]
fn packets_through_devices_leave_as_they_do_without() {
    if testing::require_tun() && testing::require_namespaces() {
        agrees("tun");
    }
}

#[test]
fn packets_through_queues_leave_as_they_do_without() {
    if testing::require_namespaces() {
        agrees("queue");
    }
}
