//! A line as words, the way `iptables-restore` splits it.

use alloc::string::String;
use alloc::vec::Vec;

use super::error::{RuleError, RuleErrorKind};

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) column: u32,
}

/// The words of a line that were not read yet.
#[derive(Debug)]
pub(super) struct Words {
    line: u32,
    end: u32,
    /// The last word first.
    rest: Vec<Word>,
}

impl Words {
    /// Splits at blanks; a quotation is one word, in which a backslash takes the next character as it is.
    pub(super) fn of(text: &str, line: u32) -> Result<Words, RuleError> {
        let mut rest = Vec::new();
        let mut word: Option<Word> = None;
        let mut quotation: Option<u32> = None;
        let mut escaped = false;
        let mut end = 1;
        for (character, column) in text.chars().zip(1..) {
            end = column + 1;
            if escaped {
                escaped = false;
            } else if quotation.is_some() && character == '\\' {
                escaped = true;
                continue;
            } else if character == '"' {
                quotation = if quotation.is_some() { None } else { Some(column) };
                word.get_or_insert(Word { text: String::new(), column });
                continue;
            } else if quotation.is_none() && character.is_whitespace() {
                rest.extend(word.take());
                continue;
            }
            word.get_or_insert(Word { text: String::new(), column }).text.push(character);
        }
        if let Some(column) = quotation {
            return Err(RuleError { line, column, word: String::from("\""), kind: RuleErrorKind::UnclosedQuote });
        }
        rest.extend(word);
        rest.reverse();
        Ok(Words { line, end, rest })
    }

    pub(super) fn next(&mut self) -> Option<Word> {
        self.rest.pop()
    }

    /// The word that must follow.
    pub(super) fn expect(&mut self, what: &'static str) -> Result<Word, RuleError> {
        self.next().ok_or_else(|| self.missing(what))
    }

    /// There must be no further word.
    pub(super) fn finish(&mut self) -> Result<(), RuleError> {
        match self.next() {
            Some(word) => Err(self.error(&word, RuleErrorKind::TrailingWord)),
            None => Ok(()),
        }
    }

    pub(super) fn missing(&self, what: &'static str) -> RuleError {
        RuleError { line: self.line, column: self.end, word: String::new(), kind: RuleErrorKind::Missing { what } }
    }

    pub(super) fn error(&self, word: &Word, kind: RuleErrorKind) -> RuleError {
        RuleError { line: self.line, column: word.column, word: word.text.clone(), kind }
    }

    pub(super) const fn line(&self) -> u32 {
        self.line
    }
}
