//! `ctwhy explain --nat-option`: packets that NAT would treat otherwise than the kernel.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod explain_common;

use explain_common::*;

const HOST: [&str; 4] = ["--route", "0.0.0.0/0=wan", "--local", "203.0.113.2/24=wan"];

/// A capture of these packets, and rules that masquerade them.
fn prepared(test: &str, packets: &[Vec<u8>]) -> [String; 3] {
    let folder = folder(test);
    let packets: Vec<_> = packets.iter().zip(0..).map(|(packet, time)| (time, packet.clone())).collect();
    let capture = file(&folder, "packets.pcapng", pcapng(Some("lan"), &packets));
    let rules = file(&folder, "rules.v4", "*nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n");
    [capture, "--nat-rules".to_owned(), rules]
}

fn explained(prepared: &[String; 3], options: &[&str]) -> Ran {
    let prepared: Vec<&str> = prepared.iter().map(String::as_str).collect();
    explain(&[&prepared[..], &HOST, &["-v", "--table"], options].concat())
}

#[test]
fn an_option_says_what_it_did() {
    let prepared =
        prepared("options", &[udp("10.0.1.2:40000", "192.0.2.80:53", 4), udp("10.0.1.3:40000", "192.0.2.81:53", 4)]);
    let kernel = explained(&prepared, &[]).well();
    assert_eq!(kernel.matches("dport=40000").count(), 2, "{kernel}");
    let mapped = explained(&prepared, &["--nat-option", "endpoint-independent-mapping"]).well();
    assert_eq!(mapped.matches("dport=40000").count(), 1, "{mapped}");
    assert!(mapped.contains("from now on udp 10.0.1.2:40000 is udp 203.0.113.2:40000 for everybody"), "{mapped}");
    let blocks = explained(&prepared, &["--nat-option", "port-blocks=10.0.1.0/24,16,2000"]).well();
    assert!(blocks.contains("the block of 10.0.1.3 is 2048 to 2063 of 203.0.113.2"), "{blocks}");
    let small = explained(&prepared, &["--nat-option", "port-blocks=10.0.1.0/29,20000"]).well();
    assert!(small.contains("block of 10.0.1.2 is 41024 to 61023"), "{small}");
    assert!(small.contains("there is no block of ports for 10.0.1.3 (RFC 7422)"), "{small}");
}

#[test]
fn an_option_that_can_do_nothing_is_told_so() {
    let prepared = prepared("nothing", &[udp("10.0.1.2:40000", "192.0.2.80:53", 4)]);
    let ran = explain(&[prepared[0].as_str(), "--nat-option", "hairpin"]);
    assert_eq!(ran.err, "note: --nat-option changes nothing without a nat table; --rules reads one\n");
    explained(&prepared, &["--nat-option", "filtering=address-dependent"]).fails(
        "ctwhy: --nat-option filtering needs --nat-option endpoint-independent-mapping: without it an end outside does not \
         stand for one inside",
    );
}
