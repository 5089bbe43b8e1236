//! The text form of rules: the nat table in what `iptables-save` and `ip6tables-save` print.
//!
//! What a rule says and the engine does not do is an error, never left out: a ruleset that is understood in part gives
//! wrong answers about every packet.

mod error;
mod target;
mod value;
mod words;

use alloc::string::String;
use alloc::vec::Vec;

pub use error::{RuleError, RuleErrorKind};
use target::Said;
use value::{interface, network, ports, protocol};
use words::{Word, Words};

use super::rules::{Chain, Condition, Matches, Rule, Ruleset, Target};
use crate::hook::Hook;
use crate::tuple::{L3, proto};

/// What a text of rules holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The nat table; `None` when the text has none.
    pub nat: Option<Ruleset>,
    /// Names of the other tables. Their rules were not looked at: they translate nothing.
    pub other_tables: Vec<String>,
}

/// Reads rules as `iptables-save` (for [`L3::V4`]) or `ip6tables-save` (for [`L3::V6`]) prints them.
///
/// # Errors
/// [`RuleError`] for the first word that is wrong or that the engine does not do.
pub fn parse(text: &str, l3num: L3) -> Result<Parsed, RuleError> {
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
            table = parsed.begin(name).map_err(|kind| words.error(&first, kind))?;
        } else if first.text == "COMMIT" {
            words.finish()?;
            match core::mem::replace(&mut table, Open::None) {
                Open::Nat(nat) => parsed.nat = Some(nat.ruleset),
                Open::Other => {}
                Open::None => return Err(words.error(&first, RuleErrorKind::OutsideTable)),
            }
        } else if let Open::Nat(nat) = &mut table {
            nat.line(first, words, l3num)?;
        } else {
            let of_a_table = first.text.starts_with([':', '[']) || first.text == "-A";
            let kind = if of_a_table { RuleErrorKind::OutsideTable } else { RuleErrorKind::UnknownLine };
            return Err(words.error(&first, kind));
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
    Nat(Nat),
    Other,
}

impl Parsed {
    fn begin(&mut self, name: &str) -> Result<Open, RuleErrorKind> {
        match name {
            "" => Err(RuleErrorKind::UnknownLine),
            "nat" if self.nat.is_some() => Err(RuleErrorKind::TableTwice),
            "nat" => Ok(Open::Nat(Nat::default())),
            _ => {
                self.other_tables.push(name.into());
                Ok(Open::Other)
            }
        }
    }
}

/// The nat table while it is being read.
#[derive(Default)]
struct Nat {
    ruleset: Ruleset,
    declared: Vec<Hook>,
}

impl Nat {
    fn line(&mut self, first: Word, mut words: Words, l3num: L3) -> Result<(), RuleError> {
        if let Some(name) = first.text.strip_prefix(':') {
            return self.declare(&first, name, words);
        }
        let append = if is_counters(&first.text) { words.expect("-A CHAIN")? } else { first };
        if !matches!(append.text.as_str(), "-A" | "--append") {
            return Err(words.error(&append, RuleErrorKind::UnknownLine));
        }
        let name = words.expect("the name of a chain")?;
        let (hook, chain) = self.chain(&name.text).ok_or_else(|| words.error(&name, RuleErrorKind::UserChain))?;
        let line = words.line();
        if let Some((matches, target)) = rule(words, hook, chain.drops, l3num)? {
            chain.rules.push(Rule { line, matches, target });
        }
        Ok(())
    }

    /// `:PREROUTING ACCEPT [0:0]`
    fn declare(&mut self, first: &Word, name: &str, mut words: Words) -> Result<(), RuleError> {
        let (hook, chain) = self.chain(name).ok_or_else(|| words.error(first, RuleErrorKind::UserChain))?;
        let policy = words.expect("the policy of the chain, ACCEPT or DROP")?;
        chain.drops = match policy.text.as_str() {
            "ACCEPT" => false,
            "DROP" => true,
            _ => return Err(words.error(&policy, RuleErrorKind::Policy)),
        };
        let begun = !chain.rules.is_empty();
        if begun || self.declared.contains(&hook) {
            return Err(words.error(first, RuleErrorKind::ChainTwice));
        }
        self.declared.push(hook);
        match words.next() {
            Some(word) if !is_counters(&word.text) => Err(words.error(&word, RuleErrorKind::TrailingWord)),
            _ => words.finish(),
        }
    }

    fn chain(&mut self, name: &str) -> Option<(Hook, &mut Chain)> {
        Some(match name {
            "PREROUTING" => (Hook::PreRouting, &mut self.ruleset.prerouting),
            "INPUT" => (Hook::LocalIn, &mut self.ruleset.input),
            "OUTPUT" => (Hook::LocalOut, &mut self.ruleset.output),
            "POSTROUTING" => (Hook::PostRouting, &mut self.ruleset.postrouting),
            _ => return None,
        })
    }
}

/// `[packets:bytes]`
fn is_counters(word: &str) -> bool {
    let inside = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    inside.and_then(|rest| rest.split_once(':')).is_some_and(|(packets, bytes)| number(packets) && number(bytes))
}

