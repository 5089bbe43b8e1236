//! Labs that outlive the command that made them, found again by name.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::holder::{Holder, Lifetime};
use super::topology::is_name;
use super::{Lab, Topology};
use crate::context;

/// A running named lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabInfo {
    /// Its name.
    pub name: String,
    /// The process that holds it.
    pub pid: i32,
    /// Its nodes.
    pub nodes: Vec<String>,
}

/// Builds a lab that goes on when this process ends, until [`down`].
///
/// # Errors
/// A lab of this name runs, the name is none, or as [`Lab::create`].
pub fn up(name: &str, topology: Topology) -> io::Result<LabInfo> {
    if find(name)?.is_some() {
        let text = format!("a lab named {name} is up already; take it down or choose another name");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let lab = Lab::build(topology, Lifetime::UntilKilled)?;
    let state = format!("{} {}\n", lab.holder.pid(), lab.holder.started());
    let written = write_state(name, &state).or_else(|error| match error.kind() {
        // The directory goes with the last lab, which may be taken down between making and using it: once more.
        io::ErrorKind::NotFound => write_state(name, &state),
        _ => Err(error),
    });
    if let Err(error) = written {
        lab.holder.kill();
        return Err(error);
    }
    Ok(info(name, &lab))
}

/// The named lab, to run commands in. Dropping the value leaves the lab up.
///
/// # Errors
/// No lab of this name runs.
pub fn attach(name: &str) -> io::Result<Lab> {
    let holder = find(name)?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no lab named {name} is up; `ctwhy lab list` shows those that are"),
        )
    })?;
    let mut lab = Lab::from_holder(holder)?;
    lab.open_nodes()?;
    Ok(lab)
}

/// The named labs that run. Files of labs that ended without being taken down are removed.
///
/// # Errors
/// The directory of the files cannot be used.
pub fn list() -> io::Result<Vec<LabInfo>> {
    let mut labs = Vec::new();
    let directory = directory()?;
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(labs),
        Err(error) => return Err(context(directory.display())(error)),
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // A lab may end while we look.
        if is_name(&name)
            && let Ok(lab) = attach(&name)
        {
            labs.push(info(&name, &lab));
        }
    }
    remove_if_empty(&directory);
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(labs)
}

/// Ends a named lab and every process in it.
///
/// # Errors
/// No lab of this name runs.
pub fn down(name: &str) -> io::Result<()> {
    let lab = attach(name)?;
    lab.holder.kill();
    let file = state_file(name)?;
    fs::remove_file(&file).map_err(context(file.display()))?;
    file.parent().map(remove_if_empty);
    Ok(())
}

/// The directory of the files goes with the last of them; while there are others this fails, as it should.
fn remove_if_empty(directory: &Path) {
    let _ = fs::remove_dir(directory);
}

fn info(name: &str, lab: &Lab) -> LabInfo {
    LabInfo { name: name.to_owned(), pid: lab.holder.pid(), nodes: lab.nodes().map(str::to_owned).collect() }
}

/// The holder of a named lab; a file that speaks of none is removed.
fn find(name: &str) -> io::Result<Option<Holder>> {
    let file = state_file(name)?;
    let state = match fs::read_to_string(&file) {
        Ok(state) => state,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(context(file.display())(error)),
    };
    let numbers = state.trim_end().split_once(' ');
    let holder = numbers.and_then(|(pid, started)| Holder::find(pid.parse().ok()?, started.parse().ok()?));
    if holder.is_none() {
        fs::remove_file(&file).map_err(context(file.display()))?;
    }
    Ok(holder)
}

fn state_file(name: &str) -> io::Result<PathBuf> {
    if !is_name(name) {
        let text = format!("{name:?} cannot name a lab: letters, digits, `-` and `_`, at most 32");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(directory()?.join(name))
}

/// This user's number in the user namespace around ours, where there is one: there, every user is number 0.
fn outer_user(user: u32) -> u32 {
    let maps = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let outer = maps.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = user.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    });
    outer.unwrap_or(user)
}

/// `$XDG_RUNTIME_DIR/ctwhy`, else `/tmp/ctwhy-UID`; it need not be there. Refused when it is somebody else's.
fn directory() -> io::Result<PathBuf> {
    let user = nix::unistd::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let path =
        runtime.map_or_else(|| PathBuf::from(format!("/tmp/ctwhy-{}", outer_user(user))), |path| path.join("ctwhy"));
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.is_dir() || found.uid() != user || found.mode() & 0o022 != 0 => {
            let text = format!("{} is not a directory that only this user can write to", path.display());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(context(path.display())(error)),
        _ => Ok(path),
    }
}

/// Writes a new state file, and makes its directory for it.
fn write_state(name: &str, state: &str) -> io::Result<()> {
    let directory = directory()?;
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(context(directory.display())(error)),
        _ => {}
    }
    let file = state_file(name)?;
    // Never over that of a lab which another process has just built under the same name.
    let written = File::create_new(&file).and_then(|mut new| new.write_all(state.as_bytes()));
    written.map_err(context(file.display()))
}
