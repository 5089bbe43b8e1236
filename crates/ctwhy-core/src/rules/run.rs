//! A packet at a chain of raw, mangle or filter (`ipt_do_table`).

use super::matches::{Seen, Subject};
use super::target::{Ct, Masks, Target};
use super::{Course, Table, TableName, Walked};
use crate::conntrack::{Attached, Tracked};
use crate::direction::CtInfo;
use crate::event::Causes;
use crate::hook::{DropCause, Hook};
use crate::packet::Packet;
use crate::status::Status;
use crate::table;
use crate::trace::{Ruled, Sink, Step};

/// What is attached to a packet that is not through conntrack yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Early {
    /// Nothing: conntrack does as it always does.
    #[default]
    Nothing,
    /// A template. The number of its zone is read when the packet comes to conntrack.
    Template(Ct),
    /// The packet is exempt.
    Untracked,
}

/// What is attached to a packet (`skb->_nfct`).
pub(crate) enum Carried<'a> {
    /// In front of conntrack.
    Early(&'a mut Early),
    /// Behind it.
    Tracked(&'a mut Tracked),
}

/// What rules may look at and change besides the packet.
pub(crate) struct Scene<'a> {
    pub(crate) table: TableName,
    pub(crate) hook: Hook,
    /// Names of the interfaces that it came in by and leaves by.
    pub(crate) interfaces: (Option<&'a str>, Option<&'a str>),
    pub(crate) mark: &'a mut u32,
    pub(crate) carried: Carried<'a>,
    pub(crate) entries: &'a mut table::Table,
}

/// Asks the chain of a hook about a packet.
///
/// # Errors
/// The rule, or the policy, that dropped it.
pub(crate) fn run<S: Sink>(
    rules: &Table<Target>,
    packet: &Packet<'_>,
    mut scene: Scene<'_>,
    sink: &mut S,
) -> Result<(), DropCause> {
    let (table, hook) = (scene.table, scene.hook);
    let mut end = Ok(());
    let walked = rules.walk(hook, |rule| {
        let subject = Subject { packet, interfaces: scene.interfaces, mark: *scene.mark, seen: scene.seen() };
        if !rule.matches.matches(&subject) {
            return Course::Next;
        }
        let line = Some(rule.line);
        let did = scene.act(&rule.target);
        sink.step(|| Step::Ruled { table, hook, line, did });
        end = match rule.target {
            Target::Drop => Err(DropCause::Rule { table, hook, line, reject: None }),
            Target::Reject(kind) => Err(DropCause::Rule { table, hook, line, reject: Some(kind) }),
            _ => Ok(()),
        };
        rule.target.course()
    });
    if walked == Walked::Policy && rules.chain(hook).drops {
        sink.step(|| Step::Ruled { table, hook, line: None, did: Ruled::Dropped });
        return Err(DropCause::Rule { table, hook, line: None, reject: None });
    }
    end
}

impl Scene<'_> {
    /// What conntrack matches see.
    fn seen(&self) -> Seen {
        let nothing = |ctinfo| Seen { ctinfo, status: Status::default(), mark: 0 };
        match &self.carried {
            Carried::Early(Early::Nothing) => nothing(CtInfo::Invalid),
            Carried::Early(Early::Untracked) => nothing(CtInfo::Untracked),
            // The kernel attaches a template as if it were the entry of a new flow.
            Carried::Early(Early::Template(_)) => Seen { ctinfo: CtInfo::New, status: Status::CONFIRMED, mark: 0 },
            Carried::Tracked(tracked) => seen(tracked, self.entries),
        }
    }

    /// Does what a target does, and says what that was.
    fn act(&mut self, target: &Target) -> Ruled {
        match *target {
            Target::Accept => Ruled::Accepted,
            Target::Drop => Ruled::Dropped,
            Target::Reject(kind) => Ruled::Rejected(kind),
            Target::Return => Ruled::Returned,
            Target::Jump(_) | Target::Goto(_) => Ruled::Jumped,
            Target::Log => Ruled::Logged,
            Target::NoTrack => self.attach(Early::Untracked, Ruled::Untracked),
            Target::Ct(ct) => {
                let template = ct.template(*self.mark);
                self.attach(Early::Template(ct), Ruled::Template(template))
            }
            Target::Mark(masked) => {
                *self.mark = masked.set(*self.mark);
                Ruled::Marked { to: *self.mark }
            }
            Target::SetConnMark(masked) => self.mark_flow(|mark| masked.set(mark)),
            Target::SaveMark(Masks { packet, flow }) => {
                let saved = *self.mark & packet;
                self.mark_flow(|mark| (mark & !flow) ^ saved)
            }
            Target::RestoreMark(Masks { packet, flow }) => {
                let seen = self.seen();
                if seen.ctinfo.direction().is_none() {
                    return Ruled::Ignored;
                }
                *self.mark = (*self.mark & !packet) ^ (seen.mark & flow);
                Ruled::Marked { to: *self.mark }
            }
        }
    }

    /// Attaches something to a packet that carries nothing yet; the first rule that does so decides.
    fn attach(&mut self, what: Early, done: Ruled) -> Ruled {
        match &mut self.carried {
            Carried::Early(early @ Early::Nothing) => {
                **early = what;
                done
            }
            _ => Ruled::Ignored,
        }
    }

    fn mark_flow(&mut self, change: impl FnOnce(u32) -> u32) -> Ruled {
        let Carried::Tracked(tracked) = &mut self.carried else { return Ruled::Ignored };
        let parts = match &mut tracked.attached {
            Attached::Entry(id) => self.entries.get_mut(*id).map(|entry| (entry.mark, entry.pending)),
            Attached::Unconfirmed(own) => Some((&mut own.flow.mark, &mut own.flow.pending)),
            Attached::None | Attached::Untracked => None,
        };
        let Some((mark, pending)) = parts else { return Ruled::Ignored };
        let to = change(*mark);
        if to != *mark {
            *mark = to;
            *pending |= Causes::MARK;
        }
        Ruled::FlowMarked { to }
    }
}

/// What conntrack says about a packet that is through it.
pub(crate) fn seen(tracked: &Tracked, entries: &table::Table) -> Seen {
    let flow = match &tracked.attached {
        Attached::Entry(id) => entries.status(*id).zip(entries.mark(*id)),
        Attached::Unconfirmed(own) => Some((own.flow.status, own.flow.mark)),
        Attached::None | Attached::Untracked => None,
    };
    let (status, mark) = flow.unwrap_or_default();
    Seen { ctinfo: tracked.ctinfo, status, mark }
}
