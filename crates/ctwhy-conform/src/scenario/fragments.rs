//! Fragments: gathered in front of conntrack, tracked as one packet, cut again on the way out.

use super::{Builder, Family, Scenario, probe, second_client};
use crate::compose::{self, Body, Chunk, Ip, Piece, Tcp, chunk_type, fragments, proto, udp};

const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fragments",
        families: &Family::BOTH,
        title: "A datagram in fragments",
        shows: "Conntrack sees nothing of a fragment but the one that completes its datagram, which is tracked, counted and \
                translated as one packet of its full length and leaves in the fragments that it came in. Their order does \
                not matter.",
        ids: &["FRAG-01", "FRAG-02", "FRAG-05"],
        compose: |b| {
            b.masquerade().sysctl("net.netfilter.nf_conntrack_acct", "1");
            let (inside, outside) = (b.inside(), b.outside());
            let back = Ip::between(b.server, b.wan);
            for (id, order) in [(1, [0, 1, 2]), (2, [2, 1, 0]), (3, [1, 2, 0])] {
                let out = fragments(&inside, &large(&inside, 3000), id, &[1400, 2800]);
                let answer = fragments(&back, &udp(&back, 33_434, 40_000, &[7; 2000]), id, &[800, 1600]);
                for part in order {
                    b.lan(out[part].clone());
                }
                for part in order {
                    b.wan(answer[part].clone());
                }
            }
            let whole = outside.packet(large(&outside, 3000));
            let header = b.header();
            b.exceed(&whole[..header + 8]);
        },
    },
    Scenario {
        name: "fragments-untracked",
        families: &Family::BOTH,
        title: "Fragments of datagrams that are not to be tracked",
        shows: "They are gathered all the same, because that comes before the raw table: one packet is UNTRACKED, and it \
                leaves in the fragments that it came in.",
        ids: &["NOTRACK-02", "FRAG-01"],
        compose: |b| {
            b.rules("*raw\n-A PREROUTING -i lan -j CT --notrack\nCOMMIT\n");
            let inside = b.inside();
            for part in fragments(&inside, &large(&inside, 2000), 5, &[1200]) {
                b.lan(part);
            }
        },
    },
    Scenario {
        name: "fragments-for-box",
        families: &Family::BOTH,
        title: "A datagram in fragments for the box itself",
        shows: "It is delivered as one packet, to a closed port: the box answers and quotes the datagram, not a fragment.",
        ids: &["FRAG-01", "ICMP-LOC-06"],
        compose: |b| {
            let to_box = Ip::between(b.client, b.lan);
            for part in fragments(&to_box, &large(&to_box, 2000), 9, &[1200]) {
                b.lan(part);
            }
        },
    },
    Scenario {
        name: "fragments-overlap",
        families: &Family::BOTH,
        title: "Fragments that overlap",
        shows: "One that repeats what is there is ignored, also when its bytes differ and when it repeats several that came in \
                order. Any other overlap ends the datagram; so does repeating several that came in another order. What comes \
                later begins anew.",
        ids: &["FRAG-04"],
        compose: overlaps,
    },
    Scenario {
        name: "fragments-wrong-ends",
        families: &Family::BOTH,
        title: "Fragments that end where they should not",
        shows: "A second end of the datagram, data behind its end, and fragments without data: with IPv4 they end the datagram, \
                with IPv6 they alone are dropped. A last fragment that only repeats data tells where the datagram ends, but \
                does not complete it.",
        ids: &["FRAG-04"],
        compose: wrong_ends,
    },
    Scenario {
        name: "fragments-interleaved",
        families: &Family::BOTH,
        title: "Fragments of several datagrams at once",
        shows: "They are told apart by addresses and identification, with IPv4 also by protocol, which IPv6 takes from the first \
                fragment. The interface does not matter. An identification may be used again at once.",
        ids: &["FRAG-05"],
        compose: interleaved,
    },
    Scenario {
        name: "fragments-ecn",
        families: &Family::BOTH,
        title: "ECN in fragments",
        shows: "One fragment that is marked marks the datagram and with it every fragment that leaves; one that is not \
                ECN-capable among others that are drops all (RFC 3168).",
        ids: &["FRAG-02"],
        compose: ecn,
    },
    Scenario {
        name: "fragments-mtu",
        families: &Family::BOTH,
        title: "Fragments before a narrower way out",
        shows: "IPv4 cuts anew what does not fit, unless a fragment that did not fit said that it must not be cut; IPv6 never \
                does. The box answers with the MTU, and quotes the datagram.",
        ids: &["FRAG-02", "FRAG-03"],
        compose: narrow,
    },
    Scenario {
        name: "fragments-dont-fragment",
        families: V4,
        title: "DF in fragments",
        shows: "When they leave as they came DF is cleared. When they are cut anew, here because the kernel wants the TCP header \
                in one piece, DF is set if none without it was longer than those with it.",
        ids: &["FRAG-03", "FRAG-10"],
        compose: dont_fragment,
    },
    Scenario {
        name: "fragments-options",
        families: V4,
        title: "IP options in fragments",
        shows: "The datagram has the options of its first fragment. On the way out the later fragments get those that say so; \
                in the place of the others are no-operations.",
        ids: &["FRAG-02"],
        compose: options,
    },
    Scenario {
        name: "fragments-max-distance",
        families: V4,
        title: "The identification may have come round",
        shows: "When its source has sent more than ipfrag_max_dist other fragments since, those of a datagram are thrown away, \
                and it begins with the fragment that came now.",
        ids: &["FRAG-04"],
        compose: |b| {
            b.sysctl("net.ipv4.ipfrag_max_dist", "3");
            let inside = b.inside();
            let body = large(&inside, 64);
            for others in [3, 4] {
                let id = 10 * others;
                b.lan(Piece::new(id, 0..32).packet(&inside, &body));
                for other in 1..others {
                    b.lan(Piece::new(id + other, 0..32).packet(&inside, &body));
                }
                b.lan(Piece::last(id, 32..72).packet(&inside, &body)).lan(Piece::new(id, 0..32).packet(&inside, &body));
            }
        },
    },
    Scenario {
        name: "fragments-too-long",
        families: &Family::BOTH,
        title: "Fragments of what is no packet",
        shows: "Together they would be longer than a packet can be. IPv4 notices when all are there, IPv6 at once.",
        ids: &["FRAG-04"],
        compose: |b| {
            let inside = b.inside();
            let body = Body::new(200, [5; 1440]);
            if b.family == Family::V4 {
                for offset in (0..64_800).step_by(1440) {
                    b.lan(Piece { offset, ..Piece::new(7, 0..1440) }.packet(&inside, &body));
                }
                b.lan(Piece { offset: 64_800, ..Piece::last(7, 0..720) }.packet(&inside, &body));
            }
            b.lan(Piece { offset: 65_528, ..Piece::last(8, 0..8) }.packet(&inside, &body));
        },
    },
    Scenario {
        name: "fragments-of-error",
        families: &Family::BOTH,
        title: "An ICMP error in fragments",
        shows: "It is put together first, and is one RELATED packet. NAT wants the headers that it quotes in one piece: when the \
                first fragment ends before, it leaves in other fragments.",
        ids: &["ICMP-REL-12", "NAT-ICMP-01"],
        compose: |b| {
            b.masquerade();
            let (inside, outside) = (b.inside(), b.outside());
            for part in fragments(&inside, &large(&inside, 1300), 1, &[640]) {
                b.lan(part);
            }
            let left = outside.packet(large(&outside, 1300));
            let back = Ip::between(b.r1, b.wan);
            let error = b.error_body(&back, super::Kind::TimeExceeded, &left[..1200]);
            for (id, ends) in [(5, &[800][..]), (6, &[8]), (7, &[24, 48, 800])] {
                for part in fragments(&back, &error, id, ends) {
                    b.wan(part);
                }
            }
        },
    },
    Scenario {
        name: "fragments-of-error-untranslated",
        families: &Family::BOTH,
        title: "An ICMP error in fragments that nothing is to be translated in",
        shows: "NAT wants the IP header that it quotes in one piece all the same, and so it leaves in other fragments.",
        ids: &["ICMP-REL-12", "NAT-SET-02"],
        compose: |b| {
            b.nat(&["-A POSTROUTING -o elsewhere -j MASQUERADE"]);
            let left = b.probe();
            let back = Ip::between(b.r1, b.client);
            let error = b.error_body(&back, super::Kind::TimeExceeded, &left);
            for (id, ends) in [(5, &[8, 32][..]), (6, &[8]), (7, &[48]), (8, &[56])] {
                for part in fragments(&back, &error, id, ends) {
                    b.wan(part);
                }
            }
        },
    },
    Scenario {
        name: "fragments-of-error-about-header",
        families: V6,
        title: "How much of the quoted transport header has to be in one piece",
        shows: "All of a TCP header without options or of an SCTP header, where the quote has that; else eight bytes. The error \
                leaves in the fragments that it came in when the first one ends there or later, at a multiple of eight.",
        ids: &["ICMP-REL-12", "NAT-ICMP-01"],
        compose: |b| {
            b.masquerade();
            let syn = b.sends(|ip| Tcp { payload: vec![1; 40], ..Tcp::syn() }.body(ip));
            let init = b.sends(|_| compose::sctp(5000, 5000, 0, &[Chunk { tag: 7, ..Chunk::of(chunk_type::INIT) }]));
            let back = Ip::between(b.r1, b.wan);
            let ip = b.header();
            // Shorter fragments before the one that ends there: what is no longer than one of them would leave whole.
            for (id, quoted, length, ends) in [
                (1, &syn, 19, [24, 56]),
                (2, &syn, 20, [24, 56]),
                (3, &syn, 40, [24, 64]),
                (4, &init, 11, [24, 56]),
                (5, &init, 12, [24, 56]),
                (6, &init, 32, [24, 56]),
            ] {
                let error = b.error_body(&back, super::Kind::TimeExceeded, &quoted[..ip + length]);
                for part in fragments(&back, &error, id, &ends) {
                    b.wan(part);
                }
            }
        },
    },
    Scenario {
        name: "fragments-tiny",
        families: &Family::BOTH,
        title: "A first fragment without the whole transport header",
        shows: "With IPv4 only the datagram counts. With IPv6 such a first fragment is not gathered (RFC 8200): it goes on alone, \
                and conntrack finds its transport header cut off.",
        ids: &["FRAG-10", "FRAG-11"],
        compose: |b| {
            let inside = b.inside();
            let syn = Tcp { payload: vec![1; 40], ..Tcp::syn() }.body(&inside);
            let echo = compose::echo(&inside, compose::Echo::Request, 7, 1);
            let short = udp(&inside, 40_000, 53, b"").cut(7);
            for (id, body, ends) in [(1, &syn, 8), (2, &syn, 16), (3, &syn, 24), (4, &echo, 8), (5, &short, 0)] {
                for part in fragments(&inside, body, id, &[ends]) {
                    b.lan(part);
                }
            }
        },
    },
    Scenario {
        name: "fragments-atomic",
        families: V6,
        title: "Atomic fragments",
        shows: "A datagram in one fragment loses its fragment header, for conntrack and on the way out. It is gathered like any, \
                so that others with its identification may get in its way.",
        ids: &["FRAG-07"],
        compose: |b| {
            b.masquerade();
            let inside = b.inside();
            let body = large(&inside, 40);
            let atomic = |id| Piece::last(id, 0..48).packet(&inside, &body);
            b.lan(atomic(1));
            b.lan(Piece::last(2, 48..48).packet(&inside, &body)).lan(Piece::new(2, 0..24).packet(&inside, &body));
            b.lan(atomic(2)).lan(atomic(2));
            let empty = Body::new(proto::NONE, []);
            b.lan(Piece::last(3, 0..0).packet(&inside, &empty));
        },
    },
    Scenario {
        name: "fragments-extension-headers",
        families: V6,
        title: "Extension headers before the fragment header",
        shows: "Those of the first fragment stay with the datagram, and with every fragment that leaves; those of the others and \
                their next header do not count. Destination options behind the fragment header are before it on the way out.",
        ids: &["FRAG-02", "TUPLE-05"],
        compose: extension_headers,
    },
    Scenario {
        name: "fragments-sctp",
        families: &Family::BOTH,
        title: "An SCTP packet whose header does not end in its first fragment",
        shows: "To verify the checksum conntrack wants the SCTP header in one piece: the packet leaves in other fragments, and \
                with IPv6 it leaves at all only if its headers were pulled together so. Nothing is pulled together for a header \
                that is too short, and nothing for a packet that is not tracked.",
        ids: &["SCTP-01", "FRAG-02", "FRAG-10"],
        compose: sctp_header,
    },
    Scenario {
        name: "fragments-not-gathered",
        families: V6,
        title: "Fragments that are not gathered",
        shows: "One that does not end at a multiple of eight bytes with more to follow ends its datagram and goes on as it is: \
                the first is tracked, later ones are INVALID. One whose fragment header is cut off is dropped.",
        ids: &["FRAG-04", "FRAG-10"],
        compose: |b| {
            let inside = b.inside();
            let body = large(&inside, 60);
            b.lan(Piece::new(1, 0..20).packet(&inside, &body)).lan(Piece::last(1, 24..68).packet(&inside, &body));
            b.lan(Piece::new(2, 0..24).packet(&inside, &body)).lan(Piece::new(2, 24..45).packet(&inside, &body));
            b.lan(Piece::last(2, 24..68).packet(&inside, &body));
            for length in 0..8 {
                b.lan(inside.packet(Body::new(proto::FRAGMENT, [17, 0, 0, 1, 0, 0, 0, 9]).cut(length)));
            }
            b.lan(inside.packet(Body::new(proto::FRAGMENT, [17, 0, 0, 1, 0, 0, 0, 9])));
        },
    },
    Scenario {
        name: "fragments-timeout",
        families: &Family::BOTH,
        title: "Fragments that wait too long",
        shows: "After ipfrag_time or nf_conntrack_frag6_timeout they are dropped. When the first one was among them the box says \
                so: always with IPv6, and with IPv4 where it was the destination. The error quotes a packet that conntrack \
                never saw: it is RELATED while the flow lives. A flow of one packet and fragments that came just behind it \
                end together, so that the error is INVALID.",
        ids: &["FRAG-04", "FRAG-08", "ICMP-LOC-06"],
        compose: |b| timeouts(b, false),
    },
    Scenario {
        name: "fragments-timeout-masquerade",
        families: &Family::BOTH,
        title: "Fragments of an answer to a masqueraded query wait too long",
        shows: "The box is their destination as far as it knows, because NAT comes only behind the gathering, and says that they \
                waited too long. What it quotes has its own address where the flow has the client's: INVALID, whether the flow \
                is still there or not.",
        ids: &["FRAG-04", "FRAG-08", "ICMP-LOC-06"],
        compose: |b| timeouts(b, true),
    },
];

