//! What kind of NAT shows such evidence, and how sure that is.
//!
//! Each thing that was looked at speaks for a NAT that rewrites packets, or for one made of sockets, with a weight: a
//! sequence number that nobody can guess weighs more than a TTL. What is undecided stays so: too little evidence, or
//! evidence that contradicts itself, is an answer of its own.

use std::fmt::{self, Display, Formatter};

use ctwhy_core::tuple::L3;

use crate::evidence::{Evidence, Outcome, Promptness, TtlOutcome, identity};
use crate::observe::Protocol;

/// What lies between the two captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// It rewrites packets.
    PacketNat,
    /// It passes packets on and translates nothing.
    Router,
    /// It ends each flow in a socket of its own and begins another one.
    SocketProxy,
    /// Not all protocols alike.
    Mixed,
    /// The evidence does not say.
    Undetermined,
}

impl Kind {
    /// As people say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::PacketNat => "packet NAT",
            Kind::Router => "no NAT",
            Kind::SocketProxy => "socket proxy",
            Kind::Mixed => "mixed",
            Kind::Undetermined => "undetermined",
        }
    }

    /// The stable code, as in `--json`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Kind::PacketNat => "packet_nat",
            Kind::Router => "router",
            Kind::SocketProxy => "socket_proxy",
            Kind::Mixed => "mixed",
            Kind::Undetermined => "undetermined",
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Confidence {
    /// There is none.
    None,
    /// It may be otherwise.
    Low,
    /// Few other things would look like that.
    Medium,
    /// Several things that have nothing to do with each other say it, and hardly anything else.
    High,
}

impl Confidence {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Confidence::None => "none",
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        }
    }
}

impl Display for Confidence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something that speaks for one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What it speaks for.
    pub kind: Kind,
    /// How much.
    pub weight: u32,
    /// What it is.
    pub what: What,
}

/// What can speak for a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `Display` says them.
pub enum What {
    IdKept { packets: u64 },
    IdNew { packets: u64 },
    LabelKept { packets: u64 },
    LabelNew { packets: u64 },
    TtlDecremented { by: u8 },
    TtlSet { to: u8 },
    BackTtlDecremented { by: u8 },
    BackTtlSet { to: u8 },
    TosKept,
    TosLost { from: u32, to: u32 },
    IsnKept { flows: u64 },
    IsnNew { flows: u64 },
    FarIsnKept { flows: u64 },
    FarIsnNew { flows: u64 },
    OptionsKept,
    OptionsNew,
    WindowKept,
    WindowNew { from: u32, to: u32 },
    TimestampsKept { packets: u64 },
    TimestampsNew { packets: u64 },
    SameSegments,
    OtherSegments,
    AnsweredEarly { near_ns: u64, far_ns: u64 },
    AcknowledgedEarly { near_ns: u64, far_ns: u64 },
    ChecksumLeftOut,
    ChecksumMade,
}

