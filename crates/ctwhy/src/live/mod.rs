//! `ctwhy live`: the packets of an NFQUEUE, explained beside the kernel that decides about them.
//!
//! Conntrack has decided about a queued packet; its decision is in the mark. While packets wait, the engine decides about
//! them in the same order. An accepting verdict makes the kernel take the packet through all remaining hooks before the
//! system call returns, so that the event of a confirmed entry and the copy of what left are there to be read next: the
//! engine learns the binding that the kernel chose, translates the packet in the same way, and both results are compared
//! byte by byte.

mod answers;
mod args;
mod compare;
mod consumer;
mod kernel;
mod order;
mod report;
mod session;
mod totals;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ctwhy_core::hook::Engine;
use ctwhy_linux::ctnetlink::{self, Entry, Event, Events};
use ctwhy_linux::nflog::{LogEvent, Logged, Nflog};
use ctwhy_linux::program;
use ctwhy_linux::queue::{Decision, QueueConfig, Queued, Verdict};
use ctwhy_linux::rules::{LogTable, MarkBits, QueueRules, RuleSet};
use ctwhy_linux::signal::{SIGUSR1, Signals, wait_readable};
use ctwhy_linux::sysctl;

pub(crate) use args::{DEFAULT_LOG_GROUP, LiveArgs, Meeting};
pub(crate) use report::{FROM_THIS_HOST, READY, SO_FAR, STEP_INDENT};

use crate::clock::Clock;
use crate::release;
use consumer::{Consumer, Queue};
use report::Reporter;
use session::{Arrived, Copies, Session, take_answers};
use totals::Totals;

/// Receive buffers of events and copies, in bytes.
const BUFFER: usize = 16 << 20;
/// Packets that are decided about before the first of them gets its verdict.
const BATCH: usize = 256;
/// A queue with no more room than this is taken for full.
const ALMOST: u32 = 64;
/// After packets were missed the table is read again, but not more often than this.
const BETWEEN_DUMPS: Duration = Duration::from_secs(1);

