//! The values of options: addresses, masks, ports, protocols, and what a target translates to.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::RuleErrorKind;
use crate::direction::Direction;
use crate::event::Causes;
use crate::nat::range::Range;
use crate::rules::matches::{Masked, Network, States, address_bits};
use crate::rules::target::ZoneFrom;
use crate::status::Status;
use crate::tuple::{Addr, L3, proto};

type Parsed<T> = Result<T, RuleErrorKind>;

fn address(text: &str, l3num: L3) -> Parsed<Addr> {
    match (text.parse().map_err(|_| RuleErrorKind::Address)?, l3num) {
        (ip @ IpAddr::V4(_), L3::V4) | (ip @ IpAddr::V6(_), L3::V6) => Ok(Addr::from(ip)),
        _ => Err(RuleErrorKind::Family),
    }
}

/// `ADDRESS[/LENGTH]`, `ADDRESS/MASK`; what the mask leaves out is cleared.
pub(super) fn network(text: &str, l3num: L3) -> Parsed<Network> {
    let bits = address_bits(l3num);
    let (own, prefix) = match text.split_once('/') {
        Some((own, mask)) => (own, prefix_length(mask, l3num).ok_or(RuleErrorKind::Mask)?),
        None => (text, bits),
    };
    let keep = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    let masked = u128::from_be_bytes(address(own, l3num)?.0) & keep;
    Ok(Network { address: Addr(masked.to_be_bytes()), prefix })
}

fn prefix_length(mask: &str, l3num: L3) -> Option<u8> {
    if mask.bytes().all(|c| c.is_ascii_digit()) {
        return mask.parse().ok().filter(|length| *length <= address_bits(l3num));
    }
    let (ones, contiguous) = match l3num {
        L3::V4 => {
            let mask = mask.parse::<Ipv4Addr>().ok()?.to_bits();
            (mask.leading_ones(), mask.leading_ones() + mask.trailing_zeros() >= 32)
        }
        L3::V6 => {
            let mask = mask.parse::<Ipv6Addr>().ok()?.to_bits();
            (mask.leading_ones(), mask.leading_ones() + mask.trailing_zeros() >= 128)
        }
    };
    contiguous.then_some(ones as u8)
}

/// A name or pattern that `-i` and `-o` take.
pub(super) fn interface(text: &str) -> Parsed<&str> {
    const LONGEST: usize = 15;
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
    if text.is_empty() || text.len() > LONGEST || !text.chars().all(plain) {
        return Err(RuleErrorKind::Interface);
    }
    Ok(text)
}

const DCCP: u8 = 33;

/// A name or number; `None` stands for every protocol.
pub(super) fn protocol(text: &str) -> Parsed<Option<u8>> {
    let number = match text {
        "all" => 0,
        "tcp" => proto::TCP,
        "udp" => proto::UDP,
        "icmp" => proto::ICMP,
        "ipv6-icmp" | "icmpv6" | "icmp6" => proto::ICMPV6,
        "sctp" => proto::SCTP,
        "gre" => proto::GRE,
        "udplite" => proto::UDPLITE,
        "igmp" => 2,
        "dccp" => DCCP,
        "esp" => 50,
        "ah" => 51,
        "ospf" => 89,
        number => number.parse().map_err(|_| RuleErrorKind::Protocol)?,
    };
    Ok((number != 0).then_some(number))
}

/// Whether iptables lets a target name ports for this protocol. For ICMP they are ids; for ICMPv6 it takes none.
pub(super) const fn takes_ports(protonum: u8) -> bool {
    matches!(protonum, proto::TCP | proto::UDP | proto::SCTP | DCCP | proto::ICMP)
}

