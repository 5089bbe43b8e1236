//! An entry as it lies in memory.
//!
//! A table holds millions of entries, and what a packet of a known flow costs is the memory that it touches. So an entry
//! is small: an IPv4 flow has its tuples in it, an IPv6 flow keeps them aside; so does what most flows have not.

use super::slab::Slab;
use crate::conn::{Confirmed, Counter, Flow, Protocol};
use crate::direction::Direction;
use crate::event::Causes;
use crate::extension::ExtensionId;
use crate::helper::Helper;
use crate::status::Status;
use crate::time::Time;
use crate::track::gre::Gre;
use crate::track::sctp::Sctp;
use crate::track::tcp::Tcp;
use crate::tuple::{Addr, L3, Tuple};
use crate::zone::Zone;

/// A place for an entry, and the entry without what is kept aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// How many entries were here before.
    pub(super) generation: u32,
    /// Is there one?
    pub(super) live: bool,
    pub(super) expires: Time,
    protocol: Kept,
    tuples: Tuples,
    protonum: u8,
    pub(super) zone: Zone,
    pub(super) status: Status,
    pub(super) mark: u32,
    pub(super) id: u32,
    pending: Causes,
    /// Where its [`Extra`] is.
    extra: Option<Number>,
}

// A table holds many of these.
const _: () = assert!(size_of::<Stored>() <= 80);

/// A number of a slab, counted from 1 so that none costs nothing.
type Number = core::num::NonZeroU32;

/// The tuples of both directions without what they share.
#[derive(Clone, Copy, Debug)]
enum Tuples {
    V4([Short; 2]),
    /// Where they are kept.
    V6(u32),
}

/// An IPv4 tuple without its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Short {
    src: [u8; 4],
    dst: [u8; 4],
    src_u: u16,
    dst_u: u16,
}

impl Short {
    fn of(tuple: &Tuple) -> Short {
        let start = |address: &Addr| {
            let [a, b, c, d, ..] = address.0;
            [a, b, c, d]
        };
        Short { src: start(&tuple.src), dst: start(&tuple.dst), src_u: tuple.src_u, dst_u: tuple.dst_u }
    }

    /// Are these the addresses and ports of `tuple`?
    #[inline]
    fn is(&self, tuple: &Tuple) -> bool {
        (self.src_u, self.dst_u) == (tuple.src_u, tuple.dst_u)
            && tuple.src.0.starts_with(&self.src)
            && tuple.dst.0.starts_with(&self.dst)
    }

    fn whole(self, protonum: u8) -> Tuple {
        let address = |start: [u8; 4]| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&start);
            Addr(bytes)
        };
        let (src, dst) = (address(self.src), address(self.dst));
        Tuple { src, dst, src_u: self.src_u, dst_u: self.dst_u, l3num: L3::V4, protonum }
    }
}

/// What the tracker remembers: in place where it is small.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Udp {
        stream_from: Time,
    },
    Udplite,
    /// Where it is kept.
    Tcp(u32),
    Sctp(Sctp),
    Gre(Gre),
    Stateless,
}

/// What most flows have not.
#[derive(Clone, Copy, Debug)]
struct Extra {
    counters: Option<[Counter; 2]>,
    masquerade_interface: Option<u16>,
    helper: Option<Helper>,
    extension: Option<ExtensionId>,
    events: Option<Causes>,
}

/// What is kept aside.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    tuples: Slab<[Tuple; 2]>,
    tcp: Slab<Tcp>,
    extras: Slab<Extra>,
}

/// An entry of the table, to be changed. Its tuples stay as they are.
#[derive(Debug)]
pub(crate) struct EntryMut<'a> {
    pub(crate) id: u32,
    pub(crate) expires: &'a mut Time,
    pub(crate) status: &'a mut Status,
    pub(crate) mark: &'a mut u32,
    pub(crate) pending: &'a mut Causes,
    /// Where the flow is accounted.
    pub(crate) counters: Option<&'a mut [Counter; 2]>,
    pub(crate) extension: Option<ExtensionId>,
    pub(crate) protocol: ProtocolMut<'a>,
}

impl EntryMut<'_> {
    /// Counts one packet of `bytes` bytes (`nf_ct_acct_add`).
    pub(crate) fn count(&mut self, direction: Direction, bytes: usize) {
        if let Some(counters) = &mut self.counters {
            counters[direction.index()].count(bytes);
        }
    }
}

