//! What the trackers of SCTP, GRE and UDP-Lite say in English. `sctp_words.txt` beside this file is the whole of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;

use common::*;
use ctwhy_core::hook::Engine;
use ctwhy_core::time::Time;
use ctwhy_core::trace::{Step, Trace};
use ctwhy_core::track::sctp::{ChunkType, SctpReason};

const C: u32 = 0x0102_0304;
const S: u32 = 0xa1a2_a3a4;

/// A packet: from the client, tag, chunks of type, flags and, for INIT and INIT ACK, announced tag.
type Sent<'a> = (bool, u32, &'a [(u8, u8, u32)]);

/// Steps of an association in words, packet by packet, those of the tracker only.
fn conversations() -> String {
    let mut text = String::new();
    let mut tell = |title: &str, packets: &[Sent<'_>]| {
        writeln!(text, "{title}").unwrap();
        let mut engine = Engine::new(0);
        for (client, vtag, chunks) in packets {
            let (from, to) = if *client { ((CLIENT, 1), (SERVER, 2)) } else { ((SERVER, 2), (CLIENT, 1)) };
            let body = |kind, tag| if matches!(kind, 1 | 2) { init_body(tag) } else { vec![] };
            let chunks: Vec<_> =
                chunks.iter().map(|(kind, flags, tag)| chunk(*kind, *flags, &body(*kind, *tag))).collect();
            let mut buffer = sctp(from.0, from.1, to.0, to.1, *vtag, &chunks);
            let (len, mut trace) = (buffer.len(), Trace::default());
            let ruling = engine.receive(&mut buffer, len, None, Time(0), &mut trace);
            let who = if *client { "client" } else { "server" };
            writeln!(text, "  {who} {}", ruling.ctinfo.unwrap().name()).unwrap();
            for step in &trace.steps {
                if matches!(step, Step::Sctp(_) | Step::Assured | Step::NotRefreshed) {
                    writeln!(text, "    {step}").unwrap();
                }
            }
            if let Some(reason) = ruling.reason {
                writeln!(text, "    {}: {reason}", reason.code()).unwrap();
            }
        }
        writeln!(text).unwrap();
    };
    let (c, s) = (true, false);
    tell(
        "open, data, close",
        &[
            (c, 0, &[(1, 0, C)]),
            (c, 0, &[(1, 0, C)]),
            (s, C, &[(2, 0, S)]),
            (c, S, &[(10, 0, 0), (0, 0, 0)]),
            (s, C, &[(11, 0, 0), (3, 0, 0)]),
            (c, S, &[(7, 0, 0)]),
            (s, C, &[(8, 0, 0)]),
            (c, C, &[(14, 1, 0)]),
        ],
    );
    tell(
        "collision and refusals",
        &[
            (c, 0, &[(1, 0, C)]),
            (s, 0, &[(1, 0, S)]),
            (s, C, &[(2, 0, 99)]),
            (c, C, &[(0, 0, 0)]),
            (c, C, &[(10, 0, 0)]),
            (c, C, &[(6, 0, 0)]),
            (c, S, &[(6, 1, 0)]),
            (c, 5, &[(1, 0, C)]),
        ],
    );
    tell(
        "a second path",
        &[
            (c, S, &[(4, 0, 0)]),
            (s, 0, &[(6, 1, 0)]),
            (s, C, &[(3, 0, 0)]),
            (s, C, &[(200, 0, 0)]),
            (s, C, &[(5, 0, 0)]),
            (c, 77, &[(4, 0, 0), (0, 0, 0)]),
            (c, 77, &[(4, 0, 0), (4, 0, 0)]),
            (c, 77, &[(5, 0, 0)]),
            (c, 77, &[(4, 0, 0)]),
            (s, 99, &[(5, 0, 0)]),
        ],
    );
    tell("nothing can begin with it", &[(c, 9, &[(0, 0, 0)]), (c, 9, &[(6, 0, 0)]), (c, 9, &[(1, 0, C)])]);
    text
}

/// Refusals of single packets.
fn refusals() -> String {
    let mut text = String::from("refusals\n");
    let whole = sctp(CLIENT, 1, SERVER, 2, 0, &[init(C)]);
    let mut broken = whole.clone();
    broken[28] = !broken[28];
    let raw = |chunks: &[Vec<u8>]| sctp(CLIENT, 1, SERVER, 2, 0, chunks);
    let mut bare = udplite(CLIENT, 1, SERVER, 2, 0, b"");
    set16(&mut bare, 26, 0);
    let rfc = udplite_summed(CLIENT, 1, SERVER, 2, 0, b"text", |len| (136, len));
    let mut changed = udplite(CLIENT, 1, SERVER, 2, 0, b"text");
    changed[30] ^= 1;
    let ip_in_1 = packet(CLIENT, SERVER, 47, 57, &[0x30, 1, 8, 0, 0, 0, 0, 7]);
    for bytes in [
        packet(CLIENT, SERVER, 132, 57, &whole[20..31]),
        broken,
        raw(&[]),
        raw(&[vec![0, 0, 0, 0]]),
        raw(&[chunk(3, 0, &[]), init(C)]),
        raw(&[chunk(3, 0, &[]), chunk(11, 0, &[])]),
        raw(&[chunk(1, 0, &[1; 8])]),
        packet(CLIENT, SERVER, 136, 57, &bare[20..27]),
        udplite(CLIENT, 1, SERVER, 2, 5, b""),
        bare,
        rfc,
        changed,
        ip_in_1.clone(),
        error(ROUTER, CLIENT, 11, 0, 0, &ip_in_1),
    ] {
        let reason = receive(&mut Engine::new(0), &bytes).reason.unwrap();
        writeln!(text, "  {}: {reason}", reason.code()).unwrap();
    }
    text
}

/// To see a change of words, write this to `sctp_words.txt` and look at the diff.
#[test]
fn the_words_are_the_recorded_ones() {
    let text = conversations() + &refusals();
    assert!(text == include_str!("sctp_words.txt"), "the words changed; now they are:\n{text}");
}

#[test]
fn codes_are_distinct_and_carry_the_protocol() {
    let (kind, number, length, lonely) = (ChunkType::INIT, 1, 4, ChunkType::INIT);
    let direction = ctwhy_core::direction::Direction::Original;
    let (found, expected) = (1, 2);
    let reasons = [
        SctpReason::Short { have: 3 },
        SctpReason::Checksum { found, expected },
        SctpReason::ChunkEmpty { kind, number, lonely: None },
        SctpReason::ChunkNotAlone { kind, number, length, lonely },
        SctpReason::ChunkNotFirst { kind, number, length },
        SctpReason::NoChunk,
        SctpReason::BeginsNothing { kind },
        SctpReason::InitTag { vtag: 1 },
        SctpReason::InitShort { kind, have: 3 },
        SctpReason::Tag { direction, found, expected },
        SctpReason::ChunkTag { kind, reflected: true, found, expected },
        SctpReason::HeartbeatTag { kind, found, expected, cause: ctwhy_core::track::sctp::HeartbeatCause::WithData },
        SctpReason::InitAckTag { found, expected },
        SctpReason::InvalidState { direction, kind, state: ctwhy_core::track::sctp::SctpState::Closed },
    ];
    let codes: BTreeSet<&str> = reasons.iter().map(SctpReason::code).collect();
    assert_eq!(codes.len(), reasons.len());
    assert!(codes.iter().all(|code| code.starts_with("sctp.")));
}
