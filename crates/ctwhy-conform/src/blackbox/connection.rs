//! A TCP connection by hand, both ends of it. A NAT made of sockets has two, with sequence numbers of their own.

use ctwhy_core::packet::be32;

use super::bench::Bench;
use super::flow::{FAR_TTL, Flow, Proto, SERVER_ISN, TTL};
use super::nat::Side;
use super::read::Seen;
use super::requirement::{Stop, fail, inconclusive};
use crate::compose::{Ip, Tcp, flag};

/// An end: what it sends next, and what it waits for.
#[derive(Clone, Copy, Debug)]
struct End {
    seq: u32,
    ack: u32,
}

/// An established connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// Its first packet.
    pub(super) flow: Flow,
    client: End,
    server: End,
}

const WINDOW: u16 = 4242;

fn unreadable() -> Stop {
    inconclusive("what arrived cannot be read")
}

fn flags_of(seen: &Seen<'_>) -> u8 {
    seen.l4.get(13).copied().unwrap_or_default()
}

impl Connection {
    /// Shakes hands.
    pub(super) fn open(bench: &mut Bench<'_>) -> Result<Connection, Stop> {
        let flow = bench.open(Proto::Tcp)?;
        let Some(arrived) = bench.answer(&flow, &[])? else {
            return Err(inconclusive("no connection came about: the server's SYN ACK did not arrive"));
        };
        let number = |packet: &[u8], at: usize| {
            let seen = Seen::of(packet)?;
            be32(seen.l4, at)
        };
        let isn = number(&flow.sent, 4).ok_or_else(unreadable)?.wrapping_add(1);
        let server = number(&arrived, 4).ok_or_else(unreadable)?.wrapping_add(1);
        let client = End { seq: isn, ack: server };
        let server = End { seq: SERVER_ISN.wrapping_add(1), ack: flow.syn().wrapping_add(1) };
        let connection = Connection { flow, client, server };
        bench.send(Side::Inside, &connection.outward(flag::ACK, &[]), "the third segment of the handshake")?;
        let ends = connection.flow.ends.clone();
        let came = bench.wait(Side::Outside, "the third segment of the handshake as it came out", |seen| {
            ends.is_outward(seen) && flags_of(seen) & (flag::SYN | flag::ACK) == flag::ACK
        })?;
        came.map(|_| connection)
            .ok_or_else(|| inconclusive("no connection came about: its third segment did not come out"))
    }

    /// Both ends begin at once: their SYNs cross (RFC 9293 section 3.5).
    pub(super) fn open_from_both_ends(bench: &mut Bench<'_>) -> Result<Connection, Stop> {
        let flow = bench.open(Proto::Tcp)?;
        let number = |packet: &[u8]| Seen::of(packet).and_then(|seen| be32(seen.l4, 4)).ok_or_else(unreadable);
        let client = End { seq: number(&flow.sent)?, ack: 0 };
        let server = End { seq: SERVER_ISN, ack: 0 };
        let mut connection = Connection { flow, client, server };
        connection.server.ack = connection.flow.syn().wrapping_add(1);
        bench.send(Side::Outside, &connection.inward(flag::SYN, &[]), "the server's SYN")?;
        let last = connection.inward(flag::SYN | flag::ACK, &[]);
        let mut arrived = connection.await_syn(bench, Side::Inside, "what the client gets of it")?;
        // Of sockets the one outside may have to be connected before the client hears anything.
        let is_first = arrived.is_some();
        if !is_first && connection.await_syn(bench, Side::Outside, "the NAT's SYN ACK")?.is_some() {
            bench.send(Side::Outside, &last, "the server's SYN ACK")?;
            arrived = connection.await_syn(bench, Side::Inside, "what the client gets of it")?;
        }
        let arrived = arrived.ok_or_else(|| fail("the server's SYN, which crosses the client's, does not come in"))?;
        connection.client.ack = number(&arrived)?.wrapping_add(1);
        if Seen::of(&arrived).is_some_and(|seen| flags_of(&seen) & flag::ACK == 0) {
            bench.send(Side::Inside, &connection.outward(flag::SYN | flag::ACK, &[]), "the client's SYN ACK")?;
            let came = connection.await_syn(bench, Side::Outside, "the client's SYN ACK as it came out")?;
            came.ok_or_else(|| fail("the client's SYN ACK about the server's SYN does not come out"))?;
        }
        if is_first {
            bench.send(Side::Outside, &last, "the server's SYN ACK")?;
            bench.settle()?;
        }
        for end in [&mut connection.client, &mut connection.server] {
            end.seq = end.seq.wrapping_add(1);
        }
        bench.send(Side::Inside, &connection.outward(flag::ACK, &[]), "the client's acknowledgement")?;
        bench.send(Side::Outside, &connection.inward(flag::ACK, &[]), "the server's acknowledgement")?;
        Ok(connection)
    }

