//! How expectations end, and what counts it (EXP-09). Cases show it for those that come true, are replaced, are too many, or
//! lose their master. For those that are too old the kernel was watched by hand: no case waits five minutes.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use common::*;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{DropCause, Engine, Verdict};
use ctwhy_core::rules::iptables;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::L3;

/// Seconds that the helper of TFTP expects an answer.
const LIFE: u32 = 300;

fn at(secs: u32) -> Time {
    Time(0).plus_secs(secs)
}

/// A box that reads TFTP, and in which a request lives longer than what is expected because of it.
fn reads_tftp() -> Engine {
    let mut engine = Engine::new(0);
    let helper = "*raw\n-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp\nCOMMIT\n";
    engine.rules4 = iptables::parse(helper, L3::V4).unwrap().rules;
    engine.conntrack.sysctls.udp_timeout = 2 * LIFE;
    engine
}

/// A client asks for a file.
fn asks(engine: &mut Engine, port: u16, secs: u32) -> Verdict {
    receive_at(engine, &udp(CLIENT, port, SERVER, 69, b"\0\x01file\0octet\0"), at(secs)).0.verdict
}

/// The server answers from a port of its own.
fn answers(engine: &mut Engine, port: u16, secs: u32) -> CtInfo {
    receive_at(engine, &udp(SERVER, 3000, CLIENT, port, b"\0\x03\0\x01data"), at(secs)).0.ctinfo.unwrap()
}

/// Flows that had been expected, expectations that were made, expectations that are gone.
fn counted(engine: &Engine) -> [u64; 3] {
    let counters = engine.conntrack.table.counters;
    [counters.expect_new, counters.expect_create, counters.expect_delete]
}

#[test]
fn one_that_comes_true_and_one_that_is_made_anew() {
    let mut engine = reads_tftp();
    for secs in [0, 1] {
        assert_eq!(asks(&mut engine, 40_000, secs), Verdict::Accept);
    }
    assert_eq!(counted(&engine), [0, 2, 1]);
    // Made anew it lives anew.
    assert_eq!(answers(&mut engine, 40_000, LIFE), CtInfo::Related);
    assert_eq!(counted(&engine), [1, 2, 2]);
    assert!(engine.conntrack.table.expectations.is_empty());
}

#[test]
fn exp_09_one_that_is_too_old() {
    let mut engine = reads_tftp();
    asks(&mut engine, 40_000, 0);
    asks(&mut engine, 40_001, 0);
    assert_eq!(answers(&mut engine, 40_000, LIFE - 1), CtInfo::Related);
    assert_eq!(answers(&mut engine, 40_001, LIFE), CtInfo::New);
    assert_eq!(engine.conntrack.table.expectations.alive(at(LIFE)), []);
    // It is counted when it is met: by a sweep, or by the next that is made.
    assert_eq!(counted(&engine), [1, 2, 1]);
    let mut swept = engine.clone();
    swept.conntrack.table.sweep(at(LIFE), &mut ());
    assert_eq!(counted(&swept), [1, 2, 2]);
    asks(&mut engine, 40_002, LIFE);
    assert_eq!(counted(&engine), [1, 3, 2]);
}

#[test]
fn exp_09_one_that_loses_its_master() {
    let mut engine = reads_tftp();
    engine.conntrack.sysctls.udp_timeout = 30;
    asks(&mut engine, 40_000, 0);
    engine.conntrack.table.sweep(at(30), &mut ());
    assert_eq!((engine.conntrack.table.len(), counted(&engine)), (0, [0, 1, 1]));
    assert_eq!(answers(&mut engine, 40_000, 31), CtInfo::New);
}

#[test]
fn one_too_many_for_the_machine_costs_the_packet() {
    let mut engine = reads_tftp();
    engine.conntrack.table.expectations.max = 1;
    asks(&mut engine, 40_000, 0);
    let Verdict::Drop(DropCause::Helper(cause)) = asks(&mut engine, 40_001, 0) else { panic!() };
    assert_eq!(cause.code(), "helper.refused");
    assert_eq!(counted(&engine), [0, 1, 0]);
}
