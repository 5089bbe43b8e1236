//! Putting the rules in and taking them out, whoever left them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use super::{CHAINS, Chain, RuleSet};
use crate::context;
use crate::program::{self, find};
use crate::queue::{StatsReader, owner};

/// Are the tools of all families here?
pub(super) fn find_tools() -> io::Result<()> {
    Ok(families().iter().try_for_each(|(tool, _)| find(tool).map(drop))?)
}

/// The tools of both families, or of IPv4 alone where the kernel runs without IPv6.
fn families() -> &'static [(&'static str, &'static str)] {
    const FAMILIES: [(&str, &str); 2] = [("iptables", "iptables-restore"), ("ip6tables", "ip6tables-restore")];
    let has_ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
    if has_ipv6 { &FAMILIES } else { &FAMILIES[..1] }
}

const RESTORE: [&str; 3] = ["--noflush", "--wait", "5"];

/// The network namespace of the calling thread.
const THIS_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Rules that are in place; dropping it removes them from the network namespace that they are in, also while a panic
/// unwinds.
///
/// The kernel drops what waits in any queue when a chain of nft goes. So a consumer takes this apart, lets go what waits
/// for it when [`QueueRules`] are gone, and only then ends the [`LogTable`].
#[derive(Debug)]
pub struct Installed {
    // In the order in which they go.
    queue: QueueRules,
    log: Option<LogTable>,
}

/// The rules that send packets to the queue; dropping it removes them.
#[derive(Debug)]
pub struct QueueRules {
    namespace: Arc<Namespace>,
    removed: bool,
}

/// The nft table with the copies; dropping it removes it.
#[derive(Debug)]
pub struct LogTable {
    namespace: Arc<Namespace>,
    name: String,
    removed: bool,
}

/// Where rules are: commands run there, whatever namespace the calling thread has moved to since.
#[derive(Debug)]
pub(super) struct Namespace(OwnedFd);

impl Namespace {
    pub(super) fn of_this_thread() -> io::Result<Namespace> {
        Ok(Namespace(File::open(THIS_NAMESPACE).map_err(context(THIS_NAMESPACE))?.into()))
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) -> io::Result<String> {
        let mut command = program::command(program)?;
        // A signal from the terminal ends our run, but not the tool that takes the rules out because of it.
        command.args(arguments).process_group(0);
        self.enter(&mut command)?;
        program::run(&mut command, input).map_err(explain)
    }

    /// Nothing to do, and no privilege needed, when the thread is there already.
    fn enter(&self, command: &mut Command) -> io::Result<()> {
        let there = File::from(self.0.try_clone()?);
        if there.metadata()?.ino() != std::fs::metadata(THIS_NAMESPACE)?.ino() {
            // SAFETY: the closure makes only a system call, on a descriptor that it owns.
            unsafe {
                command.pre_exec(move || match libc::setns(there.as_raw_fd(), libc::CLONE_NEWNET) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                });
            }
        }
        Ok(())
    }

    /// What `iptables -t TABLE -S` prints.
    fn rules(&self, tool: &str, table: &str) -> io::Result<String> {
        self.run(tool, &["-w", "5", "-t", table, "-S"], "")
    }

    /// Removes chains and the jumps to them; those of one family in one transaction.
    pub(super) fn remove_chains(&self, chains: &[Chain]) -> io::Result<()> {
        for (tool, restore) in families() {
            let mut text = String::new();
            for table in tables(chains) {
                let deletions = deletions(&self.rules(tool, table)?, table, chains);
                if !deletions.is_empty() {
                    text += &format!("*{table}\n{deletions}COMMIT\n");
                }
            }
            if !text.is_empty() {
                self.run(restore, &RESTORE, &text)?;
            }
        }
        Ok(())
    }

    /// Puts rules in, given as the text for each family's `restore`.
    pub(super) fn restore(&self, text: impl Fn(&str) -> String) -> io::Result<()> {
        for (tool, restore) in families() {
            self.run(restore, &RESTORE, &text(tool))?;
        }
        Ok(())
    }

    fn our_tables(&self) -> Vec<String> {
        // Without nft, or without its kernel side, there are none.
        let tables = self.run("nft", &["list", "tables", "inet"], "").unwrap_or_default();
        let name = |line: &str| {
            let name = line.strip_prefix("table inet ")?.trim();
            let number = name.strip_prefix("ctwhy_")?;
            number.parse::<u16>().ok().map(|_| name.to_owned())
        };
        tables.lines().filter_map(name).collect()
    }

    fn delete_table(&self, name: &str) -> io::Result<()> {
        self.run("nft", &["delete", "table", "inet", name], "").map(drop)
    }

    fn remove_all(&self) -> io::Result<()> {
        self.remove_chains(&CHAINS)?;
        self.our_tables().iter().try_for_each(|table| self.delete_table(table))
    }

    /// Rules whose queue somebody else serves belong to a run that lives.
    pub(super) fn refuse_when_in_use(&self, chains: &[Chain]) -> io::Result<()> {
        let mut stats = StatsReader::open()?;
        for (tool, _) in families() {
            for queue in queues(&self.rules(tool, "mangle")?, chains) {
                let Some(bound) = stats.read(queue)? else { continue };
                let owner = owner(bound.portid).unwrap_or_else(|| format!("port id {}", bound.portid));
                // Our own queue may have been opened before its rules.
                if owner.starts_with(&format!("pid {} ", std::process::id())) {
                    continue;
                }
                let text =
                    format!("rules of ctwhy are in place already, and {owner} serves their queue {queue}; end it");
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
        }
        Ok(())
    }
}

