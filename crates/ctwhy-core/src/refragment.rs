//! A packet leaves in fragments: those it came in, or new ones (`ip_do_fragment`, `ip6_fragment`; FRAG-02, FRAG-03).

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::checksum::Sum;
use crate::hook::DropCause;
use crate::packet::{IPV4_HEADER, IPV6_HEADER, be16, find_first_fragmentable};
use crate::random::Random;
use crate::tuple::L3;

/// The fragment header of IPv6.
const FRAGMENT_HEADER: usize = 8;
/// The smallest MTU of IPv6.
const IPV6_MIN_MTU: usize = 1_280;
const NEXT_FRAGMENT: u8 = 44;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// How a datagram lies in memory, as its fragments brought it. It leaves in the same pieces if they are of use: what was
/// changed on the way in its first bytes may have moved the first boundary, and in front of each piece there must be room
/// for the headers, which is where the piece had its own.
///
/// More room than that is up to the driver that received it; here it is what veth leaves, which is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Geometry {
    /// Bytes in the first piece, with the headers.
    linear: usize,
    /// Each of the others: bytes in it, and room in front of it.
    rest: Vec<(usize, usize)>,
    /// The length of the longest fragment, as a packet.
    longest: usize,
    /// Do new fragments carry DF (`IPSKB_FRAG_PMTU`)?
    dont_fragment: bool,
}

impl Geometry {
    /// `header` bytes of headers in front of `pieces`, each with its bytes and the room in front of it.
    pub(crate) fn new(
        header: usize,
        mut pieces: impl Iterator<Item = (usize, usize)>,
        longest: usize,
        dont_fragment: bool,
    ) -> Geometry {
        let linear = header + pieces.next().map_or(0, |(bytes, _)| bytes);
        Geometry { linear, rest: pieces.collect(), longest, dont_fragment }
    }

    /// `pskb_may_pull`: the first `linear` bytes, which are no more than there are, must lie in one piece.
    pub(crate) fn pull(&mut self, linear: usize) {
        let mut missing = linear.saturating_sub(self.linear);
        self.linear += missing;
        let is_eaten = |&&(bytes, _): &&(usize, usize)| {
            let whole = bytes <= missing;
            missing -= if whole { bytes } else { 0 };
            whole
        };
        let eaten = self.rest.iter().take_while(is_eaten).count();
        self.rest.drain(..eaten);
        if let Some((bytes, room)) = self.rest.first_mut() {
            *bytes -= missing;
            *room += missing;
        }
    }

    /// Can the pieces leave as they are, each with `header` bytes in front of it and at most `most` in it?
    fn fits(&self, header: usize, most: usize, fragment_header: usize) -> bool {
        let first = self.linear.saturating_sub(header);
        let Some((last, between)) = self.rest.split_last() else { return false };
        let whole = |bytes: usize| bytes <= most && bytes.is_multiple_of(8);
        whole(first)
            && between.iter().all(|(bytes, _)| whole(*bytes))
            && last.0 <= most
            && self.rest.iter().all(|(_, room)| *room >= header + fragment_header)
    }
}

/// A packet on its way out, and what decides in how many pieces it goes.
pub(crate) struct Outgoing<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) len: usize,
    pub(crate) l3num: L3,
    /// Of the interface; `None` when it is not known and nothing is too long.
    pub(crate) mtu: Option<u32>,
    /// How many bytes had to lie in one piece on the way.
    pub(crate) linear: usize,
    /// Of a datagram that was put together.
    pub(crate) geometry: Option<&'a Geometry>,
}

