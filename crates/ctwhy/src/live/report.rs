//! A live run, told: what `explain` tells, and the kernel's side of it.

use std::fmt::{Display, Write as _};
use std::io;

use ctwhy_core::hook::{Engine, Hook, Verdict};
use ctwhy_core::time::Time;

use super::Options;
use super::args::LiveArgs;
use super::session::{Left, Seen};
use super::totals::Totals;
use crate::report::json::{KernelObject, PacketObject};
use crate::report::line::{Decided, Told};
use crate::report::style::{Palette, Styled};
use crate::report::summary::Plural;
use crate::report::writer::Writer;

/// How the message begins that packets are seen from now on.
pub(crate) const READY: &str = "ctwhy live: ready";
/// How the line of totals begins that SIGUSR1 asks for.
pub(crate) const SO_FAR: &str = "ctwhy live: so far";
/// How a line begins that belongs to the packet above it.
pub(crate) const STEP_INDENT: &str = "         ";

/// What is said of a packet that this host made.
pub(crate) const FROM_THIS_HOST: &str = "; from this host";

/// Tells the user.
pub(super) struct Reporter {
    writer: Writer,
    palette: Palette,
    verbose: bool,
    json: bool,
    start: Time,
}

impl Reporter {
    pub(super) fn new(args: &LiveArgs) -> io::Result<Reporter> {
        let palette = Palette::stdout(args.color);
        let writer = Writer::start()?;
        Ok(Reporter { writer, palette, verbose: args.verbose, json: args.json, start: Time::default() })
    }

    /// From now on packets are seen; `flows` are known from before.
    pub(super) fn ready(&mut self, options: &Options, flows: usize, copies: bool, now: Time) {
        self.start = now;
        let copies = if copies { "" } else { "; no copies from behind NAT, so that only decisions are compared" };
        let (queue, flows) = (options.queue, Plural(flows as u64, "flow"));
        self.writer.message(format!("{READY}: queue {queue}, {flows} known from before{copies}\n"));
    }

    /// One packet, whose entry `engine` has.
    pub(super) fn packet(&mut self, seen: &Seen<'_>, engine: &Engine) -> io::Result<()> {
        let decided = Decided::Ruling(&seen.ruling);
        let told = Told {
            number: seen.number,
            since_start: seen.time.since(self.start),
            interface: seen.interface.as_deref(),
            before: (seen.bytes, seen.len),
            after: (!seen.after.is_empty()).then_some(&seen.after[..]),
            decided,
            engine,
        };
        let text = if self.json { object(seen, &told)? } else { self.lines(seen, &told) };
        self.writer.packet(text);
        Ok(())
    }

    fn lines(&self, seen: &Seen<'_>, told: &Told<'_>) -> String {
        let palette = self.palette;
        let (style, word) = match seen.agrees() {
            Some(true) => (palette.good(), "agree "),
            Some(false) => (palette.bad(), "DIFFER"),
            None => (palette.faint(), "      "),
        };
        let mut text = format!("{} {}", Styled(style, word), told.line(palette));
        if seen.ruling.hook == Hook::LocalOut {
            text.push_str(FROM_THIS_HOST);
        }
        if seen.left == Left::Nowhere && seen.ruling.verdict == Verdict::Accept {
            text.push_str("; dropped on the way");
        }
        if seen.reordered {
            text.push_str("; tracked in another order than queued");
        }
        text.push('\n');
        // Writing into a string does not fail.
        if self.verbose {
            let _ = write!(text, "{}", told.steps(&seen.trace.steps, palette));
        }
        if self.verbose || seen.agrees() == Some(false) {
            for (agrees, line) in kernel_side(seen) {
                let style = if agrees { palette.faint() } else { palette.bad() };
                let _ = writeln!(text, "{STEP_INDENT}{}", Styled(style, line));
            }
        }
        text
    }

    /// Something that the user should know.
    pub(super) fn note(&mut self, text: impl Display) {
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
        let palette = if self.json { Palette::PLAIN } else { self.palette };
        let text = summary(totals, self.writer.left_out(), palette);
        self.writer.last_message(text, self.json);
    }
}

fn object(seen: &Seen<'_>, told: &Told<'_>) -> io::Result<String> {
    let mut object = PacketObject::new(told, seen.time.0, &seen.trace.steps)?;
    let differing = kernel_side(seen).into_iter().filter(|(agrees, _)| !agrees);
    object.kernel = Some(KernelObject {
        kernel_ctinfo: seen.kernel.map(|ctinfo| ctinfo.name()),
        agree: seen.agrees(),
        differences: differing.map(|(_, line)| line).collect(),
    });
    let mut line = Vec::new();
    object.write(&mut line)?;
    String::from_utf8(line).map_err(io::Error::other)
}

/// What the kernel did, beside what the engine said: whether it agrees, and in words.
fn kernel_side(seen: &Seen<'_>) -> Vec<(bool, String)> {
    let mut lines = Vec::new();
    lines.push(match (seen.kernel, seen.ctinfo_agrees()) {
        (Some(kernel), Some(false)) => (false, format!("the kernel DIFFERS: it decided {kernel}")),
        (Some(kernel), _) => (true, format!("the kernel decided {kernel}")),
        (None, _) => (true, "no rule wrote the kernel's decision into the mark".to_owned()),
    });
    match &seen.left {
        Left::Unwatched => {}
        Left::Nowhere => lines.push((true, "the kernel did not let it leave".to_owned())),
        Left::AsExpected(bytes) => lines.push((true, format!("the kernel sent the same {bytes} bytes"))),
        Left::Differently(differences) => {
            lines.extend(differences.iter().map(|found| (false, format!("the kernel's bytes DIFFER: {found}"))));
        }
    }
    lines
}

/// The totals as a block of lines.
fn summary(totals: &Totals, left_out: u64, palette: Palette) -> String {
    let Totals { compared_ctinfo, compared_bytes, agreed, differed, vanished, summary, lost, .. } = totals;
    let style = if *differed == 0 { palette.good() } else { palette.bad() };
    let verdict = Styled(style, format!("{agreed} agree, {differed} differ")).to_string();
    let mut text = format!(
        "\n{}compared with the kernel: {verdict} ({}, {} byte by byte as they left, {vanished} did not leave)\n",
        summary.show(palette),
        Plural(*compared_ctinfo, "decision"),
        Plural(*compared_bytes, "packet"),
    );
    if totals.reordered > 0 {
        let packets = Plural(totals.reordered, "packet");
        let _ = writeln!(text, "{packets} tracked in another order than queued (several CPUs at once)");
    }
    if totals.elsewhere > 0 {
        let packets = Plural(totals.elsewhere, "packet");
        let _ = writeln!(text, "{packets} let go unexplained, queued by other rules than those of `ctwhy rules`");
    }
    for (count, what) in [
        (lost.queue_dropped, "packets dropped because the queue was full (queue_dropped)"),
        (lost.user_dropped, "packets dropped because the buffer of the socket was full (user_dropped)"),
        (lost.unqueued, "packets passed unseen because the queue was full"),
        (lost.unreceived, "packets passed unseen because the buffer of the socket was full"),
        (lost.events, "times events of ctnetlink were lost"),
        (lost.copies, "times copies from behind NAT were lost"),
        (totals.incomparable, "packets not compared, because others had passed unseen before them"),
        (left_out, "packets were not printed because the output was too slow"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "lost: {count} {what}");
        }
    }
    text
}