/// `PORT`, `FIRST:LAST`, `FIRST:`, `:LAST` of a match.
pub(super) fn ports(text: &str) -> Parsed<(u16, u16)> {
    let end = |text: &str, open: u16| if text.is_empty() { Some(open) } else { text.parse().ok() };
    let range = match text.split_once(':') {
        Some(("", "")) => None,
        Some((first, last)) => end(first, 0).zip(end(last, u16::MAX)),
        None => text.parse().ok().map(|port| (port, port)),
    };
    range.filter(|(first, last)| first <= last).ok_or(RuleErrorKind::Ports)
}

fn pair(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// `PORT[-PORT]` of a target.
pub(super) fn target_ports(text: &str) -> Parsed<(u16, u16)> {
    pair(text).ok_or(RuleErrorKind::Range { form: "PORT[-PORT]" })
}

/// `[ADDRESS[-ADDRESS]][:PORT[-PORT[/BASE]]]`; with ports IPv6 addresses are in brackets.
pub(super) fn translation(text: &str, l3num: L3) -> Parsed<Range> {
    let form = match l3num {
        L3::V4 => "ADDRESS[-ADDRESS][:PORT[-PORT]] or :PORT[-PORT]",
        L3::V6 => "ADDRESS[-ADDRESS], [ADDRESS[-ADDRESS]]:PORT[-PORT] or :PORT[-PORT]",
    };
    let wrong = RuleErrorKind::Range { form };
    let (addresses, ports) = match l3num {
        L3::V4 => text.split_once(':').map_or((text, None), |(addresses, ports)| (addresses, Some(ports))),
        L3::V6 => match (text.strip_prefix('['), text.strip_prefix(':')) {
            (Some(inside), _) => {
                let (addresses, behind) = inside.split_once(']').ok_or(wrong)?;
                (addresses, if behind.is_empty() { None } else { Some(behind.strip_prefix(':').ok_or(wrong)?) })
            }
            (None, Some(ports)) if !ports.contains(':') => ("", Some(ports)),
            _ => (text, None),
        },
    };
    let (ports, base) = match ports.and_then(|ports| ports.split_once('/')) {
        Some((ports, base)) => (Some(ports), Some(base.parse().map_err(|_| wrong)?)),
        None => (ports, None),
    };
    let ports = ports.map(|ports| pair(ports).ok_or(wrong)).transpose()?;
    let addresses = match addresses {
        "" if ports.is_some() => None,
        "" => return Err(wrong),
        _ => {
            let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
            let (first, last) = (address(first, l3num)?, address(last, l3num)?);
            if first > last {
                return Err(wrong);
            }
            Some((first, last))
        }
    };
    Ok(Range { addresses, ports, shifted_from: base, ..Range::default() })
}

/// A number, decimal or with `0x` in front.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The bits of a mark.
pub(super) fn mark(text: &str) -> Parsed<u32> {
    number(text).ok_or(RuleErrorKind::Mark)
}

/// `VALUE[/MASK]`
pub(super) fn masked(text: &str) -> Parsed<Masked> {
    let (value, mask) = match text.split_once('/') {
        Some((value, own)) => (value, mark(own)?),
        None => (text, u32::MAX),
    };
    Ok(Masked { value: mark(value)?, mask })
}

/// The union of what `read` makes of each of the words between commas.
fn list<T>(
    text: &str,
    wrong: RuleErrorKind,
    mut read: impl FnMut(&str) -> Option<T>,
) -> Parsed<impl Iterator<Item = T>> {
    let known: Option<Vec<T>> = text.split(',').map(&mut read).collect();
    known.map(Vec::into_iter).ok_or(wrong)
}

/// The value that a name stands for in a table of them.
fn named<T: Copy>(table: &[(T, &str)], text: &str) -> Option<T> {
    table.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(value, _)| *value)
}

/// `NEW,ESTABLISHED`
pub(super) fn states(text: &str) -> Parsed<States> {
    let all = list(text, RuleErrorKind::States, |name| named(&States::NAMES, name))?;
    Ok(all.fold(States::default(), States::with))
}

