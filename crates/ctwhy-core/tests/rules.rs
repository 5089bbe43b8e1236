//! Rules of raw, mangle and filter: their text, and the order in which a packet meets them. What they do to packets is
//! shown by cases recorded from a kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod common;

use common::*;
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::event::Causes;
use ctwhy_core::hook::{DropCause, Egress, Engine, Hook, Unseen, Verdict};
use ctwhy_core::network::{Interface, InterfaceAddress};
use ctwhy_core::rules::iptables::{RuleErrorKind, parse};
use ctwhy_core::rules::matches::{Condition, ConntrackMatch, Masked};
use ctwhy_core::rules::target::{Ct, Masks, Reject, Target, ZoneFrom};
use ctwhy_core::rules::{Matches, Network, Rules, TableName};
use ctwhy_core::template::HelperName;
use ctwhy_core::time::Time;
use ctwhy_core::trace::{Ruled, Step, Trace};
use ctwhy_core::tuple::L3;

fn rules(text: &str) -> Rules {
    parse(text, L3::V4).unwrap().rules
}

/// Printed by iptables-save 1.8.9 (nf_tables).
const SAVED: &str = r#"*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p udp -m udp --dport 99 -j CT --helper tftp --ctevents new,destroy,assured --zone-orig 7
-A PREROUTING -p udp -m udp --dport 98 -j CT --zone mark
-A PREROUTING -p icmp -m icmp --icmp-type 8
-A PREROUTING -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j NOTRACK
-A PREROUTING -j CT
COMMIT
*mangle
-A PREROUTING -j MARK --set-xmark 0x5/0x7
-A PREROUTING -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xf
-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff
-A PREROUTING -m mark ! --mark 0x5/0x7 -m connmark --mark 0x5 -j CONNMARK --set-xmark 0x5/0x7
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:own - [0:0]
-A INPUT -m state --state NEW,UNTRACKED -j NFLOG --nflog-prefix "a b" --nflog-group 3
-A INPUT -m conntrack ! --ctstate INVALID --ctdir REPLY -j LOG --log-prefix "x y"
-A INPUT -p tcp -j REJECT --reject-with tcp-reset
-A INPUT -j REJECT --reject-with icmp-port-unreachable
-A INPUT -g own
-A INPUT -j own
-A own -j RETURN
COMMIT
"#;

#[test]
fn what_iptables_save_prints() {
    let rules = rules(SAVED);
    let (raw, mangle, filter) = (rules.raw.unwrap(), rules.mangle.unwrap(), rules.filter.unwrap());
    let targets: Vec<Target> = raw.prerouting.rules.iter().map(|rule| rule.target).collect();
    let tftp = Ct {
        zone: Some(ZoneFrom::Number(7)),
        only: Some(Direction::Original),
        helper: HelperName::new("tftp"),
        events: Some(Causes::NEW | Causes::DESTROY | Causes::ASSURED),
    };
    let by_mark = Ct { zone: Some(ZoneFrom::Mark), ..Ct::default() };
    assert_eq!(targets, [Target::Ct(tftp), Target::Ct(by_mark), Target::NoTrack, Target::Ct(Ct::default())]);
    let targets: Vec<Target> = mangle.prerouting.rules.iter().map(|rule| rule.target).collect();
    let five = Masked { value: 5, mask: 7 };
    assert_eq!(
        targets,
        [
            Target::Mark(five),
            Target::SaveMark(Masks { packet: u32::MAX, flow: 0xf }),
            Target::RestoreMark(Masks { packet: 0xff, flow: 0xff }),
            Target::SetConnMark(five),
        ]
    );
    let asks = &mangle.prerouting.rules[3].matches;
    let mark = Some(Condition { value: five, negated: true });
    let connmark = Some(Condition { value: Masked { value: 5, mask: u32::MAX }, negated: false });
    assert_eq!(*asks, Matches { mark, connmark, ..Matches::default() });
    assert!(filter.forward.drops && !filter.input.drops);
    let targets: Vec<Target> = filter.input.rules.iter().map(|rule| rule.target).collect();
    assert_eq!(
        targets[..4],
        [Target::Log, Target::Log, Target::Reject(Reject::RESET), Target::Reject(Reject::DEFAULT_V4)]
    );
    assert!(matches!(targets[4..], [Target::Goto(goto), Target::Jump(jump)] if goto == jump));
    assert_eq!(filter.own[0].rules[0].target, Target::Return);
    let [ConntrackMatch { states: Some(states), direction: Some(Direction::Reply), status: None }] =
        filter.input.rules[1].matches.conntrack[..]
    else {
        panic!("{:?}", filter.input.rules[1])
    };
    assert!(states.negated);
}

