//! A capture on its way through the engine, and what is printed of it.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use ctwhy_conform::{replay, table};
use ctwhy_core::hook::{DropCause, Ruling};
use ctwhy_core::packet::{Packet, PacketError};
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;
use ctwhy_fixture::capture::{Capture, CaptureError, CapturedPacket, Cause, Interface};
use ctwhy_fixture::link::{self, LinkError, PacketType, Stripped};
use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::PcapngWriter;

use super::ExplainArgs;
use super::input::Made;
use super::output::{Output, Prompt};
use super::own::{self, Complaints};
use super::world::Host;
use crate::failure::{Failure, complain};
use crate::report::expectations::expectations;
use crate::report::json::PacketObject;
use crate::report::line::{Decided, Told};
use crate::report::style::Palette;
use crate::report::summary::{Plural, Summary};

/// Everything that lasts from the first packet to the last.
pub(super) struct Run<'a> {
    args: &'a ExplainArgs,
    host: Host,
    complaints: Complaints,
    palette: Palette,
    out: Output,
    /// Does anybody still read the output?
    heard: bool,
    /// Did the filter let the packet pass?
    shown: bool,
    copy: Option<PcapngWriter<BufWriter<File>>>,
    summary: Summary,
    counts: Counts,
    /// What is wrong with the first packet of an unknown link type.
    unknown_link: Option<String>,
    start: Option<u64>,
    now: u64,
    /// The host's index of each interface of the capture.
    interfaces: Vec<Option<u16>>,
    /// What the host of a case sent itself.
    made: Made,
    /// The packet as it leaves, and its steps; used again for every packet.
    buffer: Vec<u8>,
    trace: Trace,
}

/// What the user should know about the capture.
#[derive(Default)]
struct Counts {
    filtered: u64,
    backwards: u64,
    cut: u64,
    damaged: u64,
    outgoing: u64,
}

