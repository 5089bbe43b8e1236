//! FTP (`nf_conntrack_ftp.c`, `nf_nat_ftp.c`; EXP-03): who will open a data connection, to where.

use core::fmt::{self, Write};
use core::net::IpAddr;

use super::follow::unexpect;
use super::mangle::{Mangle, Text};
use super::pton::ipv6;
use super::{Help, Helper, HelperDrop, HelperStep, Seen, tell};
use crate::direction::{CtInfo, Direction};
use crate::expect::{Expectation, Follow, Refused};
use crate::packet::be32;
use crate::random::Random;
use crate::status::Status;
use crate::table::Table;
use crate::trace::Sink;
use crate::tuple::{Addr, L3, proto};

/// What opens a data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `PORT` of the client.
    Port,
    /// `EPRT` of the client.
    Eprt,
    /// `227` of the server, the answer to `PASV`.
    Pasv,
    /// `229` of the server, the answer to `EPSV`.
    Epsv,
}

impl Command {
    /// What a sender may say, in the order in which it is looked for.
    const fn of(direction: Direction) -> [Command; 2] {
        match direction {
            Direction::Original => [Command::Port, Command::Eprt],
            Direction::Reply => [Command::Pasv, Command::Epsv],
        }
    }

    /// What a line begins with.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Command::Port => "PORT",
            Command::Eprt => "EPRT",
            Command::Pasv => "227 ",
            Command::Epsv => "229 ",
        }
    }

    /// The character behind which the numbers are.
    const fn skip(self) -> Option<u8> {
        match self {
            Command::Port | Command::Eprt => Some(b' '),
            Command::Pasv => None,
            Command::Epsv => Some(b'('),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word().trim_end())
    }
}

/// What is remembered of a control connection (`struct nf_ct_ftp_master`).
#[derive(Clone, Debug, Default)]
pub struct Ftp {
    /// By [`Direction::index`]: where lines began, that is, behind which line ends.
    lines: [Lines; 2],
}

/// The last two beginnings of a line.
#[derive(Clone, Copy, Debug, Default)]
struct Lines([Option<u32>; 2]);

impl Lines {
    /// `find_nl_seq`: does a line begin at `seq`?
    fn begin_at(&self, seq: u32) -> bool {
        self.0.contains(&Some(seq))
    }

    /// `update_nl_seq`: a line begins at `seq`. Of two that are known the older one is forgotten, unless this is older.
    fn remember(&mut self, seq: u32) {
        let after = |a: u32, b: u32| (b.wrapping_sub(a) as i32) < 0;
        match &mut self.0 {
            known if known.contains(&Some(seq)) => {}
            [free @ None, _] | [_, free @ None] => *free = Some(seq),
            [Some(first), Some(second)] => {
                let oldest = if after(*second, *first) { first } else { second };
                if after(seq, *oldest) {
                    *oldest = seq;
                }
            }
        }
    }
}

/// An address and a port, and where in the payload they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    command: Command,
    address: Addr,
    port: u16,
    at: usize,
    length: usize,
}

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nothing that opens a connection.
    Other,
    /// A command that is cut off, or wrong.
    Partial(Command),
    Names(Named),
}

/// `help`: reads a segment.
pub(super) fn help<S: Sink>(
    seen: &Seen<'_>,
    table: &mut Table,
    random: &mut Random,
    sink: &mut S,
) -> Result<Option<Mangle>, HelperDrop> {
    const TCP_HEADER: usize = 20;

    if !matches!(seen.ctinfo, CtInfo::Established | CtInfo::EstablishedReply) {
        tell(sink, || HelperStep::TooEarly(Helper::Ftp, seen.ctinfo));
        return Ok(None);
    }
    let Some(header) = seen.l4.get(..TCP_HEADER) else { return Ok(None) };
    let start = usize::from(header[12] >> 4) * 4;
    let Some(data @ [.., last]) = seen.l4.get(start..) else { return Ok(None) };
    let seq = be32(header, 4).unwrap_or(0);
    let next = seq.wrapping_add(data.len() as u32);
    let way = seen.direction.index();

    let known = lines(table, seen).is_some_and(|lines| lines[way].begin_at(seq));
    let read = if known {
        read_line(seen, data, start, table, random, sink)
    } else {
        tell(sink, || HelperStep::OutOfStep { seq });
        Ok(None)
    };
    // A line that was not all there comes again. Any other is over, also where the packet is dropped.
    if let Err(HelperDrop::Partial(_)) = read {
        return read;
    }
    if *last == b'\n'
        && let Some(lines) = lines(table, seen)
    {
        lines[way].remember(next);
        tell(sink, || HelperStep::LineEnd { seq: next });
    }
    read
}

