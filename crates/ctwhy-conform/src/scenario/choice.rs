//! Which address and port a flow gets from NAT (catalogue D.3 and D.4).

use std::net::IpAddr;

use ctwhy_fixture::case::{Prefix, Route};

use super::nat::virtual_ip;
use super::{Builder, Family, Scenario};
use crate::compose::{Echo, Ip, Tcp, echo, flag, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "port-taken-masquerade",
        families: &Family::BOTH,
        title: "Two clients with the same port",
        shows: "The second client cannot keep its port towards the same server and gets another one at random: from 1024 on \
                when its own is there, from 600 to 1023 and from 1 to 511 when it is below. An echo request gets another \
                identifier. Towards another server it leaves as before, with the port that it was given.",
        ids: &["NAT-PORT-01", "NAT-PORT-02", "NAT-PORT-08", "NAT-PORT-14"],
        compose: |b| {
            b.masquerade();
            let (first, second) = (b.client, client(b, 3));
            for port in [40_000, 700, 100] {
                asks(b, first, b.server, port);
                asks(b, second, b.server, port);
                asks(b, second, b.r2, port);
            }
            for who in [first, second] {
                let ip = Ip::between(who, b.server);
                b.lan(ip.packet(echo(&ip, Echo::Request, 7, 1)));
            }
        },
    },
    Scenario {
        name: "port-of-the-box-taken-masquerade",
        families: &Family::BOTH,
        title: "A port that somebody outside already talks to",
        shows: "The server sent a datagram to the box. A client's flow to the server would have the same tuple with its ends \
                exchanged, so that it has to take another port.",
        ids: &["NAT-PORT-09"],
        compose: |b| {
            b.masquerade();
            let ip = Ip::between(b.server, b.wan);
            b.wan(ip.packet(udp(&ip, 33_434, 40_000, b"hello")));
            b.probe();
        },
    },
    Scenario {
        name: "snat-random",
        families: &Family::BOTH,
        title: "Ports drawn at random",
        shows: "With --random-fully no port is kept, but it stays within its kind.",
        ids: &["NAT-PORT-07", "NAT-PORT-14"],
        compose: |b| {
            b.nat(&["-A POSTROUTING -o wan -j MASQUERADE --random-fully"]);
            for port in [40_000, 700, 100] {
                asks(b, b.client, b.server, port);
            }
            b.sends(|ip| echo(ip, Echo::Request, 7, 1));
            b.sends(|ip| Tcp::syn().body(ip));
        },
    },
    Scenario {
        name: "snat-addresses",
        families: &Family::BOTH,
        title: "Source NAT to one of several addresses",
        shows: "A fixed hash of the addresses of both sides chooses. A client whose port is bound already keeps its address \
                towards other servers.",
        ids: &["NAT-PORT-13"],
        compose: |b| {
            let rule = format!("-A POSTROUTING -o wan -j SNAT --to-source {}", addresses(b));
            b.nat(&[&rule]);
            spread(b);
        },
    },
    Scenario {
        name: "snat-addresses-persistent",
        families: &Family::BOTH,
        title: "Source NAT to one of several addresses, the same for every server",
        shows: "With --persistent the address of the server has no say.",
        ids: &["NAT-PORT-13"],
        compose: |b| {
            let rule = format!("-A POSTROUTING -o wan -j SNAT --to-source {} --persistent", addresses(b));
            b.nat(&[&rule]);
            spread(b);
        },
    },
    Scenario {
        name: "dnat-ports",
        families: &Family::BOTH,
        title: "Destination NAT to a range of ports",
        shows: "A port outside the range becomes its first one, for every client that is different; one inside it is kept.",
        ids: &["NAT-PORT-03"],
        compose: |b| {
            let rule =
                format!("-A PREROUTING -i wan -p udp -j DNAT --to-destination {}", with_ports(b.client, "8053-8055"));
            b.nat(&[&rule]);
            let v = virtual_ip(b);
            for (sport, dport) in [(40_000, 53), (40_001, 53), (40_000, 54), (40_000, 8_054)] {
                let ip = Ip::between(b.server, v);
                b.wan(ip.packet(udp(&ip, sport, dport, b"anyone?")));
            }
        },
    },
    Scenario {
        name: "dnat-shifted-ports",
        families: &[Family::V4],
        title: "Destination NAT that moves a range of ports",
        shows: "The distance of a port from the base is kept.",
        ids: &["NAT-PORT-03"],
        compose: |b| {
            let to = with_ports(b.client, "8000-8100/5000");
            let rule = format!("-A PREROUTING -i wan -p udp -m udp --dport 5000:5100 -j DNAT --to-destination {to}");
            b.nat(&[&rule]);
            let v = virtual_ip(b);
            for dport in [5_000, 5_007, 5_100] {
                let ip = Ip::between(b.server, v);
                b.wan(ip.packet(udp(&ip, 40_000, dport, b"anyone?")));
            }
        },
    },
    Scenario {
        name: "netmap",
        families: &Family::BOTH,
        title: "One network for another",
        shows: "NETMAP keeps the host part of an address, of the source on the way out and of the destination on the way in.",
        ids: &["NAT-PORT-11"],
        compose: |b| {
            let (public, private) = match b.family {
                Family::V4 => ("203.0.113.0/24", "192.168.1.0/24"),
                Family::V6 => ("2001:db8:113:7::/64", "fd00:1::/64"),
            };
            b.nat(&[
                &format!("-A PREROUTING -i wan -d {public} -j NETMAP --to {private}"),
                &format!("-A POSTROUTING -o wan -j NETMAP --to {public}"),
            ]);
            asks(b, client(b, 9), b.server, 40_000);
            let nine: IpAddr = match b.family {
                Family::V4 => [203, 0, 113, 9].into(),
                Family::V6 => [0x2001, 0xdb8, 0x113, 7, 0, 0, 0, 9].into(),
            };
            let back = Ip::between(b.server, nine);
            b.wan(back.packet(udp(&back, 33_434, 40_000, b"one")));
            let own = Ip::between(b.r2, nine);
            b.wan(own.packet(udp(&own, 5, 6, b"two")));
        },
    },
    Scenario {
        name: "masquerade-next-router",
        families: &Family::BOTH,
        title: "An interface with two addresses",
        shows: "Masquerading takes the address in the network of the next router, for IPv6 the one that has most in common with \
                the destination, not the first.",
        ids: &["NAT-SET-01"],
        compose: |b| {
            b.masquerade();
            let prefix = |text: &str| text.parse::<Prefix>().ok();
            let (own, to, via) = match b.family {
                Family::V4 => ("203.0.114.2/24", "198.51.100.0/24", "203.0.114.1"),
                Family::V6 => ("2001:db8:100::5/64", "2001:db8:100::/48", "2001:db8:100::1"),
            };
            if let Some(wan) = b.case.spec.interfaces.last_mut() {
                wan.addresses.extend(prefix(own));
            }
            b.case.spec.routes.extend(prefix(to).map(|to| Route { to, dev: "wan".to_owned(), via: via.parse().ok() }));
            asks(b, b.client, b.server, 40_000);
            asks(b, b.client, b.r2, 40_001);
        },
    },
    Scenario {
        name: "redirect-two-addresses",
        families: &Family::BOTH,
        title: "A redirect where the box has two addresses",
        shows: "The destination becomes the first address of the interface for IPv4, and the one that was added last for IPv6.",
        ids: &["NAT-PORT-10"],
        compose: |b| {
            b.nat(&["-A PREROUTING -i lan -p udp -j REDIRECT --to-ports 5353"]);
            let own = match b.family {
                Family::V4 => "192.168.9.1/24",
                Family::V6 => "fd00:9::1/64",
            };
            if let Some(lan) = b.case.spec.interfaces.first_mut() {
                lan.addresses.extend(own.parse::<Prefix>().ok());
            }
            b.probe();
        },
    },
    Scenario {
        name: "ports-exhausted",
        families: &Family::BOTH,
        title: "More flows than ports",
        shows: "Two ports for three flows to one server: the third takes one that is taken, and its datagram is dropped when \
                the flow is confirmed. Towards another server both are free.",
        ids: &["NAT-PORT-04", "CLASH-02"],
        compose: |b| {
            two_ports(b, "udp");
            for port in [40_000, 40_001, 40_002] {
                asks(b, b.client, b.server, port);
            }
            asks(b, b.client, b.r2, 40_002);
        },
    },
    Scenario {
        name: "time-wait-evicted",
        families: &Family::BOTH,
        title: "A connection takes the port of one that is over",
        shows: "Both ports belong to connections in TIME_WAIT. A SYN whose numbers they have passed finds no port and is lost; \
                one that is beyond them ends one of the two and takes its port.",
        ids: &["NAT-PORT-05", "NAT-PORT-04"],
        compose: |b| {
            two_ports(b, "tcp");
            for port in [40_000, 40_001] {
                closed(b, port);
            }
            let syn = |seq| move |ip: &Ip| Tcp { sport: 40_002, seq, ..Tcp::syn() }.body(ip);
            b.sends(syn(500));
            b.sends(syn(9_000));
        },
    },
    Scenario {
        name: "clash-mirrored-null-bound",
        families: &Family::BOTH,
        title: "The answer overtakes the question where NAT has nothing to do",
        shows: "The question finds its tuple held by the flow that the answer began. As neither is translated it keeps its port, \
                and moves to that flow.",
        ids: &["CLASH-02", "NFQ-06"],
        compose: |b| {
            b.nat(&["-A POSTROUTING -o elsewhere -j MASQUERADE"]).hold(2).probe();
            b.answers(|ip| udp(ip, 33_434, 40_000, b"I do"));
            b.probe();
        },
    },
    Scenario {
        name: "clash-other-binding-random",
        families: &Family::BOTH,
        title: "Two first datagrams that draw different ports",
        shows: "Each datagram draws a port for its entry. The second entry takes answers to its own port for a second, and the \
                server sees two clients.",
        ids: &["CLASH-02", "NEW-03", "NAT-PORT-07"],
        compose: |b| {
            b.nat(&["-A POSTROUTING -o wan -j MASQUERADE --random-fully"]).hold(2).probe();
            b.hold(2).probe();
            b.probe();
        },
    },
];

