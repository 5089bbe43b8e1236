//! A capture on its way through the engine, and what is printed of it.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use ctwhy_core::hook::{Engine, Unseen};
use ctwhy_core::packet::PacketError;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;
use ctwhy_fixture::capture::{Capture, CapturedPacket};
use ctwhy_fixture::link::{self, Stripped};
use ctwhy_fixture::write::PcapngWriter;

use super::ExplainArgs;
use crate::failure::Failure;
use crate::report::json::PacketObject;
use crate::report::line::{Decided, Told};
use crate::report::style::Palette;
use crate::report::summary::{Plural, Summary};

/// Everything that lasts from the first packet to the last.
pub(super) struct Run<'a> {
    args: &'a ExplainArgs,
    engine: Engine,
    palette: Palette,
    out: BufWriter<io::Stdout>,
    copy: Option<PcapngWriter<BufWriter<File>>>,
    summary: Summary,
    shown: u64,
    start: Option<u64>,
    now: u64,
    backwards: u64,
    cut: u64,
    lost: u64,
    notes: Vec<String>,
    /// The packet as it leaves, and its steps; used again for every packet.
    buffer: Vec<u8>,
    trace: Trace,
}

impl<'a> Run<'a> {
    pub(super) fn new(args: &'a ExplainArgs, engine: Engine, notes: Vec<String>) -> Result<Run<'a>, Failure> {
        let create = |path: &std::path::PathBuf| -> Result<_, Failure> {
            let file = File::create(path).map_err(|error| Failure::io(path, &error))?;
            Ok(PcapngWriter::new(BufWriter::new(file), "ctwhy")?)
        };
        Ok(Run {
            args,
            engine,
            palette: Palette::stdout(args.color),
            out: BufWriter::with_capacity(1 << 16, io::stdout()),
            copy: args.write.as_ref().map(create).transpose()?,
            summary: Summary::default(),
            shown: 0,
            start: None,
            now: 0,
            backwards: 0,
            cut: 0,
            lost: 0,
            notes,
            buffer: Vec::new(),
            trace: Trace::default(),
        })
    }

    /// Explains every packet, then sums up; an error of the capture comes last.
    pub(super) fn all<R: Read>(mut self, mut capture: Capture<R>) -> Result<(), Failure> {
        let mut failure = None;
        while let Some(next) = capture.next() {
            match next {
                Ok(packet) => self.packet(&packet)?,
                Err(error) => {
                    self.lost += u64::from(error.is_recoverable());
                    failure = Some(Failure::from(error));
                }
            }
        }
        self.finish()?;
        failure.map_or(Ok(()), Err)
    }

    fn packet(&mut self, packet: &CapturedPacket<'_>) -> Result<(), Failure> {
        self.backwards += u64::from(packet.time_ns < self.now);
        // A clock that was set back must not make dead entries live again.
        self.now = self.now.max(packet.time_ns);
        let start = *self.start.get_or_insert(packet.time_ns);
        let since_start = packet.time_ns.saturating_sub(start);
        let interface = packet.iface().or(self.args.world.interface());
        self.cut += u64::from((packet.original_len as usize) > packet.bytes.len());

        let not_ip;
        let ruling;
        let mut before: (&[u8], usize) = (&[], 0);
        let wanted = self.args.wants_steps(packet.number);
        let traced = wanted || self.args.json || self.copy.is_some();
        self.trace.steps.clear();
        let decided = match link::strip(packet.linktype, packet.bytes) {
            Ok(Stripped::Ip(link)) => {
                let bytes = packet.bytes.get(link.ip_offset..).unwrap_or(&[]);
                before = (bytes, (packet.original_len as usize).saturating_sub(link.ip_offset));
                self.buffer.clear();
                self.buffer.extend_from_slice(bytes);
                let in_interface = interface.and_then(|name| {
                    let known = self.engine.network.interfaces.iter().position(|known| known.name == name);
                    known.and_then(|index| u16::try_from(index).ok())
                });
                let now = Time(self.now);
                ruling = if traced {
                    self.engine.receive(&mut self.buffer, before.1, in_interface, now, &mut self.trace)
                } else {
                    self.engine.receive(&mut self.buffer, before.1, in_interface, now, &mut ())
                };
                Decided::Ruling(&ruling)
            }
            Ok(Stripped::NotIp(what)) => {
                not_ip = what.to_string();
                Decided::NotIp { code: "link.not_ip", text: &not_ip }
            }
            Err(error) => {
                not_ip = error.to_string();
                Decided::NotIp { code: "link.error", text: &not_ip }
            }
        };
        self.summary.count(&decided);
        let told = Told {
            number: packet.number,
            since_start,
            interface,
            before,
            after: decided.ruling().filter(|ruling| ruling.ctinfo.is_ok()).map(|_| &self.buffer[..]),
            decided,
            engine: &self.engine,
        };
        if let Some(copy) = &mut self.copy {
            let mut comment = told.line(Palette::PLAIN).to_string();
            comment.push('\n');
            comment.push_str(&told.steps(&self.trace.steps, Palette::PLAIN).to_string());
            copy.follow_interfaces(packet.interfaces())?;
            let comments = packet.comments().chain([comment.trim_end()]);
            copy.packet((*packet).into(), comments)?;
        }
        if !self.args.filter.shows(before, told.after) {
            return Ok(());
        }
        self.shown += 1;
        if self.args.json {
            PacketObject::new(&told, packet.time_ns, &self.trace.steps)?.write(&mut self.out)?;
            return Ok(());
        }
        writeln!(self.out, "{}", told.line(self.palette))?;
        if wanted {
            write!(self.out, "{}", told.steps(&self.trace.steps, self.palette))?;
        }
        Ok(())
    }

    /// The table, the summary, and what the user should know about the capture.
    fn finish(mut self) -> Result<(), Failure> {
        if let Some(copy) = self.copy.take() {
            copy.finish()?.flush()?;
        }
        if self.args.table {
            writeln!(self.out)?;
            for line in ctwhy_conform::table::lines(&self.engine.conntrack.table, Time(self.now)) {
                writeln!(self.out, "{line}")?;
            }
        }
        let notes = self.notes();
        if self.args.json {
            self.out.flush()?;
            eprint!("{}", self.summary.show(Palette::PLAIN));
        } else {
            write!(self.out, "\n{}", self.summary.show(self.palette))?;
            self.out.flush()?;
        }
        for note in notes {
            eprintln!("note: {note}");
        }
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        let packets = self.summary.packets();
        let mut note = |count: u64, text: &str| {
            if count > 0 {
                notes.push(format!("{}{text}", Plural(count, "packet")));
            }
        };
        note(packets - self.shown, " not shown because of the filter, but tracked");
        note(self.lost, " could not be read from the capture and was left out");
        note(self.cut, " cut by the snap length: what is missing cannot be verified");
        note(self.backwards, " with a time before that of an earlier one: taken as simultaneous");
        let fragment = ctwhy_core::packet::Fragment { offset: 0, more: true, id: 0 };
        note(self.summary.unseen(Unseen::Fragment(fragment).code()), " are fragments, which are not put together");
        let cut_short = PacketError::CutShort { need: 0, have: 0 }.code();
        note(self.summary.unseen(cut_short), " cut before the bytes that decide: capture with a larger snap length");
        note(self.summary.unseen(Unseen::NoTracker(0).code()), " of a protocol that is not tracked yet (SCTP, GRE, UDPLITE)");
        // One damaged packet is damage; a quarter of all is a device that fills checksums in later.
        let wrong = self.summary.wrong_checksums();
        if wrong >= 3 && wrong * 4 >= packets {
            notes.push(format!(
                "{} with a wrong checksum look like checksum offload on the capturing host; --no-checksum leaves them unverified",
                Plural(wrong, "packet")
            ));
        }
        notes
    }
}
