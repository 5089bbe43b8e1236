//! Which binding a flow gets (catalogue D.1 to D.4), as far as nothing is left to chance.

use std::net::IpAddr;

use super::nat::{redirect, virtual_ip};
use super::{Builder, Family, Kind, Scenario, second_client};
use crate::compose::{Body, Echo, Ip, echo, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "nat-asked-once",
        families: &Family::BOTH,
        title: "NAT rules are asked once for a flow",
        shows: "The second packet of the flow is NEW as well, and would match the rule that the first did not, since it comes \
                in elsewhere. The flow is bound already. Another flow that comes in there is translated.",
        ids: &["NAT-SET-01", "NAT-SET-03"],
        compose: |b| {
            let rule = format!(
                "-A PREROUTING -i wan -p udp -m udp --dport 53 -j DNAT --to-destination {}:5353",
                Builder::bracketed(b.client)
            );
            b.nat(&[&rule]);
            let ip = Ip::between(b.r1, b.server);
            let first = ip.packet(udp(&ip, 40_000, 53, b"who is it?"));
            b.lan(first.clone()).wan(first);
            b.wan(ip.packet(udp(&ip, 40_001, 53, b"who is it?")));
        },
    },
    Scenario {
        name: "nat-policy-drops",
        families: &Family::BOTH,
        title: "A nat chain that drops",
        shows: "The policy of the chain is DROP. What no rule of it accepts ends there, and its entry with it; the flow that \
                a rule translates goes on, and its later packets ask nobody.",
        ids: &["NAT-SET-05", "NEW-02"],
        compose: |b| {
            b.nat(&[":POSTROUTING DROP [0:0]", "-A POSTROUTING -o wan -p udp -m udp --dport 33434 -j MASQUERADE"]);
            b.masquerades = true;
            b.probe();
            b.probe();
            b.sends(|ip| udp(ip, 40_001, 53, b"anyone?"));
        },
    },
    Scenario {
        name: "nat-to-itself",
        families: &[Family::V4],
        title: "A translation that changes nothing",
        shows: "Source NAT to the address that the client has anyway: no more than an empty binding, so that a redirect about \
                the flow goes on.",
        ids: &["NAT-SET-12"],
        compose: |b| {
            let rule = format!("-A POSTROUTING -o wan -j SNAT --to-source {}", b.client);
            b.nat(&[&rule]);
            redirect(b);
        },
    },
    Scenario {
        name: "dnat-port-range",
        families: &Family::BOTH,
        title: "A range of destination ports is filled from below",
        shows: "Each flow of the same client port gets the lowest port that is free; another client port gets the first one \
                again.",
        ids: &["NAT-PORT-03"],
        compose: |b| {
            let to = Builder::bracketed(b.client);
            let rule =
                format!("-A PREROUTING -i wan -p udp -m udp --dport 8053 -j DNAT --to-destination {to}:2000-2002");
            b.nat(&[&rule]);
            for (last, port) in [(7, 40_000), (8, 40_000), (8, 40_001), (9, 40_000)] {
                let ip = Ip::between(b.server, outside_address(b, last));
                b.wan(ip.packet(udp(&ip, port, 8_053, b"anyone?")));
            }
            let back = Ip::between(b.client, b.server);
            for port in [2_000, 2_001, 2_002] {
                b.lan(back.packet(udp(&back, port, 40_000, b"I am here")));
            }
        },
    },
    Scenario {
        name: "dnat-taken",
        families: &Family::BOTH,
        title: "Two virtual addresses for one server",
        shows: "Two flows of one client port to different virtual addresses have the same reply tuple behind them. A \
                destination has no port to give way with, and the second is dropped where nothing translates its source.",
        ids: &["NAT-PORT-02", "CLASH-01", "NAT-SET-02"],
        compose: |b| {
            // The client's port may give way, but only to 1..=511 and by chance; so let there be none to choose.
            let to = Builder::bracketed(b.client);
            b.nat(&[
                &format!("-A PREROUTING -i wan -p udp -m udp --dport 8053 -j DNAT --to-destination {to}:53"),
                &format!("-A POSTROUTING -o lan -p udp -j SNAT --to-source {}:7000", Builder::bracketed(b.lan)),
            ]);
            for last in [7, 8] {
                let ip = Ip::between(b.server, outside_address(b, last));
                b.wan(ip.packet(udp(&ip, 40_000, 8_053, b"anyone?")));
            }
        },
    },
    Scenario {
        name: "snat-taken-by-own-flow",
        families: &Family::BOTH,
        title: "The box has a flow of its own on the port",
        shows: "Somebody outside speaks to the box. The reply tuple that the client's flow would get by source NAT to the same \
                port is that flow's original one: taken, and with one port to choose from the packet is dropped.",
        ids: &["NAT-PORT-09", "CLASH-02"],
        compose: |b| {
            let to = Builder::bracketed(b.wan);
            b.nat(&[&format!("-A POSTROUTING -o wan -p udp -j SNAT --to-source {to}:7000")]);
            let ip = Ip::between(b.server, b.wan);
            b.wan(ip.packet(udp(&ip, 33_434, 7_000, b"to the box")));
            let inside = b.inside();
            b.lan(inside.packet(super::probe(&inside)));
            // To somebody else the port is free.
            let other = Ip::between(b.client, b.r2);
            b.lan(other.packet(super::probe(&other)));
        },
    },
    Scenario {
        name: "snat-one-port-shared",
        families: &Family::BOTH,
        title: "Two clients and one port",
        shows: "Source NAT to a single port takes it even where it is taken; the second client's flow clashes at confirm and \
                its packet is dropped.",
        ids: &["CLASH-01", "CLASH-02", "NAT-PORT-04"],
        compose: |b| {
            let to = Builder::bracketed(b.wan);
            b.nat(&[&format!("-A POSTROUTING -o wan -p udp -j SNAT --to-source {to}:7000")]);
            for client in [b.client, second_client(b.family)] {
                let ip = Ip::between(client, b.server);
                b.lan(ip.packet(super::probe(&ip)));
            }
        },
    },
    Scenario {
        name: "snat-address-range",
        families: &Family::BOTH,
        title: "Which address of a range a flow gets",
        shows: "A fixed hash of source and destination: the same on every machine. With --persistent the destination does not \
                count.",
        ids: &["NAT-PORT-14"],
        compose: |b| address_range(b, "", 40_000..),
    },
    Scenario {
        name: "snat-address-range-persistent",
        families: &Family::BOTH,
        title: "Which address of a range a client gets",
        shows: "With --persistent a fixed hash of the source alone, so that a client has one address whatever its \
                destination.",
        ids: &["NAT-PORT-14"],
        compose: |b| address_range(b, " --persistent", 40_000..),
    },
    Scenario {
        name: "snat-address-reused",
        families: &Family::BOTH,
        title: "A client's port keeps its address",
        shows: "The second flow of the same client port gets the address that the first one got, whatever the hash of its \
                destination says.",
        ids: &["NAT-PORT-14"],
        compose: |b| address_range(b, "", std::iter::repeat(40_000)),
    },
    Scenario {
        name: "masquerade-without-address",
        families: &Family::BOTH,
        title: "Masquerade behind an interface without an address",
        shows: "The outgoing interface has no address of the family: the box takes one of another interface, and drops nothing.",
        ids: &["NAT-SET-08"],
        compose: |b| {
            if let Some(wan) = b.case.spec.interfaces.iter_mut().find(|interface| interface.name == "wan") {
                wan.addresses.clear();
            }
            if let Some(route) = b.case.spec.routes.first_mut() {
                route.via = None;
            }
            b.masquerade();
            let inside = b.inside();
            b.lan(inside.packet(super::probe(&inside)));
        },
    },
    Scenario {
        name: "echo-id-kept-between-types",
        families: &Family::BOTH,
        title: "Two clients ask for an echo with different identifiers, and one of them both ways",
        shows: "The identifier is the port of echo: each client keeps its own. A request from outside with the same \
                identifier is another flow, since its type is another.",
        ids: &["NAT-PORT-01", "ICMP-Q-05"],
        compose: |b| {
            b.masquerade().sends(|ip| echo(ip, Echo::Request, 7, 1));
            let second = Ip::between(second_client(b.family), b.server);
            b.lan(second.packet(echo(&second, Echo::Request, 8, 1)));
            let ask = Ip::between(b.server, b.wan);
            b.wan(ask.packet(echo(&ask, Echo::Request, 7, 1)));
            for id in [7, 8] {
                let back = Ip::between(b.server, b.wan);
                b.wan(back.packet(echo(&back, Echo::Reply, id, 1)));
            }
        },
    },
    Scenario {
        name: "nat-unknown-protocol-dnat",
        families: &Family::BOTH,
        title: "A protocol that nobody knows to a virtual address",
        shows: "The destination is translated and the packet routed anew, to the inside; answers are translated back.",
        ids: &["NAT-MAN-07", "NAT-MAN-09", "GENERIC-01"],
        compose: |b| {
            let rule = format!("-A PREROUTING -d {} -i wan -j DNAT --to-destination {}", virtual_ip(b), b.client);
            b.nat(&[&rule]);
            let ip = Ip::between(b.server, virtual_ip(b));
            b.wan(ip.packet(Body::new(99, *b"anyone?")));
            let back = Ip::between(b.client, b.server);
            b.lan(back.packet(Body::new(99, *b"I am")));
            let asked = Ip::between(b.server, b.client).ttl(63);
            let error = b.error(b.client, b.server, Kind::HostUnreachable, &asked.packet(Body::new(99, *b"anyone?")));
            b.lan(error);
        },
    },
];

/// An address outside that is not the box's, by its last part.
fn outside_address(b: &Builder, last: u8) -> IpAddr {
    match b.family {
        Family::V4 => [203, 0, 113, last].into(),
        Family::V6 => [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, u16::from(last)].into(),
    }
}

/// Each flow from a port of its own, or all of a client from one.
fn address_range(b: &mut Builder, option: &str, ports: impl IntoIterator<Item = u16>) {
    let (first, last) = (outside_address(b, 16), outside_address(b, 31));
    b.nat(&[&format!("-A POSTROUTING -o wan -j SNAT --to-source {first}-{last}{option}")]);
    let clients = [b.client, second_client(b.family)];
    let flows = clients.into_iter().flat_map(|client| [b.server, b.r2, outside_address(b, 9)].map(|to| (client, to)));
    for ((client, to), port) in flows.collect::<Vec<_>>().into_iter().zip(ports) {
        let ip = Ip::between(client, to);
        b.lan(ip.packet(udp(&ip, port, 33_434, b"who answers?")));
    }
}
