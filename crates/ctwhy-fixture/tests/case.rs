//! Cases: what is written is read back the same, what is wrong is named with file and line, and every difference
//! between two outcomes is found.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ctwhy_fixture::case::{
    BoxInterface, Bytes, Case, CasePacket, CtInfo, Emission, Emitted, Fact, Generated, Hook, Outcome, PacketOutcome,
    Recording, Route, Spec, Tolerance, compare,
};
use ctwhy_fixture::linktype::LinkType;
use ctwhy_fixture::write::{Packet, PcapngWriter};
use proptest::prelude::*;

const SPEC: &str = r#"title = "Time exceeded through masquerade"
shows = """
The error quotes the probe as it left the box.
It is RELATED in reply direction.
"""
ids = ["ICMP-REL-01", "NAT-ICMP-02"]
rules = """
*nat
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
"""

[sysctls]
"net.netfilter.nf_conntrack_checksum" = "0"

[[interface]]
name = "lan"
addresses = ["10.0.1.1/24", "2001:db8:1::1/64"]

[[interface]]
name = "wan"
addresses = ["192.0.2.1/24"]

[[route]]
to = "0.0.0.0/0"
dev = "wan"
via = "192.0.2.254"
"#;

const ENTRY: &str = "ipv4     2 udp      17 29 src=10.0.1.2 dst=198.51.100.1 sport=5 dport=6 [UNREPLIED] \
                     src=198.51.100.1 dst=192.0.2.1 sport=6 dport=5 mark=0 use=1";

fn bytes(text: &str) -> Bytes {
    text.parse().unwrap()
}

fn outcome() -> Outcome {
    let probe = PacketOutcome {
        packet: 1,
        ctinfo: Some(CtInfo::New),
        hook: Some(Hook::Prerouting),
        log: None,
        forwarded: Some(vec![Emitted { iface: "wan".to_owned(), bytes: bytes("4500c0") }]),
        local: Some(false),
        generated: Some(Vec::new()),
    };
    let error = PacketOutcome {
        packet: 2,
        ctinfo: Some(CtInfo::RelatedReply),
        hook: Some(Hook::Prerouting),
        log: Some(vec!["nf_ct_proto_1: short packet".to_owned()]),
        forwarded: Some(Vec::new()),
        local: Some(true),
        generated: Some(vec![Generated {
            iface: "lan".to_owned(),
            ctinfo: Some(CtInfo::Related),
            made: Some(bytes("4500....fe")),
            bytes: bytes("4500....ff"),
        }]),
    };
    Outcome { packets: vec![probe, error], table: Some(vec![ENTRY.to_owned()]), ..Outcome::default() }
}

fn case() -> Case {
    let packet = |iface: &str, linktype, bytes: &[u8]| CasePacket {
        time_ns: 1_700_000_000_000_000_001,
        iface: iface.to_owned(),
        linktype,
        bytes: bytes.to_vec(),
    };
    let recording = Recording {
        release: "6.18.44".to_owned(),
        config: BTreeMap::from([
            ("CONFIG_HZ".to_owned(), Fact::Number(250)),
            ("CONFIG_NF_CONNTRACK_ZONES".to_owned(), Fact::Flag(true)),
            ("machine".to_owned(), Fact::Text("x86_64".to_owned())),
        ]),
        sysctls: BTreeMap::from([("net.netfilter.nf_conntrack_checksum".to_owned(), "0".to_owned())]),
        outcome: outcome(),
    };
    Case {
        spec: Spec::parse(SPEC, Path::new("case.toml")).unwrap(),
        packets: vec![packet("lan", LinkType::RAW, b"\x45probe"), packet("wan", LinkType::ETHERNET, &[7; 40])],
        recordings: BTreeMap::from([(recording.release.clone(), recording)]),
    }
}

