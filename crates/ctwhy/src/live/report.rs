//! A live run, told.

use std::fmt::Write as _;
use std::io;

use ctwhy_core::hook::{Engine, Verdict};
use ctwhy_core::render::text::InNetwork;

use super::Options;
use super::args::LiveArgs;
use super::line::Line;
use super::session::{Left, Seen};
use super::totals::Totals;
use super::writer::Writer;

/// How the message begins that packets are seen from now on.
pub(crate) const READY: &str = "ctwhy live: ready";
/// How the line of totals begins that SIGUSR1 asks for.
pub(crate) const SO_FAR: &str = "ctwhy live: so far";

/// Tells the user.
pub(super) struct Reporter {
    writer: Writer,
    verbose: bool,
}

impl Reporter {
    pub(super) fn new(args: &LiveArgs) -> io::Result<Reporter> {
        Ok(Reporter { writer: Writer::start()?, verbose: args.verbose })
    }

    /// From now on packets are seen; `flows` are known from before.
    pub(super) fn ready(&mut self, options: &Options, flows: usize, copies: bool) {
        let copies = if copies { "" } else { "; no copies from behind NAT, so that only decisions are compared" };
        let queue = options.queue;
        self.writer.message(format!("{READY}: queue {queue}, {flows} flows known from before{copies}\n"));
    }

    /// One packet, whose entry `engine` has.
    pub(super) fn packet(&mut self, seen: &Seen<'_>, engine: &Engine) {
        let mut text = format!("{}\n", Line(seen));
        if self.verbose {
            for step in &seen.trace.steps {
                let _ = writeln!(text, "      {}", InNetwork { step, network: &engine.network });
            }
            if let Some(reason) = &seen.ruling.reason {
                let _ = writeln!(text, "      INVALID: {reason}");
            }
            if let Verdict::Drop(cause) = &seen.ruling.verdict {
                let _ = writeln!(text, "      dropped: {cause}");
            }
            kernel_side(seen, &mut text);
        } else if seen.agrees() == Some(false) {
            kernel_side(seen, &mut text);
        }
        self.writer.packet(text);
    }

    /// Something that the user should know.
    pub(super) fn note(&mut self, text: &str) {
        self.writer.message(format!("ctwhy live: {text}\n"));
    }

    /// One line of totals.
    pub(super) fn so_far(&mut self, totals: &Totals) {
        let Totals { packets, agreed, differed, .. } = totals;
        self.writer.message(format!("{SO_FAR} {packets} packets, {agreed} agree, {differed} differ\n"));
    }

    /// Has the reader gone?
    pub(super) fn is_closed(&self) -> bool {
        self.writer.is_closed()
    }

    /// All totals.
    pub(super) fn end(mut self, totals: &Totals) {
        self.writer.last_message(summary(totals, self.writer.left_out()));
    }
}

/// What the kernel did, beside what the engine said.
fn kernel_side(seen: &Seen<'_>, text: &mut String) {
    let decision = match (seen.kernel, seen.ctinfo_agrees()) {
        (Some(kernel), Some(true)) => format!("{kernel}, as above"),
        (Some(kernel), Some(false)) => format!("DIFFER, it decided {kernel}"),
        (Some(kernel), None) => format!("{kernel}"),
        (None, _) => "no rule wrote its decision into the mark".to_owned(),
    };
    let _ = writeln!(text, "      kernel: {decision}");
    match &seen.left {
        Left::Unwatched => {}
        Left::Nowhere => text.push_str("      kernel: the packet did not leave\n"),
        Left::AsExpected(bytes) => {
            let _ = writeln!(text, "      kernel: it left as above, all {bytes} bytes compared");
        }
        Left::Differently(differences) => {
            for difference in differences {
                let _ = writeln!(text, "      kernel: DIFFER in what left: {difference}");
            }
        }
    }
}

/// The totals as a block of lines.
fn summary(totals: &Totals, left_out: u64) -> String {
    let Totals {
        packets,
        compared_ctinfo,
        compared_bytes,
        agreed,
        differed,
        vanished,
        by_ctinfo,
        invalid,
        unseen,
        lost,
    } = totals;
    let mut text = format!("\n{packets} packets\n");
    let mut line = |count: u64, what: &str| {
        let _ = writeln!(text, "{count:>8} {what}");
    };
    for (ctinfo, count) in by_ctinfo {
        line(*count, ctinfo.name());
    }
    for (code, count) in invalid {
        line(*count, &format!("  INVALID because of {code}"));
    }
    for (code, count) in unseen {
        line(*count, &format!("without a decision of the engine: {code}"));
    }
    let _ = writeln!(text, "compared with the kernel");
    let mut line = |count: u64, what: &str| {
        let _ = writeln!(text, "{count:>8} {what}");
    };
    line(*compared_ctinfo, "decisions");
    line(*compared_bytes, "packets byte by byte as they left");
    line(*vanished, "packets that did not leave");
    line(*agreed, "agree");
    line(*differed, "DIFFER");
    for (count, what) in [
        (lost.queue_dropped, "packets met a full queue (queue_dropped)"),
        (lost.user_dropped, "packets did not fit into the socket's buffer (user_dropped)"),
        (lost.missed, "packets passed unseen"),
        (lost.events, "times events of ctnetlink were lost"),
        (lost.copies, "times copies from behind NAT were lost"),
        (left_out, "packets were not printed: the output is too slow"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "{count:>8} {what}");
        }
    }
    text
}