/// Another client: a host of the client's network.
fn client(b: &Builder, host: u8) -> IpAddr {
    match b.family {
        Family::V4 => [192, 168, 1, host].into(),
        Family::V6 => [0xfd00, 1, 0, 0, 0, 0, 0, u16::from(host)].into(),
    }
}

/// A datagram from a port of somebody inside.
fn asks(b: &mut Builder, from: IpAddr, to: IpAddr, port: u16) {
    let ip = Ip::between(from, to);
    b.lan(ip.packet(udp(&ip, port, 33_434, b"who answers?")));
}

fn with_ports(address: IpAddr, ports: &str) -> String {
    match address {
        IpAddr::V4(v4) => format!("{v4}:{ports}"),
        IpAddr::V6(v6) => format!("[{v6}]:{ports}"),
    }
}

/// Public addresses to choose from.
fn addresses(b: &Builder) -> &'static str {
    match b.family {
        Family::V4 => "203.0.113.16-203.0.113.90",
        Family::V6 => "2001:db8:113:7::10-2001:db8:113:7::99",
    }
}

/// Flows of several clients to two servers.
fn spread(b: &mut Builder) {
    for host in [2, 3, 4, 5] {
        let who = client(b, host);
        asks(b, who, b.server, 40_000);
        asks(b, who, b.r2, 40_000);
        asks(b, who, b.r2, 40_001);
    }
}

