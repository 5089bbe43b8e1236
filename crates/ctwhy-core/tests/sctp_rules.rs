//! SCTP rule by rule. Catalogue F, SCTP-01 to SCTP-08.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may panic: that is how it fails.

mod common;

use common::*;
use ctwhy_core::checksum::sctp_crc;
use ctwhy_core::conn::{Confirmed, Protocol};
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::hook::Engine;
use ctwhy_core::status::Status;
use ctwhy_core::time::Time;
use ctwhy_core::track::sctp::{Sctp, SctpState};

/// Tags: what the client, and what the server wants to be called by.
const C: u32 = 0x0102_0304;
const S: u32 = 0xa1a2_a3a4;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;
const T: u8 = 1;

const NEW: Result<CtInfo, &str> = Ok(CtInfo::New);
const ESTABLISHED: Result<CtInfo, &str> = Ok(CtInfo::Established);
const REPLY: Result<CtInfo, &str> = Ok(CtInfo::EstablishedReply);

#[derive(Default)]
struct Flow {
    engine: Option<Engine>,
    now: Time,
}

impl Flow {
    /// After INIT, INIT ACK, COOKIE ECHO, COOKIE ACK.
    fn established() -> Flow {
        let mut flow = Flow::default();
        assert_eq!(flow.client(0, INIT, C), NEW);
        assert_eq!(flow.server(C, INIT_ACK, S), REPLY);
        assert_eq!(flow.client(S, COOKIE_ECHO, 0), ESTABLISHED);
        assert_eq!(flow.server(C, COOKIE_ACK, 0), REPLY);
        flow
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.get_or_insert_with(|| {
            let mut engine = Engine::new(0);
            engine.conntrack.sysctls.acct = true;
            engine
        })
    }

    fn receive(&mut self, packet: &[u8]) -> Result<CtInfo, &'static str> {
        let now = self.now;
        let ruling = receive_at(self.engine(), packet, now).0;
        match invalid(&ruling) {
            Some(code) => Err(code),
            None => Ok(ruling.ctinfo.unwrap()),
        }
    }

    fn client(&mut self, vtag: u32, kind: u8, tag: u32) -> Result<CtInfo, &'static str> {
        self.chunks(true, vtag, &[(kind, 0, tag)])
    }

    fn server(&mut self, vtag: u32, kind: u8, tag: u32) -> Result<CtInfo, &'static str> {
        self.chunks(false, vtag, &[(kind, 0, tag)])
    }

    /// Each chunk is type, flags and, for INIT and INIT ACK, the tag that it announces.
    fn chunks(&mut self, client: bool, vtag: u32, chunks: &[(u8, u8, u32)]) -> Result<CtInfo, &'static str> {
        let chunks: Vec<_> = chunks.iter().map(|(kind, flags, tag)| chunk(*kind, *flags, &body(*kind, *tag))).collect();
        self.receive(&packet_of(client, vtag, &chunks))
    }

    fn entry(&mut self) -> Confirmed {
        let (_, entry) = self.engine().conntrack.table.iter().next().expect("an entry");
        entry
    }

    fn sctp(&mut self) -> Sctp {
        match self.entry().flow.protocol {
            Protocol::Sctp(sctp) => sctp,
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self) -> SctpState {
        self.sctp().state()
    }

    fn tags(&mut self) -> [u32; 2] {
        let sctp = self.sctp();
        Direction::BOTH.map(|direction| sctp.tag(direction))
    }

    fn left(&mut self) -> u32 {
        let now = self.now;
        self.entry().remaining_secs(now)
    }

    fn packets(&mut self) -> [u64; 2] {
        self.entry().flow.counters.unwrap().map(|counter| counter.packets)
    }

    fn assured(&mut self) -> bool {
        self.entry().flow.status.contains(Status::ASSURED)
    }
}

fn body(kind: u8, tag: u32) -> Vec<u8> {
    match kind {
        INIT | INIT_ACK => init_body(tag),
        DATA => vec![0; 13],
        HEARTBEAT | HEARTBEAT_ACK => vec![0, 1, 0, 8, 1, 2, 3, 4],
        _ => vec![],
    }
}

