//! ICMP errors and the flow that their quote belongs to: catalogue B.2, B.3, B.4 and C, check by check.
#![allow(clippy::unwrap_used, clippy::type_complexity)] // A test that cannot go on fails; tables of cases.

mod common;

use common::*;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::Engine;
use ctwhy_core::packet::Packet;

/// An engine that has seen `packet`, and nothing else.
fn engine_with(packet: &[u8]) -> Engine {
    let mut engine = Engine::new(0);
    assert_eq!(receive(&mut engine, packet).ctinfo, Ok(CtInfo::New));
    engine
}

/// The two families, with everything that differs between them.
struct Family {
    client: &'static str,
    server: &'static str,
    router: &'static str,
    unreachable: u8,
    time_exceeded: u8,
    header: usize,
}

const FAMILIES: [Family; 2] = [
    Family { client: CLIENT, server: SERVER, router: ROUTER, unreachable: 3, time_exceeded: 11, header: 20 },
    Family { client: CLIENT6, server: SERVER6, router: ROUTER6, unreachable: 1, time_exceeded: 3, header: 40 },
];

impl Family {
    fn probe(&self) -> Vec<u8> {
        udp(self.client, 40000, self.server, 33434, b"probe")
    }

    fn answer(&self) -> Vec<u8> {
        udp(self.server, 33434, self.client, 40000, b"answer")
    }

    fn error(&self, to: &str, quoted: &[u8]) -> Vec<u8> {
        error(self.router, to, self.time_exceeded, 0, 0, quoted)
    }
}

#[test]
fn icmp_rel_01_an_error_about_an_original_packet_is_related_reply() {
    for family in FAMILIES {
        let mut engine = engine_with(&family.probe());
        let ruling = receive(&mut engine, &family.error(family.client, &family.probe()));
        assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply));
        assert!(ruling.entry().is_some());
    }
}

#[test]
fn icmp_rel_02_an_error_about_a_reply_is_related_original_even_if_none_was_seen() {
    for family in FAMILIES {
        let mut engine = engine_with(&family.probe());
        let ruling = receive(&mut engine, &family.error(family.server, &family.answer()));
        assert_eq!(ruling.ctinfo, Ok(CtInfo::Related));
    }
}

#[test]
fn icmp_rel_03_and_04_an_error_that_goes_elsewhere_is_invalid() {
    for family in FAMILIES {
        for elsewhere in [family.server, family.router] {
            let mut engine = engine_with(&family.probe());
            let ruling = receive(&mut engine, &family.error(elsewhere, &family.probe()));
            assert_eq!(invalid(&ruling), Some("icmp.outer_daddr_mismatch"));
            assert!(ruling.reason.unwrap().to_string().contains(family.client), "the expected address is named");
        }
    }
}

#[test]
fn icmp_rel_07_an_error_about_an_error_is_invalid() {
    for family in FAMILIES {
        let mut engine = engine_with(&family.probe());
        let first = family.error(family.client, &family.probe());
        let ruling = receive(&mut engine, &family.error(family.router, &first));
        assert_eq!(invalid(&ruling), Some("icmp.quoted_not_invertible"));
    }
}

#[test]
fn icmp_rel_08_an_error_about_an_unknown_or_expired_flow_is_invalid() {
    use ctwhy_core::time::Time;
    for family in FAMILIES {
        let error = family.error(family.client, &family.probe());
        let mut engine = Engine::new(0);
        assert_eq!(invalid(&receive(&mut engine, &error)), Some("icmp.quoted_unknown_flow"));

        let mut engine = engine_with(&family.probe());
        let at = |secs| Time(0).plus_secs(secs);
        assert_eq!(receive_at(&mut engine, &error, at(29)).0.ctinfo, Ok(CtInfo::RelatedReply));
        assert_eq!(invalid(&receive_at(&mut engine, &error, at(30)).0), Some("icmp.quoted_unknown_flow"));
    }
}

#[test]
fn icmp_rel_10_an_error_changes_nothing_about_its_flow() {
    for family in FAMILIES {
        let mut engine = engine_with(&family.probe());
        let before = format!("{:?}", engine.conntrack.table.iter().collect::<Vec<_>>());
        receive(&mut engine, &family.error(family.client, &family.probe()));
        assert_eq!(before, format!("{:?}", engine.conntrack.table.iter().collect::<Vec<_>>()));
    }
}

