//! The consumer over libmnl: a large receive buffer, many packets per system call, verdicts one by one or together.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use super::stats::{self, Gaps};
use super::{Decision, Hook, Offload, PacketQueue, QueueConfig, QueueStats, Queued, StatsReader, Verdict};
use crate::context;
use crate::netlink::{Attribute, Message, Messages, Outgoing, Socket, Subsystem};

/// How many packets one `recvmmsg` takes at most.
const BATCH: usize = 32;
/// How many bytes of verdicts one call sends, unless a single one is longer; the smallest send buffer that systems come
/// with holds them (`net.core.wmem_default`, counted double).
const SENT_AT_ONCE: usize = 96 << 10;
/// Room for everything in a message besides the packet.
const METADATA: usize = 4096;

/// NFQUEUE over libmnl. Pollable; messages are built and read here.
pub struct MnlQueue {
    socket: Socket,
    number: u16,
    blocking: bool,
    fail_open: bool,
    inbox: Inbox,
    outbox: Outgoing,
    /// How many verdicts to collect before they are sent.
    collect: usize,
    collected: usize,
    stats: StatsReader,
    gaps: Gaps,
}

impl MnlQueue {
    /// Opens a socket in the calling thread's network namespace and binds it to the queue.
    ///
    /// # Errors
    /// The queue is in use, CAP_NET_ADMIN is missing, or the kernel has no NFQUEUE; the text says which.
    pub fn open(config: &QueueConfig) -> io::Result<MnlQueue> {
        let number = config.number;
        let mut stats = StatsReader::open()?;
        let mut socket = Socket::open(0).map_err(context("opening a netfilter socket"))?;
        socket.set_receive_buffer(config.receive_buffer).map_err(context("setting the receive buffer"))?;
        socket.set_no_enobufs().map_err(context("setting NETLINK_NO_ENOBUFS"))?;
        let bind = [libc::NFQNL_CFG_CMD_BIND as u8, 0, 0, 0];
        let [r0, r1, r2, r3] = u32::from(config.copy_range).to_be_bytes();
        let params = [r0, r1, r2, r3, libc::NFQNL_COPY_PACKET as u8];
        let flag = |set: bool, flag: libc::c_int| if set { flag as u32 } else { 0 };
        let flags = flag(config.fail_open, libc::NFQA_CFG_F_FAIL_OPEN) | flag(config.gso, libc::NFQA_CFG_F_GSO);
        let mask = (libc::NFQA_CFG_F_FAIL_OPEN | libc::NFQA_CFG_F_GSO) as u32;
        // All in one message: a queue that is bound but has no copy mode yet would drop packets.
        let attributes: [(libc::c_int, &[u8]); 5] = [
            (libc::NFQA_CFG_CMD, &bind),
            (libc::NFQA_CFG_PARAMS, &params),
            (libc::NFQA_CFG_QUEUE_MAXLEN, &config.max_len.to_be_bytes()),
            (libc::NFQA_CFG_MASK, &mask.to_be_bytes()),
            (libc::NFQA_CFG_FLAGS, &flags.to_be_bytes()),
        ];
        let early = configure(&mut socket, number, &attributes)
            .map_err(|cause| stats::explain_bind(number, &mut stats, &cause))?;
        let mut queue = MnlQueue {
            socket,
            number,
            blocking: true,
            fail_open: config.fail_open,
            inbox: Inbox::new(usize::from(config.copy_range) + METADATA),
            outbox: Outgoing::default(),
            collect: 1,
            collected: 0,
            stats,
            gaps: Gaps::default(),
        };
        // Packets that overtook the acknowledgement.
        let verdict = if config.fail_open { Verdict::ACCEPT } else { Verdict::DROP };
        for id in early {
            queue.verdict(id, verdict)?;
        }
        Ok(queue)
    }

    /// Collects `count` verdicts and sends them in one system call; also before waiting for more packets and at
    /// [`PacketQueue::flush`]. With 1, the beginning, each verdict has taken effect when `verdict` returns.
    pub fn collect_verdicts(&mut self, count: usize) {
        self.collect = count.max(1);
    }

    /// `NFQNL_MSG_VERDICT_BATCH`: accepts every packet that waits now.
    fn accept_all(&mut self) -> io::Result<()> {
        let last = self.stats()?.id_sequence;
        let (message, flags) = (libc::NFQNL_MSG_VERDICT_BATCH as u8, libc::NLM_F_REQUEST as u16);
        self.outbox.begin(Subsystem::Queue, message, flags, 0, self.number);
        self.outbox.attribute(libc::NFQA_VERDICT_HDR as u16, &verdict_header(Decision::Accept, last))?;
        self.flush()
    }

