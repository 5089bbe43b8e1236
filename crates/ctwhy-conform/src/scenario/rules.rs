//! Rules of raw, mangle and filter: what they ask of conntrack, what they see of it, and what they end (catalogue A.2, A.5
//! and I).

use std::net::IpAddr;

use super::{Builder, Family, Kind, Scenario, probe};
use crate::compose::{Ip, Tcp, flag, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "zone",
        families: &Family::BOTH,
        title: "A flow in a zone, and packets outside",
        shows: "Datagrams of the client are looked up in zone 5. The answer has no template and is looked up in zone 0: it \
                begins a flow of its own, and so does nothing after it find the other. An error about the client's datagram \
                finds the flow that the answer began.",
        ids: &["ZONE-01", "ZONE-02", "ZONE-03"],
        compose: |b| {
            b.rules("*raw\n-A PREROUTING -i lan -j CT --zone 5\nCOMMIT\n");
            let left = b.probe();
            b.exceed(&left);
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.exceed(&left).probe();
        },
    },
    Scenario {
        name: "zone-orig",
        families: &Family::BOTH,
        title: "A zone for the original direction only",
        shows: "The answer needs no template. An error about it does: it travels in original direction. Without one it is \
                INVALID, with one RELATED.",
        ids: &["ZONE-01", "ZONE-02", "ZONE-03"],
        compose: |b| {
            b.rules("*raw\n-A PREROUTING -i lan -p udp -j CT --zone-orig 5\nCOMMIT\n");
            one_way(b);
        },
    },
    Scenario {
        name: "zone-orig-errors",
        families: &Family::BOTH,
        title: "A zone for the original direction, and errors in it, too",
        shows: "As with a zone for datagrams only, but errors of the client have a template and find its flow.",
        ids: &["ZONE-01", "ZONE-03"],
        compose: |b| {
            b.rules("*raw\n-A PREROUTING -i lan -j CT --zone-orig 5\nCOMMIT\n");
            one_way(b);
        },
    },
    Scenario {
        name: "zone-reply",
        families: &Family::BOTH,
        title: "A zone for the reply direction only",
        shows: "The client's first packet brings the zone of the answers; they are found when they bring it, too.",
        ids: &["ZONE-01"],
        compose: |b| {
            b.rules("*raw\n-A PREROUTING -p udp -j CT --zone-reply 7\nCOMMIT\n");
            one_way(b);
        },
    },
    Scenario {
        name: "zone-mark",
        families: &Family::BOTH,
        title: "The number of a zone out of the mark",
        shows: "The low half of the packet's mark is the zone, as it is when the packet comes to conntrack: a rule behind the \
                one that asks for it still counts.",
        ids: &["ZONE-04"],
        compose: |b| {
            b.rules(
                "*raw\n\
                 -A PREROUTING -i lan -j MARK --set-xmark 0x10005/0xffffffff\n\
                 -A PREROUTING -j CT --zone mark\n\
                 -A PREROUTING -i lan -j MARK --set-xmark 0x1/0x1\n\
                 -A PREROUTING -i lan -j MARK --set-xmark 0x2/0x2\n\
                 COMMIT\n",
            );
            b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
        },
    },
    Scenario {
        name: "zone-snat-range",
        families: &Family::BOTH,
        title: "The zone is part of the draw from a range of addresses",
        shows: "Which address of a range a flow gets is a hash of its addresses and its zone.",
        ids: &["ZONE-01"],
        compose: |b| {
            let range = match b.family {
                Family::V4 => "203.0.113.16-203.0.113.200",
                Family::V6 => "2001:db8:113::16-2001:db8:113::200",
            };
            b.rules(&format!(
                "*raw\n\
                 -A PREROUTING -i lan -p udp -m udp --dport 1 -j CT --zone-orig 1\n\
                 -A PREROUTING -i lan -p udp -m udp --dport 2 -j CT --zone-orig 300\n\
                 COMMIT\n\
                 *nat\n-A POSTROUTING -o wan -j SNAT --to-source {range}\nCOMMIT\n"
            ));
            for port in [1, 2, 3] {
                let ip = b.inside();
                b.lan(ip.packet(udp(&ip, 40_000, port, b"which?")));
            }
        },
    },
    Scenario {
        name: "notrack",
        families: &Family::BOTH,
        title: "Datagrams that are not tracked, and their answer that is",
        shows: "The client's datagrams are UNTRACKED and leave no entry. The answer begins a flow: NEW. An error about a \
                datagram belongs to nothing before the answer, and to the answer's flow behind it.",
        ids: &["NOTRACK-01", "ICMP-REL-15"],
        compose: |b| {
            b.rules("*raw\n-A PREROUTING -i lan -p udp -j NOTRACK\nCOMMIT\n");
            let left = b.probe();
            b.exceed(&left);
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.probe();
            b.exceed(&left);
        },
    },
    Scenario {
        name: "notrack-masquerade",
        families: &Family::BOTH,
        title: "What is not tracked is not translated",
        shows: "The datagram leaves with the client's own address.",
        ids: &["NOTRACK-01", "NAT-SET-06"],
        compose: |b| {
            b.rules(
                "*raw\n-A PREROUTING -i lan -p udp -j CT --notrack\nCOMMIT\n\
                 *nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n",
            );
            b.probe();
        },
    },
    Scenario {
        name: "raw-first-template",
        families: &Family::BOTH,
        title: "The first rule that attaches something decides",
        shows: "Behind a template neither NOTRACK nor another template has an effect, and behind NOTRACK no template has.",
        ids: &["TMPL-01", "NOTRACK-01"],
        compose: |b| {
            b.rules(
                "*raw\n\
                 -A PREROUTING -i lan -p udp -m udp --dport 33434 -j CT --zone 5\n\
                 -A PREROUTING -i lan -p udp -j NOTRACK\n\
                 -A PREROUTING -i lan -j CT --zone 6\n\
                 COMMIT\n",
            );
            b.probe();
            let ip = b.inside();
            b.lan(ip.packet(udp(&ip, 40_000, 53, b"?")));
            b.sends(|ip| Tcp::syn().body(ip));
        },
    },
    Scenario {
        name: "raw-sees-invalid",
        families: &Family::BOTH,
        title: "What conntrack matches see in front of conntrack",
        shows: "In raw every packet is INVALID until a rule attaches something: with a template it is NEW, and CONFIRMED, which \
                no new packet ever is behind conntrack; with NOTRACK it is UNTRACKED.",
        ids: &["OBS-01", "OBS-02", "TMPL-01"],
        compose: |b| {
            b.rules(
                "*raw\n\
                 -A PREROUTING -i lan -m conntrack ! --ctstate INVALID -j DROP\n\
                 -A PREROUTING -i lan -m conntrack --ctdir ORIGINAL -j DROP\n\
                 -A PREROUTING -i lan -j CT --zone 3\n\
                 -A PREROUTING -i lan -p udp -m udp --dport 1 -m conntrack --ctstate NEW --ctdir ORIGINAL -j DROP\n\
                 -A PREROUTING -i lan -p udp -m udp --dport 2 -m conntrack --ctstate INVALID -j DROP\n\
                 -A PREROUTING -i lan -p udp -m udp --dport 3 -m conntrack --ctstatus CONFIRMED -j DROP\n\
                 COMMIT\n",
            );
            for port in [1, 2, 3, 4] {
                let ip = b.inside();
                b.lan(ip.packet(udp(&ip, 40_000, port, b"?")));
            }
        },
    },
    Scenario {
        name: "template-events",
        families: &Family::BOTH,
        title: "A template that wants to hear of the beginning only",
        shows: "Nothing is told of the reply.",
        ids: &["TMPL-01"],
        compose: |b| {
            b.rules("*raw\n-A PREROUTING -i lan -j CT --ctevents new,destroy\nCOMMIT\n");
            b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
        },
    },
    Scenario {
        name: "filter-drops-new",
        families: &Family::BOTH,
        title: "A filter drops the first packet of a flow, again and again",
        shows: "Each is NEW, and none leaves an entry: what is dropped before the last hook vanishes. Its answer is NEW as well.",
        ids: &["NEW-02", "NEW-01"],
        compose: |b| {
            b.rules("*filter\n-A FORWARD -i lan -p udp -m udp --dport 33434 -j DROP\nCOMMIT\n");
            b.probe();
            b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"nobody asked"));
        },
    },
    Scenario {
        name: "mangle-drops-new",
        families: &Family::BOTH,
        title: "The same in mangle, where the decision is already known",
        shows: "PREROUTING of mangle is behind conntrack, and drops what is NEW in front of NAT.",
        ids: &["NEW-02", "OBS-02"],
        compose: |b| {
            b.rules(
                "*mangle\n-A PREROUTING -i wan -m conntrack --ctstate NEW,INVALID -j DROP\nCOMMIT\n\
                 *nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n",
            );
            b.masquerades = true;
            b.answers(|ip| udp(ip, 33_434, 40_000, b"nobody asked"));
            let left = b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.exceed(&left);
        },
    },
    Scenario {
        name: "filter-input-drops",
        families: &Family::BOTH,
        title: "A filter drops what is for the box itself",
        shows: "Behind routing, in front of the last hook: nothing is confirmed and nobody is told.",
        ids: &["NEW-02"],
        compose: |b| {
            b.rules("*filter\n-A INPUT -i lan -p udp -j DROP\nCOMMIT\n");
            let ip = Ip::between(b.client, b.lan);
            b.lan(ip.packet(probe(&ip)));
        },
    },
    Scenario {
        name: "stateful-filter",
        families: &Family::BOTH,
        title: "The filter that most firewalls are",
        shows: "What was asked for comes in, and errors about it; what nobody asked for and what is INVALID does not. A reply \
                that is dropped has been seen by conntrack all the same.",
        ids: &["OBS-01", "NEW-02"],
        compose: |b| {
            b.rules(
                "*filter\n\
                 :FORWARD ACCEPT [0:0]\n\
                 :from-wan - [0:0]\n\
                 :wanted - [0:0]\n\
                 -A FORWARD -i wan -j from-wan\n\
                 -A from-wan -p udp -m udp --sport 9 -j DROP\n\
                 -A from-wan -j wanted\n\
                 -A from-wan -j DROP\n\
                 -A wanted -m conntrack --ctstate INVALID,NEW -j RETURN\n\
                 -A wanted -m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -j ACCEPT\n\
                 COMMIT\n",
            );
            b.answers(|ip| udp(ip, 33_434, 40_000, b"nobody asked"));
            let left = b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.exceed(&left);
            let unknown = Ip::between(b.client, b.r2);
            let unknown = unknown.packet(probe(&unknown));
            b.exceed(&unknown);
            b.sends(|ip| udp(ip, 40_000, 9, b"discard"));
            b.answers(|ip| udp(ip, 9, 40_000, b"no"));
        },
    },
    Scenario {
        name: "conntrack-matches",
        families: &Family::BOTH,
        title: "What conntrack matches see, written into the mark of a flow or seen by what is missing",
        shows: "Each rule that matches adds a bit to the mark of the flow. Of an INVALID packet only the state is asked, whatever \
                else a rule says in the same match; a rule that does not ask for the state does not match. In two matches it \
                is otherwise.",
        ids: &["OBS-01"],
        compose: conntrack_matches,
    },
    Scenario {
        name: "connmark",
        families: &Family::BOTH,
        title: "A mark goes from the packet to the flow and back",
        shows: "Packets of the client are marked, and the flow with them; its answers get the mark, and the filter knows them by \
                it. An ICMP error carries the entry, and so the mark.",
        ids: &["ICMP-REL-10", "OBS-01"],
        compose: |b| {
            b.rules(
                "*mangle\n\
                 -A PREROUTING -i lan -j MARK --set-xmark 0x17/0xff\n\
                 -A PREROUTING -i lan -j CONNMARK --save-mark --nfmask 0xf --ctmask 0xf\n\
                 -A PREROUTING -i wan -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n\
                 -A POSTROUTING -o lan -j CONNMARK --set-xmark 0x30/0x30\n\
                 COMMIT\n\
                 *filter\n\
                 -A FORWARD -i wan -m mark ! --mark 0x7/0x7 -j DROP\n\
                 -A FORWARD -i wan -m connmark --mark 0x37 -p udp -j DROP\n\
                 COMMIT\n",
            );
            b.answers(|ip| udp(ip, 33_434, 40_000, b"nobody asked"));
            let left = b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.exceed(&left);
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I did"));
        },
    },
    Scenario {
        name: "mangle-before-dnat",
        families: &Family::BOTH,
        title: "Mangle sees destinations in front of NAT, the filter behind it",
        shows: "The rule of mangle PREROUTING matches the virtual address, the one of filter FORWARD the real one; the source \
                is the client's own in POSTROUTING of mangle.",
        ids: &["CORE-HOOK-03"],
        compose: |b| {
            let (client, virtual_address) = (b.client, virtual_ip(b));
            b.rules(&format!(
                "*mangle\n\
                 -A PREROUTING -d {virtual_address} -j CONNMARK --set-xmark 0x1/0x1\n\
                 -A PREROUTING -d {client} -j CONNMARK --set-xmark 0x2/0x2\n\
                 -A FORWARD -d {client} -j CONNMARK --set-xmark 0x4/0x4\n\
                 -A POSTROUTING -s {} -j CONNMARK --set-xmark 0x8/0x8\n\
                 COMMIT\n\
                 *filter\n-A FORWARD -d {virtual_address} -j DROP\nCOMMIT\n\
                 *nat\n\
                 -A PREROUTING -d {virtual_address} -j DNAT --to-destination {client}\n\
                 -A POSTROUTING -o lan -j MASQUERADE\n\
                 COMMIT\n",
                b.server
            ));
            let ask = Ip::between(b.server, virtual_address);
            b.wan(ask.packet(udp(&ask, 40_000, 53, b"anyone?")));
        },
    },
    Scenario {
        name: "nat-policy-asked-once",
        families: &Family::BOTH,
        title: "A nat chain is asked about the first packet only",
        shows: "The first packet of a flow that no rule accepts is dropped; later ones of a flow that got through are not asked.",
        ids: &["NAT-SET-05"],
        compose: |b| {
            b.rules(
                "*nat\n\
                 :POSTROUTING DROP [0:0]\n\
                 -A POSTROUTING -p udp -m udp --dport 33434 -m conntrack --ctstate NEW -j ACCEPT\n\
                 COMMIT\n",
            );
            let ip = b.inside();
            b.lan(ip.packet(udp(&ip, 40_000, 53, b"?")));
            b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.probe();
        },
    },
    Scenario {
        name: "reject",
        families: &Family::BOTH,
        title: "A filter rejects the first packet of a flow",
        shows: "The error of the box carries the entry of the packet that it answers, which nobody else ever sees: RELATED in \
                reply direction, and nothing is confirmed.",
        ids: &["ICMP-LOC-02", "NEW-04"],
        compose: |b| {
            b.rules("*filter\n-A FORWARD -i lan -p udp -m udp --dport 33434 -j REJECT\nCOMMIT\n");
            b.probe();
            b.probe();
        },
    },
    Scenario {
        name: "reject-reply",
        families: &Family::BOTH,
        title: "A filter rejects a reply through masquerade",
        shows: "The error about a reply is RELATED in original direction and goes to the server, which sees the box's address in \
                it and in the quote. The reply was seen, though it never arrived.",
        ids: &["ICMP-LOC-02", "NEW-07"],
        compose: |b| {
            b.rules(
                "*filter\n-A FORWARD -i wan -p udp -j REJECT\nCOMMIT\n\
                 *nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n",
            );
            b.masquerades = true;
            b.probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.probe();
        },
    },
    Scenario {
        name: "reject-invalid",
        families: &Family::BOTH,
        title: "A filter rejects a packet that is INVALID",
        shows: "There is no entry that the error could carry. It is tracked like any other, by what it quotes.",
        ids: &["ICMP-LOC-03"],
        compose: |b| {
            b.rules("*filter\n-A FORWARD -m conntrack --ctstate INVALID -j REJECT\nCOMMIT\n");
            b.case.spec.sysctls.insert("net.netfilter.nf_conntrack_tcp_loose".to_owned(), "0".to_owned());
            let ip = b.inside();
            let stray = Tcp { sport: 40_000, dport: 80, seq: 9, ack: 9, flags: flag::ACK, window: 9, ..Tcp::default() };
            b.lan(ip.packet(stray.body(&ip)));
        },
    },
    Scenario {
        name: "reject-input",
        families: &Family::BOTH,
        title: "The box rejects what is for itself",
        shows: "As in FORWARD: the error carries the entry, unlike the port unreachable of the box's own UDP.",
        ids: &["ICMP-LOC-02"],
        compose: |b| {
            b.rules("*filter\n-A INPUT -i lan -p udp -j REJECT\nCOMMIT\n");
            let ip = Ip::between(b.client, b.lan);
            b.lan(ip.packet(probe(&ip)));
        },
    },
    Scenario {
        name: "reject-reset-new",
        families: &Family::BOTH,
        title: "A connection is refused with a reset",
        shows: "A segment in state RELATED: the reset carries the entry of the SYN, and is not tracked as TCP.",
        ids: &["ICMP-LOC-02", "NEW-04"],
        compose: |b| {
            b.rules("*filter\n-A FORWARD -i lan -p tcp --syn -j REJECT --reject-with tcp-reset\nCOMMIT\n");
            b.sends(|ip| Tcp::syn().body(ip));
        },
    },
    Scenario {
        name: "reject-reset-established",
        families: &Family::BOTH,
        title: "An established connection is reset by a filter",
        shows: "The reset is RELATED, and the entry of the connection is closed for ten seconds, from the outside.",
        ids: &["ICMP-LOC-02", "TCP-CLOSING-01"],
        compose: |b| {
            b.rules(
                "*filter\n-A FORWARD -i lan -p tcp -m tcp --tcp-flags PSH PSH -j REJECT --reject-with tcp-reset\nCOMMIT\n",
            );
            let segment =
                |sport, dport, seq, ack, flags| Tcp { sport, dport, seq, ack, flags, window: 1_000, ..Tcp::default() };
            b.sends(|ip| segment(40_000, 80, 1_000, 0, flag::SYN).body(ip));
            b.answers(|ip| segment(80, 40_000, 5_000, 1_001, flag::SYN | flag::ACK).body(ip));
            b.sends(|ip| segment(40_000, 80, 1_001, 5_001, flag::ACK).body(ip));
            let data = |ip: &Ip| {
                Tcp { payload: b"x".to_vec(), ..segment(40_000, 80, 1_001, 5_001, flag::ACK | flag::PSH) }.body(ip)
            };
            b.sends(data);
        },
    },
];

