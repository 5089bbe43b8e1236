//! An error as it came out beside the one that Linux would have sent on.

use std::fmt::{self, Display, Formatter};

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{Packet, Quoted, be16, be32};
use ctwhy_core::related::announced_mtu;
use ctwhy_core::track::icmp;
use ctwhy_core::tuple::{L3, Tuple, extract, proto};

use crate::observe::Facts;

/// Something that is another than it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What.
    pub field: Field,
    /// As Linux would have sent it.
    pub expected: String,
    /// As it came out.
    pub found: String,
    /// Does it mislead whoever gets the error?
    pub grave: bool,
}

/// A part of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // `name` says them.
pub enum Field {
    Source,
    Destination,
    Code,
    Checksum,
    Mtu,
    Rest,
    Extension,
    QuotedSource,
    QuotedDestination,
    QuotedId,
    QuotedLength,
    QuotedTtl,
    QuotedTos,
    QuotedHeaderChecksum,
    QuotedChecksum,
    QuotedSequence,
    QuotedBytes,
    QuoteLength,
    Unreadable,
}

impl Field {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Field::Source => "source (who says it)",
            Field::Destination => "destination",
            Field::Code => "code",
            Field::Checksum => "ICMP checksum",
            Field::Mtu => "MTU",
            Field::Rest => "rest of the ICMP header",
            Field::Extension => "RFC 4884 extension",
            Field::QuotedSource => "quoted source",
            Field::QuotedDestination => "quoted destination",
            Field::QuotedId => "quoted IPID",
            Field::QuotedLength => "quoted length",
            Field::QuotedTtl => "quoted TTL",
            Field::QuotedTos => "quoted TOS",
            Field::QuotedHeaderChecksum => "quoted IP header checksum",
            Field::QuotedChecksum => "quoted transport checksum",
            Field::QuotedSequence => "quoted sequence number",
            Field::QuotedBytes => "quoted bytes",
            Field::QuoteLength => "length of the quote",
            Field::Unreadable => "message",
        }
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} instead of {}", self.field.name(), self.found, self.expected)
    }
}

/// The ICMP message of an error, from its type on.
pub(super) fn message(bytes: &[u8]) -> Option<&[u8]> {
    let packet = Packet::parse(bytes, bytes.len()).ok()?;
    packet.bytes.get(packet.transport.ok()?.offset..)
}

/// What is read of a quoted packet.
pub(super) struct Quote<'a> {
    tuple: Tuple,
    pub(super) id: u16,
    total: u16,
    ttl: u8,
    tos: u8,
    /// Is the checksum of its IP header right?
    sound: bool,
    /// Of its transport header, as far as that is there.
    pub(super) checksum: Option<u16>,
    pub(super) seq: Option<u32>,
    pub(super) echo_seq: Option<u16>,
    /// From its transport header on, without what RFC 4884 puts behind it.
    l4: &'a [u8],
    /// Length of the whole quote.
    len: usize,
}

/// The packet that an error quotes.
pub(super) fn quote(error: &[u8]) -> Option<Quote<'_>> {
    let packet = Packet::parse(error, error.len()).ok()?;
    let offset = packet.transport.ok()?.offset;
    let quoted = Quoted::parse(&packet, offset + icmp::HEADER).ok()?;
    let protonum = quoted.transport.protonum;
    let end = quoted.bytes.len() - extension(packet.bytes.get(offset..)?, packet.l3num).map_or(0, <[u8]>::len);
    let header = quoted.bytes.get(..quoted.transport.offset)?;
    let l4 = quoted.bytes.get(quoted.transport.offset..end).unwrap_or_default();
    let tuple = extract(packet.l3num, quoted.src, quoted.dst, protonum, l4).ok()?;
    let word = be32(header, 0)?;
    let (id, total, ttl, tos, sound) = match packet.l3num {
        L3::V4 => {
            let sound = Sum::default().bytes(header).fold() == 0xffff;
            (be16(header, 4)?, word as u16, *header.get(8)?, (word >> 16) as u8, sound)
        }
        L3::V6 => (0, be16(header, 4)?, *header.get(7)?, (word >> 20) as u8, true),
    };
    let (checksum, seq, echo_seq) = match protonum {
        proto::TCP => (be16(l4, 16), be32(l4, 4), None),
        proto::UDP => (be16(l4, 6), None, None),
        _ => (be16(l4, 2), None, be16(l4, 6)),
    };
    Some(Quote { tuple, id, total, ttl, tos, sound, checksum, seq, echo_seq, l4, len: end })
}