impl Display for What {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        match *self {
            What::IdKept { packets } => write!(f, "the IPID of {} was kept", Packets(packets)),
            What::IdNew { packets } => write!(f, "{} left with another IPID than they came with", Packets(packets)),
            What::LabelKept { packets } => write!(f, "the flow label of {} was kept", Packets(packets)),
            What::LabelNew { packets } => {
                write!(f, "{} left with another flow label than they came with", Packets(packets))
            }
            What::TtlDecremented { by } => write!(f, "the TTL of packets going out is {by} less behind it"),
            What::TtlSet { to } => {
                write!(f, "packets going out have a TTL of {to} behind it, whatever they had before")
            }
            What::BackTtlDecremented { by } => write!(f, "the TTL of packets coming back is {by} less behind it"),
            What::BackTtlSet { to } => {
                write!(f, "packets coming back have a TTL of {to} inside, whatever they had outside")
            }
            What::TosKept => f.write_str("the TOS was kept"),
            What::TosLost { from, to } => write!(f, "the TOS was lost: {from:#04x} became {to:#04x}"),
            What::IsnKept { flows } => write!(f, "the client's initial sequence number was kept in {}", Flows(flows)),
            What::IsnNew { flows } => {
                write!(f, "{} left with another initial sequence number than the client's", Flows(flows))
            }
            What::FarIsnKept { flows } => {
                write!(f, "the server's initial sequence number was kept in {}", Flows(flows))
            }
            What::FarIsnNew { flows } => {
                write!(f, "the client got another initial sequence number than the server's in {}", Flows(flows))
            }
            What::OptionsKept => f.write_str("the TCP options came through in their order"),
            What::OptionsNew => f.write_str("the SYN's TCP options are others behind it"),
            What::WindowKept => f.write_str("the window of the SYN was kept"),
            What::WindowNew { from, to } => write!(f, "the SYN's window became another: {from} => {to}"),
            What::TimestampsKept { packets } => write!(f, "the TCP timestamps of {} were kept", Packets(packets)),
            What::TimestampsNew { packets } => {
                write!(f, "the same bytes have other TCP timestamps behind it ({})", Packets(packets))
            }
            What::SameSegments => f.write_str("the stream is cut into the same segments on both sides"),
            What::OtherSegments => f.write_str("the same bytes are cut into other segments behind it"),
            What::AnsweredEarly { near_ns, far_ns } => write!(
                f,
                "a SYN was answered after {:.1} ms at the side it came from, when the other side took {:.1} ms",
                ms(near_ns),
                ms(far_ns)
            ),
            What::AcknowledgedEarly { near_ns, far_ns } => write!(
                f,
                "data was acknowledged after {:.1} ms at the side it came from, when the other side took {:.1} ms",
                ms(near_ns),
                ms(far_ns)
            ),
            What::ChecksumLeftOut => f.write_str("UDP without a checksum stays without"),
            What::ChecksumMade => f.write_str("UDP without a checksum got one"),
        }
    }
}

struct Packets(u64);

impl Display for Packets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} packet{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

struct Flows(u64);

impl Display for Flows {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} connection{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// What was found out about one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is.
    pub kind: Kind,
    /// How sure.
    pub confidence: Confidence,
    /// Everything that speaks for something, the weightiest first.
    pub reasons: Vec<Reason>,
}

/// Less than this much evidence says nothing.
const ENOUGH: u32 = 3;

/// Weighs the evidence about a protocol; `translated` says whether addresses or ports became others.
pub(crate) fn weigh(evidence: &Evidence, protocol: Protocol, l3num: L3, translated: bool) -> Verdict {
    let packet_kind = if translated { Kind::PacketNat } else { Kind::Router };
    let mut reasons: Vec<Reason> = Vec::new();
    let mut add = |is_packet: bool, weight: u32, what: What| {
        let kind = if is_packet { packet_kind } else { Kind::SocketProxy };
        reasons.push(Reason { kind, weight, what });
    };
    let identity = identity(evidence, l3num);
    let several = identity.total() >= 3;
    let v4 = l3num == L3::V4;
    match identity.outcome() {
        Outcome::Kept => {
            let packets = identity.kept;
            let what = if v4 { What::IdKept { packets } } else { What::LabelKept { packets } };
            add(true, if several { 4 } else { 1 }, what);
        }
        Outcome::Changed => {
            let packets = identity.changed;
            let what = if v4 { What::IdNew { packets } } else { What::LabelNew { packets } };
            add(false, if several { 3 } else { 1 }, what);
        }
        Outcome::Both | Outcome::Unseen => {}
    }
    match evidence.ttl_out.outcome() {
        TtlOutcome::Decremented(by) => add(true, 1, What::TtlDecremented { by }),
        TtlOutcome::Set(to) => add(false, 2, What::TtlSet { to }),
        _ => {}
    }
    match evidence.ttl_back.outcome() {
        TtlOutcome::Decremented(by) => add(true, 2, What::BackTtlDecremented { by }),
        TtlOutcome::Set(to) => add(false, 3, What::BackTtlSet { to }),
        _ => {}
    }
    match (evidence.tos.outcome(), evidence.tos.example) {
        (Outcome::Kept, _) => add(true, 1, What::TosKept),
        (Outcome::Changed, Some((from, to))) => add(false, 1, What::TosLost { from, to }),
        _ => {}
    }
    match protocol {
        Protocol::Tcp => weigh_tcp(evidence, &mut add),
        Protocol::Udp => match evidence.no_checksum.outcome() {
            Outcome::Kept => add(true, 1, What::ChecksumLeftOut),
            Outcome::Changed => add(false, 1, What::ChecksumMade),
            _ => {}
        },
        Protocol::Echo => {}
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.weight));
    conclude(reasons, packet_kind, evidence)
}

