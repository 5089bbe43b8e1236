//! Helpers: FTP and TFTP, the flows that they expect, and what NAT writes into payloads (catalogue part G).

use std::net::IpAddr;

use super::{Builder, Family, Kind, Scenario};
use crate::compose::{Ip, Tcp, flag, udp};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ftp-without-rule",
        families: &Family::BOTH,
        title: "FTP without a rule for its helper",
        shows: "No rule gives the connection to port 21 a helper: nobody reads the PORT or EPRT, and the server's data \
                connection is NEW.",
        ids: &["EXP-01"],
        compose: |b| {
            let mut talk = Talk::begin(b);
            talk.client("USER me\r\n").listens(1025);
            data_syn(b, 20, 1025);
        },
    },
    Scenario {
        name: "ftp-active",
        families: &Family::BOTH,
        title: "The data connection of active FTP is RELATED",
        shows: "The client says where it listens; what comes to that port from the server is RELATED, again when it is sent \
                again, and ESTABLISHED once the client answered. It has the mark of the control connection. The \
                expectation was for one connection: a second one is NEW.",
        ids: &["EXP-02", "EXP-03", "EXP-04", "EXP-05", "EXP-06"],
        compose: |b| {
            let mark = "-A PREROUTING -p tcp -m tcp --dport 21 -j CONNMARK --set-xmark 0x7/0xffffffff";
            b.tables(&[("raw", &[FTP]), ("mangle", &[mark])]);
            let mut talk = Talk::begin(b);
            talk.client("USER me\r\n").listens(1025).server("200 ok\r\n");
            data_syn(b, 20, 1025);
            data_syn(b, 20, 1025);
            let (client, server) = (Ip::between(b.client, b.server), Ip::between(b.server, b.client));
            let answer = Tcp { sport: 1025, dport: 20, seq: 7, ack: 2, flags: flag::SYN | flag::ACK, ..Tcp::syn() };
            b.lan(client.packet(answer.body(&client)));
            let last = Tcp { sport: 20, dport: 1025, seq: 2, ack: 8, flags: flag::ACK, ..Tcp::syn() };
            b.wan(server.packet(last.body(&server)));
            data_syn(b, 21, 1025);
        },
    },
    Scenario {
        name: "ftp-passive",
        families: &Family::BOTH,
        title: "The data connection of passive FTP is RELATED",
        shows: "The server says where it listens, with and without what goes before the numbers; the client's connection to \
                that port is RELATED, whatever its own port. One to another port is NEW.",
        ids: &["EXP-03", "EXP-04", "EXP-06"],
        compose: |b| {
            b.tables(&[("raw", &[FTP])]);
            let mut talk = Talk::begin(b);
            talk.server("220 hello\r\n").client("USER me\r\n").offers(3000);
            for dport in [3001, 3000] {
                let ip = b.inside();
                b.lan(ip.packet(Tcp { sport: 50_000, dport, ..Tcp::syn() }.body(&ip)));
            }
        },
    },
    Scenario {
        name: "ftp-first-segment",
        families: &Family::BOTH,
        title: "The first command is not read",
        shows: "The helper reads only what begins where it saw a line end. The very first data segment is not read, nor one \
                behind a gap.",
        ids: &["EXP-03"],
        compose: |b| {
            b.tables(&[("raw", &[FTP])]);
            let mut talk = Talk::begin(b);
            talk.listens(1025);
            data_syn(b, 20, 1025);
            let mut talk = Talk { client: 1100, ..Talk::going_on(b) };
            talk.listens(1026);
            data_syn(b, 20, 1026);
        },
    },
    Scenario {
        name: "ftp-partial-command",
        families: &Family::BOTH,
        title: "A command that cannot be read to its end is dropped",
        shows: "A segment that ends in the middle of a command, or a command that is wrong, is dropped; sent again in one \
                piece it is read. An address that is not the sender's is let go by, but nothing is expected from it.",
        ids: &["EXP-03"],
        compose: |b| {
            b.tables(&[("raw", &[FTP])]);
            let (whole, other) = (port_command(b.client, 1025), port_command(b.r2, 1026));
            let mut talk = Talk::begin(b);
            talk.client("USER me\r\n").client_loses(&whole[..9]).client_loses("PORT 1,2,3\r\n").client(&whole);
            talk.client(&other);
            data_syn(b, 20, 1026);
            data_syn(b, 20, 1025);
        },
    },
    Scenario {
        name: "ftp-only-one-expectation",
        families: &Family::BOTH,
        title: "A second command takes the place of the first",
        shows: "The helper may expect one connection at a time: a second PORT or EPRT evicts what the first one expected, and \
                the same one again makes it anew.",
        ids: &["EXP-04"],
        compose: |b| {
            b.tables(&[("raw", &[FTP])]);
            let mut talk = Talk::begin(b);
            talk.client("USER me\r\n").listens(1025);
            talk.listens(1026).listens(1026);
            data_syn(b, 20, 1025);
            data_syn(b, 20, 1026);
        },
    },
    Scenario {
        name: "ftp-expected-and-invalid",
        families: &Family::BOTH,
        title: "The tracker refuses a packet that was expected",
        shows: "A SYN/ACK begins no connection, also not an expected one: it is INVALID. The expectation was used up by it, and \
                the SYN behind it is NEW.",
        ids: &["EXP-05", "EXP-07"],
        compose: |b| {
            b.tables(&[("raw", &[FTP])]);
            let mut talk = Talk::begin(b);
            talk.client("USER me\r\n").listens(1025);
            let ip = Ip::between(b.server, b.client);
            let refused = Tcp { sport: 20, dport: 1025, flags: flag::SYN | flag::ACK, ..Tcp::syn() };
            b.wan(ip.packet(refused.body(&ip)));
            data_syn(b, 20, 1025);
        },
    },
    Scenario {
        name: "ftp-expectation-ends-with-master",
        families: &Family::BOTH,
        title: "An expectation ends with its connection",
        shows: "The control connection is closed and begun anew from the same port. The old entry is deleted, and what it \
                expected with it: the data connection is NEW.",
        ids: &["EXP-09"],
        compose: |b| {
            b.tables(&[("raw", &[FTP])]);
            let mut talk = Talk::begin(b);
            talk.client("USER me\r\n").listens(1025).close();
            let ip = b.inside();
            b.lan(ip.packet(Tcp { dport: 21, seq: 900_000, ..Tcp::syn() }.body(&ip)));
            data_syn(b, 20, 1025);
        },
    },
    Scenario {
        name: "error-about-expected-flow",
        families: &Family::BOTH,
        title: "Errors about an expected connection",
        shows: "An error that quotes a connection that is only expected is INVALID. Once it is there, the error is RELATED: \
                the client's one goes in its reply direction, because the server began it.",
        ids: &["ICMP-REL-09"],
        compose: |b| {
            b.tables(&[("raw", &[FTP])]);
            let mut talk = Talk::begin(b);
            talk.client("USER me\r\n").listens(1025);
            let ip = Ip::between(b.server, b.client);
            let quote = ip.packet(Tcp { sport: 20, dport: 1025, ..Tcp::syn() }.body(&ip));
            let error = b.error(b.client, b.server, Kind::PortUnreachable, &quote);
            b.lan(error.clone());
            data_syn(b, 20, 1025);
            b.lan(error);
        },
    },
    Scenario {
        name: "ftp-active-masquerade",
        families: &Family::BOTH,
        title: "Active FTP through masquerade",
        shows: "The address in the command becomes that of the box, of the same length or another; the server's connection to \
                it is translated to the client before any rule is asked.",
        ids: &["EXP-08", "NAT-SET-07", "NAT-TCP-02", "SEQ-01"],
        compose: |b| {
            b.masquerades = true;
            b.tables(&[("raw", &[FTP]), ("nat", &[super::MASQUERADE])]);
            let command = port_command(b.client, 1025);
            let grows = grown(&command, &port_written(b.wan, 1025));
            let mut talk = Talk::begin(b);
            talk.client("USER me\r\n").client(&command).shift_client(grows).server("200 ok\r\n").client("LIST\r\n");
            data_syn(b, 20, 1025);
            let ip = b.inside();
            let answer = Tcp { sport: 1025, dport: 20, seq: 7, ack: 2, flags: flag::SYN | flag::ACK, ..Tcp::syn() };
            b.lan(ip.packet(answer.body(&ip)));
            data_syn(b, 21, 1025);
        },
    },
    Scenario {
        name: "ftp-passive-dnat",
        families: &Family::BOTH,
        title: "Passive FTP to a virtual address",
        shows: "The server names its own address; the client reads the virtual one, and its connection to that is led to the \
                server.",
        ids: &["EXP-08", "NAT-SET-07", "NAT-TCP-02", "SEQ-01"],
        compose: |b| {
            // Here the client is behind `wan`, and the server of the flow behind `lan`.
            let rule =
                format!("-A PREROUTING -d {} -p tcp -m tcp --dport 21 -j DNAT --to-destination {}", b.wan, b.client);
            b.tables(&[("raw", &[FTP]), ("nat", &[&rule])]);
            let (outer, inner) = (Ip::between(b.server, b.wan), Ip::between(b.client, b.server));
            let segment = |sport, dport, seq, ack, flags, text: &str| Tcp {
                sport,
                dport,
                seq,
                ack,
                flags,
                payload: text.as_bytes().to_vec(),
                ..Tcp::syn()
            };
            let (ack, data) = (flag::ACK, flag::ACK | flag::PSH);
            b.wan(outer.packet(segment(40_000, 21, 1000, 0, flag::SYN, "").body(&outer)));
            b.lan(inner.packet(segment(21, 40_000, 5000, 1001, flag::SYN | ack, "").body(&inner)));
            b.wan(outer.packet(segment(40_000, 21, 1001, 5001, ack, "").body(&outer)));
            b.lan(inner.packet(segment(21, 40_000, 5001, 1001, data, "220 hello\r\n").body(&inner)));
            let answer = passive_answer(b.client, 3000);
            b.lan(inner.packet(segment(21, 40_000, 5012, 1001, data, &answer).body(&inner)));
            let written = match b.family {
                Family::V4 => passive_answer(b.wan, 3000),
                Family::V6 => answer,
            };
            b.wan(outer.packet(segment(40_000, 21, 1001, 5012 + written.len() as u32, ack, "").body(&outer)));
            b.wan(outer.packet(segment(40_001, 3000, 1, 0, flag::SYN, "").body(&outer)));
            b.lan(inner.packet(segment(3000, 40_001, 1, 2, flag::SYN | ack, "").body(&inner)));
        },
    },
    Scenario {
        name: "ftp-longer-address",
        families: &Family::BOTH,
        title: "Sequence numbers behind a longer address",
        shows: "The address of NAT is longer than the client's. Behind the command the server sees higher numbers than the \
                client sends, and what it acknowledges, also selectively, is put right. A retransmission of the command is \
                read again while its line is among the last two; later it leaks the client's own address.",
        ids: &["SEQ-01", "SEQ-02", "EXP-08"],
        compose: longer_address,
    },
    Scenario {
        name: "tftp",
        families: &Family::BOTH,
        title: "TFTP answers from another port",
        shows: "The answer to a read or write request comes from a port of its own and is RELATED; what is no request makes \
                the helper expect nothing.",
        ids: &["EXP-04", "EXP-06"],
        compose: |b| {
            b.tables(&[("raw", &[TFTP])]);
            tftp(b);
        },
    },
    Scenario {
        name: "tftp-masquerade",
        families: &Family::BOTH,
        title: "TFTP through masquerade",
        shows: "The answer comes to the box, and is translated to the client as its own port.",
        ids: &["EXP-08", "NAT-SET-07"],
        compose: |b| {
            b.masquerades = true;
            b.tables(&[("raw", &[TFTP]), ("nat", &[super::MASQUERADE])]);
            tftp(b);
        },
    },
    Scenario {
        name: "expectations-waiting",
        families: &Family::BOTH,
        title: "Flows that nobody began are still expected",
        shows: "FTP, active and passive, and TFTP were told of flows that do not come. What is expected stays beside the table: \
                from whom, where to, and for which flow.",
        ids: &["EXP-02", "EXP-04"],
        compose: |b| {
            b.tables(&[("raw", &[FTP, TFTP])]);
            waiting(b);
        },
    },
    Scenario {
        name: "expectations-waiting-masquerade",
        families: &Family::BOTH,
        title: "What is expected where the box masquerades",
        shows: "The server will send to the address of the box, and from the outside is the expectation; its master's tuple is \
                that of the original direction, inside.",
        ids: &["EXP-02", "EXP-04", "EXP-08"],
        compose: |b| {
            b.masquerades = true;
            b.tables(&[("raw", &[FTP, TFTP]), ("nat", &[super::MASQUERADE])]);
            waiting(b);
        },
    },
];

