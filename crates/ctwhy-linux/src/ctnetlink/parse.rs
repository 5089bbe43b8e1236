//! `ctnetlink_fill_info`, read back. The crate netlink-packet-netfilter knows tuples, status, timeout, mark and TCP;
//! what it leaves raw is read here.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Nla, NlasIterator, Parseable, ParseableParametrized};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Tuple as Nest,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};

use super::{Counters, Entry, L4, PerDirection, SctpInfo, TcpInfo, Tuple};
use crate::netlink::{Attribute, Attributes, Message, TYPE_MASK};

// `enum ctattr_type` and the nests below it (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).
const CTA_HELP: u16 = 5;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_USE: u16 = 11;
const CTA_ID: u16 = 12;
const CTA_TUPLE_MASTER: u16 = 14;
const CTA_ZONE: u16 = 18;
const CTA_HELP_NAME: u16 = 1;
const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;
const CTA_PROTOINFO_SCTP: u16 = 3;
const CTA_PROTOINFO_SCTP_STATE: u16 = 1;
const CTA_PROTOINFO_SCTP_VTAG_ORIGINAL: u16 = 2;
const CTA_PROTOINFO_SCTP_VTAG_REPLY: u16 = 3;

pub(super) fn invalid(text: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("ctnetlink: {text}"))
}

/// The entry in a message about one; `None` for messages about something else.
pub(super) fn entry(message: &Message<'_>) -> io::Result<Option<Entry>> {
    let parsed = NetfilterMessage::parse_with_param(message.body, message.kind).map_err(invalid)?;
    let NetfilterMessageInner::Conntrack(inner) = parsed.inner else { return Ok(None) };
    let (ConntrackMessage::New(attributes) | ConntrackMessage::Delete(attributes)) = inner else { return Ok(None) };
    from_attributes(&attributes).map(Some)
}

fn from_attributes(attributes: &[ConntrackAttribute]) -> io::Result<Entry> {
    let (mut orig, mut reply) = (None, None);
    let mut rest = Rest::default();
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(nests) => orig = Some(tuple(nests)?),
            ConntrackAttribute::CtaTupleReply(nests) => reply = Some(tuple(nests)?),
            ConntrackAttribute::CtaStatus(bits) => rest.status = bits.bits(),
            ConntrackAttribute::CtaTimeout(seconds) => rest.timeout = Some(*seconds),
            ConntrackAttribute::CtaMark(mark) => rest.mark = *mark,
            ConntrackAttribute::CtaProtoInfo(infos) => rest.protocol_state(infos)?,
            ConntrackAttribute::Other(raw) => rest.other(raw)?,
            _ => {}
        }
    }
    Ok(Entry {
        orig: orig.ok_or_else(|| invalid("an entry without CTA_TUPLE_ORIG"))?,
        reply: reply.ok_or_else(|| invalid("an entry without CTA_TUPLE_REPLY"))?,
        status: rest.status,
        timeout: rest.timeout,
        mark: rest.mark,
        id: rest.id,
        zone: rest.zone,
        use_count: rest.use_count,
        tcp: rest.tcp,
        sctp: rest.sctp,
        counters: rest.counters,
        master: rest.master,
        helper: rest.helper,
    })
}

/// An entry's parts besides the two tuples, while they are being collected.
#[derive(Default)]
struct Rest {
    status: u32,
    timeout: Option<u32>,
    mark: u32,
    id: Option<u32>,
    zone: u16,
    use_count: Option<u32>,
    tcp: Option<TcpInfo>,
    sctp: Option<SctpInfo>,
    counters: PerDirection<Option<Counters>>,
    master: Option<Tuple>,
    helper: Option<String>,
}

impl Rest {
    fn protocol_state(&mut self, infos: &[ProtoInfo]) -> io::Result<()> {
        for info in infos {
            match info {
                ProtoInfo::TCP(parts) => self.tcp = Some(tcp(parts)),
                ProtoInfo::Other(raw) if kind(raw) == CTA_PROTOINFO_SCTP => self.sctp = Some(sctp(&value(raw))?),
                _ => {}
            }
        }
        Ok(())
    }

