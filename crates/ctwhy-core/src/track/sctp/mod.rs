//! SCTP (`nf_conntrack_proto_sctp.c`; SCTP-01 to SCTP-08).
//!
//! A packet meets the files in this order: [`chunk`] reads header and chunks, then each chunk by itself meets the rule
//! about its verification tag and [`table`], which says where the state goes. [`trace`] is what is told about it.
//!
//! Chunks take effect one by one: when a later one is refused the packet is INVALID, and what the earlier ones did to
//! the entry stays.

pub mod chunk;
pub mod table;
pub mod trace;

pub use chunk::{ChunkType, Row, SctpPacket, check};
pub use table::{Cell, SctpState, TRANSITIONS};
pub use trace::{HeartbeatCause, SctpReason, SctpStep};

use crate::direction::Direction;
use crate::reason::Reason;
use crate::status::Status;
use crate::trace::{Sink, Step};
use crate::track::{Context, Outcome};
use chunk::Chunk;

/// The SCTP part of an entry (`struct ip_ct_sctp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sctp {
    /// The tag that packets of each direction carry, by [`Direction::index`]; 0 while it is not known.
    vtag: [u32; 2],
    /// Did each side send an INIT that no COOKIE ACK has settled?
    init: [bool; 2],
    state: SctpState,
    /// The side that last sent a heartbeat with another tag than its own, until heartbeats agree again.
    heartbeat_failed: Option<Direction>,
}

/// A packet of an entry with what the rules ask about it.
struct Case<'a, 'b> {
    packet: &'a SctpPacket<'b>,
    direction: Direction,
    /// An earlier chunk of the packet said that it shall pass without effect on the timeout.
    ignore: bool,
}

impl Sctp {
    /// `sctp_new`: begins an entry with the packet that created it. The same packet goes through [`Sctp::packet`] next.
    ///
    /// # Errors
    /// A [`Reason::Sctp`] when such a packet does not begin an association (SCTP-03).
    pub fn new<S: Sink>(packet: &SctpPacket<'_>, sink: &mut S) -> Result<Sctp, Reason> {
        tell(sink, || SctpStep::Header { vtag: packet.vtag, chunks: packet.count });
        const ENDS: [ChunkType; 3] = [ChunkType::ABORT, ChunkType::SHUTDOWN_COMPLETE, ChunkType::COOKIE_ACK];
        if let Some(kind) = ENDS.into_iter().find(|kind| packet.seen.has(*kind)) {
            return Err(Reason::Sctp(SctpReason::BeginsNothing { kind }));
        }
        let mut sctp = Sctp::default();
        for chunk in packet.chunks() {
            let kind = chunk.kind;
            match table::transition(Direction::Original, kind, SctpState::None) {
                Cell::Invalid | Cell::To(SctpState::None) => {
                    return Err(Reason::Sctp(SctpReason::BeginsNothing { kind }));
                }
                Cell::To(_) => {}
            }
            match kind {
                ChunkType::INIT if packet.vtag != 0 => {
                    return Err(Reason::Sctp(SctpReason::InitTag { vtag: packet.vtag }));
                }
                ChunkType::INIT => sctp.learn(Direction::Reply, chunk.init_tag().map_err(Reason::Sctp)?, kind, sink),
                ChunkType::HEARTBEAT => sctp.learn(Direction::Original, packet.vtag, kind, sink),
                // Of an association that is over: it will be answered with the same tag and the T bit.
                ChunkType::SHUTDOWN_ACK => sctp.learn(Direction::Reply, packet.vtag, kind, sink),
                _ => {}
            }
        }
        Ok(sctp)
    }

    /// What can be known of an entry that the kernel made: state and tags as ctnetlink shows them, by
    /// [`Direction::index`].
    #[must_use]
    pub fn from_ctnetlink(state: SctpState, vtag: [u32; 2]) -> Sctp {
        // Not shown: who sent an INIT. Whoever is about to be answered did.
        let opening = matches!(state, SctpState::Closed | SctpState::CookieWait | SctpState::CookieEchoed);
        Sctp { vtag, init: [opening, false], state, ..Sctp::default() }
    }

