//! Lines of `conntrack -L -o extended`, taken apart as far as comparing them needs.

use std::collections::BTreeMap;

use super::compare::{Difference, Tolerance};

/// An entry of the table: what names it, its timeout, and all else that was decided about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    line: &'a str,
    /// Protocols and the tuple of the original direction.
    pub(super) key: Vec<&'a str>,
    /// Seconds left; `None` for an entry that never times out.
    pub(super) timeout: Option<u64>,
    /// State, flags, the tuple of the reply direction, mark and counters.
    pub(super) rest: Vec<&'a str>,
}

impl<'a> Entry<'a> {
    /// Takes a line apart. The use count and the entry's own id are chance and left out.
    pub(super) fn parse(line: &'a str) -> Entry<'a> {
        let mut entry = Entry { line, key: Vec::new(), timeout: None, rest: Vec::new() };
        // `ipv4 2 udp 17 29 src=…` with -o extended, `udp 17 29 src=…` without.
        let protocols = if line.starts_with("ipv") { 4 } else { 2 };
        let mut tuples = 0;
        let mut counted = false;
        for (at, token) in line.split_ascii_whitespace().enumerate() {
            tuples += usize::from(token.starts_with("src="));
            counted |= token.starts_with("use=");
            if at < protocols {
                entry.key.push(token);
            } else if let Some(seconds) = token.parse().ok().filter(|_| at == protocols) {
                entry.timeout = Some(seconds);
            } else if counted {
                continue;
            } else if tuples == 1 && token.contains('=') {
                entry.key.push(token);
            } else {
                entry.rest.push(token);
            }
        }
        entry
    }
}

/// Compares two tables, whatever the order of their lines.
pub(super) fn compare(recorded: &[String], decided: &[String], tolerance: Tolerance, out: &mut Vec<Difference>) {
    let mut groups: BTreeMap<Vec<&str>, [Vec<Entry<'_>>; 2]> = BTreeMap::new();
    for (side, lines) in [recorded, decided].into_iter().enumerate() {
        for line in lines {
            let mut entry = Entry::parse(line);
            let group = groups.entry(std::mem::take(&mut entry.key)).or_default();
            if let Some(entries) = group.get_mut(side) {
                entries.push(entry);
            }
        }
    }
    for [mut recorded, mut decided] in groups.into_values() {
        // Entries of one tuple differ in their zone only: equal ones first, then what is left in order.
        recorded.retain(|r| {
            let equal = decided.iter().position(|d| r.rest == d.rest && tolerance.allows(r.timeout, d.timeout));
            equal.map(|at| decided.remove(at)).is_none()
        });
        let mut decided = decided.into_iter();
        for r in recorded {
            let line = r.line.to_owned();
            out.push(match decided.next() {
                None => Difference::EntryMissing { entry: line },
                Some(d) if d.rest == r.rest => {
                    Difference::Timeout { entry: line, recorded: r.timeout, decided: d.timeout }
                }
                Some(d) => Difference::Entry { recorded: line, decided: d.line.to_owned() },
            });
        }
        out.extend(decided.map(|d| Difference::EntryUnexpected { entry: d.line.to_owned() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ICMP: &str = "ipv4     2 icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 src=10.0.0.2 dst=10.0.0.1 \
                        type=0 code=0 id=7 mark=0 use=1";
    const TCP: &str = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=5 dport=80 \
                       src=10.0.0.2 dst=10.0.0.1 sport=80 dport=5 [ASSURED] mark=0 use=1";

    fn differences(recorded: &[&str], decided: &[&str]) -> Vec<Difference> {
        let own = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let mut out = Vec::new();
        compare(&own(recorded), &own(decided), Tolerance::default(), &mut out);
        out
    }

    #[test]
    fn order_use_count_and_id_are_chance() {
        let same = ICMP.replace("use=1", "use=2 id=1789507999").replace("    ", " ");
        assert_eq!(differences(&[ICMP, TCP], &[TCP, &same]), []);
    }

    #[test]
    fn the_id_of_an_echo_is_no_chance() {
        let other = ICMP.replace("id=7", "id=8");
        let [missing, unexpected] = &differences(&[ICMP], &[&other])[..] else { panic!() };
        assert_eq!(missing, &Difference::EntryMissing { entry: ICMP.to_owned() });
        assert_eq!(unexpected, &Difference::EntryUnexpected { entry: other });
    }

    #[test]
    fn state_flags_reply_tuple_and_timeout_count() {
        for (from, to) in
            [("ESTABLISHED", "SYN_RECV"), ("[ASSURED] ", ""), ("dport=5 [", "dport=6 ["), ("mark=0", "mark=1")]
        {
            let other = TCP.replace(from, to);
            let expected = Difference::Entry { recorded: TCP.to_owned(), decided: other.clone() };
            assert_eq!(differences(&[TCP], &[&other]), [expected], "{to}");
        }
        let late = TCP.replace("431999", "431900");
        let expected = Difference::Timeout { entry: TCP.to_owned(), recorded: Some(431_999), decided: Some(431_900) };
        assert_eq!(differences(&[TCP], &[&late]), [expected]);
        assert_eq!(differences(&[TCP], &[&TCP.replace("431999", "432000")]), []);
        assert_eq!(differences(&[TCP], &[&TCP.replace("431999 ", "")]).len(), 1);
    }

    #[test]
    fn zones_share_a_tuple() {
        let (one, two) = (ICMP.replace("mark=0", "mark=0 zone=1"), ICMP.replace("mark=0", "mark=0 zone=2"));
        assert_eq!(differences(&[&one, &two], &[&two, &one]), []);
        assert_eq!(differences(&[&one, &two], &[&two]), [Difference::EntryMissing { entry: one.clone() }]);
        assert_eq!(differences(&[], &[]), []);
        assert_eq!(differences(&["", "x"], &["", "x"]), []);
    }
}