/// A datagram like [`probe`], with a payload of so many bytes.
fn large(ip: &Ip, length: usize) -> Body {
    let payload: Vec<u8> = (0..length).map(|at| at as u8 ^ (at >> 8) as u8).collect();
    udp(ip, 40_000, 33_434, &payload)
}

fn overlaps(b: &mut Builder) {
    let inside = b.inside();
    let body = large(&inside, 88);
    let other = large(&inside, 500);
    let part = |id, bytes| Piece::new(id, bytes).packet(&inside, &body);
    let last = |id| Piece::last(id, 64..96).packet(&inside, &body);
    // The same once more, other bytes, two at once, half of one.
    b.lan(part(1, 0..32)).lan(part(1, 0..32)).lan(part(1, 32..64)).lan(part(1, 0..64)).lan(part(1, 8..16));
    b.lan(Piece { offset: 0, ..Piece::new(1, 400..432) }.packet(&inside, &other)).lan(last(1));
    // Two at once that came in another order.
    b.lan(part(2, 32..64)).lan(part(2, 0..32)).lan(part(2, 0..64)).lan(last(2));
    // A part of one, at its end and at its beginning, and around it.
    for (id, there, overlap) in [(3, 0..32, 24..64), (4, 32..64, 0..40), (5, 16..32, 8..64), (6, 0..32, 16..40)] {
        b.lan(part(id, there)).lan(part(id, overlap));
        b.lan(part(id, 0..32)).lan(part(id, 32..64)).lan(last(id));
    }
}

