//! A hint: which packets come next.
//!
//! In a table of a million flows a look-up waits for memory several times. The waits of many packets overlap when their
//! entries are read before any of the packets is decided about.

use core::hint::black_box;

use crate::hook::Engine;
use crate::packet::{addresses, locate_transport};
use crate::table::BATCH;
use crate::tuple::{L3, extract};
use crate::zone::Zone;

impl Engine {
    /// Reads the entries of packets that come next, each from its IP header on. It decides nothing and changes nothing;
    /// 32 packets at a time are worth it, with tables that no cache holds.
    pub fn prefetch<'a>(&self, packets: impl IntoIterator<Item = &'a [u8]>) {
        let mut packets = packets.into_iter().peekable();
        while packets.peek().is_some() {
            let mut hashes = [0; BATCH];
            for (hash, packet) in hashes.iter_mut().zip(&mut packets) {
                *hash = self.hash_of(packet).unwrap_or(0);
            }
            black_box(self.conntrack.table.touch(&hashes));
        }
    }

    /// Where the table would look for a packet of zone 0.
    fn hash_of(&self, packet: &[u8]) -> Option<u64> {
        let l3num = if packet.first()? >> 4 == 4 { L3::V4 } else { L3::V6 };
        let transport = locate_transport(packet, packet.len(), l3num).ok()?;
        let (src, dst) = addresses(packet, l3num)?;
        let tuple = extract(l3num, src, dst, transport.protonum, packet.get(transport.offset..)?).ok()?;
        Some(self.conntrack.table.hash(&tuple, Zone::default()))
    }
}
