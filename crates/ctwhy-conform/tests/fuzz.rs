//! A short differential run of every suite, and the proof that such a run finds what differs.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use ctwhy_conform::fuzz::{self, Limits, Progress, Report, Suite};
use ctwhy_conform::record::record;
use ctwhy_conform::replay::replay;
use ctwhy_fixture::case::{Case, Tolerance, compare};
use ctwhy_linux::testing::require_lab;

fn run(suite: Suite, limits: Limits) -> Report {
    fuzz::run(suite, 1, &Limits { disagreements: 1, ..limits }, &Progress::default()).unwrap()
}

/// What every suite comes to.
const COMMON: [&str; 7] = [
    "NEW",
    "ESTABLISHED",
    "ESTABLISHED_REPLY",
    "RELATED",
    "RELATED_REPLY",
    "icmp.quoted_unknown_flow",
    "icmp.outer_daddr_mismatch",
];

/// What only some do.
fn decisions(suite: Suite) -> &'static [&'static str] {
    match suite {
        Suite::UdpIcmp => {
            &["udp.checksum", "udp.length", "udp.short", "icmp.checksum", "icmp.unknown_type", "icmp.unsolicited"]
        }
        Suite::Icmpv6 => &["UNTRACKED", "icmp.redirect_off_link", "icmp.redirect_short", "icmp.redirect_no_options"],
        Suite::TcpTame => &["tcp.bad_checksum", "tcp.invalid_state"],
        Suite::TcpWild => &["tcp.ack_over_upper_bound", "tcp.seq_over_upper_bound", "tcp.bad_flags", "tcp.invalid_rst"],
        Suite::Sctp => {
            &["sctp.tag", "sctp.chunk_tag", "sctp.heartbeat_tag", "sctp.init_ack_tag", "sctp.chunk_not_alone"]
        }
        Suite::GreRest => &["tuple.gre_payload", "udplite.short", "unseen"],
        Suite::NatV4 | Suite::NatV6 => &["tcp.seq_over_upper_bound", "udp.checksum", "sctp.tag"],
        Suite::Fragments => &[
            "fragment.incomplete",
            "fragment.overlap",
            "fragment.duplicate",
            "fragment.ecn",
            "fragment.past_end",
            "fragment.last_differs",
            "fragment.empty",
        ],
        _ => &[],
    }
}

#[test]
fn the_kernels_nat_and_ours_leave_the_same_bytes() {
    if !require_lab() {
        return;
    }
    for suite in Suite::TRANSLATIONS {
        let report = run(suite, Limits { packets: Some(6_000), ..Limits::default() });
        assert!(report.disagreements.is_empty(), "{suite}: {:?}", report.disagreements);
        assert!(report.packets == 6_000 && report.entries > 100, "{suite}: {report:?}");
        for decision in ["NEW", "ESTABLISHED_REPLY", "RELATED", "RELATED_REPLY"] {
            assert!(report.decisions.contains_key(decision), "{suite}: no {decision} among {:?}", report.decisions);
        }
    }
}

#[test]
fn a_short_run_of_every_suite_agrees() {
    if !require_lab() {
        return;
    }
    const PACKETS: u64 = 20_000;
    for suite in Suite::ALL {
        let report = run(suite, Limits { packets: Some(PACKETS), ..Limits::default() });
        assert!(report.disagreements.is_empty(), "{suite}: {:?}", report.disagreements);
        assert_eq!(report.packets, PACKETS, "{suite}");
        assert!(report.entries > 0, "{suite}");
        // A suite in which everything is NEW, or everything INVALID, shows nothing.
        for needed in COMMON.iter().chain(decisions(suite)) {
            assert!(report.decisions.contains_key(needed), "{suite} has no {needed}: {:?}", report.decisions);
        }
    }
}

/// Differences of the engine, told other settings than the kernel had, about a case.
fn differences(case: &Case, engine: &Case) -> usize {
    let recording = record(case).unwrap().recording;
    let decided = replay(engine, &recording).unwrap();
    compare(&recording.outcome, &decided, Tolerance::default()).len()
}

#[test]
fn an_engine_that_is_told_something_else_is_found_out_with_few_packets() {
    if !require_lab() {
        return;
    }
    for (suite, name, value, most) in [
        (Suite::TcpWild, "net.netfilter.nf_conntrack_tcp_be_liberal", "1", 6),
        (Suite::UdpIcmp, "net.netfilter.nf_conntrack_udp_timeout", "77", 1),
    ] {
        let engine_only = [(name.to_owned(), value.to_owned())].into();
        let report = run(suite, Limits { packets: Some(100_000), engine_only, ..Limits::default() });
        let [found] = &report.disagreements[..] else { panic!("{suite}: {:?}", report.disagreements) };
        let (case, difference) = found.case.as_ref().unwrap();
        assert!((1..=most).contains(&case.packets.len()), "{suite}: {} packets, {difference}", case.packets.len());
        assert!(case.spec.title.contains(suite.name()), "{}", case.spec.title);
        // The case shows the same outside of the run, and nothing when the engine is told what the kernel is.
        let mut wrong = case.clone();
        wrong.spec.sysctls.insert(name.to_owned(), value.to_owned());
        assert!(differences(case, &wrong) > 0, "{suite}: {difference}");
        assert_eq!(differences(case, case), 0, "{suite}: {difference}");
    }
}

#[test]
fn the_same_seed_makes_the_same_packets() {
    if !require_lab() {
        return;
    }
    let limits = Limits { packets: Some(5_000), ..Limits::default() };
    let [one, other] = [(); 2].map(|()| run(Suite::TcpWild, limits.clone()).decisions);
    assert_eq!(one, other);
    let another = fuzz::run(Suite::TcpWild, 2, &limits, &Progress::default()).unwrap();
    assert_ne!(one, another.decisions);
}