#[test]
fn icmp_rel_06_a_quoted_echo_needs_type_code_and_id() {
    for (family, request) in FAMILIES.into_iter().zip([8, 128]) {
        let ping = echo(family.client, family.server, request, 7, 1);
        let about = |quoted: &[u8]| family.error(family.client, quoted);
        let mut engine = engine_with(&ping);
        assert_eq!(receive(&mut engine, &about(&ping)).ctinfo, Ok(CtInfo::RelatedReply));
        for at in [family.header, family.header + 1, family.header + 5] {
            let mut other = ping.clone();
            other[at] ^= 1;
            assert!(invalid(&receive(&mut engine, &about(&other))).is_some());
        }
        assert_eq!(
            invalid(&receive(&mut engine, &about(&ping[..family.header + 7]))),
            Some("icmp.quoted_short_transport")
        );
        assert_eq!(receive(&mut engine, &about(&ping[..family.header + 8])).ctinfo, Ok(CtInfo::RelatedReply));
    }
}

#[test]
fn b2_1_and_2_short_and_corrupt_errors_are_invalid() {
    for family in FAMILIES {
        let mut engine = engine_with(&family.probe());
        let whole = family.error(family.client, &family.probe());
        let l4 = whole[family.header..family.header + 7].to_vec();
        let short = packet(family.router, family.client, if family.header == 20 { 1 } else { 58 }, 64, &l4);
        assert_eq!(invalid(&receive(&mut engine, &short)), Some("icmp.short"));

        let mut corrupt = whole.clone();
        *corrupt.last_mut().unwrap() ^= 1;
        assert_eq!(invalid(&receive(&mut engine, &corrupt)), Some("icmp.checksum"));
        engine.conntrack.sysctls.checksum = false;
        assert_eq!(receive(&mut engine, &corrupt).ctinfo, Ok(CtInfo::RelatedReply));
    }
}

#[test]
fn b2_3_and_4_types_that_are_errors_and_types_that_are_unknown() {
    let mut engine = engine_with(&FAMILIES[0].probe());
    let quote = FAMILIES[0].probe();
    for icmp_type in 0..=255u8 {
        let ruling = receive(&mut engine, &error(ROUTER, CLIENT, icmp_type, 200, 0, &quote));
        let expected = match icmp_type {
            3 | 4 | 5 | 11 | 12 => Ok(CtInfo::RelatedReply),
            8 | 13 | 15 | 17 => Ok(CtInfo::New),
            _ => Ok(CtInfo::Invalid),
        };
        assert_eq!(ruling.ctinfo, expected, "type {icmp_type}");
        if icmp_type > 18 {
            assert_eq!(invalid(&ruling), Some("icmp.unknown_type"));
        }
    }
    let mut engine = engine_with(&FAMILIES[1].probe());
    let quote = FAMILIES[1].probe();
    for icmp_type in 0..=255u8 {
        let ruling = receive(&mut engine, &error(ROUTER6, CLIENT6, icmp_type, 200, 0, &quote));
        let expected = match icmp_type {
            // ICMP6-E-01: known or not.
            0..=127 => CtInfo::RelatedReply,
            128 | 139 => CtInfo::New,
            130..=136 | 143 | 151 | 152 => CtInfo::Untracked,
            _ => CtInfo::Invalid,
        };
        assert_eq!(ruling.ctinfo, Ok(expected), "type {icmp_type}");
    }
}

#[test]
fn icmp_in_01_only_the_first_twenty_bytes_of_the_quoted_header_are_needed_and_few_are_checked() {
    let family = &FAMILIES[0];
    let mut engine = engine_with(&family.probe());
    let probe = family.probe();
    for (at, value) in [(0, 0x65), (1, 0xff), (2, 0xff), (8, 0), (10, 0xee)] {
        let mut quote = probe.clone();
        quote[at] = value;
        let ruling = receive(&mut engine, &family.error(CLIENT, &quote));
        assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply), "byte {at}");
    }
    let ruling = receive(&mut engine, &family.error(CLIENT, &probe[..19]));
    assert_eq!(invalid(&ruling), Some("icmp.quoted_no_transport"));
}

#[test]
fn icmp_in_02_a_quoted_later_fragment_belongs_to_no_flow_but_a_first_one_does() {
    let family = &FAMILIES[0];
    let mut engine = engine_with(&family.probe());
    let mut quote = family.probe();
    quote[6] = 0x20;
    assert_eq!(receive(&mut engine, &family.error(CLIENT, &quote)).ctinfo, Ok(CtInfo::RelatedReply));
    quote[7] = 1;
    assert_eq!(invalid(&receive(&mut engine, &family.error(CLIENT, &quote))), Some("icmp.quoted_no_transport"));
}

