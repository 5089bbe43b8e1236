//! The engine beside a kernel, packet for packet, for as many packets as one likes.
//!
//! A run goes in episodes. In each, one thread makes packets and puts them through the engine, which tells the generator
//! what state they have led to; another, inside the box, puts the same packets through the kernel and compares what
//! conntrack called each of them, every byte that came out where NAT is on, and at the end of the episode the whole
//! table. Where they differ the packets of the episode are left out one after another until only those remain without
//! which there is no difference.
//!
//! In the suites of [`Suite::TRANSLATIONS`] the other side is not the engine alone but the reference NAT, and what the box
//! says itself, errors, resets and echo replies, is compared as well.
//!
//! That router is in one process with the test. With [`Beside::Tun`] and [`Beside::Queue`] it gets the same packets beside a
//! running program that is the same NAT, so that devices, queues and offloads are compared as well.
//!
//! In the order of a packet's way: [`suite`](Suite) says what kind of packets; `generate/` makes them from what `chance`
//! draws; `episode` puts them through the engine into a `window`; `device` puts the window through the kernel, `ours` and `tun` through our NAT (`cables` is how packets get in and out,
//! `counterpart` what all of them can do); `compare`
//! says where they differ, and `shrink` finds the few that matter.

mod cables;
mod chance;
mod compare;
mod counterpart;
mod device;
mod draw;
mod episode;
mod generate;
mod ours;
mod shrink;
mod suite;
mod translations;
mod tun;
mod window;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ctwhy_core::direction::CtInfo;
use ctwhy_core::profile::Profile;
use ctwhy_fixture::case::{Case, CasePacket, Spec};
use ctwhy_fixture::linktype::LinkType;
use ctwhy_linux::sysctl;
use ctwhy_linux::wire::HardwareAddress;

use crate::record::RecordError;
use crate::replay::ReplayError;
use cables::Seen;
use chance::Chance;
pub use compare::Difference;
use compare::{Held, Times};
use counterpart::Place;
use device::Device;
use draw::tuple_of;
use episode::{Episode, PAUSE_SECS, Plan};
use ours::QueueBox;
use shrink::Input;
pub use suite::Suite;
use tun::TunBox;
use window::Window;

/// Packets of an episode.
const EPISODE: u64 = 24_000;
/// The same where the kernel is asked about many a packet, which takes time, and no timeout may pass.
const ASKING_EPISODE: u64 = 3_000;
/// How long the kernel waits in a pause: more than the two seconds after which a UDP flow is a stream.
const PAUSE: Duration = Duration::from_millis(2_300);
/// Windows that may wait for the kernel.
const AHEAD: usize = 24;

/// How much.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Packets in all; the run ends with the last of them.
    pub packets: Option<u64>,
    /// After that much time no new episode begins.
    pub time: Option<Duration>,
    /// After that many disagreements the run ends.
    pub disagreements: usize,
    /// Sysctls that only the engine is told, by their full names: to see that a difference is found.
    pub engine_only: BTreeMap<String, String>,
}

/// What a run is doing, for whoever watches it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Packets compared so far.
    pub packets: AtomicU64,
    /// Disagreements found so far.
    pub disagreements: AtomicU64,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The suite.
    pub suite: Suite,
    /// Its seed.
    pub seed: u64,
    /// Packets compared.
    pub packets: u64,
    /// Entries of tables compared.
    pub entries: u64,
    /// What the engine said, and how often: the name of the ctinfo, the code of the reason for an INVALID packet,
    /// `unseen` for one that conntrack is not asked about.
    pub decisions: BTreeMap<&'static str, u64>,
    /// From the first packet to the last comparison.
    pub elapsed: Duration,
    /// Where kernel and engine differ, one for an episode.
    pub disagreements: Vec<Disagreement>,
}

impl Report {
    fn new(suite: Suite, seed: u64) -> Report {
        let (decisions, disagreements) = (BTreeMap::new(), Vec::new());
        Report { suite, seed, packets: 0, entries: 0, decisions, elapsed: Duration::ZERO, disagreements }
    }

    fn count(&mut self, window: &Window) {
        self.packets += window.items.len() as u64;
        for item in &window.items {
            let decision = item.expected.reason.or(item.expected.ctinfo.map(CtInfo::name)).unwrap_or("unseen");
            *self.decisions.entry(decision).or_default() += 1;
        }
    }

    /// Packets in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.packets as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Where kernel and engine differ.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// The episode, from 0.
    pub episode: u64,
    /// The first difference of the episode.
    pub first: Difference,
    /// The fewest packets that were found, and how they differ about them; `None` when kernel and engine agreed about
    /// the very same packets again and again.
    pub case: Option<(Case, Difference)>,
}

