//! The state table as data, in the kernel's own shape (SCTP-05).

use core::fmt;

use super::chunk::{ChunkType, Row};
use crate::direction::Direction;
use crate::sysctl::Sysctls;

/// The state of an SCTP entry (`enum sctp_conntrack`), with the numbers of `CTA_PROTOINFO_SCTP_STATE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SctpState {
    /// Nothing yet: the entry is being created.
    #[default]
    None = 0,
    /// An INIT was seen, or the association is over.
    Closed = 1,
    /// An INIT ACK was seen.
    CookieWait = 2,
    /// A COOKIE ECHO was seen.
    CookieEchoed = 3,
    /// A COOKIE ACK was seen, or both sides exchanged a heartbeat.
    Established = 4,
    /// A SHUTDOWN in original direction was seen.
    ShutdownSent = 5,
    /// A SHUTDOWN in reply direction was seen.
    ShutdownRecd = 6,
    /// A SHUTDOWN ACK was seen.
    ShutdownAckSent = 7,
    /// The first packet was a HEARTBEAT: another path of an association that is known elsewhere.
    HeartbeatSent = 8,
}

impl SctpState {
    /// Every state in the order of its number, which is the order of the columns of [`TRANSITIONS`].
    pub const ALL: [SctpState; 9] = [
        SctpState::None,
        SctpState::Closed,
        SctpState::CookieWait,
        SctpState::CookieEchoed,
        SctpState::Established,
        SctpState::ShutdownSent,
        SctpState::ShutdownRecd,
        SctpState::ShutdownAckSent,
        SctpState::HeartbeatSent,
    ];

    /// The name, as `conntrack -L` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SctpState::None => "NONE",
            SctpState::Closed => "CLOSED",
            SctpState::CookieWait => "COOKIE_WAIT",
            SctpState::CookieEchoed => "COOKIE_ECHOED",
            SctpState::Established => "ESTABLISHED",
            SctpState::ShutdownSent => "SHUTDOWN_SENT",
            SctpState::ShutdownRecd => "SHUTDOWN_RECD",
            SctpState::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            SctpState::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }

    /// The number in `CTA_PROTOINFO_SCTP_STATE`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The state of that number; `None` when the kernel has no such state.
    #[must_use]
    pub fn from_number(number: u8) -> Option<SctpState> {
        SctpState::ALL.get(usize::from(number)).copied()
    }

    /// Seconds that an entry in this state lives.
    #[must_use]
    pub const fn timeout(self, sysctls: &Sysctls) -> u32 {
        match self {
            // Only an entry that a program wrote into the kernel can be in it; no sysctl is about it.
            SctpState::None => 10,
            SctpState::Closed => sysctls.sctp_timeout_closed,
            SctpState::CookieWait => sysctls.sctp_timeout_cookie_wait,
            SctpState::CookieEchoed => sysctls.sctp_timeout_cookie_echoed,
            SctpState::Established => sysctls.sctp_timeout_established,
            SctpState::ShutdownSent => sysctls.sctp_timeout_shutdown_sent,
            SctpState::ShutdownRecd => sysctls.sctp_timeout_shutdown_recd,
            SctpState::ShutdownAckSent => sysctls.sctp_timeout_shutdown_ack_sent,
            SctpState::HeartbeatSent => sysctls.sctp_timeout_heartbeat_sent,
        }
    }
}

impl fmt::Display for SctpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One cell of the state table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// The state to go to.
    To(SctpState),
    /// `SCTP_CONNTRACK_MAX`: INVALID.
    Invalid,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cell::To(state) => state.name(),
            Cell::Invalid => "invalid",
        })
    }
}

const CL: Cell = Cell::To(SctpState::Closed);
const CW: Cell = Cell::To(SctpState::CookieWait);
const CE: Cell = Cell::To(SctpState::CookieEchoed);
const ES: Cell = Cell::To(SctpState::Established);
const SS: Cell = Cell::To(SctpState::ShutdownSent);
const SR: Cell = Cell::To(SctpState::ShutdownRecd);
const SA: Cell = Cell::To(SctpState::ShutdownAckSent);
const HS: Cell = Cell::To(SctpState::HeartbeatSent);
const IV: Cell = Cell::Invalid;

/// `sctp_conntracks`: the next state by direction, type of the chunk and present state (RFC 9260 section 4 seen from
/// the middle of the path).
///
/// It follows the client that sends INIT in original direction. What comes in another order keeps the state and lets
/// the entry run out.
#[rustfmt::skip]
pub const TRANSITIONS: [[[Cell; 9]; 11]; 2] = [
    [
        // original            NONE CL  CW  CE  ES  SS  SR  SA  HS
        /* INIT              */ [CL, CL, CW, CE, ES, CL, CL, SA, CW],
        /* INIT ACK          */ [CL, CL, CW, CE, ES, SS, SR, SA, CL],
        /* ABORT             */ [CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* SHUTDOWN          */ [CL, CL, CW, CE, SS, SS, SR, SA, CL],
        /* SHUTDOWN ACK      */ [SA, CL, CW, CE, ES, SA, SA, SA, SA],
        /* ERROR             */ [CL, CL, CW, CE, ES, SS, SR, SA, CL],
        /* COOKIE ECHO       */ [CL, CL, CE, CE, ES, SS, SR, SA, CL],
        /* COOKIE ACK        */ [CL, CL, CW, ES, ES, SS, SR, SA, CL],
        /* SHUTDOWN COMPLETE */ [CL, CL, CW, CE, ES, SS, SR, CL, CL],
        /* HEARTBEAT         */ [HS, CL, CW, CE, ES, SS, SR, SA, HS],
        /* HEARTBEAT ACK     */ [CL, CL, CW, CE, ES, SS, SR, SA, HS],
    ],
    [
        // reply               NONE CL  CW  CE  ES  SS  SR  SA  HS
        /* INIT              */ [IV, CL, CW, CE, ES, SS, SR, SA, IV],
        /* INIT ACK          */ [IV, CW, CW, CE, ES, SS, SR, SA, IV],
        /* ABORT             */ [IV, CL, CL, CL, CL, CL, CL, CL, IV],
        /* SHUTDOWN          */ [IV, CL, CW, CE, SR, SS, SR, SA, IV],
        /* SHUTDOWN ACK      */ [IV, CL, CW, CE, ES, SA, SA, SA, IV],
        /* ERROR             */ [IV, CL, CW, CL, ES, SS, SR, SA, IV],
        /* COOKIE ECHO       */ [IV, CL, CE, CE, ES, SS, SR, SA, IV],
        /* COOKIE ACK        */ [IV, CL, CW, ES, ES, SS, SR, SA, IV],
        /* SHUTDOWN COMPLETE */ [IV, CL, CW, CE, ES, SS, SR, CL, IV],
        /* HEARTBEAT         */ [IV, CL, CW, CE, ES, SS, SR, SA, HS],
        /* HEARTBEAT ACK     */ [IV, CL, CW, CE, ES, SS, SR, SA, ES],
    ],
];

/// `sctp_new_state`: where a chunk leads. Types without a row, such as DATA and SACK, keep the state.
#[must_use]
pub const fn transition(direction: Direction, kind: ChunkType, state: SctpState) -> Cell {
    match Row::of(kind) {
        Some(row) => TRANSITIONS[direction.index()][row as usize][state as usize],
        None => Cell::To(state),
    }
}
