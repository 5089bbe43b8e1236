//! NFQUEUE: packets that a rule hands to us, and the verdicts that we hand back.
//!
//! [`PacketQueue`] is what the rest of ctwhy knows; [`NfqQueue`] and [`MnlQueue`] stand behind it.

mod batching;
mod simple;
mod stats;

use std::io;
use std::time::Duration;

pub use batching::MnlQueue;
pub(crate) use batching::timestamp;
pub use simple::NfqQueue;
pub(crate) use stats::owner;
pub use stats::{QueueStats, StatsReader};

/// The hook that a packet was taken from (`enum nf_inet_hooks`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Hook {
    #[default]
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Other(u8),
}

impl From<u8> for Hook {
    fn from(number: u8) -> Hook {
        match number {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            other => Hook::Other(other),
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
            Hook::Other(number) => return write!(f, "hook {number}"),
        })
    }
}

/// How far the kernel trusts the packet's checksum, and whether it is really several (`NFQA_SKB_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum in the bytes is not filled in yet (`CHECKSUM_PARTIAL`); conntrack takes it as right.
    pub checksum_not_ready: bool,
    /// The checksum has not been verified by a device (`CHECKSUM_NONE`); conntrack does so itself. `None` where the
    /// consumer cannot tell.
    pub checksum_not_verified: Option<bool>,
    /// The packet stands for several that the device will cut it into.
    pub gso: bool,
}

/// A packet waiting for its verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// What the verdict refers to; unique within the queue.
    pub id: u32,
    /// Where the rule stands that queued it.
    pub hook: Hook,
    /// The packet's mark; 0 where none was set.
    pub mark: u32,
    /// Index of the interface it came in by; `None` for packets of this machine.
    pub indev: Option<u32>,
    /// Index of the interface it leaves by; `None` before routing.
    pub outdev: Option<u32>,
    /// EtherType: 0x0800 for IPv4, 0x86dd for IPv6.
    pub hw_protocol: u16,
    /// The packet from its IP header on, at most as many bytes as the copy range says.
    pub payload: Vec<u8>,
    /// How long it is in the kernel.
    pub original_len: usize,
    /// When it was received, since the epoch; the kernel has it only where somebody asked for time stamps.
    pub timestamp: Option<Duration>,
    /// Checksum and segmentation offload.
    pub offload: Offload,
}

/// What is to happen with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on with the next hook function (`NF_ACCEPT`).
    Accept,
    /// It ends here (`NF_DROP`).
    Drop,
}

/// A decision, with what is to be changed about an accepted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Accept or drop.
    pub decision: Decision,
    /// The mark to set; `None` leaves it.
    pub mark: Option<u32>,
    /// The bytes to put in place of the packet, of any length up to 65531; `None` leaves them.
    pub payload: Option<&'a [u8]>,
}

impl Verdict<'_> {
    /// Accept unchanged.
    pub const ACCEPT: Verdict<'static> = Verdict { decision: Decision::Accept, mark: None, payload: None };
    /// Drop.
    pub const DROP: Verdict<'static> = Verdict { decision: Decision::Drop, mark: None, payload: None };
}

/// What a queue is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Number of the queue, as in `-j NFQUEUE --queue-num`.
    pub number: u16,
    /// How many packets may wait in the kernel.
    pub max_len: u32,
    /// How many bytes of each packet to copy; what is cut off stays in the kernel and goes on with the packet.
    pub copy_range: u16,
    /// Receive packets under segmentation offload whole and without finished checksums, as conntrack saw them
    /// (`NFQA_CFG_F_GSO`). Without it the kernel cuts and completes them first, which is what a consumer that rewrites
    /// packets wants.
    pub gso: bool,
    /// Receive buffer of the socket in bytes; [`NfqQueue`] cannot set it.
    pub receive_buffer: usize,
    /// Do packets pass for which there is no room, and those that still wait at the end (`NFQA_CFG_F_FAIL_OPEN`)? Otherwise
    /// they are dropped. [`NfqQueue`] lets them pass.
    pub fail_open: bool,
}

impl QueueConfig {
    /// Whole packets, 16384 waiting at most, a receive buffer of 32 MiB, offloaded packets as they are, and those pass that
    /// there is no room for.
    #[must_use]
    pub fn new(number: u16) -> QueueConfig {
        QueueConfig {
            number,
            max_len: 16384,
            copy_range: u16::MAX,
            gso: true,
            receive_buffer: 32 << 20,
            fail_open: true,
        }
    }
}

/// A bound queue.
pub trait PacketQueue {
    /// Receives the next packet into `packet`, whose payload buffer is used again. `false`: nothing
    /// there, or a signal came.
    ///
    /// # Errors
    /// The socket's error; or the kernel's answer to an earlier verdict that it could not follow.
    fn recv_into(&mut self, packet: &mut Queued) -> io::Result<bool>;

    /// Receives the next packet; `None`: nothing there, or a signal came.
    ///
    /// # Errors
    /// As [`PacketQueue::recv_into`].
    fn recv(&mut self) -> io::Result<Option<Queued>> {
        let mut packet = Queued::default();
        Ok(self.recv_into(&mut packet)?.then_some(packet))
    }

    /// Decides about the packet `id`. With [`Decision::Accept`] the packet's way through the rest of the machine is
    /// done when this returns, unless the queue collects verdicts.
    ///
    /// # Errors
    /// The socket's error, or a payload longer than a netlink attribute.
    fn verdict(&mut self, id: u32, verdict: Verdict<'_>) -> io::Result<()>;

    /// Sends the verdicts that were collected. Nothing to do for queues that send each at once.
    ///
    /// # Errors
    /// The socket's error.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Waits for packets when `true` (the default), returns at once from [`PacketQueue::recv`] when `false`.
    fn set_blocking(&mut self, blocking: bool);

    /// Packets that the kernel let pass, or dropped where the queue is not fail-open, because the receive buffer was full, up
    /// to the packet received last.
    fn missed(&self) -> u64;

    /// The kernel's counters for this queue.
    ///
    /// # Errors
    /// The file of the counters cannot be read or is not understood.
    fn stats(&mut self) -> io::Result<QueueStats>;
}
