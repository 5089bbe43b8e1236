//! `ctwhy lab run silent-router` and the like: each fact that the story rests on is observed, and what `diagnose` and
//! `probe` say tells the scenes apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod lab_common;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ctwhy_linux::testing;
use lab_common::{CTWHY, Marked};
use serde_json::Value;

/// What a scene told.
struct Told {
    acts: Vec<Value>,
    story: String,
}

impl Told {
    /// Runs a scene to its end; everything in it has to be observed.
    fn of(scene: &str, arguments: &[&str]) -> Told {
        let marked = Marked::new(&[&[scene], arguments].concat().concat());
        let mut command = Command::new(CTWHY);
        command.args(["lab", "run", scene, "--json"]).args(arguments);
        let output = marked.apply(&mut command).output().unwrap();
        let story = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{story}");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut acts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let sum = acts.pop().unwrap();
        assert_eq!(sum["not_observed"], 0, "{story}");
        assert!(!story.contains("NOT observed"), "{story}");
        let told = Told { acts, story };
        assert_eq!(sum["observed"], told.observations().count());
        for (act, number) in told.acts.iter().zip(1..) {
            assert_eq!((&act["schema"], &act["scene"], &act["act"]), (&1.into(), &scene.into(), &number.into()));
            assert!(told.story.contains(&format!("━━ {number}. {}", act["title"].as_str().unwrap())));
        }
        marked.assert_all_gone();
        told
    }

    fn observations(&self) -> impl Iterator<Item = &Value> {
        self.acts.iter().flat_map(|act| act["observations"].as_array().unwrap())
    }

    /// The facts of what was observed under a code in a world, for a family or for none.
    fn facts(&self, code: &str, world: &str, family: Option<&str>) -> &Value {
        let is = |found: &&Value| {
            found["code"] == code && found["facts"]["world"] == world && found["family"].as_str() == family
        };
        &self.observations().find(is).unwrap_or_else(|| panic!("{code} of {world}: {}", self.story))["facts"]
    }
}

const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

fn words(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap_or("*")).collect()
}

/// A folder of a test's own, empty at its start.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab_scenes").join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

const ROUTERS: [[&str; 3]; 2] =
    [["203.0.113.1", "198.51.100.2", "192.0.2.80"], ["2001:db8:113::1", "2001:db8:100::2", "2001:db8:2::80"]];

#[test]
fn a_nat_of_sockets_swallows_what_routers_say() {
    if !testing::require_tun() || !testing::require_namespaces() {
        return;
    }
    let told = Told::of("vmnat", &[]);
    for (family, routers) in FAMILIES.into_iter().zip(ROUTERS) {
        let facts = |code, world| told.facts(code, world, Some(family));
        assert_eq!(words(&facts("traceroute.udp", "vmnat")["hops"]), ["*"; 4]);
        assert_eq!(words(&facts("traceroute.echo", "vmnat")["hops"]), ["*", "*", routers[2]]);
        // The three inconsistencies, and whose connection it is.
        let mark = if family == "ipv4" { "ipid" } else { "flow_label" };
        for code in [mark, "port"] {
            let found = facts(code, "vmnat");
            assert!(number(&found["changed"]) * 2 > number(&found["packets"]), "{found}");
            for world in ["nat-tun", "kernel", "bridge"] {
                assert_eq!(facts(code, world)["changed"], 0, "{code} of {world}");
            }
        }
        assert_eq!(facts("ttl_out", "vmnat")["before_and_behind"][0], serde_json::json!([64, 128]));
        assert_eq!(facts("ttl_back", "vmnat")["before_and_behind"][0], serde_json::json!([62, 64]));
        assert_ne!(facts("owner", "vmnat")["inside"], facts("owner", "vmnat")["outside"]);
        // Errors of two routers about two traceroutes came back, and ended on the host.
        assert_eq!([&facts("errors", "vmnat")["outside"], &facts("errors", "vmnat")["inside"]], [4, 0]);
        assert_eq!(facts("diagnose.kind", "vmnat")["kinds"][0], "socket_proxy");
        assert!(number(&facts("diagnose.swallowed", "vmnat")["swallowed"]) >= 4);
        let findings = words(&facts("probe", "vmnat")["findings"]);
        assert!(findings.contains(&"errors.swallowed_by_socket_nat"), "{findings:?}");
        assert!(!findings.contains(&"routers.silent"), "{findings:?}");
        assert_eq!(facts("probe", "vmnat")["amiss"], true);
        for world in ["vmnat-relay", "nat-tun", "kernel", "bridge"] {
            for method in ["traceroute.udp", "traceroute.echo", "traceroute.tcp"] {
                let hops = words(&facts(method, world)["hops"]);
                assert_eq!(hops[hops.len() - 3..], routers, "{method} of {world}");
            }
            assert_eq!(facts("errors", world)["outside"], facts("errors", world)["inside"], "{world}");
        }
    }
    assert_eq!(told.facts("diagnose.status", "vmnat", None)["status"], 1);
}

#[test]
fn silent_routers_are_not_a_nat_that_swallows() {
    if !testing::require_namespaces() {
        return;
    }
    let told = Told::of("silent-router", &[]);
    for (family, hops) in
        FAMILIES.into_iter().zip([["192.168.1.1", "*", "*", "192.0.2.80"], ["fd00:1::1", "*", "*", "2001:db8:2::80"]])
    {
        let facts = |code| told.facts(code, "silent-router", Some(family));
        assert_eq!(words(&facts("traceroute.udp")["hops"]), hops);
        assert_eq!(words(&facts("traceroute.echo")["hops"]), hops);
        assert_eq!(facts("errors.none_outside")["outside"], 0);
        assert_eq!(facts("diagnose.kind")["kinds"][0], "packet_nat");
        assert_eq!(facts("diagnose.swallowed")["swallowed"], 0);
        let findings = words(&facts("probe")["findings"]);
        assert!(findings.contains(&"routers.silent") && findings.contains(&"errors.come_through"), "{findings:?}");
        assert_eq!(facts("probe")["amiss"], false);
    }
    assert_eq!(told.facts("diagnose.status", "silent-router", None)["status"], 0);
}

