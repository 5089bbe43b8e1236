//! Packets of a flow that leave behind each other, as one packet that stands for them, as a network card puts together what
//! it receives (`dev_gro_receive`).
//!
//! A packet that leaves by a TUN device costs a system call, which takes it as far as it goes in this machine: several in one
//! cost little more. Whoever cannot pass that on cuts it, and then every packet has to be what it was. Who drops it uncut
//! sends one error for all, so there should be no reason to. So those are left alone
//!
//! - that differ in more than what cutting counts up, IPID and sequence number, or whose checksum nobody has verified;
//! - of a flow that nobody has answered, and with a TTL as probes of a path have it;
//! - datagrams that some link might be too short for.
//!
//! No packet waits for another one: what was there at once is put together, and packets of a flow stay in their order.

use ctwhy_core::checksum::Sum;
use ctwhy_core::packet::{IPV4_HEADER, IPV6_HEADER, be16, be32};
use ctwhy_core::tuple::proto;

use crate::offload::{self, Gso};

/// So many flows at once.
const FLOWS: usize = 16;
/// So many packets in one (`UDP_MAX_SEGMENTS` of older kernels).
const TOGETHER: u16 = 64;
/// The longest packet.
const LONGEST: usize = 65_535;
/// Probes of a path have a lower TTL.
const PROBED_TTL: u8 = 32;
/// Datagrams so long pass every link (RFC 791, RFC 8200).
const PASSES_V4: usize = 576;
const PASSES_V6: usize = 1280;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// What has to stay in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    addresses: [u8; 32],
    ports: [u8; 4],
    protonum: u8,
    is_v4: bool,
}

impl Flow {
    /// The flow of a packet, and where its transport header is. `None` for what is no whole TCP segment or UDP datagram, or
    /// has IP options.
    fn of(packet: &[u8]) -> Option<(Flow, usize)> {
        let mut addresses = [0; 32];
        let (is_v4, transport, protonum) = match *packet.first()? {
            0x45 if be16(packet, 6)? & 0x3fff == 0 => {
                addresses[..8].copy_from_slice(packet.get(12..20)?);
                (true, IPV4_HEADER, *packet.get(9)?)
            }
            first if first >> 4 == 6 => {
                addresses.copy_from_slice(packet.get(8..40)?);
                (false, IPV6_HEADER, *packet.get(6)?)
            }
            _ => return None,
        };
        let ports = packet.get(transport..transport + 4)?.try_into().ok()?;
        matches!(protonum, proto::TCP | proto::UDP).then_some((Flow { addresses, ports, protonum, is_v4 }, transport))
    }

    /// Where the payload of a packet of this flow is, if others may be joined to it.
    fn payload(&self, packet: &[u8], transport: usize) -> Option<usize> {
        let len = packet.len();
        let (said, ttl, passes) = if self.is_v4 {
            (usize::from(be16(packet, 2)?), *packet.get(8)?, PASSES_V4)
        } else {
            (usize::from(be16(packet, 4)?) + IPV6_HEADER, *packet.get(7)?, PASSES_V6)
        };
        let l4 = packet.get(transport..)?;
        let (header, suits) = if self.protonum == proto::UDP {
            (UDP_HEADER, usize::from(be16(l4, 4)?) == l4.len() && be16(l4, 6)? != 0 && len <= passes)
        } else {
            let header = usize::from(*l4.get(12)? >> 4) * 4;
            (header, header >= TCP_HEADER && l4.get(12)? & 0xf == 0 && l4.get(13)? & !PSH == ACK)
        };
        (suits && said == len && ttl >= PROBED_TTL && l4.len() > header).then_some(transport + header)
    }
}

/// Packets of one flow that are put together.
#[derive(Debug)]
struct Group {
    flow: Flow,
    /// Room for what goes in front, the first packet, the payloads of the others.
    bytes: Vec<u8>,
    transport: usize,
    payload: usize,
    /// Bytes of payload in each packet but the last.
    size: usize,
    count: u16,
    /// Nothing comes behind the last one.
    closed: bool,
}

impl Group {
    fn packet(&self) -> &[u8] {
        self.bytes.get(offload::HEADER..).unwrap_or_default()
    }

