//! What is told: tables for people, and the goals beside what was reached.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;

use crate::cost::Spent;
use crate::way::Way;

/// What went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// Datagrams of flows in turn.
    InTurn,
    /// Of one flow several behind each other.
    InBursts,
    /// As many as can be sent.
    Flood,
    /// A TCP connection that sends.
    Up,
    /// A TCP connection that receives.
    Down,
    /// The same where every packet is one on a cable.
    PlainUp,
    PlainDown,
}

/// What was measured of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Thousands of datagrams a second, or 10⁹ bits.
    Rate(Load),
    /// Processor time of all: microseconds a datagram, or seconds for 10⁹ bytes.
    All(Load),
    /// Of that the program in the middle.
    Own(Load),
    /// Percent.
    Lost(Load),
    /// Microseconds there and back, of half of the datagrams and of all but a hundredth.
    Median,
    Tail,
}

/// What every round measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(BTreeMap<(Way, Metric), Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, way: Way, metric: Metric, value: f64) {
        self.0.entry((way, metric)).or_default().push(value);
    }

    /// Processor time, in seconds times `scale`.
    pub(crate) fn add_time(&mut self, (way, load): (Way, Load), spent: &Spent, scale: f64) {
        self.add(way, Metric::All(load), spent.all.as_secs_f64() * scale);
        if let Some(own) = spent.own {
            self.add(way, Metric::Own(load), own.as_secs_f64() * scale);
        }
    }

    /// The median of the rounds.
    fn get(&self, way: Way, metric: Metric) -> Option<f64> {
        let mut values = self.0.get(&(way, metric))?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

/// A column: its head, what is in it, digits behind the point.
type Column = (&'static str, Metric, usize);

const PACKETS: [Column; 8] = [
    ("in turn, k/s", Metric::Rate(Load::InTurn), 0),
    ("CPU µs each", Metric::All(Load::InTurn), 2),
    ("the program's", Metric::Own(Load::InTurn), 2),
    ("in bursts, k/s", Metric::Rate(Load::InBursts), 0),
    ("CPU µs each", Metric::All(Load::InBursts), 2),
    ("the program's", Metric::Own(Load::InBursts), 2),
    ("of a flood, k/s", Metric::Rate(Load::Flood), 0),
    ("lost of it", Metric::Lost(Load::Flood), 0),
];

const LATENCY: [Column; 2] = [("median µs", Metric::Median, 0), ("99 % within µs", Metric::Tail, 0)];

const TCP: [Column; 6] = tcp(Load::Up, Load::Down);
const PLAIN_TCP: [Column; 6] = tcp(Load::PlainUp, Load::PlainDown);

const fn tcp(up: Load, down: Load) -> [Column; 6] {
    [
        ("up, Gbit/s", Metric::Rate(up), 1),
        ("CPU s/GB", Metric::All(up), 2),
        ("the program's", Metric::Own(up), 2),
        ("down, Gbit/s", Metric::Rate(down), 1),
        ("CPU s/GB", Metric::All(down), 2),
        ("the program's", Metric::Own(down), 2),
    ]
}

/// Everything that is told, as Markdown.
pub(crate) fn markdown(ways: &[Way], samples: &Samples, rounds: usize) -> String {
    let mut text = format!("{}\n\n", machine(rounds));
    for (title, columns) in [
        ("Datagrams of 64 bytes, eight flows", &PACKETS[..]),
        ("There and back", &LATENCY),
        ("One TCP connection", &TCP),
        ("One TCP connection, offloads off", &PLAIN_TCP),
    ] {
        table(&mut text, title, columns, ways, samples);
    }
    goals(&mut text, samples);
    text
}

fn table(text: &mut String, title: &str, columns: &[Column], ways: &[Way], samples: &Samples) {
    let heads: Vec<&str> = columns.iter().map(|(head, ..)| *head).collect();
    let _ = writeln!(text, "| {title} | {} |\n|---|{}", heads.join(" | "), "---:|".repeat(columns.len()));
    for way in ways {
        let _ = write!(text, "| {way} |");
        for (_, metric, digits) in columns {
            let unit = if matches!(metric, Metric::Lost(_)) { " %" } else { "" };
            match samples.get(*way, *metric) {
                Some(value) => {
                    let _ = write!(text, " {value:.digits$}{unit} |");
                }
                None => text.push_str(" - |"),
            }
        }
        text.push('\n');
    }
    text.push('\n');
}

/// A goal: what is compared, with whom, how many times as much it may be at most, or has to be at least.
struct Goal {
    of: Way,
    what: &'static str,
    metric: Metric,
    than: Way,
    bound: Bound,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

fn goals(text: &mut String, samples: &Samples) {
    let goal = |of, (what, metric), than, bound| Goal { of, what, metric, than, bound };
    let (rate, cpu) =
        (("datagrams a second", Metric::Rate(Load::InTurn)), ("CPU a datagram", Metric::All(Load::InTurn)));
    let goals = [
        goal(Way::NatTun, rate, Way::Slirp4netns, Bound::AtLeast(1.0)),
        goal(Way::NatTun, rate, Way::Pasta, Bound::AtLeast(1.0)),
        goal(Way::NatTun, cpu, Way::Slirp4netns, Bound::AtMost(1.0)),
        goal(Way::NatTun, cpu, Way::Pasta, Bound::AtMost(1.0)),
        goal(Way::NatTun, cpu, Way::Kernel, Bound::AtMost(3.0)),
        goal(Way::NatTunPlain, cpu, Way::Kernel, Bound::AtMost(3.0)),
        goal(Way::NatTun, ("CPU a byte of TCP", Metric::All(Load::Up)), Way::Kernel, Bound::AtMost(3.0)),
        goal(Way::NatQueue, rate, Way::AcceptAll, Bound::AtLeast(0.9)),
        goal(Way::NatQueue, cpu, Way::AcceptAll, Bound::AtMost(1.1)),
    ];
    text.push_str("| Goal | measured | |\n|---|---:|---|\n");
    for Goal { of, what, metric, than, bound } in goals {
        let Some((mine, theirs)) = samples.get(of, metric).zip(samples.get(than, metric)) else { continue };
        let ratio = mine / theirs;
        let (words, times, reached) = match bound {
            Bound::AtMost(times) => ("at most", times, ratio <= times),
            Bound::AtLeast(times) => ("at least", times, ratio >= times),
        };
        let reached = if reached { "reached" } else { "**missed**" };
        let _ = writeln!(text, "| {of}, {what}: {words} {times} × {than} | {ratio:.2} × | {reached} |");
    }
}

/// On what machine, in a sentence.
fn machine(rounds: usize) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("a processor of no name", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let release = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "Linux {} on {cores} cores of {model}; the median of {rounds} rounds, with a load of {load} at the end.",
        release.trim()
    )
}

/// The page that shows it, and the lines around the tables there.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../book/src/nat-cost.md");
const BEGIN: &str = "<!-- what `make bench UPDATE_BOOK=1` writes -->\n";
const END: &str = "<!-- and no more -->\n";

pub(crate) fn write_into_book(text: &str) -> io::Result<()> {
    let page = fs::read_to_string(PAGE)?;
    let parts = page.split_once(BEGIN).and_then(|(front, rest)| Some((front, rest.split_once(END)?.1)));
    let Some((front, behind)) = parts else {
        return Err(io::Error::other(format!("{PAGE}: the lines are gone that stood around the tables")));
    };
    fs::write(PAGE, format!("{front}{BEGIN}\n{text}\n{END}{behind}"))
}
