//! The consumer over the crate nfq: one packet, one verdict. Its socket is its own secret, so it can neither be polled
//! nor given a larger receive buffer. It gives no time stamps.

use std::collections::VecDeque;
use std::io;

use super::stats::{self, Gaps};
use super::{Decision, Hook, Offload, PacketQueue, QueueConfig, QueueStats, Queued, StatsReader, Verdict};
use crate::context;

/// NFQUEUE over the crate nfq.
pub struct NfqQueue {
    queue: nfq::Queue,
    number: u16,
    /// Packets without a verdict, oldest first.
    waiting: VecDeque<nfq::Message>,
    stats: StatsReader,
    gaps: Gaps,
}

impl NfqQueue {
    /// Opens a socket in the calling thread's network namespace and binds it to the queue.
    ///
    /// # Errors
    /// The queue is in use, CAP_NET_ADMIN is missing, or the kernel has no NFQUEUE; the text says which.
    pub fn open(config: &QueueConfig) -> io::Result<NfqQueue> {
        let number = config.number;
        let mut stats = StatsReader::open()?;
        let mut queue = nfq::Queue::open().map_err(context("opening a netfilter socket"))?;
        queue.bind(number).map_err(|cause| stats::explain_bind(number, &mut stats, &cause))?;
        let mut bound = NfqQueue { queue, number, waiting: VecDeque::new(), stats, gaps: Gaps::default() };
        bound.configure(config).map_err(context(format_args!("setting up queue {number}")))?;
        Ok(bound)
    }

    fn configure(&mut self, config: &QueueConfig) -> io::Result<()> {
        self.queue.set_copy_range(self.number, config.copy_range)?;
        self.queue.set_queue_max_len(self.number, config.max_len)?;
        self.queue.set_fail_open(self.number, true)?;
        self.queue.set_recv_gso(self.number, config.gso)
    }
}

impl PacketQueue for NfqQueue {
    fn recv_into(&mut self, packet: &mut Queued) -> io::Result<bool> {
        let message = match self.queue.recv() {
            Ok(message) => message,
            Err(error) => {
                let nothing = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
                return if nothing { Ok(false) } else { Err(error) };
            }
        };
        let index = |number| if number == 0 { None } else { Some(number) };
        packet.id = message.get_packet_id();
        packet.hook = Hook::from(message.get_hook());
        packet.mark = message.get_nfmark();
        packet.indev = index(message.get_indev());
        packet.outdev = index(message.get_outdev());
        packet.hw_protocol = message.get_hw_protocol();
        packet.payload.clear();
        packet.payload.extend_from_slice(message.get_payload());
        packet.original_len = message.get_original_len();
        // The crate reads the time stamp through a misaligned pointer, which aborts a build with debug assertions.
        packet.timestamp = None;
        packet.offload = Offload {
            checksum_not_ready: !message.is_checksum_ready(),
            checksum_not_verified: None,
            gso: message.is_seg_offloaded(),
        };
        self.gaps.saw(packet.id);
        self.waiting.push_back(message);
        Ok(true)
    }

    fn verdict(&mut self, id: u32, verdict: Verdict<'_>) -> io::Result<()> {
        let position = self.waiting.iter().position(|message| message.get_packet_id() == id);
        let Some(mut message) = position.and_then(|at| self.waiting.remove(at)) else {
            let text = format!("queue {} has no packet {id} without a verdict", self.number);
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        };
        message.set_verdict(match verdict.decision {
            Decision::Accept => nfq::Verdict::Accept,
            Decision::Drop => nfq::Verdict::Drop,
        });
        if let Some(mark) = verdict.mark {
            message.set_nfmark(mark);
        }
        if let Some(payload) = verdict.payload {
            message.set_payload(payload);
        }
        self.queue.verdict(message)
    }

    fn set_blocking(&mut self, blocking: bool) {
        self.queue.set_nonblocking(!blocking);
    }

    fn missed(&self) -> u64 {
        self.gaps.missed()
    }

    fn stats(&mut self) -> io::Result<QueueStats> {
        let found = self.stats.read(self.number)?;
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("queue {} is gone", self.number)))
    }
}

impl Drop for NfqQueue {
    fn drop(&mut self) {
        // What still waits would be dropped with the queue: let it pass. Nobody is left to tell about a failure, and
        // closing the socket unbinds as well.
        self.queue.set_nonblocking(true);
        while let Ok(message) = self.queue.recv() {
            self.waiting.push_back(message);
        }
        while let Some(mut message) = self.waiting.pop_front() {
            message.set_verdict(nfq::Verdict::Accept);
            let _ = self.queue.verdict(message);
        }
        let _ = self.queue.unbind(self.number);
    }
}