    /// Joins a packet of the flow to the others, if it goes on where they end.
    fn join(&mut self, packet: &[u8], payload: usize) -> bool {
        let fits = !self.closed
            && payload == self.payload
            && packet.len() - payload <= self.size
            && self.packet().len() + packet.len() - payload <= LONGEST
            && self.count < TOGETHER;
        if !fits || self.goes_on(packet).is_none() {
            return false;
        }
        let Some(data) = packet.get(payload..) else { return false };
        self.bytes.extend_from_slice(data);
        self.count += 1;
        self.closed = data.len() < self.size || self.is_pushed(packet);
        if self.closed && self.flow.protonum == proto::TCP {
            // The flags of the last one are that of all; cutting gives them to the last.
            let at = self.transport + 13;
            let flags = packet.get(at).copied();
            if let Some((flags, field)) = flags.zip(self.bytes.get_mut(offload::HEADER + at)) {
                *field = flags;
            }
        }
        true
    }

    /// `Some` where a packet differs from the first one in what cutting counts up, and has the next numbers.
    fn goes_on(&self, packet: &[u8]) -> Option<()> {
        let first = self.packet();
        let same = |range: std::ops::Range<usize>| Some(first.get(range.clone())? == packet.get(range)?);
        let ip = if self.flow.is_v4 {
            same(0..2)? && same(6..9)? && be16(packet, 4)? == be16(first, 4)?.wrapping_add(self.count)
        } else {
            same(0..4)? && same(7..8)?
        };
        let l4 = self.transport;
        let transport = self.flow.protonum == proto::UDP || {
            let sent = (first.len() - self.payload) as u32;
            let options = l4 + TCP_HEADER..self.payload;
            be32(packet, l4 + 4)? == be32(first, l4 + 4)?.wrapping_add(sent)
                && same(l4 + 8..l4 + 13)?
                && same(l4 + 14..l4 + 16)?
                && same(l4 + 18..l4 + 20)?
                && same(options)?
        };
        (ip && transport).then_some(())
    }

    fn is_pushed(&self, packet: &[u8]) -> bool {
        self.flow.protonum == proto::TCP && packet.get(self.transport + 13).is_some_and(|flags| flags & PSH != 0)
    }

    /// What is to be written: a header, and the packet, which then stands for all.
    fn finish(&mut self) -> &[u8] {
        if self.count > 1 {
            let kind = offload::kind(self.flow.is_v4, self.flow.protonum);
            let gso = Gso::new(kind, self.size as u16, self.transport, self.payload);
            let Some((header, packet)) = self.bytes.split_at_mut_checked(offload::HEADER) else { return &[] };
            let length = packet.len();
            if self.flow.is_v4 {
                offload::put16(packet, 2, length as u16);
                offload::put16(packet, 10, 0);
                let checksum = Sum::default().bytes(packet.get(..IPV4_HEADER).unwrap_or_default()).checksum();
                offload::put16(packet, 10, checksum);
            } else {
                offload::put16(packet, 4, length.saturating_sub(IPV6_HEADER) as u16);
            }
            if self.flow.protonum == proto::UDP {
                offload::put16(packet, self.transport + 4, length.saturating_sub(self.transport) as u16);
            }
            gso.leave_checksum(packet);
            header.copy_from_slice(&gso.header());
        }
        &self.bytes
    }
}

/// Packets that are about to leave by a device, those of a flow put together.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    /// The one begun first is first.
    groups: Vec<Group>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    /// May datagrams be put together?
    datagrams: bool,
}

impl Joiner {
    /// `datagrams` says whether the device takes several of them in one.
    pub(crate) fn new(datagrams: bool) -> Joiner {
        Joiner { groups: Vec::new(), spare: Vec::new(), datagrams }
    }