fn wrong_ends(b: &mut Builder) {
    let inside = b.inside();
    let body = large(&inside, 88);
    let part = |id, bytes| Piece::new(id, bytes).packet(&inside, &body);
    let last = |id, bytes| Piece::last(id, bytes).packet(&inside, &body);
    let wrong = [
        // Another end, before and behind; an end before what is there.
        (1, last(1, 64..80)),
        (2, Piece { offset: 96, ..Piece::last(2, 0..8) }.packet(&inside, &body)),
        // Behind the end.
        (3, Piece { offset: 96, ..Piece::new(3, 0..8) }.packet(&inside, &body)),
        // No data.
        (4, part(4, 32..32)),
        (5, last(5, 96..96)),
    ];
    for (id, wrong) in wrong {
        b.lan(part(id, 0..32)).lan(last(id, 64..96)).lan(wrong).lan(part(id, 32..64));
    }
    b.lan(part(6, 0..64)).lan(last(6, 32..48)).lan(last(6, 64..96));
    b.lan(part(7, 0..64)).lan(last(7, 32..64)).lan(last(7, 64..96)).lan(last(7, 0..64));
    if b.family == Family::V4 {
        // What does not fill eight bytes is cut off, and may leave nothing.
        b.lan(part(8, 0..37)).lan(last(8, 32..96));
        b.lan(part(9, 0..7)).lan(part(9, 0..32)).lan(last(9, 32..96));
    }
}

