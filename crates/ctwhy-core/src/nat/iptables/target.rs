//! What a rule does: its target and the options of that, checked as iptables and the kernel check them.

use alloc::vec::Vec;

use super::error::{RuleError, RuleErrorKind};
use super::value::{takes_ports, target_ports, translation};
use super::words::{Word, Words};
use crate::hook::Hook;
use crate::nat::range::Range;
use crate::nat::rules::Target;
use crate::tuple::L3;

/// The words of a rule that are judged at its end, because they depend on others.
#[derive(Default)]
pub(super) struct Said {
    pub(super) jump: Option<Word>,
    /// `tcp` and `udp` behind `-m`, and the protocol that each needs.
    pub(super) needs: Vec<(Word, u8)>,
    /// The first of `--sport` and `--dport`.
    pub(super) ports: Option<Word>,
    /// Options of the target, with their value where they have one.
    options: Vec<(Word, Option<Word>)>,
}

/// A target that translates.
struct Form {
    make: fn(Range) -> Target,
    /// Chains in which iptables takes it, as hooks and in words.
    chains: (&'static [Hook], &'static str),
    options: &'static [&'static str],
    /// The option without which it says nothing.
    wants: Option<&'static str>,
}

const TO_SOURCE: &str = "--to-source";
const TO_DESTINATION: &str = "--to-destination";
const ARRIVING: (&[Hook], &str) = (&[Hook::PreRouting, Hook::LocalOut], "PREROUTING and OUTPUT");

fn form(name: &str) -> Option<Form> {
    Some(match name {
        "MASQUERADE" => Form {
            make: Target::Masquerade,
            chains: (&[Hook::PostRouting], "POSTROUTING"),
            options: &["--to-ports", "--random", "--random-fully"],
            wants: None,
        },
        "SNAT" => Form {
            make: Target::Snat,
            chains: (&[Hook::PostRouting, Hook::LocalIn], "POSTROUTING and INPUT"),
            options: &[TO_SOURCE, "--random", "--random-fully", "--persistent"],
            wants: Some(TO_SOURCE),
        },
        "DNAT" => Form {
            make: Target::Dnat,
            chains: ARRIVING,
            options: &[TO_DESTINATION, "--random", "--persistent"],
            wants: Some(TO_DESTINATION),
        },
        "REDIRECT" => {
            Form { make: Target::Redirect, chains: ARRIVING, options: &["--to-ports", "--random"], wants: None }
        }
        _ => return None,
    })
}

impl Said {
    /// Takes an option of a target.
    pub(super) fn add(&mut self, option: &Word, value: Option<Word>, again: RuleError) -> Result<(), RuleError> {
        if self.options.iter().any(|(known, _)| known.text == option.text) {
            return Err(again);
        }
        self.options.push((option.clone(), value));
        Ok(())
    }

    /// The target; `drops` is the policy of the chain, which RETURN leads to.
    pub(super) fn target(
        &self,
        words: &Words,
        hook: Hook,
        drops: bool,
        protocol: Option<u8>,
        l3num: L3,
    ) -> Result<Option<Target>, RuleError> {
        let found = self.jump.as_ref().map(|jump| (jump, form(&jump.text)));
        let Some((jump, Some(form))) = found else {
            if let Some((option, _)) = self.options.first() {
                return Err(words.error(option, RuleErrorKind::NoTargetOf));
            }
            let Some(jump) = &self.jump else { return Ok(None) };
            return match jump.text.as_str() {
                "RETURN" if drops => Ok(Some(Target::Drop)),
                "ACCEPT" | "RETURN" => Ok(Some(Target::Accept)),
                "DROP" => Err(words.error(jump, RuleErrorKind::DropTarget)),
                _ => Err(words.error(jump, RuleErrorKind::UnknownTarget)),
            };
        };
        let (hooks, chains) = form.chains;
        if !hooks.contains(&hook) {
            return Err(words.error(jump, RuleErrorKind::TargetInChain { chains }));
        }
        let mut range = Range::default();
        for (option, value) in &self.options {
            if !form.options.contains(&option.text.as_str()) {
                return Err(words.error(option, RuleErrorKind::NoTargetOf));
            }
            match value {
                None if option.text == "--persistent" => range.persistent = true,
                None => range.random = true,
                Some(value) => {
                    let to = match option.text.as_str() {
                        "--to-ports" => {
                            target_ports(&value.text).map(|ports| Range { ports: Some(ports), ..Range::default() })
                        }
                        _ => translation(&value.text, l3num),
                    };
                    let to = to.map_err(|kind| words.error(value, kind))?;
                    if to.ports.is_some() && !protocol.is_some_and(takes_ports) {
                        return Err(words.error(value, RuleErrorKind::TargetPortsNeedProtocol));
                    }
                    (range.addresses, range.ports) = (to.addresses, to.ports);
                }
            }
        }
        match form.wants {
            Some(what) if !self.options.iter().any(|(option, _)| option.text == what) => Err(words.missing(what)),
            _ => Ok(Some((form.make)(range))),
        }
    }
}
