//! Sending the probes: bounded in number, in rate and in time.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ctwhy_linux::interfaces;
use ctwhy_linux::probe::{Answer, Event, Method, Packet, Prober, Quote, Strays};

use super::evidence::{Crossing, Evidence, Hop, Outcome, Sized, is_time_exceeded};

/// TTL of the probes that shall arrive.
const FULL_TTL: u8 = 64;
/// A short probe: headers, tag and some more.
const SHORT: usize = 60;
/// TTLs that are tried at once.
const WAVE: u8 = 4;
/// TTLs beyond the last answer that are tried before a method is given up.
const GAP: u8 = 6;
/// Traceroute's first port.
const FIRST_PORT: u16 = 33434;
/// A router needs three seconds to find out that nobody has an address.
const SLOW: Duration = Duration::from_millis(3500);
/// Lengths of packets that may not be cut, for IPv4.
const LENGTHS: [usize; 6] = [1500, 1400, 1300, 1200, 1000, 576];
/// The same for IPv6, where every link takes 1280.
const LENGTHS_V6: [usize; 5] = [1500, 1450, 1400, 1350, 1280];
/// Datagrams of one flow that are sent without waiting.
const CROSSING: u32 = 3;

/// What to probe, and how fast.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The target.
    pub dest: IpAddr,
    /// A TCP port of the target that should answer, open or closed.
    pub port: u16,
    /// A TCP port of the target on which nobody should listen.
    pub closed_port: u16,
    /// An address at which there is nobody.
    pub nowhere: IpAddr,
    /// The highest TTL.
    pub max_ttl: u8,
    /// Packets a second at most.
    pub rate: u32,
    /// How long an answer may take.
    pub wait: Duration,
}

impl Plan {
    /// The usual: TCP port 80, TTLs up to 30, twenty packets a second, two seconds for an answer.
    #[must_use]
    pub fn to(dest: IpAddr) -> Plan {
        Plan {
            dest,
            port: 80,
            closed_port: 1,
            nowhere: nowhere(dest),
            max_ttl: 30,
            rate: 20,
            wait: Duration::from_secs(2),
        }
    }
}

/// An address that nobody may have: of a network for documentation (RFC 5737) that is not the target's, of the prefix
/// for discarding (RFC 6666).
#[must_use]
pub fn nowhere(dest: IpAddr) -> IpAddr {
    match dest {
        IpAddr::V4(v4) if v4.octets()[..3] == [198, 51, 100] => Ipv4Addr::new(203, 0, 113, 254).into(),
        IpAddr::V4(_) => Ipv4Addr::new(198, 51, 100, 254).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0xdead).into(),
    }
}

/// Sends the probes of a plan. `progress` is told what is being done.
///
/// # Errors
/// No socket can be had, or none of the methods may be used.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&str)) -> io::Result<Evidence> {
    let mut run = Run {
        plan,
        prober: Prober::new(plan.dest),
        strays: Strays::open(plan.dest).ok(),
        unavailable: Vec::new(),
        next: Instant::now(),
        // Those of another run at the same time are others.
        tag: std::process::id() << 16,
        ports: Vec::new(),
    };
    let mut evidence = Evidence {
        dest: plan.dest,
        on_link: on_link(plan.dest)?,
        unavailable: Vec::new(),
        raw: run.strays.is_some(),
        hops: Vec::new(),
        closed: Vec::new(),
        nowhere: plan.nowhere,
        to_nowhere: Vec::new(),
        sizes: Vec::new(),
        crossing: Vec::new(),
        strays: Vec::new(),
    };
    for method in Method::ALL {
        if let Err(why) = run.prober.open(method, run.target(method, 0)) {
            run.unavailable.push((method, why.to_string()));
        }
    }
    run.prober.close_all();
    if run.unavailable.len() == Method::ALL.len() {
        let why: Vec<&str> = run.unavailable.iter().map(|(_, why)| why.as_str()).collect();
        return Err(io::Error::other(format!("nothing can be sent to {}: {}", plan.dest, why.join("; "))));
    }
    evidence.hops = run.trace(progress)?;
    if let Some(why) = nothing_sent(&evidence) {
        return Err(io::Error::other(format!("nothing can be sent to {}: {why}", plan.dest)));
    }
    progress("closed ports");
    evidence.closed = run.closed()?;
    progress("an address at which there is nobody");
    evidence.to_nowhere = run.nobody()?;
    progress("long packets");
    evidence.sizes = run.sizes()?;
    progress("two flows at once");
    evidence.crossing = run.crossing(&evidence)?;
    evidence.strays = run.foreign();
    evidence.unavailable = run.unavailable;
    Ok(evidence)
}

