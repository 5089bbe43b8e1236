//! The window and the timeouts (catalogue E.6, E.7). Every bound is tried on both sides of its edge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod tcp_support;

use ctwhy_core::direction::Direction;
use ctwhy_core::profile::Profile;
use ctwhy_core::status::Status;
use ctwhy_core::track::tcp::trace::{Liberal, TimeoutCause};
use ctwhy_core::track::tcp::window::WindowVerdict;
use ctwhy_core::track::tcp::{TcpState, TcpStep, WindowCheck, side_flag};
use tcp_support::Said::{Accepted, Ignored, Invalid};
use tcp_support::*;

const C1: u32 = CLIENT + 1;
const S1: u32 = SERVER + 1;
/// What the server announced in [`Flow::established`].
const SERVER_WINDOW: u32 = 2000;

fn verdict(flow: &Flow) -> WindowVerdict {
    window(flow).1
}

fn window(flow: &Flow) -> (WindowCheck, WindowVerdict) {
    let found = flow
        .steps
        .iter()
        .find_map(|s| if let TcpStep::Window { check, verdict } = s { Some((*check, *verdict)) } else { None });
    found.expect("a window check")
}

fn cause(flow: &Flow) -> TimeoutCause {
    let found =
        flow.steps.iter().find_map(|s| if let TcpStep::Timeout { cause, .. } = s { Some(*cause) } else { None });
    found.expect("a timeout")
}

/// W0: SYN and FIN count one, and the check knows all operands.
#[test]
fn the_check_carries_what_it_compared() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(fin(C1, S1).len(10)), Accepted(120));
    let (check, verdict) = window(&flow);
    assert_eq!(verdict, WindowVerdict::Inside);
    assert_eq!(
        check,
        WindowCheck {
            direction: Direction::Original,
            seq: C1,
            end: C1 + 11,
            ack: S1,
            sack: S1,
            sender_end: C1,
            sender_maxend: C1 + SERVER_WINDOW,
            sender_maxwin: 1000,
            receiver_end: S1,
            receiver_maxwin: SERVER_WINDOW,
        }
    );
}

/// Bound I.
#[test]
fn bound_i_a_segment_may_begin_at_the_edge_of_the_window() {
    let at = |seq: u32, len: usize| {
        let mut flow = Flow::established();
        (flow.client(ack(seq, S1).len(len)), verdict(&flow))
    };
    let edge = C1 + SERVER_WINDOW;
    assert_eq!(at(edge, 0), (Accepted(300), WindowVerdict::Inside));
    assert_eq!(at(edge - 10, 1400), (Accepted(300), WindowVerdict::Inside), "begins inside, ends beyond");
    assert_eq!(at(edge + 1, 0), (Ignored, WindowVerdict::Overshot));
    assert_eq!(at(edge + SERVER_WINDOW - 1, 0), (Ignored, WindowVerdict::Overshot), "overshot is one more: 2000");
    assert_eq!(at(edge + SERVER_WINDOW, 0), (Invalid("tcp.seq_over_upper_bound"), WindowVerdict::SeqOver));
    assert_eq!(at(edge + 1, 1998), (Ignored, WindowVerdict::Overshot));
    assert_eq!(at(edge + 1, 1999), (Invalid("tcp.seq_over_upper_bound"), WindowVerdict::SeqOver));
}

/// Bound I: the data that overshot may be acknowledged.
#[test]
fn what_overshot_moves_the_end() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(ack(C1 + SERVER_WINDOW + 1, S1).len(100)), Ignored);
    assert_eq!(flow.flags(Direction::Original) & side_flag::DATA_UNACKNOWLEDGED, side_flag::DATA_UNACKNOWLEDGED);
    assert_eq!(flow.server(ack(S1, C1 + SERVER_WINDOW + 101)), Accepted(432_000));
}

