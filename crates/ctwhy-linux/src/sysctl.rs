//! The network settings of a namespace, and what the kernel was built with.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::context;

/// Settings of the whole machine even when written inside a namespace (OBS-16): never written here.
pub const MACHINE_WIDE: [&str; 3] = ["nf_conntrack_max", "nf_conntrack_buckets", "nf_conntrack_expect_max"];

/// The file of a setting: `net.ipv4.ip_forward` or, for names with dots in them, `net/ipv4/conf/eth0.5/forwarding`.
///
/// # Errors
/// It is not below `net`.
pub fn path(name: &str) -> io::Result<PathBuf> {
    let relative = if name.contains('/') { name.trim_start_matches('/').to_owned() } else { name.replace('.', "/") };
    let ok = relative.starts_with("net/") && relative.split('/').all(|part| !part.is_empty() && part != "..");
    if !ok {
        let text = format!("{name}: not a network setting; expected a name such as net.ipv4.ip_forward");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

/// The file of a setting that may be written.
///
/// # Errors
/// As [`path`], and for the settings in [`MACHINE_WIDE`].
pub fn writable_path(name: &str) -> io::Result<PathBuf> {
    let path = path(name)?;
    let last = path.file_name().unwrap_or_default();
    // net.nf_conntrack_max is another name of the same setting.
    if MACHINE_WIDE.iter().any(|refused| last == *refused) {
        let text = format!("{name} is never written: it would change the whole machine, not only this namespace");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(path)
}

/// The value of a setting in the calling thread's network namespace; `None` where the kernel has no such setting.
///
/// # Errors
/// The name is not one, or the file cannot be read.
pub fn read(name: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(path(name)?) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(context(name)(error)),
    }
}

/// Writes a setting in the calling thread's network namespace.
///
/// # Errors
/// The setting is [`MACHINE_WIDE`], does not exist, cannot be written, or refuses the value.
pub fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(writable_path(name)?, value).map_err(context(format_args!("{name}={value}")))
}

/// The release of the running kernel, as `uname -r` prints it.
///
/// # Errors
/// /proc is not mounted.
pub fn kernel_release() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim_end().to_owned())
}

/// The version of the running kernel: its release without what its builder appended, `6.18.44` of `6.18.44-amd64`.
///
/// # Errors
/// /proc is not mounted.
pub fn kernel_version() -> io::Result<String> {
    let release = kernel_release()?;
    Ok(release.split(['-', '+']).next().unwrap_or(&release).to_owned())
}

/// What the running kernel was built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig(String);

impl KernelConfig {
    /// From `/proc/config.gz`, else from `/boot/config-RELEASE`; `None` where there is neither.
    #[must_use]
    pub fn of_running_kernel() -> Option<KernelConfig> {
        let compressed = fs::File::open("/proc/config.gz").ok().and_then(|file| {
            let unpacked = Command::new("gzip").arg("-dc").stdin(file).stderr(Stdio::null()).output().ok()?;
            unpacked.status.success().then(|| String::from_utf8_lossy(&unpacked.stdout).into_owned())
        });
        let text = compressed.or_else(|| fs::read_to_string(format!("/boot/config-{}", kernel_release().ok()?)).ok());
        text.map(KernelConfig)
    }

    /// Is an option such as `CONFIG_NFT_QUEUE` built in or a module?
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.value(option).is_some_and(|value| value == "y" || value == "m")
    }

    /// The value of an option; `None` when it is not set.
    #[must_use]
    pub fn value(&self, option: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(option)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files() {
        assert_eq!(path("net.ipv4.ip_forward").unwrap().to_str(), Some("/proc/sys/net/ipv4/ip_forward"));
        let dotted = path("net/ipv4/conf/eth0.5/forwarding").unwrap();
        assert_eq!(dotted.to_str(), Some("/proc/sys/net/ipv4/conf/eth0.5/forwarding"));
        for bad in ["kernel.hostname", "net", "net/../kernel/hostname", "net..x", ""] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_of_the_machine_are_not_written() {
        for name in ["net.netfilter.nf_conntrack_max", "net.nf_conntrack_max", "net/netfilter/nf_conntrack_buckets"] {
            assert_eq!(writable_path(name).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{name}");
        }
        assert!(writable_path("net.netfilter.nf_conntrack_expect_max").is_err());
    }

    #[test]
    fn options_of_the_kernel() {
        let config = KernelConfig("CONFIG_NFT_LOG=m\n# CONFIG_NFT_QUEUE is not set\nCONFIG_HZ=250\n".to_owned());
        assert!(config.has("CONFIG_NFT_LOG"));
        assert!(!config.has("CONFIG_NFT_QUEUE"));
        assert!(!config.has("CONFIG_NFT"));
        assert_eq!(config.value("CONFIG_HZ"), Some("250"));
        if let Some(running) = KernelConfig::of_running_kernel() {
            assert!(running.has("CONFIG_NET") && !running.has("CONFIG_NONSENSE"));
        }
    }
}
