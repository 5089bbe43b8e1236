//! Fragments in front of conntrack: they wait until their datagram is complete, which then is tracked as one packet
//! (`nf_defrag_ipv4`, `nf_defrag_ipv6`; catalogue part H).
//!
//! A packet that is no fragment costs a look at one or two bytes. Datagrams that are not complete are bounded as in the
//! kernel, by `ipfrag_high_thresh` and `nf_conntrack_frag6_high_thresh`, and end with their timeout in the time of the
//! packets. The kernel charges what its drivers allocate; here every fragment is charged [`FRAGMENT_COST`] bytes beside its
//! data and every datagram [`QUEUE_COST`], which is about what a small packet costs there.

mod queue;
mod refusal;
mod v4;
mod v6;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

pub use refusal::{Refusal, Refused, Unfit, Waiting};

use crate::hook::{Hook, Unseen};
use crate::packet::{Fragment, Packet, PacketError, be16, find_fragment_header};
use crate::refragment::Geometry;
use crate::sysctl::Sysctls;
use crate::time::Time;
use crate::trace::{FragmentStep, Sink, Step};
use crate::tuple::{Addr, L3};
use queue::Queue;

/// What a fragment is charged beside its data, in bytes.
pub const FRAGMENT_COST: usize = 768;
/// What a datagram that is not complete is charged, in bytes.
pub const QUEUE_COST: usize = 256;

/// Is it a fragment, so that [`Defrag`] is to be asked? `bytes` start with an IP header.
pub(crate) fn concerns(bytes: &[u8]) -> bool {
    match bytes.first().map(|byte| byte >> 4) {
        Some(4) => be16(bytes, 6).is_some_and(|place| place & 0x3fff != 0),
        Some(6) => find_fragment_header(bytes).is_some(),
        _ => false,
    }
}

/// What fragments of one datagram have in common (`struct frag_v4_compare_key`, `struct frag_v6_compare_key`).
///
/// The kernel's key has the zone of a template, too, but the templates of the raw table come behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    src: Addr,
    dst: Addr,
    id: u32,
    /// The protocol for IPv4, where it is part of the key.
    protonum: Option<u8>,
    /// Is it this host's own? Those are gathered apart.
    own: bool,
    /// The interface for IPv6, where the destination means another host on each.
    interface: Option<u16>,
}

/// The incomplete datagrams of a family (`struct fqdir`).
#[derive(Clone, Debug, Default)]
struct Store {
    queues: BTreeMap<Key, Queue>,
    deadlines: BTreeSet<(Time, Key)>,
    /// How many fragments each source has sent, while one of its datagrams is not complete (`inet_peer`), and how many
    /// of them there are.
    sources: BTreeMap<Addr, (u32, u32)>,
    memory: usize,
}

impl Store {
    /// The datagram with this key; a new one when there is none.
    fn queue(&mut self, key: Key, deadline: Time) -> &mut Queue {
        let Store { queues, deadlines, sources, memory } = self;
        queues.entry(key).or_insert_with(|| {
            deadlines.insert((deadline, key));
            sources.entry(key.src).or_default().1 += 1;
            *memory += QUEUE_COST;
            Queue { deadline, memory: QUEUE_COST, ..Queue::default() }
        })
    }

    /// `inet_frag_kill`: the datagram and all its fragments go.
    fn remove(&mut self, key: &Key) -> Option<Queue> {
        let queue = self.queues.remove(key)?;
        self.deadlines.remove(&(queue.deadline, *key));
        self.memory = self.memory.saturating_sub(queue.memory);
        if let Some(source) = self.sources.get_mut(&key.src) {
            source.1 -= 1;
            if source.1 == 0 {
                self.sources.remove(&key.src);
            }
        }
        Some(queue)
    }

    /// Charges a fragment of `len` bytes to the datagram.
    fn charge(&mut self, key: &Key, len: usize) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.memory += len + FRAGMENT_COST;
            self.memory += len + FRAGMENT_COST;
        }
    }

    /// A datagram that has waited too long. It is gone then.
    fn overdue(&mut self, now: Time) -> Option<(Key, Queue)> {
        while let Some(&(deadline, late)) = self.deadlines.first()
            && deadline <= now
        {
            if let Some(queue) = self.remove(&late) {
                return Some((late, queue));
            }
            self.deadlines.pop_first();
        }
        None
    }

    /// `ip_expire`, `nf_ct_frag6_expire`: ends what has waited too long. Something is said only about `key`.
    fn expire<S: Sink>(&mut self, key: &Key, now: Time, l3num: L3, sink: &mut S) {
        while let Some((late, queue)) = self.overdue(now) {
            if late == *key {
                let (fragments, first) = (queue.pieces.len(), queue.header.is_some());
                sink.step(|| Step::Fragment(FragmentStep::Expired { l3num, fragments, first }));
            }
        }
    }
}

