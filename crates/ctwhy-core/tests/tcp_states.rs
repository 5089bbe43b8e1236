//! New entries and the special rules around the state table (catalogue E.1, E.3, E.5).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod tcp_support;

use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::profile::Profile;
use ctwhy_core::status::Status;
use ctwhy_core::track::tcp::trace::{ReopenCause, RstRule};
use ctwhy_core::track::tcp::{Tcp, TcpState, TcpStep, side_flag};
use tcp_support::Said::{Accepted, Ignored, Invalid, Killed};
use tcp_support::*;

const C1: u32 = CLIENT + 1;
const S1: u32 = SERVER + 1;

fn rule(flow: &Flow) -> Vec<RstRule> {
    flow.steps.iter().filter_map(|step| if let TcpStep::Rst(rule) = step { Some(*rule) } else { None }).collect()
}

/// FIN of the client, ACK, FIN of the server: LAST_ACK.
fn last_ack() -> Flow {
    let mut flow = Flow::established();
    assert_eq!(flow.client(fin(C1, S1)), Accepted(120));
    assert_eq!(flow.state(), TcpState::FinWait);
    assert_eq!(flow.server(ack(S1, C1 + 1)), Accepted(60));
    assert_eq!(flow.state(), TcpState::CloseWait);
    assert_eq!(flow.server(fin(S1, C1 + 1)), Accepted(30));
    assert_eq!(flow.state(), TcpState::LastAck);
    flow
}

fn time_wait() -> Flow {
    let mut flow = last_ack();
    assert_eq!(flow.client(ack(C1 + 1, S1 + 1)), Accepted(120));
    assert_eq!(flow.state(), TcpState::TimeWait);
    flow
}

/// Closed by an RST of the client or the server.
fn closed_by_rst(client: bool) -> Flow {
    let mut flow = Flow::established();
    let said = if client { flow.client(rst(C1)) } else { flow.server(rst(S1)) };
    assert_eq!((said, flow.state()), (Accepted(10), TcpState::Close));
    flow
}

/// TCP-NEW-01.
#[test]
fn a_syn_begins_an_entry_with_its_options() {
    let mut flow = Flow::default();
    assert_eq!(flow.client(syn(CLIENT).win(0).opt(&[4, 2, 3, 3, 15])), Accepted(120));
    assert_eq!((flow.ctinfo, flow.state()), (Some(CtInfo::New), TcpState::SynSent));
    assert_eq!(flow.flags(Direction::Original), side_flag::SACK_PERM | side_flag::WINDOW_SCALE);
    assert_eq!(flow.scale(Direction::Original), 14, "a shift above 14 counts as 14");
    assert!(
        flow.told(|s| matches!(s, TcpStep::NewSyn { td_end: C1, td_maxwin: 1, scale: Some(14), sack_permitted: true }))
    );
}

/// TCP-NEW-02, TCP-NEW-05.
#[test]
fn an_ack_picks_a_connection_up_liberally() {
    let mut flow = Flow::default();
    let liberal = side_flag::SACK_PERM | side_flag::BE_LIBERAL;
    assert_eq!(flow.client(ack(7, 9).len(100)), Accepted(300));
    assert_eq!((flow.ctinfo, flow.state()), (Some(CtInfo::New), TcpState::Established));
    assert_eq!(flow.flags(Direction::Original) & liberal, liberal);
    assert_eq!(flow.flags(Direction::Reply) & liberal, liberal);
    assert!(flow.told(|s| matches!(s, TcpStep::NewPickup { td_end: 107, td_maxend: 1107, td_maxwin: 1000 })));
    assert_eq!(flow.client(ack(0x9000_0000, 0x7000_0000).len(100)), Accepted(300));
    assert_eq!(flow.ctinfo, Some(CtInfo::New), "unanswered");
    assert_eq!(flow.server(ack(9, 107)), Accepted(300), "the reply bit is set after the tracker has decided");
    assert!(!flow.assured());
    assert_eq!(flow.client(ack(107, 9)), Accepted(432_000));
    assert!(flow.assured());
}

