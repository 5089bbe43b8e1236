//! TCP (`nf_conntrack_proto_tcp.c`; catalogue part E).
//!
//! A packet meets the files in this order: [`segment`] reads and checks the header, [`table`] says where the state
//! would go, `rules` are the exceptions to the table, [`window`] compares the numbers, `timeout` says how long the
//! entry lives. [`trace`] is what is told about it, and `adopt` takes over what a kernel tracked before.

mod adopt;
mod options;
mod rules;
pub mod segment;
pub mod table;
pub mod timeout;
pub mod trace;
pub mod window;

pub use options::MAX_WINDOW_SCALE;
pub use segment::{Index, Segment, check};
pub use table::{Cell, TRANSITIONS, TcpState};
pub use trace::{TcpReason, TcpStep};
pub use window::WindowCheck;

use crate::direction::Direction;
use crate::reason::Reason;
use crate::status::Status;
use crate::trace::{Sink, Step};
use crate::track::{Context, Outcome};
use options::SynOptions;
use rules::{Case, Next};
use segment::flag;
use trace::TimeoutCause;
use window::Window;

/// Flags of one side of an entry, as in `CTA_PROTOINFO_TCP_FLAGS_ORIGINAL` and `_REPLY`.
pub mod side_flag {
    /// This side offered window scaling.
    pub const WINDOW_SCALE: u8 = 0x01;
    /// This side permits SACK.
    pub const SACK_PERM: u8 = 0x02;
    /// This side sent the first FIN.
    pub const CLOSE_INIT: u8 = 0x04;
    /// A failed window check of this side's packets is forgiven.
    pub const BE_LIBERAL: u8 = 0x08;
    /// This side sent data that was not acknowledged yet.
    pub const DATA_UNACKNOWLEDGED: u8 = 0x10;
    /// What this side acknowledged is known.
    pub const MAXACK_SET: u8 = 0x20;
    /// A challenge ACK may come (only among the flags of the last packet).
    pub const EXP_CHALLENGE_ACK: u8 = 0x40;
    /// Simultaneous open (only among the flags of the last packet).
    pub const SIMULTANEOUS_OPEN: u8 = 0x80;
}

/// The numbers that bound what a side may send, for whoever wants to come near the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The highest end of what it sent.
    pub end: u32,
    /// The highest end that the other side allows it.
    pub maxend: u32,
    /// The largest window it announced, scaled; 0 when nothing is known of it.
    pub maxwin: u32,
    /// The highest acknowledgment it sent.
    pub maxack: u32,
}

/// What is known of one side (`struct ip_ct_tcp_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Side {
    /// The highest end of what it sent.
    td_end: u32,
    /// The highest end that the other side allows it.
    td_maxend: u32,
    /// The largest window it announced, scaled; 0 when nothing is known of it.
    td_maxwin: u32,
    /// The highest acknowledgment it sent; see [`side_flag::MAXACK_SET`].
    td_maxack: u32,
    /// The shift of its windows.
    td_scale: u8,
    /// [`side_flag`].
    flags: u8,
    /// Adopted from ctnetlink and silent since: the kernel knows its numbers, we do not.
    unheard: bool,
}

impl Side {
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Everything that a SYN says about its sender.
    fn start(&mut self, seg: &Segment<'_>) {
        self.td_end = seg.end();
        self.td_maxend = self.td_end;
        self.td_maxwin = u32::from(seg.window).max(1);
        if let Some(offered) = options::of_syn(seg) {
            self.td_scale = offered.window_scale.unwrap_or(0);
            self.flags = self.flags & side_flag::BE_LIBERAL | offered.flags();
        }
    }
}

impl SynOptions {
    fn flags(self) -> u8 {
        let scale = if self.window_scale.is_some() { side_flag::WINDOW_SCALE } else { 0 };
        let sack = if self.sack_permitted { side_flag::SACK_PERM } else { 0 };
        scale | sack
    }
}

/// The TCP part of an entry (`struct ip_ct_tcp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// By [`Direction::index`].
    sides: [Side; 2],
    state: TcpState,
    last_dir: Direction,
    last_index: Index,
    /// How often the same pure ACK came again.
    retrans: u8,
    last_seq: u32,
    last_ack: u32,
    last_end: u32,
    last_win: u16,
    last_wscale: u8,
    last_flags: u8,
}

// A table holds many of these.
const _: () = assert!(size_of::<Tcp>() <= 64);

