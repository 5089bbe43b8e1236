//! Every command the book shows is run, and has to print what the book says it prints.
//!
//! A fenced block whose language is `console` holds commands, each behind `$ `, and under each what it prints on stdout
//! and stderr. The commands run through `sh` at the top of the project, with the `ctwhy` of this build in PATH. A command
//! that ends in a backslash goes on in the next line.
//!
//! Behind the language, separated by commas:
//!
//! - `exit=N`: the commands of this block end with status N, not 0;
//! - `lab`: they need a lab. Where none can be built the blocks are skipped, aloud; and since a lab's packets differ from
//!   run to run, both sides are compared with the numbers masked that do (see [`mask`]);
//! - `tun`: they need a lab and a TUN device;
//! - `norun`: they are shown only.
//!
//! In what a command prints, a line of nothing but `…` (or `...`) stands for any number of lines, none included, and `…`
//! inside a line for any text. `UPDATE_BOOK=1` writes what was printed into every block that does not match.
#![allow(clippy::expect_used, reason = "all of this is a test, also what is not marked so")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Two tests may rewrite the same page.
static BOOK: Mutex<()> = Mutex::new(());

/// One `$ ` line of a page and what the page says it prints.
struct Shown {
    block: Block,
    command: String,
    /// Index of the first line of what it prints, and of the first line after that.
    lines: std::ops::Range<usize>,
}

/// What stands behind the language of a block.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Block {
    lab: bool,
    tun: bool,
    norun: bool,
    exit: i32,
}

impl Block {
    fn parse(options: &str) -> Result<Self, String> {
        let mut block = Self::default();
        for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                None if option == "lab" => block.lab = true,
                None if option == "tun" => (block.lab, block.tun) = (true, true),
                None if option == "norun" => block.norun = true,
                Some(("exit", status)) => {
                    block.exit = status.parse().map_err(|_| format!("exit={status} is no status"))?;
                }
                _ => return Err(format!("unknown option {option:?}; there are lab, tun, norun and exit=N")),
            }
        }
        Ok(block)
    }
}

/// Finds the commands of a page; the error names the line.
fn commands(page: &str) -> Result<Vec<Shown>, String> {
    let lines: Vec<&str> = page.lines().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let Some(options) = lines[at].strip_prefix("```console") else {
            at += 1;
            continue;
        };
        let block = Block::parse(options).map_err(|error| format!("line {}: {error}", at + 1))?;
        let fence = at;
        at += 1;
        let close = (at..lines.len())
            .find(|&line| lines[line].starts_with("```"))
            .ok_or_else(|| format!("line {}: this block is not closed", fence + 1))?;
        while at < close {
            let Some(first) = lines[at].strip_prefix("$ ") else {
                return Err(format!("line {}: expected a command behind \"$ \"", at + 1));
            };
            let mut command = first.to_owned();
            at += 1;
            while command.ends_with('\\') && at < close {
                command.push('\n');
                command.push_str(lines[at]);
                at += 1;
            }
            let end = (at..close).find(|&line| lines[line].starts_with("$ ")).unwrap_or(close);
            found.push(Shown { block, command, lines: at..end });
            at = end;
        }
        at = close + 1;
    }
    Ok(found)
}

/// Whether a line of the page stands for any number of lines.
fn elides(line: &str) -> bool {
    matches!(line.trim(), "…" | "...")
}

/// Whether `line` is what `pattern` says, where `…` in the pattern is any text.
fn line_matches(pattern: &str, line: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('…') else { return pattern.trim_end() == line.trim_end() };
    let Some(mut line) = line.trim_end().strip_prefix(head) else { return false };
    let mut parts = rest.trim_end().split('…').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return line.ends_with(part);
        }
        let Some(found) = line.find(part) else { return false };
        line = &line[found + part.len()..];
    }
    true
}

/// Whether the lines printed are the lines shown, elided ones aside.
fn output_matches(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if elides(first) => {
            (0..=printed.len()).any(|skipped| output_matches(rest, &printed[skipped..]))
        }
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(line, after)| line_matches(first, line) && output_matches(rest, after))
        }
    }
}