fn lines<'a>(table: &'a mut Table, seen: &Seen<'_>) -> Option<&'a mut [Lines; 2]> {
    match table.extensions.get_mut(seen.id)?.help.as_mut()? {
        Help::Ftp(ftp) => Some(&mut ftp.lines),
        _ => None,
    }
}

/// The line at the start of a segment, and the expectation that follows from it.
fn read_line<S: Sink>(
    seen: &Seen<'_>,
    data: &[u8],
    start: usize,
    table: &mut Table,
    random: &mut Random,
    sink: &mut S,
) -> Result<Option<Mangle>, HelperDrop> {
    let own = seen.flow.tuple(seen.direction);
    let l3num = own.l3num;
    let named = match parse(data, seen.direction, l3num, own.src) {
        Line::Names(named) => named,
        Line::Partial(command) => return Err(HelperDrop::Partial(command)),
        Line::Other => {
            tell(sink, || HelperStep::NoCommand);
            return Ok(None);
        }
    };
    let Named { command, address, port, at, length } = named;
    tell(sink, || HelperStep::Parsed { command, address: address.ip(l3num), port, at: (at, length) });
    if address != own.src {
        tell(sink, || HelperStep::OtherAddress { named: address.ip(l3num), sender: own.src.ip(l3num) });
        return Ok(None);
    }
    let back = seen.flow.tuple(seen.direction.opposite());
    let mut expected = Expectation::new(
        (seen.id, Helper::Ftp, seen.flow.zone.id),
        (l3num, proto::TCP),
        (back.src, None),
        (back.dst, port),
    );
    if !seen.flow.status.intersects(Status::NAT_MASK) {
        table.expect(expected, seen.now, sink).map_err(HelperDrop::Refused)?;
        return Ok(None);
    }
    expected.follow = Follow::Master { direction: seen.direction.opposite(), port };
    let outside = find_port(&mut expected, port, (table, seen), random, sink).ok_or(HelperDrop::PortsUsed)?;
    let is = written(command, back.dst.ip(l3num), back.dst, outside);
    let mangle = Mangle { l4: seen.offset, payload: seen.offset + start, at, was: length, is };
    let grown = (seen.offset + seen.l4.len() + is.as_bytes().len()).saturating_sub(length);
    if grown > usize::from(u16::MAX) {
        unexpect(Some(expected.tuple), expected.zone, (table, seen.now), sink);
        return Err(HelperDrop::TooLong);
    }
    Ok(Some(mangle))
}

