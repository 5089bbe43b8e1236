//! What a running NAT tells: packets as `explain` tells them, messages, and what it did in the end.

use std::fmt::Display;
use std::io;

use clap::Args;
use ctwhy_core::hook::{Engine, Ruling};
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;

use crate::report::json::PacketObject;
use crate::report::line::{Decided, Told};
use crate::report::style::{Palette, When};
use crate::report::summary::Summary;
use crate::report::writer::Writer;

/// What is said of packets.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Tracing")]
pub(crate) struct TraceArgs {
    /// Print a line for every packet, as `explain` does
    #[arg(long)]
    trace: bool,
    /// Show the steps under every packet
    #[arg(short, long, requires = "trace")]
    verbose: bool,
    /// Print JSON Lines, one object per packet; what else is said goes to standard error
    #[arg(long, requires = "trace")]
    json: bool,
}

impl TraceArgs {
    /// Are packets told?
    pub(super) const fn traces(&self) -> bool {
        self.trace
    }
}

/// Tells the user.
pub(super) struct Reporter {
    writer: Writer,
    palette: Palette,
    args: TraceArgs,
    start: Option<Time>,
    /// What all packets amount to, where they are told.
    summary: Summary,
    packets: u64,
    /// The steps of the packet that is being decided about.
    pub(super) trace: Trace,
}

/// A packet to be told.
pub(super) struct Seen<'a> {
    /// Where it came in, or that it is from this host.
    pub(super) interface: Option<&'a str>,
    /// As it was.
    pub(super) before: &'a [u8],
    /// As it is now.
    pub(super) after: &'a [u8],
    /// What was decided.
    pub(super) ruling: &'a Ruling,
    /// The host that decided.
    pub(super) engine: &'a Engine,
}

impl Reporter {
    pub(super) fn new(args: TraceArgs, color: When) -> io::Result<Reporter> {
        Ok(Reporter {
            writer: Writer::start()?,
            palette: Palette::stdout(color),
            args,
            start: None,
            summary: Summary::default(),
            packets: 0,
            trace: Trace::default(),
        })
    }

    /// Are packets told?
    pub(super) const fn traces(&self) -> bool {
        self.args.traces()
    }

    /// Has the reader gone?
    pub(super) fn is_closed(&self) -> bool {
        self.writer.is_closed()
    }

    /// A packet, with the steps that are in the trace.
    pub(super) fn packet(&mut self, seen: &Seen<'_>, now: Time) {
        self.packets += 1;
        let start = *self.start.get_or_insert(now);
        let told = Told {
            number: self.packets,
            since_start: now.since(start),
            interface: seen.interface,
            before: (seen.before, seen.before.len()),
            after: seen.ruling.ctinfo.is_ok().then_some(seen.after),
            decided: Decided::Ruling(seen.ruling),
            engine: seen.engine,
        };
        self.summary.count(&told.decided);
        let mut text = Vec::new();
        let steps = &self.trace.steps;
        // Writing into memory does not fail.
        let _ = match self.args.json {
            true => PacketObject::new(&told, now.0, steps).and_then(|object| object.write(&mut text)),
            false => told.write(steps, self.args.verbose, self.palette, &mut text),
        };
        self.writer.packet(String::from_utf8_lossy(&text).into_owned());
        self.trace.steps.clear();
        self.trace.events.clear();
    }

    /// Something that the user should know, in lines of its own.
    pub(super) fn message(&mut self, text: &impl Display) {
        self.writer.message(format!("{text}\n"));
    }

    /// What was done in the end.
    pub(super) fn end(mut self, totals: &impl Display) {
        let mut text = String::new();
        if self.args.trace {
            let palette = if self.args.json { Palette::PLAIN } else { self.palette };
            text = format!("\n{}", self.summary.show(palette));
            if self.writer.left_out() > 0 {
                text +=
                    &format!("{} packets were not printed because the output was too slow\n", self.writer.left_out());
            }
        }
        text += &totals.to_string();
        self.writer.last_message(text, self.args.json);
    }
}
