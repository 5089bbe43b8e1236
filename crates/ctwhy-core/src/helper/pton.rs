//! IPv6 addresses as the kernel reads them out of a payload (`in6_pton`).

/// What may come next, one bit each.
mod may {
    pub(super) const DIGIT: u8 = 1;
    /// A colon, the first of its kind.
    pub(super) const COLON: u8 = 2;
    /// A colon that makes `::` of the one before.
    pub(super) const SECOND: u8 = 4;
    /// A colon that may become `::`.
    pub(super) const DOUBLE: u8 = 8;
    pub(super) const DOT: u8 = 16;
    pub(super) const END: u8 = 32;
    /// The group at hand may be empty.
    pub(super) const EMPTY: u8 = 64;

    pub(super) const ANY_COLON: u8 = COLON | SECOND | DOUBLE;
}

/// A character of an address.
enum Char {
    End,
    Colon,
    Dot,
    Digit(u32),
    Other,
}

/// The end of the text ends an address as its delimiter does.
fn char_at(text: &[u8], at: usize, delimiter: u8) -> Char {
    match text.get(at) {
        None | Some(0) => Char::End,
        Some(byte) if *byte == delimiter => Char::End,
        Some(b':') => Char::Colon,
        Some(b'.') => Char::Dot,
        Some(byte) => char::from(*byte).to_digit(16).map_or(Char::Other, Char::Digit),
    }
}

/// `in6_pton`: the address at the start of `text`, up to `delimiter`, and how many bytes it has.
pub(super) fn ipv6(text: &[u8], delimiter: u8) -> Option<([u8; 16], usize)> {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    // How much was filled where the `::` stands.
    let mut gap: Option<usize> = None;
    let mut state = may::DOUBLE | may::DIGIT | may::EMPTY;
    let mut word = 0_u32;
    let mut group = 0;
    let mut at = 0;
    let end = loop {
        match char_at(text, at, delimiter) {
            c @ (Char::End | Char::Colon) => {
                let ends = matches!(c, Char::End);
                if state & (if ends { may::END } else { may::ANY_COLON }) == 0 {
                    return None;
                }
                if state & may::EMPTY == 0 {
                    bytes.get_mut(filled..filled + 2)?.copy_from_slice(&(word as u16).to_be_bytes());
                    filled += 2;
                }
                word = 0;
                if ends {
                    break at;
                }
                state = match state & may::ANY_COLON {
                    may::SECOND => {
                        gap = Some(filled);
                        may::DIGIT | may::END | if filled >= 16 { may::EMPTY } else { 0 }
                    }
                    both if both == may::COLON | may::DOUBLE => may::DIGIT | may::SECOND,
                    may::COLON => may::DIGIT,
                    may::DOUBLE => may::SECOND,
                    _ => 0,
                };
                group = at + 1;
            }
            Char::Dot => {
                if state & may::DOT == 0 {
                    return None;
                }
                let (v4, length) = ipv4(text.get(group..)?, delimiter)?;
                bytes.get_mut(filled..filled + 4)?.copy_from_slice(&v4);
                filled += 4;
                break group + length;
            }
            Char::Digit(digit) => {
                if state & may::DIGIT == 0 {
                    return None;
                }
                word = word << 4 | digit;
                state = may::COLON | may::END;
                if word & 0xf000 == 0 {
                    state |= may::DIGIT;
                }
                if gap.is_none() && filled + 2 < 16 {
                    state |= may::DOUBLE;
                    state &= !may::END;
                }
                if filled + 2 >= 16 {
                    state &= !(may::COLON | may::DOUBLE);
                }
            }
            Char::Other => return None,
        }
        if (gap.is_some() && filled + 4 < 16) || filled + 4 == 16 {
            state |= may::DOT;
        }
        if filled >= 16 {
            state &= !(may::DIGIT | may::ANY_COLON);
        }
        at += 1;
    };
    if let Some(gap) = gap {
        let behind = filled - gap;
        bytes.copy_within(gap..filled, 16 - behind);
        bytes[gap..16 - behind].fill(0);
    }
    Some((bytes, end))
}

/// `in4_pton`: as [`ipv6`], for four decimal numbers of at most 255.
fn ipv4(text: &[u8], delimiter: u8) -> Option<([u8; 4], usize)> {
    let mut bytes = [0_u8; 4];
    let mut filled = 0;
    let mut word: Option<u32> = None;
    let mut at = 0;
    loop {
        match char_at(text, at, delimiter) {
            Char::Digit(digit) if digit < 10 => {
                let value = word.unwrap_or(0) * 10 + digit;
                word = Some(value).filter(|value| *value <= 255);
                word?;
            }
            c @ (Char::Dot | Char::End | Char::Colon) => {
                *bytes.get_mut(filled)? = word.take()? as u8;
                filled += 1;
                if !matches!(c, Char::Dot) {
                    return (filled == 4).then_some((bytes, at));
                }
            }
            _ => return None,
        }
        if filled >= 4 {
            return None;
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    /// Whatever both take for an address is the same one, and nothing makes the kernel's way of reading panic.
    #[test]
    fn agrees_with_the_standard_library_where_both_read_an_address() {
        let pieces =
            ["", ":", "::", "0", "1", "ffff", "fd00", "10000", ".", "1.2.3.4", "255", "g", "0000", "2:3", "a:b:c"];
        let mut random = crate::random::Random::new(7);
        let mut agreed = 0;
        for _ in 0..200_000 {
            let mut text = alloc::string::String::new();
            for _ in 0..random.next_u16() % 10 {
                text.push_str(pieces[usize::from(random.next_u16()) % pieces.len()]);
            }
            let read = ipv6(text.as_bytes(), b'|').filter(|(_, length)| *length == text.len());
            if let (Some((bytes, _)), Ok(address)) = (read, text.parse::<Ipv6Addr>()) {
                assert_eq!(bytes, address.octets(), "{text}");
                agreed += 1;
            }
        }
        assert!(agreed > 100, "{agreed}");
    }
}
