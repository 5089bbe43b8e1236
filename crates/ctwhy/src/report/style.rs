//! Colour: on a terminal only, unless asked for; never with NO_COLOR.

use std::fmt::{self, Display, Formatter};
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use ctwhy_core::direction::CtInfo;

/// `--color`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The colours of a report, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Palette {
    on: bool,
}

impl Palette {
    /// For what goes to standard output.
    pub(crate) fn stdout(when: When) -> Palette {
        let refused = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let on = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => io::stdout().is_terminal() && !refused() && !dumb(),
        };
        Palette { on }
    }

    /// Is there colour?
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    /// No colour.
    pub(crate) const PLAIN: Palette = Palette { on: false };

    pub(crate) fn ctinfo(self, ctinfo: Option<CtInfo>) -> Style {
        let color = match ctinfo {
            Some(CtInfo::New) => AnsiColor::Green,
            Some(CtInfo::Established | CtInfo::EstablishedReply) => AnsiColor::Cyan,
            Some(CtInfo::Related | CtInfo::RelatedReply) => AnsiColor::Yellow,
            Some(CtInfo::Invalid) => AnsiColor::Red,
            Some(CtInfo::Untracked) | None => return self.faint(),
        };
        self.style(color.on_default().bold())
    }

    pub(crate) fn faint(self) -> Style {
        self.style(Style::new().dimmed())
    }

    pub(crate) fn good(self) -> Style {
        self.style(AnsiColor::Green.on_default())
    }

    pub(crate) fn bad(self) -> Style {
        self.style(AnsiColor::Red.on_default().bold())
    }

    pub(crate) fn heading(self) -> Style {
        self.style(Style::new().bold())
    }

    fn style(self, style: Style) -> Style {
        if self.on { style } else { Style::new() }
    }
}

/// Something in a style.
pub(crate) struct Styled<T>(pub(crate) Style, pub(crate) T);

impl<T: Display> Display for Styled<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let style = self.0;
        write!(f, "{style}{}{style:#}", self.1)
    }
}