impl RuleSet {
    /// Removes what a killed run left and installs the rules. Where nft is missing, or its kernel side, the table of
    /// copies is left out; [`Installed::has_log`] tells.
    ///
    /// # Errors
    /// iptables is missing, its kernel side is, CAP_NET_ADMIN is missing, or a run that lives has rules in place.
    pub fn install(&self) -> io::Result<Installed> {
        find_tools()?;
        let namespace = Namespace::of_this_thread()?;
        namespace.refuse_when_in_use(&CHAINS)?;
        namespace.remove_all()?;
        // From here on whatever is in place goes when this is dropped.
        let namespace = Arc::new(namespace);
        let log = self.nft_text().and_then(|text| {
            namespace.run("nft", &["-f", "-"], &text).ok()?;
            Some(LogTable { namespace: Arc::clone(&namespace), name: self.nft_table(), removed: false })
        });
        let installed = Installed { queue: QueueRules { namespace, removed: false }, log };
        // Without copies the other rules have more to do themselves.
        let log_group = self.log_group.filter(|_| installed.has_log());
        let rules = RuleSet { log_group, ..self.clone() };
        installed.queue.namespace.restore(|_| rules.restore_text())?;
        Ok(installed)
    }
}

impl Installed {
    /// Is the nft table with the copies from behind NAT in place?
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// As [`QueueRules::queued`].
    ///
    /// # Errors
    /// A tool's error.
    pub fn queued(&self) -> io::Result<u64> {
        self.queue.queued()
    }

    /// Removes the rules and says whether that worked, which dropping cannot.
    ///
    /// # Errors
    /// A tool's error.
    pub fn remove(self) -> io::Result<()> {
        let queue = self.queue.remove();
        queue.and(self.log.map_or(Ok(()), LogTable::remove))
    }

    /// The two parts, to be removed one after the other.
    #[must_use]
    pub fn into_parts(self) -> (QueueRules, Option<LogTable>) {
        (self.queue, self.log)
    }
}

impl QueueRules {
    /// How many packets the rules have sent to the queue, of both families. Those that the consumer was never given, because
    /// the queue was full or nobody served it, are this less [`crate::queue::QueueStats::id_sequence`].
    ///
    /// # Errors
    /// A tool's error.
    pub fn queued(&self) -> io::Result<u64> {
        let mut packets = 0;
        for (tool, _) in families() {
            for chain in CHAINS {
                let listing = self.namespace.run(tool, &["-w", "5", "-t", "mangle", "-nvxL", chain.own], "")?;
                packets += queued(&listing);
            }
        }
        Ok(packets)
    }

    /// Removes the rules and says whether that worked, which dropping cannot.
    ///
    /// # Errors
    /// A tool's error.
    pub fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        self.namespace.remove_chains(&CHAINS)
    }
}

impl Drop for QueueRules {
    fn drop(&mut self) {
        if !self.removed {
            complain(self.namespace.remove_chains(&CHAINS));
        }
    }
}

impl LogTable {
    /// Removes the table and says whether that worked, which dropping cannot.
    ///
    /// # Errors
    /// The tool's error.
    pub fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        self.namespace.delete_table(&self.name)
    }
}