/// TCP-NEW-03.
#[test]
fn without_loose_nothing_is_picked_up() {
    let mut flow = Flow::default();
    flow.sysctls.tcp_loose = false;
    assert_eq!(flow.client(ack(7, 9)), Invalid("tcp.loose_off"));
    assert!(flow.entry.is_none());
    assert_eq!(flow.client(syn(7)), Accepted(120), "a SYN needs no loose");
}

/// TCP-NEW-04.
#[test]
fn other_packets_begin_nothing() {
    for first in [synack(1, 2), fin(1, 2), rst(1), rstack(1, 2)] {
        let mut flow = Flow::default();
        assert_eq!(flow.client(first), Invalid("tcp.invalid_new"));
        assert!(flow.entry.is_none());
    }
}

/// E.4: each of the 90 cells and their kinds, from an entry of which only the state is known.
#[test]
fn every_cell_leads_where_the_table_says() {
    use ctwhy_core::track::tcp::{Cell, Index, table::transition};
    for state in TcpState::ALL.into_iter().skip(1) {
        for client in [true, false] {
            for index in [Index::Syn, Index::SynAck, Index::Fin, Index::Ack, Index::Rst] {
                let entry = Entry {
                    tcp: Tcp::from_ctnetlink(state, [0; 2], [0; 2]),
                    status: Status::SEEN_REPLY,
                    original_is_client: true,
                    timeout: 100,
                };
                let mut flow = Flow { entry: Some(entry), ..Flow::default() };
                let (a, b) = if client { (C1, S1) } else { (S1, C1) };
                let packet = match index {
                    Index::Syn => syn(a),
                    Index::SynAck => synack(a, b),
                    Index::Fin => fin(a, b),
                    Index::Ack => ack(a, b),
                    _ => rstack(a, b),
                };
                let said = if client { flow.client(packet) } else { flow.server(packet) };
                let direction = if client { Direction::Original } else { Direction::Reply };
                let cell = transition(direction, index, state);
                let case = format!("{index} in {direction} direction in {state}: {cell}, said {said:?}");
                let ignored = matches!(state, TcpState::TimeWait | TcpState::Close) && index == Index::Syn;
                match cell {
                    Cell::Invalid => assert_eq!((said, flow.state()), (Invalid("tcp.invalid_state"), state), "{case}"),
                    _ if cell == Cell::Ignore || ignored => {
                        assert_eq!((said, flow.state()), (Ignored, state), "{case}");
                    }
                    Cell::To(new) => assert_eq!(flow.state(), new, "{case}"),
                    Cell::Ignore => unreachable!(),
                }
            }
        }
    }
}

/// TCP-REOPEN-01: after a FIN either side may reopen, and the entry begins in the direction of the SYN.
#[test]
fn a_syn_reopens_a_closed_connection() {
    for client in [true, false] {
        let mut flow = time_wait();
        let said = if client { flow.client(syn(9)) } else { flow.server(syn(9)) };
        assert_eq!((said, flow.state()), (Accepted(120), TcpState::SynSent));
        assert_eq!(flow.ctinfo, Some(CtInfo::New));
        assert_eq!(flow.entry.unwrap().original_is_client, client);
        let cause = ReopenCause::Closed(Direction::Original);
        assert!(flow.told(|s| *s == TcpStep::Reopen { state: TcpState::TimeWait, cause }));
    }
    let mut flow = last_ack();
    assert_eq!(flow.client(rst(C1 + 1)), Accepted(10));
    assert_eq!(flow.client(syn(9)), Accepted(120), "CLOSE after FINs");
}

/// TCP-REOPEN-01: after an RST only the side that sent it may, and only at once.
#[test]
fn a_syn_reopens_after_an_rst_from_the_same_side_only() {
    let mut flow = closed_by_rst(true);
    assert_eq!((flow.client(syn(9)), flow.state()), (Accepted(120), TcpState::SynSent));
    assert!(flow.told(|s| matches!(s, TcpStep::Reopen { cause: ReopenCause::RstFromSameSide, .. })));

    let mut flow = closed_by_rst(false);
    assert_eq!((flow.client(syn(9)), flow.state()), (Ignored, TcpState::Close));
    assert!(flow.told(|s| matches!(s, TcpStep::NotReopened { state: TcpState::Close })));

    let mut flow = closed_by_rst(true);
    assert_eq!(flow.server(ack(S1, C1)), Accepted(10));
    assert_eq!((flow.client(syn(9)), flow.state()), (Ignored, TcpState::Close));
}