/// Source NAT to an address with two ports.
fn two_ports(b: &mut Builder, protocol: &str) {
    let to = with_ports(virtual_ip(b), "5000-5001");
    b.nat(&[&format!("-A POSTROUTING -o wan -p {protocol} -j SNAT --to-source {to}")]);
}

/// A connection from a port of the client, opened and closed. The server answers to either port, and to one of them in
/// vain.
fn closed(b: &mut Builder, port: u16) {
    let segment = |flags, seq, ack| Tcp { sport: port, seq, ack, flags, ..Tcp::syn() };
    b.sends(|ip| segment(flag::SYN, 1_000, 0).body(ip));
    let v = virtual_ip(b);
    let answer = |b: &mut Builder, flags, seq, ack| {
        for public in [5_000, 5_001] {
            let ip = Ip::between(b.server, v);
            b.wan(ip.packet(Tcp { sport: 80, dport: public, seq, ack, flags, ..Tcp::syn() }.body(&ip)));
        }
    };
    answer(b, flag::SYN | flag::ACK, 5_000, 1_001);
    b.sends(|ip| segment(flag::FIN | flag::ACK, 1_001, 5_001).body(ip));
    answer(b, flag::FIN | flag::ACK, 5_001, 1_002);
    b.sends(|ip| segment(flag::ACK, 1_002, 5_002).body(ip));
}
