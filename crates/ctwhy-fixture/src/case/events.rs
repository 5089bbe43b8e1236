//! Lines of `conntrack -E -o extended`: the events of a recording beside those that were decided.

use super::compare::{Difference, Tolerance};
use super::table::Entry;

/// An event: what happened, and the entry.
struct Event<'a> {
    line: &'a str,
    /// `[NEW]`, `[UPDATE]` or `[DESTROY]`.
    kind: &'a str,
    entry: Entry<'a>,
}

impl<'a> Event<'a> {
    fn parse(line: &'a str) -> Event<'a> {
        let (kind, entry) = line.trim_start().split_once(' ').unwrap_or((line, ""));
        Event { line, kind, entry: Entry::parse(entry.trim_start()) }
    }

    /// The deletion of an entry whose time is over. The kernel does it when it meets the entry, or now and then, so that
    /// the place of this event among the others is chance (GC-01). Other deletions tell the time that was left.
    fn is_lazy(&self) -> bool {
        self.kind == "[DESTROY]" && self.entry.timeout.is_none()
    }

    fn equals(&self, other: &Event<'_>, tolerance: Tolerance) -> bool {
        let (own, other_entry) = (&self.entry, &other.entry);
        self.kind == other.kind
            && own.key == other_entry.key
            && own.rest == other_entry.rest
            && tolerance.allows(own.timeout, other_entry.timeout)
    }
}

/// Compares events in their order; those about entries whose time is over wherever they stand.
pub(super) fn compare(recorded: &[String], decided: &[String], tolerance: Tolerance, out: &mut Vec<Difference>) {
    let (lazy, told) = parse(recorded);
    let (mut lazy_decided, decided) = parse(decided);
    in_order(&told, &decided, tolerance, out);
    for event in &lazy {
        match lazy_decided.iter().position(|other| event.equals(other, tolerance)) {
            Some(at) => drop(lazy_decided.swap_remove(at)),
            None => out.push(missing(event)),
        }
    }
    out.extend(lazy_decided.iter().map(unexpected));
}

/// The lazy events, and the others.
fn parse(lines: &[String]) -> (Vec<Event<'_>>, Vec<Event<'_>>) {
    lines.iter().map(|line| Event::parse(line)).partition(Event::is_lazy)
}

fn in_order(recorded: &[Event<'_>], decided: &[Event<'_>], tolerance: Tolerance, out: &mut Vec<Difference>) {
    let (mut recorded, mut decided) = (recorded, decided);
    loop {
        match (recorded, decided) {
            ([r, rest @ ..], [d, others @ ..]) => {
                let same = |a: &Event<'_>, b: &Event<'_>| a.equals(b, tolerance);
                if same(r, d) {
                    (recorded, decided) = (rest, others);
                } else if others.iter().any(|later| same(r, later)) {
                    out.push(unexpected(d));
                    decided = others;
                } else if rest.iter().any(|later| same(later, d)) {
                    out.push(missing(r));
                    recorded = rest;
                } else {
                    out.push(Difference::Event { recorded: r.line.to_owned(), decided: d.line.to_owned() });
                    (recorded, decided) = (rest, others);
                }
            }
            (left, over) => {
                out.extend(left.iter().map(missing));
                out.extend(over.iter().map(unexpected));
                return;
            }
        }
    }
}

fn missing(event: &Event<'_>) -> Difference {
    Difference::EventMissing { event: event.line.to_owned() }
}

fn unexpected(event: &Event<'_>) -> Difference {
    Difference::EventUnexpected { event: event.line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "    [NEW] ipv4     2 udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=6 [UNREPLIED] src=10.0.0.2 \
                       dst=10.0.0.1 sport=6 dport=5 mark=0";

    fn differences(recorded: &[&str], decided: &[&str]) -> Vec<Difference> {
        let own = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let mut out = Vec::new();
        compare(&own(recorded), &own(decided), Tolerance { timeout: Some(1) }, &mut out);
        out
    }

    #[test]
    fn kind_order_and_content_count() {
        let update = NEW.replace("    [NEW]", " [UPDATE]").replace("[UNREPLIED] ", "");
        let (new, update) = (NEW, update.as_str());
        assert_eq!(differences(&[new, update], &[new, update]), []);
        assert_eq!(differences(&[new], &[&new.replace(" 30 ", " 29 ")]), []);
        assert_eq!(differences(&[new, update], &[new]), [Difference::EventMissing { event: update.to_owned() }]);
        assert_eq!(differences(&[update], &[new, update]), [Difference::EventUnexpected { event: new.to_owned() }]);
        assert_eq!(differences(&[new, update], &[update, new]).len(), 2);
        let other = new.replace("mark=0", "mark=1");
        let expected = Difference::Event { recorded: new.to_owned(), decided: other.clone() };
        assert_eq!(differences(&[new], &[&other]), [expected]);
        assert_eq!(differences(&[new], &[&new.replace(" 30 ", " 120 ")]).len(), 1);
    }

    #[test]
    fn the_end_of_an_expired_entry_may_come_late_but_has_to_come() {
        let lazy = NEW.replace("    [NEW]", "[DESTROY]").replace(" 30 ", " ");
        let (new, lazy) = (NEW, lazy.as_str());
        assert_eq!(differences(&[new, lazy, new], &[new, new, lazy]), []);
        assert_eq!(differences(&[new, lazy], &[new]), [Difference::EventMissing { event: lazy.to_owned() }]);
        assert_eq!(differences(&[new], &[new, lazy]), [Difference::EventUnexpected { event: lazy.to_owned() }]);
        let early = lazy.replace("17 src", "17 12 src");
        assert_eq!(differences(&[&early, new], &[new, &early]).len(), 2);
    }
}