/// TCP-IGN-01, and SEEN_REPLY is the core's business all the same.
#[test]
fn ignored_packets_change_nothing() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(syn(7)), Ignored);
    assert_eq!((flow.state(), flow.timeout()), (TcpState::Established, 432_000));
    assert_eq!(flow.server(synack(S1, 99)), Ignored);
    assert_eq!(flow.state(), TcpState::Established);

    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    assert_eq!(flow.server(ack(S1, C1)), Ignored);
    assert_eq!((flow.state(), flow.seen_reply()), (TcpState::SynSent, true));
}

/// TCP-IGN-02.
#[test]
fn a_synack_to_an_ignored_syn_brings_the_entry_back_in_step() {
    let mut flow = Flow::established();
    let new_syn = syn(7_000_000).win(0).opt(&[4, 2, 3, 3, 2]);
    assert_eq!(flow.client(new_syn.clone()), Ignored);
    assert_eq!(flow.server(synack(8_000_000, 7_000_002)), Ignored, "not the answer to that SYN");
    assert_eq!(flow.client(new_syn), Ignored);
    assert_eq!(flow.server(synack(8_000_000, 7_000_001).opt(&[3, 3, 5])), Accepted(60));
    assert_eq!((flow.state(), flow.assured()), (TcpState::SynRecv, true));
    assert!(flow.told(|s| matches!(
        s,
        TcpStep::Resync { syn_direction: Direction::Original, end: 7_000_001, window: 1, scale: 2 }
    )));
    assert_eq!((flow.scale(Direction::Original), flow.scale(Direction::Reply)), (2, 5));
    assert_eq!(flow.flags(Direction::Original) & 0x0f, side_flag::WINDOW_SCALE | side_flag::SACK_PERM);
    assert_eq!(flow.client(ack(7_000_001, 8_000_001)), Accepted(432_000));
    assert_eq!(flow.client(ack(C1, S1)), Ignored, "the old connection's numbers are void");
}

/// TCP-CHALL-01.
#[test]
fn a_client_that_lost_its_connection_resets_and_reopens_it() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(syn(7)), Ignored);
    assert_eq!(flow.server(ack(S1, C1)), Accepted(432_000), "the challenge ACK");
    assert_eq!(flow.client(rst(C1)), Accepted(10));
    assert_eq!((rule(&flow), flow.state()), (vec![RstRule::Exact { seq: C1 }], TcpState::Close));
    assert_eq!((flow.client(syn(7)), flow.state()), (Accepted(120), TcpState::SynSent));
}

/// TCP-CHALL-02.
#[test]
fn a_challenge_ack_in_last_ack_is_not_the_last_ack_once() {
    let mut flow = last_ack();
    assert_eq!(flow.client(syn(7)), Ignored);
    assert!(flow.told(|s| *s == TcpStep::ChallengeAckExpected));
    assert_eq!((flow.server(ack(S1 + 1, C1 + 1)), flow.state()), (Ignored, TcpState::LastAck));
    assert!(flow.told(|s| *s == TcpStep::ChallengeAckIgnored));
    assert_eq!((flow.server(ack(S1 + 1, C1 + 1)), flow.state()), (Accepted(120), TcpState::TimeWait));

    let mut flow = last_ack();
    assert_eq!(flow.client(syn(7)), Ignored);
    assert_eq!(flow.client(ack(C1 + 1, S1 + 1)), Accepted(120), "only from the other side");
}

