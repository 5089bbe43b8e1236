//! The Internet checksum: verified, computed in full, adjusted incrementally (RFC 1071, RFC 1624).

use crate::tuple::{Addr, L3};

/// The running ones' complement sum of 16-bit words, not yet folded. It is summed in the machine's byte order and turned
/// round once at the end, which is the same (RFC 1071 section 2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that start at an even offset of the data; an odd last byte counts as if a zero followed.
    #[must_use]
    #[inline]
    pub fn bytes(mut self, data: &[u8]) -> Sum {
        let (words, rest) = data.as_chunks::<4>();
        self.0 += words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.0 += u64::from(u32::from_ne_bytes(last));
        self
    }

    /// Adds a number of the pseudo header.
    const fn number(self, number: u32) -> Sum {
        Sum(self.0 + number.to_be() as u64)
    }

    /// Adds the pseudo header of an upper-layer protocol (RFC 9293 section 3.1, RFC 8200 section 8.1).
    #[must_use]
    pub fn pseudo_header(self, l3: L3, src: Addr, dst: Addr, protonum: u8, length: usize) -> Sum {
        let addresses = match l3 {
            L3::V4 => 4,
            L3::V6 => 16,
        };
        let sum = self.bytes(&src.0[..addresses]).bytes(&dst.0[..addresses]);
        sum.number(u32::from(protonum)).number(length as u32)
    }

    /// The sum folded to 16 bits. A correct packet, its checksum field included, folds to 0xffff.
    #[must_use]
    #[inline]
    pub const fn fold(self) -> u16 {
        // Each line halves what is left; the first of each pair may carry once more.
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// The value for a checksum field that was zero while summing.
    #[must_use]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// `csum_replace`: the checksum after the bytes `old` of the data became `new`, both of the same even length.
///
/// A checksum that was wrong stays wrong by the same amount (RFC 1624 equation 3). Of the two ways to write zero the
/// result is always 0x0000, never 0xffff, as in the kernel.
#[must_use]
pub fn replaced(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let removed = !Sum::default().bytes(old).fold();
    // 0xffff is zero, too; with it the sum is never the other zero, which would fold to 0 and come out as 0xffff.
    let sum = Sum(0xffff).number(u32::from(!checksum)).number(u32::from(removed)).bytes(new);
    !sum.fold()
}

/// The reflected polynomial of CRC32c (RFC 9260 appendix A).
const CASTAGNOLI: u32 = 0x82f6_3b78;

/// What a byte does to the register, for each byte.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = if register & 1 == 1 { (register >> 1) ^ CASTAGNOLI } else { register >> 1 };
            bit += 1;
        }
        table[byte] = register;
        byte += 1;
    }
    table
};

/// `sctp_compute_cksum`: the CRC32c over an SCTP packet, its own field taken as zero, as the four bytes on the wire
/// read as a big-endian number.
///
/// `packet` starts with the SCTP header; without all its 12 bytes the field is taken as far as it is there.
#[must_use]
pub fn sctp_crc(packet: &[u8]) -> u32 {
    /// Where the checksum field is.
    const FIELD: core::ops::Range<usize> = 8..12;

    let step = |register: u32, byte: u8| (register >> 8) ^ CRC32C[usize::from(register as u8 ^ byte)];
    let register = packet
        .iter()
        .enumerate()
        .fold(u32::MAX, |register, (at, byte)| step(register, if FIELD.contains(&at) { 0 } else { *byte }));
    // The field is little-endian, whatever the machine.
    (!register).swap_bytes()
}