fn interleaved(b: &mut Builder) {
    let inside = b.inside();
    let elsewhere = Ip::between(b.client, b.r2);
    let (one, other) = (large(&inside, 88), large(&elsewhere, 120));
    let echo = compose::icmp(&inside, if b.family == Family::V4 { 8 } else { 128 }, 0, [0, 1, 0, 1], &[3; 88]);
    let part = |ip: &Ip, body: &Body, id, bytes| Piece::new(id, bytes).packet(ip, body);
    let last = |ip: &Ip, body: &Body, id| Piece::last(id, 64..body.bytes.len()).packet(ip, body);
    // Two identifications, two destinations, two protocols.
    b.lan(part(&inside, &one, 1, 0..64)).lan(part(&inside, &one, 2, 0..64)).lan(part(&elsewhere, &other, 1, 0..64));
    b.lan(part(&inside, &echo, 3, 0..64)).lan(last(&elsewhere, &other, 1)).lan(last(&inside, &one, 3));
    b.lan(last(&inside, &one, 2)).lan(last(&inside, &one, 1)).lan(last(&inside, &echo, 3)).lan(part(
        &inside,
        &one,
        3,
        0..64,
    ));
    // The same again.
    b.lan(part(&inside, &one, 1, 0..64)).lan(last(&inside, &one, 1));
    b.lan(part(&inside, &one, 1, 0..64)).wan(last(&inside, &one, 1));
}