#[test]
fn the_text_of_a_case_reads_as_it_was_written() {
    let spec = case().spec;
    assert_eq!(spec.title, "Time exceeded through masquerade");
    assert_eq!(spec.ids.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["ICMP-REL-01", "NAT-ICMP-02"]);
    assert_eq!(
        spec.interfaces[1],
        BoxInterface { name: "wan".to_owned(), addresses: vec!["192.0.2.1/24".parse().unwrap()], mtu: None }
    );
    let route =
        Route { to: "0.0.0.0/0".parse().unwrap(), dev: "wan".to_owned(), via: Some("192.0.2.254".parse().unwrap()) };
    assert_eq!(spec.routes, [route]);
    assert_eq!(spec.rules.as_deref(), Some("*nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n"));
    assert_eq!((spec.rules6.as_ref(), spec.sysctls.len()), (None, 1));
    assert_eq!(without_layout(&spec.to_toml().unwrap()), without_layout(SPEC));
}

/// Lists stand on one line or on several; all else is the same.
fn without_layout(toml: &str) -> String {
    toml.replace(",\n]", "]").replace("[\n    ", "[").replace(",\n    ", ", ")
}

#[test]
fn a_case_round_trips_to_the_same_files() {
    let (first, second) = (common::scratch("case-1"), common::scratch("case-2"));
    let case = case();
    case.write(&first).unwrap();
    let read = Case::read(&first).unwrap();
    assert_eq!(read, case);
    read.write(&second).unwrap();
    for name in ["case.toml", "packets.pcapng", "kernel-6.18.44.jsonl"] {
        assert_eq!(fs::read(first.join(name)).unwrap(), fs::read(second.join(name)).unwrap(), "{name}");
    }
    let lines = fs::read_to_string(first.join("kernel-6.18.44.jsonl")).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"schema":1,"kind":"kernel","release":"6.18.44","config":{"CONFIG_HZ":250,"CONFIG_NF_CONNTRACK_ZONES":true,"machine":"x86_64"},"sysctls":{"net.netfilter.nf_conntrack_checksum":"0"}}"#
    );
    assert_eq!(
        lines[2],
        r#"{"kind":"packet","packet":2,"ctinfo":"RELATED_REPLY","hook":"prerouting","log":["nf_ct_proto_1: short packet"],"forwarded":[],"local":true,"generated":[{"iface":"lan","ctinfo":"RELATED","made":"4500....fe","bytes":"4500....ff"}]}"#
    );
    assert_eq!(lines.len(), 4);
    for folder in [first, second] {
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn cases_are_found_below_a_folder_in_order() {
    let root = common::scratch("find");
    for name in ["b/two", "a", "b/one", "none"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for name in ["b/two", "a", "b/one"] {
        case().write(&root.join(name)).unwrap();
    }
    let found: Vec<PathBuf> = Case::find(&root).unwrap();
    assert_eq!(found, [root.join("a"), root.join("b/one"), root.join("b/two")]);
    let error = Case::find(&root.join("nowhere")).unwrap_err();
    assert!(error.to_string().contains("nowhere: cannot be read: No such file"), "{error}");
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn what_is_wrong_with_the_text_names_its_line() {
    for (from, to, line, says) in [
        ("title =", "titel =", 1, "unknown field `titel`"),
        ("[sysctls]", "[sysctl]", 13, "unknown field `sysctl`"),
        ("\"0\"", "true", 14, "a sysctl's value is a text or a whole number"),
        ("addresses = [\"192", "adresses = [\"192", 22, "unknown field `adresses`"),
        ("192.0.2.1/24", "192.0.2.1", 22, "`192.0.2.1` has no prefix length; write it like 10.0.1.1/24"),
        ("name = \"wan\"", "name = \"lan\"", 20, "interface `lan` is there twice"),
        ("0.0.0.0/0", "192.0.2.1/24", 25, "has host bits set; write 192.0.2.0/24"),
        ("dev = \"wan\"", "dev = \"wna\"", 26, "there is no interface `wna` in case.toml"),
        ("192.0.2.254", "router", 27, "invalid IP address"),
        ("NAT-ICMP-02", "nat-icmp-2", 6, "`nat-icmp-2` is no decision of the catalogue"),
        ("via", "table = 5\nvia", 27, "unknown field `table`"),
        ("[[route]]", "[[route]", 24, ""),
    ] {
        assert!(SPEC.contains(from), "{from}");
        let error = Spec::parse(&SPEC.replacen(from, to, 1), Path::new("x/case.toml")).unwrap_err();
        assert_eq!(error.line(), Some(line), "{error}");
        assert!(error.to_string().starts_with(&format!("x/case.toml:{line}: ")), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    for (holds, says) in [
        ("[[hold]]\npacket = 0\nuntil = 2", "packet 0 cannot be held until packet 2"),
        ("[[hold]]\npacket = 3\nuntil = 2", "packet 3 cannot be held until packet 2"),
        ("[[hold]]\npacket = 1", "missing field `until`"),
        ("[[hold]]\npacket = 1\nuntil = 2\nwhy = 3", "unknown field `why`"),
    ] {
        let error = Spec::parse(&format!("{SPEC}\n{holds}\n"), Path::new("case.toml")).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.line().is_some_and(|line| line >= 29), "{error}");
    }
    let twice = format!("{SPEC}\n[[hold]]\npacket = 1\nuntil = 1\n[[hold]]\npacket = 1\nuntil = 2\n");
    let error = Spec::parse(&twice, Path::new("case.toml")).unwrap_err();
    assert!(error.to_string().contains("packet 1 is held twice") && error.line() == Some(32), "{error}");
    let missing = Spec::parse(&SPEC.replacen("shows", "ids = []\n#", 1), Path::new("case.toml"));
    assert!(missing.is_err());
    let number = Spec::parse(&SPEC.replace("\"0\"", "0"), Path::new("case.toml")).unwrap();
    assert_eq!(number, case().spec);
}

#[test]
fn counters_are_compared_where_both_sides_tell_them() {
    let told = |counters: &[(&str, u64)]| Outcome {
        counters: Some(counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()),
        ..Outcome::default()
    };
    let differences = |a: &[(&str, u64)], b: &[(&str, u64)]| compare(&told(a), &told(b), Tolerance::default());
    assert_eq!(differences(&[("found", 1), ("drop", 2)], &[("drop", 2)]), []);
    let [one] = &differences(&[("drop", 2)], &[("drop", 3)])[..] else { panic!() };
    assert_eq!(one.to_string(), "counters: drop is 2 in the kernel, decided was 3");
    assert_eq!(compare(&Outcome::default(), &told(&[("drop", 3)]), Tolerance::default()), []);
}

#[test]
fn a_recording_that_tells_less_is_completed() {
    let lines = |text: &str| Some(vec![text.to_owned()]);
    let before = case().recordings["6.18.44"].clone();
    let mut later = before.clone();
    later.outcome.table = lines("not asked for, because it is there");
    later.outcome.expectations = lines("299 proto=6 class=0 helper=ftp");
    later.outcome.counters = Some(BTreeMap::from([("drop".to_owned(), 1)]));
    let mut whole = before.clone();
    assert!(whole.complete(&later) && !whole.complete(&later));
    later.outcome.table.clone_from(&before.outcome.table);
    assert_eq!(whole, later);
    let mut bytes = Vec::new();
    whole.write(&mut bytes).unwrap();
    assert_eq!(Recording::read(&bytes[..], Path::new("kernel-1.jsonl")).unwrap(), whole);
    assert!(!whole.complete(&before));
    let without = Outcome { expectations: None, ..whole.outcome.clone() };
    let differences = |a, b| compare(a, b, Tolerance::default()).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        differences(&whole.outcome, &without),
        ["expectations: the kernel's were recorded, nothing is there beside them"]
    );
    assert_eq!(differences(&without, &whole.outcome), [""; 0]);
    let nothing = Outcome { expectations: Some(Vec::new()), ..whole.outcome.clone() };
    assert_eq!(
        [differences(&whole.outcome, &nothing), differences(&nothing, &whole.outcome)],
        [
            ["expectations: the kernel alone has: 299 proto=6 class=0 helper=ftp"],
            ["expectations: the kernel does not have: 299 proto=6 class=0 helper=ftp"]
        ]
    );
}

#[test]
fn what_is_wrong_with_a_recording_names_its_line() {
    let mut good = Vec::new();
    case().recordings["6.18.44"].write(&mut good).unwrap();
    let good = String::from_utf8(good).unwrap();
    let table = good.lines().last().unwrap();
    for (from, to, line, says) in [
        ("\"schema\":1", "\"schema\":2", Some(1), "schema 2 is not known"),
        ("\"kind\":\"kernel\"", "\"kind\":\"packet\"", Some(1), "its first line is not of kind `kernel`"),
        ("\"kind\":\"packet\"", "\"kind\":\"kernel\"", Some(2), "a second line of kind `kernel`"),
        (
            "\"kind\":\"packet\"",
            "\"kind\":\"paket\"",
            Some(2),
            "kind `paket` is not known; it is one of kernel, packet",
        ),
        ("\"packet\":2", "\"packet\":3", Some(3), "packet 3 where packet 2 should come"),
        ("\"NEW\"", "\"new\"", Some(2), "unknown variant `new`"),
        ("\"4500c0\"", "\"4500c\"", Some(2), "the bytes have 5 characters"),
        ("\"4500c0\"", "\"4500C0\"", Some(2), "character 4 of the bytes"),
        ("\"local\":false", "\"lokal\":false", Some(2), "unknown field `lokal`"),
        ("\"release\"", "\"releases\"", Some(1), "unknown field `releases`"),
        ("250", "2.5", Some(1), "a fact is true, false, a whole number or a text"),
        ("\"iface\":\"lan\",", "", Some(3), "missing field `iface`"),
        ("{\"kind\":\"table\"", "{\"kind\":\"table", Some(4), "(column"),
        (table, &format!("{table}\n{table}"), Some(5), "a second line of kind `table`"),
        (&good, "", None, "its first line is not of kind `kernel`"),
        (&good, "\n", Some(1), "EOF while parsing a value (column 0)"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Recording::read(good.replacen(from, to, 1).as_bytes(), Path::new("kernel-1.jsonl")).unwrap_err();
        assert_eq!(error.line(), line, "{error}");
        assert!(error.to_string().starts_with("kernel-1.jsonl:") && error.to_string().contains(says), "{error}");
    }
}

/// Reads the case after a change to its folder, which must not be accepted.
fn refused(name: &str, change: impl FnOnce(&Path)) -> String {
    let folder = common::scratch(name);
    case().write(&folder).unwrap();
    change(&folder);
    let error = Case::read(&folder).unwrap_err().to_string();
    fs::remove_dir_all(&folder).unwrap();
    error.replace(&format!("{}/", folder.display()), "")
}

/// Writes another `packets.pcapng` of one packet.
fn packets(folder: &Path, name: Option<&str>, linktype: LinkType, original_len: u32) {
    let mut writer = PcapngWriter::new(Vec::new(), "ctwhy").unwrap();
    writer.add_interface(name, linktype, None).unwrap();
    writer.packet(Packet { interface: 0, time_ns: 0, original_len, bytes: b"\x45" }, []).unwrap();
    fs::write(folder.join("packets.pcapng"), writer.finish().unwrap()).unwrap();
}

#[test]
fn files_that_do_not_fit_each_other_are_refused() {
    let raw = LinkType::RAW;
    assert_eq!(
        refused("missing", |f| fs::remove_file(f.join("packets.pcapng")).unwrap()),
        "packets.pcapng: cannot be opened: No such file or directory (os error 2)"
    );
    assert_eq!(
        refused("count", |f| packets(f, Some("lan"), raw, 1)),
        "kernel-6.18.44.jsonl: has 2 packets, but packets.pcapng has 1; record it again"
    );
    assert_eq!(
        refused("iface", |f| packets(f, Some("dmz"), raw, 1)),
        "packets.pcapng: there is no interface `dmz` in case.toml; add it as an [[interface]] or correct the name"
    );
    assert!(refused("unnamed", |f| packets(f, None, raw, 1)).contains("packet 1 is of an interface without a name"));
    assert!(refused("cut", |f| packets(f, Some("lan"), raw, 9)).contains("packet 1 was cut"));
    assert!(refused("sll", |f| packets(f, Some("lan"), LinkType::LINUX_SLL, 1)).contains("link type 113 (LINUX_SLL)"));
    assert_eq!(
        refused("release", |f| fs::rename(f.join("kernel-6.18.44.jsonl"), f.join("kernel-7.0.jsonl")).unwrap()),
        "kernel-7.0.jsonl:1: its header names release 6.18.44; rename the file kernel-6.18.44.jsonl"
    );
    let folder = common::scratch("unwritable");
    let mut bad = case();
    bad.packets[0].iface = "dmz".to_owned();
    assert!(bad.write(&folder).unwrap_err().to_string().contains("there is no interface `dmz`"));
    let mut bad = case().recordings["6.18.44"].clone();
    bad.release = "../x".to_owned();
    assert!(Case::write_recording(&folder, &bad).unwrap_err().to_string().contains("makes no file name"));
    fs::remove_dir_all(folder).unwrap();
}

/// The differences after a change of what was decided, as sentences.
fn differences(change: impl FnOnce(&mut Outcome)) -> Vec<String> {
    let mut decided = outcome();
    change(&mut decided);
    compare(&outcome(), &decided, Tolerance::default()).iter().map(ToString::to_string).collect()
}

#[test]
fn equal_outcomes_do_not_differ() {
    assert!(differences(|_| ()).is_empty());
    // The free bytes are free, and so is what was not recorded.
    assert!(differences(|d| d.packets[1].generated.as_mut().unwrap()[0].bytes = bytes("45001234ff")).is_empty());
    assert!(differences(|d| d.events = Some(vec!["x".to_owned()])).is_empty());
    let nothing = Outcome { packets: vec![PacketOutcome { packet: 1, ..Default::default() }], ..Outcome::default() };
    let mut decided = outcome();
    decided.packets.pop();
    assert!(compare(&nothing, &decided, Tolerance::default()).is_empty());
}

#[test]
fn every_difference_is_a_sentence() {
    for (change, says) in [
        (
            Box::new(|d: &mut Outcome| d.packets[1].ctinfo = Some(CtInfo::Invalid)) as Box<dyn FnOnce(&mut Outcome)>,
            "packet 2: the kernel said RELATED_REPLY, decided was INVALID",
        ),
        (Box::new(|d| d.packets[1].ctinfo = None), "packet 2: the kernel said RELATED_REPLY, decided was nothing"),
        (
            Box::new(|d| d.packets[0].hook = Some(Hook::Output)),
            "packet 1: the kernel decided at prerouting, decided was at output",
        ),
        (
            Box::new(|d| d.packets[1].log = Some(Vec::new())),
            "packet 2: the kernel logged \"nf_ct_proto_1: short packet\" about it, decided would be no words",
        ),
        (
            Box::new(|d| d.packets[0].local = Some(true)),
            "packet 1: it was not delivered to the box by the kernel, decided was: delivered to the box",
        ),
        (
            Box::new(|d| d.packets[0].forwarded = Some(Vec::new())),
            "packet 1: the kernel forwarded 1 packets, decided were 0",
        ),
        (Box::new(|d| d.packets[0].forwarded = None), "packet 1: the kernel forwarded 1 packets, decided were nothing"),
        (
            Box::new(|d| d.packets[0].forwarded.as_mut().unwrap()[0].iface = "lan".to_owned()),
            "packet 1: forwarded packet 1 left by wan of the kernel, decided was lan",
        ),
        (
            Box::new(|d| d.packets[0].forwarded.as_mut().unwrap()[0].bytes = bytes("4501c0")),
            "packet 1: forwarded packet 1 differs in 1 bytes; from offset 1 on the kernel sent 00c0, decided was 01c0",
        ),
        (
            Box::new(|d| d.packets[0].forwarded.as_mut().unwrap()[0].bytes = bytes("4500")),
            "packet 1: forwarded packet 1 had 3 bytes of the kernel, decided were 2",
        ),
        (
            Box::new(|d| d.packets[1].generated = Some(Vec::new())),
            "packet 2: the kernel generated 1 packets, decided were 0",
        ),
        (
            Box::new(|d| d.packets[1].generated.as_mut().unwrap()[0].ctinfo = None),
            "packet 2: the kernel said RELATED about generated packet 1, decided was nothing",
        ),
        (
            Box::new(|d| d.packets[1].generated.as_mut().unwrap()[0].bytes = bytes("450000000f")),
            "packet 2: generated packet 1 differs in 1 bytes; from offset 4 on the kernel sent ff, decided was 0f",
        ),
        (Box::new(|d| drop(d.packets.pop())), "packet 2: the kernel decided, nothing else did"),
        (
            Box::new(|d| d.packets.push(PacketOutcome { packet: 3, ..Default::default() })),
            "packet 3: decided, but the kernel recorded no such packet",
        ),
        (Box::new(|d| d.table = None), "table: the kernel's was recorded, nothing is there beside it"),
        (Box::new(|d| d.table = Some(Vec::new())), &format!("table: the kernel alone has: {ENTRY}")),
        (
            Box::new(|d| d.table.as_mut().unwrap()[0] = ENTRY.replace(" 29 ", " 119 ")),
            &format!("table: 29 seconds are left in the kernel, decided were 119, of: {ENTRY}"),
        ),
    ] {
        assert_eq!(differences(change), [says]);
    }
    assert_eq!(Emission::Forwarded.to_string(), "forwarded");
    let two = differences(|d| d.table.as_mut().unwrap().push(ENTRY.replace("sport=5", "sport=7")));
    assert!(matches!(&two[..], [one] if one.starts_with("table: the kernel does not have: ")), "{two:?}");
}

#[test]
fn ctinfo_has_seven_names() {
    for name in ["NEW", "ESTABLISHED", "ESTABLISHED_REPLY", "RELATED", "RELATED_REPLY", "INVALID", "UNTRACKED"] {
        let value: CtInfo = name.parse().unwrap();
        assert_eq!(value.to_string(), name);
        assert_eq!(serde_json::to_string(&value).unwrap(), format!("\"{name}\""));
    }
    assert!("new".parse::<CtInfo>().unwrap_err().to_string().starts_with("`new` is no ctinfo; it is one of NEW"));
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(.|\n){0,200}", at in any::<prop::sample::Index>(), length in 0usize..20) {
        let file = Path::new("any");
        let _ = Spec::parse(&text, file);
        let _ = Recording::read(text.as_bytes(), file);
        let _ = compare(
            &Outcome { table: Some(vec![text.clone()]), ..Outcome::default() },
            &Outcome { table: Some(vec![ENTRY.to_owned()]), ..Outcome::default() },
            Tolerance::default(),
        );
        let mut spliced: Vec<char> = SPEC.chars().collect();
        let at = at.index(spliced.len());
        spliced.splice(at..(at + length).min(SPEC.chars().count()), text.chars());
        let _ = Spec::parse(&spliced.iter().collect::<String>(), file);
    }

    #[test]
    fn any_spec_round_trips(title in ".{0,40}", shows in "(.|\n){0,80}", rules in proptest::option::of("(.|\n|\t|'|\"){0,80}"), value in ".{0,9}") {
        let mut spec = case().spec;
        spec.title = title;
        spec.shows = shows;
        spec.rules6 = rules;
        spec.sysctls.insert("net.x".to_owned(), value);
        let text = spec.to_toml().unwrap();
        prop_assert_eq!(Spec::parse(&text, Path::new("case.toml")).unwrap(), spec);
    }
}
