//! Targets of raw, mangle and filter and their options.

use super::ask::Said;
use super::error::{RuleError, RuleErrorKind};
use super::table::{FromWords, Place};
use super::value;
use super::words::{Word, Words};
use crate::direction::Direction;
use crate::rules::matches::Masked;
use crate::rules::target::{Ct, Masks, Reject, Target};
use crate::rules::{Course, TableName};
use crate::template::HelperName;
use crate::tuple::{L3, proto};

impl FromWords for Target {
    fn from_words(
        said: &Said,
        words: &Words,
        place: Place,
        chain: Option<Course>,
        protocol: Option<u8>,
    ) -> Result<Option<Target>, RuleError> {
        let Some((jump, _)) = &said.jump else { return only(said, words, &[], None) };
        let goes_with = |table| match place.table == table {
            true => Ok(()),
            false => Err(words.error(jump, RuleErrorKind::TargetInTable { table })),
        };
        match (jump.text.as_str(), chain) {
            (_, Some(Course::Jump(to))) => only(said, words, &[], Some(Target::Jump(to))),
            (_, Some(Course::Goto(to))) => only(said, words, &[], Some(Target::Goto(to))),
            ("ACCEPT", _) => only(said, words, &[], Some(Target::Accept)),
            ("DROP", _) => only(said, words, &[], Some(Target::Drop)),
            ("RETURN", _) => only(said, words, &[], Some(Target::Return)),
            ("NOTRACK", _) => {
                goes_with(TableName::Raw)?;
                only(said, words, &[], Some(Target::NoTrack))
            }
            ("CT", _) => {
                goes_with(TableName::Raw)?;
                ct(said, words).map(Some)
            }
            ("MARK", _) => set_mark(said, words, jump).map(|masked| Some(Target::Mark(masked))),
            ("CONNMARK", _) => connmark(said, words, jump).map(Some),
            ("REJECT", _) => {
                goes_with(TableName::Filter)?;
                reject(said, words, place, protocol).map(Some)
            }
            (name, _) if is_log(name) => log(said, words).map(|()| Some(Target::Log)),
            ("MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT", _) => goes_with(TableName::Nat).map(|()| None),
            _ => Err(words.error(jump, RuleErrorKind::UnknownTarget)),
        }
    }
}

/// A target, when it has no options but these.
fn only(said: &Said, words: &Words, known: &[&str], target: Option<Target>) -> Result<Option<Target>, RuleError> {
    match said.stray(known) {
        Some(option) => Err(words.error(option, RuleErrorKind::NoTargetOf)),
        None => Ok(target),
    }
}

/// Does the target only tell somebody?
pub(super) fn is_log(name: &str) -> bool {
    matches!(name, "LOG" | "NFLOG")
}

/// Checks the options of LOG and NFLOG, which decide about no packet.
pub(super) fn log(said: &Said, words: &Words) -> Result<(), RuleError> {
    const KNOWN: [&str; 12] = [
        "--log-prefix",
        "--log-level",
        "--log-tcp-sequence",
        "--log-tcp-options",
        "--log-ip-options",
        "--log-uid",
        "--log-macdecode",
        "--nflog-prefix",
        "--nflog-group",
        "--nflog-range",
        "--nflog-size",
        "--nflog-threshold",
    ];
    only(said, words, &KNOWN, None).map(drop)
}

/// Reads the value of an option, where there is one.
fn read<T>(
    said: &Said,
    words: &Words,
    option: &str,
    read: impl FnOnce(&str) -> Result<T, RuleErrorKind>,
) -> Result<Option<T>, RuleError> {
    let Some(value) = said.value(option) else { return Ok(None) };
    read(&value.text).map(Some).map_err(|kind| words.error(value, kind))
}