impl Drop for LogTable {
    fn drop(&mut self) {
        if !self.removed {
            complain(self.namespace.delete_table(&self.name));
        }
    }
}

/// What a guard says when it fails.
pub(super) fn complain(result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("ctwhy: rules could not be removed: {error}; `ctwhy rules` prints the commands that do");
    }
}

/// Removes all rules of ours from this network namespace, whichever run left them. Nothing there is no error.
///
/// # Errors
/// iptables is missing, or a tool's error.
pub fn remove_leftovers() -> io::Result<()> {
    Namespace::of_this_thread()?.remove_all()
}

/// iptables speaks of permissions in many words; these say what is missing.
fn explain(cause: io::Error) -> io::Error {
    let text = cause.to_string();
    if text.contains("ermission denied") || text.contains("must be root") || text.contains("not permitted") {
        let text = format!("rules need CAP_NET_ADMIN in this network namespace ({text})");
        return io::Error::new(io::ErrorKind::PermissionDenied, text);
    }
    cause
}

/// The tables that have these chains.
fn tables(chains: &[Chain]) -> impl Iterator<Item = &'static str> {
    ["raw", "mangle"].into_iter().filter(|table| chains.iter().any(|chain| chain.table == *table))
}

/// The lines of `iptables-restore` that remove our chains of a table and the jumps to them from what `-S` printed.
fn deletions(present: &str, table: &str, chains: &[Chain]) -> String {
    let chains = || chains.iter().filter(|chain| chain.table == table);
    let mut text = String::new();
    for line in present.lines() {
        for chain in chains() {
            if line == format!("-A {} -j {}", chain.hook, chain.own) {
                text += &format!("-D {} -j {}\n", chain.hook, chain.own);
            }
        }
    }
    for chain in chains() {
        if present.lines().any(|line| line == format!("-N {}", chain.own)) {
            text += &format!("-F {0}\n-X {0}\n", chain.own);
        }
    }
    text
}

/// The packet counters of the NFQUEUE rules in what `-nvxL` printed.
fn queued(listing: &str) -> u64 {
    let rule = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let packets: u64 = fields.next()?.parse().ok()?;
        (fields.nth(1) == Some("NFQUEUE")).then_some(packets)
    };
    listing.lines().filter_map(rule).sum()
}

/// The queues that our chains send packets to.
fn queues(present: &str, chains: &[Chain]) -> Vec<u16> {
    let ours = |line: &&str| chains.iter().any(|chain| line.starts_with(&format!("-A {} ", chain.own)));
    let number = |line: &str| line.split_once("--queue-num ")?.1.split_ascii_whitespace().next()?.parse().ok();
    present.lines().filter(ours).filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: &str = "-P PREROUTING ACCEPT\n-N CTWHY_PREROUTING\n-N CTWHY_PREROUTING_MINE\n\
        -A PREROUTING -j CTWHY_PREROUTING\n-A PREROUTING -j CTWHY_PREROUTING_MINE\n-A OUTPUT -j CTWHY_OUTPUT\n\
        -A CTWHY_PREROUTING -j NFQUEUE --queue-num 7 --queue-bypass\n-A PREROUTING -j NFQUEUE --queue-num 8\n";

    #[test]
    fn only_our_chains_are_removed() {
        let expected =
            "-D PREROUTING -j CTWHY_PREROUTING\n-D OUTPUT -j CTWHY_OUTPUT\n-F CTWHY_PREROUTING\n-X CTWHY_PREROUTING\n";
        assert_eq!(deletions(PRESENT, "mangle", &CHAINS), expected);
        assert_eq!(deletions(PRESENT, "raw", &CHAINS), "");
        assert_eq!(deletions("-P PREROUTING ACCEPT\n", "mangle", &CHAINS), "");
    }

    #[test]
    fn counters_of_the_queue_rules() {
        let listing = "Chain CTWHY_OUTPUT (1 references)\n    pkts      bytes target     prot opt in     out     source\n\
            \x20      3      252 MARK       0    --  *      *       0.0.0.0/0\n\
            \x20      7      588 NFQUEUE    0    --  *      *       0.0.0.0/0\n";
        assert_eq!(queued(listing), 7);
    }

    #[test]
    fn only_our_queues_are_asked_for() {
        assert_eq!(queues(PRESENT, &CHAINS), [7]);
    }
}