/// `nf_nat_exp_find_port`: the same port outside, or another one where it is expected already. `None` also for port 0.
fn find_port<S: Sink>(
    expected: &mut Expectation,
    wanted: u16,
    (table, seen): (&mut Table, &Seen<'_>),
    random: &mut Random,
    sink: &mut S,
) -> Option<u16> {
    const ATTEMPTS: u16 = 128;

    let range = u16::MAX - wanted;
    let mut left = range.min(ATTEMPTS);
    let mut port = wanted;
    loop {
        expected.tuple.dst_u = port;
        match table.expect(*expected, seen.now, sink) {
            Ok(()) => return (port != 0).then_some(port),
            Err(Refused::Clash) if left > 0 => left -= 1,
            Err(_) => return None,
        }
        port = wanted + random.next_u16() % range.max(1);
    }
}

/// `nf_nat_ftp_fmt_cmd`: address and port as the command has them. An IPv6 address is written with all its digits.
fn written(command: Command, ip: IpAddr, address: Addr, port: u16) -> Text {
    let mut text = Text::EMPTY;
    let [high, low] = port.to_be_bytes();
    // The longest of them fits.
    let _ = match (command, ip) {
        (Command::Port | Command::Pasv, _) => {
            let [a, b, c, d, ..] = address.0;
            write!(text, "{a},{b},{c},{d},{high},{low}")
        }
        (Command::Eprt, IpAddr::V4(v4)) => write!(text, "|1|{v4}|{port}|"),
        (Command::Eprt, IpAddr::V6(v6)) => {
            let [a, b, c, d, e, f, g, h] = v6.segments();
            write!(text, "|2|{a:04x}:{b:04x}:{c:04x}:{d:04x}:{e:04x}:{f:04x}:{g:04x}:{h:04x}|{port}|")
        }
        (Command::Epsv, _) => write!(text, "|||{port}|"),
    };
    text
}

/// `find_pattern` for both things that a sender may say.
fn parse(data: &[u8], direction: Direction, l3num: L3, sender: Addr) -> Line {
    for command in Command::of(direction) {
        let word = command.word().as_bytes();
        let begins = data.len().min(word.len());
        if !data.iter().zip(word).take(begins).all(|(a, b)| a.eq_ignore_ascii_case(b)) {
            continue;
        }
        let numbers = || {
            let rest = data.get(word.len()..).filter(|rest| !rest.is_empty())?;
            let skipped = match command.skip() {
                Some(character) => rest.iter().position(|byte| *byte == character)? + 1,
                None => rest.iter().position(u8::is_ascii_digit)?,
            };
            let at = word.len() + skipped;
            let (address, port, length) = numbers(command, data.get(at..)?, l3num, sender)?;
            Some(Named { command, address, port, at, length })
        };
        return numbers().map_or(Line::Partial(command), Line::Names);
    }
    Line::Other
}

/// Address, port, and how many bytes they have.
fn numbers(command: Command, data: &[u8], l3num: L3, sender: Addr) -> Option<(Addr, u16, usize)> {
    match command {
        Command::Port | Command::Pasv => {
            let end = if command == Command::Port { Some(b'\r') } else { None };
            let ([a, b, c, d, high, low], length) = list::<6>(data, b',', end)?;
            let length = (length > 0).then_some(length)?;
            Some((ipv4(sender, [a, b, c, d]), (high << 8 | low) as u16, length))
        }
        Command::Eprt => eprt(data, l3num, sender),
        Command::Epsv => {
            let &[delimiter, second, third, _, ..] = data else { return None };
            if !may_delimit(delimiter) || second != delimiter || third != delimiter {
                return None;
            }
            let (port, length) = port_until(data, 3, delimiter)?;
            Some((sender, port, length))
        }
    }
}

/// Four numbers in the first four bytes of an address, shifted together as the kernel does.
fn ipv4(sender: Addr, [a, b, c, d]: [u32; 4]) -> Addr {
    let mut address = sender;
    address.0[..4].copy_from_slice(&(a << 24 | b << 16 | c << 8 | d).to_be_bytes());
    address
}

/// `try_number`: decimal numbers with `separator` between them, up to `end` or, where any will do, up to the first
/// character that is neither. Numbers may be empty, and may be as large as they like.
fn list<const N: usize>(data: &[u8], separator: u8, end: Option<u8>) -> Option<([u32; N], usize)> {
    let mut values = [0_u32; N];
    let mut at = 0;
    for (length, byte) in data.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                let value = values.get_mut(at)?;
                *value = value.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
            }
            byte if *byte == separator => {
                at += 1;
                if at == N {
                    return None;
                }
            }
            byte => {
                let complete = at == N - 1 && end.is_none_or(|end| end == *byte);
                return complete.then_some((values, length));
            }
        }
    }
    None
}

/// May the character stand between the fields of `EPRT` and `229`?
const fn may_delimit(byte: u8) -> bool {
    matches!(byte, 33..=126) && !byte.is_ascii_digit()
}

/// `try_eprt`: `|1|132.235.1.2|6275|`, `|2|3ffe::1|6275|`, with any delimiter.
fn eprt(data: &[u8], l3num: L3, sender: Addr) -> Option<(Addr, u16, usize)> {
    let &[delimiter, family, again, _, ..] = data else { return None };
    if !may_delimit(delimiter) || again != delimiter {
        return None;
    }
    let rest = data.get(3..)?;
    let (address, length) = match (l3num, family) {
        (L3::V4, b'1') => {
            let (numbers, length) = list::<4>(rest, b'.', Some(delimiter))?;
            (ipv4(sender, numbers), length)
        }
        (L3::V6, b'2') => {
            let (address, length) = ipv6(rest, delimiter)?;
            (Addr(address), length)
        }
        _ => return None,
    };
    let length = (length > 0).then_some(length)?;
    let (port, length) = port_until(data, 3 + length + 1, delimiter)?;
    Some((address, port, length))
}

