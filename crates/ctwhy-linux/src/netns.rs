//! Namespaces: making them, and entering them with a thread, a command or this whole process.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::context;

/// Bits of `CapEff` that a lab needs: CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN.
const CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 21;

/// May this process make network namespaces without a user namespace?
#[must_use]
pub fn is_privileged() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|c| c & CAPABILITIES == CAPABILITIES)
}

/// The files to write and what into them, so that this user is root in a user namespace just made. Prepared before the
/// process is cloned, written in the clone.
pub(crate) struct IdMaps([(CString, Vec<u8>); 3]);

impl IdMaps {
    pub(crate) fn of_this_user() -> IdMaps {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        IdMaps([
            (c"/proc/self/setgroups".into(), b"deny".to_vec()),
            (c"/proc/self/uid_map".into(), format!("0 {uid} 1").into_bytes()),
            (c"/proc/self/gid_map".into(), format!("0 {gid} 1").into_bytes()),
        ])
    }

    /// Only system calls: allowed in a clone of a process with threads.
    pub(crate) fn write(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|(path, text)| write_file(path, text))
    }
}

/// `open`, `write`, `close` and nothing else, so that a clone of a process with threads may call it.
pub(crate) fn write_file(path: &CString, text: &[u8]) -> io::Result<()> {
    // SAFETY: the path ends in a zero byte, the text is as long as said, and the descriptor is ours.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let written = libc::write(fd, text.as_ptr().cast(), text.len());
        let error = io::Error::last_os_error();
        libc::close(fd);
        if written < 0 { Err(error) } else { Ok(()) }
    }
}

/// Mounts of this mount namespace stay in it, and `/run` is empty and writable, so that `ip netns` and iptables have
/// a place of their own. Only system calls.
pub(crate) fn private_mounts() -> io::Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    Ok(())
}

/// Moves this process into new user (where needed), mount and network namespaces in which it is root. For the beginning
/// of a program: the process must not have started a thread.
///
/// # Errors
/// Namespaces are not allowed here, or there are threads already.
pub fn isolate() -> io::Result<()> {
    isolate_with(is_privileged(), &IdMaps::of_this_user())
}

/// [`isolate`] with everything prepared. Only system calls.
fn isolate_with(privileged: bool, maps: &IdMaps) -> io::Result<()> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    if !privileged {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags)?;
    if !privileged {
        maps.write()?;
    }
    private_mounts()
}

/// Makes `command` run as [`isolate`] would have it, and end with the thread that starts it.
pub fn isolate_command(command: &mut Command) -> &mut Command {
    let (privileged, maps) = (is_privileged(), IdMaps::of_this_user());
    // SAFETY: the closure makes only system calls.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL)?;
            isolate_with(privileged, &maps)
        })
    }
}

/// Runs `work` in a thread of its own that has moved into a network namespace; sockets that it opens stay there.
///
/// # Errors
/// The namespace cannot be entered.
///
/// # Panics
/// When `work` does.
pub fn in_namespace<T: Send>(namespace: impl AsFd + Sync, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(|error| context("entering a network namespace")(error.into()))?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The namespaces of a lab, held open.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// `None` where the lab shares the user namespace of this process.
    pub(crate) user: Option<OwnedFd>,
    pub(crate) pid: OwnedFd,
    pub(crate) mount: OwnedFd,
    /// The network namespace that belongs to no node.
    pub(crate) base: OwnedFd,
}

impl Namespaces {
    /// Those of a process.
    pub(crate) fn of_process(pid: i32) -> io::Result<Namespaces> {
        let open = |kind: &str| -> io::Result<OwnedFd> {
            let path = format!("/proc/{pid}/ns/{kind}");
            Ok(File::open(&path).map_err(context(path))?.into())
        };
        let link = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user"));
        let same_user = link(&pid.to_string())? == link("self")?;
        let user = if same_user { None } else { Some(open("user")?) };
        Ok(Namespaces { user, pid: open("pid")?, mount: open("mnt")?, base: open("net")? })
    }

