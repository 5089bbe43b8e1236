//! SCTP associations (catalogue part F).

use super::{Builder, Family, Kind, Scenario};
use crate::compose::chunk_type::{
    ABORT, COOKIE_ACK, COOKIE_ECHO, DATA, ERROR, HEARTBEAT, HEARTBEAT_ACK, INIT, INIT_ACK, SACK, SHUTDOWN,
    SHUTDOWN_ACK, SHUTDOWN_COMPLETE,
};
use crate::compose::{Body, Chunk, Ip, sctp, sealed_sctp};

/// Tags: what the client, and what the server wants to be called by.
const C: u32 = 0x0102_0304;
const S: u32 = 0xa1a2_a3a4;
/// The T bit of ABORT and SHUTDOWN COMPLETE: the tag is the sender's own.
const T: u8 = 1;
/// A type that nobody has given a meaning.
const UNKNOWN: u8 = 200;
const PORT: u16 = 40_000;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "sctp-association",
        families: &Family::BOTH,
        title: "An SCTP association from INIT to SHUTDOWN COMPLETE",
        shows: "The four-way handshake, data both ways, the shutdown. ASSURED with the COOKIE ACK; CLOSED at the end, where a \
                new INIT stays in the old entry.",
        ids: &["SCTP-05", "SCTP-06"],
        compose: |b| {
            established(b, PORT);
            client(b, PORT, S, &[Chunk::of(DATA)]);
            server(b, PORT, C, &[Chunk::of(SACK)]);
            client(b, PORT, S, &[Chunk::of(SHUTDOWN)]);
            server(b, PORT, C, &[Chunk::of(SHUTDOWN_ACK)]);
            client(b, PORT, S, &[Chunk::of(SHUTDOWN_COMPLETE)]);
            client(b, PORT, 0, &[init(77)]);
        },
    },
    Scenario {
        name: "sctp-masquerade",
        families: &Family::BOTH,
        title: "An SCTP association through masquerade",
        shows: "The addresses are translated, and the checksum, which covers the packet and no address, stays what it is. An \
                error about a packet of the association is found and translated; it quotes enough for the checksum, or not.",
        ids: &["NAT-MAN-04", "NAT-ICMP-01", "SCTP-05"],
        compose: |b| {
            established(b.masquerade(), PORT);
            let left = client(b, PORT, S, &[Chunk::of(DATA)]);
            let header = b.header();
            b.exceed(&left).exceed(&left[..header + 12]).exceed(&left[..header + 8]);
        },
    },
    Scenario {
        name: "sctp-snat-to-port",
        families: &Family::BOTH,
        title: "The port of an SCTP association is translated",
        shows: "The checksum is computed anew over the whole packet, there and back; in a quote that has at least the SCTP \
                header, over what is quoted.",
        ids: &["NAT-MAN-04", "NAT-PORT-01"],
        compose: |b| {
            let wan = Builder::bracketed(b.wan);
            b.nat(&[&format!("-A POSTROUTING -o wan -p sctp -j SNAT --to-source {wan}:5000")]);
            let inside = b.inside();
            b.lan(inside.packet(sctp(PORT, 9, 0, &[init(C)])));
            let back = Ip::between(b.server, b.wan);
            b.wan(back.packet(sctp(9, 5_000, C, &[init_ack(S)])));
            b.lan(inside.packet(sctp(PORT, 9, S, &[Chunk::of(COOKIE_ECHO)])));
            let outside = Ip::between(b.wan, b.server).ttl(63);
            let left = outside.packet(sctp(5_000, 9, S, &[Chunk::of(COOKIE_ECHO)]));
            let header = b.header();
            for length in [left.len(), header + 12, header + 11, header + 8, header + 7] {
                let error = b.error(b.r1, b.wan, Kind::TimeExceeded, &left[..length]);
                b.wan(error);
            }
        },
    },
    Scenario {
        name: "sctp-checks",
        families: &Family::BOTH,
        title: "What an SCTP packet must be like",
        shows: "Less than four bytes have no ports and less than twelve no header; a wrong checksum is INVALID, and so is a \
                packet without a chunk, with an empty one, or with chunks that may not stand together.",
        ids: &["SCTP-01", "SCTP-02", "TUPLE-02"],
        compose: checks,
    },
    Scenario {
        name: "sctp-bad-checksum-unverified",
        families: &Family::BOTH,
        title: "A wrong SCTP checksum that nobody verifies",
        shows: "With nf_conntrack_checksum=0 the INIT is NEW.",
        ids: &["SCTP-01"],
        compose: |b| {
            b.sysctl("net.netfilter.nf_conntrack_checksum", "0");
            b.sends(|_| sctp(PORT, 9, 0, &[init(C)]).with(8, 0xee));
        },
    },
    Scenario {
        name: "sctp-first-chunks",
        families: &Family::BOTH,
        title: "Which chunks begin an association",
        shows: "INIT with a tag of 0; HEARTBEAT, its answer and SHUTDOWN ACK, which belong to associations that conntrack has \
                not seen. Others are INVALID, or accepted where nobody's tag is known and theirs is 0.",
        ids: &["SCTP-03"],
        compose: |b| {
            let kinds = [
                INIT,
                INIT_ACK,
                SHUTDOWN,
                SHUTDOWN_ACK,
                SHUTDOWN_COMPLETE,
                ERROR,
                COOKIE_ECHO,
                COOKIE_ACK,
                HEARTBEAT,
                HEARTBEAT_ACK,
                ABORT,
                DATA,
                SACK,
                UNKNOWN,
            ];
            for (at, kind) in (0..).zip(kinds) {
                for (base, vtag) in [(41_000, 0), (42_000, 9)] {
                    b.sends(|_| sctp(base + at, 9, vtag, &[Chunk { kind, flags: 0, tag: C }]));
                }
            }
        },
    },
    Scenario {
        name: "sctp-tags",
        families: &Family::BOTH,
        title: "Each packet carries the receiver's tag",
        shows: "A packet with another tag is INVALID. ABORT and SHUTDOWN COMPLETE may carry the sender's own, when they say so.",
        ids: &["SCTP-04"],
        compose: tags,
    },
    Scenario {
        name: "sctp-repeated-init",
        families: &Family::BOTH,
        title: "An INIT again",
        shows: "Accepted, and the last tag counts; the timeout is not refreshed. From the other side it is a collision.",
        ids: &["SCTP-06", "ACCT-03"],
        compose: |b| {
            client(b, PORT, 0, &[init(C)]);
            b.wait_ms(2_500);
            client(b, PORT, 0, &[init(C)]);
            client(b, PORT, 0, &[init(55)]);
        },
    },
    Scenario {
        name: "sctp-init-collision",
        families: &Family::BOTH,
        title: "Both sides send an INIT",
        shows: "An INIT ACK that contradicts what the collision taught is INVALID, everything else is accepted. The entry stays \
                CLOSED although the association is open.",
        ids: &["SCTP-07"],
        compose: |b| {
            client(b, PORT, 0, &[init(C)]);
            server(b, PORT, 0, &[init(S)]);
            server(b, PORT, C, &[init_ack(99)]);
            client(b, PORT, S, &[init_ack(C)]);
            server(b, PORT, C, &[Chunk::of(COOKIE_ECHO)]);
            client(b, PORT, S, &[Chunk::of(COOKIE_ACK)]);
            client(b, PORT, S, &[Chunk::of(DATA)]);
            server(b, PORT, C, &[Chunk::of(DATA)]);
        },
    },
    Scenario {
        name: "sctp-heartbeats",
        families: &Family::BOTH,
        title: "A second path begins with a heartbeat",
        shows: "HEARTBEAT and its answer open an entry without a handshake. In an open association heartbeats with other tags \
                are remembered, and an answer with another tag teaches both.",
        ids: &["SCTP-08"],
        compose: |b| {
            client(b, PORT, S, &[Chunk::of(HEARTBEAT)]);
            server(b, PORT, C, &[Chunk::of(DATA)]);
            server(b, PORT, C, &[Chunk::of(HEARTBEAT_ACK)]);
            client(b, PORT, S, &[Chunk::of(DATA)]);
            client(b, PORT, 77, &[Chunk::of(HEARTBEAT)]);
            client(b, PORT, 77, &[Chunk::of(HEARTBEAT_ACK)]);
            server(b, PORT, 99, &[Chunk::of(HEARTBEAT_ACK)]);
            client(b, PORT, 77, &[Chunk::of(HEARTBEAT)]);
            client(b, PORT, 77, &[Chunk::of(DATA)]);
            server(b, PORT, 99, &[Chunk::of(DATA)]);
        },
    },
    Scenario {
        name: "sctp-states",
        families: &Family::BOTH,
        title: "Associations end in every way",
        shows: "ABORT of either side, ERROR while the cookie is echoed, a shutdown that the server begins, and one that both \
                begin. One association each, all left where the last chunk put them.",
        ids: &["SCTP-05"],
        compose: |b| {
            established(b, 41_001);
            client(b, 41_001, S, &[Chunk::of(ABORT)]);
            established(b, 41_002);
            server(b, 41_002, C, &[Chunk::of(ABORT)]);
            echoed(b, 41_003);
            server(b, 41_003, C, &[Chunk::of(ERROR)]);
            established(b, 41_004);
            server(b, 41_004, C, &[Chunk::of(SHUTDOWN)]);
            established(b, 41_005);
            client(b, 41_005, S, &[Chunk::of(SHUTDOWN)]);
            server(b, 41_005, C, &[Chunk::of(SHUTDOWN)]);
            client(b, 41_005, S, &[Chunk::of(SHUTDOWN_ACK)]);
            client(b, 41_006, 0, &[init(C)]);
            server(b, 41_006, C, &[init_ack(S)]);
            echoed(b, 41_007);
            established(b, 41_008);
            client(b, 41_008, S, &[Chunk::of(DATA), Chunk::of(SHUTDOWN)]);
        },
    },
];