    /// `nf_conntrack_sctp_packet`: decides about a packet of an entry, or of one that [`Sctp::new`] just began.
    ///
    /// `status` are the bits of the entry. ASSURED is set among them as soon as a chunk leads to ESTABLISHED, whatever
    /// becomes of the packet.
    pub fn packet<S: Sink>(
        &mut self,
        packet: &SctpPacket<'_>,
        direction: Direction,
        status: &mut Status,
        cx: &Context<'_>,
        sink: &mut S,
    ) -> Outcome {
        if status.contains(Status::CONFIRMED) {
            tell(sink, || SctpStep::Header { vtag: packet.vtag, chunks: packet.count });
        }
        match self.walk(&mut Case { packet, direction, ignore: false }, status, sink) {
            Err(reason) => Reason::Sctp(reason).into(),
            Ok(None) => Outcome::Ignore,
            Ok(Some(state)) => {
                let seconds = state.timeout(cx.sysctls);
                tell(sink, || SctpStep::Timeout { state, seconds });
                Outcome::Accept { timeout: seconds, assured: false, resync: false }
            }
        }
    }

    /// Every chunk in its turn. Returns the state that the last one led to; `None` when the packet is to pass without
    /// refreshing the entry.
    fn walk<S: Sink>(
        &mut self,
        case: &mut Case<'_, '_>,
        status: &mut Status,
        sink: &mut S,
    ) -> Result<Option<SctpState>, SctpReason> {
        /// Chunks that have a rule of their own about tags, or none.
        const EXCEPTIONS: [ChunkType; 7] = [
            ChunkType::INIT,
            ChunkType::SHUTDOWN_COMPLETE,
            ChunkType::COOKIE_ECHO,
            ChunkType::ABORT,
            ChunkType::SHUTDOWN_ACK,
            ChunkType::HEARTBEAT,
            ChunkType::HEARTBEAT_ACK,
        ];
        let (packet, direction) = (case.packet, case.direction);
        let (found, expected) = (packet.vtag, self.tag(direction));
        if found != expected && !EXCEPTIONS.iter().any(|kind| packet.seen.has(*kind)) {
            return Err(SctpReason::Tag { direction, found, expected });
        }

        let mut last = SctpState::None;
        for chunk in packet.chunks() {
            if !self.tag_fits(&chunk, case, sink)? {
                continue;
            }
            let (kind, old) = (chunk.kind, self.state);
            let cell = table::transition(direction, kind, old);
            tell(sink, || SctpStep::Lookup { direction, kind, state: old, cell });
            let Cell::To(new) = cell else {
                return Err(SctpReason::InvalidState { direction, kind, state: old });
            };
            match kind {
                ChunkType::INIT => self.init(&chunk, new, case, sink)?,
                ChunkType::INIT_ACK => self.init_ack(&chunk, direction, sink)?,
                _ => {}
            }
            self.set_state(new, sink);
            if old != new && new == SctpState::Established && !status.contains(Status::ASSURED) {
                *status |= Status::ASSURED;
                sink.step(|| Step::Assured);
            }
            last = new;
        }
        Ok((!case.ignore).then_some(last))
    }

    /// The rules about the verification tag that single chunks have (RFC 9260 section 8.5.1; SCTP-04). False when the
    /// chunk is to have no effect.
    fn tag_fits<S: Sink>(
        &mut self,
        chunk: &Chunk<'_>,
        case: &mut Case<'_, '_>,
        sink: &mut S,
    ) -> Result<bool, SctpReason> {
        let (kind, direction, found) = (chunk.kind, case.direction, case.packet.vtag);
        match kind {
            ChunkType::INIT if found != 0 => return Err(SctpReason::InitTag { vtag: found }),
            ChunkType::ABORT | ChunkType::SHUTDOWN_COMPLETE | ChunkType::COOKIE_ECHO => {
                let reflected = kind != ChunkType::COOKIE_ECHO && chunk.reflects_tag();
                let expected = self.tag(if reflected { direction.opposite() } else { direction });
                if found != expected {
                    return Err(SctpReason::ChunkTag { kind, reflected, found, expected });
                }
            }
            ChunkType::COOKIE_ACK => self.init = [false; 2],
            ChunkType::HEARTBEAT | ChunkType::HEARTBEAT_ACK => return self.heartbeat(kind, case, sink),
            _ => {}
        }
        Ok(true)
    }

