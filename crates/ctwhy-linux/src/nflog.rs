//! NFLOG: copies of packets from wherever a rule logs them, with the rule's prefix. Nobody waits for an answer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nflog::{ConfigCmd, ConfigMode, ConfigNla, Timeout, config_request};

use crate::context;
use crate::netlink::{Lost, Message, Messages, Socket, Subscription, Subsystem};
use crate::queue::{Hook, owner, timestamp};

/// A copy of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logged {
    /// Where the rule stands that logged it.
    pub hook: Hook,
    /// The packet's mark; 0 where none was set.
    pub mark: u32,
    /// Index of the interface it came in by.
    pub indev: Option<u32>,
    /// Index of the interface it leaves by.
    pub outdev: Option<u32>,
    /// What the rule gave as prefix, empty where it gave none.
    pub prefix: String,
    /// EtherType: 0x0800 for IPv4, 0x86dd for IPv6.
    pub hw_protocol: u16,
    /// When it was received, since the epoch, where the kernel has it.
    pub timestamp: Option<Duration>,
    /// The whole packet from its IP header on.
    pub payload: Vec<u8>,
}

/// What [`Nflog::recv`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// A copy.
    Packet(Logged),
    /// The receive buffer was full: some copies are missing from here.
    Lost,
}

/// A bound NFLOG group. Receiving never waits: poll the descriptor.
pub struct Nflog(Subscription);

impl Nflog {
    /// Binds to a group of the calling thread's network namespace, to get whole packets, each at once.
    ///
    /// # Errors
    /// The group is in use, or CAP_NET_ADMIN is missing; the text says which.
    pub fn open(group: u16, receive_buffer: usize) -> io::Result<Nflog> {
        let attributes = vec![ConfigCmd::Bind.into(), ConfigMode::PACKET_MAX.into(), ConfigNla::QThresh(1)];
        bind(group, receive_buffer, attributes).map(Nflog)
    }

    /// The next copy; `None` when none is there.
    ///
    /// # Errors
    /// The socket's error, or a message that is not understood.
    pub fn recv(&mut self) -> io::Result<Option<LogEvent>> {
        let next = self.0.next(packet)?;
        Ok(next.map(|next| next.map_or_else(|Lost| LogEvent::Lost, LogEvent::Packet)))
    }
}

impl AsFd for Nflog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The copies in one datagram of the kernel's, for those who have it from elsewhere.
///
/// # Errors
/// A message that is not understood.
pub fn read_packets(datagram: &[u8]) -> io::Result<Vec<Logged>> {
    Messages::new(datagram).filter_map(|message| message.and_then(|message| packet(&message)).transpose()).collect()
}

fn packet(message: &Message<'_>) -> io::Result<Option<Logged>> {
    if message.kind == PACKET { parse(message).map(Some) } else { Ok(None) }
}

/// A bound NFLOG group that hands over nothing but the marks of packets, many in one message. What the rules logged is
/// there when a rule with `queue-threshold 1` has logged another packet behind it.
pub struct Marks(Subscription);

/// What [`Marks::recv`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkEvent {
    /// The mark of the next packet that was logged; 0 where none was set.
    Mark(u32),
    /// The receive buffer was full: some are missing from here.
    Lost,
}

impl Marks {
    /// As [`Nflog::open`].
    ///
    /// # Errors
    /// As [`Nflog::open`].
    pub fn open(group: u16, receive_buffer: usize) -> io::Result<Marks> {
        /// Bytes of one message to us, and packets that may wait for it to be sent.
        const MESSAGE: u32 = 16 << 10;
        const WAITING: u32 = 1 << 10;
        /// Hundredths of a second after which what waits is sent in any case.
        const PATIENCE: u32 = 100;
        let attributes = vec![
            ConfigCmd::Bind.into(),
            ConfigMode::META.into(),
            ConfigNla::NlBufSiz(MESSAGE),
            ConfigNla::QThresh(WAITING),
            ConfigNla::Timeout(Timeout::new(PATIENCE)),
        ];
        bind(group, receive_buffer, attributes).map(Marks)
    }

    /// The next mark; `None` when none is there.
    ///
    /// # Errors
    /// The socket's error, or a message that is not understood.
    pub fn recv(&mut self) -> io::Result<Option<MarkEvent>> {
        let next = self.0.next(|message| {
            if message.kind != PACKET {
                return Ok(None);
            }
            for attribute in message.attributes() {
                let attribute = attribute?;
                if libc::c_int::from(attribute.kind) == libc::NFULA_MARK {
                    return attribute.u32().map(Some);
                }
            }
            Ok(Some(0))
        })?;
        Ok(next.map(|next| next.map_or_else(|Lost| MarkEvent::Lost, MarkEvent::Mark)))
    }
}

