//! The words of a rule: what it asks of a packet, and the words of its target for later.

use alloc::string::String;
use alloc::vec::Vec;

use super::error::{RuleError, RuleErrorKind};
use super::table::Place;
use super::value::{self, interface, network, ports, protocol};
use super::words::{Word, Words};
use crate::hook::Hook;
use crate::rules::matches::{Condition, ConntrackMatch, Matches};
use crate::tuple::{L3, proto};

/// The words of a rule that are judged at its end, because they depend on others.
#[derive(Default)]
pub(super) struct Said {
    /// The target, and whether a packet comes back from it if it is a chain: `-j`, not `-g`.
    pub(super) jump: Option<(Word, bool)>,
    /// What needs a protocol in the same rule, and which.
    needs: Vec<(Word, u8)>,
    /// The first of `--sport` and `--dport`.
    ports: Option<Word>,
    /// Options of the target, with their value where they have one.
    options: Vec<(Word, Option<Word>)>,
}

impl Said {
    /// The option of the target that does not belong to it, if there is one.
    pub(super) fn stray(&self, known: &[&str]) -> Option<&Word> {
        self.options.iter().map(|(option, _)| option).find(|option| !known.contains(&option.text.as_str()))
    }

    /// Options of the target, with their values.
    pub(super) fn options(&self) -> impl Iterator<Item = (&Word, Option<&Word>)> {
        self.options.iter().map(|(option, value)| (option, value.as_ref()))
    }

    /// Is there this option of the target?
    pub(super) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(option, _)| option.text == name)
    }

    /// The value of an option of the target.
    pub(super) fn value(&self, name: &str) -> Option<&Word> {
        self.options.iter().find(|(option, _)| option.text == name).and_then(|(_, value)| value.as_ref())
    }
}

/// Options of targets, and what those with a value expect.
fn target_option(name: &str) -> Option<Option<&'static str>> {
    Some(match name {
        "--to-source" | "--to-destination" | "--to-ports" | "--to" => Some("what to translate to"),
        "--zone" | "--zone-orig" | "--zone-reply" => Some("the number of a zone, or mark"),
        "--helper" => Some("the name of a helper"),
        "--ctevents" => Some("events of conntrack"),
        "--set-mark" | "--set-xmark" | "--and-mark" | "--or-mark" | "--xor-mark" => Some("a mark"),
        "--nfmask" | "--ctmask" | "--mask" => Some("the bits of a mark"),
        "--reject-with" => Some("what the sender is told"),
        "--log-prefix" | "--nflog-prefix" => Some("a text"),
        "--log-level" => Some("a level"),
        "--nflog-group" | "--nflog-range" | "--nflog-size" | "--nflog-threshold" => Some("a number"),
        "--random" | "--random-fully" | "--persistent" | "--notrack" | "--save-mark" | "--restore-mark"
        | "--log-tcp-sequence" | "--log-tcp-options" | "--log-ip-options" | "--log-uid" | "--log-macdecode" => None,
        _ => return None,
    })
}

/// A rule while its words are being read.
pub(super) struct RuleWords {
    pub(super) words: Words,
    pub(super) matches: Matches,
    pub(super) said: Said,
    place: Place,
    /// The match whose options may follow: `--mark` is one of two.
    loaded: Loaded,
    /// The `-m conntrack` or `-m state` that is being read.
    conntrack: Option<ConntrackMatch>,
    /// Its name, while it has said nothing.
    silent: Option<Word>,
}

/// The match that was named last, where that makes a difference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Other,
    Mark,
    Connmark,
    Conntrack,
    State,
}

impl RuleWords {
    /// The rest of an `-A` line.
    pub(super) fn read(words: Words, place: Place) -> Result<RuleWords, RuleError> {
        let (matches, said) = (Matches::default(), Said::default());
        let mut rule = RuleWords { words, matches, said, place, loaded: Loaded::Other, conntrack: None, silent: None };
        while let Some(first) = rule.words.next() {
            let negated = first.text == "!";
            let option = if negated { rule.words.expect("a match behind !")? } else { first };
            rule.option(&option, negated)?;
        }
        rule.close()?;
        let protocol = rule.matches.protocol.filter(|condition| !condition.negated).map(|condition| condition.value);
        if let Some((word, _)) = rule.said.needs.iter().find(|(_, needed)| protocol != Some(*needed)) {
            return Err(rule.words.error(word, RuleErrorKind::MatchNeedsProtocol));
        }
        if let Some(word) = &rule.said.ports
            && !matches!(protocol, Some(proto::TCP | proto::UDP))
        {
            return Err(rule.words.error(word, RuleErrorKind::PortsNeedProtocol));
        }
        Ok(rule)
    }

