//! The tools that are called: where they are, and which package has a missing one.

use std::env;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where tools for the administrator live, which an ordinary user's PATH leaves out.
const ADMIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// A tool that is not installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What was looked for.
    pub program: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not installed", self.program)?;
        match package(&self.program) {
            Some(package) => write!(f, "; on Debian: apt-get install {package}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Missing {}

impl From<Missing> for io::Error {
    fn from(missing: Missing) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, missing)
    }
}

/// The Debian package of a tool.
#[must_use]
pub fn package(program: &str) -> Option<&'static str> {
    Some(match program {
        "ip" | "ss" => "iproute2",
        "conntrack" => "conntrack",
        "iptables" | "ip6tables" | "iptables-restore" | "ip6tables-restore" | "iptables-save" | "ip6tables-save" => {
            "iptables"
        }
        "nft" => "nftables",
        "ping" => "iputils-ping",
        "iperf3" => "iperf3",
        "pasta" => "passt",
        "slirp4netns" => "slirp4netns",
        "tcpdump" => "tcpdump",
        "traceroute" => "traceroute",
        _ => return None,
    })
}

/// PATH with the administrator's directories behind it.
#[must_use]
pub fn search_path() -> std::ffi::OsString {
    let mut directories: Vec<PathBuf> = env::var_os("PATH").map(|p| env::split_paths(&p).collect()).unwrap_or_default();
    for admin in ADMIN {
        if !directories.iter().any(|d| d == Path::new(admin)) {
            directories.push(PathBuf::from(admin));
        }
    }
    env::join_paths(directories).unwrap_or_default()
}

/// The file of a tool. A name with a slash stands for itself.
///
/// # Errors
/// It is in no directory of the search path.
pub fn find(program: &str) -> Result<PathBuf, Missing> {
    let runs = |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let found = if program.contains('/') {
        Some(PathBuf::from(program)).filter(|path| runs(path))
    } else {
        env::split_paths(&search_path()).map(|directory| directory.join(program)).find(|path| runs(path))
    };
    found.ok_or_else(|| Missing { program: program.to_owned() })
}

/// A command for a tool, which finds other tools in turn.
///
/// # Errors
/// It is not installed.
pub fn command(program: &str) -> Result<Command, Missing> {
    let mut command = Command::new(find(program)?);
    command.env("PATH", search_path());
    Ok(command)
}

/// Runs a command with this input to its end and gives what it printed.
///
/// # Errors
/// It does not start, or ends with an error; the text is what it printed to standard error.
pub fn run(command: &mut Command, input: &str) -> io::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(crate::context(format_args!("starting {name}")))?;
    // The tools read all of their input before they print more than a pipe holds. One that ends without reading it says
    // why itself.
    if let Some(mut pipe) = child.stdin.take() {
        let _ = io::Write::write_all(&mut pipe, input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    Err(io::Error::other(format!("`{name} {}` ended with {}: {said}", arguments.join(" "), output.status)))
}

/// How long a process with all its threads has been on a processor, interrupts of the network served on its way included
/// unless the kernel counts those apart (CONFIG_IRQ_TIME_ACCOUNTING).
///
/// # Errors
/// It has ended, or the kernel does not say (CONFIG_SCHED_INFO).
pub fn processor_time(pid: i32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = std::fs::read_to_string(&path).map_err(crate::context(path.display()))?;
        nanoseconds += text.split_ascii_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}