impl AsFd for Marks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `NFULNL_MSG_PACKET` of this subsystem.
const PACKET: u16 = (Subsystem::Log as u16) << 8 | libc::NFULNL_MSG_PACKET as u16;

fn bind(group: u16, receive_buffer: usize, attributes: Vec<ConfigNla>) -> io::Result<Subscription> {
    let mut socket = Socket::open(0).map_err(context("opening a netfilter socket"))?;
    socket.set_receive_buffer(receive_buffer).map_err(context("setting the receive buffer"))?;
    let mut request = config_request(NetfilterProtoFamily::Unspec, group, attributes);
    let sequence = socket.next_sequence();
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    request.header.sequence_number = sequence;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.request(&bytes, sequence, |_| ()).map_err(|cause| explain_bind(group, &cause))?;
    Ok(Subscription::new(socket))
}

/// `__build_packet_message` of `nfnetlink_log.c`, read back. (The packet header of the crate that knows these messages
/// keeps its fields to itself.)
fn parse(message: &Message<'_>) -> io::Result<Logged> {
    let mut logged = Logged::default();
    for attribute in message.attributes() {
        let attribute = attribute?;
        match libc::c_int::from(attribute.kind) {
            libc::NFULA_PACKET_HDR => {
                let &[p0, p1, hook, ..] = attribute.value else {
                    let text = format!("NFULA_PACKET_HDR of {} bytes where 3 are needed", attribute.value.len());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                };
                logged.hw_protocol = u16::from_be_bytes([p0, p1]);
                logged.hook = Hook::from(hook);
            }
            libc::NFULA_MARK => logged.mark = attribute.u32()?,
            libc::NFULA_IFINDEX_INDEV => logged.indev = Some(attribute.u32()?),
            libc::NFULA_IFINDEX_OUTDEV => logged.outdev = Some(attribute.u32()?),
            libc::NFULA_TIMESTAMP => logged.timestamp = Some(timestamp(&attribute)?),
            libc::NFULA_PREFIX => {
                let text = attribute.value.split(|byte| *byte == 0).next().unwrap_or_default();
                logged.prefix = String::from_utf8_lossy(text).into_owned();
            }
            libc::NFULA_PAYLOAD => logged.payload = attribute.value.to_vec(),
            _ => {}
        }
    }
    Ok(logged)
}

/// Why binding failed. The kernel says EPERM both without the capability and when another socket has the group.
fn explain_bind(group: u16, cause: &io::Error) -> io::Error {
    let groups = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log").unwrap_or_default();
    let taken = groups.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let number: u16 = fields.next()?.parse().ok()?;
        let portid: u32 = fields.next()?.parse().ok()?;
        (number == group).then_some(portid)
    });
    if let Some(portid) = taken {
        let owner = owner(portid).unwrap_or_else(|| format!("port id {portid}"));
        let text = format!("NFLOG group {group} is already in use by {owner}; choose another group or end it");
        return io::Error::new(io::ErrorKind::ResourceBusy, text);
    }
    match cause.raw_os_error() {
        Some(libc::EPERM) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("binding to NFLOG group {group} needs CAP_NET_ADMIN in this network namespace"),
        ),
        _ => io::Error::new(cause.kind(), format!("binding to NFLOG group {group}: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Messages, damage};

    #[test]
    fn a_copy_is_read_and_damage_does_no_harm() {
        let bytes = damage::message(
            Subsystem::Log,
            libc::NFULNL_MSG_PACKET as u8,
            &[
                (libc::NFULA_PACKET_HDR as u16, vec![0x86, 0xdd, 4, 0]),
                (libc::NFULA_PREFIX as u16, b"here\0".to_vec()),
                (libc::NFULA_MARK as u16, vec![0, 0, 1, 0]),
                (libc::NFULA_IFINDEX_OUTDEV as u16, vec![0, 0, 0, 2]),
                (libc::NFULA_PAYLOAD as u16, vec![0x60, 1, 2]),
            ],
        );
        let expected = Logged {
            hook: Hook::Postrouting,
            mark: 256,
            outdev: Some(2),
            prefix: "here".to_owned(),
            hw_protocol: 0x86dd,
            payload: vec![0x60, 1, 2],
            ..Logged::default()
        };
        assert_eq!(parse(&Messages::new(&bytes).next().unwrap().unwrap()).unwrap(), expected);
        damage::every_way(&bytes, |message| drop(parse(message)));
    }
}