/// Why a run ended early.
#[derive(Debug)]
#[non_exhaustive]
pub enum FuzzError {
    /// The kernel could not be asked, or not everything that it said was heard.
    Kernel(RecordError),
    /// The engine does not understand its settings.
    Engine(ReplayError),
}

impl fmt::Display for FuzzError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FuzzError::Kernel(error) => error.fmt(f),
            FuzzError::Engine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FuzzError {}

impl From<RecordError> for FuzzError {
    fn from(error: RecordError) -> FuzzError {
        FuzzError::Kernel(error)
    }
}

impl From<ReplayError> for FuzzError {
    fn from(error: ReplayError) -> FuzzError {
        FuzzError::Engine(error)
    }
}

/// From the generator to the kernel.
enum Message {
    /// An episode begins.
    Begin { episode: u64, plan: Plan },
    /// Time passes.
    Pause,
    /// Packets, and what the engine says about them.
    Packets(Box<Window>),
    /// What the kernel drew for the last packet is not what it may draw, or not all that it changed.
    Found(Difference),
    /// The episode is over, and this is the engine's table.
    End(Vec<Held>),
}

/// What the kernel made of the packet that was asked about.
#[derive(Debug, Default)]
struct Answer {
    /// What left because of it.
    left: Vec<(window::Port, Vec<u8>)>,
    /// The port or id that it was delivered with, where it was not forwarded.
    delivered_as: Option<u16>,
}

/// What gets the same packets as the router in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside<'a> {
    /// The running kernel's conntrack and NAT.
    Kernel,
    /// `ctwhy nat tun` of this program: our own, with devices around it.
    Tun(&'a Path),
    /// `ctwhy nat queue` of this program, on a router of the kernel's.
    Queue(&'a Path),
}

/// Runs a suite.
///
/// This process must be able to enter a lab's nodes; see [`crate::record::record`].
///
/// # Errors
/// [`FuzzError`]. What differs is no error but in the report.
pub fn run(suite: Suite, seed: u64, limits: &Limits, progress: &Progress) -> Result<Report, FuzzError> {
    run_beside(Beside::Kernel, suite, seed, limits, progress)
}

/// As [`run`], for one of [`Suite::TRANSLATIONS`] beside something else than the kernel. What is told as the kernel's in the
/// report is then that one's; what conntrack calls a packet is not compared, nor how long an entry still has.
///
/// # Errors
/// As [`run`].
pub fn run_beside(
    beside: Beside<'_>,
    suite: Suite,
    seed: u64,
    limits: &Limits,
    progress: &Progress,
) -> Result<Report, FuzzError> {
    let running = match beside {
        Beside::Kernel => {
            let version = sysctl::kernel_version().map_err(RecordError::kernel("reading the kernel's version"))?;
            Profile::nearest(&version)
        }
        // Ours decides as the kernel does that it was made after.
        Beside::Tun(_) | Beside::Queue(_) => Default::default(),
    };
    let spec = suite.spec();
    let device = match beside {
        Beside::Kernel => Place::Kernel(Device::build(&spec, suite.speaks())?),
        Beside::Queue(own) => Place::Queue(QueueBox::build(&spec, own)?),
        Beside::Tun(own) => Place::Tun(TunBox::build(&spec, own)?),
    };
    let addresses = device.addresses();
    let (to_kernel, from_generator) = sync_channel(AHEAD);
    let (used, fresh) = sync_channel(AHEAD * 2);
    let (answers, answer) = sync_channel(1);
    let done = AtomicBool::new(false);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let maker = Maker { suite, seed, running, spec: &spec, limits, addresses, done: &done };
        let generator = scope.spawn(move || maker.make(&Ends { kernel: to_kernel, fresh, answer }));
        let compared = device.enter(suite.bytes_count(), |kernel| {
            let mut side = KernelSide {
                kernel,
                spec: &spec,
                addresses,
                bytes_count: suite.bytes_count(),
                most: limits.disagreements.max(1),
                progress,
                answers,
                report: Report::new(suite, seed),
            };
            let result = side.compare(&from_generator, &used, &done);
            // The generator must not wait for room that nobody makes, nor for an answer.
            drop((from_generator, side.answers));
            result.map(|()| side.report)
        });
        done.store(true, Ordering::Relaxed);
        let made = generator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let mut report = compared?;
        made?;
        report.elapsed = started.elapsed();
        for Disagreement { episode, case, .. } in &mut report.disagreements {
            if let Some((case, difference)) = case {
                case.spec.title = format!("a disagreement of suite {suite}, seed {seed}, episode {episode}");
                case.spec.shows = format!("With these packets {difference}.");
            }
        }
        Ok(report)
    })
}

/// The side that makes packets.
struct Maker<'a> {
    suite: Suite,
    seed: u64,
    running: &'static Profile,
    spec: &'a Spec,
    limits: &'a Limits,
    addresses: [HardwareAddress; 2],
    done: &'a AtomicBool,
}

