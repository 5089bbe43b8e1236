//! What the ways of a packet are made of: a chain that is asked, NAT, the last hook.

use crate::confirm;
use crate::conntrack::{Attached, Tracked};
use crate::nat::hooks::{Surroundings, translate};
use crate::packet::Packet;
use crate::refragment::Leaving;
use crate::rules::TableName;
use crate::rules::run::{Carried, Scene, run};
use crate::trace::{Sink, Step};
use crate::tuple::L3;
use core::mem;

use super::{DropCause, Egress, Engine, Hook, Passage, Resized, Ruling, Verdict, Way};

impl Engine {
    /// A packet as it left: `buffer` is what [`Engine::receive`] or [`Engine::send`] rewrote when it gave `ruling`. A
    /// packet that a helper made longer is not in there, because it has no room for it, and neither is a datagram that came
    /// in fragments.
    #[must_use]
    pub fn departed<'a>(&'a self, ruling: &'a Ruling, buffer: &'a [u8]) -> &'a [u8] {
        left(&self.spare, ruling.resized, ruling.datagram.as_ref().map_or(buffer, |datagram| &datagram.bytes))
    }

    /// The packets that leave by an interface in the place of one: none, itself as [`Engine::departed`] has it, or its
    /// fragments.
    #[must_use]
    pub fn leaving<'a>(&'a self, ruling: &'a Ruling, buffer: &'a [u8]) -> Leaving<'a> {
        let packet = self.departed(ruling, buffer);
        let len = match (&ruling.datagram, ruling.resized) {
            (Some(datagram), None) => datagram.len,
            _ => packet.len(),
        };
        match (ruling.egress, Packet::parse(packet, len)) {
            (Egress::Forwarded(_), Ok(view)) => Leaving::new(view.bytes, view.len, ruling.cut.as_ref()),
            _ => Leaving::nothing(),
        }
    }

    /// The last thing at the last hook. For most packets there is nothing to do.
    #[inline]
    pub(super) fn confirm<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        if let Attached::Entry(id) = tracked.attached
            && self.conntrack.table.is_at_rest(id)
        {
            way.resized = None;
            return Ok(());
        }
        self.confirm_restless(buffer, tracked, way, sink)
    }

    #[inline(never)]
    fn confirm_restless<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        let confirm = |engine: &mut Engine, tracked: &mut Tracked, sink: &mut S| {
            confirm::confirm(tracked, &mut engine.conntrack.table, way.now, sink)
        };
        way.resized = self.conclude(buffer, tracked, way, sink, confirm)?;
        Ok(())
    }

    /// A chain of mangle or filter, about a packet that is through conntrack.
    #[inline]
    pub(super) fn consult<S: Sink>(
        &mut self,
        table: TableName,
        hook: Hook,
        buffer: &[u8],
        tracked: &mut Tracked,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        if self.rules(way.l3num).table(table).is_none() {
            return Ok(());
        }
        let Ok(packet) = Packet::parse(buffer, way.len) else { return Ok(()) };
        self.ask(table, hook, &packet, Carried::Tracked(tracked), way, sink)
    }

    /// A chain of raw, mangle or filter.
    #[inline]
    pub(super) fn ask<S: Sink>(
        &mut self,
        table: TableName,
        hook: Hook,
        packet: &Packet<'_>,
        carried: Carried<'_>,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        if self.rules(way.l3num).table(table).is_none() {
            return Ok(());
        }
        self.run(table, hook, packet, carried, way, sink)
    }

    #[inline(never)]
    fn run<S: Sink>(
        &mut self,
        table: TableName,
        hook: Hook,
        packet: &Packet<'_>,
        carried: Carried<'_>,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        let Engine { conntrack, rules4, rules6, network, .. } = self;
        let rules = match way.l3num {
            L3::V4 => rules4.table(table),
            L3::V6 => rules6.table(table),
        };
        let Some(rules) = rules else { return Ok(()) };
        let interfaces = (network.name(way.in_interface), network.name(way.out_interface));
        let entries = &mut conntrack.table;
        run(rules, packet, Scene { table, hook, interfaces, mark: &mut way.mark, carried, entries }, sink)
    }

    /// What became of a packet that conntrack has seen.
    pub(super) fn ruling<S: Sink>(
        &mut self,
        hook: Hook,
        passage: &mut Passage,
        ended: Result<Egress, DropCause>,
        sink: &mut S,
    ) -> Ruling {
        let Passage { tracked, way, .. } = passage;
        let (verdict, egress, resized) = match ended {
            Ok(egress) => (Verdict::Accept, egress, way.resized),
            Err(cause) => {
                self.vanish(&tracked.attached, sink);
                (Verdict::Drop(cause), Egress::Nowhere, None)
            }
        };
        Ruling {
            hook,
            ctinfo: Ok(tracked.ctinfo),
            reason: tracked.reason,
            verdict,
            egress,
            attached: mem::replace(&mut tracked.attached, Attached::None),
            rewritten: way.rewritten,
            mark: way.mark,
            resized,
            datagram: way.datagram.take(),
            cut: way.cut.take(),
        }
    }

    /// An entry that is not in the table goes with its packet (NEW-02).
    pub(crate) fn vanish<S: Sink>(&mut self, attached: &Attached, sink: &mut S) {
        let Attached::Unconfirmed(own) = attached else { return };
        sink.step(|| Step::EntryVanished);
        if let Some(master) = &own.master {
            self.conntrack.table.end_expected(&own.flow, master);
        }
    }

    /// The nat table and what flows are bound to, where there is such a table.
    #[inline]
    pub(super) fn nat<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        hook: Hook,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        if self.rules(way.l3num).nat.is_none() {
            return Ok(());
        }
        self.translate(buffer, tracked, hook, way, sink)
    }

    #[inline(never)]
    fn translate<S: Sink>(
        &mut self,
        buffer: &mut [u8],
        tracked: &mut Tracked,
        hook: Hook,
        way: &mut Way,
        sink: &mut S,
    ) -> Result<(), DropCause> {
        let rules = match way.l3num {
            L3::V4 => &self.rules4.nat,
            L3::V6 => &self.rules6.nat,
        };
        let mut around = Surroundings {
            rules: rules.as_ref(),
            network: &self.network,
            in_interface: way.in_interface,
            out_interface: way.out_interface,
            mark: way.mark,
            table: &mut self.conntrack.table,
            random: &mut self.conntrack.random,
            options: &self.conntrack.nat,
            remembered: way.remembered.as_ref(),
            now: way.now,
        };
        let did = translate(buffer, way.len, tracked, hook, &mut around, sink).map_err(DropCause::Nat)?;
        way.linear = way.linear.max(did.linear);
        way.rewritten |= did.rewritten;
        Ok(())
    }
}

/// A packet as it is behind its helper: in `buffer`, or in `spare` when it has outgrown that.
pub(super) fn left<'a>(spare: &'a [u8], resized: Option<Resized>, buffer: &'a [u8]) -> &'a [u8] {
    match resized {
        None => buffer,
        Some(Resized { from, to }) if to > from => spare,
        Some(Resized { to, .. }) => buffer.get(..to).unwrap_or(buffer),
    }
}