    /// A heartbeat may show that the two ends agreed on new tags over another path; both must have shown it before they
    /// are believed (SCTP-08). False when the chunk is to have no effect.
    fn heartbeat<S: Sink>(
        &mut self,
        kind: ChunkType,
        case: &mut Case<'_, '_>,
        sink: &mut S,
    ) -> Result<bool, SctpReason> {
        let direction = case.direction;
        let (found, expected) = (case.packet.vtag, self.tag(direction));
        if expected == 0 {
            self.learn(direction, found, kind, sink);
            return Ok(true);
        }
        if found == expected {
            self.heartbeat_failed = None;
            return Ok(true);
        }
        let refuse = |cause| Err(SctpReason::HeartbeatTag { kind, found, expected, cause });
        if case.packet.seen.has(ChunkType::DATA) {
            return refuse(HeartbeatCause::WithData);
        }
        if case.ignore {
            return refuse(HeartbeatCause::NotFirst);
        }
        if kind == ChunkType::HEARTBEAT {
            self.heartbeat_failed = Some(direction);
            case.ignore = true;
            tell(sink, || SctpStep::HeartbeatUnknownTag { direction, found, expected });
            return Ok(false);
        }
        if self.heartbeat_failed != Some(direction.opposite()) {
            return refuse(HeartbeatCause::NotAsked);
        }
        self.heartbeat_failed = None;
        self.vtag[direction.index()] = found;
        self.vtag[direction.opposite().index()] = 0;
        tell(sink, || SctpStep::HeartbeatResync { direction, vtag: found });
        Ok(true)
    }

    /// An INIT announces the tag of the packets that go to its sender.
    fn init<S: Sink>(
        &mut self,
        chunk: &Chunk<'_>,
        new: SctpState,
        case: &mut Case<'_, '_>,
        sink: &mut S,
    ) -> Result<(), SctpReason> {
        let tag = chunk.init_tag()?;
        let (own, other) = (case.direction.index(), case.direction.opposite().index());
        // One that announces what is known already is an old one or a retransmission.
        if self.state == SctpState::None || self.vtag[other] != tag {
            if self.init == [true; 2] {
                self.init[other] = false;
            }
            self.init[own] = true;
            if self.init == [true; 2] {
                tell(sink, || SctpStep::InitCollision);
            }
        }
        self.learn(case.direction.opposite(), tag, chunk.kind, sink);
        // Whoever uses the ports again must not keep the entry alive for ever, its NAT binding included.
        if new == SctpState::Closed && self.state == SctpState::Closed {
            case.ignore = true;
            tell(sink, || SctpStep::InitAgain);
        }
        Ok(())
    }

    /// An INIT ACK announces the tag of the packets that go to its sender, unless that is known to be another one:
    /// then it belongs to an INIT that lost the collision (SCTP-07).
    fn init_ack<S: Sink>(&mut self, chunk: &Chunk<'_>, direction: Direction, sink: &mut S) -> Result<(), SctpReason> {
        let found = chunk.init_tag()?;
        let other = direction.opposite();
        let expected = self.tag(other);
        let conflicts = found != expected;
        let not_asked = !self.init[other.index()] && expected != 0;
        let collision = self.init == [true; 2];
        if conflicts && (not_asked || collision) {
            return Err(SctpReason::InitAckTag { found, expected });
        }
        self.learn(other, found, chunk.kind, sink);
        Ok(())
    }

    fn learn<S: Sink>(&mut self, direction: Direction, vtag: u32, kind: ChunkType, sink: &mut S) {
        let known = &mut self.vtag[direction.index()];
        if *known != vtag {
            *known = vtag;
            tell(sink, || SctpStep::TagLearnt { direction, vtag, kind });
        }
    }

    /// The only place where the state changes.
    fn set_state<S: Sink>(&mut self, new: SctpState, sink: &mut S) {
        let old = self.state;
        if old != new {
            self.state = new;
            tell(sink, || SctpStep::State { old, new });
        }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> SctpState {
        self.state
    }

    /// The tag that packets in `direction` carry; 0 while it is not known.
    #[must_use]
    pub const fn tag(&self, direction: Direction) -> u32 {
        self.vtag[direction.index()]
    }
}

/// Tells the sink a step of this tracker.
fn tell<S: Sink>(sink: &mut S, step: impl FnOnce() -> SctpStep) {
    sink.step(|| Step::Sctp(step()));
}
