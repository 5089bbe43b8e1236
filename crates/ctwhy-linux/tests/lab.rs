//! The lab against the kernel: it is built, reachable, isolated, and gone afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use ctwhy_linux::lab::{self, Lab, Topology};
use ctwhy_linux::testing::{require_lab, require_namespaces};
use ctwhy_linux::{program, signal, sysctl};

fn run(lab: &Lab, node: &str, line: &str) -> String {
    let mut words = line.split(' ');
    program::run(lab.command(node, words.next().unwrap()).unwrap().args(words), "").unwrap()
}

#[test]
fn traceroute_reaches_the_server_through_nat() {
    if !require_namespaces() {
        return;
    }
    let lab = Lab::create(Topology::traceroute()).unwrap();
    assert_eq!(lab.nodes().collect::<Vec<_>>(), ["client", "nat", "r1", "r2", "server"]);
    let v4 = run(&lab, "client", "traceroute -n -q1 192.0.2.80");
    let hops = |text: &str| -> Vec<String> {
        text.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(hops(&v4), ["192.168.1.1", "203.0.113.1", "198.51.100.2", "192.0.2.80"]);
    let v6 = run(&lab, "client", "traceroute -6 -n -q1 2001:db8:2::80");
    assert_eq!(hops(&v6), ["fd00:1::1", "2001:db8:113::1", "2001:db8:100::2", "2001:db8:2::80"]);
}

#[test]
fn a_command_on_a_node_has_exit_codes_signals_and_the_directory() {
    if !require_namespaces() {
        return;
    }
    let lab = Lab::create(Topology::default().node(lab::Node::host("a"))).unwrap();
    let mut fails = lab.command("a", "sh").unwrap();
    assert_eq!(fails.args(["-c", "exit 7"]).status().unwrap().code(), Some(7));
    let mut dies = lab.command("a", "sh").unwrap();
    let status = dies.args(["-c", "kill -USR1 $$"]).status().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(nix::sys::signal::Signal::SIGUSR1 as i32));
    let missing = lab.command("a", "no-such-program").unwrap_err();
    assert_eq!(missing.to_string(), "`no-such-program` is not installed");
    assert!(lab.command("b", "sh").unwrap_err().to_string().contains("no node b in this lab; it has a"));
    let here = run(&lab, "a", "pwd");
    assert_eq!(here.trim(), std::env::current_dir().unwrap().to_str().unwrap());

    // A signal sent to the command reaches the program, which ends as it likes.
    let mut traps = lab.command("a", "sh").unwrap();
    traps.args(["-c", "trap 'exit 42' TERM; echo ready; while :; do read -r x || :; done"]);
    let mut child = traps.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM).unwrap();
    // The shell runs its trap when `read` returns.
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(42));
}

/// The other tests of this file once more, without privilege.
#[test]
fn all_this_is_possible_for_an_ordinary_user() {
    const NOBODY: u32 = 65534;
    if !nix::unistd::geteuid().is_root() || !require_namespaces() {
        return;
    }
    let mut tests = std::process::Command::new("/proc/self/exe");
    tests.args(["--skip", "ordinary_user", "--nocapture"]).current_dir("/").env_remove("XDG_RUNTIME_DIR");
    let output = tests.uid(NOBODY).gid(NOBODY).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("8 passed"), "{text}");
}

#[test]
fn settings_and_names_of_a_lab_stay_in_it() {
    if !require_lab() {
        return;
    }
    let outside = sysctl::read("net.ipv4.ip_default_ttl").unwrap();
    let node = |ttl: &str| Topology::default().node(lab::Node::host("a").sysctl("net.ipv4.ip_default_ttl", ttl));
    let (one, other) = (Lab::create(node("11")).unwrap(), Lab::create(node("22")).unwrap());
    for (lab, ttl) in [(&one, "11"), (&other, "22")] {
        assert_eq!(run(lab, "a", "cat /proc/sys/net/ipv4/ip_default_ttl").trim(), ttl);
        assert_eq!(lab.in_node("a", || sysctl::read("net.ipv4.ip_default_ttl")).unwrap().unwrap().unwrap(), ttl);
    }
    assert_eq!(sysctl::read("net.ipv4.ip_default_ttl").unwrap(), outside);
    assert!(!std::path::Path::new("/run/netns/a").exists());
    let refused = Topology::default().node(lab::Node::host("a").sysctl("net.netfilter.nf_conntrack_max", "1"));
    assert!(Lab::create(refused).unwrap_err().to_string().contains("never written"));
}

#[test]
fn dropping_a_lab_ends_every_process_in_it() {
    if !require_namespaces() {
        return;
    }
    let lab = Lab::create(Topology::default().node(lab::Node::host("a"))).unwrap();
    let mut shell = lab.command("a", "sh").unwrap();
    // The grandchild, which nobody waits for, holds the pipe open until it is killed.
    shell.args(["-c", "tail -f /dev/null & echo started; exec tail -f /dev/null"]);
    let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
    let mut started = [0; 8];
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut started).unwrap();
    drop(lab);
    let mut rest = Vec::new();
    pipe.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    assert!(!child.wait().unwrap().success());
}