/// [`Protocol`], to be changed.
#[derive(Debug)]
pub(crate) enum ProtocolMut<'a> {
    Udp { stream_from: Time },
    Udplite,
    Tcp(&'a mut Tcp),
    Sctp(&'a mut Sctp),
    Gre(Gre),
    Stateless,
}

impl ProtocolMut<'_> {
    /// As [`Protocol::state`].
    pub(crate) fn state(&self) -> Option<u8> {
        match self {
            ProtocolMut::Tcp(tcp) => Some(tcp.state() as u8),
            ProtocolMut::Sctp(sctp) => Some(sctp.state().number()),
            ProtocolMut::Udp { .. } | ProtocolMut::Udplite | ProtocolMut::Gre(_) | ProtocolMut::Stateless => None,
        }
    }
}

impl Aside {
    pub(super) const fn new() -> Aside {
        Aside { tuples: Slab::new(), tcp: Slab::new(), extras: Slab::new() }
    }

    /// Stores an entry in a place that had `generation` others before.
    pub(super) fn store(&mut self, entry: &Confirmed, generation: u32) -> Stored {
        let Flow { tuples, zone, status, mark, counters, protocol, masquerade_interface, .. } = entry.flow;
        let Flow { events, pending, helper, extension, .. } = entry.flow;
        let [original, reply] = &tuples;
        let rare = counters.is_some() || masquerade_interface.is_some() || events.is_some();
        let extra = (rare || extension.is_some() || helper.is_some())
            .then(|| self.extras.insert(Extra { counters, masquerade_interface, helper, extension, events }))
            .and_then(|number| Number::new(number.wrapping_add(1)));
        Stored {
            generation,
            live: true,
            expires: entry.expires,
            protocol: match protocol {
                Protocol::Udp { stream_from } => Kept::Udp { stream_from },
                Protocol::Udplite => Kept::Udplite,
                Protocol::Tcp(state) => Kept::Tcp(self.tcp.insert(state)),
                Protocol::Sctp(state) => Kept::Sctp(state),
                Protocol::Gre(state) => Kept::Gre(state),
                Protocol::Stateless => Kept::Stateless,
            },
            tuples: match original.l3num {
                L3::V4 => Tuples::V4([Short::of(original), Short::of(reply)]),
                L3::V6 => Tuples::V6(self.tuples.insert(tuples)),
            },
            protonum: original.protonum,
            zone,
            status,
            mark,
            id: entry.id,
            pending,
            extra,
        }
    }

    /// Gives back the room of what an entry kept aside.
    pub(super) fn release(&mut self, stored: &Stored) {
        if let Tuples::V6(number) = stored.tuples {
            self.tuples.remove(number);
        }
        if let Kept::Tcp(number) = stored.protocol {
            self.tcp.remove(number);
        }
        if let Some(number) = stored.extra {
            self.extras.remove(number.get() - 1);
        }
    }

    /// How many there are of each kind, in the order of [`Stored::kept_aside`].
    pub(super) fn in_use(&self) -> [usize; 3] {
        [self.tuples.in_use(), self.tcp.in_use(), self.extras.in_use()]
    }

    /// Is `tuple` that of a direction of an IPv6 flow? Apart, for it takes more registers than IPv4 can spare.
    #[inline(never)]
    fn has(&self, number: u32, tuple: &Tuple, direction: Direction) -> bool {
        self.tuples.get(number).is_some_and(|tuples| tuples[direction.index()] == *tuple)
    }

    fn extra(&self, stored: &Stored) -> Option<&Extra> {
        self.extras.get(stored.extra?.get() - 1)
    }
}

impl Stored {
    /// The tuple of a direction.
    pub(super) fn tuple(&self, direction: Direction, aside: &Aside) -> Tuple {
        match self.tuples {
            Tuples::V4(short) => short[direction.index()].whole(self.protonum),
            Tuples::V6(number) => match aside.tuples.get(number) {
                Some(tuples) => tuples[direction.index()],
                None => Short { src: [0; 4], dst: [0; 4], src_u: 0, dst_u: 0 }.whole(self.protonum),
            },
        }
    }

    /// Has nothing happened to it that is to be told, and has it no [`Extra`]?
    #[inline]
    pub(super) const fn is_at_rest(&self) -> bool {
        self.pending.is_empty() && self.extra.is_none()
    }

    /// Is `tuple` that of a direction?
    #[inline]
    pub(super) fn has(&self, tuple: &Tuple, direction: Direction, aside: &Aside) -> bool {
        match &self.tuples {
            Tuples::V4(short) => {
                short[direction.index()].is(tuple) && tuple.l3num == L3::V4 && tuple.protonum == self.protonum
            }
            Tuples::V6(number) => aside.has(*number, tuple, direction),
        }
    }