/// Bound I: tolerance asks that II, III and IV hold.
#[test]
fn an_overshot_is_not_tolerated_when_another_bound_fails() {
    let beyond = C1 + SERVER_WINDOW + 1;
    for acknowledged in [S1 + 1, S1 - 66_001] {
        let mut flow = Flow::established();
        assert_eq!(flow.client(ack(beyond, acknowledged)), Invalid("tcp.seq_over_upper_bound"));
    }
    let mut flow = Flow::established();
    assert_eq!(flow.client(ack(beyond, S1 - 66_000)), Ignored);
}

/// Bound II.
#[test]
fn bound_ii_old_data_is_ignored() {
    let at = |seq: u32, len: usize| {
        let mut flow = Flow::established();
        (flow.client(ack(seq, S1).len(len)), verdict(&flow))
    };
    let edge = C1 - SERVER_WINDOW;
    assert_eq!(at(edge, 0), (Accepted(432_000), WindowVerdict::Inside));
    assert_eq!(at(edge - 1, 0), (Ignored, WindowVerdict::SeqUnder));
    assert_eq!(at(edge - 10, 10), (Accepted(432_000), WindowVerdict::Inside), "the end counts");
    assert_eq!(at(edge - 10, 9), (Ignored, WindowVerdict::SeqUnder));
}

/// Bound II is skipped while the receiver's window is unknown.
#[test]
fn bound_ii_is_not_asked_of_an_unknown_window() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    assert_eq!(window(&flow).0.seq_lower_ok(), None);
    assert_eq!(flow.client(rst(CLIENT.wrapping_sub(70_000_000))), Said::Killed);
}

/// Bound III.
#[test]
fn bound_iii_only_what_was_seen_can_be_acknowledged() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(ack(C1, S1 + 1)), Invalid("tcp.ack_over_upper_bound"));
    assert_eq!(flow.server(ack(S1, C1).len(1)), Accepted(300));
    assert_eq!(flow.client(ack(C1, S1 + 1)), Accepted(432_000));
}

/// Bound IV.
#[test]
fn bound_iv_overly_delayed_acks_are_ignored() {
    let at = |acknowledged| {
        let mut flow = Flow::established();
        (flow.client(ack(C1, acknowledged)), verdict(&flow))
    };
    assert_eq!(at(S1 - 66_000), (Accepted(432_000), WindowVerdict::Inside));
    assert_eq!(at(S1 - 66_001), (Ignored, WindowVerdict::AckUnder));
}

/// Bound IV is as wide as the sender's window when that is larger than 66000.
#[test]
fn bound_iv_grows_with_the_window() {
    let at = |acknowledged| {
        let mut flow = Flow::default();
        flow.client(syn(CLIENT).opt(&[3, 3, 2]));
        flow.server(synack(SERVER, C1).opt(&[3, 3, 0]));
        assert_eq!(flow.client(ack(C1, S1).win(20_000)), Accepted(432_000));
        flow.client(ack(C1, acknowledged))
    };
    assert_eq!(at(S1 - 80_000), Accepted(432_000));
    assert_eq!(at(S1 - 80_001), Ignored);
}

/// Bound I: tolerance needs bound II as well, and a window to compare with.
#[test]
fn the_verdict_follows_from_the_operands_alone() {
    let overshot = WindowCheck {
        direction: Direction::Original,
        seq: 3001,
        end: 3001,
        ack: 70_000,
        sack: 70_000,
        sender_end: 1000,
        sender_maxend: 3000,
        sender_maxwin: 500,
        receiver_end: 70_000,
        receiver_maxwin: 2000,
    };
    assert_eq!(overshot.verdict(), WindowVerdict::Overshot);
    for other in [
        WindowCheck { sender_end: 5002, ..overshot },
        WindowCheck { receiver_maxwin: 0, ..overshot },
        WindowCheck { receiver_maxwin: 1, ..overshot },
        WindowCheck { sack: 70_001, ..overshot },
        WindowCheck { sack: 3999, ..overshot },
    ] {
        assert_eq!(other.verdict(), WindowVerdict::SeqOver);
    }
    assert_eq!(WindowCheck { sender_end: 5001, ..overshot }.verdict(), WindowVerdict::Overshot);
    assert_eq!(WindowCheck { sack: 4000, ..overshot }.verdict(), WindowVerdict::Overshot);
}