/// What RFC 4884 puts behind the quote.
fn extension(message: &[u8], l3num: L3) -> Option<&[u8]> {
    let (length, unit) = match (l3num, *message.first()?) {
        (L3::V4, 3 | 11 | 12) => (message.get(5)?, 4),
        (L3::V6, 1 | 3) => (message.get(4)?, 8),
        _ => return None,
    };
    let start = icmp::HEADER + usize::from(*length) * unit;
    message.get(start..).filter(|behind| *length > 0 && !behind.is_empty())
}

/// Compares an error that came out with what Linux would have sent on. Where the packet is known that the host sent, a quote
/// that is like that is as right as one that is like Linux'. What every router may change, such as the outer TTL, is no
/// difference.
pub(super) fn compare(expected: &[u8], found: &[u8], sent: Option<&Facts>) -> Vec<Difference> {
    let mut differences = Differences(Vec::new());
    let parsed = |bytes| Packet::parse(bytes, <[u8]>::len(bytes)).ok();
    let (Some(ours), Some(theirs)) = (parsed(expected), parsed(found)) else { return unreadable() };
    let (Some(our_message), Some(their_message)) = (message(expected), message(found)) else { return unreadable() };
    let l3num = ours.l3num;
    differences.add(Field::Source, ours.src.ip(l3num), theirs.src.ip(l3num), true);
    differences.add(Field::Destination, ours.dst.ip(l3num), theirs.dst.ip(l3num), true);
    differences.add(Field::Code, our_message.get(1), their_message.get(1), true);
    let sum = match l3num {
        L3::V4 => Sum::default(),
        L3::V6 => Sum::default().pseudo_header(l3num, theirs.src, theirs.dst, proto::ICMPV6, their_message.len()),
    };
    differences.add(
        Field::Checksum,
        Word("right"),
        Word(if sum.bytes(their_message).fold() == 0xffff { "right" } else { "wrong" }),
        true,
    );
    match (announced_mtu(&ours), announced_mtu(&theirs)) {
        (Some(ours), Some(theirs)) => differences.add(Field::Mtu, ours, theirs, true),
        _ => rest(our_message, their_message, l3num, &mut differences),
    }
    let (Some(our_quote), Some(their_quote)) = (quote(expected), quote(found)) else { return unreadable() };
    quotes(&our_quote, &their_quote, sent, l3num, &mut differences);
    differences.0
}

fn unreadable() -> Vec<Difference> {
    let (expected, found) = ("an error that quotes a packet".to_owned(), "nothing that can be read".to_owned());
    vec![Difference { field: Field::Unreadable, expected, found, grave: true }]
}

/// What is behind the checksum where that is no MTU, and what RFC 4884 makes of it.
fn rest(ours: &[u8], theirs: &[u8], l3num: L3, differences: &mut Differences) {
    match (extension(ours, l3num), extension(theirs, l3num)) {
        (None, None) => {}
        (ours, theirs) if ours == theirs => return,
        (ours, theirs) => {
            let words = |extension: Option<&[u8]>| match extension {
                Some(bytes) => format!("{} bytes", bytes.len()),
                None => "none".to_owned(),
            };
            let (expected, found) = match (ours, theirs) {
                (Some(a), Some(b)) if a.len() == b.len() => {
                    ("as the router sent it".to_owned(), "other bytes".to_owned())
                }
                _ => (words(ours), words(theirs)),
            };
            differences.0.push(Difference { field: Field::Extension, expected, found, grave: true });
            return;
        }
    }
    let word = |message: &[u8]| be32(message, 4).map(Hex);
    differences.add(Field::Rest, word(ours), word(theirs), false);
}