#[test]
fn every_refusal_names_its_word() {
    use RuleErrorKind::*;
    for (table, rule, word, kind) in [
        ("filter", "-A FORWARD -j CT --zone 5", "CT", TargetInTable { table: TableName::Raw }),
        ("mangle", "-A FORWARD -j NOTRACK", "NOTRACK", TargetInTable { table: TableName::Raw }),
        ("mangle", "-A FORWARD -j REJECT", "REJECT", TargetInTable { table: TableName::Filter }),
        ("filter", "-A FORWARD -j MASQUERADE", "MASQUERADE", TargetInTable { table: TableName::Nat }),
        ("filter", "-A PREROUTING -j ACCEPT", "PREROUTING", NoChain { table: TableName::Filter }),
        ("raw", "-A PREROUTING -j CT --zone 65536", "65536", Zone),
        ("raw", "-A PREROUTING -j CT --zone 1 --zone-orig 2", "--zone-orig", ZoneTwice),
        ("raw", "-A PREROUTING -j CT --helper much-too-long-a-name", "much-too-long-a-name", Helper),
        ("raw", "-A PREROUTING -j CT --ctevents new,seqadj", "new,seqadj", Events),
        ("raw", "-A PREROUTING -j CT --timeout policy", "--timeout", UnknownOption),
        ("filter", "-A INPUT -m conntrack -j ACCEPT", "conntrack", SaysNothing),
        ("filter", "-A INPUT -m conntrack --ctstate NEW,OLD -j ACCEPT", "NEW,OLD", States),
        ("filter", "-A INPUT -m conntrack --ctstatus DYING -j ACCEPT", "DYING", StatusBits),
        ("filter", "-A INPUT -m conntrack --ctdir BOTH -j ACCEPT", "BOTH", CtDirection),
        ("filter", "-A INPUT -m conntrack ! --ctdir REPLY -j ACCEPT", "--ctdir", NotNegatable),
        ("filter", "-A INPUT --ctstate NEW -j ACCEPT", "--ctstate", UnknownOption),
        ("filter", "-A INPUT -m mark --mark x -j ACCEPT", "x", Mark),
        ("filter", "-A INPUT -p tcp --tcp-flags SYN,X SYN -j ACCEPT", "SYN,X", TcpFlags),
        ("filter", "-A INPUT --syn -j ACCEPT", "--syn", MatchNeedsProtocol),
        ("filter", "-A INPUT -p icmp --icmp-type 300 -j ACCEPT", "300", IcmpType),
        ("filter", "-A INPUT -p icmp --icmpv6-type 1 -j ACCEPT", "--icmpv6-type", OtherFamily),
        ("filter", "-A INPUT -j REJECT --reject-with icmp6-no-route", "icmp6-no-route", RejectWith),
        ("filter", "-A INPUT -j REJECT --reject-with tcp-reset", "tcp-reset", ResetNeedsTcp),
        ("filter", "-A INPUT -j own", "own", UnknownTarget),
        ("filter", ":own - [0:0]\n-A INPUT -j own\n-A own -g own", "own", TooDeep),
        ("mangle", "-A INPUT -j MARK", "", Missing { what: "--set-mark MARK" }),
        ("mangle", "-A INPUT -j MARK --save-mark", "--save-mark", NoTargetOf),
        ("mangle", "-A INPUT -j CONNMARK --save-mark --restore-mark", "--restore-mark", NoTargetOf),
    ] {
        let error = parse(&format!("*{table}\n{rule}\nCOMMIT\n"), L3::V4).unwrap_err();
        assert_eq!((error.word.as_str(), error.kind), (word, kind), "{rule}");
        assert!(error.to_string().len() > 30);
    }
    let v6 = parse("*filter\n-A INPUT -p icmpv6 --icmpv6-type 1/4 -j REJECT\nCOMMIT\n", L3::V6).unwrap().rules;
    let rule = &v6.filter.unwrap().input.rules[0];
    assert_eq!(
        (rule.matches.icmp_type.unwrap().value, rule.target),
        ((1, Some(4)), Target::Reject(Reject::DEFAULT_V6))
    );
}