/// A fragment, and what is needed to judge it.
struct Incoming<'a> {
    packet: &'a Packet<'a>,
    fragment: Fragment,
    label: u64,
    key: Key,
    now: Time,
    sysctls: &'a Sysctls,
}

/// What a family makes of a fragment.
enum Judged {
    /// It waits.
    Waits,
    /// It completes its datagram.
    Complete,
    /// It is dropped, and its datagram with it or not.
    Refused { cause: Refusal, with_datagram: bool },
    /// It is not gathered and goes on as it is; its datagram ends.
    Unfit(Unfit),
}

/// What became of a fragment.
pub(crate) enum Gathered {
    /// Conntrack does not see it.
    Unseen(Unseen),
    /// It goes on as it is.
    AsIs,
    /// It completed its datagram, which goes on in its place.
    Whole(Box<Datagram>),
}

/// A datagram that was put together.
#[derive(Clone, Debug, Default)]
pub struct Datagram {
    /// Of how many fragments.
    pub fragments: usize,
    /// Its length in bytes with its IP header.
    pub len: usize,
    /// What the caller called the fragment that it begins with ([`Defrag::label`]); the kernel gives the datagram its mark.
    pub first: u64,
    arrived: Vec<u8>,
    /// On its way.
    pub(crate) bytes: Vec<u8>,
    /// The fragments that it came in, which decide about those that it leaves in.
    pub(crate) geometry: Geometry,
}

impl Datagram {
    /// As it was put together, from its IP header on; less than its length when a capture was cut.
    #[must_use]
    pub fn arrived(&self) -> &[u8] {
        &self.arrived
    }
}

/// A datagram that was not complete in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Is it of this host's own fragments?
    pub own: bool,
    /// How many fragments of it came.
    pub fragments: usize,
    /// The fragment at offset 0 as it came, without which nobody is told.
    pub first: Option<Vec<u8>>,
}

/// What became of a fragment, for who only wants the datagram.
#[derive(Clone, Debug)]
pub enum Collected {
    /// It was the last one that was missing.
    Whole(Box<Datagram>),
    /// It waits for others.
    Waits,
    /// It is dropped, or is none that can be put together.
    Never,
}

/// The room in front of conntrack.
#[derive(Clone, Debug, Default)]
pub struct Defrag {
    v4: Store,
    v6: Store,
    /// What the caller calls the packet at hand, such as its number in a capture. Steps name earlier fragments by it.
    pub label: u64,
}