#[test]
fn icmp_in_03_a_quoted_header_length_below_five_reads_ports_from_inside_the_header() {
    // IHL 4: the ports are the two halves of the quoted destination address.
    let mut engine = engine_with(&udp(CLIENT, 2560, "10.0.2.2", 514, b""));
    let mut quote = udp(CLIENT, 9, "10.0.2.2", 9, b"");
    quote[0] = 0x44;
    let ruling = receive(&mut engine, &error(ROUTER, CLIENT, 11, 0, 0, &quote[..20]));
    assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply));
    // IHL 0: they are version, TOS and total length.
    let mut engine = engine_with(&udp(CLIENT, 16384, SERVER, 29, b""));
    let mut quote = udp(CLIENT, 9, SERVER, 9, b"x");
    (quote[0], quote[1]) = (0x40, 0);
    let ruling = receive(&mut engine, &error(ROUTER, CLIENT, 11, 0, 0, &quote[..20]));
    assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply));
    // IHL 15 with nothing there.
    quote[0] = 0x4f;
    let ruling = receive(&mut engine, &error(ROUTER, CLIENT, 11, 0, 0, &quote[..24]));
    assert_eq!(invalid(&ruling), Some("icmp.quoted_no_transport"));
}

#[test]
fn icmp_in_04_four_bytes_of_ports_are_enough_and_three_are_not() {
    for family in FAMILIES {
        for probe in [family.probe(), tcp_syn(family.client, 40000, family.server, 80)] {
            let mut engine = engine_with(&probe);
            let about = |bytes: usize| family.error(family.client, &probe[..family.header + bytes]);
            assert_eq!(receive(&mut engine, &about(4)).ctinfo, Ok(CtInfo::RelatedReply));
            assert_eq!(invalid(&receive(&mut engine, &about(3))), Some("icmp.quoted_short_transport"));
        }
        // A protocol without ports: the bare IP header will do.
        let esp = packet(family.client, family.server, 50, 64, b"");
        let mut engine = engine_with(&esp);
        let ruling = receive(&mut engine, &family.error(family.client, &esp[..family.header]));
        assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply));
    }
}

#[test]
fn icmp_in_05_and_rel_12_ip_options_are_skipped_inside_and_outside() {
    let family = &FAMILIES[0];
    let mut engine = engine_with(&family.probe());
    let with_option = |bytes: &[u8], checked: bool| {
        let mut longer = bytes[..20].to_vec();
        longer.extend([1, 1, 1, 0]);
        longer.extend(&bytes[20..]);
        longer[0] = 0x46;
        let length = longer.len() as u16;
        set16(&mut longer, 2, length);
        set16(&mut longer, 10, 0);
        if checked {
            let checksum = internet_checksum(&longer[..24]);
            set16(&mut longer, 10, checksum);
        }
        longer
    };
    let inner = family.error(CLIENT, &with_option(&family.probe(), false));
    assert_eq!(receive(&mut engine, &inner).ctinfo, Ok(CtInfo::RelatedReply));
    let outer = with_option(&family.error(CLIENT, &family.probe()), true);
    assert_eq!(receive(&mut engine, &outer).ctinfo, Ok(CtInfo::RelatedReply));
}

#[test]
fn icmp_in_07_icmpv6_quoted_in_icmp_belongs_to_no_flow() {
    let mut quote = echo(CLIENT, SERVER, 128, 7, 1);
    quote[9] = 58;
    let mut engine = Engine::new(0);
    let ruling = receive(&mut engine, &error(ROUTER, CLIENT, 11, 0, 0, &quote));
    assert_eq!(invalid(&ruling), Some("icmp.quoted_unknown_flow"));
}

#[test]
fn icmp_rel_11_and_14_every_kind_of_error_is_related_whatever_its_code_and_mtu() {
    let family = &FAMILIES[0];
    let mut engine = engine_with(&family.probe());
    for (icmp_type, code, rest) in [(3, 4, 1200), (3, 4, 0), (4, 0, 0), (5, 1, 0x0a00_0101), (12, 0, 0)] {
        let ruling = receive(&mut engine, &error(ROUTER, CLIENT, icmp_type, code, rest, &family.probe()));
        assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply), "type {icmp_type}");
    }
    let too_big = error(ROUTER, CLIENT, 3, 4, 1200, &family.probe());
    let view = Packet::parse(&too_big, too_big.len()).unwrap();
    assert_eq!(ctwhy_core::related::announced_mtu(&view), Some(1200));
}

