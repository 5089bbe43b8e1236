//! `ctwhy nat queue`: NAT of what the kernel forwards.
//!
//! Packets are read in batches and decided about in the order in which the kernel handed them over. A packet that begins a
//! flow goes its whole way before the next one is looked at: in the kernel nothing comes between its look-up and its
//! confirmation either, and of two packets of a flow that waited side by side the second would be in the way of the first.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};
use std::os::fd::AsFd;

use clap::Args;
use ctwhy_core::hook::Engine;
use ctwhy_core::rules::target::Target;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Trace;
use ctwhy_core::tuple::L3;
use ctwhy_linux::links::{Change, Changes};
use ctwhy_linux::queue::{MnlQueue, PacketQueue, QueueConfig, QueueStats, Queued, Verdict};
use ctwhy_linux::rules::{NatBits, NatChains, NatRules};
use ctwhy_linux::signal::wait_readable;
use ctwhy_linux::socket::raw::RawSender;
use ctwhy_linux::sysctl;
use ctwhy_nat::limit::Limits;
use ctwhy_nat::queue::interfaces::Present;
use ctwhy_nat::queue::{Answer, Answered, QueueNat};
use ctwhy_nat::router::{Ruled, Watch};
use ctwhy_nat::statistics::count;

use super::control::Control;
use super::reporter::{Reporter, Seen};
use super::{Common, TableTotals};
use crate::clock::Clock;
use crate::failure::{Failure, complain};
use crate::host::Network;

/// What the NAT says when packets are translated from now on.
const READY: &str = "ctwhy nat: ready";
/// So many packets begin their way before those that end theirs have their turn, unless there are fewer slots.
const BATCH: usize = 32;
/// Batches between looks at signals and at changes of the network while there is no end of packets.
const BETWEEN_LOOKS: usize = 16;

/// What has to be known before the first run.
const NOTES: &str = "\
The kernel routes, decrements the TTL and sends ICMP errors as ever; it does not track these packets, and its own nat table \
does not see them. Rules of the machine's own filter table apply, but know every packet as UNTRACKED: what asks for states \
belongs into the filter table of --rules.

While nobody serves the queue nothing is forwarded: private addresses do not leave untranslated. The machine itself can be \
reached. With --queue-bypass packets are forwarded untranslated instead.

SIGUSR1 and `ctwhy nat status` print the table, SIGINT and SIGTERM end the run with what it did.";

/// `ctwhy nat queue`
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
pub(crate) struct QueueArgs {
    /// Number of the queue of packets that begin their way; those that end it come in the next one
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..65535))]
    queue_num: u16,
    /// The bits of the packet mark that remember a packet on its way, six at least; the others stay as they are
    #[arg(long, value_name = "MASK", default_value = "0xff000000", value_parser = mark_bits)]
    mark_mask: NatBits,
    /// Only packets that come in or leave by this interface; may be repeated. All but loopback where nothing is said
    #[arg(long = "interface", value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Forward packets untranslated while nobody serves the queue, instead of dropping them
    #[arg(long)]
    queue_bypass: bool,
    /// Put the rules in, and take them out at the end, whatever ends the run
    #[arg(long)]
    install_rules: bool,
    /// Print the rules and how to remove them, and end
    #[arg(long, conflicts_with = "install_rules")]
    print_rules: bool,
    /// Have the kernel cut packets that stand for several before they are handed over
    #[arg(long)]
    no_gso: bool,
    #[command(flatten)]
    common: Common,
}

fn mark_bits(text: &str) -> Result<NatBits, String> {
    let mask = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    mask.and_then(NatBits::new).ok_or_else(|| "six bits or more, side by side, such as 0xff000000".to_owned())
}

impl QueueArgs {
    fn rules(&self) -> NatRules {
        NatRules {
            queue: self.queue_num,
            bits: self.mark_mask,
            interfaces: self.interfaces.clone(),
            bypass: self.queue_bypass,
        }
    }
}

/// Runs until a signal.
///
/// # Errors
/// [`Failure`] with one line: something about the arguments, or what is missing or in use.
pub(crate) fn run(args: &QueueArgs) -> Result<(), Failure> {
    if args.print_rules {
        return Ok(print(&args.rules())?);
    }
    let seed = args.common.seed();
    let mut engine = Engine::new(seed);
    for note in args.common.apply(&mut engine, Network::Present, None)?.notes {
        complain(format_args!("note: {note}"));
    }
    check(&engine)?;
    let control = Control::open(&args.common.name)?;
    let mut report = Reporter::new(args.common.trace, args.common.color)?;
    let sender = if rejects(&engine) { Some(RawSender::open().map_err(explained)?) } else { None };
    let nat = QueueNat::new(engine, args.mark_mask, limits()?, seed);
    let mut serving = Serving::open(args, nat, sender).map_err(explained)?;
    report.message(&format!("{READY}: queues {} and {}", args.queue_num, args.rules().last_queue()));
    let mut told = Telling { report, aside: HashMap::new() };
    let served = serving.serve(control, &mut told);
    let ended = serving.end(&mut told);
    served?;
    told.report.end(&ended?);
    Ok(())
}

