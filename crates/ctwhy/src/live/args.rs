//! The arguments of `ctwhy live`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use ctwhy_linux::rules::MarkBits;

use super::{Consumer, Options};
use crate::report::style::When;

/// A group that nobody else is likely to use.
pub(crate) const DEFAULT_LOG_GROUP: u16 = 28;

/// Where rules and consumer meet; the same for `ctwhy rules`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Meeting {
    /// Number of the queue, as in `iptables -j NFQUEUE --queue-num`
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) queue_num: u16,
    /// First of the four bits of the packet mark that carry the kernel's decision; the others stay as they are
    #[arg(long, value_name = "BIT", default_value = "28", value_parser = mark_bits)]
    pub(crate) mark_shift: MarkBits,
    /// NFLOG group of the copies from behind NAT, which is how the bytes are compared
    #[arg(long, value_name = "GROUP", default_value_t = DEFAULT_LOG_GROUP)]
    pub(crate) log_group: u16,
    /// No copies from behind NAT: only decisions are compared
    #[arg(long, conflicts_with = "log_group")]
    pub(crate) no_log: bool,
}

impl Meeting {
    /// The group, unless copies are not wanted.
    pub(crate) fn log_group(&self) -> Option<u16> {
        (!self.no_log).then_some(self.log_group)
    }
}

fn mark_bits(text: &str) -> Result<MarkBits, String> {
    text.parse().ok().and_then(MarkBits::new).ok_or_else(|| "a number from 0 to 28, so that four bits fit".to_owned())
}

/// Which crate receives the packets.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ConsumerName {
    Mnl,
    Nfq,
}

/// What has to be known before the rules go onto a busy machine.
const NOTES: &str = "\
A packet that waits in the queue is one that conntrack has not confirmed yet. When a second packet of the same new TCP or \
ICMP flow comes meanwhile, the kernel drops it at the end of its way (confirm.clash in the summary), as with every program \
that serves an NFQUEUE behind conntrack; retransmissions get through. UDP is not affected.

SIGUSR1 prints the totals so far. Exit code: 0 when everything agreed, 1 when something differed, 2 when it could not run.";

/// `ctwhy live`.
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
pub(crate) struct LiveArgs {
    #[command(flatten)]
    pub(crate) meeting: Meeting,
    /// Put the rules in, and take them out at the end, whatever ends the run; see `ctwhy rules`
    #[arg(long)]
    install_rules: bool,
    /// End after N packets
    #[arg(long, value_name = "N")]
    packets: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    time: Option<Duration>,
    /// How packets are received: with mnl, in batches and with a large buffer, or with nfq, one by one
    #[arg(long, value_enum, default_value = "mnl")]
    consumer: ConsumerName,
    /// Show the steps of each packet
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// One JSON object per packet on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: When,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    parsed.ok_or_else(|| "a number of seconds, such as 10 or 0.5".to_owned())
}

impl LiveArgs {
    pub(super) fn options(&self) -> Options {
        Options {
            queue: self.meeting.queue_num,
            bits: self.meeting.mark_shift,
            log_group: self.meeting.log_group(),
            install_rules: self.install_rules,
            consumer: match self.consumer {
                ConsumerName::Mnl => Consumer::Mnl,
                ConsumerName::Nfq => Consumer::Nfq,
            },
            packets: self.packets,
            time: self.time,
        }
    }
}