const FTP: &str = "-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp";
const TFTP: &str = "-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp";

/// A control connection to port 21, behind its handshake.
struct Talk<'a> {
    b: &'a mut Builder,
    /// Where it comes from.
    port: u16,
    /// What each side says next.
    client: u32,
    server: u32,
    /// By how much the numbers of the client lie higher for the server.
    shift: u32,
}

impl<'a> Talk<'a> {
    fn begin(b: &'a mut Builder) -> Talk<'a> {
        Talk::begin_from(b, 40_000)
    }

    fn begin_from(b: &'a mut Builder, port: u16) -> Talk<'a> {
        let mut talk = Talk { b, port, client: 1000, server: 5000, shift: 0 };
        talk.send(true, flag::SYN, "");
        talk.client = 1001;
        talk.send(false, flag::SYN | flag::ACK, "");
        talk.server = 5001;
        talk.send(true, flag::ACK, "");
        talk
    }

    /// The connection again, after something else.
    fn going_on(b: &'a mut Builder) -> Talk<'a> {
        Talk { b, port: 40_000, client: 1001, server: 5001, shift: 0 }
    }

    fn send(&mut self, from_client: bool, flags: u8, text: &str) {
        let payload = text.as_bytes().to_vec();
        let ack = if flags & flag::ACK == 0 { 0 } else { u32::MAX };
        if from_client {
            let ip = self.b.inside();
            let ack = ack & self.server;
            let segment = Tcp { sport: self.port, dport: 21, seq: self.client, ack, flags, payload, ..Tcp::syn() };
            self.b.lan(ip.packet(segment.body(&ip)));
        } else {
            let ip = Ip::between(self.b.server, self.b.seen_as());
            let ack = ack & self.client.wrapping_add(self.shift);
            let segment = Tcp { sport: 21, dport: self.port, seq: self.server, ack, flags, payload, ..Tcp::syn() };
            self.b.wan(ip.packet(segment.body(&ip)));
        }
    }

    /// The client says something, which arrives.
    fn client(&mut self, text: &str) -> &mut Self {
        self.client_loses(text);
        self.client += text.len() as u32;
        self
    }

    /// The client says something, which does not.
    fn client_loses(&mut self, text: &str) -> &mut Self {
        self.send(true, flag::ACK | flag::PSH, text);
        self
    }

    /// The client says where it listens.
    fn listens(&mut self, port: u16) -> &mut Self {
        let command = port_command(self.b.client, port);
        self.client(&command)
    }

    /// The server says where it listens.
    fn offers(&mut self, port: u16) -> &mut Self {
        let answer = passive_answer(self.b.server, port);
        self.server(&answer)
    }

    fn server(&mut self, text: &str) -> &mut Self {
        self.send(false, flag::ACK | flag::PSH, text);
        self.server += text.len() as u32;
        self
    }

    /// What the client said last was longer for the server.
    fn shift_client(&mut self, by: u32) -> &mut Self {
        self.shift = self.shift.wrapping_add(by);
        self
    }

    fn close(&mut self) -> &mut Self {
        self.send(true, flag::FIN | flag::ACK, "");
        self.client += 1;
        self.send(false, flag::FIN | flag::ACK, "");
        self.server += 1;
        self.send(true, flag::ACK, "");
        self
    }
}

/// Where the client listens, as its family says it.
fn port_command(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(_) => format!("PORT {}\r\n", numbers(address, port)),
        IpAddr::V6(v6) => format!("EPRT |2|{v6}|{port}|\r\n"),
    }
}

/// The same as NAT writes it.
fn port_written(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(_) => port_command(address, port),
        IpAddr::V6(v6) => {
            let groups = v6.segments().map(|group| format!("{group:04x}"));
            format!("EPRT |2|{}|{port}|\r\n", groups.join(":"))
        }
    }
}

/// By how much a text is longer than another, modulo 2³².
fn grown(from: &str, to: &str) -> u32 {
    (to.len() as u32).wrapping_sub(from.len() as u32)
}

/// Where the server listens.
fn passive_answer(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(_) => format!("227 Entering Passive Mode ({}).\r\n", numbers(address, port)),
        IpAddr::V6(_) => format!("229 Entering Extended Passive Mode (|||{port}|)\r\n"),
    }
}

