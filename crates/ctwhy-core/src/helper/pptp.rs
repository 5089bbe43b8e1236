//! PPTP (`nf_conntrack_pptp.c`, `nf_nat_pptp.c`; GRE-02): the control connection tells which GRE packets belong to a
//! call. The client is the PNS and the server the PAC (RFC 2637).

use super::follow::unexpect;
use super::mangle::{Mangle, Text};
use super::{Help, Helper, HelperStep, Seen, tell};
use crate::conn::Flow;
use crate::direction::{CtInfo, Direction};
use crate::expect::{Expectation, Follow};
use crate::extension::ExtensionId;
use crate::packet::{be16, be32};
use crate::status::Status;
use crate::table::Table;
use crate::time::Time;
use crate::trace::Sink;
use crate::tuple::{Tuple, proto};

/// `enum pptp_ctrlsess_state`, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Session {
    #[default]
    None,
    Error,
    StopRequested,
    Requested,
    Confirmed,
}

/// `enum pptp_ctrlcall_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Call {
    #[default]
    None,
    OutRequested,
    OutConfirmed,
    InRequested,
    InReplied,
    InConfirmed,
    ClearRequested,
}

/// What is remembered of a control connection (`struct nf_ct_pptp_master`, `struct nf_nat_pptp`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Pptp {
    session: Session,
    call: Call,
    /// The call id of the PNS, as the PAC sees it.
    pub(super) pns: u16,
    /// The call id of the PAC.
    pub(super) pac: u16,
    /// Before NAT: that of the PNS.
    pub(super) nat_pns: u16,
    /// Before NAT: that of the PAC.
    pub(super) nat_pac: u16,
}

/// Control messages (RFC 2637 section 1.4).
#[allow(missing_docs)]
pub mod message {
    pub const START_REQUEST: u16 = 1;
    pub const START_REPLY: u16 = 2;
    pub const STOP_REQUEST: u16 = 3;
    pub const STOP_REPLY: u16 = 4;
    pub const ECHO_REQUEST: u16 = 5;
    pub const ECHO_REPLY: u16 = 6;
    pub const OUT_CALL_REQUEST: u16 = 7;
    pub const OUT_CALL_REPLY: u16 = 8;
    pub const IN_CALL_REQUEST: u16 = 9;
    pub const IN_CALL_REPLY: u16 = 10;
    pub const IN_CALL_CONNECT: u16 = 11;
    pub const CALL_CLEAR_REQUEST: u16 = 12;
    pub const CALL_DISCONNECT_NOTIFY: u16 = 13;
    pub const WAN_ERROR_NOTIFY: u16 = 14;
    pub const SET_LINK_INFO: u16 = 15;

    /// The name of a message, as RFC 2637 has it.
    #[must_use]
    pub const fn name(message: u16) -> &'static str {
        match message {
            START_REQUEST => "Start-Control-Connection-Request",
            START_REPLY => "Start-Control-Connection-Reply",
            STOP_REQUEST => "Stop-Control-Connection-Request",
            STOP_REPLY => "Stop-Control-Connection-Reply",
            ECHO_REQUEST => "Echo-Request",
            ECHO_REPLY => "Echo-Reply",
            OUT_CALL_REQUEST => "Outgoing-Call-Request",
            OUT_CALL_REPLY => "Outgoing-Call-Reply",
            IN_CALL_REQUEST => "Incoming-Call-Request",
            IN_CALL_REPLY => "Incoming-Call-Reply",
            IN_CALL_CONNECT => "Incoming-Call-Connected",
            CALL_CLEAR_REQUEST => "Call-Clear-Request",
            CALL_DISCONNECT_NOTIFY => "Call-Disconnect-Notify",
            WAN_ERROR_NOTIFY => "WAN-Error-Notify",
            SET_LINK_INFO => "Set-Link-Info",
            _ => "unknown message",
        }
    }
}
use message::*;

/// `pptp_msg_size`: bytes that a message must have behind the header.
const fn least(message: u16) -> usize {
    match message {
        START_REQUEST | START_REPLY => 144,
        STOP_REQUEST | STOP_REPLY | CALL_CLEAR_REQUEST => 4,
        OUT_CALL_REQUEST => 156,
        OUT_CALL_REPLY => 20,
        IN_CALL_REQUEST => 208,
        IN_CALL_REPLY | SET_LINK_INFO => 12,
        IN_CALL_CONNECT => 16,
        CALL_DISCONNECT_NOTIFY => 136,
        WAN_ERROR_NOTIFY => 28,
        _ => 0,
    }
}

/// A control message: its number and what follows the header.
struct Control<'a> {
    message: u16,
    body: &'a [u8],
}