#[test]
fn icmp6_e_05_extension_headers_of_the_quoted_packet_are_skipped() {
    let family = &FAMILIES[1];
    let mut engine = engine_with(&family.probe());
    let udp_part = family.probe()[40..].to_vec();
    let quote = |kind: u8, header: &[u8]| {
        let mut l4 = header.to_vec();
        l4.extend(&udp_part);
        packet(CLIENT6, SERVER6, kind, 1, &l4)
    };
    let fragment = |place: u16| {
        let [high, low] = place.to_be_bytes();
        [17, 0, high, low, 0, 0, 0, 9]
    };
    let eight = [17, 0, 1, 4, 0, 0, 0, 0];
    let cases: [(u8, &[u8], bool); 9] = [
        (0, &eight, true),
        (60, &eight, true),
        (43, &eight, true),
        (44, &fragment(0), true),
        (44, &fragment(1), true),
        (44, &fragment(8), false),
        (51, &[17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], true),
        (59, &[], false),
        (50, &eight, false),
    ];
    for (kind, header, related) in cases {
        let ruling = receive(&mut engine, &family.error(CLIENT6, &quote(kind, header)));
        assert_eq!(ruling.ctinfo == Ok(CtInfo::RelatedReply), related, "extension header {kind}: {ruling:?}");
    }
    // An extension header of which only the first byte is there.
    let cut = &quote(60, &eight)[..41];
    assert_eq!(invalid(&receive(&mut engine, &family.error(CLIENT6, cut))), Some("icmp.quoted_no_transport"));
    // ICMP6-E-06: extension headers in front of the error itself.
    let whole = family.error(CLIENT6, &family.probe());
    let mut l4 = vec![58, 0, 1, 4, 0, 0, 0, 0];
    l4.extend(&whole[40..]);
    let ruling = receive(&mut engine, &packet(ROUTER6, CLIENT6, 60, 64, &l4));
    assert_eq!(ruling.ctinfo, Ok(CtInfo::RelatedReply));
}

#[test]
fn icmp6_r_01_redirects() {
    let family = &FAMILIES[1];
    let router = "fe80::1";
    let redirect = |src: &str, code: u8, options: &[u8], hop_limit: u8| {
        let mut rest = vec![0; 4];
        rest.extend([0xfe; 32]);
        rest.extend(options);
        let mut bytes = icmp(src, CLIENT6, 137, code, &rest);
        bytes[7] = hop_limit;
        bytes
    };
    let quote = family.probe();
    let mut option = vec![4, ((8 + quote.len()) / 8) as u8, 0, 0, 0, 0, 0, 0];
    option.extend(&quote);
    let target_first = [2, 1, 0, 0, 0, 0, 0, 0];
    let cases: [(&str, u8, &[u8], u8, Result<CtInfo, &str>); 8] = [
        (router, 0, &option, 255, Ok(CtInfo::RelatedReply)),
        (router, 0, &option, 254, Err("icmp.redirect_off_link")),
        (ROUTER6, 0, &option, 255, Err("icmp.redirect_off_link")),
        (router, 1, &option, 255, Err("tuple.not_invertible")),
        (router, 0, &[], 255, Err("icmp.redirect_no_options")),
        (router, 0, &[4, 0, 0, 0, 0, 0, 0, 0], 255, Err("icmp.redirect_no_options")),
        (router, 0, &target_first, 255, Err("tuple.not_invertible")),
        (router, 0, &option[..20], 255, Err("icmp.quoted_no_transport")),
    ];
    for (src, code, options, hop_limit, expected) in cases {
        let mut engine = engine_with(&family.probe());
        let ruling = receive(&mut engine, &redirect(src, code, options, hop_limit));
        match expected {
            Ok(ctinfo) => assert_eq!(ruling.ctinfo, Ok(ctinfo)),
            Err(code) => assert_eq!(invalid(&ruling), Some(code)),
        }
    }
    let mut engine = engine_with(&family.probe());
    let mut short = icmp(router, CLIENT6, 137, 0, &[0; 35]);
    short[7] = 255;
    assert_eq!(invalid(&receive(&mut engine, &short)), Some("icmp.redirect_short"));
}

#[test]
fn unreachable_is_related_like_time_exceeded() {
    for family in FAMILIES {
        let mut engine = engine_with(&family.probe());
        let bytes = error(family.server, family.client, family.unreachable, 3, 0, &family.probe());
        assert_eq!(receive(&mut engine, &bytes).ctinfo, Ok(CtInfo::RelatedReply));
    }
}
