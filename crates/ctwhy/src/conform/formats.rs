//! Reports for machines that run tests: TAP and JUnit's XML.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::report::escape::Escaped;

/// What came of a test.
pub(super) struct Test {
    pub(super) name: String,
    pub(super) result: TestResult,
    /// A sentence each.
    pub(super) lines: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TestResult {
    Passed,
    /// It says why.
    Skipped,
    Failed,
    /// It could not be run to its end.
    Broken,
}

/// The first lines of TAP.
pub(super) fn tap_plan(out: &mut impl Write, tests: usize) -> io::Result<()> {
    writeln!(out, "TAP version 14\n1..{tests}")
}

/// A test in TAP; `lines` names what its lines are.
pub(super) fn tap_line(out: &mut impl Write, number: u64, test: &Test, lines: &str) -> io::Result<()> {
    // A hash begins a directive.
    let name = Escaped(&test.name).to_string().replace('#', "\\#");
    let (word, directive) = match test.result {
        TestResult::Passed => ("ok", String::new()),
        TestResult::Skipped => {
            let why = test.lines.first().map(|line| Escaped(line).to_string()).unwrap_or_default();
            ("ok", format!(" # SKIP {}", why.replace('#', "\\#")))
        }
        TestResult::Failed | TestResult::Broken => ("not ok", String::new()),
    };
    writeln!(out, "{word} {number} - {name}{directive}")?;
    if word == "ok" || test.lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "  ---\n  {lines}:")?;
    for line in &test.lines {
        // In single quotes YAML knows one special character.
        writeln!(out, "    - '{}'", Escaped(line).to_string().replace('\'', "''"))?;
    }
    writeln!(out, "  ...")
}

/// JUnit's XML for a run: its name, the class of its tests, and facts about it.
pub(super) fn junit(suite: &str, class: &str, properties: &[(&str, &str)], tests: &[Test]) -> String {
    let count = |wanted: TestResult| tests.iter().filter(|test| test.result == wanted).count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let skipped = match count(TestResult::Skipped) {
        0 => String::new(),
        skipped => format!(" skipped=\"{skipped}\""),
    };
    // Writing into a string does not fail.
    let _ = writeln!(
        xml,
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\"{skipped}>",
        quoted(suite),
        tests.len(),
        count(TestResult::Failed),
        count(TestResult::Broken)
    );
    let properties: String = properties
        .iter()
        .map(|(name, value)| format!("<property name=\"{}\" value=\"{}\"/>", quoted(name), quoted(value)))
        .collect();
    let _ = writeln!(xml, "  <properties>{properties}</properties>");
    for test in tests {
        let _ = write!(xml, "  <testcase classname=\"{}\" name=\"{}\"", quoted(class), quoted(&test.name));
        let first = test.lines.first().map(|line| quoted(line)).unwrap_or_default();
        let _ = match test.result {
            TestResult::Passed => writeln!(xml, "/>"),
            TestResult::Skipped => writeln!(xml, "><skipped message=\"{first}\"/></testcase>"),
            TestResult::Failed | TestResult::Broken => {
                let kind = if test.result == TestResult::Broken { "error" } else { "failure" };
                let all: String = test.lines.iter().map(|line| quoted(line) + "\n").collect();
                writeln!(xml, "><{kind} message=\"{first}\">{all}</{kind}></testcase>")
            }
        };
    }
    xml.push_str("</testsuite>\n");
    xml
}

/// Text as XML takes it.
fn quoted(text: &str) -> String {
    let text = Escaped(text).to_string();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