impl Outgoing<'_> {
    fn mtu(&self) -> usize {
        let mtu = self.mtu.map_or(usize::MAX, |mtu| mtu as usize);
        if self.l3num == L3::V6 { mtu.max(IPV6_MIN_MTU) } else { mtu }
    }

    fn too_big(&self) -> DropCause {
        DropCause::TooBig { mtu: self.mtu().try_into().unwrap_or(u32::MAX) }
    }

    /// `ip_exceeds_mtu`, `ip6_pkt_too_big`: must the packet not be forwarded, because it or a fragment of it was longer than
    /// the MTU and must not be cut?
    pub(crate) fn may_be_forwarded(&self) -> Result<(), DropCause> {
        if self.len <= self.mtu() || (self.l3num == L3::V4 && !dont_fragment(self.bytes)) {
            return Ok(());
        }
        match self.geometry {
            Some(geometry) if geometry.longest <= self.mtu() => Ok(()),
            _ => Err(self.too_big()),
        }
    }

    /// Did it come in one piece, and is it not too long to leave in one?
    #[inline]
    pub(crate) fn leaves_whole(&self) -> bool {
        self.geometry.is_none() && self.len <= self.mtu()
    }

    /// How the packet leaves; `None` when in one piece.
    pub(crate) fn cut(&self, random: &mut Random) -> Result<Option<Cut>, DropCause> {
        match self.l3num {
            _ if self.leaves_whole() => Ok(None),
            L3::V4 => self.cut_v4().map(Some),
            L3::V6 => self.cut_v6(random),
        }
    }

    /// `ip_fragment`, `ip_do_fragment`: whatever came in fragments is looked at, however short it is.
    fn cut_v4(&self) -> Result<Cut, DropCause> {
        let mtu = self.mtu();
        if dont_fragment(self.bytes) && self.geometry.is_none_or(|geometry| geometry.longest > mtu) {
            return Err(self.too_big());
        }
        let most = self.geometry.map_or(mtu, |geometry| geometry.longest.min(mtu));
        let header = self.bytes.first().map_or(IPV4_HEADER, |byte| usize::from(byte & 0x0f) * 4);
        let room = most.checked_sub(header).filter(|room| *room >= 8).ok_or(DropCause::Unfragmentable)?;
        let pieces = self.pieces(header, room, 0);
        let anew = matches!(pieces, Pieces::Anew { .. });
        let dont_fragment = anew && self.geometry.is_some_and(|geometry| geometry.dont_fragment);
        Ok(Cut { header, form: Form::V4 { dont_fragment }, pieces })
    }

    /// `__ip6_finish_output`, `ip6_fragment`.
    fn cut_v6(&self, random: &mut Random) -> Result<Option<Cut>, DropCause> {
        let mtu = self.mtu();
        let longest = self.geometry.map(|geometry| geometry.longest);
        if self.len <= mtu && longest.is_none_or(|longest| self.len <= longest) {
            return Ok(None);
        }
        let linear = self.geometry.map_or(self.len, |geometry| geometry.linear.max(self.linear));
        let Some((next_at, header)) = find_first_fragmentable(self.bytes, linear) else {
            return Err(DropCause::Unfragmentable);
        };
        let Some(longest) = longest.filter(|longest| *longest <= mtu) else { return Err(self.too_big()) };
        let room = longest.max(IPV6_MIN_MTU).checked_sub(header + FRAGMENT_HEADER).filter(|room| *room >= 8);
        let Some(room) = room else { return Err(self.too_big()) };
        let form = Form::V6 { next_at, id: random.next_nonzero_u32() };
        Ok(Some(Cut { header, form, pieces: self.pieces(header, room, FRAGMENT_HEADER) }))
    }

    /// The pieces that the packet came in, where they can leave as they are; else new ones of at most `most` bytes.
    fn pieces(&self, header: usize, most: usize, fragment_header: usize) -> Pieces {
        let Some(mut geometry) = self.geometry.cloned() else { return Pieces::Anew { most } };
        geometry.pull(self.linear);
        if !geometry.fits(header, most, fragment_header) {
            return Pieces::Anew { most };
        }
        let first = geometry.linear.saturating_sub(header);
        Pieces::AsReceived([first].into_iter().chain(geometry.rest.iter().map(|(bytes, _)| *bytes)).collect())
    }
}

fn dont_fragment(header: &[u8]) -> bool {
    be16(header, 6).is_some_and(|place| place & DONT_FRAGMENT != 0)
}

/// How a packet leaves in fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of headers that each fragment has.
    header: usize,
    form: Form,
    pieces: Pieces,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    V4 { dont_fragment: bool },
    V6 { next_at: usize, id: u32 },
}

/// The data of the fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pieces {
    /// In the pieces that it came in, of so many bytes.
    AsReceived(Vec<usize>),
    /// In new ones.
    Anew { most: usize },
}

impl Cut {
    /// Does it leave in the fragments that it came in?
    #[must_use]
    pub const fn is_as_received(&self) -> bool {
        matches!(self.pieces, Pieces::AsReceived(_))
    }

    /// How many fragments a packet of `len` bytes makes.
    #[must_use]
    pub fn count(&self, len: usize) -> usize {
        match &self.pieces {
            Pieces::AsReceived(pieces) => pieces.len(),
            // Only the last one may have more than a multiple of eight.
            Pieces::Anew { most } => 1 + len.saturating_sub(self.header + most).div_ceil((most & !7).max(8)),
        }
    }