/// `get_port`: a number other than 0, modulo 2¹⁶, up to the delimiter; and the length up to behind it.
fn port_until(data: &[u8], start: usize, delimiter: u8) -> Option<(u16, usize)> {
    let mut port = 0_u16;
    for (at, byte) in data.iter().enumerate().skip(start) {
        match byte {
            byte if *byte == delimiter => return (port != 0).then_some((port, at + 1)),
            b'0'..=b'9' => port = port.wrapping_mul(10).wrapping_add(u16::from(byte - b'0')),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    const CLIENT: [u8; 4] = [192, 168, 1, 2];

    fn of(data: &str, direction: Direction, address: IpAddr) -> Line {
        let l3num = if address.is_ipv4() { L3::V4 } else { L3::V6 };
        parse(data.as_bytes(), direction, l3num, Addr::from(address))
    }

    fn client(data: &str) -> Line {
        of(data, Direction::Original, CLIENT.into())
    }

    fn server(data: &str) -> Line {
        of(data, Direction::Reply, CLIENT.into())
    }

    fn names(line: Line) -> Option<(IpAddr, u16, usize, usize)> {
        match line {
            Line::Names(named) => Some((named.address.ip(L3::V4), named.port, named.at, named.length)),
            _ => None,
        }
    }

    /// EXP-03, and every leniency that a kernel showed.
    #[test]
    fn commands_are_read_as_the_kernel_reads_them() {
        let own = |port, at, length| Some((IpAddr::from(CLIENT), port, at, length));
        assert_eq!(names(client("PORT 192,168,1,2,4,1\r\n")), own(1025, 5, 15));
        assert_eq!(names(client("port  \r\n")), None);
        assert_eq!(names(client("PORTX 192,168,1,2,4,1\r")), own(1025, 6, 15));
        // Too large numbers are shifted together, missing ones are 0.
        assert_eq!(names(client("PORT 192,168,0,258,0,1025\r")), own(1025, 5, 20));
        assert_eq!(names(client("PORT ,,,,,\r")), Some(([0, 0, 0, 0].into(), 0, 5, 5)));
        assert_eq!(names(client("EPRT |1|192.168.1.2|1025|\r\n")), own(1025, 5, 20));
        assert_eq!(names(client("EPRT x1x192.168.1.2x66561x")), own(1025, 5, 21));
        assert_eq!(names(server("227 Entering Passive Mode (192,168,1,2,4,1).\r\n")), own(1025, 27, 15));
        assert_eq!(names(server("227 =192,168,1,2,4,1x")), own(1025, 5, 15));
        assert_eq!(names(server("229 Entering Extended Passive Mode (|||1025|)\r\n")), own(1025, 36, 8));
    }

    #[test]
    fn what_is_cut_off_or_wrong_is_partial_and_the_rest_is_nothing() {
        for data in ["P", "pORT", "PORT ", "PORT 192,168,1,2,4,1", "PORT 192,168,1,2,4,1\n", "PORT 1,2,3,4,5,6,7\r"] {
            assert_eq!(client(data), Line::Partial(Command::Port), "{data:?}");
        }
        for data in
            ["E", "EPRT |2|::1|5|", "EPRT |1|1.2.3.4|0|", "EPRT 111.2.3.415|", "EPRT |1|1.2.3.4|5", "EPRT |1||5|"]
        {
            assert_eq!(client(data), Line::Partial(Command::Eprt), "{data:?}");
        }
        assert_eq!(server("22"), Line::Partial(Command::Pasv));
        assert_eq!(server("227 none"), Line::Partial(Command::Pasv));
        assert_eq!(server("229 |||5|"), Line::Partial(Command::Epsv));
        for data in ["USER a\r\n", "PASV\r\n", "xPORT 1,2,3,4,5,6\r\n", "\n"] {
            assert_eq!(client(data), Line::Other, "{data:?}");
        }
        assert_eq!(server("220 hello\r\n"), Line::Other);
    }

    #[test]
    fn an_ipv6_address_is_read_in_all_its_forms_and_written_in_full() {
        let address: Ipv6Addr = "fd00:1::2".parse().unwrap();
        for text in ["fd00:1::2", "fd00:1:0:0:0:0:0:2", "FD00:0001::0.0.0.2", "fd00:1::0002"] {
            let line = of(&alloc::format!("EPRT |2|{text}|1025|\r\n"), Direction::Original, address.into());
            let Line::Names(named) = line else { panic!("{text}: {line:?}") };
            assert_eq!((named.address, named.port, named.length), (Addr(address.octets()), 1025, text.len() + 9));
        }
        let text = written(Command::Eprt, address.into(), Addr::from(IpAddr::from(address)), 1025);
        assert_eq!(text.as_bytes(), b"|2|fd00:0001:0000:0000:0000:0000:0000:0002|1025|");
    }

    #[test]
    fn of_two_line_ends_the_older_one_is_forgotten() {
        let mut lines = Lines::default();
        for seq in [u32::MAX - 5, 10, 10, 20, 15] {
            lines.remember(seq);
        }
        assert_eq!(lines.0, [Some(20), Some(15)]);
        lines.remember(1);
        assert!(lines.begin_at(20) && lines.begin_at(15) && !lines.begin_at(1));
    }
}
