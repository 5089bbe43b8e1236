//! `ctwhy proxy`: a NAT made of sockets, to experiment on.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ctwhy_fixture::case::Prefix;
use ctwhy_linux::signal::{SIGUSR1, Signals};
use ctwhy_nat::proxy::{Config, Errors, GuestConfig, Proxy};

use crate::failure::complain;
use crate::host::parse_prefix;

/// What it is, and what it is not.
const NOTES: &str = "\
A NAT made of sockets, as VMware's vmnat is one: TCP ends here and goes on in a connection of this host, UDP and ping leave \
through sockets of this host. It exists to show what such a NAT does to ICMP errors, and what it takes to mend that; for \
anything else the kernel's NAT is the better one.

SIGUSR1 prints the counts so far. Ends with SIGINT or SIGTERM.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ErrorsName {
    /// They reach this host and end there, as with vmnat
    Drop,
    /// The guest is told, about its own datagrams
    Relay,
}

/// `ctwhy proxy`.
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
pub(crate) struct ProxyArgs {
    /// Name of the guest's interface, a TUN device that is made and goes with the command
    #[arg(long, value_name = "IF")]
    guest: String,
    /// An address of the guest, such as 10.0.2.15/24 or fd00:2::15/64; one for each family that it is to use
    #[arg(long, value_name = "ADDR/LEN", required = true, num_args = 1.., value_parser = parse_prefix)]
    address: Vec<Prefix>,
    /// Network namespace that the guest is: a name as in `ip netns`, a path, or a process; it gets routes for everything, too
    #[arg(long, value_name = "NETNS")]
    netns: Option<String>,
    /// MTU of the guest's interface in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1280..))]
    mtu: u16,
    /// What becomes of ICMP errors about what the guest sent
    #[arg(long, value_enum, default_value = "drop")]
    errors: ErrorsName,
    /// Make up the replies to pings, whatever the address
    #[arg(long)]
    fake_echo: bool,
    /// No raw sockets even where they are allowed: what an ordinary user's process could do
    #[arg(long)]
    unprivileged: bool,
    /// Each of the two buffers of a TCP connection
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(2048..=16_777_216))]
    tcp_buffer: u32,
    /// The most flows and connections at once; each needs a descriptor
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    max_flows: u32,
    /// A flow of UDP or pings is over after so long without a datagram
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    idle: u32,
}

/// Runs the command until a signal ends it.
///
/// # Errors
/// What is missing or in use, in one line.
pub(crate) fn run(args: &ProxyArgs) -> io::Result<ExitCode> {
    // From here on a signal ends the loop, and the interface goes with its device.
    let mut signals = Signals::take()?;
    let guest = GuestConfig {
        interface: args.guest.clone(),
        addresses: args.address.iter().map(|own| (own.address(), own.length())).collect(),
        netns: args.netns.clone(),
        mtu: args.mtu,
    };
    let config = Config {
        errors: match args.errors {
            ErrorsName::Drop => Errors::Drop,
            ErrorsName::Relay => Errors::Relay,
        },
        fake_echo: args.fake_echo,
        unprivileged: args.unprivileged,
        tcp_buffer: usize::try_from(args.tcp_buffer).map_err(io::Error::other)?,
        max_flows: usize::try_from(args.max_flows).map_err(io::Error::other)?,
        idle: Duration::from_secs(args.idle.into()),
    };
    let mut proxy = Proxy::new(config, guest.open()?, args.mtu);
    let errors = match args.errors {
        ErrorsName::Drop => "errors end at this host",
        ErrorsName::Relay if proxy.sees_errors_whole() => "errors are passed on, from raw sockets",
        ErrorsName::Relay => "errors are passed on, from the error queues of sockets",
    };
    complain(format_args!("ctwhy proxy: ready: the guest is behind {}; {errors}", args.guest));
    loop {
        if !proxy.turn(signals.as_fd())? {
            continue;
        }
        match signals.received() {
            Some(SIGUSR1) => complain(format_args!("ctwhy proxy: so far: {}", proxy.counts())),
            Some(_) => break,
            None => {}
        }
    }
    complain(format_args!("ctwhy proxy: ended: {}", proxy.counts()));
    Ok(ExitCode::SUCCESS)
}
