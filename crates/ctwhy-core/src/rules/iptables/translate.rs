//! Targets of the nat table and their options, checked as iptables and the kernel check them.

use super::act::{is_log, log};
use super::ask::Said;
use super::error::{RuleError, RuleErrorKind};
use super::table::{FromWords, Place};
use super::value::{network, takes_ports, target_ports, translation};
use super::words::Words;
use crate::hook::Hook;
use crate::nat::range::Range;
use crate::nat::rules::Target;
use crate::rules::Course;
use crate::rules::matches::address_bits;
use crate::tuple::Addr;

/// A target that translates.
struct Form {
    make: fn(Range) -> Target,
    /// Chains in which iptables takes it, as hooks and in words.
    chains: (&'static [Hook], &'static str),
    options: &'static [&'static str],
    /// The option without which it says nothing.
    wants: Option<&'static str>,
}

const TO: &str = "--to";
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
        "NETMAP" => Form {
            make: Target::Netmap,
            chains: (
                &[Hook::PreRouting, Hook::LocalOut, Hook::PostRouting, Hook::LocalIn],
                "PREROUTING, OUTPUT, POSTROUTING and INPUT",
            ),
            options: &[TO],
            wants: Some(TO),
        },
        "REDIRECT" => {
            Form { make: Target::Redirect, chains: ARRIVING, options: &["--to-ports", "--random"], wants: None }
        }
        _ => return None,
    })
}

impl FromWords for Target {
    fn from_words(
        said: &Said,
        words: &Words,
        place: Place,
        chain: Option<Course>,
        protocol: Option<u8>,
    ) -> Result<Option<Target>, RuleError> {
        let found =
            said.jump.as_ref().filter(|_| chain.is_none()).and_then(|(jump, _)| Some((jump, form(&jump.text)?)));
        let Some((jump, form)) = found else { return plain(said, words, chain) };
        let (hooks, chains) = form.chains;
        if place.hook.is_some_and(|hook| !hooks.contains(&hook)) {
            return Err(words.error(jump, RuleErrorKind::TargetInChain { chains }));
        }
        if let Some(option) = said.stray(form.options) {
            return Err(words.error(option, RuleErrorKind::NoTargetOf));
        }
        let mut range = Range::default();
        for (option, value) in said.options() {
            match value {
                None if option.text == "--persistent" => range.persistent = true,
                None => range.random = true,
                Some(value) => {
                    let to = match option.text.as_str() {
                        "--to-ports" => {
                            target_ports(&value.text).map(|ports| Range { ports: Some(ports), ..Range::default() })
                        }
                        TO => network(&value.text, place.l3num).map(|network| {
                            let host = !u128::MAX.checked_shl(128 - u32::from(network.prefix)).unwrap_or(0);
                            let host =
                                host & !(u128::MAX.checked_shr(u32::from(address_bits(place.l3num))).unwrap_or(0));
                            let last = Addr((u128::from_be_bytes(network.address.0) | host).to_be_bytes());
                            Range { addresses: Some((network.address, last)), ..Range::default() }
                        }),
                        _ => translation(&value.text, place.l3num),
                    };
                    let to = to.map_err(|kind| words.error(value, kind))?;
                    if to.shifted_from.is_some() && option.text != TO_DESTINATION {
                        return Err(words.error(value, RuleErrorKind::ShiftedPorts));
                    }
                    if to.ports.is_some() && !protocol.is_some_and(takes_ports) {
                        return Err(words.error(value, RuleErrorKind::TargetPortsNeedProtocol));
                    }
                    (range.addresses, range.ports, range.shifted_from) = (to.addresses, to.ports, to.shifted_from);
                }
            }
        }
        match form.wants {
            Some(what) if !said.has(what) => Err(words.missing(what)),
            _ => Ok(Some((form.make)(range))),
        }
    }
}

/// A target that does not translate.
fn plain(said: &Said, words: &Words, chain: Option<Course>) -> Result<Option<Target>, RuleError> {
    let logs = said.jump.as_ref().is_some_and(|(jump, _)| is_log(&jump.text));
    if !logs && let Some(option) = said.stray(&[]) {
        return Err(words.error(option, RuleErrorKind::NoTargetOf));
    }
    let Some((jump, _)) = &said.jump else { return Ok(None) };
    match (jump.text.as_str(), chain) {
        (_, Some(Course::Jump(to))) => Ok(Some(Target::Jump(to))),
        (_, Some(Course::Goto(to))) => Ok(Some(Target::Goto(to))),
        ("ACCEPT", _) => Ok(Some(Target::Accept)),
        ("RETURN", _) => Ok(Some(Target::Return)),
        _ if logs => log(said, words).map(|()| Some(Target::Log)),
        ("DROP", _) => Err(words.error(jump, RuleErrorKind::DropTarget)),
        _ => Err(words.error(jump, RuleErrorKind::UnknownTarget)),
    }
}
