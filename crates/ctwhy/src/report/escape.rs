//! Text from packets, captures and rules on its way to a terminal.

use std::fmt::{self, Display, Formatter, Write};

/// Text in which control characters, and marks that turn the direction of writing, are written as escapes.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || turns {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_could_move_it() {
        let text = Escaped("wan\x1b[2J\n\u{9b}1m\u{202e}ü").to_string();
        assert_eq!(text, "wan\\u{1b}[2J\\u{a}\\u{9b}1m\\u{202e}ü");
    }
}