fn ecn(b: &mut Builder) {
    let inside = b.inside();
    let body = large(&inside, 88);
    let family = b.family;
    let marked = move |mut packet: Vec<u8>, ecn: u8| {
        match family {
            Family::V4 => {
                packet[1] |= ecn;
                // RFC 1624, for a byte that was 0.
                let sum = u32::from(u16::from_be_bytes([packet[10], packet[11]])) + 0xffff - u32::from(ecn);
                let sum = (sum & 0xffff) + (sum >> 16);
                packet[10..12].copy_from_slice(&(sum as u16).to_be_bytes());
            }
            Family::V6 => packet[1] |= ecn << 4,
        }
        packet
    };
    for (id, codepoints) in (1..).zip([[0, 0], [1, 2], [2, 3], [3, 1], [3, 3], [0, 1], [2, 0], [3, 0]]) {
        let parts = fragments(&inside, &body, id, &[48]);
        for (part, ecn) in parts.into_iter().zip(codepoints) {
            b.lan(marked(part, ecn));
        }
    }
}

fn narrow(b: &mut Builder) {
    const MTU: u32 = 1400;
    if let Some(wan) = b.case.spec.interfaces.iter_mut().find(|interface| interface.name == "wan") {
        wan.mtu = Some(MTU);
    }
    b.masquerade();
    let inside = b.inside();
    let body = large(&inside, 2600);
    let must_not = Ip { fragment: 0x4000, ..inside.clone() };
    // The second train fits; of the last one only the smaller fragment says that it must not be cut.
    b.lan(inside.packet(large(&inside, 1440))).lan(must_not.packet(large(&must_not, 1440)));
    for (id, ip, ends) in
        [(1, &inside, &[1304][..]), (2, &inside, &[1000, 2000]), (3, &must_not, &[1440]), (4, &must_not, &[1000, 2000])]
    {
        for part in fragments(ip, &body, id, ends) {
            b.lan(part);
        }
    }
    b.lan(Piece::new(5, 0..1440).packet(&inside, &body)).lan(Piece::last(5, 1440..2608).packet(&must_not, &body));
    b.lan(Piece::new(6, 0..1304).packet(&must_not, &body)).lan(Piece::last(6, 1304..2608).packet(&inside, &body));
}