/// TCP-CHALL-03, TCP-REOPEN-01.
#[test]
fn an_rst_to_a_challenge_ack_in_syn_sent_closes_without_window_check() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    assert_eq!(flow.server(ack(3, 777_777)), Ignored, "a stray ACK of an older connection");
    assert_eq!(flow.client(rst(777_778)), Invalid("tcp.seq_over_upper_bound"));
    assert_eq!(flow.client(rst(777_777)), Accepted(10));
    assert_eq!(flow.state(), TcpState::Close);
    assert!(rule(&flow).contains(&RstRule::AnswersChallengeAck { seq: 777_777 }));
    assert_eq!((flow.client(syn(CLIENT)), flow.seen_reply()), (Accepted(120), false));
    assert_eq!(flow.server(synack(SERVER, C1)), Accepted(60));
}

/// TCP-RST-01.
#[test]
fn an_rst_is_not_checked_when_the_connection_is_closing() {
    let mut flow = Flow::established();
    flow.client(fin(C1, S1));
    for state in [TcpState::FinWait, TcpState::CloseWait, TcpState::LastAck, TcpState::TimeWait, TcpState::Close] {
        let entry = Entry { tcp: Tcp::from_ctnetlink(state, [0; 2], [0; 2]), ..flow.entry.unwrap() };
        let mut flow = Flow { entry: Some(entry), ..Flow::default() };
        assert_eq!(flow.server(rst(0xdead_beef)), Accepted(10));
        assert_eq!((rule(&flow), flow.state()), (vec![RstRule::ClosingUnchecked { state }], TcpState::Close));
    }
    assert_eq!(flow.client(rst(0xdead_beef)), Accepted(10));
}

/// TCP-RST-02, TCP-RST-04.
#[test]
fn an_rst_in_established_is_compared_with_what_its_receiver_expects() {
    let expected = S1;
    let mut flow = Flow::established();
    assert_eq!(flow.server(rst(expected - 1)), Invalid("tcp.invalid_rst"));
    assert_eq!((flow.state(), flow.timeout()), (TcpState::Established, 432_000));
    flow.sysctls.tcp_be_liberal = true;
    assert_eq!(flow.server(rst(expected - 1)), Invalid("tcp.invalid_rst"), "liberal does not help");

    let mut flow = Flow::established();
    assert_eq!((flow.server(rst(expected)), flow.state()), (Accepted(10), TcpState::Close));
    assert_eq!(rule(&flow), [RstRule::Exact { seq: expected }]);

    let mut flow = Flow::established();
    assert_eq!((flow.server(rst(expected + 1)), flow.state()), (Accepted(10), TcpState::Established));
    assert_eq!(rule(&flow), [RstRule::Inexact { seq: expected + 1, maxack: expected }]);
    assert_eq!(flow.client(ack(C1, S1)), Accepted(300), "the next valid packet restores a longer timeout");
}

/// TCP-RST-02: `nf_conntrack_tcp_ignore_invalid_rst` makes such an RST an inexact one.
#[test]
fn an_rst_below_what_was_acknowledged_can_be_tolerated() {
    let mut flow = Flow::established();
    flow.sysctls.tcp_ignore_invalid_rst = true;
    assert_eq!((flow.server(rst(S1 - 1)), flow.state()), (Accepted(10), TcpState::Established));
    let (seq, maxack) = (S1 - 1, S1);
    assert_eq!(rule(&flow), [RstRule::BelowAckTolerated { seq, maxack }, RstRule::Inexact { seq, maxack }]);
}

/// TCP-RST-02: behind the data that was sent just before.
#[test]
fn an_rst_in_a_train_is_believed() {
    let mut flow = Flow::established();
    assert_eq!(flow.server(ack(S1, C1).len(19)), Accepted(300));
    assert_eq!((flow.server(rst(S1 + 19)), flow.state()), (Accepted(10), TcpState::Close));
    assert_eq!(rule(&flow), [RstRule::Train { seq: S1 + 19 }]);
}