impl Control<'_> {
    /// `callID`, or the field in its place.
    fn first(&self) -> u16 {
        be16(self.body, 0).unwrap_or(0)
    }

    /// `peersCallID`.
    fn second(&self) -> u16 {
        be16(self.body, 2).unwrap_or(0)
    }

    /// Is the result code at that place the one that means yes?
    fn succeeds(&self, at: usize) -> bool {
        self.body.get(at) == Some(&1)
    }
}

/// What a message asks for besides the state that it changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Nothing,
    /// GRE of the call comes: the call ids of PAC and PNS.
    Gre(u16, u16),
    /// The call is over.
    End,
}

/// Length of packet header and control header.
const HEADER: usize = 12;

/// `conntrack_pptp_help`.
pub(super) fn help<S: Sink>(seen: &Seen<'_>, table: &mut Table, sink: &mut S) -> Option<Mangle> {
    const TCP_HEADER: usize = 20;
    const CONTROL: u16 = 1;
    const MAGIC_COOKIE: u32 = 0x1a2b_3c4d;

    if !matches!(seen.ctinfo, CtInfo::Established | CtInfo::EstablishedReply) {
        tell(sink, || HelperStep::TooEarly(Helper::Pptp, seen.ctinfo));
        return None;
    }
    let header = seen.l4.get(..TCP_HEADER)?;
    let start = usize::from(header[12] >> 4) * 4;
    let payload = seen.l4.get(start..)?;
    if be16(payload, 2)? != CONTROL || be32(payload, 4)? != MAGIC_COOKIE {
        return None;
    }
    let control = Control { message: be16(payload, 8)?, body: payload.get(HEADER..)? };
    let message = control.message;
    if control.body.len() < least(message) {
        return None;
    }
    let Some(Help::Pptp(state)) = table.extensions.get_mut(seen.id)?.help.as_mut() else { return None };
    let asks = match seen.direction {
        Direction::Original => state.outbound(&control).then_some(Asks::Nothing),
        Direction::Reply => state.inbound(&control),
    };
    let Some(asks) = asks else {
        tell(sink, || HelperStep::PptpUnfit { message });
        return None;
    };
    let translated = seen.flow.status.intersects(Status::NAT_MASK);
    tell(sink, || HelperStep::Pptp { message, pns: state.pns, pac: state.pac });
    let changed = if translated { state.translate(seen, &control) } else { None };
    if translated && matches!(asks, Asks::Gre(..)) {
        state.nat_pac = state.pac;
    }
    let now = *state;
    match asks {
        Asks::Nothing => {}
        Asks::Gre(pac, pns) => expect_gre(seen, &now, (pac, pns), translated, table, sink),
        Asks::End => {
            tell(sink, || HelperStep::CallEnds);
            end_call(seen.flow, (seen.id, &now), table, seen.now, sink);
        }
    }
    let (at, id) = changed?;
    Some(Mangle { l4: seen.offset, payload: seen.offset + start, at: HEADER + at, was: 2, is: Text::number(id) })
}

impl Pptp {
    /// `pptp_outbound_pkt`: a message of the PNS; false when it does not fit.
    fn outbound(&mut self, control: &Control<'_>) -> bool {
        match control.message {
            START_REQUEST if self.session == Session::None => self.session = Session::Requested,
            STOP_REQUEST => self.session = Session::StopRequested,
            OUT_CALL_REQUEST if self.session == Session::Confirmed => {
                self.call = Call::OutRequested;
                self.pns = control.first();
            }
            IN_CALL_REPLY
                if matches!(self.call, Call::InRequested | Call::InReplied) && self.pac == control.second() =>
            {
                if control.succeeds(4) {
                    self.call = Call::InReplied;
                    self.pns = control.first();
                } else {
                    self.call = Call::None;
                }
            }
            CALL_CLEAR_REQUEST if self.session == Session::Confirmed => self.call = Call::ClearRequested,
            SET_LINK_INFO | ECHO_REQUEST | ECHO_REPLY => {}
            _ => return false,
        }
        true
    }