fn packet_of(client: bool, vtag: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let (c, s) = ((CLIENT, 4000), (SERVER, 5000));
    let (from, to) = if client { (c, s) } else { (s, c) };
    sctp(from.0, from.1, to.0, to.1, vtag, chunks)
}

/// The SCTP part replaced, IP length and checksums made right again.
fn with_l4(l4: &[u8], crc: bool) -> Vec<u8> {
    let mut l4 = l4.to_vec();
    if crc && l4.len() >= 12 {
        l4[8..12].fill(0);
        let crc = crc32c(&l4);
        l4[8..12].copy_from_slice(&crc);
    }
    packet(CLIENT, SERVER, 132, 57, &l4)
}

#[test]
fn the_crc_is_that_of_rfc_3720() {
    // 32 bytes of zero, RFC 3720 appendix B.4.
    assert_eq!(sctp_crc(&[0; 32]), 0xaa36_918a);
    assert_eq!(crc32c(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
    let ascending: Vec<u8> = (0..32).collect();
    assert_eq!(crc32c(&ascending), [0x4e, 0x79, 0xdd, 0x46]);
    let mut zeroed = ascending.clone();
    zeroed[8..12].fill(0);
    assert_eq!(sctp_crc(&ascending).to_be_bytes(), crc32c(&zeroed));
}

#[test]
fn sctp_01_header_and_crc() {
    let whole = packet_of(true, 0, &[init(C)]);
    let l4 = &whole[20..];
    for cut in 4..12 {
        assert_eq!(Flow::default().receive(&with_l4(&l4[..cut], false)), Err("sctp.short"));
    }
    assert_eq!(Flow::default().receive(&with_l4(&l4[..3], false)), Err("tuple.short_transport"));
    let mut broken = whole.clone();
    broken[40] ^= 1;
    assert_eq!(Flow::default().receive(&broken), Err("sctp.checksum"));
    let mut unverified = Flow::default();
    unverified.engine().conntrack.sysctls.checksum = false;
    assert_eq!(unverified.receive(&broken), NEW);
    assert_eq!(Flow::default().receive(&whole), NEW);
}

#[test]
fn sctp_02_the_order_of_chunks() {
    let refused = |chunks: &[(u8, u8, u32)]| {
        let mut flow = Flow::established();
        let said = flow.chunks(true, S, chunks);
        assert_eq!(flow.state(), SctpState::Established);
        said
    };
    for kind in [INIT, INIT_ACK, SHUTDOWN_COMPLETE] {
        assert_eq!(refused(&[(kind, 0, C), (SACK, 0, 0)]), Err("sctp.chunk_not_alone"));
        assert_eq!(refused(&[(SACK, 0, 0), (kind, 0, C)]), Err("sctp.chunk_not_alone"));
    }
    for kind in [COOKIE_ECHO, COOKIE_ACK] {
        assert_eq!(refused(&[(kind, 0, 0), (DATA, 0, 0)]), ESTABLISHED);
        assert_eq!(refused(&[(SACK, 0, 0), (kind, 0, 0)]), Err("sctp.chunk_not_first"));
    }
    assert_eq!(refused(&[]), Err("sctp.no_chunk"));

    let empty = [chunk(SACK, 0, &[]), vec![DATA, 0, 0, 0]];
    assert_eq!(Flow::established().receive(&packet_of(true, S, &empty)), Err("sctp.chunk_empty"));
    // A length below 4 advances one word all the same, and what cannot be a chunk header at the end is no chunk.
    let tiny = [vec![SACK, 0, 0, 1], vec![DATA, 0, 0, 3], vec![1, 2, 3]];
    assert_eq!(Flow::established().receive(&packet_of(true, S, &tiny)), ESTABLISHED);
    // A length beyond the end ends the walk.
    assert_eq!(Flow::established().receive(&packet_of(true, S, &[vec![SACK, 0, 0xff, 0xff]])), ESTABLISHED);
    assert_eq!(Flow::established().receive(&packet_of(true, S, &[vec![SACK, 0, 0]])), Err("sctp.no_chunk"));
}

#[test]
fn sctp_03_what_begins_an_entry() {
    let begins = |vtag, kind| {
        let mut flow = Flow::default();
        flow.client(vtag, kind, C).map(|_| (flow.state(), flow.left(), flow.tags()))
    };
    assert_eq!(begins(0, INIT), Ok((SctpState::Closed, 10, [0, C])));
    assert_eq!(begins(9, INIT), Err("sctp.init_tag"));
    assert_eq!(begins(9, HEARTBEAT), Ok((SctpState::HeartbeatSent, 30, [9, 0])));
    assert_eq!(begins(9, HEARTBEAT_ACK), Ok((SctpState::Closed, 10, [9, 0])));
    assert_eq!(begins(9, SHUTDOWN_ACK), Ok((SctpState::ShutdownAckSent, 3, [0, 9])));
    for kind in [ABORT, SHUTDOWN_COMPLETE, COOKIE_ACK, DATA, SACK, 200] {
        for vtag in [0, 9] {
            assert_eq!(begins(vtag, kind), Err("sctp.begins_nothing"), "{kind}");
        }
    }
    assert_eq!(begins(9, COOKIE_ECHO), Err("sctp.chunk_tag"));
    for kind in [INIT_ACK, SHUTDOWN, ERROR] {
        assert_eq!(begins(9, kind), Err("sctp.tag"), "{kind}");
    }
    // Nobody's tag is known yet, so 0 is the right one.
    for (kind, tags) in [(INIT_ACK, [0, C]), (SHUTDOWN, [0, 0]), (ERROR, [0, 0]), (COOKIE_ECHO, [0, 0])] {
        assert_eq!(begins(0, kind), Ok((SctpState::Closed, 10, tags)), "{kind}");
    }
    assert_eq!(Flow::default().chunks(true, 9, &[(HEARTBEAT, 0, 0), (DATA, 0, 0)]), Err("sctp.begins_nothing"));
    // A HEARTBEAT anywhere in the packet makes its tag the right one for the chunks before it.
    let mut flow = Flow::default();
    assert_eq!(flow.chunks(true, 9, &[(COOKIE_ECHO, 0, 0), (HEARTBEAT, 0, 0)]), NEW);
    assert_eq!((flow.state(), flow.tags()), (SctpState::Closed, [9, 0]));
}

#[test]
fn an_init_whose_fixed_part_is_cut_off_is_invalid() {
    let short = |kind| packet_of(true, 0, &[chunk(kind, 0, &init_body(C)[..15])[..19].to_vec()]);
    assert_eq!(Flow::default().receive(&short(INIT)), Err("sctp.init_short"));
    assert_eq!(Flow::default().receive(&short(INIT_ACK)), Err("sctp.init_short"));
}

#[test]
fn sctp_04_ordinary_packets_carry_the_tag_of_their_direction() {
    let mut flow = Flow::established();
    assert_eq!(flow.tags(), [S, C]);
    assert_eq!(flow.client(S, DATA, 0), ESTABLISHED);
    assert_eq!(flow.server(C, SACK, 0), REPLY);
    for kind in [DATA, SACK, SHUTDOWN, ERROR, COOKIE_ACK, INIT_ACK, 200] {
        assert_eq!(flow.client(C, kind, C), Err("sctp.tag"), "{kind}");
        assert_eq!(flow.server(S, kind, S), Err("sctp.tag"), "{kind}");
    }
    // A chunk with a rule of its own frees the others of its packet from this one.
    assert_eq!(flow.chunks(true, 7, &[(SHUTDOWN_ACK, 0, 0), (DATA, 0, 0)]), ESTABLISHED);
}

#[test]
fn sctp_04_chunks_with_a_rule_of_their_own() {
    for kind in [ABORT, SHUTDOWN_COMPLETE] {
        let said = |vtag, flags| Flow::established().chunks(true, vtag, &[(kind, flags, 0)]);
        assert_eq!(said(S, 0), ESTABLISHED);
        assert_eq!(said(C, 0), Err("sctp.chunk_tag"));
        assert_eq!(said(C, T), ESTABLISHED);
        assert_eq!(said(S, T), Err("sctp.chunk_tag"));
        assert_eq!(said(S, 2), ESTABLISHED);
    }
    assert_eq!(Flow::established().client(C, COOKIE_ECHO, 0), Err("sctp.chunk_tag"));
    assert_eq!(Flow::established().chunks(true, C, &[(COOKIE_ECHO, T, 0)]), Err("sctp.chunk_tag"));
    assert_eq!(Flow::established().client(S, INIT, C), Err("sctp.init_tag"));
}

#[test]
fn sctp_05_06_an_association_from_init_to_shutdown_complete() {
    let mut flow = Flow::default();
    let (c, s) = (true, false);
    let steps = [
        (c, 0, INIT, C, SctpState::Closed, 10, false),
        (s, C, INIT_ACK, S, SctpState::CookieWait, 3, false),
        (c, S, COOKIE_ECHO, 0, SctpState::CookieEchoed, 3, false),
        (s, C, COOKIE_ACK, 0, SctpState::Established, 210, true),
        (c, S, DATA, 0, SctpState::Established, 210, true),
        (s, C, SACK, 0, SctpState::Established, 210, true),
        (c, S, SHUTDOWN, 0, SctpState::ShutdownSent, 3, true),
        (s, C, SHUTDOWN_ACK, 0, SctpState::ShutdownAckSent, 3, true),
        (c, S, SHUTDOWN_COMPLETE, 0, SctpState::Closed, 10, true),
        // A new association finds the old entry (SCTP-06).
        (c, 0, INIT, 77, SctpState::Closed, 10, true),
        (s, 77, INIT_ACK, 88, SctpState::CookieWait, 3, true),
    ];
    for (number, (client, vtag, kind, tag, state, left, assured)) in steps.into_iter().enumerate() {
        let ctinfo = match (number, client) {
            (0, _) => NEW,
            (_, true) => ESTABLISHED,
            (_, false) => REPLY,
        };
        assert_eq!(flow.chunks(client, vtag, &[(kind, 0, tag)]), ctinfo, "step {number}");
        assert_eq!((flow.state(), flow.left(), flow.assured()), (state, left, assured), "step {number}");
    }
    assert_eq!(flow.entry().id, 1);
}

#[test]
fn timeouts_are_the_sysctls_of_the_state() {
    let mut flow = Flow::default();
    let sysctls = &mut flow.engine().conntrack.sysctls;
    for (name, value) in [("closed", "11"), ("cookie_wait", "12"), ("cookie_echoed", "13"), ("established", "14")] {
        sysctls.set(&format!("nf_conntrack_sctp_timeout_{name}"), value).unwrap();
    }
    for (client, vtag, kind, tag, left) in [
        (true, 0, INIT, C, 11),
        (false, C, INIT_ACK, S, 12),
        (true, S, COOKIE_ECHO, 0, 13),
        (false, C, COOKIE_ACK, 0, 14),
    ] {
        flow.chunks(client, vtag, &[(kind, 0, tag)]).unwrap();
        assert_eq!(flow.left(), left);
    }
}

#[test]
fn sctp_06_an_init_again_passes_but_does_not_keep_the_entry_alive() {
    let mut flow = Flow::default();
    flow.client(0, INIT, C).unwrap();
    flow.now = Time(0).plus_secs(4);
    assert_eq!(flow.client(0, INIT, C), NEW);
    assert_eq!(flow.client(0, INIT, 55), NEW);
    assert_eq!((flow.left(), flow.packets(), flow.tags()), (6, [1, 0], [0, 55]));
    // From the other side, too: it is accepted, and even counts as a reply.
    assert_eq!(flow.server(0, INIT, S), REPLY);
    assert_eq!((flow.left(), flow.packets(), flow.tags()), (6, [1, 0], [S, 55]));
    assert!(flow.entry().flow.status.contains(Status::SEEN_REPLY));
}

#[test]
fn sctp_07_an_init_collision_stays_closed() {
    let mut flow = Flow::default();
    assert_eq!(flow.client(0, INIT, C), NEW);
    assert_eq!(flow.server(0, INIT, S), REPLY);
    // The server answers the client's INIT with another tag: that handshake lost.
    assert_eq!(flow.server(C, INIT_ACK, 99), Err("sctp.init_ack_tag"));
    assert_eq!(flow.tags(), [S, C]);
    assert_eq!(flow.client(S, INIT_ACK, C), ESTABLISHED);
    assert_eq!(flow.server(C, COOKIE_ECHO, 0), REPLY);
    assert_eq!(flow.client(S, COOKIE_ACK, 0), ESTABLISHED);
    assert_eq!(flow.client(S, DATA, 0), ESTABLISHED);
    assert_eq!((flow.state(), flow.left(), flow.assured()), (SctpState::Closed, 10, false));
}

#[test]
fn sctp_07_an_init_ack_that_nobody_asked_for_must_agree() {
    let mut flow = Flow::established();
    // The COOKIE ACK settled who sent an INIT.
    assert_eq!(flow.server(C, INIT_ACK, 99), Err("sctp.init_ack_tag"));
    assert_eq!(flow.server(C, INIT_ACK, S), REPLY);
    assert_eq!(flow.client(0, INIT, C), ESTABLISHED);
    // An INIT that says what is known counts as an old one.
    assert_eq!(flow.server(C, INIT_ACK, 99), Err("sctp.init_ack_tag"));
    assert_eq!(flow.client(0, INIT, 66), ESTABLISHED);
    assert_eq!(flow.server(66, INIT_ACK, 99), REPLY);
    assert_eq!(flow.tags(), [99, 66]);
}

#[test]
fn sctp_07_a_third_init_ends_the_collision() {
    let mut flow = Flow::default();
    assert_eq!(flow.client(0, INIT, C), NEW);
    assert_eq!(flow.server(0, INIT, S), REPLY);
    assert_eq!(flow.client(0, INIT, 66), ESTABLISHED);
    // The server answers this one, with whatever tag it likes.
    assert_eq!(flow.server(66, INIT_ACK, 99), REPLY);
    assert_eq!((flow.state(), flow.tags()), (SctpState::CookieWait, [99, 66]));
}

#[test]
fn an_adopted_entry_becomes_assured_only_when_it_gets_established() {
    let established = packet_of(true, S, &[chunk(DATA, 0, &[0; 13])]);
    let echoed = packet_of(true, S, &[chunk(COOKIE_ACK, 0, &[])]);
    let said = |state, bytes: &[u8]| {
        let sysctls = ctwhy_core::sysctl::Sysctls::default();
        let cx = ctwhy_core::track::Context {
            sysctls: &sysctls,
            kernel: ctwhy_core::profile::DEFAULT,
            verify_checksum: true,
        };
        let packet = ctwhy_core::packet::Packet::parse(bytes, bytes.len()).unwrap();
        let packet = ctwhy_core::track::sctp::check(&packet.l4(20), &cx, &mut ()).unwrap();
        let mut status = Status::CONFIRMED;
        Sctp::from_ctnetlink(state, [S, C]).packet(&packet, Direction::Original, &mut status, &cx, &mut ());
        status.contains(Status::ASSURED)
    };
    assert!(!said(SctpState::Established, &established));
    assert!(said(SctpState::CookieEchoed, &echoed));
}

#[test]
fn sctp_08_a_second_path_begins_with_a_heartbeat() {
    let mut flow = Flow::default();
    assert_eq!(flow.client(S, HEARTBEAT, 0), NEW);
    assert_eq!((flow.state(), flow.left(), flow.tags()), (SctpState::HeartbeatSent, 30, [S, 0]));
    for kind in [DATA, SACK] {
        assert_eq!(flow.server(C, kind, 0), Err("sctp.tag"));
    }
    for kind in [ABORT, SHUTDOWN_ACK, COOKIE_ECHO, INIT] {
        assert_eq!(flow.server(0, kind, 7), Err("sctp.invalid_state"), "{kind}");
    }
    assert_eq!(flow.server(C, HEARTBEAT_ACK, 0), REPLY);
    assert_eq!((flow.state(), flow.left(), flow.tags()), (SctpState::Established, 210, [S, C]));
    assert!(flow.assured());
}

#[test]
fn sctp_08_heartbeats_with_other_tags_resynchronise() {
    let mut flow = Flow::established();
    flow.now = Time(0).plus_secs(10);
    assert_eq!(flow.server(99, HEARTBEAT_ACK, 0), Err("sctp.heartbeat_tag"));
    assert_eq!(flow.client(77, HEARTBEAT, 0), ESTABLISHED);
    assert_eq!((flow.left(), flow.tags()), (200, [S, C]));
    // The same side cannot answer itself.
    assert_eq!(flow.client(77, HEARTBEAT_ACK, 0), Err("sctp.heartbeat_tag"));
    assert_eq!(flow.server(99, HEARTBEAT_ACK, 0), REPLY);
    assert_eq!((flow.left(), flow.tags()), (210, [0, 99]));
    assert_eq!(flow.client(77, HEARTBEAT, 0), ESTABLISHED);
    assert_eq!(flow.tags(), [77, 99]);
    assert_eq!(flow.packets(), [3, 3]);
}

#[test]
fn sctp_08_a_heartbeat_with_the_right_tag_ends_the_doubt() {
    for (client, vtag, kind) in [(true, S, HEARTBEAT), (false, C, HEARTBEAT_ACK), (true, S, HEARTBEAT_ACK)] {
        let mut flow = Flow::established();
        flow.client(77, HEARTBEAT, 0).unwrap();
        flow.chunks(client, vtag, &[(kind, 0, 0)]).unwrap();
        assert_eq!(flow.server(99, HEARTBEAT_ACK, 0), Err("sctp.heartbeat_tag"));
        assert_eq!(flow.tags(), [S, C]);
    }
}

#[test]
fn sctp_08_a_heartbeat_with_another_tag_and_data_is_no_probe() {
    let mut flow = Flow::established();
    for kind in [HEARTBEAT, HEARTBEAT_ACK] {
        assert_eq!(flow.chunks(true, 77, &[(kind, 0, 0), (DATA, 0, 0)]), Err("sctp.heartbeat_tag"));
    }
    assert_eq!(flow.chunks(true, 77, &[(HEARTBEAT, 0, 0), (HEARTBEAT, 0, 0)]), Err("sctp.heartbeat_tag"));
    // The first of the two was remembered before the second was refused.
    assert_eq!(flow.server(99, HEARTBEAT_ACK, 0), REPLY);
}

#[test]
fn what_earlier_chunks_did_stays_when_a_later_one_is_refused() {
    let mut flow = Flow::default();
    flow.client(0, INIT, C).unwrap();
    flow.server(C, INIT_ACK, S).unwrap();
    flow.client(S, COOKIE_ECHO, 0).unwrap();
    flow.now = Time(0).plus_secs(1);
    assert_eq!(
        flow.chunks(false, 5, &[(COOKIE_ACK, 0, 0), (HEARTBEAT, 0, 0), (DATA, 0, 0)]),
        Err("sctp.heartbeat_tag")
    );
    assert_eq!((flow.state(), flow.left(), flow.assured()), (SctpState::Established, 2, true));
    // And when a later one has no effect.
    let mut flow = Flow::default();
    flow.client(0, INIT, C).unwrap();
    flow.server(C, INIT_ACK, S).unwrap();
    flow.client(S, COOKIE_ECHO, 0).unwrap();
    assert_eq!(flow.chunks(false, 5, &[(COOKIE_ACK, 0, 0), (HEARTBEAT, 0, 0)]), REPLY);
    assert_eq!((flow.state(), flow.left(), flow.assured()), (SctpState::Established, 3, true));
}

#[test]
fn the_last_chunk_decides_about_the_timeout() {
    let mut flow = Flow::established();
    assert_eq!(flow.chunks(true, S, &[(DATA, 0, 0), (SHUTDOWN, 0, 0)]), ESTABLISHED);
    assert_eq!((flow.state(), flow.left()), (SctpState::ShutdownSent, 3));
    assert_eq!(flow.chunks(false, C, &[(SHUTDOWN_ACK, 0, 0), (ABORT, 0, 0)]), REPLY);
    assert_eq!((flow.state(), flow.left()), (SctpState::Closed, 10));
}

#[test]
fn clash_03_two_associations_with_one_tuple_do_not_merge() {
    use ctwhy_core::confirm::ConfirmDrop;
    use ctwhy_core::hook::{DropCause, Verdict};
    use ctwhy_core::nat::range::Range;
    use ctwhy_core::nat::rules::Target;
    // Two clients forced to one port: the second INIT finds the reply tuple taken.
    let mut engine = nat_box(|l3| {
        let address = ip(if l3 == ctwhy_core::tuple::L3::V4 { NAT } else { NAT6 }).into();
        let range = Range { addresses: Some((address, address)), ports: Some((5000, 5000)), ..Range::default() };
        ctwhy_core::nat::rules::Ruleset { postrouting: rule(Target::Snat(range)), ..Default::default() }
    });
    let (first, _) = receive_at(&mut engine, &sctp(CLIENT, 1, SERVER, 9, 0, &[init(C)]), Time(0));
    let (second, _) = receive_at(&mut engine, &sctp(CLIENT, 2, SERVER, 9, 0, &[init(C)]), Time(0));
    assert_eq!(first.verdict, Verdict::Accept);
    let clash = ConfirmDrop::Clash { direction: Direction::Reply };
    assert_eq!(second.verdict, Verdict::Drop(DropCause::Confirm(clash)));
}

#[test]
fn clash_03_not_even_the_same_packet_twice() {
    use ctwhy_core::confirm::ConfirmDrop;
    use ctwhy_core::hook::{DropCause, Egress, Hook, Verdict};
    use ctwhy_core::mirror::Departure;
    use ctwhy_core::packet::Packet;
    let bytes = packet_of(true, 0, &[init(C)]);
    let mut engine = Engine::new(0);
    let arrived = [0, 1].map(|_| {
        let packet = Packet::parse(&bytes, bytes.len()).unwrap();
        engine.arrive(&packet, Hook::PreRouting, None, Time(0), &mut ()).unwrap()
    });
    let verdicts = arrived.map(|tracked| {
        let departure = Departure { hook: Hook::PreRouting, egress: Egress::Forwarded(None), learnt: None };
        engine.depart(&mut bytes.clone(), tracked, &departure, Time(0), &mut ()).verdict
    });
    let clash = ConfirmDrop::Clash { direction: Direction::Original };
    assert_eq!(verdicts, [Verdict::Accept, Verdict::Drop(DropCause::Confirm(clash))]);
}

/// A capture may hold less than the packet had: then only what is there may be decided by.
#[test]
fn a_capture_cut_before_the_last_chunk_header_says_nothing() {
    let cut_short = |packet: &[u8], keep: usize| {
        let mut buffer = packet[..keep].to_vec();
        let ruling = Engine::new(0).receive(&mut buffer, packet.len(), None, Time(0), &mut ());
        ruling.ctinfo.is_err_and(|unseen| unseen.code() == "capture.cut_short")
    };
    let heartbeats = [chunk(HEARTBEAT, 0, &[0; 40]), chunk(HEARTBEAT, 0, &[0; 100])];
    let two = packet_of(true, 9, &heartbeats);
    // IP, common header, the first chunk, the header of the second.
    assert!(cut_short(&two, 20 + 12 + 44 + 3));
    assert!(!cut_short(&two, 20 + 12 + 44 + 4));
    assert!(cut_short(&two, 20 + 12 + 3));
    assert!(cut_short(&two, 20 + 11));
    let init = packet_of(true, 0, &[init(C)]);
    assert!(cut_short(&init, 20 + 12 + 19));
    assert!(!cut_short(&init, init.len()));
}