    /// Is it one tuple in both directions?
    #[inline]
    pub(super) fn tuples_are_equal(&self, aside: &Aside) -> bool {
        match &self.tuples {
            Tuples::V4([original, reply]) => original == reply,
            Tuples::V6(number) => aside.tuples.get(*number).is_some_and(|[original, reply]| original == reply),
        }
    }

    /// The numbers of what is kept aside: tuples, state of TCP, extras.
    pub(super) fn kept_aside(&self) -> [Option<u32>; 3] {
        let tuples = if let Tuples::V6(number) = self.tuples { Some(number) } else { None };
        let tcp = if let Kept::Tcp(number) = self.protocol { Some(number) } else { None };
        [tuples, tcp, self.extra.map(|number| number.get() - 1)]
    }

    /// The whole entry.
    pub(super) fn read(&self, aside: &Aside) -> Confirmed {
        let extra = aside.extra(self);
        let protocol = match self.protocol {
            Kept::Udp { stream_from } => Protocol::Udp { stream_from },
            Kept::Udplite => Protocol::Udplite,
            Kept::Tcp(number) => aside.tcp.get(number).map_or(Protocol::Stateless, |state| Protocol::Tcp(*state)),
            Kept::Sctp(state) => Protocol::Sctp(state),
            Kept::Gre(state) => Protocol::Gre(state),
            Kept::Stateless => Protocol::Stateless,
        };
        let flow = Flow {
            tuples: Direction::BOTH.map(|direction| self.tuple(direction, aside)),
            zone: self.zone,
            status: self.status,
            mark: self.mark,
            counters: extra.and_then(|extra| extra.counters),
            protocol,
            masquerade_interface: extra.and_then(|extra| extra.masquerade_interface),
            events: extra.and_then(|extra| extra.events),
            pending: self.pending,
            helper: extra.and_then(|extra| extra.helper),
            extension: extra.and_then(|extra| extra.extension),
        };
        Confirmed { flow, expires: self.expires, id: self.id }
    }

    /// The entry, to be changed.
    #[inline]
    pub(super) fn edit<'a>(&'a mut self, aside: &'a mut Aside) -> EntryMut<'a> {
        let extra = match self.extra {
            Some(number) => aside.extras.get_mut(number.get() - 1),
            None => None,
        };
        let extension = extra.as_ref().and_then(|extra| extra.extension);
        EntryMut {
            id: self.id,
            expires: &mut self.expires,
            status: &mut self.status,
            mark: &mut self.mark,
            pending: &mut self.pending,
            counters: extra.and_then(|extra| extra.counters.as_mut()),
            extension,
            protocol: match &mut self.protocol {
                Kept::Udp { stream_from } => ProtocolMut::Udp { stream_from: *stream_from },
                Kept::Udplite => ProtocolMut::Udplite,
                Kept::Tcp(number) => aside.tcp.get_mut(*number).map_or(ProtocolMut::Stateless, ProtocolMut::Tcp),
                Kept::Sctp(state) => ProtocolMut::Sctp(state),
                Kept::Gre(state) => ProtocolMut::Gre(*state),
                Kept::Stateless => ProtocolMut::Stateless,
            },
        }
    }

    /// Is its time over? (`nf_ct_is_expired`)
    pub(super) const fn is_expired(&self, now: Time) -> bool {
        self.expires.0 <= now.0
    }

    /// Reads the entry where it begins and where it ends: it is longer than a line of the cache.
    pub(super) fn touch_ends(&self) -> u64 {
        self.expires.0 ^ u64::from(self.live)
    }

    /// Reads what is kept aside.
    pub(super) fn touch(&self, aside: &Aside) -> u64 {
        let tuples = match self.tuples {
            Tuples::V4(_) => 0,
            Tuples::V6(number) => aside.tuples.get(number).map_or(0, |[original, _]| original.src_u),
        };
        let state = match self.protocol {
            Kept::Tcp(number) => aside.tcp.get(number).map_or(0, |state| state.state() as u16),
            _ => 0,
        };
        u64::from(tuples) + u64::from(state)
    }

    /// What it has in [`crate::extension`].
    pub(super) fn extension(&self, aside: &Aside) -> Option<ExtensionId> {
        aside.extra(self)?.extension
    }

    /// The interface that a masqueraded flow leaves by.
    pub(super) fn masquerade_interface(&self, aside: &Aside) -> Option<u16> {
        aside.extra(self)?.masquerade_interface
    }
}