    /// A SYN that arrived, alone or not, or one that came out and acknowledges.
    fn await_syn(&self, bench: &mut Bench<'_>, side: Side, name: &str) -> Result<Option<Vec<u8>>, Stop> {
        let ends = self.flow.ends.clone();
        Ok(bench.wait(side, name, |seen| {
            let flags = flags_of(seen);
            match side {
                Side::Inside => ends.is_inward(seen) && flags & flag::SYN != 0,
                Side::Outside => ends.is_outward(seen) && flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK,
            }
        })?)
    }

    /// A segment of the client's.
    fn outward(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let ends = &self.flow.ends;
        let ip = Ip { id: 0x4321, tos: 0x28, ..Ip::between(ends.client, ends.server).ttl(TTL) };
        let End { seq, ack } = self.client;
        let segment = Tcp { sport: ends.port, dport: ends.dport, seq, ack, flags, window: WINDOW, ..Tcp::default() };
        ip.packet(Tcp { payload: payload.to_vec(), ..segment }.body(&ip))
    }

    /// A segment of the server's.
    fn inward(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let ends = &self.flow.ends;
        let ip = Ip::between(ends.server, self.flow.external).ttl(FAR_TTL);
        let End { seq, ack } = self.server;
        let ports = (ends.dport, self.flow.outer);
        let segment = Tcp { sport: ports.0, dport: ports.1, seq, ack, flags, window: WINDOW, ..Tcp::default() };
        ip.packet(Tcp { payload: payload.to_vec(), ..segment }.body(&ip))
    }

    /// The client says something; the segment as it was sent and as it came out, which nobody acknowledges.
    pub(super) fn try_to_say(&self, bench: &mut Bench<'_>, payload: &[u8]) -> Result<Flow, Stop> {
        let sent = self.outward(flag::ACK | flag::PSH, payload);
        bench.send(Side::Inside, &sent, "a segment of the client's")?;
        let ends = self.flow.ends.clone();
        let name = "the client's segment as it came out";
        let seen = bench.wait(Side::Outside, name, |seen| ends.is_outward(seen) && seen.payload() == payload)?;
        let seen = seen.ok_or_else(|| fail("a segment of the client's did not come out"))?;
        let (external, outer) =
            Seen::of(&seen).and_then(|seen| Some((seen.src, seen.sport()?))).ok_or_else(unreadable)?;
        Ok(Flow { sent, seen, external, outer, ..self.flow.clone() })
    }

    /// The client says something and the server hears it; the segment as it was sent and as it came out.
    pub(super) fn say(&mut self, bench: &mut Bench<'_>, payload: &[u8]) -> Result<Flow, Stop> {
        let flow = self.try_to_say(bench, payload)?;
        let length = payload.len() as u32;
        self.client.seq = self.client.seq.wrapping_add(length);
        self.server.ack = self.server.ack.wrapping_add(length);
        // Sockets send again what is not acknowledged.
        bench.send(Side::Outside, &self.inward(flag::ACK, &[]), "the server's acknowledgement")?;
        Ok(flow)
    }

    /// The server says something and the client hears it.
    pub(super) fn hear(&mut self, bench: &mut Bench<'_>, payload: &[u8]) -> Result<(), Stop> {
        bench.send(Side::Outside, &self.inward(flag::ACK | flag::PSH, payload), "a segment of the server's")?;
        let ends = self.flow.ends.clone();
        let name = "the server's segment as it arrived";
        let seen = bench.wait(Side::Inside, name, |seen| ends.is_inward(seen) && seen.payload() == payload)?;
        if seen.is_none() {
            return Err(fail("a segment of the server's did not arrive"));
        }
        let length = payload.len() as u32;
        self.server.seq = self.server.seq.wrapping_add(length);
        self.client.ack = self.client.ack.wrapping_add(length);
        bench.send(Side::Inside, &self.outward(flag::ACK, &[]), "the client's acknowledgement")?;
        Ok(())
    }
}