/// The order of the bounds: I, III, II, IV.
#[test]
fn an_invalid_bound_is_named_before_an_ignored_one() {
    let mut flow = Flow::established();
    let said = flow.client(ack(C1 - SERVER_WINDOW - 1, S1 + 1));
    assert_eq!((said, verdict(&flow)), (Invalid("tcp.ack_over_upper_bound"), WindowVerdict::AckOver));
    flow.client(ack(C1 - SERVER_WINDOW - 1, S1 - 66_001));
    assert_eq!(verdict(&flow), WindowVerdict::SeqUnder);
}

/// Numbers wrap at 2^32.
#[test]
fn sequence_numbers_wrap() {
    let mut flow = Flow::default();
    let (c, s) = (u32::MAX, u32::MAX - 5);
    flow.client(syn(c));
    assert_eq!(flow.server(synack(s, 0)), Accepted(60));
    assert_eq!(flow.client(ack(0, s + 1).len(500)), Accepted(300));
    assert_eq!(flow.server(ack(s + 1, 500).len(100)), Accepted(300));
    assert_eq!(flow.client(ack(500, 95)), Accepted(432_000));
}

/// W0: the SACK edge counts as an acknowledgment if its receiver permitted SACK.
#[test]
fn a_sack_edge_beyond_what_was_seen_is_an_ack_over_the_upper_bound() {
    for (permitted, said) in [(true, Invalid("tcp.ack_over_upper_bound")), (false, Accepted(432_000))] {
        let mut flow = Flow::default();
        let options: &[u8] = if permitted { &[4, 2] } else { &[1] };
        flow.client(syn(CLIENT).opt(&[4, 2]));
        flow.server(synack(SERVER, C1).opt(options));
        flow.client(ack(C1, S1));
        assert_eq!(flow.client(ack(C1, S1).sack(S1, S1 + 1)), said);
        assert_eq!(flow.client(ack(C1, S1).sack(S1 - 10, S1)), Accepted(432_000));
    }
}

/// W0: the highest edge of the first SACK option; options that cannot be right end the list.
#[test]
fn which_sack_edge_counts() {
    let sack_seen = |options: &[u8]| {
        let mut flow = Flow::default();
        flow.client(syn(CLIENT).opt(&[4, 2]));
        flow.server(synack(SERVER, C1).opt(&[4, 2]));
        flow.server(ack(S1, C1).len(900));
        flow.client(ack(C1, S1).opt(options));
        window(&flow).0.sack - S1
    };
    let block = |right: u32| [&[0; 4][..], &(S1 + right).to_be_bytes()[..]].concat();
    let option = |blocks: &[u32]| {
        let mut bytes = vec![5, 2 + 8 * blocks.len() as u8];
        blocks.iter().for_each(|b| bytes.extend(block(*b)));
        bytes
    };
    assert_eq!(sack_seen(&option(&[7])), 7);
    assert_eq!(sack_seen(&option(&[7, 500, 9])), 500);
    assert_eq!(sack_seen(&[option(&[7]), option(&[9])].concat()), 7, "only the first option");
    assert_eq!(sack_seen(&[&[1, 8, 10][..], &[0; 8], &option(&[7])].concat()), 7, "behind a timestamp");
    assert_eq!(sack_seen(&[&[5, 9][..], &[0xff; 7], &option(&[7])].concat()), 7, "a SACK of no whole blocks is none");
    assert_eq!(sack_seen(&[&[5, 2][..], &option(&[7])].concat()), 7, "nor is an empty one");
    assert_eq!(sack_seen(&[&[0][..], &option(&[7])].concat()), 0, "behind the end of options");
    assert_eq!(sack_seen(&[&[9, 1][..], &option(&[7])].concat()), 0, "behind a length below 2");
    assert_eq!(sack_seen(&[&[9, 60][..], &option(&[7])].concat()), 0, "behind a length beyond the header");
}