    /// One option, with its value.
    fn option(&mut self, option: &Word, negated: bool) -> Result<(), RuleError> {
        let again = self.words.error(option, RuleErrorKind::Twice);
        let l3num = self.place.l3num;
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
                let value = self.interface(option, &[Hook::PreRouting, Hook::LocalIn, Hook::Forward])?;
                once(&mut self.matches.in_interface, Condition { value, negated }, again)
            }
            "-o" | "--out-interface" => {
                let value = self.interface(option, &[Hook::LocalOut, Hook::PostRouting, Hook::Forward])?;
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
            "--syn" => {
                self.said.needs.push((option.clone(), proto::TCP));
                once(&mut self.matches.tcp_flags, Condition { value: value::SYN, negated }, again)
            }
            "--tcp-flags" => {
                self.said.needs.push((option.clone(), proto::TCP));
                let mask = self.value("the flags that are looked at", value::tcp_flags)?;
                let set = self.value("the flags that are set", value::tcp_flags)?;
                once(&mut self.matches.tcp_flags, Condition { value: (mask, set), negated }, again)
            }
            "--icmp-type" | "--icmpv6-type" => self.icmp_type(option, negated, again),
            "--mark" => match self.loaded {
                Loaded::Mark => {
                    let value = self.value("a mark", value::masked)?;
                    once(&mut self.matches.mark, Condition { value, negated }, again)
                }
                Loaded::Connmark => {
                    let value = self.value("a mark", value::masked)?;
                    once(&mut self.matches.connmark, Condition { value, negated }, again)
                }
                _ => Err(self.words.error(option, RuleErrorKind::UnknownOption)),
            },
            "--ctstate" if self.loaded == Loaded::Conntrack => {
                let value = self.value("states", value::states)?;
                once(&mut self.conntrack().states, Condition { value, negated }, again)
            }
            "--state" if self.loaded == Loaded::State => {
                let value = self.value("states", value::states)?;
                once(&mut self.conntrack().states, Condition { value, negated }, again)
            }
            "--ctstatus" if self.loaded == Loaded::Conntrack => {
                let value = self.value("status bits", value::status)?;
                once(&mut self.conntrack().status, Condition { value, negated }, again)
            }
            "--ctdir" if self.loaded == Loaded::Conntrack && !negated => {
                let value = self.value("ORIGINAL or REPLY", value::direction)?;
                once(&mut self.conntrack().direction, value, again)
            }
            _ if negated => Err(self.words.error(option, RuleErrorKind::NotNegatable)),
            "-m" | "--match" => self.load(),
            "--comment" => self.words.expect("a comment").map(drop),
            "-j" | "--jump" | "-g" | "--goto" => {
                let returns = matches!(option.text.as_str(), "-j" | "--jump");
                let target = self.words.expect("a target")?;
                once(&mut self.said.jump, (target, returns), again)
            }
            name => match target_option(name) {
                None => Err(self.words.error(option, RuleErrorKind::UnknownOption)),
                Some(_) if self.said.has(name) => Err(again),
                Some(what) => {
                    let value = what.map(|what| self.words.expect(what)).transpose()?;
                    self.said.options.push((option.clone(), value));
                    Ok(())
                }
            },
        }
    }

    /// `--icmp-type 8`, `--icmpv6-type 1/4`
    fn icmp_type(&mut self, option: &Word, negated: bool, again: RuleError) -> Result<(), RuleError> {
        let (name, protonum) = match self.place.l3num {
            L3::V4 => ("--icmp-type", proto::ICMP),
            L3::V6 => ("--icmpv6-type", proto::ICMPV6),
        };
        if option.text != name {
            return Err(self.words.error(option, RuleErrorKind::OtherFamily));
        }
        self.said.needs.push((option.clone(), protonum));
        let l3num = self.place.l3num;
        match self.value("a type of ICMP", |text| value::icmp_type(text, l3num))? {
            Some(value) => once(&mut self.matches.icmp_type, Condition { value, negated }, again),
            None if negated => Err(self.words.error(option, RuleErrorKind::NegatesAll)),
            None => Ok(()),
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
        if self.place.hook.is_some_and(|hook| !chains.contains(&hook)) {
            return Err(self.words.error(option, RuleErrorKind::InterfaceInChain));
        }
        self.value("the name of an interface", |text| interface(text).map(String::from))
    }

    /// The `-m conntrack` or `-m state` that is being read.
    fn conntrack(&mut self) -> &mut ConntrackMatch {
        self.silent = None;
        self.conntrack.get_or_insert_default()
    }

    /// Nothing more can be said about the last match.
    fn close(&mut self) -> Result<(), RuleError> {
        self.matches.conntrack.extend(self.conntrack.take());
        match &self.silent {
            Some(word) => Err(self.words.error(word, RuleErrorKind::SaysNothing)),
            None => Ok(()),
        }
    }

    /// `-m NAME`
    fn load(&mut self) -> Result<(), RuleError> {
        self.close()?;
        let name = self.words.expect("the name of a match")?;
        self.loaded = Loaded::Other;
        match (name.text.as_str(), self.place.l3num) {
            ("tcp", _) => self.said.needs.push((name, proto::TCP)),
            ("udp", _) => self.said.needs.push((name, proto::UDP)),
            ("icmp", L3::V4) => self.said.needs.push((name, proto::ICMP)),
            ("icmp6", L3::V6) => self.said.needs.push((name, proto::ICMPV6)),
            ("mark", _) => self.loaded = Loaded::Mark,
            ("connmark", _) => self.loaded = Loaded::Connmark,
            ("conntrack", _) => (self.loaded, self.silent) = (Loaded::Conntrack, Some(name)),
            ("state", _) => (self.loaded, self.silent) = (Loaded::State, Some(name)),
            ("comment", _) => {}
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
