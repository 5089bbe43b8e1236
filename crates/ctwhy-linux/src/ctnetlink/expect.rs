//! Expectations: flows to come, as ctnetlink tells of them (`ctnetlink_exp_dump_expect`) and as `conntrack -L expect`
//! prints them.

use std::fmt::{self, Write as _};
use std::io;

use super::Tuple;
use super::format::write_tuple;
use super::parse::{self, invalid};
use crate::netlink::Message;

// `enum ctattr_expect` (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).
const CTA_EXPECT_MASTER: u16 = 1;
const CTA_EXPECT_TUPLE: u16 = 2;
const CTA_EXPECT_MASK: u16 = 3;
const CTA_EXPECT_TIMEOUT: u16 = 4;
const CTA_EXPECT_HELP_NAME: u16 = 6;
const CTA_EXPECT_FLAGS: u16 = 8;
const CTA_EXPECT_CLASS: u16 = 9;

/// Bits of [`Expectation::flags`] (`NF_CT_EXPECT_*`).
pub mod expect_flags {
    /// It stays when a flow has come.
    pub const PERMANENT: u32 = 1 << 0;
    /// No flow matches it.
    pub const INACTIVE: u32 = 1 << 1;
    /// Made by a helper in user space.
    pub const USERSPACE: u32 = 1 << 2;
}

/// A flow that is still to come, as ctnetlink tells of it. In which zone it is looked for is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its first packet. What does not count of it is 0.
    pub tuple: Tuple,
    /// Which bits of `tuple` count.
    pub mask: Tuple,
    /// The original direction of the flow that it belongs to.
    pub master: Tuple,
    /// Seconds until it is too old.
    pub timeout: u32,
    /// See [`expect_flags`].
    pub flags: u32,
    /// Which of its helper's policies it was made under.
    pub class: u32,
    /// Name of the helper that expects it.
    pub helper: Option<String>,
}

/// The expectation in a message about one.
pub(super) fn read(message: &Message<'_>) -> io::Result<Expectation> {
    let (mut tuple, mut mask, mut master, mut timeout) = (None, None, None, None);
    let (mut flags, mut class, mut helper) = (0, 0, None);
    for attribute in message.attributes() {
        let attribute = attribute?;
        match attribute.kind {
            CTA_EXPECT_MASTER => master = Some(parse::tuple_in(attribute.value)?),
            CTA_EXPECT_TUPLE => tuple = Some(parse::tuple_in(attribute.value)?),
            CTA_EXPECT_MASK => mask = Some(parse::tuple_in(attribute.value)?),
            CTA_EXPECT_TIMEOUT => timeout = Some(attribute.u32()?),
            CTA_EXPECT_FLAGS => flags = attribute.u32()?,
            CTA_EXPECT_CLASS => class = attribute.u32()?,
            CTA_EXPECT_HELP_NAME => helper = Some(parse::name(attribute.value)),
            _ => {}
        }
    }
    let without = |name: &str| invalid(format_args!("an expectation without {name}"));
    Ok(Expectation {
        tuple: tuple.ok_or_else(|| without("CTA_EXPECT_TUPLE"))?,
        mask: mask.ok_or_else(|| without("CTA_EXPECT_MASK"))?,
        master: master.ok_or_else(|| without("CTA_EXPECT_MASTER"))?,
        timeout: timeout.ok_or_else(|| without("CTA_EXPECT_TIMEOUT"))?,
        flags,
        class,
        helper,
    })
}

/// One line, as `conntrack -L expect` prints it, without the line's end.
#[must_use]
pub fn format_expectation(expectation: &Expectation) -> String {
    let mut line = String::new();
    // Writing into a string does not fail.
    let _ = write(&mut line, expectation);
    line.truncate(line.trim_end().len());
    line
}

fn write(line: &mut String, expectation: &Expectation) -> fmt::Result {
    let Expectation { tuple, mask, master, timeout, flags, class, helper } = expectation;
    write!(line, "{timeout} proto={} ", tuple.proto)?;
    for (prefix, tuple) in [("", tuple), ("mask-", mask), ("master-", master)] {
        write_tuple(line, prefix, tuple, "zone")?;
    }
    let mut separator = "";
    for (bit, name) in [
        (expect_flags::PERMANENT, "PERMANENT"),
        (expect_flags::INACTIVE, "INACTIVE"),
        (expect_flags::USERSPACE, "USERSPACE"),
    ] {
        if flags & bit != 0 {
            write!(line, "{separator}{name}")?;
            separator = ",";
        }
    }
    if !separator.is_empty() {
        line.push(' ');
    }
    write!(line, "class={class} ")?;
    match helper {
        Some(helper) => write!(line, "helper={helper}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::damage::{every_way, message, nest};
    use crate::netlink::{Messages, Subsystem};

    const NESTED: u16 = 0x8000;

    fn tuple(addresses: [[u8; 4]; 2], proto: u8, ports: [u16; 2]) -> Vec<u8> {
        let [src, dst] = addresses.map(|address| address.to_vec());
        let [sport, dport] = ports.map(|port| port.to_be_bytes().to_vec());
        let addresses = nest(&[(1, src), (2, dst)]);
        let proto = nest(&[(1, vec![proto]), (2, sport), (3, dport)]);
        nest(&[(1 | NESTED, addresses), (2 | NESTED, proto)])
    }

    fn expectation(proto: u8, flags: u32) -> Vec<u8> {
        let (client, server, all) = ([10, 0, 0, 1], [10, 0, 0, 2], [255; 4]);
        let four = |value: u32| value.to_be_bytes().to_vec();
        message(
            Subsystem::Expect,
            0,
            &[
                (CTA_EXPECT_MASTER | NESTED, tuple([client, server], 6, [40_000, 21])),
                (CTA_EXPECT_TUPLE | NESTED, tuple([server, client], proto, [0, 1025])),
                (CTA_EXPECT_MASK | NESTED, tuple([all, all], proto, [0, 0xffff])),
                (CTA_EXPECT_TIMEOUT, four(299)),
                (CTA_EXPECT_HELP_NAME, b"ftp\0".to_vec()),
                (CTA_EXPECT_FLAGS, four(flags)),
                (CTA_EXPECT_CLASS, four(0)),
            ],
        )
    }

    fn line(bytes: &[u8]) -> String {
        format_expectation(&read(&Messages::new(bytes).next().unwrap().unwrap()).unwrap())
    }

    /// The flags as the library of the tool writes them; no helper of the kernel's that is known here sets one.
    #[test]
    fn an_expectation_is_read_and_damage_does_no_harm() {
        let bytes = expectation(6, 0);
        assert_eq!(
            line(&bytes),
            "299 proto=6 src=10.0.0.2 dst=10.0.0.1 sport=0 dport=1025 mask-src=255.255.255.255 \
             mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.0.0.1 master-dst=10.0.0.2 sport=40000 dport=21 \
             class=0 helper=ftp"
        );
        assert!(line(&expectation(6, 7)).ends_with(" dport=21 PERMANENT,INACTIVE,USERSPACE class=0 helper=ftp"));
        assert!(line(&expectation(47, 1)).contains(" srckey=0x0 dstkey=0x401 mask-src="));
        every_way(&bytes, |message| drop(read(message)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let bytes = message(Subsystem::Expect, 0, &[]);
        let error = read(&Messages::new(&bytes).next().unwrap().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "ctnetlink: an expectation without CTA_EXPECT_TUPLE");
    }
}
