//! What a file that is no capture looks like, so that the error can say what to do.

use std::fmt;

/// What the first bytes of a file look like when they are neither pcap nor pcapng.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Looks {
    /// Compressed with gzip.
    Gzip,
    /// Compressed with zstd.
    Zstd,
    /// Compressed with xz.
    Xz,
    /// Compressed with bzip2.
    Bzip2,
    /// Compressed with lz4.
    Lz4,
    /// A zip archive.
    Zip,
    /// A snoop capture (RFC 1761).
    Snoop,
    /// Printable text.
    Text,
    /// A program or shared object.
    Elf,
    /// Nothing known; the first bytes, zero-filled when there are fewer.
    Unknown([u8; 4]),
}

impl Looks {
    /// Judges the first bytes of a file; a few hundred are enough.
    #[must_use]
    pub fn of(start: &[u8]) -> Looks {
        const KNOWN: [(&[u8], Looks); 8] = [
            (&[0x1f, 0x8b], Looks::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Looks::Zstd),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Looks::Xz),
            (b"BZh", Looks::Bzip2),
            (&[0x04, 0x22, 0x4d, 0x18], Looks::Lz4),
            (b"PK\x03\x04", Looks::Zip),
            (b"snoop\0\0\0", Looks::Snoop),
            (b"\x7fELF", Looks::Elf),
        ];
        if let Some((_, looks)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
            return *looks;
        }
        let head = start.get(..512).unwrap_or(start);
        let printable = head.iter().all(|&b| b >= 0x20 && b != 0x7f || matches!(b, b'\t' | b'\n' | b'\r'));
        if printable && !head.is_empty() {
            return Looks::Text;
        }
        let mut first = [0; 4];
        for (to, from) in first.iter_mut().zip(start) {
            *to = *from;
        }
        Looks::Unknown(first)
    }

    /// Says what the file is and how to get a capture out of it.
    pub(super) fn explain(self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is no capture: ")?;
        let pack = match self {
            Looks::Gzip => ("gzip", "gzip -dc"),
            Looks::Zstd => ("zstd", "zstd -dc"),
            Looks::Xz => ("xz", "xz -dc"),
            Looks::Bzip2 => ("bzip2", "bzip2 -dc"),
            Looks::Lz4 => ("lz4", "lz4 -dc"),
            Looks::Zip => return f.write_str("it looks like a zip archive; unpack it first"),
            Looks::Snoop => {
                return write!(f, "it is a snoop capture; convert it with `editcap -F pcapng {file} OUT.pcapng`");
            }
            Looks::Text => {
                return f.write_str(
                    "it looks like text; a capture is what `tcpdump -w FILE` or Wireshark saves, not what they print",
                );
            }
            Looks::Elf => return f.write_str("it is a program; name a pcap or pcapng file"),
            Looks::Unknown([a, b, c, d]) => {
                return write!(
                    f,
                    "it starts with bytes {a:02x} {b:02x} {c:02x} {d:02x}, which neither pcap nor pcapng do; name a file \
                     that `tcpdump -w` or Wireshark saved"
                );
            }
        };
        let (name, command) = pack;
        if file == "-" {
            write!(f, "it is compressed with {name}; put `{command} |` in front")
        } else {
            write!(f, "it is compressed with {name}; unpack it with `{command} {file}` and pipe that into `-`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_are_recognised() {
        assert_eq!(Looks::of(&[0x1f, 0x8b, 8, 0]), Looks::Gzip);
        assert_eq!(Looks::of(b"10:00:00.1 IP 10.0.0.1 > 10.0.0.2: ICMP\n"), Looks::Text);
        assert_eq!(Looks::of("grüße".as_bytes()), Looks::Text);
        assert_eq!(Looks::of(&[0, 1]), Looks::Unknown([0, 1, 0, 0]));
        assert_eq!(Looks::of(&[]), Looks::Unknown([0; 4]));
    }
}
