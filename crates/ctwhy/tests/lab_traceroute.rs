//! `ctwhy lab run traceroute`: the story is whole, every packet agrees, and nothing survives it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod lab_common;

use std::process::{Command, Output};

use ctwhy_linux::testing;
use lab_common::{CTWHY, Marked};
use serde_json::Value;

fn run(arguments: &[&str], marked: &Marked) -> (Output, String, String) {
    let mut command = Command::new(CTWHY);
    command.args(["lab", "run", "traceroute"]).args(arguments);
    let output = marked.apply(&mut command).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

/// The hops that the user saw, by traceroute.
fn hops(text: &str) -> Vec<Vec<&str>> {
    let mut runs: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if line.starts_with("traceroute to ") {
            runs.push(Vec::new());
        } else if let (true, Some(number), Some(hop)) = (line.starts_with(' '), words.next(), words.next())
            && number.parse::<u8>().is_ok()
            && line.contains(" ms")
        {
            runs.last_mut().unwrap().push(hop);
        }
    }
    runs
}

#[test]
fn every_packet_agrees_and_every_hop_is_seen() {
    if !testing::require_lab() {
        return;
    }
    let marked = Marked::new("json");
    let (output, stdout, stderr) = run(&["--json"], &marked);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let v4 = ["192.168.1.1", "203.0.113.1", "198.51.100.2", "192.0.2.80"];
    let v6 = ["fd00:1::1", "2001:db8:113::1", "2001:db8:100::2", "2001:db8:2::80"];
    assert_eq!(hops(&stderr), [v4, v4, v4, v6, v6, v6], "{stderr}");
    let packets: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for (packet, number) in packets.iter().zip(1u64..) {
        assert_eq!(packet["packet"], number);
        assert_eq!(packet["agree"], true, "{packet:#}");
        assert_eq!(packet["ctinfo"], packet["kernel_ctinfo"]);
    }
    // Of each traceroute: one error of the NAT's own, two of routers, for UDP one of the server.
    let related: Vec<&Value> = packets.iter().filter(|packet| packet["ctinfo"] == "RELATED_REPLY").collect();
    assert_eq!(related.len(), 6 * 3 + 2, "{stderr}");
    assert_eq!(packets.iter().filter(|packet| packet["ctinfo"] == "NEW").count(), 6 * 4);
    assert_eq!(packets.iter().filter(|packet| packet["ctinfo"] == "ESTABLISHED_REPLY").count(), 4);
    // The errors from behind the NAT are taken apart, found their flow, and translated outside and inside.
    for error in related.iter().filter(|packet| packet["iface"] == "wan") {
        let steps: Vec<&str> = error["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
        for step in ["icmp_error", "quoted", "quoted_inverted", "quoted_hit", "host_check", "related"] {
            assert!(steps.contains(&step), "{step}: {error:#}");
        }
        let rewritten = steps.iter().filter(|step| **step == "rewritten").count();
        assert_eq!(rewritten, 2, "{error:#}");
    }
    assert!(stderr.contains(&format!("compared with the kernel: {} agree, 0 differ", packets.len())), "{stderr}");
    marked.assert_all_gone();
}

#[test]
fn both_sides_are_shown() {
    if !testing::require_lab() {
        return;
    }
    let marked = Marked::new("text");
    let (output, stdout, stderr) = run(&[], &marked);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
    assert_eq!(hops(&stdout).len(), 6);
    assert_eq!(stdout.matches("what the user sees").count(), 6);
    assert_eq!(stdout.matches("why, at the NAT").count(), 6);
    assert!(!stdout.contains("DIFFER"), "{stdout}");
    // The first error from a router is taken apart in full, once for each family, without being asked for.
    for once in ["turned round, because the error travels against it", "of the flow do: it belongs"] {
        assert_eq!(stdout.matches(once).count(), 2, "{once}\n{stdout}");
    }
    for (what, count) in [("nat: quoted source", 2), ("nat: outer destination", 2)] {
        assert_eq!(stdout.matches(what).count(), count, "{what}\n{stdout}");
    }
    let (output, verbose, _) = run(&["-v", "--color", "always"], &marked);
    assert_eq!(output.status.code(), Some(0));
    assert!(verbose.matches("turned round").count() >= 14, "{verbose}");
    assert!(verbose.contains("\x1b["));
    marked.assert_all_gone();
}

/// Killed in the middle of it.
#[test]
fn nothing_survives_a_kill() {
    if !testing::require_lab() {
        return;
    }
    let marked = Marked::new("kill");
    let mut command = Command::new(CTWHY);
    command.args(["lab", "run", "traceroute", "-v"]).stdout(std::process::Stdio::piped());
    let mut child = marked.apply(&mut command).spawn().unwrap();
    // It is in the middle of it when it has said something.
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 64]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    marked.assert_all_gone();
}

/// Where namespaces are forbidden it says so in one sentence.
#[test]
fn without_namespaces() {
    if !testing::require_lab() {
        return;
    }
    // The limit is that of the user namespace made by the first command; nothing outside changes.
    let shell = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -all --inh-caps -all \"$@\"";
    for arguments in [&["lab", "run", "traceroute"][..], &["lab", "up", "forbidden"]] {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", shell, "sh", CTWHY]).args(arguments);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("ctwhy lab: ordinary users may not make namespaces here"), "{said}");
        assert!(output.stdout.is_empty());
    }
}
