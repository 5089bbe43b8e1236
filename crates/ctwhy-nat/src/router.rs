//! A packet in, packets out: a router that forwards as the engine decides, and says what a router has to say.

use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{DropCause, Egress, Engine, Offload, Ruling, Unseen, Verdict};
use ctwhy_core::network::Destination;
use ctwhy_core::packet::Packet;
use ctwhy_core::random::Random;
use ctwhy_core::time::Time;
use ctwhy_core::trace::Sink;
use ctwhy_core::tuple::L3;

use crate::answer::{self, Complaint};
use crate::limit::Limits;
use crate::local;
use crate::offload::Gso;
use crate::statistics::{Statistics, count};
use crate::voice::{Routes, Said, Voice};

/// The smallest MTU of IPv6.
const IPV6_MIN_MTU: u32 = 1280;

/// Whoever watches a router.
pub trait Watch {
    /// Where the engine tells what it decides.
    type Sink: Sink;
    /// Is [`Watch::ruled`] of use, so that packets are kept as they arrived?
    const WATCHES: bool;

    /// Where the engine tells what it decides.
    fn sink(&mut self) -> &mut Self::Sink;

    /// Everything has been decided about a packet. What this host says about it comes next.
    fn ruled(&mut self, ruled: &Ruled<'_>);

    /// The packet is out of hand for now. What the engine tells when it was at this place is not all there is to tell.
    fn set_aside(&mut self, _place: u32) {}

    /// The packet that was set aside at this place is back.
    fn take_up(&mut self, _place: u32) {}
}

/// Nobody watches.
impl Watch for () {
    type Sink = ();
    const WATCHES: bool = false;

    fn sink(&mut self) -> &mut () {
        self
    }

    fn ruled(&mut self, _: &Ruled<'_>) {}
}

/// A packet that arrives.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// From the IP header on.
    pub packet: &'a mut [u8],
    /// Where it comes in.
    pub interface: u16,
    /// Nobody has to verify its transport checksum.
    pub checksum_trusted: bool,
    /// It is several segments in one.
    pub gso: Option<Gso>,
}

impl<'a> Arrival<'a> {
    /// A packet as it is on a cable.
    #[must_use]
    pub const fn new(packet: &'a mut [u8], interface: u16) -> Arrival<'a> {
        Arrival { packet, interface, checksum_trusted: false, gso: None }
    }
}

/// A packet that leaves.
#[derive(Clone, Copy, Debug)]
pub struct Departure<'a> {
    /// From the IP header on.
    pub packet: &'a [u8],
    /// Where it goes out.
    pub interface: u16,
    /// It is several segments in one, whose checksums are left to whoever is next.
    pub gso: Option<Gso>,
    /// Is it one of a flow that was answered, with a checksum that is known to be right, so that others may join it?
    pub may_join: bool,
}

/// A packet that a router has decided about.
#[derive(Clone, Copy, Debug)]
pub struct Ruled<'a> {
    /// Where it came in; `None` for a packet of this host.
    pub interface: Option<u16>,
    /// As it was; for the fragment that completes a datagram the datagram.
    pub arrived: &'a [u8],
    /// As it is now.
    pub now: &'a [u8],
    /// What was decided.
    pub ruling: &'a Ruling,
    /// The host that decided.
    pub engine: &'a Engine,
    /// When.
    pub time: Time,
}

/// A router of its own.
#[derive(Clone, Debug)]
pub struct Router {
    /// What decides.
    pub engine: Engine,
    /// How much it may say.
    pub limits: Limits,
    /// What it did so far.
    pub statistics: Statistics,
    identifications: Random,
    /// The packet as it arrived, for whoever watches.
    arrived: Vec<u8>,
}

impl Router {
    /// A router that decides by `engine`. `seed` is where it draws what nobody may guess.
    #[must_use]
    pub fn new(engine: Engine, limits: Limits, seed: u64) -> Router {
        Router {
            engine,
            limits: limits.seeded(seed),
            statistics: Statistics::default(),
            identifications: Random::new(!seed),
            arrived: Vec::new(),
        }
    }