    /// Makes `command` run in these namespaces and the given network namespace. It and everything it started are killed
    /// with the lab.
    pub(crate) fn enter(self: &Arc<Self>, command: &mut Command, network: Arc<OwnedFd>) {
        let namespaces = Arc::clone(self);
        // SAFETY: the closure makes only system calls.
        unsafe {
            command.pre_exec(move || {
                namespaces.enter_this_process(network.as_raw_fd())?;
                continue_in_a_child()
            });
        }
    }

    /// Only system calls.
    fn enter_this_process(&self, network: RawFd) -> io::Result<()> {
        let mut directory = [0u8; 4096];
        // SAFETY: the pointer and length are those of a live local; descriptors are open while `self` lives.
        unsafe {
            let known = !libc::getcwd(directory.as_mut_ptr().cast(), directory.len()).is_null();
            if let Some(user) = &self.user {
                check(libc::setns(user.as_raw_fd(), libc::CLONE_NEWUSER))?;
            }
            check(libc::setns(self.pid.as_raw_fd(), libc::CLONE_NEWPID))?;
            check(libc::setns(self.mount.as_raw_fd(), libc::CLONE_NEWNS))?;
            check(libc::setns(network, libc::CLONE_NEWNET))?;
            // Entering a mount namespace leads to its root. A directory below /run is not there any more.
            if known {
                libc::chdir(directory.as_ptr().cast());
            }
        }
        Ok(())
    }

    /// Runs `work` in a clone of this process that has entered the user namespace and a network namespace.
    ///
    /// # Safety
    /// `work` makes only system calls.
    pub(crate) unsafe fn in_clone(&self, network: &OwnedFd, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // SAFETY: the child makes only system calls and ends without returning.
        unsafe {
            let child = check(libc::fork())?;
            if child == 0 {
                let user = self.user.as_ref().map_or(Ok(0), |user| check(libc::setns(user.as_raw_fd(), 0)));
                let result =
                    user.and_then(|_| check(libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET))).and_then(|_| work());
                libc::_exit(result.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO)));
            }
            let mut status = 0;
            while libc::waitpid(child, &raw mut status, 0) < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            match libc::WEXITSTATUS(status) {
                _ if !libc::WIFEXITED(status) => Err(io::Error::other("a helper process was killed")),
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A PID namespace takes effect for children only: the program runs in one, and this process stands for it outside. It
/// passes signals on, ends as the child ends, and takes the child along when it is killed. Only system calls.
fn continue_in_a_child() -> io::Result<()> {
    // SAFETY: system calls on live locals; the sets are initialised by `sigfillset` and `sigprocmask`.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before))?;
        // Whoever ignores this signal never learns how a child ended.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let child = check(libc::fork())?;
        if child == 0 {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // A parent outside of the namespace has no number in it; any number means that it is gone already.
            if libc::getppid() != 0 {
                libc::_exit(1);
            }
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()))?;
            return Ok(());
        }
        // The child has the descriptors, one of which tells the starter about a failing exec.
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        stand_for(child, &all)
    }
}

/// # Safety
/// All signals are blocked, and `child` is a child.
unsafe fn stand_for(child: libc::pid_t, all: &libc::sigset_t) -> ! {
    // SAFETY: system calls on live locals.
    unsafe {
        loop {
            let mut status = 0;
            if libc::waitpid(child, &raw mut status, libc::WNOHANG) == child {
                if libc::WIFSIGNALED(status) {
                    let signal = libc::WTERMSIG(status);
                    let mut none: libc::sigset_t = std::mem::zeroed();
                    libc::sigemptyset(&raw mut none);
                    libc::signal(signal, libc::SIG_DFL);
                    libc::kill(libc::getpid(), signal);
                    libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
                    libc::_exit(128 + signal);
                }
                libc::_exit(libc::WEXITSTATUS(status));
            }
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let signal = libc::sigwaitinfo(all, &raw mut info);
            // What the terminal sends reaches the child as well; what a process sends reaches only us.
            if signal > 0 && signal != libc::SIGCHLD && info.si_code <= 0 {
                libc::kill(child, signal);
            }
        }
    }
}
