//! What is seen of a packet on its way through the box, and what it means.
//!
//! Rules log a packet where conntrack has just decided about it, with the decision as prefix, and again where it is about
//! to be delivered or to leave, behind source NAT. What really left is taken off the wire.

use std::fmt::Write as _;
use std::time::Duration;

use ctwhy_core::packet::find_fragment_header;
use ctwhy_fixture::case::{Bytes, CtInfo, Emitted, Generated, Hook};
use ctwhy_linux::nflog::Logged;
use ctwhy_linux::queue;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::RecordError;
use super::under_test::BARRIER;
use crate::compose::{Ip, finish_tcp, udp};

/// The NFLOG group of the rules.
pub(super) const GROUP: u16 = 1;
/// The NFLOG group where conntrack itself says why a packet is INVALID.
pub(super) const INVALID_GROUP: u16 = 0;

/// How nft tells what conntrack decided.
const DECISIONS: [(CtInfo, &str); 7] = [
    (CtInfo::Invalid, "ct state invalid"),
    (CtInfo::Untracked, "ct state untracked"),
    (CtInfo::New, "ct direction original ct state new"),
    (CtInfo::Established, "ct direction original ct state established"),
    (CtInfo::Related, "ct direction original ct state related"),
    (CtInfo::EstablishedReply, "ct direction reply ct state established"),
    (CtInfo::RelatedReply, "ct direction reply ct state related"),
];

/// The rules that observe the box, for `nft -f`. They change nothing, but that the box sends no multicast reports and
/// that the markers of the recorder are not tracked.
pub(super) fn ruleset() -> String {
    let mut text = format!(
        "table inet ctwhy {{\n\
         chain markers {{ type filter hook prerouting priority -300; iifname \"{BARRIER}\" notrack; }}\n\
         chain silence {{ type filter hook output priority -450; ip6 daddr ff02::16 drop; }}\n"
    );
    for (hook, way) in [("prerouting", "iifname"), ("output", "oifname")] {
        // Writing into a string does not fail.
        let _ = writeln!(text, "chain {hook} {{ type filter hook {hook} priority -160; {way} \"{BARRIER}\" accept;");
        for (ctinfo, matches) in DECISIONS {
            let _ = writeln!(text, "{matches} log prefix \"{ctinfo}\" group {GROUP} accept;");
        }
        text += "}\n";
    }
    for (hook, way) in [("input", "iifname"), ("postrouting", "oifname")] {
        let _ = writeln!(
            text,
            "chain {hook} {{ type filter hook {hook} priority 350; {way} != \"{BARRIER}\" log group {GROUP}; }}"
        );
    }
    text + "}\n"
}

/// Where the number of a marker is: behind its headers.
const NUMBER_AT: usize = 28;

/// The packet that is sent behind packet `number`.
pub(super) fn marker(number: u64) -> Vec<u8> {
    let to_and_fro = Ip::new("198.18.255.250", "198.18.255.251");
    to_and_fro.packet(udp(&to_and_fro, 9, 9, &number.to_be_bytes()))
}

/// The number of a marker.
pub(super) fn marked(packet: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(packet.get(NUMBER_AT..NUMBER_AT + 8)?.try_into().ok()?))
}

/// Keeps the calling thread on the CPU that it is on. What it puts on a cable is handled there, too, in order.
pub(crate) fn stay_on_this_cpu() -> Result<(), RecordError> {
    let pin = || {
        let mut cpus = CpuSet::new();
        cpus.set(sched_getcpu()?)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)
    };
    pin().map_err(|error: nix::Error| RecordError::kernel("staying on one CPU")(error.into()))
}

/// A packet that a rule logged.
#[derive(Clone, Debug)]
pub(super) struct Log {
    hook: Hook,
    ctinfo: Option<CtInfo>,
    bytes: Vec<u8>,
}

impl Log {
    pub(super) fn read(logged: &Logged) -> Result<Log, RecordError> {
        let confused = || RecordError::Confused { seen: format!("{:?} with prefix {:?}", logged.hook, logged.prefix) };
        let hook = match logged.hook {
            queue::Hook::Prerouting => Hook::Prerouting,
            queue::Hook::Input => Hook::Input,
            queue::Hook::Output => Hook::Output,
            queue::Hook::Postrouting => Hook::Postrouting,
            queue::Hook::Forward | queue::Hook::Other(_) => return Err(confused()),
        };
        let ctinfo = match hook {
            Hook::Prerouting | Hook::Output => Some(logged.prefix.parse().map_err(|_| confused())?),
            _ => None,
        };
        Ok(Log { hook, ctinfo, bytes: logged.payload.clone() })
    }
}

