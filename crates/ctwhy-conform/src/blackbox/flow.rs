//! Flows by hand: what a client sends, what a server answers, and what routers have to say about it.

use std::fmt;
use std::io;
use std::net::IpAddr;

use ctwhy_core::packet::{be16, be32};
use ctwhy_core::tuple::{L3, proto};

use super::bench::Bench;
use super::nat::Side;
use super::read::{Seen, icmp_of, put16, set_ttl};
use super::requirement::{Stop, fail, not_applicable};
use super::survey::Change;
use crate::compose::{self, Body, Ip, Tcp, flag};

/// What every probe has, so that a NAT which makes packets of its own is told from one which passes them on.
pub(super) const TTL: u8 = 57;
const TOS: u8 = 0x28;
pub(super) const IPID: u16 = 0x4321;
const FLOW_LABEL: u32 = 0x5_4321;
const ISN: u32 = 0x1122_3344;
const WINDOW: u16 = 4242;
/// MSS, SACK permitted, time stamps, window scale, and one of those for experiments (RFC 4727).
const TCP_OPTIONS: [u8; 24] =
    [2, 4, 5, 0xb4, 4, 2, 8, 10, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, 0, 1, 3, 3, 7, 253, 4, 0xf9, 0x89];
/// What servers and routers send with.
pub(super) const FAR_TTL: u8 = 62;
pub(super) const SERVER_ISN: u32 = 0x5566_7788;
/// Don't fragment (IPv4).
const DONT_FRAGMENT: u16 = 0x4000;

/// What flows are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Proto {
    Udp,
    Tcp,
    Echo,
}

impl Proto {
    pub(super) const ALL: [Proto; 3] = [Proto::Udp, Proto::Tcp, Proto::Echo];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Proto::Udp => "udp",
            Proto::Tcp => "tcp",
            Proto::Echo => "echo",
        }
    }

    /// What a client begins with.
    pub(super) const fn first(self) -> &'static str {
        match self {
            Proto::Udp => "a UDP datagram",
            Proto::Tcp => "a TCP SYN",
            Proto::Echo => "an echo request",
        }
    }

    /// What is translated beside the address.
    pub(super) const fn number(self) -> &'static str {
        match self {
            Proto::Udp | Proto::Tcp => "port",
            Proto::Echo => "id",
        }
    }

    pub(super) const fn protonum(self, l3num: L3) -> u8 {
        match self {
            Proto::Udp => proto::UDP,
            Proto::Tcp => proto::TCP,
            Proto::Echo => icmp_of(l3num),
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Udp => "UDP",
            Proto::Tcp => "TCP",
            Proto::Echo => "echo",
        })
    }
}

/// What is particular about a packet of a client.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) ttl: u8,
    /// Data of UDP and echo.
    pub(super) payload: Vec<u8>,
    /// IPv4 options.
    pub(super) options: Vec<u8>,
    pub(super) dont_fragment: bool,
    /// The field of UDP's checksum stays zero.
    pub(super) no_checksum: bool,
    /// Sequence number of an echo request.
    pub(super) seq: u16,
    pub(super) id: u16,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            ttl: TTL,
            payload: b"ctwhy conform nat: first".to_vec(),
            options: Vec::new(),
            dont_fragment: false,
            no_checksum: false,
            seq: 1,
            id: IPID,
        }
    }
}

impl Shape {
    pub(super) fn ttl(ttl: u8) -> Shape {
        Shape { ttl, ..Shape::default() }
    }

    /// With so many bytes of data, none like its neighbours.
    pub(super) fn long(length: usize) -> Shape {
        Shape { payload: pattern(length), ..Shape::default() }
    }

    pub(super) fn text(text: &str) -> Shape {
        Shape { payload: text.as_bytes().to_vec(), ..Shape::default() }
    }
}

