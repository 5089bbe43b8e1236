//! A case goes into the running kernel, packet by packet, and comes out as what the kernel decided.
//!
//! The box under test is a network namespace of its own. Every interface of the case is one end of a cable whose other
//! end belongs to the recorder, which puts packets on it and takes them off. What is not part of a case is silent: the
//! interfaces resolve no neighbours, there are no multicast reports and no redirects, and no error is held back by a
//! rate limit.
//!
//! Nothing waits for a time to pass. Behind each packet goes a marker through a cable of its own; the kernel handles both
//! on the same CPU in order, so that when the marker is back, all that the packet causes has happened.

mod error;
mod observe;
mod under_test;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ctwhy_fixture::case::{Case, CasePacket, Fact, Outcome, PacketOutcome, Recording};
use ctwhy_fixture::link::{Stripped, strip};
use ctwhy_linux::ctnetlink::{self, Event};
use ctwhy_linux::sysctl::{self, KernelConfig, MACHINE_WIDE};

pub use error::RecordError;
use observe::Observed;
pub(crate) use observe::stay_on_this_cpu;
use under_test::UnderTest;
pub(crate) use under_test::{box_node, wait_for_addresses};

/// Options of the kernel that a reader of a recording may want to know.
const FACTS: [&str; 9] = [
    "CONFIG_HZ",
    "CONFIG_NETFILTER_NETLINK_GLUE_CT",
    "CONFIG_NFT_QUEUE",
    "CONFIG_NF_CONNTRACK_EVENTS",
    "CONFIG_NF_CONNTRACK_TIMEOUT",
    "CONFIG_NF_CONNTRACK_ZONES",
    "CONFIG_NF_CT_PROTO_GRE",
    "CONFIG_NF_CT_PROTO_SCTP",
    "CONFIG_NF_CT_PROTO_UDPLITE",
];

/// What [`record`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What the kernel decided.
    pub recording: Recording,
    /// By how much any packet came later than the case says. A timeout in the table is wrong by no more.
    pub lag: Duration,
}

