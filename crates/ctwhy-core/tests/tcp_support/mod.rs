//! A TCP entry with two ends, driven the way the core drives the tracker, and a builder for segments.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that cannot go on fails.

use std::fmt;
use std::net::IpAddr;

use ctwhy_core::checksum::Sum;
use ctwhy_core::direction::{CtInfo, Direction};
use ctwhy_core::profile::Profile;
use ctwhy_core::render;
use ctwhy_core::status::Status;
use ctwhy_core::sysctl::Sysctls;
use ctwhy_core::trace::{Step, Trace};
use ctwhy_core::track::tcp::{TcpReason, TcpState, TcpStep, segment::flag};
use ctwhy_core::track::{Context, L4, Outcome, tcp};
use ctwhy_core::tuple::{Addr, L3, proto};

/// Initial sequence number of the client; its first byte of data is one more.
pub const CLIENT: u32 = 100_000;
/// The same of the server.
pub const SERVER: u32 = 500_000;

/// A segment to be sent.
#[derive(Clone, Debug)]
pub struct Seg {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub len: usize,
    pub options: Vec<u8>,
}

/// A segment with any flags, window 1000 and no payload.
pub fn seg(flags: u8, seq: u32, ack: u32) -> Seg {
    Seg { seq, ack, flags, window: 1000, len: 0, options: Vec::new() }
}
pub fn syn(seq: u32) -> Seg {
    seg(flag::SYN, seq, 0)
}
pub fn synack(seq: u32, ack: u32) -> Seg {
    seg(flag::SYN | flag::ACK, seq, ack)
}
pub fn ack(seq: u32, ack: u32) -> Seg {
    seg(flag::ACK, seq, ack)
}
pub fn fin(seq: u32, ack: u32) -> Seg {
    seg(flag::FIN | flag::ACK, seq, ack)
}
pub fn rst(seq: u32) -> Seg {
    seg(flag::RST, seq, 0)
}
pub fn rstack(seq: u32, ack: u32) -> Seg {
    seg(flag::RST | flag::ACK, seq, ack)
}

impl Seg {
    pub fn win(mut self, window: u16) -> Seg {
        self.window = window;
        self
    }
    pub fn len(mut self, len: usize) -> Seg {
        self.len = len;
        self
    }
    pub fn opt(mut self, options: &[u8]) -> Seg {
        self.options.extend_from_slice(options);
        self
    }
    pub fn sack(self, left: u32, right: u32) -> Seg {
        self.opt(&[1, 1, 5, 10]).opt(&left.to_be_bytes()).opt(&right.to_be_bytes())
    }

    /// The bytes, with a correct checksum for [`ends`].
    pub fn bytes(&self, from_client: bool) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut bytes = vec![0; 4];
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.push((5 + options.len() as u8 / 4) << 4);
        bytes.push(self.flags);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(options);
        bytes.resize(bytes.len() + self.len, b'A');
        fix_checksum(&mut bytes, from_client);
        bytes
    }
}

/// Source and destination address of a packet of the client or of the server.
pub fn ends(from_client: bool) -> (Addr, Addr) {
    let client = Addr::from(IpAddr::from([10, 0, 0, 2]));
    let server = Addr::from(IpAddr::from([192, 0, 2, 9]));
    if from_client { (client, server) } else { (server, client) }
}

