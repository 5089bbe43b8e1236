//! Processor time: of the program in the middle, and of everybody who has part in carrying a packet.
//!
//! Most of the work of a network of namespaces is done by whoever happens to be on the processor: a sender's system call
//! carries its packet through every router up to the next program that has to be woken. So all of these are counted: the
//! client, the server, the NAT, and the kernel's threads that serve the network when there is too much of it. Other
//! programs on the machine are not, and neither is what waits.

use std::fs;
use std::io;
use std::time::Duration;

use ctwhy_linux::{lab, program};

use crate::way::Stage;

/// Processor time until now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    own: Option<Duration>,
    all: Duration,
}

/// Processor time between two readings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// By the program in the middle, if there is one.
    pub(crate) own: Option<Duration>,
    /// By everybody.
    pub(crate) all: Duration,
}

/// Where the kernel counts network interrupts apart, they are in nobody's time.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    kernel_threads: Vec<i32>,
    interrupts_apart: bool,
}

impl Meter {
    pub(crate) fn new() -> Meter {
        let is_one = |pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("ksoftirqd/")
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Meter { kernel_threads: pids.filter(is_one).collect(), interrupts_apart: interrupts_apart() }
    }

    pub(crate) fn read(&self, stage: &Stage) -> io::Result<Reading> {
        let own = stage.pid().map(program::processor_time).transpose()?;
        let mut all = own.unwrap_or_default() + used(libc::RUSAGE_SELF)? + used(libc::RUSAGE_CHILDREN)?;
        let server = stage.iperf3.as_ref().and_then(lab::pid);
        for pid in self.kernel_threads.iter().copied().chain(server) {
            all += program::processor_time(pid)?;
        }
        if self.interrupts_apart {
            all += interrupts()?;
        }
        Ok(Reading { own, all })
    }

    pub(crate) fn since(&self, before: &Reading, stage: &Stage) -> io::Result<Spent> {
        let now = self.read(stage)?;
        let own = now.own.zip(before.own).map(|(now, before)| now.saturating_sub(before));
        Ok(Spent { own, all: now.all.saturating_sub(before.all) })
    }
}

fn used(who: libc::c_int) -> io::Result<Duration> {
    // SAFETY: all-zero is a valid `rusage`, and the call writes no other memory.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(who, &raw mut usage) < 0 {
            return Err(io::Error::last_os_error());
        }
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// CONFIG_IRQ_TIME_ACCOUNTING, as far as the kernel or its package says.
fn interrupts_apart() -> bool {
    let is_set = |config: &str| config.lines().any(|line| line == "CONFIG_IRQ_TIME_ACCOUNTING=y");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let of_package = fs::read_to_string(format!("/boot/config-{}", release.trim())).ok();
    let of_kernel = || program::run(program::command("zcat").ok()?.arg("/proc/config.gz"), "").ok();
    of_package.or_else(of_kernel).is_some_and(|config| is_set(&config))
}

/// Time of interrupts, of the whole machine.
fn interrupts() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let columns = text.lines().next().unwrap_or_default().split_ascii_whitespace();
    let ticks: u64 = columns.skip(6).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // The unit in which the kernel talks to programs is the same on every machine that this runs on.
    Ok(Duration::from_millis(ticks * 10))
}
