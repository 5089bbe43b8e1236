//! Which catalogued decisions a folder of cases shows, and what is known to be missing.
//!
//! `catalogue.toml` lists the decisions. `gaps.toml` names, for each that no case shows, the test that does or the reason
//! why nothing does, and the cases that are known to differ. A line that is no longer true is a [`Finding`], so that the
//! list of gaps can only be as long as the gaps are.

mod finding;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::case::{CaseError, DecisionId, Problem};
pub use finding::{Fault, Finding};

/// The file with the decisions.
pub const CATALOGUE: &str = "catalogue.toml";
/// The file with what is missing.
pub const GAPS: &str = "gaps.toml";

/// The decisions, and what is said about those that no case shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    root: PathBuf,
    /// Title by decision.
    observable: BTreeMap<DecisionId, String>,
    unobservable: BTreeMap<DecisionId, String>,
    /// File and function of the test, relative to the folder above.
    tests: BTreeMap<DecisionId, Line>,
    /// Why nothing shows it.
    gaps: BTreeMap<DecisionId, Line>,
    /// Why the case differs.
    differs: BTreeMap<String, Line>,
}

/// A line of `gaps.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    number: usize,
    text: String,
}

/// How many decisions are shown by what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By at least one case.
    pub by_cases: usize,
    /// By a test alone.
    pub by_tests: usize,
    /// By nothing, for a reason.
    pub gaps: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalogue {
    observable: BTreeMap<DecisionId, String>,
    #[serde(default)]
    unobservable: BTreeMap<DecisionId, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGaps {
    #[serde(default)]
    tests: BTreeMap<DecisionId, Spanned<String>>,
    #[serde(default)]
    gaps: BTreeMap<DecisionId, Spanned<String>>,
    #[serde(default)]
    differs: BTreeMap<String, Spanned<String>>,
}

impl Coverage {
    /// Reads `catalogue.toml` and `gaps.toml` of a folder; `None` where neither is there.
    ///
    /// # Errors
    /// When one of them is missing, cannot be read, or is not as it must be.
    pub fn read(root: &Path) -> Result<Option<Coverage>, CaseError> {
        let (catalogue, gaps) = (root.join(CATALOGUE), root.join(GAPS));
        let missing = |file: &Path| matches!(fs::metadata(file), Err(e) if e.kind() == io::ErrorKind::NotFound);
        if missing(&catalogue) && missing(&gaps) {
            return Ok(None);
        }
        let read = |file: &Path| fs::read_to_string(file).map_err(|e| CaseError::new(file, Problem::Read(e)));
        Coverage::parse(root, &read(&catalogue)?, &read(&gaps)?).map(Some)
    }

    fn parse(root: &Path, catalogue: &str, gaps: &str) -> Result<Coverage, CaseError> {
        let RawCatalogue { observable, unobservable } = parse(catalogue, &root.join(CATALOGUE))?;
        let file = root.join(GAPS);
        let RawGaps { tests, gaps: unshown, differs } = parse(gaps, &file)?;
        let line = |text: Spanned<String>| Line { number: line_of(gaps, text.span().start), text: text.into_inner() };
        let tests = tests.into_iter().map(|(id, text)| (id, line(text))).collect();
        let unshown: BTreeMap<DecisionId, Line> = unshown.into_iter().map(|(id, text)| (id, line(text))).collect();
        let differs: BTreeMap<String, Line> = differs.into_iter().map(|(name, text)| (name, line(text))).collect();
        if let Some(bare) = unshown.values().chain(differs.values()).find(|line| line.text.trim().is_empty()) {
            return Err(CaseError::at_line(&file, bare.number, Problem::Syntax("a gap needs a reason".to_owned())));
        }
        Ok(Coverage { root: root.to_owned(), observable, unobservable, tests, gaps: unshown, differs })
    }

    /// Why a case is known to differ from its recording; `None` when it is not.
    #[must_use]
    pub fn known_to_differ(&self, case: &str) -> Option<&str> {
        self.differs.get(case).map(|line| line.text.as_str())
    }

    /// What is to be said about a case that agrees although it is known to differ.
    #[must_use]
    pub fn stale(&self, case: &str) -> Option<Finding> {
        let line = self.differs.get(case)?;
        Some(self.finding(Some(line.number), Fault::Agrees { case: case.to_owned() }))
    }

    /// Compares the catalogue with the decisions that cases are about. `sources` is the folder that the tests of
    /// `gaps.toml` are looked for in, where there is one.
    #[must_use]
    pub fn check(&self, cases: &[(&str, &[DecisionId])], sources: Option<&Path>) -> (Totals, Vec<Finding>) {
        let mut found = Vec::new();
        let mut shown: BTreeMap<&DecisionId, &str> = BTreeMap::new();
        for (case, ids) in cases {
            for id in *ids {
                shown.entry(id).or_insert(case);
                let (case, id) = ((*case).to_owned(), id.clone());
                if self.unobservable.contains_key(&id) {
                    found.push(self.finding(None, Fault::Unobservable { case, id }));
                } else if !self.observable.contains_key(&id) {
                    found.push(self.finding(None, Fault::UnknownDecision { case, id }));
                }
            }
        }
        self.check_lines(&shown, sources, &mut found);
        let names: BTreeSet<&str> = cases.iter().map(|(name, _)| *name).collect();
        for (case, line) in self.differs.iter().filter(|(case, _)| !names.contains(case.as_str())) {
            found.push(self.finding(Some(line.number), Fault::NoCase { case: case.clone() }));
        }
        let mut totals = Totals::default();
        for (id, title) in self.observable.iter().chain(&self.unobservable) {
            if shown.contains_key(id) {
                totals.by_cases += 1;
            } else if self.tests.contains_key(id) {
                totals.by_tests += 1;
            } else if self.gaps.contains_key(id) {
                totals.gaps += 1;
            } else {
                found.push(self.finding(None, Fault::Unshown { id: id.clone(), title: title.clone() }));
            }
        }
        (totals, found)
    }

    /// The lines of `gaps.toml` about decisions.
    fn check_lines(&self, shown: &BTreeMap<&DecisionId, &str>, sources: Option<&Path>, found: &mut Vec<Finding>) {
        for (id, line) in self.gaps.iter().chain(&self.tests) {
            let fault = if !self.observable.contains_key(id) && !self.unobservable.contains_key(id) {
                Some(Fault::NoDecision { id: id.clone() })
            } else {
                shown.get(id).map(|case| Fault::Closed { id: id.clone(), by: format!("case {case}") })
            };
            found.extend(fault.map(|fault| self.finding(Some(line.number), fault)));
        }
        for (id, line) in &self.tests {
            let by = || format!("test {}", line.text);
            let fault = if self.gaps.contains_key(id) {
                Some(Fault::Closed { id: id.clone(), by: by() })
            } else {
                sources
                    .filter(|sources| !is_test(sources, &line.text))
                    .map(|_| Fault::NoTest { test: line.text.clone() })
            };
            found.extend(fault.map(|fault| self.finding(Some(line.number), fault)));
        }
    }

    fn finding(&self, line: Option<usize>, fault: Fault) -> Finding {
        let file = if line.is_some() { GAPS } else { CATALOGUE };
        Finding { file: self.root.join(file), line, fault }
    }
}

/// Is `file::function` a test below the folder?
fn is_test(sources: &Path, test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else { return false };
    let text = fs::read_to_string(sources.join(file)).unwrap_or_default();
    let head = format!("fn {function}(");
    text.match_indices(&head).any(|(at, _)| text.get(..at).is_some_and(|before| before.trim_end().ends_with("#[test]")))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, file: &Path) -> Result<T, CaseError> {
    toml::from_str(text).map_err(|e| {
        let problem = Problem::Syntax(e.message().to_owned());
        match e.span() {
            Some(span) => CaseError::at_line(file, line_of(text, span.start), problem),
            None => CaseError::new(file, problem),
        }
    })
}

/// The number of the line that holds a byte.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&c| c == b'\n').count()
}

#[cfg(test)]
mod tests;