/// `-j CT`
fn ct(said: &Said, words: &Words) -> Result<Target, RuleError> {
    const ZONES: [(&str, Option<Direction>); 3] =
        [("--zone", None), ("--zone-orig", Some(Direction::Original)), ("--zone-reply", Some(Direction::Reply))];
    if said.has("--notrack") {
        return only(said, words, &["--notrack"], None).map(|_| Target::NoTrack);
    }
    only(said, words, &["--zone", "--zone-orig", "--zone-reply", "--helper", "--ctevents"], None)?;
    let mut ct = Ct::default();
    for (option, _) in said.options() {
        let Some((name, direction)) = ZONES.iter().find(|(name, _)| *name == option.text) else { continue };
        if ct.zone.is_some() {
            return Err(words.error(option, RuleErrorKind::ZoneTwice));
        }
        (ct.zone, ct.only) = (read(said, words, name, value::zone)?, *direction);
    }
    ct.helper = read(said, words, "--helper", |text| HelperName::new(text).ok_or(RuleErrorKind::Helper))?;
    ct.events = read(said, words, "--ctevents", value::events)?;
    Ok(Target::Ct(ct))
}

/// The one of the options that set a mark.
fn set_mark(said: &Said, words: &Words, jump: &Word) -> Result<Masked, RuleError> {
    let mut options = said.options();
    let Some((option, value)) = options.next() else {
        let (mark, connmark) = ("--set-mark MARK", "--set-mark MARK, --save-mark or --restore-mark");
        return Err(words.missing(if jump.text == "MARK" { mark } else { connmark }));
    };
    if let Some((second, _)) = options.next() {
        return Err(words.error(second, RuleErrorKind::NoTargetOf));
    }
    let Some(word) = value else { return Err(words.error(option, RuleErrorKind::NoTargetOf)) };
    let Masked { value, mask } = value::masked(&word.text).map_err(|kind| words.error(word, kind))?;
    Ok(match option.text.as_str() {
        // Clears what it sets, too.
        "--set-mark" => Masked { value, mask: mask | value },
        "--set-xmark" => Masked { value, mask },
        "--and-mark" => Masked { value: 0, mask: !value },
        "--or-mark" => Masked { value, mask: value },
        "--xor-mark" => Masked { value, mask: 0 },
        _ => return Err(words.error(option, RuleErrorKind::NoTargetOf)),
    })
}

/// `-j CONNMARK`
fn connmark(said: &Said, words: &Words, jump: &Word) -> Result<Target, RuleError> {
    const MASKS: [&str; 3] = ["--nfmask", "--ctmask", "--mask"];
    let (save, restore) = (said.has("--save-mark"), said.has("--restore-mark"));
    if save == restore {
        return set_mark(said, words, jump).map(Target::SetConnMark);
    }
    let does = if save { "--save-mark" } else { "--restore-mark" };
    only(said, words, &[&[does][..], &MASKS].concat(), None)?;
    let both = read(said, words, "--mask", value::mark)?.unwrap_or(u32::MAX);
    let packet = read(said, words, "--nfmask", value::mark)?.unwrap_or(both);
    let flow = read(said, words, "--ctmask", value::mark)?.unwrap_or(both);
    let masks = Masks { packet, flow };
    Ok(if save { Target::SaveMark(masks) } else { Target::RestoreMark(masks) })
}

/// `-j REJECT`
fn reject(said: &Said, words: &Words, place: Place, protocol: Option<u8>) -> Result<Target, RuleError> {
    only(said, words, &["--reject-with"], None)?;
    let named = |text: &str| Reject::named(text, place.l3num).ok_or(RuleErrorKind::RejectWith);
    let kind = read(said, words, "--reject-with", named)?.unwrap_or(match place.l3num {
        L3::V4 => Reject::DEFAULT_V4,
        L3::V6 => Reject::DEFAULT_V6,
    });
    match said.value("--reject-with") {
        Some(word) if kind == Reject::RESET && protocol != Some(proto::TCP) => {
            Err(words.error(word, RuleErrorKind::ResetNeedsTcp))
        }
        _ => Ok(Target::Reject(kind)),
    }
}