/// What the side that makes packets has of the other one.
struct Ends {
    kernel: SyncSender<Message>,
    /// Windows that were used and may be used again.
    fresh: Receiver<Box<Window>>,
    answer: Receiver<Answer>,
}

/// The other side has found enough, or failed.
struct Gone;

impl Ends {
    fn send(&self, message: Message) -> Result<(), Gone> {
        self.kernel.send(message).map_err(|_| Gone)
    }
}

impl Maker<'_> {
    fn make(&self, ends: &Ends) -> Result<(), ReplayError> {
        let started = Instant::now();
        let mut left = self.limits.packets.unwrap_or(u64::MAX);
        for number in 0.. {
            let late = self.limits.time.is_some_and(|time| started.elapsed() >= time);
            if left == 0 || late || self.done.load(Ordering::Relaxed) {
                break;
            }
            let packets = left.min(if self.suite.speaks() { ASKING_EPISODE } else { EPISODE });
            left -= packets;
            let chance = &mut Chance::part(self.seed ^ self.suite.salt(), number);
            let plan = Plan {
                kernel: self.running,
                sysctls: suite::sysctls(self.suite, chance),
                engine_only: self.limits.engine_only.clone(),
            };
            let episode = Episode::begin(self.spec, &plan, self.addresses, self.suite.speaks())?;
            if let Err(Gone) = self.episode(Message::Begin { episode: number, plan }, packets, episode, chance, ends) {
                break;
            }
        }
        Ok(())
    }

    fn episode(
        &self,
        begin: Message,
        packets: u64,
        mut episode: Episode,
        chance: &mut Chance,
        ends: &Ends,
    ) -> Result<(), Gone> {
        let mut generator = self.suite.generator(chance);
        let mut pause = self.suite.pauses(chance).then(|| chance.below(packets as usize) as u64);
        ends.send(begin)?;
        let (mut made, mut number) = (0, 0);
        while made < packets {
            if pause.is_some_and(|at| at <= made) {
                pause = None;
                episode.pause(number);
                ends.send(Message::Pause)?;
            }
            let mut window = ends.fresh.try_recv().unwrap_or_default();
            window.clear(number);
            let share = (packets - made).min(Window::MOST as u64) as usize;
            episode.fill(&mut window, &mut *generator, chance, share);
            made += window.items.len() as u64;
            number += 1;
            let asks = window.asks;
            ends.send(Message::Packets(window))?;
            if asks {
                let answer = ends.answer.recv().map_err(|_| Gone)?;
                if let Some(difference) = episode.adopt(&answer) {
                    return ends.send(Message::Found(difference));
                }
            }
            episode.close();
        }
        ends.send(Message::End(episode.table()))
    }
}

/// The side that asks the kernel and compares.
struct KernelSide<'a> {
    kernel: &'a mut dyn counterpart::Counterpart,
    spec: &'a Spec,
    addresses: [HardwareAddress; 2],
    bytes_count: bool,
    most: usize,
    progress: &'a Progress,
    answers: SyncSender<Answer>,
    report: Report,
}