/// TCP-RST-02: outside an assured ESTABLISHED.
#[test]
fn an_rst_before_established_needs_no_exact_match() {
    let recv = || {
        let mut flow = Flow::default();
        flow.client(syn(CLIENT));
        flow.server(synack(SERVER, C1).win(2000));
        flow
    };
    let mut flow = recv();
    assert_eq!(flow.client(rst(C1 + 5)), Accepted(10));
    assert_eq!(
        (rule(&flow), flow.state()),
        (vec![RstRule::NotEstablished { seq: C1 + 5, maxack: C1 }], TcpState::Close)
    );
    let mut flow = recv();
    assert_eq!(flow.client(rst(C1 - 1)), Invalid("tcp.invalid_rst"));
    let mut flow = recv();
    assert_eq!(flow.client(rst(0)), Ignored, "seq 0 goes on to the window check, where it is too old");
    assert_eq!(rule(&flow), [RstRule::SeqZero]);
    let mut flow = recv();
    assert_eq!(flow.server(rst(S1)), Accepted(10));
    assert_eq!(rule(&flow), [RstRule::NothingAcknowledged]);
}

/// TCP-RST-03: the RST that answers an ignored SYN.
#[test]
fn an_rst_to_an_ignored_syn_closes_without_window_check() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(syn(9_000_000)), Ignored);
    assert_eq!(flow.server(rstack(0, 9_000_002)), Invalid("tcp.ack_over_upper_bound"));
    let mut flow = Flow::established();
    assert_eq!(flow.client(syn(9_000_000)), Ignored);
    assert_eq!((flow.server(rstack(0, 9_000_001)), flow.state()), (Accepted(10), TcpState::Close));
    assert_eq!(rule(&flow), [RstRule::AfterSyn, RstRule::AnswersIgnored { ack: 9_000_001 }]);
}

/// VER-08, TCP-RST-03: in which direction the ignored SYN went did not matter once.
#[test]
fn an_rst_behind_a_syn_of_its_own_side_closed_in_older_releases() {
    for (release, said, state) in [
        ("6.1.175", Accepted(10), TcpState::Close),
        ("6.12.92", Accepted(10), TcpState::Close),
        ("6.1.176", Invalid("tcp.ack_over_upper_bound"), TcpState::Established),
        ("6.12.93", Invalid("tcp.ack_over_upper_bound"), TcpState::Established),
        ("6.18.44", Invalid("tcp.ack_over_upper_bound"), TcpState::Established),
    ] {
        let mut flow = Flow { kernel: Profile::for_release(release).unwrap(), ..Flow::established() };
        assert_eq!(flow.client(syn(9_000_000)), Ignored);
        assert_eq!((flow.client(rstack(0, 9_000_001)), flow.state()), (said, state), "{release}");
    }
}

/// TCP-RST-03: the RST of the client that answers a stray ACK in a half-open connection.
#[test]
fn an_rst_to_an_ignored_ack_closes_without_window_check() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    assert_eq!(flow.server(ack(444, 555)), Ignored);
    assert_eq!((flow.client(rstack(0x7000_0000, 444)), flow.state()), (Accepted(10), TcpState::Close));
    assert!(rule(&flow).contains(&RstRule::AnswersIgnored { ack: 444 }));
}

/// TCP-RST-05.
#[test]
fn an_rst_before_any_reply_deletes_the_entry() {
    for client in [true, false] {
        let mut flow = Flow::default();
        flow.client(syn(CLIENT));
        let said = if client { flow.client(rst(C1)) } else { flow.server(rstack(0, C1)) };
        assert_eq!((said, flow.entry.is_none()), (Killed, true));
        let expected = if client { CtInfo::New } else { CtInfo::EstablishedReply };
        assert_eq!(flow.ctinfo, Some(expected));
        assert!(flow.told(|s| matches!(s, TcpStep::State { new: TcpState::Close, .. })));
    }
    let mut flow = Flow::default();
    flow.client(ack(7, 9));
    assert_eq!(flow.server(rst(9)), Killed, "the same for a pickup");
}