/// W1: both SYNs must offer scaling (RFC 7323).
#[test]
fn scaling_needs_both_sides() {
    let scales = |client: &[u8], server: &[u8]| {
        let mut flow = Flow::default();
        flow.client(syn(CLIENT).opt(client));
        flow.server(synack(SERVER, C1).opt(server));
        let off = flow.told(|s| *s == TcpStep::ScalingOff);
        (flow.scale(Direction::Original), flow.scale(Direction::Reply), off)
    };
    assert_eq!(scales(&[3, 3, 7], &[3, 3, 0]), (7, 0, false));
    assert_eq!(scales(&[3, 3, 7], &[4, 2]), (0, 0, true));
    assert_eq!(scales(&[4, 2], &[3, 3, 7]), (0, 0, true));
    assert_eq!(scales(&[3, 3, 7], &[]), (0, 0, true));
    assert_eq!(scales(&[3, 2, 7], &[3, 3, 2]), (0, 0, true), "a window scale of the wrong length is none");
    assert_eq!(scales(&[3, 3, 7, 3, 3, 2], &[3, 3, 2]), (2, 2, false), "the last one counts");
}

/// Update: windows are scaled, but not those of SYNs.
#[test]
fn a_scaled_window_opens_the_way_for_the_other_side() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT).win(10).opt(&[3, 3, 4]));
    flow.server(synack(SERVER, C1).win(10).opt(&[3, 3, 4]));
    assert!(flow.told(|s| matches!(s, TcpStep::WindowUpdated { peer_td_maxend, .. } if *peer_td_maxend == C1 + 10)));
    flow.client(ack(C1, S1).win(10));
    assert!(flow.told(
        |s| matches!(s, TcpStep::WindowUpdated { peer_td_maxend, td_maxwin: 160, .. } if *peer_td_maxend == S1 + 160)
    ));
}

/// Update: a window of 0 leaves room for one byte, a probe.
#[test]
fn a_zero_window_lets_a_probe_through() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    flow.server(synack(SERVER, C1).win(0));
    assert_eq!(flow.client(ack(C1, S1)), Accepted(432_000));
    assert_eq!(flow.client(ack(C1 + 1, S1)), Accepted(300));
    assert_eq!(flow.client(ack(C1 + 2, S1)), Invalid("tcp.seq_over_upper_bound"));
    assert_eq!(window(&flow).0.receiver_maxwin, 1, "what is known of a window is never 0");
}

/// Update: data beyond the window widens what the receiver is known to take.
#[test]
fn data_beyond_the_window_widens_it() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(ack(C1, S1).len(2500)), Accepted(300));
    assert!(flow.told(|s| matches!(s, TcpStep::WindowUpdated { peer_td_maxwin: 2500, .. })));
}

/// W1: the answer to a keepalive acknowledges the byte that is resent.
#[test]
fn a_pickup_at_a_keepalive() {
    let mut flow = Flow::default();
    assert_eq!(flow.client(ack(999, 2000)), Accepted(300), "a keepalive lies one below");
    assert_eq!(flow.server(ack(2000, 1000)), Accepted(300));
    assert!(flow.told(|s| matches!(s, TcpStep::KeepaliveAnswered { td_end: 1000 })));
    assert_eq!(flow.client(ack(1000, 2000).len(5)), Accepted(300));
    assert_eq!(flow.server(ack(2000, 1005)), Accepted(432_000));
}

/// W3.
#[test]
fn an_rst_without_ack_is_not_measured_by_it() {
    let mut flow = Flow::established();
    assert_eq!(flow.server(seg(0x04, S1, 0xdead_beef)), Accepted(10));
    assert_eq!(window(&flow).0.ack, C1);
}