    /// `NFQNL_CFG_CMD_UNBIND`. Closing the socket does the same, but a child process may still hold it.
    fn unbind(&mut self) -> io::Result<()> {
        let command = [libc::NFQNL_CFG_CMD_UNBIND as u8, 0, 0, 0];
        let (message, flags) = (libc::NFQNL_MSG_CONFIG as u8, libc::NLM_F_REQUEST as u16);
        self.outbox.begin(Subsystem::Queue, message, flags, 0, self.number);
        self.outbox.attribute(libc::NFQA_CFG_CMD as u16, &command)?;
        self.flush()
    }

    fn next_datagram(&mut self) -> io::Result<bool> {
        if self.inbox.advance() {
            return Ok(true);
        }
        self.flush()?;
        self.inbox.fill(&self.socket, self.blocking)
    }
}

/// `NFQNL_MSG_CONFIG` with these attributes, acknowledged. Gives the ids of packets that came before the answer.
fn configure(socket: &mut Socket, number: u16, attributes: &[(libc::c_int, &[u8])]) -> io::Result<Vec<u32>> {
    let mut out = Outgoing::default();
    let sequence = socket.next_sequence();
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    out.begin(Subsystem::Queue, libc::NFQNL_MSG_CONFIG as u8, flags, sequence, number);
    for (kind, value) in attributes {
        out.attribute(*kind as u16, value)?;
    }
    let mut early = Vec::new();
    socket.request(out.bytes(), sequence, |message| {
        let mut packet = Queued::default();
        if message.kind == packet_kind() && parse_packet(&message, &mut packet).is_ok() {
            early.push(packet.id);
        }
    })?;
    Ok(early)
}

/// `NFQA_VERDICT_HDR`: verdict and packet id.
fn verdict_header(decision: Decision, id: u32) -> [u8; 8] {
    let code = match decision {
        Decision::Accept => libc::NF_ACCEPT as u32,
        Decision::Drop => libc::NF_DROP as u32,
    };
    let [v0, v1, v2, v3] = code.to_be_bytes();
    let [i0, i1, i2, i3] = id.to_be_bytes();
    [v0, v1, v2, v3, i0, i1, i2, i3]
}