/// What `--print-rules` prints.
fn print(rules: &NatRules) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "# Packets go to queues {} and {}.", rules.queue, rules.last_queue())?;
    writeln!(out, "# Mark bits {:#x} remember them on their way.", rules.bits.mask())?;
    writeln!(out, "{}\n# To remove them:\n{}", rules.install_commands(), rules.remove_commands())
}

/// Is there a rule after which this host has to say something?
fn rejects(engine: &Engine) -> bool {
    let rules = [L3::V4, L3::V6].map(|l3num| engine.rules(l3num));
    let mut tables = rules.iter().filter_map(|rules| rules.filter.as_ref());
    tables.any(|table| table.rules().any(|rule| matches!(rule.target, Target::Reject(_))))
}

/// How many errors the kernel beside us would send, so that rules do not make this host send more.
fn limits() -> Result<Limits, Failure> {
    let mut limits = Limits::default();
    for name in Limits::NAMES {
        let path = if name.starts_with("net.") { name.to_owned() } else { format!("net.ipv4.{name}") };
        // Not every kernel has all of them in every namespace.
        if let Some(value) = sysctl::read(&path)?
            && limits.set(name, &value).is_err()
        {
            complain(format_args!("note: {path} is {value}, which is no limit: errors have the usual one"));
        }
    }
    Ok(limits)
}

/// What does nothing.
fn check(engine: &Engine) -> Result<(), Failure> {
    let rules = [L3::V4, L3::V6].map(|l3num| engine.rules(l3num));
    if rules.iter().all(|rules| rules.nat.is_none()) {
        complain("note: nothing is translated: there are no rules for nat; add --rules FILE");
    }
    if sysctl::read("net.ipv4.ip_forward")?.as_deref() == Some("0") {
        complain("note: net.ipv4.ip_forward is 0: nothing is forwarded");
    }
    Ok(())
}

/// In a lab everybody is root.
fn explained(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(
            error.kind(),
            format!("{error}; root has it, and in a namespace made with `unshare -Urn` everybody"),
        ),
        _ => error,
    }
}

/// All that is open while a run lasts.
struct Serving {
    rules: Option<NatChains>,
    /// Packets that begin their way.
    first: MnlQueue,
    /// Packets that end it.
    last: MnlQueue,
    changes: Changes,
    nat: QueueNat,
    /// Sends what rules have this host say; there only where they do.
    sender: Option<RawSender>,
    /// Packets that begin their way before those that end theirs have their turn.
    batch: usize,
    clock: Clock,
    /// The packet at hand; its buffer is used again.
    queued: Queued,
    /// What changed in the network; also used again.
    changed: Vec<Change>,
    /// Verdicts that came too late: the kernel had taken the packet out of the queue because its interface went away.
    late: u64,
}

impl Serving {
    fn open(args: &QueueArgs, nat: QueueNat, sender: Option<RawSender>) -> io::Result<Serving> {
        let rules = args.rules();
        let queue = |number: u16| -> io::Result<MnlQueue> {
            let mut queue =
                MnlQueue::open(&QueueConfig { gso: !args.no_gso, fail_open: false, ..QueueConfig::new(number) })?;
            queue.set_blocking(false);
            queue.collect_verdicts(usize::MAX);
            Ok(queue)
        };
        let (first, last) = (queue(rules.queue)?, queue(rules.last_queue())?);
        // First those that come from now on, then what is: nothing is missed in between.
        let changes = Changes::open()?;
        let mut serving = Serving {
            rules: None,
            first,
            last,
            changes,
            nat,
            sender,
            batch: BATCH.min(args.mark_mask.slots() as usize),
            clock: Clock::start(),
            queued: Queued::default(),
            changed: Vec::new(),
            late: 0,
        };
        serving.look_around()?;
        if args.install_rules {
            serving.rules = Some(rules.install()?);
        }
        Ok(serving)
    }

    /// Serves the queues until a signal.
    fn serve(&mut self, mut control: Control, told: &mut Telling) -> io::Result<()> {
        while control.attend(&self.nat.engine, self.clock.now(), &mut told.report) {
            for _ in 0..BETWEEN_LOOKS {
                if self.round_told(told)? > 0 {
                    continue;
                }
                let mut descriptors = vec![self.first.as_fd(), self.last.as_fd(), self.changes.as_fd()];
                descriptors.extend(control.descriptors());
                let readable = wait_readable(&descriptors, None)?;
                // Nothing but packets is no reason to look elsewhere.
                if readable.iter().skip(2).any(|readable| *readable) || !readable.contains(&true) {
                    break;
                }
            }
            self.changes.take(&mut self.changed)?;
            if !self.changed.is_empty() {
                self.nat.interfaces.lose(&self.changed, &mut self.nat.engine, self.clock.now());
                self.changed.clear();
                self.look_around()?;
            }
        }
        Ok(())
    }