    /// `pptp_inbound_pkt`: a message of the PAC; `None` when it does not fit.
    fn inbound(&mut self, control: &Control<'_>) -> Option<Asks> {
        let confirmed = self.session == Session::Confirmed;
        match control.message {
            START_REPLY if self.session >= Session::Requested => {
                self.session = if control.succeeds(2) { Session::Confirmed } else { Session::Error };
            }
            STOP_REPLY if self.session <= Session::StopRequested => {
                self.session = if control.succeeds(0) { Session::None } else { Session::Error };
            }
            OUT_CALL_REPLY
                if confirmed
                    && matches!(self.call, Call::OutRequested | Call::OutConfirmed)
                    && self.pns == control.second() =>
            {
                if control.succeeds(4) {
                    self.call = Call::OutConfirmed;
                    self.pac = control.first();
                    return Some(Asks::Gre(self.pac, self.pns));
                }
                self.call = Call::None;
            }
            IN_CALL_REQUEST if confirmed => {
                self.call = Call::InRequested;
                self.pac = control.first();
            }
            IN_CALL_CONNECT
                if confirmed
                    && matches!(self.call, Call::InReplied | Call::InConfirmed)
                    && self.pns == control.first() =>
            {
                self.call = Call::InConfirmed;
                return Some(Asks::Gre(self.pac, self.pns));
            }
            CALL_DISCONNECT_NOTIFY => {
                self.call = Call::None;
                return Some(Asks::End);
            }
            WAN_ERROR_NOTIFY | SET_LINK_INFO | ECHO_REQUEST | ECHO_REPLY => {}
            _ => return None,
        }
        Some(Asks::Nothing)
    }

    /// The call id that NAT writes into a message, and where in its body.
    fn translate(&mut self, seen: &Seen<'_>, control: &Control<'_>) -> Option<(usize, u16)> {
        match (seen.direction, control.message) {
            // Nothing reserves a call id, so the port of the connection is taken, which is unique to it.
            (Direction::Original, OUT_CALL_REQUEST) => {
                self.nat_pns = self.pns;
                self.pns = seen.flow.tuple(Direction::Reply).dst_u;
                Some((0, self.pns))
            }
            (Direction::Original, IN_CALL_REPLY | CALL_CLEAR_REQUEST) => Some((0, self.pns)),
            (Direction::Reply, OUT_CALL_REPLY) => Some((2, self.nat_pns)),
            (Direction::Reply, IN_CALL_CONNECT | WAN_ERROR_NOTIFY | CALL_DISCONNECT_NOTIFY | SET_LINK_INFO) => {
                Some((0, self.nat_pns))
            }
            _ => None,
        }
    }
}

/// `exp_gre`: GRE of a call is expected from either side.
fn expect_gre<S: Sink>(
    seen: &Seen<'_>,
    state: &Pptp,
    (pac, pns): (u16, u16),
    translated: bool,
    table: &mut Table,
    sink: &mut S,
) {
    let expectation = |direction, keys: (u16, u16), follow| {
        let tuple = seen.flow.tuple(direction);
        let of = (seen.id, Helper::Pptp, seen.flow.zone.id);
        let mut new = Expectation::new(of, (tuple.l3num, proto::GRE), (tuple.src, Some(keys.0)), (tuple.dst, keys.1));
        new.follow = Follow::Pptp { nat: follow };
        new
    };
    let both = if translated {
        [
            expectation(Direction::Original, (state.nat_pns, state.pac), Some((Direction::Original, state.pns))),
            expectation(Direction::Reply, (state.nat_pac, state.pns), Some((Direction::Reply, state.nat_pns))),
        ]
    } else {
        [expectation(Direction::Original, (pns, pac), None), expectation(Direction::Reply, (pac, pns), None)]
    };
    let zone = seen.flow.zone.id;
    let [original, reply] = both;
    if table.expect(original, seen.now, sink).is_err() {
        return;
    }
    if table.expect(reply, seen.now, sink).is_err() {
        unexpect(Some(original.tuple), zone, (table, seen.now), sink);
        return;
    }
    let keymap = &mut table.extensions.keymap;
    let added = keymap.add(seen.id, Direction::Original, &original.tuple);
    if !added || !keymap.add(seen.id, Direction::Reply, &reply.tuple) {
        if added {
            keymap.remove_all(seen.id);
        }
        for tuple in [reply.tuple, original.tuple] {
            unexpect(Some(tuple), zone, (table, seen.now), sink);
        }
    }
}

/// `pptp_destroy_siblings`: what belongs to the call ends with it.
pub(crate) fn end_call<S: Sink>(
    control: &Flow,
    (id, state): (ExtensionId, &Pptp),
    table: &mut Table,
    now: Time,
    sink: &mut S,
) {
    table.extensions.keymap.remove_all(id);
    for (direction, src_u, dst_u) in
        [(Direction::Original, state.pns, state.pac), (Direction::Reply, state.pac, state.pns)]
    {
        let tuple = Tuple { src_u, dst_u, protonum: proto::GRE, ..*control.tuple(direction) };
        if !table.kill(&tuple, control.zone, now, sink) {
            unexpect(Some(tuple), control.zone.id, (table, now), sink);
        }
    }
}
