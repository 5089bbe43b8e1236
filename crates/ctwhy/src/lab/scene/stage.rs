//! Where a story is told: acts, the commands of each with what they print, and what was observed.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use ctwhy_core::tuple::L3;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::report::style::{Palette, Styled};

/// The version of the objects. It changes when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// Something was not as the story has it.
const NOT_OBSERVED: u8 = 1;

/// A fact that the story rests on, as it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Observation {
    /// A stable name for programs.
    code: &'static str,
    #[serde(serialize_with = "family")]
    family: Option<L3>,
    observed: bool,
    /// What is to be observed.
    claim: String,
    /// What was.
    measured: String,
    facts: Map<String, Value>,
}

impl Observation {
    /// `observed` says whether it is as the claim has it.
    pub(super) fn new(code: &'static str, claim: String, observed: bool) -> Observation {
        Observation { code, family: None, observed, claim, measured: String::new(), facts: Map::new() }
    }

    /// Of which family it is.
    pub(super) fn family(self, family: L3) -> Observation {
        Observation { family: Some(family), ..self }
    }

    /// What was measured, in words.
    pub(super) fn measured(self, text: impl Display) -> Observation {
        Observation { measured: text.to_string(), ..self }
    }

    /// What was measured, for programs.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Observation {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Is the same said of another family?
    fn is_twin(&self, other: &Observation) -> bool {
        (self.code, &self.claim, self.observed) == (other.code, &other.claim, other.observed)
            && self.family.is_some()
            && self.family != other.family
    }
}

/// What stands before a line that is about an observation.
const INDENT: &str = "                ";

/// A claim and what was measured, of one family or of both.
fn words(one: &Observation, twin: Option<&Observation>) -> String {
    let Observation { claim, measured, .. } = one;
    let name = |observation: &Observation| observation.family.map_or("", name);
    match twin {
        None if one.family.is_none() => format!("{claim}: {measured}"),
        None => format!("{claim} ({}): {measured}", name(one)),
        Some(twin) if twin.measured == *measured => format!("{claim} ({}, {}): {measured}", name(one), name(twin)),
        Some(twin) => {
            let (one, other) = (name(one), name(twin));
            format!("{claim}\n{INDENT}{one}  {measured}\n{INDENT}{other}  {}", twin.measured)
        }
    }
}

fn family<S: serde::Serializer>(family: &Option<L3>, serializer: S) -> Result<S::Ok, S::Error> {
    match family {
        None => serializer.serialize_none(),
        Some(L3::V4) => serializer.serialize_str("ipv4"),
        Some(L3::V6) => serializer.serialize_str("ipv6"),
    }
}

/// As people write it.
const fn name(family: L3) -> &'static str {
    match family {
        L3::V4 => "IPv4",
        L3::V6 => "IPv6",
    }
}

/// An act, as an object.
#[derive(Debug, Serialize)]
struct Act {
    schema: u32,
    scene: &'static str,
    act: u32,
    title: String,
    commands: Vec<Command>,
    observations: Vec<Observation>,
}

#[derive(Debug, Serialize)]
struct Command {
    node: String,
    command: String,
    output: String,
}

/// The last object.
#[derive(Debug, Serialize)]
struct Sum {
    schema: u32,
    scene: &'static str,
    observed: u32,
    not_observed: u32,
}

/// How the story is told.
#[derive(Clone, Debug)]
pub(super) struct Style {
    /// Objects on standard output, the story on standard error.
    pub(super) json: bool,
    /// All that commands print.
    pub(super) verbose: bool,
    /// Where the captures are kept.
    pub(super) keep: Option<PathBuf>,
    pub(super) palette: Palette,
}

/// Where the story is told.
pub(super) struct Stage {
    scene: &'static str,
    style: Style,
    act: Option<Act>,
    acts: u32,
    /// What was observed and not yet told: of both families it is told in one line.
    untold: Vec<Observation>,
    /// Was an empty line the last that was written?
    gap: bool,
    observed: u32,
    not_observed: u32,
    missed: Vec<String>,
}

impl Stage {
    pub(super) fn new(scene: &'static str, style: Style) -> Stage {
        let (untold, missed) = (Vec::new(), Vec::new());
        Stage { scene, style, act: None, acts: 0, untold, gap: false, observed: 0, not_observed: 0, missed }
    }

    pub(super) fn style(&self) -> &Style {
        &self.style
    }

    /// Words of the story; a line ends where the text has it.
    pub(super) fn tell(&mut self, text: &str) -> io::Result<()> {
        self.tell_observations()?;
        self.say(text)
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.gap = false;
        self.write(text.trim_end())
    }

