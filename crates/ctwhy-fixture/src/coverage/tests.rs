#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use super::*;

const CATALOGUE_TEXT: &str = "\
[observable]
SEEN-01 = 'Shown'
TESTED-01 = 'Tested'
MISSING-01 = 'Missing'
[unobservable]
HIDDEN-01 = 'Hidden'
";
const GAPS_TEXT: &str = "\
[tests]
TESTED-01 = 'src/coverage/tests.rs::a_list_that_is_true_finds_nothing'
[gaps]
MISSING-01 = 'nobody had the time'
HIDDEN-01 = 'nobody can see it'
[differs]
crooked = 'the engine cannot do it yet'
";

fn ids(ids: &[&str]) -> Vec<DecisionId> {
    ids.iter().map(|id| DecisionId::try_from((*id).to_owned()).unwrap()).collect()
}

fn coverage(catalogue: &str, gaps: &str) -> Result<Coverage, CaseError> {
    Coverage::parse(Path::new("f"), catalogue, gaps)
}

fn findings(catalogue: &str, gaps: &str, seen: &[&str]) -> Vec<String> {
    let seen = ids(seen);
    let cases: [(&str, &[DecisionId]); 2] = [("straight", &seen), ("crooked", &[])];
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (_, found) = coverage(catalogue, gaps).unwrap().check(&cases, Some(sources));
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_list_that_is_true_finds_nothing() {
    assert_eq!(findings(CATALOGUE_TEXT, GAPS_TEXT, &["SEEN-01"]), Vec::<String>::new());
    let coverage = coverage(CATALOGUE_TEXT, GAPS_TEXT).unwrap();
    let seen = ids(&["SEEN-01"]);
    let (totals, _) = coverage.check(&[("straight", &seen)], None);
    assert_eq!(totals, Totals { by_cases: 1, by_tests: 1, gaps: 2 });
    assert_eq!(coverage.known_to_differ("crooked"), Some("the engine cannot do it yet"));
    assert_eq!(coverage.known_to_differ("straight"), None);
    assert_eq!(coverage.stale("straight"), None);
}

#[test]
fn each_line_that_is_not_true_is_found() {
    let found = |gaps: &str, seen: &[&str], expected: &str| {
        assert_eq!(findings(CATALOGUE_TEXT, gaps, seen), [expected]);
    };
    found(
        GAPS_TEXT,
        &["SEEN-01", "MISSING-01"],
        "f/gaps.toml:4: stale: case straight shows MISSING-01; delete the line",
    );
    found(GAPS_TEXT, &["SEEN-01", "TESTED-01"], "f/gaps.toml:2: stale: case straight shows TESTED-01; delete the line");
    found(
        GAPS_TEXT,
        &["SEEN-01", "OTHER-01"],
        "f/catalogue.toml: case straight is about OTHER-01, which is not listed; correct its `ids` or add the decision",
    );
    found(
        &GAPS_TEXT.replace("HIDDEN-01 = 'nobody can see it'\n", ""),
        &["SEEN-01", "HIDDEN-01"],
        "f/catalogue.toml: case straight is about HIDDEN-01, which is listed as unobservable; move it up or leave it out \
         of `ids`",
    );
    found(
        GAPS_TEXT,
        &[],
        "f/catalogue.toml: nothing shows SEEN-01 (Shown); add it to the `ids` of a case that does, or name a test or a \
         reason in gaps.toml",
    );
    let line = "[gaps]\nOTHER-01 = 'why'";
    let expected = "f/gaps.toml:4: OTHER-01 is no decision of catalogue.toml; delete the line or correct it";
    found(&GAPS_TEXT.replace("[gaps]", line), &["SEEN-01"], expected);
    let expected = "f/gaps.toml:7: there is no case twisted; delete the line or correct it";
    found(&GAPS_TEXT.replace("crooked", "twisted"), &["SEEN-01"], expected);
    let line = "[gaps]\nTESTED-01 = 'why'";
    let expected = "f/gaps.toml:2: stale: test src/coverage/tests.rs::a_list_that_is_true_finds_nothing shows TESTED-01; \
                    delete the line";
    found(&GAPS_TEXT.replace("[gaps]", line), &["SEEN-01"], expected);
    // A function of that name that is no test, one that is not there, and a file that is not there.
    for test in ["src/coverage/tests.rs::ids", "src/coverage/tests.rs::absent", "src/absent.rs::ids", "absent"] {
        let gaps = GAPS_TEXT.replace("src/coverage/tests.rs::a_list_that_is_true_finds_nothing", test);
        let expected = format!(
            "f/gaps.toml:2: there is no test {test}; write the file from the top folder on, `::`, and the function"
        );
        found(&gaps, &["SEEN-01"], &expected);
    }
    let stale = coverage(CATALOGUE_TEXT, GAPS_TEXT).unwrap().stale("crooked").unwrap();
    assert_eq!(stale.to_string(), "f/gaps.toml:7: stale gap: case crooked agrees; delete the line");
}

#[test]
fn files_that_are_wrong_say_where() {
    for (catalogue, gaps, expected) in [
        ("[observable]\nx = 'y'\n", "", "f/catalogue.toml:2: `x` is no decision of the catalogue"),
        ("[observable]\nA-1 = 'a'\nA-1 = 'b'\n", "", "f/catalogue.toml:3: "),
        ("[observable]\n[seen]\n", "", "f/catalogue.toml:2: unknown field `seen`"),
        ("[observable]\n", "[gaps]\nA-1 = ' '\n", "f/gaps.toml:2: a gap needs a reason"),
        ("[observable]\n", "[differs]\n\ncase = ''\n", "f/gaps.toml:3: a gap needs a reason"),
        ("[observable]\n", "[gaps]\nA-1 = 3\n", "f/gaps.toml:2: "),
    ] {
        let error = coverage(catalogue, gaps).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_folder_has_both_files_or_neither() {
    let folder = std::env::temp_dir().join(format!("ctwhy-coverage-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    assert_eq!(Coverage::read(&folder).unwrap(), None);
    fs::write(folder.join(CATALOGUE), CATALOGUE_TEXT).unwrap();
    let error = Coverage::read(&folder).unwrap_err().to_string();
    assert!(error.contains("gaps.toml: cannot be read"), "{error}");
    fs::write(folder.join(GAPS), GAPS_TEXT).unwrap();
    assert!(Coverage::read(&folder).unwrap().is_some());
    fs::remove_dir_all(&folder).unwrap();
}