/// Runs the command: 0 when the engine and the kernel agreed about every packet, 1 when they did not.
///
/// # Errors
/// What is missing or in use, in one line.
pub(crate) fn run(args: &LiveArgs) -> io::Result<ExitCode> {
    let mut reporter = Reporter::new(args)?;
    let totals = watch(&args.options(), &mut reporter).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let text = format!("{error}; root has it, and in a lab everybody is root: `ctwhy lab run traceroute`");
            io::Error::new(error.kind(), text)
        }
        _ => error,
    })?;
    reporter.end(&totals);
    Ok(if totals.differed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What a run is to do.
#[derive(Clone, Debug)]
struct Options {
    /// Number of the queue.
    queue: u16,
    /// Where the rules put the kernel's decision.
    bits: MarkBits,
    /// Group of the copies from behind NAT.
    log_group: Option<u16>,
    /// Put the rules in, and take them out at the end?
    install_rules: bool,
    /// Which crate receives the packets.
    consumer: Consumer,
    /// End after so many packets.
    packets: Option<u64>,
    /// End after this time.
    time: Option<Duration>,
}

/// Runs until a signal, or as long as the options say.
///
/// # Errors
/// What is missing or in use, in one line.
fn watch(options: &Options, report: &mut Reporter) -> io::Result<Totals> {
    if sysctl::read("net.netfilter.nf_conntrack_events")?.as_deref() == Some("0") {
        let text = "net.netfilter.nf_conntrack_events is 0, so the kernel does not tell of its entries; set it to 1";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let mut live = Live::open(options)?;
    let flows = live.read_table()?;
    live.session.engine.conntrack.sysctls = kernel::sysctls()?;
    live.session.engine.conntrack.table.kernel = release::running()?;
    live.session.engine.network = kernel::network()?;
    report.ready(options, flows, live.copies != Copies::None, live.clock.now());
    release::remarks(live.session.engine.conntrack.table.kernel).iter().for_each(|remark| report.note(remark));
    live.follow(options, report)?;
    live.end()
}

/// All that is open while a run lasts. It ends in this order, whatever ends it: no more packets are queued, those that
/// wait are let go, and then the table of the copies goes, because with it the kernel drops what waits in a queue.
struct Live {
    rules: Option<QueueRules>,
    queue: Queue,
    table: Option<LogTable>,
    signals: Signals,
    events: Events,
    log: Option<Nflog>,
    copies: Copies,
    session: Session,
    totals: Totals,
    clock: Clock,
    /// The state of the receiving side: buffers that are used again.
    waiting: Vec<Queued>,
    born: Vec<Entry>,
    left: Vec<Logged>,
    /// Packets or events went past: until the table is read again the engine knows less than the kernel.
    out_of_step: bool,
    missed: u64,
    /// Packets that came from the queue.
    received: u64,
    last_dump: Instant,
}

impl Live {
    fn open(options: &Options) -> io::Result<Live> {
        // From here on a signal ends the loop, and the guards below run.
        let signals = Signals::take()?;
        let queue = Queue::open(options.consumer, &QueueConfig::new(options.queue))?;
        let events = Events::open(BUFFER)?;
        let log_group = options.log_group.filter(|_| !options.install_rules || program::find("nft").is_ok());
        let log = match log_group.map(|group| Nflog::open(group, BUFFER)).transpose() {
            // Copies are a help: a kernel without NFLOG does without.
            Err(error) if !matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::PermissionDenied) => {
                None
            }
            log => log?,
        };
        let log_group = log_group.filter(|_| log.is_some());
        let mut copies = if log.is_some() { Copies::Unproven } else { Copies::None };
        let (mut rules, mut table) = (None, None);
        if options.install_rules {
            let set = RuleSet { bits: options.bits, log_group, ..RuleSet::new(options.queue) };
            let (queue_rules, log_table) = set.install()?.into_parts();
            copies = if log_table.is_some() { Copies::Complete } else { Copies::None };
            (rules, table) = (Some(queue_rules), log_table);
        }
        Ok(Live {
            rules,
            queue,
            table,
            signals,
            events,
            log,
            copies,
            session: Session::new(Engine::new(0), options.bits),
            totals: Totals::default(),
            clock: Clock::start(),
            waiting: Vec::new(),
            born: Vec::new(),
            left: Vec::new(),
            out_of_step: false,
            missed: 0,
            received: 0,
            last_dump: Instant::now(),
        })
    }

    /// Ends the run in order, and says what went past it.
    fn end(self) -> io::Result<Totals> {
        let Live { rules, mut queue, table, mut totals, received, .. } = self;
        // In this order: a packet that comes in between is not taken for one that went past.
        let sent = rules.as_ref().map_or(Ok(0), QueueRules::queued)?;
        let stats = queue.packets().stats()?;
        totals.lost.count(&stats, received, sent);
        let removed = rules.map_or(Ok(()), QueueRules::remove);
        drop(queue);
        removed.and(table.map_or(Ok(()), LogTable::remove))?;
        Ok(totals)
    }

    /// Takes over the kernel's table; says how many entries it has.
    fn read_table(&mut self) -> io::Result<usize> {
        let entries = ctnetlink::dump()?;
        let now = self.clock.now();
        self.session.forget_all();
        for entry in &entries {
            self.session.learn(entry, now);
        }
        self.out_of_step = false;
        self.last_dump = Instant::now();
        Ok(entries.len())
    }

    fn follow(&mut self, options: &Options, report: &mut Reporter) -> io::Result<()> {
        let end = options.time.map(|time| Instant::now() + time);
        loop {
            while let Some(signal) = self.signals.received() {
                if signal != SIGUSR1 {
                    return Ok(());
                }
                report.so_far(&self.totals);
            }
            let remaining = end.map(|end| end.saturating_duration_since(Instant::now()));
            let most = options.packets.map_or(usize::MAX, |most| {
                usize::try_from(most.saturating_sub(self.totals.packets)).unwrap_or(usize::MAX)
            });
            if most == 0 || remaining == Some(Duration::ZERO) || report.is_closed() {
                return Ok(());
            }
            if self.round(most.min(BATCH), report)? == 0 {
                self.wait(remaining)?;
            }
        }
    }

    fn wait(&self, remaining: Option<Duration>) -> io::Result<()> {
        let mut descriptors = vec![self.signals.as_fd(), self.events.as_fd()];
        descriptors.extend(self.queue.readable());
        descriptors.extend(self.log.as_ref().map(AsFd::as_fd));
        let patience = self.queue.patience();
        let timeout = match (patience, remaining) {
            (Some(patience), Some(remaining)) => Some(patience.min(remaining)),
            (one, other) => one.or(other),
        };
        wait_readable(&descriptors, timeout).map(drop)
    }

    /// Whatever is there now, up to `most` packets; says how many there were.
    fn round(&mut self, most: usize, report: &mut Reporter) -> io::Result<usize> {
        let mut count = 0;
        while count < most {
            if self.waiting.len() == count {
                self.waiting.push(Queued::default());
            }
            let Some(slot) = self.waiting.get_mut(count) else { break };
            match self.queue.packets().recv_into(slot) {
                Ok(true) => {
                    count += 1;
                    self.received += 1;
                }
                Ok(false) => break,
                // A packet that the kernel took out of the queue, because its interface went away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.read_events()?;
        let now = self.clock.now();
        for entry in std::mem::take(&mut self.born) {
            self.session.learn(&entry, now);
        }
        self.read_copies()?;
        self.left.clear();
        self.keep_step(count == 0, report)?;
        let waiting = std::mem::take(&mut self.waiting);
        let mut arrived = Vec::with_capacity(count);
        for queued in waiting.iter().take(count) {
            let now = self.clock.now();
            arrived.push(kernel::hook(queued.hook).map(|hook| self.session.arrive(queued, hook, now)));
        }
        self.session.reconsider(&waiting, &mut arrived);
        self.session.end_entries(now);
        let mut result = Ok(count);
        for (queued, arrived) in waiting.iter().zip(arrived) {
            if let Err(error) = self.let_go(queued, arrived, report) {
                result = Err(error);
                break;
            }
        }
        self.waiting = waiting;
        result
    }

    /// When packets or events went past, the engine's table is not the kernel's any more. It is read again when no packet
    /// waits that was decided about before.
    fn keep_step(&mut self, idle: bool, report: &mut Reporter) -> io::Result<()> {
        let missed = self.queue.packets().missed();
        let full = !idle && self.is_full()?;
        if missed > self.missed || full {
            self.missed = missed;
            self.out_of_step = true;
        }
        if self.out_of_step && idle && self.last_dump.elapsed() >= BETWEEN_DUMPS {
            let flows = self.read_table()?;
            report.note(format_args!("packets or events went past; the table was read again, {flows} flows"));
        }
        Ok(())
    }

    /// Packets pass a full queue, and no counter tells.
    fn is_full(&mut self) -> io::Result<bool> {
        if self.waiting.len() < BATCH {
            return Ok(false);
        }
        let stats = self.queue.packets().stats()?;
        Ok(stats.waiting + ALMOST >= QueueConfig::new(stats.number).max_len)
    }

    /// The verdict for one packet, and what came of it.
    fn let_go(&mut self, queued: &Queued, arrived: Option<Arrived>, report: &mut Reporter) -> io::Result<()> {
        let mark = self.session.bits.clear(queued.mark);
        let mark = (mark != queued.mark).then_some(mark);
        let verdict = Verdict { decision: Decision::Accept, mark, payload: None };
        self.queue.packets().verdict(queued.id, verdict)?;
        self.read_events()?;
        let watch = self.read_copies()?;
        let Some(arrived) = arrived else {
            // A rule of somebody else's sent it to our queue from a hook where conntrack has decided long ago.
            self.totals.elsewhere += 1;
            return Ok(());
        };
        let answers = take_answers(&mut self.left);
        let mut seen = self.session.depart(queued, arrived, &self.born, &self.left, watch);
        self.born.clear();
        self.left.clear();
        seen.comparable = !self.out_of_step;
        self.totals.count(&seen);
        report.packet(&seen, &self.session.engine)?;
        for (answer, left) in answers {
            let now = self.clock.now();
            if let Some((queued, arrived)) = self.session.arrive_logged(answer, now) {
                let mut seen = self.session.depart(&queued, arrived, &[], &left, watch);
                seen.comparable = !self.out_of_step;
                self.totals.count(&seen);
                report.packet(&seen, &self.session.engine)?;
            }
        }
        Ok(())
    }

    /// Takes all events that are there; entries that were confirmed are collected.
    fn read_events(&mut self) -> io::Result<()> {
        while let Some(event) = self.events.recv()? {
            match event {
                Event::Entry(kind, entry) => {
                    let now = self.clock.now();
                    self.born.extend(self.session.event(kind, *entry, now));
                }
                Event::Lost => {
                    self.totals.lost.events += 1;
                    self.out_of_step = true;
                }
            }
        }
        Ok(())
    }

    /// Collects all copies that are there; says what a missing one means.
    fn read_copies(&mut self) -> io::Result<Copies> {
        let Some(log) = &mut self.log else { return Ok(Copies::None) };
        let mut lost = false;
        while let Some(event) = log.recv()? {
            match event {
                LogEvent::Packet(copy) => {
                    self.copies = Copies::Complete;
                    self.left.push(copy);
                }
                LogEvent::Lost => {
                    self.totals.lost.copies += 1;
                    lost = true;
                }
            }
        }
        Ok(if lost { Copies::Unproven } else { self.copies })
    }
}