    /// A packet arrives and is rewritten where it stands. `leave` gets what leaves because of it.
    ///
    /// Several segments in one stay together, but where a link is too short for them: then each goes its own way.
    pub fn receive<W: Watch>(
        &mut self,
        arrival: Arrival<'_>,
        now: Time,
        watch: &mut W,
        leave: &mut impl FnMut(Departure<'_>),
    ) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.end_overdue(now, watch, leave);
        }
        let Arrival { packet, interface, gso, .. } = arrival;
        match gso.filter(|gso| self.is_too_long(gso.segment())) {
            None => self.receive_one(Arrival { packet, ..arrival }, now, watch, leave),
            Some(gso) => {
                for mut segment in gso.segments(packet) {
                    let segment = Arrival { checksum_trusted: true, ..Arrival::new(&mut segment, interface) };
                    self.receive_one(segment, now, watch, leave);
                }
            }
        }
    }

    fn receive_one<W: Watch>(
        &mut self,
        arrival: Arrival<'_>,
        now: Time,
        watch: &mut W,
        leave: &mut impl FnMut(Departure<'_>),
    ) {
        let Arrival { packet, interface, checksum_trusted, gso } = arrival;
        if W::WATCHES {
            self.arrived.clear();
            self.arrived.extend_from_slice(packet);
        }
        let len = packet.len();
        self.statistics.received.count(len);
        let offload = Offload { checksum_trusted, segment: gso.map(|gso| gso.segment() as u32) };
        let ruling = self.engine.receive_offloaded((packet, len), offload, (Some(interface), now), watch.sink());
        self.account(&ruling);
        match gso {
            None => self.leave(&ruling, packet, self.may_join(&ruling, checksum_trusted), leave),
            Some(gso) => self.leave_together(&ruling, packet, gso, leave),
        }
        if W::WATCHES {
            watch.ruled(&Ruled {
                interface: Some(interface),
                arrived: ruling.arrived(&self.arrived),
                now: self.engine.departed(&ruling, packet),
                ruling: &ruling,
                engine: &self.engine,
                time: now,
            });
        }
        // Of several segments the first stands for all.
        let first = gso.and_then(|gso| gso.segments(self.engine.departed(&ruling, packet)).next());
        if let Some(said) = self.say(&ruling, first.as_deref(), (packet, interface), now) {
            self.send(said, now, watch, leave);
        }
    }

    /// Is there a link that takes no packets of this length?
    fn is_too_long(&self, length: usize) -> bool {
        self.engine.network.interfaces.iter().any(|interface| interface.mtu.is_some_and(|mtu| length > mtu as usize))
    }

    /// Every packet is in one count.
    fn account(&mut self, ruling: &Ruling) {
        let statistics = &mut self.statistics;
        match (ruling.verdict, ruling.ctinfo, ruling.egress) {
            (Verdict::Drop(cause), ..) => count(&mut statistics.ended, cause.code()),
            (Verdict::Accept, Err(Unseen::Fragment(_)), _) => statistics.waited += 1,
            (Verdict::Accept, Err(unseen), _) => count(&mut statistics.ended, unseen.code()),
            (Verdict::Accept, Ok(_), Egress::Forwarded(Some(_))) => statistics.forwarded += 1,
            (Verdict::Accept, Ok(_), Egress::Local) => statistics.local += 1,
            (Verdict::Accept, Ok(_), Egress::Forwarded(None) | Egress::Nowhere) => {
                count(&mut statistics.ended, DropCause::NoRoute.code());
            }
        }
    }

    /// See [`Departure::may_join`].
    fn may_join(&self, ruling: &Ruling, checksum_trusted: bool) -> bool {
        matches!(ruling.ctinfo, Ok(CtInfo::Established | CtInfo::EstablishedReply))
            && (checksum_trusted || self.engine.conntrack.sysctls.checksum)
            && ruling.datagram.is_none()
            && ruling.cut.is_none()
    }

    fn leave(&mut self, ruling: &Ruling, packet: &[u8], may_join: bool, leave: &mut impl FnMut(Departure<'_>)) {
        let Egress::Forwarded(Some(interface)) = ruling.egress else { return };
        for packet in self.engine.leaving(ruling, packet) {
            self.statistics.sent.count(packet.len());
            leave(Departure { packet: &packet, interface, gso: None, may_join });
        }
    }

    /// Several segments leave in one packet, unless a helper has changed their length.
    fn leave_together(&mut self, ruling: &Ruling, packet: &mut [u8], gso: Gso, leave: &mut impl FnMut(Departure<'_>)) {
        let Egress::Forwarded(Some(interface)) = ruling.egress else { return };
        if ruling.resized.is_none() {
            gso.leave_checksum(packet);
            self.statistics.sent.count(packet.len());
            leave(Departure { packet, interface, gso: Some(gso), may_join: false });
            return;
        }
        for packet in gso.segments(self.engine.departed(ruling, packet)) {
            self.statistics.sent.count(packet.len());
            leave(Departure { packet: &packet, interface, gso: None, may_join: false });
        }
    }

    /// What this host has to say because of what was decided about a packet.
    fn say(
        &mut self,
        ruling: &Ruling,
        segment: Option<&[u8]>,
        (packet, interface): (&[u8], u16),
        now: Time,
    ) -> Option<Said> {
        let Router { engine, limits, statistics, identifications, .. } = self;
        let packet = segment.unwrap_or_else(|| engine.departed(ruling, packet));
        let packet = Packet::parse(packet, packet.len()).ok()?;
        let words = &mut statistics.words;
        let interface = Some(interface);
        let mut voice = Voice { engine, routes: Routes::Own, limits, words, identifications, interface, now };
        match ruling.verdict {
            // What was delivered has lost its entry on the way to the socket (ICMP-LOC-04, ICMP-LOC-06).
            Verdict::Accept if ruling.egress == Egress::Local => voice.reply(&packet),
            Verdict::Accept => None,
            Verdict::Drop(cause) => Some(Said { trigger: ruling.tracked(), ..voice.object(&packet, cause)? }),
        }
    }

    /// Ends the datagrams that have waited too long for their fragments, and tells those who sent them. To be called when
    /// [`Router::deadline`] has come.
    pub fn end_overdue<W: Watch>(&mut self, now: Time, watch: &mut W, leave: &mut impl FnMut(Departure<'_>)) {
        while let Some(overdue) = self.engine.defrag.overdue(now) {
            self.statistics.overdue += 1;
            let Some(first) = overdue.first.filter(|_| !overdue.own) else { continue };
            let Ok(packet) = Packet::parse(&first, first.len()) else { continue };
            let Router { engine, limits, statistics, identifications, .. } = self;
            // A router tells nobody, only the host that the datagram was for. For IPv6 conntrack does not ask.
            if packet.l3num == L3::V4 && engine.network.route(packet.l3num, packet.dst) != Destination::Local {
                continue;
            }
            let words = &mut statistics.words;
            let mut voice = Voice { engine, routes: Routes::Own, limits, words, identifications, interface: None, now };
            if let Some(said) = voice.complain(&packet, Complaint::ReassemblyTimeExceeded, false) {
                self.send(said, now, watch, leave);
            }
        }
    }

    /// When there is something to do without a packet; `None` when nothing is awaited.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.engine.defrag.deadline()
    }

    /// LOCAL_OUT for a packet of this host.
    fn send<W: Watch>(&mut self, said: Said, now: Time, watch: &mut W, leave: &mut impl FnMut(Departure<'_>)) {
        let Said { bytes, what, trigger, is_summed_by_device } = said;
        for mut piece in self.cut(bytes) {
            if W::WATCHES {
                self.arrived.clear();
                self.arrived.extend_from_slice(&piece);
            }
            let ruling = self.engine.send(&mut piece, trigger.as_ref(), now, watch.sink());
            if is_summed_by_device {
                local::sum_by_device(&mut piece);
            }
            match (ruling.verdict, ruling.ctinfo, ruling.egress) {
                (Verdict::Accept, Err(Unseen::Fragment(_)), _) => {}
                (Verdict::Accept, _, Egress::Forwarded(Some(_))) => count(&mut self.statistics.words.said, what),
                (Verdict::Accept, ..) => count(&mut self.statistics.words.unsaid, "output.to_itself"),
                (Verdict::Drop(cause), ..) => count(&mut self.statistics.words.unsaid, cause.code()),
            }
            self.leave(&ruling, &piece, false, leave);
            if W::WATCHES {
                watch.ruled(&Ruled {
                    interface: None,
                    arrived: ruling.arrived(&self.arrived),
                    now: self.engine.departed(&ruling, &piece),
                    ruling: &ruling,
                    engine: &self.engine,
                    time: now,
                });
            }
        }
    }

    /// A packet of this host in the pieces in which it comes to LOCAL_OUT: in IPv6 its source cuts what is too long for the
    /// first link (`ip6_append_data`); in IPv4 that happens behind the hooks.
    fn cut(&mut self, packet: Vec<u8>) -> Vec<Vec<u8>> {
        let network = &self.engine.network;
        let mtu =
            Packet::parse(&packet, packet.len()).ok().filter(|packet| packet.l3num == L3::V6).and_then(|packet| {
                let Destination::Interface(out) = network.route(L3::V6, packet.dst) else { return None };
                network.interface(out)?.mtu.map(|mtu| mtu.max(IPV6_MIN_MTU))
            });
        match mtu {
            Some(mtu) if packet.len() > mtu as usize => {
                let id = u32::from(self.identifications.next_u16()) << 16 | u32::from(self.identifications.next_u16());
                answer::fragments(&packet, mtu as usize, id)
            }
            _ => vec![packet],
        }
    }
}