impl PacketQueue for MnlQueue {
    fn recv_into(&mut self, packet: &mut Queued) -> io::Result<bool> {
        while self.next_datagram()? {
            for message in Messages::new(self.inbox.current()) {
                let message = message?;
                if let Some(answer) = message.error() {
                    answer.map_err(|cause| refused(self.number, &message, &cause))?;
                } else if message.kind == packet_kind() {
                    parse_packet(&message, packet)?;
                    self.gaps.saw(packet.id);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn verdict(&mut self, id: u32, verdict: Verdict<'_>) -> io::Result<()> {
        // What one call sends must fit into the send buffer.
        if self.outbox.bytes().len() + verdict.payload.map_or(0, <[u8]>::len) > SENT_AT_ONCE {
            self.flush()?;
        }
        let flags = libc::NLM_F_REQUEST as u16;
        self.outbox.begin(Subsystem::Queue, libc::NFQNL_MSG_VERDICT as u8, flags, 0, self.number);
        self.outbox.attribute(libc::NFQA_VERDICT_HDR as u16, &verdict_header(verdict.decision, id))?;
        if let Some(mark) = verdict.mark {
            self.outbox.attribute(libc::NFQA_MARK as u16, &mark.to_be_bytes())?;
        }
        if let (Some(payload), Decision::Accept) = (verdict.payload, verdict.decision) {
            self.outbox.attribute(libc::NFQA_PAYLOAD as u16, payload)?;
        }
        self.collected += 1;
        if self.collected >= self.collect { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let result = self.socket.send(self.outbox.bytes());
        self.outbox.clear();
        self.collected = 0;
        result
    }

    fn set_blocking(&mut self, blocking: bool) {
        self.blocking = blocking;
    }

    fn missed(&self) -> u64 {
        self.gaps.missed()
    }

    fn stats(&mut self) -> io::Result<QueueStats> {
        let found = self.stats.read(self.number)?;
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("queue {} is gone", self.number)))
    }
}

impl AsFd for MnlQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for MnlQueue {
    fn drop(&mut self) {
        // What still waits is dropped with the queue, unless it is let pass. Nobody is left to tell about a failure, and no
        // answer is asked for: in a full receive buffer there is no room for one.
        let _ = self.flush();
        if self.fail_open {
            let _ = self.accept_all();
        }
        let _ = self.unbind();
    }
}

const fn packet_kind() -> u16 {
    ((Subsystem::Queue as u16) << 8) | libc::NFQNL_MSG_PACKET as u16
}

/// `nfqnl_recv_verdict` answers only what it could not do.
fn refused(number: u16, message: &Message<'_>, cause: &io::Error) -> io::Error {
    // The answer quotes the request: an error number, then its headers, then the verdict header.
    let quoted = message.body.get(4..).map(Messages::new).and_then(|mut m| m.next()?.ok());
    let id = quoted.and_then(|q| q.attributes().next()?.ok()).and_then(|a| Some(be32(a.value.get(4..8)?)));
    match id.flatten() {
        Some(id) => io::Error::new(cause.kind(), format!("queue {number}: verdict for packet {id} refused: {cause}")),
        None => io::Error::new(cause.kind(), format!("queue {number}: verdict refused: {cause}")),
    }
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// `nfqnl_build_packet_message`, read back.
fn parse_packet(message: &Message<'_>, packet: &mut Queued) -> io::Result<()> {
    let mut payload = std::mem::take(&mut packet.payload);
    payload.clear();
    *packet = Queued { payload, ..Queued::default() };
    packet.offload.checksum_not_verified = Some(false);
    let mut has_header = false;
    for attribute in message.attributes() {
        let attribute = attribute?;
        match libc::c_int::from(attribute.kind) {
            libc::NFQA_PACKET_HDR => {
                parse_packet_header(&attribute, packet)?;
                has_header = true;
            }
            libc::NFQA_MARK => packet.mark = attribute.u32()?,
            libc::NFQA_IFINDEX_INDEV => packet.indev = Some(attribute.u32()?),
            libc::NFQA_IFINDEX_OUTDEV => packet.outdev = Some(attribute.u32()?),
            libc::NFQA_TIMESTAMP => packet.timestamp = Some(timestamp(&attribute)?),
            libc::NFQA_PAYLOAD => packet.payload.extend_from_slice(attribute.value),
            libc::NFQA_CAP_LEN => packet.original_len = attribute.u32()? as usize,
            libc::NFQA_SKB_INFO => packet.offload = offload(attribute.u32()?),
            _ => {}
        }
    }
    if packet.original_len == 0 {
        packet.original_len = packet.payload.len();
    }
    if has_header {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "a queued packet without NFQA_PACKET_HDR"))
    }
}

/// `struct nfqnl_msg_packet_hdr`: id, EtherType, hook.
fn parse_packet_header(attribute: &Attribute<'_>, packet: &mut Queued) -> io::Result<()> {
    let &[i0, i1, i2, i3, p0, p1, hook, ..] = attribute.value else {
        let text = format!("NFQA_PACKET_HDR of {} bytes where 7 are needed", attribute.value.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    };
    packet.id = u32::from_be_bytes([i0, i1, i2, i3]);
    packet.hw_protocol = u16::from_be_bytes([p0, p1]);
    packet.hook = Hook::from(hook);
    Ok(())
}

/// `struct nfqnl_msg_packet_timestamp`: seconds and microseconds, 64 bits each. NFLOG has the same.
pub(crate) fn timestamp(attribute: &Attribute<'_>) -> io::Result<Duration> {
    let seconds = attribute.u64()?;
    let behind = Attribute { kind: attribute.kind, value: attribute.value.get(8..).unwrap_or_default() };
    Ok(Duration::from_secs(seconds).saturating_add(Duration::from_micros(behind.u64()?)))
}

fn offload(info: u32) -> Offload {
    let has = |bit: libc::c_int| info & bit as u32 != 0;
    Offload {
        checksum_not_ready: has(libc::NFQA_SKB_CSUMNOTREADY),
        checksum_not_verified: Some(has(libc::NFQA_SKB_CSUM_NOTVERIFIED)),
        gso: has(libc::NFQA_SKB_GSO),
    }
}

/// Received datagrams that have not been looked at, each in a slot of one allocation.
struct Inbox {
    bytes: Vec<u8>,
    slot: usize,
    lengths: [usize; BATCH],
    filled: usize,
    at: usize,
}

impl Inbox {
    fn new(slot: usize) -> Inbox {
        let slot = slot.next_multiple_of(8);
        Inbox { bytes: vec![0; slot * BATCH], slot, lengths: [0; BATCH], filled: 0, at: 0 }
    }

    /// The datagram that was reached last.
    fn current(&self) -> &[u8] {
        let start = self.at * self.slot;
        let length = self.lengths.get(self.at).copied().unwrap_or(0);
        self.bytes.get(start..start + length).unwrap_or_default()
    }

    /// Goes to the next datagram; `false` when all have been seen.
    fn advance(&mut self) -> bool {
        self.at += 1;
        self.at < self.filled
    }

    /// Takes whatever the socket holds, up to a batch; waits for the first when `blocking`.
    fn fill(&mut self, socket: &Socket, blocking: bool) -> io::Result<bool> {
        let mut vectors: [libc::iovec; BATCH] = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        for (vector, slot) in vectors.iter_mut().zip(self.bytes.chunks_exact_mut(self.slot)) {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        }
        // SAFETY: all-zero is a valid `mmsghdr`: null pointers with zero lengths.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (header, vector) in headers.iter_mut().zip(&mut vectors) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        let wait = if blocking { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        self.at = 0;
        self.filled = {
            // SAFETY: every header points at one vector, every vector at a slot of its own, all alive here.
            let got = unsafe {
                let no_timeout = std::ptr::null_mut();
                libc::recvmmsg(socket.as_fd().as_raw_fd(), headers.as_mut_ptr(), BATCH as u32, wait, no_timeout)
            };
            match usize::try_from(got) {
                Ok(count) => count,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.kind() {
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => 0,
                        _ => {
                            self.filled = 0;
                            return Err(error);
                        }
                    }
                }
            }
        };
        for (length, header) in self.lengths.iter_mut().zip(&headers) {
            *length = header.msg_len as usize;
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                self.filled = 0;
                let text = format!("a queued packet with its metadata is larger than {} bytes", self.slot);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(self.filled > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::damage;

    fn queued(attributes: &[(libc::c_int, &[u8])]) -> io::Result<Queued> {
        let mut out = Outgoing::default();
        out.begin(Subsystem::Queue, libc::NFQNL_MSG_PACKET as u8, 0, 0, 3);
        for (kind, value) in attributes {
            out.attribute(*kind as u16, value)?;
        }
        let message = Messages::new(out.bytes()).next().unwrap().unwrap();
        let mut packet = Queued { payload: vec![9; 9], mark: 9, ..Queued::default() };
        parse_packet(&message, &mut packet)?;
        Ok(packet)
    }

    #[test]
    fn a_packet_message_is_read() {
        let mut time = [0; 16];
        time[7] = 5;
        time[15] = 9;
        let packet = queued(&[
            (libc::NFQA_PACKET_HDR, &[0, 0, 0, 7, 8, 0, 3]),
            (libc::NFQA_MARK, &[0, 0, 1, 0]),
            (libc::NFQA_IFINDEX_OUTDEV, &[0, 0, 0, 2]),
            (libc::NFQA_SKB_INFO, &[0, 0, 0, 5]),
            (libc::NFQA_TIMESTAMP, &time),
            (libc::NFQA_CAP_LEN, &[0, 0, 5, 0xdc]),
            (libc::NFQA_PAYLOAD, &[0x45, 1, 2]),
        ])
        .unwrap();
        let expected = Queued {
            id: 7,
            hook: Hook::Output,
            mark: 256,
            indev: None,
            outdev: Some(2),
            hw_protocol: 0x800,
            payload: vec![0x45, 1, 2],
            original_len: 1500,
            timestamp: Some(Duration::new(5, 9000)),
            offload: Offload { checksum_not_ready: true, checksum_not_verified: Some(true), gso: false },
        };
        assert_eq!(packet, expected);
    }

    #[test]
    fn a_message_cut_short_is_an_error() {
        let attributes = [
            (libc::NFQA_PACKET_HDR as u16, vec![0, 0, 0, 7, 8, 0, 3]),
            (libc::NFQA_TIMESTAMP as u16, vec![1; 16]),
            (libc::NFQA_PAYLOAD as u16, vec![0x45, 1, 2]),
        ];
        let bytes = damage::message(Subsystem::Queue, libc::NFQNL_MSG_PACKET as u8, &attributes);
        damage::every_way(&bytes, |message| drop(parse_packet(message, &mut Queued::default())));
        damage::every_way(&bytes, |message| drop(refused(3, message, &io::Error::other("x"))));
        assert!(queued(&[]).is_err());
        assert!(queued(&[(libc::NFQA_PACKET_HDR, &[0, 0, 0, 7])]).is_err());
        assert!(queued(&[(libc::NFQA_PACKET_HDR, &[0; 8]), (libc::NFQA_MARK, &[0])]).is_err());
        assert!(queued(&[(libc::NFQA_PACKET_HDR, &[0; 8]), (libc::NFQA_TIMESTAMP, &[0; 8])]).is_err());
    }
}
