//! The text form of rules: what `iptables-save` and `ip6tables-save` print.
//!
//! What a rule says and the engine does not do is an error, never left out: a ruleset that is understood in part gives
//! wrong answers about every packet.

mod act;
mod ask;
mod error;
mod table;
mod translate;
mod value;
mod words;

use alloc::string::String;
use alloc::vec::Vec;

pub use error::{RuleError, RuleErrorKind};
use table::Reader;
use words::Words;

use super::{Rules, TableName, Target};
use crate::nat;
use crate::tuple::L3;

/// What a text of rules holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The tables that were read.
    pub rules: Rules,
    /// Names of the other tables. Their rules were not looked at.
    pub other_tables: Vec<String>,
}

/// Reads rules as `iptables-save` (for [`L3::V4`]) or `ip6tables-save` (for [`L3::V6`]) prints them.
///
/// # Errors
/// [`RuleError`] for the first word that is wrong or that the engine does not do.
pub fn parse(text: &str, l3num: L3) -> Result<Parsed, RuleError> {
    parse_only(text, l3num, &TableName::ALL)
}

/// As [`parse`], but looks at these tables only.
///
/// # Errors
/// As [`parse`].
pub fn parse_only(text: &str, l3num: L3, wanted: &[TableName]) -> Result<Parsed, RuleError> {
    let mut parsed = Parsed::default();
    let mut table = Open::None;
    let mut line = 0;
    for (content, number) in text.lines().zip(1..) {
        line = number;
        if content.trim_start().starts_with('#') {
            continue;
        }
        if matches!(table, Open::Other) && !content.starts_with('*') && content.trim_end() != "COMMIT" {
            continue;
        }
        let mut words = Words::of(content, line)?;
        let Some(first) = words.next() else { continue };
        if let Some(name) = first.text.strip_prefix('*') {
            if !matches!(table, Open::None) {
                return Err(words.error(&first, RuleErrorKind::NotCommitted));
            }
            words.finish()?;
            table = parsed.begin(name, l3num, wanted).map_err(|kind| words.error(&first, kind))?;
        } else if first.text == "COMMIT" {
            words.finish()?;
            if matches!(table, Open::None) {
                return Err(words.error(&first, RuleErrorKind::OutsideTable));
            }
            parsed.commit(core::mem::replace(&mut table, Open::None))?;
        } else {
            match &mut table {
                Open::Nat(reader) => reader.line(first, words)?,
                Open::Filtering(reader) => reader.line(first, words)?,
                Open::None | Open::Other => {
                    let of_a_table = first.text.starts_with([':', '[']) || first.text == "-A";
                    let kind = if of_a_table { RuleErrorKind::OutsideTable } else { RuleErrorKind::UnknownLine };
                    return Err(words.error(&first, kind));
                }
            }
        }
    }
    match table {
        Open::None => Ok(parsed),
        _ => Err(RuleError { line, column: 1, word: String::new(), kind: RuleErrorKind::NotCommitted }),
    }
}

/// The table that the current line is in.
enum Open {
    None,
    Nat(Reader<nat::rules::Target>),
    Filtering(Reader<Target>),
    Other,
}

impl Parsed {
    fn begin(&mut self, name: &str, l3num: L3, wanted: &[TableName]) -> Result<Open, RuleErrorKind> {
        if name.is_empty() {
            return Err(RuleErrorKind::UnknownLine);
        }
        let Some(table) = wanted.iter().copied().find(|table| table.name() == name) else {
            self.other_tables.push(name.into());
            return Ok(Open::Other);
        };
        let there = match table {
            TableName::Nat => self.rules.nat.is_some(),
            _ => self.rules.table(table).is_some(),
        };
        match table {
            _ if there => Err(RuleErrorKind::TableTwice),
            TableName::Nat => Ok(Open::Nat(Reader::new(table, l3num))),
            _ => Ok(Open::Filtering(Reader::new(table, l3num))),
        }
    }

    fn commit(&mut self, table: Open) -> Result<(), RuleError> {
        match table {
            Open::Nat(reader) => self.rules.nat = Some(reader.finish()?),
            Open::Filtering(reader) => {
                let slot = match reader.name {
                    TableName::Raw => &mut self.rules.raw,
                    TableName::Mangle => &mut self.rules.mangle,
                    TableName::Filter | TableName::Nat => &mut self.rules.filter,
                };
                *slot = Some(reader.finish()?);
            }
            Open::None | Open::Other => {}
        }
        Ok(())
    }
}