/// Set in the process that must not make namespaces.
const FORBIDDEN: &str = "CTWHY_TEST_FORBIDDEN";

/// Not a test of its own: the process that [`where_namespaces_are_forbidden_tests_say_so`] starts.
#[test]
#[ignore = "started by another test"]
fn forbidden() {
    if std::env::var_os(FORBIDDEN).is_some() {
        assert!(!require_namespaces() && !require_lab());
    }
}

#[test]
fn where_namespaces_are_forbidden_tests_say_so() {
    if !require_namespaces() {
        return;
    }
    // The limit is that of the user namespace made by the first command; nothing outside changes.
    let shell = "echo 0 >/proc/sys/user/max_user_namespaces && \
        exec setpriv --bounding-set -all --inh-caps -all \"$0\" forbidden --exact --ignored --nocapture";
    // By a descriptor that the commands inherit: an ordinary user may not be able to reach the path.
    let own = std::fs::File::open("/proc/self/exe").unwrap();
    nix::fcntl::fcntl(&own, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    for ci in [false, true] {
        let mut command = std::process::Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "sh", "-c", shell])
            .arg(format!("/proc/self/fd/{}", own.as_raw_fd()));
        command.env(FORBIDDEN, "1").env_remove("CI").env_remove("CTWHY_SKIPS");
        if ci {
            command.env("CI", "true");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = "ordinary users may not make namespaces here (user.max_user_namespaces=0); root can";
        assert!(text.contains(reason), "{text}");
        assert_eq!(text.contains(&format!("skipped: forbidden: {reason}")), !ci, "{text}");
        assert_eq!(output.status.success(), !ci, "{text}");
    }
}

/// Set in the process that another test kills.
const HOLD: &str = "CTWHY_TEST_HOLD";

/// Not a test of its own: the process that [`a_lab_does_not_outlive_a_killed_process`] starts and kills.
#[test]
#[ignore = "started by another test"]
fn hold() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let lab = Lab::create(Topology::default().node(lab::Node::host("a"))).unwrap();
    let mut child = lab.command("a", "sh").unwrap().args(["-c", "echo @; exec tail -f /dev/null"]).spawn().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_lab_does_not_outlive_a_killed_process() {
    if !require_namespaces() {
        return;
    }
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(["hold", "--exact", "--ignored", "--nocapture"]).env(HOLD, "1");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let mut byte = [0];
    while byte != *b"@" {
        pipe.read_exact(&mut byte).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The program on the node has the other end of the pipe, too.
    pipe.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_named_lab_is_found_again_and_taken_down() {
    if !require_namespaces() {
        return;
    }
    let name = format!("test-{}", std::process::id());
    let up = lab::up(&name, Topology::default().node(lab::Node::host("a"))).unwrap();
    assert_eq!(up.nodes, ["a"]);
    assert!(lab::up(&name, Topology::default()).unwrap_err().to_string().contains("is up already"));
    assert!(lab::list().unwrap().contains(&up));
    let attached = lab::attach(&name).unwrap();
    assert_eq!(run(&attached, "a", "echo here").trim(), "here");
    drop(attached);
    assert_eq!(lab::list().unwrap().iter().filter(|info| **info == up).count(), 1);
    lab::down(&name).unwrap();
    assert!(!lab::list().unwrap().contains(&up));
    assert!(lab::attach(&name).unwrap_err().to_string().contains("no lab named"));
    assert!(!std::path::Path::new(&format!("/proc/{}/ns/net", up.pid)).exists());

    // Killed by somebody else: its file is found to speak of nothing, and removed.
    let again = lab::up(&name, Topology::default()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(again.pid), nix::sys::signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(again.pid), None).unwrap();
    assert!(lab::down(&name).unwrap_err().to_string().contains("no lab named"));
    assert!(!lab::list().unwrap().contains(&again));
    for bad in ["", "../x", "a b", "-x"] {
        assert!(lab::up(bad, Topology::default()).unwrap_err().to_string().contains("cannot name a lab"));
    }
}

#[test]
fn injected_packets_arrive_and_are_captured() {
    if !require_lab() {
        return;
    }
    let lab = Lab::create(Topology::traceroute()).unwrap();
    let wire = lab.wire("server", "eth0").unwrap();
    let injector = lab.injector("server", "eth0").unwrap();
    let mut packet = vec![0x45, 0, 0, 21, 0, 7, 0, 0, 64, 253, 0, 0, 192, 0, 2, 1, 192, 0, 2, 80, 0xaa];
    let sum = packet[..20].chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum::<u32>();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    injector.inject(&packet).unwrap();
    let deadline = Some(std::time::Duration::from_secs(5));
    loop {
        use std::os::fd::AsFd;
        assert!(signal::wait_readable(&[wire.as_fd()], deadline).unwrap()[0], "nothing came");
        let Some(frame) = wire.recv().unwrap() else { continue };
        if frame.payload() == packet {
            assert_eq!((frame.way, frame.hw_protocol), (ctwhy_linux::wire::Way::In, 0x800));
            assert!(frame.time > std::time::Duration::ZERO);
            break;
        }
    }
    assert!(injector.inject(&[0]).is_err());
    assert!(lab.wire("server", "eth9").unwrap_err().to_string().contains("eth9"));
}
