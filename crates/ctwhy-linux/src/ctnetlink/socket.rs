//! The two ways to the table: a dump, and events.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Entry, Expectation, expect, parse};
use crate::context;
use crate::netlink::{Message, Messages, Outgoing, Socket, Subscription, Subsystem};

/// `IPCTNL_MSG_CT_NEW`, which is also what an update is called, and `IPCTNL_MSG_EXP_NEW`.
const NEW: u8 = 0;
/// `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_EXP_GET`.
const GET: u8 = 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u8 = 2;
/// The multicast groups NEW, UPDATE and DESTROY (`NFNLGRP_CONNTRACK_*` 1 to 3) as bits.
const GROUPS: u32 = 0b111;

const fn kind(subsystem: Subsystem, message: u8) -> u16 {
    (subsystem as u16) << 8 | message as u16
}

fn needs_privilege(cause: io::Error) -> io::Error {
    if cause.raw_os_error() == Some(libc::EPERM) {
        let text = "ctnetlink needs CAP_NET_ADMIN in this network namespace";
        return io::Error::new(io::ErrorKind::PermissionDenied, text);
    }
    context("ctnetlink")(cause)
}

/// `conntrack -L` for both families and all zones: the confirmed entries of the calling thread's network namespace.
///
/// # Errors
/// CAP_NET_ADMIN is missing, or the kernel's answer is not understood.
pub fn dump() -> io::Result<Vec<Entry>> {
    Ok(dump_of(Subsystem::Conntrack, parse::entry)?.into_iter().flatten().collect())
}

/// `conntrack -L expect` for both families: what is expected in the calling thread's network namespace.
///
/// # Errors
/// As [`dump`].
pub fn dump_expectations() -> io::Result<Vec<Expectation>> {
    dump_of(Subsystem::Expect, expect::read)
}

/// Everything that a subsystem has.
fn dump_of<T>(subsystem: Subsystem, read: impl Fn(&Message<'_>) -> io::Result<T>) -> io::Result<Vec<T>> {
    let mut socket = Socket::open(0).map_err(context("opening a netfilter socket"))?;
    socket.set_receive_buffer(8 << 20).map_err(context("setting the receive buffer"))?;
    let sequence = socket.next_sequence();
    let mut out = Outgoing::default();
    out.begin(subsystem, GET, (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16, sequence, 0);
    socket.send(out.bytes()).map_err(needs_privilege)?;
    let mut buffer = vec![0; 256 << 10];
    let mut found = Vec::new();
    loop {
        let datagram = socket.receive(&mut buffer, 0).map_err(context("ctnetlink dump"))?;
        for message in Messages::new(datagram.unwrap_or_default()) {
            let message = message?;
            if message.sequence != sequence {
                continue;
            }
            if message.is_done() {
                return Ok(found);
            }
            if let Some(answer) = message.error() {
                answer.map_err(needs_privilege)?;
                return Ok(found);
            }
            if message.kind == kind(subsystem, NEW) {
                found.push(read(&message)?);
            }
        }
    }
}

/// `conntrack -F`: deletes every entry of the calling thread's network namespace.
///
/// # Errors
/// CAP_NET_ADMIN is missing.
pub fn flush() -> io::Result<()> {
    let mut socket = Socket::open(0).map_err(context("opening a netfilter socket"))?;
    let sequence = socket.next_sequence();
    let mut out = Outgoing::default();
    out.begin(Subsystem::Conntrack, DELETE, (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16, sequence, 0);
    socket.request(out.bytes(), sequence, |_| ()).map_err(needs_privilege)
}

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Its first packet was confirmed.
    New,
    /// A reply, a state, a mark changed.
    Update,
    /// It expired or was deleted.
    Destroy,
}

/// What [`Events::recv`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An entry changed.
    Entry(EventKind, Box<Entry>),
    /// The receive buffer was full: events are missing from here, and only a new [`dump`] brings the table back.
    Lost,
}

/// The events in one datagram of the kernel's, for those who have it from elsewhere.
///
/// # Errors
/// A message that is not understood.
pub fn read_events(datagram: &[u8]) -> io::Result<Vec<Event>> {
    Messages::new(datagram).filter_map(|message| message.and_then(|message| event(&message)).transpose()).collect()
}

fn event(message: &Message<'_>) -> io::Result<Option<Event>> {
    let created = i32::from(message.flags) & libc::NLM_F_CREATE != 0;
    let event = match message.kind {
        k if k == kind(Subsystem::Conntrack, NEW) && created => EventKind::New,
        k if k == kind(Subsystem::Conntrack, NEW) => EventKind::Update,
        k if k == kind(Subsystem::Conntrack, DELETE) => EventKind::Destroy,
        _ => return Ok(None),
    };
    Ok(parse::entry(message)?.map(|entry| Event::Entry(event, Box::new(entry))))
}

/// Subscription to NEW, UPDATE and DESTROY. Receiving never waits: poll the descriptor.
///
/// The kernel makes events only for entries that were created while `nf_conntrack_events` was 1, or 2 and somebody
/// listened (OBS-06). It makes them at the confirm hook, not behind PREROUTING.
pub struct Events(Subscription);

impl Events {
    /// Subscribes in the calling thread's network namespace.
    ///
    /// # Errors
    /// CAP_NET_ADMIN is missing.
    pub fn open(receive_buffer: usize) -> io::Result<Events> {
        let socket = Socket::open(GROUPS).map_err(needs_privilege)?;
        socket.set_receive_buffer(receive_buffer).map_err(context("setting the receive buffer"))?;
        Ok(Events(Subscription::new(socket)))
    }

    /// The next event; `None` when none is there.
    ///
    /// # Errors
    /// The socket's error, or a message that is not understood.
    pub fn recv(&mut self) -> io::Result<Option<Event>> {
        let next = self.0.next(event)?;
        Ok(next.map(|next| next.unwrap_or(Event::Lost)))
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