    /// One empty line, where there is none.
    fn gap(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.gap, true) { Ok(()) } else { self.write("") }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let text = format!("{text}\n");
        if self.style.json { io::stderr().write_all(text.as_bytes()) } else { io::stdout().write_all(text.as_bytes()) }
    }

    /// What was observed stands apart from what was done.
    fn tell_observations(&mut self) -> io::Result<()> {
        let mut untold = std::mem::take(&mut self.untold);
        if untold.is_empty() {
            return Ok(());
        }
        self.gap()?;
        while !untold.is_empty() {
            let one = untold.remove(0);
            let twin = untold.iter().position(|other| one.is_twin(other)).map(|at| untold.remove(at));
            let line = words(&one, twin.as_ref());
            let palette = self.style.palette;
            match one.observed {
                true => self.say(&format!("{} {line}", Styled(palette.good(), "observed     ")))?,
                false => {
                    self.say(&format!("{} {line}", Styled(palette.bad(), "NOT observed ")))?;
                    self.missed.push(line);
                }
            }
            if let Some(act) = &mut self.act {
                act.observations.extend([Some(one), twin].into_iter().flatten());
            }
        }
        self.gap()
    }

    /// The next act begins.
    pub(super) fn act(&mut self, title: &str) -> io::Result<()> {
        self.end_act()?;
        self.acts += 1;
        let title = title.to_owned();
        self.gap()?;
        let heading = format!("━━ {}. {title}", self.acts);
        self.say(&Styled(self.style.palette.heading(), heading).to_string())?;
        let (commands, observations) = (Vec::new(), Vec::new());
        self.act = Some(Act { schema: SCHEMA, scene: self.scene, act: self.acts, title, commands, observations });
        Ok(())
    }

    /// A command on a node and what it printed. Where not everything is asked for, only the lines that are `shown`, and
    /// nothing where there are none; a command that prints nothing is shown where an empty line would be.
    pub(super) fn ran(
        &mut self,
        node: &str,
        command: &str,
        output: &str,
        mut shown: impl FnMut(&str) -> bool,
    ) -> io::Result<()> {
        if let Some(act) = &mut self.act {
            let (node, command, output) = (node.to_owned(), command.to_owned(), output.to_owned());
            act.commands.push(Command { node, command, output });
        }
        let mut text = String::new();
        let (mut some, mut left_out) = (false, false);
        for line in output.trim_end().lines() {
            if self.style.verbose || shown(&without_colours(line)) {
                // Writing into a string does not fail.
                let _ = writeln!(text, "{line}");
                (some, left_out) = (true, false);
            } else if !left_out {
                text += "…\n";
                left_out = true;
            }
        }
        let nothing = output.trim().is_empty() && shown("");
        if some || nothing { self.tell(&format!("{node}$ {command}\n{text}")) } else { Ok(()) }
    }

    /// What was observed.
    pub(super) fn observe(&mut self, observation: Observation) {
        match observation.observed {
            true => self.observed += 1,
            false => self.not_observed += 1,
        }
        self.untold.push(observation);
    }

    fn end_act(&mut self) -> io::Result<()> {
        self.tell_observations()?;
        match self.act.take() {
            Some(act) if self.style.json => object(&act),
            _ => Ok(()),
        }
    }

    /// The end; the exit code says whether everything was observed.
    pub(super) fn finish(mut self) -> io::Result<ExitCode> {
        self.end_act()?;
        let Stage { observed, not_observed, .. } = self;
        if self.style.json {
            object(&Sum { schema: SCHEMA, scene: self.scene, observed, not_observed })?;
        }
        self.gap()?;
        let palette = self.style.palette;
        let total = observed.saturating_add(not_observed);
        if not_observed == 0 {
            self.say(&Styled(palette.good(), format!("all {total} observations were made")).to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        let text = format!("{not_observed} of {total} observations were not made:");
        self.say(&format!("{}\n  {}", Styled(palette.bad(), text), self.missed.join("\n  ")))?;
        Ok(ExitCode::from(NOT_OBSERVED))
    }
}

/// An object and the end of its line, on standard output.
fn object(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    io::stdout().write_all(&text)
}

/// A line without its colours.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, behind)| behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_told_at_once_where_the_same_is_said() {
        let of = |family, measured: &str| {
            Observation::new("code", "something is so".to_owned(), true).family(family).measured(measured)
        };
        let (one, other) = (of(L3::V4, "1"), of(L3::V6, "2"));
        assert!(one.is_twin(&other) && !one.is_twin(&one));
        assert!(!one.is_twin(&Observation { observed: false, ..of(L3::V6, "1") }));
        assert_eq!(words(&one, None), "something is so (IPv4): 1");
        assert_eq!(words(&one, Some(&of(L3::V6, "1"))), "something is so (IPv4, IPv6): 1");
        let lines = words(&one, Some(&other));
        assert_eq!(lines.lines().map(str::trim).collect::<Vec<_>>(), ["something is so", "IPv4  1", "IPv6  2"]);
        assert_eq!(words(&Observation::new("code", "it ends".to_owned(), true).measured(0), None), "it ends: 0");
    }

    #[test]
    fn colours_are_taken_away() {
        assert_eq!(without_colours("a \x1b[1mbold\x1b[0m word"), "a bold word");
        assert_eq!(without_colours("plain"), "plain");
    }
}