fn quotes(ours: &Quote<'_>, theirs: &Quote<'_>, sent: Option<&Facts>, l3num: L3, differences: &mut Differences) {
    let end = |address: ctwhy_core::tuple::Addr, port: u16, tuple: &Tuple| match tuple.is_icmp() {
        true => format!("{} id {port}", address.ip(l3num)),
        false if l3num == L3::V6 => format!("[{}]:{port}", address.ip(l3num)),
        false => format!("{}:{port}", address.ip(l3num)),
    };
    let (a, b) = (&ours.tuple, &theirs.tuple);
    differences.add(Field::QuotedSource, end(a.src, a.src_u, a), end(b.src, b.src_u, b), true);
    let destination = |tuple: &Tuple| match tuple.is_icmp() {
        true => tuple.dst.ip(l3num).to_string(),
        false => end(tuple.dst, tuple.dst_u, tuple),
    };
    differences.add(Field::QuotedDestination, destination(a), destination(b), true);
    let mut either = |field, ours: Option<u32>, theirs: Option<u32>, sent: Option<u32>| {
        if sent.is_none() || sent != theirs {
            // What the host sent itself is what it will look for.
            let expected = sent.or(ours);
            if expected != theirs && theirs.is_some() {
                differences.add(field, expected.map(Hex), theirs.map(Hex), true);
            }
        }
    };
    let tcp = |facts: &Facts| facts.seq();
    either(Field::QuotedId, Some(ours.id.into()), Some(theirs.id.into()), sent.map(|facts| facts.id.into()));
    either(
        Field::QuotedLength,
        Some(ours.total.into()),
        Some(theirs.total.into()),
        sent.map(|facts| facts.total.into()),
    );
    let checksum = sent.and_then(|facts| facts.checksum).map(Into::into);
    either(Field::QuotedChecksum, ours.checksum.map(Into::into), theirs.checksum.map(Into::into), checksum);
    either(Field::QuotedSequence, ours.seq, theirs.seq, sent.and_then(tcp));
    differences.add(Field::QuotedTtl, ours.ttl, theirs.ttl, false);
    differences.add(Field::QuotedTos, Hex(ours.tos.into()), Hex(theirs.tos.into()), false);
    let sound = |quote: &Quote<'_>| Word(if quote.sound { "right" } else { "wrong" });
    differences.add(Field::QuotedHeaderChecksum, sound(ours), sound(theirs), ours.sound);
    /// Behind what was compared already: ports, and the length of UDP or the sequence number of TCP.
    const COMPARED: usize = 8;
    let behind = |quote: &Quote<'_>| -> Vec<u8> {
        let mut bytes = quote.l4.to_vec();
        // The checksum and the acknowledgement belong to whoever sent the segment.
        for at in if quote.seq.is_some() { 8..20 } else { 0..COMPARED } {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = 0;
            }
        }
        bytes.split_off(COMPARED.min(bytes.len()))
    };
    let (a, b) = (behind(ours), behind(theirs));
    let common = a.len().min(b.len());
    // The options of another TCP are its own, too.
    if a.get(..common) != b.get(..common) && (ours.seq == theirs.seq || ours.seq.is_none()) {
        let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count() + COMPARED;
        let found = format!("other bytes from byte {same} of the transport part on");
        let expected = "those of the packet".to_owned();
        differences.0.push(Difference { field: Field::QuotedBytes, expected, found, grave: true });
    }
    if theirs.len < ours.len {
        differences.add(Field::QuoteLength, Bytes(ours.len), Bytes(theirs.len), false);
    }
}

struct Differences(Vec<Difference>);

impl Differences {
    fn add<T: PartialEq + Shown>(&mut self, field: Field, expected: T, found: T, grave: bool) {
        if expected != found {
            self.0.push(Difference { field, expected: expected.shown(), found: found.shown(), grave });
        }
    }
}

/// A value in a difference.
trait Shown {
    fn shown(&self) -> String;
}

macro_rules! shown {
    ($($kind:ty),*) => {$(
        impl Shown for $kind {
            fn shown(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

shown!(std::net::IpAddr, u8, u32, String);

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), Shown::shown)
    }
}

impl Shown for &u8 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

#[derive(PartialEq)]
struct Hex(u32);

impl Shown for Hex {
    fn shown(&self) -> String {
        format!("{:#x}", self.0)
    }
}

#[derive(PartialEq)]
struct Bytes(usize);

impl Shown for Bytes {
    fn shown(&self) -> String {
        format!("{} bytes", self.0)
    }
}

#[derive(PartialEq)]
struct Word(&'static str);

impl Shown for Word {
    fn shown(&self) -> String {
        self.0.to_owned()
    }
}
