//! Which packets are shown. All are tracked.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use ctwhy_core::tuple::{has_ports, proto};

use crate::report::view::View;

/// Filters on what is shown; all that are given must hold.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Show only")]
pub(crate) struct Filter {
    /// Packets from or to this address, or that quote such a packet
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Packets from or to this port, or that quote such a packet
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Packets of this protocol (a name or a number), or that quote such a packet
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    proto: Option<u8>,
}

fn protocol(text: &str) -> Result<u8, String> {
    let named = (0..=255).find(|number| proto::name(*number) == text && text != "unknown");
    named.or_else(|| text.parse().ok()).ok_or_else(|| format!("'{text}' is no protocol; give its number"))
}

impl Filter {
    /// Is the packet shown, as it arrived or as it left?
    pub(super) fn shows(&self, before: (&[u8], usize), after: Option<&[u8]>) -> bool {
        if self.host.is_none() && self.port.is_none() && self.proto.is_none() {
            return true;
        }
        [Some(before.0), after].into_iter().flatten().any(|bytes| self.holds(bytes, before.1.max(bytes.len())))
    }

    fn holds(&self, bytes: &[u8], len: usize) -> bool {
        let Some(view) = View::new(bytes, len) else { return false };
        let host = |host: IpAddr| {
            view.addresses().contains(&host)
                || view.tuples().any(|tuple| tuple.src_ip() == host || tuple.dst_ip() == host)
        };
        let port = |port: u16| {
            view.tuples().any(|tuple| has_ports(tuple.protonum) && (tuple.src_u == port || tuple.dst_u == port))
        };
        let number =
            |number: u8| view.protonum() == Some(number) || view.tuples().any(|tuple| tuple.protonum == number);
        self.host.is_none_or(host) && self.port.is_none_or(port) && self.proto.is_none_or(number)
    }
}

/// `7` or `3-9`: numbers of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    first: u64,
    last: u64,
}

impl Numbers {
    pub(super) fn contains(self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// The first of them.
    pub(super) const fn first(self) -> u64 {
        self.first
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Numbers, String> {
        let number = |text: &str| {
            let number = text.parse::<u64>().ok().filter(|number| *number > 0);
            number.ok_or_else(|| format!("'{text}' is no packet number; they count from 1"))
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let numbers = Numbers { first: number(first)?, last: number(last)? };
        if numbers.first > numbers.last { Err(format!("'{text}' ends before it begins")) } else { Ok(numbers) }
    }
}
