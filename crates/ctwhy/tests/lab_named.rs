//! `ctwhy lab up`, `list`, `exec`, `shell` and `down`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod lab_common;

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use ctwhy_linux::testing;
use lab_common::{CTWHY, Marked};

fn ctwhy(marked: &Marked, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(CTWHY);
    let output: Output = marked.apply(command.args(arguments)).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn ok(marked: &Marked, arguments: &[&str]) -> String {
    let (code, text) = ctwhy(marked, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {text}");
    text
}

#[test]
fn two_labs_side_by_side() {
    if !testing::require_lab() {
        return;
    }
    let marked = Marked::new("named");
    assert_eq!(ok(&marked, &["lab", "list"]), "");
    let said = ok(&marked, &["lab", "up"]);
    for hint in
        ["ctwhy lab shell client\n", "ctwhy lab exec nat -- ctwhy live --install-rules\n", "ctwhy lab down lab\n"]
    {
        assert!(said.contains(hint), "{said}");
    }
    assert!(ok(&marked, &["lab", "up", "two"]).contains("ctwhy lab shell client --lab two\n"));
    let listed = ok(&marked, &["lab", "list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    for name in ["lab", "two"] {
        assert!(listed.contains(&format!("{name}: client, nat, r1, r2, server (held by pid ")), "{listed}");
    }

    // They do not see each other.
    ok(&marked, &["lab", "exec", "client", "--", "ip", "address", "add", "192.168.1.99/32", "dev", "eth0"]);
    let addresses = |lab| ok(&marked, &["lab", "exec", "client", "--lab", lab, "--", "ip", "-4", "address"]);
    assert!(addresses("lab").contains("192.168.1.99"));
    assert!(!addresses("two").contains("192.168.1.99"));

    // What runs in a lab ends as it ends, and by the name of ctwhy this ctwhy is meant.
    assert_eq!(ctwhy(&marked, &["lab", "exec", "nat", "--", "sh", "-c", "exit 42"]).0, Some(42));
    assert_eq!(ctwhy(&marked, &["lab", "exec", "nat", "--", "sh", "-c", "kill -TERM $$"]).0, Some(128 + 15));
    let rules = ok(&marked, &["lab", "exec", "nat", "--", "ctwhy", "rules", "--queue-num", "9"]);
    assert!(rules.contains("--queue-num 9"));
    let limited = ["lab", "exec", "nat", "--lab", "two", "--", "ctwhy", "live", "--install-rules", "--time", "0.1"];
    assert!(ok(&marked, &limited).contains("ctwhy live: ready: queue 0"));

    // A shell reads commands; its standard input is ours.
    let mut command = Command::new(CTWHY);
    marked.apply(command.args(["lab", "shell", "r1", "--lab", "two"])).env("SHELL", "/bin/sh");
    let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(b"ip -4 address show dev nat\nexit 7\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&output.stdout).contains("203.0.113.1/24"), "{output:?}");

    // What still runs in a lab goes with it.
    let mut command = Command::new(CTWHY);
    marked.apply(command.args(["lab", "exec", "server", "--", "sh", "-c", "echo here; cat"]));
    let mut cat = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cat.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    ok(&marked, &["lab", "down"]);
    assert!(!cat.wait().unwrap().success());
    assert_eq!(ok(&marked, &["lab", "list"]).lines().count(), 1);
    ok(&marked, &["lab", "down", "two"]);
    assert_eq!(ok(&marked, &["lab", "list"]), "");
    marked.assert_all_gone();
}

#[test]
fn what_is_not_there() {
    if !testing::require_lab() {
        return;
    }
    let marked = Marked::new("missing");
    ok(&marked, &["lab", "up"]);
    for (arguments, expected) in [
        (&["lab", "up"][..], "a lab named lab is up already"),
        (&["lab", "up", "../x"], "cannot name a lab"),
        (&["lab", "down", "other"], "no lab named other is up"),
        (&["lab", "exec", "client", "--lab", "other", "--", "true"], "no lab named other is up"),
        (&["lab", "exec", "moon", "--", "true"], "no node moon in this lab; it has client, nat, r1, r2, server"),
        (&["lab", "exec", "client", "--", "no-such-program"], "`no-such-program` is not installed"),
        (&["lab", "shell", "moon"], "no node moon"),
    ] {
        let (code, said) = ctwhy(&marked, arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    ok(&marked, &["lab", "down"]);
    marked.assert_all_gone();
}
