//! The host that the packets of a capture meet: its routes, addresses, rules and sysctls, from the command line.

use std::str::FromStr;

use clap::Args;
use ctwhy_core::hook::Engine;
use ctwhy_core::network::{Destination, InterfaceAddress, Network};
use ctwhy_fixture::case::Prefix;

use crate::failure::Failure;
use crate::host::{self, Remarks, RouteArg, Settings, parse_prefix, prefixed};

/// Where packets go, and what is done to them. Without routes and addresses every packet is taken as received,
/// accepted and confirmed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The host that tracks")]
pub(crate) struct World {
    /// Packets to these addresses leave by this interface
    #[arg(long = "route", value_name = "PREFIX=IFACE")]
    routes: Vec<RouteArg>,
    /// An address of the host itself, with the length of its network; the interface is the one that its route names
    #[arg(long = "local", value_name = "ADDRESS[/LEN][=IFACE]")]
    locals: Vec<LocalArg>,
    /// The interface of packets that the capture names none for
    #[arg(long, value_name = "NAME")]
    iface: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Clone, Debug)]
struct LocalArg {
    address: Prefix,
    interface: Option<String>,
}

impl FromStr for LocalArg {
    type Err = String;

    fn from_str(text: &str) -> Result<LocalArg, String> {
        let (address, interface) = match text.split_once('=') {
            Some((_, "")) => return Err("the interface behind '=' is missing".to_owned()),
            Some((address, interface)) => (address, Some(interface.to_owned())),
            None => (text, None),
        };
        Ok(LocalArg { address: parse_prefix(address)?, interface })
    }
}

/// A host, and what the user should know about it.
pub(super) struct Host {
    pub(super) engine: Engine,
    pub(super) remarks: Remarks,
}

impl World {
    /// The interface of packets that the capture names none for.
    pub(super) fn interface(&self) -> Option<&str> {
        self.iface.as_deref()
    }

    /// The host: what is known of it from the case, and what the options add or set anew.
    ///
    /// # Errors
    /// A rule file that cannot be read or understood, or rules that need what was not said.
    pub(super) fn host(&self, mut engine: Engine) -> Result<Host, Failure> {
        self.extend(&mut engine.network)?;
        let remarks = self.settings.apply(&mut engine, host::Network::Told, None)?;
        Ok(Host { engine, remarks })
    }

    fn extend(&self, network: &mut Network) -> Result<(), Failure> {
        self.routes.iter().for_each(|route| route.add_to(network));
        // Those that name their interface first: their networks may cover the others.
        let (named, unnamed): (Vec<_>, Vec<_>) = self.locals.iter().partition(|local| local.interface.is_some());
        for LocalArg { address, interface } in named.into_iter().chain(unnamed) {
            let (l3num, own) = prefixed(*address);
            let index = match interface {
                Some(name) => network.interface_named(name),
                None if address.address().is_loopback() => network.interface_named("lo"),
                None => match network.route(l3num, own.address) {
                    Destination::Interface(index) => index,
                    Destination::Local | Destination::None => {
                        let address = address.address();
                        return Err(Failure::usage(format!(
                            "--local {address}: no --route leads there, so its interface is not known: add =IFACE"
                        )));
                    }
                },
            };
            if let Some(interface) = network.interfaces.get_mut(usize::from(index)) {
                interface.addresses.push(InterfaceAddress { l3num, network: own });
            }
        }
        Ok(())
    }
}
