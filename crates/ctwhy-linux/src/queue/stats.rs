//! The kernel's counters of a queue: `/proc/net/netfilter/nfnetlink_queue`.

use std::fs::{self, File};
use std::io::{self, Read, Seek};

use crate::context;

const QUEUES: &str = "/proc/thread-self/net/netfilter/nfnetlink_queue";
const SOCKETS: &str = "/proc/thread-self/net/netlink";

/// One line of the file (`nfnetlink_queue.c:seq_show`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Number of the queue.
    pub number: u16,
    /// Port id of the netlink socket that is bound to it.
    pub portid: u32,
    /// Packets waiting for a verdict.
    pub waiting: u32,
    /// Packets dropped because the queue was full. A fail-open queue lets them pass and does not count them; their number
    /// is what the rule counted less `id_sequence`.
    pub queue_dropped: u64,
    /// Packets dropped because the socket's receive buffer was full. A fail-open queue lets them pass and does not count
    /// them either; their ids are missing, see [`super::PacketQueue::missed`].
    pub user_dropped: u64,
    /// Packets queued so far; also the id of the last one.
    pub id_sequence: u32,
}

/// Packets that passed by a fail-open consumer because its receive buffer was full. The kernel numbers packets before it
/// tries to deliver them (`__nfqnl_enqueue_packet`), so the gaps in the numbers count them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gaps {
    last: u32,
    missed: u64,
}

impl Gaps {
    pub(super) fn saw(&mut self, id: u32) {
        self.missed += u64::from(id.wrapping_sub(self.last).saturating_sub(1));
        self.last = id;
    }

    pub(super) fn missed(self) -> u64 {
        self.missed
    }
}

/// The counters of the network namespace in which this was opened, wherever it is read.
#[derive(Debug)]
pub struct StatsReader(File);

impl StatsReader {
    /// Opens the file for the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no NFQUEUE, or /proc is not mounted.
    pub fn open() -> io::Result<StatsReader> {
        File::open(QUEUES).map(StatsReader).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => io::Error::new(
                cause.kind(),
                format!("{QUEUES} is missing: the kernel lacks NFQUEUE (CONFIG_NETFILTER_NETLINK_QUEUE)"),
            ),
            io::ErrorKind::PermissionDenied => {
                let text = format!("NFQUEUE needs CAP_NET_ADMIN in this network namespace ({QUEUES}: {cause})");
                io::Error::new(cause.kind(), text)
            }
            _ => context(QUEUES)(cause),
        })
    }

    /// The counters of queue `number`, `None` when nobody is bound to it.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not understood.
    pub fn read(&mut self, number: u16) -> io::Result<Option<QueueStats>> {
        let mut text = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut text)?;
        for line in text.lines() {
            let stats = parse(line).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{QUEUES}: line not understood: {line:?}"))
            })?;
            if stats.number == number {
                return Ok(Some(stats));
            }
        }
        Ok(None)
    }
}

fn parse(line: &str) -> Option<QueueStats> {
    let mut fields = line.split_ascii_whitespace();
    let number = fields.next()?.parse().ok()?;
    let portid = fields.next()?.parse().ok()?;
    let waiting = fields.next()?.parse().ok()?;
    let mut fields = fields.skip(2);
    let queue_dropped = fields.next()?.parse().ok()?;
    let user_dropped = fields.next()?.parse().ok()?;
    let id_sequence = fields.next()?.parse().ok()?;
    Some(QueueStats { number, portid, waiting, queue_dropped, user_dropped, id_sequence })
}

/// Why binding to queue `number` failed, in words that say what to do.
pub(super) fn explain_bind(number: u16, stats: &mut StatsReader, cause: &io::Error) -> io::Error {
    if let Ok(Some(taken)) = stats.read(number) {
        let owner = owner(taken.portid).unwrap_or_else(|| format!("port id {}", taken.portid));
        let text = format!("queue {number} is already in use by {owner}; choose another number or end it");
        return io::Error::new(io::ErrorKind::ResourceBusy, text);
    }
    match cause.raw_os_error() {
        Some(libc::EPERM) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("binding to queue {number} needs CAP_NET_ADMIN in this network namespace"),
        ),
        _ => io::Error::new(cause.kind(), format!("binding to queue {number}: {cause}")),
    }
}

/// The process that holds the netfilter socket with this port id, as `pid 7 (name)`. `None` when it cannot be seen from
/// here. A port id is usually, but not always, the process id.
pub(crate) fn owner(portid: u32) -> Option<String> {
    let sockets = fs::read_to_string(SOCKETS).ok()?;
    let netfilter = libc::NETLINK_NETFILTER.to_string();
    let inode = sockets.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let ours = fields.get(1)? == &netfilter && fields.get(2)?.parse() == Ok(portid);
        if ours { fields.last().copied() } else { None }
    })?;
    let link = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let path = process.path();
        if process.file_name().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(path.join("fd")) else { continue };
        if descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link.as_str())) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            return Some(format!("pid {} ({})", process.file_name().to_string_lossy(), name.trim_end()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_across_the_end_of_the_numbers() {
        let mut gaps = Gaps { last: u32::MAX - 1, missed: 0 };
        for id in [u32::MAX, 0, 3, 4] {
            gaps.saw(id);
        }
        assert_eq!(gaps.missed(), 2);
    }

    #[test]
    fn a_line_of_the_file() {
        let stats = parse("    0  31621     2 2 65531     5     6       20  1").unwrap();
        let expected =
            QueueStats { number: 0, portid: 31621, waiting: 2, queue_dropped: 5, user_dropped: 6, id_sequence: 20 };
        assert_eq!(stats, expected);
        for bad in ["", "0", "0 1 2 3", "70000 1 2 3 4 5 6 7", "0 1 2 2 4 x 6 7"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
