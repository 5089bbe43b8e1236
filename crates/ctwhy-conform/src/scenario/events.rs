//! What ctnetlink tells of flows, and when (catalogue I), and what is counted (A.8).

use super::{Builder, Family, Scenario};
use crate::compose::{Body, Ip, Tcp, flag, udp};

const ACCT: (&str, &str) = ("net.netfilter.nf_conntrack_acct", "1");

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "events-pending-masquerade",
        families: &Family::BOTH,
        title: "A reply that is dropped on its way leaves its event for the next packet",
        shows: "NAT drops the first answer, of a version of GRE that it does not know, but it has turned the flow into one \
                that was answered. The UPDATE comes with the second answer, at the last hook, and tells of both: the reply, \
                and that the flow is ASSURED.",
        ids: &["NEW-05", "NEW-06", "NEW-07", "OBS-07", "NAT-MAN-06"],
        compose: |b| {
            let gre = |version: u8| move |_: &Ip| Body::new(47, [0, version, 0x08, 0, 1, 2, 3, 4]);
            b.masquerade().sends(gre(0));
            b.answers(gre(2));
            b.answers(gre(0));
            b.answers(gre(0));
        },
    },
    Scenario {
        name: "events-of-dropped-reply",
        families: &Family::BOTH,
        title: "The box's complaint about a reply tells of the reply",
        shows: "An answer ends at the box, which has nobody to send it to: its TTL is used up. The time exceeded of the box \
                carries the entry of the flow and leaves by the last hook, and with it the UPDATE that the answer caused.",
        ids: &["NEW-05", "NEW-07", "ICMP-LOC-01"],
        compose: |b| {
            b.probe();
            let back = Ip::between(b.server, b.client).ttl(1);
            b.wan(back.packet(udp(&back, 33_434, 40_000, b"I do")));
            b.probe();
        },
    },
    Scenario {
        name: "events-of-errors",
        families: &Family::BOTH,
        title: "Nothing is told of errors and of new timeouts",
        shows: "Two datagrams and an error about them make one event: the flow is new. Neither the error nor the fresh timeout \
                is worth another.",
        ids: &["OBS-07", "ICMP-REL-10"],
        compose: |b| {
            let left = b.probe();
            b.probe();
            b.exceed(&left);
        },
    },
    Scenario {
        name: "events-expired",
        families: &Family::BOTH,
        title: "A flow that is over is deleted by whoever meets it",
        shows: "After a second the flow is over, which nobody notices until the next datagram: the DESTROY of the old entry \
                comes just before the NEW of its successor. A late answer begins a flow of its own.",
        ids: &["GC-01", "GC-03", "TUPLE-08", "OBS-08"],
        compose: |b| {
            b.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1").sysctl(ACCT.0, ACCT.1).probe();
            b.wait_ms(1_500).probe();
            b.wait_ms(1_500).answers(|ip| udp(ip, 33_434, 40_000, b"late"));
        },
    },
    Scenario {
        name: "events-killed-by-reset",
        families: &Family::BOTH,
        title: "A reset that ends a connection nobody had answered",
        shows: "The RST is counted, then the entry is deleted: its DESTROY tells the state CLOSE, what was left of its time, \
                and one packet in reply direction. The second connection was answered; its reset changes the state and \
                deletes nothing.",
        ids: &["ACCT-04", "OBS-08", "TCP-RST-05"],
        compose: |b| {
            b.sysctl(ACCT.0, ACCT.1);
            let segment =
                |sport, dport, seq, ack, flags| Tcp { sport, dport, seq, ack, flags, window: 1_000, ..Tcp::default() };
            b.sends(|ip| segment(40_000, 80, 1_000, 0, flag::SYN).body(ip));
            b.answers(|ip| segment(80, 40_000, 0, 1_001, flag::RST | flag::ACK).body(ip));
            b.sends(|ip| segment(40_001, 80, 1_000, 0, flag::SYN).body(ip));
            b.answers(|ip| segment(80, 40_001, 5_000, 1_001, flag::SYN | flag::ACK).body(ip));
            b.answers(|ip| segment(80, 40_001, 5_001, 1_001, flag::RST | flag::ACK).body(ip));
        },
    },
    Scenario {
        name: "events-reopened",
        families: &Family::BOTH,
        title: "A connection that takes the place of an old one",
        shows: "A SYN meets a connection in TIME_WAIT: the old entry is deleted, with what was left of its time, and a new one \
                begins.",
        ids: &["TCP-REOPEN-01", "OBS-08"],
        compose: |b| {
            let segment = |flags, seq, ack| Tcp { seq, ack, flags, window: 1_000, ..Tcp::syn() };
            let back = |flags, seq, ack| Tcp { sport: 80, dport: 40_000, ..segment(flags, seq, ack) };
            b.sysctl(ACCT.0, ACCT.1).sends(|ip| segment(flag::SYN, 1_000, 0).body(ip));
            b.answers(|ip| back(flag::SYN | flag::ACK, 5_000, 1_001).body(ip));
            b.sends(|ip| segment(flag::ACK | flag::FIN, 1_001, 5_001).body(ip));
            b.answers(|ip| back(flag::ACK | flag::FIN, 5_001, 1_002).body(ip));
            b.sends(|ip| segment(flag::ACK, 1_002, 5_002).body(ip));
            b.sends(|ip| segment(flag::SYN, 9_000, 0).body(ip));
        },
    },
    Scenario {
        name: "accounting",
        families: &Family::BOTH,
        title: "What is counted",
        shows: "With nf_conntrack_acct=1 an entry counts what its tracker accepts, with the length of the whole IP packet: \
                also a packet that the box then drops for its TTL. It does not count errors, datagrams that are INVALID, and \
                the repeated SYN of a connection that nobody has answered.",
        ids: &["ACCT-01", "ACCT-02", "ACCT-03"],
        compose: accounting,
    },
];

fn accounting(b: &mut Builder) {
    b.sysctl(ACCT.0, ACCT.1).masquerade();
    let left = b.probe();
    b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
    b.exceed(&left);
    let spent = b.inside().ttl(1);
    b.lan(spent.packet(udp(&spent, 40_000, 33_434, b"not far")));
    b.answers(|ip| udp(ip, 33_434, 40_000, b"I do").with(9, b'!'));
    b.sends(|ip| Tcp::syn().body(ip));
    b.sends(|ip| Tcp::syn().body(ip));
}