/// TCP-RST-06.
#[test]
fn an_rst_in_syn_sent_needs_a_believable_ack() {
    let refused = |ack| {
        let mut flow = Flow::default();
        flow.client(syn(CLIENT));
        flow.server(rstack(0, ack))
    };
    assert_eq!(refused(C1 + 2), Invalid("tcp.ack_over_upper_bound"));
    assert_eq!(refused(C1 + 1), Killed, "one too many passes: it looks like the answer to a keepalive (W1)");
    assert_eq!(refused(C1 - 66_000), Killed);
    assert_eq!(refused(C1 - 66_001), Ignored);
    assert_eq!(refused(0), Killed, "an RST/ACK with ack 0 comes from a broken stack");
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    assert_eq!(flow.server(rst(0x1234_5678)), Killed, "without ACK any seq will do");
}

/// TCP-RST-07.
#[test]
fn an_rst_a_little_beyond_the_window_is_ignored() {
    let mut flow = Flow::established();
    assert_eq!((flow.server(rst(S1 + 1001)), flow.state()), (Ignored, TcpState::Established));
    assert_eq!(flow.ctinfo, Some(CtInfo::EstablishedReply));
    assert_eq!(flow.server(rst(S1 + 3000)), Invalid("tcp.seq_over_upper_bound"));
}

/// TCP-SIM-01, TCP-SIM-02.
#[test]
fn simultaneous_open() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    assert_eq!(flow.server(syn(SERVER)), Ignored, "neither counted nor refreshing");
    assert_eq!((flow.state(), flow.seen_reply()), (TcpState::SynSent2, true));
    assert_eq!((flow.client(synack(CLIENT, S1)), flow.state()), (Accepted(60), TcpState::SynRecv));
    assert_eq!((flow.server(synack(SERVER, C1)), flow.state()), (Ignored, TcpState::SynRecv), "a second SYN/ACK");
    assert_eq!((flow.server(ack(S1, C1)), flow.state()), (Accepted(432_000), TcpState::Established));
    assert!(flow.told(|s| *s == TcpStep::SimultaneousOpenCompleted) && flow.assured());
}

/// TCP-SIM-01: without simultaneous open an ACK in reply direction leaves SYN_RECV as it is.
#[test]
fn an_ack_of_the_server_does_not_complete_the_handshake() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    flow.server(synack(SERVER, C1));
    assert_eq!((flow.server(ack(S1, C1)), flow.state()), (Accepted(60), TcpState::SynRecv));
}

/// TCP-SYN-01.
#[test]
fn a_repeated_syn_neither_counts_nor_refreshes() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    for (seq, restarts) in [(CLIENT, false), (CLIENT + 50, true), (CLIENT - 50, false)] {
        assert_eq!((flow.client(syn(seq)), flow.ctinfo), (Ignored, Some(CtInfo::New)));
        assert_eq!(flow.told(|s| matches!(s, TcpStep::SenderRestarted { .. })), restarts);
    }
    assert_eq!(flow.server(synack(SERVER, CLIENT + 51)), Accepted(60), "the highest SYN counts");
}

/// TCP-SYN-02.
#[test]
fn a_synack_must_acknowledge_the_syn_roughly() {
    let answered = |ack| {
        let mut flow = Flow::default();
        flow.client(syn(CLIENT));
        (flow.server(synack(SERVER, ack)), flow.state(), flow.seen_reply())
    };
    assert_eq!(answered(C1 + 1), (Invalid("tcp.ack_over_upper_bound"), TcpState::SynSent, false));
    assert_eq!(answered(C1), (Accepted(60), TcpState::SynRecv, true));
    assert_eq!(answered(C1 - 66_000), (Accepted(60), TcpState::SynRecv, true));
    assert_eq!(answered(C1 - 66_001), (Ignored, TcpState::SynSent, true));
}

/// TCP-SYN-03.
#[test]
fn a_repeated_synack_is_ignored() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    flow.server(synack(SERVER, C1));
    assert_eq!(flow.server(synack(SERVER, C1)), Ignored);
    assert_eq!(flow.server(synack(SERVER + 9, C1)), Ignored);
}

/// TCP-CLOSING-01.
#[test]
fn set_closing_forces_close() {
    let mut tcp = Flow::established().entry.unwrap().tcp;
    assert!(tcp.set_closing(), "the timeout is to follow");
    assert_eq!(tcp.state(), TcpState::Close);
    assert!(!tcp.set_closing(), "closed already");
}

