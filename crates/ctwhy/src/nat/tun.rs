//! `ctwhy nat tun`: a router of its own on two TUN devices.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::time::Duration;

use clap::Args;
use ctwhy_core::hook::Engine;
use ctwhy_core::network::Network;
use ctwhy_core::trace::Trace;
use ctwhy_linux::signal::wait_readable;
use ctwhy_nat::limit::Limits;
use ctwhy_nat::router::{Router, Ruled, Watch};
use ctwhy_nat::tun::{Device, TunRouter};

use super::control::Control;
use super::reporter::{Reporter, Seen};
use super::{Common, TableTotals};
use crate::clock::Clock;
use crate::failure::{Failure, complain};
use crate::host::{AddressArg, MtuArg, RouteArg};

/// What the NAT says when packets are forwarded from now on.
const READY: &str = "ctwhy nat: ready";
/// Rounds between looks at signals while there is no end of packets.
const BETWEEN_LOOKS: usize = 16;
/// The MTU of a TUN device as the kernel makes it.
const MTU: u32 = 1500;

/// What has to be known before the first run.
const NOTES: &str = "\
The devices may exist already (`ip tuntap add mode tun user USER NAME`), also those of an ordinary user; otherwise they are \
made, which needs CAP_NET_ADMIN, and end with the NAT. They may be moved to other network namespaces while it runs. The \
router is no interface of the kernel's: its addresses, routes and MTUs are those that the options give it, and the kernel \
beside it sends to it by routes to the devices.

SIGUSR1 and `ctwhy nat status` print the table, SIGINT and SIGTERM end the run with what it did.";

/// `ctwhy nat tun`
#[derive(Args, Clone, Debug)]
#[command(after_help = NOTES)]
pub(crate) struct TunArgs {
    /// The TUN device of the hosts behind the NAT
    #[arg(long, value_name = "IFACE")]
    inside: String,
    /// The TUN device towards everybody else
    #[arg(long, value_name = "IFACE")]
    outside: String,
    /// An address of the router, with the length of its network; may be repeated
    #[arg(long = "address", value_name = "IFACE=ADDRESS/LEN", required = true)]
    addresses: Vec<AddressArg>,
    /// Packets to these addresses leave by this device
    #[arg(long = "route", value_name = "PREFIX=IFACE")]
    routes: Vec<RouteArg>,
    /// The longest packet that leaves by a device; 1500 bytes where nothing is said
    #[arg(long = "mtu", value_name = "IFACE=BYTES")]
    mtus: Vec<MtuArg>,
    /// One packet is what is one on a cable, with its checksum, as it is with --trace: nothing is left to the kernels beside
    /// the router. That is slower
    #[arg(long)]
    no_offload: bool,
    #[command(flatten)]
    common: Common,
}

impl TunArgs {
    /// Interfaces, addresses and routes of the router: the inside is interface 0, the outside 1.
    fn network(&self) -> Result<Network, Failure> {
        let mut network = Network::default();
        if self.inside == self.outside {
            return Err(Failure::usage("--inside and --outside: a router needs two devices"));
        }
        let known = |name: &str| name == self.inside || name == self.outside;
        let named = self.addresses.iter().map(|own| ("--address", own.interface()));
        let named = named.chain(self.routes.iter().map(|route| ("--route", route.interface())));
        let mut named = named.chain(self.mtus.iter().map(|mtu| ("--mtu", mtu.interface.as_str())));
        if let Some((option, name)) = named.find(|(_, name)| !known(name)) {
            let (inside, outside) = (&self.inside, &self.outside);
            return Err(Failure::usage(format!("{option}: the router has {inside} and {outside}, but no {name}")));
        }
        for name in [&self.inside, &self.outside] {
            let index = usize::from(network.interface_named(name));
            let mtu = self.mtus.iter().rev().find(|given| given.interface == *name).map_or(MTU, |given| given.mtu);
            if let Some(interface) = network.interfaces.get_mut(index) {
                interface.mtu = Some(mtu);
            }
        }
        self.addresses.iter().for_each(|own| own.add_to(&mut network));
        self.routes.iter().for_each(|route| route.add_to(&mut network));
        Ok(network)
    }
}

/// Runs until a signal.
///
/// # Errors
/// [`Failure`] with one line: something about the arguments, or a device that cannot be had or is gone.
pub(crate) fn run(args: &TunArgs) -> Result<(), Failure> {
    let seed = args.common.seed();
    let mut engine = Engine::new(seed);
    engine.network = args.network()?;
    let mut limits = Limits::default();
    for note in args.common.apply(&mut engine, crate::host::Network::Told, Some(&mut limits))?.notes {
        complain(format_args!("note: {note}"));
    }
    let offloads = !args.no_offload && !args.common.trace.traces();
    let open = if offloads { Device::open_offloading } else { Device::open };
    let devices = vec![open(&args.inside)?, open(&args.outside)?];
    let mut control = Control::open(&args.common.name)?;
    let report = Reporter::new(args.common.trace, args.common.color)?;
    let clock = Clock::start();
    let mut tun = TunRouter::new(Router::new(engine, limits, seed), devices);
    let mut told = Telling(report);
    told.0.message(&format!("{READY}: {} and {}", args.inside, args.outside));
    let mut ended = Ok(());
    while ended.is_ok() && control.attend(&tun.router.engine, clock.now(), &mut told.0) {
        ended = forward(&mut tun, &control, &clock, &mut told);
    }
    told.0.end(&Totals(&tun));
    Ok(ended?)
}

/// Forwards until there may be something to attend to.
fn forward(tun: &mut TunRouter, control: &Control, clock: &Clock, told: &mut Telling) -> io::Result<()> {
    for _ in 0..BETWEEN_LOOKS {
        let more = if told.0.traces() { tun.round(|| clock.now(), told)? } else { tun.round(|| clock.now(), &mut ())? };
        if more {
            continue;
        }
        let mut descriptors = control.descriptors();
        let controls = descriptors.len();
        descriptors.extend(tun.descriptors());
        let due = tun.router.deadline().map(|due| Duration::from_nanos(due.since(clock.now())));
        // poll(2) counts in milliseconds and must not wake up too early again and again.
        let readable = wait_readable(&descriptors, due.map(|due| due + Duration::from_millis(1)))?;
        if readable.iter().take(controls).any(|readable| *readable) || !readable.contains(&true) {
            break;
        }
    }
    Ok(())
}

/// Tells the packets of a router.
struct Telling(Reporter);

impl Watch for Telling {
    type Sink = Trace;
    const WATCHES: bool = true;

    fn sink(&mut self) -> &mut Trace {
        &mut self.0.trace
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
        self.0.packet(&seen, ruled.time);
    }
}

/// What a router did.
struct Totals<'a>(&'a TunRouter);

impl Display for Totals<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Totals(tun) = self;
        write!(f, "{}", tun.router.statistics)?;
        for (code, count) in tun.lost() {
            writeln!(f, "  {:<10} {count:>6}  {code}", "lost")?;
        }
        write!(f, "{}", TableTotals(&tun.router.engine.conntrack.table))
    }
}
