//! `ctwhy fixture` and `ctwhy conform kernel`.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ctwhy_linux::testing;

const CASE: &str = "error-wrong-outer-destination-v4";
const RECORDING: &str = "kernel-6.18.44.jsonl";

/// A folder that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let folder = std::env::temp_dir().join(format!("ctwhy-fixture-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Scratch(folder)
    }

    /// A copy of the case in which the kernel's words are others.
    fn copy(&self, name: &str, from: &str, to: &str) -> String {
        let folder = self.0.join(name);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(fixture()).unwrap() {
            let file = entry.unwrap();
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        let text = fs::read_to_string(folder.join(RECORDING)).unwrap();
        assert!(text.contains(from));
        fs::write(folder.join(RECORDING), text.replace(from, to)).unwrap();
        folder.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(CASE)
}

/// Exit code, standard output, standard error.
fn ctwhy(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ctwhy")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_case_checks_and_a_changed_one_differs() {
    let scratch = Scratch::new("check");
    let good = scratch.copy("good", "INVALID", "INVALID");
    let wrong = scratch.copy("wrong", "RELATED_REPLY", "ESTABLISHED");
    assert_eq!(
        ctwhy(&["fixture", "check", &good]),
        (0, "ok good: 4 packets\n1 case: 1 ok, 0 differ, 0 unreadable\n".to_owned(), String::new())
    );
    let (code, out, _) = ctwhy(&["fixture", "check", scratch.0.to_str().unwrap()]);
    assert_eq!(code, 1, "{out}");
    let expected = "DIFFERS wrong\n    6.18.44: packet 4: the kernel said ESTABLISHED, decided was RELATED_REPLY\n";
    assert!(out.contains(expected), "{out}");
    assert!(out.ends_with("2 cases: 1 ok, 1 differ, 0 unreadable\n"), "{out}");

    // A broken case does not hide the others, and weighs more than a difference.
    let broken = scratch.copy("broken", "\"schema\":1", "\"schema\":\"\\u001b\"");
    let (code, out, _) = ctwhy(&["fixture", "check", &good, &wrong, &broken]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("UNREADABLE broken\n    ") && out.contains(".jsonl:1: "), "{out}");
    assert!(out.ends_with("3 cases: 1 ok, 1 differ, 1 unreadable\n"), "{out}");
    assert!(!out.contains('\u{1b}'), "{out}");

    let empty = scratch.0.join("empty");
    fs::create_dir(&empty).unwrap();
    let (code, _, complaint) = ctwhy(&["fixture", "check", empty.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(complaint.contains("no case there or below"), "{complaint}");
}

#[test]
fn all_that_is_known_to_be_missing_is_listed_and_no_more() {
    let fixtures = fixture().parent().unwrap().to_str().unwrap().to_owned();
    let (code, out, complaint) = ctwhy(&["fixture", "check", &fixtures]);
    assert_eq!(code, 0, "{out}{complaint}");
    assert!(out.contains(" shown by cases, ") && out.contains(" known gaps\n"), "{out}");
}

#[test]
fn a_list_of_gaps_that_is_not_true_fails_the_run() {
    let scratch = Scratch::new("gaps");
    scratch.copy("good", "INVALID", "INVALID");
    let wrong = scratch.copy("wrong", "RELATED_REPLY", "ESTABLISHED");
    let root = scratch.0.to_str().unwrap();
    let write = |catalogue: &str, gaps: &str| {
        fs::write(scratch.0.join("catalogue.toml"), format!("[observable]\n{catalogue}")).unwrap();
        fs::write(scratch.0.join("gaps.toml"), gaps).unwrap();
    };
    let shown = "ICMP-REL-03 = 'a'\nICMP-REL-04 = 'b'\n";
    let known = "[differs]\nwrong = 'it was changed'\n";

    write(shown, known);
    let (code, out, _) = ctwhy(&["fixture", "check", root]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("known wrong: differs, because it was changed\n"), "{out}");
    assert!(out.contains("2 decisions: 2 shown by cases, 0 by tests, 0 known gaps\n"), "{out}");
    assert!(out.ends_with("2 cases: 1 ok, 0 differ, 0 unreadable, 1 known to differ\n"), "{out}");
    // What is known stands beside a case also when only the case is asked for.
    assert_eq!(ctwhy(&["fixture", "check", &wrong]).0, 0);

    write(&format!("{shown}NEW-01 = 'fresh'\n"), &format!("{known}good = 'it is not'\n[gaps]\nICMP-REL-03 = 'x'\n"));
    let (code, out, _) = ctwhy(&["fixture", "check", root]);
    assert_eq!(code, 1, "{out}");
    for finding in [
        "/gaps.toml:3: stale gap: case good agrees; delete the line\n",
        "/gaps.toml:5: stale: case good shows ICMP-REL-03; delete the line\n",
        "/catalogue.toml: nothing shows NEW-01 (fresh); add it to the `ids`",
    ] {
        assert!(out.contains(finding), "{finding}\nis not in\n{out}");
    }

    write(shown, "[gaps]\nNEW-02 = ''\n");
    let (code, _, complaint) = ctwhy(&["fixture", "check", root]);
    assert_eq!(code, 2);
    assert!(complaint.contains("gaps.toml:2: a gap needs a reason"), "{complaint}");
}

#[test]
fn a_case_is_shown_without_its_control_characters() {
    let scratch = Scratch::new("show");
    let folder = scratch.copy("evil", "outer daddr", "\\u001b[2J");
    let (code, out, complaint) = ctwhy(&["fixture", "show", &folder]);
    assert_eq!(code, 0, "{complaint}");
    for part in [
        "The error goes to somebody who did not send the packet\n",
        "decisions  ICMP-REL-03 ICMP-REL-04\n",
        "interface  wan 203.0.113.2/24\n",
        "route      0.0.0.0/0 via 203.0.113.1 dev wan\n",
        "rules      -A POSTROUTING -o wan -j MASQUERADE\n",
        "   2   0.001000 wan    INVALID ",
        "kernel: INVALID, logged \"nf_ct_proto_1: \\u{1b}[2J 192.168.1.1 != inner 203.0.113.2\"; delivered to the box\n",
        "kernel: RELATED_REPLY; forwarded out of lan (68 bytes)\n",
        "[UNREPLIED] src=192.0.2.80 dst=203.0.113.2 sport=33434 dport=40000 mark=0 use=1\n",
    ] {
        assert!(out.contains(part), "{part}\nis not in\n{out}");
    }
    assert!(!out.contains('\u{1b}'), "{out}");
    assert_eq!(ctwhy(&["fixture", "show", "/nowhere"]).0, 2);
}

#[test]
fn the_kernel_records_and_what_it_recorded_checks() {
    if !testing::require_namespaces() {
        return;
    }
    let scratch = Scratch::new("record");
    let good = scratch.copy("good", "INVALID", "INVALID");
    let other = scratch.0.join("other");
    let (code, out, complaint) = ctwhy(&["fixture", "record", &good, "--output", other.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{complaint}");
    let written: Vec<_> = fs::read_dir(other.join("good")).unwrap().collect();
    assert_eq!(written.len(), 1);

    // What a kernel did not say is put right by asking it, if it is the same one.
    let wrong = scratch.copy("wrong", "RELATED_REPLY", "ESTABLISHED");
    let (code, out, complaint) = ctwhy(&["fixture", "record", &wrong]);
    assert_eq!(code, 0, "{out}{complaint}");
    if out.starts_with("CHANGED wrong: ") {
        assert!(out.contains("packet 4: the kernel said ESTABLISHED, decided was RELATED_REPLY\n"), "{out}");
        assert_eq!(ctwhy(&["fixture", "check", &wrong]).0, 0);
        assert!(ctwhy(&["fixture", "record", &wrong]).1.starts_with("unchanged wrong: "));

        // One that was made when less was looked at gets the rest, and keeps what it says.
        let less = scratch.copy("less", "INVALID", "INVALID");
        let recording = Path::new(&less).join(RECORDING);
        let whole = fs::read_to_string(&recording).unwrap();
        let without = &whole[..whole.find("{\"kind\":\"counters\"").unwrap()];
        fs::write(&recording, without).unwrap();
        let (code, out, complaint) = ctwhy(&["fixture", "record", &less]);
        assert_eq!((code, &out[..16]), (0, "completed less: "), "{out}{complaint}");
        assert_eq!(fs::read_to_string(&recording).unwrap(), whole);
    } else {
        assert!(out.starts_with("new wrong: "), "{out}");
    }
}

#[test]
fn kernel_and_engine_side_by_side() {
    if !testing::require_namespaces() {
        return;
    }
    let scratch = Scratch::new("conform");
    let good = scratch.copy("good", "INVALID", "INVALID");
    let broken = scratch.copy("broken", "\"schema\":1", "\"schema\":\"<&>\"");
    let (code, out, complaint) = ctwhy(&["conform", "kernel", &good]);
    assert_eq!(code, 0, "{out}{complaint}");
    assert!(out.starts_with("kernel ") && out.contains("\nagree    good "), "{out}");
    assert!(out.ends_with("1 case: 1 agree, 0 differ, 0 failed\n"), "{out}");

    let (code, out, _) = ctwhy(&["conform", "kernel", "--tap", &good, &broken]);
    assert_eq!(code, 2, "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["TAP version 14", "1..2"]);
    assert!(lines[2].starts_with("# kernel "), "{out}");
    assert_eq!(lines[3..7], ["ok 1 - good", "not ok 2 - broken", "  ---", "  differences:"]);
    assert!(lines[7].starts_with("    - '") && lines[7].ends_with('\''), "{out}");
    assert_eq!(lines[8..], ["  ...", "# 2 cases: 1 agree, 0 differ, 1 failed"]);

    let file = scratch.0.join("junit.xml");
    let (code, ..) = ctwhy(&["conform", "kernel", "--junit", file.to_str().unwrap(), &good, &broken]);
    assert_eq!(code, 2);
    let xml = fs::read_to_string(&file).unwrap();
    assert!(xml.contains("tests=\"2\" failures=\"0\" errors=\"1\""), "{xml}");
    assert!(xml.contains("<testcase classname=\"ctwhy.kernel\" name=\"good\"/>"), "{xml}");
    // Every tag that opens is closed, and no text looks like one.
    let mut open = Vec::new();
    for tag in xml.split('<').skip(2).map(|rest| rest.split_once('>').unwrap().0) {
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name.to_owned()), "{xml}"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap().to_owned()),
        }
    }
    assert!(open.is_empty(), "{xml}");
}

/// A recording that says otherwise than the kernel decides now: they differ, and the exit code says so.
#[test]
fn a_difference_beside_the_kernel_ends_with_1() {
    if !testing::require_namespaces() {
        return;
    }
    let scratch = Scratch::new("differs");
    let wrong = scratch.copy("wrong", "RELATED_REPLY", "ESTABLISHED");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if !release.starts_with("6.18.44") {
        // What is wrong in the copy is what another kernel said.
        return testing::skip(&"the recording that this changes is of another release");
    }
    let (code, out, complaint) = ctwhy(&["conform", "kernel", &wrong]);
    assert_eq!(code, 1, "{out}{complaint}");
    assert!(out.contains("\nDIFFERS  wrong "), "{out}");
    let line = "recording beside the kernel now: packet 4: the kernel said ESTABLISHED, decided was RELATED_REPLY\n";
    assert!(out.contains(line), "{out}");
    assert!(out.ends_with("1 case: 0 agree, 1 differ, 0 failed\n"), "{out}");
    let file = scratch.0.join("junit.xml");
    assert_eq!(ctwhy(&["conform", "kernel", "--junit", file.to_str().unwrap(), &wrong]).0, 1);
    let xml = fs::read_to_string(&file).unwrap();
    assert!(xml.contains("tests=\"1\" failures=\"1\" errors=\"0\"") && xml.contains("<failure message="), "{xml}");
}

/// In a lab `/run` is another one: what is written there is gone.
#[test]
fn what_would_be_lost_is_refused() {
    let scratch = Scratch::new("run");
    let good = scratch.copy("good", "INVALID", "INVALID");
    for arguments in [
        &["fixture", "record", &good, "--output", "/run/ctwhy/absent"][..],
        &["conform", "kernel", &good, "--junit", "/run/ctwhy.xml"],
    ] {
        let (code, out, complaint) = ctwhy(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{complaint}");
        assert!(complaint.contains("a lab has a /run of its own"), "{complaint}");
    }
}

/// Without its tools nothing is recorded, and nothing is wrong with the case: that is a skip, said aloud.
#[test]
fn a_missing_tool_skips() {
    if !testing::require_namespaces() {
        return;
    }
    let scratch = Scratch::new("tools");
    let good = scratch.copy("good", "INVALID", "INVALID");
    let hide = "for directory in /usr/sbin /sbin /usr/local/sbin; do \
                  if [ -d \"$directory\" ]; then mount -t tmpfs none \"$directory\" || exit 9; fi; done; exec \"$@\"";
    for arguments in [["fixture", "record"], ["conform", "kernel"]] {
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", hide, "sh", env!("CARGO_BIN_EXE_ctwhy")]).args(arguments).arg(&good);
        let output = command.env("PATH", "/usr/bin:/bin").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains("skipped, no lab can be built here: ") && said.contains("is not installed"), "{said}");
    }
}

/// The format is for everybody: a reader of a page, in another language and without this code, finds in a case what is there.
#[test]
fn a_case_is_read_by_another_language() {
    let found = Command::new("python3").args(["-c", "import tomllib"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        return testing::skip(&"no python3 with tomllib");
    }
    let fixtures = fixture().parent().unwrap().to_owned();
    let script = fixtures.join("../scripts/read_case.py");
    let output = Command::new("python3").arg(&script).args(["--check"]).arg(&fixtures).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, complaint) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{out}{complaint}");
    let folders = ctwhy_fixture::case::Case::find(&fixtures).unwrap();
    let packets: usize =
        folders.iter().map(|folder| ctwhy_fixture::case::Case::read(folder).unwrap().packets.len()).sum();
    assert_eq!(out, format!("{} cases, {packets} packets\n", folders.len()));

    let output = Command::new("python3").arg(&script).arg(fixture()).output().unwrap();
    let out = text(output.stdout);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "The error goes to somebody who did not send the packet");
    assert_eq!(lines[1], "1 lan 40 bytes: NEW, forwarded by wan (40 bytes)");
    assert_eq!(lines[2], "2 wan 68 bytes: INVALID, delivered");
}