/// Bytes of which a shifted copy is another.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Who talks to whom, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) proto: Proto,
    pub(super) client: IpAddr,
    pub(super) server: IpAddr,
    /// The client's port, or the id of its echo requests.
    pub(super) port: u16,
    /// The server's port.
    pub(super) dport: u16,
}

impl Ends {
    pub(super) fn l3num(&self) -> L3 {
        if self.client.is_ipv4() { L3::V4 } else { L3::V6 }
    }

    pub(super) fn from(self, client: IpAddr) -> Ends {
        Ends { client, ..self }
    }

    fn ip(&self, shape: &Shape) -> Ip {
        Ip {
            ttl: shape.ttl,
            tos: TOS,
            flow_label: FLOW_LABEL,
            id: shape.id,
            fragment: if shape.dont_fragment { DONT_FRAGMENT } else { 0 },
            options: shape.options.clone(),
            ..Ip::between(self.client, self.server)
        }
    }

    /// IP header and body of a packet of the client's, not yet put together.
    pub(super) fn parts(&self, shape: &Shape) -> (Ip, Body) {
        let ip = self.ip(shape);
        let body = match self.proto {
            Proto::Udp => {
                let mut body = compose::udp(&ip, self.port, self.dport, &shape.payload);
                if shape.no_checksum {
                    put16(&mut body.bytes, 6, 0);
                }
                body
            }
            Proto::Tcp => {
                let syn = Tcp { sport: self.port, dport: self.dport, seq: ISN, window: WINDOW, ..Tcp::syn() };
                Tcp { options: TCP_OPTIONS.to_vec(), ..syn }.body(&ip)
            }
            Proto::Echo => self.echo(&ip, shape.seq, true, self.port, &shape.payload),
        };
        (ip, body)
    }

    fn echo(&self, ip: &Ip, seq: u16, request: bool, id: u16, payload: &[u8]) -> Body {
        let kind = match (self.l3num(), request) {
            (L3::V4, true) => 8,
            (L3::V4, false) => 0,
            (L3::V6, true) => 128,
            (L3::V6, false) => 129,
        };
        let ([i0, i1], [s0, s1]) = (id.to_be_bytes(), seq.to_be_bytes());
        compose::icmp(ip, kind, 0, [i0, i1, s0, s1], payload)
    }

    /// A packet of the client's.
    pub(super) fn packet(&self, shape: &Shape) -> Vec<u8> {
        let (ip, body) = self.parts(shape);
        ip.packet(body)
    }

    /// Is that a packet of this flow on its way out?
    pub(super) fn is_outward(&self, seen: &Seen<'_>) -> bool {
        if seen.dst != self.server || !seen.is(self.proto.protonum(self.l3num())) {
            return false;
        }
        match self.proto {
            Proto::Echo => seen.echo().is_some_and(|(request, _)| request),
            _ => seen.dport() == Some(self.dport),
        }
    }

    /// Is that a packet of this flow that has arrived inside?
    pub(super) fn is_inward(&self, seen: &Seen<'_>) -> bool {
        if seen.src != self.server || seen.dst != self.client || !seen.is(self.proto.protonum(self.l3num())) {
            return false;
        }
        match self.proto {
            Proto::Echo => seen.echo() == Some((false, self.port)),
            _ => seen.sport() == Some(self.dport) && seen.dport() == Some(self.port),
        }
    }
}

/// A flow that a NAT has let out.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) ends: Ends,
    /// The NAT's address that stands for the client.
    pub(super) external: IpAddr,
    /// Its port or id that does.
    pub(super) outer: u16,
    /// The first packet as the client sent it.
    pub(super) sent: Vec<u8>,
    /// And as it came out.
    pub(super) seen: Vec<u8>,
}

impl Flow {
    /// The flow of a packet that came out; `None` where it cannot be read.
    fn of(ends: Ends, sent: Vec<u8>, seen: Vec<u8>) -> Option<Flow> {
        let read = Seen::of(&seen)?;
        let outer = match ends.proto {
            Proto::Echo => read.echo()?.1,
            _ => read.sport()?,
        };
        let external = read.src;
        Some(Flow { ends, external, outer, sent, seen })
    }