/// Replaces what differs between two runs of the same lab, by kind:
///
/// - a number with a fraction (times, round trips) by `#.#`, its unit stays;
/// - a hexadecimal number by `0x#`;
/// - an integer of 32768 or more (ephemeral ports, sequence numbers, handles) by `#`;
/// - any integer behind `id`, `timeout` or a `#` by `#`;
/// - a link-local address by `fe80::#`;
/// - a run of blanks by one, since columns move with the width of their numbers.
///
/// Addresses, TTLs, counts and small ports stay, and so does every word.
fn mask(line: &str) -> String {
    let mut masked = String::new();
    let mut rest = line;
    while let Some(next) = rest.chars().next() {
        let inside_word = masked.ends_with(|before: char| before.is_alphanumeric() || before == '_');
        if next == ' ' {
            masked.push(' ');
            rest = rest.trim_start_matches(' ');
        } else if !inside_word && rest.starts_with("fe80::") {
            masked.push_str("fe80::#");
            rest = rest.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == ':');
        } else if !inside_word && next.is_ascii_digit() {
            let (number, after) = split_number(rest);
            masked.push_str(&mask_number(number, &masked));
            rest = after;
        } else {
            masked.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    masked
}

/// Splits off a number with whatever letters and inner dots hang on it: `12`, `0.25ms`, `0x1f`, `10.0.0.1`.
fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .char_indices()
        .find(|&(at, c)| {
            let dot_inside = c == '.' && text[at + 1..].starts_with(|next: char| next.is_ascii_digit());
            !(c.is_ascii_alphanumeric() || dot_inside)
        })
        .map_or(text.len(), |(at, _)| at);
    text.split_at(end)
}

fn mask_number(number: &str, before: &str) -> String {
    if number.starts_with("0x") {
        return "0x#".to_owned();
    }
    let unit_at = number.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(number.len());
    let (digits, unit) = number.split_at(unit_at);
    match digits.split('.').count() {
        1 => {
            let key = before.trim_end_matches([' ', '=', ':', '"']);
            let word = key.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            let varies = digits.parse::<u64>().map_or(true, |value| value >= 32768);
            if varies || word == "id" || word == "timeout" || before.ends_with('#') {
                format!("#{unit}")
            } else {
                number.to_owned()
            }
        }
        2 => format!("#.#{unit}"),
        _ => number.to_owned(),
    }
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the project's directory")
}