fn dont_fragment(b: &mut Builder) {
    let inside = b.inside();
    let must_not = Ip { fragment: 0x4000, ..inside.clone() };
    let segment = Tcp { payload: vec![1; 100], ..Tcp::syn() }.body(&inside);
    let datagram = large(&inside, 112);
    let trains = [
        (1, &datagram, [&must_not, &must_not, &must_not]),
        (2, &segment, [&must_not, &must_not, &must_not]),
        // The longest has it, another of the same length has it not, only the shortest has it.
        (3, &segment, [&inside, &must_not, &inside]),
        (4, &segment, [&inside, &inside, &must_not]),
        (5, &segment, [&must_not, &inside, &inside]),
    ];
    for (id, body, [first, second, last]) in trains {
        b.lan(Piece::new(id, 0..16).packet(first, body)).lan(Piece::new(id, 16..64).packet(second, body));
        b.lan(Piece::last(id, 64..120).packet(last, body));
    }
}

fn options(b: &mut Builder) {
    const NOT_COPIED: [u8; 4] = [0x1e, 4, 0, 0];
    const COPIED: [u8; 4] = [0x9e, 4, 0, 0];
    let inside = b.inside();
    let with = |options: &[u8]| Ip { options: options.to_vec(), ..inside.clone() };
    let body = large(&inside, 88);
    let both = [NOT_COPIED, COPIED].concat();
    let ends = [NOT_COPIED, [1, 1, 1, 0]].concat();
    for (id, first, later) in
        [(1, &both[..], &both[..]), (2, &both, &COPIED), (3, &COPIED, &both), (4, &ends, &ends), (5, &[], &both)]
    {
        b.lan(Piece::new(id, 0..48).packet(&with(first), &body))
            .lan(Piece::last(id, 48..96).packet(&with(later), &body));
    }
}

