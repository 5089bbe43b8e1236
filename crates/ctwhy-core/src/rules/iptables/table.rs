//! One table while it is being read: its chains, and the lines of its rules.

use alloc::string::String;
use alloc::vec::Vec;

use super::ask::{RuleWords, Said};
use super::error::{RuleError, RuleErrorKind};
use super::words::{Word, Words};
use crate::hook::Hook;
use crate::rules::{Chain, ChainId, Course, DEEPEST, Rule, Table, TableName};
use crate::tuple::L3;

/// What depends on where a rule stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) table: TableName,
    /// The hook of its chain; `None` in a chain that rules jump to.
    pub(super) hook: Option<Hook>,
    pub(super) l3num: L3,
}

/// The targets of a kind of table.
pub(super) trait FromWords: Sized {
    /// The target that the words of a rule name; `chain` is the one with the name behind `-j` or `-g`, where the table has
    /// one. `None` for a rule without a target: it counts packets and decides nothing.
    fn from_words(
        said: &Said,
        words: &Words,
        place: Place,
        chain: Option<Course>,
        protocol: Option<u8>,
    ) -> Result<Option<Self>, RuleError>;
}

/// A table while it is being read.
pub(super) struct Reader<T> {
    pub(super) name: TableName,
    l3num: L3,
    table: Table<T>,
    declared: Vec<Hook>,
    /// Names of the chains that rules jump to; their places are their ids.
    own: Vec<String>,
    jumps: Vec<Jump>,
}

/// A rule that leads into another chain.
struct Jump {
    from: Option<ChainId>,
    to: ChainId,
    too_deep: RuleError,
}

/// A chain of the table.
#[derive(Clone, Copy)]
enum Which {
    Base(Hook),
    Own(ChainId),
}

impl<T: FromWords> Reader<T> {
    pub(super) fn new(name: TableName, l3num: L3) -> Reader<T> {
        Reader { name, l3num, table: Table::default(), declared: Vec::new(), own: Vec::new(), jumps: Vec::new() }
    }

    /// A line within the table.
    pub(super) fn line(&mut self, first: Word, mut words: Words) -> Result<(), RuleError> {
        if let Some(name) = first.text.strip_prefix(':') {
            return self.declare(&first, name, words);
        }
        let append = if is_counters(&first.text) { words.expect("-A CHAIN")? } else { first };
        if !matches!(append.text.as_str(), "-A" | "--append") {
            return Err(words.error(&append, RuleErrorKind::UnknownLine));
        }
        let name = words.expect("the name of a chain")?;
        let which = self.which(&name.text).ok_or_else(|| words.error(&name, self.no_chain()))?;
        let line = words.line();
        let hook = match which {
            Which::Base(hook) => Some(hook),
            Which::Own(_) => None,
        };
        let place = Place { table: self.name, hook, l3num: self.l3num };
        let RuleWords { words, matches, said, .. } = RuleWords::read(words, place)?;
        let course = self.jump(&said, &words, which)?;
        let protocol = matches.protocol.filter(|condition| !condition.negated).map(|condition| condition.value);
        if let Some(target) = T::from_words(&said, &words, place, course, protocol)? {
            let rule = Rule { line, matches, target };
            let chain = match which {
                Which::Base(hook) => Some(self.table.chain_mut(hook)),
                Which::Own(ChainId(at)) => self.table.own.get_mut(usize::from(at)),
            };
            if let Some(chain) = chain {
                chain.rules.push(rule);
            }
        }
        Ok(())
    }

    /// `:PREROUTING ACCEPT [0:0]`, `:chain - [0:0]`
    fn declare(&mut self, first: &Word, name: &str, mut words: Words) -> Result<(), RuleError> {
        let policy = words.expect("the policy of the chain, ACCEPT or DROP")?;
        match (self.which(name), policy.text.as_str()) {
            (Some(Which::Own(_)), _) => return Err(words.error(first, RuleErrorKind::ChainTwice)),
            (Some(Which::Base(hook)), policy_name) => {
                let drops = match policy_name {
                    "ACCEPT" => false,
                    "DROP" => true,
                    _ => return Err(words.error(&policy, RuleErrorKind::Policy)),
                };
                let chain = self.table.chain_mut(hook);
                if !chain.rules.is_empty() || self.declared.contains(&hook) {
                    return Err(words.error(first, RuleErrorKind::ChainTwice));
                }
                chain.drops = drops;
                self.declared.push(hook);
            }
            (None, "-") if !name.is_empty() && self.own.len() < usize::from(u16::MAX) => {
                self.own.push(name.into());
                self.table.own.push(Chain::default());
            }
            (None, _) => return Err(words.error(first, self.no_chain())),
        }
        match words.next() {
            Some(word) if !is_counters(&word.text) => Err(words.error(&word, RuleErrorKind::TrailingWord)),
            _ => words.finish(),
        }
    }

    fn no_chain(&self) -> RuleErrorKind {
        RuleErrorKind::NoChain { table: self.name }
    }

    fn which(&self, name: &str) -> Option<Which> {
        let hook = match name {
            "PREROUTING" => Hook::PreRouting,
            "INPUT" => Hook::LocalIn,
            "FORWARD" => Hook::Forward,
            "OUTPUT" => Hook::LocalOut,
            "POSTROUTING" => Hook::PostRouting,
            _ => return self.own(name).map(Which::Own),
        };
        self.name.has(hook).then_some(Which::Base(hook))
    }

    fn own(&self, name: &str) -> Option<ChainId> {
        let at = self.own.iter().position(|own| own == name)?;
        u16::try_from(at).ok().map(ChainId)
    }

    /// Where a rule leads, if it leads into a chain of the table.
    fn jump(&mut self, said: &Said, words: &Words, from: Which) -> Result<Option<Course>, RuleError> {
        let Some((word, returns)) = &said.jump else { return Ok(None) };
        let Some(to) = self.own(&word.text) else {
            return if *returns {
                Ok(None)
            } else {
                Err(words.error(word, RuleErrorKind::NoChain { table: self.name }))
            };
        };
        let from = match from {
            Which::Base(_) => None,
            Which::Own(chain) => Some(chain),
        };
        self.jumps.push(Jump { from, to, too_deep: words.error(word, RuleErrorKind::TooDeep) });
        Ok(Some(if *returns { Course::Jump(to) } else { Course::Goto(to) }))
    }

    /// The table, when no chain leads too deep or in a circle.
    pub(super) fn finish(self) -> Result<Table<T>, RuleError> {
        let mut inside: Vec<ChainId> = Vec::new();
        for depth in 0..DEEPEST {
            let from = |jump: &&Jump| match jump.from {
                None => depth == 0,
                Some(chain) => inside.contains(&chain),
            };
            let leading: Vec<&Jump> = self.jumps.iter().filter(from).collect();
            match leading.first() {
                None => break,
                Some(jump) if depth + 1 == DEEPEST => return Err(jump.too_deep.clone()),
                Some(_) => {}
            }
            let mut reached: Vec<ChainId> = leading.iter().map(|jump| jump.to).collect();
            reached.sort_by_key(|ChainId(at)| *at);
            reached.dedup();
            inside = reached;
        }
        Ok(self.table)
    }
}

/// `[packets:bytes]`
fn is_counters(word: &str) -> bool {
    let inside = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    inside.and_then(|rest| rest.split_once(':')).is_some_and(|(packets, bytes)| number(packets) && number(bytes))
}