/// Why not one packet left this host; `None` where one did.
fn nothing_sent(evidence: &Evidence) -> Option<String> {
    let mut why = None;
    for (_, outcome) in evidence.outcomes() {
        let Outcome::NotSent(reason) = outcome else { return None };
        why = why.or_else(|| Some(reason.clone()));
    }
    why
}

/// Is the address in the network of one of our interfaces?
fn on_link(dest: IpAddr) -> io::Result<bool> {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    Ok(interfaces::addresses()?.iter().any(|own| {
        let differ = (bits(own.ip) ^ bits(dest)).leading_zeros();
        own.ip.is_ipv4() == dest.is_ipv4() && differ >= u32::from(own.prefix)
    }))
}

/// A probe to send.
#[derive(Clone, Copy)]
struct Shot {
    method: Method,
    to: SocketAddr,
    packet: Packet,
}

struct Run<'a> {
    plan: &'a Plan,
    prober: Prober,
    strays: Option<Strays>,
    unavailable: Vec<(Method, String)>,
    /// When the next packet may leave.
    next: Instant,
    tag: u32,
    /// The source ports that this run has used.
    ports: Vec<u16>,
}

impl Run<'_> {
    fn may_use(&self, method: Method) -> bool {
        self.unavailable.iter().all(|(missing, _)| *missing != method)
    }

    fn target(&self, method: Method, step: u16) -> SocketAddr {
        let port = match method {
            Method::Udp => FIRST_PORT + step,
            Method::Echo => 0,
            Method::Tcp => self.plan.port,
        };
        SocketAddr::new(self.plan.dest, port)
    }

    fn shot(&mut self, method: Method, to: SocketAddr, ttl: u8, length: usize, dont_fragment: bool) -> Shot {
        self.tag += 1;
        Shot { method, to, packet: Packet { ttl, length, dont_fragment, tag: self.tag } }
    }

    fn pace(&mut self) {
        let now = Instant::now();
        if let Some(early) = self.next.checked_duration_since(now) {
            std::thread::sleep(early);
        }
        self.next = self.next.max(now) + Duration::from_secs(1) / self.plan.rate.max(1);
    }

    /// Sends each probe by a flow of its own, those that nobody answers a second time.
    fn fire(&mut self, shots: &[Shot], wait: Duration) -> io::Result<Vec<Outcome>> {
        let mut outcomes = self.fire_once(shots, wait)?;
        let silent: Vec<usize> = (0..shots.len()).filter(|at| !outcomes[*at].is_answer()).collect();
        let again: Vec<Shot> = silent.iter().map(|at| shots[*at]).collect();
        for (at, outcome) in silent.into_iter().zip(self.fire_once(&again, wait)?) {
            outcomes[at] = match outcome {
                Outcome::Silent { .. } => Outcome::Silent { tries: 2 },
                other => other,
            };
        }
        Ok(outcomes)
    }

    fn fire_once(&mut self, shots: &[Shot], wait: Duration) -> io::Result<Vec<Outcome>> {
        let mut outcomes = vec![Outcome::Silent { tries: 1 }; shots.len()];
        let mut flows = HashMap::new();
        for (at, shot) in shots.iter().enumerate() {
            self.pace();
            let sent = self.prober.open(shot.method, shot.to).and_then(|flow| {
                self.prober.send(flow, shot.to, &shot.packet)?;
                Ok(flow)
            });
            match sent {
                Ok(flow) => {
                    self.ports.extend(self.prober.port(flow));
                    flows.insert(flow, at);
                }
                Err(error) => outcomes[at] = Outcome::NotSent(error.to_string()),
            }
        }
        let expected = flows.len();
        let answered = |events: &[Event]| {
            let mut seen: Vec<usize> = events.iter().map(|event| event.flow).collect();
            seen.sort_unstable();
            seen.dedup();
            seen.len() == expected
        };
        let deadline = Instant::now() + wait;
        let events = self.prober.listen(deadline, answered, self.strays.as_mut())?;
        for Event { flow, answer, .. } in events {
            let Some(at) = flows.get(&flow) else { continue };
            // The first word counts, but a reply counts more than an error about it.
            if !outcomes[*at].is_answer() || matches!(answer, Answer::Reply { .. } | Answer::Connected) {
                outcomes[*at] = answer.into();
            }
        }
        self.prober.close_all();
        Ok(outcomes)
    }

    fn trace(&mut self, progress: &mut dyn FnMut(&str)) -> io::Result<Vec<Hop>> {
        let mut hops: Vec<Hop> = Vec::new();
        let mut last = [0u8; 3];
        let mut reached = [None::<u8>; 3];
        let mut first = 1u8;
        while first <= self.plan.max_ttl {
            let farthest = reached.iter().flatten().copied().max().unwrap_or(0);
            let end = first.saturating_add(WAVE - 1).min(self.plan.max_ttl);
            let mut shots = Vec::new();
            for ttl in first..=end {
                for method in Method::ALL {
                    let open = reached[method as usize].is_none()
                        && ttl <= (last[method as usize].saturating_add(GAP)).max(farthest.saturating_add(1));
                    if open && self.may_use(method) {
                        let to = self.target(method, u16::from(ttl));
                        shots.push(self.shot(method, to, ttl, SHORT, false));
                    }
                }
            }
            if shots.is_empty() {
                break;
            }
            progress(&format!("TTL {first} to {end}"));
            let outcomes = self.fire(&shots, self.plan.wait)?;
            hops.extend((first..=end).map(|ttl| Hop { ttl, outcomes: [None, None, None] }));
            for (shot, outcome) in shots.iter().zip(outcomes) {
                let (ttl, method) = (shot.packet.ttl, shot.method as usize);
                if outcome.is_answer() {
                    last[method] = last[method].max(ttl);
                }
                if outcome.arrived(self.plan.dest) {
                    reached[method] = Some(reached[method].map_or(ttl, |before| before.min(ttl)));
                }
                if let Some(hop) = hops.iter_mut().find(|hop| hop.ttl == ttl) {
                    hop.outcomes[method] = Some(outcome);
                }
            }
            first = end + 1;
        }
        Ok(hops)
    }

    fn control(&mut self, targets: &[(Method, SocketAddr)], wait: Duration) -> io::Result<Vec<(Method, Outcome)>> {
        let usable: Vec<_> = targets.iter().copied().filter(|(method, _)| self.may_use(*method)).collect();
        let shots: Vec<Shot> =
            usable.iter().map(|(method, to)| self.shot(*method, *to, FULL_TTL, SHORT, false)).collect();
        let outcomes = self.fire(&shots, wait)?;
        Ok(usable.into_iter().map(|(method, _)| method).zip(outcomes).collect())
    }

    fn closed(&mut self) -> io::Result<Vec<(Method, Outcome)>> {
        let tcp = SocketAddr::new(self.plan.dest, self.plan.closed_port);
        let udp = self.target(Method::Udp, 90);
        self.control(&[(Method::Udp, udp), (Method::Tcp, tcp)], self.plan.wait)
    }

    fn nobody(&mut self) -> io::Result<Vec<(Method, Outcome)>> {
        let to = |port| SocketAddr::new(self.plan.nowhere, port);
        let (udp, tcp) = (to(FIRST_PORT), to(self.plan.port));
        self.control(&[(Method::Udp, udp), (Method::Echo, to(0)), (Method::Tcp, tcp)], self.plan.wait.max(SLOW))
    }

    fn sizes(&mut self) -> io::Result<Vec<Sized>> {
        let lengths: &[usize] = if self.plan.dest.is_ipv4() { &LENGTHS } else { &LENGTHS_V6 };
        let mut shots = Vec::new();
        for method in [Method::Udp, Method::Echo] {
            for (step, length) in lengths.iter().enumerate() {
                if self.may_use(method) {
                    let to = self.target(method, 100 + step as u16);
                    shots.push(self.shot(method, to, FULL_TTL, *length, true));
                }
            }
        }
        let outcomes = self.fire(&shots, self.plan.wait)?;
        let sized =
            |(shot, outcome): (Shot, Outcome)| Sized { method: shot.method, length: shot.packet.length, outcome };
        Ok(shots.into_iter().zip(outcomes).map(sized).collect())
    }

    /// Two UDP flows that cross, to the farthest router that speaks; to the target if none does.
    fn crossing(&mut self, evidence: &Evidence) -> io::Result<Vec<Crossing>> {
        let error = |hop: &Hop| hop.by(Method::Udp).and_then(Outcome::error).copied();
        let router = evidence.hops.iter().rev().find(|hop| error(hop).is_some_and(|error| is_time_exceeded(&error)));
        let speaker = router.or_else(|| evidence.hops.iter().rev().find(|hop| error(hop).is_some()));
        let Some(ttl) = speaker.map(|hop| hop.ttl) else { return Ok(Vec::new()) };
        if !self.may_use(Method::Udp) {
            return Ok(Vec::new());
        }
        let mut crossing = [Crossing::default(), Crossing::default()];
        let targets = [self.target(Method::Udp, 110), self.target(Method::Udp, 111)];
        let mut flows = Vec::new();
        for to in targets {
            let flow = self.prober.open(Method::Udp, to)?;
            self.ports.extend(self.prober.port(flow));
            flows.push(flow);
        }
        for _ in 0..CROSSING {
            for (at, flow) in flows.iter().enumerate() {
                let shot = self.shot(Method::Udp, targets[at], ttl, SHORT, false);
                if self.prober.send(*flow, shot.to, &shot.packet).is_ok() {
                    crossing[at].sent.push(shot.packet.tag);
                }
            }
        }
        let expected: usize = crossing.iter().map(|one| one.sent.len()).sum();
        let deadline = Instant::now() + self.plan.wait;
        let events = self.prober.listen(deadline, |events| events.len() >= expected, self.strays.as_mut())?;
        for event in events {
            if let (Answer::Error(error), Some(at)) = (event.answer, flows.iter().position(|flow| *flow == event.flow))
            {
                crossing[at].quoted.push(error.quote);
            }
        }
        self.prober.close_all();
        Ok(crossing.into())
    }

    /// Errors about packets to our targets in the name of an address that is not ours, or about our own probes in the name of
    /// a port that none of our sockets had. Other programs of this host have ports, too.
    fn foreign(&self) -> Vec<ctwhy_linux::probe::Stray> {
        let seen = self.strays.as_ref().map(Strays::seen).unwrap_or_default();
        let own: Vec<IpAddr> =
            interfaces::addresses().unwrap_or_default().into_iter().map(|address| address.ip).collect();
        let ours = |stray: &&ctwhy_linux::probe::Stray| {
            stray.quoted_dst == self.plan.dest || stray.quoted_dst == self.plan.nowhere
        };
        let sent = |quote| matches!(quote, Quote::Tag(tag) if tag >> 16 == self.tag >> 16);
        let known = |stray: &&ctwhy_linux::probe::Stray| {
            let port = stray.quoted_sport.is_none_or(|port| self.ports.contains(&port));
            own.contains(&stray.quoted_src) && (port || !sent(stray.quote))
        };
        seen.iter().filter(ours).filter(|stray| !known(stray)).copied().collect()
    }
}