fn extension_headers(b: &mut Builder) {
    const OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    const ROUTING: [u8; 8] = [0, 0, 253, 0, 0, 0, 0, 0];
    let inside = b.inside();
    let plain = large(&inside, 200);
    let inner = plain.clone().behind(proto::DESTINATION, &OPTIONS);
    let hop = |body: Body| body.behind(proto::HOP_BY_HOP, &OPTIONS);
    let all = |body: Body| hop(body.behind(proto::ROUTING, &ROUTING).behind(proto::DESTINATION, &OPTIONS));
    let auth = |body: Body| body.behind(proto::AUTH, &[0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]);
    type Behind<'a> = &'a dyn Fn(Body) -> Body;
    let none = |body: Body| body;
    let trains: [(u32, Behind<'_>, Behind<'_>, &Body); 6] = [
        (1, &hop, &hop, &plain),
        (2, &all, &all, &plain),
        (3, &hop, &none, &plain),
        (4, &none, &hop, &plain),
        (5, &none, &none, &inner),
        (6, &auth, &auth, &plain),
    ];
    for (id, first, later, body) in trains {
        let another = Body { protocol: 99, ..body.clone() };
        b.lan(Piece::new(id, 0..104).packet_behind(&inside, body, first));
        b.lan(Piece::last(id, 104..body.bytes.len()).packet_behind(&inside, &another, later));
    }
    // The headers of the datagram do not end in its first fragment.
    let long = plain.behind(proto::DESTINATION, &[&[0, 4, 1, 36][..], &[0; 36]].concat());
    for part in fragments(&inside, &long, 7, &[24]) {
        b.lan(part);
    }
}

fn sctp_header(b: &mut Builder) {
    const OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    let untracked = Ip::between(second_client(b.family), b.server);
    b.rules(&format!("*raw\n-A PREROUTING -s {} -j CT --notrack\nCOMMIT\n", untracked.src));
    let init = || compose::sctp(5000, 5000, 0, &[Chunk { tag: 7, ..Chunk::of(chunk_type::INIT) }]);
    for (id, ip, body) in [(1, &b.inside(), init()), (2, &b.inside(), init().cut(11)), (3, &untracked, init())] {
        for part in fragments(ip, &body, id, &[8, 24]) {
            b.lan(part);
        }
        if b.family == Family::V6 {
            let behind = body.behind(proto::DESTINATION, &OPTIONS).behind(proto::DESTINATION, &OPTIONS);
            for part in fragments(ip, &behind, 10 + id, &[8, 24]) {
                b.lan(part);
            }
        }
    }
}

/// Two flows, of which the second one's packet is sent again, and fragments behind them that are never complete: of packets
/// to the box itself, or of answers to what it masquerades.
fn timeouts(b: &mut Builder, masquerade: bool) {
    b.sysctl("net.netfilter.nf_conntrack_udp_timeout", "2");
    match b.family {
        Family::V4 => b.sysctl("net.ipv4.ipfrag_time", "2"),
        Family::V6 => b.sysctl("net.netfilter.nf_conntrack_frag6_timeout", "2"),
    };
    if masquerade {
        b.masquerade();
    }
    let query = if masquerade { b.inside() } else { Ip::between(b.client, b.lan) };
    let (iface, fragment) = if masquerade { ("wan", Ip::between(b.server, b.wan)) } else { ("lan", query.clone()) };
    let ports = |port| if masquerade { (53, port) } else { (port, 53) };
    let part = |id, port, bytes: std::ops::Range<usize>| {
        let (sport, dport) = ports(port);
        Piece::new(id, bytes).packet(&fragment, &udp(&fragment, sport, dport, &[9; 200]))
    };
    let ask = |b: &mut Builder, port| {
        b.lan(query.packet(udp(&query, port, 53, b"query")));
    };
    ask(b, 40_000);
    ask(b, 40_001);
    b.wait_ms(300);
    // Apart, so that the errors come in this order.
    b.on(iface, part(1, 40_000, 0..104)).wait_ms(100).on(iface, part(2, 40_001, 0..104)).wait_ms(100);
    // Not the first one; and one that is not for the box.
    b.on(iface, part(3, 40_000, 104..200));
    let inside = b.inside();
    b.lan(Piece::new(4, 0..104).packet(&inside, &large(&inside, 200)));
    b.wait_ms(1200);
    ask(b, 40_001);
    b.wait_ms(900);
    // Too late.
    b.on(iface, part(1, 40_000, 104..208)).lan(inside.packet(probe(&inside)));
}
