//! The kernel's release as which the engine decides, in words.

#[cfg(target_os = "linux")]
use std::io;
use std::str::FromStr;

use ctwhy_core::profile::Profile;

/// `--kernel RELEASE`
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelArg(pub(crate) &'static Profile);

impl FromStr for KernelArg {
    type Err = String;

    fn from_str(text: &str) -> Result<KernelArg, String> {
        Profile::for_release(text).map(KernelArg).map_err(|unknown| unknown.to_string())
    }
}

/// As which the running kernel decides.
///
/// # Errors
/// /proc is not mounted.
#[cfg(target_os = "linux")]
pub(crate) fn running() -> io::Result<&'static Profile> {
    Ok(Profile::nearest(&ctwhy_linux::sysctl::kernel_version()?))
}

/// As which the engine decides where that is not the default, and what is not as it is there.
pub(crate) fn remarks(kernel: &Profile) -> Vec<String> {
    if kernel.is_default() {
        return Vec::new();
    }
    let beyond = kernel.beyond.iter().map(|what| format!("not as Linux {kernel}: {what}"));
    [format!("decided as Linux {kernel} decides")].into_iter().chain(beyond).collect()
}
