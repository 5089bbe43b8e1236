//! The engine's table as `conntrack -L -o extended` prints it, its events as `conntrack -E -o extended` does, and what it
//! expects as `conntrack -L expect` does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ctwhy_core::conn::{Confirmed, Counter, Protocol};
use ctwhy_core::direction::Direction;
use ctwhy_core::event::{Event, EventKind};
use ctwhy_core::expect;
use ctwhy_core::table::Table;
use ctwhy_core::time::Time;
use ctwhy_core::tuple::{self, has_ports};
use ctwhy_linux::ctnetlink::{
    self, Counters, Entry, Expectation, L4, PerDirection, SctpInfo, TcpInfo, Tuple, expect_flags, format_event,
    format_expectation, format_extended,
};

/// The entries that are alive at `now` and shown in a dump, a line each, sorted.
#[must_use]
pub fn lines(table: &Table, now: Time) -> Vec<String> {
    let alive = table.iter().filter(|(_, entry)| !entry.is_expired(now) && !entry.is_hidden());
    let mut lines: Vec<String> = alive.map(|(_, entry)| format_extended(&as_ctnetlink(&entry, now))).collect();
    lines.sort();
    lines
}

/// What is expected at `now`, with the entry that expects it, the oldest first. The kernel forgets with an entry what that
/// expected, so that of an entry whose time is over nothing is here.
#[must_use]
pub fn expected(table: &Table, now: Time) -> Vec<(expect::Expectation, Confirmed)> {
    let alive = table.expectations.alive(now).into_iter();
    let with_master = alive.filter_map(|one| Some((one, table.get(table.master_of(&one)?)?)));
    with_master.filter(|(_, master)| !master.is_expired(now)).collect()
}

/// What is expected at `now`, a line each, sorted. The tool lists one family at a time, these are of both.
#[must_use]
pub fn expectation_lines(table: &Table, now: Time) -> Vec<String> {
    let lines = expected(table, now);
    let mut lines: Vec<String> =
        lines.iter().map(|(one, master)| format_expectation(&expectation_as_ctnetlink(one, master, now))).collect();
    lines.sort();
    lines
}

/// An expectation as ctnetlink would tell of it.
#[must_use]
pub fn expectation_as_ctnetlink(one: &expect::Expectation, master: &Confirmed, now: Time) -> Expectation {
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    let tuple = side(&one.tuple, None);
    let all: IpAddr = if tuple.dst.is_ipv4() { Ipv4Addr::BROADCAST.into() } else { Ipv6Addr::from_bits(!0).into() };
    let none: IpAddr = if tuple.dst.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mask = Tuple {
        src: if one.mask.address { all } else { none },
        dst: all,
        l4: L4::Ports { sport: if one.mask.port { !0 } else { 0 }, dport: !0 },
        ..tuple
    };
    Expectation {
        tuple,
        mask,
        master: side(master.flow.tuple(Direction::Original), None),
        timeout: one.expires.secs_since(now),
        flags: flag(one.flags.permanent, expect_flags::PERMANENT)
            | flag(one.flags.inactive, expect_flags::INACTIVE)
            | flag(one.flags.userspace, expect_flags::USERSPACE),
        class: u32::from(one.class),
        helper: Some(one.helper.name().to_owned()),
    }
}

/// The line of an event.
#[must_use]
pub fn event_line(event: &Event) -> String {
    let mut entry = as_ctnetlink(&event.entry, event.at);
    entry.use_count = None;
    if event.kind() != EventKind::Destroy {
        entry.counters = PerDirection::default();
    }
    if !event.tells_state() {
        (entry.tcp, entry.sctp) = (None, None);
    }
    let kind = match event.kind() {
        EventKind::New => ctnetlink::EventKind::New,
        EventKind::Update => ctnetlink::EventKind::Update,
        EventKind::Destroy => {
            entry.helper = None;
            // Of a time that is over nothing is told.
            entry.timeout = entry.timeout.filter(|seconds| *seconds > 0);
            ctnetlink::EventKind::Destroy
        }
    };
    format_event(kind, &entry)
}

/// An entry as ctnetlink would tell it.
pub(crate) fn as_ctnetlink(entry: &Confirmed, now: Time) -> Entry {
    let flow = &entry.flow;
    let [original, reply] = flow.tuples;
    // A direction has a zone of its own where the other one is not in it.
    let zone_of = |direction| (flow.zone.only == Some(direction)).then_some(flow.zone.id);
    let tcp = match &flow.protocol {
        Protocol::Tcp(state) => Some(TcpInfo {
            state: state.state().number(),
            wscale: PerDirection {
                original: Some(state.scale(Direction::Original)),
                reply: Some(state.scale(Direction::Reply)),
            },
            flags: PerDirection {
                original: Some(state.flags(Direction::Original)),
                reply: Some(state.flags(Direction::Reply)),
            },
        }),
        _ => None,
    };
    let sctp = match &flow.protocol {
        Protocol::Sctp(state) => Some(SctpInfo {
            state: state.state().number(),
            vtag: PerDirection {
                original: Some(state.tag(Direction::Original)),
                reply: Some(state.tag(Direction::Reply)),
            },
        }),
        _ => None,
    };
    let counters = flow.counters.map(|both| both.map(|Counter { packets, bytes }| Counters { packets, bytes }));
    Entry {
        orig: side(&original, zone_of(Direction::Original)),
        reply: side(&reply, zone_of(Direction::Reply)),
        status: flow.status.0,
        timeout: Some(entry.remaining_secs(now)),
        mark: flow.mark,
        id: Some(entry.id),
        zone: if flow.zone.only.is_none() { flow.zone.id } else { 0 },
        use_count: Some(1),
        tcp,
        sctp,
        counters: PerDirection { original: counters.map(|[o, _]| o), reply: counters.map(|[_, r]| r) },
        master: None,
        helper: flow.helper.map(|helper| helper.name().to_owned()),
    }
}

/// One direction of a flow as ctnetlink would tell it.
pub(crate) fn side(tuple: &tuple::Tuple, zone: Option<u16>) -> Tuple {
    let l4 = if tuple.is_icmp() {
        L4::Icmp { id: tuple.src_u, icmp_type: tuple.icmp_type(), code: tuple.icmp_code() }
    } else if has_ports(tuple.protonum) || tuple.protonum == tuple::proto::GRE {
        L4::Ports { sport: tuple.src_u, dport: tuple.dst_u }
    } else {
        L4::Generic
    };
    Tuple { src: tuple.src_ip(), dst: tuple.dst_ip(), proto: tuple.protonum, l4, zone }
}