/// A packet that came out of the box.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) interface: String,
    pub(super) time: Duration,
    pub(super) bytes: Vec<u8>,
}

/// What became of one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) decided: Option<(CtInfo, Hook)>,
    pub(super) log: Option<Vec<String>>,
    pub(super) forwarded: Vec<Emitted>,
    pub(super) local: bool,
    pub(super) generated: Vec<Generated>,
}

/// Tells what went through the box from what the box made, in the order of `sent`.
pub(super) fn sort_out(log: Vec<Log>, invalid: &[Logged], sent: Vec<Sent>) -> Result<Observed, RecordError> {
    let mut observed = Observed::default();
    // What the box made: the decision about it, and the packet before and behind NAT.
    let mut made: Vec<(Option<CtInfo>, Vec<u8>, Vec<u8>)> = Vec::new();
    let mut through = 0;
    let mut log = log.into_iter().peekable();
    while let Some(Log { hook, ctinfo, bytes }) = log.next() {
        match hook {
            Hook::Prerouting => {
                observed.decided = ctinfo.map(|ctinfo| (ctinfo, Hook::Prerouting));
                // What the box made may be INVALID, too; it is another packet.
                let about_it = || invalid.iter().filter(|logged| logged.payload == bytes);
                observed.log = (ctinfo == Some(CtInfo::Invalid))
                    .then(|| about_it().map(|logged| logged.prefix.trim_end().to_owned()).collect());
            }
            Hook::Input => observed.local = true,
            // Between the two hooks of a packet nothing else happens; one that was dropped has no second.
            Hook::Output => {
                if let Some(left) = log.next_if(|next| next.hook == Hook::Postrouting) {
                    // The device finishes the checksum of a segment of the box's own.
                    made.push((ctinfo, finish_tcp(bytes), finish_tcp(left.bytes)));
                }
            }
            Hook::Postrouting | Hook::Forward => through += 1,
        }
    }
    for Sent { interface: iface, bytes, .. } in sent {
        match made.iter().position(|(_, _, left)| *left == bytes) {
            Some(at) => {
                let (ctinfo, before, _) = made.remove(at);
                let [made, bytes] = [before, bytes].map(|bytes| without_chance(&bytes));
                observed.generated.push(Generated { iface, ctinfo, made: Some(made), bytes });
            }
            None if through > 0 => observed.forwarded.push(Emitted { iface, bytes: Bytes::from(&bytes[..]) }),
            None => {
                let seen = format!("{} left by {iface}, and no hook saw it", Bytes::from(&bytes[..]));
                return Err(RecordError::Confused { seen });
            }
        }
    }
    Ok(observed)
}

/// A packet of the box, free in what the kernel draws: the identification of an IPv4 packet that may be fragmented, and
/// with it the header checksum.
fn without_chance(packet: &[u8]) -> Bytes {
    const DONT_FRAGMENT: u8 = 0x40;
    let mut bytes = Bytes::from(packet);
    let (version, flags) = (packet.first().map(|byte| byte >> 4), packet.get(6).copied().unwrap_or(0));
    if version == Some(4) && flags & DONT_FRAGMENT == 0 {
        bytes.free(4..6);
        bytes.free(10..12);
    }
    bytes
}

/// Frees the identification of an IPv6 fragment that the box made: the kernel draws it. One that went through has that of
/// the packet that went in.
pub(super) fn free_fragment_id(received: &[u8], sent: &mut Bytes) {
    let id = |packet: &[u8]| {
        let (_, at) = find_fragment_header(packet).filter(|_| packet.first().is_some_and(|byte| byte >> 4 == 6))?;
        Some((at + 4, packet.get(at + 4..at + 8)?.to_vec()))
    };
    if let Some((at, drawn)) = sent.to_vec().as_deref().and_then(id)
        && id(received).is_none_or(|(_, given)| given != drawn)
    {
        sent.free(at..at + 4);
    }
}