impl Tcp {
    const NOTHING: Tcp = Tcp {
        sides: [Side { td_end: 0, td_maxend: 0, td_maxwin: 0, td_maxack: 0, td_scale: 0, flags: 0, unheard: false }; 2],
        state: TcpState::None,
        last_dir: Direction::Original,
        last_index: Index::None,
        retrans: 0,
        last_seq: 0,
        last_ack: 0,
        last_end: 0,
        last_win: 0,
        last_wscale: 0,
        last_flags: 0,
    };

    /// `tcp_new`: begins an entry with the packet that created it. The same packet goes through [`Tcp::packet`] next.
    ///
    /// # Errors
    /// A [`Reason::Tcp`] when such a packet does not begin an entry.
    pub fn new<S: Sink>(seg: &Segment<'_>, cx: &Context<'_>, sink: &mut S) -> Result<Tcp, Reason> {
        tell(sink, || header(seg));
        let index = seg.index();
        let mut tcp = Tcp::NOTHING;
        let side = tcp.side_mut(Direction::Original);
        match table::transition(Direction::Original, index, TcpState::None) {
            Cell::To(TcpState::SynSent) => {
                side.start(seg);
                let &mut Side { td_end, td_maxwin, td_scale, .. } = side;
                let scale = side.has(side_flag::WINDOW_SCALE).then_some(td_scale);
                let sack_permitted = side.has(side_flag::SACK_PERM);
                tell(sink, || TcpStep::NewSyn { td_end, td_maxwin, scale, sack_permitted });
            }
            Cell::To(_) if !cx.sysctls.tcp_loose => return Err(Reason::Tcp(TcpReason::LooseOff { index })),
            Cell::To(_) => {
                // The history is lost, the window scale with it: windows cannot be checked.
                side.td_end = seg.end();
                side.td_maxwin = u32::from(seg.window).max(1);
                side.td_maxend = side.td_end.wrapping_add(side.td_maxwin);
                let &mut Side { td_end, td_maxend, td_maxwin, .. } = side;
                tell(sink, || TcpStep::NewPickup { td_end, td_maxend, td_maxwin });
                for side in &mut tcp.sides {
                    side.flags = side_flag::SACK_PERM | side_flag::BE_LIBERAL;
                }
            }
            Cell::Ignore | Cell::Invalid => return Err(Reason::Tcp(TcpReason::InvalidNew { index })),
        }
        Ok(tcp)
    }

    /// `nf_conntrack_tcp_packet`: decides about a packet of an entry, or of one that [`Tcp::new`] just began.
    ///
    /// `status` are the bits of the entry before this packet, `remaining_secs` what is left of its timeout.
    pub fn packet<S: Sink>(
        &mut self,
        seg: &Segment<'_>,
        direction: Direction,
        status: Status,
        remaining_secs: u32,
        cx: &Context<'_>,
        sink: &mut S,
    ) -> Outcome {
        let state = self.state;
        if state != TcpState::None {
            tell(sink, || header(seg));
        }
        let index = seg.index();
        let cell = table::transition(direction, index, state);
        tell(sink, || TcpStep::Lookup { direction, index, state, cell });

        let case = Case { seg, direction, index, status, sysctls: cx.sysctls, kernel: cx.kernel };
        let (old, new) = match self.apply(cell, &case, sink) {
            Next::Done(outcome) => return outcome,
            Next::Unchecked { new } => (state, new),
            Next::Window { old, new } => match self.in_window(seg, direction, cx, sink) {
                Window::Accept => (old, new),
                Window::Ignore => return Outcome::Ignore,
                Window::Invalid(reason) => {
                    let lower_timeout = self.lower_timeout(&case, remaining_secs, sink);
                    return Outcome::Invalid { reason: Reason::Tcp(reason), lower_timeout };
                }
            },
        };
        self.last_index = index;
        self.last_dir = direction;
        self.set_state(new, sink);
        if new == TcpState::FinWait {
            self.side_mut(direction).flags |= side_flag::CLOSE_INIT;
            tell(sink, || TcpStep::CloseInitiated { direction });
        }
        self.accept(&case, (state, old), sink)
    }