/// BE_LIBERAL by flag and by sysctl: accepted, and nothing learnt.
#[test]
fn a_liberal_check_forgives_without_learning() {
    let mut flow = Flow::established();
    flow.sysctls.tcp_be_liberal = true;
    for far in [ack(C1 + 1_000_000, S1), ack(C1, S1 + 5), ack(C1 - 5000, S1), ack(C1, S1 - 70_000)] {
        assert_eq!(flow.client(far.len(3)), Accepted(432_000));
        assert!(flow.told(|s| *s == TcpStep::Liberal(Liberal::Sysctl)));
        assert!(!flow.told(|s| matches!(s, TcpStep::WindowUpdated { .. })));
    }
    assert_eq!(flow.client(ack(C1 + SERVER_WINDOW + 1, S1).len(3)), Accepted(300), "but an overshot moves the end");
    assert_eq!(window(&flow).1, WindowVerdict::Overshot);

    let mut flow = Flow::default();
    flow.client(ack(7, 9));
    assert_eq!(flow.client(ack(0x7000_0007, 9)), Accepted(300));
    assert!(flow.told(|s| *s == TcpStep::Liberal(Liberal::Flag)));
}

/// TCP-WIN-LOWER.
#[test]
fn invalid_fins_and_rsts_of_both_sides_lower_the_timeout() {
    let far = |seq: u32| seq + 1_000_000;
    let mut flow = Flow::established();
    assert_eq!(flow.client(fin(far(C1), S1)), Invalid("tcp.seq_over_upper_bound"));
    assert!(flow.told(|s| matches!(s, TcpStep::InvalidEndRemembered { .. })));
    assert_eq!((flow.client(rst(far(C1))), flow.lowered), (Invalid("tcp.seq_over_upper_bound"), None), "the same side");
    assert_eq!((flow.server(rst(far(S1))), flow.lowered), (Invalid("tcp.seq_over_upper_bound"), Some(300)));
    assert_eq!((flow.state(), flow.timeout()), (TcpState::Established, 300));
    assert_eq!((flow.server(rst(far(S1))), flow.lowered), (Invalid("tcp.seq_over_upper_bound"), None), "once");

    let second = |timeout, sysctl, first: Seg| {
        let mut flow = Flow::established();
        flow.sysctls.tcp_timeout_unacknowledged = sysctl;
        flow.client(first);
        flow.entry.as_mut().unwrap().timeout = timeout;
        flow.server(fin(far(S1), C1));
        flow.lowered
    };
    assert_eq!(second(301, 300, fin(far(C1), S1)), Some(300));
    assert_eq!(second(300, 300, fin(far(C1), S1)), None, "not above what it would become");
    assert_eq!(second(120, 60, fin(far(C1), S1)), Some(60));
    assert_eq!(second(119, 60, fin(far(C1), S1)), None, "below 120 s it is left alone");
    assert_eq!(second(1000, 300, ack(far(C1), S1)), None, "an invalid ACK is no end");
    assert_eq!(second(1000, 300, rst(C1 - 1)), None, "an RST below what was acknowledged is not remembered");
}

/// TCP-WIN-LOWER concerns ASSURED entries only, whose timeout may change.
#[test]
fn the_timeout_of_an_entry_not_assured_or_fixed_is_not_lowered() {
    let mut flow = Flow::default();
    flow.client(syn(CLIENT));
    flow.server(synack(SERVER, C1));
    flow.client(fin(C1 + 1_000_000, S1));
    assert!(!flow.told(|s| matches!(s, TcpStep::InvalidEndRemembered { .. })));

    let mut flow = Flow::established();
    flow.entry.as_mut().unwrap().status |= Status::FIXED_TIMEOUT;
    flow.client(fin(C1 + 1_000_000, S1));
    flow.server(fin(S1 + 1_000_000, C1));
    assert_eq!(flow.lowered, None, "nor that of one whose timeout is fixed");
}

/// E.7: data that is not acknowledged.
#[test]
fn unacknowledged_data_shortens_the_timeout() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(ack(C1, S1).len(10)), Accepted(300));
    assert_eq!(cause(&flow), TimeoutCause::Unacknowledged);
    assert_eq!(flow.server(ack(S1, C1 + 9)), Accepted(300), "all of it must be");
    assert_eq!(flow.server(ack(S1, C1 + 10)), Accepted(432_000));
    assert_eq!(cause(&flow), TimeoutCause::State(TcpState::Established));
}

