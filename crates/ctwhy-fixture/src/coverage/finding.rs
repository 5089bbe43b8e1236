//! What is wrong between catalogue, gaps and cases: one sentence each.

use std::fmt;
use std::path::PathBuf;

use super::{CATALOGUE, GAPS};
use crate::case::DecisionId;

/// Something that is not, or no longer, as `catalogue.toml` and `gaps.toml` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file to look at first.
    pub file: PathBuf,
    /// Its line, counted from 1.
    pub line: Option<usize>,
    /// What it is.
    pub fault: Fault,
}

/// Kinds of [`Finding`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A case is about a decision that the catalogue does not have.
    UnknownDecision {
        /// The case.
        case: String,
        /// The decision.
        id: DecisionId,
    },
    /// A case is about a decision that cannot be seen.
    Unobservable {
        /// The case.
        case: String,
        /// The decision.
        id: DecisionId,
    },
    /// A decision that no case and no test shows, without a reason.
    Unshown {
        /// The decision.
        id: DecisionId,
        /// Its title.
        title: String,
    },
    /// A line about a decision that the catalogue does not have.
    NoDecision {
        /// The decision.
        id: DecisionId,
    },
    /// A line about a decision that something else shows.
    Closed {
        /// The decision.
        id: DecisionId,
        /// What shows it.
        by: String,
    },
    /// A line that names a test that is not there.
    NoTest {
        /// File and function.
        test: String,
    },
    /// A line about a case that is not there.
    NoCase {
        /// The case.
        case: String,
    },
    /// A case that is known to differ, and does not.
    Agrees {
        /// The case.
        case: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::UnknownDecision { case, id } => {
                write!(f, "case {case} is about {id}, which is not listed; correct its `ids` or add the decision")
            }
            Fault::Unobservable { case, id } => {
                write!(
                    f,
                    "case {case} is about {id}, which is listed as unobservable; move it up or leave it out of `ids`"
                )
            }
            Fault::Unshown { id, title } => write!(
                f,
                "nothing shows {id} ({title}); add it to the `ids` of a case that does, or name a test or a reason in {GAPS}"
            ),
            Fault::NoDecision { id } => write!(f, "{id} is no decision of {CATALOGUE}; delete the line or correct it"),
            Fault::Closed { id, by } => write!(f, "stale: {by} shows {id}; delete the line"),
            Fault::NoTest { test } => {
                write!(f, "there is no test {test}; write the file from the top folder on, `::`, and the function")
            }
            Fault::NoCase { case } => write!(f, "there is no case {case}; delete the line or correct it"),
            Fault::Agrees { case } => write!(f, "stale gap: case {case} agrees; delete the line"),
        }
    }
}