fn pages(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("book/src can be read") {
        let path = entry.expect("an entry of book/src").path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
}

/// Runs a command as a reader would, and returns what the terminal would show and the exit status.
fn run(command: &str, project: &Path) -> (Vec<String>, Option<i32>) {
    let built = Path::new(env!("CARGO_BIN_EXE_ctwhy")).parent().expect("the binary is in a directory");
    let path = format!("{}:{}", built.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("timeout")
        .args(["300", "sh", "-c", &format!("exec 2>&1\n{command}")])
        .current_dir(project)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("timeout and sh are there");
    (lines(&String::from_utf8_lossy(&output.stdout)), output.status.code())
}

/// The lines of a text, without blank ones at its end.
fn lines(text: &str) -> Vec<String> {
    text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Runs the commands of all pages whose block is `wanted`; returns how many there were, and what did not match.
fn check(wanted: impl Fn(&Block) -> bool) -> (usize, String) {
    let _alone = BOOK.lock().expect("the other test did not panic while it held the book");
    let update = std::env::var_os("UPDATE_BOOK").is_some();
    let project = project();
    let mut found = Vec::new();
    pages(&project.join("book/src"), &mut found);
    let (mut count, mut complaints) = (0, String::new());
    for path in found {
        let page = fs::read_to_string(&path).expect("a page can be read");
        let name = path.strip_prefix(&project).unwrap_or(&path).display().to_string();
        let shown = match commands(&page) {
            Ok(shown) => shown,
            Err(error) => {
                let _ = writeln!(complaints, "{name}, {error}");
                continue;
            }
        };
        let mut new_lines: Vec<String> = page.lines().map(str::to_owned).collect();
        // From the end of the page, so that a rewritten block does not move those still to come.
        for Shown { block, command, lines: range } in shown.into_iter().rev().filter(|shown| wanted(&shown.block)) {
            count += 1;
            let expected = lines(&new_lines[range.clone()].join("\n"));
            let (printed, status) = run(&command, &project);
            let same = if block.lab {
                let masked = |lines: &[String]| lines.iter().map(|line| mask(line)).collect::<Vec<_>>();
                output_matches(&masked(&expected), &masked(&printed))
            } else {
                output_matches(&expected, &printed)
            };
            if status != Some(block.exit) {
                let status = status.map_or("a signal".to_owned(), |status| format!("status {status}"));
                let _ = writeln!(
                    complaints,
                    "{name}, line {}: `{command}` ended with {status}, not {}:\n{}\n",
                    range.start,
                    block.exit,
                    printed.join("\n"),
                );
            } else if !same && update {
                new_lines.splice(range, printed);
            } else if !same {
                let _ = writeln!(
                    complaints,
                    "{name}, line {}: `{command}` does not print what the book shows (UPDATE_BOOK=1 rewrites it).\n\
                     --- the book\n{}\n--- printed\n{}\n",
                    range.start,
                    expected.join("\n"),
                    printed.join("\n"),
                );
            }
        }
        let new_page = new_lines.join("\n") + "\n";
        if new_page != page {
            fs::write(&path, new_page).expect("a page can be written");
        }
    }
    (count, complaints)
}

#[test]
fn commands_print_what_the_book_shows() {
    let (count, complaints) = check(|block| !block.lab && !block.norun);
    assert!(count > 0, "no console block was found");
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn lab_commands_print_what_the_book_shows() {
    if let Err(reason) = ctwhy_linux::lab::probe() {
        ctwhy_linux::testing::skip(&reason);
        return;
    }
    let tun = ctwhy_linux::testing::require_tun();
    let (count, complaints) = check(|block| block.lab && (tun || !block.tun) && !block.norun);
    assert!(count > 0, "no lab block was found");
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn pages_with_mistakes_are_refused() {
    let error = |page: &str| commands(page).err().unwrap_or_default();
    assert_eq!(
        error("text\n```console,labb\n```\n"),
        "line 2: unknown option \"labb\"; there are lab, tun, norun and exit=N"
    );
    assert_eq!(error("```console,exit=x\n```\n"), "line 1: exit=x is no status");
    assert_eq!(error("```console\n$ true\n"), "line 1: this block is not closed");
    assert_eq!(error("```console\nno dollar\n```\n"), "line 2: expected a command behind \"$ \"");
}

#[test]
fn commands_and_their_output_are_found() {
    let page = "```text\n$ not this\n```\n```console,lab,exit=4\n$ one \\\n  more\nout\n\nput\n$ two\n```\nend\n";
    let found = commands(page).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].block, Block { lab: true, tun: false, norun: false, exit: 4 });
    assert_eq!((found[0].command.as_str(), found[0].lines.clone()), ("one \\\n  more", 6..9));
    assert_eq!((found[1].command.as_str(), found[1].lines.clone()), ("two", 10..10));
}

#[test]
fn elided_text_matches_and_nothing_else_does() {
    let matches = |shown: &str, printed: &str| output_matches(&lines(shown), &lines(printed));
    assert!(matches("a\n…\nd", "a\nb\nc\nd"));
    assert!(matches("a\n...\nb", "a\nb"));
    assert!(!matches("a\n…\nd", "a\nb\nc"));
    assert!(!matches("a\nb", "a\nb\nc"));
    assert!(!matches("a\nb\nc", "a\nb"));
    assert!(matches("took … ms, … packets", "took 3.2 ms, 7 packets"));
    assert!(!matches("took … ms, … packets", "took 3.2 s, 7 packets"));
    assert!(!matches("… packets", "7 packets lost"));
}

#[test]
fn masks_hide_numbers_that_vary_and_keep_the_rest() {
    let same = |one: &str, other: &str| mask(one) == mask(other);
    assert!(same(" 1  10.0.0.1  0.123 ms", " 1  10.0.0.1  12.5 ms"));
    assert!(!same(" 1  10.0.0.1  0.123 ms", " 2  10.0.0.1  0.123 ms"));
    assert!(!same("10.0.0.1", "10.0.0.2"));
    assert!(same("10.0.0.2:40001 → 203.0.113.10:53", "10.0.0.2:51234 → 203.0.113.10:53"));
    assert!(!same("10.0.0.2:40001 → 203.0.113.10:53", "10.0.0.2:40001 → 203.0.113.10:54"));
    assert!(same("echo id 17 seq 1", "echo id 4711 seq 1"));
    assert!(!same("echo id 17 seq 1", "echo id 17 seq 2"));
    assert!(same("\"id\":12,\"timeout\":29", "\"id\":7,\"timeout\":30"));
    assert!(same("entry #17", "entry #2928668980"));
    assert!(same("checksum 0x1f2e right", "checksum 0xab right"));
    assert!(same("fe80::a8bb:ccff:fe00:1 udp", "fe80::1 udp"));
    assert!(!same("2001:db8::1 ttl 63", "2001:db8::1 ttl 62"));
    assert!(!same("agree", "DIFFER"));
}