/// `ASSURED,CONFIRMED`
pub(super) fn status(text: &str) -> Parsed<Status> {
    const NAMES: [(Status, &str); 5] = [
        (Status(0), "NONE"),
        (Status::EXPECTED, "EXPECTED"),
        (Status::SEEN_REPLY, "SEEN_REPLY"),
        (Status::ASSURED, "ASSURED"),
        (Status::CONFIRMED, "CONFIRMED"),
    ];
    let all = list(text, RuleErrorKind::StatusBits, |name| named(&NAMES, name))?;
    Ok(all.fold(Status::default(), |all, bit| all | bit))
}

/// `ORIGINAL`, `REPLY`
pub(super) fn direction(text: &str) -> Parsed<Direction> {
    const NAMES: [(Direction, &str); 2] = [(Direction::Original, "ORIGINAL"), (Direction::Reply, "REPLY")];
    named(&NAMES, text).ok_or(RuleErrorKind::CtDirection)
}

const FLAGS: [(u8, &str); 8] =
    [(1, "FIN"), (2, "SYN"), (4, "RST"), (8, "PSH"), (16, "ACK"), (32, "URG"), (0x3f, "ALL"), (0, "NONE")];
/// What `--syn` stands for: of FIN, SYN, RST and ACK only SYN.
pub(super) const SYN: (u8, u8) = (0x17, 0x02);

/// `SYN,ACK`
pub(super) fn tcp_flags(text: &str) -> Parsed<u8> {
    Ok(list(text, RuleErrorKind::TcpFlags, |name| named(&FLAGS, name))?.fold(0, |all, flag| all | flag))
}

/// A type of ICMP and the code; `None` stands for every type.
pub(super) fn icmp_type(text: &str, l3num: L3) -> Parsed<Option<(u8, Option<u8>)>> {
    let named = match (text, l3num) {
        ("any", L3::V4) => return Ok(None),
        ("echo-reply" | "pong", L3::V4) => Some(0),
        ("echo-request" | "ping", L3::V4) => Some(8),
        ("destination-unreachable", L3::V4) => Some(3),
        ("time-exceeded" | "ttl-exceeded", L3::V4) => Some(11),
        ("echo-reply" | "pong", L3::V6) => Some(129),
        ("echo-request" | "ping", L3::V6) => Some(128),
        ("destination-unreachable", L3::V6) => Some(1),
        ("time-exceeded" | "ttl-exceeded", L3::V6) => Some(3),
        _ => None,
    };
    if let Some(icmp_type) = named {
        return Ok(Some((icmp_type, None)));
    }
    let (icmp_type, code) = match text.split_once('/') {
        Some((icmp_type, code)) => (icmp_type, Some(code.parse().map_err(|_| RuleErrorKind::IcmpType)?)),
        None => (text, None),
    };
    match (icmp_type.parse().map_err(|_| RuleErrorKind::IcmpType)?, code) {
        // What `any` becomes when iptables reads it.
        (u8::MAX, None) if l3num == L3::V4 => Ok(None),
        (icmp_type, code) => Ok(Some((icmp_type, code))),
    }
}

/// The number of a zone, or `mark`.
pub(super) fn zone(text: &str) -> Parsed<ZoneFrom> {
    match text {
        "mark" => Ok(ZoneFrom::Mark),
        _ => number(text).and_then(|id| u16::try_from(id).ok()).map(ZoneFrom::Number).ok_or(RuleErrorKind::Zone),
    }
}

/// `new,destroy`
pub(super) fn events(text: &str) -> Parsed<Causes> {
    // The rules' own name of SEQADJ; they do not know those behind SECMARK.
    let cause = |name: &str| match name {
        "natseqinfo" => Some(Causes::SEQADJ),
        _ => named(&Causes::NAMES, name).filter(|cause| *cause != Causes::SEQADJ && cause.0 <= Causes::SECMARK.0),
    };
    Ok(list(text, RuleErrorKind::Events, cause)?.fold(Causes::default(), |all, cause| all | cause))
}
