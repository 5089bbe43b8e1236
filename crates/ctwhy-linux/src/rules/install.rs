//! Putting the rules in and taking them out, whoever left them.

use std::io;

use super::{CHAINS, RuleSet, nft_table};
use crate::program::{self, find};
use crate::queue::{StatsReader, owner};

const FAMILIES: [(&str, &str); 2] = [("iptables", "iptables-restore"), ("ip6tables", "ip6tables-restore")];

/// Rules that are in place; dropping it removes them, also while a panic unwinds.
///
/// Both happen in the network namespace of the thread that does it.
#[derive(Debug)]
pub struct Installed {
    queue: u16,
    has_log: bool,
    removed: bool,
}

impl RuleSet {
    /// Removes what a killed run left and installs the rules. Where nft is missing, or its kernel side, the table of
    /// copies is left out; [`Installed::has_log`] tells.
    ///
    /// # Errors
    /// iptables is missing, its kernel side is, CAP_NET_ADMIN is missing, or a run that lives has rules in place.
    pub fn install(&self) -> io::Result<Installed> {
        for (tool, _) in FAMILIES {
            find(tool)?;
        }
        refuse_when_in_use()?;
        remove_leftovers()?;
        // From here on whatever is in place goes when this is dropped.
        let mut installed = Installed { queue: self.queue, has_log: false, removed: false };
        for (_, restore) in FAMILIES {
            let mut command = program::command(restore)?;
            program::run(command.args(["--noflush", "--wait", "5"]), &self.restore_text())?;
        }
        if let Some(text) = self.nft_text()
            && let Ok(mut nft) = program::command("nft")
        {
            installed.has_log = program::run(nft.args(["-f", "-"]), &text).is_ok();
        }
        Ok(installed)
    }
}

impl Installed {
    /// Is the nft table with the copies from behind NAT in place?
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.has_log
    }

    /// Removes the rules and says whether that worked, which dropping cannot.
    ///
    /// # Errors
    /// A tool's error.
    pub fn remove(mut self) -> io::Result<()> {
        self.remove_once()
    }

    fn remove_once(&mut self) -> io::Result<()> {
        if self.removed {
            return Ok(());
        }
        self.removed = true;
        let tables = if self.has_log { delete_table(&nft_table(self.queue)) } else { Ok(()) };
        remove_chains().and(tables)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(error) = self.remove_once() {
            eprintln!("ctwhy: rules could not be removed: {error}; `ctwhy rules` prints the commands that do");
        }
    }
}

/// Removes all rules of ours from this network namespace, whichever run left them. Nothing there is no error.
///
/// # Errors
/// iptables is missing, or a tool's error.
pub fn remove_leftovers() -> io::Result<()> {
    remove_chains()?;
    for table in our_tables() {
        delete_table(&table)?;
    }
    Ok(())
}

/// What `iptables -t mangle -S` prints.
fn mangle_rules(tool: &str) -> io::Result<String> {
    program::run(program::command(tool)?.args(["-w", "5", "-t", "mangle", "-S"]), "").map_err(explain)
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

fn remove_chains() -> io::Result<()> {
    for (tool, restore) in FAMILIES {
        let present = mangle_rules(tool)?;
        let deletions = deletions(&present);
        if deletions.is_empty() {
            continue;
        }
        let text = format!("*mangle\n{deletions}COMMIT\n");
        program::run(program::command(restore)?.args(["--noflush", "--wait", "5"]), &text)?;
    }
    Ok(())
}

/// The lines of `iptables-restore` that remove our chains and jumps from what `-S` printed.
fn deletions(present: &str) -> String {
    let mut text = String::new();
    for line in present.lines() {
        for chain in CHAINS {
            if line == format!("-A {} -j {}", chain.hook, chain.own) {
                text += &format!("-D {} -j {}\n", chain.hook, chain.own);
            }
        }
    }
    for chain in CHAINS {
        if present.lines().any(|line| line == format!("-N {}", chain.own)) {
            text += &format!("-F {0}\n-X {0}\n", chain.own);
        }
    }
    text
}

/// Rules whose queue somebody serves belong to a run that lives.
fn refuse_when_in_use() -> io::Result<()> {
    let mut stats = StatsReader::open()?;
    for (tool, _) in FAMILIES {
        for queue in queues(&mangle_rules(tool)?) {
            if let Some(bound) = stats.read(queue)? {
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
    }
    Ok(())
}

/// The queues that our chains send packets to.
fn queues(present: &str) -> Vec<u16> {
    let ours = |line: &&str| CHAINS.iter().any(|chain| line.starts_with(&format!("-A {} ", chain.own)));
    let number = |line: &str| line.split_once("--queue-num ")?.1.split_ascii_whitespace().next()?.parse().ok();
    present.lines().filter(ours).filter_map(number).collect()
}

fn our_tables() -> Vec<String> {
    let Ok(mut nft) = program::command("nft") else { return Vec::new() };
    let Ok(tables) = program::run(nft.args(["list", "tables", "inet"]), "") else { return Vec::new() };
    let name = |line: &str| {
        let name = line.strip_prefix("table inet ")?.trim();
        let number = name.strip_prefix("ctwhy_")?;
        number.parse::<u16>().ok().map(|_| name.to_owned())
    };
    tables.lines().filter_map(name).collect()
}

fn delete_table(name: &str) -> io::Result<()> {
    program::run(program::command("nft")?.args(["delete", "table", "inet", name]), "").map(drop)
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
        assert_eq!(deletions(PRESENT), expected);
        assert_eq!(deletions("-P PREROUTING ACCEPT\n"), "");
    }

    #[test]
    fn only_our_queues_are_asked_for() {
        assert_eq!(queues(PRESENT), [7]);
    }
}