fn init(tag: u32) -> Chunk {
    Chunk { kind: INIT, flags: 0, tag }
}

fn init_ack(tag: u32) -> Chunk {
    Chunk { kind: INIT_ACK, flags: 0, tag }
}

fn client(b: &mut Builder, port: u16, vtag: u32, chunks: &[Chunk]) -> Vec<u8> {
    b.sends(|_| sctp(port, 9, vtag, chunks))
}

fn server(b: &mut Builder, port: u16, vtag: u32, chunks: &[Chunk]) -> Vec<u8> {
    b.answers(|_| sctp(9, port, vtag, chunks))
}

fn echoed(b: &mut Builder, port: u16) {
    client(b, port, 0, &[init(C)]);
    server(b, port, C, &[init_ack(S)]);
    client(b, port, S, &[Chunk::of(COOKIE_ECHO)]);
}

fn established(b: &mut Builder, port: u16) {
    echoed(b, port);
    server(b, port, C, &[Chunk::of(COOKIE_ACK)]);
}

fn checks(b: &mut Builder) {
    let begin = |port| sctp(port, 9, 0, &[init(C)]);
    for (port, length) in [(41_000, 3), (41_001, 4), (41_002, 11), (41_003, 12), (41_004, 15), (41_005, 28)] {
        b.sends(|_| resealed(begin(port).cut(length)));
    }
    b.sends(|_| begin(41_006).with(20, 0xee));
    established(b, PORT);
    let pairs: [&[u8]; 8] = [
        &[INIT, SACK],
        &[SACK, INIT],
        &[SACK, INIT_ACK],
        &[SHUTDOWN_COMPLETE, SACK],
        &[SACK, COOKIE_ECHO],
        &[SACK, COOKIE_ACK],
        &[COOKIE_ACK, DATA],
        &[],
    ];
    for kinds in pairs {
        let chunks: Vec<Chunk> = kinds.iter().map(|kind| Chunk { kind: *kind, flags: 0, tag: C }).collect();
        client(b, PORT, S, &chunks);
    }
    // A chunk whose length is 0, 1, and beyond the end.
    for (high, low) in [(0, 0), (0, 1), (0xff, 0xff)] {
        b.sends(|_| resealed(sctp(PORT, 9, S, &[Chunk::of(SACK)]).with(14, high).with(15, low)));
    }
}

/// The same with a right checksum.
fn resealed(body: Body) -> Body {
    sealed_sctp(body.bytes)
}

fn tags(b: &mut Builder) {
    established(b, PORT);
    for kind in [DATA, SHUTDOWN, ERROR, COOKIE_ACK, UNKNOWN] {
        client(b, PORT, C, &[Chunk::of(kind)]);
        server(b, PORT, S, &[Chunk::of(kind)]);
    }
    client(b, PORT, C, &[Chunk::of(COOKIE_ECHO)]);
    client(b, PORT, S, &[init(C)]);
    client(b, PORT, C, &[Chunk::of(ABORT)]);
    client(b, PORT, S, &[Chunk { flags: T, ..Chunk::of(ABORT) }]);
    client(b, PORT, C, &[Chunk { flags: T, ..Chunk::of(ABORT) }]);
    established(b, 41_000);
    server(b, 41_000, C, &[Chunk::of(SHUTDOWN_COMPLETE)]);
}
