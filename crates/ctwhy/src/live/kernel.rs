//! The kernel's words in the engine's: entries, tuples, decisions, settings.

use std::io;

use ctwhy_core::conn::{Counter, Flow, Protocol};
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::hook::Hook;
use ctwhy_core::mirror::{KernelEntry, Learnt};
use ctwhy_core::network::{InterfaceAddress, Network};
use ctwhy_core::rules::Network as Prefix;
use ctwhy_core::status::Status;
use ctwhy_core::sysctl::Sysctls;
use ctwhy_core::time::Time;
use ctwhy_core::track::gre::Gre;
use ctwhy_core::track::sctp::{Sctp, SctpState};
use ctwhy_core::track::tcp::{Tcp, TcpState};
use ctwhy_core::track::udp;
use ctwhy_core::tuple::{Addr, L3, Tuple, proto};
use ctwhy_core::zone::Zone;
use ctwhy_linux::ctnetlink::{self, Entry, L4};
use ctwhy_linux::rules::CtState;
use ctwhy_linux::{interfaces, queue, sysctl};

/// The engine's name for a decision that came in mark bits.
pub(super) const fn ctinfo(state: CtState) -> CtInfo {
    match state {
        CtState::Established => CtInfo::Established,
        CtState::Related => CtInfo::Related,
        CtState::New => CtInfo::New,
        CtState::EstablishedReply => CtInfo::EstablishedReply,
        CtState::RelatedReply => CtInfo::RelatedReply,
        CtState::Untracked => CtInfo::Untracked,
        CtState::Invalid => CtInfo::Invalid,
    }
}

/// The hook that a packet was queued at; `None` for one where conntrack has not just decided.
pub(super) const fn hook(hook: queue::Hook) -> Option<Hook> {
    match hook {
        queue::Hook::Prerouting => Some(Hook::PreRouting),
        queue::Hook::Output => Some(Hook::LocalOut),
        _ => None,
    }
}

/// A tuple of ctnetlink's.
pub(super) fn tuple(tuple: &ctnetlink::Tuple) -> Tuple {
    let (src_u, dst_u) = match tuple.l4 {
        L4::Ports { sport, dport } => (sport, dport),
        L4::Icmp { id, icmp_type, code } => (id, u16::from_be_bytes([icmp_type, code])),
        L4::Generic => (0, 0),
    };
    let l3num = if tuple.src.is_ipv4() { L3::V4 } else { L3::V6 };
    Tuple { src: tuple.src.into(), dst: tuple.dst.into(), src_u, dst_u, l3num, protonum: tuple.proto }
}

/// What an entry says about the binding of its flow.
pub(super) fn learnt(entry: &Entry) -> Learnt {
    Learnt { id: entry.id.unwrap_or(0), reply: tuple(&entry.reply), status: Status(entry.status), mark: entry.mark }
}

/// The zone of an entry.
pub(super) fn zone(entry: &Entry) -> Zone {
    match (entry.orig.zone, entry.reply.zone) {
        (Some(id), _) => Zone { id, only: Some(Direction::Original) },
        (None, Some(id)) => Zone { id, only: Some(Direction::Reply) },
        (None, None) => Zone { id: entry.zone, only: None },
    }
}

