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
    family: Option<&'static str>,
    observed: bool,
    /// What is to be observed.
    claim: String,
    /// What was.
    measured: String,
    facts: Map<String, Value>,
}

impl Observation {
    /// `observed` says whether it is as the claim has it.
    pub(super) fn new(code: &'static str, claim: impl Into<String>, observed: bool) -> Observation {
        let (claim, facts) = (claim.into(), Map::new());
        Observation { code, family: None, observed, claim, measured: String::new(), facts }
    }

    /// Of which family it is.
    pub(super) fn family(mut self, family: L3) -> Observation {
        self.family = Some(match family {
            L3::V4 => "ipv4",
            L3::V6 => "ipv6",
        });
        self.claim += &format!(" ({})", name(family));
        self
    }

    /// What was measured, in words.
    pub(super) fn measured(mut self, text: impl Display) -> Observation {
        self.measured = text.to_string();
        self
    }

    /// What was measured, for programs.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Observation {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}

/// As people write it.
pub(super) const fn name(family: L3) -> &'static str {
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
    /// Was the last thing said an observation?
    observing: bool,
    observed: u32,
    not_observed: Vec<String>,
}

impl Stage {
    pub(super) fn new(scene: &'static str, style: Style) -> Stage {
        Stage { scene, style, act: None, acts: 0, observing: false, observed: 0, not_observed: Vec::new() }
    }

    pub(super) fn style(&self) -> &Style {
        &self.style
    }

    /// Words of the story; a line ends where the text has it.
    pub(super) fn tell(&mut self, text: &str) -> io::Result<()> {
        self.say(false, text)
    }

    /// What was observed stands apart from what was done.
    fn say(&mut self, observing: bool, text: &str) -> io::Result<()> {
        let apart = std::mem::replace(&mut self.observing, observing) != observing && !text.starts_with('\n');
        let text = format!("{}{}\n", if apart { "\n" } else { "" }, text.trim_end());
        if self.style.json { io::stderr().write_all(text.as_bytes()) } else { io::stdout().write_all(text.as_bytes()) }
    }

    /// The next act begins.
    pub(super) fn act(&mut self, title: &str) -> io::Result<()> {
        self.end_act()?;
        self.acts += 1;
        let title = title.to_owned();
        self.tell(&format!("\n{}", Styled(self.style.palette.heading(), format!("━━ {}. {title}", self.acts))))?;
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
    pub(super) fn observe(&mut self, observation: Observation) -> io::Result<()> {
        let palette = self.style.palette;
        let (style, word) =
            if observation.observed { (palette.good(), "observed     ") } else { (palette.bad(), "NOT observed ") };
        self.say(true, &format!("{} {}: {}", Styled(style, word), observation.claim, observation.measured))?;
        match observation.observed {
            true => self.observed += 1,
            false => self.not_observed.push(observation.claim.clone()),
        }
        if let Some(act) = &mut self.act {
            act.observations.push(observation);
        }
        Ok(())
    }

    fn end_act(&mut self) -> io::Result<()> {
        match self.act.take() {
            Some(act) if self.style.json => object(&act),
            _ => Ok(()),
        }
    }

    /// The end; the exit code says whether everything was observed.
    pub(super) fn finish(mut self) -> io::Result<ExitCode> {
        self.end_act()?;
        let not_observed = u32::try_from(self.not_observed.len()).unwrap_or(u32::MAX);
        if self.style.json {
            object(&Sum { schema: SCHEMA, scene: self.scene, observed: self.observed, not_observed })?;
        }
        let total = self.observed.saturating_add(not_observed);
        let palette = self.style.palette;
        if self.not_observed.is_empty() {
            self.tell(&format!("\n{}", Styled(palette.good(), format!("all {total} observations were made"))))?;
            return Ok(ExitCode::SUCCESS);
        }
        let text = format!("{not_observed} of {total} observations were not made:");
        self.tell(&format!("\n{}\n  {}", Styled(palette.bad(), text), self.not_observed.join("\n  ")))?;
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