    /// Is the client known by another port than its own?
    pub(super) fn changed(&self) -> bool {
        self.outer != self.ends.port
    }

    fn server_ip(&self) -> Ip {
        let ip = Ip::between(self.ends.server, self.external).ttl(FAR_TTL);
        Ip { tos: TOS, flow_label: FLOW_LABEL, id: IPID, ..ip }
    }

    /// IP header and body of what the server says: a datagram, the second segment of a handshake, an echo reply.
    pub(super) fn answer_parts(&self, payload: &[u8]) -> (Ip, Body) {
        let ip = self.server_ip();
        let body = match self.ends.proto {
            Proto::Udp => compose::udp(&ip, self.ends.dport, self.outer, payload),
            Proto::Tcp => {
                let tcp = self.server_segment(flag::SYN | flag::ACK, SERVER_ISN, self.syn().wrapping_add(1));
                Tcp { options: TCP_OPTIONS.to_vec(), ..tcp }.body(&ip)
            }
            Proto::Echo => {
                // An echo: of the request's data and number.
                let request = Seen::of(&self.seen);
                let seq = request.and_then(|seen| be16(seen.l4, 6)).unwrap_or_default();
                let data = request.map_or(payload, |seen| seen.payload());
                self.ends.echo(&ip, seq, false, self.outer, data)
            }
        };
        (ip, body)
    }

    /// The sequence number of the SYN that the server got.
    pub(super) fn syn(&self) -> u32 {
        Seen::of(&self.seen).and_then(|seen| be32(seen.l4, 4)).unwrap_or_default()
    }

    fn server_segment(&self, flags: u8, seq: u32, ack: u32) -> Tcp {
        Tcp { sport: self.ends.dport, dport: self.outer, seq, ack, flags, window: WINDOW, ..Tcp::default() }
    }

    pub(super) fn answer(&self, payload: &[u8]) -> Vec<u8> {
        let (ip, body) = self.answer_parts(payload);
        ip.packet(body)
    }

    /// What a closed port answers to a SYN.
    pub(super) fn reset(&self) -> Vec<u8> {
        let ip = self.server_ip();
        ip.packet(self.server_segment(flag::RST | flag::ACK, 0, self.syn().wrapping_add(1)).body(&ip))
    }

    /// A packet of the flow as a router got it, whose TTL has run out.
    pub(super) fn quote(&self) -> Vec<u8> {
        let mut quote = self.seen.clone();
        set_ttl(&mut quote, 1);
        quote
    }

    /// An error of a router's about the first packet.
    pub(super) fn error(&self, kind: &ErrorKind, router: IpAddr) -> Option<Vec<u8>> {
        self.error_quoting(kind, router, &self.quote())
    }

    /// An error of a router's that quotes this.
    pub(super) fn error_quoting(&self, kind: &ErrorKind, router: IpAddr, quote: &[u8]) -> Option<Vec<u8>> {
        kind.error(router, self.external, quote)
    }
}

/// A kind of ICMP error.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorKind {
    pub(super) name: &'static str,
    /// Type and code; `None` where the family has none like it.
    v4: Option<(u8, u8)>,
    v6: Option<(u8, u8)>,
    /// The four bytes behind the checksum. Never zero: there are NATs that spoil just these.
    word4: [u8; 4],
    word6: [u8; 4],
}

/// In the field that RFC 4884 leaves alone.
const UNUSED: [u8; 4] = [0, 0, 0x12, 0x34];

const fn kind(name: &'static str, v4: (u8, u8), v6: (u8, u8)) -> ErrorKind {
    ErrorKind { name, v4: Some(v4), v6: Some(v6), word4: UNUSED, word6: UNUSED }
}