fn weigh_tcp(evidence: &Evidence, add: &mut impl FnMut(bool, u32, What)) {
    match evidence.isn_out.outcome() {
        Outcome::Kept => add(true, 4, What::IsnKept { flows: evidence.isn_out.kept }),
        Outcome::Changed => add(false, 3, What::IsnNew { flows: evidence.isn_out.changed }),
        _ => {}
    }
    match evidence.isn_back.outcome() {
        Outcome::Kept => add(true, 4, What::FarIsnKept { flows: evidence.isn_back.kept }),
        Outcome::Changed => add(false, 3, What::FarIsnNew { flows: evidence.isn_back.changed }),
        _ => {}
    }
    match evidence.timestamps.outcome() {
        Outcome::Kept => add(true, 3, What::TimestampsKept { packets: evidence.timestamps.kept }),
        Outcome::Changed => add(false, 2, What::TimestampsNew { packets: evidence.timestamps.changed }),
        _ => {}
    }
    match evidence.options.outcome() {
        Outcome::Kept => add(true, 1, What::OptionsKept),
        Outcome::Changed => add(false, 2, What::OptionsNew),
        _ => {}
    }
    match (evidence.window.outcome(), evidence.window.example) {
        (Outcome::Kept, _) => add(true, 1, What::WindowKept),
        (Outcome::Changed, Some((from, to))) => add(false, 1, What::WindowNew { from, to }),
        _ => {}
    }
    if !evidence.offload && evidence.segments.total() >= 4 {
        match evidence.segments.outcome() {
            Outcome::Kept => add(true, 1, What::SameSegments),
            Outcome::Changed => add(false, 1, What::OtherSegments),
            _ => {}
        }
    }
    // One alone may be a packet that only one capture lacks.
    let weight = |prompt: &Promptness| if prompt.early > 1 { 4 } else { 2 };
    let told = |prompt: &Promptness| prompt.example.filter(|_| prompt.early > prompt.late);
    if let Some((near_ns, far_ns)) = told(&evidence.handshake) {
        add(false, weight(&evidence.handshake), What::AnsweredEarly { near_ns, far_ns });
    }
    if let Some((near_ns, far_ns)) = told(&evidence.acknowledged) {
        add(false, weight(&evidence.acknowledged), What::AcknowledgedEarly { near_ns, far_ns });
    }
}

fn conclude(reasons: Vec<Reason>, packet_kind: Kind, evidence: &Evidence) -> Verdict {
    let sum = |kind: Kind| reasons.iter().filter(|reason| reason.kind == kind).map(|reason| reason.weight).sum::<u32>();
    let (packet, socket) = (sum(packet_kind), sum(Kind::SocketProxy));
    let all = packet + socket;
    let (kind, winner) = if packet >= socket { (packet_kind, packet) } else { (Kind::SocketProxy, socket) };
    if all < ENOUGH || winner * 4 < all * 3 {
        return Verdict { kind: Kind::Undetermined, confidence: Confidence::None, reasons };
    }
    let facts = reasons.iter().filter(|reason| reason.kind == kind).count();
    let confidence = match winner {
        _ if evidence.weak == evidence.flows => Confidence::Low,
        5.. if winner * 100 >= all * 85 && facts >= 2 => Confidence::High,
        4.. => Confidence::Medium,
        _ => Confidence::Low,
    };
    Verdict { kind, confidence, reasons }
}

/// What a NAT is, of which some protocols were judged.
pub(crate) fn overall(verdicts: &[Verdict]) -> (Kind, Confidence) {
    let decided = || verdicts.iter().filter(|verdict| verdict.kind != Kind::Undetermined);
    let Some(first) = decided().next() else { return (Kind::Undetermined, Confidence::None) };
    let kind = if decided().all(|verdict| verdict.kind == first.kind) { first.kind } else { Kind::Mixed };
    (kind, decided().map(|verdict| verdict.confidence).min().unwrap_or(Confidence::None))
}
