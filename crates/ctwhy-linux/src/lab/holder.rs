//! The process that keeps a lab's namespaces alive. It is the first process of the lab's PID namespace: when it ends, the
//! kernel kills every other process of the lab, and with the last of them the namespaces go.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::context;
use crate::netns::{IdMaps, is_privileged, private_mounts};
use crate::signal::wait_readable;

/// How long a holder lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// Until this process ends, however it ends.
    WithThisProcess,
    /// Until it is killed.
    UntilKilled,
}

/// A running holder.
#[derive(Debug)]
pub(super) struct Holder {
    pid: i32,
    /// Stands for the process even when its number is used again, and becomes readable when it has ended.
    process: OwnedFd,
    /// When the process started, in clock ticks since boot: tells it from a later one with the same number.
    started: u64,
    /// The holder ends when the last copy of this is closed.
    _lifeline: Option<OwnedFd>,
    kill_on_drop: bool,
}

/// What failed in the clone, as the number that it reports.
const STEPS: [&str; 3] = ["mapping the user", "making mounts private", "preparing the process"];

impl Holder {
    pub(super) fn start(lifetime: Lifetime) -> io::Result<Holder> {
        let privileged = is_privileged();
        let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID | libc::SIGCHLD;
        if !privileged {
            flags |= libc::CLONE_NEWUSER;
        }
        let maps = (!privileged).then(IdMaps::of_this_user);
        let (mut report_read, report_write) = io::pipe()?;
        let (lifeline_read, lifeline_write) = io::pipe()?;
        let (report, lifeline) = (report_write.as_raw_fd(), lifeline_read.as_raw_fd());
        // SAFETY: without a stack of its own the clone goes on here, like a fork; it makes only system calls and never
        // returns.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0usize, 0usize, 0usize, 0usize) };
        if pid == 0 {
            // SAFETY: this is the clone.
            unsafe { hold(maps.as_ref(), report, (lifetime == Lifetime::WithThisProcess).then_some(lifeline)) }
        }
        let pid = i32::try_from(pid).unwrap_or(-1);
        if pid < 0 {
            return Err(context("making namespaces")(io::Error::last_os_error()));
        }
        drop((report_write, lifeline_read));
        let _lifeline = (lifetime == Lifetime::WithThisProcess).then(|| OwnedFd::from(lifeline_write));
        // From here on an error kills the clone.
        let mut holder = Holder { pid, process: open_process(pid)?, started: 0, _lifeline, kill_on_drop: true };
        let mut answer = [0; 5];
        report_read.read_exact(&mut answer).map_err(context("the process that holds the lab ended at once"))?;
        let [step, errno @ ..] = answer;
        if let Some(doing) = usize::from(step).checked_sub(1).and_then(|index| STEPS.get(index)) {
            return Err(context(doing)(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))));
        }
        holder.started = start_time(pid).ok_or_else(|| io::Error::other("the process that holds the lab is gone"))?;
        Ok(holder)
    }

    /// Lets the holder live on when this is dropped.
    pub(super) fn keep(&mut self) {
        self.kill_on_drop = false;
    }

    /// A holder that an earlier process started. `None` when it has ended.
    pub(super) fn find(pid: i32, started: u64) -> Option<Holder> {
        // Opened first: what is compared afterwards is what was opened.
        let process = open_process(pid).ok()?;
        let alive = start_time(pid) == Some(started);
        alive.then_some(Holder { pid, process, started, _lifeline: None, kill_on_drop: false })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Kills the holder and with it the lab, and returns when all of its processes have ended.
    pub(super) fn kill(&self) {
        let no_info = std::ptr::null_mut::<libc::siginfo_t>();
        // SAFETY: a system call on a descriptor of ours, numbers and a null pointer.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.process.as_raw_fd(), libc::SIGKILL, no_info, 0) };
        // Waiting fails only for lack of memory; there is nothing better to do then than not to wait.
        while wait_readable(&[self.process.as_fd()], None).is_ok_and(|ready| !ready.contains(&true)) {}
        // SAFETY: a system call on a number and a null pointer. It does nothing when the holder is not our child, and
        // when it is, nobody else has waited for it.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

/// `pidfd_open`.
fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a system call on numbers; the descriptor that it gives is nobody else's.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return Err(context(format_args!("process {pid}"))(io::Error::last_os_error()));
        }
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.kill_on_drop {
            self.kill();
        }
    }
}

/// Field 22 of `/proc/PID/stat`. `None` for a process that is gone or only waits to be waited for.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(started)
}

/// What the clone does. Only system calls.
///
/// # Safety
/// To be called in a fresh clone only; the descriptors are open.
unsafe fn hold(maps: Option<&IdMaps>, report: RawFd, lifeline: Option<RawFd>) -> ! {
    // SAFETY: system calls on live locals and constant strings.
    unsafe {
        let result = maps
            .map_or(Ok(()), IdMaps::write)
            .map_err(|error| (1, error))
            .and_then(|()| private_mounts().map_err(|error| (2, error)))
            .and_then(|()| prepare(report, lifeline).map_err(|error| (3, error)));
        let (step, errno) = match result {
            Ok(()) => (0, 0),
            Err((step, error)) => (step, error.raw_os_error().unwrap_or(libc::EIO)),
        };
        let [e0, e1, e2, e3] = errno.to_ne_bytes();
        let answer: [u8; 5] = [step, e0, e1, e2, e3];
        libc::write(report, answer.as_ptr().cast(), answer.len());
        libc::close(report);
        if step != 0 {
            libc::_exit(1);
        }
        match lifeline {
            // Nobody writes: this returns when the other end is closed.
            Some(lifeline) => {
                let mut byte = 0u8;
                while libc::read(lifeline, (&raw mut byte).cast(), 1) < 0 {}
                libc::_exit(0)
            }
            None => loop {
                libc::pause();
            },
        }
    }
}

/// Cuts the clone loose from everything of its parent. Only system calls.
///
/// # Safety
/// As [`hold`].
unsafe fn prepare(report: RawFd, lifeline: Option<RawFd>) -> io::Result<()> {
    // SAFETY: as said.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"ctwhy-lab".as_ptr());
        // Orphans of the lab are ours to bury; ignoring the signal has the kernel do it.
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        // A /proc of the new PID namespace is a comfort; containers that hide parts of /proc forbid it.
        libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, std::ptr::null());
        libc::chdir(c"/".as_ptr());
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        if null < 0 {
            return Err(io::Error::last_os_error());
        }
        for standard in 0..3 {
            libc::dup2(null, standard);
        }
        // Somebody else's pipe kept open here would never end.
        let mut keep = [report, lifeline.unwrap_or(report)];
        keep.sort_unstable();
        let mut from = 3;
        for fd in keep {
            if fd > from {
                libc::syscall(libc::SYS_close_range, from as libc::c_uint, (fd - 1) as libc::c_uint, 0);
            }
            from = fd + 1;
        }
        libc::syscall(libc::SYS_close_range, from as libc::c_uint, libc::c_uint::MAX, 0);
        Ok(())
    }
}
