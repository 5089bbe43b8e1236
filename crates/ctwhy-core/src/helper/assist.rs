//! What comes before confirm at the last hook (`nf_confirm`): the helper reads, the payload and the numbers follow.

use super::{HelperStep, Seen, help, mangle::Mangle, tell};
use crate::conntrack::{Attached, Tracked};
use crate::direction::{CtInfo, Direction};
use crate::extension::{Extension, ExtensionId};
use crate::helper::Help;
use crate::hook::{DropCause, Engine, Resized, Way};
use crate::packet::{Packet, be32};
use crate::seqadj;
use crate::status::Status;
use crate::table::EntryId;
use crate::trace::Sink;

impl Engine {
    /// Lets the helper of the packet's flow read it. What NAT has to change in the payload is changed, in `buffer` or,
    /// where the packet outgrows it, in a buffer of the engine's own.
    #[inline]
    pub(crate) fn assist<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &Way,
        sink: &mut S,
    ) -> Result<Option<Resized>, DropCause> {
        match self.extension_of(tracked) {
            None => Ok(None),
            Some(id) => self.assist_extended(id, buffer, tracked, way, sink),
        }
    }

    /// The extension of the packet's flow. A flow that is about to be confirmed gets the one that it needs.
    fn extension_of(&mut self, tracked: &mut Tracked) -> Option<ExtensionId> {
        let table = &mut self.conntrack.table;
        match &mut tracked.attached {
            Attached::Entry(id) => table.extension(*id),
            Attached::Unconfirmed(own) => {
                let begins = tracked.ctinfo.direction() == Some(Direction::Original)
                    && !own.flow.status.contains(Status::CONFIRMED);
                if begins && (own.flow.helper.is_some() || own.master.is_some()) {
                    let help = own.flow.helper.map(Help::new);
                    let extension = Extension { master: own.master, help, ..Extension::default() };
                    own.flow.extension = Some(table.extensions.add(extension));
                }
                own.flow.extension
            }
            Attached::None | Attached::Untracked => None,
        }
    }

    #[cold]
    fn assist_extended<S: Sink>(
        &mut self,
        id: ExtensionId,
        buffer: &mut [u8],
        tracked: &Tracked,
        way: &Way,
        sink: &mut S,
    ) -> Result<Option<Resized>, DropCause> {
        let table = &mut self.conntrack.table;
        let (entry, flow) = match &tracked.attached {
            Attached::Entry(entry) => (Some(*entry), table.get(*entry).map(|entry| entry.flow)),
            Attached::Unconfirmed(own) => (None, Some(own.flow)),
            Attached::None | Attached::Untracked => (None, None),
        };
        let (Some(flow), Some(direction)) = (flow, tracked.ctinfo.direction()) else { return Ok(None) };
        let adjusts = flow.status.contains(Status::SEQ_ADJUST);
        // Only errors are RELATED in reply direction.
        if (flow.helper.is_none() && !adjusts) || tracked.ctinfo == CtInfo::RelatedReply {
            return Ok(None);
        }
        let parsed = Packet::parse(buffer, way.len).ok();
        let Some(offset) = parsed.and_then(|packet| packet.transport.ok()).map(|transport| transport.offset) else {
            return Ok(None);
        };
        let mut mangle = None;
        match (flow.helper, buffer.get(..way.len)) {
            (Some(_), Some(whole)) => {
                let l4 = whole.get(offset..).unwrap_or_default();
                let (ctinfo, flow, now) = (tracked.ctinfo, &flow, way.now);
                let seen = Seen { l4, offset, ctinfo, direction, flow, id, now };
                mangle = help(&seen, table, &mut self.conntrack.random, sink).map_err(DropCause::Helper)?;
            }
            (Some(helper), None) => tell(sink, || HelperStep::Cut(helper)),
            (None, _) => {}
        }
        let (packet, len) = match &mangle {
            None => (buffer, way.len),
            Some(mangle) => {
                let seq = be32(buffer, offset + 4).unwrap_or(0);
                self.shift((id, entry), direction, seq, mangle, sink);
                mangle.apply(buffer, way.len, &mut self.spare, sink)
            }
        };
        let end = len.min(packet.len());
        let packet = packet.get_mut(..end).unwrap_or_default();
        if adjusts && let Some(extension) = self.conntrack.table.extensions.get(id) {
            seqadj::adjust(packet, offset, direction, &extension.seqadj, sink).map_err(DropCause::SeqAdjust)?;
        }
        if let Some(mangle) = &mangle {
            mangle.seal(packet, way.l3num, sink);
        }
        Ok((len != way.len).then_some(Resized { from: way.len, to: len }))
    }

    /// `nf_ct_seqadj_set`: a segment at `seq` is about to change its length.
    fn shift<S: Sink>(
        &mut self,
        (id, entry): (ExtensionId, Option<EntryId>),
        direction: Direction,
        seq: u32,
        mangle: &Mangle,
        sink: &mut S,
    ) {
        let growth = mangle.growth();
        let table = &mut self.conntrack.table;
        if growth == 0 {
            return;
        }
        if let Some(entry) = entry.and_then(|entry| table.get_mut(entry)) {
            *entry.status |= Status::SEQ_ADJUST;
        }
        if let Some(extension) = table.extensions.get_mut(id) {
            let way = &mut extension.seqadj[direction.index()];
            if way.shift(seq, growth) {
                let (position, before, after) = (way.position, way.before as i32, way.after as i32);
                tell(sink, || HelperStep::Shifted { direction, position, before, after });
            }
        }
    }
}