#[test]
fn chains_within_chains_end_where_they_must() {
    let chain = |depth: usize| {
        let mut text = "*filter\n".to_owned();
        (0..depth).for_each(|at| text += &format!(":c{at} -\n"));
        text += "-A FORWARD -j c0\n";
        (1..depth).for_each(|at| text += &format!("-A c{} -j c{at}\n", at - 1));
        text += &format!("-A c{} -j DROP\nCOMMIT\n", depth - 1);
        text
    };
    let mut engine = nat_box(|_| ctwhy_core::nat::rules::Ruleset::default());
    engine.rules4.filter = rules(&chain(15)).filter;
    let dropped = receive(&mut engine, &udp(CLIENT, 1, SERVER, 2, b"")).verdict;
    let line = Some(32);
    let (table, hook) = (TableName::Filter, Hook::Forward);
    assert_eq!(dropped, Verdict::Drop(DropCause::Rule { table, hook, line, reject: None }));
    assert_eq!(parse(&chain(16), L3::V4).unwrap_err().kind, RuleErrorKind::TooDeep);
}

#[test]
fn a_packet_that_raw_drops_never_comes_to_conntrack() {
    let mut engine = Engine::new(0);
    engine.rules4 = rules("*raw\n-A PREROUTING -p udp -j DROP\nCOMMIT\n");
    let (ruling, _) = receive_at(&mut engine, &udp(CLIENT, 1, SERVER, 2, b""), Time(0));
    assert_eq!(ruling.ctinfo, Err(Unseen::Raw { line: Some(2) }));
    let (table, hook) = (TableName::Raw, Hook::PreRouting);
    assert_eq!(ruling.verdict, Verdict::Drop(DropCause::Rule { table, hook, line: Some(2), reject: None }));
}

/// CORE-HOOK-04: the packet is NEW at all four hooks, and counted once.
#[test]
fn core_hook_04_a_packet_to_oneself_is_tracked_once() {
    let own = Network { address: ip("127.0.0.1").into(), prefix: 8 };
    let mut engine = Engine::new(0);
    engine.network.interfaces = vec![Interface {
        name: "lo".into(),
        addresses: vec![InterfaceAddress { l3num: L3::V4, network: own }],
        mtu: None,
    }];
    engine.conntrack.sysctls.acct = true;
    let log = |hook: &str| format!("-A {hook} -m conntrack --ctstate NEW --ctdir ORIGINAL -j NFLOG\n");
    let text = ["OUTPUT", "POSTROUTING", "PREROUTING", "INPUT"].map(log).concat();
    engine.rules4 =
        rules(&format!("*mangle\n{text}COMMIT\n*filter\n-A OUTPUT -o lo -j NFLOG\n-A INPUT -i lo -j NFLOG\nCOMMIT\n"));
    let mut trace = Trace::default();
    let mut packet = udp("127.0.0.1", 1, "127.0.0.1", 2, b"me");
    let ruling = engine.send(&mut packet, None, Time(0), &mut trace);
    assert_eq!((ruling.ctinfo, ruling.verdict, ruling.egress), (Ok(CtInfo::New), Verdict::Accept, Egress::Local));
    let hooks: Vec<(TableName, Hook)> = trace
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Ruled { table, hook, did: Ruled::Logged, .. } => Some((*table, *hook)),
            _ => None,
        })
        .collect();
    let mangle = |hook| (TableName::Mangle, hook);
    let filter = |hook| (TableName::Filter, hook);
    assert_eq!(
        hooks,
        [
            mangle(Hook::LocalOut),
            filter(Hook::LocalOut),
            mangle(Hook::PostRouting),
            mangle(Hook::PreRouting),
            mangle(Hook::LocalIn),
            filter(Hook::LocalIn),
        ]
    );
    let entry = engine.conntrack.table.get(ruling.entry().unwrap()).unwrap();
    assert_eq!(entry.flow.counters.unwrap().map(|counter| counter.packets), [1, 0]);
}