fn numbers(address: IpAddr, port: u16) -> String {
    let [high, low] = port.to_be_bytes();
    format!("{},{high},{low}", address.to_string().replace('.', ","))
}

/// The server begins a data connection to where the client is seen.
fn data_syn(b: &mut Builder, sport: u16, dport: u16) {
    let ip = Ip::between(b.server, b.seen_as());
    b.wan(ip.packet(Tcp { sport, dport, ..Tcp::syn() }.body(&ip)));
}

fn longer_address(b: &mut Builder) {
    let long: IpAddr = match b.family {
        Family::V4 => [203, 200, 113, 222].into(),
        Family::V6 => [0x2001, 0xdb8, 0x113, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555].into(),
    };
    let rule = format!("-A POSTROUTING -o wan -j SNAT --to-source {long}");
    b.tables(&[("raw", &[FTP]), ("nat", &[&rule])]);
    b.masquerades = true;
    b.wan = long;
    let command = port_command(b.client, 1025);
    let grows = grown(&command, &port_written(long, 1025));
    let mut talk = Talk::begin(b);
    talk.client("USER me\r\n").client(&command).shift_client(grows).server("200 ok\r\n");
    // The command again, while the line before it is remembered.
    let next = talk.client;
    talk.client -= command.len() as u32;
    talk.client_loses(&command);
    talk.client = next;
    talk.client("LIST\r\n").client("NOOP\r\n");
    // What the server has is more than the client said, and it says so in two ways.
    let ip = Ip::between(talk.b.server, talk.b.seen_as());
    let has = talk.client.wrapping_add(grows);
    let mut options = vec![1, 1, 5, 10];
    options.extend((has - 6).to_be_bytes());
    options.extend(has.to_be_bytes());
    let ack = has - 12;
    let partly = Tcp { sport: 21, dport: 40_000, seq: talk.server, ack, flags: flag::ACK, options, ..Tcp::syn() };
    talk.b.wan(ip.packet(partly.body(&ip)));
    // The command once more, when its line is forgotten.
    talk.client -= command.len() as u32 + 12;
    talk.client_loses(&command);
    talk.client = next + 12;
    talk.close();
}