/// An entry for the engine's table, as far as ctnetlink shows it.
pub(super) fn entry(entry: &Entry, now: Time) -> KernelEntry {
    let status = Status(entry.status);
    let protocol = match entry.orig.proto {
        proto::TCP => {
            let shown = entry.tcp.unwrap_or_default();
            let flags = [shown.flags.original, shown.flags.reply].map(|flags| flags.unwrap_or(0));
            let scale = [shown.wscale.original, shown.wscale.reply].map(|scale| scale.unwrap_or(0));
            let state = TcpState::from_number(shown.state).unwrap_or(TcpState::None);
            Protocol::Tcp(Tcp::from_ctnetlink(state, flags, scale))
        }
        // When the flow began is not shown: an ASSURED one has been a stream, another may have begun just now.
        proto::UDP if status.contains(Status::ASSURED) => Protocol::Udp { stream_from: Time(0) },
        proto::UDP => Protocol::Udp { stream_from: now.plus_secs(udp::STREAM_AFTER_SECS) },
        proto::UDPLITE => Protocol::Udplite,
        proto::SCTP => {
            let shown = entry.sctp.unwrap_or_default();
            let vtag = [shown.vtag.original, shown.vtag.reply].map(|vtag| vtag.unwrap_or(0));
            Protocol::Sctp(Sctp::from_ctnetlink(SctpState::from_number(shown.state).unwrap_or_default(), vtag))
        }
        // The timeouts that the flow began with are not shown; few people change them.
        proto::GRE => Protocol::Gre(Gre::new(&Sysctls::default())),
        _ => Protocol::Stateless,
    };
    let counter = |shown: ctnetlink::Counters| Counter { packets: shown.packets, bytes: shown.bytes };
    let counters = entry.counters.original.zip(entry.counters.reply);
    let flow = Flow {
        tuples: [tuple(&entry.orig), tuple(&entry.reply)],
        zone: zone(entry),
        status,
        mark: entry.mark,
        counters: counters.map(|(original, reply)| [counter(original), counter(reply)]),
        protocol,
        masquerade_interface: None,
        // What its helper has read is not known.
        helper: None,
        extension: None,
        events: None,
        pending: ctwhy_core::event::Causes::default(),
    };
    // ctnetlink rounds down. Living too long does no harm: the kernel tells when it deletes an entry.
    let timeout = entry.timeout.unwrap_or(0).saturating_add(1);
    KernelEntry { flow, id: entry.id.unwrap_or(0), timeout }
}

/// Does the DESTROY of this entry come from a packet that is still on its way to us: a reset that ended a connection
/// nobody had answered (ACCT-04)?
pub(super) fn killed_by_reset(entry: &Entry) -> bool {
    let closed = entry.tcp.is_some_and(|tcp| tcp.state == TcpState::Close.number());
    closed && entry.timeout.is_some()
}

/// The settings that decide about packets, as they are in this network namespace.
///
/// # Errors
/// Conntrack has no settings here at all, or one has a value that is not understood.
pub(super) fn sysctls() -> io::Result<Sysctls> {
    read_sysctls(|name| sysctl::read(&format!("net.netfilter.{name}")))
}

fn read_sysctls(read: impl Fn(&str) -> io::Result<Option<String>>) -> io::Result<Sysctls> {
    let mut settings = Sysctls::default();
    let mut found = false;
    for name in Sysctls::NAMES {
        // An older kernel may lack one.
        let Some(value) = read(name)? else { continue };
        found = true;
        if settings.set(name, &value).is_err() {
            let text = format!("net.netfilter.{name} is {value:?}, which is not understood");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    if !found {
        let text = "this kernel does not track connections: /proc/sys/net/netfilter has no nf_conntrack settings; \
                    load the module with `modprobe nf_conntrack`";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(settings)
}

/// The interfaces and their addresses.
pub(super) fn network() -> io::Result<Network> {
    let mut network = Network::default();
    for found in interfaces::addresses()? {
        let index = network.interface_named(&found.interface);
        let l3num = if found.ip.is_ipv4() { L3::V4 } else { L3::V6 };
        let address =
            InterfaceAddress { l3num, network: Prefix { address: Addr::from(found.ip), prefix: found.prefix } };
        if let Some(interface) = network.interfaces.get_mut(usize::from(index)) {
            interface.addresses.push(address);
        }
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_conntrack_is_told_in_one_line() {
        let error = read_sysctls(|_| Ok(None)).unwrap_err().to_string();
        assert!(error.contains("does not track connections") && error.contains("modprobe nf_conntrack"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn settings_are_taken_over_and_missing_ones_keep_their_default() {
        let read = |name: &str| Ok((name == "nf_conntrack_udp_timeout").then(|| "77".to_owned()));
        let expected = Sysctls { udp_timeout: 77, ..Sysctls::default() };
        assert_eq!(read_sysctls(read).unwrap(), expected);
        let error = read_sysctls(|_| Ok(Some("x".to_owned()))).unwrap_err().to_string();
        assert!(error.contains("nf_conntrack_checksum is \"x\""), "{error}");
    }
}