impl<'a> Run<'a> {
    pub(super) fn new(args: &'a ExplainArgs, host: Host, made: Made) -> Result<Run<'a>, Failure> {
        let create = |path: &std::path::PathBuf| -> Result<_, Failure> {
            let file = File::create(path).map_err(|error| Failure::io(path, &error))?;
            Ok(PcapngWriter::new(BufWriter::new(file), "ctwhy")?)
        };
        Ok(Run {
            args,
            host,
            complaints: Complaints::default(),
            palette: Palette::stdout(args.color),
            out: Output::stdout(),
            heard: true,
            shown: true,
            copy: args.write.as_ref().map(create).transpose()?,
            summary: Summary::default(),
            counts: Counts::default(),
            unknown_link: None,
            start: None,
            now: 0,
            interfaces: Vec::new(),
            made,
            buffer: Vec::new(),
            trace: Trace::default(),
        })
    }

    /// Explains every packet, then sums up; an error of the capture comes last.
    pub(super) fn all<R: Read>(mut self, bytes: R, name: &str, about: Option<&str>) -> Result<(), Failure> {
        let mut capture = Capture::new(Prompt { input: bytes, output: self.out.clone() }, name)?;
        if let Some(about) = about.filter(|_| !self.args.json) {
            self.print(|out| writeln!(out, "{about}\n"))?;
        }
        let (mut failure, mut last) = (None, 0);
        while let Some(next) = capture.next() {
            match next {
                Ok(packet) => {
                    last = packet.number;
                    let (number, ruling) = (packet.number, self.packet(&packet, name)?);
                    self.answer(number, ruling);
                    self.events()?;
                }
                Err(error) => {
                    self.damaged(&error)?;
                    failure.get_or_insert(Failure::from(error));
                }
            }
            if !self.heard && self.copy.is_none() {
                return Err(Failure::unheard());
            }
        }
        self.finish()?;
        let failure = failure.or(self.unknown_link.map(Failure::usage));
        let failure = failure.or_else(|| {
            let beyond = self.args.packets.iter().find(|numbers| numbers.first() > last)?;
            Some(Failure::usage(format!("--packet {}: the last packet of {name} is {last}", beyond.first())))
        });
        failure.map_or(Ok(()), Err)
    }

    /// Explains one packet, and gives what was decided about it.
    fn packet(&mut self, packet: &CapturedPacket<'_>, file: &str) -> Result<Option<Ruling>, Failure> {
        self.counts.backwards += u64::from(packet.time_ns < self.now);
        // A clock that was set back must not make dead entries live again.
        self.now = self.now.max(packet.time_ns);
        let start = *self.start.get_or_insert(packet.time_ns);
        let since_start = packet.time_ns.saturating_sub(start);
        let interface = packet.iface().or(self.args.world.interface());
        self.counts.cut += u64::from((packet.original_len as usize) > packet.bytes.len());
        let in_interface = self.in_interface(packet, interface, file)?;

        let text;
        let ruling;
        let mut before: (&[u8], usize) = (&[], 0);
        let wanted = self.args.wants_steps(packet.number);
        self.trace.steps.clear();
        self.trace.events.clear();
        let decided = match link::strip(packet.linktype, packet.bytes) {
            Ok(Stripped::Ip(link)) => {
                self.counts.outgoing += u64::from(link.packet_type == Some(PacketType::Outgoing));
                let bytes = packet.bytes.get(link.ip_offset..).unwrap_or(&[]);
                before = (bytes, (packet.original_len as usize).saturating_sub(link.ip_offset));
                ruling =
                    self.decide(packet.number, before, in_interface, wanted || self.copy.is_some() || self.args.events);
                Decided::Ruling(&ruling)
            }
            Ok(Stripped::NotIp(what)) => {
                text = what.to_string();
                Decided::NotIp { code: "link.not_ip", text: &text }
            }
            Err(error) => {
                let code = self.link_error(packet, &error, file)?;
                text = error.to_string();
                Decided::NotIp { code, text: &text }
            }
        };
        self.summary.count(&decided);
        let decision = decided.ruling().cloned();
        let ruled = decided.ruling();
        if let Some((ruling, datagram)) = ruled.and_then(|ruling| Some((ruling, ruling.datagram.as_ref()?))) {
            before = (ruling.arrived(before.0), datagram.len);
        }
        let told = Told {
            number: packet.number,
            since_start,
            interface,
            before,
            after: decided
                .ruling()
                .filter(|ruling| ruling.ctinfo.is_ok())
                .map(|ruling| self.host.engine.departed(ruling, &self.buffer)),
            decided,
            engine: &self.host.engine,
        };
        if let Some(copy) = &mut self.copy {
            let mut comment = told.line(Palette::PLAIN).to_string();
            comment.push('\n');
            comment.push_str(&told.steps(&self.trace.steps, Palette::PLAIN).to_string());
            copy.follow_interfaces(packet.interfaces())?;
            let comments = packet.comments().chain([comment.trim_end()]);
            copy.packet((*packet).into(), comments)?;
        }
        let passes = self.args.filter.shows(before, told.after);
        self.counts.filtered += u64::from(!passes);
        self.shown = passes;
        if !passes || !self.args.wants_line(packet.number) || !self.heard {
            return Ok(decision);
        }
        let out = &mut self.out;
        let written = if self.args.json {
            PacketObject::at(&told, Some(packet.time_ns), Time(self.now), &self.trace.steps)?.write(out)
        } else {
            let steps = if wanted { self.trace.steps.as_slice() } else { &[] };
            told.write(steps, wanted, self.palette, out)
        };
        self.written(written)?;
        Ok(decision)
    }

    /// What the host of a case sent in answer to a packet.
    fn answer(&mut self, number: u64, cause: Option<Ruling>) {
        let Some(cause) = cause else { return };
        for made in self.made.get(&number).into_iter().flatten() {
            replay::generate(&mut self.host.engine, made, &cause, Time(self.now), &mut self.trace.events);
        }
    }

    /// What the kernel would tell of its table because of the packet.
    fn events(&mut self) -> Result<(), Failure> {
        if !self.args.events || !self.shown || !self.heard {
            return Ok(());
        }
        let lines = self.trace.events.iter().map(table::event_line);
        let written = lines.into_iter().try_for_each(|line| writeln!(self.out, "{line}"));
        self.written(written)
    }

    /// Where the packet comes to conntrack, and what the engine decides there.
    fn decide(
        &mut self,
        number: u64,
        (bytes, wire_len): (&[u8], usize),
        in_interface: Option<u16>,
        traced: bool,
    ) -> Ruling {
        let engine = &mut self.host.engine;
        engine.defrag.label = number;
        let now = Time(self.now);
        self.buffer.clear();
        self.buffer.extend_from_slice(bytes);
        if Packet::parse(bytes, wire_len).is_ok_and(|packet| own::is_from_here(engine, &packet)) {
            let (complaints, buffer) = (&mut self.complaints, &mut self.buffer);
            return match traced {
                true => own::send(engine, complaints, buffer, wire_len, now, &mut self.trace),
                false => own::send(engine, complaints, buffer, wire_len, now, &mut ()),
            };
        }
        let ruling = match traced {
            true => engine.receive(&mut self.buffer, wire_len, in_interface, now, &mut self.trace),
            false => engine.receive(&mut self.buffer, wire_len, in_interface, now, &mut ()),
        };
        self.complaints.note(ruling.arrived(bytes), &ruling);
        ruling
    }

    /// The host's index of the interface that a packet came in by.
    fn in_interface(
        &mut self,
        packet: &CapturedPacket<'_>,
        name: Option<&str>,
        file: &str,
    ) -> Result<Option<u16>, Failure> {
        let at = packet.interface as usize;
        if let Some(index) = self.interfaces.get(at) {
            return Ok(*index);
        }
        let Some(name) = name else {
            if let Some(rule) = &self.host.remarks.asks_in_interface {
                return Err(Failure::usage(format!("{rule}, and {file} names no interface: add --iface NAME")));
            }
            return Ok(None);
        };
        let network = &mut self.host.engine.network;
        let index = (network.interfaces.len() < usize::from(u16::MAX)).then(|| network.interface_named(name));
        self.interfaces.resize(at, None);
        self.interfaces.push(index);
        Ok(index)
    }

    /// The code of a packet whose link layer cannot be taken apart.
    fn link_error(
        &mut self,
        packet: &CapturedPacket<'_>,
        error: &LinkError,
        file: &str,
    ) -> Result<&'static str, Failure> {
        let is_unknown = |linktype: LinkType| matches!(link::strip(linktype, &[]), Err(LinkError::UnknownLinkType(_)));
        if !is_unknown(packet.linktype) {
            return Ok("link.truncated");
        }
        let message = format!("{file}: {error}");
        // Where nothing can be explained there is nothing to print.
        if packet.number == 1 && packet.interfaces().iter().all(|interface: &Interface| is_unknown(interface.linktype))
        {
            return Err(Failure::usage(message));
        }
        self.unknown_link.get_or_insert(message);
        Ok("link.unknown_type")
    }