    /// Takes a packet, if it may be put together with others: then it leaves when it is time. Otherwise it is its turn when
    /// this returns `false`. `write` gets those that leave before it, each with a header of [`offload`] in front.
    pub(crate) fn take(&mut self, packet: &[u8], may_join: bool, write: &mut impl FnMut(&[u8])) -> bool {
        if !may_join && self.groups.is_empty() {
            return false;
        }
        let Some((flow, transport)) = Flow::of(packet) else {
            self.flush(write);
            return false;
        };
        let may_join = may_join && (self.datagrams || flow.protonum == proto::TCP);
        let payload = if may_join { flow.payload(packet, transport) } else { None };
        if let Some(at) = self.groups.iter().position(|group| group.flow == flow) {
            let joined =
                self.groups.get_mut(at).zip(payload).is_some_and(|(group, payload)| group.join(packet, payload));
            if joined {
                return true;
            }
            self.leave(at, write);
        }
        let Some(payload) = payload else { return false };
        if self.groups.len() == FLOWS {
            self.leave(0, write);
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(&[0; offload::HEADER]);
        bytes.extend_from_slice(packet);
        let size = packet.len() - payload;
        let mut group = Group { flow, bytes, transport, payload, size, count: 1, closed: false };
        group.closed = group.is_pushed(packet);
        self.groups.push(group);
        true
    }

    /// What was taken leaves.
    pub(crate) fn flush(&mut self, write: &mut impl FnMut(&[u8])) {
        for mut group in self.groups.drain(..) {
            write(group.finish());
            group.bytes.clear();
            self.spare.push(group.bytes);
        }
    }

    fn leave(&mut self, at: usize, write: &mut impl FnMut(&[u8])) {
        let mut group = self.groups.remove(at);
        write(group.finish());
        group.bytes.clear();
        self.spare.push(group.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctwhy_core::packet::Packet;
    use ctwhy_core::tuple::L3;

    use crate::local::checksum_is_right;
    use crate::offload::put16;

    const SIZE: usize = 100;

    /// The packet of this number in a flow from a port, with so many bytes of payload.
    fn packet(l3num: L3, protonum: u8, port: u16, number: u16, len: usize) -> Vec<u8> {
        let mut l4 = port.to_be_bytes().to_vec();
        if protonum == proto::TCP {
            l4.extend([0, 80, 0xff, 0xff, 0xff, 0x9c, 0, 0, 0, 9, 0x80, ACK, 1, 0, 0, 0, 0, 0]);
            l4.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
            let seq = be32(&l4, 4).unwrap().wrapping_add(u32::from(number) * SIZE as u32);
            l4[4..8].copy_from_slice(&seq.to_be_bytes());
        } else {
            l4.extend([0, 80, 0, 0, 0, 0]);
            put16(&mut l4, 4, (8 + len) as u16);
        }
        l4.extend((0..len).map(|at| (at as u8) ^ (number as u8)));
        let mut packet = match l3num {
            L3::V4 => vec![0x45, 0x28, 0, 0, 0, 0, 0x40, 0, 63, protonum, 0, 0, 10, 0, 1, 2, 192, 0, 2, 80],
            L3::V6 => [&[0x60, 0, 0, 7, 0, 0, protonum, 63][..], &[0xfd; 16], &[0x20; 16]].concat(),
        };
        packet.extend(l4);
        match l3num {
            L3::V4 => put16(&mut packet, 4, 0xfffe_u16.wrapping_add(number)),
            L3::V6 => {}
        }
        settle(packet)
    }

    /// Its lengths and checksums made right.
    fn settle(mut packet: Vec<u8>) -> Vec<u8> {
        let length = packet.len();
        let is_v4 = packet[0] >> 4 == 4;
        if is_v4 {
            put16(&mut packet, 2, length as u16);
            put16(&mut packet, 10, 0);
            let header = usize::from(packet[0] & 0xf) * 4;
            let checksum = Sum::default().bytes(&packet[..header]).checksum();
            put16(&mut packet, 10, checksum);
        } else {
            put16(&mut packet, 4, (length - IPV6_HEADER) as u16);
        }
        let (at, field) = {
            let view = Packet::parse(&packet, length).unwrap();
            let Ok(transport) = view.transport else { return packet };
            (transport.offset, transport.offset + if transport.protonum == proto::UDP { 6 } else { 16 })
        };
        put16(&mut packet, field, 0);
        let view = Packet::parse(&packet, length).unwrap();
        let protonum = view.transport.unwrap().protonum;
        let pseudo = Sum::default().pseudo_header(view.l3num, view.src, view.dst, protonum, length - at);
        let checksum = pseudo.bytes(&packet[at..]).checksum();
        put16(&mut packet, field, checksum);
        packet
    }

    /// What leaves, in its order, as it is written.
    fn written(packets: &[Vec<u8>], may_join: impl Fn(usize) -> bool) -> Vec<Vec<u8>> {
        let (mut joiner, mut written) = (Joiner::new(true), Vec::new());
        for (number, packet) in packets.iter().enumerate() {
            if !joiner.take(packet, may_join(number), &mut |bytes| written.push(bytes.to_vec())) {
                written.push([&[0; offload::HEADER], packet.as_slice()].concat());
            }
        }
        joiner.flush(&mut |bytes| written.push(bytes.to_vec()));
        written
    }

    /// The packets that what was written stands for.
    fn cut(written: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let cut = |bytes: &Vec<u8>| {
            let (header, packet) = bytes.split_at(offload::HEADER);
            let mut packet = packet.to_vec();
            match offload::take_in(header.try_into().unwrap(), &mut packet).unwrap().gso {
                None => vec![packet],
                Some(gso) => {
                    assert!(Packet::parse(&packet, packet.len()).is_ok_and(|view| view.bytes.len() == packet.len()));
                    gso.segments(&packet).collect()
                }
            }
        };
        written.iter().flat_map(cut).collect()
    }

    fn kinds() -> [(L3, u8); 4] {
        [(L3::V4, proto::TCP), (L3::V4, proto::UDP), (L3::V6, proto::TCP), (L3::V6, proto::UDP)]
    }

    #[test]
    fn what_was_put_together_is_cut_into_what_it_was() {
        for (l3num, protonum) in kinds() {
            let mut packets: Vec<_> = (0..5).map(|number| packet(l3num, protonum, 9, number, SIZE)).collect();
            packets.push(packet(l3num, protonum, 9, 5, SIZE / 2));
            if protonum == proto::TCP {
                let flags = packets[5].len() - SIZE / 2 - 32 + 13;
                packets[5][flags] |= PSH;
                packets[5] = settle(packets[5].clone());
                assert_eq!(packets[5][flags], ACK | PSH);
            }
            assert!(packets.iter().all(|packet| checksum_is_right(&Packet::parse(packet, packet.len()).unwrap())));
            let written = written(&packets, |_| true);
            assert_eq!(written.len(), 1, "{l3num:?} {protonum}");
            assert_eq!(cut(&written), packets, "{l3num:?} {protonum}");
        }
    }

    #[test]
    fn flows_are_put_together_side_by_side_and_stay_in_their_order() {
        for flows in [3, FLOWS as u16, FLOWS as u16 + 1] {
            let numbers = (0..4).flat_map(|number| (0..flows).map(move |flow| (flow, number)));
            let packets: Vec<_> =
                numbers.map(|(flow, number)| packet(L3::V4, proto::UDP, flow, number, SIZE)).collect();
            let written = written(&packets, |_| true);
            let all = if usize::from(flows) > FLOWS { 4 * flows } else { flows };
            assert_eq!(written.len(), usize::from(all));
            let cut = cut(&written);
            for flow in 0..flows {
                let of_flow = |packet: &&Vec<u8>| be16(packet, 20) == Some(flow);
                assert!(cut.iter().filter(of_flow).eq(packets.iter().filter(of_flow)));
            }
        }
    }

    #[test]
    fn what_cutting_would_change_is_left_alone() {
        let changes: [(L3, u8, usize, u8); 16] = [
            (L3::V4, proto::UDP, 1, 4),
            (L3::V4, proto::UDP, 5, 8),
            (L3::V4, proto::UDP, 6, 0x40),
            (L3::V4, proto::UDP, 8, 1),
            (L3::V4, proto::UDP, 19, 1),
            (L3::V4, proto::UDP, 21, 1),
            (L3::V6, proto::UDP, 1, 0x10),
            (L3::V6, proto::UDP, 3, 1),
            (L3::V6, proto::UDP, 7, 1),
            (L3::V4, proto::TCP, 20 + 7, 1),
            (L3::V4, proto::TCP, 20 + 11, 1),
            (L3::V4, proto::TCP, 20 + 13, 1),
            (L3::V4, proto::TCP, 20 + 13, 0x80),
            (L3::V4, proto::TCP, 20 + 15, 1),
            (L3::V4, proto::TCP, 20 + 19, 1),
            (L3::V4, proto::TCP, 20 + 31, 1),
        ];
        for (l3num, protonum, at, bits) in changes {
            let mut packets: Vec<_> = (0..2).map(|number| packet(l3num, protonum, 9, number, SIZE)).collect();
            packets[1][at] ^= bits;
            packets[1] = settle(packets[1].clone());
            let written = written(&packets, |_| true);
            assert_eq!(written.len(), 2, "{l3num:?} {protonum} {at}");
            assert_eq!(cut(&written), packets);
        }
    }

    #[test]
    fn what_may_meet_an_error_is_left_alone() {
        let two = |len, change: &dyn Fn(&mut Vec<u8>)| {
            let packets = (0..2).map(|number| {
                let mut packet = packet(L3::V4, proto::UDP, 9, number, len);
                change(&mut packet);
                settle(packet)
            });
            let packets: Vec<_> = packets.collect();
            let written = written(&packets, |_| true);
            assert_eq!(cut(&written), packets);
            written.len()
        };
        let passes = PASSES_V4 - IPV4_HEADER - UDP_HEADER;
        assert_eq!(two(passes, &|_| {}), 1);
        assert_eq!(two(passes + 1, &|_| {}), 2, "some link may be too short");
        assert_eq!(two(SIZE, &|packet| packet[8] = PROBED_TTL), 1);
        assert_eq!(two(SIZE, &|packet| packet[8] = PROBED_TTL - 1), 2, "it may be a probe");
        assert_eq!(two(SIZE, &|packet| packet[6] = 0x20), 2, "a fragment");
        let packets: Vec<_> = (0..2).map(|number| packet(L3::V4, proto::UDP, 9, number, SIZE)).collect();
        assert_eq!(written(&packets, |number| number == 0).len(), 2, "nobody knows its checksum");
        let mut without = packets.clone();
        without.iter_mut().for_each(|packet| put16(packet, 26, 0));
        assert_eq!(
            written(&without, |_| true),
            cut(&written(&without, |_| true)).iter().map(alone).collect::<Vec<_>>()
        );
    }

    fn alone(packet: &Vec<u8>) -> Vec<u8> {
        [&[0; offload::HEADER], packet.as_slice()].concat()
    }

    #[test]
    fn nothing_comes_behind_the_end_of_what_was_put_together() {
        let udp = |number, len| packet(L3::V4, proto::UDP, 9, number, len);
        let packets = [udp(0, SIZE), udp(1, SIZE / 2), udp(2, SIZE / 2), udp(3, SIZE)];
        let written_ = written(&packets, |_| true);
        assert_eq!(written_.iter().map(Vec::len).collect::<Vec<_>>(), [38 + 150, 38 + 50, 38 + 100]);
        assert_eq!(cut(&written_), packets);
        // What is no part of a flow that can be told leaves behind all that was there before.
        let icmp = settle(vec![0x45, 0, 0, 0, 0, 0, 0, 0, 63, 1, 0, 0, 10, 0, 1, 2, 192, 0, 2, 80, 8, 0, 0, 0]);
        let packets = [udp(0, SIZE), icmp, udp(1, SIZE)];
        assert_eq!(written(&packets, |number| number != 1), packets.iter().map(alone).collect::<Vec<_>>());
        let long: Vec<_> = (0..TOGETHER + 1).map(|number| udp(number, SIZE)).collect();
        assert_eq!(written(&long, |_| true).len(), 2);
        assert_eq!(cut(&written(&long, |_| true)), long);
    }

    #[test]
    fn a_device_that_takes_no_datagrams_together_gets_none() {
        for (protonum, expected) in [(proto::UDP, 0), (proto::TCP, 2)] {
            let mut joiner = Joiner::new(false);
            let taken = (0..2).filter(|number| {
                joiner.take(&packet(L3::V6, protonum, 9, *number, SIZE), true, &mut |_| unreachable!("nothing waits"))
            });
            assert_eq!(taken.count(), expected);
        }
    }
}