/// The rest of an `-A` line. `None` for a rule without a target: it counts packets and decides nothing.
fn rule(words: Words, hook: Hook, drops: bool, l3num: L3) -> Result<Option<(Matches, Target)>, RuleError> {
    let mut rule = RuleWords { words, hook, l3num, matches: Matches::default(), said: Said::default() };
    while let Some(first) = rule.words.next() {
        let negated = first.text == "!";
        let option = if negated { rule.words.expect("a match behind !")? } else { first };
        rule.option(&option, negated)?;
    }
    let RuleWords { words, matches, said, .. } = rule;
    let protocol = matches.protocol.filter(|condition| !condition.negated).map(|condition| condition.value);
    if let Some((word, _)) = said.needs.iter().find(|(_, needed)| protocol != Some(*needed)) {
        return Err(words.error(word, RuleErrorKind::MatchNeedsProtocol));
    }
    if let Some(word) = &said.ports
        && !matches!(protocol, Some(proto::TCP | proto::UDP))
    {
        return Err(words.error(word, RuleErrorKind::PortsNeedProtocol));
    }
    let target = said.target(&words, hook, drops, protocol, l3num)?;
    Ok(target.map(|target| (matches, target)))
}

/// A rule while its words are being read.
struct RuleWords {
    words: Words,
    hook: Hook,
    l3num: L3,
    matches: Matches,
    said: Said,
}

impl RuleWords {
    /// One option, with its value.
    fn option(&mut self, option: &Word, negated: bool) -> Result<(), RuleError> {
        let again = self.words.error(option, RuleErrorKind::Twice);
        let l3num = self.l3num;
        match option.text.as_str() {
            "-s" | "--source" | "--src" => {
                let value = self.value("an address", |text| network(text, l3num))?;
                once(&mut self.matches.src, Condition { value, negated }, again)
            }
            "-d" | "--destination" | "--dst" => {
                let value = self.value("an address", |text| network(text, l3num))?;
                once(&mut self.matches.dst, Condition { value, negated }, again)
            }
            "-i" | "--in-interface" => {
                let value = self.interface(option, &[Hook::PreRouting, Hook::LocalIn])?;
                once(&mut self.matches.in_interface, Condition { value, negated }, again)
            }
            "-o" | "--out-interface" => {
                let value = self.interface(option, &[Hook::LocalOut, Hook::PostRouting])?;
                once(&mut self.matches.out_interface, Condition { value, negated }, again)
            }
            "-p" | "--protocol" | "--proto" => match self.value("a protocol", protocol)? {
                Some(value) => once(&mut self.matches.protocol, Condition { value, negated }, again),
                None if negated => Err(self.words.error(option, RuleErrorKind::NegatesAll)),
                None => Ok(()),
            },
            "--sport" | "--source-port" => {
                let value = self.value("a port", ports)?;
                self.said.ports.get_or_insert_with(|| option.clone());
                once(&mut self.matches.sport, Condition { value, negated }, again)
            }
            "--dport" | "--destination-port" => {
                let value = self.value("a port", ports)?;
                self.said.ports.get_or_insert_with(|| option.clone());
                once(&mut self.matches.dport, Condition { value, negated }, again)
            }
            _ if negated => Err(self.words.error(option, RuleErrorKind::NotNegatable)),
            "-m" | "--match" => self.load(),
            "--comment" => self.words.expect("a comment").map(drop),
            "-j" | "--jump" => {
                let target = self.words.expect("a target")?;
                once(&mut self.said.jump, target, again)
            }
            "--to-source" | "--to-destination" | "--to-ports" => {
                let value = self.words.expect("what to translate to")?;
                self.said.add(option, Some(value), again)
            }
            "--random" | "--random-fully" | "--persistent" => self.said.add(option, None, again),
            _ => Err(self.words.error(option, RuleErrorKind::UnknownOption)),
        }
    }

    fn value<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&str) -> Result<T, RuleErrorKind>,
    ) -> Result<T, RuleError> {
        let word = self.words.expect(what)?;
        read(&word.text).map_err(|kind| self.words.error(&word, kind))
    }

    fn interface(&mut self, option: &Word, chains: &[Hook]) -> Result<String, RuleError> {
        if !chains.contains(&self.hook) {
            return Err(self.words.error(option, RuleErrorKind::InterfaceInChain));
        }
        self.value("the name of an interface", |text| interface(text).map(String::from))
    }

    /// `-m NAME`
    fn load(&mut self) -> Result<(), RuleError> {
        let name = self.words.expect("the name of a match")?;
        match name.text.as_str() {
            "tcp" => self.said.needs.push((name, proto::TCP)),
            "udp" => self.said.needs.push((name, proto::UDP)),
            "comment" => {}
            _ => return Err(self.words.error(&name, RuleErrorKind::UnknownMatch)),
        }
        Ok(())
    }
}

fn once<T>(slot: &mut Option<T>, value: T, again: RuleError) -> Result<(), RuleError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(again),
    }
}
