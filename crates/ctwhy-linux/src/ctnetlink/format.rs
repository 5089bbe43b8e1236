//! An entry as `conntrack -L -o extended` prints it.

use std::fmt::{self, Write as _};

use super::{Counters, Entry, EventKind, L4, Tuple, status};

const TCP_STATES: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];

const SCTP_STATES: [&str; 10] = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
];

const fn protocol(number: u8) -> &'static str {
    match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        47 => "gre",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        _ => "unknown",
    }
}

/// One line, as `conntrack -L -o extended` prints it, without the line's end.
#[must_use]
pub fn format_extended(entry: &Entry) -> String {
    let mut line = String::new();
    // Writing into a string does not fail.
    let _ = write(&mut line, entry);
    line.truncate(line.trim_end().len());
    line
}

/// One line, as `conntrack -E -o extended` prints it, without the line's end.
#[must_use]
pub fn format_event(kind: EventKind, entry: &Entry) -> String {
    let kind = match kind {
        EventKind::New => "    [NEW]",
        EventKind::Update => " [UPDATE]",
        EventKind::Destroy => "[DESTROY]",
    };
    format!("{kind} {}", format_extended(entry))
}

fn write(line: &mut String, entry: &Entry) -> fmt::Result {
    let (family, number) = if entry.orig.src.is_ipv4() { ("ipv4", libc::AF_INET) } else { ("ipv6", libc::AF_INET6) };
    write!(line, "{family:<8} {number} {:<8} {} ", protocol(entry.orig.proto), entry.orig.proto)?;
    if let Some(timeout) = entry.timeout {
        write!(line, "{timeout} ")?;
    }
    if let Some(tcp) = entry.tcp {
        write!(line, "{} ", TCP_STATES.get(usize::from(tcp.state)).unwrap_or(&"UNKNOWN"))?;
    }
    if let Some(sctp) = entry.sctp {
        write!(line, "{} ", SCTP_STATES.get(usize::from(sctp.state)).unwrap_or(&"UNKNOWN"))?;
    }
    write_tuple(line, "", &entry.orig, "zone-orig")?;
    write_counters(line, entry.counters.original)?;
    if entry.status & status::SEEN_REPLY == 0 {
        line.write_str("[UNREPLIED] ")?;
    }
    write_tuple(line, "", &entry.reply, "zone-reply")?;
    write_counters(line, entry.counters.reply)?;
    if entry.status & status::HW_OFFLOAD != 0 {
        line.write_str("[HW_OFFLOAD] ")?;
    } else if entry.status & status::OFFLOAD != 0 {
        line.write_str("[OFFLOAD] ")?;
    } else if entry.status & status::ASSURED != 0 {
        line.write_str("[ASSURED] ")?;
    }
    write!(line, "mark={} ", entry.mark)?;
    if entry.zone != 0 {
        write!(line, "zone={} ", entry.zone)?;
    }
    if let Some(helper) = &entry.helper {
        write!(line, "helper={helper} ")?;
    }
    if let Some(count) = entry.use_count {
        write!(line, "use={count} ")?;
    }
    Ok(())
}

/// Addresses, the names of which begin with `prefix`, and what tells flows between them apart.
pub(super) fn write_tuple(line: &mut String, prefix: &str, tuple: &Tuple, zone: &str) -> fmt::Result {
    write!(line, "{prefix}src={} {prefix}dst={} ", tuple.src, tuple.dst)?;
    match tuple.l4 {
        L4::Ports { sport, dport } if i32::from(tuple.proto) == libc::IPPROTO_GRE => {
            write!(line, "srckey=0x{sport:x} dstkey=0x{dport:x} ")?;
        }
        L4::Ports { sport, dport } => write!(line, "sport={sport} dport={dport} ")?,
        L4::Icmp { id, icmp_type, code } => write!(line, "type={icmp_type} code={code} id={id} ")?,
        // The tool knows DCCP, of which kernels without a tracker for it have no ports.
        L4::Generic if i32::from(tuple.proto) == libc::IPPROTO_DCCP => line.write_str("sport=0 dport=0 ")?,
        L4::Generic => {}
    }
    if let Some(number) = tuple.zone {
        write!(line, "{zone}={number} ")?;
    }
    Ok(())
}

fn write_counters(line: &mut String, counters: Option<Counters>) -> fmt::Result {
    match counters {
        Some(Counters { packets, bytes }) => write!(line, "packets={packets} bytes={bytes} "),
        None => Ok(()),
    }
}