    /// Takes over what interfaces, addresses and routes the kernel has.
    fn look_around(&mut self) -> io::Result<()> {
        let present = Present::read()?;
        self.nat.interfaces.refresh(&present, &mut self.nat.engine.network);
        Ok(())
    }

    fn round_told(&mut self, told: &mut Telling) -> io::Result<usize> {
        if told.report.traces() { self.round(told) } else { self.round(&mut ()) }
    }

    /// What is there now, up to a batch that begins its way; says how many packets there were.
    fn round<W: Watch>(&mut self, watch: &mut W) -> io::Result<usize> {
        let now = self.clock.now();
        let (mut begun, mut ended) = (0, 0);
        while begun < self.batch && receive(&mut self.first, &mut self.queued, &mut self.late)? {
            begun += 1;
            let answer = self.nat.decide(&mut self.queued, now, watch);
            self.first.verdict(self.queued.id, verdict(&answer, &self.queued))?;
            if answer.begins {
                ended += self.finish(now, watch)?;
            }
        }
        ended += self.finish(now, watch)?;
        self.say();
        Ok(begun + ended)
    }

    /// Sends what rules have this host say. It comes back as a packet that begins its way.
    fn say(&mut self) {
        let Some(sender) = &self.sender else { return };
        for Answered { packet, interface } in self.nat.take_answers() {
            if sender.send(&packet, interface).is_err() {
                count(&mut self.nat.statistics.words.unsaid, "output.refused");
            }
        }
    }

    /// Lets go what was decided about, and takes it through its last hook.
    fn finish<W: Watch>(&mut self, now: Time, watch: &mut W) -> io::Result<usize> {
        self.first.flush()?;
        let mut count = 0;
        while receive(&mut self.last, &mut self.queued, &mut self.late)? {
            count += 1;
            let answer = self.nat.decide(&mut self.queued, now, watch);
            self.last.verdict(self.queued.id, verdict(&answer, &self.queued))?;
        }
        self.last.flush()?;
        // Nobody else runs in between: what has not come back was dropped, or somebody else holds it.
        self.nat.tell_missing(now, watch);
        Ok(count)
    }

    /// Takes the rules out, lets go what still waits, and says what was done.
    fn end(mut self, told: &mut Telling) -> io::Result<Totals> {
        let ended = self.rules.as_ref().map_or(Ok(()), NatChains::end_queueing);
        while self.round_told(told)? > 0 {}
        ended.and(self.rules.take().map_or(Ok(()), NatChains::remove))?;
        let (first, last) = (self.first.stats()?, self.last.stats()?);
        let lost = |stats: &QueueStats| stats.queue_dropped + stats.user_dropped;
        Ok(Totals { lost: lost(&first) + lost(&last), late: self.late, nat: self.nat })
    }
}

/// Receives a packet, and counts verdicts that came too late.
fn receive(queue: &mut MnlQueue, queued: &mut Queued, late: &mut u64) -> io::Result<bool> {
    loop {
        match queue.recv_into(queued) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => *late += 1,
            received => return received,
        }
    }
}

/// The bytes go with the verdict only where they changed.
fn verdict<'a>(answer: &Answer, queued: &'a Queued) -> Verdict<'a> {
    let payload = answer.rewritten.then_some(queued.payload.as_slice());
    Verdict { decision: answer.decision, mark: answer.mark, payload }
}

/// Tells the packets of a NAT.
struct Telling {
    report: Reporter,
    /// The steps of packets that are between their hooks.
    aside: HashMap<u32, Trace>,
}

impl Watch for Telling {
    type Sink = Trace;
    const WATCHES: bool = true;

    fn sink(&mut self) -> &mut Trace {
        &mut self.report.trace
    }

    fn ruled(&mut self, ruled: &Ruled<'_>) {
        let interface = ruled.interface.and_then(|index| ruled.engine.network.interface(index));
        let seen = Seen {
            interface: interface.map(|interface| interface.name.as_str()),
            before: ruled.arrived,
            after: ruled.now,
            ruling: ruled.ruling,
            engine: ruled.engine,
        };
        self.report.packet(&seen, ruled.time);
    }

    fn set_aside(&mut self, place: u32) {
        self.aside.insert(place, std::mem::take(&mut self.report.trace));
    }

    fn take_up(&mut self, place: u32) {
        self.report.trace = self.aside.remove(&place).unwrap_or_default();
    }
}

/// What was done.
struct Totals {
    nat: QueueNat,
    lost: u64,
    late: u64,
}

impl Display for Totals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.nat.statistics)?;
        for (count, what) in [(self.lost, "no room in the queue"), (self.late, "their interface went away")] {
            if count > 0 {
                writeln!(f, "  {:<10} {count:>6}  {what}", "lost")?;
            }
        }
        write!(f, "{}", TableTotals(&self.nat.engine.conntrack.table))
    }
}
