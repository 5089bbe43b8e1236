//! The state table as data, in the kernel's own shape (catalogue E.4).

use core::fmt;

use super::segment::Index;
use crate::direction::Direction;

/// The state of a TCP entry (`enum tcp_conntrack`), with the numbers of `CTA_PROTOINFO_TCP_STATE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing yet: the entry is being created.
    #[default]
    None = 0,
    /// A SYN in original direction was seen.
    SynSent = 1,
    /// A SYN/ACK was seen.
    SynRecv = 2,
    /// The ACK of the SYN/ACK was seen, or the entry was picked up in the middle of a connection.
    Established = 3,
    /// One FIN was seen.
    FinWait = 4,
    /// An ACK was seen after the FIN, whatever it acknowledged.
    CloseWait = 5,
    /// A second FIN was seen, or the first one again.
    LastAck = 6,
    /// An ACK was seen after that.
    TimeWait = 7,
    /// An RST was seen.
    Close = 8,
    /// SYNs in both directions were seen: simultaneous open.
    SynSent2 = 9,
}

impl TcpState {
    /// Every state in the order of its number, which is the order of the columns of [`TRANSITIONS`].
    pub const ALL: [TcpState; 10] = [
        TcpState::None,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::Established,
        TcpState::FinWait,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::TimeWait,
        TcpState::Close,
        TcpState::SynSent2,
    ];

    /// The name, as `conntrack -L` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TcpState::None => "NONE",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
            TcpState::SynSent2 => "SYN_SENT2",
        }
    }

    /// The number in `CTA_PROTOINFO_TCP_STATE`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The state of that number; `None` when the kernel has no such state.
    #[must_use]
    pub fn from_number(number: u8) -> Option<TcpState> {
        TcpState::ALL.get(usize::from(number)).copied()
    }

    /// `tcp_can_early_drop`: is the connection on its way out?
    #[must_use]
    pub const fn is_closing(self) -> bool {
        matches!(
            self,
            TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck | TcpState::TimeWait | TcpState::Close
        )
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One cell of the state table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// The state to go to, if the special rules and the window check let it.
    To(TcpState),
    /// `TCP_CONNTRACK_IGNORE`: let the packet pass and leave the entry as it is.
    Ignore,
    /// `TCP_CONNTRACK_MAX`: INVALID.
    Invalid,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cell::To(state) => state.name(),
            Cell::Ignore => "ignore",
            Cell::Invalid => "invalid",
        })
    }
}

const SS: Cell = Cell::To(TcpState::SynSent);
const SR: Cell = Cell::To(TcpState::SynRecv);
const ES: Cell = Cell::To(TcpState::Established);
const FW: Cell = Cell::To(TcpState::FinWait);
const CW: Cell = Cell::To(TcpState::CloseWait);
const LA: Cell = Cell::To(TcpState::LastAck);
const TW: Cell = Cell::To(TcpState::TimeWait);
const CL: Cell = Cell::To(TcpState::Close);
const S2: Cell = Cell::To(TcpState::SynSent2);
const IG: Cell = Cell::Ignore;
const IV: Cell = Cell::Invalid;

/// `tcp_conntracks`: the next state by direction, index of the packet and present state (RFC 9293 seen from the
/// middle of the path).
///
/// A firewall sees what one side sent, not what the other received. So a packet that either side could still answer
/// sensibly is let through (`ignore`) and the answer decides; only what neither side can have meant is invalid.
#[rustfmt::skip]
pub const TRANSITIONS: [[[Cell; 10]; 6]; 2] = [
    [
        // original  NONE SS  SR  ES  FW  CW  LA  TW  CL  S2
        /* SYN    */ [SS, SS, IG, IG, IG, IG, IG, SS, SS, S2],
        /* SYNACK */ [IV, IV, SR, IV, IV, IV, IV, IV, IV, SR],
        /* FIN    */ [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        /* ACK    */ [ES, IV, ES, ES, CW, CW, TW, TW, CL, IV],
        /* RST    */ [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* NONE   */ [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV],
    ],
    [
        // reply     NONE SS  SR  ES  FW  CW  LA  TW  CL  S2
        /* SYN    */ [IV, S2, IV, IV, IV, IV, IV, SS, IV, S2],
        /* SYNACK */ [IV, SR, IG, IG, IG, IG, IG, IG, IG, SR],
        /* FIN    */ [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        /* ACK    */ [IV, IG, SR, ES, CW, CW, TW, TW, CL, IG],
        /* RST    */ [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* NONE   */ [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV],
    ],
];

/// The cell of [`TRANSITIONS`] for a packet.
#[must_use]
pub const fn transition(direction: Direction, index: Index, state: TcpState) -> Cell {
    TRANSITIONS[direction.index()][index as usize][state as usize]
}