#[test]
fn a_black_hole_and_what_helps() {
    if !testing::require_tun() || !testing::require_namespaces() {
        return;
    }
    let told = Told::of("pmtu", &[]);
    for family in FAMILIES {
        let facts = |code, world| told.facts(code, world, Some(family));
        let upload = |world| (number(&facts("upload", world)["arrived"]), number(&facts("upload", world)["of"]));
        let errors = |world| (number(&facts("errors", world)["outside"]), number(&facts("errors", world)["inside"]));
        let (arrived, of) = upload("black-hole");
        assert!(arrived < of, "{}", told.story);
        let (outside, inside) = errors("black-hole");
        assert!(outside > 1 && inside == 0, "{}", told.story);
        assert_eq!(facts("diagnose.kind", "black-hole")["kinds"][0], "packet_nat");
        assert!(number(&facts("diagnose.swallowed", "black-hole")["swallowed"]) > 1);
        assert!(words(&facts("probe", "black-hole")["findings"]).contains(&"mtu.black_hole"));
        for world in ["cured", "clamped", "nat-tun", "vmnat"] {
            let (arrived, of) = upload(world);
            assert_eq!(arrived, of, "{world}");
        }
        for world in ["cured", "nat-tun"] {
            let (outside, inside) = errors(world);
            assert!(outside > 0 && inside == outside, "{world}");
        }
        assert_eq!(facts("route.mtu", "cured")["mtu"], 1280);
        assert_eq!(errors("vmnat").1, 0);
    }
}

/// A link of fewer bytes than IPv6 asks for: the story is told for IPv4 alone.
#[test]
fn a_link_that_is_too_narrow_for_ipv6() {
    if !testing::require_tun() || !testing::require_namespaces() {
        return;
    }
    let told = Told::of("pmtu", &["--mtu", "1200"]);
    assert!(told.observations().all(|observation| observation["family"] != "ipv6"));
    assert_eq!(told.facts("route.mtu", "cured", Some("ipv4"))["mtu"], 1200);
}

/// A tool that says something else than it should: what rests on it is not observed, and the story says which.
#[test]
fn what_is_not_so_is_not_observed() {
    if !testing::require_namespaces() {
        return;
    }
    let folder = folder("liar");
    let liar = folder.join("traceroute");
    std::fs::write(&liar, "#!/bin/sh\necho ' 1  192.0.2.80  0.1 ms'\n").unwrap();
    std::fs::set_permissions(&liar, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let output = Command::new(CTWHY).args(["lab", "run", "silent-router"]).env("PATH", path).output().unwrap();
    let story = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{story}");
    let line = "UDP traceroute shows stars where the routers are (IPv4, IPv6): 192.0.2.80";
    assert!(story.contains(&format!("NOT observed  {line}")), "{story}");
    let (_, end) = story.rsplit_once("observations were not made:").unwrap();
    assert!(end.contains(line) && !end.contains("a page of the server loads"), "{end}");
}

/// Killed while the NAT of the story is running.
#[test]
fn nothing_survives_a_kill() {
    if !testing::require_tun() || !testing::require_namespaces() {
        return;
    }
    let marked = Marked::new("scene-kill");
    let mut command = Command::new(CTWHY);
    let mut child = marked.apply(command.args(["lab", "run", "vmnat"]).stdout(Stdio::piped())).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.starts_with("traceroute to ")));
    child.kill().unwrap();
    child.wait().unwrap();
    marked.assert_all_gone();
}

/// A word of the story that is coloured is the word without colour, and captures are kept where they are asked for.
#[test]
fn captures_are_kept() {
    if !testing::require_namespaces() {
        return;
    }
    let folder = folder("kept");
    let output = Command::new(CTWHY)
        .args(["lab", "run", "silent-router", "--color", "always", "--keep"])
        .arg(&folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let story = String::from_utf8(output.stdout).unwrap();
    assert!(story.contains("\x1b[") && story.contains("packet NAT"), "{story}");
    let [inside, outside] = ["inside", "outside"].map(|side| folder.join(format!("silent-router-{side}.pcapng")));
    let output =
        Command::new(CTWHY).args(["diagnose", "--inside"]).arg(inside).arg("--outside").arg(outside).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("nothing amiss"));
}

/// Where there cannot be a lab, or nothing may be kept, it says why.
#[test]
fn what_cannot_be_played() {
    if !testing::require_namespaces() {
        return;
    }
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = said(Command::new(CTWHY).args(["lab", "run", "silent-router", "--keep", "/run/here"]));
    assert_eq!((code, text.lines().count()), (Some(2), 1), "{text}");
    assert!(text.contains("a lab has a /run of its own"), "{text}");
    let shell = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -all --inh-caps -all \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", shell, "sh", CTWHY, "lab", "run", "silent-router"]);
    let (code, text) = said(&mut command);
    assert_eq!((code, text.lines().count()), (Some(4), 1), "{text}");
    assert!(text.starts_with("ctwhy lab: skipped: ordinary users may not make namespaces here"), "{text}");
}
