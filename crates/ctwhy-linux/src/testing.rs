//! For tests that need namespaces: whether they can have them here, and what to do when not.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::lab;
use crate::netns;
use crate::signal::wait_readable;
use crate::wire::{Frame, Way, Wire};

/// Set in the process that a test is run in again.
const INSIDE: &str = "CTWHY_TEST_INSIDE";

/// Gives a test a process that is root in namespaces of its own. To be called first:
///
/// ```no_run
/// # fn the_test() {
/// if !ctwhy_linux::testing::require_lab() {
///     return;
/// }
/// # }
/// ```
///
/// `true`: go on; [`lab::Lab::create`] and [`lab::Lab::in_node`] work. `false`: the test is over, because it has already
/// run, and passed, in a process of its own with this user as root in a user namespace; or because namespaces cannot be
/// had, and the line `skipped: TEST: reason` was printed past the test harness.
///
/// # Panics
/// When namespaces cannot be had and the environment variable CI is set; and when the test failed in its own process.
#[must_use]
#[allow(clippy::panic)]
pub fn require_lab() -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !require_namespaces() {
        return false;
    }
    if netns::is_privileged() {
        return true;
    }
    if let Err(reason) = run_inside() {
        panic!("{reason}");
    }
    false
}

/// As [`require_lab`], for a test that only runs commands in a lab, which an ordinary user's process can do itself.
///
/// # Panics
/// As [`require_lab`].
#[must_use]
pub fn require_namespaces() -> bool {
    static PROBED: OnceLock<Result<(), lab::WhyNot>> = OnceLock::new();
    match PROBED.get_or_init(lab::probe) {
        Ok(()) => true,
        Err(reason) => {
            skip(reason);
            false
        }
    }
}

/// May this user open TUN devices? Where not, the test is over: the line is printed as by [`require_lab`].
///
/// # Panics
/// When the device cannot be opened and the environment variable CI is set.
#[must_use]
pub fn require_tun() -> bool {
    match lab::probe_tun() {
        Ok(()) => true,
        Err(reason) => {
            skip(&reason);
            false
        }
    }
}

/// Says that the calling test is skipped: on standard error, past the harness that would hide it, and in the file that
/// the environment variable `CTWHY_SKIPS` names, a line `test: reason`, for whoever counts.
///
/// # Panics
/// When the environment variable CI is set: there nothing may be skipped.
#[allow(clippy::panic)]
pub fn skip(reason: &dyn std::fmt::Display) {
    let test = this_test();
    if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) {
        panic!("{test} cannot run here, and CI is set: {reason}");
    }
    // In one piece each: tests run side by side.
    let _ = io::stderr().write_all(format!("skipped: {test}: {reason}\n").as_bytes());
    if let Some(file) = std::env::var_os("CTWHY_SKIPS") {
        let file = OpenOptions::new().append(true).create(true).open(file);
        let _ = file.and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes()));
    }
}

/// The packets that went this way past an interface until one fulfils a condition, that one last. Those of a TUN device
/// have no Ethernet header.
///
/// # Panics
/// When the socket fails, or nothing came for 20 seconds.
#[allow(clippy::panic)]
pub fn packets_until(wire: &Wire, way: Way, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let is_tun = wire.hardware_address() == [0; 6];
    let mut seen = Vec::new();
    let waited = || wait_readable(&[wire.as_fd()], Some(PATIENCE)).map(|ready| ready.contains(&true));
    loop {
        match wire.recv() {
            Ok(Some(frame)) if frame.way == way => {
                let packet = if is_tun { frame.bytes } else { Frame::payload(&frame).to_vec() };
                let found = wanted(&packet);
                seen.push(packet);
                if found {
                    return seen;
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => match waited() {
                Ok(true) => {}
                Ok(false) => panic!("it never came; what came: {seen:02x?}"),
                Err(error) => panic!("waiting for packets: {error}"),
            },
            Err(error) => panic!("receiving packets: {error}"),
        }
    }
}

/// The harness names threads after tests.
fn this_test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

fn run_inside() -> io::Result<()> {
    let test = this_test();
    // Not by its path: an ordinary user may not be able to reach it.
    let mut command = Command::new("/proc/self/exe");
    let arguments: [OsString; 4] =
        [test.clone().into(), "--exact".into(), "--nocapture".into(), "--test-threads=1".into()];
    let output = netns::isolate_command(command.args(arguments).env(INSIDE, "1")).output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(io::Error::other(format!("{test} failed as root of a user namespace:\n{text}")));
    }
    if !text.contains("1 passed") {
        return Err(io::Error::other(format!("{test} did not run as root of a user namespace:\n{text}")));
    }
    print!("{text}");
    Ok(())
}