/// Puts the packets of a case into a box in a lab and records what becomes of them. The time between packets passes as
/// the case says.
///
/// This process must be able to enter the lab's nodes: it is root, or has called [`ctwhy_linux::netns::isolate`].
///
/// # Errors
/// The box cannot be built, a tool is missing, or something the kernel said was lost; see [`RecordError`].
pub fn record(case: &Case) -> Result<Recorded, RecordError> {
    let mut under_test = UnderTest::build(case)?;
    // In a thread of its own, which stays on one CPU.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| run(case, &mut under_test));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// As [`record`], again when the machine was too busy to keep the times of the case.
///
/// # Errors
/// As [`record`], and [`RecordError::Busy`].
pub fn record_in_time(case: &Case) -> Result<Recording, RecordError> {
    /// More than this between the case's time and the clock makes a timeout in the table look wrong.
    const MOST_LAG: Duration = Duration::from_millis(300);
    const ATTEMPTS: u32 = 5;
    for _ in 0..ATTEMPTS {
        let Recorded { recording, lag } = record(case)?;
        if lag <= MOST_LAG {
            return Ok(recording);
        }
    }
    Err(RecordError::Busy { attempts: ATTEMPTS })
}

fn run(case: &Case, under_test: &mut UnderTest) -> Result<Recorded, RecordError> {
    observe::stay_on_this_cpu()?;
    let packets =
        case.packets.iter().zip(1..).map(|(packet, number)| Ok((number, packet.time_ns, ip(packet, number)?)));
    let packets: Vec<(u64, u64, &[u8])> = packets.collect::<Result<_, RecordError>>()?;
    // Whatever setting up has caused is over.
    under_test.settle(0)?;
    under_test.drain()?;

    let before = under_test.in_box(counters)?;
    let mut outcome = Outcome::default();
    let first = case.packets.first().map_or(0, |packet| packet.time_ns);
    let started = Instant::now();
    let mut lag = Duration::ZERO;
    for ((number, time_ns, bytes), packet) in packets.into_iter().zip(&case.packets) {
        let due = started + Duration::from_nanos(time_ns.saturating_sub(first));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        lag = lag.max(due.elapsed());
        under_test.inject(&packet.iface, bytes)?;
        under_test.settle(number)?;
        under_test.hold(number, case.spec.held_until(number).is_some())?;
        outcome.packets.push(packet_outcome(number, under_test.drain()?));
        for hold in case.spec.holds.iter().filter(|hold| hold.until == number) {
            under_test.release(hold.packet)?;
            let Some(held) = outcome.packets.iter_mut().find(|outcome| outcome.packet == hold.packet) else { continue };
            went_on(held, under_test.drain()?);
        }
    }
    for (outcome, packet) in outcome.packets.iter_mut().zip(&case.packets) {
        let received = ip(packet, outcome.packet)?;
        for emitted in outcome.forwarded.iter_mut().flatten() {
            observe::free_fragment_id(received, &mut emitted.bytes);
        }
    }
    let mut table: Vec<String> = under_test.in_box(ctnetlink::dump)?.iter().map(ctnetlink::format_extended).collect();
    table.sort();
    outcome.table = Some(table);
    outcome.events = Some(under_test.events()?);
    let expectations = under_test.in_box(ctnetlink::dump_expectations)?;
    let after = under_test.in_box(counters)?;
    let since = |(name, count): (String, u64)| {
        let before = before.get(&name).copied().unwrap_or(0);
        (name, count.saturating_sub(before))
    };
    let counters: BTreeMap<String, u64> = after.into_iter().map(since).collect();
    // Where nothing was ever expected, the counter says so.
    if counters.get("expect_create").is_some_and(|made| *made > 0) {
        let mut lines: Vec<String> = expectations.iter().map(ctnetlink::format_expectation).collect();
        lines.sort();
        outcome.expectations = Some(lines);
    }
    outcome.counters = Some(counters);

    let release = sysctl::kernel_version().map_err(RecordError::kernel("reading the kernel's version"))?;
    let sysctls = under_test.in_box(conntrack_sysctls)?;
    Ok(Recorded { recording: Recording { release, config: facts(), sysctls, outcome }, lag })
}

/// The IP packet in a packet of the case.
fn ip(packet: &CasePacket, number: u64) -> Result<&[u8], RecordError> {
    match strip(packet.linktype, &packet.bytes) {
        Ok(Stripped::Ip(link)) => Ok(packet.bytes.get(link.ip_offset..).unwrap_or_default()),
        _ => Err(RecordError::NoPacket { packet: number }),
    }
}

fn packet_outcome(packet: u64, observed: Observed) -> PacketOutcome {
    let Observed { decided, log, forwarded, local, generated } = observed;
    PacketOutcome {
        packet,
        ctinfo: decided.map(|(ctinfo, _)| ctinfo),
        hook: decided.map(|(_, hook)| hook),
        log,
        forwarded: Some(forwarded),
        local: Some(local),
        generated: Some(generated),
    }
}

/// Adds what became of a packet that had been held.
fn went_on(packet: &mut PacketOutcome, observed: Observed) {
    let Observed { forwarded, local, generated, .. } = observed;
    packet.forwarded.get_or_insert_default().extend(forwarded);
    packet.local = Some(local || packet.local == Some(true));
    packet.generated.get_or_insert_default().extend(generated);
}

/// A line as `conntrack -E -o extended` prints it.
fn event_line(event: Event) -> Result<String, RecordError> {
    let Event::Entry(kind, entry) = event else { return Err(RecordError::Lost("events of the connection table")) };
    Ok(ctnetlink::format_event(kind, &entry))
}

/// What conntrack counted in the calling thread's namespace, on all CPUs (OBS-09). Columns that are always 0, that count
/// what other tables do, or that are chance, are left out.
fn counters() -> std::io::Result<BTreeMap<String, u64>> {
    const COUNTED: [(&str, &str); 10] = [
        ("clashres", "clash_resolve"),
        ("found", "found"),
        ("invalid", "invalid"),
        ("insert_failed", "insert_failed"),
        ("drop", "drop"),
        ("early_drop", "early_drop"),
        ("icmp_error", "icmp_error"),
        ("expect_new", "expect_new"),
        ("expect_create", "expect_create"),
        ("expect_delete", "expect_delete"),
    ];
    let text = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack")?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let mut sums = BTreeMap::new();
    for line in lines {
        for (name, value) in names.iter().zip(line.split_ascii_whitespace()) {
            if let Some((_, ours)) = COUNTED.iter().find(|(column, _)| column == name) {
                let value = u64::from_str_radix(value, 16).map_err(std::io::Error::other)?;
                *sums.entry((*ours).to_owned()).or_insert(0) += value;
            }
        }
    }
    Ok(sums)
}

/// The settings of conntrack in the calling thread's namespace, without those of the whole machine and without counters.
fn conntrack_sysctls() -> std::io::Result<BTreeMap<String, String>> {
    let mut sysctls = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/sys/net/netfilter")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("nf_conntrack_") || name == "nf_conntrack_count" || MACHINE_WIDE.contains(&name.as_str()) {
            continue;
        }
        let name = format!("net.netfilter.{name}");
        if let Some(value) = sysctl::read(&name)? {
            sysctls.insert(name, value);
        }
    }
    Ok(sysctls)
}

fn facts() -> BTreeMap<String, Fact> {
    let Some(config) = KernelConfig::of_running_kernel() else { return BTreeMap::new() };
    let fact = |option: &str| match config.value(option).map(str::parse) {
        Some(Ok(number)) => Fact::Number(number),
        _ => Fact::Flag(config.has(option)),
    };
    FACTS.iter().map(|option| ((*option).to_owned(), fact(option))).collect()
}
