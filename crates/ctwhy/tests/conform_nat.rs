//! `ctwhy conform nat`: the kernel and our own NATs do what is asked; what is known to be wrong with others is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ctwhy_linux::lab::{Lab, Topology};
use ctwhy_linux::{program, testing};
use serde_json::Value;

/// Exit code, standard output, standard error.
fn ctwhy(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctwhy"));
    let output = command.args(["conform", "nat"]).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn nothing_asked_is_no_success() {
    for (arguments, says) in [
        (["--only", "RFC5508-REQ-99"], "--only RFC5508-REQ-99: no requirement's id begins so"),
        (["--group", "timeouts"], "those of timeouts need --timeouts"),
    ] {
        let (code, out, complaint) = ctwhy(&[&["--lab", "kernel"], &arguments[..]].concat());
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert!(complaint.contains(says), "{complaint}");
    }
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

/// Asks a NAT of the lab only this; `None` where it cannot be had, which is said.
fn ask_only(nat: &str, ids: &[&str]) -> Option<Verdicts> {
    if !testing::require_namespaces() || !testing::require_tun() {
        return None;
    }
    let only = ids.iter().flat_map(|id| ["--only", id]);
    let arguments: Vec<&str> = ["--lab", nat, "--json", "--patience", "400"].into_iter().chain(only).collect();
    let (code, out, complaint) = ctwhy(&arguments);
    if code == Some(4) {
        testing::skip(&complaint.trim());
        return None;
    }
    assert_eq!(code, Some(1), "{nat}: {complaint}");
    Some(read(&out))
}

/// Does a NAT do as is known of it? Of a requirement without `-v4` or `-v6` both are meant.
fn knows(nat: &str, known: &[(&str, &[&str])]) {
    let bare = |id: &str| id.trim_end_matches("-v4").trim_end_matches("-v6").to_owned();
    let ids: Vec<String> = known.iter().flat_map(|(_, ids)| ids.iter().map(|id| bare(id))).collect();
    let Some(verdicts) = ask_only(nat, &ids.iter().map(String::as_str).collect::<Vec<_>>()) else { return };
    for (outcome, ids) in known {
        for id in *ids {
            let wanted = verdicts.iter().filter(|(name, _)| *name == id || bare(name) == *id);
            let found: Vec<_> =
                wanted.map(|(name, verdict)| (name, &verdict["outcome"], &verdict["sentence"])).collect();
            assert!(!found.is_empty(), "{nat}: nothing is called {id}");
            assert!(found.iter().all(|(_, found, _)| *found == outcome), "{nat}: {outcome} was expected of {found:#?}");
        }
    }
}

/// What a program says of its version.
fn says(program: &str, version: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(version))
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

/// What a NAT that is made of sockets cannot do, whichever it is.
const OF_SOCKETS: [&str; 5] = [
    "KERNEL-NAT-MAN.udp.packet",
    "KERNEL-NAT-MAN.tcp.packet",
    "KERNEL-NAT-MAN.tcp.answer",
    "RFC5508-REQ-5.udp.port-unreachable",
    "RFC1812-5.3.1.tcp.in",
];

/// Errors about UDP come in, and little else is right about them.
#[test]
fn what_is_known_of_slirp4netns_is_found() {
    knows("slirp4netns", &[("fail", &OF_SOCKETS)]);
    if !says("slirp4netns", "libslirp: 4.7.0") {
        return;
    }
    let passes: &[&str] = &[
        "RFC5508-REQ-4.udp.time-exceeded",
        "RFC5508-REQ-4.udp.prohibited",
        "RFC5508-REQ-4a.udp.time-exceeded",
        "RFC5508-REQ-3b.udp-v4",
        "RFC5508-REQ-3.udp.checksum",
        "RFC4787-REQ-12.udp.port-unreachable",
        "RFC5382-REQ-2.closed-port",
        "RFC1812-5.3.1.udp.out",
        "RFC5508-REQ-10.udp.ttl-1",
        "KERNEL-NAT-ICMP-11.redirect",
        "KERNEL-ICMP-REL-12.udp",
    ];
    let fails: &[&str] = &[
        "RFC5508-REQ-4b.udp.mtu",
        "RFC5508-REQ-4a.udp.in-flight",
        "RFC5508-REQ-3d.udp",
        "RFC5508-REQ-4.udp.other-server",
        "RFC5508-REQ-4.udp.other-port",
        "KERNEL-ICMP-REL-04.outer-destination",
        "KERNEL-ICMP-IN-02.later-fragment-v4",
        "RFC4787-REQ-13.udp.not-cut",
        "RFC5508-REQ-4.tcp.time-exceeded",
        "RFC5508-REQ-4.tcp.prohibited",
        "RFC5508-REQ-4.echo.time-exceeded-v4",
        "RFC1812-5.3.1.echo.out-v4",
        "RFC5508-REQ-1.echo.out-v6",
        "KERNEL-NAT-MAN-03.udp.no-checksum-v4",
    ];
    knows("slirp4netns", &[("pass", passes), ("fail", fails), ("n/a", &["RFC5508-REQ-3.tcp.checksum"])]);
}

/// No error comes in at all, so that what it stops proves nothing; and a closed port leaves the client waiting.
#[test]
fn what_is_known_of_pasta_is_found() {
    knows("pasta", &[("fail", &OF_SOCKETS)]);
    // That of Debian 12 does not know its version.
    if !says("pasta", "unknown version") {
        return;
    }
    let fails: &[&str] = &[
        "RFC5508-REQ-4.udp.time-exceeded",
        "RFC5508-REQ-4.udp.port-unreachable",
        "RFC5508-REQ-4.tcp.prohibited",
        "RFC5508-REQ-4.echo.time-exceeded",
        "RFC5382-REQ-2.closed-port",
        "RFC4787-REQ-13.udp.not-cut",
        "RFC1812-5.3.1.udp.out",
        "RFC1812-5.3.1.echo.out",
    ];
    let vacuous: &[&str] =
        &["RFC5508-REQ-3.udp.checksum", "RFC5508-REQ-4.udp.other-server", "KERNEL-NAT-ICMP-11.redirect"];
    knows("pasta", &[("fail", fails), ("n/a", vacuous), ("pass", &["RFC4787-REQ-12.udp.prohibited"])]);
}

/// Ours that is made of sockets: silent as `vmnat` is, or relaying what the error queue of its sockets tells.
#[test]
fn what_our_proxy_does_is_found() {
    let fails: &[&str] =
        &["RFC5508-REQ-4.udp.time-exceeded", "RFC5508-REQ-4.echo.time-exceeded", "RFC1812-5.3.1.udp.out"];
    knows("proxy-drop", &[("fail", &OF_SOCKETS), ("fail", fails), ("n/a", &["RFC5508-REQ-3.udp.checksum"])]);
    let passes: &[&str] = &[
        "RFC5508-REQ-4.udp.time-exceeded",
        "RFC5508-REQ-4.tcp.time-exceeded",
        "RFC5508-REQ-4.echo.time-exceeded",
        "RFC5508-REQ-4a.udp.in-flight",
        "RFC5508-REQ-4b.udp.mtu",
        "RFC5508-REQ-4.udp.other-port",
    ];
    let fails: &[&str] =
        &["RFC5508-REQ-4.tcp.too-big", "KERNEL-ICMP-REL-04.outer-destination", "RFC5508-REQ-10.udp.ttl-1"];
    knows("proxy-relay", &[("fail", &OF_SOCKETS), ("pass", passes), ("fail", fails)]);
}

/// The book's table is about what is asked now.
#[test]
fn the_books_table_has_every_requirement_and_no_other() {
    let (code, out, complaint) = ctwhy(&["--list", "--json"]);
    assert_eq!(code, Some(0), "{complaint}");
    let listed = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let asked: BTreeSet<String> = listed
        .filter(|requirement| requirement["seconds"] == 0)
        .map(|requirement| requirement["id"].as_str().unwrap().to_owned())
        .collect();
    const PREFIXES: [&str; 3] = ["RFC", "KERNEL-", "NOTE-"];
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../book/src/nat-table.md");
    let page = std::fs::read_to_string(page).unwrap();
    let in_page = page.lines().filter_map(|line| line.trim_start_matches("| ").strip_prefix('`')?.split_once('`'));
    let in_page: BTreeSet<String> =
        in_page.map(|(id, _)| id.to_owned()).filter(|id| PREFIXES.iter().any(|start| id.starts_with(start))).collect();
    assert_eq!(in_page, asked, "`make nat-table` writes the page afresh");
}

/// What is printed for programs.
#[test]
fn reports_are_well_formed() {
    if !testing::require_namespaces() {
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("conform-nat");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let junit = folder.join("junit.xml");
    let failures = folder.join("failures");
    let run = |more: &[&str]| {
        let only = ["--lab", "kernel", "--only", "RFC5508-REQ-3a", "--only", "RFC5508-REQ-3b"];
        ctwhy(&[&only[..], more].concat())
    };
    let files = ["--junit", junit.to_str().unwrap(), "--output", failures.to_str().unwrap()];
    let (code, out, complaint) = run(&[&["--tap"][..], &files].concat());
    assert_eq!(code, Some(0), "{complaint}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["TAP version 14", "1..2", "ok 1 - RFC5508-REQ-3b.udp-v4"]);
    assert!(lines[3].starts_with("ok 2 - RFC5508-REQ-3a.udp-v4 # SKIP beyond the kernel"), "{out}");
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(xml.contains("tests=\"2\" failures=\"0\" errors=\"0\" skipped=\"1\""), "{xml}");
    assert!(failures.join("RFC5508-REQ-3a.udp-v4.pcapng").is_file());
    assert!(!failures.join("RFC5508-REQ-3b.udp-v4.pcapng").exists());

    let (code, out, _) = run(&["--tap", "--strict"]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("\nnot ok 2 - RFC5508-REQ-3a.udp-v4\n  ---\n  reasons:\n    - 'it reached the client"),
        "{out}"
    );
    let (code, out, _) = run(&["--markdown"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("| SHOULD † | ✗ |") && out.contains("| MUST | ✓ |"), "{out}");
}

/// A NAT that is there already, by the names of its network namespaces and interfaces.
#[test]
fn any_nat_can_be_asked() {
    if !testing::require_namespaces() {
        return;
    }
    let lab = Lab::create(Topology::traceroute()).unwrap();
    let off = "for file in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 0 >/proc/sys/net/$file; done";
    program::run(lab.command("r1", "sh").unwrap().args(["-c", off]), "").unwrap();
    let ask = |more: &[&str]| {
        let mut command = lab.command("server", env!("CARGO_BIN_EXE_ctwhy")).unwrap();
        command.args(["conform", "nat", "--inside", "client:eth0", "--outside", "r1:nat"]);
        command.args(["--client", "192.168.1.77", "--client", "192.168.1.78", "--gateway", "192.168.1.1"]);
        command.args(["--client", "fd00:1::77", "--client", "fd00:1::78", "--gateway", "fd00:1::1"]);
        let output = command.args(["--json", "--only", "RFC5508-REQ-4"]).args(more).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    // Whoever sends something outside is taken for the NAT, or it is asked by its address.
    program::run(lab.command("client", "ping").unwrap().args(["-c", "1", "-w", "10", "203.0.113.1"]), "").unwrap();
    let hops = ["--next-hop", "203.0.113.1", "--next-hop", "2001:db8:113::1"];
    let known = ["--external", "203.0.113.2", "--external", "2001:db8:113::2"];
    for more in [&[][..], &[known, hops].concat()] {
        let (code, out, complaint) = ask(more);
        assert_eq!(code, Some(0), "{out}{complaint}");
        let verdicts = read(&out);
        assert!(verdicts.len() > 70, "{}", verdicts.len());
        assert!(verdicts.values().all(|verdict| verdict["outcome"] == "pass"), "{out}");
        assert_eq!(verdicts["RFC5508-REQ-4.udp.too-big-v6"]["nat"], "NAT between client:eth0 and r1:nat");
    }
    let (code, _, complaint) = ask(&[&["--external", "203.0.113.99"], &hops[..]].concat());
    assert_eq!(code, Some(2));
    assert!(complaint.contains("outside: nobody answers for 203.0.113.99"), "{complaint}");
}

/// Arguments that mean nothing are refused, with what to do.
#[test]
fn mistakes_are_refused() {
    let refused = |arguments: &[&str], word: &str| {
        let (code, out, complaint) = ctwhy(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {complaint}");
        assert!(complaint.contains(word), "{arguments:?}: {complaint}");
    };
    refused(&[], "--inside");
    refused(&["--lab", "vmnat"], "slirp4netns, pasta");
    refused(&["--lab", "kernel", "--group", "quote"], "quotes");
    refused(&["--inside", "eth0", "--outside", "eth1", "--client", "192.168.1.77"], "two are needed");
    let two = ["--client", "192.168.1.77", "--client", "192.168.1.78"];
    refused(&[&["--inside", "absent0", "--outside", "absent1"][..], &two].concat(), "absent0");
    refused(&["--lab", "kernel", "--output", "/run/ctwhy"], "a lab has a /run of its own");
}
