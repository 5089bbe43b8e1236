//! What `ctwhy live` cannot work with: one clear line and exit code 2, and nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod live_common;

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use ctwhy_linux::lab::Lab;
use ctwhy_linux::signal::SIGINT;
use ctwhy_linux::sysctl;
use ctwhy_linux::testing;
use live_common::{CTWHY, Live, lab_with, our_rules};

/// The one line that a command says, which ends with exit code 2.
fn one_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("ctwhy: "), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
    said
}

fn live(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.command("nat", CTWHY).unwrap();
    command.arg("live").args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn without_privilege() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    for arguments in [&[][..], &["--install-rules"], &["--consumer", "nfq"]] {
        let mut command = live(&lab, arguments);
        // SAFETY: a system call on numbers. What is not in the bounding set is lost with exec, by root as well.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_CAPBSET_DROP, 12, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let said = one_line(&command.output().unwrap());
        assert!(said.contains("needs CAP_NET_ADMIN"), "{said}");
        assert_eq!(our_rules(&lab), "");
    }
}

#[test]
fn queue_or_rules_or_group_in_use() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    let first = Live::start(&lab, &["--install-rules", "--queue-num", "3"]);
    let rules = our_rules(&lab);
    for consumer in ["mnl", "nfq"] {
        let said = one_line(&live(&lab, &["--queue-num", "3", "--consumer", consumer]).output().unwrap());
        assert!(said.contains("queue 3 is already in use by pid "), "{said}");
        assert!(said.contains("(ctwhy)"), "{said}");
    }
    let said = one_line(&live(&lab, &["--queue-num", "4"]).output().unwrap());
    assert!(said.contains("NFLOG group 28 is already in use by pid "), "{said}");
    let other = ["--queue-num", "4", "--log-group", "29", "--install-rules"];
    let said = one_line(&live(&lab, &other).output().unwrap());
    assert!(said.contains("rules of ctwhy are in place already"), "{said}");
    // Nobody has touched the rules of the one that runs.
    assert_eq!(our_rules(&lab), rules);
    assert_eq!(first.stop(SIGINT).status.code(), Some(0));
    assert_eq!(our_rules(&lab), "");
}

#[test]
fn without_iptables() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    let hide = "for directory in /usr/sbin /sbin /usr/local/sbin; do \
                  if [ -d \"$directory\" ]; then mount -t tmpfs none \"$directory\" || exit 9; fi; done; exec \"$@\"";
    let mut command = lab.command("nat", "unshare").unwrap();
    // Tools may also have been unpacked in places of their own.
    command.env("PATH", "/usr/bin:/bin");
    command.args(["-m", "sh", "-c", hide, "sh", CTWHY, "live", "--install-rules", "--time", "20"]);
    let said = one_line(&command.output().unwrap());
    assert!(said.contains("`iptables` is not installed; on Debian: apt-get install iptables"), "{said}");
}

#[test]
fn without_events() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    lab.in_node("nat", || sysctl::write("net.netfilter.nf_conntrack_events", "0")).unwrap().unwrap();
    let said = one_line(&live(&lab, &["--install-rules"]).output().unwrap());
    assert!(said.contains("net.netfilter.nf_conntrack_events is 0"), "{said}");
    assert_eq!(our_rules(&lab), "");
}

#[test]
fn bad_arguments() {
    for (arguments, expected) in [
        (&["live", "--queue-num", "70000"][..], "70000"),
        (&["live", "--mark-shift", "29"], "0 to 28"),
        (&["live", "--time", "soon"], "a number of seconds"),
        (&["live", "--consumer", "pcap"], "mnl, nfq"),
        (&["live", "--log-group", "1", "--no-log"], "--no-log"),
        (&["rules", "--queue-num"], "--queue-num"),
        (&["lab", "run", "nothing"], "nothing"),
        (&["lab", "exec", "client"], "required"),
    ] {
        let output = Command::new(CTWHY).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

/// What `ctwhy rules` prints can be pasted, served, and removed again with the commands under it.
#[test]
fn printed_rules_work() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    let arguments = ["--queue-num", "5", "--mark-shift", "8", "--log-group", "30"];
    let printed = Command::new(CTWHY).arg("rules").args(arguments).output().unwrap();
    assert_eq!(printed.status.code(), Some(0));
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("ctwhy live --queue-num 5 --mark-shift 8 --log-group 30"), "{printed}");
    let (install, remove) = printed.split_once("# To remove them:").unwrap();
    let shell = |script: &str| {
        let mut command = lab.command("nat", "sh").unwrap();
        let output = command.args(["-e", "-c", script]).output().unwrap();
        assert!(output.status.success(), "{output:?}\n{script}");
    };
    shell(install);
    assert!(our_rules(&lab).contains("--queue-num 5"));
    let live = Live::start(&lab, &arguments);
    let (_, output) = live_common::try_run(&lab, "client", "traceroute -n -q 1 -N 1 -w 5 192.0.2.80");
    assert!(!output.contains('*'), "{output}");
    let ended = live.stop(SIGINT);
    ended.assert_agreement();
    assert!(ended.packets.len() >= 8);
    // Rules without a reader hurt nobody.
    let (_, output) = live_common::try_run(&lab, "client", "traceroute -n -q 1 -N 1 -w 5 192.0.2.80");
    assert!(!output.contains('*'), "{output}");
    shell(remove);
    assert_eq!(our_rules(&lab), "");
}

/// Without copies from behind NAT decisions alone are compared.
#[test]
fn without_copies() {
    if !testing::require_lab() {
        return;
    }
    let lab = lab_with("");
    let live = Live::start(&lab, &["--install-rules", "--no-log"]);
    for kind in ["", "-I", "-T", "-6", "-6 -I", "-6 -T"] {
        let target = if kind.starts_with("-6") { "2001:db8:2::80" } else { "192.0.2.80" };
        let (_, output) =
            live_common::try_run(&lab, "client", &format!("traceroute {kind} -n -q 1 -N 1 -w 5 {target}"));
        assert!(!output.contains('*'), "{output}");
    }
    let ended = live.stop(SIGINT);
    ended.assert_agreement();
    assert!(ended.count("RELATED_REPLY") >= 6 * 2, "{:#?}", ended.messages);
    assert!(ended.messages.iter().any(|line| line.contains("0 packets byte by byte")), "{:#?}", ended.messages);
}
