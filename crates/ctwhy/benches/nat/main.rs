//! What a NAT costs, measured against what people would use instead: `make bench`.
//!
//! Each stands in a lab of its own between a client and a server, and all are measured in turn, several times: what is
//! told is the median of the rounds, since a machine has other things to do. A tenth more or less means nothing.
//!
//! - `way` is what may stand there, also a consumer of queues in C (`accept_all.c`);
//! - `traffic` is what goes through;
//! - `cost` is processor time;
//! - `table` is what is told of it.
#![allow(missing_docs)] // A program.

mod cost;
mod table;
mod traffic;
mod way;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ctwhy_linux::{lab, netns, program};

use cost::Meter;
use table::{Load, Metric, Samples};
use traffic::{Offered, Towards};
use way::{Stage, Way};

#[derive(Parser, Debug)]
struct Arguments {
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one measurement lasts, in seconds
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Only these: routing, kernel, accept-all, nat-queue, nat-tun, nat-tun-plain, slirp4netns, pasta
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// What cargo says
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("nothing is measured but by `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    if !netns::is_privileged() {
        netns::isolate()?;
    }
    if let Err(reason) = lab::probe() {
        println!("skipped: all of it: {reason}");
        return Ok(());
    }
    let iperf3 = program::find("iperf3").map_err(|missing| println!("skipped: TCP: {missing}")).is_ok();
    let mut stages = Vec::new();
    for way in Way::ALL {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == way.name()) {
            continue;
        }
        match way.unavailable() {
            Some(reason) => println!("skipped: {}: {reason}", way.name()),
            None => stages.push(Stage::build(way)?),
        }
    }
    let meter = Meter::new();
    let mut samples = Samples::default();
    for round in 1..=arguments.rounds {
        for stage in &stages {
            measure(stage, &meter, Duration::from_secs(arguments.seconds), iperf3, &mut samples)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", stage.way.name())))?;
        }
        eprintln!("round {round} of {}", arguments.rounds);
    }
    let ways: Vec<Way> = stages.iter().map(|stage| stage.way).collect();
    let text = table::markdown(&ways, &samples, arguments.rounds);
    print!("{text}");
    if std::env::var_os("UPDATE_BOOK").is_some() { table::write_into_book(&text) } else { Ok(()) }
}

/// One round of everything.
fn measure(stage: &Stage, meter: &Meter, duration: Duration, tcp: bool, samples: &mut Samples) -> io::Result<()> {
    let lab = stage.lab();
    let way = stage.way;
    lab.offload(true)?;
    for (load, offered) in [
        (Load::InTurn, Offered { burst: 1, windowed: true }),
        (Load::InBursts, Offered { burst: 16, windowed: true }),
        (Load::Flood, Offered { burst: 16, windowed: false }),
    ] {
        let before = meter.read(stage)?;
        let arrived = traffic::datagrams(lab, offered, duration)?;
        let spent = meter.since(&before, stage)?;
        samples.add(way, Metric::Rate(load), arrived.rate / 1e3);
        samples.add(way, Metric::Lost(load), 100.0 * (1.0 - arrived.arrived as f64 / arrived.sent.max(1) as f64));
        samples.add_time((way, load), &spent, 1e6 / arrived.arrived.max(1) as f64);
    }
    let mut times = traffic::there_and_back(lab, duration)?;
    times.sort_unstable();
    for (metric, part) in [(Metric::Median, 0.5), (Metric::Tail, 0.99)] {
        let at = ((times.len() - 1) as f64 * part) as usize;
        samples.add(way, metric, times.get(at).copied().unwrap_or_default().as_secs_f64() * 1e6);
    }
    if !tcp {
        return Ok(());
    }
    for (load, to, offload) in [
        (Load::Up, Towards::Server, true),
        (Load::Down, Towards::Client, true),
        (Load::PlainUp, Towards::Server, false),
        (Load::PlainDown, Towards::Client, false),
    ] {
        lab.offload(offload)?;
        let before = meter.read(stage)?;
        let carried = traffic::tcp(lab, to, duration)?;
        let spent = meter.since(&before, stage)?;
        samples.add(way, Metric::Rate(load), carried.bytes * 8.0 / 1e9 / carried.seconds);
        samples.add_time((way, load), &spent, 1e9 / carried.bytes);
    }
    Ok(())
}
