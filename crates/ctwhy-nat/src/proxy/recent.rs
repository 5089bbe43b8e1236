//! The datagrams that a flow sent last: which of them does an error quote?
//!
//! A socket says which flow an error belongs to. Which datagram of it died, the socket does not say, and the header that a
//! router quotes is the host's own. What both have in common is the data, so that is what is compared; and since the host's
//! checksum is known as well, it tells datagrams apart that differ only behind the end of the quote.

use std::collections::VecDeque;

use ctwhy_core::checksum::Sum;
use ctwhy_core::tuple::{L3, Tuple, proto};

use super::guest;

/// Datagrams remembered of each flow.
const REMEMBERED: usize = 16;
/// Bytes of each: more than this no error quotes.
const QUOTE: usize = 1280;

/// A datagram that the guest sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    /// From its IP header on, at most [`QUOTE`] bytes.
    bytes: Vec<u8>,
    /// Where the transport header is.
    pub(super) transport: usize,
    /// Bytes from there on, those that are not remembered included.
    l4_len: usize,
    /// What guest and host do not share at the start of the transport header.
    own: usize,
    /// The checksum of the host's datagram.
    checksum: u16,
    /// An error about it was seen.
    answered: bool,
}

impl Remembered {
    /// As the guest sent it, as far as it is remembered.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the host's datagram has, too.
    fn shared(&self) -> &[u8] {
        self.bytes.get(self.transport + self.own..).unwrap_or_default()
    }
}

/// Bytes at the start of the transport header that the host replaced: the ports and the length and checksum behind them, or
/// the ICMP header up to the id.
pub(super) const fn own_part(protonum: u8) -> usize {
    match protonum {
        proto::UDP => 8,
        _ => 6,
    }
}

/// What an error shows of the datagram that it quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence<'a> {
    /// Bytes from the transport header to the end of the datagram.
    pub(super) l4_len: Option<usize>,
    pub(super) checksum: Option<u16>,
    /// What is quoted behind [`own_part`].
    pub(super) shared: &'a [u8],
}

/// The last datagrams of one flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(VecDeque<Remembered>);

impl Recent {
    /// Remembers a datagram that goes out as `host`.
    pub(super) fn add(&mut self, sent: &guest::Sent<'_>, host: &Tuple) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        let own = own_part(host.protonum);
        let l4 = sent.l4();
        let bytes = sent.packet.bytes;
        self.0.push_back(Remembered {
            bytes: bytes.get(..QUOTE).unwrap_or(bytes).to_vec(),
            transport: sent.transport,
            l4_len: l4.len(),
            own,
            checksum: host_checksum(host, l4),
            answered: false,
        });
    }

    /// The datagram that is quoted. Several may fit: then it is one whose checksum is right, too, and of those the oldest
    /// about which nobody has complained yet.
    pub(super) fn find(&mut self, evidence: Evidence<'_>) -> Option<&Remembered> {
        let fits = |sent: &Remembered| {
            let length = sent.shared().len().min(evidence.shared.len());
            evidence.l4_len.is_none_or(|len| len == sent.l4_len)
                && sent.shared().get(..length) == evidence.shared.get(..length)
        };
        let rank = |sent: &Remembered| {
            // A quote may carry a checksum that some device was still to make.
            let checksum = evidence.checksum.is_none_or(|checksum| checksum == sent.checksum);
            (!checksum, sent.answered)
        };
        // `min_by_key` takes the first of equals, and the oldest is first.
        let found = self.0.iter_mut().filter(|sent| fits(sent)).min_by_key(|sent| rank(sent))?;
        found.answered = true;
        Some(found)
    }
}

/// The checksum of what the host makes of a datagram whose transport part is `l4`.
fn host_checksum(host: &Tuple, l4: &[u8]) -> u16 {
    let own = own_part(host.protonum);
    let shared = Sum::default().bytes(l4.get(own..).unwrap_or_default());
    let word = |value: u16| value.to_be_bytes();
    let sum = match host.protonum {
        proto::UDP => {
            let head = [word(host.src_u), word(host.dst_u), word(l4.len() as u16), word(0)];
            shared.bytes(head.as_flattened())
        }
        _ => shared.bytes([word(host.dst_u), word(0), word(host.src_u)].as_flattened()),
    };
    let sum = match (host.l3num, host.protonum) {
        (L3::V4, proto::ICMP) => sum,
        _ => sum.pseudo_header(host.l3num, host.src, host.dst, host.protonum, l4.len()),
    };
    match (sum.checksum(), host.protonum) {
        (0, proto::UDP) => 0xffff,
        (checksum, _) => checksum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::write::Writer;
    use ctwhy_core::packet::Packet;
    use std::net::IpAddr;

    fn host() -> Tuple {
        let (src, dst) = (IpAddr::from([203, 0, 113, 2]), IpAddr::from([192, 0, 2, 80]));
        Tuple { src: src.into(), dst: dst.into(), src_u: 50000, dst_u: 53, l3num: L3::V4, protonum: proto::UDP }
    }

    /// A datagram as the guest sends it, and as the host does.
    fn datagram(tuple: &Tuple, data: &[u8]) -> Vec<u8> {
        Writer::new(1500, 0).udp(&tuple.invert().unwrap(), data).remove(0)
    }

    fn remember(recent: &mut Recent, data: &[u8]) {
        let guest = Tuple { src: IpAddr::from([10, 0, 0, 2]).into(), src_u: 40000, ..host() };
        let bytes = datagram(&guest, data);
        recent.add(&guest::read(Packet::parse(&bytes, bytes.len()).unwrap(), false).unwrap(), &host());
    }

    #[test]
    fn an_error_is_about_the_datagram_whose_data_it_quotes() {
        let mut recent = Recent::default();
        for data in [b"one".as_slice(), b"two", b"three"] {
            remember(&mut recent, data);
        }
        let found = recent.find(Evidence { shared: b"two", ..Evidence::default() }).unwrap();
        assert!(found.bytes().ends_with(b"two"));
        assert_eq!(recent.find(Evidence { shared: b"four", ..Evidence::default() }), None);
        assert_eq!(recent.find(Evidence { l4_len: Some(4), ..Evidence::default() }), None);
    }

    #[test]
    fn the_checksum_tells_what_a_short_quote_does_not() {
        let mut recent = Recent::default();
        for data in [b"12345678a", b"12345678b", b"12345678c"] {
            remember(&mut recent, data);
        }
        let sent = datagram(&host(), b"12345678b");
        let evidence = Evidence {
            l4_len: Some(17),
            checksum: Some(u16::from_be_bytes([sent[26], sent[27]])),
            shared: b"12345678",
        };
        assert!(recent.find(evidence).unwrap().bytes().ends_with(b"b"));
        assert!(recent.find(evidence).unwrap().bytes().ends_with(b"b"), "twice, if need be");
    }

    #[test]
    fn equal_ones_are_answered_in_their_order_and_old_ones_forgotten() {
        let mut recent = Recent::default();
        for _ in 0..REMEMBERED + 3 {
            remember(&mut recent, b"same");
        }
        assert_eq!(recent.0.len(), REMEMBERED);
        recent.0[0].bytes[4..6].copy_from_slice(&[9, 9]);
        recent.0[1].bytes[4..6].copy_from_slice(&[8, 8]);
        let evidence = Evidence { shared: b"same", ..Evidence::default() };
        assert_eq!(recent.find(evidence).unwrap().bytes()[4..6], [9, 9]);
        assert_eq!(recent.find(evidence).unwrap().bytes()[4..6], [8, 8]);
    }
}