/// Flows that are announced and do not come.
fn waiting(b: &mut Builder) {
    let mut talk = Talk::begin(b);
    talk.client("USER me\r\n").listens(1025);
    let mut other = Talk::begin_from(b, 40_001);
    other.server("220 hello\r\n").client("USER me\r\n").offers(3000);
    b.sends(|ip| udp(ip, 40_002, 69, b"\0\x01file\0octet\0"));
}

fn tftp(b: &mut Builder) {
    let data = |sport: u16| move |ip: &Ip| udp(ip, sport, 40_000, b"\0\x03\0\x01data");
    b.sends(|ip| udp(ip, 40_000, 69, b"\0\x01file\0octet\0"));
    b.answers(data(3000));
    b.answers(data(3000));
    b.sends(|ip| udp(ip, 40_000, 3000, b"\0\x04\0\x01"));
    b.answers(data(3000));
    // The expectation was for one flow.
    b.sends(|ip| udp(ip, 40_001, 69, b"\0\x02file\0octet\0"));
    b.sends(|ip| udp(ip, 40_002, 69, b"\0\x05\0\0no\0"));
    let to = |dport: u16| move |ip: &Ip| udp(ip, 3001, dport, b"\0\x04\0\0");
    b.answers(to(40_002));
    b.answers(to(40_001));
}