/// The client asks, the server answers, and errors are about both.
fn one_way(b: &mut Builder) {
    let left = b.probe();
    b.exceed(&left);
    let got = b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
    let unreachable = b.error(b.client, b.server, Kind::PortUnreachable, &got);
    b.lan(unreachable).probe();
}

/// An address outside that is not the box's.
fn virtual_ip(b: &Builder) -> IpAddr {
    match b.family {
        Family::V4 => [203, 0, 113, 7].into(),
        Family::V6 => [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 7].into(),
    }
}

fn conntrack_matches(b: &mut Builder) {
    let seen = [
        "--ctstate NEW",
        "--ctstate NEW --ctdir ORIGINAL",
        "--ctdir ORIGINAL",
        "--ctstate NEW --ctdir REPLY",
        "--ctstate ESTABLISHED --ctdir REPLY",
        "--ctstatus SEEN_REPLY",
        "! --ctstatus SEEN_REPLY",
        "--ctstatus NONE",
        "! --ctstatus NONE",
        "! --ctstate INVALID,UNTRACKED --ctstatus CONFIRMED",
        "--ctstate SNAT",
        "! --ctstate NEW -m conntrack --ctdir ORIGINAL",
    ];
    let mut text = "*mangle\n".to_owned();
    for (rule, bit) in seen.iter().zip(0..) {
        let mark = 1u32 << bit;
        text += &format!("-A FORWARD -m conntrack {rule} -j CONNMARK --set-xmark {mark:#x}/{mark:#x}\n");
    }
    text += "COMMIT\n*raw\n-A PREROUTING -i lan -p udp -m udp --dport 7 -j NOTRACK\nCOMMIT\n*filter\n";
    // Which of these drops an INVALID or UNTRACKED packet is told by its destination port.
    let dropped = [
        (1, "--ctstate INVALID --ctdir REPLY"),
        (2, "--ctstate INVALID --ctdir ORIGINAL"),
        (3, "--ctstate INVALID --ctstatus ASSURED"),
        (4, "--ctstate INVALID -m conntrack --ctdir ORIGINAL"),
        (5, "! --ctstate NEW --ctdir REPLY"),
        (6, "--ctdir REPLY"),
        (8, "! --ctstatus ASSURED"),
    ];
    for (port, rule) in dropped {
        text += &format!("-A FORWARD -p tcp -m tcp --dport {port} -m conntrack {rule} -j DROP\n");
    }
    text += "-A FORWARD -p udp -m udp --dport 7 -m state --state UNTRACKED -j DROP\nCOMMIT\n\
             *nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n";
    b.rules(&text).masquerades = true;
    b.probe();
    b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
    b.probe();
    // No connection begins like this: INVALID.
    for (port, _) in dropped {
        let ip = b.inside();
        let stray = Tcp { sport: 40_000, dport: port, seq: 9, flags: flag::RST, window: 9, ..Tcp::default() };
        b.lan(ip.packet(stray.body(&ip)));
    }
    let ip = b.inside();
    b.lan(ip.packet(udp(&ip, 40_000, 7, b"echo")));
}