    fn other(&mut self, raw: &DefaultNla) -> io::Result<()> {
        let bytes = value(raw);
        let attribute = Attribute { kind: kind(raw), value: &bytes };
        match attribute.kind {
            CTA_ID => self.id = Some(attribute.u32()?),
            CTA_USE => self.use_count = Some(attribute.u32()?),
            CTA_ZONE => self.zone = attribute.u16()?,
            CTA_COUNTERS_ORIG => self.counters.original = Some(counters(attribute.nested())?),
            CTA_COUNTERS_REPLY => self.counters.reply = Some(counters(attribute.nested())?),
            CTA_TUPLE_MASTER => self.master = Some(tuple_in(&bytes)?),
            CTA_HELP => {
                for part in attribute.nested() {
                    let part = part?;
                    if part.kind == CTA_HELP_NAME {
                        self.helper = Some(name(part.value));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The type of an attribute that was left raw. The crate leaves the flags in it.
fn kind(raw: &DefaultNla) -> u16 {
    raw.kind() & TYPE_MASK
}

/// The bytes of an attribute that was left raw.
fn value(raw: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; raw.value_len()];
    raw.emit_value(&mut bytes);
    bytes
}

/// A text that ends with a zero.
pub(super) fn name(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// The tuple in an attribute that was left raw.
pub(super) fn tuple_in(bytes: &[u8]) -> io::Result<Tuple> {
    let nests = NlasIterator::new(bytes).map(|nest| Nest::parse(&nest?)).collect::<Result<Vec<_>, _>>();
    tuple(&nests.map_err(invalid)?)
}

fn tuple(nests: &[Nest]) -> io::Result<Tuple> {
    let (mut src, mut dst, mut proto, mut zone) = (None, None, None, None);
    let (mut sport, mut dport) = (None, None);
    let (mut id, mut icmp_type, mut code) = (None, None, None);
    for nest in nests {
        match nest {
            Nest::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(ip) => src = Some(*ip),
                        IPTuple::DestinationAddress(ip) => dst = Some(*ip),
                        _ => {}
                    }
                }
            }
            Nest::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(number) => proto = Some(u8::from(*number)),
                        ProtoTuple::SourcePort(port) => sport = Some(*port),
                        ProtoTuple::DestinationPort(port) => dport = Some(*port),
                        ProtoTuple::Other(raw) => {
                            let bytes = value(raw);
                            match kind(raw) {
                                CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => {
                                    id = Some(Attribute { kind: kind(raw), value: &bytes }.u16()?);
                                }
                                CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => icmp_type = bytes.first().copied(),
                                CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => code = bytes.first().copied(),
                                _ => {}
                            }
                        }
                        _ => {}
                    }
                }
            }
            Nest::Other(raw) if kind(raw) == CTA_TUPLE_ZONE => {
                zone = Some(Attribute { kind: kind(raw), value: &value(raw) }.u16()?);
            }
            _ => {}
        }
    }
    let src: IpAddr = src.ok_or_else(|| invalid("a tuple without source address"))?;
    let dst: IpAddr = dst.ok_or_else(|| invalid("a tuple without destination address"))?;
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(invalid(format_args!("a tuple of two families: {src} and {dst}")));
    }
    let l4 = match (sport, dport, id, icmp_type, code) {
        (_, _, Some(id), Some(icmp_type), Some(code)) => L4::Icmp { id, icmp_type, code },
        (Some(sport), Some(dport), ..) => L4::Ports { sport, dport },
        _ => L4::Generic,
    };
    let proto = proto.ok_or_else(|| invalid("a tuple without protocol"))?;
    Ok(Tuple { src, dst, proto, l4, zone })
}

fn tcp(parts: &[ProtoInfoTCP]) -> TcpInfo {
    let mut info = TcpInfo::default();
    for part in parts {
        match part {
            ProtoInfoTCP::State(state) => info.state = *state,
            ProtoInfoTCP::OriginalWindowScale(scale) => info.wscale.original = Some(*scale),
            ProtoInfoTCP::ReplyWindowScale(scale) => info.wscale.reply = Some(*scale),
            ProtoInfoTCP::OriginalFlags(flags) => info.flags.original = Some(flags.flags),
            ProtoInfoTCP::ReplyFlags(flags) => info.flags.reply = Some(flags.flags),
            _ => {}
        }
    }
    info
}

fn sctp(bytes: &[u8]) -> io::Result<SctpInfo> {
    let mut info = SctpInfo::default();
    for part in Attributes::new(bytes) {
        let part = part?;
        match part.kind {
            CTA_PROTOINFO_SCTP_STATE => info.state = part.value.first().copied().unwrap_or(0),
            CTA_PROTOINFO_SCTP_VTAG_ORIGINAL => info.vtag.original = Some(part.u32()?),
            CTA_PROTOINFO_SCTP_VTAG_REPLY => info.vtag.reply = Some(part.u32()?),
            _ => {}
        }
    }
    Ok(info)
}