pub(super) const TIME_EXCEEDED: ErrorKind = kind("time-exceeded", (11, 0), (3, 0));
pub(super) const NET_UNREACHABLE: ErrorKind = kind("net-unreachable", (3, 0), (1, 0));
pub(super) const HOST_UNREACHABLE: ErrorKind = kind("host-unreachable", (3, 1), (1, 3));
pub(super) const PORT_UNREACHABLE: ErrorKind = kind("port-unreachable", (3, 3), (1, 4));
pub(super) const PROHIBITED: ErrorKind = kind("prohibited", (3, 13), (1, 1));
/// A link further on takes 1200 bytes, or 1280, the least that IPv6 knows.
pub(super) const TOO_BIG: ErrorKind =
    ErrorKind { word4: [0, 0, 0x04, 0xb0], word6: [0, 0, 0x05, 0x00], ..kind("too-big", (3, 4), (2, 0)) };
/// The TOS is wrong (RFC 792); the next header is unknown (RFC 4443).
pub(super) const PARAMETER_PROBLEM: ErrorKind =
    ErrorKind { word4: [1, 0, 0x12, 0x34], word6: [0, 0, 0, 6], ..kind("parameter-problem", (12, 0), (4, 1)) };
pub(super) const SOURCE_QUENCH: ErrorKind = ErrorKind { v6: None, ..kind("source-quench", (4, 0), (0, 0)) };

/// The kinds that hosts and routers send, without those that nobody should.
pub(super) const KINDS: [ErrorKind; 7] =
    [TIME_EXCEEDED, NET_UNREACHABLE, HOST_UNREACHABLE, PORT_UNREACHABLE, PROHIBITED, TOO_BIG, PARAMETER_PROBLEM];

impl ErrorKind {
    /// A redirect for a host, to a gateway of the network for documentation. IPv6 has another form of it.
    pub(super) const fn redirect() -> ErrorKind {
        ErrorKind { v6: None, word4: [198, 51, 100, 254], ..kind("redirect", (5, 1), (137, 0)) }
    }

    /// The same with other bytes behind the checksum.
    pub(super) const fn with_word(self, word: [u8; 4]) -> ErrorKind {
        ErrorKind { word4: word, word6: word, ..self }
    }

    pub(super) const fn number(&self, l3num: L3) -> Option<(u8, u8)> {
        match l3num {
            L3::V4 => self.v4,
            L3::V6 => self.v6,
        }
    }

    /// The four bytes behind the checksum.
    pub(super) const fn word(&self, l3num: L3) -> [u8; 4] {
        match l3num {
            L3::V4 => self.word4,
            L3::V6 => self.word6,
        }
    }

    /// The error of a sender's to somebody, with what it quotes and all that is behind that.
    pub(super) fn error(&self, sender: IpAddr, to: IpAddr, rest: &[u8]) -> Option<Vec<u8>> {
        let ip = Ip { tos: 0xc0, id: 0x7654, ..Ip::between(sender, to).ttl(FAR_TTL) };
        let (icmp_type, code) = self.number(ip.l3())?;
        Some(ip.packet(compose::icmp(&ip, icmp_type, code, self.word(ip.l3()), rest)))
    }
}

