//! Lines of `conntrack -L expect`, compared.

use super::compare::{Difference, Tolerance};

/// A line: the seconds that are left, and all else.
fn parse(line: &str) -> (Option<u64>, &str) {
    match line.split_once(' ') {
        Some((seconds, rest)) if seconds.parse::<u64>().is_ok() => (seconds.parse().ok(), rest),
        _ => (None, line),
    }
}

/// Compares what is expected on both sides, whatever the order of the lines.
pub(super) fn compare(recorded: &[String], decided: &[String], tolerance: Tolerance, out: &mut Vec<Difference>) {
    let mut left: Vec<&String> = decided.iter().collect();
    for line in recorded {
        let (seconds, rest) = parse(line);
        let same = |other: &&String| {
            let (others, other_rest) = parse(other);
            rest == other_rest && tolerance.allows(seconds, others)
        };
        match left.iter().position(same) {
            Some(at) => drop(left.swap_remove(at)),
            None => out.push(Difference::ExpectationMissing { expectation: line.clone() }),
        }
    }
    out.extend(left.into_iter().map(|line| Difference::ExpectationUnexpected { expectation: line.clone() }));
}

#[cfg(test)]
mod tests {
    use super::*;

    const FTP: &str = "299 proto=6 src=10.0.0.2 dst=10.0.0.1 sport=0 dport=1025 class=0 helper=ftp";

    #[test]
    fn seconds_are_compared_as_far_as_they_may_differ_and_all_else_to_the_letter() {
        let differences = |recorded: &[&str], decided: &[&str]| {
            let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
            let mut out = Vec::new();
            compare(&own(recorded), &own(decided), Tolerance { timeout: Some(1) }, &mut out);
            out
        };
        let tftp = FTP.replace("ftp", "tftp");
        assert_eq!(differences(&[FTP, &tftp], &[&tftp, FTP]), []);
        assert_eq!(differences(&[FTP], &[&FTP.replace("299", "300")]), []);
        assert_eq!(differences(&[""], &[""]), []);
        let missing = Difference::ExpectationMissing { expectation: FTP.to_owned() };
        assert_eq!(differences(&[FTP, FTP], &[FTP]), std::slice::from_ref(&missing));
        for other in [FTP.replace("299", "9"), tftp, FTP.replace("299 ", "")] {
            let unexpected = Difference::ExpectationUnexpected { expectation: other.clone() };
            assert_eq!(differences(&[FTP], &[&other]), [missing.clone(), unexpected]);
        }
    }
}