impl KernelSide<'_> {
    /// Compares episodes until there are no more or enough was found.
    fn compare(
        &mut self,
        messages: &Receiver<Message>,
        used: &SyncSender<Box<Window>>,
        done: &AtomicBool,
    ) -> Result<(), FuzzError> {
        let mut seen = Seen::default();
        let mut current = (0, Plan::default());
        let mut windows: Vec<Box<Window>> = Vec::new();
        let mut times = Times::default();
        // Nothing behind a difference says anything.
        let mut broken = false;
        for message in messages {
            let found = match message {
                Message::Begin { episode, plan } => {
                    for window in windows.drain(..) {
                        // Where no more are needed they are thrown away.
                        let _ = used.try_send(window);
                    }
                    self.kernel.begin(&plan.sysctls)?;
                    current = (episode, plan);
                    times = Times::default();
                    broken = false;
                    None
                }
                Message::Packets(window) if broken => {
                    if window.asks {
                        // Whoever waits for it is told that there is nothing more to tell.
                        let _ = self.answers.send(Answer::default());
                    }
                    None
                }
                _ if broken => None,
                Message::Pause => {
                    std::thread::sleep(PAUSE);
                    times.pauses.push(times.windows.len());
                    None
                }
                Message::Packets(window) => {
                    let started = Instant::now();
                    self.kernel.run(&window, &mut seen)?;
                    times.windows.push((started, Instant::now()));
                    self.report.count(&window);
                    self.progress.packets.fetch_add(window.items.len() as u64, Ordering::Relaxed);
                    let found = compare::packets(&window, &seen, self.bytes_count);
                    if window.asks {
                        let answer = if found.is_none() { self.answer(&window, &seen)? } else { Answer::default() };
                        // Nobody waits when the other side failed; that is told when it is joined.
                        let _ = self.answers.send(answer);
                    }
                    windows.push(window);
                    found
                }
                Message::Found(difference) => Some((usize::MAX, difference)),
                Message::End(held) => {
                    let (entries, differences) = self.kernel.table_differences(&held, &times)?;
                    self.report.entries += entries as u64;
                    differences.into_iter().next().map(|difference| (usize::MAX, difference))
                }
            };
            let Some((place, first)) = found else { continue };
            broken = true;
            let inputs = inputs(&windows, &times.pauses, place);
            let (episode, plan) = &current;
            let shrunk = shrink::shrink(inputs, |inputs| self.attempt(plan, inputs))?;
            let case = shrunk.map(|(inputs, difference)| (case(self.spec, plan, &inputs), difference));
            self.report.disagreements.push(Disagreement { episode: *episode, first, case });
            self.progress.disagreements.fetch_add(1, Ordering::Relaxed);
            if self.report.disagreements.len() >= self.most {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What the kernel made of the last packet of a window.
    fn answer(&self, window: &Window, seen: &Seen) -> Result<Answer, FuzzError> {
        let Some((last, place)) = window.items.last().zip(window.items.len().checked_sub(1)) else {
            return Ok(Answer::default());
        };
        let delivered_as = match tuple_of(window.packet(last)) {
            // What was delivered is on no wire.
            Some(original) if window.delivered => self.kernel.delivered_as(&original)?,
            _ => None,
        };
        Ok(Answer { left: seen.left(place), delivered_as })
    }

    /// The first difference about these packets, and the place of the packet; the last one's where it is in the table.
    fn attempt(&mut self, plan: &Plan, inputs: &[Input]) -> Result<Option<(usize, Difference)>, FuzzError> {
        self.kernel.begin(&plan.sysctls)?;
        let mut episode = Episode::begin(self.spec, plan, self.addresses, self.report.suite.speaks())?;
        let (mut window, mut seen, mut times) = (Window::default(), Seen::default(), Times::default());
        let mut done = 0;
        while let Some(rest) = inputs.get(done..).filter(|rest| !rest.is_empty()) {
            if rest.first().is_some_and(|input| input.pause) {
                std::thread::sleep(PAUSE);
                times.pauses.push(times.windows.len());
                episode.pause(times.windows.len() as u32);
            }
            window.clear(times.windows.len() as u32);
            for (at, input) in rest.iter().take(Window::MOST).enumerate() {
                if window.asks || at > 0 && input.pause {
                    break;
                }
                episode.decide(&mut window, &input.arrival);
            }
            let started = Instant::now();
            self.kernel.run(&window, &mut seen)?;
            times.windows.push((started, Instant::now()));
            if let Some((place, difference)) = compare::packets(&window, &seen, self.bytes_count) {
                return Ok(Some((done + place, difference)));
            }
            done += window.items.len();
            if window.asks
                && let Some(difference) = episode.adopt(&self.answer(&window, &seen)?)
            {
                return Ok(Some((done - 1, difference)));
            }
            episode.close();
        }
        let (_, differences) = self.kernel.table_differences(&episode.table(), &times)?;
        Ok(differences.into_iter().next().map(|difference| (inputs.len().saturating_sub(1), difference)))
    }
}

/// The packets of an episode up to the place in its last window.
fn inputs(windows: &[Box<Window>], pauses: &[usize], place: usize) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (number, window) in windows.iter().enumerate() {
        let last = number + 1 == windows.len();
        let items = window.items.iter().take(if last { place.saturating_add(1) } else { usize::MAX });
        inputs.extend(items.enumerate().map(|(at, item)| {
            let arrival = window::Arrival { port: item.port, bytes: window.packet(item).to_vec() };
            Input { arrival, pause: at == 0 && pauses.contains(&number) }
        }));
    }
    inputs
}

/// 2026-01-01T00:00:00Z, and a millisecond.
const CASE_START: u64 = 1_767_225_600_000_000_000;
const MS: u64 = 1_000_000;

/// The packets as a case.
fn case(spec: &Spec, plan: &Plan, inputs: &[Input]) -> Case {
    let mut spec = spec.clone();
    spec.sysctls.extend(plan.sysctls.clone());
    let mut time_ns = CASE_START;
    let packets = inputs.iter().map(|Input { arrival, pause }| {
        time_ns += MS + if *pause { PAUSE_SECS * 1_000 * MS } else { 0 };
        let (iface, bytes) = (arrival.port.name().to_owned(), arrival.bytes.clone());
        CasePacket { time_ns, iface, linktype: LinkType::RAW, bytes }
    });
    let packets = packets.collect();
    Case { spec, packets, ..Case::default() }
}