    /// How long an accepted packet lets the entry live, and whether it becomes ASSURED (catalogue E.1, 8 to 10).
    /// `before` is the state that the entry had, `old` the one that the packet was taken to have found.
    fn accept<S: Sink>(&self, case: &Case<'_, '_>, (before, old): (TcpState, TcpState), sink: &mut S) -> Outcome {
        let Case { seg, index, status, sysctls, kernel, .. } = *case;
        let established = self.state == TcpState::Established;
        let (mut seconds, mut cause) = self.timeout(index, sysctls, kernel);
        let mut assured = false;
        if !status.contains(Status::SEEN_REPLY) {
            if seg.has(flag::RST) {
                tell(sink, || TcpStep::UnrepliedRst);
                return Outcome::Kill;
            }
            if index == Index::Syn && old == TcpState::SynSent {
                tell(sink, || TcpStep::SynNotRefreshing);
                return Outcome::Ignore;
            }
            if established && seconds > sysctls.tcp_timeout_unacknowledged {
                (seconds, cause) = (sysctls.tcp_timeout_unacknowledged, TimeoutCause::PickupUnanswered);
            }
        } else if !status.contains(Status::ASSURED)
            && matches!(old, TcpState::SynRecv | TcpState::Established)
            && established
        {
            assured = true;
            tell(sink, || TcpStep::Assured);
        }
        tell(sink, || TcpStep::Timeout { seconds, cause });
        Outcome::Accept { timeout: seconds, assured, resync: old != before }
    }

    /// `nf_tcp_handle_invalid`: once both sides tried to end an assured connection with a FIN or RST outside the
    /// window, the entry is what is out of step, and shall not live for days (TCP-WIN-LOWER).
    fn lower_timeout<S: Sink>(&mut self, case: &Case<'_, '_>, remaining_secs: u32, sink: &mut S) -> Option<u32> {
        let Case { direction, index, status, sysctls, .. } = *case;
        let ends = |index| matches!(index, Index::Fin | Index::Rst);
        if !status.contains(Status::ASSURED) || status.contains(Status::FIXED_TIMEOUT) || !ends(index) {
            return None;
        }
        let previous = self.last_index;
        if self.last_dir != direction && ends(previous) {
            let to = sysctls.tcp_timeout_unacknowledged;
            let lower = remaining_secs >= 120 && remaining_secs > to;
            if lower {
                tell(sink, || TcpStep::TimeoutLowered { index, previous, from: remaining_secs, to });
            }
            return lower.then_some(to);
        }
        self.last_index = index;
        self.last_dir = direction;
        tell(sink, || TcpStep::InvalidEndRemembered { index, direction });
        None
    }

    /// `nf_conntrack_tcp_set_closing`: the box itself reset the connection (a REJECT with tcp-reset; TCP-CLOSING-01).
    ///
    /// True when the timeout of the entry is to become `nf_conntrack_tcp_timeout_close`, unless it is fixed.
    pub fn set_closing(&mut self) -> bool {
        let was = self.state;
        self.set_state(TcpState::Close, &mut ());
        was != TcpState::Close
    }

    /// The only place where the state changes.
    fn set_state<S: Sink>(&mut self, new: TcpState, sink: &mut S) {
        let old = self.state;
        self.state = new;
        tell(sink, || TcpStep::State { old, new });
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> TcpState {
        self.state
    }

    /// What bounds the side that sends in `direction`.
    #[must_use]
    pub const fn numbers(&self, direction: Direction) -> Numbers {
        let Side { td_end, td_maxend, td_maxwin, td_maxack, .. } = self.sides[direction.index()];
        Numbers { end: td_end, maxend: td_maxend, maxwin: td_maxwin, maxack: td_maxack }
    }

    /// The flags of the side that sends in `direction`: see [`side_flag`].
    #[must_use]
    pub fn flags(&self, direction: Direction) -> u8 {
        self.side(direction).flags
    }

    /// The end of what the side that sends in `direction` sent, a sequence number.
    #[must_use]
    pub const fn end(&self, direction: Direction) -> u32 {
        self.side(direction).td_end
    }

    /// The window scale of the side that sends in `direction`, a shift of 0 to 14.
    #[must_use]
    pub fn scale(&self, direction: Direction) -> u8 {
        self.side(direction).td_scale
    }

    const fn side(&self, direction: Direction) -> &Side {
        let [original, reply] = &self.sides;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }

    const fn side_mut(&mut self, direction: Direction) -> &mut Side {
        let [original, reply] = &mut self.sides;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }
}

/// Tells the sink a step of this tracker.
fn tell<S: Sink>(sink: &mut S, step: impl FnOnce() -> TcpStep) {
    sink.step(|| Step::Tcp(step()));
}

fn header(seg: &Segment<'_>) -> TcpStep {
    let &Segment { seq, ack, flags, window, payload, .. } = seg;
    TcpStep::Header { seq, end: seg.end(), ack, flags, window, payload }
}