impl Bench<'_> {
    /// Ends that nobody had before, the second client's.
    pub(super) fn ends(&mut self, proto: Proto) -> Ends {
        let number = self.fresh();
        let [_, client] = self.hosts.clients;
        let server = self.hosts.server(number);
        // Even ports: there are NATs that keep parity.
        Ends { proto, client, server, port: 40_000 + number % 10_000 * 2, dport: 33_000 + number % 20_000 }
    }

    /// Sends the first packet of a flow; `None` when it does not come out.
    pub(super) fn start(&mut self, ends: &Ends, shape: &Shape) -> io::Result<Option<Flow>> {
        let sent = ends.packet(shape);
        self.send(Side::Inside, &sent, format!("{} from a client", ends.proto.first()))?;
        let name = format!("{} as it came out", ends.proto.first());
        let seen = self.wait(Side::Outside, &name, |seen| ends.is_outward(seen))?;
        Ok(seen.and_then(|seen| Flow::of(ends.clone(), sent, seen)))
    }

    /// Has the other client take the port that these ends would have outside, where that is how a NAT comes to change ports.
    pub(super) fn occupy(&mut self, ends: &Ends) -> io::Result<Option<Flow>> {
        let [other, _] = self.hosts.clients;
        match self.survey.of(ends.proto).change {
            Change::Collision => self.start(&ends.clone().from(other), &Shape::default()),
            Change::Always | Change::Never => Ok(None),
        }
    }

    /// A flow whose port or id is another outside, where the NAT can be brought to change it.
    pub(super) fn open(&mut self, proto: Proto) -> Result<Flow, Stop> {
        self.open_with(proto, &Shape::default())
    }

    /// As [`Bench::open`], with a particular first packet.
    pub(super) fn open_with(&mut self, proto: Proto, shape: &Shape) -> Result<Flow, Stop> {
        let ends = self.ends(proto);
        self.require(proto)?;
        self.occupy(&ends)?;
        let flow = self.start(&ends, shape)?;
        flow.ok_or_else(|| fail(format!("{} did not come out", proto.first())))
    }

    /// Ends the probe where the NAT does not let the protocol out.
    pub(super) fn require(&self, proto: Proto) -> Result<(), Stop> {
        if self.survey.of(proto).passes {
            return Ok(());
        }
        Err(not_applicable(format!("the NAT lets no {proto} out")))
    }

    /// Sends another packet of a flow; what came out because of it.
    pub(super) fn again(&mut self, flow: &Flow, shape: &Shape) -> io::Result<Option<Flow>> {
        self.start(&flow.ends, shape)
    }

    /// Has the server answer, with this if the protocol leaves it the choice; what arrived inside.
    pub(super) fn answer(&mut self, flow: &Flow, payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.send(Side::Outside, &flow.answer(payload), "an answer of the server's")?;
        self.wait(Side::Inside, "the answer as it arrived", |seen| {
            flow.ends.is_inward(seen) && (flow.ends.proto != Proto::Udp || seen.payload() == payload)
        })
    }

    /// Sends an error and waits for what the client hears of it.
    pub(super) fn tell(&mut self, flow: &Flow, error: &[u8], name: &str) -> io::Result<Option<Vec<u8>>> {
        self.send(Side::Outside, error, name)?;
        let (client, hosts) = (flow.ends.client, self.hosts.clone());
        let from = Seen::of(error).map(|seen| seen.src);
        self.wait(Side::Inside, "the error as it arrived", |seen| {
            // What another router said is about another flow, and late.
            let late = Some(seen.src) != from && hosts.is_router(seen.src);
            seen.dst == client && (seen.is_error() && !late || is_reset(seen, flow))
        })
    }

    /// As [`Bench::tell`], for an error that has to arrive.
    pub(super) fn deliver(&mut self, flow: &Flow, error: &[u8], name: &str) -> Result<Vec<u8>, Stop> {
        let Some(arrived) = self.tell(flow, error, name)? else {
            return Err(fail(format!("{name} never reached the client")));
        };
        if Seen::of(&arrived).is_some_and(|seen| is_reset(&seen, flow)) {
            return Err(fail(format!(
                "a RST reached the client in place of {name}: what was wrong, and who said it, is lost"
            )));
        }
        Ok(arrived)
    }
}

/// Is that a RST of the flow?
pub(super) fn is_reset(seen: &Seen<'_>, flow: &Flow) -> bool {
    flow.ends.proto == Proto::Tcp
        && flow.ends.is_inward(seen)
        && seen.l4.get(13).is_some_and(|flags| flags & flag::RST != 0)
}
