//! The one place that knows the order of hooks (catalogue A.2).
//!
//! ```text
//! received  PREROUTING   defrag, raw, conntrack, mangle, nat destination
//!           route        local: LOCAL_IN
//!                        else:  TTL, MTU, FORWARD, POSTROUTING
//! local     LOCAL_OUT    defrag, raw, conntrack, mangle, nat destination, filter
//!           route        POSTROUTING; local: PREROUTING and LOCAL_IN with what the packet carries
//!
//!           LOCAL_IN     mangle, filter, nat source, confirm
//!           FORWARD      mangle, filter
//!           POSTROUTING  mangle, nat source, confirm; fragments
//! ```

mod journey;
mod passage;
mod ruling;
mod seen;
mod stages;
mod steps;

use crate::conn::{Confirmed, Flow};
use crate::conntrack::Conntrack;
use crate::defrag::Defrag;
use crate::direction::Direction;
use crate::nat::Manip;
use crate::network::Network;
use crate::random::Random;
use crate::rules::Rules;
use crate::time::Time;
use crate::trace::Sink;
use crate::tuple::{Addr, L3, Tuple};
use alloc::vec::Vec;
use core::fmt;

pub(crate) use passage::Way;
pub use passage::{Entered, Offload, Passage};
pub use ruling::{DropCause, Egress, Resized, Ruling, Unseen, Verdict};
pub(crate) use seen::not_tracked;
pub use stages::Handed;

/// A hook (`enum nf_inet_hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A packet arrived.
    PreRouting,
    /// It is for this host.
    LocalIn,
    /// It is forwarded.
    Forward,
    /// This host made it.
    LocalOut,
    /// It is about to leave.
    PostRouting,
}

impl Hook {
    /// The name in reports and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Hook::PreRouting => "prerouting",
            Hook::LocalIn => "input",
            Hook::Forward => "forward",
            Hook::LocalOut => "output",
            Hook::PostRouting => "postrouting",
        }
    }

    /// `HOOK2MANIP`: what NAT changes at the hook.
    #[must_use]
    pub const fn manip(self) -> Option<Manip> {
        match self {
            Hook::PreRouting | Hook::LocalOut => Some(Manip::Dst),
            Hook::PostRouting | Hook::LocalIn => Some(Manip::Src),
            Hook::Forward => None,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A host: conntrack, its rules, and what they need to know of the network.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Conntrack proper.
    pub conntrack: Conntrack,
    /// The rules for IPv4.
    pub rules4: Rules,
    /// The rules for IPv6.
    pub rules6: Rules,
    /// Interfaces and routes.
    pub network: Network,
    /// Where fragments wait.
    pub defrag: Defrag,
    /// Where the identifications of IPv6 fragments come from. They decide nothing.
    pub(crate) ids: Random,
    /// The last packet that outgrew the buffer that it came in.
    pub(crate) spare: Vec<u8>,
}

impl Engine {
    /// A host with an empty table and no rules. `seed` is where NAT's draws come from.
    #[must_use]
    pub fn new(seed: u64) -> Engine {
        Engine {
            conntrack: Conntrack { random: Random::new(seed), ..Conntrack::default() },
            rules4: Rules::default(),
            rules6: Rules::default(),
            network: Network::default(),
            defrag: Defrag::default(),
            ids: Random::new(seed),
            spare: Vec::new(),
        }
    }

    /// The rules of a family.
    #[must_use]
    #[inline]
    pub const fn rules(&self, l3num: L3) -> &Rules {
        match l3num {
            L3::V4 => &self.rules4,
            L3::V6 => &self.rules6,
        }
    }

    /// The rules of a family, to be changed.
    pub const fn rules_mut(&mut self, l3num: L3) -> &mut Rules {
        match l3num {
            L3::V4 => &mut self.rules4,
            L3::V6 => &mut self.rules6,
        }
    }

    /// Says what the next packet will leave as, where a kernel drew its port or id at random. The engine adopts the draw
    /// if the rule allows it, and only then; `None` leaves it to the seed.
    pub const fn foretell(&mut self, leaves_as: Option<Tuple>) {
        self.conntrack.random.foretell(leaves_as);
    }

    /// Has NAT left anything to chance so far? Then a kernel will decide otherwise the next time.
    #[must_use]
    pub const fn has_drawn(&self) -> bool {
        self.conntrack.random.drawn()
    }

    /// Has [`Engine::has_drawn`] tell of what comes from here on.
    pub const fn forget_draws(&mut self) {
        self.conntrack.random.forget_draws();
    }

    /// `masq_inet_event`: an address of an interface is gone, and with it the flows that were masqueraded with it
    /// (NAT-SET-10).
    pub fn address_lost<S: Sink>(&mut self, interface: u16, l3num: L3, address: Addr, now: Time, sink: &mut S) {
        let masqueraded = |flow: &Flow| {
            let reply = flow.tuple(Direction::Reply);
            flow.masquerade_interface == Some(interface) && reply.l3num == l3num && reply.dst == address
        };
        self.conntrack.table.delete_where(|entry| masqueraded(&entry.flow), now, sink);
    }

    /// `masq_device_event`: an interface is down or gone, and with it every flow that was masqueraded when it left by it
    /// (NAT-SET-10).
    pub fn interface_lost<S: Sink>(&mut self, interface: u16, now: Time, sink: &mut S) {
        let masqueraded = |entry: &Confirmed| entry.flow.masquerade_interface == Some(interface);
        self.conntrack.table.delete_where(masqueraded, now, sink);
    }
}
