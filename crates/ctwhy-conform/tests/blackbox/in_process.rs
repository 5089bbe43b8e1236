//! A NAT in this process, and whoever meddles with it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ctwhy_conform::blackbox::nat::{Nat, Side};
use ctwhy_conform::blackbox::run::{News, Plan, Verdict, run};
use ctwhy_conform::blackbox::{Change, Hosts};
use ctwhy_core::hook::Engine;
use ctwhy_core::network::{Interface, InterfaceAddress, Route};
use ctwhy_core::rules::{Network, iptables};
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{Addr, L3};
use ctwhy_nat::limit::Limits;
use ctwhy_nat::router::{Arrival, Departure, Router};

pub(crate) const RULES: &str = "\
*nat
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
*filter
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -i wan -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i wan -j DROP
COMMIT
";

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn families() -> Vec<Hosts> {
    let family = |l3num, clients: [&str; 2], externals: [&str; 2]| Hosts {
        l3num,
        clients: clients.map(address),
        externals: externals.map(address).into(),
    };
    vec![
        family(L3::V4, ["192.168.1.77", "192.168.1.78"], ["203.0.113.2", "203.0.113.3"]),
        family(L3::V6, ["fd00:1::77", "fd00:1::78"], ["2001:db8:113::2", "2001:db8:113::3"]),
    ]
}

pub(crate) fn router() -> Router {
    let mut engine = Engine::new(7);
    let network = |text: &str, prefix| Network { address: Addr::from(address(text)), prefix };
    for (name, v4, v6) in [
        ("lan", &["192.168.1.1"][..], &["fd00:1::1"][..]),
        ("wan", &["203.0.113.2", "203.0.113.3"], &["2001:db8:113::2", "2001:db8:113::3"]),
    ] {
        let of = |l3num, prefix, all: &[&str]| -> Vec<InterfaceAddress> {
            all.iter().map(|text| InterfaceAddress { l3num, network: network(text, prefix) }).collect()
        };
        let addresses = [of(L3::V4, 24, v4), of(L3::V6, 64, v6)].concat();
        engine.network.interfaces.push(Interface { name: name.to_owned(), addresses, mtu: Some(1500) });
    }
    for (l3num, all) in [(L3::V4, "0.0.0.0"), (L3::V6, "::")] {
        engine.network.routes.push(Route { l3num, to: network(all, 0), interface: 1, via: None });
        *engine.rules_mut(l3num) = iptables::parse(RULES, l3num).unwrap().rules;
    }
    let mut limits = Limits::default();
    limits.set("icmp_ratemask", "0").unwrap();
    limits.set("net.ipv6.icmp.ratemask", "").unwrap();
    Router::new(engine, limits, 1)
}

/// Somebody who meddles.
pub(crate) trait Tamper {
    /// With what goes in; `false` where it does not.
    fn enter(&mut self, _: Side, _: &mut Vec<u8>) -> bool {
        true
    }

    /// With what comes out; `false` where it does not.
    fn leave(&mut self, _: Side, _: &mut Vec<u8>) -> bool {
        true
    }

    /// What comes out inside when a packet from outside was dropped.
    fn instead(&mut self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

impl Tamper for () {}

/// Somebody who alters what comes out.
pub(crate) struct Out<F>(pub(crate) F);

impl<F: FnMut(Side, &mut Vec<u8>) -> bool> Tamper for Out<F> {
    fn leave(&mut self, side: Side, packet: &mut Vec<u8>) -> bool {
        (self.0)(side, packet)
    }
}

/// Somebody who alters what goes in.
pub(crate) struct In<F>(pub(crate) F);

impl<F: FnMut(Side, &mut Vec<u8>) -> bool> Tamper for In<F> {
    fn enter(&mut self, side: Side, packet: &mut Vec<u8>) -> bool {
        (self.0)(side, packet)
    }
}

/// A NAT in this process, whose clock waiting moves.
pub(crate) struct InProcess<'a> {
    router: Router,
    now: Duration,
    out: VecDeque<(Side, Vec<u8>)>,
    tamper: &'a mut dyn Tamper,
}

impl Nat for InProcess<'_> {
    fn put(&mut self, side: Side, packet: &[u8]) -> io::Result<()> {
        self.now += Duration::from_micros(10);
        let mut packet = packet.to_vec();
        if !self.tamper.enter(side, &mut packet) {
            return Ok(());
        }
        let arrived = packet.clone();
        let time = Time(1_000_000_000_000 + u64::try_from(self.now.as_nanos()).unwrap());
        let mut left = Vec::new();
        let mut leave = |departure: Departure<'_>| left.push((departure.interface, departure.packet.to_vec()));
        self.router.receive(Arrival::new(&mut packet, side.index() as u16), time, &mut (), &mut leave);
        if left.is_empty() && side == Side::Outside {
            left.extend(self.tamper.instead(&arrived).map(|packet| (0, packet)));
        }
        for (interface, mut packet) in left {
            let side = Side::BOTH[usize::from(interface)];
            if self.tamper.leave(side, &mut packet) {
                self.out.push_back((side, packet));
            }
        }
        Ok(())
    }

    fn take(&mut self, wait: Duration) -> io::Result<Option<(Side, Vec<u8>)>> {
        let next = self.out.pop_front();
        if next.is_none() {
            self.now += wait;
        }
        Ok(next)
    }

    fn now(&self) -> Duration {
        self.now
    }
}

/// Every verdict about a NAT with somebody in it, and how its UDP ports come to change.
pub(crate) fn asked(tamper: &mut dyn Tamper, seconds: u64) -> (Vec<Verdict>, Vec<Change>) {
    let mut nat = InProcess { router: router(), now: Duration::ZERO, out: VecDeque::new(), tamper };
    let plan = Plan {
        families: families(),
        patience: Duration::from_millis(500),
        seconds,
        groups: Vec::new(),
        only: Vec::new(),
    };
    let (mut verdicts, mut changes) = (Vec::new(), Vec::new());
    run(&mut nat, &plan, |news| match news {
        News::Surveyed(_, survey) => changes.push(survey.protocols()[0].1.change),
        News::Verdict(verdict) => verdicts.push(*verdict),
    })
    .unwrap();
    (verdicts, changes)
}

pub(crate) fn failed(verdicts: &[Verdict]) -> BTreeSet<String> {
    let failed = verdicts.iter().filter(|verdict| verdict.fails(false));
    failed.map(|verdict| verdict.requirement.id.clone()).collect()
}

pub(crate) fn complaints(verdicts: &[Verdict]) -> Vec<String> {
    let failed = verdicts.iter().filter(|verdict| verdict.fails(false));
    failed.map(|verdict| format!("{}: {}", verdict.name(), verdict.outcome.sentence().unwrap())).collect()
}

/// The NAT is found out: all of these are not met, and beside them nothing but what begins so.
pub(crate) fn finds(name: &str, tamper: &mut dyn Tamper, expected: &[&str], beside: &[&str]) {
    let (verdicts, _) = asked(tamper, 0);
    let failed = failed(&verdicts);
    for id in expected {
        assert!(failed.contains(*id), "{name}: {id} was not found; found were {:#?}", complaints(&verdicts));
    }
    let known = |id: &String| expected.contains(&id.as_str()) || beside.iter().any(|start| id.starts_with(start));
    let strangers: Vec<&String> = failed.iter().filter(|id| !known(id)).collect();
    assert!(strangers.is_empty(), "{name}: {strangers:?}; {:#?}", complaints(&verdicts));
}