impl Defrag {
    /// How many datagrams are not complete. Those whose time is up count until the next fragment of their family.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.v4.queues.len() + self.v6.queues.len()
    }

    /// What they are charged, in bytes: for IPv4 and for IPv6.
    #[must_use]
    pub fn memory(&self) -> [usize; 2] {
        [self.v4.memory, self.v6.memory]
    }

    /// When the next of them has waited too long; `None` when there is none.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let next = |store: &Store| store.deadlines.first().map(|(deadline, _)| *deadline);
        next(&self.v4).into_iter().chain(next(&self.v6)).min()
    }

    /// `ip_expire`, `nf_ct_frag6_expire`: a datagram that has waited too long by `now`, and is gone then. A host that tells
    /// its sender asks for these before a fragment comes, because fragments end them, too.
    pub fn overdue(&mut self, now: Time) -> Option<Overdue> {
        let (key, queue) = self.v4.overdue(now).or_else(|| self.v6.overdue(now))?;
        Some(Overdue { own: key.own, fragments: queue.pieces.len(), first: queue.first() })
    }

    /// Puts datagrams together for a host that tracks nothing. `packet` is a fragment that came to it.
    pub fn collect(&mut self, packet: &Packet<'_>, now: Time, sysctls: &Sysctls) -> Collected {
        match self.gather(packet, Hook::PreRouting, None, (now, sysctls), &mut ()) {
            Gathered::Whole(datagram) => Collected::Whole(datagram),
            Gathered::Unseen(Unseen::Fragment(_)) => Collected::Waits,
            Gathered::AsIs | Gathered::Unseen(_) => Collected::Never,
        }
    }

    /// `ipv4_conntrack_defrag`, `ipv6_defrag`: a fragment at the first hook of its way.
    pub(crate) fn gather<S: Sink>(
        &mut self,
        packet: &Packet<'_>,
        hook: Hook,
        in_interface: Option<u16>,
        (now, sysctls): (Time, &Sysctls),
        sink: &mut S,
    ) -> Gathered {
        let l3num = packet.l3num;
        let fragment = match (packet.fragment, v6::unfit(packet)) {
            (None, _) if l3num == L3::V4 => return Gathered::AsIs,
            (_, Ok(Some(unfit))) => {
                sink.step(|| Step::Fragment(FragmentStep::AsIs { unfit, lost: 0 }));
                return Gathered::AsIs;
            }
            (Some(fragment), Ok(None)) => fragment,
            (_, Err(cause)) => return refused(None, cause, None),
            // The capture does not hold the fragment header.
            (None, Ok(None)) => {
                let (need, have) = (v6::header_end(packet), packet.bytes.len());
                return Gathered::Unseen(Unseen::Packet(PacketError::CutShort { need, have }));
            }
        };
        let own = hook == Hook::LocalOut;
        let (src, dst, id) = (packet.src, packet.dst, fragment.id);
        let (protonum, interface) = match l3num {
            L3::V4 => (packet.bytes.get(9).copied(), None),
            L3::V6 => (None, in_interface.filter(|_| v6::is_per_interface(dst))),
        };
        let key = Key { src, dst, id, protonum, own, interface };
        let incoming = Incoming { packet, fragment, label: self.label, key, now, sysctls };
        let store = match l3num {
            L3::V4 => &mut self.v4,
            L3::V6 => &mut self.v6,
        };
        store.expire(&key, now, l3num, sink);
        let most = match l3num {
            L3::V4 => sysctls.ipfrag_high_thresh,
            L3::V6 => sysctls.frag6_high_thresh,
        };
        if most == 0 || store.memory > most as usize {
            return refused(Some(fragment), Refusal::Memory { have: store.memory, most }, None);
        }
        let judged = match l3num {
            L3::V4 => v4::queue(store, &incoming, sink),
            L3::V6 => v6::queue(store, &incoming),
        };
        match judged {
            Judged::Waits => {
                let (have, end, first) =
                    store.queues.get(&key).map_or((0, None, false), |q| (q.have, q.known_end(), q.header.is_some()));
                Gathered::Unseen(Unseen::Fragment(Waiting { fragment, have, end, first }))
            }
            Judged::Refused { cause, with_datagram } => {
                let lost = with_datagram.then(|| store.remove(&key).map_or(0, |queue| queue.pieces.len()));
                refused(Some(fragment), cause, lost)
            }
            Judged::Unfit(unfit) => {
                let lost = store.remove(&key).map_or(0, |queue| queue.pieces.len());
                sink.step(|| Step::Fragment(FragmentStep::AsIs { unfit, lost }));
                Gathered::AsIs
            }
            Judged::Complete => {
                let Some(queue) = store.remove(&key) else { return Gathered::AsIs };
                put_together(&queue, fragment, l3num, sink)
            }
        }
    }
}

fn put_together<S: Sink>(queue: &Queue, fragment: Fragment, l3num: L3, sink: &mut S) -> Gathered {
    let fragments = queue.pieces.len();
    let made = combined_ecn(queue.ecn).and_then(|ecn| match l3num {
        L3::V4 => v4::reassemble(queue, ecn),
        L3::V6 => v6::reassemble(queue, ecn),
    });
    let (bytes, len, geometry) = match made {
        Ok(made) => made,
        Err(cause) => return refused(Some(fragment), cause, Some(fragments.saturating_sub(1))),
    };
    for piece in &queue.pieces {
        let (label, offset, bytes) = (piece.label, piece.offset, piece.len);
        sink.step(|| Step::Fragment(FragmentStep::Part { label, offset, bytes }));
    }
    sink.step(|| Step::Fragment(FragmentStep::Reassembled { fragments, bytes: len }));
    let first = queue.pieces.iter().find(|piece| piece.offset == 0).map_or(0, |piece| piece.label);
    Gathered::Whole(Box::new(Datagram { fragments, len, first, arrived: bytes.clone(), bytes, geometry }))
}

fn refused(fragment: Option<Fragment>, cause: Refusal, lost: Option<usize>) -> Gathered {
    Gathered::Unseen(Unseen::Refused(Refused { fragment, cause, lost }))
}

/// `ip_frag_ecn_table`: the ECN bits that are added to the header, by the codepoints that were seen (RFC 3168, section 5.3).
/// Without any fragment that is not ECN-capable they may mix; one mark marks the datagram.
fn combined_ecn(seen: u8) -> Result<u8, Refusal> {
    const NOT_CAPABLE: u8 = 1 << 0;
    const MARKED: u8 = 1 << 3;
    if seen & NOT_CAPABLE != 0 && seen != NOT_CAPABLE {
        return Err(Refusal::Ecn { seen });
    }
    // Only marked ones need nothing added.
    Ok(if seen & MARKED != 0 && seen != MARKED { 3 } else { 0 })
}