    /// A packet that is in the capture, but cannot be read.
    fn damaged(&mut self, error: &CaptureError) -> Result<(), Failure> {
        let (Cause::PacketOverrun { packet: number, .. } | Cause::UnknownInterface { packet: number, .. }) =
            *error.cause()
        else {
            return Ok(());
        };
        self.counts.damaged += 1;
        let text = error.cause().to_string();
        let decided = Decided::NotIp { code: "capture.damaged", text: &text };
        self.summary.count(&decided);
        let told = Told {
            number,
            since_start: self.now.saturating_sub(self.start.unwrap_or(self.now)),
            interface: None,
            before: (&[], 0),
            after: None,
            decided,
            engine: &self.host.engine,
        };
        if !self.args.filter.shows(told.before, None) || !self.args.wants_line(number) || !self.heard {
            return Ok(());
        }
        let written = match self.args.json {
            true => PacketObject::at(&told, None, Time(self.now), &[])?.write(&mut self.out),
            false => told.write(&[], false, self.palette, &mut self.out),
        };
        self.written(written)
    }

    /// The table, the summary, and what the user should know about the capture.
    fn finish(&mut self) -> Result<(), Failure> {
        if let Some(copy) = self.copy.take() {
            copy.finish()?;
        }
        let written = self.ending();
        self.written(written)?;
        for note in self.notes() {
            complain(format_args!("note: {note}"));
        }
        Ok(())
    }

    fn ending(&mut self) -> io::Result<()> {
        if !self.heard {
            return Ok(());
        }
        let (engine, now) = (&self.host.engine, Time(self.now));
        if self.args.json {
            let expected = if self.args.expectations { expectations(engine, now)? } else { Vec::new() };
            expected.iter().try_for_each(|object| writeln!(self.out, "{object}"))?;
            self.out.flush()?;
            complain(self.summary.show(Palette::PLAIN).to_string().trim_end());
            return Ok(());
        }
        let silent = self.args.quiet && self.args.packets.is_empty() && !self.args.events;
        let mut separator = if silent { "" } else { "\n" };
        if self.args.table {
            write!(self.out, "{separator}")?;
            for line in table::lines(&engine.conntrack.table, now) {
                writeln!(self.out, "{line}")?;
            }
            separator = "\n";
        }
        if self.args.expectations {
            write!(self.out, "{separator}")?;
            for line in table::expectation_lines(&engine.conntrack.table, now) {
                writeln!(self.out, "{line}")?;
            }
            separator = "\n";
        }
        write!(self.out, "{separator}{}", self.summary.show(self.palette))?;
        self.out.flush()
    }

    fn print(&mut self, text: impl FnOnce(&mut Output) -> io::Result<()>) -> Result<(), Failure> {
        let written = text(&mut self.out);
        self.written(written)
    }

    /// A reader who left is no failure; the copy is written to its end.
    fn written(&mut self, result: io::Result<()>) -> Result<(), Failure> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.heard = false,
            result => result?,
        }
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.host.remarks.notes.clone();
        let packets = self.summary.packets();
        let Counts { filtered, backwards, cut, damaged, outgoing } = self.counts;
        let mut note = |count: u64, text: &str| {
            if count > 0 {
                notes.push(format!("{}{text}", Plural(count, "packet")));
            }
        };
        note(filtered, " not shown because of the filter, but tracked");
        note(damaged, " damaged in the capture, and so not tracked");
        note(cut, " cut by the snap length: what is missing cannot be verified");
        note(backwards, " with a time before that of an earlier one: taken as simultaneous");
        let cut_short = PacketError::CutShort { need: 0, have: 0 }.code();
        note(self.summary.unseen(cut_short), " cut before the bytes that decide: capture with a larger snap length");
        note(
            self.summary.dropped(DropCause::NoRoute.code()),
            " without a route: add --route PREFIX=IFACE, such as 0.0.0.0/0=IFACE",
        );
        if self.host.engine.network.is_unknown() {
            note(
                outgoing,
                " on the way out, taken as received like all: on `any` a forwarded packet is there twice; capture on one \
                 interface",
            );
        }
        let incomplete = self.host.engine.defrag.waiting() as u64;
        if incomplete > 0 {
            notes
                .push(format!("{} of which fragments are missing, and so not tracked", Plural(incomplete, "datagram")));
        }
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