/// E.7: the same pure ACK three times again, until a different one.
#[test]
fn repeated_acks_shorten_the_timeout() {
    let mut flow = Flow::established();
    let mut said = Vec::new();
    for _ in 0..4 {
        said.push(flow.client(ack(C1, S1)));
    }
    let (long, short) = (Accepted(432_000), Accepted(300));
    assert_eq!(said, [long, long, short, short], "the ACK of the handshake was the first of them");
    assert_eq!(cause(&flow), TimeoutCause::Retransmissions { times: 4 });
    assert_eq!(flow.client(ack(C1, S1).win(999)), long);
}

/// E.7: the count of repetitions is a byte, so after 256 of them it is as if there were none.
#[test]
fn the_count_of_repeated_acks_wraps() {
    let mut flow = Flow::established();
    let said: Vec<_> = (1..=259).map(|_| flow.client(ack(C1, S1))).collect();
    assert_eq!(said[254..], [300, 432_000, 432_000, 432_000, 300].map(Accepted));
}

/// E.7: the order of the first two rules.
#[test]
fn an_rst_gives_the_timeout_of_close_unless_acks_were_repeated() {
    let mut flow = Flow::established();
    assert_eq!(flow.server(rst(S1 + 1)), Accepted(10));
    assert_eq!(cause(&flow), TimeoutCause::Rst);
    let mut flow = Flow::established();
    for _ in 0..3 {
        flow.client(ack(C1, S1));
    }
    assert_eq!(flow.server(rst(S1 + 1)), Accepted(300));
    assert_eq!(cause(&flow), TimeoutCause::Retransmissions { times: 3 });
}

/// VER-02, TCP-RST-04: what an RST that is not believed does to the timeout of the connection.
#[test]
fn an_rst_that_leaves_it_established_is_unacknowledged_data_in_some_releases() {
    let after = |release: &str, sysctl: Option<u32>| {
        let mut flow = Flow::established();
        flow.kernel = Profile::for_release(release).unwrap();
        if let Some(seconds) = sysctl {
            flow.sysctls.tcp_timeout_unacknowledged = seconds;
        }
        let said = flow.server(rst(S1 + 1));
        assert_eq!(flow.state(), TcpState::Established);
        (said, cause(&flow))
    };
    for release in ["6.1.192", "6.12.48", "6.12.116", "6.13.1", "6.18.44"] {
        assert_eq!(after(release, None), (Accepted(10), TimeoutCause::Rst), "{release}");
    }
    assert_eq!(after("6.12.117", None), (Accepted(300), TimeoutCause::OpenRst));
    assert_eq!(after("6.12", None), (Accepted(300), TimeoutCause::OpenRst));
    let established = TimeoutCause::State(TcpState::Established);
    assert_eq!(after("6.12", Some(500_000)), (Accepted(432_000), established), "it never lengthens a life");
    // One that closes has the timeout of CLOSE everywhere.
    let mut flow = Flow { kernel: Profile::for_release("6.12").unwrap(), ..Flow::established() };
    assert_eq!((flow.server(rst(S1)), flow.state()), (Accepted(10), TcpState::Close));
    assert_eq!(cause(&flow), TimeoutCause::State(TcpState::Close));
}

/// E.7: a window of 0.
#[test]
fn a_zero_window_shortens_the_timeout() {
    let mut flow = Flow::established();
    assert_eq!(flow.client(ack(C1, S1).win(0)), Accepted(300));
    assert_eq!(cause(&flow), TimeoutCause::ZeroWindow);
    assert_eq!(flow.client(ack(C1, S1).win(1)), Accepted(432_000));
}

/// E.7: each state has its sysctl.
#[test]
fn every_state_has_its_timeout() {
    use ctwhy_core::track::tcp::timeout::of_state;
    let sysctls = ctwhy_core::sysctl::Sysctls::default();
    let seconds = TcpState::ALL.map(|state| of_state(&sysctls, state));
    assert_eq!(seconds, [120, 120, 60, 432_000, 120, 60, 30, 120, 10, 120]);
}