    /// How many bytes fragment `index` has, of `left` that are left.
    fn piece(&self, index: usize, left: usize) -> usize {
        match &self.pieces {
            Pieces::AsReceived(pieces) => pieces.get(index).copied().unwrap_or(0),
            Pieces::Anew { most } if *most < left => most & !7,
            Pieces::Anew { .. } => left,
        }
    }

    fn put_together(&self, packet: &[u8], offset: usize, piece: usize, is_last: bool) -> Vec<u8> {
        let mut fragment = packet.get(..self.header).unwrap_or(packet).to_vec();
        let data = packet.get((self.header + offset).min(packet.len())..).unwrap_or(&[]);
        let data = data.get(..piece).unwrap_or(data);
        let len = self.header + piece;
        match self.form {
            Form::V4 { dont_fragment } => {
                if offset > 0 {
                    keep_copied_options(&mut fragment);
                }
                let keep = if dont_fragment { DONT_FRAGMENT } else { 0 };
                let place = (offset >> 3) as u16 | keep | if is_last { 0 } else { MORE_FRAGMENTS };
                put16(&mut fragment, 2, len as u16);
                put16(&mut fragment, 6, place);
                put16(&mut fragment, 10, 0);
                let checksum = Sum::default().bytes(&fragment).checksum();
                put16(&mut fragment, 10, checksum);
            }
            Form::V6 { next_at, id } => {
                let next = fragment.get_mut(next_at).map_or(0, |next| core::mem::replace(next, NEXT_FRAGMENT));
                put16(&mut fragment, 4, (len + FRAGMENT_HEADER - IPV6_HEADER.min(len)) as u16);
                fragment.extend([next, 0]);
                fragment.extend((offset as u16 & !7 | u16::from(!is_last)).to_be_bytes());
                fragment.extend(id.to_be_bytes());
            }
        }
        fragment.extend_from_slice(data);
        fragment
    }
}

/// `ip_options_fragment`: fragments other than the first keep only the options that say so; the others become NOPs.
fn keep_copied_options(header: &mut [u8]) {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut rest = header.get_mut(IPV4_HEADER..).unwrap_or_default();
    while let [kind, tail @ ..] = rest {
        let length = match *kind {
            END => return,
            NOP => 1,
            _ => usize::from(tail.first().copied().unwrap_or(0)),
        };
        if length > rest.len() || (length < 2 && rest.first() != Some(&NOP)) {
            return;
        }
        let (option, others) = rest.split_at_mut(length);
        if option.first().is_some_and(|kind| kind & COPIED == 0) {
            option.fill(NOP);
        }
        rest = others;
    }
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The packets that leave in place of one: itself, its fragments, or none. Only fragments are copied.
#[derive(Clone, Debug)]
pub struct Leaving<'a>(State<'a>);

#[derive(Clone, Debug)]
enum State<'a> {
    Nothing,
    Itself(&'a [u8]),
    Fragments { packet: &'a [u8], cut: &'a Cut, index: usize, offset: usize, left: usize },
}

impl<'a> Leaving<'a> {
    pub(crate) const fn nothing() -> Leaving<'a> {
        Leaving(State::Nothing)
    }

    /// `packet` without what may stand behind it, of `len` bytes on the wire.
    pub(crate) fn new(packet: &'a [u8], len: usize, cut: Option<&'a Cut>) -> Leaving<'a> {
        Leaving(match cut {
            None => State::Itself(packet),
            Some(cut) => State::Fragments { packet, cut, index: 0, offset: 0, left: len.saturating_sub(cut.header) },
        })
    }
}

impl<'a> Iterator for Leaving<'a> {
    type Item = Cow<'a, [u8]>;

    fn next(&mut self) -> Option<Cow<'a, [u8]>> {
        match &mut self.0 {
            State::Nothing => None,
            State::Itself(packet) => {
                let packet = *packet;
                self.0 = State::Nothing;
                Some(Cow::Borrowed(packet))
            }
            State::Fragments { packet, cut, index, offset, left } => {
                let piece = cut.piece(*index, *left);
                let at = *offset;
                if piece == 0 {
                    return None;
                }
                *index += 1;
                *offset += piece;
                *left = left.saturating_sub(piece);
                Some(Cow::Owned(cut.put_together(packet, at, piece, *left == 0)))
            }
        }
    }
}
