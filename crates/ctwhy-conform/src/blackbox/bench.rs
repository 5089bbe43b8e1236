//! Where probes are made: a NAT, somebody on both its sides, and a log of what went by.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ctwhy_core::tuple::L3;

use super::flow::Proto;
use super::nat::{Nat, Side};
use super::read::Seen;
use super::survey::Survey;

/// How long after a packet that was to come later it is waited for one that was to come earlier: two packets that do not
/// overtake each other in a NAT may do so in the sockets behind it.
const GRACE: Duration = Duration::from_millis(30);
/// More packets than that in one probe are somebody else's.
const MOST: usize = 4096;

/// The addresses of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// The family.
    pub l3num: L3,
    /// Two hosts inside, for which the suite speaks.
    pub clients: [IpAddr; 2],
    /// Addresses of the NAT outside, as far as they are known.
    pub externals: Vec<IpAddr>,
}

impl Hosts {
    /// One of 250 hosts outside, of a network for documentation (RFC 5737, RFC 3849).
    #[must_use]
    pub fn server(&self, number: u16) -> IpAddr {
        self.outside([192, 0, 2], 2, number)
    }

    /// One of 250 routers on the way to them.
    #[must_use]
    pub fn router(&self, number: u16) -> IpAddr {
        self.outside([198, 51, 100], 0x100, number)
    }

    /// Is that one of the routers?
    #[must_use]
    pub fn is_router(&self, address: IpAddr) -> bool {
        (0..250).any(|number| self.router(number) == address)
    }

    fn outside(&self, [a, b, c]: [u8; 3], net: u16, number: u16) -> IpAddr {
        let host = 1 + number % 250;
        match self.l3num {
            L3::V4 => [a, b, c, host as u8].into(),
            L3::V6 => [0x2001, 0xdb8, net, 0, 0, 0, 0x77, host].into(),
        }
    }
}

/// A packet that went by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Where.
    pub side: Side,
    /// When, by the clock of [`Nat::now`].
    pub at: Duration,
    /// From the IP header on.
    pub packet: Vec<u8>,
    /// What it is, or is taken for. Empty for what nobody waited for.
    pub comment: String,
}

/// A NAT under test, with hosts on both its sides.
pub struct Bench<'a> {
    nat: &'a mut dyn Nat,
    /// The addresses of the family that is tested.
    pub(super) hosts: Hosts,
    /// How long it is waited for what comes, at most.
    pub(super) patience: Duration,
    pub(super) survey: Survey,
    log: Vec<Logged>,
    /// What came out and nobody took: indices of the log.
    waiting: Vec<usize>,
    numbers: u16,
}

impl<'a> Bench<'a> {
    /// A bench on which nothing has been tried.
    pub fn new(nat: &'a mut dyn Nat, hosts: Hosts, patience: Duration) -> Bench<'a> {
        Bench {
            nat,
            hosts,
            patience,
            survey: Survey::default(),
            log: Vec::new(),
            waiting: Vec::new(),
            // The two families do not share numbers, so that a capture of both is easily read.
            numbers: 0,
        }
    }

    /// A number that was not given before in this run, for ports and addresses.
    pub(super) fn fresh(&mut self) -> u16 {
        self.numbers = self.numbers.wrapping_add(1);
        self.numbers
    }

    /// Forgets what went by.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        while self.nat.take(Duration::ZERO)?.is_some() {}
        self.log.clear();
        self.waiting.clear();
        Ok(())
    }

    /// What went by since the last call of [`Bench::begin`].
    pub(super) fn take_log(&mut self) -> Vec<Logged> {
        self.waiting.clear();
        std::mem::take(&mut self.log)
    }

    /// Starts the NAT again; `false` where nobody can.
    pub(super) fn revive(&mut self) -> io::Result<bool> {
        self.nat.revive()
    }

    pub(super) fn now(&self) -> Duration {
        self.nat.now()
    }

    /// Has a packet arrive at a side of the NAT.
    pub(super) fn send(&mut self, side: Side, packet: &[u8], comment: impl Into<String>) -> io::Result<()> {
        let (at, packet, comment) = (self.nat.now(), packet.to_vec(), comment.into());
        self.nat.put(side, &packet)?;
        self.log.push(Logged { side, at, packet, comment });
        Ok(())
    }

    /// The first packet of a side that fulfils the condition, which is given a name in the log; `None` when it did not come
    /// in time.
    pub(super) fn wait(
        &mut self,
        side: Side,
        name: &str,
        wanted: impl FnMut(&Seen<'_>) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        self.wait_for(self.patience, side, name, wanted)
    }

    /// As [`Bench::wait`], of what is there already.
    pub(super) fn find(
        &mut self,
        side: Side,
        name: &str,
        wanted: impl FnMut(&Seen<'_>) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        self.wait_for(Duration::ZERO, side, name, wanted)
    }

    fn wait_for(
        &mut self,
        patience: Duration,
        side: Side,
        name: &str,
        mut wanted: impl FnMut(&Seen<'_>) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let until = self.nat.now() + patience;
        let mut looked_at = 0;
        loop {
            let found = self.waiting.get(looked_at..).unwrap_or_default().iter().position(|index| {
                let logged = self.log.get(*index).filter(|logged| logged.side == side);
                logged.and_then(|logged| Seen::of(&logged.packet)).is_some_and(|seen| wanted(&seen))
            });
            if let Some(place) = found {
                let index = self.waiting.remove(looked_at + place);
                let logged = self.log.get_mut(index);
                return Ok(logged.map(|logged| {
                    name.clone_into(&mut logged.comment);
                    logged.packet.clone()
                }));
            }
            looked_at = self.waiting.len();
            let left = until.saturating_sub(self.nat.now());
            if !self.receive(left)? {
                return Ok(None);
            }
        }
    }

    /// Takes what comes within a time: a packet, or nothing.
    fn receive(&mut self, wait: Duration) -> io::Result<bool> {
        let Some((side, packet)) = self.nat.take(wait)? else { return Ok(false) };
        if self.log.len() < MOST {
            self.waiting.push(self.log.len());
            self.log.push(Logged { side, at: self.nat.now(), packet, comment: String::new() });
        }
        Ok(true)
    }

    /// Lets what is on its way arrive.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.pass(GRACE)
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) -> io::Result<()> {
        let until = self.nat.now() + time;
        loop {
            let left = until.saturating_sub(self.nat.now());
            if left.is_zero() {
                return Ok(());
            }
            self.receive(left)?;
        }
    }

    /// The protocols that come through at all.
    pub(super) fn passing(&self) -> impl Iterator<Item = Proto> {
        Proto::ALL.into_iter().filter(|proto| self.survey.of(*proto).passes)
    }
}