pub fn fix_checksum(bytes: &mut [u8], from_client: bool) {
    let (src, dst) = ends(from_client);
    bytes[16..18].fill(0);
    let sum = Sum::default().pseudo_header(L3::V4, src, dst, proto::TCP, bytes.len()).bytes(bytes);
    bytes[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
}

pub fn l4(bytes: &[u8], from_client: bool) -> L4<'_> {
    let (src, dst) = ends(from_client);
    L4 { bytes, len: bytes.len(), l3num: L3::V4, src, dst }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Counted; the timeout is this many seconds.
    Accepted(u32),
    /// Passed, neither counted nor refreshing.
    Ignored,
    /// Passed, and the entry is gone.
    Killed,
    /// INVALID with this code.
    Invalid(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub tcp: tcp::Tcp,
    pub status: Status,
    pub original_is_client: bool,
    pub timeout: u32,
}

/// One pair of ends and the entry between them.
#[derive(Default)]
pub struct Flow {
    pub sysctls: Sysctls,
    /// The release that is imitated.
    pub kernel: &'static Profile,
    pub entry: Option<Entry>,
    /// What the core would attach to the last packet.
    pub ctinfo: Option<CtInfo>,
    /// The steps of the last packet.
    pub steps: Vec<TcpStep>,
    /// The timeout was lowered by the last, invalid packet.
    pub lowered: Option<u32>,
}

impl Flow {
    /// After SYN, SYN/ACK and ACK: ESTABLISHED and ASSURED. The client announced 1000 bytes, the server 2000.
    pub fn established() -> Flow {
        let mut flow = Flow::default();
        flow.handshake();
        flow
    }

    pub fn handshake(&mut self) {
        assert_eq!(self.client(syn(CLIENT)), Said::Accepted(120));
        assert_eq!(self.server(synack(SERVER, CLIENT + 1).win(2000)), Said::Accepted(60));
        assert_eq!(self.client(ack(CLIENT + 1, SERVER + 1)), Said::Accepted(432_000));
        assert_eq!((self.state(), self.assured()), (TcpState::Established, true));
    }

    pub fn client(&mut self, seg: Seg) -> Said {
        self.receive(true, &seg.bytes(true))
    }

    pub fn server(&mut self, seg: Seg) -> Said {
        self.receive(false, &seg.bytes(false))
    }

    pub fn state(&self) -> TcpState {
        self.entry.expect("an entry").tcp.state()
    }
    pub fn assured(&self) -> bool {
        self.entry.expect("an entry").status.contains(Status::ASSURED)
    }
    pub fn seen_reply(&self) -> bool {
        self.entry.expect("an entry").status.contains(Status::SEEN_REPLY)
    }
    pub fn timeout(&self) -> u32 {
        self.entry.expect("an entry").timeout
    }
    pub fn flags(&self, direction: Direction) -> u8 {
        self.entry.expect("an entry").tcp.flags(direction)
    }
    pub fn scale(&self, direction: Direction) -> u8 {
        self.entry.expect("an entry").tcp.scale(direction)
    }
    pub fn told(&self, step: impl Fn(&TcpStep) -> bool) -> bool {
        self.steps.iter().any(step)
    }

    /// `nf_conntrack_in` as far as TCP is concerned.
    pub fn receive(&mut self, from_client: bool, bytes: &[u8]) -> Said {
        let sysctls = self.sysctls.clone();
        let cx = Context { sysctls: &sysctls, kernel: self.kernel, verify_checksum: true };
        let mut trace = Trace::default();
        self.ctinfo = None;
        self.lowered = None;
        let said = self.track(from_client, bytes, &cx, &mut trace);
        self.steps = trace
            .steps
            .into_iter()
            .map(|step| match step {
                Step::Tcp(step) => step,
                other => panic!("not a step of the TCP tracker: {other:?}"),
            })
            .collect();
        said
    }

    fn track(&mut self, from_client: bool, bytes: &[u8], cx: &Context<'_>, trace: &mut Trace) -> Said {
        let seg = match tcp::check(&l4(bytes, from_client), cx) {
            Ok(seg) => seg,
            Err(reason) => return Said::Invalid(reason.code()),
        };
        let known = self.entry.take();
        let mut entry = match known {
            Some(entry) => entry,
            None => match tcp::Tcp::new(&seg, cx, trace) {
                Ok(tcp) => Entry { tcp, status: Status::default(), original_is_client: from_client, timeout: 0 },
                Err(reason) => return Said::Invalid(reason.code()),
            },
        };
        let direction = if entry.original_is_client == from_client { Direction::Original } else { Direction::Reply };
        self.ctinfo = Some(match direction {
            Direction::Reply => CtInfo::EstablishedReply,
            Direction::Original if entry.status.contains(Status::SEEN_REPLY) => CtInfo::Established,
            Direction::Original => CtInfo::New,
        });
        let outcome = entry.tcp.packet(&seg, direction, entry.status, entry.timeout, cx, trace);
        let seen = if direction == Direction::Reply { Status::SEEN_REPLY } else { Status::default() };
        match outcome {
            Outcome::Accept { timeout, assured, .. } => {
                entry.timeout = timeout;
                entry.status |= seen | if assured { Status::ASSURED } else { Status::default() };
                self.entry = Some(entry);
                Said::Accepted(timeout)
            }
            Outcome::Ignore => {
                entry.status |= seen;
                self.entry = Some(entry);
                Said::Ignored
            }
            Outcome::Kill => Said::Killed,
            Outcome::Reopen => self.track(from_client, bytes, cx, trace),
            Outcome::Invalid { reason, lower_timeout } => {
                self.ctinfo = None;
                self.lowered = lower_timeout;
                entry.timeout = lower_timeout.unwrap_or(entry.timeout);
                self.entry = known.map(|_| entry);
                Said::Invalid(reason.code())
            }
        }
    }
}

/// A step in words.
pub fn step_words(step: &TcpStep) -> String {
    struct Words<'a>(&'a TcpStep);
    impl fmt::Display for Words<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            render::tcp::step(self.0, f)
        }
    }
    Words(step).to_string()
}

/// A refusal in words.
pub fn reason_words(reason: &TcpReason) -> String {
    struct Words<'a>(&'a TcpReason);
    impl fmt::Display for Words<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            render::tcp::reason(self.0, f)
        }
    }
    Words(reason).to_string()
}
