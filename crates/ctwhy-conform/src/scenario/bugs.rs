//! What NATs and firewalls really got wrong, by the case in which one can see it done right.
//!
//! The letters and numbers are those of the book's page about them. Each case says in `shows` which of them it is about.

/// A mistake that was made in the field.
struct Bug {
    /// Its name in the book.
    label: &'static str,
    /// What was done wrong.
    wrong: &'static str,
    /// The scenarios that show it done right.
    scenarios: &'static [&'static str],
}

const fn bug(label: &'static str, wrong: &'static str, scenarios: &'static [&'static str]) -> Bug {
    Bug { label, wrong, scenarios }
}

const BUGS: &[Bug] = &[
    bug("A1", "the outer header is translated and the quoted one is not", &["snat-errors"]),
    bug("A2", "the checksum of the error is not adjusted", &["error-about-echo-masquerade"]),
    bug("A3", "the quoted echo is translated by the type of the error", &["error-about-echo-masquerade"]),
    bug("A4", "every error comes from the final destination", &["errors-of-each-router-masquerade"]),
    bug("A5", "the checksum of the quoted datagram is not adjusted", &["quote-udp-checksum-masquerade"]),
    bug("A6", "unreachables are translated, time exceeded is not", &["error-kinds-masquerade"]),
    bug("A7", "fragmentation needed is translated, other unreachables are not", &["error-kinds-masquerade"]),
    bug("A8", "errors about an echo are not understood", &["ping-and-errors-masquerade"]),
    bug(
        "A9",
        "an error of a router between is not matched, because it comes from nobody in the flow",
        &["dnat-errors"],
    ),
    bug("A10", "the destination of the error is not compared with the flow", &["error-wrong-outer-destination"]),
    bug("A11", "an error about no known flow is let through as RELATED", &["error-unknown-flow"]),
    bug(
        "A12",
        "a short quote, or one with extension headers, is refused or read beyond its end",
        &["quote-cut-udp", "quote-cut-tcp", "quote-extension-headers"],
    ),
    bug(
        "A13",
        "the direction of an error is mixed up",
        &["error-original-direction", "error-original-direction-masquerade"],
    ),
    bug(
        "A14",
        "an error about a forwarded port is not translated back",
        &["dnat-errors", "dnat-and-masquerade-errors"],
    ),
    bug(
        "A15",
        "errors that the box sends for REJECT are translated by rules, or not at all",
        &["reject", "reject-reply", "reject-reset-established"],
    ),
    bug("A16", "hairpinned flows, or the errors about them, are lost", &["hairpin"]),
    bug(
        "A17",
        "a socket answers for the packet: TTL, identification and sequence numbers are other ones",
        &["tcp-through-unchanged-masquerade"],
    ),
    bug("A18", "an echo is answered on behalf of a host that is not there", &["ping-and-errors-masquerade"]),
    bug(
        "A19",
        "redirects are INVALID, or RELATED whatever they are like",
        &["redirect-without-nat", "redirect-about-masqueraded-flow", "icmpv6-redirect"],
    ),
    bug("A20", "a segment out of window goes on untranslated and is answered with a reset", &["invalid-bypasses-nat"]),
    bug("A21", "a handshake is seen from one side only", &["tcp-one-sided"]),
    bug(
        "A22",
        "inexact resets, challenges and old answers close what is open, or keep it from closing",
        &["tcp-reset-exact", "tcp-challenge", "tcp-challenge-syn-sent", "tcp-resync"],
    ),
    bug("A23", "a port is used again, and the old entry is in the way", &["tcp-reopened", "tcp-reopen-who-may"]),
    bug("A24", "one-way datagrams keep a stale translation alive", &["stale-dnat-kept-alive"]),
    bug("A25", "two clients get the same port", &["snat-one-port-shared", "shared-port-masquerade"]),
    bug(
        "A26",
        "the quoted checksum is held against the error",
        &["quote-nonsense-header", "quote-wrong-checksum-masquerade"],
    ),
    bug(
        "A27",
        "an error about a fragment that never came is matched, or its flow has expired when it is sent",
        &["fragments-timeout", "fragments-timeout-masquerade", "quote-fragment"],
    ),
];

/// What a case says about the mistakes that it is about; empty when it is about none.
pub(super) fn about(scenario: &str) -> String {
    let known = BUGS.iter().filter(|bug| bug.scenarios.contains(&scenario));
    known.map(|Bug { label, wrong, .. }| format!(" Known to go wrong ({label}): {wrong}.")).collect()
}

#[cfg(test)]
#[allow(clippy::panic)] // A test fails by panicking.
mod tests {
    use super::*;

    #[test]
    fn every_known_mistake_has_its_cases() {
        let cases = crate::scenario::all();
        for Bug { label, scenarios, .. } in BUGS {
            for scenario in *scenarios {
                let named = format!("({label})");
                let mut of_it =
                    cases.iter().filter(|(name, _)| name == scenario || name.starts_with(&format!("{scenario}-v")));
                assert!(of_it.clone().count() > 0, "{label}: there is no scenario {scenario}");
                assert!(of_it.all(|(_, case)| case.spec.shows.contains(&named)), "{scenario}");
            }
        }
    }

    #[test]
    fn the_book_lists_each_with_its_cases() {
        let page = include_str!("../../../../book/src/bugs.md");
        for Bug { label, wrong, scenarios } in BUGS {
            let row = page.lines().find(|line| line.starts_with(&format!("| {label} | {wrong} |")));
            let row = row.unwrap_or_else(|| panic!("{label} is not in the book"));
            assert!(scenarios.iter().all(|scenario| row.contains(&format!("`{scenario}`"))), "{row}");
        }
    }
}