/// E.4, quirks: any ACK moves a closing connection on, and a FIN that comes again counts as the other side's.
#[test]
fn the_table_believes_any_ack_and_any_fin_in_window() {
    let mut flow = Flow::established();
    flow.client(fin(C1, S1));
    assert_eq!(flow.flags(Direction::Original) & side_flag::CLOSE_INIT, side_flag::CLOSE_INIT);
    assert_eq!(flow.flags(Direction::Reply) & side_flag::CLOSE_INIT, 0);
    assert_eq!((flow.client(fin(C1, S1)), flow.state()), (Accepted(30), TcpState::LastAck));
    assert_eq!((flow.client(ack(C1, S1)), flow.state()), (Accepted(120), TcpState::TimeWait));
    let mut flow = Flow::established();
    flow.client(fin(C1, S1));
    assert_eq!((flow.server(ack(S1, C1).len(9)), flow.state()), (Accepted(60), TcpState::CloseWait));
}

/// An entry of which ctnetlink showed the state, and nothing else is known, learns from its next packets.
#[test]
fn an_adopted_entry_refuses_nothing_that_it_cannot_know() {
    let adopted = |state, status| Flow {
        entry: Some(Entry {
            tcp: Tcp::from_ctnetlink(state, [0x23, 0x33], [7, 200]),
            status,
            original_is_client: true,
            timeout: 1000,
        }),
        ..Flow::default()
    };
    let assured = Status::SEEN_REPLY | Status::ASSURED;
    let mut flow = adopted(TcpState::Established, assured);
    assert_eq!((flow.scale(Direction::Original), flow.scale(Direction::Reply)), (7, 14));
    assert_eq!(flow.client(ack(0xf000_0000, 0x1000_0000)), Accepted(432_000));
    assert_eq!(flow.client(ack(0xf000_0000, 0x1000_2000)), Accepted(432_000), "data that we did not see");
    assert_eq!(flow.server(ack(0x1000_2000, 0xf000_0000).len(10)), Accepted(432_000));
    assert_eq!(flow.client(ack(0xf000_0000, 0x1000_200b)), Invalid("tcp.ack_over_upper_bound"), "now it is known");

    let mut flow = adopted(TcpState::Established, assured);
    assert_eq!(flow.server(rst(1)), Accepted(10), "what its receiver expects is unknown");

    let mut flow = adopted(TcpState::SynSent, Status::default());
    assert_eq!(flow.server(synack(SERVER, 0x4000_0000)), Accepted(60));
    assert_eq!((flow.client(ack(0x4000_0000, S1)), flow.state()), (Accepted(432_000), TcpState::Established));
}

/// The scale that ctnetlink showed counts for the first packet already.
#[test]
fn an_adopted_entry_scales_the_first_window() {
    let tcp = Tcp::from_ctnetlink(TcpState::Established, [0x01; 2], [4, 0]);
    let entry = Entry { tcp, status: Status::SEEN_REPLY, original_is_client: true, timeout: 9 };
    let mut flow = Flow { entry: Some(entry), ..Flow::default() };
    flow.client(ack(C1, S1).win(10));
    assert!(flow.told(|s| matches!(s, TcpStep::SenderGuessed { td_maxwin: 160, .. })));
}

/// TCP-IGN-02 asks for a SYN of the other side, TCP-ASSURED for a state before.
#[test]
fn entries_from_user_space_get_no_special_favours() {
    let adopted = |state| Flow {
        entry: Some(Entry {
            tcp: Tcp::from_ctnetlink(state, [0; 2], [0; 2]),
            status: Status::SEEN_REPLY,
            original_is_client: true,
            timeout: 9,
        }),
        ..Flow::default()
    };
    let mut flow = adopted(TcpState::TimeWait);
    assert_eq!(flow.server(syn(SERVER)), Ignored, "neither side has closed");
    assert_eq!(flow.server(synack(SERVER, S1)), Ignored, "acknowledges its own SYN");
    let mut flow = adopted(TcpState::None);
    assert_eq!(flow.client(ack(C1, S1)), Accepted(432_000));
    assert!(!flow.assured());
}
