//! `ctwhy rules`: the rules of a live run, to be pasted and to be removed.

use std::io::{self, Write};

use clap::Args;
use ctwhy_linux::rules::RuleSet;

use crate::live::Meeting;

/// `ctwhy rules`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RulesArgs {
    #[command(flatten)]
    meeting: Meeting,
}

/// Prints the rules, how to serve them, and how to remove them.
///
/// # Errors
/// Nobody reads.
pub(crate) fn run(args: &RulesArgs) -> io::Result<()> {
    let Meeting { queue_num, mark_shift, .. } = args.meeting;
    let log_group = args.meeting.log_group();
    let rules = RuleSet { bits: mark_shift, log_group, ..RuleSet::new(queue_num) };
    let mut out = io::stdout().lock();
    writeln!(out, "# Paste this into a root shell, then run `{}`.", live_command(args))?;
    writeln!(out, "# While nobody serves the queue packets pass it (--queue-bypass).")?;
    write!(out, "{}", rules.print())
}

/// The command that serves these rules.
fn live_command(args: &RulesArgs) -> String {
    let Meeting { queue_num, mark_shift, log_group, no_log } = args.meeting;
    let mut command = format!("ctwhy live --queue-num {queue_num}");
    if mark_shift != ctwhy_linux::rules::MarkBits::default() {
        command += &format!(" --mark-shift {}", mark_shift.mask().trailing_zeros());
    }
    if no_log {
        command += " --no-log";
    } else if log_group != crate::live::DEFAULT_LOG_GROUP {
        command += &format!(" --log-group {log_group}");
    }
    command
}