fn counters(parts: Attributes<'_>) -> io::Result<Counters> {
    let mut counters = Counters::default();
    for part in parts {
        let part = part?;
        match part.kind {
            CTA_COUNTERS_PACKETS => counters.packets = part.u64()?,
            CTA_COUNTERS_BYTES => counters.bytes = part.u64()?,
            _ => {}
        }
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::damage::{every_way, message, nest};
    use crate::netlink::{Messages, Subsystem};

    const NESTED: u16 = 0x8000;

    fn tuple_bytes(src: u8, dst: u8, ports: [u8; 2]) -> Vec<u8> {
        let addresses = nest(&[(1, vec![10, 0, 0, src]), (2, vec![10, 0, 0, dst])]);
        let proto = nest(&[(1, vec![6]), (2, vec![0, ports[0]]), (3, vec![0, ports[1]])]);
        nest(&[(1 | NESTED, addresses), (2 | NESTED, proto), (3, vec![0, 9])])
    }

    #[test]
    fn an_entry_is_read_and_damage_does_no_harm() {
        let tcp = nest(&[(1, vec![3]), (2, vec![7]), (3, vec![8]), (4, vec![0x23, 0xff]), (5, vec![0x03, 0xff])]);
        let eight = |value: u64| value.to_be_bytes().to_vec();
        let counters = |packets, bytes| nest(&[(1, eight(packets)), (2, eight(bytes))]);
        let bytes = message(
            Subsystem::Conntrack,
            0,
            &[
                (1 | NESTED, tuple_bytes(1, 2, [4, 5])),
                (2 | NESTED, tuple_bytes(2, 1, [5, 4])),
                (3, vec![0, 0, 1, 0x8e]),
                (4 | NESTED, nest(&[(1 | NESTED, tcp)])),
                (CTA_HELP | NESTED, nest(&[(1, b"ftp\0".to_vec())])),
                (7, vec![0, 0, 0, 30]),
                (8, vec![0, 0, 0, 1]),
                (CTA_COUNTERS_ORIG | NESTED, counters(2, 120)),
                (CTA_COUNTERS_REPLY | NESTED, counters(1, 60)),
                (CTA_USE, vec![0, 0, 0, 2]),
                (CTA_ID, vec![1, 2, 3, 4]),
                (CTA_TUPLE_MASTER | NESTED, tuple_bytes(3, 4, [6, 7])),
                (CTA_ZONE, vec![0, 5]),
            ],
        );
        let tuple = |src, dst, sport, dport| Tuple {
            src: IpAddr::from([10, 0, 0, src]),
            dst: IpAddr::from([10, 0, 0, dst]),
            proto: 6,
            l4: L4::Ports { sport, dport },
            zone: Some(9),
        };
        let expected = Entry {
            orig: tuple(1, 2, 4, 5),
            reply: tuple(2, 1, 5, 4),
            status: 0x18e,
            timeout: Some(30),
            mark: 1,
            id: Some(0x0102_0304),
            zone: 5,
            use_count: Some(2),
            tcp: Some(TcpInfo {
                state: 3,
                wscale: PerDirection { original: Some(7), reply: Some(8) },
                flags: PerDirection { original: Some(0x23), reply: Some(3) },
            }),
            sctp: None,
            counters: PerDirection {
                original: Some(Counters { packets: 2, bytes: 120 }),
                reply: Some(Counters { packets: 1, bytes: 60 }),
            },
            master: Some(tuple(3, 4, 6, 7)),
            helper: Some("ftp".to_owned()),
        };
        assert_eq!(entry(&Messages::new(&bytes).next().unwrap().unwrap()).unwrap(), Some(expected));
        every_way(&bytes, |message| drop(entry(message)));
    }

    #[test]
    fn sctp_and_icmp_are_read_and_damage_does_no_harm() {
        let icmp = nest(&[(1, vec![58]), (7, vec![0, 7]), (8, vec![128]), (9, vec![0])]);
        let addresses = nest(&[(3, vec![1; 16]), (4, vec![2; 16])]);
        let tuple = nest(&[(1 | NESTED, addresses), (2 | NESTED, icmp)]);
        let sctp = nest(&[(1, vec![4]), (2, vec![0, 0, 0, 1]), (3, vec![0, 0, 0, 2])]);
        let state = nest(&[(CTA_PROTOINFO_SCTP | NESTED, sctp)]);
        let attributes = [(1 | NESTED, tuple.clone()), (2 | NESTED, tuple), (4 | NESTED, state)];
        let bytes = message(Subsystem::Conntrack, 2, &attributes);
        let read = entry(&Messages::new(&bytes).next().unwrap().unwrap()).unwrap().unwrap();
        assert_eq!(read.orig.l4, L4::Icmp { id: 7, icmp_type: 128, code: 0 });
        let vtag = PerDirection { original: Some(1), reply: Some(2) };
        assert_eq!(read.sctp, Some(SctpInfo { state: 4, vtag }));
        every_way(&bytes, |message| drop(entry(message)));
    }
}
